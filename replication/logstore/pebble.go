package logstore

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
)

// pebbleEngine keeps the rows of all groups in one database. Pebble commits batches that meet with one fsync.
type pebbleEngine struct{ db *pebble.DB }

func (s *Store) openPebble(path string, o Options) (engine, error) {
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	po := &pebble.Options{
		FS:                 o.FS,
		FormatMajorVersion: pebble.FormatValueSeparation,
		CacheSize:          cacheBytes,
		MemTableSize:       uint64(o.MemTableBytes),

		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       l0Compaction,
		L0StopWritesThreshold:       l0Stop,
		LBaseMaxBytes:               baseBytes,

		Logger: pebbleLogger{s},
		EventListener: &pebble.EventListener{
			// A failed flush or compaction is tried again and loses nothing.
			BackgroundError: func(err error) {
				s.logger.Error("background work of the store of Raft logs failed and will be tried again", "err", err)
			},
			// The read that found the damage returns an error; by default Pebble would end the process.
			DataCorruption: func(info pebble.DataCorruptionInfo) {
				s.logger.Error("a table of Raft logs is damaged", "path", info.Path, "err", info.Details)
			},
			DiskSlow: func(info pebble.DiskSlowInfo) {
				s.logger.Warn("the disk of the Raft logs is slow", "path", info.Path, "operation", info.OpType.String(),
					"duration", info.Duration)
			},
			WriteStallBegin: func(info pebble.WriteStallBeginInfo) {
				s.logger.Warn("Raft logs wait for the disk", "reason", info.Reason)
			},
		},
	}
	for i := range po.Levels {
		po.Levels[i].Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
	}
	db, err := pebble.Open(path, po)
	if err != nil {
		return nil, err
	}
	return pebbleEngine{db}, nil
}

// What the database is given: docs/decisions/raft-log-store.md has the figures.
const (
	cacheBytes   = 8 << 20   // old entries are read once, by a follower that is behind
	memTables    = 4         // full ones waiting for the disk before writes stall
	l0Compaction = 16        // sublevels before tables are merged: most entries are removed before
	l0Stop       = 64        // sublevels before writes stall
	baseBytes    = 512 << 20 // in the first sorted level before tables move on: more than most logs hold
)

// batchOverhead is more than a batch needs for a row besides its value.
const batchOverhead = 32

func (e pebbleEngine) open(group uint32) (table, error) { return pebbleTable{e.db, group}, nil }

func (e pebbleEngine) groups() (ids []uint32, err error) {
	it, err := e.db.NewIter(nil)
	if err != nil {
		return nil, err
	}
	for valid := it.First(); valid; {
		var id uint32
		if id, err = keyGroup(it.Key()); err != nil {
			break
		}
		ids = append(ids, id)
		if id == math.MaxUint32 {
			break
		}
		valid = it.SeekGE(appendKey(nil, id+1, 0))
	}
	return ids, errors.Join(err, it.Error(), it.Close())
}

func (e pebbleEngine) drop(group uint32) error {
	return e.db.DeleteRange(appendKey(nil, group, 0), appendKey(nil, group, math.MaxUint8), pebble.Sync)
}

func (e pebbleEngine) close() error { return e.db.Close() }

type pebbleTable struct {
	db    *pebble.DB
	group uint32
}

func (t pebbleTable) bounds() (first, last uint64, err error) {
	it, err := t.db.NewIter(&pebble.IterOptions{
		LowerBound: appendKey(nil, t.group, kindEntry),
		UpperBound: appendKey(nil, t.group, kindEntry+1),
	})
	if err != nil {
		return 0, 0, err
	}
	if it.First() {
		first, err = keyIndex(it.Key())
	}
	if err == nil && it.Last() {
		last, err = keyIndex(it.Key())
	}
	return first, last, errors.Join(err, it.Error(), it.Close())
}

func (t pebbleTable) entry(index uint64) ([]byte, error) { return t.get(entryKey(t.group, index)) }

func (t pebbleTable) putEntries(rows []row) error {
	size := 0
	for _, r := range rows {
		size += len(r.value) + batchOverhead
	}
	b := t.db.NewBatchWithSize(size)
	for _, r := range rows {
		if err := b.Set(entryKey(t.group, r.index), r.value, nil); err != nil {
			return errors.Join(err, b.Close())
		}
	}
	return errors.Join(b.Commit(pebble.Sync), b.Close())
}

func (t pebbleTable) deleteEntries(first, last uint64) error {
	after := append(entryKey(t.group, last), 0) // the end of a range is outside of it
	return t.db.DeleteRange(entryKey(t.group, first), after, pebble.Sync)
}

func (t pebbleTable) value(key []byte) ([]byte, error) { return t.get(valueKey(t.group, key)) }

func (t pebbleTable) putValue(key, value []byte) error {
	return t.db.Set(valueKey(t.group, key), value, pebble.Sync)
}

func (pebbleTable) close() error { return nil }

// get returns a copy of a row, nil if there is none.
func (t pebbleTable) get(key []byte) ([]byte, error) {
	row, done, err := t.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return slices.Clone(row), done.Close()
}

// pebbleLogger hands Pebble's messages on, and its fatal errors to the store.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(format string, args ...any) {
	l.s.logger.Debug("pebble of Raft logs", "text", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.logger.Error("pebble of Raft logs", "text", fmt.Sprintf(format, args...))
}

func (l pebbleLogger) Fatalf(format string, args ...any) { l.s.fail(fmt.Errorf(format, args...)) }
