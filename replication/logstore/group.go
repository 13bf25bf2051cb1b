package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	"github.com/vectord/vectord"
)

// StoreBytesMax bounds the entries of one StoreLogs.
const StoreBytesMax = 1 << 30

// errNotFound is Get's error for a key without a value. hashicorp/raft compares its text.
var errNotFound = errors.New("not found")

// Group is the log, term and vote of one Raft group: a raft.LogStore and a raft.StableStore. Its methods may be called from
// any goroutine. Those that read do not wait for those that write, and see what is durable.
type Group struct {
	store *Store
	id    uint32
	table table

	span atomic.Pointer[span] // what of the log is durable; changed under mu

	mu     sync.Mutex // held by whoever writes, over the fsync
	closed bool       // guarded by mu
}

// span is the extent of a log. The zero value is that of an empty one.
type span struct {
	first, last uint64 // indexes
	start, end  uint64 // of the rows in bytes, in the count that the rows keep
}

// FirstIndex returns the index of the first entry, 0 if there is none.
func (g *Group) FirstIndex() (uint64, error) { return g.span.Load().first, g.store.failure() }

// LastIndex returns the index of the last entry, 0 if there is none.
func (g *Group) LastIndex() (uint64, error) { return g.span.Load().last, g.store.failure() }

// Bytes returns the size of the rows of the log's entries: their data and extensions, and some 38 bytes each. It costs no
// reading.
func (g *Group) Bytes() uint64 {
	s := g.span.Load()
	return s.end - s.start
}

// GetLog reads the entry at index into log, which owns what it is given. The error is raft.ErrLogNotFound, itself, where
// there is no entry, and an ErrDamaged where there is no telling what it was.
func (g *Group) GetLog(index uint64, log *raft.Log) error {
	if err := g.store.failure(); err != nil {
		return err
	}
	if s := g.span.Load(); index < s.first || index > s.last || index == 0 {
		return raft.ErrLogNotFound
	}
	_, err := g.entry(index, log)
	return err
}

// entry reads the row at index into log and returns its span.
func (g *Group) entry(index uint64, log *raft.Log) (span, error) {
	row, err := g.table.entry(index)
	if err == nil && row == nil {
		return span{}, raft.ErrLogNotFound
	}
	var end uint64
	if err == nil {
		end, err = decodeEntry(entryKey(g.id, index), index, row, log)
	}
	if err != nil {
		return span{}, fmt.Errorf("entry %d of Raft group %d: %w", index, g.id, err)
	}
	return span{first: index, last: index, start: end - uint64(len(row)), end: end}, nil
}

// load finds out how far the log extends.
func (g *Group) load() error {
	var s span
	first, last, err := g.table.bounds()
	if err == nil && first != 0 {
		var log raft.Log
		var end span
		if s, err = g.entry(first, &log); err == nil {
			end, err = g.entry(last, &log)
		}
		if err == nil && end.end < s.end {
			err = fmt.Errorf("%w: entry %d ends at %d bytes, and entry %d at %d", ErrDamaged, first, s.end, last, end.end)
		}
		s.last, s.end = end.last, end.end
	}
	if err != nil {
		return err
	}
	g.span.Store(&s)
	return nil
}

// StoreLog is StoreLogs of one entry.
func (g *Group) StoreLog(log *raft.Log) error { return g.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries, all or none, and returns when they are durable. Their indexes ascend and are beyond the last
// one, else the error is of vectord.KindConflict; above StoreBytesMax it is of vectord.KindTooLarge. Neither changes
// anything.
func (g *Group) StoreLogs(logs []*raft.Log) error {
	return g.write(func() error {
		s := *g.span.Load()
		size := uint64(0)
		for _, log := range logs {
			if log.Index <= s.last {
				return vectord.Errorf(vectord.KindConflict, "Raft group %d: entry %d comes after entry %d", g.id, log.Index, s.last)
			}
			if s.first == 0 {
				s.first = log.Index
			}
			s.last = log.Index
			size += uint64(entrySize(log))
		}
		if size > StoreBytesMax {
			return vectord.Errorf(vectord.KindTooLarge, "Raft group %d: entries of %d bytes at once, the limit is %d",
				g.id, size, StoreBytesMax)
		}
		if len(logs) == 0 {
			return nil
		}
		rows := make([]row, len(logs))
		for i, log := range logs {
			s.end += uint64(entrySize(log))
			rows[i] = row{log.Index, encodeEntry(entryKey(g.id, log.Index), log, s.end)}
		}
		if err := g.store.settle(g.table.putEntries(rows)); err != nil {
			return err
		}
		g.span.Store(&s)
		return nil
	})
}

// DeleteRange removes the entries from first to last, both included, of which some may not exist. They have to be the
// beginning of the log, its end, or all of it: a hole is an error of vectord.KindInvalid.
func (g *Group) DeleteRange(first, last uint64) error {
	return g.write(func() error {
		s := *g.span.Load()
		switch {
		case s.first == 0 || first > last || last < s.first || first > s.last:
			return nil
		case first <= s.first && last >= s.last:
			s = span{}
		case first <= s.first:
			s.first = last + 1
		case last >= s.last:
			s.last = first - 1
		default:
			return vectord.Errorf(vectord.KindInvalid, "Raft group %d: removing entries %d to %d of %d to %d leaves a hole",
				g.id, first, last, s.first, s.last)
		}
		// Readers are not told of entries that are going. The size, and the end of the log if it is at a gap, follow.
		g.span.Store(&s)
		if err := g.store.settle(g.table.deleteEntries(first, last)); err != nil {
			return err
		}
		return g.load()
	})
}

// ResetLog removes all entries, readable or not. Term and vote stay.
func (g *Group) ResetLog() error {
	return g.write(func() error {
		g.span.Store(&span{})
		return g.store.settle(g.table.deleteEntries(0, lastIndex))
	})
}

// Set stores a value and returns when it is durable.
func (g *Group) Set(key, value []byte) error {
	return g.write(func() error {
		return g.store.settle(g.table.putValue(key, encodeValue(valueKey(g.id, key), value)))
	})
}

// Get returns a value. Where there is none, the text of the error is "not found", as hashicorp/raft expects.
func (g *Group) Get(key []byte) ([]byte, error) {
	err := g.store.failure()
	var row []byte
	if err == nil {
		row, err = g.table.value(key)
	}
	if err == nil && row == nil {
		return nil, errNotFound
	}
	var value []byte
	if err == nil {
		value, err = unseal(valueKey(g.id, key), row)
	}
	if err != nil {
		return nil, fmt.Errorf("value %q of Raft group %d: %w", key, g.id, err)
	}
	return value, nil
}

// SetUint64 stores a number and returns when it is durable.
func (g *Group) SetUint64(key []byte, value uint64) error {
	return g.Set(key, binary.LittleEndian.AppendUint64(nil, value))
}

// GetUint64 returns a number, 0 if there is none.
func (g *Group) GetUint64(key []byte) (uint64, error) {
	value, err := g.Get(key)
	switch {
	case errors.Is(err, errNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case len(value) != 8:
		return 0, fmt.Errorf("value %q of Raft group %d: %d bytes are no number", key, g.id, len(value))
	}
	return binary.LittleEndian.Uint64(value), nil
}

// write runs what changes the group, one at a time and only while it and the store are well.
func (g *Group) write(change func() error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.store.failure(); err != nil {
		return err
	}
	if g.closed {
		return vectord.Errorf(vectord.KindClosed, "Raft group %d was removed", g.id)
	}
	return change()
}

// close waits for whoever writes and lets nobody write any more.
func (g *Group) close() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.span.Store(&span{})
	return g.table.close()
}
