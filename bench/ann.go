package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
)

const (
	// trainSample is the number of base vectors that the quantizer is fitted to.
	trainSample = 20_000

	// annSeconds is how long each ef is measured at least; the queries are repeated until then.
	annSeconds = 1.0
)

// ANN measures an index in this process: it builds a graph over Base and searches it for Queries at each ef.
type ANN struct {
	Base, Queries *dataset.Vectors // those of Cosine are normalised in place
	Truth         [][]int32        // rows of Base nearest to each query, nearest first; nil: found by comparing all
	Metric        vectord.Distance
	K             int
	M             int
	EfConstruct   int
	Codec         string // one of Codecs
	Ef            []int
	Threads       int // that build and search, from 1 to ThreadsMax
	Batch         int // queries of one call, up to BatchMax; 0 searches for one at a time
}

// ThreadsMax bounds the threads of a measurement, BatchMax the queries of one call.
const (
	ThreadsMax = 1024
	BatchMax   = 1 << 16
)

// ANNReport is what ANN found.
type ANNReport struct {
	N            int      `json:"n"`
	Dim          int      `json:"dim"`
	Metric       string   `json:"metric"`
	Codec        string   `json:"codec"`
	BuildSeconds float64  `json:"build_seconds"`   // training of the codec included
	Memory       int64    `json:"bytes_in_memory"` // of graph and codes; full vectors, which a server keeps on disk, not counted
	Rows         []ANNRow `json:"rows"`
}

// ANNRow is the measurement at one ef. Latencies are those of single queries, or of whole batches, each on one thread.
type ANNRow struct {
	Ef     int     `json:"ef"`
	Recall float64 `json:"recall"`
	QPS    float64 `json:"qps"`
	Latency
}

func (a *ANN) validate() error {
	switch {
	case !a.Metric.Valid():
		return errors.New("metric: not given")
	case a.Base.Dim != a.Queries.Dim:
		return fmt.Errorf("the queries have %d components, the base vectors %d", a.Queries.Dim, a.Base.Dim)
	case a.K < 1 || a.K > min(a.Base.Len(), vectord.MaxLimit):
		return fmt.Errorf("k: %d invalid, must be from 1 to %d", a.K, min(a.Base.Len(), vectord.MaxLimit))
	case len(a.Ef) == 0:
		return errors.New("ef: none given")
	case a.Threads < 1 || a.Threads > ThreadsMax:
		return fmt.Errorf("threads: %d invalid, must be from 1 to %d", a.Threads, ThreadsMax)
	}
	if err := checkCodec(a.Codec); err != nil {
		return err
	}
	if a.Batch < 0 || a.Batch > BatchMax {
		return fmt.Errorf("batch: %d invalid, must be from 0 to %d", a.Batch, BatchMax)
	}
	for _, ef := range a.Ef {
		if ef < a.K || ef > vectord.MaxLimit {
			return fmt.Errorf("ef: %d invalid, must be from k = %d to %d", ef, a.K, vectord.MaxLimit)
		}
	}
	return nil
}

// Run does the measurement. progress is told about each step that takes its time. When ctx ends, Run returns its error.
func (a *ANN) Run(ctx context.Context, progress func(step string)) (ANNReport, error) {
	if err := a.validate(); err != nil {
		return ANNReport{}, err
	}
	graph, report, err := a.open(ctx, progress)
	if err != nil {
		return ANNReport{}, err
	}
	defer graph.Close()
	truth := a.Truth
	if truth == nil {
		progress(fmt.Sprintf("comparing %d queries with %d vectors for the truth", a.Queries.Len(), a.Base.Len()))
		if truth, err = Truth(ctx, a.Metric, a.Base, a.Queries, a.K); err != nil {
			return ANNReport{}, err
		}
	}
	if err := checkTruth(truth, a.Queries.Len(), a.K, a.Base.Len()); err != nil {
		return ANNReport{}, err
	}

	search := annSearch{ANN: a, graph: graph, distance: index.DistanceFunc(a.Metric), cases: newCases(a.Queries.Len())}
	for q := range a.Queries.Len() {
		search.cases.set(q, a.K, search.distance(a.Queries.At(q), a.Base.At(int(truth[q][a.K-1]))))
	}
	for _, ef := range a.Ef {
		progress(fmt.Sprintf("searching with ef %d", ef))
		m, err := search.measure(ctx, ef)
		if err != nil {
			return ANNReport{}, err
		}
		report.Rows = append(report.Rows, m.ANNRow)
	}
	return report, nil
}

// open normalises the vectors if need be and builds the graph, and returns what there is to report of it.
func (a *ANN) open(ctx context.Context, progress func(step string)) (*hnsw.Graph, ANNReport, error) {
	if a.Metric == vectord.Cosine {
		for _, v := range []*dataset.Vectors{a.Base, a.Queries} {
			for i := range v.Len() {
				vectord.Normalize(v.At(i))
			}
		}
	}
	progress(fmt.Sprintf("building the graph of %d vectors on %d threads", a.Base.Len(), a.Threads))
	begin := time.Now()
	graph, err := a.build(ctx)
	if err != nil {
		return nil, ANNReport{}, err
	}
	return graph, ANNReport{N: a.Base.Len(), Dim: a.Base.Dim, Metric: a.Metric.String(), Codec: codecName(graph.Codec()),
		BuildSeconds: time.Since(begin).Seconds(), Memory: graph.MemoryBytes()}, nil
}

// build fits a codec to a sample of the base vectors and inserts them all.
func (a *ANN) build(ctx context.Context) (*hnsw.Graph, error) {
	n := a.Base.Len()
	rows := make([]int32, n)
	for row := range rows {
		rows[row] = int32(row)
	}
	graph, err := newGraph(a.Codec, a.Metric, a.Base, rows, hnsw.Config{M: a.M, EfConstruction: a.EfConstruct, MaxSlots: uint32(n)})
	if err != nil {
		return nil, err
	}
	var next atomic.Int64
	errs := make([]error, a.Threads)
	var builders sync.WaitGroup
	for thread := range a.Threads {
		builders.Go(func() {
			for errs[thread] == nil && ctx.Err() == nil {
				row := next.Add(1) - 1
				if row >= int64(n) {
					return
				}
				errs[thread] = graph.Insert(uint32(row), a.Base.At(int(row)))
			}
		})
	}
	builders.Wait()
	if err := errors.Join(append(errs, ctx.Err())...); err != nil {
		graph.Close()
		return nil, err
	}
	return graph, nil
}

// cases is what a measurement knows about each query.
type cases struct {
	filters []*hnsw.Filter // those that are nil keep all
	wanted  []int          // neighbors that there are to find, k or less
	bounds  []float32      // distance of the last of them
}

func newCases(queries int) cases {
	return cases{make([]*hnsw.Filter, queries), make([]int, queries), make([]float32, queries)}
}

func (c *cases) set(q, wanted int, bound float32) { c.wanted[q], c.bounds[q] = wanted, bound }

// newGraph returns an empty graph with a codec that is fitted to a sample of the given rows.
func newGraph(codecName string, d vectord.Distance, base *dataset.Vectors, rows []int32, config hnsw.Config) (*hnsw.Graph, error) {
	sample := make([][]float32, min(len(rows), trainSample))
	random := rand.New(rand.NewPCG(1, 2)) // the same sample each time, so that runs can be compared
	for i, place := range random.Perm(len(rows))[:len(sample)] {
		sample[i] = base.At(int(rows[place]))
	}
	codec, err := trainCodec(codecName, d, base.Dim, sample)
	if err != nil {
		return nil, err
	}
	return hnsw.New(codec, config)
}

// annSearch searches a built graph.
type annSearch struct {
	*ANN
	graph    *hnsw.Graph
	distance func(a, b []float32) float32
	cases    cases
}

// measurement is what the searches at one ef found and did.
type measurement struct {
	ANNRow
	plans Plans
	rows  float64 // codes compared by a search, as a mean
	short int     // searches that found less than was wanted
}

// count searches for all queries once and counts what is found.
func (s *annSearch) count(ctx context.Context, ef int) (measurement, error) {
	m := measurement{ANNRow: ANNRow{Ef: ef}}
	right, wanted, rows := 0, 0, 0
	searcher := newANNSearcher(s, ef)
	for first := 0; first < s.Queries.Len(); first += searcher.size {
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
		for i, found := range searcher.search(first) {
			q := first + i
			if q == s.Queries.Len() {
				break // the last batch goes on with the first queries
			}
			for _, n := range found {
				if n.Distance <= s.cases.bounds[q] {
					right++
				}
			}
			wanted += s.cases.wanted[q]
			if len(found) < s.cases.wanted[q] {
				m.short++
			}
			m.plans[searcher.work[i].Plan]++
			rows += searcher.work[i].Rows
		}
	}
	m.Recall, m.rows = float64(right)/float64(wanted), float64(rows)/float64(s.Queries.Len())
	return m, nil
}

// measure searches for all queries once to warm up and count what is found, then for about annSeconds with the clock on.
func (s *annSearch) measure(ctx context.Context, ef int) (measurement, error) {
	m, err := s.count(ctx, ef)
	if err != nil {
		return m, err
	}
	m.QPS, m.Latency, err = s.clock(ctx, ef, annSeconds)
	return m, err
}

// clock searches for all queries, again and again until some seconds are over, and returns how many a second and how long
// each call took.
func (s *annSearch) clock(ctx context.Context, ef int, seconds float64) (qps float64, each Latency, err error) {
	took := make([][]time.Duration, s.Threads)
	var next atomic.Int64
	var threads sync.WaitGroup
	begin := time.Now()
	for thread := range s.Threads {
		threads.Go(func() {
			searcher := newANNSearcher(s, ef)
			for ctx.Err() == nil {
				first := int(next.Add(int64(searcher.size))) - searcher.size
				if first >= s.Queries.Len() && time.Since(begin).Seconds() > seconds {
					return
				}
				start := time.Now()
				searcher.search(first)
				took[thread] = append(took[thread], time.Since(start))
			}
		})
	}
	threads.Wait()
	wall := time.Since(begin).Seconds()
	if ctx.Err() != nil {
		return 0, Latency{}, ctx.Err()
	}
	all := slices.Concat(took...)
	return float64(len(all)*max(s.Batch, 1)) / wall, latencyOf(all), nil
}

// annSearcher is one thread's search, with the memory that it keeps between calls.
type annSearcher struct {
	*annSearch
	size    int // queries of one call
	queries [][]float32
	params  []hnsw.Params
	work    []hnsw.Work // of each query's last search
	found   [][]index.Neighbor
	slots   []uint32  // of one query's candidates
	exact   []float32 // their distances
	top     index.Top
}

func newANNSearcher(s *annSearch, ef int) *annSearcher {
	size := max(s.Batch, 1)
	a := &annSearcher{annSearch: s, size: size, queries: make([][]float32, size), work: make([]hnsw.Work, size),
		found: make([][]index.Neighbor, size), params: make([]hnsw.Params, size)}
	for i := range a.params {
		a.params[i] = hnsw.Params{K: s.K, Depth: s.graph.Codec().Depth(s.K), Ef: ef, Work: &a.work[i]}
	}
	return a
}

// search does what a server does with a call of queries, those from first on in their order, round and round: it walks the
// graph for the best candidates by their codes and orders them by their full vectors. The result is valid until the
// following call.
func (s *annSearcher) search(first int) [][]index.Neighbor {
	for i := range s.queries {
		q := (first + i) % s.Queries.Len()
		s.queries[i], s.params[i].Filter = s.Queries.At(q), s.cases.filters[q]
		s.found[i] = s.found[i][:0]
	}
	if s.Batch == 0 {
		s.found[0] = s.graph.Search(s.found[0], s.queries[0], s.params[0])
	} else {
		s.graph.SearchBatch(s.found, s.queries, s.params)
	}
	for i, found := range s.found {
		s.slots = s.slots[:0]
		for _, n := range found {
			s.slots = append(s.slots, n.Slot)
		}
		s.exact = slices.Grow(s.exact[:0], len(found))[:len(found)]
		index.Distances(s.Metric, s.exact, s.queries[i], s.Base.Data, s.slots)
		s.top.Reset(s.K)
		for j, slot := range s.slots {
			s.top.Offer(index.Neighbor{Slot: slot, Distance: s.exact[j]})
		}
		s.found[i] = s.top.AppendSorted(found[:0])
	}
	return s.found
}

// WriteTable writes the report for people.
func (r *ANNReport) WriteTable(w io.Writer) error {
	r.writeHead(w)
	rows := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		rows[i] = append([]string{strconv.Itoa(row.Ef), fmt.Sprintf("%.4f", row.Recall), fmt.Sprintf("%.0f", row.QPS)}, row.cells()...)
	}
	return table(w, append([]string{"ef", "recall", "queries/s"}, latencyHeader...), rows)
}

// writeHead writes a line about the graph and one that is empty.
func (r *ANNReport) writeHead(w io.Writer) {
	fmt.Fprintf(w, "%d × %d %s · codec %s · built in %.2f s (%.0f/s) · %.1f MiB (%.0f bytes a vector)\n\n",
		r.N, r.Dim, r.Metric, r.Codec, r.BuildSeconds, float64(r.N)/r.BuildSeconds, float64(r.Memory)/(1<<20), float64(r.Memory)/float64(r.N))
}

var latencyHeader = []string{"mean µs", "p50 µs", "p95 µs", "p99 µs"}

func (l Latency) cells() []string {
	cells := make([]string, 0, len(latencyHeader))
	for _, x := range []float64{l.Mean, l.P50, l.P95, l.P99} {
		cells = append(cells, fmt.Sprintf("%.0f", x))
	}
	return cells
}

// PlotPoints returns the rows as points of a plot.
func (r *ANNReport) PlotPoints() []Point {
	points := make([]Point, len(r.Rows))
	for i, row := range r.Rows {
		points[i] = Point{Recall: row.Recall, QPS: row.QPS, Label: fmt.Sprintf("ef %d", row.Ef)}
	}
	return points
}
