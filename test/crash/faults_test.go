package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
)

const (
	// gapPromised is how long a cluster of idle machines may be without an acknowledged write when its leader falls. It is only
	// reported, for the machine of a test is not idle; gapLimit is what fails the test.
	gapPromised = 5 * time.Second
	gapLimit    = 60 * time.Second
	settleTime  = time.Second // of load between faults
)

// gaps are the longest times without an acknowledged write around each of some faults.
type gaps []time.Duration

func (g gaps) String() string {
	if len(g) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(g))
	beyond := 0
	for _, gap := range g {
		if gap > gapPromised {
			beyond++
		}
	}
	return fmt.Sprintf("median %v, longest %v, %d of %d above %v", sorted[len(sorted)/2].Round(time.Millisecond),
		sorted[len(sorted)-1].Round(time.Millisecond), beyond, len(g), gapPromised)
}

// add notes a gap.
func (g *gaps) add(c *cluster, gap time.Duration) {
	*g = append(*g, gap)
	if gap > gapLimit {
		c.t.Errorf("no write was acknowledged for %v", gap)
	}
}

// clusterRounds is how many faults a test makes.
func clusterRounds(t *testing.T, otherwise int) int {
	return int(number(t, "CLUSTER_ROUNDS", uint64(otherwise)))
}

// rest lets the load go on for a while.
func (c *cluster) rest() {
	time.Sleep(settleTime + time.Duration(c.random.Int64N(int64(settleTime))))
}

// TestClusterLeaderKilled kills the leader under load, again and again: nothing acknowledged is lost, and nothing done twice.
func TestClusterLeaderKilled(t *testing.T) {
	c := newCluster(t)
	l := c.load()
	var found gaps
	for range clusterRounds(t, 2) {
		c.rest()
		l.mark()
		leader := c.leader(anyone)
		leader.kill()
		c.leader(func(m *member) bool { return m != leader })
		_, gap := l.mark()
		found.add(c, gap)
		c.rest()
		leader.start(true)
		c.whole()
	}
	l.finish()
	t.Logf("without an acknowledged write after the leader was killed: %v", found)
}

// TestClusterLeaderStopped stops the leader's process for some seconds and continues it. It must not take itself for the leader
// then: what it reads linearizably has all that was acknowledged meanwhile.
func TestClusterLeaderStopped(t *testing.T) {
	c := newCluster(t)
	l := c.load()
	p := newProbe(l)
	var found gaps
	for range clusterRounds(t, 2) {
		c.rest()
		l.mark()
		leader := c.leader(anyone)
		ended := l.waitFor(c.members[(leader.number+1)%clusterNodes])
		leader.signal(syscall.SIGSTOP)
		c.leader(func(m *member) bool { return m != leader })
		select {
		case <-ended:
		case <-time.After(forwardLimit):
			t.Errorf("a request that a node sent on to the leader waits for that still, %v after another one leads", forwardLimit)
		}
		_, gap := l.mark()
		found.add(c, gap)
		c.rest()
		p.readAround(leader, func() { leader.signal(syscall.SIGCONT) })
		c.whole()
	}
	p.stop()
	l.finish()
	t.Logf("without an acknowledged write after the leader was stopped: %v; %d reads at a leader of old, none stale", found, p.reads)
}

const (
	forwardLimit = 8 * time.Second // from the election of another leader to the end of what waits for one that hangs
	waitForTask  = 60_000          // milliseconds
	waitQueue    = "wait"
)

// waitFor has a node ask the leader for a task's result, which will not come, and returns what is closed when it has an answer.
func (l *clusterLoad) waitFor(m *member) (ended <-chan struct{}) {
	l.c.t.Helper()
	var task struct {
		ID string `json:"task_id"`
	}
	if err := l.attempt(m, "", http.MethodPost, "/queues/"+waitQueue+"/tasks", object{}, &task); err != nil {
		l.c.fatal("submit a task: %v", err)
	}
	c := make(chan struct{})
	l.ended.Go(func() {
		defer close(c)
		ctx, cancel := context.WithTimeout(context.Background(), requestLimit)
		defer cancel()
		path := fmt.Sprintf("/tasks/%s/result?wait_ms=%d", task.ID, waitForTask)
		if err := m.api.call(ctx, http.MethodGet, path, nil, nil); err == nil {
			l.c.t.Error("a task has a result that nobody worked on")
		}
	})
	return c
}

// probe writes one point after the other. A read that lacks one that was acknowledged before is stale, whatever became of
// those without an answer.
type probe struct {
	l      *clusterLoad
	acked  atomic.Uint64 // the last point that was acknowledged
	cancel context.CancelFunc
	ended  sync.WaitGroup
	reads  int
}

const (
	probeBase  = 1 << 42
	probeReads = 8
	queuedFor  = 100 * time.Millisecond // reads that are sent to a stopped process are there when it goes on
)

func newProbe(l *clusterLoad) *probe {
	p := &probe{l: l}
	ctx, cancel := context.WithCancel(l.c.t.Context())
	p.cancel = cancel
	l.c.t.Cleanup(p.stop)
	random := rand.New(rand.NewPCG(l.c.seed, 300))
	p.ended.Go(func() {
		for id := uint64(probeBase); ctx.Err() == nil; id++ {
			m := l.pick(random)
			l.others.Add(1)
			err := l.attempt(m, "", http.MethodPut, "/collections/"+collection+"/points?wait=true", object{"points": []object{point(id, 1, nobody, 0)}}, nil)
			if err == nil {
				p.acked.Store(id)
			} else {
				l.failed("write of the probe", m, err)
				time.Sleep(refusedPause)
			}
		}
	})
	return p
}

func (p *probe) stop() {
	p.cancel()
	p.ended.Wait()
}

// readAround reads at a node that is stopped, some times before it goes on and some times at once afterwards.
func (p *probe) readAround(m *member, goOn func()) {
	t := p.l.c.t
	t.Helper()
	var all sync.WaitGroup
	var answered atomic.Int64
	read := func() {
		id := p.acked.Load()
		err := p.l.attempt(m, "", http.MethodGet, fmt.Sprintf("/collections/%s/points/%d%s", collection, id, linearizableRead), nil, nil)
		switch {
		case isRefusal(err, http.StatusNotFound):
			t.Errorf("node %d does not have point %d, which was acknowledged before it was asked", m.number, id)
		case err != nil:
			p.l.failed("read of the probe", m, err)
		default:
			answered.Add(1)
		}
	}
	for range probeReads {
		all.Go(read)
	}
	time.Sleep(queuedFor)
	goOn()
	for range probeReads {
		read()
	}
	all.Wait()
	p.reads += int(answered.Load())
}

// TestClusterKilledWhole kills all nodes at once under load: what was acknowledged is there when they are started again.
func TestClusterKilledWhole(t *testing.T) {
	c := newCluster(t)
	l := c.load()
	var back []time.Duration
	for range clusterRounds(t, 2) {
		c.rest()
		l.mark()
		var all sync.WaitGroup
		for _, m := range c.members {
			all.Go(m.kill)
		}
		all.Wait()
		began := time.Now()
		for _, m := range c.members {
			m.launch(true)
		}
		for _, m := range c.members {
			m.process.waitReady(t)
			m.identify()
		}
		l.mark()
		back = append(back, time.Since(began).Round(time.Millisecond))
		c.whole()
	}
	l.finish()
	t.Logf("from the start of all nodes to an acknowledged write: %v", back)
}

// TestClusterNodeWiped takes a follower's disk away and has an empty node join in its place, under load.
func TestClusterNodeWiped(t *testing.T) {
	c := newCluster(t)
	l := c.load()
	filled := l.fill(int(number(t, "CLUSTER_FILL", 0)))
	for range clusterRounds(t, 1) {
		c.rest()
		leader := c.leader(anyone)
		wiped := c.members[(leader.number+1+c.random.IntN(clusterNodes-1))%clusterNodes]
		wiped.kill()
		if err := os.RemoveAll(wiped.dir); err != nil {
			t.Fatal(err)
		}
		c.remove(wiped.id, leader)
		old := wiped.id
		began := time.Now()
		wiped.start(true)
		if wiped.id == old {
			t.Errorf("an empty node has the number %d of the one before", old)
		}
		c.whole()
		took := time.Since(began)
		l.mu.Lock()
		entries := len(l.set)
		l.mu.Unlock()
		t.Logf("an empty node had all of about %d small points and %d of %d KiB, and a vote, after %v, under load", entries, filled, fillPayload>>10,
			took.Round(time.Millisecond))
	}
	l.finish()
}

const (
	fillBase    = 1 << 43
	fillPayload = 32 << 10
	fillBatch   = 32
)

// fill writes so many MiB of points, which no other test changes, and returns how many they are. Above what the log keeps, whoever has lost
// everything gets a snapshot.
func (l *clusterLoad) fill(megabytes int) (points int) {
	l.c.t.Helper()
	random := rand.New(rand.NewPCG(l.c.seed, 400))
	for points < megabytes<<20/fillPayload {
		var batch []object
		for range fillBatch {
			text := make([]byte, fillPayload)
			for i := range text {
				text[i] = 'a' + byte(random.IntN(26))
			}
			id := uint64(fillBase + points)
			batch = append(batch, object{"id": id, "vector": vectorOf(id, 1), "payload": object{"text": string(text)}})
			points++
		}
		l.others.Add(fillBatch)
		for {
			m := l.pick(random)
			err := l.attempt(m, fmt.Sprint("fill-", points), http.MethodPut, "/collections/"+collection+"/points?wait=true", object{"points": batch}, nil)
			if err == nil {
				break
			}
			l.failed("fill", m, err)
			time.Sleep(refusedPause)
		}
	}
	return points
}

// TestClusterRollingRestart restarts one node after the other, as for a new version, under the load of Go clients that know all nodes: they
// notice nothing.
func TestClusterRollingRestart(t *testing.T) {
	c := newCluster(t)
	c.prepare()
	const callers = 4
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all sync.WaitGroup
	var done, slowest atomic.Int64
	for i := range callers {
		cl, err := client.New(c.urls(i)[0], client.Options{Servers: c.urls(i)[1:]})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			for n := 1; ctx.Err() == nil && !t.Failed(); n++ {
				begin := time.Now()
				if err := c.useClient(cl, uint64(setBase+i<<32+n)); err != nil {
					t.Errorf("client %d: %v", i, err)
				}
				slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
				done.Add(1)
				time.Sleep(clientPause)
			}
		})
	}
	var stops []time.Duration
	for range clusterRounds(t, 1) {
		for _, m := range c.members {
			c.rest()
			began := time.Now()
			m.terminate()
			stops = append(stops, time.Since(began))
			m.start(true)
			c.whole()
			if t.Failed() {
				break
			}
		}
	}
	cancel()
	all.Wait()
	if t.Failed() {
		c.fatal("a client noticed")
	}
	t.Logf("%d restarts, stopping took at most %v; %d rounds of calls without an error, the slowest took %v", len(stops),
		slices.Max(stops).Round(time.Millisecond), done.Load(), time.Duration(slowest.Load()).Round(time.Millisecond))
}

// useClient writes a point and reads it, finds it, and submits a task and reads that.
func (c *cluster) useClient(cl *client.Client, id uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), gapLimit)
	defer cancel()
	p := vectord.Point{ID: vectord.NumberID(id), Vectors: vectord.Unnamed(vectorOf(id, 1))}
	u, err := cl.Upsert(ctx, collection, []vectord.Point{p}, vectord.WriteOptions{})
	if err != nil {
		return err
	}
	records, err := cl.Retrieve(ctx, collection, []vectord.PointID{p.ID}, vectord.Selection{})
	if err != nil {
		return err
	}
	if len(records) != 1 {
		return fmt.Errorf("point %d was written by operation %d and is not there", id, u.OperationID)
	}
	hits, err := cl.Query(ctx, collection, vectord.Query{Nearest: vectord.Near(vectorOf(id, 1)), Limit: 1, Params: vectord.SearchParams{Exact: true}})
	if err != nil {
		return err
	}
	if len(hits) != 1 || hits[0].ID != p.ID || hits[0].Version != u.OperationID {
		return fmt.Errorf("the nearest to point %d of operation %d is %+v", id, u.OperationID, hits)
	}
	out, err := cl.Submit(ctx, countQueue, []vectord.NewTask{{Payload: json.RawMessage(fmt.Sprint(id))}})
	if err != nil {
		return err
	}
	if out[0].Err != nil {
		return out[0].Err
	}
	if _, err := cl.Task(ctx, out[0].TaskID); err != nil {
		return err
	}
	_, err = cl.CancelTask(ctx, out[0].TaskID)
	return err
}
