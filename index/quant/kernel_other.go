//go:build !amd64 && !arm64

package quant

import "github.com/vectord/vectord/index/simd"

// compareAt is compare by the kernels of a level, of which this build has only those in Go.
func (s *Scalar) compareAt(_ simd.Level, dst []int32, q *Query, rows []byte, slots []uint32) {
	s.comparePortable(dst, q, rows, slots)
}
