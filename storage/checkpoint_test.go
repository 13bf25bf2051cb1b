package storage

import (
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/vectord/vectord"
)

// fillStore commits points from a number on and writes a derived file.
func fillStore(t *testing.T, s *Store, from, to uint64, file string) {
	t.Helper()
	for i := from; i < to; i++ {
		b := s.NewBatch()
		b.PutPoint(1, vectord.NumberID(i), PointRow{Slot: uint32(i), Payload: []byte(`{"a":1}`)})
		b.SetApplied(1, Applied{Index: i + 1, Time: 1})
		if err := b.CommitUnsynced(); err != nil {
			t.Fatal(err)
		}
	}
	err := s.WriteFile("derived", func(w io.Writer) error {
		_, err := io.WriteString(w, file)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkStore fails unless a store has so many points and that derived file.
func checkStore(t *testing.T, fsys vfs.FS, dir string, want uint64, file string) {
	t.Helper()
	s, err := Open(Options{Dir: dir, FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	last, err := s.LastApplied()
	if err != nil || last.Index != want {
		t.Fatalf("applied up to %d, want %d: %v", last.Index, want, err)
	}
	for i := range want {
		if _, ok, err := s.Point(1, vectord.NumberID(i)); err != nil || !ok {
			t.Fatalf("point %d: %v %v", i, ok, err)
		}
	}
	f, _, err := s.OpenFile("derived")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(f)
	if err != nil || string(text) != file || f.Close() != nil {
		t.Errorf("derived file is %q, want %q: %v", text, file, err)
	}
}

func TestCheckpointAndReplace(t *testing.T) {
	fsys := vfs.NewMem()
	s, err := Open(Options{Dir: "data", FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, s, 0, 500, "early")
	if err := s.Checkpoint("checkpoints/1"); err != nil {
		t.Fatal(err)
	}
	fillStore(t, s, 500, 900, "late")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkStore(t, fsys, "data", 900, "late")
	if err := Replace(fsys, "data", "checkpoints/1"); err != nil {
		t.Fatal(err)
	}
	checkStore(t, fsys, "data", 500, "early")
	// What the replaced directory has written since has left the checkpoint as it was.
	s, err = Open(Options{Dir: "data", FS: fsys})
	if err != nil {
		t.Fatal(err)
	}
	fillStore(t, s, 500, 5000, "later")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := Replace(fsys, "new", "checkpoints/1"); err != nil {
		t.Fatal(err)
	}
	checkStore(t, fsys, "new", 500, "early")
}

// TestPowerCutWhileReplacing cuts the power at every change of the file system: the directory has the one state or the other.
func TestPowerCutWhileReplacing(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	replaced := 0
	for cut := 0; ; cut++ {
		mem := vfs.NewCrashableMem()
		s, err := Open(Options{Dir: "data", FS: mem})
		if err != nil {
			t.Fatal(err)
		}
		fillStore(t, s, 0, 20, "early")
		if err := s.Checkpoint("checkpoints/1"); err != nil {
			t.Fatal(err)
		}
		fillStore(t, s, 20, 40, "late")
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		var crashed *vfs.MemFS
		changes := 0
		watch := func() {
			if changes++; changes == cut+1 {
				crashed = mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101), RNG: rng})
			}
		}
		if err := Replace(changeFS{mem, watch}, "data", "checkpoints/1"); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			break
		}
		s, err = Open(Options{Dir: "data", FS: crashed})
		if err != nil {
			t.Fatalf("cut %d, seed %d: %v", cut, seed, err)
		}
		last, err := s.LastApplied()
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		switch {
		case err == nil && last.Index == 20:
			replaced++
			checkStore(t, crashed, "data", 20, "early")
		case err == nil && last.Index == 40:
			checkStore(t, crashed, "data", 40, "late")
		default:
			t.Errorf("cut %d, seed %d: applied up to %d: %v", cut, seed, last.Index, err)
		}
	}
	if replaced == 0 {
		t.Error("no cut was late enough to see the new state")
	}
}

// changeFS calls changed before each change of names.
type changeFS struct {
	vfs.FS
	changed func()
}

func (c changeFS) Link(from, to string) error   { c.changed(); return c.FS.Link(from, to) }
func (c changeFS) Rename(from, to string) error { c.changed(); return c.FS.Rename(from, to) }
func (c changeFS) RemoveAll(name string) error  { c.changed(); return c.FS.RemoveAll(name) }
func (c changeFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	c.changed()
	return c.FS.Create(name, category)
}
func (c changeFS) OpenDir(name string) (vfs.File, error) { c.changed(); return c.FS.OpenDir(name) }
