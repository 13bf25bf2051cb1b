package transport

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// files makes a certificate of a new authority.
func files(t testing.TB) Security {
	t.Helper()
	dir := t.TempDir()
	ca, caKey := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	if err := CreateAuthority(ca, caKey, 0); err != nil {
		t.Fatal(err)
	}
	s := Security{CA: ca, Certificate: filepath.Join(dir, "node.pem"), Key: filepath.Join(dir, "node-key.pem")}
	if err := CreateCertificate(ca, caKey, s.Certificate, s.Key, "node", 0); err != nil {
		t.Fatal(err)
	}
	return s
}

// testLog shows what is logged in tests that fail.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// listen opens a node that the end of the test closes. Whatever o leaves out is set to something.
func listen(t testing.TB, o Options) *Transport {
	t.Helper()
	if o.Cluster == "" {
		o.Cluster = "test"
	}
	if o.Security == (Security{}) {
		o.Security = files(t)
	}
	if o.Logger == nil {
		o.Logger = testLog(t)
	}
	n, err := Listen("127.0.0.1:0", o)
	if err != nil {
		t.Fatal(err)
	}
	open.Add(1)
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		noGoroutines(t)
	})
	return n
}

// open counts the nodes that are not closed.
var open atomic.Int64

// noGoroutines checks that nothing of the package runs any more, once the last node of the test is closed. Tests do not run at
// the same time.
func noGoroutines(t testing.TB) {
	t.Helper()
	if open.Add(-1) > 0 {
		return
	}
	left := ours()
	for deadline := time.Now().Add(patience); len(left) > 0 && time.Now().Before(deadline); left = ours() {
		runtime.Gosched() // one that has told Close that it ends may not have ended yet
	}
	if len(left) > 0 {
		t.Errorf("%d goroutines are left after Close:\n%s", len(left), strings.Join(left, "\n\n"))
	}
}

// ours returns the stacks of the package's goroutines, apart from those that tests have started.
func ours() (stacks []string) {
	buf := make([]byte, 4<<20)
	for s := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		_, creator, _ := strings.Cut(s, "created by ")
		if strings.Contains(creator, "replication/transport.(") && !strings.Contains(creator, "_test.go") ||
			strings.Contains(creator, "sync.(*WaitGroup).Go") && strings.Contains(s, "replication/transport.") && !strings.Contains(s, "_test.go") {
			stacks = append(stacks, s)
		}
	}
	return stacks
}

// Methods of the nodes of pair.
const (
	methodEcho  = 1
	methodBlock = 2 // sends the context's end to ended
)

// pair is a caller and a node that answers.
type pair struct {
	caller, server *Transport
	entered        chan context.Context // of methodBlock
	ended          chan error
	release        chan struct{} // lets methodBlock return
}

// newPair opens two nodes of one cluster.
func newPair(t testing.TB, o Options) *pair {
	t.Helper()
	if o.Security == (Security{}) {
		o.Security = files(t)
	}
	p := &pair{entered: make(chan context.Context, 100), ended: make(chan error, 100), release: make(chan struct{})}
	dial := o.Dial
	o.Dial = nil
	p.server = listen(t, o)
	o.Dial = dial
	p.caller = listen(t, o)
	p.server.Handle(methodEcho, func(_ context.Context, _ string, body []byte) ([]byte, error) { return body, nil })
	p.server.Handle(methodBlock, func(ctx context.Context, _ string, body []byte) ([]byte, error) {
		p.entered <- ctx
		select {
		case <-ctx.Done():
			p.ended <- ctx.Err()
			return nil, ctx.Err()
		case <-p.release:
			return body, nil
		}
	})
	p.server.Start()
	p.caller.Start()
	return p
}

func (p *pair) address() string { return p.server.Addr().String() }

// call calls the server.
func (p *pair) call(ctx context.Context, method byte, body []byte) ([]byte, error) {
	return p.caller.Call(ctx, p.address(), method, body)
}

// start calls the server in the background.
func (p *pair) start(ctx context.Context, method byte, body []byte) <-chan error {
	result := make(chan error, 1)
	go func() {
		_, err := p.call(ctx, method, body)
		result <- err
	}()
	return result
}

// receive takes a value that must come.
func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		t.Fatalf("%s: nothing came\n%s", what, buf[:runtime.Stack(buf, true)])
		panic("unreachable")
	}
}

// until waits for what must come true.
func until(t testing.TB, what string, isTrue func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !isTrue(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
	}
}

// dialRaw connects to a node as one of its cluster, up to hello.
func dialRaw(t testing.TB, from, to *Transport, h hello) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := from.dial(ctx, to.Addr().String(), h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// mustEnd checks that the other side closes a connection.
func mustEnd(t testing.TB, conn net.Conn) {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, conn)
	if n, ok := err.(net.Error); ok && n.Timeout() {
		t.Error("the connection goes on")
	}
}

// faulty is a network with faults. Its dial is for Options.Dial.
type faulty struct {
	mu    sync.Mutex
	conns []*faultyConn
}

type faultyConn struct {
	net.Conn
	mu    sync.Mutex
	stall chan struct{} // not nil: writes wait until it is closed
	held  chan struct{} // has a value when a write waits
}

func (f *faulty) dial(ctx context.Context, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c := &faultyConn{Conn: conn, held: make(chan struct{}, 1000)}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.conns = append(f.conns, c)
	return c, nil
}

// cut breaks all connections without a word.
func (f *faulty) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		c.Conn.Close()
	}
	f.conns = nil
}

// last returns the last connection that was made.
func (f *faulty) last() *faultyConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns[len(f.conns)-1]
}

func (f *faulty) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

// block has writes wait until the function that it returns is called.
func (c *faultyConn) block() (unblock func()) {
	stall := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stall = stall
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.stall = nil
		close(stall)
	}
}

func (c *faultyConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	stall := c.stall
	c.mu.Unlock()
	if stall != nil {
		c.held <- struct{}{}
		<-stall
	}
	return c.Conn.Write(p)
}

// pattern returns n bytes that differ from place to place.
func pattern(n int) []byte {
	return bytes.Repeat([]byte("0123456789abcdef-"), n/17+1)[:n]
}
