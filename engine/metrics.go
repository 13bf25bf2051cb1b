package engine

import (
	"github.com/prometheus/client_golang/prometheus"
)

// indexMetrics are counted by the indexes of all shards together.
type indexMetrics struct {
	indexed           prometheus.Counter
	rebuilds          prometheus.Counter
	checkpointSeconds prometheus.Histogram
}

// metrics are the engine's own counters.
type metrics struct {
	indexMetrics
	searches      *prometheus.CounterVec
	searchRetries prometheus.Counter
	applied       *prometheus.CounterVec
}

// newMetrics makes the counters and registers them where a registry is given.
func newMetrics(db *DB, registry prometheus.Registerer) *metrics {
	m := &metrics{
		indexMetrics: indexMetrics{
			indexed: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_indexed_vectors_total",
				Help: "Vectors put into graphs."}),
			rebuilds: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_index_rebuilds_total",
				Help: "Graphs built again because their checkpoint was missing parts or damaged."}),
			checkpointSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vectord_index_checkpoint_duration_seconds",
				Help: "Time to write the checkpoint of one graph.", Buckets: prometheus.ExponentialBuckets(0.01, 3, 8)}),
		},
		searches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_searches_total",
			Help: "Searches by the plan that ran: exact, list, fresh, walk, filtered, scan or none."}, []string{"plan"}),
		searchRetries: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_search_retries_total",
			Help: "Searches run again because a candidate changed under them."}),
		applied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_applied_commands_total",
			Help: "Commands applied, by outcome: ok, refused or repeated (an idempotency key seen before)."}, []string{"outcome"}),
	}
	if registry == nil {
		return m
	}
	registry.MustRegister(m.indexed, m.rebuilds, m.checkpointSeconds, m.searches, m.searchRetries, m.applied)
	gauge := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
	}
	counter := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, value))
	}
	sum := func(of func(*shard) int64) func() float64 {
		return func() float64 {
			var total int64
			db.eachShard(func(s *shard) { total += of(s) })
			return float64(total)
		}
	}
	gauge("vectord_collections", "Collections.", func() float64 { return float64(len(db.Collections())) })
	gauge("vectord_points", "Points of all collections.", sum(func(s *shard) int64 { return s.points.Load() }))
	gauge("vectord_index_graph_vectors", "Vectors in graphs.", sum(func(s *shard) int64 { return int64(s.index.indexed()) }))
	gauge("vectord_index_waiting_vectors", "Vectors that are not in a graph and are found by scanning.",
		sum(func(s *shard) int64 { return int64(s.index.waiting()) }))
	gauge("vectord_index_unsaved_changes", "Changed slots since the last checkpoints.",
		sum(func(s *shard) int64 { return s.index.unsaved.Load() }))
	owners := map[string]func() float64{
		"graph":   sum(func(s *shard) int64 { return s.index.graphBytes() }),
		"fresh":   sum(func(s *shard) int64 { return s.index.fresh.MemoryBytes() }),
		"slots":   sum(func(s *shard) int64 { return s.slots.memoryBytes() }),
		"hot_set": func() float64 { return float64(db.hot.memoryBytes()) },
		"storage": func() float64 { return float64(db.budget.fixed - runtimeBytes) },
	}
	for owner, value := range owners {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vectord_memory_bytes",
			Help: "Memory by owner; storage's is its bound.", ConstLabels: prometheus.Labels{"owner": owner}}, value))
	}
	gauge("vectord_memory_limit_bytes", "The memory limit; 0 is none.", func() float64 { return float64(db.budget.limit) })
	counter("vectord_hot_set_hits_total", "Rescored vectors found in the hot set.", func() float64 { return float64(db.hot.hits.Load()) })
	counter("vectord_hot_set_misses_total", "Rescored vectors not in the hot set.", func() float64 { return float64(db.hot.misses.Load()) })
	counter("vectord_hot_set_evictions_total", "Vectors evicted from the hot set.", func() float64 { return float64(db.hot.evicted.Load()) })
	return m
}
