package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vectord/vectord"
)

// disk is an Applier that keeps the batches it was given. Tests choose how long applying and syncing take, and what
// fails.
type disk struct {
	applyTime, syncTime time.Duration
	applyErr            func(batch int) error
	syncErr             func(batch int) error
	onApply             func() // called at the start of Apply, if not nil

	mu      sync.Mutex // guards what follows
	batches [][]vectord.Entry
	durable int // batches that are durable
	flying  int // batches applied and not durable
	maxFly  int
}

func (d *disk) Apply(entries []vectord.Entry) ([]vectord.Result, func() error, error) {
	if d.onApply != nil {
		d.onApply()
	}
	time.Sleep(d.applyTime)
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.batches)
	if d.applyErr != nil {
		if err := d.applyErr(n); err != nil {
			return nil, nil, err
		}
	}
	batch := slices.Clone(entries)
	results := make([]vectord.Result, len(entries))
	for i, e := range entries {
		batch[i].Command = slices.Clone(e.Command)
		results[i] = vectord.Result{Index: e.Index, Value: string(e.Command)}
		if strings.HasPrefix(string(e.Command), "refuse") {
			results[i].Err = vectord.Errorf(vectord.KindInvalid, "refused")
		}
	}
	d.batches = append(d.batches, batch)
	d.flying++
	d.maxFly = max(d.maxFly, d.flying)
	return results, func() error { return d.sync(n) }, nil
}

func (d *disk) sync(n int) error {
	time.Sleep(d.syncTime)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.durable != n {
		panic(fmt.Sprintf("durable of batch %d called when %d were durable", n, d.durable))
	}
	if d.syncErr != nil {
		if err := d.syncErr(n); err != nil {
			return err
		}
	}
	d.durable++
	d.flying--
	return nil
}

// sizes returns the number of entries of each batch.
func (d *disk) sizes() (sizes []int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, b := range d.batches {
		sizes = append(sizes, len(b))
	}
	return sizes
}

// durableIndex returns the index of the last durable entry.
func (d *disk) durableIndex() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.durable == 0 {
		return 0
	}
	return d.batches[d.durable-1][len(d.batches[d.durable-1])-1].Index
}

func closeLog(t *testing.T, l Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestProposeReturnsItsOwnResult(t *testing.T) {
	l := NewStandalone(&disk{}, 41, 0, StandaloneOptions{})
	defer closeLog(t, l)
	f := func(command string, index uint64, kind vectord.Kind) {
		t.Helper()
		r, err := l.Propose(t.Context(), 7, []byte(command))
		if err != nil || r.Index != index || r.Value != command {
			t.Fatalf("Propose(%q) = %v, %v; want index %d", command, r, err, index)
		}
		if (r.Err != nil) != (kind != 0) || r.Err != nil && vectord.KindOf(r.Err) != kind {
			t.Fatalf("Propose(%q): refusal %v, want kind %v", command, r.Err, kind)
		}
	}
	f("one", 42, 0)
	f("refuse this", 43, vectord.KindInvalid)
	f("", 44, 0)
}

// Indices are consecutive, times never fall, and each proposer's commands keep their order.
func TestOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	d := &disk{}
	var clock struct {
		sync.Mutex
		*rand.Rand
	}
	clock.Rand = rand.New(rand.NewPCG(seed, 1))
	l := NewStandalone(d, 10, 5_000, StandaloneOptions{BatchEntries: 7, Now: func() time.Time {
		clock.Lock()
		defer clock.Unlock()
		return time.UnixMilli(clock.Int64N(10_000)) // a clock that jumps to and fro
	}})
	const proposers, each = 8, 200
	var wg sync.WaitGroup
	for p := range proposers {
		wg.Go(func() {
			last := uint64(0)
			for i := range each {
				r, err := l.Propose(t.Context(), uint32(p), fmt.Appendf(nil, "%d", i))
				if err != nil || r.Index <= last || r.Value != fmt.Sprint(i) {
					t.Errorf("proposer %d, command %d: %v, %v after index %d", p, i, r, err, last)
					return
				}
				last = r.Index
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
	index, millis := uint64(10), int64(5_000)
	next := make([]int, proposers)
	for _, b := range d.batches {
		if len(b) > 7 {
			t.Errorf("batch of %d entries, want at most 7", len(b))
		}
		for _, e := range b {
			if index++; e.Index != index || e.Time < millis {
				t.Fatalf("entry %d at time %d after entry %d at time %d", e.Index, e.Time, index-1, millis)
			}
			if millis = e.Time; string(e.Command) != fmt.Sprint(next[e.Group]) {
				t.Fatalf("group %d: command %q, want %d", e.Group, e.Command, next[e.Group])
			}
			next[e.Group]++
		}
	}
	if index != 10+proposers*each {
		t.Errorf("last index %d, want %d", index, 10+proposers*each)
	}
}

// An idle log answers after one apply and one sync, and waits for nothing else.
func TestIdleLogAddsNoDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{applyTime: time.Millisecond, syncTime: 5 * time.Millisecond}
		l := NewStandalone(d, 0, 0, StandaloneOptions{})
		defer closeLog(t, l)
		for range 3 {
			start := time.Now()
			if _, err := l.Propose(t.Context(), 0, []byte("x")); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != 6*time.Millisecond {
				t.Errorf("took %v, want 6ms", took)
			}
		}
	})
}

// While the disk is busy proposals gather, up to the bounds of a batch, in order.
func TestCoalescing(t *testing.T) {
	f := func(name string, o StandaloneOptions, commands []int, want []int) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{syncTime: 10 * time.Millisecond}
				l := NewStandalone(d, 0, 0, o)
				var wg sync.WaitGroup
				for i, size := range commands {
					wg.Go(func() {
						r, err := l.Propose(t.Context(), 0, make([]byte, size))
						if err != nil || r.Index != uint64(i+1) {
							t.Errorf("command %d: %v, %v", i, r, err)
						}
					})
					synctest.Wait() // queued, in this order
				}
				wg.Wait()
				closeLog(t, l)
				if got := d.sizes(); !slices.Equal(got, want) {
					t.Errorf("batches of %v entries, want %v", got, want)
				}
				if most := o.withDefaults().InFlight; d.maxFly > most {
					t.Errorf("%d batches in flight, want at most %d", d.maxFly, most)
				}
			})
		})
	}
	f("two in flight, the rest together", StandaloneOptions{}, []int{1, 1, 1, 1, 1, 1}, []int{1, 1, 4})
	f("one in flight", StandaloneOptions{InFlight: 1}, []int{1, 1, 1, 1, 1, 1}, []int{1, 5})
	f("bound of entries", StandaloneOptions{InFlight: 1, BatchEntries: 2}, []int{1, 1, 1, 1, 1, 1}, []int{1, 2, 2, 1})
	f("bound of bytes", StandaloneOptions{InFlight: 1, BatchBytes: 100}, []int{1, 50, 50, 1, 99, 1}, []int{1, 2, 2, 1})
	f("a large one goes alone", StandaloneOptions{InFlight: 1, BatchBytes: 100}, []int{1, 1, 101, 5000, 1, 1},
		[]int{1, 1, 1, 1, 2})
	f("empty commands", StandaloneOptions{InFlight: 1}, []int{0, 0, 0}, []int{1, 2})
}

// The next batch is applied while the one before it is synced.
func TestPipelining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{applyTime: 10 * time.Millisecond, syncTime: 10 * time.Millisecond}
		l := NewStandalone(d, 0, 0, StandaloneOptions{BatchEntries: 1})
		start := time.Now()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := l.Propose(t.Context(), 0, []byte("x")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took != 110*time.Millisecond {
			t.Errorf("10 batches took %v, want 110ms", took)
		}
		closeLog(t, l)
	})
}

// Nothing is acknowledged before the disk has it.
func TestAcknowledgedMeansDurable(t *testing.T) {
	d := &disk{syncTime: 100 * time.Microsecond}
	l := NewStandalone(d, 0, 0, StandaloneOptions{InFlight: 3, BatchEntries: 5})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 100 {
				var index uint64
				var err error
				if i%10 == 9 {
					index, err = l.Barrier(t.Context())
				} else {
					var r vectord.Result
					r, err = l.Propose(t.Context(), 0, []byte("x"))
					index = r.Index
				}
				if durable := d.durableIndex(); err != nil || index > durable {
					t.Errorf("entry %d acknowledged when %d was durable: %v", index, durable, err)
					return
				}
			}
		})
	}
	wg.Wait()
	closeLog(t, l)
}

func TestBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{syncTime: 10 * time.Millisecond}
		l := NewStandalone(d, 5, 0, StandaloneOptions{})
		if index, err := l.Barrier(t.Context()); err != nil || index != 5 {
			t.Errorf("Barrier() = %d, %v before any entry, want 5", index, err)
		}
		var wg sync.WaitGroup
		for range 9 {
			wg.Go(func() {
				if _, err := l.Propose(t.Context(), 0, []byte("x")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if index, err := l.Barrier(t.Context()); err != nil || index != 14 || d.durableIndex() != 14 {
			t.Errorf("Barrier() = %d, %v with entry %d durable, want 14", index, err, d.durableIndex())
		}
		wg.Wait()
		closeLog(t, l)
		for _, size := range d.sizes() {
			if size == 0 {
				t.Error("the applier was called for a barrier")
			}
		}
	})
}

// A full queue refuses with a time to come back, and takes work again once there is room.
func TestQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewRegistry()
		d := &disk{syncTime: time.Hour}
		const command = 1000
		l := NewStandalone(d, 0, 0, StandaloneOptions{InFlight: 1, QueueBytes: 3 * (command + proposalBytes),
			Registerer: registry})
		var wg sync.WaitGroup
		for range 4 { // one in flight, three in the queue
			wg.Go(func() {
				if _, err := l.Propose(t.Context(), 0, make([]byte, command)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		_, err := l.Propose(t.Context(), 0, nil)
		var e *vectord.Error
		if !errors.As(err, &e) || e.Kind != vectord.KindOverloaded || e.RetryAfter <= 0 {
			t.Errorf("got %v, want an overload with a time to retry after", err)
		}
		if _, err := l.Propose(t.Context(), 0, make([]byte, 1<<20)); vectord.KindOf(err) != vectord.KindTooLarge {
			t.Errorf("a command larger than the queue: %v", err)
		}
		m := gather(t, registry)
		if m["vectord_log_queue_bytes"] != 3*(command+proposalBytes) || m["vectord_log_refused_total"] != 1 {
			t.Errorf("metrics are %v, want a full queue and one refusal", m)
		}
		wg.Wait()
		if _, err := l.Propose(t.Context(), 0, make([]byte, command)); err != nil {
			t.Errorf("after the queue had emptied: %v", err)
		}
		closeLog(t, l)
		m = gather(t, registry)
		if m["vectord_log_queue_bytes"] != 0 || m["vectord_log_batch_entries"] != 5 || m["vectord_log_commit_seconds"] != 3 {
			t.Errorf("metrics are %v, want 5 entries in 3 batches", m)
		}
	})
}

// gather returns the value of each counter and gauge, the sum of vectord_log_batch_entries and the count of
// vectord_log_commit_seconds.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, f := range families {
		m := f.GetMetric()[0]
		switch f.GetName() {
		case "vectord_log_batch_entries":
			values[f.GetName()] = m.GetHistogram().GetSampleSum()
		case "vectord_log_commit_seconds":
			values[f.GetName()] = float64(m.GetHistogram().GetSampleCount())
		default:
			values[f.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return values
}

// The end of a context ends the waiting and not the entry.
func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{syncTime: time.Second}
		l := NewStandalone(d, 0, 0, StandaloneOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := l.Propose(ctx, 0, []byte("x"))
		if vectord.KindOf(err) != vectord.KindTimeout || !strings.Contains(err.Error(), "unknown") {
			t.Errorf("got %v, want a timeout that says the outcome is unknown", err)
		}
		if took := time.Since(start); took != 100*time.Millisecond {
			t.Errorf("took %v, want 100ms", took)
		}
		_, err = l.Propose(ctx, 0, []byte("y"))
		if vectord.KindOf(err) != vectord.KindTimeout || !strings.Contains(err.Error(), "without effect") {
			t.Errorf("after the deadline: got %v, want a timeout without effect", err)
		}
		closeLog(t, l)
		if d.durableIndex() != 1 {
			t.Errorf("entry %d is durable, want 1: the first entry alone", d.durableIndex())
		}
	})
}

// Close refuses what comes and finishes what came.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{syncTime: time.Second}
		l := NewStandalone(d, 0, 0, StandaloneOptions{BatchEntries: 2})
		var wg sync.WaitGroup
		for range 9 {
			wg.Go(func() {
				if _, err := l.Propose(t.Context(), 0, []byte("x")); err != nil {
					t.Errorf("accepted before Close: %v", err)
				}
			})
		}
		synctest.Wait()
		for range 2 {
			wg.Go(func() { closeLog(t, l) })
		}
		synctest.Wait()
		if _, err := l.Propose(t.Context(), 0, []byte("x")); vectord.KindOf(err) != vectord.KindClosed {
			t.Errorf("after Close: got %v, want closed", err)
		}
		if _, err := l.Barrier(t.Context()); vectord.KindOf(err) != vectord.KindClosed {
			t.Errorf("Barrier after Close: got %v, want closed", err)
		}
		wg.Wait()
		if d.durableIndex() != 9 {
			t.Errorf("entry %d is durable after Close, want 9", d.durableIndex())
		}
	})
}

// The first error is reported once, reaches every waiter, and is the last thing that happens.
func TestFatal(t *testing.T) {
	failAt := func(n int) func(int) error {
		return func(batch int) error {
			if batch == n {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
	}
	f := func(name string, inFlight int, d *disk, acknowledged int) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex // guards fatal and good
				var fatal []error
				good := 0
				d.onApply = func() {
					mu.Lock()
					defer mu.Unlock()
					if len(fatal) > 0 {
						t.Error("Apply was called after the failure")
					}
				}
				l := NewStandalone(d, 0, 0, StandaloneOptions{BatchEntries: 1, InFlight: inFlight, Fatal: func(err error) {
					mu.Lock()
					fatal = append(fatal, err)
					mu.Unlock()
					time.Sleep(time.Minute) // the rest of the log does not stand still meanwhile
				}})
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						r, err := l.Propose(t.Context(), 0, []byte("x"))
						mu.Lock()
						defer mu.Unlock()
						switch {
						case err == nil && len(fatal) > 0:
							t.Errorf("entry %d acknowledged after the failure", r.Index)
						case err == nil:
							good++
						case !errors.Is(err, io.ErrUnexpectedEOF) || vectord.KindOf(err) != vectord.KindInternal:
							t.Errorf("waiter got %v", err)
						}
					})
				}
				wg.Wait()
				if good != acknowledged {
					t.Errorf("%d acknowledged, want %d", good, acknowledged)
				}
				if _, err := l.Propose(t.Context(), 0, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("proposal after the failure: %v", err)
				}
				closeLog(t, l)
				if len(fatal) != 1 || !errors.Is(fatal[0], io.ErrUnexpectedEOF) {
					t.Errorf("Fatal was called with %v", fatal)
				}
			})
		})
	}
	disk := func(applyTime, syncTime time.Duration, applyErr, syncErr func(int) error) *disk {
		return &disk{applyTime: applyTime, syncTime: syncTime, applyErr: applyErr, syncErr: syncErr}
	}
	const quick, slow = time.Millisecond, time.Second
	f("sync of the first batch", 2, disk(quick, slow, nil, failAt(0)), 0)
	f("sync of the third batch", 2, disk(quick, slow, nil, failAt(2)), 2)
	f("apply of the first batch", 2, disk(quick, slow, failAt(0), nil), 0)
	// The second batch is being synced when the third fails, and is not acknowledged any more.
	f("apply of the third batch", 2, disk(quick, slow, failAt(2), nil), 1)
	f("apply and sync", 2, disk(quick, slow, failAt(1), failAt(0)), 0)
	// The second batch is being applied when the first one's sync fails, and there is room for a third.
	f("sync while applying", 3, disk(slow, quick, nil, failAt(0)), 0)
}

// An applier that returns too few results has broken its contract, and nobody gets another's result.
func TestMissingResults(t *testing.T) {
	var fatal error
	l := NewStandalone(forgetful{}, 0, 0, StandaloneOptions{Fatal: func(err error) { fatal = err }})
	defer closeLog(t, l)
	if _, err := l.Propose(t.Context(), 0, nil); err == nil || fatal == nil {
		t.Errorf("got %v and fatal %v, want errors", err, fatal)
	}
}

// forgetful is an Applier that returns no results.
type forgetful struct{}

func (forgetful) Apply([]vectord.Entry) ([]vectord.Result, func() error, error) {
	return nil, func() error { return nil }, nil
}

func BenchmarkPropose(b *testing.B) {
	l := NewStandalone(instant{}, 0, 0, StandaloneOptions{})
	defer l.Close()
	command := make([]byte, 100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := l.Propose(b.Context(), 0, command); err != nil {
				b.Error(err)
			}
		}
	})
}

// instant is an Applier that costs nothing.
type instant struct{}

func (instant) Apply(entries []vectord.Entry) ([]vectord.Result, func() error, error) {
	return make([]vectord.Result, len(entries)), func() error { return nil }, nil
}

// TestClock checks that the log's clock goes on after the last entry, even where the machine's own clock is behind it.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ahead := time.Now().Add(time.Hour)
		for _, last := range []int64{0, ahead.UnixMilli()} {
			clock := Clock(last)
			first := clock()
			if first.UnixMilli() < last || last == 0 && !first.Equal(time.Now()) {
				t.Errorf("after %d comes %d", last, first.UnixMilli())
			}
			time.Sleep(90 * time.Second)
			if passed := clock().Sub(first); passed != 90*time.Second {
				t.Errorf("in 90 s pass %v", passed)
			}
		}
	})
}
