package logstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"
	"github.com/vectord/vectord/storage/storagetest"
)

// history is what one group of a test does. States holds what the group is after none, one, two... of its steps; a power
// cut has to leave one of those from acknowledged to begun.
type history struct {
	steps               []func(*Group) error
	states              []string
	acknowledged, begun atomic.Int64
}

func newHistory(rng *rand.Rand, steps int) *history {
	m := newModel()
	h := &history{states: []string{m.String()}}
	for range steps {
		h.steps = append(h.steps, m.step(rng, 5))
		h.states = append(h.states, m.String())
	}
	return h
}

// run does the steps from the last acknowledged one up to a number of them.
func (h *history) run(g *Group, to int) error {
	for i := int(h.acknowledged.Load()); i < to; i++ {
		h.begun.Store(int64(i + 1))
		if err := h.steps[i](g); err != nil {
			return err
		}
		h.acknowledged.Store(int64(i + 1))
	}
	return nil
}

// TestPowerCut cuts the power at every file operation of three groups that write at once, keeping none, half and all of
// what was not synced. What is left of each group is its state after everything that was acknowledged, or after the write
// that was under way too: no batch in part, and no term or vote of before.
func TestPowerCut(t *testing.T) {
	const groups, restarts = 3, 3
	steps := 20 // of each group between two restarts
	if testing.Short() {
		steps = 8
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	var histories []*history
	for range groups {
		histories = append(histories, newHistory(rng, steps*restarts))
	}
	var operations, crashes atomic.Uint64
	var fs *storagetest.CrashFS
	fs = storagetest.NewCrashFS(func(operation string) {
		n := operations.Add(1)
		if t.Failed() {
			return
		}
		for _, percent := range []int{0, 50, 100} {
			var least [groups]int64
			for i, h := range histories {
				least[i] = h.acknowledged.Load()
			}
			disk := fs.Crash(percent, seed+n)
			var most [groups]int64
			for i, h := range histories {
				most[i] = h.begun.Load()
			}
			if err := checkCrash(t, disk, histories, least[:], most[:]); err != nil {
				t.Errorf("seed %d: power cut after operation %d (%s), %d %% unsynced kept: %v", seed, n, operation, percent, err)
			}
			crashes.Add(1)
		}
	})
	for restart := range restarts {
		s := open(t, Pebble, "var/raft", Options{FS: fs, MemTableBytes: 32 << 10})
		var wg sync.WaitGroup
		for i, h := range histories {
			g := group(t, s, uint32(i))
			wg.Go(func() {
				if err := h.run(g, (restart+1)*steps); err != nil {
					t.Errorf("group %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		closeStore(t, s)
	}
	t.Logf("%d power cuts", crashes.Load())
}

func checkCrash(t *testing.T, disk vfs.FS, histories []*history, least, most []int64) error {
	s, err := Open(Pebble, "var/raft", Options{FS: disk, MemTableBytes: 32 << 10, Logger: discard, Fatal: func(err error) {
		t.Errorf("after the power cut: %v", err)
	}})
	if err != nil {
		return err
	}
	defer s.Close()
	for i, h := range histories {
		g, err := s.Group(uint32(i))
		if err != nil {
			return err
		}
		got, err := dump(g)
		if err != nil {
			return err
		}
		allowed := h.states[least[i] : most[i]+1]
		if !slices.Contains(allowed, got) {
			return fmt.Errorf("group %d is not in one of the states %d to %d but in\n%s", i, least[i], most[i], got)
		}
	}
	return nil
}

// TestTornTail cuts the write-ahead log off at every byte of its last record: what was acknowledged before is there, and
// the last StoreLogs is whole or absent.
func TestTornTail(t *testing.T) {
	mem := vfs.NewCrashableMem()
	s := open(t, Pebble, "raft", Options{FS: mem})
	g := group(t, s, 1)
	must(t, g.SetUint64([]byte("CurrentTerm"), 9), g.StoreLogs(entries(1, 3)))
	before, err := dump(g)
	must(t, err)
	written := func() (name string, content []byte) {
		names, err := mem.List("raft/pebble")
		must(t, err)
		for _, n := range names {
			if strings.HasSuffix(n, ".log") {
				name = "raft/pebble/" + n // names ascend, and the last is in use
			}
		}
		return name, readFile(t, mem, name)
	}
	_, content := written()
	start := len(content)
	must(t, g.StoreLogs(entries(4, 6)))
	after, err := dump(g)
	must(t, err)
	name, content := written()
	disk := func() vfs.FS { return mem.CrashClone(vfs.CrashCloneCfg{}) }
	whole, absent := 0, 0
	for size := start; size <= len(content); size++ {
		torn := disk()
		writeFile(t, torn, name, slices.Clone(content[:size])) // under -race the memory's files scribble on what they are given
		s := open(t, Pebble, "raft", Options{FS: torn})
		got, err := dump(group(t, s, 1))
		must(t, err)
		switch got {
		case before:
			absent++
		case after:
			whole++
		default:
			t.Errorf("cut at byte %d of %d: got\n%s", size, len(content), got)
		}
		closeStore(t, s)
	}
	if absent == 0 || whole == 0 {
		t.Errorf("of %d cuts, %d kept the last batch and %d did not", len(content)-start, whole, absent)
	}
	closeStore(t, s)
}

func readFile(t *testing.T, fs vfs.FS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	must(t, err)
	content, err := io.ReadAll(f)
	must(t, err, f.Close())
	return content
}

func writeFile(t *testing.T, fs vfs.FS, name string, content []byte) {
	t.Helper()
	f, err := fs.Create(name, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = f.Write(content)
	must(t, err, f.Sync(), f.Close())
}

// Every bit of a row that is not as it was written is an error, and so is a row in the place of another.
func TestDamagedRows(t *testing.T) {
	forKinds(t, func(t *testing.T, _ Kind, reopen func() *Store) {
		s := reopen()
		g, other := group(t, s, 1), group(t, s, 2)
		must(t, g.StoreLogs(entries(1, 5)), other.StoreLogs(entries(1, 5)))
		read := func(what string) {
			t.Helper()
			var l raft.Log
			if err := g.GetLog(3, &l); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s: got %v %s", what, err, line(&l))
			}
			if err := errors.Join(g.GetLog(2, &l), g.GetLog(4, &l)); err != nil {
				t.Errorf("%s: others: %v", what, err)
			}
		}
		put := func(value []byte) {
			t.Helper()
			must(t, g.table.putEntries([]row{{3, value}}))
		}
		good, err := g.table.entry(3)
		must(t, err)
		for bit := range 8 * len(good) {
			bad := slices.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			put(bad)
			read(fmt.Sprintf("bit %d", bit))
		}
		for size := range good {
			put(good[:size])
			read(fmt.Sprintf("%d bytes", size))
		}
		neighbor, err := g.table.entry(4)
		must(t, err)
		put(neighbor)
		read("the row of entry 4")
		foreign, err := other.table.entry(3)
		must(t, err)
		put(foreign)
		read("the row of another group")

		vote := []byte("LastVoteCand")
		must(t, g.Set(vote, []byte("node 1")), other.Set(vote, []byte("node 2")))
		good, err = g.table.value(vote)
		must(t, err)
		foreign, err = other.table.value(vote)
		must(t, err)
		bad := [][]byte{foreign, good[:3]}
		for bit := range 8 * len(good) {
			flipped := slices.Clone(good)
			flipped[bit/8] ^= 1 << (bit % 8)
			bad = append(bad, flipped)
		}
		for _, value := range bad {
			must(t, g.table.putValue(vote, value))
			if vote, err := g.Get(vote); !errors.Is(err, ErrDamaged) {
				t.Errorf("value %x: got %q, %v", value, vote, err)
			}
		}

		// A group whose log begins or ends with a damaged row cannot be opened, but removed. An open one can be reset.
		for _, index := range []uint64{1, 5} {
			good, err := other.table.entry(index)
			must(t, err)
			must(t, other.table.putEntries([]row{{index, good[1:]}}))
			closeStore(t, s)
			s = reopen()
			if _, err := s.Group(2); !errors.Is(err, ErrDamaged) {
				t.Errorf("opened with entry %d damaged: %v", index, err)
			}
			must(t, s.DeleteGroup(2))
			other = group(t, s, 2)
			check(t, "removed", other, "0 to 0, 0 bytes\n")
			must(t, other.StoreLogs(entries(1, 5)))
		}
		must(t, other.table.putEntries([]row{{3, good}}))
		if err := other.DeleteRange(1, 2); !errors.Is(err, ErrDamaged) {
			t.Errorf("log cut before a damaged entry: %v", err)
		}
		if first, err := other.FirstIndex(); first != 3 || err != nil {
			t.Errorf("it begins at %d, %v", first, err)
		}
		must(t, other.ResetLog(), other.StoreLogs(entries(8, 9)))
		m := newModel()
		m.logs = entries(8, 9)
		check(t, "reset", other, m.String())
		closeStore(t, s)
	})
}

// TestDamagedFiles flips bits of the tables on disk, and of rows where they lie in Bolt's file. What is read is right, or an
// error.
func TestDamagedFiles(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	forKinds(t, func(t *testing.T, kind Kind, _ func() *Store) {
		dir := t.TempDir()
		s := open(t, kind, dir, Options{})
		g := group(t, s, 1)
		const last = 50
		must(t, g.StoreLogs(entries(1, last)))
		row, err := g.table.entry(last / 2)
		must(t, err)
		if e, ok := s.engine.(pebbleEngine); ok {
			must(t, e.db.Flush())
		}
		closeStore(t, s)
		pattern := "*.bolt"
		if kind == Pebble {
			pattern = "*.sst"
		}
		files, err := filepath.Glob(filepath.Join(dir, string(kind), pattern))
		must(t, err)
		if len(files) != 1 {
			t.Fatalf("files %q, want one", files)
		}
		good, err := os.ReadFile(files[0])
		must(t, err)
		from, size := 0, len(good)
		if kind == Bolt { // pages have no checksum of their own
			if from, size = bytes.Index(good, row), len(row); from < 0 {
				t.Fatal("the row is not in the file")
			}
		}
		found := 0
		for range 200 {
			bad := slices.Clone(good)
			bit := rng.IntN(8 * size)
			bad[from+bit/8] ^= 1 << (bit % 8)
			must(t, os.WriteFile(files[0], bad, 0o600))
			if !rightOrError(t, kind, dir, last) {
				found++
			}
		}
		if found < 150 {
			t.Errorf("of 200 flipped bits, %d were found", found)
		}
	})
}

// rightOrError reads all entries and reports whether there was no error.
func rightOrError(t *testing.T, kind Kind, dir string, last uint64) (right bool) {
	t.Helper()
	s, err := Open(kind, dir, Options{MemTableBytes: 32 << 10, Logger: discard, Fatal: func(error) {}})
	if err != nil {
		return false
	}
	defer s.Close()
	g, err := s.Group(1)
	if err != nil {
		return false
	}
	for index := uint64(1); index <= last; index++ {
		var l raft.Log
		if err := g.GetLog(index, &l); err != nil {
			return false
		}
		if line(&l) != line(entry(index)) {
			t.Errorf("entry %d: %s", index, line(&l))
		}
	}
	return true
}

// slowFS counts the fsyncs of write-ahead logs, each of which takes a while, as on a disk.
type slowFS struct {
	vfs.FS
	syncs *atomic.Int64
}

func (s slowFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := s.FS.Create(name, category)
	if err == nil && strings.HasSuffix(name, ".log") {
		return slowFile{f, s.syncs}, nil
	}
	return f, err
}

type slowFile struct {
	vfs.File
	syncs *atomic.Int64
}

func (f slowFile) sync(fn func() error) error {
	f.syncs.Add(1)
	time.Sleep(2 * time.Millisecond)
	return fn()
}

func (f slowFile) Sync() error     { return f.sync(f.File.Sync) }
func (f slowFile) SyncData() error { return f.sync(f.File.SyncData) }

// Groups that append at once share fsyncs.
func TestGroupsShareFsyncs(t *testing.T) {
	const groups, each = 16, 25
	var syncs atomic.Int64
	s := open(t, Pebble, "raft", Options{FS: slowFS{vfs.NewMem(), &syncs}})
	defer closeStore(t, s)
	var ready []*Group
	for id := range uint32(groups) {
		ready = append(ready, group(t, s, id))
	}
	opened := syncs.Load()
	var wg sync.WaitGroup
	for _, g := range ready {
		wg.Go(func() {
			for i := range uint64(each) {
				if err := g.StoreLog(entry(i + 1)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := syncs.Load() - opened
	t.Logf("%d fsyncs for %d appends of %d groups", n, groups*each, groups)
	if n < each || n > groups*each/4 {
		t.Errorf("%d fsyncs for %d appends of %d groups", n, groups*each, groups)
	}
}

// injected is in the text of errors: Pebble's own last words do not wrap what they tell of.
var injected = errorfs.ErrInjected.Error()

// After the first failed write or fsync, of whatever file, nothing is acknowledged and every call returns the error.
func TestFailedDisk(t *testing.T) {
	f := func(name string, broken func(op errorfs.Op) bool) {
		t.Run(name, func(t *testing.T) {
			var armed atomic.Bool
			mem := vfs.NewCrashableMem()
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if armed.Load() && broken(op) {
					return errorfs.ErrInjected
				}
				return nil
			}))
			fatal := make(chan error, 10)
			s := open(t, Pebble, "raft", Options{FS: fs, Fatal: func(err error) { fatal <- err }})
			const groups = 4
			var acknowledged [groups]atomic.Uint64
			var ready []*Group
			for id := range uint32(groups) {
				g := group(t, s, id)
				must(t, g.SetUint64([]byte("CurrentTerm"), 5))
				ready = append(ready, g)
			}
			var wg sync.WaitGroup
			for id, g := range ready {
				wg.Go(func() {
					for index := uint64(1); index <= 10_000; index++ {
						if err := g.StoreLog(entry(index)); err != nil {
							if !strings.Contains(err.Error(), injected) {
								t.Errorf("got %v, want the disk's error", err)
							}
							return
						}
						acknowledged[id].Store(index)
						if index == 20 {
							armed.Store(true)
						}
					}
					t.Errorf("group %d: no append failed", id)
				})
			}
			wg.Wait()
			// The disk is well again, or says so: there is no way back.
			armed.Store(false)
			expectFailed(t, s, ready[0], injected)
			_ = s.Close() // Pebble may complain of what failed
			if len(fatal) != 1 {
				t.Errorf("Fatal was called %d times", len(fatal))
			}
			if err := <-fatal; !strings.Contains(err.Error(), injected) {
				t.Errorf("Fatal was called with %v", err)
			}
			s = open(t, Pebble, "raft", Options{FS: mem.CrashClone(vfs.CrashCloneCfg{})})
			for id := range ready {
				g := group(t, s, uint32(id))
				if last, err := g.LastIndex(); err != nil || last < acknowledged[id].Load() {
					t.Errorf("group %d: %d entries were acknowledged, %d are there, %v", id, acknowledged[id].Load(), last, err)
				}
			}
			closeStore(t, s)
		})
	}
	wal := func(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") }
	f("fsync", func(op errorfs.Op) bool {
		return wal(op) && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData)
	})
	f("write", func(op errorfs.Op) bool { return wal(op) && op.Kind == errorfs.OpFileWrite })
	var once atomic.Bool
	f("one fsync", func(op errorfs.Op) bool {
		return wal(op) && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) && once.CompareAndSwap(false, true)
	})
}

// The same of Bolt, whose file is closed beneath it: there is no file system to put in between.
func TestFailedBolt(t *testing.T) {
	fatal := make(chan error, 10)
	s := open(t, Bolt, t.TempDir(), Options{Fatal: func(err error) { fatal <- err }})
	g := group(t, s, 1)
	must(t, g.StoreLogs(entries(1, 3)), group(t, s, 2).StoreLogs(entries(1, 3)), g.table.(boltTable).db.Close())
	first := g.StoreLogs(entries(4, 5))
	if first == nil || len(fatal) != 1 {
		t.Fatalf("got %v, and Fatal was called %d times", first, len(fatal))
	}
	expectFailed(t, s, g, (<-fatal).Error())
	if len(fatal) != 0 {
		t.Error("Fatal was called again")
	}
	_ = s.Close()
}

// expectFailed makes every call and wants the error that ended the store.
func expectFailed(t *testing.T, s *Store, g *Group, want string) {
	t.Helper()
	calls := map[string]func() error{
		"FirstIndex":  func() error { _, err := g.FirstIndex(); return err },
		"LastIndex":   func() error { _, err := g.LastIndex(); return err },
		"GetLog":      func() error { return g.GetLog(1, new(raft.Log)) },
		"StoreLog":    func() error { return g.StoreLog(entry(1000)) },
		"StoreLogs":   func() error { return g.StoreLogs(entries(1000, 1001)) },
		"DeleteRange": func() error { return g.DeleteRange(1, 2) },
		"ResetLog":    g.ResetLog,
		"Set":         func() error { return g.Set([]byte("k"), nil) },
		"Get":         func() error { _, err := g.Get([]byte("k")); return err },
		"SetUint64":   func() error { return g.SetUint64([]byte("k"), 1) },
		"GetUint64":   func() error { _, err := g.GetUint64([]byte("k")); return err },
		"Group":       func() error { _, err := s.Group(1); return err },
		"Groups":      func() error { _, err := s.Groups(); return err },
		"DeleteGroup": func() error { return s.DeleteGroup(3) },
	}
	for name, call := range calls {
		if err := call(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s after the failure: %v", name, err)
		}
	}
}
