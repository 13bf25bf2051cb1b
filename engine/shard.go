package engine

import (
	"fmt"
	"slices"
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
	allocator allocator // Apply's own
	expiry    expiry
	vectors   atomic.Pointer[[]*shardVectors] // by ascending number; replaced whole by Apply when a name comes or goes
	feed      feedMarks
	filters   filterCache
	fields    fieldIndexes
	points    atomic.Int64
	payload   atomic.Int64 // about the bytes of all payloads, see sizes
	used      bool         // it has, or had since the start, points; Apply's own
	// through is the index in the log up to which changes have reached the memory.
	through atomic.Uint64

	// applying is held by Apply from before the first slot is cleared until the index knows the batch's changes. A read
	// that saw a slot change under it takes it and looks again, so that it meets no half of an update.
	applying sync.RWMutex
	// moving says that applying is held by Apply. Who sees a slot without a point, then false here and then no change of
	// through knows that the point is gone.
	moving atomic.Bool
}

// empty makes a shard without points ready, of which the log has been applied up to an index.
func (s *shard) empty(applied uint64) {
	s.through.Store(applied)
	s.filters.from = applied
	for _, x := range s.indexes() {
		x.trimmed.Store(applied)
	}
}

// shardChanges gathers what one batch changes of a shard, in order, for the memory to follow once the batch is committed.
type shardChanges struct {
	shard   *shard
	steps   []slotStep
	points  int64    // points more than before
	payload int64    // bytes of payloads more than before
	touched []uint32 // slots whose point or payload changed
	before  int      // those of them that entries before the one at through touched
	fields  []fieldStep
	through uint64 // index of the last entry, whether it changed anything or not
}

// slotStep is one change of a slot: given to a point with new vectors, kept by it with a new version (a changed
// payload or time to expire at), or freed.
type slotStep struct {
	kind    slotStepKind
	slot    uint32
	point   slotPoint
	expires int64            // of a slot that is filled or dated
	filled  []numberedVector // what came with the slot
	emptied []uint16         // numbers of the vectors that went with it
}

// numberedVector is a vector by the number of its name.
type numberedVector struct {
	number uint16
	vectord.Vector
}

type slotStepKind uint8

const (
	slotFilled slotStepKind = iota
	slotKept
	slotDated // kept, and the point expires at another time
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
	// A filter that is evaluated by indexes sees what the vector indexes have: all of the batch or nothing.
	f := &c.shard.fields
	f.mu.Lock()
	for _, s := range c.steps {
		switch s.kind {
		case slotFilled:
			c.shard.slots.set(s.slot, s.point)
			if s.expires != 0 {
				c.shard.expiry.set(s.slot, s.expires)
			}
			f.live.Add(s.slot)
			for i := range s.filled {
				if v := c.shard.vectorsOf(s.filled[i].number); v != nil {
					v.add(s.slot, &s.filled[i].Vector)
				}
			}
		case slotKept:
			c.shard.slots.set(s.slot, s.point)
		case slotDated:
			c.shard.slots.set(s.slot, s.point)
			c.shard.expiry.set(s.slot, s.expires)
		case slotFreed:
			c.shard.slots.clear(s.slot)
			c.shard.expiry.remove(s.slot)
			f.live.Remove(s.slot)
			for _, number := range s.emptied {
				if v := c.shard.vectorsOf(number); v != nil {
					v.remove(s.slot)
				}
			}
		}
	}
	for i := range c.fields {
		f.step(&c.fields[i])
	}
	f.measure()
	c.shard.points.Add(c.points)
	c.shard.payload.Add(c.payload)
	c.shard.filters.changed(c.through, c.touched)
	c.shard.through.Store(c.through)
	f.mu.Unlock()
	c.shard.moving.Store(false)
	c.shard.applying.Unlock()
	for _, v := range *c.shard.vectors.Load() {
		v.kick()
	}
}

// pointWriter changes the points of one shard within a batch.
type pointWriter struct {
	collection *collection
	batch      *storage.Batch
	changes    *shardChanges
	index      uint64 // of the entry being applied
	time       int64  // … and its time
	before     int    // slots touched by entries before
	deleted    int    // points
	err        error  // the first of reindex, which ends everything
}

// point returns the row of a point. ok is false where there is none, or none any more by the time of the entry; then exists
// says whether there is a row all the same.
func (w *pointWriter) point(id vectord.PointID) (row storage.PointRow, ok, exists bool, err error) {
	row, exists, err = w.batch.Point(w.changes.shard.id, id)
	return row, exists && !gone(row, w.time), exists, err
}

// finish notes in the change feed what the entry has changed, and returns the first error of reindex.
func (w *pointWriter) finish() error {
	s := w.changes.shard
	if touched := w.changes.touched[w.before:]; len(touched) > 0 && len(s.indexes()) > 0 {
		w.batch.AppendChange(s.id, w.index, touched)
	}
	return w.err
}

func (w *pointWriter) step(s slotStep) {
	w.changes.steps = append(w.changes.steps, s)
	w.changes.touched = append(w.changes.touched, s.slot)
}

// upsert writes the point whole. old is its row if it exists.
func (w *pointWriter) upsert(p *vectord.Point, old storage.PointRow, existed bool) error {
	vectors, err := w.numbered(p.Vectors)
	if err != nil {
		return err
	}
	row := w.place(p.ID, vectors, p.Payload, p.Expires)
	w.changes.payload += int64(len(p.Payload) - len(old.Payload))
	if existed {
		w.reindex(&old, &row)
		w.free(old)
	} else {
		w.reindex(nil, &row)
		w.changes.points++
	}
	return nil
}

// numbered returns the vectors by ascending number.
func (w *pointWriter) numbered(vectors vectord.Vectors) ([]numberedVector, error) {
	out := make([]numberedVector, len(vectors))
	for i := range vectors {
		spec, err := w.collection.spec(vectors[i].Name)
		if err != nil {
			return nil, err
		}
		out[i] = numberedVector{spec.number, vectors[i].Vector}
	}
	slices.SortFunc(out, func(a, b numberedVector) int { return int(a.number) - int(b.number) })
	return out, nil
}

// place gives the point a new slot. The slot that it may have had is freed afterwards: the other way round a search
// between the two would find the point nowhere.
func (w *pointWriter) place(id vectord.PointID, vectors []numberedVector, payload []byte, expires int64) storage.PointRow {
	s := w.changes.shard
	slot := s.allocator.allocate(w.index)
	numbers := make([]uint16, len(vectors))
	for i := range vectors {
		numbers[i] = vectors[i].number
		w.collection.specOf(numbers[i]).put(w.batch, s.id, slot, &vectors[i].Vector)
	}
	row := storage.PointRow{Slot: slot, Expires: expires, Vectors: numbers, Payload: payload}
	w.batch.PutPoint(s.id, id, row)
	w.batch.PutSlot(s.id, slot, storage.SlotRow{ID: id, Version: w.index, Expires: expires, Vectors: numbers})
	w.step(slotStep{kind: slotFilled, slot: slot, point: slotPoint{id, w.index}, expires: expires, filled: vectors})
	return row
}

// free takes a point's slot away.
func (w *pointWriter) free(row storage.PointRow) {
	s := w.changes.shard
	w.batch.DeleteSlot(s.id, row.Slot)
	for _, number := range row.Vectors {
		w.batch.DeleteVector(storage.VectorSet{Shard: s.id, Number: number}, row.Slot)
	}
	s.allocator.release(row.Slot)
	w.step(slotStep{kind: slotFreed, slot: row.Slot, emptied: row.Vectors})
}

func (w *pointWriter) delete(id vectord.PointID, row storage.PointRow) {
	w.batch.DeletePoint(w.changes.shard.id, id)
	w.changes.payload -= int64(len(row.Payload))
	w.reindex(&row, nil)
	w.free(row)
	w.changes.points--
	w.deleted++
}

// setPayload replaces a point's payload; its slot and vectors stay.
func (w *pointWriter) setPayload(id vectord.PointID, row storage.PointRow, payload []byte) {
	s := w.changes.shard
	old := row
	row.Payload = payload
	w.changes.payload += int64(len(payload) - len(old.Payload))
	w.batch.PutPoint(s.id, id, row)
	w.reindex(&old, &row)
	w.batch.PutSlot(s.id, row.Slot, storage.SlotRow{ID: id, Version: w.index, Expires: row.Expires, Vectors: row.Vectors})
	w.step(slotStep{kind: slotKept, slot: row.Slot, point: slotPoint{id, w.index}})
}

// setExpiry has a point expire at another time; 0 is never.
func (w *pointWriter) setExpiry(id vectord.PointID, row storage.PointRow, expires int64) {
	s := w.changes.shard
	row.Expires = expires
	w.batch.PutPoint(s.id, id, row)
	w.batch.PutSlot(s.id, row.Slot, storage.SlotRow{ID: id, Version: w.index, Expires: expires, Vectors: row.Vectors})
	w.step(slotStep{kind: slotDated, slot: row.Slot, point: slotPoint{id, w.index}, expires: expires})
}

// setVectors gives an existing point other vectors of some names; the others move with it.
func (w *pointWriter) setVectors(id vectord.PointID, row storage.PointRow, given vectord.Vectors) error {
	vectors, err := w.numbered(given)
	if err != nil {
		return err
	}
	return w.move(id, row, vectors, func(number uint16) bool {
		return !slices.ContainsFunc(vectors, func(v numberedVector) bool { return v.number == number })
	})
}

// deleteVectors takes some vectors from an existing point.
func (w *pointWriter) deleteVectors(id vectord.PointID, row storage.PointRow, numbers []uint16) error {
	if !slices.ContainsFunc(row.Vectors, func(n uint16) bool { return slices.Contains(numbers, n) }) {
		return nil
	}
	return w.move(id, row, nil, func(number uint16) bool { return !slices.Contains(numbers, number) })
}

// move gives the point a new slot with the vectors given and those of its own that keep says.
func (w *pointWriter) move(id vectord.PointID, row storage.PointRow, vectors []numberedVector, keep func(number uint16) bool) error {
	for _, number := range row.Vectors {
		spec := w.collection.specOf(number)
		if spec == nil || !keep(number) {
			continue
		}
		v, ok, err := spec.read(w.batch.Reader, w.changes.shard.id, row.Slot)
		if err == nil && !ok {
			err = fmt.Errorf("point %s has no vector %d in slot %d", id, number, row.Slot)
		}
		if err != nil {
			return err
		}
		vectors = append(vectors, numberedVector{number, v})
	}
	slices.SortFunc(vectors, func(a, b numberedVector) int { return int(a.number) - int(b.number) })
	placed := w.place(id, vectors, row.Payload, row.Expires)
	w.reindex(&row, &placed)
	w.free(row)
	return nil
}
