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
		for _, neighbor := range w.graph.Search(nil, q, k, ef, filter) {
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
	const n, dim, queries, k, ef = 20_000, 32, 60, 10, 64
	vectors := clustered(3, n+queries, dim)
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	plain := w.codeRecall(vectors[n:], k, ef, nil)
	t.Logf("no filter: recall %.4f", plain)
	f := func(percent float64) {
		rng := rand.New(rand.NewPCG(uint64(percent), 2))
		random := filterOf(n, func(uint32) bool { return 100*rng.Float64() < percent })
		if r := w.codeRecall(vectors[n:], k, ef, random); r < plain-0.01 {
			t.Errorf("%g %% at random: recall %.4f, want %.4f", percent, r, plain-0.01)
		} else {
			t.Logf("%g %% at random: recall %.4f", percent, r)
		}

		found := 0.0
		for _, q := range vectors[n:] {
			order := w.flat.Search(nil, q, n, nil)
			far := &Filter{Slots: index.Bitset{}.Grow(n)}
			for _, neighbor := range order[n-int(n*percent/100):] {
				far.Slots.Set(neighbor.Slot)
				far.Count++
			}
			found += w.codeRecall([][]float32{q}, k, ef, far)
		}
		if r := found / queries; r < plain-0.01 {
			t.Errorf("%g %% farthest: recall %.4f, want %.4f", percent, r, plain-0.01)
		} else {
			t.Logf("%g %% farthest: recall %.4f", percent, r)
		}
	}
	for _, percent := range []float64{99.9, 99.5, 99, 95, 90, 80, 50, 20, 10, 5, 2, 1} {
		f(percent)
	}
}

// TestFilterFindsAll checks that k nodes come back whenever k match, and never one that does not.
func TestFilterFindsAll(t *testing.T) {
	const n, dim = 3000, 8
	vectors := clustered(5, n+20, dim)
	w := newWorld(t, vectord.Cosine, vectors, n, Config{M: 4, EfConstruction: 20})
	f := func(matches, k int) {
		t.Helper()
		rng := rand.New(rand.NewPCG(uint64(matches), uint64(k)))
		kept := rng.Perm(n)[:matches]
		filter := filterOf(n, func(slot uint32) bool { return slices.Contains(kept, int(slot)) })
		for _, q := range vectors[n:] {
			got := w.graph.Search(nil, q, k, 1, filter)
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
