package quant

import (
	"encoding/binary"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

//go:generate go run -C ../asm ./quant -pkg quant -out ../quant/kernel_amd64.s -stubs ../quant/kernel_stubs_amd64.go
//go:generate go run -C ../asm ./neon

// compare runs the kernel of the Scalar's distance:
//
//	dot:       dst[i] = add - sum(u*c)
//	euclid:    dst[i] = add + norm - 2*sum(u*c), norm being the int32 in the last four bytes of the row
//	manhattan: dst[i] = sum(|u-c|)
//
// u are the bytes of row slots[i] and c those of the query. The sums run over the whole row, whose end is neutral: the
// query has 0 there, or for manhattan what the row has. All arithmetic is that of int32, which wraps, so the kernels of
// all levels give the same bits. dst and slots have the same length, at least 1.
func (s *Scalar) compare(dst []int32, q *Query, rows []byte, slots []uint32) {
	s.compareAt(simd.Chosen, dst, q, rows, slots)
}

// comparePortable is the kernels in Go, the reference for those in assembly.
func (s *Scalar) comparePortable(dst []int32, q *Query, rows []byte, slots []uint32) {
	for i, slot := range slots {
		row := rows[int(slot)*s.rowSize:][:s.rowSize]
		switch s.distance {
		case vectord.Euclid:
			norm := int32(binary.LittleEndian.Uint32(row[len(row)-normBytes:]))
			dst[i] = q.add + norm - 2*dotPortable(row, q.codes)
		case vectord.Manhattan:
			dst[i] = manhattanPortable(row, q.codes)
		default:
			dst[i] = q.add - dotPortable(row, q.codes)
		}
	}
}

// dotPortable returns the sum of the products of unsigned and signed bytes. The length of both is a multiple of four.
func dotPortable(row, query []byte) int32 {
	var even, odd int32 // two sums, of which neither waits for the other
	for len(row) >= 4 && len(query) >= 4 {
		even += int32(row[0])*int32(int8(query[0])) + int32(row[2])*int32(int8(query[2]))
		odd += int32(row[1])*int32(int8(query[1])) + int32(row[3])*int32(int8(query[3]))
		row, query = row[4:], query[4:]
	}
	return even + odd
}

// manhattanPortable returns the sum of the differences of unsigned bytes.
func manhattanPortable(row, query []byte) int32 {
	query = query[:len(row)]
	var sum int32
	for i, u := range row {
		d := int32(u) - int32(query[i])
		sign := d >> 31 // no branch, which random bytes would mispredict
		sum += (d ^ sign) - sign
	}
	return sum
}
