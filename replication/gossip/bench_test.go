package gossip

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
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
	c := newCluster(b, seed, n, func(g *Gossip, _ *memberlist.Config) {
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
	event := func(i int) sighting {
		return c.publish(random.IntN(n), Record{Build: "1.0.0", Load: Load{Queue: uint32(i + 1), MemoryBytes: 1 << 33}})
	}
	var m measured
	for i := 0; b.Loop(); i++ {
		time.Sleep(4 * bundleDelay) // an event for itself
		m.add(c, event(i))
	}
	time.Sleep(settle)
	before := sent()
	const counted = 3 // events whose repair is let come to its end
	for i := range counted {
		event(len(m.took) + i)
		time.Sleep(settle)
	}
	b.ReportMetric(m.at(0.5), "p50-ms")
	b.ReportMetric(m.at(0.99), "p99-ms")
	b.ReportMetric(m.at(1), "max-ms")
	b.ReportMetric(float64(m.hops)/float64(len(m.took)), "rounds")
	b.ReportMetric(float64(m.hopsMax), "max-rounds")
	b.ReportMetric((sent()-before)/counted/float64(n), "msgs")
	b.ReportMetric(0, "ns/op")
	for _, g := range c.nodes {
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	}
}

// measured is how long events took until the last node had seen them, and over how many hops.
type measured struct {
	took          []time.Duration
	hops, hopsMax int
}

// add waits until an event is everywhere.
func (m *measured) add(c *cluster, e sighting) {
	start := time.Now()
	for !c.everywhere(e) {
		if time.Since(start) > 2*reconcileInterval {
			c.t.Fatalf("%v is not everywhere after %v", e, time.Since(start))
		}
		time.Sleep(time.Millisecond)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var last sight
	for _, s := range c.seen[e] {
		if s.at.After(last.at) {
			last = s
		}
	}
	delete(c.seen, e)
	m.took = append(m.took, last.at.Sub(start))
	m.hops += int(last.hops)
	m.hopsMax = max(m.hopsMax, int(last.hops))
}

// at returns a quantile in milliseconds.
func (m *measured) at(q float64) float64 {
	sorted := slices.Sorted(slices.Values(m.took))
	return float64(sorted[int(math.Ceil(q*float64(len(sorted))))-1]) / float64(time.Millisecond)
}

// TestHundredNodes holds the goal of 200 ms among 100 nodes in virtual time, where nothing counts but the network's delay
// and the pauses that nodes make. GOSSIP_EVENTS is how many events it measures, in all of the table then.
func TestHundredNodes(t *testing.T) {
	type network struct {
		delay time.Duration
		loss  float64
	}
	events, networks := 40, []network{{5 * time.Millisecond, 0}}
	if s := os.Getenv("GOSSIP_EVENTS"); s != "" {
		var err error
		if events, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		networks = nil
		for _, delay := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
			for _, loss := range []float64{0, 0.05, 0.2} {
				networks = append(networks, network{delay, loss})
			}
		}
	}
	for _, network := range networks {
		bubble(t, func(t *testing.T, seed uint64) {
			c := newCluster(t, seed, 100, nil)
			defer c.close()
			c.net.set(func() { c.net.delay, c.net.loss = network.delay, network.loss })
			time.Sleep(3 * time.Second)
			random := rand.New(rand.NewPCG(seed, seed))
			var m measured
			for i := range events {
				time.Sleep(4 * bundleDelay)
				m.add(c, c.publish(random.IntN(100), load(i+1)))
			}
			t.Logf("%+v: p50 %.1f ms, p99 %.1f ms, max %.1f ms, %.2f rounds, at most %d", network, m.at(0.5), m.at(0.99), m.at(1),
				float64(m.hops)/float64(events), m.hopsMax)
			if network.loss == 0 && m.at(1) > 200 {
				t.Errorf("an event took %.0f ms", m.at(1))
			}
		})
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
