package scheduler

import (
	"fmt"
	"slices"
	"testing"

	"github.com/vectord/vectord"
)

// TestTurnsOfQueues has an agent serve a busy queue and another. Both get their turns, however many tasks a poll takes.
func TestTurnsOfQueues(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.agent("a", 2, "busy", "calm")
	for range 40 {
		h.accepted("busy", vectord.NewTask{})
	}
	h.accepted("calm", vectord.NewTask{})
	calm := 0
	for poll := 1; calm == 0; poll++ {
		if poll > 2 {
			t.Fatal("two polls got nothing of the second queue")
		}
		for _, task := range h.lease("a", 2) {
			if task.Queue == "calm" {
				calm++
			}
			h.complete(task)
		}
	}
	// A poll that has room looks at all of them.
	h.queue("x", nil)
	h.agent("b", 10, "x", "y")
	for range 5 {
		h.accepted("x", vectord.NewTask{})
		h.accepted("y", vectord.NewTask{})
	}
	if tasks := h.lease("b", 10); len(tasks) != 10 {
		t.Errorf("leased %d tasks of 10", len(tasks))
	}
}

func priority(p int) *int { return &p }

// TestLimitsOfKeysMeanwhile puts a limit on fairness keys while some have leases.
func TestLimitsOfKeysMeanwhile(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", nil)
	h.agent("a", 10, "q")
	for range 5 {
		h.accepted("q", vectord.NewTask{FairnessKey: "k"})
	}
	first := h.lease("a", 2)
	h.queue("q", func(c *vectord.QueueConfig) { c.Fairness.MaxInFlightPerKey = 2 })
	if tasks := h.lease("a", 2); len(tasks) != 0 {
		t.Errorf("leased %d more than there may be", len(tasks))
	}
	h.complete(first[0])
	if tasks := h.lease("a", 2); len(tasks) != 1 {
		t.Errorf("leased %d in the place of one", len(tasks))
	}
	h.complete(first[1])
	if tasks := h.lease("a", 2); len(tasks) != 1 {
		t.Errorf("leased %d in the place of one", len(tasks))
	}
}

// TestOfManyKeys checks that fairness keys that are used once each are not remembered for ever.
func TestOfManyKeys(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", nil)
	h.agent("a", 1_000, "q")
	for round := range 8 {
		tasks := make([]vectord.NewTask, 1_000)
		for i := range tasks {
			tasks[i].FairnessKey = fmt.Sprint(round, " ", i)
		}
		_, err := h.s.Submit(background, "q", tasks)
		h.must(err)
		held := h.lease("a", 1_000)
		if len(held) != len(tasks) {
			t.Fatalf("leased %d", len(held))
		}
		for _, task := range held {
			h.complete(task)
		}
	}
	if n := len(h.s.queues["q"].ready.levels[defaultPriority].lanes); n > 2*idleLanesMax {
		t.Errorf("%d lanes are kept", n)
	}
}

// TestAgingIsOfTasks checks that the age of a task raises it alone, and not others of its priority.
func TestAgingIsOfTasks(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", func(c *vectord.QueueConfig) { c.AgingSeconds = 1 })
	h.agent("a", 10, "q")
	h.accepted("q", vectord.NewTask{Priority: priority(0), Tags: []string{"nobody has it"}})
	old := h.accepted("q", vectord.NewTask{Priority: priority(0)})
	h.pass(100_000)
	low := h.accepted("q", vectord.NewTask{Priority: priority(0)})
	high := h.accepted("q", vectord.NewTask{Priority: priority(9)})
	var got []vectord.TaskID
	for _, task := range h.lease("a", 10) {
		got = append(got, task.ID)
	}
	if want := []vectord.TaskID{old, high, low}; !slices.Equal(got, want) {
		t.Errorf("leased %v, want %v", got, want)
	}
}

// TestPollsFollowChanges has a poll wait while the queues that its agent may have tasks of change.
func TestPollsFollowChanges(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("near", nil)
	h.queue("far", nil)
	h.agent("a", 1, "near")
	h.s.mu.Lock()
	p := &poll{agent: h.s.agents["a"], want: 1, filled: make(chan struct{}, 1)}
	h.s.wait(p, true)
	h.s.mu.Unlock()
	h.queue("far", func(c *vectord.QueueConfig) { c.Routing.Fallback = "queue:near" })
	h.accepted("far", vectord.NewTask{Vector: []float32{1, 0}})
	h.s.dispatch(false)
	if len(p.chosen) != 1 {
		t.Fatalf("chosen for the poll: %v", p.chosen)
	}
	if tasks, err := h.s.grantAll(background, p, 0); err != nil || len(tasks) != 1 {
		t.Errorf("leased: %+v, %v", tasks, err)
	}
	h.must(h.s.RemoveAgent(background, "a"))
	for name, q := range h.s.queues {
		if len(q.pollers) > 0 {
			t.Errorf("queue %s knows %d agents that wait for it", name, len(q.pollers))
		}
	}
}

// TestChosenOnce has a task be granted, come back and be chosen for another poll before the first has noted its grant.
func TestChosenOnce(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.agent("a", 1, "q")
	h.agent("b", 1, "q")
	h.agent("c", 1, "q")
	id := h.accepted("q", vectord.NewTask{})
	choose := func(agent string) *poll {
		h.s.mu.Lock()
		defer h.s.mu.Unlock()
		p := &poll{agent: h.s.agents[agent], want: 1, filled: make(chan struct{}, 1)}
		h.s.collect(p)
		return p
	}
	first := choose("a")
	g := grant{agent: "a", leases: []granted{{id: id, leaseSeconds: 1}}}
	h.command(g.append(nil))
	h.must(h.s.EndLeases(background, "a", "died"))
	second := choose("b")
	h.s.mu.Lock()
	h.s.unreserve(first, first.chosen[0].task)
	h.s.mu.Unlock()
	if third := choose("c"); len(third.chosen) > 0 {
		t.Error("a task is chosen for two polls")
	}
	if tasks, err := h.s.grantAll(background, second, 0); err != nil || len(tasks) != 1 {
		t.Errorf("leased: %+v, %v", tasks, err)
	}
	if q := h.s.queues["q"]; q.reserved != 0 || h.s.agents["a"].reserved != 0 || h.s.agents["b"].reserved != 0 {
		t.Errorf("reserved: %d", q.reserved)
	}
}

// TestNumbersOfOneCommand checks that one command cannot number more than there are numbers before the next one's.
func TestNumbersOfOneCommand(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	calls := make([]vectord.TaskCall, 70)
	for i := range calls {
		calls[i] = vectord.TaskCall{Kind: vectord.CallComplete, ID: vectord.TaskID{1}, LeaseID: 1, Effects: vectord.Effects{Tasks: map[string][]vectord.NewTask{"q": make([]vectord.NewTask, 1_000)}}}
	}
	out, err := h.s.Call(background, calls)
	h.must(err)
	if vectord.KindOf(out[65].Err) != vectord.KindTooLarge || vectord.KindOf(out[64].Err) != vectord.KindNotFound {
		t.Errorf("outcomes: %v, %v", out[64].Err, out[65].Err)
	}
}

// TestFairness has three keys share a thousand leases as their weights say, whichever of them submitted first.
func TestFairness(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", func(c *vectord.QueueConfig) { c.MaxOverflow = 10_000 })
	h.agent("a", 1_000, "q")
	weights := map[string]float64{"one": 1, "two": 2, "five": 5}
	for _, key := range []string{"one", "five", "two"} {
		tasks := make([]vectord.NewTask, 1_000)
		for i := range tasks {
			tasks[i] = vectord.NewTask{FairnessKey: key, FairnessWeight: weights[key], Payload: fmt.Appendf(nil, "%d", i)}
		}
		_, err := h.s.Submit(background, "q", tasks)
		h.must(err)
	}
	shares, last := map[string]int{}, map[string]int{"one": -1, "two": -1, "five": -1}
	for leased := 0; leased < 1_000; {
		held := h.lease("a", 1+leased%7)
		leased += len(held)
		for _, task := range held {
			shares[task.FairnessKey]++
			var i int
			if _, err := fmt.Sscan(string(task.Payload), &i); err != nil || i != last[task.FairnessKey]+1 {
				t.Fatalf("task %d of key %s after %d", i, task.FairnessKey, last[task.FairnessKey])
			}
			last[task.FairnessKey] = i
			h.complete(task)
		}
	}
	for key, weight := range weights {
		if want := 1_000 * weight / 8; float64(shares[key]) < 0.9*want || float64(shares[key]) > 1.1*want {
			t.Errorf("key %s of weight %v got %d leases, want %.0f ± 10%%", key, weight, shares[key], want)
		}
	}
}

// TestNoStarvation floods a queue with tasks of the highest priority while one of the lowest waits: it is leased once it has
// waited as many aging intervals as it is priorities below, and not before.
func TestNoStarvation(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	const aging = 10
	h.queue("q", func(c *vectord.QueueConfig) { c.AgingSeconds = aging })
	h.agent("a", 1, "q")
	low := h.accepted("q", vectord.NewTask{Priority: priority(0)})
	for second := 0; ; second++ {
		h.accepted("q", vectord.NewTask{Priority: priority(9)})
		h.accepted("q", vectord.NewTask{Priority: priority(9)})
		task := h.lease("a", 1)[0]
		h.complete(task)
		if task.ID == low {
			if second < 8*aging {
				t.Errorf("leased after %d s, before tasks that were 9 priorities higher", second)
			}
			return
		}
		// The others wait too, and are raised as well: what counts is that their oldest is younger by nine intervals.
		if second > 20*aging {
			t.Fatalf("not leased within %d s", second)
		}
		h.pass(1_000)
	}
}

// TestLimits checks the limits of leases by the test's clock.
func TestLimits(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.agent("a", 100, "rate", "flight", "keys")
	fill := func(queue string) {
		for i := range 20 {
			h.accepted(queue, vectord.NewTask{FairnessKey: fmt.Sprint(i % 2)})
		}
	}
	leased := func(queue string, want int) []vectord.Task {
		t.Helper()
		tasks, err := h.s.Lease(background, vectord.LeaseRequest{AgentID: "a", Queue: queue, MaxTasks: 100})
		h.must(err)
		if len(tasks) != want {
			t.Errorf("leased %d of queue %s, want %d", len(tasks), queue, want)
		}
		return tasks
	}
	h.queue("rate", func(c *vectord.QueueConfig) { c.RateLimit = vectord.RateLimit{PerSecond: 2, Burst: 3} })
	fill("rate")
	leased("rate", 3)
	leased("rate", 0)
	h.pass(1_000)
	leased("rate", 2)
	h.pass(499)
	leased("rate", 0)
	h.pass(1)
	leased("rate", 1)

	h.queue("flight", func(c *vectord.QueueConfig) { c.MaxInFlight = 4 })
	fill("flight")
	held := leased("flight", 4)
	leased("flight", 0)
	h.complete(held[0])
	leased("flight", 1)
	h.reopen()
	leased("flight", 0)
	h.complete(held[1])
	leased("flight", 1)

	h.queue("keys", func(c *vectord.QueueConfig) {
		c.Fairness.MaxInFlightPerKey, c.Fairness.RateLimitPerKey = 3, vectord.RateLimit{PerSecond: 1, Burst: 4}
	})
	fill("keys")
	held = leased("keys", 6)
	h.reopen()
	leased("keys", 0)
	for _, task := range held {
		h.complete(task)
	}
	leased("keys", 6) // a restart fills the bucket again, that of the keys too
	h.pass(1)
	leased("keys", 0)
}

// TestOrder has one slot take tasks: by priority, and within one in the order of submission, also of those that come back.
func TestOrder(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.agent("a", 1, "q")
	var ids [3][]vectord.TaskID
	for range 10 {
		for p := range ids {
			ids[p] = append(ids[p], h.accepted("q", vectord.NewTask{Priority: priority(p)}))
		}
	}
	i := 0
	for _, want := range slices.Concat(ids[2], ids[1], ids[0]) {
		task := h.lease("a", 1)[0]
		if task.ID != want {
			t.Fatalf("lease %d is of task %s, want %s", i, task.ID, want)
		}
		if i++; i%3 == 0 {
			h.must(h.call(vectord.TaskCall{Kind: vectord.CallRelease, ID: task.ID, LeaseID: task.LeaseID}).Err)
			if again := h.lease("a", 1)[0]; again.ID != want || again.LeaseID <= task.LeaseID {
				t.Fatalf("a task that was given back lost its place to %s", again.ID)
			} else {
				task = again
			}
		}
		h.complete(task)
	}
}

// TestBehindMany has more tasks wait in front than are looked at for a poll, none of which the agent may have, for each of the
// reasons for which it may not.
func TestBehindMany(t *testing.T) {
	for reason, other := range map[string]vectord.NewTask{
		"tags":   {Tags: []string{"gpu"}},
		"pin":    {AgentID: "other"},
		"vector": {Vector: []float32{1, 0}},
	} {
		h := newHarness(t)
		h.queue("q", func(c *vectord.QueueConfig) {
			inMemory(c)
			c.MaxOverflow = 2 * scanMax
		})
		h.must(h.s.RegisterAgent(background, "other", vectord.AgentConfig{Queues: []string{"q"}, Vectors: [][]float32{{1, 0}}}))
		h.must(h.s.RegisterAgent(background, "a", vectord.AgentConfig{Queues: []string{"q"}, Vectors: [][]float32{{0, 1}}}))
		for range scanMax/1_000 + 1 {
			_, err := h.s.Submit(background, "q", slices.Repeat([]vectord.NewTask{other}, 1_000))
			h.must(err)
		}
		h.lease("a", 1) // compares the vectors
		for _, n := range []vectord.NewTask{{Vector: []float32{0, 1}}, {}} {
			id := h.accepted("q", n)
			if got := h.lease("a", 1); len(got) != 1 || got[0].ID != id {
				t.Errorf("behind %d tasks that the agent may not have for their %s: %+v, want task %s", h.s.queues["q"].ready.count, reason, got, id)
			} else {
				h.complete(got[0])
			}
		}
		h.close()
	}
}

// TestVectorsStay checks that agents keep their vectors wherever these are moved to.
func TestVectorsStay(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", nil)
	want := map[string][][]float32{}
	for round := range 3 {
		for i := range 40 {
			id, vectors := fmt.Sprint(i), [][]float32{}
			for j := range i % 4 {
				vectors = append(vectors, make([]float32, 1+i%5))
				vectors[j][(round+i+j)%len(vectors[j])] = 1
			}
			h.must(h.s.RegisterAgent(background, id, vectord.AgentConfig{Queues: []string{"q"}, Vectors: vectors}))
			want[id] = vectors
			if i%7 == 0 {
				_, err := h.s.Queue("q") // which looks at the registry
				h.must(err)
			}
		}
		for id, vectors := range want {
			a, err := h.s.Agent(id)
			h.must(err)
			if !slices.EqualFunc(a.Vectors, vectors, slices.Equal) {
				t.Fatalf("agent %s has %v, want %v", id, a.Vectors, vectors)
			}
		}
		if h.s.scattered > len(want)/scatteredPart+7 {
			t.Errorf("%d registrations since the vectors were laid out", h.s.scattered)
		}
	}
}
