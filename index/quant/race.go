//go:build race && (amd64 || arm64)

package quant

import (
	"runtime"
	"unsafe"
)

// reportAccesses tells the race detector, which does not see what assembly does, what a kernel is about to read and write.
func reportAccesses(dst []int32, query []byte, rows []byte, rowSize int, slots []uint32) {
	runtime.RaceWriteRange(unsafe.Pointer(&dst[0]), 4*len(dst))
	runtime.RaceReadRange(unsafe.Pointer(&query[0]), len(query))
	runtime.RaceReadRange(unsafe.Pointer(&slots[0]), 4*len(slots))
	for _, slot := range slots {
		row := rows[int(slot)*rowSize:][:rowSize]
		runtime.RaceReadRange(unsafe.Pointer(&row[0]), rowSize)
	}
}
