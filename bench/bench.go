// Package bench measures vectord: recall and latency of the index in one process, and of a server over HTTP.
//
// Recall is reported beside every speed. A found point counts as right when it is no further from the query than the k-th
// true neighbor, so that of several points at that distance any will do.
package bench

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/vectord/vectord"
)

// ParseMetric reads the name of a distance as the command line has it, in any case.
func ParseMetric(s string) (vectord.Distance, error) {
	if s == "" {
		return 0, fmt.Errorf("metric: empty, expected one of cosine, euclid, dot, manhattan")
	}
	d, err := vectord.ParseDistance(strings.ToUpper(s[:1]) + strings.ToLower(s[1:]))
	if err != nil {
		return 0, fmt.Errorf("metric %q: expected one of cosine, euclid, dot, manhattan", s)
	}
	return d, nil
}

// Latency sums up how long requests took, in microseconds.
type Latency struct {
	Mean float64 `json:"mean_us"`
	P50  float64 `json:"p50_us"`
	P95  float64 `json:"p95_us"`
	P99  float64 `json:"p99_us"`
}

// latencyOf sums up durations, which it sorts. There must be at least one.
func latencyOf(durations []time.Duration) Latency {
	slices.Sort(durations)
	var sum time.Duration
	for _, d := range durations {
		sum += d
	}
	at := func(share float64) float64 { // the smallest duration that so large a share of all do not exceed
		rank := int(share*float64(len(durations))+0.999999) - 1
		return micros(durations[min(max(rank, 0), len(durations)-1)])
	}
	return Latency{Mean: micros(sum) / float64(len(durations)), P50: at(0.50), P95: at(0.95), P99: at(0.99)}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// Histograms count latencies over HTTP in microseconds with three significant digits, up to a minute; what takes longer
// counts as a minute.
const (
	histogramMax    = 60_000_000
	histogramDigits = 3
)

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, histogramMax, histogramDigits)
}

func record(h *hdrhistogram.Histogram, d time.Duration) {
	// The only error is that of a value out of range, which this one is not.
	_ = h.RecordValue(min(max(d.Microseconds(), 1), histogramMax))
}

func latencyOfHistogram(h *hdrhistogram.Histogram) Latency {
	at := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) }
	return Latency{Mean: h.Mean(), P50: at(50), P95: at(95), P99: at(99)}
}

// table writes rows of cells in columns, numbers to the right.
func table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	rule := make([]string, len(header))
	for i, h := range header {
		rule[i] = strings.Repeat("-", utf8.RuneCountInString(h))
	}
	for _, row := range append([][]string{header, rule}, rows...) {
		fmt.Fprintln(t, strings.Join(row, "\t")+"\t")
	}
	return t.Flush()
}
