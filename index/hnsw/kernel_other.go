//go:build !amd64 || race

package hnsw

// visitLinks, visitVisible, fetchLinks, admit and walkBase are as in kernel_amd64.go.

func visitLinks(row []uint32, words []uint64, limit uint32, met []uint32, _ fetcher) int {
	return visitPortable(row, words, limit, met)
}

// hop is for the kernels of other builds.
type hop struct{}

func (s *searcher) walkBase() bool { return false }

func visitVisible(row []uint32, words, allow []uint64, limit uint32, met []uint32, _ fetcher) int {
	return visitVisiblePortable(row, words, allow, limit, met)
}

func fetchLinks([]uint32, uint32, fetcher) {}

func (p *pool) admit(slots []uint32, distances []int32, _ []uint32, _ int) int {
	return p.admitPortable(slots, distances)
}
