package sparse

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/vectord/vectord/index"
)

const (
	corpusTerms      = 60
	corpusVocabulary = 50_000
	corpusQueries    = 200
)

// corpus has documents whose terms are distributed after Zipf's law and weighted after BM25, and queries whose terms are
// each taken from a random document.
type corpus struct{ documents, queries []Vector }

func newCorpus(documents int) (c corpus) {
	r := rand.New(rand.NewPCG(1, 2))
	zipf := rand.NewZipf(r, 1.05, 10, corpusVocabulary-1)
	for range documents {
		length := corpusTerms/2 + r.IntN(corpusTerms)
		counts := map[uint32]int{}
		for range length * 5 / 4 { // some terms come twice
			counts[uint32(zipf.Uint64())*2654435761>>1]++
		}
		v := Vector{Indices: slices.Sorted(maps.Keys(counts))}
		for _, dim := range v.Indices {
			tf := float64(counts[dim])
			v.Values = append(v.Values, float32(tf*2.2/(tf+1.2*(0.25+0.75*float64(length)/corpusTerms))))
		}
		c.documents = append(c.documents, v)
	}
	for range corpusQueries {
		dims := map[uint32]bool{}
		for len(dims) < 6 {
			d := c.documents[r.IntN(len(c.documents))]
			dims[d.Indices[r.IntN(len(d.Indices))]] = true
		}
		q := Vector{Indices: slices.Sorted(maps.Keys(dims))}
		for range q.Indices {
			q.Values = append(q.Values, 1)
		}
		c.queries = append(c.queries, q)
	}
	return c
}

// index returns the index of the documents, and gives the queries the weights that they have in it.
func (c corpus) index() *Index {
	x := New()
	for slot, v := range c.documents {
		x.Add(uint32(slot), v)
	}
	for _, q := range c.queries {
		for i, dim := range q.Indices {
			q.Values[i] = IDF(x.Len(), x.DF(dim))
		}
	}
	return x
}

// large is the corpus of the benchmarks.
var large = sync.OnceValue(func() corpus { return newCorpus(100_000) })

// exhaustive adds up the lists of the query in an array with a place for each slot, and looks at all of it.
func exhaustive(x *Index, top *index.Top, sums []float32, seen []bool, q Vector, k int) []index.Neighbor {
	clear(sums)
	clear(seen)
	for i, dim := range q.Indices {
		l := x.lists[dim]
		if l == nil {
			continue
		}
		weight := q.Values[i]
		for c := (cursor{list: l}); c.current() != nil; c.next() {
			for _, p := range c.current().postings {
				sums[p.slot] += float32(weight * p.weight)
				seen[p.slot] = true
			}
		}
	}
	top.Reset(k)
	for slot, s := range seen {
		if s {
			top.Offer(index.Neighbor{Slot: uint32(slot), Distance: 0 - sums[slot]})
		}
	}
	return top.AppendSorted(nil)
}

// TestCorpus compares pruned searches with exhaustive ones on data whose lists are long enough to be pruned.
func TestCorpus(t *testing.T) {
	c := newCorpus(20_000)
	x := c.index()
	checkLists(t, x)
	var top index.Top
	sums, seen := make([]float32, len(c.documents)), make([]bool, len(c.documents))
	for i, q := range c.queries {
		k := 1 + i*i%1000
		if got, want := x.Search(nil, q, Params{K: k}), exhaustive(x, &top, sums, seen, q, k); !slices.Equal(got, want) {
			t.Fatalf("query %d, k %d: got %v, want %v", i, k, got, want)
		}
	}
}

func BenchmarkSearch(b *testing.B) {
	queries, documents := large().queries, len(large().documents)
	x := large().index()
	for _, k := range []int{10, 100, 1000} {
		b.Run(fmt.Sprintf("pruned/k=%d", k), func(b *testing.B) {
			var found []index.Neighbor
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				found = x.Search(found[:0], queries[i%len(queries)], Params{K: k})
			}
		})
		b.Run(fmt.Sprintf("exhaustive/k=%d", k), func(b *testing.B) {
			var top index.Top
			sums, seen := make([]float32, documents), make([]bool, documents)
			for i := 0; b.Loop(); i++ {
				exhaustive(x, &top, sums, seen, queries[i%len(queries)], k)
			}
		})
	}
	for _, every := range []int{2, 100, 1000, 10_000} {
		b.Run(fmt.Sprintf("filtered/1of%d", every), func(b *testing.B) {
			f := &Filter{}
			for slot := 0; slot < documents; slot += every {
				f.Slots = f.Slots.Set(uint32(slot))
			}
			f.Count = f.Slots.Count()
			var found []index.Neighbor
			for i := 0; b.Loop(); i++ {
				found = x.Search(found[:0], queries[i%len(queries)], Params{K: 10, Filter: f})
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	documents := large().documents
	x := New()
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		x.Add(uint32(i), documents[i%len(documents)])
	}
	b.ReportMetric(float64(x.MemoryBytes())/float64(x.Len()), "bytes/vector")
}

// BenchmarkReplace changes vectors in the middle of the lists.
func BenchmarkReplace(b *testing.B) {
	documents, x := large().documents, large().index()
	r := rand.New(rand.NewPCG(3, 4))
	b.ReportAllocs()
	for b.Loop() {
		x.Add(uint32(r.IntN(len(documents))), documents[r.IntN(len(documents))])
	}
}

// TestMemoryBytes compares what the index says with what the heap grew by, after loading and after many changes.
func TestMemoryBytes(t *testing.T) {
	documents := newCorpus(20_000).documents
	heap := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	x := New()
	check := func(when string) {
		t.Helper()
		said, grown := x.MemoryBytes(), heap()-before
		t.Logf("%s: %d MiB, says %d MiB, %.1f bytes a posting", when, grown>>20, said>>20, float64(grown)/float64(x.postings))
		if ratio := float64(said) / float64(grown); math.Abs(ratio-1) > 0.25 {
			t.Errorf("%s: says %d bytes, the heap grew by %d", when, said, grown)
		}
	}
	for slot, v := range documents {
		x.Add(uint32(slot), v)
	}
	check("loaded")
	r := rand.New(rand.NewPCG(5, 6))
	for range len(documents) / 2 {
		x.Add(uint32(r.IntN(len(documents))), documents[r.IntN(len(documents))])
	}
	check("changed")
	runtime.KeepAlive(x)
	runtime.KeepAlive(documents)
}
