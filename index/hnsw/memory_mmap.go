//go:build (linux || darwin) && (amd64 || arm64) && !race

package hnsw

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Memory is only reserved at first and becomes real when it is touched, so an arena begins with room for all slots that its
// graph may ever have: it never moves. Address space has an end too, though, of which one arena takes at most a share. Only
// a server with thousands of graphs has arenas that are outgrown, and then copied.
const (
	addressMax   = 1 << 46 // half of what Linux gives a process on amd64
	addressShare = 64      // an arena takes at most this part of what is left
	slotsMin     = 1 << 14 // … or what so many slots need
)

// addressTaken is the address space of all arenas.
var addressTaken atomic.Int64

// arenaSlots returns how many slots of a number of bytes each an arena shall have: at least least, which is at most most.
func arenaSlots(least, most uint64, slotBytes int) uint64 {
	share := uint64(max(addressMax-addressTaken.Load(), 0)) / addressShare / uint64(slotBytes)
	return min(max(share, 2*least, slotsMin), most)
}

// reserve returns zeroed memory outside the Go heap. The address space is taken at once, the memory page by page.
func reserve(bytes int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of address space: %w", bytes, err)
	}
	addressTaken.Add(int64(bytes))
	return b, nil
}

// release gives memory from reserve back. Nothing may touch it any more.
func release(b []byte) {
	if err := unix.Munmap(b); err != nil {
		panic(fmt.Sprintf("hnsw: unmap %d bytes: %v", len(b), err)) // not a mapping of ours: the heap is no longer to be trusted
	}
	addressTaken.Add(-int64(len(b)))
}
