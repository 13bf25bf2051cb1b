// Package index says what the vector indexes have in common: neighbors and their order, exact distances, sets of slots,
// and Flat, the exact index to which every other one answers.
//
// An index knows vectors by slot, a small number that its owner assigns. Ids, payloads and filters are the owner's.
package index

import (
	"cmp"
	"math"

	"github.com/vectord/vectord"
)

// Neighbor is a slot found by a search. Smaller Distance is nearer, for every vectord.Distance.
type Neighbor struct {
	Slot     uint32
	Distance float32
}

// Compare orders neighbors from the nearest to the furthest, those at equal distance by slot. The order is total: NaN
// comes after every other distance.
func Compare(a, b Neighbor) int {
	switch {
	case a.Distance < b.Distance:
		return -1
	case a.Distance > b.Distance:
		return 1
	case a.Distance == b.Distance:
		return cmp.Compare(a.Slot, b.Slot)
	}
	// At least one is NaN, which cmp.Compare puts first.
	if c := cmp.Compare(b2i(a.Distance != a.Distance), b2i(b.Distance != b.Distance)); c != 0 {
		return c
	}
	return cmp.Compare(a.Slot, b.Slot)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Score turns a distance of DistanceFunc into what the API shows: the dot product for Cosine and Dot, the L2 distance for
// Euclid, the L1 distance for Manhattan.
func Score(d vectord.Distance, distance float32) float32 {
	switch d {
	case vectord.Cosine, vectord.Dot:
		return 0 - distance // not -distance: a dot product of zero shall not show as -0
	case vectord.Euclid:
		return float32(math.Sqrt(float64(distance)))
	}
	return distance
}
