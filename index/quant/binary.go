package quant

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"

	"github.com/vectord/vectord"
)

// Binary keeps one bit of each component, and measures what index.DistanceFunc would by an estimate. It is for long vectors:
// the error falls with the root of the dimension, and below some 500 components the nearest are hardly told from the near.
// What it finds must be compared again at full precision, and many more than are wanted. Manhattan has no such estimate.
//
// It is RaBitQ (Gao and Long, "RaBitQ: Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate
// Nearest Neighbor Search", SIGMOD 2024). A vector less the mean of the sample, the residual r, is turned by a random
// rotation (see rotation); a row has the signs of what comes out, s, and with |r| and r.s what makes the estimate of a dot
// product unbiased: r.q is about s.q * |r|²/(r.s). A query's components are rounded to planeBits bits, so that s.q is a sum
// of integers, a few population counts. Two rows are compared by the angle between their residuals: the share of the bits
// that differ is that of half a circle.
//
// The integers are the same on all machines, and what is computed from them are products and sums of float32, each rounded
// by itself: so is a distance, bit for bit. It is an int32 in the order of the estimate, see orderOf. A Binary is immutable
// and safe for concurrent use.
type Binary struct {
	distance vectord.Distance
	dim      int
	center   []float32
	rotation rotation
	rowSize  int
	square   float32   // of the center, for Cosine and Dot
	cosines  []float32 // of the angle between rows, by the number of bits that differ
}

// A row has, after the bits and as much space as makes it a multiple of 64 bytes, three float32 of the residual at its end.
const (
	binaryNorm   = 12 // the length
	binaryFactor = 8  // what to multiply the sum of the query's components, signed by the bits, with
	binaryShift  = 4  // for Cosine and Dot the product with the center
	binaryFloats = 12
)

// planeBits is the number of bits of a component of a query, in two's complement.
const planeBits = 4

// planeLimit is the largest component of a query.
const planeLimit = 1<<(planeBits-1) - 1

// binaryQuery is what a Query has beside its planes.
//
// The planes, in Query.codes, are the bits of the query's components by their place: first the 64 bytes of the lowest bits
// of the components whose signs are in the first 64 bytes of a row, then those of the next bits of the same, and so on to
// planeBits, then those of the next 64 bytes. Beyond the components they are 0.
type binaryQuery struct {
	isRow bool
	sum   int32   // of the components
	step  float32 // the unit of the components
	norm  float32 // the residual's length
	shift float32 // a row's, or for a query the product of the whole vector with the center
	extra float32 // for a row the square of the center
	spare []float32
}

// newBinary fills in what follows from the distance and the center.
func newBinary(d vectord.Distance, center []float32) *Binary {
	b := &Binary{distance: d, dim: len(center), center: center, rotation: newRotation(len(center))}
	b.rowSize = alignRow(b.rotation.size/8 + binaryFloats)
	if d != vectord.Euclid {
		b.square = toFloat32(b.centerSquare())
	}
	b.cosines = make([]float32, b.rotation.size+1)
	for i := range b.cosines {
		b.cosines[i] = halfCosine(i, b.rotation.size)
	}
	return b
}

// centerSquare returns the product of the center with itself.
func (b *Binary) centerSquare() float64 {
	sum := 0.0
	for _, c := range b.center {
		sum += float64(float64(c) * float64(c))
	}
	return sum
}

// halfCosine returns the cosine of the angle i/n of half a circle. Unlike math.Cos it is the same on all machines.
func halfCosine(i, n int) float32 {
	if 2*i > n {
		return -halfCosine(n-i, n)
	}
	x := math.Pi * float64(i) / float64(n)
	square := float64(x * x)
	sum, term := 1.0, 1.0
	for k := 1.0; k < 24; k += 2 { // 1 - x²/2! + x⁴/4! …; the last term is below 1e-18
		term = float64(term*square) / (k * (k + 1))
		term = -term
		sum += term
	}
	return float32(sum)
}

// TrainBinary returns a Binary for vectors of length dim compared by d, fitted to a sample of at least one. Some ten
// thousand vectors are enough; of more, or of very long ones, it looks at an even choice. The same sample gives the same
// Binary. The vectors of Cosine must be normalised. It returns an error of kind KindInvalid if d, dim or the sample is not
// usable.
func TrainBinary(d vectord.Distance, dim int, sample [][]float32) (*Binary, error) {
	if err := checkBinary(d, dim); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "binary quantizer: %v", err)
	}
	sample, err := checkSample(dim, sample)
	if err != nil {
		return nil, err
	}
	return newBinary(d, mean(sample, dim)), nil
}

// checkBinary returns an error unless there are binary codes for d and dim.
func checkBinary(d vectord.Distance, dim int) error {
	if d == vectord.Manhattan {
		return fmt.Errorf("distance %s has no binary codes", d)
	}
	return checkShape(d, dim)
}

// Name returns "binary".
func (b *Binary) Name() string { return "binary" }

// Depth returns max(10k, 100): bits of 768 components keep the true nearest ten among their nearest hundred.
func (*Binary) Depth(k int) int { return max(10*k, 100) }

// Dim returns the length of the vectors.
func (b *Binary) Dim() int { return b.dim }

// Distance returns what the vectors are compared by.
func (b *Binary) Distance() vectord.Distance { return b.distance }

// RowSize returns the size of a row in bytes, a multiple of 64.
func (b *Binary) RowSize() int { return b.rowSize }

// Clipped returns 0: a component has no range.
func (b *Binary) Clipped([]float32) int { return 0 }

// residual sets q.vector to v less the center, turned, and returns the length of that and its product with the center.
// What is beyond the range of float32 is moved to its edge.
func (b *Binary) residual(q *Query, v []float32) (norm, product float64) {
	if len(v) != b.dim {
		panic(fmt.Sprintf("quant: vector of length %d for dimension %d", len(v), b.dim))
	}
	q.vector = slices.Grow(q.vector[:0], b.rotation.size)[:b.rotation.size]
	q.binary.spare = slices.Grow(q.binary.spare[:0], b.rotation.size)[:b.rotation.size]
	clear(q.vector[b.dim:])
	r, center := q.vector[:len(v)], b.center[:len(v)]
	for i, x := range v {
		d := x - center[i]
		if !(d >= -residualMax && d <= residualMax) {
			d = clamp(d, residualMax)
		}
		r[i] = d
		norm += float64(float64(d) * float64(d))
		product += float64(float64(d) * float64(center[i]))
	}
	q.vector, q.binary.spare = b.rotation.apply(q.vector, q.binary.spare)
	return math.Sqrt(norm), product
}

// residualMax bounds a component of a residual, so that no sum of the rotation overflows. No real data comes near.
const residualMax = 0x1p+100

// clamp moves x to the edge of the range from -most to most, NaN to 0.
func clamp(x, most float32) float32 {
	if x != x {
		return 0
	}
	return min(max(x, -most), most)
}

// toFloat32 rounds x, whose size is bounded by the range of float32.
func toFloat32(x float64) float32 { return float32(min(max(x, -math.MaxFloat32), math.MaxFloat32)) }

// scratch are queries whose vector EncodeRow borrows.
var scratch = sync.Pool{New: func() any { return new(Query) }}

// EncodeRow writes the row of v to row[:RowSize()]. It panics unless v has the Binary's dimension and row is long enough.
func (b *Binary) EncodeRow(row []byte, v []float32) {
	row = row[:b.rowSize]
	clear(row)
	q := scratch.Get().(*Query)
	defer scratch.Put(q)
	norm, product := b.residual(q, v)
	sum := 0.0
	for i := 0; i < len(q.vector); i += 64 {
		var word uint64
		for j, x := range q.vector[i : i+64] {
			signed := math.Float32bits(x) >> 31
			word |= uint64(signed^1) << j
			sum += math.Abs(float64(x))
		}
		binary.LittleEndian.PutUint64(row[i/8:], word)
	}
	factor := 0.0
	if sum > 0 {
		factor = norm / sum * norm
	}
	end := row[b.rowSize-binaryFloats:]
	putFloat(end, toFloat32(norm))
	putFloat(end[binaryNorm-binaryFactor:], toFloat32(factor))
	if b.distance != vectord.Euclid {
		putFloat(end[binaryNorm-binaryShift:], toFloat32(product))
	}
}

func putFloat(dst []byte, x float32) { binary.LittleEndian.PutUint32(dst, math.Float32bits(x)) }

// float returns one of the floats of a row, which is that many bytes before its end.
func (b *Binary) float(row []byte, place int) float32 {
	return math.Float32frombits(binary.LittleEndian.Uint32(row[b.rowSize-place:]))
}

// EncodeQuery prepares v as a query. It panics unless v has the Binary's dimension.
func (b *Binary) EncodeQuery(q *Query, v []float32) {
	norm, product := b.residual(q, v)
	step, inverse := stepOf(maxAbs(q.vector), planeLimit)
	q.binary = binaryQuery{step: step, norm: toFloat32(norm), spare: q.binary.spare}
	if b.distance != vectord.Euclid {
		// q.x = (q-c).(x-c) + c.(x-c) + q.c, the last being (q-c).c + c.c.
		q.binary.shift = toFloat32(product + b.centerSquare())
	}
	q.reserve(planeBits * b.rowSize)
	clear(q.codes)
	sum := int32(0)
	for i := 0; i < len(q.vector); i += 64 {
		var p0, p1, p2, p3 uint64
		for j, x := range q.vector[i : i+64] {
			// Positive until the subtraction, so that dropping the fraction rounds down.
			c := int32(float32(x*inverse)+(planeLimit+1.5)) - (planeLimit + 1)
			sum += c
			b := uint64(c)
			p0 |= b & 1 << j
			p1 |= b >> 1 & 1 << j
			p2 |= b >> 2 & 1 << j
			p3 |= b >> 3 & 1 << j
		}
		q.setPlanes(i, [planeBits]uint64{p0, p1, p2, p3})
	}
	q.binary.sum = sum
}

// setPlanes sets the bits of the 64 components from i on.
func (q *Query) setPlanes(i int, planes [planeBits]uint64) {
	at := i/8/rowAlign*rowAlign*planeBits + i/8%rowAlign
	for _, plane := range planes {
		binary.LittleEndian.PutUint64(q.codes[at:], plane)
		at += rowAlign
	}
}

// QueryFromRow prepares a stored row as a query, whose distances are those of the rows. It panics if row is too short.
func (b *Binary) QueryFromRow(q *Query, row []byte) {
	row = row[:b.rowSize]
	q.binary = binaryQuery{isRow: true, norm: b.float(row, binaryNorm), shift: b.float(row, binaryShift),
		extra: b.square, spare: q.binary.spare}
	q.reserve(planeBits * b.rowSize)
	clear(q.codes)
	for i := 0; i < b.rotation.size; i += 64 {
		positive := binary.LittleEndian.Uint64(row[i/8:])
		q.binary.sum += int32(2*bits.OnesCount64(positive) - 64)
		// A component is 1, or -1, which has all bits set.
		q.setPlanes(i, [planeBits]uint64{math.MaxUint64, ^positive, ^positive, ^positive})
	}
}

// Distances sets dst[i] to the distance from the query to row slots[i] of rows, as Codec says.
func (b *Binary) Distances(dst []int32, q *Query, rows []byte, slots []uint32) {
	dst = dst[:len(slots)]
	for n := b.callRows(); len(slots) > 0; {
		n = min(n, len(slots))
		b.measure(dst[:n], q, rows, slots[:n])
		dst, slots = dst[n:], slots[n:]
	}
}

// Scan sets dst[i] to the distance from the query to row i of rows, as Codec says.
func (b *Binary) Scan(dst []int32, q *Query, rows []byte) {
	dst = dst[:len(rows)/b.rowSize]
	for n := min(b.callRows(), len(ascending)); len(dst) > 0; {
		n = min(n, len(dst))
		b.measure(dst[:n], q, rows, ascending[:n])
		dst, rows = dst[n:], rows[n*b.rowSize:]
	}
}

// callRows returns how many rows one call of a kernel may compare, at least 1.
func (b *Binary) callRows() int { return max(callBytes/b.rowSize, 1) }

// measure makes distances of the kernel's sums. Each product is converted by itself, which forbids fused multiply-adds.
func (b *Binary) measure(dst []int32, q *Query, rows []byte, slots []uint32) {
	b.compare(dst, q, rows, slots)
	norm, shift, extra := q.binary.norm, q.binary.shift, q.binary.extra
	square := float32(norm * norm)
	for i, slot := range slots {
		row := rows[int(slot)*b.rowSize:][:b.rowSize]
		signed := 2*dst[i] - q.binary.sum // the components, each with the sign of its bit
		var product float32               // of the residuals
		if q.binary.isRow {
			differ := (int32(b.rotation.size) - signed) / 2
			product = float32(norm*b.float(row, binaryNorm)) * b.cosines[differ]
		} else {
			product = float32(float32(signed)*q.binary.step) * b.float(row, binaryFactor)
		}
		product = float32(product)
		if b.distance == vectord.Euclid {
			other := b.float(row, binaryNorm)
			dst[i] = orderOf(square + float32(other*other) - 2*product)
		} else {
			dst[i] = orderOf(-(product + (shift + b.float(row, binaryShift) + extra)))
		}
	}
}

// Float returns the estimate that d stands for, in terms of index.DistanceFunc.
func (b *Binary) Float(_ *Query, d int32) float32 { return floatOf(d) }

// Quantum is the inverse of Float.
func (b *Binary) Quantum(_ *Query, f float32) int32 { return orderOf(f) }
