package scheduler

import (
	"context"
	"slices"

	"github.com/vectord/vectord"
)

// eventsKept is how many of the last events can be read again. Those before are gone, and so are all with the process.
const eventsKept = 65_536

// events is a ring of the last events.
type events struct {
	ring    []vectord.TaskEvent
	at      int           // of the oldest one, once the ring is full
	last    uint64        // id of the last one
	dropped uint64        // id of the last one that is not kept
	more    chan struct{} // closed when there are further ones; nil: nobody waits
}

// event notes a change of a task.
func (x *tx) event(t *task, what string) {
	e := &x.s.events
	id := max(e.last+1, x.index<<ordinalBits+1)
	if e.last == 0 {
		e.dropped = id - 1
	}
	e.last = id
	event := vectord.TaskEvent{ID: id, Type: what, Time: vectord.Timestamp(x.now), TaskID: t.id, Queue: t.queue.name, Status: t.status, Attempt: t.attempt}
	switch what {
	case "submitted":
		event.Status = vectord.TaskQueued // or whatever the next event of the task says
	case "progress":
		event.AgentID, event.Progress = t.agent, t.progress
	case "leased", "released", "cancel_requested", "completed":
		event.AgentID = t.agent
	case "failed", "attempt_failed":
		event.AgentID, event.Error = t.agent, t.failure
	}
	if len(e.ring) < eventsKept {
		e.ring = append(e.ring, event)
	} else {
		e.dropped = e.ring[e.at].ID
		e.ring[e.at] = event
		e.at = (e.at + 1) % eventsKept
	}
}

// since returns the events of a queue or task, of all for zero values, that came after one, at most limit of them, and up to
// which one that is all.
func (e *events) since(after uint64, queue string, task vectord.TaskID, limit int) (found []vectord.TaskEvent, through uint64) {
	i := len(e.ring) // by position from the oldest one
	for i > 0 && e.ring[(e.at+i-1)%len(e.ring)].ID > after {
		i--
	}
	through = after
	for ; i < len(e.ring) && len(found) < limit; i++ {
		event := &e.ring[(e.at+i)%len(e.ring)]
		through = event.ID
		if (queue == "" || event.Queue == queue) && (task == vectord.TaskID{} || event.TaskID == task) {
			found = append(found, *event)
		}
	}
	return found, through
}

// eventsAtOnce is how many events are copied before the lock is given back.
const eventsAtOnce = 256

// Events implements the server's Scheduler.
func (s *Scheduler) Events(ctx context.Context, queue string, task vectord.TaskID, after uint64, fn func(vectord.TaskEvent) error) error {
	if after == 0 {
		s.mu.Lock()
		after = s.events.last
		s.mu.Unlock()
	}
	first := after == 0 // there was none yet: all that come are after it
	for {
		s.mu.Lock()
		e := &s.events
		if first && e.last > 0 {
			first, after = false, e.dropped
		}
		if after < e.dropped || after > e.last {
			oldest := e.dropped
			s.mu.Unlock()
			return vectord.Refuse(vectord.KindConflict, vectord.CodeEventsCompacted, "events after %d are not kept any more, the oldest that is comes after %d", after, oldest)
		}
		found, through := e.since(after, queue, task, eventsAtOnce)
		var more chan struct{}
		if through == e.last {
			if e.more == nil {
				e.more = make(chan struct{})
			}
			more = e.more
		}
		s.mu.Unlock()
		after = through
		for _, event := range found {
			if err := fn(event); err != nil {
				return err
			}
		}
		if more == nil {
			continue
		}
		select {
		case <-more:
		case <-ctx.Done():
			return nil
		case <-s.stop.Done():
			return nil
		}
	}
}

// takeEnded returns the tasks that are in memory only and have ended since it was called last.
func (v *volatile) takeEnded() []*task {
	ended := v.ended
	v.ended = nil
	return ended
}

// announce wakes those who wait for the end of tasks, and for events.
func (s *Scheduler) announce(ended []*task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range ended {
		if s.ending[t.id] == t {
			delete(s.ending, t.id)
		}
		for _, w := range s.waiters[t.id] {
			close(w)
		}
		delete(s.waiters, t.id)
	}
	if s.events.more != nil {
		close(s.events.more)
		s.events.more = nil
	}
}

// Committed is called when what was applied since the last call is visible. What it returns is called when that is durable.
func (s *Scheduler) Committed() (durable func()) {
	s.mu.Lock()
	ended := append(s.ended, s.volatile.takeEnded()...)
	s.ended = nil
	pending := len(s.fresh) > 0 || len(s.freedAgents) > 0
	_, due := s.timers.next()
	sooner := due != 0 && (s.driven == 0 || due < s.driven)
	s.mu.Unlock()
	if pending {
		s.kick()
	}
	if sooner {
		s.wakeDriver()
	}
	return func() { s.announce(ended) }
}

// TaskResult implements the server's Scheduler.
func (s *Scheduler) TaskResult(ctx context.Context, id vectord.TaskID) (vectord.Task, error) {
	s.mu.Lock()
	if s.tasks[id] == nil && s.ending[id] == nil {
		s.mu.Unlock()
		return s.Task(id)
	}
	ended := make(chan struct{})
	s.waiters[id] = append(s.waiters[id], ended)
	s.mu.Unlock()
	select {
	case <-ended:
	case <-ctx.Done():
		s.stopWaiting(id, ended)
	case <-s.stop.Done():
		s.stopWaiting(id, ended)
	}
	return s.Task(id)
}

func (s *Scheduler) stopWaiting(id vectord.TaskID, w chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.waiters[id], w); i >= 0 {
		s.waiters[id] = slices.Delete(s.waiters[id], i, i+1)
		if len(s.waiters[id]) == 0 {
			delete(s.waiters, id)
		}
	}
}
