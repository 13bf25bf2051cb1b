package group

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"github.com/vectord/vectord/internal/fsync"
)

// A snapshotStore keeps snapshots as the folders that State.Checkpoint writes, one below root for each:
//
//	ID/meta    what Raft and this package know of it, JSON
//	ID/state/  the files of the checkpoint
//
// A folder whose name ends in .tmp is not a snapshot yet. The rename that takes the ending away is what makes it one, so that
// a power cut leaves all of a snapshot or nothing of it. Taking a snapshot costs no copy: the checkpoint's folder is adopted
// as it is. The methods may be called from any goroutine.
type snapshotStore struct {
	fs   vfs.FS
	root string
	has  func(index, term uint64) (bool, error) // of another node's snapshot: this node has all of it and more; nil: it has not
	mu   sync.Mutex                             // held while snapshots are looked for, begin and end to be there: who reads finds them whole
}

var _ raft.SnapshotStore = (*snapshotStore)(nil)

const (
	// snapshotsKept is how many snapshots there are at most: the newest, and the one before, which may be being sent.
	snapshotsKept = 2
	metaFile      = "meta"
	stateDir      = "state"
	unfinished    = ".tmp"
	dirMode       = 0o700
	metaBytesMax  = 1 << 20
)

// snapshotMeta is the content of the file meta.
type snapshotMeta struct {
	Version            raft.SnapshotVersion `json:"version"`
	ID                 string               `json:"id"`
	Index              uint64               `json:"index"`
	Term               uint64               `json:"term"`
	Configuration      []byte               `json:"configuration"`
	ConfigurationIndex uint64               `json:"configuration_index"`
	Applied            uint64               `json:"applied"` // index of the last vectord.Entry in the state
	Size               int64                `json:"size"`    // of the stream
}

func openSnapshots(fs vfs.FS, root string) (*snapshotStore, error) {
	s := &snapshotStore{fs: fs, root: root}
	if err := fsync.MakeDir(fs, root); err != nil {
		return nil, fmt.Errorf("create folder for snapshots: %w", err)
	}
	names, err := fs.List(root)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, unfinished) {
			if err := fs.RemoveAll(s.path(name)); err != nil {
				return nil, fmt.Errorf("remove unfinished snapshot: %w", err)
			}
		}
	}
	return s, nil
}

func (s *snapshotStore) path(elem ...string) string {
	return s.fs.PathJoin(append([]string{s.root}, elem...)...)
}

// temporary returns a folder's path, of which there is none yet, that is cleared away at the next start.
func (s *snapshotStore) temporary() string {
	return s.path(fmt.Sprintf("%016x%s", rand.Uint64(), unfinished))
}

// metas returns what is known of all snapshots, the newest first.
func (s *snapshotStore) metas() ([]snapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.list()
}

// list is metas for whoever holds mu.
func (s *snapshotStore) list() ([]snapshotMeta, error) {
	names, err := s.fs.List(s.root)
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var metas []snapshotMeta
	for _, name := range names {
		if strings.HasSuffix(name, unfinished) {
			continue
		}
		m, err := s.meta(name)
		if err != nil {
			return nil, err
		}
		metas = append(metas, m)
	}
	slices.SortFunc(metas, func(a, b snapshotMeta) int {
		return cmp.Or(cmp.Compare(b.Index, a.Index), cmp.Compare(b.Term, a.Term), cmp.Compare(b.ID, a.ID))
	})
	return metas, nil
}

func (s *snapshotStore) meta(id string) (m snapshotMeta, err error) {
	f, err := s.fs.Open(s.path(id, metaFile))
	if err != nil {
		return m, fmt.Errorf("snapshot %s: %w", id, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, metaBytesMax))
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	if err != nil {
		return m, fmt.Errorf("snapshot %s: read its meta file: %w", id, err)
	}
	if m.ID != id {
		return m, fmt.Errorf("snapshot %s: its meta file is that of %q", id, m.ID)
	}
	return m, nil
}

// newest returns the newest snapshot, and false if there is none.
func (s *snapshotStore) newest() (snapshotMeta, bool, error) {
	metas, err := s.metas()
	if err != nil || len(metas) == 0 {
		return snapshotMeta{}, false, err
	}
	return metas[0], true, nil
}

// List implements raft.SnapshotStore.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	metas, err := s.metas()
	if err != nil {
		return nil, err
	}
	list := make([]*raft.SnapshotMeta, len(metas))
	for i := range metas {
		list[i] = metas[i].raft()
	}
	return list, nil
}

func (m *snapshotMeta) raft() *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version:            m.Version,
		ID:                 m.ID,
		Index:              m.Index,
		Term:               m.Term,
		Configuration:      raft.DecodeConfiguration(m.Configuration),
		ConfigurationIndex: m.ConfigurationIndex,
		Size:               m.Size,
	}
}

// Open implements raft.SnapshotStore. What it returns goes on to give the snapshot when that has been replaced meanwhile.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.meta(id)
	if err != nil {
		return nil, nil, err
	}
	files, err := listFiles(s.fs, s.path(id, stateDir))
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	r, err := openStream(s.fs, s.path(id, stateDir), m.Applied, files)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	return m.raft(), r, nil
}

// Create implements raft.SnapshotStore.
func (s *snapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return s.create(snapshotMeta{Version: version, Index: index, Term: term,
		Configuration: raft.EncodeConfiguration(configuration), ConfigurationIndex: configurationIndex})
}

func (s *snapshotStore) create(m snapshotMeta) (*snapshotSink, error) {
	m.ID = fmt.Sprintf("%016x-%016x-%08x", m.Term, m.Index, rand.Uint32())
	k := &snapshotSink{store: s, meta: m, dir: s.path(m.ID + unfinished)}
	if err := s.fs.MkdirAll(k.dir, dirMode); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", m.ID, err)
	}
	return k, nil
}

// reap removes all snapshots but the one that was made last, which Raft opens next, and the newest of the others. mu is held.
func (s *snapshotStore) reap(last string) error {
	metas, err := s.list()
	if err != nil {
		return err
	}
	metas = slices.DeleteFunc(metas, func(m snapshotMeta) bool { return m.ID == last })
	for _, m := range metas[min(len(metas), snapshotsKept-1):] {
		// Renamed first, for good: half a folder must never look like a snapshot, after a power cut neither.
		err := s.fs.Rename(s.path(m.ID), s.path(m.ID+unfinished))
		if err == nil {
			err = fsync.Dir(s.fs, s.root)
		}
		if err == nil {
			err = s.fs.RemoveAll(s.path(m.ID + unfinished))
		}
		if err != nil {
			return fmt.Errorf("remove snapshot %s: %w", m.ID, err)
		}
	}
	return nil
}

// snapshotSink is a snapshot in the making: either adopt gives it a checkpoint, or Write the bytes of a stream.
type snapshotSink struct {
	store    *snapshotStore
	meta     snapshotMeta
	dir      string
	stream   *io.PipeWriter // of the bytes written; nil before the first
	received chan error     // what came of them
	filled   bool           // there is a state, or will be
	ended    bool
}

// ID implements raft.SnapshotSink.
func (k *snapshotSink) ID() string { return k.meta.ID }

// adopt makes a checkpoint's folder that of the snapshot.
func (k *snapshotSink) adopt(checkpoint string, applied uint64) error {
	state := k.store.fs.PathJoin(k.dir, stateDir)
	if err := k.store.fs.Rename(checkpoint, state); err != nil {
		return fmt.Errorf("snapshot %s: %w", k.meta.ID, err)
	}
	k.meta.Applied = applied
	files, err := listFiles(k.store.fs, state)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", k.meta.ID, err)
	}
	k.meta.Size, k.filled = streamSize(files), true
	return nil
}

// Write implements raft.SnapshotSink: it takes the stream of another node's snapshot.
func (k *snapshotSink) Write(b []byte) (int, error) {
	if k.stream == nil {
		if k.store.has != nil {
			if has, err := k.store.has(k.meta.Index, k.meta.Term); err != nil || has {
				return 0, cmp.Or(err, errHasSnapshot)
			}
		}
		var r *io.PipeReader
		r, k.stream = io.Pipe()
		k.received, k.filled = make(chan error, 1), true
		go func() {
			applied, err := readStream(r, k.store.fs, k.store.fs.PathJoin(k.dir, stateDir))
			k.meta.Applied = applied // read after received
			_ = r.CloseWithError(err)
			k.received <- err
		}()
	}
	n, err := k.stream.Write(b)
	k.meta.Size += int64(n)
	return n, err
}

// finish waits until what was written is on the disk.
func (k *snapshotSink) finish(cause error) error {
	if k.stream == nil {
		return nil
	}
	_ = k.stream.CloseWithError(cause)
	k.stream = nil
	return <-k.received
}

// Close implements raft.SnapshotSink: the snapshot is complete, and durable on return.
func (k *snapshotSink) Close() error {
	if k.ended {
		return nil
	}
	k.ended = true
	s := k.store
	err := k.finish(nil)
	if err == nil && !k.filled {
		err = fmt.Errorf("%w: it is empty", errBadStream)
	}
	if err == nil {
		err = k.writeMeta()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.fs.Rename(k.dir, s.path(k.meta.ID))
	}
	if err == nil {
		err = fsync.Dir(s.fs, s.root)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", k.meta.ID, errors.Join(err, s.fs.RemoveAll(k.dir)))
	}
	return s.reap(k.meta.ID)
}

func (k *snapshotSink) writeMeta() error {
	b, err := json.Marshal(k.meta)
	if err != nil {
		return err
	}
	fs := k.store.fs
	f, err := fs.Create(fs.PathJoin(k.dir, metaFile), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return fsync.Dir(fs, k.dir)
}

var errCancelled = errors.New("the snapshot was given up")

// Cancel implements raft.SnapshotSink.
func (k *snapshotSink) Cancel() error {
	if k.ended {
		return nil
	}
	k.ended = true
	_ = k.finish(errCancelled) // it was given up, whatever came of it
	if err := k.store.fs.RemoveAll(k.dir); err != nil {
		return fmt.Errorf("snapshot %s: %w", k.meta.ID, err)
	}
	return nil
}
