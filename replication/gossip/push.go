package gossip

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	// budgetBytesPerSecond bounds what a node pushes. What is published faster waits, and when something newer of the same
	// origin comes meanwhile, only that is sent: under load news get older, and the traffic does not grow. All nodes push
	// what one publishes, so that this many bytes over fanout and size of a record is how many a cluster may publish in a
	// second without waiting: 27 records of 300 bytes with 100 nodes. Repair sends at most 3 packets every 200 ms besides.
	budgetBytesPerSecond = 64 << 10
	budgetBytesBurst     = 64 << 10 // the largest message is smaller

	bundleDelay = 5 * time.Millisecond // news that follow others within this time go together
	fanoutMax   = 12

	// packetOverhead is what memberlist adds to a message in a packet: kind, checksum, cipher and the label's header.
	packetOverhead = 1 + checksumBytes + 29 + 2
	checksumBytes  = 5

	streamQueueMax = 32 // messages that wait for a stream, each of little more than replyBytesMax at most
	streamWorkers  = 4
)

// fanout returns how many nodes out of a cluster's get news at once from each node: ceil(log2 nodes) + 1, at most fanoutMax.
func fanout(nodes int) int {
	return min(bits.Len(uint(max(nodes, 1)-1))+1, fanoutMax)
}

// pending is what is to be pushed: keys of the store in order of their arrival, records before counters. Bound: what the
// store has.
type pending struct {
	items             map[pendingKey]pendingItem
	records, counters []pendingKey
}

type pendingKey struct {
	origin  string
	counter string // empty: the record
}

type pendingItem struct {
	hops uint8  // when it came here
	from string // who sent it
}

// push has something in the store sent to others soon. It is called with mu held.
func (g *Gossip) push(key pendingKey, item pendingItem) {
	if g.pending.items == nil {
		g.pending.items = map[pendingKey]pendingItem{}
	}
	if _, ok := g.pending.items[key]; !ok {
		if key.counter == "" {
			g.pending.records = append(g.pending.records, key)
		} else {
			g.pending.counters = append(g.pending.counters, key)
		}
	}
	g.pending.items[key] = item
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// outgoing is an item on its way.
type outgoing struct {
	key  pendingKey
	from string
	body []byte // encoded
}

// takeBatch takes as much of what is pending as fits one packet, or one item that fits none.
func (g *Gossip) takeBatch() []outgoing {
	g.mu.Lock()
	defer g.mu.Unlock()
	var batch []outgoing
	room := g.payloadMax - len(appendHeader(nil, g.id, 0))
	take := func(keys []pendingKey) []pendingKey {
		for i, key := range keys {
			item := g.pending.items[key]
			body := g.encode(key, nextHop(item.hops))
			if len(batch) > 0 && len(body) > room {
				return keys[i:]
			}
			delete(g.pending.items, key)
			if body == nil { // forgotten meanwhile
				continue
			}
			room -= len(body)
			batch = append(batch, outgoing{key: key, from: item.from, body: body})
		}
		return nil
	}
	if g.pending.records = take(g.pending.records); len(g.pending.records) == 0 {
		g.pending.counters = take(g.pending.counters)
	}
	return batch
}

// encode returns an item of the store, or nil when it is not there any more.
func (g *Gossip) encode(key pendingKey, hops uint8) []byte {
	o := g.store.origins[key.origin]
	if o == nil {
		return nil
	}
	if key.counter == "" {
		return appendRecordItem(nil, recordItem{hops: hops, origin: key.origin, version: o.version, raw: o.raw})
	}
	slot, ok := o.slots[key.counter]
	if !ok {
		return nil
	}
	return appendSlotsItem(nil, hops, key.origin, o.incarnation, map[string]Slot{key.counter: slot})
}

// pushLoop sends what is pending: at once what comes after a pause, together what comes within bundleDelay of the last.
func (g *Gossip) pushLoop() {
	var last time.Time
	for {
		var flushed chan struct{}
		select {
		case <-g.ctx.Done():
			return
		case flushed = <-g.flush:
		case <-g.wake:
			if wait := time.Until(last.Add(bundleDelay)); wait > 0 {
				select {
				case <-g.ctx.Done():
					return
				case flushed = <-g.flush:
				case <-time.After(wait):
				}
			}
		}
		last = time.Now()
		for batch := g.takeBatch(); len(batch) > 0; batch = g.takeBatch() {
			if !g.send(batch) {
				return
			}
		}
		if flushed != nil {
			close(flushed)
		}
	}
}

// send sends a batch to a few members and leaves it to memberlist to repair. It returns false when the Gossip is closed.
func (g *Gossip) send(batch []outgoing) bool {
	for _, to := range g.targets(g.fanout(g.nodes())) {
		message := appendHeader(make([]byte, 0, g.payloadMax), g.id, 0)
		items := 0
		for _, out := range batch {
			if to.Name != out.key.origin && to.Name != out.from {
				message = append(message, out.body...)
				items++
			}
		}
		if items == 0 {
			continue
		}
		if err := g.budget.WaitN(g.ctx, len(message)); err != nil {
			return false
		}
		g.metrics.sent.WithLabelValues(wayPush).Add(float64(items))
		if len(message) > g.payloadMax {
			g.stream(streamJob{to: to, message: message})
		} else if err := g.list.SendBestEffort(to, message); err != nil {
			g.metrics.lost.WithLabelValues(lostSend).Inc()
		}
	}
	for _, out := range batch {
		g.repair(out)
	}
	return true
}

// repair lets an item go along with memberlist's gossip, if it fits there.
func (g *Gossip) repair(out outgoing) {
	message := append(appendHeader(nil, g.id, 0), out.body...)
	if len(message) <= g.payloadMax-repairOverhead {
		g.repairs.add(out.key, message)
	}
}

// nodes returns how many nodes are there, this one included.
func (g *Gossip) nodes() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.live) + 1
}

// targets returns the nodes to push to, n of them or all others if there are fewer: the next by id, and random ones. When each
// node sends to 8 random ones of 100, one event in 40 misses someone, though nothing is lost; along the ring that the ids
// make, news always go on.
func (g *Gossip) targets(n int) []*memberlist.Node {
	g.mu.Lock()
	others, next := slices.Clone(g.live), g.next
	g.mu.Unlock()
	n = min(n, len(others))
	for i := range n {
		j := next
		if i > 0 {
			j = i + rand.IntN(len(others)-i)
		}
		others[i], others[j] = others[j], others[i]
	}
	return others[:n]
}

// streamJob is a message that is too large for a packet, or that must not get lost.
type streamJob struct {
	to      *memberlist.Node
	message []byte
}

// stream has a message sent over a stream by another goroutine. It does not block; what finds the queue full is dropped and
// left to reconciliation.
func (g *Gossip) stream(job streamJob) {
	select {
	case g.streams <- job:
	default:
		g.metrics.lost.WithLabelValues(lostQueue).Inc()
	}
}

func (g *Gossip) streamLoop() {
	for {
		select {
		case <-g.ctx.Done():
			return
		case job := <-g.streams:
			if err := g.list.SendReliable(job.to, job.message); err != nil {
				g.metrics.lost.WithLabelValues(lostSend).Inc()
			}
		}
	}
}
