package scheduler

import (
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
