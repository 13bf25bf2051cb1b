package scheduler

import (
	"context"
	"sync"

	"github.com/vectord/vectord"
)

// leadership is a time during which this node has the say over who does what and when. What a Scheduler is asked for while it
// does not lead it refuses.
type leadership struct {
	stop    context.Context // ends it
	cancel  context.CancelFunc
	elected chan struct{} // closed once leases from before may run their full time
	workers sync.WaitGroup
}

func newLeadership(within context.Context) *leadership {
	l := &leadership{elected: make(chan struct{})}
	l.stop, l.cancel = context.WithCancel(within)
	return l
}

// Lead begins, or ends, this node's having the say. That of a Scheduler that is not replicated begins with Start. Leases that
// were held before may run their full time from the beginning on: their holders had nobody to extend them. Calls do not
// overlap.
func (s *Scheduler) Lead(leading bool) {
	if l := s.leads.Swap(nil); l != nil {
		l.cancel()
		l.workers.Wait()
	}
	if !leading || s.stop.Err() != nil {
		return
	}
	l := newLeadership(s.stop)
	s.mu.Lock()
	now := s.now()
	for _, a := range s.agents { // they have been seen elsewhere
		a.seen(now)
	}
	s.mu.Unlock()
	s.leads.Store(l)
	l.workers.Go(func() { s.drive(l) })
	l.workers.Go(func() { s.dispatchLoop(l) })
	l.workers.Go(func() { s.sweep(l) })
	s.kick()
}

// lead returns the present leadership.
func (s *Scheduler) lead() (*leadership, error) {
	l := s.leads.Load()
	switch {
	case s.stop.Err() != nil:
		return nil, vectord.Errorf(vectord.KindClosed, "the server is stopping")
	case l == nil && s.log == nil:
		return nil, vectord.Errorf(vectord.KindClosed, "the server is starting")
	case l == nil:
		return nil, vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "this node does not lead, and tasks are the leader's")
	}
	return l, nil
}

// propose sends a command to the log and returns what applying it gave. None comes before the one that lets leases run their
// full time: with the time of any other they would end.
func (s *Scheduler) propose(ctx context.Context, command []byte) (any, error) {
	l, err := s.lead()
	if err != nil {
		return nil, err
	}
	select {
	case <-l.elected:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-l.stop.Done():
		_, err := s.lead()
		return nil, err
	}
	r, err := s.log.Propose(ctx, command)
	if err != nil {
		return nil, err
	}
	return r.Value, r.Err
}
