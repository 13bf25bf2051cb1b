package tcpserver_test

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
	tcpserver "github.com/vectord/vectord/server/tcp"
)

// BenchmarkTCP submits tasks one by one through a client that makes batches of 100 of them, over loopback, to a scheduler
// that only counts them. One operation is one task, acknowledged.
func BenchmarkTCP(b *testing.B) {
	for _, size := range []int{100, 1000} {
		for _, compress := range []bool{false, true} {
			b.Run(fmt.Sprintf("payload=%d/s2=%v", size, compress), func(b *testing.B) {
				scheduler := newFake()
				scheduler.counts = true
				address, _ := start(b, scheduler, tcpserver.Options{})
				c := dial(b, address, client.TCPOptions{Compress: compress})
				task := vectord.NewTask{Type: "embed", Payload: []byte(`{"text":"` + string(bytes.Repeat([]byte("lorem "), (size-11)/6)) + `"}`)}
				var failed atomic.Int64
				var all sync.WaitGroup
				all.Add(b.N)
				done := func(s vectord.Submitted, err error) {
					if err != nil {
						failed.Add(1)
					}
					all.Done()
				}
				b.SetBytes(int64(len(task.Payload)))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if err := c.SubmitFunc(b.Context(), "q", &task, done); err != nil {
						b.Fatal(err)
					}
				}
				all.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
				if failed.Load() > 0 || scheduler.submitted.Load() < int64(b.N) {
					b.Fatal(failed.Load(), scheduler.submitted.Load())
				}
			})
		}
	}
}
