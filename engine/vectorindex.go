package engine

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/index/quant"
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

const (
	loadVectorsMax = 65_536 // vectors read into memory at start; more wait in cold
	moveBatch      = 1024   // vectors taken at a time on their way to the graph
	trainSampleMax = 20_000 // vectors that the quantizer is trained on
	// A graph node is worth less than a scan of this many bytes of codes: few matching points are scanned.
	scanBytesMax = 2 << 20
	// Fewer matching points than this are compared at full precision, all of them.
	exactMatchesMax = 256
	// scanDim: a row is never cheaper to scan than one cache line of codes, so short vectors count as this long.
	scanDim = 64

	// One pass over all links unlinks any number of nodes, so slots that wait for it wait for company.
	unlinkBatch    = 256
	unlinkInterval = time.Second

	checkpointChangesMin  = 20_000 // changed nodes that make a checkpoint due, if they are also a share of all
	checkpointChangeShare = 10     // … one in this many
	checkpointAgeMin      = 5 * time.Second
	checkpointAgeMax      = time.Minute // … or any changes after this long
	feedEntriesMax        = 10_000      // entries of the log after which the change feed is trimmed where there is no graph
)

// kick starts the background work if there is some and it is not running. What is due when the work ends and is kicked a
// moment too early waits for the next kick, which maintenance gives each second.
func (x *vectorIndex) kick() {
	if !x.hasWork() {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running || x.stop.Err() != nil {
		return
	}
	x.running = true
	x.wait.Go(func() {
		if err := x.work(); err != nil && x.stop.Err() == nil {
			x.log.Error("background indexing stopped, searches scan what is not in the graph", "shard", x.shard, "error", err)
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.running = false
	})
}

// halt ends the background work and returns when it has ended.
func (x *vectorIndex) halt() {
	x.mu.Lock()
	x.cancel() // under mu, so that no kick adds to wait from here on
	x.mu.Unlock()
	x.wait.Wait()
}

// waiting returns how many vectors are not in the graph.
func (x *vectorIndex) waiting() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.fresh.Len() + int(x.cold.GetCardinality())
}

// buildThreshold returns how many vectors make a graph worth its memory; negative means never.
func (x *vectorIndex) buildThreshold() int {
	kib := x.config.Load().Optimizer.IndexingThreshold
	if kib == 0 {
		return -1
	}
	return max(1, kib*1024/(4*max(x.dim, scanDim)))
}

func (x *vectorIndex) hasWork() bool {
	g := x.graph.Load()
	if g == nil {
		return x.buildDue() || x.trimDue()
	}
	return x.buildThreshold() >= 0 && x.waiting() > 0 && !x.budget.indexingPaused() || x.unlinkDue(g) || x.checkpointDue()
}

// buildDue reports whether there are enough vectors for a first graph.
func (x *vectorIndex) buildDue() bool {
	threshold := x.buildThreshold()
	return threshold >= 0 && x.waiting() >= threshold
}

// trimDue reports whether the change feed has grown though there is no checkpoint that would need it.
func (x *vectorIndex) trimDue() bool { return x.through.Load() > x.trimmed.Load()+feedEntriesMax }

// unlinkDue reports whether enough deleted nodes wait in the graph. One pass over all links takes them out, so a share of
// the graph's size keeps the cost per delete constant.
func (x *vectorIndex) unlinkDue(g *hnsw.Graph) bool {
	return g.Deleted() > max(unlinkBatch, g.Len()/50)
}

func (x *vectorIndex) checkpointDue() bool {
	unsaved := x.unsaved.Load()
	g := x.graph.Load()
	if unsaved == 0 || g == nil {
		return false
	}
	age := time.Since(time.UnixMilli(x.savedAt.Load()))
	return age >= checkpointAgeMax ||
		age >= checkpointAgeMin && unsaved >= max(checkpointChangesMin, int64(g.Len()/checkpointChangeShare))
}

// work does what there is to do and returns when nothing is left.
func (x *vectorIndex) work() error {
	for x.stop.Err() == nil && x.hasWork() {
		if x.graph.Load() == nil {
			if err := x.begin(); err != nil {
				return err
			}
			continue
		}
		moved, blocked, err := x.moveSome()
		if err != nil {
			return err
		}
		g := x.graph.Load()
		stuck := moved == 0 && blocked > 0 // what waits wants slots that deleted nodes hold
		patient := stuck && blocked < unlinkBatch && time.Since(x.unlinkedAt) < unlinkInterval
		if stuck && !patient || x.unlinkDue(g) {
			if _, err := g.Unlink(x.stop); err != nil {
				return err
			}
			x.unlinkedAt, patient = time.Now(), false
		}
		if x.checkpointDue() {
			if err := x.checkpoint(); err != nil {
				x.log.Error("the graph's checkpoint was not written and will be tried again, a start would build the graph anew",
					"shard", x.shard, "error", err)
			}
		}
		if patient {
			return nil // until the next kick
		}
	}
	return nil
}

// begin does what there is to do without a graph, which may be to make one.
func (x *vectorIndex) begin() error {
	if x.buildDue() {
		return x.create()
	}
	through := x.through.Load()
	if err := x.files.SyncAndTrim(x.shard, through); err != nil {
		return fmt.Errorf("trim the change feed: %w", err)
	}
	x.trimmed.Store(through)
	return nil
}

// create trains the quantizer on what waits and makes an empty graph.
func (x *vectorIndex) create() error {
	slots := x.fresh.AppendSlots(nil, x.fresh.Len())
	step := max(1, (len(slots)+trainSampleMax-1)/trainSampleMax)
	var sample [][]float32
	for i := 0; i < len(slots); i += step {
		if v, ok := x.fresh.Vector(slots[i], nil); ok {
			sample = append(sample, v)
		}
	}
	if len(sample) == 0 {
		err := x.vectors.Vectors(x.shard, x.coldSlots(trainSampleMax), func(_ uint32, v []float32) error {
			sample = append(sample, slices.Clone(v))
			return nil
		})
		if err != nil {
			return fmt.Errorf("read a sample of vectors: %w", err)
		}
	}
	if len(sample) == 0 {
		return nil // everything was deleted meanwhile
	}
	codec, err := quant.Train(x.distance, x.dim, sample)
	if err != nil {
		return fmt.Errorf("train the quantizer: %w", err)
	}
	c := x.config.Load().HNSW
	g, err := hnsw.New(codec, hnsw.Config{M: c.M, EfConstruction: c.EfConstruct, MaxLayers: c.MaxLayers})
	if err != nil {
		return fmt.Errorf("create the graph: %w", err)
	}
	x.graph.Store(g)
	return nil
}

func (x *vectorIndex) coldSlots(limit int) []uint32 {
	x.mu.Lock()
	defer x.mu.Unlock()
	slots := make([]uint32, 0, min(limit, int(x.cold.GetCardinality())))
	for it := x.cold.Iterator(); it.HasNext() && len(slots) < limit; {
		slots = append(slots, it.Next())
	}
	return slots
}

// moveSome puts up to moveBatch vectors into the graph. blocked counts those whose slot a deleted node still occupies.
func (x *vectorIndex) moveSome() (moved, blocked int, err error) {
	g := x.graph.Load()
	if g == nil || x.buildThreshold() < 0 || x.budget.indexingPaused() {
		return 0, 0, nil
	}
	type move struct {
		slot   uint32
		vector []float32
	}
	var moves []move
	slots := x.fresh.AppendSlots(nil, moveBatch)
	x.mu.Lock()
	for _, slot := range slots {
		if g.Occupied(slot) {
			blocked++
			continue
		}
		// Under mu nothing leaves fresh, so the vector read here is the one that moving stands for.
		if v, ok := x.fresh.Vector(slot, nil); ok {
			moves = append(moves, move{slot, v})
			x.moving[slot] = true
		}
	}
	x.mu.Unlock()
	if len(moves) == 0 {
		cold := x.coldSlots(moveBatch)
		x.mu.Lock()
		cold = slices.DeleteFunc(cold, func(slot uint32) bool {
			if g.Occupied(slot) {
				blocked++
				return true
			}
			if !x.cold.Contains(slot) {
				return true
			}
			x.moving[slot] = true
			return false
		})
		x.mu.Unlock()
		// Apply marks a slot that it changes from here on, so a vector read too early is found out below.
		err := x.vectors.Vectors(x.shard, cold, func(slot uint32, v []float32) error {
			moves = append(moves, move{slot, slices.Clone(v)})
			return nil
		})
		if err != nil {
			return 0, blocked, fmt.Errorf("read vectors: %w", err)
		}
	}
	var failed atomic.Pointer[error]
	var next atomic.Int64
	x.workers.run(x.stop, func() {
		for failed.Load() == nil && x.stop.Err() == nil {
			i := int(next.Add(1)) - 1
			if i >= len(moves) {
				return
			}
			if err := g.Insert(moves[i].slot, moves[i].vector); err != nil {
				err = fmt.Errorf("insert slot %d: %w", moves[i].slot, err)
				failed.Store(&err)
				return
			}
			x.arrived(g, moves[i].slot)
		}
	})
	x.mu.Lock()
	clear(x.moving)
	x.mu.Unlock()
	if err := failed.Load(); err != nil {
		return 0, blocked, *err
	}
	x.metrics.indexed.Add(float64(len(moves)))
	return len(moves), blocked, x.stop.Err()
}

// arrived takes a slot out of where it waited, now that the graph has it; if Apply changed it on the way, the graph's
// copy is the one to go.
func (x *vectorIndex) arrived(g *hnsw.Graph, slot uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.moving[slot] {
		g.Delete(slot)
		return
	}
	x.fresh.Remove(slot)
	x.cold.Remove(slot)
	x.unsaved.Add(1)
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
	k       int // candidates wanted
	ef      int
	matches *matches // nil: every slot
	exact   bool
	indexed bool // only what is in the graph
}

// candidates appends at least the k nearest slots, if there are as many, in no order and some perhaps twice: the best of
// fresh, of cold and of the graph. Their distances are not given, since who asks must compare at full precision anyway.
func (x *vectorIndex) candidates(dst []uint32, n nearest) ([]uint32, error) {
	if n.exact {
		return x.scan(dst, n, nil)
	}
	if n.matches != nil && n.matches.count <= max(exactMatchesMax, n.k) && !n.indexed {
		return n.matches.slots.appendTo(dst), nil
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
			var err error
			if dst, err = x.scan(dst, n, cold.ToArray()); err != nil {
				return nil, err
			}
		}
	}
	g := x.graph.Load()
	if g == nil {
		return dst, nil
	}
	found = found[:0]
	switch {
	case n.matches == nil:
		found = g.Search(found, n.vector, n.k, n.ef, nil)
	case n.matches.count*(x.dim+hnswRowOverhead) <= scanBytesMax:
		found = g.Scan(found, n.vector, n.k, n.matches.slots.appendTo(nil))
	default:
		found = g.Search(found, n.vector, n.k, n.ef, &hnsw.Filter{Slots: n.matches.slots.bits, Count: n.matches.count})
	}
	for _, f := range found {
		dst = append(dst, f.Slot)
	}
	return dst, nil
}

// hnswRowOverhead stands for what a scanned code costs beside its own bytes.
const hnswRowOverhead = 32

// scan appends the k nearest among the given slots, or among all if slots is nil, compared at full precision with the
// vectors in storage.
func (x *vectorIndex) scan(dst []uint32, n nearest, slots []uint32) ([]uint32, error) {
	distance := index.DistanceFunc(x.distance)
	allow := n.matches.allow()
	var top index.Top
	top.Reset(n.k)
	offer := func(slot uint32, v []float32) error {
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

// workerTokens share the cores between the indexing of all shards.
type workerTokens struct {
	tokens chan struct{}
}

func newWorkerTokens(n int) *workerTokens { return &workerTokens{tokens: make(chan struct{}, n)} }

// run calls fn on as many goroutines as there are tokens to be had, at least one, and returns when all have returned.
func (t *workerTokens) run(ctx context.Context, fn func()) {
	var wg sync.WaitGroup
	for i := range cap(t.tokens) {
		if i == 0 {
			select {
			case t.tokens <- struct{}{}:
			case <-ctx.Done():
				return
			}
		} else {
			select {
			case t.tokens <- struct{}{}:
			default:
				continue
			}
		}
		wg.Go(func() {
			defer func() { <-t.tokens }()
			fn()
		})
	}
	wg.Wait()
}
