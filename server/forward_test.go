package server

import (
	"context"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// electedCluster is a node that becomes the leader when it is to send a request on.
type electedCluster struct{ *fakeCluster }

// Forward implements Cluster.
func (c electedCluster) Forward(context.Context, []byte) ([]byte, error) {
	c.leads = true
	return nil, nil
}

// TestBecomesLeaderWhileItForwards checks that a request is answered here, with its body, if there is no other leader to send it to
// any more.
func TestBecomesLeaderWhileItForwards(t *testing.T) {
	c := electedCluster{newFakeCluster()}
	h, scheduler := startTasks(t, Options{Cluster: c})
	payload := ""
	scheduler.submit = func(_ string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
		payload = string(tasks[0].Payload)
		return []vectord.Submitted{{Status: vectord.TaskQueued}}, nil
	}
	for _, encoding := range []string{"identity", "gzip"} {
		c.leads, payload = false, ""
		body := `{"payload":"` + encoding + `"}`
		if encoding == "gzip" {
			body = string(gzipped(t, []byte(body)))
		}
		status, answer, header := h.send("POST", "/queues/q/tasks", strings.NewReader(body), "Content-Type", "application/json", "Content-Encoding", encoding)
		if status != 200 || payload != `"`+encoding+`"` || header.Get(sessionHeader) != "41" {
			t.Errorf("%s: status %d, task %s, session %q: %s", encoding, status, payload, header.Get(sessionHeader), answer)
		}
	}
}
