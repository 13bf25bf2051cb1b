package dataset

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/vectord/vectord"
)

const (
	npyMagic = "\x93NUMPY"

	// npyHeaderBytesMax bounds the text between the magic and the values. NumPy writes less than 128 bytes for a matrix.
	npyHeaderBytesMax = 64 << 10
)

// NPYReader reads a matrix in NumPy's npy format, versions 1 to 3: rows are vectors, kept in C order. Integers and
// floats of every size and byte order are converted to float32.
type NPYReader struct {
	r      *bufio.Reader
	rows   uint64
	dim    int
	row    uint64
	size   int // bytes of one component
	decode func(b []byte) float32
	buf    []byte
	vector []float32
}

// NewNPYReader reads the header from r and returns a reader of the rows that follow.
func NewNPYReader(r io.Reader) (*NPYReader, error) {
	n := &NPYReader{r: bufio.NewReaderSize(r, bufferBytes)}
	header, err := readNPYHeader(n.r)
	if err != nil {
		return nil, fmt.Errorf("npy header: %w", err)
	}
	h, err := parseNPYHeader(header)
	if err != nil {
		return nil, fmt.Errorf("npy header %q: %w", shorten(header), err)
	}
	if h.fortranOrder {
		return nil, errors.New("npy header: the matrix is in Fortran order, save it in C order (numpy.ascontiguousarray)")
	}
	if len(h.shape) != 2 {
		return nil, fmt.Errorf("npy header: the array has %d dimensions, expected a matrix of rows × components", len(h.shape))
	}
	if err := checkDim(int64(h.shape[1])); err != nil {
		return nil, fmt.Errorf("npy header: %w", err)
	}
	n.rows, n.dim = h.shape[0], int(h.shape[1])
	if n.size, n.decode, err = npyDecoder(h.descr); err != nil {
		return nil, fmt.Errorf("npy header: %w", err)
	}
	n.buf = make([]byte, n.dim*n.size)
	return n, nil
}

// Rows returns how many rows the header promises.
func (n *NPYReader) Rows() uint64 { return n.rows }

// Next implements Reader. Bytes after the last row are an error, for the header does not belong to such a file.
func (n *NPYReader) Next() (vectord.Point, error) {
	if n.row == n.rows {
		if _, err := n.r.ReadByte(); err != io.EOF {
			return vectord.Point{}, fmt.Errorf("npy data goes on after the %d rows of its header", n.rows)
		}
		return vectord.Point{}, io.EOF
	}
	if err := readRow(n.r, n.buf, true); err != nil {
		return vectord.Point{}, fmt.Errorf("row %d of %d: %w", n.row, n.rows, err)
	}
	n.vector = n.vector[:0]
	for b := n.buf; len(b) > 0; b = b[n.size:] {
		n.vector = append(n.vector, n.decode(b))
	}
	if err := checkFinite(n.vector); err != nil {
		return vectord.Point{}, fmt.Errorf("row %d: %w", n.row, err)
	}
	n.row++
	return vectord.Point{ID: vectord.NumberID(n.row - 1), Vectors: vectord.Unnamed(n.vector)}, nil
}

// readNPYHeader reads magic, version, length and text of the header and returns the text.
func readNPYHeader(r *bufio.Reader) (string, error) {
	start := make([]byte, len(npyMagic)+2)
	if _, err := io.ReadFull(r, start); err != nil {
		return "", errors.New("the file is too short")
	}
	if string(start[:len(npyMagic)]) != npyMagic {
		return "", fmt.Errorf("the file begins with %q, not with the magic of npy", start[:len(npyMagic)])
	}
	major, minor := start[len(npyMagic)], start[len(npyMagic)+1]
	var length uint32
	var err error
	switch major {
	case 1:
		var b [2]byte
		_, err = io.ReadFull(r, b[:])
		length = uint32(binary.LittleEndian.Uint16(b[:]))
	case 2, 3:
		var b [4]byte
		_, err = io.ReadFull(r, b[:])
		length = binary.LittleEndian.Uint32(b[:])
	default:
		return "", fmt.Errorf("version %d.%d is unknown, expected 1 to 3", major, minor)
	}
	if err != nil {
		return "", errors.New("the file is too short")
	}
	if length > npyHeaderBytesMax {
		return "", fmt.Errorf("length %d is above the limit of %d bytes", length, npyHeaderBytesMax)
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return "", errors.New("the file is too short")
	}
	return string(text), nil
}

type npyHeader struct {
	descr        string
	fortranOrder bool
	shape        []uint64
}

// npyShapeMax bounds the number of dimensions that a header may list.
const npyShapeMax = 32

// parseNPYHeader reads the Python dictionary of the header: exactly the keys descr, fortran_order and shape.
func parseNPYHeader(text string) (h npyHeader, err error) {
	p := npyParser{rest: text}
	if err := p.expect("{"); err != nil {
		return h, err
	}
	seen := map[string]bool{}
	for !p.accept("}") {
		key, err := p.quoted()
		if err != nil {
			return h, err
		}
		if seen[key] {
			return h, fmt.Errorf("the key %q comes twice", key)
		}
		seen[key] = true
		if err := p.expect(":"); err != nil {
			return h, err
		}
		switch key {
		case "descr":
			h.descr, err = p.quoted()
		case "fortran_order":
			h.fortranOrder, err = p.boolean()
		case "shape":
			h.shape, err = p.tuple()
		default:
			err = fmt.Errorf("the key %q is unknown", key)
		}
		if err != nil {
			return h, err
		}
		if !p.accept(",") {
			if err := p.expect("}"); err != nil {
				return h, err
			}
			break
		}
	}
	if p.skip(); p.rest != "" {
		return h, fmt.Errorf("%q follows the dictionary", shorten(p.rest))
	}
	if len(seen) != 3 {
		return h, errors.New("descr, fortran_order and shape must all be there")
	}
	return h, nil
}

// npyParser reads the few forms of Python literals that a header is made of.
type npyParser struct{ rest string }

func (p *npyParser) skip() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

func (p *npyParser) accept(token string) bool {
	p.skip()
	rest, ok := strings.CutPrefix(p.rest, token)
	p.rest = rest
	return ok
}

func (p *npyParser) expect(token string) error {
	if !p.accept(token) {
		return fmt.Errorf("expected %q before %q", token, shorten(p.rest))
	}
	return nil
}

// quoted reads a string without escapes, which none of the strings of a header needs.
func (p *npyParser) quoted() (string, error) {
	p.skip()
	if p.rest == "" || p.rest[0] != '\'' && p.rest[0] != '"' {
		return "", fmt.Errorf("expected a string before %q", shorten(p.rest))
	}
	end := strings.IndexByte(p.rest[1:], p.rest[0])
	if end < 0 {
		return "", fmt.Errorf("the string %s has no end", shorten(p.rest))
	}
	s := p.rest[1 : 1+end]
	p.rest = p.rest[end+2:]
	return s, nil
}

func (p *npyParser) boolean() (bool, error) {
	switch {
	case p.accept("True"):
		return true, nil
	case p.accept("False"):
		return false, nil
	}
	return false, fmt.Errorf("expected True or False before %q", shorten(p.rest))
}

func (p *npyParser) tuple() (out []uint64, err error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	for !p.accept(")") {
		p.skip()
		digits := 0
		for digits < len(p.rest) && '0' <= p.rest[digits] && p.rest[digits] <= '9' {
			digits++
		}
		n, err := strconv.ParseUint(p.rest[:digits], 10, 63)
		if err != nil {
			return nil, fmt.Errorf("expected a length before %q", shorten(p.rest))
		}
		if len(out) == npyShapeMax {
			return nil, fmt.Errorf("the shape lists more than %d lengths", npyShapeMax)
		}
		out = append(out, n)
		p.rest = p.rest[digits:]
		if !p.accept(",") {
			return out, p.expect(")")
		}
	}
	return out, nil
}

// npyDecoder returns the size in bytes of one component of the type that descr names, and how to read it.
func npyDecoder(descr string) (size int, decode func([]byte) float32, err error) {
	unknown := fmt.Errorf("components of type %q cannot be read, expected a float of 2, 4 or 8 bytes or an integer, as in '<f4'", descr)
	if len(descr) != 3 {
		return 0, nil, unknown
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch descr[0] {
	case '<', '|': // | is given to types of one byte, which have no order
	case '>':
		order = binary.BigEndian
	default:
		return 0, nil, unknown
	}
	switch descr[1:] {
	case "f2":
		return 2, func(b []byte) float32 { return float16(order.Uint16(b)) }, nil
	case "f4":
		return 4, func(b []byte) float32 { return math.Float32frombits(order.Uint32(b)) }, nil
	case "f8":
		return 8, func(b []byte) float32 { return float32(math.Float64frombits(order.Uint64(b))) }, nil
	case "i1":
		return 1, func(b []byte) float32 { return float32(int8(b[0])) }, nil
	case "u1", "b1":
		return 1, func(b []byte) float32 { return float32(b[0]) }, nil
	case "i2":
		return 2, func(b []byte) float32 { return float32(int16(order.Uint16(b))) }, nil
	case "u2":
		return 2, func(b []byte) float32 { return float32(order.Uint16(b)) }, nil
	case "i4":
		return 4, func(b []byte) float32 { return float32(int32(order.Uint32(b))) }, nil
	case "u4":
		return 4, func(b []byte) float32 { return float32(order.Uint32(b)) }, nil
	case "i8":
		return 8, func(b []byte) float32 { return float32(int64(order.Uint64(b))) }, nil
	case "u8":
		return 8, func(b []byte) float32 { return float32(order.Uint64(b)) }, nil
	}
	return 0, nil, unknown
}

// float16 widens an IEEE 754 half-precision number: 1 bit of sign, 5 of exponent, 10 of fraction.
func float16(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0: // zero and subnormals: multiples of 2^-24, which float32 holds exactly
		return math.Float32frombits(sign | math.Float32bits(float32(fraction)*0x1p-24))
	case 0x1f: // infinities and NaNs
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+127-15)<<23 | fraction<<13)
}

// AppendNPYHeader appends the header of a matrix of rows × dim float32; AppendNPYRow appends the rows that must follow.
func AppendNPYHeader(dst []byte, rows, dim int) []byte {
	const align = 64 // the values begin at a multiple of this
	text := fmt.Sprintf("{'descr': '<f4', 'fortran_order': False, 'shape': (%d, %d), }", rows, dim)
	start := len(npyMagic) + 4
	text += strings.Repeat(" ", align-1-(start+len(text))%align) + "\n"
	dst = append(append(dst, npyMagic...), 1, 0)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(text)))
	return append(dst, text...)
}

// AppendNPYRow appends v as a row of little-endian float32.
func AppendNPYRow(dst []byte, v []float32) []byte {
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
	}
	return dst
}

// shorten cuts s for an error text.
func shorten(s string) string {
	const charsMax = 80
	if len(s) > charsMax {
		return s[:charsMax] + "…"
	}
	return s
}
