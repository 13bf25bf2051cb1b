package vectord

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Filter selects points: all of Must, at least one of Should (if there are any), none of MustNot, and at least
// MinShould.Count of MinShould.Conditions. A nil or empty filter selects every point.
//
// Its JSON form is the one of the HTTP API, which is also how a command in the log carries it. A condition that this
// server does not know is an error: ignoring it would answer another question.
type Filter struct {
	Must      []Condition
	Should    []Condition
	MustNot   []Condition
	MinShould *MinShould
}

// MinShould asks for at least Count of Conditions to hold.
type MinShould struct {
	Conditions []Condition `json:"conditions"`
	Count      int         `json:"min_count"`
}

// Condition is one test of a point. Exactly one of the fields is set.
type Condition struct {
	Filter  *Filter    // a filter within a filter
	HasID   *[]PointID // the point's id is one of these
	IsEmpty string     // the value at this payload path is missing, null or []
	IsNull  string     // the value at this payload path is null, or an array holding null
	Field   *FieldCondition
}

// FieldCondition tests the values at a payload path: a scalar there, or any element of an array there. Where several of
// the tests are set, one that holds is enough.
type FieldCondition struct {
	Key         string
	Match       *Match
	Range       *Range
	ValuesCount *Range // of the number of values at the path; a missing one counts as 0
	IsEmpty     *bool
	IsNull      *bool
}

// Match compares a payload value with given ones. Exactly one of the fields is set.
type Match struct {
	Value  *Scalar
	Any    *[]Scalar // one of these; none of an empty list
	Except *[]Scalar // present, not null and none of these
	Text   *string   // the string contains this, case matters
}

// Scalar is a string, an integer or a bool: what payload values are matched with. Floats are compared by Range.
type Scalar struct {
	Kind   ScalarKind
	String string
	Int    int64
	Bool   bool
}

// ScalarKind tells which field of a Scalar holds its value.
type ScalarKind uint8

// The kinds of scalar.
const (
	ScalarString ScalarKind = iota + 1
	ScalarInt
	ScalarBool
)

// Range holds for numbers x with all of the given bounds: GT < x, GTE <= x, x < LT, x <= LTE.
type Range struct {
	GT  *float64 `json:"gt,omitempty"`
	GTE *float64 `json:"gte,omitempty"`
	LT  *float64 `json:"lt,omitempty"`
	LTE *float64 `json:"lte,omitempty"`
}

// Contains reports whether x is within the bounds.
func (r *Range) Contains(x float64) bool {
	return (r.GT == nil || x > *r.GT) && (r.GTE == nil || x >= *r.GTE) &&
		(r.LT == nil || x < *r.LT) && (r.LTE == nil || x <= *r.LTE)
}

// Empty reports whether the filter selects every point.
func (f *Filter) Empty() bool {
	return f == nil || len(f.Must) == 0 && len(f.Should) == 0 && len(f.MustNot) == 0 && f.MinShould == nil
}

// filterJSON is the filter on the wire: each clause is one condition or a list of them.
type filterJSON struct {
	Must      clause     `json:"must,omitempty"`
	Should    clause     `json:"should,omitempty"`
	MustNot   clause     `json:"must_not,omitempty"`
	MinShould *MinShould `json:"min_should,omitempty"`
}

type clause []Condition

func (c *clause) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]Condition)(c))
	}
	if string(b) == "null" {
		return nil
	}
	var one Condition
	if err := json.Unmarshal(b, &one); err != nil {
		return err
	}
	*c = clause{one}
	return nil
}

// ParseFilter reads the JSON form of a filter and checks its limits. "null" and "{}" give nil.
func ParseFilter(b []byte) (*Filter, error) {
	if depth := JSONDepth(b); depth > 4*MaxFilterDepth {
		return nil, Errorf(KindInvalid, "filter: nested %d brackets deep, at most %d are accepted", depth, 4*MaxFilterDepth)
	}
	var f *Filter
	if err := json.Unmarshal(b, &f); err != nil {
		if KindOf(err) != KindInternal {
			return nil, err
		}
		return nil, Errorf(KindInvalid, "filter: %v", err)
	}
	if f == nil {
		return nil, nil
	}
	conditions := 0
	if err := f.check(1, &conditions); err != nil {
		return nil, err
	}
	if f.Empty() {
		return nil, nil
	}
	return f, nil
}

func (f *Filter) check(depth int, conditions *int) error {
	if depth > MaxFilterDepth {
		return Errorf(KindInvalid, "filter: nested deeper than %d filters", MaxFilterDepth)
	}
	lists := [][]Condition{f.Must, f.Should, f.MustNot}
	if f.MinShould != nil {
		if f.MinShould.Count < 1 {
			return Errorf(KindUnprocessable, "filter.min_should.min_count: value %d invalid, must be 1 or larger", f.MinShould.Count)
		}
		lists = append(lists, f.MinShould.Conditions)
	}
	for _, list := range lists {
		*conditions += len(list)
		if *conditions > MaxFilterConditions {
			return Errorf(KindInvalid, "filter: more than %d conditions", MaxFilterConditions)
		}
		for i := range list {
			if sub := list[i].Filter; sub != nil {
				if err := sub.check(depth+1, conditions); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (f *Filter) UnmarshalJSON(b []byte) error {
	if err := onlyKeys(b, "filter", "must", "should", "must_not", "min_should"); err != nil {
		return err
	}
	var w filterJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*f = Filter{Must: w.Must, Should: w.Should, MustNot: w.MustNot, MinShould: w.MinShould}
	return nil
}

// MarshalJSON implements json.Marshaler.
func (f *Filter) MarshalJSON() ([]byte, error) {
	return json.Marshal(filterJSON{f.Must, f.Should, f.MustNot, f.MinShould})
}

// onlyKeys refuses an object with a key that is not known where an unknown key would change the meaning.
func onlyKeys(b []byte, what string, known ...string) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b, &object); err != nil {
		return Errorf(KindInvalid, "%s: expected an object, got %s", what, shorten(b))
	}
	for key := range object {
		if !slices.Contains(known, key) {
			return Errorf(KindInvalid, "%s: unknown field %q, expected one of %s", what, key, strings.Join(known, ", "))
		}
	}
	return nil
}

func shorten(b []byte) string {
	if len(b) > 60 {
		return string(b[:60]) + "…"
	}
	return string(b)
}

// pathJSON is {"key": path}.
type pathJSON struct {
	Key string `json:"key"`
}

type conditionJSON struct {
	Must      clause     `json:"must,omitempty"`
	Should    clause     `json:"should,omitempty"`
	MustNot   clause     `json:"must_not,omitempty"`
	MinShould *MinShould `json:"min_should,omitempty"`

	HasID *[]PointID `json:"has_id,omitempty"`

	Key         *string         `json:"key,omitempty"`
	Match       *Match          `json:"match,omitempty"`
	Range       *Range          `json:"range,omitempty"`
	ValuesCount *Range          `json:"values_count,omitempty"`
	IsEmpty     json.RawMessage `json:"is_empty,omitempty"` // {"key": path}, or with key: a bool
	IsNull      json.RawMessage `json:"is_null,omitempty"`
}

// UnmarshalJSON decides by the object's keys which kind of condition it is.
func (c *Condition) UnmarshalJSON(b []byte) error {
	if err := onlyKeys(b, "filter condition", "must", "should", "must_not", "min_should", "has_id", "key", "match",
		"range", "values_count", "is_empty", "is_null"); err != nil {
		return err
	}
	var w conditionJSON
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*c = Condition{}
	switch {
	case w.Key != nil:
		field := &FieldCondition{Key: *w.Key, Match: w.Match, Range: w.Range, ValuesCount: w.ValuesCount}
		if err := unmarshalOptional(w.IsEmpty, &field.IsEmpty); err != nil {
			return Errorf(KindInvalid, "filter condition on %q: is_empty must be true or false", *w.Key)
		}
		if err := unmarshalOptional(w.IsNull, &field.IsNull); err != nil {
			return Errorf(KindInvalid, "filter condition on %q: is_null must be true or false", *w.Key)
		}
		if field.Key == "" {
			return Errorf(KindUnprocessable, "filter condition: key is empty")
		}
		if field.Match == nil && field.Range == nil && field.ValuesCount == nil && field.IsEmpty == nil && field.IsNull == nil {
			return Errorf(KindUnprocessable, "filter condition on %q: at least one of match, range, values_count, is_empty, is_null must be given", field.Key)
		}
		c.Field = field
	case w.HasID != nil:
		c.HasID = w.HasID
	case w.IsEmpty != nil:
		return unmarshalPath(w.IsEmpty, "is_empty", &c.IsEmpty)
	case w.IsNull != nil:
		return unmarshalPath(w.IsNull, "is_null", &c.IsNull)
	case w.Match != nil || w.Range != nil || w.ValuesCount != nil:
		return Errorf(KindInvalid, "filter condition: key is missing in %s", shorten(b))
	default: // an empty object is the empty filter, which holds for every point
		c.Filter = &Filter{Must: w.Must, Should: w.Should, MustNot: w.MustNot, MinShould: w.MinShould}
	}
	return nil
}

func unmarshalOptional[T any](b json.RawMessage, dst **T) error {
	if len(b) == 0 {
		return nil
	}
	return json.Unmarshal(b, dst)
}

func unmarshalPath(b json.RawMessage, what string, dst *string) error {
	var p pathJSON
	if err := json.Unmarshal(b, &p); err != nil || p.Key == "" {
		return Errorf(KindInvalid, `filter condition: %s expects {"key": path}, got %s`, what, shorten(b))
	}
	*dst = p.Key
	return nil
}

// MarshalJSON implements json.Marshaler.
func (c Condition) MarshalJSON() ([]byte, error) {
	var w conditionJSON
	var err error
	switch {
	case c.Filter != nil:
		return json.Marshal(c.Filter)
	case c.HasID != nil:
		w.HasID = c.HasID
	case c.IsEmpty != "":
		w.IsEmpty, err = json.Marshal(pathJSON{c.IsEmpty})
	case c.IsNull != "":
		w.IsNull, err = json.Marshal(pathJSON{c.IsNull})
	case c.Field != nil:
		w.Key, w.Match, w.Range, w.ValuesCount = &c.Field.Key, c.Field.Match, c.Field.Range, c.Field.ValuesCount
		if c.Field.IsEmpty != nil {
			w.IsEmpty, err = json.Marshal(c.Field.IsEmpty)
		}
		if err == nil && c.Field.IsNull != nil {
			w.IsNull, err = json.Marshal(c.Field.IsNull)
		}
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(w)
}

// UnmarshalJSON reads a match by the one key it has.
func (m *Match) UnmarshalJSON(b []byte) error {
	if err := onlyKeys(b, "match", "value", "any", "except", "text"); err != nil {
		return err
	}
	type plain Match
	var w plain
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	set := 0
	for _, given := range []bool{w.Value != nil, w.Any != nil, w.Except != nil, w.Text != nil} {
		if given {
			set++
		}
	}
	if set != 1 {
		return Errorf(KindInvalid, "match: exactly one of value, any, except, text must be given, got %s", shorten(b))
	}
	*m = Match(w)
	return nil
}

// MarshalJSON implements json.Marshaler.
func (m Match) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Value  *Scalar   `json:"value,omitempty"`
		Any    *[]Scalar `json:"any,omitempty"`
		Except *[]Scalar `json:"except,omitempty"`
		Text   *string   `json:"text,omitempty"`
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
	s.Kind = ScalarInt
	if err := json.Unmarshal(b, &s.Int); err != nil {
		return Errorf(KindInvalid, "match: expected a string, an integer or a bool, got %s", shorten(b))
	}
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

// UnmarshalJSON reads numeric bounds; null is no bound.
func (r *Range) UnmarshalJSON(b []byte) error {
	if err := onlyKeys(b, "range", "gt", "gte", "lt", "lte"); err != nil {
		return err
	}
	type plain Range
	var w plain
	if err := json.Unmarshal(b, &w); err != nil {
		return Errorf(KindInvalid, "range: bounds must be numbers, got %s", shorten(b))
	}
	for _, bound := range []*float64{w.GT, w.GTE, w.LT, w.LTE} {
		if bound != nil && math.IsInf(*bound, 0) {
			return Errorf(KindInvalid, "range: bounds must be finite, got %s", shorten(b))
		}
	}
	*r = Range(w)
	return nil
}
