package field

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/zeebo/xxh3"
)

// A term is a tag and a value whose bytes sort as the values do. No term is the beginning of another, so that a term
// followed by a slot sorts by both. Terms are part of the format of the data directory.
const (
	tagNull    = 'N' // the field holds null
	tagOther   = 'O' // the field holds a value, but none that has a term
	tagSeveral = 'S' // the field holds more than one value

	tagBool   = 'b' // 0 or 1
	tagTime   = 'd' // microseconds since the Unix epoch, i64 with its sign bit flipped, big-endian
	tagPlace  = 'g' // Cell, u64 big-endian
	tagNumber = 'n' // see number
	tagString = 's' // bytes, 00 as 00 ff, and the end 00 01; of long strings the beginning, 00 02 and a hash
	tagToken  = 't' // as a string
	tagUUID   = 'u' // 16 bytes
)

// The terms that say something about a field as a whole.
const (
	Null    = string(tagNull)
	Other   = string(tagOther)
	Several = string(tagSeveral)
)

// IsValue reports whether a slot that has the term has a value that is not null.
func IsValue(term string) bool { return term[0] != tagNull && term[0] != tagSeveral }

// Bool returns the term of a bool.
func Bool(b bool) string {
	if b {
		return string([]byte{tagBool, 1})
	}
	return string([]byte{tagBool, 0})
}

// Bools are the ranges of terms of one kind, as are those that follow.
var (
	Bools   = Range{string(rune(tagBool)), string(rune(tagBool + 1))}
	Times   = Range{string(rune(tagTime)), string(rune(tagTime + 1))}
	Places  = Range{string(rune(tagPlace)), string(rune(tagPlace + 1))}
	Numbers = Range{string(rune(tagNumber)), string(rune(tagNumber + 1))}
	Strings = Range{string(rune(tagString)), string(rune(tagString + 1))}
	Tokens  = Range{string(rune(tagToken)), string(rune(tagToken + 1))}
	UUIDs   = Range{string(rune(tagUUID)), string(rune(tagUUID + 1))}
)

const numberSize = 1 + 8 + 2 + 1

// number makes the term of the number x + rest: x ordered, the rest that an int64 has beyond its float64, and whether the
// number is an integer, which 1.0 is not.
func number(x float64, rest int64, integer byte) string {
	var b [numberSize]byte
	b[0] = tagNumber
	binary.BigEndian.PutUint64(b[1:], orderedFloat(x))
	binary.BigEndian.PutUint16(b[9:], uint16(rest+1<<15))
	b[11] = integer
	return string(b[:])
}

// orderedFloat maps numbers to integers in the same order. The two zeros are the same.
func orderedFloat(x float64) uint64 {
	b := math.Float64bits(x + 0)
	return b ^ (uint64(int64(b)>>63) | 1<<63)
}

func floatOf(ordered uint64) float64 {
	if ordered>>63 != 0 {
		return math.Float64frombits(ordered ^ 1<<63)
	}
	return math.Float64frombits(^ordered)
}

// Float returns the term of a number that is not an int64. It must not be NaN.
func Float(x float64) string { return number(x, 0, 0) }

// Int returns the term of an integer. All int64 differ and are in order, among themselves and with floats.
func Int(n int64) string {
	x := float64(n)
	rest := int64(0) // at most 512 in size: neighbors below 2^63 are 1,024 apart
	if x == 1<<63 {
		rest = n - math.MaxInt64 - 1
	} else {
		rest = n - int64(x)
	}
	return number(x, rest, 1)
}

// NumberRange returns the terms of numbers whose float64 is within the bounds: from low, or after it, to high, or before it.
func NumberRange(low float64, afterLow bool, high float64, beforeHigh bool) Range {
	at := func(x float64, after bool) string {
		n := orderedFloat(x)
		if after {
			n++ // of NaNs there are no terms, so this is the next number or none
		}
		return string(binary.BigEndian.AppendUint64([]byte{tagNumber}, n))
	}
	return Range{at(low, afterLow), at(high, !beforeHigh)}
}

// Number returns the number of a term: as an integer if it is one, else as a float; ok is false if it is no number's.
func Number(term string) (n int64, x float64, integer, ok bool) {
	if len(term) != numberSize || term[0] != tagNumber {
		return 0, 0, false, false
	}
	b := []byte(term)
	x = floatOf(binary.BigEndian.Uint64(b[1:]))
	rest := int64(binary.BigEndian.Uint16(b[9:])) - 1<<15
	switch {
	case b[11] != 1:
		return 0, x, false, true
	case x == 1<<63:
		return rest + math.MaxInt64 + 1, x, true, true
	}
	return int64(x) + rest, x, true, true
}

// Time returns the term of a moment, in microseconds since the Unix epoch.
func Time(micros int64) string {
	return string(binary.BigEndian.AppendUint64([]byte{tagTime}, uint64(micros)^1<<63))
}

// TimeRange returns the terms of the moments from low to high, both included.
func TimeRange(low, high int64) Range {
	return Range{Time(low), after(Time(high))}
}

// Micros returns the moment of a term; ok is false if it is no moment's.
func Micros(term string) (micros int64, ok bool) {
	if len(term) != 9 || term[0] != tagTime {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64([]byte(term[1:])) ^ 1<<63), true
}

// after returns the first string after s that s does not begin.
func after(s string) string {
	b := []byte(s)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b[:i+1])
		}
	}
	return ""
}

// StringBytesMax is how much of a string its term holds. What is longer is told apart by its hash.
const StringBytesMax = 200

const (
	endOfString = "\x00\x01"
	endOfLong   = "\x00\x02"
)

func stringTerm(tag byte, s string) string {
	long := len(s) > StringBytesMax
	var b strings.Builder
	b.Grow(min(len(s), StringBytesMax) + 20)
	b.WriteByte(tag)
	head := s[:min(len(s), StringBytesMax)]
	for {
		i := strings.IndexByte(head, 0)
		if i < 0 {
			break
		}
		b.WriteString(head[:i])
		b.WriteString("\x00\xff")
		head = head[i+1:]
	}
	b.WriteString(head)
	if !long {
		b.WriteString(endOfString)
		return b.String()
	}
	b.WriteString(endOfLong)
	hash := xxh3.HashString128(s).Bytes()
	b.Write(hash[:])
	return b.String()
}

// String returns the term of a string. Of strings longer than StringBytesMax two may have the same term, if their hashes
// are the same.
func String(s string) string { return stringTerm(tagString, s) }

// Token returns the term of a word of a text.
func Token(s string) string { return stringTerm(tagToken, s) }

// StringPrefix returns the terms of the strings that begin with s, all of them if s is not longer than StringBytesMax;
// else others as well.
func StringPrefix(s string) Range {
	whole := stringTerm(tagString, s[:min(len(s), StringBytesMax)])
	prefix := whole[:len(whole)-len(endOfString)]
	return Range{prefix, after(prefix)}
}

// Text returns the string of the term of a string, a word or a UUID; ok is false if the term does not hold all of it.
func Text(term string) (s string, ok bool) {
	if term == "" {
		return "", false
	}
	switch term[0] {
	case tagUUID:
		return textOfUUID(term[1:])
	case tagString, tagToken:
		body, ok := strings.CutSuffix(term[1:], endOfString)
		if !ok {
			return "", false
		}
		return strings.ReplaceAll(body, "\x00\xff", "\x00"), true
	}
	return "", false
}

// UUID returns the term of a UUID in its usual form, lower case with hyphens; ok is false for every other string.
func UUID(s string) (term string, ok bool) {
	if len(s) != 36 {
		return "", false
	}
	var b [17]byte
	b[0] = tagUUID
	n := 0 // hexadecimal digits
	for i := range len(s) {
		c := s[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return "", false
			}
			continue
		}
		var digit byte
		switch {
		case c >= '0' && c <= '9':
			digit = c - '0'
		case c >= 'a' && c <= 'f':
			digit = c - 'a' + 10
		default:
			return "", false
		}
		b[1+n/2] = b[1+n/2]<<4 | digit
		n++
	}
	return string(b[:]), true
}

func textOfUUID(b string) (string, bool) {
	if len(b) != 16 {
		return "", false
	}
	const digits = "0123456789abcdef"
	text := make([]byte, 0, 36)
	for i := range 16 {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			text = append(text, '-')
		}
		text = append(text, digits[b[i]>>4], digits[b[i]&15])
	}
	return string(text), true
}
