//go:build (linux || darwin) && (amd64 || arm64) && !race

package hnsw

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// An arena begins with room for firstSlots and grows by growthFactor. Memory is only reserved here, and becomes real when
// it is touched, so the second size is generous: past it a graph grows without ever being copied, while a small graph
// takes a few megabytes of address space and a server may hold thousands of them.
const (
	firstSlots   = 1 << 14
	growthFactor = 1 << 10
)

// hugeBytes is the size from which memory asks for huge pages. In a smaller arena a page of 2 MiB would be mostly waste.
const hugeBytes = 64 << 20

// reserve returns zeroed memory outside the Go heap. The address space is taken at once, the memory page by page.
func reserve(bytes int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of address space: %w", bytes, err)
	}
	if bytes >= hugeBytes {
		adviseHuge(b)
	}
	return b, nil
}

// release gives memory from reserve back. Nothing may touch it any more.
func release(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("hnsw: unmap %d bytes: %v", len(b), err)) // not a mapping of ours: the heap is no longer to be trusted
	}
}
