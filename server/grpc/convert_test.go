package grpcserver

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/vectord/vectord"
)

// drawValue draws a payload's value, nested at most depth deep.
func drawValue(t *rapid.T, depth int) *qdrant.Value {
	kinds := 6
	if depth == 0 {
		kinds = 4
	}
	switch rapid.IntRange(-1, kinds-1).Draw(t, "kind") {
	case 0:
		return qdrant.NewValueBool(rapid.Bool().Draw(t, "bool"))
	case 1:
		return qdrant.NewValueInt(rapid.Int64().Draw(t, "int"))
	case 2:
		bits := rapid.Uint64().Draw(t, "bits")
		if x := math.Float64frombits(bits); !math.IsNaN(x) && !math.IsInf(x, 0) {
			return qdrant.NewValueDouble(x)
		}
		return qdrant.NewValueDouble(float64(bits))
	case 3:
		return qdrant.NewValueString(rapid.String().Draw(t, "string"))
	case 4:
		list := &qdrant.ListValue{}
		for range rapid.IntRange(0, 3).Draw(t, "elements") {
			list.Values = append(list.Values, drawValue(t, depth-1))
		}
		return qdrant.NewValueList(list)
	case 5:
		return qdrant.NewValueFromFields(drawFields(t, depth-1))
	}
	return qdrant.NewValueNull()
}

func drawFields(t *rapid.T, depth int) map[string]*qdrant.Value {
	fields := map[string]*qdrant.Value{}
	for range rapid.IntRange(0, 4).Draw(t, "members") {
		fields[rapid.String().Draw(t, "key")] = drawValue(t, depth)
	}
	return fields
}

// TestPayloadRoundTrip checks that a payload is the same after it was JSON, and that the JSON is the same each time.
func TestPayloadRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fields := drawFields(t, 3)
		raw, err := payloadJSON("payload", fields)
		if err != nil {
			t.Fatal(err)
		}
		if len(fields) > 0 && !json.Valid(raw) {
			t.Fatalf("%v became %s", fields, raw)
		}
		got, err := payloadValues(raw)
		if err != nil || !proto.Equal(&qdrant.Struct{Fields: got}, &qdrant.Struct{Fields: fields}) {
			t.Fatalf("%v became %s and then %v, %v", fields, raw, got, err)
		}
		if again, _ := payloadJSON("payload", got); !bytes.Equal(again, raw) {
			t.Fatalf("%s became %s", raw, again)
		}
	})
}

// FuzzPayloadValues reads stored payloads: what was JSON comes back as JSON of the same value.
func FuzzPayloadValues(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"b":1.0,"c":-0,"d":1e400,"e":18446744073709551616}`, `{"a":[{"b":null},[true,"\u00e4\ud83d\ude00"]]}`, `{"a":1,"a":2}`, `[1]`, `{"a":`, `{"a":0.1e-7}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		fields, err := payloadValues(raw)
		if err != nil {
			return
		}
		again, err := payloadJSON("payload", fields)
		if err != nil { // a number beyond the range, which is infinite
			return
		}
		twice, err := payloadValues(again)
		if err != nil || !proto.Equal(&qdrant.Struct{Fields: twice}, &qdrant.Struct{Fields: fields}) {
			t.Errorf("%q became %v and then %q, %v, %v", raw, fields, again, twice, err)
		}
	})
}

// FuzzMessages converts whatever a client may send: nothing but an error or a value comes of it.
func FuzzMessages(f *testing.F) {
	messages := []proto.Message{
		&qdrant.UpsertPoints{Points: []*qdrant.PointStruct{{Id: qdrant.NewIDNum(1), Vectors: qdrant.NewVectorsMap(map[string]*qdrant.Vector{"a": qdrant.NewVectorSparse([]uint32{1}, []float32{1})})}}},
		&qdrant.QueryPoints{Query: qdrant.NewQueryFormula(&qdrant.Formula{Expression: qdrant.NewExpressionLn(qdrant.NewExpressionVariable("$score"))}), Prefetch: []*qdrant.PrefetchQuery{{Query: qdrant.NewQuery(1)}}},
		&qdrant.UpdateBatchPoints{Operations: []*qdrant.PointsUpdateOperation{qdrant.NewPointsUpdateDeletePoints(&qdrant.PointsUpdateOperation_DeletePoints{Points: qdrant.NewPointsSelector(qdrant.NewIDNum(1))})}},
		&qdrant.CreateCollection{VectorsConfig: qdrant.NewVectorsConfig(&qdrant.VectorParams{Size: 1, Distance: qdrant.Distance_Dot}), HnswConfig: &qdrant.HnswConfigDiff{M: proto.Uint64(3)}},
		&qdrant.UpdateCollection{QuantizationConfig: qdrant.NewQuantizationDiffDisabled()},
		&qdrant.CreateFieldIndexCollection{FieldIndexParams: qdrant.NewPayloadIndexParamsText(&qdrant.TextIndexParams{})},
		&qdrant.DiscoverPoints{Target: qdrant.NewTargetID(qdrant.NewIDNum(1))},
		&qdrant.RecommendPoints{Positive: []*qdrant.PointId{qdrant.NewIDNum(1)}, Filter: &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatch("a", "b")}}},
		&qdrant.ChangeAliases{Actions: []*qdrant.AliasOperations{qdrant.NewAlias("a", "b")}},
	}
	for i, m := range messages {
		raw, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), raw)
	}
	s := New(noEngine{}, Options{})
	f.Fuzz(func(_ *testing.T, kind uint8, raw []byte) {
		message := messages[int(kind)%len(messages)].ProtoReflect().New().Interface()
		if proto.Unmarshal(raw, message) != nil {
			return
		}
		c := &call{server: s}
		switch m := message.(type) {
		case *qdrant.UpsertPoints:
			_, _ = upsertOf(m)
		case *qdrant.QueryPoints:
			_, _ = c.queryOf(m)
		case *qdrant.UpdateBatchPoints:
			for _, step := range m.GetOperations() {
				_, _ = operationOf(step)
			}
		case *qdrant.CreateCollection:
			if config, err := configOf(m); err == nil {
				if _, err := collectionConfig(&config); err != nil {
					panic(err)
				}
			}
		case *qdrant.UpdateCollection:
			_, _ = updateOf(m)
		case *qdrant.CreateFieldIndexCollection:
			if schema, err := schemaOf(m); err == nil {
				_, _ = schemaInfo(&vectord.FieldInfo{FieldSchema: schema})
			}
		case *qdrant.DiscoverPoints:
			_, _ = c.discoverOf(m)
		case *qdrant.RecommendPoints:
			_, _ = c.recommendPageOf(m)
		case *qdrant.ChangeAliases:
			_, _ = aliasActionsOf(m.GetActions())
		}
	})
}

// noEngine is for conversions, which ask the engine about aliases at most.
type noEngine struct{ Engine }

func (noEngine) ResolveAlias(name string) string { return name }

// drawFilter draws a filter of what the messages can say.
func drawFilter(t *rapid.T, depth int, nested bool) vectord.Filter {
	conditions := func(name string) (list []vectord.Condition) {
		for range rapid.IntRange(0, 2).Draw(t, name) {
			list = append(list, drawCondition(t, depth, nested))
		}
		return list
	}
	f := vectord.Filter{Must: conditions("must"), Should: conditions("should"), MustNot: conditions("must_not")}
	if rapid.Bool().Draw(t, "min_should") {
		f.MinShould = &vectord.MinShould{Count: rapid.IntRange(1, 5).Draw(t, "min_count"), Conditions: conditions("conditions")}
	}
	return f
}

var drawKey = rapid.StringMatching(`[a-z]{1,3}(\[\])?(\.[a-z])?`)

func drawCondition(t *rapid.T, depth int, nested bool) (c vectord.Condition) {
	kind := rapid.IntRange(0, 6).Draw(t, "condition")
	if kind >= 5 && depth == 0 || kind >= 3 && kind <= 4 && nested {
		kind = 0
	}
	switch kind {
	case 1:
		c.IsEmpty = drawKey.Draw(t, "key")
	case 2:
		c.IsNull = drawKey.Draw(t, "key")
	case 3:
		ids := make([]vectord.PointID, rapid.IntRange(0, 3).Draw(t, "ids"))
		for i := range ids {
			if ids[i] = vectord.NumberID(rapid.Uint64().Draw(t, "id")); rapid.Bool().Draw(t, "uuid") {
				ids[i] = vectord.UUIDID([16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "uuid")))
			}
		}
		c.HasID = &ids
	case 4:
		name := rapid.String().Draw(t, "vector")
		c.HasVector = &name
	case 5:
		f := drawFilter(t, depth-1, nested)
		c.Filter = &f
	case 6:
		f := drawFilter(t, depth-1, true)
		c.Nested = &vectord.Nested{Key: drawKey.Draw(t, "key"), Filter: &f}
	default:
		c.Field = drawField(t)
	}
	return c
}

func drawField(t *rapid.T) *vectord.FieldCondition {
	f := &vectord.FieldCondition{Key: drawKey.Draw(t, "key")}
	place := func() vectord.GeoPoint {
		return vectord.GeoPoint{Lon: rapid.Float64Range(-180, 180).Draw(t, "lon"), Lat: rapid.Float64Range(-90, 90).Draw(t, "lat")}
	}
	ring := func() vectord.GeoRing {
		r := vectord.GeoRing{place(), place(), place()}
		return append(r, r[0])
	}
	switch rapid.IntRange(0, 8).Draw(t, "test") {
	case 0:
		f.Range = drawBounds(t, func() vectord.Number { return vectord.FloatNumber(rapid.Float64Range(-1e300, 1e300).Draw(t, "bound")) })
	case 1:
		const year2000, year3000 = 946684800e6, 32503680000e6
		f.Datetime = drawBounds(t, func() vectord.Datetime {
			return vectord.Datetime(rapid.Int64Range(-year2000, year3000).Draw(t, "moment"))
		})
	case 2:
		f.ValuesCount = drawBounds(t, func() vectord.Count { return vectord.Count(rapid.Uint64().Draw(t, "count")) })
	case 3:
		f.GeoBox = &vectord.GeoBox{TopLeft: place(), BottomRight: place()}
	case 4:
		f.GeoRadius = &vectord.GeoRadius{Center: place(), Radius: float64(rapid.Float32Range(0, 1e7).Draw(t, "radius"))}
	case 5:
		f.GeoPolygon = &vectord.GeoPolygon{Exterior: ring()}
		if rapid.Bool().Draw(t, "interior") {
			f.GeoPolygon.Interiors = []vectord.GeoRing{ring()}
		}
	case 6:
		empty := rapid.Bool().Draw(t, "is_empty")
		f.IsEmpty = &empty
	case 7:
		null := rapid.Bool().Draw(t, "is_null")
		f.IsNull = &null
	default:
		f.Match = drawMatch(t)
	}
	return f
}

func drawBounds[T interface{ Compare(T) int }](t *rapid.T, draw func() T) *vectord.Bounds[T] {
	var b vectord.Bounds[T]
	for _, bound := range []**T{&b.GT, &b.GTE, &b.LT, &b.LTE} {
		if rapid.Bool().Draw(t, "bounded") {
			x := draw()
			*bound = &x
		}
	}
	return &b
}

func drawMatch(t *rapid.T) *vectord.Match {
	text := func() vectord.Scalar {
		return vectord.Scalar{Kind: vectord.ScalarString, String: rapid.String().Draw(t, "text")}
	}
	integer := func() vectord.Scalar {
		return vectord.Scalar{Kind: vectord.ScalarInt, Int: rapid.Int64().Draw(t, "int")}
	}
	list := func(of func() vectord.Scalar) *[]vectord.Scalar {
		out := make([]vectord.Scalar, rapid.IntRange(0, 3).Draw(t, "values"))
		for i := range out {
			out[i] = of()
		}
		return &out
	}
	one := func(s vectord.Scalar) *vectord.Match { return &vectord.Match{Value: &s} }
	s := text().String
	switch rapid.IntRange(0, 9).Draw(t, "match") {
	case 0:
		return one(integer())
	case 1:
		return one(vectord.Scalar{Kind: vectord.ScalarBool, Bool: rapid.Bool().Draw(t, "bool")})
	case 2:
		return &vectord.Match{Any: list(text)}
	case 3:
		return &vectord.Match{Any: list(integer)}
	case 4:
		return &vectord.Match{Except: list(text)}
	case 5:
		return &vectord.Match{Except: list(integer)}
	case 6:
		return &vectord.Match{Text: &s}
	case 7:
		return &vectord.Match{TextAny: &s}
	case 8:
		return &vectord.Match{Phrase: &s}
	}
	return one(text())
}

// TestFilterRoundTrip checks that a filter is the same after it was a message on the wire.
func TestFilterRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawFilter(t, 3, false)
		raw, err := proto.Marshal(messageOf(&want))
		if err != nil {
			t.Fatal(err)
		}
		message := new(qdrant.Filter)
		if err := proto.Unmarshal(raw, message); err != nil {
			t.Fatal(err)
		}
		got, err := checkedFilter(message)
		if err != nil {
			t.Fatalf("%v: %v", message, err)
		}
		if !reflect.DeepEqual(got, want) {
			a, _ := json.Marshal(&got)
			b, _ := json.Marshal(&want)
			t.Fatalf("got %s\nwant %s", a, b)
		}
	})
}

// messageOf is the inverse of plainFilter.
func messageOf(f *vectord.Filter) *qdrant.Filter {
	list := func(in []vectord.Condition) (out []*qdrant.Condition) {
		for i := range in {
			out = append(out, conditionMessage(&in[i]))
		}
		return out
	}
	m := &qdrant.Filter{Must: list(f.Must), Should: list(f.Should), MustNot: list(f.MustNot)}
	if f.MinShould != nil {
		m.MinShould = &qdrant.MinShould{MinCount: uint64(f.MinShould.Count), Conditions: list(f.MinShould.Conditions)}
	}
	return m
}

func conditionMessage(c *vectord.Condition) *qdrant.Condition {
	switch {
	case c.Filter != nil:
		return qdrant.NewFilterAsCondition(messageOf(c.Filter))
	case c.HasID != nil:
		var ids []*qdrant.PointId
		for _, id := range *c.HasID {
			ids = append(ids, pointID(id))
		}
		return qdrant.NewHasID(ids...)
	case c.HasVector != nil:
		return qdrant.NewHasVector(*c.HasVector)
	case c.IsEmpty != "":
		return qdrant.NewIsEmpty(c.IsEmpty)
	case c.IsNull != "":
		return qdrant.NewIsNull(c.IsNull)
	case c.Nested != nil:
		return qdrant.NewNestedFilter(c.Nested.Key, messageOf(c.Nested.Filter))
	}
	f := c.Field
	m := &qdrant.FieldCondition{Key: f.Key, IsEmpty: f.IsEmpty, IsNull: f.IsNull}
	point := func(p vectord.GeoPoint) *qdrant.GeoPoint { return &qdrant.GeoPoint{Lon: p.Lon, Lat: p.Lat} }
	line := func(r vectord.GeoRing) *qdrant.GeoLineString {
		out := &qdrant.GeoLineString{}
		for _, p := range r {
			out.Points = append(out.Points, point(p))
		}
		return out
	}
	if b := f.Range; b != nil {
		of := func(n *vectord.Number) *float64 {
			if n == nil {
				return nil
			}
			return proto.Float64(n.Float64())
		}
		m.Range = &qdrant.Range{Gt: of(b.GT), Gte: of(b.GTE), Lt: of(b.LT), Lte: of(b.LTE)}
	}
	if b := f.Datetime; b != nil {
		of := func(d *vectord.Datetime) *timestamppb.Timestamp {
			if d == nil {
				return nil
			}
			seconds := int64(math.Floor(float64(*d) / 1e6))
			return &timestamppb.Timestamp{Seconds: seconds, Nanos: int32(int64(*d)-seconds*1e6) * 1000}
		}
		m.DatetimeRange = &qdrant.DatetimeRange{Gt: of(b.GT), Gte: of(b.GTE), Lt: of(b.LT), Lte: of(b.LTE)}
	}
	if b := f.ValuesCount; b != nil {
		of := func(n *vectord.Count) *uint64 { return (*uint64)(n) }
		m.ValuesCount = &qdrant.ValuesCount{Gt: of(b.GT), Gte: of(b.GTE), Lt: of(b.LT), Lte: of(b.LTE)}
	}
	if g := f.GeoBox; g != nil {
		m.GeoBoundingBox = &qdrant.GeoBoundingBox{TopLeft: point(g.TopLeft), BottomRight: point(g.BottomRight)}
	}
	if g := f.GeoRadius; g != nil {
		m.GeoRadius = &qdrant.GeoRadius{Center: point(g.Center), Radius: float32(g.Radius)}
	}
	if g := f.GeoPolygon; g != nil {
		m.GeoPolygon = &qdrant.GeoPolygon{Exterior: line(g.Exterior)}
		for _, r := range g.Interiors {
			m.GeoPolygon.Interiors = append(m.GeoPolygon.Interiors, line(r))
		}
	}
	if f.Match != nil {
		m.Match = matchMessage(f.Match)
	}
	return &qdrant.Condition{ConditionOneOf: &qdrant.Condition_Field{Field: m}}
}

func matchMessage(m *vectord.Match) *qdrant.Match {
	switch {
	case m.Text != nil:
		return &qdrant.Match{MatchValue: &qdrant.Match_Text{Text: *m.Text}}
	case m.TextAny != nil:
		return &qdrant.Match{MatchValue: &qdrant.Match_TextAny{TextAny: *m.TextAny}}
	case m.Phrase != nil:
		return &qdrant.Match{MatchValue: &qdrant.Match_Phrase{Phrase: *m.Phrase}}
	case m.Value != nil && m.Value.Kind == vectord.ScalarInt:
		return &qdrant.Match{MatchValue: &qdrant.Match_Integer{Integer: m.Value.Int}}
	case m.Value != nil && m.Value.Kind == vectord.ScalarBool:
		return &qdrant.Match{MatchValue: &qdrant.Match_Boolean{Boolean: m.Value.Bool}}
	case m.Value != nil:
		return &qdrant.Match{MatchValue: &qdrant.Match_Keyword{Keyword: m.Value.String}}
	}
	list := m.Any
	if list == nil {
		list = m.Except
	}
	texts, integers := &qdrant.RepeatedStrings{}, &qdrant.RepeatedIntegers{}
	for _, s := range *list {
		if s.Kind == vectord.ScalarInt {
			integers.Integers = append(integers.Integers, s.Int)
		} else {
			texts.Strings = append(texts.Strings, s.String)
		}
	}
	switch {
	case m.Any != nil && len(integers.GetIntegers()) > 0:
		return &qdrant.Match{MatchValue: &qdrant.Match_Integers{Integers: integers}}
	case m.Any != nil:
		return &qdrant.Match{MatchValue: &qdrant.Match_Keywords{Keywords: texts}}
	case len(integers.GetIntegers()) > 0:
		return &qdrant.Match{MatchValue: &qdrant.Match_ExceptIntegers{ExceptIntegers: integers}}
	}
	return &qdrant.Match{MatchValue: &qdrant.Match_ExceptKeywords{ExceptKeywords: texts}}
}

// TestDoubles checks how doubles are written: short, and never as integers.
func TestDoubles(t *testing.T) {
	f := func(x float64, want string) {
		t.Helper()
		if got, err := appendDouble(nil, x); string(got) != want || err != nil {
			t.Errorf("%v: %s, %v, want %s", x, got, err, want)
		}
	}
	f(0, "0.0")
	f(math.Copysign(0, -1), "-0.0")
	f(1, "1.0")
	f(0.1, "0.1")
	f(1e15, "1000000000000000.0")
	f(1e16, "1e+16")
	f(0.00001, "0.00001")
	f(0.000001, "1e-06")
	f(math.MaxFloat64, "1.7976931348623157e+308")
}

// TestFormula reads every kind of expression.
func TestFormula(t *testing.T) {
	x := qdrant.NewExpressionVariable("x")
	decay := &qdrant.DecayParamsExpression{X: x, Target: x, Scale: proto.Float32(2), Midpoint: proto.Float32(0.25)}
	value := vectord.Expression{Kind: vectord.ExprValue, Key: "x"}
	quarter := 0.25
	decayed := func(kind vectord.ExpressionKind) vectord.Expression {
		return vectord.Expression{Kind: kind, Args: []vectord.Expression{value, value}, Number: 2, HasNumber: true, Midpoint: &quarter}
	}
	unary := func(kind vectord.ExpressionKind) vectord.Expression {
		return vectord.Expression{Kind: kind, Args: []vectord.Expression{value}}
	}
	binary := func(kind vectord.ExpressionKind) vectord.Expression {
		return vectord.Expression{Kind: kind, Args: []vectord.Expression{value, value}}
	}
	divided := binary(vectord.ExprDiv)
	divided.Number, divided.HasNumber = 0.5, true
	f := func(m *qdrant.Expression, want vectord.Expression) {
		t.Helper()
		left := vectord.MaxExpressions
		if got, err := expressionOf(m, &left); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %+v, %v, want %+v", m, got, err, want)
		}
	}
	f(qdrant.NewExpressionConstant(1.5), vectord.Expression{Number: 1.5})
	f(x, value)
	f(qdrant.NewExpressionVariable("$score"), vectord.Expression{Kind: vectord.ExprScore})
	f(qdrant.NewExpressionVariable("$score[2]"), vectord.Expression{Kind: vectord.ExprScore, Score: 2})
	f(qdrant.NewExpressionCondition(qdrant.NewIsNull("x")), vectord.Expression{Kind: vectord.ExprCondition, Condition: &vectord.Condition{IsNull: "x"}})
	f(qdrant.NewExpressionGeoDistance(&qdrant.GeoDistance{Origin: &qdrant.GeoPoint{Lon: 1, Lat: 2}, To: "x"}), vectord.Expression{Kind: vectord.ExprGeoDistance, Origin: vectord.GeoPoint{Lon: 1, Lat: 2}, Key: "x"})
	f(qdrant.NewExpressionDatetime("1970-01-01T00:00:01Z"), vectord.Expression{Kind: vectord.ExprTime, Time: 1e6})
	f(qdrant.NewExpressionDatetimeKey("x"), vectord.Expression{Kind: vectord.ExprTimeKey, Key: "x"})
	f(qdrant.NewExpressionMult(&qdrant.MultExpression{Mult: []*qdrant.Expression{x, x}}), binary(vectord.ExprMult))
	f(qdrant.NewExpressionSum(&qdrant.SumExpression{Sum: []*qdrant.Expression{x, x}}), binary(vectord.ExprSum))
	f(qdrant.NewExpressionDiv(&qdrant.DivExpression{Left: x, Right: x}), binary(vectord.ExprDiv))
	f(qdrant.NewExpressionDiv(&qdrant.DivExpression{Left: x, Right: x, ByZeroDefault: proto.Float32(0.5)}), divided)
	f(qdrant.NewExpressionNeg(x), unary(vectord.ExprNeg))
	f(qdrant.NewExpressionAbs(x), unary(vectord.ExprAbs))
	f(qdrant.NewExpressionSqrt(x), unary(vectord.ExprSqrt))
	f(qdrant.NewExpressionPow(&qdrant.PowExpression{Base: x, Exponent: x}), binary(vectord.ExprPow))
	f(qdrant.NewExpressionExp(x), unary(vectord.ExprExp))
	f(qdrant.NewExpressionLog10(x), unary(vectord.ExprLog10))
	f(qdrant.NewExpressionLn(x), unary(vectord.ExprLn))
	f(qdrant.NewExpressionExpDecay(decay), decayed(vectord.ExprExpDecay))
	f(qdrant.NewExpressionGaussDecay(decay), decayed(vectord.ExprGaussDecay))
	f(qdrant.NewExpressionLinDecay(decay), decayed(vectord.ExprLinDecay))
	f(qdrant.NewExpressionLinDecay(&qdrant.DecayParamsExpression{X: x}), unary(vectord.ExprLinDecay))

	left := 2
	if _, err := expressionOf(qdrant.NewExpressionNeg(qdrant.NewExpressionNeg(x)), &left); vectord.KindOf(err) != vectord.KindUnprocessable {
		t.Errorf("too many nodes: %v", err)
	}
}

// BenchmarkPayload converts a payload there and back.
func BenchmarkPayload(b *testing.B) {
	fields := qdrant.NewValueMap(map[string]any{"title": strings.Repeat("word ", 20), "year": 1999, "score": 0.75, "tags": []any{"a", "b", "c"}, "nested": map[string]any{"ok": true}})
	raw, err := payloadJSON("payload", fields)
	if err != nil || !utf8.Valid(raw) {
		b.Fatal(err)
	}
	b.Run("to JSON", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := payloadJSON("payload", fields); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("from JSON", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := payloadValues(raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkUpsert converts 100 points of 384 components.
func BenchmarkUpsert(b *testing.B) {
	m := &qdrant.UpsertPoints{CollectionName: "c"}
	for i := range uint64(100) {
		m.Points = append(m.Points, &qdrant.PointStruct{Id: qdrant.NewIDNum(i), Vectors: qdrant.NewVectors(make([]float32, 384)...), Payload: qdrant.NewValueMap(map[string]any{"n": i})})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := upsertOf(m); err != nil {
			b.Fatal(err)
		}
	}
}
