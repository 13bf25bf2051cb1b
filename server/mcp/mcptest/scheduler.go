// Package mcptest has a scheduler in memory, as simple as one can be, for tests of package mcpserver. It routes to whoever asks
// first, forgets nothing, and never lets a lease expire.
package mcptest

import (
	"cmp"
	"context"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/vectord/vectord"
)

// Scheduler implements mcpserver.Scheduler. Its methods may be called at the same time.
type Scheduler struct {
	mu      sync.Mutex // guards the rest
	changed chan struct{}
	tasks   map[vectord.TaskID]*vectord.Task
	order   []vectord.TaskID // as they were submitted
	agents  map[string]vectord.Agent
	states  map[string]vectord.State
	leases  vectord.LeaseID
	version uint64
}

// New returns a scheduler without tasks.
func New() *Scheduler {
	return &Scheduler{changed: make(chan struct{}), tasks: map[vectord.TaskID]*vectord.Task{}, agents: map[string]vectord.Agent{}, states: map[string]vectord.State{}}
}

func now() vectord.Timestamp { return vectord.Timestamp(time.Now().UnixMilli()) }

// change wakes whoever waits. s.mu is held.
func (s *Scheduler) change(t *vectord.Task) {
	t.UpdatedAt = now()
	close(s.changed)
	s.changed = make(chan struct{})
}

// await calls done, with s.mu held, until it returns true or ctx ends.
func (s *Scheduler) await(ctx context.Context, done func() bool) {
	for {
		s.mu.Lock()
		finished, changed := done(), s.changed
		s.mu.Unlock()
		if finished {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// find returns a task. s.mu is held.
func (s *Scheduler) find(id vectord.TaskID) (*vectord.Task, error) {
	if t, ok := s.tasks[id]; ok {
		return t, nil
	}
	return nil, vectord.Refuse(vectord.KindNotFound, vectord.CodeTaskNotFound, "there is no task %v", id)
}

// Queue returns any queue, with the default configuration.
func (s *Scheduler) Queue(name string) (vectord.QueueInfo, error) {
	return vectord.QueueInfo{Name: name, Config: vectord.DefaultQueueConfig()}, nil
}

// Submit accepts tasks.
func (s *Scheduler) Submit(_ context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := make([]vectord.Submitted, len(tasks))
	for i, t := range tasks {
		answers[i] = s.submit(queue, t)
	}
	return answers, nil
}

func (s *Scheduler) submit(queue string, n vectord.NewTask) vectord.Submitted {
	waiting := 0
	for _, t := range s.tasks {
		if n.IdempotencyKey != "" && t.Queue == queue && t.IdempotencyKey == n.IdempotencyKey {
			return vectord.Submitted{TaskID: t.ID, Status: t.Status, Admission: vectord.AdmissionOK, Deduplicated: true, Durable: true}
		}
		if t.Queue == queue && t.Status == vectord.TaskQueued {
			waiting++
		}
	}
	t := &vectord.Task{Queue: queue, Status: vectord.TaskQueued, NewTask: n, CreatedAt: now(), Durable: true}
	t.ID[6], t.ID[8] = 0x70, 0x80
	binary.BigEndian.PutUint32(t.ID[12:], uint32(len(s.order)+1))
	s.tasks[t.ID], s.order = t, append(s.order, t.ID)
	s.change(t)
	return vectord.Submitted{TaskID: t.ID, Status: t.Status, Admission: vectord.AdmissionOK, Position: waiting + 1, Durable: true}
}

// Lease gives out tasks in the order in which they were submitted.
func (s *Scheduler) Lease(ctx context.Context, r vectord.LeaseRequest) (leased []vectord.Task, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.WaitMS)*time.Millisecond)
	defer cancel()
	s.await(ctx, func() bool {
		agent, ok := s.agents[r.AgentID]
		if !ok {
			err = vectord.Refuse(vectord.KindNotFound, vectord.CodeAgentNotFound, "there is no agent %q", r.AgentID)
			return true
		}
		for _, id := range s.order {
			t := s.tasks[id]
			if t.Status != vectord.TaskQueued || r.Queue != "" && t.Queue != r.Queue || !slices.Contains(agent.Queues, t.Queue) || len(leased) == cmp.Or(r.MaxTasks, 1) {
				continue
			}
			s.leases++
			t.Status, t.Agent, t.LeaseID, t.LeaseExpiresAt = vectord.TaskRunning, r.AgentID, s.leases, now()+60_000
			t.Attempt++
			leased = append(leased, *t)
		}
		return len(leased) > 0
	})
	return leased, err
}

// Call does what the holders of leases say.
func (s *Scheduler) Call(_ context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answers := make([]vectord.CallOutcome, len(calls))
	for i := range calls {
		answers[i] = s.call(&calls[i])
	}
	return answers, nil
}

func (s *Scheduler) call(c *vectord.TaskCall) (out vectord.CallOutcome) {
	t, err := s.find(c.ID)
	if err != nil {
		return vectord.CallOutcome{Err: err}
	}
	if t.Status != vectord.TaskRunning || t.LeaseID != c.LeaseID {
		return vectord.CallOutcome{Err: vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "task %v is not held by lease %v", c.ID, c.LeaseID)}
	}
	switch c.Kind {
	case vectord.CallComplete:
		t.Status, t.Result = vectord.TaskCompleted, c.Result
		for _, queue := range slices.Sorted(maps.Keys(c.Effects.Tasks)) {
			for _, n := range c.Effects.Tasks[queue] {
				out.Tasks = append(out.Tasks, s.submit(queue, n).TaskID)
			}
		}
	case vectord.CallFail:
		t.Error = &c.Error
		if t.Status = vectord.TaskQueued; c.Final {
			t.Status = vectord.TaskFailed
		}
	case vectord.CallRequestInput:
		t.Status, t.InputRequest, t.InputResponse = vectord.TaskInputRequired, c.Request, nil
	}
	if t.Status == vectord.TaskRunning && t.CancelRequested {
		t.Status = vectord.TaskCancelled
	}
	t.LeaseID, t.LeaseExpiresAt = 0, 0
	s.change(t)
	out.Status = t.Status
	return out
}

// Cancel cancels a task at once, that of an agent too.
func (s *Scheduler) Cancel(_ context.Context, id vectord.TaskID) (vectord.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(id)
	if err != nil {
		return vectord.Task{}, err
	}
	if t.Status.Terminal() {
		return vectord.Task{}, vectord.Refuse(vectord.KindConflict, vectord.CodeTaskTerminal, "task %v has ended", id)
	}
	t.Status, t.LeaseID, t.LeaseExpiresAt = vectord.TaskCancelled, 0, 0
	s.change(t)
	return *t, nil
}

// GiveInput puts a task that asked back into its queue.
func (s *Scheduler) GiveInput(_ context.Context, id vectord.TaskID, response []byte) (vectord.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(id)
	if err != nil {
		return vectord.Task{}, err
	}
	t.Status, t.InputRequest, t.InputResponse = vectord.TaskQueued, nil, slices.Clone(response)
	s.change(t)
	return *t, nil
}

// Task returns a task.
func (s *Scheduler) Task(id vectord.TaskID) (vectord.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := s.find(id)
	if err != nil {
		return vectord.Task{}, err
	}
	return *t, nil
}

// TaskResult waits for the end of a task.
func (s *Scheduler) TaskResult(ctx context.Context, id vectord.TaskID) (out vectord.Task, err error) {
	s.await(ctx, func() bool {
		var t *vectord.Task
		if t, err = s.find(id); err != nil {
			return true
		}
		out = *t
		return t.Status.Terminal()
	})
	return out, err
}

// Decisions returns one for each task that an agent has or had.
func (s *Scheduler) Decisions(id vectord.TaskID) ([]vectord.Decision, error) {
	t, err := s.Task(id)
	if err != nil || t.Agent == "" {
		return []vectord.Decision{}, err
	}
	return []vectord.Decision{decision(t.Agent)}, nil
}

func decision(agent string) vectord.Decision {
	return vectord.Decision{AgentID: agent, Policy: vectord.RoundRobin, Attempt: 1,
		Candidates: []vectord.Candidate{{AgentID: agent, Eligible: true}}}
}

// Route decides for the first agent that serves the queue.
func (s *Scheduler) Route(_ context.Context, r vectord.RouteRequest) (vectord.Decision, error) {
	for _, a := range s.Agents() {
		if slices.Contains(a.Queues, r.Queue) {
			return decision(a.ID), nil
		}
	}
	return vectord.Decision{Policy: vectord.RoundRobin, Candidates: []vectord.Candidate{}}, nil
}

// RegisterAgent notes an agent.
func (s *Scheduler) RegisterAgent(_ context.Context, id string, config vectord.AgentConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	config.Capacity, config.LeaseTTLSeconds, config.Transport = cmp.Or(config.Capacity, 1), cmp.Or(config.LeaseTTLSeconds, 30), cmp.Or(config.Transport, "pull")
	s.agents[id] = vectord.Agent{ID: id, AgentConfig: config, Status: vectord.AgentActive, LastSeen: now()}
	return nil
}

// Agent returns an agent.
func (s *Scheduler) Agent(id string) (vectord.Agent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a, ok := s.agents[id]; ok {
		return a, nil
	}
	return vectord.Agent{}, vectord.Refuse(vectord.KindNotFound, vectord.CodeAgentNotFound, "there is no agent %q", id)
}

// Agents returns the agents by id.
func (s *Scheduler) Agents() []vectord.Agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	agents := []vectord.Agent{}
	for _, id := range slices.Sorted(maps.Keys(s.agents)) {
		agents = append(agents, s.agents[id])
	}
	return agents
}

// PutState writes a state.
func (s *Scheduler) PutState(_ context.Context, key string, value []byte, w vectord.StateWrite) (vectord.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.IfVersion != nil && s.states[key].Version != *w.IfVersion {
		return vectord.State{}, vectord.Refuse(vectord.KindConflict, vectord.CodeVersionConflict, "state %q has another version", key)
	}
	s.version++
	s.states[key] = vectord.State{Key: key, Value: slices.Clone(value), ContentType: w.ContentType, Version: s.version, UpdatedAt: now()}
	return s.states[key], nil
}

// State returns a state at once.
func (s *Scheduler) State(_ context.Context, key string, _ uint64) (vectord.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if state, ok := s.states[key]; ok {
		return state, nil
	}
	return vectord.State{}, vectord.Refuse(vectord.KindNotFound, vectord.CodeStateNotFound, "there is no state %q", key)
}

// DeleteState deletes a state of any version.
func (s *Scheduler) DeleteState(_ context.Context, key string, _ *uint64) (existed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, existed = s.states[key]
	delete(s.states, key)
	return existed, nil
}
