package engine

import (
	"cmp"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/vectord/vectord"
)

// fuse merges the lists that were prefetched.
func (s *search) fuse(lists [][]vectord.Hit) []vectord.Hit {
	f := s.query.Fusion
	sums := map[vectord.PointID]float64{}
	for i, list := range lists {
		if f.Method == vectord.DistributionScore {
			s.prefetch[i].addNormalized(sums, list)
			continue
		}
		weight := 1.0
		if f.Weights != nil {
			weight = float64(f.Weights[i])
		}
		k := float64(cmp.Or(f.K, vectord.DefaultRankConstant))
		for place := range list {
			// With weight 0 the quotient is infinite and its inverse 0.
			sums[list[place].ID] += 1 / (float64(place+1)/weight + k - 1)
		}
	}
	hits := make([]vectord.Hit, 0, len(sums))
	for id, sum := range sums {
		hits = append(hits, vectord.Hit{Record: vectord.Record{ID: id}, Score: float32(sum)})
	}
	descending(hits)
	return hits
}

// addNormalized adds the scores of what the search found, brought to a common scale.
func (s *search) addNormalized(sums map[vectord.PointID]float64, list []vectord.Hit) {
	sign := 1.0
	if s.compares() && !s.order.LargerIsNearer() {
		sign = -1
	}
	var mean, squares float64
	for i := range list {
		mean += sign * float64(list[i].Score) / float64(len(list))
	}
	for i := range list {
		deviation := sign*float64(list[i].Score) - mean
		squares += deviation * deviation
	}
	equal := !slices.ContainsFunc(list, func(h vectord.Hit) bool { return h.Score != list[0].Score })
	reach := 3 * math.Sqrt(squares/float64(len(list)-1))
	for i := range list {
		share := 0.5
		if !equal {
			share = (sign*float64(list[i].Score) - mean + reach) / (2 * reach)
		}
		sums[list[i].ID] += share
	}
}

// descending sorts hits by descending score, those of equal score by ascending id.
func descending(hits []vectord.Hit) {
	slices.SortFunc(hits, func(a, b vectord.Hit) int {
		return cmp.Or(cmp.Compare(b.Score, a.Score), a.ID.Compare(b.ID))
	})
}

// sample returns points at random, each as likely as any other.
func (s *search) sample(ctx context.Context) ([]vectord.Hit, error) {
	found := make([]reservoir, len(s.collection.shards))
	errs := make([]error, len(found))
	var wg sync.WaitGroup
	for i, shard := range s.collection.shards {
		wg.Go(func() {
			found[i].most = s.wanted
			errs[i] = s.sampleShard(ctx, shard, &found[i])
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	// Each place goes to a shard in proportion to how many of its points have none yet.
	left, total := make([]int, len(found)), 0
	for i := range found {
		rand.Shuffle(len(found[i].ids), func(a, b int) { found[i].ids[a], found[i].ids[b] = found[i].ids[b], found[i].ids[a] })
		left[i] = found[i].seen
		total += left[i]
	}
	var hits []vectord.Hit
	for ; len(hits) < s.wanted && total > 0; total-- {
		i := 0
		for at := rand.IntN(total); at >= left[i]; i++ {
			at -= left[i]
		}
		left[i]--
		ids := found[i].ids
		hits = append(hits, vectord.Hit{Record: vectord.Record{ID: ids[0]}})
		found[i].ids = ids[1:]
	}
	return hits, nil
}

// reservoir keeps some of the ids that it is offered, each as likely as any other (Vitter: ACM TOMS 11, 1985).
type reservoir struct {
	most int
	seen int
	ids  []vectord.PointID
}

func (r *reservoir) offer(id vectord.PointID) {
	r.seen++
	if len(r.ids) < r.most {
		r.ids = append(r.ids, id)
	} else if at := rand.IntN(r.seen); at < r.most {
		r.ids[at] = id
	}
}

// sampleShard offers the matching points of a shard.
func (s *search) sampleShard(ctx context.Context, shard *shard, r *reservoir) error {
	// So that what is left to do under the lock is little.
	if _, err := shard.matches(ctx, s.db.store, s.filter, false); err != nil {
		return err
	}
	shard.applying.RLock()
	defer shard.applying.RUnlock()
	found, err := shard.matches(ctx, s.db.store, s.filter, true)
	if err != nil {
		return err
	}
	if expired := shard.expiry.expired(s.now, math.MaxInt); len(expired) > 0 {
		found = shard.without(found, expired)
	}
	allow := found.allow()
	for slot := range shard.slots.limit() {
		if allow != nil && !allow(slot) {
			continue
		}
		if p, ok := shard.slots.get(slot); ok {
			r.offer(p.id)
		}
	}
	return nil
}
