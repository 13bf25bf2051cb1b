package storage_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// quiet keeps expected trouble out of the test's output.
var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, o storage.Options) *storage.Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = "data"
	}
	if o.Logger == nil {
		o.Logger = quiet
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) { t.Errorf("fatal: %v", err) }
	}
	s, err := storage.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// commit commits the batch that fill fills and waits for the disk.
func commit(t *testing.T, s *storage.Store, fill func(b *storage.Batch)) {
	t.Helper()
	b := s.NewBatch()
	fill(b)
	durable, err := b.Commit()
	if err == nil {
		err = durable()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The random histories use these few names, so that they meet often.
const (
	shards      = 2
	groups      = 2
	sessionKeys = 6
	pointIDs    = 24
)

func someID(n int) vectord.PointID {
	if n%3 == 0 {
		return vectord.UUIDID([16]byte{byte(n), 15: 0xff})
	}
	return vectord.NumberID(uint64(n) << (n % 5 * 14))
}

func someKey(n int) [16]byte { return [16]byte{0: byte(n), 15: byte(n)} }

// model is the store as plain maps.
type model struct {
	shards   [shards]modelShard
	applied  [groups]storage.Applied
	sessions [groups]map[int]storage.Session
	meta     map[string]string
}

type modelShard struct {
	points  map[vectord.PointID]storage.PointRow
	slots   map[uint32]storage.SlotRow
	vectors map[uint32][]float32
	// postings are of slots in use, as text: field, term, slot.
	postings map[string]posting
	changes  map[uint64][]uint32
	next     uint32
}

func newModel() *model {
	m := &model{meta: map[string]string{}}
	for i := range m.shards {
		m.shards[i].drop()
	}
	for i := range m.sessions {
		m.sessions[i] = map[int]storage.Session{}
	}
	return m
}

func (s *modelShard) drop() {
	s.points = map[vectord.PointID]storage.PointRow{}
	s.slots = map[uint32]storage.SlotRow{}
	s.vectors = map[uint32][]float32{}
	s.postings = map[string]posting{}
	s.changes = map[uint64][]uint32{}
}

// posting is of one slot, field and term.
type posting struct {
	field uint16
	term  string
	slot  uint32
}

func (p posting) String() string { return fmt.Sprintf("%d %q %08d", p.field, p.term, p.slot) }

// unpost removes the postings of a slot, or of a field.
func (s *modelShard) unpost(of func(p posting) bool) (removed []posting) {
	for name, p := range s.postings {
		if of(p) {
			removed = append(removed, p)
			delete(s.postings, name)
		}
	}
	return removed
}

// step makes a random batch: it changes the model at once and returns what does the same to a store.
func (m *model) step(rng *rand.Rand, index uint64) func(b *storage.Batch) {
	var todo []func(b *storage.Batch)
	do := func(f func(b *storage.Batch)) { todo = append(todo, f) }
	number := rng.IntN(shards)
	shard, s := uint32(number), &m.shards[number]
	if rng.IntN(25) == 0 {
		s.drop()
		do(func(b *storage.Batch) { b.DropShard(shard) })
	}
	if rng.IntN(10) == 0 {
		upTo := index - min(index, uint64(rng.IntN(8)))
		maps.DeleteFunc(s.changes, func(i uint64, _ []uint32) bool { return i <= upTo })
		do(func(b *storage.Batch) { b.TrimChanges(shard, upTo) })
	}
	if rng.IntN(20) == 0 {
		field := uint16(rng.IntN(3))
		s.unpost(func(p posting) bool { return p.field == field })
		do(func(b *storage.Batch) { b.DropPostings(shard, field) })
	}
	var changed []uint32
	for range rng.IntN(5) {
		id := someID(rng.IntN(pointIDs))
		row, exists := s.points[id]
		if rng.IntN(3) == 0 {
			if exists {
				delete(s.points, id)
				delete(s.slots, row.Slot)
				delete(s.vectors, row.Slot)
				changed = append(changed, row.Slot)
				removed := s.unpost(func(p posting) bool { return p.slot == row.Slot })
				do(func(b *storage.Batch) {
					for _, p := range removed {
						b.DeletePosting(shard, p.field, p.term, p.slot)
					}
				})
			}
			do(func(b *storage.Batch) {
				b.DeletePoint(shard, id)
				if exists {
					b.DeleteSlot(shard, row.Slot)
					b.DeleteVector(storage.VectorSet{Shard: shard}, row.Slot)
				}
			})
			continue
		}
		if !exists {
			row.Slot = s.next
			s.next++
		}
		row.Payload, row.Vectors = nil, []uint16{0}
		if n := rng.IntN(4); n > 0 {
			row.Payload = fmt.Appendf(nil, `{"at":%d,"pad":"%s"}`, index, strings.Repeat("x", n*400))
		}
		v := make([]float32, 1+rng.IntN(64))
		for i := range v {
			v[i] = rng.Float32()
		}
		slot := storage.SlotRow{ID: id, Version: index, Vectors: []uint16{0}}
		s.points[id], s.slots[row.Slot], s.vectors[row.Slot] = row, slot, v
		changed = append(changed, row.Slot)
		p := posting{uint16(rng.IntN(3)), []string{"a", "b", "\x00", "\xff"}[rng.IntN(4)], row.Slot}
		s.postings[p.String()] = p
		do(func(b *storage.Batch) { b.PutPosting(shard, p.field, p.term, p.slot) })
		put := row // row is the loop's, and what the batch is given may be overwritten afterwards
		do(func(b *storage.Batch) {
			given, vector := storage.PointRow{Slot: put.Slot, Vectors: []uint16{0}, Payload: slices.Clone(put.Payload)}, slices.Clone(v)
			b.PutPoint(shard, id, given)
			b.PutSlot(shard, put.Slot, slot)
			b.PutVector(storage.VectorSet{Shard: shard}, put.Slot, vector)
			clear(given.Payload)
			clear(vector)
		})
	}
	s.changes[index] = changed
	do(func(b *storage.Batch) { b.AppendChange(shard, index, changed) })

	group := rng.IntN(groups)
	now := int64(index) * 10
	m.applied[group] = storage.Applied{Index: index, Time: now}
	do(func(b *storage.Batch) { b.SetApplied(uint32(group), storage.Applied{Index: index, Time: now}) })
	if rng.IntN(3) == 0 {
		key := rng.IntN(sessionKeys)
		session := storage.Session{Time: now, Fingerprint: rng.Uint64(), Result: fmt.Appendf(nil, "result %d", index)}
		m.sessions[group][key] = session
		do(func(b *storage.Batch) { b.PutSession(uint32(group), someKey(key), session) })
	}
	if rng.IntN(6) == 0 {
		before := now - int64(rng.IntN(200))
		n := len(m.sessions[group])
		maps.DeleteFunc(m.sessions[group], func(_ int, s storage.Session) bool { return s.Time < before })
		n -= len(m.sessions[group])
		do(func(b *storage.Batch) {
			if got, err := b.ExpireSessions(uint32(group), before, sessionKeys); err != nil || got != n {
				panic(fmt.Sprintf("expired %d sessions, want %d: %v", got, n, err))
			}
		})
	}
	if rng.IntN(4) == 0 {
		name := fmt.Sprintf("collection/%d", rng.IntN(5))
		if rng.IntN(3) == 0 {
			delete(m.meta, name)
			do(func(b *storage.Batch) { b.DeleteMeta(name) })
		} else {
			value := fmt.Sprintf("config %d", index)
			m.meta[name] = value
			do(func(b *storage.Batch) { b.PutMeta(name, []byte(value)) })
		}
	}
	return func(b *storage.Batch) {
		for _, f := range todo {
			f(b)
		}
	}
}

// String is the model's state as dump writes that of a store.
func (m *model) String() string {
	var w strings.Builder
	for shard := range m.shards {
		s := &m.shards[shard]
		for _, id := range slices.SortedFunc(maps.Keys(s.points), vectord.PointID.Compare) {
			writePoint(&w, uint32(shard), id, s.points[id])
		}
		for _, slot := range slices.Sorted(maps.Keys(s.slots)) {
			fmt.Fprintf(&w, "slot %d/%d %v\n", shard, slot, s.slots[slot])
		}
		for _, slot := range slices.Sorted(maps.Keys(s.vectors)) {
			fmt.Fprintf(&w, "vector %d/%d %v\n", shard, slot, s.vectors[slot])
		}
		for _, p := range slices.SortedFunc(maps.Values(s.postings), func(a, b posting) int {
			return cmp.Or(cmp.Compare(a.field, b.field), cmp.Compare(a.term, b.term), cmp.Compare(a.slot, b.slot))
		}) {
			fmt.Fprintf(&w, "posting %d/%s\n", shard, p)
		}
		for _, index := range slices.Sorted(maps.Keys(s.changes)) {
			fmt.Fprintf(&w, "change %d/%d %v\n", shard, index, s.changes[index])
		}
	}
	for group, a := range m.applied {
		fmt.Fprintf(&w, "applied %d %v\n", group, a)
		for _, key := range slices.Sorted(maps.Keys(m.sessions[group])) {
			fmt.Fprintf(&w, "session %d/%d %v\n", group, key, m.sessions[group][key])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.meta)) {
		fmt.Fprintf(&w, "meta %s %q\n", name, m.meta[name])
	}
	return w.String()
}

func writePoint(w io.Writer, shard uint32, id vectord.PointID, row storage.PointRow) {
	fmt.Fprintf(w, "point %d/%s %d %s %v\n", shard, id, row.Slot, row.Payload, row.Payload == nil)
}

// dump writes everything that a reader sees.
func dump(r storage.Reader) (string, error) {
	var w bytes.Buffer
	for shard := range uint32(shards) {
		err := r.ScanPoints(shard, nil, func(id vectord.PointID, row storage.PointRow) (bool, error) {
			writePoint(&w, shard, id, row)
			return true, nil
		})
		if err != nil {
			return "", err
		}
		err = r.ScanSlots(shard, func(slot uint32, row storage.SlotRow) error {
			_, err := fmt.Fprintf(&w, "slot %d/%d %v\n", shard, slot, row)
			return err
		})
		if err != nil {
			return "", err
		}
		err = r.ScanVectors(storage.VectorSet{Shard: shard}, func(slot uint32, v []float32) error {
			_, err := fmt.Fprintf(&w, "vector %d/%d %v\n", shard, slot, v)
			return err
		})
		if err != nil {
			return "", err
		}
		for field := range uint16(3) {
			err = r.ScanPostings(shard, field, func(term []byte, slot uint32) error {
				_, err := fmt.Fprintf(&w, "posting %d/%s\n", shard, posting{field, string(term), slot})
				return err
			})
			if err != nil {
				return "", err
			}
		}
		err = r.Changes(shard, 0, func(index uint64, slots []uint32) error {
			_, err := fmt.Fprintf(&w, "change %d/%d %v\n", shard, index, slots)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	for group := range uint32(groups) {
		a, err := r.Applied(group)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&w, "applied %d %v\n", group, a)
		for key := range sessionKeys {
			session, ok, err := r.Session(group, someKey(key))
			if err != nil {
				return "", err
			}
			if ok {
				fmt.Fprintf(&w, "session %d/%d %v\n", group, key, session)
			}
		}
	}
	err := r.ScanMeta(func(name string, value []byte) error {
		_, err := fmt.Fprintf(&w, "meta %s %q\n", name, value)
		return err
	})
	return w.String(), err
}

func mustDump(t *testing.T, r storage.Reader) string {
	t.Helper()
	text, err := dump(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// checkVerify fails the test if Verify finds anything wrong.
func checkVerify(t *testing.T, s *storage.Store) {
	t.Helper()
	report, err := s.Verify(t.Context(), nil)
	if err != nil || report.ProblemCount > 0 {
		t.Fatalf("verify: %v, %d problems: %q", err, report.ProblemCount, report.Problems)
	}
}
