package vectord

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// ParseFilter reads the JSON form of a filter and checks its limits. "null" and "{}" give nil.
func ParseFilter(b []byte) (*Filter, error) {
	if depth := JSONDepth(b); depth > filterBrackets {
		return nil, Errorf(KindInvalid, "filter: nested %d brackets deep, at most %d are accepted", depth, filterBrackets)
	}
	var f *Filter
	if err := json.Unmarshal(b, &f); err != nil {
		if KindOf(err) != KindInternal {
			return nil, err
		}
		return nil, Errorf(KindInvalid, "filter: %v", err)
	}
	if err := f.Check(); err != nil {
		return nil, err
	}
	if f.Empty() {
		return nil, nil
	}
	return f, nil
}

// fields are the members of a JSON object. One that is null is the same as absent.
type fields map[string]json.RawMessage

// object reads a JSON object, none of whose keys is beside the known ones.
func object(b []byte, what string, known ...string) (f fields, err error) {
	if err := json.Unmarshal(b, &f); err != nil || f == nil {
		return nil, Errorf(KindInvalid, "%s: expected an object, got %s", what, shorten(b))
	}
	return f, f.only(what, known...)
}

// read takes the value of the key off the stream.
func (f fields) read(d *json.Decoder, key string) error {
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return err
	}
	f[key] = value
	return nil
}

// only refuses a key that is not known, as ignoring it would change the meaning.
func (f fields) only(what string, known ...string) error {
	for key := range f {
		if !slices.Contains(known, key) {
			return unknownField(what, key, known)
		}
	}
	return nil
}

func unknownField(what, key string, known []string) error {
	return Errorf(KindInvalid, "%s: unknown field %q, expected one of %s", what, shorten([]byte(key)), strings.Join(known, ", "))
}

func (f fields) has(key string) bool {
	value, ok := f[key]
	return ok && string(value) != "null"
}

func shorten(b []byte) string {
	if len(b) > 60 {
		return string(b[:60]) + "…"
	}
	return string(b)
}

// wrongForm is the error for a value that is not of its form. One that says more about it is kept.
func wrongForm(err error, what, expected string, got []byte) error {
	if KindOf(err) != KindInternal {
		return err
	}
	return Errorf(KindInvalid, "%s: expected %s, got %s", what, expected, shorten(got))
}

// decode reads the value of a key, if there is one, into dst.
func decode[T any](f fields, key, expected string, dst *T) error {
	if !f.has(key) {
		return nil
	}
	if err := json.Unmarshal(f[key], dst); err != nil {
		return wrongForm(err, key, expected, f[key])
	}
	return nil
}

// required is decode, but of a key that must be there.
func required[T any](f fields, what, key, expected string, dst *T) error {
	if !f.has(key) {
		return Errorf(KindInvalid, "%s: %s is missing", what, key)
	}
	return decode(f, key, expected, dst)
}

// firstOf returns the first error.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Filters within filters are read from one stream, each byte once: to read every level's text anew would take time by size
// times depth, and a request's worth of it for one hostile filter.

var filterKeys = []string{"must", "should", "must_not", "min_should"}

// UnmarshalJSON implements json.Unmarshaler.
func (f *Filter) UnmarshalJSON(b []byte) error {
	*f = Filter{}
	return readObject(b, "filter", f.read)
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *Condition) UnmarshalJSON(b []byte) error {
	*c = Condition{}
	return readObject(b, "filter condition", c.read)
}

// readObject calls read with a stream of b, whose first bracket is taken off.
func readObject(b []byte, what string, read func(*json.Decoder) error) error {
	if len(b) == 0 || b[0] != '{' {
		return Errorf(KindInvalid, "%s: expected an object, got %s", what, shorten(b))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	return read(d)
}

// read takes the rest of a filter, whose bracket is open, off the stream.
func (f *Filter) read(d *json.Decoder) error {
	return eachMember(d, func(key string) error {
		known, err := f.readMember(d, key)
		if err == nil && !known {
			err = unknownField("filter", key, filterKeys)
		}
		return err
	})
}

// readMember reads the value of the key if it is one of a filter.
func (f *Filter) readMember(d *json.Decoder, key string) (known bool, err error) {
	switch key {
	case "must":
		f.Must, err = readConditions(d, key, true)
	case "should":
		f.Should, err = readConditions(d, key, true)
	case "must_not":
		f.MustNot, err = readConditions(d, key, true)
	case "min_should":
		f.MinShould, err = readMinShould(d)
	default:
		return false, nil
	}
	return true, err
}

// eachMember calls read with each key of an object whose bracket is open, to take its value off the stream.
func eachMember(d *json.Decoder, read func(key string) error) error {
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := token.(string) // what else the decoder would have refused
		if err := read(key); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// open takes the bracket that opens an object off the stream; ok is false for null.
func open(d *json.Decoder, what string) (ok bool, err error) {
	token, err := d.Token()
	if err != nil || token == nil {
		return false, err
	}
	if token != json.Delim('{') {
		return false, Errorf(KindInvalid, "%s: expected an object, got %s", what, shorten(fmt.Append(nil, token)))
	}
	return true, nil
}

// readConditions reads a list of conditions, or one alone where that may be. Null and an empty list give nil.
func readConditions(d *json.Decoder, what string, orOne bool) ([]Condition, error) {
	token, err := d.Token()
	switch {
	case err != nil || token == nil:
		return nil, err
	case token == json.Delim('{') && orOne:
		list := make([]Condition, 1)
		return list, list[0].read(d)
	case token != json.Delim('['):
		return nil, Errorf(KindInvalid, "%s: expected a list of conditions, got %s", what, shorten(fmt.Append(nil, token)))
	}
	var list []Condition
	for d.More() {
		ok, err := open(d, "filter condition")
		if err == nil && !ok {
			err = Errorf(KindInvalid, "filter condition: expected an object, got null")
		}
		if err != nil {
			return nil, err
		}
		if len(list) == MaxFilterConditions {
			return nil, Errorf(KindInvalid, "filter: more than %d conditions", MaxFilterConditions)
		}
		list = append(list, Condition{})
		if err := list[len(list)-1].read(d); err != nil {
			return nil, err
		}
	}
	_, err = d.Token()
	return list, err
}

func readMinShould(d *json.Decoder) (*MinShould, error) {
	const what = "min_should"
	if ok, err := open(d, what); err != nil || !ok {
		return nil, err
	}
	m := &MinShould{}
	f := fields{}
	given := false
	err := eachMember(d, func(key string) (err error) {
		if key == "conditions" {
			given = true
			m.Conditions, err = readConditions(d, key, false)
			return err
		}
		return f.read(d, key)
	})
	if err == nil && !given {
		err = Errorf(KindInvalid, "%s: conditions is missing", what)
	}
	return m, firstOf(err, f.only(what, "min_count"), required(f, what, "min_count", "an integer", &m.Count))
}

func readNested(d *json.Decoder) (*Nested, error) {
	const what = "nested"
	if ok, err := open(d, what); err != nil || !ok {
		return nil, err
	}
	n := &Nested{}
	f := fields{}
	err := eachMember(d, func(key string) error {
		if key != "filter" {
			return f.read(d, key)
		}
		ok, err := open(d, key)
		if err != nil || !ok {
			return err
		}
		n.Filter = &Filter{}
		return n.Filter.read(d)
	})
	return n, firstOf(err, f.only(what, "key"), required(f, what, "key", "a payload path", &n.Key))
}

// filterJSON is how a filter is written.
type filterJSON struct {
	Must      []Condition `json:"must,omitempty"`
	Should    []Condition `json:"should,omitempty"`
	MustNot   []Condition `json:"must_not,omitempty"`
	MinShould *MinShould  `json:"min_should,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (f *Filter) MarshalJSON() ([]byte, error) {
	return json.Marshal(filterJSON{f.Must, f.Should, f.MustNot, f.MinShould})
}

// MarshalJSON implements json.Marshaler.
func (m *MinShould) MarshalJSON() ([]byte, error) {
	conditions := m.Conditions
	if conditions == nil {
		conditions = []Condition{}
	}
	return json.Marshal(struct {
		Conditions []Condition `json:"conditions"`
		Count      int         `json:"min_count"`
	}{conditions, m.Count})
}

// read takes the rest of a condition, whose bracket is open, off the stream. It decides by the keys which kind it is, and
// refuses keys of two kinds.
func (c *Condition) read(d *json.Decoder) error {
	const what = "filter condition"
	sub := new(Filter)
	f := fields{}
	ofFilter := ""
	err := eachMember(d, func(key string) (err error) {
		known, err := sub.readMember(d, key)
		switch {
		case err != nil:
			return err
		case known:
			ofFilter = key
			return nil
		case key == "nested":
			f[key] = nil
			c.Nested, err = readNested(d)
			return err
		}
		return f.read(d, key)
	})
	if err != nil {
		return err
	}
	if len(f) == 0 {
		c.Filter = sub // an empty object is the empty filter, which holds for every point
		return nil
	}
	if ofFilter != "" {
		f[ofFilter] = nil // which is a key too many for what follows
	}
	if _, ok := f["key"]; ok {
		c.Field = new(FieldCondition)
		return c.Field.decode(f)
	}
	for _, kind := range conditionKinds {
		if _, ok := f[kind]; ok {
			return firstOf(f.only(what, kind), c.decode(kind, f))
		}
	}
	if err := f.only(what, slices.Concat(filterKeys, conditionKinds, fieldKeys)...); err != nil {
		return err
	}
	return Errorf(KindInvalid, "filter condition: key is missing beside %s", strings.Join(slices.Sorted(maps.Keys(f)), ", "))
}

// conditionKinds are the keys of conditions that have one key only. None of them may be null: absent would select every
// point.
var conditionKinds = []string{"has_id", "has_vector", "is_empty", "is_null", "nested", "slice"}

// decode reads the value of the one key that a condition of this kind has.
func (c *Condition) decode(kind string, f fields) error {
	const what = "filter condition"
	switch kind {
	case "has_id":
		return required(f, what, kind, "a list of ids", &c.HasID)
	case "has_vector":
		return required(f, what, kind, "the name of a vector", &c.HasVector)
	case "nested":
		if c.Nested == nil {
			return Errorf(KindInvalid, "filter condition: nested is missing")
		}
		return nil
	case "slice":
		return required(f, what, kind, "an object", &c.Slice)
	}
	var path pathJSON
	if err := required(f, what, kind, `{"key": path}`, &path); err != nil {
		return err
	}
	if path.Key == "" {
		return Errorf(KindUnprocessable, "filter condition: key of %s is empty", kind)
	}
	if kind == "is_empty" {
		c.IsEmpty = path.Key
	} else {
		c.IsNull = path.Key
	}
	return nil
}

// pathJSON is {"key": path}.
type pathJSON struct {
	Key string `json:"key"`
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *pathJSON) UnmarshalJSON(b []byte) error {
	f, err := object(b, "filter condition", "key")
	if err != nil {
		return err
	}
	return required(f, "filter condition", "key", "a payload path", &p.Key)
}

// MarshalJSON implements json.Marshaler.
func (c Condition) MarshalJSON() ([]byte, error) {
	switch {
	case c.Filter != nil:
		return json.Marshal(c.Filter)
	case c.Field != nil:
		return json.Marshal(c.Field)
	}
	w := struct {
		HasID     *[]PointID `json:"has_id,omitempty"`
		HasVector *string    `json:"has_vector,omitempty"`
		Nested    *Nested    `json:"nested,omitempty"`
		Slice     *Slice     `json:"slice,omitempty"`
		IsEmpty   *pathJSON  `json:"is_empty,omitempty"`
		IsNull    *pathJSON  `json:"is_null,omitempty"`
	}{HasID: c.HasID, HasVector: c.HasVector, Nested: c.Nested, Slice: c.Slice}
	if c.HasID != nil && *c.HasID == nil {
		w.HasID = &[]PointID{}
	}
	if c.IsEmpty != "" {
		w.IsEmpty = &pathJSON{c.IsEmpty}
	}
	if c.IsNull != "" {
		w.IsNull = &pathJSON{c.IsNull}
	}
	return json.Marshal(w)
}

// MarshalJSON implements json.Marshaler.
func (n *Nested) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Key    string  `json:"key"`
		Filter *Filter `json:"filter"`
	}{n.Key, n.Filter})
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Slice) UnmarshalJSON(b []byte) error {
	f, err := object(b, "slice", "total", "index")
	if err != nil {
		return err
	}
	*s = Slice{}
	const number = "an unsigned 32-bit integer"
	return firstOf(required(f, "slice", "total", number, &s.Total), required(f, "slice", "index", number, &s.Index))
}

var fieldKeys = []string{"key", "match", "range", "geo_bounding_box", "geo_radius", "geo_polygon", "values_count", "is_empty", "is_null"}

func (c *FieldCondition) decode(f fields) error {
	const what = "filter condition"
	*c = FieldCondition{}
	if err := firstOf(
		f.only(what, fieldKeys...),
		required(f, what, "key", "a payload path", &c.Key),
		decode(f, "match", "an object", &c.Match),
		decode(f, "geo_bounding_box", "an object", &c.GeoBox),
		decode(f, "geo_radius", "an object", &c.GeoRadius),
		decode(f, "geo_polygon", "an object", &c.GeoPolygon),
		decode(f, "values_count", "an object", &c.ValuesCount),
		decode(f, "is_empty", "true or false", &c.IsEmpty),
		decode(f, "is_null", "true or false", &c.IsNull),
	); err != nil || !f.has("range") {
		return err
	}
	ofDates, err := hasStringBound(f["range"])
	switch {
	case err != nil:
		return err
	case ofDates:
		return decode(f, "range", "dates", &c.Datetime)
	default:
		return decode(f, "range", "numbers", &c.Range)
	}
}

// MarshalJSON implements json.Marshaler.
func (c *FieldCondition) MarshalJSON() ([]byte, error) {
	var bounds any
	switch {
	case c.Range != nil:
		bounds = c.Range
	case c.Datetime != nil:
		bounds = c.Datetime
	}
	return json.Marshal(struct {
		Key         string      `json:"key"`
		Match       *Match      `json:"match,omitempty"`
		Range       any         `json:"range,omitempty"`
		GeoBox      *GeoBox     `json:"geo_bounding_box,omitempty"`
		GeoRadius   *GeoRadius  `json:"geo_radius,omitempty"`
		GeoPolygon  *GeoPolygon `json:"geo_polygon,omitempty"`
		ValuesCount *CountRange `json:"values_count,omitempty"`
		IsEmpty     *bool       `json:"is_empty,omitempty"`
		IsNull      *bool       `json:"is_null,omitempty"`
	}{c.Key, c.Match, bounds, c.GeoBox, c.GeoRadius, c.GeoPolygon, c.ValuesCount, c.IsEmpty, c.IsNull})
}

// UnmarshalJSON reads a match by the one key it has.
func (m *Match) UnmarshalJSON(b []byte) error {
	f, err := object(b, "match", "value", "any", "except", "text", "text_any", "phrase", "prefix")
	if err != nil {
		return err
	}
	*m = Match{}
	const list, text = "a list of strings, integers or bools", "a string"
	return firstOf(
		decode(f, "value", "a string, an integer or a bool", &m.Value),
		decode(f, "any", list, &m.Any),
		decode(f, "except", list, &m.Except),
		decode(f, "text", text, &m.Text),
		decode(f, "text_any", text, &m.TextAny),
		decode(f, "phrase", text, &m.Phrase),
		decode(f, "prefix", text, &m.Prefix))
}

// MarshalJSON implements json.Marshaler.
func (m Match) MarshalJSON() ([]byte, error) {
	for _, list := range []**[]Scalar{&m.Any, &m.Except} {
		if *list != nil && **list == nil { // null would be no list
			*list = &[]Scalar{}
		}
	}
	return json.Marshal(struct {
		Value   *Scalar   `json:"value,omitempty"`
		Any     *[]Scalar `json:"any,omitempty"`
		Except  *[]Scalar `json:"except,omitempty"`
		Text    *string   `json:"text,omitempty"`
		TextAny *string   `json:"text_any,omitempty"`
		Phrase  *string   `json:"phrase,omitempty"`
		Prefix  *string   `json:"prefix,omitempty"`
	}(m))
}

// UnmarshalJSON reads a string, an integer or a bool.
func (s *Scalar) UnmarshalJSON(b []byte) error {
	*s = Scalar{}
	b = bytes.TrimSpace(b)
	switch {
	case len(b) > 0 && b[0] == '"':
		s.Kind = ScalarString
		return json.Unmarshal(b, &s.String)
	case string(b) == "true" || string(b) == "false":
		s.Kind, s.Bool = ScalarBool, b[0] == 't'
		return nil
	}
	n, ok := parseInt(b)
	if !ok {
		return Errorf(KindInvalid, "match: expected a string, an integer or a bool, got %s", shorten(b))
	}
	s.Kind, s.Int = ScalarInt, n
	return nil
}

// MarshalJSON implements json.Marshaler.
func (s Scalar) MarshalJSON() ([]byte, error) {
	switch s.Kind {
	case ScalarString:
		return json.Marshal(s.String)
	case ScalarInt:
		return json.Marshal(s.Int)
	case ScalarBool:
		return json.Marshal(s.Bool)
	}
	return nil, fmt.Errorf("scalar of unknown kind %d", s.Kind)
}

var boundKeys = []string{"gt", "gte", "lt", "lte"}

// hasStringBound reports whether one of the bounds is a string.
func hasStringBound(b []byte) (bool, error) {
	f, err := object(b, "range", boundKeys...)
	if err != nil {
		return false, err
	}
	for _, bound := range f {
		if bound[0] == '"' {
			return true, nil
		}
	}
	return false, nil
}

// UnmarshalJSON reads bounds; null is no bound.
func (b *Bounds[T]) UnmarshalJSON(text []byte) error {
	f, err := object(text, "range", boundKeys...)
	if err != nil {
		return err
	}
	*b = Bounds[T]{}
	for _, bound := range []struct {
		key string
		dst **T
	}{{"gt", &b.GT}, {"gte", &b.GTE}, {"lt", &b.LT}, {"lte", &b.LTE}} {
		if err := decode(f, bound.key, "a bound like the others, and with values_count an unsigned integer", bound.dst); err != nil {
			return err
		}
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (p *GeoPoint) UnmarshalJSON(b []byte) error {
	f, err := object(b, "geo point", "lon", "lat")
	if err != nil {
		return err
	}
	*p = GeoPoint{}
	return firstOf(required(f, "geo point", "lon", "a number", &p.Lon), required(f, "geo point", "lat", "a number", &p.Lat))
}

// UnmarshalJSON implements json.Unmarshaler.
func (g *GeoBox) UnmarshalJSON(b []byte) error {
	f, err := object(b, "geo_bounding_box", "top_left", "bottom_right")
	if err != nil {
		return err
	}
	*g = GeoBox{}
	return firstOf(required(f, "geo_bounding_box", "top_left", "a geo point", &g.TopLeft),
		required(f, "geo_bounding_box", "bottom_right", "a geo point", &g.BottomRight))
}

// UnmarshalJSON implements json.Unmarshaler.
func (g *GeoRadius) UnmarshalJSON(b []byte) error {
	f, err := object(b, "geo_radius", "center", "radius")
	if err != nil {
		return err
	}
	*g = GeoRadius{}
	return firstOf(required(f, "geo_radius", "center", "a geo point", &g.Center),
		required(f, "geo_radius", "radius", "a number", &g.Radius))
}

// UnmarshalJSON implements json.Unmarshaler.
func (g *GeoPolygon) UnmarshalJSON(b []byte) error {
	f, err := object(b, "geo_polygon", "exterior", "interiors")
	if err != nil {
		return err
	}
	*g = GeoPolygon{}
	err = firstOf(required(f, "geo_polygon", "exterior", "an object", &g.Exterior),
		decode(f, "interiors", "a list of objects", &g.Interiors))
	if len(g.Interiors) == 0 {
		g.Interiors = nil
	}
	return err
}

// MarshalJSON implements json.Marshaler.
func (g *GeoPolygon) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Exterior  GeoRing   `json:"exterior"`
		Interiors []GeoRing `json:"interiors,omitempty"`
	}{g.Exterior, g.Interiors})
}

// UnmarshalJSON reads {"points": [...]}.
func (r *GeoRing) UnmarshalJSON(b []byte) error {
	f, err := object(b, "geo_polygon", "points")
	if err != nil {
		return err
	}
	return required(f, "geo_polygon", "points", "a list of geo points", (*[]GeoPoint)(r))
}

// MarshalJSON implements json.Marshaler.
func (r GeoRing) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Points []GeoPoint `json:"points"`
	}{r})
}
