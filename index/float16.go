package index

import (
	"math"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

// Float16 is a number of 16 bits: a sign, 5 bits of exponent, 11 significant ones of which 10 are stored (binary16 of IEEE
// 754). Rows of them take half the memory of float32 and keep three decimal digits of every component.
type Float16 uint16

// float16Max is the bits of the largest finite Float16, 65,504.
const float16Max = 0x7bff

// The exponents of both formats count from a bias, and the fractions differ in length.
const (
	float32Inf       = 0xff << 23
	float32Fraction  = 23
	float16Fraction  = 10
	fractionShift    = float32Fraction - float16Fraction
	rebias           = 127 - 15
	float16NormalMin = (rebias + 1) << float32Fraction // bits of 2^-14 as a float32
)

// ToFloat16 returns the Float16 nearest to x, of two equally near the one whose last bit is 0. A number beyond the largest
// Float16 becomes that, lest a distance be infinite for one component; an infinite one and NaN stay what they are.
func ToFloat16(x float32) Float16 {
	b := math.Float32bits(x)
	sign := Float16(b >> 16 & 0x8000)
	b &^= 1 << 31
	switch {
	case b > float32Inf:
		return sign | 0x7e00
	case b == float32Inf:
		return sign | 0x7c00
	case math.Float32frombits(b) > 65504:
		return sign | float16Max
	case b >= float16NormalMin:
		b -= rebias << float32Fraction
		b += 1<<(fractionShift-1) - 1 + b>>fractionShift&1 // what is dropped carries if it is over a half, or a half and odd
		return sign | Float16(b>>fractionShift)
	}
	// Float16 has steps of 2^-24 here, and so has float32 from 0.5 to 1: adding 0.5 rounds to them.
	return sign | Float16(math.Float32bits(math.Float32frombits(b)+0.5)-math.Float32bits(0.5))
}

// Float32 returns the same number.
func (h Float16) Float32() float32 {
	sign := uint32(h&0x8000) << 16
	b := uint32(h&0x7fff) << fractionShift
	if h&0x7c00 == 0x7c00 {
		return math.Float32frombits(sign | float32Inf | b)
	}
	return math.Float32frombits(sign | math.Float32bits(math.Float32frombits(b)*(1<<rebias))) // exact
}

// AppendFloat16 appends the components of v, each by ToFloat16, to dst.
func AppendFloat16(dst []Float16, v []float32) []Float16 {
	for _, x := range v {
		dst = append(dst, ToFloat16(x))
	}
	return dst
}

// DistancesFloat16 is Distances from a query of float32 to rows of Float16: it sets dst[i] to what the distance
// DistanceFunc(d) from q to the float32 of row slots[i] is, but for rounding. It panics as Distances does.
func DistancesFloat16(d vectord.Distance, dst, q []float32, rows []Float16, slots []uint32) {
	distancesFloat16At(simd.Chosen, d, dst, q, rows, slots)
}

func distancesFloat16At(l simd.Level, d vectord.Distance, dst, q []float32, rows []Float16, slots []uint32) {
	checkQuery(d, q)
	dst = dst[:len(slots)]
	checkSlots(slots, len(rows)/len(q))
	for n := kernelRows(len(q)); len(slots) > 0; {
		n = min(n, len(slots))
		compareFloat16At(l, d, dst[:n], q, rows, slots[:n])
		dst, slots = dst[n:], slots[n:]
	}
}

// compareFloat16Portable is the kernels for Float16 in Go. Their distances are those of the portable functions for the
// same numbers in float32.
func compareFloat16Portable(d vectord.Distance, dst, q []float32, rows []Float16, slots []uint32) {
	var wide [portableBlock]float32
	for i, slot := range slots {
		row := rows[int(slot)*len(q):][:len(q)]
		var sum float32
		for at := 0; at < len(q); at += portableBlock {
			piece := row[at:min(at+portableBlock, len(row))]
			for j, h := range piece {
				wide[j] = h.Float32()
			}
			a, b := q[at:at+len(piece)], wide[:len(piece)]
			switch d {
			case vectord.Euclid:
				sum += squaredL2Block(a, b)
			case vectord.Manhattan:
				sum += l1Block(a, b)
			default:
				sum -= dotBlock(a, b)
			}
		}
		dst[i] = sum
	}
}
