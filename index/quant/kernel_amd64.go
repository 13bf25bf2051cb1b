package quant

import (
	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

// compareAt is compare by the kernels of level l. It calls them by name rather than through variables, by which dst and
// slots would escape to the heap.
func (s *Scalar) compareAt(l simd.Level, dst []int32, q *Query, rows []byte, slots []uint32) {
	if l == simd.Go {
		s.comparePortable(dst, q, rows, slots)
		return
	}
	reportAccesses(dst, q.codes, rows, s.rowSize, slots)
	wide := l == simd.AVX512
	d, n, c, r, size, p := &dst[0], len(dst), &q.codes[0], &rows[0], s.rowSize, &slots[0]
	switch s.distance {
	case vectord.Euclid:
		if wide {
			euclidAVX512(d, n, c, r, size, p, q.add)
		} else {
			euclidAVX2(d, n, c, r, size, p, q.add)
		}
	case vectord.Manhattan:
		if wide {
			manhattanAVX512(d, n, c, r, size, p)
		} else {
			manhattanAVX2(d, n, c, r, size, p)
		}
	default:
		if wide {
			dotAVX512(d, n, c, r, size, p, q.add)
		} else {
			dotAVX2(d, n, c, r, size, p, q.add)
		}
	}
}
