package node

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/storage/storagetest"
)

// queried returns a node with the collection c of three shards, whose points are few enough to compute scores by hand, and the
// collection other, whose point 9 is at (0, 2).
func queried(t *testing.T) *engine.DB {
	node := open(t, storagetest.NewCrashFS(nil))
	t.Cleanup(func() { node.Close() })
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(2, vectord.Dot)
	config.Params.ShardNumber = 3
	config.Params.Vectors["euclid"] = vectord.VectorParams{Size: 2, Distance: vectord.Euclid}
	config.Params.Vectors["manhattan"] = vectord.VectorParams{Size: 2, Distance: vectord.Manhattan}
	config.Params.Vectors["multi"] = vectord.VectorParams{Size: 2, Distance: vectord.Dot, Multi: &vectord.MultiParams{Comparator: vectord.MaxSim}}
	config.Params.SparseVectors = map[string]vectord.SparseParams{"sparse": {}, "words": {Modifier: vectord.ModifierIDF}}
	for _, name := range []string{"c", "other"} {
		if err := db.CreateCollection(background, name, config); err != nil {
			t.Fatal(err)
		}
	}
	op := vectord.Operation{Kind: vectord.OpUpsert}
	add := func(id uint64, x, y float32, payload, text string) {
		dense := vectord.Dense([]float32{x, y})
		p := vectord.Point{ID: vectord.NumberID(id), Payload: []byte(payload), Vectors: vectord.Vectors{{Vector: dense}, {Name: "euclid", Vector: dense},
			{Name: "manhattan", Vector: dense}, {Name: "multi", Vector: vectord.Vector{Kind: vectord.MultiVector, Rows: 2, Values: []float32{x, y, y, x}}}}}
		if x > 0 {
			p.Vectors = append(p.Vectors, vectord.NamedVector{Name: "sparse", Vector: vectord.Sparse([]uint32{7, uint32(id)}, []float32{x, 1})})
		}
		p.Vectors = append(p.Vectors, vectord.NamedVector{Name: "words", Vector: vectord.Vector{Kind: vectord.TextVector, Text: &vectord.Document{Text: text, Model: "Qdrant/bm25"}}})
		op.Points = append(op.Points, p)
	}
	add(1, 1, 0, `{"n":1,"place":{"lon":0,"lat":0},"at":"1970-01-01T00:00:10Z","tag":"a"}`, "red apples")
	add(2, 0, 1, `{"n":2,"place":{"lon":0,"lat":1},"at":"1970-01-01T00:00:20Z"}`, "green apples")
	add(3, 2, 2, `{"n":[3],"list":[1,2],"tag":"a"}`, "a red house")
	add(4, -1, 0, `{"n":null}`, "nothing")
	add(5, 3, -1, `{"n":"five"}`, "red red wine")
	for _, name := range []string{"c", "other"} {
		if name == "other" {
			op.Points = op.Points[:0]
			add(9, 0, 2, `{}`, "red")
		}
		if _, err := db.Write(background, name, []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// parsed returns a vector or an id.
func example(v any) vectord.Example {
	switch v := v.(type) {
	case int:
		return *vectord.NearPoint(vectord.NumberID(uint64(v)))
	case []float32:
		return *vectord.Near(v)
	}
	return vectord.Example{Vector: v.(vectord.Vector)}
}

func list2(values ...any) (list []vectord.Example) {
	for _, v := range values {
		list = append(list, example(v))
	}
	return list
}

func TestQueries(t *testing.T) {
	db := queried(t)
	f := func(q vectord.Query, want string) {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 10
		}
		hits, err := db.Search(background, "c", q)
		var got []string
		for _, h := range hits {
			got = append(got, fmt.Sprintf("%s:%.4g", h.ID, h.Score))
		}
		text := strings.Join(got, " ")
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("%+v:\n got %s\nwant %s", q, text, want)
		}
		batch, batchErr := db.SearchBatch(background, "c", []vectord.Query{q, q})
		if (batchErr == nil) != (err == nil) || err == nil && !q.Sample && (len(batch) != 2 || fmt.Sprint(batch[1]) != fmt.Sprint(hits)) {
			t.Errorf("%+v in a batch: %v, %v; alone %v", q, batch, batchErr, hits)
		}
	}
	v := func(x, y float32) []float32 { return []float32{x, y} }
	near := func(e any, using string) vectord.Query {
		n := example(e)
		return vectord.Query{Nearest: &n, Using: using}
	}

	f(near(v(1, 0), ""), "5:3 3:2 1:1 2:0 4:-1")
	f(near(3, ""), "5:4 1:2 2:2 4:-2")
	f(near(1, "euclid"), "2:1.414 4:2 3:2.236 5:2.236")
	f(near(vectord.Vector{Kind: vectord.MultiVector, Rows: 2, Values: []float32{1, 0, 0, -1}}, "multi"), "5:4 1:1 2:1 4:1 3:0")
	f(near(vectord.Sparse([]uint32{1, 7}, []float32{5, 1}), "sparse"), "1:6 5:3 3:2")
	words := near(vectord.Vector{Kind: vectord.TextVector, Text: &vectord.Document{Text: "wine apple", Model: "Qdrant/bm25"}}, "words")
	words.Prefetch, words.Nearest, words.Fusion, words.Using = []vectord.Query{{Nearest: words.Nearest, Using: "words", Limit: 3}}, nil, &vectord.Fusion{}, ""
	f(words, "5:0.5 1:0.3333 2:0.25") // wine is rarer than apples
	f(near(3, "nowhere"), "Not existing vector name error: nowhere")
	f(near(7, ""), "No point with id 7 found")
	f(near(2, "sparse"), `Point with id 2 has no vector with name "sparse"`)

	recommend := func(s vectord.RecommendStrategy, using string, positive, negative []vectord.Example) vectord.Query {
		return vectord.Query{Recommend: &vectord.Recommend{Positive: positive, Negative: negative, Strategy: s}, Using: using}
	}
	f(recommend(vectord.AverageVector, "", list2(1, 2), nil), "3:2 5:1 4:-0.5")
	f(recommend(vectord.AverageVector, "", list2(1, 2), list2(v(1, 0))), "3:2 4:0 5:-1") // (1,1) - (1,0)
	f(recommend(vectord.AverageVector, "sparse", list2(1, vectord.Sparse([]uint32{5}, []float32{2})), nil), "5:2.5 3:1")
	f(recommend(vectord.AverageVector, "multi", list2(1), nil),
		`strategy average_vector: there is no mean of the multivectors "multi", use best_score or sum_scores`)
	f(recommend(vectord.SumScores, "", list2(1, 2), list2(4)), "3:6 5:5")
	f(recommend(vectord.SumScores, "euclid", list2(1), list2(2)), "5:8 3:0 4:-2") // -5+13, -5+5, -4+2
	f(recommend(vectord.SumScores, "manhattan", list2(v(0, 0)), nil), "1:-1 2:-1 4:-1 3:-4 5:-4")
	f(recommend(vectord.SumScores, "sparse", list2(1), list2(vectord.Sparse([]uint32{3}, []float32{4}))), "5:3 3:-2")
	f(recommend(vectord.SumScores, "sparse", nil, list2(vectord.Sparse([]uint32{3}, []float32{4}))), "1:0 5:0 3:-4") // apart is 0
	f(recommend(vectord.BestScore, "", list2(1), list2(2)), "5:0.875 4:-0.5 3:-0.8333")                              // s(3), -s(0), -s(2)
	f(recommend(vectord.BestScore, "", nil, list2(v(1, 0))), "4:-0.25 2:-0.5 1:-0.75 3:-0.8333 5:-0.875")
	f(recommend(vectord.BestScore, "euclid", list2(v(1, 0), v(0, 2)), nil), "1:0.5 2:0.25 3:0.1 4:0.1 5:0.08333")

	pairs := func(values ...any) (list []vectord.ContextPair) {
		for i := 0; i < len(values); i += 2 {
			list = append(list, vectord.ContextPair{Positive: example(values[i]), Negative: example(values[i+1])})
		}
		return list
	}
	discover := func(target any, context ...any) vectord.Query {
		return vectord.Query{Discover: &vectord.Discover{Target: example(target), Context: pairs(context...)}}
	}
	f(discover(v(1, 0)), "5:0.875 3:0.8333 1:0.75 2:0.5 4:0.25")
	f(discover(v(1, 0), v(0, 1), v(1, 0)), "2:1.5 4:1.25 3:0.8333 5:-0.125 1:-0.25")
	context := pairs(v(0, 1), v(1, 0))
	f(vectord.Query{Context: &context}, "2:0 4:0 3:-1.192e-07 1:-0.5 5:-0.8")
	context = pairs(v(0, 1), v(1, 0), 3, 2)
	f(vectord.Query{Context: &context}, "1:-0.5 4:-0.6667 5:-0.8")

	fuse := func(fusion vectord.Fusion, lists ...vectord.Query) vectord.Query {
		for i := range lists {
			lists[i].Limit = 3
		}
		return vectord.Query{Fusion: &fusion, Prefetch: lists}
	}
	x, far := near(v(1, 0), ""), near(v(0, 1), "euclid") // 5 3 1 and 2 1 4
	f(fuse(vectord.Fusion{}, x, far), "1:0.5833 2:0.5 5:0.5 3:0.3333 4:0.25")
	f(fuse(vectord.Fusion{K: 1}, x), "5:1 3:0.5 1:0.3333")
	f(fuse(vectord.Fusion{K: 1, Weights: []float32{1, 3}}, x, far), "2:3 1:1.833 4:1 5:1 3:0.5")
	f(fuse(vectord.Fusion{Weights: []float32{0, 1}}, x, far), "2:0.5 1:0.3333 4:0.25 3:0 5:0")
	// 3 2 1: mean 2, deviation 1. Distances 0, 1.414, 1.414: mean -0.9428, deviation 0.8165.
	f(fuse(vectord.Fusion{Method: vectord.DistributionScore}, x, far), "1:0.7371 2:0.6925 5:0.6667 3:0.5 4:0.4038")
	f(fuse(vectord.Fusion{Method: vectord.DistributionScore}, vectord.Query{}), "1:0.5 2:0.5 3:0.5")
	half := float32(0.5)
	q := fuse(vectord.Fusion{}, x, far)
	q.ScoreThreshold, q.Limit, q.Offset = &half, 1, 1
	f(q, "2:0.5") // at the threshold

	// Nested: what was fused is compared with (0, 1).
	q = near(v(0, 1), "")
	q.Prefetch = []vectord.Query{fuse(vectord.Fusion{}, x, far)}
	q.Prefetch[0].Limit = 3
	f(q, "2:1 1:0 5:-1")
	q.ScoreThreshold = new(float32)
	f(q, "2:1")
	filter := &vectord.Filter{Must: []vectord.Condition{{HasID: &[]vectord.PointID{vectord.NumberID(2), vectord.NumberID(4)}}}}
	q = near(v(1, 0), "")
	q.Prefetch, q.Filter = []vectord.Query{{Limit: 1}}, filter // of those that match, not of all
	f(q, "2:0")
	q.Prefetch = []vectord.Query{{Limit: 5, Filter: &vectord.Filter{MustNot: []vectord.Condition{{HasID: &[]vectord.PointID{vectord.NumberID(2)}}}}}}
	f(q, "4:-1")
	q = near(5, "")
	q.Prefetch = []vectord.Query{near(3, "euclid")}
	q.Prefetch[0].Limit = 1 // 1 and 2 are equally near; neither 3 nor 5 is an answer
	f(q, "1:3")

	mmr := func(diversity float32, candidates, limit int) vectord.Query {
		q := near(v(1, 1), "")
		q.MMR, q.Limit = &vectord.MMR{Diversity: diversity, Candidates: candidates}, limit
		return q
	}
	f(mmr(0, 0, 3), "3:4 5:2 1:1")
	f(mmr(0.5, 5, 5), "3:4 4:-1 1:1 2:1 5:2") // 4 is most unlike 3: (-1+2)/2; then 1 and 2 (1-2)/2, then 5 (2-4)/2
	f(mmr(0.5, 2, 5), "3:4 5:2")
	f(mmr(1, 3, 2), "3:4 1:1")

	q = near(9, "")
	f(q, "No point with id 9 found")
	q.Lookup = &vectord.Lookup{Collection: "other"}
	f(q, "3:4 2:2 1:0 4:0 5:-2")
	manhattan, sparse := "manhattan", "words"
	q.Lookup.Vector = &manhattan
	f(q, "3:4 2:2 1:0 4:0 5:-2")
	q.Lookup.Vector = &sparse
	f(q, `Wrong vector kind: dense vector expected for vector name "", got a sparse vector`)
	q.Lookup.Collection = "missing"
	f(q, "Collection `missing` doesn't exist!")

	f(vectord.Query{Limit: 2, Offset: 1}, "2:0 3:0")
	q = fuse(vectord.Fusion{}, vectord.Query{Offset: 3})
	f(q, "4:0.5 5:0.3333")
	f(vectord.Query{OrderBy: &vectord.OrderBy{Key: "n"}}, "order_by is not offered by this server")
}

func TestFormulas(t *testing.T) {
	db := queried(t)
	number := func(x float64) vectord.Expression { return vectord.Expression{Number: x} }
	with := func(kind vectord.ExpressionKind, args ...vectord.Expression) vectord.Expression {
		return vectord.Expression{Kind: kind, Args: args}
	}
	score := vectord.Expression{Kind: vectord.ExprScore}
	value := func(key string) vectord.Expression { return vectord.Expression{Kind: vectord.ExprValue, Key: key} }
	// of computes an expression for points 1, 2 and 3, whose scores are 10, 20 and 30.
	of := func(e vectord.Expression, defaults, want string) {
		t.Helper()
		ids := []vectord.PointID{vectord.NumberID(1), vectord.NumberID(2), vectord.NumberID(3)}
		q := vectord.Query{Limit: 10, Formula: &vectord.Formula{Expression: e}, Prefetch: []vectord.Query{
			{Limit: 3, Nearest: vectord.Near([]float32{10, 0}), Filter: &vectord.Filter{Must: []vectord.Condition{{HasID: &ids}}}},
			{Limit: 1, Filter: &vectord.Filter{Must: []vectord.Condition{{HasID: &[]vectord.PointID{ids[0]}}}}}}}
		if defaults != "" {
			if err := json.Unmarshal([]byte(defaults), &q.Formula.Defaults); err != nil {
				t.Fatal(err)
			}
		}
		hits, err := db.Search(background, "c", q)
		scores := map[vectord.PointID]float32{}
		for i, h := range hits {
			scores[h.ID] = h.Score
			if i > 0 && h.Score > hits[i-1].Score {
				t.Errorf("%+v: not in descending order: %v", e, hits)
			}
		}
		text := fmt.Sprintf("%.5g %.5g %.5g", scores[ids[0]], scores[ids[1]], scores[ids[2]])
		if err != nil {
			text = err.Error()
		}
		if text != want {
			t.Errorf("%+v:\n got %s\nwant %s", e, text, want)
		}
	}
	of(number(1.5), "", "1.5 1.5 1.5")
	of(score, "", "10 0 20")
	of(vectord.Expression{Kind: vectord.ExprScore, Score: 1}, "", "0 0 0")
	of(vectord.Expression{Kind: vectord.ExprScore, Score: 1}, `{"$score[1]":7}`, "0 7 7")
	of(score, `{"$score":"x"}`, `defaults: "$score[0]": expected a number, got string`)
	of(value("n"), "", "1 2 3")
	of(value("tag"), "", `formula: point 1: "tag" is string, expected a number`)
	of(value("missing"), "", `formula: point 1: "missing" is missing and has no default`)
	of(value("missing"), `{"missing":-1}`, "-1 -1 -1")
	of(value("missing"), `{"missing":null}`, `formula: point 1: "missing" is missing and has no default`)
	of(value("n"), `{"n":"x"}`, `defaults: "n": expected a number, got string`)
	of(value("list"), `{"list":0}`, `formula: point 3: "list" has 2 values, expected a number`)
	of(value("list[1]"), `{"list[1]":0}`, "0 0 2")
	text := "a"
	tagged := vectord.Expression{Kind: vectord.ExprCondition, Condition: &vectord.Condition{Field: &vectord.FieldCondition{Key: "tag",
		Match: &vectord.Match{Value: &vectord.Scalar{Kind: vectord.ScalarString, String: text}}}}}
	of(tagged, "", "1 0 1")
	of(with(vectord.ExprSum, score, tagged, number(0.5)), "", "11.5 0.5 21.5")
	of(with(vectord.ExprSum), "", "0 0 0")
	of(with(vectord.ExprMult), "", "1 1 1")
	of(with(vectord.ExprMult, number(2), value("n"), score), "", "20 0 120")
	of(with(vectord.ExprMult, number(0), value("missing")), "", "0 0 0") // not looked at
	of(with(vectord.ExprNeg, value("n")), "", "-1 -2 -3")
	of(with(vectord.ExprAbs, with(vectord.ExprSum, value("n"), number(-2))), "", "1 0 1")
	of(with(vectord.ExprSqrt, score), "", "3.1623 0 4.4721")
	of(with(vectord.ExprSqrt, number(-1)), "", "formula: point 1: sqrt of -1 is NaN")
	of(with(vectord.ExprPow, value("n"), number(3)), "", "1 8 27")
	of(with(vectord.ExprPow, number(0), number(-1)), "", "formula: point 1: 0 to the power of -1 is +Inf")
	of(with(vectord.ExprExp, value("n")), "", "2.7183 7.3891 20.086")
	of(with(vectord.ExprExp, number(1000)), "", "formula: point 1: exp of 1000 is +Inf")
	of(with(vectord.ExprExp, number(100)), "", "formula: point 1: the score is 2.6881171418161356e+43")
	of(with(vectord.ExprLog10, number(100)), "", "2 2 2")
	of(with(vectord.ExprLog10, number(0)), "", "formula: point 1: log10 of 0 is -Inf")
	of(with(vectord.ExprLn, number(math.E)), "", "1 1 1")
	of(with(vectord.ExprDiv, number(6), value("n")), "", "6 3 2")
	of(with(vectord.ExprDiv, number(1), score), "", "formula: point 2: 1 divided by 0 is +Inf")
	of(with(vectord.ExprDiv, score, score), "", "1 0 1") // 0 whatever the divisor
	of(vectord.Expression{Kind: vectord.ExprDiv, Args: []vectord.Expression{number(1), score}, Number: -3, HasNumber: true}, "", "0.1 -3 0.05")
	of(vectord.Expression{Kind: vectord.ExprTime, Time: 1_500_000}, "", "1.5 1.5 1.5")
	of(vectord.Expression{Kind: vectord.ExprTimeKey, Key: "at"}, `{"at":"1970-01-02"}`, "10 20 86400")
	of(vectord.Expression{Kind: vectord.ExprTimeKey, Key: "at"}, `{"at":5}`, `defaults: "at": expected a date and time, got number`)
	of(vectord.Expression{Kind: vectord.ExprGeoDistance, Key: "place"}, `{"place":{"lon":180,"lat":0}}`, "0 1.112e+05 2.0015e+07") // a degree and half the equator
	of(vectord.Expression{Kind: vectord.ExprGeoDistance, Key: "place"}, "", `formula: point 3: "place" is missing and has no default`)

	of(with(vectord.ExprLinDecay, value("n")), "", "0.5 0 0")
	of(with(vectord.ExprExpDecay, value("n")), "", "0.5 0.25 0.125")
	of(with(vectord.ExprGaussDecay, value("n")), "", "0.5 0.0625 0.0019531")
	midpoint := 0.8
	scaled := func(kind vectord.ExpressionKind) vectord.Expression {
		return vectord.Expression{Kind: kind, Args: []vectord.Expression{value("n"), number(3)}, Number: 2, HasNumber: true, Midpoint: &midpoint}
	}
	of(scaled(vectord.ExprLinDecay), "", "0.8 0.9 1")
	of(scaled(vectord.ExprExpDecay), "", "0.8 0.89443 1")
	of(scaled(vectord.ExprGaussDecay), "", "0.8 0.94574 1")

	threshold := float32(10)
	hits, err := db.Search(background, "c", vectord.Query{Limit: 2, Offset: 1, ScoreThreshold: &threshold, Formula: &vectord.Formula{Expression: score},
		Prefetch: []vectord.Query{{Limit: 5, Nearest: vectord.Near([]float32{10, 0})}}})
	if err != nil || len(hits) != 2 || hits[0].ID.Number() != 3 || hits[1].ID.Number() != 1 {
		t.Errorf("at the threshold: %v, %v", hits, err)
	}
}

// TestScoresAroundExamples checks, where there are more points than a scorer looks at, that those around the examples have the
// best among them, and that an exact search looks at all.
func TestScoresAroundExamples(t *testing.T) {
	const n = 12_000
	seed := seedOf(t)
	disk, vectors := indexed(t, seed, n)
	node := open(t, disk)
	defer node.Close()
	db := node.Engine()
	rng := rand.New(rand.NewPCG(seed, 9))
	pick := func() vectord.Example { return vectord.Example{Vector: vectord.Dense(vectors[rng.IntN(n)])} }
	recall := func(name string, least float64, draw func(q *vectord.Query)) {
		t.Helper()
		found, all := 0, 0
		for range 10 {
			q := vectord.Query{Limit: 10, Explain: new(vectord.Explanation)}
			draw(&q)
			hits, err := db.Search(background, "c", q)
			if err != nil {
				t.Fatal(err)
			}
			if x := q.Explain; x.Exact || len(x.Plans) != 1 || x.Plans[0] != "examples" || x.Matching != n || x.Candidates < 100 || x.Candidates > n/2 {
				t.Fatalf("%s: %+v", name, x)
			}
			q.Params.Exact = true
			exact, err := db.Search(background, "c", q)
			if err != nil || len(hits) != 10 || len(exact) != 10 || !q.Explain.Exact || q.Explain.Plans[0] != "exact" {
				t.Fatalf("%s: %d and %d hits, %v, %+v", name, len(hits), len(exact), err, q.Explain)
			}
			for i := range exact {
				all++
				if hits[i].Score >= exact[i].Score-1e-6 {
					found++
				}
			}
		}
		if share := float64(found) / float64(all); share < least {
			t.Errorf("%s: %v of the places have the score of the exact answer, want %v (seed %d)", name, share, least, seed)
		}
	}
	recall("best_score", 0.95, func(q *vectord.Query) {
		q.Recommend = &vectord.Recommend{Positive: []vectord.Example{pick(), pick()}, Negative: []vectord.Example{pick()}, Strategy: vectord.BestScore}
	})
	recall("sum_scores", 0.8, func(q *vectord.Query) {
		q.Recommend = &vectord.Recommend{Positive: []vectord.Example{pick(), pick()}, Strategy: vectord.SumScores}
	})
	recall("discover", 0.8, func(q *vectord.Query) {
		q.Discover = &vectord.Discover{Target: pick(), Context: []vectord.ContextPair{{Positive: pick(), Negative: pick()}}}
	})
	recall("context", 0.95, func(q *vectord.Query) {
		q.Context = &[]vectord.ContextPair{{Positive: pick(), Negative: pick()}, {Positive: pick(), Negative: pick()}}
	})

	// Few match, and with nothing to be near to all must be looked at.
	q := vectord.Query{Limit: 10, Explain: new(vectord.Explanation), Filter: &vectord.Filter{Must: []vectord.Condition{{Field: &vectord.FieldCondition{
		Key: "tenth", Match: &vectord.Match{Value: &vectord.Scalar{Kind: vectord.ScalarInt, Int: 3}}}}}}}
	q.Recommend = &vectord.Recommend{Positive: []vectord.Example{pick()}, Strategy: vectord.SumScores}
	if _, err := db.Search(background, "c", q); err != nil || !q.Explain.Exact || q.Explain.Matching != n/10 {
		t.Errorf("of a tenth: %v, %+v", err, q.Explain)
	}
	q.Recommend, q.Filter = &vectord.Recommend{Negative: []vectord.Example{pick()}, Strategy: vectord.SumScores}, nil
	if _, err := db.Search(background, "c", q); err != nil || !q.Explain.Exact {
		t.Errorf("of negative examples: %v, %+v", err, q.Explain)
	}
	// A fusion explains its prefetches together.
	q = vectord.Query{Limit: 10, Explain: new(vectord.Explanation), Fusion: &vectord.Fusion{}, Prefetch: []vectord.Query{
		{Limit: 10, Nearest: vectord.Near(vectors[0])}, {Limit: 10, Nearest: vectord.Near(vectors[1]), Params: vectord.SearchParams{Exact: true}}}}
	if _, err := db.Search(background, "c", q); err != nil || fmt.Sprint(q.Explain.Plans) != "[exact walk]" || q.Explain.Exact || q.Explain.Visited == 0 || q.Explain.Matching != 2*n {
		t.Errorf("of a fusion: %v, %+v", err, q.Explain)
	}
}

// TestQueriesWhilePointsMove checks that points which are written again and again, and so move from slot to slot, are in every
// answer once.
func TestQueriesWhilePointsMove(t *testing.T) {
	const points, writes = 60, 300
	node := open(t, storagetest.NewCrashFS(nil))
	defer node.Close()
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Params.ShardNumber = 2
	config.Params.SparseVectors = map[string]vectord.SparseParams{"sparse": {}}
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	seed := seedOf(t)
	vectors := clustered(rand.New(rand.NewPCG(seed, 1)), points)
	write := func(ids ...int) error {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for _, id := range ids {
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(id)), Payload: []byte(`{"n":1}`), Vectors: vectord.Vectors{
				{Vector: vectord.Dense(slices.Clone(vectors[id]))}, {Name: "sparse", Vector: vectord.Sparse([]uint32{1}, []float32{float32(id)})}}})
		}
		_, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{})
		return err
	}
	for id := range points {
		if err := write(id); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		rng := rand.New(rand.NewPCG(seed, 2))
		for range writes {
			if err := write(rng.Perm(points)[:10]...); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	one := vectord.Example{Vector: vectord.Dense(vectors[0])}
	near := vectord.Query{Nearest: &one, Limit: points}
	sparse := vectord.Query{Nearest: &vectord.Example{Vector: vectord.Sparse([]uint32{1}, []float32{1})}, Using: "sparse", Limit: points}
	filter := &vectord.Filter{Must: []vectord.Condition{{Field: &vectord.FieldCondition{Key: "n", Match: &vectord.Match{Value: &vectord.Scalar{Kind: vectord.ScalarInt, Int: 1}}}}}}
	queries := []vectord.Query{
		{Fusion: &vectord.Fusion{}, Prefetch: []vectord.Query{near, sparse}, Filter: filter},
		{Fusion: &vectord.Fusion{Method: vectord.DistributionScore}, Prefetch: []vectord.Query{sparse}},
		{Nearest: &one, Prefetch: []vectord.Query{sparse}},
		{Formula: &vectord.Formula{Expression: vectord.Expression{Kind: vectord.ExprValue, Key: "n"}}, Prefetch: []vectord.Query{near}},
		{Recommend: &vectord.Recommend{Positive: []vectord.Example{one}, Strategy: vectord.SumScores}, Filter: filter},
		{Context: &[]vectord.ContextPair{{Positive: one, Negative: one}}},
		{Context: &[]vectord.ContextPair{{Positive: *sparse.Nearest, Negative: *sparse.Nearest}}, Using: "sparse"},
		{Nearest: &one, MMR: &vectord.MMR{Diversity: 0.5}},
		{Sample: true}, {Sample: true, Filter: filter}, {},
	}
	for i := 0; ; i++ {
		q := queries[i%len(queries)]
		q.Limit, q.Select = points, vectord.Selection{Payload: true, Vectors: true}
		hits, err := db.Search(background, "c", q)
		seen := map[vectord.PointID]bool{}
		for _, h := range hits {
			seen[h.ID] = true
			if len(h.Vectors) != 2 || len(h.Payload) == 0 || !slices.Equal(h.Vectors.Unnamed(), vectors[h.ID.Number()]) {
				t.Fatalf("query %d: %+v", i%len(queries), h)
			}
		}
		if err != nil || len(hits) != points || len(seen) != points {
			t.Fatalf("query %d: %d hits of %d points, error %v (seed %d)", i%len(queries), len(hits), len(seen), err, seed)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
	}
}

// TestSampleIsFair counts how often each point comes, of shards of unequal sizes.
func TestSampleIsFair(t *testing.T) {
	db := queried(t)
	const draws = 3000
	seen := map[uint64]int{}
	for range draws {
		hits, err := db.Search(background, "c", vectord.Query{Sample: true, Limit: 2})
		if err != nil || len(hits) != 2 || hits[0].ID == hits[1].ID {
			t.Fatalf("%v, %v", hits, err)
		}
		for _, h := range hits {
			seen[h.ID.Number()]++
		}
	}
	// Each comes in two fifths of the answers; the deviation of the count is 27, and six of it are left out in practice never.
	for id := range uint64(5) {
		if n := seen[id+1]; n < draws*2/5-160 || n > draws*2/5+160 {
			t.Errorf("point %d came %d times in %d samples", id+1, n, draws)
		}
	}
}

// BenchmarkFusion measures a fusion of two prefetches of 100 points each.
func BenchmarkFusion(b *testing.B) {
	n, db := benchNode(b, 1)
	defer n.Close()
	rng := rand.New(rand.NewPCG(1, 1))
	op := benchPoints(rng, 0, 5000)
	if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
		b.Fatal(err)
	}
	waitIndexed(b, db, 5000)
	prefetch := func(i int) vectord.Query {
		return vectord.Query{Nearest: vectord.Near(op.Points[i].Vectors.Unnamed()), Limit: 100}
	}
	b.ReportAllocs()
	for b.Loop() {
		q := vectord.Query{Fusion: &vectord.Fusion{}, Limit: 10, Prefetch: []vectord.Query{prefetch(0), prefetch(1)}}
		if _, err := db.Search(background, "c", q); err != nil {
			b.Fatal(err)
		}
	}
}
