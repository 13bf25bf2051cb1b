package field

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/vectord/vectord"
)

// TestPostings gives random histories to postings and to a plain map, and compares all that can be read. Slots come and go
// in numbers that make sets take each of their forms.
func TestPostings(t *testing.T) {
	for range 30 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 1))
		p, model := New(), map[string]map[uint32]bool{}
		term := func() string { return fmt.Sprint("t", rng.IntN(4+rng.IntN(20))) }
		slotsMax := []int{3, 60, 5000}[rng.IntN(3)]
		for step := range 4000 {
			name, slot := term(), uint32(rng.IntN(slotsMax))
			if rng.IntN(1+step/500) < 2 {
				p.Add(name, slot)
				if model[name] == nil {
					model[name] = map[uint32]bool{}
				}
				model[name][slot] = true
			} else {
				if rng.IntN(8) == 0 { // empty a term
					for _, slot := range slices.Sorted(maps.Keys(model[name])) {
						p.Remove(name, slot)
					}
					delete(model, name)
				}
				p.Remove(name, slot)
				delete(model[name], slot)
				if len(model[name]) == 0 {
					delete(model, name)
				}
			}
			if step%250 == 0 {
				comparePostings(t, seed, p, model)
			}
		}
		comparePostings(t, seed, p, model)
		l := NewLoader()
		for _, name := range slices.Sorted(maps.Keys(model)) {
			for _, slot := range slices.Sorted(maps.Keys(model[name])) {
				l.Add([]byte(name), slot)
			}
		}
		comparePostings(t, seed, l.Done(), model)
		for name, slots := range model {
			for slot := range slots {
				p.Remove(name, slot)
			}
		}
		if p.Terms() != 0 || p.Len() != 0 || p.MemoryBytes() != 0 {
			t.Fatalf("seed %d: emptied, there are %d terms, %d pairs and %d bytes", seed, p.Terms(), p.Len(), p.MemoryBytes())
		}
	}
}

func comparePostings(t *testing.T, seed uint64, p *Postings, model map[string]map[uint32]bool) {
	t.Helper()
	names := slices.Sorted(maps.Keys(model))
	pairs := 0
	some := roaring.BitmapOf(1, 2, 3, 50, 51, 4000)
	for _, name := range names {
		want := slices.Sorted(maps.Keys(model[name]))
		pairs += len(want)
		s, ok := p.Get(name)
		if got := s.AppendTo(nil); !ok || !slices.Equal(got, want) || p.Count(name) != len(want) || !slices.Equal(p.Of(name).ToArray(), want) {
			t.Fatalf("seed %d: term %s has slots %v, want %v", seed, name, got, want)
		}
		in := 0
		for slot := range uint32(5000) {
			if s.Contains(slot) != model[name][slot] {
				t.Fatalf("seed %d: term %s contains %d: %v", seed, name, slot, s.Contains(slot))
			}
			if model[name][slot] && some.Contains(slot) {
				in++
			}
		}
		if got := s.CountIn(some); got != in {
			t.Fatalf("seed %d: %d slots of term %s are in the bitmap, want %d", seed, got, name, in)
		}
	}
	if p.Terms() != len(names) || p.Len() != pairs {
		t.Fatalf("seed %d: %d terms and %d pairs, want %d and %d", seed, p.Terms(), p.Len(), len(names), pairs)
	}
	for _, r := range []Range{{"", ""}, {"t1", "t3"}, {"t10", ""}, {"t", "t15"}, {"u", ""}, {"t3", "t3"}} {
		var want []string
		union := map[uint32]bool{}
		for _, name := range names {
			if name >= r.From && (r.To == "" || name < r.To) {
				want = append(want, name)
				maps.Copy(union, model[name])
			}
		}
		var up, down []string
		p.Ascend(r.From, r.To, func(name string, _ Slots) bool { up = append(up, name); return true })
		p.Descend(r.From, r.To, func(name string, _ Slots) bool { down = append(down, name); return true })
		slices.Reverse(down)
		if !slices.Equal(up, want) || !slices.Equal(down, want) {
			t.Fatalf("seed %d: range %q has terms %q upwards and %q downwards, want %q", seed, r, up, down, want)
		}
		if got, want := p.OfRange(r.From, r.To).ToArray(), slices.Sorted(maps.Keys(union)); !slices.Equal(got, want) {
			t.Fatalf("seed %d: range %q has slots %v, want %v", seed, r, got, want)
		}
	}
}

// A scan ends where it is told to.
func TestAscendStops(t *testing.T) {
	p := New()
	for i := range uint32(100) {
		p.Add(Number(vectord.IntNumber(int64(i)), true), i)
	}
	seen := 0
	stop := func(string, Slots) bool { seen++; return seen%10 != 0 }
	p.Ascend("", "", stop)
	p.Descend("", "", stop)
	p.Descend("", Number(vectord.IntNumber(50), true), stop)
	if seen != 30 {
		t.Errorf("%d terms were seen, want 30", seen)
	}
}

func benchmarkPostings(n int) *Postings {
	p := New()
	rng := rand.New(rand.NewPCG(1, 1))
	for slot := range uint32(n) {
		p.Add(Number(vectord.IntNumber(rng.Int64N(int64(n))), true), slot)
		p.Add(String(fmt.Sprint("color ", rng.IntN(20))), slot)
	}
	return p
}

func BenchmarkOfTerm(b *testing.B) {
	p := benchmarkPostings(100_000)
	for b.Loop() {
		p.Of(String("color 7"))
	}
}

func BenchmarkOfRangeOfHalf(b *testing.B) {
	p := benchmarkPostings(100_000)
	half := vectord.IntNumber(50_000)
	r := NumbersIn(&vectord.Range{LT: &half})
	for b.Loop() {
		p.OfRange(r.From, r.To)
	}
}

func BenchmarkAddRemove(b *testing.B) {
	p := benchmarkPostings(100_000)
	slot := uint32(0)
	for b.Loop() {
		term := Number(vectord.IntNumber(int64(slot)), true)
		p.Add(term, 200_000+slot)
		p.Remove(term, 200_000+slot)
		slot = (slot + 1) % 100_000
	}
}
