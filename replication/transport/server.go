package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
)

const (
	// overloadRetry is what a refused caller is told to wait.
	overloadRetry = 100 * time.Millisecond
	// closeTimeout is how long Close lets the other side take to read the last replies.
	closeTimeout = time.Second
)

// errClosed is why nothing goes on after Close.
var errClosed = vectord.Errorf(vectord.KindClosed, "the node is shutting down")

func overloaded(format string, args ...any) error {
	return &vectord.Error{Kind: vectord.KindOverloaded, Text: fmt.Sprintf(format, args...), RetryAfter: overloadRetry}
}

// Handler answers a call. The body is the handler's, and the reply the transport's once it is returned. The context ends
// at the caller's deadline, when the caller waits no longer or cannot be reached, and with the transport; then the error of the
// context is a proper answer. From is the address that the caller advertises: it is a member of the cluster, but which one is
// only its own word. The error crosses to the caller by kind, code, RetryAfter and text (up to 8 KiB).
type Handler func(ctx context.Context, from string, body []byte) ([]byte, error)

// method is a Handler with its bounds. They are of each method by itself: handlers of one may wait for calls of
// another that go round by other nodes, and would wait forever for places that handlers like themselves have taken.
type method struct {
	handler  Handler
	slots    chan struct{} // full of running handlers
	admitted atomic.Int64  // calls that run, wait for a slot, or are still arriving
	max      int64         // Invariant: admitted <= max
}

func (m *method) admit() bool {
	if m.admitted.Add(1) > m.max {
		m.admitted.Add(-1)
		return false
	}
	return true
}

// budget bounds the bytes of requests that are arriving, waiting or with their handlers.
type budget struct {
	used atomic.Int64
	max  int64 // Invariant: used <= max
}

func (b *budget) reserve(n int) bool {
	if b.used.Add(int64(n)) > b.max {
		b.used.Add(int64(-n))
		return false
	}
	return true
}

// serverConn is the answering side of a connection.
type serverConn struct {
	sender
	t        *Transport
	from     string
	budget   *budget
	ctx      context.Context // of all handlers
	cancel   context.CancelCauseFunc
	handlers sync.WaitGroup

	// Guarded by sender.mu:
	incoming map[uint64]*incoming // by id: calls that are not answered
	closing  bool                 // no more of them are accepted, and nobody is added to handlers
}

// incoming is a call on its way through the node.
type incoming struct {
	id       uint64
	method   *method
	body     []byte
	length   int // of the whole body
	complete bool
	ctx      context.Context
	cancel   context.CancelFunc
}

func newServerConn(t *Transport, conn net.Conn, h hello) *serverConn {
	c := &serverConn{t: t, from: h.from, budget: &t.budgets[h.kind-kindSmall], incoming: map[uint64]*incoming{}}
	c.init(conn)
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	return c
}

// serve serves the connection to its end.
func (c *serverConn) serve() {
	written := make(chan struct{})
	go func() {
		defer close(written)
		if err := c.run(nil, nil); err != nil {
			c.fail(fmt.Errorf("write: %w", err))
		}
	}()
	err := c.read()
	c.stopAccepting(err)
	c.fail(err)
	<-written
	c.handlers.Wait()
	c.mu.Lock()
	left := c.incoming // those that have not come to their end
	c.incoming = nil
	c.mu.Unlock()
	for _, in := range left {
		c.release(in)
	}
	c.t.o.Logger.Debug("connection from a node ended", "node", c.from, "error", err)
}

// stopAccepting refuses further calls and cancels those that are here.
func (c *serverConn) stopAccepting(cause error) {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.cancel(cause)
}

// shut ends the connection: it cancels what is being handled, has the answers written, and waits for the other side to go.
func (c *serverConn) shut() {
	c.stopAccepting(errClosed)
	c.handlers.Wait()
	c.finish()
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	select {
	case <-c.broken:
	case <-timeout.C:
		c.fail(errClosed)
	}
}

// read reads requests until the connection ends, for which it returns the reason.
func (c *serverConn) read() error {
	frames := newFrames(patientReader{c.conn})
	for {
		f, err := frames.next()
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if err := c.receive(f); err != nil {
			return fmt.Errorf("read: %w", err)
		}
	}
}

// receive takes a frame from the other side. An error is the end of the connection.
func (c *serverConn) receive(f frame) error {
	switch f.kind {
	case frameRequest:
		return c.begin(f)
	case frameChunk:
		c.mu.Lock()
		in := c.incoming[f.id]
		c.mu.Unlock()
		if in == nil {
			return nil // it was refused or cancelled
		}
		if in.complete {
			return fmt.Errorf("a chunk after the whole of call %d", f.id)
		}
		var err error
		if in.body, err = grow(in.body, in.length, f); err != nil {
			return err
		}
		if !f.more {
			c.dispatch(in)
		}
		return nil
	case frameCancel:
		c.mu.Lock()
		in := c.incoming[f.id]
		if in != nil && !in.complete {
			delete(c.incoming, f.id)
		}
		c.mu.Unlock()
		if in == nil {
			return nil // it is answered
		}
		in.cancel()
		if !in.complete {
			c.release(in)
		}
		return nil
	case framePing:
		return c.post(&message{kind: framePong})
	}
	return fmt.Errorf("a frame of type %d from the side that calls", f.kind)
}

// begin takes the begin of a request.
func (c *serverConn) begin(f frame) error {
	r, err := parseRequest(f)
	if err != nil {
		return err
	}
	m := c.t.methods[r.method]
	switch {
	case m == nil:
		return c.refuse(f.id, vectord.Errorf(vectord.KindUnsupported, "method %d is not known here", r.method))
	case r.length > c.t.o.BodyBytes:
		return c.refuse(f.id, vectord.Errorf(vectord.KindTooLarge, "body of %d bytes, at most %d are accepted", r.length, c.t.o.BodyBytes))
	case !m.admit():
		return c.refuse(f.id, overloaded("%d calls of method %d are here already", m.max, r.method))
	case !c.budget.reserve(r.length):
		m.admitted.Add(-1)
		return c.refuse(f.id, overloaded("bodies of %d bytes are here already", c.budget.used.Load()))
	}
	in := &incoming{id: f.id, method: m, length: r.length}
	in.body = append(make([]byte, 0, min(r.length, growBytes)), r.begin...)
	if r.timeout > 0 {
		in.ctx, in.cancel = context.WithTimeout(c.ctx, r.timeout)
	} else {
		in.ctx, in.cancel = context.WithCancel(c.ctx)
	}
	c.mu.Lock()
	closing, twice := c.closing, c.incoming[f.id] != nil
	if !closing && !twice {
		c.incoming[f.id] = in
	}
	c.mu.Unlock()
	switch {
	case twice:
		c.release(in)
		return fmt.Errorf("two calls with id %d", f.id)
	case closing:
		c.release(in)
		return c.refuse(f.id, errClosed)
	}
	if !f.more {
		c.dispatch(in)
	}
	return nil
}

// dispatch starts the handler of a call that has arrived whole.
func (c *serverConn) dispatch(in *incoming) {
	in.complete = true
	c.mu.Lock()
	closing := c.closing
	if !closing {
		c.handlers.Go(func() { c.handle(in) })
	}
	c.mu.Unlock()
	if closing {
		// Nobody waits for room now that no handler is going to make it; what cannot be queued is not answered.
		_ = c.refuse(in.id, errClosed)
		c.forget(in)
	}
}

// handle answers a call.
func (c *serverConn) handle(in *incoming) {
	kind, body := c.answer(in)
	c.t.metrics.handled[kind].Inc()
	c.postWhenRoom(&message{kind: kind, id: in.id, body: body})
	c.forget(in)
}

// answer waits for a slot and runs the handler. It returns the type and the body of the answer.
func (c *serverConn) answer(in *incoming) (kind byte, body []byte) {
	if in.ctx.Err() == nil { // select has no preference
		select {
		case in.method.slots <- struct{}{}:
			return c.runHandler(in)
		case <-in.ctx.Done():
		}
	}
	return frameRefused, appendError(nil, fmt.Errorf("it ended before its turn: %w", context.Cause(in.ctx)))
}

// runHandler runs the handler of a call that has a slot, and gives the slot back. A panic costs the caller an answer, and
// the others nothing.
func (c *serverConn) runHandler(in *incoming) (kind byte, body []byte) {
	defer func() { <-in.method.slots }()
	c.t.metrics.running.Inc()
	defer c.t.metrics.running.Dec()
	defer func() {
		if p := recover(); p != nil {
			c.t.o.Logger.Error("panic in the handler of a call", "panic", p, "stack", string(debug.Stack()))
			kind, body = frameLost, appendError(nil, fmt.Errorf("panic: %v", p))
		}
	}()
	reply, err := in.method.handler(in.ctx, c.from, in.body)
	ended := in.ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
	switch {
	case ended:
		return frameLost, appendError(nil, fmt.Errorf("it was ended: %w", context.Cause(in.ctx)))
	case err != nil:
		return frameFailed, appendError(nil, err)
	case len(reply) > c.t.o.BodyBytes:
		return frameLost, appendError(nil, vectord.Errorf(vectord.KindTooLarge, "reply of %d bytes, at most %d can be sent", len(reply), c.t.o.BodyBytes))
	}
	return frameReply, reply
}

// forget gives back what an answered call holds.
func (c *serverConn) forget(in *incoming) {
	c.mu.Lock()
	delete(c.incoming, in.id)
	c.mu.Unlock()
	c.release(in)
}

// release gives back what a call holds that is not in incoming, once.
func (c *serverConn) release(in *incoming) {
	in.cancel()
	c.budget.used.Add(int64(-in.length))
	in.method.admitted.Add(-1)
}

// refuse answers a call that is not going to be handled.
func (c *serverConn) refuse(id uint64, err error) error {
	c.t.metrics.handled[frameRefused].Inc()
	return c.post(&message{kind: frameRefused, id: id, body: appendError(nil, err)})
}
