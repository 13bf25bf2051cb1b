//go:build !amd64

package quant

import (
	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

// compareAt is compare by the kernel of a level, of which this build has only the one in Go.
func (p *Product) compareAt(_ simd.Level, dst, vector []float32, rows []byte, slots []uint32) {
	p.comparePortable(dst, vector, rows, slots)
}

// leastOfAt is leastOf by the kernel of a level, of which this build has only the one in Go.
func leastOfAt(_ simd.Level, table *[productCentroids]float32) byte { return leastOfPortable(table) }

// tabulateAt is tabulate by the kernel of a level, of which this build has only the one in Go.
func tabulateAt(_ simd.Level, d vectord.Distance, table *[productCentroids]float32, piece, columns []float32) {
	tabulatePortable(d, table, piece, columns)
}
