package node

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
)

const benchDim = 100

func benchNode(b *testing.B, indexing int) (*Node, *engine.DB) {
	b.Helper()
	n, err := Open(Config{DataDir: b.TempDir(), Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	config := vectord.DefaultCollectionConfig(benchDim, vectord.Cosine)
	config.Optimizer.IndexingThreshold = indexing
	if err := n.Engine().CreateCollection(background, "c", config); err != nil {
		b.Fatal(err)
	}
	return n, n.Engine()
}

func benchPoints(rng *rand.Rand, first uint64, n int) vectord.Operation {
	op := vectord.Operation{Kind: vectord.OpUpsert}
	for i := range n {
		v := make([]float32, benchDim)
		for j := range v {
			v[j] = float32(rng.NormFloat64())
		}
		id := first + uint64(i)
		op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(id), Vectors: vectord.Unnamed(v), Payload: fmt.Appendf(nil, `{"word":"w%d"}`, id)})
	}
	return op
}

// BenchmarkWrite measures durable upserts of 256 new points of 100 dimensions, without the graph and without HTTP, one
// after the other and from four writers at once.
func BenchmarkWrite(b *testing.B) {
	for _, writers := range []int{1, 4} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			n, db := benchNode(b, 0)
			defer n.Close()
			ops := make([]vectord.Operation, b.N)
			rng := rand.New(rand.NewPCG(1, 1))
			for i := range ops {
				ops[i] = benchPoints(rng, uint64(i*256), 256)
			}
			jobs := make(chan vectord.Operation, len(ops))
			for _, op := range ops {
				jobs <- op
			}
			close(jobs)
			errs := make(chan error, writers)
			b.ResetTimer()
			for range writers {
				go func() {
					for op := range jobs {
						if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
							errs <- err
							return
						}
					}
					errs <- nil
				}()
			}
			for range writers {
				if err := <-errs; err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(256*b.N)/b.Elapsed().Seconds(), "vectors/s")
		})
	}
}

// BenchmarkSearch measures one search for 10 of 50,000 points in a graph at ef 100, with and without payloads.
func BenchmarkSearch(b *testing.B) {
	n, db := benchNode(b, 1)
	defer n.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	const points = 50_000
	for i := 0; i < points; i += 1000 {
		if _, err := db.Write(background, "c", []vectord.Operation{benchPoints(rng, uint64(i), 1000)}, vectord.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	waitIndexed(b, db, points)
	queries := benchPoints(rng, 0, 500).Points
	for _, payload := range []bool{false, true} {
		b.Run(fmt.Sprintf("payload=%v", payload), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				q := vectord.Query{Nearest: vectord.Near(queries[i%len(queries)].Vectors.Unnamed()), Limit: 10, Params: vectord.SearchParams{HNSWEf: 100}, Select: vectord.Selection{Payload: payload}}
				if _, err := db.Search(background, "c", q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkSearchHot measures one search for 10 of 20,000 points whose vectors are all in the hot set, at ef 100.
func BenchmarkSearchHot(b *testing.B) {
	n, db := benchNode(b, 1)
	defer n.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	const points = 20_000
	for i := 0; i < points; i += 1000 {
		if _, err := db.Write(background, "c", []vectord.Operation{benchPoints(rng, uint64(i), 1000)}, vectord.WriteOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	waitIndexed(b, db, points)
	queries := make([]vectord.Query, 500)
	for i, p := range benchPoints(rng, 0, len(queries)).Points {
		queries[i] = vectord.Query{Nearest: vectord.Near(p.Vectors.Unnamed()), Limit: 10, Params: vectord.SearchParams{HNSWEf: 100}}
	}
	search := func(i int) {
		if _, err := db.Search(background, "c", queries[i%len(queries)]); err != nil {
			b.Fatal(err)
		}
	}
	for i := range queries {
		search(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		search(i)
	}
}
