package engine

import (
	"context"
	"io"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// fileEvents notes the order in which a checkpoint does its work.
type fileEvents struct {
	fileStore
	events []string
}

func (f *fileEvents) WriteFile(name string, write func(io.Writer) error) error {
	err := f.fileStore.WriteFile(name, func(w io.Writer) error {
		err := write(w)
		f.events = append(f.events, "written")
		return err
	})
	f.events = append(f.events, "replaced")
	return err
}

func (f *fileEvents) SyncAndTrim(shard uint32, upTo uint64) error {
	err := f.fileStore.SyncAndTrim(shard, upTo)
	f.events = append(f.events, "synced")
	return err
}

// TestCheckpointSyncsBeforeItReplaces checks that a graph's checkpoint takes the place of the one before only after all
// that it may hold is durable: else a power cut would leave codes of vectors that storage never had.
func TestCheckpointSyncsBeforeItReplaces(t *testing.T) {
	r := newReplica(t)
	r.db.Start(&logOf{r: r})
	ctx := context.Background()
	config := vectord.DefaultCollectionConfig(2, vectord.Dot)
	config.Optimizer.IndexingThreshold = 1
	if err := r.db.CreateCollection(ctx, "c", config); err != nil {
		t.Fatal(err)
	}
	op := vectord.Operation{Kind: vectord.OpUpsert}
	for i := range 200 {
		op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed([]float32{float32(i), 1})})
	}
	if _, err := r.db.Write(ctx, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	x := r.db.catalog.get(1).shards[0].indexes()[0]
	for x.indexed() < len(op.Points) {
		time.Sleep(time.Millisecond) // the background work takes the time that it takes
	}
	x.halt()
	events := &fileEvents{fileStore: x.files}
	x.files = events
	if err := x.checkpoint(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"synced", "written", "replaced"}; !slices.Equal(events.events, want) {
		t.Errorf("the checkpoint was %q, want %q", events.events, want)
	}
	if got := x.feed.spare(math.MaxUint64); got != 2 {
		t.Errorf("the checkpoint covers the log to %d, want 2", got)
	}
	r.close()
}

func TestDerivedNames(t *testing.T) {
	for _, set := range []storage.VectorSet{{}, {Shard: 1, Number: 2}, {Shard: 1<<32 - 1, Number: 1<<16 - 1}} {
		if got, ok := derivedSet(checkpointName(set)); !ok || got != set {
			t.Errorf("%q is the checkpoint of %s, %v", checkpointName(set), got, ok)
		}
		if got, ok := derivedSet(recallName(set)); !ok || got != set {
			t.Errorf("%q is the recall of %s, %v", recallName(set), got, ok)
		}
	}
	for _, name := range []string{"", "shard-.graph", "shard-1.graph", "shard-1-.graph", "shard-01-0.graph", "shard-4294967296-0.graph", "shard-1-65536.graph",
		"shard-1-0", "shard-1-0.other", "1-0.graph", "shard-x-0.graph", "shard--1-0.graph", "shard-1-0-0.graph"} {
		if got, ok := derivedSet(name); ok {
			t.Errorf("%q is taken for a file of %s", name, got)
		}
	}
}
