//go:build linux

package index

import (
	"syscall"
	"testing"
	"unsafe"
)

// TestKernelsStayInside puts rows, query, slots and distances each between memory that may not be touched, once at its
// end and once at its beginning: a kernel that reads or writes outside dies of it.
func TestKernelsStayInside(t *testing.T) {
	const page = 1 << 16 // a multiple of the page size of every machine
	for _, atEnd := range []bool{true, false} {
		guarded := func(size int) unsafe.Pointer {
			m, err := syscall.Mmap(-1, 0, 3*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := syscall.Munmap(m); err != nil {
					t.Error(err)
				}
			})
			for _, guard := range [][]byte{m[:page], m[2*page:]} {
				if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
					t.Fatal(err)
				}
			}
			if atEnd {
				return unsafe.Pointer(&m[2*page-size])
			}
			return unsafe.Pointer(&m[page])
		}
		for _, dim := range []int{1, 5, 16, 17, 33, 48, 63, 64, 65, 100, 128, 250, 1000} {
			for count := 1; count <= 9; count++ {
				rows := unsafe.Slice((*float32)(guarded(4*count*dim)), count*dim)
				q := unsafe.Slice((*float32)(guarded(4*dim)), dim)
				slots := unsafe.Slice((*uint32)(guarded(4*count)), count)
				for i := range slots {
					slots[i] = uint32(count - 1 - i)
				}
				dst := unsafe.Slice((*float32)(guarded(4*count)), count)
				for _, l := range levels(t) {
					for _, d := range distances {
						distancesAt(l, d, dst, q, rows, slots)
						scanAt(l, d, dst, q, rows)
						distanceAt(l, d)(q, rows[(count-1)*dim:])
						distanceAt(l, d)(rows[:dim], q)
					}
				}
			}
		}
	}
}
