package sparse

import "sort"

// postingsMax is the number of postings of a full block, and blocksMax that of the blocks of a full page. Small ones make
// changes cheap and maxima sharp, large ones make lists small.
const (
	postingsMax = 64
	blocksMax   = 64
)

// Neighbors that would be at most this full together become one, so that a list that shrank is small again.
const (
	postingsMerged = postingsMax * 3 / 4
	blocksMerged   = blocksMax * 3 / 4
)

// posting is a vector's weight in the dimension of the list.
type posting struct {
	slot   uint32
	weight float32
}

// block is a run of postings in the order of their slots, with the range of their weights.
type block struct {
	postings []posting
	last     uint32 // slot of the last posting
	min, max float32
}

func newBlock(postings []posting) block {
	b := block{postings: postings, last: postings[len(postings)-1].slot, min: postings[0].weight, max: postings[0].weight}
	for _, p := range postings[1:] {
		b.min, b.max = min(b.min, p.weight), max(b.max, p.weight)
	}
	return b
}

// page is a run of blocks.
type page struct {
	blocks []block
	last   uint32 // slot of the last posting
}

func newPage(blocks []block) page { return page{blocks, blocks[len(blocks)-1].last} }

// list has the postings of one dimension in the order of their slots: those of the pages, then those of the tail. It is a
// tree of three levels whose nodes are never changed, so that a copy of the list, which is small, is a snapshot of all of
// it. A change makes new nodes from the posting to the root, some kilobytes however long the list is.
//
// The exception is what makes loading fast: a slot above all others is appended to the tail in place, behind the postings
// that any copy knows of. Hence the rule that arrays are extended in place or copied, and nothing else: if one were cut
// short in place, the next append would overwrite what a copy still reads.
type list struct {
	pages []page
	tail  block // postings nil if there are none
	n     int   // number of postings
}

// insert adds a posting whose slot is not in the list.
func (l *list) insert(p posting) {
	l.n++
	switch {
	case len(l.tail.postings) > 0 && p.slot > l.tail.last:
		if len(l.tail.postings) == postingsMax {
			l.appendBlock(l.tail)
			l.tail = newBlock([]posting{p})
			return
		}
		l.tail.postings = append(l.tail.postings, p)
		l.tail.last = p.slot
		l.tail.min, l.tail.max = min(l.tail.min, p.weight), max(l.tail.max, p.weight)
	case len(l.pages) == 0 || p.slot > l.pages[len(l.pages)-1].last:
		blocks := inserted(l.tail.postings, p)
		if len(blocks) == 2 {
			l.appendBlock(blocks[0])
		}
		l.tail = blocks[len(blocks)-1]
	default:
		i, j := l.find(p.slot)
		blocks := l.pages[i].blocks
		l.replacePage(i, spliced(blocks, j, j+1, inserted(blocks[j].postings, p)...))
	}
}

// remove removes the posting of a slot that is in the list.
func (l *list) remove(slot uint32) {
	l.n--
	if len(l.pages) == 0 || slot > l.pages[len(l.pages)-1].last {
		rest := removed(l.tail.postings, slot)
		if len(rest) == 0 {
			l.tail = block{}
		} else {
			l.tail = newBlock(rest)
		}
		return
	}
	i, j := l.find(slot)
	blocks := l.pages[i].blocks
	rest := removed(blocks[j].postings, slot)
	from, to := j, j+1
	switch {
	case len(rest) == 0:
		l.replacePage(i, spliced(blocks, from, to))
		return
	case to < len(blocks) && len(rest)+len(blocks[to].postings) <= postingsMerged:
		rest = append(rest, blocks[to].postings...)
		to++
	case from > 0 && len(rest)+len(blocks[from-1].postings) <= postingsMerged:
		rest = spliced(rest, 0, 0, blocks[from-1].postings...)
		from--
	}
	l.replacePage(i, spliced(blocks, from, to, newBlock(rest)))
}

// find returns the page and the block in it where slot is or belongs. There are pages, and slot is not above their last.
func (l *list) find(slot uint32) (i, j int) {
	i = sort.Search(len(l.pages), func(i int) bool { return l.pages[i].last >= slot })
	blocks := l.pages[i].blocks
	return i, sort.Search(len(blocks), func(j int) bool { return blocks[j].last >= slot })
}

// appendBlock puts a block behind the last one of the pages.
func (l *list) appendBlock(b block) {
	if last := len(l.pages) - 1; last >= 0 {
		l.replacePage(last, spliced(l.pages[last].blocks, len(l.pages[last].blocks), len(l.pages[last].blocks), b))
		return
	}
	l.pages = []page{newPage([]block{b})}
}

// replacePage makes blocks the content of page i: none, one page or two. If that leaves little it takes in a neighbor.
func (l *list) replacePage(i int, blocks []block) {
	switch n := len(blocks); {
	case n == 0:
		l.pages = spliced(l.pages, i, i+1)
	case n > blocksMax && i == len(l.pages)-1: // the end of a list that grows there leaves full pages behind
		l.pages = spliced(l.pages, i, i+1, newPage(blocks[:blocksMax:blocksMax]), newPage(blocks[blocksMax:]))
	case n > blocksMax:
		l.pages = spliced(l.pages, i, i+1, newPage(blocks[:n/2:n/2]), newPage(blocks[n/2:]))
	case i+1 < len(l.pages) && n+len(l.pages[i+1].blocks) <= blocksMerged:
		l.pages = spliced(l.pages, i, i+2, newPage(spliced(blocks, n, n, l.pages[i+1].blocks...)))
	case i > 0 && n+len(l.pages[i-1].blocks) <= blocksMerged:
		l.pages = spliced(l.pages, i-1, i+1, newPage(spliced(blocks, 0, 0, l.pages[i-1].blocks...)))
	default:
		l.pages = spliced(l.pages, i, i+1, newPage(blocks))
	}
}

// spliced returns a new array of s with with in the place of s[i:j].
func spliced[T any](s []T, i, j int, with ...T) []T {
	r := make([]T, 0, len(s)-(j-i)+len(with))
	return append(append(append(r, s[:i]...), with...), s[j:]...)
}

// inserted returns the block or, if that would be too long, the two blocks that postings make together with p.
func inserted(postings []posting, p posting) []block {
	at := sort.Search(len(postings), func(i int) bool { return postings[i].slot > p.slot })
	all := spliced(postings, at, at, p)
	if n := len(all); n > postingsMax {
		return []block{newBlock(all[: n/2 : n/2]), newBlock(all[n/2:])}
	}
	return []block{newBlock(all)}
}

// removed returns a new array of the postings but the one of slot.
func removed(postings []posting, slot uint32) []posting {
	at := sort.Search(len(postings), func(i int) bool { return postings[i].slot >= slot })
	return spliced(postings, at, at+1)
}
