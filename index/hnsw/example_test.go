package hnsw_test

import (
	"bytes"
	"context"
	"fmt"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/index/quant"
)

// grid returns a graph of the points of a 10×10 grid, (x, y) in slot 10x+y.
func grid() *hnsw.Graph {
	var points [][]float32
	for slot := range 100 {
		points = append(points, []float32{float32(slot / 10), float32(slot % 10)})
	}
	codec, err := quant.Train(vectord.Euclid, 2, points)
	if err != nil {
		panic(err)
	}
	g, err := hnsw.New(codec, hnsw.Config{})
	if err != nil {
		panic(err)
	}
	for slot, v := range points {
		if err := g.Insert(uint32(slot), v); err != nil {
			panic(err)
		}
	}
	return g
}

func slots(neighbors []index.Neighbor) (slots []uint32) {
	for _, n := range neighbors {
		slots = append(slots, n.Slot)
	}
	return slots
}

func ExampleGraph_Search() {
	g := grid()
	defer g.Close()
	q := []float32{2.1, 3.2}
	fmt.Println(slots(g.Search(nil, q, hnsw.Params{K: 3, Ef: 50})))

	odd := &hnsw.Filter{}
	for slot := uint32(1); slot < 100; slot += 2 {
		odd.Slots = odd.Slots.Set(slot)
		odd.Count++
	}
	fmt.Println(slots(g.Search(nil, q, hnsw.Params{K: 3, Ef: 50, Filter: odd})))
	// Output:
	// [23 24 33]
	// [23 33 13]
}

func ExampleGraph_Unlink() {
	g := grid()
	defer g.Close()
	g.Delete(23)
	fmt.Println(slots(g.Search(nil, []float32{2.1, 3.2}, hnsw.Params{K: 1, Ef: 50})), g.Deleted(), g.Occupied(23))
	freed, err := g.Unlink(context.Background())
	fmt.Println(freed, err, g.Occupied(23))
	// Output:
	// [24] 1 true
	// 1 <nil> false
}

func ExampleLoad() {
	g := grid()
	defer g.Close()
	var checkpoint bytes.Buffer
	if err := g.Save(&checkpoint); err != nil {
		panic(err)
	}
	loaded, err := hnsw.Load(&checkpoint, hnsw.Limits{})
	if err != nil {
		panic(err)
	}
	defer loaded.Close()
	fmt.Println(loaded.Len(), slots(loaded.Search(nil, []float32{9, 9}, hnsw.Params{K: 2, Ef: 50})))
	// Output: 100 [99 89]
}
