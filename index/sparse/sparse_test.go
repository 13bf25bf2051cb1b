package sparse

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/vectord/vectord/index"
)

// oracle is the index as a plain map, which is searched by a plain loop.
type oracle map[uint32]Vector

func (o oracle) df(dim uint32) int {
	n := 0
	for _, v := range o {
		if _, ok := slices.BinarySearch(v.Indices, dim); ok {
			n++
		}
	}
	return n
}

func (o oracle) search(q Vector, p Params) []index.Neighbor {
	weights := slices.Clone(q.Values)

	var found []index.Neighbor
	for slot, v := range o {
		if p.Filter != nil && !p.Filter.Slots.Contains(slot) {
			continue
		}
		sum, overlaps := float32(0), false
		for i, dim := range q.Indices {
			if at, ok := slices.BinarySearch(v.Indices, dim); ok {
				sum += float32(weights[i] * v.Values[at])
				overlaps = true
			}
		}
		if overlaps {
			found = append(found, index.Neighbor{Slot: slot, Distance: 0 - sum})
		}
	}
	slices.SortFunc(found, index.Compare)
	return found[:min(len(found), max(p.K, 0))]
}

// randomVector returns up to terms dimensions below dims, the lower ones more often, with weights that are often the same.
func randomVector(r *rand.Rand, terms, dims int) Vector {
	weights := map[uint32]float32{}
	for range r.IntN(terms + 1) {
		dim := uint32(float64(dims) * math.Pow(r.Float64(), 3))
		if r.IntN(20) == 0 {
			dim = math.MaxUint32 - dim
		}
		switch r.IntN(4) {
		case 0:
			weights[dim] = float32(r.IntN(5) - 1)
		case 1:
			weights[dim] = -r.Float32()
		default:
			weights[dim] = float32(r.ExpFloat64())
		}
	}
	v := Vector{Indices: slices.Sorted(maps.Keys(weights))}
	for _, dim := range v.Indices {
		v.Values = append(v.Values, weights[dim])
	}
	return v
}

func randomParams(r *rand.Rand, slots uint32) Params {
	p := Params{K: r.IntN(12)}
	if r.IntN(10) == 0 {
		p.K = 1 << 20
	}
	if r.IntN(2) == 0 {
		p.Filter = &Filter{}
		share := math.Pow(r.Float64(), 4)
		for slot := range slots {
			if r.Float64() < share {
				p.Filter.Slots = p.Filter.Slots.Set(slot)
			}
		}
		p.Filter.Count = p.Filter.Slots.Count()
	}
	return p
}

// checkLists fails the test if a list breaks what list and block say of themselves.
func checkLists(t *testing.T, x *Index) {
	t.Helper()
	postings := 0
	for dim, l := range x.lists {
		n, next := 0, int64(-1)
		checkBlock := func(b block) {
			if len(b.postings) == 0 || len(b.postings) > postingsMax {
				t.Fatalf("dimension %d: a block of %d postings", dim, len(b.postings))
			}
			want := newBlock(b.postings)
			if b.last != want.last || b.min != want.min || b.max != want.max {
				t.Fatalf("dimension %d: block says %d %v %v, want %d %v %v", dim, b.last, b.min, b.max, want.last, want.min, want.max)
			}
			for _, p := range b.postings {
				if int64(p.slot) <= next {
					t.Fatalf("dimension %d: slot %d after %d", dim, p.slot, next)
				}
				next = int64(p.slot)
				n++
			}
		}
		for i, p := range l.pages {
			if len(p.blocks) == 0 || len(p.blocks) > blocksMax || p.last != p.blocks[len(p.blocks)-1].last {
				t.Fatalf("dimension %d: a page of %d blocks up to slot %d", dim, len(p.blocks), p.last)
			}
			for _, b := range p.blocks {
				checkBlock(b)
			}
			if i > 0 && len(p.blocks)+len(l.pages[i-1].blocks) <= blocksMerged {
				t.Fatalf("dimension %d: two pages of %d and %d blocks", dim, len(l.pages[i-1].blocks), len(p.blocks))
			}
		}
		if len(l.tail.postings) > 0 {
			checkBlock(l.tail)
		}
		if n != l.n || n == 0 {
			t.Fatalf("dimension %d: %d postings, the list says %d", dim, n, l.n)
		}
		postings += n
	}
	if postings != x.postings {
		t.Fatalf("%d postings, the index says %d", postings, x.postings)
	}
}

// TestHistories compares the index with the oracle during random changes. The densest list has several pages at times.
func TestHistories(t *testing.T) {
	for _, c := range []struct {
		slots       uint32
		terms, dims int
		changes     int
	}{
		{50, 6, 20, 3_000},
		{400, 10, 300, 8_000},
		{30_000, 6, 12, 60_000},
	} {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("slots=%d/seed=%d", c.slots, seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			x, o := New(), oracle{}
			growing, pages := true, 0
			for change := range c.changes {
				if r.IntN(c.changes/6) == 0 {
					growing = !growing
				}
				slot := uint32(r.IntN(int(c.slots)))
				if r.IntN(4) > 0 && growing {
					slot = uint32(len(o)) % c.slots // loading
				}
				if r.IntN(10) < 1 || !growing && r.IntN(10) < 7 {
					_, had := o[slot]
					delete(o, slot)
					if got := x.Remove(slot); got != had {
						t.Fatalf("Remove(%d) is %v, want %v", slot, got, had)
					}
				} else {
					v := randomVector(r, c.terms, c.dims)
					x.Add(slot, v)
					o[slot] = v
				}
				if change%(c.changes/40) == 0 {
					checkLists(t, x)
					for _, l := range x.lists {
						pages = max(pages, len(l.pages))
					}
					if x.Len() != len(o) {
						t.Fatalf("%d vectors, want %d", x.Len(), len(o))
					}
					for range 4 {
						q, p := randomVector(r, 8, c.dims), randomParams(r, c.slots)
						if got, want := x.Search(nil, q, p), o.search(q, p); !slices.Equal(got, want) {
							t.Fatalf("query %v k %d filter %v:\ngot  %v\nwant %v", q, p.K, p.Filter, got, want)
						}
						if dim := uint32(r.IntN(c.dims)); x.DF(dim) != o.df(dim) {
							t.Fatalf("DF(%d) is %d, want %d", dim, x.DF(dim), o.df(dim))
						}
					}
				}
			}
			if c.slots > 100*blocksMax && pages < 3 {
				t.Errorf("no list had more than %d pages", pages)
			}
			for slot := range o {
				x.Remove(slot)
			}
			if x.Len() != 0 || x.MemoryBytes() != 0 || len(x.lists) != 0 {
				t.Errorf("after all were removed: %d vectors, %d bytes, %d lists", x.Len(), x.MemoryBytes(), len(x.lists))
			}
		})
	}
}

func TestSearch(t *testing.T) {
	x := New()
	f := func(q Vector, p Params, want ...index.Neighbor) {
		t.Helper()
		if got := x.Search(nil, q, p); !slices.Equal(got, want) {
			t.Errorf("%v: got %v, want %v", q, got, want)
		}
	}
	one := Vector{[]uint32{7}, []float32{1}}
	f(one, Params{K: 3})
	x.Add(0, Vector{[]uint32{7, 9}, []float32{2, 1}})
	x.Add(5, Vector{[]uint32{7}, []float32{-2}})
	x.Add(math.MaxUint16, Vector{[]uint32{1, 7, math.MaxUint32}, []float32{1, 2, 3}})
	x.Add(6, Vector{})
	f(Vector{}, Params{K: 3})
	f(one, Params{K: 3}, index.Neighbor{Slot: 0, Distance: -2}, index.Neighbor{Slot: math.MaxUint16, Distance: -2}, index.Neighbor{Slot: 5, Distance: 2})
	f(one, Params{K: 1}, index.Neighbor{Slot: 0, Distance: -2})
	f(one, Params{K: 0})
	f(Vector{[]uint32{7}, []float32{0}}, Params{K: 1}, index.Neighbor{Slot: 0})
	f(Vector{[]uint32{2, math.MaxUint32}, []float32{1, 1}}, Params{K: 3}, index.Neighbor{Slot: math.MaxUint16, Distance: -3})
	f(one, Params{K: 3, Filter: &Filter{}})
	f(one, Params{K: 3, Filter: &Filter{Slots: index.Bitset(nil).Set(5), Count: 1}}, index.Neighbor{Slot: 5, Distance: 2})
	if x.Len() != 4 || x.DF(7) != 3 || x.DF(8) != 0 {
		t.Errorf("%d vectors, df %d and %d", x.Len(), x.DF(7), x.DF(8))
	}
	x.Add(0, one)
	f(one, Params{K: 1}, index.Neighbor{Slot: math.MaxUint16, Distance: -2})
	if x.Remove(1<<20) || x.Remove(3) || !x.Remove(6) || x.Remove(6) {
		t.Error("Remove reports what was not")
	}
}

// TestOverflow checks that scores beyond float32, and the NaN of their differences, are those of the plain loop.
func TestOverflow(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	x, o := New(), oracle{}
	for slot := range uint32(3 * windowSlots) {
		v := randomVector(r, 6, 10)
		for i := range v.Values {
			if r.IntN(3) == 0 {
				v.Values[i] = []float32{math.MaxFloat32, -math.MaxFloat32, 1e-40, 1e30}[r.IntN(4)]
			}
		}
		x.Add(slot, v)
		o[slot] = v
	}
	same := func(a, b index.Neighbor) bool {
		return a.Slot == b.Slot && (a.Distance == b.Distance || a.Distance != a.Distance && b.Distance != b.Distance)
	}
	for range 50 {
		q, p := randomVector(r, 6, 10), Params{K: 1 << r.IntN(14)}
		if got, want := x.Search(nil, q, p), o.search(q, p); !slices.EqualFunc(got, want, same) {
			t.Fatalf("seed %d, query %v k %d: got %v, want %v", seed, q, p.K, got, want)
		}
	}
}

// TestBounds has searches for the best of two vectors in windows of their own, of which the second is the best by what bounds
// could miss. A third is in the window of the second.
func TestBounds(t *testing.T) {
	f := func(what string, first, second float32, vectors ...Vector) {
		t.Helper()
		x := New()
		var q Vector
		for i, v := range vectors {
			x.Add(uint32(min(i, 1)*windowSlots+i/2), v)
		}
		for dim := range uint32(10) {
			q.Indices, q.Values = append(q.Indices, dim), append(q.Values, 1)
		}
		for i, score := range []float32{first, second} {
			one := &Filter{Slots: index.Bitset(nil).Set(uint32(i) * windowSlots), Count: 1}
			if got := x.Search(nil, q, Params{K: 1, Filter: one}); len(got) != 1 || got[0].Distance != -score {
				t.Errorf("%s: vector %d is found as %v, want score %v", what, i, got, score)
			}
		}
		if got := x.Search(nil, q, Params{K: 1}); len(got) != 1 || got[0].Slot != windowSlots {
			t.Errorf("%s: got %v", what, got)
		}
	}
	f("just above", 10, 10.05,
		Vector{[]uint32{0}, []float32{10}},
		Vector{[]uint32{1, 2}, []float32{5, 5.05}})
	f("rounded up three times", 1<<24+4, 1<<24+6,
		Vector{[]uint32{0}, []float32{1<<24 + 4}},
		Vector{[]uint32{1, 2, 3, 4}, []float32{1 << 24, 1.0000001, 1.0000001, 1.0000001}})
	f("overflow", 3e38, float32(math.Inf(1)),
		Vector{[]uint32{0}, []float32{3e38}},
		Vector{[]uint32{1, 2, 3}, []float32{2.9e38, 2.9e38, -3.3e38}},
		Vector{[]uint32{3, 4}, []float32{3.4e38, -3.4e38}}) // behind the second: the list of 3 can add much
}

// TestShrinking checks that what is left of a list is merged.
func TestShrinking(t *testing.T) {
	const slots = 30_000
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	x := New()
	for slot := range uint32(slots) {
		x.Add(slot, Vector{[]uint32{1}, []float32{1}})
	}
	for i, slot := range r.Perm(slots)[:slots-1] {
		x.Remove(uint32(slot))
		if i%500 != 0 && i < slots-500 {
			continue
		}
		checkLists(t, x)
		l := x.lists[1]
		blocks := 0
		for _, p := range l.pages {
			blocks += len(p.blocks)
		}
		// Neighbors in a page have more than postingsMerged together. Where two pages became one they may have less.
		if most := 2*l.n/postingsMerged + slots/postingsMax/blocksMax + len(l.pages) + 1; blocks > most {
			t.Fatalf("seed %d: %d blocks of %d postings, want at most %d", seed, blocks, l.n, most)
		}
	}

	var l list
	for slot := range uint32(3 * postingsMax) {
		l.insert(posting{slot, 1})
	}
	for i := range uint32(2*postingsMax - postingsMerged + 8) { // of the second block and of the first by turns
		l.remove(i/2 + postingsMax*(1-i%2))
		if blocks := l.pages[0].blocks; len(blocks) == 2 && len(blocks[0].postings)+len(blocks[1].postings) <= postingsMerged {
			t.Fatalf("blocks of %d and %d postings", len(blocks[0].postings), len(blocks[1].postings))
		}
	}
}

func TestBadVectors(t *testing.T) {
	f := func(v Vector) {
		t.Helper()
		defer func() {
			if recover() == nil {
				t.Errorf("%v did not panic", v)
			}
		}()
		New().Add(0, v)
	}
	f(Vector{Indices: []uint32{1}})
	f(Vector{[]uint32{2, 1}, []float32{1, 1}})
	f(Vector{[]uint32{1, 1}, []float32{1, 1}})
}

// TestSearchWhileChanging replaces and removes vectors while others search. Each vector has the same weight in all
// dimensions, and half of the slots are replaced but never empty: a search that sees part of a change finds a score that is no
// multiple of the number of dimensions, or misses a slot.
func TestSearchWhileChanging(t *testing.T) {
	const (
		slots   = 600
		dims    = 8
		changes = 6_000
		readers = 3
	)
	vector := func(weight int) Vector {
		var v Vector
		for i := range uint32(dims) {
			v.Indices, v.Values = append(v.Indices, i*i), append(v.Values, float32(weight))
		}
		return v
	}
	x := New()
	for slot := range uint32(slots) {
		x.Add(slot, vector(1))
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			q := vector(1)
			var found []index.Neighbor
			for {
				select {
				case <-done:
					return
				default:
				}
				found = x.Search(found[:0], q, Params{K: slots})
				always := 0
				for _, n := range found {
					if math.Mod(float64(n.Distance), dims) != 0 {
						t.Errorf("slot %d has distance %v", n.Slot, n.Distance)
						return
					}
					if n.Slot%2 == 0 {
						always++
					}
				}
				if always != slots/2 {
					t.Errorf("%d of %d slots", always, slots/2)
					return
				}
				x.Len()
				x.DF(1)
				x.MemoryBytes()
			}
		})
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range changes {
		slot := uint32(r.IntN(slots))
		if slot%2 == 1 && r.IntN(2) == 0 {
			x.Remove(slot)
		} else {
			x.Add(slot, vector(1+r.IntN(1000)))
		}
	}
	close(done)
	wg.Wait()
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

// TestSnapshotOfList checks that a copy of a list stays as it was whatever becomes of the list.
func TestSnapshotOfList(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	all := func(l list) (found []posting) {
		for c := (cursor{list: &l}); c.current() != nil; c.next() {
			found = append(found, c.current().postings...)
		}
		return found
	}
	var l list
	in := map[uint32]bool{}
	type snapshot struct {
		list list
		want []posting
	}
	var snapshots []snapshot
	for i := range 20_000 {
		slot := uint32(r.IntN(12_000))
		if r.IntN(2) == 0 {
			slot = uint32(i / 2)
		}
		if in[slot] {
			l.remove(slot)
		} else {
			l.insert(posting{slot, r.Float32()})
		}
		in[slot] = !in[slot]
		if r.IntN(400) == 0 {
			snapshots = append(snapshots, snapshot{l, all(l)})
		}
	}
	for i, s := range snapshots {
		if got := all(s.list); !slices.Equal(got, s.want) || len(got) != s.list.n {
			t.Fatalf("seed %d: snapshot %d has changed", seed, i)
		}
	}
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 255, 254, 253})
	f.Fuzz(func(t *testing.T, ops []byte) {
		next := func() (b byte) {
			if len(ops) > 0 {
				b, ops = ops[0], ops[1:]
			}
			return b
		}
		vector := func() (v Vector) {
			dim := uint32(0)
			for range next() % 6 {
				dim += 1 + uint32(next()%8)
				v.Indices, v.Values = append(v.Indices, dim), append(v.Values, float32(int8(next()))/3)
			}
			return v
		}
		x, o := New(), oracle{}
		for len(ops) > 0 {
			slot := uint32(next()) * 37
			switch next() % 4 {
			case 0:
				_, had := o[slot]
				delete(o, slot)
				if x.Remove(slot) != had {
					t.Fatalf("Remove(%d) is %v, want %v", slot, !had, had)
				}
			case 1:
				q, p := vector(), Params{K: int(next() % 8)}
				if b := next(); b%2 == 0 {
					p.Filter = &Filter{Slots: index.Bitset{}.Set(slot).Set(uint32(b) * 37)}
					p.Filter.Count = p.Filter.Slots.Count()
				}
				if got, want := x.Search(nil, q, p), o.search(q, p); !slices.Equal(got, want) {
					t.Fatalf("query %v: got %v, want %v", q, got, want)
				}
			default:
				v := vector()
				x.Add(slot, v)
				o[slot] = v
			}
		}
		checkLists(t, x)
	})
}
