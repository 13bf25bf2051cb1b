package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/hashicorp/raft"

	"github.com/vectord/vectord/internal/fsync"
)

const snapshotRoot = "data/snapshots"

// content is the files of a checkpoint by their names.
type content map[string]string

// sampleContent is that of a snapshot that covers entries up to an index: the test knows by it what must be in a snapshot.
func sampleContent(applied uint64) content {
	return content{
		"CURRENT":         fmt.Sprint("now ", applied),
		"empty":           "",
		"deep/er/000.sst": strings.Repeat(fmt.Sprint(applied, " "), 3000),
	}
}

// write makes the content durable below dir.
func (c content) write(tb testing.TB, fs vfs.FS, dir string) {
	tb.Helper()
	if err := c.save(fs, dir); err != nil {
		tb.Fatal(err)
	}
}

func (c content) save(fs vfs.FS, dir string) error {
	if err := fsync.MakeDir(fs, dir); err != nil {
		return err
	}
	for name, data := range c {
		path := fs.PathJoin(dir, name)
		if err := fsync.MakeDir(fs, fs.PathDir(path)); err != nil {
			return err
		}
		f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return err
		}
		_, err = f.Write([]byte(data))
		if err := errors.Join(err, f.Sync(), f.Close(), fsync.Dir(fs, fs.PathDir(path))); err != nil {
			return err
		}
	}
	return nil
}

// readContent returns what is below dir.
func readContent(tb testing.TB, fs vfs.FS, dir string) content {
	tb.Helper()
	files, err := listFiles(fs, dir)
	if err != nil {
		tb.Fatal(err)
	}
	c := content{}
	for _, f := range files {
		opened, err := fs.Open(fs.PathJoin(dir, f.name))
		if err != nil {
			tb.Fatal(err)
		}
		b, err := io.ReadAll(opened)
		if err = errors.Join(err, opened.Close()); err != nil {
			tb.Fatal(err)
		}
		c[f.name] = string(b)
	}
	return c
}

// stream returns the bytes of the stream of a content.
func (c content) stream(tb testing.TB, applied uint64) []byte {
	tb.Helper()
	fs := vfs.NewMem()
	c.write(tb, fs, "c")
	files, err := listFiles(fs, "c")
	if err != nil {
		tb.Fatal(err)
	}
	r, err := openStream(fs, "c", applied, files)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		tb.Fatal(err)
	}
	if int64(len(b)) != streamSize(files) {
		tb.Errorf("a stream of %d bytes is said to have %d", len(b), streamSize(files))
	}
	return b
}

var sampleServers = raft.Configuration{Servers: []raft.Server{{ID: "n", Address: "a"}, {ID: "m", Address: "b", Suffrage: raft.Nonvoter}}}

// take makes a snapshot of a checkpoint, as a node does of its own state.
func take(s *snapshotStore, index, applied uint64) error {
	dir := s.temporary()
	if err := sampleContent(applied).save(s.fs, dir); err != nil {
		return err
	}
	sink, err := s.Create(raft.SnapshotVersionMax, index, 7, sampleServers, index-1, nil)
	if err != nil {
		return err
	}
	if err := sink.(*snapshotSink).adopt(dir, applied); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// install makes a snapshot of another node's stream, in pieces of a size.
func install(s *snapshotStore, index uint64, stream []byte, piece int) error {
	sink, err := s.Create(raft.SnapshotVersionMax, index, 7, sampleServers, index-1, nil)
	if err != nil {
		return err
	}
	for b := range slices.Chunk(stream, piece) {
		if n, err := sink.Write(b); err != nil || n != len(b) {
			return errors.Join(fmt.Errorf("wrote %d of %d bytes: %w", n, len(b), err), sink.Cancel())
		}
	}
	return sink.Close()
}

// checkSnapshot reads a snapshot through Open and compares it with what a snapshot of applied has.
func checkSnapshot(tb testing.TB, s *snapshotStore, id string, index, applied uint64) {
	tb.Helper()
	meta, r, err := s.Open(id)
	if err != nil {
		tb.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		tb.Fatal(err)
	}
	if meta.Index != index || meta.Term != 7 || meta.ConfigurationIndex != index-1 || meta.Size != int64(len(b)) ||
		fmt.Sprint(meta.Configuration) != fmt.Sprint(sampleServers) {
		tb.Errorf("snapshot %s of %d bytes is said to be %+v", id, len(b), meta)
	}
	if want := sampleContent(applied).stream(tb, applied); !bytes.Equal(b, want) {
		tb.Errorf("snapshot %s gives %d bytes that are not those of its content", id, len(b))
	}
}

func TestSnapshotRoundTrip(t *testing.T) {
	for _, piece := range []int{1, 7, 4096, 1 << 20} {
		from, err := openSnapshots(vfs.NewMem(), snapshotRoot)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := from.List(); err != nil || len(list) > 0 {
			t.Errorf("an empty store lists %v: %v", list, err)
		}
		if err := take(from, 9, 500); err != nil {
			t.Fatal(err)
		}
		newest, ok, err := from.newest()
		if err != nil || !ok || newest.Applied != 500 {
			t.Fatalf("newest is %+v, %v, %v", newest, ok, err)
		}
		checkSnapshot(t, from, newest.ID, 9, 500)
		_, r, err := from.Open(newest.ID)
		if err != nil {
			t.Fatal(err)
		}
		stream, err := io.ReadAll(r)
		if err = errors.Join(err, r.Close()); err != nil {
			t.Fatal(err)
		}
		to, err := openSnapshots(vfs.NewMem(), snapshotRoot)
		if err != nil {
			t.Fatal(err)
		}
		if err := install(to, 9, stream, piece); err != nil {
			t.Fatal(err)
		}
		newest, _, err = to.newest()
		if err != nil || newest.Applied != 500 {
			t.Fatalf("newest is %+v: %v", newest, err)
		}
		checkSnapshot(t, to, newest.ID, 9, 500)
		if got := readContent(t, to.fs, to.path(newest.ID, stateDir)); !maps.Equal(got, sampleContent(500)) {
			t.Errorf("%v arrived", got)
		}
	}
}

// TestSnapshotNothingWritten is about a snapshot without a state, which must not replace one that has it.
func TestSnapshotNothingWritten(t *testing.T) {
	s, err := openSnapshots(vfs.NewMem(), snapshotRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(s, 9, 500); err != nil {
		t.Fatal(err)
	}
	sink, err := s.Create(raft.SnapshotVersionMax, 10, 7, sampleServers, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err == nil {
		t.Error("a snapshot of nothing was taken")
	}
	if newest, _, err := s.newest(); err != nil || newest.Index != 9 {
		t.Errorf("the newest is %+v: %v", newest, err)
	}
}

func TestSnapshotDamagedStream(t *testing.T) {
	good := sampleContent(3).stream(t, 3)
	damaged := map[string][]byte{"followed by something": append(bytes.Clone(good), 0)}
	for size := range len(good) {
		if size < 200 || size%997 == 0 || size > len(good)-200 {
			damaged[fmt.Sprint("cut to ", size)] = good[:size]
		}
	}
	for bit := range 8 * len(good) {
		// The index that the header tells has no checksum: that of Raft's message counts. And a bit of a file's content is
		// like any other.
		if bit < 8*len(streamMagic) || bit >= 8*(len(streamMagic)+8) && bit < 8*200 || bit%4099 == 0 && bit >= 8*200 {
			b := bytes.Clone(good)
			b[bit/8] ^= 1 << (bit % 8)
			damaged[fmt.Sprint("bit ", bit)] = b
		}
	}
	for what, b := range damaged {
		fs := vfs.NewMem()
		if _, err := readStream(bytes.NewReader(b), fs, "c"); err == nil {
			t.Errorf("%s: was taken", what)
		} else if !errors.Is(err, errBadStream) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", what, err)
		}
		s, err := openSnapshots(fs, snapshotRoot)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 0 {
			if err := install(s, 5, b, 100); err == nil {
				t.Errorf("%s: was installed", what)
			}
		}
		if names, err := fs.List(snapshotRoot); err != nil || len(names) > 0 {
			t.Errorf("%s: left %v: %v", what, names, err)
		}
	}
}

func TestSnapshotNames(t *testing.T) {
	f := func(name string, good bool) {
		t.Helper()
		if err := checkName(name); (err == nil) != good || !good && !errors.Is(err, errBadStream) {
			t.Errorf("name %q: %v", name, err)
		}
		if len(name) > 1<<15 {
			return
		}
		// As a sender would write it who checks nothing.
		fs := vfs.NewMem()
		outside := content{"outside": "untouched"}
		outside.write(t, fs, "a/b")
		var b bytes.Buffer
		b.WriteString(streamMagic)
		b.Write(make([]byte, 8))
		b.Write([]byte{1, 0, 0, 0})
		b.Write(fileOf(name, 0))
		if _, err := readStream(&b, fs, "a/b/c"); (err == nil) != good {
			t.Errorf("a file of name %q: %v", name, err)
		}
		if good {
			if err := fs.RemoveAll("a/b/c"); err != nil {
				t.Fatal(err)
			}
		}
		got := readContent(t, fs, "a")
		if !maps.Equal(got, content{"b/outside": "untouched"}) {
			t.Errorf("a file of name %q left %v", name, got)
		}
	}
	f("MANIFEST-000001", true)
	f("marker.format-version.000001.013", true)
	f("a/b_c/D.9", true)
	f(strings.Repeat("n", streamNameMax), true)
	f(strings.Repeat("n", streamNameMax+1), false)
	f("", false)
	f(".", false)
	f("..", false)
	f("../outside", false)
	f("a/../../outside", false)
	f("/outside", false)
	f("a//b", false)
	f("a/", false)
	f("a\\b", false)
	f("a b", false)
	f("a\x00b", false)
	f("ä", false)
}

// fileOf is an empty file of a stream that claims a size.
func fileOf(name string, size uint64) []byte {
	b := append([]byte{byte(len(name)), byte(len(name) >> 8)}, name...)
	b = binary.LittleEndian.AppendUint64(b, size)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func TestSnapshotStreamBounds(t *testing.T) {
	header := func(files uint32) []byte {
		b := append([]byte(streamMagic), make([]byte, 8)...)
		return append(b, byte(files), byte(files>>8), byte(files>>16), byte(files>>24))
	}
	if _, err := readStream(bytes.NewReader(header(streamFilesMax+1)), vfs.NewMem(), "c"); !errors.Is(err, errBadStream) {
		t.Errorf("too many files: %v", err)
	}
	if _, err := readStream(bytes.NewReader(header(0)), vfs.NewMem(), "c"); err != nil {
		t.Errorf("no files: %v", err)
	}
	// The same file twice, a file where a folder is needed, and one that claims more than there can be.
	a := fileOf("a", 0)
	for what, b := range map[string][]byte{
		"twice":       append(append(header(2), a...), a...),
		"descending":  append(append(header(2), fileOf("b", 0)...), a...),
		"file/folder": append(append(header(2), a...), fileOf("a/b", 0)...),
		"huge":        append(header(1), fileOf("a", 1<<63)...),
		"too large":   append(header(1), fileOf("a", 1<<62)...),
	} {
		if _, err := readStream(bytes.NewReader(b), vfs.NewMem(), "c"); err == nil {
			t.Errorf("%s: was taken", what)
		}
	}
}

// TestSnapshotCancel gives a snapshot up at every byte.
func TestSnapshotCancel(t *testing.T) {
	stream := content{"a": "content", "b/c": ""}.stream(t, 3)
	for size := range len(stream) + 1 {
		s, err := openSnapshots(vfs.NewMem(), snapshotRoot)
		if err != nil {
			t.Fatal(err)
		}
		sink, err := s.Create(raft.SnapshotVersionMax, 2, 1, sampleServers, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if size > 0 {
			if _, err := sink.Write(stream[:size]); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second time it does nothing
			if err := sink.Cancel(); err != nil {
				t.Errorf("after %d bytes: %v", size, err)
			}
		}
		if err := sink.Close(); err != nil {
			t.Errorf("close after cancel: %v", err)
		}
		if names, err := s.fs.List(snapshotRoot); err != nil || len(names) > 0 {
			t.Errorf("after %d bytes: left %v: %v", size, names, err)
		}
	}
}

// TestSnapshotReap keeps two, and gives one to its end that is reaped meanwhile.
func TestSnapshotReap(t *testing.T) {
	s, err := openSnapshots(vfs.NewMem(), snapshotRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(s, 2, 1); err != nil {
		t.Fatal(err)
	}
	oldest, _, err := s.newest()
	if err != nil {
		t.Fatal(err)
	}
	_, r, err := s.Open(oldest.ID)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 100)
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatal(err)
	}
	for index := uint64(3); index < 6; index++ {
		if err := take(s, index, index); err != nil {
			t.Fatal(err)
		}
		names, err := s.fs.List(snapshotRoot)
		if err != nil || len(names) != snapshotsKept {
			t.Errorf("%v are kept: %v", names, err)
		}
		list, err := s.List()
		if err != nil || len(list) != snapshotsKept || list[0].Index != index || list[1].Index != max(index-1, 2) {
			t.Errorf("after the snapshot at %d: %v, %v", index, list, err)
		}
	}
	if _, _, err := s.Open(oldest.ID); err == nil {
		t.Error("the oldest is still there")
	}
	rest, err := io.ReadAll(r)
	if err = errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(got, rest...), sampleContent(1).stream(t, 1)) {
		t.Error("a snapshot that was reaped while it was read is not whole")
	}
}

// TestSnapshotAgain: the one that was made last stays, also where there are others of its index, as Raft opens it next.
func TestSnapshotAgain(t *testing.T) {
	s, err := openSnapshots(vfs.NewMem(), snapshotRoot)
	if err != nil {
		t.Fatal(err)
	}
	stream := sampleContent(500).stream(t, 500)
	for range 20 {
		sink, err := s.Create(raft.SnapshotVersionMax, 9, 7, sampleServers, 8, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sink.Write(stream); err != nil {
			t.Fatal(err)
		}
		if err := sink.Close(); err != nil {
			t.Fatal(err)
		}
		checkSnapshot(t, s, sink.ID(), 9, 500)
		if list, err := s.List(); err != nil || len(list) > snapshotsKept {
			t.Errorf("%d are kept: %v", len(list), err)
		}
	}
}

// TestSnapshotsConcurrently takes, installs, lists and reads snapshots at once, as Raft's goroutines do.
func TestSnapshotsConcurrently(t *testing.T) {
	s, err := openSnapshots(vfs.NewMem(), snapshotRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(s, 2, 2); err != nil {
		t.Fatal(err)
	}
	stream := sampleContent(1<<20).stream(t, 1<<20)
	const rounds = 100
	var work, writers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		writers.Go(func() {
			for index := uint64(3); index < rounds; index++ {
				if err := take(s, 1000, index); err != nil {
					t.Errorf("take: %v", err)
				}
				if err := install(s, 1000, stream, 1000); err != nil {
					t.Errorf("install: %v", err)
				}
			}
		})
		work.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				list, err := s.List()
				if err != nil || len(list) == 0 {
					t.Errorf("list of %d: %v", len(list), err)
					return
				}
				_, r, err := s.Open(list[0].ID)
				if err != nil {
					continue // reaped since: Raft tries again
				}
				if _, err := io.Copy(io.Discard, r); err != nil {
					t.Errorf("read: %v", err)
				}
				_ = r.Close()
			}
		})
	}
	writers.Wait()
	close(done)
	work.Wait()
}

// TestSnapshotOlder: another node's snapshot that this one has all of is refused, and leaves nothing.
func TestSnapshotOlder(t *testing.T) {
	s, err := openSnapshots(vfs.NewMem(), snapshotRoot)
	if err != nil {
		t.Fatal(err)
	}
	if err := take(s, 9, 500); err != nil {
		t.Fatal(err)
	}
	s.has = func(index, term uint64) (bool, error) { return index < 9 && term == 7, nil }
	if err := install(s, 8, sampleContent(400).stream(t, 400), 1000); !errors.Is(err, errHasSnapshot) {
		t.Errorf("an older snapshot over a newer one: %v", err)
	}
	if names, err := s.fs.List(snapshotRoot); err != nil || len(names) != 1 {
		t.Errorf("%v are left: %v", names, err)
	}
	if err := install(s, 9, sampleContent(500).stream(t, 500), 1000); err != nil {
		t.Error(err)
	}
	if err := take(s, 8, 400); err != nil {
		t.Errorf("a node's own: %v", err)
	}
}

// piecemeal is a file system whose RemoveAll removes one thing after another, each for good. That is what file systems do; the
// one for tests removes a folder in one step.
type piecemeal struct{ vfs.FS }

func (p piecemeal) RemoveAll(path string) error {
	info, err := p.Stat(path)
	if err != nil {
		return nil
	}
	if info.IsDir() {
		names, err := p.List(path)
		if err != nil {
			return err
		}
		slices.Sort(names)
		for _, name := range names {
			if err := p.RemoveAll(p.PathJoin(path, name)); err != nil {
				return err
			}
			if err := fsync.Dir(p.FS, path); err != nil {
				return err
			}
		}
	}
	return p.Remove(path)
}

// TestSnapshotPowerCuts cuts the power before every operation of snapshots that are taken, installed and reaped. What is
// there afterwards is whole, and the newest is never older than the last that was said to be durable.
func TestSnapshotPowerCuts(t *testing.T) {
	rng := seed(t)
	disk := vfs.NewCrashableMem()
	acknowledged := uint64(0) // index of the last snapshot that was complete
	cuts := 0
	check := func() {
		cuts++
		for _, percent := range []int{0, 50, 100} {
			clone := disk.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng})
			s, err := openSnapshots(clone, snapshotRoot)
			if err != nil {
				t.Fatalf("after cut %d: %v", cuts, err)
			}
			metas, err := s.metas()
			if err != nil {
				t.Fatalf("after cut %d: %v", cuts, err)
			}
			if len(metas) > 0 && metas[0].Index < acknowledged || len(metas) == 0 && acknowledged > 0 {
				t.Errorf("after cut %d: the snapshot at %d is lost", cuts, acknowledged)
			}
			for _, m := range metas {
				checkSnapshot(t, s, m.ID, m.Index, m.Applied)
				if m.Applied != 100*m.Index {
					t.Errorf("after cut %d: %+v", cuts, m)
				}
			}
			if err := take(s, 50, 5000); err != nil {
				t.Errorf("after cut %d: %v", cuts, err)
			}
		}
	}
	fs := piecemeal{errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			check()
		}
		return nil
	}))}
	s, err := openSnapshots(fs, snapshotRoot)
	if err != nil {
		t.Fatal(err)
	}
	for index := uint64(2); index < 8; index++ {
		if index%2 == 0 {
			err = take(s, index, 100*index)
		} else {
			err = install(s, index, sampleContent(100*index).stream(t, 100*index), 1<<20)
		}
		if err != nil {
			t.Fatal(err)
		}
		acknowledged = index
	}
	check()
	t.Logf("%d power cuts", cuts)
}

// TestSnapshotDiskErrors fails every operation of a snapshot, one at a time: there is an error, nothing is left at the next
// start, and what was there stays.
func TestSnapshotDiskErrors(t *testing.T) {
	for _, kind := range []string{"take", "install"} {
		for failing := 0; ; failing++ {
			disk := vfs.NewMem()
			count, broken := 0, false
			fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if broken && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
					if count++; count-1 == failing {
						return errorfs.ErrInjected
					}
				}
				return nil
			}))
			s, err := openSnapshots(fs, snapshotRoot)
			if err != nil {
				t.Fatal(err)
			}
			if err := take(s, 5, 500); err != nil {
				t.Fatal(err)
			}
			broken = true
			if kind == "take" {
				err = take(s, 6, 600)
			} else {
				err = install(s, 6, sampleContent(600).stream(t, 600), 1000)
			}
			if count <= failing {
				break // that was the last
			}
			broken = false
			again, openErr := openSnapshots(disk, snapshotRoot)
			if openErr != nil {
				t.Fatal(openErr)
			}
			newest, ok, newestErr := again.newest()
			if newestErr != nil || !ok {
				t.Fatalf("%s, operation %d fails: %v, %v", kind, failing, ok, newestErr)
			}
			if want := uint64(5 + btoi(err == nil)); newest.Index < want {
				t.Errorf("%s, operation %d fails with %v: the newest is at %d", kind, failing, err, newest.Index)
			}
			checkSnapshot(t, again, newest.ID, newest.Index, newest.Applied)
		}
	}
}

func FuzzReadStream(f *testing.F) {
	f.Add(sampleContent(1).stream(f, 1)[:streamHeaderSize+20])
	f.Add(content{}.stream(f, 0))
	f.Add(content{"a": "x", "b/c": "y"}.stream(f, 9))
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := vfs.NewMem()
		applied, err := readStream(bytes.NewReader(b), fs, "a/b")
		names, listErr := fs.List("a")
		if listErr == nil && !slices.Equal(names, []string{"b"}) {
			t.Errorf("it wrote to %v", names)
		}
		if err != nil {
			return
		}
		if again := readContent(t, fs, "a/b").stream(t, applied); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
