package scheduler

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

var background = context.Background()

// tester is what testing.T and rapid.T have in common.
type tester interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// harness is a scheduler whose log and clock are the test's, and in which nothing happens by itself: no goroutine looks at
// timers or matches tasks with polls.
type harness struct {
	t     tester
	disk  storage.FS
	store *storage.Store
	s     *Scheduler
	index uint64
	now   int64 // milliseconds
	log   []vectord.Entry
}

// epoch is when the clock of a test begins.
const epoch = 1_700_000_000_000

func newHarness(t tester) *harness {
	h := &harness{t: t, disk: storagetest.NewCrashFS(nil), now: epoch}
	h.open()
	return h
}

func (h *harness) open() {
	h.t.Helper()
	var err error
	quiet := slog.New(slog.DiscardHandler)
	h.store, err = storage.Open(storage.Options{Dir: "data", FS: h.disk, Logger: quiet, Fatal: func(err error) { panic(err) }})
	if err != nil {
		h.t.Fatalf("open the store: %v", err)
	}
	if h.s, err = Open(h.store, Options{Now: func() int64 { return h.now }, Logger: quiet}); err != nil {
		h.t.Fatalf("open the scheduler: %v", err)
	}
	h.s.log = h
	l := newLeadership(h.s.stop)
	close(l.elected)
	h.s.leads.Store(l)
}

func (h *harness) close() {
	h.t.Helper()
	if err := h.s.Close(); err != nil {
		h.t.Errorf("close the scheduler: %v", err)
	}
	if err := h.store.Close(); err != nil {
		h.t.Errorf("close the store: %v", err)
	}
}

// reopen does what a stop and a start do, but for the election.
func (h *harness) reopen() {
	h.t.Helper()
	h.close()
	h.open()
}

// Propose implements Log: the command is applied at once, at the time of the test's clock.
func (h *harness) Propose(_ context.Context, command []byte) (vectord.Result, error) {
	h.index++
	e := vectord.Entry{Index: h.index, Time: h.now, Command: slices.Clone(command)}
	h.log = append(h.log, e)
	return h.apply(e)
}

func (h *harness) apply(e vectord.Entry) (vectord.Result, error) {
	b := h.store.NewBatch()
	value, refusal, err := h.s.Apply(b, e, e.Command, nil)
	if err != nil {
		h.t.Fatalf("entry %d, a command of kind %d, ended the server: %v", e.Index, e.Command[0], err)
	}
	if err := b.CommitUnsynced(); err != nil {
		h.t.Fatalf("commit: %v", err)
	}
	h.s.Committed()()
	return vectord.Result{Index: e.Index, Value: value, Err: refusal}, nil
}

// pass lets time pass, and what is due by then happen.
func (h *harness) pass(millis int64) {
	h.t.Helper()
	h.now += millis
	h.command([]byte{byte(commandTick)})
	h.s.inMemory(func(x *tx) {
		if err := x.advance(&h.s.volatile.timers); err != nil {
			h.t.Fatalf("tasks in memory: %v", err)
		}
	})
}

func (h *harness) command(command []byte) any {
	h.t.Helper()
	r, _ := h.Propose(background, command)
	if r.Err != nil {
		h.t.Fatalf("refused: %v", r.Err)
	}
	return r.Value
}

func (h *harness) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatalf("%v", err)
	}
}

// queue makes a queue, with the defaults but for what edit changes.
func (h *harness) queue(name string, edit func(*vectord.QueueConfig)) {
	h.t.Helper()
	c := vectord.DefaultQueueConfig()
	if edit != nil {
		edit(&c)
	}
	h.must(h.s.PutQueue(background, name, c))
}

func (h *harness) agent(id string, capacity int, queues ...string) {
	h.t.Helper()
	h.must(h.s.RegisterAgent(background, id, vectord.AgentConfig{Capacity: capacity, Queues: queues}))
}

func (h *harness) submit(queue string, n vectord.NewTask) vectord.Submitted {
	h.t.Helper()
	out, err := h.s.Submit(background, queue, []vectord.NewTask{n})
	h.must(err)
	return out[0]
}

// accepted submits a task that must be taken.
func (h *harness) accepted(queue string, n vectord.NewTask) vectord.TaskID {
	h.t.Helper()
	out := h.submit(queue, n)
	h.must(out.Err)
	return out.TaskID
}

func (h *harness) lease(agent string, n int) []vectord.Task {
	h.t.Helper()
	tasks, err := h.s.Lease(background, vectord.LeaseRequest{AgentID: agent, MaxTasks: n})
	h.must(err)
	return tasks
}

func (h *harness) call(c vectord.TaskCall) vectord.CallOutcome {
	h.t.Helper()
	out, err := h.s.Call(background, []vectord.TaskCall{c})
	h.must(err)
	return out[0]
}

func (h *harness) complete(task vectord.Task) {
	h.t.Helper()
	h.must(h.call(vectord.TaskCall{Kind: vectord.CallComplete, ID: task.ID, LeaseID: task.LeaseID, Result: json.RawMessage(`1`)}).Err)
}

func (h *harness) task(id vectord.TaskID) vectord.Task {
	h.t.Helper()
	task, err := h.s.Task(id)
	h.must(err)
	return task
}

func (h *harness) wantStatus(id vectord.TaskID, want vectord.TaskStatus) {
	h.t.Helper()
	if task := h.task(id); task.Status != want {
		h.t.Errorf("task %s is %s, want %s", id, task.Status, want)
	}
}

var allTables = []byte{tableBody, tableHeader, tableKey, tableQueue, tableAgent, tableDecision, tableState, tableValue, tableCounter}

// rows returns all rows: table and key → row.
func (h *harness) rows() map[string]string {
	h.t.Helper()
	rows := map[string]string{}
	for _, table := range allTables {
		h.must(h.store.ScanRows(table, nil, func(key, row []byte) (bool, error) {
			rows[string(table)+string(key)] = string(row)
			return true, nil
		}))
	}
	return rows
}

// sameRows compares the rows of two stores.
func sameRows(t tester, got, want map[string]string) {
	t.Helper()
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if row, ok := got[key]; !ok || row != want[key] {
			t.Errorf("row %q is %q (there: %t), want %q", key, row, ok, want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[key]; !ok {
			t.Errorf("row %q is %q, and should not be there", key, got[key])
		}
	}
}

// replay applies the log to a second, empty store, and returns the harness with it.
func (h *harness) replay() *harness {
	h.t.Helper()
	other := newHarness(h.t)
	for _, e := range h.log {
		other.now = e.Time
		if _, err := other.apply(e); err != nil {
			h.t.Fatalf("replay: %v", err)
		}
	}
	return other
}
