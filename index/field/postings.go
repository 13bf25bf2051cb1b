// Package field keeps the postings of a payload field: for each term the set of slots that have it, terms in order.
//
// It knows slots, terms and bitmaps. Which terms a payload has, and what a filter asks of them, is decided elsewhere.
package field

import (
	"slices"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/tidwall/btree"
)

// Postings map terms, in the order of their bytes, to sets of slots. The zero value is not usable; New makes an empty one.
//
// Any number of goroutines may read while none changes it.
type Postings struct {
	terms    btree.Map[string, Slots]
	postings int   // pairs of a term and a slot
	bytes    int64 // estimated
}

// New returns empty postings.
func New() *Postings { return new(Postings) }

// Slots is the set of slots of a term. It has at least one: a term without is not kept. Terms that one slot has, such as
// ids, cost no memory beyond their place in the map.
type Slots struct {
	one  uint32     // the slot, where more is nil
	more *moreSlots // two and more
}

// moreSlots is a sorted list up to fewSlotsMax, and a bitmap beyond.
type moreSlots struct {
	few  []uint32
	many *roaring.Bitmap // nil while few is used
}

const (
	fewSlotsMax = 32

	// Estimated sizes in bytes: a term's place in the map (string header, Slots, slack of half-full nodes) and moreSlots
	// with its allocation's header.
	termBytes = 64
	moreBytes = 48
)

// Count returns the number of slots.
func (s Slots) Count() int {
	switch {
	case s.more == nil:
		return 1
	case s.more.many != nil:
		return int(s.more.many.GetCardinality())
	}
	return len(s.more.few)
}

// Contains reports whether the slot is in the set.
func (s Slots) Contains(slot uint32) bool {
	switch {
	case s.more == nil:
		return s.one == slot
	case s.more.many != nil:
		return s.more.many.Contains(slot)
	}
	_, ok := slices.BinarySearch(s.more.few, slot)
	return ok
}

// AppendTo appends the slots to dst, ascending.
func (s Slots) AppendTo(dst []uint32) []uint32 {
	switch {
	case s.more == nil:
		return append(dst, s.one)
	case s.more.many != nil:
		n := len(dst)
		dst = slices.Grow(dst, s.Count())[:n+s.Count()]
		s.more.many.ManyIterator().NextMany(dst[n:])
		return dst
	}
	return append(dst, s.more.few...)
}

// CountIn returns how many of the slots are in the bitmap.
func (s Slots) CountIn(b *roaring.Bitmap) int {
	switch {
	case s.more == nil:
		if b.Contains(s.one) {
			return 1
		}
		return 0
	case s.more.many != nil:
		return int(s.more.many.AndCardinality(b))
	}
	n := 0
	for _, slot := range s.more.few {
		if b.Contains(slot) {
			n++
		}
	}
	return n
}

func (s Slots) memoryBytes() int64 {
	switch {
	case s.more == nil:
		return 0
	case s.more.many != nil:
		return moreBytes + int64(s.more.many.GetSizeInBytes())
	}
	return moreBytes + 4*int64(cap(s.more.few))
}

// slotsOf makes a set of ascending slots, at least one, which it copies.
func slotsOf(slots []uint32) Slots {
	switch {
	case len(slots) == 1:
		return Slots{one: slots[0]}
	case len(slots) <= fewSlotsMax:
		return Slots{more: &moreSlots{few: slices.Clone(slots)}}
	}
	many := roaring.BitmapOf(slots...)
	many.RunOptimize()
	return Slots{more: &moreSlots{many: many}}
}

// with returns the set and the slot; added is false if it was in.
func (s Slots) with(slot uint32) (_ Slots, added bool) {
	switch {
	case s.more == nil && s.one == slot:
		return s, false
	case s.more == nil:
		return Slots{more: &moreSlots{few: []uint32{min(s.one, slot), max(s.one, slot)}}}, true
	case s.more.many != nil:
		return s, s.more.many.CheckedAdd(slot)
	}
	at, ok := slices.BinarySearch(s.more.few, slot)
	if ok {
		return s, false
	}
	s.more.few = slices.Insert(s.more.few, at, slot)
	if len(s.more.few) > fewSlotsMax {
		s.more.few, s.more.many = nil, roaring.BitmapOf(s.more.few...)
	}
	return s, true
}

// without returns the set less the slot; removed is false if it was not in. The caller drops a set that had only it.
func (s Slots) without(slot uint32) (_ Slots, removed bool) {
	switch {
	case s.more == nil:
		return s, s.one == slot
	case s.more.many != nil:
		if !s.more.many.CheckedRemove(slot) {
			return s, false
		}
		if n := s.more.many.GetCardinality(); n <= fewSlotsMax/2 { // half, so that one slot coming and going changes no form
			s.more.few, s.more.many = s.more.many.ToArray(), nil
		}
		return s, true
	}
	at, ok := slices.BinarySearch(s.more.few, slot)
	if !ok {
		return s, false
	}
	s.more.few = slices.Delete(s.more.few, at, at+1)
	if len(s.more.few) == 1 {
		return Slots{one: s.more.few[0]}, true
	}
	return s, true
}

// Add gives the slot to the term. It does nothing if the term has it.
func (p *Postings) Add(term string, slot uint32) {
	old, ok := p.terms.Get(term)
	if !ok {
		p.terms.Set(term, Slots{one: slot})
		p.postings++
		p.bytes += termBytes + int64(len(term))
		return
	}
	before := old.memoryBytes()
	changed, added := old.with(slot)
	if !added {
		return
	}
	if changed != old {
		p.terms.Set(term, changed)
	}
	p.postings++
	p.bytes += changed.memoryBytes() - before
}

// Remove takes the slot from the term. It does nothing if the term does not have it.
func (p *Postings) Remove(term string, slot uint32) {
	old, ok := p.terms.Get(term)
	if !ok {
		return
	}
	before := old.memoryBytes()
	changed, removed := old.without(slot)
	if !removed {
		return
	}
	p.postings--
	if old.more == nil {
		p.terms.Delete(term)
		p.bytes -= termBytes + int64(len(term))
		return
	}
	if changed != old {
		p.terms.Set(term, changed)
	}
	p.bytes += changed.memoryBytes() - before
}

// Loader fills empty postings with pairs in ascending order of term and slot, faster than Add. Done ends it.
type Loader struct {
	postings *Postings
	term     string
	slots    []uint32
}

// NewLoader returns a loader of new postings.
func NewLoader() *Loader { return &Loader{postings: New()} }

// Add takes the next pair. The term is copied.
func (l *Loader) Add(term []byte, slot uint32) {
	if len(l.slots) > 0 && l.term != string(term) {
		l.flush()
	}
	if len(l.slots) == 0 {
		l.term = string(term)
	}
	l.slots = append(l.slots, slot)
}

func (l *Loader) flush() {
	s := slotsOf(l.slots)
	l.postings.terms.Load(l.term, s)
	l.postings.postings += len(l.slots)
	l.postings.bytes += termBytes + int64(len(l.term)) + s.memoryBytes()
	l.slots = l.slots[:0]
}

// Done returns the postings. The loader is spent.
func (l *Loader) Done() *Postings {
	if len(l.slots) > 0 {
		l.flush()
	}
	return l.postings
}

// Terms returns the number of terms.
func (p *Postings) Terms() int { return p.terms.Len() }

// Len returns the number of pairs of a term and a slot.
func (p *Postings) Len() int { return p.postings }

// MemoryBytes estimates what the postings hold on the heap.
func (p *Postings) MemoryBytes() int64 { return p.bytes }

// Count returns how many slots have the term.
func (p *Postings) Count(term string) int {
	s, ok := p.terms.Get(term)
	if !ok {
		return 0
	}
	return s.Count()
}

// Get returns the slots that have a term; ok is false if none has. They are valid until the next change.
func (p *Postings) Get(term string) (s Slots, ok bool) { return p.terms.Get(term) }

// Of returns a new bitmap of the slots that have any of the terms.
func (p *Postings) Of(terms ...string) *roaring.Bitmap {
	var g gatherer
	for _, term := range terms {
		if s, ok := p.terms.Get(term); ok {
			g.add(s)
		}
	}
	return g.bitmap()
}

// OfRange returns a new bitmap of the slots that have a term in [from, to). An empty to is no bound.
func (p *Postings) OfRange(from, to string) *roaring.Bitmap {
	return p.OfRanges([]Range{{from, to}})
}

// Range is the terms from From to before To; an empty To is no bound.
type Range struct{ From, To string }

// OfRanges returns a new bitmap of the slots that have a term in any of the ranges.
func (p *Postings) OfRanges(ranges []Range) *roaring.Bitmap {
	var g gatherer
	for _, r := range ranges {
		p.Ascend(r.From, r.To, func(_ string, s Slots) bool {
			g.add(s)
			return true
		})
	}
	return g.bitmap()
}

// Ascend calls fn with the terms in [from, to) and their slots, ascending, until it returns false. An empty to is no
// bound. fn must not change the postings.
func (p *Postings) Ascend(from, to string, fn func(term string, s Slots) bool) {
	p.terms.Ascend(from, func(term string, s Slots) bool {
		return (to == "" || term < to) && fn(term, s)
	})
}

// Descend is Ascend from the last term before to down to from.
func (p *Postings) Descend(from, to string, fn func(term string, s Slots) bool) {
	each := func(term string, s Slots) bool {
		if to != "" && term >= to {
			return true // to itself
		}
		return term >= from && fn(term, s)
	}
	if to == "" {
		p.terms.Reverse(each)
		return
	}
	p.terms.Descend(to, each)
}

// gatherer unites sets. Small ones are gathered first: a bitmap takes many slots in any order slowly one by one.
type gatherer struct {
	slots []uint32
	many  []*roaring.Bitmap
}

// denseSlots is from how many slots on their bits are set in a plain array, which then becomes a bitmap.
const denseSlots = 4096

func (g *gatherer) add(s Slots) {
	if s.more != nil && s.more.many != nil {
		g.many = append(g.many, s.more.many)
		return
	}
	g.slots = s.AppendTo(g.slots)
}

func (g *gatherer) bitmap() *roaring.Bitmap {
	var b *roaring.Bitmap
	if len(g.slots) < denseSlots {
		b = roaring.BitmapOf(g.slots...)
	} else {
		words := make([]uint64, slices.Max(g.slots)/64+1)
		for _, slot := range g.slots {
			words[slot/64] |= 1 << (slot % 64)
		}
		b = roaring.FromDense(words, false)
	}
	for _, many := range g.many {
		b.Or(many)
	}
	return b
}
