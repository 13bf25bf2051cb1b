package server

import (
	"fmt"
	"strconv"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// groupsJSON are the fields, beside group_by, that make a query one for groups.
type groupsJSON struct {
	GroupSize  *uint64     `json:"group_size"`
	WithLookup *withLookup `json:"with_lookup"`
}

// withLookup is the name of a collection, or an object with it and what to select of its points.
type withLookup struct {
	collection string
	answer     selection
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (w *withLookup) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var object struct {
		selectJSON
		Collection *string `json:"collection"`
	}
	if d.PeekKind() == '"' {
		if err := jsonv2.UnmarshalDecode(d, &object.Collection); err != nil {
			return err
		}
	} else if err := jsonv2.UnmarshalDecode(d, &object); err != nil {
		return err
	}
	if object.Collection == nil {
		return missing("collection")
	}
	w.collection = *object.Collection
	var err error
	w.answer, err = object.selection(true)
	return err
}

// groups is a decoded query for groups with what its answer carries.
type groups struct {
	vectord.Groups
	answer, lookup selection
}

// groups returns the query as one for groups by the values at a payload path.
func (g *groupsJSON) groups(q query, by *string) (out groups, err error) {
	if by == nil {
		return out, missing("group_by")
	}
	if *by == "" {
		return out, vectord.Errorf(vectord.KindUnprocessable, "group_by: is empty")
	}
	out.Query, out.answer = q.Query, q.answer
	out.Explain = nil // of many searches
	out.By, out.Size = *by, vectord.DefaultGroupSize
	if s := g.GroupSize; s != nil {
		if *s < 1 || *s > vectord.MaxGroupSize {
			return out, outOfRange("group_size", *s, "from 1 to "+strconv.Itoa(vectord.MaxGroupSize))
		}
		out.Size = int(*s)
	}
	if w := g.WithLookup; w != nil {
		out.lookup = w.answer
		out.WithPoint = &vectord.GroupLookup{Collection: w.collection, Select: w.answer.Selection}
	}
	return out, nil
}

// decodeQueryGroups reads the body of POST points/query/groups.
func decodeQueryGroups(body []byte) (out groups, err error) {
	var b struct {
		queryJSON
		groupsJSON
	}
	if err := decodeBody(body, &b); err != nil {
		return out, err
	}
	by := b.GroupBy
	b.GroupBy = nil
	q, err := b.query("")
	if err != nil {
		return out, err
	}
	return b.groups(q, by)
}

// orderByJSON is a payload path, or an object with it, a direction and the value to start from.
type orderByJSON struct{ vectord.OrderBy }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (o *orderByJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*o = orderByJSON{}
	if d.PeekKind() == '"' {
		return jsonv2.UnmarshalDecode(d, &o.Key)
	}
	var object struct {
		Key       *string         `json:"key"`
		Direction *string         `json:"direction"`
		StartFrom *orderValueJSON `json:"start_from"`
	}
	if err := jsonv2.UnmarshalDecode(d, &object); err != nil {
		return err
	}
	if object.Key == nil {
		return missing("key")
	}
	o.Key = *object.Key
	if object.Direction != nil {
		switch *object.Direction {
		case "asc":
		case "desc":
			o.Descending = true
		default:
			return vectord.Errorf(vectord.KindInvalid, "direction: expected asc or desc, got %s", excerpt([]byte(*object.Direction)))
		}
	}
	if object.StartFrom != nil {
		o.StartFrom = &object.StartFrom.OrderValue
	}
	return nil
}

// orderBy returns what was given, nil for nothing.
func (o *orderByJSON) orderBy() *vectord.OrderBy {
	if o == nil {
		return nil
	}
	return &o.OrderBy
}

// orderValueJSON is a number, or a string with a date and time.
type orderValueJSON struct{ vectord.OrderValue }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *orderValueJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*v = orderValueJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch raw.Kind() {
	case '0':
		var n vectord.Number
		if err := n.UnmarshalJSON(raw); err != nil {
			return err
		}
		var ok bool
		if v.Int, ok = n.Int64(); !ok {
			v.Kind, v.Float = vectord.OrderFloat, n.Float64()
		}
		return nil
	case '"':
		var moment vectord.Datetime
		err := moment.UnmarshalJSON(raw)
		v.Kind, v.Int = vectord.OrderTime, int64(moment)
		return err
	}
	return vectord.Errorf(vectord.KindInvalid, "expected a number or a date and time, got %s", excerpt(raw))
}

// decodeFacet reads the body of POST facet. The counts are exact whatever "exact" says.
func decodeFacet(body []byte) (out vectord.Facet, err error) {
	var f struct {
		Key      *string     `json:"key"`
		Limit    *uint64     `json:"limit"`
		Filter   *filterJSON `json:"filter"`
		Exact    *bool       `json:"exact"`
		ShardKey notOffered  `json:"shard_key"`
	}
	if err := decodeBody(body, &f); err != nil {
		return out, err
	}
	if f.Key == nil {
		return out, missing("key")
	}
	out.Key, out.Filter = *f.Key, f.Filter.filter()
	out.Limit, err = limitOf(f.Limit, defaultFacetLimit, "limit")
	return out, err
}

const defaultFacetLimit = 10

// decodeMatrix reads the body of POST points/search/matrix/pairs and offsets.
func decodeMatrix(body []byte) (out vectord.Matrix, err error) {
	var m struct {
		Sample   *uint64     `json:"sample"`
		Limit    *uint64     `json:"limit"`
		Filter   *filterJSON `json:"filter"`
		Using    string      `json:"using"`
		ShardKey notOffered  `json:"shard_key"`
	}
	if err := decodeBody(body, &m); err != nil {
		return out, err
	}
	out = vectord.Matrix{Sample: vectord.DefaultMatrixSample, Filter: m.Filter.filter(), Using: m.Using}
	if s := m.Sample; s != nil {
		if *s < 2 || *s > vectord.MaxMatrixSample {
			return out, outOfRange("sample", *s, fmt.Sprintf("from 2 to %d", vectord.MaxMatrixSample))
		}
		out.Sample = int(*s)
	}
	out.Limit, err = limitOf(m.Limit, vectord.DefaultMatrixLimit, "limit")
	return out, err
}
