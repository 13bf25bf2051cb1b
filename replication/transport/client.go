package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vectord/vectord"
)

const (
	// callsMax is how many calls may wait on one connection for their replies.
	callsMax = 8192
	// idleTimeout is how long a connection stays without calls, such as that to a node that has left.
	idleTimeout = 5 * time.Minute
)

var errIdle = errors.New("the connection was idle")

// call is a call that waits for its reply. What is not of the message belongs to the reader until result is filled.
type call struct {
	message
	reply  []byte
	length int         // of the whole reply
	result chan result // has room for one. Whoever removes the call from calls fills it
}

type result struct {
	body []byte
	err  error
}

// clientConn is the caller's side of a connection.
type clientConn struct {
	sender
	t       *Transport
	address string

	// Guarded by sender.mu:
	calls  map[uint64]*call // by id
	lastID uint64
	idle   time.Time // since when calls is empty
}

func newClientConn(t *Transport, conn net.Conn, address string) *clientConn {
	c := &clientConn{t: t, address: address, calls: map[uint64]*call{}, idle: time.Now()}
	c.init(conn)
	return c
}

// serve serves the connection to its end.
func (c *clientConn) serve() {
	written := make(chan struct{})
	go func() {
		defer close(written)
		ping := time.NewTicker(pingPeriod)
		defer ping.Stop()
		if err := c.run(ping.C, c.tick); err != nil {
			c.fail(fmt.Errorf("write: %w", err))
		}
	}()
	c.fail(c.read())
	<-written
}

// tick keeps the connection alive, unless it is not needed any more.
func (c *clientConn) tick() {
	c.mu.Lock()
	idle := len(c.calls) == 0 && time.Since(c.idle) > idleTimeout
	if !idle {
		c.push(&message{kind: framePing})
	}
	c.mu.Unlock()
	if idle {
		c.fail(errIdle)
	}
}

// fail breaks the connection and fails its waiting calls.
func (c *clientConn) fail(err error) {
	if !c.sender.fail(err) {
		return
	}
	c.t.o.Logger.Debug("connection to a node ended", "node", c.address, "error", err)
	c.mu.Lock()
	calls := c.calls
	c.calls = nil
	c.mu.Unlock()
	for _, waiting := range calls {
		c.mu.Lock()
		started := c.drop(&waiting.message)
		c.mu.Unlock()
		if started {
			waiting.result <- result{err: unknown(c.address, err)}
		} else {
			waiting.result <- result{err: unreachable(c.address, err)}
		}
	}
}

// shut breaks the connection at Close.
func (c *clientConn) shut() { c.fail(errClosed) }

// start queues a call. It returns nil if the connection is broken.
func (c *clientConn) start(method byte, deadline time.Time, body []byte) (*call, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return nil, nil
	}
	// Calls that have been cancelled before they were written are still in the queue of a connection that stalls.
	if waiting := max(len(c.calls), c.queued()); waiting >= callsMax {
		return nil, overloaded("%d calls are waiting for it already", waiting)
	}
	c.lastID++
	w := &call{
		message: message{kind: frameRequest, id: c.lastID, method: method, deadline: deadline, body: body},
		result:  make(chan result, 1),
	}
	c.calls[w.id] = w
	c.push(&w.message)
	return w, nil
}

// wait waits for the reply of a call, or until ctx ends. Then it cancels the call.
func (c *clientConn) wait(ctx context.Context, w *call) ([]byte, error) {
	select {
	case r := <-w.result:
		return r.body, r.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	if !c.remove(w) {
		c.mu.Unlock()
		r := <-w.result // whoever has removed it is about to fill it
		return r.body, r.err
	}
	started := c.drop(&w.message)
	if started {
		c.push(&message{kind: frameCancel, id: w.id})
	}
	c.mu.Unlock()
	if started {
		return nil, unknown(c.address, ctx.Err())
	}
	return nil, unreachable(c.address, ctx.Err())
}

// remove removes a call from those that wait and reports whether it was one. The caller holds mu.
func (c *clientConn) remove(w *call) bool {
	if c.calls[w.id] != w {
		return false
	}
	delete(c.calls, w.id)
	if len(c.calls) == 0 {
		c.idle = time.Now()
	}
	return true
}

// finishCall gives a call its result, unless nobody waits for it any more.
func (c *clientConn) finishCall(w *call, r result) {
	c.mu.Lock()
	waiting := c.remove(w)
	if waiting {
		c.drop(&w.message) // an answer may come before the request is written to its end
	}
	c.mu.Unlock()
	if waiting {
		w.result <- r
	}
}

// read reads replies until the connection ends, for which it returns the reason.
func (c *clientConn) read() error {
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
func (c *clientConn) receive(f frame) error {
	if f.kind == framePong {
		return nil
	}
	c.mu.Lock()
	w := c.calls[f.id]
	unasked := f.id == 0 || f.id > c.lastID
	c.mu.Unlock()
	switch {
	case unasked:
		return fmt.Errorf("a frame of type %d for call %d, which has not been made", f.kind, f.id)
	case w == nil:
		return nil // nobody waits for it any more
	}
	switch f.kind {
	case frameReply:
		length, begin, err := parseReply(f)
		if err != nil {
			return err
		}
		if w.reply != nil {
			return fmt.Errorf("two replies to call %d", f.id)
		}
		if length > c.t.o.BodyBytes {
			c.finishCall(w, result{err: unknown(c.address, vectord.Errorf(vectord.KindTooLarge,
				"its reply has %d bytes, at most %d are accepted", length, c.t.o.BodyBytes))})
			return nil
		}
		w.length = length
		w.reply = append(make([]byte, 0, min(length, growBytes)), begin...)
	case frameChunk:
		if w.reply == nil {
			return fmt.Errorf("a chunk before the reply to call %d", f.id)
		}
		var err error
		if w.reply, err = grow(w.reply, w.length, f); err != nil {
			return err
		}
	case frameFailed, frameRefused, frameLost:
		answer, err := parseError(f.payload)
		if err != nil {
			return err
		}
		switch f.kind {
		case frameFailed:
			c.finishCall(w, result{err: answer})
		case frameRefused:
			c.finishCall(w, result{err: unreachable(c.address, answer)})
		case frameLost:
			c.finishCall(w, result{err: unknown(c.address, answer)})
		}
		return nil
	default:
		return fmt.Errorf("a frame of type %d from the side that answers", f.kind)
	}
	if !f.more {
		c.finishCall(w, result{body: w.reply})
	}
	return nil
}
