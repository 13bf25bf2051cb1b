package engine

import (
	"context"
	"math/rand/v2"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// matrixFloatsMax bounds the components of the vectors that a matrix holds in memory.
const matrixFloatsMax = 64 << 20

// Matrix compares points of a random sample with one another. The rows are by ascending id. A sample of fewer than two
// points has none.
func (db *DB) Matrix(ctx context.Context, name string, m vectord.Matrix) ([]vectord.MatrixRow, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return nil, err
	}
	if m.Sample < 2 || m.Sample > vectord.MaxMatrixSample {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "sample: value %d invalid, must be from 2 to %d", m.Sample, vectord.MaxMatrixSample)
	}
	if m.Limit < 1 || m.Limit > vectord.MaxLimit {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", m.Limit, vectord.MaxLimit)
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

// sampleVectors returns up to n matching points that have a vector of the name, each set of n as likely as any other, by
// ascending id.
func (db *DB) sampleVectors(ctx context.Context, col *collection, spec *vectorSpec, f *vectord.Filter, n int) ([]sampledVector, error) {
	var with vectord.Filter
	if f != nil {
		with = *f
	}
	with.Must = append(slices.Clone(with.Must), vectord.Condition{HasVector: &spec.name})
	filter, err := col.compileFilter(&with)
	if err != nil {
		return nil, err
	}
	type place struct {
		shard int
		slot  uint32
	}
	var places []place
	asOf := make([]uint64, len(col.shards))
	for i, s := range col.shards {
		found, err := s.matches(ctx, db.store, filter, false)
		if err != nil {
			return nil, err
		}
		asOf[i] = found.asOf
		for _, slot := range s.unexpired(found, db.now()).slots.appendTo(nil) {
			places = append(places, place{i, slot})
		}
	}
	snapshot := db.store.NewSnapshot()
	defer snapshot.Close()
	var sample []sampledVector
	floats := 0
	for ; len(places) > 0 && len(sample) < n; places = places[1:] {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		drawn := rand.IntN(len(places))
		places[0], places[drawn] = places[drawn], places[0]
		s := col.shards[places[0].shard]
		row, ok, err := snapshot.Slot(s.id, places[0].slot)
		if err != nil {
			return nil, err
		}
		if !ok || row.Version > asOf[places[0].shard] {
			continue // changed a moment ago, and perhaps matches no longer
		}
		v, ok, err := spec.read(snapshot.Reader, s.id, places[0].slot)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if floats += len(v.Values); floats > matrixFloatsMax {
			return nil, vectord.Errorf(vectord.KindTooLarge, "sample: the vectors of %d points have more than %d components together", n, matrixFloatsMax)
		}
		sample = append(sample, sampledVector{row.ID, v})
	}
	slices.SortFunc(sample, func(a, b sampledVector) int { return a.id.Compare(b.id) })
	return sample, nil
}
