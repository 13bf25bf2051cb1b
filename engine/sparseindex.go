package engine

import (
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

// sparseIndex finds the slots of one shard whose sparse vectors have the largest dot products with a query. It is complete:
// what Apply adds is found at once, and scores are exact.
type sparseIndex struct {
	mu       sync.RWMutex
	vectors  map[uint32]vectord.Vector
	removals atomic.Uint64 // slots freed so far, see vectorIndex
}

func newSparseIndex() *sparseIndex { return &sparseIndex{vectors: map[uint32]vectord.Vector{}} }

func (x *sparseIndex) add(slot uint32, v *vectord.Vector) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.vectors[slot] = v.Clone()
}

func (x *sparseIndex) remove(slot uint32) {
	x.removals.Add(1) // before anything is hidden
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.vectors, slot)
}

func (x *sparseIndex) len() int { x.mu.RLock(); defer x.mu.RUnlock(); return len(x.vectors) }

func (x *sparseIndex) df(dim uint32) (n int) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	for _, v := range x.vectors {
		if _, ok := slices.BinarySearch(v.Indices, dim); ok {
			n++
		}
	}
	return n
}

func (x *sparseIndex) memoryBytes() int64 { return 0 }

func (x *sparseIndex) search(dst []index.Neighbor, q *vectord.Vector, k int, m *matches) []index.Neighbor {
	x.mu.RLock()
	defer x.mu.RUnlock()
	allow := m.allow()
	var top index.Top
	top.Reset(k)
	for slot, v := range x.vectors {
		if allow != nil && !allow(slot) {
			continue
		}
		if d, ok := sparseDot(q, &v); ok {
			top.Offer(index.Neighbor{Slot: slot, Distance: -d})
		}
	}
	return top.AppendSorted(dst)
}

func sparseDot(a, b *vectord.Vector) (sum float32, overlap bool) {
	for i, j := 0, 0; i < len(a.Indices) && j < len(b.Indices); {
		switch {
		case a.Indices[i] < b.Indices[j]:
			i++
		case a.Indices[i] > b.Indices[j]:
			j++
		default:
			sum += a.Values[i] * b.Values[j]
			overlap = true
			i++
			j++
		}
	}
	return sum, overlap
}

// load adds all vectors that storage has.
func (x *sparseIndex) load(r storage.Reader, set storage.VectorSet) error {
	return r.ScanSparse(set, func(slot uint32, indices []uint32, values []float32) error {
		v := vectord.Vector{Kind: vectord.SparseVector, Indices: indices, Values: values}
		x.add(slot, &v)
		return nil
	})
}

// weighted returns a query with each component multiplied by its inverse document frequency in the whole collection.
func (c *collection) weighted(spec *vectorSpec, q vectord.Vector) vectord.Vector {
	n, df := 0, make([]int, len(q.Indices))
	for _, s := range c.shards {
		v := s.vectorsOf(spec.number)
		if v == nil || v.sparse == nil {
			continue
		}
		n += v.sparse.len()
		for i, dim := range q.Indices {
			df[i] += v.sparse.df(dim)
		}
	}
	q = q.Clone()
	for i := range q.Values {
		q.Values[i] *= float32(math.Log((float64(n-df[i])+0.5)/(float64(df[i])+0.5) + 1))
	}
	return q
}
