package group

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"github.com/vectord/vectord"
)

// The numbers of these tests are those of the table in docs/CLUSTER.md.

// least returns the shortest time that f takes in some tries, so that a busy machine does not matter.
func least(tries int, f func()) time.Duration {
	shortest := time.Hour
	for range tries {
		start := time.Now()
		f()
		shortest = min(shortest, time.Since(start))
	}
	return shortest
}

func TestFault02SingleOperation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader, follower := c.leader(), c.followers()[0]
	for _, n := range []struct {
		node *testNode
		most time.Duration
	}{
		{leader, 12 * time.Millisecond},                           // nobody waits for an entry to fill
		{follower, 12*time.Millisecond + 2*DefaultCommitInterval}, // but a follower is told by the next message only
	} {
		i := 0
		if took := least(20, func() { i++; n.node.must(kvCommand{Op: "put", Key: "k", New: fmt.Sprint(i)}) }); took > n.most {
			t.Errorf("one operation at %s takes %v, want at most %v", n.node.id, took, n.most)
		}
	}
}

func TestFault05RefusedOperation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	l := c.load(16, c.nodes...)
	for i := range 50 {
		r := c.nodes[i%3].must(kvCommand{Op: "refuse", Key: "k"})
		if vectord.KindOf(r.Err) != vectord.KindInvalid {
			t.Errorf("the state's refusal became %v", r.Err)
		}
	}
	l.unaware()
	l.check(c.same())
}

func TestFault06ClientOrder(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	var want strings.Builder
	for i := range 60 {
		if i%20 == 10 {
			go func() { _ = c.leader().get().Transfer("") }()
		}
		c.nodes[i%3].must(kvCommand{Op: "append", Key: "k", New: fmt.Sprint(i, " ")})
		fmt.Fprint(&want, i, " ")
	}
	if got := c.same().Values["k"]; got != want.String() {
		t.Errorf("the order is %s", got)
	}
}

// TestFault07Shutdown closes a node that is alone, so that there is nobody to hand over to, while it is busy.
func TestFault07Shutdown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Options{InFlight: 64, BatchOperations: 1})
	n := c.nodes[0]
	rng := c.random()
	l := c.load(64, n)
	for range 15 {
		l.goesOn(c)
		time.Sleep(time.Duration(rng.IntN(3000)) * time.Microsecond)
		closed := make(chan struct{})
		go func() { n.shut(); close(closed) }()
		select {
		case <-closed:
		case <-time.After(testPatience):
			t.Fatal("a group under load does not close")
		}
		n.start()
	}
	l.goesOn(c)
	for _, err := range l.stop() {
		if vectord.KindOf(err) != vectord.KindClosed {
			t.Errorf("a client saw %v", err)
		}
	}
	l.check(c.same())
}

func TestFault08CancelledContext(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{InFlight: 1})
	leader := c.leader()
	end := leader.logs.hang()
	defer end()
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var cancelled atomic.Int32
	for i := range 30 {
		work.Go(func() {
			ctx := ctx
			if i%3 > 0 {
				ctx = t.Context()
			}
			_, err := leader.do(ctx, kvCommand{Op: "add", Key: fmt.Sprint(i)})
			switch {
			case i%3 > 0 && err != nil:
				t.Errorf("one of a batch in which another was cancelled: %v", err)
			case i%3 == 0 && err != nil:
				cancelled.Add(1)
				if vectord.KindOf(err) != vectord.KindTimeout || !strings.Contains(err.Error(), "unknown") {
					t.Errorf("a cancelled one: %v", err)
				}
			}
		})
	}
	c.eventually("all wait", func() bool { return leader.get().proposals.waiting() == 30 })
	cancel()
	c.eventually("some are cancelled", func() bool { return cancelled.Load() == 10 })
	end()
	work.Wait()
	added := c.same().Added
	for i := range 30 {
		if times := added[fmt.Sprint(i)]; times != 1 {
			t.Errorf("%d was applied %d times", i, times)
		}
	}
}

// waiting returns how many proposals are open.
func (p *proposals) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open)
}

// TestFault09LeaderLostInFlight: clients of the other nodes see nothing of it, and everything is applied once. The leader falls
// silent with entries on their way, or ends.
func TestFault09LeaderLostInFlight(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{BatchOperations: 4})
	for round := range 4 {
		leader := c.leader()
		l := c.load(32, c.followers()...)
		l.goesOn(c)
		if round%2 == 0 {
			c.net.isolate(leader.id, c.nodes)
		} else {
			leader.crash()
		}
		l.goesOn(c)
		c.net.heal()
		if leader.get() == nil {
			leader.start()
		}
		l.goesOn(c)
		l.unaware()
		l.check(c.same())
		for _, n := range c.nodes {
			n.kv().set(func(i *kvImage) { clear(i.Added) })
		}
	}
}

// set changes the state behind the log's back.
func (s *kvState) set(f func(i *kvImage)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.live)
	s.disk = s.live.clone()
}

func TestFault10Overload(t *testing.T) {
	t.Parallel()
	const queue = 20_000
	c := newCluster(t, 3, Options{QueueBytes: queue, InFlight: 1})
	leader := c.leader()
	end := leader.logs.hang()
	defer end()
	var work sync.WaitGroup
	var refused, done atomic.Int32
	for i := range 200 {
		work.Go(func() {
			_, err := c.nodes[i%3].do(t.Context(), kvCommand{Op: "add", Key: fmt.Sprint(i), Fill: strings.Repeat("x", 1000)})
			switch {
			case err == nil:
				done.Add(1)
			case vectord.KindOf(err) == vectord.KindOverloaded:
				refused.Add(1)
				if e := new(vectord.Error); !errors.As(err, &e) || e.RetryAfter <= 0 {
					t.Errorf("it does not say when to come again: %v", err)
				}
			default:
				t.Error(err)
			}
		})
	}
	c.eventually("most are refused", func() bool {
		if bytes := leader.get().leader.waitingBytes(); bytes > queue {
			t.Errorf("%d bytes wait", bytes)
		}
		return refused.Load() > 100
	})
	end()
	work.Wait()
	if added := c.same().Added; len(added) != int(done.Load()) || len(added) == 0 {
		t.Errorf("%d were applied, %d acknowledged, %d refused", len(added), done.Load(), refused.Load())
	}
}

func TestFault11Minority(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	old := c.leader()
	old.must(kvCommand{Op: "put", Key: "k", New: "before"})
	c.net.isolate(old.id, c.nodes)
	cut := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	var work sync.WaitGroup
	for range 5 {
		work.Go(func() {
			if _, err := old.do(ctx, kvCommand{Op: "put", Key: "k", New: "minority"}); vectord.KindOf(err) != vectord.KindTimeout {
				t.Errorf("a write of a minority: %v", err)
			}
		})
	}
	c.eventually("it leads no more", func() bool { return !old.get().Status().Leading })
	if took := time.Since(cut); took > 20*testHeartbeat {
		t.Errorf("it led for %v without a majority", took)
	}
	c.leader().must(kvCommand{Op: "put", Key: "k", New: "after"})
	work.Wait()
	if got := old.kv().get("k"); got != "before" {
		t.Errorf("the minority has %q", got)
	}
	if err := old.get().Synced(ctx); err == nil {
		t.Error("a minority confirmed a read")
	}
	c.net.heal()
	if got := c.same().Values["k"]; got != "after" {
		t.Errorf("%q is left", got)
	}
}

// TestFault12Quorum is also 15: as long as a majority is up writes go on, and not a moment longer.
func TestFault12Quorum(t *testing.T) {
	t.Parallel()
	for _, nodes := range []int{3, 5} {
		c := newCluster(t, nodes, Options{})
		for down := 1; ; down++ {
			c.nodes[down].crash()
			if down > nodes/2 {
				break
			}
			c.nodes[0].must(kvCommand{Op: "put", Key: "k", New: fmt.Sprint(down)})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*testHeartbeat)
		if _, err := c.nodes[0].do(ctx, kvCommand{Op: "put", Key: "k", New: "too few"}); vectord.KindOf(err) != vectord.KindTimeout {
			t.Errorf("a write without a majority: %v", err)
		}
		if got := c.nodes[0].kv().get("k"); got == "too few" {
			t.Error("a write was applied without a majority")
		}
		cancel()
		for _, n := range c.nodes {
			if n.get() == nil {
				n.start()
			}
		}
		c.nodes[1].must(kvCommand{Op: "put", Key: "k", New: "all"})
		c.same()
	}
}

func TestFault13QuorumLost(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader, followers := c.leader(), c.followers()
	l := c.load(16, leader)
	for range 3 {
		l.goesOn(c)
		for _, n := range followers {
			n.crash()
		}
		time.Sleep(3 * testHeartbeat)
		for _, n := range followers {
			n.start()
		}
	}
	l.goesOn(c)
	l.unaware()
	l.check(c.same())
}

func TestFault14Deadline(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader := c.leader()
	for i, n := range []*testNode{leader, c.followers()[0]} {
		end := leader.logs.hang()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := n.do(ctx, kvCommand{Op: "add", Key: fmt.Sprint(i)})
		cancel()
		end()
		if vectord.KindOf(err) != vectord.KindTimeout || !strings.Contains(err.Error(), "unknown") {
			t.Errorf("at the deadline: %v", err)
		}
		c.eventually("it was committed nevertheless", func() bool { return c.same().Added[fmt.Sprint(i)] == 1 })
	}
}

// TestFault16SlowFollower is also 17: messages to one follower, then its answers, take half a second.
func TestFault16SlowFollower(t *testing.T) {
	t.Parallel()
	const slow = 500 * time.Millisecond
	c := newCluster(t, 3, Options{})
	leader, followers := c.leader(), c.followers()
	for _, link := range [][2]string{{leader.id, followers[1].id}, {followers[1].id, leader.id}} {
		c.net.set(func(n *network) { n.slow[link] = slow })
		i := 0
		if took := least(20, func() { i++; leader.must(kvCommand{Op: "put", Key: "k", New: fmt.Sprint(i)}) }); took > slow/2 {
			t.Errorf("with %v slow a write takes %v", link, took)
		}
		c.net.heal()
		c.same()
	}
}

func TestFault18StalledPipeline(t *testing.T) {
	t.Parallel()
	c := tunedCluster(t, 3, Options{}, func(n *testNode) { n.c.pipelined = true })
	leader, followers := c.leader(), c.followers()
	l := c.load(8, leader)
	for range 3 {
		l.goesOn(c)
		c.net.hold(leader.id, followers[0].id)
		l.goesOn(c)
		c.net.release(leader.id, followers[0].id)
	}
	l.unaware()
	l.check(c.same())
}

// TestFault18NobodyReads: hashicorp/raft stops to read a pipeline's answers before it stops to send.
func TestFault18NobodyReads(t *testing.T) {
	t.Parallel()
	c := tunedCluster(t, 1, Options{}, func(n *testNode) { n.c.pipelined = true })
	r := &receiver{Transport: c.nodes[0].wire}
	p, err := r.AppendEntriesPipeline("n0", "n0")
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for range unreadMax {
			if _, err := p.AppendEntries(&raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{}); err != nil {
				t.Error(err)
			}
		}
	}()
	select {
	case <-sent:
	case <-time.After(testPatience):
		t.Error("the sender waits for a reader")
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestFault19Duplicates(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	c.net.set(func(n *network) { n.twice, n.late, n.delay = 0.5, 0.5, 20*time.Millisecond })
	l := c.load(32, c.nodes...)
	for range 5 {
		l.goesOn(c)
	}
	l.unaware()
	c.net.heal()
	l.check(c.same())
}

// TestFault20DiskHangs: a leader whose disk hangs still sends heartbeats, so nobody else would lead, ever.
func TestFault20DiskHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader, others := c.leader(), c.followers()
	l := c.load(8, others...)
	l.goesOn(c)
	end := leader.logs.hang()
	defer end()
	g := leader.get()
	c.eventually("a write hangs", func() bool { return g.logs.waited() > 0 })
	time.Sleep(3 * testHeartbeat)
	if g.raft.State() != raft.Leader {
		t.Error("the leader lost leadership, which this test is not about")
	}
	// Time passes.
	g.logs.busy.Store(int64(diskPatience + time.Second))
	time.Sleep(2 * watchInterval)
	g.logs.busy.Store(int64(2*diskPatience + time.Second))
	c.eventually("the process ends", func() bool { return leader.fatal.Load() != nil })
	leader.fatal.Store(nil)
	leader.crash()
	end()
	l.goesOn(c)
	leader.start()
	l.unaware()
	l.check(c.same())
}

func TestFault21Partition(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5, Options{})
	leader := c.leader()
	minority := []*testNode{leader, c.followers()[0]}
	majority := c.followers()[1:]
	l := c.load(8, majority...)
	l.goesOn(c)
	c.net.set(func(n *network) {
		for _, a := range minority {
			for _, b := range majority {
				n.cut[[2]string{a.id, b.id}], n.cut[[2]string{b.id, a.id}] = true, true
			}
		}
	})
	l.goesOn(c)
	ctx, cancel := context.WithTimeout(t.Context(), 5*testHeartbeat)
	defer cancel()
	for _, n := range minority {
		if err := n.get().Synced(ctx); vectord.KindOf(err) != vectord.KindTimeout {
			t.Errorf("a minority of two confirmed a read: %v", err)
		}
	}
	c.net.heal()
	l.goesOn(c)
	l.unaware()
	l.check(c.same())
}

// TestFault22OneWay: first nothing that the leader sends arrives, then nothing that is sent to it.
func TestFault22OneWay(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	for way := range 2 {
		leader, others := c.leader(), c.followers()
		l := c.load(8, others...)
		l.goesOn(c)
		c.net.set(func(n *network) {
			for _, other := range others {
				link := [2]string{leader.id, other.id}
				if way == 1 {
					slices.Reverse(link[:])
				}
				n.cut[link] = true
			}
		})
		l.goesOn(c)
		c.net.heal()
		l.unaware()
		l.check(c.same())
		for _, n := range c.nodes {
			n.kv().set(func(i *kvImage) { clear(i.Added) })
		}
	}
}

// TestFault23Bridge: two pairs of nodes see each other only through a fifth.
func TestFault23Bridge(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5, Options{})
	bridge := c.nodes[2]
	l := c.load(8, bridge)
	l.goesOn(c)
	c.net.set(func(n *network) {
		for _, a := range c.nodes[:2] {
			for _, b := range c.nodes[3:] {
				n.cut[[2]string{a.id, b.id}], n.cut[[2]string{b.id, a.id}] = true, true
			}
		}
	})
	l.goesOn(c)
	l.goesOn(c)
	c.net.heal()
	l.unaware()
	l.check(c.same())
}

func TestFault24FlappingLink(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader, others := c.leader(), c.followers()
	l := c.load(8, c.nodes...)
	for range 8 {
		c.net.set(func(n *network) {
			n.cut[[2]string{leader.id, others[0].id}], n.cut[[2]string{others[0].id, leader.id}] = true, true
		})
		time.Sleep(2 * testHeartbeat)
		c.net.heal()
		time.Sleep(testHeartbeat)
	}
	l.goesOn(c)
	l.unaware()
	l.check(c.same())
}

// TestFault25PreVote: a node that was away does not make the others elect a leader when it comes back.
func TestFault25PreVote(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{Heartbeat: 3 * testHeartbeat})
	leader := c.leader()
	away := c.followers()[0]
	term := leader.get().Status().Term
	c.net.isolate(away.id, c.nodes)
	time.Sleep(15 * testHeartbeat)
	c.net.heal()
	c.same()
	if s := leader.get().Status(); !s.Leading || s.Term != term {
		t.Errorf("after a follower's absence the leader is %+v, it was in term %d", s, term)
	}
}

func TestFault26Transfer(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	l := c.load(16, c.nodes...)
	for i := range 6 {
		l.goesOn(c)
		leader := c.leader()
		id := ""
		if i%2 == 1 {
			id = c.followers()[0].id
		}
		if err := leader.get().Transfer(id); err != nil {
			t.Logf("transfer to %q: %v", id, err)
		}
		l.goesOn(c)
	}
	l.unaware()
	l.check(c.same())
}

// TestFault27PausedLeader: a leader does not notice that time passes (its timers are long, as if it had been stopped and went
// on), others are elected, and then it is asked for a read, while an old answer to one of its heartbeats arrives.
func TestFault27PausedLeader(t *testing.T) {
	t.Parallel()
	c := tunedCluster(t, 3, Options{}, func(n *testNode) {
		if n.id == "n1" {
			n.o.Heartbeat = 100 * testHeartbeat
		}
	})
	paused := c.nodes[1]
	c.eventually("n1 leads", func() bool {
		if leader := c.leader(); leader != paused {
			_ = leader.get().Transfer(paused.id)
		}
		return c.leader() == paused
	})
	others := c.followers()
	paused.must(kvCommand{Op: "put", Key: "k", New: "old"})
	c.same()
	// It is cut off, but for answers to what it sent before, which are held.
	c.net.hold(others[0].id, paused.id)
	time.Sleep(2 * testHeartbeat)
	c.net.isolate(paused.id, others)
	c.eventually("others lead", func() bool { return c.leader() != paused })
	c.leader().must(kvCommand{Op: "put", Key: "k", New: "new"})
	if !paused.get().Status().Leading {
		t.Fatal("the paused leader has noticed")
	}
	for range 20 {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		go c.net.release(others[0].id, paused.id)
		if value, err := paused.read(ctx, "k"); err == nil && value != "new" {
			t.Errorf("a read that was confirmed gives %q", value)
		}
		cancel()
	}
	c.net.heal()
	if value, err := paused.read(t.Context(), "k"); err != nil || value != "new" {
		t.Errorf("read %q: %v", value, err)
	}
	c.same()
}

func TestFault28AllCrash(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{SnapshotLogBytes: 10_000, TrailingLogs: 10})
	l := c.load(16, c.nodes...)
	for range 4 {
		l.goesOn(c)
		for _, n := range c.nodes {
			n.crash()
		}
		for _, n := range c.nodes {
			n.start()
		}
	}
	l.goesOn(c)
	l.stop()
	l.check(c.same())
}

// TestFault31WriteFails: after the first write of the log that fails the process ends, and what it had taken is not
// acknowledged.
func TestFault31WriteFails(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	for _, n := range []*testNode{c.leader(), c.followers()[0]} {
		n.logs.set(func(m *memLogs) { m.fault = errors.New("no space left on device") })
		ctx, cancel := context.WithTimeout(t.Context(), 10*testHeartbeat)
		_, err := n.do(ctx, kvCommand{Op: "put", Key: n.id, New: "v"})
		cancel()
		if err == nil && n.kv().get(n.id) == "" {
			t.Error("acknowledged, and not applied")
		}
		c.eventually("the process ends", func() bool { return n.fatal.Load() != nil })
		n.fatal.Store(nil)
		n.crash()
		c.leader().must(kvCommand{Op: "put", Key: "k", New: n.id})
		n.start()
		c.same()
	}
}

func TestFault32Full(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	n := c.leader()
	s := n.kv()
	full := errors.New("no space left on device")
	s.mu.Lock()
	s.full = full
	s.mu.Unlock()
	before, _, err := n.get().snapshots.newest()
	if err != nil {
		t.Fatal(err)
	}
	n.must(kvCommand{Op: "put", Key: "k", New: "v"})
	if err := n.get().Snapshot(); err == nil || !strings.Contains(err.Error(), full.Error()) {
		t.Errorf("a snapshot on a full disk: %v", err)
	}
	n.must(kvCommand{Op: "put", Key: "k", New: "w"})
	names, err := n.fs.List(n.o.SnapshotDir)
	if err != nil || !slices.Equal(names, []string{before.ID}) {
		t.Errorf("%v are left: %v", names, err)
	}
	s.mu.Lock()
	s.full = nil
	s.mu.Unlock()
	if err := n.get().Snapshot(); err != nil {
		t.Error(err)
	}
	if newest, _, err := n.get().snapshots.newest(); err != nil || newest.Index <= before.Index {
		t.Errorf("the newest is at %d: %v", newest.Index, err)
	}
	c.same()
}

// lagging returns a follower of a cluster with TrailingLogs 1 that is down and needs a snapshot.
func (c *cluster) lagging() *testNode {
	c.t.Helper()
	n := c.followers()[0]
	n.crash()
	c.advance(10)
	return n
}

// advance writes, and drops the log.
func (c *cluster) advance(writes int) {
	c.t.Helper()
	leader := c.leader()
	for range writes {
		leader.must(kvCommand{Op: "append", Key: "k", New: "."})
	}
	for _, n := range c.nodes {
		if g := n.get(); g != nil {
			if err := g.Snapshot(); err != nil && !errors.Is(err, raft.ErrRaftShutdown) { // it may be opening again
				c.t.Error(err)
			}
		}
	}
}

// TestFault33BitFlips is about snapshots on their way and entries on the disk. Both are noticed.
func TestFault33BitFlips(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{TrailingLogs: 1})
	n := c.lagging()
	var sent atomic.Int32
	c.net.set(func(net *network) {
		net.stream = func(_ string, r io.Reader) io.Reader {
			if sent.Add(1) > 2 {
				return r
			}
			return &flipper{r: r, at: 60}
		}
	})
	n.start()
	c.same()
	if sent.Load() < 3 {
		t.Errorf("%d snapshots were sent, of which two were damaged", sent.Load())
	}
	c.net.heal()
	// An entry that this node has not applied yet, as its process ended before.
	n.crash()
	n.logs.set(func(m *memLogs) {
		e := *m.entries[m.last]
		e.Type, e.Data = raft.LogCommand, []byte("damaged")
		m.entries[m.last] = &e
	})
	n.state.live.Index = 0
	n.fs = vfs.NewCrashableMem() // without the snapshot that covers it
	n.logs.set(func(m *memLogs) { m.first = min(m.first, m.last) })
	n.o.FS = n.fs
	n.state = newKVState(n.fs, c.random(), nil)
	// It has lost its snapshots, so its log is not enough to start from.
	o := n.o
	o.Logs, o.Transport, o.Peers = n.logs, c.net.connect("nobody", false), n.wire
	if g, err := Open(n.state, o); err == nil {
		t.Error("opened without what is before the log")
		_ = g.Close()
	}
	// Seeded again.
	n.logs = newMemLogs()
	n.start()
	c.same()
}

// flipper changes one bit of what it reads.
type flipper struct {
	r  io.Reader
	at int
}

func (f *flipper) Read(b []byte) (int, error) {
	n, err := f.r.Read(b)
	if f.at >= 0 && f.at < n {
		b[f.at] ^= 4
	}
	f.at -= n
	return n, err
}

// TestFault34OldImage: a follower comes back with the disk of some time ago.
func TestFault34OldImage(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{TrailingLogs: 1})
	n := c.followers()[0]
	c.advance(5)
	c.same()
	n.crash()
	fs, logs, disk := n.fs, n.logs, n.state.disk.clone()
	n.fs = fs.CrashClone(vfs.CrashCloneCfg{})
	n.o.FS, n.logs = n.fs, logs.copy()
	n.state = newKVState(n.fs, c.random(), disk.clone())
	n.start()
	c.advance(5)
	c.same()
	n.crash()
	n.fs, n.o.FS, n.logs, n.state = fs, fs, logs, newKVState(fs, c.random(), disk)
	n.start()
	c.advance(5)
	c.same()
}

// TestFault35SlowDisk: operations share the writes of a disk that takes long for each, and nobody is elected for that.
func TestFault35SlowDisk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader := c.leader()
	term := leader.get().Status().Term
	for _, n := range c.nodes {
		n.logs.set(func(m *memLogs) { m.slow = testHeartbeat / 4 })
	}
	start := time.Now()
	var work sync.WaitGroup
	for i := range 400 {
		work.Go(func() { leader.must(kvCommand{Op: "add", Key: fmt.Sprint(i)}) })
	}
	work.Wait()
	if took := time.Since(start); took > 30*testHeartbeat {
		t.Errorf("400 writes took %v with a disk that takes %v for each", took, testHeartbeat/4)
	}
	if now := leader.get().Status().Term; now != term {
		t.Errorf("the term became %d, it was %d", now, term)
	}
	c.same()
}

func TestFault36InstallDuringWrites(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{TrailingLogs: 5, SnapshotLogBytes: 5_000})
	for range 3 {
		n := c.lagging()
		l := c.load(8, slices.DeleteFunc(slices.Clone(c.nodes), func(other *testNode) bool { return other == n })...)
		l.goesOn(c)
		n.start()
		l.goesOn(c)
		l.unaware()
		l.check(c.same())
		for _, n := range c.nodes {
			n.kv().set(func(i *kvImage) { clear(i.Added) })
		}
	}
}

// TestFault37CrashInInstall cuts the power before every operation on the disk while a snapshot arrives: 29 for this part.
func TestFault37CrashInInstall(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{TrailingLogs: 1})
	for step := int32(0); ; step++ {
		n := c.lagging()
		disk := n.fs
		var count, down atomic.Int32
		n.o.FS = errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
			// What is done to half a snapshot at the next start is not counted.
			switch {
			case down.Load() > 0:
			case op.Kind.ReadOrWrite() != errorfs.OpIsWrite || op.Kind == errorfs.OpRemoveAll || count.Add(1)-1 < step:
				return nil
			}
			down.Store(1)
			return errPowerCut // and of all that comes later
		}))
		n.start()
		c.eventually("a crash, or the end", func() bool {
			g := n.get()
			return down.Load() > 0 || g != nil && g.Index() >= c.leader().get().Index()
		})
		n.crash()
		if down.Load() == 0 {
			t.Logf("%d steps", step)
			n.start()
			break
		}
		if n.fs == disk { // it was about to open again
			n.fs = disk.CrashClone(vfs.CrashCloneCfg{})
			n.o.FS = n.fs
		}
		n.start()
		c.same()
	}
}

// diverge makes the leader end with entries in its log that nobody else has, and others lead and go on.
func (c *cluster) diverge(entries int, goOn func(leader *testNode)) (diverged *testNode) {
	c.t.Helper()
	n := c.leader()
	n.crash()
	n.logs.set(func(m *memLogs) {
		at := *m.entries[m.last]
		for range entries {
			e := at
			e.Index, e.Type = m.last+1, raft.LogCommand
			e.Data = (&entry{term: at.Term, ops: opsOf(kvCommand{Op: "add", Key: "never"})}).encode()
			m.entries[e.Index] = &e
			m.last++
		}
	})
	goOn(c.leader())
	for _, other := range c.nodes {
		if g := other.get(); g != nil {
			if err := g.Snapshot(); err != nil {
				c.t.Error(err)
			}
		}
	}
	return n
}

// TestFault38DivergedFollower: a follower has entries that nobody else has, and gets a snapshot of what was written instead
// (hashicorp/raft issue 697). Its log is dropped, it goes on, also after another start, and its log does not grow for ever.
func TestFault38DivergedFollower(t *testing.T) {
	t.Parallel()
	writes := func(leader *testNode) {
		for range 10 {
			leader.must(kvCommand{Op: "append", Key: "k", New: "."})
		}
	}
	barriers := func(leader *testNode) {
		for range 10 {
			if _, err := leader.get().Barrier(leader.c.t.Context()); err != nil {
				leader.c.t.Error(err)
			}
		}
	}
	for _, test := range []struct {
		name    string
		entries int
		goOn    func(leader *testNode)
	}{
		{"the state is behind, the log contradicts the snapshot", 30, writes},
		{"the state is behind, the log ends before the snapshot", 2, writes},
		{"the state is not behind, the log contradicts the snapshot", 30, barriers},
		{"the state is not behind, the log ends before the snapshot", 2, barriers},
		{"the log is only too short", 0, barriers},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t, 3, Options{TrailingLogs: 1})
			c.leader().must(kvCommand{Op: "put", Key: "k", New: "before"})
			c.same()
			n := c.diverge(test.entries, test.goOn)
			n.start()
			if got := c.same(); got.Added["never"] > 0 {
				t.Error("what was never committed was applied")
			}
			leader := c.leader()
			for range 20 {
				leader.must(kvCommand{Op: "append", Key: "k", New: "."})
			}
			c.same()
			n.crash()
			n.start()
			c.same()
			if first, _ := n.logs.FirstIndex(); n.logs.entries[first] == nil || len(n.logs.entries) > 100 {
				t.Errorf("the log has %d entries from %d on", len(n.logs.entries), first)
			}
		})
	}
}

// TestFault38LateSnapshot: a snapshot that is older than what a follower has comes again. What the follower has stays.
func TestFault38LateSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{TrailingLogs: 1})
	n := c.lagging()
	c.net.set(func(net *network) { net.keep = true })
	n.start()
	c.same()
	var late []message
	c.net.set(func(net *network) { late, net.kept, net.keep = net.kept, nil, false })
	if len(late) == 0 {
		t.Fatal("no snapshot was sent")
	}
	for _, drop := range []bool{false, true} { // the log between is still there, or not
		if drop {
			c.advance(10)
			c.advance(10)
		} else {
			c.leader().must(kvCommand{Op: "append", Key: "k", New: "."})
		}
		c.same()
		last, _ := n.logs.LastIndex()
		n.mu.Lock()
		w := n.wire
		n.mu.Unlock()
		for _, m := range late {
			_, err := w.deliver(m.command, strings.NewReader(string(m.content)))
			t.Logf("the late snapshot: %v", err)
		}
		if now, _ := n.logs.LastIndex(); now < last {
			t.Errorf("the log ends at %d, it did at %d", now, last)
		}
		c.leader().must(kvCommand{Op: "append", Key: "k", New: "."})
		c.same()
	}
}

// TestFault38OldMembers: the snapshot that the group began with, of which one node is the only member, comes again to nodes that
// know of more members. It must not make them forget: the first node would elect itself, and go on alone.
func TestFault38OldMembers(t *testing.T) {
	t.Parallel()
	c := tunedCluster(t, 3, Options{}, func(n *testNode) { n.c.net.set(func(net *network) { net.keep = true }) })
	var first message
	c.net.set(func(net *network) { first, net.keep = net.kept[0], false })
	for c.leader() == c.nodes[0] {
		_ = c.nodes[0].get().Transfer("")
	}
	c.same()
	leader := c.leader()
	for _, n := range c.followers() {
		request := *first.command.(*raft.InstallSnapshotRequest)
		request.Term = leader.get().Status().Term
		request.RPCHeader.ID, request.RPCHeader.Addr = []byte(leader.id), []byte(leader.id)
		n.mu.Lock()
		w := n.wire
		n.mu.Unlock()
		response, err := w.deliver(&request, bytes.NewReader(first.content))
		if r, ok := response.(*raft.InstallSnapshotResponse); !ok || !r.Success || err != nil {
			t.Errorf("%s answers %+v: %v", n.id, response, err)
		}
		if members, err := n.get().Members(); err != nil || len(members) != 3 {
			t.Errorf("%s knows of the members %v: %v", n.id, members, err)
		}
	}
	c.net.isolate("n0", c.nodes)
	time.Sleep(10 * testHeartbeat)
	if c.nodes[0].get().Status().Leading {
		t.Error("n0 leads alone")
	}
	c.net.heal()
	c.leader().must(kvCommand{Op: "put", Key: "k", New: "v"})
	c.same()
}

// TestFault38OlderSnapshotAtLeader: a follower's log begins right after its snapshot with entries that nobody else has, and the
// leader has only an older snapshot. The log before is long gone at the follower, but its snapshot says of what term it was.
func TestFault38OlderSnapshotAtLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	c.same()
	n := c.leader()
	if err := n.get().Snapshot(); err != nil {
		t.Fatal(err)
	}
	newest, _, err := n.get().snapshots.newest()
	if err != nil {
		t.Fatal(err)
	}
	n = c.diverge(3, func(leader *testNode) { leader.must(kvCommand{Op: "append", Key: "k", New: "."}) })
	if last, _ := n.logs.LastIndex(); last != newest.Index+3 {
		t.Fatalf("the log ends at %d, the snapshot at %d", last, newest.Index)
	}
	if err := n.logs.DeleteRange(0, newest.Index); err != nil {
		t.Fatal(err)
	}
	n.start()
	c.same()
}

// gate lets readers through once it is open, and tells when the first one waits.
type gate struct {
	reached, open chan struct{}
	once          sync.Once
}

func newGate() *gate { return &gate{reached: make(chan struct{}), open: make(chan struct{})} }

type gatedReader struct {
	io.Reader
	g     *gate
	begun bool
}

// Read gives some bytes, and then waits.
func (r *gatedReader) Read(b []byte) (int, error) {
	if !r.begun {
		r.begun = true
		return r.Reader.Read(b[:min(len(b), 30)])
	}
	r.g.once.Do(func() { close(r.g.reached) })
	<-r.g.open
	return r.Reader.Read(b)
}

// TestFault39SlowSnapshot: while a snapshot is on its way, so much is written that its reader needs another one at once. It
// catches up when the writes end, and meanwhile nobody else is held up.
func TestFault39SlowSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{TrailingLogs: 2})
	n := c.lagging()
	c.net.set(func(net *network) {
		net.stream = func(_ string, r io.Reader) io.Reader { time.Sleep(3 * testHeartbeat); return r }
	})
	n.start()
	l := c.load(8, slices.DeleteFunc(slices.Clone(c.nodes), func(other *testNode) bool { return other == n })...)
	for range 6 {
		l.goesOn(c)
		for _, other := range c.nodes {
			if other != n {
				_ = other.get().Snapshot()
			}
		}
	}
	if entries := len(c.leader().logs.copyEntries()); entries > 2000 {
		t.Errorf("the leader's log has %d entries", entries)
	}
	l.unaware()
	c.net.heal()
	l.check(c.same())
}

// copyEntries returns the indexes of the entries.
func (m *memLogs) copyEntries() (indexes []uint64) {
	m.set(func(m *memLogs) {
		for i := range m.entries {
			indexes = append(indexes, i)
		}
	})
	return indexes
}

// TestFault40SnapshotReaped: a snapshot that is on its way is replaced by newer ones meanwhile.
func TestFault40SnapshotReaped(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{TrailingLogs: 1})
	n := c.lagging()
	g := newGate()
	c.net.set(func(net *network) {
		net.stream = func(_ string, r io.Reader) io.Reader { return &gatedReader{Reader: r, g: g} }
	})
	n.start()
	<-g.reached
	leader := c.leader()
	for range snapshotsKept + 1 {
		leader.must(kvCommand{Op: "append", Key: "k", New: "."})
		if err := leader.get().Snapshot(); err != nil {
			t.Error(err)
		}
	}
	close(g.open)
	c.same()
}

// TestFault41IdleSnapshot: after a change of members, with nothing written since.
func TestFault41IdleSnapshot(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Options{TrailingLogs: 1})
	n := c.add("n1", false)
	if err := c.nodes[0].get().Add(n.id, n.id); err != nil {
		t.Fatal(err)
	}
	c.voters(2)
	for _, n := range c.nodes {
		if err := n.get().Snapshot(); err != nil {
			t.Errorf("%s: %v", n.id, err)
		}
	}
	third := c.add("n2", false)
	if err := c.leader().get().Add(third.id, third.id); err != nil {
		t.Fatal(err)
	}
	c.voters(3)
	c.same()
}

// TestFault42Promotion: a node that has been alone, with a state from before there was a group, gets two others under load.
func TestFault42Promotion(t *testing.T) {
	t.Parallel()
	c := tunedCluster(t, 1, Options{}, func(n *testNode) {
		if n.id == "n0" {
			n.state.set(func(i *kvImage) { i.Index, i.Time, i.Values["from"] = 123_456, time.Now().UnixMilli()+60_000, "before" })
		}
	})
	l := c.load(8, c.nodes[0])
	l.goesOn(c)
	for _, id := range []string{"n1", "n2"} {
		c.add(id, false)
		if err := c.nodes[0].get().Add(id, id); err != nil {
			t.Fatal(err)
		}
	}
	c.voters(3)
	l.goesOn(c)
	l.unaware()
	final := c.same()
	l.check(final)
	if final.Values["from"] != "before" {
		t.Errorf("the state from before became %v", final.Values)
	}
}

// TestFault44Members are removed and added under load, while another is cut off.
func TestFault44Members(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5, Options{})
	leader, others := c.leader(), c.followers()
	l := c.load(8, leader, others[0])
	l.goesOn(c)
	c.net.isolate(others[3].id, c.nodes)
	if err := leader.get().Remove(t.Context(), others[2].id); err != nil {
		t.Error(err)
	}
	l.goesOn(c)
	// Three of four answer. Without another of them two of three would.
	if err := leader.get().Remove(t.Context(), others[1].id); err != nil {
		t.Error(err)
	}
	l.goesOn(c)
	// And without another only one of two.
	if err := leader.get().Remove(t.Context(), others[0].id); vectord.KindOf(err) != vectord.KindConflict {
		t.Errorf("a member was removed without which no majority answers: %v", err)
	}
	if err := others[0].get().Remove(t.Context(), others[3].id); vectord.CodeOf(err) != vectord.CodeNotLeader {
		t.Errorf("a follower removed a member: %v", err)
	}
	c.net.heal()
	for _, n := range others {
		if err := leader.get().Add(n.id, n.id); err != nil {
			t.Error(err)
		}
	}
	c.voters(5)
	l.unaware()
	l.check(c.same())
}

// TestFault45RemoveLeader: a leader does not remove itself, it hands over, and its successor removes it.
func TestFault45RemoveLeader(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader, others := c.leader(), c.followers()
	l := c.load(8, others...)
	l.goesOn(c)
	if err := leader.get().Remove(t.Context(), leader.id); vectord.CodeOf(err) != vectord.CodeNotLeader {
		t.Error(err)
	}
	c.eventually("another leads", func() bool { return c.leader() != leader })
	if err := c.leader().get().Remove(t.Context(), leader.id); err != nil {
		t.Error(err)
	}
	l.goesOn(c)
	ctx, cancel := context.WithTimeout(t.Context(), 3*testHeartbeat)
	defer cancel()
	if _, err := leader.do(ctx, kvCommand{Op: "add", Key: "removed"}); err != nil && vectord.KindOf(err) != vectord.KindTimeout {
		t.Errorf("a node that was removed: %v", err)
	}
	if err := c.leader().get().Add(leader.id, leader.id); err != nil {
		t.Error(err)
	}
	c.voters(3)
	l.goesOn(c)
	l.unaware()
	l.sent["removed"] = errors.New("unknown")
	l.check(c.same())
}

// TestFault45LastLeaderOfTwo ends while it is to be removed. Were that in its log, and nowhere else, neither node could ever lead
// again: it has no vote by its own log, and gives the other none, whose log is shorter.
func TestFault45LastLeaderOfTwo(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, Options{})
	leader, other := c.leader(), c.followers()[0]
	end := other.logs.hang()
	defer end()
	removed := make(chan error, 1)
	go func() { removed <- leader.get().Remove(t.Context(), leader.id) }()
	select {
	case err := <-removed:
		t.Logf("to be removed: %v", err)
	case <-time.After(10 * testHeartbeat):
	}
	leader.crash()
	end()
	leader.start()
	c.leader().must(kvCommand{Op: "put", Key: "k", New: "v"})
	c.same()
}

// TestFault46EmptyMember: a node that has nothing yet gets no vote, however few entries there are.
func TestFault46EmptyMember(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Options{})
	g := newGate()
	c.net.set(func(net *network) {
		net.stream = func(_ string, r io.Reader) io.Reader { return &gatedReader{Reader: r, g: g} }
	})
	n := c.add("n1", false)
	leader := c.nodes[0]
	if err := leader.get().Add(n.id, n.id); err != nil {
		t.Fatal(err)
	}
	<-g.reached
	for range 5 { // looks of the leader
		time.Sleep(watchInterval)
		members, err := leader.get().Members()
		if err != nil || len(members) != 2 || members[1].Voter {
			t.Fatalf("members are %+v: %v", members, err)
		}
	}
	leader.must(kvCommand{Op: "put", Key: "k", New: "alone"})
	close(g.open)
	c.voters(2)
	c.same()
}

// TestFault50Clocks: the nodes' clocks are hours apart and jump, and the time of entries never goes back.
func TestFault50Clocks(t *testing.T) {
	t.Parallel()
	c := tunedCluster(t, 3, Options{}, func(n *testNode) {
		rng := n.c.random()
		var mu sync.Mutex
		n.o.Now = func() time.Time {
			mu.Lock()
			defer mu.Unlock()
			return time.Now().Add(time.Duration(rng.IntN(7200)-3600) * time.Second)
		}
	})
	l := c.load(8, c.nodes...)
	for range 4 {
		l.goesOn(c)
		_ = c.leader().get().Transfer("")
	}
	l.unaware()
	l.check(c.same()) // kvState refuses an entry that is earlier than the one before
}

// TestFault51Starvation keeps all processors busy.
func TestFault51Starvation(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds of all processors")
	}
	c := newCluster(t, 3, Options{Heartbeat: DefaultHeartbeat})
	leader := c.leader()
	term := leader.get().Status().Term
	var busy sync.WaitGroup
	end := time.Now().Add(DefaultHeartbeat)
	for range 16 {
		busy.Go(func() {
			for sum := 0; time.Now().Before(end); sum++ {
				_ = sum
			}
		})
	}
	busy.Wait()
	leader.must(kvCommand{Op: "put", Key: "k", New: "v"})
	if s := leader.get().Status(); s.Term != term || !s.Leading {
		t.Errorf("the leader of term %d became %+v", term, s)
	}
	c.same()
}
