package engine

import (
	"cmp"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
)

// indexMetrics are counted by the indexes of all shards together.
type indexMetrics struct {
	indexed           prometheus.Counter
	rebuilds          prometheus.Counter
	checkpointSeconds prometheus.Histogram
	retrainings       *prometheus.CounterVec
}

// metrics are the engine's own counters.
type metrics struct {
	indexMetrics
	searches      [searchPlans]prometheus.Counter // by plan
	searchRetries prometheus.Counter
	candidates    prometheus.Counter
	exact         prometheus.Counter
	applied       *prometheus.CounterVec
	expired       prometheus.Counter

	memories       *prometheus.CounterVec
	memorySearches *prometheus.CounterVec
	forgotten      prometheus.Counter

	recallMeasurements prometheus.Counter
	recallSeconds      prometheus.Counter
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
			retrainings: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_index_retrainings_total",
				Help: "Graphs begun again with other codes, by reason: config or drift."}, []string{"reason"}),
		},
		searchRetries: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_search_retries_total",
			Help: "Searches run again because a candidate changed under them."}),
		candidates: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_search_candidates_total",
			Help: "Vectors that searches compared at full precision to choose their hits from."}),
		exact: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_searches_exact_total",
			Help: "Searches whose answer was the exact one, as their plan had looked at all that match."}),
		applied: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_applied_commands_total",
			Help: "Commands applied, by outcome: ok, refused or repeated (an idempotency key seen before)."}, []string{"outcome"}),
		expired: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_expired_points_total",
			Help: "Points removed because they expired."}),
		memories: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_memories_stored_total",
			Help: "Memories that came in by themselves, by what became of them: created, skipped, refreshed or superseded (written in the place of another)."}, []string{"outcome"}),
		memorySearches: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_memory_searches_total",
			Help: "Searches of memories, by what was scored: similar (the most similar, nothing else counts), all that match, or candidates (as there were too many)."}, []string{"scored"}),
		forgotten: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_memories_forgotten_total",
			Help: "Memories deleted because somebody asked to forget them."}),
		recallMeasurements: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_recall_measurements_total",
			Help: "Measurements of the recall of a shard's searches."}),
		recallSeconds: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_recall_work_seconds_total",
			Help: "Time spent measuring recall, pauses not counted; at most a tenth of one core."}),
	}
	searches := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_searches_total",
		Help: "Searches by the plan that ran: exact, list, sparse, examples, fresh, walk, filtered, scan or none."}, []string{"plan"})
	for p := range m.searches {
		m.searches[p] = searches.WithLabelValues(searchPlan(p).String())
	}
	if registry == nil {
		return m
	}
	registry.MustRegister(m.indexed, m.rebuilds, m.checkpointSeconds, m.retrainings, searches, m.searchRetries, m.candidates, m.exact, m.applied, m.expired, m.memories, m.memorySearches, m.forgotten, m.recallMeasurements,
		m.recallSeconds, recallCollector{db})
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
	sumIndexes := func(of func(*vectorIndex) int64) func() float64 {
		return func() float64 {
			var total int64
			db.eachIndex(func(x *vectorIndex) { total += of(x) })
			return float64(total)
		}
	}
	gauge("vectord_collections", "Collections.", func() float64 { return float64(db.catalog.count()) })
	gauge("vectord_points", "Points of all collections.", sum(func(s *shard) int64 { return s.points.Load() }))
	gauge("vectord_index_graph_vectors", "Vectors in graphs.", sumIndexes(func(x *vectorIndex) int64 { return int64(x.indexed()) }))
	gauge("vectord_index_waiting_vectors", "Vectors that are not in a graph and are found by scanning.",
		sumIndexes(func(x *vectorIndex) int64 { return int64(x.waiting()) }))
	gauge("vectord_index_unsaved_changes", "Changed slots since the last checkpoints.",
		sumIndexes(func(x *vectorIndex) int64 { return x.unsaved.Load() }))
	gauge("vectord_index_retraining_shards", "Shards whose graph is being replaced by one of other codes.", sumIndexes(func(x *vectorIndex) int64 {
		if x.next.Load() != nil {
			return 1
		}
		return 0
	}))
	gauge("vectord_index_clipped_ratio", "Share of components that codes could not say, of the last vectors indexed; of the worst shard.",
		func() float64 {
			worst := int64(0)
			db.eachIndex(func(x *vectorIndex) { worst = max(worst, x.drift.share.Load()) })
			return float64(worst) / 1e6
		})
	gauge("vectord_index_unsaved_age_seconds", "How long ago the oldest of those checkpoints was; 0 if nothing has changed since.", func() float64 {
		var oldest time.Duration
		db.eachIndex(func(x *vectorIndex) {
			if x.unsaved.Load() > 0 {
				oldest = max(oldest, time.Since(time.UnixMilli(x.savedAt.Load())))
			}
		})
		return oldest.Seconds()
	})
	owners := map[string]func() float64{
		"graph": sumIndexes((*vectorIndex).graphBytes),
		"fresh": sumIndexes(func(x *vectorIndex) int64 { return x.fresh.MemoryBytes() }),
		"sparse": func() float64 {
			var total int64
			db.eachVectors(func(v *shardVectors) {
				if v.sparse != nil {
					total += v.sparse.MemoryBytes()
				}
			})
			return float64(total)
		},
		"slots":   sum(func(s *shard) int64 { return s.slots.memoryBytes() }),
		"fields":  sum(func(s *shard) int64 { return s.fields.memoryBytes() }),
		"hot_set": func() float64 { return float64(db.hot.memoryBytes()) },
		"storage": func() float64 { return float64(db.budget.fixed - runtimeBytes) },
	}
	for owner, value := range owners {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "vectord_memory_bytes",
			Help: "Memory by owner; storage's is its bound.", ConstLabels: prometheus.Labels{"owner": owner}}, value))
	}
	gauge("vectord_memory_limit_bytes", "The memory limit; 0 is none.", func() float64 { return float64(db.budget.limit) })
	counter("vectord_hot_set_hits_total", "Rescored vectors found in the hot set, each of which saved a read of storage.",
		func() float64 { return float64(db.hot.hits.Load()) })
	counter("vectord_hot_set_misses_total", "Rescored vectors read from storage.",
		func() float64 { return float64(db.hot.misses.Load()) })
	counter("vectord_hot_set_promotions_total", "Vectors that came into the hot set's main queue, being used more than once.",
		func() float64 { return float64(db.hot.promoted.Load()) })
	counter("vectord_hot_set_evictions_total", "Vectors evicted from the hot set.",
		func() float64 { return float64(db.hot.evicted.Load()) })
	gauge("vectord_hot_set_vectors", "Vectors in the hot set.", func() float64 { return float64(db.hot.vectors()) })
	gauge("vectord_hot_set_capacity_bytes", "Bytes that the hot set may take; vectord_memory_bytes has what it does.",
		func() float64 { return float64(db.hot.capacityBytes.Load()) })
	return m
}

// recallCollector exports what each collection's searches find. A label takes its value from the name of a collection, so
// only the recallSeriesMax collections with the most points have series.
type recallCollector struct{ db *DB }

var (
	recallRatio = prometheus.NewDesc("vectord_recall_ratio",
		"Share of the ten nearest points that searches of the collection find, measured last; absent before.", []string{"collection", "vector"}, nil)
	recallTarget = prometheus.NewDesc("vectord_recall_target_ratio",
		"The recall that the collection wants; absent where it fixes ef_search.", []string{"collection", "vector"}, nil)
	recallEf = prometheus.NewDesc("vectord_search_ef",
		"Candidates of a search that does not say.", []string{"collection", "vector"}, nil)
)

// Describe implements prometheus.Collector.
func (c recallCollector) Describe(descs chan<- *prometheus.Desc) {
	descs <- recallRatio
	descs <- recallTarget
	descs <- recallEf
}

// Collect implements prometheus.Collector.
func (c recallCollector) Collect(values chan<- prometheus.Metric) {
	type sized struct {
		*collection
		points int64
	}
	var all []sized
	for _, col := range c.db.catalog.inUse() {
		s := sized{collection: col}
		for _, shard := range col.shards {
			s.points += shard.points.Load()
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b sized) int { return cmp.Or(cmp.Compare(b.points, a.points), cmp.Compare(a.name, b.name)) })
	for _, col := range all[:min(len(all), recallSeriesMax)] {
		for _, spec := range col.specs {
			if spec.kind == vectord.DenseVector {
				col.collectRecall(values, spec)
			}
		}
	}
}

func (c *collection) collectRecall(values chan<- prometheus.Metric, spec *vectorSpec) {
	gauge := func(desc *prometheus.Desc, value float64) {
		values <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, c.name, spec.name)
	}
	state := c.recallState(spec)
	gauge(recallEf, float64(state.Ef))
	if state.Ratio != nil {
		gauge(recallRatio, *state.Ratio)
	}
	if spec.hnsw.EfSearch == 0 {
		gauge(recallTarget, spec.hnsw.RecallTarget)
	}
}
