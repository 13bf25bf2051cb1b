package sparse

import (
	"cmp"
	"math"
	"math/bits"
	"slices"
	"sort"

	"github.com/vectord/vectord/index"
)

// Params says what a search looks for.
type Params struct {
	// K is the number of best vectors to return.
	K int

	// Filter is a condition on the vectors to return; nil means none.
	Filter *Filter
}

// Filter is a condition on slots.
type Filter struct {
	Slots index.Bitset // those that match; may be read until the search returns
	Count int          // how many they are
}

// Search appends to dst the up to K vectors with the largest dot products with q among those that have a dimension in
// common with it and match the filter, largest first, those with the same in the order of their slots. A Distance is
// the dot product with its sign turned. Products are float32, and summed as such in the order of dimensions: scores are what
// a plain loop gives. It panics unless the indices of q ascend strictly and there is a value for each.
func (x *Index) Search(dst []index.Neighbor, q Vector, p Params) []index.Neighbor {
	q.check()
	if p.K <= 0 {
		return dst
	}
	s := x.searchers.Get().(*searcher)
	defer x.searchers.Put(s)
	defer s.release()
	s.begin(x, q, p)
	if f := p.Filter; f != nil && f.Count*len(s.cursors)*seekPostings < s.postings {
		s.seekAll(f.Slots)
	} else {
		s.scan(f)
	}
	return s.top.AppendSorted(dst)
}

// IDF returns the inverse document frequency of a dimension that df of n vectors have, ln((n-df+0.5)/(df+0.5) + 1). A query
// whose weights are multiplied by it counts what is rare for more.
func IDF(n, df int) float32 {
	return float32(math.Log((float64(n-df)+0.5)/(float64(df)+0.5) + 1))
}

const (
	// windowSlots is the number of slots that a search looks at together. Scores of a window stay in the first cache.
	windowSlots = 4096

	// seekPostings is about how many postings are added up in the time that it takes to find one by its slot.
	seekPostings = 32
)

// searcher is one search. It is MaxScore (Turtle and Flood, "Query evaluation: strategies and optimizations", 1995) with
// the maxima of blocks (Ding and Suel, "Faster top-k document retrieval using block-max indexes", 2011), applied to
// windows of slots as in "Interval-based pruning for top-k processing over compressed lists" (Chakrabarti, Chaudhuri and
// Ganti, 2011):
//
// In each window the most that a list can add to a score is known from its blocks. The lists that add the least, as many
// of them as together stay below the worst of the k best so far, are set aside: a vector that is in no other list is
// not among the best. The others are added up list by list. Where the sum and what the lists set aside could add reach
// the worst of the best, these are looked at too, from the one that adds most to the one that adds least, and after each
// there are fewer sums left.
//
// Sums of float32 depend on their order, so bounds have a margin for what rounding can do, and what has lists set aside in
// its sum is computed anew in the order of dimensions before it is offered.
type searcher struct {
	lists    []list   // those of the query's dimensions, as they were when the search began
	cursors  []cursor // one for each list
	postings int      // in all lists
	top      index.Top

	order []int                    // the cursors, by the most that they can add in the window
	sums  [windowSlots]float32     // of the window; zero between windows
	seen  [windowSlots / 64]uint64 // slots of the window whose sums may lead to the best; zero between windows
}

// cursor is a place in the list of one of the query's dimensions.
type cursor struct {
	list   *list
	weight float32 // the query's

	// The next posting. The tail counts as a page of one block behind the pages, and behind it is the end.
	page, block, at int

	most      float64 // what the list can add to a score in the window, not below zero
	magnitude float64 // the largest absolute value that it can add
	blocks    int     // that the list has in the window
}

// begin takes the snapshot that the search is about.
func (s *searcher) begin(x *Index, q Vector, p Params) {
	s.lists, s.cursors, s.postings = s.lists[:0], s.cursors[:0], 0
	x.mu.RLock()
	defer x.mu.RUnlock()
	for i, dim := range q.Indices {
		l := x.lists[dim]
		if l == nil {
			continue
		}
		s.lists = append(s.lists, *l)
		s.cursors = append(s.cursors, cursor{weight: q.Values[i]})
		s.postings += l.n
	}
	for i := range s.cursors {
		s.cursors[i].list = &s.lists[i]
	}
	s.top.Reset(min(p.K, x.n))
}

// release lets go of the lists, which would live on in the pool.
func (s *searcher) release() { clear(s.lists) }

// seekAll scores the slots of a set one by one.
func (s *searcher) seekAll(slots index.Bitset) {
	for w, word := range slots {
		for ; word != 0; word &= word - 1 {
			s.score(uint32(w*64 + bits.TrailingZeros64(word)))
		}
	}
}

// score offers the score of slot, computed from all lists, unless it is in none. Slots must ascend.
func (s *searcher) score(slot uint32) {
	sum, overlaps := float32(0), false
	for i := range s.cursors {
		c := &s.cursors[i]
		if b := c.seek(slot); b != nil && b.postings[c.at].slot == slot {
			sum += float32(c.weight * b.postings[c.at].weight)
			overlaps = true
		}
	}
	if overlaps {
		s.offer(slot, sum)
	}
}

func (s *searcher) offer(slot uint32, score float32) {
	s.top.Offer(index.Neighbor{Slot: slot, Distance: 0 - score})
}

// worst returns the score that a vector must reach to be among the best.
func (s *searcher) worst() float64 { return -float64(s.top.Worst().Distance) }

// scan goes through the windows that have postings.
func (s *searcher) scan(f *Filter) {
	for end := uint64(0); end <= math.MaxUint32; {
		start := uint64(math.MaxUint64)
		for i := range s.cursors {
			c := &s.cursors[i]
			if b := c.seek(uint32(end)); b != nil {
				start = min(start, uint64(b.postings[c.at].slot))
			}
		}
		if start == math.MaxUint64 {
			return
		}
		start = start / windowSlots * windowSlots
		end = start + windowSlots
		var allowed []uint64 // nil for all
		if f != nil {
			if allowed = f.window(start); len(allowed) == 0 {
				continue
			}
		}
		s.window(uint32(start), allowed)
	}
}

// window returns the words of the window that begins at start, without zeros at the end.
func (f *Filter) window(start uint64) []uint64 {
	first := min(start/64, uint64(len(f.Slots)))
	words := f.Slots[first:min(first+windowSlots/64, uint64(len(f.Slots)))]
	for len(words) > 0 && words[len(words)-1] == 0 {
		words = words[:len(words)-1]
	}
	return words
}

// window offers what is among the best of a window to which all cursors have been moved.
func (s *searcher) window(start uint32, allowed []uint64) {
	aside, margin := s.setAside(start + (windowSlots - 1))
	if aside == len(s.cursors) {
		return
	}
	if aside == 0 {
		for i := range s.cursors { // in the order of dimensions: these are the scores
			s.add(s.cursors[i], start)
		}
	} else {
		for _, i := range s.order[aside:] {
			s.add(s.cursors[i], start)
		}
	}
	if allowed != nil {
		n := len(allowed)
		for w := range s.seen[:n] {
			s.seen[w] &= allowed[w]
		}
		clear(s.seen[n:])
	}
	if aside == 0 || s.narrow(start, s.order[:aside], margin) {
		s.offerSums(start)
	} else {
		s.scoreSeen(start, margin)
	}
	clear(s.sums[:])
	clear(s.seen[:])
}

// setAside orders the lists by what they can add in the window that ends with slot last. It returns how many of the first
// are set aside, and by how much rounding can make a score differ from its bound.
func (s *searcher) setAside(last uint32) (aside int, margin float64) {
	s.order = s.order[:0]
	magnitude := 0.0
	for i := range s.cursors {
		s.cursors[i].bound(last)
		magnitude += s.cursors[i].magnitude
		s.order = append(s.order, i)
	}
	if !(magnitude <= math.MaxFloat32/2) {
		return 0, 0 // sums may overflow, which bounds know nothing of
	}
	// A product and each sum round by half a unit in the last place, or by a tiny number if they underflow: once in the sum
	// of some lists, and once more in the score.
	margin = float64(len(s.cursors)+1) * (magnitude*0x1p-22 + math.SmallestNonzeroFloat32)
	slices.SortFunc(s.order, func(i, j int) int { return cmp.Compare(s.cursors[i].most, s.cursors[j].most) })
	worst, most := s.worst(), 0.0
	for _, i := range s.order {
		if most += s.cursors[i].most; !(most+margin < worst) {
			break
		}
		aside++
	}
	return aside, margin
}

// narrow adds the lists set aside, of which the last can add most, to the sums of the window that may still lead to the best.
// If many are left it sums them anew and reports that they are the scores.
func (s *searcher) narrow(start uint32, aside []int, margin float64) (scores bool) {
	for ; len(aside) > 0; aside = aside[:len(aside)-1] {
		most := margin
		for _, i := range aside {
			most += s.cursors[i].most
		}
		left := s.drop(s.worst() - most)
		if left == 0 {
			return true
		}
		c := s.cursors[aside[len(aside)-1]] // a copy: the cursor itself stays for the scores
		if left*seekPostings < c.blocks*postingsMax {
			s.addSeeking(c, start)
		} else {
			s.addSeen(c, start)
		}
	}
	blocks := 0
	for i := range s.cursors {
		blocks += s.cursors[i].blocks
	}
	if s.drop(s.worst()-margin)*len(s.cursors)*seekPostings < blocks*postingsMax {
		return false
	}
	clear(s.sums[:])
	for _, c := range s.cursors {
		s.addSeen(c, start)
	}
	return true
}

// offerSums offers the sums of the window, which are scores.
func (s *searcher) offerSums(start uint32) {
	for w, word := range s.seen {
		for ; word != 0; word &= word - 1 {
			i := w*64 + bits.TrailingZeros64(word)
			s.offer(start+uint32(i), s.sums[i])
		}
	}
}

// scoreSeen offers the scores of what is seen in the window and may be among the best by its sum.
func (s *searcher) scoreSeen(start uint32, margin float64) {
	for w, word := range s.seen {
		for ; word != 0; word &= word - 1 {
			i := w*64 + bits.TrailingZeros64(word)
			if !(float64(s.sums[i])+margin < s.worst()) { // NaN reaches everything
				s.score(start + uint32(i))
			}
		}
	}
}

// drop forgets the slots whose sums are below a bound, and returns how many are left.
func (s *searcher) drop(bound float64) (left int) {
	for w, word := range s.seen {
		for rest := word; rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros64(rest)
			if float64(s.sums[w*64+i]) < bound {
				word &^= 1 << i
			}
		}
		s.seen[w] = word
		left += bits.OnesCount64(word)
	}
	return left
}

// add adds what a list has in the window.
func (s *searcher) add(c cursor, start uint32) {
	for b := c.current(); b != nil; b = c.next() {
		for _, p := range b.postings[c.at:] {
			i := p.slot - start
			if i >= windowSlots {
				return
			}
			s.sums[i] += float32(c.weight * p.weight)
			s.seen[i/64] |= 1 << (i % 64)
		}
	}
}

// addSeen adds what a list has in the window for the slots that are seen.
func (s *searcher) addSeen(c cursor, start uint32) {
	for b := c.current(); b != nil; b = c.next() {
		for _, p := range b.postings[c.at:] {
			i := p.slot - start
			if i >= windowSlots {
				return
			}
			if s.seen[i/64]>>(i%64)&1 != 0 {
				s.sums[i] += float32(c.weight * p.weight)
			}
		}
	}
}

// addSeeking is addSeen for few slots.
func (s *searcher) addSeeking(c cursor, start uint32) {
	for w, word := range s.seen {
		for ; word != 0; word &= word - 1 {
			i := w*64 + bits.TrailingZeros64(word)
			b := c.seek(start + uint32(i))
			if b == nil {
				return
			}
			if p := b.postings[c.at]; p.slot == start+uint32(i) {
				s.sums[i] += float32(c.weight * p.weight)
			}
		}
	}
}

// bound computes what the list can add up to slot last.
func (c *cursor) bound(last uint32) {
	c.most, c.magnitude, c.blocks = 0, 0, 0
	at := *c
	for b := at.current(); b != nil; b = at.next() {
		low, high := float64(c.weight)*float64(b.min), float64(c.weight)*float64(b.max)
		c.most = max(c.most, low, high)
		c.magnitude = max(c.magnitude, math.Abs(low), math.Abs(high))
		c.blocks++
		if b.last >= last {
			return
		}
	}
}

// current returns the block that the cursor is in, nil at the end.
func (c *cursor) current() *block {
	switch {
	case c.page < len(c.list.pages):
		return &c.list.pages[c.page].blocks[c.block]
	case c.page == len(c.list.pages) && len(c.list.tail.postings) > 0:
		return &c.list.tail
	}
	return nil
}

// next moves the cursor to the beginning of the next block and returns it.
func (c *cursor) next() *block {
	c.block++
	c.at = 0
	if c.page >= len(c.list.pages) || c.block == len(c.list.pages[c.page].blocks) {
		c.page, c.block = c.page+1, 0
	}
	return c.current()
}

// seek moves the cursor forward to the first posting whose slot is not below slot, and returns its block.
func (c *cursor) seek(slot uint32) *block {
	b := c.current()
	if b == nil {
		return nil
	}
	if b.last < slot {
		pages := c.list.pages
		if c.page < len(pages) {
			if pages[c.page].last < slot {
				rest := pages[c.page+1:]
				c.page += 1 + sort.Search(len(rest), func(i int) bool { return rest[i].last >= slot })
				c.block = 0
			}
			if c.page < len(pages) {
				rest := pages[c.page].blocks[c.block:]
				c.block += sort.Search(len(rest), func(i int) bool { return rest[i].last >= slot })
			}
		} else {
			c.page++
		}
		c.at = 0
		if b = c.current(); b == nil {
			return nil
		}
		if b.last < slot {
			c.page++ // behind the tail
			return nil
		}
	}
	if b.postings[c.at].slot < slot {
		rest := b.postings[c.at:]
		c.at += sort.Search(len(rest), func(i int) bool { return rest[i].slot >= slot })
	}
	return b
}
