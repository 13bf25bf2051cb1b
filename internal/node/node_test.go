package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/storage/storagetest"
)

const nodeDim = 16

// clustered returns n vectors around a few centres, as embeddings are.
func clustered(rng *rand.Rand, n int) [][]float32 {
	centres := make([][]float32, 20)
	for i := range centres {
		centres[i] = make([]float32, nodeDim)
		for j := range centres[i] {
			centres[i][j] = float32(rng.NormFloat64())
		}
	}
	all := make([][]float32, n)
	for i := range all {
		centre := centres[rng.IntN(len(centres))]
		all[i] = make([]float32, nodeDim)
		for j := range all[i] {
			all[i][j] = centre[j] + 0.3*float32(rng.NormFloat64())
		}
	}
	return all
}

func upsert(t testing.TB, db *engine.DB, first uint64, vectors [][]float32) {
	t.Helper()
	for len(vectors) > 0 {
		n := min(len(vectors), 500)
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for i, v := range vectors[:n] {
			id := first + uint64(i)
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(id), Vectors: vectord.Unnamed(v),
				Payload: fmt.Appendf(nil, `{"tenth":%d}`, id%10)})
		}
		if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
		first += uint64(n)
		vectors = vectors[n:]
	}
}

// indexed creates a collection of n points, all of them in the graph, on a new disk, and closes the node so that the
// graph's checkpoint is written.
func indexed(t *testing.T, seed uint64, n int) (*storagetest.CrashFS, [][]float32) {
	t.Helper()
	disk := storagetest.NewCrashFS(nil)
	node := open(t, disk)
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1
	if err := node.Engine().CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	vectors := clustered(rand.New(rand.NewPCG(seed, 2)), n)
	upsert(t, node.Engine(), 0, vectors)
	waitIndexed(t, node.Engine(), n)
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
	return disk, vectors
}

// waitIndexed waits until n points are in the graph. Only the test's own time limit bounds the wait.
func waitIndexed(t testing.TB, db *engine.DB, n int) {
	t.Helper()
	for {
		info, err := db.CollectionInfo("c")
		if err != nil {
			t.Fatal(err)
		}
		if info.IndexedVectors == n {
			return
		}
		yield()
	}
}

func exactIDs(t testing.TB, db *engine.DB, q []float32, exact bool) []vectord.PointID {
	t.Helper()
	hits, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(q), Limit: 10, Params: vectord.SearchParams{Exact: exact, HNSWEf: 200}})
	if err != nil {
		t.Fatal(err)
	}
	ids := make([]vectord.PointID, len(hits))
	for i, h := range hits {
		ids[i] = h.ID
	}
	return ids
}

func counter(t *testing.T, r *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// TestStartLoadsTheGraph checks that a start finds the whole graph in its checkpoint, before any indexing could run.
func TestStartLoadsTheGraph(t *testing.T) {
	const n = 3000
	disk, vectors := indexed(t, seedOf(t), n)
	node := open(t, disk)
	defer node.Close()
	info, err := node.Engine().CollectionInfo("c")
	if err != nil || info.IndexedVectors != n || info.Status != vectord.StatusGreen {
		t.Fatalf("%d of %d vectors are in the graph at start, status %s (%v)", info.IndexedVectors, n, info.Status, err)
	}
	for i := 0; i < n; i += 100 {
		if ids := exactIDs(t, node.Engine(), vectors[i], false); len(ids) != 10 || ids[0] != vectord.NumberID(uint64(i)) {
			t.Errorf("the nearest to vector %d are %v", i, ids)
		}
	}
}

// TestDerivedFilesAreExpendable damages or removes the graph's checkpoint in many ways. The node must start, notice the
// damage, answer exact searches as before at once, and build the graph again.
func TestDerivedFilesAreExpendable(t *testing.T) {
	const n = 600
	seed := seedOf(t)
	rng := rand.New(rand.NewPCG(seed, 3))
	disk, vectors := indexed(t, seed, n)
	const file = "data/index/shard-1-0.graph"
	intact := readFile(t, disk, file)
	reference := open(t, disk)
	want := make([][]vectord.PointID, 20)
	for i := range want {
		want[i] = exactIDs(t, reference.Engine(), vectors[i*7], true)
	}
	if err := reference.Close(); err != nil {
		t.Fatal(err)
	}
	check := func(what string, content []byte) {
		t.Helper()
		damaged := disk.Crash(100, 1)
		if content == nil {
			if err := damaged.Remove(file); err != nil {
				t.Fatal(err)
			}
		} else {
			writeFile(t, damaged, file, content)
		}
		metrics := prometheus.NewRegistry()
		node, err := Open(Config{DataDir: "data", FS: damaged, Logger: quiet, Metrics: metrics, Fatal: func(err error) { panic(err) }})
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer node.Close()
		if content != nil && counter(t, metrics, "vectord_index_rebuilds_total") != 1 {
			t.Errorf("%s: the damage was not noticed", what)
		}
		for i := range want {
			if got := exactIDs(t, node.Engine(), vectors[i*7], true); !slices.Equal(got, want[i]) {
				t.Errorf("%s: exact search finds %v, before it was %v", what, got, want[i])
			}
		}
		waitIndexed(t, node.Engine(), n)
		found := 0
		for i := range want {
			for _, id := range exactIDs(t, node.Engine(), vectors[i*7], false) {
				if slices.Contains(want[i], id) {
					found++
				}
			}
		}
		if found < 190 {
			t.Errorf("%s: the graph built again finds %d of 200 neighbors", what, found)
		}
	}
	check("removed", nil)
	check("empty", []byte{})
	check("cut short", intact[:len(intact)/2])
	check("cut by one byte", intact[:len(intact)-1])
	for range 5 {
		at := rng.IntN(len(intact))
		flipped := slices.Clone(intact)
		flipped[at] ^= 1 << rng.IntN(8)
		check(fmt.Sprintf("bit flipped in byte %d", at), flipped)
	}
}

func readFile(t *testing.T, fs *storagetest.CrashFS, name string) []byte {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeFile(t *testing.T, fs *storagetest.CrashFS, name string, content []byte) {
	t.Helper()
	f, err := fs.Create(name, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(f, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestNoSearchMeetsHalfAnUpdate moves every point again and again while others look for them. A point that exists all
// the while must be in every answer, once, with the score of the vector that comes with it.
func TestNoSearchMeetsHalfAnUpdate(t *testing.T) {
	const n, rounds, searchers = 40, 150, 3
	seed := seedOf(t)
	disk := storagetest.NewCrashFS(nil)
	node := open(t, disk)
	defer node.Close()
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Optimizer.IndexingThreshold = 1
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 4))
	upsert(t, db, 0, clustered(rng, n))
	filter, err := vectord.ParseFilter([]byte(`{"must":[{"key":"tenth","range":{"gte":0}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range searchers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(100+i)))
			for !done.Load() {
				q := vectord.Query{Nearest: vectord.Near(clustered(rng, 1)[0]), Limit: n + 5, Select: vectord.Selection{Vectors: true, Payload: true}}
				q.Params.Exact = i == 0
				if i == 1 {
					q.Filter = filter
				}
				hits, err := db.Search(background, "c", q)
				if err != nil {
					t.Error(err)
					return
				}
				seen := map[vectord.PointID]bool{}
				for _, h := range hits {
					if seen[h.ID] {
						t.Errorf("point %s is in one answer twice", h.ID)
					}
					seen[h.ID] = true
					var sum float64
					for j, x := range h.Vectors.Unnamed() {
						sum += float64(x-q.Nearest.Vector.Values[j]) * float64(x-q.Nearest.Vector.Values[j])
					}
					if diff := float64(h.Score)*float64(h.Score) - sum; diff > 1e-3 || diff < -1e-3 {
						t.Errorf("point %s has score %v, its vector is at squared distance %v", h.ID, h.Score, sum)
					}
				}
				if len(hits) != n {
					t.Errorf("searcher %d found %d of %d points", i, len(hits), n)
				}
				if count, err := db.Count(background, "c", q.Filter); err != nil || count != n {
					t.Errorf("searcher %d counted %d of %d points, error %v", i, count, n, err)
				}
				if t.Failed() {
					return
				}
			}
		})
	}
	for range rounds {
		at := rng.IntN(n - 10)
		upsert(t, db, uint64(at), clustered(rng, 10))
	}
	done.Store(true)
	wg.Wait()
}

// TestMemoryLimit checks the order in which memory runs out: writes that add data are refused by a typed error; searches,
// deletes and overwrites of payloads go on, and so do writes once there is room again.
func TestMemoryLimit(t *testing.T) {
	node, err := Open(Config{DataDir: "data", FS: storagetest.NewCrashFS(nil), MemoryLimit: 72 << 20, Logger: quiet, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer node.Close()
	db := node.Engine()
	const dim = 2048
	config := vectord.DefaultCollectionConfig(dim, vectord.Dot)
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	v := make([]float32, dim)
	write := func(op vectord.Operation) error {
		_, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{})
		return err
	}
	add := func(id uint64) error {
		v[0] = float32(id)
		return write(vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{{ID: vectord.NumberID(id), Vectors: vectord.Unnamed(v)}}})
	}
	stored := uint64(0)
	for err = nil; err == nil; stored++ {
		if stored > 50_000 {
			t.Fatal("400 MB of vectors fit into a limit of 72 MiB")
		}
		err = add(stored)
	}
	stored--
	if vectord.KindOf(err) != vectord.KindNoMemory {
		t.Fatalf("after %d points: %v", stored, err)
	}
	if hits, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(v), Limit: 1}); err != nil || len(hits) != 1 {
		t.Errorf("search in a full server: %v, %v", hits, err)
	}
	first := []vectord.PointID{vectord.NumberID(0)}
	if err := write(vectord.Operation{Kind: vectord.OpSetPayload, IDs: first, Payload: []byte(`{"a":1}`)}); err != nil {
		t.Errorf("set payload in a full server: %v", err)
	}
	if existed, err := db.DeleteCollection(background, "c"); err != nil || !existed {
		t.Fatalf("delete the collection: %v, %v", existed, err)
	}
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	for add(0) != nil { // the budget is measured again each second
		yield()
	}
}

// yield lets others run while a test waits for their work. Whether it waits long enough is not its business: the loop
// around it says when to go on.
func yield() { time.Sleep(time.Millisecond) }

// countdown is a context that ends when it has been asked a number of times whether it has.
type countdown struct {
	context.Context
	left atomic.Int64
}

func (c *countdown) Err() error {
	if c.left.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestDeadlinesEndScans checks that whatever reads all points stops when its time is over.
func TestDeadlinesEndScans(t *testing.T) {
	const n = 5000 // some looks at the deadline
	node := open(t, storagetest.NewCrashFS(nil))
	defer node.Close()
	db := node.Engine()
	if err := db.CreateCollection(background, "c", vectord.DefaultCollectionConfig(nodeDim, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	vectors := clustered(rand.New(rand.NewPCG(seedOf(t), 5)), n)
	upsert(t, db, 0, vectors)
	filter := func(value int) *vectord.Filter {
		f, err := vectord.ParseFilter(fmt.Appendf(nil, `{"must":[{"key":"tenth","match":{"value":%d}}]}`, value))
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := func(what string, call func(ctx context.Context) error) {
		t.Helper()
		ctx := &countdown{Context: background}
		ctx.left.Store(2)
		if err := call(ctx); vectord.KindOf(err) != vectord.KindTimeout {
			t.Errorf("%s after its deadline: %v", what, err)
		}
		ctx.left.Store(1000)
		if err := call(ctx); err != nil {
			t.Errorf("%s in time: %v", what, err)
		}
	}
	f("exact search", func(ctx context.Context) error {
		_, err := db.Search(ctx, "c", vectord.Query{Nearest: vectord.Near(vectors[0]), Limit: 1, Params: vectord.SearchParams{Exact: true}})
		return err
	})
	f("filtered search", func(ctx context.Context) error {
		_, err := db.Search(ctx, "c", vectord.Query{Nearest: vectord.Near(vectors[0]), Limit: 1, Filter: filter(1)})
		return err
	})
	f("count", func(ctx context.Context) error {
		_, err := db.Count(ctx, "c", filter(2))
		return err
	})
	f("scroll", func(ctx context.Context) error {
		_, err := db.Scroll(ctx, "c", vectord.ScrollRequest{Limit: 1, Filter: filter(77)})
		return err
	})
	f("delete by filter", func(ctx context.Context) error {
		_, err := db.Write(ctx, "c", []vectord.Operation{{Kind: vectord.OpDelete, Filter: filter(78)}}, vectord.WriteOptions{})
		return err
	})
}

// TestFilteredHitsMatch flips what the points' payloads say while others filter by it: the payload that comes with a hit
// must pass the filter, however late the change was.
func TestFilteredHitsMatch(t *testing.T) {
	const n, rounds, searchers = 60, 200, 3
	seed := seedOf(t)
	node := open(t, storagetest.NewCrashFS(nil))
	defer node.Close()
	db := node.Engine()
	if err := db.CreateCollection(background, "c", vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 6))
	upsert(t, db, 0, clustered(rng, n))
	filter, err := vectord.ParseFilter([]byte(`{"must":[{"key":"flag","match":{"value":true}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for i := range searchers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(200+i)))
			for !done.Load() && !t.Failed() {
				hits, err := db.Search(background, "c", vectord.Query{Nearest: vectord.Near(clustered(rng, 1)[0]), Limit: n, Filter: filter,
					Params: vectord.SearchParams{Exact: i == 0}, Select: vectord.Selection{Payload: true}})
				if err != nil {
					t.Error(err)
				}
				for _, h := range hits {
					if !bytes.Contains(h.Payload, []byte(`"flag":true`)) {
						t.Errorf("point %s with payload %s is among the hits", h.ID, h.Payload)
					}
				}
			}
		})
	}
	for range rounds {
		op := vectord.Operation{Kind: vectord.OpOverwritePayload, Payload: fmt.Appendf(nil, `{"flag":%v}`, rng.IntN(2) == 0)}
		for range 20 {
			op.IDs = append(op.IDs, vectord.NumberID(uint64(rng.IntN(n))))
		}
		if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	done.Store(true)
	wg.Wait()
}

// TestBadVectorIsNamed checks that the error of a batch says which of its points was wrong.
func TestBadVectorIsNamed(t *testing.T) {
	node := open(t, storagetest.NewCrashFS(nil))
	defer node.Close()
	db := node.Engine()
	if err := db.CreateCollection(background, "c", vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	op := vectord.Operation{Kind: vectord.OpUpsert, Points: []vectord.Point{
		{ID: vectord.NumberID(5), Vectors: vectord.Unnamed([]float32{1, 2})}, {ID: vectord.NumberID(7), Vectors: vectord.Unnamed([]float32{1})}}}
	_, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{})
	if want := "Vector dimension error: expected dim: 2, got 1 (points[1], id 7)"; err == nil || err.Error() != want || vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("error %v, want %q", err, want)
	}
	if n, err := db.Count(background, "c", nil); n != 0 || err != nil {
		t.Errorf("%d points after a refused write (%v)", n, err)
	}
}
