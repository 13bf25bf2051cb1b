package bench

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/index"
)

// truthQueries is how many queries share one pass over the base vectors, which are read from memory once for all of them.
const truthQueries = 16

// Truth compares every query with every base vector on all cores and returns for each query the rows of its k nearest
// neighbors, nearest first, those at equal distance by row; fewer if there are fewer base vectors. The vectors of Cosine
// must be normalised. When ctx ends, Truth returns its error.
func Truth(ctx context.Context, d vectord.Distance, base, queries *dataset.Vectors, k int) ([][]int32, error) {
	if base.Dim != queries.Dim {
		return nil, fmt.Errorf("the queries have %d components, the base vectors %d", queries.Dim, base.Dim)
	}
	truth := make([][]int32, queries.Len())
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			scan := newTruthScan(d, k)
			for ctx.Err() == nil {
				first := int(next.Add(truthQueries)) - truthQueries
				if first >= len(truth) {
					return
				}
				last := min(first+truthQueries, len(truth))
				scan.run(truth[first:last], base, func(i int) []float32 { return queries.At(first + i) })
			}
		})
	}
	workers.Wait()
	return truth, ctx.Err()
}

// truthScan finds the true neighbors of a few queries in one pass.
type truthScan struct {
	distance func(a, b []float32) float32
	tops     [truthQueries]index.Top
	k        int
	found    []index.Neighbor
}

func newTruthScan(d vectord.Distance, k int) *truthScan {
	return &truthScan{distance: index.DistanceFunc(d), k: k}
}

func (s *truthScan) run(out [][]int32, base *dataset.Vectors, query func(i int) []float32) {
	for i := range out {
		s.tops[i].Reset(s.k)
	}
	for row := range base.Len() {
		v := base.At(row)
		for i := range out {
			s.tops[i].Offer(index.Neighbor{Slot: uint32(row), Distance: s.distance(query(i), v)})
		}
	}
	for i := range out {
		s.found = s.tops[i].AppendSorted(s.found[:0])
		out[i] = make([]int32, len(s.found))
		for j, n := range s.found {
			out[i][j] = int32(n.Slot)
		}
	}
}

// checkTruth returns an error unless truth answers the given number of queries with at least k rows of a base of n.
func checkTruth(truth [][]int32, queries, k, n int) error {
	if len(truth) < queries {
		return fmt.Errorf("the truth has %d rows for %d queries", len(truth), queries)
	}
	for i, rows := range truth[:queries] {
		if len(rows) < k {
			return fmt.Errorf("the truth of query %d has %d neighbors, recall@%d needs %d", i, len(rows), k, k)
		}
		for _, row := range rows[:k] {
			if row < 0 || int(row) >= n {
				return fmt.Errorf("the truth of query %d names row %d of %d", i, row, n)
			}
		}
	}
	return nil
}
