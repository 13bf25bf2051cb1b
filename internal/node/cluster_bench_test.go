package node

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/replication/group"
	"github.com/vectord/vectord/replication/logstore"
	"github.com/vectord/vectord/replication/transport"
)

// countState is a group.State that only counts: what remains is the log.
type countState struct{ n atomic.Int64 }

func (s *countState) LastApplied() (uint64, int64, error) { return 0, 0, nil }
func (s *countState) Checkpoint(dir string) error         { return os.MkdirAll(dir, 0o700) }
func (s *countState) Apply(entries []vectord.Entry) ([]vectord.Result, func() error, error) {
	s.n.Add(int64(len(entries)))
	results := make([]vectord.Result, len(entries))
	for i := range entries {
		results[i].Index = entries[i].Index
	}
	return results, func() error { return nil }, nil
}

// logGroup returns the group of the leader of n replicas in this process: TLS on loopback, logs on the disk.
func logGroup(b *testing.B, n int, kind logstore.Kind, operations int) *group.Group {
	b.Helper()
	quiet := slog.New(slog.DiscardHandler)
	fatal := func(err error) { b.Errorf("fatal: %v", err) }
	groups := make([]*group.Group, n)
	addresses := make([]string, n)
	for i := range groups {
		t, err := transport.Listen("127.0.0.1:0", transport.Options{Cluster: "bench", Security: transport.Security{Secret: testSecret}, Logger: quiet})
		if err != nil {
			b.Fatal(err)
		}
		dir := b.TempDir()
		store, err := logstore.Open(kind, filepath.Join(dir, "log"), logstore.Options{Logger: quiet, Fatal: fatal})
		if err != nil {
			b.Fatal(err)
		}
		logs, err := store.Group(groupID)
		if err != nil {
			b.Fatal(err)
		}
		stream, err := t.Group(groupID)
		if err != nil {
			b.Fatal(err)
		}
		addresses[i] = t.Addr().String()
		net := transport.NewRaftTransport(stream, group.RaftLogger(quiet))
		state := &countState{}
		o := group.Options{ID: fmt.Sprint(i), Address: addresses[i], Logs: logs, Transport: net, Peers: peers{t}, SnapshotDir: filepath.Join(dir, "snapshots"),
			SnapshotLogBytes: 1 << 40, BatchOperations: operations, Logger: quiet, Fatal: fatal}
		if i == 0 {
			if err := group.Bootstrap(state, o); err != nil {
				b.Fatal(err)
			}
		}
		g, err := group.Open(state, o)
		if err != nil {
			b.Fatal(err)
		}
		for _, m := range []byte{group.MethodPropose, group.MethodTerm, group.MethodReadIndex, group.MethodApplied} {
			t.Handle(m, func(ctx context.Context, _ string, body []byte) ([]byte, error) { return g.HandleCall(ctx, m, body) })
		}
		t.Start()
		groups[i] = g
		b.Cleanup(func() {
			if err := g.Close(); err != nil {
				b.Error(err)
			}
			_, _, _ = net.Close(), t.Close(), store.Close()
		})
	}
	eventuallyB(b, func() bool { return groups[0].Status().Leading })
	for i := 1; i < n; i++ {
		if err := groups[0].Add(fmt.Sprint(i), addresses[i]); err != nil {
			b.Fatal(err)
		}
	}
	eventuallyB(b, func() bool {
		members, err := groups[0].Members()
		return err == nil && len(members) == n && !slices.ContainsFunc(members, func(m group.Member) bool { return !m.Voter })
	})
	return groups[0]
}

func eventuallyB(b *testing.B, holds func() bool) {
	b.Helper()
	for deadline := time.Now().Add(clusterPatience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatal("not in time")
		}
	}
}

func cpuSeconds(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Sec+u.Stime.Sec) + float64(u.Utime.Usec+u.Stime.Usec)/1e6
}

// BenchmarkReplicatedLog is the log by itself, of 200-byte commands: replicas × store × operations in an entry × clients.
func BenchmarkReplicatedLog(b *testing.B) {
	for _, run := range []struct {
		replicas, operations, clients int
		store                         logstore.Kind
	}{
		{3, 0, 1, logstore.Pebble}, {3, 0, 100, logstore.Pebble}, {3, 1, 100, logstore.Pebble}, {3, 0, 2000, logstore.Pebble},
		{3, 1, 2000, logstore.Pebble}, {5, 0, 2000, logstore.Pebble},
		{3, 0, 1, logstore.Bolt}, {3, 0, 100, logstore.Bolt}, {3, 1, 100, logstore.Bolt}, {3, 0, 2000, logstore.Bolt},
	} {
		entries := "coalesced"
		if run.operations == 1 {
			entries = "single"
		}
		b.Run(fmt.Sprintf("replicas=%d/%s/%s/clients=%d", run.replicas, run.store, entries, run.clients), func(b *testing.B) {
			g := logGroup(b, run.replicas, run.store, run.operations)
			command := make([]byte, 200)
			var left atomic.Int64
			left.Store(int64(b.N))
			took := make([][]time.Duration, run.clients)
			cpu := cpuSeconds(b)
			b.ResetTimer()
			var clients sync.WaitGroup
			for c := range run.clients {
				clients.Go(func() {
					for left.Add(-1) >= 0 {
						begin := time.Now()
						if _, err := g.Propose(context.Background(), 1, command); err != nil {
							b.Error(err)
							return
						}
						took[c] = append(took[c], time.Since(begin))
					}
				})
			}
			clients.Wait()
			b.StopTimer()
			all := slices.Concat(took...)
			slices.Sort(all)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
			b.ReportMetric((cpuSeconds(b)-cpu)*1e6/float64(b.N), "cpu-us/op")
		})
	}
}
