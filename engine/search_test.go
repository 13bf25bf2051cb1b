package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// TestRankIsTheOrderOfDistancesAndIDs compares with a plain sort, over distances that are often equal, zeros of both
// signs, infinite or not a number, and slots that are there twice.
func TestRankIsTheOrderOfDistancesAndIDs(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	distances := []float32{0, float32(math.Copysign(0, -1)), 1, -1, 1.5, -2e-40, float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN())}
	for range 2000 {
		var r rescoring
		var want []candidate
		for slot := range uint32(rng.IntN(40)) {
			c := candidate{slot: slot, distance: float32(rng.NormFloat64()), held: slotWords{stamp: 2, low: rng.Uint64N(1000)<<32 | uint64(slot)}}
			if rng.IntN(2) == 0 {
				c.distance = distances[rng.IntN(len(distances))]
			}
			if rng.IntN(3) == 0 {
				c.held.stamp, c.held.high = 3, rng.Uint64() // a UUID
			}
			want = append(want, c)
			for range 1 + rng.IntN(10)/9 {
				r.candidates = append(r.candidates, c)
			}
		}
		rng.Shuffle(len(r.candidates), func(i, j int) { r.candidates[i], r.candidates[j] = r.candidates[j], r.candidates[i] })
		slices.SortFunc(want, func(a, b candidate) int {
			if a.distance != b.distance && (a.distance == a.distance || b.distance == b.distance) {
				return index.Compare(index.Neighbor{Distance: a.distance}, index.Neighbor{Distance: b.distance})
			}
			return cmp.Or(a.held.id().Compare(b.held.id()))
		})
		r.rank()
		same := slices.EqualFunc(r.candidates, want, func(a, b candidate) bool { return a.slot == b.slot })
		if !same {
			t.Fatalf("seed %d: ranked\n%v, want\n%v", seed, r.candidates, want)
		}
	}
}

// newSearch returns a search of one shard that holds n random vectors, in storage and in the fresh buffer.
func newSearch(t testing.TB, rng *rand.Rand, n, dim int) (*search, *shard, [][]float32) {
	t.Helper()
	r := newReplica(t)
	t.Cleanup(r.close)
	config := vectord.DefaultCollectionConfig(dim, vectord.Cosine)
	config.Optimizer.IndexingThreshold = 0
	command, err := encodeCatalogCommand(commandCreateCollection, createCollection{"c", config})
	if err != nil {
		t.Fatal(err)
	}
	r.apply(vectord.Entry{Group: metaGroup, Index: 1, Command: command})
	col, err := r.db.catalog.resolve("c")
	if err != nil {
		t.Fatal(err)
	}
	sh := col.shards[0]
	vectors := make([][]float32, n)
	w := write{Collection: col.id, Shard: sh.id, Operations: []vectord.Operation{{Kind: vectord.OpUpsert}}}
	for i := range vectors {
		vectors[i] = make([]float32, dim)
		for j := range vectors[i] {
			vectors[i][j] = float32(rng.NormFloat64())
		}
		vectord.Normalize(vectors[i])
		w.Operations[0].Points = append(w.Operations[0].Points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed(vectors[i])})
	}
	if command, err = w.append(nil); err != nil {
		t.Fatal(err)
	}
	r.apply(vectord.Entry{Group: sh.group, Index: 2, Command: command})
	s := &search{db: r.db, collection: col, query: &vectord.Query{}, spec: col.specs[0], distance: index.DistanceFunc(vectord.Cosine), order: vectord.Cosine, vector: vectord.Dense(vectors[0]), wanted: 10}
	return s, sh, vectors
}

// TestRescoreFindsVectorsWhereverTheyAre compares candidates of which some are hot, some fresh, some in storage alone and
// some there twice, and then again, when the hot set has more of them.
func TestRescoreFindsVectorsWhereverTheyAre(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	s, sh, vectors := newSearch(t, rng, 200, 100)
	db := s.db
	cold := map[uint32]bool{}
	for slot := range uint32(len(vectors)) {
		switch rng.IntN(3) {
		case 0:
			p, _ := sh.slots.get(slot)
			db.hot.add(hotKey{sh.indexes()[0].id, slot}, p.version, vectors[slot])
		case 1:
			cold[slot] = true
			sh.indexes()[0].fresh.Remove(slot)
		}
	}
	r := new(rescoring)
	a := &attempt{search: s, shard: sh, vectors: sh.vectorsOf(0), nearest: nearest{vector: vectors[0]}, rescoring: r}
	for pass := range 2 {
		r.found = r.found[:0]
		var want []uint32
		for range 120 {
			want = append(want, rng.Uint32N(uint32(len(vectors))))
			r.found = append(r.found, index.Neighbor{Slot: want[len(want)-1], Distance: unmeasured})
		}
		slices.Sort(want)
		want = slices.Compact(want)
		slices.SortFunc(want, func(a, b uint32) int {
			return cmp.Or(cmp.Compare(s.distance(s.vector.Values, vectors[a]), s.distance(s.vector.Values, vectors[b])), cmp.Compare(a, b))
		})
		if err := a.rescore(context.Background()); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for i, c := range r.candidates {
			if len(want) != len(r.candidates) || c.slot != want[i] || c.distance != s.distance(s.vector.Values, vectors[c.slot]) {
				t.Fatalf("seed %d, pass %d: ranked %v, want the slots %v", seed, pass, r.candidates, want)
			}
		}
		for _, slot := range want {
			p, _ := sh.slots.get(slot)
			if _, hot := db.hot.get(hotKey{sh.indexes()[0].id, slot}, p.version); cold[slot] && !hot {
				t.Fatalf("seed %d, pass %d: slot %d was read from storage and is not hot", seed, pass, slot)
			}
		}
	}
	gone := r.candidates[0].slot
	sh.slots.clear(gone)
	if err := a.rescore(context.Background()); !errors.Is(err, errChanged) {
		t.Errorf("seed %d: a slot without a point: %v, want %v", seed, err, errChanged)
	}
	r.found = r.found[:0]
	for i := range uint32(3) {
		r.found = append(r.found, index.Neighbor{Slot: (gone + i) % uint32(len(vectors)), Distance: unmeasured})
	}
	a.settled = true
	if err := a.rescore(context.Background()); err != nil || len(r.candidates) != 2 {
		t.Errorf("seed %d: settled, with one of three slots empty: %v, %v", seed, r.candidates, err)
	}
}

// BenchmarkRescore measures comparing 30 candidates of 20,000, all of them hot, with checks of versions and ranking.
func BenchmarkRescore(b *testing.B) {
	for _, dim := range []int{100, 384, 768} {
		b.Run(fmt.Sprintf("dim=%d", dim), func(b *testing.B) {
			const points, depth = 20_000, 30
			rng := rand.New(rand.NewPCG(1, 1))
			s, sh, vectors := newSearch(b, rng, points, dim)
			for slot, v := range vectors {
				p, _ := sh.slots.get(uint32(slot))
				s.db.hot.add(hotKey{sh.indexes()[0].id, uint32(slot)}, p.version, v)
			}
			slots := make([]index.Neighbor, 1<<16)
			for i := range slots {
				slots[i] = index.Neighbor{Slot: rng.Uint32N(points), Distance: unmeasured}
			}
			misses := s.db.hot.misses.Load()
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := rescorings.Get().(*rescoring)
				at := i * depth % (len(slots) - depth)
				r.found = append(r.found[:0], slots[at:at+depth]...)
				a := attempt{search: s, shard: sh, vectors: sh.vectorsOf(0), nearest: nearest{vector: vectors[0]}, rescoring: r}
				if err := a.rescore(context.Background()); err != nil {
					b.Fatal(err)
				}
				r.release()
			}
			if n := s.db.hot.misses.Load() - misses; n > 0 {
				b.Errorf("%d misses", n)
			}
		})
	}
}
