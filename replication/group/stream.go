package group

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/vectord/vectord/internal/fsync"
)

// The stream of a snapshot, numbers little-endian:
//
//	"vdsnap" 1 0 · applied 8 bytes · number of files 4 bytes · files
//
// and of a file: size of its name 2 bytes · its name · its size 8 bytes · its content · CRC-32C of all these, 4 bytes.
// Names are relative, with slashes, in ascending order.
const (
	streamMagic      = "vdsnap\x01\x00"
	streamHeaderSize = len(streamMagic) + 8 + 4
	fileHeaderSize   = 2 + 8
	streamFilesMax   = 1 << 20
	streamNameMax    = 512
	streamBuffer     = 256 << 10
)

var errBadStream = errors.New("malformed snapshot")

// file is one of a checkpoint.
type file struct {
	name string // relative, with slashes
	size int64
}

// listFiles returns all files below dir in the order of the stream.
func listFiles(fs vfs.FS, dir string) (files []file, err error) {
	var list func(dir, prefix string) error
	list = func(dir, prefix string) error {
		names, err := fs.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			path := fs.PathJoin(dir, name)
			info, err := fs.Stat(path)
			switch {
			case err != nil:
				return err
			case info.IsDir():
				err = list(path, prefix+name+"/")
			default:
				err = checkName(prefix + name)
				files = append(files, file{name: prefix + name, size: info.Size()})
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := list(dir, ""); err != nil {
		return nil, fmt.Errorf("list files: %w", err)
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// checkName says whether a name stays below the folder that it is relative to.
func checkName(name string) error {
	if len(name) > streamNameMax {
		return fmt.Errorf("%w: a file name of %d bytes, at most %d are allowed", errBadStream, len(name), streamNameMax)
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsFunc(part, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && !strings.ContainsRune("._-", r)
		}) {
			return fmt.Errorf("%w: file name %q", errBadStream, name)
		}
	}
	return nil
}

func streamSize(files []file) int64 {
	size := int64(streamHeaderSize)
	for _, f := range files {
		size += int64(fileHeaderSize+len(f.name)+crc32.Size) + f.size
	}
	return size
}

// streamReader gives the stream of a checkpoint. It holds all its files open, so that they can be read to the end even if the
// checkpoint is removed meanwhile.
type streamReader struct {
	io.Reader
	open []vfs.File
}

func openStream(fs vfs.FS, dir string, applied uint64, files []file) (*streamReader, error) {
	header := append(make([]byte, 0, streamHeaderSize), streamMagic...)
	header = binary.LittleEndian.AppendUint64(header, applied)
	header = binary.LittleEndian.AppendUint32(header, uint32(len(files)))
	s := &streamReader{}
	parts := []io.Reader{strings.NewReader(string(header))}
	for _, f := range files {
		opened, err := fs.Open(fs.PathJoin(dir, f.name))
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.open = append(s.open, opened)
		header := binary.LittleEndian.AppendUint16(nil, uint16(len(f.name)))
		header = append(header, f.name...)
		header = binary.LittleEndian.AppendUint64(header, uint64(f.size))
		sum := crc32.New(castagnoli)
		parts = append(parts,
			io.TeeReader(io.MultiReader(strings.NewReader(string(header)), exactly(opened, f.size)), sum),
			&checksumReader{sum: sum})
	}
	s.Reader = io.MultiReader(parts...)
	return s, nil
}

// Close implements io.Closer.
func (s *streamReader) Close() (err error) {
	for _, f := range s.open {
		err = errors.Join(err, f.Close())
	}
	s.open = nil
	return err
}

// exactReader reads size bytes, and fails if there are fewer.
type exactReader struct {
	r    io.Reader
	left int64
}

func exactly(r io.Reader, size int64) *exactReader { return &exactReader{r, size} }

// Read implements io.Reader.
func (e *exactReader) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(int64(len(b)), e.left)])
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// checksumReader gives the four bytes of a checksum once all before them was read.
type checksumReader struct {
	sum  hash.Hash32
	rest []byte
	made bool
}

// Read implements io.Reader.
func (c *checksumReader) Read(b []byte) (int, error) {
	if !c.made {
		c.rest, c.made = binary.LittleEndian.AppendUint32(nil, c.sum.Sum32()), true
	}
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// readStream writes the files of a stream below dir, which it creates, and makes them durable.
func readStream(r io.Reader, fs vfs.FS, dir string) (applied uint64, err error) {
	applied, count, err := readStreamHeader(r)
	if err != nil {
		return 0, err
	}
	if err := fs.MkdirAll(dir, dirMode); err != nil {
		return 0, err
	}
	dirs := map[string]bool{dir: true}
	last := ""
	buffer := make([]byte, streamBuffer)
	for range count {
		name, err := readFile(r, fs, dir, last, dirs, buffer)
		if err != nil {
			return 0, err
		}
		last = name
	}
	switch n, err := r.Read(buffer[:1]); {
	case n > 0:
		return 0, fmt.Errorf("%w: something follows its %d files", errBadStream, count)
	case !errors.Is(err, io.EOF):
		return 0, err
	}
	for d := range dirs {
		if err := fsync.Dir(fs, d); err != nil {
			return 0, err
		}
	}
	return applied, fsync.Dir(fs, fs.PathDir(dir))
}

func readStreamHeader(r io.Reader) (applied uint64, count int, err error) {
	header := make([]byte, streamHeaderSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return 0, 0, fmt.Errorf("%w: %w", errBadStream, err)
	}
	if magic := string(header[:len(streamMagic)]); magic != streamMagic {
		return 0, 0, fmt.Errorf("%w: it begins with %q, expected %q", errBadStream, magic, streamMagic)
	}
	rest := header[len(streamMagic):]
	n := binary.LittleEndian.Uint32(rest[8:])
	if n > streamFilesMax {
		return 0, 0, fmt.Errorf("%w: of %d files, at most %d are allowed", errBadStream, n, streamFilesMax)
	}
	return binary.LittleEndian.Uint64(rest), int(n), nil
}

// readFile writes the next file of a stream and returns its name, which must come after last. dirs has the folders that it
// needed.
func readFile(r io.Reader, fs vfs.FS, dir, last string, dirs map[string]bool, buffer []byte) (string, error) {
	sum := crc32.New(castagnoli)
	summed := io.TeeReader(r, sum)
	var size [2]byte
	if _, err := io.ReadFull(summed, size[:]); err != nil {
		return "", fmt.Errorf("%w: %w", errBadStream, err)
	}
	n := int(binary.LittleEndian.Uint16(size[:]))
	header := make([]byte, n+8)
	if _, err := io.ReadFull(summed, header); err != nil {
		return "", fmt.Errorf("%w: %w", errBadStream, err)
	}
	name, content := string(header[:n]), binary.LittleEndian.Uint64(header[n:])
	if err := checkName(name); err != nil {
		return "", err
	}
	if name <= last || content > 1<<62 {
		return "", fmt.Errorf("%w: file %q of %d bytes after %q", errBadStream, name, content, last)
	}
	path := fs.PathJoin(dir, name)
	for parent := fs.PathDir(path); !dirs[parent]; parent = fs.PathDir(parent) {
		if err := fs.MkdirAll(parent, dirMode); err != nil {
			return "", err
		}
		dirs[parent] = true
	}
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return "", err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, exactly(summed, int64(content)), buffer)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("file %q: %w", name, err)
	}
	var stored [crc32.Size]byte
	if _, err := io.ReadFull(r, stored[:]); err != nil {
		return "", fmt.Errorf("%w: %w", errBadStream, err)
	}
	if want := binary.LittleEndian.Uint32(stored[:]); want != sum.Sum32() {
		return "", fmt.Errorf("%w: checksum of file %q is %08x, expected %08x", errBadStream, name, sum.Sum32(), want)
	}
	return name, nil
}
