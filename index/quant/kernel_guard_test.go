//go:build linux

package quant

import (
	"syscall"
	"testing"
	"unsafe"
)

// TestKernelsStayInside puts rows, query, slots and distances each at the end of memory behind which nothing may be
// touched: a kernel that reads or writes past the end dies of it.
func TestKernelsStayInside(t *testing.T) {
	const page = 1 << 16 // a multiple of the page size of every machine
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
}
