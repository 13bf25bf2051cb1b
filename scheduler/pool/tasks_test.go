package pool

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

// within bounds every wait of these tests. Nothing waits for it unless something is wrong.
const within = 30 * time.Second

// memory is Tasks in memory: one queue, tasks in their order, attempts without a pause between them.
type memory struct {
	mu        sync.Mutex
	changed   chan struct{} // guarded by mu: closed at the next change
	lastLease vectord.LeaseID
	tasks     map[vectord.TaskID]*vectord.Task
	queue     []vectord.TaskID
	agents    map[string]vectord.AgentConfig
	reasons   []string // of EndLeases
	leaseTime time.Duration
	failCalls int            // how many calls are answered with a timeout first
	worked    map[string]int // tasks leased, by agent
}

func newMemory() *memory {
	return &memory{changed: make(chan struct{}), tasks: map[vectord.TaskID]*vectord.Task{}, agents: map[string]vectord.AgentConfig{},
		leaseTime: time.Minute, worked: map[string]int{}}
}

// change does fn and wakes who waits.
func (m *memory) change(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
	close(m.changed)
	m.changed = make(chan struct{})
}

// await returns when done does, which is called under mu at each change.
func (m *memory) await(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.After(within)
	for {
		m.mu.Lock()
		ok, changed := done(), m.changed
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// submit queues a task with a payload.
func (m *memory) submit(payload string) vectord.TaskID {
	return m.submitTask(vectord.NewTask{Payload: json.RawMessage(payload)})
}

func (m *memory) submitTask(n vectord.NewTask) (id vectord.TaskID) {
	m.change(func() {
		n := n
		if n.MaxAttempts == 0 {
			n.MaxAttempts = 3
		}
		id[0], id[14], id[15] = 1, byte(len(m.tasks)>>8), byte(len(m.tasks))
		m.tasks[id] = &vectord.Task{ID: id, Queue: "q", NewTask: n, Status: vectord.TaskQueued, CreatedAt: vectord.Timestamp(time.Now().UnixMilli())}
		m.queue = append(m.queue, id)
	})
	return id
}

// result waits for the end of a task.
func (m *memory) result(t testing.TB, id vectord.TaskID) vectord.Task {
	t.Helper()
	m.await(t, fmt.Sprintf("the end of task %s", id), func() bool { return m.tasks[id].Status.Terminal() })
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.tasks[id]
}

// running waits until a task has an agent.
func (m *memory) running(t testing.TB, id vectord.TaskID) {
	t.Helper()
	m.await(t, "a task to run", func() bool { return m.tasks[id].Status == vectord.TaskRunning })
}

func (m *memory) RegisterAgent(_ context.Context, id string, c vectord.AgentConfig) error {
	if err := cmp.Or(vectord.CheckName("agent_id", id), c.Check()); err != nil {
		return err
	}
	m.change(func() { m.agents[id] = c })
	return nil
}

func (m *memory) RemoveAgent(ctx context.Context, id string) error {
	_ = m.end(id, "removed", false)
	m.change(func() { delete(m.agents, id) })
	return nil
}

func (m *memory) EndLeases(_ context.Context, id, reason string) error {
	return m.end(id, reason, true)
}

func (m *memory) end(id, reason string, tell bool) error {
	m.change(func() {
		if tell {
			m.reasons = append(m.reasons, reason)
		}
		for _, t := range m.tasks {
			if t.Agent == id && t.Status == vectord.TaskRunning {
				m.fail(t, vectord.TaskError{Code: vectord.ErrorAgentDied, Message: reason}, t.CancelRequested)
			}
		}
	})
	return nil
}

// fail ends an attempt.
func (m *memory) fail(t *vectord.Task, why vectord.TaskError, final bool) {
	t.Error, t.LeaseID, t.Status = &why, 0, vectord.TaskQueued
	switch {
	case t.CancelRequested:
		t.Status = vectord.TaskCancelled
	case final || t.Attempt >= t.MaxAttempts:
		t.Status = vectord.TaskFailed
	default:
		m.queue = append(m.queue, t.ID)
	}
}

func (m *memory) HeartbeatAgent(id string, _ vectord.AgentHeartbeat) (news vectord.AgentNews, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.agents[id]; !ok {
		return news, vectord.Refuse(vectord.KindNotFound, vectord.CodeAgentNotFound, "no agent %s", id)
	}
	for _, t := range m.tasks {
		if t.Agent == id && t.Status == vectord.TaskRunning && t.CancelRequested {
			news.CancelRequested = append(news.CancelRequested, t.ID)
		}
	}
	return news, nil
}

func (m *memory) Lease(ctx context.Context, r vectord.LeaseRequest) (leased []vectord.Task, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(r.WaitMS)*time.Millisecond)
	defer cancel()
	for {
		m.mu.Lock()
		if _, ok := m.agents[r.AgentID]; !ok {
			err = vectord.Refuse(vectord.KindNotFound, vectord.CodeAgentNotFound, "no agent %s", r.AgentID)
		}
		for err == nil && ctx.Err() == nil && len(m.queue) > 0 && len(leased) < r.MaxTasks {
			t := m.tasks[m.queue[0]]
			m.queue = m.queue[1:]
			m.lastLease++
			t.Attempt++
			t.Status, t.Agent, t.LeaseID, t.LeaseExpiresAt = vectord.TaskRunning, r.AgentID, m.lastLease, vectord.Timestamp(time.Now().Add(m.leaseTime).UnixMilli())
			m.worked[r.AgentID]++
			leased = append(leased, *t)
		}
		changed := m.changed
		m.mu.Unlock()
		if len(leased) > 0 {
			m.change(func() {})
		}
		if err != nil || len(leased) > 0 || ctx.Err() != nil {
			return leased, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (m *memory) Call(_ context.Context, calls []vectord.TaskCall) (outcomes []vectord.CallOutcome, err error) {
	m.change(func() {
		if m.failCalls > 0 {
			m.failCalls--
			err = vectord.Errorf(vectord.KindTimeout, "no answer")
			return
		}
		for _, c := range calls {
			t := m.tasks[c.ID]
			if t.Status != vectord.TaskRunning || t.LeaseID != c.LeaseID {
				outcomes = append(outcomes, vectord.CallOutcome{Err: vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "lease lost")})
				continue
			}
			switch c.Kind {
			case vectord.CallComplete:
				t.Status, t.Result = vectord.TaskCompleted, c.Result
			case vectord.CallFail:
				m.fail(t, c.Error, c.Final)
			case vectord.CallRelease:
				t.Attempt--
				t.Status, t.LeaseID = vectord.TaskQueued, 0
				m.queue = append(m.queue, t.ID)
			case vectord.CallHeartbeat:
				t.LeaseExpiresAt = vectord.Timestamp(time.Now().Add(m.leaseTime).UnixMilli())
				if c.Progress != nil {
					t.Progress = c.Progress
				}
			}
			outcomes = append(outcomes, vectord.CallOutcome{Status: t.Status, LeaseExpiresAt: t.LeaseExpiresAt, CancelRequested: t.CancelRequested})
		}
	})
	return outcomes, err
}

func (m *memory) names() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for id := range m.agents {
		names = append(names, id)
	}
	slices.Sort(names)
	return names
}
