package engine

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

const (
	// A piece of the scan takes so many multiplications, about a millisecond, of recallRowsMin rows at least, and looks at
	// recallSlotsMax slots at most.
	recallChunkWork = 8 << 20
	recallRowsMin   = 16
	recallSlotsMax  = 1 << 16

	// sampleTries bounds the random slots looked at for each vector of a sample.
	sampleTries = 20

	// outOfReach is how far below the recall of the largest ef that of a smaller one may be where even the largest does
	// not reach the target: what more candidates no longer improve, they need not pay for.
	outOfReach = 0.001
)

// recallPass is one measurement of a shard. First it finds the nearest points to each query, comparing at full precision
// with all vectors, a few at a time and without a snapshot. Then it searches with one ef after the other.
//
// Points may change meanwhile. One that was written since the beginning is not counted among those to be found; one that
// was deleted no longer is.
type recallPass struct {
	measurable
	db       *DB
	config   vectord.HNSWConfig
	began    time.Time
	state    shardState
	through  uint64 // index in the log at the beginning
	retarget bool   // the target is not that of the last pass
	outdated bool   // the points are not those of the last pass

	queries  []passQuery
	distance func(a, b []float32) float32
	next     uint32   // slot at which the scan goes on
	slots    []uint32 // of the piece under way, kept for the next
	scanned  bool

	tallies map[int]*tally // by ef; those of all queries
	ef      int            // being measured, 0 for none
	current tally          // … and its queries so far
	at      int            // the query that comes next
}

// passQuery is a query and the points nearest to it, nearest first once the scan has ended.
type passQuery struct {
	vector  []float32
	id      *vectord.PointID // the point whose vector it is and which is not to be found; nil if a client asked it
	top     index.Top
	nearest []truePoint
}

type truePoint struct {
	slot  uint32
	id    vectord.PointID
	score float32
}

// tally sums up the recall of queries.
type tally struct {
	n            int
	sum, squares float64
}

func (t *tally) add(ratio float64) {
	t.n++
	t.sum += ratio
	t.squares += ratio * ratio
}

func (t *tally) mean() float64 { return t.sum / float64(t.n) }

// reaches reports whether the recall of all queries can be taken to be at least target.
func (t *tally) reaches(target float64) bool {
	mean := t.mean()
	variance := max(t.squares/float64(t.n)-mean*mean, 0)
	deviation := math.Sqrt(variance / float64(max(t.n-1, 1)))
	return mean >= target+marginOf(target) && mean-recallDeviations*deviation >= target
}

// marginOf returns recallMargin, or less where it would ask for nearly everything.
func marginOf(target float64) float64 { return min(recallMargin, (1-target)/4) }

// newPass begins a measurement. With an error it returns one that has measured nothing.
func (db *DB) newPass(m measurable, now time.Time) (*recallPass, error) {
	last := &m.vectors.recall.last
	p := &recallPass{measurable: m, db: db, config: m.spec.hnsw, began: now, state: m.vectors.state(),
		through: m.shard.through.Load(), distance: m.spec.compare(), tallies: map[int]*tally{}}
	p.retarget = last.retargeted(&p.config)
	p.outdated = last.outdated(&p.state)
	for _, v := range m.vectors.recall.queries.take(min(recallQueriesMin, sampleSize(m.spec.dim))) {
		p.queries = append(p.queries, passQuery{vector: v})
	}
	if len(p.queries) == 0 {
		if err := p.ownQueries(last.count); err != nil {
			return p, err
		}
	}
	for i := range p.queries {
		p.queries[i].top.Reset(recallK)
	}
	return p, nil
}

// ownQueries makes queries of the shard's own vectors.
func (p *recallPass) ownQueries(seed uint64) error {
	rng := rand.New(rand.NewPCG(uint64(p.shard.id), seed))
	size := sampleSize(p.spec.dim)
	points := map[uint32]slotPoint{}
	for limit, tries := p.shard.slots.limit(), size*sampleTries; tries > 0 && limit > 0 && len(points) < size; tries-- {
		slot := rng.Uint32N(limit)
		if point, ok := p.shard.slots.get(slot); ok {
			points[slot] = point
		}
	}
	slots := make([]uint32, 0, len(points))
	for slot := range points {
		slots = append(slots, slot)
	}
	slices.Sort(slots)
	err := p.db.store.Vectors(p.vectors.dense.set, slots, func(slot uint32, v []float32) error {
		if now, ok := p.shard.slots.get(slot); ok && now == points[slot] {
			p.queries = append(p.queries, passQuery{vector: slices.Clone(v), id: &now.id})
		}
		return nil
	})
	if err == nil && len(p.queries) == 0 {
		err = errors.New("no points to sample")
	}
	return err
}

// step does a piece of the pass and reports whether it is complete.
func (p *recallPass) step() (done bool, err error) {
	if !p.scanned {
		return false, p.scan()
	}
	if p.ef == 0 {
		if p.ef = p.efToMeasure(); p.ef == 0 {
			return true, nil
		}
		p.current, p.at = tally{}, 0
	}
	if err := p.search(&p.queries[p.at]); err != nil {
		return false, err
	}
	if p.at++; p.at < len(p.queries) {
		return false, nil
	}
	if p.current.n < (len(p.queries)+1)/2 {
		return false, fmt.Errorf("points change too fast: %d of %d queries could be measured", p.current.n, len(p.queries))
	}
	complete := p.current
	p.tallies[p.ef] = &complete
	p.ef = 0
	return false, nil
}

// scan compares the queries with the next vectors.
func (p *recallPass) scan() error {
	rows := max(recallRowsMin, recallChunkWork/(len(p.queries)*p.spec.dim))
	limit := p.shard.slots.limit()
	p.slots = p.slots[:0]
	for end := min(limit, p.next+recallSlotsMax); p.next < end && len(p.slots) < rows; p.next++ {
		if _, ok := p.shard.slots.get(p.next); ok {
			p.slots = append(p.slots, p.next)
		}
	}
	err := p.db.store.Vectors(p.vectors.dense.set, p.slots, func(slot uint32, v []float32) error {
		point, ok := p.shard.slots.get(slot)
		if !ok {
			return nil
		}
		for i := range p.queries {
			q := &p.queries[i]
			if q.id == nil || *q.id != point.id {
				q.top.Offer(index.Neighbor{Slot: slot, Distance: p.distance(q.vector, v)})
			}
		}
		return nil
	})
	if err == nil && p.next >= limit {
		p.scanned = true
		p.rank()
	}
	return err
}

// rank writes down the nearest points of each query.
func (p *recallPass) rank() {
	d := p.spec.distance
	var sorted []index.Neighbor
	for i := range p.queries {
		q := &p.queries[i]
		sorted = q.top.AppendSorted(sorted[:0])
		for _, n := range sorted {
			// A slot written since the beginning may not hold the vector that was compared.
			if point, ok := p.shard.slots.get(n.Slot); ok && point.version <= p.through {
				q.nearest = append(q.nearest, truePoint{n.Slot, point.id, index.Score(d, n.Distance)})
			}
		}
	}
}

// search searches for one query as a client's search does, and counts what it finds.
func (p *recallPass) search(q *passQuery) error {
	query := vectord.Query{Limit: recallK, Params: vectord.SearchParams{HNSWEf: p.ef}}
	s := search{db: p.db, collection: p.collection, query: &query, spec: p.spec, distance: p.distance, order: p.spec.distance, vector: vectord.Dense(q.vector),
		wanted: recallK, probe: true}
	if q.id != nil {
		s.exclude = map[vectord.PointID]struct{}{*q.id: {}}
	}
	hits, err := s.attempt(p.db.stop, p.shard, false)
	if errors.Is(err, errChanged) {
		return nil // the other queries will do
	}
	if err != nil {
		return err
	}
	d := p.spec.distance
	there, furthest := 0, float32(0)
	for _, n := range q.nearest {
		if now, ok := p.shard.slots.get(n.slot); ok && now.id == n.id {
			there++
			furthest = n.score
		}
	}
	if there == 0 {
		return nil
	}
	found := 0
	for _, h := range hits {
		if !d.Nearer(furthest, h.Score) { // of several points that are equally far any will do
			found++
		}
	}
	missed := 1 - float64(min(found, there))/float64(there)
	if q.id != nil {
		missed *= recallOwnMisses
	}
	p.current.add(1 - missed)
	return nil
}

// efToMeasure returns the ef that must be measured next for a choice to be made, 0 if it can be made.
func (p *recallPass) efToMeasure() int {
	inForce := p.vectors.recall.efFor(&p.config)
	if p.tallies[inForce] == nil {
		return inForce
	}
	if p.config.EfSearch > 0 {
		return 0
	}
	_, missing := p.needed()
	return missing
}

// needed returns the smallest ef that is enough, or the one that must be measured before it is known.
func (p *recallPass) needed() (ef, missing int) {
	ef, missing = p.smallest(func(t *tally) bool { return t.reaches(p.config.RecallTarget) })
	if ef == 0 && missing == 0 {
		best := p.tallies[efLadder[len(efLadder)-1]].mean()
		return p.smallest(func(t *tally) bool { return t.mean() >= best-outOfReach })
	}
	return ef, missing
}

// smallest returns the smallest ef of the ladder whose tally is enough, provided that more is never worse; ef 0 says that
// none is, unless missing is one that is not measured yet.
func (p *recallPass) smallest(enough func(*tally) bool) (ef, missing int) {
	low, high := 0, len(efLadder)
	for low < high {
		mid := (low + high) / 2
		t := p.tallies[efLadder[mid]]
		switch {
		case t == nil:
			return 0, efLadder[mid]
		case enough(t):
			high = mid
		default:
			low = mid + 1
		}
	}
	if low == len(efLadder) {
		return 0, 0
	}
	return efLadder[low], 0
}

// choose returns the ef to search with from now on, after a complete pass; before is what was chosen before, 0 for nothing.
// Another target is followed at once. Otherwise ef is raised where the measured recall is below the target, or near it
// and the points are others by now. It is lowered where it is far too much, and not while the points change, for then the
// sample may be of queries of yesterday.
func (p *recallPass) choose(before int) int {
	if p.config.EfSearch > 0 {
		return p.config.EfSearch
	}
	needed, _ := p.needed()
	if before == 0 || p.retarget {
		return needed
	}
	least := p.config.RecallTarget
	if p.outdated {
		least += marginOf(least)
	}
	switch recall := p.tallies[before].mean(); {
	case needed > before && recall < least, needed*efTooMuch <= before*efEnough && !p.outdated:
		return needed
	}
	return before
}
