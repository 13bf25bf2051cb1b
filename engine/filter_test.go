package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

func TestFilter(t *testing.T) {
	f := func(filter, payload string, want bool) {
		t.Helper()
		parsed, err := vectord.ParseFilter([]byte(filter))
		if err != nil {
			t.Fatalf("filter %s: %v", filter, err)
		}
		m, err := compileFilter(parsed, nil, unnamedOnly)
		if err != nil {
			t.Fatalf("filter %s: %v", filter, err)
		}
		got, err := m.matches(pointView{id: vectord.NumberID(7), payload: []byte(payload), vectors: []uint16{0}})
		if err != nil {
			t.Fatal(err)
		}
		if got != want {
			t.Errorf("filter %s on %s is %v, want %v", filter, payload, got, want)
		}
	}
	one := func(condition, payload string, want bool) {
		t.Helper()
		f(`{"must":`+condition+`}`, payload, want)
		f(`{"must_not":[`+condition+`]}`, payload, !want)
		f(`{"should":[`+condition+`]}`, payload, want)
		f(`{"must":[{"must_not":[{"must_not":[`+condition+`]}]}]}`, payload, want)
	}
	f(`{}`, `{}`, true)
	one(`{"key":"a","match":{"value":"x"}}`, `{"a":"x"}`, true)
	one(`{"key":"a","match":{"value":"x"}}`, `{"a":"X"}`, false)
	one(`{"key":"a","match":{"value":"x"}}`, `{"a":["y","x"]}`, true)
	one(`{"key":"a","match":{"value":"x"}}`, `{}`, false)
	one(`{"key":"a","match":{"value":1}}`, `{"a":1}`, true)
	one(`{"key":"a","match":{"value":1}}`, `{"a":1.0}`, false)
	one(`{"key":"a","match":{"value":9007199254740993}}`, `{"a":9007199254740992}`, false)
	one(`{"key":"a","match":{"value":9007199254740993}}`, `{"a":9007199254740993}`, true)
	one(`{"key":"a","match":{"value":true}}`, `{"a":true}`, true)
	one(`{"key":"a","match":{"value":true}}`, `{"a":"true"}`, false)
	one(`{"key":"a","match":{"any":["x","y"]}}`, `{"a":"y"}`, true)
	one(`{"key":"a","match":{"any":[]}}`, `{"a":"y"}`, false)
	one(`{"key":"a","match":{"except":["x"]}}`, `{"a":"y"}`, true)
	one(`{"key":"a","match":{"except":["x"]}}`, `{"a":"x"}`, false)
	one(`{"key":"a","match":{"except":["x"]}}`, `{"a":null}`, false)
	one(`{"key":"a","match":{"except":["x"]}}`, `{}`, false)
	one(`{"key":"a","match":{"text":"cat"}}`, `{"a":"a cat sat"}`, true)
	one(`{"key":"a","match":{"text":"Cat"}}`, `{"a":"a cat sat"}`, false)
	one(`{"key":"a","range":{"gte":1,"lt":3}}`, `{"a":1}`, true)
	one(`{"key":"a","range":{"gte":1,"lt":3}}`, `{"a":3}`, false)
	one(`{"key":"a","range":{"gt":1}}`, `{"a":1.5}`, true)
	one(`{"key":"a","range":{"gt":1}}`, `{"a":"2"}`, false)
	one(`{"key":"a","range":{"gt":1}}`, `{"a":[0,2]}`, true)
	one(`{"key":"a","values_count":{"gte":2}}`, `{"a":[1,2]}`, true)
	one(`{"key":"a","values_count":{"lt":1}}`, `{}`, true)
	one(`{"key":"a","values_count":{"gte":1}}`, `{"a":"x"}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{"a":[]}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{"a":null}`, true)
	one(`{"is_empty":{"key":"a"}}`, `{"a":0}`, false)
	one(`{"is_null":{"key":"a"}}`, `{"a":null}`, true)
	one(`{"is_null":{"key":"a"}}`, `{"a":[1,null]}`, true)
	one(`{"is_null":{"key":"a"}}`, `{}`, false)
	one(`{"key":"a","is_empty":false}`, `{"a":1}`, true)
	one(`{"key":"a","is_null":true}`, `{"a":null}`, true)
	one(`{"key":"a.b","match":{"value":1}}`, `{"a":{"b":1}}`, true)
	one(`{"key":"a.b","match":{"value":1}}`, `{"a":[{"b":1}]}`, false)
	one(`{"key":"a[].b","match":{"value":1}}`, `{"a":[{"b":2},{"b":1}]}`, true)
	one(`{"key":"a[0].b","match":{"value":1}}`, `{"a":[{"b":2},{"b":1}]}`, false)
	one(`{"key":"\"a.b\"","match":{"value":1}}`, `{"a.b":1}`, true)
	one(`{"has_id":[7,8]}`, `{}`, true)
	one(`{"has_id":[8]}`, `{}`, false)
	one(`{"has_id":[]}`, `{}`, false)
	one(`{"key":"a","match":{"value":-0}}`, `{"a":-0}`, true)
	one(`{"key":"a","match":{"value":1}}`, `{"a":1e0}`, false)
	one(`{"key":"a","match":{"value":9223372036854775807}}`, `{"a":9223372036854775808}`, false)
	one(`{"key":"a","match":{"text":""}}`, `{"a":""}`, true)
	one(`{"key":"a","match":{"text":"1"}}`, `{"a":1}`, false)
	one(`{"key":"a","match":{"phrase":"cat sat"}}`, `{"a":"a cat sat"}`, true)
	one(`{"key":"a","match":{"phrase":"cat sat"}}`, `{"a":["cat","sat"]}`, false)
	one(`{"key":"a","match":{"text_any":"dog  at"}}`, `{"a":"a cat sat"}`, true)
	one(`{"key":"a","match":{"text_any":"dog Cat"}}`, `{"a":"a cat sat"}`, false)
	one(`{"key":"a","match":{"text_any":" "}}`, `{"a":"a cat sat"}`, false)
	one(`{"key":"a","match":{"prefix":"a c"}}`, `{"a":["x","a cat"]}`, true)
	one(`{"key":"a","match":{"prefix":"cat"}}`, `{"a":"a cat"}`, false)
	one(`{"key":"a","match":{"prefix":"é"}}`, `{"a":"\u00e9t\u00e9"}`, true)
	one(`{"key":"a","range":{"gte":9007199254740993}}`, `{"a":9007199254740992}`, false)
	one(`{"key":"a","range":{"gt":9007199254740992}}`, `{"a":9007199254740993}`, true)
	one(`{"key":"a","range":{"lt":9007199254740993.0}}`, `{"a":9007199254740992}`, false)
	one(`{"key":"a","range":{"gt":9223372036854775807}}`, `{"a":9223372036854775808}`, true)
	one(`{"key":"a","range":{"lt":0.5}}`, `{"a":0.49999999999999997}`, true) // the parser of payloads makes 0.5 of it
	one(`{"key":"a","range":{}}`, `{"a":1}`, true)
	one(`{"key":"a","range":{}}`, `{"a":"2026-08-04"}`, false)
	one(`{"key":"a","range":{"lt":1e308}}`, `{"a":1e999}`, false)
	one(`{"key":"a","range":{"gt":1e308}}`, `{"a":1e999}`, false)
	one(`{"key":"a","range":{"gte":"2026-08-04","lt":"2026-08-05"}}`, `{"a":"2026-08-05T01:30:00+02:00"}`, true)
	one(`{"key":"a","range":{"gte":"2026-08-04","lt":"2026-08-05"}}`, `{"a":"2026-08-05"}`, false)
	one(`{"key":"a","range":{"gt":"2026-08-04T10:00:00.000001"}}`, `{"a":["soon","2026-08-04 10:00:00.000002Z"]}`, true)
	one(`{"key":"a","range":{"gt":"2026-08-04T10:00:00.000001"}}`, `{"a":"2026-08-04 10:00:00.0000019Z"}`, false)
	one(`{"key":"a","range":{"gt":"1970-01-01"}}`, `{"a":1785000000}`, false)
	one(`{"key":"a","values_count":{"gt":0}}`, `{"a":{"b":1}}`, true)
	one(`{"key":"a[]","match":{"value":1}}`, `{"a":[[2,1]]}`, true)
	one(`{"key":"\"a.b\".c[1]","match":{"value":1}}`, `{"a.b":{"c":[2,1]}}`, true)
	one(`{"key":"a","match":{"value":1},"range":{"gt":5}}`, `{"a":6}`, true)
	one(`{"key":"a","match":{"value":1},"range":{"gt":5}}`, `{"a":2}`, false)
	const radius = `{"key":"a","geo_radius":{"center":{"lon":180,"lat":10},"radius":1e6}}`
	one(radius, `{"a":{"lon":-179,"lat":10}}`, true)
	one(radius, `{"a":[{"lon":0,"lat":0},{"lon":-179.0,"lat":1e1,"name":"x"}]}`, true)
	one(radius, `{"a":{"lon":181,"lat":10}}`, false) // would be near, if it were a place
	one(radius, `{"a":{"lon":179,"lat":"10"}}`, false)
	one(radius, `{"a":{"lon":179}}`, false)
	one(radius, `{"a":[179,10]}`, false)
	one(`{"key":"a","geo_bounding_box":{"top_left":{"lon":170,"lat":20},"bottom_right":{"lon":-170,"lat":0}}}`, `{"a":{"lon":-175,"lat":10}}`, true)
	one(`{"key":"a","geo_polygon":{"exterior":{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]}}}`, `{"a":{"lon":1,"lat":1}}`, true)
	one(`{"key":"a","geo_polygon":{"exterior":{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]}}}`, `{"a":{"lon":2,"lat":2}}`, false)
	one(`{"has_vector":""}`, `{}`, true)
	one(`{"has_vector":"other"}`, `{}`, false)
	one(`{"slice":{"total":1,"index":0}}`, `{}`, true)
	one(`{"nested":{"key":"a","filter":{"must":[{"key":"b","match":{"value":1}},{"key":"c","match":{"value":2}}]}}}`, `{"a":[{"b":1,"c":3},{"b":4,"c":2}]}`, false)
	one(`{"nested":{"key":"a","filter":{"must":[{"key":"b","match":{"value":1}},{"key":"c","match":{"value":2}}]}}}`, `{"a":[{"b":4},{"b":1,"c":2}]}`, true)
	one(`{"nested":{"key":"a[]","filter":{"must":{"key":"b","match":{"value":1}}}}}`, `{"a":[{"b":1}]}`, true)
	one(`{"nested":{"key":"a","filter":{"must_not":{"key":"b","match":{"value":1}}}}}`, `{"a":[{"b":1},{}]}`, true)
	one(`{"nested":{"key":"a","filter":{"must_not":{"key":"b","match":{"value":1}}}}}`, `{"a":[{"b":1},2]}`, false)
	one(`{"nested":{"key":"a","filter":{}}}`, `{"a":[{}]}`, true)
	one(`{"nested":{"key":"a","filter":{}}}`, `{"a":[]}`, false)
	one(`{"nested":{"key":"a","filter":{}}}`, `{"a":{"b":1}}`, false)
	one(`{"nested":{"key":"a.b","filter":{"must":{"nested":{"key":"c","filter":{"must":{"key":"d","is_null":true}}}}}}}`, `{"a":{"b":[{"c":[{"d":null}]}]}}`, true)
	one(`{"nested":{"key":"a[0].b","filter":{"must":{"key":"c","match":{"value":1}}}}}`, `{"a":[{"b":[{"c":2}]},{"b":[{"c":1}]}]}`, false)
	f(`{"min_should":{"min_count":2,"conditions":[{"has_id":[7]},{"has_id":[8]},{"is_empty":{"key":"a"}}]}}`, `{}`, true)
	f(`{"min_should":{"min_count":2,"conditions":[{"has_id":[7]},{"has_id":[8]},{"is_empty":{"key":"a"}}]}}`, `{"a":1}`, false)
	f(`{"must":[{"has_id":[7]}],"should":[{"has_id":[8]}]}`, `{}`, false)
}

// TestFilterRefuses has what only compiling finds: paths, and filters that a program put together. The rest is refused by
// vectord.ParseFilter.
func TestFilterRefuses(t *testing.T) {
	f := func(c vectord.Condition, want vectord.Kind) {
		t.Helper()
		if _, err := compileFilter(&vectord.Filter{MustNot: []vectord.Condition{c}}, nil, nil); err == nil || vectord.KindOf(err) != want {
			t.Errorf("%+v: error %v, want one of kind %v", c, err, want)
		}
	}
	f(vectord.Condition{}, vectord.KindInvalid)
	f(vectord.Condition{IsEmpty: "a."}, vectord.KindInvalid)
	f(vectord.Condition{IsNull: "a[x]"}, vectord.KindInvalid)
	f(vectord.Condition{Nested: &vectord.Nested{Key: "[]", Filter: &vectord.Filter{}}}, vectord.KindInvalid)
	f(vectord.Condition{Nested: &vectord.Nested{Key: "a", Filter: &vectord.Filter{Must: []vectord.Condition{{IsNull: `"b`}}}}}, vectord.KindInvalid)
	f(vectord.Condition{Field: &vectord.FieldCondition{Key: "a"}}, vectord.KindUnprocessable)
	f(vectord.Condition{Field: &vectord.FieldCondition{Key: "a..b", Match: &vectord.Match{Any: &[]vectord.Scalar{}}}}, vectord.KindInvalid)
	f(vectord.Condition{Field: &vectord.FieldCondition{Key: "a", Match: &vectord.Match{}}}, vectord.KindInvalid)
	f(vectord.Condition{Field: &vectord.FieldCondition{Key: "a", GeoPolygon: &vectord.GeoPolygon{}}}, vectord.KindUnprocessable)
	f(vectord.Condition{Slice: &vectord.Slice{}}, vectord.KindUnprocessable)
}

// TestSlices checks that the slices of a total share no id and leave none out.
func TestSlices(t *testing.T) {
	counts := make([]int, 7)
	for n := range uint64(7_000) {
		id := vectord.NumberID(n)
		if n%2 == 1 {
			id = vectord.UUIDID([16]byte{byte(n >> 8), byte(n), 15: 1})
		}
		found := 0
		for i := range counts {
			f := &vectord.Filter{Must: []vectord.Condition{{Slice: &vectord.Slice{Total: uint32(len(counts)), Index: uint32(i)}}}}
			if held(t, f, pointView{id: id}) {
				found++
				counts[i]++
			}
		}
		if found != 1 {
			t.Fatalf("point %s is in %d slices", id, found)
		}
	}
	for i, n := range counts {
		if n < 800 || n > 1_200 {
			t.Errorf("slice %d has %d of 7,000 points", i, n)
		}
	}
}

func held(t testing.TB, f *vectord.Filter, p pointView) bool {
	t.Helper()
	m, err := compileFilter(f, nil, unnamedOnly)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.matches(p)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// unnamedOnly has the number of the one name of most collections.
var unnamedOnly = map[string]uint16{"": 0}

// TestHasVector checks that the view of a point is what answers, and that a name nobody has matches nothing.
func TestHasVector(t *testing.T) {
	f := func(name string, want bool, vectors ...uint16) {
		t.Helper()
		m, err := compileFilter(&vectord.Filter{Must: []vectord.Condition{{HasVector: &name}}}, nil, map[string]uint16{"": 0, "title": 3})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := m.matches(pointView{vectors: vectors}); err != nil || got != want {
			t.Errorf("has_vector %q of %v: %v, %v", name, vectors, got, err)
		}
	}
	f("title", false, 0)
	f("title", true, 0, 3)
	f("", true, 0, 3)
	f("", false, 3)
	f("other", false, 0, 3)
}

// words cuts at blanks and ignores case; a query has no tokens of one letter.
type words struct{}

func (words) Tokens(dst []string, s string) []string {
	return append(dst, strings.Fields(strings.ToLower(s))...)
}

func (words) QueryTokens(dst []string, s string) []string {
	return slices.DeleteFunc(words{}.Tokens(dst, s), func(token string) bool { return len(token) == 1 })
}

// TestFilterAnalyzed checks that a text index decides what text, text_any and phrase mean, and only where it is.
func TestFilterAnalyzed(t *testing.T) {
	of := func(path string) analyzer {
		if path == "a" || path == "b[].c" || path == "b[].d[].e" {
			return words{}
		}
		return nil
	}
	f := func(condition, payload string, want bool) {
		t.Helper()
		filter, err := vectord.ParseFilter([]byte(`{"must":[` + condition + `]}`))
		if err != nil {
			t.Fatal(err)
		}
		m, err := compileFilter(filter, of, unnamedOnly)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second uses memory of the first
			got, err := m.matches(pointView{payload: []byte(payload)})
			if err != nil || got != want {
				t.Errorf("%s on %s is %v (%v), want %v", condition, payload, got, err, want)
			}
		}
	}
	f(`{"key":"a","match":{"text":"SAT cat"}}`, `{"a":"a cat sat"}`, true)
	f(`{"key":"a","match":{"text":"cat cat"}}`, `{"a":"a cat sat"}`, true)
	f(`{"key":"a","match":{"text":"cat dog"}}`, `{"a":"a cat cat"}`, false)
	f(`{"key":"a","match":{"text":"sa"}}`, `{"a":"a cat sat"}`, false)
	f(`{"key":"a","match":{"text":"cat sat"}}`, `{"a":["a cat","sat"]}`, false)
	f(`{"key":"a","match":{"text":"a"}}`, `{"a":"a"}`, false) // no token is left of the query
	f(`{"key":"a","match":{"text_any":"a"}}`, `{"a":"a"}`, false)
	f(`{"key":"a","match":{"phrase":"a"}}`, `{"a":"a"}`, false)
	f(`{"key":"a","match":{"text":"cat"}}`, `{"a":7}`, false)
	f(`{"key":"a","match":{"text_any":"dog SAT"}}`, `{"a":"a cat sat"}`, true)
	f(`{"key":"a","match":{"text_any":"dog at"}}`, `{"a":"a cat sat"}`, false)
	f(`{"key":"a","match":{"phrase":"Cat Sat"}}`, `{"a":"a  cat  sat down"}`, true)
	f(`{"key":"a","match":{"phrase":"sat cat"}}`, `{"a":"a cat sat"}`, false)
	f(`{"key":"a","match":{"phrase":"xx xx yy"}}`, `{"a":"xx xx xx yy"}`, true)
	f(`{"key":"a","match":{"phrase":"xx yy xx yy zz"}}`, `{"a":"xx yy xx yy xx yy zz"}`, true)
	f(`{"key":"a","match":{"phrase":"xx xx yy"}}`, `{"a":"xx yy xx xx"}`, false)
	f(`{"key":"a","match":{"value":"A CAT"}}`, `{"a":"a cat"}`, false)
	f(`{"key":"a","match":{"prefix":"A C"}}`, `{"a":"a cat"}`, false)
	f(`{"key":"c","match":{"text":"CAT"}}`, `{"c":"a cat"}`, false)
	f(`{"nested":{"key":"b","filter":{"must":{"key":"c","match":{"text":"CAT"}}}}}`, `{"b":[{"c":"a cat"}]}`, true)
	f(`{"nested":{"key":"b[]","filter":{"must":{"key":"a","match":{"text":"CAT"}}}}}`, `{"b":[{"a":"a cat"}]}`, false)
	f(`{"nested":{"key":"b[]","filter":{"must":{"nested":{"key":"d","filter":{"must":{"key":"e","match":{"text":"CAT"}}}}}}}}`, `{"b":[{"d":[{"e":"a cat"}]}]}`, true)
}

// TestPhrase compares with a look at every place.
func TestPhrase(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := rapid.SampledFrom([]string{"x", "y"})
		query := rapid.SliceOfN(token, 1, 6).Draw(t, "query")
		tokens := rapid.SliceOfN(token, 0, 20).Draw(t, "tokens")
		want := false
		for i := range tokens {
			want = want || i+len(query) <= len(tokens) && slices.Equal(tokens[i:i+len(query)], query)
		}
		if got := phraseOf(query)(&tokenScratch{tokens: tokens}); got != want {
			t.Fatalf("%q in %q: %v", query, tokens, got)
		}
	})
}

// randomValue draws a payload value of any shape, of few enough values that conditions meet them.
func randomValue(t *rapid.T, depth int) string {
	kind := rapid.IntRange(0, 9).Draw(t, "kind")
	switch {
	case kind == 0 && depth > 0:
		return randomObject(t, depth-1)
	case kind <= 2 && depth > 0:
		var elements []string
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			elements = append(elements, randomValue(t, depth-1))
		}
		return "[" + strings.Join(elements, ",") + "]"
	case kind == 3:
		return fmt.Sprintf(`{"lon":%s,"lat":%s}`, degrees.Draw(t, "lon"), degrees.Draw(t, "lat"))
	case kind <= 5:
		return numbersDrawn.Draw(t, "number")
	default:
		return rapid.SampledFrom([]string{`null`, `true`, `false`, `"x"`, `"x y"`, `"y x"`, `""`, `"é"`, `"2026-08-04"`, `"2026-08-04T10:30"`,
			`"2026-08-04 12:30:00.000001+02:00"`, `"2026-08-04T10:30:00Zz"`}).Draw(t, "value")
	}
}

var (
	degrees      = rapid.SampledFrom([]string{"0", "1", "2", "0.5", "-1", "1.5", "89", "-89.5", "179.5", "-180", "181", `"1"`})
	numbersDrawn = rapid.SampledFrom([]string{"0", "-0.0", "1", "1.0", "2", "1e0", "0.1", "-1", "0.49999999999999997", "9007199254740992", "9007199254740993",
		"9007199254740993.0", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e19", "1e308"})
	datesDrawn = rapid.SampledFrom([]string{`"2026-08-04"`, `"2026-08-04 10:30:00.000001"`, `"2026-08-04T12:30:00+02:00"`})
	keysDrawn  = rapid.SampledFrom([]string{"a", "b", "c"})
	pathsDrawn = rapid.SampledFrom([]string{"a", "b", "c", "a.b", "a[].b", "a[]", "a[0]", "a[1].b", "b[].c[]", `"a".c`, "a[][].b"})
)

func randomObject(t *rapid.T, depth int) string {
	var members []string
	for _, key := range rapid.SliceOfNDistinct(keysDrawn, 0, 3, rapid.ID[string]).Draw(t, "keys") {
		members = append(members, fmt.Sprintf("%q:%s", key, randomValue(t, depth)))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func randomFilter(t *rapid.T, depth int, nested bool) string {
	var clauses []string
	for _, name := range []string{"must", "should", "must_not"} {
		if list := randomConditions(t, depth, nested); list != "[]" {
			clauses = append(clauses, fmt.Sprintf("%q:%s", name, list))
		}
	}
	if rapid.IntRange(0, 4).Draw(t, "min should") == 0 {
		clauses = append(clauses, fmt.Sprintf(`"min_should":{"min_count":%d,"conditions":%s}`, rapid.IntRange(1, 2).Draw(t, "min"), randomConditions(t, depth, nested)))
	}
	return "{" + strings.Join(clauses, ",") + "}"
}

func randomConditions(t *rapid.T, depth int, nested bool) string {
	var list []string
	for range rapid.IntRange(0, 2).Draw(t, "conditions") {
		list = append(list, randomCondition(t, depth, nested))
	}
	return "[" + strings.Join(list, ",") + "]"
}

func randomCondition(t *rapid.T, depth int, nested bool) string {
	key, err := json.Marshal(pathsDrawn.Draw(t, "path"))
	if err != nil {
		t.Fatal(err)
	}
	kind := rapid.IntRange(0, 15).Draw(t, "kind of condition")
	switch {
	case kind == 0 && depth > 0:
		return randomFilter(t, depth-1, nested)
	case kind <= 3 && depth > 0:
		return fmt.Sprintf(`{"nested":{"key":%s,"filter":%s}}`, key, randomFilter(t, depth-1, true))
	case kind == 4 && !nested:
		return rapid.SampledFrom([]string{`{"has_id":[1]}`, `{"has_id":[2]}`, `{"has_vector":""}`, `{"has_vector":"x"}`, `{"slice":{"total":2,"index":1}}`}).Draw(t, "of the point")
	case kind == 5:
		return fmt.Sprintf(rapid.SampledFrom([]string{`{"is_empty":{"key":%s}}`, `{"is_null":{"key":%s}}`}).Draw(t, "missing"), key)
	}
	clauses := []string{`"key":` + string(key)}
	for _, clause := range rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 1, 2, rapid.ID[int]).Draw(t, "clauses") {
		clauses = append(clauses, randomClause(t, clause))
	}
	return "{" + strings.Join(clauses, ",") + "}"
}

func randomClause(t *rapid.T, kind int) string {
	bounds := func(values *rapid.Generator[string]) string {
		return fmt.Sprintf(`{%q:%s,%q:%s}`, rapid.SampledFrom([]string{"gt", "gte"}).Draw(t, "low"), values.Draw(t, "lowest"),
			rapid.SampledFrom([]string{"lt", "lte"}).Draw(t, "high"), rapid.OneOf(rapid.Just("null"), values).Draw(t, "highest"))
	}
	place := func() string {
		within := rapid.SampledFrom([]string{"0", "1", "2", "0.5", "-1", "1.5", "-90"})
		return fmt.Sprintf(`{"lon":%s,"lat":%s}`, within.Draw(t, "lon"), within.Draw(t, "lat"))
	}
	ring := func() string {
		first := place()
		return fmt.Sprintf(`{"points":[%s,%s,%s,%s,%s]}`, first, place(), place(), place(), first)
	}
	switch kind {
	case 0:
		return `"match":` + rapid.SampledFrom([]string{`{"value":"x"}`, `{"value":1}`, `{"value":9007199254740993}`, `{"value":true}`, `{"any":["x","x y"]}`, `{"any":[1,0]}`,
			`{"except":["x"]}`, `{"except":[1]}`, `{"except":[]}`, `{"text":"x"}`, `{"text":""}`, `{"text_any":"y é"}`, `{"phrase":"x y"}`, `{"prefix":"x"}`, `{"prefix":""}`}).Draw(t, "match")
	case 1:
		return `"range":` + bounds(rapid.SampledFrom([]*rapid.Generator[string]{numbersDrawn, datesDrawn}).Draw(t, "bounds"))
	case 2:
		return `"values_count":` + bounds(rapid.SampledFrom([]string{"0", "1", "2"}))
	case 3:
		return `"is_empty":` + rapid.SampledFrom([]string{"true", "false"}).Draw(t, "empty")
	case 4:
		return `"is_null":` + rapid.SampledFrom([]string{"true", "false"}).Draw(t, "null")
	case 5:
		return fmt.Sprintf(`"geo_bounding_box":{"top_left":%s,"bottom_right":%s}`, place(), place())
	case 6:
		return fmt.Sprintf(`"geo_radius":{"center":%s,"radius":%s}`, place(), rapid.SampledFrom([]string{"0", "1", "100000", "160000", "3e7"}).Draw(t, "radius"))
	default:
		return fmt.Sprintf(`"geo_polygon":{"exterior":%s,"interiors":[%s]}`, ring(), ring())
	}
}

// TestFilterModel compares the matcher with the model, which shares nothing with it, on random filters and payloads.
func TestFilterModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := randomFilter(t, 2, false)
		filter, err := vectord.ParseFilter([]byte(text))
		if err != nil {
			t.Fatalf("filter %s: %v", text, err)
		}
		compiled, err := compileFilter(filter, nil, unnamedOnly)
		if err != nil {
			t.Fatalf("filter %s: %v", text, err)
		}
		twice := &vectord.Filter{MustNot: []vectord.Condition{{Filter: &vectord.Filter{MustNot: []vectord.Condition{{Filter: filter}}}}}}
		if filter == nil {
			twice = nil
		}
		negated, err := compileFilter(twice, nil, unnamedOnly)
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		m := model.New()
		if err := m.CreateCollection(ctx, "c", vectord.DefaultCollectionConfig(1, vectord.Dot)); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			payload := randomObject(t, 3)
			id := vectord.NumberID(1)
			op := vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: id, Vectors: vectord.Unnamed([]float32{1}), Payload: []byte(payload)}}}
			if _, err := m.Write(ctx, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
				t.Fatal(err)
			}
			want, err := m.Count(ctx, "c", filter)
			if err != nil {
				t.Fatal(err)
			}
			view := pointView{id: id, payload: []byte(payload), vectors: []uint16{0}}
			for _, m := range []*matcher{compiled, negated} {
				if got, err := m.matches(view); err != nil || got != (want == 1) {
					t.Fatalf("%s on %s is %v (%v), the model counts %d", text, payload, got, err, want)
				}
			}
		}
	})
}

// TestFilterSpellings compares filters that say the same in other words.
func TestFilterSpellings(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		inner := randomCondition(t, 1, true)
		var own map[string]json.RawMessage
		if err := json.Unmarshal([]byte(inner), &own); err != nil {
			t.Fatal(err)
		}
		value := randomValue(t, 2)
		same := func(payload string, filters ...string) {
			t.Helper()
			var first bool
			for i, text := range filters {
				f, err := vectord.ParseFilter([]byte(text))
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				m, err := compileFilter(f, nil, unnamedOnly)
				if err != nil {
					t.Fatalf("%s: %v", text, err)
				}
				got, err := m.matches(pointView{payload: []byte(payload)})
				if err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					first = got
				} else if got != first {
					t.Fatalf("%s is %v on %s, %s is %v", filters[0], first, payload, text, got)
				}
			}
		}
		same(`{"a":`+value+`}`, `{"must":`+inner+`}`, `{"should":[`+inner+`]}`, `{"must_not":{"must_not":`+inner+`}}`,
			`{"min_should":{"min_count":1,"conditions":[`+inner+`]}}`, `{"min_should":{"min_count":2,"conditions":[{},`+inner+`]}}`)
		same(`{"a":`+value+`}`, `{"must":{"key":"a","range":{"gt":-1,"lte":2}}}`, `{"must_not":{"should":[{"must_not":{"key":"a","range":{"gt":-1,"lte":2}}}]}}`)
		small := rapid.SampledFrom([]string{"-1", "0", "1", "2", "3", "[0,3]", "[3,4]", "[]", "null", `"1"`}).Draw(t, "small")
		same(`{"a":`+small+`}`, `{"must":{"key":"a","range":{"gte":0,"lt":3}}}`, `{"must":{"key":"a","range":{"gt":-1,"lte":2}}}`, `{"must":{"key":"a","match":{"any":[0,1,2]}}}`,
			`{"should":[{"key":"a","match":{"value":0}},{"key":"a","match":{"value":1}},{"key":"a","match":{"value":2}}]}`)
		// One object in an array, looked at by itself, from the array, and alone.
		object := randomObject(t, 2)
		if own["key"] != nil {
			var key string
			if err := json.Unmarshal(own["key"], &key); err != nil {
				t.Fatal(err)
			}
			own["key"] = json.RawMessage(strconv.Quote("list[]." + key))
			flat, err := json.Marshal(own)
			if err != nil {
				t.Fatal(err)
			}
			same(`{"list":[`+object+`]}`, `{"must":{"nested":{"key":"list","filter":{"must":`+inner+`}}}}`, `{"must":{"nested":{"key":"list[]","filter":{"must":`+inner+`}}}}`,
				`{"must":`+string(flat)+`}`)
		}
	})
}

// filterBench are the filters and the payload that benchmarks use.
var filterBench = map[string]string{
	"id":      `{"must":{"has_id":[1,2,3]}}`,
	"keyword": `{"must":{"key":"city","match":{"value":"Oslo"}}}`,
	"range":   `{"must":{"key":"price","range":{"gte":10,"lt":99.5}}}`,
	"date":    `{"must":{"key":"at","range":{"gte":"2026-01-01","lt":"2027-01-01"}}}`,
	"radius":  `{"must":{"key":"place","geo_radius":{"center":{"lon":10.7,"lat":59.9},"radius":5000}}}`,
	"nested":  `{"must":{"nested":{"key":"items","filter":{"must":[{"key":"sku","match":{"value":"b"}},{"key":"n","range":{"gt":1}}]}}}}`,
	"text":    `{"must":{"key":"text","match":{"text_any":"lake fjord"}}}`,
}

const payloadBench = `{"city":"Oslo","price":42.75,"at":"2026-08-04T12:30:59.5+02:00","place":{"lon":10.7522,"lat":59.9139},` +
	`"items":[{"sku":"a","n":3},{"sku":"b","n":2}],"text":"A short walk from the harbor of the fjord, with a view."}`

func BenchmarkMatches(b *testing.B) {
	for name, text := range filterBench {
		b.Run(name, func(b *testing.B) {
			f, err := vectord.ParseFilter([]byte(text))
			if err != nil {
				b.Fatal(err)
			}
			m, err := compileFilter(f, nil, unnamedOnly)
			if err != nil {
				b.Fatal(err)
			}
			view := pointView{id: vectord.NumberID(1), payload: []byte(payloadBench), vectors: []uint16{0}}
			b.ReportAllocs()
			for b.Loop() {
				if holds, err := m.matches(view); err != nil || !holds {
					b.Fatal(holds, err)
				}
			}
		})
	}
}

// FuzzFilter checks that what is accepted survives encoding, and that both spellings decide alike.
func FuzzFilter(f *testing.F) {
	f.Add([]byte(`{"must":[{"key":"a[].b","match":{"any":["x",1,true]}},{"has_id":[1,"0f8fad5b-d9cb-469f-a165-70867728950e"]}]}`), []byte(`{"a":[{"b":"x"}]}`))
	f.Add([]byte(`{"should":{"is_empty":{"key":"a"}},"min_should":{"min_count":1,"conditions":[{"key":"a","range":{"gt":1e3}}]}}`), []byte(`{}`))
	f.Add([]byte(`{"must_not":[{"key":"a","values_count":{"lt":2},"is_null":true}]}`), []byte(`{"a":null}`))
	f.Fuzz(func(t *testing.T, filter, payload []byte) {
		parsed, err := vectord.ParseFilter(filter)
		if err != nil || parsed == nil {
			return
		}
		m, err := compileFilter(parsed, nil, unnamedOnly)
		if err != nil || checkPayload("payload", payload) != nil {
			return
		}
		encoded, err := parsed.MarshalJSON()
		if err != nil {
			t.Fatalf("encode %s: %v", filter, err)
		}
		again, err := vectord.ParseFilter(encoded)
		if err != nil {
			t.Fatalf("%s was accepted and its encoding %s is not: %v", filter, encoded, err)
		}
		m2, err := compileFilter(again, nil, unnamedOnly)
		if err != nil {
			t.Fatal(err)
		}
		a, err := m.matches(pointView{id: vectord.NumberID(1), payload: payload, vectors: []uint16{0}})
		if err != nil {
			t.Fatal(err)
		}
		if b, err := m2.matches(pointView{id: vectord.NumberID(1), payload: payload, vectors: []uint16{0}}); err != nil || a != b {
			t.Fatalf("%s is %v on %s, its encoding %s is %v (%v)", filter, a, payload, encoded, b, err)
		}
	})
}
