package server

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vectord/vectord"
)

// fakeCluster is a node that becomes the leader when it is to send a request on.
type fakeCluster struct{ leads atomic.Bool }

func (c *fakeCluster) Self() uint64                                     { return 7 }
func (c *fakeCluster) Peers(context.Context) ([]vectord.Peer, error)    { return nil, nil }
func (c *fakeCluster) RemovePeer(context.Context, uint64) error         { return nil }
func (c *fakeCluster) TransferLeadership(context.Context, uint64) error { return nil }
func (c *fakeCluster) Leading() bool                                    { return c.leads.Load() }
func (c *fakeCluster) Synced(context.Context) error                     { return nil }
func (c *fakeCluster) Applied(context.Context, uint64) error            { return nil }
func (c *fakeCluster) Index() uint64                                    { return 1 }
func (c *fakeCluster) Forward(context.Context, []byte) ([]byte, error) {
	c.leads.Store(true)
	return nil, nil
}

// TestBecomesLeaderWhileItForwards checks that a request is answered here, with its body, if there is no other leader to send it to
// any more.
func TestBecomesLeaderWhileItForwards(t *testing.T) {
	c := &fakeCluster{}
	h, scheduler := startTasks(t, Options{Cluster: c})
	payload := ""
	scheduler.submit = func(_ string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
		payload = string(tasks[0].Payload)
		return []vectord.Submitted{{Status: vectord.TaskQueued}}, nil
	}
	for _, encoding := range []string{"identity", "gzip"} {
		c.leads.Store(false)
		payload = ""
		body := `{"payload":"` + encoding + `"}`
		if encoding == "gzip" {
			body = string(gzipped(t, []byte(body)))
		}
		status, answer, header := h.send("POST", "/queues/q/tasks", strings.NewReader(body), "Content-Type", "application/json", "Content-Encoding", encoding)
		if status != 200 || payload != `"`+encoding+`"` || header.Get(sessionHeader) != "1" {
			t.Errorf("%s: status %d, task %s, session %q: %s", encoding, status, payload, header.Get(sessionHeader), answer)
		}
	}
}
