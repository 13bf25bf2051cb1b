package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// Float32 keeps vectors as they are, and measures what index.DistanceFunc does. It costs four times the memory of a Scalar
// and the time to read it; in return nothing is lost. It is immutable and safe for concurrent use.
//
// Its distances are int32 that are ordered as the floats are, see orderOf. Floating point sums differ in their last bits
// between the levels of instructions, so unlike that of a Scalar its graph is not the same on every machine.
type Float32 struct {
	distance vectord.Distance
	dim      int
	rowSize  int
}

const float32Bytes = 4

// NewFloat32 returns a Float32 for vectors of length dim compared by d. The vectors of Cosine must be normalised. It returns
// an error of kind KindInvalid if d or dim is not usable.
func NewFloat32(d vectord.Distance, dim int) (*Float32, error) {
	if err := checkShape(d, dim); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "float32 rows: %v", err)
	}
	return &Float32{d, dim, alignRow(float32Bytes * dim)}, nil
}

// Name returns "float32".
func (f *Float32) Name() string { return "float32" }

// Depth returns k: the rows are the vectors.
func (*Float32) Depth(k int) int { return k }

// Dim returns the length of the vectors.
func (f *Float32) Dim() int { return f.dim }

// Distance returns what the vectors are compared by.
func (f *Float32) Distance() vectord.Distance { return f.distance }

// RowSize returns the size of a row in bytes, a multiple of 64.
func (f *Float32) RowSize() int { return f.rowSize }

// EncodeRow writes the components of v, little-endian, and zeros to the end of row[:RowSize()]. It panics unless v has the
// Float32's dimension and row is long enough.
func (f *Float32) EncodeRow(row []byte, v []float32) {
	row = row[:f.rowSize]
	f.check(v)
	for i, x := range v {
		binary.LittleEndian.PutUint32(row[float32Bytes*i:], math.Float32bits(x))
	}
	clear(row[float32Bytes*f.dim:])
}

func (f *Float32) check(v []float32) {
	if len(v) != f.dim {
		panic(fmt.Sprintf("quant: vector of length %d for dimension %d", len(v), f.dim))
	}
}

// EncodeQuery prepares v as a query. It panics unless v has the Float32's dimension.
func (f *Float32) EncodeQuery(q *Query, v []float32) {
	f.check(v)
	q.vector = append(q.vector[:0], v...)
	for len(q.vector) < f.rowSize/float32Bytes {
		q.vector = append(q.vector, 0)
	}
}

// QueryFromRow prepares a stored row as a query, which is the same as to prepare its vector. It panics if row is too short.
func (f *Float32) QueryFromRow(q *Query, row []byte) {
	q.vector = append(q.vector[:0], floats(row[:f.rowSize])...)
}

// floats returns rows as float32, in place: all machines that vectord is built for are little-endian.
func floats(rows []byte) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(rows))), len(rows)/float32Bytes)
}

// Distances sets dst[i] to the distance from the query to row slots[i] of rows, as Codec says. rows must be aligned to 4
// bytes. The zeros at the end of query and rows add nothing to a distance.
func (f *Float32) Distances(dst []int32, q *Query, rows []byte, slots []uint32) {
	dst = dst[:len(slots)]
	index.Distances(f.distance, measured(dst), q.vector, floats(rows), slots)
	toOrder(dst)
}

// Scan sets dst[i] to the distance from the query to row i of rows, as Codec says. rows must be aligned to 4 bytes.
func (f *Float32) Scan(dst []int32, q *Query, rows []byte) {
	dst = dst[:len(rows)/f.rowSize]
	index.Scan(f.distance, measured(dst), q.vector, floats(rows))
	toOrder(dst)
}

// measured returns the place of int32 distances as that of the floats that they stand for.
func measured(dst []int32) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(dst))), len(dst))
}

// toOrder replaces the bits of floats by their order.
func toOrder(dst []int32) {
	for i, bits := range dst {
		dst[i] = orderOf(math.Float32frombits(uint32(bits)))
	}
}

// Float returns the distance that d stands for.
func (f *Float32) Float(_ *Query, d int32) float32 { return floatOf(d) }

// Quantum is the inverse of Float.
func (f *Float32) Quantum(_ *Query, distance float32) int32 { return orderOf(distance) }

// Clipped returns 0: every component is kept.
func (f *Float32) Clipped([]float32) int { return 0 }

// orderOf returns the int32 that has x's place in the order of all floats. The bits of floats without a sign are in order
// already, those with one in reverse, so these are flipped, all but the sign. NaN, which overflowing sums make, comes last,
// and both zeros are one.
func orderOf(x float32) int32 {
	if x != x {
		return math.MaxInt32
	}
	bits := int32(math.Float32bits(x + 0)) // -0 + 0 is 0
	return bits ^ int32(uint32(bits>>31)>>1)
}

// floatOf is the inverse of orderOf.
func floatOf(order int32) float32 {
	return math.Float32frombits(uint32(order ^ int32(uint32(order>>31)>>1)))
}
