package node

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/replication/transport"
)

// clusterNode is a node of a test, opened again when it asks for that.
type clusterNode struct {
	t       *testing.T
	dir     string
	cluster Cluster
	mu      sync.Mutex
	node    *Node // nil while it is down
	stop    chan struct{}
	ended   sync.WaitGroup
}

const testSecret = "0123456789abcdef0123456789abcdef"

func newClusterNode(t *testing.T, join ...string) *clusterNode {
	t.Helper()
	c := &clusterNode{t: t, dir: t.TempDir(), cluster: Cluster{Listen: "127.0.0.1:0", Join: join, Security: transport.Security{Secret: testSecret}}}
	c.start()
	t.Cleanup(c.shut)
	return c
}

// start opens the node.
func (c *clusterNode) start() {
	c.t.Helper()
	n, err := c.open()
	if err != nil {
		c.t.Fatal(err)
	}
	c.cluster.Listen = n.cluster.transport.Addr().String() // the same at each start
	c.stop = make(chan struct{})
	c.ended.Go(func() {
		for n != nil {
			select {
			case <-c.stop:
				return
			case <-n.Reopen():
			}
			c.mu.Lock()
			if err := n.Close(); err != nil {
				c.t.Error(err)
			}
			c.mu.Unlock()
			if n, err = c.open(); err != nil {
				c.t.Error(err)
			}
		}
	})
}

func (c *clusterNode) open() (*Node, error) {
	level := slog.LevelWarn
	if os.Getenv("VECTORD_TRACE") != "" {
		level = slog.LevelDebug
	}
	n, err := Open(Config{DataDir: c.dir, Cluster: &c.cluster, Logger: slog.New(slog.NewTextHandler(c.t.Output(), &slog.HandlerOptions{Level: level})),
		Fatal: func(err error) { c.t.Errorf("fatal: %v", err) }})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node = n
	return n, err
}

// shut closes the node.
func (c *clusterNode) shut() {
	c.mu.Lock()
	running := c.node != nil
	c.mu.Unlock()
	if !running {
		return
	}
	close(c.stop)
	c.ended.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.node.Close(); err != nil {
		c.t.Error(err)
	}
	c.node = nil
}

func (c *clusterNode) get() *Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.node
}

func (c *clusterNode) address() string { return c.cluster.Listen }

const clusterPatience = 60 * time.Second

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(clusterPatience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", clusterPatience, what)
		}
	}
}

// newTestCluster returns n nodes that are voters.
func newTestCluster(t *testing.T, n int) []*clusterNode {
	t.Helper()
	nodes := []*clusterNode{newClusterNode(t)}
	for len(nodes) < n {
		nodes = append(nodes, newClusterNode(t, nodes[0].address()))
	}
	votes(t, nodes[0], n)
	return nodes
}

func votes(t *testing.T, at *clusterNode, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " voters"), func() bool {
		voters := 0
		peers, err := at.get().Membership().Peers(t.Context())
		for _, p := range peers {
			if p.Voter && p.Alive {
				voters++
			}
		}
		return err == nil && voters == n
	})
}

func leaderOf(t *testing.T, nodes []*clusterNode) (leader *clusterNode) {
	t.Helper()
	eventually(t, "a leader", func() bool {
		for _, c := range nodes {
			if n := c.get(); n != nil && n.cluster.group.Status().Leading {
				leader = c
			}
		}
		return leader != nil
	})
	return leader
}

func TestClusterKeepsTheSame(t *testing.T) {
	nodes := newTestCluster(t, 3)
	ctx, cancel := context.WithTimeout(t.Context(), clusterPatience)
	defer cancel()
	vectors := clustered(rand.New(rand.NewPCG(1, 2)), 300)
	if err := nodes[1].get().Engine().CreateCollection(ctx, "c", vectord.DefaultCollectionConfig(len(vectors[0]), vectord.Euclid)); err != nil {
		t.Fatal(err)
	}
	upsert(t, nodes[1].get().Engine(), 1, vectors)
	for i, c := range nodes {
		if err := c.get().Membership().Synced(ctx); err != nil {
			t.Fatal(err)
		}
		info, err := c.get().Engine().CollectionInfo("c")
		if err != nil || info.Points != len(vectors) {
			t.Errorf("node %d: %+v: %v", i, info, err)
		}
	}

	// A node that was away gets what it missed, by the log or by a snapshot, and one that joins by a snapshot.
	away := nodes[2]
	if leaderOf(t, nodes) == away {
		away = nodes[1]
	}
	away.shut()
	writer := leaderOf(t, nodes)
	upsert(t, writer.get().Engine(), 1000, vectors)
	if err := writer.get().cluster.group.Snapshot(); err != nil {
		t.Fatal(err)
	}
	upsert(t, writer.get().Engine(), 2000, vectors)
	away.start()
	nodes = append(nodes, newClusterNode(t, writer.address()))
	votes(t, writer, 4)
	hasAll(t, nodes, 3*len(vectors))
	q := vectors[7]
	want := exactIDs(t, writer.get().Engine(), q, true)
	for i, c := range nodes {
		if got := exactIDs(t, c.get().Engine(), q, true); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("node %d finds %v, the writer %v", i, got, want)
		}
	}
}

// hasAll waits until every node has so many points.
func hasAll(t *testing.T, nodes []*clusterNode, points int) {
	t.Helper()
	for i, c := range nodes {
		eventually(t, fmt.Sprintf("node %d has all points", i), func() bool {
			n := c.get()
			if n == nil || n.Membership().Synced(t.Context()) != nil {
				return false
			}
			info, err := n.Engine().CollectionInfo("c")
			return err == nil && info.Points == points
		})
	}
}

// TestRecoverWithoutMajority loses two of three nodes for good.
func TestRecoverWithoutMajority(t *testing.T) {
	nodes := newTestCluster(t, 3)
	vectors := clustered(rand.New(rand.NewPCG(1, 2)), 300)
	if err := nodes[0].get().Engine().CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(len(vectors[0]), vectord.Euclid)); err != nil {
		t.Fatal(err)
	}
	upsert(t, nodes[0].get().Engine(), 1, vectors)
	left := nodes[2]
	hasAll(t, nodes, len(vectors))
	for _, c := range nodes {
		c.shut()
	}
	if err := Recover(Config{DataDir: left.dir, Cluster: &left.cluster}); err != nil {
		t.Fatal(err)
	}
	left.start()
	votes(t, left, 1)
	upsert(t, left.get().Engine(), 1000, vectors)
	nodes = []*clusterNode{left, newClusterNode(t, left.address()), newClusterNode(t, left.address())}
	votes(t, left, 3)
	hasAll(t, nodes, 2*len(vectors))
}

// TestGrowFromOneServer takes the data of a server of its own into a cluster.
func TestGrowFromOneServer(t *testing.T) {
	vectors := clustered(rand.New(rand.NewPCG(1, 2)), 300)
	dir := t.TempDir()
	alone, err := Open(Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.Engine().CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(len(vectors[0]), vectord.Euclid)); err != nil {
		t.Fatal(err)
	}
	upsert(t, alone.Engine(), 1, vectors)
	if _, err := alone.Tasks().Submit(t.Context(), "q", []vectord.NewTask{{Payload: []byte(`1`)}}); err != nil {
		t.Fatal(err)
	}
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	first := &clusterNode{t: t, dir: dir, cluster: Cluster{Listen: "127.0.0.1:0", Security: transport.Security{Secret: testSecret}}}
	first.start()
	t.Cleanup(first.shut)
	nodes := []*clusterNode{first, newClusterNode(t, first.address()), newClusterNode(t, first.address())}
	votes(t, first, 3)
	upsert(t, nodes[1].get().Engine(), 1000, vectors)
	hasAll(t, nodes, 2*len(vectors))
	for i, c := range nodes {
		if q, err := c.get().Tasks().Queue("q"); err != nil || q.Counts[vectord.TaskQueued] != 1 {
			t.Errorf("node %d: %+v: %v", i, q, err)
		}
	}
	first.shut()
	if _, err := Open(Config{DataDir: dir}); vectord.KindOf(err) != vectord.KindConflict {
		t.Errorf("a cluster's data opened by a server of its own: %v", err)
	}
}

// TestJoinRefusesData checks that no data is replaced by that of a cluster by oversight.
func TestJoinRefusesData(t *testing.T) {
	first := newClusterNode(t)
	dir := t.TempDir()
	alone, err := Open(Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := alone.Engine().CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(3, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	if err := alone.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = Open(Config{DataDir: dir, Cluster: &Cluster{Listen: "127.0.0.1:0", Join: []string{first.address()}, Security: transport.Security{Secret: testSecret}}})
	if vectord.KindOf(err) != vectord.KindConflict {
		t.Errorf("data of its own was let into a cluster: %v", err)
	}
}
