// Package logstore keeps the logs, terms and votes of a node's Raft groups.
//
// A Store holds all groups of a node; a Group is what hashicorp/raft takes as the LogStore and the StableStore of one of
// them. There are two kinds: Pebble, one database for all groups, in which appends that meet share one fsync, and Bolt,
// raft-boltdb with a file for each group. Both keep the same rows, and what is said here holds for both.
//
// Writing. What a method that writes returned nil for survives a power cut: entries, all of one StoreLogs or none, and
// the term and the vote. The entries of a group ascend; there may be a gap where a snapshot was installed, so a Group is
// deliberately no raft.MonotonicLogStore, for which hashicorp/raft throws the log away.
//
// Reading. Every row carries a checksum over its key and its content. One that does not fit is an ErrDamaged, never an
// entry.
//
// Failing. After a failed write or fsync the state of the disk is unknown: the kernel may drop the dirty pages and report
// success the next time. The first such error, of whatever group, therefore calls Options.Fatal, which ends the process,
// and every later call of every group returns the error.
package logstore

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/fsync"
)

// Kind says what keeps the rows.
type Kind string

// The kinds of stores. Their names are those of the folders within the store's directory.
const (
	Pebble Kind = "pebble"
	Bolt   Kind = "boltdb"
)

// ErrDamaged is returned where stored bytes are not what was written.
var ErrDamaged = errors.New("damaged")

// DefaultMemTableBytes is the default of Options.MemTableBytes.
const DefaultMemTableBytes = 16 << 20

// Options configure Open. The zero value works.
type Options struct {
	FS            vfs.FS       // of Pebble; nil: the operating system's, as always with Bolt
	MemTableBytes int64        // of Pebble: rows gathered in memory before they become a table; 0: DefaultMemTableBytes
	Logger        *slog.Logger // nil: slog.Default()
	// Fatal is called once, with the first error after which nothing can be promised: a failed write or fsync. It runs on
	// any goroutine and should not return; nil logs the error and exits with status 1.
	Fatal func(error)
}

// Store keeps the groups of one node. Its methods may be called from any goroutine, except that nothing of it or of its
// groups may be called after Close.
type Store struct {
	engine engine
	logger *slog.Logger
	fatal  func(error)
	failed atomic.Pointer[error] // the error that fatal was called with

	mu     sync.Mutex // guards groups; held before Group.mu
	groups map[uint32]*Group
}

// engine is where rows are.
type engine interface {
	// open returns the rows of a group, an empty set of them if there are none.
	open(group uint32) (table, error)
	// groups returns the groups that have rows, in ascending order.
	groups() ([]uint32, error)
	// drop removes the rows of a group, whose table is closed.
	drop(group uint32) error
	close() error
}

// table is the rows of one group: those of the log, by index, and values, by key. What changes it returns when the change
// is durable. A missing row is nil.
type table interface {
	bounds() (first, last uint64, err error) // of the log; 0, 0: it is empty
	entry(index uint64) ([]byte, error)
	putEntries(rows []row) error
	deleteEntries(first, last uint64) error // both inclusive
	value(key []byte) ([]byte, error)
	putValue(key, value []byte) error
	close() error
}

type row struct {
	index uint64
	value []byte
}

// Open opens the store of a kind in a directory, creating it if there is none. A store of the other kind there is an error
// of vectord.KindConflict: an empty store in its place would forget for whom the node has voted.
func Open(kind Kind, dir string, o Options) (*Store, error) {
	s := &Store{logger: o.Logger, fatal: o.Fatal, groups: make(map[uint32]*Group)}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if s.fatal == nil {
		s.fatal = func(err error) {
			s.logger.Error("stopping: the store of Raft logs can promise nothing after this error", "err", err)
			os.Exit(1)
		}
	}
	open, other := s.openPebble, Bolt
	switch kind {
	case Pebble:
	case Bolt:
		open, other, o.FS = s.openBolt, Pebble, nil
	default:
		return nil, vectord.Errorf(vectord.KindInvalid, "store of Raft logs: kind %q is neither %q nor %q", kind, Pebble, Bolt)
	}
	if o.FS == nil {
		o.FS = vfs.Default
	}
	o.FS = fsync.Watch(o.FS, s.fail)
	if _, err := o.FS.Stat(o.FS.PathJoin(dir, string(other))); err == nil {
		return nil, vectord.Errorf(vectord.KindConflict, "store of Raft logs in %q is of kind %q, not %q", dir, other, kind)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open store of Raft logs in %q: %w", dir, err)
	}
	path := o.FS.PathJoin(dir, string(kind))
	err := fsync.MakeDir(o.FS, path)
	if err == nil {
		s.engine, err = open(path, o)
	}
	if err != nil {
		return nil, fmt.Errorf("open store of Raft logs in %q: %w", dir, err)
	}
	return s, nil
}

// Group returns a group, the same one each time. It fails with ErrDamaged if the first or the last entry of its log cannot
// be read; then DeleteGroup is the way out, and the replica has to join anew.
func (s *Store) Group(id uint32) (*Group, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failure(); err != nil {
		return nil, err
	}
	if g := s.groups[id]; g != nil {
		return g, nil
	}
	rows, err := s.engine.open(id)
	if err != nil {
		return nil, fmt.Errorf("open Raft group %d: %w", id, err)
	}
	g := &Group{store: s, id: id, table: rows}
	if err := g.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open Raft group %d: %w", id, err), rows.close())
	}
	s.groups[id] = g
	return g, nil
}

// Groups returns the groups in which something is stored, in ascending order; with Bolt also those that were only opened.
func (s *Store) Groups() ([]uint32, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	ids, err := s.engine.groups()
	if err != nil {
		return nil, fmt.Errorf("list Raft groups: %w", err)
	}
	return ids, nil
}

// DeleteGroup removes all of a group: its log, term and vote. The Group that was handed out for it can store nothing any
// more; its Raft has to be shut down before.
func (s *Store) DeleteGroup(id uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	if g := s.groups[id]; g != nil {
		if err := g.close(); err != nil {
			return s.settle(err)
		}
		delete(s.groups, id)
	}
	return s.settle(s.engine.drop(id))
}

// Close releases the directory.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, g := range s.groups {
		errs = append(errs, g.close())
	}
	if err := errors.Join(append(errs, s.engine.close())...); err != nil {
		return fmt.Errorf("close store of Raft logs: %w", err)
	}
	return nil
}

// settle ends a write: whatever went wrong with it, or with another one meanwhile, is the end of the store.
func (s *Store) settle(err error) error {
	if err != nil {
		s.fail(err)
	}
	return s.failure()
}

// fail reports the first error after which nothing can be promised.
func (s *Store) fail(err error) {
	if s.failed.CompareAndSwap(nil, &err) {
		s.fatal(err)
	}
}

// failure returns the error given to fail, or nil. Only tests and an unwise Options.Fatal live to see one.
func (s *Store) failure() error {
	if err := s.failed.Load(); err != nil {
		return fmt.Errorf("store of Raft logs has failed: %w", *err)
	}
	return nil
}
