package storage

import (
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// Metrics tells how the store is doing. Counters count from Open.
type Metrics struct {
	DiskBytes           uint64 // of tables and logs; derived files are not counted
	WALBytes            uint64 // of the write-ahead log, not yet in tables
	MemTableBytes       uint64
	L0Sublevels         int    // tables that a read may have to look into before the sorted levels
	CompactionDebtBytes uint64 // yet to be rewritten until the tables are in order
	CacheBytes          int64
	CacheHits           int64
	CacheMisses         int64
	WriteStalls         uint64 // times that writes had to wait for flushes or compactions
	WriteStallTime      time.Duration
	BackgroundErrors    uint64 // of flushes and compactions, which are tried again
}

// Metrics returns the current numbers.
func (s *Store) Metrics() Metrics {
	m := s.db.Metrics()
	stalls, stalled := s.stalls.read()
	return Metrics{
		DiskBytes:           m.DiskSpaceUsage(),
		WALBytes:            m.WAL.Size,
		MemTableBytes:       m.MemTable.Size,
		L0Sublevels:         int(m.Levels[0].Sublevels),
		CompactionDebtBytes: m.Compact.EstimatedDebt,
		CacheBytes:          m.BlockCache.Size,
		CacheHits:           m.BlockCache.Hits,
		CacheMisses:         m.BlockCache.Misses,
		WriteStalls:         stalls,
		WriteStallTime:      stalled,
		BackgroundErrors:    s.backgroundErrors.Load(),
	}
}

// stallClock adds up the time that writes were stalled.
type stallClock struct {
	mu    sync.Mutex // guards what follows
	count uint64
	total time.Duration
	since time.Time // zero while writes flow
}

func (c *stallClock) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	c.since = time.Now()
}

func (c *stallClock) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.total += time.Since(c.since)
	c.since = time.Time{}
}

func (c *stallClock) read() (count uint64, total time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	total = c.total
	if !c.since.IsZero() {
		total += time.Since(c.since)
	}
	return c.count, total
}

// events tells Pebble what we want to hear of.
func (s *Store) events() *pebble.EventListener {
	return &pebble.EventListener{
		// A failed flush or compaction is tried again and loses nothing: the log is kept until its data is in a table.
		BackgroundError: func(err error) {
			s.backgroundErrors.Add(1)
			s.logger.Error("background work of the database failed and will be tried again", "err", err)
		},
		// The read that found the damage returns an error, and the rest of the data goes on being served: by default
		// Pebble would end the process, again after each restart.
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			s.logger.Error("a table is damaged", "path", info.Path, "err", info.Details)
		},
		DiskSlow: func(info pebble.DiskSlowInfo) {
			s.logger.Warn("the disk is slow", "path", info.Path, "operation", info.OpType.String(),
				"duration", info.Duration)
		},
		WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
			s.stalls.begin()
			s.logger.Warn("writes wait for the disk", "reason", info.Reason)
		},
		WriteStallEnd: s.stalls.end,
	}
}

// pebbleLogger hands Pebble's messages on, and its fatal errors to the store.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.s.logger.Debug("pebble", "text", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.logger.Error("pebble", "text", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) { l.s.fail(fmt.Errorf(format, args...)) }
