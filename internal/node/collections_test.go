package node

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage/storagetest"
)

// TestManyEmptyCollections holds a start to what it may take for a collection without points: a bounded piece of the heap and
// no goroutine, file or look at the disk of its own.
func TestManyEmptyCollections(t *testing.T) {
	const (
		count       = 5000
		bytesEach   = 2 << 10
		objectsEach = 80 // allocated at a start, most of them to read the catalog
	)
	disk := storagetest.NewCrashFS(nil)
	node := open(t, disk)
	for i := range count {
		config := vectord.DefaultCollectionConfig(nodeDim, vectord.Cosine)
		if err := node.Engine().CreateCollection(background, fmt.Sprintf("c%04d", i), config); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := node.Engine().CreateFieldIndex(background, "c0002", "f", vectord.FieldSchema{Type: vectord.FieldKeyword}, true); err != nil {
		t.Fatal(err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	node = open(t, disk) // what a start takes by itself, with all of it in the caches
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	goroutines := runtime.NumGoroutine()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	node = open(t, disk)
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	db := node.Engine()
	if names := db.Collections(); len(names) != count || !slices.IsSorted(names) {
		t.Fatalf("%d collections, want %d in order", len(names), count)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	const own = 4 << 20 // of the node itself
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc) - own) / count; each > bytesEach {
		t.Errorf("%d bytes of heap for a collection, want at most %d", each, bytesEach)
	}
	if each := (after.Mallocs - before.Mallocs) / count; each > objectsEach {
		t.Errorf("%d objects allocated for a collection, want at most %d", each, objectsEach)
	}
	if grown := runtime.NumGoroutine() - goroutines; grown > count/100 {
		t.Errorf("%d goroutines more than before the node", grown)
	}

	// An empty collection works like any other.
	for _, name := range []string{"c0001", "c0002"} {
		if _, err := db.Write(background, name, []vectord.Operation{{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(1),
			Vectors: vectord.Unnamed(unit(0)), Payload: []byte(`{"f":"x"}`)}}}}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		f, err := vectord.ParseFilter([]byte(`{"must":{"key":"f","match":{"value":"x"}}}`))
		if err != nil {
			t.Fatal(err)
		}
		hits, err := db.Search(background, name, vectord.Query{Nearest: vectord.Near(unit(0)), Limit: 1, Filter: f})
		if err != nil || len(hits) != 1 {
			t.Fatalf("search of %s: %v, %v", name, hits, err)
		}
	}
	if info, err := db.CollectionInfo("c4999"); err != nil || info.Points != 0 || info.Status != vectord.StatusGreen {
		t.Fatalf("%+v, %v", info, err)
	}
}

func unit(axis int) []float32 {
	v := make([]float32, nodeDim)
	v[axis] = 1
	return v
}

// TestCreateAndDrop creates, uses and drops collections and compares what the process holds with what it held before: within
// one part in twenty.
func TestCreateAndDrop(t *testing.T) {
	cycles := 1000
	if testing.Short() {
		cycles = 100
	}
	node, err := Open(Config{DataDir: t.TempDir(), MemoryLimit: 128 << 20, Logger: quiet, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	db := node.Engine()
	vectors := make([][]float32, 20)
	for i := range vectors {
		vectors[i] = unit(i % nodeDim)
	}
	cycle := func() {
		config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
		config.Optimizer.IndexingThreshold = 1 // a graph, and so memory outside of the heap and a goroutine
		if err := db.CreateCollection(background, "c", config); err != nil {
			t.Fatal(err)
		}
		upsert(t, db, 0, vectors)
		if hits := exactIDs(t, db, vectors[3], false); len(hits) != 10 {
			t.Fatalf("%d hits", len(hits))
		}
		if existed, err := db.DeleteCollection(background, "c"); err != nil || !existed {
			t.Fatalf("delete: %v, %v", existed, err)
		}
	}
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return 0 // not a Linux
		}
		return len(entries)
	}
	objects := func() int { // and not bytes, most of which are in the memtables that storage fills and empties
		if err := node.store.Compact(background); err != nil { // what was removed is still named by the memtable
			t.Fatal(err)
		}
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int(m.HeapObjects)
	}
	for range cycles / 2 { // caches and pools fill
		cycle()
	}
	settled(t)
	goroutines, filesBefore, objectsBefore := runtime.NumGoroutine(), files(), objects()
	for range cycles {
		cycle()
	}
	settled(t)
	within := func(what string, before, after, slack int) {
		if after > before+max(before/20, slack) {
			t.Errorf("%s: %d before and %d after %d cycles, want no more than 5 %% more", what, before, after, cycles)
		}
	}
	within("goroutines", goroutines, runtime.NumGoroutine(), 3)
	within("open files", filesBefore, files(), 3)
	// A collection that stayed would be ten objects at least; storage keeps some for each range that one memtable removed.
	within("objects on the heap", objectsBefore, objects(), 3*cycles)
}

// settled waits until what was dropped is freed, which happens in the background: until no goroutine of an index is left.
func settled(t *testing.T) {
	t.Helper()
	for buf := make([]byte, 1<<20); ; yield() {
		stacks := string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "vectorIndex).work") && !strings.Contains(stacks, "DB).release") {
			return
		}
	}
}
