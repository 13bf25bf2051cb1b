// Package server speaks HTTP for an Engine and a Scheduler: it decodes a request, makes one call and encodes the answer. What
// concerns the Engine has the forms of Qdrant's REST API, which the rest follows.
//
// Every request takes the same way, in this order: the limits on connections, headers and concurrency; who asks (the
// key or token); whether they may (the permission that the route declares, and for what); and only then the body, beginning with its declared
// size, the call, the answer. The route table in routes.go is the only list of routes.
//
// Bytes of a request are fasthttp's and are reused after the handler: what is handed to the Engine is a copy.
package server

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fasthttp/router"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// Engine is what the server serves. Its methods may be called at the same time. Errors carry a vectord.Kind. Names are
// those of collections; where a method reads or writes points or information, an alias is as good.
//
// A write has been applied, durably, when Write returns. Records of ids that do not exist are left out.
type Engine interface {
	CreateCollection(ctx context.Context, name string, config vectord.CollectionConfig) error
	UpdateCollection(ctx context.Context, name string, u vectord.CollectionUpdate) error
	DeleteCollection(ctx context.Context, name string) (existed bool, err error)
	Collections() []string // sorted, no aliases
	CollectionInfo(name string) (vectord.CollectionInfo, error)
	CollectionExists(name string) bool
	UpdateAliases(ctx context.Context, actions []vectord.AliasAction) error
	Aliases() []vectord.Alias        // sorted by name
	ResolveAlias(name string) string // the collection that an alias stands for; any other name as it is
	// CreateFieldIndex waits, if wait is set, until the index is built or ctx ends, when the result is pending.
	CreateFieldIndex(ctx context.Context, collection, field string, schema vectord.FieldSchema, wait bool) (vectord.UpdateResult, error)
	DeleteFieldIndex(ctx context.Context, collection, field string) (vectord.UpdateResult, error)
	CreateVectorName(ctx context.Context, collection, name string, v vectord.NewVectors) (vectord.UpdateResult, error)
	DeleteVectorName(ctx context.Context, collection, name string) (vectord.UpdateResult, error)
	Write(ctx context.Context, collection string, ops []vectord.Operation, o vectord.WriteOptions) ([]vectord.UpdateResult, error)
	Retrieve(ctx context.Context, collection string, ids []vectord.PointID, s vectord.Selection) ([]vectord.Record, error)
	Scroll(ctx context.Context, collection string, r vectord.ScrollRequest) (vectord.ScrollPage, error)
	Count(ctx context.Context, collection string, f *vectord.Filter) (int, error)
	Search(ctx context.Context, collection string, q vectord.Query) ([]vectord.Hit, error)
	// SearchBatch's error says of which query it is.
	SearchBatch(ctx context.Context, collection string, queries []vectord.Query) ([][]vectord.Hit, error)
	SearchGroups(ctx context.Context, collection string, g vectord.Groups) ([]vectord.Group, error)
	Facet(ctx context.Context, collection string, f vectord.Facet) ([]vectord.FacetHit, error)
	Matrix(ctx context.Context, collection string, m vectord.Matrix) ([]vectord.MatrixRow, error)
	// StoreMemories returns one result for each memory, in order; dedup nil writes all of them.
	StoreMemories(ctx context.Context, collection string, memories []vectord.Memory, dedup *vectord.MemoryDedup, o vectord.WriteOptions) ([]vectord.MemoryResult, error)
	SearchMemories(ctx context.Context, collection string, q vectord.MemoryQuery) ([]vectord.MemoryHit, error)
	TouchMemories(ctx context.Context, collection string, ids []vectord.PointID) (touched int, err error)
	ForgetMemories(ctx context.Context, collection string, s vectord.MemorySelector) (deleted int, err error) // of those before an error too
	Ready() error

	// Snapshots are those of a collection, or of the whole node where the collection's name is empty.
	CreateSnapshot(ctx context.Context, collection string) (vectord.Snapshot, error)
	Snapshots(collection string) ([]vectord.Snapshot, error) // by name
	OpenSnapshot(collection, name string) (content io.ReadCloser, size int64, err error)
	DeleteSnapshot(collection, name string) error
	RecoverSnapshot(ctx context.Context, collection string, source vectord.SnapshotSource) error
	// ReceiveSnapshot reads a snapshot to its end and returns what recovers it, which is called once.
	ReceiveSnapshot(ctx context.Context, collection string, content io.Reader, checksum string) (recoverIt func(context.Context) error, err error)
}

// The defaults of Options, and limits that are not options.
const (
	DefaultRequestTimeout     = 30 * time.Second
	DefaultMaxBodyBytes       = 32 << 20
	DefaultMaxBodiesBytes     = 512 << 20
	DefaultIdleTimeout        = 90 * time.Second
	DefaultMaxConnections     = 4096
	DefaultMaxConcurrentCalls = 1024

	maxHeaderBytes         = 16 << 10
	maxIdempotencyKeyBytes = 255
)

// Options tune a Server. The zero value serves everyone, without a key.
type Options struct {
	APIKey         string // opens every route; if all keys are empty none is asked for
	AltAPIKey      string // opens every route too, so that keys can be changed one after the other
	ReadOnlyAPIKey string // opens the routes that read
	JWTRBAC        bool   // tokens open what they say (see package token); they are signed with APIKey, which must be given

	// CORSOrigins are the origins, such as "https://app.example.com", whose pages may send requests from a browser; "*" stands for
	// every one. A request that carries any other is refused.
	CORSOrigins []string

	RequestTimeout     time.Duration // of a request, from its first byte to the answer; 0 means DefaultRequestTimeout
	IdleTimeout        time.Duration // of a connection between requests; 0 means DefaultIdleTimeout
	MaxBodyBytes       int           // of one body, before and after decompression; 0 means DefaultMaxBodyBytes
	MaxBodiesBytes     int           // of all bodies in memory together; 0 means DefaultMaxBodiesBytes
	MaxSnapshotBytes   int64         // of a snapshot that is uploaded; 0 means vectord.MaxSnapshotBytes
	MaxConnections     int           // 0 means DefaultMaxConnections
	MaxConcurrentCalls int           // requests served at the same time; 0 means DefaultMaxConcurrentCalls

	Version string // of this build; empty means vectord.Version
	Commit  string // of this build, shown if not empty

	MCP       MCPHandler // answers POST /mcp; nil: there is no such route
	Scheduler Scheduler  // of queues, tasks, agents and states; nil means that they are not offered
	Pools     Pools      // of local agents; nil means that they are not offered
	// Backup returns the whole state as of now and its size in bytes; nil means that it is not offered.
	Backup  func() (io.ReadCloser, int64, error)
	Cluster Cluster // of several servers over the same data; nil means that this one is on its own

	Logger  *slog.Logger         // nil means slog.Default()
	Metrics *prometheus.Registry // where the metrics are registered and what /metrics shows; nil means a registry of its own
}

func (o *Options) keys() access.Keys {
	return access.Keys{APIKey: o.APIKey, AltAPIKey: o.AltAPIKey, ReadOnlyAPIKey: o.ReadOnlyAPIKey, JWTRBAC: o.JWTRBAC}
}

func (o *Options) setDefaults() {
	setDefault(&o.RequestTimeout, DefaultRequestTimeout)
	setDefault(&o.IdleTimeout, DefaultIdleTimeout)
	setDefault(&o.MaxBodyBytes, DefaultMaxBodyBytes)
	setDefault(&o.MaxBodiesBytes, DefaultMaxBodiesBytes)
	setDefault(&o.MaxSnapshotBytes, vectord.MaxSnapshotBytes)
	setDefault(&o.MaxConnections, DefaultMaxConnections)
	setDefault(&o.MaxConcurrentCalls, DefaultMaxConcurrentCalls)
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

// Server serves an Engine over HTTP. Its methods may be called at the same time.
type Server struct {
	engine     Engine
	options    Options
	authorizer *access.Authorizer
	http       *fasthttp.Server
	router     *router.Router
	metrics    *metrics
	log        *slog.Logger

	routeMetrics []*routeMetrics // of routes, in their order
	description  func() []byte   // of the API, made when it is first asked for
	id           string          // of this process, for telemetry
	started      time.Time

	calls     atomic.Int64 // requests being served, open routes not counted
	bodies    atomic.Int64 // bytes reserved for bodies in memory
	waiting   atomic.Int64 // requests that wait
	streams   atomic.Int64 // of events being sent
	downloads atomic.Int64 // snapshots being sent
	draining  atomic.Bool
	serving   context.Context // ends when the server begins to shut down, and with it what waits
	drain     context.CancelFunc

	buffers sync.Pool // of *[]byte, for bodies
}

// New returns a server of e. It panics if the metrics are registered already, that is, if o.Metrics serves two Servers, and
// if o.JWTRBAC is set without o.APIKey.
func New(e Engine, o Options) *Server {
	o.setDefaults()
	s := &Server{engine: e, options: o, authorizer: access.New(o.keys(), e), log: o.Logger, description: sync.OnceValue(describeAPI), id: rand.Text(), started: time.Now()}
	s.serving, s.drain = context.WithCancel(context.Background())
	s.metrics = newMetrics(&s.options)
	s.router = s.newRouter()
	s.http = &fasthttp.Server{
		Name:                         "vectord",
		Handler:                      s.handle,
		ErrorHandler:                 s.handleMalformed,
		HeaderReceived:               s.headerReceived,
		StreamRequestBody:            true,
		DisablePreParseMultipartForm: true,
		MaxRequestBodySize:           o.MaxBodyBytes,
		ReadBufferSize:               maxHeaderBytes,
		ReadTimeout:                  o.RequestTimeout,
		WriteTimeout:                 o.RequestTimeout,
		IdleTimeout:                  o.IdleTimeout,
		Concurrency:                  o.MaxConnections,
		TCPKeepalive:                 true,
		CloseOnShutdown:              true,
		NoDefaultContentType:         true,
		SecureErrorLogMessage:        true,
		Logger:                       slogPrinter{o.Logger},
	}
	return s
}

// Serve accepts connections from ln until Shutdown, and then returns nil. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	return s.serve(&lingeringListener{ln})
}

// ServeTLS is Serve over TLS. config must hold or get a certificate.
func (s *Server) ServeTLS(ln net.Listener, config *tls.Config) error {
	if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
		return errors.New("serve TLS: the configuration has no certificate")
	}
	return s.serve(tls.NewListener(&lingeringListener{ln}, config))
}

func (s *Server) serve(ln net.Listener) error {
	if err := s.http.Serve(ln); err != nil {
		return fmt.Errorf("serve HTTP on %s: %w", ln.Addr(), err)
	}
	return nil
}

// Shutdown stops accepting, ends the waits of requests, lets those that are being served finish and closes their connections. It returns
// ctx's error if that takes longer than ctx lasts.
func (s *Server) Shutdown(ctx context.Context) error {
	s.draining.Store(true)
	s.drain()
	if err := s.http.ShutdownWithContext(ctx); err != nil {
		return fmt.Errorf("shut down HTTP: %w", err)
	}
	return nil
}

// slogPrinter takes the log lines of fasthttp, which are about single connections.
type slogPrinter struct{ log *slog.Logger }

func (p slogPrinter) Printf(format string, args ...any) {
	p.log.Debug("http connection", "event", fmt.Sprintf(format, args...))
}
