package gossip

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vectord/vectord"
)

var secret = bytes.Repeat([]byte{7}, SecretBytes)

// lingering is how long goroutines of memberlist may outlive Close: those of exchanges that are under way. Tests wait for it
// within a synctest bubble, where it takes no time, and which fails when a goroutine is left.
const lingering = 30 * time.Second

// cluster is some nodes on one network.
type cluster struct {
	t     testing.TB
	net   *network
	seed  uint64
	nodes []*Gossip

	mu   sync.Mutex // guards what follows
	seen map[sighting]map[string]sight
}

// sighting is an event: a version of a node's record.
type sighting struct {
	origin  string
	version Version
}

type sight struct {
	at   time.Time
	hops uint8
}

func id(i int) string { return fmt.Sprintf("node-%03d", i) }

// bubble runs a test with virtual time, with a seed for the network that it prints. The race detector of Go 1.26 crashes when
// goroutines of a bubble find timers expired that nobody waited for (golang/go issue 78156); this package has none.
func bubble(t *testing.T, f func(t *testing.T, seed uint64)) {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) { f(t, seed) })
}

func newCluster(t testing.TB, seed uint64, n int, adjust func(*Gossip, *memberlist.Config)) *cluster {
	c := &cluster{t: t, net: newNetwork(t, seed), seed: seed, seen: map[sighting]map[string]sight{}}
	c.net.delay = time.Millisecond
	for i := range n {
		c.nodes = append(c.nodes, c.start(i, 1, adjust))
	}
	c.eventually(time.Minute, "all know all", func() bool { return c.all(StateAlive, c.ids()...) })
	return c
}

func (c *cluster) ids() []string {
	var ids []string
	for _, g := range c.nodes {
		ids = append(ids, g.id)
	}
	return ids
}

// start starts the i-th node. The first is everyone's seed.
func (c *cluster) start(i int, incarnation uint64, adjust func(*Gossip, *memberlist.Config)) *Gossip {
	c.t.Helper()
	return c.startAt(i, incarnation, address(i), adjust)
}

func (c *cluster) startAt(i int, incarnation uint64, address string, adjust func(*Gossip, *memberlist.Config)) *Gossip {
	c.t.Helper()
	g, err := open(options(c.net, i, incarnation, address), func(g *Gossip, config *memberlist.Config) {
		g.observe = func(origin string, v Version, hops uint8) {
			c.mu.Lock()
			defer c.mu.Unlock()
			if s := c.seen[sighting{origin, v}]; s != nil {
				s[g.id] = sight{time.Now(), hops}
			}
		}
		if adjust != nil {
			adjust(g, config)
		}
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

func options(n *network, i int, incarnation uint64, at string) Options {
	return Options{ID: id(i), Incarnation: incarnation, Cluster: "test", Secret: secret, BindAddress: at, Seeds: []string{address(0)},
		Transport: n.endpoint(at)}
}

// close stops the nodes, and waits in a bubble for what may run on.
func (c *cluster) close() {
	for _, g := range c.nodes {
		if err := g.Close(); err != nil {
			c.t.Error(err)
		}
	}
	time.Sleep(lingering)
}

// eventually waits until a condition holds, and fails when that takes longer than limit.
func (c *cluster) eventually(limit time.Duration, what string, condition func() bool) time.Duration {
	c.t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if condition() {
			return time.Since(start)
		}
		if time.Since(start) > limit {
			for _, g := range c.nodes {
				for _, m := range g.Members() {
					c.t.Logf("%s sees %s %s %v", g.id, m.ID, m.State, m.Version)
				}
			}
			c.t.Fatalf("not after %v: %s", limit, what)
		}
	}
}

// all reports whether all nodes see those with the ids in a state.
func (c *cluster) all(s State, ids ...string) bool {
	for _, g := range c.nodes {
		for _, id := range ids {
			if m, ok := g.Member(id); !ok || m.State != s || m.Version == (Version{}) {
				return false
			}
		}
	}
	return true
}

// publish publishes something new at the i-th node and returns what to wait for.
func (c *cluster) publish(i int, r Record) sighting {
	c.t.Helper()
	g := c.nodes[i]
	g.mu.Lock()
	e := sighting{g.id, Version{g.version.Incarnation, g.version.Sequence + 1}}
	g.mu.Unlock()
	c.mu.Lock()
	c.seen[e] = map[string]sight{}
	c.mu.Unlock()
	if err := g.Publish(r); err != nil {
		c.t.Fatal(err)
	}
	return e
}

// everywhere reports whether all others have seen an event.
func (c *cluster) everywhere(e sighting) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen[e]) >= len(c.nodes)-1
}

func load(i int) Record { return Record{Build: "1.0.0", Load: Load{Queue: uint32(i)}} }

// TestConvergence is number 57 of the fault tests: every event reaches every node, whatever the network loses.
func TestConvergence(t *testing.T) {
	for _, n := range []int{3, 10, 30} {
		for _, loss := range []float64{0, 0.05, 0.2} {
			t.Run(fmt.Sprintf("n=%d,loss=%v", n, loss), func(t *testing.T) {
				bubble(t, func(t *testing.T, seed uint64) {
					c := newCluster(t, seed, n, nil)
					defer c.close()
					time.Sleep(2 * time.Second) // joining has spent some of the budget
					c.net.set(func() { c.net.loss = loss })
					// Without loss pushing is enough: a few hops of 1 ms, and up to 5 ms of bundling before each. memberlist's own gossip
					// would take 200 ms and more.
					limit := 60 * time.Millisecond
					if loss > 0 {
						limit = 3 * reconcileInterval
					}
					random := rand.New(rand.NewPCG(seed, 1))
					sum := int64(0)
					var slowest time.Duration
					for i := range 20 {
						time.Sleep(100 * time.Millisecond)
						at := random.IntN(n)
						delta := random.Int64N(20) - 10
						sum += delta
						if err := c.nodes[at].Add("agent", delta); err != nil {
							t.Fatal(err)
						}
						e := c.publish(at, load(i+1))
						slowest = max(slowest, c.eventually(limit, fmt.Sprintf("event %d is everywhere", i), func() bool {
							return c.everywhere(e)
						}))
					}
					c.eventually(limit, "the counter is the same everywhere", func() bool {
						return !slices.ContainsFunc(c.nodes, func(g *Gossip) bool { return g.Counter("agent") != sum })
					})
					t.Logf("the slowest event took %v", slowest)
				})
			})
		}
	}
}

// TestRepair checks that each way of spreading does it alone.
func TestRepair(t *testing.T) {
	f := func(name string, limit time.Duration, loss float64, adjust func(*Gossip, *memberlist.Config)) {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, seed uint64) {
				c := newCluster(t, seed, 5, adjust)
				defer c.close()
				c.net.set(func() { c.net.loss = loss })
				for i := range 5 {
					e := c.publish(i, load(i+1))
					c.eventually(limit, "the event is everywhere", func() bool { return c.everywhere(e) })
				}
			})
		})
	}
	f("along with memberlist's gossip", 3*time.Second, 0, func(g *Gossip, _ *memberlist.Config) {
		g.fanout = func(int) int { return 0 }
		g.repairs.mult *= 4 // so that chance misses nobody
	})
	f("by reconciliation, all packets lost", 60*time.Second, 1, func(_ *Gossip, config *memberlist.Config) {
		config.PushPullInterval = 0
	})
}

// TestLargeRecords checks that what does not fit a packet goes over streams at once.
func TestLargeRecords(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 10, nil)
		defer c.close()
		c.net.set(func() { c.net.loss = 1 })
		r := Record{Groups: make([]Group, 300)}
		for i := range r.Groups {
			r.Groups[i] = Group{ID: uint32(i), Role: RoleLeader, Term: 1 << 20, Applied: 1 << 40}
		}
		e := c.publish(3, r)
		c.eventually(time.Second, "the record is everywhere", func() bool { return c.everywhere(e) })
		m, _ := c.nodes[7].Member(id(3))
		if !slices.Equal(m.Groups, r.Groups) {
			t.Errorf("groups: %v", m.Groups)
		}
		r.Groups = make([]Group, 2000)
		if err := c.nodes[3].Publish(r); vectord.KindOf(err) != vectord.KindTooLarge {
			t.Errorf("a record beyond its limit: %v", err)
		}
	})
}

// TestPartition is number 58: both sides find each other again within one reconciliation, however long they were apart.
func TestPartition(t *testing.T) {
	f := func(apart time.Duration) {
		t.Run(apart.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, seed uint64) {
				c := newCluster(t, seed, 10, nil)
				defer c.close()
				c.net.set(func() {
					for i := range 5 {
						c.net.side[address(i)] = 1
					}
				})
				time.Sleep(apart)
				for i := range c.nodes {
					c.publish(i, load(1000+i))
				}
				time.Sleep(time.Second)
				if m, _ := c.nodes[0].Member(id(9)); m.Load.Queue == 1009 {
					t.Fatal("the network is not split")
				}
				if m, _ := c.nodes[0].Member(id(9)); m.State != StateDead && apart >= 40*time.Second {
					t.Errorf("the other side is %s after %v", m.State, apart)
				}
				c.net.set(func() { clear(c.net.side) })
				took := c.eventually(reconcileInterval+2*time.Second, "all know all", func() bool {
					for _, g := range c.nodes {
						for i := range c.nodes {
							if m, ok := g.Member(id(i)); !ok || m.State != StateAlive || m.Load.Queue != uint32(1000+i) {
								return false
							}
						}
					}
					return true
				})
				t.Logf("healed after %v", took)
			})
		})
	}
	f(3 * time.Second) // suspected, and not dead yet
	f(40 * time.Second)
	f(10 * time.Minute) // memberlist has forgotten the other side
}

// TestStates follows a node through suspicion, death, return and goodbye.
func TestStates(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 5, nil)
		watch, err := c.nodes[0].Subscribe()
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var states []State
		var watching sync.WaitGroup
		watching.Go(func() {
			for {
				members, err := watch.Next(t.Context())
				if err != nil {
					return
				}
				for _, m := range members {
					mu.Lock()
					if m.ID == id(4) && (len(states) == 0 || states[len(states)-1] != m.State) {
						states = append(states, m.State)
					}
					mu.Unlock()
				}
			}
		})
		// All that is lost is what the last node sends and gets. It denies being suspect as soon as it hears of it.
		isolate := func(side int) { c.net.set(func() { c.net.side[address(4)] = side }) }
		others := c.nodes[:4]
		some := func(s State) func() bool {
			return func() bool {
				return slices.ContainsFunc(others, func(g *Gossip) bool { m, _ := g.Member(id(4)); return m.State == s })
			}
		}
		every := func(s State) func() bool {
			return func() bool {
				return !slices.ContainsFunc(others, func(g *Gossip) bool { m, _ := g.Member(id(4)); return m.State != s })
			}
		}
		before := c.nodes[4].version
		isolate(1)
		c.eventually(20*time.Second, "it is suspect", some(StateSuspect))
		c.eventually(100*time.Millisecond, "all suspect it", every(StateSuspect))
		if some(StateDead)() {
			t.Error("it is dead at once")
		}
		isolate(0)
		c.eventually(10*time.Second, "it is alive", every(StateAlive))
		m, _ := c.nodes[0].Member(id(4))
		if m.Version.Compare(before) <= 0 {
			t.Errorf("it denied without a newer version: %v", m.Version)
		}
		time.Sleep(10 * time.Second) // until it has denied to memberlist, too, whose suspicion would go on
		isolate(1)
		c.eventually(time.Minute, "it is dead", every(StateDead))
		isolate(0)
		c.eventually(reconcileInterval+2*time.Second, "it is back", every(StateAlive))

		if err := c.nodes[4].Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.eventually(2*time.Second, "it has left", every(StateLeft))
		if err := c.nodes[4].Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if !every(StateLeft)() {
			t.Error("it has not left any more")
		}
		watch.Close()
		watching.Wait()
		if i := slices.Index(states, StateDead); i > 0 && states[i+1] == StateSuspect { // until it denies what was said before it died
			states = slices.Delete(states, i+1, i+2)
		}
		if want := []State{StateAlive, StateSuspect, StateAlive, StateSuspect, StateDead, StateAlive, StateLeft}; !slices.Equal(states, want) {
			t.Errorf("states %v, want %v", states, want)
		}
		if err := others[0].Forget(id(4)); err != nil {
			t.Error(err)
		}
		if err := others[0].Forget(id(4)); vectord.KindOf(err) != vectord.KindNotFound {
			t.Errorf("forgotten twice: %v", err)
		}
		if err := others[0].Forget(id(1)); vectord.KindOf(err) != vectord.KindConflict {
			t.Errorf("forgetting who is there: %v", err)
		}
		time.Sleep(time.Minute)
		if m, ok := others[0].Member(id(4)); ok {
			t.Errorf("others brought it back: %+v", m)
		}
		for _, g := range others { // a day later
			g.forgetOld(time.Now().Add(forgetAfter))
			if m, ok := g.Member(id(4)); ok || g.store.origins[id(4)] != nil || len(g.Members()) != 4 {
				t.Errorf("%s has not forgotten: %+v", g.id, m)
			}
		}
		c.nodes = others
		c.close()
	})
}

// TestDenial checks that a node that is suspected without reason denies it at once.
func TestDenial(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 5, nil)
		defer c.close()
		before, _ := c.nodes[0].Member(id(2))
		c.nodes[0].suspect(id(2))
		if m, _ := c.nodes[0].Member(id(2)); m.State != StateSuspect {
			t.Errorf("it is %s", m.State)
		}
		c.eventually(100*time.Millisecond, "all hear the denial", func() bool {
			return !slices.ContainsFunc(c.nodes, func(g *Gossip) bool {
				m, _ := g.Member(id(2))
				return m.State != StateAlive || m.Version.Compare(before.Version) <= 0
			})
		})
	})
}

// TestRestart is number 59: what a node published before it restarted has no effect after it.
func TestRestart(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 5, nil)
		defer c.close()
		for i := range 10 {
			c.publish(2, load(i))
		}
		if err := c.nodes[2].Add("agent", 5); err != nil {
			t.Fatal(err)
		}
		e := c.publish(2, load(99))
		c.eventually(time.Second, "the event is everywhere", func() bool { return c.everywhere(e) })
		see := func(queue uint32, incarnation uint64, agent, tool int64) func() bool {
			return func() bool {
				return !slices.ContainsFunc(c.nodes, func(g *Gossip) bool {
					m, _ := g.Member(id(2))
					return m.State != StateAlive || m.Load.Queue != queue || m.Version.Incarnation != incarnation ||
						g.Counter("agent") != agent || g.Counter("tool") != tool
				})
			}
		}
		c.eventually(time.Second, "the counter is everywhere", see(99, 1, 5, 0))
		old := func() []byte { g := c.nodes[1]; return delegate{g}.LocalState(false) }()

		restart := func(incarnation uint64, queue int) {
			if err := c.nodes[2].Close(); err != nil {
				t.Fatal(err)
			}
			c.nodes[2] = c.start(2, incarnation, nil)
			if err := c.nodes[2].Publish(load(queue)); err != nil {
				t.Fatal(err)
			}
			if err := c.nodes[2].Add("tool", 1); err != nil {
				t.Fatal(err)
			}
		}
		restart(2, 1)
		c.eventually(reconcileInterval, "what it says now is everywhere", see(1, 2, 0, 1))
		for _, g := range c.nodes {
			if g.id != id(2) {
				g.receive(old)
			}
		}
		if !see(1, 2, 0, 1)() {
			t.Error("stale state was believed")
		}
		c.nodes[2].receive(old)
		if got := c.nodes[2].Incarnation(); got != 2 {
			t.Errorf("incarnation %d after hearing of its own past", got)
		}
		// A node that has lost its count of incarnations finds out from the others.
		restart(1, 2)
		c.eventually(2*reconcileInterval, "what it says with a stale incarnation is everywhere", see(2, 3, 0, 1))
		for i := range 10 {
			c.publish(2, load(i))
		}
		if err := c.nodes[2].Add("agent", 5); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Second, "more is everywhere", see(9, 3, 5, 1))
		restart(3, 3)
		c.eventually(2*reconcileInterval, "what it says with the same incarnation is everywhere", see(3, 4, 0, 1))
	})
}

// TestTwoOfOneID checks that a node whose id another uses, too, does not race it to ever higher incarnations.
func TestTwoOfOneID(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 1, nil)
		defer c.close()
		g := c.nodes[0]
		for range 1000 { // 10 s
			g.receive(appendRecordItem(appendHeader(nil, id(1), 0), recordItem{origin: g.id, version: Version{g.Incarnation(), versionMax}}))
			g.receive(appendSlotsItem(appendHeader(nil, id(1), 0), 1, g.id, g.Incarnation(), map[string]Slot{"agent": {P: 9}}))
			time.Sleep(10 * time.Millisecond)
		}
		if got := g.Incarnation(); got < 10 || got > 12 {
			t.Errorf("incarnation %d after 10 s", got)
		}
		if got := g.Counter("agent"); got != 0 {
			t.Errorf("it believes others about its counters: %d", got)
		}
	})
}

// TestNewAddress restarts a node that died under another address.
func TestNewAddress(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 3, nil)
		defer c.close()
		c.nodes[2].Close()
		c.eventually(time.Minute, "it is dead", func() bool {
			m, _ := c.nodes[0].Member(id(2))
			return m.State == StateDead
		})
		time.Sleep(reclaimAfter)
		c.nodes[2] = c.startAt(2, 2, address(50), nil)
		c.eventually(reconcileInterval, "it is there under its new address", func() bool {
			return !slices.ContainsFunc(c.nodes, func(g *Gossip) bool {
				m, _ := g.Member(id(2))
				return m.State != StateAlive || m.Addresses.Gossip != address(50) || m.Version.Incarnation != 2
			})
		})
	})
}

// TestForgery is number 60: whoever lacks the secret or the cluster's name is not heard.
func TestForgery(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 3, nil)
		defer c.close()
		e := c.publish(1, load(1))
		c.eventually(time.Second, "the event is everywhere", func() bool { return c.everywhere(e) })

		forged := appendRecordItem(appendHeader(nil, id(1), 0), recordItem{hops: 1, origin: id(1), version: Version{9, 9},
			raw: appendRecord(nil, published{Record: load(666)})})
		forger := c.net.endpoint(address(99))
		plain := append([]byte{8}, forged...) // 8 is memberlist's kind of messages of its users
		label, err := memberlist.AddLabelHeaderToPacket(plain, "test")
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range [][]byte{forged, plain, label} {
			forger.WriteTo(b, address(0))
			conn, err := forger.DialTimeout(address(0), time.Second)
			if err != nil {
				t.Fatal(err)
			}
			conn.SetDeadline(time.Now().Add(time.Second))
			conn.Write(b)
			conn.Close()
		}
		forger.Shutdown()
		for i, o := range []Options{
			{Cluster: "test", Secret: bytes.Repeat([]byte{8}, SecretBytes)},
			{Cluster: "other", Secret: secret},
			{Cluster: "", Secret: secret},
		} {
			o.ID, o.Incarnation, o.BindAddress, o.Seeds = id(1), 9, address(100+i), []string{address(0)}
			o.Transport = c.net.endpoint(o.BindAddress)
			g, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if err := g.list.SendBestEffort(c.nodes[0].members[id(0)].node, forged); err != nil {
				t.Fatal(err)
			}
			g.list.SendReliable(c.nodes[0].members[id(0)].node, forged)
		}
		time.Sleep(30 * time.Second)
		for _, g := range c.nodes {
			if m, _ := g.Member(id(1)); m.Load.Queue != 1 || m.Version != e.version || len(g.Members()) != 3 || g.store.origins["x"] != nil {
				t.Errorf("%s believes %+v", g.id, m)
			}
		}
		// The same message with the secret is believed: what was refused was not refused for its form.
		if err := c.nodes[2].list.SendBestEffort(c.nodes[0].members[id(0)].node, forged); err != nil {
			t.Fatal(err)
		}
		c.eventually(time.Second, "what comes with the secret is believed", func() bool {
			m, _ := c.nodes[0].Member(id(1))
			return m.Load.Queue == 666
		})
	})
}

// TestBudget publishes far more than may be sent, and checks that traffic stays bounded and that the last of it arrives.
func TestBudget(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 10, nil)
		defer c.close()
		time.Sleep(30 * time.Second)
		c.net.set(func() { c.net.bytes = 0 })
		const rounds = 1000
		start := time.Now()
		var last [10]sighting
		for round := range rounds {
			for i := range c.nodes {
				last[i] = c.publish(i, load(round+1))
			}
			time.Sleep(10 * time.Millisecond)
		}
		took := time.Since(start)
		c.net.mu.Lock()
		perNode := float64(c.net.bytes) / 10
		c.net.mu.Unlock()
		// Repair adds 3 packets every 200 ms, and pushes go out with up to 37 bytes more than are counted, on 80 and more.
		limit := (budgetBytesPerSecond*took.Seconds()+budgetBytesBurst)*1.5 + 15*packetBytesMax*took.Seconds()
		t.Logf("%.0f bytes/s and node", perNode/took.Seconds())
		if perNode > limit {
			t.Errorf("%.0f bytes from each node in %v, at most %.0f are allowed", perNode, took, limit)
		}
		for _, e := range last {
			c.eventually(reconcileInterval, "the last record is everywhere", func() bool { return c.everywhere(e) })
		}
	})
}

// TestCounterLimit fills a node's counters, and checks that those of zero make room.
func TestCounterLimit(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 2, nil)
		defer c.close()
		g := c.nodes[0]
		n := 0
		for ; ; n++ {
			if err := g.Add(fmt.Sprintf("agent-%04d", n), 1); err != nil {
				if vectord.KindOf(err) != vectord.KindTooLarge {
					t.Fatal(err)
				}
				break
			}
		}
		if n != CounterBytesMax/(len("agent-0000")+counterOverhead) {
			t.Errorf("%d counters", n)
		}
		if err := g.Add("agent-0003", -1); err != nil {
			t.Fatal(err)
		}
		if err := g.Add("agent-0004", -3); err != nil {
			t.Fatal(err)
		}
		if err := g.Add("another-01", 7); err != nil {
			t.Fatal(err)
		}
		if got := g.Incarnation(); got != 2 {
			t.Errorf("incarnation %d", got)
		}
		c.eventually(time.Second, "the counters are everywhere", func() bool {
			o := c.nodes[1]
			return o.Counter("another-01") == 7 && o.Counter("agent-0003") == 0 && o.Counter("agent-0004") == -2 && o.Counter("agent-0005") == 1 &&
				len(o.Slots("agent-0003")) == 0 && o.Slots("another-01")[id(0)] == Slot{Incarnation: 2, P: 7}
		})
		if err := g.Add("", 1); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("no key: %v", err)
		}
	})
}

// TestManyAtOnce calls everything from many goroutines on 30 nodes. It is for the race detector.
func TestManyAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 30, nil)
		defer c.close()
		c.net.set(func() { c.net.loss = 0.05 })
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for i, g := range c.nodes {
			wg.Go(func() {
				for k := 0; ctx.Err() == nil; k++ {
					g.Publish(load(k))
					g.Add(fmt.Sprint(k%3), int64(k%5)-2)
					time.Sleep(time.Duration(20+i) * time.Millisecond)
				}
			})
			wg.Go(func() {
				s, err := g.Subscribe()
				if err != nil {
					t.Error(err)
					return
				}
				defer s.Close()
				for {
					if _, err := s.Next(ctx); err != nil {
						return
					}
					g.Members()
					g.Slots("1")
				}
			})
			wg.Go(func() {
				for ctx.Err() == nil {
					g.Join([]string{address(1)})
					g.Incarnation()
					time.Sleep(500 * time.Millisecond)
				}
			})
		}
		wg.Wait()
		c.net.set(func() { c.net.loss = 0 })
		c.eventually(3*reconcileInterval, "all have the same", func() bool {
			want := c.nodes[0].store.textLocked(c.nodes[0])
			return !slices.ContainsFunc(c.nodes, func(g *Gossip) bool { return g.store.textLocked(g) != want })
		})
		var leaving sync.WaitGroup
		for _, g := range c.nodes[20:] {
			leaving.Go(func() {
				if err := g.Leave(t.Context()); err != nil {
					t.Error(err)
				}
				g.Close()
			})
		}
		leaving.Wait()
		gone := c.nodes[20:]
		c.nodes = c.nodes[:20]
		c.eventually(reconcileInterval, "all see who left", func() bool {
			return !slices.ContainsFunc(gone, func(g *Gossip) bool { return !c.all(StateLeft, g.id) })
		})
	})
}

// textLocked is text under the lock of the store's Gossip.
func (s *store) textLocked(g *Gossip) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return s.text()
}

// TestJoinLater checks that a seed that is not there yet is tried again, and one that never comes does no harm.
func TestJoinLater(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := &cluster{t: t, net: newNetwork(t, seed), seen: map[sighting]map[string]sight{}}
		defer c.close()
		c.nodes = append(c.nodes, c.start(2, 1, nil))
		time.Sleep(joinDelayMin)
		c.nodes = append(c.nodes, c.start(0, 1, nil))
		c.eventually(time.Second, "they found each other soon", func() bool { return c.all(StateAlive, id(0), id(2)) })
		for _, g := range c.nodes {
			g.Close()
		}
		c.nodes = nil

		c.nodes = append(c.nodes, c.start(1, 1, nil))
		if err := c.nodes[0].Join([]string{address(1), address(77)}); err != nil { // itself, and nobody
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		c.nodes = append(c.nodes, c.start(0, 1, nil))
		c.eventually(joinDelayMax+time.Second, "they found each other", func() bool { return c.all(StateAlive, id(0), id(1)) })

		f := func(want vectord.Kind, seeds ...string) {
			t.Helper()
			if err := c.nodes[0].Join(seeds); vectord.KindOf(err) != want {
				t.Errorf("%q: %v", seeds, err)
			}
		}
		f(vectord.KindInvalid, "10.0.0.1")
		f(vectord.KindInvalid, ":7946")
		f(vectord.KindInvalid, "host:port")
		f(vectord.KindInvalid, strings.Repeat("x", AddressBytesMax)+":1")
		var many []string
		for i := range seedsMax + 1 {
			many = append(many, address(i))
		}
		f(vectord.KindTooLarge, many...)
	})
}

// TestClose checks what a closed Gossip does, and that Close does not wait for a peer that reads nothing.
func TestClose(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 2, nil)
		g := c.nodes[0]
		s, err := g.Subscribe()
		if err != nil {
			t.Fatal(err)
		}
		for i := range subscriptionsMax {
			if _, err := g.Subscribe(); (i == subscriptionsMax-1) != (vectord.KindOf(err) == vectord.KindOverloaded && err != nil) {
				t.Errorf("subscription %d: %v", i+2, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.Next(t.Context()); err != nil {
			t.Errorf("the members of now: %v", err)
		}
		if _, err := s.Next(ctx); vectord.KindOf(err) != vectord.KindTimeout {
			t.Errorf("next after the end of its context: %v", err)
		}

		stuck := c.net.endpoint(address(60)) // takes connections and reads nothing
		done := make(chan struct{})
		go func() {
			defer close(done)
			node := &memberlist.Node{Name: "stuck", Addr: stuck.address.Addr().AsSlice(), Port: stuck.address.Port()}
			g.streams <- streamJob{to: node, message: make([]byte, 1<<20)}
		}()
		<-done
		synctest.Wait()
		start := time.Now()
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > streamTimeout {
			t.Errorf("Close took %v", took)
		}
		for what, err := range map[string]error{
			"Close":     g.Close(),
			"Publish":   g.Publish(load(1)),
			"Add":       g.Add("k", 1),
			"Join":      g.Join(nil),
			"Leave":     g.Leave(t.Context()),
			"Subscribe": func() error { _, err := g.Subscribe(); return err }(),
			"Next":      func() error { _, err := s.Next(t.Context()); return err }(),
		} {
			if want := map[bool]vectord.Kind{true: vectord.KindInternal, false: vectord.KindClosed}[what == "Close"]; vectord.KindOf(err) != want {
				t.Errorf("%s after Close: %v", what, err)
			}
		}
		stuck.Shutdown()
		c.close()
	})
}

// TestStreamDeadline checks that a peer that takes connections and reads nothing is not waited for.
func TestStreamDeadline(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 1, nil)
		defer c.close()
		stuck := c.net.endpoint(address(60))
		defer stuck.Shutdown()
		node := &memberlist.Node{Name: "stuck", Addr: stuck.address.Addr().AsSlice(), Port: stuck.address.Port()}
		start := time.Now()
		err := c.nodes[0].list.SendReliable(node, make([]byte, 1<<20))
		if took := time.Since(start); err == nil || took > streamTimeout+time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// TestSubscriptionCoalesces checks that a reader that is slow is told of each member once, as it is.
func TestSubscriptionCoalesces(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 3, nil)
		defer c.close()
		s, err := c.nodes[0].Subscribe()
		if err != nil {
			t.Fatal(err)
		}
		next := func() []Member {
			t.Helper()
			members, err := s.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return members
		}
		if got := next(); len(got) != 3 {
			t.Errorf("first %+v", got)
		}
		var e sighting
		for i := range 50 {
			e = c.publish(1, Record{Build: fmt.Sprint(i), Load: Load{Queue: uint32(i)}})
			time.Sleep(20 * time.Millisecond)
		}
		c.eventually(time.Second, "the last is everywhere", func() bool { return c.everywhere(e) })
		if got := next(); len(got) != 1 || got[0].ID != id(1) || got[0].Build != "49" {
			t.Errorf("then %+v", got)
		}
		e = c.publish(1, Record{Build: "49", Load: Load{Queue: 1000}}) // of which it is not told
		c.eventually(time.Second, "it is everywhere", func() bool { return c.everywhere(e) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := s.Next(ctx); err == nil {
			t.Errorf("then %+v", got)
		}
	})
}

// TestRoom checks that nodes that are gone make room for those that come.
func TestRoom(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 2, nil)
		defer c.close()
		g := c.nodes[0]
		for i := range 2 * originsMax {
			g.receive(appendRecordItem(appendHeader(nil, id(1), 0), recordItem{origin: fmt.Sprintf("stranger-%d", i), version: Version{1, 1},
				raw: appendRecord(nil, published{Record: load(i)})}))
			time.Sleep(time.Millisecond)
		}
		g.mu.Lock()
		if len(g.store.origins) != 2+strangersMax || len(g.strangers) != strangersMax {
			t.Errorf("%d nodes are known, %d strangers", len(g.store.origins), len(g.strangers))
		}
		for i := range originsMax { // all are gone, the later ones last
			gone := fmt.Sprintf("gone-%d", i)
			g.mu.Unlock()
			g.setLive(&memberlist.Node{Name: gone}, false)
			time.Sleep(time.Millisecond)
			g.mu.Lock()
			g.acceptRecord(recordItem{origin: gone, version: Version{1, 1}})
		}
		if len(g.store.origins) != originsMax || g.store.origins[id(0)] == nil || g.store.origins[id(1)] == nil ||
			g.store.origins[fmt.Sprintf("gone-%d", originsMax-1)] == nil || g.store.origins["gone-0"] != nil || len(g.strangers) != 0 {
			t.Errorf("%d nodes are known, %d strangers", len(g.store.origins), len(g.strangers))
		}
		g.mu.Unlock()
		other := c.nodes[1]
		other.forgetOld(time.Now().Add(strangerAfter))
		other.mu.Lock()
		if n := len(other.strangers); n != 0 {
			t.Errorf("the other still knows %d strangers", n)
		}
		other.mu.Unlock()
		g.forgetOld(time.Now().Add(forgetAfter))
		if n := len(g.Members()); n != 2 {
			t.Errorf("%d members after a day", n)
		}
	})
}

// TestStrangersDieOut checks that what is known of nodes that are no members is not passed on in answers, where it would
// come back to those that have forgotten it.
func TestStrangersDieOut(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 1, nil)
		defer c.close()
		g := c.nodes[0]
		from := &memberlist.Node{Name: id(1), Addr: net.IPv4(10, 0, 0, 2), Port: 7946}
		g.setLive(from, true)
		state := appendRecordItem(appendHeader(nil, id(1), 0), recordItem{origin: "stranger", version: Version{1, 1}})
		g.receive(appendSlotsItem(state, 1, "stranger", 1, map[string]Slot{"agent": {P: 9}}))
		ask := message{from: id(1), asks: true, digest: []digestEntry{{origin: "stranger"}}, wants: []want{{"stranger", partRecord | partCounters}}}
		g.mu.Lock()
		answer := g.answer(ask)
		g.mu.Unlock()
		for what, b := range map[string][]byte{"state": delegate{g}.LocalState(false), "digest": g.digest(), "answer": answer} {
			m, err := decodeMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range m.records {
				if r.origin == "stranger" {
					t.Errorf("its record is in the %s", what)
				}
			}
			if len(m.slots) > 0 || slices.ContainsFunc(m.digest, func(e digestEntry) bool { return e.origin == "stranger" }) {
				t.Errorf("it is in the %s: %+v", what, m)
			}
		}
		if g.Counter("agent") != 0 || g.store.origins["stranger"] == nil {
			t.Errorf("its counter counts %d", g.Counter("agent"))
		}
		g.setLive(from, false)
	})
}

// TestStrangerJoins checks that a node whose joining was not heard of becomes a member when its record is.
func TestStrangerJoins(t *testing.T) {
	bubble(t, func(t *testing.T, seed uint64) {
		c := newCluster(t, seed, 2, nil)
		defer c.close()
		o := options(c.net, 2, 1, address(2))
		o.Seeds = nil
		g, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		c.nodes = append(c.nodes, g)
		c.nodes[0].receive(delegate{g}.LocalState(false))
		if _, ok := c.nodes[0].Member(g.id); ok {
			t.Error("it is a member by its record")
		}
		c.eventually(reconcileInterval+2*time.Second, "it is a member", func() bool { return c.all(StateAlive, c.ids()...) })
	})
}

func TestOptions(t *testing.T) {
	good := Options{ID: "a", Incarnation: 1, BindAddress: "127.0.0.1:0"}
	f := func(change func(*Options), want string) {
		t.Helper()
		o := good
		change(&o)
		g, err := Open(o)
		if err == nil {
			g.Close()
		}
		if want == "" && err != nil || want != "" && (err == nil || vectord.KindOf(err) != vectord.KindInvalid || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	f(func(*Options) {}, "")
	f(func(o *Options) { o.BindAddress, o.Secret = "0.0.0.0:0", secret; o.AdvertiseAddress = "127.0.0.1:1" }, "")
	f(func(o *Options) { o.Registerer = prometheus.NewRegistry() }, "")
	f(func(o *Options) { o.ID = "" }, "the id")
	f(func(o *Options) { o.ID = strings.Repeat("x", IDBytesMax+1) }, "the id")
	f(func(o *Options) { o.Incarnation = 0 }, "incarnation")
	f(func(o *Options) { o.Incarnation = incarnationMax + 1 }, "incarnation")
	f(func(o *Options) { o.Cluster = strings.Repeat("x", clusterBytesMax+1) }, "name")
	f(func(o *Options) { o.BindAddress = "localhost:1" }, "bind address")
	f(func(o *Options) { o.BindAddress = "" }, "bind address")
	f(func(o *Options) { o.BindAddress, o.Secret = "[fe80::1%lo]:0", secret }, "a zone")
	f(func(o *Options) { o.AdvertiseAddress = "example.com:1" }, "advertise address")
	f(func(o *Options) { o.AdvertiseAddress = "127.0.0.1:0" }, "nobody can reach")
	f(func(o *Options) { o.BindAddress = "0.0.0.0:0" }, "without a secret")
	f(func(o *Options) { o.AdvertiseAddress = "10.0.0.1:1" }, "without a secret")
	f(func(o *Options) { o.Secret = secret[1:] }, "a secret of 31 bytes")
	f(func(o *Options) { o.Seeds = []string{"nowhere"} }, "seed")

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o := good
	o.BindAddress = l.Addr().String()
	if _, err := Open(o); err == nil || !strings.Contains(err.Error(), "listen") {
		t.Errorf("a port that is taken: %v", err)
	}
}

func TestFanout(t *testing.T) {
	for n, want := range map[int]int{0: 1, 1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 10: 5, 30: 6, 32: 6, 33: 7, 100: 8, 1000: 11, 1 << 20: fanoutMax} {
		if got := fanout(n); got != want {
			t.Errorf("fanout(%d) is %d, want %d", n, got, want)
		}
	}
}

// TestRepairs checks that each item goes as often as it should, whatever fits, and that a newer one takes its place.
func TestRepairs(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	q := repairs{mult: 4}
	went := map[byte]int{}
	take := func(limit int) {
		t.Helper()
		size := 0
		for _, m := range q.take(3, limit, 30) {
			went[m[0]]++
			size += 3 + len(m)
		}
		if size > limit {
			t.Fatalf("%d of %d bytes", size, limit)
		}
	}
	key := func(i int) pendingKey { return pendingKey{origin: fmt.Sprint(i)} }
	for i := range 200 {
		q.add(key(i), append([]byte{byte(i)}, make([]byte, 59)...))
		take([]int{50, 100, 200, 1400}[random.IntN(4)])
	}
	for range 1000 {
		take(200)
	}
	for i := range 200 {
		if got := went[byte(i)]; got != 8 {
			t.Errorf("item %d went %d times", i, got)
		}
	}
	if len(q.items) != 0 || len(q.byKey) != 0 {
		t.Errorf("%d items are left", len(q.items))
	}

	clear(went)
	q.add(key(1), []byte{1})
	take(100)
	q.add(key(1), []byte{2})
	for range 20 {
		take(100)
	}
	if went[1] != 1 || went[2] != 8 {
		t.Errorf("they went %v times", went)
	}
	for i := range 2 * repairMax {
		q.add(key(i), []byte{3})
	}
	if len(q.items) != repairMax || len(q.byKey) != repairMax || q.byKey[key(2*repairMax-1)] == nil {
		t.Errorf("%d items", len(q.items))
	}
	for range 10 {
		q.add(key(0), []byte{4})
	}
	if len(q.items) != repairMax || len(q.byKey) != repairMax {
		t.Errorf("%d items after one was replaced", len(q.items))
	}
}

// TestTargets checks that pushes always go to the next node by id, and to others at random, each once.
func TestTargets(t *testing.T) {
	for self := range 10 {
		g := &Gossip{id: id(self), store: newStore(), members: map[string]*member{}, metrics: newMetrics(nil), logger: slog.New(slog.DiscardHandler)}
		for _, i := range rand.Perm(10) {
			g.setLive(&memberlist.Node{Name: id(i)}, true)
		}
		g.setLive(&memberlist.Node{Name: id((self + 1) % 10)}, false)
		seen := map[string]bool{}
		for range 100 {
			targets := g.targets(4)
			if len(targets) != 4 || targets[0].Name != id((self+2)%10) {
				t.Fatalf("%s pushes to %v", g.id, targets)
			}
			names := map[string]bool{}
			for _, to := range targets {
				names[to.Name], seen[to.Name] = true, true
			}
			if len(names) != 4 || names[g.id] {
				t.Fatalf("%s pushes to %v", g.id, targets)
			}
		}
		if len(seen) != 8 {
			t.Errorf("%s pushed to %d of 8", g.id, len(seen))
		}
		if n := len(g.targets(100)); n != 8 {
			t.Errorf("%d of 8 targets", n)
		}
	}
}

// TestLog checks what becomes of memberlist's lines, of which strangers can cause many.
func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		w := newLogWriter(slog.New(slog.NewTextHandler(&out, nil)), func(id string) { fmt.Fprintf(&out, "suspect %s\n", id) })
		fmt.Fprintln(w, "[DEBUG] memberlist: quiet")
		fmt.Fprintln(w, "[INFO] memberlist: Suspect n 1 has failed, no acks received")
		fmt.Fprintln(w, "nothing known")
		for range 1000 {
			fmt.Fprintln(w, "[ERR] memberlist: Decrypt packet failed")
		}
		if got := out.String(); strings.Count(got, "Decrypt") != logLinesBurst || !strings.Contains(got, "suspect n 1\n") || strings.Contains(got, "quiet") {
			t.Errorf("log:\n%s", got)
		}
	})
}

// TestSecretIsStretched checks that the key on the wire is not the secret itself.
func TestSecretIsStretched(t *testing.T) {
	config, err := Options{ID: "a", Incarnation: 1, BindAddress: "10.0.0.1:1", Secret: secret}.config()
	if err != nil {
		t.Fatal(err)
	}
	if key := config.Keyring.GetPrimaryKey(); len(key) != 32 || bytes.Equal(key, secret) {
		t.Errorf("key %x", key)
	}
}
