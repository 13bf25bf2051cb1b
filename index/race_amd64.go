//go:build race

package index

import (
	"runtime"
	"unsafe"
)

// reportReads tells the race detector, which does not see what assembly does, that a kernel is about to read two vectors.
func reportReads(a, b []float32) {
	reportRead(a)
	reportRead(b)
}

func reportRead[T float32 | uint32](v []T) {
	runtime.RaceReadRange(unsafe.Pointer(&v[0]), len(v)*int(unsafe.Sizeof(v[0])))
}

// reportAccesses tells it what a kernel for lists is about to read and write.
func reportAccesses(dst, q, rows []float32, slots []uint32) {
	runtime.RaceWriteRange(unsafe.Pointer(&dst[0]), 4*len(dst))
	reportRead(q)
	reportRead(slots)
	for _, slot := range slots {
		reportRead(rows[int(slot)*len(q):][:len(q)])
	}
}
