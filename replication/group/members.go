package group

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/vectord/vectord"
)

// Member is a node of a group.
type Member struct {
	ID      string
	Address string
	Voter   bool // false: it follows the log, and does not count for a majority yet
	Leader  bool
}

// Status is what a group says of itself.
type Status struct {
	ID        string
	Term      uint64
	Leader    string // ID; empty: unknown
	Leading   bool   // this node leads and takes operations
	Committed uint64 // Raft's index, as far as this node knows
	Applied   uint64 // Raft's index
	Index     uint64 // of the last vectord.Entry
	LogBytes  uint64
	Waiting   int // bytes of operations that wait here for their place in the log
}

// Status returns the present state.
func (g *Group) Status() Status {
	index, last, _ := g.machine.positions()
	_, leader := g.raft.LeaderWithID()
	return Status{
		ID:        g.o.ID,
		Term:      g.raft.CurrentTerm(),
		Leader:    string(leader),
		Leading:   g.leader.leading() != 0,
		Committed: g.raft.CommitIndex(),
		Applied:   last,
		Index:     index,
		LogBytes:  g.o.Logs.Bytes(),
		Waiting:   g.leader.waitingBytes(),
	}
}

// Leader returns the leader's ID and address, empty if it is unknown.
func (g *Group) Leader() (id, address string) {
	a, i := g.raft.LeaderWithID()
	return string(i), string(a)
}

// Members returns the members as of this node's log.
func (g *Group) Members() ([]Member, error) {
	servers, err := g.servers()
	if err != nil {
		return nil, err
	}
	_, leader := g.raft.LeaderWithID()
	members := make([]Member, len(servers))
	for i, s := range servers {
		members[i] = Member{ID: string(s.ID), Address: string(s.Address), Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader}
	}
	return members, nil
}

// Votes says whether this node has a vote, as far as it knows: one that has never caught up with the log has none.
func (g *Group) Votes() bool {
	servers, err := g.servers()
	return err == nil && slices.ContainsFunc(servers, func(s raft.Server) bool {
		return s.ID == raft.ServerID(g.o.ID) && s.Suffrage == raft.Voter
	})
}

func (g *Group) servers() ([]raft.Server, error) {
	f := g.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return nil, fmt.Errorf("members of the group: %w", err)
	}
	return f.Configuration().Servers, nil
}

// membershipWait bounds how long a change of members may take to be committed.
const membershipWait = 10 * time.Second

// Add makes a node a member, or gives one its new address. It follows at first and gets a vote once it has caught up, so that
// an empty node never counts for a majority. Only the leader can; others return an error with CodeNotLeader.
func (g *Group) Add(id, address string) error {
	if id == "" || address == "" {
		return vectord.Errorf(vectord.KindInvalid, "a member has an id and an address, got %q and %q", id, address)
	}
	servers, err := g.servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		switch {
		case string(s.ID) == id && string(s.Address) == address:
			return g.mustLead()
		case string(s.ID) == id && s.Suffrage == raft.Voter:
			return g.change(g.raft.AddVoter(s.ID, raft.ServerAddress(address), 0, membershipWait))
		case string(s.ID) != id && string(s.Address) == address:
			return vectord.Errorf(vectord.KindExists, "address %s is that of member %s", address, s.ID)
		}
	}
	return g.change(g.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, membershipWait))
}

// Remove ends a node's membership. It refuses where too few voters would be left alive to go on: the majority of those that
// stay must answer. Only the leader can, and not itself: it hands over, and returns an error as if it had not led, so that its
// successor is asked. An entry that takes the leader's vote could otherwise be in its log alone when it falls, and of two
// voters neither would ever be elected: hashicorp/raft has one that is no member by its own log not stand for election.
func (g *Group) Remove(ctx context.Context, id string) error {
	servers, err := g.servers()
	if err != nil {
		return err
	}
	found, voters, alive := false, 0, 0
	for _, s := range servers {
		switch {
		case string(s.ID) == id:
			found = true
		case s.Suffrage == raft.Voter:
			voters++
			if g.answers(ctx, s) {
				alive++
			}
		}
	}
	switch {
	case !found:
		return vectord.Errorf(vectord.KindNotFound, "no member %q", id)
	case alive <= voters/2:
		return vectord.Errorf(vectord.KindConflict, "%d of the %d voters that would be left answer, which is no majority", alive, voters)
	case id == g.o.ID:
		if err := g.change(g.raft.LeadershipTransfer()); err != nil {
			return err
		}
		return errNotLeader()
	}
	return g.change(g.raft.RemoveServer(raft.ServerID(id), 0, membershipWait))
}

// answers says whether a member is there.
func (g *Group) answers(ctx context.Context, s raft.Server) bool {
	if string(s.ID) == g.o.ID {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, g.o.Heartbeat)
	defer cancel()
	_, err := g.o.Peers.Call(ctx, string(s.Address), MethodTerm, nil)
	return err == nil
}

// Transfer makes a voter the leader: id, or the one that has most of the log if that is empty. Only the leader can.
func (g *Group) Transfer(id string) error {
	if id == "" {
		return g.change(g.raft.LeadershipTransfer())
	}
	servers, err := g.servers()
	if err != nil {
		return err
	}
	for _, s := range servers {
		if string(s.ID) == id && s.Suffrage == raft.Voter {
			return g.change(g.raft.LeadershipTransferToServer(s.ID, s.Address))
		}
	}
	return vectord.Errorf(vectord.KindNotFound, "no member %q that has a vote", id)
}

// Snapshot takes a snapshot now and drops the log that it replaces.
func (g *Group) Snapshot() error {
	err := g.raft.Snapshot().Error()
	if errors.Is(err, raft.ErrNothingNewToSnapshot) {
		return nil
	}
	return err
}

func (g *Group) mustLead() error {
	if g.leader.leading() == 0 {
		return errNotLeader()
	}
	return nil
}

func (g *Group) change(f raft.Future) error {
	err := g.answer(f)
	switch {
	case errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return errNotLeader()
	case err != nil:
		return vectord.Errorf(vectord.KindTimeout, "change of the group: the outcome is unknown: %v", err)
	}
	return nil
}

// promote gives a vote to each member without one that has kept up with the log at two looks in a row. It belongs to watch.
func (g *Group) promote(keptUp map[raft.ServerID]bool) {
	if g.leader.leading() == 0 {
		clear(keptUp)
		return
	}
	servers, err := g.servers()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), g.o.Heartbeat)
	defer cancel()
	for _, s := range servers {
		if s.Suffrage != raft.Nonvoter {
			continue
		}
		committed := g.raft.CommitIndex()
		b, err := g.o.Peers.Call(ctx, string(s.Address), MethodApplied, nil)
		last, badErr := decodeNumber(b)
		// One that has nothing yet waits for a snapshot, however few entries that stands for.
		up := err == nil && badErr == nil && last > 0 && last+promoteLag >= committed
		if up && keptUp[s.ID] {
			if err := g.change(g.raft.AddVoter(s.ID, s.Address, 0, membershipWait)); err != nil {
				g.o.Logger.Warn("a member that has caught up got no vote yet", "member", s.ID, "err", err)
			}
			up = false
		}
		keptUp[s.ID] = up
	}
}

// promoteLag is how many entries a member that gets a vote may be behind.
const promoteLag = 64
