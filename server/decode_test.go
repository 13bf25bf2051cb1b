package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// checkDecoder checks what holds for every decoder and any body: what is refused is refused as the client's fault, and
// what is accepted keeps nothing of the body, whose memory belongs to the next request.
func checkDecoder[T any](t *testing.T, decode func([]byte) (T, error), body []byte) (T, bool) {
	t.Helper()
	scratch := bytes.Clone(body)
	got, err := decode(scratch)
	if err != nil {
		if status, text := statusOf(err); status != 400 && status != 422 || strings.HasSuffix(text, ": ") {
			t.Fatalf("%q is refused with status %d: %q", body, status, text)
		}
		return got, false
	}
	for i := range scratch {
		scratch[i] = '#'
	}
	again, err := decode(bytes.Clone(body))
	if err != nil || !reflect.DeepEqual(got, again) {
		t.Fatalf("%q is decoded to %+v and, after its memory was used again, to %+v, %v", body, again, got, err)
	}
	return got, true
}

func checkOperations(t *testing.T, ops ...vectord.Operation) {
	t.Helper()
	for _, op := range ops {
		for _, p := range op.Points {
			for _, v := range p.Vectors {
				checkVector(t, &v.Vector)
			}
			if p.Payload != nil && p.Payload[0] != '{' {
				t.Fatalf("payload %q was accepted", p.Payload)
			}
		}
		if op.Kind != vectord.OpUpsert && op.Kind != vectord.OpUpdateVectors && (op.IDs == nil) == (op.Filter == nil) {
			t.Fatalf("%+v selects neither by ids nor by filter, or by both", op)
		}
	}
}

func checkVector(t *testing.T, v *vectord.Vector) {
	t.Helper()
	if v.Kind == vectord.DenseVector && (len(v.Values) == 0 || len(v.Values) > vectord.MaxDimension) ||
		v.Kind == vectord.MultiVector && (v.Rows < 1 || len(v.Values)%v.Rows != 0) ||
		v.Kind == vectord.SparseVector && len(v.Indices) != len(v.Values) || v.Kind == vectord.TextVector && v.Text == nil {
		t.Fatalf("the vector %+v was accepted", v)
	}
	for _, x := range v.Values {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			t.Fatalf("component %v was accepted", x)
		}
	}
}

func checkQueries(t *testing.T, queries ...query) {
	t.Helper()
	for _, q := range queries {
		if err := q.Check(); err != nil {
			t.Fatalf("%+v was accepted: %v", q, err)
		}
		if q.Limit < 1 || q.Limit > vectord.MaxLimit || q.Offset < 0 || q.Offset > maxOffset ||
			q.Params.HNSWEf < 0 || q.Params.HNSWEf > vectord.MaxLimit {
			t.Fatalf("%+v was accepted", q)
		}
	}
}

func fuzzOperation(f *testing.F, decode func([]byte) (vectord.Operation, error), seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if op, ok := checkDecoder(t, decode, body); ok {
			checkOperations(t, op)
		}
	})
}

func FuzzDecodeUpsert(f *testing.F) {
	fuzzOperation(f, decodeUpsert,
		`{"points":[{"id":1,"vector":[1,2e-3],"payload":{"a":[1,{"b":null}]}},{"id":"550e8400-e29b-41d4-a716-446655440000","vector":{"":[0]}}]}`,
		`{"batch":{"ids":[1,2],"vectors":[[1],{"":[2]}],"payloads":[null,{"a":"\u00e9"}]},"shard_key":null,"update_mode":"upsert"}`,
		`{"batch":{"ids":[1],"vectors":{"":[[1,2]]}}}`, `{"points":[{"id":1,"vector":{"text":"x","model":"m"}}]}`)
}

func FuzzDecodeUpdateVectors(f *testing.F) {
	fuzzOperation(f, decodeUpdateVectors, `{"points":[{"id":1,"vector":[1,2]},{"id":2,"vector":{"":[3]}}]}`, `{"points":[]}`)
}

func FuzzDecodeDelete(f *testing.F) {
	fuzzOperation(f, decodeDelete, `{"points":[1,"550e8400e29b41d4a716446655440000"]}`, `{"filter":{"must":{"key":"a","match":{"value":1}}}}`, `{"filter":{}}`)
}

func FuzzDecodeClearPayload(f *testing.F) {
	fuzzOperation(f, decodeClearPayload, `{"points":[1]}`, `{"filter":{"should":[{"is_null":{"key":"a"}}]}}`)
}

func FuzzDecodeSetPayload(f *testing.F) {
	fuzzOperation(f, decodeSetPayload, `{"payload":{"a":1},"points":[1],"key":"b.c"}`, `{"payload":{},"filter":{}}`)
}

func FuzzDecodeOverwritePayload(f *testing.F) {
	fuzzOperation(f, decodeOverwritePayload, `{"payload":{"a":18446744073709551615},"points":[18446744073709551615]}`)
}

func FuzzDecodeDeletePayload(f *testing.F) {
	fuzzOperation(f, decodeDeletePayload, `{"keys":["a","b[].c"],"points":[1]}`, `{"keys":[],"filter":{}}`)
}

func FuzzDecodeOperations(f *testing.F) {
	f.Add([]byte(`{"operations":[{"upsert":{"points":[{"id":1,"vector":[1]}]}},{"delete":{"points":[1]}},{"set_payload":{"payload":{},"points":[1]}},
		{"overwrite_payload":{"payload":{},"filter":{}}},{"delete_payload":{"keys":["a"],"points":[1]}},{"clear_payload":{"points":[1]}},
		{"update_vectors":{"points":[{"id":1,"vector":[2]}]}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if ops, ok := checkDecoder(t, decodeOperations, body); ok {
			checkOperations(t, ops...)
		}
	})
}

// plainBodies have few fields but the vector, and most of them something wrong.
var plainBodies = []string{`{"FIELD":[1,-2.5e3],"limit":3}`, ` { "FIELD" : [ 1 , 2 ] , "limit" : 3 } `, `{"FIELD":[1]}`, `{"FIELD":[1],}`,
	`{"FIELD":[1]} x`, `{"FIELD":[1],"limit":3,"FIELD":[2]}`, `{"FIELD":[1],"limit":3,"\u0071uery":[2]}`, `{"FIELD":[1],"limit":3,"\u0076ector":[2]}`, `{"FIELD":[1],"limit":0}`,
	`{"FIELD":[],"limit":3}`, `{"FIELD":[01],"limit":3}`, `{"FIELD":[1e99],"limit":3}`, `{"FIELD":[1 2],"limit":3}`, `{"FIELD":[[1]],"limit":3}`,
	`{"FIELD":["]"],"limit":3}`, `{"FIELD":[1],"limit":3,"filter":{"must":[{"key":"FIELD","match":{"value":"]"}}]}}`, `{"FIELD":[1] "limit":3}`,
	`{"limit":3,"FIELD":[1]}`, `{ "limit" : 3 , "FIELD" : [1] , "offset":2}`, `{"using":","FIELD":[1],"}`, `{"limit":3,,"FIELD":[1]}`, `{,"FIELD":[1]}`,
	`{"params":{"exact":true},"FIELD":[1]}`, `{"using":"FIELD","FIELD":[1]}`, `{"limit":3 "FIELD":[1]}`, "{\"limit\":3,\v\"FIELD\":[1]}",
	`{"FIELD":[1],"limit":3`, `{"FIELD":[1`, `{"FIELD"`, `{"FIELDS":[1],"limit":3}`, `[{"FIELD":[1]}]`, `{"FIELD":[1],"limit":"ÿ"}`}

// checkShortCut compares what a decoder says with what it says without its short cut.
func checkShortCut(t *testing.T, body []byte, decode func([]byte) (query, error), whole func() (query, error)) {
	t.Helper()
	got, err := decode(body)
	want, wantErr := whole()
	// Of several errors in a filter any may be told, so the texts may differ.
	if vectord.KindOf(err) != vectord.KindOf(wantErr) || (err == nil) != (wantErr == nil) || !reflect.DeepEqual(got, want) {
		t.Fatalf("%q is decoded to %+v, %v, and without the short cut to %+v, %v", body, got, err, want, wantErr)
	}
}

func TestDecodeQuantizationParams(t *testing.T) {
	f := func(params string, want vectord.QuantizationParams) {
		t.Helper()
		q, err := decodeQuery([]byte(`{"query":[1],"params":` + params + `}`))
		if err != nil || q.Params.Quantization != want {
			t.Errorf("%s is %+v, error %v; want %+v", params, q.Params.Quantization, err, want)
		}
	}
	f(`null`, vectord.QuantizationParams{})
	f(`{}`, vectord.QuantizationParams{})
	f(`{"quantization":null}`, vectord.QuantizationParams{})
	f(`{"quantization":{"ignore":false,"rescore":null,"oversampling":null}}`, vectord.QuantizationParams{})
	f(`{"quantization":{"rescore":true}}`, vectord.QuantizationParams{})
	f(`{"quantization":{"ignore":true,"rescore":false,"oversampling":1}}`, vectord.QuantizationParams{Ignore: true, ByCodes: true, Oversampling: 1})
}

func TestDecodeForms(t *testing.T) {
	f := func(query string, want vectord.Query) {
		t.Helper()
		q, err := decodeQuery([]byte(`{"query":` + query + `}`))
		want.Limit = 10
		if err != nil || !reflect.DeepEqual(q.Query, want) {
			t.Errorf("%s is %+v, error %v; want %+v", query, q.Query, err, want)
		}
	}
	one, two := vectord.NearPoint(vectord.NumberID(1)), vectord.Near([]float32{2, 3})
	pair := vectord.ContextPair{Positive: *one, Negative: *two}
	nearest := func(e *vectord.Example) vectord.Query { return vectord.Query{Nearest: e} }
	f(`null`, vectord.Query{})
	f(`[2,3]`, nearest(two))
	f(`1`, nearest(one))
	f(`{"nearest":1}`, nearest(one))
	f(`{"nearest":[2,3],"mmr":null}`, nearest(two))
	f(`{"indices":[2,1],"values":[3,4]}`, nearest(&vectord.Example{Vector: vectord.Sparse([]uint32{1, 2}, []float32{4, 3})}))
	f(`[[1,2],[3,4]]`, nearest(&vectord.Example{Vector: vectord.Vector{Kind: vectord.MultiVector, Rows: 2, Values: []float32{1, 2, 3, 4}}}))
	f(`{"text":"x","model":"m"}`, nearest(&vectord.Example{Vector: vectord.Vector{Kind: vectord.TextVector, Text: &vectord.Document{Text: "x", Model: "m"}}}))
	f(`{"nearest":1,"mmr":{}}`, vectord.Query{Nearest: one, MMR: &vectord.MMR{Diversity: 0.5}})
	f(`{"nearest":1,"mmr":{"diversity":0,"candidates_limit":7}}`, vectord.Query{Nearest: one, MMR: &vectord.MMR{Candidates: 7}})
	f(`{"recommend":{"positive":[1,[2,3]],"negative":null,"strategy":null}}`, vectord.Query{Recommend: &vectord.Recommend{Positive: []vectord.Example{*one, *two}}})
	f(`{"recommend":{"negative":[1],"strategy":"best_score"}}`,
		vectord.Query{Recommend: &vectord.Recommend{Negative: []vectord.Example{*one}, Strategy: vectord.BestScore}})
	f(`{"discover":{"target":1,"context":{"positive":1,"negative":[2,3]}}}`,
		vectord.Query{Discover: &vectord.Discover{Target: *one, Context: []vectord.ContextPair{pair}}})
	f(`{"context":{"positive":1,"negative":[2,3]}}`, vectord.Query{Context: &[]vectord.ContextPair{pair}})
	f(`{"context":[{"positive":1,"negative":[2,3]},{"positive":1,"negative":[2,3]}]}`, vectord.Query{Context: &[]vectord.ContextPair{pair, pair}})
	f(`{"sample":"random"}`, vectord.Query{Sample: true})
	f(`1,"using":"a","lookup_from":{"collection":"d"}`, vectord.Query{Nearest: one, Using: "a", Lookup: &vectord.Lookup{Collection: "d"}})

	list := vectord.Query{Limit: 10}
	f(`1,"prefetch":{}`, vectord.Query{Nearest: one, Prefetch: []vectord.Query{list}})
	f(`1,"prefetch":[{"query":[2,3],"using":"a","limit":4,"score_threshold":null,"prefetch":{"limit":5}},{}]`, vectord.Query{Nearest: one,
		Prefetch: []vectord.Query{{Nearest: two, Using: "a", Limit: 4, Prefetch: []vectord.Query{{Limit: 5}}}, list}})
	fused := func(f vectord.Fusion) vectord.Query {
		return vectord.Query{Fusion: &f, Prefetch: []vectord.Query{list}}
	}
	f(`{"fusion":"rrf"},"prefetch":{}`, fused(vectord.Fusion{}))
	f(`{"fusion":"dbsf"},"prefetch":{}`, fused(vectord.Fusion{Method: vectord.DistributionScore}))
	f(`{"rrf":{}},"prefetch":{}`, fused(vectord.Fusion{}))
	f(`{"rrf":{"k":60,"weights":[0.5]}},"prefetch":{}`, fused(vectord.Fusion{K: 60, Weights: []float32{0.5}}))

	formula := func(text string, want vectord.Expression) {
		t.Helper()
		f(`{"formula":`+text+`},"prefetch":{}`, vectord.Query{Formula: &vectord.Formula{Expression: want}, Prefetch: []vectord.Query{list}})
	}
	number := func(x float64) vectord.Expression { return vectord.Expression{Number: x} }
	formula(`-1.5`, number(-1.5))
	formula(`"$score"`, vectord.Expression{Kind: vectord.ExprScore})
	formula(`"$score[0]"`, vectord.Expression{Kind: vectord.ExprScore})
	formula(`"a.b[0]"`, vectord.Expression{Kind: vectord.ExprValue, Key: "a.b[0]"})
	formula(`{"must":[{"has_id":[1]}]}`, vectord.Expression{Kind: vectord.ExprCondition, Condition: &vectord.Condition{
		Filter: &vectord.Filter{Must: []vectord.Condition{{HasID: &[]vectord.PointID{vectord.NumberID(1)}}}}}})
	formula(`{"has_id":[1]}`, vectord.Expression{Kind: vectord.ExprCondition, Condition: &vectord.Condition{HasID: &[]vectord.PointID{vectord.NumberID(1)}}})
	for name, kind := range map[string]vectord.ExpressionKind{"sum": vectord.ExprSum, "mult": vectord.ExprMult} {
		formula(`{"`+name+`":[1,2]}`, vectord.Expression{Kind: kind, Args: []vectord.Expression{number(1), number(2)}})
		formula(`{"`+name+`":[]}`, vectord.Expression{Kind: kind})
	}
	for name, kind := range map[string]vectord.ExpressionKind{"neg": vectord.ExprNeg, "abs": vectord.ExprAbs, "sqrt": vectord.ExprSqrt, "exp": vectord.ExprExp,
		"log10": vectord.ExprLog10, "ln": vectord.ExprLn} {
		formula(`{"`+name+`":2}`, vectord.Expression{Kind: kind, Args: []vectord.Expression{number(2)}})
	}
	formula(`{"div":{"left":1,"right":2}}`, vectord.Expression{Kind: vectord.ExprDiv, Args: []vectord.Expression{number(1), number(2)}})
	formula(`{"div":{"left":1,"right":2,"by_zero_default":0}}`,
		vectord.Expression{Kind: vectord.ExprDiv, HasNumber: true, Args: []vectord.Expression{number(1), number(2)}})
	formula(`{"pow":{"base":1,"exponent":2}}`, vectord.Expression{Kind: vectord.ExprPow, Args: []vectord.Expression{number(1), number(2)}})
	formula(`{"geo_distance":{"origin":{"lon":1,"lat":2},"to":"p"}}`,
		vectord.Expression{Kind: vectord.ExprGeoDistance, Key: "p", Origin: vectord.GeoPoint{Lon: 1, Lat: 2}})
	formula(`{"datetime":"1970-01-01T00:00:02.5Z"}`, vectord.Expression{Kind: vectord.ExprTime, Time: 2_500_000})
	formula(`{"datetime_key":"at"}`, vectord.Expression{Kind: vectord.ExprTimeKey, Key: "at"})
	midpoint := 0.25
	for name, kind := range map[string]vectord.ExpressionKind{"lin_decay": vectord.ExprLinDecay, "exp_decay": vectord.ExprExpDecay, "gauss_decay": vectord.ExprGaussDecay} {
		formula(`{"`+name+`":{"x":1}}`, vectord.Expression{Kind: kind, Args: []vectord.Expression{number(1)}})
		formula(`{"`+name+`":{"x":1,"target":2,"scale":3,"midpoint":0.25}}`,
			vectord.Expression{Kind: kind, Args: []vectord.Expression{number(1), number(2)}, Number: 3, HasNumber: true, Midpoint: &midpoint})
	}
	f(`{"formula":1,"defaults":{"a":[1],"$score":2}},"prefetch":{}`, vectord.Query{Prefetch: []vectord.Query{list}, Formula: &vectord.Formula{
		Expression: number(1), Defaults: map[string]json.RawMessage{"a": json.RawMessage("[1]"), "$score": json.RawMessage("2")}}})
}

func TestExplainIsAskedFor(t *testing.T) {
	q, err := decodeQuery([]byte(`{"query":[1],"params":{"explain":true},"prefetch":{"params":{"explain":true}}}`))
	if err != nil || q.Explain == nil || q.Prefetch[0].Explain != nil {
		t.Fatalf("%+v, %v", q, err)
	}
	*q.Explain = vectord.Explanation{Plans: []string{"exact", "walk"}, Matching: 4, Candidates: 3, Visited: 2, Exact: true}
	const want = `{"points":[],"explain":{"plans":["exact","walk"],"matching":4,"candidates":3,"visited":2,"exact":true}}`
	if got := string(appendAnswer(nil, nil, &q)); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if q, err = decodeQuery([]byte(`{"query":[1]}`)); err != nil || string(appendAnswer(nil, nil, &q)) != `{"points":[]}` {
		t.Errorf("%+v, %v", q, err)
	}
}

func FuzzDecodeQuery(f *testing.F) {
	for _, s := range []string{`{"query":[1,2],"limit":5,"filter":{"must_not":[{"has_id":[1]}]},"params":{"hnsw_ef":10,"exact":true},"with_payload":["a"]}`,
		`{"query":{"nearest":7,"mmr":null},"score_threshold":0.5,"offset":3,"with_vector":[""],"with_payload":{"exclude":["b"]}}`,
		`{"query":"550e8400-e29b-41d4-a716-446655440000","using":""}`, `{}`,
		`{"query":[1],"params":{"explain":true,"quantization":{"ignore":true,"rescore":false,"oversampling":2.5}}}`,
		`{"query":{"nearest":{"indices":[1],"values":[2]},"mmr":{"diversity":0.3,"candidates_limit":9}},"using":"s"}`,
		`{"query":{"text":"x","model":"Qdrant/bm25"},"lookup_from":{"collection":"d","vector":"v"}}`,
		`{"query":{"recommend":{"positive":[1,[2]],"negative":["550e8400-e29b-41d4-a716-446655440000"],"strategy":"sum_scores"}}}`,
		`{"query":{"discover":{"target":[1],"context":{"positive":1,"negative":[[2]]}}}}`, `{"query":{"context":[{"positive":1,"negative":2}]}}`,
		`{"query":{"fusion":"rrf"},"prefetch":[{"query":[1],"limit":3,"filter":{"must":{"has_id":[1]}}},{"prefetch":{"query":1},"query":{"sample":"random"}}]}`,
		`{"query":{"rrf":{"k":60,"weights":[1,0.5]}},"prefetch":[{},{}]}`,
		`{"query":{"formula":{"sum":["$score",{"mult":["price",{"key":"a","match":{"value":1}}]},{"exp_decay":{"x":{"datetime_key":"at"},
			"target":{"datetime":"2026-01-01"},"scale":86400,"midpoint":0.25}},{"geo_distance":{"origin":{"lon":1,"lat":2},"to":"place"}},
			{"div":{"left":1,"right":{"ln":2},"by_zero_default":3}},{"pow":{"base":2,"exponent":{"neg":"$score[0]"}}}]},"defaults":{"price":1}},"prefetch":{}}`} {
		f.Add([]byte(s))
	}
	for _, s := range plainBodies {
		f.Add([]byte(strings.ReplaceAll(s, "FIELD", "query")))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeQuery, body); ok {
			checkQueries(t, q)
		}
		checkShortCut(t, body, decodeQuery, func() (query, error) {
			var q queryJSON
			if err := decodeBody(body, &q); err != nil {
				return query{}, err
			}
			return q.query("")
		})
	})
}

func FuzzDecodeSearch(f *testing.F) {
	f.Add([]byte(`{"vector":[1,2],"limit":5,"with_vectors":true}`))
	f.Add([]byte(`{"vector":{"name":"","vector":[1]},"top":5}`))
	for _, s := range plainBodies {
		f.Add([]byte(strings.ReplaceAll(s, "FIELD", "vector")))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeSearch, body); ok {
			checkQueries(t, q)
		}
		checkShortCut(t, body, decodeSearch, func() (query, error) {
			var s searchJSON
			if err := decodeBody(body, &s); err != nil {
				return query{}, err
			}
			return s.query("")
		})
	})
}

func FuzzDecodeQueryBatch(f *testing.F) {
	f.Add([]byte(`{"searches":[{"query":[1]},{"query":1}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeQueryBatch, body); ok {
			checkQueries(t, q...)
		}
	})
}

func FuzzDecodeSearchBatch(f *testing.F) {
	f.Add([]byte(`{"searches":[{"vector":[1],"limit":1}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeSearchBatch, body); ok {
			checkQueries(t, q...)
		}
	})
}

func FuzzDecodeRecommend(f *testing.F) {
	f.Add([]byte(`{"positive":[1,[2,3]],"negative":["550e8400e29b41d4a716446655440000"],"strategy":"best_score","limit":3,"using":"a","lookup_from":{"collection":"b","vector":"c"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeRecommend, body); ok {
			checkQueries(t, q)
		}
	})
}

func FuzzDecodeRecommendBatch(f *testing.F) {
	f.Add([]byte(`{"searches":[{"positive":[1],"limit":1}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeRecommendBatch, body); ok {
			checkQueries(t, q...)
		}
	})
}

func FuzzDecodeDiscover(f *testing.F) {
	f.Add([]byte(`{"target":1,"context":[{"positive":2,"negative":[3]}],"limit":3}`))
	f.Add([]byte(`{"context":{"positive":2,"negative":[3]},"limit":3}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeDiscover, body); ok {
			checkQueries(t, q)
		}
	})
}

func FuzzDecodeDiscoverBatch(f *testing.F) {
	f.Add([]byte(`{"searches":[{"target":[1],"limit":1}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if q, ok := checkDecoder(t, decodeDiscoverBatch, body); ok {
			checkQueries(t, q...)
		}
	})
}

func FuzzDecodeQueryGroups(f *testing.F) {
	fuzzGroups(f, decodeQueryGroups, `{"query":[1],"group_by":"a","group_size":2,"with_lookup":{"collection":"b","with_payload":["c"],"with_vectors":true}}`,
		`{"prefetch":[{"query":{"order_by":{"key":"n","direction":"desc","start_from":"2026-01-01"}}}],"query":{"fusion":"rrf"},"group_by":"a","with_lookup":"b"}`)
}

func FuzzDecodeSearchGroups(f *testing.F) {
	fuzzGroups(f, decodeSearchGroups, `{"vector":[1],"group_by":"a","group_size":2,"limit":3}`)
}

func FuzzDecodeRecommendGroups(f *testing.F) {
	fuzzGroups(f, decodeRecommendGroups, `{"positive":[1],"group_by":"a","group_size":2,"limit":3}`)
}

func fuzzGroups(f *testing.F, decode func([]byte) (groups, error), seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if g, ok := checkDecoder(t, decode, body); ok {
			checkQueries(t, query{Query: g.Query})
			if g.By == "" || g.Size < 1 || g.Size > vectord.MaxGroupSize {
				t.Fatalf("%+v was accepted", g)
			}
		}
	})
}

func FuzzDecodeFacet(f *testing.F) {
	f.Add([]byte(`{"key":"a","limit":3,"filter":{"must":{"has_id":[1]}},"exact":true}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if x, ok := checkDecoder(t, decodeFacet, body); ok && (x.Limit < 1 || x.Limit > vectord.MaxLimit) {
			t.Fatalf("%+v was accepted", x)
		}
	})
}

func FuzzDecodeMatrix(f *testing.F) {
	f.Add([]byte(`{"sample":3,"limit":2,"using":"a"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if m, ok := checkDecoder(t, decodeMatrix, body); ok && (m.Limit < 1 || m.Limit > vectord.MaxLimit || m.Sample < 2 || m.Sample > vectord.MaxMatrixSample) {
			t.Fatalf("%+v was accepted", m)
		}
	})
}

func FuzzDecodeRetrieve(f *testing.F) {
	f.Add([]byte(`{"ids":[1,"550e8400e29b41d4a716446655440000"],"with_payload":{"include":["a"]},"with_vector":true}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeRetrieve, body) })
}

func FuzzDecodeScroll(f *testing.F) {
	f.Add([]byte(`{"offset":7,"limit":100,"filter":{"min_should":{"conditions":[{"key":"a","range":{"gt":1}}],"min_count":1}},"order_by":null}`))
	f.Add([]byte(`{"order_by":{"key":"a","direction":"asc","start_from":2.5}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if r, ok := checkDecoder(t, decodeScroll, body); ok && (r.Limit < 1 || r.Limit > vectord.MaxLimit) {
			t.Fatalf("limit %d was accepted", r.Limit)
		}
	})
}

func FuzzDecodeCount(f *testing.F) {
	f.Add([]byte(`{"filter":{"must":[{"key":"a","match":{"except":["x"]}},{"key":"b","values_count":{"gte":2}}]},"exact":true}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeCount, body) })
}

func FuzzDecodeAliases(f *testing.F) {
	f.Add([]byte(`{"actions":[{"create_alias":{"collection_name":"c","alias_name":"a"}},{"delete_alias":{"alias_name":"a"}},
		{"rename_alias":{"old_alias_name":"a","new_alias_name":"b"}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeAliases, body) })
}

func FuzzDecodeCreateCollection(f *testing.F) {
	f.Add([]byte(`{"vectors":{"":{"size":4,"distance":"Cosine","hnsw_config":{"m":8}}},"optimizers_config":{"deleted_threshold":0.5,
		"max_optimization_threads":"auto"},"quantization_config":{"scalar":{"type":"int8"}},"metadata":{"a":1},"wal_config":{"wal_capacity_mb":1}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if c, ok := checkDecoder(t, decodeCreateCollection, body); ok {
			if err := c.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzDecodeUpdateCollection(f *testing.F) {
	f.Add([]byte(`{"vectors":{"":{"hnsw_config":{"ef_construct":100}}},"hnsw_config":{"ef_search":9},"quantization_config":"Disabled",
		"optimizers_config":{"indexing_threshold":0},"params":{"on_disk_payload":true},"metadata":{"a":null}}`))
	f.Fuzz(func(t *testing.T, body []byte) { checkDecoder(t, decodeUpdateCollection, body) })
}

// TestSmallBodyLargeMemory sends bodies that spell as many elements as they can: what they take while they are read must
// stay within a small multiple of their size.
func TestSmallBodyLargeMemory(t *testing.T) {
	const size = 8 << 20
	f := func(name string, decode func([]byte) error, begin, element, end string) {
		t.Helper()
		body := []byte(begin + strings.Repeat(element+",", size/(len(element)+1)) + element + end)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := decode(body)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		if taken := after.TotalAlloc - before.TotalAlloc; taken > 8*size {
			t.Errorf("%s: %d bytes of body take %d bytes of memory (%v)", name, len(body), taken, err)
		}
	}
	upsert := func(b []byte) error { _, err := decodeUpsert(b); return err }
	scroll := func(b []byte) error { _, err := decodeScroll(b); return err }
	f("points", upsert, `{"points":[`, `{}`, `]}`)
	f("ids", upsert, `{"batch":{"ids":[`, `1`, `]}}`)
	f("vectors", upsert, `{"batch":{"ids":[1],"vectors":[`, `[]`, `]}}`)
	f("named vectors", upsert, `{"batch":{"ids":[1],"vectors":{"":[`, `[]`, `]}}}`)
	f("components", upsert, `{"points":[{"id":1,"vector":[`, `0`, `]}]}`)
	f("with_payload", scroll, `{"with_payload":[`, `"a"`, `]}`)
	f("include", scroll, `{"with_payload":{"include":[`, `"a"`, `]}}`)
	f("filter", scroll, `{"filter":{"must":{"has_id":[`, `1`, `]}}}`)
	f("operations", func(b []byte) error { _, err := decodeOperations(b); return err }, `{"operations":[`, `{}`, `]}`)
	query := func(b []byte) error { _, err := decodeQuery(b); return err }
	f("prefetches", query, `{"query":1,"prefetch":[`, `{}`, `]}`)
	f("examples", query, `{"query":{"recommend":{"positive":[`, `1`, `]}}}`)
	f("pairs", query, `{"query":{"context":[`, `{}`, `]}}`)
	f("expressions", query, `{"query":{"formula":{"sum":[`, `1`, `]}},"prefetch":{}}`)
	f("searches", func(b []byte) error { _, err := decodeQueryBatch(b); return err }, `{"searches":[`, `{}`, `]}`)
	submission := func(b []byte) error { _, err := decodeSubmission(b); return err }
	f("tasks", submission, `{"tasks":[`, `{}`, `]}`)
	f("tags", submission, `{"tags":[`, `""`, `]}`)
	f("dependencies", submission, `{"depends_on":[`, `"01900000-0000-7000-8000-00000000000b"`, `]}`)
	f("heartbeats", func(b []byte) error { _, err := decodeHeartbeats(b); return err }, `{"tasks":[`, `{}`, `]}`)
	f("statuses", func(b []byte) error { _, err := decodeTaskScroll(b); return err }, `{"status":[`, `"failed"`, `]}`)
	agent := func(b []byte) error { _, err := decodeAgent(b); return err }
	f("vectors of an agent", agent, `{"vectors":[`, `[]`, `]}`)
	f("actions", func(b []byte) error { _, err := decodeAliases(b); return err }, `{"actions":[`, `{}`, `]}`)
}

func BenchmarkDecodeUpsert(b *testing.B) {
	vector := floatsAsJSON(384)
	body := []byte(`{"points":[`)
	for i := range 256 {
		if i > 0 {
			body = append(body, ',')
		}
		body = append(body, `{"id":`...)
		body = appendUint(body, uint64(i))
		body = append(body, `,"payload":{"city":"Berlin","n":1},"vector":`...)
		body = append(append(body, vector...), '}')
	}
	body = append(body, "]}"...)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeUpsert(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDecodeQuery measures bodies where only plain fields come before the vector, and where others do.
func BenchmarkDecodeQuery(b *testing.B) {
	for _, dim := range []int{100, 384} {
		vector := string(floatsAsJSON(dim))
		for _, body := range []string{`{"limit":10,"query":` + vector + `,"with_payload":["a"]}`, `{"with_payload":["a"],"limit":10,"query":` + vector + `}`} {
			b.Run(fmt.Sprintf("dim=%d/plain=%v", dim, strings.HasPrefix(body, `{"limit"`)), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := decodeQuery([]byte(body)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkAppendHits(b *testing.B) {
	hits := make([]vectord.Hit, 10)
	for i := range hits {
		hits[i] = vectord.Hit{Record: vectord.Record{ID: vectord.NumberID(uint64(i)), Version: 7, Payload: []byte(`{"city":"Berlin"}`)}, Score: 0.9123}
	}
	with := &selection{payload: true}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = appendHits(out[:0], hits, with)
	}
}
