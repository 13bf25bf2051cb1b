package gossip

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// item is a recordItem or a slotItem.
type item any

func (s *store) merge(it item) outcome {
	switch it := it.(type) {
	case recordItem:
		return s.mergeRecord(it)
	case slotItem:
		return s.mergeSlot(it)
	}
	panic(fmt.Sprintf("item %T", it))
}

// items draws items of few nodes, versions and keys, so that they collide.
func items(t *rapid.T, label string) []item {
	origins := rapid.SampledFrom([]string{"a", "b", "c"})
	small := rapid.Uint64Range(1, 3)
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) item {
		origin := origins.Draw(t, "origin")
		if rapid.Bool().Draw(t, "record") {
			p := published{Record: Record{Load: Load{Queue: rapid.Uint32Range(0, 2).Draw(t, "queue")}}}
			return recordItem{origin: origin, version: Version{small.Draw(t, "incarnation"), small.Draw(t, "sequence")},
				raw: appendRecord(nil, p), record: p}
		}
		return slotItem{origin: origin, key: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "key"),
			slot: Slot{Incarnation: small.Draw(t, "incarnation"), P: small.Draw(t, "p"), N: small.Draw(t, "n")}}
	}), 0, 30).Draw(t, label)
}

// text returns all of a store that counts.
func (s *store) text() string {
	var b bytes.Buffer
	for _, id := range slices.Sorted(maps.Keys(s.origins)) {
		o := s.origins[id]
		fmt.Fprintf(&b, "%s %v %x %v %d", id, o.version, o.raw, o.record, o.incarnation)
		for _, key := range slices.Sorted(maps.Keys(o.slots)) {
			fmt.Fprintf(&b, " %s=%v", key, o.slots[key])
		}
		fmt.Fprintf(&b, " %d %x\n", o.slotBytes, o.slotHash)
	}
	return b.String()
}

func storeOf(items []item) *store {
	s := newStore()
	for _, it := range items {
		s.merge(it)
	}
	return &s
}

// mergeAll merges a store's full state, by its encoding.
func (s *store) mergeAll(t *rapid.T, other *store) {
	state := appendHeader(nil, "other", flagBulk)
	for id := range other.origins {
		state = other.appendParts(state, id, partRecord|partCounters)
	}
	m, err := decodeMessage(state)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range m.records {
		s.merge(it)
	}
	for _, it := range m.slots {
		s.merge(it)
	}
}

// TestMergeIsALattice checks that order and repetition of items do not matter, and that full states say what the items do.
func TestMergeIsALattice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := items(t, "a"), items(t, "b"), items(t, "c")
		all := slices.Concat(a, b, c)
		want := storeOf(all).text()
		shuffled := rapid.Permutation(slices.Concat(all, a)).Draw(t, "shuffled")
		if got := storeOf(shuffled).text(); got != want {
			t.Fatalf("in another order:\n%sand in the first:\n%s", got, want)
		}
		merge := func(stores ...*store) string {
			for _, s := range stores[1:] {
				stores[0].mergeAll(t, s)
			}
			return stores[0].text()
		}
		if got := merge(storeOf(a), storeOf(b), storeOf(c)); got != want {
			t.Fatalf("(a b) c:\n%sand their items:\n%s", got, want)
		}
		bc := storeOf(b)
		bc.mergeAll(t, storeOf(c))
		if got := merge(storeOf(a), bc, bc); got != want {
			t.Fatalf("a (b c) (b c):\n%sand their items:\n%s", got, want)
		}
		if got := merge(storeOf(c), storeOf(b), storeOf(a)); got != want {
			t.Fatalf("c b a:\n%sand their items:\n%s", got, want)
		}
		s := storeOf(all)
		for _, it := range all {
			if got := s.merge(it); got != outcomeKnown {
				t.Fatalf("%v: outcome %d the second time", it, got)
			}
		}
		for id, o := range s.origins {
			if o.incarnation < o.version.Incarnation {
				t.Fatalf("%s: counters of incarnation %d, record of %v", id, o.incarnation, o.version)
			}
		}
	})
}

// TestReconciliation checks that a digest, the answer to it and the answer to that leave two nodes with the same.
func TestReconciliation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Only the owner writes its slots and records, so that one version has one content.
		unique := func(items []item) []item {
			for i, it := range items {
				if r, ok := it.(recordItem); ok {
					r.record = published{Record: Record{Load: Load{MemoryBytes: r.version.Incarnation<<32 | r.version.Sequence}}}
					r.raw = appendRecord(nil, r.record)
					items[i] = r
				}
			}
			return items
		}
		a := &Gossip{id: "a0", store: *storeOf(unique(items(t, "a")))}
		b := &Gossip{id: "b0", store: *storeOf(unique(items(t, "b")))}
		want := storeOf(nil)
		want.mergeAll(t, &a.store)
		want.mergeAll(t, &b.store)
		for _, g := range []*Gossip{a, b} {
			g.members = map[string]*member{}
			for _, id := range []string{"a", "b", "c"} {
				g.members[id] = &member{}
			}
		}
		message, from, to := a.digest(), a, b
		for i := 0; message != nil; i++ {
			if i == 4 {
				t.Fatal("they do not come to an end")
			}
			m, err := decodeMessage(message)
			if err != nil {
				t.Fatal(err)
			}
			for _, it := range m.records {
				to.store.merge(it)
			}
			for _, it := range m.slots {
				to.store.merge(it)
			}
			message = to.answer(m)
			from, to = to, from
		}
		for _, g := range []*Gossip{a, b} {
			if got := g.store.text(); got != want.text() {
				t.Fatalf("%s has\n%sand not\n%s", g.id, got, want.text())
			}
		}
	})
}

func TestStoreBounds(t *testing.T) {
	s := newStore()
	for i := range CounterBytesMax {
		it := slotItem{origin: "a", key: fmt.Sprintf("%08d", i), slot: Slot{Incarnation: 1, P: 1}}
		fits := (i+1)*(8+counterOverhead) <= CounterBytesMax
		if got := s.mergeSlot(it); (got == outcomeNews) != fits || (got == outcomeFull) == fits {
			t.Fatalf("counter %d: outcome %d, fits: %v", i, got, fits)
		}
	}
	if got := s.mergeSlot(slotItem{origin: "a", key: "00000000", slot: Slot{Incarnation: 1, P: 2}}); got != outcomeNews {
		t.Errorf("a counter that is there: outcome %d", got)
	}
	if got := s.mergeSlot(slotItem{origin: "a", key: "new", slot: Slot{Incarnation: 2, P: 2}}); got != outcomeNews {
		t.Errorf("a new incarnation: outcome %d", got)
	}
	for i := 1; i < originsMax; i++ {
		s.mergeRecord(recordItem{origin: fmt.Sprint(i), version: Version{1, 1}})
	}
	if got := s.mergeRecord(recordItem{origin: "b", version: Version{1, 1}}); got != outcomeFull {
		t.Errorf("a node too many: outcome %d", got)
	}
}

// TestFullStateFits checks that nodes at all their limits do not exceed what a message may have.
func TestFullStateFits(t *testing.T) {
	s := newStore()
	raw := make([]byte, 0, RecordBytesMax)
	for len(raw)+3+100 < RecordBytesMax {
		raw = appendField(raw, 1000, make([]byte, 100))
	}
	for i := range originsMax {
		id := fmt.Sprintf("%0*d", IDBytesMax, i)
		s.mergeRecord(recordItem{origin: id, version: Version{versionMax, versionMax}, raw: raw})
		for k := 0; s.mergeSlot(slotItem{origin: id, key: fmt.Sprint(k), slot: Slot{Incarnation: versionMax, P: 1 << 63, N: 1 << 63}}) == outcomeNews; k++ {
		}
	}
	state := appendHeader(nil, "from", flagBulk)
	for id := range s.origins {
		state = s.appendParts(state, id, partRecord|partCounters)
	}
	m, err := decodeMessage(state)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.records) != originsMax || len(m.slots) < originsMax*200 {
		t.Errorf("%d records, %d counters of %d bytes", len(m.records), len(m.slots), len(state))
	}
}

// fullRecord has every field.
func fullRecord() published {
	return published{
		Record: Record{
			Addresses: Addresses{Gossip: "10.0.0.1:7946", Raft: "10.0.0.1:7947", HTTP: "10.0.0.1:6333"},
			Build:     "1.2.3",
			Commands:  Range{Min: 1, Max: 3},
			Load:      Load{CPUMillis: 500, MemoryBytes: 1 << 30, MemoryLimit: 1 << 33, DiskBytes: 1 << 40, DiskLimit: 1 << 41, Queue: 9},
			Groups:    []Group{{ID: 0, Role: RoleLeader, Term: 7, Applied: 1 << 50}, {ID: 9, Role: RoleNonvoter, Term: 1, Applied: 2}},
		},
		leaving:    true,
		suspicions: []suspicion{{id: "b", version: Version{2, 3}}},
	}
}

func TestRecordCodec(t *testing.T) {
	f := func(b []byte, want published) {
		t.Helper()
		if got, err := decodeRecord(b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("decoded %+v, %v, want %+v", got, err, want)
		}
	}
	refused := func(b []byte) {
		t.Helper()
		if got, err := decodeRecord(b); err == nil {
			t.Errorf("%x: decoded %+v", b, got)
		}
	}
	full := appendRecord(nil, fullRecord())
	f(full, fullRecord())
	f(nil, published{})
	later := appendField(nil, 77, []byte("a field of a later version"))
	f(append(later, full...), fullRecord())
	f(append(bytes.Clone(full), later...), fullRecord())
	f(appendField(nil, fieldCommands, appendUvarints(nil, 1, 2, 3, 4)), published{Record: Record{Commands: Range{1, 2}}})
	f(appendField(nil, fieldGroup, appendUvarints(nil, 1, 200, 3, 4, 5)), published{Record: Record{Groups: []Group{{1, 200, 3, 4}}}})
	for i := 1; i < len(full); i++ {
		if got, err := decodeRecord(full[:i]); err == nil && reflect.DeepEqual(got, fullRecord()) {
			t.Errorf("%d of %d bytes are all", i, len(full))
		}
	}
	refused([]byte{fieldLoad})
	refused([]byte{fieldLoad, 5, 1})
	refused(appendField(nil, fieldLoad, appendUvarints(nil, 1, 2)))
	refused(appendField(nil, fieldCommands, appendUvarints(nil, 1<<32, 1)))
	refused(appendField(nil, fieldGroup, appendUvarints(nil, 1, 256, 3, 4)))
	refused(appendField(nil, fieldBuild, make([]byte, BuildBytesMax+1)))
	refused(appendField(nil, fieldRaft, make([]byte, AddressBytesMax+1)))
	refused(appendField(nil, fieldSuspicion, appendUvarints(appendString(nil, "b"), 0, 1)))
	refused(appendField(nil, fieldSuspicion, appendUvarints(appendString(nil, ""), 1, 1)))
	refused(make([]byte, RecordBytesMax+1))
	var many []byte
	for range suspicionsMax + 1 {
		many = appendField(many, fieldSuspicion, appendUvarints(appendString(nil, "b"), 1, 1))
	}
	refused(many)
}

func TestMessageCodec(t *testing.T) {
	raw := appendRecord(nil, fullRecord())
	b := appendHeader(nil, "from", flagBulk)
	b = appendField(b, 99, []byte("an item of a later version"))
	b = appendRecordItem(b, recordItem{hops: 3, origin: "a", version: Version{1, 2}, raw: raw})
	b = appendSlotsItem(b, 4, "b", 5, map[string]Slot{"k": {5, 6, 7}})
	b = appendDigestItem(b, []digestEntry{{"a", Version{1, 2}, 3}, {"b", Version{}, 0}})
	b = appendWantItem(b, want{"a", partCounters})
	got, err := decodeMessage(b)
	want := message{from: "from", bulk: true, asks: true,
		records: []recordItem{{3, "a", Version{1, 2}, raw, fullRecord()}},
		slots:   []slotItem{{4, "b", "k", Slot{5, 6, 7}}},
		digest:  []digestEntry{{"a", Version{1, 2}, 3}, {"b", Version{}, 0}},
		wants:   []want{{"a", partCounters}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("decoded %+v, %v, want %+v", got, err, want)
	}
	refused := func(b []byte) {
		t.Helper()
		if got, err := decodeMessage(b); err == nil {
			t.Errorf("%x: decoded %+v", b, got)
		}
	}
	head := appendHeader(nil, "from", 0)
	refused(nil)
	refused([]byte{messageFormat})
	refused(append([]byte{messageFormat + 1}, head[1:]...))
	refused(appendHeader(nil, "", 0))
	refused(appendRecordItem(bytes.Clone(head), recordItem{origin: "a", version: Version{0, 1}}))
	refused(appendRecordItem(bytes.Clone(head), recordItem{origin: "a", version: Version{1, versionMax + 1}}))
	refused(appendRecordItem(bytes.Clone(head), recordItem{origin: "a", version: Version{1, 1}, raw: []byte{1}}))
	refused(appendSlotsItem(bytes.Clone(head), 1, "a", 0, nil))
	refused(appendSlotsItem(bytes.Clone(head), 1, "a", 1, map[string]Slot{string(make([]byte, KeyBytesMax+1)): {}}))
	refused(appendDigestItem(appendDigestItem(bytes.Clone(head), nil), nil))
	refused(append(bytes.Clone(head), itemWant, 2, 1, 'a'))
	refused(make([]byte, stateBytesMax+1))
}

// FuzzDecodeRecord checks that no bytes break decoding, and that what is decoded survives being encoded.
func FuzzDecodeRecord(f *testing.F) {
	f.Add(appendRecord(nil, fullRecord()))
	f.Add(appendField(nil, 77, []byte("later")))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := decodeRecord(b)
		if err != nil {
			return
		}
		again, err := decodeRecord(appendRecord(nil, p))
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
	})
}

// FuzzDecodeMessage checks that no message breaks a node, and that merging it twice changes nothing.
func FuzzDecodeMessage(f *testing.F) {
	b := appendHeader(nil, "from", flagBulk)
	b = appendRecordItem(b, recordItem{hops: 3, origin: "a", version: Version{1, 2}, raw: appendRecord(nil, fullRecord())})
	b = appendSlotsItem(b, 4, "b", 5, map[string]Slot{"k": {5, 6, 7}})
	b = appendDigestItem(b, []digestEntry{{"a", Version{1, 2}, 3}})
	f.Add(appendWantItem(b, want{"a", partRecord}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		s := newStore()
		for range 2 {
			for _, it := range m.records {
				s.merge(it)
			}
			for _, it := range m.slots {
				s.merge(it)
			}
		}
		for _, it := range m.records {
			if got := s.merge(it); got == outcomeNews {
				t.Errorf("%+v is news again", it)
			}
		}
		g := &Gossip{id: "g", store: s, members: map[string]*member{"a": {}}}
		if reply := g.answer(m); reply != nil {
			if _, err := decodeMessage(reply); err != nil {
				t.Errorf("an answer that others refuse: %v", err)
			}
		}
	})
}

func BenchmarkDecodeMessage(b *testing.B) {
	message := appendRecordItem(appendHeader(nil, "from", 0), recordItem{origin: "a", version: Version{1, 2}, raw: appendRecord(nil, fullRecord())})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decodeMessage(message); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMergeSlot(b *testing.B) {
	s := newStore()
	random := rand.New(rand.NewPCG(1, 1))
	b.ReportAllocs()
	for i := uint64(1); b.Loop(); i++ {
		s.mergeSlot(slotItem{origin: "a", key: "agent", slot: Slot{Incarnation: 1, P: i, N: random.Uint64N(i)}})
	}
}
