package engine

import (
	"cmp"
	"sync/atomic"

	"github.com/vectord/vectord"
)

// budget divides the memory limit. Storage's share is fixed. What the indexes and slot tables need is measured; the hot
// set gets what is left, up to its own bound. When memory is short, first the hot set shrinks, then building graphs waits,
// then writes that add data are refused; reads and deletes go on.
type budget struct {
	limit  int64 // bytes; 0 means none
	fixed  int64
	hotMax int64
	hot    *hotSet
	used   func() (heap, outside int64) // bytes of all indexes and slot tables on the Go heap and outside of it
	// setHeapLimit, if not nil, is told how much of the limit is the Go heap's.
	setHeapLimit func(bytes int64)

	freshMax int64 // bytes of vectors that may wait in memory for the graph of one shard

	paused atomic.Bool // building graphs waits
	full   atomic.Bool // writes that add data are refused
}

const (
	runtimeBytes = 48 << 20 // the program itself, goroutine stacks, request buffers of a quiet server

	defaultLimit  = 4 << 30 // what shares are computed from where no limit is set
	cacheBytesMin = 8 << 20
	cacheBytesMax = 512 << 20
	tableBytesMin = 4 << 20
	tableBytesMax = 64 << 20
	hotBytesMax   = 1 << 30
	freshBytesMin = 16 << 20
)

// Shares says how much memory storage may use under a limit: for its block cache, and for one memtable.
func Shares(limit int64) (cacheBytes, memTableBytes int64) {
	if limit <= 0 {
		limit = defaultLimit
	}
	return min(max(limit/8, cacheBytesMin), cacheBytesMax), min(max(limit/32, tableBytesMin), tableBytesMax)
}

func newBudget(limit int64, hot *hotSet, used func() (heap, outside int64), setHeapLimit func(int64)) *budget {
	cache, table := Shares(limit)
	b := &budget{limit: limit, fixed: cache + 2*table + runtimeBytes, hot: hot, used: used, setHeapLimit: setHeapLimit, hotMax: hotBytesMax,
		freshMax: max(cmp.Or(limit, defaultLimit)/16, freshBytesMin)}
	b.refresh()
	return b
}

// refresh measures what is used and decides who may have what is left.
func (b *budget) refresh() {
	if b.limit <= 0 {
		b.hot.setCapacity(b.hotMax)
		return
	}
	heap, outside := b.used()
	if b.setHeapLimit != nil {
		b.setHeapLimit(max(b.limit-outside, b.fixed))
	}
	left := b.limit - b.fixed - heap - outside
	reserve := b.limit / 16
	b.hot.setCapacity(min(max(left-reserve, 0)/2, b.hotMax))
	b.paused.Store(left < reserve)
	b.full.Store(left < reserve/2)
}

func (b *budget) indexingPaused() bool { return b.paused.Load() }

// hasRoom reports whether so many bytes more would leave the indexes what they need to go on. The hot set makes way.
func (b *budget) hasRoom(bytes int64) bool {
	if b.limit <= 0 {
		return true
	}
	heap, outside := b.used()
	return b.limit-b.fixed-heap-outside-bytes > 2*b.limit/16
}

// admit returns an error where a write that adds data must wait for memory.
func (b *budget) admit() error {
	if !b.full.Load() {
		return nil
	}
	return vectord.Errorf(vectord.KindNoMemory,
		"the memory limit of %d MiB is reached: delete points or collections, or start with a larger limit; reads and deletes go on",
		b.limit>>20)
}
