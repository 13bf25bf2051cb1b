package index

import (
	"github.com/viterin/vek/vek32"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

// distanceAt is DistanceFunc at a level: vek's functions at AVX2, our own below and above.
func distanceAt(l simd.Level, d vectord.Distance) func(a, b []float32) float32 {
	switch {
	case l == simd.AVX512 && d == vectord.Euclid:
		return squaredL2AVX512
	case l == simd.AVX512 && d == vectord.Manhattan:
		return l1AVX512
	case l == simd.AVX512:
		return negativeDotAVX512
	case l == simd.AVX2 && d == vectord.Euclid:
		return squaredL2AVX2
	case l == simd.AVX2 && d == vectord.Manhattan:
		return l1AVX2
	case l == simd.AVX2:
		return negativeDotAVX2
	}
	return distancePortable(d)
}

func negativeDotAVX2(a, b []float32) float32 {
	checkPair(a, b)
	return -vek32.Dot(a, b)
}

// squaredL2AVX2 squares a root. That costs some ulps and is several times faster than a loop in Go. The root is computed from
// an approximate inverse, so that vek has 0 where the square is denormal and NaN where it is infinite.
func squaredL2AVX2(a, b []float32) float32 {
	checkPair(a, b)
	if l2 := vek32.Distance(a, b); l2 > 0 {
		return l2 * l2
	}
	return squaredL2Portable(a, b)
}

func l1AVX2(a, b []float32) float32 {
	checkPair(a, b)
	return vek32.ManhattanDistance(a, b)
}

func negativeDotAVX512(a, b []float32) float32 {
	checkPair(a, b)
	reportReads(a, b)
	return dotAVX512(&a[0], &b[0], len(a))
}

func squaredL2AVX512(a, b []float32) float32 {
	checkPair(a, b)
	reportReads(a, b)
	return euclidAVX512(&a[0], &b[0], len(a))
}

func l1AVX512(a, b []float32) float32 {
	checkPair(a, b)
	reportReads(a, b)
	return manhattanAVX512(&a[0], &b[0], len(a))
}

// compareAt sets dst[i] to the distance d from q to row slots[i] of rows, by the kernels of level l. The lengths of dst and
// slots are equal, at least 1, and every slot is in rows. Kernels are called by name rather than through variables, by
// which dst and slots would escape to the heap.
func compareAt(l simd.Level, d vectord.Distance, dst, q, rows []float32, slots []uint32) {
	if l != simd.AVX512 {
		compareEach(distanceAt(l, d), dst, q, rows, slots)
		return
	}
	reportAccesses(dst, q, rows, slots)
	switch d {
	case vectord.Euclid:
		euclidListAVX512(&dst[0], len(dst), &q[0], &rows[0], len(q), &slots[0])
	case vectord.Manhattan:
		manhattanListAVX512(&dst[0], len(dst), &q[0], &rows[0], len(q), &slots[0])
	default:
		dotListAVX512(&dst[0], len(dst), &q[0], &rows[0], len(q), &slots[0])
	}
}

// prefetchAhead is how many rows ahead of the comparisons compareEach prefetches.
const prefetchAhead = 4

// compareEach compares pair by pair.
func compareEach(distance func(a, b []float32) float32, dst, q, rows []float32, slots []uint32) {
	for i, slot := range slots {
		if next := i + prefetchAhead; i%prefetchAhead == 0 && next < len(slots) {
			prefetch(min(prefetchAhead, len(slots)-next), &rows[0], len(q), &slots[next])
		}
		dst[i] = distance(q, rows[int(slot)*len(q):][:len(q)])
	}
}
