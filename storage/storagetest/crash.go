// Package storagetest gives tests a disk that loses power.
package storagetest

import (
	"math/rand/v2"
	"os"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/vectord/vectord/storage"
)

// CrashFS is a file system in memory that remembers what of it has been synced. It is given to storage.Options.FS; the
// data directory is any path.
type CrashFS struct {
	storage.FS
	memory *vfs.MemFS
	after  func(operation string)
}

// NewCrashFS returns an empty file system. If after is not nil it is called after every operation that changes a file or
// a directory or syncs one, with a name for it, by the goroutine that did it. It may call Crash and open a store on what
// that returns; calling the store that did the operation may deadlock.
func NewCrashFS(after func(operation string)) *CrashFS {
	return newCrashFS(vfs.NewCrashableMem(), after)
}

func newCrashFS(memory *vfs.MemFS, after func(operation string)) *CrashFS {
	if after == nil {
		after = func(string) {}
	}
	return &CrashFS{FS: memory, memory: memory, after: after}
}

// SetAvailable makes the disk say that it has so many bytes left; before it says that it cannot tell.
func (c *CrashFS) SetAvailable(bytes uint64) {
	c.memory.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: bytes, TotalBytes: 1 << 40})
}

// Crash returns what a power cut at this moment would leave: everything synced, and of the rest each block and each
// directory entry with a chance of unsyncedPercent. Equal seeds keep equal parts of equal file systems.
func (c *CrashFS) Crash(unsyncedPercent int, seed uint64) *CrashFS {
	return newCrashFS(c.memory.CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: unsyncedPercent,
		RNG:                 rand.New(rand.NewPCG(seed, uint64(unsyncedPercent))),
	}), nil)
}

func (c *CrashFS) file(f vfs.File, err error, operation, name string) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c.after(operation + " " + name)
	return &crashFile{File: f, fs: c, name: name}, nil
}

func (c *CrashFS) done(err error, operation string) error {
	if err == nil {
		c.after(operation)
	}
	return err
}

// Create implements storage.FS.
func (c *CrashFS) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.Create(name, category)
	return c.file(f, err, "create", name)
}

// OpenReadWrite implements storage.FS.
func (c *CrashFS) OpenReadWrite(name string, category vfs.DiskWriteCategory, opts ...vfs.OpenOption) (vfs.File, error) {
	f, err := c.FS.OpenReadWrite(name, category, opts...)
	return c.file(f, err, "open", name)
}

// ReuseForWrite implements storage.FS.
func (c *CrashFS) ReuseForWrite(oldName, newName string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := c.FS.ReuseForWrite(oldName, newName, category)
	return c.file(f, err, "reuse", newName)
}

// OpenDir implements storage.FS.
func (c *CrashFS) OpenDir(name string) (vfs.File, error) {
	f, err := c.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &crashFile{File: f, fs: c, name: name}, nil
}

// Link implements storage.FS.
func (c *CrashFS) Link(oldName, newName string) error {
	return c.done(c.FS.Link(oldName, newName), "link "+newName)
}

// Remove implements storage.FS.
func (c *CrashFS) Remove(name string) error { return c.done(c.FS.Remove(name), "remove "+name) }

// RemoveAll implements storage.FS.
func (c *CrashFS) RemoveAll(name string) error {
	return c.done(c.FS.RemoveAll(name), "remove all "+name)
}

// Rename implements storage.FS.
func (c *CrashFS) Rename(oldName, newName string) error {
	return c.done(c.FS.Rename(oldName, newName), "rename to "+newName)
}

// MkdirAll implements storage.FS.
func (c *CrashFS) MkdirAll(dir string, perm os.FileMode) error {
	return c.done(c.FS.MkdirAll(dir, perm), "mkdir "+dir)
}

// Unwrap implements storage.FS.
func (c *CrashFS) Unwrap() vfs.FS { return c.FS }

type crashFile struct {
	vfs.File
	fs   *CrashFS
	name string
}

func (f *crashFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.fs.done(err, "write "+f.name)
}

func (f *crashFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	return n, f.fs.done(err, "write "+f.name)
}

func (f *crashFile) Sync() error     { return f.fs.done(f.File.Sync(), "sync "+f.name) }
func (f *crashFile) SyncData() error { return f.fs.done(f.File.SyncData(), "sync "+f.name) }
