package hnsw

import (
	"math"
	"slices"
)

// A key is a node on its way through a walk: its distance, its slot and a flag in one word, so that the order of keys is the
// order by distance, then slot.
//
//	bits 63..32  distance, offset so that unsigned order is signed order
//	bits 31..1   slot
//	bit 0        expanded: its links have been followed
const (
	expandedBit = 1 << iota
	keyShift    = iota
	keySlots    = 1 << (32 - keyShift) // slots that a key can tell apart
)

func key(distance int32, slot uint32) uint64 {
	return uint64(uint32(distance)^1<<31)<<32 | uint64(slot)<<keyShift
}

func keySlot(k uint64) uint32 { return uint32(k) >> keyShift }

func keyDistance(k uint64) int32 { return int32(uint32(k>>32) ^ 1<<31) }

// pool holds the best keys of a walk in order, nearest first.
//
// A sorted array beats a pair of heaps here: the keys that come late in a walk and still get in are few, the array is in the
// cache, and eight keys move at once.
type pool struct {
	memory   []uint64 // poolFront zeros, the keys, and room for poolBack more than capacity
	keys     []uint64
	capacity int
	next     int    // no key before it is unexpanded
	bound    uint64 // a key from here on need not be admitted
}

// The kernels move keys in blocks. They stop at the zeros in front, which no key is less than, and write past the end.
const (
	poolFront = 8
	poolBack  = 8
)

// reset empties the pool and lets it hold a number of keys, at least one.
func (p *pool) reset(capacity int) {
	if need := poolFront + capacity + poolBack; need > len(p.memory) {
		p.memory = make([]uint64, need)
	}
	p.keys = p.memory[poolFront:poolFront]
	p.capacity, p.next, p.bound = capacity, 0, math.MaxUint64
}

// insert adds a key whose slot is not in the pool if it is less than bound. A full pool loses its last key, and bound falls to
// the new last one. It returns the key's place, or a number beyond all places.
func (p *pool) insert(k uint64) int {
	if k >= p.bound {
		return math.MaxInt
	}
	n := len(p.keys)
	at := p.search(k)
	if n < p.capacity {
		p.keys = p.keys[:n+1]
	}
	copy(p.keys[at+1:], p.keys[at:])
	p.keys[at] = k
	p.next = min(p.next, at)
	if last := len(p.keys) - 1; last == p.capacity-1 {
		p.bound = min(p.bound, p.keys[last])
	}
	return at
}

// cut drops the last keys, so that n are left.
func (p *pool) cut(n int) { p.keys = p.keys[:n] }

// collect adds a key if it is among the nearest so far, as many as the pool's capacity. Unlike insert it leaves the keys in
// disorder, and puts up with twice as many, until settle: a scan looks at nothing but the bound meanwhile.
func (p *pool) collect(k uint64) {
	if k >= p.bound {
		return
	}
	p.keys = append(p.keys, k)
	if len(p.keys) >= max(2*p.capacity, collectMin) {
		p.settle()
	}
}

// collectMin is the least number of keys that collect sorts at a time.
const collectMin = 128

// settle puts the collected keys in order and drops those beyond the capacity.
func (p *pool) settle() {
	slices.Sort(p.keys)
	if len(p.keys) >= p.capacity {
		p.keys = p.keys[:p.capacity]
		p.bound = p.keys[p.capacity-1]
	}
}

// search returns the number of keys that are less than k. The comparison decides nothing but an addition, which spares the
// processor guessing.
func (p *pool) search(k uint64) int {
	i, n := 0, len(p.keys)
	for n > 1 {
		half := n / 2
		if p.keys[i+half-1] < k {
			i += half
		}
		n -= half
	}
	if n == 1 && p.keys[i] < k {
		i++
	}
	return i
}

// peek returns the nearest unexpanded key, or false if there is none.
func (p *pool) peek() (uint64, bool) {
	for ; p.next < len(p.keys); p.next++ {
		if k := p.keys[p.next]; k&expandedBit == 0 {
			return k, true
		}
	}
	return 0, false
}

// expand marks the key that peek has returned as expanded.
func (p *pool) expand() {
	p.keys[p.next] |= expandedBit
	p.next++
}
