// Package hnsw is an approximate index of vectors: a hierarchical navigable small world graph over quantized rows, changed
// and searched by any number of goroutines at once.
//
// The algorithm is that of Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
// Hierarchical Navigable Small World graphs" (2016), whose letters M and ef are kept. Nodes are taken out as in FreshDiskANN
// (Singh et al., 2021), and filtered searches look two links ahead as ACORN-1 does (Patel et al., 2024).
//
// # Concurrency
//
// A search takes no lock and waits for nobody. It may run beside any writer because of four things.
//
// Publication. The row of a code is written while its slot cannot be reached. Insert writes, in this order, the code, the
// node's own links on all layers, then the links of others to it, each link by an atomic store. Whoever reads a slot's
// number by an atomic load, from a row of links or from the entry point, therefore sees its code and its links.
//
// Links are words. A row of links is changed by atomic stores of single words under the node's lock, which keeps other
// writers away and no reader. A reader may see some old links among the new; all of them are nodes of that layer, so the
// walk is as valid as one that came a moment sooner or later. A sequence lock would give whole rows, and cost a shared
// write or a retry for each.
//
// Epochs. A reader announces itself before it loads anything (see epochs). Unlink removes every link to the nodes that it
// takes out, and keeps their slots from Insert until each reader that began before that has ended. Two things make "every
// link" true while Insert runs beside it: Insert never links to a node that it sees dead, and Unlink first waits for the
// inserts that began before its list of nodes was made.
//
// One pointer. Everything is in one arena. It has room for all slots from the start, or else is replaced as a whole when it is
// outgrown, while no writer runs (see arenaSlots). A reader loads the entry point first, the arena second and the number of slots third, so that each leads only to what the next
// one has.
//
// Locks are taken in the order unlinking, writers, growing, entering, then one node's lock; never two nodes' locks.
//
// Under the race detector all memory is on the Go heap and the distances are computed by Go code, so that the detector
// checks this protocol as it runs.
package hnsw

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/quant"
)

// The values that a zero field of Config stands for.
const (
	DefaultM              = 16
	DefaultEfConstruction = 200
	DefaultMaxLayers      = 5
	DefaultMaxSlots       = 1 << 27
)

// The largest values of Config's fields.
const (
	mMax              = 128
	efConstructionMax = 1 << 14
	layersMax         = 16
	slotsMax          = 1 << 30
)

// Config shapes a Graph. The zero value is a good start.
type Config struct {
	// M is the number of links that a new node gets on each layer. A node keeps up to M on the upper layers and 2M on layer
	// 0. From 2 to 128; 0 means 16.
	M int

	// EfConstruction is the number of candidates among which Insert chooses a node's links, up to 16,384; 0 means 200.
	EfConstruction int

	// MaxLayers bounds the layers, up to 16; 0 means 5.
	MaxLayers int

	// MaxSlots bounds the slots: the largest is MaxSlots-1. Up to 2^30; 0 means 2^27. Where memory cannot be reserved apart
	// from being used (outside of 64-bit Linux and macOS, and under the race detector) a graph ends at 1 GiB if that is
	// sooner.
	MaxSlots uint32
}

// withDefaults returns the configuration with zero fields filled, or an error that names the field that is out of range.
func (c Config) withDefaults() (Config, error) {
	check := func(name string, value *int, standard, least, most int) error {
		if *value == 0 {
			*value = standard
		}
		if *value < least || *value > most {
			return vectord.Errorf(vectord.KindInvalid, "hnsw: %s is %d, must be %d to %d", name, *value, least, most)
		}
		return nil
	}
	if err := check("M", &c.M, DefaultM, 2, mMax); err != nil {
		return c, err
	}
	if err := check("EfConstruction", &c.EfConstruction, DefaultEfConstruction, 1, efConstructionMax); err != nil {
		return c, err
	}
	if err := check("MaxLayers", &c.MaxLayers, DefaultMaxLayers, 1, layersMax); err != nil {
		return c, err
	}
	if c.MaxSlots == 0 {
		c.MaxSlots = DefaultMaxSlots
	}
	if c.MaxSlots > slotsMax {
		return c, vectord.Errorf(vectord.KindInvalid, "hnsw: MaxSlots is %d, must be 1 to %d", c.MaxSlots, slotsMax)
	}
	return c, nil
}

// Graph is the index. A node is known by its slot, a small number that the caller chooses and that should be dense, as
// memory is laid out by slot. All methods are safe for concurrent use.
//
// A Graph holds memory that the garbage collector does not know of: Close it.
type Graph struct {
	codec quant.Codec
	cfg   Config

	// levels[l] is the hash of a slot below which the slot's node reaches layer l+1. Falling.
	levels []uint64

	efConstruction atomic.Int64
	arena          atomic.Pointer[arena] // nil before the first insert and after Close
	entry          atomic.Uint64         // the entry point's layer<<32 | slot, or noEntry
	high           atomic.Uint32         // 1 + the largest slot that ever was inserted
	live           atomic.Int64          // nodes that are linked and not dead
	deleted        atomic.Int64          // nodes that are dead and not yet free
	closed         atomic.Bool
	growth         growth
	epochs         *epochs

	costs costs

	// arenaSlots is the function of that name. Tests of growth have another.
	arenaSlots func(least, most uint64, slotBytes int) uint64

	unlinking sync.Mutex   // held by Unlink
	writers   sync.RWMutex // read-held by whoever changes links; held by whoever needs that nobody does
	growing   sync.RWMutex // read-held by Delete; held while the arena is replaced
	entering  sync.Mutex   // held by whoever changes entry, from before looking at it

	towersMu sync.Mutex // held alone and briefly, whatever else is held
	towers   uint64     // rows of upper links given out
}

// noEntry is the entry point of a graph without nodes.
const noEntry = math.MaxUint64

// New returns an empty graph of vectors that codec quantizes. It takes no arena before the first insert.
func New(codec quant.Codec, cfg Config) (*Graph, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	g := &Graph{codec: codec, cfg: cfg, epochs: newEpochs(), arenaSlots: arenaSlots}
	threshold := float64(1 << 64)
	for range cfg.MaxLayers - 1 {
		threshold /= float64(cfg.M)
		g.levels = append(g.levels, uint64(threshold))
	}
	g.efConstruction.Store(int64(cfg.EfConstruction))
	g.entry.Store(noEntry)
	return g, nil
}

// Codec returns the codec that the graph was made with.
func (g *Graph) Codec() quant.Codec { return g.codec }

// Config returns the configuration, without zero fields.
func (g *Graph) Config() Config {
	c := g.cfg
	c.EfConstruction = int(g.efConstruction.Load())
	return c
}

// SetEfConstruction changes the number of candidates of the inserts to come, within the range of Config.
func (g *Graph) SetEfConstruction(n int) {
	g.efConstruction.Store(int64(min(max(n, 1), efConstructionMax)))
}

// Len returns the number of live nodes.
func (g *Graph) Len() int { return int(g.live.Load()) }

// Deleted returns the number of nodes that wait for Unlink.
func (g *Graph) Deleted() int { return int(g.deleted.Load()) }

// Live reports whether the slot's node is inserted and not deleted.
func (g *Graph) Live(slot uint32) bool { return g.state(slot)&(linked|dead) == linked }

// Occupied reports whether Insert would refuse the slot as taken: its node is live, being inserted, or deleted and not yet
// unlinked.
func (g *Graph) Occupied(slot uint32) bool { return g.state(slot)&occupied != 0 }

func (g *Graph) state(slot uint32) uint32 {
	defer g.epochs.enter(slot).exit()
	a := g.arena.Load()
	if a == nil || slot >= a.slots {
		return 0
	}
	return atomic.LoadUint32(&a.states[slot])
}

// AppendLive appends the slots of the live nodes in ascending order.
func (g *Graph) AppendLive(dst []uint32) []uint32 {
	defer g.epochs.enter(0).exit()
	a := g.arena.Load()
	if a == nil {
		return dst
	}
	for slot := range min(g.high.Load(), a.slots) {
		if a.isLive(slot) {
			dst = append(dst, slot)
		}
	}
	return dst
}

// MemoryBytes returns the memory that the nodes take: everything up to the largest slot inserted, whether or not the slots
// below it are in use.
func (g *Graph) MemoryBytes() int64 {
	if g.arena.Load() == nil {
		return 0
	}
	g.towersMu.Lock()
	towers := g.towers
	g.towersMu.Unlock()
	bytes := int64(towers) * int64(g.cfg.M) * 4
	high := int64(g.high.Load())
	return bytes + high*int64(g.codec.RowSize()+2*g.cfg.M*4+4+4) + (high+7)/8
}

// Delete hides the slot's node from every search that begins after Delete returns. It reports whether there was a node to
// hide: one that is live, or being inserted, which is then hidden at once as well. The node's slot is taken, and its links
// serve as a way for searches, until Unlink. Delete takes constant time, save that it waits while the arena grows.
func (g *Graph) Delete(slot uint32) bool {
	g.growing.RLock()
	defer g.growing.RUnlock()
	a := g.arena.Load()
	if a == nil || slot >= a.slots {
		return false
	}
	state := &a.states[slot]
	old := atomic.LoadUint32(state)
	for {
		if old&(occupied|dead) != occupied {
			return false
		}
		if atomic.CompareAndSwapUint32(state, old, old|dead) {
			break
		}
		old = atomic.LoadUint32(state)
	}
	atomic.OrUint64(&a.dead[slot/64], 1<<(slot%64))
	g.deleted.Add(1) // after the bit: a search that sees no deleted node does not look at the bits
	if old&linked != 0 {
		g.live.Add(-1)
	}
	return true
}

// Close frees the memory once the running calls have ended. Later searches find nothing and later inserts fail.
func (g *Graph) Close() {
	g.writers.Lock()
	defer g.writers.Unlock()
	g.growing.Lock()
	defer g.growing.Unlock()
	g.closed.Store(true)
	g.entry.Store(noEntry)
	g.live.Store(0)
	g.deleted.Store(0)
	g.replaceArena(nil)
}

// replaceArena makes next the arena and frees the old one when nobody can read it any more. The caller holds writers and
// growing, so readers are all that is left to wait for, and they end by themselves.
func (g *Graph) replaceArena(next *arena) {
	old := g.arena.Swap(next)
	if old == nil {
		return
	}
	_ = g.epochs.synchronize(context.Background()) // fails only by its context
	release(old.memory)
}

// grow makes room for a slot.
func (g *Graph) grow(slot uint32) error {
	g.writers.Lock()
	defer g.writers.Unlock()
	g.growing.Lock()
	defer g.growing.Unlock()
	old := g.arena.Load()
	if g.closed.Load() || old != nil && slot < old.slots {
		return nil // the caller looks again
	}
	a, err := g.newArena(uint64(slot) + 1)
	if err != nil {
		return fmt.Errorf("hnsw: make room for slot %d: %w", slot, err)
	}
	if old != nil {
		a.copyFrom(old, g.high.Load(), g.towers)
	}
	g.replaceArena(a)
	return nil
}

// newArena reserves an arena for at least a number of slots, and as many more as are to be had.
func (g *Graph) newArena(least uint64) (*arena, error) {
	slots := g.arenaSlots(least, uint64(g.cfg.MaxSlots), g.codec.RowSize()+2*g.cfg.M*4+4+4)
	for {
		a, err := newArena(uint32(slots), g.codec.RowSize(), g.cfg.M, g.towersFor(slots))
		if err == nil || slots == least {
			return a, err
		}
		slots = max(slots/2, least) // a system may limit address space too
	}
}

// level returns the highest layer of a slot's node. It is drawn from a hash of the slot, so it need not be stored, the same
// inserts give the same graph, and a slot that is used again needs as many rows of upper links as before.
func (g *Graph) level(slot uint32) int {
	h := splitmix64(uint64(slot))
	level := 0
	for level < len(g.levels) && h < g.levels[level] {
		level++
	}
	return level
}

// splitmix64 is the output function of the generator of that name by Vigna; it maps numbers in sequence to numbers that
// look random.
func splitmix64(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// towersFor returns the rows of upper links to reserve for a number of slots: twice the expected number, which no set of
// slots of that size comes near, as the levels are those of a hash.
func (g *Graph) towersFor(slots uint64) uint64 {
	const slack = 1024 // for few slots, where chance is wide
	expected := 0.0
	for _, threshold := range g.levels {
		expected += float64(slots) * float64(threshold) / (1 << 64)
	}
	return 2*uint64(expected) + slack
}

// takeTower gives a slot its rows of upper links, which it keeps for good.
func (g *Graph) takeTower(a *arena, slot uint32, level int) error {
	if level == 0 {
		return nil
	}
	g.towersMu.Lock()
	defer g.towersMu.Unlock()
	if atomic.LoadUint32(&a.towers[slot]) != 0 {
		return nil
	}
	first := g.towers
	if (first+uint64(level))*uint64(a.m) > uint64(len(a.upper)) {
		return fmt.Errorf("hnsw: insert slot %d: no room for %d more rows of upper links after %d", slot, level, first)
	}
	g.towers += uint64(level)
	atomic.StoreUint32(&a.towers[slot], uint32(first)+1)
	return nil
}
