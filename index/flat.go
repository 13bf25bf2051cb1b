package index

import (
	"fmt"
	"math/bits"
	"slices"
	"sync"

	"github.com/vectord/vectord"
)

// flatChunkBytes is about the size of the pieces in which a Flat takes memory and gives it back. A longer row makes a
// chunk of its own.
const flatChunkBytes = 64 << 10

// flatRowOverhead estimates the bytes that a row costs in the map from slots to rows.
const flatRowOverhead = 24

// noRow ends the list of rows in order of insertion.
const noRow = -1

// Flat is the exact index: it compares the query with every vector. It is the oracle of the other indexes, and holds the
// fresh writes of a shard until they are in the graph.
//
// Rows 0 to Len-1 are dense: a removed row is filled with the last one, so that a search reads memory from front to back.
// The order of insertion lives in a list threaded through the rows, which makes every change constant time; rows shifted
// down instead of swapped would keep the order for free and make emptying the index quadratic.
//
// Flat is safe for concurrent use. Searches run side by side; a change waits for the searches that have begun.
type Flat struct {
	distance vectord.Distance
	dim      int
	shift    uint // a chunk holds 1<<shift rows

	mu     sync.RWMutex // guards what follows
	chunks [][]float32  // all of full length; at most one more than the rows need
	rows   []flatRow    // what belongs to each row but its vector
	bySlot map[uint32]int32
	oldest int32 // first row of the list, noRow if there is none
	newest int32 // last row of the list
}

// flatTops has the memory of searches, of all Flats: there may be many that are empty.
var flatTops = sync.Pool{New: func() any { return new(Top) }}

// flatRow is a row's slot and its place in the list by age.
type flatRow struct {
	slot         uint32
	older, newer int32
}

// NewFlat returns an empty index of vectors of length dim compared by d. It panics unless d is valid and dim positive.
func NewFlat(d vectord.Distance, dim int) *Flat {
	checkDistance(d)
	if dim <= 0 {
		panic(fmt.Sprintf("index: dimension %d is not positive", dim))
	}
	perChunk := max(flatChunkBytes/(4*dim), 1)
	f := &Flat{
		distance: d,
		dim:      dim,
		shift:    uint(bits.Len(uint(perChunk)) - 1),
	}
	f.reset()
	return f
}

func (f *Flat) reset() {
	f.chunks, f.rows = nil, nil
	f.bySlot = nil // a map never shrinks, so an emptied one is dropped
	f.oldest, f.newest = noRow, noRow
}

// vector returns the vector of a row, in place.
func (f *Flat) vector(row int32) []float32 {
	i := (int(row) & (1<<f.shift - 1)) * f.dim
	return f.chunks[row>>f.shift][i : i+f.dim : i+f.dim]
}

// Add stores a copy of v under slot. If the slot has a vector it is replaced, and keeps its place in the order of insertion.
// It panics unless v has the index's dimension.
func (f *Flat) Add(slot uint32, v []float32) {
	if len(v) != f.dim {
		panic(fmt.Sprintf("index: vector of length %d added to an index of dimension %d", len(v), f.dim))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	row, ok := f.bySlot[slot]
	if !ok {
		row = f.append(slot)
	}
	copy(f.vector(row), v)
}

// append makes a row for slot and returns it. Its vector is garbage.
func (f *Flat) append(slot uint32) int32 {
	row := int32(len(f.rows))
	if int(row)>>f.shift == len(f.chunks) {
		f.chunks = append(f.chunks, make([]float32, f.dim<<f.shift))
	}
	f.rows = append(f.rows, flatRow{slot: slot, older: f.newest, newer: noRow})
	f.setNewer(f.newest, row)
	f.newest = row
	if f.bySlot == nil {
		f.bySlot = map[uint32]int32{}
	}
	f.bySlot[slot] = row
	return row
}

// Remove forgets the vector of slot and reports whether there was one.
func (f *Flat) Remove(slot uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	row, ok := f.bySlot[slot]
	if !ok {
		return false
	}
	if len(f.rows) == 1 {
		f.reset()
		return true
	}
	delete(f.bySlot, slot)
	gone := f.rows[row]
	f.setNewer(gone.older, gone.newer)
	f.setOlder(gone.newer, gone.older)

	last := int32(len(f.rows) - 1)
	if row != last {
		moved := f.rows[last]
		copy(f.vector(row), f.vector(last))
		f.rows[row] = moved
		f.bySlot[moved.slot] = row
		f.setNewer(moved.older, row)
		f.setOlder(moved.newer, row)
	}
	f.rows = f.rows[:last]
	f.shrink()
	return true
}

// setNewer and setOlder set one link of a row, or the list's own end if the row is noRow.
func (f *Flat) setNewer(row, newer int32) {
	if row == noRow {
		f.oldest = newer
	} else {
		f.rows[row].newer = newer
	}
}

func (f *Flat) setOlder(row, older int32) {
	if row == noRow {
		f.newest = older
	} else {
		f.rows[row].older = older
	}
}

// shrink gives back what the rows no longer need. One empty chunk stays, lest an index whose length swings around a
// chunk's end allocate at every other change.
func (f *Flat) shrink() {
	needed := (len(f.rows) + 1<<f.shift - 1) >> f.shift
	if n := len(f.chunks); n > needed+1 {
		f.chunks[n-1] = nil
		f.chunks = f.chunks[:n-1]
	}
	if cap(f.rows) > 4*len(f.rows)+64 {
		f.rows = slices.Clone(f.rows)
	}
}

// Vector appends the vector of slot to dst and reports whether there is one.
func (f *Flat) Vector(slot uint32, dst []float32) ([]float32, bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	row, ok := f.bySlot[slot]
	if !ok {
		return dst, false
	}
	return append(dst, f.vector(row)...), true
}

// Len returns the number of vectors.
func (f *Flat) Len() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return len(f.rows)
}

// MemoryBytes returns about how much memory the index holds.
func (f *Flat) MemoryBytes() int64 {
	const rowBytes = 12
	f.mu.RLock()
	defer f.mu.RUnlock()
	return int64(len(f.chunks))*int64(f.dim<<f.shift)*4 + int64(cap(f.rows))*rowBytes + int64(len(f.rows))*flatRowOverhead
}

// Search appends the k vectors nearest to q, nearest first, to dst. Where allow is not nil only the slots for which it is
// true count; it must not call the index. Search panics unless q has the index's dimension.
func (f *Flat) Search(dst []Neighbor, q []float32, k int, allow func(slot uint32) bool) []Neighbor {
	if len(q) != f.dim {
		panic(fmt.Sprintf("index: query of length %d to an index of dimension %d", len(q), f.dim))
	}
	top := flatTops.Get().(*Top)
	defer flatTops.Put(top)
	f.mu.RLock()
	defer f.mu.RUnlock()
	top.Reset(min(k, len(f.rows)))
	step := min(flatStepRows, 1<<f.shift)
	for first := 0; first < len(f.rows); first += step {
		rows := f.rows[first:min(first+step, len(f.rows))]
		begin := (first & (1<<f.shift - 1)) * f.dim
		vectors := f.chunks[first>>f.shift][begin:][:len(rows)*f.dim]
		if allow == nil {
			f.scan(top, q, rows, vectors)
		} else {
			f.scanAllowed(top, q, rows, vectors, allow)
		}
	}
	return top.AppendSorted(dst)
}

// flatStepRows is how many rows a search compares before it looks at their distances. A power of two, as the rows of a
// chunk are, so that no step reaches into two chunks.
const flatStepRows = 256

// scan offers rows, whose vectors are contiguous, to top.
func (f *Flat) scan(top *Top, q []float32, rows []flatRow, vectors []float32) {
	var distances [flatStepRows]float32
	Scan(f.distance, distances[:], q, vectors)
	for i, row := range rows {
		top.Offer(Neighbor{Slot: row.slot, Distance: distances[i]})
	}
}

// scanAllowed is scan for the slots that allow is true for.
func (f *Flat) scanAllowed(top *Top, q []float32, rows []flatRow, vectors []float32, allow func(slot uint32) bool) {
	var distances [flatStepRows]float32
	var allowed [flatStepRows]uint32 // which of the rows
	n := 0
	for i, row := range rows {
		if allow(row.slot) {
			allowed[n] = uint32(i)
			n++
		}
	}
	Distances(f.distance, distances[:], q, vectors, allowed[:n])
	for i, at := range allowed[:n] {
		top.Offer(Neighbor{Slot: rows[at].slot, Distance: distances[i]})
	}
}

// AppendSlots appends up to limit slots to dst, those first that were added first.
func (f *Flat) AppendSlots(dst []uint32, limit int) []uint32 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for row := f.oldest; row != noRow && limit > 0; limit-- {
		dst = append(dst, f.rows[row].slot)
		row = f.rows[row].newer
	}
	return dst
}
