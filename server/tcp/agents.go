package tcpserver

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/vectord/vectord"
)

// agents knows which agents lease over which connections. When the last connection of one has ended, and none has come within
// the grace, its leases end.
type agents struct {
	scheduler Scheduler
	grace     time.Duration
	log       *slog.Logger

	mu      sync.Mutex // guards what is below
	bound   map[string]*binding
	stopped bool
}

// binding is an agent that is bound to connections, or was until lately.
type binding struct {
	conns int
	timer *time.Timer   // runs if conns is 0
	ended chan struct{} // not nil while the leases are being ended; closed then
}

func newAgents(s Scheduler, grace time.Duration, log *slog.Logger) *agents {
	return &agents{scheduler: s, grace: grace, log: log, bound: map[string]*binding{}}
}

// bind counts a connection of an agent. If the agent's leases are just being ended it waits, so that none that it gets from
// now on is ended with them.
func (a *agents) bind(id string) {
	for {
		a.mu.Lock()
		b := a.bound[id]
		if b == nil {
			b = &binding{}
			a.bound[id] = b
		}
		ended := b.ended
		if ended == nil {
			if b.timer != nil {
				b.timer.Stop()
			}
			b.conns++
		}
		a.mu.Unlock()
		if ended == nil {
			return
		}
		<-ended
	}
}

// unbind takes back what bind did.
func (a *agents) unbind(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.bound[id]
	if b.conns--; b.conns > 0 {
		return
	}
	if a.stopped {
		delete(a.bound, id)
		return
	}
	b.timer = time.AfterFunc(a.grace, func() { a.end(id, b) })
}

// end ends the leases of an agent unless it has come back.
func (a *agents) end(id string, b *binding) {
	a.mu.Lock()
	if a.stopped || b.conns > 0 || b.ended != nil || a.bound[id] != b {
		a.mu.Unlock()
		return
	}
	b.ended = make(chan struct{})
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), endLeasesTimeout)
	defer cancel()
	err := a.scheduler.EndLeases(ctx, id, vectord.ErrorAgentDied)
	a.mu.Lock()
	delete(a.bound, id)
	close(b.ended)
	a.mu.Unlock()
	switch {
	case err == nil:
		a.log.Info("agent's connection is gone, its leases have ended", "agent", id)
	case vectord.KindOf(err) != vectord.KindNotFound:
		a.log.Warn("end the leases of an agent whose connection is gone", "agent", id, "error", err)
	}
}

// stop has no leases be ended any more: the agents do not go, the server does.
func (a *agents) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	for _, b := range a.bound {
		if b.timer != nil {
			b.timer.Stop()
		}
	}
}
