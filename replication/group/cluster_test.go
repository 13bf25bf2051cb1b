package group

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/fsync"
)

// seed is that of a test's random choices, given by VECTORD_SEED to have them again.
func seed(t *testing.T) *rand.Rand {
	n := rand.Uint64()
	if s := os.Getenv("VECTORD_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("VECTORD_SEED=%d", n)
		}
	})
	return rand.New(rand.NewPCG(n, 0))
}

// A network connects the nodes of a test, and does to their messages what it is told.
type network struct {
	mu    sync.Mutex
	rng   *rand.Rand
	nodes map[string]*wire   // by address
	cut   map[[2]string]bool // from, to
	slow  map[[2]string]time.Duration
	drop  float64
	twice float64
	late  float64                     // how many messages of Raft come a second time, up to lateBy after the first
	delay time.Duration               // at most
	held  map[[2]string]chan struct{} // from, to: messages wait until the channel is closed
	// stream is put around the content of each snapshot that is sent; nil: nothing is.
	stream func(to string, r io.Reader) io.Reader
	kept   []message // the snapshots that were sent, if keep is set
	keep   bool
}

// message is one with a snapshot.
type message struct {
	to      string
	command any
	content []byte
}

func newNetwork(rng *rand.Rand) *network {
	return &network{rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), nodes: map[string]*wire{}, cut: map[[2]string]bool{}, slow: map[[2]string]time.Duration{}, held: map[[2]string]chan struct{}{}}
}

func (n *network) set(f func(n *network)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

// heal ends all faults.
func (n *network) heal() {
	n.set(func(n *network) {
		clear(n.cut)
		clear(n.slow)
		n.drop, n.twice, n.late, n.delay, n.stream = 0, 0, 0, 0, nil
		for pair, c := range n.held {
			close(c)
			delete(n.held, pair)
		}
	})
}

// hold makes messages from one node to another wait until the network heals, or until release.
func (n *network) hold(from, to string) {
	n.set(func(n *network) {
		if n.held[[2]string{from, to}] == nil {
			n.held[[2]string{from, to}] = make(chan struct{})
		}
	})
}

// release lets the held messages go.
func (n *network) release(from, to string) {
	n.set(func(n *network) {
		if c := n.held[[2]string{from, to}]; c != nil {
			close(c)
			delete(n.held, [2]string{from, to})
		}
	})
}

// links are those of a node, in both directions.
func links(address string, all []*testNode) (links [][2]string) {
	for _, other := range all {
		links = append(links, [2]string{address, other.id}, [2]string{other.id, address})
	}
	return links
}

// isolate cuts a node off from all others, both ways.
func (n *network) isolate(address string, all []*testNode) {
	n.set(func(n *network) {
		for _, link := range links(address, all) {
			n.cut[link] = true
		}
	})
}

var errCut = errors.New("network: no answer")

// pass lets one message through, or not, and says whether it comes twice. w is its sender's end.
func (n *network) pass(w *wire, to string) (target *wire, twice bool, err error) {
	n.mu.Lock()
	target = n.nodes[to]
	gone := target == nil || n.nodes[w.address] != w
	lost := n.cut[[2]string{w.address, to}] || n.rng.Float64() < n.drop
	twice = n.rng.Float64() < n.twice
	wait, held := n.slow[[2]string{w.address, to}], n.held[[2]string{w.address, to}]
	if n.delay > 0 {
		wait += time.Duration(n.rng.Int64N(int64(n.delay)))
	}
	n.mu.Unlock()
	if gone {
		return nil, false, errUnreachable
	}
	if held != nil {
		<-held
	}
	if wait > 0 {
		time.Sleep(wait)
	}
	if lost {
		time.Sleep(lossNoticed)
		return nil, false, errCut
	}
	return target, twice, nil
}

// lossNoticed is how long a sender waits for an answer to a message that was lost.
const lossNoticed = 20 * time.Millisecond

var errUnreachable = errors.New("network: there is no such node")

// A wire is a node's end of the network.
type wire struct {
	net      *network
	address  string
	consumer chan raft.RPC
	group    atomic.Pointer[Group]
	// heartbeat answers heartbeats, which wait for nothing else.
	heartbeat atomic.Pointer[func(raft.RPC)]
	// pipelined says whether messages are sent before the answers to earlier ones are there.
	pipelined bool
}

func (n *network) connect(address string, pipelined bool) *wire {
	w := &wire{net: n, address: address, consumer: make(chan raft.RPC), pipelined: pipelined}
	n.set(func(n *network) { n.nodes[address] = w })
	return w
}

func (n *network) disconnect(address string) { n.set(func(n *network) { delete(n.nodes, address) }) }

// call sends one message and returns the answer to it, if both get through.
func (w *wire) call(to raft.ServerAddress, command any, r io.Reader) (any, error) {
	target, twice, err := w.net.pass(w, string(to))
	if err != nil {
		return nil, err
	}
	var stream func(to string, r io.Reader) io.Reader
	keep, late := false, time.Duration(-1)
	w.net.set(func(n *network) {
		stream, keep = n.stream, n.keep
		if n.rng.Float64() < n.late {
			late = time.Duration(n.rng.Int64N(int64(lateBy)))
		}
	})
	if r != nil {
		if stream != nil {
			r = stream(string(to), r)
		}
		content, err := io.ReadAll(r) // here, as the sender closes it
		if err != nil {
			return nil, err
		}
		if keep {
			w.net.set(func(n *network) { n.kept = append(n.kept, message{string(to), command, content}) })
		}
		r = bytes.NewReader(content)
	} else if late >= 0 {
		again := clone(command)
		time.AfterFunc(late, func() { _, _ = target.deliver(again, nil) })
	}
	var response any
	for range 1 + btoi(twice && r == nil) {
		if response, err = target.deliver(clone(command), r); err != nil {
			break
		}
	}
	if _, _, lost := target.net.pass(target, w.address); lost != nil {
		return nil, lost
	}
	return response, err
}

// lateBy is how late a late message is at most.
const lateBy = 200 * time.Millisecond

// clone returns a message that shares nothing which its sender writes to again.
func clone(command any) any {
	if a, ok := command.(*raft.AppendEntriesRequest); ok {
		c := *a
		return &c
	}
	return command
}

// deliver gives a message to the node whose end this is.
func (w *wire) deliver(command any, r io.Reader) (any, error) {
	gone := false
	w.net.set(func(n *network) { gone = n.nodes[w.address] != w })
	if gone {
		return nil, errUnreachable
	}
	answers := make(chan raft.RPCResponse, 1)
	timeout := time.After(callPatience)
	rpc := raft.RPC{Command: command, Reader: r, RespChan: answers}
	to := w.consumer
	handle := w.heartbeat.Load()
	if a, ok := command.(*raft.AppendEntriesRequest); ok && handle != nil && len(a.Entries) == 0 && a.PrevLogEntry == 0 && a.LeaderCommitIndex == 0 {
		to = nil
		go (*handle)(rpc)
	}
	select {
	case to <- rpc:
	case answer := <-answers:
		return answer.Response, answer.Error
	case <-timeout:
		return nil, errCut
	}
	select {
	case answer := <-answers:
		return answer.Response, answer.Error
	case <-timeout:
		return nil, errCut
	}
}

// callPatience is how long a message may take.
const callPatience = 2 * time.Second

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func answer[T any](w *wire, to raft.ServerAddress, command any, r io.Reader, resp *T) error {
	got, err := w.call(to, command, r)
	if err == nil {
		*resp = *got.(*T)
	}
	return err
}

func (w *wire) Consumer() <-chan raft.RPC     { return w.consumer }
func (w *wire) LocalAddr() raft.ServerAddress { return raft.ServerAddress(w.address) }
func (w *wire) AppendEntriesPipeline(_ raft.ServerID, to raft.ServerAddress) (raft.AppendPipeline, error) {
	if !w.pipelined {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	p := &testPipeline{w: w, to: to, queue: make(chan *appending), done: make(chan raft.AppendFuture), closed: make(chan struct{})}
	go p.run()
	return p, nil
}
func (w *wire) AppendEntries(_ raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return answer(w, to, args, nil, resp)
}
func (w *wire) RequestVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return answer(w, to, args, nil, resp)
}
func (w *wire) RequestPreVote(_ raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return answer(w, to, args, nil, resp)
}
func (w *wire) InstallSnapshot(_ raft.ServerID, to raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return answer(w, to, args, data, resp)
}
func (w *wire) TimeoutNow(_ raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return answer(w, to, args, nil, resp)
}
func (w *wire) EncodePeer(_ raft.ServerID, a raft.ServerAddress) []byte { return []byte(a) }
func (w *wire) DecodePeer(b []byte) raft.ServerAddress                  { return raft.ServerAddress(b) }
func (w *wire) SetHeartbeatHandler(handle func(raft.RPC))               { w.heartbeat.Store(&handle) }

// testPipeline sends a message before the answer to the one before is there, and takes no more than raft.NetworkTransport does.
type testPipeline struct {
	w      *wire
	to     raft.ServerAddress
	queue  chan *appending
	done   chan raft.AppendFuture
	closed chan struct{}
}

// appending implements raft.AppendFuture.
type appending struct {
	start time.Time
	args  *raft.AppendEntriesRequest
	resp  *raft.AppendEntriesResponse
	ended chan struct{}
	err   error
}

func (a *appending) Error() error                          { <-a.ended; return a.err }
func (a *appending) Start() time.Time                      { return a.start }
func (a *appending) Request() *raft.AppendEntriesRequest   { return a.args }
func (a *appending) Response() *raft.AppendEntriesResponse { return a.resp }

func (p *testPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	a := &appending{start: time.Now(), args: args, resp: resp, ended: make(chan struct{})}
	select {
	case p.queue <- a:
		return a, nil
	case <-p.closed:
		return nil, raft.ErrPipelineShutdown
	}
}
func (p *testPipeline) Consumer() <-chan raft.AppendFuture { return p.done }
func (p *testPipeline) Close() error                       { close(p.closed); return nil }
func (p *testPipeline) run() {
	for {
		select {
		case <-p.closed:
			return
		case a := <-p.queue:
			a.err = answer(p.w, p.to, a.args, nil, a.resp)
			close(a.ended)
			select {
			case p.done <- a:
			case <-p.closed:
				return
			}
		}
	}
}

// awaits waits until messages from one node to another are not held, and returns false if ctx ends before.
func (n *network) awaits(ctx context.Context, from, to string) bool {
	n.mu.Lock()
	held := n.held[[2]string{from, to}]
	n.mu.Unlock()
	if held == nil {
		return true
	}
	select {
	case <-held:
		return true
	case <-ctx.Done():
		return false
	}
}

// Call implements Peers.
func (w *wire) Call(ctx context.Context, to string, method byte, body []byte) ([]byte, error) {
	if !w.net.awaits(ctx, w.address, to) {
		return nil, errCut
	}
	target, twice, err := w.net.pass(w, to)
	if err != nil {
		return nil, err
	}
	g := target.group.Load()
	if g == nil {
		return nil, errUnreachable
	}
	b, err := g.HandleCall(ctx, method, body)
	if twice {
		b, err = g.HandleCall(ctx, method, body)
	}
	if !w.net.awaits(ctx, to, w.address) {
		return nil, errCut
	}
	if _, _, lost := target.net.pass(target, w.address); lost != nil {
		return nil, errCut
	}
	return b, err
}

// Unreachable implements Peers.
func (w *wire) Unreachable(err error) bool { return errors.Is(err, errUnreachable) }

// memLogs is a log store whose content survives a crash.
type memLogs struct {
	mu      sync.Mutex
	dead    bool
	stall   chan struct{} // not nil: writes wait for it
	slow    time.Duration // that a write takes
	fault   error         // of all writes of entries from now on
	entries map[uint64]*raft.Log
	first   uint64
	last    uint64
	bytes   uint64
	values  map[string]string
}

func newMemLogs() *memLogs {
	return &memLogs{entries: map[uint64]*raft.Log{}, values: map[string]string{}}
}

// crash returns what a new process finds, and takes nothing more of the old one.
func (m *memLogs) crash() *memLogs {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	return m.copy()
}

func (m *memLogs) copy() *memLogs {
	return &memLogs{entries: maps.Clone(m.entries), first: m.first, last: m.last, bytes: m.bytes, values: maps.Clone(m.values)}
}

var errDead = errors.New("the process is dead")

func (m *memLogs) lock() error {
	m.mu.Lock()
	stall, slow := m.stall, m.slow
	m.mu.Unlock()
	if stall != nil {
		<-stall
	}
	time.Sleep(slow)
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	return nil
}

func (m *memLogs) set(f func(m *memLogs)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m)
}

// hang makes writes wait until the function that it returns is called.
func (m *memLogs) hang() (end func()) {
	stall := make(chan struct{})
	m.set(func(m *memLogs) { m.stall = stall })
	return sync.OnceFunc(func() {
		m.set(func(m *memLogs) {
			if m.stall == stall {
				m.stall = nil
			}
		})
		close(stall)
	})
}

func (m *memLogs) FirstIndex() (uint64, error) { m.mu.Lock(); defer m.mu.Unlock(); return m.first, nil }
func (m *memLogs) LastIndex() (uint64, error)  { m.mu.Lock(); defer m.mu.Unlock(); return m.last, nil }
func (m *memLogs) Bytes() uint64               { m.mu.Lock(); defer m.mu.Unlock(); return m.bytes }
func (m *memLogs) GetLog(i uint64, l *raft.Log) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[i]
	if e == nil {
		return raft.ErrLogNotFound
	}
	*l = *e
	return nil
}
func (m *memLogs) StoreLog(l *raft.Log) error { return m.StoreLogs([]*raft.Log{l}) }
func (m *memLogs) StoreLogs(logs []*raft.Log) error {
	if err := m.lock(); err != nil {
		return err
	}
	defer m.mu.Unlock()
	if m.fault != nil {
		return m.fault
	}
	for _, l := range logs {
		if old := m.entries[l.Index]; old != nil {
			m.bytes -= uint64(len(old.Data))
		}
		c := *l
		m.entries[l.Index] = &c
		m.bytes += uint64(len(l.Data))
		if m.first == 0 {
			m.first = l.Index
		}
		m.last = max(m.last, l.Index)
	}
	return nil
}
func (m *memLogs) DeleteRange(lo, hi uint64) error {
	if err := m.lock(); err != nil {
		return err
	}
	defer m.mu.Unlock()
	for i := lo; i <= hi; i++ {
		if e := m.entries[i]; e != nil {
			m.bytes -= uint64(len(e.Data))
			delete(m.entries, i)
		}
	}
	m.first, m.last = 0, 0
	for i := range m.entries {
		if m.first == 0 || i < m.first {
			m.first = i
		}
		m.last = max(m.last, i)
	}
	return nil
}
func (m *memLogs) ResetLog() error {
	last, _ := m.LastIndex()
	return m.DeleteRange(0, last)
}
func (m *memLogs) Set(k, v []byte) error {
	if m.lock() != nil {
		return nil // no answer of a dead process gets out, and Raft would panic
	}
	defer m.mu.Unlock()
	m.values[string(k)] = string(v)
	return nil
}
func (m *memLogs) Get(k []byte) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, ok := m.values[string(k)]
	if !ok {
		return nil, errors.New("not found")
	}
	return []byte(v), nil
}
func (m *memLogs) SetUint64(k []byte, v uint64) error {
	return m.Set(k, []byte(strconv.FormatUint(v, 10)))
}
func (m *memLogs) GetUint64(k []byte) (uint64, error) {
	b, err := m.Get(k)
	if err != nil {
		return 0, nil
	}
	return strconv.ParseUint(string(b), 10, 64)
}

// kvCommand is a command of a test.
type kvCommand struct {
	Op   string // put, cas, delete, get, add, append, refuse
	Key  string
	Old  string
	New  string
	Fill string // for its size
}

// kvImage is what a kvState is.
type kvImage struct {
	Index, Time int64
	Values      map[string]string
	Added       map[string]int // how often
	Hash        uint64         // of all commands, in order
}

func (i *kvImage) clone() *kvImage {
	c := *i
	c.Values, c.Added = maps.Clone(i.Values), maps.Clone(i.Added)
	return &c
}

// kvState is a State. What it has applied since it last wrote to its disk a crash takes away.
type kvState struct {
	fs    vfs.FS
	mu    sync.Mutex
	rng   *rand.Rand
	live  *kvImage
	disk  *kvImage
	fault error // of the next Apply
	full  error // of the next Checkpoint
}

func newKVState(fs vfs.FS, rng *rand.Rand, disk *kvImage) *kvState {
	if disk == nil {
		disk = &kvImage{Values: map[string]string{}, Added: map[string]int{}}
	}
	return &kvState{fs: fs, rng: rng, live: disk.clone(), disk: disk}
}

func (s *kvState) LastApplied() (uint64, int64, error) { return uint64(s.live.Index), s.live.Time, nil }

func (s *kvState) Apply(entries []vectord.Entry) ([]vectord.Result, func() error, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		return nil, nil, s.fault
	}
	results := make([]vectord.Result, len(entries))
	for i, e := range entries {
		if int64(e.Index) <= s.live.Index || e.Time < s.live.Time {
			return nil, nil, fmt.Errorf("entry %d at %d after %d at %d", e.Index, e.Time, s.live.Index, s.live.Time)
		}
		var c kvCommand
		if err := json.Unmarshal(e.Command, &c); err != nil {
			return nil, nil, err
		}
		s.live.Index, s.live.Time = int64(e.Index), e.Time
		results[i] = vectord.Result{Index: e.Index}
		if c.Op == "refuse" {
			results[i].Err = vectord.Errorf(vectord.KindInvalid, "refused")
			continue
		}
		results[i].Value = s.live.apply(c)
	}
	if s.rng.IntN(8) == 0 {
		s.disk = s.live.clone()
	}
	return results, func() error { return nil }, nil
}

func (i *kvImage) apply(c kvCommand) any {
	h := fnv.New64a()
	fmt.Fprint(h, i.Hash, i.Index, i.Time, c)
	i.Hash = h.Sum64()
	switch c.Op {
	case "put":
		i.Values[c.Key] = c.New
	case "delete":
		delete(i.Values, c.Key)
	case "cas":
		if i.Values[c.Key] != c.Old {
			return false
		}
		i.Values[c.Key] = c.New
		return true
	case "append":
		i.Values[c.Key] += c.New
	case "get":
		return i.Values[c.Key]
	case "add":
		i.Added[c.Key]++
	}
	return nil
}

func (s *kvState) get(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live.Values[key]
}

func (s *kvState) image() *kvImage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live.clone()
}

func (s *kvState) Checkpoint(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		return s.full
	}
	s.disk = s.live.clone()
	b, err := json.Marshal(s.live)
	if err != nil {
		return err
	}
	if err := s.fs.MkdirAll(s.fs.PathJoin(dir, "sub"), 0o700); err != nil {
		return err
	}
	f, err := s.fs.Create(s.fs.PathJoin(dir, "sub", "image"), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close(), fsync.Dir(s.fs, s.fs.PathJoin(dir, "sub")), fsync.Dir(s.fs, dir))
}

func readImage(fs vfs.FS, dir string) (*kvImage, error) {
	f, err := fs.Open(fs.PathJoin(dir, "sub", "image"))
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(f)
	var i kvImage
	return &i, errors.Join(err, f.Close(), json.Unmarshal(b, &i))
}

// testNode is a node that may crash and come back.
type testNode struct {
	c     *cluster
	id    string // and address
	mu    sync.Mutex
	fs    *vfs.MemFS
	logs  *memLogs
	state *kvState
	group *Group // nil while it is down
	wire  *wire
	fatal atomic.Pointer[error]
	o     Options
	tail  sync.WaitGroup
}

// cluster is a group of nodes in this process.
type cluster struct {
	t     *testing.T
	rng   *rand.Rand
	rngMu sync.Mutex
	net   *network
	nodes []*testNode
	o     Options
	// pipelined is what all nodes are, as the seed has it.
	pipelined bool
	tune      func(n *testNode) // before a node starts for the first time; nil: nothing
}

const testHeartbeat = 100 * time.Millisecond

// newCluster returns n running nodes; the first was the group's beginning.
func newCluster(t *testing.T, n int, o Options) *cluster {
	t.Helper()
	return tunedCluster(t, n, o, nil)
}

// tunedCluster is newCluster for nodes that differ.
func tunedCluster(t *testing.T, n int, o Options, tune func(n *testNode)) *cluster {
	t.Helper()
	rng := seed(t)
	c := &cluster{t: t, rng: rng, net: newNetwork(rng), o: o, pipelined: rng.IntN(2) == 0, tune: tune}
	t.Cleanup(c.close)
	for i := range n {
		c.add(fmt.Sprintf("n%d", i), i == 0)
	}
	leader := c.leader()
	for _, node := range c.nodes[1:] {
		if err := leader.get().Add(node.id, node.id); err != nil {
			t.Fatal(err)
		}
	}
	c.voters(n)
	return c
}

func (c *cluster) add(id string, first bool) *testNode {
	c.t.Helper()
	n := &testNode{c: c, id: id, fs: vfs.NewCrashableMem(), logs: newMemLogs()}
	c.nodes = append(c.nodes, n)
	n.state = newKVState(n.fs, c.random(), nil)
	n.o = c.o
	n.o.ID, n.o.Address, n.o.FS, n.o.SnapshotDir = id, id, n.fs, "data/snapshots"
	if n.o.Heartbeat == 0 {
		n.o.Heartbeat = testHeartbeat
	}
	n.o.Logger = slog.New(slog.DiscardHandler)
	if os.Getenv("VECTORD_TRACE") != "" {
		n.o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", id)
	}
	n.o.Fatal = func(err error) { n.fatal.Store(&err) }
	if c.tune != nil {
		c.tune(n)
	}
	if first {
		o := n.o
		o.Logs = n.logs
		if err := Bootstrap(n.state, o); err != nil {
			c.t.Fatal(err)
		}
	}
	n.start()
	return n
}

func (c *cluster) random() *rand.Rand {
	c.rngMu.Lock()
	defer c.rngMu.Unlock()
	return rand.New(rand.NewPCG(c.rng.Uint64(), c.rng.Uint64()))
}

// start opens the node on what it has.
func (n *testNode) start() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open()
}

func (n *testNode) open() {
	o := n.o
	n.wire = n.c.net.connect(n.id, n.c.pipelined)
	o.Logs, o.Transport, o.Peers = n.logs, n.wire, n.wire
	index, _, _ := n.state.LastApplied()
	dir, ok, err := Pending(o, index)
	if errors.Is(err, errPowerCut) {
		return
	} else if err != nil {
		n.c.t.Error(err)
		return
	}
	if ok {
		image, err := readImage(n.fs, dir)
		if err != nil {
			n.c.t.Error(err)
			return
		}
		n.state = newKVState(n.fs, n.c.random(), image)
	}
	logs := n.logs
	o.Reopen = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.group == nil || n.logs != logs {
			return // it crashed meanwhile
		}
		n.stop()
		n.open()
	}
	g, err := Open(n.state, o)
	if errors.Is(err, errPowerCut) {
		return
	} else if err != nil {
		n.c.t.Errorf("%s: %v", n.id, err)
		return
	}
	n.group = g
	n.wire.group.Store(g)
}

// errPowerCut is what all operations on a disk give from a moment on.
var errPowerCut = errors.New("power cut")

// stop closes the node in order. n.mu is held.
func (n *testNode) stop() {
	g := n.group
	n.group = nil
	if err := g.Close(); err != nil {
		n.c.t.Errorf("%s: close: %v", n.id, err)
	}
	n.wire.group.Store(nil)
	n.c.net.disconnect(n.id)
}

// shut stops the node in order.
func (n *testNode) shut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.group != nil {
		n.stop()
	}
}

// crash ends the node as a power cut does.
func (n *testNode) crash() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.group == nil {
		return
	}
	n.c.net.disconnect(n.id)
	n.wire.group.Store(nil)
	g := n.group
	n.group = nil
	n.logs = n.logs.crash()
	rng := n.c.random()
	n.fs = n.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
	n.o.FS = n.fs
	n.state.mu.Lock()
	disk := n.state.disk
	n.state.fault = errDead
	n.state.mu.Unlock()
	n.state = newKVState(n.fs, n.c.random(), disk)
	n.tail.Go(func() { _ = g.Close() }) // what is left of the process
}

// get returns the node's group, nil while it is down.
func (n *testNode) get() *Group {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.group
}

func (n *testNode) kv() *kvState {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.state
}

func (c *cluster) close() {
	c.net.heal()
	var wg sync.WaitGroup
	for _, n := range c.nodes {
		wg.Go(n.shut)
	}
	wg.Wait()
	for _, n := range c.nodes {
		n.tail.Wait()
		if err := n.fatal.Load(); err != nil && !errors.Is(*err, errDead) {
			c.t.Errorf("%s: %v", n.id, *err)
		}
	}
}

const testPatience = 30 * time.Second

// eventually waits until something holds.
func (c *cluster) eventually(what string, holds func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(testPatience)
	for !holds() {
		if time.Now().After(deadline) {
			for _, n := range c.nodes {
				if g := n.get(); g != nil {
					members, _ := g.Members()
					c.t.Logf("%s: %+v %+v", n.id, g.Status(), members)
				}
			}
			c.t.Fatalf("not within %v: %s", testPatience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// leader waits until a node leads in the highest term.
func (c *cluster) leader() (leader *testNode) {
	c.t.Helper()
	c.eventually("a leader", func() bool {
		leader = nil
		var high uint64
		for _, n := range c.nodes {
			if g := n.get(); g != nil {
				if s := g.Status(); s.Leading && s.Term > high {
					leader, high = n, s.Term
				}
			}
		}
		return leader != nil
	})
	return leader
}

// voters waits until there are so many.
func (c *cluster) voters(n int) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%d voters", n), func() bool {
		members, err := c.leader().get().Members()
		return err == nil && len(slices.DeleteFunc(members, func(m Member) bool { return !m.Voter })) == n
	})
}

func (c *cluster) followers() []*testNode {
	leader := c.leader()
	return slices.DeleteFunc(slices.Clone(c.nodes), func(n *testNode) bool { return n == leader })
}

func encode(c kvCommand) []byte {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return b
}

func (n *testNode) do(ctx context.Context, c kvCommand) (vectord.Result, error) {
	g := n.get()
	if g == nil {
		return vectord.Result{}, vectord.Errorf(vectord.KindClosed, "%s is down", n.id)
	}
	return g.Propose(ctx, 1, encode(c))
}

func (n *testNode) must(c kvCommand) vectord.Result {
	n.c.t.Helper()
	ctx, cancel := context.WithTimeout(n.c.t.Context(), testPatience)
	defer cancel()
	r, err := n.do(ctx, c)
	if err != nil {
		n.c.t.Fatalf("%s: %+v: %v", n.id, c, err)
	}
	return r
}

// same waits until all nodes have the same state, and returns it.
func (c *cluster) same() *kvImage {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), testPatience)
	defer cancel()
	leader := c.leader()
	index, err := leader.get().Barrier(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	var first *kvImage
	for _, n := range c.nodes {
		c.eventually(n.id+" has it all", func() bool {
			g := n.get()
			if g == nil {
				return false
			}
			ctx, cancel := context.WithTimeout(c.t.Context(), time.Second)
			defer cancel()
			return g.Applied(ctx, index) == nil
		})
		image := n.kv().image()
		if first == nil {
			first = image
		} else if image.Hash != first.Hash || !maps.Equal(image.Values, first.Values) || !maps.Equal(image.Added, first.Added) {
			c.t.Fatalf("%s differs from %s: %+v and %+v", n.id, c.nodes[0].id, image, first)
		}
	}
	return first
}
