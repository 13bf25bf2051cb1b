package logstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"github.com/vectord/vectord/internal/fsync"
	"go.etcd.io/bbolt"
)

const (
	boltSuffix = ".bolt"
	boltNew    = "~" // ends the name of a file that is being created
	// boltLockWait bounds the wait for a file that another process has open.
	boltLockWait = time.Second
)

// boltEngine keeps each group in a file of its own, by raft-boltdb. Our rows are the data of its entries, so that they have
// the same checksums.
type boltEngine struct {
	fs  vfs.FS // the operating system's, watched
	dir string
}

func (s *Store) openBolt(path string, o Options) (engine, error) { return boltEngine{o.FS, path}, nil }

func (e boltEngine) path(group uint32) string {
	return filepath.Join(e.dir, strconv.FormatUint(uint64(group), 10)+boltSuffix)
}

func (e boltEngine) open(group uint32) (table, error) {
	path := e.path(group)
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		err = e.create(path)
		if err != nil {
			return nil, err
		}
	}
	db, err := openBoltFile(path)
	if err != nil {
		return nil, err
	}
	return boltTable{db, group}, nil
}

// create makes an empty file in steps that a power cut cannot tear: neither bbolt nor raft-boltdb makes its name durable,
// and a file begun is one that bbolt refuses.
func (e boltEngine) create(path string) error {
	temp := path + boltNew
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	db, err := openBoltFile(temp)
	if err == nil {
		err = db.Close()
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = fsync.Dir(e.fs, e.dir)
	}
	return err
}

func openBoltFile(path string) (*raftboltdb.BoltStore, error) {
	return raftboltdb.New(raftboltdb.Options{
		Path: path,
		// The list of free pages is kept in memory and found anew at each start: written with each commit, it makes every
		// commit slow after the log was long once.
		BoltOptions: &bbolt.Options{Timeout: boltLockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType},
	})
}

func (e boltEngine) groups() (ids []uint32, err error) {
	files, err := os.ReadDir(e.dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), boltSuffix); ok {
			id, err := strconv.ParseUint(name, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("file %q is of no group: %w", f.Name(), err)
			}
			ids = append(ids, uint32(id))
		}
	}
	slices.Sort(ids)
	return ids, nil
}

func (e boltEngine) drop(group uint32) error {
	if err := os.Remove(e.path(group)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return fsync.Dir(e.fs, e.dir)
}

func (boltEngine) close() error { return nil }

type boltTable struct {
	db    *raftboltdb.BoltStore
	group uint32
}

func (t boltTable) bounds() (first, last uint64, err error) {
	if first, err = t.db.FirstIndex(); err != nil {
		return 0, 0, err
	}
	last, err = t.db.LastIndex()
	return first, last, err
}

func (t boltTable) entry(index uint64) ([]byte, error) {
	var log raft.Log
	err := t.db.GetLog(index, &log)
	if errors.Is(err, raft.ErrLogNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return log.Data, nil
}

func (t boltTable) putEntries(rows []row) error {
	logs := make([]*raft.Log, len(rows))
	for i, r := range rows {
		logs[i] = &raft.Log{Index: r.index, Data: r.value}
	}
	return t.db.StoreLogs(logs)
}

func (t boltTable) deleteEntries(first, last uint64) error { return t.db.DeleteRange(first, last) }

func (t boltTable) value(key []byte) ([]byte, error) {
	value, err := t.db.Get(key)
	if errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, nil
	}
	return value, err
}

func (t boltTable) putValue(key, value []byte) error { return t.db.Set(key, value) }

func (t boltTable) close() error { return t.db.Close() }
