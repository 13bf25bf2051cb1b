package engine

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// hotSet keeps full-precision vectors that searches rescored, bounded in bytes. An entry carries the version at which its
// slot was read and answers only for that version, so that writers need not tell it anything.
//
// Which vectors stay follows S3-FIFO (Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for cache eviction",
// 2023). New vectors pass through a small queue and go on to the main one only if they were used meanwhile, or if they
// come back soon after they were dropped; so a scan, which uses each vector once, washes through the small queue and
// leaves the main one alone. Both queues are first in, first out, which needs no bookkeeping by readers but a counter of
// uses that soon stands still.
//
// Vectors lie in slabs of rows of one dimension, and the queues are queues of slabs. A slab is filled from front to back
// and evicted whole, the rows worth keeping being copied to another. So a row is written once, before it is published,
// and never again: a reader takes no lock, and whatever slab it looks at stays as it is until the garbage collector finds
// that nobody does. And there is one allocation for many vectors, none of which the collector has to look into. The
// idea that did not work out is to reuse the rows of a slab one by one: readers would then have to be waited for.
//
// The set is striped by key, so that cores that add vectors rarely meet. All methods may be called at the same time.
type hotSet struct {
	stripes       [1 << hotStripeBits]hotStripe
	capacityBytes atomic.Int64

	hits     atomic.Uint64 // counted by who calls get
	misses   atomic.Uint64
	promoted atomic.Uint64 // vectors that came into a main queue
	evicted  atomic.Uint64
}

const (
	hotStripeBits = 2
	hotSlabBytes  = 16 << 10 // of a slab's vectors, or one vector where that is longer
	hotRowBits    = 12       // of a row's number within its slab
	hotSlabsMax   = 1 << (32 - hotRowBits)
	hotUsesMax    = 3  // uses are counted up to here
	hotSmallShare = 10 // one part in so many of the bytes is the small queue's
	// hotFruitlessMax evictions in a row may find every row of a slab worth keeping. The next one drops them all, which
	// bounds the work of adding a vector.
	hotFruitlessMax = 8
)

// hotKey is a slot of an index, by its id.
type hotKey struct{ index, slot uint32 }

// hash spreads keys over 64 bits: the first choose the stripe, the next 32 are the tag.
func (k hotKey) hash() uint64 {
	x := uint64(k.index)<<32 | uint64(k.slot)
	x = (x ^ x>>32) * 0x9e3779b97f4a7c15
	return (x ^ x>>29) * 0xbf58476d1ce4e5b9
}

func hotTag(hash uint64) uint32 { return uint32(hash >> (32 - hotStripeBits)) }

func (h *hotSet) stripe(hash uint64) *hotStripe { return &h.stripes[hash>>(64-hotStripeBits)] }

// hotStripe is one part of a hotSet.
type hotStripe struct {
	view  atomic.Pointer[hotView]
	bytes atomic.Int64 // written under mu. Invariant: at most capacity, but within setCapacity
	live  atomic.Int64 // vectors that can be found; written under mu

	mu       sync.Mutex // guards what is below, and writes to view and what it holds
	set      *hotSet
	capacity int64
	rows     int   // of all slabs, free ones included
	largest  int64 // bytes of the largest slab that ever was
	queues   [2]hotQueue
	ghosts   []uint32 // tags of vectors that the small queue dropped, each at a place given by its first bits
	freeIDs  []uint32 // of slabs that are gone
	lastID   uint32   // the greatest id so far
}

const (
	hotSmall = iota
	hotMain
)

// hotQueue is a queue of slabs, the oldest first. The open slabs, one of each dimension, have room for more.
type hotQueue struct {
	slabs []*hotSlab
	open  map[int]*hotSlab
	bytes int64
}

// hotView is what readers look into: a hash table with linear probing. It is replaced whole when it grows; the old one
// stays right for those who still look into it. A reader that meets an entry on the move may miss it, which costs a read
// of storage, but what it finds it can trust, since every row says what it holds.
type hotView struct {
	// words are 0 where there is nothing, or a tag in the upper half and a row's reference in the lower. A word belongs at
	// its tag's first bits, or as soon after them as there was room.
	words []atomic.Uint64
	shift uint                      // of a tag, for its place in words
	slabs []atomic.Pointer[hotSlab] // by id
}

// hotSlab is a piece of memory for rows of one dimension.
type hotSlab struct {
	id      uint32 // from 1
	dim     int
	bytes   int64
	used    atomic.Int32 // rows written, in order; they never change. Written under the stripe's mu.
	heads   []hotHead
	vectors []float32
}

// hotHead says what a row holds.
type hotHead struct {
	version uint64
	key     hotKey
	uses    atomic.Uint32
}

func (s *hotSlab) vector(row uint32) []float32 {
	i := int(row) * s.dim
	return s.vectors[i : i+s.dim : i+s.dim]
}

func (s *hotSlab) ref(row uint32) uint32 { return s.id<<hotRowBits | row }

// hotSlabOverhead is what a slab costs beside its rows: itself, and its places in the view and in a queue.
const hotSlabOverhead = int64(unsafe.Sizeof(hotSlab{})) + 64

func newHotSet(capacityBytes int64) *hotSet {
	h := &hotSet{}
	for i := range h.stripes {
		s := &h.stripes[i]
		s.set = h
		s.view.Store(&hotView{})
		for q := range s.queues {
			s.queues[q].open = map[int]*hotSlab{}
		}
	}
	h.setCapacity(capacityBytes)
	return h
}

// get returns the vector of the slot at the given version, which the caller must not change. The caller counts hits and
// misses.
func (h *hotSet) get(k hotKey, version uint64) ([]float32, bool) {
	hash := k.hash()
	v := h.stripe(hash).view.Load()
	tag := hotTag(hash)
	for i := range v.words {
		w := v.words[v.place(tag, i)].Load()
		if w == 0 {
			return nil, false
		}
		if uint32(w>>32) != tag {
			continue
		}
		slab := v.slabs[uint32(w)>>hotRowBits].Load()
		row := uint32(w) & (1<<hotRowBits - 1)
		if slab == nil || int32(row) >= slab.used.Load() {
			continue // evicted just now, and the slab's id perhaps given to another
		}
		if head := &slab.heads[row]; head.key == k && head.version == version {
			if n := head.uses.Load(); n < hotUsesMax {
				head.uses.Store(n + 1) // a use lost to another reader is no harm
			}
			return slab.vector(row), true
		}
	}
	return nil, false
}

// place returns where a tag's word is looked for after i other places.
func (v *hotView) place(tag uint32, i int) int { return (int(tag>>v.shift) + i) & (len(v.words) - 1) }

// add keeps a copy of the vector, unless the set has a newer version of it or no room at all.
func (h *hotSet) add(k hotKey, version uint64, vector []float32) {
	hash := k.hash()
	s := h.stripe(hash)
	tag := hotTag(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, old := s.find(tag, k); old != nil && old.version >= version {
		return
	}
	queue := hotSmall
	if len(s.ghosts) > 0 && s.ghosts[s.ghost(tag)] == tag {
		s.ghosts[s.ghost(tag)] = 0
		queue = hotMain
	}
	slab := s.open(queue, len(vector), true)
	if slab == nil {
		return
	}
	if queue == hotMain {
		h.promoted.Add(1)
	}
	ref := slab.put(k, version, vector, 0)
	if i, old := s.find(tag, k); old != nil { // again: opening a slab may have evicted it
		s.view.Load().words[i].Store(hotWord(tag, ref))
		return
	}
	s.view.Load().insert(hotWord(tag, ref))
	s.live.Add(1)
}

func hotWord(tag, ref uint32) uint64 { return uint64(tag)<<32 | uint64(ref) }

// put fills the next row and returns its reference.
func (s *hotSlab) put(k hotKey, version uint64, vector []float32, uses uint32) uint32 {
	row := s.used.Load()
	head := &s.heads[row]
	head.key, head.version = k, version
	head.uses.Store(uses)
	copy(s.vector(uint32(row)), vector)
	s.used.Store(row + 1)
	return s.ref(uint32(row))
}

// find returns the place of a key's word and the head of its row, or nil if there is none.
func (s *hotStripe) find(tag uint32, k hotKey) (int, *hotHead) {
	v := s.view.Load()
	for i := range v.words {
		at := v.place(tag, i)
		w := v.words[at].Load()
		if w == 0 {
			break
		}
		if uint32(w>>32) != tag {
			continue
		}
		head := &v.slabs[uint32(w)>>hotRowBits].Load().heads[uint32(w)&(1<<hotRowBits-1)]
		if head.key == k {
			return at, head
		}
	}
	return 0, nil
}

// insert puts a word into the table, which has room.
func (v *hotView) insert(w uint64) {
	for i := range v.words {
		if at := v.place(uint32(w>>32), i); v.words[at].Load() == 0 {
			v.words[at].Store(w)
			return
		}
	}
	panic(fmt.Sprintf("engine: the hot set's table of %d words is full", len(v.words)))
}

// remove takes the word at a place out of the table and moves up those that it had pushed back.
func (s *hotStripe) remove(hole int) {
	v := s.view.Load()
	mask := len(v.words) - 1
	for at := (hole + 1) & mask; ; at = (at + 1) & mask {
		w := v.words[at].Load()
		if w == 0 {
			break
		}
		home := int(uint32(w>>32) >> v.shift)
		if (at-home)&mask >= (at-hole)&mask { // it belongs at the hole or before
			v.words[hole].Store(w)
			hole = at
		}
	}
	v.words[hole].Store(0)
}

// open returns a slab of the queue with room for a vector, nil if there can be none. To make room for a new slab it evicts
// others, if it may.
func (s *hotStripe) open(queue, dim int, evict bool) *hotSlab {
	q := &s.queues[queue]
	if slab := q.open[dim]; slab != nil && slab.hasRoom() {
		return slab
	}
	if evict {
		// Room for one more slab is left free, for the rows that evictions keep.
		if !s.shrink(func() int64 { return s.capacity - s.need(dim) - max(s.largest, hotSlabSize(dim)) }) {
			return nil
		}
		if slab := q.open[dim]; slab != nil && slab.hasRoom() {
			return slab // an eviction opened it
		}
	}
	if s.bytes.Load()+s.need(dim) > s.capacity || s.nextID() == hotSlabsMax {
		return nil
	}
	rows := hotRows(dim)
	slab := &hotSlab{id: s.nextID(), dim: dim, bytes: hotSlabSize(dim),
		heads: make([]hotHead, rows), vectors: make([]float32, hotVectorBytes(dim)/4)}
	if n := len(s.freeIDs); n > 0 {
		s.freeIDs = s.freeIDs[:n-1]
	} else {
		s.lastID++
	}
	s.bytes.Add(slab.bytes)
	s.largest = max(s.largest, slab.bytes)
	s.rows += rows
	if v := s.view.Load(); hotWords(s.rows) > len(v.words) || int(slab.id) >= len(v.slabs) {
		s.resize()
	}
	s.view.Load().slabs[slab.id].Store(slab)
	q.slabs = append(q.slabs, slab)
	q.bytes += slab.bytes
	q.open[dim] = slab
	return slab
}

func (s *hotSlab) hasRoom() bool { return int(s.used.Load()) < len(s.heads) }

// nextID returns the id that a new slab gets.
func (s *hotStripe) nextID() uint32 {
	if n := len(s.freeIDs); n > 0 {
		return s.freeIDs[n-1]
	}
	return s.lastID + 1
}

// need returns how many bytes a new slab takes, a larger view included.
func (s *hotStripe) need(dim int) int64 {
	v := s.view.Load()
	words := max(hotWords(s.rows+hotRows(dim)), len(v.words))
	slabs := max(hotSlabPlaces(int(s.nextID())+1), len(v.slabs))
	return hotSlabSize(dim) + hotViewSize(words, slabs) - hotViewSize(len(v.words), len(v.slabs))
}

// hotRows, hotVectorBytes and hotSlabSize give the measures of a slab: its rows, the bytes of their vectors in full pages,
// as the allocator gives them, and the bytes of everything.
func hotRows(dim int) int { return min(max(hotSlabBytes/(4*dim), 1), 1<<hotRowBits) }

func hotVectorBytes(dim int) int64 {
	const page = 8 << 10
	return max(hotSlabBytes, (int64(4*dim)+page-1)/page*page)
}

func hotSlabSize(dim int) int64 {
	return hotVectorBytes(dim) + int64(hotRows(dim))*int64(unsafe.Sizeof(hotHead{})) + hotSlabOverhead
}

// hotWords returns how many words a table for so many rows has, and hotSlabPlaces how many places for so many slabs.
func hotWords(rows int) int { return max(1<<bits.Len(uint(rows+rows/2)), 64) }

func hotSlabPlaces(slabs int) int { return max(1<<bits.Len(uint(slabs-1)), 8) }

// hotViewSize returns the bytes of a view and of its half as many ghosts.
func hotViewSize(words, slabs int) int64 { return int64(words)*(8+4/2) + int64(slabs)*8 }

// resize replaces the view by one that fits the rows and slabs that there are.
func (s *hotStripe) resize() {
	old := s.view.Load()
	words, slabs := hotWords(s.rows), hotSlabPlaces(int(s.lastID)+1)
	v := &hotView{words: make([]atomic.Uint64, words), shift: uint(32 - bits.TrailingZeros(uint(words))),
		slabs: make([]atomic.Pointer[hotSlab], slabs)}
	for i := range min(len(old.slabs), len(v.slabs)) {
		v.slabs[i].Store(old.slabs[i].Load())
	}
	for i := range old.words {
		if w := old.words[i].Load(); w != 0 {
			v.insert(w)
		}
	}
	ghosts := s.ghosts
	s.ghosts = make([]uint32, words/2)
	for _, tag := range ghosts {
		s.ghosts[s.ghost(tag)] = tag
	}
	s.bytes.Add(hotViewSize(len(v.words), len(v.slabs)) - hotViewSize(len(old.words), len(old.slabs)))
	s.view.Store(v)
}

// ghost returns the place of a tag among the ghosts.
func (s *hotStripe) ghost(tag uint32) int { return int(uint64(tag) * uint64(len(s.ghosts)) >> 32) }

// shrink evicts until no more bytes are used than target says, and reports whether that can be.
func (s *hotStripe) shrink(target func() int64) bool {
	for fruitless := 0; s.bytes.Load() > target(); fruitless++ {
		if len(s.queues[hotSmall].slabs)+len(s.queues[hotMain].slabs) == 0 {
			return false
		}
		before := s.bytes.Load()
		s.evict(fruitless < hotFruitlessMax)
		if s.bytes.Load() < before {
			fruitless = -1
		}
	}
	return true
}

// evict drops the oldest slab of the queue whose turn it is. If it may spare rows, those that were used go to the main
// queue's end.
func (s *hotStripe) evict(spare bool) {
	queue := hotMain
	if len(s.queues[hotMain].slabs) == 0 || s.queues[hotSmall].bytes > s.capacity/hotSmallShare && len(s.queues[hotSmall].slabs) > 0 {
		queue = hotSmall
	}
	q := &s.queues[queue]
	slab := q.slabs[0]
	q.slabs[0] = nil
	q.slabs = q.slabs[1:]
	q.bytes -= slab.bytes
	if q.open[slab.dim] == slab {
		delete(q.open, slab.dim)
	}
	s.rows -= len(slab.heads)
	for row := range uint32(slab.used.Load()) {
		head := &slab.heads[row]
		tag := hotTag(head.key.hash())
		if _, found := s.find(tag, head.key); found != head {
			continue // a newer version took its place
		}
		var to *hotSlab
		uses := head.uses.Load()
		if spare && uses > 0 {
			to = s.open(hotMain, slab.dim, false)
		}
		at, _ := s.find(tag, head.key) // again: opening a slab may have replaced the view
		if to == nil {
			s.remove(at)
			s.live.Add(-1)
			s.set.evicted.Add(1)
			if queue == hotSmall {
				s.ghosts[s.ghost(tag)] = tag
			}
			continue
		}
		if queue == hotSmall {
			uses = 1 // a fresh start
			s.set.promoted.Add(1)
		}
		s.view.Load().words[at].Store(hotWord(tag, to.put(head.key, head.version, slab.vector(row), uses-1)))
	}
	s.view.Load().slabs[slab.id].Store(nil)
	s.freeIDs = append(s.freeIDs, slab.id)
	s.bytes.Add(-slab.bytes)
	switch {
	case s.rows == 0: // nothing is left
		v := s.view.Load()
		s.bytes.Add(-hotViewSize(len(v.words), len(v.slabs)))
		s.view.Store(&hotView{})
		s.ghosts, s.freeIDs, s.lastID = nil, nil, 0
	case hotWords(s.rows) <= len(s.view.Load().words)/4:
		s.resize()
	}
}

// setCapacity changes the bound and evicts what no longer fits.
func (h *hotSet) setCapacity(bytes int64) {
	h.capacityBytes.Store(bytes)
	for i := range h.stripes {
		s := &h.stripes[i]
		s.mu.Lock()
		capacity := bytes / int64(len(h.stripes))
		s.shrink(func() int64 { return capacity })
		s.capacity = capacity
		s.mu.Unlock()
	}
}

func (h *hotSet) memoryBytes() (sum int64) {
	for i := range h.stripes {
		sum += h.stripes[i].bytes.Load()
	}
	return sum
}

// vectors returns how many vectors can be found.
func (h *hotSet) vectors() (sum int64) {
	for i := range h.stripes {
		sum += h.stripes[i].live.Load()
	}
	return sum
}
