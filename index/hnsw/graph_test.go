package hnsw

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/quant"
)

func TestConfig(t *testing.T) {
	codec, err := quant.Train(vectord.Dot, 2, [][]float32{{1, 2}})
	if err != nil {
		t.Fatal(err)
	}
	f := func(cfg Config, want string) {
		t.Helper()
		g, err := New(codec, cfg)
		if want == "" && err == nil {
			g.Close()
			return
		}
		if err == nil || err.Error() != want || vectord.KindOf(err) != vectord.KindInvalid {
			t.Errorf("New(%+v): %v, want %q", cfg, err, want)
		}
	}
	f(Config{}, "")
	f(Config{M: 2, EfConstruction: 1, MaxLayers: 1, MaxSlots: 1}, "")
	f(Config{M: 128, EfConstruction: 1 << 14, MaxLayers: 16, MaxSlots: 1 << 30}, "")
	f(Config{M: 1}, "hnsw: M is 1, must be 2 to 128")
	f(Config{M: 129}, "hnsw: M is 129, must be 2 to 128")
	f(Config{EfConstruction: -1}, "hnsw: EfConstruction is -1, must be 1 to 16384")
	f(Config{MaxLayers: 17}, "hnsw: MaxLayers is 17, must be 1 to 16")
	f(Config{MaxSlots: 1<<30 + 1}, "hnsw: MaxSlots is 1073741825, must be 1 to 1073741824")
}

func TestErrors(t *testing.T) {
	w := newWorld(t, vectord.Euclid, clustered(1, 50, 4), 10, Config{MaxSlots: 20})
	g := w.graph
	f := func(slot uint32, v []float32, kind vectord.Kind, want string) {
		t.Helper()
		if err := g.Insert(slot, v); err == nil || err.Error() != want || vectord.KindOf(err) != kind {
			t.Errorf("Insert(%d): %v, want %q", slot, err, want)
		}
		if g.Len() != 10 {
			t.Errorf("Insert(%d): Len %d afterwards", slot, g.Len())
		}
	}
	v := w.vectors[10]
	f(10, v[:3], vectord.KindInvalid, "hnsw: insert slot 10: vector of dimension 3, expected 4")
	f(20, v, vectord.KindInvalid, "hnsw: insert slot 20: must be below 20")
	f(math.MaxUint32, v, vectord.KindInvalid, "hnsw: insert slot 4294967295: must be below 20")
	f(9, v, vectord.KindExists, "hnsw: insert slot 9: occupied")
	for _, slot := range []uint32{10, 20, math.MaxUint32} {
		if g.Delete(slot) || g.Live(slot) || g.Occupied(slot) {
			t.Errorf("free slot %d: deleted, live or occupied", slot)
		}
	}
	w.delete(t, 9)
	if g.Live(9) || !g.Occupied(9) {
		t.Errorf("deleted slot 9 live %v, occupied %v", g.Live(9), g.Occupied(9))
	}
	w.unlink(t)
	if g.Occupied(9) {
		t.Errorf("unlinked slot 9 occupied")
	}
	w.insert(t, 9)
	g.Close()
	closed := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("after Close: %s", what)
		}
	}
	closed("Insert", vectord.KindOf(g.Insert(11, v)) == vectord.KindClosed)
	closed("Save", vectord.KindOf(g.Save(nil)) == vectord.KindClosed)
	closed("Delete", !g.Delete(1))
	closed("Search", len(g.Search(nil, v, Params{K: 5, Ef: 10})) == 0)
	closed("Scan", len(g.Scan(nil, v, 5, []uint32{1, 2})) == 0)
	closed("Len", g.Len() == 0 && g.MemoryBytes() == 0 && len(g.AppendLive(nil)) == 0 && !g.Live(1))
	g.Close()
}

// TestGrow inserts from several goroutines while the arena is outgrown, beside searches and deletes.
func TestGrow(t *testing.T) {
	const n, dim, small = 1<<10 + 600, 4, 1 << 10
	vectors := clustered(37, n, dim)
	w := newWorld(t, vectord.Euclid, vectors, 0, Config{M: 4, EfConstruction: 10})
	g := w.graph
	g.arenaSlots = func(least, _ uint64, _ int) uint64 { return max(least, small) }
	const first = 400
	for slot := range uint32(first) {
		w.insert(t, slot)
	}
	var wg sync.WaitGroup
	for i := range uint32(3) {
		wg.Go(func() {
			for slot := small - 600 + i; slot < n; slot += 3 { // at least first
				if err := g.Insert(slot, vectors[slot]); err != nil {
					t.Error(err)
				}
				if slot%3 == 0 && slot/3 < first && !g.Delete(slot/3) {
					t.Errorf("slot %d not deleted", slot/3)
				}
				g.Search(nil, vectors[slot], Params{K: 5, Ef: 20})
			}
		})
	}
	wg.Wait()
	if a := g.arena.Load(); a.slots <= small {
		t.Fatalf("arena of %d slots has not grown", a.slots)
	}
	verify(t, g)
	for _, slot := range g.AppendLive(nil) {
		if got := g.Scan(nil, vectors[slot], 1, []uint32{slot}); len(got) != 1 {
			t.Fatalf("Scan of live slot %d = %v", slot, got)
		}
	}
}

// TestScan compares Scan with the distances between codes, sorted.
func TestScan(t *testing.T) {
	oneGoroutine(t)
	const n = 1000
	w := newWorld(t, vectord.Cosine, clustered(41, n+1, 16), n, Config{})
	for slot := uint32(0); slot < n; slot += 3 {
		w.delete(t, slot)
	}
	rng := rand.New(rand.NewPCG(41, 7))
	q := w.vectors[n]
	f := func(slots []uint32, k int) {
		t.Helper()
		var want []index.Neighbor
		for _, slot := range slots {
			want = append(want, w.graph.Scan(nil, q, 1, []uint32{slot})...)
		}
		slices.SortFunc(want, index.Compare)
		want = want[:min(k, len(want))]
		if got := w.graph.Scan(nil, q, k, slots); !slices.Equal(got, want) {
			t.Errorf("Scan of %d slots, k %d: %d neighbors, want %d", len(slots), k, len(got), len(want))
		}
	}
	all := make([]uint32, n)
	for i, slot := range rng.Perm(n) {
		all[i] = uint32(slot)
	}
	f(nil, 3)
	f(all, 0)
	f(all, 1)
	f(all, 10)
	f(all, 300)
	f(all, 5000)
	f(all[:7], 5)
	f([]uint32{1, n, n + 5, math.MaxUint32, 2}, 5)
}

// TestPool compares the pool, filled by the kernel and by Go, with a sorted list of everything that was offered.
func TestPool(t *testing.T) {
	for range 1000 {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 0))
		capacity := 1 + rng.IntN(40)
		bound := uint64(math.MaxUint64)
		if rng.IntN(2) == 0 {
			bound = key(int32(rng.IntN(100)-50), 7)
		}
		spread := 1 + rng.IntN(100)
		links := make([]uint32, 4*1000)
		var fast, slow pool
		fast.reset(capacity)
		slow.reset(capacity)
		fast.bound, slow.bound = bound, bound
		var all []uint64
		slot := uint32(0)
		for range rng.IntN(30) {
			slots, distances := make([]uint32, rng.IntN(40)), make([]int32, 40)
			for i := range slots {
				slots[i], distances[i] = slot, int32(rng.IntN(spread)-spread/2)
				if rng.IntN(50) == 0 {
					distances[i] = []int32{math.MinInt32, math.MaxInt32}[rng.IntN(2)]
				}
				if k := key(distances[i], slot); k < bound {
					all = append(all, k)
				}
				slot++
			}
			if got, want := fast.admit(slots, distances[:len(slots)], links, 4), slow.admitPortable(slots, distances[:len(slots)]); got != want && min(got, want) < capacity {
				t.Fatalf("seed %d: lowest place %d, want %d", seed, got, want)
			}
			a, aok := fast.peek()
			b, bok := slow.peek()
			if a != b || aok != bok {
				t.Fatalf("seed %d: peek %x %v, want %x %v", seed, a, aok, b, bok)
			}
			if aok && rng.IntN(2) == 0 {
				fast.expand()
				slow.expand()
			}
			if fast.bound != slow.bound || !slices.Equal(fast.keys, slow.keys) {
				t.Fatalf("seed %d: the kernel's pool %x, bound %x; Go's %x, bound %x", seed, fast.keys, fast.bound, slow.keys, slow.bound)
			}
		}
		slices.Sort(all)
		all = all[:min(len(all), capacity)]
		got := slices.Clone(slow.keys)
		for i := range got {
			got[i] &^= expandedBit
		}
		if !slices.Equal(got, all) {
			t.Fatalf("seed %d: pool %x, want %x", seed, got, all)
		}
		for {
			k, ok := slow.peek()
			if !ok {
				break
			}
			if k&expandedBit != 0 {
				t.Fatalf("seed %d: slot %d is expanded and left to expand", seed, keySlot(k))
			}
			slow.expand()
		}
		for _, k := range slow.keys {
			if k&expandedBit == 0 {
				t.Fatalf("seed %d: slot %d never expanded", seed, keySlot(k))
			}
		}
	}
}

func TestKey(t *testing.T) {
	f := func(distance int32, slot uint32) {
		t.Helper()
		k := key(distance, slot)
		if keyDistance(k) != distance || keySlot(k) != slot || k&expandedBit != 0 {
			t.Errorf("key(%d, %d) = %x: distance %d, slot %d", distance, slot, k, keyDistance(k), keySlot(k))
		}
	}
	f(0, 0)
	f(-1, 1)
	f(math.MinInt32, keySlots-1)
	f(math.MaxInt32, keySlots-1)
	if !(key(-5, 9) < key(-4, 1) && key(-1, 3) < key(0, 2) && key(7, 1) < key(7, 2)) {
		t.Error("keys are not in the order of distance, then slot")
	}
}

// TestVisited compares the set, filled one by one and by rows of links, with a map.
func TestVisited(t *testing.T) {
	oneGoroutine(t)
	rng := rand.New(rand.NewPCG(43, 0))
	codes := make([]byte, 64)
	for _, f := range []fetcher{{}, {codes: codes, size: 64, lines: 1}, {codes: codes, size: 128, lines: 2}} {
		var v visited
		for _, limit := range []uint32{100, 1 << 21, 1, 1<<20 + 1, 64, 5000} {
			v.reset(limit)
			seen := map[uint32]bool{}
			for range 500 {
				slot := rng.Uint32N(limit)
				if v.add(slot) == seen[slot] {
					t.Fatalf("limit %d: add(%d) = %v", limit, slot, seen[slot])
				}
				seen[slot] = true
				row := make([]uint32, 1+rng.IntN(40))
				var want []uint32
				ended := false
				for i := range row {
					row[i] = rng.Uint32N(limit + limit/8 + 1)
					if i > 0 && rng.IntN(20) == 0 {
						row[i] = row[i-1] // a row that is changed meanwhile
					}
					if rng.IntN(60) == 0 {
						row[i] = none
					}
					ended = ended || row[i] == none
					if !ended && row[i] < limit && !seen[row[i]] {
						seen[row[i]] = true
						want = append(want, row[i])
					}
				}
				if got := v.addLinks(row, limit, f); !slices.Equal(got, want) {
					t.Fatalf("limit %d: addLinks(%d) = %d, want %d", limit, row, got, want)
				}
			}
		}
	}
}

// TestLevels checks that levels are spread as they should be and reach no higher than allowed.
func TestLevels(t *testing.T) {
	const n = 1 << 16
	w := newWorld(t, vectord.Dot, clustered(1, 4, 2), 0, Config{MaxLayers: 3})
	var counts [3]int
	for slot := range uint32(n) {
		counts[w.graph.level(slot)]++
	}
	for l, share := range []float64{15. / 16, 15. / 256, 1. / 256} {
		if got := float64(counts[l]) / n; math.Abs(got-share) > share/5 {
			t.Errorf("level %d: share %.5f, want about %.5f", l, got, share)
		}
	}
}

// TestMemory checks the promise of at most 176 bytes for a point besides its code.
func TestMemory(t *testing.T) {
	const n = 5000
	w := newWorld(t, vectord.Euclid, clustered(1, n, 8), n, Config{EfConstruction: 20})
	if each := float64(w.graph.MemoryBytes())/n - float64(w.graph.codec.RowSize()); each > 176 {
		t.Errorf("%.1f bytes for a point besides its code, want at most 176", each)
	}
}

func TestSearchAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes pools forget")
	}
	const n = 3000
	w := newWorld(t, vectord.Euclid, clustered(1, n, 16), n, Config{})
	w.delete(t, 7)
	filter := filterOf(n, func(slot uint32) bool { return slot%4 != 0 })
	few := filterOf(n, func(slot uint32) bool { return slot%20 == 0 })
	slots := w.graph.AppendLive(nil)
	var dst []index.Neighbor
	f := func(name string, search func(q []float32) []index.Neighbor) {
		t.Helper()
		i := 0
		run := func() {
			dst = search(w.vectors[i%n])
			i += 61
		}
		for range 50 {
			run()
		}
		if allocs := testing.AllocsPerRun(200, run); allocs != 0 {
			t.Errorf("%s: %g allocations", name, allocs)
		}
	}
	f("search", func(q []float32) []index.Neighbor { return w.graph.Search(dst[:0], q, Params{K: 10, Ef: 64}) })
	f("filter", func(q []float32) []index.Neighbor {
		return w.graph.Search(dst[:0], q, Params{K: 10, Ef: 64, Filter: filter})
	})
	f("few", func(q []float32) []index.Neighbor {
		return w.graph.Search(dst[:0], q, Params{K: 10, Ef: 64, Filter: few})
	})
	f("scan", func(q []float32) []index.Neighbor { return w.graph.Scan(dst[:0], q, 10, slots) })
}
