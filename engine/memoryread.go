package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"math"
	"slices"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

// SearchMemories returns the memories that a query asks for, best first and by ascending id at equal scores.
//
// Similarity alone is searched for as points are. Where recency or importance count, all memories that match are scored, up to
// vectord.MaxMemoryCandidates of them; where more match, so many that are the most similar by such a search.
func (db *DB) SearchMemories(ctx context.Context, name string, q vectord.MemoryQuery) ([]vectord.MemoryHit, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return nil, err
	}
	if err := q.Check(); err != nil {
		return nil, err
	}
	if q.Weights == (vectord.MemoryWeights{}) {
		q.Weights.Similarity = 1
	}
	spec, err := col.spec(q.Using)
	if err != nil {
		return nil, err
	}
	v := q.Vector
	if v == nil {
		if v, err = db.textToCompare(spec, q.Text, q.Model); err != nil {
			return nil, err
		}
	}
	selection, err := col.compileSelection(q.Select)
	if err != nil {
		return nil, err
	}
	query := vectord.Query{Nearest: &vectord.Example{Vector: *v}, Using: q.Using, Filter: memoriesOf(&q), Limit: q.Limit}
	if err := col.checkStrict(&query); err != nil {
		return nil, err
	}
	if q.Weights.Recency != 0 || q.Weights.Importance != 0 {
		query.Limit = vectord.MaxMemoryCandidates
	}
	s, err := db.newSearch(ctx, col, &query)
	if err != nil {
		return nil, err
	}
	db.searching.Add(1)
	defer db.searching.Add(-1)
	r := &memoryRanking{search: s, query: &q}
	if err := r.run(ctx); err != nil {
		return nil, err
	}
	s.selection = selection
	hits, err := r.hits(ctx)
	if err == nil && q.Touch && len(hits) > 0 {
		ids := make([]vectord.PointID, len(hits))
		for i := range hits {
			ids[i] = hits[i].ID
		}
		_, err = db.TouchMemories(ctx, name, ids)
	}
	return hits, err
}

// memoryRanking ranks what a query of memories finds.
type memoryRanking struct {
	search *search
	query  *vectord.MemoryQuery
	ranked []rankedMemory
}

type rankedMemory struct {
	id    vectord.PointID
	score float64
	parts vectord.MemoryParts
}

// run finds and ranks.
func (r *memoryRanking) run(ctx context.Context) error {
	s := r.search
	if s.query.Limit > r.query.Limit {
		all, err := r.scoreAll(ctx)
		if err != nil || all {
			return err
		}
		s.db.metrics.memorySearches.WithLabelValues("candidates").Inc()
	} else {
		s.db.metrics.memorySearches.WithLabelValues("similar").Inc()
	}
	hits, err := s.rank(ctx)
	if err != nil {
		return err
	}
	similarities := make(map[vectord.PointID]float64, len(hits))
	ids := make([]vectord.PointID, len(hits))
	for i := range hits {
		ids[i] = hits[i].ID
		similarities[ids[i]] = similarity(s.order, hits[i].Score)
	}
	err = s.each(ctx, ids, func(_ storage.Reader, _ *shard, id vectord.PointID, row storage.PointRow) error {
		r.add(id, row, similarities[id])
		return nil
	})
	r.sort()
	return err
}

// scoreAll scores all memories that match, and reports whether there were not too many.
func (r *memoryRanking) scoreAll(ctx context.Context) (bool, error) {
	s, n := r.search, 0
	err := s.eachVector(ctx, s.filter, func(id vectord.PointID, row storage.PointRow, v *vectord.Vector) bool {
		if n++; n > vectord.MaxMemoryCandidates {
			return false
		}
		if similarity, ok := s.similarityTo(v); ok {
			r.add(id, row, similarity)
		}
		return true
	})
	if n > vectord.MaxMemoryCandidates {
		r.ranked = nil
		return false, err
	}
	s.db.metrics.memorySearches.WithLabelValues("all").Inc()
	r.sort()
	return true, err
}

// add ranks a memory, if its score is enough.
func (r *memoryRanking) add(id vectord.PointID, row storage.PointRow, similarity float64) {
	m := rankedMemory{id: id, parts: r.query.PartsOf(memoryOf(row.Payload), similarity, vectord.Datetime(r.search.now*1000))}
	m.score = m.parts.Score(r.query.Weights)
	if r.query.MinScore == nil || m.score >= *r.query.MinScore {
		r.ranked = append(r.ranked, m)
	}
}

func (r *memoryRanking) sort() {
	slices.SortFunc(r.ranked, func(a, b rankedMemory) int {
		return cmp.Or(cmp.Compare(b.score, a.score), a.id.Compare(b.id))
	})
}

// hits reads what the query selects of the best.
func (r *memoryRanking) hits(ctx context.Context) ([]vectord.MemoryHit, error) {
	ranked := make([]vectord.Hit, len(r.ranked))
	of := make(map[vectord.PointID]*rankedMemory, len(r.ranked))
	for i := range r.ranked {
		ranked[i].ID = r.ranked[i].id
		of[r.ranked[i].id] = &r.ranked[i]
	}
	r.search.query.Limit = r.query.Limit
	found, err := r.search.complete(ctx, ranked)
	if err != nil {
		return nil, err
	}
	hits := make([]vectord.MemoryHit, len(found))
	for i := range found {
		m := of[found[i].ID]
		hits[i] = vectord.MemoryHit{Record: found[i].Record, Score: m.score, Parts: m.parts}
	}
	return hits, nil
}

// eachVector calls fn, until it returns false, with those of the points of the query's shards that match a filter and have a
// vector of the name that the query compares.
func (s *search) eachVector(ctx context.Context, filter *matcher, fn func(vectord.PointID, storage.PointRow, *vectord.Vector) bool) error {
	more := true
	for _, shard := range s.collection.shards {
		err := shard.eachMatching(ctx, s.db.store, s.now, nil, math.MaxInt, filter, func(snapshot *storage.Snapshot, id vectord.PointID, row storage.PointRow) (bool, error) {
			if !slices.Contains(row.Vectors, s.spec.number) {
				return true, nil
			}
			v, ok, err := s.spec.read(snapshot.Reader, shard.id, row.Slot)
			if err != nil || !ok {
				return err == nil, err
			}
			more = fn(id, row, &v)
			return more, nil
		})
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// similarityTo is the similarity of a memory's vector to what the query is to be near to; ok is false if they are not comparable.
func (s *search) similarityTo(v *vectord.Vector) (_ float64, ok bool) {
	distance, ok := s.distanceTo(v)
	return similarity(s.order, index.Score(s.order, distance)), ok
}

// similarity makes a number of a score that is larger where it is nearer.
func similarity(d vectord.Distance, score float32) float64 {
	if d == vectord.Euclid || d == vectord.Manhattan {
		return 1 / (1 + float64(score))
	}
	return float64(score)
}

// memoryOf reads of a stored memory what is decided by. Whoever has changed its payload as that of a point may have left what is
// no memory's; then it is as if that had not been there.
func memoryOf(payload []byte) (m vectord.Memory) {
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return m
	}
	moment := func(key string) vectord.Datetime {
		at, _ := vectord.ParseDatetime(v.GetStringBytes(key))
		return at
	}
	m.Created, m.LastUsed, m.ValidTo = moment("created_at"), moment("last_used_at"), moment("valid_to")
	if importance := v.Get("importance"); importance != nil && importance.Type() == fastjson.TypeNumber {
		m.Importance = new(importance.GetFloat64())
	}
	m.Uses, m.Pinned = v.GetUint64("uses"), v.GetBool("pinned")
	scope := func(key string) string { return string(v.GetStringBytes("scope", key)) }
	m.Scope = vectord.MemoryScope{UserID: scope("user_id"), AgentID: scope("agent_id"), SessionID: scope("session_id"), RunID: scope("run_id")}
	return m
}

// The filters of memories. Each selects memories alone.

func anyMemory() *vectord.Filter {
	kinds := []vectord.Scalar{}
	for _, kind := range vectord.MemoryKinds() {
		kinds = append(kinds, stringScalar(string(kind)))
	}
	return &vectord.Filter{Must: []vectord.Condition{onField("kind", vectord.FieldCondition{Match: &vectord.Match{Any: &kinds}})}}
}

// memoriesOf selects the memories that a query asks for.
func memoriesOf(q *vectord.MemoryQuery) *vectord.Filter {
	f := selectedMemories(q.Scope, q.Kind)
	if superseded := q.IncludeSuperseded; superseded == nil && q.AsOf == 0 || superseded != nil && !*superseded {
		f.Must = append(f.Must, vectord.Condition{IsEmpty: "superseded_by"})
	}
	if q.AsOf != 0 {
		f.Must = append(f.Must, orEmpty("valid_from", vectord.DatetimeRange{LTE: &q.AsOf}), orEmpty("valid_to", vectord.DatetimeRange{GT: &q.AsOf}))
	}
	return bothFilters(f, q.Filter)
}

// selectedMemories selects the memories of a scope as far as that is given, and of a kind.
func selectedMemories(scope vectord.MemoryScope, kind vectord.MemoryKind) *vectord.Filter {
	f := anyMemory()
	if kind != "" {
		f = &vectord.Filter{Must: []vectord.Condition{equals("kind", string(kind))}}
	}
	for _, key := range scope.Keys() {
		if key.Value != "" {
			f.Must = append(f.Must, equals(key.Path, key.Value))
		}
	}
	return f
}

// currentMemories selects the memories of just this scope that hold.
func currentMemories(scope vectord.MemoryScope, now int64) *vectord.Filter {
	f := selectedMemories(scope, "")
	for _, key := range scope.Keys() {
		if key.Value == "" {
			f.Must = append(f.Must, vectord.Condition{IsEmpty: key.Path})
		}
	}
	f.Must = append(f.Must, vectord.Condition{IsEmpty: "superseded_by"}, orEmpty("valid_to", vectord.DatetimeRange{GT: new(vectord.Datetime(now * 1000))}))
	return f
}

func onField(key string, c vectord.FieldCondition) vectord.Condition {
	c.Key = key
	return vectord.Condition{Field: &c}
}

func stringScalar(s string) vectord.Scalar {
	return vectord.Scalar{Kind: vectord.ScalarString, String: s}
}

func equals(key, value string) vectord.Condition {
	return onField(key, vectord.FieldCondition{Match: &vectord.Match{Value: new(stringScalar(value))}})
}

// orEmpty holds where a time is within bounds or not there.
func orEmpty(key string, within vectord.DatetimeRange) vectord.Condition {
	return vectord.Condition{Filter: &vectord.Filter{Should: []vectord.Condition{{IsEmpty: key}, onField(key, vectord.FieldCondition{Datetime: &within})}}}
}

// memoryUse is what a use changes of a memory.
type memoryUse struct {
	Uses     uint64           `json:"uses"`
	LastUsed vectord.Datetime `json:"last_used_at"`
}

// TouchMemories counts a use of each of the memories that are there, and returns how many those are.
func (db *DB) TouchMemories(ctx context.Context, name string, ids []vectord.PointID) (int, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return 0, err
	}
	if len(ids) == 0 || len(ids) > vectord.MaxBatchPoints {
		return 0, vectord.Errorf(vectord.KindUnprocessable, "ids: %d ids, expected from 1 to %d", len(ids), vectord.MaxBatchPoints)
	}
	if err := db.checkStrictWrite(ctx, col, []vectord.Operation{{Kind: vectord.OpSetPayload}}); err != nil {
		return 0, err
	}
	ids = slices.Clone(ids)
	slices.SortFunc(ids, vectord.PointID.Compare)
	ids = slices.Compact(ids)
	// A refresh counts uses too, under the lock of the scope: those are known only once the memories have been read.
	found, err := db.readMemories(ctx, col, ids)
	if err != nil || len(found) == 0 {
		return 0, err
	}
	scopes := make([]vectord.MemoryScope, len(found))
	for i := range found {
		scopes[i] = found[i].Scope
	}
	release, err := db.memoryLocks.lock(ctx, col.id, scopes)
	if err != nil {
		return 0, err
	}
	touched := 0
	err = holding(ctx, release, func(ctx context.Context) error {
		found, err := db.readMemories(ctx, col, ids)
		if err != nil || len(found) == 0 {
			return err
		}
		ops, err := touches(found, vectord.Datetime(db.now()*1000))
		if err != nil {
			return err
		}
		touched = len(found)
		p := proposal{db: db, collection: col}
		_, err = p.propose(ctx, ops, true)
		return err
	})
	if err != nil {
		return 0, err
	}
	return touched, nil
}

// touches returns an operation for all memories with the same number of uses.
func touches(memories []vectord.Memory, now vectord.Datetime) (ops []vectord.Operation, err error) {
	slices.SortStableFunc(memories, func(a, b vectord.Memory) int { return cmp.Compare(a.Uses, b.Uses) })
	for i := range memories {
		if i == 0 || memories[i].Uses != memories[i-1].Uses {
			payload, err := json.Marshal(memoryUse{memories[i].Uses + 1, now})
			if err != nil {
				return nil, err
			}
			ops = append(ops, vectord.Operation{Kind: vectord.OpSetPayload, Filter: anyMemory(), Payload: payload})
		}
		op := &ops[len(ops)-1]
		op.IDs = append(op.IDs, *memories[i].ID)
	}
	return ops, nil
}

// readMemories reads those of the points that are memories.
func (db *DB) readMemories(ctx context.Context, col *collection, ids []vectord.PointID) (found []vectord.Memory, err error) {
	filter, err := col.compileFilter(anyMemory())
	if err != nil {
		return nil, err
	}
	s := &search{db: db, collection: col, filter: filter, now: db.now()}
	err = s.each(ctx, ids, func(_ storage.Reader, _ *shard, id vectord.PointID, row storage.PointRow) error {
		m := memoryOf(row.Payload)
		m.ID = &id
		found = append(found, m)
		return nil
	})
	return found, err
}

// ForgetMemories deletes the memories that are selected and returns how many there were.
func (db *DB) ForgetMemories(ctx context.Context, name string, s vectord.MemorySelector) (int, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return 0, err
	}
	if err := s.Check(); err != nil {
		return 0, err
	}
	f := selectedMemories(s.Scope, s.Kind)
	if s.IDs == nil && !s.IncludePinned {
		f.MustNot = append(f.MustNot, onField("pinned", vectord.FieldCondition{Match: &vectord.Match{Value: &vectord.Scalar{Kind: vectord.ScalarBool, Bool: true}}}))
	}
	f = bothFilters(f, s.Filter)
	filter, err := col.compileFilter(f)
	if err != nil {
		return 0, err
	}
	if err := db.checkStrictWrite(ctx, col, []vectord.Operation{{Kind: vectord.OpDelete, Filter: f}}); err != nil {
		return 0, err
	}
	ids := s.IDs
	if ids == nil {
		if ids, err = db.matchingIDs(ctx, col, filter); err != nil {
			return 0, err
		}
	}
	p := proposal{db: db, collection: col}
	for chunk := range slices.Chunk(ids, selectedPerCommand) {
		if _, err := p.propose(ctx, []vectord.Operation{{Kind: vectord.OpDelete, IDs: chunk, Filter: f}}, true); err != nil {
			return p.deleted, err
		}
	}
	db.metrics.forgotten.Add(float64(p.deleted))
	return p.deleted, nil
}
