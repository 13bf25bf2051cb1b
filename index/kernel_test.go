package index

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

var distances = []vectord.Distance{vectord.Cosine, vectord.Dot, vectord.Euclid, vectord.Manhattan}

// levels returns the levels of this machine, and says in the log which ones are missing.
func levels(tb testing.TB) []simd.Level {
	available := simd.Available()
	for _, l := range simd.All() {
		if !slices.Contains(available, l) {
			tb.Logf("%s is not available here and goes untested", l)
		}
	}
	return available
}

// checkForms compares the distances of a list of rows, those of a scan and those of pairs, which must be the same bit for
// bit, with sums of float64.
func checkForms(t *testing.T, l simd.Level, d vectord.Distance, q, rows []float32, slots []uint32) {
	t.Helper()
	const canary = 0x1p100
	list := slices.Repeat([]float32{canary}, len(slots)+1)
	distancesAt(l, d, list[:len(slots)], q, rows, slots)
	if list[len(slots)] != canary {
		t.Fatalf("%s, %s, dimension %d: wrote past the end of %d distances", l, d, len(q), len(slots))
	}
	count := len(rows) / len(q)
	scan := slices.Repeat([]float32{canary}, count+1)
	scanAt(l, d, scan[:count], q, rows)
	if scan[count] != canary {
		t.Fatalf("%s, %s, dimension %d: wrote past the end of a scan of %d", l, d, len(q), count)
	}
	pair := distanceAt(l, d)
	for i, slot := range slots {
		row := rows[int(slot)*len(q):][:len(q)]
		p, r := pair(q, row), pair(row, q)
		if !sameBits(list[i], p) || !sameBits(scan[slot], p) || !sameBits(r, p) {
			t.Fatalf("%s, %s, dimension %d, slot %d, at %d of %d: %v as a pair, %v the other way round, %v in the list, %v in the scan",
				l, d, len(q), slot, i, len(slots), p, r, list[i], scan[slot])
		}
		if err := checkFloat(d, q, row, p); err != nil {
			t.Fatalf("%s, %s, dimension %d, slot %d: %v", l, d, len(q), slot, err)
		}
	}
}

// sameBits is equality of bits, but for those of NaN.
func sameBits(a, b float32) bool {
	return math.Float32bits(a) == math.Float32bits(b) || a != a && b != b
}

// checkFloat returns an error if got is not the distance of a and b, as far as float32 can tell.
func checkFloat(d vectord.Distance, a, b []float32, got float32) error {
	const (
		tolerance = 1e-5 // of the sum of magnitudes
		overflow  = math.MaxFloat32 * (1 - tolerance)
	)
	var want, magnitude float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		term := -x * y
		switch d {
		case vectord.Euclid:
			term = (x - y) * (x - y)
		case vectord.Manhattan:
			term = math.Abs(x - y)
		}
		want += term
		magnitude += math.Abs(term)
	}
	underflow := float64(len(a)) * math.SmallestNonzeroFloat32
	finite := math.Abs(float64(got)) <= math.MaxFloat32
	var ok bool
	switch {
	case math.IsNaN(want):
		ok = got != got
	case magnitude <= overflow, finite:
		ok = math.Abs(float64(got)-want) <= tolerance*magnitude+underflow
	case d == vectord.Euclid || d == vectord.Manhattan: // no term is negative
		ok = math.IsInf(float64(got), 1)
	default: // terms of both signs may have overflown
		ok = true
	}
	if !ok {
		return fmt.Errorf("distance %v, want %v; the magnitudes sum to %v", got, want, magnitude)
	}
	return nil
}

// unaligned returns n zeros that begin shift components past a multiple of 64 bytes, with capacity for no more.
func unaligned(n, shift int) []float32 {
	v := make([]float32, n+32)
	shift += int(-uintptr(unsafe.Pointer(&v[0]))%64) / 4
	return v[shift : shift+n : shift+n]
}

// fills are kinds of vectors. Terms of the last three overflow, underflow, or are not numbers.
var fills = []struct {
	name string
	fill func(r *rand.Rand, v []float32)
}{
	{"normal", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	}},
	{"one", func(_ *rand.Rand, v []float32) {
		for i := range v {
			v[i] = 1
		}
	}},
	{"minus zero", func(_ *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(math.Copysign(0, -1))
		}
	}},
	{"every exponent", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(math.Ldexp(r.Float64()-0.5, r.IntN(126)-63))
		}
	}},
	{"huge", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = float32(math.Ldexp(r.Float64()-0.5, 127+r.IntN(2)))
		}
	}},
	{"denormal", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = math.Float32frombits(r.Uint32() & 0x807fffff)
		}
	}},
	{"any bits", func(r *rand.Rand, v []float32) {
		for i := range v {
			v[i] = math.Float32frombits(r.Uint32())
		}
	}},
}

func TestDistancesAgree(t *testing.T) {
	const seed = 5
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	levels := levels(t)
	const count = 9
	dims := []int{100, 127, 128, 129, 255, 256, 257, 384, 1000, 4096}
	for dim := range 66 {
		dims = append(dims, dim+1)
	}
	for _, dim := range dims {
		for _, ofRows := range fills {
			for _, ofQuery := range fills {
				rows, q := unaligned(count*dim, r.IntN(16)), unaligned(dim, r.IntN(16))
				ofRows.fill(r, rows)
				ofQuery.fill(r, q)
				slots := make([]uint32, 1+r.IntN(9))
				for i := range slots {
					slots[i] = uint32(r.IntN(count))
				}
				slots[0], slots[len(slots)-1] = count-1, 0
				for _, d := range distances {
					for _, l := range levels {
						checkForms(t, l, d, q, rows, slots)
					}
				}
			}
		}
	}
}

// TestDistancesAnywhere checks that the bits of a distance do not depend on where the vectors lie.
func TestDistancesAnywhere(t *testing.T) {
	const seed = 6
	r := rand.New(rand.NewPCG(seed, 0))
	for _, dim := range []int{1, 15, 16, 100, 129, 384} {
		a, b := randomVector(r, dim), randomVector(r, dim)
		for _, l := range levels(t) {
			for _, d := range distances {
				want := distanceAt(l, d)(a, b)
				for shift := range 16 {
					x, y := unaligned(dim, shift), unaligned(dim, r.IntN(16))
					copy(x, a)
					copy(y, b)
					if got := distanceAt(l, d)(x, y); !sameBits(got, want) {
						t.Errorf("%s, %s, dimension %d, %d components further: %v, not %v (seed %d)", l, d, dim, shift, got, want, seed)
					}
				}
			}
		}
	}
}

// TestDistancesInPieces compares lists and scans that take several calls of a kernel.
func TestDistancesInPieces(t *testing.T) {
	const seed = 7
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	for _, shape := range []struct{ dim, count int }{{3, 1000}, {100, 700}, {5000, 20}, {40_000, 3}} {
		if calls := kernelRows(shape.dim); calls >= shape.count && len(ascending) >= shape.count {
			t.Fatalf("%d rows of %d components take one call", shape.count, shape.dim)
		}
		q, rows := randomVector(r, shape.dim), randomVector(r, shape.count*shape.dim)
		slots := make([]uint32, 3*shape.count)
		for i := range slots {
			slots[i] = uint32(r.IntN(shape.count))
		}
		for _, l := range levels(t) {
			checkForms(t, l, vectord.Euclid, q, rows, slots)
		}
	}
}

func TestDistancesRefuse(t *testing.T) {
	f := func(name string, call func()) {
		t.Helper()
		defer func() {
			t.Helper()
			if recover() == nil {
				t.Errorf("%s: no panic", name)
			}
		}()
		call()
	}
	v, dst := make([]float32, 6), make([]float32, 6)
	for _, l := range levels(t) {
		for _, d := range distances {
			f("lengths differ", func() { distanceAt(l, d)(v[:5], v) })
			f("no components", func() { distanceAt(l, d)(nil, nil) })
			f("short distances", func() { distancesAt(l, d, dst[:1:1], v[:2], v, []uint32{0, 1}) })
			f("no such row", func() { distancesAt(l, d, dst, v[:2], v, []uint32{0, 3, 1}) })
			f("half a row", func() { distancesAt(l, d, dst, v[:2], v[:5], []uint32{2}) })
			f("no components in the query", func() { distancesAt(l, d, dst, nil, v, []uint32{0}) })
			f("short distances of a scan", func() { scanAt(l, d, dst[:2:2], v[:2], v) })
			f("not a multiple", func() { scanAt(l, d, dst, v[:4], v) })
			f("no components in the query of a scan", func() { scanAt(l, d, dst, nil, v) })
			distancesAt(l, d, nil, v, nil, nil)
			scanAt(l, d, nil, v, nil)
		}
		f("no such distance", func() { DistanceFunc(9) })
		f("no such distance of a list", func() { distancesAt(l, 9, dst, v, v, []uint32{0}) })
		f("no such distance of a scan", func() { scanAt(l, 0, dst, v, v) })
	}
}

func FuzzDistances(f *testing.F) {
	f.Add(uint8(0), uint16(0), uint8(0), uint8(0), []byte{0, 0, 0x80, 0x3f}, []byte{0, 0, 0x80, 0xbf, 0, 0, 0x80, 0x7f})
	f.Add(uint8(2), uint16(99), uint8(4), uint8(1), []byte{1, 2, 3, 4, 5}, []byte{0xff, 0xff, 0x7f, 0x7f})
	f.Add(uint8(3), uint16(4095), uint8(9), uint8(35), []byte{1}, []byte{0, 0, 0, 0x80})
	levels := levels(f)
	f.Fuzz(func(t *testing.T, distance uint8, dim uint16, count, shift uint8, ofRows, ofQuery []byte) {
		q := unaligned(1+int(dim)%4096, int(shift%16))
		rows := unaligned(len(q)*(1+int(count)%10), int(shift/16))
		repeatBits(q, ofQuery)
		repeatBits(rows, ofRows)
		slots := make([]uint32, len(rows)/len(q))
		for i := range slots {
			slots[i] = uint32(len(slots) - 1 - i)
		}
		for _, l := range levels {
			checkForms(t, l, distances[int(distance)%len(distances)], q, rows, slots)
		}
	})
}

// repeatBits fills the memory of dst with copies of pattern.
func repeatBits(dst []float32, pattern []byte) {
	if len(pattern) == 0 {
		return
	}
	b := unsafe.Slice((*byte)(unsafe.Pointer(&dst[0])), 4*len(dst))
	for len(b) > 0 {
		b = b[copy(b, pattern):]
	}
}

var benchmarkDims = []int{4, 16, 100, 128, 384, 768, 1536}

// benchmarkForm measures one distance at each level, as ns/op: run compares each of n times and returns how many distances
// it has computed.
func benchmarkForm(b *testing.B, prepare func(l simd.Level, d vectord.Distance, dim int) (run func() int)) {
	for _, d := range distances[1:] {
		for _, dim := range benchmarkDims {
			for _, l := range levels(b) {
				b.Run(fmt.Sprintf("%s/%d/%s", d, dim, l), func(b *testing.B) {
					run := prepare(l, d, dim)
					b.ResetTimer()
					for i := 0; i < b.N; i += run() {
					}
				})
			}
		}
	}
}

// BenchmarkPair measures the distance of two vectors in the first-level cache.
func BenchmarkPair(b *testing.B) {
	benchmarkForm(b, func(l simd.Level, d vectord.Distance, dim int) func() int {
		r := rand.New(rand.NewPCG(1, 2))
		x, y := randomVector(r, dim), randomVector(r, dim)
		distance := distanceAt(l, d)
		return func() int {
			for range 100 {
				distance(x, y)
			}
			return 100
		}
	})
}

// gathered is the memory over which the rows of BenchmarkList and BenchmarkPairs lie scattered.
var gathered = make([]float32, 256<<20/4)

// gatherList returns lists of 30 slots of rows in gathered, as rescoring asks for them, one after the other.
func gatherList(dim int) func() []uint32 {
	const length = 30
	if gathered[0] == 0 {
		for i := range gathered {
			gathered[i] = 1 // touched, lest all of it be the one page of zeros
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	slots := make([]uint32, length<<14)
	for i := range slots {
		slots[i] = uint32(r.IntN(len(gathered) / dim))
	}
	at := 0
	return func() []uint32 {
		at = (at + length) % len(slots)
		return slots[at:][:length]
	}
}

// BenchmarkList measures one distance of a list of rows scattered over 256 MiB, by Distances.
func BenchmarkList(b *testing.B) {
	benchmarkForm(b, func(l simd.Level, d vectord.Distance, dim int) func() int {
		next, q, dst := gatherList(dim), make([]float32, dim), make([]float32, 30)
		return func() int {
			slots := next()
			distancesAt(l, d, dst, q, gathered, slots)
			return len(slots)
		}
	})
}

// BenchmarkPairs measures the same pair by pair.
func BenchmarkPairs(b *testing.B) {
	benchmarkForm(b, func(l simd.Level, d vectord.Distance, dim int) func() int {
		next, q, dst := gatherList(dim), make([]float32, dim), make([]float32, 30)
		distance := distanceAt(l, d)
		return func() int {
			slots := next()
			for i, slot := range slots {
				dst[i] = distance(q, gathered[int(slot)*dim:][:dim])
			}
			return len(slots)
		}
	})
}

// BenchmarkScan measures one distance in a scan of 512 KiB, which the second-level cache holds.
func BenchmarkScan(b *testing.B) {
	benchmarkForm(b, func(l simd.Level, d vectord.Distance, dim int) func() int {
		count := 512 << 10 / 4 / dim
		q, rows, dst := make([]float32, dim), slices.Repeat([]float32{1}, count*dim), make([]float32, count)
		return func() int {
			scanAt(l, d, dst, q, rows)
			return count
		}
	})
}
