package engine

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/zeebo/xxh3"

	"github.com/vectord/vectord"
)

// slotTable tells for every slot of a shard which point lives there and since which version, 24 bytes a slot. Apply is
// its only writer; readers take no lock.
//
// The version doubles as the stamp of everything kept by slot elsewhere: a slot that was freed or given to another point
// has another version, so a reader that finds the same version before and after it used a slot's vector knows that the
// vector was that point's. Apply clears a slot before the commit that frees it and sets it after the commit that fills
// it; in between the slot holds nothing.
type slotTable struct {
	chunks atomic.Pointer[[]*slotChunk] // replaced whole when it grows; chunks never move
}

const slotChunkSize = 4096

type slotChunk [slotChunkSize]slotEntry

// slotEntry holds the id in high and low (a number has high = 0), and in stamp the version shifted by one with the lowest
// bit set for a UUID. Stamp 0 means that no point is here.
type slotEntry struct {
	stamp, high, low atomic.Uint64
}

// slotPoint is what a slot holds.
type slotPoint struct {
	id      vectord.PointID
	version uint64
}

func (t *slotTable) entry(slot uint32) *slotEntry {
	chunks := t.chunks.Load()
	if chunks == nil || int(slot/slotChunkSize) >= len(*chunks) {
		return nil
	}
	return &(*chunks)[slot/slotChunkSize][slot%slotChunkSize]
}

// slotWords is what a slot holds, as the table has it. Equal words are the same point at the same version.
type slotWords struct{ stamp, high, low uint64 }

func (w slotWords) version() uint64 { return w.stamp >> 1 }

func (w slotWords) id() vectord.PointID {
	if w.stamp&1 == 0 {
		return vectord.NumberID(w.low)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w.high)
	binary.BigEndian.PutUint64(b[8:], w.low)
	return vectord.UUIDID(b)
}

func (w slotWords) point() slotPoint { return slotPoint{id: w.id(), version: w.version()} }

// words returns what the slot holds, if there is a point.
func (t *slotTable) words(slot uint32) (slotWords, bool) {
	e := t.entry(slot)
	if e == nil {
		return slotWords{}, false
	}
	stamp := e.stamp.Load()
	high, low := e.high.Load(), e.low.Load()
	if stamp == 0 || e.stamp.Load() != stamp {
		return slotWords{}, false
	}
	return slotWords{stamp, high, low}, true
}

// get returns the point in the slot, if there is one.
func (t *slotTable) get(slot uint32) (slotPoint, bool) {
	w, ok := t.words(slot)
	if !ok {
		return slotPoint{}, false
	}
	return w.point(), true
}

// set puts a point into the slot. Only Apply and loading call it.
func (t *slotTable) set(slot uint32, p slotPoint) {
	e := t.entry(slot)
	if e == nil {
		var grown []*slotChunk
		if chunks := t.chunks.Load(); chunks != nil {
			grown = append(grown, *chunks...)
		}
		for len(grown) <= int(slot/slotChunkSize) {
			grown = append(grown, new(slotChunk))
		}
		t.chunks.Store(&grown)
		e = t.entry(slot)
	}
	stamp, high, low := p.version<<1, uint64(0), p.id.Number()
	if p.id.IsUUID() {
		b := p.id.UUID()
		stamp, high, low = stamp|1, binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	}
	e.stamp.Store(0)
	e.high.Store(high)
	e.low.Store(low)
	e.stamp.Store(stamp)
}

// clear empties the slot. Only Apply calls it.
func (t *slotTable) clear(slot uint32) {
	if e := t.entry(slot); e != nil {
		e.stamp.Store(0)
	}
}

// limit returns a number above every slot in use.
func (t *slotTable) limit() uint32 {
	chunks := t.chunks.Load()
	if chunks == nil {
		return 0
	}
	return uint32(len(*chunks) * slotChunkSize)
}

func (t *slotTable) memoryBytes() int64 {
	chunks := t.chunks.Load()
	if chunks == nil {
		return 0
	}
	return int64(len(*chunks)) * slotChunkSize * 24
}

// allocator hands out slots. What it answers is a function of the set of live slots and of the entry applied alone, so that
// every replica, and every restart, gives the same slots to the same commands.
//
// A slot that was freed a moment ago is still occupied in the graph, and a vector that gets it must wait for Unlink. So some
// slots are left free, and of these any is given: after a while most have been free for long.
type allocator struct {
	free roaring.Bitmap // free slots below next
	next uint32
}

const (
	freeSlotsMin   = 1024 // slots left free at least
	freeSlotsShare = 16   // … or one in this many
)

// allocate returns a slot for the entry with the given index in the log.
func (a *allocator) allocate(entry uint64) uint32 {
	free := a.free.GetCardinality()
	if free > max(freeSlotsMin, uint64(a.next/freeSlotsShare)) {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], entry)
		binary.LittleEndian.PutUint64(b[8:], free) // tells the slots of one entry apart
		slot, err := a.free.Select(uint32(xxh3.Hash(b[:]) % free))
		if err != nil {
			panic(err) // the rank is below the number of slots, which is all that it checks
		}
		a.free.Remove(slot)
		return slot
	}
	a.next++
	return a.next - 1
}

func (a *allocator) release(slot uint32) {
	if slot != a.next-1 {
		a.free.Add(slot)
		return
	}
	a.next--
	for a.next > 0 && a.free.Contains(a.next-1) {
		a.free.Remove(a.next - 1)
		a.next--
	}
}

// load marks a slot as live while the slots are read in ascending order at start.
func (a *allocator) load(slot uint32) {
	if slot > a.next {
		a.free.AddRange(uint64(a.next), uint64(slot))
	}
	a.next = slot + 1
}
