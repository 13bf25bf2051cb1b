package quant

import (
	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

//go:generate go run -C ../asm ./product -pkg quant -out ../quant/product_amd64.s -stubs ../quant/product_stubs_amd64.go

// compare sets dst[i] to the distance from a padded vector to the centroids that the codes of row slots[i] of rows choose.
// Component i is added up in lane i modulo productLanes, and the lanes by halves; products are rounded before they are added.
// So the kernels of all levels give the same bits. dst and slots have the same length, at least 1.
func (p *Product) compare(dst, vector []float32, rows []byte, slots []uint32) {
	p.compareAt(simd.Chosen, dst, vector, rows, slots)
}

// comparePortable is the kernels in Go, the reference for those in assembly.
func (p *Product) comparePortable(dst, vector []float32, rows []byte, slots []uint32) {
	for i, slot := range slots {
		codes := rows[int(slot)*p.rowSize:][:p.rowSize]
		centroids := p.centroids
		var sums [productLanes]float32
		for at := 0; at < len(vector); at += productLanes {
			var y [productLanes]float32
			for lane := 0; lane < productLanes; lane += p.width {
				copy(y[lane:], centroids[int(codes[0])*p.width+at%p.width:][:min(p.width, productLanes)])
				if (at+lane)%p.width+productLanes >= p.width { // the last of the piece
					codes, centroids = codes[1:], centroids[productCentroids*p.width:]
				}
			}
			x := (*[productLanes]float32)(vector[at:])
			switch p.distance {
			case vectord.Euclid:
				for lane := range sums {
					d := x[lane] - y[lane]
					sums[lane] += float32(d * d) // the conversion forbids a fused multiply-add
				}
			case vectord.Manhattan:
				for lane := range sums {
					d := x[lane] - y[lane]
					sums[lane] += max(d, -d)
				}
			default:
				for lane := range sums {
					sums[lane] -= float32(x[lane] * y[lane])
				}
			}
		}
		dst[i] = ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
	}
}

// tabulate sets table to the distances d from a piece to each centroid, which are given as columns. The kernels of all levels
// give the same bits.
func tabulate(d vectord.Distance, table *[productCentroids]float32, piece, columns []float32) {
	tabulateAt(simd.Chosen, d, table, piece, columns)
}

// leastOf returns the place of the least entry, the first of equals. There is no NaN.
func leastOf(table *[productCentroids]float32) byte { return leastOfAt(simd.Chosen, table) }

// leastOfPortable is the kernel in Go.
func leastOfPortable(table *[productCentroids]float32) (place byte) {
	least := table[0]
	for i, x := range table {
		if x < least {
			place, least = byte(i), x
		}
	}
	return place
}

// tabulatePortable is the kernels in Go.
func tabulatePortable(d vectord.Distance, table *[productCentroids]float32, piece, columns []float32) {
	clear(table[:])
	for j, x := range piece {
		column := (*[productCentroids]float32)(columns[j*productCentroids:])
		switch d {
		case vectord.Euclid:
			for c, y := range column {
				y -= x
				table[c] += float32(y * y)
			}
		case vectord.Manhattan:
			for c, y := range column {
				y -= x
				table[c] += max(y, -y)
			}
		default:
			for c, y := range column {
				table[c] -= float32(x * y)
			}
		}
	}
}
