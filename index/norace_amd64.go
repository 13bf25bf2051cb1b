//go:build !race

package index

// reportReads and reportAccesses are for builds with the race detector.
func reportReads(_, _ []float32) {}

func reportAccesses[T float32 | Float16](_, _ []float32, _ []T, _ []uint32) {}
