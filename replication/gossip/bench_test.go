package gossip

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// BenchmarkConvergence publishes events of some 80 bytes, one after the other, at random nodes of clusters in this process,
// and measures how long each takes until the last node has seen it, in real time and with encryption. "memberlist" leaves
// everything to memberlist's own gossip, at its defaults: 3 nodes every 200 ms. Reported are
//
//   - p50-ms, p99-ms, max-ms: of the time until the last node has seen an event; an event that does not get there fails,
//   - rounds: hops of the copy that the last node saw, on average; max-rounds is the most of any event,
//   - msgs: items sent per node and event, repair after the event has arrived included; of three events.
func BenchmarkConvergence(b *testing.B) {
	for _, way := range []string{"eager", "memberlist"} {
		for _, n := range []int{3, 10, 30, 100} {
			for _, loss := range []float64{0, 0.05, 0.2} {
				for _, delay := range []time.Duration{0, 5 * time.Millisecond} {
					b.Run(fmt.Sprintf("way=%s/n=%d/loss=%v/delay=%v", way, n, loss, delay), func(b *testing.B) {
						benchmarkConvergence(b, way, n, loss, delay)
					})
				}
			}
		}
	}
}

func benchmarkConvergence(b *testing.B, way string, n int, loss float64, delay time.Duration) {
	const seed = 1
	c := newCluster(b, seed, n, func(g *Gossip) {
		if way == "memberlist" {
			g.fanout = func(int) int { return 0 }
		}
	})
	c.net.set(func() { c.net.loss, c.net.delay = loss, delay })
	settle := 3 * time.Second // until repair of what was published before has ended
	time.Sleep(settle)
	random := rand.New(rand.NewPCG(seed, seed))
	sent := func() (sum float64) {
		for _, g := range c.nodes {
			sum += g.sent(b, wayPush) + g.sent(b, wayRepair)
		}
		return sum
	}
	var took []time.Duration
	hops, hopsMax := 0, 0
	event := func(i int) sighting {
		return c.publish(random.IntN(n), Record{Build: "1.0.0", Load: Load{Queue: uint32(i + 1), MemoryBytes: 1 << 33}})
	}
	for i := 0; b.Loop(); i++ {
		time.Sleep(4 * bundleDelay) // an event for itself
		start := time.Now()
		e := event(i)
		for !c.everywhere(e) {
			if time.Since(start) > 2*reconcileInterval {
				b.Fatalf("event %d is not everywhere after %v", i, time.Since(start))
			}
			time.Sleep(200 * time.Microsecond)
		}
		c.mu.Lock()
		var last sight
		for _, s := range c.seen[e] {
			if s.at.After(last.at) {
				last = s
			}
		}
		delete(c.seen, e)
		c.mu.Unlock()
		took = append(took, last.at.Sub(start))
		hops += int(last.hops)
		hopsMax = max(hopsMax, int(last.hops))
	}
	time.Sleep(settle)
	before := sent()
	const counted = 3 // events whose repair is let come to its end
	for i := range counted {
		event(len(took) + i)
		time.Sleep(settle)
	}
	slices.Sort(took)
	events := float64(len(took))
	at := func(q float64) float64 {
		return float64(took[int(math.Ceil(q*events))-1]) / float64(time.Millisecond)
	}
	b.ReportMetric(at(0.5), "p50-ms")
	b.ReportMetric(at(0.99), "p99-ms")
	b.ReportMetric(at(1), "max-ms")
	b.ReportMetric(float64(hops)/events, "rounds")
	b.ReportMetric(float64(hopsMax), "max-rounds")
	b.ReportMetric((sent()-before)/counted/float64(n), "msgs")
	b.ReportMetric(0, "ns/op")
	for _, g := range c.nodes {
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	}
}

// sent returns how much a node has sent in a way.
func (g *Gossip) sent(t testing.TB, way string) float64 {
	r := prometheus.NewRegistry()
	r.MustRegister(g.metrics.sent)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if m.GetLabel()[0].GetValue() == way {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}
