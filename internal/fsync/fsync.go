// Package fsync makes names durable, and lets no failed fsync go unnoticed.
package fsync

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// dirMode is the mode of directories that MakeDir creates.
const dirMode = 0o700

// markerPrefix begins the names of the empty files with which Pebble points at its current manifest.
const markerPrefix = "marker."

// Watch returns fsys with two rules on top.
//
// Every failed fsync of a file or directory goes to report before its caller learns of it. Watching here, below Pebble,
// makes one rule hold for every file, also where Pebble would try again.
//
// Pebble's markers move only between durable states. To move one, Pebble creates the new marker, removes the old one and
// then syncs the directory; to be right after a power cut that needs a file system which keeps the order of changes
// within a directory. Where it does not, the new marker could survive without the manifest it names, or the old one be
// gone before the new one is there: a database that cannot be opened, or seems never to have been. So the directory is
// synced before either step, which costs two fsyncs at each start and each rotation of the manifest.
func Watch(fsys vfs.FS, report func(error)) vfs.FS { return &watchedFS{fsys, report} }

type watchedFS struct {
	vfs.FS
	report func(error)
}

func (w *watchedFS) watch(f vfs.File, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &watchedFile{f, name, w.report}, nil
}

// settle makes the directory of a marker durable before the marker changes.
func (w *watchedFS) settle(name string) error {
	if !strings.HasPrefix(w.PathBase(name), markerPrefix) {
		return nil
	}
	return Dir(w, w.PathDir(name))
}

func (w *watchedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := w.settle(name); err != nil {
		return nil, err
	}
	f, err := w.FS.Create(name, category)
	return w.watch(f, name, err)
}

func (w *watchedFS) Remove(name string) error {
	if err := w.settle(name); err != nil {
		return err
	}
	return w.FS.Remove(name)
}

func (w *watchedFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := w.FS.OpenReadWrite(name, category, opts...)
	return w.watch(f, name, err)
}

func (w *watchedFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.ReuseForWrite(oldName, newName, category)
	return w.watch(f, newName, err)
}

func (w *watchedFS) OpenDir(name string) (vfs.File, error) {
	f, err := w.FS.OpenDir(name)
	return w.watch(f, name, err)
}

// Unwrap implements vfs.FS.
func (w *watchedFS) Unwrap() vfs.FS { return w.FS }

type watchedFile struct {
	vfs.File
	name   string
	report func(error)
}

func (f *watchedFile) check(err error) error {
	if err != nil {
		f.report(fmt.Errorf("fsync %q: %w", f.name, err))
	}
	return err
}

func (f *watchedFile) Sync() error     { return f.check(f.File.Sync()) }
func (f *watchedFile) SyncData() error { return f.check(f.File.SyncData()) }

func (f *watchedFile) SyncTo(length int64) (fullSync bool, err error) {
	fullSync, err = f.File.SyncTo(length)
	return fullSync, f.check(err)
}

// MakeDir creates the directory and its missing parents, each made durable in the one above it.
func MakeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := MakeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	return Dir(fsys, parent)
}

// Dir makes the names within a directory durable.
func Dir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
