package engine

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/storage"
)

// vectorIndex finds the slots of one shard whose vectors are nearest to a query. A vector is in one of three places:
//
//   - fresh: full vectors in memory, scanned exactly. Apply puts new vectors here, so what was acknowledged is found.
//   - cold: only the slot's number; the vector is read from storage by every search. Vectors wait here when fresh is
//     full, and at start when the graph's checkpoint was lost. Slow, exact and bounded in memory.
//   - graph: codes in an HNSW graph.
//
// One goroutine, started by kick and gone when there is nothing to do, moves vectors into the graph, unlinks deleted
// nodes and writes checkpoints. A vector is put into the graph before it leaves fresh or cold, and a search looks into
// the graph last, so it can see a slot twice but never misses one.
//
// Points are the truth: the index may name a slot that was freed or given to another point a moment ago. Who searches
// checks every candidate against the slot table (see slotTable).
type vectorIndex struct {
	id      uint32 // among all of this process
	set     storage.VectorSet
	vectors vectorSource
	files   fileStore
	feed    *feedMarks // the shard's
	budget  *budget
	workers *workerTokens
	log     *slog.Logger
	metrics *indexMetrics

	distance vectord.Distance
	dim      int
	compare  func(query, stored []float32) float32
	spec     atomic.Pointer[vectorSpec]

	fresh *index.Flat
	graph atomic.Pointer[hnsw.Graph]

	// next is the graph that is to replace graph, if there is one (see rebuild.go), and toCopy the slots that it may lack.
	// Only the background work changes these two.
	next         atomic.Pointer[hnsw.Graph]
	toCopy       []uint32
	rebuildAfter atomic.Int64 // nanoseconds since the Unix epoch before which no rebuild begins
	drift        drift

	mu     sync.Mutex      // guards cold, moving, and membership changes of fresh, graph and next by Apply
	cold   *roaring.Bitmap // slots whose vectors are in storage alone
	moving map[uint32]bool // slots being put into the graph; false once Apply changed them meanwhile

	through *atomic.Uint64 // the shard's
	// removals counts the slots freed so far. A search that began before a point moved to another slot may have passed
	// the new one before it was filled and come to the old one after it was freed; the count tells it.
	removals atomic.Uint64
	// unsaved counts nodes that came into the graph or left it since the last checkpoint, and savedAt is when that was
	// last tried.
	unsaved atomic.Int64
	savedAt atomic.Int64 // milliseconds since the Unix epoch
	// trimmed is the index up to which the change feed was trimmed while there was no graph.
	trimmed atomic.Uint64

	unlinkedAt time.Time // when nodes were unlinked last; the background work's own

	stop    context.Context // ends the background work
	cancel  context.CancelFunc
	running bool           // guarded by mu
	wait    sync.WaitGroup // for the background goroutine
}

// vectorSource reads full vectors; storage implements it.
type vectorSource interface {
	Vectors(set storage.VectorSet, slots []uint32, fn func(slot uint32, v []float32) error) error
	ScanVectors(set storage.VectorSet, fn func(slot uint32, v []float32) error) error
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

// fitsFresh reports whether fresh may hold more than n vectors. It holds vectors of one length, and so no multivectors.
func (x *vectorIndex) fitsFresh(n int) bool {
	return x.spec.Load().kind == vectord.DenseVector && int64(n)*int64(4*x.dim) < x.budget.freshMax
}

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
	if next := x.next.Load(); next != nil {
		next.Delete(slot)
	}
}

// follow takes over changed settings.
func (x *vectorIndex) follow(spec *vectorSpec) {
	if old := x.spec.Swap(spec); old != nil && (old.quantization != spec.quantization || old.hnsw.M != spec.hnsw.M) {
		x.rebuildAfter.Store(0)
	}
	if g := x.graph.Load(); g != nil {
		g.SetEfConstruction(spec.hnsw.EfConstruct)
	}
}

// indexed returns how many vectors the graph holds.
func (x *vectorIndex) indexed() int {
	if g := x.graph.Load(); g != nil {
		return g.Len()
	}
	return 0
}

// graphBytes returns the size of the graph, and of the one that is to replace it, which are outside of the Go heap.
func (x *vectorIndex) graphBytes() (bytes int64) {
	for _, g := range []*hnsw.Graph{x.graph.Load(), x.next.Load()} {
		if g != nil {
			bytes += g.MemoryBytes()
		}
	}
	return bytes
}

// close halts the index and frees the graph's memory once running searches have ended.
func (x *vectorIndex) close() {
	x.halt()
	x.dropNext()
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
	// compare, if not nil, takes the place of the index's distance where vectors are compared at full precision.
	compare func(query, stored []float32) float32
}

// walk returns what to ask a graph for.
func (n *nearest) walk() hnsw.Params {
	p := hnsw.Params{K: n.wanted, Depth: n.k, Ef: n.ef}
	if n.matches != nil {
		p.Filter = &hnsw.Filter{Slots: n.matches.slots.bits, Count: n.matches.count}
	}
	return p
}

// candidates appends at least the k nearest slots, if there are as many, in no order and some perhaps twice: the best of
// fresh, of cold and of the graph. Distances are those that were measured on the way, by codes where the graph was asked
// and NaN where there was none. A slot that comes twice comes from the graph last. Whether the graph is walked or its codes
// are scanned is the graph's own choice.
func (x *vectorIndex) candidates(ctx context.Context, dst []index.Neighbor, n nearest) ([]index.Neighbor, error) {
	dst, plan, err := x.outsideGraph(ctx, dst, n)
	if err != nil || plan != planFresh {
		return dst, err
	}
	before := len(dst)
	x.onGraph(func(g *hnsw.Graph) { dst = g.Search(dst[:before], n.vector, n.walk()) })
	return dst, nil
}

// outsideGraph appends the candidates that are not in the graph. If the plan that it returns is planFresh the graph must be
// asked as well, and later than this: vectors move that way.
func (x *vectorIndex) outsideGraph(ctx context.Context, dst []index.Neighbor, n nearest) (candidates []index.Neighbor, plan searchPlan, err error) {
	if n.exact {
		dst, err = x.scan(ctx, dst, n, nil)
		return dst, planExact, err
	}
	if n.matches != nil && n.matches.count <= n.k && !n.indexed {
		for _, slot := range n.matches.slots.appendTo(nil) {
			dst = append(dst, index.Neighbor{Slot: slot, Distance: unmeasured})
		}
		return dst, planList, nil
	}
	if n.indexed {
		return dst, planFresh, nil
	}
	if x.fresh.Len() > 0 {
		dst = x.fresh.Search(dst, n.vector, n.k, n.matches.allow())
	}
	x.mu.Lock()
	var cold []uint32
	if !x.cold.IsEmpty() {
		cold = x.cold.ToArray()
	}
	x.mu.Unlock()
	if len(cold) > 0 {
		if n.matches != nil {
			cold = slices.DeleteFunc(cold, func(slot uint32) bool { return !n.matches.slots.bits.Contains(slot) })
		}
		dst, err = x.scan(ctx, dst, n, cold)
	}
	return dst, planFresh, err
}

// onGraph calls search with the graph, if there is one. If the graph was replaced meanwhile, and so may have been closed
// under the search, it calls it again, which makes what the call before found void.
func (x *vectorIndex) onGraph(search func(g *hnsw.Graph)) {
	for g := x.graph.Load(); g != nil; {
		search(g)
		now := x.graph.Load()
		if now == g {
			return
		}
		g = now
	}
}

// unmeasured is the distance of a candidate that was compared with nothing.
var unmeasured = float32(math.NaN())

// scan appends the k nearest among the given slots, or among all if slots is nil, compared at full precision with the
// vectors in storage.
func (x *vectorIndex) scan(ctx context.Context, dst []index.Neighbor, n nearest, slots []uint32) ([]index.Neighbor, error) {
	allow, compare := n.matches.allow(), n.compare
	if compare == nil {
		compare = x.compare
	}
	var top index.Top
	top.Reset(n.k)
	read := 0
	offer := func(slot uint32, v []float32) error {
		read++
		if read%cancelCheckRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if allow == nil || allow(slot) {
			top.Offer(index.Neighbor{Slot: slot, Distance: compare(n.vector, v)})
		}
		return nil
	}
	var err error
	if slots == nil {
		err = x.vectors.ScanVectors(x.set, offer)
	} else {
		err = x.vectors.Vectors(x.set, slots, offer)
	}
	if err != nil {
		return nil, fmt.Errorf("scan vectors: %w", err)
	}
	return top.AppendSorted(dst), nil
}
