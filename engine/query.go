package engine

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

// A query is a tree: what ranks, and what it prefetches for that. A search without prefetch that compares vectors looks into
// the shards' indexes (search.go). One that prefetches ranks the points that were found, which are known by their ids from then
// on: it reads them in one snapshot of storage, taken after they were found, so that a point that moves meanwhile is there
// once, and one that does not match any more is left out.

// newSearch checks a query and makes it ready to be searched for.
func (db *DB) newSearch(ctx context.Context, col *collection, q *vectord.Query) (*search, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	selection, err := col.compileSelection(q.Select)
	if err != nil {
		return nil, err
	}
	root := &search{db: db, collection: col, now: db.now()}
	if q.Explain != nil {
		*q.Explain = vectord.Explanation{Plans: []string{}, Exact: true}
		root.explain = &explainer{to: q.Explain}
	}
	if root.exclude, err = db.excludeExamples(col, q, nil); err != nil {
		return nil, err
	}
	if root.texts, err = db.embedQuery(ctx, col, q); err != nil {
		return nil, err
	}
	s, err := root.part(q, nil)
	if err != nil {
		return nil, err
	}
	s.selection = selection
	return s, nil
}

// excludeExamples adds the points of the collection that are examples, in the prefetches too, to those to leave out; nil is none.
func (db *DB) excludeExamples(col *collection, q *vectord.Query, exclude map[vectord.PointID]struct{}) (map[vectord.PointID]struct{}, error) {
	lookup := col
	if q.Lookup != nil {
		var err error
		if lookup, err = db.catalog.resolve(q.Lookup.Collection); err != nil {
			return nil, err
		}
	}
	if lookup.id == col.id {
		eachExample(q, func(e *vectord.Example) {
			if e.ID == nil {
				return
			}
			if exclude == nil {
				exclude = map[vectord.PointID]struct{}{}
			}
			exclude[*e.ID] = struct{}{}
		})
	}
	for i := range q.Prefetch {
		var err error
		if exclude, err = db.excludeExamples(col, &q.Prefetch[i], exclude); err != nil {
			return nil, err
		}
	}
	return exclude, nil
}

// eachExample calls fn with the examples of a query, without those of its prefetches.
func eachExample(q *vectord.Query, fn func(*vectord.Example)) {
	pairs := func(pairs []vectord.ContextPair) {
		for i := range pairs {
			fn(&pairs[i].Positive)
			fn(&pairs[i].Negative)
		}
	}
	if q.Nearest != nil {
		fn(q.Nearest)
	}
	if r := q.Recommend; r != nil {
		for i := range r.Positive {
			fn(&r.Positive[i])
		}
		for i := range r.Negative {
			fn(&r.Negative[i])
		}
	}
	if d := q.Discover; d != nil {
		fn(&d.Target)
		pairs(d.Context)
	}
	if q.Context != nil {
		pairs(*q.Context)
	}
}

// part makes ready a query of the tree of which s is the root. outer is the filter of those that prefetch it.
func (s *search) part(q *vectord.Query, outer *vectord.Filter) (*search, error) {
	p := &search{db: s.db, collection: s.collection, query: q, now: s.now, exclude: s.exclude, explain: s.explain, texts: s.texts, wanted: q.Limit + q.Offset}
	filter := bothFilters(outer, q.Filter)
	var err error
	if p.filter, err = s.collection.compileFilter(filter); err != nil {
		return nil, err
	}
	switch {
	case q.OrderBy != nil:
		p.ordering, err = s.collection.newOrdering(q.OrderBy)
	case q.Formula != nil:
		p.formula, err = s.collection.compileFormula(q.Formula)
	case p.compares():
		err = p.prepareVectors()
	}
	if err != nil {
		return nil, err
	}
	for i := range q.Prefetch {
		prefetch, err := s.part(&q.Prefetch[i], filter)
		if err != nil {
			return nil, err
		}
		p.prefetch = append(p.prefetch, prefetch)
	}
	return p, nil
}

// bothFilters returns what selects the points that both filters select.
func bothFilters(a, b *vectord.Filter) *vectord.Filter {
	switch {
	case a.Empty():
		return b
	case b.Empty():
		return a
	}
	// Must stays at the top, where a list of ids makes a short way.
	both := &vectord.Filter{Must: slices.Concat(a.Must, b.Must), MustNot: slices.Concat(a.MustNot, b.MustNot)}
	for _, f := range []*vectord.Filter{a, b} {
		if len(f.Should) > 0 || f.MinShould != nil {
			rest := &vectord.Filter{Should: f.Should, MinShould: f.MinShould}
			both.Must = append(both.Must, vectord.Condition{Filter: rest})
		}
	}
	return both
}

// compares reports whether the query ranks by comparing vectors.
func (s *search) compares() bool {
	q := s.query
	return q.Nearest != nil || q.Recommend != nil || q.Discover != nil || q.Context != nil
}

// direct reports whether the shards' indexes alone have the answer.
func (s *search) direct() bool { return s.compares() && s.query.MMR == nil && len(s.prefetch) == 0 }

// answer returns the hits that the query asks for.
func (s *search) answer(ctx context.Context) ([]vectord.Hit, error) {
	if s.direct() {
		hits, err := s.allShards(ctx)
		return s.page(hits), err
	}
	if s.query.OrderBy != nil {
		hits, err := s.ordered(ctx)
		return s.page(hits), err
	}
	ranked, err := s.rank(ctx)
	if err != nil {
		return nil, err
	}
	return s.complete(ctx, ranked)
}

// rank returns hits with nothing but ids and scores, best first: at least those that are wanted, if there are as many. No
// point is there twice.
func (s *search) rank(ctx context.Context) ([]vectord.Hit, error) {
	switch {
	case s.query.OrderBy != nil:
		hits, err := s.ordered(ctx)
		return onceEach(hits), err
	case len(s.prefetch) > 0:
		return s.rankPrefetched(ctx)
	case s.query.MMR != nil:
		near := *s
		near.wanted = s.considered()
		hits, err := near.allShards(ctx)
		if err != nil {
			return nil, err
		}
		return s.diversify(ctx, hits)
	case s.query.Sample:
		return s.sample(ctx)
	case s.compares():
		return s.allShards(ctx)
	}
	return s.list(ctx)
}

// list ranks by ascending id, with score 0.
func (s *search) list(ctx context.Context) ([]vectord.Hit, error) {
	records, err := s.db.page(ctx, s.collection, nil, s.wanted, s.filter, selection{})
	if err != nil {
		return nil, err
	}
	hits := make([]vectord.Hit, len(records))
	for i := range records {
		hits[i].ID = records[i].ID
	}
	return hits, nil
}

// rankPrefetched ranks what the prefetches find.
func (s *search) rankPrefetched(ctx context.Context) ([]vectord.Hit, error) {
	lists, err := s.prefetched(ctx)
	if err != nil {
		return nil, err
	}
	q := s.query
	if q.Fusion != nil {
		return s.atThreshold(s.fuse(lists)), nil
	}
	ids := idsIn(lists)
	switch {
	case q.Sample:
		rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
		hits := make([]vectord.Hit, len(ids))
		for i, id := range ids {
			hits[i].ID = id
		}
		return hits, nil
	case q.Formula != nil:
		hits, err := s.compute(ctx, ids, lists)
		return s.atThreshold(hits), err
	}
	hits, err := s.among(ctx, ids)
	if err == nil && q.MMR != nil {
		return s.diversify(ctx, hits[:min(len(hits), s.considered())])
	}
	return hits, err
}

// idsIn returns the ids of all hits in the lists, ascending, each once.
func idsIn(lists [][]vectord.Hit) []vectord.PointID {
	ids := []vectord.PointID{}
	for _, list := range lists {
		for i := range list {
			ids = append(ids, list[i].ID)
		}
	}
	slices.SortFunc(ids, vectord.PointID.Compare)
	return slices.Compact(ids)
}

// prefetched returns what each prefetch finds, as many hits as it wants at most. They run at the same time.
func (s *search) prefetched(ctx context.Context) ([][]vectord.Hit, error) {
	lists := make([][]vectord.Hit, len(s.prefetch))
	errs := make([]error, len(s.prefetch))
	var wg sync.WaitGroup
	for i, p := range s.prefetch {
		wg.Go(func() {
			hits, err := p.rank(ctx)
			hits = hits[min(p.query.Offset, len(hits)):]
			lists[i], errs[i] = hits[:min(len(hits), p.query.Limit)], err
		})
	}
	wg.Wait()
	return lists, errors.Join(errs...)
}

// atThreshold returns those of the hits, which are in descending order, whose score is not below the threshold.
func (s *search) atThreshold(hits []vectord.Hit) []vectord.Hit {
	if limit := s.query.ScoreThreshold; limit != nil {
		for i := range hits {
			if hits[i].Score < *limit {
				return hits[:i]
			}
		}
	}
	return hits
}

// among ranks points by comparing their vectors, which is exact.
func (s *search) among(ctx context.Context, ids []vectord.PointID) ([]vectord.Hit, error) {
	hits := make([]vectord.Hit, 0, len(ids))
	err := s.each(ctx, ids, func(r storage.Reader, shard *shard, id vectord.PointID, row storage.PointRow) error {
		if _, ok := s.exclude[id]; ok || !slices.Contains(row.Vectors, s.spec.number) {
			return nil
		}
		v, ok, err := s.spec.read(r, shard.id, row.Slot)
		if err != nil || !ok {
			return err
		}
		distance, ok := s.distanceTo(&v)
		if !ok {
			return nil
		}
		score := index.Score(s.order, distance)
		if limit := s.query.ScoreThreshold; limit == nil || s.order.Nearer(score, *limit) {
			hits = append(hits, vectord.Hit{Record: vectord.Record{ID: id}, Score: score})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.explain.compared(len(ids))
	s.db.metrics.candidates.Add(float64(len(ids)))
	s.sort(hits)
	return hits, nil
}

// each calls fn, in one snapshot, with those of the points that are there and match.
func (s *search) each(ctx context.Context, ids []vectord.PointID, fn func(storage.Reader, *shard, vectord.PointID, storage.PointRow) error) error {
	snapshot := s.db.store.NewSnapshot()
	defer snapshot.Close()
	for i, id := range ids {
		if i%cancelCheckRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := s.visit(snapshot.Reader, id, fn); err != nil {
			return err
		}
	}
	return nil
}

// visit calls fn with the point if it is there and matches.
func (s *search) visit(r storage.Reader, id vectord.PointID, fn func(storage.Reader, *shard, vectord.PointID, storage.PointRow) error) error {
	shard := s.collection.shardOf(id)
	row, ok, err := r.Point(shard.id, id)
	if err != nil || !ok || gone(row, s.now) {
		return err
	}
	if holds, err := s.filter.matches(viewOf(id, row)); err != nil || !holds {
		return err
	}
	return fn(r, shard, id, row)
}

// complete returns the page of ranked hits that the query asks for, with what it selects.
func (s *search) complete(ctx context.Context, ranked []vectord.Hit) ([]vectord.Hit, error) {
	hits := make([]vectord.Hit, 0, min(s.query.Limit, len(ranked)))
	snapshot := s.db.store.NewSnapshot()
	defer snapshot.Close()
	there := 0
	for i := 0; i < len(ranked) && len(hits) < s.query.Limit; i++ {
		if i%cancelCheckRows == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err := s.visit(snapshot.Reader, ranked[i].ID, func(r storage.Reader, shard *shard, id vectord.PointID, row storage.PointRow) error {
			if there++; there <= s.query.Offset {
				return nil
			}
			record, err := s.collection.record(r, shard, id, row, &s.selection)
			if err != nil {
				return err
			}
			slot, _, err := r.Slot(shard.id, row.Slot)
			record.Version = slot.Version // as of the snapshot
			hits = append(hits, vectord.Hit{Record: record, Score: ranked[i].Score})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return hits, nil
}

// explainer gathers the explanation of a query from its parts, which run at the same time. A nil one does nothing.
type explainer struct {
	mu sync.Mutex
	to *vectord.Explanation // guarded by mu
}

// add adds what one shard, or one prefetch in it, has done.
func (x *explainer) add(plan string, part vectord.Explanation) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	at, _ := slices.BinarySearch(x.to.Plans, plan)
	x.to.Plans = slices.Insert(x.to.Plans, at, plan)
	x.to.Matching += part.Matching
	x.to.Candidates += part.Candidates
	x.to.Visited += part.Visited
	x.to.Exact = x.to.Exact && part.Exact
}

// nothing adds a shard in which nothing matches.
func (x *explainer) nothing() { x.add("none", vectord.Explanation{Exact: true}) }

// compared adds candidates that were compared after they had been found.
func (x *explainer) compared(n int) {
	if x == nil {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.to.Candidates += n
}
