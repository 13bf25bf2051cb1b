package field

import (
	"container/heap"
	"encoding/binary"
	"math"
)

// Cell is a place on a grid of 2^32 by 2^32: the bits of longitude and latitude in turn, so that squares of a side of a
// power of two are ranges of cells (Morton, 1966).
type Cell uint64

// coordinate maps x from low to high to 32 bits, in the same order; what is beyond is moved to the border.
func coordinate(x, low, high float64) uint32 {
	share := (x - low) / (high - low)
	return uint32(min(max(share, 0)*(1<<32), math.MaxUint32))
}

// CellAt returns the cell of a longitude and a latitude in degrees, which must not be NaN. Moving east or north never goes
// to a lower column or row.
func CellAt(lon, lat float64) Cell {
	return Cell(spread(coordinate(lon, -180, 180))<<1 | spread(coordinate(lat, -90, 90)))
}

// spread puts the bits of x at the even places.
func spread(x uint32) uint64 {
	n := uint64(x)
	n = (n | n<<16) & 0x0000ffff0000ffff
	n = (n | n<<8) & 0x00ff00ff00ff00ff
	n = (n | n<<4) & 0x0f0f0f0f0f0f0f0f
	n = (n | n<<2) & 0x3333333333333333
	n = (n | n<<1) & 0x5555555555555555
	return n
}

// Place returns the term of a place.
func Place(lon, lat float64) string { return CellAt(lon, lat).term() }

func (c Cell) term() string {
	return string(binary.BigEndian.AppendUint64([]byte{tagPlace}, uint64(c)))
}

// boxRangesMax bounds the ranges that a box is cut into. More would fit the box closer and take longer to read.
const boxRangesMax = 128

// square is a square of cells of side 2^level whose lowest column and row are given.
type square struct {
	column, row uint32
	level       int
}

func (q square) terms() Range {
	first := Cell(spread(q.column)<<1 | spread(q.row))
	if q.level == 32 {
		return Places
	}
	to := Places.To
	if next := first + 1<<(2*q.level); next > first {
		to = next.term()
	}
	return Range{first.term(), to}
}

// squares is a heap with the largest first.
type squares []square

func (s squares) Len() int           { return len(s) }
func (s squares) Less(i, j int) bool { return s[i].level > s[j].level }
func (s squares) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *squares) Push(x any)        { *s = append(*s, x.(square)) }
func (s *squares) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// Box returns ranges of the terms of places in the box from west to east and south to north: inside holds places that are
// in the box, border such as may be in it, and no other place is. West must not be greater than east, nor south than north.
func Box(west, south, east, north float64) (inside, border []Range) {
	w, e := coordinate(west, -180, 180), coordinate(east, -180, 180)
	s, n := coordinate(south, -90, 90), coordinate(north, -90, 90)
	var left squares // which meet the border
	offer := func(q square) {
		last := uint32(1<<q.level - 1) // all ones at level 32
		switch east, north := q.column+last, q.row+last; {
		case east < w || q.column > e || north < s || q.row > n:
		// A cell that the border goes through holds places on both sides of it, the next one does not.
		case q.column > w && east < e && q.row > s && north < n:
			inside = append(inside, q.terms())
		case q.level == 0:
			border = append(border, q.terms())
		default:
			heap.Push(&left, q)
		}
	}
	offer(square{level: 32})
	for len(left) > 0 && len(left)+len(inside)+len(border) < boxRangesMax {
		q := heap.Pop(&left).(square)
		half := uint32(1) << (q.level - 1)
		for i := range uint32(4) {
			offer(square{column: q.column + i>>1*half, row: q.row + i&1*half, level: q.level - 1})
		}
	}
	for _, q := range left {
		border = append(border, q.terms())
	}
	return inside, border
}
