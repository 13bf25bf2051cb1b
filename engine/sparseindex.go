package engine

import (
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/sparse"
	"github.com/vectord/vectord/storage"
)

// sparseIndex finds the slots of one shard whose sparse vectors have the largest dot products with a query. It is complete:
// what Apply adds is found at once, and scores are exact.
type sparseIndex struct {
	*sparse.Index
	removals atomic.Uint64 // slots freed so far, see vectorIndex
}

func newSparseIndex() *sparseIndex { return &sparseIndex{Index: sparse.New()} }

func sparseOf(v *vectord.Vector) sparse.Vector {
	return sparse.Vector{Indices: v.Indices, Values: v.Values}
}

func (x *sparseIndex) remove(slot uint32) {
	x.removals.Add(1) // before anything is hidden
	x.Remove(slot)
}

func (x *sparseIndex) search(dst []index.Neighbor, q *vectord.Vector, k int, m *matches) []index.Neighbor {
	p := sparse.Params{K: k}
	if m != nil {
		p.Filter = &sparse.Filter{Slots: m.slots.bits, Count: m.count}
	}
	return x.Search(dst, sparseOf(q), p)
}

// load adds all vectors that storage has.
func (x *sparseIndex) load(r storage.Reader, set storage.VectorSet) error {
	return r.ScanSparse(set, func(slot uint32, indices []uint32, values []float32) error {
		x.Add(slot, sparse.Vector{Indices: indices, Values: values})
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
		n += v.sparse.Len()
		for i, dim := range q.Indices {
			df[i] += v.sparse.DF(dim)
		}
	}
	q = q.Clone()
	for i := range q.Values {
		q.Values[i] *= sparse.IDF(max(n, df[i]), df[i]) // vectors may come between the two countings
	}
	return q
}
