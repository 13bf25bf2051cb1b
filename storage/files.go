package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/vectord/vectord/internal/fsync"
)

// Derived files (checkpoints of indexes) live in the index folder of the data directory. Their names match
// ^[a-z0-9][a-z0-9._-]{0,63}$, so none leads out of the folder, and none collides with a temporary file.
const (
	fileNameMax   = 64
	tempPrefix    = "~"
	fileBuffer    = 256 << 10
	fileSyncBytes = 1 << 20 // written back in steps of this, so that the final fsync does not hold up the log's
)

// WriteFile replaces the file called name by what write produces. After a power cut at any moment the file is the old
// one or the new one, whole; on return it is the new one. If write fails, the old one stays. Different files may be
// written at the same time; of two writers of one file the last to finish wins.
func (s *Store) WriteFile(name string, write func(io.Writer) error) error {
	if err := s.checkFile(name); err != nil {
		return err
	}
	if err := s.replaceFile(s.path(indexDir), name, write); err != nil {
		return fmt.Errorf("write file %q: %w", name, err)
	}
	return nil
}

// OpenFile opens the file called name for reading from its start and returns its size in bytes. The error of a missing
// file is an fs.ErrNotExist. A file opened stays as it is, whatever WriteFile and RemoveFile do meanwhile.
func (s *Store) OpenFile(name string) (io.ReadCloser, int64, error) {
	if err := checkFileName(name); err != nil {
		return nil, 0, err
	}
	f, err := s.fs.Open(s.path(indexDir, name), vfs.SequentialReadsOption)
	if err != nil {
		return nil, 0, fmt.Errorf("open file %q: %w", name, err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open file %q: %w", name, err), f.Close())
	}
	return f, info.Size(), nil
}

// RemoveFile removes the file called name; it is no error if there is none.
func (s *Store) RemoveFile(name string) error {
	if err := s.checkFile(name); err != nil {
		return err
	}
	err := s.fs.Remove(s.path(indexDir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fsync.Dir(s.fs, s.path(indexDir))
	}
	if err != nil {
		return fmt.Errorf("remove file %q: %w", name, err)
	}
	return nil
}

// ListFiles returns the names of the files, sorted.
func (s *Store) ListFiles() ([]string, error) {
	names, err := s.fs.List(s.path(indexDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // opened read-only before any store created the folder
	}
	if err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return checkFileName(name) != nil })
	slices.Sort(names)
	return names, nil
}

// checkFile returns an error unless the file called name may be changed.
func (s *Store) checkFile(name string) error {
	if s.readOnly {
		return fmt.Errorf("file %q: the data directory is open for reading only", name)
	}
	return checkFileName(name)
}

func checkFileName(name string) error {
	valid := name != "" && len(name) <= fileNameMax && !strings.ContainsRune("._-", rune(name[0]))
	for _, c := range name {
		valid = valid && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.ContainsRune("._-", c))
	}
	if !valid {
		return fmt.Errorf("file name %q: must be 1 to %d of a-z, 0-9, '.', '_', '-', the first a letter or digit",
			name, fileNameMax)
	}
	return nil
}

// prepareFiles creates the index folder and removes what interrupted writes of files left.
func (s *Store) prepareFiles() error {
	dir := s.path(indexDir)
	if err := fsync.MakeDir(s.fs, dir); err != nil {
		return fmt.Errorf("create folder %q: %w", dir, err)
	}
	for _, dir := range []string{s.dir, dir} {
		names, err := s.fs.List(dir)
		if err != nil {
			return fmt.Errorf("list folder %q: %w", dir, err)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, tempPrefix) {
				continue
			}
			if err := s.fs.Remove(s.fs.PathJoin(dir, name)); err != nil {
				return fmt.Errorf("remove temporary file %q: %w", name, err)
			}
		}
	}
	return nil
}

// replaceFile writes dir/name by way of a temporary file: written, synced, renamed, and the new name synced.
func (s *Store) replaceFile(dir, name string, write func(io.Writer) error) error {
	temp := s.fs.PathJoin(dir, fmt.Sprintf("%s%d-%s", tempPrefix, s.tempFiles.Add(1), name))
	err := s.createFile(temp, write)
	if err == nil {
		err = s.fs.Rename(temp, s.fs.PathJoin(dir, name))
	}
	if err != nil {
		if removeErr := s.fs.Remove(temp); !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, removeErr)
		}
		return err
	}
	if err := fsync.Dir(s.fs, dir); err != nil {
		return err
	}
	return s.failure()
}

// createFile writes and syncs a new file.
func (s *Store) createFile(path string, write func(io.Writer) error) error {
	file, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	file = vfs.NewSyncingFile(file, vfs.SyncingFileOptions{BytesPerSync: fileSyncBytes})
	buffer := bufio.NewWriterSize(file, fileBuffer)
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
	return err
}
