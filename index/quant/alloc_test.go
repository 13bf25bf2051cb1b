//go:build !race

// What is reported to the race detector escapes to the heap.

package quant

import (
	"testing"

	"github.com/vectord/vectord"
)

func TestKernelsDoNotAllocate(t *testing.T) {
	s := newScalar(vectord.Dot, 100, 1, nil)
	var q Query
	v := make([]float32, 100)
	rows := make([]byte, 20*s.rowSize)
	s.EncodeQuery(&q, v)
	if n := testing.AllocsPerRun(100, func() {
		var dst [20]int32 // stays on the stack
		slots := [...]uint32{3, 1, 19}
		s.EncodeQuery(&q, v)
		s.QueryFromRow(&q, rows)
		s.EncodeRow(rows, v)
		s.Distances(dst[:], &q, rows, slots[:])
		s.Scan(dst[:], &q, rows)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
}
