package hnsw

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// filterOf returns the filter of those of n slots for which keep is true.
func filterOf(n int, keep func(slot uint32) bool) *Filter {
	f := &Filter{Slots: index.Bitset{}.Grow(n)}
	for slot := range uint32(n) {
		if keep(slot) {
			f.Slots.Set(slot)
			f.Count++
		}
	}
	return f
}

// codeRecall is recall with the exact distances between codes for the truth, and so of the walk alone: the nodes just
// outside of a hole are so equally far that their order is mostly lost in the codes.
func (w *world) codeRecall(queries [][]float32, k, ef int, filter *Filter) float64 {
	slots := w.graph.AppendLive(nil)
	if filter != nil {
		slots = slices.DeleteFunc(slots, func(slot uint32) bool { return !filter.Slots.Contains(slot) })
	}
	found, all := 0, 0
	for _, q := range queries {
		want := w.graph.Scan(nil, q, k, slots)
		all += len(want)
		for _, neighbor := range w.graph.Search(nil, q, Params{K: k, Ef: ef, Filter: filter}) {
			if neighbor.Distance <= want[len(want)-1].Distance {
				found++
			}
		}
	}
	return float64(found) / float64(all)
}

// TestFilteredRecall compares the recall under filters with that without, both when the filter knows nothing of the query
// and when the matching nodes are those farthest from it.
func TestFilteredRecall(t *testing.T) {
	oneGoroutine(t)
	const n, dim, queries, k, ef = 20_000, 32, 60, 10, 64
	vectors := clustered(3, n+queries, dim)
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	order := make([][]index.Neighbor, queries) // all nodes by distance from each query
	for i, q := range vectors[n:] {
		order[i] = w.flat.Search(nil, q, n, nil)
	}
	plain := w.codeRecall(vectors[n:], k, ef, nil)
	t.Logf("no filter: recall %.4f", plain)
	f := func(percent float64) {
		t.Helper()
		check := func(kind string, recall float64) {
			t.Helper()
			if recall < plain-0.01 {
				t.Errorf("%g %% %s: recall %.4f, want at least %.4f", percent, kind, recall, plain-0.01)
			}
		}
		rng := rand.New(rand.NewPCG(uint64(percent), 2))
		random := filterOf(n, func(uint32) bool { return 100*rng.Float64() < percent })
		check("at random", w.codeRecall(vectors[n:], k, ef, random))
		farthest := 0.0
		for i, q := range vectors[n:] {
			far := &Filter{Slots: index.Bitset{}.Grow(n), Count: int(n * percent / 100)}
			for _, neighbor := range order[i][n-far.Count:] {
				far.Slots.Set(neighbor.Slot)
			}
			farthest += w.codeRecall([][]float32{q}, k, ef, far) / queries
		}
		check("farthest", farthest)
	}
	for _, percent := range []float64{99.9, 99.5, 99, 95, 80, 50, 20, 10, 5, 2, 1} {
		f(percent)
	}
}

// TestFilterFindsAll checks that k nodes come back whenever k match, and never one that does not.
func TestFilterFindsAll(t *testing.T) {
	oneGoroutine(t)
	const n, dim = 3000, 8
	vectors := clustered(5, n+20, dim)
	w := newWorld(t, vectord.Cosine, vectors, n, Config{M: 4, EfConstruction: 20})
	f := func(matches, k int) {
		t.Helper()
		rng := rand.New(rand.NewPCG(uint64(matches), uint64(k)))
		kept := rng.Perm(n)[:matches]
		filter := filterOf(n, func(slot uint32) bool { return slices.Contains(kept, int(slot)) })
		for _, q := range vectors[n:] {
			got := w.graph.Search(nil, q, Params{K: k, Ef: 1, Filter: filter})
			if len(got) != min(k, matches) {
				t.Errorf("%d matches, k %d: found %d", matches, k, len(got))
			}
			for _, neighbor := range got {
				if !filter.Slots.Contains(neighbor.Slot) {
					t.Errorf("%d matches, k %d: found slot %d, which does not match", matches, k, neighbor.Slot)
				}
			}
			if !slices.IsSortedFunc(got, index.Compare) {
				t.Errorf("%d matches, k %d: not in order", matches, k)
			}
		}
	}
	for _, k := range []int{1, 10, 500, n} {
		f(0, k)
		f(1, k)
		f(30, k)
		f(300, k)
		f(2900, k)
		f(n, k)
	}
}

// TestHoleOfDeletes checks that a search in the midst of many deleted nodes finds its way out, and need not compare all
// that are left.
func TestHoleOfDeletes(t *testing.T) {
	oneGoroutine(t)
	const n, dim, k, ef = 8000, 3, 10, 64 // in 3 dimensions links are short
	vectors := clustered(61, n, dim)
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	center := vectors[0]
	order := w.flat.Search(nil, center, n, nil)
	for _, neighbor := range order[:n/2] {
		w.delete(t, neighbor.Slot)
	}
	s := acquire()
	defer s.release()
	if !s.prepare(w.graph, center, Params{K: k, Ef: ef}) || !s.startPlain() {
		t.Fatal("search does not begin with a walk")
	}
	if s.walk(0); !s.settlePlain() && !s.searchVisible() {
		t.Fatalf("walks ended with %d nodes", len(s.pool.keys))
	}
	best := w.graph.Scan(nil, center, 1, w.graph.AppendLive(nil))[0].Distance
	if got := s.appendResults(nil, 1)[0].Distance; got > 1.3*best {
		t.Errorf("nearest found at %g, there is one at %g", got, best)
	}
}

// TestVisitVisible compares the kernel with the portable one.
func TestVisitVisible(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		limit := uint32(1 + rng.IntN(300))
		words := make([]uint64, (limit+63)/64)
		allow := make([]uint64, len(words))
		for i := range words {
			words[i], allow[i] = rng.Uint64(), rng.Uint64()
		}
		row := make([]uint32, 1+rng.IntN(64))
		for i := range row {
			row[i] = uint32(rng.IntN(int(limit) + 20))
		}
		if rng.IntN(2) == 0 {
			row[rng.IntN(len(row))] = none
		}
		f := fetcher{codes: make([]byte, 64*(limit+1)), size: 64, lines: 1}
		gotWords, wantWords := slices.Clone(words), slices.Clone(words)
		got, want := make([]uint32, len(row)), make([]uint32, len(row))
		n := visitVisible(row, gotWords, allow, limit, got, f)
		m := visitVisiblePortable(row, wantWords, allow, limit, want)
		if n != m || !slices.Equal(got[:n], want[:m]) || !slices.Equal(gotWords, wantWords) {
			t.Fatalf("seed %d, limit %d, row %v: visited %v, want %v", seed, limit, row, got[:n], want[:m])
		}
		for _, slot := range want[:m] {
			if slot >= limit || allow[slot/64]>>(slot%64)&1 == 0 || words[slot/64]>>(slot%64)&1 != 0 {
				t.Fatalf("seed %d: visited %d", seed, slot)
			}
		}
	}
}

// TestWork checks what searches tell of themselves.
func TestWork(t *testing.T) {
	oneGoroutine(t)
	const n, dim = 4000, 16
	vectors := clustered(81, n+1, dim)
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	q := vectors[n]
	f := func(p Params, want Plan, least, most int) {
		t.Helper()
		work := Work{Plan: PlanScan, Rows: -1}
		p.Work = &work
		w.graph.Search(nil, q, p)
		if work.Plan != want || work.Rows < least || work.Rows > most {
			t.Errorf("%+v: plan %v, %d rows compared, want %v, %d to %d", p, work.Plan, work.Rows, want, least, most)
		}
	}
	every := func(i uint32) *Filter { return filterOf(n, func(slot uint32) bool { return slot%i == 0 }) }
	f(Params{K: 10, Ef: 20}, PlanWalk, 20, n/2)
	f(Params{K: 10, Ef: 20, Filter: every(2)}, PlanWalk, 20, n/2)
	f(Params{K: 10, Ef: 20, Filter: every(10)}, PlanFiltered, 20, n/2)
	f(Params{K: 10, Ef: 20, Filter: every(100)}, PlanScan, n/100, n/100)
	f(Params{K: 10, Ef: 20, Filter: every(n + 1)}, PlanScan, 1, 1)
	f(Params{Ef: 20}, PlanNone, 0, 0)
	rows := 1000.0 // a step is worth
	w.graph.costs.fixed = &rows
	f(Params{K: 10, Ef: 20}, PlanScan, n, n)
	f(Params{K: 10, Ef: 20, Filter: every(2)}, PlanScan, n/2, n/2)
	w.graph.Close()
	f(Params{K: 10, Ef: 20}, PlanNone, 0, 0)
}

// TestWalkInHole walks among more nodes around a hole than would be compared there, and checks that most are found.
func TestWalkInHole(t *testing.T) {
	oneGoroutine(t)
	const n, dim, k, ef = 10_000, 16, 10, 128
	vectors := clustered(83, n+40, dim)
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	found := 0
	for _, q := range vectors[n:] {
		filter := &Filter{Slots: index.Bitset{}.Grow(n)}
		for _, neighbor := range w.flat.Search(nil, vectors[n], n, nil)[n/4:] { // far from one of the queries
			filter.Slots.Set(neighbor.Slot)
			filter.Count++
		}
		s := acquire()
		if !s.prepare(w.graph, q, Params{K: k, Ef: ef, Filter: filter}) {
			t.Fatal("nothing to search")
		}
		s.startPlain()
		s.work.Plan = PlanFiltered
		got := s.finish(nil)
		if s.work.Plan != PlanFiltered {
			t.Errorf("walk ended with %d nodes", len(got))
		}
		s.release()
		want := w.graph.Scan(nil, q, k, appendSet(nil, filter.Slots))
		for _, neighbor := range got {
			if !filter.Slots.Contains(neighbor.Slot) {
				t.Fatalf("found slot %d, which does not match", neighbor.Slot)
			}
			if neighbor.Distance <= want[k-1].Distance {
				found++
			}
		}
	}
	if recall := float64(found) / (40 * k); recall < 0.9 {
		t.Errorf("recall %.3f", recall)
	}
}

func appendSet(dst []uint32, set index.Bitset) []uint32 {
	for slot := range uint32(64 * len(set)) {
		if set.Contains(slot) {
			dst = append(dst, slot)
		}
	}
	return dst
}

// TestCosts checks when costs are measured, and that what comes of it is within bounds.
func TestCosts(t *testing.T) {
	const n, dim, usual = 2000, 16, 64
	w := newWorld(t, vectord.Euclid, clustered(85, n, dim), n, Config{EfConstruction: 40})
	g := w.graph
	if got := g.costs.get(g, usual); got != usual || g.costs.stepRows.Load() != nil {
		t.Errorf("a small graph measures: %v", got)
	}
	defer g.live.Store(g.live.Load())
	f := func(nodes int64, want int) {
		t.Helper()
		g.live.Store(nodes)
		got := g.costs.get(g, usual)
		known := g.costs.stepRows.Load()
		if known == nil || known.nodes != want || got != known.rows || got < usual/stepWaitSpread || got > usual*stepWaitSpread {
			t.Errorf("%d nodes: %v rows a step, %+v, want it measured at %d nodes", nodes, got, known, want)
		}
	}
	f(costNodesMin, costNodesMin)
	f(2*costNodesMin-1, costNodesMin)
	f(2*costNodesMin, 2*costNodesMin)
	f(costNodesMin, 2*costNodesMin)
	g.costs.measuring.Lock() // somebody measures
	f(5*costNodesMin, 2*costNodesMin)
	g.costs.measuring.Unlock()
	if rows := g.measureStep(); !(rows > 0) {
		t.Errorf("measured %v rows a step", rows)
	}
}

// BenchmarkSearchFiltered searches under filters that keep some nodes at random, by walks and by scans.
func BenchmarkSearchFiltered(b *testing.B) {
	for _, percent := range []int{50, 20, 5} {
		for _, rows := range []float64{0, 1e6} { // that a step is worth
			w := benchGraph(b)
			rng := rand.New(rand.NewPCG(uint64(percent), 0))
			p := Params{K: 10, Ef: 100, Filter: filterOf(benchNodes, func(uint32) bool { return rng.IntN(100) < percent }), Work: &Work{}}
			w.graph.costs.fixed = &rows
			w.graph.Search(nil, w.vectors[benchNodes], p)
			b.Run(fmt.Sprintf("keep=%d/%v", percent, p.Work.Plan), func(b *testing.B) {
				b.ReportAllocs()
				var dst []index.Neighbor
				total := 0
				for i := 0; b.Loop(); i++ {
					dst = w.graph.Search(dst[:0], w.vectors[benchNodes+i%benchQueries], p)
					total += p.Work.Rows
				}
				b.ReportMetric(float64(total)/float64(b.N), "rows/op")
			})
		}
	}
}
