package server

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
)

// apiLevel is the version of Qdrant whose REST API this server follows. Clients compare it with their own.
const apiLevel = "1.19.0"

func appendUint(dst []byte, n uint64) []byte { return strconv.AppendUint(dst, n, 10) }

// call reads the body and decodes it.
func call[T any](r *request, decode func([]byte) (T, error)) (decoded T, err error) {
	body, err := r.body()
	if err != nil {
		return decoded, err
	}
	return decode(body)
}

func (s *Server) getRoot(r *request) error {
	r.text(jsonContentType)
	r.out = append(r.out, `{"title":"vectord","version":"`+apiLevel+`","vectord":`...)
	r.out = appendString(r.out, s.options.Version)
	if s.options.Commit != "" {
		r.out = append(r.out, `,"commit":`...)
		r.out = appendString(r.out, s.options.Commit)
	}
	r.out = append(r.out, '}')
	return nil
}

func (s *Server) getHealth(r *request) error {
	r.text(textContentType)
	r.out = append(r.out, "healthz check passed"...)
	return nil
}

func (s *Server) getReady(r *request) error {
	r.text(textContentType)
	err := s.engine.Ready()
	if c := s.options.Cluster; err == nil && c != nil && !c.CaughtUp() {
		err = errNotCaughtUp()
	}
	if s.draining.Load() {
		err = vectord.Errorf(vectord.KindClosed, "shutting down")
	}
	if err != nil {
		r.http.SetStatusCode(fasthttp.StatusServiceUnavailable)
		r.out = append(r.out, "not ready: "+err.Error()...)
		return nil
	}
	r.out = append(append(r.out, "all shards are ready"...), s.warming()...)
	return nil
}

func (s *Server) getMetrics(r *request) (err error) {
	r.text(string(metricsFormat))
	r.out, err = s.metrics.appendText(r.out)
	return err
}

func (s *Server) notFound(r *request) error {
	return &refusal{status: fasthttp.StatusNotFound,
		text: fmt.Sprintf("Not found: no route %s %s", excerpt(r.http.Method()), excerpt(r.http.URI().PathOriginal()))}
}

func (s *Server) methodNotAllowed(r *request) error {
	return &refusal{status: fasthttp.StatusMethodNotAllowed,
		text: fmt.Sprintf("Bad request: method %s is not allowed here", excerpt(r.http.Method()))}
}

func (r *request) ok() { r.out = append(r.out, "true"...) }

func (s *Server) listCollections(r *request) error {
	r.out = append(r.out, `{"collections":[`...)
	listed := 0
	for _, name := range s.engine.Collections() {
		if !r.caller.May(permissionRead, name) {
			continue
		}
		if listed++; listed > 1 {
			r.out = append(r.out, ',')
		}
		r.out = append(r.out, `{"name":`...)
		r.out = appendString(r.out, name)
		r.out = append(r.out, '}')
	}
	r.out = append(r.out, "]}"...)
	return nil
}

func (s *Server) getCollection(r *request) error {
	info, err := s.engine.CollectionInfo(r.collection)
	if err != nil {
		return err
	}
	r.out, err = appendCollectionInfo(r.out, &info)
	return err
}

func (s *Server) collectionExists(r *request) error {
	r.out = append(r.out, `{"exists":`...)
	r.out = append(strconv.AppendBool(r.out, s.engine.CollectionExists(r.collection)), '}')
	return nil
}

func (s *Server) createCollection(r *request) error {
	config, err := call(r, decodeCreateCollection)
	if err != nil {
		return err
	}
	if err := s.engine.CreateCollection(r.ctx, r.collection, config); err != nil {
		return err
	}
	r.ok()
	return nil
}

func (s *Server) updateCollection(r *request) error {
	update, err := call(r, decodeUpdateCollection)
	if err != nil {
		return err
	}
	if err := s.engine.UpdateCollection(r.ctx, r.collection, update); err != nil {
		return err
	}
	r.ok()
	return nil
}

func (s *Server) deleteCollection(r *request) error {
	existed, err := s.engine.DeleteCollection(r.ctx, r.collection)
	if err != nil {
		return err
	}
	r.out = strconv.AppendBool(r.out, existed)
	return nil
}

func (s *Server) listAliases(r *request) error {
	aliases := slices.DeleteFunc(s.engine.Aliases(), func(a vectord.Alias) bool { return !r.caller.May(permissionRead, a.Collection) })
	r.out = appendAliases(r.out, aliases)
	return nil
}

func (s *Server) listCollectionAliases(r *request) error {
	if _, err := s.engine.CollectionInfo(r.collection); err != nil {
		return err
	}
	var own []vectord.Alias
	for _, a := range s.engine.Aliases() {
		if a.Collection == r.collection {
			own = append(own, a)
		}
	}
	r.out = appendAliases(r.out, own)
	return nil
}

func (s *Server) updateAliases(r *request) error {
	actions, err := call(r, decodeAliases)
	if err != nil {
		return err
	}
	if err := s.engine.UpdateAliases(r.ctx, actions); err != nil {
		return err
	}
	r.ok()
	return nil
}

func (s *Server) createFieldIndex(r *request) error {
	index, err := call(r, decodeCreateFieldIndex)
	if err != nil {
		return err
	}
	result, err := s.engine.CreateFieldIndex(r.ctx, r.collection, index.name, index.schema, r.wait)
	if err != nil {
		return err
	}
	r.out = appendUpdateResult(r.out, result, r.wait)
	return nil
}

func (s *Server) deleteFieldIndex(r *request) error {
	raw, _ := r.http.UserValue("field").(string)
	name, err := url.PathUnescape(strings.Clone(raw))
	if err == nil {
		err = vectord.CheckFieldName(name)
	} else {
		err = vectord.Errorf(vectord.KindInvalid, "field_name: %v", err)
	}
	if err != nil {
		return &formError{inPath, err}
	}
	result, err := s.engine.DeleteFieldIndex(r.ctx, r.collection, name)
	if err != nil {
		return err
	}
	r.out = appendUpdateResult(r.out, result, r.wait)
	return nil
}

// vectorName returns the name of vectors in the path.
func (r *request) vectorName() (string, error) {
	raw, _ := r.http.UserValue("vector").(string)
	name, err := url.PathUnescape(strings.Clone(raw))
	if err == nil {
		err = vectord.CheckVectorName(name)
	} else {
		err = vectord.Errorf(vectord.KindInvalid, "vector_name: %v", err)
	}
	if err != nil {
		return "", &formError{inPath, err}
	}
	return name, nil
}

func (s *Server) createVectorName(r *request) error {
	name, err := r.vectorName()
	if err != nil {
		return err
	}
	v, err := call(r, decodeNewVectors)
	if err != nil {
		return err
	}
	result, err := s.engine.CreateVectorName(r.ctx, r.collection, name, v)
	if err != nil {
		return err
	}
	r.out = appendUpdateResult(r.out, result, r.wait)
	return nil
}

func (s *Server) deleteVectorName(r *request) error {
	name, err := r.vectorName()
	if err != nil {
		return err
	}
	result, err := s.engine.DeleteVectorName(r.ctx, r.collection, name)
	if err != nil {
		return err
	}
	r.out = appendUpdateResult(r.out, result, r.wait)
	return nil
}

// write returns the handler of a route that is one operation.
func write(decode func([]byte) (vectord.Operation, error)) handler {
	return func(s *Server, r *request) error {
		op, err := call(r, decode)
		if err != nil {
			return err
		}
		results, err := s.write(r, []vectord.Operation{op})
		if err != nil {
			return err
		}
		r.out = appendUpdateResult(r.out, results[0], r.wait)
		return nil
	}
}

func (s *Server) writeBatch(r *request) error {
	ops, err := call(r, decodeOperations)
	if err != nil {
		return err
	}
	results, err := s.write(r, ops)
	if err != nil {
		return err
	}
	r.out = append(r.out, '[')
	for i, u := range results {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = appendUpdateResult(r.out, u, r.wait)
	}
	r.out = append(r.out, ']')
	return nil
}

// write returns one result for each operation.
func (s *Server) write(r *request, ops []vectord.Operation) ([]vectord.UpdateResult, error) {
	results, err := s.engine.Write(r.ctx, r.collection, ops, vectord.WriteOptions{IdempotencyKey: r.idempotencyKey})
	if err != nil {
		return nil, err
	}
	if len(results) != len(ops) {
		return nil, fmt.Errorf("the engine answered %d operations with %d results", len(ops), len(results))
	}
	return results, nil
}

func (s *Server) retrieve(r *request) error {
	request, err := call(r, decodeRetrieve)
	if err != nil {
		return err
	}
	records, err := s.engine.Retrieve(r.ctx, r.collection, request.ids, request.answer.Selection)
	if err != nil {
		return err
	}
	r.out = appendRecords(r.out, records, &request.answer)
	return nil
}

func (s *Server) getPoint(r *request) error {
	raw, _ := r.http.UserValue("id").(string)
	unescaped, err := url.PathUnescape(strings.Clone(raw))
	if err != nil {
		return &formError{inPath, vectord.Errorf(vectord.KindInvalid, "id: %v", err)}
	}
	id, err := vectord.ParsePointID(unescaped)
	if err != nil {
		return &formError{inPath, err}
	}
	everything := selection{Selection: vectord.Selection{Vectors: true, Payload: true}, payload: true}
	records, err := s.engine.Retrieve(r.ctx, r.collection, []vectord.PointID{id}, everything.Selection)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return vectord.Errorf(vectord.KindNotFound, "No point with id %s found", id)
	}
	r.out = appendRecord(r.out, &records[0], &everything)
	return nil
}

func (s *Server) scroll(r *request) error {
	request, err := call(r, decodeScroll)
	if err != nil {
		return err
	}
	page, err := s.engine.Scroll(r.ctx, r.collection, request.ScrollRequest)
	if err != nil {
		return err
	}
	r.out = append(r.out, `{"points":`...)
	r.out = appendRecords(r.out, page.Points, &request.answer)
	r.out = append(r.out, `,"next_page_offset":`...)
	if page.Next == nil {
		r.out = append(r.out, "null}"...)
		return nil
	}
	r.out = append(page.Next.AppendJSON(r.out), '}')
	return nil
}

func (s *Server) count(r *request) error {
	filter, err := call(r, decodeCount)
	if err != nil {
		return err
	}
	n, err := s.engine.Count(r.ctx, r.collection, filter)
	if err != nil {
		return err
	}
	r.out = append(r.out, `{"count":`...)
	r.out = append(strconv.AppendInt(r.out, int64(n), 10), '}')
	return nil
}

func (s *Server) query(r *request) error {
	q, err := call(r, decodeQuery)
	if err != nil {
		return err
	}
	hits, err := s.answer(r, &q)
	if err != nil {
		return err
	}
	r.out = appendAnswer(r.out, hits, &q)
	return nil
}

// answer searches for a query.
func (s *Server) answer(r *request, q *query) ([]vectord.Hit, error) {
	if err := r.authorizeLookups(&q.Query); err != nil {
		return nil, err
	}
	return s.engine.Search(r.ctx, r.collection, q.Query)
}

// authorizeLookups checks the caller's permission for the collections in which the query looks up examples.
func (r *request) authorizeLookups(q *vectord.Query) (err error) {
	if q.Lookup != nil {
		if q.Lookup.Collection, err = r.authorize(q.Lookup.Collection, permissionRead); err != nil {
			return err
		}
	}
	for i := range q.Prefetch {
		if err := r.authorizeLookups(&q.Prefetch[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) queryBatch(r *request) error {
	return s.batch(r, decodeQueryBatch, appendAnswer)
}

func (s *Server) searchBatch(r *request) error {
	return s.batch(r, decodeSearchBatch, appendBare)
}

// batch answers the queries of a batch in an array, each in the form that appendAnswer gives it.
func (s *Server) batch(r *request, decode func(body []byte) ([]query, error), appendAnswer func([]byte, []vectord.Hit, *query) []byte) error {
	decoded, err := call(r, decode)
	if err != nil {
		return err
	}
	queries := make([]vectord.Query, len(decoded))
	for i := range decoded {
		if err := r.authorizeLookups(&decoded[i].Query); err != nil {
			return err
		}
		queries[i] = decoded[i].Query
	}
	answers, err := s.engine.SearchBatch(r.ctx, r.collection, queries)
	if err != nil {
		return err
	}
	r.out = append(r.out, '[')
	for i, hits := range answers {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = appendAnswer(r.out, hits, &decoded[i])
	}
	r.out = append(r.out, ']')
	return nil
}
