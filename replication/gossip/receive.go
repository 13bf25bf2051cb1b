package gossip

import (
	"time"

	"github.com/hashicorp/memberlist"
)

// delegate is what memberlist sees of a Gossip. Its methods do not block.
type delegate struct{ g *Gossip }

// NodeMeta returns nothing: the record says it all, and says it again when it changes.
func (d delegate) NodeMeta(int) []byte { return nil }

func (d delegate) NotifyMsg(b []byte) { d.g.receive(b) }

// GetBroadcasts returns messages that go along with memberlist's own.
func (d delegate) GetBroadcasts(overhead, limit int) [][]byte {
	messages := d.g.repairs.take(overhead, limit, d.g.nodes())
	d.g.metrics.sent.WithLabelValues(wayRepair).Add(float64(len(messages)))
	return messages
}

// LocalState returns all that is known of members.
func (d delegate) LocalState(bool) []byte {
	g := d.g
	g.mu.Lock()
	defer g.mu.Unlock()
	state := appendHeader(nil, g.id, flagBulk)
	for id := range g.members {
		state = g.store.appendParts(state, id, partRecord|partCounters)
	}
	return state
}

func (d delegate) MergeRemoteState(b []byte, _ bool) { d.g.receive(b) }

func (d delegate) NotifyJoin(n *memberlist.Node)   { d.g.setLive(n, true) }
func (d delegate) NotifyUpdate(n *memberlist.Node) { d.g.setLive(n, true) }
func (d delegate) NotifyLeave(n *memberlist.Node)  { d.g.setLive(n, false) }

// receive takes in a message.
func (g *Gossip) receive(b []byte) {
	m, err := decodeMessage(b)
	if err != nil {
		g.metrics.lost.WithLabelValues(lostInvalid).Inc()
		g.logger.Debug("message refused", "error", err)
		return
	}
	var reply []byte
	var to *memberlist.Node
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return
	}
	var repairs []outgoing
	for _, it := range m.records {
		if g.acceptRecord(it) {
			g.spread(&repairs, pendingKey{origin: it.origin}, pendingItem{hops: it.hops, from: m.from}, m.bulk)
		}
	}
	for _, it := range m.slots {
		if g.acceptSlot(it) {
			g.spread(&repairs, pendingKey{origin: it.origin, counter: it.key}, pendingItem{hops: it.hops, from: m.from}, m.bulk)
		}
	}
	if from := g.members[m.from]; from != nil && m.from != g.id && (m.asks || len(m.wants) > 0) {
		to, reply = from.node, g.answer(m)
	}
	g.mu.Unlock()
	for _, out := range repairs {
		g.repair(out)
	}
	if reply != nil {
		g.metrics.sent.WithLabelValues(wayAnswer).Inc()
		g.stream(streamJob{to: to, message: reply})
	}
}

// spread passes on something that was news. In bulk it is old news to most, who answered: repair is enough for that, and
// leaves the budget to what is new. What repair cannot carry is pushed.
func (g *Gossip) spread(repairs *[]outgoing, key pendingKey, item pendingItem, bulk bool) {
	if bulk {
		body := g.encode(key, nextHop(item.hops))
		if len(body)+len(g.id)+8 <= g.payloadMax-repairOverhead {
			*repairs = append(*repairs, outgoing{key: key, body: body})
			return
		}
	}
	g.push(key, item)
}

// acceptRecord merges a record and returns whether it was news.
func (g *Gossip) acceptRecord(it recordItem) bool {
	if it.origin == g.id {
		g.checkSelf(it.version, it.version.Compare(g.version) > 0)
		return false
	}
	var old published
	if o := g.store.origins[it.origin]; o != nil {
		old = o.record
	} else if !g.meet(it.origin) {
		return false
	}
	switch g.store.mergeRecord(it) {
	case outcomeKnown:
		g.metrics.known.Inc()
		return false
	case outcomeFull:
		g.metrics.lost.WithLabelValues(lostFull).Inc()
		return false
	}
	if g.observe != nil {
		g.observe(it.origin, it.version, it.hops)
	}
	g.recordChanged(it.origin, old)
	g.refute(it.record.suspicions)
	return true
}

// acceptSlot merges a node's share of a counter and returns whether it was news.
func (g *Gossip) acceptSlot(it slotItem) bool {
	if it.origin == g.id {
		o := g.store.origins[g.id]
		mine := o.slots[it.key]
		g.checkSelf(Version{Incarnation: it.slot.Incarnation}, it.slot.Incarnation > o.incarnation ||
			it.slot.Incarnation == o.incarnation && (it.slot.P > mine.P || it.slot.N > mine.N))
		return false
	}
	if g.store.origins[it.origin] == nil && !g.meet(it.origin) {
		return false
	}
	switch g.store.mergeSlot(it) {
	case outcomeKnown:
		g.metrics.known.Inc()
		return false
	case outcomeFull:
		g.metrics.lost.WithLabelValues(lostFull).Inc()
		return false
	}
	return true
}

// meet prepares for the first item of a node, and returns whether there may be one. A stranger takes nobody's place: two
// nodes would bring each other back what the other has dropped.
func (g *Gossip) meet(id string) bool {
	if g.members[id] != nil {
		g.makeRoom()
		return true
	}
	if len(g.strangers) >= strangersMax || len(g.store.origins) >= originsMax {
		g.metrics.lost.WithLabelValues(lostFull).Inc()
		return false
	}
	g.strangers[id] = time.Now()
	return true
}

// checkSelf is told of something that this node is said to have published, and whether it has not. Then it did so before
// it restarted, and did not take a higher incarnation: it takes one now. What comes within raiseDelay of that comes again
// with a reconciliation.
func (g *Gossip) checkSelf(v Version, ahead bool) {
	if !ahead || v.Incarnation >= versionMax || time.Since(g.raised) < raiseDelay {
		return
	}
	g.raised = time.Now()
	g.logger.Warn("this node has published under a higher version before, or another has its id", "id", g.id,
		"incarnation", g.version.Incarnation, "seen", v.Incarnation)
	g.raiseIncarnation(v.Incarnation + 1)
}
