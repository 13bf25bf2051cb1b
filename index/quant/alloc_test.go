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
		s.Distances(dst[:], &q, rows, slots[:])
		s.Scan(dst[:], &q, rows)
	}); n != 0 {
		t.Errorf("%v allocations, want none", n)
	}
	checkAllocations(t, newScalar(vectord.Dot, 100, 1, nil))
	checkAllocations(t, newFloat32(t, vectord.Dot, 100))
	checkAllocations(t, newBinary(vectord.Dot, make([]float32, 100)))
	checkAllocations(t, newProduct(vectord.Dot, 100, 16))
}

func checkAllocations(t *testing.T, c Codec) {
	t.Helper()
	var q Query
	v := make([]float32, c.Dim())
	rows := alignedRows(20 * c.RowSize())
	dst := make([]int32, 20)
	slots := []uint32{3, 1, 19}
	c.EncodeQuery(&q, v)
	if n := testing.AllocsPerRun(100, func() {
		c.EncodeQuery(&q, v)
		c.QueryFromRow(&q, rows)
		c.EncodeRow(rows, v)
		c.Distances(dst, &q, rows, slots)
		c.Scan(dst, &q, rows)
		c.Clipped(v)
	}); n != 0 {
		t.Errorf("%s: %v allocations, want none", c.Name(), n)
	}
}
