package server

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

// fakeScheduler keeps queues, agents and states in maps, and does with tasks what a test says.
type fakeScheduler struct {
	submit func(queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error)
	lease  func(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error)
	call   func(calls []vectord.TaskCall) []vectord.CallOutcome
	events func(ctx context.Context, queue string, task vectord.TaskID, after uint64, fn func(vectord.TaskEvent) error) error

	mu      sync.Mutex // guards all below
	queues  map[string]vectord.QueueConfig
	tasks   map[vectord.TaskID]vectord.Task
	agents  map[string]vectord.Agent
	states  map[string]vectord.State
	version uint64
	changed chan struct{} // closed, and another, when a state or a task changes
	said    []string      // what was called that has nothing to show for it
}

var _ Scheduler = (*fakeScheduler)(nil)

func newFakeScheduler() *fakeScheduler {
	return &fakeScheduler{queues: map[string]vectord.QueueConfig{}, tasks: map[vectord.TaskID]vectord.Task{},
		agents: map[string]vectord.Agent{}, states: map[string]vectord.State{}, changed: make(chan struct{})}
}

// startTasks starts a server of a fake scheduler.
func startTasks(t *testing.T, o Options) (*harness, *fakeScheduler) {
	t.Helper()
	f := newFakeScheduler()
	o.Scheduler = f
	return start(t, model.New(), o), f
}

func (f *fakeScheduler) note(format string, args ...any) {
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func (f *fakeScheduler) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *fakeScheduler) addTask(task vectord.Task) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tasks[task.ID] = task
	f.notify()
}

func (f *fakeScheduler) PutQueue(_ context.Context, name string, config vectord.QueueConfig) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queues[name] = config
	return nil
}

func (f *fakeScheduler) Queue(name string) (vectord.QueueInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	config, ok := f.queues[name]
	if !ok {
		return vectord.QueueInfo{}, vectord.Refuse(vectord.KindNotFound, vectord.CodeQueueNotFound, "queue %q does not exist", name)
	}
	return vectord.QueueInfo{Name: name, Config: config, Counts: map[vectord.TaskStatus]int{vectord.TaskQueued: 2}, Agents: 1, OldestMS: 5}, nil
}

func (f *fakeScheduler) Queues() (infos []vectord.QueueInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.queues)) {
		infos = append(infos, vectord.QueueInfo{Name: name, Config: f.queues[name]})
	}
	return infos
}

func (f *fakeScheduler) DeleteQueue(_ context.Context, name string, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !force {
		return vectord.Refuse(vectord.KindConflict, vectord.CodeQueueNotEmpty, "queue %q has 2 tasks", name)
	}
	delete(f.queues, name)
	return nil
}

func (f *fakeScheduler) Submit(_ context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
	return f.submit(queue, tasks)
}

func (f *fakeScheduler) Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error) {
	return f.lease(ctx, r)
}

func (f *fakeScheduler) Call(_ context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	return f.call(calls), nil
}

func (f *fakeScheduler) Cancel(_ context.Context, id vectord.TaskID) (vectord.Task, error) {
	task, err := f.Task(id)
	task.CancelRequested = true
	return task, err
}

func (f *fakeScheduler) GiveInput(_ context.Context, id vectord.TaskID, response []byte) (vectord.Task, error) {
	task, err := f.Task(id)
	task.InputResponse = response
	return task, err
}

func (f *fakeScheduler) Task(id vectord.TaskID) (vectord.Task, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if task, ok := f.tasks[id]; ok {
		return task, nil
	}
	return vectord.Task{}, vectord.Refuse(vectord.KindNotFound, vectord.CodeTaskNotFound, "task %s does not exist", id)
}

func (f *fakeScheduler) TaskResult(ctx context.Context, id vectord.TaskID) (vectord.Task, error) {
	for {
		f.mu.Lock()
		changed := f.changed
		f.mu.Unlock()
		task, err := f.Task(id)
		if err != nil || task.Status.Terminal() {
			return task, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return task, nil
		}
	}
}

func (f *fakeScheduler) ScrollTasks(s vectord.TaskScroll) (tasks []vectord.Task, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("scroll %+v", s)
	for _, task := range f.tasks {
		if task.ID.String() > s.After.String() && (len(s.Status) == 0 || slices.Contains(s.Status, task.Status)) {
			tasks = append(tasks, task)
		}
	}
	slices.SortFunc(tasks, func(a, b vectord.Task) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return tasks[:min(len(tasks), s.Limit)], nil
}

func (f *fakeScheduler) CountTasks(vectord.TaskScroll) (int, error) { return len(f.tasks), nil }

func (f *fakeScheduler) Decisions(vectord.TaskID) ([]vectord.Decision, error) {
	return []vectord.Decision{{AgentID: "a", Policy: vectord.Nearest, TookUS: 3, Threshold: 0.5, Attempt: 1}}, nil
}

func (f *fakeScheduler) Redrive(_ context.Context, queue string, ids []vectord.TaskID) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("redrive %s %v", queue, ids)
	return len(ids), nil
}

func (f *fakeScheduler) Events(ctx context.Context, queue string, task vectord.TaskID, after uint64, fn func(vectord.TaskEvent) error) error {
	return f.events(ctx, queue, task, after, fn)
}

func (f *fakeScheduler) RegisterAgent(_ context.Context, id string, config vectord.AgentConfig) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.agents[id] = vectord.Agent{ID: id, AgentConfig: config, Status: vectord.AgentActive}
	return nil
}

func (f *fakeScheduler) Agent(id string) (vectord.Agent, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if a, ok := f.agents[id]; ok {
		return a, nil
	}
	return vectord.Agent{}, vectord.Refuse(vectord.KindNotFound, vectord.CodeAgentNotFound, "agent %q does not exist", id)
}

func (f *fakeScheduler) Agents() (agents []vectord.Agent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(f.agents)) {
		agents = append(agents, f.agents[id])
	}
	return agents
}

func (f *fakeScheduler) RemoveAgent(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.agents, id)
	return nil
}

func (f *fakeScheduler) HeartbeatAgent(id string, h vectord.AgentHeartbeat) (vectord.AgentNews, error) {
	_, err := f.Agent(id)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("heartbeat %s %v", id, h.LatencyMS)
	return vectord.AgentNews{Status: vectord.AgentActive}, err
}

func (f *fakeScheduler) DrainAgent(_ context.Context, id string, drain bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("drain %s %v", id, drain)
	return nil
}

func (f *fakeScheduler) Route(_ context.Context, r vectord.RouteRequest) (vectord.Decision, error) {
	if r.Queue == "strict" {
		return vectord.Decision{}, vectord.Refuse(vectord.KindUnprocessable, vectord.CodeNoEligibleAgent, "no agent is eligible")
	}
	return vectord.Decision{AgentID: "a", Policy: vectord.NearestThenLeastLoaded, Candidates: []vectord.Candidate{{AgentID: "a", Similarity: 1, Eligible: true}}}, nil
}

func conflict(key string, have uint64) error {
	return vectord.Refuse(vectord.KindConflict, vectord.CodeVersionConflict, "state %q has version %d", key, have)
}

func (f *fakeScheduler) PutState(_ context.Context, key string, value []byte, w vectord.StateWrite) (vectord.State, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if have := f.states[key].Version; w.IfVersion != nil && *w.IfVersion != have {
		return vectord.State{}, conflict(key, have)
	}
	f.version++
	state := vectord.State{Key: key, Value: value, ContentType: w.ContentType, Version: f.version, UpdatedAt: 1000, ExpiresAt: vectord.Timestamp(1000 * w.TTLSeconds)}
	f.states[key] = state
	f.notify()
	return state, nil
}

func (f *fakeScheduler) State(ctx context.Context, key string, since uint64) (vectord.State, error) {
	for {
		f.mu.Lock()
		state, ok := f.states[key]
		changed := f.changed
		f.mu.Unlock()
		switch {
		case !ok:
			return state, vectord.Refuse(vectord.KindNotFound, vectord.CodeStateNotFound, "state %q does not exist", key)
		case state.Version > since:
			return state, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return state, nil
		}
	}
}

func (f *fakeScheduler) DeleteState(_ context.Context, key string, ifVersion *uint64) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	state, ok := f.states[key]
	if ifVersion != nil && *ifVersion != state.Version {
		return false, conflict(key, state.Version)
	}
	delete(f.states, key)
	return ok, nil
}

func (f *fakeScheduler) States(prefix, after string, limit int) (states []vectord.State, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(f.states)) {
		if strings.HasPrefix(key, prefix) && key > after && len(states) < limit {
			states = append(states, f.states[key])
		}
	}
	return states, nil
}
