package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// seedOf returns the seed of a random test: that of the environment variable VECTORD_TEST_SEED, or a new one. A failure
// prints it.
func seedOf(t *testing.T) uint64 {
	seed := rand.Uint64()
	if text := os.Getenv("VECTORD_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("VECTORD_TEST_SEED: %v", err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with VECTORD_TEST_SEED=%d", seed)
		}
	})
	return seed
}

const cutDim = 8

// cutState is what the points of the power-cut test are: id → vector and payload as text.
type cutState map[uint64]string

func pointText(v []float32, payload []byte) string { return fmt.Sprint(v, " ", string(payload)) }

// cutHistory writes a random history of operations and keeps the state after each.
type cutHistory struct {
	rng    *rand.Rand
	states []cutState // states[i]: after i operations
	points map[uint64]vectord.Point
}

func (h *cutHistory) vector() []float32 {
	v := make([]float32, cutDim)
	for i := range v {
		v[i] = float32(h.rng.NormFloat64())
	}
	return v
}

func (h *cutHistory) ids(n int) []vectord.PointID {
	ids := make([]vectord.PointID, 0, n)
	for id := range h.points {
		if len(ids) == n {
			break
		}
		ids = append(ids, vectord.NumberID(id))
	}
	return ids
}

// next makes the next operation and notes the state after it.
func (h *cutHistory) next() vectord.Operation {
	var op vectord.Operation
	switch k := h.rng.IntN(10); {
	case k < 6 || len(h.points) < 20:
		op.Kind = vectord.OpUpsert
		for _, id := range h.rng.Perm(120)[:1+h.rng.IntN(30)] {
			p := vectord.Point{ID: vectord.NumberID(uint64(id)), Vectors: vectord.Unnamed(h.vector()),
				Payload: fmt.Appendf(nil, `{"group":%d}`, h.rng.IntN(5))}
			op.Points = append(op.Points, p)
			h.points[uint64(id)] = p
		}
	case k < 8:
		op.Kind, op.IDs = vectord.OpDelete, h.ids(1+h.rng.IntN(10))
		for _, id := range op.IDs {
			delete(h.points, id.Number())
		}
	case k < 9:
		op.Kind, op.IDs = vectord.OpOverwritePayload, h.ids(1+h.rng.IntN(10))
		op.Payload = fmt.Appendf(nil, `{"group":%d,"again":%d}`, h.rng.IntN(5), len(h.states))
		for _, id := range op.IDs {
			p := h.points[id.Number()]
			p.Payload = op.Payload
			h.points[id.Number()] = p
		}
	default:
		op.Kind = vectord.OpUpdateVectors
		for _, id := range h.ids(1 + h.rng.IntN(10)) {
			p := h.points[id.Number()]
			p.Vectors = vectord.Unnamed(h.vector())
			h.points[id.Number()] = p
			op.Points = append(op.Points, vectord.Point{ID: id, Vectors: vectord.Unnamed(p.Vectors.Unnamed())})
		}
	}
	state := cutState{}
	for id, p := range h.points {
		state[id] = pointText(p.Vectors.Unnamed(), p.Payload)
	}
	h.states = append(h.states, state)
	return op
}

// cut is a moment at which the power might have failed: the operations begun and acknowledged by then.
type cut struct {
	operation     string
	disk          *storagetest.CrashFS
	percent       int
	acked, begun  int64
	hadCollection bool
}

// TestPowerCuts cuts the power after every file operation of a history, with none, half and all of the unsynced data
// kept, and starts a node on what is left. It must hold the state after some prefix of the history that includes every
// acknowledged operation, and its index must find exactly these points.
func TestPowerCuts(t *testing.T) {
	seed := seedOf(t)
	var begun, acked atomic.Int64
	var created atomic.Bool
	var mu sync.Mutex
	var cuts []cut
	var disk *storagetest.CrashFS
	var stopped atomic.Bool
	disk = storagetest.NewCrashFS(func(operation string) {
		if stopped.Load() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			// What was acknowledged is read before the disk is copied, what was begun after.
			c := cut{operation: operation, percent: percent, acked: acked.Load(), hadCollection: created.Load()}
			c.disk = disk.Crash(percent, seed+uint64(len(cuts)))
			c.begun = begun.Load()
			cuts = append(cuts, c)
		}
	})
	n := open(t, disk)
	ctx := context.Background()
	config := vectord.DefaultCollectionConfig(cutDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1 // a graph from the first points on
	if err := n.Engine().CreateCollection(ctx, "c", config); err != nil {
		t.Fatal(err)
	}
	created.Store(true)
	h := &cutHistory{rng: rand.New(rand.NewPCG(seed, 1)), states: []cutState{{}}, points: map[uint64]vectord.Point{}}
	for i := range 60 {
		op := h.next()
		begun.Add(1)
		if _, err := n.Engine().Write(ctx, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		acked.Add(1)
		if i%20 == 19 { // a stop writes the graph's checkpoint, and the next start reads it
			if err := n.Close(); err != nil {
				t.Fatal(err)
			}
			n = open(t, disk)
		}
	}
	stopped.Store(true)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d power cuts", len(cuts))
	for _, c := range cuts {
		checkCut(t, c, h.states)
		if t.Failed() {
			return
		}
	}
}

func open(t *testing.T, fs storage.FS) *Node {
	t.Helper()
	n, err := Open(Config{DataDir: "data", FS: fs, MemoryLimit: 256 << 20, Logger: quiet,
		Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func checkCut(t *testing.T, c cut, states []cutState) {
	t.Helper()
	n := open(t, c.disk)
	defer n.Close()
	name := fmt.Sprintf("after %q with %d%% of unsynced data", c.operation, c.percent)
	db, ctx := n.Engine(), context.Background()
	if !db.CollectionExists("c") {
		if c.hadCollection {
			t.Errorf("%s: the collection is gone", name)
		}
		return
	}
	page, err := db.Scroll(ctx, "c", vectord.ScrollRequest{Limit: vectord.MaxLimit,
		Select: vectord.Selection{Payload: true, Vectors: true}})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	found := cutState{}
	for _, r := range page.Points {
		found[r.ID.Number()] = pointText(r.Vectors.Unnamed(), r.Payload)
	}
	if !slices.ContainsFunc(states[c.acked:c.begun+1], func(s cutState) bool { return maps.Equal(s, found) }) {
		t.Errorf("%s: %d points are no state between operation %d, acknowledged, and %d, begun", name, len(found), c.acked, c.begun)
		return
	}
	// Whatever the graph's checkpoint remembered, the index must hold these points and no others.
	for _, r := range page.Points {
		hits, err := db.Search(ctx, "c", vectord.Query{Nearest: vectord.Near(r.Vectors.Unnamed()), Limit: 1, Params: vectord.SearchParams{HNSWEf: 200}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(hits) != 1 || hits[0].ID != r.ID || hits[0].Score > 1e-3 {
			t.Errorf("%s: a search for the vector of point %s found %v", name, r.ID, hits)
			return
		}
	}
	hits, err := db.Search(ctx, "c", vectord.Query{Nearest: vectord.Near(make([]float32, cutDim)), Limit: 1000, Params: vectord.SearchParams{HNSWEf: 1000}})
	if err != nil || len(hits) != len(found) {
		t.Errorf("%s: a search for all points found %d of %d (%v)", name, len(hits), len(found), err)
	}
}
