package pool

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// BenchmarkTask is a task's way through a ready process and back. p99-write-ms is from its lease to its being written, warm the share of
// tasks that a ready process waited for.
func BenchmarkTask(b *testing.B) {
	m, registry := newMemory(), prometheus.NewRegistry()
	s := open(b, m, Options{Metrics: registry}, helper(b, "worker", func(d *Definition) { d.MinSize, d.MaxSize = 5, 5 }))
	eventually(b, "all processes", func() bool { return readyCount(s) == 5 })
	for b.Loop() {
		m.result(b, m.submit(`{"text":"three small words"}`))
	}
	families, err := registry.Gather()
	if err != nil {
		b.Fatal(err)
	}
	for _, f := range families {
		switch m := f.GetMetric(); f.GetName() {
		case "vectord_pool_tasks_total":
			cold, warm := m[0].GetCounter().GetValue(), m[1].GetCounter().GetValue()
			b.ReportMetric(warm/(cold+warm), "warm")
		case "vectord_pool_assign_seconds":
			h := m[0].GetHistogram()
			for _, bucket := range h.GetBucket() {
				if float64(bucket.GetCumulativeCount()) >= 0.99*float64(h.GetSampleCount()) {
					b.ReportMetric(bucket.GetUpperBound()*float64(time.Second/time.Millisecond), "p99-write-ms")
					break
				}
			}
		}
	}
}
