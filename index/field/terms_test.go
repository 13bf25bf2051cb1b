package field

import (
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// Terms of numbers are in the order of the numbers, ints and floats in one, and give them back.
func TestNumbers(t *testing.T) {
	type value struct {
		exact   *big.Float
		term    string
		integer bool
	}
	var values []value
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	ints := []int64{0, 1, -1, math.MaxInt64, math.MaxInt64 - 1, math.MinInt64, math.MinInt64 + 1, 1 << 53, 1<<53 + 1, 1<<53 + 2, -1<<53 - 1,
		math.MaxInt64 - 511, math.MaxInt64 - 512, math.MaxInt64 - 513}
	for range 300 {
		ints = append(ints, int64(rng.Uint64())>>rng.IntN(64))
	}
	exact := func() *big.Float { return new(big.Float).SetPrec(80) }
	for _, n := range ints {
		values = append(values, value{exact().SetInt64(n), Int(n), true})
		if got, _, integer, ok := Number(Int(n)); got != n || !integer || !ok {
			t.Errorf("the term of %d gives back %d %v %v", n, got, integer, ok)
		}
	}
	floats := []float64{0, math.Copysign(0, -1), 1, 1.5, -1.5, 1 << 53, 1 << 63, -1 << 63, math.MaxFloat64, -math.MaxFloat64,
		math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1)}
	for range 300 {
		floats = append(floats, rng.NormFloat64()*math.Pow(10, float64(rng.IntN(40)-20)))
	}
	for _, x := range floats {
		values = append(values, value{exact().SetFloat64(x), Float(x), false})
		if _, got, integer, ok := Number(Float(x)); got != x || integer || !ok {
			t.Errorf("the term of %v gives back %v %v %v", x, got, integer, ok)
		}
	}
	for _, a := range values {
		for _, b := range values {
			order := a.exact.Cmp(b.exact)
			if order == 0 && a.integer == b.integer && a.term != b.term || order < 0 && a.term >= b.term {
				t.Fatalf("seed %d: %v and %v have terms %x and %x", seed, a.exact, b.exact, a.term, b.term)
			}
		}
		x, _ := a.exact.Float64()
		for _, b := range values {
			y, _ := b.exact.Float64()
			for _, after := range []bool{false, true} {
				r := NumberRange(x, after, y, after)
				for _, c := range values[:20] {
					z, _ := c.exact.Float64()
					want := z >= x && z <= y
					if after {
						want = z > x && z < y
					}
					if got := c.term >= r.From && c.term < r.To; got != want {
						t.Fatalf("seed %d: %v from %v to %v, without the ends %v: %v", seed, z, x, y, after, got)
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
	moments := []int64{math.MinInt64, -1, 0, 1, math.MaxInt64}
	for i, m := range moments {
		if got, ok := Micros(Time(m)); got != m || !ok {
			t.Errorf("moment %d became %d %v", m, got, ok)
		}
		for j, from := range moments {
			for k, to := range moments {
				r := TimeRange(from, to)
				if in := Time(m) >= r.From && Time(m) < r.To; in != (i >= j && i <= k) {
					t.Errorf("moment %d is from %d to %d: %v", m, from, to, in)
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
		if n, _, integer, ok := Number(term); ok && integer {
			if again, _, _, _ := Number(Int(n)); again != n {
				t.Errorf("%d became %d", n, again)
			}
		}
		if micros, ok := Micros(term); ok && Time(micros) != term {
			t.Errorf("%q became %q", term, Time(micros))
		}
	})
}
