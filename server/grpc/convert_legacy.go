package grpcserver

import (
	"fmt"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// Search, recommend and discover are the older forms of queries.

// searchFields are those of a search, with groups or without.
type searchFields interface {
	nearFields
	GetVector() []float32
	GetSparseIndices() *qdrant.SparseIndices
	GetVectorName() string
}

func searchOf(m searchFields, threshold *float32, limit uint64) (q vectord.Query, err error) {
	if q, err = near(m, threshold); err != nil {
		return q, err
	}
	q.Nearest, q.Using, q.Limit = &vectord.Example{}, m.GetVectorName(), number(limit)
	if indices := m.GetSparseIndices(); indices != nil {
		q.Nearest.Vector, err = sparseVector(indices.GetData(), m.GetVector())
	} else {
		q.Nearest.Vector, err = denseVector(m.GetVector())
	}
	return q, err
}

// pageOf completes a query with what groups do not have.
func pageOf(q vectord.Query, m interface {
	GetOffset() uint64
	GetWithPayload() *qdrant.WithPayloadSelector
	GetWithVectors() *qdrant.WithVectorsSelector
}) vectord.Query {
	q.Offset = number(m.GetOffset())
	q.Select = selectionOf(m.GetWithPayload(), m.GetWithVectors(), false)
	return q
}

func searchPageOf(m *qdrant.SearchPoints) (vectord.Query, error) {
	q, err := searchOf(m, m.ScoreThreshold, m.GetLimit())
	return pageOf(q, m), err
}

// recommendFields are those of a recommendation, with groups or without.
type recommendFields interface {
	nearFields
	GetPositive() []*qdrant.PointId
	GetNegative() []*qdrant.PointId
	GetPositiveVectors() []*qdrant.Vector
	GetNegativeVectors() []*qdrant.Vector
	GetStrategy() qdrant.RecommendStrategy
	GetUsing() string
	GetLookupFrom() *qdrant.LookupLocation
}

func (c *call) recommendOf(m recommendFields, threshold *float32, limit uint64) (q vectord.Query, err error) {
	if q, err = near(m, threshold); err != nil {
		return q, err
	}
	q.Using, q.Limit = m.GetUsing(), number(limit)
	if q.Lookup, err = c.lookupOf(m.GetLookupFrom()); err != nil {
		return q, err
	}
	r := &vectord.Recommend{}
	q.Recommend = r
	if r.Strategy, err = strategyOf(m.GetStrategy()); err != nil {
		return q, err
	}
	if r.Positive, err = mixedExamples("positive", m.GetPositive(), m.GetPositiveVectors()); err != nil {
		return q, err
	}
	r.Negative, err = mixedExamples("negative", m.GetNegative(), m.GetNegativeVectors())
	return q, err
}

func (c *call) recommendPageOf(m *qdrant.RecommendPoints) (vectord.Query, error) {
	q, err := c.recommendOf(m, m.ScoreThreshold, m.GetLimit())
	return pageOf(q, m), err
}

func mixedExamples(field string, ids []*qdrant.PointId, vectors []*qdrant.Vector) (out []vectord.Example, err error) {
	for i := range ids {
		id, err := idOf(fmt.Sprintf("%s[%d]", field, i), ids[i])
		if err != nil {
			return nil, err
		}
		out = append(out, vectord.Example{ID: &id})
	}
	for i := range vectors {
		v, err := vectorOf(vectors[i])
		if err != nil {
			return nil, fmt.Errorf("%s_vectors[%d]: %w", field, i, err)
		}
		out = append(out, vectord.Example{Vector: v})
	}
	return out, nil
}

func (c *call) discoverOf(m *qdrant.DiscoverPoints) (q vectord.Query, err error) {
	if q, err = near(m, nil); err != nil {
		return q, err
	}
	q.Using, q.Limit = m.GetUsing(), number(m.GetLimit())
	if q.Lookup, err = c.lookupOf(m.GetLookupFrom()); err != nil {
		return q, err
	}
	pairs := make([]vectord.ContextPair, len(m.GetContext()))
	for i, p := range m.GetContext() {
		if pairs[i].Positive, err = legacyExample(fmt.Sprintf("context[%d].positive", i), p.GetPositive()); err != nil {
			return q, err
		}
		if pairs[i].Negative, err = legacyExample(fmt.Sprintf("context[%d].negative", i), p.GetNegative()); err != nil {
			return q, err
		}
	}
	q = pageOf(q, m)
	if m.GetTarget().GetSingle() == nil { // the context alone
		q.Context = &pairs
		return q, nil
	}
	q.Discover = &vectord.Discover{Context: pairs}
	q.Discover.Target, err = legacyExample("target", m.GetTarget().GetSingle())
	return q, err
}

func legacyExample(field string, m *qdrant.VectorExample) (out vectord.Example, err error) {
	switch e := m.GetExample().(type) {
	case *qdrant.VectorExample_Id:
		var id vectord.PointID
		id, err = idOf(field, e.Id)
		out.ID = &id
	case *qdrant.VectorExample_Vector:
		if out.Vector, err = vectorOf(e.Vector); err != nil {
			err = fmt.Errorf("%s: %w", field, err)
		}
	default:
		err = missing(field)
	}
	return out, err
}
