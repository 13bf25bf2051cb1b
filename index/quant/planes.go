package quant

import (
	"encoding/binary"
	"math/bits"

	"github.com/vectord/vectord/index/simd"
)

//go:generate go run -C ../asm ./planes -pkg quant -out ../quant/planes_amd64.s -stubs ../quant/planes_stubs_amd64.go

// compare sets dst[i] to the sum of the query's components whose bits are set in row slots[i] of rows. Components are in
// two's complement of planeBits bits, so a bit of the highest plane counts negative:
//
//	dst[i] = n₀ + 2 n₁ + 4 n₂ - 8 n₃, nₖ being the number of bits set both in the row and in plane k
//
// The planes are 0 where a row has its floats. The kernels of all levels give the same bits. dst and slots have the same
// length, at least 1.
func (b *Binary) compare(dst []int32, q *Query, rows []byte, slots []uint32) {
	b.compareAt(simd.Chosen, dst, q, rows, slots)
}

// comparePortable is the kernel in Go, the reference for those in assembly.
func (b *Binary) comparePortable(dst []int32, q *Query, rows []byte, slots []uint32) {
	for i, slot := range slots {
		row := rows[int(slot)*b.rowSize:][:b.rowSize]
		var sum [planeBits]int
		for planes := q.codes; len(row) >= rowAlign && len(planes) >= planeBits*rowAlign; {
			for at := 0; at < rowAlign; at += 8 {
				word := binary.LittleEndian.Uint64(row[at:])
				for k := range sum {
					sum[k] += bits.OnesCount64(word & binary.LittleEndian.Uint64(planes[k*rowAlign+at:]))
				}
			}
			row, planes = row[rowAlign:], planes[planeBits*rowAlign:]
		}
		dst[i] = int32(sum[0] + 2*sum[1] + 4*sum[2] - 8*sum[3])
	}
}
