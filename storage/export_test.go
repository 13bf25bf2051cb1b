package storage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

// exported is a row as ExportShard gives it.
type exported struct{ key, value []byte }

func export(t *testing.T, r storage.Reader, shard uint32) (rows []exported) {
	t.Helper()
	err := r.ExportShard(t.Context(), shard, func(key, value []byte) error {
		rows = append(rows, exported{slices.Clone(key), slices.Clone(value)})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// fillShard writes n points, a vector each, and a change feed.
func fillShard(t *testing.T, s *storage.Store, shard uint32, n int) {
	commit(t, s, func(b *storage.Batch) {
		for i := range uint32(n) {
			id := someID(int(i))
			b.PutPoint(shard, id, storage.PointRow{Slot: i, Vectors: []uint16{0}, Payload: fmt.Appendf(nil, `{"i":%d}`, i)})
			b.PutSlot(shard, i, storage.SlotRow{ID: id, Version: uint64(i), Vectors: []uint16{0}})
			b.PutVector(storage.VectorSet{Shard: shard}, i, []float32{float32(i), 1})
			b.AppendChange(shard, uint64(i), []uint32{i})
		}
	})
}

func importRows(s *storage.Store, shard uint32, versionMax uint64, rows []exported) error {
	in := s.NewImport(versionMax)
	for _, row := range rows {
		if err := in.Add(shard, row.key, row.value); err != nil {
			return errors.Join(err, in.Close())
		}
	}
	return errors.Join(in.Commit(), in.Close())
}

// TestExportAndImport brings a shard's rows under another shard and looks at them there: all but the change feed, with
// versions no greater than was asked for, and consistent with one another.
func TestExportAndImport(t *testing.T) {
	const n, versionMax = 50, 30
	from := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, from)
	for shard := range uint32(4) {
		fillShard(t, from, shard, n)
	}
	rows := export(t, from.Reader, 2)
	if len(rows) != 3*n {
		t.Fatalf("%d rows are exported, want %d", len(rows), 3*n)
	}
	fsys := vfs.NewMem()
	to := open(t, storage.Options{FS: fsys})
	defer closeStore(t, to)
	fillShard(t, to, 6, n)
	if err := importRows(to, 7, versionMax, rows); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(n) {
		slot, ok, err := to.Slot(7, i)
		if want := min(uint64(i), versionMax); !ok || err != nil || slot.Version != want || slot.ID != someID(int(i)) {
			t.Errorf("slot %d is %v, %v, %v, want version %d", i, slot, ok, err, want)
		}
		if row, ok, err := to.Point(7, someID(int(i))); !ok || err != nil || row.Slot != i || string(row.Payload) != fmt.Sprintf(`{"i":%d}`, i) {
			t.Errorf("point %d is %v, %v, %v", i, row, ok, err)
		}
	}
	report, err := to.VerifyShard(t.Context(), 7)
	if err != nil || report.ProblemCount > 0 || report.Keys != 3*n || report.Changes != 0 {
		t.Errorf("%+v, %v", report, err)
	}
	var shards []uint32
	if err := to.ShardsWithRows(func(shard uint32) error { shards = append(shards, shard); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(shards, []uint32{6, 7}) {
		t.Errorf("shards with rows: %v", shards)
	}
	names, err := fsys.List("data")
	if err != nil || slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "~") }) {
		t.Errorf("files left: %q, %v", names, err)
	}
}

// TestImportRefuses gives an import what no export gave: nothing of it stays.
func TestImportRefuses(t *testing.T) {
	from := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, from)
	fillShard(t, from, 1, 5)
	rows := export(t, from.Reader, 1)
	fsys := vfs.NewMem()
	to := open(t, storage.Options{FS: fsys})
	defer closeStore(t, to)
	f := func(what string, change func([]exported) []exported) {
		t.Helper()
		if err := importRows(to, 3, math.MaxUint64, change(slices.Clone(rows))); !errors.Is(err, storage.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
		if got := export(t, to.Reader, 3); len(got) != 0 {
			t.Errorf("%s: %d rows are there", what, len(got))
		}
	}
	f("a row twice", func(r []exported) []exported { return append(r[:1:1], r[0]) })
	f("rows out of order", func(r []exported) []exported { slices.Reverse(r); return r })
	f("a damaged value", func(r []exported) []exported {
		r[3].value = append(slices.Clone(r[3].value[:4]), 'x')
		return r
	})
	f("a key of no kind", func(r []exported) []exported { return append(r, exported{[]byte("zz"), r[0].value}) })
	f("no key", func(r []exported) []exported { return append(r, exported{nil, r[0].value}) })
	f("a change", func(r []exported) []exported { return append([]exported{{[]byte("c12345678"), r[0].value}}, r...) })
	names, err := fsys.List("data")
	if err != nil || slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, "~") }) {
		t.Errorf("files left: %q, %v", names, err)
	}
}

// TestExportEnds ends an export early.
func TestExportEnds(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	fillShard(t, s, 1, 5)
	enough := errors.New("enough")
	n := 0
	if err := s.ExportShard(t.Context(), 1, func(_, _ []byte) error { n++; return enough }); !errors.Is(err, enough) || n != 1 {
		t.Errorf("after %d rows: %v", n, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.ExportShard(ctx, 1, func(_, _ []byte) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestPowerCutWhileImporting cuts the power after every file operation of an import. What is left has all rows of it or
// none, and after Commit all, and nothing else has changed.
func TestPowerCutWhileImporting(t *testing.T) {
	seed := rand.Uint64()
	from := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, from)
	fillShard(t, from, 1, 200)
	rows := export(t, from.Reader, 1)

	committed, cuts := false, uint64(0)
	var disk *storagetest.CrashFS
	watching := false
	check := func(operation string) {
		for _, percent := range []int{0, 50, 100} {
			cuts++
			s, err := storage.Open(storage.Options{FS: disk.Crash(percent, seed+cuts), Dir: "data", Logger: quiet,
				Fatal: func(err error) { t.Errorf("fatal: %v", err) }})
			if err != nil {
				t.Errorf("seed %d: after %s: %v", seed, operation, err)
				return
			}
			got := len(export(t, s.Reader, 9))
			if got != 0 && got != len(rows) || committed && got == 0 {
				t.Errorf("seed %d: after %s, %d %% kept: %d rows of %d", seed, operation, percent, got, len(rows))
			}
			if report, err := s.Verify(t.Context(), nil); err != nil || report.ProblemCount > 0 {
				t.Errorf("seed %d: after %s: %v %q", seed, operation, err, report.Problems)
			}
			if old := len(export(t, s.Reader, 8)); old != 30 {
				t.Errorf("seed %d: after %s: %d rows of another shard", seed, operation, old)
			}
			closeStore(t, s)
		}
	}
	disk = storagetest.NewCrashFS(func(operation string) {
		if watching && !t.Failed() {
			check(operation)
		}
	})
	to := open(t, storage.Options{FS: disk})
	defer closeStore(t, to)
	fillShard(t, to, 8, 10)
	watching = true
	if err := importRows(to, 9, math.MaxUint64, rows); err != nil {
		t.Fatal(err)
	}
	committed = true
	check("Commit")
	watching = false
	t.Logf("%d power cuts", cuts)
}

// TestSync checks that what was committed without waiting survives a power cut after Sync, and need not before.
func TestSync(t *testing.T) {
	disk := storagetest.NewCrashFS(nil)
	s := open(t, storage.Options{FS: disk})
	defer closeStore(t, s)
	b := s.NewBatch()
	b.PutMeta("a", []byte("1"))
	if err := b.CommitUnsynced(); err != nil {
		t.Fatal(err)
	}
	survived := func() bool {
		after := open(t, storage.Options{FS: disk.Crash(0, 1)})
		defer closeStore(t, after)
		found := false
		if err := after.ScanMeta(func(string, []byte) error { found = true; return nil }); err != nil {
			t.Fatal(err)
		}
		return found
	}
	if survived() {
		t.Fatal("the test cuts no power: an unsynced commit survived")
	}
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if !survived() {
		t.Error("a commit before Sync is gone")
	}
}

func BenchmarkImport(b *testing.B) {
	fill := make([]exported, 0, 3000)
	from, err := storage.Open(storage.Options{FS: vfs.NewMem(), Dir: "data", Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	batch := from.NewBatch()
	v := make([]float32, 384)
	for i := range uint32(1000) {
		id := vectord.NumberID(uint64(i))
		batch.PutPoint(1, id, storage.PointRow{Slot: i, Vectors: []uint16{0}})
		batch.PutSlot(1, i, storage.SlotRow{ID: id, Vectors: []uint16{0}})
		batch.PutVector(storage.VectorSet{Shard: 1}, i, v)
	}
	if err := batch.CommitUnsynced(); err != nil {
		b.Fatal(err)
	}
	size := 0
	if err := from.ExportShard(b.Context(), 1, func(key, value []byte) error {
		fill = append(fill, exported{bytes.Clone(key), bytes.Clone(value)})
		size += len(key) + len(value)
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	to, err := storage.Open(storage.Options{FS: vfs.NewMem(), Dir: "data", Logger: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer to.Close()
	b.SetBytes(int64(size))
	shard := uint32(0)
	for b.Loop() {
		shard++
		if err := importRows(to, shard, 1, fill); err != nil {
			b.Fatal(err)
		}
	}
}
