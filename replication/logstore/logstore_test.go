package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/vectord/vectord"
)

var (
	kinds   = []Kind{Pebble, Bolt}
	discard = slog.New(slog.DiscardHandler)
)

var (
	_ raft.LogStore    = (*Group)(nil)
	_ raft.StableStore = (*Group)(nil)
)

// forKinds runs a test for each kind, with a function that opens the test's store.
func forKinds(t *testing.T, f func(t *testing.T, kind Kind, reopen func() *Store)) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(string(kind), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "raft", "logs")
			f(t, kind, func() *Store {
				t.Helper()
				return open(t, kind, dir, Options{MemTableBytes: 128 << 10})
			})
		})
	}
}

func open(t *testing.T, kind Kind, dir string, o Options) *Store {
	t.Helper()
	o.Logger = discard
	if o.Fatal == nil {
		o.Fatal = func(err error) { t.Errorf("the store failed: %v", err) }
	}
	s, err := Open(kind, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closeStore(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func group(t *testing.T, s *Store, id uint32) *Group {
	t.Helper()
	g, err := s.Group(id)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// entry returns an entry with something in each field.
func entry(index uint64) *raft.Log {
	return &raft.Log{
		Index:      index,
		Term:       index / 3,
		Type:       raft.LogType(index % 6),
		Data:       bytes.Repeat(fmt.Appendf(nil, "data %d;", index), int(index%7)),
		Extensions: bytes.Repeat([]byte("x"), int(index%3)),
		AppendedAt: time.Unix(int64(index), int64(index)).UTC(),
	}
}

func entries(first, last uint64) (logs []*raft.Log) {
	for i := first; i <= last; i++ {
		logs = append(logs, entry(i))
	}
	return logs
}

// line is an entry in a dump.
func line(l *raft.Log) string {
	return fmt.Sprintf("%d term %d %v %08x %q %v\n", l.Index, l.Term, l.Type, crc32.ChecksumIEEE(l.Data), l.Extensions,
		l.AppendedAt.UTC())
}

var dumpedValues = []string{"CurrentTerm", "LastVoteCand"}

// dump returns all that a group tells.
func dump(g *Group) (string, error) {
	first, err := g.FirstIndex()
	last, lastErr := g.LastIndex()
	if err := errors.Join(err, lastErr); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d to %d, %d bytes\n", first, last, g.Bytes())
	for i := max(first, 1) - 1; i <= last+1; i++ {
		var l raft.Log
		err := g.GetLog(i, &l)
		if err == nil {
			b.WriteString(line(&l))
		} else if err != raft.ErrLogNotFound { // as hashicorp/raft compares it
			return "", err
		}
	}
	for _, key := range dumpedValues {
		value, err := g.Get([]byte(key))
		if err == nil {
			fmt.Fprintf(&b, "%s %x\n", key, value)
		} else if err.Error() != "not found" {
			return "", err
		}
	}
	return b.String(), nil
}

func check(t *testing.T, what string, g *Group, want string) {
	t.Helper()
	if got, err := dump(g); err != nil || got != want {
		t.Fatalf("%s: got %v\n%s\nwant\n%s", what, err, got, want)
	}
}

// model is a group as it should be.
type model struct {
	logs   []*raft.Log
	values map[string][]byte
	term   uint64
}

func (m *model) String() string {
	var b strings.Builder
	size := 0
	for _, l := range m.logs {
		size += entrySize(l)
	}
	first, last := uint64(0), uint64(0)
	if len(m.logs) > 0 {
		first, last = m.logs[0].Index, m.logs[len(m.logs)-1].Index
	}
	fmt.Fprintf(&b, "%d to %d, %d bytes\n", first, last, size)
	for _, l := range m.logs {
		b.WriteString(line(l))
	}
	for _, key := range dumpedValues {
		if value, ok := m.values[key]; ok {
			fmt.Fprintf(&b, "%s %x\n", key, value)
		}
	}
	return b.String()
}

// step changes the model at random, and returns what does the same to a group, in one write of most entries at most.
func (m *model) step(rng *rand.Rand, most int) func(*Group) error {
	n := len(m.logs)
	switch p := rng.IntN(100); {
	case p < 50 || p < 80 && n == 0:
		next := uint64(1)
		if n > 0 {
			next = m.logs[n-1].Index + 1
		}
		if rng.IntN(20) == 0 {
			next += uint64(rng.IntN(30)) // a snapshot was installed
		}
		var logs []*raft.Log
		for range 1 + rng.IntN(most) {
			l := entry(next)
			l.Term = m.term
			l.Data = make([]byte, rng.IntN(1000))
			for i := range l.Data {
				l.Data[i] = byte(rng.Uint32())
			}
			logs = append(logs, l)
			next++
		}
		m.logs = append(m.logs, logs...)
		return func(g *Group) error { return g.StoreLogs(logs) }
	case p < 65: // the beginning, as after a snapshot
		first, cut := m.logs[0].Index, rng.IntN(n+1)
		last := first - 1
		if cut > 0 {
			last = m.logs[cut-1].Index
		}
		m.logs = slices.Clone(m.logs[cut:])
		return func(g *Group) error { return g.DeleteRange(first, last) }
	case p < 79: // the end, as after a conflict
		cut := rng.IntN(n)
		first, last := m.logs[cut].Index, m.logs[n-1].Index+uint64(rng.IntN(3))
		m.logs = slices.Clone(m.logs[:cut])
		return func(g *Group) error { return g.DeleteRange(first, last) }
	case p < 80:
		m.logs = nil
		return (*Group).ResetLog
	case p < 90:
		m.term++
		m.values["CurrentTerm"] = binary.LittleEndian.AppendUint64(nil, m.term)
		term := m.term
		return func(g *Group) error { return g.SetUint64([]byte("CurrentTerm"), term) }
	default:
		vote := fmt.Appendf(nil, "node %d of term %d", rng.IntN(5), m.term)
		m.values["LastVoteCand"] = vote
		return func(g *Group) error { return g.Set([]byte("LastVoteCand"), vote) }
	}
}

func newModel() *model { return &model{values: make(map[string][]byte)} }

// TestModel runs random histories of three groups against plain slices, with restarts.
func TestModel(t *testing.T) {
	forKinds(t, func(t *testing.T, _ Kind, reopen func() *Store) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		rng := rand.New(rand.NewPCG(seed, 0))
		ids := []uint32{0, 1, math.MaxUint32}
		models := []*model{newModel(), newModel(), newModel()}
		s := reopen()
		defer func() { closeStore(t, s) }()
		for i := range 600 {
			which := rng.IntN(len(ids))
			g, m := group(t, s, ids[which]), models[which]
			before := m.String()
			if err := m.step(rng, 20)(g); err != nil {
				t.Fatalf("step %d: %v, from\n%s\nto\n%s", i, err, before, m)
			}
			check(t, fmt.Sprintf("group %d after step %d", ids[which], i), g, m.String())
			if rng.IntN(50) == 0 {
				closeStore(t, s)
				s = reopen()
				for j, id := range ids {
					check(t, fmt.Sprintf("group %d after a restart", id), group(t, s, id), models[j].String())
				}
			}
		}
	})
}

// TestContract is what hashicorp/raft expects of a store, call by call.
func TestContract(t *testing.T) {
	forKinds(t, func(t *testing.T, _ Kind, reopen func() *Store) {
		s := reopen()
		defer func() { closeStore(t, s) }()
		g := group(t, s, 7)
		if g != group(t, s, 7) {
			t.Error("a group was opened twice")
		}
		if _, ok := any(g).(raft.MonotonicLogStore); ok {
			t.Error("declared monotonic: raft would throw the log away when it installs a snapshot")
		}
		check(t, "empty", g, "0 to 0, 0 bytes\n")
		if n, err := g.GetUint64([]byte("CurrentTerm")); n != 0 || err != nil {
			t.Errorf("absent number: got %d, %v", n, err)
		}
		must(t, g.StoreLogs(nil), g.DeleteRange(1, 10), g.ResetLog())
		check(t, "still empty", g, "0 to 0, 0 bytes\n")

		// What was stored and what was read belong to the caller.
		l := entry(5)
		must(t, g.StoreLog(l))
		clear(l.Data)
		var got raft.Log
		must(t, g.GetLog(5, &got))
		clear(got.Data)
		must(t, g.GetLog(5, &got))
		if line(&got) != line(entry(5)) {
			t.Errorf("got %swant %s", line(&got), line(entry(5)))
		}

		// A log begins anywhere, may have gaps, and is cut at either end.
		must(t, g.StoreLogs(entries(6, 20)), g.StoreLogs(entries(31, 40)))
		m := newModel()
		state := func(what string, ranges ...[2]uint64) {
			t.Helper()
			m.logs = nil
			for _, r := range ranges {
				m.logs = append(m.logs, entries(r[0], r[1])...)
			}
			check(t, what, g, m.String())
			closeStore(t, s)
			s = reopen()
			g = group(t, s, 7)
			check(t, what+", restarted", g, m.String())
		}
		state("with a gap", [2]uint64{5, 20}, [2]uint64{31, 40})
		must(t, g.DeleteRange(1, 9))
		state("without beginning", [2]uint64{10, 20}, [2]uint64{31, 40})
		must(t, g.DeleteRange(1, 9), g.DeleteRange(41, 50), g.DeleteRange(15, 14))
		state("nothing to remove", [2]uint64{10, 20}, [2]uint64{31, 40})
		must(t, g.DeleteRange(36, math.MaxUint64), g.StoreLogs(entries(36, 37)))
		state("another end", [2]uint64{10, 20}, [2]uint64{31, 37})
		must(t, g.DeleteRange(5, 25))
		state("cut in the gap", [2]uint64{31, 37})
		must(t, g.StoreLogs(entries(50, 51)), g.DeleteRange(45, 60))
		state("cut in the gap from the end", [2]uint64{31, 37})

		refused := func(what string, kind vectord.Kind, err error) {
			t.Helper()
			if err == nil || vectord.KindOf(err) != kind {
				t.Errorf("%s: got %v, want an error of kind %v", what, err, kind)
			}
			check(t, what, g, m.String())
		}
		refused("hole", vectord.KindInvalid, g.DeleteRange(33, 34))
		refused("again", vectord.KindConflict, g.StoreLog(entry(37)))
		refused("not ascending", vectord.KindConflict, g.StoreLogs([]*raft.Log{entry(38), entry(40), entry(39)}))
		huge := make([]byte, StoreBytesMax/4)
		var logs []*raft.Log
		for i := range uint64(4) {
			logs = append(logs, &raft.Log{Index: 38 + i, Data: huge})
		}
		refused("too large", vectord.KindTooLarge, g.StoreLogs(logs))

		must(t, g.Set([]byte("LastVoteCand"), []byte("a")), g.SetUint64([]byte("CurrentTerm"), 1<<40))
		m.values["LastVoteCand"] = []byte("a")
		m.values["CurrentTerm"] = binary.LittleEndian.AppendUint64(nil, 1<<40)
		must(t, g.ResetLog())
		state("log reset, vote and term kept")
		if n, err := g.GetUint64([]byte("CurrentTerm")); n != 1<<40 || err != nil {
			t.Errorf("number: got %d, %v", n, err)
		}
		if _, err := g.GetUint64([]byte("LastVoteCand")); err == nil {
			t.Error("a vote was read as a number")
		}
		must(t, g.StoreLogs([]*raft.Log{{Index: math.MaxUint64, Data: []byte("last")}}), g.DeleteRange(1, math.MaxUint64))
		state("the greatest index there is, removed")
	})
}

// Groups are apart from one another, and go one at a time.
func TestGroups(t *testing.T) {
	forKinds(t, func(t *testing.T, _ Kind, reopen func() *Store) {
		s := reopen()
		ids := []uint32{0, 1, 2, 255, 256, math.MaxUint32}
		list := func(want ...uint32) {
			t.Helper()
			if got, err := s.Groups(); err != nil || !slices.Equal(got, want) {
				t.Errorf("groups %v, %v; want %v", got, err, want)
			}
		}
		list()
		want := make(map[uint32]string)
		for _, id := range ids {
			g := group(t, s, id)
			if id%2 == 0 {
				must(t, g.StoreLogs(entries(1, 10)))
			}
			must(t, g.SetUint64([]byte("CurrentTerm"), uint64(id)))
			state, err := dump(g)
			must(t, err)
			want[id] = state
		}
		list(ids...)
		for len(ids) > 0 {
			id := ids[len(ids)/2]
			ids = slices.DeleteFunc(ids, func(other uint32) bool { return other == id })
			g := group(t, s, id)
			must(t, s.DeleteGroup(id))
			if err := g.StoreLogs(entries(50, 51)); vectord.KindOf(err) != vectord.KindClosed {
				t.Errorf("a removed group stored entries: %v", err)
			}
			closeStore(t, s)
			s = reopen()
			list(ids...)
			must(t, s.DeleteGroup(id)) // there is none: no error
			for _, id := range ids {
				check(t, fmt.Sprintf("group %d", id), group(t, s, id), want[id])
			}
		}
		check(t, "a group that was removed", group(t, s, 255), "0 to 0, 0 bytes\n")
		must(t, group(t, s, 255).StoreLogs(entries(3, 4)))
		list(255)
		closeStore(t, s)
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open("paper", dir, Options{}); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("unknown kind: %v", err)
	}
	forKinds(t, func(t *testing.T, kind Kind, _ func() *Store) {
		dir := filepath.Join(dir, "of "+string(kind))
		s := open(t, kind, dir, Options{})
		group(t, s, 1)
		for _, other := range kinds {
			if _, err := Open(other, dir, Options{}); other != kind && vectord.KindOf(err) != vectord.KindConflict {
				t.Errorf("opened as %s: %v", other, err)
			}
		}
		// Bolt locks each group's file, Pebble the folder.
		if second, err := Open(kind, dir, Options{Logger: discard}); err == nil {
			if _, err := second.Group(1); err == nil {
				t.Error("opened twice")
			}
			closeStore(t, second)
		}
		closeStore(t, s)
	})
}

// A power cut in the middle of creating a file of Bolt's does not stand in the way.
func TestBoltFileBegun(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Bolt, dir, Options{})
	defer closeStore(t, s)
	path := filepath.Join(dir, string(Bolt), "7.bolt~")
	must(t, os.WriteFile(path, make([]byte, 4096), 0o600))
	if ids, err := s.Groups(); len(ids) != 0 || err != nil {
		t.Errorf("groups %v, %v", ids, err)
	}
	must(t, group(t, s, 7).StoreLogs(entries(1, 2)))
}

// Replication reads and compacts while the leader appends.
func TestReadersDuringWrites(t *testing.T) {
	forKinds(t, func(t *testing.T, _ Kind, reopen func() *Store) {
		s := reopen()
		defer closeStore(t, s)
		g := group(t, s, 1)
		must(t, g.StoreLogs(entries(1, 20)))
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
					first, _ := g.FirstIndex()
					last, _ := g.LastIndex()
					if first == 0 || last < first || g.Bytes() == 0 {
						t.Errorf("log from %d to %d of %d bytes", first, last, g.Bytes())
						return
					}
					var l raft.Log
					for _, index := range []uint64{first, last} {
						err := g.GetLog(index, &l)
						if now, _ := g.FirstIndex(); errors.Is(err, raft.ErrLogNotFound) && index < now {
							continue // compacted meanwhile
						}
						if err != nil || line(&l) != line(entry(index)) {
							t.Errorf("entry %d: %v %s", index, err, line(&l))
							return
						}
					}
				}
			})
		}
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				first, _ := g.FirstIndex()
				last, _ := g.LastIndex()
				if last > first+10 {
					if err := g.DeleteRange(first, last-10); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
		for i := uint64(21); i < 300; i += 3 {
			must(t, g.StoreLogs(entries(i, i+2)))
		}
		close(stop)
		wg.Wait()
	})
}

func ExampleOpen() {
	s, err := Open(Pebble, "data/raft", Options{FS: vfs.NewMem(), Logger: discard})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	g, err := s.Group(1)
	if err != nil {
		fmt.Println(err)
		return
	}
	// A Group is both stores of a raft.NewRaft.
	fmt.Println(g.SetUint64([]byte("CurrentTerm"), 3))
	fmt.Println(g.StoreLogs([]*raft.Log{{Index: 1, Term: 3, Data: []byte("first")}, {Index: 2, Term: 3}}))
	fmt.Println(g.LastIndex())
	fmt.Println(g.Bytes(), "bytes")
	// Output:
	// <nil>
	// <nil>
	// 2 <nil>
	// 81 bytes
}
