package bench

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
)

// TestRecall replaces the points of a stand-in, which leaves the nearest one out of each answer.
func TestRecall(t *testing.T) {
	s, server := newStandIn(t)
	near, far := vectorsOf(), vectorsOf()
	for i := range 40 {
		near.Data = append(near.Data, float32(i), 1)
		far.Data = append(far.Data, float32(1000+i), 1)
	}
	// The stand-in says nothing of recall.
	said := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && r.URL.Path == "/collections/c" {
			io.WriteString(w, `{"result":{"points_count":40,"indexed_vectors_count":38,"recall":{"ef":64,"ratio":0.96,"queries":300}}}`)
			return
		}
		s.ServeHTTP(w, r)
	})
	server.Config.Handler = said
	r := Recall{Client: newClient(t, server.URL), Collection: "c", Metric: vectord.Euclid, Base: near, Queries: vectorsOf(3.1, 20.2),
		DriftBase: far, DriftQueries: vectorsOf(1003.1, 1020.2), Steps: 2, Stage: 2 * time.Millisecond, Every: time.Millisecond, Rate: 1000}
	report, err := r.Run(t.Context(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if report.N != 40 || report.Dim != 2 || report.Target != vectord.DefaultRecallTarget || len(report.Rows) != 6 {
		t.Fatalf("%+v", report)
	}
	for i, row := range report.Rows {
		if want := float64(i/2) / 2; row.Replaced != want || row.Recall != 0.9 || row.Ef != 64 || *row.Measured != 0.96 || row.Waiting != 2 {
			t.Errorf("row %d: %+v, want %v replaced and recall 0.9", i, row, want)
		}
	}
	for id, v := range s.points {
		if v[0] != float32(1000+id.Number()) {
			t.Errorf("point %v is at %v in the end", id, v)
		}
	}
	var text strings.Builder
	if err := report.WriteTable(&text); err != nil || strings.Count(text.String(), "\n") != 10 || !strings.Contains(text.String(), "50 %") {
		t.Errorf("table %q, %v", text.String(), err)
	}
	if b, err := json.Marshal(report); err != nil || !strings.Contains(string(b), `"measured":0.96`) {
		t.Errorf("%s, %v", b, err)
	}
}

func TestRecallEndsWithItsContext(t *testing.T) {
	_, server := newStandIn(t)
	ctx, cancel := context.WithCancel(t.Context())
	r := Recall{Client: newClient(t, server.URL), Collection: "c", Metric: vectord.Euclid, Base: randomVectors(1, 20, 2),
		Queries: randomVectors(2, 4, 2), Stage: time.Hour, Every: time.Hour, Rate: 1}
	_, err := r.Run(ctx, func(step string) {
		if strings.Contains(step, "watching") {
			cancel()
		}
	})
	if ctx.Err() == nil || err == nil || !strings.Contains(err.Error(), context.Canceled.Error()) {
		t.Errorf("error %v", err)
	}
}

func TestRecallRefuses(t *testing.T) {
	f := func(want string, change func(r *Recall)) {
		t.Helper()
		v := func(n, dim int) *dataset.Vectors { return randomVectors(1, n, dim) }
		r := Recall{Metric: vectord.Dot, Base: v(20, 3), Queries: v(2, 3), DriftBase: v(20, 3), DriftQueries: v(2, 3), Steps: 1,
			Stage: time.Second, Every: time.Second, Rate: 1}
		if err := r.validate(); err != nil {
			t.Fatal(err)
		}
		change(&r)
		if _, err := r.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	f("together or not at all", func(r *Recall) { r.DriftQueries = nil })
	f("19 vectors cannot replace 20", func(r *Recall) { r.DriftBase = randomVectors(1, 19, 3) })
	f("4 components beside 3", func(r *Recall) { r.DriftQueries = randomVectors(1, 2, 4) })
	f("1 queries", func(r *Recall) { r.Queries = randomVectors(1, 1, 3) })
	f("steps: 0", func(r *Recall) { r.Steps = 0 })
	f("steps: 1001", func(r *Recall) { r.Steps = RecallStepsMax + 1 })
	f("metric", func(r *Recall) { r.Metric = 0 })
	f("9 vectors", func(r *Recall) { r.Base = randomVectors(1, 9, 3) })
	f("every: 0s", func(r *Recall) { r.Every = 0 })
	f("every: 2s", func(r *Recall) { r.Every = 2 * time.Second })
	f("rate: 0", func(r *Recall) { r.Rate = 0 })
}
