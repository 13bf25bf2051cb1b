package hnsw

import (
	"fmt"
	"sync"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

const (
	benchNodes   = 100_000
	benchQueries = 1000
	benchDim     = 100
)

var benchVectors = sync.OnceValue(func() [][]float32 { return clustered(1, benchNodes+benchQueries, benchDim) })

// benchWorld is kept for all benchmarks, as it takes seconds to make.
var benchWorld *world

func benchGraph(b *testing.B) *world {
	if benchWorld == nil {
		w := newWorld(b, vectord.Cosine, benchVectors(), 1, Config{})
		benchWorld = &world{graph: mustNew(b, w.graph), vectors: w.vectors}
		for slot := range uint32(benchNodes) {
			if err := benchWorld.graph.Insert(slot, w.vectors[slot]); err != nil {
				b.Fatal(err)
			}
		}
	}
	return benchWorld
}

func mustNew(b *testing.B, like *Graph) *Graph {
	g, err := New(like.codec, like.cfg)
	if err != nil {
		b.Fatal(err)
	}
	return g
}

func BenchmarkInsert(b *testing.B) {
	vectors := benchVectors()
	var g *Graph
	for i := 0; b.Loop(); i++ {
		slot := i % benchNodes
		if slot == 0 {
			g = newWorld(b, vectord.Cosine, vectors, 1, Config{}).graph
			continue
		}
		if err := g.Insert(uint32(slot), vectors[slot]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	for _, ef := range []int{50, 100, 200} {
		b.Run(fmt.Sprintf("ef=%d", ef), func(b *testing.B) {
			w := benchGraph(b)
			b.ReportAllocs()
			var dst []index.Neighbor
			for i := 0; b.Loop(); i++ {
				dst = w.graph.Search(dst[:0], w.vectors[benchNodes+i%benchQueries], Params{K: 10, Ef: ef})
			}
		})
	}
}
