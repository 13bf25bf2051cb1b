package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
)

// The FORMAT file tells which version of the layout a data directory has. It is the first file read, so an older program
// never touches what it does not understand, and the last one written when a directory is created: where it is, the
// database is too, and an empty one in its place would be a loss.
const (
	formatFile    = "FORMAT"
	formatPrefix  = "vectord data format "
	formatVersion = 2
	formatOldest  = 2  // the oldest that this program reads
	formatMaxSize = 64 // bytes
)

// readFormat makes sure that this program can read the directory. It reports false if the directory is new.
func (s *Store) readFormat() (exists bool, err error) {
	f, err := s.fs.Open(s.path(formatFile))
	switch {
	case errors.Is(err, fs.ErrNotExist) && s.readOnly:
		return false, fmt.Errorf("data directory %q holds no vectord data: it has no %s file", s.dir, formatFile)
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read format of data directory %q: %w", s.dir, err)
	}
	text, err := io.ReadAll(io.LimitReader(f, formatMaxSize+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("read format of data directory %q: %w", s.dir, err)
	}
	version, err := parseFormat(text)
	if err != nil {
		return false, fmt.Errorf("data directory %q: %w", s.dir, err)
	}
	if version < formatOldest {
		return false, fmt.Errorf("data directory %q has format %d, of a vectord before its first release; this one reads formats from %d to %d",
			s.dir, version, formatOldest, formatVersion)
	}
	if version > formatVersion {
		return false, fmt.Errorf("data directory %q has format %d, written by a newer vectord; this one reads formats up to %d",
			s.dir, version, formatVersion)
	}
	return true, nil
}

// writeFormat ends the creation of a directory. A database that was there before, left by an interrupted creation, is
// empty; any other has lost its FORMAT file, and guessing its version could destroy it.
func (s *Store) writeFormat() error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return fmt.Errorf("initialise data directory %q: %w", s.dir, err)
	}
	empty := !it.First()
	if err := it.Close(); err != nil {
		return fmt.Errorf("initialise data directory %q: %w", s.dir, err)
	}
	if !empty {
		return fmt.Errorf("data directory %q holds a database but no %s file", s.dir, formatFile)
	}
	err = s.replaceFile(s.dir, formatFile, func(w io.Writer) error {
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
