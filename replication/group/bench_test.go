package group

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/replication/logstore"
)

// countState is a State that costs nothing, and has no content.
type countState struct {
	fs          vfs.FS
	index, time atomic.Int64
}

func (s *countState) LastApplied() (uint64, int64, error) {
	return uint64(s.index.Load()), s.time.Load(), nil
}
func (s *countState) Apply(entries []vectord.Entry) ([]vectord.Result, func() error, error) {
	results := make([]vectord.Result, len(entries))
	for i, e := range entries {
		results[i].Index = e.Index
		s.index.Store(int64(e.Index))
		s.time.Store(e.Time)
	}
	return results, func() error { return nil }, nil
}
func (s *countState) Checkpoint(dir string) error { return s.fs.MkdirAll(dir, dirMode) }

// benchGroups opens three nodes in this process, with logs in memory or in Pebble on the disk that TMPDIR says.
func benchGroups(b *testing.B, logs string, o Options) []*Group {
	b.Helper()
	net := newNetwork(rand.New(rand.NewPCG(1, 1)))
	var groups []*Group
	for i := range 3 {
		id := fmt.Sprint("n", i)
		w := net.connect(id, true)
		o.ID, o.Address, o.Transport, o.Peers = id, id, w, w
		o.FS, o.SnapshotDir, o.Logger = vfs.NewMem(), "snapshots", slog.New(slog.DiscardHandler)
		o.Logs = newMemLogs()
		if logs == "pebble" {
			store, err := logstore.Open(logstore.Pebble, b.TempDir(), logstore.Options{Logger: o.Logger})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = store.Close() })
			if o.Logs, err = store.Group(0); err != nil {
				b.Fatal(err)
			}
		}
		state := &countState{fs: o.FS}
		if i == 0 {
			if err := Bootstrap(state, o); err != nil {
				b.Fatal(err)
			}
		}
		g, err := Open(state, o)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = g.Close() })
		w.group.Store(g)
		if i == 0 {
			for !g.Status().Leading {
				time.Sleep(time.Millisecond)
			}
		} else if err := groups[0].Add(id, id); err != nil {
			b.Fatal(err)
		}
		groups = append(groups, g)
	}
	for voters := 0; voters < 3; time.Sleep(time.Millisecond) {
		members, err := groups[0].Members()
		if err != nil {
			b.Fatal(err)
		}
		voters = 0
		for _, m := range members {
			voters += btoi(m.Voter)
		}
	}
	return groups
}

// BenchmarkPropose writes commands of 200 bytes from clients that each wait for one before the next, spread over three nodes in
// this process: with operations gathered into entries, and with an entry for each. cpu-us/op counts all three nodes.
func BenchmarkPropose(b *testing.B) {
	for _, logs := range []string{"memory", "pebble"} {
		for _, batch := range []struct {
			name string
			o    Options
		}{
			{"gathered", Options{}},
			{"one", Options{BatchOperations: 1}},
		} {
			b.Run(fmt.Sprintf("logs=%s/%s", logs, batch.name), func(b *testing.B) {
				groups := benchGroups(b, logs, batch.o)
				for _, clients := range []int{1, 100, 2000} {
					b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { benchmarkPropose(b, groups, clients) })
				}
			})
		}
	}
}

func benchmarkPropose(b *testing.B, groups []*Group, clients int) {
	command := make([]byte, 200)
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var work sync.WaitGroup
	cpu := cpuTime(b)
	start := time.Now()
	for client := range clients {
		work.Go(func() {
			g := groups[client%len(groups)]
			for {
				i := next.Add(1) - 1
				if i >= int64(b.N) {
					return
				}
				begun := time.Now()
				if _, err := g.Propose(context.Background(), 1, command); err != nil {
					b.Error(err)
					return
				}
				took[i] = time.Since(begun)
			}
		})
	}
	work.Wait()
	elapsed := time.Since(start)
	cpu = cpuTime(b) - cpu
	slices.SortFunc(took, cmp.Compare[time.Duration])
	b.ReportMetric(float64(b.N)/elapsed.Seconds(), "ops/s")
	b.ReportMetric(float64(took[b.N/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "p99-ms")
	b.ReportMetric(float64(cpu.Nanoseconds())/1000/float64(b.N), "cpu-us/op")
}

// cpuTime returns the processor time that this process has used.
func cpuTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
