package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vectord/vectord"
)

// mustGroup opens a group.
func mustGroup(t testing.TB, n *Transport, id uint32) raft.StreamLayer {
	t.Helper()
	g, err := n.Group(id)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// TestGroup: a stream ends up in its own group and carries bytes both ways; and a group that is closed can be opened again.
func TestGroup(t *testing.T) {
	p := newPair(t, Options{})
	address := raft.ServerAddress(p.address())
	from, to, other := mustGroup(t, p.caller, 7), mustGroup(t, p.server, 7), mustGroup(t, p.server, 8)
	if _, err := p.server.Group(7); vectord.KindOf(err) != vectord.KindExists {
		t.Errorf("a group that is open: %v", err)
	}
	if to.Addr().String() != p.address() {
		t.Errorf("the group's address is %s", to.Addr())
	}
	exchange := func(from, to raft.StreamLayer) (here, there net.Conn) {
		t.Helper()
		here, err := from.Dial(address, 0)
		if err != nil {
			t.Fatal(err)
		}
		there, err = to.Accept()
		if err != nil {
			t.Fatal(err)
		}
		for _, pair := range [][2]net.Conn{{here, there}, {there, here}} {
			sent, got := pattern(100_000), make([]byte, 100_000)
			go pair[0].Write(sent)
			if _, err := io.ReadFull(pair[1], got); err != nil || string(got) != string(sent) {
				t.Fatalf("stream: %v", err)
			}
		}
		return here, there
	}
	here, there := exchange(from, to)
	here.Close()
	if _, err := there.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("read after the other side has closed: %v", err)
	}
	here, there = exchange(from, to)
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	for _, conn := range []net.Conn{here, there} {
		conn.SetDeadline(time.Now().Add(patience))
		if n, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, errTimeout(err)) {
			t.Errorf("read of a stream of a closed group: %d, %v", n, err)
		}
	}
	if _, err := to.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept in a closed group: %v", err)
	}
	if _, err := to.Dial(address, 0); err == nil {
		t.Error("dial from a closed group")
	}
	start := time.Now()
	if _, err := from.Dial(address, 0); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("dial to a closed group: %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %s to be refused", took)
	}
	to.Close() // again, has no effect
	to = mustGroup(t, p.server, 7)
	exchange(from, to)
	select {
	case <-other.(*group).accepted:
		t.Error("another group has got a stream")
	default:
	}
}

// errTimeout returns err if it is a timeout, or else an error that it is not.
func errTimeout(err error) error {
	if n, ok := err.(net.Error); ok && n.Timeout() {
		return err
	}
	return errors.New("another error")
}

// TestAcceptIsBounded: nobody fills a node with streams that its group does not accept.
func TestAcceptIsBounded(t *testing.T) {
	p := newPair(t, Options{})
	from, to := mustGroup(t, p.caller, 1), mustGroup(t, p.server, 1)
	dial := func() error {
		_, err := from.Dial(raft.ServerAddress(p.address()), 0)
		return err
	}
	for range acceptMax {
		if err := dial(); err != nil {
			t.Fatal(err)
		}
	}
	if err := dial(); vectord.KindOf(err) != vectord.KindOverloaded {
		t.Errorf("one too many: %v", err)
	}
	if _, err := to.Accept(); err != nil {
		t.Fatal(err)
	}
	if err := dial(); err != nil {
		t.Errorf("after an accept: %v", err)
	}
	if n := p.server.inbound.Load(); n != acceptMax+1 {
		t.Errorf("%d connections are counted", n)
	}
	to.Close()
	if n := p.server.inbound.Load(); n != 0 {
		t.Errorf("after Close %d connections are counted", n)
	}
}

// TestGroupsComeAndGo opens and closes groups while others dial them, and then looks for what is left.
func TestGroupsComeAndGo(t *testing.T) {
	p := newPair(t, Options{})
	from := mustGroup(t, p.caller, 1)
	stop := make(chan struct{})
	var dialling sync.WaitGroup
	for range 4 {
		dialling.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				conn, err := from.Dial(raft.ServerAddress(p.address()), patience)
				if err == nil {
					conn.Write([]byte("x"))
					conn.Close()
				} else if k := vectord.KindOf(err); k != vectord.KindNotFound && k != vectord.KindOverloaded {
					t.Errorf("dial: %v", err)
				}
			}
		})
	}
	for range 100 {
		to := mustGroup(t, p.server, 1)
		if conn, err := to.Accept(); err == nil {
			go to.Close()
			io.Copy(io.Discard, conn)
		}
		to.Close()
	}
	close(stop)
	dialling.Wait()
	from.Close()
	until(t, "no connections are counted", func() bool { return p.server.inbound.Load() == 0 })
}

// counter is a raft.FSM that counts the commands that it has applied.
type counter struct {
	mu      sync.Mutex
	applied int
}

func (c *counter) Apply(*raft.Log) any {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.applied++
	return c.applied
}

func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applied
}

func (c *counter) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("no snapshots here") }
func (c *counter) Restore(io.ReadCloser) error         { return errors.New("no snapshots here") }

// member is one node's part in a Raft group. Its stores outlive a rebuild.
type member struct {
	raft  *raft.Raft
	store *raft.InmemStore
	fsm   *counter
}

// start builds the Raft instance over the node's group.
func (m *member) start(t testing.TB, n *Transport, id uint32) {
	t.Helper()
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.Addr().String())
	c.Logger = hclog.NewNullLogger()
	m.fsm = &counter{}
	var err error
	m.raft, err = raft.NewRaft(c, m.fsm, m.store, m.store, raft.NewInmemSnapshotStore(),
		NewRaftTransport(mustGroup(t, n, id), c.Logger))
	if err != nil {
		t.Fatal(err)
	}
}

// TestRaft runs three groups of three nodes over one port a node, rebuilds a member of one group, and takes a node away.
func TestRaft(t *testing.T) {
	const nodes, groups = 3, 3
	var transports [nodes]*Transport
	for i := range transports {
		transports[i] = echoes(listen(t, Options{Security: Security{Secret: secret}, Registerer: prometheus.NewRegistry()}))
	}
	var servers []raft.Server
	for _, n := range transports {
		servers = append(servers, raft.Server{ID: raft.ServerID(n.Addr().String()), Address: raft.ServerAddress(n.Addr().String())})
	}
	var members [groups][nodes]*member
	for g := range members {
		for i, n := range transports {
			m := &member{store: raft.NewInmemStore()}
			m.start(t, n, uint32(g))
			defer func() { m.raft.Shutdown().Error() }()
			members[g][i] = m
		}
		if err := members[g][0].raft.BootstrapCluster(raft.Configuration{Servers: servers}).Error(); err != nil {
			t.Fatal(err)
		}
	}
	// propose commits a command in a group, with whichever member leads it.
	propose := func(g int) *member {
		t.Helper()
		var last error
		for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			for _, m := range members[g] {
				if m.raft.State() == raft.Leader {
					if last = m.raft.Apply([]byte("x"), patience).Error(); last == nil {
						return m
					}
				}
			}
		}
		t.Fatalf("group %d commits nothing: %v", g, last)
		return nil
	}
	applied := func(g, n int) {
		t.Helper()
		for _, m := range members[g] {
			if m.raft.State() == raft.Shutdown {
				continue
			}
			until(t, fmt.Sprintf("group %d has applied %d", g, n), func() bool { return m.fsm.count() >= n })
		}
	}
	const commands = 50
	for g := range groups {
		for range commands {
			propose(g)
		}
		applied(g, commands)
	}

	// The leader of group 1 goes, the others go on, and it comes back under the same number.
	leader := propose(1)
	if err := leader.raft.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	propose(1)
	propose(0)
	propose(2)
	for i, m := range members[1] {
		if m == leader {
			m.start(t, transports[i], 1)
		}
	}
	propose(1)
	applied(1, commands+3)
	applied(0, commands+1)

	// A node goes, with all of its groups.
	for g := range groups {
		members[g][2].raft.Shutdown().Error()
	}
	transports[2].Close()
	for g := range groups {
		propose(g)
		applied(g, commands+2)
	}
	if _, err := transports[0].Call(t.Context(), transports[1].Addr().String(), methodEcho, nil); err != nil {
		t.Errorf("a call beside the groups: %v", err)
	}
	gathered, err := transports[0].o.Registerer.(*prometheus.Registry).Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, family := range gathered {
		names = append(names, family.GetName())
		if family.GetName() == "vectord_transport_connections" {
			if n := family.GetMetric()[1].GetGauge().GetValue(); n < groups {
				t.Errorf("%v streams of Raft are open", n)
			}
		}
	}
	for _, name := range []string{"bytes_total", "call_seconds", "calls_total", "connections", "handled_total", "handlers"} {
		if !slices.Contains(names, "vectord_transport_"+name) {
			t.Errorf("no metric %s in %q", name, names)
		}
	}
}
