package quant

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// binaryDistances are those that have binary codes.
var binaryDistances = []vectord.Distance{vectord.Cosine, vectord.Dot, vectord.Euclid}

func trainBinary(tb testing.TB, d vectord.Distance, sample [][]float32) *Binary {
	tb.Helper()
	b, err := TrainBinary(d, len(sample[0]), sample)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func TestBinaryRefusesManhattan(t *testing.T) {
	_, err := TrainBinary(vectord.Manhattan, 2, [][]float32{{1, 2}})
	var e *vectord.Error
	if !errors.As(err, &e) || e.Kind != vectord.KindInvalid || !strings.Contains(err.Error(), "Manhattan") {
		t.Errorf("got error %v, want one of KindInvalid that names Manhattan", err)
	}
}

func TestRotationKeepsProductsAndMixes(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 0))
	for _, dim := range []int{1, 64, 65, 128, 192, 320, 384, 448, 768, 960, 1024, 1536} {
		rotation := newRotation(dim)
		pad := func(v []float32) []float32 { return append(v, make([]float32, rotation.size-len(v))...) }
		a, b := pad(gaussian(r, dim)), pad(gaussian(r, dim))
		product, square := dot(a, b), dot(a, a)
		spare := make([]float32, rotation.size)
		a, spare = rotation.apply(a, spare)
		b, _ = rotation.apply(b, spare)
		if got := dot(a, b); math.Abs(got-product) > 1e-5*square {
			t.Errorf("dimension %d: the product was %v and is %v", dim, product, got)
		}
		if got := dot(a, a); math.Abs(got-square) > 1e-5*square {
			t.Errorf("dimension %d: the square was %v and is %v", dim, square, got)
		}
		// The worst vector to mix is a single component. No component of what comes out may stand out.
		for i := range dim {
			one := make([]float32, rotation.size)
			one[i] = 1
			one, _ = rotation.apply(one, make([]float32, rotation.size))
			if peak := float64(maxAbs(one)) * math.Sqrt(float64(rotation.size)); peak > 6 {
				t.Errorf("dimension %d: from component %d one comes out %.1f times as large as the mean", dim, i, peak)
			}
		}
	}
}

func dot(a, b []float32) float64 {
	sum := 0.0
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func TestHadamardLevelsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(13, 0))
	for n := 8; n <= 1<<16; n *= 2 {
		v := gaussian(r, n)
		want := slices.Clone(v)
		hadamardPortable(want)
		for _, l := range levels(t) {
			got := append(slices.Clone(v), 7)
			hadamardAt(l, got[:n])
			if !slices.Equal(got[:n], want) || got[n] != 7 {
				t.Errorf("%s: the transform of %d components differs", l, n)
			}
		}
		// By the definition, in a few places: the sign is that of the bits that the two places share.
		for range 10 {
			i := r.IntN(n)
			sum, size := 0.0, 0.0
			for j, x := range v {
				if bits.OnesCount(uint(i&j))%2 == 1 {
					x = -x
				}
				sum, size = sum+float64(x), size+math.Abs(float64(x))
			}
			if math.Abs(sum-float64(want[i])) > 1e-5*size {
				t.Errorf("component %d of %d is %v, want %v", i, n, want[i], sum)
			}
		}
	}
}

// TestBinaryEstimates compares estimates with exact distances. Their errors shall be those of the paper: without a bias,
// and of the size that one bit in dim dimensions allows.
func TestBinaryEstimates(t *testing.T) {
	const dim, count = 512, 400
	for _, d := range binaryDistances {
		r := rand.New(rand.NewPCG(5, uint64(d)))
		vectors := make([][]float32, count)
		for i := range vectors {
			vectors[i] = gaussian(r, dim)
			for j := range vectors[i] {
				vectors[i][j] = vectors[i][j]/8 + 0.5 // a center to subtract
			}
			if d == vectord.Cosine {
				vectord.Normalize(vectors[i])
			}
		}
		b := trainBinary(t, d, vectors)
		rows := alignedRows(count * b.RowSize())
		for i, v := range vectors {
			b.EncodeRow(rows[i*b.RowSize():], v)
		}
		distance := index.DistanceFunc(d)
		check := func(name string, prepare func(q *Query, i int), errorMax float64) {
			var q Query
			estimates := make([]int32, count)
			var bias, square, n float64
			for i := range 20 {
				prepare(&q, i)
				b.Scan(estimates, &q, rows)
				// An error is that of the product of residuals of about this length.
				unit := math.Pow(float64(q.binary.norm), 2)
				if d == vectord.Euclid {
					unit *= 2
				}
				for j, v := range vectors {
					if i == j {
						continue
					}
					e := (float64(b.Float(&q, estimates[j])) - float64(distance(vectors[i], v))) / unit
					bias, square, n = bias+e, square+e*e, n+1
				}
			}
			bias, deviation := bias/n, math.Sqrt(square/n)
			if math.Abs(bias) > 0.004 || deviation > errorMax {
				t.Errorf("%s, %s: errors of %.4f ± %.4f, want 0 and at most %.4f", d, name, bias, deviation, errorMax)
			}
		}
		// √(1-f²)/f/√dim with f² = 2/π, and a little for the query's four bits. Between rows both have only one.
		expected := math.Sqrt(math.Pi/2-1) / math.Sqrt(dim)
		check("a query", func(q *Query, i int) { b.EncodeQuery(q, vectors[i]) }, 1.1*expected)
		check("a row", func(q *Query, i int) { b.QueryFromRow(q, rows[i*b.RowSize():]) }, 2.1*expected)
		checkSymmetric(t, b, rows[:30*b.RowSize()])
		var q Query
		b.QueryFromRow(&q, rows)
		var self [1]int32
		b.Scan(self[:], &q, rows[:b.RowSize()])
		if got, want := b.Float(&q, self[0]), distance(vectors[0], vectors[0]); math.Abs(float64(got-want)) > 1e-4*dot(vectors[0], vectors[0]) {
			t.Errorf("%s: a row is at %v from itself, want %v", d, got, want)
		}
	}
}

// TestBinaryIsTheSameEverywhere holds the bits of rows and distances, which shall not depend on the machine.
func TestBinaryIsTheSameEverywhere(t *testing.T) {
	hash := sha256.New()
	for _, d := range binaryDistances {
		for _, dim := range []int{3, 100, 768, 1024} {
			r := rand.New(rand.NewPCG(uint64(dim), 0))
			sample := make([][]float32, 50)
			for i := range sample {
				sample[i] = make([]float32, dim)
				for j := range sample[i] {
					sample[i][j] = r.Float32() - 0.25
				}
			}
			b := trainBinary(t, d, sample)
			rows := alignedRows(len(sample) * b.RowSize())
			for i, v := range sample {
				b.EncodeRow(rows[i*b.RowSize():], v)
			}
			hash.Write(rows)
			dst := make([]int32, len(sample))
			var q Query
			for i, v := range sample {
				b.EncodeQuery(&q, v)
				b.Scan(dst, &q, rows)
				fmt.Fprint(hash, dst)
				b.QueryFromRow(&q, rows[i*b.RowSize():])
				b.Scan(dst, &q, rows)
				fmt.Fprint(hash, dst)
			}
		}
	}
	const want = "41246269756c98e56621b4e7df506217c4d50058f6d5c6ae0f180997ef53e547"
	if got := hex.EncodeToString(hash.Sum(nil)); got != want {
		t.Errorf("rows and distances have the hash %s, want %s", got, want)
	}
}

func TestHalfCosine(t *testing.T) {
	for _, n := range []int{64, 192, 65536} {
		for i := range n + 1 {
			want := math.Cos(math.Pi * float64(i) / float64(n))
			if got := halfCosine(i, n); math.Abs(float64(got)-want) > 1e-7 {
				t.Fatalf("cosine of %d/%d: %v, want %v", i, n, got, want)
			}
		}
	}
}

// checkPlanes compares the kernels of all levels with the definition.
func checkPlanes(t *testing.T, b *Binary, q *Query, rows []byte, slots []uint32) {
	t.Helper()
	want := make([]int32, len(slots))
	for i, slot := range slots {
		row := rows[int(slot)*b.rowSize:][:b.rowSize]
		for at, x := range row {
			for bit := range 8 {
				if x>>bit&1 == 0 {
					continue
				}
				for k := range planeBits {
					weight := int32(1) << k
					if k == planeBits-1 {
						weight = -weight
					}
					place := at/rowAlign*rowAlign*planeBits + k*rowAlign + at%rowAlign
					want[i] += weight * int32(q.codes[place]>>bit&1)
				}
			}
		}
	}
	for _, l := range levels(t) {
		const canary = 0x5eed
		got := slices.Repeat([]int32{canary}, len(slots)+1)
		b.compareAt(l, got[:len(slots)], q, rows, slots)
		if !slices.Equal(got[:len(slots)], want) {
			t.Fatalf("%s, row size %d, slots %v:\ngot  %d\nwant %d", l, b.rowSize, slots, got[:len(slots)], want)
		}
		if got[len(slots)] != canary {
			t.Fatalf("%s, row size %d wrote past the end of %d distances", l, b.rowSize, len(slots))
		}
	}
}

func TestPlaneKernelsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 0))
	random := func(b []byte) {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	fills := []func([]byte){random, func(b []byte) { fill(b, 0) }, func(b []byte) { fill(b, 255) }}
	const count = 13
	for size := rowAlign; size <= 1024; size += rowAlign {
		b := &Binary{rowSize: size}
		for _, fillRow := range fills {
			for _, fillQuery := range fills {
				arena := make([]byte, 64+count*size)[r.IntN(64):][:count*size] // alignment is for speed only
				fillRow(arena)
				q := &Query{codes: make([]byte, 64+planeBits*size)[r.IntN(64):][:planeBits*size]}
				fillQuery(q.codes)
				slots := make([]uint32, 1+r.IntN(12))
				for i := range slots {
					slots[i] = uint32(r.IntN(count))
				}
				slots[0], slots[len(slots)-1] = count-1, 0
				checkPlanes(t, b, q, arena, slots)
			}
		}
	}
}

func FuzzPlaneKernels(f *testing.F) {
	f.Add(uint16(1), uint8(3), []byte{0, 255, 128}, []byte{127, 128})
	f.Add(uint16(768), uint8(9), []byte{255}, []byte{255})
	f.Fuzz(func(t *testing.T, dim uint16, count uint8, rows, query []byte) {
		b := &Binary{rowSize: alignRow(int(dim)%4096/8 + binaryFloats)}
		arena := make([]byte, (1+int(count)%40)*b.rowSize)
		repeat(arena, rows)
		q := &Query{codes: make([]byte, planeBits*b.rowSize)}
		repeat(q.codes, query)
		slots := make([]uint32, len(arena)/b.rowSize)
		for i := range slots {
			slots[i] = uint32(len(slots) - 1 - i)
		}
		checkPlanes(t, b, q, arena, slots)
	})
}

func TestDecodeBinaryRefuses(t *testing.T) {
	good := trainBinary(t, vectord.Euclid, [][]float32{{1, 2}, {3, 5}}).AppendBinary(nil)
	f := func(change func(b []byte) []byte, want string) {
		t.Helper()
		_, err := DecodeBinary(change(bytes.Clone(good)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want one with %q", err, want)
		}
	}
	set := func(at int, x ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], x); return b }
	}
	f(func([]byte) []byte { return nil }, "0 bytes")
	f(func(b []byte) []byte { return b[:len(b)-1] }, "center of 7 bytes, not 8")
	f(func(b []byte) []byte { return append(b, 0) }, "center of 9 bytes, not 8")
	f(set(0, 2), "version 2")
	f(set(1, 0), "distance 0")
	f(set(1, byte(vectord.Manhattan)), "Manhattan")
	f(set(2, 0, 0, 0, 0), "dimension 0")
	f(set(2, 1, 0, 1, 0), "dimension 65537")
	f(set(10, 0, 0, 0x80, 0x7f), "component 1 of the center is +Inf")
}

func BenchmarkBinaryDistances(b *testing.B) {
	for _, l := range levels(b) {
		for _, dim := range []int{384, 768, 1024, 1536} {
			b.Run(fmt.Sprintf("%s/%d", l, dim), func(b *testing.B) {
				c := newBinary(vectord.Cosine, make([]float32, dim))
				rows := alignedRows(64 * c.RowSize())
				slots := make([]uint32, 16)
				for i := range slots {
					slots[i] = uint32(i * 37 % 64)
				}
				var q Query
				c.EncodeQuery(&q, make([]float32, dim))
				dst := make([]int32, len(slots))
				for b.Loop() {
					c.compareAt(l, dst, &q, rows, slots)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(slots)), "ns/row")
			})
		}
	}
}

func BenchmarkBinaryEncode(b *testing.B) {
	for _, dim := range []int{768, 1024} {
		c := newBinary(vectord.Cosine, make([]float32, dim))
		v := gaussian(rand.New(rand.NewPCG(1, 2)), dim)
		b.Run(fmt.Sprintf("row/%d", dim), func(b *testing.B) {
			row := make([]byte, c.RowSize())
			for b.Loop() {
				c.EncodeRow(row, v)
			}
		})
		b.Run(fmt.Sprintf("query/%d", dim), func(b *testing.B) {
			var q Query
			for b.Loop() {
				c.EncodeQuery(&q, v)
			}
		})
		b.Run(fmt.Sprintf("rotation/%d", dim), func(b *testing.B) {
			x, spare := make([]float32, c.rotation.size), make([]float32, c.rotation.size)
			for b.Loop() {
				c.rotation.apply(x, spare)
			}
		})
	}
}
