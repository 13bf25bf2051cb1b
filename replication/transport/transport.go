package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vectord/vectord"
	"golang.org/x/time/rate"
)

// Defaults of Options.
const (
	// DefaultBodyBytes is 64 MiB and what wraps that many bytes of something.
	DefaultBodyBytes = 64<<20 + 1<<20
	DefaultHandlers  = 256
	DefaultQueue     = 4096
)

const (
	// handshakesMax is how many connections may be between their first packet and the answer to hello. Further ones wait in
	// the kernel. They have handshakeTimeout, but only crowdedTimeout while half of the places are taken, so that
	// nobody who opens connections and says nothing keeps others out for longer.
	handshakesMax    = 128
	handshakeTimeout = 5 * time.Second
	crowdedTimeout   = time.Second
	// inboundMax is how many connections other nodes may have here.
	inboundMax = 8192
	// smallBudgetBytes and largeBudgetBytes bound the requests by the connections for small and for large ones that are
	// here. Two, because large ones must not keep small ones out. One of the longest always fits.
	smallBudgetBytes = 256 << 20
	largeBudgetBytes = 512 << 20
	// clusterBytesMax and addressBytesMax are the lengths of names in hello.
	clusterBytesMax = 64
	addressBytesMax = math.MaxUint8
	// acceptPause is how long accepting pauses after an error, such as that there are no more file descriptors.
	acceptPause = 50 * time.Millisecond
)

// keepAlive has the kernel notice within about 20 s that a node has gone without a word, for streams of Raft on which
// nothing is said.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 3 * time.Second, Count: 3}

// Options configure a Transport. Cluster and Security are needed.
type Options struct {
	// Cluster is the cluster's id, 1 to 64 bytes. Nodes of others are refused.
	Cluster string
	// Advertise is the address (host:port) at which other nodes reach this one; empty: the listener's, unless that is all
	// addresses of the machine. Handlers of other nodes get it as the caller.
	Advertise string
	Security  Security
	// BodyBytes is the longest body of a request or reply; 0: DefaultBodyBytes. It should be the same on all nodes.
	BodyBytes int
	// Handlers is how many calls of one method run at once; 0: DefaultHandlers.
	Handlers int
	// Queue is how many further calls of one method wait for that. Beyond it they are refused; 0: DefaultQueue.
	Queue      int
	Logger     *slog.Logger          // nil: slog.Default()
	Registerer prometheus.Registerer // of the metrics; nil: none
	// Dial makes the connections to other nodes, below TLS; nil: TCP. Tests put faults here.
	Dial func(ctx context.Context, address string) (net.Conn, error)
}

func (o Options) withDefaults() (Options, error) {
	defaults := []struct {
		name  string
		field *int
		value int
	}{
		{"body bytes", &o.BodyBytes, DefaultBodyBytes},
		{"handlers", &o.Handlers, DefaultHandlers},
		{"queue", &o.Queue, DefaultQueue},
	}
	for _, d := range defaults {
		if *d.field == 0 {
			*d.field = d.value
		}
		if *d.field < 0 || *d.field > math.MaxInt32 {
			return o, vectord.Errorf(vectord.KindInvalid, "transport: %s %d is not between 1 and %d", d.name, *d.field, math.MaxInt32)
		}
	}
	if n := len(o.Cluster); n == 0 || n > clusterBytesMax {
		return o, vectord.Errorf(vectord.KindInvalid, "transport: the cluster's id has %d bytes, expected 1 to %d", n, clusterBytesMax)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Dial == nil {
		dialer := &net.Dialer{KeepAliveConfig: keepAlive}
		o.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}
	}
	return o, nil
}

// Transport is the port of a node in its cluster. Its methods may be called from any goroutine, but Handle.
type Transport struct {
	o         Options
	keys      *keyring // nil: plaintext
	listener  net.Listener
	advertise address
	metrics   *metrics
	methods   [math.MaxUint8 + 1]*method // not changed after Start
	budgets   [2]budget                  // of kindSmall and kindLarge
	ctx       context.Context            // ends with Close
	cancel    context.CancelFunc
	running   sync.WaitGroup // all goroutines that last
	places    chan struct{}  // full of handshakes
	inbound   atomic.Int64   // connections of other nodes that are past their handshake
	refusals  rate.Sometimes // of which the log hears

	mu      sync.Mutex // guards what follows
	started bool
	closed  bool // nothing is added to running any more
	groups  map[uint32]*group
	peers   map[string]*peer
	conns   map[shutter]struct{} // for calls
}

// shutter is a connection for calls.
type shutter interface{ shut() }

// address is where a node is reached.
type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

// Listen opens the port of a node. Connections to it wait until Start. An address whose port is 0 gets some free port.
//
// Errors of Options are of KindInvalid.
func Listen(addr string, o Options) (*Transport, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	keys, err := newKeyring(o.Security, o.Logger)
	if err != nil {
		return nil, err
	}
	if keys == nil {
		tcp, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil {
			return nil, vectord.Errorf(vectord.KindInvalid, "listen on %q: %v", addr, err)
		}
		if !tcp.IP.IsLoopback() {
			return nil, vectord.Errorf(vectord.KindInvalid, "listen on %q: plaintext is for loopback addresses only", addr)
		}
		addr = tcp.String() // not to be resolved a second time to something else
	}
	config := net.ListenConfig{KeepAliveConfig: keepAlive}
	listener, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("port of the cluster: %w", err)
	}
	advertise, err := advertised(o.Advertise, listener.Addr())
	if err != nil {
		listener.Close()
		return nil, err
	}
	t := &Transport{
		o: o, keys: keys, listener: listener, advertise: advertise,
		metrics:  newMetrics(o.Registerer),
		places:   make(chan struct{}, handshakesMax),
		refusals: rate.Sometimes{Interval: time.Second},
		groups:   map[uint32]*group{},
		peers:    map[string]*peer{},
		conns:    map[shutter]struct{}{},
	}
	t.budgets[0].max, t.budgets[1].max = smallBudgetBytes, int64(max(largeBudgetBytes, o.BodyBytes))
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t, nil
}

// advertised returns the address at which others reach the node.
func advertised(given string, listener net.Addr) (address, error) {
	if given == "" {
		if tcp, ok := listener.(*net.TCPAddr); ok && tcp.IP.IsUnspecified() {
			return "", vectord.Errorf(vectord.KindInvalid, "listening on %s: an address for other nodes to dial is needed", listener)
		}
		given = listener.String()
	}
	if _, _, err := net.SplitHostPort(given); err != nil || len(given) > addressBytesMax {
		return "", vectord.Errorf(vectord.KindInvalid, "address for other nodes %q: expected host:port of at most %d bytes", given, addressBytesMax)
	}
	return address(given), nil
}

// Handle has h answer calls of a method. It must be called before Start, by one goroutine, and once for a method: anything else
// is a mistake of the program's, and panics.
func (t *Transport) Handle(m byte, h Handler) {
	t.mu.Lock()
	started := t.started
	t.mu.Unlock()
	if started || t.methods[m] != nil {
		panic(fmt.Sprintf("transport: Handle(%d): started %t, handled %t", m, started, t.methods[m] != nil))
	}
	t.methods[m] = &method{handler: h, slots: make(chan struct{}, t.o.Handlers), max: int64(t.o.Handlers) + int64(t.o.Queue)}
}

// Start lets connections in. Only the first call has an effect.
func (t *Transport) Start() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.started || t.closed {
		return
	}
	t.started = true
	t.running.Go(t.accept)
	t.o.Logger.Info("cluster port open", "listen", t.listener.Addr().String(), "advertise", t.advertise.String(),
		"cluster", t.o.Cluster, "plaintext", t.keys == nil)
}

// Addr returns what other nodes dial.
func (t *Transport) Addr() net.Addr { return t.advertise }

// Close ends everything and returns when that is done. Calls of this node fail at once; handlers of calls of other nodes have
// their contexts ended and are waited for, and their answers are sent; and the groups are closed, which Raft should have
// done before. A second call waits for the first.
func (t *Transport) Close() error {
	t.mu.Lock()
	first := !t.closed
	t.closed = true
	groups, conns := t.groups, t.conns
	t.groups, t.conns = nil, nil
	t.mu.Unlock()
	if first {
		t.cancel() // first, so that accept knows why its listener is closed
		t.listener.Close()
		var ending sync.WaitGroup
		for c := range conns {
			ending.Go(c.shut)
		}
		for _, g := range groups {
			ending.Go(func() { _ = g.Close() }) // has no error to tell
		}
		ending.Wait()
	}
	t.running.Wait()
	if first {
		t.o.Logger.Info("cluster port closed", "listen", t.listener.Addr().String())
	}
	return nil
}

// start runs f in a goroutine that Close waits for, and returns false instead after Close.
func (t *Transport) start(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.running.Go(f)
	return true
}

// add has Close shut a connection, and returns false after Close.
func (t *Transport) add(c shutter) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.conns[c] = struct{}{}
	t.metrics.connections.Inc()
	return true
}

// remove undoes add.
func (t *Transport) remove(c shutter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c)
	t.metrics.connections.Dec()
}

// accept lets connections in until the listener is closed.
func (t *Transport) accept() {
	for {
		select {
		case t.places <- struct{}{}:
		case <-t.ctx.Done():
			return
		}
		raw, err := t.listener.Accept()
		if err != nil {
			<-t.places
			if t.ctx.Err() != nil {
				return
			}
			t.refusals.Do(func() { t.o.Logger.Warn("a connection of the cluster's port could not be accepted", "error", err) })
			select {
			case <-time.After(acceptPause):
			case <-t.ctx.Done():
				return
			}
			continue
		}
		if !t.start(func() { t.welcome(raw) }) {
			_ = raw.Close() // nothing has been said
			return
		}
	}
}

// welcome takes a connection through its handshake, and serves it to its end if it is for calls.
func (t *Transport) welcome(raw net.Conn) {
	serve, err := t.handshake(raw)
	<-t.places
	if err != nil {
		_ = raw.Close() // the other side has been told what there is to say
		if t.ctx.Err() == nil {
			t.metrics.refused.WithLabelValues(refusalReason(err)).Inc()
			t.refusals.Do(func() {
				t.o.Logger.Warn("a connection to the cluster's port was refused", "client", raw.RemoteAddr().String(), "error", err)
			})
		}
		return
	}
	serve()
}

// refusalReason is an error of a handshake as metrics know it.
func refusalReason(err error) string {
	var refusal *vectord.Error
	switch {
	case errors.As(err, &refusal):
		return refusal.Kind.String()
	case errors.Is(err, errNotHello):
		return "not vectord"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "handshake"
}

// handshake does TLS and reads and answers hello, all within the time for that. It returns what is to be done with the
// connection then.
func (t *Transport) handshake(raw net.Conn) (serve func(), err error) {
	timeout := handshakeTimeout
	if len(t.places) > handshakesMax/2 {
		timeout = crowdedTimeout
	}
	ctx, cancel := context.WithTimeout(t.ctx, timeout)
	defer cancel()
	var h hello
	var settle func(conn net.Conn, accepted bool) func() // of what is reserved
	conn, err := within(ctx, t.secure(raw, (*keyring).server), func(conn net.Conn) error {
		if h, err = readHello(conn); err != nil {
			return err
		}
		err := h.check(t.o.Cluster)
		if err == nil {
			settle, err = t.reserve(h)
		}
		answer := []byte{helloAccepted}
		if err != nil {
			answer = appendRefusal(nil, err)
		}
		if _, e := conn.Write(answer); e != nil && err == nil {
			err = fmt.Errorf("answer to hello: %w", e)
		}
		return err
	})
	if settle != nil {
		serve = settle(conn, err == nil)
	}
	return serve, err
}

// reserve finds what a connection is for and takes a place there. Settle must be called afterwards: it gives the place back if the
// connection has not been accepted, or else returns what is to be done with it.
func (t *Transport) reserve(h hello) (settle func(conn net.Conn, accepted bool) (serve func()), err error) {
	if n := t.inbound.Add(1); n > inboundMax {
		t.inbound.Add(-1)
		return nil, overloaded("there are %d connections already", n-1)
	}
	if h.kind != kindRaft {
		return func(conn net.Conn, accepted bool) func() {
			if !accepted {
				t.inbound.Add(-1)
				return nil
			}
			return func() { t.serveCalls(conn, h) }
		}, nil
	}
	t.mu.Lock()
	g := t.groups[h.group]
	t.mu.Unlock()
	if g == nil {
		err = notHere(h.group)
	} else {
		err = g.reserve()
	}
	if err != nil {
		t.inbound.Add(-1)
		return nil, err
	}
	return func(conn net.Conn, accepted bool) func() {
		if !accepted {
			t.inbound.Add(-1)
			g.unreserve()
			return nil
		}
		return func() { g.deliver(newStream(g, conn, false)) }
	}, nil
}

// serveCalls serves a connection for calls to its end.
func (t *Transport) serveCalls(conn net.Conn, h hello) {
	defer t.inbound.Add(-1)
	c := newServerConn(t, conn, h)
	if !t.add(c) {
		_ = conn.Close() // nothing has been read
		return
	}
	defer t.remove(c)
	c.serve()
}

// dial connects to another node for what the hello says.
func (t *Transport) dial(ctx context.Context, address string, h hello) (net.Conn, error) {
	raw, err := t.o.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	h.version, h.cluster, h.from = version, t.o.Cluster, string(t.advertise)
	conn, err := within(ctx, t.secure(raw, (*keyring).client), func(conn net.Conn) error {
		if _, err := conn.Write(h.append(nil)); err != nil {
			return fmt.Errorf("hello: %w", err)
		}
		return readAnswer(conn)
	})
	if err != nil {
		_ = raw.Close() // nothing more is expected of it
		return nil, err
	}
	return conn, nil
}

// secure returns the connection that is spoken over, of which no byte has been exchanged.
func (t *Transport) secure(raw net.Conn, wrap func(*keyring, net.Conn) *tls.Conn) net.Conn {
	counted := countingConn{raw, t.metrics}
	if t.keys == nil {
		return counted
	}
	return wrap(t.keys, counted)
}

// within does the handshake of TLS, if conn has one, and what f does, both until ctx ends.
func within(ctx context.Context, conn net.Conn, f func(conn net.Conn) error) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // fails if it is closed already
	err := handshakeTLS(ctx, conn)
	if err == nil {
		err = f(conn)
	}
	if !stop() { // the connection's deadline is, or is about to be, in the past
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func handshakeTLS(ctx context.Context, conn net.Conn) error {
	secured, ok := conn.(*tls.Conn)
	if !ok {
		return nil
	}
	return secured.HandshakeContext(ctx)
}
