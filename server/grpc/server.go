// Package grpcserver speaks gRPC for an Engine, by the public interface of Qdrant: the services Qdrant, Collections, Points
// and Snapshots, of which the package qdrant of its Go client exports the messages and the interfaces of servers. It
// decodes a message, makes one call and encodes the answer, as package server does over HTTP.
//
// Every call takes the same way, in this order: the limits on connections, headers and concurrency; who asks (the key or
// token); only then the message; whether they may (the permission that the method declares, for the collection that the
// message names); the call, the answer. The table in methods.go has a line for each method.
package grpcserver

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/qdrant/go-client/qdrant"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // has clients compress messages if they want to
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/tap"

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

	// Snapshots are those of a collection, or of the whole node where the collection's name is empty.
	CreateSnapshot(ctx context.Context, collection string) (vectord.Snapshot, error)
	Snapshots(collection string) ([]vectord.Snapshot, error) // by name
	DeleteSnapshot(collection, name string) error
}

// The defaults of Options, and limits that are not options.
const (
	DefaultRequestTimeout     = 30 * time.Second
	DefaultMaxMessageBytes    = 32 << 20
	DefaultMaxMessagesBytes   = 512 << 20
	DefaultMaxConnections     = 4096
	DefaultMaxConcurrentCalls = 1024

	maxHeaderBytes         = 16 << 10
	maxIdempotencyKeyBytes = 255

	// pingsApart is how often a client may ask whether the connection stands, also between calls. Qdrant's Go client does
	// every 10 s; one that does more often is sent away.
	pingsApart = 5 * time.Second

	// idlePing and pingAnswer bound how long a client that is gone without a word keeps its connection.
	idlePing   = time.Minute
	pingAnswer = 20 * time.Second
)

// Options tune a Server. The zero value serves everyone, without a key.
type Options struct {
	Keys access.Keys

	RequestTimeout     time.Duration // of a call, from its first byte to the answer; 0 means DefaultRequestTimeout
	MaxMessageBytes    int           // of one message, before and after decompression; 0 means DefaultMaxMessageBytes
	MaxMessagesBytes   int           // of all messages being received together; 0 means DefaultMaxMessagesBytes
	MaxConnections     int           // more wait to be accepted; 0 means DefaultMaxConnections
	MaxConcurrentCalls int           // calls served at the same time; 0 means DefaultMaxConcurrentCalls

	Version string // of this build; empty means vectord.Version
	Commit  string // of this build, shown if not empty

	Logger  *slog.Logger         // nil means slog.Default()
	Metrics *prometheus.Registry // where the metrics are registered; nil means nowhere
}

func (o *Options) setDefaults() {
	setDefault(&o.RequestTimeout, DefaultRequestTimeout)
	setDefault(&o.MaxMessageBytes, DefaultMaxMessageBytes)
	setDefault(&o.MaxMessagesBytes, DefaultMaxMessagesBytes)
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

// Server serves an Engine over gRPC. Its methods may be called at the same time.
type Server struct {
	engine     Engine
	options    Options
	authorizer *access.Authorizer
	metrics    *metrics
	log        *slog.Logger
	grpc       *grpc.Server

	calls     atomic.Int64  // being served, of methods that need a permission
	receiving chan struct{} // full of those whose message is on its way
}

// New returns a server of e. It panics if the metrics are registered already, that is, if o.Metrics serves two Servers, and
// if tokens shall be accepted without a key to check them with.
func New(e Engine, o Options) *Server {
	o.setDefaults()
	s := &Server{
		engine:     e,
		options:    o,
		authorizer: access.New(o.Keys, e),
		metrics:    newMetrics(o.Metrics),
		log:        o.Logger,
		receiving:  make(chan struct{}, max(1, o.MaxMessagesBytes/o.MaxMessageBytes)),
	}
	s.grpc = grpc.NewServer(
		grpc.MaxRecvMsgSize(o.MaxMessageBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(uint32(min(o.MaxConcurrentCalls, math.MaxInt32))),
		grpc.ConnectionTimeout(o.RequestTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsApart, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: idlePing, Timeout: pingAnswer}),
		grpc.InTapHandle(s.limitTime),
		grpc.UnknownServiceHandler(s.handlerOf(&method{label: "other", rule: noSuchMethod, handle: unimplemented})),
	)
	s.register(&qdrant.Qdrant_ServiceDesc, health{s: s})
	s.register(&qdrant.Collections_ServiceDesc, collections{s: s})
	s.register(&qdrant.Points_ServiceDesc, points{s: s})
	s.register(&qdrant.Snapshots_ServiceDesc, snapshots{s: s})
	return s
}

// register registers the methods of a service as streams, each with handlerOf around what the package qdrant generated: a
// unary method's message would have been received before anything of ours runs, and with it that of a stranger.
func (s *Server) register(desc *grpc.ServiceDesc, service any) {
	streams := grpc.ServiceDesc{ServiceName: desc.ServiceName, HandlerType: desc.HandlerType, Metadata: desc.Metadata}
	for i := range desc.Methods {
		name := desc.ServiceName + "/" + desc.Methods[i].MethodName
		handle := desc.Methods[i].Handler
		m := &method{label: name, rule: rules[name], handle: func(ctx context.Context, receive func(any) error) (any, error) {
			return handle(service, ctx, receive, nil)
		}}
		streams.Streams = append(streams.Streams, grpc.StreamDesc{StreamName: desc.Methods[i].MethodName, Handler: s.handlerOf(m)})
	}
	s.grpc.RegisterService(&streams, service)
}

// limitTime gives a call the time that it has, from its header on. It runs in the goroutine that reads the connection.
func (s *Server) limitTime(ctx context.Context, info *tap.Info) (context.Context, error) {
	timeout := s.options.RequestTimeout
	if rules[strings.TrimPrefix(info.FullMethodName, "/")].long {
		timeout = longTimeout
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	context.AfterFunc(ctx, cancel)
	return limited, nil
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
	config = config.Clone()
	config.NextProtos = []string{"h2"}
	return s.serve(tls.NewListener(netutil.LimitListener(ln, s.options.MaxConnections), config))
}

func (s *Server) serve(ln net.Listener) error {
	if err := s.grpc.Serve(ln); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve gRPC on %s: %w", ln.Addr(), err)
	}
	return nil
}

// Shutdown stops accepting, lets the calls that are being served finish and closes their connections. It returns ctx's error
// if that takes longer than ctx lasts; what is left is cut off then.
func (s *Server) Shutdown(ctx context.Context) error {
	ended := make(chan struct{})
	go func() {
		s.grpc.GracefulStop()
		close(ended)
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		s.grpc.Stop()
		return fmt.Errorf("shut down gRPC: %w", ctx.Err())
	}
}
