package quant

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vectord/vectord"
)

// BenchmarkDistances measures one distance in a hop of 16 rows that lie in the first-level cache, as ns/op.
func BenchmarkDistances(b *testing.B) {
	for _, l := range levels() {
		for _, d := range []vectord.Distance{vectord.Dot, vectord.Euclid, vectord.Manhattan} {
			for _, dim := range []int{100, 384, 768} {
				b.Run(fmt.Sprintf("%s/%s/%d", l, d, dim), func(b *testing.B) { benchmarkCompare(b, l, d, dim, 16) })
			}
		}
	}
}

// BenchmarkGather measures one distance in hops of 16 rows scattered over 256 MiB, as ns/op.
func BenchmarkGather(b *testing.B) {
	for _, dim := range []int{100, 384, 768} {
		b.Run(fmt.Sprint(dim), func(b *testing.B) { benchmarkCompare(b, bestLevel(), vectord.Dot, dim, 256<<20/dim) })
	}
}

func benchmarkCompare(b *testing.B, l level, d vectord.Distance, dim, count int) {
	const hop = 16
	s := fit(d, dim, 1, make([]float32, dim))
	rows := make([]byte, count*s.rowSize)
	r := rand.New(rand.NewPCG(1, 2))
	v := make([]float32, dim)
	for i := range v {
		v[i] = r.Float32() - 0.5
	}
	for i := range count {
		copy(rows[i*s.rowSize:], rows[:s.rowSize])
	}
	s.EncodeRow(rows, v)
	var q Query
	s.EncodeQuery(&q, v)
	slots := make([]uint32, 1<<16)
	for i := range slots {
		slots[i] = uint32(r.IntN(count))
	}
	dst := make([]int32, hop)
	b.ResetTimer()
	for i := 0; i < b.N; i += hop {
		at := i % len(slots)
		s.compareAt(l, dst, &q, rows, slots[at:at+hop])
	}
}

// levels returns the levels of this machine, the best first.
func levels() []level {
	var all []level
	for l := bestLevel(); l >= levelGo; l-- {
		all = append(all, l)
	}
	return all
}
