package engine

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/url"
	"os"
	stdpath "path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

const (
	snapshotFilesMax  = 1000 // kept of one collection, or of the node
	snapshotNamesRead = 4 * snapshotFilesMax
	snapshotDirMode   = 0o700 // as the data directory's
	snapshotFileMode  = 0o600
	snapshotBuffer    = 256 << 10
	diskReserve       = 256 << 20    // bytes that snapshots leave free on their disk, for the log to go on
	diskCheckBytes    = 32 << 20     // written between two looks at what is free
	snapshotTemp      = "~"          // begins names of files being written; what is left over is removed at a start
	receivedName      = "~received-" // begins names of snapshots that are received to be recovered
	checksumSuffix    = ".sha256"    // of the file beside a snapshot that has its checksum, as sha256sum writes it
	checksumLineMax   = 1024         // bytes of that file
	ownerNameMax      = 150          // bytes of a folder's name, before what tells it from other long ones
)

// snapshotDir is the directory of snapshots: those of the node lie in it, those of each collection in a folder of their
// own. All names are resolved by an os.Root, so that neither a name nor a link leads out of it. It is created when the
// first snapshot is. The empty path is no directory: nothing can be kept.
type snapshotDir struct{ path string }

// open opens the directory, creating it if create is set. Without it the error of a missing one is an fs.ErrNotExist.
func (d snapshotDir) open(create bool) (*os.Root, error) {
	if d.path == "" {
		return nil, vectord.Errorf(vectord.KindUnsupported, "this server has no directory of snapshots")
	}
	if create {
		if err := os.MkdirAll(d.path, snapshotDirMode); err != nil {
			return nil, fmt.Errorf("create directory of snapshots: %w", err)
		}
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("open directory of snapshots: %w", err)
	}
	return root, nil
}

// ownerFolder names the folder of a collection's snapshots, "." for the node's. Different collections have different ones.
func ownerFolder(collection string) string {
	if collection == "" {
		return "."
	}
	var b strings.Builder
	for i := range len(collection) {
		c := collection[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	name := b.String()
	if len(name) > ownerNameMax {
		sum := sha256.Sum256([]byte(collection))
		name = name[:ownerNameMax] + "~" + hex.EncodeToString(sum[:16]) // no shorter name has a '~'
	}
	return name
}

// snapshotWriter counts and hashes what is written to a file, and looks after the room on the disk.
type snapshotWriter struct {
	file    *os.File
	hash    hash.Hash
	written int64
	max     int64
	dir     string
}

func (w *snapshotWriter) Write(p []byte) (int, error) {
	if w.written+int64(len(p)) > w.max {
		return 0, vectord.Errorf(vectord.KindTooLarge, "the snapshot is larger than %d bytes", w.max)
	}
	if w.written/diskCheckBytes != (w.written+int64(len(p)))/diskCheckBytes || w.written == 0 {
		if free, ok := storage.DiskAvailable(w.dir); ok && free < diskReserve {
			return 0, vectord.Errorf(vectord.KindNoSpace, "the disk of the snapshots has %d bytes left, %d are kept free", free, diskReserve)
		}
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	w.written += int64(n)
	return n, err
}

// writeTemp writes, syncs and closes a new file, and removes it again if that fails.
func (d snapshotDir) writeTemp(root *os.Root, name string, write func(io.Writer) error) (size int64, checksum string, err error) {
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, snapshotFileMode)
	if err != nil {
		return 0, "", noSpace(err)
	}
	w := &snapshotWriter{file: file, hash: sha256.New(), max: vectord.MaxSnapshotBytes, dir: d.path}
	buffer := bufio.NewWriterSize(w, snapshotBuffer)
	err = write(buffer)
	if err == nil {
		err = buffer.Flush()
	}
	if err == nil {
		err = file.Sync()
	}
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, "", errors.Join(noSpace(err), root.Remove(name))
	}
	return w.written, hex.EncodeToString(w.hash.Sum(nil)), nil
}

// noSpace gives the error of a full disk its kind.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return vectord.Errorf(vectord.KindNoSpace, "the disk is full")
	}
	return err
}

// create makes a snapshot of a collection, or of the node, of what write produces. It is there whole or not at all.
func (d snapshotDir) create(collection string, at time.Time, write func(io.Writer) error) (s vectord.Snapshot, err error) {
	root, err := d.open(true)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	folder := ownerFolder(collection)
	if err := root.MkdirAll(folder, snapshotDirMode); err != nil {
		return s, fmt.Errorf("create folder %q of snapshots: %w", folder, err)
	}
	names, err := snapshotNames(root, folder)
	if err != nil {
		return s, err
	}
	if len(names) >= snapshotFilesMax {
		return s, vectord.Errorf(vectord.KindUnprocessable, "there are %d snapshots already, at most %d are kept: delete some", len(names), snapshotFilesMax)
	}
	distinguish := randomName()
	s.Name = vectord.SnapshotName(collection, at, distinguish)
	temp := stdpath.Join(folder, snapshotTemp+distinguish)
	if s.Size, s.Checksum, err = d.writeTemp(root, temp, write); err != nil {
		return s, fmt.Errorf("write snapshot: %w", err)
	}
	path := stdpath.Join(folder, s.Name)
	line := fmt.Sprintf("%s  %s\n", s.Checksum, s.Name)
	if err := root.WriteFile(path+checksumSuffix, []byte(line), snapshotFileMode); err != nil {
		return s, errors.Join(fmt.Errorf("write snapshot: %w", noSpace(err)), root.Remove(temp))
	}
	if err := root.Rename(temp, path); err != nil {
		return s, errors.Join(fmt.Errorf("write snapshot: %w", err), root.Remove(temp), root.Remove(path+checksumSuffix))
	}
	if err := syncFolder(root, folder); err != nil {
		return s, fmt.Errorf("write snapshot: %w", err)
	}
	info, err := root.Stat(path)
	if err != nil {
		return s, fmt.Errorf("write snapshot: %w", err)
	}
	s.Created = info.ModTime()
	return s, nil
}

func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func syncFolder(root *os.Root, folder string) error {
	f, err := root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// snapshotNames returns the names of the snapshots in a folder, sorted; none if it does not exist.
func snapshotNames(root *os.Root, folder string) ([]string, error) {
	f, err := root.Open(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	entries, err := f.ReadDir(snapshotNamesRead)
	if errors.Is(err, io.EOF) {
		err = nil // an empty folder
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && vectord.CheckSnapshotName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// list returns the snapshots of a collection, or of the node, by name.
func (d snapshotDir) list(collection string) (list []vectord.Snapshot, err error) {
	root, err := d.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	folder := ownerFolder(collection)
	names, err := snapshotNames(root, folder)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		path := stdpath.Join(folder, name)
		info, err := root.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted a moment ago
		}
		if err != nil {
			return nil, fmt.Errorf("list snapshots: %w", err)
		}
		list = append(list, vectord.Snapshot{Name: name, Created: info.ModTime(), Size: info.Size(), Checksum: noted(root, path)})
	}
	return list, nil
}

// noted returns the checksum that was noted beside a snapshot, or nothing.
func noted(root *os.Root, path string) string {
	f, err := root.Open(path + checksumSuffix)
	if err != nil {
		return ""
	}
	defer f.Close() // only read
	line, err := io.ReadAll(io.LimitReader(f, checksumLineMax))
	checksum, name, ok := strings.Cut(strings.TrimSpace(string(line)), "  ")
	if err != nil || !ok || name != stdpath.Base(path) || len(checksum) != 2*sha256.Size || vectord.CheckSnapshotChecksum(checksum) != nil {
		return ""
	}
	return checksum
}

func noSnapshot(name string) error {
	return vectord.Errorf(vectord.KindNotFound, "Snapshot `%s` doesn't exist!", name)
}

// openSnapshot opens a snapshot of a collection, or of the node, for reading.
func (d snapshotDir) openSnapshot(collection, name string) (*os.File, int64, error) {
	if err := vectord.CheckSnapshotName(name); err != nil {
		return nil, 0, err
	}
	return d.openPath(stdpath.Join(ownerFolder(collection), name), name)
}

// openPath opens a regular file below the directory. Its errors call it name.
func (d snapshotDir) openPath(path, name string) (file *os.File, size int64, err error) {
	root, err := d.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, noSnapshot(name)
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	// Looked at before it is opened, as opening a pipe would wait for ever.
	info, err := root.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, noSnapshot(name)
	}
	if err != nil || !info.Mode().IsRegular() {
		// What the system says of a link that leads out of the directory is not for the client.
		return nil, 0, vectord.Errorf(vectord.KindInvalid, "snapshot %q is not a file within the directory of snapshots", name)
	}
	if file, err = root.Open(path); err != nil {
		return nil, 0, fmt.Errorf("open snapshot %q: %w", name, err)
	}
	if info, err = file.Stat(); err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("open snapshot %q: it is no file any more", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	return file, info.Size(), nil
}

// openLocation opens the file that a file: URL names, which must lie below the directory.
func (d snapshotDir) openLocation(location *url.URL) (*os.File, int64, error) {
	outside := func() error {
		return vectord.Errorf(vectord.KindInvalid, "location: %.200q is not below the server's directory of snapshots", location.String())
	}
	if d.path == "" || location.Host != "" && location.Host != "localhost" || !filepath.IsAbs(location.Path) {
		return nil, 0, outside()
	}
	dir, err := filepath.Abs(d.path)
	if err != nil {
		return nil, 0, fmt.Errorf("directory of snapshots: %w", err)
	}
	if slices.Contains(strings.Split(location.Path, "/"), "..") {
		return nil, 0, outside()
	}
	path, err := filepath.Rel(dir, filepath.Clean(location.Path))
	if err != nil || path == "." || !filepath.IsLocal(path) {
		return nil, 0, outside()
	}
	return d.openPath(path, stdpath.Base(location.Path))
}

// remove removes a snapshot of a collection, or of the node.
func (d snapshotDir) remove(collection, name string) (err error) {
	if err := vectord.CheckSnapshotName(name); err != nil {
		return err
	}
	root, err := d.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return noSnapshot(name)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	folder := ownerFolder(collection)
	path := stdpath.Join(folder, name)
	err = root.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return noSnapshot(name)
	}
	if err != nil {
		return fmt.Errorf("delete snapshot %q: %w", name, err)
	}
	if err := root.Remove(path + checksumSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete checksum of snapshot %q: %w", name, err)
	}
	return syncFolder(root, folder)
}

// received is a snapshot that was copied to the directory to be recovered, and is removed after that.
type received struct {
	dir  snapshotDir
	name string
}

// receive copies a snapshot from content to the end, within the bounds of size and disk.
func (d snapshotDir) receive(ctx context.Context, content io.Reader) (r received, err error) {
	root, err := d.open(true)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	r = received{d, receivedName + randomName()}
	_, _, err = d.writeTemp(root, r.name, func(w io.Writer) error {
		_, err := io.Copy(w, &contextReader{ctx, content})
		return err
	})
	if err != nil {
		return r, fmt.Errorf("receive snapshot: %w", err)
	}
	return r, nil
}

func (r received) open() (*os.File, int64, error) { return r.dir.openPath(r.name, "received") }

func (r received) remove() error {
	root, err := r.dir.open(false)
	if err != nil {
		return err
	}
	return errors.Join(root.Remove(r.name), root.Close())
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}

// clean removes what interrupted writes left.
func (d snapshotDir) clean() error {
	if d.path == "" {
		return nil
	}
	root, err := d.open(false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() {
			if strings.Contains(path, "/") {
				return fs.SkipDir // snapshots lie at most one folder deep
			}
			return nil
		}
		if strings.HasPrefix(e.Name(), snapshotTemp) {
			return root.Remove(path)
		}
		if of, ok := strings.CutSuffix(path, checksumSuffix); ok && vectord.CheckSnapshotName(stdpath.Base(of)) == nil {
			if _, err := root.Lstat(of); errors.Is(err, fs.ErrNotExist) {
				return root.Remove(path)
			}
		}
		return nil
	})
	if err = errors.Join(err, root.Close()); err != nil {
		return fmt.Errorf("clean directory of snapshots: %w", err)
	}
	return nil
}
