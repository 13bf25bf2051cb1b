// Package dataset reads and writes files of vectors: fvecs, ivecs, npy and JSON lines.
//
// Readers stream: they hold one vector at a time, check every length that a file claims before they believe it, and
// allocate only for bytes that have really arrived, so a hostile header costs nothing. They are not safe for concurrent
// use. Writers are append functions; the caller owns the memory.
package dataset

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/vectord/vectord"
)

// Reader yields the points of a data set in order.
type Reader interface {
	// Next returns the next point. Its vector and payload are valid until the following call. Formats without ids number
	// their rows from 0. After the last point it returns io.EOF; every other error names the row, counted from 0, or the
	// line, counted from 1.
	Next() (vectord.Point, error)
}

// Options say how a data set is to be read. The zero value works.
type Options struct {
	// IDField names the field of a JSON line that holds the point's id; empty means "id". NumberRows ignores the field
	// and numbers the lines from 0.
	IDField    string
	NumberRows bool
}

// NewReader returns a reader of the format that name ends in: .fvecs, .npy, .jsonl or .ndjson.
func NewReader(name string, r io.Reader, o Options) (Reader, error) {
	switch ext := strings.ToLower(filepath.Ext(name)); ext {
	case ".fvecs":
		return NewFVecsReader(r), nil
	case ".npy":
		return NewNPYReader(r)
	case ".jsonl", ".ndjson":
		return NewJSONLReader(r, o), nil
	default:
		return nil, fmt.Errorf("unknown data format %q, expected .fvecs, .npy, .jsonl or .ndjson (each also with .gz)", ext)
	}
}

// File is a data set on disk. Position may be called from any goroutine, the other methods from one at a time.
type File struct {
	Reader
	file     *os.File
	numbered bool
	size     int64
	read     atomic.Int64 // bytes taken from the file so far, compressed ones where it is compressed
}

// Open opens the data set at path. A name that ends in .gz is decompressed on the way.
func Open(path string, o Options) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err // names the path
	}
	d, err := newFile(f, path, o)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open data set %s: %w", path, err)
	}
	return d, nil
}

func newFile(f *os.File, path string, o Options) (*File, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return nil, errors.New("is a directory")
	}
	d := &File{file: f, size: info.Size()}
	var r io.Reader = &countingReader{r: f, n: &d.read}
	name := path
	if strings.EqualFold(filepath.Ext(name), ".gz") {
		name = name[:len(name)-len(".gz")]
		if r, err = gzip.NewReader(r); err != nil {
			return nil, err
		}
	}
	if d.Reader, err = NewReader(name, r, o); err != nil {
		return nil, err
	}
	_, lines := d.Reader.(*JSONLReader)
	d.numbered = !lines || o.NumberRows
	return d, nil
}

// Numbered reports whether the ids are the numbers of rows instead of the data set's own.
func (f *File) Numbered() bool { return f.numbered }

// Name returns the path as it was given to Open.
func (f *File) Name() string { return f.file.Name() }

// Position returns how many bytes of the file have been read, and its size.
func (f *File) Position() (read, size int64) { return f.read.Load(), f.size }

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// bufferBytes is how much a reader takes from the file at a time.
const bufferBytes = 256 << 10

type countingReader struct {
	r io.Reader
	n *atomic.Int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// Vectors are equally long vectors in one block of memory.
type Vectors struct {
	Dim  int
	Data []float32 // row after row
}

// Len returns the number of vectors.
func (v *Vectors) Len() int {
	if v.Dim == 0 {
		return 0
	}
	return len(v.Data) / v.Dim
}

// At returns vector i, which shares the block's memory.
func (v *Vectors) At(i int) []float32 { return v.Data[i*v.Dim : (i+1)*v.Dim : (i+1)*v.Dim] }

// Normalize scales every vector to length 1, as vectord.Normalize does.
func (v *Vectors) Normalize() {
	for i := range v.Len() {
		vectord.Normalize(v.At(i))
	}
}

// ReadVectors reads up to limit vectors into memory; the ids and payloads are dropped. A data set without any vector
// is an error.
func ReadVectors(r Reader, limit int) (*Vectors, error) {
	v := &Vectors{}
	for row := 0; row < limit; row++ {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if row == 0 {
			v.Dim = len(p.Vectors.Unnamed())
		}
		if len(p.Vectors.Unnamed()) != v.Dim {
			return nil, fmt.Errorf("row %d has %d components, the rows before it %d", row, len(p.Vectors.Unnamed()), v.Dim)
		}
		v.Data = append(v.Data, p.Vectors.Unnamed()...)
	}
	if len(v.Data) == 0 {
		return nil, errors.New("the data set is empty")
	}
	return v, nil
}

// LoadVectors reads up to limit vectors from the data set at path.
func LoadVectors(path string, limit int) (*Vectors, error) {
	f, err := Open(path, Options{NumberRows: true})
	if err != nil {
		return nil, err
	}
	defer f.Close()
	v, err := ReadVectors(f, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return v, nil
}

// checkFinite returns an error if v holds a NaN or an infinity, neither of which has a distance to anything.
func checkFinite(v []float32) error {
	for i, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return fmt.Errorf("component %d is %v", i, x)
		}
	}
	return nil
}

func checkDim(dim int64) error {
	if dim < 1 || dim > vectord.MaxDimension {
		return fmt.Errorf("dimension %d invalid, must be from 1 to %d", dim, vectord.MaxDimension)
	}
	return nil
}

// readRow fills b with the next bytes of a row. The end of the data is io.EOF before a row has begun, and an error within
// it.
func readRow(r *bufio.Reader, b []byte, begun bool) error {
	_, err := io.ReadFull(r, b)
	if err == io.ErrUnexpectedEOF || err == io.EOF && begun {
		return errors.New("the data ends in the middle of it")
	}
	return err
}
