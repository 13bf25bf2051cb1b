package scheduler

import (
	"encoding/json"
	"testing"

	"github.com/vectord/vectord"
)

func inMemory(c *vectord.QueueConfig) { c.Durability = vectord.InMemory }

// TestDeletedMeanwhile has a submission reach the log after its queue was deleted. It is refused; it once ended the server.
func TestDeletedMeanwhile(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", nil)
	c, _, err := h.s.prepare(background, "q", []vectord.NewTask{{}})
	h.must(err)
	h.must(h.s.DeleteQueue(background, "q", false))
	command := c.append([]byte{byte(commandSubmit)})
	if r, _ := h.Propose(background, command); vectord.CodeOf(r.Err) != vectord.CodeQueueNotFound {
		t.Errorf("a task for a queue that was deleted: %v", r.Err)
	}
	h.queue("q", inMemory)
	if r, _ := h.Propose(background, command); vectord.KindOf(r.Err) != vectord.KindConflict {
		t.Errorf("a task for a queue that is in memory only by now: %v", r.Err)
	}

	// The same as a follow-up task.
	h.agent("a", 1, "other")
	id := h.accepted("other", vectord.NewTask{})
	held := h.lease("a", 1)[0]
	complete := call{TaskCall: vectord.TaskCall{Kind: vectord.CallComplete, ID: id, LeaseID: held.LeaseID}, submits: []submit{{queue: "gone", tasks: c.tasks}}}
	outcomes := h.command(appendCalls(nil, []call{complete})).([]vectord.CallOutcome)
	if vectord.CodeOf(outcomes[0].Err) != vectord.CodeQueueNotFound {
		t.Errorf("a follow-up task for a queue that is not there: %+v", outcomes[0])
	}
	h.wantStatus(id, vectord.TaskRunning)
}

// TestDurableOfMemory completes a task that is in memory only with follow-up tasks that would be durable: what is in no log
// must not be said to be.
func TestDurableOfMemory(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("m", inMemory)
	h.queue("q", nil)
	h.agent("a", 1, "m", "q", "new")
	id := h.accepted("m", vectord.NewTask{})
	held := h.lease("a", 1)[0]
	for _, queue := range []string{"q", "new"} {
		out := h.call(vectord.TaskCall{Kind: vectord.CallComplete, ID: id, LeaseID: held.LeaseID, Effects: vectord.Effects{Tasks: map[string][]vectord.NewTask{queue: {{}}}}})
		if vectord.KindOf(out.Err) != vectord.KindInvalid {
			t.Errorf("follow-up task for queue %s: %+v", queue, out)
		}
	}
	out := h.call(vectord.TaskCall{Kind: vectord.CallComplete, ID: id, LeaseID: held.LeaseID, Result: json.RawMessage(`1`), Effects: vectord.Effects{Tasks: map[string][]vectord.NewTask{"m": {{}}}}})
	if out.Err != nil || len(out.Tasks) != 1 {
		t.Errorf("follow-up task that is in memory too: %+v", out)
	}
	h.reopen()
	if tasks := h.lease("a", 1); len(tasks) != 0 {
		t.Errorf("after a restart: %+v", tasks)
	}
}

// TestMemoryOfDurable has a task that is in memory only wait for one that is durable: no row of it must come to be.
func TestMemoryOfDurable(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("m", inMemory)
	h.agent("a", 1, "q")
	parent := h.accepted("q", vectord.NewTask{})
	child := h.accepted("m", vectord.NewTask{DependsOn: []vectord.TaskID{parent}, Deadline: epoch + 1_000_000})
	h.wantStatus(child, vectord.TaskBlocked)
	h.complete(h.lease("a", 1)[0])
	h.wantStatus(child, vectord.TaskQueued)
	if len(h.s.timers.tasks) != 0 || len(h.s.volatile.timers.tasks) != 1 {
		t.Errorf("%d timers of durable tasks, %d of others", len(h.s.timers.tasks), len(h.s.volatile.timers.tasks))
	}
	h.reopen()
	if _, err := h.s.Task(child); vectord.CodeOf(err) != vectord.CodeTaskNotFound {
		t.Errorf("after a restart: %v", err)
	}
}

// TestDeleteMemoryQueue deletes a queue with tasks that are in memory only, whose timers are not among those of the others.
func TestDeleteMemoryQueue(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("m", inMemory)
	h.agent("a", 1, "m")
	first, second := h.accepted("m", vectord.NewTask{}), h.accepted("m", vectord.NewTask{Deadline: epoch + 1_000_000})
	h.lease("a", 1)
	if err := h.s.DeleteQueue(background, "m", false); vectord.CodeOf(err) != vectord.CodeQueueNotEmpty {
		t.Errorf("a queue with tasks: %v", err)
	}
	h.must(h.s.DeleteQueue(background, "m", true))
	h.wantStatus(first, vectord.TaskFailed)
	h.wantStatus(second, vectord.TaskFailed)
	for key := range h.rows() {
		if key[0] == tableHeader {
			t.Errorf("row %q of a task that is in memory only", key)
		}
	}
	h.reopen()
}

// TestMemoryLeavesNoTrace checks that what is in memory only has no influence on what is applied from the log.
func TestMemoryLeavesNoTrace(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("m", inMemory)
	h.queue("q", nil)
	h.agent("a", 2, "m", "q")
	h.now += 5_000 // which no entry has said yet
	volatile := h.accepted("m", vectord.NewTask{Vector: []float32{1, 0}, AgentID: "a"})
	h.now -= 5_000 // entries are stamped by whoever leads
	durable := h.accepted("q", vectord.NewTask{})
	if task := h.task(durable); task.CreatedAt != epoch {
		t.Errorf("created at %d, its entry is of %d", task.CreatedAt, epoch)
	}
	if tasks := h.lease("a", 2); len(tasks) != 2 {
		t.Fatalf("leased %d tasks", len(tasks))
	}
	// The agent is full by what is in memory and may have no more; a grant that is in the log holds all the same.
	h.agent("b", 1, "q")
	h.s.mu.Lock()
	h.s.agents["b"].hold(h.s.tasks[volatile])
	h.s.mu.Unlock()
	id := h.accepted("q", vectord.NewTask{})
	grant := grant{agent: "b", leases: []granted{{id: id, leaseSeconds: 1}}}
	if out := h.command(grant.append(nil)).([]grantOutcome); out[0].err != nil {
		t.Errorf("grant from the log: %v", out[0].err)
	}
	// Nor does a durable task depend on one that is not.
	h.must(h.call(vectord.TaskCall{Kind: vectord.CallComplete, ID: volatile, LeaseID: h.task(volatile).LeaseID}).Err)
	if out := h.submit("q", vectord.NewTask{DependsOn: []vectord.TaskID{volatile}}); out.Err == nil {
		t.Errorf("a durable task depends on one in memory: %+v", out)
	}
	config := vectord.DefaultQueueConfig()
	config.Durability, config.MaxDepth = vectord.InMemory, 7
	h.must(h.s.PutQueue(background, "m", config))
	other := h.replay()
	defer other.close()
	sameRows(t, h.rows(), other.rows())
}
