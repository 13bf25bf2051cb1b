package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/replication/gossip"
	"github.com/vectord/vectord/replication/group"
	"github.com/vectord/vectord/replication/logstore"
	"github.com/vectord/vectord/replication/transport"
)

// Cluster makes a node one of several that keep the same data. Listen and Security are required.
type Cluster struct {
	Name      string // nodes of clusters of other names are refused; empty: "vectord"
	Listen    string // address of the port for other nodes
	Advertise string // what other nodes dial; empty: Listen
	// Join are addresses of members. A node without data that has none begins a cluster of its own, and one with data takes
	// them into it.
	Join     []string
	Security transport.Security
	LogStore logstore.Kind // empty: DefaultLogStore

	recover bool // set by Recover
}

const (
	defaultClusterName = "vectord"
	// DefaultLogStore is where the log is kept: docs/decisions/raft-log-store.md has the figures.
	DefaultLogStore = logstore.Pebble

	raftDir     = "raft"
	snapshotDir = "snapshots"
	logDir      = "log"
	nodeFile    = "node.json"

	// groupID is that of the one group of this version: all nodes keep all shards.
	groupID = 1

	// joinPause is the time between attempts to become a member, and callPatience what a node is given to answer.
	joinPause    = 500 * time.Millisecond
	callPatience = 5 * time.Second
	infoPatience = time.Second
)

// Methods of calls between nodes besides the group's.
const (
	methodJoin byte = iota + 32
	methodRemove
	methodTransfer
	methodInfo
	methodHTTP
	methodGossip
)

// cluster is what a node has more as one of several.
type cluster struct {
	c           Cluster
	logger      *slog.Logger
	id          uint64
	memoryLimit int64
	transport   *transport.Transport
	store       *logstore.Store
	logs        *logstore.Group
	stream      io.Closer // of the group
	group       *group.Group
	carrier     *gossip.Carrier
	gossip      *gossip.Gossip
	reopen      chan struct{}                                        // closed when the node must be opened again
	answer      atomic.Pointer[func(request []byte) ([]byte, error)] // requests that other nodes forward

	stop    context.Context
	cancel  context.CancelFunc
	joining sync.WaitGroup
}

// nodeIdentity is the content of the file nodeFile.
type nodeIdentity struct {
	ID uint64 `json:"id"`
}

// identity returns the number that a node has for ever, which it draws at its first start.
func identity(dir string) (uint64, error) {
	path := filepath.Join(dir, nodeFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		n := nodeIdentity{ID: 1 + rand.Uint64N(1<<53-1)} // JavaScript reads it exactly
		if b, err = json.Marshal(n); err != nil {
			return 0, err
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return 0, fmt.Errorf("create folder of the replicated log: %w", err)
		}
		if err := saveFile(path, b); err != nil {
			return 0, fmt.Errorf("write the node's number: %w", err)
		}
		return n.ID, nil
	}
	var n nodeIdentity
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err == nil && n.ID == 0 {
		err = errors.New("it has no number")
	}
	if err != nil {
		return 0, fmt.Errorf("read the node's number from %q: %w", path, err)
	}
	return n.ID, nil
}

// saveFile makes a file that is there whole or not at all after a power cut.
func saveFile(path string, b []byte) error {
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openCluster opens what a node needs to be one of several, but for the group. The caller closes it.
func openCluster(c *Config) (*cluster, error) {
	dir := filepath.Join(c.DataDir, raftDir)
	if c.Cluster == nil {
		if _, err := os.Stat(filepath.Join(dir, nodeFile)); err == nil && c.FS == nil {
			return nil, vectord.Errorf(vectord.KindConflict, "data directory %q is that of a cluster's node: start it with --cluster", c.DataDir)
		}
		return nil, nil
	}
	id, err := identity(dir)
	if err != nil {
		return nil, err
	}
	k := &cluster{c: *c.Cluster, logger: c.Logger, memoryLimit: c.MemoryLimit, id: id, reopen: make(chan struct{})}
	k.stop, k.cancel = context.WithCancel(context.Background())
	if k.c.Name == "" {
		k.c.Name = defaultClusterName
	}
	if k.c.LogStore == "" {
		k.c.LogStore = DefaultLogStore
	}
	o := transport.Options{Cluster: k.c.Name, Advertise: k.c.Advertise, Security: k.c.Security, Logger: c.Logger}
	if c.Metrics != nil {
		o.Registerer = c.Metrics
	}
	if k.transport, err = transport.Listen(k.c.Listen, o); err != nil {
		return nil, fmt.Errorf("--cluster: %w", err)
	}
	if k.store, err = logstore.Open(k.c.LogStore, filepath.Join(dir, logDir), logstore.Options{Logger: c.Logger, Fatal: c.Fatal}); err != nil {
		return nil, errors.Join(err, k.transport.Close())
	}
	if k.logs, err = k.store.Group(groupID); err != nil {
		return nil, errors.Join(err, k.transport.Close(), k.store.Close())
	}
	if k.carrier, err = gossip.NewCarrier(k.transport, gossipGroup, methodGossip); err != nil {
		return nil, errors.Join(err, k.transport.Close(), k.store.Close())
	}
	return k, nil
}

// options are those of the group.
func (k *cluster) options(c *Config) group.Options {
	o := group.Options{
		ID:          strconv.FormatUint(k.id, 10),
		Address:     k.transport.Addr().String(),
		Logs:        k.logs,
		Peers:       peers{k.transport},
		SnapshotDir: filepath.Join(c.DataDir, raftDir, snapshotDir),
		QueueBytes:  logQueueBytes,
		Logger:      c.Logger,
		Fatal:       c.Fatal,
		Reopen:      sync.OnceFunc(func() { close(k.reopen) }),
	}
	if c.Metrics != nil {
		o.Registerer = c.Metrics
	}
	return o
}

// peers are other nodes' groups.
type peers struct{ *transport.Transport }

// Unreachable implements group.Peers.
func (p peers) Unreachable(err error) bool { return errors.Is(err, transport.ErrUnreachable) }

// open makes the node a part of its group: of one that it begins if it has data or nowhere to join.
func (k *cluster) open(c *Config, state group.State, o group.Options) error {
	index, _, err := state.LastApplied()
	if err != nil {
		return err
	}
	if len(k.c.Join) == 0 {
		if err := group.Bootstrap(state, o); err != nil {
			return fmt.Errorf("begin a cluster: %w", err)
		}
	} else if known, err := group.Known(o); err != nil {
		return err
	} else if !known && index > 0 {
		return vectord.Errorf(vectord.KindConflict, "data directory %q has data of its own, which joining a cluster would replace: "+
			"join with an empty one, or begin a cluster with this one and have the others join it", c.DataDir)
	}
	if k.c.recover {
		if err := group.Recover(state, o); err != nil {
			return err
		}
	}
	stream, err := k.transport.Group(groupID)
	if err != nil {
		return err
	}
	t := transport.NewRaftTransport(stream, group.RaftLogger(c.Logger))
	k.stream, o.Transport = t, t
	if k.group, err = group.Open(state, o); err != nil {
		return errors.Join(err, t.Close())
	}
	for _, m := range []byte{group.MethodPropose, group.MethodTerm, group.MethodReadIndex, group.MethodApplied} {
		k.transport.Handle(m, func(ctx context.Context, _ string, body []byte) ([]byte, error) {
			return k.group.HandleCall(ctx, m, body)
		})
	}
	k.transport.Handle(methodJoin, k.handleJoin)
	k.transport.Handle(methodRemove, k.handleRemove)
	k.transport.Handle(methodTransfer, k.handleTransfer)
	k.transport.Handle(methodInfo, k.handleInfo)
	k.transport.Handle(methodHTTP, k.handleHTTP)
	k.transport.Start()
	if err := k.openGossip(o.Registerer); err != nil {
		return err
	}
	k.joining.Go(k.join)
	return nil
}

// close ends the node's part. It does not close the state.
func (k *cluster) close() error {
	k.cancel()
	k.joining.Wait()
	var errs []error
	if k.gossip != nil {
		errs = append(errs, k.gossip.Close())
	} else {
		errs = append(errs, k.carrier.Shutdown())
	}
	if k.group != nil {
		errs = append(errs, k.group.Close(), k.stream.Close())
	}
	return errors.Join(append(errs, k.transport.Close(), k.store.Close())...)
}

// join has the cluster know this node, and at which address, until it does.
func (k *cluster) join() {
	body, err := json.Marshal(joinRequest{ID: strconv.FormatUint(k.id, 10), Address: k.transport.Addr().String()})
	if err != nil {
		panic(err) // of two strings
	}
	for k.stop.Err() == nil && !k.isMember() {
		for _, address := range k.seeds() {
			ctx, cancel := context.WithTimeout(k.stop, callPatience)
			_, err := k.transport.Call(ctx, address, methodJoin, body)
			cancel()
			if err == nil {
				return
			}
			if vectord.CodeOf(err) != vectord.CodeNotLeader {
				k.logger.Warn("not a member of the cluster yet", "asked", address, "err", err)
			}
		}
		select {
		case <-time.After(joinPause):
		case <-k.stop.Done():
		}
	}
}

// seeds are the addresses at which somebody may know the leader.
func (k *cluster) seeds() []string {
	seeds := k.c.Join
	if members, err := k.group.Members(); err == nil {
		for _, m := range members {
			if m.ID != strconv.FormatUint(k.id, 10) {
				seeds = append(seeds[:len(seeds):len(seeds)], m.Address)
			}
		}
	}
	for _, m := range k.gossip.Members() {
		if m.Addresses.Raft != "" && m.ID != strconv.FormatUint(k.id, 10) {
			seeds = append(seeds[:len(seeds):len(seeds)], m.Addresses.Raft)
		}
	}
	if len(seeds) == 0 {
		return []string{k.transport.Addr().String()} // it is the only member, at another address than before
	}
	return seeds
}

// isMember says whether the cluster knows this node at its present address.
func (k *cluster) isMember() bool {
	members, err := k.group.Members()
	if err != nil {
		return false
	}
	for _, m := range members {
		if m.ID == strconv.FormatUint(k.id, 10) {
			return m.Address == k.transport.Addr().String()
		}
	}
	return false
}

type joinRequest struct {
	ID        string `json:"id"`
	Address   string `json:"address"`
	Forwarded bool   `json:"forwarded"`
}

// memberRequest is the body of methodRemove and methodTransfer.
type memberRequest struct {
	ID        string `json:"id"`
	Forwarded bool   `json:"forwarded"`
}

func (k *cluster) handleJoin(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var r joinRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "malformed call: %v", err)
	}
	err := k.group.Add(r.ID, r.Address)
	if vectord.CodeOf(err) == vectord.CodeNotLeader && !r.Forwarded {
		r.Forwarded = true
		err = k.callLeader(ctx, methodJoin, r)
	}
	return nil, err
}

func (k *cluster) handleRemove(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var r memberRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "malformed call: %v", err)
	}
	return nil, k.remove(ctx, r)
}

func (k *cluster) remove(ctx context.Context, r memberRequest) error {
	err := k.mustLead()
	if err == nil {
		err = k.group.Remove(ctx, r.ID)
	}
	if vectord.CodeOf(err) == vectord.CodeNotLeader && !r.Forwarded {
		r.Forwarded = true
		err = k.callLeader(ctx, methodRemove, r)
	}
	return err
}

func (k *cluster) handleTransfer(ctx context.Context, _ string, body []byte) ([]byte, error) {
	var r memberRequest
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "malformed call: %v", err)
	}
	return nil, k.transferTo(ctx, r)
}

func (k *cluster) transferTo(ctx context.Context, r memberRequest) error {
	err := k.mustLead()
	if err == nil {
		err = k.group.Transfer(r.ID)
	}
	if vectord.CodeOf(err) == vectord.CodeNotLeader && !r.Forwarded {
		r.Forwarded = true
		err = k.callLeader(ctx, methodTransfer, r)
	}
	return err
}

func (k *cluster) mustLead() error {
	if !k.group.Status().Leading {
		return vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "this node does not lead")
	}
	return nil
}

func (k *cluster) callLeader(ctx context.Context, method byte, request any) error {
	_, address := k.group.Leader()
	if address == "" {
		return vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "no leader is known")
	}
	body, err := json.Marshal(request)
	if err == nil {
		_, err = k.transport.Call(ctx, address, method, body)
	}
	return err
}

// handleInfo tells what this node says of itself.
func (k *cluster) handleInfo(context.Context, string, []byte) ([]byte, error) {
	return json.Marshal(k.self())
}

func (k *cluster) self() vectord.Peer {
	s := k.group.Status()
	return vectord.Peer{ID: k.id, Address: k.transport.Addr().String(), Version: vectord.Version, Leader: s.Leading, Alive: true, Applied: s.Applied, Term: s.Term}
}

// ask returns what a node says of itself.
func (k *cluster) ask(ctx context.Context, address string) (p vectord.Peer, err error) {
	ctx, cancel := context.WithTimeout(ctx, infoPatience)
	defer cancel()
	b, err := k.transport.Call(ctx, address, methodInfo, nil)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	return p, err
}

// peers returns all members, with what those that answer say of themselves.
func (k *cluster) peers(ctx context.Context) ([]vectord.Peer, error) {
	members, err := k.group.Members()
	if err != nil {
		return nil, err
	}
	all := make([]vectord.Peer, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() {
			if m.ID == strconv.FormatUint(k.id, 10) {
				all[i] = k.self()
			} else if p, err := k.ask(ctx, m.Address); err == nil {
				all[i] = p
			}
			if all[i].ID == 0 {
				all[i].ID, _ = strconv.ParseUint(m.ID, 10, 64) // every node's id is a number
			}
			k.heard(&all[i])
			all[i].Address, all[i].Voter, all[i].Leader = m.Address, m.Voter, m.Leader
		})
	}
	asked.Wait()
	return all, nil
}

// leaderPatience is how long a request waits for there to be a leader.
const leaderPatience = 10 * time.Second

// Recover makes the node of a data directory the only member of its cluster, with all that it has: for a cluster that has lost
// its majority for good. The other nodes' data must not be started again; they join as new ones. The node of c must not run.
func Recover(c Config) error {
	own := *c.Cluster
	own.recover, own.Join = true, nil
	c.Cluster = &own
	n, err := Open(c)
	if err != nil {
		return err
	}
	return n.Close()
}

// Membership is what a node is as one of several. Its methods may be called from any goroutine.
type Membership struct{ k *cluster }

// Membership returns what the node is as one of several, nil for a node on its own.
func (n *Node) Membership() *Membership {
	if n.cluster == nil {
		return nil
	}
	return &Membership{n.cluster}
}

// Self returns the node's number.
func (m *Membership) Self() uint64 { return m.k.id }

// Peers returns all nodes, with what those that answer within a second say of themselves.
func (m *Membership) Peers(ctx context.Context) ([]vectord.Peer, error) { return m.k.peers(ctx) }

// RemovePeer ends a node's membership. It refuses to leave less than a majority that answers.
func (m *Membership) RemovePeer(ctx context.Context, id uint64) error {
	return m.k.remove(ctx, memberRequest{ID: strconv.FormatUint(id, 10)})
}

// TransferLeadership makes a node the leader, with 0 any that can.
func (m *Membership) TransferLeadership(ctx context.Context, id uint64) error {
	r := memberRequest{}
	if id != 0 {
		r.ID = strconv.FormatUint(id, 10)
	}
	return m.k.transferTo(ctx, r)
}

// Leading says whether this node decides what one decides for all.
func (m *Membership) Leading() bool { return m.k.group.Status().Leading }

// CaughtUp says whether this node has ever had what the others have.
func (m *Membership) CaughtUp() bool { return m.k.group.Votes() }

// Index returns the index of what this node applied last.
func (m *Membership) Index() uint64 { return m.k.group.Index() }

// Synced returns when this node has everything that anybody was told before the call: a read after it is linearizable.
func (m *Membership) Synced(ctx context.Context) error { return m.k.group.Synced(ctx) }

// Fresh returns when this node has everything that anybody was told up to a time ago.
func (m *Membership) Fresh(ctx context.Context, within time.Duration) error {
	return m.k.group.Fresh(ctx, within)
}

// Applied returns when this node has what has an index.
func (m *Membership) Applied(ctx context.Context, index uint64) error {
	return m.k.group.Applied(ctx, index)
}

// Forward has the leader answer a request, waiting for there to be one. It returns nil if this node has become the leader.
func (m *Membership) Forward(ctx context.Context, request []byte) ([]byte, error) {
	for patience := time.Now().Add(leaderPatience); ; {
		if m.Leading() {
			return nil, nil
		}
		err := vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "the cluster has no leader at present")
		if id, address := m.k.group.Leader(); id != "" && id != strconv.FormatUint(m.k.id, 10) {
			var answer []byte
			if answer, err = m.k.callWhileLeading(ctx, id, address, request); err == nil {
				return answer, nil
			}
		}
		if vectord.CodeOf(err) != vectord.CodeNotLeader && !errors.Is(err, transport.ErrUnreachable) || time.Now().After(patience) {
			return nil, err
		}
		select {
		case <-time.After(forwardPause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// leaderLook is the time between two looks at who leads, while a request is at the leader.
const leaderLook = time.Second

// callWhileLeading sends a request to the leader, and gives up when two looks in a row see another one: the first may hang, and
// keep its connections. The outcome is unknown then. One that has only handed over answers before.
func (k *cluster) callWhileLeading(ctx context.Context, id, address string, request []byte) ([]byte, error) {
	ctx, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() {
		look := time.NewTicker(leaderLook)
		defer look.Stop()
		for others := 0; others < 2; {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
			if now, _ := k.group.Leader(); now == "" || now == id {
				others = 0
			} else {
				others++
			}
		}
		giveUp()
	}()
	return k.transport.Call(ctx, address, methodHTTP, request)
}

// forwardPause is the time between attempts to find the leader.
const forwardPause = 20 * time.Millisecond

// Answer has requests that other nodes forward answered.
func (m *Membership) Answer(answer func(request []byte) ([]byte, error)) { m.k.answer.Store(&answer) }

// handleHTTP answers a request that another node forwarded. One that came too late for this node's leadership has no effect.
func (k *cluster) handleHTTP(_ context.Context, _ string, body []byte) ([]byte, error) {
	answer := k.answer.Load()
	if answer == nil {
		return nil, vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "this node is starting")
	}
	if err := k.mustLead(); err != nil {
		return nil, err
	}
	return (*answer)(body)
}
