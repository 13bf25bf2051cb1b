package client

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/vectord/vectord"
)

// AppendQuery appends q in the JSON form of the API, as Query sends it. q.Explain is not sent.
func AppendQuery(dst []byte, q vectord.Query) ([]byte, error) {
	w, err := queryOf(&q)
	if err == nil {
		err = w.selectFrom(q.Select)
	}
	if err != nil {
		return dst, fmt.Errorf("query: %w", err)
	}
	return appendAny(dst, w)
}

func appendAny(dst []byte, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	return append(dst, b...), err
}

// queryJSON is a query, or a prefetch, on the wire.
type queryJSON struct {
	Limit          int             `json:"limit"`
	Offset         int             `json:"offset,omitempty"`
	Query          any             `json:"query,omitempty"`
	Prefetch       []*queryJSON    `json:"prefetch,omitempty"`
	Using          string          `json:"using,omitempty"`
	LookupFrom     *lookupJSON     `json:"lookup_from,omitempty"`
	Filter         *vectord.Filter `json:"filter,omitempty"`
	Params         *paramsJSON     `json:"params,omitempty"`
	ScoreThreshold *float32        `json:"score_threshold,omitempty"`
	WithVector     any             `json:"with_vector,omitempty"`
	WithPayload    any             `json:"with_payload,omitempty"`
}

type lookupJSON struct {
	Collection string  `json:"collection"`
	Vector     *string `json:"vector,omitempty"`
}

type paramsJSON struct {
	HNSWEf       int               `json:"hnsw_ef,omitempty"`
	Exact        bool              `json:"exact,omitempty"`
	IndexedOnly  bool              `json:"indexed_only,omitempty"`
	Quantization *quantizationJSON `json:"quantization,omitempty"`
}

type quantizationJSON struct {
	Ignore       bool    `json:"ignore,omitempty"`
	Rescore      *bool   `json:"rescore,omitempty"`
	Oversampling float64 `json:"oversampling,omitempty"`
}

func queryOf(q *vectord.Query) (*queryJSON, error) {
	w := &queryJSON{Limit: q.Limit, Offset: q.Offset, Using: q.Using, Params: paramsOf(q.Params), ScoreThreshold: q.ScoreThreshold}
	if !q.Filter.Empty() {
		w.Filter = q.Filter
	}
	if q.Lookup != nil {
		w.LookupFrom = &lookupJSON{q.Lookup.Collection, q.Lookup.Vector}
	}
	for i := range q.Prefetch {
		p, err := queryOf(&q.Prefetch[i])
		if err != nil {
			return nil, fmt.Errorf("prefetch[%d]: %w", i, err)
		}
		w.Prefetch = append(w.Prefetch, p)
	}
	var err error
	w.Query, err = formOf(q)
	return w, err
}

func paramsOf(p vectord.SearchParams) *paramsJSON {
	if p == (vectord.SearchParams{}) {
		return nil
	}
	w := &paramsJSON{HNSWEf: p.HNSWEf, Exact: p.Exact, IndexedOnly: p.IndexedOnly}
	if q := p.Quantization; q != (vectord.QuantizationParams{}) {
		w.Quantization = &quantizationJSON{Ignore: q.Ignore, Oversampling: q.Oversampling}
		if q.ByCodes {
			w.Quantization.Rescore = new(bool)
		}
	}
	return w
}

// selectFrom says what the answer carries.
func (w *queryJSON) selectFrom(s vectord.Selection) error {
	w.WithVector, w.WithPayload = s.Vectors, s.Payload
	if s.Vectors && len(s.VectorNames) > 0 {
		w.WithVector = s.VectorNames
	}
	switch {
	case len(s.Include) > 0 && len(s.Exclude) > 0:
		return errBothPaths
	case s.Payload && len(s.Include) > 0:
		w.WithPayload = map[string][]string{"include": s.Include}
	case s.Payload && len(s.Exclude) > 0:
		w.WithPayload = map[string][]string{"exclude": s.Exclude}
	}
	return nil
}

type object map[string]any

// formOf returns what a query ranks by, nil for nothing.
func formOf(q *vectord.Query) (form any, err error) {
	forms := 0
	set := func(f any, formErr error) {
		forms++
		form, err = f, formErr
	}
	if q.Nearest != nil {
		set(nearestOf(q))
	}
	if q.Recommend != nil {
		set(recommendOf(q.Recommend))
	}
	if q.Discover != nil {
		set(discoverOf(q.Discover))
	}
	if q.Context != nil {
		pairs, err := pairsOf(*q.Context)
		set(object{"context": pairs}, err)
	}
	if q.OrderBy != nil {
		set(object{"order_by": orderOf(q.OrderBy)}, nil)
	}
	if q.Fusion != nil {
		set(fusionOf(q.Fusion))
	}
	if q.Formula != nil {
		set(formulaOf(q.Formula))
	}
	if q.Sample {
		set(object{"sample": "random"}, nil)
	}
	if forms > 1 {
		return nil, fmt.Errorf("%d ways to rank points are given, expected one", forms)
	}
	return form, err
}

func nearestOf(q *vectord.Query) (any, error) {
	nearest, err := exampleOf(q.Nearest)
	if err != nil || q.MMR == nil {
		return nearest, err
	}
	mmr := object{"diversity": q.MMR.Diversity}
	if q.MMR.Candidates > 0 {
		mmr["candidates_limit"] = q.MMR.Candidates
	}
	return object{"nearest": nearest, "mmr": mmr}, nil
}

func exampleOf(e *vectord.Example) (any, error) {
	if e.ID != nil {
		return e.ID, nil
	}
	if err := checkVector(e.Vector.Values); err != nil {
		return nil, err
	}
	return json.RawMessage(appendAnyVector(nil, &e.Vector)), nil
}

func examplesOf(examples []vectord.Example) ([]any, error) {
	out := make([]any, len(examples))
	for i := range examples {
		var err error
		if out[i], err = exampleOf(&examples[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var strategies = map[vectord.RecommendStrategy]string{
	vectord.AverageVector: "average_vector", vectord.BestScore: "best_score", vectord.SumScores: "sum_scores"}

func recommendOf(r *vectord.Recommend) (any, error) {
	positive, err := examplesOf(r.Positive)
	if err != nil {
		return nil, err
	}
	negative, err := examplesOf(r.Negative)
	return object{"recommend": object{"positive": positive, "negative": negative, "strategy": strategies[r.Strategy]}}, err
}

func pairsOf(pairs []vectord.ContextPair) ([]object, error) {
	out := make([]object, len(pairs))
	for i := range pairs {
		positive, err := exampleOf(&pairs[i].Positive)
		if err != nil {
			return nil, err
		}
		negative, err := exampleOf(&pairs[i].Negative)
		if err != nil {
			return nil, err
		}
		out[i] = object{"positive": positive, "negative": negative}
	}
	return out, nil
}

func discoverOf(d *vectord.Discover) (any, error) {
	target, err := exampleOf(&d.Target)
	if err != nil {
		return nil, err
	}
	context, err := pairsOf(d.Context)
	return object{"discover": object{"target": target, "context": context}}, err
}

func orderOf(o *vectord.OrderBy) object {
	out := object{"key": o.Key, "direction": "asc"}
	if o.Descending {
		out["direction"] = "desc"
	}
	if from := o.StartFrom; from != nil {
		switch from.Kind {
		case vectord.OrderInt:
			out["start_from"] = from.Int
		case vectord.OrderFloat:
			out["start_from"] = from.Float
		case vectord.OrderTime:
			out["start_from"] = timeText(from.Int)
		}
	}
	return out
}

func timeText(micros int64) string { return time.UnixMicro(micros).UTC().Format(time.RFC3339Nano) }

func fusionOf(f *vectord.Fusion) (any, error) {
	switch {
	case f.Method == vectord.DistributionScore:
		return object{"fusion": "dbsf"}, nil
	case f.K == 0 && f.Weights == nil:
		return object{"fusion": "rrf"}, nil
	}
	rrf := object{}
	if f.K > 0 {
		rrf["k"] = f.K
	}
	if f.Weights != nil {
		rrf["weights"] = f.Weights
	}
	return object{"rrf": rrf}, nil
}

func formulaOf(f *vectord.Formula) (any, error) {
	expression, err := expressionOf(&f.Expression)
	out := object{"formula": expression}
	if len(f.Defaults) > 0 {
		out["defaults"] = f.Defaults
	}
	return out, err
}

// operators are the expressions of one operand, and those of any number of them.
var operators = map[vectord.ExpressionKind]string{vectord.ExprSum: "sum", vectord.ExprMult: "mult", vectord.ExprNeg: "neg",
	vectord.ExprAbs: "abs", vectord.ExprSqrt: "sqrt", vectord.ExprExp: "exp", vectord.ExprLog10: "log10", vectord.ExprLn: "ln"}

var decays = map[vectord.ExpressionKind]string{vectord.ExprLinDecay: "lin_decay", vectord.ExprExpDecay: "exp_decay",
	vectord.ExprGaussDecay: "gauss_decay"}

func expressionOf(e *vectord.Expression) (any, error) {
	args := make([]any, len(e.Args))
	for i := range e.Args {
		var err error
		if args[i], err = expressionOf(&e.Args[i]); err != nil {
			return nil, err
		}
	}
	wants := func(least, most int) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("formula: %d operands of an expression of kind %d, expected %d to %d", len(args), e.Kind, least, most)
		}
		return nil
	}
	switch e.Kind {
	case vectord.ExprNumber:
		return e.Number, nil
	case vectord.ExprScore:
		return fmt.Sprintf("$score[%d]", e.Score), nil
	case vectord.ExprValue:
		return e.Key, nil
	case vectord.ExprCondition:
		return e.Condition, nil
	case vectord.ExprGeoDistance:
		return object{"geo_distance": object{"origin": e.Origin, "to": e.Key}}, nil
	case vectord.ExprTime:
		return object{"datetime": timeText(e.Time)}, nil
	case vectord.ExprTimeKey:
		return object{"datetime_key": e.Key}, nil
	case vectord.ExprSum, vectord.ExprMult:
		return object{operators[e.Kind]: args}, nil
	case vectord.ExprNeg, vectord.ExprAbs, vectord.ExprSqrt, vectord.ExprExp, vectord.ExprLog10, vectord.ExprLn:
		if err := wants(1, 1); err != nil {
			return nil, err
		}
		return object{operators[e.Kind]: args[0]}, nil
	case vectord.ExprPow:
		if err := wants(2, 2); err != nil {
			return nil, err
		}
		return object{"pow": object{"base": args[0], "exponent": args[1]}}, nil
	case vectord.ExprDiv:
		if err := wants(2, 2); err != nil {
			return nil, err
		}
		div := object{"left": args[0], "right": args[1]}
		if e.HasNumber {
			div["by_zero_default"] = e.Number
		}
		return object{"div": div}, nil
	}
	if decays[e.Kind] == "" {
		return nil, fmt.Errorf("formula: expression of unknown kind %d", e.Kind)
	}
	if err := wants(1, 2); err != nil {
		return nil, err
	}
	decay := object{"x": args[0]}
	if len(args) == 2 {
		decay["target"] = args[1]
	}
	if e.HasNumber {
		decay["scale"] = e.Number
	}
	if e.Midpoint != nil {
		decay["midpoint"] = *e.Midpoint
	}
	return object{decays[e.Kind]: decay}, nil
}

// checkVector refuses what JSON cannot carry.
func checkVector(v []float32) error {
	for i, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return fmt.Errorf("component %d of the vector is %v", i, x)
		}
	}
	return nil
}
