//go:build (amd64 || arm64) && !race

package hnsw

import "golang.org/x/sys/unix"

// adviseHuge asks for huge pages. Without them everything works, some percent slower, so a refusal is no error.
func adviseHuge(b []byte) { _ = unix.Madvise(b, unix.MADV_HUGEPAGE) }
