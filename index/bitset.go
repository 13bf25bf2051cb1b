package index

import (
	"math/bits"
	"slices"
)

// Bitset is a set of slots, one bit each: slot s is bit s%64 of word s/64. The nil Bitset is the empty set. It may be read
// by many goroutines while none changes it.
type Bitset []uint64

// Contains reports whether slot is in the set. A slot beyond the last word is not.
func (b Bitset) Contains(slot uint32) bool {
	w := int(slot / 64)
	return w < len(b) && b[w]>>(slot%64)&1 != 0
}

// Set adds slot and returns the set, which has moved if it had to grow.
func (b Bitset) Set(slot uint32) Bitset {
	b = b.Grow(int(slot) + 1)
	b[slot/64] |= 1 << (slot % 64)
	return b
}

// Grow returns the set with room for the slots below n, so that Set does not move it. It never shrinks.
func (b Bitset) Grow(n int) Bitset {
	words := (n + 63) / 64
	if words <= len(b) {
		return b
	}
	old := len(b)
	b = slices.Grow(b, words-old)[:words]
	clear(b[old:])
	return b
}

// Clear removes slot.
func (b Bitset) Clear(slot uint32) {
	if w := int(slot / 64); w < len(b) {
		b[w] &^= 1 << (slot % 64)
	}
}

// Count returns the number of slots in the set.
func (b Bitset) Count() int {
	n := 0
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}
