package model

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"math"
	"reflect"
	"slices"

	"github.com/vectord/vectord"
)

// memoryAttempt is a write of memories that came with an idempotency key.
type memoryAttempt struct {
	collection string
	memories   []vectord.Memory
	dedup      *vectord.MemoryDedup
	results    []vectord.MemoryResult
}

// remembered is a memory and the point that it is.
type remembered struct {
	vectord.Memory
	id    vectord.PointID
	point point
}

// memories returns the memories among the points, by ascending id.
func (c *collection) memories() (out []remembered) {
	for id, p := range c.points {
		m, err := vectord.ParseMemory(encodePayload(p.payload))
		if err == nil && slices.Contains(vectord.MemoryKinds(), m.Kind) {
			out = append(out, remembered{m, id, p})
		}
	}
	slices.SortFunc(out, func(a, b remembered) int { return a.id.Compare(b.id) })
	return out
}

// like is the similarity of two vectors in terms of memories.
func (c *collection) like(using string, a, b *vectord.Vector) (float64, bool) {
	d := c.distance(using)
	value, ok := c.similarity(using, a, b)
	if score := shown(d, value); d == vectord.Euclid || d == vectord.Manhattan {
		value = 1 / (1 + score)
	}
	return value, ok
}

// keep writes a memory back.
func (c *collection) keep(r remembered, version uint64) error {
	payload, err := json.Marshal(r.Memory)
	if err != nil {
		return err
	}
	merged, err := decodePayload(payload)
	if err != nil {
		return err
	}
	r.point.payload = maps.Clone(r.point.payload)
	if r.point.payload == nil {
		r.point.payload = map[string]any{}
	}
	maps.Copy(r.point.payload, merged)
	r.point.version, r.point.expires = version, r.Expires
	c.points[r.id] = r.point
	return nil
}

// StoreMemories writes memories one after the other. A memory must have its vector: a model makes none of texts.
func (m *Model) StoreMemories(_ context.Context, name string, memories []vectord.Memory, dedup *vectord.MemoryDedup, o vectord.WriteOptions) ([]vectord.MemoryResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if first, ok := m.stored[o.IdempotencyKey]; ok && o.IdempotencyKey != "" {
		if first.collection != name || !reflect.DeepEqual(first.memories, memories) || !reflect.DeepEqual(first.dedup, dedup) {
			return nil, vectord.Errorf(vectord.KindUnprocessable, "Idempotency-Key %q was used with another request", o.IdempotencyKey)
		}
		return first.results, nil
	}
	if len(memories) == 0 || len(memories) > vectord.MaxMemories {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%d memories", len(memories))
	}
	if err := dedup.Check(); err != nil {
		return nil, err
	}
	news := make([]remembered, len(memories))
	ours := map[vectord.PointID]bool{}
	for i := range memories {
		if news[i], err = c.newMemory(&memories[i], m.now(), m.operations+uint64(i)); err != nil {
			return nil, err
		}
		if ours[news[i].id] {
			return nil, vectord.Errorf(vectord.KindInvalid, "id %s is given twice", news[i].id)
		}
		ours[news[i].id] = true
	}
	m.operations++
	var results []vectord.MemoryResult
	written := map[vectord.PointID]bool{}
	for _, r := range news {
		result, err := m.store(c, r, dedup, func(id vectord.PointID) bool { return ours[id] && !written[id] })
		if err != nil {
			return nil, err
		}
		written[result.ID] = true
		results = append(results, result)
	}
	if o.IdempotencyKey != "" {
		m.stored[o.IdempotencyKey] = memoryAttempt{name, memories, dedup, results}
	}
	return results, nil
}

func (c *collection) newMemory(given *vectord.Memory, now int64, number uint64) (r remembered, err error) {
	if err := given.Check(); err != nil {
		return r, err
	}
	if given.Vector == nil {
		return r, vectord.Errorf(vectord.KindInvalid, "model: missing, and none makes a vector of a text here")
	}
	v, err := c.vector(given.Using, *given.Vector)
	if err != nil {
		return r, err
	}
	r = remembered{Memory: *given, id: vectord.UUIDID([16]byte{8: byte(number >> 8), 15: byte(number)}), point: point{vectors: map[string]vectord.Vector{given.Using: v}}}
	if given.ID != nil {
		r.id = *given.ID
	}
	r.Kind, r.Created = cmp.Or(r.Kind, vectord.MemorySemantic), cmp.Or(r.Created, vectord.Datetime(now*1000))
	if r.Importance == nil {
		importance := vectord.DefaultImportance
		r.Importance = &importance
	}
	if r.TTL > 0 {
		r.Expires = now + r.TTL
	}
	return r, nil
}

// store writes one memory. passed are the points that are not compared with.
func (m *Model) store(c *collection, r remembered, dedup *vectord.MemoryDedup, passed func(vectord.PointID) bool) (vectord.MemoryResult, error) {
	var other *remembered
	best := math.Inf(-1)
	now := vectord.Datetime(m.now() * 1000)
	if dedup != nil {
		given := r.point.vectors[r.Using]
		for _, old := range c.memories() {
			v, ok := old.point.vectors[r.Using]
			if !ok || old.Scope != r.Scope || old.SupersededBy != nil || old.ValidTo != 0 && old.ValidTo <= now || passed(old.id) {
				continue
			}
			if similarity, ok := c.like(r.Using, &given, &v); ok && similarity > best && similarity >= cmp.Or(dedup.Threshold, vectord.DefaultDedupSimilar)-1e-6 {
				best, other = similarity, &old
			}
		}
	}
	if other == nil {
		return vectord.MemoryResult{ID: r.id, Outcome: vectord.MemoryCreated}, c.keep(r, m.operations)
	}
	other.Expires = other.point.expires
	shownBest := float32(best)
	switch dedup.Action {
	case vectord.DedupSupersede:
		r.ValidFrom = cmp.Or(r.ValidFrom, now)
		other.SupersededBy = &r.id
		if other.ValidTo == 0 || other.ValidTo > r.ValidFrom {
			other.ValidTo = r.ValidFrom
		}
		if err := c.keep(*other, m.operations); err != nil {
			return vectord.MemoryResult{}, err
		}
		return vectord.MemoryResult{ID: r.id, Outcome: vectord.MemorySuperseded, Superseded: &other.id, Similarity: &shownBest}, c.keep(r, m.operations)
	case vectord.DedupRefresh:
		other.Uses++
		other.LastUsed = now
		importance := max(*other.Importance, *r.Importance)
		other.Importance = &importance
		other.Pinned = other.Pinned || r.Pinned
		if other.Expires == 0 || r.Expires == 0 {
			other.Expires = 0
		} else {
			other.Expires = max(other.Expires, r.Expires)
		}
		return vectord.MemoryResult{ID: other.id, Outcome: vectord.MemoryRefreshed, Similarity: &shownBest}, c.keep(*other, m.operations)
	}
	return vectord.MemoryResult{ID: other.id, Outcome: vectord.MemorySkipped, Similarity: &shownBest}, nil
}

// SearchMemories scores every memory that matches.
func (m *Model) SearchMemories(_ context.Context, name string, q vectord.MemoryQuery) ([]vectord.MemoryHit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return nil, err
	}
	if err := q.Check(); err != nil {
		return nil, err
	}
	if q.Vector == nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "model: missing, and none makes a vector of a text here")
	}
	given, err := c.vector(q.Using, *q.Vector)
	if err != nil {
		return nil, err
	}
	pick, err := c.picker(q.Select)
	if err != nil {
		return nil, err
	}
	if q.Weights == (vectord.MemoryWeights{}) {
		q.Weights.Similarity = 1
	}
	hits := []vectord.MemoryHit{}
	found := map[vectord.PointID]remembered{}
	for _, r := range c.memories() {
		v, ok := r.point.vectors[q.Using]
		if !ok || !r.in(q.Scope) || q.Kind != "" && r.Kind != q.Kind || q.Filter != nil && !matches(q.Filter, c.seen(r.id, r.point)) {
			continue
		}
		hidden := q.AsOf == 0
		if q.IncludeSuperseded != nil {
			hidden = !*q.IncludeSuperseded
		}
		if hidden && r.SupersededBy != nil || q.AsOf != 0 && (r.ValidFrom != 0 && r.ValidFrom > q.AsOf || r.ValidTo != 0 && r.ValidTo <= q.AsOf) {
			continue
		}
		similarity, ok := c.like(q.Using, &given, &v)
		if !ok {
			continue
		}
		hit := vectord.MemoryHit{Record: pick(r.id, r.point), Parts: vectord.MemoryParts{Similarity: similarity, Importance: *r.Importance}}
		since := r.Created
		if q.Of == vectord.RecencyOfLastUsed && r.LastUsed != 0 {
			since = r.LastUsed
		}
		halfLife := float64(cmp.Or(q.HalfLife, vectord.DefaultMemoryHalfAge))
		hit.Parts.Recency = math.Pow(0.5, max(0, float64(m.now())-float64(since)/1000)/halfLife)
		hit.Score = q.Weights.Similarity*similarity + q.Weights.Recency*hit.Parts.Recency + q.Weights.Importance*hit.Parts.Importance
		if q.MinScore == nil || hit.Score >= *q.MinScore {
			hits = append(hits, hit)
			found[r.id] = r
		}
	}
	slices.SortStableFunc(hits, func(a, b vectord.MemoryHit) int { return cmp.Compare(b.Score, a.Score) })
	hits = hits[:min(len(hits), q.Limit)]
	if q.Touch {
		for _, hit := range hits {
			if err := m.touch(c, found[hit.ID]); err != nil {
				return nil, err
			}
		}
	}
	return hits, nil
}

// in reports whether a memory is of a scope, as far as that says anything.
func (r *remembered) in(scope vectord.MemoryScope) bool {
	own := r.Scope.Keys()
	for i, key := range scope.Keys() {
		if key.Value != "" && own[i].Value != key.Value {
			return false
		}
	}
	return true
}

func (m *Model) touch(c *collection, r remembered) error {
	m.operations++
	r.Uses++
	r.LastUsed, r.Expires = vectord.Datetime(m.now()*1000), r.point.expires
	return c.keep(r, m.operations)
}

// TouchMemories counts a use of each.
func (m *Model) TouchMemories(_ context.Context, name string, ids []vectord.PointID) (touched int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return 0, err
	}
	if len(ids) == 0 {
		return 0, vectord.Errorf(vectord.KindUnprocessable, "ids: 0 ids")
	}
	for _, r := range c.memories() {
		if slices.Contains(ids, r.id) {
			if err := m.touch(c, r); err != nil {
				return touched, err
			}
			touched++
		}
	}
	return touched, nil
}

// ForgetMemories deletes memories.
func (m *Model) ForgetMemories(_ context.Context, name string, s vectord.MemorySelector) (deleted int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return 0, err
	}
	if err := s.Check(); err != nil {
		return 0, err
	}
	for _, r := range c.memories() {
		named := s.IDs == nil && (!r.Pinned || s.IncludePinned) || slices.Contains(s.IDs, r.id)
		if named && r.in(s.Scope) && (s.Kind == "" || r.Kind == s.Kind) && (s.Filter == nil || matches(s.Filter, c.seen(r.id, r.point))) {
			delete(c.points, r.id)
			deleted++
		}
	}
	return deleted, nil
}
