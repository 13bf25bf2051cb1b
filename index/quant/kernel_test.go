package quant

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/simd"
)

var distances = []vectord.Distance{vectord.Cosine, vectord.Dot, vectord.Euclid, vectord.Manhattan}

// levels returns the levels of this machine, and says in the log which ones are missing.
func levels(tb testing.TB) []simd.Level {
	available := simd.Available()
	for _, l := range simd.All() {
		if !slices.Contains(available, l) {
			tb.Logf("%s is not available here and goes untested", l)
		}
	}
	return available
}

// scalarOfSize returns a Scalar for which the kernels run over rows of the given size, a multiple of 64.
func scalarOfSize(d vectord.Distance, size int) *Scalar {
	return &Scalar{distance: d, dim: size, rowSize: size}
}

// checkLevels compares the kernels of all levels with arithmetic that does not wrap until the end.
func checkLevels(t *testing.T, levels []simd.Level, s *Scalar, q *Query, rows []byte, slots []uint32) {
	t.Helper()
	want := make([]int32, len(slots))
	for i, slot := range slots {
		row := rows[int(slot)*s.rowSize:][:s.rowSize]
		want[i] = int32(exactDistance(s.distance, q, row)) // modulo 2^32
	}
	for _, l := range levels {
		const canary = 0x5eed
		got := slices.Repeat([]int32{canary}, len(slots)+1)
		s.compareAt(l, got[:len(slots)], q, rows, slots)
		if !slices.Equal(got[:len(slots)], want) {
			t.Fatalf("%s kernel of %s, row size %d, slots %v:\ngot  %d\nwant %d", l, s.distance, s.rowSize, slots, got[:len(slots)], want)
		}
		if got[len(slots)] != canary {
			t.Fatalf("%s kernel of %s, row size %d wrote past the end of %d distances", l, s.distance, s.rowSize, len(slots))
		}
	}
}

func exactDistance(d vectord.Distance, q *Query, row []byte) int64 {
	var dot, l1 int64
	for i, u := range row {
		dot += int64(u) * int64(int8(q.codes[i]))
		l1 += max(int64(u)-int64(q.codes[i]), int64(q.codes[i])-int64(u))
	}
	switch d {
	case vectord.Euclid:
		end := row[len(row)-4:]
		norm := int32(uint32(end[0]) | uint32(end[1])<<8 | uint32(end[2])<<16 | uint32(end[3])<<24)
		return int64(q.add) + int64(norm) - 2*dot
	case vectord.Manhattan:
		return l1
	}
	return int64(q.add) - dot
}

func TestKernelsAgree(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 0))
	extremes := []byte{0, 1, 127, 128, 129, 255}
	random := func(b []byte) {
		for i := range b {
			b[i] = byte(r.Uint32())
		}
	}
	fills := map[string]func([]byte){
		"random": random,
		"extremes": func(b []byte) {
			random(b)
			for i := range b {
				b[i] = extremes[int(b[i])%len(extremes)]
			}
		},
		"0":   func(b []byte) { clear(b) },
		"127": func(b []byte) { fill(b, 127) },
		"128": func(b []byte) { fill(b, 128) },
		"255": func(b []byte) { fill(b, 255) },
	}
	levels := levels(t)
	const count = 13
	for _, d := range distances {
		for size := rowAlign; size <= 4096; size += rowAlign * (1 + size/512) {
			s := scalarOfSize(d, size)
			for rowName, fillRow := range fills {
				for queryName, fillQuery := range fills {
					// The arena and the query begin wherever they like: alignment is for speed only.
					arena := make([]byte, 64+count*size)[r.IntN(64):][:count*size]
					fillRow(arena)
					q := &Query{codes: make([]byte, 64+size)[r.IntN(64):][:size], add: int32(r.Uint32())}
					fillQuery(q.codes)
					slots := make([]uint32, 1+r.IntN(12))
					for i := range slots {
						slots[i] = uint32(r.IntN(count))
					}
					slots[0], slots[len(slots)-1] = count-1, 0
					t.Run(fmt.Sprintf("%s/%d/rows=%s/query=%s", d, size, rowName, queryName), func(t *testing.T) {
						checkLevels(t, levels, s, q, arena, slots)
					})
				}
			}
		}
	}
}

func fill(b []byte, x byte) {
	for i := range b {
		b[i] = x
	}
}

func FuzzKernels(f *testing.F) {
	f.Add(uint8(1), uint16(1), uint8(3), []byte{0, 255, 128}, []byte{127, 128}, int32(0))
	f.Add(uint8(3), uint16(100), uint8(9), []byte{255}, []byte{128}, int32(-1<<31))
	f.Add(uint8(4), uint16(4096), uint8(4), []byte{0}, []byte{255}, int32(1))
	levels := levels(f)
	f.Fuzz(func(t *testing.T, distance uint8, dim uint16, count uint8, rows, query []byte, add int32) {
		d := distances[int(distance)%len(distances)]
		s := newScalar(d, 1+int(dim)%4096, 1, nil)
		arena := make([]byte, (1+int(count)%40)*s.rowSize)
		repeat(arena, rows)
		q := &Query{codes: make([]byte, s.rowSize), add: add}
		repeat(q.codes, query)
		slots := make([]uint32, len(arena)/s.rowSize)
		for i := range slots {
			slots[i] = uint32(len(slots) - 1 - i)
		}
		checkLevels(t, levels, s, q, arena, slots)
	})
}

// repeat fills dst with copies of pattern.
func repeat(dst, pattern []byte) {
	if len(pattern) == 0 {
		return
	}
	for len(dst) > 0 {
		dst = dst[copy(dst, pattern):]
	}
}

// BenchmarkDistances measures one distance in a hop of 16 rows that lie in the first-level cache, as ns/op.
func BenchmarkDistances(b *testing.B) {
	for _, l := range levels(b) {
		for _, d := range distances[1:] {
			for _, dim := range []int{100, 384, 768} {
				b.Run(fmt.Sprintf("%s/%s/%d", l, d, dim), func(b *testing.B) { benchmarkCompare(b, l, d, dim, 16) })
			}
		}
	}
}

// BenchmarkGather measures one distance in hops of 16 rows scattered over 256 MiB, as ns/op.
func BenchmarkGather(b *testing.B) {
	for _, dim := range []int{100, 384, 768} {
		b.Run(fmt.Sprint(dim), func(b *testing.B) { benchmarkCompare(b, simd.Chosen, vectord.Dot, dim, 256<<20/dim) })
	}
}

func benchmarkCompare(b *testing.B, l simd.Level, d vectord.Distance, dim, count int) {
	const hop = 16
	s := newScalar(d, dim, 1, nil)
	r := rand.New(rand.NewPCG(1, 2))
	rows := make([]byte, count*s.rowSize)
	for i := range rows {
		rows[i] = byte(i) // touched, lest all of it be the one page of zeros
	}
	slots := make([]uint32, 1<<16)
	for i := range slots {
		slots[i] = uint32(r.IntN(count))
	}
	var q Query
	s.EncodeQuery(&q, make([]float32, dim))
	dst := make([]int32, hop)
	b.ResetTimer()
	for i := 0; i < b.N; i += hop {
		at := i % len(slots)
		s.compareAt(l, dst, &q, rows, slots[at:at+hop])
	}
}

// BenchmarkScan measures one distance in a scan of 1 MiB of rows, as ns/op.
func BenchmarkScan(b *testing.B) {
	for _, dim := range []int{100, 384, 768} {
		b.Run(fmt.Sprint(dim), func(b *testing.B) {
			s := newScalar(vectord.Dot, dim, 1, nil)
			rows := make([]byte, 1<<20)
			dst := make([]int32, len(rows)/s.rowSize)
			var q Query
			s.EncodeQuery(&q, make([]float32, dim))
			b.ResetTimer()
			for i := 0; i < b.N; i += len(dst) {
				s.Scan(dst, &q, rows)
			}
		})
	}
}

func BenchmarkEncodeRow(b *testing.B) {
	for _, dim := range []int{100, 384, 768} {
		b.Run(fmt.Sprint(dim), func(b *testing.B) {
			s := newScalar(vectord.Dot, dim, 1.0/128, nil)
			r := rand.New(rand.NewPCG(1, 2))
			v := make([]float32, dim)
			for i := range v {
				v[i] = r.Float32() - 0.5
			}
			row := make([]byte, s.rowSize)
			b.ResetTimer()
			for range b.N {
				s.EncodeRow(row, v)
			}
		})
	}
}
