package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// floatsByTheBook is what parseFloats must agree with: encoding/json decides what is an array of numbers, strconv what
// each of them is.
func floatsByTheBook(b []byte) ([]float32, bool) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var values []any
	if !json.Valid(b) || d.Decode(&values) != nil || values == nil || len(values) > vectord.MaxDimension {
		return nil, false
	}
	out := make([]float32, 0, len(values))
	for _, v := range values {
		n, ok := v.(json.Number)
		if !ok {
			return nil, false
		}
		f, err := strconv.ParseFloat(string(n), 32)
		if err != nil {
			return nil, false
		}
		out = append(out, float32(f))
	}
	return out, true
}

func checkFloats(t *testing.T, b []byte) {
	t.Helper()
	want, ok := floatsByTheBook(b)
	got, err := parseFloats(b)
	if (err == nil) != ok {
		t.Fatalf("parseFloats(%q) = %v, %v; encoding/json accepts it: %v", b, got, err, ok)
	}
	if err != nil {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("parseFloats(%q) gives %d numbers, want %d", b, len(got), len(want))
	}
	for i := range got {
		if math.Float32bits(got[i]) != math.Float32bits(want[i]) {
			t.Fatalf("parseFloats(%q)[%d] = %b, want %b", b, i, got[i], want[i])
		}
	}
}

func TestParseFloats(t *testing.T) {
	for _, s := range []string{
		``, ` `, `[`, `[]`, ` [ ] `, `[]]`, `[1`, `[1,`, `[1,]`, `[,1]`, `[1 2]`, `[1]x`, `null`, `[null]`, `{}`, `["1"]`, `[[1]]`,
		`[0]`, `[-0]`, `[00]`, `[-]`, `[+1]`, `[.5]`, `[1.]`, `[1.e2]`, `[1e]`, `[1e+]`, `[1E-2]`, `[-1.5e+3]`, `[0x1p-2]`, `[1_0]`,
		`[NaN]`, `[Infinity]`, `[-Infinity]`, `[1e38, 3.4028235e38, 3.4028236e38]`, `[3.40282356779733661637539395458142568447e38]`,
		`[3.40282356779733661637539395458142568448e38]`, `[1e39]`, `[1e999]`, `[1e-999]`, `[1e99999999999999999999]`,
		`[1e-99999999999999999999]`, `[0e99999999999999999999]`, `[1.401298464324817e-45, 7.006492321624085e-46, 7.1e-46]`,
		`[1.1754943508222875e-38, 1.1754942e-38, 1.17549431578e-38]`,
		`[16777217, 16777219, 16777217.0000000001, 16777216.9999999999]`, // halfway between two float32s, and just beside it
		`[1.00000005960464477539062500, 1.00000005960464477539062501, 1.0000000596046447, 1.00000005960464478]`,
		`[18446744073709551615, 18446744073709551616, 9999999999999999999, 10000000000000000000]`,
		`[123456789012345678901234567890e-20, 0.00000000000000000000000000000123456]`,
	} {
		checkFloats(t, []byte(s))
	}
}

func TestParseFloatsOfRandomNumbers(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 100_000 {
		var s string
		switch r.IntN(6) {
		case 0: // any float64 of the range, as JavaScript and Python print it
			s = strconv.FormatFloat(math.Float64frombits(r.Uint64()), 'g', -1, 64)
		case 1: // a component of a unit vector
			s = strconv.FormatFloat(r.NormFloat64()/20, 'g', -1, 64)
		case 2:
			s = strconv.FormatFloat(float64(math.Float32frombits(r.Uint32())), 'g', -1, 32)
		case 3: // exactly between two float32s
			x := math.Float32frombits(r.Uint32())
			y := math.Nextafter32(x, 2)
			s = strconv.FormatFloat((float64(x)+float64(y))/2, 'f', -1, 64)
		case 4: // beside the middle, by less than 19 digits show
			x := r.Float32()
			middle := (float64(x) + float64(math.Nextafter32(x, 2))) / 2
			s = strconv.FormatFloat(middle, 'f', 15+r.IntN(10), 64)
		case 5:
			s = fmt.Sprintf("%d.%de%d", r.Uint64()>>r.IntN(64), r.Uint64()>>r.IntN(64), r.IntN(80)-40)
		}
		checkFloats(t, []byte("["+s+"]"))
	}
}

func TestParseFloatsErrors(t *testing.T) {
	f := func(in, want string) {
		t.Helper()
		if _, err := parseFloats([]byte(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseFloats(%.40q): %v, want %q", in, err, want)
		}
	}
	f(`[0.5, 1e39]`, "value 1e39 at index 1 is out of the range of a 32-bit float")
	f(`[0.5, "a"]`, `expected a number at index 1, got "a"`)
	f(`[1 2]`, "expected , or ] after index 0, got 2")
	f(`3`, "expected an array of numbers, got 3")
	f("["+strings.Repeat("0,", vectord.MaxDimension)+"0]", "65537 components, at most 65536 are accepted")
}

func TestParseFloatsAllocatesTheResultOnly(t *testing.T) {
	b := floatsAsJSON(384)
	if n := testing.AllocsPerRun(100, func() { _, _ = parseFloats(b) }); n != 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}

func FuzzParseFloats(f *testing.F) {
	f.Add([]byte(`[1, -2.5e-3, 0.049399558454751970, 16777217]`))
	f.Add([]byte(`[1e39]`))
	f.Add([]byte(` [ ] `))
	f.Fuzz(func(t *testing.T, b []byte) { checkFloats(t, b) })
}

func floatsAsJSON(n int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := []byte{'['}
	for i := range n {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendFloat(b, r.NormFloat64()/20, 'g', -1, 64)
	}
	return append(b, ']')
}

func BenchmarkParseFloats(b *testing.B) {
	in := floatsAsJSON(384)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseFloats(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodingJSONFloats(b *testing.B) {
	in := floatsAsJSON(384)
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		var v []float32
		if err := json.Unmarshal(in, &v); err != nil {
			b.Fatal(err)
		}
	}
}
