package sparse_test

import (
	"fmt"

	"github.com/vectord/vectord/index/sparse"
)

func Example() {
	x := sparse.New()
	x.Add(0, sparse.Vector{Indices: []uint32{3, 8}, Values: []float32{1, 2}})
	x.Add(1, sparse.Vector{Indices: []uint32{3}, Values: []float32{0.5}})
	x.Add(2, sparse.Vector{Indices: []uint32{5}, Values: []float32{9}})
	q := sparse.Vector{Indices: []uint32{3, 8}, Values: []float32{1, 1}}
	for _, n := range x.Search(nil, q, sparse.Params{K: 10}) {
		fmt.Println(n.Slot, -n.Distance)
	}
	// Output:
	// 0 3
	// 1 0.5
}
