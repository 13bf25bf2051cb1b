package engine

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sync"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
)

// candidatesMax bounds what the factor of a query may make of its limit.
const candidatesMax = 100_000

// Search returns the points that the query asks for, best first and by ascending id at equal scores. Scores are exact.
func (db *DB) Search(ctx context.Context, name string, q vectord.Query) ([]vectord.Hit, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return nil, err
	}
	if err := col.checkStrict(&q); err != nil {
		return nil, err
	}
	return db.searchIn(ctx, col, &q)
}

// searchIn is Search without the collection's limits.
func (db *DB) searchIn(ctx context.Context, col *collection, q *vectord.Query) ([]vectord.Hit, error) {
	s, err := db.newSearch(ctx, col, q)
	if err != nil {
		return nil, err
	}
	db.searching.Add(1)
	defer db.searching.Add(-1)
	return s.answer(ctx)
}

// page returns those of the hits of all pages so far that the query asks for.
func (s *search) page(hits []vectord.Hit) []vectord.Hit {
	if s.query.Offset >= len(hits) {
		return []vectord.Hit{}
	}
	return hits[s.query.Offset:]
}

// search is one query under way, or what it prefetches.
type search struct {
	db         *DB
	collection *collection
	query      *vectord.Query
	prefetch   []*search
	filter     *matcher // of the query and of those that prefetch it
	selection  selection
	formula    *formula  // of a query that has one
	ordering   *ordering // of a query that orders by a payload value

	// Of queries that compare vectors.
	spec     *vectorSpec
	distance func(query, stored []float32) float32
	order    vectord.Distance // says which of two scores is the better one
	vector   vectord.Vector   // to be near to, as the collection keeps vectors
	scorer   *scorer          // if not nil, scores take the place of nearness to vector

	exclude map[vectord.PointID]struct{}
	explain *explainer
	texts   map[*vectord.Document][]float32 // the vectors of texts that dense vectors are compared with
	now     int64                           // milliseconds since the Unix epoch; points that have expired by then are left out
	wanted  int                             // hits of all pages so far
	probe   bool                            // of our own, to measure recall: neither counted nor cached
}

// given returns a vector that a client gave if it is one of the name.
func (s *vectorSpec) given(v vectord.Vector) (vectord.Vector, error) {
	if v.Kind == vectord.TextVector && s.kind == vectord.SparseVector {
		var err error
		if v, err = sparseOfText(v.Text, true); err != nil {
			return v, err
		}
	}
	return v, v.Check(s.name, s.kind, s.dim)
}

// forQuery returns a vector that given accepts in the form in which it is compared.
func (s *vectorSpec) forQuery(v vectord.Vector) vectord.Vector {
	if s.distance == vectord.Cosine || s.datatype != "" {
		v = v.Clone()
		s.prepare(&v)
	}
	return v
}

// vectorOf returns the vector of a point.
func (db *DB) vectorOf(col *collection, spec *vectorSpec, id vectord.PointID) (vectord.Vector, error) {
	shard := col.shardOf(id)
	snapshot := db.store.NewSnapshot()
	defer snapshot.Close()
	row, ok, err := snapshot.Point(shard.id, id)
	if err != nil {
		return vectord.Vector{}, err
	}
	if !ok || gone(row, db.now()) {
		return vectord.Vector{}, noPoint(id)
	}
	v, ok, err := spec.read(snapshot.Reader, shard.id, row.Slot)
	if err == nil && !ok {
		err = vectord.Errorf(vectord.KindNotFound, "Point with id %s has no vector with name %q", id, spec.name)
	}
	return v, err
}

// allShards searches the shards, several at the same time, and merges what they found.
func (s *search) allShards(ctx context.Context) ([]vectord.Hit, error) {
	shards := s.collection.shards
	if len(shards) == 1 {
		return s.inShard(ctx, shards[0])
	}
	found := make([][]vectord.Hit, len(shards))
	errs := make([]error, len(shards))
	var wg sync.WaitGroup
	for i, shard := range shards {
		wg.Go(func() { found[i], errs[i] = s.inShard(ctx, shard) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s.merge(found), nil
}

// merge returns the nearest of the hits of all shards.
func (s *search) merge(found [][]vectord.Hit) []vectord.Hit {
	if len(found) == 1 {
		return found[0]
	}
	hits := slices.Concat(found...)
	s.sort(hits)
	return hits[:min(len(hits), s.wanted)]
}

func (s *search) sort(hits []vectord.Hit) {
	distance := s.order
	slices.SortFunc(hits, func(a, b vectord.Hit) int {
		switch {
		case distance.Nearer(a.Score, b.Score):
			return -1
		case distance.Nearer(b.Score, a.Score):
			return 1
		}
		return a.ID.Compare(b.ID)
	})
}

// errChanged says that points moved while a search was under way, so that it may have missed one or mistaken one for
// another.
var errChanged = errors.New("points moved during the search")

// inShard searches one shard. The first attempt takes no lock. If points move under it, the second keeps writers of the
// shard out: then index, slots and rows agree.
func (s *search) inShard(ctx context.Context, shard *shard) ([]vectord.Hit, error) {
	hits, err := s.attempt(ctx, shard, false)
	if !errors.Is(err, errChanged) {
		return hits, err
	}
	s.db.metrics.searchRetries.Inc()
	shard.applying.RLock()
	defer shard.applying.RUnlock()
	return s.attempt(ctx, shard, true)
}

// attempt searches the shard. settled says that no writer is at work: then a candidate without a point is a leftover of
// the index, and not a point that moved.
func (s *search) attempt(ctx context.Context, shard *shard, settled bool) ([]vectord.Hit, error) {
	a, err := s.begin(ctx, shard, settled)
	if a == nil || err != nil {
		return nil, err
	}
	defer a.release()
	if a.plan == planFresh {
		a.vectors.dense.onGraph(func(g *hnsw.Graph) {
			a.found = g.Search(a.found[:a.outside], a.nearest.vector, a.walk())
		})
	}
	return a.finish(ctx)
}

// attempt is an attempt to search a shard, under way.
type attempt struct {
	search   *search
	shard    *shard
	vectors  *shardVectors
	settled  bool
	removals uint64 // of the index when it began
	matches  *matches
	expired  []uint32 // slots to find and leave out
	nearest  nearest
	plan     searchPlan // planFresh until the graph is asked, if it has to be
	outside  int        // candidates that are not from the graph
	work     hnsw.Work  // of the graph
	*rescoring
}

// walk returns what to ask the graph for. It will say in work what it did.
func (a *attempt) walk() hnsw.Params {
	p := a.nearest.walk()
	p.Work = &a.work
	return p
}

// begin begins an attempt, up to where the graph is to be asked. It returns nil if nothing matches.
func (s *search) begin(ctx context.Context, shard *shard, settled bool) (*attempt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	vectors := shard.vectorsOf(s.spec.number)
	if vectors == nil {
		return nil, vectord.NoVectorName(s.spec.name) // dropped a moment ago
	}
	removals := vectors.removals()
	found, err := shard.matches(ctx, s.db.store, s.filter, settled)
	if err != nil {
		return nil, err
	}
	if found != nil && found.count == 0 {
		s.explain.nothing()
		return nil, nil
	}
	expired := shard.expiry.expired(s.now, math.MaxInt)
	if len(expired) > 0 && (found != nil || len(expired) > overfetchMax) {
		if found, expired = shard.without(found, expired), nil; found.count == 0 {
			s.explain.nothing()
			return nil, nil
		}
	}
	n := nearest{vector: s.vector.Values, matches: found, exact: s.query.Params.Exact}
	// Without a graph there is nothing that indexing will make quicker, so nothing is left out.
	n.indexed = s.query.Params.IndexedOnly && vectors.dense != nil && vectors.dense.graph.Load() != nil
	// Points that will be found and left out.
	n.wanted = s.wanted + len(s.exclude) + len(expired)
	a := &attempt{search: s, expired: expired, shard: shard, vectors: vectors, settled: settled, removals: removals, matches: found,
		rescoring: rescorings.Get().(*rescoring)}
	switch {
	case s.scorer != nil:
		a.found, a.plan, err = a.scored(ctx, &n)
	case vectors.sparse != nil:
		n.k = n.wanted
		a.found, a.plan = vectors.sparse.search(a.found[:0], &s.vector, n.k, found), planSparse
	default:
		if n.ef = s.query.Params.HNSWEf; n.ef == 0 {
			n.ef = vectors.recall.efFor(&s.spec.hnsw)
		}
		n.k = s.depth(vectors.dense, n.ef, n.wanted)
		a.found, a.plan, err = vectors.dense.outsideGraph(ctx, a.found[:0], n)
	}
	a.nearest = n
	if err != nil {
		a.release()
		return nil, err
	}
	a.outside = len(a.found)
	return a, nil
}

// finish ends an attempt whose candidates are found.
func (a *attempt) finish(ctx context.Context) ([]vectord.Hit, error) {
	s, n := a.search, a.nearest
	if !s.probe {
		a.count()
	}
	if err := a.rescore(ctx); err != nil {
		return nil, err
	}
	if len(a.candidates) < a.enough() {
		// Walks ran dry before they had met enough matching points: compare with all of them.
		n.exact, a.plan = true, planExact
		var err error
		if a.found, err = a.vectors.dense.candidates(ctx, a.found[:0], n); err != nil {
			return nil, err
		}
		if err := a.rescore(ctx); err != nil {
			return nil, err
		}
	}
	if a.vectors.removals() != a.removals && !a.settled {
		return nil, errChanged
	}
	hits, err := a.hits()
	if err == nil {
		a.tell()
	}
	return hits, err
}

// enough is how many candidates there must be, if as many match, where walks may end with fewer.
func (a *attempt) enough() int {
	n := &a.nearest
	switch {
	case n.indexed, a.plan != planFresh && a.plan != planExamples:
		return 0
	case a.matches != nil:
		return min(n.wanted, a.matches.count)
	case a.plan == planExamples:
		return min(n.wanted, a.vectors.dense.waiting()+a.vectors.dense.indexed())
	}
	return 0
}

// count tells the metrics of the attempt, and those who measure recall of a query that they may ask again.
func (a *attempt) count() {
	db := a.search.db
	db.metrics.searches[a.ran()].Inc()
	if a.plan == planFresh && a.work.Plan != hnsw.PlanNone && a.matches == nil && len(a.search.exclude) == 0 && len(a.expired) == 0 {
		a.vectors.recall.queries.offer(a.nearest.vector, &db.sampled)
	}
}

// ran returns the plan in terms of the metrics.
func (a *attempt) ran() searchPlan {
	if a.plan == planFresh && a.work.Plan != hnsw.PlanNone {
		return planGraph + searchPlan(a.work.Plan)
	}
	return a.plan
}

// tell counts what an attempt that came to its end has looked at, and explains it where that was asked for.
func (a *attempt) tell() {
	exact := a.plan != planExamples && (a.plan != planFresh || a.work.Plan == hnsw.PlanNone && !a.nearest.indexed)
	if m := a.search.db.metrics; !a.search.probe {
		m.candidates.Add(float64(len(a.candidates)))
		if exact {
			m.exact.Inc()
		}
	}
	matching := int(a.shard.points.Load())
	if a.matches != nil {
		matching = a.matches.count
	}
	a.search.explain.add(a.ran().String(), vectord.Explanation{Matching: matching, Candidates: len(a.candidates), Visited: a.work.Rows, Exact: exact})
}

// depth returns how many candidates of a walk are compared again, for a number of wanted hits.
func (s *search) depth(x *vectorIndex, ef, wanted int) int {
	q := s.query.Params.Quantization
	switch {
	case q.Ignore:
		return max(ef, wanted)
	case q.Oversampling > 0:
		return max(min(int(math.Ceil(q.Oversampling*float64(wanted))), candidatesMax), wanted)
	case q.ByCodes:
		return wanted
	}
	if g := x.graph.Load(); g != nil {
		return g.Codec().Depth(wanted)
	}
	return wanted // what waits for a graph is compared at full precision
}

// candidate is a slot to be compared, what it held when that began, and its exact distance.
type candidate struct {
	slot     uint32
	distance float32
	held     slotWords
}

// rescoring is the memory of one search for comparing candidates. It is used again by later searches.
type rescoring struct {
	found      []index.Neighbor
	candidates []candidate
	order      []uint64 // a distance as orderedBits in the upper half, a place in candidates in the lower
	missing    []uint64 // a slot whose vector must be read in the upper half, its place in candidates in the lower
	missed     []uint32 // the slots of missing
	vector     []float32
}

var rescorings = sync.Pool{New: func() any { return new(rescoring) }}

// rescoringKept bounds the candidates for which the memory of a search is kept.
const rescoringKept = 4096

func (r *rescoring) release() {
	if cap(r.found) <= rescoringKept && cap(r.candidates) <= rescoringKept {
		rescorings.Put(r)
	}
}

// rescore compares the slots found at full precision and puts them into candidates, in order, each once.
func (a *attempt) rescore(ctx context.Context) error {
	s, r, shard := a.search, a.rescoring, a.shard
	r.candidates, r.missing = r.candidates[:0], r.missing[:0]
	quantization := s.query.Params.Quantization
	// Distances of sparse vectors are exact as they are.
	measured := quantization.ByCodes && !quantization.Ignore && s.scorer == nil || a.vectors.sparse != nil
	if measured {
		// One slot may have been measured twice, exactly at first and then by its code.
		slices.SortStableFunc(r.found, func(a, b index.Neighbor) int { return cmp.Compare(a.Slot, b.Slot) })
		r.found = slices.CompactFunc(r.found, func(a, b index.Neighbor) bool { return a.Slot == b.Slot })
	}
	hits := uint64(0)
	for _, f := range r.found {
		held, ok := shard.slots.words(f.Slot)
		if !ok && a.settled {
			continue
		}
		if !ok {
			return errChanged
		}
		c := candidate{slot: f.Slot, held: held}
		if measured && f.Distance == f.Distance {
			c.distance = f.Distance
			if s.order == vectord.Euclid {
				c.distance = max(f.Distance, 0) // an estimate of what has a root
			}
		} else if v, ok := s.db.hot.get(hotKey{a.vectors.dense.id, f.Slot}, held.version()); ok {
			c.distance = s.distance(a.nearest.vector, v)
			hits++
		} else {
			r.missing = append(r.missing, uint64(f.Slot)<<32|uint64(len(r.candidates)))
		}
		r.candidates = append(r.candidates, c)
	}
	s.db.hot.hits.Add(hits)
	if len(r.missing) > 0 {
		if err := a.compareMissing(ctx); err != nil {
			return err
		}
	}
	// A slot that holds the same version as before its vector was used held it all the while.
	for i := range r.candidates {
		c := &r.candidates[i]
		if now, ok := shard.slots.words(c.slot); !ok || now != c.held {
			return errChanged
		}
	}
	r.rank()
	return nil
}

// compareMissing compares the candidates whose vectors the hot set does not have: those of the fresh buffer first, and
// the others in one ordered read of storage, after which the hot set may have them.
func (a *attempt) compareMissing(ctx context.Context) error {
	s, r, x, query := a.search, a.rescoring, a.vectors.dense, a.nearest.vector
	slices.Sort(r.missing) // by slot
	r.missed = r.missed[:0]
	kept := r.missing[:0]
	for _, m := range r.missing {
		slot, c := uint32(m>>32), &r.candidates[uint32(m)]
		v, ok := x.fresh.Vector(slot, r.vector[:0])
		if r.vector = v; ok {
			c.distance = s.distance(query, v)
			continue
		}
		kept, r.missed = append(kept, m), append(r.missed, slot)
	}
	if r.missing = kept; len(kept) == 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s.db.hot.misses.Add(uint64(len(r.missed)))
	cached := s.spec.kind == vectord.DenseVector && !s.spec.onDisk && !s.query.Params.Exact && !s.probe
	read := 0
	err := s.db.store.Vectors(x.set, r.missed, func(slot uint32, v []float32) error {
		for read < len(r.missed) && r.missed[read] != slot {
			a.absent(&r.candidates[uint32(r.missing[read])])
			read++
		}
		c := &r.candidates[uint32(r.missing[read])]
		c.distance = s.distance(query, v)
		if now, ok := a.shard.slots.words(slot); cached && ok && now == c.held {
			s.db.hot.add(hotKey{x.id, slot}, c.held.version(), v)
		}
		read++
		return nil
	})
	for ; err == nil && read < len(r.missed); read++ {
		a.absent(&r.candidates[uint32(r.missing[read])])
	}
	return err
}

// absent notes that a candidate has no such vector. A point of those that match need not have one; any other was seen in the
// index, and moved since.
func (a *attempt) absent(c *candidate) { c.distance = unmeasured }

// rank sorts the candidates by distance, those at equal distance by id, and drops those that are there twice.
func (r *rescoring) rank() {
	r.order = r.order[:0]
	for i := range r.candidates {
		r.order = append(r.order, uint64(orderedBits(r.candidates[i].distance))<<32|uint64(i))
	}
	slices.Sort(r.order)
	n := len(r.candidates)
	for _, o := range r.order { // sorted copies behind the originals
		r.candidates = append(r.candidates, r.candidates[uint32(o)])
	}
	sorted := r.candidates[n:]
	kept := r.candidates[:0]
	for len(sorted) > 0 {
		same := 1
		for same < len(sorted) && orderedBits(sorted[same].distance) == orderedBits(sorted[0].distance) {
			same++
		}
		if same > 1 {
			slices.SortFunc(sorted[:same], func(a, b candidate) int {
				return cmp.Or(a.held.id().Compare(b.held.id()), cmp.Compare(a.slot, b.slot))
			})
		}
		for i, c := range sorted[:same] {
			if i == 0 || c.slot != sorted[i-1].slot {
				kept = append(kept, c)
			}
		}
		sorted = sorted[same:]
	}
	r.candidates = kept
}

// orderedBits maps distances to integers in the same order. NaN comes last, and the two zeros are the same.
func orderedBits(distance float32) uint32 {
	if distance != distance {
		return math.MaxUint32
	}
	b := math.Float32bits(distance + 0) // -0 + 0 is 0
	return b ^ (uint32(int32(b)>>31) | 1<<31)
}

// hits turns the nearest candidates into hits with what the query selects.
func (a *attempt) hits() ([]vectord.Hit, error) {
	s, shard, found := a.search, a.shard, a.matches
	hits := make([]vectord.Hit, 0, min(len(a.candidates), s.wanted))
	d := s.order
	for i := range a.candidates {
		c := &a.candidates[i]
		if len(hits) == s.wanted || c.distance != c.distance {
			break
		}
		p := c.held.point()
		if _, ok := s.exclude[p.id]; ok || slices.Contains(a.expired, c.slot) {
			continue
		}
		score := index.Score(d, c.distance)
		if limit := s.query.ScoreThreshold; limit != nil && !d.Nearer(score, *limit) {
			break
		}
		hit := vectord.Hit{Record: vectord.Record{ID: p.id, Version: p.version}, Score: score}
		// A point that changed after the filter was evaluated may match no longer.
		recheck := found != nil && p.version > found.asOf
		if s.selection.payload || s.selection.vectors || recheck {
			row, ok, err := s.db.store.Point(shard.id, p.id)
			if err != nil {
				return nil, err
			}
			if !ok || row.Slot != c.slot {
				return nil, errChanged
			}
			if recheck {
				if holds, err := s.filter.matches(viewOf(p.id, row)); err != nil {
					return nil, err
				} else if !holds {
					return nil, errChanged
				}
			}
			if s.selection.payload {
				if hit.Payload, err = s.selection.project(row.Payload); err != nil {
					return nil, err
				}
			}
			if s.selection.vectors {
				if hit.Vectors, err = s.collection.readVectors(s.db.store.Reader, shard, row, &s.selection); err != nil {
					return nil, err
				}
			}
		}
		if now, ok := shard.slots.words(c.slot); !ok || now != c.held {
			return nil, errChanged
		}
		hits = append(hits, hit)
	}
	return hits, nil
}

// searchPlan is how candidates were found.
type searchPlan uint8

const (
	planExact    searchPlan = iota // every vector compared at full precision
	planList                       // no more match than are wanted as candidates, so they are that
	planSparse                     // the inverted index was asked
	planExamples                   // what lies around the examples was scored
	planFresh                      // there is no graph
	planGraph                      // and beyond: the plans of hnsw, in their order
	searchPlans  = planGraph + searchPlan(hnsw.PlanScan) + 1
)

func (p searchPlan) String() string {
	if p >= planGraph {
		return hnsw.Plan(p - planGraph).String()
	}
	return [...]string{"exact", "list", "sparse", "examples", "fresh"}[p]
}
