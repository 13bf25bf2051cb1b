package engine

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

// matches is the set of a shard's slots whose points pass a filter, as of an index in the log. It is immutable.
type matches struct {
	slots slotSet
	count int
	asOf  uint64
}

type slotSet struct{ bits index.Bitset }

func (s slotSet) appendTo(dst []uint32) []uint32 {
	for w, word := range s.bits {
		for slot := uint32(w) * 64; word != 0; word, slot = word>>1, slot+1 {
			if word&1 == 1 {
				dst = append(dst, slot)
			}
		}
	}
	return dst
}

// allow returns the test for a slot, nil for every slot.
func (m *matches) allow() func(slot uint32) bool {
	if m == nil {
		return nil
	}
	return m.slots.bits.Contains
}

// filterCache keeps the matches of the filters used last and brings them up to date by looking at the slots that changed
// since: a search under steady writes does not read every payload again.
type filterCache struct {
	mu      sync.Mutex // guards what is below
	entries *simplelru.LRU[string, *matches]
	recent  []recentChange // the last changes, in order
	from    uint64         // every change after this index is in recent
}

type recentChange struct {
	index uint64
	slot  uint32
}

const (
	filtersCached    = 32   // filters of one shard
	recentChangesMax = 8192 // beyond, a filter that was not used for so long is evaluated anew
)

// changed notes the slots that a batch changed. Only Apply calls it.
func (c *filterCache) changed(through uint64, slots []uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil || c.entries.Len() == 0 {
		c.recent, c.from = c.recent[:0], through // nobody to tell
		return
	}
	if len(slots) > recentChangesMax {
		c.recent, c.from = c.recent[:0], through
		return
	}
	for _, slot := range slots {
		c.recent = append(c.recent, recentChange{through, slot})
	}
	if over := len(c.recent) - recentChangesMax; over > 0 {
		c.from = c.recent[over-1].index
		for over < len(c.recent) && c.recent[over].index == c.from {
			over++
		}
		c.recent = append(c.recent[:0], c.recent[over:]...)
	}
}

// cached returns the matches kept under the key and the slots that changed since; ok is false if the key must be
// evaluated anew.
func (c *filterCache) cached(key string) (m *matches, changed []uint32, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		return nil, nil, false
	}
	m, ok = c.entries.Get(key)
	if !ok || m.asOf < c.from {
		return nil, nil, false
	}
	for _, change := range c.recent {
		if change.index > m.asOf {
			changed = append(changed, change.slot)
		}
	}
	return m, changed, true
}

func (c *filterCache) store(key string, m *matches) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.entries == nil {
		entries, err := simplelru.NewLRU[string, *matches](filtersCached, nil)
		if err != nil {
			panic(err) // the size is a positive constant, which is all that it checks
		}
		c.entries = entries
	}
	if m.asOf >= c.from {
		c.entries.Add(key, m)
	}
}

// matches evaluates the filter over the shard: exactly, with the number of matching points known before the search is
// planned. It includes every change that was acknowledged before the call, and no half of one that is being applied. settled
// says that the caller keeps writers out.
func (s *shard) matches(ctx context.Context, store *storage.Store, m *matcher, settled bool) (*matches, error) {
	found, err := s.tryMatches(ctx, store, m, settled)
	if !errors.Is(err, errChanged) {
		return found, err
	}
	s.applying.RLock()
	defer s.applying.RUnlock()
	return s.tryMatches(ctx, store, m, true)
}

// tryMatches is matches, but returns errChanged if it met points on the move.
func (s *shard) tryMatches(ctx context.Context, store *storage.Store, m *matcher, settled bool) (*matches, error) {
	if m == nil {
		return nil, nil
	}
	if m.ids != nil {
		return s.matchesAmong(store, m)
	}
	key, err := json.Marshal(m.source)
	if err != nil {
		return nil, err
	}
	key = append(key, m.schema...) // on which what texts match depends
	// Read before storage is: a change after it may or may not be seen below, and is looked at again by who uses it.
	asOf := s.through.Load()
	old, changed, ok := s.filters.cached(string(key))
	if ok && len(changed) == 0 {
		return old, nil
	}
	var found *matches
	if !ok || len(changed) > refreshedMax {
		found, err = s.indexed(ctx, store, m, asOf, settled)
	}
	switch {
	case err != nil || found != nil:
	case ok:
		found, err = s.refresh(store, m, old, changed, asOf, settled)
	default:
		found, err = s.evaluate(ctx, store, m, asOf)
	}
	if err != nil {
		return nil, err
	}
	s.filters.store(string(key), found)
	return found, nil
}

// matchesAmong evaluates a filter that names the only ids that can match.
func (s *shard) matchesAmong(store *storage.Store, m *matcher) (*matches, error) {
	found := &matches{asOf: s.through.Load()}
	for _, id := range m.ids {
		row, ok, err := store.Point(s.id, id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		holds, err := m.matches(viewOf(id, row))
		if err != nil {
			return nil, err
		}
		if holds {
			found.slots.bits = found.slots.bits.Set(row.Slot)
		}
	}
	found.count = found.slots.bits.Count()
	return found, nil
}

// refreshedMax is how many slots may have changed for their payloads to be read rather than the payload indexes.
const refreshedMax = 16

// indexed evaluates the filter by the payload indexes and by the payloads of those points of which they are not sure. It
// returns nil if they are of no help.
//
// The indexes change together with the vector index and the slots, so a filter that they decide alone sees what a search
// that follows sees. Points whose payloads are read may have moved since, as in refresh.
func (s *shard) indexed(ctx context.Context, store *storage.Store, m *matcher, asOf uint64, settled bool) (*matches, error) {
	sure, ask, ok := s.fields.evaluate(m)
	if !ok {
		return nil, nil
	}
	found := &matches{asOf: asOf, slots: sure}
	for i, slot := range ask {
		if i%cancelCheckRows == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		holds, err := s.slotMatches(store, m, slot, asOf, settled)
		if err != nil {
			return nil, err
		}
		if holds {
			found.slots.bits = found.slots.bits.Set(slot)
		}
	}
	found.count = found.slots.bits.Count()
	return found, nil
}

func (s *shard) evaluate(ctx context.Context, store *storage.Store, m *matcher, asOf uint64) (*matches, error) {
	found := &matches{asOf: asOf}
	err := scanMatching(ctx, store.Reader, s, beforeAll, nil, m, func(_ vectord.PointID, row storage.PointRow) (bool, error) {
		found.slots.bits = found.slots.bits.Set(row.Slot)
		found.count++
		return true, nil
	})
	return found, err
}

// refresh corrects the matches of a filter by the slots that changed.
func (s *shard) refresh(store *storage.Store, m *matcher, old *matches, changed []uint32, asOf uint64, settled bool) (*matches, error) {
	found := &matches{asOf: asOf, slots: slotSet{append(index.Bitset(nil), old.slots.bits...)}}
	for _, slot := range changed {
		holds, err := s.slotMatches(store, m, slot, asOf, settled)
		if err != nil {
			return nil, err
		}
		if holds {
			found.slots.bits = found.slots.bits.Set(slot)
		} else {
			found.slots.bits.Clear(slot)
		}
	}
	found.count = found.slots.bits.Count()
	return found, nil
}

// slotMatches reports whether the point in a slot passes. A slot that Apply has cleared, or whose point storage has elsewhere
// by now, belongs to a point whose new slot is not known yet: without either the point would be missing, so that is
// errChanged.
func (s *shard) slotMatches(store *storage.Store, m *matcher, slot uint32, asOf uint64, settled bool) (bool, error) {
	p, ok := s.slots.get(slot)
	if !ok {
		if !settled && (s.moving.Load() || s.through.Load() != asOf) {
			return false, errChanged
		}
		return false, nil
	}
	row, ok, err := store.Point(s.id, p.id)
	if err != nil {
		return false, err
	}
	if !ok || row.Slot != slot {
		if !settled {
			return false, errChanged
		}
		return false, nil
	}
	return m.matches(viewOf(p.id, row))
}
