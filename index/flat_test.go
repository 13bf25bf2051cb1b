package index

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/vectord/vectord"
)

// flatModel is what a Flat should be: vectors by slot, and slots in the order of their addition.
type flatModel struct {
	vectors map[uint32][]float32
	order   []uint32
}

func (m *flatModel) add(slot uint32, v []float32) {
	if m.vectors[slot] == nil {
		m.order = append(m.order, slot)
	}
	m.vectors[slot] = v
}

func (m *flatModel) remove(slot uint32) bool {
	if m.vectors[slot] == nil {
		return false
	}
	delete(m.vectors, slot)
	m.order = slices.DeleteFunc(m.order, func(s uint32) bool { return s == slot })
	return true
}

func (m *flatModel) search(d vectord.Distance, q []float32, k int, allow func(uint32) bool) []Neighbor {
	var all []Neighbor
	for slot, v := range m.vectors {
		if allow == nil || allow(slot) {
			all = append(all, Neighbor{slot, DistanceFunc(d)(q, v)})
		}
	}
	slices.SortFunc(all, Compare)
	return all[:max(min(k, len(all)), 0)]
}

func TestFlatAgainstModel(t *testing.T) {
	const seed = 4
	r := rand.New(rand.NewPCG(seed, 0))
	odd := func(slot uint32) bool { return slot%2 == 1 }
	// Rows of 6,000 components come in chunks of two, so that chunks come and go.
	for _, dim := range []int{3, 6000} {
		d := vectord.Distance(1 + r.IntN(4))
		f := NewFlat(d, dim)
		m := &flatModel{vectors: map[uint32][]float32{}}
		for step := range 2000 {
			slot := uint32(r.IntN(30))
			growing := step/200%2 == 0
			if r.IntN(3) == 0 == growing {
				if got, want := f.Remove(slot), m.remove(slot); got != want {
					t.Fatalf("step %d: Remove(%d) = %v, want %v (seed %d)", step, slot, got, want, seed)
				}
			} else {
				v := randomVector(r, dim)
				f.Add(slot, v)
				m.add(slot, slices.Clone(v))
				clear(v) // the index has a copy
			}
			if f.Len() != len(m.vectors) {
				t.Fatalf("step %d: Len() = %d, want %d (seed %d)", step, f.Len(), len(m.vectors), seed)
			}
			probe := uint32(r.IntN(30))
			prefix := []float32{42}
			got, ok := f.Vector(probe, prefix)
			if want := append(prefix, m.vectors[probe]...); ok != (m.vectors[probe] != nil) || !slices.Equal(got, want) {
				t.Fatalf("step %d: Vector(%d) = %v, %v (seed %d)", step, probe, got, ok, seed)
			}
			limit := r.IntN(40) - 1
			want := m.order[:min(max(limit, 0), len(m.order))]
			if got := f.AppendSlots(nil, limit); !slices.Equal(got, want) {
				t.Fatalf("step %d: AppendSlots(%d) = %d, want %d (seed %d)", step, limit, got, want, seed)
			}
			q, k := randomVector(r, dim), r.IntN(35)-1
			for _, allow := range []func(uint32) bool{nil, odd} {
				prefix := []Neighbor{{7, 7}}
				got, want := f.Search(prefix, q, k, allow), append(prefix, m.search(d, q, k, allow)...)
				if !slices.Equal(got, want) {
					t.Fatalf("step %d: %s search for %d:\ngot  %v\nwant %v (seed %d)", step, d, k, got, want, seed)
				}
			}
		}
	}
}

// TestFlatSteps searches among so many rows that there are several steps in a chunk, or chunks shorter than a step.
func TestFlatSteps(t *testing.T) {
	const seed = 8
	r := rand.New(rand.NewPCG(seed, 0))
	filters := map[string]func(slot uint32) bool{
		"all":   nil,
		"some":  func(slot uint32) bool { return slot%3 == 0 },
		"first": func(slot uint32) bool { return slot < 100 },
		"none":  func(uint32) bool { return false },
	}
	for _, shape := range []struct{ dim, rows int }{{3, 9000}, {100, 700}} {
		for _, d := range distances {
			f := NewFlat(d, shape.dim)
			m := flatModel{vectors: map[uint32][]float32{}}
			for slot := range uint32(shape.rows) {
				v := randomVector(r, shape.dim)
				f.Add(slot, v)
				m.vectors[slot] = v
			}
			q := randomVector(r, shape.dim)
			for name, allow := range filters {
				got, want := f.Search(nil, q, 20, allow), m.search(d, q, 20, allow)
				if !slices.Equal(got, want) {
					t.Errorf("%s, dimension %d, %s:\ngot  %v\nwant %v (seed %d)", d, shape.dim, name, got, want, seed)
				}
			}
		}
	}
}

func TestFlatGivesMemoryBack(t *testing.T) {
	const dim, count = 1000, 5000
	f := NewFlat(vectord.Dot, dim)
	empty := f.MemoryBytes()
	v := make([]float32, dim)
	for slot := range uint32(count) {
		f.Add(slot, v)
	}
	full := f.MemoryBytes()
	if full < 4*dim*count || full > 5*dim*count {
		t.Errorf("%d vectors of %d components take %d bytes", count, dim, full)
	}
	for slot := range uint32(count) {
		f.Remove(slot)
		if limit := int64(4*dim+100)*int64(count-slot) + 4*flatChunkBytes; f.MemoryBytes() > limit {
			t.Fatalf("%d vectors left, %d bytes, want at most %d", f.Len(), f.MemoryBytes(), limit)
		}
	}
	if got := f.MemoryBytes(); got != empty {
		t.Errorf("emptied, the index takes %d bytes; new, it took %d", got, empty)
	}
}

func TestFlatConcurrent(t *testing.T) {
	const dim, count = 8, 200
	f := NewFlat(vectord.Euclid, dim)
	var wg sync.WaitGroup
	for g := range uint32(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(5, uint64(g)))
			v := make([]float32, dim)
			for i := range uint32(count) {
				slot := g*count + i
				for j := range v {
					v[j] = float32(slot)
				}
				f.Add(slot, v)
				for _, n := range f.Search(nil, v, 3, nil) {
					if n.Distance == 0 && n.Slot != slot {
						t.Errorf("slot %d has the vector of slot %d", n.Slot, slot)
					}
				}
				if old := g*count + uint32(r.IntN(int(i)+1)); f.Remove(old) {
					f.AppendSlots(nil, 10)
				}
			}
		})
	}
	wg.Wait()
}

func TestFlatPanicsOnWrongDimension(t *testing.T) {
	f := NewFlat(vectord.Dot, 2)
	panics := func(what string, do func()) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%s did not panic", what)
			}
		}()
		do()
	}
	panics("Add", func() { f.Add(0, []float32{1}) })
	panics("Search", func() { f.Search(nil, []float32{1, 2, 3}, 1, nil) })
	panics("NewFlat without a dimension", func() { NewFlat(vectord.Dot, 0) })
	panics("NewFlat without a distance", func() { NewFlat(0, 2) })
	if f.Len() != 0 {
		t.Errorf("a refused vector was stored")
	}
}

func ExampleFlat() {
	f := NewFlat(vectord.Euclid, 2)
	f.Add(0, []float32{0, 0})
	f.Add(1, []float32{3, 4})
	f.Add(2, []float32{6, 8})
	for _, n := range f.Search(nil, []float32{0, 1}, 2, nil) {
		fmt.Printf("slot %d, score %.2f\n", n.Slot, Score(vectord.Euclid, n.Distance))
	}
	// Output:
	// slot 0, score 1.00
	// slot 1, score 4.24
}

func BenchmarkFlatSearch(b *testing.B) {
	for _, dim := range []int{100, 384, 768} {
		b.Run(fmt.Sprint(dim), func(b *testing.B) {
			const count = 1000
			r := rand.New(rand.NewPCG(1, 1))
			f := NewFlat(vectord.Dot, dim)
			for slot := range uint32(count) {
				f.Add(slot, randomVector(r, dim))
			}
			q := randomVector(r, dim)
			var dst []Neighbor
			b.ResetTimer()
			for range b.N {
				dst = f.Search(dst[:0], q, 10, nil)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/count, "ns/vector")
		})
	}
}
