package main

import (
	"io"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/server"
	grpcserver "github.com/vectord/vectord/server/grpc"
	tcpserver "github.com/vectord/vectord/server/tcp"
)

// openService opens a node and puts the servers before it. It implements opener.
func openService(o serviceOptions) (services, io.Closer, error) {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n, err := node.Open(node.Config{DataDir: o.dataDir, MemoryLimit: o.memoryLimit, Logger: o.logger, Metrics: metrics,
		SnapshotDir: o.snapshotDir, SnapshotURLs: o.snapshotURLs, Embedding: o.embedding, Pools: o.pools, AllowExec: o.allowExec, Cluster: o.cluster, SetHeapLimit: func(bytes int64) { debug.SetMemoryLimit(bytes) }})
	if err != nil {
		return services{}, nil, err
	}
	membership := n.Membership()
	bodies := bodiesBytes(o.memoryLimit)
	keys := access.Keys{APIKey: o.apiKey, AltAPIKey: o.altAPIKey, ReadOnlyAPIKey: o.readOnlyAPIKey, JWTRBAC: o.jwtRBAC}
	options := server.Options{APIKey: o.apiKey, AltAPIKey: o.altAPIKey, ReadOnlyAPIKey: o.readOnlyAPIKey,
		Scheduler: n.Tasks(), Pools: n, Backup: n.Backup, JWTRBAC: o.jwtRBAC, CORSOrigins: o.corsOrigins, MCP: newMCP(n, o.logger).HandleHTTP, Commit: commit(), MaxBodiesBytes: bodies, Logger: o.logger, Metrics: metrics}
	if membership != nil {
		options.Cluster = membership
	}
	overHTTP := server.New(n.Engine(), options)
	if membership != nil {
		membership.Answer(overHTTP.ServeForwarded)
	}
	overGRPC := grpcserver.New(n.Engine(), grpcserver.Options{
		Keys: keys, Commit: commit(), MaxMessagesBytes: bodies, Logger: o.logger, Metrics: metrics})
	overTCP := tcpserver.New(n.Tasks(), n.Engine(), tcpserver.Options{
		Keys: keys, MaxFramesBytes: bodies, Logger: o.logger, Metrics: metrics})
	return services{overHTTP, overGRPC, overTCP, n.Reopen()}, n, nil
}

// bodiesBytes returns what of the memory limit the bodies of requests may take together, at each door: an eighth, and room for
// the largest state, and with it for two of the other bodies, whatever the limit.
func bodiesBytes(memoryLimit int64) int {
	const largest = vectord.MaxStateBytes + 1<<20
	return int(min(max(memoryLimit/8, largest), server.DefaultMaxBodiesBytes))
}
