package client

import (
	"context"
	"encoding/json"
	"net"
	"reflect"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/server"
)

// asked is an engine that keeps the query that it was asked and finds nothing.
type asked struct {
	*model.Model
	query vectord.Query
}

func (a *asked) Search(_ context.Context, _ string, q vectord.Query) ([]vectord.Hit, error) {
	a.query = q
	return nil, nil
}

// TestQueryForms sends queries of every form to a server and checks that it reads what was meant.
func TestQueryForms(t *testing.T) {
	engine := &asked{Model: model.New()}
	s := server.New(engine, server.Options{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	defer func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	c, err := New("http://"+ln.Addr().String(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := engine.CreateCollection(t.Context(), "other", vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	f := func(name string, q vectord.Query) {
		t.Helper()
		if q.Limit == 0 {
			q.Limit = 3
		}
		if _, err := c.Query(t.Context(), "c", q); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !reflect.DeepEqual(engine.query, q) {
			t.Errorf("%s was read as\n%+v, want\n%+v", name, engine.query, q)
		}
	}
	one, uuid := vectord.NumberID(1<<64-1), vectord.UUIDID([16]byte{7})
	near := func(v ...float32) vectord.Example { return *vectord.Near(v) }
	threshold, half, other := float32(0.25), 0.5, "other"
	filter, err := vectord.ParseFilter([]byte(`{"must":[{"key":"a","range":{"gt":9007199254740993}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	f("list", vectord.Query{Offset: 2, Filter: filter, Select: vectord.Selection{Vectors: true, VectorNames: []string{"a", ""}, Payload: true}})
	f("dense", vectord.Query{Nearest: vectord.Near([]float32{1, 0.1}), ScoreThreshold: &threshold, Using: "a",
		Params: vectord.SearchParams{HNSWEf: 5, Exact: true, IndexedOnly: true, Quantization: vectord.QuantizationParams{ByCodes: true, Oversampling: 2.5}}})
	f("point", vectord.Query{Nearest: vectord.NearPoint(uuid), Lookup: &vectord.Lookup{Collection: "other", Vector: &other},
		Params: vectord.SearchParams{Quantization: vectord.QuantizationParams{Ignore: true}}})
	f("sparse", vectord.Query{Nearest: &vectord.Example{Vector: vectord.Sparse([]uint32{1, 1<<32 - 1}, []float32{1, 2})}})
	f("multi", vectord.Query{Nearest: &vectord.Example{Vector: vectord.Vector{Kind: vectord.MultiVector, Rows: 2, Values: []float32{1, 2, 3, 4}}}})
	f("text", vectord.Query{Nearest: &vectord.Example{Vector: vectord.Vector{Kind: vectord.TextVector,
		Text: &vectord.Document{Text: "a \"b\"", Model: "Qdrant/bm25", Options: json.RawMessage(`{"k":2}`)}}}})
	f("mmr", vectord.Query{Nearest: vectord.Near([]float32{1}), MMR: &vectord.MMR{Diversity: 0.25, Candidates: 7}})
	f("recommend", vectord.Query{Recommend: &vectord.Recommend{Positive: []vectord.Example{{ID: &one}, near(1)}, Negative: []vectord.Example{near(2)},
		Strategy: vectord.SumScores}})
	pairs := []vectord.ContextPair{{Positive: near(1), Negative: vectord.Example{ID: &one}}}
	f("discover", vectord.Query{Discover: &vectord.Discover{Target: near(3), Context: pairs}})
	f("context", vectord.Query{Context: &pairs})
	f("order", vectord.Query{OrderBy: &vectord.OrderBy{Key: "a.b", Descending: true, StartFrom: &vectord.OrderValue{Kind: vectord.OrderInt, Int: 1<<63 - 1}}})
	f("order by time", vectord.Query{OrderBy: &vectord.OrderBy{Key: "t", StartFrom: &vectord.OrderValue{Kind: vectord.OrderTime, Int: 1_700_000_000_000_001}}})
	f("order from a float", vectord.Query{OrderBy: &vectord.OrderBy{Key: "t", StartFrom: &vectord.OrderValue{Kind: vectord.OrderFloat, Float: 0.1}}})
	f("sample", vectord.Query{Sample: true})
	prefetch := []vectord.Query{{Nearest: vectord.Near([]float32{1}), Using: "a", Limit: 4, Prefetch: []vectord.Query{{Sample: true, Limit: 9, Filter: filter}}},
		{Nearest: vectord.NearPoint(one), Limit: 5}}
	f("rrf", vectord.Query{Prefetch: prefetch, Fusion: &vectord.Fusion{}})
	f("weighted rrf", vectord.Query{Prefetch: prefetch, Fusion: &vectord.Fusion{K: 60, Weights: []float32{1, 2}}})
	f("dbsf", vectord.Query{Prefetch: prefetch, Fusion: &vectord.Fusion{Method: vectord.DistributionScore}})

	number := func(n float64) vectord.Expression { return vectord.Expression{Kind: vectord.ExprNumber, Number: n} }
	value := vectord.Expression{Kind: vectord.ExprValue, Key: "a.b"}
	of := func(kind vectord.ExpressionKind, args ...vectord.Expression) vectord.Expression {
		return vectord.Expression{Kind: kind, Args: args}
	}
	div := of(vectord.ExprDiv, number(1), value)
	div.Number, div.HasNumber = 3, true
	decay := of(vectord.ExprGaussDecay, value, of(vectord.ExprTime))
	decay.Args[1].Time = 1_700_000_000_000_001
	decay.Number, decay.HasNumber, decay.Midpoint = 86400, true, &half
	f("formula", vectord.Query{Prefetch: prefetch, Formula: &vectord.Formula{Defaults: map[string]json.RawMessage{"a.b": json.RawMessage("1")},
		Expression: of(vectord.ExprSum, vectord.Expression{Kind: vectord.ExprScore, Score: 1}, of(vectord.ExprMult, number(2), value),
			of(vectord.ExprNeg, of(vectord.ExprAbs, of(vectord.ExprSqrt, of(vectord.ExprExp, of(vectord.ExprLog10, of(vectord.ExprLn, value)))))),
			of(vectord.ExprPow, value, number(2)), div, decay, of(vectord.ExprLinDecay, value), of(vectord.ExprExpDecay, value),
			vectord.Expression{Kind: vectord.ExprGeoDistance, Key: "place", Origin: vectord.GeoPoint{Lon: 1, Lat: 2}},
			vectord.Expression{Kind: vectord.ExprTimeKey, Key: "when"},
			vectord.Expression{Kind: vectord.ExprCondition, Condition: &vectord.Condition{IsEmpty: "a"}})}})

	if _, err := c.Query(t.Context(), "c", vectord.Query{Limit: 1, Sample: true, Nearest: vectord.NearPoint(one)}); err == nil {
		t.Error("a query of two forms was sent")
	}
	if _, err := c.Query(t.Context(), "c", vectord.Query{Limit: 1, Formula: &vectord.Formula{Expression: of(vectord.ExprPow, value)}}); err == nil {
		t.Error("a power without an exponent was sent")
	}
}
