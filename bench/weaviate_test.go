package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/index"
)

// fakeWeaviate answers what the measurement asks of a Weaviate. It searches exactly by the class's distance, except that
// with an ef below 20 it leaves the nearest object out.
type fakeWeaviate struct {
	t      *testing.T
	mu     sync.Mutex // guards what follows
	class  map[string]any
	points map[string][]float32 // by id
	refuse func(path, body string) (status int, text string)
	key    string
}

func newFakeWeaviate(t *testing.T) (*fakeWeaviate, string) {
	f := &fakeWeaviate{t: t, points: make(map[string][]float32)}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return f, server.URL
}

func (f *fakeWeaviate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		if status, text := f.refuse(r.URL.Path, string(body)); status != 0 {
			w.WriteHeader(status)
			io.WriteString(w, text)
			return
		}
	}
	if f.key != "" && r.Header.Get("Authorization") != "Bearer "+f.key {
		w.WriteHeader(401)
		return
	}
	answer := func(v any) {
		b, err := json.Marshal(v)
		if err != nil {
			f.t.Error(err)
		}
		w.Write(b) // fails where the measurement was cancelled
	}
	decode := func(into any) {
		if err := json.Unmarshal(body, into); err != nil {
			f.t.Errorf("%s %s: %v in %.200s", r.Method, r.URL.Path, err, body)
		}
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v1/schema/Words":
		if f.class == nil {
			w.WriteHeader(404)
			return
		}
		answer(f.class)
	case "POST /v1/schema":
		decode(&f.class)
		f.class["replicationConfig"] = map[string]any{"factor": 1.0} // what it adds has to come back
	case "PUT /v1/schema/Words":
		var class map[string]any
		decode(&class)
		if class["replicationConfig"] == nil || class["class"] != "Words" {
			f.t.Errorf("a change of the class without all its fields: %s", body)
		}
		f.class = class
	case "POST /v1/batch/objects":
		var batch struct {
			Objects []struct {
				Class, ID string
				Vector    []float32
			}
		}
		decode(&batch)
		results := []any{}
		for _, o := range batch.Objects {
			if o.Class != "Words" || len(o.ID) != 36 {
				f.t.Errorf("object %+v", o)
			}
			f.points[o.ID] = o.Vector
			results = append(results, map[string]any{"id": o.ID, "result": map[string]any{"status": "SUCCESS"}})
		}
		answer(results)
	case "POST /v1/graphql":
		var q struct{ Query string }
		decode(&q)
		if q.Query == "{Aggregate{Words{meta{count}}}}" {
			fmt.Fprintf(w, `{"data":{"Aggregate":{"Words":[{"meta":{"count":%d}}]}}}`, len(f.points))
			return
		}
		var limit int
		var vector []float32
		text, ok := strings.CutPrefix(q.Query, "{Get{Words(limit:")
		if _, err := fmt.Sscanf(text, "%d,nearVector:{vector:", &limit); !ok || err != nil {
			f.t.Errorf("query %s", q.Query)
		}
		numbers, rest, _ := strings.Cut(text[strings.Index(text, "["):], "]")
		if err := json.Unmarshal([]byte(numbers+"]"), &vector); err != nil || rest != "}){_additional{id}}}}" {
			f.t.Errorf("query %s", q.Query)
		}
		answer(map[string]any{"data": map[string]any{"Get": map[string]any{"Words": f.nearest(vector, limit)}}})
	default:
		f.t.Errorf("%s %s was asked", r.Method, r.URL.Path)
	}
}

func (f *fakeWeaviate) config() map[string]any { return f.class["vectorIndexConfig"].(map[string]any) }

func (f *fakeWeaviate) nearest(q []float32, limit int) []any {
	var metric vectord.Distance
	for d, name := range weaviateDistances {
		if f.config()["distance"] == name {
			metric = d
		}
	}
	distance := index.DistanceFunc(metric)
	var ids []string
	for id := range f.points {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b string) int {
		switch x, y := distance(q, f.points[a]), distance(q, f.points[b]); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	if f.config()["ef"].(float64) < 20 {
		ids = ids[1:]
	}
	var hits []any
	for _, id := range ids[:limit] {
		hits = append(hits, map[string]any{"_additional": map[string]any{"id": id}})
	}
	return hits
}

func newWeaviate(url string) Weaviate {
	return Weaviate{URL: url + "/", Class: "Words", Base: randomVectors(1, 600, 8), Queries: randomVectors(2, 5, 8), Metric: vectord.Cosine,
		K: 4, M: 16, EfConstruct: 200, Ef: 20, Concurrency: []int{1, 3}, Duration: 100 * time.Millisecond}
}

func TestWeaviate(t *testing.T) {
	for _, metric := range []vectord.Distance{vectord.Cosine, vectord.Euclid, vectord.Dot, vectord.Manhattan} {
		fake, url := newFakeWeaviate(t)
		fake.key = "secret"
		w := newWeaviate(url)
		w.Metric, w.APIKey = metric, "secret"
		f := func(ef int, recall float64) {
			t.Helper()
			w.Ef = ef
			report, err := w.Run(t.Context(), func(string) {})
			if err != nil {
				t.Fatal(err)
			}
			if report.Recall != recall || len(report.Rows) != 2 || report.Ef != ef || report.Collection != "Words" {
				t.Errorf("%v, ef %d: %+v", metric, ef, report)
			}
			for i, row := range report.Rows {
				if row.Concurrency != w.Concurrency[i] || row.Requests == 0 || row.Errors != 0 || !(row.QPS > 0) {
					t.Errorf("%v: row %+v", metric, row)
				}
			}
			if c := fake.config(); c["ef"] != float64(ef) || c["maxConnections"] != 16.0 || c["efConstruction"] != 200.0 {
				t.Errorf("%v: the class is %v", metric, fake.class)
			}
		}
		f(20, 1)
		fake.refuse = func(path, _ string) (int, string) { // the second run must not import
			if strings.Contains(path, "batch") {
				return 500, "again"
			}
			return 0, ""
		}
		f(10, 0.75)
		f(30, 1)
		if len(fake.points) != 600 {
			t.Errorf("%v: %d objects", metric, len(fake.points))
		}
		for _, row := range []int{0, 1, 255, 256, 599} {
			if id := fmt.Sprintf("%s%012x", weaviateIDPrefix, row); !slices.Equal(fake.points[id], w.Base.At(row)) {
				t.Errorf("%v: object %s is %v, want %v", metric, id, fake.points[id], w.Base.At(row))
			}
		}
	}
}

// TestWeaviateTies has the k-th neighbor twice: either is right.
func TestWeaviateTies(t *testing.T) {
	_, url := newFakeWeaviate(t)
	w := newWeaviate(url)
	w.Metric, w.K = vectord.Euclid, 1
	w.Base = &dataset.Vectors{Dim: 1, Data: []float32{1, 5, 1}}
	w.Queries = &dataset.Vectors{Dim: 1, Data: []float32{1}}
	for _, row := range []int32{0, 2} {
		w.Truth = [][]int32{{row}}
		if report, err := w.Run(t.Context(), func(string) {}); err != nil || report.Recall != 1 {
			t.Errorf("truth %d: %+v, %v", row, report, err)
		}
	}
}

func TestWeaviateFailures(t *testing.T) {
	f := func(want string, change func(w *Weaviate, fake *fakeWeaviate)) {
		t.Helper()
		fake, url := newFakeWeaviate(t)
		w := newWeaviate(url)
		change(&w, fake)
		if _, err := w.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	f("k: 0", func(w *Weaviate, _ *fakeWeaviate) { w.K = 0 })
	f("k: 700 invalid, there are 600", func(w *Weaviate, _ *fakeWeaviate) { w.K, w.Ef = 700, 700 })
	f("ef: 3 invalid, must be at least k = 4", func(w *Weaviate, _ *fakeWeaviate) { w.Ef = 3 })
	f("m and ef-construction: 0 and 200", func(w *Weaviate, _ *fakeWeaviate) { w.M = 0 })
	f(`class: "words" invalid`, func(w *Weaviate, _ *fakeWeaviate) { w.Class = "words" })
	f("metric", func(w *Weaviate, _ *fakeWeaviate) { w.Metric = 0 })
	f("concurrency: none", func(w *Weaviate, _ *fakeWeaviate) { w.Concurrency = nil })
	f("the queries have 9 components", func(w *Weaviate, _ *fakeWeaviate) { w.Queries = randomVectors(1, 1, 9) })
	f("the truth has 1 rows", func(w *Weaviate, _ *fakeWeaviate) { w.Truth = [][]int32{{0, 1, 2, 3}} })
	f("server answered 401", func(_ *Weaviate, fake *fakeWeaviate) { fake.key = "other" })

	class := func(distance string, m int, objects int) func(*Weaviate, *fakeWeaviate) {
		return func(_ *Weaviate, fake *fakeWeaviate) {
			fake.class = map[string]any{"class": "Words", "vectorIndexType": "hnsw", "replicationConfig": map[string]any{},
				"vectorIndexConfig": map[string]any{"distance": distance, "maxConnections": m, "efConstruction": 200, "ef": -1.0}}
			for i := range objects {
				fake.points[fmt.Sprint(i)] = make([]float32, 8)
			}
		}
	}
	f("other parameters: hnsw, dot, maxConnections 16", class("dot", 16, 600))
	f("maxConnections 32", class("cosine", 32, 600))
	f("other objects than the 600 base vectors", class("cosine", 16, 599))
	f(`the id "`, class("cosine", 16, 600)) // as many, but not ours

	refuse := func(part string, status int, text string) func(*Weaviate, *fakeWeaviate) {
		return func(_ *Weaviate, fake *fakeWeaviate) {
			fake.refuse = func(path, body string) (int, string) {
				if strings.Contains(path+body, part) {
					return status, text
				}
				return 0, ""
			}
		}
	}
	f("the batch from row 512: POST /v1/batch/objects: server answered 503: busy", refuse(fmt.Sprintf("%012x", 599), 503, "busy"))
	f("object abc: {\"error\"", refuse("batch", 200, `[{"id":"abc","result":{"errors":{"error":[{"message":"no"}]}}}]`))
	f("invalid character", refuse("batch", 200, `x`))
	f(`{"errors":[`, refuse("nearVector", 200, `{"errors":[{"message":"no"}]}`))
	f("row 600 was found among 600", refuse("nearVector", 200, fmt.Sprintf(`{"data":{"Get":{"Words":[{"_additional":{"id":"%s%012x"}}]}}}`, weaviateIDPrefix, 600)))

	// Errors that come with status 200 once the load runs count as errors.
	fake, url := newFakeWeaviate(t)
	w := newWeaviate(url)
	asked := 0
	fake.refuse = func(_, body string) (int, string) {
		if strings.Contains(body, "nearVector") {
			if asked++; asked > w.Queries.Len() {
				return 200, `{"errors":[{"message":"later"}]}`
			}
		}
		return 0, ""
	}
	if _, err := w.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), "no request succeeded") {
		t.Errorf("errors under load: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	_, url = newFakeWeaviate(t)
	w = newWeaviate(url)
	_, err := w.Run(ctx, func(step string) {
		if strings.HasPrefix(step, "importing") {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled import: %v", err)
	}
}
