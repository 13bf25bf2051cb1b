package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
)

// TaskDoor is a way to the tasks of a node: in process, over TCP or over HTTP.
type TaskDoor interface {
	Submit(ctx context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error)
	Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error)
	Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error)
}

// TaskNode is a node on which measurements make queues and agents.
type TaskNode interface {
	TaskDoor
	PutQueue(ctx context.Context, name string, config vectord.QueueConfig) error
	DeleteQueue(ctx context.Context, name string, force bool) error
	RegisterAgent(ctx context.Context, id string, config vectord.AgentConfig) error
	RemoveAgent(ctx context.Context, id string) error
}

// NamedDoor is a door and what it is called in reports.
type NamedDoor struct {
	Name string
	Dial func(ctx context.Context) (TaskDoor, io.Closer, error) // a connection
}

// OverTCP is a client of the TCP protocol as a door.
func OverTCP(c *client.TCP) TaskDoor { return tcpDoor{c} }

type tcpDoor struct{ *client.TCP }

// Submit implements TaskDoor.
func (d tcpDoor) Submit(ctx context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
	return d.TCP.Submit(ctx, queue, tasks...)
}

// Call implements TaskDoor.
func (d tcpDoor) Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	return d.TCP.Call(ctx, calls...)
}

// OverHTTP is a client of HTTP as a door. HTTP has no request that completes many tasks: each has its own, httpCalls at a time.
func OverHTTP(c *client.Client) TaskDoor { return httpDoor{c} }

type httpDoor struct{ *client.Client }

const httpCalls = 16

// Call implements TaskDoor.
func (d httpDoor) Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	out := make([]vectord.CallOutcome, len(calls))
	errs := make([]error, min(httpCalls, len(calls)))
	var next atomic.Int64
	var all sync.WaitGroup
	for worker := range errs {
		all.Go(func() {
			for i := int(next.Add(1) - 1); i < len(calls) && errs[worker] == nil; i = int(next.Add(1) - 1) {
				out[i], errs[worker] = d.CallTask(ctx, calls[i])
			}
		})
	}
	all.Wait()
	return out, errors.Join(errs...)
}

// Tasks measures how many tasks go all the way, submitted, leased and completed, through each door of a node, and how long they
// take at half of that.
type Tasks struct {
	Node       TaskNode
	Doors      []NamedDoor
	Durability vectord.Durability
	Batch      int // tasks in a request, and that an agent leases at a time
	Producers  int // that submit, each over a connection of its own
	Agents     int // likewise
	UnderWay   int // tasks that are submitted and not completed, at most, in the closed loop
	Payload    int // bytes of a task
	Duration   time.Duration
	Rounds     int  // times that everything is measured; medians count
	Half       bool // then submit at half of the peak, by the clock
}

// TasksReport is what Tasks found.
type TasksReport struct {
	Durability string     `json:"durability"`
	Batch      int        `json:"batch"`
	Producers  int        `json:"producers"`
	Agents     int        `json:"agents"`
	UnderWay   int        `json:"under_way"`
	Payload    int        `json:"payload_bytes"`
	Rounds     int        `json:"rounds"`
	Rows       []TasksRow `json:"rows"`
}

// TasksRow is one door under one load.
type TasksRow struct {
	Door string  `json:"door"`
	Load string  `json:"load"`             // peak: as fast as it goes; half: half of that, by the clock
	Rate float64 `json:"tasks_per_second"` // completed
	// Messages are those of all three kinds: a submission, a lease and a completion for each task.
	Messages float64 `json:"messages_per_second"`
	// CPU is what this process, the clients too, took of the processor for a task, in microseconds: other work on the machine lowers
	// the rate and leaves this nearly as it is.
	CPU float64 `json:"cpu_us_per_task"`
	// Acknowledged is from when a task was submitted, or should have been, to the answer; Leased to when an agent had it.
	Acknowledged Latency `json:"acknowledged"`
	Leased       Latency `json:"leased"`
}

// The bounds of Tasks, and what it does not let be chosen.
const (
	TasksPayloadMin = 32 // the time and the quotes
	tasksUnderWay   = 1 << 20
	tasksRoundsMax  = 100
	tasksWaitMillis = 200              // of an agent's poll: how long the end of a measurement waits for it at most
	tasksDrain      = 60 * time.Second // for the tasks under way at the end of a measurement
	tasksOutMax     = 4_096            // requests of the open loop that have no answer; more wait, and their latencies count that
)

func (t *Tasks) validate() error {
	switch {
	case len(t.Doors) == 0:
		return errors.New("doors: none given")
	case t.Batch < 1 || t.Batch > vectord.MaxTaskBatch:
		return fmt.Errorf("batch: %d invalid, must be from 1 to %d", t.Batch, vectord.MaxTaskBatch)
	case t.Producers < 1 || t.Producers > ServeConcurrencyMax:
		return fmt.Errorf("producers: %d invalid, must be from 1 to %d", t.Producers, ServeConcurrencyMax)
	case t.Agents < 1 || t.Agents > ServeConcurrencyMax:
		return fmt.Errorf("agents: %d invalid, must be from 1 to %d", t.Agents, ServeConcurrencyMax)
	case t.UnderWay < t.Batch || t.UnderWay > tasksUnderWay:
		return fmt.Errorf("under way: %d tasks invalid, must be from a batch (%d) to %d", t.UnderWay, t.Batch, tasksUnderWay)
	case t.Payload < TasksPayloadMin || t.Payload > vectord.MaxTaskBytes:
		return fmt.Errorf("payload: %d bytes invalid, must be from %d to %d", t.Payload, TasksPayloadMin, vectord.MaxTaskBytes)
	case t.Duration <= 0:
		return fmt.Errorf("duration: %v invalid, must be positive", t.Duration)
	case t.Rounds < 1 || t.Rounds > tasksRoundsMax:
		return fmt.Errorf("rounds: %d invalid, must be from 1 to %d", t.Rounds, tasksRoundsMax)
	}
	return nil
}

// Run does the measurement, the doors in turns. progress is told about each step.
func (t *Tasks) Run(ctx context.Context, progress func(step string)) (TasksReport, error) {
	report := TasksReport{Durability: string(t.Durability), Batch: t.Batch, Producers: t.Producers, Agents: t.Agents, UnderWay: t.UnderWay,
		Payload: t.Payload, Rounds: t.Rounds}
	if err := t.validate(); err != nil {
		return report, err
	}
	loads := []string{"peak"}
	if t.Half {
		loads = append(loads, "half")
	}
	rows := make([][]TasksRow, len(t.Doors)*len(loads))
	for round := range t.Rounds {
		for i, door := range t.Doors {
			rate := 0.0
			for j, load := range loads {
				progress(fmt.Sprintf("round %d of %d: %s, %s, %v", round+1, t.Rounds, door.Name, load, t.Duration))
				row, err := t.measure(ctx, door, rate)
				if err != nil {
					return report, fmt.Errorf("%s: %w", door.Name, err)
				}
				row.Load = load
				rate = row.Rate / 2
				rows[i*len(loads)+j] = append(rows[i*len(loads)+j], row)
			}
		}
	}
	for _, of := range rows {
		report.Rows = append(report.Rows, medianTasks(of))
	}
	return report, nil
}

// medianTasks takes of each figure the median.
func medianTasks(rows []TasksRow) TasksRow {
	median := func(of func(*TasksRow) float64) float64 {
		values := make([]float64, len(rows))
		for i := range rows {
			values[i] = of(&rows[i])
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	latency := func(of func(*TasksRow) *Latency) Latency {
		return Latency{Mean: median(func(r *TasksRow) float64 { return of(r).Mean }), P50: median(func(r *TasksRow) float64 { return of(r).P50 }),
			P95: median(func(r *TasksRow) float64 { return of(r).P95 }), P99: median(func(r *TasksRow) float64 { return of(r).P99 })}
	}
	return TasksRow{Door: rows[0].Door, Load: rows[0].Load, Rate: median(func(r *TasksRow) float64 { return r.Rate }),
		Messages:     median(func(r *TasksRow) float64 { return r.Messages }),
		CPU:          median(func(r *TasksRow) float64 { return r.CPU }),
		Acknowledged: latency(func(r *TasksRow) *Latency { return &r.Acknowledged }),
		Leased:       latency(func(r *TasksRow) *Latency { return &r.Leased })}
}

// tasksRun is one measurement.
type tasksRun struct {
	*Tasks
	queue     string
	connected []TaskDoor
	begin     time.Time
	room      room
	submitted atomic.Int64
	completed atomic.Int64
	failed    atomic.Pointer[error]

	mu                   sync.Mutex // guards what follows
	acknowledged, leased *hdrhistogram.Histogram
}

// room is for tasks that are under way.
type room struct {
	mu   sync.Mutex
	more sync.Cond
	free int
	over bool
}

// take waits for room for n tasks and reports whether there is some.
func (r *room) take(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.free < n && !r.over {
		r.more.Wait()
	}
	r.free -= n
	return !r.over
}

func (r *room) give(n int) {
	r.mu.Lock()
	r.free += n
	r.mu.Unlock()
	r.more.Broadcast()
}

// end has nobody wait any more.
func (r *room) end() {
	r.mu.Lock()
	r.over = true
	r.mu.Unlock()
	r.more.Broadcast()
}

var tasksQueues atomic.Int64

// measure measures a door, at a rate of tasks per second or, if that is 0, as fast as it goes.
func (t *Tasks) measure(ctx context.Context, door NamedDoor, rate float64) (row TasksRow, err error) {
	r := &tasksRun{Tasks: t, queue: fmt.Sprintf("bench-%d", tasksQueues.Add(1)), acknowledged: newHistogram(), leased: newHistogram()}
	r.room.free, r.room.more.L = t.UnderWay, &r.room.mu
	config := vectord.DefaultQueueConfig()
	config.Durability, config.MaxDepth = t.Durability, vectord.MaxQueueTasks
	if err := t.Node.PutQueue(ctx, r.queue, config); err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, t.Node.DeleteQueue(ctx, r.queue, true)) }()
	for i := range t.Agents {
		id := r.agent(i)
		if err := t.Node.RegisterAgent(ctx, id, vectord.AgentConfig{Queues: []string{r.queue}, Capacity: vectord.MaxAgentCapacity}); err != nil {
			return row, err
		}
		defer func() { err = errors.Join(err, t.Node.RemoveAgent(context.WithoutCancel(ctx), id)) }()
	}
	for range t.Producers + t.Agents {
		connected, closer, err := door.Dial(ctx)
		if err != nil {
			return row, err
		}
		if closer != nil {
			defer closer.Close()
		}
		r.connected = append(r.connected, connected)
	}

	over, stop := context.WithCancel(ctx) // for the agents: they finish what there is
	defer stop()
	var agents, producers sync.WaitGroup
	before := cpuTime()
	r.begin = time.Now()
	for i := range t.Agents {
		agents.Go(func() { r.work(over, ctx, r.connected[t.Producers+i], r.agent(i)) })
	}
	end := r.begin.Add(t.Duration)
	if rate > 0 {
		producers.Go(func() { r.submitByClock(ctx, end, rate) })
	} else {
		for i := range t.Producers {
			producers.Go(func() { r.submitAll(ctx, end, r.connected[i]) })
		}
	}
	sleepUntil(ctx, end)
	elapsed, completed, took := time.Since(r.begin), r.completed.Load(), cpuTime()-before
	r.room.end()
	producers.Wait()
	for within := time.Now().Add(tasksDrain); r.completed.Load() < r.submitted.Load() && r.failed.Load() == nil && time.Now().Before(within); {
		sleepUntil(ctx, time.Now().Add(time.Millisecond))
		if ctx.Err() != nil {
			break
		}
	}
	stop()
	agents.Wait()
	if ctx.Err() != nil {
		return row, ctx.Err()
	}
	if failed := r.failed.Load(); failed != nil {
		return row, *failed
	}
	if lost := r.submitted.Load() - r.completed.Load(); lost != 0 {
		return row, fmt.Errorf("%d of %d tasks were submitted and not completed", lost, r.submitted.Load())
	}
	if completed == 0 {
		return row, fmt.Errorf("no task was completed within %v", t.Duration)
	}
	perSecond := float64(completed) / elapsed.Seconds()
	return TasksRow{Door: door.Name, Rate: perSecond, Messages: 3 * perSecond, CPU: micros(took) / float64(completed), Acknowledged: latencyOfHistogram(r.acknowledged),
		Leased: latencyOfHistogram(r.leased)}, nil
}

func (r *tasksRun) agent(i int) string { return fmt.Sprintf("%s-agent-%d", r.queue, i) }

// fail notes the first error.
func (r *tasksRun) fail(err error) {
	r.failed.CompareAndSwap(nil, &err)
	r.room.end()
}

// submitAll submits as fast as there is room.
func (r *tasksRun) submitAll(ctx context.Context, end time.Time, door TaskDoor) {
	took := newHistogram()
	defer r.merge(r.acknowledged, took)
	for time.Now().Before(end) && r.room.take(r.Batch) {
		begin := time.Now()
		if !r.submit(ctx, door, begin) {
			return
		}
		record(took, time.Since(begin))
	}
}

// submitByClock submits at a rate, whatever the answers do. A latency counts from when the request should have gone.
func (r *tasksRun) submitByClock(ctx context.Context, end time.Time, rate float64) {
	every := time.Duration(float64(r.Batch) / rate * float64(time.Second))
	out := make(chan struct{}, tasksOutMax)
	var all sync.WaitGroup
	var mu sync.Mutex
	took := newHistogram()
	i := 0
	for at := time.Now(); at.Before(end) && r.failed.Load() == nil; at = at.Add(every) {
		if !sleepUntil(ctx, at) {
			break
		}
		door := r.connected[i%r.Producers]
		i++
		out <- struct{}{}
		all.Go(func() {
			if r.submit(ctx, door, at) {
				mu.Lock()
				record(took, time.Since(at))
				mu.Unlock()
			}
			<-out
		})
	}
	all.Wait()
	r.merge(r.acknowledged, took)
}

// submit submits a batch, whose tasks carry the time at which they go or should have gone.
func (r *tasksRun) submit(ctx context.Context, door TaskDoor, at time.Time) bool {
	payload := r.payload(at)
	tasks := make([]vectord.NewTask, r.Batch)
	for i := range tasks {
		tasks[i].Payload = payload
	}
	r.submitted.Add(int64(len(tasks)))
	out, err := door.Submit(ctx, r.queue, tasks)
	for i := range out {
		err = errors.Join(err, out[i].Err)
	}
	if err != nil {
		r.fail(fmt.Errorf("submit: %w", err))
	}
	return err == nil
}

// payload is a text of JSON that begins with a time.
func (r *tasksRun) payload(at time.Time) []byte {
	b := append(make([]byte, 0, r.Payload), '"')
	b = strconv.AppendInt(b, int64(at.Sub(r.begin)), 10)
	b = append(b, ' ')
	for len(b) < r.Payload-1 {
		b = append(b, "lorem ipsum dolor sit amet "[len(b)%27])
	}
	return append(b, '"')
}

// since returns the time from what a payload begins with.
func (r *tasksRun) since(payload []byte) time.Duration {
	at := int64(0)
	for _, c := range payload[min(1, len(payload)):] {
		if c < '0' || c > '9' {
			break
		}
		at = at*10 + int64(c-'0')
	}
	return time.Since(r.begin) - time.Duration(at)
}

// work leases and completes tasks.
func (r *tasksRun) work(over, ctx context.Context, door TaskDoor, agent string) {
	took := newHistogram()
	defer r.merge(r.leased, took)
	for over.Err() == nil && r.failed.Load() == nil {
		held, err := door.Lease(ctx, vectord.LeaseRequest{Queue: r.queue, AgentID: agent, MaxTasks: r.Batch, WaitMS: tasksWaitMillis})
		if err != nil {
			r.fail(fmt.Errorf("lease: %w", err))
			return
		}
		if len(held) == 0 {
			continue
		}
		calls := make([]vectord.TaskCall, len(held))
		for i := range held {
			record(took, r.since(held[i].Payload))
			calls[i] = vectord.TaskCall{Kind: vectord.CallComplete, ID: held[i].ID, LeaseID: held[i].LeaseID, Result: []byte("1")}
		}
		out, err := door.Call(ctx, calls)
		for i := range out {
			err = errors.Join(err, out[i].Err)
		}
		if err != nil {
			r.fail(fmt.Errorf("complete: %w", err))
			return
		}
		r.completed.Add(int64(len(held)))
		r.room.give(len(held))
	}
}

func (r *tasksRun) merge(into, from *hdrhistogram.Histogram) {
	r.mu.Lock()
	into.Merge(from)
	r.mu.Unlock()
}

// WriteTable writes the report for people.
func (r *TasksReport) WriteTable(w io.Writer) error {
	fmt.Fprintf(w, "durability %s · payloads of %d bytes · batches of %d · %d producers, %d agents · %d tasks under way at most · medians of %d\n\n",
		r.Durability, r.Payload, r.Batch, r.Producers, r.Agents, r.UnderWay, r.Rounds)
	var rows [][]string
	for _, row := range r.Rows {
		rows = append(rows, append(append([]string{row.Door, row.Load, fmt.Sprintf("%.0f", row.Rate), fmt.Sprintf("%.0f", row.Messages), fmt.Sprintf("%.1f", row.CPU)},
			row.Acknowledged.millisCells()...), row.Leased.millisCells()...))
	}
	return table(w, strings.Split("door|load|tasks/s|messages/s|CPU µs/task|acknowledged ms p50|p95|p99|leased ms p50|p95|p99", "|"), rows)
}

func (l Latency) millisCells() []string {
	cell := func(us float64) string { return fmt.Sprintf("%.2f", us/1000) }
	return []string{cell(l.P50), cell(l.P95), cell(l.P99)}
}
