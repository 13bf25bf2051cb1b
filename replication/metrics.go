package replication

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	batchEntries  prometheus.Histogram
	commitSeconds prometheus.Histogram
	refused       prometheus.Counter
}

// newMetrics registers the metrics of a log with r, unless r is nil.
func newMetrics(r prometheus.Registerer, queueBytes func() int) metrics {
	m := metrics{
		batchEntries: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vectord_log_batch_entries",
			Help:    "Log entries applied together.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 7), // to 4,096
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vectord_log_commit_seconds",
			Help:    "Time from taking a batch of log entries until it is applied and durable.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16), // 0.1 ms to 3.3 s
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vectord_log_refused_total",
			Help: "Writes refused because too many were waiting.",
		}),
	}
	if r != nil {
		waiting := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "vectord_log_queue_bytes",
			Help: "Bytes of writes waiting for the log.",
		}, func() float64 { return float64(queueBytes()) })
		r.MustRegister(m.batchEntries, m.commitSeconds, m.refused, waiting)
	}
	return m
}
