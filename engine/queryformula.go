package engine

import (
	"context"
	"math"
	"strconv"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// formula is a compiled vectord.Formula. One search at a time may use it.
type formula struct {
	root evaluate
}

// evaluate computes one node of a formula for a point. An error says what of the point is not as the formula needs it.
type evaluate func(p *scored) (float64, error)

// scored is a point that a formula scores.
type scored struct {
	pointView
	value  *fastjson.Value               // the payload
	scores []map[vectord.PointID]float32 // of each prefetch
}

// formulaCompiler makes functions of expressions.
type formulaCompiler struct {
	collection *collection
	defaults   map[string]*fastjson.Value
}

// compileFormula returns an error for a formula that no point could be scored by.
func (c *collection) compileFormula(f *vectord.Formula) (*formula, error) {
	compiler := formulaCompiler{c, map[string]*fastjson.Value{}}
	for key, raw := range f.Defaults {
		value, err := fastjson.ParseBytes(raw)
		if err != nil {
			return nil, vectord.Errorf(vectord.KindInvalid, "defaults: %q: %v", key, err)
		}
		if key == "$score" {
			key = scoreName(0)
		}
		if value.Type() != fastjson.TypeNull {
			compiler.defaults[key] = value
		}
	}
	root, err := compiler.expression(&f.Expression)
	if err != nil {
		return nil, err
	}
	return &formula{root}, nil
}

// compute scores points by the query's formula.
func (s *search) compute(ctx context.Context, ids []vectord.PointID, lists [][]vectord.Hit) ([]vectord.Hit, error) {
	p := scored{scores: make([]map[vectord.PointID]float32, len(lists))}
	for i, list := range lists {
		p.scores[i] = make(map[vectord.PointID]float32, len(list))
		for _, hit := range list {
			p.scores[i][hit.ID] = hit.Score
		}
	}
	parser := parsers.Get().(*payloadParser)
	defer parsers.Put(parser)
	hits := make([]vectord.Hit, 0, len(ids))
	err := s.each(ctx, ids, func(_ storage.Reader, _ *shard, id vectord.PointID, row storage.PointRow) (err error) {
		p.pointView = viewOf(id, row)
		if p.value, err = parser.parse(row.Payload); err != nil {
			return err
		}
		score, err := s.formula.root(&p)
		if err == nil && !isFinite(float64(float32(score))) {
			err = vectord.Errorf(vectord.KindInvalid, "the score is %v", score)
		}
		if err != nil {
			return vectord.Errorf(vectord.KindOf(err), "formula: point %s: %v", id, err)
		}
		hits = append(hits, vectord.Hit{Record: vectord.Record{ID: id}, Score: float32(score)})
		return nil
	})
	descending(hits)
	return hits, err
}

func isFinite(x float64) bool { return x-x == 0 }

func (c *formulaCompiler) expression(e *vectord.Expression) (evaluate, error) {
	switch e.Kind {
	case vectord.ExprNumber:
		return func(*scored) (float64, error) { return e.Number, nil }, nil
	case vectord.ExprTime:
		return func(*scored) (float64, error) { return seconds(vectord.Datetime(e.Time)), nil }, nil
	case vectord.ExprScore:
		return c.score(e.Score)
	case vectord.ExprCondition:
		m, err := c.collection.compileFilter(&vectord.Filter{Must: []vectord.Condition{*e.Condition}})
		if err != nil {
			return nil, err
		}
		return func(p *scored) (float64, error) {
			if m == nil || m.root(p.pointView, p.value) {
				return 1, nil
			}
			return 0, nil
		}, nil
	case vectord.ExprValue:
		return variable(c, e.Key, "a number", func(v *fastjson.Value) (float64, bool) {
			n, ok := numberOf(v)
			return n.Float64(), ok
		})
	case vectord.ExprTimeKey:
		return variable(c, e.Key, "a date and time", func(v *fastjson.Value) (float64, bool) {
			moment, ok := vectord.ParseDatetime(v.GetStringBytes())
			return seconds(moment), ok
		})
	case vectord.ExprGeoDistance:
		return variable(c, e.Key, "a place", func(v *fastjson.Value) (float64, bool) {
			place, ok := placeOf(v)
			return distance(e.Origin, place), ok
		})
	}
	args := make([]evaluate, len(e.Args))
	for i := range e.Args {
		var err error
		if args[i], err = c.expression(&e.Args[i]); err != nil {
			return nil, err
		}
	}
	switch e.Kind {
	case vectord.ExprSum:
		return sum(args), nil
	case vectord.ExprMult:
		return product(args), nil
	case vectord.ExprDiv:
		return quotient(args[0], args[1], e), nil
	case vectord.ExprPow:
		return power(args[0], args[1]), nil
	case vectord.ExprLinDecay, vectord.ExprExpDecay, vectord.ExprGaussDecay:
		return decay(args, e), nil
	}
	f := functions[e.Kind]
	return func(p *scored) (float64, error) {
		x, err := args[0](p)
		if err != nil {
			return 0, err
		}
		y := f.of(x)
		if !isFinite(y) {
			return 0, vectord.Errorf(vectord.KindInvalid, "%s of %v is %v", f.name, x, y)
		}
		return y, nil
	}, nil
}

// functions are the expressions that take one number.
var functions = map[vectord.ExpressionKind]struct {
	name string
	of   func(float64) float64
}{
	vectord.ExprNeg:   {"neg", func(x float64) float64 { return -x }},
	vectord.ExprAbs:   {"abs", math.Abs},
	vectord.ExprSqrt:  {"sqrt", math.Sqrt},
	vectord.ExprExp:   {"exp", math.Exp},
	vectord.ExprLog10: {"log10", math.Log10},
	vectord.ExprLn:    {"ln", math.Log},
}

// seconds since the Unix epoch.
func seconds(d vectord.Datetime) float64 { return float64(d) / 1e6 }

// score is what a prefetch gave the point, or the default, which is 0 if the formula has none.
func (c *formulaCompiler) score(prefetch int) (evaluate, error) {
	fallback := 0.0
	if v, ok := c.defaults[scoreName(prefetch)]; ok {
		n, ok := numberOf(v)
		if !ok {
			return nil, vectord.Errorf(vectord.KindInvalid, "defaults: %q: expected a number, got %s", scoreName(prefetch), v.Type())
		}
		fallback = n.Float64()
	}
	return func(p *scored) (float64, error) {
		if score, ok := p.scores[prefetch][p.id]; ok {
			return float64(score), nil
		}
		return fallback, nil
	}, nil
}

// variable is what is at a payload path, or the default.
func variable(c *formulaCompiler, key, what string, parse func(*fastjson.Value) (float64, bool)) (evaluate, error) {
	at, err := parsePath(key)
	if err != nil {
		return nil, err
	}
	fallback, has := 0.0, false
	if v, ok := c.defaults[key]; ok {
		if fallback, has = parse(v); !has {
			return nil, vectord.Errorf(vectord.KindInvalid, "defaults: %q: expected %s, got %s", key, what, v.Type())
		}
	}
	return func(p *scored) (float64, error) {
		var found *fastjson.Value
		values := 0
		anyElement(at, p.value, func(v *fastjson.Value) bool {
			if v.Type() != fastjson.TypeNull {
				found = v
				values++
			}
			return false
		})
		switch {
		case values == 0 && has:
			return fallback, nil
		case values == 0:
			return 0, vectord.Errorf(vectord.KindInvalid, "%q is missing and has no default", key)
		case values > 1:
			return 0, vectord.Errorf(vectord.KindInvalid, "%q has %d values, expected %s", key, values, what)
		}
		x, ok := parse(found)
		if !ok {
			return 0, vectord.Errorf(vectord.KindInvalid, "%q is %s, expected %s", key, found.Type(), what)
		}
		return x, nil
	}, nil
}

// scoreName is how a formula's defaults call the score of a prefetch.
func scoreName(prefetch int) string { return "$score[" + strconv.Itoa(prefetch) + "]" }

func sum(args []evaluate) evaluate {
	return func(p *scored) (float64, error) {
		total := 0.0
		for _, arg := range args {
			x, err := arg(p)
			if err != nil {
				return 0, err
			}
			total += x
		}
		return total, nil
	}
}

// product looks at no factor behind one that is 0, so that a condition can guard what a point may lack.
func product(args []evaluate) evaluate {
	return func(p *scored) (float64, error) {
		total := 1.0
		for _, arg := range args {
			x, err := arg(p)
			if err != nil || x == 0 {
				return 0, err
			}
			total *= x
		}
		return total, nil
	}
}

func two(p *scored, a, b evaluate) (x, y float64, err error) {
	if x, err = a(p); err == nil {
		y, err = b(p)
	}
	return x, y, err
}

// quotient is 0 where the numerator is, whatever the divisor.
func quotient(left, right evaluate, e *vectord.Expression) evaluate {
	return func(p *scored) (float64, error) {
		x, err := left(p)
		if err != nil || x == 0 {
			return 0, err
		}
		y, err := right(p)
		switch z := x / y; {
		case err != nil:
			return 0, err
		case y == 0 && e.HasNumber:
			return e.Number, nil
		case !isFinite(z):
			return 0, vectord.Errorf(vectord.KindInvalid, "%v divided by %v is %v", x, y, z)
		default:
			return z, nil
		}
	}
}

func power(base, exponent evaluate) evaluate {
	return func(p *scored) (float64, error) {
		x, y, err := two(p, base, exponent)
		if err != nil {
			return 0, err
		}
		z := math.Pow(x, y)
		if !isFinite(z) {
			return 0, vectord.Errorf(vectord.KindInvalid, "%v to the power of %v is %v", x, y, z)
		}
		return z, nil
	}
}

// decay falls from 1 at the target to the midpoint at one scale from it: in a line, which ends at 0, exponentially or as a
// bell curve does.
func decay(args []evaluate, e *vectord.Expression) evaluate {
	scale, midpoint := vectord.DefaultScale, vectord.DefaultMidpoint
	if e.HasNumber {
		scale = e.Number
	}
	if e.Midpoint != nil {
		midpoint = *e.Midpoint
	}
	target := evaluate(func(*scored) (float64, error) { return 0, nil })
	if len(args) > 1 {
		target = args[1]
	}
	return func(p *scored) (float64, error) {
		x, center, err := two(p, args[0], target)
		if err != nil {
			return 0, err
		}
		scales := math.Abs(x-center) / scale
		switch e.Kind {
		case vectord.ExprLinDecay:
			return max(1-(1-midpoint)*scales, 0), nil
		case vectord.ExprExpDecay:
			return math.Pow(midpoint, scales), nil
		default:
			return math.Pow(midpoint, scales*scales), nil
		}
	}
}
