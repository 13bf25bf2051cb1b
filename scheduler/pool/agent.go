package pool

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
)

const (
	leaseWaitMillis = vectord.MaxLeaseWaitMillis

	// beatEvery is the time between an agent's signs of life, by which it also learns what is cancelled.
	beatEvery = time.Second

	// pingEvery is the time between questions to an idle process whether it still answers.
	// It has the start timeout to answer, and no more than pingWithin, for there are no signs of life in the meantime.
	pingEvery  = 15 * time.Second
	pingWithin = 10 * time.Second

	// A lease is extended when a third of it has passed, within these bounds.
	extendMin, extendMax = 100 * time.Millisecond, 10 * time.Second

	// progressEvery bounds how often progress is passed on.
	progressEvery = 500 * time.Millisecond

	// callWithin bounds one call about tasks; callAttempts and the pauses between them how long the server may be in trouble.
	callWithin              = 5 * time.Second
	hurriedCallWithin       = time.Second // when the process had to be killed without delay
	callAttempts            = 8
	callPause, callPauseMax = 50 * time.Millisecond, 2 * time.Second
)

// agent is one process for as long as it lives. live tells its story.
type agent struct {
	pool       *pool
	number     int
	id         string
	generation *generation
	protocol   protocol
	logger     *slog.Logger

	process *process
	conn    *conn
	config  vectord.AgentConfig

	retired  chan struct{} // closed when it is to take no more tasks
	stopped  atomic.Bool   // it was told to stop: its end is no death
	released atomic.Bool   // it was killed for one of its tasks; the others are not to blame
	burdened atomic.Bool   // it had tasks when it ended

	// These belong to the pool and are guarded by its mu.
	phase     phase
	reason    string // why it is to end
	capacity  int    // tasks at a time; no longer changes once the agent is ready
	inFlight  int
	taken     int // tasks, ever
	idleSince time.Time

	mu   sync.Mutex
	runs map[vectord.TaskID]*run // guarded by mu
}

// run is one task that the process works on.
type run struct {
	task     vectord.Task
	cancel   chan struct{}        // closed when the task is not wanted any more
	once     sync.Once            // guards the closing
	progress chan json.RawMessage // holds the last one that was not passed on
}

func (r *run) cancelOnce() { r.once.Do(func() { close(r.cancel) }) }

// newAgent returns one that does not live yet. The caller holds the pool's mu.
func newAgent(p *pool, number int) *agent {
	a := &agent{pool: p, number: number, id: fmt.Sprintf("%s:%d", p.name, number), generation: p.generation,
		capacity: p.definition.CapacityPerProcess, retired: make(chan struct{}), runs: map[vectord.TaskID]*run{}}
	a.logger = p.supervisor.options.Logger.With("pool", p.name, "agent", a.id)
	return a
}

// retireFor has the agent take no more tasks, and end when it has finished those that it has. The caller holds the pool's mu.
func (a *agent) retireFor(reason string) {
	if a.phase != stopping {
		a.phase, a.reason = stopping, reason
		a.pool.noteRoom()
		close(a.retired)
	}
}

// live starts the process, works, and ends it.
func (a *agent) live() {
	defer a.pool.leave(a)
	if reason, err := a.start(); err != nil {
		if a.pool.ctx.Err() != nil {
			a.removed()
			return
		}
		a.pool.died(a, reason, err, true)
		return
	}
	a.pool.mu.Lock()
	a.phase, a.idleSince, a.capacity = ready, time.Now(), a.config.Capacity
	a.pool.noteRoom()
	a.pool.changed()
	a.pool.mu.Unlock()
	a.logger.Debug("agent ready", "pid", a.process.cmd.Process.Pid)

	a.work()
	tasks := a.pool.supervisor.options.Tasks
	if !a.stopped.Load() {
		reason := a.process.fate()
		_ = a.persist(a.pool.urgent, "end the leases", func(ctx context.Context) error {
			return tasks.EndLeases(ctx, a.id, "the process ended by "+reason)
		})
		a.pool.died(a, reason, nil, !a.burdened.Load())
	} else {
		a.removed()
	}
	_ = a.persist(a.pool.urgent, "remove the agent", func(ctx context.Context) error { return tasks.RemoveAgent(ctx, a.id) })
}

// removed counts an end that was asked for.
func (a *agent) removed() {
	a.pool.mu.Lock()
	reason := a.reason
	a.pool.mu.Unlock()
	if reason == "" {
		reason = endRemoved
	}
	a.pool.supervisor.metrics.ends.WithLabelValues(a.pool.name, reason).Inc()
}

// start starts the process and registers the agent when it answers. If it fails, the process is gone.
func (a *agent) start() (reason string, err error) {
	s, d := a.pool.supervisor, &a.generation.definition
	a.protocol = workerProtocol{pool: d.Name}
	if d.Kind == MCP {
		a.protocol = mcpProtocol{stateless: a.stateless(), tools: d.ToolMap, texts: s.options.ToolText && len(d.Vectors)+len(d.Texts) == 0}
	}
	if a.pool.ctx.Err() != nil {
		return "", a.pool.ctx.Err()
	}
	s.metrics.starts.WithLabelValues(a.pool.name).Inc()
	began := time.Now()
	if a.process, err = s.startProcess(d, a.id); err != nil {
		return deathStart, err
	}
	a.conn = newConn(a.process, a.hear)
	ctx, cancel := context.WithTimeout(a.pool.ctx, d.startTimeout())
	defer cancel()
	hello, err := a.protocol.greet(ctx, a.conn, a.id)
	switch {
	case errors.Is(err, errGone):
		<-a.conn.gone
		return a.process.fate(), errors.New("it ended before it was ready")
	case err != nil:
		reason = deathGreeting
		if errors.Is(err, context.DeadlineExceeded) {
			reason = deathTimeout
		}
	default:
		a.config = hello.config(d)
		reason = deathRegister
		err = a.persist(a.pool.ctx, "register the agent", a.register)
	}
	if err != nil {
		a.process.kill(reason)
		<-a.conn.gone
		return reason, err
	}
	s.metrics.start.WithLabelValues(a.pool.name).Observe(time.Since(began).Seconds())
	return "", nil
}

// stateless reports whether the generation's processes speak the later revision of MCP. The first agent finds out with a process that
// is started for this and ended.
func (a *agent) stateless() bool {
	g, s := a.generation, a.pool.supervisor
	g.probe.Do(func() {
		p, err := s.startProcess(&g.definition, a.pool.name+":probe")
		if err != nil {
			return // the process proper will say so too
		}
		c := newConn(p, func(string, json.RawMessage) {})
		ctx, cancel := context.WithTimeout(a.pool.ctx, g.definition.startTimeout())
		defer cancel()
		g.stateless = speaksStateless(ctx, c)
		p.kill("")
		<-c.gone
	})
	return g.stateless
}

func (a *agent) register(ctx context.Context) error {
	return a.pool.supervisor.options.Tasks.RegisterAgent(ctx, a.id, a.config)
}

// persist calls fn until it succeeds, is refused for good, or has had its attempts. Once calm ends there is one attempt, and that a
// short one.
func (a *agent) persist(calm context.Context, what string, fn func(context.Context) error) (err error) {
	wait := callPause
	for attempt := 1; ; attempt++ {
		limit := callWithin
		if calm.Err() != nil {
			limit = hurriedCallWithin
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(calm), limit)
		err = fn(ctx)
		cancel()
		if err == nil || attempt == callAttempts || !transient(err) || calm.Err() != nil {
			break
		}
		select {
		case <-time.After(wait):
		case <-calm.Done():
		}
		wait = min(2*wait, callPauseMax)
	}
	if err != nil && vectord.CodeOf(err) == "" {
		a.logger.Warn("could not "+what, "error", err)
	}
	return err
}

// transient reports whether the same call may succeed later.
func transient(err error) bool {
	switch vectord.KindOf(err) {
	case vectord.KindTimeout, vectord.KindOverloaded, vectord.KindInternal:
		return true
	}
	return false
}

// work leases tasks and runs them until the agent retires, the pool ends or the process does. It returns when no task is left, the
// process is gone, and its calls are over. stopped says whether the process was told to end.
func (a *agent) work() {
	polling, stop := context.WithCancel(a.pool.ctx)
	defer stop()
	go func() {
		select {
		case <-a.retired:
		case <-a.conn.gone:
		case <-polling.Done():
		}
		stop()
	}()
	beating := make(chan struct{})
	var beats, runs sync.WaitGroup
	beats.Go(func() { a.beat(beating) })
	a.lease(polling, &runs)

	finished := make(chan struct{})
	go func() { runs.Wait(); close(finished) }()
	select {
	case <-a.conn.gone:
	case <-finished:
	case <-a.pool.ctx.Done():
	}
	a.pool.mu.Lock()
	a.phase = stopping
	a.pool.noteRoom()
	a.pool.changed()
	a.pool.mu.Unlock()
	select {
	case <-a.conn.gone:
	default:
		a.stopped.Store(true)
		a.process.stop(a.generation.definition.stopGrace(), a.pool.urgent.Done())
	}
	<-a.conn.gone
	<-finished
	close(beating)
	beats.Wait()
}

// lease takes tasks as long as there is room, until polling ends.
func (a *agent) lease(polling context.Context, runs *sync.WaitGroup) {
	slots := make(chan struct{}, a.capacity)
	wait := callPause
	for {
		n := a.takeSlots(polling, slots)
		if n == 0 {
			return
		}
		tasks, err := a.pool.supervisor.options.Tasks.Lease(polling, vectord.LeaseRequest{AgentID: a.id, MaxTasks: n, WaitMS: leaseWaitMillis})
		leased := time.Now()
		for range n - len(tasks) {
			<-slots
		}
		room := a.begun(len(tasks))
		for _, t := range tasks {
			a.count(&t, room)
			r := &run{task: t, cancel: make(chan struct{}), progress: make(chan json.RawMessage, 1)}
			a.mu.Lock()
			a.runs[t.ID] = r
			a.mu.Unlock()
			runs.Go(func() {
				a.run(r, leased)
				a.mu.Lock()
				if a.runs[r.task.ID] == r { // else the lease was lost, and the task leased by this very agent again
					delete(a.runs, r.task.ID)
				}
				a.mu.Unlock()
				a.finished()
				<-slots
			})
		}
		if err == nil {
			wait = callPause
			continue
		}
		if polling.Err() != nil {
			return
		}
		if vectord.CodeOf(err) == vectord.CodeAgentNotFound {
			err = a.persist(a.pool.ctx, "register the agent again", a.register)
		}
		if err != nil {
			a.logger.Warn("could not lease tasks", "error", err)
		}
		select {
		case <-time.After(wait):
		case <-polling.Done():
		}
		wait = min(2*wait, callPauseMax)
	}
}

// takeSlots waits for room and takes all that there is, within what the process may take in its life. 0: no more tasks are to be taken.
func (a *agent) takeSlots(polling context.Context, slots chan struct{}) (n int) {
	most := a.capacity
	if limit := a.generation.definition.MaxTasksPerProcess; limit > 0 {
		a.pool.mu.Lock()
		most = min(most, limit-a.taken)
		if most <= 0 {
			a.retireFor(endRecycled)
			a.pool.changed()
		}
		a.pool.mu.Unlock()
	}
	if most <= 0 {
		return 0
	}
	select {
	case slots <- struct{}{}:
		n = 1
	case <-polling.Done():
		return 0
	}
	select {
	case <-a.conn.gone: // polling is about to end; the slot may be that of a task which was released for this reason
		return 0
	default:
	}
	for n < most {
		select {
		case slots <- struct{}{}:
			n++
		default:
			most = n
		}
	}
	if polling.Err() != nil {
		return 0
	}
	return n
}

// begun counts tasks that were leased, and returns since when the pool has had room for them.
func (a *agent) begun(tasks int) (room time.Time) {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	room = a.pool.roomSince
	a.inFlight += tasks
	a.taken += tasks
	a.pool.noteRoom()
	a.pool.changed()
	return room
}

func (a *agent) finished() {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	a.inFlight--
	a.idleSince = time.Now()
	a.pool.noteRoom()
	a.pool.changed()
}

// count counts whether there was a ready process with room when the task came, by the clock of the node that took it. Attempts after
// the first, and tasks that waited for others, don't tell.
func (a *agent) count(t *vectord.Task, room time.Time) {
	if t.Attempt > 1 || len(t.DependsOn) > 0 {
		return
	}
	warm := "false"
	if !room.IsZero() && max(t.CreatedAt, t.RunAt) >= vectord.Timestamp(room.UnixMilli()) {
		warm = "true"
	}
	a.pool.supervisor.metrics.tasks.WithLabelValues(a.pool.name, warm).Inc()
}

// beat gives signs of life, learns what is cancelled, and asks an idle process whether it lives, until stop is closed.
func (a *agent) beat(stop <-chan struct{}) {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	pinged := time.Now()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		news, err := a.pool.supervisor.options.Tasks.HeartbeatAgent(a.id, vectord.AgentHeartbeat{})
		if vectord.CodeOf(err) == vectord.CodeAgentNotFound && !a.stopped.Load() {
			_ = a.persist(a.pool.ctx, "register the agent again", a.register)
		}
		a.mu.Lock()
		for _, id := range news.CancelRequested {
			if r := a.runs[id]; r != nil {
				r.cancelOnce()
			}
		}
		a.mu.Unlock()
		if !a.stopped.Load() && time.Since(pinged) >= pingEvery {
			pinged = time.Now()
			a.ping()
		}
	}
}

// ping kills the process if it has no task and does not answer. An error is an answer. A process that was given a task in the meantime
// is let off: it may have got that first.
func (a *agent) ping() {
	before, idle := a.load()
	if !idle {
		return
	}
	ctx, cancel := context.WithTimeout(a.pool.ctx, min(a.generation.definition.startTimeout(), pingWithin))
	defer cancel()
	err := a.conn.call(ctx, "ping", struct{}{}, &struct{}{})
	if after, _ := a.load(); errors.Is(err, context.DeadlineExceeded) && after == before {
		a.process.kill(deathHung)
	}
}

// load returns how many tasks the agent has taken so far, and whether it has none now.
func (a *agent) load() (taken int, idle bool) {
	a.pool.mu.Lock()
	defer a.pool.mu.Unlock()
	return a.taken, a.inFlight == 0
}

// hear takes what the process says unasked.
func (a *agent) hear(method string, params json.RawMessage) {
	id, progress, ok := a.protocol.progress(method, params)
	if !ok || len(progress) > vectord.MaxMetadataBytes {
		return
	}
	a.mu.Lock()
	r := a.runs[id]
	a.mu.Unlock()
	if r == nil {
		return
	}
	select { // hear is called by one goroutine: what it takes out leaves room
	case <-r.progress:
	default:
	}
	r.progress <- progress
}

// run puts a task to the process and gives an account of it, unless it is the process's death that does so.
func (a *agent) run(r *run, leased time.Time) {
	t := &r.task
	if a.pool.ctx.Err() != nil {
		a.settle(t, vectord.TaskCall{Kind: vectord.CallRelease})
		return
	}
	method, params, err := a.protocol.request(t)
	if err != nil {
		a.settle(t, failure(errorNoTool, err.Error(), true))
		return
	}
	id, answer, err := a.conn.send(method, params)
	switch {
	case errors.Is(err, errGone):
		// The process has not seen the task, and will see none: as long as it is there, it keeps its slot.
		if !a.process.endsWithin(silentWithin, a.pool.urgent.Done()) {
			a.process.kill(deathStuck)
		}
		<-a.conn.gone
		a.settle(t, vectord.TaskCall{Kind: vectord.CallRelease})
		return
	case err != nil:
		a.settle(t, failure(errorTask, err.Error(), true))
		return
	}
	a.pool.supervisor.metrics.assign.WithLabelValues(a.pool.name).Observe(time.Since(leased).Seconds())

	extend := min(max(time.Until(t.LeaseExpiresAt.Time())/3, extendMin), extendMax)
	ticker := time.NewTicker(min(extend, progressEvery))
	defer ticker.Stop()
	extended, mine, cancelled := leased, true, false
	cancel, grace := r.cancel, (<-chan time.Time)(nil)
	for {
		select {
		case reply := <-answer:
			a.account(t, reply, mine, cancelled)
			return
		case <-ticker.C:
			progress := r.lastProgress()
			if !mine || progress == nil && time.Since(extended) < extend {
				continue
			}
			extended = time.Now()
			var wanted bool
			if mine, wanted = a.extend(t, progress); !mine || !wanted {
				r.cancelOnce()
			}
		case <-cancel:
			cancel, cancelled = nil, true
			_ = a.conn.tell(a.protocol.cancellation(t.ID, id)) // if that fails, the process is ending
			timer := time.NewTimer(a.generation.definition.stopGrace())
			defer timer.Stop()
			grace = timer.C
		case <-grace:
			a.released.Store(true)
			a.process.kill(deathCancel)
		}
	}
}

// account makes the answer to a task's request the last call about the task.
func (a *agent) account(t *vectord.Task, r reply, mine, cancelled bool) {
	gone := errors.Is(r.err, errGone)
	if gone {
		a.burdened.Store(true)
	}
	switch {
	case !mine: // somebody else may have the task by now
	case cancelled && (gone || r.err != nil):
		a.settle(t, failure(errorCancelled, "the agent stopped when the task was cancelled", true))
	case gone && (a.stopped.Load() || a.released.Load()):
		a.settle(t, vectord.TaskCall{Kind: vectord.CallRelease})
	case gone: // the end of all leases is the account
	default:
		a.settle(t, a.protocol.verdict(r))
	}
}

// lastProgress returns what has not been passed on, or nil.
func (r *run) lastProgress() json.RawMessage {
	select {
	case p := <-r.progress:
		return p
	default:
		return nil
	}
}

// extend extends a lease, and reports whether it still is this agent's and the task wanted.
func (a *agent) extend(t *vectord.Task, progress json.RawMessage) (mine, wanted bool) {
	ctx, cancel := context.WithTimeout(a.pool.urgent, callWithin)
	defer cancel()
	outcomes, err := a.pool.supervisor.options.Tasks.Call(ctx, []vectord.TaskCall{{Kind: vectord.CallHeartbeat, ID: t.ID, LeaseID: t.LeaseID, Progress: progress}})
	if err == nil && len(outcomes) == 1 {
		err = outcomes[0].Err
	}
	if err == nil && len(outcomes) == 1 {
		return true, !outcomes[0].CancelRequested
	}
	switch vectord.CodeOf(err) {
	case vectord.CodeLeaseLost, vectord.CodeTaskTerminal, vectord.CodeTaskNotFound:
		return false, false
	}
	a.logger.Warn("could not extend a lease", "task", t.ID, "error", err)
	return true, true
}

// settle makes the last call about a task.
func (a *agent) settle(t *vectord.Task, call vectord.TaskCall) {
	if len(call.Result) > vectord.MaxTaskBytes {
		call = failure(errorResult, fmt.Sprintf("the result has %d bytes, at most %d are kept", len(call.Result), vectord.MaxTaskBytes), true)
	}
	call.ID, call.LeaseID = t.ID, t.LeaseID
	err := a.persist(a.pool.urgent, "give an account of a task", func(ctx context.Context) error {
		outcomes, err := a.pool.supervisor.options.Tasks.Call(ctx, []vectord.TaskCall{call})
		if err == nil && len(outcomes) == 1 {
			err = outcomes[0].Err
		}
		return err
	})
	if err != nil && call.Kind == vectord.CallComplete && !transient(err) && vectord.CodeOf(err) == "" {
		a.settle(t, failure(errorAnswer, "the result was refused: "+err.Error(), true))
	}
}
