package scheduler

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// spill drops what a task that waits in the overflow does not need in memory.
func (s *Scheduler) spill(t *task) {
	if t.queue.durable() && t.queue.waiting > t.queue.config.MaxDepth {
		t.new.Payload, t.new.Metadata, t.spilled = nil, nil, true
	}
}

// loadPayload reads what was spilled.
func (s *Scheduler) loadPayload(t *vectord.Task) error {
	row, ok, err := s.store.Row(tableBody, t.ID[:])
	if err != nil || !ok {
		return err // gone in the meantime, or in memory only
	}
	n, err := decodeBody(row)
	t.Payload, t.Metadata = n.Payload, n.Metadata
	return err
}

// storedTask returns a task from its rows, nil if there is none. It is in no list.
func (s *Scheduler) storedTask(r storage.Reader, id vectord.TaskID) (*task, error) {
	row, ok, err := r.Row(tableHeader, id[:])
	if err != nil || !ok {
		return nil, err
	}
	number, seq, h, err := decodeHeader(row)
	if err != nil {
		return nil, fmt.Errorf("task %s: %w", id, err)
	}
	body, ok, err := r.Row(tableBody, id[:])
	if err != nil || !ok {
		return nil, err
	}
	t := &task{id: id, seq: seq, header: h, size: len(body), timer: -1, queue: s.queueByID[number]}
	if t.queue == nil {
		t.queue = &queue{config: vectord.DefaultQueueConfig()} // it was deleted
	}
	if t.new, err = decodeBody(body); err != nil {
		return nil, fmt.Errorf("task %s: %w", id, err)
	}
	return t, nil
}

// present returns a task of which memory knows more than the rows, which a batch that is not committed yet does not change;
// nil: there is none.
func (s *Scheduler) present(id vectord.TaskID) *task {
	if t := s.tasks[id]; t != nil {
		return t
	}
	return s.ending[id]
}

// Task implements the server's Scheduler.
func (s *Scheduler) Task(id vectord.TaskID) (vectord.Task, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.task(id)
}

func (s *Scheduler) task(id vectord.TaskID) (vectord.Task, error) {
	t := s.present(id)
	if t == nil {
		t = s.volatile.done[id]
	}
	if t == nil {
		var err error
		if t, err = s.storedTask(s.store.Reader, id); err != nil {
			return vectord.Task{}, err
		}
	}
	if t == nil {
		return vectord.Task{}, noTask(id)
	}
	p := t.public()
	if t.spilled {
		if err := s.loadPayload(&p); err != nil {
			return vectord.Task{}, err
		}
	}
	return p, nil
}

// scrollScanMax bounds the rows that one page of a listing looks at.
const scrollScanMax = 100_000

// scroll calls fn for the tasks of a selection by their ids, until it returns false.
func (s *Scheduler) scroll(c *vectord.TaskScroll, fn func(*task) bool) error {
	s.mu.Lock()
	if c.Queue != "" && s.queues[c.Queue] == nil {
		s.mu.Unlock()
		return noQueue(c.Queue)
	}
	matches := func(t *task) bool {
		return (c.Queue == "" || t.queue.name == c.Queue) && (c.Agent == "" || t.agent == c.Agent) && (c.Type == "" || t.new.Type == c.Type) &&
			(len(c.Status) == 0 || slices.Contains(c.Status, t.status)) &&
			!slices.ContainsFunc(c.Tags, func(tag string) bool { return !slices.Contains(t.new.Tags, tag) })
	}
	var volatile []*task // between which the stored ones are merged
	for _, t := range s.tasks {
		if !t.queue.durable() && slices.Compare(t.id[:], c.After[:]) > 0 && matches(t) {
			volatile = append(volatile, t)
		}
	}
	for _, t := range s.volatile.done {
		if slices.Compare(t.id[:], c.After[:]) > 0 && matches(t) {
			volatile = append(volatile, t)
		}
	}
	slices.SortFunc(volatile, func(a, b *task) int { return slices.Compare(a.id[:], b.id[:]) })
	s.mu.Unlock()
	more, scanned := true, 0
	err := s.store.ScanRows(tableHeader, append(slices.Clone(c.After[:]), 0), func(key, row []byte) (bool, error) {
		if scanned++; scanned > scrollScanMax {
			return false, vectord.Errorf(vectord.KindLimited, "more than %d tasks were looked at, go on behind the last one or ask for less", scrollScanMax)
		}
		id, err := taskKey(key)
		if err != nil {
			return false, err
		}
		s.mu.Lock() // for one row at a time, so that nobody waits for the whole scan
		defer s.mu.Unlock()
		for more && len(volatile) > 0 && slices.Compare(volatile[0].id[:], id[:]) < 0 {
			more, volatile = fn(volatile[0]), volatile[1:]
		}
		if !more {
			return false, nil
		}
		t := s.present(id)
		if t == nil {
			number, _, h, err := decodeHeader(row)
			if err != nil {
				return false, err
			}
			if q := s.queueByID[number]; c.Queue != "" && (q == nil || q.name != c.Queue) || len(c.Status) > 0 && !slices.Contains(c.Status, h.status) {
				return true, nil
			}
			if t, err = s.storedTask(s.store.Reader, id); err != nil {
				return false, err
			}
		}
		if t != nil && matches(t) {
			more = fn(t)
		}
		return more, nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for err == nil && more && len(volatile) > 0 {
		more, volatile = fn(volatile[0]), volatile[1:]
	}
	return err
}

// ScrollTasks implements the server's Scheduler.
func (s *Scheduler) ScrollTasks(c vectord.TaskScroll) ([]vectord.Task, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	limit := cmp.Or(c.Limit, 100)
	tasks := []vectord.Task{}
	var spilled []int
	err := s.scroll(&c, func(t *task) bool {
		if t.spilled {
			spilled = append(spilled, len(tasks))
		}
		tasks = append(tasks, t.public())
		return len(tasks) < limit
	})
	for _, i := range spilled {
		if err == nil {
			err = s.loadPayload(&tasks[i])
		}
	}
	return tasks, err
}

// CountTasks implements the server's Scheduler.
func (s *Scheduler) CountTasks(c vectord.TaskScroll) (n int, err error) {
	if err := c.Check(); err != nil {
		return 0, err
	}
	err = s.scroll(&c, func(*task) bool {
		n++
		return true
	})
	return n, err
}

// Decisions implements the server's Scheduler.
func (s *Scheduler) Decisions(id vectord.TaskID) ([]vectord.Decision, error) {
	t, err := s.Task(id)
	if err != nil {
		return nil, err
	}
	decisions := []vectord.Decision{}
	add := func(b []byte) error {
		var d vectord.Decision
		err := json.Unmarshal(b, &d)
		decisions = append(decisions, d)
		return err
	}
	s.mu.Lock()
	inMemory := slices.Clone(s.volatile.decisions[id])
	s.mu.Unlock()
	for _, b := range inMemory {
		if err := add(b); err != nil {
			return nil, err
		}
	}
	for attempt := 1; attempt <= t.Attempt; attempt++ {
		row, ok, err := s.store.Row(tableDecision, decisionKey(id, attempt))
		if err == nil && ok {
			err = add(row)
		}
		if err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

// Queue implements the server's Scheduler.
func (s *Scheduler) Queue(name string) (vectord.QueueInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := s.queues[name]
	if q == nil {
		return vectord.QueueInfo{}, noQueue(name)
	}
	return s.queueInfo(q), nil
}

func (s *Scheduler) queueInfo(q *queue) vectord.QueueInfo {
	info := vectord.QueueInfo{Name: q.name, Config: q.config, Counts: map[vectord.TaskStatus]int{}}
	info.Config.Routing.VectorSize = q.size
	for status := vectord.TaskScheduled; status <= vectord.TaskCancelled; status++ {
		info.Counts[status] = q.counts[status]
	}
	now := s.now()
	for _, c := range s.snapshot().byQueue[q.name] {
		if c.agent.status(now) == vectord.AgentActive {
			info.Agents++
		}
	}
	for i := range q.ready.levels {
		if at, ok := q.ready.levels[i].oldest(); ok {
			info.OldestMS = max(info.OldestMS, now-at)
		}
	}
	return info
}

// Queues implements the server's Scheduler.
func (s *Scheduler) Queues() []vectord.QueueInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]vectord.QueueInfo, 0, len(s.queues))
	for _, q := range s.queues {
		list = append(list, s.queueInfo(q))
	}
	slices.SortFunc(list, func(a, b vectord.QueueInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

// Agent implements the server's Scheduler.
func (s *Scheduler) Agent(id string) (vectord.Agent, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.agents[id]
	if a == nil {
		return vectord.Agent{}, noAgent(id)
	}
	return s.publicAgent(a), nil
}

func (s *Scheduler) publicAgent(a *agent) vectord.Agent {
	reference := 0.0
	for q := range s.queuesOf(a) {
		reference = max(reference, q.reference())
	}
	return vectord.Agent{ID: a.id, AgentConfig: a.config, Status: a.status(s.now()), InFlight: int(a.inFlight.Load()), Load: a.load(reference),
		Completed: a.completed.Load(), Failed: a.failed.Load(), LastSeen: vectord.Timestamp(a.lastSeen.Load())}
}

// Agents implements the server's Scheduler.
func (s *Scheduler) Agents() []vectord.Agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]vectord.Agent, 0, len(s.agents))
	for _, a := range s.agents {
		list = append(list, s.publicAgent(a))
	}
	slices.SortFunc(list, func(a, b vectord.Agent) int { return cmp.Compare(a.ID, b.ID) })
	return list
}
