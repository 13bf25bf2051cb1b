package scheduler

import (
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
