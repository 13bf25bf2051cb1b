package server

import (
	"bytes"
	"fmt"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// The numbers of hits and points of an answer where the body does not say.
const (
	defaultQueryLimit  = 10
	defaultScrollLimit = 10
)

// selection is what an answer carries. payload says that each point has a payload in the answer, if only an empty one.
type selection struct {
	vectord.Selection
	payload bool
}

// withPayloadJSON is with_payload: a bool, the paths to keep, {"include": paths} or {"exclude": paths}.
type withPayloadJSON struct {
	all     bool
	include []string
	exclude []string
	listed  bool // include or exclude was given, possibly empty
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (w *withPayloadJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*w = withPayloadJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	var paths list[string]
	switch raw.Kind() {
	case 't':
		w.all = true
	case 'f':
	case '[':
		if err := decodeInner(raw, &paths); err != nil {
			return err
		}
		w.include, w.listed = paths, true
	case '{':
		var object map[string]list[string]
		if err := decodeInner(raw, &object); err != nil {
			return err
		}
		include, hasInclude := object["include"]
		exclude, hasExclude := object["exclude"]
		if len(object) != 1 || !hasInclude && !hasExclude {
			return vectord.Errorf(vectord.KindInvalid, "expected exactly one of include and exclude, got %s", excerpt(raw))
		}
		w.include, w.exclude, w.listed = include, exclude, hasInclude
		w.all = hasExclude && len(exclude) == 0
	default:
		return vectord.Errorf(vectord.KindInvalid, "expected a bool, an array of paths, include or exclude, got %s", excerpt(raw))
	}
	return nil
}

// withVectorJSON is with_vector: a bool, or the names of the vectors.
type withVectorJSON struct {
	any   bool
	names []string // nil: all
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (w *withVectorJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*w = withVectorJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch raw.Kind() {
	case 't':
		w.any = true
	case 'f':
	case '[':
		var names list[string]
		if err := decodeInner(raw, &names); err != nil {
			return err
		}
		w.any, w.names = len(names) > 0, names
	default:
		return vectord.Errorf(vectord.KindInvalid, "expected a bool or an array of names, got %s", excerpt(raw))
	}
	return nil
}

// selectJSON are the fields of a body that say what the answer carries.
type selectJSON struct {
	WithPayload *withPayloadJSON `json:"with_payload"`
	WithVector  *withVectorJSON  `json:"with_vector"`
	WithVectors *withVectorJSON  `json:"with_vectors"` // an older name of with_vector
}

// selection returns what was selected; payload is what holds if the body does not say.
func (s *selectJSON) selection(payload bool) (selection, error) {
	out := selection{payload: payload}
	out.Payload = payload
	if w := s.WithPayload; w != nil {
		out.Include, out.Exclude = w.include, w.exclude
		out.payload = w.all || w.listed || len(w.exclude) > 0
		out.Payload = w.all || len(w.include) > 0 || len(w.exclude) > 0
	}
	v := s.WithVector
	if v == nil {
		v = s.WithVectors
	}
	if v != nil {
		out.Vectors, out.VectorNames = v.any, v.names
	}
	return out, nil
}

// paramsJSON are the parameters of a search. acorn chooses a way to the same answer, so it is accepted and changes nothing.
type paramsJSON struct {
	Explain      bool              `json:"explain"` // vectord's own
	HNSWEf       *uint64           `json:"hnsw_ef"`
	Exact        bool              `json:"exact"`
	IndexedOnly  bool              `json:"indexed_only"`
	IDF          notOffered        `json:"idf"`
	Quantization *quantizationJSON `json:"quantization"`
}

// quantizationJSON says how far a search trusts codes, see vectord.QuantizationParams.
type quantizationJSON struct {
	Ignore       bool     `json:"ignore"`
	Rescore      *bool    `json:"rescore"`
	Oversampling *float64 `json:"oversampling"`
}

func (q *quantizationJSON) params(field string) (out vectord.QuantizationParams, err error) {
	if q == nil {
		return out, nil
	}
	if o := q.Oversampling; o != nil {
		if !(*o >= 1 && *o <= vectord.MaxOversampling) {
			return out, outOfRange(field+"params.quantization.oversampling", *o, fmt.Sprintf("from 1 to %d", vectord.MaxOversampling))
		}
		out.Oversampling = *o
	}
	out.Ignore, out.ByCodes = q.Ignore, q.Rescore != nil && !*q.Rescore
	return out, nil
}

func (p *paramsJSON) params(field string) (out vectord.SearchParams, err error) {
	if p == nil {
		return out, nil
	}
	if p.HNSWEf != nil {
		if *p.HNSWEf < 1 || *p.HNSWEf > vectord.MaxLimit {
			return out, outOfRange(field+"params.hnsw_ef", *p.HNSWEf, fmt.Sprintf("from 1 to %d", vectord.MaxLimit))
		}
		out.HNSWEf = int(*p.HNSWEf)
	}
	out.Exact, out.IndexedOnly = p.Exact, p.IndexedOnly
	out.Quantization, err = p.Quantization.params(field)
	return out, err
}

func limitOf(v *uint64, otherwise int, field string) (int, error) {
	switch {
	case v == nil:
		return otherwise, nil
	case *v < 1:
		return 0, outOfRange(field, *v, "1 or larger")
	case *v > vectord.MaxLimit:
		return 0, outOfRange(field, *v, fmt.Sprintf("%d or less", vectord.MaxLimit))
	}
	return int(*v), nil
}

func offsetOf(v *uint64, field string) (int, error) {
	switch {
	case v == nil:
		return 0, nil
	case *v > maxOffset:
		return 0, outOfRange(field, *v, fmt.Sprintf("%d or less; page through more points with scroll", maxOffset))
	}
	return int(*v), nil
}

// thresholdOf rounds a score threshold to the precision of scores.
func thresholdOf(v *float64, field string) (*float32, error) {
	if v == nil {
		return nil, nil
	}
	threshold := float32(*v)
	if float64(threshold)-float64(threshold) != 0 { // an infinity
		return nil, outOfRange(field, *v, "within the range of a 32-bit float")
	}
	return &threshold, nil
}

// nearJSON are the fields that a query and a search have in common.
type nearJSON struct {
	selectJSON
	ShardKey       notOffered  `json:"shard_key"`
	Filter         *filterJSON `json:"filter"`
	Params         *paramsJSON `json:"params"`
	ScoreThreshold *float64    `json:"score_threshold"`
	Limit          *uint64     `json:"limit"`
	Offset         *uint64     `json:"offset"`
}

// complete checks the fields and puts them into out. field is where in the body they are.
func (n *nearJSON) complete(out *query, field string) (err error) {
	out.Filter = n.Filter.filter()
	if out.Limit, err = limitOf(n.Limit, defaultQueryLimit, field+"limit"); err != nil {
		return err
	}
	if out.Offset, err = offsetOf(n.Offset, field+"offset"); err != nil {
		return err
	}
	if out.Params, err = n.Params.params(field); err != nil {
		return err
	}
	if out.ScoreThreshold, err = thresholdOf(n.ScoreThreshold, field+"score_threshold"); err != nil {
		return err
	}
	out.answer, err = n.selection(false)
	out.Select = out.answer.Selection
	return err
}

// queryJSON is the body of POST points/query, or one of its prefetches.
type queryJSON struct {
	nearJSON
	Query      formJSON     `json:"query"`
	Prefetch   prefetchJSON `json:"prefetch"`
	Using      string       `json:"using"`
	LookupFrom *lookupJSON  `json:"lookup_from"`
	GroupBy    *string      `json:"group_by"` // of groups only
}

// cutVector takes the vector out of the body of a search, if only plain fields come before it, and returns the body
// without it. The decoder would look at each number twice, and the numbers are most of the body.
//
// It gives up on whatever is not plain, errors above all: the decoder then sees the whole body and says what is wrong.
func cutVector(body []byte, field string) (v vectorJSON, rest []byte, ok bool) {
	body = body[skipSpace(body, 0):]
	at := bytes.Index(body, []byte(field)) - 1 // of the quote before the name
	if at < 1 || body[0] != '{' || body[at] != '"' {
		return v, nil, false
	}
	name, after := body[at:at+1+len(field)], body[at+1+len(field):]
	// Before the name: whole fields without objects, arrays and escapes, so that the quote at the name opens a string.
	before := bytes.Trim(body[1:at], " \t\r\n")
	if bytes.ContainsAny(before, `{}[]\`) || bytes.Count(before, []byte{'"'})%2 != 0 {
		return v, nil, false
	}
	if len(before) > 0 {
		if before, ok = bytes.CutSuffix(before, []byte{','}); !ok || len(before) == 0 {
			return v, nil, false
		}
	}
	if after, ok = bytes.CutPrefix(after, []byte{'"'}); !ok {
		return v, nil, false
	}
	if after, ok = bytes.CutPrefix(after[skipSpace(after, 0):], []byte{':'}); !ok {
		return v, nil, false
	}
	end := bytes.IndexByte(after, ']') + 1
	values, err := parseFloats(after[:end])
	if err != nil || len(values) == 0 {
		return v, nil, false
	}
	after = after[end+skipSpace(after[end:], 0):]
	// A field that stands twice is an error, also where its name is spelled with escapes.
	if bytes.IndexByte(after, '\\') >= 0 || bytes.Contains(after, name) {
		return v, nil, false
	}
	rest = append(append(make([]byte, 0, len(before)+len(after)+1), '{'), before...)
	begins := byte('}')
	if next, more := bytes.CutPrefix(after, []byte{','}); more {
		after, begins = next[skipSpace(next, 0):], '"'
		if len(before) > 0 {
			rest = append(rest, ',')
		}
	}
	if len(after) == 0 || after[0] != begins {
		return v, nil, false
	}
	return vectorJSON{given: true, Vector: vectord.Dense(values)}, append(rest, after...), true
}

// query is a decoded query with what its answer carries.
type query struct {
	vectord.Query
	answer selection
}

func decodeQuery(body []byte) (query, error) {
	var q queryJSON
	if vector, rest, ok := cutVector(body, "query"); ok && jsonv2.Unmarshal(rest, &q) == nil {
		q.Query.Nearest = &vectord.Example{Vector: vector.Vector}
		return q.query("")
	}
	q = queryJSON{}
	if err := decodeBody(body, &q); err != nil {
		return query{}, err
	}
	return q.query("")
}

// query returns the query, with all its prefetches. field is where in the body it is.
func (q *queryJSON) query(field string) (query, error) {
	if q.GroupBy != nil {
		return query{}, vectord.Errorf(vectord.KindInvalid, "%sgroup_by: belongs to points/query/groups", field)
	}
	out, err := q.part(field)
	if err != nil {
		return out, err
	}
	if q.Params != nil && q.Params.Explain {
		out.Explain = new(vectord.Explanation)
	}
	if err := out.Check(); err != nil {
		return out, vectord.Errorf(vectord.KindOf(err), "%s%v", field, err)
	}
	return out, nil
}

func (q *queryJSON) part(field string) (query, error) {
	out := query{Query: q.Query.Query}
	if err := q.complete(&out, field); err != nil {
		return out, err
	}
	out.Using, out.Lookup = q.Using, q.LookupFrom.lookup()
	for i := range q.Prefetch {
		prefetch, err := q.Prefetch[i].part(fmt.Sprintf("%sprefetch[%d].", field, i))
		if err != nil {
			return out, err
		}
		prefetch.Select = vectord.Selection{} // an answer carries what the query asks for
		out.Prefetch = append(out.Prefetch, prefetch.Query)
	}
	return out, nil
}

// searchJSON is the body of POST points/search, the older form of a query.
type searchJSON struct {
	nearJSON
	Vector searchVectorJSON `json:"vector"`
	Top    *uint64          `json:"top"` // an older name of limit
}

// searchVectorJSON is a vector, bare or as {"name": …, "vector": […]}.
type searchVectorJSON struct {
	vectorJSON
	name string
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *searchVectorJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() != '{' {
		return v.vectorJSON.UnmarshalJSONFrom(d)
	}
	var named struct {
		Name   string     `json:"name"`
		Vector vectorJSON `json:"vector"`
	}
	if err := jsonv2.UnmarshalDecode(d, &named); err != nil {
		return err
	}
	v.vectorJSON, v.name = named.Vector, named.Name
	return nil
}

func decodeSearch(body []byte) (query, error) {
	var s searchJSON
	if vector, rest, ok := cutVector(body, "vector"); ok && jsonv2.Unmarshal(rest, &s) == nil {
		s.Vector.vectorJSON = vector
		return s.query("")
	}
	return decodeLegacy[searchJSON](body)
}

func (s *searchJSON) query(field string) (out query, err error) {
	if !s.Vector.given {
		return out, missing(field + "vector")
	}
	out.Using, out.Nearest = s.Vector.name, &vectord.Example{Vector: s.Vector.Vector}
	if s.Limit == nil {
		s.Limit = s.Top
	}
	if s.Limit == nil {
		return out, missing(field + "limit")
	}
	err = s.complete(&out, field)
	return out, err
}

// decodeQueryBatch reads the body of POST points/query/batch.
func decodeQueryBatch(body []byte) ([]query, error) { return decodeBatch[queryJSON](body) }

// decodeSearchBatch reads the body of POST points/search/batch.
func decodeSearchBatch(body []byte) ([]query, error) { return decodeBatch[searchJSON](body) }

// queryForm is what a form in which requests spell a query, a pointer to B, can do. The field is what stands before the names
// of the form's fields in errors.
type queryForm[B any] interface {
	*B
	query(field string) (query, error)
}

// decodeBatch reads the body of a batch of queries in the form B.
func decodeBatch[B any, P queryForm[B]](body []byte) ([]query, error) {
	var b struct {
		Searches *list[B] `json:"searches"`
	}
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	if b.Searches == nil {
		return nil, missing("searches")
	}
	searches := *b.Searches
	if len(searches) > maxBatchQueries {
		return nil, outOfRange("searches", len(searches), fmt.Sprintf("%d elements or fewer", maxBatchQueries))
	}
	out := make([]query, len(searches))
	for i := range out {
		var err error
		if out[i], err = P(&searches[i]).query(fmt.Sprintf("searches[%d].", i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// retrieveRequest is a decoded POST points.
type retrieveRequest struct {
	ids    []vectord.PointID
	answer selection
}

func decodeRetrieve(body []byte) (out retrieveRequest, err error) {
	var r struct {
		selectJSON
		IDs      *list[vectord.PointID] `json:"ids"`
		ShardKey notOffered             `json:"shard_key"`
	}
	if err := decodeBody(body, &r); err != nil {
		return out, err
	}
	if r.IDs == nil {
		return out, missing("ids")
	}
	out.ids = *r.IDs
	out.answer, err = r.selection(true)
	return out, err
}

// scrollRequest is a decoded POST points/scroll.
type scrollRequest struct {
	vectord.ScrollRequest
	answer selection
}

func decodeScroll(body []byte) (out scrollRequest, err error) {
	var r struct {
		selectJSON
		Offset   *vectord.PointID `json:"offset"`
		Limit    *uint64          `json:"limit"`
		Filter   *filterJSON      `json:"filter"`
		OrderBy  *orderByJSON     `json:"order_by"`
		ShardKey notOffered       `json:"shard_key"`
	}
	if err := decodeBody(body, &r); err != nil {
		return out, err
	}
	out.Offset, out.Filter, out.OrderBy = r.Offset, r.Filter.filter(), r.OrderBy.orderBy()
	if out.Limit, err = limitOf(r.Limit, defaultScrollLimit, "limit"); err != nil {
		return out, err
	}
	out.answer, err = r.selection(true)
	out.Select = out.answer.Selection
	return out, err
}

// decodeCount reads the body of POST points/count. The count is exact whatever "exact" says.
func decodeCount(body []byte) (*vectord.Filter, error) {
	var c struct {
		Filter   *filterJSON `json:"filter"`
		ShardKey notOffered  `json:"shard_key"`
		Exact    *bool       `json:"exact"`
	}
	if err := decodeBody(body, &c); err != nil {
		return nil, err
	}
	return c.Filter.filter(), nil
}
