package dataset

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/vectord/vectord"
)

// The vecs formats hold rows of a little-endian int32 length followed by so many 4-byte values: float32 in fvecs, int32
// in ivecs. There is no header.

// vecsReader reads the rows that fvecs and ivecs share.
type vecsReader struct {
	r   *bufio.Reader
	dim int // of all rows; 0 before the first
	row uint64
	buf []byte
}

// next returns the bytes of the next row's values, valid until the following call.
func (v *vecsReader) next() ([]byte, error) {
	var head [4]byte
	if err := readRow(v.r, head[:], false); err != nil {
		return nil, v.errorf(err)
	}
	dim := int64(int32(binary.LittleEndian.Uint32(head[:])))
	if err := checkDim(dim); err != nil {
		return nil, v.errorf(err)
	}
	if v.dim == 0 { // at most MaxDimension values, so this is bounded whatever the file says
		v.dim = int(dim)
		v.buf = make([]byte, 4*dim)
	}
	if int(dim) != v.dim {
		return nil, v.errorf(fmt.Errorf("it has %d components, the rows before it %d", dim, v.dim))
	}
	if err := readRow(v.r, v.buf, true); err != nil {
		return nil, v.errorf(err)
	}
	v.row++
	return v.buf, nil
}

func (v *vecsReader) errorf(err error) error {
	if errors.Is(err, io.EOF) {
		return err
	}
	return fmt.Errorf("row %d: %w", v.row, err)
}

// FVecsReader reads fvecs.
type FVecsReader struct {
	rows   vecsReader
	vector []float32
}

// NewFVecsReader returns a reader of r.
func NewFVecsReader(r io.Reader) *FVecsReader {
	return &FVecsReader{rows: vecsReader{r: bufio.NewReaderSize(r, bufferBytes)}}
}

// Next implements Reader.
func (f *FVecsReader) Next() (vectord.Point, error) {
	b, err := f.rows.next()
	if err != nil {
		return vectord.Point{}, err
	}
	f.vector = f.vector[:0]
	for ; len(b) > 0; b = b[4:] {
		f.vector = append(f.vector, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}
	row := f.rows.row - 1
	if err := checkFinite(f.vector); err != nil {
		return vectord.Point{}, fmt.Errorf("row %d: %w", row, err)
	}
	return vectord.Point{ID: vectord.NumberID(row), Vectors: vectord.Unnamed(f.vector)}, nil
}

// ReadIVecs reads up to limit rows of ivecs, such as the true neighbours of queries.
func ReadIVecs(r io.Reader, limit int) ([][]int32, error) {
	rows := vecsReader{r: bufio.NewReaderSize(r, bufferBytes)}
	var out [][]int32
	for len(out) < limit {
		b, err := rows.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		row := make([]int32, 0, len(b)/4)
		for ; len(b) > 0; b = b[4:] {
			row = append(row, int32(binary.LittleEndian.Uint32(b)))
		}
		out = append(out, row)
	}
	if len(out) == 0 {
		return nil, errors.New("the data set is empty")
	}
	return out, nil
}

// LoadIVecs reads up to limit rows from the ivecs file at path.
func LoadIVecs(path string, limit int) ([][]int32, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rows, err := ReadIVecs(f, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return rows, nil
}

// AppendFVec appends v as a row of fvecs.
func AppendFVec(dst []byte, v []float32) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v)))
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
	}
	return dst
}

// AppendIVec appends v as a row of ivecs.
func AppendIVec(dst []byte, v []int32) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(v)))
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(x))
	}
	return dst
}
