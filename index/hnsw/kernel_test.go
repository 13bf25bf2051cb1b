package hnsw

import (
	"slices"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/simd"
)

// TestLevelsAgree builds and searches the same graph with the kernels of every level: it must be the same graph, and the same
// neighbors.
func TestLevelsAgree(t *testing.T) {
	oneGoroutine(t)
	defer func(chosen simd.Level) { simd.Chosen = chosen }(simd.Chosen)
	const n, queries = 2500, 60
	f := func(d vectord.Distance, dim int, cfg Config) {
		t.Helper()
		vectors := clustered(uint64(dim), n+queries, dim)
		var want [][]index.Neighbor
		for _, level := range simd.Available() {
			simd.Chosen = level
			w := newWorld(t, d, vectors, n, cfg)
			verify(t, w.graph)
			for slot := uint32(0); slot < n; slot += 11 {
				w.delete(t, slot)
			}
			even := filterOf(n, func(slot uint32) bool { return slot%2 == 0 })
			few := filterOf(n, func(slot uint32) bool { return slot%10 == 0 })
			var got [][]index.Neighbor
			for _, q := range vectors[n:] {
				for _, filter := range []*Filter{nil, even, few} {
					got = append(got, w.graph.Search(nil, q, Params{K: 10, Depth: 30, Ef: 40, Filter: filter}))
				}
			}
			batch, params := make([][]index.Neighbor, queries), slices.Repeat([]Params{{K: 3, Ef: 20}}, queries)
			w.graph.SearchBatch(batch, vectors[n:], params)
			got = append(got, batch...)
			if want == nil {
				want = got
			}
			for i := range got {
				if !slices.Equal(got[i], want[i]) {
					t.Fatalf("%s, dim %d, %+v: search %d found %v by %s, %v by %s", d, dim, cfg, i, got[i], level, want[i], simd.Go)
				}
			}
		}
	}
	f(vectord.Cosine, 16, Config{EfConstruction: 40})
	f(vectord.Dot, 100, Config{EfConstruction: 40})
	f(vectord.Euclid, 60, Config{EfConstruction: 40})
	f(vectord.Euclid, 7, Config{M: 3, EfConstruction: 20})
	f(vectord.Cosine, 300, Config{M: 37, EfConstruction: 50})
	f(vectord.Manhattan, 20, Config{EfConstruction: 40})
}
