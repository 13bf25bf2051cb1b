package hnsw

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// findable returns the share of the live nodes that a search for their own vector finds.
func (w *world) findable(ef int) float64 {
	live := w.graph.AppendLive(nil)
	found := 0
	for _, slot := range live {
		got := w.graph.Search(nil, w.vectors[slot], Params{K: 10, Ef: ef})
		if slices.ContainsFunc(got, func(n index.Neighbor) bool { return n.Slot == slot }) {
			found++
		}
	}
	return (float64(found) + 1e-9) / (float64(len(live)) + 1e-9)
}

func (w *world) unlink(t testing.TB) {
	t.Helper()
	deleted := w.graph.Deleted()
	freed, err := w.graph.Unlink(t.Context())
	if freed != deleted || err != nil {
		t.Fatalf("Unlink = %d, %v, want %d", freed, err, deleted)
	}
}

// reload replaces the graph by what Load makes of its checkpoint.
func (w *world) reload(t testing.TB) {
	t.Helper()
	var b bytes.Buffer
	if err := w.graph.Save(&b); err != nil {
		t.Fatal(err)
	}
	g, err := Load(&b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Close)
	if b.Len() != 0 {
		t.Fatalf("Load left %d bytes", b.Len())
	}
	g.costs.fixed = w.graph.costs.fixed
	w.graph.Close()
	w.graph = g
}

// TestHistory runs random histories against a set of slots.
func TestHistory(t *testing.T) {
	const steps, slots, dim = 50, 1500, 8
	histories := 4
	if raceEnabled {
		histories = 1 // for its other arena; the detector has nothing to find in one goroutine
	}
	for range histories {
		seed := rand.Uint64()
		rng := rand.New(rand.NewPCG(seed, 0))
		d := vectord.Cosine + vectord.Distance(rng.IntN(4))
		if d == vectord.Dot {
			d = vectord.Euclid // by Dot the nearest node need not be the node itself
		}
		w := newWorld(t, d, clustered(seed, slots, dim), 0, Config{M: 8, EfConstruction: 64})
		live, gone := map[uint32]bool{}, map[uint32]bool{}
		pick := func(set map[uint32]bool) uint32 {
			all := make([]uint32, 0, len(set))
			for slot := range set {
				all = append(all, slot)
			}
			slices.Sort(all)
			return all[rng.IntN(len(all))]
		}
		for step := range steps {
			switch rng.IntN(6) {
			case 0, 1:
				for range rng.IntN(300) {
					slot := uint32(rng.IntN(slots))
					switch err := w.graph.Insert(slot, w.vectors[slot]); {
					case live[slot] || gone[slot]:
						if vectord.KindOf(err) != vectord.KindExists {
							t.Fatalf("seed %d step %d: insert of occupied slot %d: %v", seed, step, slot, err)
						}
					case err != nil:
						t.Fatalf("seed %d step %d: %v", seed, step, err)
					default:
						live[slot] = true
					}
				}
			case 2:
				for n := rng.IntN(1 + len(live)); n > 0; n-- {
					slot := pick(live)
					if !w.graph.Delete(slot) || w.graph.Delete(slot) {
						t.Fatalf("seed %d step %d: delete of live slot %d", seed, step, slot)
					}
					delete(live, slot)
					gone[slot] = true
				}
			case 3:
				w.unlink(t)
				clear(gone)
			case 4:
				w.reload(t)
			case 5:
				q := w.vectors[rng.IntN(slots)]
				k := 1 + rng.IntN(50)
				got := w.graph.Search(nil, q, Params{K: k, Ef: rng.IntN(100)})
				if len(got) != min(k, len(live)) {
					t.Fatalf("seed %d step %d: %d of %d found, %d live", seed, step, len(got), k, len(live))
				}
				for i, n := range got {
					if !live[n.Slot] || slices.ContainsFunc(got[:i], func(m index.Neighbor) bool { return m.Slot == n.Slot }) {
						t.Fatalf("seed %d step %d: found slot %d: live %v, result %v", seed, step, n.Slot, live[n.Slot], got)
					}
				}
			}
			if w.graph.Len() != len(live) || w.graph.Deleted() != len(gone) {
				t.Fatalf("seed %d step %d: Len %d and Deleted %d, want %d and %d", seed, step, w.graph.Len(), w.graph.Deleted(), len(live), len(gone))
			}
			if err := w.graph.check(); err != nil {
				t.Fatalf("seed %d step %d: %v", seed, step, err)
			}
		}
		if got := w.graph.AppendLive(nil); len(got) != len(live) {
			t.Fatalf("seed %d: %d live slots, want %d", seed, len(got), len(live))
		}
		if share := w.findable(200); share < 0.995 {
			t.Errorf("seed %d: %.4f of the live nodes found", seed, share)
		}
	}
}

// TestChurn deletes and inserts a twentieth of the nodes ten times, and looks at what is left of the recall.
func TestChurn(t *testing.T) {
	oneGoroutine(t)
	const n, dim, k, ef = 10_000, 32, 10, 24 // a small ef shows what a large one hides
	vectors := clustered(11, n+200, dim)
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	before := w.codeRecall(vectors[n:], k, ef, nil)
	rng := rand.New(rand.NewPCG(11, 3))
	for range 10 {
		slots := rng.Perm(n)[:n/20]
		for _, slot := range slots {
			w.delete(t, uint32(slot))
		}
		w.unlink(t)
		verify(t, w.graph)
		for _, slot := range slots {
			// Another vector than before, of the same cluster.
			for j := range vectors[slot] {
				vectors[slot][j] += 0.1 * float32(rng.NormFloat64())
			}
			w.insert(t, uint32(slot))
		}
	}
	verify(t, w.graph)
	after := w.codeRecall(vectors[n:], k, ef, nil)
	t.Logf("recall %.4f before, %.4f after", before, after)
	if after < before-0.01 {
		t.Errorf("recall fell from %.4f to %.4f", before, after)
	}
	if share := w.findable(ef); share < 0.9995 {
		t.Errorf("%.4f of the nodes found", share)
	}
}

// TestMassDelete deletes most of a graph, by chance and by region, and inserts among the dead.
func TestMassDelete(t *testing.T) {
	oneGoroutine(t)
	const n, dim = 4000, 16
	f := func(name string, doomed func(w *world, slot uint32) bool) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, vectord.Euclid, clustered(13, n+500, dim), n, Config{})
			for slot := range uint32(n) {
				if doomed(w, slot) {
					w.delete(t, slot)
				}
			}
			if share := w.findable(64); share < 0.99 {
				t.Errorf("after the deletes: %.4f found", share)
			}
			for slot := range uint32(250) {
				w.insert(t, n+slot)
			}
			if share := w.findable(64); share < 0.99 {
				t.Errorf("after inserts among the dead: %.4f found", share)
			}
			w.unlink(t)
			verify(t, w.graph)
			for slot := range uint32(250) {
				w.insert(t, n+250+slot)
			}
			verify(t, w.graph)
			if share := w.findable(64); share < 0.99 {
				t.Errorf("after Unlink: %.4f found", share)
			}
		})
	}
	f("all", func(*world, uint32) bool { return true })
	f("all but one", func(_ *world, slot uint32) bool { return slot != 17 })
	f("most", func(_ *world, slot uint32) bool { return slot%50 != 0 })
	f("half space", func(w *world, slot uint32) bool { return w.vectors[slot][0] > 0 })
	f("none", func(*world, uint32) bool { return false })
}

// TestCopies checks that many copies of one vector do not cut themselves off from the rest.
func TestCopies(t *testing.T) {
	oneGoroutine(t)
	const copies, n, dim = 500, 2000, 16
	vectors := clustered(17, n, dim)
	for i := range copies {
		copy(vectors[i], vectors[0])
	}
	w := newWorld(t, vectord.Euclid, vectors, n, Config{})
	verify(t, w.graph)
	if r := w.recall(vectors[copies:copies+200], 1, 64, nil); r < 0.99 {
		t.Errorf("%.4f of the others found", r)
	}
	got := w.graph.Search(nil, vectors[0], Params{K: 300, Ef: 300})
	for _, neighbor := range got {
		if neighbor.Slot >= copies {
			t.Errorf("search for 300 of %d copies found slot %d", copies, neighbor.Slot)
			break
		}
	}
}

// TestConcurrent inserts, deletes, unlinks, saves and searches at once. The race detector, if it watches, checks the
// order of accesses; the test checks that no search returns a node that was deleted before it began.
func TestConcurrent(t *testing.T) {
	const dim, slots, inserters, rounds = 8, 384, 4, 2
	vectors := clustered(19, slots, dim)
	w := newWorld(t, vectord.Euclid, vectors, 0, Config{M: 6, EfConstruction: 32})
	g := w.graph
	var (
		mu       sync.RWMutex // held while a slot's entry in deleted changes; read-held from before a search until its check
		deleted  [slots]bool
		running  atomic.Int32
		changing sync.WaitGroup
		watching sync.WaitGroup
	)
	for i := range inserters {
		changing.Add(1)
		running.Add(1)
		go func() {
			defer changing.Done()
			defer running.Add(-1)
			rng := rand.New(rand.NewPCG(uint64(i), 5))
			for range rounds {
				for slot := uint32(i); slot < slots; slot += inserters {
					if g.Occupied(slot) {
						continue // deleted and waiting
					}
					mu.Lock()
					deleted[slot] = false
					mu.Unlock()
					if err := g.Insert(slot, vectors[slot]); err != nil {
						t.Error(err)
						return
					}
					if rng.IntN(3) == 0 {
						if !g.Delete(slot) {
							t.Errorf("slot %d not deleted", slot)
						}
						mu.Lock()
						deleted[slot] = true
						mu.Unlock()
					}
				}
			}
		}()
	}
	watch := func(f func(rng *rand.Rand)) {
		watching.Add(1)
		go func() {
			defer watching.Done()
			rng := rand.New(rand.NewPCG(23, 5))
			for running.Load() > 0 {
				f(rng)
			}
		}()
	}
	for range 3 {
		watch(func(rng *rand.Rand) {
			mu.RLock()
			defer mu.RUnlock()
			got := g.Search(nil, vectors[rng.IntN(slots)], Params{K: 10, Ef: 32})
			for _, neighbor := range got {
				if deleted[neighbor.Slot] {
					t.Errorf("found deleted slot %d", neighbor.Slot)
				}
			}
		})
	}
	watch(func(*rand.Rand) {
		if _, err := g.Unlink(t.Context()); err != nil {
			t.Error(err)
		}
	})
	watch(func(rng *rand.Rand) {
		var b bytes.Buffer
		if err := g.Save(&b); err != nil {
			t.Error(err)
		}
		loaded, err := Load(&b, Limits{})
		if err != nil {
			t.Error(err)
			return
		}
		loaded.Close()
		g.Scan(nil, vectors[0], 5, []uint32{0, 1, 2, uint32(rng.IntN(2 * slots))})
		g.MemoryBytes()
	})
	changing.Wait()
	watching.Wait()
	w.unlink(t)
	verify(t, g)
	if share := w.findable(64); share < 0.99 {
		t.Errorf("%.4f of the nodes found", share)
	}
}

// TestUnlinkGivesUp checks that an Unlink that is given up frees nothing and breaks nothing.
func TestUnlinkGivesUp(t *testing.T) {
	const n = 500
	w := newWorld(t, vectord.Euclid, clustered(29, n, 8), n, Config{})
	for slot := range uint32(100) {
		w.delete(t, slot)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reader := w.graph.epochs.enter(0) // a search that has not ended
	go cancel()
	if freed, err := w.graph.Unlink(ctx); freed != 0 || err != context.Canceled {
		t.Fatalf("Unlink beside a search = %d, %v, want 0, %v", freed, err, context.Canceled)
	}
	verify(t, w.graph)
	if err := w.graph.Insert(0, w.vectors[0]); vectord.KindOf(err) != vectord.KindExists {
		t.Fatalf("insert in a slot that was not freed: %v", err)
	}
	reader.exit()
	w.unlink(t)
	verify(t, w.graph)
	w.insert(t, 0)
}

// TestUnlinkWaits checks what makes it safe to use a slot again: that Unlink waits for the inserts that began before it, which
// may have chosen a victim, and then for the searches that began before the last link to a victim was gone.
func TestUnlinkWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, victim = 300, 5
		w := newWorld(t, vectord.Euclid, clustered(29, n+1, 8), n, Config{})
		g := w.graph
		done := make(chan struct{})

		// An insert of a copy of the victim that has chosen its links and not written them.
		copy(w.vectors[n], w.vectors[victim])
		a, err := g.lockWriter(n)
		if err != nil {
			t.Fatal(err)
		}
		a.states[n] = occupied
		g.codec.EncodeRow(a.code(n), w.vectors[n])
		g.high.Store(n + 1)
		insert := acquire()
		insert.begin(g)
		if insert.plan(n, 0); !slices.ContainsFunc(insert.chosen[0], func(k uint64) bool { return keySlot(k) == victim }) {
			t.Fatalf("copy of the victim does not link to it: %x", insert.chosen[0])
		}
		g.Delete(victim)
		go func() {
			defer close(done)
			if freed, err := g.Unlink(t.Context()); freed != 1 || err != nil {
				t.Errorf("Unlink = %d, %v", freed, err)
			}
		}()
		synctest.Wait() // for Unlink to wait for the insert
		insert.publish(n, 0)
		atomic.OrUint32(&a.states[n], linked)
		g.live.Add(1)
		search := g.epochs.enter(1) // it may walk into the victim, as some still link to it
		insert.release()
		g.writers.RUnlock()

		time.Sleep(time.Second) // of the bubble: Unlink goes on as far as it can
		if !g.Occupied(victim) {
			t.Error("slot free while a search may be looking at it")
		}
		search.exit()
		<-done
		if g.Occupied(victim) {
			t.Error("slot not free")
		}
		verify(t, g)
	})
}

// TestUnlinkAdopts checks that live nodes to which nobody links, or only they to each other, can be reached again.
func TestUnlinkAdopts(t *testing.T) {
	oneGoroutine(t)
	const n = 1000
	w := newWorld(t, vectord.Euclid, clustered(47, n, 8), n, Config{})
	a := w.graph.arena.Load()
	lost := []uint32{123, 500, 501, 502}
	island := lost[1:]
	for slot := range uint32(n) {
		links := appendLinks(nil, a.links(slot, 0))
		links = slices.DeleteFunc(links, func(link uint32) bool { return slices.Contains(lost, link) })
		if slices.Contains(island, slot) {
			links = island
		}
		setLinks(a.links(slot, 0), slices.DeleteFunc(slices.Clone(links), func(link uint32) bool { return link == slot }))
	}
	unreached := func() (slots []uint32) {
		var f flood
		f.spread(a, uint32(w.graph.entry.Load()), n)
		for _, slot := range w.graph.AppendLive(nil) {
			if !f.slots.Contains(slot) {
				slots = append(slots, slot)
			}
		}
		return slots
	}
	if got := unreached(); !slices.Equal(got, lost) {
		t.Fatalf("the test has cut off %d, expected %d", got, lost)
	}
	w.delete(t, 124)
	w.unlink(t)
	verify(t, w.graph)
	if got := unreached(); len(got) != 0 {
		t.Errorf("no walk reaches %d", got)
	}
}

// TestRelinkKeepsNew checks that relink does not lose a link to a node that was inserted since its searcher began.
func TestRelinkKeepsNew(t *testing.T) {
	const n, node = 300, 7
	w := newWorld(t, vectord.Euclid, clustered(53, n+1, 8), n, Config{})
	s := acquire()
	defer s.release()
	s.begin(w.graph)
	copy(w.vectors[n], w.vectors[node])
	w.insert(t, n)
	row := s.arena.links(node, 0)
	if !slices.Contains(row, n) {
		t.Fatalf("no link to the copy in %d", row)
	}
	w.delete(t, row[0])
	s.relink(node, 0)
	if !slices.Contains(row, n) {
		t.Errorf("link to the new node lost, left %d", row)
	}
}

// TestInsertAmongDead checks that an insert into a region of deleted nodes, larger than its walk, links to those that live.
func TestInsertAmongDead(t *testing.T) {
	oneGoroutine(t)
	const n, lone = 3000, 17
	w := newWorld(t, vectord.Euclid, clustered(59, n+1, 8), n, Config{EfConstruction: 10})
	for slot := range uint32(n) {
		if slot != lone {
			w.delete(t, slot)
		}
	}
	w.insert(t, n)
	if links := appendLinks(nil, w.graph.arena.Load().links(n, 0)); !slices.Equal(links, []uint32{lone}) {
		t.Errorf("links to %d, want %d", links, []uint32{lone})
	}
	w.unlink(t)
	verify(t, w.graph)
	if share := w.findable(10); share < 1 {
		t.Errorf("%.4f found", share)
	}
}

// TestEpochs checks that synchronize waits for the readers before it and for no others.
func TestEpochs(t *testing.T) {
	e := newEpochs()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	before := e.enter(1)
	if err := e.synchronize(ended); err != context.Canceled {
		t.Fatalf("with a reader: %v, want %v", err, context.Canceled)
	}
	if err := e.synchronize(ended); err != context.Canceled {
		t.Fatalf("with the same reader, an epoch later: %v, want %v", err, context.Canceled)
	}
	second := e.enter(2)
	before.exit()
	if err := e.synchronize(ended); err != context.Canceled {
		t.Fatalf("with a second reader: %v, want %v", err, context.Canceled)
	}
	done := make(chan error)
	go func() { done <- e.synchronize(t.Context()) }()
	third := e.enter(3) // before or after synchronize, so it may hold it up
	third.exit()
	second.exit()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := e.synchronize(ended); err != nil {
		t.Fatalf("without readers: %v", err)
	}
}
