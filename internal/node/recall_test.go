package node

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/storage/storagetest"
)

// TestFilteredRecall checks that a filter does not cost recall, whatever share of the points it keeps and even if it keeps
// none of those near the query, and that no answer is short. It is about what lies between a filter's text and the walk:
// the bitmap, the choice between scan and walk, and the rescoring; the walk alone is tested in index/hnsw. At this ef nearly
// all neighbors are found, so that what is lost to the order in which the graph was built is far below the tolerance.
func TestFilteredRecall(t *testing.T) {
	const n, dim, clusters, queries = 3_000, 32, 40, 40
	rng := rand.New(rand.NewPCG(3, 7))
	centres := make([][]float32, clusters)
	near := func(c int) []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = centres[c][i] + 0.5*float32(rng.NormFloat64())
		}
		return v
	}
	for c := range centres {
		centres[c] = make([]float32, dim)
		for i := range centres[c] {
			centres[c][i] = float32(rng.NormFloat64())
		}
	}
	node := open(t, storagetest.NewCrashFS(nil))
	defer node.Close()
	db := node.Engine()
	config := vectord.DefaultCollectionConfig(dim, vectord.Cosine)
	config.Optimizer.IndexingThreshold = 1
	config.HNSW.EfSearch = 100
	if err := db.CreateCollection(background, "c", config); err != nil {
		t.Fatal(err)
	}
	for first := 0; first < n; first += 1000 {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for id := first; id < first+1000; id++ {
			c := rng.IntN(clusters)
			op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(id)), Vectors: vectord.Unnamed(near(c)),
				Payload: fmt.Appendf(nil, `{"cluster":%d,"thousandth":%d}`, c, rng.IntN(1000))})
		}
		if _, err := db.Write(background, "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	waitIndexed(t, db, n)
	// recall is the mean over queries from known clusters, each with the filter that filterFor gives for its cluster.
	recall := func(filterFor func(cluster int) string) float64 {
		t.Helper()
		found := 0
		for i := range queries {
			c := i % clusters
			f, err := vectord.ParseFilter([]byte(filterFor(c)))
			if err != nil {
				t.Fatal(err)
			}
			q := vectord.Query{Nearest: vectord.Near(near(c)), Limit: 10, Filter: f}
			hits := searchIDs(t, db, q)
			q.Params.Exact = true
			exact := searchIDs(t, db, q)
			if len(hits) != len(exact) {
				t.Errorf("filter %s: %d hits, exact search has %d", filterFor(c), len(hits), len(exact))
			}
			for id := range exact {
				if hits[id] {
					found++
				}
			}
			found += 10 - len(exact) // fewer match than were asked for
		}
		return float64(found) / (10 * queries)
	}
	unfiltered := recall(func(int) string { return `{}` })
	check := func(what string, filterFor func(cluster int) string) {
		t.Helper()
		got := recall(filterFor)
		t.Logf("%-40s recall %.4f", what, got)
		if got < unfiltered-0.01 {
			t.Errorf("%s: recall %.4f, without a filter %.4f", what, got, unfiltered)
		}
	}
	t.Logf("%-40s recall %.4f", "no filter", unfiltered)
	for _, kept := range []int{900, 700, 500, 100, 10, 1} {
		check(fmt.Sprintf("%d in 1000 at random", kept), func(int) string {
			return fmt.Sprintf(`{"must":[{"key":"thousandth","range":{"lt":%d}}]}`, kept)
		})
	}
	check("all but the query's cluster", func(c int) string {
		return fmt.Sprintf(`{"must_not":[{"key":"cluster","match":{"value":%d}}]}`, c)
	})
	for _, others := range []int{30, 10, 1} {
		check(fmt.Sprintf("%d clusters that are not the query's", others), func(c int) string {
			var kept []string
			for i := range others {
				kept = append(kept, strconv.Itoa((c+1+i)%clusters))
			}
			return fmt.Sprintf(`{"must":[{"key":"cluster","match":{"any":[%s]}}]}`, strings.Join(kept, ","))
		})
	}
}

func searchIDs(t *testing.T, db *engine.DB, q vectord.Query) map[vectord.PointID]bool {
	t.Helper()
	hits, err := db.Search(background, "c", q)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[vectord.PointID]bool{}
	for _, h := range hits {
		ids[h.ID] = true
	}
	return ids
}
