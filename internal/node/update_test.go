package node

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/storage/storagetest"
)

// waitFor waits until the collection's info is as wanted. Only the test's own time limit bounds the wait.
func waitFor(t *testing.T, db *engine.DB, wanted func(vectord.CollectionInfo) bool) {
	t.Helper()
	for {
		info, err := db.CollectionInfo("c")
		if err != nil {
			t.Fatal(err)
		}
		if wanted(info) {
			return
		}
		yield()
	}
}

// TestUpdatesUnderSearches takes a collection through settings of its graph while searches and writes go on. Each change
// takes effect in the background, no search meanwhile comes back short or wrong, and exact answers stay the same.
func TestUpdatesUnderSearches(t *testing.T) {
	const points, seed = 3000, 11
	rng := rand.New(rand.NewPCG(seed, 1))
	disk := storagetest.NewCrashFS(nil)
	metrics := prometheus.NewRegistry()
	node, err := Open(Config{DataDir: "data", FS: disk, Logger: quiet, Metrics: metrics, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	vectors := clustered(rng, points)
	upsert(t, db, 0, vectors)
	waitIndexed(t, db, points)
	query := vectors[17]
	want := exactIDs(t, db, query, true)

	var stop atomic.Bool
	var busy sync.WaitGroup
	defer busy.Wait()
	defer stop.Store(true)
	for range 2 {
		busy.Go(func() {
			for !stop.Load() {
				hits, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(query), Limit: 10, Params: vectord.SearchParams{HNSWEf: 400}})
				if err != nil || len(hits) != 10 {
					t.Errorf("%d hits, %v", len(hits), err)
					return
				}
				if hits[0].ID != vectord.NumberID(17) {
					t.Errorf("a point is not found where it is: %v", hits[0])
					return
				}
			}
		})
	}
	// Copies of points that are no neighbors of the query move from slot to slot.
	hits, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(query), Limit: points, Params: vectord.SearchParams{Exact: true}})
	if err != nil || len(hits) != points {
		t.Fatalf("%d hits, %v", len(hits), err)
	}
	busy.Go(func() {
		for i := 0; !stop.Load(); i = (i + 1) % 500 {
			far := slices.Clone(vectors[hits[points/2+i].ID.Number()])
			if _, err := db.Write(background, "c", []vectord.Operation{{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(uint64(points + i)),
				Vectors: vectord.Unnamed(far)}}}}, vectord.WriteOptions{}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	update := func(u vectord.CollectionUpdate) {
		t.Helper()
		if err := db.UpdateCollection(background, "c", u); err != nil {
			t.Fatal(err)
		}
	}
	same := func(what string) {
		t.Helper()
		if got := exactIDs(t, db, query, true); !slices.Equal(got, want) {
			t.Errorf("%s: exact answer %v, was %v", what, got, want)
		}
	}
	checkpoints := func() (n int) {
		files, err := node.store.ListFiles()
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, ".graph") {
				n++
			}
		}
		return n
	}
	memory := func() float64 {
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				if f.GetName() == "vectord_memory_bytes" && m.GetLabel()[0].GetValue() == "graph" {
					return m.GetGauge().GetValue()
				}
			}
		}
		t.Fatal("no memory of graphs among the metrics")
		return 0
	}
	settledAt := func(indexed int) func(vectord.CollectionInfo) bool {
		return func(i vectord.CollectionInfo) bool { return i.IndexedVectors >= indexed }
	}
	for range 2 {
		update(vectord.CollectionUpdate{HNSW: json.RawMessage(`{"m":0}`)})
		waitFor(t, db, func(i vectord.CollectionInfo) bool { return i.IndexedVectors == 0 && i.Status == vectord.StatusGreen })
		same("without a graph")
		if bytes := memory(); bytes != 0 {
			t.Errorf("a graph that was dropped takes %v bytes", bytes)
		}
		update(vectord.CollectionUpdate{HNSW: json.RawMessage(`{"m":8,"ef_construct":64}`)})
		waitFor(t, db, settledAt(points))
		same("with a graph again")
		update(vectord.CollectionUpdate{Quantization: json.RawMessage(vectord.QuantizationDisabled)})
		update(vectord.CollectionUpdate{Vectors: map[string]vectord.VectorUpdate{"": {HNSW: json.RawMessage(`{"m":24}`)}}})
		waitFor(t, db, settledAt(points))
		update(vectord.CollectionUpdate{Quantization: json.RawMessage(`null`)})
		waitFor(t, db, settledAt(points))
		same("with other codes and links")
		update(vectord.CollectionUpdate{Vectors: map[string]vectord.VectorUpdate{"": {HNSW: json.RawMessage(`{}`)}}})
	}
	update(vectord.CollectionUpdate{HNSW: json.RawMessage(`{"m":0}`)})
	waitFor(t, db, func(i vectord.CollectionInfo) bool { return i.IndexedVectors == 0 && i.Status == vectord.StatusGreen })
	stop.Store(true)
	busy.Wait()
	if n := checkpoints(); n != 0 {
		t.Errorf("%d checkpoints of graphs that were dropped", n)
	}
	same("at the end")
}

// TestVectorsOnDiskStayOutOfTheHotSet searches the same points with the flag and without it.
func TestVectorsOnDiskStayOutOfTheHotSet(t *testing.T) {
	metrics := prometheus.NewRegistry()
	node, err := Open(Config{DataDir: "data", FS: storagetest.NewCrashFS(nil), Logger: quiet, Metrics: metrics, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1
	config.HNSW.EfSearch = 64 // so that the node does not search by itself to find out
	config.Params.Vectors[""] = vectord.VectorParams{Size: nodeDim, Distance: vectord.Euclid, OnDisk: true}
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	vectors := clustered(rand.New(rand.NewPCG(5, 1)), 500)
	upsert(t, db, 0, vectors)
	waitIndexed(t, db, 500)
	kept := func() float64 {
		for _, v := range vectors[:100] {
			exactIDs(t, db, v, false)
		}
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "vectord_hot_set_vectors" {
				return f.GetMetric()[0].GetGauge().GetValue()
			}
		}
		t.Fatal("no such metric")
		return 0
	}
	if n := kept(); n != 0 {
		t.Errorf("the hot set has %v vectors that shall be on disk", n)
	}
	off := false
	if err := db.UpdateCollection(background, "c", vectord.CollectionUpdate{Vectors: map[string]vectord.VectorUpdate{"": {OnDisk: &off}}}); err != nil {
		t.Fatal(err)
	}
	if n := kept(); n == 0 {
		t.Error("the hot set has no vectors, want those that were compared")
	}
}

// TestFewVectorsAreIndexedByThreshold checks that the threshold alone decides, also where there are few vectors, and that it
// may come later.
func TestFewVectorsAreIndexedByThreshold(t *testing.T) {
	node := open(t, storagetest.NewCrashFS(nil))
	defer func() {
		if err := node.Close(); err != nil {
			t.Error(err)
		}
	}()
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Cosine)
	config.Optimizer.IndexingThreshold = 0
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	upsert(t, db, 0, clustered(rand.New(rand.NewPCG(3, 1)), 100))
	info, err := db.CollectionInfo("c")
	if err != nil || info.IndexedVectors != 0 || info.Points != 100 || info.Status != vectord.StatusGreen {
		t.Fatalf("without indexing: %+v, %v", info, err)
	}
	if err := db.UpdateCollection(background, "c", vectord.CollectionUpdate{Optimizer: json.RawMessage(`{"indexing_threshold":10}`)}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, db, func(i vectord.CollectionInfo) bool { return i.IndexedVectors == 100 && i.Status == vectord.StatusGreen })
}
