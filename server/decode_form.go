package server

import (
	"encoding/json"
	"strconv"
	"strings"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// The decoders of this file read what a query ranks by. The form is decided by the shape of the JSON.

// exampleJSON is a vector, or the id of a point that has it.
type exampleJSON struct{ vectord.Example }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (e *exampleJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	return e.parse(raw)
}

func (e *exampleJSON) parse(raw jsontext.Value) error {
	e.Example = vectord.Example{}
	switch raw.Kind() {
	case 'n':
		return vectord.Errorf(vectord.KindInvalid, "expected a vector or the id of a point, got null")
	case '0', '"':
		e.ID = new(vectord.PointID)
		return e.ID.UnmarshalJSON(raw)
	}
	var v vectorJSON
	err := v.parse(raw)
	e.Vector = v.Vector
	return err
}

func examplesOf(list []exampleJSON) []vectord.Example {
	var examples []vectord.Example
	for i := range list {
		examples = append(examples, list[i].Example)
	}
	return examples
}

// formJSON is what a query ranks by: an example to be near to, bare or under "nearest", or an object with one of the other
// forms.
type formJSON struct{ vectord.Query }

// formFields are the fields of an object that is a form.
type formFields struct {
	Nearest   jsontext.Value            `json:"nearest"`
	MMR       *mmrJSON                  `json:"mmr"`
	Recommend *recommendJSON            `json:"recommend"`
	Discover  *discoverJSON             `json:"discover"`
	Context   pairsJSON                 `json:"context"`
	Fusion    *string                   `json:"fusion"`
	RRF       *rrfJSON                  `json:"rrf"`
	Formula   *formulaJSON              `json:"formula"`
	Defaults  map[string]jsontext.Value `json:"defaults"`
	Sample    *string                   `json:"sample"`
}

// formNames are the fields that make an object a form, and not a vector.
var formNames = []string{"nearest", "recommend", "discover", "context", "order_by", "fusion", "rrf", "formula", "sample", "relevance_feedback"}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *formJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*f = formJSON{}
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	switch {
	case raw.Kind() == 'n':
		return nil
	case raw.Kind() != '{':
		return f.parseNearest(raw)
	}
	var object map[string]jsontext.Value
	if err := decodeInner(raw, &object); err != nil {
		return err
	}
	var given []string
	for _, name := range formNames {
		if _, ok := object[name]; ok {
			given = append(given, name)
		}
	}
	switch len(given) {
	case 0:
		return f.parseNearest(raw)
	case 1:
	default:
		return vectord.Errorf(vectord.KindInvalid, "expected one form, got %s", strings.Join(given, ", "))
	}
	if name := given[0]; name == "order_by" || name == "relevance_feedback" {
		return vectord.Errorf(vectord.KindUnsupported, "%s is not offered by this server", name)
	}
	if object[given[0]].Kind() == 'n' {
		return vectord.Errorf(vectord.KindInvalid, "%s: missing", given[0])
	}
	var fields formFields
	if err := decodeInner(raw, &fields); err != nil {
		return err
	}
	return f.fill(&fields)
}

func (f *formJSON) parseNearest(raw jsontext.Value) error {
	var e exampleJSON
	err := e.parse(raw)
	f.Nearest = &e.Example
	return err
}

func (f *formJSON) fill(fields *formFields) (err error) {
	switch {
	case fields.Nearest != nil:
		if err := f.parseNearest(fields.Nearest); err != nil {
			return vectord.Errorf(vectord.KindOf(err), "nearest: %v", err)
		}
		f.MMR, err = fields.MMR.mmr()
	case fields.Recommend != nil:
		f.Recommend, err = fields.Recommend.recommend()
	case fields.Discover != nil:
		f.Discover, err = fields.Discover.discover()
	case fields.Context != nil:
		pairs, err := fields.Context.pairs("context")
		f.Context = &pairs
		return err
	case fields.Fusion != nil:
		f.Fusion, err = fusionOf(*fields.Fusion)
	case fields.RRF != nil:
		f.Fusion, err = fields.RRF.fusion()
	case fields.Formula != nil:
		f.Formula = &vectord.Formula{Expression: fields.Formula.Expression}
		for key, value := range fields.Defaults {
			if f.Formula.Defaults == nil {
				f.Formula.Defaults = map[string]json.RawMessage{}
			}
			f.Formula.Defaults[key] = json.RawMessage(value)
		}
	case fields.Sample != nil:
		if *fields.Sample != "random" {
			return vectord.Errorf(vectord.KindInvalid, "sample: expected random, got %s", excerpt([]byte(*fields.Sample)))
		}
		f.Sample = true
	}
	return err
}

// mmrJSON asks for points that are unlike one another.
type mmrJSON struct {
	Diversity  *float32 `json:"diversity"`
	Candidates *uint64  `json:"candidates_limit"`
}

func (m *mmrJSON) mmr() (*vectord.MMR, error) {
	if m == nil {
		return nil, nil
	}
	out := &vectord.MMR{Diversity: vectord.DefaultDiversity}
	if m.Diversity != nil {
		out.Diversity = *m.Diversity
	}
	if c := m.Candidates; c != nil {
		if *c > vectord.MaxMMRCandidates {
			return nil, outOfRange("mmr.candidates_limit", *c, strconv.Itoa(vectord.MaxMMRCandidates)+" or less")
		}
		out.Candidates = int(*c)
	}
	return out, nil
}

// recommendJSON has examples to be like and to be unlike.
type recommendJSON struct {
	Positive list[exampleJSON] `json:"positive"`
	Negative list[exampleJSON] `json:"negative"`
	Strategy *string           `json:"strategy"`
}

func (r *recommendJSON) recommend() (*vectord.Recommend, error) {
	strategy, err := strategyOf(r.Strategy, "recommend.strategy")
	return &vectord.Recommend{Positive: examplesOf(r.Positive), Negative: examplesOf(r.Negative), Strategy: strategy}, err
}

func strategyOf(name *string, field string) (vectord.RecommendStrategy, error) {
	if name == nil {
		return vectord.AverageVector, nil
	}
	switch *name {
	case "average_vector":
		return vectord.AverageVector, nil
	case "best_score":
		return vectord.BestScore, nil
	case "sum_scores":
		return vectord.SumScores, nil
	}
	return 0, vectord.Errorf(vectord.KindInvalid, "%s: expected average_vector, best_score or sum_scores, got %s", field, excerpt([]byte(*name)))
}

// pairsJSON is a list of pairs of a positive and a negative example, or one such pair.
type pairsJSON []pairJSON

type pairJSON struct {
	Positive *exampleJSON `json:"positive"`
	Negative *exampleJSON `json:"negative"`
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *pairsJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return oneOrMore(d, (*[]pairJSON)(p))
}

func (p pairsJSON) pairs(field string) ([]vectord.ContextPair, error) {
	pairs := make([]vectord.ContextPair, len(p))
	for i := range p {
		if p[i].Positive == nil {
			return nil, missing(field + "[" + strconv.Itoa(i) + "].positive")
		}
		if p[i].Negative == nil {
			return nil, missing(field + "[" + strconv.Itoa(i) + "].negative")
		}
		pairs[i] = vectord.ContextPair{Positive: p[i].Positive.Example, Negative: p[i].Negative.Example}
	}
	return pairs, nil
}

// oneOrMore reads a list, or an object that stands for a list of itself.
func oneOrMore[T any](d *jsontext.Decoder, out *[]T) error {
	if d.PeekKind() == '{' {
		*out = make([]T, 1)
		return jsonv2.UnmarshalDecode(d, &(*out)[0])
	}
	return jsonv2.UnmarshalDecode(d, (*list[T])(out))
}

// discoverJSON has a target, within pairs.
type discoverJSON struct {
	Target  *exampleJSON `json:"target"`
	Context pairsJSON    `json:"context"`
}

func (j *discoverJSON) discover() (*vectord.Discover, error) {
	if j.Target == nil {
		return nil, missing("discover.target")
	}
	pairs, err := j.Context.pairs("discover.context")
	return &vectord.Discover{Target: j.Target.Example, Context: pairs}, err
}

func fusionOf(name string) (*vectord.Fusion, error) {
	switch name {
	case "rrf":
		return &vectord.Fusion{Method: vectord.ReciprocalRank}, nil
	case "dbsf":
		return &vectord.Fusion{Method: vectord.DistributionScore}, nil
	}
	return nil, vectord.Errorf(vectord.KindInvalid, "fusion: expected rrf or dbsf, got %s", excerpt([]byte(name)))
}

// rrfJSON is a reciprocal rank fusion with its parameters.
type rrfJSON struct {
	K       *uint64       `json:"k"`
	Weights list[float32] `json:"weights"`
}

func (r *rrfJSON) fusion() (*vectord.Fusion, error) {
	out := &vectord.Fusion{Method: vectord.ReciprocalRank, Weights: r.Weights}
	if r.K != nil {
		if *r.K < 1 || *r.K > vectord.MaxRankConstant {
			return nil, outOfRange("rrf.k", *r.K, "from 1 to "+strconv.Itoa(vectord.MaxRankConstant))
		}
		out.K = int(*r.K)
	}
	return out, nil
}

// lookupJSON says where the vectors of examples are.
type lookupJSON struct {
	Collection *string    `json:"collection"`
	Vector     *string    `json:"vector"`
	ShardKey   notOffered `json:"shard_key"`
}

// lookup returns what was given, nil for nothing.
func (l *lookupJSON) lookup() *vectord.Lookup {
	if l == nil {
		return nil
	}
	return &vectord.Lookup{Collection: *l.Collection, Vector: l.Vector}
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (l *lookupJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	type plain lookupJSON
	if err := jsonv2.UnmarshalDecode(d, (*plain)(l)); err != nil {
		return err
	}
	if l.Collection == nil {
		return missing("collection")
	}
	return nil
}

// prefetchJSON is a list of queries to begin with, or one. The decoder reads through it, so that the time is linear however deep
// prefetches nest.
type prefetchJSON []queryJSON

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *prefetchJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return oneOrMore(d, (*[]queryJSON)(p))
}

// The limits of a formula's JSON, each level of which is looked at once more than the level around it.
const (
	maxFormulaBytes = 1 << 20
	maxFormulaDepth = 128
)

// formulaJSON is an expression: a number, the name of a payload value or a score, a condition of a filter, or an object whose
// only key is an operation.
type formulaJSON struct{ vectord.Expression }

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *formulaJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	if len(raw) > maxFormulaBytes {
		return vectord.Errorf(vectord.KindUnprocessable, "%d bytes, at most %d are accepted", len(raw), maxFormulaBytes)
	}
	if depth := vectord.JSONDepth(raw); depth > maxFormulaDepth {
		return vectord.Errorf(vectord.KindUnprocessable, "nested %d deep, at most %d are accepted", depth, maxFormulaDepth)
	}
	f.Expression, err = expressionOf(raw)
	return err
}

// operationOf returns what an object is whose only key is the name, and how the value is read; nil if the name is none.
func operationOf(name string) (kind vectord.ExpressionKind, parse func(jsontext.Value, *vectord.Expression) error) {
	switch name {
	case "sum":
		return vectord.ExprSum, parseOperands
	case "mult":
		return vectord.ExprMult, parseOperands
	case "neg":
		return vectord.ExprNeg, parseOperand
	case "abs":
		return vectord.ExprAbs, parseOperand
	case "sqrt":
		return vectord.ExprSqrt, parseOperand
	case "exp":
		return vectord.ExprExp, parseOperand
	case "log10":
		return vectord.ExprLog10, parseOperand
	case "ln":
		return vectord.ExprLn, parseOperand
	case "div":
		return vectord.ExprDiv, parseDiv
	case "pow":
		return vectord.ExprPow, parsePow
	case "lin_decay":
		return vectord.ExprLinDecay, parseDecay
	case "exp_decay":
		return vectord.ExprExpDecay, parseDecay
	case "gauss_decay":
		return vectord.ExprGaussDecay, parseDecay
	case "geo_distance":
		return vectord.ExprGeoDistance, parseGeoDistance
	case "datetime":
		return vectord.ExprTime, parseTime
	case "datetime_key":
		return vectord.ExprTimeKey, parseKey
	}
	return 0, nil
}

func expressionOf(raw jsontext.Value) (e vectord.Expression, err error) {
	switch raw.Kind() {
	case '0':
		e.Kind = vectord.ExprNumber
		return e, decodeInner(raw, &e.Number)
	case '"':
		var name string
		if err := decodeInner(raw, &name); err != nil {
			return e, err
		}
		return variableOf(name)
	case '{':
	default:
		return e, vectord.Errorf(vectord.KindInvalid, "expected a number, a name, a condition or an operation, got %s", excerpt(raw))
	}
	var object map[string]jsontext.Value
	if err := decodeInner(raw, &object); err != nil {
		return e, err
	}
	for name, value := range object {
		kind, parse := operationOf(name)
		if parse == nil {
			continue
		}
		if len(object) > 1 {
			return e, vectord.Errorf(vectord.KindInvalid, "expected one operation, got %s", excerpt(raw))
		}
		e.Kind = kind
		if err := parse(value, &e); err != nil {
			return e, vectord.Errorf(vectord.KindOf(err), "%s: %v", name, err)
		}
		return e, nil
	}
	e.Kind, e.Condition = vectord.ExprCondition, new(vectord.Condition)
	if err := e.Condition.UnmarshalJSON(raw); err != nil {
		return e, vectord.Errorf(vectord.KindInvalid, "neither an operation nor a condition: %v", err)
	}
	return e, nil
}

// variableOf reads $score, $score[1] and payload paths.
func variableOf(name string) (e vectord.Expression, err error) {
	if !strings.HasPrefix(name, "$") {
		e.Kind, e.Key = vectord.ExprValue, name
		return e, nil
	}
	e.Kind = vectord.ExprScore
	if name == "$score" {
		return e, nil
	}
	index, ok := strings.CutPrefix(name, "$score[")
	index, ok2 := strings.CutSuffix(index, "]")
	n, err := strconv.ParseUint(index, 10, 16)
	if !ok || !ok2 || err != nil {
		return e, vectord.Errorf(vectord.KindInvalid, "expected $score, $score[i] or a payload path, got %s", excerpt([]byte(name)))
	}
	e.Score = int(n)
	return e, nil
}

func parseOperands(raw jsontext.Value, e *vectord.Expression) error {
	var values list[jsontext.Value]
	if err := decodeInner(raw, &values); err != nil {
		return err
	}
	if len(values) > vectord.MaxExpressions {
		return vectord.Errorf(vectord.KindUnprocessable, "%d operands, at most %d are accepted", len(values), vectord.MaxExpressions)
	}
	for i, value := range values {
		if err := parseOperand(value, e); err != nil {
			return vectord.Errorf(vectord.KindOf(err), "[%d]: %v", i, err)
		}
	}
	return nil
}

func parseOperand(raw jsontext.Value, e *vectord.Expression) error {
	arg, err := expressionOf(raw)
	e.Args = append(e.Args, arg)
	return err
}

// parseNamed reads operands that have names.
func parseNamed(e *vectord.Expression, values []jsontext.Value, names ...string) error {
	for i, name := range names {
		if len(values[i]) == 0 || values[i].Kind() == 'n' {
			return missing(name)
		}
		if err := parseOperand(values[i], e); err != nil {
			return vectord.Errorf(vectord.KindOf(err), "%s: %v", name, err)
		}
	}
	return nil
}

func parseDiv(raw jsontext.Value, e *vectord.Expression) error {
	var div struct {
		Left          jsontext.Value `json:"left"`
		Right         jsontext.Value `json:"right"`
		ByZeroDefault *float64       `json:"by_zero_default"`
	}
	if err := decodeInner(raw, &div); err != nil {
		return err
	}
	if div.ByZeroDefault != nil {
		e.Number, e.HasNumber = *div.ByZeroDefault, true
	}
	return parseNamed(e, []jsontext.Value{div.Left, div.Right}, "left", "right")
}

func parsePow(raw jsontext.Value, e *vectord.Expression) error {
	var pow struct {
		Base     jsontext.Value `json:"base"`
		Exponent jsontext.Value `json:"exponent"`
	}
	if err := decodeInner(raw, &pow); err != nil {
		return err
	}
	return parseNamed(e, []jsontext.Value{pow.Base, pow.Exponent}, "base", "exponent")
}

func parseDecay(raw jsontext.Value, e *vectord.Expression) error {
	var decay struct {
		X        jsontext.Value `json:"x"`
		Target   jsontext.Value `json:"target"`
		Scale    *float64       `json:"scale"`
		Midpoint *float64       `json:"midpoint"`
	}
	if err := decodeInner(raw, &decay); err != nil {
		return err
	}
	if decay.Scale != nil {
		e.Number, e.HasNumber = *decay.Scale, true
	}
	e.Midpoint = decay.Midpoint
	if err := parseNamed(e, []jsontext.Value{decay.X}, "x"); err != nil || len(decay.Target) == 0 || decay.Target.Kind() == 'n' {
		return err
	}
	return parseNamed(e, []jsontext.Value{decay.Target}, "target")
}

func parseGeoDistance(raw jsontext.Value, e *vectord.Expression) error {
	var geo struct {
		Origin *vectord.GeoPoint `json:"origin"`
		To     *string           `json:"to"`
	}
	if err := decodeInner(raw, &geo); err != nil {
		return err
	}
	if geo.Origin == nil {
		return missing("origin")
	}
	if geo.To == nil {
		return missing("to")
	}
	e.Origin, e.Key = *geo.Origin, *geo.To
	return nil
}

func parseTime(raw jsontext.Value, e *vectord.Expression) error {
	var text string
	if err := decodeInner(raw, &text); err != nil {
		return err
	}
	moment, ok := vectord.ParseDatetime(text)
	if !ok {
		return vectord.Errorf(vectord.KindInvalid, "expected a date and time, got %s", excerpt([]byte(text)))
	}
	e.Time = int64(moment)
	return nil
}

func parseKey(raw jsontext.Value, e *vectord.Expression) error { return decodeInner(raw, &e.Key) }
