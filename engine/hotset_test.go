package engine

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

func TestHotSetForgetsOldVersions(t *testing.T) {
	h := newHotSet(1 << 20)
	v := make([]float32, 16)
	v[0] = 7
	h.add(hotKey{1, 2}, 5, v)
	v[0] = -1
	if got, ok := h.get(hotKey{1, 2}, 5); !ok || got[0] != 7 {
		t.Errorf("got %v, %v; the set must keep a copy", got, ok)
	}
	if _, ok := h.get(hotKey{1, 2}, 6); ok {
		t.Error("a vector of version 5 answered for version 6")
	}
	if _, ok := h.get(hotKey{2, 2}, 5); ok {
		t.Error("a vector of shard 1 answered for shard 2")
	}
	h.add(hotKey{1, 2}, 4, v)
	if _, ok := h.get(hotKey{1, 2}, 5); !ok {
		t.Error("an older version took the place of a newer one")
	}
	h.add(hotKey{1, 2}, 6, v)
	if got, ok := h.get(hotKey{1, 2}, 6); !ok || got[0] != -1 {
		t.Errorf("got %v, %v; a newer version must take the place of the older one", got, ok)
	}
	if n := h.vectors(); n != 1 {
		t.Errorf("%d vectors are counted, there is 1", n)
	}
	h.setCapacity(0)
	if got, n := h.memoryBytes(), h.vectors(); got != 0 || n != 0 {
		t.Errorf("%d bytes of %d vectors are left after the capacity became 0", got, n)
	}
	if h.add(hotKey{1, 2}, 6, v); h.vectors() != 0 {
		t.Error("a set of 0 bytes keeps a vector")
	}
}

// checkHotSet counts again what the set says of itself, and compares every row with want.
func checkHotSet(t *testing.T, h *hotSet, want func(k hotKey, version uint64, vector []float32) bool) {
	t.Helper()
	for i := range h.stripes {
		s := &h.stripes[i]
		s.mu.Lock()
		v := s.view.Load()
		bytes, live, rows, slabs := hotViewSize(len(v.words), len(v.slabs)), int64(0), 0, 0
		if 4*len(s.ghosts) != 2*len(v.words) {
			t.Errorf("stripe %d: %d ghosts beside %d words", i, len(s.ghosts), len(v.words))
		}
		for _, q := range s.queues {
			queued := int64(0)
			for _, slab := range q.slabs {
				if v.slabs[slab.id].Load() != slab {
					t.Errorf("stripe %d: slab %d is not in the view", i, slab.id)
				}
				queued += hotSlabSize(slab.dim)
				rows += len(slab.heads)
				slabs++
			}
			if bytes += queued; queued != q.bytes {
				t.Errorf("stripe %d: a queue of %d bytes is counted as %d", i, queued, q.bytes)
			}
		}
		for at := range v.words {
			w := v.words[at].Load()
			if w == 0 {
				continue
			}
			live++
			slab, row := v.slabs[uint32(w)>>hotRowBits].Load(), uint32(w)&(1<<hotRowBits-1)
			head := &slab.heads[row]
			if !want(head.key, head.version, slab.vector(row)) {
				t.Errorf("stripe %d: %v at version %d has the vector %v", i, head.key, head.version, slab.vector(row))
			}
			if found, _ := s.find(uint32(w>>32), head.key); found != at {
				t.Errorf("stripe %d: %v is at %d and found at %d", i, head.key, at, found)
			}
		}
		if bytes != s.bytes.Load() || bytes > s.capacity || live != s.live.Load() || rows != s.rows || int(s.lastID) != slabs+len(s.freeIDs) {
			t.Errorf("stripe %d: %d bytes (counted %d, capacity %d), %d live (%d), %d rows (%d), %d slabs (%d ids, %d free)", i,
				bytes, s.bytes.Load(), s.capacity, live, s.live.Load(), rows, s.rows, slabs, s.lastID, len(s.freeIDs))
		}
		s.mu.Unlock()
	}
}

// hotVector is the vector of a key at a version; its length depends on the shard.
func hotVector(dst []float32, k hotKey, version uint64) []float32 {
	for i := range 3 + 50*int(k.index) {
		dst = append(dst, float32(int(k.slot)*1000+int(version)*10+i%10))
	}
	return dst
}

func isHotVector(k hotKey, version uint64, v []float32) bool {
	if len(v) != 3+50*int(k.index) {
		return false
	}
	for i := range v {
		if v[i] != float32(int(k.slot)*1000+int(version)*10+i%10) {
			return false
		}
	}
	return true
}

// TestHotSetUnderConcurrentUse lets goroutines read and add vectors of several dimensions and versions while the capacity
// changes, and looks all the while whether more bytes are used than may be and whether what is found is right.
func TestHotSetUnderConcurrentUse(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	const capacityMax = 4 << 20
	h := newHotSet(capacityMax)
	var workers sync.WaitGroup
	for g := range uint64(4) {
		workers.Go(func() {
			rng := rand.New(rand.NewPCG(seed, g))
			var v []float32
			for range 40_000 {
				k := hotKey{index: rng.Uint32N(6), slot: uint32(math.Pow(2000, rng.Float64()))}
				version := 1 + rng.Uint64N(3)
				if found, ok := h.get(k, version); !ok {
					v = hotVector(v[:0], k, version)
					h.add(k, version, v)
				} else if !isHotVector(k, version, found) {
					t.Errorf("seed %d: %v at version %d has the vector %v", seed, k, version, found)
					return
				}
				if rng.IntN(200) == 0 {
					h.setCapacity(rng.Int64N(capacityMax + 1))
				}
				if n := h.memoryBytes(); n > capacityMax {
					t.Errorf("seed %d: %d bytes are used of %d", seed, n, capacityMax)
					return
				}
			}
		})
	}
	workers.Wait()
	checkHotSet(t, h, isHotVector)
	h.setCapacity(capacityMax)
	for slot := range uint32(100_000) {
		h.add(hotKey{0, slot}, 1, hotVector(nil, hotKey{0, slot}, 1))
	}
	checkHotSet(t, h, isHotVector)
	if n := h.memoryBytes(); n < capacityMax*3/4 {
		t.Errorf("%d bytes are used, though there are %d and as many vectors as fit", n, capacityMax)
	}
	h.setCapacity(0)
	checkHotSet(t, h, isHotVector)
}

// lruSet is the plain LRU that a hotSet is compared with, bounded in what its entries really take.
type lruSet struct {
	entries  *simplelru.LRU[hotKey, lruEntry]
	capacity int64
}

type lruEntry struct {
	version uint64
	vector  []float32
}

// lruEntryOverhead is what an entry costs beside its vector: 96 bytes of list entry, 30 of the map at its usual load, and
// what the allocator rounds up.
const lruEntryOverhead = 144

func newLRUSet(capacity int64) *lruSet {
	l, err := simplelru.NewLRU[hotKey, lruEntry](math.MaxInt, nil)
	if err != nil {
		panic(err)
	}
	return &lruSet{entries: l, capacity: capacity}
}

func (l *lruSet) get(k hotKey, version uint64) ([]float32, bool) {
	e, ok := l.entries.Get(k)
	return e.vector, ok && e.version == version
}

func (l *lruSet) add(k hotKey, version uint64, v []float32) {
	l.entries.Add(k, lruEntry{version, append([]float32(nil), v...)})
	for int64(l.entries.Len())*int64(4*len(v)+lruEntryOverhead) > l.capacity {
		l.entries.RemoveOldest()
	}
}

// zipf draws ranks from 0 to n-1, the r-th with a probability proportional to 1/(r+1).
type zipf []float64

func newZipf(n int) zipf {
	z, sum := make(zipf, n), 0.0
	for i := range z {
		sum += 1 / float64(i+1)
		z[i] = sum
	}
	return z
}

func (z zipf) draw(rng *rand.Rand) uint32 {
	x := rng.Float64() * z[len(z)-1]
	low, high := 0, len(z)-1
	for low < high {
		if mid := (low + high) / 2; z[mid] < x {
			low = mid + 1
		} else {
			high = mid
		}
	}
	return uint32(low)
}

// hitShare replays a load of candidates, one of n by Zipf's law each, and returns the share found. A scan that uses scanned
// other vectors once comes after every so many candidates of each.
func hitShare(set interface {
	get(hotKey, uint64) ([]float32, bool)
	add(hotKey, uint64, []float32)
}, z zipf, scanned int, rng *rand.Rand) float64 {
	const candidates, dim = 300_000, 100
	v := make([]float32, dim)
	use := func(k hotKey) bool {
		_, ok := set.get(k, 1)
		if !ok {
			set.add(k, 1, v)
		}
		return ok
	}
	hits, next := 0, uint32(0)
	for i := range candidates {
		if i >= candidates/2 && use(hotKey{1, z.draw(rng)}) {
			hits++
		} else if i < candidates/2 {
			use(hotKey{1, z.draw(rng)}) // warming up
		}
		if scanned > 0 && i%scanned == 0 {
			for range scanned {
				use(hotKey{2, next})
				next++
			}
		}
	}
	return float64(hits) / (candidates / 2)
}

// TestHotSetAgainstLRU compares shares of hits at equal bytes. docs/decisions/hot-set-admission.md has the numbers.
func TestHotSetAgainstLRU(t *testing.T) {
	const vectors, seed = 30_000, 1
	z := newZipf(vectors)
	for _, share := range []int64{20, 5, 2} { // the part of the vectors' bytes that the set may take
		capacity := vectors * 400 / share
		for _, scanned := range []int{0, 6_000} {
			t.Run(fmt.Sprintf("capacity=1:%d/scanned=%d", share, scanned), func(t *testing.T) {
				own := hitShare(newHotSet(capacity), z, scanned, rand.New(rand.NewPCG(seed, 0)))
				lru := hitShare(newLRUSet(capacity), z, scanned, rand.New(rand.NewPCG(seed, 0)))
				t.Logf("hits: %.3f, plain LRU %.3f", own, lru)
				if own < lru+0.02 {
					t.Errorf("the hot set finds %.3f, a plain LRU of the same bytes %.3f", own, lru)
				}
			})
		}
	}
}

// BenchmarkHotSetGet measures one hit among 20,000 vectors of 100 dimensions, beside the same of a plain LRU in 16 locked
// stripes.
func BenchmarkHotSetGet(b *testing.B) {
	const vectors, dim = 20_000, 100
	own := newHotSet(1 << 30)
	var lru [16]struct {
		sync.Mutex
		*lruSet
	}
	for i := range lru {
		lru[i].lruSet = newLRUSet(1 << 30)
	}
	stripe := func(slot uint32) int { return int(uint64(slot) * 0x9e3779b97f4a7c15 >> 60) }
	v := make([]float32, dim)
	for slot := range uint32(vectors) {
		own.add(hotKey{1, slot}, 1, v)
		lru[stripe(slot)].add(hotKey{1, slot}, 1, v)
	}
	get := map[string]func(slot uint32) bool{
		"own": func(slot uint32) bool { _, ok := own.get(hotKey{1, slot}, 1); return ok },
		"lru": func(slot uint32) bool {
			s := &lru[stripe(slot)]
			s.Lock()
			defer s.Unlock()
			_, ok := s.get(hotKey{1, slot}, 1)
			return ok
		},
	}
	for _, set := range []string{"own", "lru"} {
		for _, goroutines := range []int{1, 2} {
			b.Run(fmt.Sprintf("set=%s/goroutines=%d", set, goroutines), func(b *testing.B) {
				var wg sync.WaitGroup
				for g := range goroutines {
					wg.Go(func() {
						slot := uint32(g)
						for range b.N / goroutines {
							slot = slot*1664525 + 1013904223
							if !get[set](slot >> 8 % vectors) {
								b.Error("a miss")
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
