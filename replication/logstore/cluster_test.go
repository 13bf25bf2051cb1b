package logstore

import (
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// digest is a state machine that remembers how many commands it was given and a checksum over them in order.
type digest struct {
	mu    sync.Mutex // guards what follows
	count int
	sum   uint32
}

func (d *digest) Apply(l *raft.Log) any {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count++
	d.sum = crc32.Update(d.sum, castagnoli, l.Data)
	return nil
}

func (d *digest) String() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return fmt.Sprintf("%d commands, %08x", d.count, d.sum)
}

func (d *digest) Snapshot() (raft.FSMSnapshot, error) { return digestSnapshot(d.String()), nil }

func (d *digest) Restore(r io.ReadCloser) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, err := fmt.Fscanf(r, "%d commands, %x", &d.count, &d.sum)
	return err
}

type digestSnapshot string

func (s digestSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := io.WriteString(sink, string(s)); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

func (digestSnapshot) Release() {}

// member is one node of a cluster in this process. Its snapshots stay in memory over a restart, as its disk would keep them.
type member struct {
	id        raft.ServerID
	dir       string
	snapshots raft.SnapshotStore

	store     *Store
	group     *Group
	transport *raft.InmemTransport
	state     *digest
	raft      *raft.Raft
}

type cluster struct {
	t       *testing.T
	kind    Kind
	members []*member
}

const (
	clusterGroup = 3
	clusterWait  = 30 * time.Second // for anything that has to happen in the end
	trailingLogs = 5
)

func (c *cluster) start(m *member) {
	c.t.Helper()
	m.store = open(c.t, c.kind, m.dir, Options{})
	m.group = group(c.t, m.store, clusterGroup)
	m.state = new(digest)
	_, m.transport = raft.NewInmemTransport(raft.ServerAddress(m.id))
	for _, other := range c.members {
		if other != m && other.raft != nil {
			m.transport.Connect(raft.ServerAddress(other.id), other.transport)
			other.transport.Connect(raft.ServerAddress(m.id), m.transport)
		}
	}
	config := raft.DefaultConfig()
	config.LocalID = m.id
	config.Logger = hclog.NewNullLogger()
	config.TrailingLogs = trailingLogs
	config.HeartbeatTimeout, config.ElectionTimeout, config.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
	config.CommitTimeout = 5 * time.Millisecond
	existing, err := raft.HasExistingState(m.group, m.group, m.snapshots)
	must(c.t, err)
	if !existing {
		var servers []raft.Server
		for _, m := range c.members {
			servers = append(servers, raft.Server{ID: m.id, Address: raft.ServerAddress(m.id)})
		}
		must(c.t, raft.BootstrapCluster(config, m.group, m.group, m.snapshots, m.transport, raft.Configuration{Servers: servers}))
	}
	m.raft, err = raft.NewRaft(config, m.state, m.group, m.group, m.snapshots, m.transport)
	must(c.t, err)
}

func (c *cluster) stop(m *member) {
	c.t.Helper()
	must(c.t, m.raft.Shutdown().Error())
	m.raft = nil
	for _, other := range c.members {
		other.transport.Disconnect(raft.ServerAddress(m.id))
	}
	closeStore(c.t, m.store)
}

// eventually polls a condition that other goroutines bring about.
func (c *cluster) eventually(what string, done func() bool) {
	c.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(clusterWait); !done(); <-tick.C {
		if time.Now().After(deadline) {
			for _, m := range c.members {
				c.t.Logf("%s: %v, %v", m.id, m.state, m.raft)
			}
			c.t.Fatalf("not within %v: %s", clusterWait, what)
		}
	}
}

func (c *cluster) leader() (leader *member) {
	c.t.Helper()
	c.eventually("a leader", func() bool {
		for _, m := range c.members {
			if m.raft != nil && m.raft.State() == raft.Leader {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// propose has some commands applied, by whoever leads.
func (c *cluster) propose(n int) {
	c.t.Helper()
	for i := range n {
		c.eventually("a command applied", func() bool {
			return c.leader().raft.Apply(fmt.Appendf(nil, "command %d", i), clusterWait).Error() == nil
		})
	}
}

func (c *cluster) agree() {
	c.t.Helper()
	leader := c.leader()
	c.eventually("the same state everywhere", func() bool {
		for _, m := range c.members {
			if m.raft != nil && m.state.String() != leader.state.String() {
				return false
			}
		}
		return true
	})
}

// TestCluster runs three real nodes: commands, a follower restarted from its log, one that was away for so long that it
// gets a snapshot, truncation, and all of them restarted at once.
func TestCluster(t *testing.T) {
	forKinds(t, func(t *testing.T, kind Kind, _ func() *Store) {
		dir := t.TempDir()
		c := &cluster{t: t, kind: kind}
		for _, id := range []raft.ServerID{"a", "b", "c"} {
			c.members = append(c.members, &member{id: id, dir: filepath.Join(dir, string(id)), snapshots: raft.NewInmemSnapshotStore()})
		}
		for _, m := range c.members {
			c.start(m)
		}
		c.propose(30)
		c.agree()

		follower := c.members[0]
		if follower == c.leader() {
			follower = c.members[1]
		}
		c.stop(follower)
		c.propose(30)
		c.start(follower)
		c.agree()

		// Away while the leader truncates its log: the follower gets a snapshot, and has a gap in its log from then on.
		c.stop(follower)
		c.propose(50)
		leader := c.leader()
		bytesBefore := leader.group.Bytes()
		must(t, leader.raft.Snapshot().Error())
		first, err := leader.group.FirstIndex()
		must(t, err)
		if first < 50 || leader.group.Bytes() >= bytesBefore {
			t.Errorf("after the snapshot the log begins at %d, with %d bytes in place of %d", first, leader.group.Bytes(), bytesBefore)
		}
		c.start(follower)
		c.propose(10)
		c.agree()
		if snapshots, err := follower.snapshots.List(); err != nil || len(snapshots) == 0 || snapshots[0].Index == 0 {
			t.Errorf("the follower has snapshots %v, %v", snapshots, err)
		}
		must(t, follower.raft.Snapshot().Error())
		c.propose(10)
		c.agree()

		// All at once. Nobody's term goes back.
		want := c.leader().state.String()
		terms := make(map[raft.ServerID]uint64)
		for _, m := range c.members {
			terms[m.id] = m.raft.CurrentTerm()
			c.stop(m)
		}
		for _, m := range c.members {
			c.start(m)
			if term := m.raft.CurrentTerm(); term < terms[m.id] {
				t.Errorf("term %d of %s, it was %d", term, m.id, terms[m.id])
			}
		}
		must(t, c.leader().raft.Barrier(clusterWait).Error())
		c.agree()
		if got := c.leader().state.String(); got != want {
			t.Errorf("after the restart: %s, want %s", got, want)
		}
		for _, m := range c.members {
			c.stop(m)
		}
	})
}
