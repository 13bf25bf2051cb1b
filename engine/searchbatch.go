package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
)

// batchSearches is how many searches of a batch are under way at once. Each holds memory, and walks are not interrupted
// before all of them have ended.
const batchSearches = 64

// SearchBatch answers several queries, each as Search would. That takes less time than one search after the other, since
// their walks through the graph take turns waiting for memory. The first error is the answer to all, and says of which query
// it is.
func (db *DB) SearchBatch(ctx context.Context, name string, queries []vectord.Query) ([][]vectord.Hit, error) {
	col, err := db.readable(ctx, name, len(queries))
	if err != nil {
		return nil, err
	}
	if m := col.strict(); m != nil {
		if err := exceeded(len(queries), m.SearchMaxBatchSize, "search batch", "search_max_batchsize"); err != nil {
			return nil, err
		}
	}
	searches := make([]*search, len(queries))
	for i := range queries {
		if err = col.checkStrict(&queries[i]); err == nil {
			searches[i], err = db.newSearch(ctx, col, &queries[i])
		}
		if err != nil {
			return nil, ofQuery(i, err)
		}
	}
	db.searching.Add(1)
	defer db.searching.Add(-1)
	answers := make([][]vectord.Hit, 0, len(queries))
	for first := 0; first < len(searches); first += batchSearches {
		some := searches[first:min(first+batchSearches, len(searches))]
		found := col.searchTogether(ctx, some)
		for i, s := range some {
			hits, err := s.answerOf(ctx, found, i)
			if err != nil {
				return nil, ofQuery(first+i, err)
			}
			answers = append(answers, hits)
		}
	}
	return answers, nil
}

func ofQuery(i int, err error) error { return fmt.Errorf("searches[%d]: %w", i, err) }

// shardHits is what searches found in one shard, and the errors that they ended with.
type shardHits struct {
	hits [][]vectord.Hit
	errs []error
}

// answerOf returns what a search of a batch, the i-th, has found in all shards.
func (s *search) answerOf(ctx context.Context, shards []shardHits, i int) ([]vectord.Hit, error) {
	if !s.direct() {
		return s.answer(ctx)
	}
	found := make([][]vectord.Hit, len(shards))
	for j, shard := range shards {
		if shard.errs[i] != nil {
			return nil, shard.errs[i]
		}
		found[j] = shard.hits[i]
	}
	return s.page(s.merge(found)), nil
}

// searchTogether searches all shards, several at the same time, for those of the searches that are direct.
func (col *collection) searchTogether(ctx context.Context, searches []*search) []shardHits {
	found := make([]shardHits, len(col.shards))
	if len(col.shards) == 1 {
		found[0] = col.shards[0].searchTogether(ctx, searches)
		return found
	}
	var wg sync.WaitGroup
	for i, shard := range col.shards {
		wg.Go(func() { found[i] = shard.searchTogether(ctx, searches) })
	}
	wg.Wait()
	return found
}

func (s *shard) searchTogether(ctx context.Context, searches []*search) shardHits {
	found := shardHits{make([][]vectord.Hit, len(searches)), make([]error, len(searches))}
	attempts := make([]*attempt, len(searches))
	for i, search := range searches {
		if search.direct() {
			attempts[i], found.errs[i] = search.begin(ctx, s, false)
		}
	}
	for _, x := range s.indexes() {
		x.onGraph(func(g *hnsw.Graph) { walkTogether(g, x, attempts) })
	}
	for i, a := range attempts {
		if a == nil {
			continue
		}
		found.hits[i], found.errs[i] = a.finish(ctx)
		a.release()
		if errors.Is(found.errs[i], errChanged) {
			found.hits[i], found.errs[i] = searches[i].inShard(ctx, s)
		}
	}
	return found
}

// walkTogether adds to the attempts, some of which may be nil, what the graph of an index has for those that ask it.
func walkTogether(g *hnsw.Graph, x *vectorIndex, attempts []*attempt) {
	var walking []*attempt
	var found [][]index.Neighbor
	var vectors [][]float32
	var params []hnsw.Params
	for _, a := range attempts {
		if a != nil && a.plan == planFresh && a.vectors.dense == x {
			walking, found = append(walking, a), append(found, a.found[:a.outside])
			vectors, params = append(vectors, a.nearest.vector), append(params, a.walk())
		}
	}
	g.SearchBatch(found, vectors, params)
	for i, a := range walking {
		a.found = found[i]
	}
}
