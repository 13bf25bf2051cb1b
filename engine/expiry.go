package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tidwall/btree"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// A point may say when it expires. From then on no read returns it: each asks what has expired by its own clock and leaves
// that out. Soon after the point is removed by a command in the log, which names it, and which Apply obeys if the point, by
// the time of the entry, has expired indeed.

const (
	// sweepInterval is how often expired points are looked for, and sweptPerCommand how many one command removes at most.
	sweepInterval   = time.Second
	sweptPerCommand = 4096
	// overfetchMax is up to how many expired points a search without a filter is content to find and leave out. With more it
	// searches among those that have not expired.
	overfetchMax = 256
)

// expiry knows which slots of a shard hold points that expire, by when they do. Apply is its only writer; any goroutine may
// read.
type expiry struct {
	first atomic.Int64 // milliseconds since the Unix epoch at which the first expires; 0 for none

	mu    sync.RWMutex            // guards slots and times, and writes to first
	slots *btree.BTreeG[expiring] // nil before the first
	times map[uint32]int64
}

type expiring struct {
	at   int64
	slot uint32
}

// set says when the point in a slot expires; 0 is never.
func (e *expiry) set(slot uint32, at int64) {
	if at == 0 {
		e.remove(slot)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.slots == nil {
		e.slots = btree.NewBTreeGOptions(func(a, b expiring) bool { return a.at < b.at || a.at == b.at && a.slot < b.slot },
			btree.Options{NoLocks: true})
		e.times = map[uint32]int64{}
	}
	if old, ok := e.times[slot]; ok {
		e.slots.Delete(expiring{old, slot})
	}
	e.times[slot] = at
	e.slots.Set(expiring{at, slot})
	e.noteFirst()
}

// remove forgets a slot that was freed.
func (e *expiry) remove(slot uint32) {
	if e.first.Load() == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if at, ok := e.times[slot]; ok {
		delete(e.times, slot)
		e.slots.Delete(expiring{at, slot})
		e.noteFirst()
	}
}

func (e *expiry) noteFirst() {
	first := int64(0)
	if least, ok := e.slots.Min(); ok {
		first = least.at
	}
	e.first.Store(first)
}

// expired returns the slots whose points have expired at a time, at most limit of them, the first to expire first.
func (e *expiry) expired(now int64, limit int) (slots []uint32) {
	if first := e.first.Load(); first == 0 || now < first {
		return nil
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	e.slots.Scan(func(x expiring) bool {
		if x.at > now || len(slots) == limit {
			return false
		}
		slots = append(slots, x.slot)
		return true
	})
	return slots
}

// expiryBytes is about what a slot with a point that expires takes.
const expiryBytes = 64

func (e *expiry) memoryBytes() int64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return int64(len(e.times)) * expiryBytes
}

// without returns what matches, of all slots if found is nil, but for some slots.
func (s *shard) without(found *matches, expired []uint32) *matches {
	kept := &matches{}
	if found != nil {
		kept.asOf = found.asOf
		kept.slots.bits = slices.Clone(found.slots.bits)
	} else {
		kept.asOf = s.through.Load()
		for slot := range s.slots.limit() {
			if _, ok := s.slots.words(slot); ok {
				kept.slots.bits = kept.slots.bits.Set(slot)
			}
		}
	}
	for _, slot := range expired {
		kept.slots.bits.Clear(slot)
	}
	kept.count = kept.slots.bits.Count()
	return kept
}

// beforeAll is a time by which nothing has expired.
const beforeAll = math.MinInt64

// gone reports whether a point has expired at a time.
func gone(row storage.PointRow, now int64) bool { return row.Expires != 0 && row.Expires <= now }

// sweep removes expired points of all collections until the node closes.
func (db *DB) sweep() {
	defer db.background.Done()
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-db.stop.Done():
			return
		}
		if !db.leading.Load() {
			continue
		}
		for _, col := range db.catalog.inUse() {
			for _, s := range col.shards {
				if err := db.sweepShard(db.stop, col, s); err != nil && db.stop.Err() == nil {
					db.logger.Error("expired points are not removed for now, reads leave them out", "collection", col.name, "error", err)
				}
			}
		}
	}
}

// sweepShard removes the points of a shard that have expired by now.
func (db *DB) sweepShard(ctx context.Context, col *collection, s *shard) error {
	for ctx.Err() == nil {
		slots := s.expiry.expired(db.now(), sweptPerCommand)
		if len(slots) == 0 {
			return nil
		}
		w := expire{Collection: col.id, Shard: s.id}
		for _, slot := range slots {
			if p, ok := s.slots.get(slot); ok {
				w.IDs = append(w.IDs, p.id)
			}
		}
		r, err := db.log.Propose(ctx, s.group, w.append(nil))
		if err == nil {
			err = r.Err
		}
		if err != nil {
			return fmt.Errorf("remove %d expired points: %w", len(w.IDs), err)
		}
		db.metrics.expired.Add(float64(len(w.IDs)))
		if len(slots) < sweptPerCommand {
			return nil
		}
	}
	return ctx.Err()
}

// expire removes points of a shard that have expired.
type expire struct {
	Collection uint32
	Shard      uint32
	IDs        []vectord.PointID
}

// expirePoints applies an expire: a point that is gone, or was written again meanwhile and does not expire yet, is passed over.
func (a *applier) expirePoints(e vectord.Entry, x *expire) (refusal, err error) {
	col := a.db.catalog.get(x.Collection)
	if col == nil {
		return nil, nil // dropped meanwhile, with all its points
	}
	s := col.shard(x.Shard)
	if s == nil || s.group != e.Group {
		return nil, fmt.Errorf("shard %d is not one of collection %q in group %d", x.Shard, col.name, e.Group)
	}
	w := a.writer(col, s, e)
	for _, id := range x.IDs {
		row, ok, err := a.batch.Point(s.id, id)
		if err != nil {
			return nil, err
		}
		if ok && gone(row, e.Time) {
			w.delete(id, row)
		}
	}
	return nil, w.finish()
}
