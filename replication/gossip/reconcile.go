package gossip

import (
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/vectord/vectord"
)

const (
	rejoinMax     = 3       // members that are gone, strangers and seeds that are tried at each reconciliation
	resolvedMax   = 8       // addresses of one name that are tried
	replyBytesMax = 1 << 20 // an answer grows no further beyond this; the next reconciliation brings the rest
)

// reconcileLoop compares what this node knows with one random member every reconcileInterval, and tries to reach those that
// are gone. memberlist's own push-pull does the former too seldom in clusters of more than 32 nodes, where it lengthens its
// interval, and the latter not at all.
func (g *Gossip) reconcileLoop() {
	timer := time.NewTimer(rand.N(reconcileInterval)) // nodes that start together do not tick together
	defer timer.Stop()
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-timer.C:
			timer.Reset(reconcileInterval)
		}
		g.forgetOld(time.Now())
		if to := g.anyone(); to != nil {
			g.metrics.sent.WithLabelValues(wayDigest).Inc()
			if err := g.list.SendReliable(to, g.digest()); err != nil {
				g.metrics.lost.WithLabelValues(lostSend).Inc()
			}
		}
		g.rejoin()
	}
}

// anyone returns a random other node that is there, or nil.
func (g *Gossip) anyone() *memberlist.Node {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.live) == 0 {
		return nil
	}
	return g.live[rand.IntN(len(g.live))]
}

// digest returns a message that says what is known of members, by versions.
func (g *Gossip) digest() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	digest := make([]digestEntry, 0, len(g.members))
	for id := range g.members {
		if o := g.store.origins[id]; o != nil {
			digest = append(digest, digestEntry{origin: id, version: o.version, counters: o.countersHash()})
		}
	}
	return appendDigestItem(appendHeader(nil, g.id, flagBulk), digest)
}

// answer returns the answer to a message that asks for something, or nil when there is nothing to say. A digest is answered
// with what its sender lacks, and asked for what it has newer, which is then all the difference between the two.
func (g *Gossip) answer(m message) []byte {
	head := appendHeader(nil, g.id, flagBulk)
	reply := slices.Clip(head)
	if m.asks {
		told := make(map[string]struct{}, len(m.digest))
		for _, e := range m.digest {
			told[e.origin] = struct{}{}
			if len(reply) > replyBytesMax {
				continue
			}
			lacks, has := g.store.difference(e)
			if g.members[e.origin] != nil { // what is known of strangers only is not passed on, or it would never die out
				reply = g.store.appendParts(reply, e.origin, lacks)
			}
			if has != 0 {
				reply = appendWantItem(reply, want{origin: e.origin, parts: has})
			}
		}
		for id := range g.members {
			if _, ok := told[id]; !ok && len(reply) <= replyBytesMax {
				reply = g.store.appendParts(reply, id, partRecord|partCounters)
			}
		}
	}
	for _, w := range m.wants {
		if g.members[w.origin] != nil && len(reply) <= replyBytesMax {
			reply = g.store.appendParts(reply, w.origin, w.parts)
		}
	}
	if len(reply) == len(head) {
		return nil
	}
	return reply
}

// rejoin tries to reach some that should be there and are not: members that died, strangers, and seeds. A partition that has lasted for
// long enough that both sides think the other dead, or have forgotten it, heals by this.
func (g *Gossip) rejoin() {
	var attempts sync.WaitGroup
	for _, address := range g.missing(rejoinMax) {
		attempts.Go(func() { g.join(address) })
	}
	attempts.Wait()
}

// missing returns at most n random addresses of members that died, of strangers, and of seeds at which no member is.
func (g *Gossip) missing(n int) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.leaving {
		return nil
	}
	here := map[string]bool{g.self.Addresses.Gossip: true}
	var missing []string
	for _, m := range g.members {
		if m.live {
			here[m.node.Address()] = true
		} else if m.state == StateDead {
			missing = append(missing, m.node.Address())
		}
	}
	for id := range g.strangers { // memberlist has not heard that they joined, or they have died since
		if r := g.store.origins[id].record; r.Addresses.Gossip != "" && !r.leaving {
			missing = append(missing, r.Addresses.Gossip)
		}
	}
	for _, seed := range g.seeds {
		if !here[seed] {
			missing = append(missing, seed)
		}
	}
	slices.Sort(missing)
	missing = slices.Compact(missing)
	rand.Shuffle(len(missing), func(i, j int) { missing[i], missing[j] = missing[j], missing[i] })
	return missing[:min(n, len(missing))]
}

// Join adds seeds, host:port each, through which this node finds the cluster, and returns at once. They are tried in the
// background until another node is there, with pauses from 100 ms up to 10 s, and now and then after that, so that clusters that were
// split find each other again. A node's own address may be among its seeds. It fails with KindInvalid for an address that
// is none, KindTooLarge for more than 64 seeds, and KindClosed.
func (g *Gossip) Join(seeds []string) error {
	for _, seed := range seeds {
		if err := checkSeed(seed); err != nil {
			return err
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	all := slices.Concat(g.seeds, seeds)
	slices.Sort(all)
	all = slices.Compact(all)
	if len(all) > seedsMax {
		return vectord.Errorf(vectord.KindTooLarge, "gossip: %d seeds, at most %d are allowed", len(all), seedsMax)
	}
	g.seeds = all
	select {
	case g.joinWake <- struct{}{}:
	default:
	}
	return nil
}

// joinLoop tries the seeds after Join until another node is there.
func (g *Gossip) joinLoop() {
	var retry <-chan time.Time
	var delay time.Duration
	for {
		select {
		case <-g.ctx.Done():
			return
		case <-g.joinWake:
			delay = joinDelayMin
		case <-retry:
			delay = min(2*delay, joinDelayMax)
		}
		retry = nil
		for _, address := range g.missing(seedsMax) {
			if g.join(address) {
				break
			}
			retry = time.After(delay/2 + rand.N(delay/2))
		}
		if g.nodes() > 1 {
			retry = nil
		}
	}
}

// join exchanges everything with the node at an address and returns whether another node is there then.
func (g *Gossip) join(address string) bool {
	ctx, cancel := context.WithTimeout(g.ctx, streamTimeout)
	defer cancel()
	host, port, err := net.SplitHostPort(address)
	var ips []string
	if err == nil {
		ips, err = net.DefaultResolver.LookupHost(ctx, host)
	}
	for _, ip := range ips[:min(len(ips), resolvedMax)] {
		if _, err = g.list.Join([]string{net.JoinHostPort(ip, port)}); err == nil && g.nodes() > 1 {
			return true
		}
	}
	if err != nil {
		g.logger.Debug("no answer", "address", address, "error", err)
	}
	return false
}
