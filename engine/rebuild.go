package engine

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord/index/hnsw"
	"github.com/vectord/vectord/index/quant"
)

// This file replaces a graph that serves by one of other codes: because the configuration asks for others, or because the
// vectors that came since the codes were trained do not fit them any more.
//
// The next graph is trained on a sample of what is stored, and filled from storage while the old one serves. Meanwhile
// whatever moves into the old graph moves into the next one as well, first, and whatever leaves the one leaves the other,
// under mu. Once every node of the old graph was looked at, the next one therefore has all of them, and takes its place. A
// search that ran on the old graph sees that it was replaced and searches again (see candidates).
//
// The next graph is derived and not saved. A stop ends it, and the next start, which loads the old graph, begins again.

const (
	// Components that the codes cannot say are a sign of drift from driftShareMax of those of driftVectors vectors in
	// sequence, beyond what training may have cut off on purpose.
	driftShareMax = 0.001
	driftVectors  = 10_000

	// driftGrowth is the share, one in this many, of a graph that must have come since the codes were trained for them to be
	// trained again: it bounds the work by that of the inserts, whatever the data do.
	driftGrowth = 4

	// rebuildRetry is how long a rebuild that failed, or had no memory, waits before it is tried again.
	rebuildRetry = time.Minute
)

// drift counts what the codes of a graph cannot say of the vectors that move into it.
type drift struct {
	vectors, clipped atomic.Int64 // of the driftVectors under way
	since            atomic.Int64 // vectors moved since the codes were trained, or since the start
	share            atomic.Int64 // components clipped of the last driftVectors vectors, in millionths
	full             atomic.Bool  // there were as many
}

func (d *drift) add(vectors, clipped int64) {
	d.since.Add(vectors)
	d.vectors.Add(vectors)
	d.clipped.Add(clipped)
}

// settle ends a sequence of driftVectors vectors of dim components if it is full.
func (d *drift) settle(dim int) {
	if n := d.vectors.Load(); n >= driftVectors {
		d.share.Store(d.clipped.Load() * 1e6 / (n * int64(dim)))
		d.full.Store(true)
		d.vectors.Store(0)
		d.clipped.Store(0)
	}
}

func (d *drift) reset() {
	d.vectors.Store(0)
	d.clipped.Store(0)
	d.since.Store(0)
	d.share.Store(0)
	d.full.Store(false)
}

// rebuildDue reports whether the graph is being replaced or should be.
func (x *vectorIndex) rebuildDue(g *hnsw.Graph) bool {
	if x.next.Load() != nil {
		return true
	}
	return (!x.asConfigured(g) || x.hasDrifted(g)) && time.Now().UnixNano() >= x.rebuildAfter.Load()
}

// asConfigured reports whether the graph has the codes and the links that the configuration names.
func (x *vectorIndex) asConfigured(g *hnsw.Graph) bool {
	q := x.spec.Load().quantization
	switch c := g.Codec().(type) {
	case *quant.Scalar:
		if c.Quantile() != q.Quantile {
			return false
		}
	case *quant.Product:
		if c.Compression() != q.Compression {
			return false
		}
	}
	return g.Codec().Name() == q.Codec && g.Config().M == x.spec.Load().hnsw.M
}

// hasDrifted reports whether recent vectors do not fit the codes.
func (x *vectorIndex) hasDrifted(g *hnsw.Graph) bool {
	cut := max(quant.CutMax, 1-float64(x.spec.Load().quantization.Quantile))
	return x.drift.full.Load() && float64(x.drift.share.Load()) > (cut+driftShareMax)*1e6 &&
		x.drift.since.Load() >= int64(g.Len()/driftGrowth)
}

// rebuildSome does a piece of a rebuild that is due: begins it, copies up to moveBatch nodes, or ends it.
func (x *vectorIndex) rebuildSome() error {
	x.drift.settle(x.dim)
	g, next := x.graph.Load(), x.next.Load()
	switch {
	case g == nil || !x.rebuildDue(g):
		return nil
	case next == nil:
		return x.beginRebuild(g)
	case x.budget.indexingPaused():
		x.abandon(errNoRoom)
		return nil
	case x.buildThreshold() < 0 || !x.asConfigured(next):
		x.dropNext() // the configuration has changed again
		return nil
	case len(x.toCopy) == 0:
		x.swap(g, next)
		return nil
	}
	return x.copySome(g, next)
}

var errNoRoom = fmt.Errorf("the memory limit leaves no room for a second graph")

// beginRebuild trains codes on what is stored and makes the next graph.
func (x *vectorIndex) beginRebuild(g *hnsw.Graph) error {
	if !x.mayIndex() {
		return nil
	}
	slots := g.AppendLive(nil)
	sample, err := x.stored(x.thinned(slices.Clone(slots)))
	if err != nil {
		return err
	}
	if len(sample) == 0 {
		x.abandon(fmt.Errorf("no vectors to train codes on"))
		return nil
	}
	next, err := x.newGraph(sample)
	if err == nil && !x.budget.hasRoom(int64(g.Len())*int64(next.Codec().RowSize()+nodeBytes)) {
		err = errNoRoom
	}
	if err != nil {
		x.abandon(err)
		return nil
	}
	reason := rebuildDrift
	if !x.asConfigured(g) {
		reason = rebuildConfig
	}
	x.log.Info("the graph is built again with other codes, the old one serves meanwhile", "of", x.set, "reason", reason,
		"from", g.Codec().Name(), "to", next.Codec().Name(), "vectors", len(slots))
	x.metrics.retrainings.WithLabelValues(reason).Inc()
	x.toCopy = slots
	x.next.Store(next)
	return nil
}

// Why a graph is replaced.
const (
	rebuildConfig = "config"
	rebuildDrift  = "drift"
)

// nodeBytes is about what a node takes beside its code.
const nodeBytes = 160

// copySome puts up to moveBatch nodes of the graph into the next one. Those that are there already came while they were
// on the list.
func (x *vectorIndex) copySome(g, next *hnsw.Graph) error {
	batch := x.toCopy[:min(moveBatch, len(x.toCopy))]
	var slots []uint32
	x.mu.Lock()
	for _, slot := range batch {
		if g.Live(slot) && !next.Occupied(slot) {
			slots = append(slots, slot)
			x.moves(slot)
		}
	}
	x.mu.Unlock()
	// Apply marks a slot that it changes from here on, so a vector read too early is found out below.
	var moves []move
	err := x.vectors.Vectors(x.set, slots, func(slot uint32, v []float32) error {
		moves = append(moves, move{slot, slices.Clone(v)})
		return nil
	})
	if err != nil {
		return fmt.Errorf("read vectors: %w", err)
	}
	err = x.insertAll(moves, func(m move) error {
		if err := next.Insert(m.slot, m.vector); err != nil {
			return err
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		if !x.moving[m.slot] {
			next.Delete(m.slot)
		}
		return nil
	})
	if err != nil {
		x.abandon(err)
		return nil
	}
	if err := x.stop.Err(); err != nil {
		return err
	}
	x.toCopy = x.toCopy[len(batch):]
	return nil
}

// swap puts the next graph in the place of the one that serves, which it closes once no search runs on it.
func (x *vectorIndex) swap(g, next *hnsw.Graph) {
	x.mu.Lock() // keeps remove from missing both
	x.graph.Store(next)
	x.next.Store(nil)
	x.mu.Unlock()
	x.toCopy = nil
	x.drift.reset()
	x.unsaved.Add(int64(next.Len())) // the checkpoint in place has the old one
	g.Close()
	x.log.Info("the graph was replaced", "of", x.set, "codec", next.Codec().Name(), "vectors", next.Len())
}

// abandon gives up a rebuild for a while.
func (x *vectorIndex) abandon(err error) {
	x.log.Warn("the graph is not built again with other codes for now, the old one serves", "of", x.set, "error", err)
	x.rebuildAfter.Store(time.Now().Add(rebuildRetry).UnixNano())
	x.dropNext()
}

func (x *vectorIndex) dropNext() {
	x.toCopy = nil
	if next := x.next.Swap(nil); next != nil {
		next.Close()
	}
}
