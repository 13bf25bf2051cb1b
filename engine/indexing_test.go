package engine

import (
	"context"
	"runtime"
	"sync/atomic"
	"testing"

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
