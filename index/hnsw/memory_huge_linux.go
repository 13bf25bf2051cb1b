//go:build (amd64 || arm64) && !race

package hnsw

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages, for what will be touched and, if the kernel is recent enough, for the first bytes that have
// been. Without them everything works, some percent slower, so a refusal is no error.
func adviseHuge(b []byte, touched int) {
	_ = unix.Madvise(b, unix.MADV_HUGEPAGE)
	_ = unix.Madvise(b[:touched], unix.MADV_COLLAPSE)
}
