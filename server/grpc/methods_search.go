package grpcserver

import (
	"context"
	"fmt"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// search answers a query, which err says could not be read.
func (p points) search(ctx context.Context, q vectord.Query, err error) ([]*qdrant.ScoredPoint, error) {
	if err != nil {
		return nil, err
	}
	hits, err := p.s.engine.Search(ctx, callOf(ctx).collection, q)
	if err != nil {
		return nil, err
	}
	return scoredPoints(hits, &q.Select)
}

// batched is one query of a batch. It is for the collection of the batch.
type batched interface {
	shardKeyed
	GetCollectionName() string
}

// searchBatch answers the queries of a batch for a collection, each of which is read by queryOf.
func searchBatch[M batched](ctx context.Context, p points, collection string, batch []M, queryOf func(M) (vectord.Query, error)) ([]*qdrant.BatchResult, error) {
	if len(batch) > maxBatchQueries {
		return nil, outOfRange("searches", len(batch), fmt.Sprintf("%d elements or fewer", maxBatchQueries))
	}
	queries := make([]vectord.Query, len(batch))
	for i, m := range batch {
		err := noShardKey(m)
		if name := m.GetCollectionName(); err == nil && name != "" && name != collection {
			err = vectord.Errorf(vectord.KindInvalid, "collection_name: %q, but the batch is for %q", name, collection)
		}
		if err == nil {
			queries[i], err = queryOf(m)
		}
		if err != nil {
			return nil, fmt.Errorf("searches[%d]: %w", i, err)
		}
	}
	answers, err := p.s.engine.SearchBatch(ctx, callOf(ctx).collection, queries)
	if err != nil {
		return nil, err
	}
	return batchResults(answers, queries)
}

// groups answers a query in groups, which err says could not be read.
func (p points) groups(ctx context.Context, q vectord.Query, err error, m groupFields, size int) (*qdrant.GroupsResult, error) {
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	of, err := c.groupsOf(q, m, size)
	if err != nil {
		return nil, err
	}
	groups, err := p.s.engine.SearchGroups(ctx, c.collection, *of)
	if err != nil {
		return nil, err
	}
	return groupsResult(groups, of)
}

func (p points) Query(ctx context.Context, m *qdrant.QueryPoints) (*qdrant.QueryResponse, error) {
	q, err := callOf(ctx).queryOf(m)
	found, err := p.search(ctx, q, err)
	return &qdrant.QueryResponse{Result: found}, err
}

func (p points) QueryBatch(ctx context.Context, m *qdrant.QueryBatchPoints) (*qdrant.QueryBatchResponse, error) {
	found, err := searchBatch(ctx, p, m.GetCollectionName(), m.GetQueryPoints(), callOf(ctx).queryOf)
	return &qdrant.QueryBatchResponse{Result: found}, err
}

func (p points) QueryGroups(ctx context.Context, m *qdrant.QueryPointGroups) (*qdrant.QueryGroupsResponse, error) {
	left := vectord.MaxPrefetches
	q, err := callOf(ctx).tree(m, m.ScoreThreshold, m.Limit, 0, &left)
	found, err := p.groups(ctx, q, err, m, number(m.GetGroupSize()))
	return &qdrant.QueryGroupsResponse{Result: found}, err
}

func (p points) Search(ctx context.Context, m *qdrant.SearchPoints) (*qdrant.SearchResponse, error) {
	q, err := searchPageOf(m)
	found, err := p.search(ctx, q, err)
	return &qdrant.SearchResponse{Result: found}, err
}

func (p points) SearchBatch(ctx context.Context, m *qdrant.SearchBatchPoints) (*qdrant.SearchBatchResponse, error) {
	found, err := searchBatch(ctx, p, m.GetCollectionName(), m.GetSearchPoints(), searchPageOf)
	return &qdrant.SearchBatchResponse{Result: found}, err
}

func (p points) SearchGroups(ctx context.Context, m *qdrant.SearchPointGroups) (*qdrant.SearchGroupsResponse, error) {
	q, err := searchOf(m, m.ScoreThreshold, uint64(m.GetLimit()))
	found, err := p.groups(ctx, q, err, m, int(m.GetGroupSize()))
	return &qdrant.SearchGroupsResponse{Result: found}, err
}

func (p points) Recommend(ctx context.Context, m *qdrant.RecommendPoints) (*qdrant.RecommendResponse, error) {
	q, err := callOf(ctx).recommendPageOf(m)
	found, err := p.search(ctx, q, err)
	return &qdrant.RecommendResponse{Result: found}, err
}

func (p points) RecommendBatch(ctx context.Context, m *qdrant.RecommendBatchPoints) (*qdrant.RecommendBatchResponse, error) {
	found, err := searchBatch(ctx, p, m.GetCollectionName(), m.GetRecommendPoints(), callOf(ctx).recommendPageOf)
	return &qdrant.RecommendBatchResponse{Result: found}, err
}

func (p points) RecommendGroups(ctx context.Context, m *qdrant.RecommendPointGroups) (*qdrant.RecommendGroupsResponse, error) {
	q, err := callOf(ctx).recommendOf(m, m.ScoreThreshold, uint64(m.GetLimit()))
	found, err := p.groups(ctx, q, err, m, int(m.GetGroupSize()))
	return &qdrant.RecommendGroupsResponse{Result: found}, err
}

func (p points) Discover(ctx context.Context, m *qdrant.DiscoverPoints) (*qdrant.DiscoverResponse, error) {
	q, err := callOf(ctx).discoverOf(m)
	found, err := p.search(ctx, q, err)
	return &qdrant.DiscoverResponse{Result: found}, err
}

func (p points) DiscoverBatch(ctx context.Context, m *qdrant.DiscoverBatchPoints) (*qdrant.DiscoverBatchResponse, error) {
	found, err := searchBatch(ctx, p, m.GetCollectionName(), m.GetDiscoverPoints(), callOf(ctx).discoverOf)
	return &qdrant.DiscoverBatchResponse{Result: found}, err
}

// Facet is exact whatever the message says.
func (p points) Facet(ctx context.Context, m *qdrant.FacetCounts) (*qdrant.FacetResponse, error) {
	filter, err := filterOf(m.GetFilter())
	if err != nil {
		return nil, err
	}
	hits, err := p.s.engine.Facet(ctx, callOf(ctx).collection, vectord.Facet{Key: m.GetKey(), Limit: limitOf(m.Limit, defaultLimit), Filter: filter})
	return &qdrant.FacetResponse{Hits: facetHits(hits)}, err
}

func (p points) matrix(ctx context.Context, m *qdrant.SearchMatrixPoints) ([]vectord.MatrixRow, error) {
	filter, err := filterOf(m.GetFilter())
	if err != nil {
		return nil, err
	}
	return p.s.engine.Matrix(ctx, callOf(ctx).collection, vectord.Matrix{Filter: filter, Using: m.GetUsing(),
		Sample: limitOf(m.Sample, vectord.DefaultMatrixSample), Limit: limitOf(m.Limit, vectord.DefaultMatrixLimit)})
}

func (p points) SearchMatrixPairs(ctx context.Context, m *qdrant.SearchMatrixPoints) (*qdrant.SearchMatrixPairsResponse, error) {
	rows, err := p.matrix(ctx, m)
	pairs := &qdrant.SearchMatrixPairs{}
	for _, row := range rows {
		for _, n := range row.Neighbors {
			pairs.Pairs = append(pairs.Pairs, &qdrant.SearchMatrixPair{A: pointID(row.ID), B: pointID(n.ID), Score: n.Score})
		}
	}
	return &qdrant.SearchMatrixPairsResponse{Result: pairs}, err
}

func (p points) SearchMatrixOffsets(ctx context.Context, m *qdrant.SearchMatrixPoints) (*qdrant.SearchMatrixOffsetsResponse, error) {
	rows, err := p.matrix(ctx, m)
	if err != nil {
		return nil, err
	}
	out := &qdrant.SearchMatrixOffsets{}
	place := make(map[vectord.PointID]uint64, len(rows))
	for i, row := range rows {
		place[row.ID] = uint64(i)
		out.Ids = append(out.Ids, pointID(row.ID))
	}
	for i, row := range rows {
		for _, n := range row.Neighbors {
			column, ok := place[n.ID]
			if !ok {
				return nil, fmt.Errorf("a neighbor in a matrix, %v, is not of the sample", n.ID)
			}
			out.OffsetsRow, out.OffsetsCol = append(out.OffsetsRow, uint64(i)), append(out.OffsetsCol, column)
			out.Scores = append(out.Scores, n.Score)
		}
	}
	return &qdrant.SearchMatrixOffsetsResponse{Result: out}, nil
}
