package vectord

import (
	"cmp"
	"math"
	"strconv"
)

// Number is a number of a payload or of a bound, kept so that it can be compared exactly: as an int64 where it is an integer
// of that range, as a float64 otherwise. Equal numbers are == and the zero value is 0.
type Number struct {
	integer int64
	float   float64 // not 0 only where the number is no int64
}

// IntNumber returns the number n.
func IntNumber(n int64) Number { return Number{integer: n} }

// FloatNumber returns the number x, which must be finite.
func FloatNumber(x float64) Number {
	if x >= -(1<<63) && x < 1<<63 && x == math.Trunc(x) {
		return Number{integer: int64(x)}
	}
	return Number{float: x}
}

// ParseNumber reads a number from its JSON text. An integer is kept digit by digit if it is an int64; anything else is the
// nearest float64. It reports false for the text of another JSON value, and for a number beyond the range of a float64.
func ParseNumber(b []byte) (Number, bool) {
	if n, ok := parseInt(b); ok {
		return IntNumber(n), true
	}
	if len(b) == 0 || b[0] != '-' && (b[0] < '0' || b[0] > '9') {
		return Number{}, false
	}
	x, err := strconv.ParseFloat(string(b), 64)
	if err != nil {
		return Number{}, false
	}
	return FloatNumber(x), true
}

// parseInt reads an optional sign and digits, without allocating for those that are something else.
func parseInt(b []byte) (int64, bool) {
	negative := len(b) > 0 && b[0] == '-'
	digits := b
	if negative {
		digits = b[1:]
	}
	if len(digits) == 0 || len(digits) > 19 { // 19 digits cannot overflow the uint64 below
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n <= math.MaxInt64
}

// Int64 returns the number if it is an integer of that range.
func (n Number) Int64() (int64, bool) { return n.integer, n.float == 0 }

// Float64 returns the nearest float64.
func (n Number) Float64() float64 {
	if n.float != 0 {
		return n.float
	}
	return float64(n.integer)
}

// Compare returns -1, 0 or 1 as n is below, equal to or above other. No precision is lost: 2^53 and 2^53+1 differ.
func (n Number) Compare(other Number) int {
	switch {
	case n.float == 0 && other.float == 0:
		return cmp.Compare(n.integer, other.integer)
	case n.float != 0 && other.float != 0:
		return cmp.Compare(n.float, other.float)
	case n.float != 0:
		return -compareIntFloat(other.integer, n.float)
	default:
		return compareIntFloat(n.integer, other.float)
	}
}

// compareIntFloat compares n with x, which is no int64: beyond their range, or with a fraction and so below 2^53, where
// rounding n moves it to no other side of x.
func compareIntFloat(n int64, x float64) int {
	if x >= 1<<63 || float64(n) < x {
		return -1
	}
	return 1
}

// String returns the number in its shortest JSON form.
func (n Number) String() string { return string(n.append(nil)) }

func (n Number) append(dst []byte) []byte {
	if n.float != 0 {
		return strconv.AppendFloat(dst, n.float, 'g', -1, 64)
	}
	return strconv.AppendInt(dst, n.integer, 10)
}

// MarshalJSON implements json.Marshaler.
func (n Number) MarshalJSON() ([]byte, error) {
	if math.IsInf(n.float, 0) || math.IsNaN(n.float) {
		return nil, Errorf(KindInvalid, "number %v is not finite", n.float)
	}
	return n.append(nil), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (n *Number) UnmarshalJSON(b []byte) error {
	parsed, ok := ParseNumber(b)
	if !ok {
		return Errorf(KindInvalid, "expected a number in the range of a 64-bit float, got %s", shorten(b))
	}
	*n = parsed
	return nil
}
