//go:build !race

// Under the race detector a sync.Pool forgets at random.

package index

import (
	"testing"

	"github.com/vectord/vectord"
)

func TestFlatSearchDoesNotAllocate(t *testing.T) {
	f := NewFlat(vectord.Dot, 4)
	v := []float32{1, 2, 3, 4}
	for slot := range uint32(100) {
		f.Add(slot, v)
	}
	dst := f.Search(nil, v, 10, nil)
	if n := testing.AllocsPerRun(100, func() { dst = f.Search(dst[:0], v, 10, nil) }); n >= 1 {
		t.Errorf("%v allocations a search, want none", n)
	}
}

func TestDistancesDoNotAllocate(t *testing.T) {
	q, rows := make([]float32, 100), make([]float32, 10_000)
	for _, d := range distances {
		if n := testing.AllocsPerRun(10, func() {
			var dst [100]float32
			slots := [...]uint32{3, 4}
			Scan(d, dst[:], q, rows)
			Distances(d, dst[:], q, rows, slots[:])
		}); n != 0 {
			t.Errorf("%s: %v allocations, want none", d, n)
		}
	}
}
