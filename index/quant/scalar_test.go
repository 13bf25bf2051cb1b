package quant

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// clusters returns n vectors around n/20 random centers, at an offset from the origin and with tails: one component in a
// hundred is ten times as far out.
func clusters(r *rand.Rand, d vectord.Distance, n, dim int) [][]float32 {
	centers := make([][]float32, max(n/20, 1))
	for i := range centers {
		centers[i] = make([]float32, dim)
		for j := range centers[i] {
			centers[i][j] = float32(r.NormFloat64())
		}
	}
	vectors := make([][]float32, n)
	for i := range vectors {
		v := make([]float32, dim)
		center := centers[r.IntN(len(centers))]
		for j := range v {
			v[j] = 0.3 + center[j] + 0.5*float32(r.NormFloat64())
			if r.IntN(100) == 0 {
				v[j] += 5 * float32(r.NormFloat64())
			}
		}
		if d == vectord.Cosine {
			vectord.Normalize(v)
		}
		vectors[i] = v
	}
	return vectors
}

func train(tb testing.TB, d vectord.Distance, sample [][]float32) *Scalar {
	tb.Helper()
	s, err := Train(d, len(sample[0]), sample)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func encode(s *Scalar, vectors [][]float32) []byte {
	rows := make([]byte, len(vectors)*s.RowSize())
	for i, v := range vectors {
		s.EncodeRow(rows[i*s.RowSize():], v)
	}
	return rows
}

// TestRanking is the promise to those who rescore: the true ten nearest are among the thirty nearest by the codes.
func TestRanking(t *testing.T) {
	const (
		seed    = 11
		count   = 3000
		queries = 50
		dim     = 100
	)
	for _, d := range distances {
		r := rand.New(rand.NewPCG(seed, uint64(d)))
		vectors := clusters(r, d, count+queries, dim)
		base, queryVectors := vectors[:count], vectors[count:]
		s := train(t, d, base)
		rows := encode(s, base)
		flat := index.NewFlat(d, dim)
		for i, v := range base {
			flat.Add(uint32(i), v)
		}
		dst := make([]int32, count)
		var q Query
		var top index.Top
		found := 0
		for _, v := range queryVectors {
			s.EncodeQuery(&q, v)
			s.Scan(dst, &q, rows)
			top.Reset(30)
			for slot, x := range dst {
				top.Offer(index.Neighbor{Slot: uint32(slot), Distance: s.Float(&q, x)})
			}
			near := map[uint32]bool{}
			for _, n := range top.AppendSorted(nil) {
				near[n.Slot] = true
			}
			for _, n := range flat.Search(nil, v, 10, nil) {
				if near[n.Slot] {
					found++
				}
			}
		}
		if recall := float64(found) / (10 * queries); recall < 0.99 {
			t.Errorf("%s: recall@10 of the best 30 is %.3f, want at least 0.99 (seed %d)", d, recall, seed)
		}
	}
}

// TestDistancesFollowTheCodes compares the distances with those of the decoded rows.
func TestDistancesFollowTheCodes(t *testing.T) {
	const seed = 3
	for _, d := range distances {
		for _, dim := range []int{1, 2, 59, 60, 61, 63, 64, 65, 100, 128, 768} {
			r := rand.New(rand.NewPCG(seed, uint64(dim)))
			vectors := clusters(r, d, 40, dim)
			s := train(t, d, vectors)
			if s.RowSize()%rowAlign != 0 || s.RowSize() < dim {
				t.Fatalf("%s, dimension %d: row size %d", d, dim, s.RowSize())
			}
			rows := encode(s, vectors)
			decoded := make([][]float32, len(vectors))
			for i := range decoded {
				decoded[i] = make([]float32, dim)
				for j := range decoded[i] {
					decoded[i][j] = float32(int(rows[i*s.RowSize()+j])-codeBias) * s.scale
				}
			}
			slots := []uint32{39, 0, 7, 7, 20, 3}
			dst := make([]int32, len(slots))
			scan := make([]int32, len(vectors))
			var q Query
			for from := range vectors {
				s.QueryFromRow(&q, rows[from*s.RowSize():])
				s.Distances(dst, &q, rows, slots)
				s.Scan(scan, &q, rows)
				for i, slot := range slots {
					if dst[i] != scan[slot] {
						t.Fatalf("%s, dimension %d: Distances gives %d and Scan %d", d, dim, dst[i], scan[slot])
					}
					got, want := s.Float(&q, dst[i]), index.DistanceFunc(d)(decoded[from], decoded[slot])
					if math.Abs(float64(got-want)) > 1e-4*math.Abs(float64(want))+1e-4 {
						t.Fatalf("%s, dimension %d: distance of rows %d and %d is %v, want %v (seed %d)", d, dim, from, slot, got, want, seed)
					}
				}
			}
		}
	}
}

// TestManyRows compares more rows than one call of a kernel may.
func TestManyRows(t *testing.T) {
	f := func(d vectord.Distance, dim, count int) {
		t.Helper()
		s := newScalar(d, dim, 1, nil)
		if d != vectord.Manhattan && count <= s.callRows() {
			t.Fatalf("dimension %d: %d rows fit into one call", dim, count)
		}
		rows := make([]byte, count*s.RowSize())
		v := make([]float32, dim)
		for i := range count {
			v[0], v[dim-1] = float32(i%100), float32(i/100)
			s.EncodeRow(rows[i*s.RowSize():], v)
		}
		var q Query
		s.EncodeQuery(&q, v)
		slots := make([]uint32, count)
		for i := range slots {
			slots[i] = uint32(count - 1 - i)
		}
		scan, gathered := make([]int32, count), make([]int32, count)
		s.Scan(scan, &q, rows)
		s.Distances(gathered, &q, rows, slots)
		for i := range count {
			if want := int32(exactDistance(d, &q, rows[i*s.RowSize():][:s.RowSize()])); scan[i] != want || gathered[count-1-i] != want {
				t.Fatalf("%s, dimension %d, row %d: Scan gives %d, Distances %d, want %d", d, dim, i, scan[i], gathered[count-1-i], want)
			}
		}
	}
	f(vectord.Dot, 64, 2500)
	f(vectord.Euclid, 100, 1300)
	f(vectord.Dot, vectord.MaxDimension, 5)
	f(vectord.Manhattan, 64, 257)
}

func TestRowQueryIsSymmetric(t *testing.T) {
	for _, d := range distances {
		vectors := clusters(rand.New(rand.NewPCG(5, 5)), d, 30, 70)
		s := train(t, d, vectors)
		rows := encode(s, vectors)
		var qa, qb Query
		var ab, ba [1]int32
		for a := range uint32(30) {
			for b := range uint32(30) {
				s.QueryFromRow(&qa, rows[int(a)*s.RowSize():])
				s.QueryFromRow(&qb, rows[int(b)*s.RowSize():])
				s.Distances(ab[:], &qa, rows, []uint32{b})
				s.Distances(ba[:], &qb, rows, []uint32{a})
				if ab != ba {
					t.Fatalf("%s: distance from %d to %d is %d, back %d", d, a, b, ab[0], ba[0])
				}
				if a == b && centered(d) && ab[0] != 0 {
					t.Fatalf("%s: distance of row %d to itself is %d", d, a, ab[0])
				}
			}
		}
	}
}

// TestLargestDistances measures the most distant rows that there are: no distance may wrap.
func TestLargestDistances(t *testing.T) {
	f := func(d vectord.Distance, dim int, want int32) {
		t.Helper()
		s := newScalar(d, dim, 1, nil)
		low, high := make([]float32, dim), make([]float32, dim)
		for i := range low {
			low[i], high[i] = -1000, 1000
		}
		rows := encode(s, [][]float32{low, high})
		var q Query
		var dst [1]int32
		for _, v := range [][]float32{low, high} {
			s.EncodeQuery(&q, v)
			other := uint32(0)
			if v[0] < 0 {
				other = 1
			}
			s.Distances(dst[:], &q, rows, []uint32{other})
			if dst[0] != want {
				t.Errorf("%s, dimension %d: distance %d, want %d", d, dim, dst[0], want)
			}
		}
	}
	f(vectord.Dot, 1, 127*127)
	f(vectord.Dot, vectord.MaxDimension, 127*127*vectord.MaxDimension)
	f(vectord.Cosine, vectord.MaxDimension, 127*127*vectord.MaxDimension)
	f(vectord.Manhattan, vectord.MaxDimension, 254*vectord.MaxDimension)
	f(vectord.Euclid, 33_286, 254*254*33_286)
	f(vectord.Euclid, 33_287, 126*126*33_287)
	f(vectord.Euclid, vectord.MaxDimension, 126*126*vectord.MaxDimension)
}

func TestQueryOfAnyLength(t *testing.T) {
	vectors := clusters(rand.New(rand.NewPCG(2, 2)), vectord.Dot, 200, 64)
	s := train(t, vectord.Dot, vectors)
	rows := encode(s, vectors)
	long := make([]float32, 64)
	for i, x := range vectors[0] {
		long[i] = 1024 * x // a power of two, so that the codes are the same
	}
	var q, ql Query
	s.EncodeQuery(&q, vectors[0])
	s.EncodeQuery(&ql, long)
	dst, dstLong := make([]int32, 200), make([]int32, 200)
	s.Scan(dst, &q, rows)
	s.Scan(dstLong, &ql, rows)
	for i := range dst {
		if dst[i] != dstLong[i] {
			t.Fatalf("row %d: distance %d to a query and %d to one 1024 times as long", i, dst[i], dstLong[i])
		}
		if a, b := s.Float(&q, dst[i]), s.Float(&ql, dst[i]); math.Abs(float64(1024*a-b)) > 1e-3*math.Abs(float64(b)) {
			t.Fatalf("row %d: approximate distance %v to a query and %v to one 1024 times as long", i, a, b)
		}
	}
}

func TestCodes(t *testing.T) {
	s := newScalar(vectord.Dot, 1, 0.5, nil)
	row := make([]byte, s.RowSize())
	f := func(x float32, want int) {
		t.Helper()
		s.EncodeRow(row, []float32{x})
		if got := int(row[0]) - codeBias; got != want {
			t.Errorf("code of %v is %d, want %d", x, got, want)
		}
	}
	inf := float32(math.Inf(1))
	f(0, 0)
	f(0.5, 1)
	f(-0.5, -1)
	f(0.74, 1)
	f(0.76, 2)
	f(-0.74, -1)
	f(-0.76, -2)
	f(63.5, 127)
	f(64, 127)
	f(-64, -127)
	f(math.MaxFloat32, 127)
	f(-inf, -127)
	f(inf, 127)
	f(float32(math.NaN()), 0)
}

func TestTrainRefuses(t *testing.T) {
	f := func(d vectord.Distance, dim int, sample [][]float32, want string) {
		t.Helper()
		_, err := Train(d, dim, sample)
		if err == nil || !strings.Contains(err.Error(), want) || vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("Train(%d, %d, %v) = %v, want an error with %q", d, dim, sample, err, want)
		}
	}
	one := [][]float32{{1, 2}}
	f(0, 2, one, "distance 0 is unknown")
	f(5, 2, one, "distance 5 is unknown")
	f(vectord.Dot, 0, one, "dimension 0")
	f(vectord.Dot, -1, one, "dimension -1")
	f(vectord.Dot, vectord.MaxDimension+1, one, "dimension 65537")
	f(vectord.Dot, 2, nil, "empty")
	f(vectord.Dot, 3, one, "length 2, not 3")
	f(vectord.Dot, 2, [][]float32{{1, 2}, {1}}, "length 1, not 2")
	f(vectord.Dot, 2, [][]float32{{1, float32(math.NaN())}}, "NaN")
	f(vectord.Dot, 2, [][]float32{{1, float32(math.Inf(-1))}}, "-Inf")
}

// TestTrainOddSamples trains on samples that say little. What comes out must still tell near from far.
func TestTrainOddSamples(t *testing.T) {
	const huge = math.MaxFloat32
	f := func(name string, sample ...[]float32) {
		t.Helper()
		for _, d := range distances {
			s := train(t, d, sample)
			again, err := DecodeScalar(s.AppendBinary(nil))
			if err != nil {
				t.Errorf("%s, %s: %v", name, d, err)
				continue
			}
			for i, v := range sample {
				a, b := make([]byte, s.RowSize()), make([]byte, s.RowSize())
				s.EncodeRow(a, v)
				again.EncodeRow(b, v)
				if !bytes.Equal(a, b) {
					t.Errorf("%s, %s: vector %d encodes otherwise after decoding the quantizer", name, d, i)
				}
			}
		}
	}
	f("one zero", []float32{0, 0})
	f("one", []float32{3, 4})
	f("equal", []float32{3, 4}, []float32{3, 4}, []float32{3, 4})
	f("tiny", []float32{1e-45, 0}, []float32{0, 1e-45})
	f("huge", []float32{huge, -huge}, []float32{-huge, huge}, []float32{huge, huge})

	s := train(t, vectord.Euclid, [][]float32{{3, 4}})
	rows := encode(s, [][]float32{{3, 4}, {2, 4}, {-3, 4}})
	var q Query
	dst := make([]int32, 3)
	s.EncodeQuery(&q, []float32{3, 4})
	s.Scan(dst, &q, rows)
	if !(dst[0] == 0 && 0 < dst[1] && dst[1] < dst[2]) {
		t.Errorf("after a sample of one vector the distances are %d, want rising from 0", dst)
	}
}

func TestTrainIsDeterministic(t *testing.T) {
	for _, d := range distances {
		sample := clusters(rand.New(rand.NewPCG(9, 9)), d, 1500, 32)
		a, b := train(t, d, sample), train(t, d, sample)
		if !bytes.Equal(a.AppendBinary(nil), b.AppendBinary(nil)) {
			t.Errorf("%s: two trainings on one sample differ", d)
		}
	}
}

// TestTrainCutsTails trains on vectors of which one component in 20,000 is so far out that a range with it would leave a
// few steps for all others.
func TestTrainCutsTails(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	sample := make([][]float32, 2000)
	for i := range sample {
		sample[i] = make([]float32, 50)
		for j := range sample[i] {
			sample[i][j] = float32(r.NormFloat64())
		}
		if i%400 == 0 {
			sample[i][0] = 1000
		}
	}
	for _, d := range []vectord.Distance{vectord.Euclid, vectord.Manhattan} {
		s := train(t, d, sample)
		if reach := s.scale * codeLimit; reach < 3 || reach > 10 {
			t.Errorf("%s: the codes reach to %v, want about 4, where all but the outliers are", d, reach)
		}
		few := train(t, d, sample[:judgeRowsMin-1])
		if reach := few.scale * codeLimit; reach < 990 {
			t.Errorf("%s: after a small sample the codes reach to %v, want all of it", d, reach)
		}
	}
}

func TestMagnitudes(t *testing.T) {
	sample := make([][]float32, 10_000)
	for i := range sample {
		sample[i] = []float32{float32(i+1) * float32(1-2*(i%2))}
	}
	m := measure(sample, nil)
	f := func(q float64, want float32) {
		t.Helper()
		if got := m.quantile(q); got < want || got > want*(1+1.0/64) {
			t.Errorf("quantile %v is %v, want %v or little more", q, got, want)
		}
	}
	f(1, 10_000)
	f(0.9999, 9_999)
	f(0.999, 9_990)
	f(0.5, 5_000)
	if got := m.quantile(1); got != 10_000 {
		t.Errorf("quantile 1 is %v, want the peak", got)
	}
}

func TestDecodeScalarRefuses(t *testing.T) {
	good := train(t, vectord.Euclid, [][]float32{{1, 2}, {3, 5}}).AppendBinary(nil)
	f := func(change func(b []byte) []byte, want string) {
		t.Helper()
		_, err := DecodeScalar(change(bytes.Clone(good)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	set := func(at int, x ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], x); return b }
	}
	f(func(b []byte) []byte { return nil }, "0 bytes")
	f(func(b []byte) []byte { return b[:13] }, "13 bytes")
	f(func(b []byte) []byte { return b[:len(b)-1] }, "center of 7 bytes, not 8")
	f(func(b []byte) []byte { return append(b, 0) }, "center of 9 bytes, not 8")
	f(set(0, 2), "version 2")
	f(set(1, 0), "distance 0")
	f(set(1, 9), "distance 9")
	f(set(1, byte(vectord.Dot)), "center of 8 bytes, not 0")
	f(set(2, 0, 0, 0, 0), "dimension 0")
	f(set(2, 1, 0, 1, 0), "dimension 65537")
	f(set(2, 255, 255, 255, 255), "dimension 4294967295")
	f(set(6, 0, 0, 0, 0), "scale 0")
	f(set(6, 0, 0, 0, 0x80), "scale -0")
	f(set(6, 0, 0, 0x80, 0x7f), "scale +Inf")
	f(set(6, 0, 0, 0xc0, 0x7f), "scale NaN")
	f(set(10, 0, 0, 0xc0, 0x7f), "quantile NaN")
	f(set(10, 0, 0, 0, 0x3e), "quantile 0.125")
	f(set(18, 0, 0, 0x80, 0x7f), "component 1 of the center is +Inf")
}

func FuzzDecodeScalar(f *testing.F) {
	for _, d := range distances {
		s, err := Train(d, 2, [][]float32{{1, 2}, {3, 5}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s.AppendBinary(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeScalar(b)
		if err != nil {
			return
		}
		if again := s.AppendBinary(nil); !bytes.Equal(again, b) {
			t.Fatalf("decoded % x, encoded % x", b, again)
		}
		v := make([]float32, s.Dim())
		for i := range v {
			v[i] = float32(i) - 3
		}
		row := make([]byte, s.RowSize())
		s.EncodeRow(row, v)
		var q Query
		s.EncodeQuery(&q, v)
		var dst [1]int32
		s.Scan(dst[:], &q, row)
		if centered(s.Distance()) && dst[0] != 0 {
			t.Fatalf("distance of a vector to its own row is %d", dst[0])
		}
	})
}
