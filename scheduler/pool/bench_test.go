package pool

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func BenchmarkTask(b *testing.B) {
	for _, submitters := range []int{1, 4, 5} {
		b.Run(fmt.Sprintf("submitters=%d", submitters), func(b *testing.B) { benchmarkTask(b, submitters) })
	}
}

// benchmarkTask is a task's way through one of five ready processes and back, as often as submitters ask for it at the same time. p99-write-ms is from its lease to its being written, warm the share of
// tasks that a ready process waited for.
func benchmarkTask(b *testing.B, submitters int) {
	m, registry := newMemory(), prometheus.NewRegistry()
	s := open(b, m, Options{Metrics: registry}, helper(b, "worker", func(d *Definition) { d.MinSize, d.MaxSize = 5, 100 }))
	eventually(b, "all processes", func() bool { return readyCount(s) >= 5 })
	b.ResetTimer()
	var all sync.WaitGroup
	var done atomic.Int64
	for range submitters {
		all.Go(func() {
			for done.Add(1) <= int64(b.N) {
				m.result(b, m.submit(`{"text":"three small words"}`))
			}
		})
	}
	all.Wait()
	b.StopTimer()
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
