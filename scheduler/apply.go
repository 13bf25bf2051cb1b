package scheduler

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/zeebo/xxh3"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// tx is the application of one command.
type tx struct {
	s       *Scheduler
	batch   *storage.Batch // nil for tasks that are in memory only
	index   uint64         // of the command
	ordinal uint64         // of what it numbered last
	now     int64
	write   WritePoints
}

// Things that one command numbers are told apart by so many bits below its index.
const (
	ordinalBits = 16
	numbersMax  = 1<<ordinalBits - 1
)

func (x *tx) number() uint64 {
	if x.batch == nil {
		return x.s.volatile.number()
	}
	x.ordinal++
	return x.index<<ordinalBits + x.ordinal
}

// Apply applies a command to the batch. refusal is the client's error; err is ours and ends everything.
func (s *Scheduler) Apply(b *storage.Batch, e vectord.Entry, command []byte, write WritePoints) (value any, refusal, err error) {
	if len(command) == 0 {
		return nil, nil, errMalformed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastTime = max(s.lastTime, e.Time) // and not the time of what is in memory only, which no other replica knows
	x := &tx{s: s, batch: b, index: e.Index, now: s.lastTime, write: write}
	if commandKind(command[0]) != commandElected { // which extends what would end otherwise
		if err := x.advance(&s.timers); err != nil {
			return nil, nil, err
		}
	}
	return x.apply(commandKind(command[0]), command[1:])
}

func (x *tx) apply(kind commandKind, body []byte) (value any, refusal, err error) {
	r := &reader{b: body}
	switch kind {
	case commandSubmit:
		c := readSubmit(r)
		if err = r.end(); err == nil {
			value, refusal, err = x.submit(&c)
		}
	case commandGrant:
		g := readGrant(r)
		if err = r.end(); err == nil {
			value, refusal, err = x.grant(&g)
		}
	case commandCalls:
		calls := readCalls(r)
		if err = r.end(); err == nil {
			value, err = x.calls(calls)
		}
	case commandCancel:
		value, refusal, err = decoded(body, x.cancel)
	case commandGiveInput:
		value, refusal, err = decoded(body, x.giveInput)
	case commandRedrive:
		value, refusal, err = decoded(body, x.redrive)
	case commandPutQueue:
		value, refusal, err = decoded(body, x.putQueue)
	case commandDeleteQueue:
		value, refusal, err = decoded(body, x.deleteQueue)
	case commandPutAgent:
		value, refusal, err = decoded(body, x.putAgent)
	case commandRemoveAgent:
		value, refusal, err = decoded(body, x.removeAgent)
	case commandDrainAgent:
		value, refusal, err = decoded(body, x.drainAgent)
	case commandEndLeases:
		value, refusal, err = decoded(body, x.endLeases)
	case commandTick: // time is all it brings
	case commandElected:
		x.elected()
	case commandPurge:
		value, refusal, err = decoded(body, x.purge)
	case commandPutState:
		value, refusal, err = x.putState(body)
	case commandDeleteState:
		value, refusal, err = decoded(body, x.deleteState)
	default:
		err = fmt.Errorf("command of the scheduler of unknown kind %d: a newer vectord wrote it", kind)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("command of the scheduler of kind %d: %w", kind, err)
	}
	return value, refusal, nil
}

func decoded[T any](body []byte, apply func(T) (any, error, error)) (value any, refusal, err error) {
	c, err := decodeJSON[T](body)
	if err != nil {
		return nil, nil, err
	}
	return apply(c)
}

// advance lets happen what is due by now.
func (x *tx) advance(h *timers) error {
	for {
		t, at := h.next()
		if t == nil || at > x.now {
			return nil
		}
		if err := x.expire(t); err != nil {
			return err
		}
	}
}

// expire lets happen to a task what is due.
func (x *tx) expire(t *task) error {
	due := func(at int64) bool { return at != 0 && at <= x.now }
	switch {
	case due(int64(t.new.Deadline)):
		return x.end(t, vectord.TaskFailed, &vectord.TaskError{Code: vectord.ErrorDeadline, Message: "not completed by " + t.new.Deadline.String()})
	case t.status == vectord.TaskScheduled:
		x.queue(t)
		return nil
	case due(t.cancelBy):
		return x.end(t, vectord.TaskCancelled, nil)
	case due(t.leaseExpires):
		return x.fail(t, vectord.TaskError{Code: vectord.ErrorLeaseExpired, Message: fmt.Sprintf("agent %s did not extend its lease", t.agent)}, false, 0)
	default:
		return x.fail(t, vectord.TaskError{Code: vectord.ErrorTimeout, Message: fmt.Sprintf("the attempt took longer than %d s", t.new.TimeoutSeconds)}, false, -1)
	}
}

// elected lets every lease run its full time from now on.
func (x *tx) elected() {
	for _, t := range x.s.ordered(func(t *task) bool { return t.status == vectord.TaskRunning && t.queue.durable() }) {
		t.leaseExpires = max(t.leaseExpires, x.now+int64(t.leaseSeconds)*1000)
		x.save(t)
	}
}

// ordered returns tasks that are not terminal in their order.
func (s *Scheduler) ordered(want func(*task) bool) (tasks []*task) {
	for _, t := range s.tasks {
		if want(t) {
			tasks = append(tasks, t)
		}
	}
	sortTasks(tasks)
	return tasks
}

// save writes the header of a task that is not terminal and sets its timer.
func (x *tx) save(t *task) {
	if t.queue.durable() {
		x.batch.PutRow(tableHeader, t.id[:], appendHeader(nil, t.queue.id, t.seq, &t.header))
		x.s.timers.set(t)
	} else {
		x.s.volatile.timers.set(t)
	}
}

// set gives a task another status that is not terminal. Whoever calls it saves the task.
func (x *tx) set(t *task, status vectord.TaskStatus) {
	q, before := t.queue, t.status
	if before == vectord.TaskRunning {
		if a := x.s.agents[t.agent]; a != nil {
			a.letGo(t)
			x.s.freed(a)
		}
		q.letGo(t)
		t.leaseExpires, t.cancelBy = 0, 0
	}
	if before == vectord.TaskQueued {
		q.queued[t.priority()].Delete(t.seq)
		x.s.dequeue(t)
	}
	if before != 0 {
		q.counts[before]--
		if before != vectord.TaskRunning {
			q.waiting--
		}
	}
	t.status, t.updated = status, x.now
	q.counts[status]++
	if status != vectord.TaskRunning && !status.Terminal() {
		q.waiting++
	}
	if status == vectord.TaskQueued {
		q.queued[t.priority()].Set(t.seq, t)
		x.s.enqueue(t, x.now)
	}
}

// queue has a task wait for an agent.
func (x *tx) queue(t *task) {
	x.set(t, vectord.TaskQueued)
	t.runAt = 0
	x.save(t)
	x.event(t, "queued")
}

// end makes a task terminal.
func (x *tx) end(t *task, status vectord.TaskStatus, failure *vectord.TaskError) error {
	s, q := x.s, t.queue
	if failure != nil {
		t.failure = failure
	}
	if t.status == vectord.TaskRunning {
		if a := s.agents[t.agent]; a != nil {
			a.count(status, x.now-t.started)
		}
		if status == vectord.TaskCompleted {
			q.runTimes.add(x.now - t.started)
		}
	}
	x.set(t, status)
	t.runAt = 0
	if q.durable() {
		x.batch.PutRow(tableHeader, t.id[:], appendHeader(nil, q.id, t.seq, &t.header))
		s.timers.remove(t)
		s.ended = append(s.ended, t)
		s.ending[t.id] = t
	} else {
		s.volatile.timers.remove(t)
		s.volatile.keep(s, t)
		s.volatile.ended = append(s.volatile.ended, t)
	}
	delete(s.tasks, t.id)
	s.states.release(t.new.StateRefs, x.now)
	x.event(t, status.String())
	s.metrics.ended(t)

	children := s.dependents[t.id]
	delete(s.dependents, t.id)
	for _, child := range children {
		if child.status != vectord.TaskBlocked {
			continue
		}
		if err := x.parentEnded(child, t.id, status); err != nil {
			return err
		}
	}
	return nil
}

// parentEnded tells a blocked task that one that it depends on is terminal.
func (x *tx) parentEnded(t *task, parent vectord.TaskID, status vectord.TaskStatus) error {
	if status != vectord.TaskCompleted && !t.new.RunOnDependencyFailure {
		return x.end(t, vectord.TaskFailed, dependencyFailed(parent, status))
	}
	if t.openDependencies--; t.openDependencies == 0 {
		x.unblock(t)
	}
	return nil
}

func dependencyFailed(parent vectord.TaskID, status vectord.TaskStatus) *vectord.TaskError {
	return &vectord.TaskError{Code: vectord.ErrorDependencyFailed, Message: fmt.Sprintf("task %s, on which this one depends, was %s", parent, status)}
}

// unblock has a task wait for its time or for an agent.
func (x *tx) unblock(t *task) {
	if int64(t.new.RunAt) > x.now {
		x.set(t, vectord.TaskScheduled)
		t.runAt = int64(t.new.RunAt)
		x.save(t)
		x.event(t, "scheduled")
		return
	}
	x.queue(t)
}

// fail ends an attempt. There is another, after the pause that is asked for, or the queue's if that is negative, unless the
// task is out of attempts or it is final.
func (x *tx) fail(t *task, failure vectord.TaskError, final bool, pause int64) error {
	if final || t.series >= t.limit() {
		return x.end(t, vectord.TaskFailed, &failure)
	}
	if a := x.s.agents[t.agent]; a != nil {
		a.count(vectord.TaskFailed, x.now-t.started)
	}
	if t.cancelBy != 0 {
		return x.end(t, vectord.TaskCancelled, &failure)
	}
	t.failure = &failure
	if pause < 0 {
		pause = backoff(t.queue.config.Backoff, t.id, t.attempt, t.series)
	}
	x.event(t, "attempt_failed")
	if pause == 0 {
		x.queue(t)
		return nil
	}
	x.set(t, vectord.TaskScheduled)
	t.runAt = x.now + pause
	x.save(t)
	x.event(t, "scheduled")
	return nil
}

// backoff returns the pause after an attempt, in milliseconds. Its jitter is drawn from the task's id, so that every replica
// draws the same.
func backoff(b vectord.Backoff, id vectord.TaskID, attempt, series int) int64 {
	pause := float64(b.InitialMS)
	for i := 1; i < series && pause < float64(b.MaxMS); i++ {
		pause *= b.Factor
	}
	pause = min(pause, float64(b.MaxMS))
	seed := xxh3.HashSeed(id[:], uint64(attempt))
	// The hash's 53 high bits, from -1 to 1. The conversion keeps processors that could from rounding once for both operations.
	pause *= 1 + float64(b.Jitter*(float64(seed>>11)/(1<<52)-1))
	return int64(pause)
}

// submit takes tasks in. One that is refused does not hinder the others.
func (x *tx) submit(c *submit) (value any, refusal, err error) {
	q, refusal, err := x.queueFor(c)
	if refusal != nil || err != nil {
		return nil, refusal, err
	}
	out := make([]vectord.Submitted, len(c.tasks))
	for i := range c.tasks {
		if out[i], err = x.submitOne(q, &c.tasks[i]); err != nil {
			return nil, nil, err
		}
	}
	return out, nil, nil
}

// queueFor returns the queue that tasks are for, which is made if there is none.
func (x *tx) queueFor(c *submit) (q *queue, refusal, err error) {
	config, refusal, err := x.configFor(c)
	if refusal != nil || err != nil {
		return nil, refusal, err
	}
	if q := x.s.queues[c.queue]; q != nil {
		return q, nil, nil
	}
	q, err = x.newQueue(c.queue, config)
	return q, nil, err
}

// configFor returns how the queue that tasks are for is run, or would be, or why they cannot go there: it may have been deleted
// or replaced since the command was made.
func (x *tx) configFor(c *submit) (config vectord.QueueConfig, refusal, err error) {
	if q := x.s.queues[c.queue]; q != nil {
		config = q.config
	} else if len(c.config) == 0 {
		return config, noQueue(c.queue), nil
	} else if err := json.Unmarshal(c.config, &config); err != nil {
		return config, nil, err
	}
	if durable := config.Durability != vectord.InMemory; durable != (x.batch != nil) {
		return config, vectord.Errorf(vectord.KindConflict, "queue %q is %q, which it was not before", c.queue, config.Durability), nil
	}
	return config, nil, nil
}

func (x *tx) newQueue(name string, config vectord.QueueConfig) (*queue, error) {
	q := &queue{id: x.s.nextQueue, name: name, config: config, size: config.Routing.VectorSize}
	x.s.addQueue(q)
	x.saveCounter(counterQueues, uint64(q.id))
	return q, x.saveQueue(q)
}

func (x *tx) saveQueue(q *queue) error {
	size := q.size
	if !q.durable() {
		size = q.config.Routing.VectorSize // what its tasks have is in no log
	}
	row, err := json.Marshal(queueRow{q.id, q.name, size, q.config})
	if err == nil && x.batch != nil {
		x.batch.PutRow(tableQueue, queueKey(q.id), row)
	}
	return err
}

// submitOne takes one task in, or says in Submitted.Err why not.
func (x *tx) submitOne(q *queue, c *submission) (vectord.Submitted, error) {
	if earlier, err := x.submitted(q, c); earlier != nil || err != nil {
		return *earlier, err
	}
	victim, refusal := x.admit(q, c, 0)
	if refusal != nil {
		return vectord.Submitted{Err: refusal}, nil
	}
	open, failed, refusal, err := x.dependencies(q, &c.new)
	if refusal != nil || err != nil {
		return vectord.Submitted{Err: refusal}, err
	}
	if refusal := x.s.states.check(c.new.StateRefs, x.now); refusal != nil {
		return vectord.Submitted{Err: refusal}, nil
	}
	if victim != nil {
		if err := x.end(victim, vectord.TaskFailed, &vectord.TaskError{Code: vectord.ErrorEvicted, Message: "made room for task " + c.id.String()}); err != nil {
			return vectord.Submitted{}, err
		}
		if open, failed, _, err = x.dependencies(q, &c.new); err != nil { // the victim may be one of them
			return vectord.Submitted{}, err
		}
	}
	if q.size == 0 && len(c.new.Vector) > 0 {
		q.size = len(c.new.Vector)
		if err := x.saveQueue(q); err != nil {
			return vectord.Submitted{}, err
		}
	}
	t := &task{id: c.id, queue: q, seq: x.number(), new: c.new, size: len(c.body), timer: -1}
	t.created = x.now
	x.s.tasks[t.id] = t
	x.s.states.refer(t.new.StateRefs)
	x.remember(q, c)
	if x.batch != nil {
		x.batch.PutRow(tableBody, t.id[:], c.body)
		if q.waiting >= q.config.MaxDepth {
			x.s.spill(t)
		}
	}
	x.s.metrics.submitted.Inc()
	x.event(t, "submitted")
	switch {
	case failed != nil:
		x.set(t, vectord.TaskBlocked)
		err = x.end(t, vectord.TaskFailed, failed)
	case len(open) > 0:
		t.openDependencies = len(open)
		for _, parent := range open {
			x.s.dependents[parent] = append(x.s.dependents[parent], t)
		}
		x.set(t, vectord.TaskBlocked)
		x.save(t)
	default:
		x.unblock(t)
	}
	out := vectord.Submitted{TaskID: t.id, Status: t.status, Admission: vectord.AdmissionOK, Position: q.waiting, Durable: q.durable()}
	if q.waiting > q.config.MaxDepth {
		out.Admission, out.RetryAfterMS = vectord.AdmissionBackpressure, retryAfterMillis
	}
	return out, err
}

// retryAfterMillis is what a client is told to wait that a queue is too full for.
const retryAfterMillis = 250

// submitted returns the answer to a task that was submitted before under its key.
func (x *tx) submitted(q *queue, c *submission) (*vectord.Submitted, error) {
	if c.key == ([16]byte{}) {
		return nil, nil
	}
	earlier, ok, err := x.lookUp(q, c.key)
	if err != nil || !ok {
		return nil, err
	}
	if earlier.fingerprint != c.fingerprint {
		return &vectord.Submitted{Err: vectord.Refuse(vectord.KindUnprocessable, vectord.CodeKeyReused,
			"idempotency key %.80q was used for another task before", c.new.IdempotencyKey)}, nil
	}
	out := vectord.Submitted{TaskID: earlier.id, Admission: vectord.AdmissionOK, Deduplicated: true, Durable: q.durable()}
	if t := x.s.tasks[earlier.id]; t != nil {
		out.Status = t.status
		return &out, nil
	}
	h, err := x.terminal(q, earlier.id)
	if h != nil {
		out.Status = h.status
	}
	return &out, err
}

// admit says why a queue does not take a task, or which of its tasks makes room for it. pending tasks are about to come in
// before it.
func (x *tx) admit(q *queue, c *submission, pending int) (victim *task, refusal error) {
	if n := len(c.new.Vector); n > 0 && q.size > 0 && n != q.size {
		return nil, vectord.Refuse(vectord.KindInvalid, vectord.CodeDimensionMismatch, "vector of %d components, those of queue %q have %d", n, q.name, q.size)
	}
	if q.waiting+pending < q.config.MaxDepth+q.config.MaxOverflow {
		return nil, nil
	}
	if q.config.DropPolicy == vectord.EvictLowest && pending == 0 {
		newcomer := task{new: c.new}
		for p := range newcomer.priority() {
			if _, youngest, ok := q.queued[p].Max(); ok {
				return youngest, nil
			}
		}
	}
	return nil, queueFull(q.name, q.waiting+pending)
}

// dependencies returns the tasks for which a new one must wait, or why it fails at once.
func (x *tx) dependencies(q *queue, n *vectord.NewTask) (open []vectord.TaskID, failed *vectord.TaskError, refusal, err error) {
	for _, parent := range n.DependsOn {
		if p := x.s.tasks[parent]; p != nil {
			if q.durable() && !p.queue.durable() {
				return nil, nil, vectord.Errorf(vectord.KindInvalid, "depends_on: task %s is in memory only", parent), nil
			}
			open = append(open, parent)
			continue
		}
		h, err := x.terminal(q, parent)
		if err != nil {
			return nil, nil, nil, err
		}
		if h == nil {
			return nil, nil, vectord.Refuse(vectord.KindNotFound, vectord.CodeTaskNotFound, "depends_on: there is no task %s", parent), nil
		}
		if h.status != vectord.TaskCompleted && !n.RunOnDependencyFailure && failed == nil {
			failed = dependencyFailed(parent, h.status)
		}
	}
	return open, failed, nil, nil
}

// terminal returns the header of a terminal task, nil if there is none.
func (x *tx) terminal(q *queue, id vectord.TaskID) (*header, error) {
	if x.batch == nil {
		if t := x.s.volatile.done[id]; t != nil {
			return &t.header, nil
		}
		return x.s.storedHeader(x.s.store.Reader, id)
	}
	return x.s.storedHeader(x.batch.Reader, id)
}

func (s *Scheduler) storedHeader(r storage.Reader, id vectord.TaskID) (*header, error) {
	row, ok, err := r.Row(tableHeader, id[:])
	if err != nil || !ok {
		return nil, err
	}
	_, _, h, err := decodeHeader(row)
	return &h, err
}

// grantOutcome is the answer to one task of a grant.
type grantOutcome struct {
	task    vectord.Task
	spilled bool // the payload is to be read from its row
	err     error
}

// grant leases tasks to an agent. A task that has changed since it was chosen is left out.
func (x *tx) grant(g *grant) (value any, refusal, err error) {
	s := x.s
	a := s.agents[g.agent]
	out := make([]grantOutcome, len(g.leases))
	for i, l := range g.leases {
		t := s.tasks[l.id]
		switch {
		case a == nil:
			out[i].err = noAgent(g.agent)
		case t == nil || t.status != vectord.TaskQueued:
			out[i].err = vectord.Errorf(vectord.KindConflict, "task %s is not queued any more", l.id)
		case x.heldBy(a) >= a.config.Capacity:
			out[i].err = vectord.Errorf(vectord.KindConflict, "agent %s is at capacity", g.agent)
		default:
			x.lease(t, a, l)
			out[i].task, out[i].spilled = t.public(), t.spilled
		}
	}
	return out, nil, nil
}

// heldBy returns how many leases of an agent count against its capacity: all that it has, but for the log those that are in it.
func (x *tx) heldBy(a *agent) int {
	if x.batch != nil {
		return a.heldDurable
	}
	return len(a.held)
}

func (x *tx) lease(t *task, a *agent, l granted) {
	x.set(t, vectord.TaskRunning)
	t.attempt++
	t.series++
	t.started, t.agent = x.now, a.id
	t.lease, t.leaseSeconds = vectord.LeaseID(x.number()), l.leaseSeconds
	t.leaseExpires = x.now + int64(l.leaseSeconds)*1000
	t.preferred, t.progress = "", nil
	a.hold(t)
	t.queue.hold(t)
	x.save(t)
	switch {
	case !t.queue.durable():
		x.s.volatile.decide(t, l.decision)
	case len(l.decision) > 0:
		x.batch.PutRow(tableDecision, decisionKey(t.id, t.attempt), l.decision)
	}
	x.event(t, "leased")
}

// calls applies what holders of leases say, each on its own.
func (x *tx) calls(calls []call) ([]vectord.CallOutcome, error) {
	out := make([]vectord.CallOutcome, len(calls))
	for i := range calls {
		var err error
		if out[i], err = x.call(&calls[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (x *tx) call(c *call) (vectord.CallOutcome, error) {
	t := x.s.tasks[c.ID]
	if t == nil {
		return x.lateCall(c)
	}
	if t.status != vectord.TaskRunning || t.lease != c.LeaseID {
		return vectord.CallOutcome{Err: leaseLost(c.ID)}, nil
	}
	switch c.Kind {
	case vectord.CallComplete:
		return x.complete(t, c)
	case vectord.CallFail:
		pause := int64(-1)
		if c.RetryAfterMS > 0 {
			pause = c.RetryAfterMS
		}
		err := x.fail(t, c.Error, c.Final, pause)
		return vectord.CallOutcome{Status: t.status}, err
	case vectord.CallRelease:
		t.series--
		if t.cancelBy != 0 {
			err := x.end(t, vectord.TaskCancelled, nil)
			return vectord.CallOutcome{Status: t.status}, err
		}
		x.event(t, "released")
		x.queue(t)
	case vectord.CallHeartbeat:
		extend := c.Extend
		if extend == 0 {
			extend = t.leaseSeconds
		}
		t.leaseExpires = x.now + int64(extend)*1000
		t.updated = x.now
		if len(c.Progress) > 0 {
			t.progress = bytes.Clone(c.Progress)
			x.event(t, "progress")
		}
		x.save(t)
		return vectord.CallOutcome{Status: t.status, LeaseExpiresAt: vectord.Timestamp(t.leaseExpires), CancelRequested: t.cancelBy != 0}, nil
	case vectord.CallRequestInput:
		if t.cancelBy != 0 {
			err := x.end(t, vectord.TaskCancelled, nil)
			return vectord.CallOutcome{Status: t.status}, err
		}
		t.series-- // the attempt goes on
		t.inputRequest, t.inputAnswer = bytes.Clone(c.Request), nil
		t.preferred = t.agent
		x.set(t, vectord.TaskInputRequired)
		x.save(t)
		x.event(t, "input_required")
	}
	return vectord.CallOutcome{Status: t.status}, nil
}

// complete completes a task with all the effects that it carries, or with none, and then it is not completed.
func (x *tx) complete(t *task, c *call) (vectord.CallOutcome, error) {
	if refusal, err := x.checkEffects(c); refusal != nil || err != nil {
		return vectord.CallOutcome{Err: refusal}, err
	}
	if len(c.writes) > 0 {
		if refusal, err := x.write(c.writes); refusal != nil || err != nil {
			return vectord.CallOutcome{Err: refusal}, err
		}
	}
	t.result = bytes.Clone(c.Result)
	t.fingerprint = fingerprintOf(c)
	t.failure = nil
	for i := range c.submits { // the completed task's own may be the last ones
		for j := range c.submits[i].tasks {
			refs := c.submits[i].tasks[j].new.StateRefs
			x.s.states.refer(refs)
			defer x.s.states.release(refs, x.now)
		}
	}
	if err := x.end(t, vectord.TaskCompleted, nil); err != nil {
		return vectord.CallOutcome{}, err
	}
	out := vectord.CallOutcome{Status: t.status}
	for i := range c.submits {
		q, refusal, err := x.queueFor(&c.submits[i])
		if err == nil && refusal != nil {
			err = fmt.Errorf("queue of follow-up tasks was checked, and refused: %w", refusal)
		}
		if err != nil {
			return out, err
		}
		for j := range c.submits[i].tasks {
			submitted, err := x.submitOne(q, &c.submits[i].tasks[j])
			if err == nil && submitted.Err != nil {
				err = fmt.Errorf("follow-up task was checked, and refused: %w", submitted.Err)
			}
			if err != nil {
				return out, err
			}
			out.Tasks = append(out.Tasks, submitted.TaskID)
		}
	}
	return out, nil
}

// checkEffects returns why follow-up tasks would be refused, all of which come in together or not at all.
func (x *tx) checkEffects(c *call) (refusal, err error) {
	for i := range c.submits {
		config, refusal, err := x.configFor(&c.submits[i])
		switch {
		case err != nil:
			return nil, err
		case vectord.KindOf(refusal) == vectord.KindConflict:
			return vectord.Errorf(vectord.KindInvalid, "tasks: queue %q is %q, the completed task's is not", c.submits[i].queue, config.Durability), nil
		case refusal != nil:
			return refusal, nil
		}
		q := x.s.queues[c.submits[i].queue]
		sizes := 0
		if q == nil {
			q = &queue{name: c.submits[i].queue, config: config}
		}
		keys := map[[16]byte]uint64{}
		for j := range c.submits[i].tasks {
			t := &c.submits[i].tasks[j]
			if first, ok := keys[t.key]; ok && t.key != ([16]byte{}) && first != t.fingerprint {
				return vectord.Refuse(vectord.KindUnprocessable, vectord.CodeKeyReused, "tasks: idempotency key %.80q is used for two tasks", t.new.IdempotencyKey), nil
			}
			keys[t.key] = t.fingerprint
			if earlier, err := x.submitted(q, t); err != nil {
				return nil, err
			} else if earlier != nil {
				if earlier.Err != nil {
					return earlier.Err, nil
				}
				continue
			}
			if n := len(t.new.Vector); n > 0 {
				if sizes != 0 && n != sizes {
					return vectord.Refuse(vectord.KindInvalid, vectord.CodeDimensionMismatch, "tasks: vectors of %d and of %d components for queue %q", sizes, n, q.name), nil
				}
				sizes = n
			}
			if _, refusal := x.admit(q, t, j); refusal != nil {
				return refusal, nil
			}
			if _, _, refusal, err := x.dependencies(q, &t.new); refusal != nil || err != nil {
				return refusal, err
			}
			if refusal := x.s.states.check(t.new.StateRefs, x.now); refusal != nil {
				return refusal, nil
			}
		}
	}
	return nil, nil
}

// fingerprintOf tells a repetition of a completion from another one.
func fingerprintOf(c *call) uint64 {
	return xxh3.Hash(c.Result) | 1 // 0: the task was not completed
}

// lateCall answers a call for a task that is terminal, or not there.
func (x *tx) lateCall(c *call) (vectord.CallOutcome, error) {
	h, err := x.terminal(nil, c.ID)
	switch {
	case err != nil:
		return vectord.CallOutcome{}, err
	case h == nil:
		return vectord.CallOutcome{Err: noTask(c.ID)}, nil
	case c.Kind == vectord.CallComplete && h.status == vectord.TaskCompleted && h.lease == c.LeaseID:
		if h.fingerprint == fingerprintOf(c) {
			return vectord.CallOutcome{Status: h.status}, nil
		}
		return vectord.CallOutcome{Err: vectord.Refuse(vectord.KindConflict, vectord.CodeTaskTerminal, "task %s was completed under this lease with another result", c.ID)}, nil
	case h.lease != c.LeaseID:
		return vectord.CallOutcome{Err: leaseLost(c.ID)}, nil
	}
	return vectord.CallOutcome{Err: vectord.Refuse(vectord.KindConflict, vectord.CodeTaskTerminal, "task %s is %s", c.ID, h.status)}, nil
}

func leaseLost(id vectord.TaskID) error {
	return vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "task %s is not, or no longer, held under this lease", id)
}

func noTask(id vectord.TaskID) error {
	return vectord.Refuse(vectord.KindNotFound, vectord.CodeTaskNotFound, "there is no task %s", id)
}

func noQueue(name string) error {
	return vectord.Refuse(vectord.KindNotFound, vectord.CodeQueueNotFound, "there is no queue %.200q", name)
}

func noAgent(id string) error {
	return vectord.Refuse(vectord.KindNotFound, vectord.CodeAgentNotFound, "there is no agent %.200q", id)
}
