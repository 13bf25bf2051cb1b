package gossip

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/vectord/vectord"
)

// State is what is thought of a member's life.
type State uint8

// The states of a member.
const (
	StateAlive   State = iota
	StateSuspect       // probes are not answered; it may be dead
	StateLeft          // said goodbye
	StateDead          // did not, and does not answer
)

func (s State) String() string {
	switch s {
	case StateAlive:
		return "alive"
	case StateSuspect:
		return "suspect"
	case StateLeft:
		return "left"
	case StateDead:
		return "dead"
	}
	return "unknown"
}

// Member is a node that joined the cluster, as this node sees it.
type Member struct {
	ID      string
	State   State
	Since   time.Time // when this node saw it enter the state
	Version Version   // of the record; zero while there is none
	Record            // what it published last; its address for gossip is there without a record, too
}

// member is what memberlist says of a node, and what was made of it. The state follows from live and the records.
type member struct {
	node  *memberlist.Node // a copy, never written to
	live  bool             // memberlist thinks that it is alive, or at most suspects it
	state State
	since time.Time
}

// Members returns the members by id, this node included. Those that left or died are listed for a day.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	members := make([]Member, 0, len(g.members))
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		members = append(members, g.member(id))
	}
	return members
}

// Member returns one member.
func (g *Gossip) Member(id string) (Member, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.members[id] == nil {
		return Member{}, false
	}
	return g.member(id), true
}

func (g *Gossip) member(id string) Member {
	m := g.members[id]
	out := Member{ID: id, State: m.state, Since: m.since}
	if o := g.store.origins[id]; o != nil {
		out.Version, out.Record = o.version, o.record.Record.clone()
	}
	out.Addresses.Gossip = m.node.Address()
	return out
}

// Forget drops a member that has left or died, with its counters, before its day is over. It is for nodes that are gone for
// good. Others may still tell of it, which has no effect unless it joins again. It fails with KindNotFound, and with
// KindConflict for a member that is there.
func (g *Gossip) Forget(id string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[id]
	if m == nil {
		return vectord.Errorf(vectord.KindNotFound, "gossip: there is no member %q", id)
	}
	if m.live {
		return vectord.Errorf(vectord.KindConflict, "gossip: member %q is %s", id, m.state)
	}
	g.forget(id)
	return nil
}

func (g *Gossip) forget(id string) {
	g.metrics.members.WithLabelValues(g.members[id].state.String()).Dec()
	delete(g.members, id)
	delete(g.accusers, id)
	delete(g.store.origins, id)
	for s := range g.subscriptions {
		delete(s.changes, id)
	}
}

// makeRoom drops who has been a stranger, or gone, for the longest time, when as many nodes as there may be are known.
func (g *Gossip) makeRoom() {
	if len(g.store.origins) < originsMax {
		return
	}
	oldest, since := "", time.Time{}
	consider := func(id string, t time.Time) {
		if oldest == "" || t.Before(since) {
			oldest, since = id, t
		}
	}
	for id, m := range g.members {
		if !m.live && id != g.id {
			consider(id, m.since)
		}
	}
	for id, t := range g.strangers {
		consider(id, t)
	}
	if g.members[oldest] != nil {
		g.forget(oldest)
	} else if oldest != "" {
		g.dropStranger(oldest)
	}
}

func (g *Gossip) dropStranger(id string) {
	delete(g.strangers, id)
	delete(g.accusers, id)
	delete(g.store.origins, id)
}

// forgetOld drops what has been kept long enough.
func (g *Gossip) forgetOld(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id, m := range g.members {
		if !m.live && id != g.id && now.Sub(m.since) >= forgetAfter {
			g.forget(id)
		}
	}
	for id, since := range g.strangers {
		if now.Sub(since) >= strangerAfter {
			g.dropStranger(id)
		}
	}
}

// setLive takes in what memberlist says of a node.
func (g *Gossip) setLive(node *memberlist.Node, live bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[node.Name]
	joined := m == nil
	if joined {
		m = &member{}
		g.members[node.Name] = m
		delete(g.strangers, node.Name)
	}
	copied := *node
	copied.Addr, copied.Meta = slices.Clone(node.Addr), nil
	m.node, m.live = &copied, live

	others := make([]*memberlist.Node, 0, len(g.members))
	for _, id := range slices.Sorted(maps.Keys(g.members)) {
		if m := g.members[id]; m.live && id != g.id {
			others = append(others, m.node)
		}
	}
	g.live, g.next = others, 0
	if i := slices.IndexFunc(others, func(n *memberlist.Node) bool { return n.Name > g.id }); i > 0 {
		g.next = i
	}
	if joined {
		m.state, m.since = g.derive(node.Name), time.Now()
		g.metrics.members.WithLabelValues(m.state.String()).Inc()
		g.changed(node.Name)
		return
	}
	g.refresh(node.Name)
	if o := g.store.origins[node.Name]; o != nil { // whether its suspicions count depends on its life
		g.refreshSuspects(o.record.suspicions)
	}
}

// derive returns the state of a member.
func (g *Gossip) derive(id string) State {
	m, o := g.members[id], g.store.origins[id]
	if !m.live {
		if o != nil && o.record.leaving {
			return StateLeft
		}
		return StateDead
	}
	var v Version
	if o != nil {
		v = o.version
	}
	for accuser := range g.accusers {
		if a := g.members[accuser]; a == nil || !a.live || accuser == id {
			continue
		}
		for _, s := range g.store.origins[accuser].record.suspicions {
			if s.id == id && s.version.Compare(v) >= 0 {
				return StateSuspect
			}
		}
	}
	return StateAlive
}

// refresh sets the state of a member to what it should be.
func (g *Gossip) refresh(id string) {
	m := g.members[id]
	if m == nil {
		return
	}
	if o := g.store.origins[id]; !m.live || o != nil && o.version.Compare(g.suspected[id]) > 0 {
		delete(g.suspected, id) // and from the record when it is next published; it has no effect any more
	}
	state := g.derive(id)
	if state == m.state {
		return
	}
	g.metrics.members.WithLabelValues(m.state.String()).Dec()
	g.metrics.members.WithLabelValues(state.String()).Inc()
	m.state, m.since = state, time.Now()
	g.changed(id)
}

func (g *Gossip) refreshSuspects(suspicions []suspicion) {
	for _, s := range suspicions {
		g.refresh(s.id)
	}
}

// recordChanged takes note of a new record in the store; old is the one before it.
func (g *Gossip) recordChanged(id string, old published) {
	o := g.store.origins[id]
	if len(o.record.suspicions) > 0 {
		g.accusers[id] = struct{}{}
	} else {
		delete(g.accusers, id)
	}
	if g.members[id] == nil {
		return
	}
	if !sameIdentity(old.Record, o.record.Record) {
		g.changed(id)
	}
	g.refresh(id)
	g.refreshSuspects(old.suspicions)
	g.refreshSuspects(o.record.suspicions)
}

// suspect is told that this node's probes of another were not answered. The other hears of it by gossip, if it lives, and
// publishes something newer: see refute.
func (g *Gossip) suspect(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.members[id]
	if m == nil || !m.live || id == g.id || g.closed {
		return
	}
	o := g.store.origins[id]
	if o == nil || o.version == (Version{}) { // there is nothing that it could publish something newer than
		return
	}
	if g.suspected[id] == o.version {
		return
	}
	g.suspected[id] = o.version
	g.publishLocked()
}

// refute publishes something newer when a record suspects this node.
func (g *Gossip) refute(suspicions []suspicion) {
	for _, s := range suspicions {
		if s.id == g.id && s.version.Compare(g.version) >= 0 {
			g.publishLocked()
			return
		}
	}
}

// Subscription tells of changes of the membership.
type Subscription struct {
	g       *Gossip
	wake    chan struct{} // of size 1: there are changes
	closed  chan struct{}
	changes map[string]struct{} // guarded by g.mu. Invariant: ids of members.
}

// Subscribe returns a subscription to changes of members: those that joined, whose state changed, or whose addresses, build
// or versions of commands did. Load and groups change too often for that. The members of now are its first changes. It
// fails with KindOverloaded when there are 64 already, and with KindClosed.
func (g *Gossip) Subscribe() (*Subscription, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.closed:
		return nil, errClosed
	case len(g.subscriptions) >= subscriptionsMax:
		return nil, vectord.Errorf(vectord.KindOverloaded, "gossip: %d subscriptions, which is the limit", subscriptionsMax)
	}
	s := &Subscription{g: g, wake: make(chan struct{}, 1), closed: make(chan struct{}), changes: map[string]struct{}{}}
	g.subscriptions[s] = struct{}{}
	for id := range g.members {
		s.changed(id)
	}
	return s, nil
}

// Next waits for changes and returns the members that have changed since the last call, each as it is now, by id. A reader
// that is slow misses states in between and nothing else. Next is for one goroutine. It fails when ctx ends, and with
// KindClosed after Close of either.
func (s *Subscription) Next(ctx context.Context) ([]Member, error) {
	for {
		select {
		case <-s.wake:
		case <-s.closed:
			return nil, errClosed
		case <-ctx.Done():
			return nil, vectord.Errorf(vectord.KindTimeout, "gossip: next change: %v", context.Cause(ctx))
		}
		if members := s.take(); len(members) > 0 {
			return members, nil
		}
	}
}

func (s *Subscription) take() []Member {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	var members []Member
	for _, id := range slices.Sorted(maps.Keys(s.changes)) {
		members = append(members, s.g.member(id))
	}
	clear(s.changes)
	return members
}

// Close ends the subscription.
func (s *Subscription) Close() {
	s.g.mu.Lock()
	defer s.g.mu.Unlock()
	if _, ok := s.g.subscriptions[s]; ok {
		delete(s.g.subscriptions, s)
		close(s.closed)
	}
}

// changed notes a change, with g.mu held. It does not block.
func (s *Subscription) changed(id string) {
	s.changes[id] = struct{}{}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// changed tells the subscriptions, and the log, of a member.
func (g *Gossip) changed(id string) {
	for s := range g.subscriptions {
		s.changed(id)
	}
	m := g.members[id]
	g.logger.Info("member", "id", id, "state", m.state.String(), "address", m.node.Address())
}
