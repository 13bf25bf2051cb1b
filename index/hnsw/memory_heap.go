//go:build !(linux || darwin) || !(amd64 || arm64) || race

package hnsw

import (
	"fmt"
	"unsafe"
)

// An arena begins with room for firstSlots and grows by growthFactor. On the heap memory is real from the start, so it
// grows in small steps.
const (
	firstSlots   = 1 << 10
	growthFactor = 2
)

// heapBytesMax bounds one arena where address space cannot be reserved apart from memory.
const heapBytesMax = 1 << 30

// reserve returns zeroed memory on the Go heap, where the race detector sees every access to it.
func reserve(bytes int) ([]byte, error) {
	if bytes > heapBytesMax {
		return nil, fmt.Errorf("reserve %d bytes on the heap: at most %d", bytes, heapBytesMax)
	}
	words := make([]uint64, (bytes+7)/8) // aligned for atomic access
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), bytes), nil
}

// release leaves the memory to the garbage collector.
func release([]byte) {}
