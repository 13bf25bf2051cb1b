package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/vectord/vectord"
)

// machine is what Raft gives committed entries to. Raft calls its exported methods from one goroutine.
type machine struct {
	g     *Group
	state State
	time  int64 // of the last vectord.Entry
	term  uint64
	asked bool // to be opened again

	mu      sync.Mutex
	index   uint64        // of the last vectord.Entry in the state
	last    uint64        // Raft's index of the last entry that came, with an effect or without
	changed chan struct{} // closed, and replaced, when they rise
}

var _ raft.BatchingFSM = (*machine)(nil)

// applied is what came of an operation of this process.
type applied struct {
	number uint64
	result vectord.Result
}

func newMachine(g *Group, state State, index uint64, time int64) *machine {
	return &machine{g: g, state: state, index: index, time: time, last: index >> operationBits, changed: make(chan struct{})}
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM: all the entries become one commit. What it returns says nothing, as results reach
// those who wait by their numbers.
func (m *machine) ApplyBatch(logs []*raft.Log) []any {
	if m.g.failure() == nil && !m.asked {
		if err := m.apply(logs); err != nil {
			m.g.fail(err)
		}
	}
	return make([]any, len(logs))
}

func (m *machine) apply(logs []*raft.Log) error {
	var entries []vectord.Entry
	var mine []applied
	waiting := map[int]int{} // place among mine by that among entries
	index := m.index
	for _, l := range logs {
		m.term = max(m.term, l.Term)
		if l.Type != raft.LogCommand || l.Index <= m.index>>operationBits {
			continue
		}
		e, err := decodeEntry(l.Data)
		if err != nil {
			return fmt.Errorf("entry %d: %w", l.Index, err)
		}
		if e.term != l.Term {
			continue // proposed in an earlier term: its origins were told, or will be, that it has no effect
		}
		for i, op := range e.ops {
			at := l.Index<<operationBits | uint64(i)
			if op.origin == m.g.origin {
				mine = append(mine, applied{number: op.number, result: vectord.Result{Index: at}})
				if len(op.command) > 0 {
					waiting[len(entries)] = len(mine) - 1
				}
			}
			if len(op.command) > 0 {
				m.time = max(m.time, e.time)
				entries = append(entries, vectord.Entry{Group: op.group, Index: at, Time: m.time, Command: op.command})
				index = at
			}
		}
	}
	if len(entries) > 0 {
		results, err := m.commit(entries)
		if err != nil {
			return err
		}
		for place, of := range waiting {
			mine[of].result = results[place]
		}
	}
	m.advance(index, logs[len(logs)-1].Index)
	m.g.proposals.resolve(mine, m.term)
	return nil
}

func (m *machine) commit(entries []vectord.Entry) ([]vectord.Result, error) {
	results, durable, err := m.state.Apply(entries)
	first, last := entries[0].Index, entries[len(entries)-1].Index
	switch {
	case err != nil:
		return nil, fmt.Errorf("apply entries %d to %d: %w", first, last, err)
	case len(results) != len(entries):
		return nil, fmt.Errorf("apply entries %d to %d: got %d results", first, last, len(results))
	}
	// The Raft log has the entries on the disk, of a majority too, so this waits for none.
	if err := durable(); err != nil {
		return nil, fmt.Errorf("make entries %d to %d durable: %w", first, last, err)
	}
	return results, nil
}

func (m *machine) advance(index, last uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.last = max(m.index, index), max(m.last, last)
	close(m.changed)
	m.changed = make(chan struct{})
}

// positions returns the index of the last vectord.Entry, Raft's index of what was applied last, and what is closed when they
// rise.
func (m *machine) positions() (index, last uint64, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index, m.last, m.changed
}

// wait returns once done holds of the positions.
func (m *machine) wait(ctx context.Context, done func(index, last uint64) bool) error {
	for {
		index, last, changed := m.positions()
		if done(index, last) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return vectord.Errorf(vectord.KindTimeout, "this node has applied the log up to %d, which does not reach far enough yet: %v", index, ctx.Err())
		case <-m.g.closing:
			return vectord.Errorf(vectord.KindClosed, "the server is shutting down")
		}
	}
}

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	if err := m.g.failure(); err != nil {
		return nil, err
	}
	c := &checkpoint{store: m.g.snapshots, dir: m.g.snapshots.temporary()}
	c.applied, _, _ = m.positions()
	if err := m.state.Checkpoint(c.dir); err != nil {
		return nil, errors.Join(fmt.Errorf("checkpoint: %w", err), c.store.fs.RemoveAll(c.dir))
	}
	return c, nil
}

// checkpoint is a state on its way to become a snapshot.
type checkpoint struct {
	store   *snapshotStore
	dir     string
	applied uint64
	adopted bool
}

// Persist implements raft.FSMSnapshot.
func (c *checkpoint) Persist(sink raft.SnapshotSink) error {
	err := sink.(*snapshotSink).adopt(c.dir, c.applied)
	c.adopted = err == nil
	return err
}

// Release implements raft.FSMSnapshot.
func (c *checkpoint) Release() {
	if !c.adopted {
		_ = c.store.fs.RemoveAll(c.dir) // if not now, at the next start
	}
}

// errReopen is what Raft is told when this node must begin again with the snapshot that it got.
var errReopen = errors.New("the node opens its state again from the snapshot")

// Restore implements raft.FSM. A state that has all of the snapshot stays. Otherwise the snapshot, which is durable by now,
// waits until the node is opened again.
func (m *machine) Restore(r io.ReadCloser) error {
	applied, _, err := readStreamHeader(r)
	if err != nil {
		return err
	}
	if index, _, _ := m.positions(); applied <= index {
		return nil
	}
	if !m.asked {
		m.asked = true
		m.g.o.Logger.Info("got a snapshot that is ahead of this node's state", "applied", applied)
		go m.g.o.Reopen()
	}
	return errReopen
}

// Pending returns the folder of the checkpoint that a state of which index is the last entry must be replaced by before the
// group is opened, and false if the state may stay. The folder stays as it is: whoever takes files from it links or copies.
func Pending(o Options, index uint64) (dir string, ok bool, err error) {
	o = o.withDefaults()
	s, err := openSnapshots(o.FS, o.SnapshotDir)
	if err != nil {
		return "", false, err
	}
	newest, ok, err := s.newest()
	if err != nil || !ok || newest.Applied <= index {
		return "", false, err
	}
	return s.path(newest.ID, stateDir), true, nil
}

// Recover makes this node the only member of its group, with all that its log has, committed or not. It is for a group that
// has lost its majority for good: what only the lost nodes had is lost, and if they come back they must join again, empty. The
// state is the one that Open would get. It is called before Open.
func Recover(state State, o Options) error {
	o = o.withDefaults()
	index, lastTime, err := state.LastApplied()
	if err != nil {
		return err
	}
	g := &Group{o: o}
	g.proposals.init()
	if g.snapshots, err = openSnapshots(o.FS, o.SnapshotDir); err != nil {
		return err
	}
	if err := prepareLog(o.Logs, g.snapshots); err != nil {
		return err
	}
	g.machine = newMachine(g, state, index, lastTime)
	configuration := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(o.ID), Address: raft.ServerAddress(o.Address)}}}
	err = raft.RecoverCluster(g.raftConfig(), g.machine, o.Logs, o.Logs, g.snapshots, nil, configuration)
	if err == nil {
		err = g.failure()
	}
	if err != nil {
		return fmt.Errorf("recover the group: %w", err)
	}
	return nil
}

// Known says whether the node has been part of a group.
func Known(o Options) (bool, error) {
	o = o.withDefaults()
	s, err := openSnapshots(o.FS, o.SnapshotDir)
	if err != nil {
		return false, err
	}
	return raft.HasExistingState(o.Logs, o.Logs, s)
}

// Bootstrap makes the state, which may hold something already, the beginning of a group of which this node is the only member.
// It does nothing if the node has been part of a group before. It is called before Open.
func Bootstrap(state State, o Options) error {
	if known, err := Known(o); err != nil || known {
		return err
	}
	o = o.withDefaults()
	s, err := openSnapshots(o.FS, o.SnapshotDir)
	if err != nil {
		return err
	}
	index, _, err := state.LastApplied()
	if err != nil {
		return err
	}
	// The first snapshot is the state as it is, so that whoever joins later gets it, and stands where entries to come have
	// higher indexes than those that the state has seen.
	first := index>>operationBits + 1
	configuration := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(o.ID), Address: raft.ServerAddress(o.Address)}}}
	sink, err := s.create(snapshotMeta{Version: raft.SnapshotVersionMax, Index: first, Term: 1,
		Configuration: raft.EncodeConfiguration(configuration), ConfigurationIndex: first})
	if err != nil {
		return err
	}
	dir := s.temporary()
	if err := state.Checkpoint(dir); err != nil {
		return errors.Join(fmt.Errorf("checkpoint: %w", err), sink.Cancel())
	}
	if err := sink.adopt(dir, index); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}
