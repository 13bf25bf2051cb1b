package quant

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/vectord/vectord"
)

// The binary forms of the codecs, all numbers little-endian:
//
//	Scalar:  version u8 = 4, distance u8, dim u32, scale f32, quantile f32, for Euclid and Manhattan the center, dim times f32
//	Float32: version u8 = 2, distance u8, dim u32
//	Binary:  version u8 = 3, distance u8, dim u32, the center, dim times f32
//	Product: version u8 = 5, distance u8, dim u32, compression u8, the least of each component, dim times f32, the largest,
//	         dim times f32, of each piece the centroids, 256 times as many f32 as it has components
const (
	shapeBytes   = 6 // of version, distance and dim
	scalarHeader = shapeBytes + 8

	productHeader = shapeBytes + 1
)

func appendShape(dst []byte, version byte, d vectord.Distance, dim int) []byte {
	dst = append(dst, version, byte(d))
	return binary.LittleEndian.AppendUint32(dst, uint32(dim))
}

func appendFloats(dst []byte, v []float32) []byte {
	for _, x := range v {
		dst = binary.LittleEndian.AppendUint32(dst, math.Float32bits(x))
	}
	return dst
}

// decodeShape reads the beginning of a form, which is at least size bytes, and checks it.
func decodeShape(b []byte, version byte, size int) (vectord.Distance, int, error) {
	if len(b) < size {
		return 0, 0, fmt.Errorf("decode quantizer: %d bytes are too few", len(b))
	}
	if b[0] != version {
		return 0, 0, fmt.Errorf("decode quantizer: version %d is unknown", b[0])
	}
	d := vectord.Distance(b[1])
	dim := binary.LittleEndian.Uint32(b[2:])
	if dim > vectord.MaxDimension {
		return 0, 0, fmt.Errorf("decode quantizer: dimension %d is not from 1 to %d", dim, vectord.MaxDimension)
	}
	if err := checkShape(d, int(dim)); err != nil {
		return 0, 0, fmt.Errorf("decode quantizer: %w", err)
	}
	return d, int(dim), nil
}

// FormBytesMax bounds the binary form of every codec.
const FormBytesMax = productHeader + vectord.MaxDimension*productDimBytes

// productDimBytes is what a Product's form has for each dimension.
const productDimBytes = float32Bytes * (2 + productCentroids)

// decodeCenter reads a center of dim components, all of b.
func decodeCenter(b []byte, dim int) ([]float32, error) {
	if len(b) != 4*dim {
		return nil, fmt.Errorf("decode quantizer: a center of %d bytes, not %d", len(b), 4*dim)
	}
	center := make([]float32, dim)
	for i := range center {
		center[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		if !finite(center[i]) {
			return nil, fmt.Errorf("decode quantizer: component %d of the center is %v", i, center[i])
		}
	}
	return center, nil
}

// AppendBinary appends the binary form of the Scalar to dst.
func (s *Scalar) AppendBinary(dst []byte) []byte {
	dst = appendShape(dst, scalarVersion, s.distance, s.dim)
	dst = appendFloats(dst, []float32{s.scale, s.quantile})
	return appendFloats(dst, s.center)
}

// DecodeScalar reads the form that AppendBinary writes, all of b. It returns an error that names what is wrong if b is not
// such a form.
func DecodeScalar(b []byte) (*Scalar, error) {
	d, dim, err := decodeShape(b, scalarVersion, scalarHeader)
	if err != nil {
		return nil, err
	}
	scale := math.Float32frombits(binary.LittleEndian.Uint32(b[shapeBytes:]))
	if !(scale >= scaleMin && scale <= scaleMax) {
		return nil, fmt.Errorf("decode quantizer: scale %v is not from %v to %v", scale, scaleMin, scaleMax)
	}
	quantile := math.Float32frombits(binary.LittleEndian.Uint32(b[shapeBytes+4:]))
	if !validQuantile(quantile) {
		return nil, fmt.Errorf("decode quantizer: quantile %v is not from %v to 1", quantile, QuantileMin)
	}
	centerDim := 0
	if centered(d) {
		centerDim = dim
	}
	center, err := decodeCenter(b[scalarHeader:], centerDim)
	if err != nil {
		return nil, err
	}
	if !centered(d) {
		center = nil
	}
	s := newScalar(d, dim, scale, center)
	s.quantile = quantile
	return s, nil
}

// AppendBinary appends the binary form of the Float32 to dst.
func (f *Float32) AppendBinary(dst []byte) []byte {
	return appendShape(dst, float32Version, f.distance, f.dim)
}

// DecodeFloat32 reads the form that AppendBinary writes, all of b. It returns an error that names what is wrong if b is not
// such a form.
func DecodeFloat32(b []byte) (*Float32, error) {
	d, dim, err := decodeShape(b, float32Version, shapeBytes)
	if err != nil {
		return nil, err
	}
	if len(b) != shapeBytes {
		return nil, fmt.Errorf("decode quantizer: %d bytes, not %d", len(b), shapeBytes)
	}
	return NewFloat32(d, dim)
}

// AppendBinary appends the binary form of the Binary to dst.
func (b *Binary) AppendBinary(dst []byte) []byte {
	return appendFloats(appendShape(dst, binaryVersion, b.distance, b.dim), b.center)
}

// DecodeBinary reads the form that AppendBinary writes, all of form. It returns an error that names what is wrong if form is
// not such a form.
func DecodeBinary(form []byte) (*Binary, error) {
	d, dim, err := decodeShape(form, binaryVersion, shapeBytes)
	if err != nil {
		return nil, err
	}
	if err := checkBinary(d, dim); err != nil {
		return nil, fmt.Errorf("decode quantizer: %w", err)
	}
	center, err := decodeCenter(form[shapeBytes:], dim)
	if err != nil {
		return nil, err
	}
	return newBinary(d, center), nil
}

// AppendBinary appends the binary form of the Product to dst.
func (p *Product) AppendBinary(dst []byte) []byte {
	dst = slices.Grow(dst, productHeader+p.dim*productDimBytes)
	dst = append(appendShape(dst, productVersion, p.distance, p.dim), byte(p.compression))
	dst = appendFloats(appendFloats(dst, p.low), p.high)
	for piece := range p.pieces() {
		for c := range productCentroids {
			dst = appendFloats(dst, p.centroid(piece, c)[:p.starts[piece+1]-p.starts[piece]])
		}
	}
	return dst
}

// DecodeProduct reads the form that AppendBinary writes, all of b. It returns an error that names what is wrong if b is not
// such a form.
func DecodeProduct(b []byte) (*Product, error) {
	d, dim, err := decodeShape(b, productVersion, productHeader)
	if err != nil {
		return nil, err
	}
	compression := int(b[shapeBytes])
	if err := checkProduct(d, dim, compression); err != nil {
		return nil, fmt.Errorf("decode quantizer: %w", err)
	}
	if want := productHeader + dim*productDimBytes; len(b) != want {
		return nil, fmt.Errorf("decode quantizer: %d bytes, not %d", len(b), want)
	}
	p := newProduct(d, dim, compression)
	b = b[productHeader:]
	next := func(dst []float32, most float32) error {
		for i := range dst {
			dst[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[float32Bytes*i:]))
			if !(dst[i] >= -most && dst[i] <= most) {
				return fmt.Errorf("decode quantizer: component %v is not from %v to %v", dst[i], -most, most)
			}
		}
		b = b[float32Bytes*len(dst):]
		return nil
	}
	if err := errors.Join(next(p.low, math.MaxFloat32), next(p.high, math.MaxFloat32)); err != nil {
		return nil, err
	}
	centroids := make([]float32, productCentroids*p.width)
	for piece := range p.pieces() {
		for c := range productCentroids {
			if err := next(centroids[c*p.width:][:p.starts[piece+1]-p.starts[piece]], productMax); err != nil {
				return nil, err
			}
		}
		p.setCentroids(piece, centroids)
		clear(centroids)
	}
	return p, nil
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
