package group

import (
	"errors"
	"fmt"
	"io"

	"github.com/hashicorp/raft"
)

// Transport is what Raft sends and receives its messages by. The group does not close it.
type Transport interface {
	raft.Transport
	raft.WithPreVote
}

// receiver is the transport as Raft sees it: with pipelines that do not get stuck, and without the snapshots that this node has all
// of already.
//
// Such a snapshot comes when a leader went back in its log further than needed, or late. The node has its last entry, so what
// follows in the log may stay, and the leader is told that the snapshot was taken. hashicorp/raft instead makes the members as of
// the snapshot those that count, though the log has others: a node whose first snapshot says that it is the only member would
// elect itself, alone, and lose what it writes. It also goes back to the snapshot with what it gives to be applied.
type receiver struct {
	Transport
	calls chan raft.RPC
}

// Consumer implements raft.Transport.
func (r *receiver) Consumer() <-chan raft.RPC { return r.calls }

// AppendEntriesPipeline implements raft.Transport.
func (r *receiver) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	inner, err := r.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &pipeline{AppendPipeline: inner, answered: make(chan raft.AppendFuture, unreadMax), closed: make(chan struct{})}
	go p.read()
	return p, nil
}

// pipeline goes on to take answers when Raft has stopped to. After an answer that is no success hashicorp/raft reads no more of
// them, and closes the pipeline once it sees that, which is by chance before or after the next message. raft.NetworkTransport
// takes no second message then, so the one goroutine that would close it waited, the follower got nothing more from this leader,
// and the group did not close.
type pipeline struct {
	raft.AppendPipeline
	answered chan raft.AppendFuture
	closed   chan struct{}
}

// unreadMax is how many answers may be unread. That there is another one has a chance of one half each time.
const unreadMax = 256

func (p *pipeline) read() {
	for {
		select {
		case f := <-p.AppendPipeline.Consumer():
			select {
			case p.answered <- f:
			case <-p.closed:
				return
			}
		case <-p.closed:
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answered }

// Close implements raft.AppendPipeline. Raft calls it once.
func (p *pipeline) Close() error {
	close(p.closed)
	return p.AppendPipeline.Close()
}

var errHasSnapshot = errors.New("the log has all of the snapshot, and goes on after it")

// receive is the goroutine that gives Raft the messages of others.
func (g *Group) receive(r *receiver) {
	defer g.work.Done()
	for {
		select {
		case <-g.closing:
			return
		case rpc := <-r.Transport.Consumer():
			if g.answerSnapshot(rpc) {
				continue
			}
			select {
			case r.calls <- rpc:
			case <-g.closing:
				rpc.Respond(nil, raft.ErrRaftShutdown)
				return
			}
		}
	}
}

// answerSnapshot answers a snapshot that this node has all of, and says whether it did. Where it is not sure Raft decides, and
// the sink refuses one that must not be taken: between here and there the log may have become longer.
func (g *Group) answerSnapshot(rpc raft.RPC) bool {
	r, ok := rpc.Command.(*raft.InstallSnapshotRequest)
	if !ok || r.Term < g.raft.CurrentTerm() {
		return false
	}
	if has, err := g.hasSnapshot(r.LastLogIndex, r.LastLogTerm); err != nil || !has {
		return false
	}
	g.work.Go(func() {
		if _, err := io.Copy(io.Discard, rpc.Reader); err != nil {
			rpc.Respond(nil, fmt.Errorf("read the snapshot: %w", err))
			return
		}
		rpc.Respond(&raft.InstallSnapshotResponse{Term: g.raft.CurrentTerm(), Success: true}, nil)
	})
	return true
}

// hasSnapshot says whether this node has a later snapshot, or a log that goes on after the last entry of this one.
func (g *Group) hasSnapshot(index, term uint64) (bool, error) {
	newest, _, err := g.snapshots.newest() // zeros for none
	if err != nil || index < newest.Index {
		return err == nil, err
	}
	last, err := g.o.Logs.LastIndex()
	if err != nil || last <= index {
		return false, err
	}
	var l raft.Log
	switch err := g.logs.GetLog(index, &l); {
	case errors.Is(err, raft.ErrLogNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return l.Term == term, nil
}
