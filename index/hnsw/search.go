package hnsw

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/quant"
)

// Filter is a condition on the nodes that a search returns.
type Filter struct {
	Slots index.Bitset // those that match; may be read until the search returns
	Count int          // how many they are
}

// Params says what a search looks for, and how hard.
type Params struct {
	// K is the number of nearest nodes that matter.
	K int

	// Depth is the number of nodes to return, of which the caller finds the K nearest by full vectors; less than K counts
	// as K.
	Depth int

	// Ef is about how many nodes the search expands, less than K counts as that. More find truer neighbors in more time.
	// It is a mean: where the neighbors of a query lie apart from all other nodes the search ends sooner, and where many
	// are about as near as they are it goes on longer (see reach).
	Ef int

	// Filter is a condition on the nodes to return; nil means none.
	Filter *Filter

	// Work, if not nil, is told what the search did.
	Work *Work
}

// Work is what a search did.
type Work struct {
	Plan Plan // that led to the answer
	Rows int  // codes compared, by plans that did not lead to it too
}

// Plan is a way to search.
type Plan uint8

// The plans.
const (
	PlanNone     Plan = iota // there was nothing to search
	PlanWalk                 // along all nodes, whether visible or not
	PlanFiltered             // along the visible nodes
	PlanScan                 // of all visible nodes, which is exact up to the codes
)

// String returns a word for the metrics.
func (p Plan) String() string { return [...]string{"none", "walk", "filtered", "scan"}[p] }

// Search appends to dst the up to Depth nodes that are nearest to q among those not deleted and matching the filter, nearest
// first. Distances are those between codes, approximately, in terms of index.DistanceFunc; nodes whose codes are equally far
// come in the order of their slots.
//
// It finds Depth nodes if as many are visible: where walking the graph would be in doubt it compares all that match. A node
// being inserted meanwhile may be found or not. It panics unless q has the codec's dimension.
func (g *Graph) Search(dst []index.Neighbor, q []float32, p Params) []index.Neighbor {
	if p.Work != nil {
		*p.Work = Work{}
	}
	if p.K <= 0 || g.arena.Load() == nil {
		return dst
	}
	s := acquire()
	defer s.release()
	if !s.prepare(g, q, p) {
		return dst
	}
	if s.startPlain() {
		s.walk(0)
	}
	return s.finish(dst)
}

// prepare makes the searcher ready to search for q, and reports whether there is anything to find.
func (s *searcher) prepare(g *Graph, q []float32, p Params) bool {
	g.codec.EncodeQuery(&s.query, q)
	if !s.begin(g) {
		return false
	}
	s.see, s.work, s.report = visibility{}, Work{}, p.Work
	s.matches = g.Len()
	deleted := g.Deleted()
	if deleted != 0 {
		s.see.dead = s.arena.dead
	}
	nodes := s.matches + deleted
	if p.Filter != nil {
		s.see.allow, s.see.filtered = p.Filter.Slots, true
		s.matches = min(p.Filter.Count, s.matches)
	}
	s.share = float64(s.matches) / float64(max(nodes, 1))
	s.goal = goal{k: min(p.K, int(s.limit))}
	s.goal.depth = max(s.goal.k, min(p.Depth, int(s.limit)))
	s.goal.ef = max(p.Ef, s.goal.k)
	return true
}

// SearchBatch does what Search does for every query and its Params, and appends what it finds to the query's place in dst. It
// is for one goroutine, and faster than one search after the other: it takes turns between several walks, so that each
// waits for memory while others compare. dst and params are as long as queries.
func (g *Graph) SearchBatch(dst [][]index.Neighbor, queries [][]float32, params []Params) {
	var lanes [batchLanes]lane
	next := 0 // query to begin
	for busy := true; busy; {
		busy = false
		for i := range lanes {
			l := &lanes[i]
			if l.searcher != nil && l.step(dst) {
				busy = true
			}
			for l.searcher == nil && next < len(queries) {
				dst[next] = l.begin(g, dst[next], queries[next], params[next], next)
				next++
				busy = true
			}
		}
	}
}

// batchLanes is the number of walks between which SearchBatch takes turns. Fewer leave the processor waiting; with more the
// codes that one has asked for are overrun by those of others before they are used.
const batchLanes = 4

// lane is a place for one walk at a time.
type lane struct {
	searcher *searcher // nil if the place is free
	query    int       // number of the query
}

// begin starts a search in a free lane. One that need not walk is over at once, and its results are appended.
func (l *lane) begin(g *Graph, dst []index.Neighbor, q []float32, p Params, query int) []index.Neighbor {
	if p.Work != nil {
		*p.Work = Work{}
	}
	if p.K <= 0 || g.arena.Load() == nil {
		return dst
	}
	s := acquire()
	if s.prepare(g, q, p) {
		if s.startPlain() && s.expand(0) {
			l.searcher, l.query = s, query
			return dst
		}
		dst = s.finish(dst)
	}
	s.release()
	return dst
}

// step compares the codes that the lane's last turn has asked for, and asks for the next. It reports false, and frees the
// lane, when the search is over.
func (l *lane) step(dst [][]index.Neighbor) bool {
	s := l.searcher
	s.admit(0)
	if s.expand(0) {
		return true
	}
	dst[l.query] = s.finish(dst[l.query])
	s.release()
	l.searcher = nil
	return false
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
	s.slots = s.slots[:0]
	for batch := range slices.Chunk(slots, scanBatch) {
		s.slots = append(s.slots, batch...)
		s.scanFlush()
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
	fetch fetcher

	query   quant.Query // what is searched for
	pool    pool
	reach   reach
	visited visited
	batch   []uint32 // slots to score; often a part of visited
	slots   []uint32 // memory for a batch of one's own
	shown   []uint64 // memory for shownWords
	scores  []int32  // of batch
	hop     hop

	// Of a search, set by prepare.
	goal    goal
	work    Work
	report  *Work // where work goes to; may be nil
	see     visibility
	matches int     // visible nodes
	share   float64 // of all nodes

	linker // for writers
}

// goal is what a walk is to find: see Params.
type goal struct{ k, depth, ef int }

// scale returns the goal of a walk that cannot tell which nodes are visible, of which share is.
func (g goal) scale(share float64) goal {
	more := func(n int) int { return int(math.Ceil(float64(n) / share)) }
	return goal{more(g.k), more(g.depth), more(g.ef)}
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
	s.fetch = fetcher{codes: s.arena.codes, size: s.arena.rowSize, lines: min(s.arena.rowSize/cacheLine, fetchLines)}
	return s.entry != noEntry
}

func (s *searcher) end() {
	if s.cell != nil {
		s.cell.exit()
	}
	s.graph, s.cell, s.arena, s.see, s.fetch, s.report = nil, nil, nil, visibility{}, fetcher{}, nil
}

// descend goes greedily from the entry point down to the given layer, and returns the key of the nearest node met above it.
func (s *searcher) descend(layer int) uint64 {
	s.slots = append(s.slots[:0], uint32(s.entry))
	s.batch = s.slots
	s.score()
	best := key(s.scores[0], s.batch[0])
	for l := int(s.entry >> 32); l > layer; l-- {
		for moved := true; moved; {
			moved = false
			s.slots = s.slots[:0]
			row := s.arena.links(keySlot(best), l)
			for i := range row {
				slot := atomic.LoadUint32(&row[i])
				if slot == none {
					break
				}
				if slot < s.limit {
					s.slots = append(s.slots, slot)
				}
			}
			s.batch = s.slots
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
	s.work.Rows += len(s.batch)
	s.graph.codec.Distances(s.scores, q, s.arena.codes, s.batch)
}

// start begins a walk at one node.
func (s *searcher) start(g goal, nearest uint64) {
	s.startEmpty(g)
	s.visited.add(keySlot(nearest))
	s.pool.insert(nearest)
}

// startEmpty begins a walk whose first nodes are still to be put into the pool.
func (s *searcher) startEmpty(g goal) {
	s.reach.aim(s.graph, &s.query, g)
	s.pool.reset(s.reach.capacity)
	s.visited.reset(s.limit)
}

// walk expands the nodes of the pool, nearest first, until the nearest that is left is out of reach.
//
// One turn of the loop is three kernels: look at the links and ask for the codes of those not visited; compare these; put
// the near ones among the keys. Between the first and the second it asks for the codes that the next turn will want, if
// that goes on from where it looks now: it takes longer for memory to answer than to compare.
func (s *searcher) walk(layer int) {
	if layer == 0 && s.walkBase() {
		return
	}
	for s.expand(layer) {
		if next, ok := s.pool.peek(); ok && next <= s.reach.limit && layer == 0 {
			fetchLinks(s.arena.links(keySlot(next), 0), s.limit, s.fetch)
		}
		s.admit(layer)
	}
}

// expand sets the batch to the links of the nearest unexpanded node that were not visited. It reports false if there is no
// such node within reach.
func (s *searcher) expand(layer int) bool {
	k, ok := s.pool.peek()
	if !ok || k > s.reach.limit {
		return false
	}
	s.pool.expand()
	s.batch = s.visited.addLinks(s.arena.links(keySlot(k), layer), s.limit, s.fetch)
	return true
}

// admit scores the batch and puts what is near enough into the pool.
func (s *searcher) admit(layer int) {
	s.score()
	var links []uint32
	if layer == 0 {
		links = s.arena.base
	}
	lowest := s.pool.admit(s.batch, s.scores, links, 2*s.arena.m)
	s.reach.follow(&s.pool, lowest)
}

// appendResults appends the first nodes of the pool.
func (s *searcher) appendResults(dst []index.Neighbor, n int) []index.Neighbor {
	for _, k := range s.pool.keys[:min(n, len(s.pool.keys))] {
		dst = append(dst, index.Neighbor{Slot: keySlot(k), Distance: s.graph.codec.Float(&s.query, keyDistance(k))})
	}
	return dst
}
