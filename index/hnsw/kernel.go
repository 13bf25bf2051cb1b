package hnsw

import (
	"math"
	"sync/atomic"
)

//go:generate go run -C ../asm ./hnsw -pkg hnsw -out ../hnsw/kernel_amd64.s -stubs ../hnsw/kernel_stubs_amd64.go

// fetcher says what to prefetch of the rows of codes that a step is about to score. The zero fetcher prefetches nothing.
type fetcher struct {
	codes []byte
	size  int // bytes of a row
	lines int // cache lines of a row that are asked for
}

// fetchLines is how many lines of a row are asked for: about what the processor would not have on its way by itself when the
// comparison of the row begins.
const fetchLines = 13

// visitPortable is the kernel visitLinks in Go.
//
// Every link is written to met and only the unvisited ones are kept, so that the one thing that cannot be predicted is an
// addition and not a jump.
func visitPortable(row []uint32, words []uint64, limit uint32, met []uint32) int {
	n := 0
	for i := range row {
		slot := atomic.LoadUint32(&row[i])
		if slot >= limit {
			if slot == none {
				break
			}
			continue
		}
		w := &words[slot/64]
		old := *w
		*w = old | 1<<(slot%64)
		met[n] = slot
		n += int(^old >> (slot % 64) & 1)
	}
	return n
}

// visitVisiblePortable is the kernel visitVisible in Go.
func visitVisiblePortable(row []uint32, words, allow []uint64, limit uint32, met []uint32) int {
	n := 0
	for i := range row {
		slot := atomic.LoadUint32(&row[i])
		if slot >= limit {
			if slot == none {
				break
			}
			continue
		}
		w := &words[slot/64]
		fresh := allow[slot/64] &^ *w >> (slot % 64) & 1
		*w |= fresh << (slot % 64)
		met[n] = slot
		n += int(fresh)
	}
	return n
}

// admitPortable is the kernel of pool.admit in Go.
func (p *pool) admitPortable(slots []uint32, distances []int32) int {
	lowest := math.MaxInt
	for i, d := range distances {
		lowest = min(lowest, p.insert(key(d, slots[i])))
	}
	return lowest
}
