package group

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	batchOperations prometheus.Histogram
	commitSeconds   prometheus.Histogram
	elections       prometheus.Counter
}

// newMetrics registers the metrics of a group with r, unless r is nil.
func newMetrics(r prometheus.Registerer, g *Group) metrics {
	m := metrics{
		batchOperations: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vectord_log_batch_entries",
			Help:    "Operations that became one entry of the replicated log.",
			Buckets: prometheus.ExponentialBuckets(1, 4, 7), // to 4,096
		}),
		commitSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vectord_log_commit_seconds",
			Help:    "Time from taking a batch of operations until it is on a majority and applied here.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16), // 0.1 ms to 3.3 s
		}),
		elections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vectord_raft_elections_won_total",
			Help: "Times that this node became the leader.",
		}),
	}
	if r == nil {
		return m
	}
	r.MustRegister(m.batchOperations, m.commitSeconds, m.elections)
	for _, gauge := range []struct {
		name, help string
		value      func() float64
	}{
		{"vectord_log_queue_bytes", "Bytes of writes waiting for the log.", func() float64 { return float64(g.leader.waitingBytes()) }},
		{"vectord_raft_leader", "1 while this node leads.", func() float64 {
			if g.leader.leading() != 0 {
				return 1
			}
			return 0
		}},
		{"vectord_raft_term", "The term that this node is in.", func() float64 { return float64(g.raft.CurrentTerm()) }},
		{"vectord_raft_committed", "Index of the last entry known to be on a majority.", func() float64 { return float64(g.raft.CommitIndex()) }},
		{"vectord_raft_applied", "Index of the last entry applied here.", func() float64 {
			_, last, _ := g.machine.positions()
			return float64(last)
		}},
		{"vectord_raft_log_bytes", "Bytes of the log's entries.", func() float64 { return float64(g.o.Logs.Bytes()) }},
	} {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: gauge.name, Help: gauge.help}, gauge.value))
	}
	return m
}
