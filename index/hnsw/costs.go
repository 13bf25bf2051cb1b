package hnsw

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// costs weighs scans against walks. What it knows is one number, of the rows that a scan compares in the time of one step of
// a walk. It depends on the size of rows, the processor and how much of the graph is in its caches, so it is measured on the
// graph itself: when a search first needs it, and again whenever the graph has doubled.
//
// Below costNodesMin nodes nothing is measured, so that small graphs always give the same answers.
type costs struct {
	// fixed, if not nil, is used instead of what would be measured. Tests set it.
	fixed *float64

	measuring sync.Mutex
	stepRows  atomic.Pointer[stepRows]
}

// stepRows is what was measured, and of how many nodes.
type stepRows struct {
	rows  float64
	nodes int
}

const (
	costNodesMin = 10_000

	// A step of a walk looks at 2M links, and compares most of their rows, which it has to wait for. stepWait times that
	// many rows are those that a scan compares meanwhile, if nothing was measured. What was measured is taken to be at most
	// stepWaitSpread times less or more.
	stepWait       = 2
	stepWaitSpread = 4

	// emptyRows is the rows that a scan compares in the time that it looks at a word of the filter's bits.
	emptyRows = 0.25

	// costRounds measurements are made, each of a walk of costSteps steps and a scan of costRows rows: half a millisecond
	// in all. Their median is little moved by what else the machine does.
	costRounds = 9
	costSteps  = 64
	costRows   = 4096
	costKeys   = 10 // that the scan keeps

	// costStride is the distance between the slots of the scan that is measured: as far apart as those that match a filter.
	costStride = 10
)

// scanPays reports whether to compare all visible nodes takes no longer than a number of steps of a walk.
func (c *costs) scanPays(s *searcher, steps float64) bool {
	rows := float64(s.matches) + emptyRows*float64(s.limit/64)
	if c.fixed != nil {
		return rows <= steps**c.fixed
	}
	usual := stepWait * float64(s.arena.width(0))
	switch least, most := steps*usual/stepWaitSpread, steps*usual*stepWaitSpread; {
	case rows <= least:
		return true
	case rows > most:
		return false
	}
	return rows <= steps*c.get(s.graph, usual)
}

// get returns the rows of a scan that a step is worth, which are usual ones if they were never measured.
func (c *costs) get(g *Graph, usual float64) float64 {
	nodes := g.Len()
	known := c.stepRows.Load()
	if nodes >= costNodesMin && (known == nil || nodes >= 2*known.nodes) && c.measuring.TryLock() {
		known = &stepRows{rows: min(max(g.measureStep(), usual/stepWaitSpread), usual*stepWaitSpread), nodes: nodes}
		c.stepRows.Store(known)
		c.measuring.Unlock()
	}
	if known == nil {
		return usual
	}
	return known.rows
}

// measureStep measures the time of a step, in that of a row scanned.
func (g *Graph) measureStep() float64 {
	s := acquire()
	defer s.release()
	if !s.begin(g) {
		return 0
	}
	var steps, rows [costRounds]float64
	for round := range costRounds {
		g.codec.QueryFromRow(&s.query, s.arena.code(uint32(splitmix64(uint64(round))%uint64(s.limit))))
		begin, n := time.Now(), 0
		s.start(goal{k: costSteps, depth: costSteps, ef: 4 * costSteps}, s.descend(0))
		for n < costSteps && s.expand(0) {
			s.admit(0)
			n++
		}
		steps[round] = float64(time.Since(begin)) / float64(max(n, 1))

		first := splitmix64(uint64(round+costRounds)) % uint64(s.limit)
		s.pool.reset(costKeys)
		s.slots = s.slots[:0]
		begin = time.Now()
		for i := range uint64(costRows) {
			s.slots = append(s.slots, uint32((first+i*costStride)%uint64(s.limit)))
			if len(s.slots) == scanBatch {
				s.scanFlush()
			}
		}
		s.scanEnd()
		rows[round] = float64(time.Since(begin)) / costRows
	}
	median := func(x []float64) float64 {
		slices.Sort(x)
		return x[len(x)/2]
	}
	return median(steps[:]) / max(median(rows[:]), 1e-3)
}
