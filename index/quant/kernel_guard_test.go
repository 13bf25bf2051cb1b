//go:build linux && (amd64 || arm64)

package quant

import (
	"syscall"
	"testing"
	"unsafe"

	"github.com/vectord/vectord"
)

const page = 1 << 16 // a multiple of the page size of every machine

// TestKernelsStayInside puts rows, query, slots and distances each at the end of memory behind which nothing may be
// touched: a kernel that reads or writes past the end dies of it.
func TestKernelsStayInside(t *testing.T) {
	guarded := func(size int) []byte {
		m, err := syscall.Mmap(-1, 0, 2*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := syscall.Munmap(m); err != nil {
				t.Error(err)
			}
		})
		if err := syscall.Mprotect(m[page:], syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
		return m[page-size : page : page]
	}
	for _, d := range distances {
		for _, size := range []int{64, 128, 384, 4096} {
			s := scalarOfSize(d, size)
			for count := 1; count <= 9; count++ {
				rows := guarded(count * size)
				q := &Query{codes: guarded(size)}
				slots := unsafe.Slice((*uint32)(unsafe.Pointer(&guarded(4 * count)[0])), count)
				for i := range slots {
					slots[i] = uint32(count - 1 - i)
				}
				dst := unsafe.Slice((*int32)(unsafe.Pointer(&guarded(4 * count)[0])), count)
				for _, l := range levels(t) {
					s.compareAt(l, dst, q, rows, slots)
				}
			}
		}
	}
	available := levels(t)
	for _, d := range distances {
		for _, compression := range vectord.Compressions() {
			p := newProduct(d, 24, compression)
			atEnd := func(floats []float32) []float32 {
				m := guarded(4 * len(floats))
				return unsafe.Slice((*float32)(unsafe.Pointer(&m[0])), len(floats))
			}
			p.centroids = atEnd(p.centroids)
			for count := 1; count <= 9; count++ {
				rows := guarded(count * p.rowSize)
				for i := range count {
					for piece := range p.pieces() {
						rows[i*p.rowSize+piece] = productCentroids - 1
					}
				}
				slots := unsafe.Slice((*uint32)(unsafe.Pointer(&guarded(4 * count)[0])), count)
				for i := range slots {
					slots[i] = uint32(count - 1 - i)
				}
				dst, vector := atEnd(make([]float32, count)), atEnd(make([]float32, p.padded()))
				for _, l := range available {
					p.compareAt(l, dst, vector, rows, slots)
				}
			}
			table, piece, columns := atEnd(make([]float32, productCentroids)), atEnd(make([]float32, p.width)), atEnd(p.of(0))
			for _, l := range available {
				tabulateAt(l, d, (*[productCentroids]float32)(table), piece, columns)
				leastOfAt(l, (*[productCentroids]float32)(table))
			}
		}
	}
	for _, size := range []int{64, 128, 192, 1024} {
		b := &Binary{rowSize: size}
		for count := 1; count <= 9; count++ {
			rows := guarded(count * size)
			q := &Query{codes: guarded(planeBits * size)}
			slots := unsafe.Slice((*uint32)(unsafe.Pointer(&guarded(4 * count)[0])), count)
			for i := range slots {
				slots[i] = uint32(count - 1 - i)
			}
			dst := unsafe.Slice((*int32)(unsafe.Pointer(&guarded(4 * count)[0])), count)
			for _, l := range levels(t) {
				b.compareAt(l, dst, q, rows, slots)
			}
		}
	}
}

// TestKernelsReachFar compares rows whose slots and places in the arena need all of their bits: as signed numbers or in 32
// bits they would name memory that may not be touched.
func TestKernelsReachFar(t *testing.T) {
	for _, far := range []struct{ slot, size int }{{1 << 16, 1 << 16}, {1 << 31, 64}} {
		length := (far.slot + 1) * far.size
		m, err := syscall.Mmap(-1, 0, length, syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
		if err != nil {
			t.Skipf("no address space of %d bytes: %v", length, err)
		}
		defer syscall.Munmap(m)
		if err := syscall.Mprotect(m[far.slot*far.size/page*page:], syscall.PROT_READ|syscall.PROT_WRITE); err != nil {
			t.Fatal(err)
		}
		row := m[far.slot*far.size:]
		q := &Query{codes: make([]byte, far.size), add: 7}
		for i := range row {
			row[i], q.codes[i] = byte(i), byte(3*i)
		}
		slots := make([]uint32, 9) // two rounds of four, of which the first prefetches the second, and one
		for i := range slots {
			slots[i] = uint32(far.slot)
		}
		for _, d := range distances {
			checkLevels(t, levels(t), scalarOfSize(d, far.size), q, m, slots)
		}
	}
}
