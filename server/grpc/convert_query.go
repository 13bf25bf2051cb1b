package grpcserver

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// The numbers of hits and points of an answer where the message does not say.
const (
	defaultLimit = 10

	maxBatchQueries = 1_000 // in one batch
)

// limitOf returns a limit, or otherwise the default.
func limitOf(given *uint64, otherwise int) int {
	if given == nil {
		return otherwise
	}
	return number(*given)
}

// paramsOf reads the parameters of a search. acorn chooses a way to the same answer, so it is accepted and changes nothing.
func paramsOf(m *qdrant.SearchParams) (out vectord.SearchParams, err error) {
	if m == nil {
		return out, nil
	}
	if m.HnswEf != nil {
		if out.HNSWEf = number(m.GetHnswEf()); out.HNSWEf < 1 {
			return out, outOfRange("params.hnsw_ef", 0, fmt.Sprintf("from 1 to %d", vectord.MaxLimit))
		}
	}
	out.Exact, out.IndexedOnly = m.GetExact(), m.GetIndexedOnly()
	if q := m.GetQuantization(); q != nil {
		if o := q.Oversampling; o != nil && !(*o >= 1 && *o <= vectord.MaxOversampling) {
			return out, outOfRange("params.quantization.oversampling", *o, fmt.Sprintf("from 1 to %d", vectord.MaxOversampling))
		}
		out.Quantization = vectord.QuantizationParams{Ignore: q.GetIgnore(), ByCodes: q.Rescore != nil && !*q.Rescore,
			Oversampling: q.GetOversampling()}
	}
	return out, nil
}

// nearFields are those that all messages which ask for points by nearness have in common.
type nearFields interface {
	GetFilter() *qdrant.Filter
	GetParams() *qdrant.SearchParams
}

// near begins a query with what all have in common.
func near(m nearFields, threshold *float32) (q vectord.Query, err error) {
	q.ScoreThreshold = threshold
	if q.Filter, err = filterOf(m.GetFilter()); err != nil {
		return q, err
	}
	q.Params, err = paramsOf(m.GetParams())
	return q, err
}

// lookupOf reads where the vectors of examples are looked up.
func (c *call) lookupOf(m *qdrant.LookupLocation) (*vectord.Lookup, error) {
	if m == nil {
		return nil, nil
	}
	if err := noShardKey(m); err != nil {
		return nil, err
	}
	name, err := c.authorize(m.GetCollectionName(), access.Read)
	if err != nil {
		return nil, fmt.Errorf("lookup_from: %w", err)
	}
	return &vectord.Lookup{Collection: name, Vector: m.VectorName}, nil
}

// queryFields are those of a query, with groups or without.
type queryFields interface {
	nearFields
	GetPrefetch() []*qdrant.PrefetchQuery
	GetQuery() *qdrant.Query
	GetUsing() string
	GetLookupFrom() *qdrant.LookupLocation
}

// tree reads a query and what it prefetches. Prefetches are counted in left.
func (c *call) tree(m queryFields, threshold *float32, limit *uint64, depth int, left *int) (q vectord.Query, err error) {
	if depth > vectord.MaxPrefetchDepth {
		return q, vectord.Errorf(vectord.KindUnprocessable, "prefetch: nested deeper than %d", vectord.MaxPrefetchDepth)
	}
	if *left -= len(m.GetPrefetch()); *left < 0 {
		return q, vectord.Errorf(vectord.KindUnprocessable, "prefetch: more than %d in one query", vectord.MaxPrefetches)
	}
	if q, err = near(m, threshold); err != nil {
		return q, err
	}
	q.Limit, q.Using = limitOf(limit, defaultLimit), m.GetUsing()
	if q.Lookup, err = c.lookupOf(m.GetLookupFrom()); err != nil {
		return q, err
	}
	if err := setForm(&q, m.GetQuery()); err != nil {
		return q, err
	}
	for i, p := range m.GetPrefetch() {
		inner, err := c.tree(p, p.ScoreThreshold, p.Limit, depth+1, left)
		if err != nil {
			return q, fmt.Errorf("prefetch[%d]: %w", i, err)
		}
		q.Prefetch = append(q.Prefetch, inner)
	}
	return q, nil
}

func (c *call) queryOf(m *qdrant.QueryPoints) (q vectord.Query, err error) {
	left := vectord.MaxPrefetches
	if q, err = c.tree(m, m.ScoreThreshold, m.Limit, 0, &left); err != nil {
		return q, err
	}
	q.Offset = number(m.GetOffset())
	q.Select = selectionOf(m.GetWithPayload(), m.GetWithVectors(), false)
	return q, nil
}

// setForm reads what a query ranks by.
func setForm(q *vectord.Query, m *qdrant.Query) (err error) {
	switch form := m.GetVariant().(type) {
	case nil:
	case *qdrant.Query_Nearest:
		err = setNearest(q, form.Nearest)
	case *qdrant.Query_NearestWithMmr:
		err = setNearest(q, form.NearestWithMmr.GetNearest())
		mmr := form.NearestWithMmr.GetMmr()
		q.MMR = &vectord.MMR{Diversity: vectord.DefaultDiversity, Candidates: number(uint64(mmr.GetCandidatesLimit()))}
		if mmr != nil && mmr.Diversity != nil {
			q.MMR.Diversity = mmr.GetDiversity()
		}
	case *qdrant.Query_Recommend:
		q.Recommend = &vectord.Recommend{}
		if q.Recommend.Positive, err = examplesOf("positive", form.Recommend.GetPositive()); err != nil {
			return err
		}
		if q.Recommend.Negative, err = examplesOf("negative", form.Recommend.GetNegative()); err != nil {
			return err
		}
		q.Recommend.Strategy, err = strategyOf(form.Recommend.GetStrategy())
	case *qdrant.Query_Discover:
		q.Discover = &vectord.Discover{}
		if q.Discover.Target, err = exampleOf("target", form.Discover.GetTarget()); err != nil {
			return err
		}
		q.Discover.Context, err = pairsOf(form.Discover.GetContext())
	case *qdrant.Query_Context:
		var pairs []vectord.ContextPair
		pairs, err = pairsOf(form.Context)
		q.Context = &pairs
	case *qdrant.Query_OrderBy:
		q.OrderBy, err = orderByOf(form.OrderBy)
	case *qdrant.Query_Fusion:
		switch form.Fusion {
		case qdrant.Fusion_RRF:
			q.Fusion = &vectord.Fusion{Method: vectord.ReciprocalRank}
		case qdrant.Fusion_DBSF:
			q.Fusion = &vectord.Fusion{Method: vectord.DistributionScore}
		default:
			err = vectord.Errorf(vectord.KindInvalid, "fusion: unknown method %d", form.Fusion)
		}
	case *qdrant.Query_Rrf:
		q.Fusion = &vectord.Fusion{Method: vectord.ReciprocalRank, Weights: form.Rrf.GetWeights()}
		if form.Rrf.K != nil {
			if q.Fusion.K = number(uint64(form.Rrf.GetK())); q.Fusion.K < 1 {
				err = outOfRange("rrf.k", 0, "1 or larger")
			}
		}
	case *qdrant.Query_Sample:
		q.Sample = true
	case *qdrant.Query_Formula:
		q.Formula, err = formulaOf(form.Formula)
	default:
		err = vectord.Errorf(vectord.KindUnsupported, "query: %T is not offered by this server", form)
	}
	return err
}

func setNearest(q *vectord.Query, in *qdrant.VectorInput) error {
	example, err := exampleOf("nearest", in)
	q.Nearest = &example
	return err
}

func strategyOf(s qdrant.RecommendStrategy) (vectord.RecommendStrategy, error) {
	switch s {
	case qdrant.RecommendStrategy_AverageVector:
		return vectord.AverageVector, nil
	case qdrant.RecommendStrategy_BestScore:
		return vectord.BestScore, nil
	case qdrant.RecommendStrategy_SumScores:
		return vectord.SumScores, nil
	}
	return 0, vectord.Errorf(vectord.KindInvalid, "strategy: unknown strategy %d", s)
}

func pairsOf(m *qdrant.ContextInput) ([]vectord.ContextPair, error) {
	out := make([]vectord.ContextPair, len(m.GetPairs()))
	for i, pair := range m.GetPairs() {
		var err error
		if out[i].Positive, err = exampleOf(fmt.Sprintf("context[%d].positive", i), pair.GetPositive()); err != nil {
			return nil, err
		}
		if out[i].Negative, err = exampleOf(fmt.Sprintf("context[%d].negative", i), pair.GetNegative()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func orderByOf(m *qdrant.OrderBy) (*vectord.OrderBy, error) {
	if m == nil {
		return nil, nil
	}
	out := &vectord.OrderBy{Key: m.GetKey(), Descending: m.GetDirection() == qdrant.Direction_Desc}
	switch from := m.GetStartFrom().GetValue().(type) {
	case nil:
	case *qdrant.StartFrom_Integer:
		out.StartFrom = &vectord.OrderValue{Kind: vectord.OrderInt, Int: from.Integer}
	case *qdrant.StartFrom_Float:
		if math.IsNaN(from.Float) || math.IsInf(from.Float, 0) {
			return nil, vectord.Errorf(vectord.KindInvalid, "order_by.start_from: %v is not a finite number", from.Float)
		}
		out.StartFrom = &vectord.OrderValue{Kind: vectord.OrderFloat, Float: from.Float}
	case *qdrant.StartFrom_Timestamp:
		t, err := timeBound(from.Timestamp)
		if err != nil {
			return nil, err
		}
		out.StartFrom = &vectord.OrderValue{Kind: vectord.OrderTime, Int: int64(t)}
	case *qdrant.StartFrom_Datetime:
		t, err := datetimeOf("order_by.start_from", from.Datetime)
		if err != nil {
			return nil, err
		}
		out.StartFrom = &vectord.OrderValue{Kind: vectord.OrderTime, Int: int64(t)}
	}
	return out, nil
}

func datetimeOf(field, text string) (vectord.Datetime, error) {
	t, ok := vectord.ParseDatetime(text)
	if !ok {
		return 0, vectord.Errorf(vectord.KindInvalid, "%s: %.60q is no date and time, expected one as 2026-08-04T12:30:59Z", field, text)
	}
	return t, nil
}

func formulaOf(m *qdrant.Formula) (*vectord.Formula, error) {
	out := &vectord.Formula{}
	left := vectord.MaxExpressions
	var err error
	if out.Expression, err = expressionOf(m.GetExpression(), &left); err != nil {
		return nil, err
	}
	for key, value := range m.GetDefaults() {
		if out.Defaults == nil {
			out.Defaults = map[string]json.RawMessage{}
		}
		if out.Defaults[key], err = appendValue(nil, value, 0); err != nil {
			return nil, fmt.Errorf("formula.defaults.%.60s: %w", key, err)
		}
	}
	return out, nil
}

// expressionOf reads a node of a formula. Nodes are counted in left.
func expressionOf(m *qdrant.Expression, left *int) (e vectord.Expression, err error) {
	if *left--; *left < 0 {
		return e, vectord.Errorf(vectord.KindUnprocessable, "formula: more than %d expressions", vectord.MaxExpressions)
	}
	args := func(kind vectord.ExpressionKind, operands ...*qdrant.Expression) {
		e.Kind, e.Args = kind, make([]vectord.Expression, len(operands))
		for i := range operands {
			if err == nil {
				e.Args[i], err = expressionOf(operands[i], left)
			}
		}
	}
	decay := func(kind vectord.ExpressionKind, p *qdrant.DecayParamsExpression) {
		if p.GetTarget() != nil {
			args(kind, p.GetX(), p.GetTarget())
		} else {
			args(kind, p.GetX())
		}
		if p != nil && p.Scale != nil {
			e.Number, e.HasNumber = float64(p.GetScale()), true
		}
		if p != nil && p.Midpoint != nil {
			midpoint := float64(p.GetMidpoint())
			e.Midpoint = &midpoint
		}
	}
	switch node := m.GetVariant().(type) {
	case *qdrant.Expression_Constant:
		e.Number = float64(node.Constant)
	case *qdrant.Expression_Variable:
		err = setVariable(&e, node.Variable)
	case *qdrant.Expression_Condition:
		var condition vectord.Condition
		condition, err = conditionOf(node.Condition)
		if err == nil {
			err = (&vectord.Filter{Must: []vectord.Condition{condition}}).Check()
		}
		e.Kind, e.Condition = vectord.ExprCondition, &condition
	case *qdrant.Expression_GeoDistance:
		e.Kind, e.Origin, e.Key = vectord.ExprGeoDistance, geoPointOf(node.GeoDistance.GetOrigin()), node.GeoDistance.GetTo()
	case *qdrant.Expression_Datetime:
		var t vectord.Datetime
		t, err = datetimeOf("formula.datetime", node.Datetime)
		e.Kind, e.Time = vectord.ExprTime, int64(t)
	case *qdrant.Expression_DatetimeKey:
		e.Kind, e.Key = vectord.ExprTimeKey, node.DatetimeKey
	case *qdrant.Expression_Mult:
		args(vectord.ExprMult, node.Mult.GetMult()...)
	case *qdrant.Expression_Sum:
		args(vectord.ExprSum, node.Sum.GetSum()...)
	case *qdrant.Expression_Div:
		args(vectord.ExprDiv, node.Div.GetLeft(), node.Div.GetRight())
		if node.Div != nil && node.Div.ByZeroDefault != nil {
			e.Number, e.HasNumber = float64(node.Div.GetByZeroDefault()), true
		}
	case *qdrant.Expression_Neg:
		args(vectord.ExprNeg, node.Neg)
	case *qdrant.Expression_Abs:
		args(vectord.ExprAbs, node.Abs)
	case *qdrant.Expression_Sqrt:
		args(vectord.ExprSqrt, node.Sqrt)
	case *qdrant.Expression_Pow:
		args(vectord.ExprPow, node.Pow.GetBase(), node.Pow.GetExponent())
	case *qdrant.Expression_Exp:
		args(vectord.ExprExp, node.Exp)
	case *qdrant.Expression_Log10:
		args(vectord.ExprLog10, node.Log10)
	case *qdrant.Expression_Ln:
		args(vectord.ExprLn, node.Ln)
	case *qdrant.Expression_LinDecay:
		decay(vectord.ExprLinDecay, node.LinDecay)
	case *qdrant.Expression_ExpDecay:
		decay(vectord.ExprExpDecay, node.ExpDecay)
	case *qdrant.Expression_GaussDecay:
		decay(vectord.ExprGaussDecay, node.GaussDecay)
	default:
		err = vectord.Errorf(vectord.KindInvalid, "formula: an expression is empty, or of a kind that this server does not know")
	}
	return e, err
}

// setVariable reads a variable of a formula: $score, $score[i] or a payload path.
func setVariable(e *vectord.Expression, name string) error {
	const score = "$score"
	rest, isScore := strings.CutPrefix(name, score)
	switch {
	case !isScore && name != "":
		e.Kind, e.Key = vectord.ExprValue, name
		return nil
	case isScore && rest == "":
		e.Kind = vectord.ExprScore
		return nil
	case strings.HasPrefix(rest, "[") && strings.HasSuffix(rest, "]"):
		if i, err := strconv.ParseUint(rest[1:len(rest)-1], 10, 16); err == nil {
			e.Kind, e.Score = vectord.ExprScore, int(i)
			return nil
		}
	}
	return vectord.Errorf(vectord.KindInvalid, "formula: %.60q is no variable, expected $score, $score[i] or a payload path", name)
}

// groupFields are those of every message that asks for groups.
type groupFields interface {
	GetGroupBy() string
	GetWithPayload() *qdrant.WithPayloadSelector
	GetWithVectors() *qdrant.WithVectorsSelector
	GetWithLookup() *qdrant.WithLookup
}

// groupsOf makes groups of a query. size is 0 if the message does not say.
func (c *call) groupsOf(q vectord.Query, m groupFields, size int) (*vectord.Groups, error) {
	q.Select = selectionOf(m.GetWithPayload(), m.GetWithVectors(), false)
	if size == 0 {
		size = vectord.DefaultGroupSize
	}
	out := &vectord.Groups{Query: q, By: m.GetGroupBy(), Size: size}
	if lookup := m.GetWithLookup(); lookup != nil {
		name, err := c.authorize(lookup.GetCollection(), access.Read)
		if err != nil {
			return nil, fmt.Errorf("with_lookup: %w", err)
		}
		out.WithPoint = &vectord.GroupLookup{Collection: name, Select: selectionOf(lookup.GetWithPayload(), lookup.GetWithVectors(), true)}
	}
	return out, nil
}
