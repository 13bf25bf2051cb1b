//go:build !race

package index

// reportReads and reportAccesses are for builds with the race detector.
func reportReads(_, _ []float32) {}

func reportAccesses(_, _, _ []float32, _ []uint32) {}
