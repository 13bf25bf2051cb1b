package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/vectord/vectord"
)

const (
	// scanMax bounds the tasks that are looked at for one poll, or at a time for all that wait.
	scanMax = 16_384
	// looksMax bounds the tasks whose margin is widened while the lock is held; the dispatcher goes on lookPause later.
	looksMax  = 128
	lookPause = time.Millisecond
	// routeBatch is how many tasks are compared with the agents before the lock is asked for again.
	routeBatch = 64
	// smallRegistry is how many agents a poll itself compares tasks with that were not compared yet; where there are more it
	// compares comparedMax tasks.
	smallRegistry = 256
	comparedMax   = 8
	// rethinkEvery is how often tasks that wait for more than an agent are looked at again.
	rethinkEvery = 25 * time.Millisecond
)

// leaseBytesMax bounds what the tasks of one lease were submitted with together, unless a single one has more.
const leaseBytesMax = 16 << 20

// poll is a call of Lease that wants tasks. The scheduler's mu guards it.
type poll struct {
	agent   *agent
	only    *queue // nil: all that the agent serves
	want    int
	chosen  []choice
	bytes   int           // of the bodies of the chosen tasks
	filled  chan struct{} // gets one when something was chosen, or the poll has ended
	waiting bool
}

// choice is a task that is to be granted to the poll's agent.
type choice struct {
	task     *task
	decision *vectord.Decision // nil where there was no choice
}

func (p *poll) room() int {
	if p.bytes >= leaseBytesMax {
		return 0
	}
	return min(p.want-len(p.chosen), p.agent.free())
}

// end wakes whoever waits.
func (p *poll) end() {
	select {
	case p.filled <- struct{}{}:
	default:
	}
}

// enqueue takes a queued task among those that wait to be leased.
func (s *Scheduler) enqueue(t *task, now int64) {
	t.readyAt, t.routed, t.steps, t.widenAt, t.similars = now, false, 0, 0, nil
	if t.constrained() {
		t.waiting = "no suitable agent has asked"
	}
	s.push(t, now)
}

// push makes a task ready. Polls that come to wait look at all that is ready, so that it is fresh for those only that wait already.
func (s *Scheduler) push(t *task, now int64) {
	t.queue.ready.push(t, now)
	if len(t.queue.pollers) > 0 {
		s.markFresh(t)
	}
}

// markFresh has the dispatcher look at a task.
func (s *Scheduler) markFresh(t *task) {
	q := t.queue
	if !t.fresh {
		t.fresh = true
		q.fresh = append(q.fresh, t)
	}
	s.fresh[q] = struct{}{}
}

// dequeue takes out a task that is not queued any more.
func (s *Scheduler) dequeue(t *task) {
	t.queue.ready.remove(t)
	t.similars, t.waiting = nil, ""
}

// freed has the waiting polls of an agent looked at again.
func (s *Scheduler) freed(a *agent) {
	if len(a.polls) > 0 {
		s.freedAgents[a] = struct{}{}
	}
}

// reserve chooses a task for a poll.
func (s *Scheduler) reserve(p *poll, t *task, d *vectord.Decision, now int64) {
	q := t.queue
	q.ready.remove(t)
	q.reserved++
	q.hold(t)
	q.limiter.spend(now)
	if q.limitsKeys() {
		q.key(t.new.FairnessKey).limiter.spend(now)
	}
	p.agent.reserved++
	s.turns++
	p.agent.turn, p.agent.idleAt = s.turns, now
	p.chosen, t.chosenBy = append(p.chosen, choice{t, d}), p
	p.bytes += t.size
	s.metrics.assigned(now - t.readyAt)
}

// unreserve ends the reservation of a task, whose grant has been applied or will not be.
func (s *Scheduler) unreserve(p *poll, t *task) {
	t.queue.reserved--
	t.queue.letGo(t)
	p.agent.reserved--
	if t.chosenBy != p { // it was granted, came back, and goes to another poll by now
		return
	}
	t.chosenBy = nil
	if t.status == vectord.TaskQueued && t.lane == nil && s.tasks[t.id] == t {
		s.push(t, s.now())
	}
}

// collect chooses tasks for a poll. The scheduler's mu is held.
func (s *Scheduler) collect(p *poll) {
	now := s.now()
	if p.room() <= 0 || p.agent.status(now) == vectord.AgentDraining {
		return
	}
	compared := 0
	p.agent.firstQueue = (p.agent.firstQueue + 1) % len(p.agent.config.Queues)
	for q := range s.sources(p) {
		if p.room() <= 0 {
			return
		}
		s.widen(q, now)
		serves := slices.Contains(p.agent.config.Queues, q.name)
		q.ready.walk(now, int64(q.config.AgingSeconds)*1000, scanMax, serves, q.ready.suiting(p.agent, serves), func(t *task) verdict {
			if p.room() <= 0 {
				return stop
			}
			if v, held := q.heldBack(t, now); held {
				return v
			}
			began := t.began()
			if !t.routed && len(t.new.Vector) > 0 && t.new.AgentID == "" {
				list := s.snapshot().byQueue[q.name]
				if len(list) > smallRegistry {
					if compared == comparedMax {
						s.markFresh(t)
						return skip // the next poll goes on, or the dispatcher, where a poll waits
					}
					compared++
				}
				similars, best := nearest(list, t.new.Vector, t.new.Tags, "", now)
				t.route(similars, best, now)
				q.ready.settle(t, now)
			}
			if _, ok := s.may(t, p.agent, now); !ok {
				t.waiting = "no suitable agent"
				return skip
			}
			s.reserve(p, t, s.decide(t, p.agent, began), now)
			return take
		})
	}
}

// began returns when the choice of a task's agent began, if it is to be explained: most are not, and a clock costs time.
func (t *task) began() (now time.Time) {
	if t.constrained() {
		now = time.Now()
	}
	return now
}

// decide explains the choice of a task's agent where there was one.
func (s *Scheduler) decide(t *task, a *agent, began time.Time) *vectord.Decision {
	if !t.constrained() {
		return nil
	}
	return s.explain(t, a, began, candidatesMax)
}

// sources yields the queues that a poll may get tasks from: those that its agent serves, beginning with another one each
// time, and those that fall back to them.
func (s *Scheduler) sources(p *poll) func(yield func(*queue) bool) {
	return func(yield func(*queue) bool) {
		names := p.agent.config.Queues
		first := p.agent.firstQueue
		for i := range names {
			q := s.queues[names[(i+first)%len(names)]]
			if q == nil || p.only != nil && p.only != q {
				continue
			}
			if !yield(q) {
				return
			}
			for _, other := range s.fallbacks["queue:"+q.name] {
				if !yield(other) {
					return
				}
			}
		}
		for _, other := range s.fallbacks["agent:"+p.agent.id] {
			if !slices.Contains(names, other.name) && !yield(other) {
				return
			}
		}
	}
}

// relateFallbacks notes which queues fall back to what.
func (s *Scheduler) relateFallbacks() {
	s.fallbacks = map[string][]*queue{}
	for _, q := range s.queues {
		if f := q.config.Routing.Fallback; f != "wait" && f != "any" && f != "reject" {
			s.fallbacks[f] = append(s.fallbacks[f], q)
		}
	}
	s.relatePolls()
}

// relatePolls notes anew which agents wait for tasks of which queues, after a change of these or of what agents serve.
func (s *Scheduler) relatePolls() {
	for _, q := range s.queues {
		clear(q.pollers)
	}
	for _, a := range s.agents {
		for _, p := range a.polls {
			for q := range s.sources(p) {
				q.pollers[a] = struct{}{}
			}
		}
	}
}

// wait puts a poll among those that wait, or takes it out.
func (s *Scheduler) wait(p *poll, waits bool) {
	a := p.agent
	if p.waiting == waits {
		return
	}
	p.waiting = waits
	if waits {
		a.polls = append(a.polls, p)
	} else if i := slices.Index(a.polls, p); i >= 0 {
		a.polls = slices.Delete(a.polls, i, i+1)
	}
	for q := range s.sources(p) {
		if len(a.polls) > 0 {
			q.pollers[a] = struct{}{}
		} else {
			delete(q.pollers, a)
		}
	}
	if len(a.polls) == 0 {
		for q := range s.queuesOf(a) {
			delete(q.pollers, a)
		}
	}
}

// open returns the waiting poll of an agent that has room for a task of the queue, nil if there is none.
func (a *agent) open(q *queue) *poll {
	for _, p := range a.polls {
		if p.room() > 0 && (p.only == nil || p.only == q) {
			return p
		}
	}
	return nil
}

// dispatchLoop matches tasks with the polls that wait.
func (s *Scheduler) dispatchLoop(l *leadership) {
	tick := time.NewTicker(rethinkEvery)
	defer tick.Stop()
	every := rethinkEvery
	for {
		periodic := false
		select {
		case <-s.dispatchWake:
		case <-tick.C:
			periodic = true
		case <-l.stop.Done():
			return
		}
		next := rethinkEvery
		if s.dispatch(periodic) {
			next = lookPause
		}
		if next != every {
			every = next
			tick.Reset(every)
		}
	}
}

// kick has the dispatcher look at what is fresh.
func (s *Scheduler) kick() {
	select {
	case s.dispatchWake <- struct{}{}:
	default:
	}
}

// dispatch matches what is fresh, and reports whether there are more tasks whose time to be looked at has come.
func (s *Scheduler) dispatch(periodic bool) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if periodic {
		for _, q := range s.queues {
			if q.ready.count > 0 && len(q.pollers) > 0 {
				s.fresh[q] = struct{}{}
			}
		}
	}
	for a := range s.freedAgents {
		delete(s.freedAgents, a)
		for _, p := range slices.Clone(a.polls) {
			if s.collect(p); len(p.chosen) > 0 {
				s.wait(p, false)
				p.end()
			}
		}
	}
	for q := range s.fresh {
		delete(s.fresh, q)
		if q.ready.count > 0 && len(q.pollers) > 0 {
			s.routeFresh(q)
			more = s.match(q) || more
		} else {
			q.forget()
		}
	}
	return more
}

// routeFresh compares fresh tasks with the queue's agents, without the lock meanwhile.
func (s *Scheduler) routeFresh(q *queue) {
	for batch := routeBatch; ; {
		tasks := q.toRoute(batch)
		if len(tasks) == 0 {
			return
		}
		list, now, rethought := s.snapshot().byQueue[q.name], s.now(), q.rethought
		type routed struct {
			similars []similar
			best     float64
		}
		found := make([]routed, len(tasks))
		compare := func() {
			for i, t := range tasks {
				found[i].similars, found[i].best = nearest(list, t.new.Vector, t.new.Tags, "", now)
			}
		}
		if len(list) <= smallRegistry {
			compare()
		} else {
			s.mu.Unlock()
			compare()
			s.mu.Lock()
		}
		if q.rethought != rethought { // by agents that were not compared
			batch = 1 // in whose shorter time there is less of that
			continue
		}
		for i, t := range tasks {
			if t.lane != nil {
				t.route(found[i].similars, found[i].best, now)
				q.ready.settle(t, now)
			}
		}
	}
}

// toRoute returns fresh tasks that were not compared with the agents, at most limit.
func (q *queue) toRoute(limit int) (tasks []*task) {
	add := func(t *task) (more bool) {
		if t.lane != nil && !t.routed && len(t.new.Vector) > 0 && t.new.AgentID == "" {
			tasks = append(tasks, t)
		}
		return len(tasks) < limit
	}
	if !q.anew {
		for _, t := range q.fresh {
			if !add(t) {
				break
			}
		}
		return tasks
	}
	for p := len(q.queued) - 1; p >= 0 && len(tasks) < limit; p-- {
		q.queued[p].Scan(func(_ uint64, t *task) bool { return add(t) })
	}
	return tasks
}

// match gives the queue's fresh tasks, and those that a limit kept, to polls that wait. more says that there are more tasks
// whose time to be looked at has come.
//
// Invariant: after it no poll that waits and has room may have a task that is ready, but for what is left in fresh and anew,
// and the limits. A poll looks at all that is ready before it waits, and when its agent has room again (freed), so that it can only
// miss what comes or changes later: pushed, widened, thought of anew.
func (s *Scheduler) match(q *queue) (more bool) {
	now := s.now()
	more = s.widen(q, now)
	room := 0
	for a := range q.pollers {
		if a.open(q) != nil {
			room += a.free()
		}
		if room >= q.ready.count {
			break
		}
	}
	if room <= 0 {
		q.forget()
		return more
	}
	tasks := q.ready.all
	if !q.anew {
		if len(q.fresh) == 0 && len(q.ready.held) == 0 {
			return more
		}
		tasks = q.ready.freshly(q.fresh)
	}
	q.anew = false
	filled := map[*poll]struct{}{}
	q.ready.walk(now, int64(q.config.AgingSeconds)*1000, scanMax, false, tasks, func(t *task) verdict {
		if room <= 0 {
			return stop
		}
		if v, held := q.heldBack(t, now); held {
			return v
		}
		delete(q.ready.held, t.lane)
		t.fresh = false
		began := t.began()
		best := s.choose(t, now)
		if best.agent == nil {
			t.waiting = "no suitable agent is free"
			return skip
		}
		p := best.agent.open(q)
		s.reserve(p, t, s.decide(t, best.agent, began), now)
		filled[p] = struct{}{}
		room--
		return take
	})
	if room <= 0 || q.anew {
		q.fresh = unmarked(q.fresh, func(*task) bool { return true })
	} else {
		q.fresh = unmarked(q.fresh, func(t *task) bool { return !t.fresh || t.lane == nil || q.ready.holds(t) })
	}
	for p := range filled {
		s.wait(p, false)
		p.end()
	}
	return more
}

// unmarked returns the fresh tasks without some, which are not fresh any more.
func unmarked(fresh []*task, drop func(*task) bool) []*task {
	return slices.DeleteFunc(fresh, func(t *task) bool {
		t.fresh = !drop(t)
		return !t.fresh
	})
}

// forget is called while no poll waits that has room: each looks at all tasks by itself when it is made, and when it has room again.
func (q *queue) forget() {
	q.fresh, q.anew = unmarked(q.fresh, func(*task) bool { return true }), false
}

// heldBack says what becomes of a task, or of all that come behind it, that a limit keeps from being leased.
func (q *queue) heldBack(t *task, now int64) (v verdict, held bool) {
	all, this := q.limited(t, q.reserved, now)
	switch {
	case all:
		t.waiting, q.anew = "limit of the queue", true
		return stop, true
	case this:
		q.ready.held[t.lane] = struct{}{}
		return leave, true
	}
	return skip, false
}

// widen looks again at tasks whose time has come, looksMax at most: they may be given to agents that are farther away, or to
// others than the one that was preferred. more says that there are more of them.
func (s *Scheduler) widen(q *queue, now int64) (more bool) {
	for range looksMax {
		t, ok := q.ready.looks.Min()
		if !ok || t.lookAt > now {
			return false
		}
		threshold, far := t.threshold()
		if t.routed && now >= t.widenAt {
			t.steps += 1 + int((now-t.widenAt)/max(q.config.Routing.AffinityWaitMS, 1))
			s.look(t, now)
		}
		q.ready.settle(t, now)
		if threshold2, far2 := t.threshold(); threshold2 != threshold || far2 != far || t.preferred != "" {
			s.markFresh(t)
		}
	}
	return true
}

// look has a task that was compared with the agents find out again which of them are there. Agents that have come or have changed
// since are none of its concern: then it is compared anew.
func (s *Scheduler) look(t *task, now int64) {
	for _, c := range t.similars {
		if c.agent.status(now) == vectord.AgentActive {
			t.route(t.similars, c.similarity, now)
			return
		}
	}
	similars, best := t.similars, 0.0
	if len(similars) == similarsKept {
		similars, best = nearest(s.snapshot().byQueue[t.queue.name], t.new.Vector, t.new.Tags, "", now)
	}
	t.route(similars, best, now)
}

// choose returns the agent to which a task should go of those that wait; there may be none.
func (s *Scheduler) choose(t *task, now int64) (best similar) {
	q := t.queue
	consider := func(a *agent) {
		if a.free() <= 0 || a.open(q) == nil || a.draining {
			return
		}
		if near, ok := s.may(t, a, now); ok && (best.agent == nil || q.better(similar{a, near}, best)) {
			best = similar{a, near}
		}
	}
	if candidates, all := t.candidates(); all {
		for _, c := range candidates {
			consider(c.agent)
		}
		return best
	}
	for a := range q.pollers {
		consider(a)
	}
	return best
}

// candidates returns the agents that are near enough to a task, if it is known that those are all.
func (t *task) candidates() (near []similar, all bool) {
	if !t.routed || len(t.new.Vector) == 0 || t.new.AgentID != "" {
		return nil, false
	}
	threshold, far := t.threshold()
	if far {
		return nil, false // the fallback has others
	}
	for i, c := range t.similars {
		if c.similarity < threshold {
			return t.similars[:i], true
		}
	}
	return t.similars, len(t.similars) < similarsKept
}

// Lease implements the server's Scheduler.
func (s *Scheduler) Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error) {
	if err := r.Check(); err != nil {
		return nil, err
	}
	p, err := s.poll(ctx, &r)
	if err != nil || len(p.chosen) == 0 {
		return nil, err
	}
	return s.grantAll(ctx, p, r.LeaseSeconds)
}

// poll waits until tasks are chosen for a request.
func (s *Scheduler) poll(ctx context.Context, r *vectord.LeaseRequest) (*poll, error) {
	l, err := s.lead()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.agents[r.AgentID]
	if a == nil {
		return nil, noAgent(r.AgentID)
	}
	a.seen(s.now())
	p := &poll{agent: a, want: max(r.MaxTasks, 1), filled: make(chan struct{}, 1)}
	if r.Queue != "" {
		if p.only = s.queues[r.Queue]; p.only == nil {
			return nil, noQueue(r.Queue)
		}
		if !slices.Contains(a.config.Queues, r.Queue) {
			return nil, vectord.Errorf(vectord.KindInvalid, "queue: agent %q does not serve queue %q", a.id, r.Queue)
		}
	}
	s.collect(p)
	if len(p.chosen) > 0 || r.WaitMS <= 0 {
		return p, nil
	}
	s.wait(p, true)
	s.mu.Unlock()
	timer := time.NewTimer(millis(r.WaitMS))
	select {
	case <-p.filled:
	case <-timer.C:
	case <-ctx.Done():
	case <-l.stop.Done():
	}
	timer.Stop()
	s.mu.Lock()
	s.wait(p, false)
	a.seen(s.now())
	return p, nil
}

// grantAll has the chosen tasks leased and returns those that were.
func (s *Scheduler) grantAll(ctx context.Context, p *poll, leaseSeconds int) ([]vectord.Task, error) {
	durable, volatile := grant{agent: p.agent.id}, grant{agent: p.agent.id}
	s.mu.Lock() // of the queues' configurations
	for _, c := range p.chosen {
		l := granted{id: c.task.id, leaseSeconds: leaseSeconds}
		if l.leaseSeconds == 0 {
			l.leaseSeconds = c.task.queue.config.LeaseSeconds
		}
		if c.decision != nil {
			l.decision, _ = json.Marshal(c.decision) // it is ours
		}
		if c.task.queue.durable() {
			durable.leases = append(durable.leases, l)
		} else {
			volatile.leases = append(volatile.leases, l)
		}
	}
	s.mu.Unlock()
	var out []vectord.Task
	var errs []error
	if len(volatile.leases) > 0 {
		s.inMemory(func(x *tx) {
			value, _, err := x.grant(&volatile)
			errs = append(errs, err)
			out = s.leased(out, value)
		})
	}
	if len(durable.leases) > 0 {
		// Not with ctx: whoever asked may be gone, but the tasks are chosen, and the outcome should be known.
		value, err := s.propose(context.WithoutCancel(ctx), durable.append(nil))
		errs = append(errs, err)
		out = s.leased(out, value)
	}
	s.mu.Lock()
	for _, c := range p.chosen {
		s.unreserve(p, c.task)
	}
	s.freed(p.agent)
	pending := len(s.fresh) > 0 || len(s.freedAgents) > 0
	s.mu.Unlock()
	if pending {
		s.kick()
	}
	err := errors.Join(errs...)
	for i := range out {
		if err == nil && out[i].Payload == nil {
			err = s.loadPayload(&out[i])
		}
	}
	return out, err
}

// leased appends the tasks of a grant that were leased.
func (s *Scheduler) leased(out []vectord.Task, value any) []vectord.Task {
	outcomes, _ := value.([]grantOutcome)
	out = slices.Grow(out, len(outcomes))
	for i := range outcomes {
		if outcomes[i].err == nil {
			out = append(out, outcomes[i].task)
		}
	}
	return out
}

// inMemory applies something to tasks that are in memory only.
func (s *Scheduler) inMemory(apply func(x *tx)) {
	s.mu.Lock()
	s.volatile.time = max(s.volatile.time, s.lastTime, s.now())
	apply(&tx{s: s, now: s.volatile.time})
	ended := s.volatile.takeEnded()
	pending := len(s.fresh) > 0 || len(s.freedAgents) > 0
	_, due := s.volatile.timers.next()
	sooner := due != 0 && (s.volatile.driven == 0 || due < s.volatile.driven)
	s.mu.Unlock()
	s.announce(ended)
	if sooner {
		s.wakeDriver()
	}
	if pending {
		s.kick()
	}
}
