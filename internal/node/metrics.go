package node

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord/storage"
)

// storageCollector exports what storage tells of itself, all of one look at it.
type storageCollector struct{ store *storage.Store }

type storageMetric struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(storage.Metrics) float64
}

func storageMetricOf(name, help string, kind prometheus.ValueType, value func(storage.Metrics) float64) storageMetric {
	return storageMetric{prometheus.NewDesc("vectord_storage_"+name, help, nil, nil), kind, value}
}

var storageMetrics = []storageMetric{
	storageMetricOf("disk_bytes", "Size of tables and logs on disk.", prometheus.GaugeValue,
		func(m storage.Metrics) float64 { return float64(m.DiskBytes) }),
	storageMetricOf("wal_bytes", "Size of the write-ahead log on disk.", prometheus.GaugeValue,
		func(m storage.Metrics) float64 { return float64(m.WALBytes) }),
	storageMetricOf("memtable_bytes", "Size of the memtables.", prometheus.GaugeValue,
		func(m storage.Metrics) float64 { return float64(m.MemTableBytes) }),
	storageMetricOf("l0_sublevels", "Tables that a read may look into before the sorted levels.", prometheus.GaugeValue,
		func(m storage.Metrics) float64 { return float64(m.L0Sublevels) }),
	storageMetricOf("compaction_debt_bytes", "Bytes yet to be rewritten until the tables are in order.", prometheus.GaugeValue,
		func(m storage.Metrics) float64 { return float64(m.CompactionDebtBytes) }),
	storageMetricOf("cache_bytes", "Size of the block cache.", prometheus.GaugeValue,
		func(m storage.Metrics) float64 { return float64(m.CacheBytes) }),
	storageMetricOf("cache_hits_total", "Blocks found in the cache.", prometheus.CounterValue,
		func(m storage.Metrics) float64 { return float64(m.CacheHits) }),
	storageMetricOf("cache_misses_total", "Blocks not found in the cache.", prometheus.CounterValue,
		func(m storage.Metrics) float64 { return float64(m.CacheMisses) }),
	storageMetricOf("write_stalls_total", "Times that writes waited for flushes or compactions.", prometheus.CounterValue,
		func(m storage.Metrics) float64 { return float64(m.WriteStalls) }),
	storageMetricOf("write_stall_seconds_total", "Time that writes waited for flushes or compactions.", prometheus.CounterValue,
		func(m storage.Metrics) float64 { return m.WriteStallTime.Seconds() }),
	storageMetricOf("background_errors_total", "Failed flushes and compactions, which are tried again.", prometheus.CounterValue,
		func(m storage.Metrics) float64 { return float64(m.BackgroundErrors) }),
}

// Describe implements prometheus.Collector.
func (storageCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, m := range storageMetrics {
		descs <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c storageCollector) Collect(values chan<- prometheus.Metric) {
	now := c.store.Metrics()
	for _, m := range storageMetrics {
		values <- prometheus.MustNewConstMetric(m.desc, m.kind, m.value(now))
	}
}
