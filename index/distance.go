package index

import (
	"fmt"
	"math"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

//go:generate go run -C asm ./float32 -pkg index -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go

// DistanceFunc returns the exact distance for d: the negative dot product for Cosine and Dot (the vectors of a Cosine
// collection have length 1), the squared L2 distance for Euclid, the L1 distance for Manhattan. The function panics unless
// a and b have the same length, at least 1. DistanceFunc panics if d is not valid.
//
// The distance is a sum of float32, rounded at every step: it is off by less than 1e-5 of the sum of the magnitudes of its
// terms for vectors of up to 4,096 components, more only as such sums do. It is NaN where a component is, and may be NaN
// or infinite where terms overflow. It depends on the two vectors and simd.Chosen alone: Distances and Scan give the same
// bits, wherever the vectors lie in memory.
func DistanceFunc(d vectord.Distance) func(a, b []float32) float32 {
	checkDistance(d)
	return distanceAt(simd.Chosen, d)
}

// Distances sets dst[i] to the distance DistanceFunc(d) from q to row slots[i] of rows, in which row r begins at r*len(q).
// It is for those who compare many vectors with one: the rows of the slots to come are prefetched while earlier ones are
// compared. It panics if d is not valid, q empty, dst shorter than slots, or a row not in rows.
func Distances(d vectord.Distance, dst, q, rows []float32, slots []uint32) {
	distancesAt(simd.Chosen, d, dst, q, rows, slots)
}

// Scan sets dst[i] to the distance DistanceFunc(d) from q to row i of rows, for every row in rows. It panics if d is not
// valid, q empty, the length of rows not a multiple of that of q, or dst shorter than there are rows.
func Scan(d vectord.Distance, dst, q, rows []float32) { scanAt(simd.Chosen, d, dst, q, rows) }

// kernelBytes bounds what one call of a kernel reads, and so its time to some ten microseconds, but for rows that are
// longer. Go cannot stop a goroutine within assembly: a longer call would hold up a garbage collection, and with it
// everybody.
const kernelBytes = 128 << 10

// kernelRows returns how many rows of dim components one call of a kernel may compare, at least 1.
func kernelRows(dim int) int { return max(kernelBytes/(4*dim), 1) }

// distancesAt is Distances at a level.
func distancesAt(l simd.Level, d vectord.Distance, dst, q, rows []float32, slots []uint32) {
	checkQuery(d, q)
	dst = dst[:len(slots)]
	checkSlots(slots, len(rows)/len(q))
	for n := kernelRows(len(q)); len(slots) > 0; {
		n = min(n, len(slots))
		compareAt(l, d, dst[:n], q, rows, slots[:n])
		dst, slots = dst[n:], slots[n:]
	}
}

// scanAt is Scan at a level.
func scanAt(l simd.Level, d vectord.Distance, dst, q, rows []float32) {
	checkQuery(d, q)
	if len(rows)%len(q) != 0 {
		panic(fmt.Sprintf("index: %d components are not rows of %d", len(rows), len(q)))
	}
	dst = dst[:len(rows)/len(q)]
	for n := min(kernelRows(len(q)), len(ascending)); len(dst) > 0; {
		n = min(n, len(dst))
		compareAt(l, d, dst[:n], q, rows, ascending[:n])
		dst, rows = dst[n:], rows[n*len(q):]
	}
}

// ascending is the list of slots of contiguous rows.
var ascending = func() (slots [256]uint32) {
	for i := range slots {
		slots[i] = uint32(i)
	}
	return slots
}()

func checkDistance(d vectord.Distance) {
	if !d.Valid() {
		panic(fmt.Sprintf("index: distance %d is not valid", d))
	}
}

func checkQuery(d vectord.Distance, q []float32) {
	checkDistance(d)
	if len(q) == 0 {
		panic("index: the query has no components")
	}
}

// checkSlots panics unless every slot is one of n rows.
func checkSlots(slots []uint32, n int) {
	last := uint32(0)
	for _, slot := range slots {
		last = max(last, slot)
	}
	if len(slots) > 0 && int(last) >= n {
		panic(fmt.Sprintf("index: distance to row %d of %d", last, n))
	}
}

func checkPair(a, b []float32) {
	if len(a) != len(b) || len(a) == 0 {
		panicPair(len(a), len(b))
	}
}

func panicPair(a, b int) {
	panic(fmt.Sprintf("index: distance between vectors of %d and %d components", a, b))
}

// distancePortable returns the functions in Go, the reference for the others.
func distancePortable(d vectord.Distance) func(a, b []float32) float32 {
	switch d {
	case vectord.Euclid:
		return squaredL2Portable
	case vectord.Manhattan:
		return l1Portable
	}
	return negativeDotPortable
}

// portableBlock is how many components are summed up before they are added to the sum of those before: rounding errors
// grow with the length of a chain of additions.
const portableBlock = 256

func negativeDotPortable(a, b []float32) float32 {
	checkPair(a, b)
	var sum float32
	for len(a) > 0 {
		n := min(len(a), portableBlock)
		sum -= dotBlock(a[:n], b[:n])
		a, b = a[n:], b[n:]
	}
	return sum
}

func squaredL2Portable(a, b []float32) float32 {
	checkPair(a, b)
	var sum float32
	for len(a) > 0 {
		n := min(len(a), portableBlock)
		sum += squaredL2Block(a[:n], b[:n])
		a, b = a[n:], b[n:]
	}
	return sum
}

func l1Portable(a, b []float32) float32 {
	checkPair(a, b)
	var sum float32
	for len(a) > 0 {
		n := min(len(a), portableBlock)
		sum += l1Block(a[:n], b[:n])
		a, b = a[n:], b[n:]
	}
	return sum
}

// The blocks are summed in four chains, of which none waits for another.

func dotBlock(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += a[0] * b[0]
		s1 += a[1] * b[1]
		s2 += a[2] * b[2]
		s3 += a[3] * b[3]
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		s0 += x * b[i]
	}
	return (s0 + s1) + (s2 + s3)
}

func squaredL2Block(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		d0, d1, d2, d3 := a[0]-b[0], a[1]-b[1], a[2]-b[2], a[3]-b[3]
		s0 += d0 * d0
		s1 += d1 * d1
		s2 += d2 * d2
		s3 += d3 * d3
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		d := x - b[i]
		s0 += d * d
	}
	return (s0 + s1) + (s2 + s3)
}

func l1Block(a, b []float32) float32 {
	var s0, s1, s2, s3 float32
	for len(a) >= 4 && len(b) >= 4 {
		s0 += abs(a[0] - b[0])
		s1 += abs(a[1] - b[1])
		s2 += abs(a[2] - b[2])
		s3 += abs(a[3] - b[3])
		a, b = a[4:], b[4:]
	}
	for i, x := range a {
		s0 += abs(x - b[i])
	}
	return (s0 + s1) + (s2 + s3)
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }
