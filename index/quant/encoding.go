package quant

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vectord/vectord"
)

// scalarVersion begins the binary form of a Scalar. All numbers in it are little-endian:
//
//	version u8, distance u8, dim u32, scale f32, and for Euclid and Manhattan the center, dim times f32
const scalarVersion = 1

// scalarHeader is the size of what precedes the center.
const scalarHeader = 10

// AppendBinary appends the binary form of the Scalar to dst.
func (s *Scalar) AppendBinary(dst []byte) []byte {
	dst = append(dst, scalarVersion, byte(s.distance))
	dst = binary.LittleEndian.AppendUint32(dst, uint32(s.dim))
	dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(s.scale))
	for _, x := range s.center {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
	}
	return dst
}

// DecodeScalar reads the form that AppendBinary writes, all of b. It returns an error that names what is wrong if b is not
// such a form.
func DecodeScalar(b []byte) (*Scalar, error) {
	if len(b) < scalarHeader {
		return nil, fmt.Errorf("decode quantizer: %d bytes are too few", len(b))
	}
	if b[0] != scalarVersion {
		return nil, fmt.Errorf("decode quantizer: version %d is unknown", b[0])
	}
	d := vectord.Distance(b[1])
	dim := binary.LittleEndian.Uint32(b[2:])
	if dim > vectord.MaxDimension {
		return nil, fmt.Errorf("decode quantizer: dimension %d is not from 1 to %d", dim, vectord.MaxDimension)
	}
	if err := checkShape(d, int(dim)); err != nil {
		return nil, fmt.Errorf("decode quantizer: %w", err)
	}
	scale := math.Float32frombits(binary.LittleEndian.Uint32(b[6:]))
	if !(scale >= scaleMin && scale <= scaleMax) {
		return nil, fmt.Errorf("decode quantizer: scale %v is not from %v to %v", scale, scaleMin, scaleMax)
	}
	b = b[scalarHeader:]
	var center []float32
	if centered(d) {
		center = make([]float32, dim)
	}
	if len(b) != 4*len(center) {
		return nil, fmt.Errorf("decode quantizer: a center of %d bytes, not %d", len(b), 4*len(center))
	}
	for i := range center {
		center[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		if !finite(center[i]) {
			return nil, fmt.Errorf("decode quantizer: component %d of the center is %v", i, center[i])
		}
	}
	return newScalar(d, int(dim), scale, center), nil
}

// checkShape returns an error unless d is a distance and dim a dimension.
func checkShape(d vectord.Distance, dim int) error {
	if !d.Valid() {
		return fmt.Errorf("distance %d is unknown", uint8(d))
	}
	if dim < 1 || dim > vectord.MaxDimension {
		return fmt.Errorf("dimension %d is not from 1 to %d", dim, vectord.MaxDimension)
	}
	return nil
}
