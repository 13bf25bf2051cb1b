package quant

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

func trainProduct(tb testing.TB, d vectord.Distance, sample [][]float32, compression int) *Product {
	tb.Helper()
	p, err := TrainProduct(d, len(sample[0]), sample, compression)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// rowsOf returns the rows of vectors.
func rowsOf(c Codec, vectors [][]float32) []byte {
	rows := alignedRows(len(vectors) * c.RowSize())
	for i, v := range vectors {
		c.EncodeRow(rows[i*c.RowSize():], v)
	}
	return rows
}

// decode returns the vector that a row stands for.
func (p *Product) decode(row []byte) []float32 {
	var v []float32
	for piece := range p.pieces() {
		v = append(v, p.centroid(piece, int(row[piece]))[:p.starts[piece+1]-p.starts[piece]]...)
	}
	return v
}

// TestProductDistancesFollowTheCodes compares the distances with those of the decoded rows.
func TestProductDistancesFollowTheCodes(t *testing.T) {
	const seed = 3
	for _, d := range distances {
		exact := index.DistanceFunc(d)
		for _, dim := range []int{1, 3, 16, 17, 100} {
			r := rand.New(rand.NewPCG(seed, uint64(dim)))
			vectors := clusters(r, d, 300, dim)
			query := clusters(r, d, 1, dim)[0]
			for _, compression := range vectord.Compressions() {
				p := trainProduct(t, d, vectors[:280], compression)
				if want := alignRow((dim*4 + compression - 1) / compression); p.RowSize() != want {
					t.Fatalf("dimension %d at %d: row size %d, want %d", dim, compression, p.RowSize(), want)
				}
				rows := rowsOf(p, vectors)
				decoded := make([][]float32, len(vectors))
				for i := range decoded {
					decoded[i] = p.decode(rows[i*p.RowSize():])
					if len(decoded[i]) != dim {
						t.Fatalf("dimension %d at %d: %d components", dim, compression, len(decoded[i]))
					}
				}
				slots := []uint32{299, 0, 7, 7, 20, 3}
				dst, scan := make([]int32, len(slots)), make([]int32, len(vectors))
				var q Query
				check := func(name string, v []float32) {
					t.Helper()
					p.Distances(dst, &q, rows, slots)
					p.Scan(scan, &q, rows)
					for i, slot := range slots {
						if dst[i] != scan[slot] {
							t.Fatalf("%s, dimension %d at %d, %s: Distances gives %d and Scan %d", d, dim, compression, name, dst[i], scan[slot])
						}
					}
					for i, x := range scan {
						got, want := p.Float(&q, x), exact(v, decoded[i])
						if math.Abs(float64(got-want)) > 1e-4*(1+math.Abs(float64(want))) {
							t.Fatalf("%s, dimension %d at %d: distance of %s to row %d is %v, want %v (seed %d)", d, dim, compression, name, i, got, want, seed)
						}
						if p.Quantum(&q, got) != x {
							t.Fatalf("%v came back from %d as %d", got, x, p.Quantum(&q, got))
						}
					}
				}
				p.EncodeQuery(&q, query)
				check("a query", query)
				p.QueryFromRow(&q, rows[5*p.RowSize():])
				check("a row", decoded[5])
				checkSymmetric(t, p, rows[:20*p.RowSize()])
			}
		}
	}
}

// TestProductCodesAreTheNearest looks for better centroids than those that the rows name.
func TestProductCodesAreTheNearest(t *testing.T) {
	vectors := clusters(rand.New(rand.NewPCG(8, 8)), vectord.Euclid, 1000, 50)
	for _, compression := range vectord.Compressions() {
		p := trainProduct(t, vectord.Dot, vectors, compression)
		rows := rowsOf(p, vectors)
		for i, v := range vectors[:50] {
			for piece := range p.pieces() {
				part := v[p.starts[piece]:p.starts[piece+1]]
				distance := func(c int) float64 {
					sum := 0.0
					for j, x := range part {
						sum += math.Pow(float64(x)-float64(p.centroid(piece, c)[j]), 2)
					}
					return sum
				}
				chosen := distance(int(rows[i*p.RowSize()+piece]))
				for c := range productCentroids {
					if distance(c) < chosen*(1-1e-5)-1e-9 {
						t.Fatalf("at %d, vector %d, piece %d: centroid %d is nearer than the one chosen", compression, i, piece, c)
					}
				}
			}
		}
	}
}

// TestProductRanking measures how many of the true ten nearest are among the thirty nearest by the codes, of vectors without
// clusters whose components vary less and less.
func TestProductRanking(t *testing.T) {
	const seed, count, queries, dim = 11, 2000, 20, 100
	for _, d := range distances {
		r := rand.New(rand.NewPCG(seed, uint64(d)))
		vectors := make([][]float32, count+queries)
		for i := range vectors {
			vectors[i] = gaussian(r, dim)
			for j := range vectors[i] {
				vectors[i][j] /= 1 + float32(j)/10
			}
			if d == vectord.Cosine {
				vectord.Normalize(vectors[i])
			}
		}
		base := vectors[:count]
		flat := index.NewFlat(d, dim)
		for i, v := range base {
			flat.Add(uint32(i), v)
		}
		for compression, least := range map[int]float64{4: 0.99, 8: 0.98, 16: 0.8, 32: 0.5, 64: 0.3} {
			p := trainProduct(t, d, base, compression)
			rows := rowsOf(p, base)
			dst := make([]int32, count)
			var q Query
			found := 0
			for _, v := range vectors[count:] {
				p.EncodeQuery(&q, v)
				p.Scan(dst, &q, rows)
				for _, n := range flat.Search(nil, v, 10, nil) {
					rank := 0
					for _, x := range dst {
						if x < dst[n.Slot] {
							rank++
						}
					}
					if rank < 30 {
						found++
					}
				}
			}
			recall := float64(found) / (10 * queries)
			t.Logf("%s at %d: recall@10 of the best 30 is %.3f", d, compression, recall)
			if recall < least {
				t.Errorf("%s at %d: recall@10 of the best 30 is %.3f, want at least %.2f (seed %d)", d, compression, recall, least, seed)
			}
		}
	}
}

// TestProductIsTheSameEverywhere holds the bits of rows and distances, training included, which shall not depend on the machine.
func TestProductIsTheSameEverywhere(t *testing.T) {
	hash := sha256.New()
	for _, d := range distances {
		for _, compression := range vectord.Compressions() {
			r := rand.New(rand.NewPCG(uint64(compression), 0))
			sample := make([][]float32, 400)
			for i := range sample {
				sample[i] = make([]float32, 37)
				for j := range sample[i] {
					sample[i][j] = r.Float32() - 0.25
				}
			}
			p := trainProduct(t, d, sample, compression)
			hash.Write(p.AppendBinary(nil))
			rows := rowsOf(p, sample)
			hash.Write(rows)
			dst := make([]int32, len(sample))
			var q Query
			for i, v := range sample[:20] {
				p.EncodeQuery(&q, v)
				p.Scan(dst, &q, rows)
				fmt.Fprint(hash, dst)
				p.QueryFromRow(&q, rows[i*p.RowSize():])
				p.Scan(dst, &q, rows)
				fmt.Fprint(hash, dst)
			}
		}
	}
	const want = "faa9b25182074ccc9b732e61ba4fbe6a01b553ffb68bcd8895e7bad4b6589c91"
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		t.Errorf("codes and distances have the hash %s, want %s", got, want)
	}
}

// TestProductKernelsAgree compares the kernels of all levels with those in Go, bit for bit.
func TestProductKernelsAgree(t *testing.T) {
	const seed, count = 7, 13
	r := rand.New(rand.NewPCG(seed, 0))
	levels := levels(t)
	for _, d := range distances {
		for _, dim := range []int{1, 7, 8, 16, 31, 100, 513} {
			for _, compression := range vectord.Compressions() {
				p := newProduct(d, dim, compression)
				for piece := range p.pieces() {
					p.setCentroids(piece, gaussian(r, productCentroids*p.width))
				}
				rows := make([]byte, 64+count*p.rowSize)[r.IntN(64):][:count*p.rowSize] // alignment is for speed only
				for i := range count {
					for piece := range p.pieces() {
						rows[i*p.rowSize+piece] = byte(r.Uint32())
					}
				}
				var q Query
				p.pad(&q, gaussian(r, dim))
				slots := make([]uint32, 1+r.IntN(12))
				for i := range slots {
					slots[i] = uint32(r.IntN(count))
				}
				slots[0], slots[len(slots)-1] = count-1, 0
				want := make([]float32, len(slots))
				p.comparePortable(want, q.vector, rows, slots)
				var wantTable [productCentroids]float32
				tabulatePortable(d, &wantTable, q.vector[:p.width], p.of(0))
				for _, l := range levels {
					const canary = 12345
					got := slices.Repeat([]float32{canary}, len(slots)+1)
					p.compareAt(l, got[:len(slots)], q.vector, rows, slots)
					if !slices.Equal(got[:len(slots)], want) || got[len(slots)] != canary {
						t.Fatalf("%s: %s, dimension %d at %d:\ngot  %v\nwant %v (seed %d)", l, d, dim, compression, got, want, seed)
					}
					var table [productCentroids]float32
					if tabulateAt(l, d, &table, q.vector[:p.width], p.of(0)); table != wantTable {
						t.Fatalf("%s: table of %s at %d differs (seed %d)", l, d, compression, seed)
					}
				}
			}
		}
	}
	for range 10_000 {
		var table [productCentroids]float32
		for i, n := 0, 1+r.IntN(1000); i < len(table); i++ {
			table[i] = float32(r.IntN(n) - n/2)
		}
		want := leastOfPortable(&table)
		if least := slices.Min(table[:]); table[want] != least || slices.Index(table[:], least) != int(want) {
			t.Fatalf("place %d of %v is not the least (seed %d)", want, table, seed)
		}
		for _, l := range levels {
			if got := leastOfAt(l, &table); got != want {
				t.Fatalf("%s: the least of %v is at %d, got %d (seed %d)", l, table, want, got, seed)
			}
		}
	}
}

// TestProductManyRows compares more rows than one call of a kernel may, and vectors that are too long for tables.
func TestProductManyRows(t *testing.T) {
	f := func(dim, compression, count int, tables bool) {
		t.Helper()
		r := rand.New(rand.NewPCG(1, uint64(dim)))
		p := trainProduct(t, vectord.Euclid, [][]float32{gaussian(r, dim), gaussian(r, dim), gaussian(r, dim)}, compression)
		if count <= p.callRows() {
			t.Fatalf("dimension %d: %d rows fit into one call", dim, count)
		}
		rows := alignedRows(count * p.RowSize())
		slots := make([]uint32, count)
		for i := range slots {
			slots[i] = uint32(count - 1 - i)
			for piece := range p.pieces() {
				rows[i*p.RowSize()+piece] = byte(r.IntN(3))
			}
		}
		v := gaussian(r, dim)
		var q Query
		p.EncodeQuery(&q, v)
		if got := len(q.tables) > 0; got != tables {
			t.Fatalf("dimension %d at %d: there are tables: %v", dim, compression, got)
		}
		scan, gathered := make([]int32, count), make([]int32, count)
		p.Scan(scan, &q, rows)
		p.Distances(gathered, &q, rows, slots)
		exact := index.DistanceFunc(vectord.Euclid)
		for i := range count {
			want := exact(v, p.decode(rows[i*p.RowSize():]))
			if got := p.Float(&q, scan[i]); math.Abs(float64(got-want)) > 1e-4*float64(want) || gathered[count-1-i] != scan[i] {
				t.Fatalf("dimension %d, row %d: Scan gives %v, Distances %v, want %v", dim, i, got, p.Float(&q, gathered[count-1-i]), want)
			}
		}
	}
	f(100, 16, 700, true)
	f(productTables, 4, 20, true)
	f(productTables+1, 4, 20, false)
	f(productTables+8, 8, 20, true)
}

func TestTrainProductRefuses(t *testing.T) {
	f := func(d vectord.Distance, dim, compression int, sample [][]float32, want string) {
		t.Helper()
		_, err := TrainProduct(d, dim, sample, compression)
		var e *vectord.Error
		if !errors.As(err, &e) || e.Kind != vectord.KindInvalid || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one of KindInvalid with %q", err, want)
		}
	}
	one := [][]float32{{1, 2}}
	f(0, 2, 4, one, "distance 0 is unknown")
	f(vectord.Dot, 0, 4, one, "dimension 0")
	f(vectord.Dot, 2, 5, one, "compression 5 is not one of [4 8 16 32 64]")
	f(vectord.Dot, 2, 4, nil, "empty")
	f(vectord.Dot, 3, 4, one, "length 2, not 3")
	f(vectord.Dot, 2, 4, [][]float32{{1, float32(math.NaN())}}, "NaN")
}

// TestTrainProductOddSamples trains on samples that say little. Vectors of the sample are told apart where there is a
// centroid for each.
func TestTrainProductOddSamples(t *testing.T) {
	const huge = math.MaxFloat32
	f := func(name string, distinct bool, sample ...[]float32) {
		t.Helper()
		for _, d := range distances {
			for _, compression := range vectord.Compressions() {
				p := trainProduct(t, d, sample, compression)
				again, err := Decode(p.AppendBinary(nil))
				if err != nil {
					t.Errorf("%s, %s: %v", name, d, err)
					continue
				}
				rows := rowsOf(p, sample)
				if !bytes.Equal(rows, rowsOf(again, sample)) {
					t.Errorf("%s, %s at %d: the vectors encode otherwise after decoding the quantizer", name, d, compression)
				}
				for i, v := range sample {
					if decoded := p.decode(rows[i*p.RowSize():]); distinct && !slices.Equal(decoded, v) {
						t.Errorf("%s, %s at %d: %v became %v", name, d, compression, v, decoded)
					}
				}
				var q Query
				p.EncodeQuery(&q, sample[0])
				dst := make([]int32, len(sample))
				p.Scan(dst, &q, rows)
				if x := float64(p.Float(&q, dst[len(dst)-1])); math.IsNaN(x) || math.IsInf(x, 0) {
					t.Errorf("%s, %s at %d: a distance is %v", name, d, compression, x)
				}
			}
		}
	}
	f("one", true, []float32{1, 2, 3})
	f("zeros", true, []float32{0, 0}, []float32{0, 0})
	f("equal", true, []float32{1, 2}, []float32{1, 2}, []float32{1, 2})
	f("few", true, []float32{1, 2, 3, 4, 5}, []float32{-1, 7, 3, 9, 1}, []float32{2, 2, 2, 2, 2})
	f("huge", false, []float32{huge, -huge}, []float32{-huge, huge}, []float32{1, 1})
	f("tiny", false, []float32{math.SmallestNonzeroFloat32, 0}, []float32{0, math.SmallestNonzeroFloat32})
}

func TestProductClipped(t *testing.T) {
	p := trainProduct(t, vectord.Dot, [][]float32{{0, -1, 5}, {1, 1, 5}}, 16)
	f := func(want int, v ...float32) {
		t.Helper()
		if got := p.Clipped(v); got != want {
			t.Errorf("%d components of %v are clipped, want %d", got, v, want)
		}
	}
	f(0, 0, 0, 5)
	f(0, 1, -1, 5)
	f(1, 1.1, 1, 5)
	f(3, -0.1, -1.1, 4.9)
}

func TestDecodeProductRefuses(t *testing.T) {
	good := trainProduct(t, vectord.Euclid, [][]float32{{1, 2}, {3, 5}}, 8).AppendBinary(nil)
	f := func(change func(b []byte) []byte, want string) {
		t.Helper()
		_, err := DecodeProduct(change(bytes.Clone(good)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	set := func(at int, x ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], x); return b }
	}
	f(func(b []byte) []byte { return b[:6] }, "6 bytes")
	f(func(b []byte) []byte { return b[:len(b)-1] }, "2070 bytes, not 2071")
	f(func(b []byte) []byte { return append(b, 0) }, "2072 bytes, not 2071")
	f(set(0, 2), "version 2")
	f(set(1, 0), "distance 0")
	f(set(2, 0, 0, 0, 0), "dimension 0")
	f(set(2, 1, 0, 1, 0), "dimension 65537")
	f(set(6, 12), "compression 12")
	f(set(7, 0, 0, 0x80, 0x7f), "component +Inf")
	f(set(15, 0, 0, 0xc0, 0x7f), "component NaN")
	f(set(len(good)-4, 0, 0, 0x80, 0x5f), "component 1.8446744e+19")
}

func BenchmarkProduct(b *testing.B) {
	for _, dim := range []int{100, 768} {
		for _, compression := range vectord.Compressions() {
			r := rand.New(rand.NewPCG(1, 2))
			p := newProduct(vectord.Euclid, dim, compression)
			for piece := range p.pieces() {
				p.setCentroids(piece, gaussian(r, productCentroids*p.width))
			}
			v := gaussian(r, dim)
			rows := alignedRows(64 * p.RowSize())
			slots := make([]uint32, 16)
			for i := range slots {
				slots[i] = uint32(i * 37 % 64)
			}
			dst := make([]int32, len(slots))
			var q Query
			measure := func(name string, f func()) {
				b.Run(fmt.Sprintf("%s/%d/x%d", name, dim, compression), func(b *testing.B) {
					for b.Loop() {
						f()
					}
				})
			}
			measure("EncodeRow", func() { p.EncodeRow(rows, v) })
			measure("QueryFromRow", func() { p.QueryFromRow(&q, rows) })
			measure("16FromRow", func() { p.Distances(dst, &q, rows, slots) })
			measure("EncodeQuery", func() { p.EncodeQuery(&q, v) })
			measure("16FromQuery", func() { p.Distances(dst, &q, rows, slots) })
		}
	}
}
