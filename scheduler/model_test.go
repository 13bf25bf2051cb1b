package scheduler

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/vectord/vectord"
)

// The queue of the model test.
const (
	modelDepth       = 12 // with the overflow
	modelLease       = 10 // seconds
	modelAttempts    = 3
	modelGrace       = 5      // seconds
	modelWindow      = 30_000 // milliseconds
	modelBackoff     = 1_000
	modelBackoffMost = 3_000
)

// modelTask is what the plain model knows of a task.
type modelTask struct {
	id       vectord.TaskID
	number   int // of its submission
	priority int
	status   vectord.TaskStatus
	attempt  int
	series   int
	agent    string
	lease    vectord.LeaseID
	expires  int64
	started  int64
	runAt    int64 // that is wanted, or the end of a pause
	deadline int64
	timeout  int64 // milliseconds
	cancelBy int64
	parents  []*modelTask
	stubborn bool // runs whatever becomes of its parents
	result   string
}

func (m *modelTask) due() int64 {
	due := m.deadline
	sooner := func(at int64) {
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	switch m.status {
	case vectord.TaskScheduled:
		sooner(m.runAt)
	case vectord.TaskRunning:
		sooner(m.expires)
		sooner(m.cancelBy)
		if m.timeout > 0 {
			sooner(m.started + m.timeout)
		}
	}
	return due
}

type modelKey struct {
	task    *modelTask
	payload string
	time    int64
}

// schedulerModel gives the same history to a scheduler and to a map of tasks.
type schedulerModel struct {
	*harness
	evicts    bool
	tasks     []*modelTask // in the order of their submission
	keys      map[string]modelKey
	capacity  map[string]int
	lastLease vectord.LeaseID
	stale     []modelTask // running tasks as they were at some time
}

func (m *schedulerModel) waiting() (n int) {
	for _, t := range m.tasks {
		if t.status != vectord.TaskRunning && !t.status.Terminal() {
			n++
		}
	}
	return n
}

func (m *schedulerModel) set(t *modelTask, status vectord.TaskStatus) {
	if t.status == vectord.TaskRunning {
		t.expires, t.cancelBy = 0, 0
	}
	if t.status = status; status != vectord.TaskScheduled {
		t.runAt = 0
	}
}

func (m *schedulerModel) end(t *modelTask, status vectord.TaskStatus) {
	m.set(t, status)
	for _, child := range m.tasks {
		if child.status == vectord.TaskBlocked && slices.Contains(child.parents, t) {
			m.unblock(child)
		}
	}
}

// unblock looks at a task's parents.
func (m *schedulerModel) unblock(t *modelTask) {
	for _, parent := range t.parents {
		if parent.status.Terminal() && parent.status != vectord.TaskCompleted && !t.stubborn {
			m.end(t, vectord.TaskFailed)
			return
		}
	}
	if slices.ContainsFunc(t.parents, func(p *modelTask) bool { return !p.status.Terminal() }) {
		t.status = vectord.TaskBlocked
		return
	}
	if t.runAt > m.now {
		t.status = vectord.TaskScheduled
		return
	}
	m.set(t, vectord.TaskQueued)
}

func (m *schedulerModel) fail(t *modelTask, final bool, pause int64) {
	switch {
	case final || t.series >= modelAttempts:
		m.end(t, vectord.TaskFailed)
		return
	case t.cancelBy != 0:
		m.end(t, vectord.TaskCancelled)
		return
	}
	if pause < 0 {
		pause = int64(min(modelBackoff<<(t.series-1), modelBackoffMost))
	}
	if pause == 0 {
		m.set(t, vectord.TaskQueued)
		return
	}
	m.set(t, vectord.TaskScheduled)
	t.runAt = m.now + pause
}

func (m *schedulerModel) expire(t *modelTask) {
	due := func(at int64) bool { return at != 0 && at <= m.now }
	switch {
	case due(t.deadline):
		m.end(t, vectord.TaskFailed)
	case t.status == vectord.TaskScheduled:
		m.set(t, vectord.TaskQueued)
	case due(t.cancelBy):
		m.end(t, vectord.TaskCancelled)
	case due(t.expires):
		m.fail(t, false, 0)
	default:
		m.fail(t, false, -1)
	}
}

// passTime lets time pass in both.
func (m *schedulerModel) passTime(t *rapid.T) {
	m.pass(rapid.SampledFrom([]int64{1, 500, 1_000, 3_000, 5_000, 10_000, 31_000}).Draw(t, "ms"))
	for {
		var next *modelTask
		for _, c := range m.tasks {
			if due := c.due(); !c.status.Terminal() && due != 0 && due <= m.now && (next == nil || due < next.due()) {
				next = c
			}
		}
		if next == nil {
			return
		}
		m.expire(next)
	}
}

func (m *schedulerModel) submitOne(t *rapid.T) {
	n := vectord.NewTask{Payload: json.RawMessage(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "payload"))}
	c := &modelTask{number: len(m.tasks), status: vectord.TaskBlocked}
	if rapid.Bool().Draw(t, "plain") {
		n.IdempotencyKey = rapid.SampledFrom([]string{"", "k", "l"}).Draw(t, "key")
	} else {
		c.priority = rapid.IntRange(0, 2).Draw(t, "priority")
		if c.timeout = rapid.SampledFrom([]int64{0, 0, 2, 20}).Draw(t, "timeout"); c.timeout > 0 {
			n.TimeoutSeconds = int(c.timeout)
			c.timeout *= 1_000
		}
		if delay := rapid.SampledFrom([]int64{0, 0, 700, 4_000}).Draw(t, "delay"); delay > 0 {
			n.DelayMS, c.runAt = delay, m.now+delay
		}
		if deadline := rapid.SampledFrom([]int64{0, 0, 5_000, 20_000}).Draw(t, "deadline"); deadline > 0 {
			c.deadline = m.now + deadline
			n.Deadline = vectord.Timestamp(c.deadline)
		}
		for range rapid.IntRange(0, 2).Draw(t, "parents") {
			if p := m.any(t); p != nil && !slices.Contains(c.parents, p) {
				c.parents, n.DependsOn = append(c.parents, p), append(n.DependsOn, p.id)
			}
		}
		c.stubborn = rapid.Bool().Draw(t, "stubborn")
		n.RunOnDependencyFailure = c.stubborn
	}
	n.Priority = &c.priority
	out := m.submit("q", n)
	if k, ok := m.keys[n.IdempotencyKey]; ok && (m.now-k.time <= modelWindow || !k.task.status.Terminal()) {
		if k.payload != string(n.Payload) {
			if vectord.CodeOf(out.Err) != vectord.CodeKeyReused {
				t.Fatalf("a key was used for another task: %+v", out)
			}
		} else if out.Err != nil || !out.Deduplicated || out.TaskID != k.task.id || out.Status != k.task.status {
			t.Fatalf("submitted again: %+v, want task %s", out, k.task.id)
		}
		return
	}
	if m.waiting() >= modelDepth {
		var victim *modelTask
		for p := 0; m.evicts && p < c.priority && victim == nil; p++ {
			for _, v := range m.tasks {
				if v.priority == p && v.status == vectord.TaskQueued {
					victim = v
				}
			}
		}
		if victim == nil {
			if vectord.CodeOf(out.Err) != vectord.CodeQueueFull {
				t.Fatalf("submitted to a full queue: %+v", out)
			}
			return
		}
		m.end(victim, vectord.TaskFailed)
	}
	if out.Err != nil || out.Deduplicated {
		t.Fatalf("submitted: %+v", out)
	}
	c.id = out.TaskID
	m.tasks = append(m.tasks, c)
	if n.IdempotencyKey != "" {
		m.keys[n.IdempotencyKey] = modelKey{c, string(n.Payload), m.now}
	}
	m.unblock(c)
	if out.Status != c.status {
		t.Fatalf("submitted: %s, want %s", out.Status, c.status)
	}
}

// any returns some task, nil if there is none.
func (m *schedulerModel) any(t *rapid.T) *modelTask {
	if len(m.tasks) == 0 {
		return nil
	}
	return m.tasks[max(0, len(m.tasks)-1-rapid.IntRange(0, 11).Draw(t, "task"))]
}

func (m *schedulerModel) held(agent string) (n int) {
	for _, t := range m.tasks {
		if t.status == vectord.TaskRunning && t.agent == agent {
			n++
		}
	}
	return n
}

func (m *schedulerModel) leaseSome(t *rapid.T) {
	agent := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "agent")
	want := rapid.IntRange(1, 4).Draw(t, "tasks")
	var queued []*modelTask
	for _, c := range m.tasks {
		if c.status == vectord.TaskQueued {
			queued = append(queued, c)
		}
	}
	slices.SortStableFunc(queued, func(a, b *modelTask) int { return cmp.Compare(b.priority, a.priority) })
	queued = queued[:min(len(queued), want, m.capacity[agent]-m.held(agent))]
	got := m.lease(agent, want)
	if len(got) != len(queued) {
		t.Fatalf("agent %s leased %d tasks, want %d", agent, len(got), len(queued))
	}
	for i, c := range queued {
		if got[i].ID != c.id {
			t.Fatalf("lease %d is of task %s, want %s, the submission %d", i, got[i].ID, c.id, c.number)
		}
		if got[i].LeaseID <= m.lastLease {
			t.Fatalf("lease %s after %s", got[i].LeaseID, m.lastLease)
		}
		m.lastLease = got[i].LeaseID
		c.status, c.agent, c.lease, c.started, c.expires = vectord.TaskRunning, agent, got[i].LeaseID, m.now, m.now+modelLease*1_000
		c.attempt++
		c.series++
		m.stale = append(m.stale, *c)
	}
}

// callSome has the holder of a lease, or who was one once, say something.
func (m *schedulerModel) callSome(t *rapid.T) {
	if len(m.stale) == 0 {
		return
	}
	lease := m.stale[max(0, len(m.stale)-1-rapid.IntRange(0, 5).Draw(t, "lease"))]
	c := m.tasks[lease.number]
	call := vectord.TaskCall{ID: c.id, LeaseID: lease.lease,
		Kind: rapid.SampledFrom([]vectord.TaskCallKind{vectord.CallComplete, vectord.CallComplete, vectord.CallFail, vectord.CallRelease, vectord.CallHeartbeat, vectord.CallRequestInput}).Draw(t, "kind")}
	holds := c.status == vectord.TaskRunning && c.lease == lease.lease
	want := vectord.CodeLeaseLost
	switch {
	case holds:
		want = ""
	case c.status.Terminal() && c.lease == lease.lease:
		want = vectord.CodeTaskTerminal
	}
	switch call.Kind {
	case vectord.CallComplete:
		call.Result = json.RawMessage(rapid.SampledFrom([]string{"1", "2"}).Draw(t, "result"))
		if c.status == vectord.TaskCompleted && c.lease == lease.lease && c.result == string(call.Result) {
			want = ""
		}
		if holds {
			c.result = string(call.Result)
			m.end(c, vectord.TaskCompleted)
		}
	case vectord.CallFail:
		call.Error.Code, call.Final = "x", rapid.IntRange(0, 4).Draw(t, "final") == 0
		call.RetryAfterMS = rapid.SampledFrom([]int64{0, 2_000}).Draw(t, "pause")
		if holds {
			m.fail(c, call.Final, cmp.Or(call.RetryAfterMS, -1))
		}
	case vectord.CallRelease, vectord.CallRequestInput:
		if holds {
			c.series--
			switch {
			case c.cancelBy != 0:
				m.end(c, vectord.TaskCancelled)
			case call.Kind == vectord.CallRelease:
				m.set(c, vectord.TaskQueued)
			default:
				m.set(c, vectord.TaskInputRequired)
			}
		}
	case vectord.CallHeartbeat:
		call.Extend = rapid.SampledFrom([]int{0, 1, 20}).Draw(t, "extend")
		if holds {
			c.expires = m.now + int64(cmp.Or(call.Extend, modelLease))*1_000
		}
	}
	if out := m.call(call); vectord.CodeOf(out.Err) != want || want == "" && out.Status != c.status {
		t.Fatalf("call %d of task %s, which is %s: %+v, want code %q", call.Kind, c.id, c.status, out, want)
	}
}

func (m *schedulerModel) cancelSome(t *rapid.T) {
	c := m.any(t)
	if c == nil {
		return
	}
	want := vectord.Code("")
	switch {
	case c.status == vectord.TaskRunning:
		if c.cancelBy == 0 {
			c.cancelBy = m.now + modelGrace*1_000
		}
	case !c.status.Terminal():
		m.end(c, vectord.TaskCancelled)
	case c.status != vectord.TaskCancelled:
		want = vectord.CodeTaskTerminal
	}
	if _, err := m.s.Cancel(background, c.id); vectord.CodeOf(err) != want {
		t.Fatalf("cancel task %s: %v, want code %q", c.id, err, want)
	}
}

func (m *schedulerModel) giveSome(t *rapid.T) {
	c := m.any(t)
	if c == nil {
		return
	}
	asked := c.status == vectord.TaskInputRequired
	if asked {
		m.set(c, vectord.TaskQueued)
	}
	if _, err := m.s.GiveInput(background, c.id, []byte(`1`)); (err == nil) != asked {
		t.Fatalf("give input to task %s, which asked: %t: %v", c.id, asked, err)
	}
}

func (m *schedulerModel) redriveSome(t *rapid.T) {
	c := m.any(t)
	if c == nil {
		return
	}
	want := 0
	if c.status == vectord.TaskFailed && m.waiting() < modelDepth {
		want = 1
		c.series, c.deadline, c.parents, c.cancelBy = 0, 0, nil, 0
		m.set(c, vectord.TaskQueued)
	}
	if n, err := m.s.Redrive(background, "q", []vectord.TaskID{c.id}); n != want || err != nil {
		t.Fatalf("redrive task %s: %d, %v, want %d", c.id, n, err, want)
	}
}

func (m *schedulerModel) agentDies(t *rapid.T) {
	agent := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "agent")
	m.must(m.s.EndLeases(background, agent, "died"))
	for _, c := range m.tasks {
		if c.status == vectord.TaskRunning && c.agent == agent {
			m.fail(c, false, 0)
		}
	}
}

func (m *schedulerModel) restart(t *rapid.T) {
	before := m.state()
	m.reopen()
	if after := m.state(); after != before {
		t.Fatalf("before the restart:\n%s\nafter it:\n%s", before, after)
	}
	if rapid.Bool().Draw(t, "elected") {
		m.command([]byte{byte(commandElected)})
		for _, c := range m.tasks {
			if c.status == vectord.TaskRunning {
				c.expires = max(c.expires, m.now+modelLease*1_000)
			}
		}
	}
}

// check compares all tasks and what is counted of them.
func (m *schedulerModel) check(t *rapid.T) {
	var counts [vectord.TaskCancelled + 1]int
	for _, c := range m.tasks {
		got, err := m.s.Task(c.id)
		if err != nil {
			t.Fatalf("task %s: %v", c.id, err)
		}
		if got.Status != c.status || got.Attempt != c.attempt || int64(got.LeaseExpiresAt) != c.expires || got.CancelRequested != (c.cancelBy != 0) {
			t.Fatalf("task %s, the submission %d: %+v, want %+v", c.id, c.number, got, *c)
		}
		if c.status == vectord.TaskRunning && (got.LeaseID != c.lease || got.Agent != c.agent) {
			t.Fatalf("task %s is held by %s under %s, want %s under %s", c.id, got.Agent, got.LeaseID, c.agent, c.lease)
		}
		counts[c.status]++
	}
	q := m.s.queues["q"]
	for status := vectord.TaskScheduled; !status.Terminal(); status++ {
		if q.counts[status] != counts[status] {
			t.Fatalf("%d tasks are counted as %s, want %d", q.counts[status], status, counts[status])
		}
	}
	if q.waiting != m.waiting() || q.ready.count != counts[vectord.TaskQueued] || q.reserved != 0 {
		t.Fatalf("%d wait, %d are ready, %d reserved; want %d and %d", q.waiting, q.ready.count, q.reserved, m.waiting(), counts[vectord.TaskQueued])
	}
	for id, a := range m.s.agents {
		if len(a.held) != m.held(id) || int(a.inFlight.Load()) != len(a.held) || a.heldDurable != len(a.held) || a.reserved != 0 || len(a.held) > a.config.Capacity {
			t.Fatalf("agent %s holds %d (%d counted, %d durable, %d reserved), want %d", id, len(a.held), a.inFlight.Load(), a.heldDurable, a.reserved, m.held(id))
		}
	}
}

// state describes all that a scheduler knows and that a restart must not change.
func (h *harness) state() string {
	s := h.s
	var b strings.Builder
	fmt.Fprintln(&b, "numbers", s.nextQueue, s.nextAgent, "states", s.states.byKey.Len(), s.states.refs)
	names := func(tasks []*task) (ids []string) {
		for _, t := range tasks {
			ids = append(ids, t.id.String())
		}
		return ids
	}
	for _, t := range s.ordered(func(t *task) bool { return t.queue.durable() }) {
		submitted := t.new
		submitted.Payload, submitted.Metadata = nil, nil // which may be in the row only
		body := appendBody(nil, &submitted)
		fmt.Fprintf(&b, "task %s seq %d header %x body %x open %d due %d timer %t dependents %v\n", t.id, t.seq,
			appendHeader(nil, t.queue.id, t.seq, &t.header), body, t.openDependencies, t.due(), t.timer >= 0, names(slices.DeleteFunc(slices.Clone(s.dependents[t.id]), func(c *task) bool { return c.status != vectord.TaskBlocked })))
	}
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		q := s.queues[name]
		fmt.Fprintf(&b, "queue %s %d %+v size %d waiting %d counts %v\n", name, q.id, q.config, q.size, q.waiting, q.counts[:vectord.TaskCompleted])
		for p := range q.queued {
			fmt.Fprintln(&b, "  queued", p, names(q.queued[p].Values()))
			for _, key := range slices.Sorted(maps.Keys(q.ready.levels[p].lanes)) {
				ln := q.ready.levels[p].lanes[key]
				tasks := append(ln.open.Values(), ln.rest.Values()...)
				sortTasks(tasks)
				for _, t := range tasks {
					fmt.Fprintln(&b, "  ready", p, key, t.id, t.readyAt)
				}
			}
		}
		for _, key := range slices.Sorted(maps.Keys(q.keys)) {
			if n := q.keys[key].inFlight; n > 0 {
				fmt.Fprintln(&b, "  key", key, n)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.agents)) {
		a := s.agents[id]
		held := slices.Collect(maps.Values(a.held))
		sortTasks(held)
		fmt.Fprintf(&b, "agent %s %d %+v draining %t holds %v\n", id, a.number, a.config, a.draining, names(held))
	}
	return b.String()
}

// TestModel gives random histories to a scheduler and to a plain model and compares every task after every step. At the end
// the log is replayed on an empty store, which must have the same rows, and what is known after a restart must be what was
// known before. Run it with -rapid.checks=N for longer, and -rapid.seed=S to repeat.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &schedulerModel{harness: newHarness(t), evicts: rapid.Bool().Draw(t, "evicts"), keys: map[string]modelKey{}, capacity: map[string]int{"a": 2, "b": 3}}
		defer func() { m.close() }()
		m.queue("q", func(c *vectord.QueueConfig) {
			c.MaxDepth, c.MaxOverflow, c.AgingSeconds, c.LeaseSeconds, c.MaxAttempts, c.CancelGraceSeconds = modelDepth/2, modelDepth/2, 0, modelLease, modelAttempts, modelGrace
			c.Backoff = vectord.Backoff{InitialMS: modelBackoff, Factor: 2, MaxMS: modelBackoffMost}
			c.IdempotencyWindowSeconds = modelWindow / 1_000
			c.Routing.AffinityWaitMS = 0
			if m.evicts {
				c.DropPolicy = vectord.EvictLowest
			}
		})
		m.agent("a", 2, "q")
		m.agent("b", 3, "q")
		t.Repeat(map[string]func(*rapid.T){
			"":            m.check,
			"submit":      m.submitOne,
			"submit more": m.submitOne,
			"submit most": m.submitOne,
			"lease":       m.leaseSome,
			"lease more":  m.leaseSome,
			"call":        m.callSome,
			"call more":   m.callSome,
			"cancel":      m.cancelSome,
			"give input":  m.giveSome,
			"redrive":     m.redriveSome,
			"agent dies":  m.agentDies,
			"time passes": m.passTime,
			"restart":     m.restart,
		})
		m.restart(t)
		other := m.replay()
		defer other.close()
		sameRows(t, m.rows(), other.rows())
	})
}
