package engine

import (
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// hotSet keeps the full-precision vectors that searches rescored last, least recently used out first, bounded in bytes.
// It is striped so that searches on several cores rarely meet. An entry carries the version at which its slot was read
// and answers only for that version, so that writers need not tell it anything.
type hotSet struct {
	stripes [hotSetStripes]hotSetStripe
	hits    atomic.Uint64
	misses  atomic.Uint64
	evicted atomic.Uint64
}

const (
	hotSetStripes       = 16
	hotSetEntryOverhead = 160 // bytes of map, list and headers that an entry costs beside its vector
)

type hotSetStripe struct {
	mu       sync.Mutex // guards what is below
	entries  *simplelru.LRU[hotKey, hotEntry]
	bytes    int64
	capacity int64
}

type hotKey struct{ shard, slot uint32 }

type hotEntry struct {
	version uint64
	vector  []float32 // never written after it was added
}

func newHotSet(capacityBytes int64) *hotSet {
	h := &hotSet{}
	for i := range h.stripes {
		s := &h.stripes[i]
		s.capacity = capacityBytes / hotSetStripes
		// The bound is in bytes; the library's own bound on the number of entries never acts.
		entries, err := simplelru.NewLRU(int(^uint(0)>>1), func(_ hotKey, e hotEntry) { s.bytes -= e.bytes() })
		if err != nil {
			panic(err) // the size above is positive, which is all that it checks
		}
		s.entries = entries
	}
	return h
}

func (e hotEntry) bytes() int64 { return int64(4*cap(e.vector)) + hotSetEntryOverhead }

func (h *hotSet) stripe(k hotKey) *hotSetStripe {
	x := uint64(k.shard)<<32 | uint64(k.slot)
	return &h.stripes[x*0x9e3779b97f4a7c15>>60]
}

// get returns the vector of the slot at the given version. The caller must not change it.
func (h *hotSet) get(k hotKey, version uint64) ([]float32, bool) {
	s := h.stripe(k)
	s.mu.Lock()
	e, ok := s.entries.Get(k)
	s.mu.Unlock()
	if !ok || e.version != version {
		h.misses.Add(1)
		return nil, false
	}
	h.hits.Add(1)
	return e.vector, true
}

// add keeps a copy of the vector, unless the set holds nothing at all.
func (h *hotSet) add(k hotKey, version uint64, vector []float32) {
	s := h.stripe(k)
	e := hotEntry{version: version}
	s.mu.Lock()
	defer s.mu.Unlock()
	size := int64(4*len(vector)) + hotSetEntryOverhead
	if size > s.capacity {
		return
	}
	if old, ok := s.entries.Peek(k); ok {
		if old.version > version {
			return
		}
		s.entries.Remove(k)
	}
	e.vector = append(make([]float32, 0, len(vector)), vector...)
	s.entries.Add(k, e)
	s.bytes += e.bytes()
	h.shrink(s)
}

// setCapacity changes the bound and evicts what no longer fits.
func (h *hotSet) setCapacity(bytes int64) {
	for i := range h.stripes {
		s := &h.stripes[i]
		s.mu.Lock()
		s.capacity = bytes / hotSetStripes
		h.shrink(s)
		s.mu.Unlock()
	}
}

func (h *hotSet) shrink(s *hotSetStripe) {
	for s.bytes > s.capacity && s.entries.Len() > 0 {
		s.entries.RemoveOldest()
		h.evicted.Add(1)
	}
}

func (h *hotSet) memoryBytes() int64 {
	var sum int64
	for i := range h.stripes {
		s := &h.stripes[i]
		s.mu.Lock()
		sum += s.bytes
		s.mu.Unlock()
	}
	return sum
}
