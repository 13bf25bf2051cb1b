package scheduler

import (
	"encoding/json"
	"testing"

	"github.com/vectord/vectord"
)

// TestEvictionAfterRestart checks that a restart changes neither whether nor which task has to go.
func TestEvictionAfterRestart(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", func(c *vectord.QueueConfig) { c.MaxDepth, c.MaxOverflow, c.DropPolicy = 1, 2, vectord.EvictLowest })
	h.agent("a", 1, "q")
	var ids []vectord.TaskID
	for range 3 {
		ids = append(ids, h.accepted("q", vectord.NewTask{Priority: priority(1)}))
	}
	held := h.lease("a", 1)[0] // which comes back behind the others, but is not the youngest
	h.must(h.call(vectord.TaskCall{Kind: vectord.CallRelease, ID: held.ID, LeaseID: held.LeaseID}).Err)
	h.reopen()
	h.accepted("q", vectord.NewTask{})
	h.wantStatus(ids[2], vectord.TaskFailed)
	h.accepted("q", vectord.NewTask{})
	h.wantStatus(ids[1], vectord.TaskFailed)
	h.wantStatus(ids[0], vectord.TaskQueued)
}

// TestEvictedParent submits a task that depends on the one that has to make room for it.
func TestEvictedParent(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("q", func(c *vectord.QueueConfig) { c.MaxDepth, c.MaxOverflow, c.DropPolicy = 1, 0, vectord.EvictLowest })
	parent := h.accepted("q", vectord.NewTask{Priority: priority(1)})
	child := h.accepted("q", vectord.NewTask{DependsOn: []vectord.TaskID{parent}})
	h.wantStatus(parent, vectord.TaskFailed)
	h.wantStatus(child, vectord.TaskFailed)
}

// TestRedriven checks that what a redrive has changed of a task is still changed after a restart.
func TestRedriven(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.agent("a", 1, "q")
	id := h.accepted("q", vectord.NewTask{Deadline: epoch + 1_000, Payload: json.RawMessage(`7`)})
	stranger := h.accepted("q", vectord.NewTask{RunAt: epoch + 1_000_000})
	waiting := h.accepted("q", vectord.NewTask{DependsOn: []vectord.TaskID{id, stranger}, RunOnDependencyFailure: true})
	h.pass(2_000)
	h.wantStatus(id, vectord.TaskFailed)
	if n, err := h.s.Redrive(background, "q", nil); n != 1 || err != nil {
		t.Fatalf("redriven: %d, %v", n, err)
	}
	if open := h.s.tasks[waiting].openDependencies; open != 2 {
		t.Errorf("waits for %d tasks, both of which are not terminal", open)
	}
	h.reopen()
	h.pass(1)
	h.wantStatus(id, vectord.TaskQueued)
	if open := h.s.tasks[waiting].openDependencies; open != 2 {
		t.Errorf("waits for %d tasks after a restart", open)
	}
	task := h.lease("a", 1)[0]
	if string(task.Payload) != `7` {
		t.Errorf("payload %s", task.Payload)
	}
	h.complete(task)
	if _, err := h.s.Cancel(background, stranger); err != nil {
		t.Error(err)
	}
	h.wantStatus(waiting, vectord.TaskQueued)
}

// TestNumbersAreNotReused deletes the youngest queue and agent, restarts, and makes others: they have nothing of the old ones,
// and the rows are what they would be without the restart.
func TestNumbersAreNotReused(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.queue("old", nil)
	h.agent("b", 1, "old")
	h.agent("a", 1, "old")
	h.agent("c", 1, "old")
	task := vectord.NewTask{IdempotencyKey: "k"}
	h.accepted("old", task)
	h.must(h.s.DeleteQueue(background, "old", true))
	h.must(h.s.RemoveAgent(background, "c"))
	h.reopen()
	h.queue("new", nil)
	h.agent("d", 1, "new")
	if out := h.submit("new", task); out.Err != nil || out.Deduplicated {
		t.Errorf("submitted to another queue: %+v", out)
	}
	if n, err := h.s.Redrive(background, "new", nil); n != 0 || err != nil {
		t.Errorf("redriven into another queue: %d, %v", n, err)
	}
	other := h.replay() // without a restart
	defer other.close()
	sameRows(t, h.rows(), other.rows())
}

// TestCancelledAsksForInput checks that a task that is to be cancelled is, whatever its holder says last.
func TestCancelledAsksForInput(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.agent("a", 1, "q")
	id := h.accepted("q", vectord.NewTask{})
	held := h.lease("a", 1)[0]
	if _, err := h.s.Cancel(background, id); err != nil {
		t.Fatal(err)
	}
	out := h.call(vectord.TaskCall{Kind: vectord.CallRequestInput, ID: id, LeaseID: held.LeaseID, Request: json.RawMessage(`"what?"`)})
	if out.Err != nil || out.Status != vectord.TaskCancelled {
		t.Errorf("outcome: %+v", out)
	}
	h.wantStatus(id, vectord.TaskCancelled)
}
