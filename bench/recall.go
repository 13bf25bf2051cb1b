package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

const (
	recallBatch       = 256 // points in one request
	recallConnections = 2   // requests of points on their way at a time
	recallProbes      = 500 // queries at most that a row's recall is taken from

	// RecallStepsMax bounds the steps of a drift.
	RecallStepsMax = 1000
)

// Recall watches a running server hold its recall while the points of a collection, and the queries with them, become
// those of another data set. Nobody says an ef: the server has to choose it.
//
// Every other query is sent again and again all the time, as clients would. The rest is asked only to see what is found,
// beside the truth that is computed here.
type Recall struct {
	Client     *client.Client
	URL        string // for the report
	Collection string // must not exist; it stays
	Metric     vectord.Distance

	Base, Queries           *dataset.Vectors // those of Cosine are normalised in place
	DriftBase, DriftQueries *dataset.Vectors // what they become; nil: the points stay
	Steps                   int              // in which the points are replaced
	Stage                   time.Duration    // how long the points stay as they are before each step and after the last
	Every                   time.Duration    // time between rows
	Rate                    float64          // queries a second that are sent all the time
}

// RecallReport is what Recall found.
type RecallReport struct {
	URL        string      `json:"url"`
	Collection string      `json:"collection"`
	N          int         `json:"n"`
	Dim        int         `json:"dim"`
	Metric     string      `json:"metric"`
	Target     float64     `json:"target"`
	Rows       []RecallRow `json:"rows"`
}

// RecallRow is one look at the collection.
type RecallRow struct {
	Seconds  float64  `json:"seconds"`  // since the points were loaded
	Replaced float64  `json:"replaced"` // share of the points that are the other data set's
	Waiting  int      `json:"waiting"`  // points that are not in the graph
	Ef       int      `json:"ef"`       // that the server had chosen
	Measured *float64 `json:"measured"` // recall that the server has measured with it; nil: none yet
	Recall   float64  `json:"recall"`   // of the answers to queries that were not sent otherwise
}

func (r *Recall) validate() error {
	sets := []*dataset.Vectors{r.Base, r.Queries}
	if (r.DriftBase == nil) != (r.DriftQueries == nil) {
		return errors.New("drift: vectors and queries are given together or not at all")
	}
	if r.DriftBase != nil {
		sets = append(sets, r.DriftBase, r.DriftQueries)
		if r.DriftBase.Len() < r.Base.Len() {
			return fmt.Errorf("drift: %d vectors cannot replace %d", r.DriftBase.Len(), r.Base.Len())
		}
		if r.Steps < 1 || r.Steps > RecallStepsMax {
			return fmt.Errorf("steps: %d invalid, must be from 1 to %d", r.Steps, RecallStepsMax)
		}
	}
	for _, s := range sets {
		if s.Dim != r.Base.Dim {
			return fmt.Errorf("%d components beside %d", s.Dim, r.Base.Dim)
		}
	}
	for _, q := range []*dataset.Vectors{r.Queries, r.DriftQueries} {
		if q != nil && q.Len() < 2 {
			return fmt.Errorf("%d queries, at least 2 are needed", q.Len())
		}
	}
	switch {
	case !r.Metric.Valid():
		return errors.New("metric: not given")
	case r.Base.Len() < recallK:
		return fmt.Errorf("%d vectors, at least %d are needed", r.Base.Len(), recallK)
	case r.Every <= 0 || r.Stage < r.Every:
		return fmt.Errorf("every: %v invalid, must be positive and at most stage, %v", r.Every, r.Stage)
	case !(r.Rate > 0 && r.Rate <= rateMax):
		return fmt.Errorf("rate: %v invalid, must be above 0 and at most %d", r.Rate, rateMax)
	}
	return nil
}

// recallK is the number of neighbors that a recall target counts.
const recallK = 10

// Run does the measurement. progress is told about each step that takes its time. When ctx ends, Run returns its error.
func (r *Recall) Run(ctx context.Context, progress func(step string)) (RecallReport, error) {
	if err := r.validate(); err != nil {
		return RecallReport{}, err
	}
	if r.Metric == vectord.Cosine {
		for _, s := range []*dataset.Vectors{r.Base, r.Queries, r.DriftBase, r.DriftQueries} {
			for i := 0; s != nil && i < s.Len(); i++ {
				vectord.Normalize(s.At(i))
			}
		}
	}
	config := vectord.DefaultCollectionConfig(r.Base.Dim, r.Metric)
	report := RecallReport{URL: r.URL, Collection: r.Collection, N: r.Base.Len(), Dim: r.Base.Dim, Metric: r.Metric.String(),
		Target: config.HNSW.RecallTarget}
	if err := r.Client.CreateCollection(ctx, r.Collection, config); err != nil {
		return report, err
	}
	progress(fmt.Sprintf("loading %d points", r.Base.Len()))
	w := recallWatch{Recall: r, held: &dataset.Vectors{Dim: r.Base.Dim, Data: append([]float32(nil), r.Base.Data...)}}
	if err := w.replace(ctx, 0, r.Base.Len()); err != nil {
		return report, err
	}
	w.begin = time.Now()
	traffic, stop := context.WithCancel(ctx)
	sent := make(chan error, 1)
	go func() { sent <- w.send(traffic) }()
	err := w.stages(ctx, progress)
	stop()
	report.Rows = w.rows
	return report, errors.Join(err, <-sent)
}

// recallWatch is a measurement under way.
type recallWatch struct {
	*Recall
	held     *dataset.Vectors // the collection's points, by id
	replaced atomic.Int64     // of them, from the first on
	begin    time.Time
	rows     []RecallRow
}

func (w *recallWatch) share() float64 { return float64(w.replaced.Load()) / float64(w.held.Len()) }

// replace writes the points with ids from first to last - 1 as they are held.
func (w *recallWatch) replace(ctx context.Context, first, last int) error {
	load := Load{Client: w.Client, Collection: w.Collection, Batch: recallBatch, Concurrency: recallConnections}
	_, err := load.Run(ctx, &heldPoints{w.held, first, last})
	return err
}

// heldPoints reads points that are held in memory.
type heldPoints struct {
	vectors    *dataset.Vectors
	next, last int
}

// Next implements dataset.Reader.
func (h *heldPoints) Next() (vectord.Point, error) {
	if h.next == h.last {
		return vectord.Point{}, io.EOF
	}
	p := vectord.Point{ID: vectord.NumberID(uint64(h.next)), Vectors: vectord.Unnamed(h.vectors.At(h.next))}
	h.next++
	return p, nil
}

// query returns a query of the mix as the points are mixed, of the even rows or of the odd ones.
func (w *recallWatch) query(rng *rand.Rand, odd int) []float32 {
	from := w.Queries
	if rng.Float64() < w.share() {
		from = w.DriftQueries
	}
	return from.At(2*rng.IntN(from.Len()/2) + odd)
}

// send sends queries until ctx ends.
func (w *recallWatch) send(ctx context.Context) error {
	rng := rand.New(rand.NewPCG(3, 4))
	tick := time.NewTicker(time.Duration(float64(time.Second) / w.Rate))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		_, err := w.Client.Query(ctx, w.Collection, vectord.Query{Nearest: vectord.Near(w.query(rng, 0)), Limit: recallK})
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// stages replaces the points step by step and looks at the recall in between.
func (w *recallWatch) stages(ctx context.Context, progress func(string)) error {
	n := w.held.Len()
	steps := w.Steps
	if w.DriftBase == nil {
		steps = 0
	}
	for step := 0; ; step++ {
		if err := w.watch(ctx, progress); err != nil || step == steps {
			return err
		}
		first, last := n*step/steps, n*(step+1)/steps
		progress(fmt.Sprintf("replacing points %d to %d", first, last-1))
		copy(w.held.Data[first*w.held.Dim:last*w.held.Dim], w.DriftBase.Data[first*w.held.Dim:])
		if err := w.replace(ctx, first, last); err != nil {
			return err
		}
		w.replaced.Store(int64(last))
	}
}

// watch adds rows for the length of a stage.
func (w *recallWatch) watch(ctx context.Context, progress func(string)) error {
	probes := &dataset.Vectors{Dim: w.held.Dim}
	rng := rand.New(rand.NewPCG(5, uint64(w.replaced.Load())))
	for range min(recallProbes, w.Queries.Len()) {
		probes.Data = append(probes.Data, w.query(rng, 1)...)
	}
	progress("comparing all for the truth")
	truth, err := Truth(ctx, w.Metric, w.held, probes, recallK)
	if err != nil {
		return err
	}
	begin, looks := time.Now(), int(w.Stage/w.Every)
	for i := range looks {
		progress(fmt.Sprintf("%.0f %% replaced, watching: %d of %d", 100*w.share(), i, looks))
		timer := time.NewTimer(time.Until(begin.Add(time.Duration(i+1) * w.Every)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		row, err := w.look(ctx, probes, truth)
		if err != nil {
			return err
		}
		w.rows = append(w.rows, row)
	}
	return nil
}

func (w *recallWatch) look(ctx context.Context, probes *dataset.Vectors, truth [][]int32) (RecallRow, error) {
	info, err := w.Client.Collection(ctx, w.Collection)
	if err != nil {
		return RecallRow{}, err
	}
	row := RecallRow{Seconds: time.Since(w.begin).Seconds(), Replaced: w.share(), Waiting: info.Points - info.IndexedVectors,
		Ef: info.Recall[""].Ef, Measured: info.Recall[""].Ratio}
	right := 0
	for i := range probes.Len() {
		hits, err := w.Client.Query(ctx, w.Collection, vectord.Query{Nearest: vectord.Near(probes.At(i)), Limit: recallK})
		if err != nil {
			return RecallRow{}, err
		}
		right += countIDs(hits, truth[i])
	}
	row.Recall = float64(right) / float64(recallK*probes.Len())
	return row, nil
}

// WriteTable writes the report for people.
func (r *RecallReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%s · collection %s · %d × %d %s · recall target %v\n\n", r.URL, r.Collection, r.N, r.Dim, r.Metric, r.Target)
	rows := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		measured := "–"
		if row.Measured != nil {
			measured = fmt.Sprintf("%.3f", *row.Measured)
		}
		rows[i] = []string{fmt.Sprintf("%.0f", row.Seconds), fmt.Sprintf("%.0f %%", 100*row.Replaced), fmt.Sprint(row.Waiting),
			fmt.Sprint(row.Ef), measured, fmt.Sprintf("%.3f", row.Recall)}
	}
	return table(w, []string{"s", "replaced", "waiting", "ef", "measured", "recall"}, rows)
}
