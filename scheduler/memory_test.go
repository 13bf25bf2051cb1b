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
