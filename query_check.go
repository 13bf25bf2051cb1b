package vectord

import (
	"fmt"
	"math"
)

// Check returns an error unless the query can be answered by some collection: it has one form, what that form needs, and no
// more of anything than the limits say. Errors begin with the place in the query, in terms of the HTTP API.
func (q *Query) Check() error {
	prefetches := 0
	return q.check("", 0, &prefetches)
}

func (q *Query) check(at string, depth int, prefetches *int) error {
	if depth > MaxPrefetchDepth {
		return Errorf(KindUnprocessable, "%sprefetch: nested %d deep, at most %d are accepted", at, depth, MaxPrefetchDepth)
	}
	if *prefetches += len(q.Prefetch); *prefetches > MaxPrefetches {
		return Errorf(KindUnprocessable, "%sprefetch: more than %d prefetches", at, MaxPrefetches)
	}
	if err := q.checkNumbers(at); err != nil {
		return err
	}
	if err := q.checkForm(at); err != nil {
		return err
	}
	for i := range q.Prefetch {
		if err := q.Prefetch[i].check(fmt.Sprintf("%sprefetch[%d].", at, i), depth+1, prefetches); err != nil {
			return err
		}
	}
	return nil
}

func (q *Query) checkNumbers(at string) error {
	if q.Limit < 1 || q.Limit > MaxLimit {
		return Errorf(KindUnprocessable, "%slimit: value %d invalid, must be from 1 to %d", at, q.Limit, MaxLimit)
	}
	if q.Offset < 0 || q.Offset > MaxLimit {
		return Errorf(KindUnprocessable, "%soffset: value %d invalid, must be from 0 to %d", at, q.Offset, MaxLimit)
	}
	if q.Params.HNSWEf < 0 || q.Params.HNSWEf > MaxLimit {
		return Errorf(KindUnprocessable, "%sparams.hnsw_ef: value %d invalid, must be from 1 to %d", at, q.Params.HNSWEf, MaxLimit)
	}
	if o := q.Params.Quantization.Oversampling; o != 0 && !(o >= 1 && o <= MaxOversampling) {
		return Errorf(KindUnprocessable, "%sparams.quantization.oversampling: value %v invalid, must be from 1 to %d", at, o, MaxOversampling)
	}
	return nil
}

// checkForm checks what the query ranks by.
func (q *Query) checkForm(at string) error {
	forms := 0
	for _, given := range []bool{q.Nearest != nil, q.Recommend != nil, q.Discover != nil, q.Context != nil, q.OrderBy != nil,
		q.Fusion != nil, q.Formula != nil, q.Sample} {
		if given {
			forms++
		}
	}
	switch {
	case forms > 1:
		return Errorf(KindInvalid, "%squery: more than one form is given", at)
	case forms == 0 && len(q.Prefetch) > 0:
		return Errorf(KindInvalid, "%squery: needed to rank what was prefetched", at)
	case q.ScoreThreshold != nil && (forms == 0 || q.Sample || q.OrderBy != nil):
		return Errorf(KindInvalid, "%sscore_threshold: there is no query to score by", at)
	case q.MMR != nil && q.Nearest == nil:
		return Errorf(KindInvalid, "%squery.mmr: given without nearest", at)
	case q.MMR != nil && !(q.MMR.Diversity >= 0 && q.MMR.Diversity <= 1):
		return Errorf(KindUnprocessable, "%squery.mmr.diversity: value %v invalid, must be from 0 to 1", at, q.MMR.Diversity)
	case q.MMR != nil && (q.MMR.Candidates < 0 || q.MMR.Candidates > MaxMMRCandidates):
		return Errorf(KindUnprocessable, "%squery.mmr.candidates_limit: value %d invalid, must be from 0 to %d", at, q.MMR.Candidates, MaxMMRCandidates)
	case q.Recommend != nil:
		return q.Recommend.check(at)
	case q.Discover != nil && len(q.Discover.Context) > MaxExamples:
		return tooMany(at+"query.discover.context", len(q.Discover.Context), MaxExamples)
	case q.Context != nil && len(*q.Context) > MaxExamples:
		return tooMany(at+"query.context", len(*q.Context), MaxExamples)
	case q.Context != nil && len(*q.Context) == 0:
		return Errorf(KindInvalid, "%squery.context: at least one pair is required", at)
	case q.Fusion != nil:
		return q.checkFusion(at)
	case q.Formula != nil && len(q.Prefetch) == 0:
		return Errorf(KindInvalid, "%squery.formula: needs prefetch", at)
	case q.Formula != nil:
		nodes := 0
		return q.Formula.Expression.check(at, len(q.Prefetch), &nodes)
	}
	return nil
}

func tooMany(what string, n, most int) error {
	return Errorf(KindUnprocessable, "%s: %d elements, at most %d are accepted", what, n, most)
}

func (r *Recommend) check(at string) error {
	switch n := len(r.Positive) + len(r.Negative); {
	case n > MaxExamples:
		return tooMany(at+"query.recommend", n, MaxExamples)
	case r.Strategy > SumScores:
		return Errorf(KindInvalid, "%squery.recommend.strategy: unknown strategy %d", at, r.Strategy)
	case r.Strategy == AverageVector && len(r.Positive) == 0:
		return Errorf(KindInvalid, "%squery.recommend.positive: At least one positive vector ID required with this strategy", at)
	case n == 0:
		return Errorf(KindInvalid, "%squery.recommend: At least one positive or negative vector ID required with this strategy", at)
	}
	return nil
}

func (q *Query) checkFusion(at string) error {
	f := q.Fusion
	switch {
	case len(q.Prefetch) == 0:
		return Errorf(KindInvalid, "%squery.fusion: needs prefetch", at)
	case q.Using != "":
		return Errorf(KindInvalid, "%susing: %q cannot be given with a fusion", at, q.Using)
	case f.Method > DistributionScore:
		return Errorf(KindInvalid, "%squery.fusion: unknown method %d", at, f.Method)
	case f.K < 0 || f.K > MaxRankConstant:
		return Errorf(KindUnprocessable, "%squery.rrf.k: value %d invalid, must be from 1 to %d", at, f.K, MaxRankConstant)
	case f.Weights != nil && len(f.Weights) != len(q.Prefetch):
		return Errorf(KindInvalid, "%squery.rrf.weights: %d weights for %d prefetches", at, len(f.Weights), len(q.Prefetch))
	}
	for i, w := range f.Weights {
		if !(w >= 0 && w <= math.MaxFloat32) {
			return Errorf(KindUnprocessable, "%squery.rrf.weights[%d]: value %v invalid, must be a finite number from 0", at, i, w)
		}
	}
	return nil
}

// expressionArgs is how many operands the nodes take.
var expressionArgs = map[ExpressionKind]struct{ least, most int }{
	ExprSum: {0, MaxExpressions}, ExprMult: {0, MaxExpressions}, ExprNeg: {1, 1}, ExprAbs: {1, 1}, ExprDiv: {2, 2}, ExprSqrt: {1, 1},
	ExprPow: {2, 2}, ExprExp: {1, 1}, ExprLog10: {1, 1}, ExprLn: {1, 1}, ExprLinDecay: {1, 2}, ExprExpDecay: {1, 2}, ExprGaussDecay: {1, 2},
}

func (e *Expression) check(at string, prefetches int, nodes *int) error {
	if *nodes++; *nodes > MaxExpressions {
		return Errorf(KindUnprocessable, "%squery.formula: more than %d expressions", at, MaxExpressions)
	}
	args := expressionArgs[e.Kind]
	if e.Kind > ExprGaussDecay || len(e.Args) < args.least || len(e.Args) > args.most {
		return Errorf(KindInvalid, "%squery.formula: an expression of kind %d with %d operands", at, e.Kind, len(e.Args))
	}
	finite := func(x float64) bool { return x-x == 0 }
	switch e.Kind {
	case ExprNumber, ExprDiv:
		if !finite(e.Number) {
			return Errorf(KindInvalid, "%squery.formula: %v is not a finite number", at, e.Number)
		}
	case ExprScore:
		if e.Score < 0 || e.Score >= prefetches {
			return Errorf(KindInvalid, "%squery.formula: there is no $score[%d], but %d prefetches", at, e.Score, prefetches)
		}
	case ExprCondition:
		if e.Condition == nil {
			return Errorf(KindInvalid, "%squery.formula: a condition is missing", at)
		}
	case ExprGeoDistance:
		if !e.Origin.Valid() {
			return Errorf(KindInvalid, "%squery.formula.geo_distance: %v is no place on earth", at, e.Origin)
		}
	case ExprLinDecay, ExprExpDecay, ExprGaussDecay:
		if e.HasNumber && !(e.Number > 0 && finite(e.Number)) {
			return Errorf(KindInvalid, "%squery.formula: a decay of scale %v, must be above 0", at, e.Number)
		}
		if m := e.Midpoint; m != nil && (!(*m >= 0 && *m <= 1) || (*m == 0 || *m == 1) && e.Kind != ExprLinDecay) {
			return Errorf(KindInvalid, "%squery.formula: a decay of midpoint %v, must be between 0 and 1", at, *m)
		}
	}
	for i := range e.Args {
		if err := e.Args[i].check(at, prefetches, nodes); err != nil {
			return err
		}
	}
	return nil
}
