package storage

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// watchSyncs returns fsys, calling report with every failed fsync of a file or directory before its caller learns of it.
//
// Watching here, below Pebble, is what makes the promise simple: Pebble retries a flush or compaction whose fsync
// failed, and a WriteFile has its own, but one rule holds for every file.
func watchSyncs(fsys vfs.FS, report func(error)) vfs.FS { return &watchedFS{fsys, report} }

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

func (w *watchedFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := w.FS.Create(name, category)
	return w.watch(f, name, err)
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
