package hnsw

import "slices"

// visited is the set of slots that a walk has met. They are also kept in the order in which they were met: each step of a
// walk scores those that it has added, and a large set is emptied by way of them.
type visited struct {
	words []uint64
	met   []uint32
}

// clearRatio is how many words of memory are cleared in the time that one word by way of met takes.
const clearRatio = 8

// reset empties the set and lets it hold the slots below limit.
func (v *visited) reset(limit uint32) {
	if clearRatio*len(v.met) < len(v.words) {
		for _, slot := range v.met {
			v.words[slot/64] = 0
		}
	} else {
		clear(v.words)
	}
	v.met = v.met[:0]
	n := (int(limit) + 63) / 64
	if n > cap(v.words) {
		v.words = make([]uint64, n+n/8) // a graph that grows would otherwise allocate for every search
	}
	v.words = v.words[:n]
}

// add adds a slot and reports whether it was not in the set.
func (v *visited) add(slot uint32) bool {
	w := &v.words[slot/64]
	bit := uint64(1) << (slot % 64)
	if *w&bit != 0 {
		return false
	}
	*w |= bit
	v.met = append(v.met, slot)
	return true
}

// addLinks adds the links of a row that are below limit, and returns those that were not in the set. The result is valid
// until reset.
func (v *visited) addLinks(row []uint32, limit uint32, f fetcher) []uint32 {
	n := len(v.met)
	v.met = slices.Grow(v.met, len(row))
	v.met = v.met[:n+visitLinks(row, v.words, limit, v.met[n:n+len(row)], f)]
	return v.met[n:]
}

// addVisible adds those links of a row that are below limit and whose bits in shown are set, and appends to dst those that
// were not in the set.
func (v *visited) addVisible(dst, row []uint32, shown []uint64, limit uint32, f fetcher) []uint32 {
	n := len(v.met)
	v.met = slices.Grow(v.met, len(row))
	v.met = v.met[:n+visitVisible(row, v.words, shown, limit, v.met[n:n+len(row)], f)]
	return append(dst, v.met[n:]...)
}
