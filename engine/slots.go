package engine

import (
	"encoding/binary"
	"sync/atomic"

	"github.com/RoaringBitmap/roaring/v2"

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

// get returns the point in the slot, if there is one.
func (t *slotTable) get(slot uint32) (slotPoint, bool) {
	e := t.entry(slot)
	if e == nil {
		return slotPoint{}, false
	}
	stamp := e.stamp.Load()
	high, low := e.high.Load(), e.low.Load()
	if stamp == 0 || e.stamp.Load() != stamp {
		return slotPoint{}, false
	}
	id := vectord.NumberID(low)
	if stamp&1 == 1 {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], high)
		binary.BigEndian.PutUint64(b[8:], low)
		id = vectord.UUIDID(b)
	}
	return slotPoint{id: id, version: stamp >> 1}, true
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

// allocator hands out slots. What it answers is a function of the set of live slots alone, so that every replica, and
// every restart, gives the same slots to the same commands: always the lowest free one.
type allocator struct {
	free *roaring.Bitmap // free slots below next
	next uint32
}

func newAllocator() *allocator { return &allocator{free: roaring.New()} }

func (a *allocator) allocate() uint32 {
	if !a.free.IsEmpty() {
		slot := a.free.Minimum()
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
