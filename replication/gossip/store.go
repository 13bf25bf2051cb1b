package gossip

import (
	"bytes"
	"encoding/binary"
	"math"

	"github.com/zeebo/xxh3"
)

// originsMax bounds the nodes of which something is kept, itself and those that are gone included.
const originsMax = 512

// counterOverhead is what a counter counts besides its key towards CounterBytesMax.
const counterOverhead = 22

// Slot is a node's share of a counter: how much it added and how much it took away under one incarnation. Both only rise,
// so of two slots of one incarnation the larger parts are the newer ones.
type Slot struct {
	Incarnation uint64
	P, N        uint64
}

// Value returns what the slot adds to its counter.
func (s Slot) Value() int64 { return int64(s.P - s.N) }

// store is what is known of all nodes. It is a value of a lattice, and merging takes the least upper bound: what a store
// holds depends on which items it was given and neither on their order nor on repetition. Of each node that is
//
//   - the record of the newest version; should two have the same version, the one whose bytes are the greater,
//   - the highest incarnation that a record or a slot named, and of each key the largest P and the largest N that were
//     named with it. Slots of lower incarnations are gone: a node that restarts begins its counters again.
//
// Bounds are the exception: what exceeds them is refused, whichever comes last. Nodes that keep to the limits of this
// package do not exceed any but originsMax.
type store struct {
	origins map[string]*origin
}

type origin struct {
	version Version
	hops    uint8  // of the record when it came
	raw     []byte // the record, encoded, as it came
	record  published

	incarnation uint64          // of the slots. Invariant: incarnation >= version.Incarnation.
	slots       map[string]Slot // by key, all of incarnation
	slotBytes   int
	slotHash    uint64 // sum of the hashes of the slots
}

func newStore() store { return store{origins: map[string]*origin{}} }

// outcome says what merging an item did.
type outcome uint8

const (
	outcomeNews  outcome = iota // the store has changed
	outcomeKnown                // the store has it, or something newer
	outcomeFull                 // it would exceed a bound
)

func (s *store) origin(id string) (*origin, bool) {
	o := s.origins[id]
	if o == nil && len(s.origins) < originsMax {
		o = &origin{slots: map[string]Slot{}}
		s.origins[id] = o
	}
	return o, o != nil
}

// mergeRecord takes in a record; it keeps no reference to the memory of it.
func (s *store) mergeRecord(it recordItem) outcome {
	o, ok := s.origin(it.origin)
	if !ok {
		return outcomeFull
	}
	if c := it.version.Compare(o.version); c < 0 || c == 0 && bytes.Compare(it.raw, o.raw) <= 0 {
		return outcomeKnown
	}
	o.version, o.hops, o.raw, o.record = it.version, it.hops, bytes.Clone(it.raw), it.record
	o.raise(it.version.Incarnation)
	return outcomeNews
}

func (s *store) mergeSlot(it slotItem) outcome {
	o, ok := s.origin(it.origin)
	if !ok {
		return outcomeFull
	}
	if it.slot.Incarnation < o.incarnation {
		return outcomeKnown
	}
	o.raise(it.slot.Incarnation)
	old, ok := o.slots[it.key]
	merged := Slot{Incarnation: o.incarnation, P: max(old.P, it.slot.P), N: max(old.N, it.slot.N)}
	if ok && merged == old {
		return outcomeKnown // and not raised just now, or there would be no old one
	}
	if !ok && o.slotBytes+len(it.key)+counterOverhead > CounterBytesMax {
		return outcomeFull
	}
	o.put(it.key, merged)
	return outcomeNews
}

// raise moves o to a higher incarnation, whose counters begin at nothing.
func (o *origin) raise(incarnation uint64) {
	if incarnation <= o.incarnation {
		return
	}
	o.incarnation = incarnation
	clear(o.slots)
	o.slotBytes, o.slotHash = 0, 0
}

func (o *origin) put(key string, slot Slot) {
	if old, ok := o.slots[key]; ok {
		o.slotHash -= hashSlot(key, old)
	} else {
		o.slotBytes += len(key) + counterOverhead
	}
	o.slots[key] = slot
	o.slotHash += hashSlot(key, slot)
}

// countersHash tells whether two stores have the same counters of a node.
func (o *origin) countersHash() uint64 {
	return o.slotHash + o.incarnation*0x9e3779b97f4a7c15 // 2^64 over the golden ratio, so that neighbors are far apart
}

func hashSlot(key string, s Slot) uint64 {
	var b [16 + KeyBytesMax]byte
	binary.LittleEndian.PutUint64(b[:], s.P)
	binary.LittleEndian.PutUint64(b[8:], s.N)
	return xxh3.Hash(append(b[:16], key...))
}

// appendParts appends items with parts of what is known of a node.
func (s *store) appendParts(dst []byte, id string, p parts) []byte {
	o := s.origins[id]
	if o == nil {
		return dst
	}
	if p&partRecord != 0 && o.version != (Version{}) {
		dst = appendRecordItem(dst, recordItem{hops: nextHop(o.hops), origin: id, version: o.version, raw: o.raw})
	}
	if p&partCounters != 0 && len(o.slots) > 0 {
		dst = appendSlotsItem(dst, nextHop(0), id, o.incarnation, o.slots)
	}
	return dst
}

// difference returns which parts of a node's state another, of which entry tells, lacks and which it has newer. Counters
// that differ may be newer on either side, or on both.
func (s *store) difference(e digestEntry) (lacks, has parts) {
	var mine digestEntry
	if o := s.origins[e.origin]; o != nil {
		mine = digestEntry{version: o.version, counters: o.countersHash()}
	}
	switch c := mine.version.Compare(e.version); {
	case c > 0:
		lacks |= partRecord
	case c < 0:
		has |= partRecord
	}
	if mine.counters != e.counters {
		lacks |= partCounters
		has |= partCounters
	}
	return lacks, has
}

func nextHop(hops uint8) uint8 {
	if hops == math.MaxUint8 {
		return hops
	}
	return hops + 1
}
