package transport

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkCall calls over loopback with TLS; the reply is as long as the request. It reports calls a second and how long they
// took, for callers that each have one call at a time.
func BenchmarkCall(b *testing.B) {
	for _, size := range []int{200, 1 << 20} {
		for _, callers := range []int{1, 16, 256} {
			if size > 200 && callers > 16 {
				continue // that many would be beyond the budget of large bodies
			}
			b.Run(fmt.Sprintf("bytes=%d/callers=%d", size, callers), func(b *testing.B) {
				p := newPair(b, Options{Logger: slog.New(slog.DiscardHandler)})
				body := pattern(size)
				if _, err := p.call(b.Context(), methodEcho, body); err != nil {
					b.Fatal(err)
				}
				took := make([]time.Duration, b.N)
				var next atomic.Int64
				var working sync.WaitGroup
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for range callers {
					working.Go(func() {
						for i := next.Add(1) - 1; i < int64(b.N); i = next.Add(1) - 1 {
							start := time.Now()
							if _, err := p.call(context.Background(), methodEcho, body); err != nil {
								b.Error(err)
								return
							}
							took[i] = time.Since(start)
						}
					})
				}
				working.Wait()
				b.StopTimer()
				slices.Sort(took)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// BenchmarkSmallBesideLarge times small calls while large ones go to the same node.
func BenchmarkSmallBesideLarge(b *testing.B) {
	p := newPair(b, Options{Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(b.Context())
	var large sync.WaitGroup
	var echoed atomic.Int64
	defer large.Wait()
	defer cancel()
	for range 2 {
		large.Go(func() {
			body := pattern(32 << 20)
			for ctx.Err() == nil {
				if _, err := p.call(ctx, methodEcho, body); err == nil {
					echoed.Add(int64(len(body)))
				}
			}
		})
	}
	body := pattern(200)
	took := make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		if _, err := p.call(b.Context(), methodEcho, body); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	b.ReportMetric(float64(echoed.Load())/1e6/b.Elapsed().Seconds(), "large-MB/s")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-µs")
}
