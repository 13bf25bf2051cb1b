//go:build (amd64 || arm64) && !race

package hnsw

// adviseHuge does nothing: the system has no huge pages for anonymous memory.
func adviseHuge([]byte, int) {}
