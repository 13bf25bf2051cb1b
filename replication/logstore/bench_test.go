package logstore

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"
)

// BenchmarkStoreLogs appends to 1, 8 and 32 groups at once, each of them serially, and truncates logs as replication does.
// An operation is one StoreLogs. TMPDIR says which disk it measures.
func BenchmarkStoreLogs(b *testing.B) {
	loads := []struct {
		name          string
		entries, size int
	}{
		{"1x200B", 1, 200},
		{"64x200B", 64, 200},
		{"1x100KiB", 1, 100 << 10},
	}
	for _, load := range loads {
		for _, groups := range []int{1, 8, 32} {
			for _, kind := range kinds {
				b.Run(fmt.Sprintf("%s/groups=%d/%s", load.name, groups, kind), func(b *testing.B) {
					benchmarkStoreLogs(b, kind, load.entries, load.size, groups)
				})
			}
		}
	}
}

func benchmarkStoreLogs(b *testing.B, kind Kind, entries, size, groups int) {
	const keepBytes = 64 << 20 // of all groups together
	s, err := Open(kind, b.TempDir(), Options{Logger: discard})
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}()
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	b.SetBytes(int64(entries * size))
	b.ReportAllocs()
	b.ResetTimer()
	var done atomic.Int64
	var wg sync.WaitGroup
	for id := range uint32(groups) {
		g, err := s.Group(id)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			logs := make([]*raft.Log, entries)
			for index := uint64(1); done.Add(1) <= int64(b.N); index += uint64(entries) {
				for i := range logs {
					logs[i] = &raft.Log{Index: index + uint64(i), Term: 1, Data: data}
				}
				if err := g.StoreLogs(logs); err != nil {
					b.Error(err)
					return
				}
				if g.Bytes() <= keepBytes/uint64(groups) {
					continue
				}
				first, _ := g.FirstIndex()
				if err := g.DeleteRange(first, (first+index)/2); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	if e, ok := s.engine.(pebbleEngine); ok {
		m := e.db.Metrics()
		tables := uint64(0)
		for _, level := range m.Levels {
			tables += level.TableBytesFlushed + level.TableBytesCompacted
		}
		b.ReportMetric(float64(tables)/float64(m.WAL.BytesWritten), "tables/wal")
	}
}
