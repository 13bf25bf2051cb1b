package hnsw

import (
	"context"
	"math/bits"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/vectord/vectord/index"
)

// unlinkChunk is the number of slots that Unlink treats between two looks at its context, two chances for the arena to grow,
// and two for other goroutines to run: some milliseconds. floodChunk is as long a stretch of nodes that a flood reaches.
const (
	unlinkChunk = 256
	floodChunk  = 4096
)

// Unlink takes the deleted nodes out of the graph and returns the number of slots that Insert may use again. It visits
// every row of links once: a node that links to deleted ones gets links to the live neighbors of these in their place. Nodes
// that no walk would reach any more are linked to from their neighbors. It then waits for the searches that had begun before, as they may still be on their way through the old links.
//
// It runs beside searches, inserts and deletes; nodes deleted meanwhile stay for the next call. If ctx ends first it
// returns the context's error: then no slot is free, and the graph is as good as before. One Unlink runs at a time, others
// wait.
func (g *Graph) Unlink(ctx context.Context) (freed int, err error) {
	g.unlinking.Lock()
	defer g.unlinking.Unlock()
	victims := g.survey()
	if victims == nil {
		return 0, nil
	}
	// An insert that began before may have chosen a victim while it was alive. One that begins later sees all of them dead.
	if err := g.epochs.synchronize(ctx); err != nil {
		return 0, err
	}
	if err := g.eachChunk(ctx, len(victims), func(s *searcher, slot uint32) { s.bypass(slot, victims) }); err != nil {
		return 0, err
	}
	g.moveEntry(victims)
	var reached flood
	if err := g.eachChunk(ctx, len(victims), func(s *searcher, slot uint32) {
		if reached.slots == nil && s.entry != noEntry {
			reached.spread(s.arena, uint32(s.entry), s.limit)
		}
		if s.arena.isLive(slot) && !reached.slots.Contains(slot) {
			s.adopt(slot)
			reached.spread(s.arena, slot, s.limit)
		}
	}); err != nil {
		return 0, err
	}
	if err := g.epochs.synchronize(ctx); err != nil {
		return 0, err
	}
	return g.free(victims)
}

// survey returns the nodes to take out, nil if there are none.
func (g *Graph) survey() index.Bitset {
	defer g.epochs.enter(0).exit()
	a := g.arena.Load()
	if a == nil || g.deleted.Load() == 0 {
		return nil
	}
	high := min(g.high.Load(), a.slots)
	found := false
	victims := index.Bitset{}.Grow(int(high))
	for slot := range high {
		if atomic.LoadUint32(&a.states[slot])&(linked|dead) == linked|dead {
			victims = victims.Set(slot)
			found = true
		}
	}
	if !found {
		return nil
	}
	return victims
}

// flood finds out which nodes the links of layer 0 lead to.
type flood struct {
	slots index.Bitset // those reached; nil before the first spread
	stack []uint32
}

// spread reaches a node below limit, and all below limit that links lead to from there.
func (f *flood) spread(a *arena, slot, limit uint32) {
	f.slots = f.slots.Grow(int(limit)).Set(slot)
	f.stack = append(f.stack[:0], slot)
	for n := 1; len(f.stack) > 0; n++ {
		if n%floodChunk == 0 {
			runtime.Gosched()
		}
		last := len(f.stack) - 1
		row := a.links(f.stack[last], 0)
		f.stack = f.stack[:last]
		for i := range row {
			link := atomic.LoadUint32(&row[i])
			if link == none {
				break
			}
			if link < limit && !f.slots.Contains(link) {
				f.slots.Set(link)
				f.stack = append(f.stack, link)
			}
		}
	}
}

// eachChunk calls f for each slot of a number of 64-bit words, with a searcher that is fit for writing.
func (g *Graph) eachChunk(ctx context.Context, words int, f func(*searcher, uint32)) error {
	s := acquire()
	defer s.release()
	for first := 0; first < 64*words; first += unlinkChunk {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := g.chunk(s, uint32(first), f); err != nil {
			return err
		}
		runtime.Gosched() // rather than to keep a processor until the runtime takes it away
	}
	return nil
}

func (g *Graph) chunk(s *searcher, first uint32, f func(*searcher, uint32)) error {
	g.writers.RLock()
	defer g.writers.RUnlock()
	if g.closed.Load() {
		return errClosed
	}
	s.begin(g)
	defer s.end()
	for slot := first; slot < min(first+unlinkChunk, s.limit); slot++ {
		f(s, slot)
	}
	return nil
}

// bypass replaces a node's links to victims.
func (s *searcher) bypass(slot uint32, victims index.Bitset) {
	a := s.arena
	// A node that is being inserted began to be after the victims had died, so it has no link to them.
	if atomic.LoadUint32(&a.states[slot])&linked == 0 || victims.Contains(slot) {
		return
	}
	for l := range s.graph.level(slot) + 1 {
		row := a.links(slot, l)
		s.links = appendLinks(s.links[:0], row)
		for _, link := range s.links {
			if victims.Contains(link) {
				s.relink(slot, l)
				break
			}
		}
	}
}

// relink replaces a node's links to deleted nodes on a layer by links to live neighbors of these. The links to live nodes
// stay: choosing them anew along with the others would drop the many that were never chosen but taken because there was
// room, and cost some percent of recall with each round of deletes.
func (s *searcher) relink(slot uint32, layer int) {
	a := s.arena
	a.lock(slot)
	defer a.unlock(slot)
	row := a.links(slot, layer)
	s.limit = min(s.graph.high.Load(), a.slots) // covers whoever was inserted and linked to from here just now
	s.visited.reset(s.limit)
	s.visited.add(slot)
	s.old = append(s.old[:0], s.visited.addLinks(row, s.limit, fetcher{})...)
	s.links = s.links[:0]
	for _, neighbor := range s.old {
		if !a.isDead(neighbor) {
			s.links = append(s.links, neighbor)
		}
	}
	kept := len(s.links)
	for _, neighbor := range s.old {
		if a.isDead(neighbor) {
			s.links = append(s.links, s.visited.addLinks(a.links(neighbor, layer), s.limit, fetcher{})...)
		}
	}
	s.rewrite(slot, row, kept)
}

// adopt links a live node that no walk reaches to new neighbors and back, as if it were inserted again on layer 0. The
// nearest of them links to it whatever its other links are.
func (s *searcher) adopt(slot uint32) {
	a := s.arena
	if !a.isLive(slot) || !s.plan(slot, 0) {
		return
	}
	a.lock(slot)
	row := a.links(slot, 0)
	s.links = appendLinks(s.links[:0], row)
	kept := len(s.links)
	for _, k := range s.chosen[0] {
		if link := keySlot(k); !slices.Contains(s.links, link) {
			s.links = append(s.links, link)
		}
	}
	s.rewrite(slot, row, kept)
	a.unlock(slot)
	s.linkBack(slot, 0)
	s.insist(keySlot(s.chosen[0][0]), slot)
}

// insist makes a node link to another on layer 0, in place of its last link if it has no room and would not choose it.
func (s *searcher) insist(node, slot uint32) {
	a := s.arena
	a.lock(node)
	defer a.unlock(node)
	row := a.links(node, 0)
	s.links = appendLinks(s.links[:0], row)
	if a.isDead(node) || slices.Contains(s.links, slot) {
		return
	}
	at := min(len(s.links), len(row)-1)
	atomic.StoreUint32(&row[at], slot)
}

// moveEntry moves the entry point to a node of the highest layer that is left, if it is a victim.
func (g *Graph) moveEntry(victims index.Bitset) {
	g.entering.Lock()
	defer g.entering.Unlock()
	entry := g.entry.Load()
	if entry == noEntry || !victims.Contains(uint32(entry)) {
		return
	}
	defer g.epochs.enter(0).exit()
	a := g.arena.Load()
	if a == nil {
		return
	}
	best, bestRank := uint64(noEntry), -1
	for slot := range min(g.high.Load(), a.slots) {
		state := atomic.LoadUint32(&a.states[slot])
		if state&linked == 0 || victims.Contains(slot) {
			continue
		}
		level := g.level(slot)
		rank := level
		if state&dead == 0 {
			rank += layersMax // any live node before one that has died since
		}
		if rank > bestRank {
			best, bestRank = uint64(level)<<32|uint64(slot), rank
		}
	}
	g.entry.Store(best)
}

// free gives the victims' slots back to Insert.
func (g *Graph) free(victims index.Bitset) (int, error) {
	g.writers.RLock()
	defer g.writers.RUnlock()
	a := g.arena.Load()
	if a == nil {
		return 0, errClosed
	}
	freed := 0
	for i, w := range victims {
		for ; w != 0; w &= w - 1 {
			slot := uint32(64*i + bits.TrailingZeros64(w))
			atomic.AndUint64(&a.dead[i], ^(w & -w))
			atomic.StoreUint32(&a.states[slot], 0)
			freed++
		}
	}
	g.deleted.Add(int64(-freed))
	return freed, nil
}
