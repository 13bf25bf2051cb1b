package node

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/embed"
	"github.com/vectord/vectord/storage/storagetest"
)

func document(text, model string) vectord.Vector {
	return vectord.Vector{Kind: vectord.TextVector, Text: &vectord.Document{Text: text, Model: model}}
}

// TestTexts checks that texts become dense vectors, of points and of queries, by the model of the program and by an endpoint.
func TestTexts(t *testing.T) {
	calls := 0
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			Input []string `json:"input"`
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			t.Error(err)
		}
		type item struct {
			Index     int       `json:"index"`
			Embedding []float32 `json:"embedding"`
		}
		var answer struct {
			Data []item `json:"data"`
		}
		for i, text := range request.Input {
			calls++ // so that no two answers are the same, as with a model that is not deterministic
			answer.Data = append(answer.Data, item{i, []float32{float32(len(text)), float32(calls) / 1e6}})
		}
		if err := json.NewEncoder(w).Encode(answer); err != nil {
			t.Error(err)
		}
	}))
	defer endpoint.Close()
	n, err := Open(Config{DataDir: "data", FS: storagetest.NewCrashFS(nil), Logger: quiet, Fatal: func(err error) { panic(err) },
		Embedding: &embed.HTTPOptions{URL: endpoint.URL, Model: "lengths", Dim: 2}})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	db := n.Engine()
	config := vectord.DefaultCollectionConfig(embed.StaticDim, vectord.Cosine)
	config.Params.Vectors["lengths"] = vectord.VectorParams{Size: 2, Distance: vectord.Euclid}
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	upsert := func(o vectord.WriteOptions, texts ...string) error {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for i, text := range texts {
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Vectors{
				{Vector: document(text, embed.StaticModel)}, {Name: "lengths", Vector: document(text, "LENGTHS")}}})
		}
		_, err := db.Write(background, "c", []vectord.Operation{op}, o)
		return err
	}
	texts := []string{"the build of the program failed", "we had soup and bread for lunch", "rain"}
	key := vectord.WriteOptions{IdempotencyKey: "once"}
	for range 2 {
		if err := upsert(key, texts...); err != nil {
			t.Fatal(err)
		}
	}
	if err := upsert(key, "another text"); vectord.KindOf(err) != vectord.KindUnprocessable {
		t.Errorf("another text under the same key: %v", err)
	}
	nearest := func(want uint64, q vectord.Query) {
		t.Helper()
		q.Limit = 1
		hits, err := db.Search(background, "c", q)
		if err != nil || len(hits) != 1 || hits[0].ID != vectord.NumberID(want) {
			t.Errorf("%+v: found %+v (%v), want point %d", q, hits, err, want)
		}
	}
	meal := &vectord.Example{Vector: document("a meal at noon", embed.StaticModel)}
	nearest(1, vectord.Query{Nearest: meal})
	nearest(0, vectord.Query{Nearest: &vectord.Example{Vector: document("software compile error", embed.StaticModel)}})
	nearest(2, vectord.Query{Nearest: &vectord.Example{Vector: document("1234", "lengths")}, Using: "lengths"})
	nearest(1, vectord.Query{Fusion: &vectord.Fusion{}, Prefetch: []vectord.Query{{Nearest: meal, Limit: 1}}})
	nearest(1, vectord.Query{Recommend: &vectord.Recommend{Positive: []vectord.Example{*meal}, Strategy: vectord.BestScore}})

	refused := func(kind vectord.Kind, v vectord.Vector, name string) {
		t.Helper()
		op := vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{Vectors: vectord.Vectors{{Name: name, Vector: v}}}}}
		if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); vectord.KindOf(err) != kind {
			t.Errorf("upsert of %+v: %v", v.Text, err)
		}
		if _, err := db.Search(background, "c", vectord.Query{Nearest: &vectord.Example{Vector: v}, Using: name, Limit: 1}); vectord.KindOf(err) != kind {
			t.Errorf("query of %+v: %v", v.Text, err)
		}
	}
	refused(vectord.KindUnsupported, document("x", "unknown"), "")
	refused(vectord.KindInvalid, document("x", "lengths"), "")
	refused(vectord.KindInvalid, document("x", embed.StaticModel), "lengths")
	options := document("x", embed.StaticModel)
	options.Text.Options = json.RawMessage(`{"a":1}`)
	refused(vectord.KindUnsupported, options, "")
	endpoint.Close()
	if _, err := db.Search(background, "c", vectord.Query{Nearest: &vectord.Example{Vector: document("12345678", "lengths")}, Using: "lengths", Limit: 1}); err == nil {
		t.Error("a query through an endpoint that is gone")
	}
}
