package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// The limits of a body's form, beside those of package vectord.
const (
	maxFilterBytes  = 4 << 20 // of one filter's JSON, room for 100,000 UUIDs
	maxBatchQueries = 1_000   // in one query/batch or search/batch
	maxOffset       = vectord.MaxLimit
)

// decodeBody reads a JSON body into dst. null is the same as absent, unknown fields are ignored, and a name that stands
// twice in one object is an error, in payloads too: readers would not agree on which of the two counts.
//
// Nothing in dst refers to body afterwards.
func decodeBody(body []byte, dst any) error {
	if len(body) == 0 {
		return &formError{inBody, vectord.Errorf(vectord.KindInvalid, "the body is empty")}
	}
	if err := jsonv2.Unmarshal(body, dst); err != nil {
		return bodyError(err)
	}
	return nil
}

// decodeInner reads a value within the body whose form decides what it is. Its errors tell the place within the value, to
// which the decoder around it adds the place of the value.
func decodeInner(raw jsontext.Value, dst any) error {
	if err := jsonv2.Unmarshal(raw, dst); err != nil {
		inner := bodyError(err)
		return vectord.Errorf(vectord.KindOf(inner), "%v", inner)
	}
	return nil
}

// list is a JSON array of at most vectord.MaxBatchPoints elements. The bound acts while the array is read: a small body
// can spell very many elements, each of which takes more memory than its text.
type list[T any] []T

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *list[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*l = nil
	switch kind := d.PeekKind(); kind {
	case '[':
	case 'n':
		return d.SkipValue()
	default:
		raw, err := d.ReadValue()
		if err != nil {
			return err
		}
		return vectord.Errorf(vectord.KindInvalid, "expected an array, got %s", excerpt(raw))
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	*l = list[T]{}
	for d.PeekKind() != ']' {
		if len(*l) == vectord.MaxBatchPoints {
			return vectord.Errorf(vectord.KindUnprocessable, "more than %d elements", vectord.MaxBatchPoints)
		}
		var element T
		if err := jsonv2.UnmarshalDecode(d, &element); err != nil {
			return err
		}
		*l = append(*l, element)
	}
	_, err := d.ReadToken()
	return err
}

// notOffered is a field that would change the answer and that this server does not have. Only null and empty values are
// accepted.
type notOffered struct{}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (*notOffered) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch string(raw) {
	case "null", "[]", "{}", `""`:
		return nil
	}
	return vectord.Errorf(vectord.KindUnsupported, "not offered by this server")
}

// vectorJSON is one vector: an array of numbers, an array of such arrays, {"indices": […], "values": […]}, or a text for a model.
type vectorJSON struct {
	vectord.Vector
	given bool
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *vectorJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*v = vectorJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	return v.parse(raw)
}

func (v *vectorJSON) parse(raw jsontext.Value) (err error) {
	switch raw.Kind() {
	case 'n':
		return nil
	case '[':
		v.given = true
		if i := skipSpace(raw, 1); raw[i] == '[' {
			return v.parseRows(raw)
		}
		v.Values, err = parseFloats(raw)
		if err == nil && len(v.Values) == 0 {
			err = vectord.Errorf(vectord.KindUnprocessable, "the vector is empty")
		}
		return err
	case '{':
		var object map[string]jsontext.Value
		if err := decodeInner(raw, &object); err != nil {
			return err
		}
		return v.parseObject(object)
	}
	return vectord.Errorf(vectord.KindInvalid, "expected an array of numbers, got %s", excerpt(raw))
}

// parseRows reads a multivector.
func (v *vectorJSON) parseRows(raw jsontext.Value) error {
	var rows list[jsontext.Value]
	if err := decodeInner(raw, &rows); err != nil {
		return err
	}
	v.Kind, v.Rows = vectord.MultiVector, len(rows)
	for i, row := range rows {
		values, err := parseFloats(row)
		switch {
		case err != nil:
			return err
		case len(values) == 0:
			return vectord.Errorf(vectord.KindUnprocessable, "row %d of the multivector is empty", i)
		case i > 0 && len(values)*i != len(v.Values):
			return vectord.Errorf(vectord.KindUnprocessable, "rows of a multivector must have the same length, row %d has %d, those before it %d",
				i, len(values), len(v.Values)/i)
		}
		v.Values = append(v.Values, values...)
	}
	return nil
}

// isVector reports whether the keys of an object are those of a vector, and not names of vectors.
func isVector(object map[string]jsontext.Value) bool {
	kind := func(key string) jsontext.Kind {
		if value, ok := object[key]; ok {
			return value.Kind()
		}
		return 0
	}
	return kind("model") == '"' || kind("text") == '"' || kind("indices") == '[' && kind("values") == '['
}

func (v *vectorJSON) parseObject(object map[string]jsontext.Value) (err error) {
	v.given = true
	if text, ok := object["text"]; ok {
		return v.parseText(text, object)
	}
	for _, key := range []string{"image", "object", "model"} {
		if _, ok := object[key]; ok {
			return vectord.Errorf(vectord.KindUnsupported, "inference (%q) is not offered by this server", key)
		}
	}
	for _, key := range []string{"indices", "values"} {
		if value, ok := object[key]; !ok || value.Kind() != '[' {
			return vectord.Errorf(vectord.KindInvalid, "expected a vector, but %q is not there as an array", key)
		}
	}
	var indices list[uint32]
	if err := decodeInner(object["indices"], &indices); err != nil {
		return err
	}
	values, err := parseFloats(object["values"])
	if err != nil {
		return err
	}
	if len(indices) != len(values) {
		return vectord.Errorf(vectord.KindUnprocessable, "values: must be the same length as indices, got %d values and %d indices", len(values), len(indices))
	}
	v.Vector = vectord.Sparse(indices, values)
	for i := 1; i < len(v.Indices); i++ {
		if v.Indices[i] == v.Indices[i-1] {
			return vectord.Errorf(vectord.KindUnprocessable, "indices: must be unique, %d is there twice", v.Indices[i])
		}
	}
	return nil
}

func (v *vectorJSON) parseText(text jsontext.Value, object map[string]jsontext.Value) error {
	v.Kind, v.Text = vectord.TextVector, &vectord.Document{}
	if err := decodeInner(text, &v.Text.Text); err != nil {
		return err
	}
	model, ok := object["model"]
	if !ok {
		return missing("model")
	}
	if err := decodeInner(model, &v.Text.Model); err != nil {
		return err
	}
	if options := object["options"]; given(options) {
		var err error
		v.Text.Options, err = rawObject(options, "options")
		return err
	}
	return nil
}

// vectorsJSON are the vectors of a point: one, which is the default one, or an object of them by name.
type vectorsJSON struct {
	vectors vectord.Vectors
	given   bool
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *vectorsJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*v = vectorsJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch raw.Kind() {
	case 'n':
		return nil
	case '{':
		var object map[string]jsontext.Value
		if err := decodeInner(raw, &object); err != nil {
			return err
		}
		if !isVector(object) {
			return v.parseNamed(object)
		}
	}
	var one vectorJSON
	if err := one.parse(raw); err != nil {
		return err
	}
	v.given, v.vectors = true, vectord.Vectors{{Vector: one.Vector}}
	return nil
}

func (v *vectorsJSON) parseNamed(object map[string]jsontext.Value) error {
	if len(object) > vectord.MaxVectorNames {
		return vectord.Errorf(vectord.KindUnprocessable, "%d vectors of one point, at most %d are accepted", len(object), vectord.MaxVectorNames)
	}
	v.given, v.vectors = true, vectord.Vectors{}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		var one vectorJSON
		if err := one.parse(object[name]); err != nil {
			return vectord.Errorf(vectord.KindOf(err), "%s: %v", excerpt([]byte(name)), err)
		}
		if one.given {
			v.vectors = append(v.vectors, vectord.NamedVector{Name: name, Vector: one.Vector})
		}
	}
	return nil
}

// payloadJSON is a payload as it came, or nil for null. Its bytes are its own.
type payloadJSON []byte

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *payloadJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*p = nil
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch raw.Kind() {
	case 'n':
		return nil
	case '{':
	default:
		return vectord.Errorf(vectord.KindInvalid, "expected an object or null, got %s", excerpt(raw))
	}
	if len(raw) > vectord.MaxPayloadBytes {
		return vectord.Errorf(vectord.KindUnprocessable, "%d bytes, at most %d are accepted", len(raw), vectord.MaxPayloadBytes)
	}
	if depth := vectord.JSONDepth(raw); depth > vectord.MaxPayloadDepth {
		return vectord.Errorf(vectord.KindUnprocessable, "nested %d deep, at most %d are accepted", depth, vectord.MaxPayloadDepth)
	}
	*p = bytes.Clone(raw)
	return nil
}

// filterJSON is a filter; an empty one selects every point.
type filterJSON struct{ vectord.Filter }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *filterJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	if len(raw) > maxFilterBytes {
		return vectord.Errorf(vectord.KindUnprocessable, "%d bytes, at most %d are accepted", len(raw), maxFilterBytes)
	}
	parsed, err := vectord.ParseFilter(raw)
	if err != nil {
		return err
	}
	f.Filter = vectord.Filter{}
	if parsed != nil {
		f.Filter = *parsed
	}
	return nil
}

// filter returns the filter, nil for one that is absent or selects every point.
func (f *filterJSON) filter() *vectord.Filter {
	if f == nil || f.Empty() {
		return nil
	}
	return &f.Filter
}

// selectorJSON says which points an operation is for.
type selectorJSON struct {
	Points   *list[vectord.PointID] `json:"points"`
	Filter   *filterJSON            `json:"filter"`
	ShardKey notOffered             `json:"shard_key"`
}

// apply puts the selection into op. field is where in the body the selector is.
func (s *selectorJSON) apply(op *vectord.Operation, field string) error {
	switch {
	case s.Points != nil && s.Filter != nil:
		return vectord.Errorf(vectord.KindUnprocessable, "%spoints: cannot be given together with filter", field)
	case s.Points != nil:
		op.IDs = *s.Points
	case s.Filter != nil:
		op.Filter = &s.Filter.Filter
	default:
		return vectord.Errorf(vectord.KindUnprocessable, "%spoints: either points or filter must be given", field)
	}
	return nil
}

// upsertJSON is the body of an upsert in both its forms: a list of points, or columns.
type upsertJSON struct {
	Points       *list[pointJSON] `json:"points"`
	Batch        *batchJSON       `json:"batch"`
	ShardKey     notOffered       `json:"shard_key"`
	UpdateFilter *filterJSON      `json:"update_filter"`
	UpdateMode   *string          `json:"update_mode"`
}

type pointJSON struct {
	ID      *vectord.PointID `json:"id"`
	Vector  vectorsJSON      `json:"vector"`
	Payload payloadJSON      `json:"payload"`
	Expires timeJSON         `json:"expires_at"`
}

// timeJSON is a time, RFC 3339 or in milliseconds since the Unix epoch; 0 and null are none.
type timeJSON int64

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (t *timeJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	*t = 0
	switch raw.Kind() {
	case 'n':
		return nil
	case '0':
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || n < 0 {
			return vectord.Errorf(vectord.KindInvalid, "expected milliseconds since 1970 or a time like 2026-01-31T12:00:00Z, got %s", excerpt(raw))
		}
		*t = timeJSON(n)
		return nil
	}
	var parsed time.Time
	if err := jsonv2.Unmarshal(raw, &parsed); err != nil || parsed.UnixMilli() <= 0 {
		return vectord.Errorf(vectord.KindInvalid, "expected milliseconds since 1970 or a time like 2026-01-31T12:00:00Z, got %s", excerpt(raw))
	}
	*t = timeJSON(parsed.UnixMilli())
	return nil
}

type batchJSON struct {
	IDs      list[vectord.PointID] `json:"ids"`
	Vectors  batchVectorsJSON      `json:"vectors"`
	Payloads list[payloadJSON]     `json:"payloads"`
}

// batchVectorsJSON is an array of vectors, or an object with an array for each name.
type batchVectorsJSON struct {
	points []vectord.Vectors
	given  bool
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *batchVectorsJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*v = batchVectorsJSON{}
	switch d.PeekKind() {
	case 'n':
		return d.SkipValue()
	case '[':
		var column list[vectorJSON]
		if err := column.UnmarshalJSONFrom(d); err != nil {
			return err
		}
		return v.add("", column)
	}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	var named map[string]jsontext.Value
	if err := decodeInner(raw, &named); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(named)) {
		var column list[vectorJSON]
		if err := decodeInner(named[name], &column); err != nil {
			return err
		}
		if err := v.add(name, column); err != nil {
			return err
		}
	}
	return nil
}

// add gives each point its vector of a column.
func (v *batchVectorsJSON) add(name string, column list[vectorJSON]) error {
	if !v.given {
		v.given, v.points = true, make([]vectord.Vectors, len(column))
	}
	if len(column) != len(v.points) {
		return vectord.Errorf(vectord.KindUnprocessable, "%s: %d vectors, the names before it have %d", excerpt([]byte(name)), len(column), len(v.points))
	}
	for i := range column {
		if column[i].given {
			v.points[i] = append(v.points[i], vectord.NamedVector{Name: name, Vector: column[i].Vector})
		}
	}
	return nil
}

// operationForm is what a form in which requests spell an operation, a pointer to B, can do. The field is what stands before
// the names of the form's fields in errors.
type operationForm[B any] interface {
	*B
	operation(field string) (vectord.Operation, error)
}

// decodeOperation reads a body that is one operation in the form B.
func decodeOperation[B any, P operationForm[B]](body []byte) (vectord.Operation, error) {
	var b B
	if err := decodeBody(body, &b); err != nil {
		return vectord.Operation{}, err
	}
	return P(&b).operation("")
}

// decodeUpsert reads the body of PUT points.
func decodeUpsert(body []byte) (vectord.Operation, error) { return decodeOperation[upsertJSON](body) }

func (u *upsertJSON) operation(field string) (vectord.Operation, error) {
	op := vectord.Operation{Kind: vectord.OpUpsert, UpdateFilter: u.UpdateFilter.filter()}
	if u.UpdateMode != nil {
		switch *u.UpdateMode {
		case "upsert":
		case "insert_only":
			op.UpdateMode = vectord.WriteNew
		case "update_only":
			op.UpdateMode = vectord.WriteExists
		default:
			return op, &formError{inBody, vectord.Errorf(vectord.KindInvalid, "%supdate_mode: expected upsert, insert_only or update_only, got %s",
				field, excerpt([]byte(*u.UpdateMode)))}
		}
	}
	var err error
	switch {
	case u.Points != nil && u.Batch != nil:
		return op, vectord.Errorf(vectord.KindUnprocessable, "%spoints: cannot be given together with batch", field)
	case u.Points != nil:
		op.Points, err = pointsOf(*u.Points, field+"points")
	case u.Batch != nil:
		op.Points, err = u.Batch.points(field + "batch")
	default:
		return op, missing(field + "points")
	}
	return op, err
}

func pointsOf(points []pointJSON, field string) ([]vectord.Point, error) {
	out := make([]vectord.Point, len(points))
	for i := range points {
		p := &points[i]
		if p.ID == nil {
			return nil, missing(fmt.Sprintf("%s[%d].id", field, i))
		}
		if !p.Vector.given {
			return nil, missing(fmt.Sprintf("%s[%d].vector", field, i))
		}
		out[i] = vectord.Point{ID: *p.ID, Vectors: p.Vector.vectors, Payload: p.Payload, Expires: int64(p.Expires)}
	}
	return out, nil
}

func (b *batchJSON) points(field string) ([]vectord.Point, error) {
	switch {
	case b.IDs == nil:
		return nil, missing(field + ".ids")
	case !b.Vectors.given:
		return nil, missing(field + ".vectors")
	case len(b.Vectors.points) != len(b.IDs):
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%s: number of ids and vectors must be equal, got %d and %d",
			field, len(b.IDs), len(b.Vectors.points))
	case b.Payloads != nil && len(b.Payloads) != len(b.IDs):
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%s: number of ids and payloads must be equal, got %d and %d",
			field, len(b.IDs), len(b.Payloads))
	}
	out := make([]vectord.Point, len(b.IDs))
	for i, id := range b.IDs {
		out[i] = vectord.Point{ID: id, Vectors: b.Vectors.points[i]}
		if b.Payloads != nil {
			out[i].Payload = b.Payloads[i]
		}
	}
	return out, nil
}

// updateVectorsJSON is the body of PUT points/vectors.
type updateVectorsJSON struct {
	Points       *list[pointJSON] `json:"points"`
	ShardKey     notOffered       `json:"shard_key"`
	UpdateFilter *filterJSON      `json:"update_filter"`
}

func decodeUpdateVectors(body []byte) (vectord.Operation, error) {
	return decodeOperation[updateVectorsJSON](body)
}

func (u *updateVectorsJSON) operation(field string) (vectord.Operation, error) {
	op := vectord.Operation{Kind: vectord.OpUpdateVectors, UpdateFilter: u.UpdateFilter.filter()}
	if u.Points == nil {
		return op, missing(field + "points")
	}
	var err error
	op.Points, err = pointsOf(*u.Points, field+"points")
	return op, err
}

// deleteVectorsJSON is the body of POST points/vectors/delete.
type deleteVectorsJSON struct {
	selectorJSON
	Vector *list[string] `json:"vector"`
}

func decodeDeleteVectors(body []byte) (vectord.Operation, error) {
	return decodeOperation[deleteVectorsJSON](body)
}

func (d *deleteVectorsJSON) operation(field string) (vectord.Operation, error) {
	op := vectord.Operation{Kind: vectord.OpDeleteVectors}
	if d.Vector == nil {
		return op, missing(field + "vector")
	}
	op.Keys = *d.Vector
	err := d.apply(&op, field)
	return op, err
}

// operation returns an operation that has nothing but a selector: delete and clear payload.
func (s *selectorJSON) operation(kind vectord.OperationKind, field string) (vectord.Operation, error) {
	op := vectord.Operation{Kind: kind}
	err := s.apply(&op, field)
	return op, err
}

func decodeDelete(body []byte) (vectord.Operation, error) {
	return decodeSelected(body, vectord.OpDelete)
}

func decodeClearPayload(body []byte) (vectord.Operation, error) {
	return decodeSelected(body, vectord.OpClearPayload)
}

func decodeSelected(body []byte, kind vectord.OperationKind) (vectord.Operation, error) {
	var s selectorJSON
	if err := decodeBody(body, &s); err != nil {
		return vectord.Operation{}, err
	}
	return s.operation(kind, "")
}

// setPayloadJSON is the body of POST and PUT points/payload.
type setPayloadJSON struct {
	selectorJSON
	Payload payloadJSON `json:"payload"`
	Key     string      `json:"key"`
}

func decodeSetPayload(body []byte) (vectord.Operation, error) {
	return decodePayload(body, vectord.OpSetPayload)
}

func decodeOverwritePayload(body []byte) (vectord.Operation, error) {
	return decodePayload(body, vectord.OpOverwritePayload)
}

func decodePayload(body []byte, kind vectord.OperationKind) (vectord.Operation, error) {
	var s setPayloadJSON
	if err := decodeBody(body, &s); err != nil {
		return vectord.Operation{}, err
	}
	return s.operation(kind, "")
}

func (s *setPayloadJSON) operation(kind vectord.OperationKind, field string) (vectord.Operation, error) {
	op := vectord.Operation{Kind: kind, Payload: s.Payload, Key: s.Key}
	if s.Payload == nil {
		return op, missing(field + "payload")
	}
	if s.Key != "" && kind != vectord.OpSetPayload {
		return op, vectord.Errorf(vectord.KindUnsupported, "%skey: not offered where the payload is replaced", field)
	}
	err := s.apply(&op, field)
	return op, err
}

// deletePayloadJSON is the body of POST points/payload/delete.
type deletePayloadJSON struct {
	selectorJSON
	Keys *list[string] `json:"keys"`
}

func decodeDeletePayload(body []byte) (vectord.Operation, error) {
	return decodeOperation[deletePayloadJSON](body)
}

func (d *deletePayloadJSON) operation(field string) (vectord.Operation, error) {
	op := vectord.Operation{Kind: vectord.OpDeletePayload}
	if d.Keys == nil {
		return op, missing(field + "keys")
	}
	op.Keys = *d.Keys
	err := d.apply(&op, field)
	return op, err
}

// operationJSON is one step of POST points/batch: exactly one of the fields is set.
type operationJSON struct {
	Upsert           *upsertJSON        `json:"upsert"`
	Delete           *selectorJSON      `json:"delete"`
	SetPayload       *setPayloadJSON    `json:"set_payload"`
	OverwritePayload *setPayloadJSON    `json:"overwrite_payload"`
	DeletePayload    *deletePayloadJSON `json:"delete_payload"`
	ClearPayload     *selectorJSON      `json:"clear_payload"`
	UpdateVectors    *updateVectorsJSON `json:"update_vectors"`
	DeleteVectors    *deleteVectorsJSON `json:"delete_vectors"`
}

func decodeOperations(body []byte) ([]vectord.Operation, error) {
	var b struct {
		Operations *list[operationJSON] `json:"operations"`
	}
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	if b.Operations == nil {
		return nil, missing("operations")
	}
	ops := make([]vectord.Operation, 0, len(*b.Operations))
	for i := range *b.Operations {
		op, err := (*b.Operations)[i].operation(fmt.Sprintf("operations[%d].", i))
		if err != nil {
			return nil, err
		}
		ops = append(ops, op)
	}
	return ops, nil
}

func (o *operationJSON) operation(field string) (op vectord.Operation, err error) {
	set := 0
	if o.Upsert != nil {
		op, err = o.Upsert.operation(field + "upsert.")
		set++
	}
	if o.Delete != nil {
		op, err = o.Delete.operation(vectord.OpDelete, field+"delete.")
		set++
	}
	if o.SetPayload != nil {
		op, err = o.SetPayload.operation(vectord.OpSetPayload, field+"set_payload.")
		set++
	}
	if o.OverwritePayload != nil {
		op, err = o.OverwritePayload.operation(vectord.OpOverwritePayload, field+"overwrite_payload.")
		set++
	}
	if o.DeletePayload != nil {
		op, err = o.DeletePayload.operation(field + "delete_payload.")
		set++
	}
	if o.ClearPayload != nil {
		op, err = o.ClearPayload.operation(vectord.OpClearPayload, field+"clear_payload.")
		set++
	}
	if o.UpdateVectors != nil {
		op, err = o.UpdateVectors.operation(field + "update_vectors.")
		set++
	}
	if o.DeleteVectors != nil {
		op, err = o.DeleteVectors.operation(field + "delete_vectors.")
		set++
	}
	if set != 1 {
		return op, &formError{inBody, vectord.Errorf(vectord.KindInvalid, "%.*s: exactly one of upsert, delete, set_payload, "+
			"overwrite_payload, delete_payload, clear_payload, update_vectors, delete_vectors must be given, got %d", len(field)-1, field, set)}
	}
	return op, err
}

// decodeAliases reads the body of POST /collections/aliases.
func decodeAliases(body []byte) ([]vectord.AliasAction, error) {
	var b struct {
		Actions *list[struct {
			Create *struct {
				Collection string `json:"collection_name"`
				Alias      string `json:"alias_name"`
			} `json:"create_alias"`
			Delete *struct {
				Alias string `json:"alias_name"`
			} `json:"delete_alias"`
			Rename *struct {
				Old string `json:"old_alias_name"`
				New string `json:"new_alias_name"`
			} `json:"rename_alias"`
		}] `json:"actions"`
	}
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	if b.Actions == nil {
		return nil, missing("actions")
	}
	actions := make([]vectord.AliasAction, 0, len(*b.Actions))
	for i, a := range *b.Actions {
		var action vectord.AliasAction
		var names []string
		set := 0
		if a.Create != nil {
			action.Create = &vectord.Alias{Name: a.Create.Alias, Collection: a.Create.Collection}
			names = []string{a.Create.Alias, a.Create.Collection}
			set++
		}
		if a.Delete != nil {
			action.Delete = a.Delete.Alias
			names = []string{a.Delete.Alias}
			set++
		}
		if a.Rename != nil {
			action.Rename = &vectord.AliasRename{Old: a.Rename.Old, New: a.Rename.New}
			names = []string{a.Rename.Old, a.Rename.New}
			set++
		}
		if set != 1 {
			return nil, &formError{inBody, vectord.Errorf(vectord.KindInvalid,
				"actions[%d]: exactly one of create_alias, delete_alias, rename_alias must be given, got %d", i, set)}
		}
		for _, name := range names {
			if err := vectord.CheckCollectionName(name); err != nil {
				return nil, vectord.Errorf(vectord.KindOf(err), "actions[%d]: %v", i, err)
			}
		}
		actions = append(actions, action)
	}
	return actions, nil
}

// setInt stores *v in *dst if v is given. 1<<40 is the largest number that any setting takes.
func setInt(dst *int, v *uint64, field string) error {
	if v == nil {
		return nil
	}
	if *v > min(1<<40, math.MaxInt) {
		return outOfRange(field, *v, "at most 1099511627776")
	}
	*dst = int(*v)
	return nil
}

// rawObject checks that raw is a JSON object and returns a compact copy of it.
func rawObject(raw jsontext.Value, field string) (json.RawMessage, error) {
	if raw.Kind() != '{' {
		return nil, &formError{inBody, vectord.Errorf(vectord.KindInvalid, "%s: expected an object, got %s", field, excerpt(raw))}
	}
	if depth := vectord.JSONDepth(raw); depth > vectord.MaxPayloadDepth {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%s: nested %d deep, at most %d are accepted", field, depth, vectord.MaxPayloadDepth)
	}
	compact := raw.Clone()
	if err := compact.Compact(); err != nil {
		return nil, bodyError(err)
	}
	return json.RawMessage(compact), nil
}
