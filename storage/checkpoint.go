package storage

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/vectord/vectord/internal/fsync"
)

// Checkpoint writes the present state, complete and durable, into the folder dir, which it creates: a data directory without
// a lock. Tables and derived files are hard links, so it must be on the file system of the data directory, and costs little.
// What is committed meanwhile may be in it or not.
func (s *Store) Checkpoint(dir string) error {
	err := s.failure()
	if err == nil {
		err = fsync.MakeDir(s.fs, dir)
	}
	if err == nil {
		err = s.db.Checkpoint(s.fs.PathJoin(dir, pebbleDir), pebble.WithFlushedWAL())
	}
	if err == nil {
		err = linkFolder(s.fs, s.path(indexDir), s.fs.PathJoin(dir, indexDir))
	}
	if err == nil {
		err = copyFile(s.fs, s.path(formatFile), s.fs.PathJoin(dir, formatFile))
	}
	if err == nil {
		err = fsync.Dir(s.fs, dir)
	}
	if err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}

// replacementDir is where the state that takes the place of a data directory's waits until all of it is there.
const replacementDir = "replacement"

// Replace makes the state of a data directory, which is not open, that of a checkpoint on the same file system, which stays as
// it is. A power cut leaves the one or the other: Open finishes what was begun.
func Replace(fsys FS, dir, checkpoint string) error {
	if fsys == nil {
		fsys = vfs.Default
	}
	unfinished := fsys.PathJoin(dir, replacementDir+".tmp")
	err := fsync.MakeDir(fsys, dir)
	if err == nil {
		err = fsys.RemoveAll(unfinished)
	}
	for _, folder := range []string{pebbleDir, indexDir} {
		if err == nil {
			err = linkFolder(fsys, fsys.PathJoin(checkpoint, folder), fsys.PathJoin(unfinished, folder))
		}
	}
	if err == nil {
		err = copyFile(fsys, fsys.PathJoin(checkpoint, formatFile), fsys.PathJoin(unfinished, formatFile))
	}
	if err == nil {
		err = fsync.Dir(fsys, unfinished)
	}
	if err == nil {
		err = fsys.Rename(unfinished, fsys.PathJoin(dir, replacementDir))
	}
	if err == nil {
		err = fsync.Dir(fsys, dir)
	}
	if err == nil {
		err = finishReplacement(fsys, dir)
	}
	if err != nil {
		return fmt.Errorf("replace the state of data directory %q: %w", dir, err)
	}
	return nil
}

// finishReplacement moves a complete replacement to its place. It may have been interrupted anywhere before.
func finishReplacement(fsys vfs.FS, dir string) error {
	from := fsys.PathJoin(dir, replacementDir)
	if _, err := fsys.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, name := range []string{pebbleDir, indexDir, formatFile} {
		source, target := fsys.PathJoin(from, name), fsys.PathJoin(dir, name)
		if _, err := fsys.Stat(source); errors.Is(err, fs.ErrNotExist) {
			continue // moved before
		} else if err != nil {
			return err
		}
		if err := fsys.RemoveAll(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := fsync.Dir(fsys, dir); err != nil {
			return err
		}
		if err := fsys.Rename(source, target); err != nil {
			return err
		}
		// Both folders, or a power cut could leave the file in neither.
		if err := errors.Join(fsync.Dir(fsys, dir), fsync.Dir(fsys, from)); err != nil {
			return err
		}
	}
	if err := fsys.RemoveAll(from); err != nil {
		return err
	}
	return fsync.Dir(fsys, dir)
}

// linkFolder makes to a copy of the folder from: of links to the files that never change, and of copies of the others, as
// Pebble writes over logs that it uses again.
func linkFolder(fsys vfs.FS, from, to string) error {
	if err := fsync.MakeDir(fsys, to); err != nil {
		return err
	}
	names, err := fsys.List(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	derived := fsys.PathBase(from) == indexDir
	for _, name := range names {
		source, target := fsys.PathJoin(from, name), fsys.PathJoin(to, name)
		switch {
		case derived && checkFileName(name) != nil:
			continue // one that is being written
		case derived || strings.HasSuffix(name, ".sst") || strings.HasSuffix(name, ".blob"):
			err = fsys.Link(source, target)
		default:
			err = copyFile(fsys, source, target)
		}
		if derived && errors.Is(err, fs.ErrNotExist) {
			continue // it was removed, or made anew, meanwhile: there is a state without it too
		}
		if err != nil {
			return err
		}
	}
	return fsync.Dir(fsys, to)
}

// copyFile makes a durable copy of a file, but for its name.
func copyFile(fsys vfs.FS, from, to string) (err error) {
	source, err := fsys.Open(from)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.Close()) }()
	target, err := fsys.Create(to, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = io.Copy(struct{ io.Writer }{target}, source)
	if err == nil {
		err = target.Sync()
	}
	return errors.Join(err, target.Close())
}
