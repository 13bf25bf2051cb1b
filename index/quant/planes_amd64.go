package quant

import (
	"golang.org/x/sys/cpu"

	"github.com/vectord/vectord/index/simd"
)

// hasPopcount says whether the processor counts bits in 512-bit registers, which not every one with simd.AVX512 does.
var hasPopcount = cpu.X86.HasAVX512VPOPCNTDQ

// compareAt is compare by the kernel of level l, called by name lest dst and slots escape to the heap.
func (b *Binary) compareAt(l simd.Level, dst []int32, q *Query, rows []byte, slots []uint32) {
	if l == simd.Go {
		b.comparePortable(dst, q, rows, slots)
		return
	}
	reportAccesses(dst, q.codes, rows, b.rowSize, slots)
	if l == simd.AVX512 && hasPopcount {
		planesAVX512(&dst[0], len(dst), &q.codes[0], &rows[0], b.rowSize, &slots[0])
	} else {
		planesAVX2(&dst[0], len(dst), &q.codes[0], &rows[0], b.rowSize, &slots[0])
	}
}

// hadamardAt is hadamard at level l.
func hadamardAt(l simd.Level, v []float32) {
	if l == simd.Go {
		hadamardPortable(v)
		return
	}
	hadamardAVX2(&v[0], len(v))
}
