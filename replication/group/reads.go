package group

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/vectord/vectord"
)

// reads are those that wait for a round of confirmation: see confirm.
type reads struct {
	waiting chan chan readIndex
	synced  atomic.Int64 // when the call of Synced began that began last of those that succeeded; nanoseconds since the group was opened
	opened  time.Time
}

type readIndex struct {
	index uint64 // of Raft
	err   error
}

// readsWaiting bounds the reads that wait for the round after the present one.
const readsWaiting = 4096

func (r *reads) init() { r.waiting, r.opened = make(chan chan readIndex, readsWaiting), time.Now() }

// note says that this replica has everything as of a time.
func (r *reads) note(asOf time.Duration) {
	for {
		known := r.synced.Load()
		if int64(asOf) <= known || r.synced.CompareAndSwap(known, int64(asOf)) {
			return
		}
	}
}

// Synced returns when this replica has everything that anybody was told before the call, so that a read after it is
// linearizable. Any node may be asked.
//
// It is the read index of Ongaro's dissertation (Consensus: Bridging Theory and Practice, 2014, section 6.4), but for how the
// leader makes sure that it still leads: hashicorp/raft takes any heartbeat's answer for that, also one to a heartbeat that was
// sent before the read. So the leader asks the voters for their terms, by calls that are made after the read came. Whoever
// leads in a later term has had a majority's votes, and a voter raises its term before it votes; two majorities share a voter;
// so if a majority is still in the leader's term, nobody led in a later one before those answers.
func (g *Group) Synced(ctx context.Context) error {
	patience := time.Now().Add(leaderWait)
	for {
		asOf := time.Since(g.reads.opened)
		index, err := g.readIndex(ctx)
		if err == nil {
			if err = g.machine.wait(ctx, func(_, last uint64) bool { return last >= index }); err == nil {
				g.reads.note(asOf)
			}
			return err
		}
		if ctx.Err() != nil || time.Now().After(patience) {
			return vectord.Errorf(vectord.KindTimeout, "no leader could confirm the read: %v", err)
		}
		if err := g.pause(ctx, retryPause); err != nil {
			return err
		}
	}
}

// Fresh returns when this replica has everything that anybody was told up to a time ago. That costs a round of Synced now and
// then, and nothing in between.
func (g *Group) Fresh(ctx context.Context, within time.Duration) error {
	if synced := g.reads.synced.Load(); synced > 0 && time.Since(g.reads.opened)-time.Duration(synced) <= within {
		return nil
	}
	return g.Synced(ctx)
}

// Applied returns when this replica has applied the entry at an index, which is the session's if its client sends back what
// it was given with its last write or read.
func (g *Group) Applied(ctx context.Context, index uint64) error {
	return g.machine.wait(ctx, func(_, last uint64) bool { return last >= index>>operationBits })
}

// Index returns the index of the last entry that this replica has applied.
func (g *Group) Index() uint64 {
	index, _, _ := g.machine.positions()
	return index
}

func (g *Group) readIndex(ctx context.Context) (uint64, error) {
	address, id := g.raft.LeaderWithID()
	switch {
	case id == "":
		return 0, errNotLeader()
	case string(id) == g.o.ID:
		return g.joinRound(ctx)
	}
	// One that hangs is not waited for: another may lead already. One that leads takes a round, after the present one.
	ctx, cancel := context.WithTimeout(ctx, 3*g.o.Heartbeat)
	defer cancel()
	b, err := g.o.Peers.Call(ctx, string(address), MethodReadIndex, nil)
	if err != nil {
		return 0, err
	}
	return decodeNumber(b)
}

// joinRound has the next round confirm a read.
func (g *Group) joinRound(ctx context.Context) (uint64, error) {
	answer := make(chan readIndex, 1)
	select {
	case g.reads.waiting <- answer:
	default:
		return 0, &vectord.Error{Kind: vectord.KindOverloaded, Text: "too many reads wait to be confirmed", RetryAfter: retryAfter}
	}
	select {
	case r := <-answer:
		return r.index, r.err
	case <-ctx.Done():
		return 0, vectord.Errorf(vectord.KindTimeout, "the read was not confirmed: %v", ctx.Err())
	case <-g.closing:
		return 0, vectord.Errorf(vectord.KindClosed, "the server is shutting down")
	}
}

// confirmReads is the goroutine that confirms the reads, all that wait in one round.
func (g *Group) confirmReads() {
	defer g.work.Done()
	var round []chan readIndex
	for {
		select {
		case <-g.closing:
			return
		case first := <-g.reads.waiting:
			round = append(round[:0], first)
		}
		for len(round) < readsWaiting && len(g.reads.waiting) > 0 {
			round = append(round, <-g.reads.waiting)
		}
		index, err := g.confirm()
		for _, answer := range round {
			answer <- readIndex{index, err}
		}
	}
}

// confirm returns Raft's index of an entry that everything acknowledged before the call is at or before.
func (g *Group) confirm() (uint64, error) {
	term := g.leader.leading()
	if term == 0 {
		return 0, errNotLeader()
	}
	// The leader has committed an entry of its own term, so its commit index covers all that was committed in earlier ones.
	index := g.raft.CommitIndex()
	servers, err := g.servers()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.o.Heartbeat)
	defer cancel()
	answers := make(chan bool, len(servers))
	voters := 0
	for _, s := range servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if string(s.ID) == g.o.ID {
			answers <- g.raft.CurrentTerm() == term
			continue
		}
		g.work.Go(func() {
			b, err := g.o.Peers.Call(ctx, string(s.Address), MethodTerm, nil)
			theirs, badErr := decodeNumber(b)
			answers <- err == nil && badErr == nil && theirs == term
		})
	}
	yes, no := 0, 0
	for yes <= voters/2 {
		if <-answers {
			yes++
		} else {
			no++
		}
		if no >= (voters+1)/2 {
			return 0, fmt.Errorf("%w: %d of %d voters are known to be in term %d", errNotLeader(), yes, voters, term)
		}
	}
	return index, nil
}

func appendNumber(dst []byte, n uint64) []byte { return binary.AppendUvarint(dst, n) }

func decodeNumber(b []byte) (uint64, error) {
	r := decoder{b: b}
	n := r.uvarint()
	if r.failed || len(r.b) > 0 {
		return 0, fmt.Errorf("malformed number of %d bytes", len(b))
	}
	return n, nil
}

// HandleCall answers a call of another node's group. It may be called as soon as Open has returned.
func (g *Group) HandleCall(ctx context.Context, method byte, body []byte) ([]byte, error) {
	if g.closed.Load() {
		return nil, vectord.Errorf(vectord.KindClosed, "the server is shutting down")
	}
	switch method {
	case MethodPropose:
		op, term, again, err := decodePropose(body)
		if err != nil {
			return nil, err
		}
		return nil, g.leader.acceptFrom(op, term, again, g.o.QueueBytes)
	case MethodTerm:
		return appendNumber(nil, g.raft.CurrentTerm()), nil
	case MethodReadIndex:
		index, err := g.joinRound(ctx)
		return appendNumber(nil, index), err
	case MethodApplied:
		_, last, _ := g.machine.positions()
		return appendNumber(nil, last), nil
	}
	return nil, vectord.Errorf(vectord.KindUnsupported, "call of method %d", method)
}
