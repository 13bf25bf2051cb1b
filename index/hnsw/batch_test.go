package hnsw

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// TestSearchBatch checks that a batch finds what its queries find one by one, whatever they ask for.
func TestSearchBatch(t *testing.T) {
	const n, dim = 3000, 16
	w := newWorld(t, vectord.Euclid, clustered(71, n+100, dim), n, Config{EfConstruction: 40})
	for slot := uint32(0); slot < n; slot += 7 {
		w.delete(t, slot)
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for _, size := range []int{0, 1, batchLanes - 1, batchLanes, batchLanes + 1, 60} {
		queries, params := make([][]float32, size), make([]Params, size)
		got := make([][]index.Neighbor, size)
		for i := range queries {
			queries[i] = w.vectors[n+rng.IntN(100)]
			params[i] = Params{K: rng.IntN(12), Depth: rng.IntN(40), Ef: rng.IntN(100)}
			if rng.IntN(3) == 0 {
				share := rng.IntN(100)
				params[i].Filter = filterOf(n, func(uint32) bool { return rng.IntN(100) < share })
			}
			got[i] = append(got[i], index.Neighbor{Slot: uint32(i)})
		}
		w.graph.SearchBatch(got, queries, params)
		for i := range queries {
			want := w.graph.Search([]index.Neighbor{{Slot: uint32(i)}}, queries[i], params[i])
			if !slices.Equal(got[i], want) {
				t.Fatalf("seed %d, %d queries, %+v: query %d found %v, alone %v", seed, size, params[i], i, got[i], want)
			}
		}
	}
	w.graph.Close()
	got := make([][]index.Neighbor, 1)
	if w.graph.SearchBatch(got, w.vectors[:1], []Params{{K: 1}}); len(got[0]) != 0 {
		t.Errorf("a closed graph found %v", got[0])
	}
}

func BenchmarkSearchBatch(b *testing.B) {
	for _, ef := range []int{50, 100, 200} {
		b.Run(fmt.Sprintf("ef=%d", ef), func(b *testing.B) {
			w := benchGraph(b)
			b.ReportAllocs()
			const size = 32
			dst, params := make([][]index.Neighbor, size), make([]Params, size)
			for i := range params {
				params[i] = Params{K: 10, Ef: ef}
			}
			for i := 0; b.Loop(); i += size {
				for j := range dst {
					dst[j] = dst[j][:0]
				}
				first := benchNodes + i%(benchQueries-size)
				w.graph.SearchBatch(dst, w.vectors[first:first+size], params)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/size, "ns/query")
		})
	}
}
