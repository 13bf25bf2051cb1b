package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vectord/vectord"
)

const (
	// smallBodyBytes is the longest request that goes by the connection for small ones: a single frame.
	smallBodyBytes = chunkBytes
	// peersMax is how many nodes there may be connections to.
	peersMax = 1024
	// dialTimeout is how long a connection may take to be made, from the first packet to the answer to hello.
	dialTimeout = 3 * time.Second
	// redialMin and redialMax bound the pause after a dial that has failed. A node that comes back is reached by the
	// first call after redialMax at the latest.
	redialMin = 10 * time.Millisecond
	redialMax = 100 * time.Millisecond
	// attempts is how many connections a call tries that break before anything of it is queued.
	attempts = 3
)

// Call has the handler of a method of the node at address answer a body, and returns its reply, which is the caller's. The
// body is read until Call returns, and not after. The deadline of ctx is the handler's too, and when ctx ends so does
// the handler's context. Without a deadline, a call waits until the handler has answered or the connection is broken, which
// is noticed within 15 seconds.
//
// Errors, by errors.Is:
//
//   - ErrUnreachable: it certainly had no effect. By kind: KindOverloaded, the node cannot be reached now or has too much to do
//     (try again after RetryAfter); KindTimeout, ctx ended; KindTooLarge, beyond Options.BodyBytes; KindClosed, one of the
//     nodes is shutting down; KindUnsupported, it has no such method; KindConflict, it is of another cluster.
//   - ErrUnknown: it may have had its effect, or have it still. Its kind is KindTimeout.
//   - Neither: what the handler answered, a *vectord.Error.
//
// Call may be called from any goroutine, many at once.
func (t *Transport) Call(ctx context.Context, address string, method byte, body []byte) ([]byte, error) {
	start := time.Now()
	reply, err := t.call(ctx, address, method, body)
	t.metrics.called(err, time.Since(start))
	return reply, err
}

func (t *Transport) call(ctx context.Context, address string, method byte, body []byte) ([]byte, error) {
	if len(body) > t.o.BodyBytes {
		return nil, unreachable(address, vectord.Errorf(vectord.KindTooLarge, "body of %d bytes, at most %d can be sent", len(body), t.o.BodyBytes))
	}
	if err := ctx.Err(); err != nil {
		return nil, unreachable(address, err)
	}
	l, err := t.lane(address, len(body) > smallBodyBytes)
	if err != nil {
		return nil, unreachable(address, err)
	}
	deadline, _ := ctx.Deadline()
	for range attempts {
		conn, err := l.connection(ctx)
		if err != nil {
			return nil, unreachable(address, err)
		}
		w, err := conn.start(method, deadline, body)
		if err != nil {
			return nil, unreachable(address, err)
		}
		if w != nil {
			return conn.wait(ctx, w)
		}
	}
	return nil, unreachable(address, fmt.Errorf("%d connections broke at once", attempts))
}

// peer is another node, by its address.
type peer struct{ small, large lane }

// lane makes the one connection that calls of some size to a node share.
type lane struct {
	t       *Transport
	address string
	kind    byte

	mu       sync.Mutex  // guards what follows
	conn     *clientConn // the last one; nil: there has been none
	dialling *dialling   // nil: nobody dials
	failures int         // dials in a row
	next     time.Time   // when to dial at the earliest
}

// dialling is a dial that callers wait for.
type dialling struct {
	done chan struct{} // closed when the two below are set
	conn *clientConn
	err  error
}

// lane returns the lane for calls to address.
func (t *Transport) lane(address string, large bool) (*lane, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errClosed
	}
	p := t.peers[address]
	if p == nil {
		if len(t.peers) >= peersMax {
			t.forgetPeers()
		}
		if len(t.peers) >= peersMax {
			return nil, overloaded("there are connections to %d other nodes already", len(t.peers))
		}
		p = &peer{lane{t: t, address: address, kind: kindSmall}, lane{t: t, address: address, kind: kindLarge}}
		t.peers[address] = p
	}
	if large {
		return &p.large, nil
	}
	return &p.small, nil
}

// forgetPeers drops nodes that there is no connection to. A call that has just got the lane of one makes a connection that no
// other call uses. The caller holds t.mu.
func (t *Transport) forgetPeers() {
	for address, p := range t.peers {
		if p.small.unused() && p.large.unused() {
			delete(t.peers, address)
		}
	}
}

func (l *lane) unused() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dialling == nil && !l.conn.usable()
}

func (c *clientConn) usable() bool {
	if c == nil {
		return false
	}
	select {
	case <-c.broken:
		return false
	default:
		return true
	}
}

// connection returns a connection that was not broken a moment ago, and makes it if there is none. All that want one
// meanwhile wait for the same dial.
func (l *lane) connection(ctx context.Context) (*clientConn, error) {
	l.mu.Lock()
	if l.conn.usable() {
		defer l.mu.Unlock()
		return l.conn, nil
	}
	d, pause := l.dialling, time.Until(l.next)
	first := d == nil
	if first {
		d = &dialling{done: make(chan struct{})}
		l.dialling = d
	}
	l.mu.Unlock()
	if first && !l.t.start(func() { l.dial(d, pause) }) {
		d.err = errClosed
		close(d.done) // of a dialling that stays: there is no dial after Close
	}
	select {
	case <-d.done:
		return d.conn, d.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial makes a connection after a pause, tells those who wait for it, and serves it to its end.
func (l *lane) dial(d *dialling, pause time.Duration) {
	d.conn, d.err = l.dialAfter(pause)
	l.mu.Lock()
	l.dialling = nil
	if d.err == nil {
		l.conn, l.failures = d.conn, 0
	} else {
		l.next = time.Now().Add(min(redialMin<<l.failures, redialMax))
		l.failures = min(l.failures+1, 8) // by then the pause is redialMax
	}
	l.mu.Unlock()
	close(d.done)
	if d.err == nil {
		d.conn.serve()
		l.t.remove(d.conn)
	}
}

func (l *lane) dialAfter(pause time.Duration) (*clientConn, error) {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-l.t.ctx.Done():
		return nil, errClosed
	}
	ctx, cancel := context.WithTimeout(l.t.ctx, dialTimeout)
	defer cancel()
	conn, err := l.t.dial(ctx, l.address, hello{kind: l.kind})
	if err != nil {
		var refusal *vectord.Error
		switch {
		case l.t.ctx.Err() != nil:
			return nil, errClosed
		case errors.As(err, &refusal):
			return nil, err
		}
		// Not a timeout of the caller's, whatever it is called: the caller may have all the time in the world.
		return nil, overloadedBy(err)
	}
	c := newClientConn(l.t, conn, l.address)
	if !l.t.add(c) {
		_ = conn.Close() // nothing has been written
		return nil, errClosed
	}
	return c, nil
}

// overloadedBy is an error of the network as one that a retry may not meet.
func overloadedBy(err error) error {
	return &vectord.Error{Kind: vectord.KindOverloaded, Text: err.Error(), RetryAfter: redialMax}
}
