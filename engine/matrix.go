package engine

import (
	"context"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// matrixFloatsMax bounds the components of the vectors that a matrix holds in memory.
const matrixFloatsMax = 64 << 20

// Matrix compares points of a random sample with one another. The rows are by ascending id. A sample of fewer than two
// points has none.
func (db *DB) Matrix(ctx context.Context, name string, m vectord.Matrix) ([]vectord.MatrixRow, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return nil, err
	}
	if m.Sample < 2 || m.Sample > vectord.MaxMatrixSample {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "sample: value %d invalid, must be from 2 to %d", m.Sample, vectord.MaxMatrixSample)
	}
	if m.Limit < 1 || m.Limit > vectord.MaxLimit {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", m.Limit, vectord.MaxLimit)
	}
	if err := firstError(col.checkLimit(m.Limit), col.checkLimit(m.Sample), col.checkReadFilter(m.Filter)); err != nil {
		return nil, err
	}
	spec, err := col.spec(m.Using)
	if err != nil {
		return nil, err
	}
	sample, err := db.sampleVectors(ctx, col, spec, m.Filter, m.Sample)
	if err != nil || len(sample) < 2 {
		return nil, err
	}
	distance := spec.distanceOf()
	rows := make([]vectord.MatrixRow, len(sample))
	var nearest index.Top
	var found []index.Neighbor
	for i := range sample {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		query := sample[i].vector
		if spec.idf {
			query = col.weighted(spec, query)
		}
		nearest.Reset(m.Limit)
		for j := range sample {
			if j == i {
				continue
			}
			if d, ok := distance(&query, &sample[j].vector); ok {
				nearest.Offer(index.Neighbor{Slot: uint32(j), Distance: d}) // at equal distances the lower id, which is the lower j
			}
		}
		found = nearest.AppendSorted(found[:0])
		rows[i].ID = sample[i].id
		for _, n := range found {
			rows[i].Neighbors = append(rows[i].Neighbors,
				vectord.Hit{Record: vectord.Record{ID: sample[n.Slot].id}, Score: index.Score(spec.distance, n.Distance)})
		}
	}
	return rows, nil
}

// distanceOf returns the function that compares vectors as a search does. Sparse vectors that have no component in common
// do not find each other.
func (s *vectorSpec) distanceOf() func(query, stored *vectord.Vector) (distance float32, ok bool) {
	if s.kind == vectord.SparseVector {
		return func(query, stored *vectord.Vector) (float32, bool) {
			dot, overlap := sparseDot(query, stored)
			return -dot, overlap
		}
	}
	compare := s.compare()
	return func(query, stored *vectord.Vector) (float32, bool) { return compare(query.Values, stored.Values), true }
}

// sampledVector is a point of a sample.
type sampledVector struct {
	id     vectord.PointID
	vector vectord.Vector
}

// sampleVectors returns up to n matching points that have a vector of the name, at random, by ascending id.
func (db *DB) sampleVectors(ctx context.Context, col *collection, spec *vectorSpec, f *vectord.Filter, n int) ([]sampledVector, error) {
	with := vectord.Filter{Must: []vectord.Condition{{HasVector: &spec.name}}}
	hits, err := db.Search(ctx, col.name, vectord.Query{Sample: true, Filter: bothFilters(&with, f), Limit: n})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(hits, func(a, b vectord.Hit) int { return a.ID.Compare(b.ID) })
	sample := make([]sampledVector, 0, len(hits))
	floats := 0
	for i := range hits {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		v, err := db.vectorOf(col, spec, hits[i].ID)
		if vectord.KindOf(err) == vectord.KindNotFound {
			continue // gone a moment ago
		}
		if err != nil {
			return nil, err
		}
		if floats += len(v.Values); floats > matrixFloatsMax {
			return nil, vectord.Errorf(vectord.KindTooLarge, "sample: the vectors of %d points have more than %d components together", n, matrixFloatsMax)
		}
		sample = append(sample, sampledVector{hits[i].ID, v})
	}
	return sample, nil
}
