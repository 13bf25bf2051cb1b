//go:build !amd64

package quant

// bestLevel returns the only level of this build.
func bestLevel() level { return levelGo }

// compareAt is compare by the kernels of level l, which is levelGo.
func (s *Scalar) compareAt(_ level, dst []int32, q *Query, rows []byte, slots []uint32) {
	s.comparePortable(dst, q, rows, slots)
}
