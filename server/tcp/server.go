// Package tcpserver speaks vectord's own protocol over TCP (docs/PROTOCOL.md): batches of tasks and of calls about them,
// leases, points and searches, as MessagePack in frames that are answered in any order.
//
// A connection has one goroutine that reads it and one that writes it. A frame goes to the lane of its kind, which takes frames
// one after the other, so that what a producer sends in order is done in order; what has piled up in a lane is handed to the
// Scheduler in one call. Only a poll for tasks, which waits, has a goroutine of its own.
//
// Bytes of a frame are read into again: what is handed to the Scheduler and the Engine is a copy.
package tcpserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/netutil"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/wire"
)

// Scheduler is what the server hands tasks to. Its methods may be called at the same time. Errors carry a vectord.Kind. A change
// has been applied, durably, when the method returns; each task or call has its own outcome and the error is for what concerns
// them all.
type Scheduler interface {
	Submit(ctx context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error)
	// Lease waits for the first task as long as the request says, or until ctx ends, which is no error: there are no tasks then.
	Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error)
	Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error)
	// EndLeases ends the leases of an agent that is gone, so that others get its tasks; reason is the code of the attempts' error.
	EndLeases(ctx context.Context, agentID string, reason string) error
}

// Engine is what the server hands points to. Its methods may be called at the same time. Errors carry a vectord.Kind. A write has
// been applied, durably, when Write returns.
type Engine interface {
	access.Engine
	Write(ctx context.Context, collection string, ops []vectord.Operation, o vectord.WriteOptions) ([]vectord.UpdateResult, error)
	Search(ctx context.Context, collection string, q vectord.Query) ([]vectord.Hit, error)
}

// The defaults of Options, and limits that are not options.
const (
	DefaultRequestTimeout = 30 * time.Second
	DefaultIdleTimeout    = 2 * time.Minute
	DefaultReconnectGrace = 2 * time.Second
	DefaultMaxConnections = 1024
	DefaultMaxFramesBytes = 512 << 20

	credits          = 64       // frames of a connection that are not answered; at more, the connection is not read
	maxPolls         = 64       // of a connection, that wait for tasks; they take no credits
	maxAgents        = 1_000    // that lease over one connection
	searchers        = 2        // searches of a connection at the same time
	maxUnsentBytes   = 1 << 20  // answers of a connection that wait to be written; at more, no further ones are made
	maxLeasedBytes   = 15 << 20 // tasks of one answer; what is beyond is given back
	maxHelloBytes    = 16 << 10 // of a frame before the client has said who it is
	helloTimeout     = 10 * time.Second
	readBufferBytes  = 64 << 10
	keptBufferBytes  = 1 << 20 // size up to which a buffer is used again
	overloadedFor    = 100 * time.Millisecond
	keepAlivePeriod  = 5 * time.Second // between probes of a silent client; three unanswered ones end the connection
	keepAliveProbes  = 3
	endLeasesTimeout = 30 * time.Second
)

// Options tune a Server. The zero value serves everyone, without a key.
type Options struct {
	Keys access.Keys

	RequestTimeout time.Duration // of a request, waiting for tasks not counted, of a frame to arrive and of an answer to be taken; 0 means DefaultRequestTimeout
	IdleTimeout    time.Duration // of a connection that says nothing and waits for nothing; 0 means DefaultIdleTimeout
	ReconnectGrace time.Duration // that an agent has to come back before its leases end; 0 means DefaultReconnectGrace
	MaxConnections int           // more wait to be accepted; 0 means DefaultMaxConnections
	MaxFramesBytes int           // of all frames in memory together; 0 means DefaultMaxFramesBytes

	Version string // of this build; empty means vectord.Version

	Logger  *slog.Logger         // nil means slog.Default()
	Metrics *prometheus.Registry // where the metrics are registered; nil means nowhere
}

func (o *Options) setDefaults() {
	setDefault(&o.RequestTimeout, DefaultRequestTimeout)
	setDefault(&o.IdleTimeout, DefaultIdleTimeout)
	setDefault(&o.ReconnectGrace, DefaultReconnectGrace)
	setDefault(&o.MaxConnections, DefaultMaxConnections)
	setDefault(&o.MaxFramesBytes, DefaultMaxFramesBytes)
	setDefault(&o.Version, vectord.Version)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Metrics == nil {
		o.Metrics = prometheus.NewRegistry()
	}
}

func setDefault[T comparable](v *T, otherwise T) {
	var zero T
	if *v == zero {
		*v = otherwise
	}
}

// Server serves a Scheduler and an Engine over TCP. Its methods may be called at the same time.
type Server struct {
	scheduler  Scheduler
	engine     Engine
	options    Options
	authorizer *access.Authorizer
	metrics    *metrics
	log        *slog.Logger
	agents     *agents

	frames  atomic.Int64 // bytes of frames in memory
	buffers sync.Pool    // of *[]byte

	mu       sync.Mutex // guards what is below
	listener map[net.Listener]bool
	conns    map[*conn]bool
	draining bool
	ended    sync.WaitGroup // of conns
}

// New returns a server of s and e. It panics if the metrics are registered already, that is, if o.Metrics serves two Servers,
// and if tokens shall be accepted without a key to check them with.
func New(s Scheduler, e Engine, o Options) *Server {
	o.setDefaults()
	return &Server{scheduler: s, engine: e, options: o, authorizer: access.New(o.Keys, e), metrics: newMetrics(o.Metrics), log: o.Logger,
		agents:   newAgents(s, o.ReconnectGrace, o.Logger),
		listener: map[net.Listener]bool{}, conns: map[*conn]bool{}}
}

// Serve accepts connections from ln until Shutdown, and then returns nil. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	return s.serve(netutil.LimitListener(ln, s.options.MaxConnections))
}

// ServeTLS is Serve over TLS. config must hold or get a certificate.
func (s *Server) ServeTLS(ln net.Listener, config *tls.Config) error {
	if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
		return errors.New("serve TLS: the configuration has no certificate")
	}
	return s.serve(tls.NewListener(netutil.LimitListener(ln, s.options.MaxConnections), config))
}

func (s *Server) serve(ln net.Listener) error {
	defer ln.Close()
	if !s.addListener(ln) {
		return nil
	}
	for pause := time.Duration(0); ; {
		c, err := ln.Accept()
		var network net.Error
		switch {
		case err == nil:
			pause = 0
			s.add(c)
		case s.isDraining():
			return nil
		case errors.As(err, &network) && network.Timeout(), isTemporary(err): // such as too many open files: better in a while
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("accept TCP connection", "error", err, "again_in", pause)
			time.Sleep(pause)
		default:
			return fmt.Errorf("serve TCP on %s: %w", ln.Addr(), err)
		}
	}
}

func (s *Server) addListener(ln net.Listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		return false
	}
	s.listener[ln] = true
	return true
}

func (s *Server) isDraining() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.draining
}

// add serves a connection.
func (s *Server) add(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.draining {
		_ = nc.Close() // nothing was said
		return
	}
	s.conns[c] = true
	s.ended.Go(func() {
		c.serve()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	})
}

// Shutdown stops accepting, tells the clients to go, lets the requests that are being served be answered and closes the
// connections. Leases outlive it. It returns ctx's error if that takes longer than ctx lasts; what is left is cut off then.
func (s *Server) Shutdown(ctx context.Context) error {
	s.agents.stop()
	s.mu.Lock()
	s.draining = true
	for ln := range s.listener {
		ln.Close()
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.ended.Wait()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		c.kill()
	}
	s.mu.Unlock()
	return fmt.Errorf("shut down TCP: %w", ctx.Err())
}

// reserve takes n bytes from the budget for frames, which release gives back.
func (s *Server) reserve(n int) error {
	if s.frames.Add(int64(n)) > int64(s.options.MaxFramesBytes) {
		s.release(n)
		return &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: overloadedFor,
			Text: fmt.Sprintf("the frames in memory exceed %d bytes", s.options.MaxFramesBytes)}
	}
	return nil
}

func (s *Server) release(n int) { s.frames.Add(int64(-n)) }

// buffer returns an empty buffer of at least the given size.
func (s *Server) buffer(size int) []byte {
	if b, ok := s.buffers.Get().(*[]byte); ok && cap(*b) >= size {
		return (*b)[:0]
	}
	return make([]byte, 0, size)
}

func (s *Server) giveBack(b []byte) {
	if cap(b) > 0 && cap(b) <= keptBufferBytes {
		s.buffers.Put(&b)
	}
}

// statusOf returns the form of an error for the client, and logs one of the server's own.
func (s *Server) statusOf(t wire.FrameType, err error) *wire.Error {
	var denied *access.Denial
	if errors.As(err, &denied) {
		if denied.Kind == access.Forbidden {
			return &wire.Error{Status: 403, Code: "forbidden", Text: denied.Text}
		}
		return &wire.Error{Status: 401, Code: "unauthenticated", Text: denied.Text}
	}
	s.logInternal(t, err)
	return wire.ErrorOf(err)
}

// logInternal logs an error of the server's own, whose text the client does not get.
func (s *Server) logInternal(t wire.FrameType, err error) {
	if err != nil && vectord.KindOf(err) == vectord.KindInternal {
		s.log.Error("request failed", "frame", t.String(), "error", err)
	}
}
