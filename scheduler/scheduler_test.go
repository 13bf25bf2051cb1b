package scheduler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/scheduler"
)

var background = context.Background()

func open(t testing.TB, dir string) (*node.Node, *scheduler.Scheduler) {
	t.Helper()
	n, err := node.Open(node.Config{DataDir: dir, Logger: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return n, n.Tasks()
}

func start(t testing.TB) *scheduler.Scheduler {
	n, s := open(t, t.TempDir())
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// submit submits one task that must be accepted.
func submit(t testing.TB, s *scheduler.Scheduler, queue string, n vectord.NewTask) vectord.Submitted {
	t.Helper()
	out, err := s.Submit(background, queue, []vectord.NewTask{n})
	must(t, err)
	must(t, out[0].Err)
	return out[0]
}

func register(t testing.TB, s *scheduler.Scheduler, id string, c vectord.AgentConfig) {
	t.Helper()
	if c.Queues == nil {
		c.Queues = []string{"q"}
	}
	must(t, s.RegisterAgent(background, id, c))
}

func lease(t testing.TB, s *scheduler.Scheduler, agent string, n int, wait int64) []vectord.Task {
	t.Helper()
	tasks, err := s.Lease(background, vectord.LeaseRequest{AgentID: agent, MaxTasks: n, WaitMS: wait})
	must(t, err)
	return tasks
}

func call(t testing.TB, s *scheduler.Scheduler, c vectord.TaskCall) vectord.CallOutcome {
	t.Helper()
	out, err := s.Call(background, []vectord.TaskCall{c})
	must(t, err)
	return out[0]
}

func complete(t testing.TB, s *scheduler.Scheduler, task vectord.Task, result string) {
	t.Helper()
	must(t, call(t, s, vectord.TaskCall{Kind: vectord.CallComplete, ID: task.ID, LeaseID: task.LeaseID, Result: json.RawMessage(result)}).Err)
}

func wantCode(t testing.TB, err error, want vectord.Code) {
	t.Helper()
	if vectord.CodeOf(err) != want {
		t.Errorf("got %v (code %q), want code %q", err, vectord.CodeOf(err), want)
	}
}

func TestLife(t *testing.T) {
	dir := t.TempDir()
	n, s := open(t, dir)
	register(t, s, "a", vectord.AgentConfig{Capacity: 2})
	first := submit(t, s, "q", vectord.NewTask{Payload: json.RawMessage(`{"n":1}`), Metadata: json.RawMessage(`{"m":2}`)})
	if first.Status != vectord.TaskQueued || first.Admission != vectord.AdmissionOK || first.Position != 1 || !first.Durable {
		t.Errorf("submitted: %+v", first)
	}
	tasks := lease(t, s, "a", 5, 0)
	if len(tasks) != 1 || tasks[0].ID != first.TaskID || string(tasks[0].Payload) != `{"n":1}` || tasks[0].Attempt != 1 || tasks[0].Agent != "a" {
		t.Fatalf("leased: %+v", tasks)
	}
	waited := make(chan vectord.Task)
	go func() {
		task, err := s.TaskResult(background, first.TaskID)
		if err != nil {
			t.Error(err)
		}
		waited <- task
	}()
	complete(t, s, tasks[0], `{"answer":42}`)
	if task := <-waited; task.Status != vectord.TaskCompleted || string(task.Result) != `{"answer":42}` {
		t.Errorf("result: %+v", task)
	}
	complete(t, s, tasks[0], `{"answer":42}`) // repeated
	wantCode(t, call(t, s, vectord.TaskCall{Kind: vectord.CallComplete, ID: first.TaskID, LeaseID: tasks[0].LeaseID, Result: json.RawMessage(`1`)}).Err, vectord.CodeTaskTerminal)
	wantCode(t, call(t, s, vectord.TaskCall{Kind: vectord.CallFail, ID: first.TaskID, LeaseID: tasks[0].LeaseID + 1, Error: vectord.TaskError{Code: "x"}}).Err, vectord.CodeLeaseLost)

	// A poll that waits gets a task at once.
	got := make(chan []vectord.Task)
	go func() { got <- lease(t, s, "a", 1, 10_000) }()
	second := submit(t, s, "q", vectord.NewTask{Payload: json.RawMessage(`2`)})
	held := <-got
	if len(held) != 1 || held[0].ID != second.TaskID {
		t.Fatalf("polled: %+v", held)
	}
	third := submit(t, s, "q", vectord.NewTask{Payload: json.RawMessage(`3`), Priority: new(int)})
	must(t, n.Close())

	// What was acknowledged is there after a restart, and the lease holds.
	n, s = open(t, dir)
	defer n.Close()
	if task, err := s.Task(first.TaskID); err != nil || task.Status != vectord.TaskCompleted || string(task.Result) != `{"answer":42}` || string(task.Payload) != `{"n":1}` {
		t.Errorf("after a restart: %+v, %v", task, err)
	}
	complete(t, s, held[0], `"done"`)
	again := lease(t, s, "a", 5, 0)
	if len(again) != 1 || again[0].ID != third.TaskID || again[0].LeaseID <= held[0].LeaseID {
		t.Fatalf("after a restart: %+v", again)
	}
	info, err := s.Queue("q")
	if err != nil || info.Counts[vectord.TaskRunning] != 1 || info.Counts[vectord.TaskQueued] != 0 {
		t.Errorf("queue: %+v, %v", info, err)
	}
	list, err := s.ScrollTasks(vectord.TaskScroll{Queue: "q"})
	if err != nil || len(list) != 3 {
		t.Errorf("scrolled: %+v, %v", list, err)
	}
}

func TestFailures(t *testing.T) {
	s := start(t)
	config := vectord.DefaultQueueConfig()
	config.MaxAttempts, config.Backoff = 2, vectord.Backoff{InitialMS: 1, Factor: 1, MaxMS: 1}
	must(t, s.PutQueue(background, "q", config))
	register(t, s, "a", vectord.AgentConfig{})
	id := submit(t, s, "q", vectord.NewTask{}).TaskID
	for attempt := 1; attempt <= 2; attempt++ {
		task := lease(t, s, "a", 1, 10_000)[0]
		if task.Attempt != attempt {
			t.Errorf("attempt %d, want %d", task.Attempt, attempt)
		}
		must(t, call(t, s, vectord.TaskCall{Kind: vectord.CallFail, ID: id, LeaseID: task.LeaseID, Error: vectord.TaskError{Code: "broken", Message: "it is"}}).Err)
	}
	task, err := s.TaskResult(background, id)
	if err != nil || task.Status != vectord.TaskFailed || task.Error.Code != "broken" {
		t.Fatalf("%+v, %v", task, err)
	}
	if n, err := s.Redrive(background, "q", nil); n != 1 || err != nil {
		t.Fatalf("redriven: %d, %v", n, err)
	}
	leased := lease(t, s, "a", 1, 10_000)[0]
	if leased.Attempt != 3 {
		t.Errorf("attempt %d after the redrive", leased.Attempt)
	}
	must(t, s.EndLeases(background, "a", "killed"))
	leased = lease(t, s, "a", 1, 10_000)[0]
	if leased.Error == nil || leased.Error.Code != vectord.ErrorAgentDied {
		t.Errorf("after the agent's death: %+v", leased)
	}
	if task, err = s.Cancel(background, id); err != nil || !task.CancelRequested || task.Status != vectord.TaskRunning {
		t.Errorf("cancelled: %+v, %v", task, err)
	}
	if news, err := s.HeartbeatAgent("a", vectord.AgentHeartbeat{}); err != nil || len(news.CancelRequested) != 1 {
		t.Errorf("news: %+v, %v", news, err)
	}
	must(t, call(t, s, vectord.TaskCall{Kind: vectord.CallRelease, ID: id, LeaseID: leased.LeaseID}).Err)
	if task, err = s.Task(id); err != nil || task.Status != vectord.TaskCancelled {
		t.Errorf("released: %+v, %v", task, err)
	}
}

func TestIdempotencyAndAdmission(t *testing.T) {
	s := start(t)
	config := vectord.DefaultQueueConfig()
	config.MaxDepth, config.MaxOverflow, config.DropPolicy = 2, 2, vectord.EvictLowest
	must(t, s.PutQueue(background, "q", config))
	low := 1
	task := vectord.NewTask{Payload: json.RawMessage(`1`), IdempotencyKey: "k", Priority: &low}
	first := submit(t, s, "q", task)
	if again := submit(t, s, "q", task); again.TaskID != first.TaskID || !again.Deduplicated {
		t.Errorf("repeated: %+v", again)
	}
	task.Payload = json.RawMessage(`2`)
	out, err := s.Submit(background, "q", []vectord.NewTask{task, {Priority: &low}, {Priority: &low}, {Priority: &low}, {Priority: &low}})
	must(t, err)
	wantCode(t, out[0].Err, vectord.CodeKeyReused)
	if out[1].Admission != vectord.AdmissionOK || out[2].Admission != vectord.AdmissionBackpressure || out[3].Admission != vectord.AdmissionBackpressure {
		t.Errorf("admissions: %+v", out)
	}
	wantCode(t, out[4].Err, vectord.CodeQueueFull)
	submit(t, s, "q", vectord.NewTask{}) // of higher priority
	evicted, err := s.Task(out[3].TaskID)
	if err != nil || evicted.Status != vectord.TaskFailed || evicted.Error.Code != vectord.ErrorEvicted {
		t.Errorf("the youngest of the lowest: %+v, %v", evicted, err)
	}
}

func TestDependencies(t *testing.T) {
	s := start(t)
	register(t, s, "a", vectord.AgentConfig{Capacity: 10})
	parent := submit(t, s, "q", vectord.NewTask{})
	child := submit(t, s, "q", vectord.NewTask{DependsOn: []vectord.TaskID{parent.TaskID}})
	grandchild := submit(t, s, "q", vectord.NewTask{DependsOn: []vectord.TaskID{child.TaskID}})
	stubborn := submit(t, s, "q", vectord.NewTask{DependsOn: []vectord.TaskID{grandchild.TaskID}, RunOnDependencyFailure: true})
	if child.Status != vectord.TaskBlocked {
		t.Errorf("child: %+v", child)
	}
	complete(t, s, lease(t, s, "a", 10, 0)[0], `1`)
	held := lease(t, s, "a", 10, 0)
	if len(held) != 1 || held[0].ID != child.TaskID {
		t.Fatalf("unblocked: %+v", held)
	}
	must(t, call(t, s, vectord.TaskCall{Kind: vectord.CallFail, Final: true, ID: child.TaskID, LeaseID: held[0].LeaseID, Error: vectord.TaskError{Code: "x"}}).Err)
	if task, _ := s.Task(grandchild.TaskID); task.Status != vectord.TaskFailed || task.Error.Code != vectord.ErrorDependencyFailed {
		t.Errorf("grandchild: %+v", task)
	}
	if held = lease(t, s, "a", 10, 0); len(held) != 1 || held[0].ID != stubborn.TaskID {
		t.Errorf("which runs all the same: %+v", held)
	}
	out, err := s.Submit(background, "q", []vectord.NewTask{{DependsOn: []vectord.TaskID{{1}}}})
	must(t, err)
	wantCode(t, out[0].Err, vectord.CodeTaskNotFound)
}

func TestRouting(t *testing.T) {
	s := start(t)
	register(t, s, "x", vectord.AgentConfig{Vectors: [][]float32{{1, 0}}})
	register(t, s, "y", vectord.AgentConfig{Vectors: [][]float32{{0, 2}}, Capabilities: []string{"gpu"}})
	east := submit(t, s, "q", vectord.NewTask{Vector: []float32{3, 0.1}})
	if tasks := lease(t, s, "y", 1, 0); len(tasks) != 0 {
		t.Errorf("the far agent got %+v", tasks)
	}
	d, err := s.Route(background, vectord.RouteRequest{Queue: "q", Vector: []float32{0.1, 1}})
	if err != nil || d.AgentID != "y" || len(d.Candidates) != 2 || d.Candidates[1].Reason == "" {
		t.Errorf("route: %+v, %v", d, err)
	}
	tasks := lease(t, s, "x", 1, 0)
	if len(tasks) != 1 || tasks[0].ID != east.TaskID {
		t.Fatalf("the near agent got %+v", tasks)
	}
	decisions, err := s.Decisions(east.TaskID)
	if err != nil || len(decisions) != 1 || decisions[0].AgentID != "x" || decisions[0].Candidates[0].Similarity < 0.99 {
		t.Errorf("decisions: %+v, %v", decisions, err)
	}
	submit(t, s, "q", vectord.NewTask{Tags: []string{"gpu"}})
	if tasks := lease(t, s, "y", 1, 0); len(tasks) != 1 {
		t.Errorf("the agent with the tag got %+v", tasks)
	}
	out, err := s.Submit(background, "q", []vectord.NewTask{{Vector: []float32{1, 2, 3}}})
	must(t, err)
	wantCode(t, out[0].Err, vectord.CodeDimensionMismatch)
}

func TestMemoryQueue(t *testing.T) {
	s := start(t)
	config := vectord.DefaultQueueConfig()
	config.Durability = vectord.InMemory
	must(t, s.PutQueue(background, "q", config))
	register(t, s, "a", vectord.AgentConfig{Capacity: 100})
	var tasks []vectord.NewTask
	for i := range 50 {
		tasks = append(tasks, vectord.NewTask{Payload: fmt.Appendf(nil, "%d", i)})
	}
	out, err := s.Submit(background, "q", tasks)
	must(t, err)
	if out[0].Durable {
		t.Error("a task in memory is said to be durable")
	}
	held := lease(t, s, "a", 100, 0)
	if len(held) != 50 {
		t.Fatalf("leased %d", len(held))
	}
	for i, task := range held {
		if string(task.Payload) != fmt.Sprint(i) {
			t.Errorf("task %d has payload %s", i, task.Payload)
		}
		complete(t, s, task, `1`)
	}
	if task, err := s.Task(held[7].ID); err != nil || task.Status != vectord.TaskCompleted {
		t.Errorf("%+v, %v", task, err)
	}
}

func TestStates(t *testing.T) {
	s := start(t)
	value := make([]byte, 3<<20)
	for i := range value {
		value[i] = byte(i >> 8)
	}
	first, err := s.PutState(background, "k", value, vectord.StateWrite{ContentType: "x/y"})
	must(t, err)
	zero := uint64(0)
	_, err = s.PutState(background, "k", value, vectord.StateWrite{IfVersion: &zero})
	wantCode(t, err, vectord.CodeVersionConflict)
	st, err := s.State(background, "k", 0)
	if err != nil || string(st.Value) != string(value) || st.ContentType != "x/y" || st.Version != first.Version {
		t.Fatalf("read: %d bytes, %v", len(st.Value), err)
	}
	changed := make(chan vectord.State)
	go func() {
		st, err := s.State(background, "k", first.Version)
		if err != nil {
			t.Error(err)
		}
		changed <- st
	}()
	_, err = s.PutState(background, "k", []byte("new"), vectord.StateWrite{IfVersion: &first.Version, TTLSeconds: 1})
	must(t, err)
	if st := <-changed; string(st.Value) != "new" {
		t.Errorf("watched: %q", st.Value)
	}
	submit(t, s, "q", vectord.NewTask{StateRefs: []string{"k"}})
	if st, _ := s.State(background, "k", 0); st.Refs != 1 {
		t.Errorf("references: %+v", st)
	}
	out, err := s.Submit(background, "q", []vectord.NewTask{{StateRefs: []string{"absent"}}})
	must(t, err)
	wantCode(t, out[0].Err, vectord.CodeStateNotFound)
	if existed, err := s.DeleteState(background, "k", nil); !existed || err != nil {
		t.Errorf("deleted: %t, %v", existed, err)
	}
	_, err = s.State(background, "k", 0)
	wantCode(t, err, vectord.CodeStateNotFound)
}

// TestEffects checks that a completion's points, memories and tasks come with its result or not at all.
func TestEffects(t *testing.T) {
	dir := t.TempDir()
	n, s := open(t, dir)
	register(t, s, "a", vectord.AgentConfig{Capacity: 10})
	must(t, n.Engine().CreateCollection(background, "c", vectord.DefaultCollectionConfig(2, vectord.Cosine)))
	must(t, n.Engine().CreateCollection(background, "m", vectord.DefaultCollectionConfig(256, vectord.Cosine)))
	point := func(v ...float32) vectord.Point {
		return vectord.Point{ID: vectord.NumberID(7), Vectors: vectord.Unnamed(v)}
	}
	submit(t, s, "q", vectord.NewTask{})
	task := lease(t, s, "a", 1, 0)[0]
	attempt := func(e vectord.Effects) vectord.CallOutcome {
		t.Helper()
		return call(t, s, vectord.TaskCall{Kind: vectord.CallComplete, ID: task.ID, LeaseID: task.LeaseID, Result: json.RawMessage(`1`), Effects: e})
	}
	nothing := func(o vectord.CallOutcome, why string) {
		t.Helper()
		if o.Err == nil {
			t.Fatalf("%s: completed", why)
		}
		stands, err := s.Task(task.ID)
		points, countErr := n.Engine().Count(background, "c", nil)
		memories, memoriesErr := n.Engine().Count(background, "m", nil)
		tasks, tasksErr := s.CountTasks(vectord.TaskScroll{})
		must(t, errors.Join(err, countErr, memoriesErr, tasksErr))
		if stands.Status != vectord.TaskRunning || points != 0 || memories != 0 || tasks != 1 {
			t.Fatalf("%s: %v; the task is %s, there are %d points, %d memories and %d tasks", why, o.Err, stands.Status, points, memories, tasks)
		}
	}
	remember := &vectord.MemoryEffects{Collection: "m", Memories: []vectord.Memory{{Text: "the sky is blue"}}, Dedup: &vectord.MemoryDedup{}}
	good := vectord.Effects{Points: map[string][]vectord.Point{"c": {point(1, 0)}}, Memories: remember, Tasks: map[string][]vectord.NewTask{"next": {{Type: "more"}}}}
	bad := good
	bad.Points = map[string][]vectord.Point{"c": {point(1, 0)}, "absent": {point(1)}}
	nothing(attempt(bad), "no such collection")
	bad = good
	bad.Points = map[string][]vectord.Point{"c": {point(1, 0, 0)}}
	nothing(attempt(bad), "another dimension")
	bad = good
	bad.Tasks = map[string][]vectord.NewTask{"next": {{}, {DependsOn: []vectord.TaskID{{9}}}}}
	nothing(attempt(bad), "no such dependency")
	config := vectord.DefaultQueueConfig()
	config.MaxDepth, config.MaxOverflow = 1, 0
	must(t, s.PutQueue(background, "narrow", config))
	bad = good
	bad.Tasks = map[string][]vectord.NewTask{"narrow": {{}, {}}}
	nothing(attempt(bad), "a full queue")
	o := call(t, s, vectord.TaskCall{Kind: vectord.CallComplete, ID: task.ID, LeaseID: task.LeaseID + 1, Effects: good})
	wantCode(t, o.Err, vectord.CodeLeaseLost)
	nothing(o, "another lease")

	if o = attempt(good); o.Err != nil || len(o.Tasks) != 1 || len(o.Memories) != 1 || o.Memories[0].Outcome != vectord.MemoryCreated {
		t.Fatalf("%+v", o)
	}
	must(t, n.Close())
	n, s = open(t, dir)
	defer n.Close()
	records, err := n.Engine().Retrieve(background, "c", []vectord.PointID{vectord.NumberID(7)}, vectord.Selection{})
	must(t, err)
	memories, err := n.Engine().Count(background, "m", nil)
	must(t, err)
	next, err := s.Task(o.Tasks[0])
	must(t, err)
	if done, err := s.Task(task.ID); err != nil || len(records) != 1 || memories != 1 || next.Queue != "next" || done.Status != vectord.TaskCompleted {
		t.Errorf("after a restart: %d points, %d memories, %+v, %+v, %v", len(records), memories, next, done, err)
	}
}

// TestLeaseBytes checks that one answer does not carry any number of large tasks.
func TestLeaseBytes(t *testing.T) {
	s := start(t)
	register(t, s, "a", vectord.AgentConfig{Capacity: 100})
	payload := json.RawMessage(`"` + strings.Repeat("x", 1<<20-2) + `"`)
	for range 4 {
		out, err := s.Submit(background, "q", slices.Repeat([]vectord.NewTask{{Payload: payload}}, 6))
		must(t, err)
		must(t, out[5].Err)
	}
	first, second := lease(t, s, "a", 100, 0), lease(t, s, "a", 100, 0)
	if len(first) != 16 || len(second) != 8 {
		t.Errorf("leases of %d and %d tasks", len(first), len(second))
	}
}

// TestStateShared checks that agents that share a state get one buffer, that nothing is left of it when the last task has ended
// and its time has passed, and that references count.
func TestStateShared(t *testing.T) {
	s := start(t)
	const agents, size = 60, 1 << 20
	_, err := s.PutState(background, "context", bytes.Repeat([]byte("c"), size), vectord.StateWrite{TTLSeconds: 3600})
	must(t, err)
	for i := range agents {
		register(t, s, fmt.Sprint("a", i), vectord.AgentConfig{})
		submit(t, s, "q", vectord.NewTask{StateRefs: []string{"context"}})
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	values := make([][]byte, agents)
	held := make([]vectord.Task, agents)
	for i := range agents {
		held[i] = lease(t, s, fmt.Sprint("a", i), 1, 0)[0]
		st, err := s.State(background, held[i].StateRefs[0], 0)
		must(t, err)
		values[i] = st.Value
		if st.Refs != agents || len(st.Value) != size || &st.Value[0] != &values[0][0] {
			t.Fatalf("agent %d: %d references, %d bytes, its own copy: %t", i, st.Refs, len(st.Value), &st.Value[0] != &values[0][0])
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4*size {
		t.Errorf("%d agents that share %d bytes took %d", agents, size, grown)
	}
	clear(values)
	for i := range held {
		complete(t, s, held[i], `1`)
	}
	st, err := s.State(background, "context", 0)
	must(t, err)
	if st.Refs != 0 {
		t.Errorf("%d references after the last task", st.Refs)
	}
}

// TestDeleteQueueInMemory deletes a queue whose tasks are in memory only, one of them leased, and whose timers are not those of the log.
func TestDeleteQueueInMemory(t *testing.T) {
	s := start(t)
	config := vectord.DefaultQueueConfig()
	config.Durability = vectord.InMemory
	must(t, s.PutQueue(background, "q", config))
	register(t, s, "a", vectord.AgentConfig{})
	leased, waiting := submit(t, s, "q", vectord.NewTask{}), submit(t, s, "q", vectord.NewTask{})
	if got := lease(t, s, "a", 1, 0); len(got) != 1 || got[0].ID != leased.TaskID {
		t.Fatalf("leased %v, want %s", got, leased.TaskID)
	}
	must(t, s.DeleteQueue(background, "q", true))
	for _, id := range []vectord.TaskID{leased.TaskID, waiting.TaskID} {
		task, err := s.Task(id)
		must(t, err)
		if task.Status != vectord.TaskFailed || task.Error == nil || task.Error.Code != vectord.ErrorQueueDeleted {
			t.Errorf("%s: %v, %v", id, task.Status, task.Error)
		}
	}
}

// TestWidening checks that a task whose near agent does not ask goes to a farther one in time, whether that one waits or asks
// again and again, and that a registration makes the queues that it names.
func TestWidening(t *testing.T) {
	s := start(t)
	register(t, s, "near", vectord.AgentConfig{Vectors: [][]float32{{1, 0}}})
	register(t, s, "far", vectord.AgentConfig{Vectors: [][]float32{{1, 1}}})
	config := vectord.DefaultQueueConfig()
	if info, err := s.Queue("q"); err != nil || info.Agents != 2 {
		t.Fatalf("%+v, %v", info, err)
	}
	config.Routing.CollectMS, config.Routing.AffinityWaitMS = 20, 5
	must(t, s.PutQueue(background, "q", config))
	for _, wait := range []int64{0, 10_000} {
		task := submit(t, s, "q", vectord.NewTask{Vector: []float32{1, 0}})
		var got []vectord.Task
		for deadline := time.Now().Add(10 * time.Second); len(got) == 0 && time.Now().Before(deadline); {
			got = lease(t, s, "far", 1, wait)
		}
		if len(got) != 1 || got[0].ID != task.TaskID {
			t.Fatalf("waiting %d ms: %+v", wait, got)
		}
		complete(t, s, got[0], `1`)
	}
}

// TestResultIsTheEnd checks that whoever asks for a result while the task ends gets the end, at whatever moment he asks: a task
// leaves memory before its row says what became of it.
func TestResultIsTheEnd(t *testing.T) {
	s := start(t)
	register(t, s, "a", vectord.AgentConfig{})
	for range 300 {
		id := submit(t, s, "q", vectord.NewTask{}).TaskID
		task := lease(t, s, "a", 1, 0)[0]
		completed := make(chan struct{})
		go func() {
			defer close(completed)
			complete(t, s, task, `1`)
		}()
		for status := vectord.TaskRunning; !status.Terminal(); {
			now, err := s.Task(id)
			must(t, err)
			if result, err := s.TaskResult(background, id); err != nil || !result.Status.Terminal() {
				t.Fatalf("%s, %v", result.Status, err)
			}
			status = now.Status
		}
		if now, err := s.Task(id); err != nil || !now.Status.Terminal() {
			t.Fatalf("%s, %v", now.Status, err)
		}
		<-completed
	}
}
