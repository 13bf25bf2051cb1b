package quant

import (
	"encoding/binary"

	"github.com/vectord/vectord"
)

// A kernel compares the rows at slots with the query and writes one int32 each:
//
//	dot:       dst[i] = add - sum(u*c)
//	euclid:    dst[i] = add + norm - 2*sum(u*c), norm being the int32 in the last four bytes of the row
//	manhattan: dst[i] = sum(|u-c|)
//
// The sums run over the whole row, whose end is neutral: the query has 0 there, or for manhattan what the row has. All
// arithmetic is that of int32, which wraps, so every kernel of a kind gives the same bits. The rows' size is the length of
// the query.

// comparePortable is the kernels in Go, the reference for the others and the only one on most machines.
func (s *Scalar) comparePortable(dst []int32, q *Query, rows []byte, slots []uint32) {
	switch s.distance {
	case vectord.Euclid:
		for i, slot := range slots {
			row := s.row(rows, slot)
			norm := int32(binary.LittleEndian.Uint32(row[len(row)-normBytes:]))
			dst[i] = q.add + norm - 2*dotPortable(row, q.codes)
		}
	case vectord.Manhattan:
		for i, slot := range slots {
			dst[i] = manhattanPortable(s.row(rows, slot), q.codes)
		}
	default:
		for i, slot := range slots {
			dst[i] = q.add - dotPortable(s.row(rows, slot), q.codes)
		}
	}
}

func (s *Scalar) row(rows []byte, slot uint32) []byte {
	return rows[int(slot)*s.rowSize:][:s.rowSize]
}

// dotPortable returns the sum of unsigned times signed bytes.
func dotPortable(row, query []byte) int32 {
	query = query[:len(row)]
	var sum0, sum1 int32
	for len(row) >= 4 && len(query) >= 4 {
		sum0 += int32(row[0])*int32(int8(query[0])) + int32(row[1])*int32(int8(query[1]))
		sum1 += int32(row[2])*int32(int8(query[2])) + int32(row[3])*int32(int8(query[3]))
		row, query = row[4:], query[4:]
	}
	return sum0 + sum1
}

// manhattanPortable returns the sum of the differences of unsigned bytes.
func manhattanPortable(row, query []byte) int32 {
	query = query[:len(row)]
	var sum int32
	for i, u := range row {
		d := int32(u) - int32(query[i])
		sum += max(d, -d)
	}
	return sum
}
