package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// rescoreMin candidates are compared at full precision at least, and rescoreFactor for each hit asked for: int8 codes
// keep the true nearest ten among their nearest thirty, though not in order.
const (
	rescoreMin    = 30
	rescoreFactor = 2
)

// Search returns the points nearest to the query, nearest first and by ascending id at equal scores. Scores are exact.
func (db *DB) Search(ctx context.Context, name string, q vectord.Query) ([]vectord.Hit, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return nil, err
	}
	if err := checkQuery(&q); err != nil {
		return nil, err
	}
	selection, err := compileSelection(q.Select)
	if err != nil {
		return nil, err
	}
	filter, err := compileFilter(q.Filter)
	if err != nil {
		return nil, err
	}
	if q.Vector == nil && q.ID == nil {
		return db.list(ctx, col, q, filter, selection)
	}
	s := search{db: db, collection: col, query: &q, filter: filter, selection: selection,
		distance: index.DistanceFunc(col.config.Params.Vectors.Distance), wanted: q.Limit + q.Offset}
	if err := s.prepareVector(); err != nil {
		return nil, err
	}
	hits, err := s.allShards(ctx)
	if err != nil {
		return nil, err
	}
	if q.Offset >= len(hits) {
		return []vectord.Hit{}, nil
	}
	return hits[q.Offset:], nil
}

func checkQuery(q *vectord.Query) error {
	if q.Limit < 1 || q.Limit > vectord.MaxLimit {
		return vectord.Errorf(vectord.KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", q.Limit, vectord.MaxLimit)
	}
	if q.Offset < 0 || q.Offset > vectord.MaxLimit {
		return vectord.Errorf(vectord.KindUnprocessable, "offset: value %d invalid, must be from 0 to %d", q.Offset, vectord.MaxLimit)
	}
	if q.Params.HNSWEf < 0 || q.Params.HNSWEf > vectord.MaxLimit {
		return vectord.Errorf(vectord.KindUnprocessable, "params.hnsw_ef: value %d invalid, must be from 1 to %d", q.Params.HNSWEf, vectord.MaxLimit)
	}
	return nil
}

// search is one query under way.
type search struct {
	db         *DB
	collection *collection
	query      *vectord.Query
	filter     *matcher
	selection  selection
	distance   func(a, b []float32) float32
	vector     []float32 // the query's, as the collection keeps vectors
	wanted     int       // hits of all pages so far
}

// prepareVector finds the vector to search with.
func (s *search) prepareVector() error {
	params := s.collection.config.Params.Vectors
	if id := s.query.ID; id != nil {
		shard := s.collection.shardOf(*id)
		snapshot := s.db.store.NewSnapshot()
		defer snapshot.Close()
		row, ok, err := snapshot.Point(shard.id, *id)
		if err != nil {
			return err
		}
		if !ok {
			return noPoint(*id)
		}
		s.vector, ok, err = snapshot.Vector(shard.id, row.Slot, nil)
		if err == nil && !ok {
			err = fmt.Errorf("point %s has no vector in slot %d", *id, row.Slot)
		}
		return err
	}
	if err := checkVector(s.query.Vector, params.Size); err != nil {
		return err
	}
	s.vector = s.query.Vector
	if params.Distance == vectord.Cosine {
		s.vector = slices.Clone(s.vector)
		vectord.Normalize(s.vector)
	}
	return nil
}

// allShards searches the shards, several at the same time, and merges what they found.
func (s *search) allShards(ctx context.Context) ([]vectord.Hit, error) {
	shards := s.collection.shards
	if len(shards) == 1 {
		return s.inShard(ctx, shards[0])
	}
	found := make([][]vectord.Hit, len(shards))
	errs := make([]error, len(shards))
	var wg sync.WaitGroup
	for i, shard := range shards {
		wg.Go(func() { found[i], errs[i] = s.inShard(ctx, shard) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	hits := slices.Concat(found...)
	s.sort(hits)
	return hits[:min(len(hits), s.wanted)], nil
}

func (s *search) sort(hits []vectord.Hit) {
	distance := s.collection.config.Params.Vectors.Distance
	slices.SortFunc(hits, func(a, b vectord.Hit) int {
		switch {
		case distance.Nearer(a.Score, b.Score):
			return -1
		case distance.Nearer(b.Score, a.Score):
			return 1
		}
		return a.ID.Compare(b.ID)
	})
}

// errChanged says that points moved while a search was under way, so that it may have missed one or mistaken one for
// another.
var errChanged = errors.New("points moved during the search")

// inShard searches one shard. The first attempt takes no lock. If points move under it, the second keeps writers of the
// shard out: then index, slots and rows agree.
func (s *search) inShard(ctx context.Context, shard *shard) ([]vectord.Hit, error) {
	hits, err := s.attempt(ctx, shard, false)
	if !errors.Is(err, errChanged) {
		return hits, err
	}
	s.db.metrics.searchRetries.Inc()
	shard.applying.RLock()
	defer shard.applying.RUnlock()
	return s.attempt(ctx, shard, true)
}

// attempt searches the shard. settled says that no writer is at work: then a candidate without a point is a leftover of
// the index, and not a point that moved.
func (s *search) attempt(ctx context.Context, shard *shard, settled bool) ([]vectord.Hit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	removals := shard.index.removals.Load()
	found, err := shard.matches(ctx, s.db.store, s.filter)
	if err != nil {
		return nil, err
	}
	if found != nil && found.count == 0 {
		return nil, nil
	}
	n := nearest{vector: s.vector, matches: found, exact: s.query.Params.Exact, indexed: s.query.Params.IndexedOnly}
	n.ef = s.query.Params.HNSWEf
	if n.ef == 0 {
		n.ef = s.collection.config.HNSW.EfSearch
	}
	wanted := s.wanted
	if s.query.ID != nil {
		wanted++ // the point itself will be found and left out
	}
	n.wanted = wanted
	n.k = max(rescoreFactor*wanted, rescoreMin)
	slots, plan, err := shard.index.candidates(ctx, nil, n)
	if err != nil {
		return nil, err
	}
	s.db.metrics.searches.WithLabelValues(plan).Inc()
	ranked, err := s.rescore(ctx, shard, slots, settled)
	if err != nil {
		return nil, err
	}
	if found != nil && !n.indexed && len(ranked) < min(wanted, found.count) {
		// The walk ran dry before it had met enough matching points: compare with all of them.
		n.exact = true
		if slots, _, err = shard.index.candidates(ctx, nil, n); err != nil {
			return nil, err
		}
		if ranked, err = s.rescore(ctx, shard, slots, settled); err != nil {
			return nil, err
		}
	}
	if shard.index.removals.Load() != removals && !settled {
		return nil, errChanged
	}
	return s.hits(shard, ranked, found)
}

// rankedSlot is a candidate with its exact distance.
type rankedSlot struct {
	index.Neighbor
	slotPoint
}

// rescore compares the candidates at full precision and returns them in order, each once.
func (s *search) rescore(ctx context.Context, shard *shard, slots []uint32, settled bool) ([]rankedSlot, error) {
	slices.Sort(slots)
	slots = slices.Compact(slots)
	ranked := make([]rankedSlot, 0, len(slots))
	var missing []uint32 // slots whose vectors must be read, and their places in ranked
	var places []int
	var scratch []float32
	for _, slot := range slots {
		p, ok := shard.slots.get(slot)
		if !ok && settled {
			continue
		}
		if !ok {
			return nil, errChanged
		}
		r := rankedSlot{index.Neighbor{Slot: slot}, p}
		if v, ok := s.db.hot.get(hotKey{shard.id, slot}, p.version); ok {
			r.Distance = s.distance(s.vector, v)
		} else if v, ok := shard.index.fresh.Vector(slot, scratch[:0]); ok {
			scratch = v
			r.Distance = s.distance(s.vector, v)
		} else {
			missing = append(missing, slot)
			places = append(places, len(ranked))
		}
		ranked = append(ranked, r)
	}
	if len(missing) > 0 {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		read := 0
		err := s.db.store.Vectors(shard.id, missing, func(slot uint32, v []float32) error {
			if missing[read] != slot {
				return errChanged
			}
			r := &ranked[places[read]]
			r.Distance = s.distance(s.vector, v)
			if now, ok := shard.slots.get(slot); ok && now == r.slotPoint && !s.query.Params.Exact {
				s.db.hot.add(hotKey{shard.id, slot}, r.version, v)
			}
			read++
			return nil
		})
		if err == nil && read < len(missing) {
			err = errChanged
		}
		if err != nil {
			return nil, err
		}
	}
	// A slot that holds the same version as before its vector was used held it all the while.
	for i := range ranked {
		if now, ok := shard.slots.get(ranked[i].Slot); !ok || now != ranked[i].slotPoint {
			return nil, errChanged
		}
	}
	slices.SortFunc(ranked, func(a, b rankedSlot) int {
		if a.Distance != b.Distance {
			return index.Compare(a.Neighbor, b.Neighbor)
		}
		return a.id.Compare(b.id)
	})
	return ranked, nil
}

// hits turns the nearest candidates into hits with what the query selects.
func (s *search) hits(shard *shard, ranked []rankedSlot, found *matches) ([]vectord.Hit, error) {
	hits := make([]vectord.Hit, 0, min(len(ranked), s.wanted))
	d := s.collection.config.Params.Vectors.Distance
	for _, r := range ranked {
		if len(hits) == s.wanted {
			break
		}
		if s.query.ID != nil && r.id == *s.query.ID {
			continue
		}
		score := index.Score(d, r.Distance)
		if limit := s.query.ScoreThreshold; limit != nil && !d.Nearer(score, *limit) {
			break
		}
		hit := vectord.Hit{Record: vectord.Record{ID: r.id, Version: r.version}, Score: score}
		// A point that changed after the filter was evaluated may match no longer.
		recheck := found != nil && r.version > found.asOf
		if s.selection.payload || recheck {
			row, ok, err := s.db.store.Point(shard.id, r.id)
			if err != nil {
				return nil, err
			}
			if !ok || row.Slot != r.Slot {
				return nil, errChanged
			}
			if recheck {
				if holds, err := s.filter.matches(r.id, row.Payload); err != nil {
					return nil, err
				} else if !holds {
					return nil, errChanged
				}
			}
			if s.selection.payload {
				if hit.Payload, err = s.selection.project(row.Payload); err != nil {
					return nil, err
				}
			}
		}
		if s.selection.vector {
			v, err := s.vectorOf(shard, r)
			if err != nil {
				return nil, err
			}
			hit.Vector = v
		}
		if now, ok := shard.slots.get(r.Slot); !ok || now != r.slotPoint {
			return nil, errChanged
		}
		hits = append(hits, hit)
	}
	return hits, nil
}

func (s *search) vectorOf(shard *shard, r rankedSlot) ([]float32, error) {
	if v, ok := s.db.hot.get(hotKey{shard.id, r.Slot}, r.version); ok {
		return slices.Clone(v), nil
	}
	v, ok, err := s.db.store.Vector(shard.id, r.Slot, nil)
	if err == nil && !ok {
		err = errChanged
	}
	return v, err
}

// list answers a query without a vector: points by ascending id, with score 0.
func (db *DB) list(ctx context.Context, col *collection, q vectord.Query, filter *matcher, sel selection) ([]vectord.Hit, error) {
	if q.ScoreThreshold != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "score_threshold is given without a query to score by")
	}
	records, err := db.page(ctx, col, nil, q.Limit+q.Offset, filter, sel)
	if err != nil {
		return nil, err
	}
	hits := make([]vectord.Hit, 0, q.Limit)
	for _, r := range records[min(q.Offset, len(records)):] {
		hits = append(hits, vectord.Hit{Record: r})
	}
	return hits, nil
}
