package model

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/vectord/vectord"
)

// Search ranks every matching point. Points of equal score are in ascending order of id, and a sample is the first points.
func (m *Model) Search(_ context.Context, name string, q vectord.Query) ([]vectord.Hit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if err := q.Check(); err != nil {
		return nil, err
	}
	pick, err := c.picker(q.Select)
	if err != nil {
		return nil, err
	}
	asked := question{model: m, collection: c, examples: map[vectord.PointID]bool{}}
	if err := asked.noteExamples(&q); err != nil {
		return nil, err
	}
	found, err := asked.rank(&q, nil)
	if err != nil {
		return nil, err
	}
	var hits []vectord.Hit
	for _, r := range cut(found, q.Offset, q.Limit) {
		hits = append(hits, vectord.Hit{Record: pick(r.id, c.points[r.id]), Score: r.score})
	}
	return hits, nil
}

// question is a query with all that it prefetches.
type question struct {
	model      *Model
	collection *collection
	examples   map[vectord.PointID]bool // are no answers
}

type ranked struct {
	id    vectord.PointID
	score float32
}

func cut(list []ranked, offset, limit int) []ranked {
	list = list[min(offset, len(list)):]
	return list[:min(limit, len(list))]
}

// examplesOf returns the examples to be near to and to be far from, pair by pair where they are pairs.
func examplesOf(q *vectord.Query) (near, far []vectord.Example) {
	if q.Nearest != nil {
		near = append(near, *q.Nearest)
	}
	if q.Recommend != nil {
		near, far = append(near, q.Recommend.Positive...), append(far, q.Recommend.Negative...)
	}
	var pairs []vectord.ContextPair
	if q.Discover != nil {
		pairs = q.Discover.Context
	}
	if q.Context != nil {
		pairs = *q.Context
	}
	for _, p := range pairs {
		near, far = append(near, p.Positive), append(far, p.Negative)
	}
	return near, far
}

func (a *question) noteExamples(q *vectord.Query) error {
	at := a.collection
	if q.Lookup != nil {
		var err error
		if at, err = a.model.find(q.Lookup.Collection); err != nil {
			return err
		}
	}
	near, far := examplesOf(q)
	if q.Discover != nil {
		near = append(near, q.Discover.Target)
	}
	for _, e := range slices.Concat(near, far) {
		if e.ID != nil && at == a.collection {
			a.examples[*e.ID] = true
		}
	}
	for i := range q.Prefetch {
		if err := a.noteExamples(&q.Prefetch[i]); err != nil {
			return err
		}
	}
	return nil
}

// rank returns all that the query finds, best first.
func (a *question) rank(q *vectord.Query, outer []*vectord.Filter) ([]ranked, error) {
	if err := checkPaths(q.Filter); err != nil {
		return nil, err
	}
	filters := append(slices.Clone(outer), q.Filter)
	score, larger, err := a.scoring(q)
	if err != nil {
		return nil, err
	}
	var lists [][]ranked
	for i := range q.Prefetch {
		list, err := a.rank(&q.Prefetch[i], filters)
		if err != nil {
			return nil, err
		}
		lists = append(lists, cut(list, q.Prefetch[i].Offset, q.Prefetch[i].Limit))
	}
	ids := a.collection.matching(nil)
	for _, f := range filters {
		matching := a.collection.matching(f)
		ids = slices.DeleteFunc(ids, func(id vectord.PointID) bool { return !slices.Contains(matching, id) })
	}
	if lists != nil {
		ids = slices.DeleteFunc(ids, func(id vectord.PointID) bool { return placeOf(id, slices.Concat(lists...)) < 0 })
	}
	switch {
	case q.Fusion != nil:
		score, larger = a.fusion(q, lists), true
	case q.Formula != nil:
		score, larger, err = a.formula(q.Formula, lists), true, checkFormula(q.Formula)
	}
	if err != nil {
		return nil, err
	}
	var found []ranked
	for _, id := range ids {
		value, ok, err := score(id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		r := ranked{id, float32(value)}
		if t := q.ScoreThreshold; t != nil {
			better := larger && r.score > *t || !larger && r.score < *t
			if !better && !((q.Fusion != nil || q.Formula != nil) && r.score == *t) {
				continue
			}
		}
		found = append(found, r)
	}
	slices.SortStableFunc(found, func(a, b ranked) int {
		if larger {
			a, b = b, a
		}
		return cmp.Compare(a.score, b.score)
	})
	if q.MMR != nil {
		found = a.diverse(q, found)
	}
	return found, nil
}

func placeOf(id vectord.PointID, list []ranked) int {
	return slices.IndexFunc(list, func(r ranked) bool { return r.id == id })
}

// scoring returns what a point is worth by the vectors that the query compares with, 0 if there are none.
func (a *question) scoring(q *vectord.Query) (score func(vectord.PointID) (float64, bool, error), larger bool, err error) {
	c := a.collection
	near, far := examplesOf(q)
	if near == nil && far == nil && q.Discover == nil {
		return func(vectord.PointID) (float64, bool, error) { return 0, true, nil }, true, nil
	}
	kind, err := c.kind(q.Using)
	if err != nil {
		return nil, false, err
	}
	average := q.Recommend != nil && q.Recommend.Strategy == vectord.AverageVector
	if average && kind == vectord.MultiVector {
		return nil, false, wrong("there is no mean of multivectors")
	}
	likes, err := a.vectorsOf(q, near)
	if err != nil {
		return nil, false, err
	}
	unlikes, err := a.vectorsOf(q, far)
	if err != nil {
		return nil, false, err
	}
	distance := c.distance(q.Using)
	// comparing with one vector keeps the score of the distance
	with := func(v vectord.Vector) func(vectord.PointID) (float64, bool, error) {
		return func(id vectord.PointID) (float64, bool, error) {
			stored, ok := c.points[id].vectors[q.Using]
			if !ok || a.examples[id] {
				return 0, false, nil
			}
			value, overlap := c.similarity(q.Using, &v, &stored)
			return shown(distance, value), overlap, nil
		}
	}
	if q.Nearest != nil {
		return with(likes[0]), distance.LargerIsNearer(), nil
	}
	if average {
		mean, err := a.mean(q, near, far)
		return with(mean), distance.LargerIsNearer(), err
	}
	var target []vectord.Vector
	if q.Discover != nil {
		if target, err = a.vectorsOf(q, []vectord.Example{q.Discover.Target}); err != nil {
			return nil, false, err
		}
	}
	return func(id vectord.PointID) (float64, bool, error) {
		stored, ok := c.points[id].vectors[q.Using]
		if !ok || a.examples[id] {
			return 0, false, nil
		}
		similar := func(examples []vectord.Vector) (all []float64) {
			for i := range examples {
				value, _ := c.similarity(q.Using, &examples[i], &stored)
				all = append(all, value)
			}
			return all
		}
		return byExamples(q, similar(target), similar(likes), similar(unlikes)), true, nil
	}, true, nil
}

// byExamples is the score of a point that is so similar to the examples.
func byExamples(q *vectord.Query, target, near, far []float64) (total float64) {
	bounded := func(x float64) float64 { return x / (1 + math.Abs(x)) }
	share := func(x float64) float64 { return (bounded(x) + 1) / 2 }
	switch {
	case q.Recommend != nil && q.Recommend.Strategy == vectord.SumScores:
		for _, x := range near {
			total += x
		}
		for _, x := range far {
			total -= x
		}
	case q.Recommend != nil && (len(far) == 0 || len(near) > 0 && slices.Max(near) > slices.Max(far)):
		total = share(slices.Max(near))
	case q.Recommend != nil:
		total = -share(slices.Max(far))
	default:
		for i := range near {
			switch {
			case q.Context != nil:
				total += bounded(min(near[i]-far[i]-vectord.ContextMargin, 0))
			case near[i] > far[i]:
				total++
			case near[i] < far[i]:
				total--
			}
		}
		if q.Discover != nil {
			total += share(target[0])
		}
	}
	return total
}

// vectorsOf returns the vectors of examples as they are compared.
func (a *question) vectorsOf(q *vectord.Query, examples []vectord.Example) (vectors []vectord.Vector, err error) {
	for _, e := range examples {
		v, err := a.given(q, e)
		if err != nil {
			return nil, err
		}
		if v, err = a.collection.vector(q.Using, v); err != nil {
			return nil, err
		}
		vectors = append(vectors, v)
	}
	return vectors, nil
}

// given returns the vector of an example as it was given or is stored.
func (a *question) given(q *vectord.Query, e vectord.Example) (vectord.Vector, error) {
	if e.ID == nil {
		_, err := a.collection.vector(q.Using, e.Vector)
		return e.Vector, err
	}
	c, name := a.collection, q.Using
	if q.Lookup != nil {
		var err error
		if c, err = a.model.find(q.Lookup.Collection); err != nil {
			return vectord.Vector{}, err
		}
		if q.Lookup.Vector != nil {
			name = *q.Lookup.Vector
		}
		if _, err := c.kind(name); err != nil {
			return vectord.Vector{}, err
		}
	}
	p, ok := c.points[*e.ID]
	if !ok {
		return vectord.Vector{}, noPoint(*e.ID)
	}
	v, ok := p.vectors[name]
	if !ok {
		return v, vectord.Errorf(vectord.KindNotFound, "point %s has no vector %q", *e.ID, name)
	}
	_, err := a.collection.vector(q.Using, v)
	return v, err
}

// mean is what AverageVector compares with.
func (a *question) mean(q *vectord.Query, near, far []vectord.Example) (vectord.Vector, error) {
	sum := map[uint32]float64{}
	for i, examples := range [][]vectord.Example{near, far} {
		factor := []float64{1, -1}[i]
		if i == 0 && len(far) > 0 {
			factor = 2
		}
		for _, e := range examples {
			v, err := a.given(q, e)
			if err != nil {
				return v, err
			}
			for j, x := range v.Values {
				at := uint32(j)
				if v.Kind == vectord.SparseVector {
					at = v.Indices[j]
				}
				sum[at] += factor * float64(x) / float64(len(examples))
			}
		}
	}
	var indices []uint32
	for at := range sum {
		indices = append(indices, at)
	}
	slices.Sort(indices)
	values := make([]float32, len(indices))
	for i, at := range indices {
		values[i] = float32(sum[at])
	}
	if kind, _ := a.collection.kind(q.Using); kind == vectord.SparseVector {
		return vectord.Sparse(indices, values), nil
	}
	return a.collection.vector(q.Using, vectord.Dense(values))
}

// diverse ranks the nearest points anew, as long as there are any: after the first the one with the most relevance, less its
// likeness to those before it.
func (a *question) diverse(q *vectord.Query, near []ranked) []ranked {
	c, d := a.collection, float64(q.MMR.Diversity)
	candidates := q.MMR.Candidates
	if candidates == 0 {
		candidates = q.Limit + q.Offset
	}
	left := slices.Clone(cut(near, 0, candidates))
	slices.SortFunc(left, func(a, b ranked) int { return a.id.Compare(b.id) })
	vectors, _ := a.vectorsOf(q, []vectord.Example{*q.Nearest}) // could be had before
	relevance := func(r ranked) float64 {
		stored := c.points[r.id].vectors[q.Using]
		value, _ := c.similarity(q.Using, &vectors[0], &stored)
		return value
	}
	likeness := func(r, other ranked) float64 {
		v, w := c.points[other.id].vectors[q.Using], c.points[r.id].vectors[q.Using]
		return c.plainSimilarity(q.Using, &v, &w)
	}
	var placed []ranked
	for len(left) > 0 {
		worth := make([]float64, len(left))
		for i, r := range left {
			worth[i] = relevance(r)
			if len(placed) > 0 {
				most := math.Inf(-1)
				for _, p := range placed {
					most = max(most, likeness(r, p))
				}
				worth[i] = (1-d)*relevance(r) - d*most
			}
		}
		best := slices.Index(worth, slices.Max(worth))
		placed = append(placed, left[best])
		left = slices.Delete(left, best, best+1)
	}
	return placed
}

func (c *collection) distance(name string) vectord.Distance {
	if v, ok := c.config.Params.Vectors[name]; ok {
		return v.Distance
	}
	return vectord.Dot
}

// plainSimilarity is similarity without weights for what is rare.
func (c *collection) plainSimilarity(name string, a, b *vectord.Vector) (sum float64) {
	if a.Kind != vectord.SparseVector {
		sum, _ = c.similarity(name, a, b)
		return sum
	}
	for i, index := range a.Indices {
		if j := slices.Index(b.Indices, index); j >= 0 {
			sum += float64(a.Values[i]) * float64(b.Values[j])
		}
	}
	return sum
}

// fusion scores points by what lists they are in.
func (a *question) fusion(q *vectord.Query, lists [][]ranked) func(vectord.PointID) (float64, bool, error) {
	return func(id vectord.PointID) (total float64, _ bool, _ error) {
		for i, list := range lists {
			place := placeOf(id, list)
			if place < 0 {
				continue
			}
			if q.Fusion.Method == vectord.ReciprocalRank {
				k, weight := 2.0, 1.0
				if q.Fusion.K > 0 {
					k = float64(q.Fusion.K)
				}
				if q.Fusion.Weights != nil {
					weight = float64(q.Fusion.Weights[i])
				}
				total += 1 / (float64(place+1)/weight + k - 1)
				continue
			}
			scores := make([]float64, len(list))
			var mean, variance float64
			for j, r := range list {
				scores[j] = float64(r.score)
				if a.distances(&q.Prefetch[i]) {
					scores[j] = -scores[j]
				}
				mean += scores[j] / float64(len(list))
			}
			for _, x := range scores {
				variance += (x - mean) * (x - mean) / float64(len(list)-1)
			}
			if slices.Min(scores) == slices.Max(scores) {
				total += 0.5
				continue
			}
			low, high := mean-3*math.Sqrt(variance), mean+3*math.Sqrt(variance)
			total += (scores[place] - low) / (high - low)
		}
		return total, true, nil
	}
}

// distances reports whether the scores of a query are the smaller the better.
func (a *question) distances(q *vectord.Query) bool {
	compares := q.Nearest != nil || q.Recommend != nil && q.Recommend.Strategy == vectord.AverageVector
	return compares && !a.collection.distance(q.Using).LargerIsNearer()
}

// formula evaluates an expression for points.
func (a *question) formula(f *vectord.Formula, lists [][]ranked) func(vectord.PointID) (float64, bool, error) {
	return func(id vectord.PointID) (float64, bool, error) {
		p := a.collection.points[id]
		e := evaluation{f, seen(id, p), lists}
		value, err := e.of(&f.Expression)
		if err == nil && (math.IsNaN(value) || math.Abs(value) > math.MaxFloat32) {
			err = wrong("the score is %v", value)
		}
		return value, true, err
	}
}

func wrong(format string, args ...any) error {
	return vectord.Errorf(vectord.KindInvalid, format, args...)
}

// evaluation is that of a formula for one point.
type evaluation struct {
	formula *vectord.Formula
	point   subject
	lists   [][]ranked
}

func (e *evaluation) of(x *vectord.Expression) (float64, error) {
	switch x.Kind {
	case vectord.ExprNumber:
		return x.Number, nil
	case vectord.ExprTime:
		return float64(x.Time) / 1_000_000, nil
	case vectord.ExprScore:
		if place := placeOf(e.point.id, e.lists[x.Score]); place >= 0 {
			return float64(e.lists[x.Score][place].score), nil
		}
		score, err := e.fallback(scoreNames(x.Score)...)
		if err != nil || score == nil {
			return 0, err
		}
		return asNumber(x, score)
	case vectord.ExprCondition:
		if holds(x.Condition, e.point) {
			return 1, nil
		}
		return 0, nil
	case vectord.ExprValue, vectord.ExprTimeKey, vectord.ExprGeoDistance:
		value, err := e.value(x.Key)
		if err != nil {
			return 0, err
		}
		return asNumber(x, value)
	}
	// A factor of 0, or a numerator, makes the others unimportant, even where they are errors.
	var args []float64
	for i := range x.Args {
		arg, err := e.of(&x.Args[i])
		if err != nil {
			return 0, err
		}
		if arg == 0 && (x.Kind == vectord.ExprMult || x.Kind == vectord.ExprDiv && i == 0) {
			return 0, nil
		}
		args = append(args, arg)
	}
	value := operate(x, args)
	if (math.IsNaN(value) || math.IsInf(value, 0)) && x.Kind != vectord.ExprSum && x.Kind != vectord.ExprMult {
		return 0, wrong("kind %d of %v is %v", x.Kind, args, value)
	}
	return value, nil
}

func operate(x *vectord.Expression, args []float64) (value float64) {
	switch x.Kind {
	case vectord.ExprSum:
		for _, arg := range args {
			value += arg
		}
		return value
	case vectord.ExprMult:
		value = 1
		for _, arg := range args {
			value *= arg
		}
		return value
	case vectord.ExprNeg:
		return -args[0]
	case vectord.ExprAbs:
		return math.Abs(args[0])
	case vectord.ExprDiv:
		if args[1] == 0 && x.HasNumber {
			return x.Number
		}
		return args[0] / args[1]
	case vectord.ExprSqrt:
		return math.Sqrt(args[0])
	case vectord.ExprPow:
		return math.Pow(args[0], args[1])
	case vectord.ExprExp:
		return math.Exp(args[0])
	case vectord.ExprLog10:
		return math.Log10(args[0])
	case vectord.ExprLn:
		return math.Log(args[0])
	}
	// The three decays.
	scale, midpoint, away := 1.0, 0.5, args[0]
	if x.HasNumber {
		scale = x.Number
	}
	if x.Midpoint != nil {
		midpoint = *x.Midpoint
	}
	if len(args) == 2 {
		away -= args[1]
	}
	switch away = math.Abs(away); x.Kind {
	case vectord.ExprLinDecay:
		return max(0, 1-away*(1-midpoint)/scale)
	case vectord.ExprExpDecay:
		return math.Exp(math.Log(midpoint) / scale * away)
	default:
		return math.Exp(math.Log(midpoint) / (scale * scale) * away * away)
	}
}

func scoreNames(i int) []string {
	if i == 0 {
		return []string{"$score", "$score[0]"}
	}
	return []string{fmt.Sprintf("$score[%d]", i)}
}

// fallback returns the default of one of the names, nil if there is none.
func (e *evaluation) fallback(names ...string) (value any, err error) {
	for _, name := range names {
		if raw, ok := e.formula.Defaults[name]; ok {
			object, err := decodePayload(fmt.Appendf(nil, `{"v":%s}`, raw))
			if err != nil {
				return nil, err
			}
			return object["v"], nil
		}
	}
	return nil, nil
}

// value returns the one value at a path, which is not null.
func (e *evaluation) value(path string) (any, error) {
	var values []any
	anyElement(lookUp(e.point.payload, path), func(v any) bool {
		if v != nil {
			values = append(values, v)
		}
		return false
	})
	if len(values) == 0 {
		if v, err := e.fallback(path); v != nil || err != nil {
			return v, err
		}
	}
	if len(values) != 1 {
		return nil, wrong("%d values at %q", len(values), path)
	}
	return values[0], nil
}

// asNumber makes of a payload value or a default the number that an expression computes with.
func asNumber(x *vectord.Expression, value any) (float64, error) {
	switch x.Kind {
	case vectord.ExprTimeKey:
		if t, ok := moment(value); ok {
			return float64(t.UnixMicro()) / 1_000_000, nil
		}
	case vectord.ExprGeoDistance:
		if lon, lat, ok := place(value); ok {
			return metres(lon, lat, x.Origin.Lon, x.Origin.Lat), nil
		}
	default:
		if n, ok := value.(json.Number); ok {
			return n.Float64()
		}
	}
	return 0, wrong("%v is no value for an expression of kind %d", value, x.Kind)
}

// checkFormula refuses what is wrong for any point: paths that cannot be read, defaults of another type.
func checkFormula(f *vectord.Formula) error {
	e := evaluation{formula: f}
	var check func(x *vectord.Expression) error
	check = func(x *vectord.Expression) error {
		names := []string{x.Key}
		switch x.Kind {
		case vectord.ExprValue, vectord.ExprTimeKey, vectord.ExprGeoDistance:
			if _, err := parsePath(x.Key); err != nil {
				return err
			}
		case vectord.ExprScore:
			names = scoreNames(x.Score)
		case vectord.ExprCondition:
			return checkPaths(&vectord.Filter{Must: []vectord.Condition{*x.Condition}})
		default:
			for i := range x.Args {
				if err := check(&x.Args[i]); err != nil {
					return err
				}
			}
			return nil
		}
		value, err := e.fallback(names...)
		if err != nil || value == nil {
			return err
		}
		_, err = asNumber(x, value)
		return err
	}
	return check(&f.Expression)
}
