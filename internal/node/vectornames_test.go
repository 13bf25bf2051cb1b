package node

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage/storagetest"
)

// TestVectorNamesComeAndGo drops a name with a graph under searches of it, and adds it again with another dimension: what was
// dropped is found nowhere, its files are gone, rows that name it are no damage, and points keep the rest.
func TestVectorNamesComeAndGo(t *testing.T) {
	const points, seed = 1500, 7
	rng := rand.New(rand.NewPCG(seed, 1))
	disk := storagetest.NewCrashFS(nil)
	node := open(t, disk)
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(nodeDim, vectord.Euclid)
	config.Params.ShardNumber = 2
	config.Optimizer.IndexingThreshold = 1
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	name := func(size int) error {
		_, err := db.CreateVectorName(background, "c", "other", vectord.NewVectors{Dense: &vectord.VectorParams{Size: size, Distance: vectord.Dot}})
		return err
	}
	if err := name(2); err != nil {
		t.Fatal(err)
	}
	if err := name(2); err != nil {
		t.Errorf("the same name again: %v", err)
	}
	if err := name(3); vectord.KindOf(err) != vectord.KindExists {
		t.Errorf("the name with another size: %v, want KindExists", err)
	}
	vectors := clustered(rng, points)
	write := func(values []float32) {
		t.Helper()
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for i, v := range vectors {
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Vectors{{Vector: vectord.Dense(v)},
				{Name: "other", Vector: vectord.Dense(append([]float32(nil), values...))}}})
		}
		if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	write([]float32{1, 2})
	waitIndexed(t, db, 2*points)
	if err := node.Close(); err != nil { // which writes checkpoints
		t.Fatal(err)
	}
	node = open(t, disk)
	db = node.Engine()

	var searchers sync.WaitGroup
	for range 4 {
		searchers.Go(func() {
			for {
				hits, err := db.Search(background, "c", vectord.Query{Using: "other", Nearest: vectord.Near([]float32{1, 1}), Limit: 5, Select: vectord.Selection{Vectors: true}})
				switch {
				case err != nil && vectord.KindOf(err) == vectord.KindInvalid && strings.Contains(err.Error(), "other"):
					return
				case err != nil:
					t.Errorf("search of a name on its way out: %v", err)
					return
				case len(hits) != 5:
					t.Errorf("%d hits, want 5 or a refusal", len(hits))
					return
				}
			}
		})
	}
	for range 50 {
		exactIDs(t, db, vectors[3], false)
	}
	if _, err := db.DeleteVectorName(background, "c", "other"); err != nil {
		t.Fatal(err)
	}
	searchers.Wait()
	if _, err := db.DeleteVectorName(background, "c", "other"); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("a second drop: %v, want KindInvalid", err)
	}
	has, err := vectord.ParseFilter([]byte(`{"must":{"has_vector":"other"}}`))
	if err != nil {
		t.Fatal(err)
	}
	count := func(want int) {
		t.Helper()
		if n, err := db.Count(background, "c", has); err != nil || n != want {
			t.Errorf("%d points have the vector (%v), want %d", n, err, want)
		}
	}
	count(0)
	if err := name(3); err != nil {
		t.Fatal(err)
	}
	count(0)
	records, err := db.Retrieve(background, "c", []vectord.PointID{vectord.NumberID(1)}, vectord.Selection{Vectors: true})
	if err != nil || len(records) != 1 || len(records[0].Vectors) != 1 {
		t.Fatalf("%+v, %v: want the default vector alone", records, err)
	}
	// A change of payload keeps the row's dead number, one of vectors drops it.
	if _, err := db.Write(background, "c", []vectord.Operation{
		{Kind: vectord.OpSetPayload, IDs: []vectord.PointID{vectord.NumberID(1)}, Payload: []byte(`{"a":1}`)},
		{Kind: vectord.OpUpdateVectors, Points: []vectord.Point{{ID: vectord.NumberID(2), Vectors: vectord.Vectors{{Name: "other", Vector: vectord.Dense([]float32{1, 2, 3})}}}}},
	}, vectord.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	count(1)
	for range 2 {
		report, err := node.store.Verify(background, nil)
		if err != nil || report.ProblemCount != 0 {
			t.Fatalf("%v, %v", report.Problems, err)
		}
		if err := node.Close(); err != nil {
			t.Fatal(err)
		}
		node = open(t, disk)
		db = node.Engine()
		count(1)
		files, err := node.store.ListFiles()
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "-1.graph") {
				t.Errorf("the dropped graph's file %s is still there", file)
			}
		}
		hits, err := db.Search(background, "c", vectord.Query{Using: "other", Nearest: vectord.Near([]float32{1, 1, 1}), Limit: 5})
		if err != nil || len(hits) != 1 || hits[0].ID != vectord.NumberID(2) {
			t.Errorf("hits %v, %v, want point 2", hits, err)
		}
	}
	if err := node.Close(); err != nil {
		t.Fatal(err)
	}
}
