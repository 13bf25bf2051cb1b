package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/vectord/vectord"
)

const (
	// acceptMax is how many connections of a group may wait for Accept. Raft accepts at once.
	acceptMax = 64
	// RaftTimeout is how long Raft waits for the answer to one message, and for a connection.
	RaftTimeout = 10 * time.Second
	// raftPool is how many connections to one node Raft keeps for a group.
	raftPool = 3
)

// NewRaftTransport returns Raft's own transport over the streams of a group, with the settings that vectord uses. Closing it
// closes the group.
func NewRaftTransport(group raft.StreamLayer, logger hclog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: group, MaxPool: raftPool, Timeout: RaftTimeout, Logger: logger,
	})
}

// group is the raft.StreamLayer of one Raft group.
type group struct {
	t        *Transport
	id       uint32
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	accepted chan *stream // has room for all that waiting counts

	mu      sync.Mutex // guards what follows
	closed  bool
	waiting int                  // for Accept, or to be. Invariant: 0 <= waiting <= acceptMax
	streams map[*stream]struct{} // that are open
}

// Group opens the streams of a Raft group. They may be closed and opened again, as when a group is rebuilt; closing ends
// all connections of the group, whoever has dialled. While a group is not open, nodes that dial it are told so. Groups have
// nothing to do with the methods of calls.
//
// Errors by kind: KindExists if the group is open, KindClosed after Close.
func (t *Transport) Group(id uint32) (raft.StreamLayer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	if t.groups[id] != nil {
		return nil, vectord.Errorf(vectord.KindExists, "group %d is open already", id)
	}
	g := &group{t: t, id: id, accepted: make(chan *stream, acceptMax), streams: map[*stream]struct{}{}}
	g.ctx, g.cancel = context.WithCancel(t.ctx)
	t.groups[id] = g
	return g, nil
}

// Accept returns the next connection from another node. After Close it returns net.ErrClosed.
func (g *group) Accept() (net.Conn, error) {
	select {
	case s := <-g.accepted:
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waiting--
		return s, nil
	case <-g.ctx.Done():
		return nil, fmt.Errorf("accept in group %d: %w", g.id, net.ErrClosed)
	}
}

// Dial connects to the same group of the node at address. If that has no such group, the error's kind is KindNotFound.
func (g *group) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	if timeout <= 0 {
		timeout = RaftTimeout
	}
	ctx, cancel := context.WithTimeout(g.ctx, timeout)
	defer cancel()
	conn, err := g.t.dial(ctx, string(address), hello{kind: kindRaft, group: g.id})
	if err != nil {
		return nil, fmt.Errorf("dial group %d of node %s: %w", g.id, address, err)
	}
	s := newStream(g, conn, true)
	if !g.open(s) {
		return nil, fmt.Errorf("dial from group %d: %w", g.id, net.ErrClosed)
	}
	return s, nil
}

// Addr returns what other nodes dial.
func (g *group) Addr() net.Addr { return g.t.Addr() }

// Close closes the group's connections and lets it be opened again.
func (g *group) Close() error {
	g.mu.Lock()
	g.closed = true
	streams := g.streams
	g.streams = nil
	g.mu.Unlock()
	g.cancel()
	// A connection takes up to 5 seconds to close if the other side does not read, so all close at once.
	var closing sync.WaitGroup
	for s := range streams {
		closing.Go(func() { _ = s.closeConn() }) // nothing more is expected of it
	}
	closing.Wait()
	g.t.mu.Lock()
	defer g.t.mu.Unlock()
	if g.t.groups[g.id] == g {
		delete(g.t.groups, g.id)
	}
	return nil
}

// reserve takes a place among those that wait for Accept.
func (g *group) reserve() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return notHere(g.id)
	case g.waiting >= acceptMax:
		return overloaded("group %d has %d connections that wait already", g.id, g.waiting)
	}
	g.waiting++
	return nil
}

func (g *group) unreserve() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
}

func notHere(id uint32) error {
	return vectord.Errorf(vectord.KindNotFound, "group %d is not on this node", id)
}

// deliver hands a connection, for which reserve has taken the place, to Accept.
func (g *group) deliver(s *stream) {
	if g.open(s) {
		g.accepted <- s
	}
}

// open counts a stream among the group's or, if that is closed, closes it and returns false.
func (g *group) open(s *stream) bool {
	g.mu.Lock()
	closed := g.closed
	if !closed {
		g.streams[s] = struct{}{}
	}
	g.mu.Unlock()
	if closed {
		_ = s.closeConn() // nothing was said over it
	}
	return !closed
}

// stream is a connection of a group.
type stream struct {
	net.Conn
	group    *group
	outgoing bool
	once     sync.Once
}

func newStream(g *group, conn net.Conn, outgoing bool) *stream {
	g.t.metrics.streams.Inc()
	return &stream{Conn: conn, group: g, outgoing: outgoing}
}

// Close closes the connection.
func (s *stream) Close() error {
	s.group.mu.Lock()
	delete(s.group.streams, s)
	s.group.mu.Unlock()
	return s.closeConn()
}

func (s *stream) closeConn() (err error) {
	err = net.ErrClosed
	s.once.Do(func() {
		s.group.t.metrics.streams.Dec()
		if !s.outgoing {
			s.group.t.inbound.Add(-1)
		}
		err = s.Conn.Close()
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
