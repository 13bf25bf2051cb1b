package hnsw

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/quant"
)

// clustered returns n vectors of length dim around a few hundred centers of their own spread, as embeddings are. The same
// seed gives the same vectors.
func clustered(seed uint64, n, dim int) [][]float32 {
	rng := rand.New(rand.NewPCG(seed, 1))
	centers := make([][]float32, 1+n/200)
	for i := range centers {
		centers[i] = make([]float32, dim)
		for j := range centers[i] {
			centers[i][j] = float32(rng.NormFloat64())
		}
	}
	vectors := make([][]float32, n)
	for i := range vectors {
		center := centers[rng.IntN(len(centers))]
		vectors[i] = make([]float32, dim)
		for j := range vectors[i] {
			vectors[i][j] = center[j] + float32(rng.NormFloat64())
		}
	}
	return vectors
}

// oneGoroutine skips a test that has nothing for the race detector to find, and would take minutes under it.
func oneGoroutine(t *testing.T) {
	t.Helper()
	if raceEnabled {
		t.Skip("runs in one goroutine")
	}
}

// world is a graph beside the exact index of the same vectors.
type world struct {
	graph   *Graph
	flat    *index.Flat
	vectors [][]float32 // by slot
}

// newWorld returns a graph of the first n of the vectors. The others serve as queries or later inserts.
func newWorld(t testing.TB, d vectord.Distance, vectors [][]float32, n int, cfg Config) *world {
	t.Helper()
	if d == vectord.Cosine {
		for _, v := range vectors {
			vectord.Normalize(v)
		}
	}
	dim := len(vectors[0])
	codec, err := quant.Train(d, dim, vectors[:min(len(vectors), 4096)])
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(codec, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	g.costs.fixed = new(float64)
	w := &world{graph: g, flat: index.NewFlat(d, dim), vectors: vectors}
	for slot := range n {
		w.insert(t, uint32(slot))
	}
	return w
}

func (w *world) insert(t testing.TB, slot uint32) {
	t.Helper()
	if err := w.graph.Insert(slot, w.vectors[slot]); err != nil {
		t.Fatal(err)
	}
	w.flat.Add(slot, w.vectors[slot])
}

func (w *world) delete(t testing.TB, slot uint32) {
	t.Helper()
	if got, want := w.graph.Delete(slot), w.flat.Remove(slot); got != want {
		t.Fatalf("Delete(%d) = %v, want %v", slot, got, want)
	}
}

// recall returns the share of the exact k nearest of the queries, among the slots that match if filter is not nil, that
// are among the best 3k candidates of the graph: rescoring those at full precision is the caller's business.
func (w *world) recall(queries [][]float32, k, ef int, filter *Filter) float64 {
	var allow func(uint32) bool
	if filter != nil {
		allow = filter.Slots.Contains
	}
	found, all := 0, 0
	var got, want []index.Neighbor
	for _, q := range queries {
		want = w.flat.Search(want[:0], q, k, allow)
		got = w.graph.Search(got[:0], q, Params{K: k, Depth: 3 * k, Ef: ef, Filter: filter})
		for _, n := range want {
			all++
			if slices.ContainsFunc(got, func(g index.Neighbor) bool { return g.Slot == n.Slot }) {
				found++
			}
		}
	}
	return float64(found) / float64(all)
}

func TestRecall(t *testing.T) {
	oneGoroutine(t)
	const n, dim, k, ef = 10_000, 32, 10, 128
	f := func(d vectord.Distance, least float64) {
		t.Run(d.String(), func(t *testing.T) {
			t.Parallel()
			vectors := clustered(7, n+200, dim)
			w := newWorld(t, d, vectors, n, Config{})
			verify(t, w.graph)
			if r := w.recall(vectors[n:], k, ef, nil); r < least {
				t.Errorf("recall %.4f, want at least %.4f", r, least)
			} else {
				t.Logf("recall %.4f", r)
			}
		})
	}
	f(vectord.Cosine, 0.95)
	f(vectord.Dot, 0.95)
	f(vectord.Euclid, 0.95)
	f(vectord.Manhattan, 0.95)
}

// verify checks everything that must hold of a graph which nobody changes.
func verify(t testing.TB, g *Graph) {
	t.Helper()
	if err := g.check(); err != nil {
		t.Fatal(err)
	}
}

// check returns the first broken invariant.
func (g *Graph) check() error {
	a := g.arena.Load()
	if a == nil {
		return nil
	}
	live, deleted := 0, 0
	for slot := range g.high.Load() {
		state := a.states[slot]
		if state&locked != 0 {
			return fmt.Errorf("slot %d is locked", slot)
		}
		if (state&dead != 0) != a.isDead(slot) {
			return fmt.Errorf("slot %d: state %b, dead %v", slot, state, a.isDead(slot))
		}
		if state == 0 {
			continue
		}
		if state&(occupied|linked) != occupied|linked {
			return fmt.Errorf("slot %d: state %b", slot, state)
		}
		if state&dead != 0 {
			deleted++
		} else {
			live++
		}
		for l := range g.level(slot) + 1 {
			row := a.links(slot, l)
			links := appendLinks(nil, row)
			for _, link := range row[len(links):] {
				if link != none {
					return fmt.Errorf("slot %d layer %d: link %d after the end", slot, l, link)
				}
			}
			for i, link := range links {
				switch {
				case link == slot:
					return fmt.Errorf("slot %d layer %d: link to itself", slot, l)
				case link >= g.high.Load() || a.states[link]&linked == 0:
					return fmt.Errorf("slot %d layer %d: link to free slot %d", slot, l, link)
				case g.level(link) < l:
					return fmt.Errorf("slot %d layer %d: link to %d of level %d", slot, l, link, g.level(link))
				case slices.Contains(links[:i], link):
					return fmt.Errorf("slot %d layer %d: two links to %d", slot, l, link)
				}
			}
		}
	}
	if live != g.Len() || deleted != g.Deleted() {
		return fmt.Errorf("%d live and %d deleted nodes, Len %d and Deleted %d", live, deleted, g.Len(), g.Deleted())
	}
	entry := g.entry.Load()
	if entry == noEntry {
		if live+deleted > 0 {
			return fmt.Errorf("no entry point to %d nodes", live+deleted)
		}
		return nil
	}
	slot := uint32(entry)
	if slot >= g.high.Load() || a.states[slot]&linked == 0 || g.level(slot) != int(entry>>32) {
		return fmt.Errorf("entry point %d on layer %d: not a node of that level", slot, entry>>32)
	}
	return nil
}
