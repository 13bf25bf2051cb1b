package scheduler

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/vectord/vectord"
)

// slowLog takes nothing.
type slowLog struct{ asked chan commandKind }

func (l *slowLog) Propose(ctx context.Context, command []byte) (vectord.Result, error) {
	l.asked <- commandKind(command[0])
	<-ctx.Done()
	return vectord.Result{}, ctx.Err()
}

// TestElectionComesFirst checks that no command reaches the log before the one that extends the leases from before a start.
func TestElectionComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Scheduler{wake: make(chan struct{}, 1), queues: map[string]*queue{}, now: func() int64 { return epoch }}
		s.stop, s.cancel = context.WithCancel(t.Context())
		l := newLeadership(s.stop)
		s.leads.Store(l)
		log := &slowLog{asked: make(chan commandKind, 10)}
		s.log = log
		submitted := make(chan error)
		go func() {
			_, err := s.Submit(s.stop, "q", []vectord.NewTask{{}})
			submitted <- err
		}()
		synctest.Wait()
		go s.drive(l)
		synctest.Wait()
		if kind := <-log.asked; kind != commandElected {
			t.Errorf("the first command is of kind %d", kind)
		}
		if len(log.asked) > 0 {
			t.Errorf("a command of kind %d before the first one was taken", <-log.asked)
		}
		s.cancel()
		if err := <-submitted; err == nil {
			t.Error("a task was taken by a server that stops")
		}
		synctest.Wait()
	})
}

// TestLeasesAfterElection checks that a lease which would have ended while nobody could extend it runs its full time.
func TestLeasesAfterElection(t *testing.T) {
	h := newHarness(t)
	defer h.close()
	h.agent("a", 1, "q")
	id := h.accepted("q", vectord.NewTask{})
	held := h.lease("a", 1)[0]
	h.reopen()
	h.now += 3_600_000 // the clock jumps by an hour
	h.command([]byte{byte(commandElected)})
	h.pass(59_999)
	h.wantStatus(id, vectord.TaskRunning)
	out := h.call(vectord.TaskCall{Kind: vectord.CallHeartbeat, ID: id, LeaseID: held.LeaseID})
	if out.Err != nil || int64(out.LeaseExpiresAt) != h.now+60_000 {
		t.Errorf("extended: %+v", out)
	}
	h.pass(60_001)
	h.wantStatus(id, vectord.TaskQueued)
}
