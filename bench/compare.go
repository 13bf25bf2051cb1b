package bench

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
)

const (
	// ownEngine is whose a report is that names no engine, and baselineEngine whose speed the others are given in.
	ownEngine      = "vectord"
	baselineEngine = "hnswlib"

	// plainCodec is the codec that goes without saying.
	plainCodec = "float32"

	// comparePlotRecall is where the plot of a comparison begins: nobody serves less, and the curves meet there.
	comparePlotRecall = 0.8

	compareLineMax = 1 << 20 // bytes of a report
)

// compareRecalls are the recalls that engines are compared at.
var compareRecalls = [...]float64{0.95, 0.99}

// EngineReport is what one run of one engine found: a line of what the drivers in bench/peers print, or of bench ann.
type EngineReport struct {
	Engine string `json:"engine"` // empty: vectord
	ANNReport
}

// Name tells the engine and its codec apart from others.
func (r *EngineReport) Name() string {
	name := r.Engine
	if name == "" {
		name = ownEngine
	}
	if r.Codec != plainCodec {
		name += " " + r.Codec
	}
	return name
}

// Comparison is engines beside each other on one data set.
type Comparison struct {
	Engines []EngineReport // medians of each engine's runs, in the order that the engines came in
	Runs    []int          // of each engine
}

// Compare reads reports, one JSON object a line, all of one data set, and takes the medians by engine: of every figure by
// itself.
func Compare(r io.Reader) (*Comparison, error) {
	var names []string
	runs := make(map[string][]EngineReport)
	var first EngineReport
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, compareLineMax)
	for number := 1; lines.Scan(); number++ {
		var report EngineReport
		if err := json.Unmarshal(lines.Bytes(), &report); err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		if len(names) == 0 {
			first = report
		}
		name := report.Name()
		switch {
		case report.N != first.N || report.Dim != first.Dim || report.Metric != first.Metric:
			return nil, fmt.Errorf("line %d: %s was measured on %d × %d %s, the first line's on %d × %d %s",
				number, name, report.N, report.Dim, report.Metric, first.N, first.Dim, first.Metric)
		case !(report.BuildSeconds > 0) || len(report.Rows) == 0:
			return nil, fmt.Errorf("line %d: %s has no build time or no rows", number, name)
		case runs[name] != nil && !slices.EqualFunc(report.Rows, runs[name][0].Rows, func(a, b ANNRow) bool { return a.Ef == b.Ef }):
			return nil, fmt.Errorf("line %d: %s was measured at other ef than before", number, name)
		}
		for _, row := range report.Rows {
			if !(row.Recall >= 0 && row.Recall <= 1) || !(row.QPS > 0) || math.IsInf(row.QPS, 0) {
				return nil, fmt.Errorf("line %d: %s has recall %v at %v queries/s", number, name, row.Recall, row.QPS)
			}
		}
		if runs[name] == nil {
			names = append(names, name)
		}
		runs[name] = append(runs[name], report)
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, errors.New("there are no reports")
	}
	c := &Comparison{}
	for _, name := range names {
		c.Engines = append(c.Engines, medianReport(runs[name]))
		c.Runs = append(c.Runs, len(runs[name]))
	}
	return c, nil
}

// medianReport takes the median of each figure of an engine's runs, whose rows have the same ef.
func medianReport(runs []EngineReport) EngineReport {
	of := func(figure func(r *EngineReport) float64) float64 {
		values := make([]float64, len(runs))
		for i := range runs {
			values[i] = figure(&runs[i])
		}
		return median(values)
	}
	m := runs[0]
	m.BuildSeconds = of(func(r *EngineReport) float64 { return r.BuildSeconds })
	m.Memory = int64(of(func(r *EngineReport) float64 { return float64(r.Memory) }))
	m.Rows = slices.Clone(m.Rows)
	for i := range m.Rows {
		row := &m.Rows[i]
		row.Recall = of(func(r *EngineReport) float64 { return r.Rows[i].Recall })
		row.QPS = of(func(r *EngineReport) float64 { return r.Rows[i].QPS })
		row.Mean = of(func(r *EngineReport) float64 { return r.Rows[i].Mean })
		row.P50 = of(func(r *EngineReport) float64 { return r.Rows[i].P50 })
		row.P95 = of(func(r *EngineReport) float64 { return r.Rows[i].P95 })
		row.P99 = of(func(r *EngineReport) float64 { return r.Rows[i].P99 })
	}
	return m
}

// median returns the middle of values, which it sorts; of an even number, the mean of the two in the middle.
func median(values []float64) float64 {
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// at describes an engine at a recall.
type at struct {
	qps     float64 // 0: the recall is not reached
	ef      float64
	atLeast bool // the least ef measured has more recall already
}

// atRecall finds the speed at a recall on the line between the two neighboring rows, straight in recall and the logarithms
// of speed and ef.
func (r *ANNReport) atRecall(recall float64) at {
	rows := slices.Clone(r.Rows)
	slices.SortStableFunc(rows, func(a, b ANNRow) int { return a.Ef - b.Ef })
	i := slices.IndexFunc(rows, func(row ANNRow) bool { return row.Recall >= recall })
	if i < 0 {
		return at{}
	}
	over := rows[i]
	if i == 0 {
		return at{qps: over.QPS, ef: float64(over.Ef), atLeast: over.Recall > recall}
	}
	under := rows[i-1] // whose recall is less, so that no division is by 0
	share := (recall - under.Recall) / (over.Recall - under.Recall)
	between := func(a, b float64) float64 { return math.Exp(math.Log(a) + share*(math.Log(b)-math.Log(a))) }
	return at{qps: between(under.QPS, over.QPS), ef: between(float64(under.Ef), float64(over.Ef))}
}

// WriteTable writes the comparison for people. Speeds are also given as multiples of hnswlib's, where that was measured.
func (c *Comparison) WriteTable(w io.Writer) error {
	first := c.Engines[0]
	fmt.Fprintf(w, "%d × %d %s · medians\n\n", first.N, first.Dim, first.Metric)
	var baseline *EngineReport
	if i := slices.IndexFunc(c.Engines, func(r EngineReport) bool { return r.Name() == baselineEngine }); i >= 0 {
		baseline = &c.Engines[i]
	}
	ratio := func(x, y float64) string {
		if !(x > 0) || !(y > 0) {
			return "–"
		}
		return fmt.Sprintf("%.2f×", x/y)
	}
	header := []string{"engine", "runs", "build s", "vectors/s", "to " + baselineEngine, "MiB"}
	for _, recall := range compareRecalls {
		header = append(header, fmt.Sprintf("queries/s at %g", recall), "ef", "to "+baselineEngine)
	}
	header = append(header, "best recall")
	var rows [][]string
	for i, r := range c.Engines {
		rate := float64(r.N) / r.BuildSeconds
		cells := []string{r.Name(), fmt.Sprint(c.Runs[i]), fmt.Sprintf("%.1f", r.BuildSeconds), fmt.Sprintf("%.0f", rate), "–",
			fmt.Sprintf("%.0f", float64(r.Memory)/(1<<20))}
		if baseline != nil {
			cells[4] = ratio(rate, float64(baseline.N)/baseline.BuildSeconds)
		}
		for _, recall := range compareRecalls {
			here := r.atRecall(recall)
			var there at
			if baseline != nil {
				there = baseline.atRecall(recall)
			}
			if here.qps == 0 {
				cells = append(cells, "–", "–", "–")
				continue
			}
			speed := fmt.Sprintf("%.0f", here.qps)
			if here.atLeast {
				speed = "≥ " + speed
			}
			cells = append(cells, speed, fmt.Sprintf("%.0f", here.ef), ratio(here.qps, there.qps))
		}
		best := slices.MaxFunc(r.Rows, func(a, b ANNRow) int { return cmp.Compare(a.Recall, b.Recall) })
		rows = append(rows, append(cells, fmt.Sprintf("%.4f", best.Recall)))
	}
	return table(w, header, rows)
}

// Plot returns all engines in one picture, from where recall is worth having.
func (c *Comparison) Plot(title string) *Plot {
	p := &Plot{Title: title}
	for _, r := range c.Engines {
		s := Series{Name: r.Name()}
		for _, point := range r.PlotPoints() {
			if point.Recall >= comparePlotRecall {
				s.Points = append(s.Points, point)
			}
		}
		if len(s.Points) > 0 {
			p.Series = append(p.Series, s)
		}
	}
	return p
}
