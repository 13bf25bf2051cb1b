package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

// Footprint measures the memory of a running server that has everything at once: an index, agents that wait for tasks, a queue
// that is full, and tasks and searches that go on for a while.
type Footprint struct {
	Client   *client.Client // of a server without data
	URL      string
	Process  int // of the server
	Points   int
	Dim      int
	Agents   int
	Queued   int     // tasks that wait all the time; more than a queue takes with its usual settings are not taken
	Rate     float64 // tasks submitted in a second, which the agents complete
	Searches float64 // in a second
	Duration time.Duration
}

// FootprintReport is what Footprint found. Sizes are in bytes.
type FootprintReport struct {
	Points      int              `json:"points"`
	Dim         int              `json:"dim"`
	Agents      int              `json:"agents"`
	Queued      int              `json:"queued"`
	Seconds     float64          `json:"seconds"`
	Tasks       int64            `json:"tasks"` // completed
	Searches    int64            `json:"searches"`
	Empty       int64            `json:"empty_bytes"`   // resident when the server had nothing
	Loaded      int64            `json:"loaded_bytes"`  // with index, agents and queue, before the load
	Highest     int64            `json:"highest_bytes"` // under the load, looked at each second
	End         int64            `json:"end_bytes"`
	PeakOfAll   int64            `json:"peak_bytes"` // since the server's start, so with the indexing
	Owners      map[string]int64 `json:"owners"`     // as the server itself counts
	IndexBytes  int64            `json:"index_bytes"`
	TaskLatency Latency          `json:"task"` // from submission, by the clock, to when an agent had it
}

// What Footprint does not let be chosen.
const (
	footprintPayload = 1 << 10
	footprintBatch   = 10 // tasks in a submission
	footprintName    = "footprint"
)

func (f *Footprint) validate() error {
	switch {
	case f.Points < 1 || f.Dim < 1 || f.Dim > vectord.MaxDimension:
		return fmt.Errorf("%d points of dimension %d: points must be 1 or more, the dimension from 1 to %d", f.Points, f.Dim, vectord.MaxDimension)
	case f.Agents < 1 || f.Agents > ServeConcurrencyMax:
		return fmt.Errorf("agents: %d invalid, must be from 1 to %d", f.Agents, ServeConcurrencyMax)
	case f.Queued < 0 || f.Duration <= 0:
		return fmt.Errorf("%d tasks that wait, %v: tasks must be 0 or more, the duration positive", f.Queued, f.Duration)
	case !(f.Rate > 0 && f.Rate <= rateMax && f.Searches > 0 && f.Searches <= rateMax):
		return fmt.Errorf("%v tasks and %v searches a second: must be above 0 and up to %d", f.Rate, f.Searches, rateMax)
	}
	return nil
}

// Run does the measurement. progress is told about each step.
func (f *Footprint) Run(ctx context.Context, progress func(step string)) (report FootprintReport, err error) {
	report = FootprintReport{Points: f.Points, Dim: f.Dim, Agents: f.Agents, Queued: f.Queued}
	if err := f.validate(); err != nil {
		return report, err
	}
	if report.Empty, err = f.resident("VmRSS"); err != nil {
		return report, err
	}
	progress(fmt.Sprintf("writing %d points", f.Points))
	if err := f.Client.CreateCollection(ctx, footprintName, vectord.DefaultCollectionConfig(f.Dim, vectord.Cosine)); err != nil {
		return report, err
	}
	load := Load{Client: f.Client, Collection: footprintName, Batch: mixedLoadBatch, Concurrency: mixedLoadConcurrency}
	if _, err := load.Run(ctx, &copied{dataset.NewClustered(1, f.Points, f.Dim)}); err != nil {
		return report, err
	}
	progress("waiting for the index")
	if err := settle(ctx, f.Client, footprintName); err != nil {
		return report, err
	}
	progress("submitting the tasks that wait, and registering the agents")
	for _, name := range []string{footprintName, footprintName + "-waiting"} {
		if err := f.Client.PutQueue(ctx, name, vectord.DefaultQueueConfig()); err != nil {
			return report, err
		}
	}
	payload := footprintText("0")
	for left := f.Queued; left > 0; {
		tasks := make([]vectord.NewTask, min(left, vectord.MaxTaskBatch))
		for i := range tasks {
			tasks[i].Payload = payload
		}
		left -= len(tasks)
		if err := submitted(f.Client.Submit(ctx, footprintName+"-waiting", tasks)); err != nil {
			return report, err
		}
	}
	r := footprintRun{Footprint: f, begin: time.Now(), rng: rand.New(rand.NewPCG(1, 9))}
	for i := range f.Agents {
		err := f.Client.RegisterAgent(ctx, r.agent(i), vectord.AgentConfig{Queues: []string{footprintName}, Vectors: [][]float32{r.vector()}, Capacity: 5})
		if err != nil {
			return report, err
		}
	}
	if report.Loaded, err = f.resident("VmRSS"); err != nil {
		return report, err
	}
	progress(fmt.Sprintf("%v tasks and %v searches a second for %v", f.Rate, f.Searches, f.Duration))
	if err := r.load(ctx, &report); err != nil {
		return report, err
	}
	if report.PeakOfAll, err = f.resident("VmHWM"); err != nil {
		return report, err
	}
	report.Owners, err = f.owners(ctx)
	report.IndexBytes = report.Owners["graph"] + report.Owners["fresh"]
	return report, err
}

// copied hands out vectors that may be kept.
type copied struct{ dataset.Reader }

// Next implements dataset.Reader.
func (c *copied) Next() (vectord.Point, error) {
	p, err := c.Reader.Next()
	if err == nil {
		p.Vectors = vectord.Unnamed(append([]float32(nil), p.Vectors.Unnamed()...))
	}
	return p, err
}

func (f *Footprint) resident(what string) (int64, error) {
	return processBytes(strconv.Itoa(f.Process), what)
}

// owners reads what the server says of its memory.
func (f *Footprint) owners(ctx context.Context) (map[string]int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL+"/metrics", http.NoBody)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, answerBytesMax))
	if err != nil || answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics: status %d: %w", answer.StatusCode, err)
	}
	owners := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, `vectord_memory_bytes{owner="`); ok {
			owner, value, _ := strings.Cut(rest, `"} `)
			bytes, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return nil, fmt.Errorf("metrics: %q: %w", line, err)
			}
			owners[owner] = int64(bytes)
		}
	}
	return owners, nil
}

// footprintRun is the load.
type footprintRun struct {
	*Footprint
	begin  time.Time
	rng    *rand.Rand
	tasks  atomic.Int64
	finds  atomic.Int64
	failed atomic.Pointer[error]
}

func (r *footprintRun) agent(i int) string { return fmt.Sprintf("%s-%d", footprintName, i) }

func (r *footprintRun) vector() []float32 {
	v := make([]float32, r.Dim)
	for i := range v {
		v[i] = float32(r.rng.NormFloat64())
	}
	return v
}

// footprintText is a payload that begins with a number.
func footprintText(number string) []byte {
	b := append(make([]byte, 0, footprintPayload), `"`+number+` `...)
	b = append(b, bytes.Repeat([]byte("lorem "), footprintPayload/6)...)
	return append(b[:footprintPayload-1], '"')
}

func (r *footprintRun) load(ctx context.Context, report *FootprintReport) error {
	over, stop := context.WithCancel(ctx)
	defer stop()
	fail := func(err error) {
		if err != nil && over.Err() == nil {
			r.failed.CompareAndSwap(nil, &err)
			stop()
		}
	}
	begin := time.Now()
	var all sync.WaitGroup
	var mu sync.Mutex // guards took
	took := newHistogram()
	for i := range r.Agents {
		all.Go(func() {
			for over.Err() == nil {
				held, err := r.Client.Lease(over, vectord.LeaseRequest{AgentID: r.agent(i), MaxTasks: 1, WaitMS: 5_000})
				fail(err)
				for j := range held {
					at, _, _ := strings.Cut(strings.Trim(string(held[j].Payload), `"`), " ")
					if nanos, err := strconv.ParseInt(at, 10, 64); err == nil {
						mu.Lock()
						record(took, time.Since(begin)-time.Duration(nanos))
						mu.Unlock()
					}
					_, err := r.Client.CallTask(over, vectord.TaskCall{Kind: vectord.CallComplete, ID: held[j].ID, LeaseID: held[j].LeaseID, Result: []byte(`"done"`)})
					fail(err)
					r.tasks.Add(1)
				}
			}
		})
	}
	// repeat does something at a rate for as long as the load goes on, one at a time after the other.
	repeat := func(rate float64, do func(at time.Time) error) {
		all.Go(func() {
			for at := begin; over.Err() == nil; at = at.Add(time.Duration(float64(time.Second) / rate)) {
				if sleepUntil(over, at) {
					fail(do(at))
				}
			}
		})
	}
	repeat(r.Rate/footprintBatch, func(at time.Time) error {
		tasks := make([]vectord.NewTask, footprintBatch)
		for i := range tasks {
			tasks[i].Payload = footprintText(strconv.FormatInt(int64(at.Sub(begin)), 10))
		}
		return submitted(r.Client.Submit(over, footprintName, tasks))
	})
	repeat(r.Searches, func(time.Time) error {
		_, err := r.Client.Query(over, footprintName, vectord.Query{Nearest: &vectord.Example{Vector: vectord.Dense(r.vector())}, Limit: 10})
		if err == nil {
			r.finds.Add(1)
		}
		return err
	})
	for end := begin.Add(r.Duration); time.Now().Before(end) && over.Err() == nil; {
		sleepUntil(over, earliest(end, time.Now().Add(time.Second)))
		now, err := r.resident("VmRSS")
		fail(err)
		report.Highest, report.End = max(report.Highest, now), now
	}
	report.Seconds = time.Since(begin).Seconds()
	stop()
	all.Wait()
	report.Tasks, report.Searches, report.TaskLatency = r.tasks.Load(), r.finds.Load(), latencyOfHistogram(took)
	if failed := r.failed.Load(); failed != nil {
		return *failed
	}
	if report.Tasks == 0 {
		return errors.New("no task was completed")
	}
	return ctx.Err()
}

// WriteTable writes the report for people.
func (r *FootprintReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "%d × %d vectors · %d agents · %d tasks wait · %d tasks and %d searches in %.0f s · tasks reach an agent in %.1f ms (p50), %.1f ms (p99)\n\n",
		r.Points, r.Dim, r.Agents, r.Queued, r.Tasks, r.Searches, r.Seconds, r.TaskLatency.P50/1000, r.TaskLatency.P99/1000)
	mib := func(b int64) string { return fmt.Sprintf("%.1f", float64(b)/(1<<20)) }
	return table(w, []string{"resident MiB: empty", "loaded", "highest under load", "at its end", "peak of all", "index"},
		[][]string{{mib(r.Empty), mib(r.Loaded), mib(r.Highest), mib(r.End), mib(r.PeakOfAll), mib(r.IndexBytes)}})
}
