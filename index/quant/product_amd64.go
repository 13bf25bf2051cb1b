package quant

import (
	"unsafe"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

// compareAt is compare by the kernel of level l, called by name lest dst and slots escape to the heap.
func (p *Product) compareAt(l simd.Level, dst, vector []float32, rows []byte, slots []uint32) {
	if l == simd.Go {
		p.comparePortable(dst, vector, rows, slots)
		return
	}
	reportAccesses(orders(dst), bytesOf(vector), rows, p.rowSize, slots)
	d, n, v, c, r, s := &dst[0], len(dst), &vector[0], &p.centroids[0], &rows[0], &slots[0]
	steps := len(vector) / max(p.width, productLanes)
	switch p.distance {
	case vectord.Euclid:
		switch p.width {
		case 1:
			sumSquares1AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 2:
			sumSquares2AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 4:
			sumSquares4AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 8:
			sumSquares8AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 16:
			sumSquares16AVX2(d, n, v, steps, c, r, p.rowSize, s)
		}
	case vectord.Manhattan:
		switch p.width {
		case 1:
			sumDifferences1AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 2:
			sumDifferences2AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 4:
			sumDifferences4AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 8:
			sumDifferences8AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 16:
			sumDifferences16AVX2(d, n, v, steps, c, r, p.rowSize, s)
		}
	default:
		switch p.width {
		case 1:
			sumProducts1AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 2:
			sumProducts2AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 4:
			sumProducts4AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 8:
			sumProducts8AVX2(d, n, v, steps, c, r, p.rowSize, s)
		case 16:
			sumProducts16AVX2(d, n, v, steps, c, r, p.rowSize, s)
		}
	}
}

// orders is the inverse of measured.
func orders(dst []float32) []int32 {
	return unsafe.Slice((*int32)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst))
}

// bytesOf is the inverse of floats.
func bytesOf(v []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(v))), float32Bytes*len(v))
}

// leastOfAt is leastOf by the kernel of level l.
func leastOfAt(l simd.Level, table *[productCentroids]float32) byte {
	if l == simd.Go {
		return leastOfPortable(table)
	}
	return byte(leastAVX2(&table[0]))
}

// tabulateAt is tabulate by the kernel of level l.
func tabulateAt(l simd.Level, d vectord.Distance, table *[productCentroids]float32, piece, columns []float32) {
	if l == simd.Go {
		tabulatePortable(d, table, piece, columns)
		return
	}
	columns = columns[:len(piece)*productCentroids]
	switch d {
	case vectord.Euclid:
		tableSquaresAVX2(&table[0], &piece[0], len(piece), &columns[0])
	case vectord.Manhattan:
		tableDifferencesAVX2(&table[0], &piece[0], len(piece), &columns[0])
	default:
		tableProductsAVX2(&table[0], &piece[0], len(piece), &columns[0])
	}
}
