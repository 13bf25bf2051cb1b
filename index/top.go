package index

import (
	"math"
	"slices"
)

// Top keeps the k nearest of the neighbors offered to it. The zero value keeps none; Reset says how many. It allocates only
// while it grows to the largest k it has seen. It is for one goroutine at a time.
type Top struct {
	k    int
	heap []Neighbor // a binary heap with the furthest in front. Invariant: len(heap) <= k
}

// Reset empties the set and makes it keep the k nearest of what follows, none if k is not positive.
func (t *Top) Reset(k int) {
	t.k = max(k, 0)
	t.heap = t.heap[:0]
}

// Len returns the number of neighbors kept.
func (t *Top) Len() int { return len(t.heap) }

// Offer keeps n if it is among the k nearest so far.
func (t *Top) Offer(n Neighbor) {
	switch {
	case len(t.heap) < t.k:
		t.heap = append(t.heap, n)
		t.up(len(t.heap) - 1)
	case t.k > 0 && Compare(n, t.heap[0]) < 0:
		t.heap[0] = n
		t.down()
	}
}

// Worst returns the furthest neighbor kept once there are k of them, and one infinitely far before that. What does not
// compare before it need not be offered, except that an infinite distance is kept while there is room.
func (t *Top) Worst() Neighbor {
	switch {
	case len(t.heap) < t.k:
		return Neighbor{Slot: math.MaxUint32, Distance: float32(math.Inf(1))}
	case t.k == 0:
		return Neighbor{Distance: float32(math.Inf(-1))}
	}
	return t.heap[0]
}

// AppendSorted appends the neighbors kept, nearest first. They stay in the set.
func (t *Top) AppendSorted(dst []Neighbor) []Neighbor {
	n := len(dst)
	dst = append(dst, t.heap...)
	slices.SortFunc(dst[n:], Compare)
	return dst
}

// up and down restore the heap after a change at position i and in front. They carry the moving neighbor in a variable
// instead of swapping it step by step.
func (t *Top) up(i int) {
	n := t.heap[i]
	for i > 0 {
		parent := (i - 1) / 2
		if Compare(n, t.heap[parent]) <= 0 {
			break
		}
		t.heap[i] = t.heap[parent]
		i = parent
	}
	t.heap[i] = n
}

func (t *Top) down() {
	n := t.heap[0]
	i := 0
	for {
		child := 2*i + 1
		if child >= len(t.heap) {
			break
		}
		if right := child + 1; right < len(t.heap) && Compare(t.heap[right], t.heap[child]) > 0 {
			child = right
		}
		if Compare(n, t.heap[child]) >= 0 {
			break
		}
		t.heap[i] = t.heap[child]
		i = child
	}
	t.heap[i] = n
}
