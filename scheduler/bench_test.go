package scheduler_test

import (
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vectord/vectord"
)

// BenchmarkThrough takes tasks of 256 bytes all the way: submitted, leased and completed in batches of 100, by one producer
// and one agent at the same time.
func BenchmarkThrough(b *testing.B) {
	for _, durability := range []vectord.Durability{vectord.InMemory, vectord.Replicated} {
		b.Run(string(durability), func(b *testing.B) {
			s := start(b)
			config := vectord.DefaultQueueConfig()
			config.Durability = durability
			must(b, s.PutQueue(background, "q", config))
			const agents, batch = 8, 100
			for i := range agents {
				register(b, s, string(rune('a'+i)), vectord.AgentConfig{Capacity: 1000})
			}
			payload := json.RawMessage(`"` + string(make([]byte, 254)) + `"`)
			for i := range payload[1:255] {
				payload[1+i] = 'x'
			}
			var done atomic.Int64
			underWay := make(chan struct{}, 8_000) // fewer than the queue takes
			var all sync.WaitGroup
			b.ResetTimer()
			const producers = 8
			for range producers {
				all.Go(func() {
					tasks := make([]vectord.NewTask, batch)
					for i := range tasks {
						tasks[i].Payload = payload
					}
					for left := b.N/producers + 1; left > 0; {
						n := min(left, batch)
						for range n {
							underWay <- struct{}{}
						}
						out, err := s.Submit(background, "q", tasks[:n])
						must(b, err)
						for _, o := range out {
							must(b, o.Err)
						}
						left -= n
					}
				})
			}
			total := int64(producers * (b.N/producers + 1))
			for i := range agents {
				all.Go(func() {
					for done.Load() < total {
						held := lease(b, s, string(rune('a'+i)), batch, 20)
						if len(held) == 0 {
							continue
						}
						calls := make([]vectord.TaskCall, len(held))
						for i, task := range held {
							calls[i] = vectord.TaskCall{Kind: vectord.CallComplete, ID: task.ID, LeaseID: task.LeaseID, Result: json.RawMessage(`1`)}
						}
						out, err := s.Call(background, calls)
						must(b, err)
						for _, o := range out {
							must(b, o.Err)
						}
						done.Add(int64(len(held)))
						for range held {
							<-underWay
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
