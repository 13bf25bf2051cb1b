package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// TestModel runs random histories against plain maps: what a batch sees of itself, what is visible after its commit,
// what older snapshots see, and what is there after a restart.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newModel()
	fsys := vfs.NewMem()
	reopen := func() *storage.Store { return open(t, storage.Options{FS: fsys, MemTableBytes: 128 << 10}) }
	s := reopen()
	check := func(what string, r storage.Reader, want string) {
		t.Helper()
		if got := mustDump(t, r); got != want {
			t.Fatalf("seed %d: %s: got\n%s\nwant\n%s", seed, what, got, want)
		}
	}
	snapshot, frozen := s.NewSnapshot(), m.String()
	for i := range uint64(400) {
		before := m.String()
		step := m.step(rng, i+1)
		b := s.NewBatch()
		step(b)
		check("the batch itself", b.Reader, m.String())
		check("the store before the commit", s.Reader, before)
		durable, err := b.Commit()
		if err != nil {
			t.Fatal(err)
		}
		check("the store after the commit", s.Reader, m.String())
		if err := durable(); err != nil {
			t.Fatal(err)
		}
		if i%50 == 49 {
			check("an old snapshot", snapshot.Reader, frozen)
			closeStore(t, snapshot)
			checkVerify(t, s)
			closeStore(t, s)
			s = reopen()
			check("the store after a restart", s.Reader, m.String())
			snapshot, frozen = s.NewSnapshot(), m.String()
		}
	}
	closeStore(t, snapshot)
	closeStore(t, s)
}

func TestEmptyStore(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	id := vectord.NumberID(1)
	if row, ok, err := s.Point(1, id); ok || err != nil || row.Payload != nil {
		t.Errorf("Point = %v, %v, %v", row, ok, err)
	}
	if _, ok, err := s.Slot(1, 1); ok || err != nil {
		t.Errorf("Slot = %v, %v", ok, err)
	}
	if v, ok, err := s.Vector(storage.VectorSet{Shard: 1}, 1, make([]float32, 3)); ok || err != nil || len(v) != 0 {
		t.Errorf("Vector = %v, %v, %v", v, ok, err)
	}
	if a, err := s.LastApplied(); a != (storage.Applied{}) || err != nil {
		t.Errorf("LastApplied = %v, %v", a, err)
	}
	if _, ok, err := s.Session(1, someKey(1)); ok || err != nil {
		t.Errorf("Session = %v, %v", ok, err)
	}
	checkVerify(t, s)
}

// Ids, slots, groups and indices at the ends of their ranges, and values that floats make difficult.
func TestExtremes(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	ids := []vectord.PointID{vectord.NumberID(0), vectord.NumberID(math.MaxUint64), vectord.UUIDID([16]byte{}),
		vectord.UUIDID([16]byte{0: 0xff, 15: 0xff})}
	vector := []float32{0, float32(math.Copysign(0, -1)), math.MaxFloat32, math.SmallestNonzeroFloat32, -1}
	all, numbers := []uint32{0, 1, math.MaxUint32}, []uint16{0, math.MaxUint16}
	commit(t, s, func(b *storage.Batch) {
		for _, n := range all {
			for i, id := range ids {
				slot := math.MaxUint32 - uint32(i)
				b.PutPoint(n, id, storage.PointRow{Slot: slot, Expires: math.MaxInt64, Vectors: numbers})
				b.PutSlot(n, slot, storage.SlotRow{ID: id, Version: math.MaxUint64, Expires: math.MaxInt64, Vectors: numbers})
				b.PutVector(storage.VectorSet{Shard: n}, slot, vector)
				b.PutSparse(storage.VectorSet{Shard: n, Number: math.MaxUint16}, slot, all, vector[:3])
			}
			b.AppendChange(n, 0, nil)
			b.AppendChange(n, math.MaxUint64, all)
			b.SetApplied(n, storage.Applied{Index: math.MaxUint64 - uint64(n), Time: int64(n)})
			b.PutSession(n, someKey(0), storage.Session{Time: math.MinInt64})
			b.PutSession(n, someKey(1), storage.Session{Time: math.MaxInt64})
		}
	})
	for _, n := range all {
		for _, id := range ids {
			row, ok, err := s.Point(n, id)
			if !ok || err != nil || row.Payload != nil || row.Expires != math.MaxInt64 || !slices.Equal(row.Vectors, numbers) {
				t.Errorf("Point(%d, %s) = %v, %v, %v", n, id, row, ok, err)
			}
			slot, ok, err := s.Slot(n, row.Slot)
			want := storage.SlotRow{ID: id, Version: math.MaxUint64, Expires: math.MaxInt64, Vectors: numbers}
			if !ok || err != nil || !reflect.DeepEqual(slot, want) {
				t.Errorf("Slot(%d, %d) = %v, %v, %v", n, row.Slot, slot, ok, err)
			}
			indices, values, ok, err := s.Sparse(storage.VectorSet{Shard: n, Number: math.MaxUint16}, row.Slot)
			if !ok || err != nil || !slices.Equal(indices, all) || !slices.EqualFunc(values, vector[:3], sameBits) {
				t.Errorf("Sparse(%d, %d) = %v, %v, %v, %v", n, row.Slot, indices, values, ok, err)
			}
			v, ok, err := s.Vector(storage.VectorSet{Shard: n}, row.Slot, nil)
			if !ok || err != nil || !slices.EqualFunc(v, vector, sameBits) {
				t.Errorf("Vector(%d, %d) = %v, %v, %v", n, row.Slot, v, ok, err)
			}
		}
		var indices []uint64
		collect := func(index uint64, _ []uint32) error {
			indices = append(indices, index)
			return nil
		}
		if err := errors.Join(s.Changes(n, 0, collect), s.Changes(n, math.MaxUint64, collect)); err != nil ||
			!slices.Equal(indices, []uint64{math.MaxUint64}) {
			t.Errorf("changes of shard %d after 0: %v, %v", n, indices, err)
		}
	}
	if last, err := s.LastApplied(); err != nil || last != (storage.Applied{Index: math.MaxUint64, Time: math.MaxUint32}) {
		t.Errorf("LastApplied = %v, %v", last, err)
	}
	checkVerify(t, s)
	commit(t, s, func(b *storage.Batch) {
		if n, err := b.ExpireSessions(0, math.MaxInt64, 10); n != 1 || err != nil {
			t.Errorf("expired %d sessions, want the one of the least time: %v", n, err)
		}
		b.TrimChanges(0, math.MaxUint64)
		b.DropShard(math.MaxUint32)
	})
	report, err := s.Verify(t.Context(), nil)
	if err != nil || report.Points != 8 || report.Vectors != 16 || report.Changes != 2 || report.Sessions != 5 {
		t.Errorf("after dropping a shard, trimming a feed and expiring a session: %+v, %v", report, err)
	}
	checkVerify(t, s)
}

func sameBits(a, b float32) bool { return math.Float32bits(a) == math.Float32bits(b) }

// What a reader returns is the caller's own: writing to it does not reach the store.
func TestReadsAreCopies(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	id := vectord.NumberID(1)
	commit(t, s, func(b *storage.Batch) {
		b.PutPoint(0, id, storage.PointRow{Payload: []byte("{}")})
		b.PutSession(0, someKey(1), storage.Session{Result: []byte("result")})
	})
	for range 2 {
		row, _, err := s.Point(0, id)
		if err != nil || string(row.Payload) != "{}" {
			t.Errorf("payload %q, %v", row.Payload, err)
		}
		clear(row.Payload)
		session, _, err := s.Session(0, someKey(1))
		if err != nil || string(session.Result) != "result" {
			t.Errorf("result %q, %v", session.Result, err)
		}
		clear(session.Result)
	}
}

// Sessions expire by age, the oldest first, no more at a time than asked for; one used again is as young as that use.
func TestExpireSessions(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	commit(t, s, func(b *storage.Batch) {
		for n := range 6 {
			b.PutSession(0, someKey(n), storage.Session{Time: int64(50 - n*10)})
			b.PutSession(1, someKey(n), storage.Session{Time: 0})
		}
		b.PutSession(0, someKey(5), storage.Session{Time: 60})
	})
	f := func(before int64, limit int, left ...int) {
		t.Helper()
		commit(t, s, func(b *storage.Batch) {
			if _, err := b.ExpireSessions(0, before, limit); err != nil {
				t.Error(err)
			}
		})
		var got []int
		for n := range 6 {
			if _, ok, err := s.Session(0, someKey(n)); err != nil {
				t.Error(err)
			} else if ok {
				got = append(got, n)
			}
			if _, ok, err := s.Session(1, someKey(n)); !ok || err != nil {
				t.Errorf("session %d of another group is gone: %v", n, err)
			}
		}
		if !slices.Equal(got, left) {
			t.Errorf("before %d, at most %d: %v are left, want %v", before, limit, got, left)
		}
		checkVerify(t, s)
	}
	f(10, 9, 0, 1, 2, 3, 4, 5)
	f(11, 9, 0, 1, 2, 3, 5)
	f(51, 2, 0, 1, 5)
	f(51, 0, 0, 1, 5)
	f(51, -1, 0, 1, 5)
	f(61, 9)
}

func TestVectorsOfSlots(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem(), MemTableBytes: 64 << 10})
	defer closeStore(t, s)
	const n = 2000
	commit(t, s, func(b *storage.Batch) {
		for slot := uint32(0); slot < n; slot += 2 {
			b.PutVector(storage.VectorSet{Shard: 3}, slot, []float32{float32(slot), 1, 2})
			b.PutVector(storage.VectorSet{Shard: 4}, slot+1, []float32{-1})
		}
	})
	f := func(slots, want []uint32) {
		t.Helper()
		var got []uint32
		err := s.Vectors(storage.VectorSet{Shard: 3}, slots, func(slot uint32, v []float32) error {
			if len(v) != 3 || v[0] != float32(slot) {
				t.Errorf("slot %d has the vector %v", slot, v)
			}
			got = append(got, slot)
			return nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("vectors of %v are those of %v, want %v (%v)", slots, got, want, err)
		}
	}
	f(nil, nil)
	f([]uint32{0, 1, 2, 3, 1000, 1998, 1999, 2000, math.MaxUint32}, []uint32{0, 2, 1000, 1998})
	f([]uint32{1, 3}, nil)
	f([]uint32{1998, 0, 0, 7}, []uint32{1998, 0, 0})
	stop := errors.New("stop")
	if err := s.Vectors(storage.VectorSet{Shard: 3}, []uint32{0, 2}, func(uint32, []float32) error { return stop }); err != stop {
		t.Errorf("got %v, want the callback's error", err)
	}
}

func TestScanPointsFromAndStop(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	commit(t, s, func(b *storage.Batch) {
		for n := range uint64(10) {
			b.PutPoint(1, vectord.NumberID(n*10), storage.PointRow{Slot: uint32(n)})
		}
	})
	f := func(from uint64, limit int, want ...uint64) {
		t.Helper()
		var got []uint64
		start := vectord.NumberID(from)
		err := s.ScanPoints(1, &start, func(id vectord.PointID, _ storage.PointRow) (bool, error) {
			got = append(got, id.Number())
			return len(got) < limit, nil
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("from %d, at most %d: %v, %v; want %v", from, limit, got, err, want)
		}
	}
	f(0, 2, 0, 10)
	f(70, 9, 70, 80, 90)
	f(71, 9, 80, 90)
	f(91, 9)
}

// A batch that had trouble changes nothing, and says what the trouble was.
func TestBatchRefuses(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	f := func(name string, fill func(b *storage.Batch), want string) {
		t.Helper()
		b := s.NewBatch()
		b.SetApplied(0, storage.Applied{Index: 1})
		fill(b)
		b.SetApplied(0, storage.Applied{Index: 2})
		if _, err := b.Commit(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, want)
		}
		if a, err := s.Applied(0); a.Index != 0 || err != nil {
			t.Errorf("%s: the batch had an effect: %v, %v", name, a, err)
		}
	}
	f("empty name", func(b *storage.Batch) { b.PutMeta("", nil) }, "meta key of 0 bytes")
	f("long name", func(b *storage.Batch) { b.PutMeta(strings.Repeat("x", 3000), nil) }, "meta key of 3000 bytes")
	f("closed", func(b *storage.Batch) { b.Close() }, "closed before")
	f("committed twice", func(b *storage.Batch) {
		b.DeleteMeta("x")
		b.SetApplied(0, storage.Applied{})
		if durable, err := b.Commit(); err != nil || durable() != nil {
			t.Error(err)
		}
	}, "committed or closed before")
}

func TestCommitUnsynced(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	commit(t, s, func(b *storage.Batch) { b.AppendChange(1, 1, nil); b.AppendChange(1, 2, nil) })
	b := s.NewBatch()
	b.TrimChanges(1, 1)
	if err := b.CommitUnsynced(); err != nil {
		t.Fatal(err)
	}
	if err := b.CommitUnsynced(); err == nil {
		t.Error("a batch was committed twice")
	}
	err := s.Changes(1, 0, func(index uint64, _ []uint32) error {
		if index != 2 {
			t.Errorf("change %d is still there", index)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Readers see whole batches while a writer commits.
func TestReadersDuringCommits(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem(), MemTableBytes: 128 << 10})
	defer closeStore(t, s)
	const rounds, slots = 200, 8
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				snapshot := s.NewSnapshot()
				a, err := snapshot.Applied(0)
				if err == nil {
					err = snapshot.ScanVectors(storage.VectorSet{Shard: 0}, func(slot uint32, v []float32) error {
						if v[0] != float32(a.Index) {
							return fmt.Errorf("slot %d is of batch %v, the applied index is %d", slot, v[0], a.Index)
						}
						return nil
					})
				}
				if err = errors.Join(err, snapshot.Close()); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range uint64(rounds) {
		commit(t, s, func(b *storage.Batch) {
			for slot := range uint32(slots) {
				v := make([]float32, 100)
				v[0] = float32(i + 1)
				b.PutVector(storage.VectorSet{Shard: 0}, slot, v)
			}
			b.SetApplied(0, storage.Applied{Index: i + 1})
		})
	}
	close(stop)
	wg.Wait()
}

func TestDirectoryIsLocked(t *testing.T) {
	f := func(name string, o storage.Options) {
		t.Run(name, func(t *testing.T) {
			s := open(t, o)
			_, err := storage.Open(o)
			want := fmt.Sprintf("data directory %q is in use by another process", o.Dir)
			if !errors.Is(err, storage.ErrLocked) || err.Error() != want {
				t.Errorf("second Open: got %v, want %s", err, want)
			}
			closeStore(t, s)
			closeStore(t, open(t, o))
		})
	}
	f("disk", storage.Options{Dir: filepath.Join(t.TempDir(), "a", "b")})
	f("memory", storage.Options{Dir: "data", FS: vfs.NewMem()})
}

func TestDirectoryIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	closeStore(t, open(t, storage.Options{Dir: dir}))
	for _, d := range []string{filepath.Dir(dir), dir} {
		info, err := os.Stat(d)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v; want mode 0700", d, info.Mode(), err)
		}
	}
}

func TestFormat(t *testing.T) {
	f := func(name string, prepare func(fsys *vfs.MemFS), readOnly bool, want string) {
		t.Helper()
		fsys := vfs.NewMem()
		closeStore(t, open(t, storage.Options{FS: fsys}))
		prepare(fsys)
		s, err := storage.Open(storage.Options{Dir: "data", FS: fsys, ReadOnly: readOnly, Logger: quiet})
		if err == nil {
			closeStore(t, s)
		}
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
		// Whatever it was, the lock is free again.
		lock, err := fsys.Lock("data/LOCK")
		if err != nil {
			if want != "" && !readOnly {
				t.Errorf("%s: the directory stayed locked: %v", name, err)
			}
			return
		}
		lock.Close()
	}
	write := func(text string) func(*vfs.MemFS) {
		return func(fsys *vfs.MemFS) { writeFile(t, fsys, "data/FORMAT", text) }
	}
	f("as written", func(*vfs.MemFS) {}, false, "")
	f("as written, read-only", func(*vfs.MemFS) {}, true, "")
	f("2", write("vectord data format 2\n"), false, "")
	f("older", write("vectord data format 1\n"), false, `data directory "data" has format 1, of a vectord before its first release`)
	f("newer", write("vectord data format 3\n"), false, `data directory "data" has format 3, written by a newer vectord`)
	f("newer, read-only", write("vectord data format 3\n"), true, "written by a newer vectord")
	f("zero", write("vectord data format 0\n"), false, "FORMAT file damaged")
	f("empty", write(""), false, "FORMAT file damaged")
	f("cut short", write("vectord data format 1"), false, "FORMAT file damaged")
	f("huge", write(strings.Repeat("x", 1<<20)), false, "FORMAT file damaged")
	f("no directory, read-only", func(fsys *vfs.MemFS) { remove(t, fsys, "data") }, true, "does not exist")
	f("no FORMAT, read-only", func(fsys *vfs.MemFS) { remove(t, fsys, "data/FORMAT") }, true, "holds no vectord data")
	// An empty database without a FORMAT file is a creation that was interrupted.
	f("interrupted creation", func(fsys *vfs.MemFS) { remove(t, fsys, "data/FORMAT") }, false, "")
	f("lost FORMAT", func(fsys *vfs.MemFS) {
		s := open(t, storage.Options{FS: fsys})
		commit(t, s, func(b *storage.Batch) { b.PutMeta("x", nil) })
		closeStore(t, s)
		remove(t, fsys, "data/FORMAT")
	}, false, "holds a database but no FORMAT file")
	f("lost database", func(fsys *vfs.MemFS) { remove(t, fsys, "data/pebble") }, false, "does not exist")
}

func writeFile(t *testing.T, fsys vfs.FS, path, text string) {
	t.Helper()
	file, err := fsys.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(file, text)
	if err = errors.Join(err, file.Close()); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, fsys vfs.FS, path string) {
	t.Helper()
	if err := fsys.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func TestReadOnly(t *testing.T) {
	fsys := vfs.NewMem()
	s := open(t, storage.Options{FS: fsys})
	commit(t, s, func(b *storage.Batch) { b.PutMeta("name", []byte("value")) })
	closeStore(t, s)
	s = open(t, storage.Options{FS: fsys, ReadOnly: true})
	defer closeStore(t, s)
	err := s.ScanMeta(func(key string, value []byte) error {
		if key != "name" || string(value) != "value" {
			t.Errorf("meta entry %q: %q", key, value)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	b := s.NewBatch()
	b.PutMeta("name", nil)
	_, err = b.Commit()
	for _, err := range []error{err, s.WriteFile("x", nil), s.RemoveFile("x")} {
		if err == nil || !strings.Contains(err.Error(), "open for reading only") {
			t.Errorf("got %v, want a refusal", err)
		}
	}
	checkVerify(t, s)
}

func TestFiles(t *testing.T) {
	fsys := vfs.NewMem()
	s := open(t, storage.Options{FS: fsys})
	content := func(text string) func(io.Writer) error {
		return func(w io.Writer) error {
			_, err := io.WriteString(w, text)
			return err
		}
	}
	read := func(name, want string) {
		t.Helper()
		r, size, err := s.OpenFile(name)
		if err != nil {
			t.Fatal(err)
		}
		defer closeStore(t, r)
		if got, err := io.ReadAll(r); err != nil || string(got) != want || size != int64(len(want)) {
			t.Errorf("file %q: %.40q of size %d, %v; want %.40q", name, got, size, err, want)
		}
	}
	list := func(want ...string) {
		t.Helper()
		if got, err := s.ListFiles(); err != nil || !slices.Equal(got, want) {
			t.Errorf("files %q, %v; want %q", got, err, want)
		}
	}
	list()
	large := strings.Repeat("0123456789", 1<<18)
	for name, text := range map[string]string{"shard-1.graph": "first", "0": "", "z": large} {
		if err := s.WriteFile(name, content(text)); err != nil {
			t.Fatal(err)
		}
		read(name, text)
	}
	list("0", "shard-1.graph", "z")

	old, _, err := s.OpenFile("shard-1.graph")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WriteFile("shard-1.graph", content("second")); err != nil {
		t.Fatal(err)
	}
	read("shard-1.graph", "second")
	if text, err := io.ReadAll(old); err != nil || string(text) != "first" {
		t.Errorf("a file opened before it was replaced reads %q, %v", text, err)
	}
	closeStore(t, old)

	broken := errors.New("broken")
	err = s.WriteFile("shard-1.graph", func(w io.Writer) error {
		return errors.Join(content("half of the th")(w), broken)
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want the writer's error", err)
	}
	read("shard-1.graph", "second")
	if names, err := fsys.List("data/index"); err != nil || len(names) != 3 {
		t.Errorf("the folder holds %q after a write that failed, %v", names, err)
	}

	for range 2 {
		if err := s.RemoveFile("z"); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := s.OpenFile("z"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want a missing file", err)
	}
	for _, name := range []string{"", ".", "..", "-a", ".a", "_a", "A", "a/b", "../a", "a\x00", "ä", "~1-a",
		strings.Repeat("a", 65)} {
		_, _, err := s.OpenFile(name)
		for _, err := range []error{err, s.WriteFile(name, content("")), s.RemoveFile(name)} {
			if err == nil || !strings.Contains(err.Error(), "file name") {
				t.Errorf("name %q: got %v, want a refusal", name, err)
			}
		}
	}
	writeFile(t, fsys, "data/index/~7-shard-1.graph", "interrupted")
	list("0", "shard-1.graph")
	closeStore(t, s)
	s = open(t, storage.Options{FS: fsys})
	list("0", "shard-1.graph")
	read("shard-1.graph", "second")
	if names, err := fsys.List("data/index"); err != nil || len(names) != 2 {
		t.Errorf("the folder holds %q after a restart, %v", names, err)
	}
	closeStore(t, s)
}

// After a failed fsync, of whatever file, Fatal is called once and nothing is acknowledged.
func TestFsyncErrorIsFatal(t *testing.T) {
	f := func(name string, broken func(path string) bool, act func(s *storage.Store) error) {
		t.Run(name, func(t *testing.T) {
			var mu sync.Mutex // guards armed and fatal
			var armed bool
			var fatal []error
			fsys := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
				mu.Lock()
				defer mu.Unlock()
				sync := op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData
				if armed && sync && broken(op.Path) {
					return errorfs.ErrInjected
				}
				return nil
			}))
			s := open(t, storage.Options{FS: fsys, Fatal: func(err error) {
				mu.Lock()
				defer mu.Unlock()
				fatal = append(fatal, err)
			}})
			mu.Lock()
			armed = true
			mu.Unlock()
			if err := act(s); !errors.Is(err, errorfs.ErrInjected) {
				t.Errorf("got %v, want the fsync's error", err)
			}
			b := s.NewBatch()
			b.SetApplied(0, storage.Applied{})
			if _, err := b.Commit(); !errors.Is(err, errorfs.ErrInjected) {
				t.Errorf("commit after the failure: %v", err)
			}
			if err := s.WriteFile("later", func(io.Writer) error { return nil }); err == nil {
				t.Error("a file was written after the failure")
			}
			mu.Lock()
			armed = false
			mu.Unlock()
			_ = s.Close() // Pebble may complain of what failed
			if len(fatal) != 1 || !errors.Is(fatal[0], errorfs.ErrInjected) {
				t.Errorf("Fatal was called with %v", fatal)
			}
		})
	}
	commit := func(s *storage.Store) error {
		b := s.NewBatch()
		b.SetApplied(0, storage.Applied{Index: 1})
		durable, err := b.Commit()
		if err != nil {
			return err
		}
		err = durable()
		if again := durable(); !errors.Is(again, err) {
			return fmt.Errorf("durable returned %w and then %v", err, again)
		}
		return err
	}
	write := func(s *storage.Store) error {
		return s.WriteFile("graph", func(w io.Writer) error {
			_, err := w.Write(make([]byte, 100))
			return err
		})
	}
	f("write-ahead log", func(path string) bool { return strings.HasSuffix(path, ".log") }, commit)
	f("derived file", func(path string) bool { return strings.HasSuffix(path, "-graph") }, write)
	f("folder", func(path string) bool { return strings.HasSuffix(path, "index") }, write)
}

// A write-ahead log that cannot be written is fatal, too.
func TestWALWriteErrorIsFatal(t *testing.T) {
	var mu sync.Mutex // guards armed and fatal
	var armed bool
	var fatal []error
	fsys := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if armed && op.Kind == errorfs.OpFileWrite && strings.HasSuffix(op.Path, ".log") {
			return errorfs.ErrInjected
		}
		return nil
	}))
	s := open(t, storage.Options{FS: fsys, Fatal: func(err error) {
		mu.Lock()
		defer mu.Unlock()
		fatal = append(fatal, err)
	}})
	mu.Lock()
	armed = true
	mu.Unlock()
	b := s.NewBatch()
	b.SetApplied(0, storage.Applied{Index: 1})
	durable, err := b.Commit()
	if err == nil {
		err = durable()
	}
	if !errors.Is(err, errorfs.ErrInjected) {
		t.Errorf("got %v, want the write's error", err)
	}
	mu.Lock()
	armed = false
	mu.Unlock()
	_ = s.Close()
	if len(fatal) != 1 {
		t.Errorf("Fatal was called with %v", fatal)
	}
}

func TestVerifyEndsWithItsContext(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	commit(t, s, func(b *storage.Batch) { b.PutMeta("x", nil) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Verify(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want the context's error", err)
	}
	calls := 0
	if report, err := s.Verify(t.Context(), func(uint64) { calls++ }); err != nil || report.Meta != 1 || calls != 1 {
		t.Errorf("got %+v, %v and %d calls of progress", report, err, calls)
	}
}

// Bits that flip in a table are noticed when it is read, and do not end the process.
func TestDamagedTable(t *testing.T) {
	fsys := vfs.NewMem()
	s := open(t, storage.Options{FS: fsys, MemTableBytes: 64 << 10})
	for i := range uint64(60) {
		commit(t, s, func(b *storage.Batch) {
			for n := range uint64(10) {
				b.PutMeta(fmt.Sprint("name ", i*10+n), []byte(strings.Repeat(fmt.Sprint(i), 1000)))
			}
		})
	}
	closeStore(t, s)
	names, err := fsys.List("data/pebble")
	if err != nil {
		t.Fatal(err)
	}
	damagedTables := 0
	for _, name := range names {
		if strings.HasSuffix(name, ".sst") {
			data, err := fsys.UnsafeGetFileDataBuffer("data/pebble/" + name)
			if err != nil {
				t.Fatal(err)
			}
			data[100] ^= 1
			damagedTables++
		}
	}
	if damagedTables == 0 {
		t.Fatal("there is no table to damage")
	}
	s = open(t, storage.Options{FS: fsys, ReadOnly: true})
	defer closeStore(t, s)
	if err := s.ScanMeta(func(string, []byte) error { return nil }); err == nil {
		t.Error("the scan did not notice")
	}
	if report, err := s.Verify(t.Context(), nil); err != nil || report.ProblemCount == 0 {
		t.Errorf("verify did not notice: %+v, %v", report, err)
	}
}

func TestMetrics(t *testing.T) {
	s := open(t, storage.Options{FS: vfs.NewMem()})
	defer closeStore(t, s)
	commit(t, s, func(b *storage.Batch) { b.PutMeta("x", make([]byte, 1000)) })
	if m := s.Metrics(); m.DiskBytes == 0 || m.WALBytes < 1000 || m.MemTableBytes == 0 || m.WriteStalls != 0 {
		t.Errorf("metrics are %+v", m)
	}
}
