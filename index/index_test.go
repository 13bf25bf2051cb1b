package index

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
)

func TestCompare(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	// In order; every pair is compared both ways. Neighbors 4 and 5 are equal but for the sign of zero.
	sorted := []Neighbor{{0, -inf}, {7, -2}, {0, -1}, {1, -1}, {2, 0}, {3, float32(math.Copysign(0, -1))}, {4, 0}, {0, 1}, {9, inf}, {0, nan}, {1, nan}}
	for i, a := range sorted {
		for j, b := range sorted {
			if got, want := Compare(a, b), cmp.Compare(i, j); got != want {
				t.Errorf("Compare(%v, %v) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestDistanceFunc(t *testing.T) {
	const seed = 1
	r := rand.New(rand.NewPCG(seed, 0))
	for _, dim := range []int{1, 2, 3, 7, 8, 9, 31, 100, 768} {
		a, b := randomVector(r, dim), randomVector(r, dim)
		var dot, l1, l2 float64
		for i := range a {
			x, y := float64(a[i]), float64(b[i])
			dot += x * y
			l1 += math.Abs(x - y)
			l2 += (x - y) * (x - y)
		}
		f := func(d vectord.Distance, distance, score float64) {
			t.Helper()
			got := DistanceFunc(d)(a, b)
			if math.Abs(float64(got)-distance) > 1e-4*(1+math.Abs(distance)) {
				t.Errorf("%s, dimension %d: distance %v, want %v (seed %d)", d, dim, got, distance, seed)
			}
			if s := Score(d, got); math.Abs(float64(s)-score) > 1e-4*(1+math.Abs(score)) {
				t.Errorf("%s, dimension %d: score %v, want %v (seed %d)", d, dim, s, score, seed)
			}
		}
		f(vectord.Cosine, -dot, dot)
		f(vectord.Dot, -dot, dot)
		f(vectord.Euclid, l2, math.Sqrt(l2))
		f(vectord.Manhattan, l1, l1)
	}
	if s := Score(vectord.Dot, 0); math.Signbit(float64(s)) {
		t.Errorf("score of orthogonal vectors is %v", s)
	}
}

func randomVector(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

func TestBitset(t *testing.T) {
	const seed = 2
	r := rand.New(rand.NewPCG(seed, 0))
	var b Bitset
	model := map[uint32]bool{}
	for range 20_000 {
		slot := uint32(r.IntN(1000))
		if r.IntN(3) == 0 {
			b.Clear(slot)
			delete(model, slot)
		} else {
			b = b.Set(slot)
			model[slot] = true
		}
		probe := uint32(r.IntN(1200))
		if b.Contains(probe) != model[probe] {
			t.Fatalf("Contains(%d) = %v (seed %d)", probe, !model[probe], seed)
		}
	}
	if b.Count() != len(model) {
		t.Errorf("Count() = %d, want %d (seed %d)", b.Count(), len(model), seed)
	}
	if b.Contains(math.MaxUint32) {
		t.Error("a slot beyond the end is in the set")
	}
	b.Clear(math.MaxUint32)

	// What Grow uncovers is empty, whatever the memory held before.
	dirty := Bitset{1, 2, 3, 4}[:1]
	if got := dirty.Grow(256).Count(); got != 1 {
		t.Errorf("Count() after Grow = %d, want 1", got)
	}
	if got := len(Bitset(nil).Grow(65)); got != 2 {
		t.Errorf("Grow(65) has %d words, want 2", got)
	}
	if got := len(Bitset{1, 2}.Grow(1)); got != 2 {
		t.Errorf("Grow(1) of 2 words has %d", got)
	}
}

func TestTop(t *testing.T) {
	const seed = 3
	r := rand.New(rand.NewPCG(seed, 0))
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	var top Top
	for round := range 300 {
		k := r.IntN(20) - 1
		top.Reset(k)
		k = max(k, 0)
		var all []Neighbor
		for slot := range uint32(r.IntN(100)) {
			n := Neighbor{slot, float32(r.IntN(30))} // many ties
			switch r.IntN(50) {
			case 0:
				n.Distance = nan
			case 1:
				n.Distance = inf
			}
			worst := top.Worst()
			before := top.AppendSorted(nil)
			top.Offer(n)
			kept := !slices.EqualFunc(before, top.AppendSorted(nil), same)
			if full := len(before) == k; kept != (!full || k > 0 && Compare(n, worst) < 0) {
				t.Fatalf("round %d: offer of %v with worst %v: kept %v (seed %d)", round, n, worst, kept, seed)
			}
			all = append(all, n)
		}
		slices.SortFunc(all, Compare)
		all = all[:min(k, len(all))]
		if got := top.AppendSorted(nil); !slices.EqualFunc(got, all, same) || top.Len() != len(all) {
			t.Fatalf("round %d, k %d:\ngot  %v\nwant %v (seed %d)", round, k, got, all, seed)
		}
	}
}

// same is equality under which NaN equals itself.
func same(a, b Neighbor) bool { return Compare(a, b) == 0 }

func TestTopDoesNotAllocate(t *testing.T) {
	var top Top
	dst := make([]Neighbor, 0, 10)
	use := func() {
		top.Reset(10)
		for i := range uint32(100) {
			top.Offer(Neighbor{i, float32(i * 7 % 50)})
		}
		dst = top.AppendSorted(dst[:0])
	}
	use()
	if n := testing.AllocsPerRun(10, use); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}

func ExampleTop() {
	var top Top
	top.Reset(2)
	for slot, distance := range []float32{5, 1, 4, 2} {
		top.Offer(Neighbor{Slot: uint32(slot), Distance: distance})
	}
	fmt.Println(top.AppendSorted(nil), top.Worst())
	// Output: [{1 1} {3 2}] {3 2}
}

func ExampleBitset() {
	var live Bitset
	live = live.Set(3).Set(100)
	fmt.Println(live.Contains(3), live.Contains(4), live.Contains(1_000_000), live.Count())
	// Output: true false false 2
}

func ExampleDistances() {
	rows := []float32{0, 0, 3, 4, 0.5, 0}
	distances := make([]float32, 2)
	Distances(vectord.Euclid, distances, []float32{0, 0}, rows, []uint32{1, 2})
	fmt.Println(distances)
	// Output: [25 0.25]
}

func ExampleScan() {
	rows := []float32{0, 0, 3, 4, 0.5, 0}
	distances := make([]float32, 3)
	Scan(vectord.Manhattan, distances, []float32{0, 1}, rows)
	fmt.Println(distances)
	// Output: [1 6 1.5]
}

func BenchmarkTopOffer(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	neighbors := make([]Neighbor, 4096)
	for i := range neighbors {
		neighbors[i] = Neighbor{uint32(i), r.Float32()}
	}
	var top Top
	b.ResetTimer()
	for i := range b.N {
		if i%len(neighbors) == 0 {
			top.Reset(100)
		}
		top.Offer(neighbors[i%len(neighbors)])
	}
}
