package tcpserver

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/wire"
)

// frame is one request on its way through the server. It belongs to one goroutine at a time.
type frame struct {
	wire.Header
	arrived  time.Time
	body     []byte // decompressed
	reserved int    // bytes of the server's budget
	credit   bool   // it holds one of the connection's
}

// conn is a connection.
type conn struct {
	server *Server
	net    net.Conn
	in     *bufio.Reader

	credential string // as the client said hello
	compress   uint8  // what answers are compressed with, a flag of frames or 0

	ctx    context.Context // ends when nothing more is read
	cancel context.CancelFunc

	credits chan struct{}        // full of frames that are not answered
	lanes   [laneSearch + 1]lane // started when they are needed
	working sync.WaitGroup       // of lanes

	polls    sync.WaitGroup
	polling  atomic.Int64
	draining atomic.Bool

	agentsMu sync.Mutex // guards agents
	agents   map[string]bool

	mu      sync.Mutex // guards what is below
	changed sync.Cond  // of what is below
	unsent  []byte
	closing bool // no more is going to be appended
	broken  bool // the connection is of no use any more
}

// lane is a way that frames take one after the other.
type lane chan *frame

// The lanes.
const (
	laneSubmit = iota
	laneCall
	lanePoints
	laneSearch
)

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, net: nc, credits: make(chan struct{}, credits), agents: map[string]bool{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.changed.L = &c.mu
	return c
}

// serve serves the connection to its end.
func (c *conn) serve() {
	c.server.metrics.connections.Inc()
	defer c.server.metrics.connections.Dec()
	setKeepAlive(c.net)
	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()
	err := c.read()
	c.cancel()
	c.polls.Wait()
	for id := range c.agents {
		c.server.agents.unbind(id)
	}
	for _, l := range c.lanes {
		if l != nil {
			close(l)
		}
	}
	c.working.Wait()
	c.mu.Lock()
	c.closing = true
	c.changed.Broadcast()
	c.mu.Unlock()
	<-written
	_ = c.net.Close() // nothing more is expected of it
	if !errors.Is(err, io.EOF) && !c.draining.Load() {
		c.server.log.Debug("tcp connection ended", "client", c.net.RemoteAddr().String(), "error", err)
	}
}

func setKeepAlive(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if t, ok := nc.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		_ = t.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: keepAlivePeriod, Interval: keepAlivePeriod, Count: keepAliveProbes}) // else death is noticed later
	}
}

// drain tells the client to go, and has nothing more be read.
func (c *conn) drain() {
	c.draining.Store(true)
	c.mu.Lock()
	if !c.closing && !c.broken {
		c.unsent, _ = wire.AppendFrame(c.unsent, wire.FrameGoaway, wire.FlagLast, 0,
			&wire.Error{Status: 503, Code: "draining", Text: "the server is shutting down"})
		c.changed.Broadcast()
	}
	c.mu.Unlock()
	c.cancel()
	_ = c.net.SetReadDeadline(time.Now()) // fails if the connection is gone
}

// kill cuts the connection off.
func (c *conn) kill() {
	c.mu.Lock()
	c.broken = true
	c.changed.Broadcast()
	c.mu.Unlock()
	c.cancel()
	_ = c.net.Close() // nothing more is expected of it
}

// read reads the connection until it ends, for which it says the reason.
func (c *conn) read() error {
	c.setReadDeadline(helloTimeout)
	var shake [wire.HandshakeBytes]byte
	if _, err := io.ReadFull(c.net, shake[:]); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	if string(shake[:len(wire.Magic)]) != wire.Magic {
		return fmt.Errorf("handshake: % x is none", shake)
	}
	if v := binary.BigEndian.Uint16(shake[len(wire.Magic):]); v != wire.Version {
		err := vectord.Errorf(vectord.KindUnsupported, "handshake: version %d, this server has %d", v, wire.Version)
		c.refuse(&frame{}, err)
		return err
	}
	c.compress = shake[wire.HandshakeBytes-1] & (wire.FlagS2 | wire.FlagZstd)
	if c.compress == wire.FlagS2|wire.FlagZstd {
		c.compress = wire.FlagS2
	}
	c.in = bufio.NewReaderSize(c.net, readBufferBytes)
	if err := c.hello(); err != nil {
		return err
	}
	for {
		f, err := c.next(wire.MaxFrameBytes)
		if err != nil {
			return err
		}
		if f != nil {
			c.dispatch(f)
		}
	}
}

func (c *conn) setReadDeadline(d time.Duration) {
	_ = c.net.SetReadDeadline(time.Now().Add(d)) // fails if the connection is gone, which reading will tell
	if c.draining.Load() {                       // drain's deadline comes last, whoever was first
		_ = c.net.SetReadDeadline(time.Now())
	}
}

// hello reads the first frame, which says who the client is.
func (c *conn) hello() error {
	f, err := c.next(maxHelloBytes)
	if err != nil {
		return err
	}
	if f == nil {
		return errors.New("hello was refused")
	}
	defer c.done(f)
	var hello wire.Hello
	if f.Type != wire.FrameHello {
		err = vectord.Errorf(vectord.KindInvalid, "the first frame is %s, expected hello", f.Type)
	} else if _, err = hello.UnmarshalMsg(f.body); err != nil {
		err = wire.Malformed(f.Type, err)
	} else if _, err = c.server.authorizer.Authenticate(hello.APIKey); err == nil {
		c.credential = hello.APIKey
		c.answer(f, wire.FrameResult, &wire.Welcome{Server: "vectord " + c.server.options.Version, Credits: credits,
			MaxFrameBytes: wire.MaxFrameBytes, MaxBatch: vectord.MaxTaskBatch})
		return nil
	}
	c.refuse(f, err)
	return err
}

// next reads a frame. There is none if it was refused but the connection goes on.
func (c *conn) next(maxBytes int) (*frame, error) {
	header, err := c.waitHeader()
	if err != nil {
		return nil, err
	}
	f := &frame{Header: header, arrived: time.Now()}
	if f.BodyBytes > maxBytes {
		err := vectord.Errorf(vectord.KindTooLarge, "frame: %d bytes, at most %d are accepted before hello", f.BodyBytes, maxBytes)
		c.refuse(f, err)
		return nil, err
	}
	c.server.metrics.frames[known(f.Type)].Inc()
	select {
	case c.credits <- struct{}{}:
		f.credit = true
	case <-c.ctx.Done():
		return nil, c.ctx.Err()
	}
	c.setReadDeadline(c.server.options.RequestTimeout)
	if err := c.server.reserve(f.BodyBytes); err != nil {
		c.refuse(f, err)
		c.done(f)
		_, err = c.in.Discard(header.BodyBytes)
		return nil, err
	}
	f.reserved = f.BodyBytes
	body := c.server.buffer(f.BodyBytes)[:f.BodyBytes]
	if _, err := io.ReadFull(c.in, body); err != nil {
		c.done(f)
		return nil, err
	}
	f.body = body
	if f.Flags&(wire.FlagS2|wire.FlagZstd) != 0 {
		if err := c.decompress(f); err != nil {
			c.refuse(f, err)
			c.done(f)
			return nil, nil
		}
	}
	return f, nil
}

// waitHeader reads the header of a frame, for which it waits as long as a client may be silent, or as long as a poll waits.
func (c *conn) waitHeader() (h wire.Header, err error) {
	for {
		c.setReadDeadline(c.server.options.IdleTimeout)
		b, err := c.in.Peek(wire.HeaderBytes)
		if err == nil {
			if h, err = wire.ParseHeader((*[wire.HeaderBytes]byte)(b)); err != nil {
				c.refuse(&frame{Header: h}, err)
				return h, err
			}
			_, err = c.in.Discard(wire.HeaderBytes)
			return h, err
		}
		busy := c.polling.Load() > 0 || len(c.credits) > 0
		if !errors.Is(err, os.ErrDeadlineExceeded) || !busy || len(b) > 0 || c.draining.Load() {
			return h, err
		}
	}
}

func (c *conn) decompress(f *frame) error {
	n, err := wire.BodyBytes(f.Flags, f.body)
	if err != nil {
		return err
	}
	if err := c.server.reserve(n); err != nil {
		return err
	}
	f.reserved += n
	out, err := wire.Decompress(c.server.buffer(min(n, keptBufferBytes)), f.Flags, f.body)
	c.server.giveBack(f.body)
	f.body = out
	return err
}

// dispatch hands a frame to whoever serves it.
func (c *conn) dispatch(f *frame) {
	switch f.Type {
	case wire.FramePing:
		c.answer(f, wire.FrameResult, nil)
		c.done(f)
	case wire.FrameLease:
		c.startPoll(f)
	case wire.FrameSubmitBatch:
		c.enter(laneSubmit, f)
	case wire.FrameAckBatch, wire.FrameHeartbeatBatch:
		c.enter(laneCall, f)
	case wire.FrameUpsert:
		c.enter(lanePoints, f)
	case wire.FrameSearch:
		c.enter(laneSearch, f)
	default:
		c.refuse(f, vectord.Errorf(vectord.KindInvalid, "frame type %d (%s) is no request", f.Type, f.Type))
		c.done(f)
	}
}

// enter puts a frame into a lane. There is always room: a lane holds as many frames as there are credits.
func (c *conn) enter(which int, f *frame) {
	if c.lanes[which] == nil {
		l := make(lane, credits)
		c.lanes[which] = l
		switch which {
		case laneSubmit:
			c.working.Go(func() { serveBatches(c, l, submitting) })
		case laneCall:
			c.working.Go(func() { serveBatches(c, l, calling) })
		case lanePoints:
			c.working.Go(func() { c.serveEach(l, c.upsert) })
		case laneSearch:
			for range searchers {
				c.working.Go(func() { c.serveEach(l, c.search) })
			}
		}
	}
	c.lanes[which] <- f
}

// serveEach serves the frames of a lane one by one.
func (c *conn) serveEach(l lane, serve func(ctx context.Context, f *frame) (wire.Marshaler, error)) {
	for f := range l {
		answer, err := guarded(c, f, func(ctx context.Context) (wire.Marshaler, error) { return serve(ctx, f) })
		c.finish(f, answer, err)
	}
}

// guarded calls a handler, which has as long as a request may take. A panic costs the client an error, and the others nothing.
func guarded[T any](c *conn, f *frame, handle func(ctx context.Context) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithDeadline(context.Background(), f.arrived.Add(c.server.options.RequestTimeout))
	defer cancel()
	defer c.catch(f.Type, &err)
	return handle(ctx)
}

// catch turns a panic into an error. It is deferred.
func (c *conn) catch(t wire.FrameType, err *error) {
	if p := recover(); p != nil {
		c.server.log.Error("panic in a handler", "frame", t.String(), "panic", p, "stack", string(debug.Stack()))
		*err = fmt.Errorf("panic: %v", p)
	}
}

// authorize returns the name of a collection to go on with (see access.Authorizer.Authorize), or why the client may not. It looks at
// the credential anew each time: a token's time may have passed since hello.
func (c *conn) authorize(needed access.Permission, s access.Scope, collection string) (name string, err error) {
	caller, err := c.server.authorizer.Authenticate(c.credential)
	if err != nil {
		return "", err
	}
	return c.server.authorizer.Authorize(&caller, needed, s, collection)
}

// finish answers a frame by a result or, if err is not nil, an error.
func (c *conn) finish(f *frame, result wire.Marshaler, err error) {
	if err != nil {
		c.refuse(f, err)
	} else if f.Flags&wire.FlagNoReply == 0 {
		c.answer(f, wire.FrameResult, result)
	}
	c.done(f)
}

// done gives back what a frame took.
func (c *conn) done(f *frame) {
	c.server.metrics.answered(f)
	c.server.release(f.reserved)
	c.server.giveBack(f.body)
	f.body, f.reserved = nil, 0
	c.payBack(f)
}

func (c *conn) payBack(f *frame) {
	if f.credit {
		f.credit = false
		<-c.credits
	}
}

func (c *conn) refuse(f *frame, err error) {
	e := c.server.statusOf(f.Type, err)
	c.server.metrics.errors.WithLabelValues(e.Code).Inc()
	c.answer(f, wire.FrameError, e)
}

// answer appends an answer to what is written, and waits while that is too much.
func (c *conn) answer(f *frame, t wire.FrameType, message wire.Marshaler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.unsent) > maxUnsentBytes && !c.broken {
		c.changed.Wait()
	}
	if c.broken || c.closing {
		return
	}
	var err error
	if c.unsent, err = wire.AppendFrame(c.unsent, t, c.compress|wire.FlagLast, f.ID, message); err != nil {
		c.unsent, _ = wire.AppendFrame(c.unsent, wire.FrameError, wire.FlagLast, f.ID, c.server.statusOf(f.Type, err)) // fits
	}
	c.changed.Broadcast()
}

// write writes answers until all are written or the connection breaks.
func (c *conn) write() {
	var sending []byte
	for {
		c.mu.Lock()
		for len(c.unsent) == 0 && !c.closing && !c.broken {
			c.changed.Wait()
		}
		if c.broken || len(c.unsent) == 0 {
			c.mu.Unlock()
			return
		}
		if cap(sending) > keptBufferBytes {
			sending = nil
		}
		sending, c.unsent = c.unsent, sending[:0]
		c.changed.Broadcast()
		c.mu.Unlock()
		_ = c.net.SetWriteDeadline(time.Now().Add(c.server.options.RequestTimeout)) // fails if the connection is gone, which writing will tell
		if _, err := c.net.Write(sending); err != nil {
			c.kill()
			return
		}
	}
}

// isTemporary reports whether accepting may go well later.
func isTemporary(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) || errors.Is(err, syscall.ENOMEM)
}
