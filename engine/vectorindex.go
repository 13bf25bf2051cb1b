package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
)

// vectorIndex finds the slots of one shard whose vectors are nearest to a query. A vector is in one of three places:
//
//   - fresh: full vectors in memory, scanned exactly. Apply puts new vectors here, so what was acknowledged is found.
//   - cold: only the slot's number; the vector is read from storage by every search. Vectors wait here when fresh is
//     full, and at start when the graph's checkpoint was lost. Slow, exact and bounded in memory.
//   - graph: int8 codes in an HNSW graph.
//
// One goroutine, started by kick and gone when there is nothing to do, moves vectors into the graph, unlinks deleted
// nodes and writes checkpoints. A vector is put into the graph before it leaves fresh or cold, and a search looks into
// the graph last, so it can see a slot twice but never misses one.
//
// Points are the truth: the index may name a slot that was freed or given to another point a moment ago. Who searches
// checks every candidate against the slot table (see slotTable).
type vectorIndex struct {
	shard   uint32
	vectors vectorSource
	files   fileStore
	budget  *budget
	workers *workerTokens
	log     *slog.Logger
	metrics *indexMetrics

	distance vectord.Distance
	dim      int
	config   atomic.Pointer[vectord.CollectionConfig]

	fresh *index.Flat
	graph atomic.Pointer[hnsw.Graph]

	mu     sync.Mutex      // guards cold, moving, and membership changes of fresh
	cold   *roaring.Bitmap // slots whose vectors are in storage alone
	moving map[uint32]bool // slots being put into the graph; false once Apply changed them meanwhile

	// through is the index in the log up to which changes have reached this index.
	through atomic.Uint64
	// removals counts the slots freed so far. A search that began before a point moved to another slot may have passed
	// the new one before it was filled and come to the old one after it was freed; the count tells it.
	removals atomic.Uint64
	// unsaved counts nodes that came into the graph or left it since the last checkpoint, and savedAt is when that was
	// last tried.
	unsaved atomic.Int64
	savedAt atomic.Int64 // milliseconds since the Unix epoch
	// savedThrough is the index in the log that the checkpoint in place covers. Only load and the background work touch
	// it. trimmed is the index up to which the change feed was trimmed while there was no graph.
	savedThrough uint64
	trimmed      atomic.Uint64

	unlinkedAt time.Time // when nodes were unlinked last; the background work's own

	stop    context.Context // ends the background work
	cancel  context.CancelFunc
	running bool           // guarded by mu
	wait    sync.WaitGroup // for the background goroutine
}

// vectorSource reads full vectors; storage implements it.
type vectorSource interface {
	Vectors(shard uint32, slots []uint32, fn func(slot uint32, v []float32) error) error
	ScanVectors(shard uint32, fn func(slot uint32, v []float32) error) error
	Changes(shard uint32, after uint64, fn func(index uint64, slots []uint32) error) error
}

// waiting returns how many vectors are not in the graph.
func (x *vectorIndex) waiting() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.fresh.Len() + int(x.cold.GetCardinality())
}

// add takes in the vector that a slot was given. Only Apply calls it.
func (x *vectorIndex) add(slot uint32, v []float32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.moving[slot]; ok {
		x.moving[slot] = false
	}
	if x.fitsFresh(x.fresh.Len()) {
		x.fresh.Add(slot, v)
	} else {
		x.cold.Add(slot)
	}
}

// fitsFresh reports whether fresh may hold more than n vectors.
func (x *vectorIndex) fitsFresh(n int) bool { return int64(n)*int64(4*x.dim) < x.budget.freshMax }

// remove forgets the vector of a slot that was freed. Only Apply calls it.
func (x *vectorIndex) remove(slot uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.moving[slot]; ok {
		x.moving[slot] = false
	}
	x.removals.Add(1) // before anything is hidden
	x.fresh.Remove(slot)
	x.cold.Remove(slot)
	if g := x.graph.Load(); g != nil && g.Delete(slot) {
		x.unsaved.Add(1)
	}
}

// indexed returns how many vectors the graph holds.
func (x *vectorIndex) indexed() int {
	if g := x.graph.Load(); g != nil {
		return g.Len()
	}
	return 0
}

// graphBytes returns the size of the graph, which is outside of the Go heap.
func (x *vectorIndex) graphBytes() int64 {
	if g := x.graph.Load(); g != nil {
		return g.MemoryBytes()
	}
	return 0
}

// close halts the index and frees the graph's memory once running searches have ended.
func (x *vectorIndex) close() {
	x.halt()
	if g := x.graph.Load(); g != nil {
		g.Close()
	}
}

// nearest is what to look for.
type nearest struct {
	vector  []float32
	wanted  int // hits
	k       int // candidates for them
	ef      int
	matches *matches // nil: every slot
	exact   bool
	indexed bool // only what is in the graph
}

// A plan is how candidates were found; it is a label of the metrics. Those that a graph takes part in have the names of
// hnsw.Plan.
const (
	planExact = "exact" // every vector compared at full precision
	planList  = "list"  // no more match than are wanted as candidates, so they are that
	planFresh = "fresh" // there is no graph
)

// candidates appends at least the k nearest slots, if there are as many, in no order and some perhaps twice: the best of
// fresh, of cold and of the graph. Their distances are not given, since who asks must compare at full precision anyway.
// Whether the graph is walked or its codes are scanned is the graph's own choice. plan says how the candidates were found.
func (x *vectorIndex) candidates(ctx context.Context, dst []uint32, n nearest) (slots []uint32, plan string, err error) {
	if n.exact {
		slots, err = x.scan(ctx, dst, n, nil)
		return slots, planExact, err
	}
	if n.matches != nil && n.matches.count <= n.k && !n.indexed {
		return n.matches.slots.appendTo(dst), planList, nil
	}
	var found []index.Neighbor
	if !n.indexed {
		found = x.fresh.Search(found, n.vector, n.k, n.matches.allow())
		for _, f := range found {
			dst = append(dst, f.Slot)
		}
		x.mu.Lock()
		var cold *roaring.Bitmap
		if !x.cold.IsEmpty() {
			cold = x.cold.Clone()
		}
		x.mu.Unlock()
		if cold != nil {
			if dst, err = x.scan(ctx, dst, n, cold.ToArray()); err != nil {
				return nil, "", err
			}
		}
	}
	g := x.graph.Load()
	if g == nil {
		return dst, planFresh, nil
	}
	var work hnsw.Work
	p := hnsw.Params{K: n.wanted, Depth: n.k, Ef: n.ef, Work: &work}
	if n.matches != nil {
		p.Filter = &hnsw.Filter{Slots: n.matches.slots.bits, Count: n.matches.count}
	}
	for _, f := range g.Search(found[:0], n.vector, p) {
		dst = append(dst, f.Slot)
	}
	return dst, work.Plan.String(), nil
}

// scan appends the k nearest among the given slots, or among all if slots is nil, compared at full precision with the
// vectors in storage.
func (x *vectorIndex) scan(ctx context.Context, dst []uint32, n nearest, slots []uint32) ([]uint32, error) {
	distance := index.DistanceFunc(x.distance)
	allow := n.matches.allow()
	var top index.Top
	top.Reset(n.k)
	read := 0
	offer := func(slot uint32, v []float32) error {
		read++
		if read%cancelCheckRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if allow == nil || allow(slot) {
			top.Offer(index.Neighbor{Slot: slot, Distance: distance(n.vector, v)})
		}
		return nil
	}
	var err error
	if slots == nil {
		err = x.vectors.ScanVectors(x.shard, offer)
	} else {
		err = x.vectors.Vectors(x.shard, slots, offer)
	}
	if err != nil {
		return nil, fmt.Errorf("scan vectors: %w", err)
	}
	for _, f := range top.AppendSorted(nil) {
		dst = append(dst, f.Slot)
	}
	return dst, nil
}
