package engine

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

// TestIndexingYields checks, on one processor, that another goroutine gets its turns while vectors go into the graph.
func TestIndexingYields(t *testing.T) {
	r := newReplica(t)
	defer r.close()
	r.db.Start(&logOf{r: r})
	ctx := context.Background()
	config := vectord.DefaultCollectionConfig(2, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1
	if err := r.db.CreateCollection(ctx, "c", config); err != nil {
		t.Fatal(err)
	}
	x := r.db.catalog.get(1).shards[0].indexes()[0]
	x.mu.Lock()
	x.running = true // the test is the background work
	x.mu.Unlock()
	const points = 200
	op := vectord.Operation{Kind: vectord.OpUpsert}
	for i := range points {
		op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed([]float32{float32(i), 1})})
	}
	if _, err := r.db.Write(ctx, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := x.create(); err != nil {
		t.Fatal(err)
	}

	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var turns atomic.Int64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			default:
				turns.Add(1)
				runtime.Gosched()
			}
		}
	}()
	moved, _, err := x.moveSome()
	got := turns.Load()
	close(done)
	<-ended
	if err != nil || moved != points {
		t.Fatalf("%d vectors moved, %v", moved, err)
	}
	if got < points/10 { // others take turns as well; without yielding it has none
		t.Errorf("another goroutine had %d turns while %d vectors went into the graph", got, points)
	}
}

// TestIndexedOnly checks that a query for what is indexed leaves out what waits for the graph, but not where there is none.
func TestIndexedOnly(t *testing.T) {
	b := newClockBench(t)
	defer b.close()
	config := vectord.DefaultCollectionConfig(2, vectord.Dot)
	b.must(b.db.CreateCollection(t.Context(), "c", config))
	var points []vectord.Point
	for id := range uint64(50) {
		points = append(points, expiringPoint(id, 0))
	}
	b.must(b.write(upsertOf(points...)))
	search := func(want int) {
		t.Helper()
		q := vectord.Query{Nearest: vectord.Near([]float32{1, 1}), Limit: 100, Params: vectord.SearchParams{IndexedOnly: true}}
		if hits, err := b.db.Search(t.Context(), "c", q); err != nil || len(hits) != want {
			t.Errorf("%d hits, want %d (%v)", len(hits), want, err)
		}
	}
	search(50)
	b.must(b.db.UpdateCollection(t.Context(), "c", vectord.CollectionUpdate{Optimizer: []byte(`{"indexing_threshold":1}`)}))
	x := b.db.catalog.get(1).shards[0].indexes()[0]
	for x.indexed() < len(points) {
		x.kick()
		time.Sleep(time.Millisecond) // the background work takes the time that it takes
	}
	x.halt()
	b.must(b.write(upsertOf(expiringPoint(99, 0))))
	search(50)
}
