package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
)

func mixedOf(t *testing.T, url string, n int) Mixed {
	base := &dataset.Vectors{Dim: 2}
	for i := range n {
		base.Data = append(base.Data, float32(i), 1)
	}
	return Mixed{Client: newClient(t, url), URL: url, Collection: "c", Base: base, Queries: vectorsOf(10.25, 50.25), Metric: vectord.Euclid, K: 4,
		Searchers: 3, Writers: 2, WriteRate: 1000, WriteBatch: 5, Duration: 50 * time.Millisecond, Rounds: 2}
}

// TestMixed checks that writes and searches arrive, and that each round ends as it began.
func TestMixed(t *testing.T) {
	s, server := newStandIn(t)
	m := mixedOf(t, server.URL, 200)
	steps := 0
	report, err := m.Run(t.Context(), func(string) { steps++ })
	if err != nil {
		t.Fatal(err)
	}
	if len(s.points) != 180 || s.dim != 2 || s.deletes != 2 {
		t.Errorf("%d points of dimension %d are left after %d deletes", len(s.points), s.dim, s.deletes)
	}
	// One request of 180 points fills the collection, and 10 are due in each round: 1000 points a second in fives for 50 ms.
	if s.upserts != 1+20 || report.Writes.Requests != 20 || report.Writes.Errors != 0 {
		t.Errorf("%d upserts, of the writer %+v", s.upserts, report.Writes)
	}
	for _, row := range []ServeRow{report.Idle, report.Busy} {
		if row.Concurrency != 3 || row.Requests == 0 || row.Errors != 0 || !(row.QPS > 0 && row.P50 <= row.P99) {
			t.Errorf("searches %+v", row)
		}
	}
	if report.Recall != 0.75 || report.Rounds != 2 || steps == 0 { // the stand-in leaves the nearest out
		t.Errorf("%+v after %d steps", report, steps)
	}
	var text strings.Builder
	if err := report.WriteTable(&text); err != nil || !strings.Contains(text.String(), "searches during writes") || !strings.Contains(text.String(), "p99 ×") {
		t.Errorf("table %q, %v", text.String(), err)
	}

	// The collection is there now. Replacing leaves its points as they are.
	m.Replace, s.upserts, s.deletes = true, 0, 0
	if report, err = m.Run(t.Context(), func(string) {}); err != nil || s.upserts != 20 || s.deletes != 0 || len(s.points) != 180 {
		t.Errorf("replacing: %+v, %v, %d upserts, %d deletes, %d points", report.Writes, err, s.upserts, s.deletes, len(s.points))
	}
	for id, v := range s.points {
		if float32(id.Number()) != v[0] {
			t.Errorf("point %v has the vector %v", id, v)
		}
	}
}

func TestMixedRefuses(t *testing.T) {
	s, server := newStandIn(t)
	f := func(want string, change func(m *Mixed)) {
		t.Helper()
		m := mixedOf(t, server.URL, 200)
		m.Rounds = 1
		change(&m)
		if _, err := m.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	f("metric", func(m *Mixed) { m.Metric = 0 })
	f("the queries have 3 components, the base vectors 2", func(m *Mixed) { m.Queries = randomVectors(1, 1, 3) })
	f("write batch: 0", func(m *Mixed) { m.WriteBatch = 0 })
	f("less than one write of 21", func(m *Mixed) { m.WriteBatch = 21 })
	f("write rate: 0", func(m *Mixed) { m.WriteRate = 0 })
	f("writers: 0", func(m *Mixed) { m.Writers = 0 })
	f("rounds: 0", func(m *Mixed) { m.Rounds = 0 })
	f("k: 0", func(m *Mixed) { m.K = 0 })
	f("concurrency: 0", func(m *Mixed) { m.Searchers = 0 })
	if s.dim != 0 {
		t.Error("a collection was made before the request was checked")
	}

	s.dim = 2
	s.points[vectord.NumberID(7)] = []float32{7, 1}
	f("has 1 points, expected the first 180", func(*Mixed) {})
	if len(s.points) != 1 {
		t.Errorf("a stranger's collection has %d points now", len(s.points))
	}

	delete(s.points, vectord.NumberID(7))
	s.dim = 0
	s.refuse = func(upsert int) int {
		if upsert > 1 {
			return 400
		}
		return 0
	}
	f("no request succeeded", func(*Mixed) {})
}
