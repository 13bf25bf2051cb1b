package main

import (
	"io"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/server"
)

// openService opens a node and puts an HTTP server before it. It implements opener.
func openService(o serviceOptions) (service, io.Closer, error) {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	n, err := node.Open(node.Config{DataDir: o.dataDir, MemoryLimit: o.memoryLimit, Logger: o.logger, Metrics: metrics,
		SnapshotDir: o.snapshotDir, SnapshotURLs: o.snapshotURLs, SetHeapLimit: func(bytes int64) { debug.SetMemoryLimit(bytes) }})
	if err != nil {
		return nil, nil, err
	}
	return server.New(n.Engine(), server.Options{APIKey: o.apiKey, AltAPIKey: o.altAPIKey, ReadOnlyAPIKey: o.readOnlyAPIKey,
		JWTRBAC: o.jwtRBAC, Commit: commit(),
		MaxBodiesBytes: bodiesBytes(o.memoryLimit), Logger: o.logger, Metrics: metrics}), n, nil
}

// bodiesBytes returns what of the memory limit the bodies of requests may take together: an eighth, and room for two of
// the largest whatever the limit.
func bodiesBytes(memoryLimit int64) int {
	return int(min(max(memoryLimit/8, 2*server.DefaultMaxBodyBytes), server.DefaultMaxBodiesBytes))
}
