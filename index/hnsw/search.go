package hnsw

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/quant"
)

// The choice between the ways to search, and the bounds of each. The numbers weigh work against work, so they hold for any
// dimension: a walk scores about 2M rows for each of ef nodes that it expands.
const (
	// efMax bounds the candidates of a walk, whose cost to keep in order grows with their square. More are found by a scan.
	efMax = 1 << 16

	// plainShareMin is the share of visible nodes from which a walk goes through the hidden ones as if there were no filter.
	plainShareMin = 0.5

	// sparseShare times M is the number of nodes of which at least one must be visible for the visible ones to hang together:
	// a node has some 2M links and (2M)² links of links, of which about half are distinct, and a graph as good as the whole
	// one wants M of them visible.
	sparseShare = 2

	// probeNodes is the number of nodes around the query that tell whether the filter has made a hole there, namely if fewer
	// than one in holeRatio are visible of those that would be by chance. At least four of them would.
	probeNodes = 128
	holeRatio  = 4

	// expansionsPerEf bounds the nodes that a walk expands, in units of ef. One that has not come to its end by then is lost
	// among hidden nodes.
	expansionsPerEf = 4

	// seedsMax is the number of visible nodes, spread over all of them, from which a filtered walk sets out, besides the one
	// that is nearest by the upper layers: it may lie where nothing is visible.
	seedsMax = 16

	// scanBatch is the number of slots that a scan compares in one call.
	scanBatch = 256
)

// Filter is a condition on the nodes that a search returns.
type Filter struct {
	Slots index.Bitset // those that match; may be read until the search returns
	Count int          // how many they are
}

// Search appends to dst the up to k nodes that are nearest to q among those not deleted and, unless filter is nil, matching
// it, nearest first. ef, which counts as at least k, is the number of candidates that it keeps on the way: more find truer
// neighbors in more time. Distances are those between codes, approximately, in terms of index.DistanceFunc; nodes whose
// codes are equally far come in the order of their slots.
//
// It finds k nodes if as many are visible: where walking the graph would be in doubt it compares all that match. A node
// being inserted meanwhile may be found or not. It panics unless q has the codec's dimension.
func (g *Graph) Search(dst []index.Neighbor, q []float32, k, ef int, filter *Filter) []index.Neighbor {
	if k <= 0 || g.arena.Load() == nil {
		return dst
	}
	s := acquire()
	defer s.release()
	g.codec.EncodeQuery(&s.query, q)
	if !s.begin(g) {
		return dst
	}
	see := visibility{}
	matches := g.Len()
	if g.deleted.Load() != 0 {
		see.dead = s.arena.dead
	}
	if filter != nil {
		see.allow, see.filtered = filter.Slots, true
		matches = min(filter.Count, matches)
	}
	k = min(k, int(s.limit))
	ef = max(ef, k)
	if s.shouldScan(ef, matches) || !s.searchGraph(ef, matches, &see) || s.pool.visible < min(k, matches) {
		s.scanVisible(k, &see)
	}
	return s.appendResults(dst, k)
}

// Scan appends to dst the k nodes nearest to q among those of the given slots that are live, nearest first and measured as
// by Search. No slot may be given twice. It panics unless q has the codec's dimension.
func (g *Graph) Scan(dst []index.Neighbor, q []float32, k int, slots []uint32) []index.Neighbor {
	if k <= 0 || g.arena.Load() == nil {
		return dst
	}
	s := acquire()
	defer s.release()
	g.codec.EncodeQuery(&s.query, q)
	if !s.begin(g) {
		return dst
	}
	s.pool.reset(min(k, len(slots)+1))
	s.batch = s.batch[:0]
	for _, slot := range slots {
		if slot < s.limit && s.arena.isLive(slot) {
			s.scan(slot)
		}
	}
	s.scanEnd()
	return s.appendResults(dst, k)
}

// searcher is the state of one search or insert, used again by others.
type searcher struct {
	hint uint32 // spreads the searchers over the cells of epochs

	// Set by begin, until end.
	graph *Graph
	cell  *cell
	arena *arena
	entry uint64 // noEntry if the graph is empty
	limit uint32 // slots from here on are not looked at; the arena and visited have all below

	query   quant.Query // what is searched for
	pool    pool
	visited visited
	batch   []uint32 // slots to score
	bridges []uint32 // hidden nodes to look through
	scores  []int32  // of batch
	linker           // for writers
}

var (
	searchers     = sync.Pool{New: func() any { return &searcher{hint: searcherCount.Add(1)} }}
	searcherCount atomic.Uint32
)

func acquire() *searcher { return searchers.Get().(*searcher) }

// release ends the reader if it began.
func (s *searcher) release() {
	s.end()
	searchers.Put(s)
}

// begin makes the searcher a reader of the graph and reports whether there is anything to read.
func (s *searcher) begin(g *Graph) bool {
	s.graph = g
	s.cell = g.epochs.enter(s.hint)
	s.entry = g.entry.Load()
	s.arena = g.arena.Load()
	if s.arena == nil {
		return false
	}
	s.limit = min(g.high.Load(), s.arena.slots)
	return s.entry != noEntry
}

func (s *searcher) end() {
	if s.cell != nil {
		s.cell.exit()
	}
	s.graph, s.cell, s.arena = nil, nil, nil
}

// shouldScan reports whether to compare all matches. A walk would score as many, or could not get about.
func (s *searcher) shouldScan(ef, matches int) bool {
	m := s.arena.m
	return ef > efMax || matches <= ef*s.graph.scanRows || matches*sparseShare*m < s.graph.Len()
}

// searchGraph fills the pool with the nearest visible nodes that a walk finds. It reports false if the result is in doubt:
// if the walk got lost, or if the filter has made a hole around the query. Then the nearest visible nodes lie on all sides
// of the hole, far from each other, and no walk meets them all. A hole that deletes have made is put up with until Unlink
// closes it: a filter's matches are few, the rest of a graph is not.
func (s *searcher) searchGraph(ef, matches int, see *visibility) bool {
	nearest := s.descend(0)
	share := float64(matches) / float64(s.graph.Len())
	if !see.filtered || share >= plainShareMin {
		s.start(ef, nearest, see)
		if s.walk(0, ef*expansionsPerEf, see) && !(see.filtered && s.isHole(s.pool.keys[:min(ef, len(s.pool.keys))], share, see)) {
			return true
		}
	}
	s.start(probeNodes, nearest, &visibility{})
	s.walk(0, probeNodes*expansionsPerEf, &visibility{})
	if see.filtered && s.isHole(s.pool.keys, share, see) {
		return false
	}
	s.keys = append(s.keys[:0], s.pool.keys...)
	s.start(ef, nearest, see)
	for _, k := range s.keys {
		if slot := keySlot(k); !see.hides(slot) && s.visited.add(slot) {
			s.offer(k&^expandedBit, see)
		}
	}
	s.seed(see)
	return s.walkVisible(ef*expansionsPerEf, see)
}

// isHole reports whether far fewer of the nodes nearest to the query are visible than of all nodes, of which share is.
func (s *searcher) isHole(nearest []uint64, share float64, see *visibility) bool {
	visible := 0
	for _, k := range nearest {
		if !see.hides(keySlot(k)) {
			visible++
		}
	}
	return float64(visible)*holeRatio < share*float64(len(nearest))
}

// descend goes greedily from the entry point down to the given layer, and returns the key of the nearest node met above it.
func (s *searcher) descend(layer int) uint64 {
	s.batch = append(s.batch[:0], uint32(s.entry))
	s.score()
	best := key(s.scores[0], s.batch[0])
	for l := int(s.entry >> 32); l > layer; l-- {
		for moved := true; moved; {
			moved = false
			s.batch = s.batch[:0]
			row := s.arena.links(keySlot(best), l)
			for i := range row {
				slot := atomic.LoadUint32(&row[i])
				if slot == none {
					break
				}
				if slot < s.limit {
					s.batch = append(s.batch, slot)
				}
			}
			s.score()
			for i, d := range s.scores {
				if k := key(d, s.batch[i]); k < best {
					best, moved = k, true
				}
			}
		}
	}
	return best
}

// score sets scores to the distances of the batch from the query.
func (s *searcher) score() { s.scoreBy(&s.query) }

func (s *searcher) scoreBy(q *quant.Query) {
	if n := len(s.batch); n > cap(s.scores) {
		s.scores = make([]int32, n, 2*n)
	}
	s.scores = s.scores[:len(s.batch)]
	s.graph.codec.Distances(s.scores, q, s.arena.codes, s.batch)
}

// start begins a walk at one node.
func (s *searcher) start(ef int, nearest uint64, see *visibility) {
	s.pool.reset(ef)
	s.visited.reset(s.limit)
	s.visited.add(keySlot(nearest))
	s.offer(nearest, see)
}

// offer puts a node into the pool if it is near enough.
func (s *searcher) offer(k uint64, see *visibility) {
	if k >= s.pool.bound {
		return
	}
	if see.hides(keySlot(k)) {
		k |= hiddenBit
	}
	s.pool.insert(k)
}

// walk expands the nodes of the pool, nearest first, until there is none left to expand. It reports false if that would
// take more than a number of expansions.
func (s *searcher) walk(layer, expansions int, see *visibility) bool {
	for ; expansions > 0; expansions-- {
		slot, ok := s.pool.expand()
		if !ok {
			return true
		}
		s.batch = s.appendUnvisited(s.batch[:0], s.arena.links(slot, layer))
		if next, ok := s.pool.peek(); ok {
			touch(s.arena.links(next, layer))
		}
		s.score()
		for i, d := range s.scores {
			s.offer(key(d, s.batch[i]), see)
		}
	}
	return false
}

// touch reads one word of each cache line of a row that is likely to be needed next, so that it is on its way while the
// processor compares codes. The loads are atomic because the compiler would drop plain ones.
func touch(row []uint32) {
	for i := 0; i < len(row); i += 16 {
		atomic.LoadUint32(&row[i])
	}
}

// appendUnvisited appends the links of a row that were not visited, which they are now.
//
// Every link is written and only the unvisited ones are kept, so that the one thing that cannot be predicted is an addition
// and not a jump.
func (s *searcher) appendUnvisited(dst, row []uint32) []uint32 {
	n := len(dst)
	dst = slices.Grow(dst, len(row))[:n+len(row)]
	words := s.visited.words
	for i := range row {
		slot := atomic.LoadUint32(&row[i])
		if slot >= s.limit {
			if slot == none {
				break
			}
			continue
		}
		w := &words[slot/64]
		old := *w
		*w = old | 1<<(slot%64)
		dst[n] = slot
		n += int(^old >> (slot % 64) & 1)
		if s.visited.tracked && old == 0 {
			s.visited.touched = append(s.visited.touched, slot/64)
		}
	}
	return dst[:n]
}

// walkVisible is walk on layer 0 for when few nodes are visible: it scores the visible neighbors of a node and, in place of
// each hidden one, that one's visible neighbors. The hidden nodes cost a look at their links, and no distance.
func (s *searcher) walkVisible(expansions int, see *visibility) bool {
	scoreMax := s.arena.width(0) // for one node
	for ; expansions > 0; expansions-- {
		slot, ok := s.pool.expand()
		if !ok {
			return true
		}
		s.batch, s.bridges = s.appendUnvisited(s.batch[:0], s.arena.links(slot, 0)), s.bridges[:0]
		visible := s.batch[:0]
		for _, neighbor := range s.batch {
			if see.hides(neighbor) {
				s.bridges = append(s.bridges, neighbor)
			} else {
				visible = append(visible, neighbor)
			}
		}
		s.batch = visible
		for _, bridge := range s.bridges {
			if len(s.batch) >= scoreMax {
				break
			}
			row := s.arena.links(bridge, 0)
			for i := range row {
				slot := atomic.LoadUint32(&row[i])
				if slot == none {
					break
				}
				if slot < s.limit && !see.hides(slot) && s.visited.add(slot) {
					s.batch = append(s.batch, slot)
				}
			}
		}
		s.score()
		for i, d := range s.scores {
			if k := key(d, s.batch[i]); k < s.pool.bound {
				s.pool.insert(k)
			}
		}
	}
	return false
}

// seed adds about seedsMax visible nodes to the pool, evenly spaced among all of them by slot.
func (s *searcher) seed(see *visibility) {
	words := (int(s.limit) + 63) / 64
	count := 0
	for i := range words {
		count += bits.OnesCount64(see.word(i))
	}
	s.batch = s.batch[:0]
	step := max(count/seedsMax, 1)
	rank, wanted := 0, step/2 // of the next visible node; of the next seed
	for i := 0; i < words && len(s.batch) < seedsMax; i++ {
		w := see.word(i)
		if n := bits.OnesCount64(w); rank+n <= wanted {
			rank += n
			continue
		}
		for ; w != 0; w &= w - 1 {
			slot := uint32(64*i + bits.TrailingZeros64(w))
			if rank >= wanted && slot < s.limit && s.arena.isLive(slot) && s.visited.add(slot) {
				s.batch = append(s.batch, slot)
				wanted += step
			}
			rank++
		}
	}
	s.score()
	for i, d := range s.scores {
		s.offer(key(d, s.batch[i]), see)
	}
}

// scanVisible fills the pool with the k nearest of all visible live nodes.
func (s *searcher) scanVisible(k int, see *visibility) {
	words := (int(s.limit) + 63) / 64
	if see.filtered {
		words = min(words, len(see.allow))
	}
	s.pool.reset(k)
	s.batch = s.batch[:0]
	for i := range words {
		for w := see.word(i); w != 0; w &= w - 1 {
			slot := uint32(64*i + bits.TrailingZeros64(w))
			if slot < s.limit && s.arena.isLive(slot) {
				s.scan(slot)
			}
		}
	}
	s.scanEnd()
}

// scan compares a slot, sooner or later.
func (s *searcher) scan(slot uint32) {
	s.batch = append(s.batch, slot)
	if len(s.batch) == scanBatch {
		s.scanFlush()
	}
}

func (s *searcher) scanFlush() {
	s.score()
	for i, d := range s.scores {
		s.pool.collect(key(d, s.batch[i]))
	}
	s.batch = s.batch[:0]
}

// scanEnd leaves the pool in order.
func (s *searcher) scanEnd() {
	s.scanFlush()
	s.pool.settle()
}

// appendResults appends the first k visible nodes of the pool.
func (s *searcher) appendResults(dst []index.Neighbor, k int) []index.Neighbor {
	for _, key := range s.pool.keys {
		if k == 0 {
			break
		}
		if key&hiddenBit == 0 {
			k--
			dst = append(dst, index.Neighbor{Slot: keySlot(key), Distance: s.graph.codec.Float(&s.query, keyDistance(key))})
		}
	}
	return dst
}
