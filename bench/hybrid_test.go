package bench

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/bench/glosses"
	"github.com/vectord/vectord/bench/words"
)

func near(a, b float64) bool { return math.Abs(a-b) < 1e-6 }

func TestJudge(t *testing.T) {
	f := func(hits, relevant []uint64, wantNDCG, wantRecall float64) {
		t.Helper()
		if ndcg, recall := judge(hits, relevant); !near(ndcg, wantNDCG) || !near(recall, wantRecall) {
			t.Errorf("hits %v, relevant %v: nDCG %v, recall %v, want %v and %v", hits, relevant, ndcg, recall, wantNDCG, wantRecall)
		}
	}
	count := func(from, n uint64) (ids []uint64) {
		for i := range n {
			ids = append(ids, from+i)
		}
		return ids
	}
	f(nil, []uint64{1}, 0, 0)
	f([]uint64{1}, []uint64{1}, 1, 1)
	f([]uint64{5, 1}, []uint64{1}, 0.6309297536, 1) // 1 / log2 3
	f([]uint64{5, 6, 7, 1}, []uint64{1}, 0.4306765581, 1)
	f(append(count(100, 9), 1), []uint64{1}, 0.2890648263, 1) // 1 / log2 11
	f(append(count(100, 10), 1), []uint64{1}, 0, 0)
	f([]uint64{9, 2, 4}, []uint64{2, 4, 8}, 0.5307212739, 2.0/3) // (0.6309 + 0.5) / (1 + 0.6309 + 0.5)
	f([]uint64{3, 2}, []uint64{2, 3}, 1, 1)
	f(count(0, 10), count(0, 20), 1, 0.5)
}

func TestMeanOf(t *testing.T) {
	if mean, deviation := meanOf([]float64{1, 2, 3, 6}); mean != 3 || !near(deviation, 0.9354143467) { // √14 / 4
		t.Errorf("mean %v ± %v", mean, deviation)
	}
}

// TestSIF computes vectors of texts by hand: of eight words six are a, one b, one c.
func TestSIF(t *testing.T) {
	e := &words.Embedding{Words: []string{"a", "b", "new", "null"}, Vectors: dataset.Vectors{Dim: 2, Data: []float32{2, 0, 0, 5, 3, 4, 0, 0}}}
	s := newSIF(e, []string{"A, a; a-a a", "b a c"})
	for word, frequency := range map[string]float64{"a": 0.75, "b": 0.125, "c": 0.125} {
		if want := sifWeight / (sifWeight + frequency); !near(s.weights[word], want) {
			t.Errorf("weight of %s: %v, want %v", word, s.weights[word], want)
		}
	}
	a, b := s.weights["a"], s.weights["b"]
	f := func(text string, want ...float64) {
		t.Helper()
		sum := make([]float64, 2)
		if s.add(sum, text); math.Abs(sum[0]-want[0]) > 1e-12 || math.Abs(sum[1]-want[1]) > 1e-12 {
			t.Errorf("%q: %v, want %v", text, sum, want)
		}
	}
	f("a", a, 0)
	f("a b", a/2, b/2)
	f("b c", 0, b/2)
	f("new", 0.6, 0.8)
	f("null", 0, 0)
	f("c ...", 0, 0)

	// The texts' means are x = (a, 0) and y = (a/3, b/3): the component is the larger eigenvector of xx' + yy'.
	p, q, r := a*a+a*a/9, a*b/9, b*b/9
	largest := (p+r)/2 + math.Sqrt((p-r)*(p-r)/4+q*q)
	length := math.Hypot(q, largest-p)
	if math.Abs(s.common[0]-q/length) > 1e-6 || math.Abs(s.common[1]-(largest-p)/length) > 1e-6 {
		t.Errorf("common component %v, want %v", s.common, []float64{q / length, (largest - p) / length})
	}
	v := s.embed("new")
	if dot := float64(v[0])*s.common[0] + float64(v[1])*s.common[1]; !near(dot, 0) || !near(math.Hypot(float64(v[0]), float64(v[1])), 1) {
		t.Errorf("vector %v has %v of the common component", v, dot)
	}
	if s.embed("c") != nil || s.embed("null") != nil || s.embed("") != nil {
		t.Error("a text without a direction has one")
	}
	if none := newSIF(e, []string{"c"}); none.common[0] != 0 || none.common[1] != 0 {
		t.Errorf("texts without vectors have the component %v in common", none.common)
	}
}

func TestHybridQueries(t *testing.T) {
	e := &words.Embedding{Words: []string{"a", "b", "pour"}, Vectors: dataset.Vectors{Dim: 3, Data: []float32{1, 0, 1, 0, 1, 1, 1, 1, 0}}}
	h := &Hybrid{Words: e, Queries: 10, Synsets: []glosses.Synset{
		{Words: []string{"pour", "b"}, Definition: "a a", Examples: []string{"a b", "nobody knows"}},
		{Words: []string{"pour"}, Definition: "b", Examples: []string{"a b"}},
		{Words: []string{"pour"}, Definition: "a a", Examples: []string{"b b b"}},
	}}
	c := newHybridCorpus(h)
	if !slices.Equal(c.texts, []string{"a a", "b"}) || !slices.Equal(c.ids, []uint64{0, 1, 0}) || c.vectors[1] == nil {
		t.Errorf("texts %v of synsets %v", c.texts, c.ids)
	}
	f := func(kind string, want string) {
		t.Helper()
		var got []string
		for _, q := range c.choose(c.answers(kind)) {
			got = append(got, fmt.Sprint(q.text, q.relevant))
		}
		slices.Sort(got)
		if s := strings.Join(got, ", "); s != want {
			t.Errorf("%s: %s, want %s", kind, s, want)
		}
	}
	f("sentences", "a b[0 1], b b b[0]")
	f("words", "b[0], pour[0 1]")
	h.Queries = 1
	if n := len(c.choose(c.answers("words"))); n != 1 {
		t.Errorf("%d queries were chosen, want 1", n)
	}
	h.Headwords = true
	if got := newHybridCorpus(h).texts; !slices.Equal(got, []string{"pour, b: a a", "pour: b", "pour: a a"}) {
		t.Errorf("with headwords %q", got)
	}
}

func TestHybridRefuses(t *testing.T) {
	f := func(want string, change func(h *Hybrid)) {
		t.Helper()
		h := Hybrid{Synsets: []glosses.Synset{{Definition: "a"}}, Queries: 2, Prefetch: 10, Concurrency: 1}
		change(&h)
		if _, err := h.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	f("no glosses", func(h *Hybrid) { h.Synsets = nil })
	f("queries: 1", func(h *Hybrid) { h.Queries = 1 })
	f("queries: 65537", func(h *Hybrid) { h.Queries = HybridQueriesMax + 1 })
	f("prefetch: 9", func(h *Hybrid) { h.Prefetch = 9 })
	f("average length: -1", func(h *Hybrid) { h.AvgLen = -1 })
	f("average length: NaN", func(h *Hybrid) { h.AvgLen = math.NaN() })
	f("concurrency: 0", func(h *Hybrid) { h.Concurrency = 0 })
}

// TestOnce checks that every request is sent once, and that the first refusal ends it.
func TestOnce(t *testing.T) {
	_, server := newStandIn(t)
	var refused atomic.Bool
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if refused.Load() {
			w.WriteHeader(http.StatusBadRequest)
		}
		fmt.Fprintf(w, `{"result":{"points":[{"id":%d}]}}`, r.ContentLength)
	})
	r := pointRequests(http.MethodPost, server.URL, "c", "/query", "")
	for i := range 50 {
		r.bodies = append(r.bodies, []byte(strings.Repeat("x", i+1)))
	}
	counts := make([]atomic.Int64, len(r.bodies))
	durations, err := r.once(t.Context(), 4, func(i int, answer []byte) error {
		ids, err := answerIDs(answer)
		if err == nil && slices.Equal(ids, []uint64{uint64(i + 1)}) {
			counts[i].Add(1)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range counts {
		if counts[i].Load() != 1 || durations[i] <= 0 {
			t.Errorf("request %d: %d right answers, %v", i, counts[i].Load(), durations[i])
		}
	}
	refused.Store(true)
	if _, err := r.once(t.Context(), 4, func(int, []byte) error { return nil }); err == nil || !strings.Contains(err.Error(), "400") {
		t.Errorf("refused requests: %v", err)
	}
	if _, err := answerIDs([]byte(`{"result":{"points":[{"id":"a"}]}}`)); err == nil {
		t.Error("an id that is no number was read")
	}
}

// TestLoadNamed checks that all vectors of a point arrive, not the default one alone.
func TestLoadNamed(t *testing.T) {
	c := newHybridCorpus(&Hybrid{Words: &words.Embedding{Words: []string{"a", "b"}, Vectors: dataset.Vectors{Dim: 2, Data: []float32{1, 0, 0, 1}}},
		Synsets: []glosses.Synset{{Definition: "a"}, {Definition: "a b"}, {Definition: "c"}}, AvgLen: 2.5})
	var bodies []string
	_, server := newStandIn(t)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		bodies = append(bodies, string(body))
		fmt.Fprint(w, `{"result":{}}`)
	})
	l := Load{Client: newClient(t, server.URL), Collection: "c", Batch: 10, Concurrency: 1}
	if _, err := l.Run(t.Context(), &hybridPoints{hybridCorpus: c}); err != nil {
		t.Fatal(err)
	}
	body := strings.Join(bodies, "")
	for _, want := range []string{`"text":{"text":"a b","model":"Qdrant/bm25","options":{"avg_len":2.5}},"dense":[`, `"payload":{"text":"a b"}`,
		`"vector":{"text":{"text":"c","model":"Qdrant/bm25","options":{"avg_len":2.5}}},"payload"`} {
		if !strings.Contains(body, want) {
			t.Errorf("%s lacks %s", body, want)
		}
	}
}

func BenchmarkSIF(b *testing.B) {
	e := &words.Embedding{Vectors: *randomVectors(1, 1000, 100)}
	var text strings.Builder
	for i := range 1000 {
		e.Words = append(e.Words, fmt.Sprint("w", i))
		if i%100 == 0 {
			fmt.Fprint(&text, "w", i, " ")
		}
	}
	s := newSIF(e, []string{text.String(), "w1 w2"})
	for b.Loop() {
		if len(s.embed(text.String())) != 100 {
			b.Fatal("no vector")
		}
	}
}
