//go:build !amd64

package quant

import "github.com/vectord/vectord/index/simd"

// compareAt is compare by the kernel of a level, of which this build has only the one in Go.
func (b *Binary) compareAt(_ simd.Level, dst []int32, q *Query, rows []byte, slots []uint32) {
	b.comparePortable(dst, q, rows, slots)
}

// hadamardAt is hadamard at a level, of which this build has only the one in Go.
func hadamardAt(_ simd.Level, v []float32) { hadamardPortable(v) }
