package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"image/color"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/bench/words"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
)

func randomVectors(seed uint64, n, dim int) *dataset.Vectors {
	random := rand.New(rand.NewPCG(seed, 0))
	v := &dataset.Vectors{Dim: dim, Data: make([]float32, n*dim)}
	for i := range v.Data {
		v.Data[i] = float32(random.NormFloat64())
	}
	return v
}

// TestTruth compares with sorting all distances.
func TestTruth(t *testing.T) {
	f := func(d vectord.Distance, n, queries, k int) {
		t.Helper()
		base, q := randomVectors(1, n, 5), randomVectors(2, queries, 5)
		got, err := Truth(t.Context(), d, base, q, k)
		if err != nil || len(got) != queries {
			t.Fatal(len(got), err)
		}
		distance := index.DistanceFunc(d)
		for i := range queries {
			all := make([]int32, n)
			for row := range all {
				all[row] = int32(row)
			}
			slices.SortFunc(all, func(a, b int32) int {
				return index.Compare(index.Neighbor{Slot: uint32(a), Distance: distance(q.At(i), base.At(int(a)))},
					index.Neighbor{Slot: uint32(b), Distance: distance(q.At(i), base.At(int(b)))})
			})
			if want := all[:min(k, n)]; !reflect.DeepEqual(got[i], want) {
				t.Errorf("%v, %d base vectors: query %d has %v, want %v", d, n, i, got[i], want)
			}
		}
	}
	f(vectord.Euclid, 200, 37, 10)
	f(vectord.Cosine, 50, truthQueries, 5)
	f(vectord.Dot, 7, 1, 10)
	f(vectord.Manhattan, 30, truthQueries+1, 1)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Truth(ctx, vectord.Dot, randomVectors(1, 5, 2), randomVectors(1, 5, 2), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled truth: %v", err)
	}
	if _, err := Truth(t.Context(), vectord.Dot, randomVectors(1, 5, 2), randomVectors(1, 5, 3), 1); err == nil {
		t.Error("different dimensions were compared")
	}
}

func TestANN(t *testing.T) {
	f := func(metric vectord.Distance, n, batch int) {
		t.Helper()
		a := ANN{Base: randomVectors(3, n, 16), Queries: randomVectors(4, 20, 16), Metric: metric, K: 10, M: 8, EfConstruct: 60,
			Codec: vectord.CodecInt8, Ef: []int{10, n}, Threads: 2, Batch: batch}
		steps := 0
		report, err := a.Run(t.Context(), func(string) { steps++ })
		if err != nil {
			t.Fatal(err)
		}
		if report.N != n || report.Dim != 16 || report.Metric != metric.String() || len(report.Rows) != 2 || report.Memory <= 0 || steps != 4 {
			t.Errorf("%v: %+v after %d steps", metric, report, steps)
		}
		for _, row := range report.Rows {
			if !(row.QPS > 0 && row.P50 > 0 && row.P50 <= row.P95 && row.P95 <= row.P99 && row.Recall <= 1) {
				t.Errorf("%v: row %+v", metric, row)
			}
		}
		if last := report.Rows[1]; last.Recall < 0.999 {
			t.Errorf("%v: recall %v with as many candidates as there are vectors", metric, last.Recall)
		}
		var text strings.Builder
		if err := report.WriteTable(&text); err != nil || strings.Count(text.String(), "\n") != 6 {
			t.Errorf("table %q, %v", text.String(), err)
		}
	}
	f(vectord.Cosine, 300, 0)
	f(vectord.Euclid, 300, 0)
	f(vectord.Cosine, 300, 8) // more than divide the queries
}

// TestANNOfProductCodes holds what graphs of product codes find of real word vectors, compared again at full precision.
func TestANNOfProductCodes(t *testing.T) {
	sample, err := words.Sample()
	if err != nil {
		t.Fatal(err)
	}
	base, queries := &dataset.Vectors{Dim: words.Dimension}, &dataset.Vectors{Dim: words.Dimension}
	for i := 0; ; i++ {
		p, err := sample.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		into := base
		if i%50 == 0 {
			into = queries
		}
		into.Data = append(into.Data, p.Vectors.Unnamed()...)
	}
	f := func(codec string, least float64) {
		t.Helper()
		a := ANN{Base: base, Queries: queries, Metric: vectord.Cosine, K: 10, M: 16, EfConstruct: 100, Codec: codec,
			Ef: []int{50}, Threads: 2}
		report, err := a.Run(t.Context(), func(string) {})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: recall %.3f", report.Codec, report.Rows[0].Recall)
		if report.Codec != codec || report.Rows[0].Recall < least {
			t.Errorf("%s: recall %.3f, want at least %.2f of %s", report.Codec, report.Rows[0].Recall, least, codec)
		}
	}
	f("product-x4", 0.95)
	f("product-x16", 0.9)
	f("product-x64", 0.9)
}

// TestANNRecall checks both ends: queries that are base vectors are found, and a graph of few links shows its misses.
func TestANNRecall(t *testing.T) {
	base := randomVectors(5, 1000, 32)
	a := ANN{Base: base, Queries: &dataset.Vectors{Dim: 32, Data: slices.Clone(base.Data[:32*10])}, Metric: vectord.Euclid, K: 1, M: 8,
		EfConstruct: 50, Codec: vectord.CodecInt8, Ef: []int{100}, Threads: 1}
	for i := range a.Queries.Len() {
		a.Truth = append(a.Truth, []int32{int32(i)}) // each is its own nearest
	}
	report, err := a.Run(t.Context(), func(string) {})
	if err != nil || report.Rows[0].Recall != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	a.Truth = a.Truth[:9]
	if _, err = a.Run(t.Context(), func(string) {}); err == nil {
		t.Error("a truth of too few rows was taken")
	}
	a.Truth, a.Queries, a.K, a.M, a.EfConstruct, a.Ef = nil, randomVectors(6, 50, 32), 10, 2, 4, []int{10}
	if report, err = a.Run(t.Context(), func(string) {}); err != nil || !(report.Rows[0].Recall < 0.9) {
		t.Errorf("a poor graph: %+v, %v", report, err)
	}
}

func TestANNRefuses(t *testing.T) {
	f := func(want string, change func(a *ANN)) {
		t.Helper()
		a := ANN{Base: randomVectors(1, 20, 4), Queries: randomVectors(2, 3, 4), Metric: vectord.Dot, K: 5, Codec: vectord.CodecBinary, Ef: []int{10}, Threads: 1}
		change(&a)
		if _, err := a.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	f("metric", func(a *ANN) { a.Metric = 0 })
	f("the queries have 5 components, the base vectors 4", func(a *ANN) { a.Queries = randomVectors(2, 3, 5) })
	f("k: 21 invalid", func(a *ANN) { a.K = 21 })
	f("k: 0 invalid", func(a *ANN) { a.K = 0 })
	f("ef: none", func(a *ANN) { a.Ef = nil })
	f("ef: 4 invalid, must be from k = 5", func(a *ANN) { a.Ef = []int{4} })
	f(`codec: "int4"`, func(a *ANN) { a.Codec = "int4" })
	f("threads: 0", func(a *ANN) { a.Threads = 0 })
	f("M is 1", func(a *ANN) { a.M = 1 })
	f("names row 20 of 20", func(a *ANN) { a.Truth = [][]int32{{0, 1, 2, 3, 20}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}} })
	f("has 4 neighbors", func(a *ANN) { a.Truth = [][]int32{{0, 1, 2, 3}, {0, 1, 2, 3, 4}, {0, 1, 2, 3, 4}} })
}

func TestFiltered(t *testing.T) {
	const n = 400
	f := Filtered{ANN: ANN{Codec: vectord.CodecInt8, Base: randomVectors(7, n, 16), Queries: randomVectors(8, 20, 16), Metric: vectord.Cosine, K: 10, M: 8,
		EfConstruct: 60, Threads: 1}, Keep: []float64{20, 1}, RecallTarget: 0.9}
	report, err := f.Run(t.Context(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if report.N != n || report.Ef < 10 || len(report.Filtered) != 5 {
		t.Fatalf("%+v", report)
	}
	kinds := []string{"none", "random", "random", "far", "far"}
	for i, row := range report.Filtered {
		if row.Kind != kinds[i] || row.Ef != report.Ef || row.Short != 0 || row.Recall < 0.89 || row.Recall > 1 || !(row.P50 > 0) ||
			!(row.RowsScored > 0) || row.Plans.String() == "" {
			t.Errorf("row %d: %+v", i, row)
		}
	}
	if last := report.Filtered[4]; last.Keep != 1 || last.RowsScored != n/100 || last.Recall != 1 {
		t.Errorf("4 of %d kept: %+v", n, last)
	}
	var text strings.Builder
	if err := report.WriteTable(&text); err != nil || strings.Count(text.String(), "\n") != 11 {
		t.Errorf("table %q, %v", text.String(), err)
	}
	if b, err := json.Marshal(report); err != nil || !strings.Contains(string(b), `"kind":"far","keep":1,"plans":"scan"`) {
		t.Errorf("JSON %s, %v", b, err)
	}

	refuses := func(want string, change func(f *Filtered)) {
		t.Helper()
		g := f
		change(&g)
		if _, err := g.Run(t.Context(), func(string) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
	refuses("threads: 0", func(f *Filtered) { f.Threads = 0 })
	refuses("ef: 2 given", func(f *Filtered) { f.Ef = []int{10, 20} })
	refuses("ef: 4 invalid", func(f *Filtered) { f.Ef = []int{4} })
	refuses("recall target: 1 invalid", func(f *Filtered) { f.RecallTarget = 1 })
	refuses("keep: none", func(f *Filtered) { f.Keep = nil })
	refuses("keep: 101 invalid", func(f *Filtered) { f.Keep = []float64{5, 101} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Run(ctx, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled measurement: %v", err)
	}
}

func TestPlans(t *testing.T) {
	f := func(p Plans, want string) {
		t.Helper()
		if got := p.String(); got != want {
			t.Errorf("%v is written %q, want %q", [4]int(p), got, want)
		}
	}
	f(Plans{}, "")
	f(Plans{hnsw.PlanScan: 7}, "scan")
	f(Plans{hnsw.PlanWalk: 1, hnsw.PlanScan: 2}, "walk 33.3 %, scan 66.7 %")
}

func TestLatencyOf(t *testing.T) {
	f := func(n int, want Latency) {
		t.Helper()
		var d []time.Duration
		for i := n; i >= 1; i-- {
			d = append(d, time.Duration(i)*time.Microsecond)
		}
		if got := latencyOf(d); got != want {
			t.Errorf("latencies of 1 to %d µs: %+v, want %+v", n, got, want)
		}
	}
	f(1, Latency{1, 1, 1, 1})
	f(2, Latency{1.5, 1, 2, 2})
	f(100, Latency{50.5, 50, 95, 99})
	f(1000, Latency{500.5, 500, 950, 990})
}

func TestParseMetric(t *testing.T) {
	f := func(s string, want vectord.Distance) {
		t.Helper()
		if got, err := ParseMetric(s); got != want || (err == nil) != want.Valid() {
			t.Errorf("ParseMetric(%q) = %v, %v", s, got, err)
		}
	}
	f("cosine", vectord.Cosine)
	f("Euclid", vectord.Euclid)
	f("DOT", vectord.Dot)
	f("manhattan", vectord.Manhattan)
	f("", 0)
	f("l2", 0)
}

func TestPlot(t *testing.T) {
	f := func(series ...Series) {
		t.Helper()
		plot := Plot{Title: `<words> & "more"`, Series: series}
		var b strings.Builder
		if err := plot.WriteSVG(&b); err != nil {
			t.Fatal(err)
		}
		d := xml.NewDecoder(strings.NewReader(b.String()))
		circles, texts := 0, 0
		for {
			token, err := d.Token()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%v in %s", err, b.String())
			}
			start, ok := token.(xml.StartElement)
			if !ok {
				continue
			}
			switch start.Name.Local {
			case "circle":
				circles++
				for _, a := range start.Attr {
					var at float64
					if fmt.Sscan(a.Value, &at); a.Name.Local == "cx" && (at < plotLeft-1 || at > plotWidth-plotRight+1) ||
						a.Name.Local == "cy" && (at < plotTop-1 || at > plotHeight-plotBottom+1) {
						t.Errorf("a circle outside of the axes: %v", start)
					}
				}
			case "text":
				texts++
			}
		}
		want := 0
		for _, s := range series {
			want += len(s.Points)
			if len(series) > 1 {
				want++ // in the legend
				if !strings.Contains(b.String(), ">"+s.Name+"<") {
					t.Errorf("the legend lacks %s", s.Name)
				}
			}
		}
		if circles != want || texts > 60 {
			t.Errorf("%d circles, want %d, %d texts", circles, want, texts)
		}

		// A PNG shows each series in its color at its last point, which nothing is drawn over.
		var picture bytes.Buffer
		if err := plot.WritePNG(&picture); err != nil {
			t.Fatal(err)
		}
		drawn, err := png.Decode(&picture)
		if err != nil || drawn.Bounds().Dx() != plotScale*plotWidth || drawn.Bounds().Dy() != plotScale*plotHeight {
			t.Fatalf("%v, %v", drawn.Bounds(), err)
		}
		axes, err := plot.axes()
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range series {
			last := s.Points[len(s.Points)-1]
			x, y := int(plotScale*axes.x(last.Recall)), int(plotScale*axes.y(last.QPS))
			if got := drawn.At(x, y); got != color.Color(plotColors[i]) {
				t.Errorf("series %d: color %v at (%d, %d), want %v", i, got, x, y, plotColors[i])
			}
		}
		colored := 0
		for y := range drawn.Bounds().Dy() {
			for x := range drawn.Bounds().Dx() {
				if slices.Contains(plotColors, color.RGBAModel.Convert(drawn.At(x, y)).(color.RGBA)) {
					colored++
				}
			}
		}
		if all := drawn.Bounds().Dx() * drawn.Bounds().Dy(); colored > all/50 {
			t.Errorf("lines and dots take %d pixels of %d", colored, all)
		}
	}
	one := func(points ...Point) Series { return Series{Points: points} }
	f(one(Point{0.95, 1000, "ef 10"}))
	f(one(Point{1, 12345, "a"}))
	f(one(Point{0, 0.001, "a"}, Point{1, 1e9, "b"}))
	f(one(Point{0.7, 16565, "ef 10"}, Point{0.94, 5260, "ef 40"}, Point{0.9917, 1490, "ef 160"}))
	f(Series{"a", []Point{{0.7, 16565, ""}, {0.7, 16565, ""}, {0.9, 5260, ""}}}, Series{"b", []Point{{0.8, 1000, ""}, {0.9, 2000, ""}}},
		Series{"c", []Point{{1, 1500, ""}}})

	refused := func(series ...Series) {
		t.Helper()
		plot := Plot{Series: series}
		if plot.WriteSVG(io.Discard) == nil || plot.WritePNG(io.Discard) == nil {
			t.Errorf("%v was drawn", series)
		}
	}
	refused()
	refused(one())
	refused(one(Point{0.5, 1, ""}), one())
	refused(one(Point{0.5, 0, ""}))
	refused(one(Point{1.5, 1, ""}))
	refused(one(Point{math.NaN(), 1, ""}))
	refused(one(Point{0.5, math.Inf(1), ""}))
}

func ExampleANNReport_WriteTable() {
	report := ANNReport{N: 1000, Dim: 100, Metric: "Cosine", Codec: "int8", BuildSeconds: 0.5, Memory: 256_000,
		Rows: []ANNRow{{Ef: 10, Recall: 0.85, QPS: 40_000, Latency: Latency{Mean: 25, P50: 24, P95: 31, P99: 40}}}}
	report.WriteTable(os.Stdout)
	// Output:
	// 1000 × 100 Cosine · codec int8 · built in 0.50 s (2000/s) · 0.2 MiB (256 bytes a vector)
	//
	//   ef  recall  queries/s  mean µs  p50 µs  p95 µs  p99 µs
	//   --  ------  ---------  -------  ------  ------  ------
	//   10  0.8500      40000       25      24      31      40
}

func TestMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("resident memory is known on Linux only")
	}
	m := Memory{Points: 2000, Dim: 24, Metric: vectord.Cosine, M: 8, EfConstruct: 30, Codec: vectord.CodecFloat32, Threads: 2, Dir: t.TempDir()}
	report, err := m.Run(t.Context(), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	if least := int64(m.Points * (128 + 2*m.M*4)); report.Counted < least || report.Checkpoint < least || report.LoadSeconds <= 0 || report.Points != m.Points {
		t.Errorf("%+v, expected at least %d bytes", report, least)
	}
	if files, _ := os.ReadDir(m.Dir); len(files) != 0 {
		t.Errorf("%d files are left", len(files))
	}
	m.Threads = 0
	if _, err := m.Run(t.Context(), func(string) {}); err == nil {
		t.Error("no threads were accepted")
	}
}
