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
