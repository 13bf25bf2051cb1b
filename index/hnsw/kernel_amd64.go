//go:build !race

package hnsw

import (
	"unsafe"

	"github.com/vectord/vectord/index/simd"
)

// visitLinks writes to met, which is as long as row, the links of a row that are below limit and whose bits are not set, and
// sets them. It returns how many they are, and prefetches their codes as f says. A row changed meanwhile may hold a link
// twice; it is written once.
func visitLinks(row []uint32, words []uint64, limit uint32, met []uint32, f fetcher) int {
	if simd.Chosen == simd.Go || f.lines == 0 || len(words) == 0 {
		return visitPortable(row, words, limit, met)
	}
	return visitAMD64(&row[0], len(row), &words[0], limit, &met[0], &f.codes[0], f.size, f.lines)
}

// visitVisible is visitLinks for those links whose bits in allow are set; it changes nothing for the others. allow has as many
// words as words, at least.
func visitVisible(row []uint32, words, allow []uint64, limit uint32, met []uint32, f fetcher) int {
	if simd.Chosen == simd.Go || f.lines == 0 || len(words) == 0 {
		return visitVisiblePortable(row, words, allow, limit, met)
	}
	return visitVisibleAMD64(&row[0], len(row), &words[0], &allow[0], limit, &met[0], &f.codes[0], f.size, f.lines)
}

// fetchLinks prefetches the codes of the links of a row.
func fetchLinks(row []uint32, limit uint32, f fetcher) {
	if simd.Chosen != simd.Go && f.lines != 0 {
		fetchAMD64(&row[0], len(row), limit, &f.codes[0], f.size, f.lines)
	}
}

// admit inserts the slots at the given distances that are near enough, and prefetches their rows in links, the links of
// layer 0, unless that is nil. It returns the lowest place at which a key went in, or a number beyond all places.
func (p *pool) admit(slots []uint32, distances []int32, links []uint32, width int) int {
	if simd.Chosen != simd.AVX512 || len(links) == 0 || len(slots) == 0 {
		return p.admitPortable(slots, distances)
	}
	n, lowest := admitAVX512(&p.memory[poolFront], len(p.keys), p.capacity, p.bound, &slots[0], &distances[0], len(slots),
		(*byte)(unsafe.Pointer(&links[0])), 4*width)
	p.keys = p.memory[poolFront : poolFront+n]
	p.next = min(p.next, lowest)
	if n == p.capacity {
		p.bound = min(p.bound, p.keys[n-1])
	}
	return lowest
}
