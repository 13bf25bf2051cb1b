package client

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/server"
)

// said is what a scheduler was asked: a method's arguments.
type said []any

// mouthpiece is a scheduler that keeps what it was asked last and answers what the test says.
type mouthpiece struct {
	asked    said
	queue    vectord.QueueInfo
	answers  []vectord.Submitted
	tasks    []vectord.Task
	outcomes []vectord.CallOutcome
	decision vectord.Decision
	agent    vectord.Agent
	news     vectord.AgentNews
	state    vectord.State
	n        int
	err      error
}

func (m *mouthpiece) PutQueue(_ context.Context, name string, config vectord.QueueConfig) error {
	m.asked = said{name, config}
	return m.err
}
func (m *mouthpiece) Queue(name string) (vectord.QueueInfo, error) {
	m.asked = said{name}
	return m.queue, m.err
}
func (m *mouthpiece) Queues() []vectord.QueueInfo { return []vectord.QueueInfo{m.queue} }
func (m *mouthpiece) DeleteQueue(_ context.Context, name string, force bool) error {
	m.asked = said{name, force}
	return m.err
}
func (m *mouthpiece) Submit(_ context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
	m.asked = said{queue, tasks}
	return m.answers, m.err
}
func (m *mouthpiece) Lease(_ context.Context, r vectord.LeaseRequest) ([]vectord.Task, error) {
	m.asked = said{r}
	return m.tasks, m.err
}
func (m *mouthpiece) Call(_ context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	m.asked = said{calls}
	return m.outcomes, m.err
}
func (m *mouthpiece) Cancel(_ context.Context, id vectord.TaskID) (vectord.Task, error) {
	m.asked = said{id}
	return m.tasks[0], m.err
}
func (m *mouthpiece) GiveInput(_ context.Context, id vectord.TaskID, response []byte) (vectord.Task, error) {
	m.asked = said{id, string(response)}
	return m.tasks[0], m.err
}
func (m *mouthpiece) Task(id vectord.TaskID) (vectord.Task, error) {
	m.asked = said{id}
	return m.tasks[0], m.err
}
func (m *mouthpiece) TaskResult(_ context.Context, id vectord.TaskID) (vectord.Task, error) {
	m.asked = said{id}
	return m.tasks[0], m.err
}
func (m *mouthpiece) ScrollTasks(s vectord.TaskScroll) ([]vectord.Task, error) {
	m.asked = said{s}
	return m.tasks, m.err
}
func (m *mouthpiece) CountTasks(s vectord.TaskScroll) (int, error) {
	m.asked = said{s}
	return m.n, m.err
}
func (m *mouthpiece) Decisions(id vectord.TaskID) ([]vectord.Decision, error) {
	m.asked = said{id}
	return []vectord.Decision{m.decision}, m.err
}
func (m *mouthpiece) Redrive(_ context.Context, queue string, ids []vectord.TaskID) (int, error) {
	m.asked = said{queue, ids}
	return m.n, m.err
}
func (m *mouthpiece) Events(context.Context, string, vectord.TaskID, uint64, func(vectord.TaskEvent) error) error {
	return errors.New("the client has no events")
}
func (m *mouthpiece) RegisterAgent(_ context.Context, id string, config vectord.AgentConfig) error {
	m.asked = said{id, config}
	return m.err
}
func (m *mouthpiece) Agent(id string) (vectord.Agent, error) {
	m.asked = said{id}
	return m.agent, m.err
}
func (m *mouthpiece) Agents() []vectord.Agent { return []vectord.Agent{m.agent} }
func (m *mouthpiece) RemoveAgent(_ context.Context, id string) error {
	m.asked = said{id}
	return m.err
}
func (m *mouthpiece) HeartbeatAgent(id string, h vectord.AgentHeartbeat) (vectord.AgentNews, error) {
	m.asked = said{id, h}
	return m.news, m.err
}
func (m *mouthpiece) DrainAgent(_ context.Context, id string, drain bool) error {
	m.asked = said{id, drain}
	return m.err
}
func (m *mouthpiece) Route(_ context.Context, r vectord.RouteRequest) (vectord.Decision, error) {
	m.asked = said{r}
	return m.decision, m.err
}
func (m *mouthpiece) PutState(_ context.Context, key string, value []byte, w vectord.StateWrite) (vectord.State, error) {
	m.asked = said{key, string(value), w}
	return m.state, m.err
}
func (m *mouthpiece) State(_ context.Context, key string, since uint64) (vectord.State, error) {
	m.asked = said{key, since}
	return m.state, m.err
}
func (m *mouthpiece) DeleteState(_ context.Context, key string, ifVersion *uint64) (bool, error) {
	m.asked = said{key, ifVersion}
	return true, m.err
}
func (m *mouthpiece) States(prefix, after string, limit int) ([]vectord.State, error) {
	m.asked = said{prefix, after, limit}
	return []vectord.State{m.state}, m.err
}

// TestTasks sends every call to a server, and checks that it reads what was meant and that the client reads what it answers.
func TestTasks(t *testing.T) {
	m := &mouthpiece{}
	s := server.New(model.New(), server.Options{Scheduler: m, Logger: slog.New(slog.DiscardHandler)})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	defer func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	c, err := New("http://"+ln.Addr().String(), Options{Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	f := func(name string, got any, err error, want any, asked ...any) {
		t.Helper()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v\nwant %+v", name, got, err, want)
		}
		if len(asked) > 0 && !reflect.DeepEqual(m.asked, said(asked)) {
			t.Errorf("%s: the scheduler was asked %+v\nwant %+v", name, m.asked, asked)
		}
		m.asked = nil
	}

	config := vectord.DefaultQueueConfig()
	config.AgingSeconds, config.RateLimit = 0, vectord.RateLimit{PerSecond: 0.5, Burst: 3}
	m.queue = vectord.QueueInfo{Name: "q 1", Config: config, Counts: map[vectord.TaskStatus]int{vectord.TaskQueued: 2}, Agents: 1, OldestMS: 5}
	f("put queue", nil, c.PutQueue(ctx, "q 1", config), nil, "q 1", config)
	queue, err := c.Queue(ctx, "q 1")
	f("queue", queue, err, m.queue, "q 1")
	queues, err := c.Queues(ctx)
	f("queues", queues, err, []vectord.QueueInfo{m.queue})
	f("delete queue", nil, c.DeleteQueue(ctx, "q", true), nil, "q", true)

	nine, id, other := 9, vectord.TaskID{6: 0x70, 15: 1}, vectord.TaskID{6: 0x70, 15: 2}
	newTask := vectord.NewTask{Payload: json.RawMessage(`{"a":1}`), Type: "t", Vector: []float32{1, 0.1}, Tags: []string{"x"}, AgentID: "a", Priority: &nine,
		FairnessKey: "k", FairnessWeight: 0.5, RunAt: 1_700_000_000_123, Deadline: 1_800_000_000_000, TimeoutSeconds: 3, MaxAttempts: 2, IdempotencyKey: "i",
		DependsOn: []vectord.TaskID{other}, RunOnDependencyFailure: true, StateRefs: []string{"s"}, Metadata: json.RawMessage(`{"m":1}`), TraceParent: "00"}
	m.answers = []vectord.Submitted{{TaskID: id, Status: vectord.TaskBlocked, Admission: vectord.AdmissionBackpressure, RetryAfterMS: 7, Deduplicated: true, Position: 3, Durable: true},
		{Err: &vectord.Error{Kind: vectord.KindOverloaded, Code: vectord.CodeQueueFull, Text: "full", RetryAfter: time.Second}}}
	answers, err := c.Submit(ctx, "q", []vectord.NewTask{newTask, {IdempotencyKey: "j"}})
	f("submit", answers, err, []vectord.Submitted{m.answers[0], {Err: &Error{Text: "Too many requests: full", Code: vectord.CodeQueueFull, RetryAfter: time.Second}}},
		"q", []vectord.NewTask{newTask, {IdempotencyKey: "j"}})

	held := vectord.Task{ID: id, Queue: "q", Status: vectord.TaskRunning, NewTask: newTask, CreatedAt: 1, UpdatedAt: 2, Attempt: 1, Agent: "b", LeaseID: 1<<63 + 5,
		LeaseExpiresAt: 3, Progress: json.RawMessage(`1`), CancelRequested: true, WaitingReason: "w", InputRequest: json.RawMessage(`"?"`),
		InputResponse: json.RawMessage(`"!"`), Result: json.RawMessage(`[]`), Error: &vectord.TaskError{Code: "c", Message: "m"}, Durable: true}
	m.tasks = []vectord.Task{held}
	want := held
	want.Vector = nil
	lease := vectord.LeaseRequest{Queue: "q", AgentID: "b", MaxTasks: 2, WaitMS: 5, LeaseSeconds: 6}
	tasks, err := c.Lease(ctx, lease)
	f("lease", tasks, err, []vectord.Task{want}, lease)
	lease.Queue = ""
	tasks, err = c.Lease(ctx, lease)
	f("lease of all", tasks, err, []vectord.Task{want}, lease)
	task, err := c.Task(ctx, id)
	f("task", task, err, want, id)
	task, err = c.CancelTask(ctx, id)
	f("cancel", task, err, want, id)
	task, err = c.GiveInput(ctx, id, json.RawMessage(`"yes"`))
	f("give input", task, err, want, id, `"yes"`)
	task, err = c.TaskResult(ctx, id, time.Second)
	f("result", task, err, vectord.Task{ID: id, Status: held.Status, Attempt: 1, Progress: held.Progress, InputRequest: held.InputRequest, Result: held.Result, Error: held.Error}, id)
	scroll := vectord.TaskScroll{Queue: "q", Agent: "a", Status: []vectord.TaskStatus{vectord.TaskFailed, vectord.TaskQueued}, Type: "t", Tags: []string{"x"}, After: other, Limit: 1}
	tasks, next, err := c.ScrollTasks(ctx, scroll)
	f("scroll", tasks, err, []vectord.Task{want}, scroll)
	f("next", next, nil, &id)
	m.n = 5
	n, err := c.CountTasks(ctx, scroll)
	f("count", n, err, 5, scroll)
	n, err = c.Redrive(ctx, "q", []vectord.TaskID{id})
	f("redrive", n, err, 5, "q", []vectord.TaskID{id})
	n, err = c.Redrive(ctx, "q", nil)
	f("redrive all", n, err, 5, "q", []vectord.TaskID(nil))

	for _, call := range []vectord.TaskCall{
		{Kind: vectord.CallComplete, Result: json.RawMessage(`1`), Effects: vectord.Effects{
			Points: map[string][]vectord.Point{"c": {{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1}), Payload: []byte(`{"a":1}`)}, {ID: vectord.NumberID(2), Vectors: vectord.Unnamed([]float32{2})}}},
			Tasks:  map[string][]vectord.NewTask{"q": {newTask}}}},
		{Kind: vectord.CallFail, Error: vectord.TaskError{Code: "c", Message: "m"}, Final: true, RetryAfterMS: 5},
		{Kind: vectord.CallFail, Error: vectord.TaskError{Code: "c"}},
		{Kind: vectord.CallRelease},
		{Kind: vectord.CallHeartbeat, Extend: 9, Progress: json.RawMessage(`0.5`)},
		{Kind: vectord.CallRequestInput, Request: json.RawMessage(`"?"`)},
	} {
		call.ID, call.LeaseID = id, 7
		m.outcomes = []vectord.CallOutcome{{Status: vectord.TaskRunning, LeaseExpiresAt: 4, CancelRequested: call.Kind == vectord.CallHeartbeat, Tasks: []vectord.TaskID{other}}}
		outcome, err := c.CallTask(ctx, call)
		f("call", outcome, err, m.outcomes[0], []vectord.TaskCall{call})
	}
	calls := []vectord.TaskCall{{Kind: vectord.CallHeartbeat, ID: id, LeaseID: 1}, {Kind: vectord.CallHeartbeat, ID: other, LeaseID: 2}}
	m.outcomes = []vectord.CallOutcome{{Err: vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "gone")}, {Status: vectord.TaskRunning, LeaseExpiresAt: 4}}
	outcomes, err := c.HeartbeatTasks(ctx, calls)
	f("heartbeats", outcomes, err, []vectord.CallOutcome{{Err: &Error{Text: "Wrong input: gone", Code: vectord.CodeLeaseLost}}, m.outcomes[1]}, calls)
	if _, err := c.CallTask(ctx, vectord.TaskCall{}); err == nil {
		t.Error("a call without a kind was sent")
	}

	m.decision = vectord.Decision{AgentID: "a", Policy: vectord.Nearest, TookUS: 3, Fallback: "any", Threshold: 0.5, Attempt: 2,
		Candidates: []vectord.Candidate{{AgentID: "a", Similarity: 0.75, Load: vectord.AgentLoad{Score: 0.5}, Eligible: true}, {AgentID: "b", Reason: "at capacity 1/1"}}}
	decisions, err := c.Decisions(ctx, id)
	f("decisions", decisions, err, []vectord.Decision{m.decision}, id)
	route := vectord.RouteRequest{Queue: "q", Vector: []float32{1}, Tags: []string{"x"}, AgentID: "a", Limit: 2}
	decision, err := c.Route(ctx, route)
	f("route", decision, err, m.decision, route)

	agentConfig := vectord.AgentConfig{Queues: []string{"q"}, Vectors: [][]float32{{1, 0.1}}, Texts: []string{"t"}, Capabilities: []string{"gpu"}, Capacity: 2, LeaseTTLSeconds: 9,
		Transport: "pull", Labels: map[string]string{"zone": "x"}}
	f("register", nil, c.RegisterAgent(ctx, "a 1", agentConfig), nil, "a 1", agentConfig)
	m.agent = vectord.Agent{ID: "a 1", AgentConfig: agentConfig, Status: vectord.AgentDraining, InFlight: 1, Load: vectord.AgentLoad{Score: 0.25}, Completed: 1, Failed: 2, LastSeen: 3}
	wantAgent := m.agent
	wantAgent.Vectors = nil
	agent, err := c.Agent(ctx, "a 1")
	f("agent", agent, err, wantAgent, "a 1")
	agents, err := c.Agents(ctx)
	f("agents", agents, err, []vectord.Agent{wantAgent})
	m.news = vectord.AgentNews{Status: vectord.AgentActive, CancelRequested: []vectord.TaskID{id}}
	news, err := c.HeartbeatAgent(ctx, "a", vectord.AgentHeartbeat{LatencyMS: 1.5})
	f("heartbeat", news, err, m.news, "a", vectord.AgentHeartbeat{LatencyMS: 1.5})
	f("drain", nil, c.DrainAgent(ctx, "a", true), nil, "a", true)
	f("resume", nil, c.DrainAgent(ctx, "a", false), nil, "a", false)
	f("remove", nil, c.RemoveAgent(ctx, "a"), nil, "a")

	m.state = vectord.State{Key: "a/b", Value: []byte("v"), ContentType: "text/plain", Version: 5, UpdatedAt: 2000, ExpiresAt: 9, Refs: 1}
	one, none := uint64(1), uint64(0)
	for _, w := range []vectord.StateWrite{{}, {ContentType: "text/plain", TTLSeconds: 60}, {IfVersion: &one}, {IfVersion: &none}} {
		state, err := c.PutState(ctx, "a/b", []byte("v"), w)
		f("put state", state, err, m.state, "a/b", "v", w)
	}
	state, changed, err := c.State(ctx, "a/b", 4, time.Millisecond)
	f("state", state, err, vectord.State{Key: "a/b", Value: []byte("v"), ContentType: "text/plain", Version: 5, UpdatedAt: 2000}, "a/b", uint64(4))
	f("changed", changed, nil, true)
	state, changed, err = c.State(ctx, "a/b", 5, 0)
	f("same state", state, err, vectord.State{Key: "a/b", Version: 5}, "a/b", uint64(5))
	f("unchanged", changed, nil, false)
	existed, err := c.DeleteState(ctx, "a/b", &one)
	f("delete state", existed, err, true, "a/b", &one)
	states, err := c.States(ctx, "a/", "a/a", 7)
	wantState := m.state
	wantState.Value = nil
	f("states", states, err, []vectord.State{wantState}, "a/", "a/a", 7)

	m.err = vectord.Refuse(vectord.KindNotFound, vectord.CodeTaskNotFound, "no such task")
	if _, err := c.Task(ctx, id); StatusOf(err) != 404 || CodeOf(err) != vectord.CodeTaskNotFound {
		t.Errorf("%v has status %d and code %s", err, StatusOf(err), CodeOf(err))
	}
	if CodeOf(io.EOF) != "" {
		t.Error("an error of another kind has a code")
	}
}

// TestOnce checks what is not sent again when the connection fails.
func TestOnce(t *testing.T) {
	sent := 0
	c := newTestClient(t, Options{Attempts: 2}, func(*http.Request) (*http.Response, error) {
		sent++
		return nil, io.ErrUnexpectedEOF
	})
	version := uint64(1)
	f := func(name string, want int, call func() error) {
		t.Helper()
		sent = 0
		if err := call(); !errors.Is(err, io.ErrUnexpectedEOF) || !errors.Is(err, ErrOutcomeUnknown) || sent != want {
			t.Errorf("%s was sent %d times, %v", name, sent, err)
		}
	}
	submit := func(tasks ...vectord.NewTask) func() error {
		return func() error { _, err := c.Submit(t.Context(), "q", tasks); return err }
	}
	f("tasks with keys", 2, submit(vectord.NewTask{IdempotencyKey: "a"}, vectord.NewTask{IdempotencyKey: "b"}))
	f("a task without", 2, submit(vectord.NewTask{IdempotencyKey: "a"}, vectord.NewTask{}))
	f("a write", 2, func() error { _, err := c.PutState(t.Context(), "k", nil, vectord.StateWrite{}); return err })
	f("a write of a version", 1, func() error {
		_, err := c.PutState(t.Context(), "k", nil, vectord.StateWrite{IfVersion: &version})
		return err
	})
	f("a collection", 1, func() error {
		return c.CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(2, vectord.Cosine))
	})
	f("the end of a collection", 1, func() error { _, err := c.DeleteCollection(t.Context(), "c"); return err })
	f("an answer", 1, func() error { _, err := c.GiveInput(t.Context(), vectord.TaskID{}, nil); return err })
	f("a redrive", 1, func() error { _, err := c.Redrive(t.Context(), "q", nil); return err })
	f("a use", 1, func() error { _, err := c.TouchMemories(t.Context(), "c", nil); return err })
	f("a call of a task", 2, func() error {
		_, err := c.CallTask(t.Context(), vectord.TaskCall{Kind: vectord.CallComplete})
		return err
	})
}
