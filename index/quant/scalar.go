// Package quant keeps vectors as rows of codes and measures distances between them.
//
// A Scalar maps every component to one byte by one scale, so the distance of two rows is an integer that a few
// instructions compute and that is bit for bit the same on every machine. It ranks well enough for the walk through a graph;
// the best that it finds are compared again at full precision. A Binary keeps one bit of each component and estimates, for
// long vectors where memory is short. A Product keeps a byte for some components together. A Float32 keeps the vectors as
// they are.
package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/vectord/vectord"
)

// Bounds of the codes. A code is a component divided by the scale, rounded, and stored as an unsigned byte 128 larger:
// VPDPBUSD multiplies unsigned by signed bytes, and this way round the error that the bias makes is a constant of the query.
//
// Sums of 32 bits hold every distance, though not every partial sum: those may wrap, which is harmless. The largest dot
// product is 127*127*65,536 < 2^31. The largest squared L2 distance is 254*254*dim, below 2^31 up to euclidFullDim
// components; beyond, Euclid does with half the range.
const (
	codeBias      = 128
	codeLimit     = 127
	codeLimitHalf = 63
	euclidFullDim = (1<<31 - 1) / ((2 * codeLimit) * (2 * codeLimit)) // 33,286
)

// rowAlign is what the size of a row is a multiple of: a cache line and the widest register. If the arena is aligned to it
// too, no row shares a line with another.
const rowAlign = 64

// normBytes is the size of the squared length of a row's codes, an int32 at the end of the rows of Euclid.
const normBytes = 4

// Scalar quantizes vectors of one dimension by one scale. It is immutable and safe for concurrent use.
type Scalar struct {
	distance vectord.Distance
	dim      int
	limit    int
	rowSize  int
	scale    float32   // a step of the code. Invariant: a normal number, positive, with a normal inverse
	inverse  float32   // 1/scale
	quantile float32   // the share of components that training was allowed to cover
	center   []float32 // subtracted from every vector first; nil where that would change the distance
}

// Query is a vector prepared for a codec's Distances. The zero value is ready for EncodeQuery, and a Query may be encoded
// again and again; it allocates only when it grows. It belongs to the codec that encoded it, and may be read by several
// goroutines while none encodes it.
type Query struct {
	// A Scalar's: RowSize bytes, aligned: int8 codes, 0 beyond the dimension; for Manhattan a row. A Binary's: see planes.
	codes []byte
	add   int32   // a Scalar's: what the kernel adds to the sum it computes, to make it a distance
	unit  float64 // a Scalar's: the distance of 1, in terms of index.DistanceFunc

	vector []float32   // a Float32's: the vector; a Binary's: where it is rotated; a Product's: padded
	binary binaryQuery // a Binary's
	tables []float32   // a Product's: productCentroids distances for each piece; empty if vector is compared with centroids
}

// newScalar fills in what follows from the distance, the dimension, the scale and the center.
func newScalar(d vectord.Distance, dim int, scale float32, center []float32) *Scalar {
	s := &Scalar{distance: d, dim: dim, limit: codeRange(d, dim), scale: scale, inverse: 1 / scale, quantile: 1,
		center: center}
	size := dim
	if d == vectord.Euclid {
		size += normBytes
	}
	s.rowSize = alignRow(size)
	return s
}

// alignRow returns the size of a row that holds size bytes.
func alignRow(size int) int { return (size + rowAlign - 1) / rowAlign * rowAlign }

// codeRange returns the largest code for vectors of length dim compared by d.
func codeRange(d vectord.Distance, dim int) int {
	if d == vectord.Euclid && dim > euclidFullDim {
		return codeLimitHalf
	}
	return codeLimit
}

// centered reports whether vectors compared by d may be moved together.
func centered(d vectord.Distance) bool { return d == vectord.Euclid || d == vectord.Manhattan }

// Name returns "int8".
func (s *Scalar) Name() string { return "int8" }

// Depth returns max(2k, 30): int8 codes keep the true nearest ten among their nearest thirty, though not in order.
func (*Scalar) Depth(k int) int { return max(2*k, 30) }

// Dim returns the length of the vectors.
func (s *Scalar) Dim() int { return s.dim }

// Distance returns what the vectors are compared by.
func (s *Scalar) Distance() vectord.Distance { return s.distance }

// RowSize returns the size of a row in bytes, a multiple of 64.
func (s *Scalar) RowSize() int { return s.rowSize }

// Quantile returns the share of the components that the codes were allowed to cover, see TrainWithin.
func (s *Scalar) Quantile() float32 { return s.quantile }

// Clipped returns how many components of v lie outside the trained range by more than half a step, which is what rounding
// costs the others. It panics unless v has the Scalar's dimension.
func (s *Scalar) Clipped(v []float32) int {
	if len(v) != s.dim {
		panic(fmt.Sprintf("quant: vector of length %d for dimension %d", len(v), s.dim))
	}
	limit := (float32(s.limit) + 0.5) * s.scale
	clipped := 0
	for i, x := range v {
		if s.center != nil {
			x -= s.center[i]
		}
		if x > limit || x < -limit {
			clipped++
		}
	}
	return clipped
}

// EncodeRow writes the row of v to row[:RowSize()]. A component outside the trained range is moved to its edge, NaN to 0.
// It panics unless v has the Scalar's dimension and row is long enough.
func (s *Scalar) EncodeRow(row []byte, v []float32) {
	row = row[:s.rowSize]
	s.encode(row, v, s.inverse)
	if s.distance == vectord.Euclid {
		binary.LittleEndian.PutUint32(row[s.rowSize-normBytes:], uint32(squaredLength(row[:s.dim])))
	}
}

// squaredLength returns the sum of the squares of biased codes.
func squaredLength(codes []byte) int32 {
	var sum int32
	for _, u := range codes {
		c := int32(u) - codeBias
		sum += c * c
	}
	return sum
}

// unbias turns biased codes into signed bytes and returns their sum. Eight codes are added up at a time, in four lanes of 16
// bits each, which hold the sums of 64 words. The length is a multiple of 8.
func unbias(codes []byte) int32 {
	const (
		evenBytes = 0x00ff00ff00ff00ff
		biases    = codeBias * 0x0101010101010101
		laneWords = 64
	)
	sum := -codeBias * int32(len(codes))
	for len(codes) > 0 {
		var lanes uint64
		part := codes[:min(len(codes), 8*laneWords)]
		codes = codes[len(part):]
		for ; len(part) >= 8; part = part[8:] {
			w := binary.LittleEndian.Uint64(part)
			lanes += w&evenBytes + w>>8&evenBytes
			binary.LittleEndian.PutUint64(part, w^biases)
		}
		sum += int32(lanes&0xffff + lanes>>16&0xffff + lanes>>32&0xffff + lanes>>48)
	}
	return sum
}

// encode writes the biased codes of v, and of zeros to the end of the row.
func (s *Scalar) encode(row []byte, v []float32, inverse float32) {
	if len(v) != s.dim {
		panic(fmt.Sprintf("quant: vector of length %d for dimension %d", len(v), s.dim))
	}
	for i, x := range v {
		if s.center != nil {
			x -= s.center[i]
		}
		row[i] = s.code(float32(x * inverse)) // the conversion forbids a fused multiply-add: rows are equal everywhere
	}
	for i := s.dim; i < len(row); i++ {
		row[i] = codeBias
	}
}

// code rounds x, a component in units of the scale, to the nearest code, a tie upwards. The branches are rarely taken,
// whatever the signs of the components.
func (s *Scalar) code(x float32) byte {
	limit := float32(s.limit)
	if x > limit {
		x = limit
	}
	if x < -limit {
		x = -limit
	}
	if x != x {
		x = 0
	}
	return byte(int32(x + (codeBias + 0.5))) // positive, so that dropping the fraction rounds down
}

// EncodeQuery prepares v as a query. For Cosine and Dot, which rank alike at any length of the query, v gets a scale of its
// own. For Euclid and Manhattan a component outside the trained range is moved to its edge. It panics unless v has the
// Scalar's dimension.
func (s *Scalar) EncodeQuery(q *Query, v []float32) {
	q.reserve(s.rowSize)
	scale, inverse := s.scale, s.inverse
	if !centered(s.distance) {
		scale, inverse = stepOf(maxAbs(v), s.limit)
	}
	s.encode(q.codes, v, inverse)
	var norm int32
	if s.distance == vectord.Euclid {
		norm = squaredLength(q.codes)
	}
	s.finish(q, scale, norm)
}

// QueryFromRow prepares a stored row as a query. The distances are the same as if rows were compared with each other:
// those from a to b and from b to a are equal. It panics if row is too short.
func (s *Scalar) QueryFromRow(q *Query, row []byte) {
	row = row[:s.rowSize]
	q.reserve(s.rowSize)
	copy(q.codes, row)
	var norm int32
	if s.distance == vectord.Euclid {
		end := s.rowSize - normBytes
		norm = int32(binary.LittleEndian.Uint32(row[end:]))
		binary.LittleEndian.PutUint32(q.codes[end:], codeBias*0x01010101)
	}
	s.finish(q, s.scale, norm)
}

// reserve makes room for size bytes of codes, aligned as rows are.
func (q *Query) reserve(size int) {
	if cap(q.codes) >= size {
		q.codes = q.codes[:size]
		return
	}
	b := make([]byte, size+rowAlign-1)
	skip := -uintptr(unsafe.Pointer(&b[0])) % rowAlign
	q.codes = b[skip : int(skip)+size : int(skip)+size]
}

// finish turns a row in q.codes, without a norm, with its scale and the squared length of its codes into what the kernels
// need.
//
// With rows u = x + 128 and the query's codes c, x.c is sum(u*c) - 128*sum(c), hence the distances:
// Cosine and Dot: -x.c = 128*sum(c) - sum(u*c);
// Euclid: |x-c|^2 = |x|^2 + (|c|^2 + 256*sum(c)) - 2*sum(u*c).
func (s *Scalar) finish(q *Query, scale float32, norm int32) {
	if s.distance == vectord.Manhattan {
		q.add, q.unit = 0, float64(scale)
		return
	}
	sum := unbias(q.codes)
	q.add = codeBias * sum
	if s.distance == vectord.Euclid {
		q.add = norm + 2*codeBias*sum
	}
	q.unit = float64(scale) * float64(s.scale)
}

// Distances sets dst[i] to the distance from the query to row slots[i] of rows, in which row r begins at r*RowSize().
// Smaller is nearer. It panics if dst is shorter than slots.
//
// That q was encoded by this Scalar and that every slot lies within rows is the caller's duty: the kernels do not check,
// and read whatever memory they are sent to. A call does best with some ten to a hundred slots, as a hop through a graph
// has them; the rows of the slots to come are prefetched while earlier ones are compared. Rows may be written to by other
// goroutines only in slots that are not asked for.
func (s *Scalar) Distances(dst []int32, q *Query, rows []byte, slots []uint32) {
	dst = dst[:len(slots)]
	for n := s.callRows(); len(slots) > 0; {
		n = min(n, len(slots))
		s.compare(dst[:n], q, rows, slots[:n])
		dst, slots = dst[n:], slots[n:]
	}
}

// Scan sets dst[i] to the distance from the query to row i of rows, for every row in rows. It panics if dst is shorter than
// that. That q was encoded by this Scalar is the caller's duty.
func (s *Scalar) Scan(dst []int32, q *Query, rows []byte) {
	dst = dst[:len(rows)/s.rowSize]
	for n := min(s.callRows(), len(ascending)); len(dst) > 0; {
		n = min(n, len(dst))
		s.compare(dst[:n], q, rows, ascending[:n])
		dst, rows = dst[n:], rows[n*s.rowSize:]
	}
}

// callBytes bounds what one call of a kernel reads, and so its time to some ten microseconds. Go cannot stop a goroutine
// within assembly: a longer call would hold up a garbage collection, and with it everybody.
const callBytes = 128 << 10

// callRows returns how many rows one call of a kernel may compare, at least 1.
func (s *Scalar) callRows() int { return max(callBytes/s.rowSize, 1) }

// ascending is the list of slots of contiguous rows.
var ascending = func() (slots [256]uint32) {
	for i := range slots {
		slots[i] = uint32(i)
	}
	return slots
}()

// Float returns the distance d of Distances, approximately, in terms of index.DistanceFunc.
func (s *Scalar) Float(q *Query, d int32) float32 { return float32(float64(d) * q.unit) }

// Operands returns what the kernels of Cosine, Dot and Euclid compare rows with: the query's codes, of the size of a row and not
// to be changed, and what it adds to every distance (see Scalar.Distances).
func (q *Query) Operands() (codes []byte, add int32) { return q.codes, q.add }

// Quantum is the inverse of Float.
func (s *Scalar) Quantum(q *Query, f float32) int32 {
	d := float64(f) / q.unit
	return int32(min(max(d, math.MinInt32), math.MaxInt32))
}

// stepOf returns the scale at which peak becomes the largest code, and its inverse. Where peak is too small or too large
// for both to be normal numbers they are those of the nearest peak that is not; no real data comes near.
func stepOf(peak float32, limit int) (scale, inverse float32) {
	scale = min(max(peak/float32(limit), scaleMin), scaleMax)
	return scale, 1 / scale
}

// The range of a scale.
const (
	scaleMin = 0x1p-100
	scaleMax = 0x1p+122
)

func maxAbs(v []float32) float32 {
	var peak float32
	for _, x := range v {
		if x < 0 {
			x = -x
		}
		if x > peak { // false for NaN
			peak = x
		}
	}
	return min(peak, math.MaxFloat32)
}
