//go:build !race

package hnsw

import (
	"slices"
	"unsafe"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/quant"
	"github.com/vectord/vectord/index/simd"
)

// visitLinks writes to met, which is as long as row, the links of a row that are below limit and whose bits are not set, and
// sets them. It returns how many they are, and prefetches their codes as f says. A row changed meanwhile may hold a link
// twice; it is written once.
func visitLinks(row []uint32, words []uint64, limit uint32, met []uint32, f fetcher) int {
	if simd.Chosen == simd.Go || f.lines == 0 || len(words) == 0 {
		return visitPortable(row, words, limit, met)
	}
	return visitAMD64(&row[0], len(row), &words[0], uint64(limit), &met[0], &f.codes[0], f.size, f.lines)
}

// visitVisible is visitLinks for those links whose bits in allow are set; it changes nothing for the others. allow has as many
// words as words, at least.
func visitVisible(row []uint32, words, allow []uint64, limit uint32, met []uint32, f fetcher) int {
	if simd.Chosen == simd.Go || f.lines == 0 || len(words) == 0 {
		return visitVisiblePortable(row, words, allow, limit, met)
	}
	return visitVisibleAMD64(&row[0], len(row), &words[0], &allow[0], uint64(limit), &met[0], &f.codes[0], f.size, f.lines)
}

// fetchLinks prefetches the codes of the links of a row.
func fetchLinks(row []uint32, limit uint32, f fetcher) {
	if simd.Chosen != simd.Go && f.lines != 0 {
		fetchAMD64(&row[0], len(row), uint64(limit), &f.codes[0], f.size, f.lines)
	}
}

// admit inserts the slots at the given distances that are near enough, and prefetches their rows in links, the links of
// layer 0, unless that is nil. It returns the lowest place at which a key went in, or a number beyond all places.
func (p *pool) admit(slots []uint32, distances []int32, links []uint32, width int) int {
	if simd.Chosen != simd.AVX512 || len(links) == 0 || len(slots) == 0 {
		return p.admitPortable(slots, distances)
	}
	n, lowest := admitAVX512(&p.memory[poolFront], len(p.keys), p.capacity, p.bound, &slots[0], &distances[0], len(slots),
		&links[0], 4*width)
	p.grown(n, lowest)
	return lowest
}

// hop is what the kernels of a whole hop need. Its fields, all of eight bytes, are laid out as the kernels expect them: see
// index/asm/hnsw.
type hop struct {
	links     *uint32 // the links of layer 0
	linkBytes int     // of a node
	width     int     // links of a node
	words     *uint64 // the bits of visited
	limit     uint64
	codes     *byte
	rowSize   int
	lines     int
	query     *byte
	add       int64
	keys      *uint64
	capacity  int
	scores    *int32

	// Of each hop.
	slots  *uint32 // where those met go; there is room for hopSlack more than a node has links
	size   int     // keys, before and after
	bound  uint64
	node   uint64 // whose links are visited
	next   uint64 // whose links are prefetched, or none
	count  int    // slots met
	lowest int    // place of the first key inserted, or a number beyond all places
}

// hopSlack is how many slots and scores the kernel writes beyond those it has met.
const hopSlack = 3

// walkBase is walk on layer 0, with one kernel for each turn of the loop. It reports false, and does nothing, if there is none
// for the codec.
func (s *searcher) walkBase() bool {
	scalar, ok := s.graph.codec.(*quant.Scalar)
	if !ok || simd.Chosen != simd.AVX512 || scalar.Distance() == vectord.Manhattan {
		return false
	}
	a, p, v := s.arena, &s.pool, &s.visited
	width := 2 * a.m
	if need := width + hopSlack; need > cap(s.scores) {
		s.scores = make([]int32, need)
	}
	s.scores = s.scores[:width+hopSlack]
	codes, add := s.query.Operands()
	h := &s.hop
	*h = hop{links: &a.base[0], linkBytes: 4 * width, width: width, words: &v.words[0], limit: uint64(s.limit), codes: &a.codes[0],
		rowSize: a.rowSize, lines: s.fetch.lines, query: &codes[0], add: int64(add), keys: &p.memory[poolFront], capacity: p.capacity,
		scores: &s.scores[0]}
	run := dotHopAVX512
	if scalar.Distance() == vectord.Euclid {
		run = euclidHopAVX512
	}
	for {
		k, ok := p.peek()
		if !ok || k > s.reach.limit {
			break
		}
		p.expand()
		h.node, h.next = uint64(keySlot(k)), none
		if next, ok := p.peek(); ok && next <= s.reach.limit {
			h.next = uint64(keySlot(next))
		}
		n := len(v.met)
		if cap(v.met)-n < width+hopSlack {
			v.met = slices.Grow(v.met, width+hopSlack)
		}
		h.slots = unsafe.SliceData(v.met[n:cap(v.met)])
		h.size, h.bound = len(p.keys), p.bound
		run((*byte)(unsafe.Pointer(h)))
		v.met = v.met[:n+h.count]
		s.work.Rows += h.count
		p.grown(h.size, h.lowest)
		s.reach.follow(p, h.lowest)
	}
	return true
}

// grown takes note of what a kernel has inserted: there are n keys now, and nothing has changed before place lowest.
func (p *pool) grown(n, lowest int) {
	p.keys = p.memory[poolFront : poolFront+n]
	p.next = min(p.next, lowest)
	if n == p.capacity {
		p.bound = min(p.bound, p.keys[n-1])
	}
}
