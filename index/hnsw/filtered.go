package hnsw

import (
	"math"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/vectord/vectord/index"
)

// The bounds of a search among some of the nodes only, those that match a filter or are not deleted. The numbers weigh work
// against work, so they hold for any dimension; how many rows a scan compares in the time of a walk's step is measured (see
// costs).
const (
	// efMax bounds the candidates of a walk, whose cost to keep in order grows with their square. More are found by a scan.
	efMax = 1 << 16

	// plainShareMin is the share of visible nodes from which a walk goes through the hidden ones as if there were no filter.
	// From there on that is cheaper than to look through them, which takes the time of filteredStep steps for each.
	plainShareMin = 0.35
	filteredStep  = 4

	// scanWorth is how much longer a scan may take than a walk to be preferred, as it misses nothing.
	scanWorth = 2

	// sparseShare times M is the number of nodes of which at least one must be visible for the visible ones to hang together:
	// a node has some 2M links and (2M)² links of links, of which about half are distinct, and a graph as good as the whole
	// one wants M of them visible.
	sparseShare = 2

	// bridgeShare times M, over the square root of the share of visible nodes, is the number of hidden neighbors of one node
	// that a walk looks through. More cost more than they find: where many are visible the first ones lead to enough, and
	// in a hole nearly all that they lead to has been met.
	bridgeShare = 0.33

	// A walk begins with probeSteps steps along all nodes. The probeNodes nearest nodes that they meet tell how many are
	// visible around the query. If fewer than one in holeRatio are of those that would be by chance, of which there would be
	// at least four, then the filter has made a hole there. If fewer than one in thinRatio, a walk along all nodes would have
	// to go further than it takes to find all.
	probeSteps = 32
	probeNodes = 128
	holeRatio  = 4
	thinRatio  = 1.5

	// holeScanRows is the number of visible nodes up to which all are compared if the query is in a hole: some hundred
	// microseconds of work. Of more a walk finds most, with holeWidth times as many candidates as elsewhere, each of which takes
	// the time of holeStep steps of a walk among all nodes; all are compared where that takes no longer.
	holeScanRows = 40_000
	holeWidth    = 1.3
	holeStep     = 4 * filteredStep

	// seedsMax is the number of visible nodes, spread over all of them, from which a filtered walk sets out, besides those
	// met before: they may lie where nothing is visible.
	seedsMax = 64

	// cacheLine is the size of one.
	cacheLine = 64

	// scanBatch is the number of slots that a scan compares in one call.
	scanBatch = 256
)

// cheapest decides between a scan and a walk by what they cost. A walk would compare as many, or could not get about.
func (s *searcher) cheapest() Plan {
	steps, walk := float64(s.goal.ef)/s.share, PlanWalk
	if s.share < plainShareMin {
		steps, walk = probeSteps+filteredStep*float64(s.goal.ef), PlanFiltered
	}
	sparse := s.matches*sparseShare*s.arena.m < s.graph.Len()
	if sparse || s.goal.ef > efMax || s.graph.costs.scanPays(s, scanWorth*steps) {
		return PlanScan
	}
	return walk
}

// startPlain begins the search, and reports whether it is to go on with a walk that takes hidden nodes for visible ones,
// until finish. If not it goes on with finish at once.
func (s *searcher) startPlain() bool {
	s.work.Plan = s.cheapest()
	switch s.work.Plan {
	case PlanWalk:
		s.start(s.goal.scale(s.share), s.descend(0))
	case PlanFiltered:
		s.start(goal{k: probeSteps, depth: probeNodes, ef: probeSteps}, s.descend(0))
	default:
		return false
	}
	if s.work.Plan == PlanFiltered || s.see.filtered {
		s.probe()
	}
	return s.work.Plan == PlanWalk
}

// probe takes the first steps of a walk and changes the plan if too few nodes are visible where they lead. In a hole that a
// filter has made the nearest visible nodes lie on all sides, far from each other, and a walk easily misses some. A hole that
// deletes have made is put up with until Unlink closes it, as long as the walk finds its way out: a filter's matches are few,
// the rest of a graph is not.
func (s *searcher) probe() {
	for range probeSteps {
		if !s.expand(0) {
			break
		}
		s.admit(0)
	}
	if !s.see.filtered {
		return
	}
	around := s.visibleShare(s.pool.keys[:min(probeNodes, len(s.pool.keys))])
	hole := around*holeRatio < s.share
	wide := holeWidth * float64(s.goal.ef)
	switch {
	case hole && (s.matches <= holeScanRows || s.graph.costs.scanPays(s, holeStep*wide)):
		s.work.Plan = PlanScan
	case hole:
		s.work.Plan = PlanFiltered
		s.goal.ef = int(wide)
	case around*thinRatio < s.share:
		s.work.Plan = PlanFiltered
	}
}

// visibleShare returns the share of visible nodes among some.
func (s *searcher) visibleShare(keys []uint64) float64 {
	visible := 0
	for _, k := range keys {
		if !s.see.hides(keySlot(k)) {
			visible++
		}
	}
	return float64(visible) / float64(max(len(keys), 1))
}

// finish ends the search that startPlain began, and appends what it has found.
func (s *searcher) finish(dst []index.Neighbor) []index.Neighbor {
	if s.work.Plan == PlanWalk && !s.settlePlain() {
		s.work.Plan = PlanFiltered
	}
	if s.work.Plan == PlanFiltered && !s.searchVisible() {
		s.work.Plan = PlanScan
	}
	if s.work.Plan == PlanScan {
		s.scanVisible(s.goal.depth, &s.see)
	}
	if s.report != nil {
		*s.report = s.work
	}
	return s.appendResults(dst, s.goal.depth)
}

// settlePlain drops the hidden nodes that a walk has left in the pool. It reports false if too few others are left.
func (s *searcher) settlePlain() bool {
	s.dropHidden(&s.see)
	return len(s.pool.keys) >= min(s.goal.depth, s.matches)
}

// searchVisible leaves in the pool the nearest visible nodes that a walk along visible ones finds, from those in the pool and
// some others. It reports false if they are too few.
func (s *searcher) searchVisible() bool {
	s.keys = append(s.keys[:0], s.pool.keys...)
	s.startEmpty(s.goal)
	for _, k := range s.keys {
		if slot := keySlot(k); !s.see.hides(slot) && s.visited.add(slot) {
			s.pool.insert(k &^ expandedBit)
		}
	}
	s.seed()
	s.walkVisible()
	return len(s.pool.keys) >= min(s.goal.depth, s.matches)
}

// dropHidden takes the nodes that may not be returned out of the pool.
func (s *searcher) dropHidden(see *visibility) {
	if see.dead == nil && !see.filtered {
		return
	}
	visible := s.pool.keys[:0]
	for _, k := range s.pool.keys {
		if !see.hides(keySlot(k)) {
			visible = append(visible, k)
		}
	}
	s.pool.keys = visible
}

// shownWords returns a bit for every slot below limit that tells whether it is visible, and the limit, which is lower than
// that of the searcher where nothing is visible beyond.
func (s *searcher) shownWords() (shown []uint64, limit uint32) {
	limit = s.limit
	if s.see.filtered {
		limit = min(limit, uint32(min(64*len(s.see.allow), math.MaxUint32)))
		if s.see.dead == nil {
			return s.see.allow, limit
		}
	}
	s.shown = s.shown[:0]
	for i := range (int(limit) + 63) / 64 {
		s.shown = append(s.shown, s.see.word(i))
	}
	return s.shown, limit
}

// walkVisible is walk on layer 0 for when few nodes are visible: it scores the visible neighbors of a node and, in place of
// each hidden one, that one's visible neighbors. The hidden nodes cost a look at their links, and no distance.
func (s *searcher) walkVisible() {
	shown, limit := s.shownWords()
	if limit == 0 {
		return
	}
	a := s.arena
	scoreMax := a.width(0) // for one node
	bridgesMax := int(math.Ceil(bridgeShare * float64(a.m) / math.Sqrt(s.share)))
	bridges := fetcher{codes: a.baseBytes(), size: 4 * scoreMax, lines: (4*scoreMax + cacheLine - 1) / cacheLine}
	if s.fetch.lines == 0 {
		bridges = fetcher{}
	}
	for {
		k, ok := s.pool.peek()
		if !ok || k > s.reach.limit {
			return
		}
		s.pool.expand()
		row := a.links(keySlot(k), 0)
		s.slots = s.visited.addVisible(s.slots[:0], row, shown, limit, s.fetch)
		for i, hidden := range s.visited.addLinks(row, s.limit, bridges) { // as those that are not are in the set
			if i == bridgesMax || len(s.slots) >= scoreMax {
				break
			}
			s.slots = s.visited.addVisible(s.slots, a.links(hidden, 0), shown, limit, s.fetch)
		}
		if next, ok := s.pool.peek(); ok && next <= s.reach.limit {
			fetchLinks(a.links(keySlot(next), 0), s.limit, bridges)
		}
		s.batch = s.slots
		s.admit(0)
	}
}

// seed adds about seedsMax visible nodes to the pool, evenly spaced among all of them by slot.
func (s *searcher) seed() {
	see := &s.see
	words := (int(s.limit) + 63) / 64
	count := 0
	for i := range words {
		count += bits.OnesCount64(see.word(i))
	}
	s.slots = s.slots[:0]
	step := max(count/seedsMax, 1)
	rank, wanted := 0, step/2 // of the next visible node; of the next seed
	for i := 0; i < words && len(s.slots) < seedsMax; i++ {
		w := see.word(i)
		if n := bits.OnesCount64(w); rank+n <= wanted {
			rank += n
			continue
		}
		for ; w != 0; w &= w - 1 {
			slot := uint32(64*i + bits.TrailingZeros64(w))
			if rank >= wanted && slot < s.limit && s.arena.isLive(slot) && s.visited.add(slot) {
				s.slots = append(s.slots, slot)
				wanted += step
			}
			rank++
		}
	}
	s.batch = s.slots
	s.admit(0)
}

// scanVisible fills the pool with the k nearest of all visible live nodes.
func (s *searcher) scanVisible(k int, see *visibility) {
	words := (int(s.limit) + 63) / 64
	if see.filtered {
		words = min(words, len(see.allow))
	}
	s.pool.reset(k)
	s.slots = s.slots[:0]
	for i := range words {
		w := see.word(i)
		for base := uint32(64 * i); w != 0; w &= w - 1 {
			s.slots = append(s.slots, base+uint32(bits.TrailingZeros64(w)))
		}
		if len(s.slots) >= scanBatch {
			s.scanFlush()
		}
	}
	s.scanEnd()
}

// scanFlush compares those of the slots that are live.
//
// Whether a slot is live decides nothing but an addition: the look at its state would otherwise wait for the one before.
func (s *searcher) scanFlush() {
	n := 0
	for _, slot := range s.slots {
		if slot < s.limit {
			s.slots[n] = slot
			n += int(liveBit(s.arena, slot))
		}
	}
	s.batch = s.slots[:n]
	s.score()
	for i, d := range s.scores {
		if d <= keyDistance(s.pool.bound) {
			s.pool.collect(key(d, s.batch[i]))
		}
	}
	s.slots = s.slots[:0]
}

// baseBytes returns the links of layer 0 as bytes, to prefetch.
func (a *arena) baseBytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(a.base))), 4*len(a.base))
}

// liveBit is 1 if a node is linked and not deleted, and 0 otherwise.
func liveBit(a *arena, slot uint32) uint32 {
	state := atomic.LoadUint32(&a.states[slot])
	return state / linked &^ (state / dead) & 1
}

// scanEnd leaves the pool in order.
func (s *searcher) scanEnd() {
	s.scanFlush()
	s.pool.settle()
}
