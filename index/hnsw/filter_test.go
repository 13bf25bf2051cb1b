package hnsw

import (
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
