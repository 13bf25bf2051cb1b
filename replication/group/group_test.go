package group

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
)

func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	for i, n := range c.nodes {
		n.must(kvCommand{Op: "put", Key: "k", New: fmt.Sprint(i)})
		if got := n.kv().get("k"); got != fmt.Sprint(i) {
			t.Errorf("%s reads %q after it wrote %d", n.id, got, i)
		}
		if err := n.get().Synced(t.Context()); err != nil {
			t.Error(err)
		}
	}
	c.same()
}

// TestWindow compares a window with a set of all numbers that came.
func TestWindow(t *testing.T) {
	rng := seed(t)
	for range 5 {
		var w window
		came := map[uint64]bool{}
		high := uint64(0)
		for range 2000 {
			n := rng.Uint64N(2 * windowSize)
			switch r := rng.IntN(100); {
			case r == 0:
				n += high // ahead, perhaps by more than a window
			case r < 30:
				n = high + 1 + n%3
			case r < 70:
				n = high - min(high, n%100)
			case r < 90:
				n = high - min(high, windowSize-50+n%100) // about its end
			}
			if n == 0 {
				continue
			}
			seen, known := w.has(n)
			if wantKnown := n > high || n+windowSize > high; known != wantKnown || known && seen != came[n] {
				t.Fatalf("%d of up to %d: seen %v, known %v, but came %v", n, high, seen, known, came[n])
			}
			if rng.IntN(2) == 0 {
				w.add(n)
				came[n] = true
				high = max(high, n)
			}
		}
	}
}

// loneGroup is one without a Raft, of which no goroutine runs.
func loneGroup(state State, o Options) (*Group, *machine) {
	g := &Group{o: o.withDefaults(), origin: 1, closing: make(chan struct{})}
	g.leader.init()
	g.proposals.init()
	g.reads.init()
	g.machine = newMachine(g, state, 0, 0, 0)
	return g, g.machine
}

// TestFault01SizeCap, with 4 (bytes) and 6 (order): what take makes of a queue.
func TestFault01SizeCap(t *testing.T) {
	f := func(o Options, sizes []int, want ...int) {
		t.Helper()
		o.Now = func() time.Time { return time.UnixMilli(42) }
		o.InFlight = len(sizes) + 1
		g, _ := loneGroup(nil, o)
		g.leader.start(5)
		for i, size := range sizes {
			if err := g.leader.accept(operation{number: uint64(i), command: make([]byte, size)}, 5, g.o.QueueBytes); err != nil {
				t.Fatal(err)
			}
		}
		next := uint64(0)
		for _, count := range want {
			data, term, n, ok := g.leader.take(&g.o)
			e, err := decodeEntry(data)
			if !ok || n != count || err != nil || len(e.ops) != count || term != 5 || e.term != 5 || e.time != 42 {
				t.Fatalf("took %d of term %d, %d, want %d: %v", n, term, e.term, count, err)
			}
			for _, op := range e.ops {
				if op.number != next || len(op.command) != sizes[next] {
					t.Errorf("number %d of %d bytes comes, want number %d", op.number, len(op.command), next)
				}
				next++
			}
		}
		if g.leader.waitingBytes() != 0 || g.leader.queue != nil {
			t.Errorf("%d bytes are left of %d operations", g.leader.waitingBytes(), len(g.leader.queue))
		}
	}
	f(Options{}, []int{1, 0, 7}, 3)
	f(Options{BatchOperations: 2}, []int{1, 1, 1, 1, 1}, 2, 2, 1)
	f(Options{BatchOperations: 1}, []int{1, 1}, 1, 1)
	f(Options{BatchOperations: 1 << 30}, make([]int, maxOperations+1), maxOperations, 1)
	f(Options{BatchBytes: 10}, []int{5, 5, 1}, 2, 1)
	f(Options{BatchBytes: 10}, []int{5, 6, 4, 1}, 1, 2, 1)
	f(Options{BatchBytes: 10}, []int{1, 100, 1}, 1, 1, 1) // one that is too large goes alone
	f(Options{BatchBytes: 10}, []int{100, 100}, 1, 1)
}

// TestTakeWaits for a place in flight, which landed gives, and ends with stop.
func TestTakeWaits(t *testing.T) {
	g, _ := loneGroup(nil, Options{InFlight: 1, Now: time.Now, BatchOperations: 1})
	g.leader.start(1)
	for i := range 2 {
		if err := g.leader.accept(operation{number: uint64(i)}, 1, 1000); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, _, ok := g.leader.take(&g.o); !ok {
		t.Fatal("nothing was taken")
	}
	taken := make(chan bool)
	go func() {
		for {
			_, _, _, ok := g.leader.take(&g.o)
			taken <- ok
			if !ok {
				return
			}
		}
	}()
	select {
	case <-taken:
		t.Error("a second entry is on its way, only one may be")
	case <-time.After(20 * time.Millisecond):
	}
	g.leader.landed()
	if !<-taken {
		t.Error("nothing was taken after the first landed")
	}
	g.leader.stop()
	if <-taken {
		t.Error("something was taken after stop")
	}
}

// TestAccept is about what a leader takes: in its term, within its bounds, and each operation of another process once.
func TestAccept(t *testing.T) {
	g, _ := loneGroup(nil, Options{})
	l := &g.leader
	op := func(origin, number uint64) operation {
		return operation{origin: origin, number: number, command: []byte("c")}
	}
	const limit = 3 * (proposalBytes + 1)
	f := func(what string, err error, kind vectord.Kind) {
		t.Helper()
		if err == nil && kind != 0 || err != nil && vectord.KindOf(err) != kind {
			t.Errorf("%s: %v, want kind %v", what, err, kind)
		}
	}
	f("no leader", l.accept(op(1, 1), 0, limit), vectord.KindClosed)
	f("no leader", l.acceptFrom(op(1, 1), 0, false, limit), vectord.KindClosed)
	l.start(4)
	f("other term", l.accept(op(1, 1), 3, limit), vectord.KindClosed)
	f("other term", l.acceptFrom(op(1, 1), 5, false, limit), vectord.KindClosed)
	f("first", l.acceptFrom(op(2, 1), 4, false, limit), 0)
	f("again", l.acceptFrom(op(2, 1), 4, true, limit), 0)
	f("again, as if it were the first", l.acceptFrom(op(2, 1), 4, false, limit), 0)
	f("other process", l.acceptFrom(op(3, 1), 4, true, limit), 0)
	f("own", l.accept(op(1, 1), 4, limit), 0)
	if len(l.queue) != 3 {
		t.Errorf("%d operations wait, want 3", len(l.queue))
	}
	full := l.acceptFrom(op(2, 2), 4, false, limit)
	f("full", full, vectord.KindOverloaded)
	if e := new(vectord.Error); !errors.As(full, &e) || e.RetryAfter <= 0 {
		t.Errorf("%v does not say when to come again", full)
	}
	f("full", l.accept(op(1, 2), 4, limit), vectord.KindOverloaded)
	l.end()
	if l.waitingBytes() != 0 || l.leading() != 0 {
		t.Errorf("%d bytes wait at one that leads no more", l.waitingBytes())
	}
	l.start(6)
	f("refused before, comes again", l.acceptFrom(op(2, 2), 6, true, limit), 0)
	f("far ahead", l.acceptFrom(op(2, windowSize+2), 6, false, limit), 0)
	f("too old to know, new", l.acceptFrom(op(2, 1), 6, false, limit), 0)
	l.queue, l.bytes = nil, 0
	f("too old to know, again", l.acceptFrom(op(2, 1), 6, true, limit), vectord.KindTimeout)
	if len(l.queue) != 0 {
		t.Error("what may have come before was taken")
	}
	for origin := range uint64(originsMax) {
		l.windows[1000+origin] = nil
	}
	for len(l.windows) > originsMax {
		for origin := range l.windows {
			delete(l.windows, origin)
			break
		}
	}
	f("one process too many", l.acceptFrom(op(9, 1), 6, false, limit), vectord.KindOverloaded)
}

// fill stores entries from first on, of these terms.
func (m *memLogs) fill(tb testing.TB, first uint64, terms ...uint64) *memLogs {
	tb.Helper()
	for i, term := range terms {
		if err := m.StoreLog(&raft.Log{Index: first + uint64(i), Term: term, Data: []byte("data")}); err != nil {
			tb.Fatal(err)
		}
	}
	return m
}

func TestPrepareLog(t *testing.T) {
	const dropped, kept, lost = "dropped", "kept", "lost"
	f := func(index, term, first uint64, terms []uint64, want string) {
		t.Helper()
		s, err := openSnapshots(vfs.NewMem(), snapshotRoot)
		if err != nil {
			t.Fatal(err)
		}
		if index > 0 {
			if sink, err := s.create(snapshotMeta{Index: index, Term: term}); err != nil {
				t.Fatal(err)
			} else if err := errors.Join(content{}.save(s.fs, s.path("c.tmp")), sink.adopt(s.path("c.tmp"), 0), sink.Close()); err != nil {
				t.Fatal(err)
			}
		}
		logs := newMemLogs().fill(t, first, terms...)
		if err := logs.SetUint64([]byte("CurrentTerm"), 9); err != nil {
			t.Fatal(err)
		}
		newest, _, err := s.newest()
		if err != nil {
			t.Fatal(err)
		}
		got := kept
		if err := prepareLog(logs, newest); err != nil {
			got = lost
		} else if last, _ := logs.LastIndex(); len(terms) > 0 && last == 0 {
			got = dropped
		}
		if got != want {
			t.Errorf("snapshot at %d of term %d, log from %d of terms %v: %s, want %s", index, term, first, terms, got, want)
		}
		if n, err := logs.GetUint64([]byte("CurrentTerm")); err != nil || n != 9 {
			t.Errorf("the term became %d: %v", n, err)
		}
	}
	f(0, 0, 0, nil, kept)
	f(9, 3, 0, nil, kept)
	f(0, 0, 1, []uint64{1, 1}, kept)
	f(0, 0, 2, []uint64{1, 1}, lost)                // where is what was before?
	f(9, 3, 7, []uint64{2, 2, 3, 3}, kept)          // 9 is of term 3 in both
	f(9, 3, 7, []uint64{2, 2, 3}, kept)             // and the last
	f(9, 3, 9, []uint64{3, 3}, kept)                // and the first
	f(9, 3, 10, []uint64{3, 4}, kept)               // the log goes on where the snapshot ends
	f(9, 3, 11, []uint64{3, 4}, lost)               // it does not
	f(9, 3, 7, []uint64{2, 2}, dropped)             // it ends before
	f(9, 3, 7, []uint64{2, 2, 2, 2, 2, 2}, dropped) // 9 is of term 2 in one, of term 3 in the other
	f(9, 3, 7, []uint64{2, 2, 4, 4}, dropped)
}

// TestMetrics has every metric, once.
func TestMetrics(t *testing.T) {
	t.Parallel()
	r := prometheus.NewRegistry()
	c := tunedCluster(t, 1, Options{}, func(n *testNode) { n.o.Registerer = r })
	c.nodes[0].must(kvCommand{Op: "put", Key: "k", New: "v"})
	got := map[string]float64{}
	c.eventually("the entry is counted", func() bool {
		clear(got)
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				switch {
				case m.GetHistogram() != nil:
					got[f.GetName()] = float64(m.GetHistogram().GetSampleCount())
				case m.GetCounter() != nil:
					got[f.GetName()] = m.GetCounter().GetValue()
				default:
					got[f.GetName()] = m.GetGauge().GetValue()
				}
			}
			if f.GetHelp() == "" {
				t.Errorf("%s has no help", f.GetName())
			}
		}
		return got["vectord_log_commit_seconds"] > 0
	})
	for name, atLeast := range map[string]float64{
		"vectord_log_batch_entries": 1, "vectord_log_commit_seconds": 1, "vectord_raft_elections_won_total": 1,
		"vectord_log_queue_bytes": 0, "vectord_raft_leader": 1, "vectord_raft_term": 1, "vectord_raft_committed": 3,
		"vectord_raft_applied": 3, "vectord_raft_log_bytes": 1,
	} {
		if value, ok := got[name]; !ok || value < atLeast {
			t.Errorf("%s is %v (there: %v), want at least %v", name, value, ok, atLeast)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("not expected: %v", got)
	}
}

// TestHandleCall answers malformed calls with errors of a kind, and none of them has an effect.
func TestHandleCall(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Options{})
	g := c.nodes[0].get()
	good := appendPropose(nil, operation{origin: 9, number: 1, group: 1, command: encode(kvCommand{Op: "add", Key: "a"})}, g.Status().Term, false)
	f := func(method byte, body []byte, want vectord.Kind) {
		t.Helper()
		b, err := g.HandleCall(t.Context(), method, body)
		if vectord.KindOf(err) != want || err == nil {
			t.Errorf("method %d of %x: %x, %v, want kind %v", method, body, b, err, want)
		}
	}
	f(0, nil, vectord.KindUnsupported)
	f(200, good, vectord.KindUnsupported)
	for size := range good {
		f(MethodPropose, good[:size], vectord.KindInvalid)
	}
	f(MethodPropose, append(bytes.Clone(good), 0), vectord.KindInvalid)
	f(MethodPropose, append([]byte{proposeVersion + 1}, good[1:]...), vectord.KindInvalid)
	f(MethodPropose, append([]byte{proposeVersion, 2}, good[2:]...), vectord.KindInvalid)
	for _, method := range []byte{MethodTerm, MethodReadIndex, MethodApplied} {
		b, err := g.HandleCall(t.Context(), method, []byte("ignored"))
		if n, badErr := decodeNumber(b); err != nil || badErr != nil || n == 0 {
			t.Errorf("method %d: %d, %v, %v", method, n, err, badErr)
		}
	}
	if got := c.same().Added; len(got) > 0 {
		t.Errorf("malformed calls added %v", got)
	}
	if _, err := g.HandleCall(t.Context(), MethodPropose, good); err != nil {
		t.Error(err)
	}
	if got := c.same().Added["a"]; got != 1 {
		t.Errorf("a good call added %d", got)
	}
	c.nodes[0].shut()
	f(MethodTerm, nil, vectord.KindClosed)
	for _, b := range [][]byte{nil, {0x80}, {0x80, 0}, {1, 1}} {
		if _, err := decodeNumber(b); err == nil {
			t.Errorf("%x is a number", b)
		}
	}
}

func FuzzDecodePropose(f *testing.F) {
	f.Add([]byte{})
	f.Add(appendPropose(nil, operation{}, 0, true))
	f.Add(appendPropose(nil, operation{origin: 1 << 63, number: 300, group: 7, command: []byte("command")}, 1<<40, false))
	f.Fuzz(func(t *testing.T, b []byte) {
		op, term, again, err := decodePropose(b)
		if err != nil {
			if vectord.KindOf(err) != vectord.KindInvalid {
				t.Errorf("%x: %v", b, err)
			}
			return
		}
		if got := appendPropose(nil, op, term, again); !bytes.Equal(got, b) {
			t.Errorf("%x became %x", b, got)
		}
	})
}

// machineOf returns a machine over an empty state, and the error that it failed with.
func machineOf(t *testing.T, o Options) (m *machine, state *kvState, failure func() error) {
	t.Helper()
	var failed error
	o.Fatal = func(err error) { failed = err }
	o.Reopen = func() {}
	o.Logs = newMemLogs()
	state = newKVState(vfs.NewMem(), rand.New(rand.NewPCG(1, 1)), nil)
	g, m := loneGroup(state, o)
	var err error
	if g.snapshots, err = openSnapshots(state.fs, snapshotRoot); err != nil {
		t.Fatal(err)
	}
	return m, state, func() error { return failed }
}

// entryOf is an entry of the Raft log.
func entryOf(index, term uint64, e entry) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: e.encode()}
}

func opsOf(commands ...kvCommand) (ops []operation) {
	for i, c := range commands {
		ops = append(ops, operation{origin: 77, number: uint64(i + 1), group: 1, command: encode(c)})
	}
	return ops
}

// TestFault48LaterVersion: what a later version wrote ends the process, rather than being skipped.
func TestFault48LaterVersion(t *testing.T) {
	for what, data := range map[string][]byte{
		"later version": sealEntry([]byte{entryVersion + 1, 1, 1, 0}),
		"damaged":       append((&entry{term: 1, ops: opsOf(kvCommand{Op: "put", Key: "k", New: "v"})}).encode(), 0),
		"empty":         nil,
	} {
		m, state, failure := machineOf(t, Options{})
		m.ApplyBatch([]*raft.Log{
			entryOf(5, 1, entry{term: 1, ops: opsOf(kvCommand{Op: "add", Key: "before"})}),
			{Index: 6, Term: 1, Type: raft.LogCommand, Data: data},
			entryOf(7, 1, entry{term: 1, ops: opsOf(kvCommand{Op: "add", Key: "after"})}),
		})
		if failure() == nil {
			t.Errorf("%s: the group goes on", what)
		}
		m.Apply(entryOf(8, 1, entry{term: 1, ops: opsOf(kvCommand{Op: "add", Key: "after"})}))
		if got := state.image().Added["after"]; got > 0 {
			t.Errorf("%s: later entries were applied", what)
		}
		if _, err := m.Snapshot(); err == nil {
			t.Errorf("%s: there is a snapshot", what)
		}
	}
}

// TestEarlierTerm: an entry that Raft appended in a later term than it was proposed in has no effect, and who waits for it
// knows by then.
func TestEarlierTerm(t *testing.T) {
	m, state, failure := machineOf(t, Options{})
	number, p := m.g.proposals.add(t.Context(), 3)
	late := opsOf(kvCommand{Op: "add", Key: "late"})
	late[0].origin, late[0].number = m.g.origin, number
	m.ApplyBatch([]*raft.Log{entryOf(9, 4, entry{term: 3, time: 99, ops: late})})
	if o := <-p.outcome; !o.again {
		t.Errorf("the outcome is %+v", o)
	}
	if got := state.image(); got.Added["late"] > 0 || got.Time != 0 {
		t.Errorf("the state became %+v", got)
	}
	if _, p := m.g.proposals.add(t.Context(), 3); !(<-p.outcome).again {
		t.Error("a proposal for a term that has ended waits")
	}
	number, p = m.g.proposals.add(t.Context(), 4)
	now := opsOf(kvCommand{Op: "get", Key: "k"})
	now[0].origin, now[0].number = m.g.origin, number
	m.ApplyBatch([]*raft.Log{entryOf(10, 4, entry{term: 4, ops: now})})
	if o := <-p.outcome; o.again || o.err != nil || o.result.Index != 10<<operationBits || o.result.Value != "" {
		t.Errorf("the outcome is %+v", o)
	}
	if failure() != nil {
		t.Error(failure())
	}
}

// TestFault61Determinism applies one log in batches of all sizes, on one processor and on all: the states are equal.
func TestFault61Determinism(t *testing.T) {
	rng := seed(t)
	var logs []*raft.Log
	term := uint64(1)
	for index := uint64(2); index < 200; index++ {
		e := entry{term: term, time: int64(rng.IntN(1000))} // clocks differ between leaders
		switch rng.IntN(10) {
		case 0:
			term++
		case 1:
			e.term--
		}
		for i := range rng.IntN(5) {
			op := operation{origin: 7, number: index<<10 + uint64(i)}
			if rng.IntN(4) > 0 {
				op.command = encode(kvCommand{Op: "append", Key: fmt.Sprint(rng.IntN(3)), New: fmt.Sprint(index, ".", i, " ")})
			}
			e.ops = append(e.ops, op)
		}
		l := entryOf(index, term, e)
		if rng.IntN(20) == 0 {
			l = &raft.Log{Index: index, Term: term, Type: raft.LogConfiguration}
		}
		logs = append(logs, l)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	var want *kvImage
	for round := range 20 {
		runtime.GOMAXPROCS(1 + round%2*runtime.NumCPU())
		m, state, failure := machineOf(t, Options{})
		for rest := logs; len(rest) > 0; {
			n := min(1+rng.IntN(1+10*round), len(rest))
			m.ApplyBatch(rest[:n])
			if rng.IntN(3) == 0 { // a start after a crash, from an earlier entry of the log
				g := m.g
				index, time, _ := state.LastApplied()
				m = newMachine(g, state, index, time, index>>operationBits)
				n -= min(n, rng.IntN(3))
			}
			rest = rest[n:]
		}
		if failure() != nil {
			t.Fatal(failure())
		}
		got := state.image()
		if want == nil {
			want = got
		}
		if got.Hash != want.Hash || got.Index != want.Index || got.Time != want.Time {
			t.Errorf("round %d: index %d, time %d, hash %x, want %d, %d, %x", round, got.Index, got.Time, got.Hash, want.Index, want.Time, want.Hash)
		}
	}
}

// TestNoSnapshotWhileBehind: a node that waits to be opened again applies nothing, so its state must not become a snapshot,
// which Raft would take for one of all that came.
func TestNoSnapshotWhileBehind(t *testing.T) {
	m, state, _ := machineOf(t, Options{})
	ahead := content{"a": "b"}.stream(t, 50<<operationBits)
	if err := m.Restore(io.NopCloser(bytes.NewReader(ahead))); !errors.Is(err, errReopen) {
		t.Fatal(err)
	}
	m.ApplyBatch([]*raft.Log{entryOf(51, 1, entry{term: 1, ops: opsOf(kvCommand{Op: "add", Key: "a"})})})
	if got := state.image().Added["a"]; got > 0 {
		t.Error("an entry after the snapshot was applied to the state before it")
	}
	if _, err := m.Snapshot(); err == nil {
		t.Error("the state before the snapshot became a snapshot after it")
	}
	if err := m.Restore(io.NopCloser(strings.NewReader("vdsnap"))); !errors.Is(err, errBadStream) {
		t.Errorf("a malformed stream: %v", err)
	}
}

// TestOpenBehindSnapshot: Raft begins after the newest snapshot, so a state that lacks what is in it must not be opened.
func TestOpenBehindSnapshot(t *testing.T) {
	fs := vfs.NewMem()
	state := newKVState(fs, rand.New(rand.NewPCG(1, 1)), nil)
	state.live.Index = 5 << operationBits
	net := newNetwork(rand.New(rand.NewPCG(1, 1)))
	w := net.connect("n", false)
	o := Options{ID: "n", Address: "n", Logs: newMemLogs(), Transport: w, Peers: w, FS: fs, SnapshotDir: snapshotRoot, Fatal: func(err error) { t.Error(err) }}
	if err := Bootstrap(state, o); err != nil {
		t.Fatal(err)
	}
	if err := Bootstrap(state, o); err != nil {
		t.Errorf("a second time: %v", err)
	}
	if dir, ok, err := Pending(o, 5<<operationBits); ok || err != nil {
		t.Errorf("%q is pending for a state that is not behind: %v", dir, err)
	}
	if dir, ok, err := Pending(o, 5<<operationBits-1); !ok || err != nil || !strings.HasPrefix(dir, snapshotRoot) {
		t.Errorf("%q is pending, %v: %v", dir, ok, err)
	}
	state.live.Index--
	if g, err := Open(state, o); err == nil {
		t.Error("opened")
		_ = g.Close()
	}
}

// TestSyncedAfterRestart: a node that was opened with a snapshot has all that the snapshot covers, also what had no effect.
func TestSyncedAfterRestart(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	for range 3 { // an election on the way would hide it
		n := c.followers()[0]
		n.must(kvCommand{Op: "put", Key: "k", New: "v"})
		index, err := n.get().Barrier(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := n.get().Snapshot(); err != nil {
			t.Fatal(err)
		}
		n.crash()
		n.start()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if err := n.get().Applied(ctx, index); err != nil {
			t.Error(err)
		}
		if err := n.get().Synced(ctx); err != nil {
			t.Error(err)
		}
		cancel()
	}
}

// TestProposeBounds refuses before anything is sent.
func TestProposeBounds(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1, Options{QueueBytes: 1000})
	g := c.nodes[0].get()
	if _, err := g.Propose(t.Context(), 1, nil); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("an empty command: %v", err)
	}
	if _, err := g.Propose(t.Context(), 1, make([]byte, 1000)); vectord.KindOf(err) != vectord.KindTooLarge {
		t.Errorf("a large command: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Propose(ended, 1, encode(kvCommand{Op: "add", Key: "x"})); vectord.KindOf(err) != vectord.KindTimeout {
		t.Errorf("a context that has ended: %v", err)
	}
	if got := c.same().Added; len(got) > 0 {
		t.Errorf("added %v", got)
	}
	members, err := g.Members()
	if err != nil || !slices.Equal(members, []Member{{ID: "n0", Address: "n0", Voter: true, Leader: true}}) {
		t.Errorf("members are %v: %v", members, err)
	}
	if id, address := g.Leader(); id != "n0" || address != "n0" {
		t.Errorf("leader is %q at %q", id, address)
	}
	if err := g.Add("", "a"); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("a member without an id: %v", err)
	}
	if err := g.Add("other", "n0"); vectord.KindOf(err) != vectord.KindExists {
		t.Errorf("a member at another's address: %v", err)
	}
	if err := g.Remove(t.Context(), "nobody"); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("nobody was removed: %v", err)
	}
	if err := g.Remove(t.Context(), "n0"); vectord.KindOf(err) != vectord.KindConflict {
		t.Errorf("the only member was removed: %v", err)
	}
	if err := g.Transfer("nobody"); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("transfer to nobody: %v", err)
	}
}

// TestFreshCostsARoundNowAndThen cuts a follower off: a read that is bounded goes on for its bound, and no longer.
func TestFreshCostsARoundNowAndThen(t *testing.T) {
	c := newCluster(t, 3, Options{})
	follower := c.followers()[0]
	g := follower.get()
	if err := g.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.net.isolate(follower.id, c.nodes)
	if err := g.Fresh(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := g.Fresh(ctx, time.Nanosecond); err == nil {
		t.Error("a read without the leader was as fresh as it gets")
	}
	c.net.heal()
}

// TestLeaderHangs has the leader of a cluster hang in the middle of calls: others lead, and what was being sent to it goes to
// them as soon as they do.
func TestLeaderHangs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, Options{})
	leader := c.leader()
	follower := c.nodes[slices.IndexFunc(c.nodes, func(n *testNode) bool { return n != leader })]
	for _, link := range links(leader.id, c.nodes) {
		if link[0] != link[1] {
			c.net.hold(link[0], link[1])
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	done := make(chan error, 2)
	go func() {
		_, err := follower.do(ctx, kvCommand{Op: "add", Key: "a"})
		done <- err
	}()
	go func() { done <- follower.get().Synced(ctx) }()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	c.net.heal()
	if got := c.same().Added["a"]; got != 1 {
		t.Errorf("added %d times", got)
	}
}

// TestStoppedIsNoHangingDisk: a process that was stopped while it wrote has not waited for its disk, as long as that was.
func TestStoppedIsNoHangingDisk(t *testing.T) {
	w := &watchedLogs{}
	f := func(since time.Time, want time.Duration) {
		t.Helper()
		w.since.Store(0)
		if !since.IsZero() {
			w.since.Store(since.UnixNano())
		}
		w.look()
		if got := w.waited(); got != want {
			t.Errorf("waited %v, want %v", got, want)
		}
	}
	begun := time.Now()
	f(time.Time{}, 0)
	f(begun.Add(-time.Hour), 0) // just seen, whenever it began
	f(begun.Add(-time.Hour), watchInterval)
	f(begun.Add(-time.Hour), 2*watchInterval)
	f(begun, 0) // another one
	f(begun, watchInterval)
	f(time.Time{}, 0)
	f(begun, 0)
}
