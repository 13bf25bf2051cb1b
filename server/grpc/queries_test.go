package grpcserver_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestFilters asks with every condition that the client makes, and compares with the ids chosen by hand.
func TestFilters(t *testing.T) {
	h := start(t)
	h.ok(h.c.CreateCollection(t.Context(), &qdrant.CreateCollection{CollectionName: "c",
		VectorsConfig: qdrant.NewVectorsConfigMap(map[string]*qdrant.VectorParams{"": {Size: 1, Distance: qdrant.Distance_Dot}, "other": {Size: 1, Distance: qdrant.Distance_Dot}})}))
	one := func(id uint64, names []string, payload map[string]any) *qdrant.PointStruct {
		vectors := map[string]*qdrant.Vector{}
		for _, name := range names {
			vectors[name] = qdrant.NewVector(1)
		}
		return &qdrant.PointStruct{Id: qdrant.NewIDNum(id), Vectors: qdrant.NewVectorsMap(vectors), Payload: qdrant.NewValueMap(payload)}
	}
	place := func(lon, lat float64) map[string]any { return map[string]any{"lon": lon, "lat": lat} }
	h.upsert(
		one(1, []string{""}, map[string]any{"color": "red", "n": 1, "x": 1.5, "ok": true, "at": "2026-01-01T00:00:00Z", "where": place(13.4, 52.5), "text": "the quick brown fox", "tags": []any{"a", "b"}, "parts": []any{map[string]any{"k": "a", "v": 1}, map[string]any{"k": "b", "v": 2}}}),
		one(2, []string{"", "other"}, map[string]any{"color": "green", "n": 2, "x": -1, "ok": false, "at": "2026-02-01T00:00:00.5Z", "where": place(2.35, 48.85), "text": "quick silver", "tags": []any{"c"}, "parts": []any{map[string]any{"k": "a", "v": 2}}}),
		one(3, []string{"other"}, map[string]any{"color": []any{"red", "blue"}, "n": int64(9007199254740993), "x": nil, "tags": []any{}, "where": place(-0.1, 51.5)}),
		one(4, []string{""}, nil),
	)
	f := func(what string, filter *qdrant.Filter, want ...uint64) {
		t.Helper()
		page := must[[]*qdrant.RetrievedPoint](h)(h.c.Scroll(t.Context(), &qdrant.ScrollPoints{CollectionName: "c", Filter: filter}))
		var got []uint64
		for _, r := range page {
			got = append(got, r.GetId().GetNum())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		if n := must[uint64](h)(h.c.Count(t.Context(), &qdrant.CountPoints{CollectionName: "c", Filter: filter, Exact: p(true)})); int(n) != len(want) {
			t.Errorf("%s: a count of %d, want %d", what, n, len(want))
		}
	}
	must := func(conditions ...*qdrant.Condition) *qdrant.Filter { return &qdrant.Filter{Must: conditions} }
	f("nothing", nil, 1, 2, 3, 4)
	f("an empty filter", &qdrant.Filter{}, 1, 2, 3, 4)
	f("keyword", must(qdrant.NewMatch("color", "red")), 1, 3)
	f("keywords", must(qdrant.NewMatchKeywords("color", "green", "blue")), 2, 3)
	f("no keywords", must(qdrant.NewMatchKeywords("color")))
	f("except", must(qdrant.NewMatchExcept("color", "red", "blue")), 2)
	f("integer", must(qdrant.NewMatchInt("n", 9007199254740993)), 3)
	f("the integer before", must(qdrant.NewMatchInt("n", 9007199254740992)))
	f("integers", must(qdrant.NewMatchInts("n", 1, 2)), 1, 2)
	f("except integers", must(qdrant.NewMatchExceptInts("n", 1, 2)), 3)
	f("bool", must(qdrant.NewMatchBool("ok", false)), 2)
	f("text", must(qdrant.NewMatchText("text", "brown fox")), 1)
	f("text any", must(qdrant.NewMatchTextAny("text", "silver fox")), 1, 2)
	f("phrase", must(qdrant.NewMatchPhrase("text", "quick brown")), 1)
	f("range", must(qdrant.NewRange("x", &qdrant.Range{Gt: p(-1.), Lte: p(1.5)})), 1)
	f("range to -1", must(qdrant.NewRange("x", &qdrant.Range{Gte: p(-1.), Lt: p(1.5)})), 2)
	f("dates", must(qdrant.NewDatetimeRange("at", &qdrant.DatetimeRange{Gt: timestamppb.New(timeOf(2026, 1, 1))})), 2)
	f("dates, half a second", must(qdrant.NewDatetimeRange("at", &qdrant.DatetimeRange{Gte: timestamppb.New(timeOf(2026, 1, 1)), Lte: &timestamppb.Timestamp{Seconds: timeOf(2026, 2, 1).Unix(), Nanos: 5e8}})), 1, 2)
	f("dates, before that", must(qdrant.NewDatetimeRange("at", &qdrant.DatetimeRange{Lt: &timestamppb.Timestamp{Seconds: timeOf(2026, 2, 1).Unix(), Nanos: 5e8}})), 1)
	f("box", must(qdrant.NewGeoBoundingBox("where", 53, 0, 45, 10)), 2)
	f("radius", must(qdrant.NewGeoRadius("where", 52.5, 13.4, 1000)), 1)
	f("wide radius", must(qdrant.NewGeoRadius("where", 50, 1, 400_000)), 2, 3)
	ring := func(points ...float64) *qdrant.GeoLineString {
		line := &qdrant.GeoLineString{}
		for i := 0; i < len(points); i += 2 {
			line.Points = append(line.Points, &qdrant.GeoPoint{Lon: points[i], Lat: points[i+1]})
		}
		return line
	}
	square := ring(-10, 40, 20, 40, 20, 60, -10, 60, -10, 40)
	f("polygon", must(qdrant.NewGeoPolygon("where", square)), 1, 2, 3)
	f("polygon with a hole", must(qdrant.NewGeoPolygon("where", square, ring(0, 45, 5, 45, 5, 50, 0, 50, 0, 45))), 1, 3)
	f("values count", must(qdrant.NewValuesCount("tags", &qdrant.ValuesCount{Gte: p(uint64(1)), Lt: p(uint64(2))})), 2)
	f("no values", must(qdrant.NewValuesCount("tags", &qdrant.ValuesCount{Lte: p(uint64(0))})), 3, 4)
	f("is empty", must(qdrant.NewIsEmpty("tags")), 3, 4)
	f("is null", must(qdrant.NewIsNull("x")), 3)
	field := func(c *qdrant.FieldCondition) *qdrant.Condition {
		return &qdrant.Condition{ConditionOneOf: &qdrant.Condition_Field{Field: c}}
	}
	f("field is empty", must(field(&qdrant.FieldCondition{Key: "tags", IsEmpty: p(false)})), 1, 2)
	f("field is null", must(field(&qdrant.FieldCondition{Key: "x", IsNull: p(true)})), 3)
	f("has id", must(qdrant.NewHasID(qdrant.NewIDNum(2), qdrant.NewIDNum(77), qdrant.NewIDUUID("f47ac10b-58cc-4372-a567-0e02b2c3d479"))), 2)
	f("has vector", must(qdrant.NewHasVector("other")), 2, 3)
	f("has the default vector", must(qdrant.NewHasVector("")), 1, 2, 4)
	f("nested", must(qdrant.NewNestedFilter("parts", must(qdrant.NewMatch("k", "a"), qdrant.NewMatchInt("v", 2)))), 2)
	f("not nested", must(qdrant.NewMatch("parts[].k", "a"), qdrant.NewMatchInt("parts[].v", 2)), 1, 2)
	f("should", &qdrant.Filter{Should: []*qdrant.Condition{qdrant.NewMatch("color", "green"), qdrant.NewMatchBool("ok", true)}}, 1, 2)
	f("must not", &qdrant.Filter{MustNot: []*qdrant.Condition{qdrant.NewMatch("color", "red")}}, 2, 4)
	f("min should", &qdrant.Filter{MinShould: &qdrant.MinShould{MinCount: 2, Conditions: []*qdrant.Condition{qdrant.NewMatch("color", "red"), qdrant.NewMatchBool("ok", true), qdrant.NewIsNull("x")}}}, 1, 3)
	f("a filter within", must(qdrant.NewFilterAsCondition(&qdrant.Filter{MustNot: []*qdrant.Condition{qdrant.NewFilterAsCondition(must(qdrant.NewMatch("color", "red")))}}), qdrant.NewHasVector("other")), 2)

	refuse := func(text string, filter *qdrant.Filter) {
		t.Helper()
		_, err := h.c.Count(t.Context(), &qdrant.CountPoints{CollectionName: "c", Filter: filter})
		h.refused(err, codes.InvalidArgument, text)
	}
	refuse("a condition is empty", must(&qdrant.Condition{}))
	refuse("key is empty", must(qdrant.NewMatch("", "x")))
	refuse("key of is_null", must(qdrant.NewIsNull("")))
	refuse("at least one of match", must(field(&qdrant.FieldCondition{Key: "a"})))
	refuse("match: is empty", must(field(&qdrant.FieldCondition{Key: "a", Match: &qdrant.Match{}})))
	refuse("finite", must(qdrant.NewRange("a", &qdrant.Range{Lt: p(math.Inf(1))})))
	refuse("datetime_range", must(qdrant.NewDatetimeRange("a", &qdrant.DatetimeRange{Lt: &timestamppb.Timestamp{Nanos: -1}})))
	refuse("numbers or of dates", must(field(&qdrant.FieldCondition{Key: "a", Range: &qdrant.Range{}, DatetimeRange: &qdrant.DatetimeRange{}})))
	refuse("corner", must(field(&qdrant.FieldCondition{Key: "a", GeoBoundingBox: &qdrant.GeoBoundingBox{}})))
	refuse("center", must(field(&qdrant.FieldCondition{Key: "a", GeoRadius: &qdrant.GeoRadius{}})))
	refuse("a ring of 0 points", must(qdrant.NewGeoPolygon("a", nil)))
	refuse("no place", must(qdrant.NewGeoRadius("a", 91, 0, 1)))
	refuse("min_count", &qdrant.Filter{MinShould: &qdrant.MinShould{}})
	refuse("has_id[0]", must(qdrant.NewHasID(&qdrant.PointId{})))
	refuse("filter is missing", must(&qdrant.Condition{ConditionOneOf: &qdrant.Condition_Nested{Nested: &qdrant.NestedCondition{Key: "a"}}}))
	deep := must(qdrant.NewIsNull("a"))
	for range 40 {
		deep = must(qdrant.NewFilterAsCondition(deep))
	}
	refuse("nested deeper than", deep)
}

// corpus are points whose neighbors are computed by brute force.
type corpus struct {
	*harness
	vectors [][]float32
}

const corpusDim = 4

// newCorpus makes a collection of random points with the payload {"n": id, "group": id modulo 3, "tag": …}.
func newCorpus(t *testing.T, n int) *corpus {
	c := &corpus{harness: start(t)}
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	c.ok(c.c.CreateCollection(t.Context(), &qdrant.CreateCollection{CollectionName: "c",
		VectorsConfig:       qdrant.NewVectorsConfig(&qdrant.VectorParams{Size: corpusDim, Distance: qdrant.Distance_Dot}),
		SparseVectorsConfig: qdrant.NewSparseVectorsConfig(map[string]*qdrant.SparseVectorParams{"terms": {}})}))
	var points []*qdrant.PointStruct
	for i := range n {
		v := make([]float32, corpusDim)
		for j := range v {
			v[j] = float32(math.Round(rng.NormFloat64()*64) / 64) // sums of products are exact
		}
		c.vectors = append(c.vectors, v)
		points = append(points, &qdrant.PointStruct{Id: qdrant.NewIDNum(uint64(i)),
			Vectors: qdrant.NewVectorsMap(map[string]*qdrant.Vector{"": qdrant.NewVectorDense(v), "terms": qdrant.NewVectorSparse([]uint32{uint32(i % 5)}, []float32{float32(i)})}),
			Payload: qdrant.NewValueMap(map[string]any{"n": i, "group": i % 3, "tag": fmt.Sprint("t", i%4), "ok": i%2 == 0})})
	}
	c.upsert(points...)
	return c
}

// nearest returns the best of the points that pass, scored by score, best first.
func (c *corpus) nearest(k int, pass func(i int) bool, score func(v []float32) float64) (out []uint64) {
	var all []uint64
	for i := range c.vectors {
		if pass == nil || pass(i) {
			all = append(all, uint64(i))
		}
	}
	slices.SortStableFunc(all, func(a, b uint64) int { return cmp.Compare(score(c.vectors[b]), score(c.vectors[a])) })
	return all[:min(k, len(all))]
}

func dot(a, b []float32) (sum float64) {
	for i := range a {
		sum += float64(a[i]) * float64(b[i])
	}
	return sum
}

func (c *corpus) query(m *qdrant.QueryPoints) []*qdrant.ScoredPoint {
	c.Helper()
	m.CollectionName = "c"
	if m.Limit == nil {
		m.Limit = p(uint64(5))
	}
	return must[[]*qdrant.ScoredPoint](c.harness)(c.c.Query(c.Context(), m))
}

func (c *corpus) equal(what string, got []*qdrant.ScoredPoint, want []uint64) {
	c.Helper()
	if !slices.Equal(ids(got), want) {
		c.Errorf("%s: %v, want %v", what, ids(got), want)
	}
}

func TestQueries(t *testing.T) {
	c := newCorpus(t, 60)
	h, ctx := c.harness, t.Context()
	v := []float32{1, -0.5, 0.25, 2}
	like := func(q []float32) func([]float32) float64 { return func(x []float32) float64 { return dot(q, x) } }
	but := func(without ...int) func(int) bool { return func(i int) bool { return !slices.Contains(without, i) } }
	input := qdrant.NewVectorInputDense(v)
	id := func(n uint64) *qdrant.VectorInput { return qdrant.NewVectorInputID(qdrant.NewIDNum(n)) }

	hits := c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryDense(v), WithPayload: qdrant.NewWithPayloadInclude("n"), WithVectors: qdrant.NewWithVectorsInclude("")})
	best := c.nearest(5, nil, like(v))
	c.equal("nearest", hits, best)
	for i, hit := range hits {
		if hit.GetScore() != float32(dot(v, c.vectors[best[i]])) || hit.GetVersion() == 0 || uint64(hit.GetPayload()["n"].GetIntegerValue()) != best[i] || len(hit.GetPayload()) != 1 ||
			!slices.Equal(hit.GetVectors().GetVector().GetDense().GetData(), c.vectors[best[i]]) {
			t.Errorf("hit %d: %v", i, hit)
		}
	}
	plain := c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryDense(v)})
	if len(plain[0].GetPayload()) != 0 || plain[0].GetVectors() != nil {
		t.Errorf("what was not asked for: %v", plain[0])
	}
	var rest struct {
		Points []struct {
			ID    uint64
			Score float32
		}
	}
	h.ok(json.Unmarshal([]byte(h.rest("POST", "/collections/c/points/query", `{"query":[1,-0.5,0.25,2],"limit":5}`)), &rest))
	for i, r := range rest.Points {
		if r.ID != ids(hits)[i] || r.Score != hits[i].GetScore() {
			t.Errorf("hit %d over HTTP: %+v", i, r)
		}
	}
	c.equal("offset", c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryDense(v), Offset: p(uint64(3)), Limit: p(uint64(2))}), best[3:])
	c.equal("threshold", c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryDense(v), ScoreThreshold: p(hits[2].GetScore())}), best[:2])
	c.equal("exact", c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryDense(v), Params: &qdrant.SearchParams{Exact: p(true), HnswEf: p(uint64(20)), Acorn: &qdrant.AcornSearchParams{Enable: p(true)},
		Quantization: &qdrant.QuantizationSearchParams{Ignore: p(true), Rescore: p(true), Oversampling: p(2.)}}}), best)
	odd := &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewMatchBool("ok", false)}}
	c.equal("filtered", c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryDense(v), Filter: odd}), c.nearest(5, func(i int) bool { return i%2 == 1 }, like(v)))
	c.equal("by id", c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryID(qdrant.NewIDNum(8))}), c.nearest(5, but(8), like(c.vectors[8])))
	c.equal("sparse", c.query(&qdrant.QueryPoints{Query: qdrant.NewQuerySparse([]uint32{3}, []float32{1}), Using: p("terms"), Limit: p(uint64(3))}), []uint64{58, 53, 48})
	c.equal("without a query", c.query(&qdrant.QueryPoints{}), []uint64{0, 1, 2, 3, 4})
	if n := len(must[[]*qdrant.ScoredPoint](h)(h.c.Query(ctx, &qdrant.QueryPoints{CollectionName: "c"}))); n != 10 {
		t.Errorf("%d hits unless told otherwise", n)
	}

	// Recommendations.
	recommend := func(s qdrant.RecommendStrategy) *qdrant.Query {
		return qdrant.NewQueryRecommend(&qdrant.RecommendInput{Positive: []*qdrant.VectorInput{id(1), id(2)}, Negative: []*qdrant.VectorInput{id(3)}, Strategy: &s})
	}
	// With this distance the average ranks as the sum does.
	sumScores := func(x []float32) float64 { return dot(c.vectors[1], x) + dot(c.vectors[2], x) - dot(c.vectors[3], x) }
	bestScore := func(x []float32) float64 {
		sigmoid := func(s float64) float64 { return 0.5 * (s/(1+math.Abs(s)) + 1) }
		positive, negative := max(dot(c.vectors[1], x), dot(c.vectors[2], x)), dot(c.vectors[3], x)
		if positive > negative {
			return sigmoid(positive)
		}
		return -sigmoid(negative)
	}
	c.equal("sum scores", c.query(&qdrant.QueryPoints{Query: recommend(qdrant.RecommendStrategy_SumScores)}), c.nearest(5, but(1, 2, 3), sumScores))
	c.equal("best score", c.query(&qdrant.QueryPoints{Query: recommend(qdrant.RecommendStrategy_BestScore)}), c.nearest(5, but(1, 2, 3), bestScore))
	c.equal("average", c.query(&qdrant.QueryPoints{Query: recommend(qdrant.RecommendStrategy_AverageVector)}), c.nearest(5, but(1, 2, 3), sumScores))

	// Discovery and context.
	right := func(x []float32) bool { return dot(c.vectors[4], x) > dot(c.vectors[5], x) }
	pair := &qdrant.ContextInputPair{Positive: id(4), Negative: id(5)}
	discovered := func(target []float32) func(x []float32) float64 {
		return func(x []float32) float64 {
			s := dot(target, x)
			rank := 0.5 * (s/(1+math.Abs(s)) + 1)
			if right(x) {
				return rank + 1
			}
			return rank - 1
		}
	}
	discover := qdrant.NewQueryDiscover(&qdrant.DiscoverInput{Target: input, Context: &qdrant.ContextInput{Pairs: []*qdrant.ContextInputPair{pair}}})
	c.equal("discover", c.query(&qdrant.QueryPoints{Query: discover}), c.nearest(5, but(4, 5), discovered(v)))
	for _, hit := range c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryContext(&qdrant.ContextInput{Pairs: []*qdrant.ContextInputPair{pair}}), Limit: p(uint64(3))}) {
		if !right(c.vectors[hit.GetId().GetNum()]) {
			t.Errorf("context: %v is on the wrong side", hit)
		}
	}

	// Orders, samples, diversity.
	must[*qdrant.UpdateResult](h)(h.c.CreateFieldIndex(ctx, &qdrant.CreateFieldIndexCollection{CollectionName: "c", Wait: p(true), FieldName: "n", FieldType: qdrant.FieldType_FieldTypeInteger.Enum()}))
	ordered := c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryOrderBy(&qdrant.OrderBy{Key: "n", Direction: p(qdrant.Direction_Desc)}), Limit: p(uint64(3))})
	c.equal("order by", ordered, []uint64{59, 58, 57})
	if got := c.query(&qdrant.QueryPoints{Query: qdrant.NewQuerySample(qdrant.Sample_Random), Limit: p(uint64(100))}); len(got) != 60 {
		t.Errorf("a sample of all has %d points", len(got))
	}
	c.equal("mmr without diversity", c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryMMR(input, &qdrant.Mmr{Diversity: p(float32(0)), CandidatesLimit: p(uint32(20))})}), best)
	if diverse := ids(c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryMMR(input, &qdrant.Mmr{CandidatesLimit: p(uint32(60))})})); diverse[0] != best[0] || slices.Equal(diverse, best) {
		t.Errorf("mmr: %v of %v", diverse, best)
	}

	// Prefetches: fusion, rescoring, formulas.
	w := []float32{-1, 1, 0, 0.5}
	lists := []*qdrant.PrefetchQuery{{Query: qdrant.NewQueryDense(v), Limit: p(uint64(8))}, {Query: qdrant.NewQueryDense(w), Limit: p(uint64(8)), Filter: odd}}
	first, second := c.nearest(8, nil, like(v)), c.nearest(8, func(i int) bool { return i%2 == 1 }, like(w))
	fused := func(k float64, weights ...float64) func(uint64) float64 {
		return func(n uint64) (sum float64) {
			for l, list := range [][]uint64{first, second} {
				if place := slices.Index(list, n); place >= 0 {
					sum += 1 / (float64(place+1)/weights[l] + k - 1)
				}
			}
			return sum
		}
	}
	same := func(what string, got []*qdrant.ScoredPoint, score func(uint64) float64) {
		t.Helper()
		last := math.Inf(1)
		for _, hit := range got {
			want := score(hit.GetId().GetNum())
			if math.Abs(float64(hit.GetScore())-want) > 1e-5 || want > last+1e-9 {
				t.Errorf("%s: %v, want score %v after %v", what, hit, want, last)
			}
			last = want
		}
		if len(got) != 5 {
			t.Errorf("%s: %d hits", what, len(got))
		}
	}
	same("rrf", c.query(&qdrant.QueryPoints{Prefetch: lists, Query: qdrant.NewQueryFusion(qdrant.Fusion_RRF)}), fused(2, 1, 1))
	same("weighted rrf", c.query(&qdrant.QueryPoints{Prefetch: lists, Query: qdrant.NewQueryRRF(&qdrant.Rrf{K: p(uint32(10)), Weights: []float32{1, 3}})}), fused(10, 1, 3))
	if got := c.query(&qdrant.QueryPoints{Prefetch: lists, Query: qdrant.NewQueryFusion(qdrant.Fusion_DBSF)}); len(got) != 5 {
		t.Errorf("dbsf: %v", got)
	}
	union := func(i int) bool { return slices.Contains(first, uint64(i)) || slices.Contains(second, uint64(i)) }
	u := []float32{0, 0, 1, 1}
	c.equal("rescored", c.query(&qdrant.QueryPoints{Prefetch: lists, Query: qdrant.NewQueryDense(u)}), c.nearest(5, union, like(u)))
	nested := []*qdrant.PrefetchQuery{{Prefetch: lists, Query: qdrant.NewQueryDense(u), Limit: p(uint64(4))}}
	c.equal("nested", c.query(&qdrant.QueryPoints{Prefetch: nested, Query: qdrant.NewQueryDense(w)}), sorted(c.nearest(4, union, like(u)), func(n uint64) float64 { return dot(w, c.vectors[n]) }))
	// score of the first list, plus n/2 where n is odd, less |-0.25|
	formula := qdrant.NewQueryFormula(&qdrant.Formula{Defaults: qdrant.NewValueMap(map[string]any{"absent": 0.25}), Expression: qdrant.NewExpressionSum(&qdrant.SumExpression{Sum: []*qdrant.Expression{
		qdrant.NewExpressionVariable("$score"),
		qdrant.NewExpressionMult(&qdrant.MultExpression{Mult: []*qdrant.Expression{
			qdrant.NewExpressionCondition(qdrant.NewMatchBool("ok", false)),
			qdrant.NewExpressionDiv(&qdrant.DivExpression{Left: qdrant.NewExpressionVariable("n"), Right: qdrant.NewExpressionConstant(2)}),
		}}),
		qdrant.NewExpressionNeg(qdrant.NewExpressionAbs(qdrant.NewExpressionNeg(qdrant.NewExpressionVariable("absent")))),
	}})})
	same("formula", c.query(&qdrant.QueryPoints{Prefetch: lists[:1], Query: formula}), func(n uint64) float64 {
		return dot(v, c.vectors[n]) + float64(n%2)*float64(n)/2 - 0.25
	})

	// Batches.
	batch := must[[]*qdrant.BatchResult](h)(h.c.QueryBatch(ctx, &qdrant.QueryBatchPoints{CollectionName: "c", QueryPoints: []*qdrant.QueryPoints{
		{CollectionName: "c", Query: qdrant.NewQueryDense(v), Limit: p(uint64(5))}, {Query: qdrant.NewQueryDense(w), Filter: odd, Limit: p(uint64(8))}}}))
	c.equal("batch[0]", batch[0].GetResult(), best)
	c.equal("batch[1]", batch[1].GetResult(), second)
	_, err := h.c.QueryBatch(ctx, &qdrant.QueryBatchPoints{CollectionName: "c", QueryPoints: []*qdrant.QueryPoints{{CollectionName: "d"}}})
	h.refused(err, codes.InvalidArgument, "searches[0]: collection_name")

	// Looking up elsewhere.
	h.ok(h.c.CreateCollection(ctx, &qdrant.CreateCollection{CollectionName: "other", VectorsConfig: qdrant.NewVectorsConfigMap(map[string]*qdrant.VectorParams{"v": {Size: corpusDim, Distance: qdrant.Distance_Dot}})}))
	must[*qdrant.UpdateResult](h)(h.c.Upsert(ctx, &qdrant.UpsertPoints{CollectionName: "other", Points: []*qdrant.PointStruct{
		{Id: qdrant.NewIDNum(1), Vectors: qdrant.NewVectorsMap(map[string]*qdrant.Vector{"v": qdrant.NewVectorDense(v)}), Payload: qdrant.NewValueMap(map[string]any{"name": "one"})}}}))
	c.equal("lookup", c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryID(qdrant.NewIDNum(1)), LookupFrom: &qdrant.LookupLocation{CollectionName: "other", VectorName: p("v")}}), best)

	// Groups, facets, matrices.
	groups := must[[]*qdrant.PointGroup](h)(h.c.QueryGroups(ctx, &qdrant.QueryPointGroups{CollectionName: "c", Query: qdrant.NewQueryDense(v), GroupBy: "group", GroupSize: p(uint64(2)), Limit: p(uint64(3)),
		WithLookup: &qdrant.WithLookup{Collection: "other"}, WithPayload: qdrant.NewWithPayload(true)}))
	if len(groups) != 3 {
		t.Fatalf("groups: %v", groups)
	}
	for _, g := range groups {
		of := g.GetId().GetIntegerValue()
		c.equal(fmt.Sprint("group ", of), g.GetHits(), c.nearest(2, func(i int) bool { return int64(i%3) == of }, like(v)))
		if name := g.GetLookup().GetPayload()["name"].GetStringValue(); (name == "one") != (of == 1) {
			t.Errorf("group %d looked up %v", of, g.GetLookup())
		}
	}
	tags := must[[]*qdrant.PointGroup](h)(h.c.QueryGroups(ctx, &qdrant.QueryPointGroups{CollectionName: "c", Query: qdrant.NewQueryDense(v), GroupBy: "tag"}))
	if len(tags) != 4 || tags[0].GetId().GetStringValue() == "" || len(tags[0].GetHits()) != 3 {
		t.Errorf("groups by tag: %v", tags)
	}
	for field, kind := range map[string]qdrant.FieldType{"tag": qdrant.FieldType_FieldTypeKeyword, "group": qdrant.FieldType_FieldTypeInteger, "ok": qdrant.FieldType_FieldTypeBool} {
		must[*qdrant.UpdateResult](h)(h.c.CreateFieldIndex(ctx, &qdrant.CreateFieldIndexCollection{CollectionName: "c", Wait: p(true), FieldName: field, FieldType: &kind}))
	}
	facet := func(key string, filter *qdrant.Filter, want string) {
		t.Helper()
		var got string
		for _, hit := range must[[]*qdrant.FacetHit](h)(h.c.Facet(ctx, &qdrant.FacetCounts{CollectionName: "c", Key: key, Filter: filter})) {
			switch value := hit.GetValue().GetVariant().(type) {
			case *qdrant.FacetValue_StringValue:
				got += fmt.Sprintf("%s %d ", value.StringValue, hit.GetCount())
			case *qdrant.FacetValue_IntegerValue:
				got += fmt.Sprintf("%d %d ", value.IntegerValue, hit.GetCount())
			case *qdrant.FacetValue_BoolValue:
				got += fmt.Sprintf("%t %d ", value.BoolValue, hit.GetCount())
			}
		}
		if got != want {
			t.Errorf("facet of %s: %q, want %q", key, got, want)
		}
	}
	facet("tag", odd, "t1 15 t3 15 ")
	facet("group", nil, "0 20 1 20 2 20 ")
	facet("ok", &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewRange("n", &qdrant.Range{Lt: p(3.)})}}, "true 2 false 1 ")

	few := &qdrant.SearchMatrixPoints{CollectionName: "c", Sample: p(uint64(100)), Limit: p(uint64(2)), Filter: &qdrant.Filter{Must: []*qdrant.Condition{qdrant.NewRange("n", &qdrant.Range{Lt: p(6.)})}}}
	pairs := must[*qdrant.SearchMatrixPairs](h)(h.c.SearchMatrixPairs(ctx, few)).GetPairs()
	offsets := must[*qdrant.SearchMatrixOffsets](h)(h.c.SearchMatrixOffsets(ctx, few))
	if len(pairs) != 12 || len(offsets.GetIds()) != 6 || len(offsets.GetScores()) != 12 {
		t.Fatalf("matrix: %d pairs, %v", len(pairs), offsets)
	}
	seen := map[uint64][]uint64{}
	for _, one := range pairs {
		seen[one.GetA().GetNum()] = append(seen[one.GetA().GetNum()], one.GetB().GetNum())
		if want := float32(dot(c.vectors[one.GetA().GetNum()], c.vectors[one.GetB().GetNum()])); one.GetScore() != want {
			t.Errorf("pair %v, want score %v", one, want)
		}
	}
	for a, got := range seen {
		if want := c.nearest(2, func(i int) bool { return i < 6 && uint64(i) != a }, like(c.vectors[a])); !slices.Equal(got, want) {
			t.Errorf("neighbors of %d in the matrix: %v, want %v", a, got, want)
		}
	}
	for i := range offsets.GetScores() {
		a, b := offsets.GetIds()[offsets.GetOffsetsRow()[i]].GetNum(), offsets.GetIds()[offsets.GetOffsetsCol()[i]].GetNum()
		if !slices.Contains(seen[a], b) || offsets.GetScores()[i] != float32(dot(c.vectors[a], c.vectors[b])) {
			t.Errorf("offsets have %d, %d", a, b)
		}
	}

	refuse := func(want codes.Code, text string, m *qdrant.QueryPoints) {
		t.Helper()
		m.CollectionName = "c"
		_, err := h.c.Query(ctx, m)
		h.refused(err, want, text)
	}
	refuse(codes.InvalidArgument, "limit", &qdrant.QueryPoints{Limit: p(uint64(0))})
	refuse(codes.InvalidArgument, "limit", &qdrant.QueryPoints{Limit: p(uint64(math.MaxUint64))})
	refuse(codes.InvalidArgument, "hnsw_ef", &qdrant.QueryPoints{Params: &qdrant.SearchParams{HnswEf: p(uint64(0))}})
	refuse(codes.InvalidArgument, "oversampling", &qdrant.QueryPoints{Params: &qdrant.SearchParams{Quantization: &qdrant.QuantizationSearchParams{Oversampling: p(0.5)}}})
	refuse(codes.InvalidArgument, "nearest", &qdrant.QueryPoints{Query: qdrant.NewQueryNearest(&qdrant.VectorInput{})})
	refuse(codes.InvalidArgument, "dimension", &qdrant.QueryPoints{Query: qdrant.NewQueryDense([]float32{1})})
	refuse(codes.InvalidArgument, "needs prefetch", &qdrant.QueryPoints{Query: qdrant.NewQueryFusion(qdrant.Fusion_RRF)})
	refuse(codes.InvalidArgument, "rrf.k", &qdrant.QueryPoints{Prefetch: lists, Query: qdrant.NewQueryRRF(&qdrant.Rrf{K: p(uint32(0))})})
	refuse(codes.InvalidArgument, "strategy", &qdrant.QueryPoints{Query: recommend(9)})
	refuse(codes.Unimplemented, "not offered", &qdrant.QueryPoints{Query: qdrant.NewQueryRelevanceFeedback(&qdrant.RelevanceFeedbackInput{})})
	refuse(codes.InvalidArgument, "no variable", &qdrant.QueryPoints{Prefetch: lists, Query: qdrant.NewQueryFormula(&qdrant.Formula{Expression: qdrant.NewExpressionVariable("$score[x]")})})
	refuse(codes.InvalidArgument, "an expression is empty", &qdrant.QueryPoints{Prefetch: lists, Query: qdrant.NewQueryFormula(&qdrant.Formula{Expression: qdrant.NewExpressionNeg(nil)})})
	refuse(codes.InvalidArgument, "lookup_from", &qdrant.QueryPoints{Query: qdrant.NewQueryID(qdrant.NewIDNum(1)), LookupFrom: &qdrant.LookupLocation{}})
	refuse(codes.NotFound, "absent", &qdrant.QueryPoints{Query: qdrant.NewQueryID(qdrant.NewIDNum(1)), LookupFrom: &qdrant.LookupLocation{CollectionName: "absent"}})
	deep := &qdrant.PrefetchQuery{Query: qdrant.NewQueryDense(v)}
	for range 10 {
		deep = &qdrant.PrefetchQuery{Query: qdrant.NewQueryDense(v), Prefetch: []*qdrant.PrefetchQuery{deep}}
	}
	refuse(codes.InvalidArgument, "nested deeper", &qdrant.QueryPoints{Query: qdrant.NewQueryDense(v), Prefetch: []*qdrant.PrefetchQuery{deep}})
}

// sorted returns points by descending score.
func sorted(all []uint64, score func(uint64) float64) []uint64 {
	slices.SortStableFunc(all, func(a, b uint64) int { return cmp.Compare(score(b), score(a)) })
	return all
}

// TestLegacy asks in the older forms what TestQueries asks in the new one.
func TestLegacy(t *testing.T) {
	c := newCorpus(t, 60)
	h, ctx := c.harness, t.Context()
	client := h.c.GetPointsClient()
	v := []float32{1, -0.5, 0.25, 2}
	like := func(x []float32) float64 { return dot(v, x) }
	best := c.nearest(5, nil, like)
	num := qdrant.NewIDNum

	search := &qdrant.SearchPoints{CollectionName: "c", Vector: v, Limit: 5}
	c.equal("search", must[*qdrant.SearchResponse](h)(client.Search(ctx, search)).GetResult(), best)
	c.equal("search, sparse", must[*qdrant.SearchResponse](h)(client.Search(ctx, &qdrant.SearchPoints{CollectionName: "c", Vector: []float32{1}, SparseIndices: &qdrant.SparseIndices{Data: []uint32{3}}, VectorName: p("terms"), Limit: 2, Offset: p(uint64(1))})).GetResult(), []uint64{53, 48})
	batch := must[*qdrant.SearchBatchResponse](h)(client.SearchBatch(ctx, &qdrant.SearchBatchPoints{CollectionName: "c", SearchPoints: []*qdrant.SearchPoints{search, {Vector: v, Limit: 2}}}))
	c.equal("search batch", batch.GetResult()[1].GetResult(), best[:2])
	groups := must[*qdrant.SearchGroupsResponse](h)(client.SearchGroups(ctx, &qdrant.SearchPointGroups{CollectionName: "c", Vector: v, Limit: 3, GroupBy: "group", GroupSize: 2}))
	for _, g := range groups.GetResult().GetGroups() {
		c.equal("search groups", g.GetHits(), c.nearest(2, func(i int) bool { return int64(i%3) == g.GetId().GetIntegerValue() }, like))
	}
	if n := len(groups.GetResult().GetGroups()); n != 3 {
		t.Errorf("%d groups", n)
	}

	sum := func(x []float32) float64 { return dot(c.vectors[1], x) + dot(v, x) - dot(c.vectors[3], x) }
	recommend := &qdrant.RecommendPoints{CollectionName: "c", Positive: []*qdrant.PointId{num(1)}, PositiveVectors: []*qdrant.Vector{qdrant.NewVectorDense(v)}, Negative: []*qdrant.PointId{num(3)}, Strategy: p(qdrant.RecommendStrategy_SumScores), Limit: 5}
	others := func(i int) bool { return i != 1 && i != 3 }
	want := c.nearest(5, others, sum)
	c.equal("recommend", must[*qdrant.RecommendResponse](h)(client.Recommend(ctx, recommend)).GetResult(), want)
	recommended := must[*qdrant.RecommendBatchResponse](h)(client.RecommendBatch(ctx, &qdrant.RecommendBatchPoints{CollectionName: "c", RecommendPoints: []*qdrant.RecommendPoints{recommend}}))
	c.equal("recommend batch", recommended.GetResult()[0].GetResult(), want)
	inGroups := must[*qdrant.RecommendGroupsResponse](h)(client.RecommendGroups(ctx, &qdrant.RecommendPointGroups{CollectionName: "c", Positive: recommend.GetPositive(), PositiveVectors: recommend.GetPositiveVectors(), Negative: recommend.GetNegative(), Strategy: recommend.Strategy, Limit: 3, GroupBy: "group", GroupSize: 1}))
	for _, g := range inGroups.GetResult().GetGroups() {
		c.equal("recommend groups", g.GetHits(), c.nearest(1, func(i int) bool { return others(i) && int64(i%3) == g.GetId().GetIntegerValue() }, sum))
	}

	example := func(id uint64) *qdrant.VectorExample {
		return &qdrant.VectorExample{Example: &qdrant.VectorExample_Id{Id: num(id)}}
	}
	discover := &qdrant.DiscoverPoints{CollectionName: "c", Target: qdrant.NewTargetVector(qdrant.NewVectorDense(v)), Context: []*qdrant.ContextExamplePair{{Positive: example(4), Negative: example(5)}}, Limit: 5}
	wantDiscovered := ids(c.query(&qdrant.QueryPoints{Query: qdrant.NewQueryDiscover(&qdrant.DiscoverInput{Target: qdrant.NewVectorInputDense(v),
		Context: &qdrant.ContextInput{Pairs: []*qdrant.ContextInputPair{{Positive: qdrant.NewVectorInputID(num(4)), Negative: qdrant.NewVectorInputID(num(5))}}}})}))
	c.equal("discover", must[*qdrant.DiscoverResponse](h)(client.Discover(ctx, discover)).GetResult(), wantDiscovered)
	all := must[*qdrant.DiscoverBatchResponse](h)(client.DiscoverBatch(ctx, &qdrant.DiscoverBatchPoints{CollectionName: "c", DiscoverPoints: []*qdrant.DiscoverPoints{discover}}))
	c.equal("discover batch", all.GetResult()[0].GetResult(), wantDiscovered)
	discover.Target = nil
	for _, hit := range must[*qdrant.DiscoverResponse](h)(client.Discover(ctx, discover)).GetResult() {
		if x := c.vectors[hit.GetId().GetNum()]; dot(c.vectors[4], x) < dot(c.vectors[5], x) {
			t.Errorf("context: %v is on the wrong side", hit)
		}
	}
	_, err := client.Search(ctx, &qdrant.SearchPoints{CollectionName: "c", Vector: v})
	h.refused(err, codes.InvalidArgument, "limit")
}
