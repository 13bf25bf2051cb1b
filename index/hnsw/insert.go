package hnsw

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/quant"
)

// Insert adds a node with vector v to the graph. Searches that begin after it returns find the node; those that run
// meanwhile may. It returns an error, and changes nothing, if v has not the codec's dimension, if slot is not below
// MaxSlots or is occupied (see Occupied), if there is no memory, or if the graph is closed.
//
// Any number of inserts may run at once. Those of the same vectors in the same slots one after the other make the same
// graph.
func (g *Graph) Insert(slot uint32, v []float32) error {
	if len(v) != g.codec.Dim() {
		return vectord.Errorf(vectord.KindInvalid, "hnsw: insert slot %d: vector of dimension %d, expected %d", slot, len(v), g.codec.Dim())
	}
	if slot >= g.cfg.MaxSlots {
		return vectord.Errorf(vectord.KindInvalid, "hnsw: insert slot %d: must be below %d", slot, g.cfg.MaxSlots)
	}
	a, err := g.lockWriter(slot)
	if err != nil {
		return err
	}
	defer g.writers.RUnlock()

	level := g.level(slot)
	if err := g.takeTower(a, slot, level); err != nil {
		return err
	}
	if !atomic.CompareAndSwapUint32(&a.states[slot], 0, occupied) {
		return vectord.Errorf(vectord.KindExists, "hnsw: insert slot %d: occupied", slot)
	}
	g.codec.EncodeRow(a.code(slot), v)
	g.raiseHigh(a, slot+1)

	s := acquire()
	defer s.release()
	s.begin(g)
	s.insert(slot, level)
	if old := atomic.OrUint32(&a.states[slot], linked); old&dead == 0 {
		g.live.Add(1)
	}
	return nil
}

// raiseHigh makes high at least to, and asks for huge pages when the arena is large enough for them.
func (g *Graph) raiseHigh(a *arena, to uint32) {
	for {
		high := g.high.Load()
		if high >= to {
			return
		}
		if g.high.CompareAndSwap(high, to) {
			if enough := a.hugeSlots(); high < enough && enough <= to {
				a.adviseHuge(to)
			}
			return
		}
	}
}

// lockWriter returns the arena, which has room for slot, with writers read-held. If it returns an error nothing is held.
func (g *Graph) lockWriter(slot uint32) (*arena, error) {
	for {
		g.writers.RLock()
		a := g.arena.Load()
		if a != nil && slot < a.slots {
			return a, nil
		}
		closed := g.closed.Load()
		g.writers.RUnlock()
		if closed {
			return nil, errClosed
		}
		if err := g.grow(slot); err != nil {
			return nil, err
		}
	}
}

var errClosed = vectord.Errorf(vectord.KindClosed, "hnsw: the graph is closed")

// linker is the part of a searcher that only writers use.
type linker struct {
	pivot  quant.Query // the chosen node that candidates are compared with
	keys   []uint64    // candidates
	links  []uint32    // of a row, or to choose a row's from
	old    []uint32    // of a row that is to be written anew
	kept   []uint32    // the links that a row gets
	chosen [layersMax][]uint64
}

// insert links a node whose code is in place and which nobody can reach yet.
func (s *searcher) insert(slot uint32, level int) {
	g := s.graph
	if level <= s.top() && s.plan(slot, level) {
		s.publish(slot, level)
		return
	}
	// The node is the first one, or higher than the entry point, or can find no live node: then it becomes the entry point,
	// unless another insert has been quicker.
	g.entering.Lock()
	defer g.entering.Unlock()
	s.entry = g.entry.Load()
	s.limit = min(g.high.Load(), s.arena.slots)
	found := s.plan(slot, level)
	s.publish(slot, level)
	if !found || level > s.top() {
		g.entry.Store(uint64(level)<<32 | uint64(slot))
	}
}

// top returns the entry point's layer, -1 if there is none.
func (s *searcher) top() int {
	if s.entry == noEntry {
		return -1
	}
	return int(s.entry >> 32)
}

// insertReach is how many candidates an insert keeps for each node that it expands on the way. The nearest ones decide the
// links, and they are found long before as many nodes are expanded as candidates are kept.
const insertReach = 3

// plan chooses the links of a node on the layers from 0 to level and reports whether it found any on layer 0.
func (s *searcher) plan(slot uint32, level int) bool {
	for l := range level + 1 {
		s.chosen[l] = s.chosen[l][:0]
	}
	if s.entry == noEntry {
		return false
	}
	s.graph.codec.QueryFromRow(&s.query, s.arena.code(slot))
	var see visibility
	if s.graph.deleted.Load() != 0 {
		see.dead = s.arena.dead
	}
	ef := int(s.graph.efConstruction.Load())
	walked := goal{k: min(s.arena.m, ef), depth: ef, ef: (ef + insertReach - 1) / insertReach}
	walked.ef = max(walked.ef, walked.k)
	highest := min(level, s.top())
	nearest := s.descend(highest)
	for l := highest; l >= 0; l-- {
		s.start(walked, nearest)
		s.walk(l)
		nearest = s.pool.keys[0] &^ expandedBit
		if l == 0 {
			s.graph.growth.learn(s.graph.codec, &s.query, s.pool.keys[:min(walked.ef, len(s.pool.keys))])
		}
		s.dropHidden(&see)
		if l == 0 && len(s.pool.keys) < min(s.arena.m, s.graph.Len()) {
			s.scanVisible(ef, &see) // the node lies among deleted ones
		}
		s.keys = s.keys[:0]
		for _, k := range s.pool.keys {
			if keySlot(k) != slot {
				s.keys = append(s.keys, k&^expandedBit)
			}
		}
		s.chosen[l] = append(s.chosen[l], s.choose(slot, s.keys, s.arena.m)...)
	}
	return len(s.chosen[0]) > 0
}

// copiesShare is the inverse of the share of a row that links to copies of the node itself may take. Each is as near as
// can be and none is nearer to another than to the node, so many copies of one vector would else fill their rows with each
// other and cut themselves off.
const copiesShare = 2

// choose returns up to width of a node's candidates, which are in order, and uses up the rest: the nearest, and each further
// one that is not nearer to one already chosen than to the node. Links so chosen lead in all directions instead of all into
// the nearest cluster.
//
// Each chosen node is compared with all keys that remain, in one call, instead of each key with all chosen ones: the same
// comparisons but for those that come after the last choice.
func (s *searcher) choose(node uint32, keys []uint64, width int) []uint64 {
	s.graph.codec.QueryFromRow(&s.pivot, s.arena.code(node))
	s.slots = append(s.slots[:0], node)
	s.batch = s.slots
	s.scoreBy(&s.pivot)
	self := s.scores[0]
	first, _ := slices.BinarySearch(keys, key(self, 0))
	end, _ := slices.BinarySearch(keys, key(self, keySlots-1))
	if most := first + width/copiesShare; end > most {
		// Which of the copies to keep is a matter of chance, so that every one of them is linked to by some.
		slices.SortFunc(keys[first:end], func(a, b uint64) int {
			return cmp.Compare(splitmix64(uint64(node)<<32|uint64(keySlot(a))), splitmix64(uint64(node)<<32|uint64(keySlot(b))))
		})
		keys = slices.Delete(keys, most, end)
	}
	n := 0
	for n < len(keys) && n < width {
		pivot := keySlot(keys[n])
		n++
		if n == len(keys) || n == width {
			break
		}
		s.slots = s.slots[:0]
		for _, k := range keys[n:] {
			s.slots = append(s.slots, keySlot(k))
		}
		s.batch = s.slots
		s.graph.codec.QueryFromRow(&s.pivot, s.arena.code(pivot))
		s.scoreBy(&s.pivot)
		kept := n
		for i, k := range keys[n:] {
			if s.scores[i] >= keyDistance(k) {
				keys[kept] = k
				kept++
			}
		}
		keys = keys[:kept]
	}
	return keys[:n]
}

// publish writes the links that plan chose for a node nobody can reach yet, and then makes it reachable. Layer 0 comes
// first, so that no walk that comes down through the node finds it without links there.
func (s *searcher) publish(slot uint32, level int) {
	for l := range level + 1 {
		s.kept = s.kept[:0]
		for _, k := range s.chosen[l] {
			s.kept = append(s.kept, keySlot(k))
		}
		setLinks(s.arena.links(slot, l), s.kept)
	}
	for l := range level + 1 {
		s.linkBack(slot, l)
	}
}

// linkBack links the nodes chosen for a node on a layer to it.
func (s *searcher) linkBack(slot uint32, layer int) {
	for _, k := range s.chosen[layer] {
		s.link(keySlot(k), layer, key(keyDistance(k), slot))
	}
}

// link adds a link to node's row, to the slot and of the distance that k says. If the row is full its links are chosen anew.
func (s *searcher) link(node uint32, layer int, k uint64) {
	a := s.arena
	a.lock(node)
	defer a.unlock(node)
	if a.isDead(node) {
		return
	}
	row := a.links(node, layer)
	for i := range row {
		switch atomic.LoadUint32(&row[i]) {
		case keySlot(k):
			return
		case none:
			atomic.StoreUint32(&row[i], keySlot(k))
			return
		}
	}
	s.links = append(appendLinks(s.links[:0], row), keySlot(k))
	s.rewrite(node, row, 0)
}

// rewrite chooses a node's links on a layer among the slots in links, of which it disregards the dead. The first ones, as
// many as kept says, stay links in any case, at the head of the row. The caller holds the node's lock.
func (s *searcher) rewrite(node uint32, row []uint32, kept int) {
	s.keys, s.kept = s.keys[:0], s.kept[:0]
	s.slots = s.slots[:0]
	for i, slot := range s.links {
		if s.arena.isDead(slot) {
			continue
		}
		if i < kept {
			s.kept = append(s.kept, slot)
		}
		s.slots = append(s.slots, slot)
	}
	s.batch = s.slots
	s.graph.codec.QueryFromRow(&s.pivot, s.arena.code(node))
	s.scoreBy(&s.pivot)
	for i, d := range s.scores {
		s.keys = append(s.keys, key(d, s.batch[i]))
	}
	slices.Sort(s.keys)
	for _, k := range s.choose(node, s.keys, len(row)) {
		if slot := keySlot(k); len(s.kept) < len(row) && !slices.Contains(s.kept, slot) {
			s.kept = append(s.kept, slot)
		}
	}
	setLinks(row, s.kept)
}
