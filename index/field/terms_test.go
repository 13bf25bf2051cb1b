package field

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// Terms of numbers are in the order of the numbers, ints and floats in one, and give them back.
func TestNumbers(t *testing.T) {
	type value struct {
		n       vectord.Number
		integer bool
		term    string
	}
	var values []value
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	add := func(n vectord.Number, integer bool) {
		values = append(values, value{n, integer, Number(n, integer)})
		if again, was, ok := NumberOf(Number(n, integer)); again != n || was != integer || !ok {
			t.Errorf("the term of %v gives back %v %v %v", n, again, was, ok)
		}
	}
	for _, n := range []int64{0, 1, -1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1, 1 << 53, 1<<53 + 1, 1<<53 + 2,
		-1<<53 - 1, math.MaxInt64 - 511, math.MaxInt64 - 512, math.MaxInt64 - 513} {
		add(vectord.IntNumber(n), true)
	}
	for _, x := range []float64{0, math.Copysign(0, -1), 1, 1.5, -1.5, 1 << 53, 1 << 63, -1 << 63, math.MaxFloat64, -math.MaxFloat64,
		math.SmallestNonzeroFloat64} {
		add(vectord.FloatNumber(x), false)
	}
	corners := len(values)
	for range 200 {
		add(vectord.IntNumber(int64(rng.Uint64())>>rng.IntN(64)), true)
		add(vectord.FloatNumber(rng.NormFloat64()*math.Pow(10, float64(rng.IntN(40)-20))), false)
	}
	in := func(term string, r Range) bool { return term >= r.From && term < r.To }
	for _, a := range values {
		for _, b := range values {
			order := a.n.Compare(b.n)
			if order == 0 && a.integer == b.integer && a.term != b.term || order < 0 && a.term >= b.term {
				t.Fatalf("seed %d: %v and %v have terms %x and %x", seed, a.n, b.n, a.term, b.term)
			}
			for _, r := range []vectord.Range{{GT: &b.n}, {GTE: &b.n}, {LT: &b.n}, {LTE: &b.n}, {}} {
				if got := in(a.term, NumbersIn(&r)); got != r.Contains(a.n) {
					t.Fatalf("seed %d: %v is in a range of %v: %v", seed, a.n, b.n, got)
				}
			}
		}
	}
	for _, a := range values[:corners] {
		for _, b := range values[:corners] {
			for _, c := range values[:corners] {
				for _, r := range []vectord.Range{{GT: &a.n, LT: &b.n}, {GTE: &a.n, LTE: &b.n}, {GT: &a.n, GTE: &b.n}, {LT: &a.n, LTE: &b.n}} {
					if got := in(c.term, NumbersIn(&r)); got != r.Contains(c.n) {
						t.Fatalf("%v is in a range of %v and %v: %v", c.n, a.n, b.n, got)
					}
				}
			}
		}
	}
}

// Terms of strings are in their order, none begins another, and prefixes are ranges.
func TestStrings(t *testing.T) {
	long := strings.Repeat("x", StringBytesMax)
	texts := []string{"", "\x00", "\x00\x00", "\x00\xff", "a", "a\x00", "a\x00b", "ab", "b", "é", "\xff", "\xff\xff", long[1:], long}
	slices.Sort(texts)
	texts = append(texts, long+"1", long+"2", long+"\x00")
	for i, a := range texts {
		term := String(a)
		if text, ok := Text(term); ok != (len(a) <= StringBytesMax) || ok && text != a {
			t.Errorf("the term of %q gives back %q %v", a, text, ok)
		}
		for j, b := range texts {
			other := String(b)
			if i != j && strings.HasPrefix(other, term) {
				t.Errorf("the term of %q begins that of %q", a, b)
			}
			if i < j && len(b) <= StringBytesMax && term >= other {
				t.Errorf("the terms of %q and %q are not in order", a, b)
			}
			r := StringPrefix(a)
			in := other >= r.From && other < r.To
			if want := strings.HasPrefix(b, a); in != want && (want || len(a) <= StringBytesMax) {
				t.Errorf("%q is in the range of prefix %q: %v", b, a, in)
			}
		}
	}
	if String("a") == Token("a") {
		t.Error("a string and a word have the same term")
	}
}

func TestUUIDs(t *testing.T) {
	f := func(s string, want bool) {
		t.Helper()
		term, ok := UUID(s)
		if ok != want {
			t.Errorf("%q is a UUID: %v", s, ok)
		}
		if text, _ := Text(term); ok && text != s {
			t.Errorf("%q became %q", s, text)
		}
	}
	f("00112233-4455-6677-8899-aabbccddeeff", true)
	f("00112233-4455-6677-8899-AABBCCDDEEFF", false)
	f("00112233-4455-6677-8899-aabbccddeef", false)
	f("001122334455-6677-8899-aabbccddeeff1", false)
	f("00112233-4455-6677-8899-aabbccddeefg", false)
	f("0011223304455-6677-8899-aabbccddeeff", false)
	f("", false)
}

func TestTimes(t *testing.T) {
	moments := []vectord.Datetime{math.MinInt64, -1, 0, 1, math.MaxInt64}
	for _, m := range moments {
		if got, ok := TimeOf(Time(m)); got != m || !ok {
			t.Errorf("moment %d became %d %v", m, got, ok)
		}
		for _, a := range moments {
			for _, b := range moments {
				for _, r := range []vectord.DatetimeRange{{}, {GT: &a, LT: &b}, {GTE: &a, LTE: &b}, {GT: &a, GTE: &b}, {LT: &a, LTE: &b}} {
					in := TimesIn(&r)
					if got := Time(m) >= in.From && Time(m) < in.To; got != r.Contains(m) {
						t.Errorf("moment %d is in a range of %d and %d: %v", m, a, b, got)
					}
				}
			}
		}
	}
}

// Of the ranges of a box those inside hold no place beyond it, and all together hold every place in it.
func TestBox(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		scale := math.Pow(10, -float64(rng.IntN(9)))
		lon, lat := rng.Float64()*360-180, rng.Float64()*180-90
		west, south := max(lon-scale*rng.Float64()*180, -180), max(lat-scale*rng.Float64()*90, -90)
		east, north := min(lon+scale*rng.Float64()*180, 180), min(lat+scale*rng.Float64()*90, 90)
		inside, border := Box(west, south, east, north)
		if len(inside)+len(border) > boxRangesMax+4 {
			t.Fatalf("seed %d: %d ranges", seed, len(inside)+len(border))
		}
		in := func(term string, ranges []Range) bool {
			return slices.ContainsFunc(ranges, func(r Range) bool { return term >= r.From && term < r.To })
		}
		check := func(x, y float64) {
			term := Place(x, y)
			holds := x >= west && x <= east && y >= south && y <= north
			if in(term, inside) && !holds || holds && !in(term, inside) && !in(term, border) {
				t.Fatalf("seed %d: %v,%v in box %v,%v to %v,%v: %v, inside %v, border %v", seed, x, y, west, south, east, north, holds,
					in(term, inside), in(term, border))
			}
		}
		for range 300 {
			check(west+(east-west)*(rng.Float64()*1.2-0.1), south+(north-south)*(rng.Float64()*1.2-0.1))
		}
		for _, x := range []float64{west, east, math.Nextafter(west, -200), math.Nextafter(east, 200)} {
			for _, y := range []float64{south, north, math.Nextafter(south, -100), math.Nextafter(north, 100)} {
				check(x, y)
			}
		}
	}
	if inside, border := Box(-180, -90, 180, 90); len(inside)+len(border) == 0 {
		t.Error("the whole earth is empty")
	}
}

// FuzzText: whatever is read as a term gives back what it came from.
func FuzzText(f *testing.F) {
	f.Add("sabc\x00\x01")
	f.Add("u0123456789abcdef")
	f.Add("n0123456789a")
	f.Fuzz(func(t *testing.T, term string) {
		if s, ok := Text(term); ok && len(s) <= StringBytesMax {
			if again, ok := Text(String(s)); !ok || again != s {
				t.Errorf("%q became %q", s, again)
			}
		}
		NumberOf(term)
		if d, ok := TimeOf(term); ok && Time(d) != term {
			t.Errorf("%q became %q", term, Time(d))
		}
	})
}
