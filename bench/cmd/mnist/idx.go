package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/vectord/vectord"
)

// idxImages is the magic number of an IDX file of unsigned bytes in three dimensions.
const idxImages = 0x00000803

// idxReader reads images in the IDX format: big-endian numbers, namely the magic one, how many images there are and their
// height and width, then the bytes of the pixels. It is not safe for concurrent use.
type idxReader struct {
	r      *bufio.Reader
	images uint32 // that the header promises
	next   uint32
	pixels []byte
	vector []float32
}

func newIDXReader(r io.Reader) (*idxReader, error) {
	b := bufio.NewReader(r)
	var header struct{ Magic, Images, Height, Width uint32 }
	if err := binary.Read(b, binary.BigEndian, &header); err != nil {
		return nil, fmt.Errorf("read the header: %w", err)
	}
	if header.Magic != idxImages {
		return nil, fmt.Errorf("the magic number is %#08x, that of images is %#08x", header.Magic, idxImages)
	}
	if size := uint64(header.Height) * uint64(header.Width); size < 1 || size > vectord.MaxDimension {
		return nil, fmt.Errorf("images of %d × %d pixels, a vector has from 1 to %d components", header.Height, header.Width, vectord.MaxDimension)
	}
	size := int(header.Height * header.Width)
	return &idxReader{r: b, images: header.Images, pixels: make([]byte, size), vector: make([]float32, size)}, nil
}

// Next returns the next image as a vector of its pixels from 0 to 255, row by row, valid until the following call. After
// the last image it returns io.EOF.
func (x *idxReader) Next() ([]float32, error) {
	if x.next == x.images {
		return nil, io.EOF
	}
	if _, err := io.ReadFull(x.r, x.pixels); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("image %d of %d: %w", x.next, x.images, err)
	}
	x.next++
	for i, p := range x.pixels {
		x.vector[i] = float32(p)
	}
	return x.vector, nil
}
