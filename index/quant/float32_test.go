package quant

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

func newFloat32(tb testing.TB, d vectord.Distance, dim int) *Float32 {
	tb.Helper()
	f, err := NewFloat32(d, dim)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// alignedRows returns zeroed rows, aligned as those of an arena are.
func alignedRows(size int) []byte {
	var q Query
	q.reserve(size)
	return q.codes
}

func TestOrderOf(t *testing.T) {
	ascending := []float32{float32(math.Inf(-1)), -math.MaxFloat32, -2, -1, -math.SmallestNonzeroFloat32, 0,
		math.SmallestNonzeroFloat32, 1, 1.5, math.MaxFloat32, float32(math.Inf(1)), float32(math.NaN())}
	for i, x := range ascending[1:] {
		if orderOf(ascending[i]) >= orderOf(x) {
			t.Errorf("%v is not before %v", ascending[i], x)
		}
	}
	for _, x := range ascending[:len(ascending)-1] {
		if got := floatOf(orderOf(x)); got != x {
			t.Errorf("%v came back as %v", x, got)
		}
	}
	if a, b := orderOf(0), orderOf(float32(math.Copysign(0, -1))); a != b {
		t.Errorf("zeros at %d and %d", a, b)
	}
	if got := orderOf(-float32(math.NaN())); got != math.MaxInt32 {
		t.Errorf("a negative NaN at %d", got)
	}
}

func TestFloat32MeasuresExactly(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 0))
	for _, d := range distances {
		distance := index.DistanceFunc(d)
		for _, dim := range []int{1, 3, 16, 17, 100, 768} {
			f := newFloat32(t, d, dim)
			const count = 9
			rows := alignedRows(count * f.RowSize())
			vectors := make([][]float32, count)
			for i := range vectors {
				vectors[i] = gaussian(r, dim)
				f.EncodeRow(rows[i*f.RowSize():], vectors[i])
			}
			v := gaussian(r, dim)
			var q Query
			f.EncodeQuery(&q, v)
			got, scanned := make([]int32, count), make([]int32, count)
			slots := []uint32{8, 0, 3, 3, 1, 2, 7, 6, 5}
			f.Distances(got, &q, rows, slots)
			f.Scan(scanned, &q, rows)
			for i, slot := range slots {
				want := distance(v, vectors[slot])
				if x := f.Float(&q, got[i]); math.Abs(float64(x-want)) > 1e-5*(1+math.Abs(float64(want))) || got[i] != scanned[slot] {
					t.Errorf("%s, dimension %d: distance %v, scanned %v, want %v", d, dim, x, f.Float(&q, scanned[slot]), want)
				}
			}
			checkSymmetric(t, f, rows)
		}
	}
}

func gaussian(r *rand.Rand, dim int) []float32 {
	v := make([]float32, dim)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// checkSymmetric checks that the distances between rows do not depend on which of the two is the query, and that a copy of
// a row has the same distances.
func checkSymmetric(t *testing.T, c Codec, rows []byte) {
	t.Helper()
	size := c.RowSize()
	count := len(rows) / size
	copied := alignedRows(size)
	copy(copied, rows)
	table := make([][]int32, count)
	var q Query
	for i := range table {
		table[i] = make([]int32, count)
		c.QueryFromRow(&q, rows[i*size:])
		c.Scan(table[i], &q, rows)
		var first [1]int32
		c.Scan(first[:], &q, copied)
		if first[0] != table[i][0] {
			t.Fatalf("%s %s: row %d is at %d from row 0, at %d from its copy", c.Name(), c.Distance(), i, table[i][0], first[0])
		}
	}
	for i := range table {
		for j := range i {
			if table[i][j] != table[j][i] {
				t.Fatalf("%s %s: from row %d to %d it is %d, back %d", c.Name(), c.Distance(), i, j, table[i][j], table[j][i])
			}
		}
	}
}

func TestDecodeFloat32Refuses(t *testing.T) {
	good := newFloat32(t, vectord.Dot, 2).AppendBinary(nil)
	f := func(change func(b []byte) []byte, want string) {
		t.Helper()
		_, err := DecodeFloat32(change(bytes.Clone(good)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	f(func(b []byte) []byte { return b[:5] }, "5 bytes")
	f(func(b []byte) []byte { return append(b, 0) }, "7 bytes, not 6")
	f(func(b []byte) []byte { b[0] = 3; return b }, "version 3")
	f(func(b []byte) []byte { b[1] = 9; return b }, "distance 9")
	f(func(b []byte) []byte { b[2] = 0; return b }, "dimension 0")
	f(func(b []byte) []byte { b[5] = 1; return b }, "dimension 16777218")
}

// FuzzDecode decodes whatever form, and uses what came of it.
func FuzzDecode(f *testing.F) {
	for _, d := range distances {
		f.Add(newFloat32(f, d, 3).AppendBinary(nil))
		s, err := Train(d, 2, [][]float32{{1, 2}, {3, 5}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.AppendBinary(nil))
		for _, compression := range vectord.Compressions() {
			f.Add(trainProduct(f, d, [][]float32{{1, 2}, {3, 5}}, compression).AppendBinary(nil))
		}
		if d != vectord.Manhattan {
			f.Add(trainBinary(f, d, [][]float32{{1, 2}, {3, 5}}).AppendBinary(nil))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			return
		}
		if again := c.AppendBinary(nil); !bytes.Equal(again, b) {
			t.Fatalf("decoded % x, encoded % x", b, again)
		}
		v := make([]float32, c.Dim())
		for i := range v {
			v[i] = float32(i) - 3
		}
		rows := alignedRows(2 * c.RowSize())
		c.EncodeRow(rows, v)
		v[0] = math.MaxFloat32
		c.EncodeRow(rows[c.RowSize():], v)
		checkSymmetric(t, c, rows)
		var q Query
		c.EncodeQuery(&q, v)
		var dst [2]int32
		c.Scan(dst[:], &q, rows)
		c.Float(&q, dst[1])
		if n := c.Clipped(v); n < 0 || n > c.Dim() {
			t.Fatalf("%d of %d components clipped", n, c.Dim())
		}
	})
}

func BenchmarkFloat32Distances(b *testing.B) {
	for _, dim := range []int{100, 768} {
		b.Run(fmt.Sprint(dim), func(b *testing.B) {
			f := newFloat32(b, vectord.Dot, dim)
			rows := alignedRows(64 * f.RowSize())
			slots := make([]uint32, 16)
			for i := range slots {
				slots[i] = uint32(i * 37 % 64)
			}
			var q Query
			f.EncodeQuery(&q, make([]float32, dim))
			dst := make([]int32, len(slots))
			for b.Loop() {
				f.Distances(dst, &q, rows, slots)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(slots)), "ns/row")
		})
	}
}
