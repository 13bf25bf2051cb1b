package engine

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

// clockLog applies what is proposed at once, at the time of a clock that the test turns.
type clockLog struct {
	r    *replica
	mu   sync.Mutex // held while an entry is applied: shards are written at the same time
	last uint64
	now  int64 // the test's own
}

func (l *clockLog) Propose(_ context.Context, group uint32, command []byte) (vectord.Result, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	return l.r.apply(vectord.Entry{Group: group, Index: l.last, Time: l.now, Command: command})[0], nil
}

// clockBench is an engine with a clock that the test turns.
type clockBench struct {
	*replica
	log *clockLog
}

func newClockBench(t *testing.T) *clockBench {
	b := &clockBench{replica: newReplica(t)}
	b.log = &clockLog{r: b.replica, now: 1000}
	b.start()
	return b
}

// start has the engine use the clock. Its own goroutines are not started: the test sweeps.
func (b *clockBench) start() {
	b.db.log = b.log
	b.db.now = func() int64 { return b.log.now }
}

func (b *clockBench) write(ops ...vectord.Operation) error {
	_, err := b.db.Write(b.t.Context(), "c", ops, vectord.WriteOptions{})
	return err
}

func (b *clockBench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// sees fails unless every way to read the collection finds just the points with the given ids.
func (b *clockBench) sees(ids ...uint64) {
	b.t.Helper()
	ctx := b.t.Context()
	want := map[vectord.PointID]bool{}
	for _, id := range ids {
		want[vectord.NumberID(id)] = true
	}
	check := func(what string, got []vectord.PointID, err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatalf("%s: %v", what, err)
		}
		for _, id := range got {
			if !want[id] {
				b.t.Errorf("%s at %d finds %s, which has expired", what, b.log.now, id)
			}
		}
		if len(got) != len(ids) {
			b.t.Errorf("%s at %d finds %d points, want %d", what, b.log.now, len(got), len(ids))
		}
	}
	filter, err := vectord.ParseFilter([]byte(`{"must":[{"key":"kind","match":{"value":"x"}}]}`))
	b.must(err)
	for _, f := range []*vectord.Filter{nil, filter} {
		page, err := b.db.Scroll(ctx, "c", vectord.ScrollRequest{Limit: vectord.MaxLimit, Filter: f})
		check("scroll", idsOf(page.Points), err)
		if n, err := b.db.Count(ctx, "c", f); err != nil || n != len(ids) {
			b.t.Errorf("count at %d: %d (%v), want %d", b.log.now, n, err, len(ids))
		}
		for _, exact := range []bool{false, true} {
			q := vectord.Query{Nearest: vectord.Near([]float32{1, 1}), Limit: max(1, len(ids)+5), Filter: f, Params: vectord.SearchParams{Exact: exact}}
			hits, err := b.db.Search(ctx, "c", q)
			var found []vectord.PointID
			for _, h := range hits {
				found = append(found, h.ID)
			}
			check(fmt.Sprintf("search (exact %v, filter %v)", exact, f != nil), found, err)
		}
	}
	var all []vectord.PointID
	for id := range uint64(1000) {
		all = append(all, vectord.NumberID(id))
	}
	records, err := b.db.Retrieve(ctx, "c", all, vectord.Selection{})
	check("retrieve", idsOf(records), err)
	info, err := b.db.CollectionInfo("c")
	if err != nil || info.Points != len(ids) {
		b.t.Errorf("the collection says %d points, want %d (%v)", info.Points, len(ids), err)
	}
}

func idsOf(records []vectord.Record) (ids []vectord.PointID) {
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

func expiringPoint(id uint64, at int64) vectord.Point {
	return vectord.Point{ID: vectord.NumberID(id), Vectors: vectord.Unnamed([]float32{float32(id%7) + 1, 1}), Payload: []byte(`{"kind":"x"}`), Expires: at}
}

func upsertOf(points ...vectord.Point) vectord.Operation {
	return vectord.Operation{Kind: vectord.OpUpsert, Points: points}
}

// TestExpiry checks that a point is there until it expires, and from then on for nobody, whether it was swept or not, also
// after a restart; and that one that was written again stays.
func TestExpiry(t *testing.T) {
	b := newClockBench(t)
	defer func() { b.close() }()
	b.must(b.db.CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(2, vectord.Dot)))
	b.must(b.write(upsertOf(expiringPoint(1, 0), expiringPoint(2, 2000), expiringPoint(3, 3000), expiringPoint(4, 2000))))
	b.sees(1, 2, 3, 4)
	b.log.now = 1999
	b.sees(1, 2, 3, 4)
	b.log.now = 2000
	b.sees(1, 3)

	// It is as if they were not there.
	set := vectord.Operation{Kind: vectord.OpSetPayload, IDs: []vectord.PointID{vectord.NumberID(2)}, Payload: []byte(`{"a":1}`)}
	if err := b.write(set); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("a payload for a point that has expired: %v", err)
	}
	if _, err := b.db.Search(t.Context(), "c", vectord.Query{Nearest: vectord.NearPoint(vectord.NumberID(2)), Limit: 1}); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("a query for what is near to a point that has expired: %v", err)
	}
	only := upsertOf(expiringPoint(2, 0))
	only.UpdateMode = vectord.WriteExists
	b.must(b.write(only))
	b.sees(1, 3)
	fresh := upsertOf(expiringPoint(4, 5000))
	fresh.UpdateMode = vectord.WriteNew
	b.must(b.write(fresh))
	b.sees(1, 3, 4)

	// A change of the payload leaves the time alone.
	set.IDs[0] = vectord.NumberID(3)
	b.must(b.write(set))
	b.replica.close()
	b.open()
	b.start()
	b.sees(1, 3, 4)

	// A sweep removes what has expired and nothing else, even where the point was written again after the sweep looked.
	col, err := b.db.catalog.resolve("c")
	b.must(err)
	late := expire{Collection: col.id, Shard: col.shards[0].id, IDs: []vectord.PointID{vectord.NumberID(1), vectord.NumberID(2), vectord.NumberID(4), vectord.NumberID(9)}}
	if _, err := b.log.Propose(t.Context(), col.shards[0].group, late.append(nil)); err != nil {
		t.Fatal(err)
	}
	b.sees(1, 3, 4)
	b.log.now = 3000
	b.sees(1, 4)
	b.must(b.db.sweepShard(t.Context(), col, col.shards[0]))
	b.sees(1, 4)
	if n := col.shards[0].points.Load(); n != 2 {
		t.Errorf("%d points are stored after the sweep, want 2", n)
	}
	if _, ok, err := b.store.Point(col.shards[0].id, vectord.NumberID(3)); ok || err != nil {
		t.Errorf("an expired point is stored after the sweep (%v)", err)
	}
	b.log.now = math.MaxInt64
	b.sees(1)
}

// TestExpiryIsSet checks that points expire when they were last told to, before and after a restart.
func TestExpiryIsSet(t *testing.T) {
	b := newClockBench(t)
	defer func() { b.close() }()
	b.must(b.db.CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(2, vectord.Dot)))
	b.must(b.write(upsertOf(expiringPoint(1, 0), expiringPoint(2, 2000), expiringPoint(3, 2000), expiringPoint(4, 2000))))
	at := func(expires int64, ids ...uint64) {
		op := vectord.Operation{Kind: vectord.OpSetExpiry, Expires: expires}
		for _, id := range ids {
			op.IDs = append(op.IDs, vectord.NumberID(id))
		}
		b.must(b.write(op))
	}
	at(3000, 1, 2)
	at(0, 3)
	b.log.now = 2000
	b.sees(1, 2, 3)
	b.replica.close()
	b.open()
	b.start()
	b.sees(1, 2, 3)
	b.log.now = 3000
	b.sees(3)
	if err := b.write(vectord.Operation{Kind: vectord.OpSetExpiry, IDs: []vectord.PointID{vectord.NumberID(1)}}); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("a point that has expired is told to stay: %v", err)
	}
	b.sees(3)
}

// TestManyExpire checks searches while more points than they can find and leave out wait for the sweep.
func TestManyExpire(t *testing.T) {
	b := newClockBench(t)
	defer b.close()
	config := vectord.DefaultCollectionConfig(2, vectord.Dot)
	config.Params.ShardNumber = 3
	b.must(b.db.CreateCollection(t.Context(), "c", config))
	var points []vectord.Point
	var kept []uint64
	for id := range uint64(1000) {
		at := int64(2000)
		if id%100 == 0 {
			at = 0
			kept = append(kept, id)
		}
		points = append(points, expiringPoint(id, at))
	}
	b.must(b.write(upsertOf(points...)))
	b.log.now = 2000
	b.sees(kept...)
	col, err := b.db.catalog.resolve("c")
	b.must(err)
	for _, s := range col.shards {
		b.must(b.db.sweepShard(t.Context(), col, s))
	}
	b.sees(kept...)
}

// TestExpiryIndex holds the order of expiring slots against a plain map.
func TestExpiryIndex(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	e, times := &expiry{}, map[uint32]int64{}
	for step := range 5000 {
		slot := rng.Uint32N(50)
		if rng.IntN(3) == 0 {
			e.remove(slot)
			delete(times, slot)
		} else {
			at := rng.Int64N(100)
			e.set(slot, at)
			if times[slot] = at; at == 0 {
				delete(times, slot)
			}
		}
		now := rng.Int64N(100)
		var want []uint32
		for slot, at := range times {
			if at <= now {
				want = append(want, slot)
			}
		}
		got := e.expired(now, math.MaxInt)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d, step %d: expired at %d are %v, want %v", seed, step, now, got, want)
		}
		if limited := e.expired(now, 3); len(limited) != min(3, len(want)) {
			t.Fatalf("seed %d: %d of %d, limited to 3", seed, len(limited), len(want))
		}
	}
}

func FuzzDecodeExpire(f *testing.F) {
	x := expire{Collection: 1, Shard: 2, IDs: []vectord.PointID{vectord.NumberID(3), vectord.UUIDID([16]byte{4})}}
	f.Add(x.append(nil)[2:])
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := decodeExpire(b)
		if err != nil {
			return
		}
		again, err := decodeExpire(x.append(nil)[2:])
		if err != nil || !slices.Equal(again.IDs, x.IDs) || again.Shard != x.Shard || again.Collection != x.Collection {
			t.Errorf("%+v became %+v (%v)", x, again, err)
		}
	})
}
