package storage

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/vectord/vectord"
)

// Each kind of damage is found and named, and a scan that meets a damaged value stops with an error.
func TestVerifyFinds(t *testing.T) {
	one, two, three := vectord.NumberID(1), vectord.NumberID(2), vectord.NumberID(3)
	set := VectorSet{1, 3}
	key := [16]byte{1}
	f := func(name string, damage func(b *Batch), want string) {
		t.Helper()
		s, err := Open(Options{Dir: "data", FS: vfs.NewMem(), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		b := s.NewBatch()
		b.PutPosting(1, 7, "term", 10)
		b.PutPoint(1, one, PointRow{Slot: 10, Vectors: []uint16{3}})
		b.PutSlot(1, 10, SlotRow{ID: one, Vectors: []uint16{3}})
		b.PutVector(set, 10, []float32{1})
		b.PutVector(set, 12, []float32{1})
		b.PutSlot(1, 12, SlotRow{ID: three, Vectors: []uint16{3, 4}}) // of a name that was dropped
		b.PutPoint(1, three, PointRow{Slot: 12, Vectors: []uint16{3, 4}})
		b.AppendChange(1, 5, []uint32{10})
		b.PutSession(0, key, Session{Time: 100})
		b.SetApplied(0, Applied{Index: 5})
		b.PutMeta("collection", []byte("{}"))
		damage(b)
		durable, err := b.Commit()
		if err == nil {
			err = durable()
		}
		if err != nil {
			t.Fatal(err)
		}
		report, err := s.Verify(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if want == "" && report.ProblemCount == 0 {
			return
		}
		if want == "" || !strings.Contains(strings.Join(report.Problems, "\n"), want) {
			t.Errorf("%s: problems are %q, want %q", name, report.Problems, want)
		}
	}
	flip := func(key []byte) func(b *Batch) {
		return func(b *Batch) {
			value, closer, err := b.batch.Get(key)
			if err != nil {
				t.Fatal(err)
			}
			damaged := append([]byte(nil), value...)
			damaged[0] ^= 0x80
			closer.Close()
			b.set(key, damaged)
		}
	}
	f("nothing", func(*Batch) {}, "")
	f("point without slot", func(b *Batch) { b.DeleteSlot(1, 10) }, "point 1 of shard 1: slot 10 is free")
	f("posting without slot", func(b *Batch) { b.PutPosting(1, 7, "term", 11) },
		`posting of slot 11, field 7 and term "term" of shard 1: slot 11 is free`)
	f("vector without slot", func(b *Batch) { b.DeleteSlot(1, 10) }, "vector 3 at slot 10 of shard 1: slot 10 is free")
	f("slot without point", func(b *Batch) { b.DeletePoint(1, one) }, "slot 10 of shard 1: point 1 does not exist")
	f("slot without vector", func(b *Batch) { b.DeleteVector(set, 10) },
		"slot 10 of shard 1: vector 3 at slot 10 of shard 1 is missing")
	f("vector that its slot does not name", func(b *Batch) { b.PutSlot(1, 10, SlotRow{ID: one}) },
		"vector 3 at slot 10 of shard 1: slot 10 has the vectors []")
	f("two points in a slot", func(b *Batch) { b.PutPoint(1, two, PointRow{Slot: 10}) },
		"point 2 of shard 1: slot 10 belongs to point 1")
	f("two slots for a point", func(b *Batch) { b.PutSlot(1, 11, SlotRow{ID: one}) },
		"slot 11 of shard 1: point 1 is at slot 10")
	f("session without expiry", func(b *Batch) { b.delete(expiryKey(0, 100, key)) }, "session 01")
	f("expiry without session", func(b *Batch) { b.delete(sessionKey(0, key)) }, "the session does not exist")
	f("expiry of another time", func(b *Batch) { b.set(expiryKey(0, 99, key), encodeExpiry()) }, "the session is of time 100")
	f("unknown kind", func(b *Batch) { b.set([]byte("zebra"), encodeExpiry()) }, "unknown key 7a 65")
	f("unknown sub-kind", func(b *Batch) { b.set(shardPrefix(1, 'x'), encodeExpiry()) }, "unknown key")
	f("damaged point", flip(pointKey(1, one)), "point 1 of shard 1: damaged")
	f("damaged slot", flip(slotKey(1, 10)), "slot 10 of shard 1: damaged")
	f("damaged posting", flip(postingKey(1, 7, "term", 10)), `posting of slot 10, field 7 and term "term" of shard 1: damaged`)
	f("damaged vector", flip(vectorKey(set, 10)), "vector 3 at slot 10 of shard 1: damaged")
	f("damaged change", flip(changeKey(1, 5)), "change 5 of shard 1: damaged")
	f("damaged session", flip(sessionKey(0, key)), "of group 0: damaged")
	f("damaged expiry", flip(expiryKey(0, 100, key)), "expiry at 100 of session")
	f("damaged applied index", flip(appliedKey(0)), "applied index of group 0: damaged")
	f("damaged meta entry", flip(metaKey("collection")), `meta entry "collection": damaged`)
	f("many", func(b *Batch) {
		for slot := range uint32(2 * verifyProblemsMax) {
			b.PutVector(VectorSet{9, 0}, slot, nil)
		}
	}, "vector 0 at slot 99 of shard 9")
}
