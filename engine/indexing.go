package engine

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/index/quant"
)

// This file is the background work of a vectorIndex: one goroutine that builds the graph, unlinks deleted nodes and writes
// checkpoints.

const (
	loadVectorsMax = 65_536 // vectors read into memory at start; more wait in cold
	moveBatch      = 1024   // vectors taken at a time on their way to the graph
	trainSampleMax = 20_000 // vectors that the quantizer is trained on

	// A row is never cheaper to scan than one cache line of codes, so short vectors count as this long.
	scanDim = 64

	// An indexing goroutine lets searches and writes run after each vector, and after one more for each so many that wait: a
	// busy server indexes at leisure at first, and with more of its time the longer what every search has to scan becomes.
	yieldBacklog = 256

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
	if x.running || x.halted || x.node.Err() != nil {
		return
	}
	if x.cancel == nil {
		x.stop, x.cancel = context.WithCancel(x.node)
	}
	x.running = true
	x.wait.Go(func() {
		x.failed.Store(nil)
		if err := x.work(); err != nil && x.stop.Err() == nil {
			x.failed.Store(&err)
			x.log.Error("background indexing stopped, searches scan what is not in the graph", "of", x.set, "error", err)
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		x.running = false
	})
}

// halt ends the background work for good and returns when it has ended.
func (x *vectorIndex) halt() {
	x.end()
	x.wait.Wait()
}

// end tells the background work to end.
func (x *vectorIndex) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.halted = true // so that no kick adds to wait from here on
	if x.cancel != nil {
		x.cancel()
	}
}

// ended reports whether there is no background work any more.
func (x *vectorIndex) ended() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.halted || x.node.Err() != nil
}

// buildThreshold returns how many vectors make a graph worth its memory; negative means never.
func (x *vectorIndex) buildThreshold() int {
	kib := x.spec.Load().thresholdKiB
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
	return x.unwanted() || x.mayIndex() && (x.waiting() > 0 || x.rebuildDue(g)) || x.next.Load() != nil || x.unlinkDue(g) || x.checkpointDue()
}

// unwanted reports whether the collection wants no graph: M is 0.
func (x *vectorIndex) unwanted() bool { return x.spec.Load().hnsw.M == 0 }

// mayIndex reports whether vectors may move into a graph that there is.
func (x *vectorIndex) mayIndex() bool { return x.buildThreshold() >= 0 && !x.budget.indexingPaused() }

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
		if x.unwanted() {
			if err := x.dropGraph(); err != nil {
				return err
			}
			continue
		}
		moved, blocked, err := x.moveSome()
		if err != nil {
			return err
		}
		if err := x.rebuildSome(); err != nil {
			return err
		}
		g := x.graph.Load()
		stuck := moved == 0 && blocked > 0 // what waits wants slots that deleted nodes hold
		patient := stuck && blocked < unlinkBatch && time.Since(x.unlinkedAt) < unlinkInterval
		if stuck && !patient || x.unlinkDue(g) {
			if _, err := g.Unlink(x.stop); err != nil {
				return err
			}
			if next := x.next.Load(); next != nil {
				if _, err := next.Unlink(x.stop); err != nil {
					return err
				}
			}
			x.unlinkedAt, patient = time.Now(), false
		}
		if x.checkpointDue() {
			if err := x.checkpoint(); err != nil {
				x.log.Error("the graph's checkpoint was not written and will be tried again, a start would build the graph anew",
					"of", x.set, "error", err)
			}
		}
		if patient && x.next.Load() == nil {
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
	if err := x.files.SyncAndTrim(x.set.Shard, x.feed.spare(through)); err != nil {
		return fmt.Errorf("trim the change feed: %w", err)
	}
	x.trimmed.Store(through)
	return nil
}

// create trains the quantizer on what waits and makes an empty graph.
func (x *vectorIndex) create() error {
	var sample [][]float32
	for _, slot := range x.thinned(x.fresh.AppendSlots(nil, x.fresh.Len())) {
		if v, ok := x.fresh.Vector(slot, nil); ok {
			sample = append(sample, v)
		}
	}
	if len(sample) == 0 {
		var err error
		if sample, err = x.stored(x.coldSlots(trainSampleMax)); err != nil {
			return err
		}
	}
	if len(sample) == 0 {
		return nil // everything was deleted meanwhile
	}
	g, err := x.newGraph(sample)
	if err != nil {
		return err
	}
	x.feed.set(x.set.Number, x.through.Load()) // what comes from here on is not in the first checkpoint
	x.graph.Store(g)
	return nil
}

// dropGraph takes the graph away and frees its memory. Its vectors wait in fresh, if it can have them all, else in cold, as
// they do at a start without a checkpoint.
func (x *vectorIndex) dropGraph() error {
	x.dropNext()
	g := x.graph.Load()
	var moves []move
	if slots := g.AppendLive(nil); len(slots) <= loadVectorsMax && x.fitsFresh(x.fresh.Len()+len(slots)) {
		err := x.vectors.Vectors(x.set, slots, func(slot uint32, v []float32) error {
			moves = append(moves, move{slot, slices.Clone(v)})
			return x.stop.Err()
		})
		if err != nil {
			return fmt.Errorf("read vectors: %w", err)
		}
	}
	x.takeBack(g, moves)
	g.Close()
	x.unsaved.Store(0)
	x.drift.reset()
	// A start without the file finds the vectors in storage; after that nobody needs the feed.
	if err := x.files.RemoveFile(checkpointName(x.set)); err != nil {
		return err
	}
	x.feed.drop(x.set.Number)
	x.log.Info("the graph was dropped, searches compare with all vectors", "of", x.set)
	return nil
}

// takeBack puts the slots of the graph where searches look for them without it. A search under way that has looked there
// before sees that the removals went on and begins anew; one that keeps writers out is waited for.
func (x *vectorIndex) takeBack(g *hnsw.Graph, moves []move) {
	x.applying.Lock()
	defer x.applying.Unlock()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.removals.Add(1) // before anything is hidden
	x.cold.AddMany(g.AppendLive(nil))
	for _, m := range moves {
		if g.Live(m.slot) { // and so still of the point whose vector was read
			x.fresh.Add(m.slot, m.vector)
			x.cold.Remove(m.slot)
		}
	}
	x.graph.Store(nil)
	x.removals.Add(1) // a search that began since the first may have passed fresh too early, and waits for mu to look into cold
}

// thinned returns at most trainSampleMax of the slots, evenly chosen.
func (x *vectorIndex) thinned(slots []uint32) []uint32 {
	step := max(1, (len(slots)+trainSampleMax-1)/trainSampleMax)
	few := slots[:0]
	for i := 0; i < len(slots); i += step {
		few = append(few, slots[i])
	}
	return few
}

// stored reads the vectors of the slots that have one.
func (x *vectorIndex) stored(slots []uint32) (vectors [][]float32, err error) {
	err = x.vectors.Vectors(x.set, slots, func(_ uint32, v []float32) error {
		vectors = append(vectors, slices.Clone(v))
		return x.stop.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read a sample of vectors: %w", err)
	}
	return vectors, nil
}

// newGraph returns an empty graph of the codes that the configuration names, trained on the sample.
func (x *vectorIndex) newGraph(sample [][]float32) (*hnsw.Graph, error) {
	codec, err := x.train(sample)
	if err != nil {
		return nil, fmt.Errorf("train the quantizer: %w", err)
	}
	c := x.spec.Load().hnsw
	g, err := hnsw.New(codec, hnsw.Config{M: c.M, EfConstruction: c.EfConstruct, MaxLayers: c.MaxLayers})
	if err != nil {
		return nil, fmt.Errorf("create the graph: %w", err)
	}
	return g, nil
}

func (x *vectorIndex) train(sample [][]float32) (quant.Codec, error) {
	switch q := x.spec.Load().quantization; q.Codec {
	case vectord.CodecFloat32:
		return quant.NewFloat32(x.distance, x.dim)
	case vectord.CodecBinary:
		return quant.TrainBinary(x.distance, x.dim, sample)
	case vectord.CodecProduct:
		return quant.TrainProduct(x.distance, x.dim, sample, q.Compression)
	default:
		return quant.TrainWithin(x.distance, x.dim, sample, q.Quantile)
	}
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
	if g == nil || !x.mayIndex() {
		return 0, 0, nil
	}
	next := x.next.Load() // only this goroutine changes it
	occupied := func(slot uint32) bool { return g.Occupied(slot) || next != nil && next.Occupied(slot) }
	var moves []move
	slots := x.fresh.AppendSlots(nil, moveBatch)
	x.mu.Lock()
	for _, slot := range slots {
		if occupied(slot) {
			blocked++
			continue
		}
		// Under mu nothing leaves fresh, so the vector read here is the one that moving stands for.
		if v, ok := x.fresh.Vector(slot, nil); ok {
			moves = append(moves, move{slot, v})
			x.moves(slot)
		}
	}
	x.mu.Unlock()
	if len(moves) == 0 {
		cold := x.coldSlots(moveBatch)
		x.mu.Lock()
		cold = slices.DeleteFunc(cold, func(slot uint32) bool {
			if occupied(slot) {
				blocked++
				return true
			}
			if !x.cold.Contains(slot) {
				return true
			}
			x.moves(slot)
			return false
		})
		x.mu.Unlock()
		// Apply marks a slot that it changes from here on, so a vector read too early is found out below.
		err := x.vectors.Vectors(x.set, cold, func(slot uint32, v []float32) error {
			moves = append(moves, move{slot, slices.Clone(v)})
			return nil
		})
		if err != nil {
			return 0, blocked, fmt.Errorf("read vectors: %w", err)
		}
	}
	var clipped atomic.Int64
	var nextFailed atomic.Pointer[error]
	err = x.insertAll(moves, func(m move) error {
		if next != nil && nextFailed.Load() == nil {
			if err := next.Insert(m.slot, m.vector); err != nil {
				nextFailed.Store(&err)
			}
		}
		if err := g.Insert(m.slot, m.vector); err != nil {
			return err
		}
		clipped.Add(int64(g.Codec().Clipped(m.vector)))
		x.arrived(g, m.slot)
		return nil
	})
	if failed := nextFailed.Load(); failed != nil {
		x.abandon(*failed)
	}
	if err != nil {
		return 0, blocked, err
	}
	x.drift.add(int64(len(moves)), clipped.Load())
	x.metrics.indexed.Add(float64(len(moves)))
	return len(moves), blocked, x.stop.Err()
}

// insertAll calls insert for each of the moves, on as many goroutines as there are to be had, until one fails; then all are
// no longer on the move.
func (x *vectorIndex) insertAll(moves []move, insert func(m move) error) error {
	var failed atomic.Pointer[error]
	var next atomic.Int64
	burst := 1 + x.waiting()/yieldBacklog
	x.workers.run(x.stop, func() {
		for inserted := 1; failed.Load() == nil && x.stop.Err() == nil; inserted++ {
			i := int(next.Add(1)) - 1
			if i >= len(moves) {
				return
			}
			if err := insert(moves[i]); err != nil {
				err = fmt.Errorf("insert slot %d: %w", moves[i].slot, err)
				failed.Store(&err)
				return
			}
			if inserted%burst == 0 {
				// Left to itself the goroutine would keep its processor for the 10 ms after which the runtime takes it away,
				// and a write, which needs several goroutines one after the other, would wait as long for each.
				runtime.Gosched()
			}
		}
	})
	x.mu.Lock()
	clear(x.moving)
	x.mu.Unlock()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// arrived takes a slot out of where it waited, now that the graph has it; if Apply changed it on the way, the graph's
// copy is the one to go.
func (x *vectorIndex) arrived(g *hnsw.Graph, slot uint32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.moving[slot] {
		g.Delete(slot)
		if next := x.next.Load(); next != nil {
			next.Delete(slot)
		}
		return
	}
	x.fresh.Remove(slot)
	x.cold.Remove(slot)
	x.unsaved.Add(1)
}

// moves notes that a slot's vector is on its way into a graph. x.mu is held.
func (x *vectorIndex) moves(slot uint32) {
	if x.moving == nil {
		x.moving = map[uint32]bool{}
	}
	x.moving[slot] = true
}

// move is a vector on its way into a graph.
type move struct {
	slot   uint32
	vector []float32
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
