package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/hnsw"
)

// Filtered measures searches under filters in this process, beside those without, over one graph. There are two kinds of
// filter for each share of Keep. One keeps base vectors at random, the same for all queries. The other keeps those that are
// farthest from the center of the query's cluster, so that next to nothing matches where the query is.
type Filtered struct {
	ANN          // Ef holds one number, or none: then it is the least that reaches RecallTarget without a filter
	Keep         []float64
	RecallTarget float64
}

// FilteredReport is what Filtered found.
type FilteredReport struct {
	ANNReport               // without rows
	Ef        int           `json:"ef"`
	Filtered  []FilteredRow `json:"rows"` // the first has no filter
}

// FilteredRow is the measurement under filters of one kind. Latencies are those of single queries, each on one thread.
type FilteredRow struct {
	Kind  string  `json:"kind"` // none, random or far
	Keep  float64 `json:"keep"` // percent of the base vectors
	Plans Plans   `json:"plans"`
	ANNRow
	RowsScored float64 `json:"rows_scored"` // codes compared, mean of all queries
	Short      int     `json:"short"`       // queries that found less than k though k matched
}

// Plans counts the ways in which searches were answered.
type Plans [hnsw.PlanScan + 1]int

// String lists those that occurred, with their share.
func (p Plans) String() string {
	total := 0
	for _, n := range p {
		total += n
	}
	var parts []string
	for plan, n := range p {
		switch n {
		case 0:
		case total:
			return hnsw.Plan(plan).String()
		default:
			parts = append(parts, fmt.Sprintf("%s %.3g %%", hnsw.Plan(plan), 100*float64(n)/float64(total)))
		}
	}
	return strings.Join(parts, ", ")
}

// MarshalText writes what String returns.
func (p Plans) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

func (f *Filtered) validate() error {
	probe := f.ANN
	if len(f.Ef) == 0 {
		probe.Ef = []int{f.K}
	}
	if err := probe.validate(); err != nil {
		return err
	}
	switch {
	case len(f.Ef) > 1:
		return fmt.Errorf("ef: %d given, must be one", len(f.Ef))
	case len(f.Ef) == 0 && !(f.RecallTarget > 0 && f.RecallTarget < 1):
		return fmt.Errorf("recall target: %v invalid, must be between 0 and 1", f.RecallTarget)
	case len(f.Keep) == 0:
		return errors.New("keep: none given")
	}
	for _, keep := range f.Keep {
		if !(keep > 0 && keep <= 100) {
			return fmt.Errorf("keep: %v invalid, must be above 0 and at most 100", keep)
		}
	}
	return nil
}

// Run does the measurement. progress is told about each step that takes its time. When ctx ends, Run returns its error.
func (f *Filtered) Run(ctx context.Context, progress func(step string)) (FilteredReport, error) {
	if err := f.validate(); err != nil {
		return FilteredReport{}, err
	}
	graph, built, err := f.open(ctx, progress)
	if err != nil {
		return FilteredReport{}, err
	}
	defer graph.Close()
	report := FilteredReport{ANNReport: built}

	progress(fmt.Sprintf("comparing %d queries with %d vectors for the truth", f.Queries.Len(), f.Base.Len()))
	sets := newFilterSets(f)
	if err := sets.make(ctx); err != nil {
		return FilteredReport{}, err
	}
	search := annSearch{ANN: &f.ANN, graph: graph, distance: sets.distance, cases: sets.all}
	if len(f.Ef) == 1 {
		report.Ef = f.Ef[0]
	} else if report.Ef, err = search.efFor(ctx, f.RecallTarget); err != nil {
		return FilteredReport{}, err
	}
	report.Filtered, err = f.rows(ctx, progress, &search, sets, report.Ef)
	return report, err
}

// filterRounds is how often each row is measured, in turns with the others and for filterSeconds at least, so that what else
// the machine does meanwhile falls on all of them. A row holds the medians.
const (
	filterRounds  = 5
	filterSeconds = 0.2
)

// rows measures all rows.
func (f *Filtered) rows(ctx context.Context, progress func(string), search *annSearch, sets *filterSets, ef int) ([]FilteredRow, error) {
	rows, all := []FilteredRow{{Kind: "none", Keep: 100}}, []cases{sets.all}
	for i, keep := range f.Keep {
		rows, all = append(rows, FilteredRow{Kind: "random", Keep: keep}), append(all, sets.random[i])
	}
	for i, keep := range f.Keep {
		rows, all = append(rows, FilteredRow{Kind: "far", Keep: keep}), append(all, sets.far[i])
	}
	for i := range rows {
		progress(fmt.Sprintf("counting what is found: %s, %g %%", rows[i].Kind, rows[i].Keep))
		search.cases = all[i]
		m, err := search.count(ctx, ef)
		if err != nil {
			return nil, err
		}
		rows[i].Plans, rows[i].ANNRow, rows[i].RowsScored, rows[i].Short = m.plans, m.ANNRow, m.rows, m.short
	}
	measured := make([][filterRounds]ANNRow, len(rows))
	for round := range filterRounds {
		progress(fmt.Sprintf("searching: round %d of %d", round+1, filterRounds))
		for i := range rows {
			search.cases = all[i]
			var err error
			m := &measured[i][round]
			if m.QPS, m.Latency, err = search.clock(ctx, ef, filterSeconds); err != nil {
				return nil, err
			}
		}
	}
	for i := range rows {
		median := func(of func(*ANNRow) float64) float64 {
			var values [filterRounds]float64
			for round := range values {
				values[round] = of(&measured[i][round])
			}
			slices.Sort(values[:])
			return values[filterRounds/2]
		}
		rows[i].QPS = median(func(r *ANNRow) float64 { return r.QPS })
		rows[i].Latency = Latency{
			Mean: median(func(r *ANNRow) float64 { return r.Mean }),
			P50:  median(func(r *ANNRow) float64 { return r.P50 }),
			P95:  median(func(r *ANNRow) float64 { return r.P95 }),
			P99:  median(func(r *ANNRow) float64 { return r.P99 }),
		}
	}
	return rows, nil
}

// efFor returns the least ef, as far as steps of a tenth go, at which the recall reaches the target.
func (s *annSearch) efFor(ctx context.Context, target float64) (int, error) {
	for ef := s.K; ; ef += max(ef/10, 1) {
		if ef > vectord.MaxLimit {
			return 0, fmt.Errorf("recall target: %v is not reached at ef %d", target, vectord.MaxLimit)
		}
		if m, err := s.count(ctx, ef); err != nil || m.Recall >= target {
			return ef, err
		}
	}
}

// filterClusters is the number of clusters of the queries, around base vectors chosen at random.
const filterClusters = 64

// filterSets is the filters of a measurement, with the truth about each query under them.
type filterSets struct {
	*Filtered
	distance    func(a, b []float32) float32
	all         cases
	random, far []cases // by place in Keep
}

func newFilterSets(f *Filtered) *filterSets {
	s := &filterSets{Filtered: f, distance: index.DistanceFunc(f.Metric), all: newCases(f.Queries.Len())}
	for range f.Keep {
		s.random, s.far = append(s.random, newCases(f.Queries.Len())), append(s.far, newCases(f.Queries.Len()))
	}
	return s
}

// make makes the filters and finds the truth under them.
func (s *filterSets) make(ctx context.Context) error {
	n := s.Base.Len()
	rng := rand.New(rand.NewPCG(3, 4)) // the same filters each time, so that runs can be compared
	for i, keep := range s.Keep {
		filter := s.filter(rng.Perm(n), keep)
		for q := range s.random[i].filters {
			s.random[i].filters[q] = filter
		}
	}
	centers := make([][]float32, min(filterClusters, n))
	for i := range centers {
		centers[i] = s.Base.At(rng.IntN(n))
	}
	byCenter := make([][]*hnsw.Filter, len(centers)) // by place in Keep
	err := parallel(ctx, len(centers), func(c int) {
		rows := make([]int, n)
		distances := s.distances(nil, centers[c])
		for row := range rows {
			rows[row] = row
		}
		slices.SortFunc(rows, func(a, b int) int { return cmp.Compare(distances[b], distances[a]) })
		for _, keep := range s.Keep {
			byCenter[c] = append(byCenter[c], s.filter(rows, keep))
		}
	})
	if err != nil {
		return err
	}
	return parallel(ctx, s.Queries.Len(), func(q int) {
		query := s.Queries.At(q)
		nearest := 0
		for c := range centers {
			if s.distance(query, centers[c]) < s.distance(query, centers[nearest]) {
				nearest = c
			}
		}
		distances := s.distances(nil, query)
		s.all.settle(q, s.K, distances)
		for i := range s.Keep {
			s.far[i].filters[q] = byCenter[nearest][i]
			s.random[i].settle(q, s.K, distances)
			s.far[i].settle(q, s.K, distances)
		}
	})
}

// filter returns the filter that keeps the first rows, a percentage of all and at least one.
func (s *filterSets) filter(rows []int, percent float64) *hnsw.Filter {
	f := &hnsw.Filter{Slots: index.Bitset{}.Grow(len(rows)), Count: max(int(math.Round(float64(len(rows))*percent/100)), 1)}
	for _, row := range rows[:f.Count] {
		f.Slots.Set(uint32(row))
	}
	return f
}

// distances appends the distances from v to all base vectors.
func (s *filterSets) distances(dst []float32, v []float32) []float32 {
	for row := range s.Base.Len() {
		dst = append(dst, s.distance(v, s.Base.At(row)))
	}
	return dst
}

// settle finds the truth about a query that has the given distances from the base vectors.
func (c *cases) settle(q, k int, distances []float32) {
	var top index.Top
	top.Reset(k)
	filter := c.filters[q]
	for row, d := range distances {
		if filter == nil || filter.Slots.Contains(uint32(row)) {
			top.Offer(index.Neighbor{Slot: uint32(row), Distance: d})
		}
	}
	nearest := top.AppendSorted(nil)
	c.set(q, len(nearest), nearest[len(nearest)-1].Distance)
}

// parallel calls fn for the numbers below n, on all cores.
func parallel(ctx context.Context, n int, fn func(i int)) error {
	var next atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= n {
					return
				}
				fn(i)
			}
		})
	}
	workers.Wait()
	return ctx.Err()
}

// WriteTable writes the report for people. The last columns weigh a row against the first one, that without a filter.
func (r *FilteredReport) WriteTable(w io.Writer) error {
	r.writeHead(w)
	fmt.Fprintf(w, "ef %d\n\n", r.Ef)
	rows := make([][]string, len(r.Filtered))
	for i, row := range r.Filtered {
		rows[i] = append([]string{row.Kind, fmt.Sprintf("%g", row.Keep), row.Plans.String(), fmt.Sprintf("%.4f", row.Recall),
			fmt.Sprintf("%.0f", row.QPS)}, row.cells()...)
		rows[i] = append(rows[i], fmt.Sprintf("%.2f", row.P99/r.Filtered[0].P99), fmt.Sprintf("%.0f", row.RowsScored),
			strconv.Itoa(row.Short))
	}
	header := append([]string{"filter", "keep %", "plan", "recall", "queries/s"}, latencyHeader...)
	return table(w, append(header, "p99 ratio", "rows scored", "short"), rows)
}
