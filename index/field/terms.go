package field

import (
	"encoding/binary"
	"math"
	"strings"

	"github.com/zeebo/xxh3"

	"github.com/vectord/vectord"
)

// A term is a tag and a value whose bytes sort as the values do. No term is the beginning of another, so that a term
// followed by a slot sorts by both. Terms are part of the format of the data directory.
const (
	tagArray   = 'A' // there is an array with null in it
	tagNull    = 'N' // there is null, by itself or in an array
	tagOther   = 'O' // there is a value that is not null and has no term
	tagSeveral = 'S' // there are several values, null counted

	tagBool   = 'b' // 0 or 1
	tagTime   = 'd' // vectord.Datetime with its sign bit flipped, big-endian
	tagPlace  = 'g' // Cell, u64 big-endian
	tagNumber = 'n' // see number
	tagString = 's' // bytes, 00 as 00 ff, and the end 00 01; of long strings the beginning, 00 02 and a hash
	tagToken  = 't' // as a string
	tagUUID   = 'u' // 16 bytes
)

// The terms that say something about a field as a whole.
const (
	Array   = string(tagArray)
	Null    = string(tagNull)
	Other   = string(tagOther)
	Several = string(tagSeveral)
)

// IsValue reports whether a slot that has the term has a value that is not null.
func IsValue(term string) bool { return term[0] == tagOther || term[0] >= 'a' }

// Bool returns the term of a bool.
func Bool(b bool) string {
	if b {
		return string([]byte{tagBool, 1})
	}
	return string([]byte{tagBool, 0})
}

// BoolOf returns the bool of a term; ok is false if it is no bool's.
func BoolOf(term string) (b, ok bool) {
	return term == Bool(true), term == Bool(true) || term == Bool(false)
}

// The ranges of terms of one kind.
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

// The last byte of a number's term. The third is of bounds, after both.
const (
	numberDecimal = iota
	numberInteger
	numberAfter
)

// number makes the term of a number: its float64 ordered, what an int64 has beyond that, and the last byte.
func number(n vectord.Number, last byte) string {
	x := n.Float64()
	rest := int64(0) // at most 512 in size: neighbors below 2^63 are 1,024 apart
	if i, ok := n.Int64(); ok && x == 1<<63 {
		rest = i - math.MaxInt64 - 1
	} else if ok {
		rest = i - int64(x)
	}
	var b [numberSize]byte
	b[0] = tagNumber
	binary.BigEndian.PutUint64(b[1:], orderedFloat(x))
	binary.BigEndian.PutUint16(b[9:], uint16(rest+1<<15))
	b[11] = last
	return string(b[:])
}

// Number returns the term of a number. Terms are in the order of numbers; of equal ones those that are written as integers
// differ from the others, 1 from 1.0.
func Number(n vectord.Number, integer bool) string {
	if integer {
		return number(n, numberInteger)
	}
	return number(n, numberDecimal)
}

// NumbersIn returns the terms of the numbers within the bounds.
func NumbersIn(b *vectord.Range) Range {
	r := Numbers
	for _, bound := range []struct {
		n    *vectord.Number
		last byte
	}{{b.GT, numberAfter}, {b.GTE, numberDecimal}} {
		if bound.n != nil {
			r.From = max(r.From, number(*bound.n, bound.last))
		}
	}
	for _, bound := range []struct {
		n    *vectord.Number
		last byte
	}{{b.LT, numberDecimal}, {b.LTE, numberAfter}} {
		if bound.n != nil {
			r.To = min(r.To, number(*bound.n, bound.last))
		}
	}
	return r
}

// NumberOf returns the number of a term and whether it is written as an integer; ok is false if it is no number's.
func NumberOf(term string) (n vectord.Number, integer, ok bool) {
	if len(term) != numberSize || term[0] != tagNumber {
		return n, false, false
	}
	b := []byte(term)
	x := floatOf(binary.BigEndian.Uint64(b[1:]))
	rest := int64(binary.BigEndian.Uint16(b[9:])) - 1<<15
	integer = b[11] == numberInteger
	switch {
	case rest == 0:
		n = vectord.FloatNumber(x)
	case x == 1<<63:
		n = vectord.IntNumber(rest + math.MaxInt64 + 1)
	default:
		n = vectord.IntNumber(int64(x) + rest)
	}
	return n, integer, true
}

// Time returns the term of a moment.
func Time(d vectord.Datetime) string {
	return string(binary.BigEndian.AppendUint64([]byte{tagTime}, uint64(d)^1<<63))
}

// TimesIn returns the terms of the moments within the bounds.
func TimesIn(b *vectord.DatetimeRange) Range {
	r := Times
	if b.GT != nil {
		r.From = max(r.From, after(Time(*b.GT)))
	}
	if b.GTE != nil {
		r.From = max(r.From, Time(*b.GTE))
	}
	if b.LT != nil {
		r.To = min(r.To, Time(*b.LT))
	}
	if b.LTE != nil {
		r.To = min(r.To, after(Time(*b.LTE)))
	}
	return r
}

// TimeOf returns the moment of a term; ok is false if it is no moment's.
func TimeOf(term string) (d vectord.Datetime, ok bool) {
	if len(term) != 9 || term[0] != tagTime {
		return 0, false
	}
	return vectord.Datetime(binary.BigEndian.Uint64([]byte(term[1:])) ^ 1<<63), true
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
