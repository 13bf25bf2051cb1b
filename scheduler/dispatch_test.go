package scheduler

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vectord/vectord"
)

// dispatchModel gives random histories of polls, tasks and agents to a scheduler, and looks at all tasks where the scheduler
// looks at few.
type dispatchModel struct {
	*harness
	agents  []string
	waiting []*poll // that were made to wait
	chosen  []*poll // whose tasks are to be granted
	held    []vectord.Task
	asked   []vectord.TaskID // that wait for input
}

// tasksOf returns the ready tasks of a queue.
func tasksOf(q *queue) (tasks []*task) {
	for p := range q.queued {
		for _, t := range q.queued[p].Values() {
			if t.lane != nil {
				tasks = append(tasks, t)
			}
		}
	}
	return tasks
}

// shown returns what some rows have.
func shown(of rows) map[*task]bool {
	tasks := map[*task]bool{}
	for ln, r := range of {
		for _, t := range r.Values() {
			if t.lane != ln {
				panic(fmt.Sprintf("task %s is in a row of lane %q, %p, and not in its own, %p", t.id, ln.key, ln, t.lane))
			}
			tasks[t] = true
		}
	}
	return tasks
}

// shownTo returns what an agent is shown.
func shownTo(q *queue, a *agent, serves bool) map[*task]bool {
	tasks := shown(q.ready.suiting(a, serves))
	for i := range q.ready.levels {
		for _, ln := range q.ready.levels[i].lanes {
			for _, t := range ln.open.Values() {
				if serves {
					tasks[t] = true
				}
			}
		}
	}
	return tasks
}

// check looks for tasks that an agent may have and would not be shown, and whether the shelves have what they should.
func (m *dispatchModel) check(t *rapid.T) {
	s := m.s
	for _, name := range slices.Sorted(maps.Keys(s.queues)) {
		q := s.queues[name]
		tasks := tasksOf(q)
		if n := len(shown(q.ready.all)); n != len(tasks) || n != q.ready.count {
			t.Fatalf("queue %s: %d tasks are ready, %d in rows, %d counted", name, len(tasks), n, q.ready.count)
		}
		checkLanes(t, q)
		shelved, looks := 0, 0
		for _, c := range tasks {
			shelved += len(c.shelves)
			if c.lookAt != 0 {
				looks++
			}
			if keys := c.audiences(nil); c.constrained() && !slices.Equal(keys, c.shelves) {
				t.Fatalf("task %s is on the shelves %v, and should be on %v", c.id, c.shelves, keys)
			}
		}
		if q.ready.looks.Len() != looks {
			t.Fatalf("queue %s: %d tasks are to be looked at, want %d", name, q.ready.looks.Len(), looks)
		}
		for _, of := range q.ready.shelves {
			for key, sh := range of {
				for _, r := range sh.rows {
					shelved -= r.Len()
				}
				if len(sh.rows) == 0 {
					t.Fatalf("shelf %q is empty", key)
				}
			}
		}
		if shelved != 0 {
			t.Fatalf("queue %s: the shelves lack %d tasks", name, shelved)
		}
		for _, id := range slices.Sorted(maps.Keys(s.agents)) {
			a := s.agents[id]
			view := shownTo(q, a, slices.Contains(a.config.Queues, name))
			for _, c := range tasks {
				if _, ok := s.may(c, a, m.now); ok && !view[c] {
					t.Fatalf("agent %s may have task %s of queue %s, %+v, and is not shown it; it is on %v", id, c.id, name, c.new, c.shelves)
				}
			}
		}
	}
}

// checkLanes checks that a level's heaps have its lanes with open tasks, and their order.
func checkLanes(t *rapid.T, q *queue) {
	for p := range q.ready.levels {
		l := &q.ready.levels[p]
		n := 0
		for key, ln := range l.lanes {
			if _, first, _ := ln.open.Min(); ln.front != first || ln.opened {
				t.Fatalf("lane %q of priority %d: the first open task is said to be %p, and is %p; opened: %t", key, p, ln.front, first, ln.opened)
			}
			if ln.front != nil {
				n++
			}
		}
		for _, h := range []*laneHeap{&l.turns, &l.ages} {
			for i, ln := range h.lanes {
				if ln.at[h.which] != i || i > 0 && h.before(ln, h.lanes[(i-1)/2]) {
					t.Fatalf("lane %q of priority %d is out of place", ln.key, p)
				}
			}
			if len(h.lanes) != n {
				t.Fatalf("%d lanes of priority %d are in order, %d have open tasks", len(h.lanes), p, n)
			}
		}
	}
}

// dispatch lets the dispatcher's time come until it chooses nothing more, after which nobody waits for a task that he may have.
// A choice may end the poll by which an agent counts as active, so that a task that prefers that agent is free for others from
// the next time on.
func (m *dispatchModel) dispatch(t *rapid.T) {
	s := m.s
	for before := uint64(math.MaxUint64); before != s.turns; {
		before = s.turns
		m.pass(rethinkEvery.Milliseconds())
		for s.dispatch(true) {
		}
	}
	for _, p := range m.waiting {
		if p.room() <= 0 || p.agent.draining || !p.waiting {
			continue
		}
		for q := range s.sources(p) {
			if p.agent.open(q) == nil { // the dispatcher gives a poll for one queue nothing of those that fall back to it
				continue
			}
			for _, c := range tasksOf(q) {
				all, this := q.limited(c, q.reserved, m.now)
				if _, ok := s.may(c, p.agent, m.now); ok && !all && !this {
					t.Fatalf("agent %s waits, and task %s of queue %s, %+v, is not given to it; it is on %v", p.agent.id, c.id, q.name, c.new, c.shelves)
				}
			}
		}
	}
	m.takeUp()
}

// takeUp finds the polls for which something was chosen.
func (m *dispatchModel) takeUp() {
	m.waiting = slices.DeleteFunc(m.waiting, func(p *poll) bool {
		if len(p.chosen) > 0 {
			m.chosen = append(m.chosen, p)
		}
		return !p.waiting
	})
}

// order returns the tasks that a poll should get of those that it is shown, as the order is described: with no index, by looking
// at all of them for each.
func (m *dispatchModel) order(q *queue, a *agent, n int, view map[*task]bool) (got []*task) {
	now, s := m.now, m.s
	passes := map[*lane]float64{}
	firsts := func() map[*lane]*task {
		first := map[*lane]*task{}
		for c := range view {
			if f := first[c.lane]; f == nil || c.seq < f.seq {
				first[c.lane] = c
			}
		}
		return first
	}
	for c := range view {
		passes[c.lane] = c.lane.pass
	}
	for len(got) < n && len(view) > 0 {
		first := firsts()
		oldest := map[int]int64{}
		for _, c := range first {
			if at, ok := oldest[c.priority()]; !ok || c.readyAt < at {
				oldest[c.priority()] = c.readyAt
			}
		}
		best, rank := -1, int64(math.MinInt64)
		for p, at := range oldest {
			r := int64(p)
			if aging := int64(q.config.AgingSeconds) * 1000; aging > 0 {
				r += (now - at) / aging
			}
			if r > rank || r == rank && (at < oldest[best] || at == oldest[best] && p < best) {
				best, rank = p, r
			}
		}
		var next *task
		for ln, c := range first {
			if c.priority() == best && (next == nil || cmp.Or(cmp.Compare(passes[ln], passes[next.lane]), cmp.Compare(c.seq, next.seq)) < 0) {
				next = c
			}
		}
		delete(view, next)
		if _, ok := s.may(next, a, now); ok {
			got = append(got, next)
			passes[next.lane] += 1 / cmp.Or(next.new.FairnessWeight, 1)
		}
	}
	return got
}

func (m *dispatchModel) poll(t *rapid.T, a *agent) *poll {
	p := &poll{agent: a, want: rapid.IntRange(1, 4).Draw(t, "want"), filled: make(chan struct{}, 1)}
	if rapid.Bool().Draw(t, "of one queue") {
		p.only = m.s.queues[rapid.SampledFrom(a.config.Queues).Draw(t, "queue")]
	}
	return p
}

// ask has an agent ask without waiting.
func (m *dispatchModel) ask(t *rapid.T) {
	a := m.anyAgent(t)
	if a == nil || a.draining {
		return
	}
	s := m.s
	a.seen(m.now)
	p := m.poll(t, a)
	var want []*task
	exact := false
	if q := p.only; q != nil {
		for s.widen(q, m.now) {
		}
		q.anew = true
		s.routeFresh(q)
		exact = q.config.MaxInFlight == 0 && q.config.RateLimit.PerSecond == 0 && !q.limitsKeys()
		view := shownTo(q, a, true)
		if q.config.AgingSeconds == 0 {
			view = shown(q.ready.all) // among which what it may not have makes no difference
		}
		want = m.order(q, a, p.room(), view)
	}
	s.collect(p)
	for i, c := range want {
		if exact && (i >= len(p.chosen) || p.chosen[i].task != c) {
			t.Fatalf("choice %d of %d for agent %s should be task %s, %+v", i, len(p.chosen), a.id, c.id, c.new)
		}
	}
	if len(p.chosen) > 0 {
		m.chosen = append(m.chosen, p)
	} else if rapid.Bool().Draw(t, "wait") {
		s.wait(p, true)
		m.waiting = append(m.waiting, p)
	}
}

func (m *dispatchModel) anyAgent(t *rapid.T) *agent {
	return m.s.agents[rapid.SampledFrom(m.agents).Draw(t, "agent")]
}

func (m *dispatchModel) submitSome(t *rapid.T) {
	queue := rapid.SampledFrom([]string{"q", "q", "far"}).Draw(t, "queue")
	for range rapid.IntRange(1, 3).Draw(t, "tasks") {
		n := vectord.NewTask{Priority: priority(rapid.IntRange(3, 5).Draw(t, "priority")), FairnessKey: rapid.SampledFrom([]string{"", "k", "l"}).Draw(t, "key"),
			FairnessWeight: rapid.SampledFrom([]float64{0, 2}).Draw(t, "weight")}
		kind := rapid.IntRange(0, 6).Draw(t, "kind")
		if kind >= 3 {
			n.Vector = direction(t)
		}
		if kind == 1 || kind == 4 {
			n.Tags = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"t", "u"}), 1, 2, rapid.ID).Draw(t, "tags")
		}
		if kind == 2 || kind == 6 {
			n.AgentID = rapid.SampledFrom(m.agents).Draw(t, "pin")
		}
		m.submit(queue, n)
	}
}

// direction draws a vector of two components.
func direction(t *rapid.T) []float32 {
	at := float64(rapid.IntRange(0, 23).Draw(t, "direction")) * math.Pi / 12
	return []float32{float32(math.Cos(at)), float32(math.Sin(at))}
}

func (m *dispatchModel) registerOne(t *rapid.T) {
	m.register(t, rapid.SampledFrom(m.agents).Draw(t, "agent"))
}

func (m *dispatchModel) register(t *rapid.T, id string) {
	c := vectord.AgentConfig{Capacity: rapid.IntRange(1, 3).Draw(t, "capacity"), Vectors: [][]float32{direction(t)}, LeaseTTLSeconds: 10}
	c.Queues = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"q", "far", "third"}), 1, 2, rapid.ID).Draw(t, "queues")
	c.Capabilities = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"t", "u", "v"}), 0, 2, rapid.ID).Draw(t, "capabilities")
	m.must(m.s.RegisterAgent(background, id, c))
}

func (m *dispatchModel) configureOne(t *rapid.T) {
	name := rapid.SampledFrom([]string{"q", "far"}).Draw(t, "queue")
	m.queue(name, func(c *vectord.QueueConfig) {
		c.AgingSeconds = rapid.SampledFrom([]int{0, 1, 5}).Draw(t, "aging")
		c.MaxInFlight = rapid.SampledFrom([]int{0, 0, 0, 3}).Draw(t, "in flight")
		c.Fairness.MaxInFlightPerKey = rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "in flight of a key")
		c.RateLimit = rapid.SampledFrom([]vectord.RateLimit{{}, {}, {}, {PerSecond: 10, Burst: 2}}).Draw(t, "rate")
		r := &c.Routing
		r.Policy = rapid.SampledFrom([]vectord.RoutingPolicy{vectord.NearestThenLeastLoaded, vectord.NearestThenLeastLoaded, vectord.Nearest, vectord.RoundRobin}).Draw(t, "policy")
		r.MinSimilarity = rapid.SampledFrom([]float64{0, 0.55, 0.9, 0.99}).Draw(t, "similarity")
		r.AffinityWaitMS = rapid.SampledFrom([]int64{0, 100, 500}).Draw(t, "affinity")
		r.CollectMS = 700
		r.Fallback = rapid.SampledFrom([]string{"wait", "any", "agent:a0", "queue:third", "queue:q"}).Draw(t, "fallback")
		if r.Fallback == "queue:"+name {
			r.Fallback = "wait"
		}
	})
}

func (m *dispatchModel) grantOne(t *rapid.T) {
	if len(m.chosen) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.chosen)-1).Draw(t, "poll")
	p := m.chosen[i]
	m.chosen = slices.Delete(m.chosen, i, i+1)
	tasks, _ := m.s.grantAll(background, p, 0) // there may be refusals
	m.held = append(m.held, tasks...)
}

func (m *dispatchModel) callOne(t *rapid.T) {
	if len(m.held) == 0 {
		return
	}
	i := rapid.IntRange(0, len(m.held)-1).Draw(t, "held")
	c := m.held[i]
	m.held = slices.Delete(m.held, i, i+1)
	kind := rapid.SampledFrom([]vectord.TaskCallKind{vectord.CallComplete, vectord.CallRelease, vectord.CallRequestInput}).Draw(t, "kind")
	out := m.call(vectord.TaskCall{Kind: kind, ID: c.ID, LeaseID: c.LeaseID, Result: []byte(`1`), Request: []byte(`1`)})
	if out.Err == nil && kind == vectord.CallRequestInput {
		m.asked = append(m.asked, c.ID)
	}
}

func (m *dispatchModel) answerOne(*rapid.T) {
	for _, id := range m.asked {
		_, _ = m.s.GiveInput(background, id, []byte(`1`)) // it may have ended
	}
	m.asked = nil
}

// TestDispatchModel has agents ask and wait for tasks of all kinds, and checks after every step that no agent may have a task
// that it would not be shown; after every dispatch that nobody waits for a task that he may have; and that the tasks that an
// agent gets are those that it would get of all tasks, in their order.
func TestDispatchModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &dispatchModel{harness: newHarness(t)}
		defer m.close()
		for i := range 12 { // more than addressedMax
			m.agents = append(m.agents, fmt.Sprint("a", i))
		}
		m.queue("q", nil)
		m.queue("far", nil)
		m.queue("third", nil)
		for _, id := range m.agents {
			m.register(t, id)
		}
		t.Repeat(map[string]func(*rapid.T){
			"":               m.check,
			"submit":         m.submitSome,
			"submit more":    m.submitSome,
			"register":       m.registerOne,
			"register more":  m.registerOne,
			"configure":      m.configureOne,
			"ask":            m.ask,
			"ask more":       m.ask,
			"ask again":      m.ask,
			"dispatch":       m.dispatch,
			"dispatch again": m.dispatch,
			"dispatch fresh": func(*rapid.T) {
				m.s.dispatch(false)
				m.takeUp()
			},
			"grant":  m.grantOne,
			"call":   m.callOne,
			"answer": m.answerOne,
			"cancel": func(t *rapid.T) {
				for _, c := range m.s.ordered(func(*task) bool { return true }) {
					if rapid.IntRange(0, 9).Draw(t, "cancel") == 0 {
						_, err := m.s.Cancel(background, c.id)
						m.must(err)
					}
				}
			},
			"drain": func(t *rapid.T) {
				if a := m.anyAgent(t); a != nil {
					m.must(m.s.DrainAgent(background, a.id, !a.draining))
				}
			},
			"remove": func(t *rapid.T) {
				if a := m.anyAgent(t); a != nil && rapid.Bool().Draw(t, "really") {
					m.must(m.s.RemoveAgent(background, a.id))
					m.waiting = slices.DeleteFunc(m.waiting, func(p *poll) bool { return p.agent == a })
				}
			},
			"give up": func(t *rapid.T) {
				if len(m.waiting) > 0 {
					m.s.wait(m.waiting[0], false)
					m.waiting = m.waiting[1:]
				}
			},
			"time passes": func(t *rapid.T) {
				m.pass(rapid.SampledFrom([]int64{1, 30, 110, 600, 3_000, 11_000}).Draw(t, "ms"))
			},
		})
		m.dispatch(t)
	})
}
