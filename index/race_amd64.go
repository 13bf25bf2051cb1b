//go:build race

package index

import (
	"runtime"
	"unsafe"
)

// reportReads tells the race detector, which does not see what assembly does, that a kernel is about to read two vectors.
func reportReads(a, b []float32) {
	runtime.RaceReadRange(unsafe.Pointer(&a[0]), 4*len(a))
	runtime.RaceReadRange(unsafe.Pointer(&b[0]), 4*len(b))
}

// reportAccesses tells it what a kernel for lists is about to read and write.
func reportAccesses(dst, q, rows []float32, slots []uint32) {
	runtime.RaceWriteRange(unsafe.Pointer(&dst[0]), 4*len(dst))
	runtime.RaceReadRange(unsafe.Pointer(&slots[0]), 4*len(slots))
	for _, slot := range slots {
		reportReads(q, rows[int(slot)*len(q):][:len(q)])
	}
}
