package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/vectord/vectord"
)

// Route measures how long the choice of an agent takes, and how evenly the choices load the agents.
type Route struct {
	Node    TaskNode
	Cases   []RouteCase
	Dim     int // of the vectors of tasks and agents
	Samples int // tasks that are measured in each case

	Policies []vectord.RoutingPolicy // whose balance is measured
	Agents   int                     // in that
	Load     float64                 // of all agents, from 0 to 1
	RunTime  time.Duration           // mean, of an agent of speed 1
	Duration time.Duration           // of the simulation of each policy
	Seed     uint64
}

// RouteCase is how many agents there are, and how many tasks wait already.
type RouteCase struct{ Agents, Queued int }

// RouteReport is what Route found.
type RouteReport struct {
	Dim      int           `json:"dim"`
	Samples  int           `json:"samples"`
	Rows     []RouteRow    `json:"assignments"`
	Agents   int           `json:"agents"`
	Load     float64       `json:"load"`
	Balances []BalanceRow  `json:"balances"`
	RunTime  time.Duration `json:"run_time_ns"`
}

// RouteRow is how long assignments took in one case.
type RouteRow struct {
	Case string `json:"case"`
	RouteCase
	Latency
	Max float64 `json:"max_us"`
}

// BalanceRow is how evenly one policy has loaded the agents.
type BalanceRow struct {
	Policy      vectord.RoutingPolicy `json:"policy"`
	Tasks       int64                 `json:"tasks"`
	Jain        float64               `json:"jain"`        // of the agents' utilisations: 1 if all are equal
	Utilisation float64               `json:"utilisation"` // busy slots of all, averaged over the time
	Lowest      float64               `json:"lowest"`      // of an agent
	Highest     float64               `json:"highest"`
	Wait        Latency               `json:"wait"` // of a task for its agent
}

// What Route does not let be chosen.
const (
	routeAgentsMax = 20_000
	routeQueuedMax = 1_000_000
	routeSamples   = 1_000_000
	routeWithin    = 30 * time.Second // for one assignment
	routePollMS    = vectord.MaxLeaseWaitMillis
	routeClients   = 64 // registrations on their way at a time
	routeNoise     = 0.05
	// Speeds and capacities of the agents whose balance is measured, and how the logarithms of run times scatter.
	balanceCapacityMax, balanceSpeedMax, balanceSigma = 5, 4, 0.8
)

func (r *Route) validate() error {
	for _, c := range r.Cases {
		if c.Agents < 2 || c.Agents > routeAgentsMax || c.Queued < 0 || c.Queued > routeQueuedMax {
			return fmt.Errorf("%d agents, %d tasks that wait: agents must be from 2 to %d, tasks from 0 to %d", c.Agents, c.Queued, routeAgentsMax, routeQueuedMax)
		}
	}
	switch {
	case r.Dim < 1 || r.Dim > vectord.MaxDimension:
		return fmt.Errorf("dimension: %d invalid, must be from 1 to %d", r.Dim, vectord.MaxDimension)
	case r.Samples < 1 || r.Samples > routeSamples:
		return fmt.Errorf("samples: %d invalid, must be from 1 to %d", r.Samples, routeSamples)
	case len(r.Policies) > 0 && (r.Agents < 1 || r.Agents > routeAgentsMax):
		return fmt.Errorf("agents: %d invalid, must be from 1 to %d", r.Agents, routeAgentsMax)
	case len(r.Policies) > 0 && !(r.Load > 0 && r.Load <= 1 && r.RunTime > 0 && r.Duration > 0):
		return fmt.Errorf("load %v, run time %v, duration %v: the load must be above 0 and up to 1, times positive", r.Load, r.RunTime, r.Duration)
	}
	return nil
}

// Run does the measurements. progress is told about each step.
func (r *Route) Run(ctx context.Context, progress func(step string)) (RouteReport, error) {
	report := RouteReport{Dim: r.Dim, Samples: r.Samples, Agents: r.Agents, Load: r.Load, RunTime: r.RunTime}
	if err := r.validate(); err != nil {
		return report, err
	}
	for _, c := range r.Cases {
		rows, err := r.assign(ctx, c, progress)
		if err != nil {
			return report, fmt.Errorf("%d agents, %d tasks that wait: %w", c.Agents, c.Queued, err)
		}
		report.Rows = append(report.Rows, rows...)
	}
	for _, policy := range r.Policies {
		progress(fmt.Sprintf("balance of %s for %v", policy, r.Duration))
		row, err := r.balance(ctx, policy)
		if err != nil {
			return report, fmt.Errorf("%s: %w", policy, err)
		}
		report.Balances = append(report.Balances, row)
	}
	return report, nil
}

// assignment is the setting of a case: agents with a capability each, the first of which is busy all the time.
type assignment struct {
	*Route
	RouteCase
	queue   string
	rng     *rand.Rand
	vectors [][]float32
}

func (a *assignment) agent(i int) string { return fmt.Sprintf("%s-agent-%d", a.queue, i) }

// near returns a task for an agent.
func (a *assignment) near(agent int) vectord.NewTask {
	v := slices.Clone(a.vectors[agent])
	for i := range v {
		v[i] += routeNoise * float32(a.rng.NormFloat64())
	}
	return vectord.NewTask{Vector: v, Payload: []byte("1")}
}

// assign measures the assignments of a case.
//
// A task that comes: the agents wait, all but the first, and so do the tasks that are for the first, which is busy; a task comes for
// another one. The time is from before it is submitted to when the agent has it.
//
// An agent that comes: the tasks that wait are for all, and one of the agents asks for one. The time is that of its call.
func (r *Route) assign(ctx context.Context, c RouteCase, progress func(string)) (rows []RouteRow, err error) {
	a := &assignment{Route: r, RouteCase: c, queue: fmt.Sprintf("bench-route-%d", tasksQueues.Add(1)), rng: rand.New(rand.NewPCG(r.Seed, 7))}
	config := vectord.DefaultQueueConfig()
	config.Durability, config.MaxDepth, config.LeaseSeconds = vectord.InMemory, vectord.MaxQueueTasks, vectord.MaxLeaseSeconds
	config.Routing.MinSimilarity = 0.75 // nothing falls to whom it is not for
	if err := r.Node.PutQueue(ctx, a.queue, config); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Node.DeleteQueue(context.WithoutCancel(ctx), a.queue, true)) }()
	progress(fmt.Sprintf("registering %d agents", c.Agents))
	defer func() {
		err = errors.Join(err, a.each(func(i int) error { return r.Node.RemoveAgent(context.WithoutCancel(ctx), a.agent(i)) }))
	}()
	a.vectors = make([][]float32, c.Agents)
	for i := range a.vectors {
		a.vectors[i] = make([]float32, r.Dim)
		for j := range a.vectors[i] {
			a.vectors[i][j] = float32(a.rng.NormFloat64())
		}
	}
	err = a.each(func(i int) error {
		return r.Node.RegisterAgent(ctx, a.agent(i), vectord.AgentConfig{Queues: []string{a.queue}, Vectors: a.vectors[i : i+1], LeaseTTLSeconds: vectord.MaxLeaseSeconds})
	})
	if err != nil {
		return nil, err
	}
	progress(fmt.Sprintf("%d tasks that come while %d wait", r.Samples, c.Queued))
	if err := a.fill(ctx, func() int { return 0 }, c.Queued+1); err != nil {
		return nil, err
	}
	held, err := r.Node.Lease(ctx, vectord.LeaseRequest{Queue: a.queue, AgentID: a.agent(0), WaitMS: routePollMS})
	if err != nil || len(held) != 1 {
		return nil, fmt.Errorf("the first agent got %d tasks, expected 1: %w", len(held), err)
	}
	row, err := a.tasksCome(ctx)
	if err != nil {
		return nil, err
	}
	rows = append(rows, row)
	if c.Queued == 0 {
		return rows, nil
	}

	progress(fmt.Sprintf("%d agents that come while %d tasks wait", r.Samples, c.Queued))
	if err := a.renew(ctx, config); err != nil {
		return nil, err
	}
	row, err = a.agentsCome(ctx)
	return append(rows, row), err
}

// renew empties the queue.
func (a *assignment) renew(ctx context.Context, config vectord.QueueConfig) error {
	return errors.Join(a.Node.DeleteQueue(ctx, a.queue, true), a.Node.PutQueue(ctx, a.queue, config))
}

// each calls fn for all agents.
func (a *assignment) each(fn func(i int) error) error {
	var next atomic.Int64
	var all sync.WaitGroup
	errs := make([]error, routeClients)
	for client := range errs {
		all.Go(func() {
			for i := int(next.Add(1) - 1); i < a.RouteCase.Agents && errs[client] == nil; i = int(next.Add(1) - 1) {
				errs[client] = fn(i)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// fill submits tasks for agents.
func (a *assignment) fill(ctx context.Context, agent func() int, n int) error {
	for n > 0 {
		tasks := make([]vectord.NewTask, min(n, vectord.MaxTaskBatch))
		for i := range tasks {
			tasks[i] = a.near(agent())
		}
		n -= len(tasks)
		if err := submitted(a.Node.Submit(ctx, a.queue, tasks)); err != nil {
			return err
		}
	}
	return nil
}

// submitted returns the first error of an answer.
func submitted(out []vectord.Submitted, err error) error {
	for i := range out {
		err = cmp.Or(err, out[i].Err)
	}
	return err
}

// completed likewise.
func completed(out []vectord.CallOutcome, err error) error {
	for i := range out {
		err = cmp.Or(err, out[i].Err)
	}
	return err
}

func complete(ctx context.Context, door TaskDoor, t *vectord.Task) error {
	return completed(door.Call(ctx, []vectord.TaskCall{{Kind: vectord.CallComplete, ID: t.ID, LeaseID: t.LeaseID, Result: []byte("1")}}))
}

// tasksCome measures tasks that come while agents wait.
func (a *assignment) tasksCome(ctx context.Context) (row RouteRow, err error) {
	over, stop := context.WithCancel(ctx)
	var agents sync.WaitGroup
	defer agents.Wait()
	defer stop()
	type arrival struct {
		at  time.Time
		err error
	}
	arrived := make(chan arrival, 1)
	for i := 1; i < a.RouteCase.Agents; i++ {
		agents.Go(func() {
			for over.Err() == nil {
				held, err := a.Node.Lease(over, vectord.LeaseRequest{Queue: a.queue, AgentID: a.agent(i), WaitMS: routePollMS})
				at := time.Now()
				if err == nil && len(held) == 1 {
					err = complete(ctx, a.Node, &held[0])
				}
				if err != nil || len(held) > 0 {
					select {
					case arrived <- arrival{at, err}:
					case <-over.Done():
						return
					}
				}
			}
		})
	}
	sleepUntil(ctx, time.Now().Add(time.Second)) // until they wait
	took, longest := newHistogram(), time.Duration(0)
	for range a.Samples {
		tasks := []vectord.NewTask{a.near(1 + a.rng.IntN(a.RouteCase.Agents-1))}
		if !sleepUntil(ctx, time.Now().Add(time.Duration(a.rng.ExpFloat64()*float64(2*time.Millisecond)))) {
			return row, ctx.Err()
		}
		begin := time.Now()
		if err := submitted(a.Node.Submit(ctx, a.queue, tasks)); err != nil {
			return row, err
		}
		select {
		case got := <-arrived:
			if got.err != nil {
				return row, got.err
			}
			record(took, got.at.Sub(begin))
			longest = max(longest, got.at.Sub(begin))
		case <-time.After(routeWithin):
			return row, fmt.Errorf("no agent got the task within %v", routeWithin)
		case <-ctx.Done():
			return row, ctx.Err()
		}
	}
	return a.row("a task comes", took, longest), nil
}

// agentsCome measures agents that ask while tasks wait.
func (a *assignment) agentsCome(ctx context.Context) (row RouteRow, err error) {
	if err := a.fill(ctx, func() int { return a.rng.IntN(a.RouteCase.Agents) }, a.Queued); err != nil {
		return row, err
	}
	took, longest := newHistogram(), time.Duration(0)
	for n := 0; n < a.Samples; {
		if !sleepUntil(ctx, time.Now().Add(time.Duration(a.rng.ExpFloat64()*float64(time.Millisecond)))) {
			return row, ctx.Err()
		}
		agent := a.agent(a.rng.IntN(a.RouteCase.Agents))
		begin := time.Now()
		held, err := a.Node.Lease(ctx, vectord.LeaseRequest{Queue: a.queue, AgentID: agent})
		d := time.Since(begin)
		if err != nil {
			return row, err
		}
		n++
		record(took, d)
		longest = max(longest, d)
		if len(held) == 0 { // none is for it
			continue
		}
		if err := complete(ctx, a.Node, &held[0]); err != nil {
			return row, err
		}
		if err := a.fill(ctx, func() int { return a.rng.IntN(a.RouteCase.Agents) }, 1); err != nil {
			return row, err
		}
	}
	return a.row("an agent comes", took, longest), nil
}

func (a *assignment) row(name string, took *hdrhistogram.Histogram, longest time.Duration) RouteRow {
	return RouteRow{Case: name, RouteCase: a.RouteCase, Latency: latencyOfHistogram(took), Max: micros(longest)}
}

// worker is an agent whose balance is measured.
type worker struct {
	id       string
	capacity int
	speed    float64
	busy     atomic.Int64 // nanoseconds of its slots within the measurement
}

// balance simulates agents of different capacities and speeds, among which tasks without vectors are divided. Tasks come at random,
// at a rate that is Load of what all agents can do. The first and the last tenth of the time do not count.
func (r *Route) balance(ctx context.Context, policy vectord.RoutingPolicy) (row BalanceRow, err error) {
	queue := fmt.Sprintf("bench-balance-%d", tasksQueues.Add(1))
	config := vectord.DefaultQueueConfig()
	config.Durability, config.MaxDepth, config.Routing.Policy = vectord.InMemory, vectord.MaxQueueTasks, policy
	if err := r.Node.PutQueue(ctx, queue, config); err != nil {
		return row, err
	}
	defer func() { err = errors.Join(err, r.Node.DeleteQueue(context.WithoutCancel(ctx), queue, true)) }()
	rng := rand.New(rand.NewPCG(r.Seed, 8)) // the same agents for every policy
	workers, power := make([]*worker, r.Agents), 0.0
	for i := range workers {
		w := &worker{id: fmt.Sprintf("%s-agent-%d", queue, i), capacity: 1 + rng.IntN(balanceCapacityMax), speed: 1 + rng.Float64()*(balanceSpeedMax-1)}
		workers[i] = w
		power += float64(w.capacity) * w.speed
		if err := r.Node.RegisterAgent(ctx, w.id, vectord.AgentConfig{Queues: []string{queue}, Capacity: w.capacity}); err != nil {
			return row, err
		}
		defer func() { err = errors.Join(err, r.Node.RemoveAgent(context.WithoutCancel(ctx), w.id)) }()
	}
	begin := time.Now()
	from, to, end := begin.Add(r.Duration/10), begin.Add(r.Duration*9/10), begin.Add(r.Duration)
	over, stop := context.WithCancel(ctx)
	defer stop()
	var all sync.WaitGroup
	var failed atomic.Pointer[error]
	var count atomic.Int64
	var mu sync.Mutex // guards waits
	waits := newHistogram()
	fail := func(err error) {
		failed.CompareAndSwap(nil, &err)
		stop()
	}
	for _, w := range workers {
		all.Go(func() {
			freed := make(chan struct{}, w.capacity)
			for free := w.capacity; over.Err() == nil; {
				for more := true; more; {
					select {
					case <-freed:
						free++
					default:
						more = false
					}
				}
				if free == 0 {
					select {
					case <-freed:
						free++
					case <-over.Done():
					}
					continue
				}
				held, err := r.Node.Lease(over, vectord.LeaseRequest{Queue: queue, AgentID: w.id, MaxTasks: free, WaitMS: tasksWaitMillis})
				if err != nil {
					fail(err)
					return
				}
				at := time.Now()
				for i := range held {
					free--
					var work, submitted int64
					if _, err := fmt.Sscanf(strings.Trim(string(held[i].Payload), `"`), "%d %d", &work, &submitted); err != nil {
						fail(err)
						return
					}
					if at.After(from) && at.Before(to) {
						mu.Lock()
						record(waits, at.Sub(begin)-time.Duration(submitted))
						mu.Unlock()
					}
					all.Go(func() {
						time.Sleep(time.Duration(float64(work) / w.speed))
						done := time.Now()
						if a, b := latest(at, from), earliest(done, to); b.After(a) {
							w.busy.Add(int64(b.Sub(a)))
						}
						if err := complete(ctx, r.Node, &held[i]); err != nil && over.Err() == nil {
							fail(err)
						}
						count.Add(1)
						freed <- struct{}{}
					})
				}
			}
		})
	}
	rate := r.Load * power / r.RunTime.Seconds()
	mu2 := math.Log(float64(r.RunTime)) - balanceSigma*balanceSigma/2 // so that the mean is RunTime
	for at := time.Now(); at.Before(end) && over.Err() == nil; at = at.Add(time.Duration(rng.ExpFloat64() / rate * float64(time.Second))) {
		if !sleepUntil(over, at) {
			break
		}
		payload := `"` + strconv.FormatInt(int64(math.Exp(mu2+balanceSigma*rng.NormFloat64())), 10) + " " + strconv.FormatInt(int64(time.Since(begin)), 10) + `"`
		if err := submitted(r.Node.Submit(ctx, queue, []vectord.NewTask{{Payload: []byte(payload)}})); err != nil {
			fail(err)
		}
	}
	stop()
	all.Wait()
	if f := failed.Load(); f != nil {
		return row, *f
	}
	if ctx.Err() != nil {
		return row, ctx.Err()
	}
	row = BalanceRow{Policy: policy, Tasks: count.Load(), Lowest: math.Inf(1), Wait: latencyOfHistogram(waits)}
	sum, squares, busy, slots := 0.0, 0.0, 0.0, 0.0
	for _, w := range workers {
		u := float64(w.busy.Load()) / float64(w.capacity) / float64(to.Sub(from))
		sum, squares = sum+u, squares+u*u
		busy, slots = busy+float64(w.busy.Load()), slots+float64(w.capacity)
		row.Lowest, row.Highest = min(row.Lowest, u), max(row.Highest, u)
	}
	row.Utilisation = busy / slots / float64(to.Sub(from))
	if squares > 0 {
		row.Jain = sum * sum / (float64(len(workers)) * squares)
	}
	return row, nil
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// WriteTable writes the report for people.
func (r *RouteReport) WriteTable(w io.Writer) error {
	if len(r.Rows) > 0 {
		fmt.Fprintf(w, "assignments · vectors of %d components · %d samples a row\n\n", r.Dim, r.Samples)
		var rows [][]string
		for _, row := range r.Rows {
			cell := func(us float64) string { return fmt.Sprintf("%.3f", us/1000) }
			rows = append(rows, []string{row.Case, strconv.Itoa(row.Agents), strconv.Itoa(row.Queued), cell(row.P50), cell(row.P95), cell(row.P99), cell(row.Max)})
		}
		if err := table(w, []string{"", "agents", "queued", "ms p50", "p95", "p99", "max"}, rows); err != nil {
			return err
		}
	}
	if len(r.Balances) == 0 {
		return nil
	}
	fmt.Fprintf(w, "\nbalance · %d agents of capacities 1 to %d and speeds 1 to %d · load %.2f · run times log-normal, mean %v at speed 1\n\n",
		r.Agents, balanceCapacityMax, balanceSpeedMax, r.Load, r.RunTime)
	var rows [][]string
	for _, b := range r.Balances {
		rows = append(rows, append([]string{string(b.Policy), strconv.FormatInt(b.Tasks, 10), fmt.Sprintf("%.4f", b.Jain), fmt.Sprintf("%.3f", b.Utilisation),
			fmt.Sprintf("%.3f", b.Lowest), fmt.Sprintf("%.3f", b.Highest)}, b.Wait.millisCells()...))
	}
	return table(w, []string{"policy", "tasks", "Jain's index", "utilisation", "lowest", "highest", "wait ms p50", "p95", "p99"}, rows)
}
