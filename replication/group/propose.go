package group

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/vectord/vectord"
)

const (
	// proposalBytes is what a proposal counts for besides its command, so that bounds hold for empty ones.
	proposalBytes = 128
	// retryPause is the time between attempts to reach a leader.
	retryPause = 10 * time.Millisecond
	// resendPause is how long a proposal that may not have arrived is waited for before it is sent again.
	resendPause = 100 * time.Millisecond
	// leaderWait is how long a proposal waits for there to be a leader.
	leaderWait = 10 * time.Second
	// retryAfter is what a refused client is told to wait.
	retryAfter = time.Second
)

func errNotLeader() error {
	return vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "this node does not lead")
}

// proposals are those of this process whose outcome is open.
type proposals struct {
	mu      sync.Mutex
	last    uint64 // number
	open    map[uint64]*proposal
	term    uint64 // that the log has reached
	stopped bool
}

// proposal waits for what comes of an operation.
type proposal struct {
	term    uint64
	outcome chan outcome // has room for the one outcome, so that telling never waits
	// decided ends with the outcome, and with it the call to a leader that does not answer: one that hangs keeps its
	// connections, and another may lead already.
	decided context.Context
	decide  context.CancelFunc
}

// tell tells what came of the operation. It is called once.
func (p *proposal) tell(o outcome) {
	p.outcome <- o
	p.decide()
}

// outcome is what the machine gave, or again: the operation has had no effect, and will not have any.
type outcome struct {
	result vectord.Result
	again  bool
	err    error
}

func (p *proposals) init() { p.open = map[uint64]*proposal{} }

// add returns a proposal for the term, and its number. Whoever waits for it calls decide when it does not any more.
func (p *proposals) add(ctx context.Context, term uint64) (uint64, *proposal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last++
	made := &proposal{term: term, outcome: make(chan outcome, 1)}
	made.decided, made.decide = context.WithCancel(ctx)
	switch {
	case p.stopped:
		made.tell(outcome{err: vectord.Errorf(vectord.KindClosed, "the server is shutting down")})
	case term < p.term:
		made.tell(outcome{again: true})
	default:
		p.open[p.last] = made
	}
	return p.last, made
}

// remove forgets a proposal that nobody waits for any more.
func (p *proposals) remove(number uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, number)
}

// resolve tells what came of the operations that were applied, by their numbers, and then that the log has reached a term.
func (p *proposals) resolve(applied []applied, term uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range applied {
		if made := p.open[a.number]; made != nil {
			made.tell(outcome{result: a.result})
			delete(p.open, a.number)
		}
	}
	if term == p.term {
		return
	}
	p.term = term
	for number, made := range p.open {
		if made.term < term {
			made.tell(outcome{again: true})
			delete(p.open, number)
		}
	}
}

// stop ends all that waits: what comes of it is unknown, as it may be in the log.
func (p *proposals) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	for number, made := range p.open {
		made.tell(outcome{err: vectord.Errorf(vectord.KindClosed, "the server is shutting down: the outcome is unknown, the write may still take effect")})
		delete(p.open, number)
	}
}

// Propose implements replication.Log. While there is no leader it waits for one, up to ten seconds.
func (g *Group) Propose(ctx context.Context, group uint32, command []byte) (vectord.Result, error) {
	switch {
	case len(command) == 0:
		return vectord.Result{}, vectord.Errorf(vectord.KindInvalid, "an empty command")
	case len(command)+proposalBytes > g.o.QueueBytes:
		return vectord.Result{}, vectord.Errorf(vectord.KindTooLarge, "command of %d bytes, at most %d are accepted",
			len(command), g.o.QueueBytes-proposalBytes)
	}
	return g.propose(ctx, operation{origin: g.origin, group: group, command: command})
}

// Barrier implements replication.Log: its operation has no command.
func (g *Group) Barrier(ctx context.Context) (uint64, error) {
	result, err := g.propose(ctx, operation{origin: g.origin})
	return result.Index, err
}

// propose sends an operation to leader after leader until it is known what came of it.
func (g *Group) propose(ctx context.Context, op operation) (vectord.Result, error) {
	if err := ctx.Err(); err != nil {
		return vectord.Result{}, vectord.Errorf(vectord.KindTimeout, "not accepted, and without effect: %v", err)
	}
	patience := time.Now().Add(leaderWait)
	for {
		if err := g.failure(); err != nil {
			return vectord.Result{}, err
		}
		term := g.raft.CurrentTerm()
		number, p := g.proposals.add(ctx, term)
		op.number = number
		o, err := g.attempt(ctx, op, p)
		p.decide()
		switch {
		case err == nil && !o.again:
			return o.result, o.err
		case err == nil: // the term ended before the operation was in the log
		case vectord.CodeOf(err) != vectord.CodeNotLeader || time.Now().After(patience):
			g.proposals.remove(number)
			if vectord.CodeOf(err) == vectord.CodeNotLeader {
				err = vectord.Errorf(vectord.KindTimeout, "not accepted, and without effect: no leader was found for %v", leaderWait)
			}
			return vectord.Result{}, err
		default:
			g.proposals.remove(number)
			if err := g.pause(ctx, retryPause); err != nil {
				return vectord.Result{}, err
			}
		}
	}
}

// pause waits before another attempt.
func (g *Group) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return vectord.Errorf(vectord.KindTimeout, "not accepted, and without effect: %v", ctx.Err())
	case <-g.closing:
		return vectord.Errorf(vectord.KindClosed, "the server is shutting down")
	}
}

// attempt sends an operation to the leader of the proposal's term and waits for what comes of it. An error means that it had
// no effect, unless it says otherwise.
func (g *Group) attempt(ctx context.Context, op operation, p *proposal) (outcome, error) {
	resend := time.NewTimer(resendPause)
	defer resend.Stop()
	for again := false; ; again = true {
		err := g.send(p.decided, op, p.term, again)
		if err != nil && !again && !errors.Is(err, errPerhaps) {
			return outcome{}, err
		}
		// A refusal of what was sent before says nothing of the first time.
		var timer <-chan time.Time
		if err != nil {
			resend.Reset(resendPause)
			timer = resend.C
		}
		o, err := g.await(ctx, p, timer)
		if !errors.Is(err, errPerhaps) {
			return o, err
		}
	}
}

// errPerhaps says that an operation may have arrived, or not.
var errPerhaps = errors.New("the leader may have the operation or not")

// await waits for the outcome of a proposal that may be in the log, or for the timer, which gives errPerhaps.
func (g *Group) await(ctx context.Context, p *proposal, timer <-chan time.Time) (outcome, error) {
	select {
	case o := <-p.outcome:
		return o, nil
	case <-timer:
		return outcome{}, errPerhaps
	case <-ctx.Done():
		return outcome{}, vectord.Errorf(vectord.KindTimeout, "the outcome is unknown, the write may still take effect: %v", ctx.Err())
	}
}

// send brings an operation to the leader: nil means that it was taken, errPerhaps that it may have been.
func (g *Group) send(ctx context.Context, op operation, term uint64, again bool) error {
	address, id := g.raft.LeaderWithID()
	switch {
	case id == "":
		return errNotLeader()
	case string(id) == g.o.ID:
		return g.leader.accept(op, term, g.o.QueueBytes)
	}
	_, err := g.o.Peers.Call(ctx, string(address), MethodPropose, appendPropose(nil, op, term, again))
	var refused *vectord.Error
	switch {
	case err == nil:
		return nil
	case g.o.Peers.Unreachable(err):
		return errNotLeader()
	case vectord.CodeOf(err) == vectord.CodeNotLeader:
		return err
	case errors.As(err, &refused) && refused.Kind != vectord.KindTimeout && refused.Kind != vectord.KindInternal && refused.Kind != vectord.KindClosed:
		return err
	}
	return errPerhaps
}

// The body of MethodPropose: version 1 byte · again 1 byte · term uvarint · the operation as in an entry.
const proposeVersion = 1

func appendPropose(dst []byte, op operation, term uint64, again bool) []byte {
	flag := byte(0)
	if again {
		flag = 1
	}
	dst = append(dst, proposeVersion, flag)
	dst = binary.AppendUvarint(dst, term)
	return appendOperation(dst, &op)
}

func decodePropose(b []byte) (op operation, term uint64, again bool, err error) {
	if len(b) < 2 || b[0] != proposeVersion || b[1] > 1 {
		return op, 0, false, vectord.Errorf(vectord.KindInvalid, "malformed proposal of %d bytes", len(b))
	}
	r := decoder{b: b[2:]}
	term = r.uvarint()
	op = r.operation()
	if r.failed || len(r.b) > 0 {
		return op, 0, false, vectord.Errorf(vectord.KindInvalid, "malformed proposal of %d bytes", len(b))
	}
	return op, term, b[1] == 1, nil
}
