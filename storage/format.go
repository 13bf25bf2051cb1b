package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// The FORMAT file tells which version of the layout a data directory has. It is the first file written and the first
// one read, so an older program never touches what it does not understand.
const (
	formatFile    = "FORMAT"
	formatPrefix  = "vectord data format "
	formatVersion = 1
	formatMaxSize = 64 // bytes
)

// checkFormat makes sure that this program can read the directory, and marks a new one with its version.
func (s *Store) checkFormat() error {
	f, err := s.fs.Open(s.path(formatFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s.initFormat()
	case err != nil:
		return fmt.Errorf("read format of data directory %q: %w", s.dir, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, formatMaxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read format of data directory %q: %w", s.dir, err)
	}
	version, err := parseFormat(text)
	if err != nil {
		return fmt.Errorf("data directory %q: %w", s.dir, err)
	}
	if version > formatVersion {
		return fmt.Errorf("data directory %q has format %d, written by a newer vectord; this one reads formats up to %d",
			s.dir, version, formatVersion)
	}
	return nil
}

// initFormat writes the FORMAT file of a directory that has none, unless it has a database: then the file was lost, and
// guessing the version could destroy data.
func (s *Store) initFormat() error {
	if s.readOnly {
		return fmt.Errorf("data directory %q holds no vectord data: it has no %s file", s.dir, formatFile)
	}
	if _, err := s.fs.Stat(s.path(pebbleDir)); err == nil {
		return fmt.Errorf("data directory %q holds a database but no %s file", s.dir, formatFile)
	}
	err := s.replaceFile(s.dir, formatFile, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s%d\n", formatPrefix, formatVersion)
		return err
	})
	if err != nil {
		return fmt.Errorf("initialise data directory %q: %w", s.dir, err)
	}
	return nil
}

// parseFormat reads the version from the text of a FORMAT file.
func parseFormat(text []byte) (version uint64, err error) {
	digits, ok := bytes.CutPrefix(text, []byte(formatPrefix))
	if ok {
		digits, ok = bytes.CutSuffix(digits, []byte("\n"))
	}
	if ok {
		version, err = strconv.ParseUint(string(digits), 10, 32)
	}
	if !ok || err != nil || version == 0 {
		return 0, fmt.Errorf("%s file %w: expected %q and a number, found %q", formatFile, ErrDamaged, formatPrefix, text)
	}
	return version, nil
}

// makeDir creates the directory and its missing parents, each made durable in the one above it.
func makeDir(fsys vfs.FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := fsys.PathDir(dir)
	if parent != dir {
		if err := makeDir(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	return syncDir(fsys, parent)
}

// syncDir makes the names within a directory durable.
func syncDir(fsys vfs.FS, dir string) error {
	d, err := fsys.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
