package engine

import (
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// shard is a part of a collection: the points whose ids hash to it, with the state in memory that their reads need. Its
// rows are in storage; everything here is derived from them.
type shard struct {
	id    uint32
	group uint32

	slots     slotTable
	allocator *allocator // Apply's own
	index     *vectorIndex
	filters   filterCache
	fields    *fieldIndexes
	points    atomic.Int64
	recall    calibrator

	// applying is held by Apply from before the first slot is cleared until the index knows the batch's changes. A read
	// that saw a slot change under it takes it and looks again, so that it meets no half of an update.
	applying sync.RWMutex
	// moving says that applying is held by Apply. Who sees a slot without a point, then false here and then no change of
	// index.through knows that the point is gone.
	moving atomic.Bool
}

// shardChanges gathers what one batch changes of a shard, in order, for the memory to follow once the batch is committed.
type shardChanges struct {
	shard   *shard
	steps   []slotStep
	points  int64    // points more than before
	touched []uint32 // slots whose point or payload changed
	fields  []fieldStep
	through uint64 // index of the last entry, whether it changed anything or not
}

// slotStep is one change of a slot: given to a point with a new vector, kept by it with a new version (a changed
// payload), or freed.
type slotStep struct {
	kind   slotStepKind
	slot   uint32
	point  slotPoint
	vector []float32
}

type slotStepKind uint8

const (
	slotFilled slotStepKind = iota
	slotKept
	slotFreed
)

// begin hides the slots that change and keeps careful readers out until finish. Between the two the batch commits.
func (c *shardChanges) begin() {
	c.shard.applying.Lock()
	c.shard.moving.Store(true)
	for _, s := range c.steps {
		c.shard.slots.clear(s.slot)
	}
}

// finish makes the memory follow the committed batch.
func (c *shardChanges) finish() {
	// A filter that is evaluated by indexes sees what the vector index has: all of the batch or nothing.
	f := c.shard.fields
	f.mu.Lock()
	for _, s := range c.steps {
		switch s.kind {
		case slotFilled:
			c.shard.slots.set(s.slot, s.point)
			c.shard.index.add(s.slot, s.vector)
			f.live.Add(s.slot)
		case slotKept:
			c.shard.slots.set(s.slot, s.point)
		case slotFreed:
			c.shard.slots.clear(s.slot)
			c.shard.index.remove(s.slot)
			f.live.Remove(s.slot)
		}
	}
	for i := range c.fields {
		f.step(&c.fields[i])
	}
	f.measure()
	c.shard.points.Add(c.points)
	c.shard.filters.changed(c.through, c.touched)
	c.shard.index.through.Store(c.through)
	f.mu.Unlock()
	c.shard.moving.Store(false)
	c.shard.applying.Unlock()
	c.shard.index.kick()
}

// pointWriter changes the points of one shard within a batch.
type pointWriter struct {
	batch      *storage.Batch
	changes    *shardChanges
	collection *collection
	index      uint64 // of the entry being applied
	err        error  // the first of reindex, which ends everything
}

func (w *pointWriter) step(s slotStep) {
	w.changes.steps = append(w.changes.steps, s)
	w.changes.touched = append(w.changes.touched, s.slot)
}

// upsert writes the point whole.
func (w *pointWriter) upsert(p vectord.Point) error {
	old, existed, err := w.batch.Point(w.changes.shard.id, p.ID)
	if err != nil {
		return err
	}
	row := w.place(p.ID, p.Vector, p.Payload)
	if existed {
		w.reindex(&old, &row)
		w.free(old.Slot)
	} else {
		w.reindex(nil, &row)
		w.changes.points++
	}
	return nil
}

// place gives the point a new slot. The slot that it may have had is freed afterwards: the other way round a search
// between the two would find the point nowhere.
func (w *pointWriter) place(id vectord.PointID, vector []float32, payload []byte) storage.PointRow {
	s := w.changes.shard
	slot := s.allocator.allocate(w.index)
	row := storage.PointRow{Slot: slot, Payload: payload}
	w.batch.PutPoint(s.id, id, row)
	w.batch.PutSlot(s.id, slot, storage.SlotRow{ID: id, Version: w.index})
	w.batch.PutVector(s.id, slot, vector)
	w.step(slotStep{kind: slotFilled, slot: slot, point: slotPoint{id, w.index}, vector: vector})
	return row
}

func (w *pointWriter) free(slot uint32) {
	s := w.changes.shard
	w.batch.DeleteSlot(s.id, slot)
	w.batch.DeleteVector(s.id, slot)
	s.allocator.release(slot)
	w.step(slotStep{kind: slotFreed, slot: slot})
}

func (w *pointWriter) delete(id vectord.PointID, row storage.PointRow) {
	w.batch.DeletePoint(w.changes.shard.id, id)
	w.reindex(&row, nil)
	w.free(row.Slot)
	w.changes.points--
}

// setPayload replaces a point's payload; its slot and vector stay.
func (w *pointWriter) setPayload(id vectord.PointID, row storage.PointRow, payload []byte) {
	s := w.changes.shard
	changed := storage.PointRow{Slot: row.Slot, Payload: payload}
	w.batch.PutPoint(s.id, id, changed)
	w.reindex(&row, &changed)
	w.batch.PutSlot(s.id, row.Slot, storage.SlotRow{ID: id, Version: w.index})
	w.step(slotStep{kind: slotKept, slot: row.Slot, point: slotPoint{id, w.index}})
}

// setVector gives an existing point another vector.
func (w *pointWriter) setVector(id vectord.PointID, row storage.PointRow, vector []float32) {
	placed := w.place(id, vector, row.Payload)
	w.reindex(&row, &placed)
	w.free(row.Slot)
}
