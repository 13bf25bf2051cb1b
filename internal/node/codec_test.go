package node

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/storage/storagetest"
)

// retrainings returns how many graphs were begun again for a reason.
func retrainings(t *testing.T, r *prometheus.Registry, reason string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "vectord_index_retrainings_total" {
			for _, m := range f.GetMetric() {
				if m.GetLabel()[0].GetValue() == reason {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

func openMeasured(t *testing.T, disk *storagetest.CrashFS) (*Node, *prometheus.Registry) {
	t.Helper()
	metrics := prometheus.NewRegistry()
	n, err := Open(Config{DataDir: "data", FS: disk, Logger: quiet, Metrics: metrics, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	// Graphs are built again and again here.
	if err := n.Engine().UpdateCollection(background, "c", vectord.CollectionUpdate{HNSW: []byte(`{"ef_construct":40}`)}); err != nil {
		t.Fatal(err)
	}
	return n, metrics
}

// waitGreen waits until all points are in a graph of the codes that are configured.
func waitGreen(t testing.TB, db *engine.DB) {
	t.Helper()
	for {
		info, err := db.CollectionInfo("c")
		if err != nil {
			t.Fatal(err)
		}
		if info.Status == vectord.StatusGreen {
			return
		}
		yield()
	}
}

// recall returns the share of the true ten nearest that a search finds.
func recall(t testing.TB, db *engine.DB, queries [][]float32) float64 {
	t.Helper()
	found := 0
	for _, q := range queries {
		true10 := map[vectord.PointID]bool{}
		for _, id := range exactIDs(t, db, q, true) {
			true10[id] = true
		}
		for _, id := range exactIDs(t, db, q, false) {
			if true10[id] {
				found++
			}
		}
	}
	return float64(found) / float64(10*len(queries))
}

// TestChangeOfCodesBesideSearchesAndWrites changes the quantization back and forth while points are searched for, added,
// moved and deleted. No search may miss a point, whichever graph it meets, and none may find one that is gone.
func TestChangeOfCodesBesideSearchesAndWrites(t *testing.T) {
	const n = 1000
	seed := seedOf(t)
	disk, vectors := indexed(t, seed, n)
	node, metrics := openMeasured(t, disk)
	db := node.Engine()

	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() { // searches for points that stay
		rng := rand.New(rand.NewPCG(seed, 5))
		for !stop.Load() {
			i := rng.IntN(n)
			ids := exactIDs(t, db, vectors[i], false)
			if len(ids) != 10 || ids[0] != vectord.NumberID(uint64(i)) {
				t.Errorf("the nearest to vector %d are %v", i, ids)
				return
			}
		}
	})
	stay := map[uint64][]float32{} // guests that were not deleted, by id
	wg.Go(func() {                 // points that come and go; their slots are used again
		rng := rand.New(rand.NewPCG(seed, 6))
		for first := uint64(n); !stop.Load(); first += 20 {
			guests := make([][]float32, 20)
			for i := range guests {
				guests[i] = make([]float32, nodeDim)
				for j := range guests[i] {
					guests[i][j] = 2 + 0.3*float32(rng.NormFloat64()) // apart from the others, and within the codes' range
				}
			}
			upsert(t, db, first, guests)
			op := vectord.Operation{Kind: vectord.OpDelete}
			for i, v := range guests {
				if ids := exactIDs(t, db, v, false); ids[0] != vectord.NumberID(first+uint64(i)) {
					t.Errorf("the nearest to guest %d are %v", first+uint64(i), ids)
					return
				}
				if i == 0 {
					stay[first] = v
				} else {
					op.IDs = append(op.IDs, vectord.NumberID(first+uint64(i)))
				}
			}
			if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
				t.Error(err)
				return
			}
			for _, v := range guests {
				for _, id := range exactIDs(t, db, v, false) {
					if slices.Contains(op.IDs, id) {
						t.Errorf("point %s is found after it was deleted", id)
						return
					}
				}
			}
		}
	})
	changes := []string{vectord.QuantizationDisabled, `{"product":{"compression":"x4"}}`, `{"product":{"compression":"x8"}}`,
		`{"scalar":{"type":"int8","quantile":0.999}}`, `null`, vectord.QuantizationDisabled}
	for i, q := range changes {
		if err := db.UpdateCollection(background, "c", vectord.CollectionUpdate{Quantization: json.RawMessage(q)}); err != nil {
			t.Fatal(err)
		}
		for retrainings(t, metrics, "config") < float64(i+1) || gauge(t, metrics, "vectord_index_retraining_shards") > 0 {
			if t.Failed() {
				break
			}
			yield()
		}
	}
	stop.Store(true)
	wg.Wait()
	waitGreen(t, db)
	if info, err := db.CollectionInfo("c"); err != nil || info.Points != n+len(stay) || info.IndexedVectors != info.Points {
		t.Errorf("%d of %d points are in the graph, want all %d (%v)", info.IndexedVectors, info.Points, n+len(stay), err)
	}
	for id, v := range stay {
		if ids := exactIDs(t, db, v, false); ids[0] != vectord.NumberID(id) {
			t.Errorf("the nearest to guest %d are %v", id, ids)
		}
	}
	if r := recall(t, db, vectors[:100]); r < 0.99 {
		t.Errorf("recall is %v", r)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}

	// The graph of the last codes is in the checkpoint.
	node, metrics = openMeasured(t, disk)
	defer node.Close()
	info, err := node.Engine().CollectionInfo("c")
	if err != nil || info.Status != vectord.StatusGreen || string(info.Config.Quantization) != vectord.QuantizationDisabled {
		t.Errorf("after a restart: %+v (%v)", info, err)
	}
	if built := retrainings(t, metrics, "config"); built != 0 {
		t.Errorf("%v graphs were begun again at a restart", built)
	}
}

// TestProductCodes creates a collection with product codes, and looks at what is found before and after a restart and after a
// change of the compression.
func TestProductCodes(t *testing.T) {
	const n = 1000
	seed := seedOf(t)
	disk := storagetest.NewCrashFS(nil)
	node := open(t, disk)
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1
	config.Quantization = json.RawMessage(`{"product":{"compression":"x8"}}`)
	if err := node.Engine().CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	vectors := clustered(rand.New(rand.NewPCG(seed, 8)), n)
	upsert(t, node.Engine(), 0, vectors)
	waitIndexed(t, node.Engine(), n)
	check := func(when string) {
		t.Helper()
		if r := recall(t, node.Engine(), vectors[:100]); r < 0.99 {
			t.Errorf("%s recall is %v", when, r)
		}
		exact := 0
		for _, v := range vectors[:100] {
			hits, err := node.Engine().Search(background, "c", vectord.Query{Nearest: vectord.Near(v), Limit: 1,
				Params: vectord.SearchParams{HNSWEf: 100, Quantization: vectord.QuantizationParams{ByCodes: true}}})
			if err != nil {
				t.Fatal(err)
			}
			if hits[0].Score == 0 {
				exact++
			}
		}
		if exact > 50 {
			t.Errorf("%s %d of 100 points are at 0 from themselves by the codes", when, exact)
		}
	}
	check("at first")
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}

	node, metrics := openMeasured(t, disk)
	defer node.Close()
	info, err := node.Engine().CollectionInfo("c")
	if err != nil || info.IndexedVectors != n || string(info.Config.Quantization) != string(config.Quantization) {
		t.Errorf("after a restart: %+v (%v)", info, err)
	}
	check("after a restart")
	if built := retrainings(t, metrics, "config"); built != 0 {
		t.Errorf("%v graphs were begun again at a restart", built)
	}
	update := vectord.CollectionUpdate{Quantization: json.RawMessage(`{"product":{"compression":"x16"}}`)}
	if err := node.Engine().UpdateCollection(background, "c", update); err != nil {
		t.Fatal(err)
	}
	for retrainings(t, metrics, "config") == 0 {
		yield()
	}
	waitGreen(t, node.Engine())
	check("after the change")
	if built := retrainings(t, metrics, "config"); built != 1 {
		t.Errorf("%v graphs were begun again, want 1", built)
	}
}

// TestStopWhileCodesChange stops the node in the middle of a rebuild. The next start goes on with the old graph and begins
// again.
func TestStopWhileCodesChange(t *testing.T) {
	disk, vectors := indexed(t, seedOf(t), 1000)
	node := open(t, disk)
	if err := node.Engine().UpdateCollection(background, "c", vectord.CollectionUpdate{Quantization: json.RawMessage(vectord.QuantizationDisabled)}); err != nil {
		t.Fatal(err)
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	node = open(t, disk)
	defer node.Close()
	if info, err := node.Engine().CollectionInfo("c"); err != nil || info.IndexedVectors != 1000 {
		t.Errorf("after a restart: %+v (%v)", info, err)
	}
	waitGreen(t, node.Engine())
	if r := recall(t, node.Engine(), vectors[:50]); r < 0.99 {
		t.Errorf("recall is %v", r)
	}
}

// TestCodesFollowTheData lets the vectors grow until most of their components are beyond what the codes can say.
func TestCodesFollowTheData(t *testing.T) {
	seed := seedOf(t)
	disk, _ := indexed(t, seed, 500)
	node, metrics := openMeasured(t, disk)
	defer node.Close()
	rng := rand.New(rand.NewPCG(seed, 7))
	later := clustered(rng, 10_500) // more than the 10,000 that are looked at together
	for _, v := range later {
		for j := range v {
			v[j] *= 8
		}
	}
	upsert(t, node.Engine(), 500, later)
	for retrainings(t, metrics, "drift") == 0 {
		yield()
	}
	waitGreen(t, node.Engine())
	if n := retrainings(t, metrics, "drift"); n != 1 {
		t.Errorf("the codes were trained again %v times, want once", n)
	}
	if share := gauge(t, metrics, "vectord_index_clipped_ratio"); share != 0 {
		t.Errorf("%v of the components are clipped", share)
	}
	// By the codes alone: rescoring would hide much.
	var queries [][]float32
	for i := range 100 {
		queries = append(queries, later[i*37])
	}
	found := 0
	for i, q := range queries {
		hits, err := node.Engine().Search(background, "c", vectord.Query{Nearest: vectord.Near(q), Limit: 1,
			Params: vectord.SearchParams{HNSWEf: 100, Quantization: vectord.QuantizationParams{ByCodes: true}}})
		if err != nil {
			t.Fatal(err)
		}
		if hits[0].ID == vectord.NumberID(500+uint64(i*37)) {
			found++
		}
	}
	if found < 95 {
		t.Errorf("%d of 100 points are nearest to themselves by the codes", found)
	}
	if r := recall(t, node.Engine(), queries); r < 0.97 {
		t.Errorf("recall is %v", r)
	}
}

// TestProductCodesOfFewVectors lets vectors come that are like those before, of which there were too few to train codes on.
func TestProductCodesOfFewVectors(t *testing.T) {
	const few, many = 200, 10_500 // of which 10,000 are looked at together
	seed := seedOf(t)
	disk := storagetest.NewCrashFS(nil)
	node := open(t, disk)
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1
	config.Quantization = json.RawMessage(`{"product":{"compression":"x8"}}`)
	if err := node.Engine().CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	vectors := clustered(rand.New(rand.NewPCG(seed, 9)), few+many)
	upsert(t, node.Engine(), 0, vectors[:few])
	waitIndexed(t, node.Engine(), few)
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	node, metrics := openMeasured(t, disk)
	defer node.Close()
	upsert(t, node.Engine(), few, vectors[few:])
	for retrainings(t, metrics, "drift") == 0 {
		yield()
	}
	waitGreen(t, node.Engine())
	if n := retrainings(t, metrics, "drift"); n != 1 {
		t.Errorf("the codes were trained again %v times, want once", n)
	}
	if r := recall(t, node.Engine(), vectors[few:few+100]); r < 0.97 {
		t.Errorf("recall is %v", r)
	}
}

func gauge(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestQuantizationParams looks at what the parameters of a query do to scores.
func TestQuantizationParams(t *testing.T) {
	disk, vectors := indexed(t, seedOf(t), 3000)
	node := open(t, disk)
	defer node.Close()
	db := node.Engine()
	search := func(v []float32, p vectord.QuantizationParams) []vectord.Hit {
		t.Helper()
		hits, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(v), Limit: 10, Params: vectord.SearchParams{HNSWEf: 100, Quantization: p}})
		if err != nil {
			t.Fatal(err)
		}
		if len(hits) != 10 {
			t.Fatalf("%d hits, want 10", len(hits))
		}
		return hits
	}
	estimated, exact := 0, 0
	for _, v := range vectors[:20] {
		want := search(v, vectord.QuantizationParams{})
		for _, p := range []vectord.QuantizationParams{{Ignore: true}, {Oversampling: 20}, {Ignore: true, ByCodes: true}} {
			got := search(v, p)
			for i := range got {
				if got[i].Score != want[i].Score {
					t.Errorf("%+v: hit %d has score %v, want %v", p, i, got[i].Score, want[i].Score)
				}
			}
		}
		for i, h := range search(v, vectord.QuantizationParams{ByCodes: true}) {
			if math.Abs(float64(h.Score-want[i].Score)) > 0.2 {
				t.Errorf("by the codes hit %d has score %v, exactly %v", i, h.Score, want[i].Score)
			}
			if h.Score == want[i].Score {
				exact++
			} else {
				estimated++
			}
		}
	}
	if estimated < exact {
		t.Errorf("%d scores are exact, %d by the codes", exact, estimated)
	}
	for _, o := range []float64{-1, 0.99, vectord.MaxOversampling + 1, math.NaN()} {
		_, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(vectors[0]), Limit: 1,
			Params: vectord.SearchParams{Quantization: vectord.QuantizationParams{Oversampling: o}}})
		if vectord.KindOf(err) != vectord.KindUnprocessable {
			t.Errorf("oversampling %v: error %v", o, err)
		}
	}
	// A point that is not in the graph yet has no code, so its score is exact.
	if err := db.UpdateCollection(background, "c", vectord.CollectionUpdate{Optimizer: []byte(`{"indexing_threshold":0}`)}); err != nil {
		t.Fatal(err)
	}
	far := make([]float32, nodeDim)
	far[0] = 1234.5
	upsert(t, db, 5000, [][]float32{far})
	if hits := search(far, vectord.QuantizationParams{ByCodes: true}); hits[0].ID != vectord.NumberID(5000) || hits[0].Score != 0 {
		t.Errorf("the nearest to a fresh point is %s at %v", hits[0].ID, hits[0].Score)
	}
}
