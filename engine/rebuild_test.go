package engine

import (
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/index/quant"
)

// TestSearchRunsAgainOnTheGraphThatReplaced replaces the graph at the worst moment, after a search has chosen it and before
// it has begun.
func TestSearchRunsAgainOnTheGraphThatReplaced(t *testing.T) {
	graph := func() *hnsw.Graph {
		codec, err := quant.NewFloat32(vectord.Dot, 2)
		if err != nil {
			t.Fatal(err)
		}
		g, err := hnsw.New(codec, hnsw.Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Insert(7, []float32{1, 2}); err != nil {
			t.Fatal(err)
		}
		return g
	}
	first, second := graph(), graph()
	defer second.Close()
	var x vectorIndex
	var on []*hnsw.Graph
	found := 0
	search := func(g *hnsw.Graph) {
		if len(on) == 0 {
			x.graph.Store(second)
			first.Close()
		}
		on = append(on, g)
		found = len(g.Search(nil, []float32{1, 1}, hnsw.Params{K: 1, Depth: 1, Ef: 1}))
	}
	x.onGraph(search)
	if len(on) != 0 {
		t.Errorf("searched %d graphs where there is none", len(on))
	}
	x.graph.Store(first)
	x.onGraph(search)
	if len(on) != 2 || on[0] != first || on[1] != second || found != 1 {
		t.Errorf("searched %d graphs and found %d points, want the first, then the second graph, and one point", len(on), found)
	}
}

func TestDriftLooksAtManyVectorsTogether(t *testing.T) {
	var d drift
	const dim = 10
	for range driftVectors - 1 {
		d.add(1, 1)
		d.settle(dim)
	}
	if d.full.Load() {
		t.Errorf("full after %d vectors", driftVectors-1)
	}
	d.add(1, 1)
	d.settle(dim)
	if share := d.share.Load(); !d.full.Load() || share != 1e6/dim {
		t.Errorf("%d millionths are clipped, want %d", share, int(1e6/dim))
	}
	if d.vectors.Load() != 0 || d.clipped.Load() != 0 || d.since.Load() != driftVectors {
		t.Errorf("after a full sequence: %d vectors, %d components, %d since", d.vectors.Load(), d.clipped.Load(), d.since.Load())
	}
	d.reset()
	if d.full.Load() || d.share.Load() != 0 || d.since.Load() != 0 {
		t.Error("not empty after a reset")
	}
}
