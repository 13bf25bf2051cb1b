package hnsw

import (
	"math"
	"slices"
)

// A key is a node on its way through a walk: its distance, its slot and two flags in one word, so that the order of keys
// is the order by distance, then slot.
//
//	bits 63..32  distance, offset so that unsigned order is signed order
//	bits 31..2   slot
//	bit 1        hidden: may not be returned
//	bit 0        expanded: its links have been followed
const (
	expandedBit = 1 << iota
	hiddenBit
	keyShift = iota
	keySlots = 1 << (32 - keyShift) // slots that a key can tell apart
)

func key(distance int32, slot uint32) uint64 {
	return uint64(uint32(distance)^1<<31)<<32 | uint64(slot)<<keyShift
}

func keySlot(k uint64) uint32 { return uint32(k) >> keyShift }

func keyDistance(k uint64) int32 { return int32(uint32(k>>32) ^ 1<<31) }

// pool holds the best keys of a walk in order, nearest first: the ef nearest visible ones, and every hidden one that is
// nearer than the last of them. Hidden nodes thus lead the walk on and take no visible node's place.
//
// A sorted array beats a pair of heaps here: the keys that come late in a walk and still get in are few, and the array is
// in the cache.
type pool struct {
	keys    []uint64
	ef      int
	visible int    // keys that are not hidden; at most ef
	next    int    // no key before it is unexpanded
	bound   uint64 // a key from here on would not get in
}

// reset empties the pool and lets it hold ef visible keys, at least one.
func (p *pool) reset(ef int) {
	*p = pool{keys: p.keys[:0], ef: ef, bound: math.MaxUint64}
}

// insert adds a key that is less than bound and whose slot is not in the pool.
func (p *pool) insert(k uint64) {
	i := p.search(k)
	p.keys = append(p.keys, 0)
	copy(p.keys[i+1:], p.keys[i:])
	p.keys[i] = k
	p.next = min(p.next, i)
	if k&hiddenBit == 0 {
		p.visible++
	}
	if p.visible < p.ef {
		return
	}
	last := len(p.keys) - 1
	for ; p.visible > p.ef || p.keys[last]&hiddenBit != 0; last-- {
		if p.keys[last]&hiddenBit == 0 {
			p.visible--
		}
	}
	p.keys = p.keys[:last+1]
	p.bound = p.keys[last]
}

// collect adds a visible key if it is among the ef nearest so far. Unlike insert it leaves the keys in disorder, and puts up
// with twice as many, until settle: a scan looks at nothing but the bound meanwhile.
func (p *pool) collect(k uint64) {
	if k >= p.bound {
		return
	}
	p.keys = append(p.keys, k)
	if len(p.keys) >= max(2*p.ef, collectMin) {
		p.settle()
	}
}

// collectMin is the least number of keys that collect sorts at a time.
const collectMin = 128

// settle puts the collected keys in order and drops those beyond the ef nearest.
func (p *pool) settle() {
	slices.Sort(p.keys)
	if len(p.keys) >= p.ef {
		p.keys = p.keys[:p.ef]
		p.bound = p.keys[p.ef-1]
	}
	p.visible = len(p.keys)
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

// expand marks the nearest unexpanded key as expanded and returns its slot, or false if there is none.
func (p *pool) expand() (uint32, bool) {
	for ; p.next < len(p.keys); p.next++ {
		if k := &p.keys[p.next]; *k&expandedBit == 0 {
			*k |= expandedBit
			p.next++
			return keySlot(*k), true
		}
	}
	return 0, false
}

// peek returns what expand would, and marks nothing.
func (p *pool) peek() (uint32, bool) {
	for ; p.next < len(p.keys); p.next++ {
		if k := p.keys[p.next]; k&expandedBit == 0 {
			return keySlot(k), true
		}
	}
	return 0, false
}

// visited is the set of slots that a walk has met.
type visited struct {
	words   []uint64
	touched []uint32 // words that are not zero, if tracked
	tracked bool
}

// visitedClear is the number of words up to which clearing them all is cheaper than keeping a list of those to clear.
const visitedClear = 1 << 14

// reset empties the set and lets it hold the slots below limit.
func (v *visited) reset(limit uint32) {
	if v.tracked {
		for _, i := range v.touched {
			v.words[i] = 0
		}
	} else {
		clear(v.words)
	}
	n := (int(limit) + 63) / 64
	if n > cap(v.words) {
		v.words = make([]uint64, n+n/8) // a graph that grows would otherwise allocate for every search
	}
	v.words = v.words[:n]
	v.touched = v.touched[:0]
	v.tracked = n > visitedClear
}

// add adds a slot and reports whether it was not in the set.
func (v *visited) add(slot uint32) bool {
	w := &v.words[slot/64]
	bit := uint64(1) << (slot % 64)
	old := *w
	if old&bit != 0 {
		return false
	}
	if old == 0 && v.tracked {
		v.touched = append(v.touched, slot/64)
	}
	*w = old | bit
	return true
}
