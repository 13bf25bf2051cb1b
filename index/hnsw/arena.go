package hnsw

import (
	"fmt"
	"math"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/vectord/vectord/index"
)

// none ends a list of links that does not fill its row.
const none = math.MaxUint32

// The state of a slot, zero if it is free. Everything but the lock changes only as Insert, Delete and Unlink say.
const (
	locked   = 1 << iota // a writer is changing the node's links
	occupied             // the slot is taken
	linked               // Insert has finished
	dead                 // deleted; equal to the slot's bit in arena.dead, which searches read
)

// arena is the memory of a graph: flat arrays without pointers, one row or word for each slot, at addresses that never
// change. A graph that outgrows its arena copies it to a larger one while no writer runs, and readers finish on the old.
//
// Link words, states and the dead set are accessed atomically once the slot can be reached. Codes are written only while
// it cannot.
type arena struct {
	memory []byte
	slots  uint32 // capacity

	rowSize int // bytes of a code
	m       int // links on an upper layer; twice as many on layer 0

	codes  []byte   // [slots][rowSize]
	base   []uint32 // [slots][2m] links of layer 0
	states []uint32 // [slots]
	towers []uint32 // [slots] 1 + the number of the row in upper that belongs to layer 1; 0 if the slot never had one
	dead   []uint64 // [slots/64] one bit for each dead node
	upper  []uint32 // [][m] links of the layers from 1, those of one node together
}

// arenaAlign keeps the arrays apart in pages, so that codes and link rows lie in as few cache lines as they can.
const arenaAlign = 4096

// newArena reserves an arena for a number of slots, of which towers rows of links on upper layers can be given out.
func newArena(slots uint32, rowSize, m int, towers uint64) (*arena, error) {
	n := uint64(slots)
	sizes := [...]uint64{
		n * uint64(rowSize),
		n * uint64(2*m) * 4,
		n * 4,
		n * 4,
		(n + 63) / 64 * 8,
		towers * uint64(m) * 4,
	}
	var total uint64
	for i, size := range sizes {
		sizes[i] = (size + arenaAlign - 1) &^ (arenaAlign - 1)
		total += sizes[i]
	}
	if total > math.MaxInt {
		return nil, fmt.Errorf("reserve %d bytes for %d slots: more than this machine can address", total, slots)
	}
	memory, err := reserve(int(total))
	if err != nil {
		return nil, err
	}
	a := &arena{memory: memory, slots: slots, rowSize: rowSize, m: m}
	cut := func(i int) []byte {
		b := memory[:sizes[i]:sizes[i]]
		memory = memory[sizes[i]:]
		return b
	}
	a.codes = cut(0)
	a.base = view[uint32](cut(1))
	a.states = view[uint32](cut(2))
	a.towers = view[uint32](cut(3))
	a.dead = view[uint64](cut(4))
	a.upper = view[uint32](cut(5))
	return a, nil
}

// hugeBytes is the size of the codes and links of layer 0 from which they get huge pages. In a smaller graph half of a page of
// 2 MiB would be waste.
const hugeBytes = 16 << 20

// hugeSlots returns the number of slots from which on an arena gets huge pages.
func (a *arena) hugeSlots() uint32 { return uint32(hugeBytes / (a.rowSize + 2*a.m*4)) }

// adviseHuge asks for huge pages for codes and links, of which those below slot high are in use.
func (a *arena) adviseHuge(high uint32) {
	adviseHuge(a.codes, int(high)*a.rowSize)
	links := a.memory[len(a.codes):][:4*len(a.base)]
	adviseHuge(links, int(high)*2*a.m*4)
}

// view returns b, which is aligned to pages, as words.
func view[T uint32 | uint64](b []byte) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(T(0))))
}

// copyFrom takes over the slots below high and the rows of upper links below towers from a smaller arena that nobody
// writes to.
func (a *arena) copyFrom(old *arena, high uint32, towers uint64) {
	n := int(high)
	copy(a.codes, old.codes[:n*a.rowSize])
	copy(a.base, old.base[:n*2*a.m])
	copy(a.states, old.states[:n])
	copy(a.towers, old.towers[:n])
	copy(a.dead, old.dead[:(n+63)/64])
	copy(a.upper, old.upper[:int(towers)*a.m])
}

// code returns the row of a slot's quantized vector.
func (a *arena) code(slot uint32) []byte {
	i := int(slot) * a.rowSize
	return a.codes[i : i+a.rowSize : i+a.rowSize]
}

// links returns the row of a node's links on a layer that it is on.
func (a *arena) links(slot uint32, layer int) []uint32 {
	if layer == 0 {
		i := int(slot) * 2 * a.m
		return a.base[i : i+2*a.m : i+2*a.m]
	}
	i := (int(atomic.LoadUint32(&a.towers[slot])) - 1 + layer - 1) * a.m
	return a.upper[i : i+a.m : i+a.m]
}

// width returns the length of a row of links on a layer.
func (a *arena) width(layer int) int {
	if layer == 0 {
		return 2 * a.m
	}
	return a.m
}

// setLinks writes a row. A reader may see some of the old links among the new; each is a node of the layer.
func setLinks(row, slots []uint32) {
	for i := range row {
		link := uint32(none)
		if i < len(slots) {
			link = slots[i]
		}
		atomic.StoreUint32(&row[i], link)
	}
}

// appendLinks appends the links of a row.
func appendLinks(dst, row []uint32) []uint32 {
	for i := range row {
		slot := atomic.LoadUint32(&row[i])
		if slot == none {
			break
		}
		dst = append(dst, slot)
	}
	return dst
}

// lockSpins is how often lock looks before it lets others run: a row is rewritten within microseconds.
const lockSpins = 30

// lock keeps other writers from a node's links. A writer holds one lock at a time, so there is no deadlock, and searches
// do not take it.
func (a *arena) lock(slot uint32) {
	state := &a.states[slot]
	for spins := 1; ; spins++ {
		old := atomic.LoadUint32(state)
		if old&locked == 0 && atomic.CompareAndSwapUint32(state, old, old|locked) {
			return
		}
		if spins%lockSpins == 0 {
			runtime.Gosched()
		}
	}
}

func (a *arena) unlock(slot uint32) { atomic.AndUint32(&a.states[slot], ^uint32(locked)) }

// isDead reports whether a node is deleted.
func (a *arena) isDead(slot uint32) bool {
	return atomic.LoadUint64(&a.dead[slot/64])>>(slot%64)&1 != 0
}

// isLive reports whether a node is linked and not deleted.
func (a *arena) isLive(slot uint32) bool {
	return atomic.LoadUint32(&a.states[slot])&(linked|dead) == linked
}

// visibility says which nodes a walk may return. The others are hidden: passed through, and never counted.
type visibility struct {
	dead     []uint64     // nil if no node was dead when the walk began
	allow    index.Bitset // the only visible nodes, if filtered
	filtered bool
}

func (v *visibility) hides(slot uint32) bool {
	if v.dead != nil && atomic.LoadUint64(&v.dead[slot/64])>>(slot%64)&1 != 0 {
		return true
	}
	return v.filtered && !v.allow.Contains(slot)
}

// word returns the visible ones among the slots 64*i to 64*i+63.
func (v *visibility) word(i int) uint64 {
	w := ^uint64(0)
	if v.filtered {
		if i >= len(v.allow) {
			return 0
		}
		w = v.allow[i]
	}
	if v.dead != nil {
		w &^= atomic.LoadUint64(&v.dead[i])
	}
	return w
}
