//go:build !amd64

package index

import (
	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

// distanceAt is DistanceFunc at a level, of which this build has only the functions in Go.
func distanceAt(_ simd.Level, d vectord.Distance) func(a, b []float32) float32 {
	return distancePortable(d)
}

// compareAt sets dst[i] to the distance d from q to row slots[i] of rows.
func compareAt(_ simd.Level, d vectord.Distance, dst, q, rows []float32, slots []uint32) {
	distance := distancePortable(d)
	for i, slot := range slots {
		dst[i] = distance(q, rows[int(slot)*len(q):][:len(q)])
	}
}
