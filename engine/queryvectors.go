package engine

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

// prepareVectors finds the vectors to compare with.
func (s *search) prepareVectors() (err error) {
	q := s.query
	if s.spec, err = s.collection.spec(q.Using); err != nil {
		return err
	}
	s.order, s.distance = s.spec.distance, s.spec.compare()
	switch {
	case q.Nearest != nil:
		s.vector, err = s.example(q.Nearest)
	case q.Recommend != nil && q.Recommend.Strategy == vectord.AverageVector:
		s.vector, err = s.mean(q.Recommend)
	default:
		if s.scorer, err = s.newScorer(); err != nil {
			return err
		}
		s.order = vectord.Dot // larger is better
		compare := s.distance
		s.distance = func(_, stored []float32) float32 {
			return -s.scorer.score(func(example *vectord.Vector) float32 { return -compare(example.Values, stored) })
		}
		return nil
	}
	if err == nil {
		s.vector = s.weighted(s.vector)
	}
	return err
}

// weighted returns a query's vector, weighted by what is rare where the collection wants that.
func (s *search) weighted(v vectord.Vector) vectord.Vector {
	if s.spec.idf {
		return s.collection.weighted(s.spec, v)
	}
	return v
}

// example returns the vector of an example as it is compared.
func (s *search) example(e *vectord.Example) (vectord.Vector, error) {
	v, err := s.exampleAsGiven(e)
	if err != nil || e.ID != nil && s.query.Lookup == nil {
		return v, err // is kept as it is compared
	}
	return s.spec.forQuery(v), nil
}

// exampleAsGiven returns the vector of an example as it was given or is kept.
func (s *search) exampleAsGiven(e *vectord.Example) (vectord.Vector, error) {
	if e.ID == nil {
		if made, ok := s.texts[e.Vector.Text]; ok {
			return s.spec.given(vectord.Dense(made))
		}
		return s.spec.given(e.Vector)
	}
	lookup := s.query.Lookup
	if lookup == nil {
		return s.db.vectorOf(s.collection, s.spec, *e.ID)
	}
	col, err := s.db.catalog.resolve(lookup.Collection)
	if err != nil {
		return vectord.Vector{}, err
	}
	spec, err := col.spec(*cmp.Or(lookup.Vector, &s.query.Using))
	if err != nil {
		return vectord.Vector{}, err
	}
	v, err := s.db.vectorOf(col, spec, *e.ID)
	if err != nil {
		return v, err
	}
	return s.spec.given(v) // which may not be of the same kind or size
}

// mean returns the mean of the positive examples, moved away from the mean of the negative ones by as much as that is away.
func (s *search) mean(r *vectord.Recommend) (vectord.Vector, error) {
	if s.spec.kind == vectord.MultiVector {
		return vectord.Vector{}, vectord.Errorf(vectord.KindInvalid, "strategy average_vector: there is no mean of the multivectors %q, use best_score or sum_scores",
			s.spec.name)
	}
	positive, negative := 1/float64(len(r.Positive)), 0.0
	if len(r.Negative) > 0 {
		positive, negative = 2/float64(len(r.Positive)), -1/float64(len(r.Negative))
	}
	sums := map[uint32]float64{} // by component
	add := func(examples []vectord.Example, weight float64) error {
		for i := range examples {
			v, err := s.exampleAsGiven(&examples[i])
			if err != nil {
				return err
			}
			for j, x := range v.Values {
				component := uint32(j)
				if v.Kind == vectord.SparseVector {
					component = v.Indices[j]
				}
				sums[component] += weight * float64(x)
			}
		}
		return nil
	}
	if err := add(r.Positive, positive); err != nil {
		return vectord.Vector{}, err
	}
	if err := add(r.Negative, negative); err != nil {
		return vectord.Vector{}, err
	}
	mean := vectord.Vector{Kind: s.spec.kind}
	for component := range sums {
		mean.Indices = append(mean.Indices, component)
	}
	slices.Sort(mean.Indices)
	for _, component := range mean.Indices {
		mean.Values = append(mean.Values, float32(sums[component]))
	}
	if mean.Kind == vectord.DenseVector {
		mean.Indices = nil
	}
	if len(mean.Indices) > vectord.MaxSparseComponents { // of many examples together
		return mean, vectord.Errorf(vectord.KindUnprocessable, "the mean of the examples has %d components, at most %d are accepted",
			len(mean.Indices), vectord.MaxSparseComponents)
	}
	return s.spec.forQuery(mean), nil
}

// scorer scores points by their similarities to several examples: larger is better.
type scorer struct {
	score func(similarity func(example *vectord.Vector) float32) float32
	// around are vectors, examples and some between them, near to which good points lie. With none they may lie anywhere. Of
	// others than dense vectors, which no graph has, there may be none.
	around []vectord.Vector
}

// newScorer returns the scorer of a query that compares with several examples.
func (s *search) newScorer() (*scorer, error) {
	q := s.query
	vectors := func(examples []vectord.Example) (vectors []vectord.Vector, err error) {
		for i := range examples {
			v, err := s.example(&examples[i])
			if err != nil {
				return nil, err
			}
			vectors = append(vectors, s.weighted(v))
		}
		return vectors, nil
	}
	if r := q.Recommend; r != nil {
		positive, err := vectors(r.Positive)
		if err != nil {
			return nil, err
		}
		negative, err := vectors(r.Negative)
		if r.Strategy == vectord.BestScore {
			return &scorer{bestScore(positive, negative), positive}, err
		}
		around := positive
		if len(positive) > len(negative) {
			// The sum of squared distances is the least there, and the sum of dot products grows that way.
			around = append(around, s.combined(positive, negative)...)
		}
		return &scorer{sumScores(positive, negative), around}, err
	}
	pairs := q.Context
	if q.Discover != nil {
		pairs = &q.Discover.Context
	}
	var likes, unlikes []vectord.Example
	for _, pair := range *pairs {
		likes, unlikes = append(likes, pair.Positive), append(unlikes, pair.Negative)
	}
	positive, err := vectors(likes)
	if err != nil {
		return nil, err
	}
	negative, err := vectors(unlikes)
	if err != nil {
		return nil, err
	}
	if q.Discover == nil {
		return &scorer{inContext(positive, negative), append(positive, s.combined(positive, nil)...)}, nil
	}
	target, err := vectors([]vectord.Example{q.Discover.Target})
	if err != nil {
		return nil, err
	}
	// The best point is on the border of the right side, if the target is on the wrong one.
	around := slices.Concat(target, positive)
	for i := range positive {
		around = append(around, s.combined([]vectord.Vector{target[0], positive[i]}, nil)...)
	}
	return &scorer{discover(&target[0], positive, negative), around}, nil
}

// combined returns the vector whose distances are like those to the positive ones together, less those to the negative ones:
// their mean, where there are none of these. Of others than dense vectors it returns nothing.
func (s *search) combined(positive, negative []vectord.Vector) []vectord.Vector {
	if s.spec.kind != vectord.DenseVector {
		return nil
	}
	values := make([]float32, s.spec.dim)
	weight := 1 / float32(len(positive)-len(negative))
	for _, v := range positive {
		for i, x := range v.Values {
			values[i] += weight * x
		}
	}
	for _, v := range negative {
		for i, x := range v.Values {
			values[i] -= weight * x
		}
	}
	mean := vectord.Dense(values)
	if s.spec.distance == vectord.Cosine {
		s.spec.prepare(&mean)
	}
	return []vectord.Vector{mean}
}

// sigmoid maps similarities to between -1 and 1.
func sigmoid(x float32) float32 { return x / (1 + abs(x)) }

// share maps similarities to between 0 and 1.
func share(x float32) float32 { return 0.5 * (sigmoid(x) + 1) }

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ (1 << 31)) }

func bestScore(positive, negative []vectord.Vector) func(func(*vectord.Vector) float32) float32 {
	best := func(examples []vectord.Vector, similarity func(*vectord.Vector) float32) float32 {
		most := float32(math.Inf(-1))
		for i := range examples {
			most = max(most, similarity(&examples[i]))
		}
		return most
	}
	return func(similarity func(*vectord.Vector) float32) float32 {
		like, unlike := best(positive, similarity), best(negative, similarity)
		if like > unlike {
			return share(like)
		}
		return -share(unlike)
	}
}

func sumScores(positive, negative []vectord.Vector) func(func(*vectord.Vector) float32) float32 {
	return func(similarity func(*vectord.Vector) float32) float32 {
		var likes, unlikes float32
		for i := range positive {
			likes += similarity(&positive[i])
		}
		for i := range negative {
			unlikes += similarity(&negative[i])
		}
		return likes - unlikes
	}
}

// discover is the score of a target within pairs of positive[i] and negative[i].
func discover(target *vectord.Vector, positive, negative []vectord.Vector) func(func(*vectord.Vector) float32) float32 {
	return func(similarity func(*vectord.Vector) float32) float32 {
		sides := 0
		for i := range positive {
			sides += cmp.Compare(similarity(&positive[i]), similarity(&negative[i]))
		}
		return float32(sides) + share(similarity(target))
	}
}

func inContext(positive, negative []vectord.Vector) func(func(*vectord.Vector) float32) float32 {
	return func(similarity func(*vectord.Vector) float32) float32 {
		var sum float32
		for i := range positive {
			sum += sigmoid(min(similarity(&positive[i])-similarity(&negative[i])-vectord.ContextMargin, 0))
		}
		return sum
	}
}

// distanceTo compares with a stored vector, and reports whether it is comparable: a sparse one must have a component in common
// with what it is to be near to.
func (s *search) distanceTo(v *vectord.Vector) (distance float32, ok bool) {
	switch {
	case v.Kind != vectord.SparseVector:
		return s.distance(s.vector.Values, v.Values), true
	case s.scorer == nil:
		sum, overlap := sparseDot(&s.vector, v)
		return -sum, overlap
	}
	return -s.scorer.score(func(example *vectord.Vector) float32 {
		sum, _ := sparseDot(example, v)
		return sum
	}), true
}

// sparseDot is the dot product of two sparse vectors, summed as the index sums it, and whether they have a component in common.
func sparseDot(a, b *vectord.Vector) (sum float32, overlap bool) {
	for i, j := 0, 0; i < len(a.Indices) && j < len(b.Indices); {
		switch {
		case a.Indices[i] < b.Indices[j]:
			i++
		case a.Indices[i] > b.Indices[j]:
			j++
		default:
			sum += float32(a.Values[i] * b.Values[j])
			overlap = true
			i++
			j++
		}
	}
	return sum, overlap
}

const (
	// scoredMax is up to how many vectors of a shard a scorer is given all that match. Of more it gets those around the examples.
	scoredMax = 10_000
	// Around the examples there are scoredPerHit candidates for each hit, and scoredMin at least.
	scoredPerHit = 16
	scoredMin    = 1024
)

// scored finds the candidates of a search with a scorer. Unless the plan is planExamples they are the best of all that match.
func (a *attempt) scored(ctx context.Context, n *nearest) ([]index.Neighbor, searchPlan, error) {
	s, dst := a.search, a.found[:0]
	n.k, n.compare = n.wanted, s.distance
	if a.vectors.sparse != nil {
		dst, err := s.scanSparse(ctx, dst, a.shard, n)
		return dst, planExact, err
	}
	x := a.vectors.dense
	if n.matches != nil && n.matches.count <= scoredMax && !n.exact {
		dst, err := x.scan(ctx, dst, *n, n.matches.slots.appendTo(nil))
		return dst, planExact, err
	}
	around := s.scorer.around
	if n.exact || x.waiting()+x.indexed() <= scoredMax || x.indexed() == 0 || len(around) == 0 {
		dst, err := x.scan(ctx, dst, *n, nil)
		return dst, planExact, err
	}
	// As many in all as one search may look at, however many walks there are.
	walk := *n
	walk.compare = nil
	walk.k = max(min(max(n.wanted*scoredPerHit, scoredMin), candidatesMax/len(around)), 1)
	walk.wanted, walk.ef = min(n.wanted, walk.k), max(s.query.Params.HNSWEf, a.vectors.recall.efFor(&s.spec.hnsw))
	for i := range around {
		if err := ctx.Err(); err != nil {
			return dst, planExamples, err
		}
		walk.vector = around[i].Values
		var err error
		if dst, err = x.candidates(ctx, dst, walk); err != nil {
			return dst, planExamples, err
		}
	}
	slices.SortFunc(dst, func(a, b index.Neighbor) int { return cmp.Compare(a.Slot, b.Slot) })
	return slices.CompactFunc(dst, func(a, b index.Neighbor) bool { return a.Slot == b.Slot }), planExamples, nil
}

// scanSparse appends the best of all sparse vectors that match, with their scores as distances.
func (s *search) scanSparse(ctx context.Context, dst []index.Neighbor, shard *shard, n *nearest) ([]index.Neighbor, error) {
	allow := n.matches.allow()
	var top index.Top
	top.Reset(n.k)
	read := 0
	err := s.db.store.ScanSparse(storage.VectorSet{Shard: shard.id, Number: s.spec.number}, func(slot uint32, indices []uint32, values []float32) error {
		read++
		if read%cancelCheckRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if allow == nil || allow(slot) {
			distance, _ := s.distanceTo(&vectord.Vector{Kind: vectord.SparseVector, Indices: indices, Values: values})
			top.Offer(index.Neighbor{Slot: slot, Distance: distance})
		}
		return nil
	})
	return top.AppendSorted(dst), err
}

// considered is how many of the nearest points MMR ranks again.
func (s *search) considered() int { return cmp.Or(s.query.MMR.Candidates, s.wanted) }

// diverseBytesMax bounds the vectors of the points that MMR ranks again.
const diverseBytesMax = 128 << 20

// diversify ranks the nearest points by maximal marginal relevance. Their scores stay.
func (s *search) diversify(ctx context.Context, nearest []vectord.Hit) ([]vectord.Hit, error) {
	type candidate struct {
		hit       vectord.Hit
		vector    vectord.Vector
		relevance float64
		seen      float64 // the greatest similarity to a point that was placed
	}
	scores := make(map[vectord.PointID]float32, len(nearest))
	ids := make([]vectord.PointID, len(nearest))
	for i := range nearest {
		ids[i] = nearest[i].ID
		scores[ids[i]] = nearest[i].Score
	}
	slices.SortFunc(ids, vectord.PointID.Compare)
	var left []candidate
	bytes := 0
	err := s.each(ctx, ids, func(r storage.Reader, shard *shard, id vectord.PointID, row storage.PointRow) error {
		if !slices.Contains(row.Vectors, s.spec.number) {
			return nil
		}
		v, ok, err := s.spec.read(r, shard.id, row.Slot)
		if err != nil || !ok {
			return err
		}
		if bytes += 4 * (len(v.Values) + len(v.Indices)); bytes > diverseBytesMax {
			return vectord.Errorf(vectord.KindUnprocessable, "mmr: the vectors of %d candidates take more than %d bytes", len(ids), diverseBytesMax)
		}
		distance, _ := s.distanceTo(&v)
		left = append(left, candidate{vectord.Hit{Record: vectord.Record{ID: id}, Score: scores[id]}, v, -float64(distance), math.Inf(-1)})
		return nil
	})
	if err != nil {
		return nil, err
	}
	diversity := float64(s.query.MMR.Diversity)
	var placed []vectord.Hit
	for len(placed) < s.wanted && len(left) > 0 {
		best, most := 0, math.Inf(-1)
		for i := range left {
			c := &left[i]
			worth := c.relevance
			if len(placed) > 0 {
				worth = (1-diversity)*c.relevance - diversity*c.seen
			}
			if worth > most {
				best, most = i, worth
			}
		}
		chosen := left[best]
		placed = append(placed, chosen.hit)
		left = slices.Delete(left, best, best+1)
		for i := range left {
			if i%cancelCheckRows == 0 && ctx.Err() != nil {
				return nil, ctx.Err()
			}
			left[i].seen = max(left[i].seen, s.similarity(&chosen.vector, &left[i].vector))
		}
	}
	return placed, nil
}

// similarity compares two stored vectors.
func (s *search) similarity(a, b *vectord.Vector) float64 {
	if a.Kind == vectord.SparseVector {
		sum, _ := sparseDot(a, b)
		return float64(sum)
	}
	return -float64(s.distance(a.Values, b.Values))
}
