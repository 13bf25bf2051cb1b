// Package group is the replicated log: the replicas of one log form a group and agree by Raft (Ongaro and Ousterhout, In Search
// of an Understandable Consensus Algorithm, 2014), for which it uses hashicorp/raft.
//
// # The way of a proposal
//
// Whoever proposes, on whatever node, is the proposal's origin. It sends the operation to the leader and waits until its own
// replica applies it, which gives the result: results never travel, and what a node acknowledged it can read. The leader puts
// the operations that wait into one entry of the Raft log, so that the cost of an entry (one write and fsync on each replica,
// one message to each follower) is shared by thousands.
//
// # What happens to a proposal when a leader falls
//
// An entry carries the term in which it was proposed and counts only if Raft appended it in that same term. Terms never fall
// along the log, and a leader's first entry in its term is an empty one of ours. So when an origin applies an entry of a later
// term than the one that it proposed in, it knows: what was not applied by now never will be. It proposes it again, to the new
// leader, and the client notices nothing but the delay. The outcome is unknown only if the client's patience or the origin's
// process ends first.
//
// # Indexes
//
// The index of a vectord.Entry is the Raft index of the entry that it came in, times 4,096, plus its place therein. So the
// state, which keeps the index that it applied last, knows which Raft entries it has.
package group

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord/replication"
)

// State is what a group replicates.
type State interface {
	replication.Applier
	// LastApplied returns index and time of the last entry that the state holds, zeros for none. It is called once, first.
	LastApplied() (index uint64, time int64, err error)
	// Checkpoint writes the state as of the last call of Apply, complete and durable, into the folder dir, which it creates.
	// It is called by the goroutine that calls Apply, and should take little time: hard links, not copies.
	Checkpoint(dir string) error
}

// LogStore is where the group keeps its log, its term and its vote.
type LogStore interface {
	raft.LogStore
	raft.StableStore
	// Bytes returns how many bytes the entries take.
	Bytes() uint64
	// ResetLog removes all entries; term and vote stay.
	ResetLog() error
}

// Peers calls other nodes. An error for which Unreachable holds means that the call certainly had no effect.
type Peers interface {
	Call(ctx context.Context, address string, method byte, body []byte) ([]byte, error)
	Unreachable(err error) bool
}

// The methods of calls that a node must bring to HandleCall of its group.
const (
	MethodPropose byte = iota + 1
	MethodTerm
	MethodReadIndex
	MethodApplied
)

// Defaults of Options.
const (
	DefaultBatchBytes       = 256 << 10
	DefaultBatchOperations  = maxOperations
	DefaultQueueBytes       = 64 << 20
	DefaultInFlight         = 2
	DefaultHeartbeat        = time.Second
	DefaultCommitInterval   = 10 * time.Millisecond
	DefaultSnapshotLogBytes = 256 << 20
	DefaultTrailingLogs     = 1024
)

// Options configure a Group. ID, Address, Logs, Transport and Peers are required.
type Options struct {
	ID        string // of the node, for ever
	Address   string // at which other nodes reach Transport and Peers
	Logs      LogStore
	Transport raft.Transport
	Peers     Peers

	FS          vfs.FS // of SnapshotDir; nil: the operating system's
	SnapshotDir string // on the file system of the state, for hard links

	BatchBytes      int           // of commands in one entry; a larger one goes alone; 0: DefaultBatchBytes
	BatchOperations int           // in one entry, at most DefaultBatchOperations; 0: that
	QueueBytes      int           // of commands waiting at the leader, and of the largest one; 0: DefaultQueueBytes
	InFlight        int           // entries on their way at once; 0: DefaultInFlight
	Heartbeat       time.Duration // without one for so long, followers elect another leader; 0: DefaultHeartbeat
	// CommitInterval is how often the leader tells its followers what is committed when there is nothing else to tell them: it
	// delays proposals of followers to an idle log. 0: DefaultCommitInterval
	CommitInterval time.Duration
	// SnapshotLogBytes is how much log there may be before a snapshot is taken and the log before it dropped, except for the
	// last TrailingLogs entries, from which a follower that was away goes on without one. 0: the defaults
	SnapshotLogBytes uint64
	TrailingLogs     uint64

	Now        func() time.Time      // nil: a replication.Clock that goes on after the state's last entry
	Logger     *slog.Logger          // nil: slog.Default()
	Registerer prometheus.Registerer // of the metrics; nil: none
	// Lead is told when this node begins and ends to lead, in turns, by one goroutine that waits for it; nil: nobody is.
	Lead func(leading bool)
	// Reopen is called, once, when this node got a snapshot that is ahead of its state: Close the group and the state, call
	// Adopt, and open both again. The group applies nothing meanwhile.
	Reopen func()
	// Fatal is called once, with the first error after which nothing can be promised, and should not return: nil logs the
	// error and exits with status 1.
	Fatal func(error)
}

func (o Options) withDefaults() Options {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) {
			o.Logger.Error("stopping: the log has failed", "err", err)
			os.Exit(1)
		}
	}
	for _, d := range []struct {
		field *int
		value int
	}{
		{&o.BatchBytes, DefaultBatchBytes},
		{&o.BatchOperations, DefaultBatchOperations},
		{&o.QueueBytes, DefaultQueueBytes},
		{&o.InFlight, DefaultInFlight},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	o.BatchOperations = min(o.BatchOperations, DefaultBatchOperations)
	if o.Heartbeat <= 0 {
		o.Heartbeat = DefaultHeartbeat
	}
	if o.CommitInterval <= 0 {
		o.CommitInterval = DefaultCommitInterval
	}
	if o.SnapshotLogBytes == 0 {
		o.SnapshotLogBytes = DefaultSnapshotLogBytes
	}
	if o.TrailingLogs == 0 {
		o.TrailingLogs = DefaultTrailingLogs
	}
	return o
}

// Group is this node's replica of a log. Its methods may be called from any goroutine.
type Group struct {
	o         Options
	origin    uint64 // of this process's proposals
	raft      *raft.Raft
	logs      *watchedLogs
	snapshots *snapshotStore
	machine   *machine
	metrics   metrics
	notify    chan bool // of raft: leadership won or lost
	closing   chan struct{}
	work      sync.WaitGroup
	closed    atomic.Bool
	failed    atomic.Pointer[error]
	leads     bool // of followLeadership

	proposals proposals
	leader    leader
	reads     reads
}

var _ replication.Log = (*Group)(nil)

// Open opens this node's replica. A node that was part of a group goes on as such; one that was not does nothing until a
// member adds it, or until it is given to Bootstrap before. The caller closes the group, and afterwards state, logs, transport.
func Open(state State, o Options) (*Group, error) {
	o = o.withDefaults()
	index, lastTime, err := state.LastApplied()
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = replication.Clock(lastTime)
	}
	g := &Group{o: o, origin: rand.Uint64(), notify: make(chan bool, 16), closing: make(chan struct{})}
	if g.snapshots, err = openSnapshots(o.FS, o.SnapshotDir); err != nil {
		return nil, err
	}
	if err := prepareLog(o.Logs, g.snapshots); err != nil {
		return nil, err
	}
	g.logs = &watchedLogs{LogStore: o.Logs}
	g.machine = newMachine(g, state, index, lastTime)
	g.leader.init()
	g.proposals.init()
	g.reads.init()
	g.metrics = newMetrics(o.Registerer, g)
	cached, err := raft.NewLogCache(cachedEntries, g.logs)
	if err != nil {
		return nil, err
	}
	if g.raft, err = raft.NewRaft(g.raftConfig(), g.machine, cached, o.Logs, g.snapshots, o.Transport); err != nil {
		return nil, fmt.Errorf("open replicated log: %w", err)
	}
	g.work.Add(4)
	go g.followLeadership()
	go g.sendEntries()
	go g.watch()
	go g.confirmReads()
	return g, nil
}

const (
	// cachedEntries are those that followers who keep up are served from. An entry may have BatchBytes.
	cachedEntries = 64
	// neverByCount leaves it to snapshotLoop to say when a snapshot is taken: entries differ in size by far.
	neverByCount = 1 << 62
)

func (g *Group) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(g.o.ID)
	c.HeartbeatTimeout = g.o.Heartbeat
	c.ElectionTimeout = g.o.Heartbeat
	c.LeaderLeaseTimeout = g.o.Heartbeat / 2
	c.CommitTimeout = g.o.CommitInterval
	c.BatchApplyCh = true
	c.SnapshotThreshold = neverByCount
	c.TrailingLogs = g.o.TrailingLogs
	c.NoSnapshotRestoreOnStart = true
	c.NoLegacyTelemetry = true
	c.ShutdownOnRemove = false
	c.NotifyCh = g.notify
	c.Logger = RaftLogger(g.o.Logger)
	return c
}

// prepareLog drops a log that contradicts the newest snapshot, or ends before it. hashicorp/raft does neither when it installs
// a snapshot (its issue 697), so a node that installed one opens its group again, and comes here. From an entry on that
// contradicts a snapshot nothing was ever committed.
func prepareLog(logs LogStore, snapshots *snapshotStore) error {
	newest, _, err := snapshots.newest() // zeros for none
	if err != nil {
		return err
	}
	first, err := logs.FirstIndex()
	if err != nil {
		return err
	}
	last, err := logs.LastIndex()
	switch {
	case err != nil:
		return err
	case last == 0 || first == newest.Index+1:
		return nil
	case first > newest.Index:
		return fmt.Errorf("the log begins at %d and the newest snapshot ends at %d: what is between is lost", first, newest.Index)
	case last >= newest.Index:
		var at raft.Log
		if err := logs.GetLog(newest.Index, &at); err != nil {
			return fmt.Errorf("entry %d of the log: %w", newest.Index, err)
		}
		if at.Term == newest.Term {
			return nil
		}
	}
	if err := logs.ResetLog(); err != nil {
		return fmt.Errorf("drop the log that the snapshot at %d replaces: %w", newest.Index, err)
	}
	return nil
}

// Close stops taking part, in order: a leader hands over first, if that is quick. Proposals that wait end with an error of
// KindClosed that says whether their outcome is known.
func (g *Group) Close() error {
	if g.closed.Swap(true) {
		return nil
	}
	g.handOver()
	close(g.closing)
	err := g.raft.Shutdown().Error()
	g.leader.stop()
	g.work.Wait()
	g.proposals.stop()
	if err != nil {
		return fmt.Errorf("close replicated log: %w", err)
	}
	return nil
}

// handOver makes another voter the leader, so that the group need not notice this one's absence first.
func (g *Group) handOver() {
	if g.raft.State() != raft.Leader {
		return
	}
	servers, err := g.servers()
	if err != nil {
		return
	}
	for _, s := range servers {
		if s.Suffrage == raft.Voter && s.ID != raft.ServerID(g.o.ID) {
			if err := g.raft.LeadershipTransfer().Error(); err != nil {
				g.o.Logger.Warn("leadership was not handed over", "err", err)
			}
			return
		}
	}
}

// fail ends everything: no promise can be kept any more.
func (g *Group) fail(err error) {
	err = fmt.Errorf("the log has failed: %w", err)
	if g.failed.CompareAndSwap(nil, &err) {
		g.o.Fatal(err)
	}
}

func (g *Group) failure() error {
	if err := g.failed.Load(); err != nil {
		return *err
	}
	return nil
}
