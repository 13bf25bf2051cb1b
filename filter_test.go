package vectord

import (
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// TestFilterJSON checks that a condition keeps its meaning and its text through decoding and encoding.
func TestFilterJSON(t *testing.T) {
	f := func(condition, want string) {
		t.Helper()
		text := `{"must":[` + condition + `]}`
		if want == "" {
			want = condition
		}
		filter, err := ParseFilter([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		b, err := json.Marshal(filter)
		if err != nil || string(b) != `{"must":[`+want+`]}` {
			t.Errorf("%s is encoded as %s (%v), want %s", text, b, err, want)
		}
		again, err := ParseFilter(b)
		if err != nil || !reflect.DeepEqual(filter, again) {
			t.Errorf("%s decodes to %#v, its encoding to %#v (%v)", text, filter, again, err)
		}
	}
	f(`{"key":"a","match":{"value":9223372036854775807}}`, "")
	f(`{"key":"a","match":{"value":-9223372036854775808}}`, "")
	f(`{"key":"a","match":{"any":[]}}`, "")
	f(`{"key":"a","match":{"except":["x",1,true]}}`, "")
	f(`{"key":"a","match":{"text":"x"}}`, "")
	f(`{"key":"a","match":{"text_any":"x y"}}`, "")
	f(`{"key":"a","match":{"phrase":"x y"}}`, "")
	f(`{"key":"a","match":{"prefix":""}}`, "")
	f(`{"key":"a","match":{"value":"<\u0000>"},"range":null}`, `{"key":"a","match":{"value":"\u003c\u0000\u003e"}}`)
	f(`{"key":"a","range":{}}`, "")
	f(`{"key":"a","range":{"gt":9007199254740993,"lte":18446744073709551616}}`, `{"key":"a","range":{"gt":9007199254740993,"lte":1.8446744073709552e+19}}`)
	f(`{"key":"a","range":{"gt":1e3,"gte":null,"lt":-0.0}}`, `{"key":"a","range":{"gt":1000,"lt":0}}`)
	f(`{"key":"a","range":{"gt":1.7976931348623157e308,"lt":5e-324}}`, `{"key":"a","range":{"gt":1.7976931348623157e+308,"lt":5e-324}}`)
	f(`{"key":"a","range":{"gt":"2026-08-04","lte":"2026-08-04 12:30:00.5+02:00"}}`,
		`{"key":"a","range":{"gt":"2026-08-04T00:00:00Z","lte":"2026-08-04T10:30:00.5Z"}}`)
	f(`{"key":"a","range":{"lt":"2026-08-04T12:30:00\u002B0200"}}`, `{"key":"a","range":{"lt":"2026-08-04T10:30:00Z"}}`)
	f(`{"key":"a","geo_bounding_box":{"top_left":{"lon":179.5,"lat":1},"bottom_right":{"lon":-179.5,"lat":-1}}}`, "")
	f(`{"key":"a","geo_radius":{"center":{"lon":13.405,"lat":52.52},"radius":1e3}}`,
		`{"key":"a","geo_radius":{"center":{"lon":13.405,"lat":52.52},"radius":1000}}`)
	f(`{"key":"a","geo_polygon":{"exterior":{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]},"interiors":[]}}`,
		`{"key":"a","geo_polygon":{"exterior":{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]}}}`)
	f(`{"key":"a","values_count":{"gte":1,"lt":18446744073709551615}}`, "")
	f(`{"key":"a","is_empty":false,"is_null":true}`, "")
	f(`{"is_empty":{"key":"a"}}`, "")
	f(`{"is_null":{"key":"\"a.b\".c"}}`, "")
	f(`{"has_id":[]}`, "")
	f(`{"has_id":[18446744073709551615,"FE00000000000000000000000000000A"]}`, `{"has_id":[18446744073709551615,"fe000000-0000-0000-0000-00000000000a"]}`)
	f(`{"has_vector":""}`, "")
	f(`{"slice":{"total":4294967295,"index":0}}`, "")
	f(`{"nested":{"key":"a[]","filter":{}}}`, "")
	f(`{"nested":{"key":"a","filter":{"must_not":{"nested":{"key":"b","filter":{"should":[{"key":"c","is_null":true}]}}}}}}`,
		`{"nested":{"key":"a","filter":{"must_not":[{"nested":{"key":"b","filter":{"should":[{"key":"c","is_null":true}]}}}]}}}`)
	f(`{"min_should":{"conditions":[],"min_count":1}}`, "")
	f(`{"must":[],"should":null}`, `{}`)
	f(`{}`, "")
}

func TestFilterRefuses(t *testing.T) {
	f := func(condition string, want Kind) {
		t.Helper()
		_, err := ParseFilter([]byte(`{"must":[` + condition + `]}`))
		if err == nil || KindOf(err) != want {
			t.Errorf("%.200s: error %v, want one of kind %v", condition, err, want)
		}
	}
	ring := func(points string) string {
		return `{"key":"a","geo_polygon":{"exterior":{"points":[` + points + `]}}}`
	}
	many := func(one string, n int) string { return strings.TrimSuffix(strings.Repeat(one+",", n), ",") }
	for _, condition := range []string{
		`null`, `1`, `[]`, `{"kye":"a"}`, `{"key":"a","match":{"value":1},"must":[]}`, `{"has_id":[1],"must":[]}`, `{"has_id":[1],"key":"a","is_null":true}`,
		`{"has_id":null}`, `{"has_id":[null]}`, `{"has_id":["5"]}`, `{"has_vector":null}`, `{"has_vector":1}`, `{"is_empty":{}}`, `{"is_null":{"key":null}}`,
		`{"is_null":{"key":"a","of":1}}`, `{"key":null,"is_null":true}`, `{"match":{"value":1}}`, `{"key":"a","match":{}}`, `{"key":"a","match":{"value":null}}`,
		`{"key":"a","match":{"value":1,"any":[]}}`, `{"key":"a","match":{"value":1.0}}`, `{"key":"a","match":{"value":9223372036854775808}}`,
		`{"key":"a","match":{"any":[null]}}`, `{"key":"a","match":{"any":"x"}}`, `{"key":"a","match":{"text":1}}`, `{"key":"a","match":{"fuzzy":"x"}}`,
		`{"key":"a","match":{"prefix":"` + strings.Repeat("x", MaxMatchTextBytes+1) + `"}}`,
		`{"key":"a","match":{"any":[` + many("1", MaxFilterListLength+1) + `]}}`, `{"has_id":[` + many("1", MaxFilterListLength+1) + `]}`,
		`{"key":"a","range":{"gt":1,"lt":"2026-08-04"}}`, `{"key":"a","range":{"gt":"soon"}}`, `{"key":"a","range":{"above":1}}`, `{"key":"a","range":{"gt":1e999}}`,
		`{"key":"a","range":{"gt":true}}`, `{"key":"a","range":[1]}`, `{"key":"a","values_count":{"gt":-1}}`, `{"key":"a","values_count":{"gt":1.5}}`,
		`{"key":"a","values_count":{"gt":"2026-08-04"}}`, `{"key":"a","is_null":1}`, `{"key":"a","geo_radius":{}}`,
		`{"key":"a","geo_radius":{"center":{"lon":1},"radius":1}}`, `{"key":"a","geo_radius":{"center":{"lon":1,"lat":"1"},"radius":1}}`,
		`{"key":"a","geo_radius":{"center":{"lon":1,"lat":1,"alt":1},"radius":1}}`, `{"key":"a","geo_bounding_box":{"top_left":{"lon":1,"lat":1}}}`,
		ring(`null`), `{"key":"a","geo_polygon":{"exterior":[]}}`, `{"key":"a","geo_polygon":{"interiors":[]}}`,
		`{"nested":{"key":"a"}}`, `{"nested":{"key":"a","filter":null}}`, `{"nested":{"filter":{}}}`, `{"nested":{"key":"a","filter":{"must":[{"has_id":[1]}]}}}`,
		`{"nested":{"key":"a","filter":{"should":[{"must_not":[{"has_vector":""}]}]}}}`,
		`{"nested":{"key":"a","filter":{"min_should":{"min_count":1,"conditions":[{"slice":{"total":1,"index":0}}]}}}}`,
		`{"slice":{"total":1}}`, `{"slice":{"total":-1,"index":0}}`, `{"slice":{"total":4294967296,"index":0}}`, `{"min_should":{"conditions":[]}}`,
		`{"min_should":{"min_count":1}}`, `{"min_should":{"min_count":1,"conditions":[],"max":2}}`, many(`{}`, MaxFilterConditions+1),
		strings.Repeat(`{"must":[`, 40) + strings.Repeat(`]}`, 40), strings.Repeat(`{"nested":{"key":"a","filter":{"must":[`, 32) + strings.Repeat(`]}}}`, 32),
	} {
		f(condition, KindInvalid)
	}
	corner := `{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},`
	for _, condition := range []string{
		`{"key":"a"}`, `{"key":"a","match":null}`, `{"key":"","is_null":true}`, `{"is_empty":{"key":""}}`, `{"nested":{"key":"","filter":{}}}`,
		`{"slice":{"total":0,"index":0}}`, `{"slice":{"total":2,"index":2}}`, `{"min_should":{"min_count":0,"conditions":[]}}`,
		`{"key":"a","geo_radius":{"center":{"lon":181,"lat":0},"radius":1}}`, `{"key":"a","geo_radius":{"center":{"lon":0,"lat":0},"radius":-1}}`,
		`{"key":"a","geo_bounding_box":{"top_left":{"lon":1,"lat":91},"bottom_right":{"lon":2,"lat":0}}}`,
		ring(``), ring(corner + `{"lon":0,"lat":1}`), ring(`{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":0}`),
		ring(corner + many(`{"lon":0,"lat":0}`, MaxPolygonPoints)), ring(corner + `{"lon":0,"lat":-91},{"lon":0,"lat":0}`),
		`{"key":"a","geo_polygon":{"exterior":{"points":[` + corner + `{"lon":0,"lat":0}]},"interiors":[{"points":[]}]}}`,
	} {
		f(condition, KindUnprocessable)
	}
}

// TestFilterDepth checks that as many filters within filters as are allowed are accepted, and that they may end in a polygon.
func TestFilterDepth(t *testing.T) {
	polygon := `{"key":"a","geo_polygon":{"exterior":{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]},
		"interiors":[{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]}]}}`
	nested := func(n int) []byte {
		return []byte(`{"must":[` + strings.Repeat(`{"nested":{"key":"a","filter":{"must":[`, n-1) + polygon + strings.Repeat(`]}}}`, n-1) + `]}`)
	}
	if _, err := ParseFilter(nested(MaxFilterDepth)); err != nil {
		t.Error(err)
	}
	if _, err := ParseFilter(nested(MaxFilterDepth + 1)); KindOf(err) != KindInvalid {
		t.Errorf("%d filters deep: error %v", MaxFilterDepth+1, err)
	}
}

// TestConditionJSON checks that a condition can be decoded alone, as where it is a part of something else.
func TestConditionJSON(t *testing.T) {
	var c Condition
	const text = `{"nested":{"key":"a","filter":{"should":[{"key":"b","is_null":true},{"has_id":[]}]}}}`
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(c); err != nil || string(b) != text {
		t.Errorf("%s is encoded as %s (%v)", text, b, err)
	}
	if err := json.Unmarshal([]byte(`[1]`), &c); KindOf(err) != KindInvalid {
		t.Errorf("a list as a condition: error %v", err)
	}
}

// TestFilterReadOnce checks that the text of a filter is not copied for each filter that it is within.
func TestFilterReadOnce(t *testing.T) {
	allocated := func(depth int) uint64 {
		text := []byte(`{"must":[` + strings.Repeat(`{"nested":{"key":"a","filter":{"must":[`, depth) +
			`{"key":"b","match":{"any":["` + strings.Repeat("x", 1<<20) + `"]}}` + strings.Repeat(`]}}}`, depth) + `]}`)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := ParseFilter(text); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if flat, deep := allocated(0), allocated(MaxFilterDepth-1); deep > flat*3/2 {
		t.Errorf("a filter of a megabyte takes %d bytes to read, and %d where it is within %d others", flat, deep, MaxFilterDepth-1)
	}
}

// FuzzParseFilter checks that no text makes the decoder panic, that what is wrong is refused as the client's mistake, and that
// what is accepted survives encoding exactly.
func FuzzParseFilter(f *testing.F) {
	for _, seed := range []string{
		`{"must":[{"key":"a[].b","match":{"any":["x",1,true]}},{"has_id":[1,"0f8fad5b-d9cb-469f-a165-70867728950e"]}]}`,
		`{"should":{"nested":{"key":"a","filter":{"must_not":[{"key":"b","range":{"gte":"2026-08-04 10:00","lt":"2026-08-05T00:00:00.000001+02:00"}}]}}}}`,
		`{"must":[{"key":"p","geo_polygon":{"exterior":{"points":[{"lon":0,"lat":0},{"lon":4,"lat":0},{"lon":0,"lat":4},{"lon":0,"lat":0}]},"interiors":null}}]}`,
		`{"must":[{"key":"p","geo_radius":{"center":{"lon":-0.0,"lat":1e-7},"radius":1e3}},{"key":"p","geo_bounding_box":{"top_left":{"lon":179,"lat":3},"bottom_right":{"lon":-179,"lat":0}}}]}`,
		`{"min_should":{"min_count":1,"conditions":[{"key":"a","range":{"gt":1e300,"lte":9007199254740993}},{"slice":{"total":4,"index":3}},{"has_vector":"v"}]}}`,
		`{"must_not":[{"key":"a","values_count":{"lt":2},"is_null":true,"match":{"phrase":"a b"}},{"is_empty":{"key":"\"x\".y"}},{}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		filter, err := ParseFilter(text)
		if err != nil {
			if k := KindOf(err); k != KindInvalid && k != KindUnprocessable {
				t.Fatalf("%s: error %v of kind %v", text, err, k)
			}
			return
		}
		encoded, err := json.Marshal(filter)
		if err != nil {
			t.Fatalf("encode %s: %v", text, err)
		}
		again, err := ParseFilter(encoded)
		if err != nil {
			t.Fatalf("%s was accepted and its encoding %s is not: %v", text, encoded, err)
		}
		if !reflect.DeepEqual(filter, again) {
			t.Fatalf("%s decodes to another filter than its encoding %s", text, encoded)
		}
	})
}

func BenchmarkParseFilter(b *testing.B) {
	text := []byte(`{"must":[{"key":"city","match":{"any":["Oslo","Rome"]}},{"key":"price","range":{"gte":10,"lt":99.5}}],"must_not":[{"is_empty":{"key":"tags"}}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseFilter(text); err != nil {
			b.Fatal(err)
		}
	}
}

func TestNumber(t *testing.T) {
	numbers := []string{"-1e308", "-9223372036854775809", "-9223372036854775808", "-9007199254740993", "-9007199254740992", "-1.5", "-1", "-0.1", "0", "5e-324",
		"0.1", "0.30000000000000004", "1", "1.0000000000000002", "9007199254740991", "9007199254740992", "9007199254740993", "9007199254740995",
		"9223372036854774784", "9223372036854775807", "9223372036854775808", "18446744073709551616", "1e19", "1e308"}
	value := func(s string) *big.Rat {
		r, _ := new(big.Rat).SetString(s)
		if !r.IsInt() || !r.Num().IsInt64() {
			x, _ := r.Float64()
			r.SetFloat64(x)
		}
		return r
	}
	for _, a := range numbers {
		for _, b := range numbers {
			x, ok1 := ParseNumber([]byte(a))
			y, ok2 := ParseNumber([]byte(b))
			want := value(a).Cmp(value(b))
			if !ok1 || !ok2 || x.Compare(y) != want || (x == y) != (want == 0) {
				t.Errorf("%s compares with %s as %d (== is %v), want %d", a, b, x.Compare(y), x == y, want)
			}
		}
	}
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 10_000 {
		n := int64(rng.Uint64())
		x := float64(n) + float64(rng.IntN(5)-2)*1024
		want := new(big.Rat).SetInt64(n).Cmp(new(big.Rat).SetFloat64(x))
		if got := IntNumber(n).Compare(FloatNumber(x)); got != want {
			t.Fatalf("seed %d: %d compares with %v as %d, want %d", seed, n, x, got, want)
		}
		if got := FloatNumber(x).Compare(IntNumber(n)); got != -want {
			t.Fatalf("seed %d: %v compares with %d as %d, want %d", seed, x, n, got, -want)
		}
	}
	for text, want := range map[string]string{"-0": "0", "-0.0": "0", "1.0": "1", "1e3": "1000", "1e-400": "0", "0.1": "0.1", "100000000000000000000": "100000000000000000000"} {
		x, ok := ParseNumber([]byte(text))
		if b, err := x.MarshalJSON(); !ok || err != nil || string(b) != x.String() {
			t.Errorf("%s is %s (%v, %v)", text, b, ok, err)
		}
		if y, _ := ParseNumber([]byte(want)); x != y {
			t.Errorf("%s is %v, want %s", text, x, want)
		}
	}
	for _, text := range []string{"", "-", "1e999", "-1e999", `"1"`, "null", "true", "{}", "NaN", "Inf", "1x"} {
		if x, ok := ParseNumber([]byte(text)); ok {
			t.Errorf("%q is read as the number %v", text, x)
		}
	}
	if _, err := FloatNumber(math.Inf(1)).MarshalJSON(); err == nil {
		t.Error("infinity was encoded")
	}
}

func TestDatetime(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		d, ok := ParseDatetime(text)
		if got := d.String(); ok != (want != "") || ok && got != want {
			t.Errorf("%q is %s (%v), want %q", text, got, ok, want)
		}
		if fromBytes, again := ParseDatetime([]byte(text)); fromBytes != d || again != ok {
			t.Errorf("%q differs as bytes", text)
		}
		if ok {
			if again, ok := ParseDatetime(want); !ok || again != d {
				t.Errorf("%q is written as %s, which reads as %v", text, want, again)
			}
		}
	}
	f("2026-08-04", "2026-08-04T00:00:00Z")
	f("2026-08-04 12:30", "2026-08-04T12:30:00Z")
	f("2026-08-04T12:30", "2026-08-04T12:30:00Z")
	f("2026-08-04 12:30:59", "2026-08-04T12:30:59Z")
	f("2026-08-04t12:30:59z", "2026-08-04T12:30:59Z")
	f("2026-08-04T12:30:59.5Z", "2026-08-04T12:30:59.5Z")
	f("2026-08-04T12:30:59.1234567899Z", "2026-08-04T12:30:59.123456Z")
	f("1969-12-31T23:59:59.9999999Z", "1969-12-31T23:59:59.999999Z")
	f("2026-08-04T00:30:00+02:00", "2026-08-03T22:30:00Z")
	f("2026-08-04 12:30:59.25-0130", "2026-08-04T14:00:59.25Z")
	f("2026-08-04T12:30:59+02", "2026-08-04T10:30:59Z")
	f("2024-02-29", "2024-02-29T00:00:00Z")
	f("2000-02-29", "2000-02-29T00:00:00Z")
	f("0000-01-01", "0000-01-01T00:00:00Z")
	f("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z")
	for _, text := range []string{"", "2026", "2026-8-4", "2026-13-01", "2026-00-01", "2026-02-29", "1900-02-29", "2026-04-31", "2026-08-00", "20260804",
		"2026-08-04T", "2026-08-04T12", "2026-08-04_12:30", "2026-08-04 24:00", "2026-08-04 12:60", "2026-08-04 12:30:60", "2026-08-04 12:30:", "2026-08-04 12:30:5",
		"2026-08-04 12:30:59.", "2026-08-04 12:30:59,5", "2026-08-04 12:30:59 Z", "2026-08-04 12:30Z", "2026-08-04Z", "2026-08-04 12:30:59+", "2026-08-04 12:30:59+2",
		"2026-08-04 12:30:59+02:", "2026-08-04 12:30:59+02:0", "2026-08-04 12:30:59+24:00", "2026-08-04 12:30:59+02:60", "2026-08-04 12:30:59Zx", "0000-01-01 00:00:00+00:01",
		"9999-12-31T23:59:59-00:01", "+026-08-04", "2026-08-04 12:30:59.1x"} {
		f(text, "")
	}
	if d, _ := ParseDatetime("1970-01-01T00:00:01"); d != 1_000_000 {
		t.Errorf("a second after the start of 1970 is %d", d)
	}
	if _, err := Datetime(math.MaxInt64).MarshalJSON(); err == nil {
		t.Error("a moment beyond the year 9999 was encoded")
	}
}

func FuzzParseDatetime(f *testing.F) {
	f.Add("2026-08-04T12:30:59.123456+02:00")
	f.Add("2026-08-04 12:30")
	f.Fuzz(func(t *testing.T, text string) {
		d, ok := ParseDatetime(text)
		if !ok {
			return
		}
		if again, ok := ParseDatetime(d.String()); !ok || again != d {
			t.Fatalf("%q is %s, which reads as %s (%v)", text, d, again, ok)
		}
	})
}

func BenchmarkParseDatetime(b *testing.B) {
	text := []byte("2026-08-04T12:30:59.123456+02:00")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := ParseDatetime(text); !ok {
			b.Fatal("not read")
		}
	}
}

func ExampleParseFilter() {
	f, err := ParseFilter([]byte(`{"must": {"key": "born", "range": {"gte": "1990-01-01", "lt": "2000-01-01"}}}`))
	if err != nil {
		panic(err)
	}
	fmt.Println(f.Must[0].Field.Key, "from", f.Must[0].Field.Datetime.GTE)
	// Output: born from 1990-01-01T00:00:00Z
}
