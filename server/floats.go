package server

import (
	"bytes"
	"math"
	"strconv"
	"unsafe"

	"github.com/vectord/vectord"
)

// parseFloats reads one JSON array of numbers. Each is rounded to the nearest float32, to even on a tie, exactly as
// strconv.ParseFloat(s, 32) rounds; a number too large for that is an error. Only the result is allocated.
//
// Vectors are most of the bytes that the server ever parses, which is why they have a parser of their own.
func parseFloats(b []byte) ([]float32, error) {
	i := skipSpace(b, 0)
	if i == len(b) || b[i] != '[' {
		return nil, vectord.Errorf(vectord.KindInvalid, "expected an array of numbers, got %s", excerpt(b))
	}
	n := bytes.Count(b, []byte{','}) + 1
	if n > vectord.MaxDimension {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%d components, at most %d are accepted", n, vectord.MaxDimension)
	}
	out := make([]float32, 0, n)
	if i = skipSpace(b, i+1); i < len(b) && b[i] == ']' {
		return out, checkTail(b, i+1)
	}
	for {
		x, end, ok := parseNumber(b, i)
		if end == i {
			return nil, vectord.Errorf(vectord.KindInvalid, "expected a number at index %d, got %s", len(out), excerpt(element(b[i:])))
		}
		if !ok {
			return nil, vectord.Errorf(vectord.KindInvalid, "value %s at index %d is out of the range of a 32-bit float",
				excerpt(b[i:end]), len(out))
		}
		out = append(out, x)
		i = skipSpace(b, end)
		switch {
		case i < len(b) && b[i] == ',':
			i = skipSpace(b, i+1)
		case i < len(b) && b[i] == ']':
			return out, checkTail(b, i+1)
		default:
			return nil, vectord.Errorf(vectord.KindInvalid, "expected , or ] after index %d, got %s", len(out)-1, excerpt(element(b[i:])))
		}
	}
}

// element returns b up to where its first element ends.
func element(b []byte) []byte {
	if i := bytes.IndexAny(b, ",]"); i > 0 {
		return b[:i]
	}
	return b
}

func checkTail(b []byte, i int) error {
	if i = skipSpace(b, i); i < len(b) {
		return vectord.Errorf(vectord.KindInvalid, "unexpected %s after the array", excerpt(b[i:]))
	}
	return nil
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// The quick way of parseNumber holds for at most maxExactDigits digits, which fit a uint64, and powers of ten up to
// maxExactPower, which float64 represents exactly.
const (
	maxExactDigits = 19
	maxExactPower  = 22
)

var powersOfTen = [maxExactPower + 1]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14,
	1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22}

// parseNumber reads the JSON number that begins at b[i] and returns the index behind it, or i itself if there is none.
// It is not ok if the number overflows a float32.
func parseNumber(b []byte, i int) (x float32, end int, ok bool) {
	start := i
	negative := i < len(b) && b[i] == '-'
	if negative {
		i++
	}
	var mantissa uint64      // of the first maxExactDigits digits; meaningless where there are more
	var digits, exponent int // digits counts from the first that is not zero
	first := i
	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		mantissa = mantissa*10 + uint64(b[i]-'0')
		if digits > 0 || b[i] != '0' {
			digits++
		}
	}
	if i == first || b[first] == '0' && i > first+1 { // no digit, or a leading zero
		return 0, start, false
	}
	if i < len(b) && b[i] == '.' {
		i++
		first = i
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			mantissa = mantissa*10 + uint64(b[i]-'0')
			if digits > 0 || b[i] != '0' {
				digits++
			}
		}
		if i == first {
			return 0, start, false
		}
		exponent = first - i
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		down := i < len(b) && b[i] == '-'
		if i < len(b) && (b[i] == '-' || b[i] == '+') {
			i++
		}
		first = i
		e := 0
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			e = min(e*10+int(b[i]-'0'), 1<<20) // far beyond what any float holds, far from overflowing an int
		}
		if i == first {
			return 0, start, false
		}
		if down {
			e = -e
		}
		exponent += e
	}
	if digits <= maxExactDigits && exponent >= -maxExactPower && exponent <= maxExactPower {
		if x, ok := roundQuickly(mantissa, exponent); ok {
			if negative {
				x = -x
			}
			return x, i, true
		}
	}
	f, err := strconv.ParseFloat(unsafe.String(&b[start], i-start), 32)
	return float32(f), i, err == nil
}

// roundQuickly returns the float32 nearest to mantissa × 10^exponent, or gives up where it cannot be sure.
//
// The float64 computed here suffers two roundings, so it is within three of its own units in the last place of the exact
// value. A float64 has 29 more mantissa bits than a float32, and the value halfway between two float32s has them at
// 1000…0. Unless the 29 bits are that close to halfway, the exact value and the computed one round to the same float32.
// Subnormal float32s have their halfway points elsewhere, but lie far below the smallest value here, 10^-maxExactPower.
func roundQuickly(mantissa uint64, exponent int) (float32, bool) {
	const (
		extraBits = 29
		halfway   = 1 << (extraBits - 1)
		margin    = 4
	)
	if mantissa == 0 {
		return 0, true
	}
	f := float64(mantissa)
	if exponent < 0 {
		f /= powersOfTen[-exponent]
	} else {
		f *= powersOfTen[exponent]
	}
	low := math.Float64bits(f) & (1<<extraBits - 1)
	if low-(halfway-margin) <= 2*margin || f > math.MaxFloat32 {
		return 0, false
	}
	return float32(f), true
}
