package scheduler

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/vectord/vectord"
)

// cancel cancels a task that waits, and asks the agent of one that runs to stop.
func (x *tx) cancel(c taskCommand) (value any, refusal, err error) {
	t := x.s.tasks[c.ID]
	if t == nil {
		h, err := x.terminal(nil, c.ID)
		switch {
		case err != nil:
			return nil, nil, err
		case h == nil:
			return nil, noTask(c.ID), nil
		case h.status == vectord.TaskCancelled:
			return nil, nil, nil
		}
		return nil, vectord.Refuse(vectord.KindConflict, vectord.CodeTaskTerminal, "task %s is %s", c.ID, h.status), nil
	}
	if t.status != vectord.TaskRunning {
		return nil, nil, x.end(t, vectord.TaskCancelled, nil)
	}
	if t.cancelBy == 0 {
		t.cancelBy = x.now + int64(t.queue.config.CancelGraceSeconds)*1000
		t.updated = x.now
		x.save(t)
		x.event(t, "cancel_requested")
	}
	return nil, nil, nil
}

func (x *tx) giveInput(c giveInput) (value any, refusal, err error) {
	t := x.s.tasks[c.ID]
	switch {
	case t == nil:
		return nil, x.absent(c.ID), nil
	case t.status != vectord.TaskInputRequired:
		return nil, vectord.Errorf(vectord.KindConflict, "task %s is %s and waits for no input", c.ID, t.status), nil
	}
	t.inputAnswer = c.Response
	x.event(t, "input_given")
	x.queue(t)
	return nil, nil, nil
}

// absent says whether a task is terminal or not there at all.
func (x *tx) absent(id vectord.TaskID) error {
	if h, err := x.terminal(nil, id); err == nil && h != nil {
		return vectord.Refuse(vectord.KindConflict, vectord.CodeTaskTerminal, "task %s is %s", id, h.status)
	}
	return noTask(id)
}

// redrive queues failed tasks again, with as many attempts as a new one has. Those that are not failed are left alone.
func (x *tx) redrive(c redrive) (value any, refusal, err error) {
	q := x.s.queues[c.Queue]
	if q == nil {
		return nil, noQueue(c.Queue), nil
	}
	n := 0
	again := map[vectord.TaskID]bool{}
	for _, id := range c.IDs {
		t, err := x.failed(q, id)
		if err != nil {
			return nil, nil, err
		}
		if t == nil {
			continue
		}
		if q.waiting >= q.config.MaxDepth+q.config.MaxOverflow {
			break
		}
		n++
		if q.counts[vectord.TaskFailed] > 0 {
			q.counts[vectord.TaskFailed]--
		}
		t.series, t.status, t.cancelBy = 0, 0, 0
		t.new.Deadline = 0 // it has passed, or was not what failed the task
		t.new.DependsOn = nil
		if x.batch != nil {
			x.batch.PutRow(tableBody, id[:], appendBody(nil, &t.new))
		}
		x.s.tasks[id], again[id] = t, true
		x.s.states.refer(t.new.StateRefs)
		x.event(t, "redriven")
		x.queue(t)
		x.s.spill(t)
	}
	// Tasks that went on without one that had failed wait for it again, as they would after a restart.
	for _, t := range x.s.ordered(func(t *task) bool { return len(again) > 0 && t.status == vectord.TaskBlocked }) {
		for _, parent := range t.new.DependsOn {
			if again[parent] {
				t.openDependencies++
				x.s.dependents[parent] = append(x.s.dependents[parent], t)
			}
		}
	}
	return n, nil, nil
}

// failed returns a failed task of a queue, nil if there is none.
func (x *tx) failed(q *queue, id vectord.TaskID) (*task, error) {
	if x.batch == nil {
		t := x.s.volatile.done[id]
		if t == nil || t.queue != q || t.status != vectord.TaskFailed {
			return nil, nil
		}
		x.s.volatile.forget(id)
		return t, nil
	}
	t, err := x.s.storedTask(x.batch.Reader, id)
	if err != nil || t == nil || t.queue != q || t.status != vectord.TaskFailed || x.s.tasks[id] != nil {
		return nil, err
	}
	return t, nil
}

func (x *tx) putQueue(c putQueue) (value any, refusal, err error) {
	q := x.s.queues[c.Name]
	if q == nil {
		if len(x.s.queues) >= vectord.MaxQueues {
			return nil, vectord.Errorf(vectord.KindInvalid, "there are %d queues, as many as there may be", len(x.s.queues)), nil
		}
		_, err := x.newQueue(c.Name, c.Config)
		return nil, nil, err
	}
	if q.config.Durability != c.Config.Durability {
		return nil, vectord.Errorf(vectord.KindConflict, "durability: queue %q is %q, which cannot be changed", c.Name, q.config.Durability), nil
	}
	if size := c.Config.Routing.VectorSize; size != 0 && size != q.size {
		if q.durable() && q.size != 0 && q.waiting+q.counts[vectord.TaskRunning] > 0 {
			return nil, vectord.Errorf(vectord.KindConflict, "routing.vector_size: the queue has tasks with vectors of %d components", q.size), nil
		}
		q.size = size
	}
	q.config = c.Config
	q.follow()
	x.s.relateFallbacks()
	x.s.rethink(q)
	return nil, nil, x.saveQueue(q)
}

// deleteQueue drops a queue. Its tasks fail, and are kept as long as others.
func (x *tx) deleteQueue(c deleteQueue) (value any, refusal, err error) {
	q := x.s.queues[c.Name]
	if q == nil {
		return nil, noQueue(c.Name), nil
	}
	live := q.waiting + q.counts[vectord.TaskRunning]
	if live > 0 && !c.Force && q.durable() { // DeleteQueue has looked at the others, which other replicas do not know
		return nil, notEmpty(c.Name, live), nil
	}
	ends := x
	if !q.durable() { // its tasks have no rows, and timers of their own
		ends = &tx{s: x.s, now: x.now}
	}
	for _, t := range x.s.ordered(func(t *task) bool { return t.queue == q }) {
		if t.status.Terminal() { // one of its dependencies was before it
			continue
		}
		if err := ends.end(t, vectord.TaskFailed, &vectord.TaskError{Code: vectord.ErrorQueueDeleted}); err != nil {
			return nil, nil, err
		}
	}
	delete(x.s.queues, q.name)
	delete(x.s.queueByID, q.id)
	delete(x.s.fresh, q)
	x.s.registry.Store(nil)
	x.s.relateFallbacks()
	clear(q.pollers)
	if x.batch != nil {
		x.batch.DeleteRow(tableQueue, queueKey(q.id))
	}
	return nil, nil, nil
}

func notEmpty(queue string, live int) error {
	return vectord.Refuse(vectord.KindConflict, vectord.CodeQueueNotEmpty, "queue %q has %d tasks that are not terminal", queue, live)
}

func (x *tx) putAgent(c putAgent) (value any, refusal, err error) {
	s := x.s
	a := s.agents[c.ID]
	var missing []string
	for _, name := range c.Config.Queues {
		if s.queues[name] == nil && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	if len(s.queues)+len(missing) > vectord.MaxQueues {
		return nil, vectord.Errorf(vectord.KindInvalid, "there are %d queues, and may be %d", len(s.queues), vectord.MaxQueues), nil
	}
	for _, name := range missing {
		if _, err := x.newQueue(name, c.Queue); err != nil {
			return nil, nil, err
		}
	}
	if a == nil {
		if len(s.agents) >= vectord.MaxAgents {
			return nil, vectord.Errorf(vectord.KindInvalid, "there are %d agents, as many as there may be", len(s.agents)), nil
		}
		a = s.newAgent(c.ID)
		x.saveCounter(counterAgents, a.number)
	}
	a.draining = false
	s.configure(a, c.Config)
	a.seen(s.now())
	return nil, nil, x.saveAgent(a)
}

type agentRow struct {
	Config   vectord.AgentConfig `json:"config"`
	Draining bool                `json:"draining,omitempty"`
	Number   uint64              `json:"number"`
}

func (x *tx) saveAgent(a *agent) error {
	row, err := json.Marshal(agentRow{a.config, a.draining, a.number})
	if err == nil {
		x.batch.PutRow(tableAgent, []byte(a.id), row)
	}
	return err
}

func (s *Scheduler) loadAgent(key, row []byte) (bool, error) {
	var r agentRow
	if err := json.Unmarshal(row, &r); err != nil {
		return false, fmt.Errorf("agent %q: %w", key, err)
	}
	last := max(s.nextAgent, r.Number)
	a := s.newAgent(string(key))
	a.draining, a.number = r.Draining, r.Number
	s.nextAgent = last
	s.configure(a, r.Config)
	a.seen(s.now()) // it had nobody to give a sign of life to
	return true, nil
}

func (x *tx) removeAgent(c agentCommand) (value any, refusal, err error) {
	a := x.s.agents[c.ID]
	if a == nil {
		return nil, noAgent(c.ID), nil
	}
	if err := x.endLeasesOf(a, "the agent was removed"); err != nil {
		return nil, nil, err
	}
	x.s.dropAgent(a)
	x.batch.DeleteRow(tableAgent, []byte(a.id))
	return nil, nil, nil
}

func (x *tx) drainAgent(c agentCommand) (value any, refusal, err error) {
	a := x.s.agents[c.ID]
	if a == nil {
		return nil, noAgent(c.ID), nil
	}
	a.draining = c.Drain
	x.s.registry.Store(nil)
	x.s.freed(a)
	return nil, nil, x.saveAgent(a)
}

// endLeases ends all leases of an agent that is known to have died.
func (x *tx) endLeases(c agentCommand) (value any, refusal, err error) {
	a := x.s.agents[c.ID]
	if a == nil {
		return nil, noAgent(c.ID), nil
	}
	return nil, nil, x.endLeasesOf(a, c.Reason)
}

func (x *tx) endLeasesOf(a *agent, reason string) error {
	held := make([]*task, 0, len(a.held))
	for _, t := range a.held {
		if t.queue.durable() == (x.batch != nil) {
			held = append(held, t)
		}
	}
	sortTasks(held)
	for _, t := range held {
		if err := x.fail(t, vectord.TaskError{Code: vectord.ErrorAgentDied, Message: reason}, false, 0); err != nil {
			return err
		}
	}
	return nil
}

// submittedEarlier is what is kept of an idempotency key.
type submittedEarlier struct {
	id          vectord.TaskID
	fingerprint uint64
	time        int64
}

func (x *tx) remember(q *queue, c *submission) {
	if c.key == ([16]byte{}) {
		return
	}
	if x.batch == nil {
		x.s.volatile.keys[volatileKey{q, c.key}] = submittedEarlier{c.id, c.fingerprint, x.now}
		return
	}
	row := binary.LittleEndian.AppendUint64(slices.Clone(c.id[:]), c.fingerprint)
	x.batch.PutRow(tableKey, submissionKey(q.id, c.key), binary.LittleEndian.AppendUint64(row, uint64(x.now)))
}

// lookUp returns what was submitted under a key within the queue's window, or is not terminal yet.
func (x *tx) lookUp(q *queue, key [16]byte) (e submittedEarlier, ok bool, err error) {
	if x.batch == nil || !q.durable() {
		e, ok = x.s.volatile.keys[volatileKey{q, key}]
	} else {
		row, found, err := x.batch.Row(tableKey, submissionKey(q.id, key))
		if err != nil || !found {
			return e, false, err
		}
		if e, err = decodeSubmitted(row); err != nil {
			return e, false, err
		}
		ok = true
	}
	if ok && x.now-e.time > int64(q.config.IdempotencyWindowSeconds)*1000 && x.s.tasks[e.id] == nil {
		ok = false
	}
	return e, ok, nil
}

func decodeSubmitted(row []byte) (e submittedEarlier, err error) {
	r := reader{b: row}
	e = submittedEarlier{r.id(), r.fixed64(), int64(r.fixed64())}
	return e, r.end()
}

// purge drops what has been kept long enough. What has changed since it was found is kept.
func (x *tx) purge(c purge) (value any, refusal, err error) {
	for _, id := range c.Tasks {
		t, err := x.s.storedTask(x.batch.Reader, id)
		if err != nil {
			return nil, nil, err
		}
		if t == nil || !t.status.Terminal() {
			continue
		}
		x.batch.DeleteRow(tableHeader, id[:])
		x.batch.DeleteRow(tableBody, id[:])
		for attempt := 1; attempt <= t.attempt; attempt++ {
			x.batch.DeleteRow(tableDecision, decisionKey(id, attempt))
		}
	}
	for _, key := range c.Keys {
		row, ok, err := x.batch.Row(tableKey, key)
		if err != nil {
			return nil, nil, err
		}
		if e, err := decodeSubmitted(row); ok && (err != nil || x.s.keyExpired(key, e, x.now)) {
			x.batch.DeleteRow(tableKey, key)
		}
	}
	for _, key := range c.States {
		x.s.states.expire(x.batch, key, x.now)
	}
	return nil, nil, nil
}

// keyExpired reports whether an idempotency key has been kept long enough.
func (s *Scheduler) keyExpired(key []byte, e submittedEarlier, now int64) bool {
	if s.tasks[e.id] != nil || len(key) < 4 {
		return false
	}
	q := s.queueByID[binary.BigEndian.Uint32(key)]
	return q == nil || now-e.time > int64(q.config.IdempotencyWindowSeconds)*1000
}
