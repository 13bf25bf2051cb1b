package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

func TestLoad(t *testing.T) {
	f := func(points, batch, concurrency int, skip uint64, wantUpserts int) {
		t.Helper()
		s, server := newStandIn(t)
		s.dim = 2
		var prefixes []uint64
		l := Load{Client: newClient(t, server.URL), Collection: "c", Batch: batch, Concurrency: concurrency, Skip: skip,
			Acknowledged: func(n uint64) { prefixes = append(prefixes, n) }}
		report, err := l.Run(t.Context(), &rows{n: points})
		if err != nil {
			t.Fatal(err)
		}
		if report.Points != uint64(points) || s.upserts != wantUpserts || report.Batches != wantUpserts || len(s.points) != points-int(skip) {
			t.Errorf("%d points in batches of %d, %d skipped: %+v, %d upserts of %d points", points, batch, skip, report, s.upserts, len(s.points))
		}
		for id, v := range s.points {
			if float32(id.Number()) != v[0] || id.Number() < skip {
				t.Errorf("point %v has the vector %v", id, v)
			}
		}
		last := skip
		for _, n := range prefixes {
			if n <= last {
				t.Errorf("acknowledged %v, which does not rise", prefixes)
			}
			last = n
		}
		if last != uint64(points) {
			t.Errorf("acknowledged up to %d of %d", last, points)
		}
	}
	f(1, 1, 1, 0, 1)
	f(10, 3, 1, 0, 4)
	f(10, 5, 4, 0, 2)
	f(1000, 7, 8, 0, 143)
	f(10, 3, 2, 4, 2)
	f(10, 3, 2, 10, 0)
}

// TestLoadPrefix delays the first batch until others are through: nothing may count as acknowledged before it.
func TestLoadPrefix(t *testing.T) {
	first := make(chan struct{})
	var once sync.Once
	s, server := newStandIn(t)
	s.dim = 2
	l := Load{Collection: "c", Batch: 1, Concurrency: 3, Client: newClient(t, server.URL)}
	l.Acknowledged = func(n uint64) {
		select {
		case <-first:
		default:
			t.Errorf("%d points acknowledged before the first", n)
		}
	}
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if strings.Contains(string(body), `"id":0,`) {
			<-first
		} else if strings.Contains(string(body), `"id":5,`) { // as far ahead of the first as the other two may go
			once.Do(func() { close(first) })
		} else if strings.Contains(string(body), `"id":6,`) {
			select {
			case <-first:
			default:
				t.Error("a batch beyond the bound was sent before the first was acknowledged")
			}
		}
		io.WriteString(w, `{"result":{}}`)
	})
	if report, err := l.Run(t.Context(), &rows{n: 20}); err != nil || report.Points != 20 {
		t.Fatal(report, err)
	}
}

func TestLoadFailures(t *testing.T) {
	s, server := newStandIn(t)
	s.dim = 2
	l := Load{Client: newClient(t, server.URL), Collection: "c", Batch: 10, Concurrency: 1}

	s.refuse = func(upsert int) int {
		if upsert > 3 {
			return 400
		}
		return 0
	}
	report, err := l.Run(t.Context(), &rows{n: 100})
	if err == nil || !strings.Contains(err.Error(), "points 30 to 39") || report.Points != 30 {
		t.Errorf("a refused batch: %+v, %v", report, err)
	}

	s.upserts, s.refuse = 0, func(upsert int) int {
		if upsert%2 == 1 {
			return 503 // each batch is taken at the second attempt
		}
		return 0
	}
	if report, err := l.Run(t.Context(), &rows{n: 30}); err != nil || report.Points != 30 {
		t.Errorf("a busy server: %+v, %v", report, err)
	}
	s.refuse = nil

	ctx, cancel := context.WithCancel(t.Context())
	interrupted := l
	interrupted.Acknowledged = func(uint64) { cancel() }
	if report, err := interrupted.Run(ctx, &rows{n: 1000}); !errors.Is(err, context.Canceled) || report.Points < 10 || report.Points == 1000 {
		t.Errorf("interrupted: %+v, %v", report, err)
	}

	f := func(want string, change func(l *Load), n int) {
		t.Helper()
		changed := l
		change(&changed)
		if _, err := changed.Run(t.Context(), &rows{n: n}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	f("batch: 0 invalid", func(l *Load) { l.Batch = 0 }, 1)
	f("batch: 10001 invalid", func(l *Load) { l.Batch = vectord.MaxBatchPoints + 1 }, 1)
	f("concurrency: 0 invalid", func(l *Load) { l.Concurrency = 0 }, 1)
	f("empty", func(*Load) {}, 0)
	f("3 points, of which 4 were to be skipped", func(l *Load) { l.Skip = 4 }, 3)
	f("point 0 of the data set (id 0) has 2 components, expected 3", func(l *Load) { l.Dim = 3 }, 1)
}

// wide yields points whose vectors are as long as can be.
type wide struct{ left int }

func (w *wide) Next() (vectord.Point, error) {
	if w.left == 0 {
		return vectord.Point{}, io.EOF
	}
	w.left--
	return vectord.Point{Vectors: vectord.Unnamed(make([]float32, vectord.MaxDimension))}, nil
}

// TestLoadBatchBytes checks that a batch is closed by its size before its number of points.
func TestLoadBatchBytes(t *testing.T) {
	s, server := newStandIn(t)
	s.dim = vectord.MaxDimension
	l := Load{Client: newClient(t, server.URL), Collection: "c", Batch: 1000, Concurrency: 1}
	perBatch := batchBytesMax / (vectorTextBytes * vectord.MaxDimension)
	report, err := l.Run(t.Context(), &wide{left: perBatch + 1})
	if err != nil || report.Batches != 2 {
		t.Errorf("%d points of %d components: %+v, %v, want 2 batches", perBatch+1, vectord.MaxDimension, report, err)
	}
}

func TestIngest(t *testing.T) {
	s, server := newStandIn(t)
	g := Ingest{Client: newClient(t, server.URL), URL: server.URL, Collection: "c", Base: &rows{n: 50}, Metric: vectord.Euclid, Batch: 8, Concurrency: 2}
	report, err := g.Run(t.Context())
	if err != nil || report.Points != 50 || report.Batches != 7 || len(s.points) != 50 || s.dim != 2 || !(report.PointRate > 0) {
		t.Errorf("%+v, %v, %d points", report, err, len(s.points))
	}
	if _, err := g.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "empty") {
		t.Errorf("an empty data set: %v", err)
	}
}

func TestServeClosedLoop(t *testing.T) {
	st, server := newStandIn(t)
	l := Load{Client: newClient(t, server.URL), Collection: "c", Batch: 100, Concurrency: 1}
	st.dim = 2
	if _, err := l.Run(t.Context(), &rows{n: 100}); err != nil {
		t.Fatal(err)
	}
	s := Serve{URL: server.URL, Collection: "c", Queries: vectorsOf(10.25, 50.25), K: 4, Concurrency: []int{1, 3}, Duration: 50 * time.Millisecond}
	f := func(name string, truth [][]int32, want float64) {
		t.Helper()
		s.Truth = truth
		report, err := s.Run(t.Context(), func(string) {})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if report.Recall != want || len(report.Rows) != 2 {
			t.Errorf("%s: recall %v, want %v", name, report.Recall, want)
		}
		for i, row := range report.Rows {
			if row.Concurrency != s.Concurrency[i] || row.Requests == 0 || row.Errors != 0 || !(row.QPS > 0) ||
				row.P50 > row.P99 || row.P99 > row.P999 || row.P999 > row.Max {
				t.Errorf("%s: row %+v", name, row)
			}
		}
	}
	// The stand-in leaves the nearest out: three of four are found.
	f("exact search as truth", nil, 0.75)
	f("truth given", [][]int32{{10, 11, 9, 12}, {50, 51, 49, 52}}, 0.75)
	f("longer truth, no hit for the second", [][]int32{{10, 11, 9, 12, 8}, {1, 2, 3, 4, 5}}, 0.375)

	refused := func(want string, change func(s *Serve)) {
		t.Helper()
		changed := s
		changed.Truth = nil
		change(&changed)
		if _, err := changed.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	refused("k: 0", func(s *Serve) { s.K = 0 })
	refused("ef: -1", func(s *Serve) { s.Ef = -1 })
	refused("duration", func(s *Serve) { s.Duration = 0 })
	refused("rate", func(s *Serve) { s.Rate = -1 })
	refused("concurrency: none", func(s *Serve) { s.Concurrency = nil })
	refused("concurrency: 0", func(s *Serve) { s.Concurrency = []int{0} })
	refused("truth has 1 rows for 2", func(s *Serve) { s.Truth = [][]int32{{1, 2, 3, 4}} })
	refused("has 2 neighbors", func(s *Serve) { s.Truth = [][]int32{{1, 2}, {3, 4}} })
	refused("404", func(s *Serve) { s.Collection = "d" })
}

// TestServeOpenLoop stalls the server once. In an open loop the requests that should have started meanwhile are charged
// with their waiting; a closed loop would see one slow request.
func TestServeOpenLoop(t *testing.T) {
	const stall = 200 * time.Millisecond
	st, server := newStandIn(t)
	st.dim = 2
	st.points[vectord.NumberID(0)] = []float32{0, 1}
	st.points[vectord.NumberID(1)] = []float32{1, 1}
	s := Serve{URL: server.URL, Collection: "c", Queries: vectorsOf(0), K: 1, Concurrency: []int{1}, Duration: 400 * time.Millisecond, Rate: 200}
	if err := s.validate(); err != nil {
		t.Fatal(err)
	}
	requests, err := s.prepare()
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	st.block = func() { once.Do(func() { time.Sleep(stall) }) }
	row, err := requests.measure(t.Context(), s.Duration, s.Rate, 1)
	if err != nil {
		t.Fatal(err)
	}
	// 80 requests are due, of which 40 fall due during the stall and wait half of it in the mean.
	if row.Requests != 80 || row.Mean < float64(stall.Microseconds())/8 || row.P50 > row.P95 {
		t.Errorf("open loop: %+v", row)
	}
	st.block = func() { time.Sleep(time.Millisecond) }
	s.Rate = 0
	if row, err = requests.measure(t.Context(), s.Duration, s.Rate, 1); err != nil || row.Requests > 400 {
		t.Errorf("closed loop: %+v, %v", row, err)
	}
}

func TestServeAllRefused(t *testing.T) {
	_, server := newStandIn(t)
	s := Serve{URL: server.URL, Collection: "c", Queries: vectorsOf(0), K: 1, Concurrency: []int{2}, Duration: 20 * time.Millisecond}
	requests, err := s.prepare()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := requests.measure(t.Context(), s.Duration, s.Rate, 2); err == nil || !strings.Contains(err.Error(), "doesn't exist") {
		t.Errorf("error %v", err)
	}
}

func TestReportsAsJSON(t *testing.T) {
	f := func(report any, want ...string) {
		t.Helper()
		b, err := json.Marshal(report)
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range want {
			if !strings.Contains(string(b), `"`+key+`":`) {
				t.Errorf("%s lacks %s", b, key)
			}
		}
	}
	f(ANNReport{Rows: []ANNRow{{}}}, "n", "dim", "metric", "codec", "build_seconds", "bytes_in_memory", "rows", "ef", "recall", "qps", "mean_us", "p50_us", "p95_us", "p99_us")
	f(ServeReport{Rows: []ServeRow{{}}}, "recall", "rows", "concurrency", "requests", "errors", "qps", "mean_us", "p99_us", "p999_us", "max_us")
	f(ChurnReport{Rows: []ChurnRow{{}}}, "n", "metric", "ef", "k", "share", "rows", "step", "recall", "bytes_in_memory", "bytes_resident", "slots",
		"goroutines", "delete_us", "insert_us")
	f(MixedReport{}, "recall", "write_rate", "write_batch", "rounds", "searches_alone", "searches_during_writes", "writes", "p99_us", "errors")
	f(HybridReport{Judged: []HybridJudged{{Rows: []HybridRow{{}}}}}, "texts", "with_vector", "judged", "kind", "queries", "relevant", "rows", "search", "ndcg",
		"ndcg_error", "recall", "gain", "gain_error", "p50_us", "p95_us")
	f(IngestReport{}, "points", "points_per_second", "p50_us", "p99_us")
}
