//go:build !(linux || darwin) || !(amd64 || arm64) || race

package hnsw

import (
	"fmt"
	"unsafe"
)

// slotsMin is what an arena has room for at least.
const slotsMin = 1 << 10

// arenaSlots returns how many slots an arena shall have: at least least, which is at most most. On the heap memory is real from
// the start, so an arena grows in small steps.
func arenaSlots(least, most uint64, _ int) uint64 {
	slots := uint64(slotsMin)
	for slots < least {
		slots *= 2
	}
	return min(slots, most)
}

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

// adviseHuge does nothing: the Go runtime decides about the pages of its heap.
func adviseHuge([]byte, int) {}
