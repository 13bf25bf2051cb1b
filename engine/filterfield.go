package engine

import (
	"bytes"
	"strings"
	"sync"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
)

// field makes a test of a payload path's values that holds where one of the condition's clauses does.
func (c *compiler) field(f *vectord.FieldCondition, scope string) (test, error) {
	var clauses []func(at path, v *fastjson.Value) bool
	ofElements := func(holds func(*fastjson.Value) bool) {
		clauses = append(clauses, func(at path, v *fastjson.Value) bool { return anyElement(at, v, holds) })
	}
	ofPlaces := func(contains func(vectord.GeoPoint) bool) {
		ofElements(func(e *fastjson.Value) bool {
			place, ok := placeOf(e)
			return ok && contains(place)
		})
	}
	if f.Match != nil {
		ofElements(c.match(f.Match, scope+f.Key))
	}
	if r := f.Range; r != nil {
		ofElements(func(e *fastjson.Value) bool {
			x, ok := numberOf(e)
			return ok && r.Contains(x)
		})
	}
	if r := f.Datetime; r != nil {
		ofElements(func(e *fastjson.Value) bool {
			moment, ok := vectord.ParseDatetime(e.GetStringBytes())
			return ok && r.Contains(moment)
		})
	}
	if f.GeoBox != nil {
		ofPlaces(inBox(*f.GeoBox))
	}
	if f.GeoRadius != nil {
		ofPlaces(inRadius(*f.GeoRadius))
	}
	if f.GeoPolygon != nil {
		ofPlaces(inPolygon(*f.GeoPolygon))
	}
	if r := f.ValuesCount; r != nil {
		clauses = append(clauses, func(at path, v *fastjson.Value) bool { return countHolds(at, v, r) })
	}
	if f.IsEmpty != nil {
		want := *f.IsEmpty
		clauses = append(clauses, func(at path, v *fastjson.Value) bool { return isEmpty(at, v) == want })
	}
	if f.IsNull != nil {
		want := *f.IsNull
		clauses = append(clauses, func(at path, v *fastjson.Value) bool { return isNull(at, v) == want })
	}
	return c.onPath(f.Key, func(at path, v *fastjson.Value) bool {
		for _, holds := range clauses {
			if holds(at, v) {
				return true
			}
		}
		return false
	})
}

// anyElement reports whether holds is true of a value at the path or of an element of an array there.
func anyElement(at path, v *fastjson.Value, holds func(*fastjson.Value) bool) bool {
	return !at.each(v, func(found *fastjson.Value) bool {
		if found.Type() != fastjson.TypeArray {
			return !holds(found)
		}
		for _, element := range found.GetArray() {
			if holds(element) {
				return false
			}
		}
		return true
	})
}

// isEmpty holds where every value at the path is missing, null or an empty array.
func isEmpty(at path, v *fastjson.Value) bool {
	return at.each(v, func(found *fastjson.Value) bool {
		return found.Type() == fastjson.TypeNull || found.Type() == fastjson.TypeArray && len(found.GetArray()) == 0
	})
}

// isNull holds where a value at the path is null or an array holding null.
func isNull(at path, v *fastjson.Value) bool {
	return anyElement(at, v, func(e *fastjson.Value) bool { return e.Type() == fastjson.TypeNull })
}

// countHolds tests the number of values: an array counts its elements, null and a missing value count 0.
func countHolds(at path, v *fastjson.Value, r *vectord.CountRange) bool {
	seen := false
	held := !at.each(v, func(found *fastjson.Value) bool {
		seen = true
		count := 1
		switch found.Type() {
		case fastjson.TypeNull:
			count = 0
		case fastjson.TypeArray:
			count = len(found.GetArray())
		}
		return !r.Contains(vectord.Count(count))
	})
	return held || !seen && r.Contains(0)
}

// numberOf returns the number that e is. The parser's own floats are off by a last bit now and then, so its digits are
// read again.
func numberOf(e *fastjson.Value) (vectord.Number, bool) {
	if e.Type() != fastjson.TypeNumber {
		return vectord.Number{}, false
	}
	digits := digitBuffers.Get().(*[]byte)
	defer digitBuffers.Put(digits)
	*digits = e.MarshalTo((*digits)[:0])
	return vectord.ParseNumber(*digits)
}

var digitBuffers = sync.Pool{New: func() any { return new([]byte) }}

// placeOf returns the place that an object {"lon", "lat"} is. One beyond the earth is none.
func placeOf(e *fastjson.Value) (vectord.GeoPoint, bool) {
	object, err := e.Object()
	if err != nil {
		return vectord.GeoPoint{}, false
	}
	lon, lat := object.Get("lon"), object.Get("lat")
	if lon == nil || lat == nil {
		return vectord.GeoPoint{}, false
	}
	x, ok1 := numberOf(lon)
	y, ok2 := numberOf(lat)
	place := vectord.GeoPoint{Lon: x.Float64(), Lat: y.Float64()}
	return place, ok1 && ok2 && place.Valid()
}

// match makes a test of one value at the path.
func (c *compiler) match(m *vectord.Match, path string) func(*fastjson.Value) bool {
	switch {
	case m.Value != nil:
		return newScalarSet([]vectord.Scalar{*m.Value}).contains
	case m.Any != nil:
		return newScalarSet(*m.Any).contains
	case m.Except != nil:
		set := newScalarSet(*m.Except)
		return func(e *fastjson.Value) bool { return e.Type() != fastjson.TypeNull && !set.contains(e) }
	case m.Prefix != nil:
		prefix := []byte(*m.Prefix)
		return onString(func(s []byte) bool { return bytes.HasPrefix(s, prefix) })
	}
	var index analyzer
	if c.analyzers != nil {
		index = c.analyzers(path)
	}
	switch {
	case index != nil && m.Phrase != nil:
		return onTokens(index, phraseOf(index.QueryTokens(nil, *m.Phrase)))
	case index != nil && m.TextAny != nil:
		return onTokens(index, oneOf(index.QueryTokens(nil, *m.TextAny)))
	case index != nil:
		return onTokens(index, allOf(index.QueryTokens(nil, *m.Text)))
	case m.TextAny != nil:
		var pieces [][]byte
		for piece := range strings.FieldsSeq(*m.TextAny) {
			pieces = append(pieces, []byte(piece))
		}
		return onString(func(s []byte) bool {
			for _, piece := range pieces {
				if bytes.Contains(s, piece) {
					return true
				}
			}
			return false
		})
	case m.Phrase != nil:
		return substring(*m.Phrase)
	default:
		return substring(*m.Text)
	}
}

func substring(text string) func(*fastjson.Value) bool {
	sub := []byte(text)
	return onString(func(s []byte) bool { return bytes.Contains(s, sub) })
}

func onString(holds func(s []byte) bool) func(*fastjson.Value) bool {
	return func(e *fastjson.Value) bool {
		s, err := e.StringBytes()
		return err == nil && holds(s)
	}
}

// tokenTest is a test of the tokens of one value.
type tokenTest func(t *tokenScratch) bool

// tokenScratch is the memory that one test of tokens needs.
type tokenScratch struct {
	tokens []string
	seen   []bool // by query token
}

var tokenScratches = sync.Pool{New: func() any { return new(tokenScratch) }}

func onTokens(index analyzer, holds tokenTest) func(*fastjson.Value) bool {
	return func(e *fastjson.Value) bool {
		s, err := e.StringBytes()
		if err != nil {
			return false
		}
		t := tokenScratches.Get().(*tokenScratch)
		defer tokenScratches.Put(t)
		t.tokens = index.Tokens(t.tokens[:0], string(s))
		held := holds(t)
		clear(t.tokens) // they are pieces of the payload
		return held
	}
}

// allOf holds where every token of a query occurs. A query without tokens finds nothing, here and below.
func allOf(query []string) tokenTest {
	places := make(map[string]int, len(query))
	for _, token := range query {
		if _, ok := places[token]; !ok {
			places[token] = len(places)
		}
	}
	return func(t *tokenScratch) bool {
		t.seen = append(t.seen[:0], make([]bool, len(places))...)
		left := len(places)
		for _, token := range t.tokens {
			if i, ok := places[token]; ok && !t.seen[i] {
				t.seen[i] = true
				if left--; left == 0 {
					return true
				}
			}
		}
		return false
	}
}

// oneOf holds where a token of the query occurs.
func oneOf(query []string) tokenTest {
	wanted := make(map[string]struct{}, len(query))
	for _, token := range query {
		wanted[token] = struct{}{}
	}
	return func(t *tokenScratch) bool {
		for _, token := range t.tokens {
			if _, ok := wanted[token]; ok {
				return true
			}
		}
		return false
	}
}

// phraseOf holds where the tokens of the query occur one after the other. It looks at each token once, however often the
// phrase repeats itself (Knuth, Morris, Pratt, Fast Pattern Matching in Strings, 1977).
func phraseOf(query []string) tokenTest {
	// shorter[n] is the length of the longest beginning of the phrase, but not all n, that its first n tokens end with.
	shorter := make([]int, len(query)+1)
	for n, matched := 2, 0; n <= len(query); n++ {
		for matched > 0 && query[n-1] != query[matched] {
			matched = shorter[matched]
		}
		if query[n-1] == query[matched] {
			matched++
		}
		shorter[n] = matched
	}
	return func(t *tokenScratch) bool {
		if len(query) == 0 {
			return false
		}
		matched := 0
		for _, token := range t.tokens {
			for matched > 0 && token != query[matched] {
				matched = shorter[matched]
			}
			if token == query[matched] {
				matched++
			}
			if matched == len(query) {
				return true
			}
		}
		return false
	}
}

// scalarSet holds the values of a match. A JSON number with a fraction or an exponent equals no integer.
type scalarSet struct {
	strings map[string]struct{}
	ints    map[int64]struct{}
	bools   [2]bool
}

func newScalarSet(scalars []vectord.Scalar) *scalarSet {
	s := &scalarSet{strings: map[string]struct{}{}, ints: map[int64]struct{}{}}
	for _, scalar := range scalars {
		switch scalar.Kind {
		case vectord.ScalarString:
			s.strings[scalar.String] = struct{}{}
		case vectord.ScalarInt:
			s.ints[scalar.Int] = struct{}{}
		case vectord.ScalarBool:
			if scalar.Bool {
				s.bools[1] = true
			} else {
				s.bools[0] = true
			}
		}
	}
	return s
}

func (s *scalarSet) contains(e *fastjson.Value) bool {
	ok := false
	switch e.Type() {
	case fastjson.TypeString:
		_, ok = s.strings[string(e.GetStringBytes())]
	case fastjson.TypeNumber:
		n, err := e.Int64()
		if err != nil {
			return false
		}
		_, ok = s.ints[n]
	case fastjson.TypeTrue:
		ok = s.bools[1]
	case fastjson.TypeFalse:
		ok = s.bools[0]
	}
	return ok
}
