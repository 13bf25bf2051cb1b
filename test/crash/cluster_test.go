package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	clusterSecret = "a secret of the test's clusters"
	clusterNodes  = 3
	// wholeLimit bounds the time until all nodes of a cluster have a vote and have what the others have.
	wholeLimit = 90 * time.Second
	// leaderLimit bounds the time until a majority of nodes has a leader.
	leaderLimit = 30 * time.Second
	pollPause   = 20 * time.Millisecond
	askLimit    = 2 * time.Second
	// lagAllowed is how many entries of the log a node may have yet to apply and still count as having caught up, while others
	// go on writing.
	lagAllowed = 64
)

// member is a node of a cluster over all its lives.
type member struct {
	cluster *cluster
	number  int
	dir     string
	http    string   // addresses
	listen  string   // for the other nodes
	below   []string // what it is run by
	flags   []string // further ones
	log     *os.File // of all its lives
	api     *api
	process *process // of the present life, or the last one
	id      uint64   // by which the cluster knows it
}

// cluster is a few nodes on this machine, and what a failure's report needs.
type cluster struct {
	t       *testing.T
	seed    uint64
	random  *rand.Rand
	members []*member
	logs    string // folder
}

// newCluster starts a cluster and waits until all its nodes have a vote.
func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := emptyCluster(t)
	for range clusterNodes {
		c.add(&member{http: freeAddress(t), listen: freeAddress(t)})
	}
	c.begin()
	return c
}

// emptyCluster returns a cluster without nodes.
func emptyCluster(t *testing.T) *cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("clusters of processes take too long for -short")
	}
	seed := number(t, "CRASH_SEED", rand.Uint64())
	logs, err := os.MkdirTemp("", "vectord-cluster-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), logs: logs}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with CRASH_SEED=%d, as far as chance allows; the nodes' logs are in %s", seed, logs)
			return
		}
		os.RemoveAll(logs)
	})
	return c
}

func (c *cluster) add(m *member) {
	c.t.Helper()
	m.cluster, m.number = c, len(c.members)
	if m.dir == "" {
		m.dir = filepath.Join(c.t.TempDir(), "data")
	}
	var err error
	if m.log, err = os.OpenFile(filepath.Join(c.logs, fmt.Sprintf("node-%d.log", m.number)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { m.log.Close() }) // after the process is gone, which starts later
	m.api = newAPI("http://" + m.http)
	c.t.Cleanup(m.api.client.CloseIdleConnections)
	c.members = append(c.members, m)
}

// begin starts all nodes, the first of which begins the cluster.
func (c *cluster) begin() {
	c.t.Helper()
	for i, m := range c.members {
		m.start(i > 0)
	}
	c.whole()
}

// start begins a new life of a node, and waits until it answers. One that was part of the cluster before knows where the others are; join
// is for one that was not.
func (m *member) start(join bool) {
	m.cluster.t.Helper()
	m.launch(join)
	m.process.waitReady(m.cluster.t)
	m.identify()
}

// launch is start without waiting.
func (m *member) launch(join bool) {
	m.cluster.t.Helper()
	args := []string{"serve", "--data-dir", m.dir, "--http", m.http, "--cluster-listen", m.listen, "--cluster-secret", clusterSecret}
	if join {
		var others []string
		for _, other := range m.cluster.members {
			if other != m {
				others = append(others, other.listen)
			}
		}
		args = append(args, "--cluster-join", strings.Join(others, ","))
	}
	fmt.Fprintf(m.log, "--- %s starts, join: %t\n", time.Now().Format(time.RFC3339Nano), join)
	m.process = startProcess(m.cluster.t, m.log, m.below, append(args, m.flags...)...)
}

// identify learns the number that a node has in the cluster.
func (m *member) identify() {
	m.cluster.t.Helper()
	var info struct {
		ID uint64 `json:"peer_id"`
	}
	for limit := time.Now().Add(startLimit); ; time.Sleep(pollPause) {
		err := m.ask(http.MethodGet, "/cluster", nil, &info)
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			m.cluster.t.Fatalf("node %d does not say who it is: %v\n%s", m.number, err, m.process.output)
		}
	}
	m.id = info.ID
}

// ask sends a request that should be answered soon.
func (m *member) ask(method, path string, body, result any) error {
	ctx, cancel := context.WithTimeout(m.cluster.t.Context(), askLimit)
	defer cancel()
	return m.api.call(ctx, method, path, body, result)
}

// kill ends the node without a chance to finish anything.
func (m *member) kill() {
	fmt.Fprintf(m.log, "--- %s is killed\n", time.Now().Format(time.RFC3339Nano))
	m.process.kill()
}

// terminate asks the node to stop, and waits until it has.
func (m *member) terminate() {
	m.cluster.t.Helper()
	fmt.Fprintf(m.log, "--- %s is asked to stop\n", time.Now().Format(time.RFC3339Nano))
	m.process.terminate(m.cluster.t)
}

// signal stops and continues the node.
func (m *member) signal(s syscall.Signal) {
	m.cluster.t.Helper()
	fmt.Fprintf(m.log, "--- %s gets signal %v\n", time.Now().Format(time.RFC3339Nano), s)
	if err := m.process.cmd.Process.Signal(s); err != nil {
		m.cluster.t.Fatal(err)
	}
}

// running says whether the node's process is there.
func (m *member) running() bool {
	if m.process == nil {
		return false
	}
	select {
	case <-m.process.exited:
		return false
	default:
		return true
	}
}

// peer is what the cluster says of a node.
type peer struct {
	ID      uint64 `json:"id"`
	Voter   bool   `json:"voter"`
	Leader  bool   `json:"leader"`
	Alive   bool   `json:"alive"`
	Applied uint64 `json:"applied"`
	Term    uint64 `json:"term"`
}

func (m *member) peers() (peers []peer, err error) {
	err = m.ask(http.MethodGet, "/cluster/peers", nil, &peers)
	return peers, err
}

// leader waits until a node leads that has answered, among those that want may be, and returns it.
func (c *cluster) leader(want func(*member) bool) *member {
	c.t.Helper()
	var last error
	for limit := time.Now().Add(leaderLimit); time.Now().Before(limit); time.Sleep(pollPause) {
		for _, m := range c.members {
			if !m.running() || !want(m) {
				continue
			}
			peers, err := m.peers()
			last = errors.Join(last, err)
			for _, p := range peers {
				if p.Leader && p.Alive && p.ID == m.id { // it says so of itself
					return m
				}
			}
		}
	}
	c.fatal("no node leads within %v", leaderLimit)
	return nil
}

func anyone(*member) bool { return true }

// whole waits until all nodes that run have a vote and have applied what the leader has, but for a little, and returns how
// long that took.
func (c *cluster) whole() time.Duration {
	c.t.Helper()
	began := time.Now()
	var state string
	for time.Since(began) < wholeLimit {
		state = ""
		for _, m := range c.members {
			if !m.running() {
				continue
			}
			peers, err := m.peers()
			if err != nil {
				state += fmt.Sprintf("node %d: %v; ", m.number, err)
			} else if why := incomplete(peers); why != "" {
				state += fmt.Sprintf("node %d: %s; ", m.number, why)
			}
		}
		if state == "" {
			return time.Since(began)
		}
		time.Sleep(pollPause)
	}
	c.fatal("the cluster is not whole within %v: %s", wholeLimit, state)
	return 0
}

// incomplete says what a cluster lacks, or nothing.
func incomplete(peers []peer) string {
	var highest, leaders uint64
	for _, p := range peers {
		highest = max(highest, p.Applied)
		if p.Leader {
			leaders++
		}
	}
	if len(peers) != clusterNodes || leaders != 1 {
		return fmt.Sprintf("%d nodes, %d leaders", len(peers), leaders)
	}
	for _, p := range peers {
		if !p.Alive || !p.Voter || p.Applied+lagAllowed < highest {
			return fmt.Sprintf("%+v", peers)
		}
	}
	return ""
}

// fatal ends the test with what the nodes said last.
func (c *cluster) fatal(format string, args ...any) {
	c.t.Helper()
	for _, m := range c.members {
		if m.process != nil {
			c.t.Logf("node %d, running: %t, said:\n%s", m.number, m.running(), lastLines(m.process.output.String(), 40))
		}
	}
	c.t.Fatalf(format, args...)
}

// lastLife is what the node said in the life before the present one, as far as it is known.
func (m *member) lastLife() string {
	log, err := os.ReadFile(m.log.Name())
	if err != nil {
		m.cluster.t.Fatal(err)
	}
	lives := strings.Split(string(log), "\n--- ")
	if len(lives) < 2 {
		return string(log)
	}
	return lives[len(lives)-2]
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// remove ends a node's membership, which another node is told.
func (c *cluster) remove(id uint64, by *member) {
	c.t.Helper()
	var last error
	for limit := time.Now().Add(leaderLimit); time.Now().Before(limit); time.Sleep(pollPause) {
		ctx, cancel := context.WithTimeout(c.t.Context(), leaderLimit)
		last = by.api.call(ctx, http.MethodDelete, "/cluster/peer/"+strconv.FormatUint(id, 10), nil, nil)
		cancel()
		if last == nil || isRefusal(last, http.StatusNotFound) {
			return
		}
	}
	c.fatal("node %d cannot be removed: %v", id, last)
}

// urls are those of all nodes, beginning with one of them.
func (c *cluster) urls(first int) (urls []string) {
	for i := range c.members {
		urls = append(urls, "http://"+c.members[(first+i)%len(c.members)].http)
	}
	return urls
}
