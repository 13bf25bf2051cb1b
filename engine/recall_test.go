package engine

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
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

const (
	recallDim = 20
	recallM   = 6
)

// recallBench is a collection whose recall a test measures step by step, at times of the test's own.
type recallBench struct {
	*replica
	rng    *rand.Rand
	seed   uint64
	now    time.Time
	points map[vectord.PointID][]float32 // what the collection holds
}

// newRecallBench makes a collection with a graph of few links, so that it misses much, built by one thread, so that the
// same seed builds the same one.
func newRecallBench(t *testing.T) *recallBench {
	b := &recallBench{replica: newReplica(t), seed: rand.Uint64(), now: time.Unix(1_000_000, 0), points: map[vectord.PointID][]float32{}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", b.seed)
		}
		b.close()
	})
	b.rng = rand.New(rand.NewPCG(b.seed, 0))
	b.serve()
	config := vectord.DefaultCollectionConfig(recallDim, vectord.Euclid)
	config.HNSW.M, config.HNSW.EfConstruct = recallM, 20
	config.Optimizer.IndexingThreshold = 1
	if err := b.db.CreateCollection(context.Background(), "c", config); err != nil {
		t.Fatal(err)
	}
	return b
}

// serve lets the engine take writes, without the goroutines that Start begins.
func (b *recallBench) serve() {
	last, _, err := b.db.LastApplied()
	if err != nil {
		b.t.Fatal(err)
	}
	b.db.workers = newWorkerTokens(1)
	b.db.log = &logOf{b.replica, last}
	b.db.started.Store(true)
}

// hard returns a vector of a distribution in which everything is about as far from everything: graphs miss much.
func (b *recallBench) hard() []float32 {
	v := make([]float32, recallDim)
	for i := range v {
		v[i] = float32(b.rng.NormFloat64())
	}
	return v
}

// easy returns a vector of four dimensions, laid out in all: any graph finds its way.
func (b *recallBench) easy() []float32 {
	v := make([]float32, recallDim)
	for d := range 4 {
		x := 3*b.rng.Float32() - 1.5
		for i := range v {
			v[i] += x * float32(1-(i>>d&1)*2)
		}
	}
	return v
}

func (b *recallBench) upsert(first, n int, vector func() []float32) {
	b.t.Helper()
	for n > 0 {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for range min(n, 500) {
			p := vectord.Point{ID: vectord.NumberID(uint64(first)), Vectors: vectord.Unnamed(vector())}
			b.points[p.ID] = p.Vectors.Unnamed()
			op.Points = append(op.Points, p)
			first++
			n--
		}
		b.write(op)
	}
	b.settle()
}

func (b *recallBench) delete(first, n int) {
	op := vectord.Operation{Kind: vectord.OpDelete}
	for i := range n {
		op.IDs = append(op.IDs, vectord.NumberID(uint64(first+i)))
		delete(b.points, op.IDs[i])
	}
	b.write(op)
}

func (b *recallBench) write(op vectord.Operation) {
	b.t.Helper()
	if _, err := b.db.Write(context.Background(), "c", []vectord.Operation{op}, vectord.WriteOptions{}); err != nil {
		b.t.Fatal(err)
	}
}

// settle waits until all vectors are in the graph, whose background work ends then.
func (b *recallBench) settle() {
	x := b.vectors().dense
	for x.waiting() > 0 {
		x.wait.Wait()
		x.unlinkedAt = time.Time{} // it need not be patient
		x.kick()
		x.wait.Wait()
	}
}

func (b *recallBench) collection() *collection {
	b.t.Helper()
	c, err := b.db.catalog.resolve("c")
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *recallBench) shard() *shard { return b.collection().shards[0] }

func (b *recallBench) vectors() *shardVectors { return b.shard().vectorsOf(0) }

func (b *recallBench) ef() int { return b.collection().recallState(b.collection().specs[0]).Ef }

// ask sends n queries as a client would and returns the recall of their answers.
func (b *recallBench) ask(n, ef int, vector func() []float32) float64 {
	b.t.Helper()
	found := 0
	distance := index.DistanceFunc(vectord.Euclid)
	var top index.Top
	for range n {
		q := vectord.Query{Nearest: vectord.Near(vector()), Limit: recallK, Params: vectord.SearchParams{HNSWEf: ef}}
		top.Reset(recallK)
		for _, v := range b.points {
			top.Offer(index.Neighbor{Distance: distance(q.Nearest.Vector.Values, v)})
		}
		furthest := index.Score(vectord.Euclid, top.Worst().Distance)
		for _, h := range b.search(q) {
			if h.Score <= furthest {
				found++
			}
		}
	}
	return float64(found) / float64(n*recallK)
}

func (b *recallBench) search(q vectord.Query) []vectord.Hit {
	b.t.Helper()
	hits, err := b.db.Search(context.Background(), "c", q)
	if err != nil {
		b.t.Fatal(err)
	}
	return hits
}

// measure lets time pass and measures what is due. It returns the number of measurements.
func (b *recallBench) measure(after time.Duration) (passes int) {
	b.t.Helper()
	b.now = b.now.Add(after)
	for b.db.stepRecall(b.now) {
		if b.db.pass == nil {
			passes++
		}
	}
	if b.vectors().recall.last.failed {
		b.t.Fatal("a measurement failed")
	}
	return passes
}

func (b *recallBench) update(u vectord.CollectionUpdate) {
	b.t.Helper()
	if err := b.db.UpdateCollection(context.Background(), "c", u); err != nil {
		b.t.Fatal(err)
	}
}

// held fails unless searches that do not say an ef find the target, less what 300 queries may be off by chance.
func (b *recallBench) held(target float64, vector func() []float32) {
	b.t.Helper()
	if recall := b.ask(300, 0, vector); recall < target-0.02 {
		b.t.Errorf("recall %.4f with ef %d, the target is %v", recall, b.ef(), target)
	}
}

// TestRecallIsHeld checks that ef is raised where it is too low, and lowered where it is too much.
func TestRecallIsHeld(t *testing.T) {
	b := newRecallBench(t)
	b.upsert(0, 3000, b.hard)
	if recall := b.ask(100, 0, b.hard); b.ef() != vectord.UncalibratedEf || recall > 0.93 {
		t.Fatalf("recall %v with ef %d before anything was measured: the test needs harder data", recall, b.ef())
	}
	if n := b.measure(0); n != 1 || b.ef() <= vectord.UncalibratedEf {
		t.Errorf("ef %d after %d measurements", b.ef(), n)
	}
	b.held(0.95, b.hard)
	info, err := b.db.CollectionInfo("c")
	if r := info.Recall[""]; err != nil || r.Ef != b.ef() || r.Ratio == nil || *r.Ratio < 0.955 || r.Queries < recallQueriesMin {
		t.Errorf("the collection says %+v (%v)", r, err)
	}
	if recall := b.ask(100, 10, b.hard); recall > 0.9 {
		t.Errorf("recall %v with ef 10 asked for: the request's ef is not what counts", recall)
	}

	easy := newRecallBench(t)
	easy.upsert(0, 3000, easy.easy)
	easy.measure(0)
	if easy.ef() >= vectord.UncalibratedEf {
		t.Errorf("ef %d where %d was far more than needed", easy.ef(), vectord.UncalibratedEf)
	}
	easy.held(0.95, easy.easy)
}

// TestRecallFollowsTheSettings changes what the collection wants.
func TestRecallFollowsTheSettings(t *testing.T) {
	b := newRecallBench(t)
	b.upsert(0, 3000, b.hard)
	b.ask(recallSample, 0, b.hard)
	b.measure(0)
	first := b.ef()
	set := func(target float64) int {
		t.Helper()
		b.update(vectord.CollectionUpdate{HNSW: fmt.Appendf(nil, `{"recall_target":%v}`, target)})
		if n := b.measure(0); n != 1 {
			t.Errorf("%d measurements after the target became %v", n, target)
		}
		b.held(target, b.hard)
		return b.ef()
	}
	lowest, low, high := set(0.55), set(0.8), set(0.99)
	if !(lowest < low && low < first && first <= high) { // from some ef on a graph this small is scanned, which misses nothing
		t.Errorf("ef %d for 0.55, %d for 0.8, %d for 0.95, %d for 0.99", lowest, low, first, high)
	}
	fixed, none := 33, 0
	b.update(vectord.CollectionUpdate{HNSW: fmt.Appendf(nil, `{"ef_search":%d}`, fixed)})
	if b.ef() != fixed {
		t.Errorf("ef %d, the collection fixes %d", b.ef(), fixed)
	}
	if state := b.collection().recallState(b.collection().specs[0]); state.Ratio != nil {
		t.Errorf("a recall is shown that was measured with another ef: %+v", state)
	}
	b.measure(0)
	if state := b.collection().recallState(b.collection().specs[0]); state.Ef != fixed || state.Ratio == nil || *state.Ratio > 0.9 {
		t.Errorf("with a fixed ef: %+v", state)
	}
	b.update(vectord.CollectionUpdate{HNSW: fmt.Appendf(nil, `{"ef_search":%d}`, none)})
	if n := b.measure(0); n != 1 || b.ef() < high*efEnough/efTooMuch {
		t.Errorf("%d measurements and ef %d after the ef was let go, for 0.99 it was %d", n, b.ef(), high)
	}
}

// TestRecallFollowsTheData replaces the points bit by bit by others, and back.
func TestRecallFollowsTheData(t *testing.T) {
	const n = 3000
	b := newRecallBench(t)
	b.upsert(0, n, b.easy)
	b.measure(0)
	first := b.ef()
	drift := func(to func() []float32) {
		t.Helper()
		for i := range 4 {
			b.upsert(i*n/4, n/4, to)
			b.ask(150, 0, to)
			b.measure(time.Minute)
			b.held(0.95, to)
		}
	}
	drift(b.hard)
	top := b.ef()
	if top <= 2*first {
		t.Errorf("ef went from %d to %d as the points became hard to find", first, top)
	}
	drift(b.easy)
	b.ask(recallSample, 0, b.easy)
	b.measure(time.Minute) // they have stopped changing
	b.held(0.95, b.easy)
	if b.ef() >= top/2 {
		t.Errorf("ef went from %d to %d as the points became easy to find", top, b.ef())
	}
}

// TestRecallFollowsTheQueries checks that queries unlike the points are what counts once there are enough.
func TestRecallFollowsTheQueries(t *testing.T) {
	b := newRecallBench(t)
	b.upsert(0, 2500, b.easy)
	b.upsert(2500, 500, b.hard)
	b.measure(0)
	first := b.ef()
	b.ask(50, 0, b.hard)
	if n := b.measure(time.Hour); n != 0 {
		t.Errorf("%d measurements after 50 queries", n)
	}
	b.ask(400, 0, b.hard)
	if n := b.measure(time.Hour); n != 1 || b.ef() <= first {
		t.Errorf("%d measurements, ef %d and before %d", n, b.ef(), first)
	}
	b.held(0.95, b.hard)
}

// TestRecallDoesNotFlap measures again and again while nothing changes.
func TestRecallDoesNotFlap(t *testing.T) {
	b := newRecallBench(t)
	b.upsert(0, 3000, b.hard)
	b.measure(0)
	changes, ef := 0, b.ef()
	for range 12 {
		for range 300 {
			b.search(vectord.Query{Nearest: vectord.Near(b.hard()), Limit: recallK})
		}
		if n := b.measure(time.Minute); n != 1 {
			t.Fatalf("%d measurements of 300 new queries", n)
		}
		if b.ef() != ef {
			changes++
			ef = b.ef()
		}
	}
	if changes > 2 {
		t.Errorf("ef changed %d times in 12 measurements of the same", changes)
	}
	if b.measure(recallRestMin-1) != 0 {
		t.Error("measured again without new queries")
	}
}

// TestRecallIsMeasuredWhileItMatters checks when measurements are due at all.
func TestRecallIsMeasuredWhileItMatters(t *testing.T) {
	b := newRecallBench(t)
	none := 0
	b.update(vectord.CollectionUpdate{Optimizer: fmt.Appendf(nil, `{"indexing_threshold":%d}`, none)})
	op := vectord.Operation{Kind: vectord.OpUpsert}
	for i := range 2000 {
		op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed(b.hard())})
	}
	b.write(op)
	if n := b.measure(time.Hour); n != 0 {
		t.Errorf("%d measurements without a graph", n)
	}
	b.delete(recallVectorsMin-1, 2000)
	b.update(vectord.CollectionUpdate{Optimizer: []byte(`{"indexing_threshold":1}`)})
	b.settle()
	if n := b.measure(time.Hour); n != 0 {
		t.Errorf("%d measurements of %d points", n, b.shard().points.Load())
	}
	b.upsert(5000, 1, b.hard)
	if n := b.measure(0); n != 1 {
		t.Errorf("%d measurements of %d points", n, b.shard().points.Load())
	}
	b.upsert(6000, 400, b.hard)
	if n := b.measure(time.Hour); n != 0 {
		t.Errorf("%d measurements after 400 more points", n)
	}
	b.upsert(7000, 400, b.hard)
	if n := b.measure(0); n != 1 {
		t.Errorf("%d measurements after the points have nearly doubled", n)
	}
	b.delete(0, 800)
	if n := b.measure(0); n != 1 {
		t.Errorf("%d measurements after half of the points were deleted", n)
	}
}

// TestRecallOfMovingPoints changes points in the middle of a measurement. What searches cannot find any more is not
// missed, and what they find of the new is no mistake.
func TestRecallOfMovingPoints(t *testing.T) {
	b := newRecallBench(t)
	fixed := 3000 // finds everything
	b.update(vectord.CollectionUpdate{HNSW: fmt.Appendf(nil, `{"ef_search":%d}`, fixed)})
	b.upsert(0, 3000, b.hard)
	b.ask(400, 0, b.hard)
	step := func(until func(p *recallPass) bool) {
		t.Helper()
		for b.db.pass == nil || !until(b.db.pass) {
			if !b.db.stepRecall(b.now) {
				t.Fatal("the measurement ended early")
			}
		}
	}
	move := func(first int) {
		b.delete(first, 200)
		b.upsert(first+200, 200, b.hard)
		b.upsert(10_000+first, 200, b.hard)
	}
	step(func(p *recallPass) bool { return p.next > 300 })
	move(0)
	step(func(p *recallPass) bool { return p.scanned })
	move(1000)
	step(func(p *recallPass) bool { return p.at > 100 })
	move(2000)
	for b.db.pass != nil { // to its end, and not the one that is due then
		b.db.stepRecall(b.now)
	}
	if m := b.vectors().recall.measured.Load(); m == nil || m.ratio != 1 || m.queries < 200 {
		t.Errorf("searches that find everything were measured as %+v", m)
	}
}

// TestRecallOfADroppedCollection checks that nothing of it goes on or stays.
func TestRecallOfADroppedCollection(t *testing.T) {
	b := newRecallBench(t)
	b.upsert(0, 2000, b.hard)
	b.ask(150, 0, b.hard)
	b.measure(0)
	if b.db.sampled.Load() == 0 {
		t.Error("no query was kept")
	}
	b.update(vectord.CollectionUpdate{HNSW: []byte(`{"recall_target":0.9}`)})
	for range 3 {
		b.db.stepRecall(b.now)
	}
	pass := b.db.pass
	if pass == nil || pass.next == 0 {
		t.Fatal("no measurement is under way")
	}
	if _, err := b.db.DeleteCollection(context.Background(), "c"); err != nil {
		t.Fatal(err)
	}
	b.db.background.Wait()
	b.db.stepRecall(b.now)
	if b.db.pass != nil || b.db.stepRecall(b.now) {
		t.Error("a dropped collection is measured")
	}
	pass.vectors.recall.queries.offer(b.hard(), &b.db.sampled)
	if n := b.db.sampled.Load(); n != 0 {
		t.Errorf("%d bytes of queries are kept of a dropped collection", n)
	}
	if names, err := b.store.ListFiles(); err != nil || len(names) != 0 {
		t.Errorf("files %q are left (%v)", names, err)
	}
}

// TestRecallAfterAStart checks that the ef in force survives a restart, and that a damaged file is no harm.
func TestRecallAfterAStart(t *testing.T) {
	b := newRecallBench(t)
	b.upsert(0, 2000, b.hard)
	b.measure(0)
	ef := b.ef()
	restart := func() {
		b.close()
		b.open()
		b.serve()
	}
	restart()
	if b.ef() != ef || b.collection().recallState(b.collection().specs[0]).Ratio != nil {
		t.Errorf("after a restart %+v, before it was ef %d", b.collection().recallState(b.collection().specs[0]), ef)
	}
	if n := b.measure(0); n != 1 || b.collection().recallState(b.collection().specs[0]).Ratio == nil {
		t.Errorf("%d measurements after the restart", n)
	}
	set := storage.VectorSet{Shard: 1}
	for _, damage := range [][]byte{nil, []byte("vdrecal\x01"), bytes.Repeat([]byte{0xff}, recallFileSize),
		encodeEf(storage.VectorSet{Shard: 2}, 64), encodeEf(storage.VectorSet{Shard: 1, Number: 1}, 64), encodeEf(set, efMax+1)} {
		err := b.store.WriteFile(recallName(set), func(w io.Writer) error {
			_, err := w.Write(damage)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if restart(); b.ef() != vectord.UncalibratedEf {
			t.Errorf("ef %d from the file % x", b.ef(), damage)
		}
	}
}

// TestRecallMetrics checks the series of a collection, and that there are not more than recallSeriesMax of them.
func TestRecallMetrics(t *testing.T) {
	b := newRecallBench(t)
	b.upsert(0, 1500, b.hard)
	b.measure(0)
	for i := range recallSeriesMax + 10 {
		if err := b.db.CreateCollection(context.Background(), fmt.Sprint("few", i), vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
			t.Fatal(err)
		}
		upsertInto(t, b.db, fmt.Sprint("few", i))
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(recallCollector{b.db})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values, series := map[string]float64{}, map[string]int{}
	for _, f := range families {
		series[f.GetName()] = len(f.GetMetric())
		for _, m := range f.GetMetric() {
			if m.GetLabel()[0].GetValue() == "c" {
				values[f.GetName()] = m.GetGauge().GetValue()
			}
		}
	}
	state := b.collection().recallState(b.collection().specs[0])
	want := map[string]float64{"vectord_recall_ratio": *state.Ratio, "vectord_recall_target_ratio": 0.95, "vectord_search_ef": float64(state.Ef)}
	if fmt.Sprint(values) != fmt.Sprint(want) {
		t.Errorf("metrics %v, want %v", values, want)
	}
	if series["vectord_search_ef"] != recallSeriesMax || series["vectord_recall_ratio"] != 1 {
		t.Errorf("series %v", series)
	}
}

// upsertInto writes a point of two dimensions.
func upsertInto(t *testing.T, db *DB, name string) {
	t.Helper()
	point := vectord.Point{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 0})}
	if _, err := db.Write(context.Background(), name, []vectord.Operation{{Kind: vectord.OpUpsert, Points: []vectord.Point{point}}}, vectord.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestEfLadder(t *testing.T) {
	if efLadder[0] != efMin || efLadder[len(efLadder)-1] != efMax || !slices.IsSorted(efLadder) || len(slices.Compact(slices.Clone(efLadder))) != len(efLadder) {
		t.Errorf("ladder %v", efLadder)
	}
}

// TestSmallestEf checks the choice against a recall that is a function of ef.
func TestSmallestEf(t *testing.T) {
	f := func(target float64, recall func(ef int) float64, want int) {
		t.Helper()
		p := recallPass{config: vectord.HNSWConfig{RecallTarget: target}, tallies: map[int]*tally{}}
		for range len(efLadder) {
			ef, missing := p.needed()
			if missing == 0 {
				if ef != want {
					t.Errorf("ef %d, want %d", ef, want)
				}
				return
			}
			p.tallies[missing] = &tally{n: 1000, sum: 1000 * recall(missing), squares: 1000 * recall(missing) * recall(missing)}
		}
		t.Error("no choice")
	}
	step := func(at int, below, above float64) func(int) float64 {
		return func(ef int) float64 {
			if ef < at {
				return below
			}
			return above
		}
	}
	f(0.95, step(0, 0, 1), efMin)
	f(0.95, step(128, 0.9, 0.96), 128)
	f(0.95, step(100, 0.9, 0.96), 102)
	f(0.95, step(128, 0.954, 0.956), 128) // the margin
	f(0.999, step(256, 0.999, 0.9995), 256)
	f(0.95, step(efMax+1, 0.5, 1), efMin)   // out of reach, and more candidates do not help
	f(0.95, step(efMax, 0.5, 0.9), efMax)   // out of reach, and they do
	f(0.95, step(200, 0.93, 0.9305), efMin) // … by less than matters
	f(0.999, step(200, 0.99, 0.9985), 203)
}

// TestChoose checks when what a measurement has found is followed.
func TestChoose(t *testing.T) {
	f := func(what string, before int, recall float64, needed int, change func(p *recallPass), want int) {
		t.Helper()
		p := recallPass{config: vectord.HNSWConfig{RecallTarget: 0.95}, tallies: map[int]*tally{}}
		for _, ef := range efLadder {
			mean := 0.5
			if ef >= needed {
				mean = 0.99
			}
			p.tallies[ef] = &tally{n: 1000, sum: 1000 * mean, squares: 1000 * mean * mean}
		}
		p.tallies[before] = &tally{n: 1000, sum: 1000 * recall, squares: 1000 * recall * recall}
		if change != nil {
			change(&p)
		}
		if got := p.choose(before); got != want {
			t.Errorf("%s: ef %d, want %d", what, got, want)
		}
	}
	outdated := func(p *recallPass) { p.outdated = true }
	retarget := func(p *recallPass) { p.retarget = true }
	f("the first", 0, 0.9, 128, nil, 128)
	f("below the target", 102, 0.949, 128, nil, 128)
	f("hardly above it", 102, 0.951, 128, nil, 102)
	f("hardly above it, other points", 102, 0.951, 128, outdated, 128)
	f("above it, other points", 102, 0.9551, 128, outdated, 102)
	f("hardly above another target", 102, 0.951, 128, retarget, 128)
	f("somewhat too much", 102, 0.99, 72, nil, 102)
	f("far too much", 102, 0.99, 64, nil, 64)
	f("far too much, other points", 102, 0.99, 64, outdated, 102)
	f("somewhat too much for another target", 102, 0.99, 72, retarget, 72)
	f("fixed", 102, 0.5, 128, func(p *recallPass) { p.config.EfSearch = 33 }, 33)
}

// TestTally checks that a small or scattered sample must be better to be believed.
func TestTally(t *testing.T) {
	f := func(n int, missing float64, want bool) {
		t.Helper()
		var sample tally
		for i := range n {
			ratio := 1.0
			if i%10 == 0 {
				ratio -= 10 * missing
			}
			sample.add(ratio)
		}
		if got := sample.reaches(0.95); got != want {
			t.Errorf("%d queries with recall %v: %v", n, sample.mean(), got)
		}
	}
	f(10_000, 0.046, false)
	f(10_000, 0.044, true)
	f(100, 0.044, false)
	f(100, 0.02, true)
}

// TestQuerySample offers queries from several goroutines and checks the bounds, and that late ones have their chance.
func TestQuerySample(t *testing.T) {
	var s querySample
	var total atomic.Int64
	var wg sync.WaitGroup
	const each = 5000
	for g := range 4 {
		wg.Go(func() {
			for i := range each {
				v := []float32{float32(g), float32(i)}
				s.offer(v, &total)
				v[0] = -1 // the sample must have its own copy
			}
		})
	}
	wg.Wait()
	got := s.take(recallQueriesMin)
	if len(got) != recallSample || total.Load() != recallSample*8 {
		t.Errorf("%d queries, %d bytes", len(got), total.Load())
	}
	late := 0
	for _, v := range got {
		if v[0] < 0 {
			t.Fatal("the sample holds a caller's vector")
		}
		if v[1] >= each/2 {
			late++
		}
	}
	if late < recallSample/3 || late > recallSample*2/3 {
		t.Errorf("%d of %d queries are of the later half", late, recallSample)
	}
	for range 50 {
		s.offer([]float32{9, 9}, &total)
	}
	if s.fresh.Load() != 50 {
		t.Errorf("%d new queries", s.fresh.Load())
	}
	newer := 0
	for _, v := range s.take(recallQueriesMin) {
		if v[0] == 9 {
			newer++
		}
	}
	if newer != 50 {
		t.Errorf("%d of 50 new queries are in the sample", newer)
	}
	if s.take(recallSample+1) != nil {
		t.Error("a sample that is too small was taken")
	}
	full := samplesBytesMax - total.Load() - 4
	total.Add(full)
	var other querySample
	other.offer([]float32{1, 2}, &total)
	if other.take(1) != nil {
		t.Error("more bytes are kept than all samples may")
	}
	s.close(&total)
	if total.Load() != full {
		t.Errorf("%d bytes are left after the end", total.Load()-full)
	}
}

func FuzzDecodeEf(f *testing.F) {
	set := storage.VectorSet{Shard: 1, Number: 2}
	f.Add(encodeEf(set, 64))
	f.Add([]byte(recallMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		ef, err := decodeEf(b, set)
		if err == nil && !bytes.Equal(encodeEf(set, ef), b) {
			t.Errorf("% x reads as %d, which is written as % x", b, ef, encodeEf(set, ef))
		}
	})
}

// BenchmarkOffer is what every search does to be in the sample, perhaps.
func BenchmarkOffer(b *testing.B) {
	var s querySample
	var total atomic.Int64
	v := make([]float32, 100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			s.offer(v, &total)
		}
	})
}
