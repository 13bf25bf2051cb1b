// Package storage keeps points, slots, vectors, sessions and the applied index in Pebble.
//
// One Store serves all shards and replication groups of a node. It knows nothing of indexes, filters or commands: it maps
// keys to checksummed values, commits batches of them atomically, and keeps derived files beside them. The bytes on disk
// are described in docs/FORMAT.md.
//
// Reading. Store, Snapshot and Batch embed a Reader: the latest state, a frozen one, and the latest with the batch's own
// writes on top. All reads of Store and Snapshot may run at the same time as one another and as a commit.
//
// Writing. A Batch belongs to one goroutine and is all or nothing. Commit makes it visible; the function that Commit
// returns waits until it survives a power cut, so that the next batch can be built meanwhile. Batches become durable in
// the order in which they were committed.
//
// Failing. A failed fsync leaves the state of the disk unknown: the kernel may drop the dirty pages and report success
// the next time. The first such error, of whatever file, therefore calls Options.Fatal, which ends the process, and
// nothing is acknowledged from then on. Every value carries a checksum; one that does not fit is an ErrDamaged that names
// the key, never an answer.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/vectord/vectord/internal/fsync"
)

// FS is the file system that a Store lives in. Tests put one in memory that can lose power; see package storagetest.
type FS = vfs.FS

// Errors that callers tell apart.
var (
	// ErrLocked is returned by Open while another process (or another Store of this one) has the directory open.
	ErrLocked = errors.New("in use by another process")
	// ErrDamaged is returned where stored bytes are not what was written.
	ErrDamaged = errors.New("damaged")
)

// Defaults of Options.
const (
	DefaultCacheBytes    = 64 << 20
	DefaultMemTableBytes = 64 << 20
)

// Options configure Open. Only Dir is required.
type Options struct {
	Dir           string
	FS            FS           // nil: the operating system's
	CacheBytes    int64        // uncompressed blocks kept in memory; 0: DefaultCacheBytes
	MemTableBytes int64        // writes gathered in memory before they become a table; 0: DefaultMemTableBytes
	ReadOnly      bool         // nothing but the lock file is written, and the directory must exist
	Logger        *slog.Logger // nil: slog.Default()
	// Fatal is called once, with the first error after which nothing can be promised: a failed fsync, a failed write of
	// the write-ahead log. It runs on any goroutine and should not return; nil logs the error and exits with status 1.
	Fatal func(error)
}

// Names within the data directory.
const (
	lockFile    = "LOCK"
	pebbleDir   = "pebble"
	indexDir    = "index"
	bloomBits   = 10      // a key; about 1 % of lookups of absent keys read a block all the same
	blockBytes  = 8 << 10 // small, as rescoring reads scattered vectors
	memTables   = 4       // full ones waiting for the disk before writes stall
	l0Sublevels = 20      // before writes stall
	// dropDelay bounds how long the space of a dropped shard waits for the next flush.
	dropDelay = 10 * time.Second
)

// Store is an open data directory. Its methods may be called from any goroutine, except that nothing may be called
// after Close.
type Store struct {
	Reader // the latest state

	db       *pebble.DB
	options  *pebble.Options // of db
	fs       FS
	dir      string
	readOnly bool
	lock     io.Closer
	logger   *slog.Logger
	fatal    func(error)

	failed           atomic.Pointer[error] // the error that fatal was called with
	tempFiles        atomic.Uint64         // temporary files created so far, to give each its own name
	stalls           stallClock
	backgroundErrors atomic.Uint64
}

// Open opens the data directory, creating it (readable by its owner only) unless o.ReadOnly is set. It fails with
// ErrLocked if the directory is open elsewhere, and with an error that says so if a newer vectord wrote it.
func Open(o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, errors.New("storage: no data directory given")
	}
	s := &Store{fs: o.FS, dir: o.Dir, readOnly: o.ReadOnly, logger: o.Logger, fatal: o.Fatal}
	if s.fs == nil {
		s.fs = vfs.Default
	}
	if s.logger == nil {
		s.logger = slog.Default()
	}
	if s.fatal == nil {
		s.fatal = func(err error) {
			s.logger.Error("stopping: storage can promise nothing after this error", "err", err)
			os.Exit(1)
		}
	}
	s.fs = fsync.Watch(s.fs, s.fail)
	if err := s.open(o); err != nil {
		if s.lock != nil {
			err = errors.Join(err, s.lock.Close())
		}
		return nil, err
	}
	return s, nil
}

func (s *Store) open(o Options) (err error) {
	if s.readOnly {
		if _, err := s.fs.Stat(s.dir); err != nil {
			return fmt.Errorf("open data directory %q: %w", s.dir, err)
		}
	} else if err := fsync.MakeDir(s.fs, s.dir); err != nil {
		return fmt.Errorf("create data directory %q: %w", s.dir, err)
	}
	if s.lock, err = s.fs.Lock(s.path(lockFile)); err != nil {
		if pathErr := (*os.PathError)(nil); errors.As(err, &pathErr) {
			return fmt.Errorf("lock data directory %q: %w", s.dir, err)
		}
		// What remains is a refusal by the lock itself, whose errno differs from system to system.
		return fmt.Errorf("data directory %q is %w", s.dir, ErrLocked)
	}
	if !s.readOnly {
		if err := finishReplacement(s.fs, s.dir); err != nil {
			return fmt.Errorf("replace the state of data directory %q: %w", s.dir, err)
		}
	}
	exists, err := s.readFormat()
	if err != nil {
		return err
	}
	po := s.pebbleOptions(o)
	po.ErrorIfNotExists = exists
	po.EnsureDefaults() // Pebble does this to a copy
	s.options = po
	if s.db, err = pebble.Open(s.path(pebbleDir), po); err != nil {
		return fmt.Errorf("open database in data directory %q: %w", s.dir, err)
	}
	s.Reader = Reader{s.db}
	if s.readOnly {
		return nil
	}
	if !exists {
		err = s.writeFormat()
	}
	if err == nil {
		err = s.prepareFiles()
	}
	if err != nil {
		return errors.Join(err, s.db.Close())
	}
	return nil
}

func (s *Store) pebbleOptions(o Options) *pebble.Options {
	if o.CacheBytes <= 0 {
		o.CacheBytes = DefaultCacheBytes
	}
	if o.MemTableBytes <= 0 {
		o.MemTableBytes = DefaultMemTableBytes
	}
	po := &pebble.Options{
		FS:                 s.fs,
		ReadOnly:           s.readOnly,
		FormatMajorVersion: pebble.FormatValueSeparation,
		CacheSize:          o.CacheBytes,
		MemTableSize:       uint64(o.MemTableBytes),

		MemTableStopWritesThreshold: memTables,
		L0CompactionThreshold:       2,
		L0StopWritesThreshold:       l0Sublevels,
		LBaseMaxBytes:               max(o.MemTableBytes, 1<<20),
		FlushDelayDeleteRange:       dropDelay,
		CompactionConcurrencyRange:  func() (int, int) { return 1, max(1, runtime.GOMAXPROCS(0)/2) },

		Logger:        pebbleLogger{s},
		EventListener: s.events(),
	}
	// Value separation stays off: docs/FORMAT.md has the figures.
	for i := range po.Levels {
		po.Levels[i].BlockSize = blockBytes
		po.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
	}
	return po
}

// Close releases the directory. Batches and snapshots must have been closed before. What was committed and not yet
// durable becomes durable.
func (s *Store) Close() error {
	err := s.db.Close()
	if lockErr := s.lock.Close(); err == nil {
		err = lockErr
	}
	if err != nil {
		return fmt.Errorf("close data directory %q: %w", s.dir, err)
	}
	return nil
}

// Compact writes the memtables to disk and rewrites all tables, so that what was removed takes no space any more. It changes
// no answer, and reads and commits go on meanwhile.
func (s *Store) Compact(ctx context.Context) error {
	err := s.failure()
	if err == nil {
		err = s.db.Flush()
	}
	if err == nil {
		err = s.db.Compact(ctx, []byte{0}, []byte{0xff}, false)
	}
	if err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}

// Snapshot is the state at one moment, whatever is committed later. It holds back the reclaiming of disk space, so it
// should not live long.
type Snapshot struct {
	Reader
	snapshot *pebble.Snapshot
}

// NewSnapshot returns the state as of the last commit. The caller closes it.
func (s *Store) NewSnapshot() *Snapshot {
	snapshot := s.db.NewSnapshot()
	return &Snapshot{Reader{snapshot}, snapshot}
}

// Close releases the snapshot; nothing may be read from it afterwards.
func (s *Snapshot) Close() error { return s.snapshot.Close() }

func (s *Store) path(elem ...string) string {
	return s.fs.PathJoin(append([]string{s.dir}, elem...)...)
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
		return fmt.Errorf("storage has failed: %w", *err)
	}
	return nil
}
