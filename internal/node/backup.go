package node

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/replication/group"
	"github.com/vectord/vectord/storage"
)

// A backup is the whole state of a node at one moment, points, tasks, queues, agents and states, in the form in which the nodes
// of a cluster send it to each other. It has no secrets but what the data has.

// backupDir is where the folders that backups are made of are while they are, within the data directory.
const backupDir = "backups"

// Backup returns a backup of this node as of now and its size in bytes. Reads and writes go on meanwhile. The caller closes the
// stream; until then the disk space of what is removed meanwhile is not free.
func (n *Node) Backup() (stream io.ReadCloser, size int64, err error) {
	if n.dir == "" {
		return nil, 0, vectord.Errorf(vectord.KindUnsupported, "the data is not in files of the operating system")
	}
	parent := filepath.Join(n.dir, backupDir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, 0, fmt.Errorf("back up: %w", err)
	}
	temp, err := os.MkdirTemp(parent, "")
	if err != nil {
		return nil, 0, fmt.Errorf("back up: %w", err)
	}
	dir := filepath.Join(temp, "state")
	// The stream has its files open, so their names can go.
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if err := n.db.Checkpoint(dir); err != nil {
		return nil, 0, fmt.Errorf("back up: %w", err)
	}
	return group.OpenState(nil, dir, 0)
}

// IsBackup says whether a file is a backup, and not a snapshot of collections.
func IsBackup(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, len(group.StateMagic))
	if _, err := io.ReadFull(f, head); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return bytes.Equal(head, []byte(group.StateMagic)), nil
}

// Restore makes a backup the state of a data directory that no server has open and that has no data yet. It checks the backup
// before anything is changed.
func Restore(dir string, backup io.Reader) error {
	for _, name := range []string{"FORMAT", raftDir} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return vectord.Errorf(vectord.KindConflict, "data directory %q has data, a backup is restored into an empty one", dir)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	parent := filepath.Join(dir, backupDir)
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	temp, err := os.MkdirTemp(parent, "")
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	state := filepath.Join(temp, "state")
	if _, err = group.ReadState(bufio.NewReaderSize(backup, 1<<20), nil, state); err == nil {
		err = storage.Replace(nil, dir, state)
	}
	if err = errors.Join(err, os.RemoveAll(parent)); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return nil
}
