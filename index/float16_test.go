package index

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

// numberOf returns the number that h is by the definition of the format.
func numberOf(h Float16) float64 {
	exponent, fraction := int(h>>10&0x1f), float64(h&0x3ff)
	var x float64
	switch exponent {
	case 0:
		x = math.Ldexp(fraction, -24)
	case 0x1f:
		x = math.Inf(1)
		if fraction != 0 {
			x = math.NaN()
		}
	default:
		x = math.Ldexp(1024+fraction, exponent-25)
	}
	return math.Copysign(x, 1-float64(h>>15)*2)
}

// nearestFloat16 returns the number that x should become.
func nearestFloat16(x float32) float64 {
	magnitude := math.Abs(float64(x))
	if math.IsNaN(magnitude) || math.IsInf(magnitude, 0) {
		return float64(x)
	}
	step := math.Ldexp(1, max(math.Ilogb(max(magnitude, 0x1p-30)), -14)-10)
	return math.Copysign(min(math.RoundToEven(magnitude/step)*step, 65504), float64(x))
}

func sameNumber(a, b float64) bool {
	return math.Float64bits(a) == math.Float64bits(b) || a != a && b != b
}

func TestFloat16(t *testing.T) {
	check := func(x float32) {
		t.Helper()
		if got, want := numberOf(ToFloat16(x)), nearestFloat16(x); !sameNumber(got, want) {
			t.Fatalf("%v (%#x) became %v, want %v", x, math.Float32bits(x), got, want)
		}
	}
	for i := range 1 << 16 {
		h := Float16(i)
		x := h.Float32()
		if !sameNumber(float64(x), numberOf(h)) {
			t.Fatalf("%#x is %v, want %v", i, x, numberOf(h))
		}
		if x == x && ToFloat16(x) != h {
			t.Fatalf("%#x became %#x by way of %v", i, ToFloat16(x), x)
		}
		// The numbers around it, and around the middle to the next one, where rounding turns.
		for _, x := range []float32{x, (x + (h + 1).Float32()) / 2} {
			check(x)
			check(math.Nextafter32(x, float32(math.Inf(1))))
			check(math.Nextafter32(x, float32(math.Inf(-1))))
		}
	}
	const seed = 9
	r := rand.New(rand.NewPCG(seed, 0))
	for range 1_000_000 {
		check(math.Float32frombits(r.Uint32()))
	}
	check(math.MaxFloat32)
	check(-math.MaxFloat32)
}

// checkFloat16 compares the distances to rows of Float16 with those to the same rows in float32.
func checkFloat16(t *testing.T, l simd.Level, d vectord.Distance, q []float32, rows []Float16, slots []uint32) {
	t.Helper()
	const canary = 0x1p100
	got := slices.Repeat([]float32{canary}, len(slots)+1)
	distancesFloat16At(l, d, got[:len(slots)], q, rows, slots)
	if got[len(slots)] != canary {
		t.Fatalf("%s, %s, dimension %d: wrote past the end of %d distances", l, d, len(q), len(slots))
	}
	like := l
	if l == simd.AVX2 {
		like = simd.Go // whose functions it uses
	}
	row := make([]float32, len(q))
	for i, slot := range slots {
		for j, h := range rows[int(slot)*len(q):][:len(q)] {
			row[j] = h.Float32()
		}
		if want := distanceAt(like, d)(q, row); !sameBits(got[i], want) {
			t.Fatalf("%s, %s, dimension %d, slot %d, at %d of %d: %v, want %v", l, d, len(q), slot, i, len(slots), got[i], want)
		}
		if err := checkFloat(d, q, row, got[i]); err != nil {
			t.Fatalf("%s, %s, dimension %d, slot %d: %v", l, d, len(q), slot, err)
		}
	}
}

func TestDistancesFloat16(t *testing.T) {
	const seed = 10
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	const count = 9
	dims := []int{100, 127, 128, 255, 256, 257, 384, 1000, 4096, 40_000}
	for dim := range 66 {
		dims = append(dims, dim+1)
	}
	for _, dim := range dims {
		for _, anyBits := range []bool{false, true} {
			rows, q := AppendFloat16(make([]Float16, 0, count*dim), randomVector(r, count*dim)), randomVector(r, dim)
			if anyBits {
				for i := range rows {
					rows[i] = Float16(r.Uint32())
				}
			}
			slots := make([]uint32, 1+r.IntN(9))
			for i := range slots {
				slots[i] = uint32(r.IntN(count))
			}
			slots[0] = count - 1
			for _, d := range distances {
				for _, l := range levels(t) {
					checkFloat16(t, l, d, q, rows, slots)
				}
			}
		}
	}
}

func TestDistancesFloat16Refuse(t *testing.T) {
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
	q, rows, dst := make([]float32, 2), make([]Float16, 6), make([]float32, 6)
	for _, l := range levels(t) {
		f("short distances", func() { distancesFloat16At(l, vectord.Dot, dst[:1:1], q, rows, []uint32{0, 1}) })
		f("no such row", func() { distancesFloat16At(l, vectord.Dot, dst, q, rows, []uint32{0, 3, 1}) })
		f("half a row", func() { distancesFloat16At(l, vectord.Dot, dst, q, rows[:5], []uint32{2}) })
		f("no components", func() { distancesFloat16At(l, vectord.Dot, dst, nil, rows, []uint32{0}) })
		f("no such distance", func() { distancesFloat16At(l, 9, dst, q, rows, []uint32{0}) })
		distancesFloat16At(l, vectord.Dot, nil, q, nil, nil)
	}
}

func FuzzDistancesFloat16(f *testing.F) {
	f.Add(uint8(0), uint16(0), uint8(0), []byte{0, 0x3c}, []byte{0, 0, 0x80, 0xbf, 0, 0, 0x80, 0x7f})
	f.Add(uint8(2), uint16(99), uint8(4), []byte{0xff, 0x7b, 0, 0x80}, []byte{0xff, 0xff, 0x7f, 0x7f})
	levels := levels(f)
	f.Fuzz(func(t *testing.T, distance uint8, dim uint16, count uint8, ofRows, ofQuery []byte) {
		q := make([]float32, 1+int(dim)%4096)
		repeatBits(q, ofQuery)
		rows := make([]Float16, len(q)*(1+int(count)%10))
		if len(ofRows) >= 2 {
			for i := range rows {
				at := 2 * i % (len(ofRows) - 1)
				rows[i] = Float16(ofRows[at]) | Float16(ofRows[at+1])<<8
			}
		}
		slots := make([]uint32, len(rows)/len(q))
		for i := range slots {
			slots[i] = uint32(len(slots) - 1 - i)
		}
		for _, l := range levels {
			checkFloat16(t, l, distances[int(distance)%len(distances)], q, rows, slots)
		}
	})
}

func ExampleDistancesFloat16() {
	rows := AppendFloat16(nil, []float32{0, 0, 3, 4, 0.5, 0})
	distances := make([]float32, 2)
	DistancesFloat16(vectord.Euclid, distances, []float32{0, 0}, rows, []uint32{1, 2})
	fmt.Println(distances)
	// Output: [25 0.25]
}

// BenchmarkListFloat16 is BenchmarkList for rows of Float16, as many as there are there.
func BenchmarkListFloat16(b *testing.B) {
	rows := make([]Float16, len(gathered))
	for i := range rows {
		rows[i] = 0x3c00 // 1, lest all of it be the one page of zeros
	}
	benchmarkForm(b, func(l simd.Level, d vectord.Distance, dim int) func() int {
		next, q, dst := gatherList(dim), make([]float32, dim), make([]float32, 30)
		return func() int {
			slots := next()
			distancesFloat16At(l, d, dst, q, rows, slots)
			return len(slots)
		}
	})
}

// BenchmarkAppendFloat16 measures one component, as ns/op.
func BenchmarkAppendFloat16(b *testing.B) {
	v := randomVector(rand.New(rand.NewPCG(1, 2)), 1000)
	var row []Float16
	for i := 0; i < b.N; i += len(v) {
		row = AppendFloat16(row[:0], v)
	}
}
