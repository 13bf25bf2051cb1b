package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/storage"
	"github.com/vectord/vectord/storage/storagetest"
)

// openWith opens a node whose data are on disk and whose snapshots are files in dir.
func openWith(t *testing.T, disk storage.FS, dir string, urls ...string) *Node {
	t.Helper()
	n, err := Open(Config{DataDir: "data", FS: disk, SnapshotDir: dir, SnapshotURLs: urls, MemoryLimit: 256 << 20, Logger: quiet,
		Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func closeNode(t *testing.T, n *Node) {
	t.Helper()
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
}

// stateOf returns the points of a collection, nil if there is none.
func stateOf(t *testing.T, db *engine.DB, name string) cutState {
	t.Helper()
	if !db.CollectionExists(name) {
		return nil
	}
	state := cutState{}
	request := vectord.ScrollRequest{Limit: vectord.MaxLimit, Select: vectord.Selection{Payload: true, Vectors: true}}
	for {
		page, err := db.Scroll(background, name, request)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.Points {
			state[r.ID.Number()] = pointText(r.Vectors.Unnamed(), r.Payload)
		}
		if page.Next == nil {
			return state
		}
		request.Offset = page.Next
	}
}

// checkFound searches for every point exactly and through whatever index there is.
func checkFound(t *testing.T, db *engine.DB, name string, points map[uint64]vectord.Point) {
	t.Helper()
	for id, p := range points {
		for _, exact := range []bool{true, false} {
			hits, err := db.Search(background, name, vectord.Query{Nearest: vectord.Near(p.Vectors.Unnamed()), Limit: 1, Params: vectord.SearchParams{Exact: exact, HNSWEf: 200}})
			if err != nil || len(hits) != 1 || hits[0].ID != vectord.NumberID(id) {
				t.Fatalf("a search for point %d, exact %v, found %v (%v)", id, exact, hits, err)
			}
		}
	}
}

func create(t *testing.T, db *engine.DB, name string, shards int) {
	t.Helper()
	config := vectord.DefaultCollectionConfig(cutDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1 // a graph from the first points on
	config.Params.ShardNumber = shards
	config.Metadata = []byte(`{"made":"here"}`)
	if err := db.CreateCollection(background, name, config); err != nil {
		t.Fatal(err)
	}
}

func writeOne(t *testing.T, db *engine.DB, name string, op vectord.Operation) {
	t.Helper()
	if _, err := db.Write(background, name, []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
		t.Error(err)
	}
}

func newHistory(seed uint64) *cutHistory {
	return &cutHistory{rng: rand.New(rand.NewPCG(seed, 7)), states: []cutState{{}}, points: map[uint64]vectord.Point{}}
}

// nextSingle is next for collections of several shards: an operation of one point is in one of them.
func (h *cutHistory) nextSingle() vectord.Operation {
	id := uint64(h.rng.IntN(120))
	op := vectord.Operation{Kind: vectord.OpUpsert}
	if _, ok := h.points[id]; ok && h.rng.IntN(3) == 0 {
		op.Kind, op.IDs = vectord.OpDelete, []vectord.PointID{vectord.NumberID(id)}
		delete(h.points, id)
	} else {
		p := vectord.Point{ID: vectord.NumberID(id), Vectors: vectord.Unnamed(h.vector()), Payload: fmt.Appendf(nil, `{"step":%d}`, len(h.states))}
		op.Points = []vectord.Point{p}
		h.points[id] = p
	}
	state := cutState{}
	for id, p := range h.points {
		state[id] = pointText(p.Vectors.Unnamed(), p.Payload)
	}
	h.states = append(h.states, state)
	return op
}

func snapshotOf(t *testing.T, db *engine.DB, name string) vectord.Snapshot {
	t.Helper()
	s, err := db.CreateSnapshot(background, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func contentOf(t *testing.T, db *engine.DB, collection string, s vectord.Snapshot) []byte {
	t.Helper()
	f, size, err := db.OpenSnapshot(collection, s.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil || int64(len(b)) != size || size != s.Size {
		t.Fatalf("%d bytes of %d and %d: %v", len(b), size, s.Size, err)
	}
	return b
}

// upload recovers a snapshot from its bytes.
func upload(db *engine.DB, name string, content []byte, checksum string) error {
	recoverIt, err := db.ReceiveSnapshot(background, name, bytes.NewReader(content), checksum)
	if err != nil {
		return err
	}
	return recoverIt(background)
}

// TestSnapshotsUnderWrites makes snapshots while operations are written, one after the other, and recovers them in another
// node: each is the state after some prefix of the operations, which has those that were acknowledged before and none that
// began after.
func TestSnapshotsUnderWrites(t *testing.T) {
	for _, shards := range []int{1, 16} {
		t.Run(fmt.Sprint(shards, " shards"), func(t *testing.T) {
			seed := seedOf(t)
			dir := t.TempDir()
			from := openWith(t, storagetest.NewCrashFS(nil), dir)
			defer from.Close()
			db := from.Engine()
			create(t, db, "c", shards)
			h := newHistory(seed)
			var begun, acked atomic.Int64
			var stop atomic.Bool
			var writer sync.WaitGroup
			writer.Go(func() {
				for !stop.Load() && !t.Failed() {
					next := h.nextSingle
					if shards == 1 {
						next = h.next
					}
					op := next()
					begun.Add(1)
					writeOne(t, db, "c", op)
					acked.Add(1)
				}
			})
			type taken struct {
				snapshot    vectord.Snapshot
				before, end int64
			}
			var all []taken
			for range 12 {
				for n := acked.Load(); acked.Load() < n+10; {
					yield()
				}
				s := taken{before: acked.Load()}
				s.snapshot = snapshotOf(t, db, "c")
				s.end = begun.Load()
				all = append(all, s)
			}
			stop.Store(true)
			writer.Wait()
			to := openWith(t, storagetest.NewCrashFS(nil), t.TempDir())
			defer to.Close()
			for i, s := range all {
				// The same collection again and again, so that all but the first replace one.
				if err := upload(to.Engine(), "copy", contentOf(t, db, "c", s.snapshot), s.snapshot.Checksum); err != nil {
					t.Fatal(err)
				}
				found := stateOf(t, to.Engine(), "copy")
				if !slices.ContainsFunc(h.states[s.before:s.end+1], func(state cutState) bool { return maps.Equal(state, found) }) {
					t.Errorf("snapshot %d, %d points, is no state from %d, acknowledged before, to %d, begun by its end", i, len(found), s.before, s.end)
				}
			}
			t.Logf("%d operations", acked.Load())
		})
	}
}

// TestRecoverReplaces recovers a snapshot over a collection that has changed since in points, configuration and aliases,
// and into an empty node, and goes on writing and restarting both.
func TestRecoverReplaces(t *testing.T) {
	seed := seedOf(t)
	dir := t.TempDir()
	disk := storagetest.NewCrashFS(nil)
	n := openWith(t, disk, dir)
	db := n.Engine()
	create(t, db, "c", 2)
	create(t, db, "other", 1)
	if err := db.UpdateAliases(background, []vectord.AliasAction{{Create: &vectord.Alias{Name: "alias", Collection: "c"}}}); err != nil {
		t.Fatal(err)
	}
	h := newHistory(seed)
	for range 200 {
		writeOne(t, db, "c", h.nextSingle())
	}
	want, points := h.states[len(h.states)-1], maps.Clone(h.points)
	s := snapshotOf(t, db, "alias")
	content := contentOf(t, db, "c", s)
	info, err := db.CollectionInfo("c")
	if err != nil {
		t.Fatal(err)
	}

	// Another collection of the name, with vectors of another size.
	if _, err := db.DeleteCollection(background, "c"); err != nil {
		t.Fatal(err)
	}
	config := vectord.DefaultCollectionConfig(3, vectord.Dot)
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	if err := db.UpdateAliases(background, []vectord.AliasAction{{Create: &vectord.Alias{Name: "alias", Collection: "c"}}}); err != nil {
		t.Fatal(err)
	}
	writeOne(t, db, "c", vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 2, 3})}}})
	location := "file://" + filepath.Join(dir, "c", s.Name)
	if err := db.RecoverSnapshot(background, "alias", vectord.SnapshotSource{Location: location, Checksum: strings.ToUpper(s.Checksum)}); err != nil {
		t.Fatal(err)
	}
	fresh := openWith(t, storagetest.NewCrashFS(nil), t.TempDir())
	defer fresh.Close()
	if err := upload(fresh.Engine(), "d", content, ""); err != nil {
		t.Fatal(err)
	}
	check := func(db *engine.DB, name string) {
		t.Helper()
		if found := stateOf(t, db, name); !maps.Equal(found, want) {
			t.Errorf("%s: %d points, want %d", name, len(found), len(want))
		}
		checkFound(t, db, name, points)
		got, err := db.CollectionInfo(name)
		if err != nil || !reflect.DeepEqual(got.Config, info.Config) || got.Points != len(want) {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, info)
		}
	}
	check(db, "alias")
	check(fresh.Engine(), "d")
	last, _, err := fresh.Engine().LastApplied()
	if err != nil {
		t.Fatal(err)
	}
	for id := range points {
		got, err := fresh.Engine().Retrieve(background, "d", []vectord.PointID{vectord.NumberID(id)}, vectord.Selection{})
		if err != nil || len(got) != 1 || got[0].Version > last {
			t.Errorf("point %d is %v, written by entries to come: the last was %d (%v)", id, got, last, err)
		}
	}
	if got := stateOf(t, db, "other"); len(got) != 0 || !db.CollectionExists("other") {
		t.Errorf("another collection has %d points", len(got))
	}
	for _, db := range []*engine.DB{db, fresh.Engine()} {
		name := db.Collections()[0]
		p := vectord.Point{ID: vectord.NumberID(3), Vectors: vectord.Unnamed(h.vector()), Payload: []byte(`{"new":true}`)}
		writeOne(t, db, name, vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{p}})
		got, err := db.Retrieve(background, name, []vectord.PointID{p.ID}, vectord.Selection{Payload: true})
		if err != nil || len(got) != 1 || string(got[0].Payload) != `{"new":true}` {
			t.Errorf("after a write: %v, %v", got, err)
		}
		last, _, err := db.LastApplied()
		if err != nil || got[0].Version != last {
			t.Errorf("the point has version %d, the last entry is %d (%v)", got[0].Version, last, err)
		}
	}
	delete(points, 3)
	delete(want, 3)
	closeNode(t, n)
	n = openWith(t, disk, dir)
	defer n.Close()
	after := stateOf(t, n.Engine(), "c")
	delete(after, 3)
	if !maps.Equal(after, want) {
		t.Errorf("%d points after a restart, want %d", len(after), len(want))
	}
	// Of what was replaced nothing is left after a start.
	report, err := n.store.Verify(background, nil)
	if err != nil || report.ProblemCount != 0 || int(report.Points) != len(want)+1 {
		t.Errorf("%+v, %v", report, err)
	}
}

// TestReadsWhileReplaced reads a collection while snapshots of two states replace it, again and again: each
// answer is of one of the two states, whole.
func TestReadsWhileReplaced(t *testing.T) {
	n := openWith(t, storagetest.NewCrashFS(nil), t.TempDir())
	defer n.Close()
	db := n.Engine()
	create(t, db, "c", 1)
	const points = 300
	var contents [2][]byte
	for state := range 2 {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for i := range points {
			v := make([]float32, cutDim)
			v[0] = float32(i)
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed(v), Payload: fmt.Appendf(nil, `{"state":%d}`, state)})
		}
		writeOne(t, db, "c", op)
		contents[state] = contentOf(t, db, "c", snapshotOf(t, db, "c"))
	}
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 2 {
		readers.Go(func() {
			for !stop.Load() && !t.Failed() {
				hits, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(make([]float32, cutDim)), Limit: points, Params: vectord.SearchParams{Exact: true},
					Select: vectord.Selection{Payload: true}})
				if err != nil || len(hits) != points {
					t.Errorf("%d hits, %v", len(hits), err)
					return
				}
				for _, hit := range hits {
					if !bytes.Equal(hit.Payload, hits[0].Payload) {
						t.Errorf("hits with %s and %s", hit.Payload, hits[0].Payload)
						return
					}
				}
			}
		})
	}
	for i := range 20 {
		if err := upload(db, "c", contents[i%2], ""); err != nil {
			t.Error(err)
			break
		}
	}
	stop.Store(true)
	readers.Wait()
}

// TestPowerCutsWhileRecovering cuts the power after every file operation of a recovery: what is left is the collection as
// it was or the recovered one, whole, the latter once the recovery was acknowledged, and no row of the other.
func TestPowerCutsWhileRecovering(t *testing.T) {
	seed := seedOf(t)
	var watching atomic.Bool
	var acked atomic.Bool
	var mu sync.Mutex
	var cuts []cut
	var disk *storagetest.CrashFS
	disk = storagetest.NewCrashFS(func(operation string) {
		if !watching.Load() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		for _, percent := range []int{0, 50, 100} {
			c := cut{operation: operation, percent: percent, hadCollection: acked.Load()}
			c.disk = disk.Crash(percent, seed+uint64(len(cuts)))
			cuts = append(cuts, c)
		}
	})
	dir := t.TempDir()
	n := openWith(t, disk, dir)
	db := n.Engine()
	create(t, db, "c", 2)
	h := newHistory(seed)
	for range 60 {
		writeOne(t, db, "c", h.nextSingle())
	}
	old := h.states[len(h.states)-1]
	s := snapshotOf(t, db, "c")
	for range 60 {
		writeOne(t, db, "c", h.nextSingle())
	}
	newer := h.states[len(h.states)-1]
	watching.Store(true)
	if err := db.RecoverSnapshot(background, "c", vectord.SnapshotSource{Location: "file://" + filepath.Join(dir, "c", s.Name)}); err != nil {
		t.Fatal(err)
	}
	acked.Store(true)
	writeOne(t, db, "c", vectord.Operation{Kind: vectord.OpDelete, IDs: []vectord.PointID{vectord.NumberID(1000)}})
	watching.Store(false)
	closeNode(t, n)
	outcomes := map[string]int{}
	for _, c := range cuts {
		n := openWith(t, c.disk, dir)
		name := fmt.Sprintf("after %q with %d%% of unsynced data", c.operation, c.percent)
		found := stateOf(t, n.Engine(), "c")
		switch {
		case maps.Equal(found, old):
			outcomes["recovered"]++
		case maps.Equal(found, newer) && !c.hadCollection:
			outcomes["as it was"]++
		default:
			t.Errorf("%s, acknowledged: %v: %d points are neither the %d before nor the %d recovered", name, c.hadCollection, len(found), len(newer), len(old))
		}
		report, err := n.store.Verify(background, nil)
		if err != nil || report.ProblemCount > 0 || int(report.Points) != len(found) {
			t.Errorf("%s: %d points, %+v, %v", name, len(found), report, err)
		}
		closeNode(t, n)
		if t.Failed() {
			return
		}
	}
	t.Logf("%d power cuts: %v", len(cuts), outcomes)
	if len(outcomes) != 2 {
		t.Error("not all outcomes were met")
	}
}

// TestDamagedSnapshots changes bytes of a snapshot, and cuts it off: each is refused and nothing has
// changed, not even the log.
func TestDamagedSnapshots(t *testing.T) {
	dir := t.TempDir()
	n := openWith(t, storagetest.NewCrashFS(nil), dir)
	defer n.Close()
	db := n.Engine()
	create(t, db, "c", 2)
	h := newHistory(seedOf(t))
	for range 10 {
		writeOne(t, db, "c", h.nextSingle())
	}
	content := contentOf(t, db, "c", snapshotOf(t, db, "c"))
	writeOne(t, db, "c", h.nextSingle())
	before, _, err := db.LastApplied()
	if err != nil {
		t.Fatal(err)
	}
	refused := func(what string, content []byte, checksum string) {
		t.Helper()
		if err := upload(db, "c", content, checksum); vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
	for i := range content {
		if i%16 != 0 { // the test of archives changes all of them
			continue
		}
		damaged := bytes.Clone(content)
		damaged[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("byte %d changed", i), damaged, "")
		refused(fmt.Sprintf("cut off at %d", i), content[:i], "")
	}
	refused("a byte more", append(bytes.Clone(content), 0), "")
	refused("another checksum", content, strings.Repeat("0", 64))
	refused("a snapshot of nothing", nil, "")
	after, _, err := db.LastApplied()
	if err != nil || before != after {
		t.Errorf("the log went from %d to %d (%v)", before, after, err)
	}
	if found := stateOf(t, db, "c"); !maps.Equal(found, h.states[len(h.states)-1]) {
		t.Errorf("the collection has changed: %d points", len(found))
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
	if err := upload(db, "c", content, ""); err != nil {
		t.Error(err)
	}
}

// TestLocations names files that are not to be read, and things that are no files.
func TestLocations(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "snapshots")
	n := openWith(t, storagetest.NewCrashFS(nil), dir)
	defer n.Close()
	db := n.Engine()
	create(t, db, "c", 1)
	s := snapshotOf(t, db, "c")
	inside := filepath.Join(dir, "c", s.Name)
	outside := filepath.Join(filepath.Dir(dir), "outside.snapshot")
	if err := os.Link(inside, outside); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link.snapshot": outside, "c/up.snapshot": "../../outside.snapshot", "c/ok.snapshot": s.Name} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.snapshot"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := func(location string, kind vectord.Kind) {
		t.Helper()
		err := db.RecoverSnapshot(background, "d", vectord.SnapshotSource{Location: location})
		if vectord.KindOf(err) != kind {
			t.Errorf("%s: %v", location, err)
		}
		if db.CollectionExists("d") {
			t.Errorf("%s: was recovered", location)
		}
	}
	f("file://"+outside, vectord.KindInvalid)
	f("file://"+dir, vectord.KindInvalid)
	f("file://"+dir+"/c", vectord.KindInvalid)
	f("file://"+dir+"/link.snapshot", vectord.KindInvalid)
	f("file://"+dir+"/c/up.snapshot", vectord.KindInvalid)
	f("file://"+dir+"/pipe.snapshot", vectord.KindInvalid)
	f("file://"+dir+"/../outside.snapshot", vectord.KindInvalid)
	f("file://"+dir+"/%2e%2e/outside.snapshot", vectord.KindInvalid)
	f("file://"+dir+"/c/"+s.Name+"x", vectord.KindNotFound)
	f("file://"+dir+"/c/"+s.Name+".sha256", vectord.KindInvalid)
	f("file://elsewhere"+inside, vectord.KindInvalid)
	f("file:c/"+s.Name, vectord.KindInvalid)
	f(inside, vectord.KindInvalid)
	f("", vectord.KindInvalid)
	f("ftp://x/y", vectord.KindInvalid)
	f("http://127.0.0.1:1/x", vectord.KindUnsupported)
	f("http://[::", vectord.KindInvalid)
	for _, name := range []string{"", ".snapshot", "..", "../c/" + s.Name, "c/" + s.Name, s.Name + "/", "~x.snapshot", s.Name + ".sha256",
		"a\x00.snapshot", "%2e%2e.snapshot", strings.Repeat("a", 240) + ".snapshot"} {
		if _, _, err := db.OpenSnapshot("c", name); vectord.KindOf(err) != vectord.KindUnprocessable {
			t.Errorf("open %q: %v", name, err)
		}
		if err := db.DeleteSnapshot("c", name); vectord.KindOf(err) != vectord.KindUnprocessable {
			t.Errorf("delete %q: %v", name, err)
		}
	}
	if err := db.RecoverSnapshot(background, "d", vectord.SnapshotSource{Location: "file://" + dir + "/c/ok.snapshot"}); err != nil {
		t.Error(err) // a link that stays inside
	}
}

// TestSnapshotFiles lists and deletes snapshots of collections with difficult names, and cleans up after interruptions.
func TestSnapshotFiles(t *testing.T) {
	dir := t.TempDir()
	disk := storagetest.NewCrashFS(nil)
	n := openWith(t, disk, dir)
	db := n.Engine()
	names := []string{".", "..", "c", "C%2E", "ü", "~x", strings.Repeat("長", 255), strings.Repeat("長", 254) + "x", "a b"}
	made := map[string]string{}
	for _, name := range names {
		create(t, db, name, 1)
		made[name] = snapshotOf(t, db, name).Name
	}
	made[""] = snapshotOf(t, db, "").Name
	for owner, want := range made {
		list, err := db.Snapshots(owner)
		if err != nil || len(list) != 1 || list[0].Name != want || len(list[0].Checksum) != 64 || list[0].Size == 0 {
			t.Errorf("snapshots of %q: %v, %v", owner, list, err)
		}
	}
	if _, err := db.Snapshots("nowhere"); vectord.KindOf(err) != vectord.KindNotFound {
		t.Error(err)
	}
	if err := db.DeleteSnapshot("c", made[""]); vectord.KindOf(err) != vectord.KindNotFound {
		t.Error(err)
	}
	if err := db.DeleteSnapshot("c", made["c"]); err != nil {
		t.Error(err)
	}
	if list, err := db.Snapshots("c"); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	closeNode(t, n)
	for _, name := range []string{"~123", "c/~456", "c/gone.snapshot.sha256"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n = openWith(t, disk, dir)
	defer n.Close()
	if left, err := os.ReadDir(filepath.Join(dir, "c")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "~123")); !os.IsNotExist(err) {
		t.Error(err)
	}
	if list, err := n.Engine().Snapshots(""); err != nil || len(list) != 1 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestNodeSnapshot makes a snapshot of a node and restores all of it into an empty one, and one collection of it over
// another.
func TestNodeSnapshot(t *testing.T) {
	seed := seedOf(t)
	dir := t.TempDir()
	n := openWith(t, storagetest.NewCrashFS(nil), dir)
	defer n.Close()
	db := n.Engine()
	var states []cutState
	for i, name := range []string{"a", "b", "empty"} {
		create(t, db, name, i+1)
		h := newHistory(seed + uint64(i))
		for range 50 * (2 - i) {
			writeOne(t, db, name, h.nextSingle())
		}
		states = append(states, h.states[len(h.states)-1])
	}
	if err := db.UpdateAliases(background, []vectord.AliasAction{{Create: &vectord.Alias{Name: "z", Collection: "b"}}}); err != nil {
		t.Fatal(err)
	}
	s := snapshotOf(t, db, "")
	path := filepath.Join(dir, s.Name)
	disk := storagetest.NewCrashFS(nil)
	to := openWith(t, disk, t.TempDir())
	check := func() {
		t.Helper()
		for i, name := range []string{"a", "z", "empty"} {
			if found := stateOf(t, to.Engine(), name); !maps.Equal(found, states[i]) || found == nil {
				t.Errorf("%s: %d points, want %d", name, len(found), len(states[i]))
			}
		}
	}
	if err := to.Engine().RestoreNode(background, path); err != nil {
		t.Fatal(err)
	}
	check()
	if err := to.Engine().RestoreNode(background, path); vectord.KindOf(err) != vectord.KindExists {
		t.Errorf("restored over what was there: %v", err)
	}
	closeNode(t, to)
	to = openWith(t, disk, t.TempDir())
	defer to.Close()
	check()

	// One of its collections.
	writeOne(t, db, "a", vectord.Operation{Kind: vectord.OpDelete, IDs: slices.Collect(func(yield func(vectord.PointID) bool) {
		for id := range states[0] {
			if !yield(vectord.NumberID(id)) {
				return
			}
		}
	})})
	location := vectord.SnapshotSource{Location: "file://" + path}
	if err := db.RecoverSnapshot(background, "a", location); err != nil {
		t.Fatal(err)
	}
	if found := stateOf(t, db, "a"); !maps.Equal(found, states[0]) {
		t.Errorf("%d points, want %d", len(found), len(states[0]))
	}
	if err := db.RecoverSnapshot(background, "c", location); vectord.KindOf(err) != vectord.KindNotFound {
		t.Error(err)
	}
	one := snapshotOf(t, db, "a")
	empty := openWith(t, storagetest.NewCrashFS(nil), t.TempDir())
	defer empty.Close()
	if err := empty.Engine().RestoreNode(background, filepath.Join(dir, "a", one.Name)); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("a collection's snapshot was restored as a node's: %v", err)
	}
}

// TestFetch recovers from URLs: only from those that are allowed, and not through redirects to others.
func TestFetch(t *testing.T) {
	from := openWith(t, storagetest.NewCrashFS(nil), t.TempDir())
	defer from.Close()
	create(t, from.Engine(), "c", 1)
	content := contentOf(t, from.Engine(), "c", snapshotOf(t, from.Engine(), "c"))
	var keys []string
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Api-Key"))
		switch r.URL.Path {
		case "/backups/c.snapshot", "/private/c.snapshot":
			_, _ = w.Write(content)
		case "/backups/moved":
			http.Redirect(w, r, "/backups/c.snapshot", http.StatusFound)
		case "/backups/out":
			http.Redirect(w, r, "/private/c.snapshot", http.StatusFound)
		case "/backups/loop":
			http.Redirect(w, r, "/backups/loop", http.StatusFound)
		default:
			http.NotFound(w, r)
		}
	})
	server := httptest.NewServer(handler)
	defer server.Close()
	n := openWith(t, storagetest.NewCrashFS(nil), t.TempDir(), server.URL+"/backups/")
	defer n.Close()
	f := func(path string, kind vectord.Kind, requests int) {
		t.Helper()
		keys = nil
		err := n.Engine().RecoverSnapshot(background, "d", vectord.SnapshotSource{Location: server.URL + path, APIKey: "secret"})
		if vectord.KindOf(err) != kind || err == nil || len(keys) != requests {
			t.Errorf("%s: %v after %d requests", path, err, len(keys))
		}
	}
	f("/private/c.snapshot", vectord.KindUnsupported, 0)
	f("/backups", vectord.KindUnsupported, 0)
	f("/backupsX/c.snapshot", vectord.KindUnsupported, 0)
	f("/backups/../private/c.snapshot", vectord.KindUnsupported, 0)
	f("/backups/%2e%2e/private/c.snapshot", vectord.KindUnsupported, 0)
	f("/backups/out", vectord.KindUnsupported, 1)
	f("/backups/loop", vectord.KindInvalid, fetchRedirectsMax+1)
	f("/backups/none", vectord.KindInvalid, 1)
	for _, path := range []string{"/backups/c.snapshot", "/backups/moved"} {
		keys = nil
		err := n.Engine().RecoverSnapshot(background, "d", vectord.SnapshotSource{Location: server.URL + path, APIKey: "secret"})
		if err != nil || keys[0] != "secret" {
			t.Errorf("%s: %v, keys %q", path, err, keys)
		}
	}
	for _, bad := range []string{"example.com", "ftp://x/", "http://", "http://u:p@x/", "http://x/../y", "http://x/?q=1", "http://x/%2e"} {
		if _, err := Open(Config{DataDir: "data", FS: storagetest.NewCrashFS(nil), SnapshotURLs: []string{bad}, Logger: quiet}); err == nil {
			t.Errorf("%q is allowed", bad)
		}
	}
}

// TestSnapshotsEndWithTheNode stops a node while it makes and receives snapshots.
func TestSnapshotsEndWithTheNode(t *testing.T) {
	n := openWith(t, storagetest.NewCrashFS(nil), t.TempDir())
	db := n.Engine()
	create(t, db, "c", 1)
	entered, closed := make(chan struct{}), make(chan struct{})
	received := make(chan error)
	go func() {
		_, err := db.ReceiveSnapshot(background, "c", readerFunc(func(p []byte) (int, error) {
			select {
			case <-entered:
			default:
				close(entered)
			}
			return len(p), nil // without end
		}), "")
		received <- err
	}()
	<-entered
	go func() {
		defer close(closed)
		closeNode(t, n)
	}()
	if err := <-received; vectord.KindOf(err) != vectord.KindClosed {
		t.Errorf("receiving ended with %v", err)
	}
	<-closed
	if _, err := db.CreateSnapshot(context.Background(), "c"); vectord.KindOf(err) != vectord.KindClosed {
		t.Errorf("after the close: %v", err)
	}
}

// TestSnapshotsAreBounded keeps as many operations going as may be, and then recovers onto a disk without room.
func TestSnapshotsAreBounded(t *testing.T) {
	disk := storagetest.NewCrashFS(nil)
	n := openWith(t, disk, t.TempDir())
	defer n.Close()
	db := n.Engine()
	create(t, db, "c", 1)
	writeOne(t, db, "c", newHistory(1).next())
	content := contentOf(t, db, "c", snapshotOf(t, db, "c"))
	const atOnce = 4
	entered, leave := make(chan struct{}), make(chan struct{})
	var receivers sync.WaitGroup
	for range atOnce {
		receivers.Go(func() {
			_, err := db.ReceiveSnapshot(background, "d", readerFunc(func([]byte) (int, error) {
				entered <- struct{}{}
				<-leave
				return 0, io.ErrUnexpectedEOF
			}), "")
			if err == nil {
				t.Error("what cannot be read was received")
			}
		})
		<-entered
	}
	if _, err := db.CreateSnapshot(background, "c"); vectord.KindOf(err) != vectord.KindOverloaded {
		t.Errorf("one too many: %v", err)
	}
	close(leave)
	receivers.Wait()
	disk.SetAvailable(100 << 20)
	if err := upload(db, "d", content, ""); vectord.KindOf(err) != vectord.KindNoSpace || db.CollectionExists("d") {
		t.Errorf("with a full disk: %v", err)
	}
	disk.SetAvailable(1 << 30)
	if err := upload(db, "d", content, ""); err != nil {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
