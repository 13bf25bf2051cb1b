// Package sparse is an exact index of sparse vectors by dot product: an inverted index in memory.
//
// For each dimension there is a list of postings, the slots of the vectors that have it and their weights there. A search
// goes through the lists of the query's dimensions window by window of slots, and uses the largest weights of their
// blocks to leave out what cannot be among the k best (see searcher).
//
// One goroutine changes the index while many search it. Lists are trees whose nodes are not changed but replaced (see
// list), so that a search copies the roots of its lists under a read lock, a few words for each dimension of the query,
// and then reads without any lock what the vectors were at that moment: all of each vector's weights or none, and
// document frequencies that belong to them. A change therefore waits for copying only, never for a search; and a search
// waits for one vector's change at most. What was replaced lives until the last search that knows it ends. Removed
// postings are cut out at once, which takes no longer than adding them; docs/decisions/sparse-snapshots.md says why they
// are not just marked.
package sparse

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// Vector is a sparse vector: Values[i] is its component in dimension Indices[i], and the others are not there, which is
// not the same as zero. Indices ascend strictly. Values are finite.
type Vector struct {
	Indices []uint32
	Values  []float32
}

// check panics unless v has the form that is documented.
func (v Vector) check() {
	if len(v.Indices) != len(v.Values) {
		panic(fmt.Sprintf("sparse: vector of %d indices and %d values", len(v.Indices), len(v.Values)))
	}
	for i := 1; i < len(v.Indices); i++ {
		if v.Indices[i-1] >= v.Indices[i] {
			panic(fmt.Sprintf("sparse: index %d of a vector does not come after index %d", v.Indices[i], v.Indices[i-1]))
		}
	}
}

// Index is an inverted index. Add and Remove are for one goroutine at a time; everything else may be called by any number
// of goroutines at any time. Its memory grows with the vectors it holds and with the highest slot it has held.
type Index struct {
	searchers sync.Pool // of *searcher

	mu       sync.RWMutex // guards what follows
	lists    map[uint32]*list
	dims     []string // by slot: the dimensions of its vector, coded (see appendDims); "" where there is none
	n        int      // number of vectors
	postings int
	dimBytes int // length of all of dims
}

// New returns an empty index.
func New() *Index {
	return &Index{
		searchers: sync.Pool{New: func() any { return new(searcher) }},
		lists:     map[uint32]*list{},
	}
}

// Add makes v the vector of slot, in place of the one it may have. It keeps nothing of v. It panics unless the indices
// of v ascend strictly and there is a value for each.
func (x *Index) Add(slot uint32, v Vector) {
	v.check()
	code := string(appendDims(nil, v.Indices))
	x.mu.Lock()
	defer x.mu.Unlock()
	x.remove(slot)
	for int(slot) >= len(x.dims) {
		x.dims = append(x.dims, "")
	}
	x.dims[slot] = code
	x.n++
	x.postings += len(v.Indices)
	x.dimBytes += len(code)
	for i, dim := range v.Indices {
		l := x.lists[dim]
		if l == nil {
			l = new(list)
			x.lists[dim] = l
		}
		l.insert(posting{slot, v.Values[i]})
	}
}

// Remove forgets the vector of slot and reports whether there was one.
func (x *Index) Remove(slot uint32) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.remove(slot)
}

func (x *Index) remove(slot uint32) bool {
	if int(slot) >= len(x.dims) || x.dims[slot] == "" {
		return false
	}
	for dim := range dimsOf(x.dims[slot]) {
		l := x.lists[dim]
		l.remove(slot)
		if l.n == 0 {
			delete(x.lists, dim)
		}
		x.postings--
	}
	x.n--
	x.dimBytes -= len(x.dims[slot])
	x.dims[slot] = ""
	if x.n == 0 { // a map never shrinks, so an emptied one is dropped
		x.lists, x.dims = map[uint32]*list{}, nil
	}
	return true
}

// appendDims appends the number of dimensions and the difference of each from the one before, as uvarints. The code of a
// vector without any is not empty.
func appendDims(dst []byte, dims []uint32) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(dims)))
	last := uint32(0)
	for _, d := range dims {
		dst = binary.AppendUvarint(dst, uint64(d-last))
		last = d
	}
	return dst
}

// dimsOf yields the dimensions of a code of appendDims.
func dimsOf(code string) func(yield func(uint32) bool) {
	return func(yield func(uint32) bool) {
		b := []byte(code)
		n, size := binary.Uvarint(b)
		dim := uint32(0)
		for b = b[size:]; n > 0; n-- {
			d, size := binary.Uvarint(b)
			b = b[size:]
			dim += uint32(d)
			if !yield(dim) {
				return
			}
		}
	}
}

// Len returns the number of vectors.
func (x *Index) Len() int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.n
}

// DF returns the document frequency of a dimension: the number of vectors that have it.
func (x *Index) DF(dim uint32) int {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if l := x.lists[dim]; l != nil {
		return l.n
	}
	return 0
}

// What MemoryBytes counts for a posting, with its share of the block and what the block has to spare; for a list with its
// place in the map; and for a slot.
const (
	postingBytes = 10
	listBytes    = 136
	slotBytes    = 24
)

// MemoryBytes returns about how much memory the index holds.
func (x *Index) MemoryBytes() int64 {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return int64(x.postings)*postingBytes + int64(len(x.lists))*listBytes + int64(len(x.dims))*slotBytes + int64(x.dimBytes)
}
