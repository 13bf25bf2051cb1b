// Command hnsw writes the assembly kernels of package hnsw: the steps of a walk, and a whole hop in one call. Run "go generate"
// in index/hnsw.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"github.com/vectord/vectord/index/asm/rows"
)

// line is the size of a cache line.
const line = 64

func main() {
	visit()
	visitVisible()
	fetch()
	admit()
	hop(rows.Dot)
	hop(rows.Euclid)
	Generate()
}

// param loads a parameter of the function.
func param(name string) GPVirtual {
	r := GP64()
	Load(Param(name), r)
	return r
}

// visit writes the kernel that looks at the links of one node.
func visit() {
	TEXT("visitAMD64", NOSPLIT, "func(links *uint32, width int, words *uint64, limit uint64, met *uint32, rows *byte, rowSize int, lines int) int")
	Pragma("noescape")
	Doc("visitAMD64 writes to met those of the links below limit whose bits in words are not set, and sets them. It prefetches",
		"the first lines of their rows and returns their number. met must have room for width links.")
	met := param("met")
	n := visitLinks(param("links"), param("width"), param("words"), param("limit"), met)
	prefetchRows(met, n, param("rows"), param("rowSize"), param("lines"))
	Store(n, ReturnIndex(0))
	RET()
}

// visitLinks returns the number of links written to met. It overwrites links and width. The one thing about a link that
// cannot be predicted, whether it was visited, decides nothing but an addition.
func visitLinks(links, width, words, limit, met GPVirtual) GPVirtual {
	n := GP64()
	XORL(n.As32(), n.As32())
	Label("visit")
	slot, word, bits := GP64(), GP64(), GP64()
	MOVL(Mem{Base: links}, slot.As32())
	ADDQ(Imm(4), links)
	CMPL(slot.As32(), limit.As32())
	JAE(LabelRef("beyond"))
	MOVL(slot.As32(), word.As32())
	SHRL(Imm(6), word.As32())
	MOVQ(Mem{Base: words, Index: word, Scale: 8}, bits)
	MOVL(slot.As32(), Mem{Base: met, Index: n, Scale: 4})
	BTSQ(slot, bits)
	MOVQ(bits, Mem{Base: words, Index: word, Scale: 8})
	CMC()
	ADCQ(Imm(0), n)
	Label("visitNext")
	DECQ(width)
	JNZ(LabelRef("visit"))
	JMP(LabelRef("visited"))
	Label("beyond")
	CMPL(slot.As32(), I32(-1)) // ends a row
	JNE(LabelRef("visitNext"))
	Label("visited")
	return n
}

// visitVisible writes the kernel that looks at the links of a node for those that match a filter, and neither sees nor
// changes anything of the others.
func visitVisible() {
	TEXT("visitVisibleAMD64", NOSPLIT, "func(links *uint32, width int, words *uint64, allow *uint64, limit uint64, met *uint32, rows *byte, rowSize int, lines int) int")
	Pragma("noescape")
	Doc("visitVisibleAMD64 is visitAMD64 for those links whose bits in allow are set. Both words and allow have a bit for every slot",
		"below limit.")
	links, width, words, allow := param("links"), param("width"), param("words"), param("allow")
	limit, met := param("limit"), param("met")
	n := GP64()
	XORL(n.As32(), n.As32())

	Label("visit")
	slot, word, bits, fresh := GP64(), GP64(), GP64(), GP64()
	MOVL(Mem{Base: links}, slot.As32())
	ADDQ(Imm(4), links)
	CMPL(slot.As32(), limit.As32())
	JAE(LabelRef("beyond"))
	MOVL(slot.As32(), word.As32())
	SHRL(Imm(6), word.As32())
	MOVL(slot.As32(), Mem{Base: met, Index: n, Scale: 4})
	MOVQ(Mem{Base: words, Index: word, Scale: 8}, bits)
	ANDNQ(Mem{Base: allow, Index: word, Scale: 8}, bits, fresh) // may be added
	SHRXQ(slot, fresh, fresh)
	ANDL(Imm(1), fresh.As32())
	ADDQ(fresh, n)
	SHLXQ(slot, fresh, fresh)
	ORQ(fresh, bits)
	MOVQ(bits, Mem{Base: words, Index: word, Scale: 8})
	Label("visitNext")
	DECQ(width)
	JNZ(LabelRef("visit"))
	JMP(LabelRef("visited"))
	Label("beyond")
	CMPL(slot.As32(), I32(-1)) // ends a row
	JNE(LabelRef("visitNext"))

	Label("visited")
	prefetchRows(met, n, param("rows"), param("rowSize"), param("lines"))
	Store(n, ReturnIndex(0))
	RET()
}

// prefetchRows asks for the first lines of the rows of the n slots met.
func prefetchRows(met, n, codes, size, lines GPVirtual) {
	i, row := GP64(), GP64()
	XORL(i.As32(), i.As32())
	JMP(LabelRef("prefetchMore"))
	Label("prefetch")
	MOVL(Mem{Base: met, Index: i, Scale: 4}, row.As32())
	prefetchRow(row, codes, size, lines, "prefetchLine")
	INCQ(i)
	Label("prefetchMore")
	CMPQ(i, n)
	JLT(LabelRef("prefetch"))
}

// prefetchRow asks for the first lines of the row of a slot, which it overwrites.
func prefetchRow(slot, codes, size, lines GPVirtual, label string) {
	IMULQ(size, slot)
	ADDQ(codes, slot)
	left := GP64()
	MOVQ(lines, left)
	Label(label)
	PREFETCHT0(Mem{Base: slot})
	ADDQ(Imm(line), slot)
	DECQ(left)
	JNZ(LabelRef(label))
}

// fetch writes the kernel that prefetches what the next node will need.
func fetch() {
	TEXT("fetchAMD64", NOSPLIT, "func(links *uint32, width int, limit uint64, rows *byte, rowSize int, lines int)")
	Pragma("noescape")
	Doc("fetchAMD64 prefetches the first lines of the rows of the links below limit.")
	fetchLinks(param("links"), param("width"), param("limit"), param("rows"), param("rowSize"), param("lines"))
	RET()
}

// fetchLinks overwrites links and width.
func fetchLinks(links, width, limit, codes, size, lines GPVirtual) {
	Label("fetch")
	slot := GP64()
	MOVL(Mem{Base: links}, slot.As32())
	CMPL(slot.As32(), limit.As32())
	JAE(LabelRef("fetchBeyond"))
	prefetchRow(slot, codes, size, lines, "fetchLine")
	Label("fetchNext")
	ADDQ(Imm(4), links)
	DECQ(width)
	JNZ(LabelRef("fetch"))
	JMP(LabelRef("fetched"))
	Label("fetchBeyond")
	CMPL(slot.As32(), I32(-1))
	JNE(LabelRef("fetchNext"))
	Label("fetched")
}

// admit writes the kernel that keeps a pool.
func admit() {
	TEXT("admitAVX512", NOSPLIT, "func(keys *uint64, n int, capacity int, bound uint64, slots *uint32, distances *int32, count int, links *uint32, linkBytes int) (size int, lowest int)")
	Pragma("noescape")
	Doc("admitAVX512 inserts those of the count slots that make a key below bound, and below the last one of a full pool, into",
		"the n sorted keys. It prefetches the row of links of each, and returns the new number of keys and the lowest place at",
		"which one went in, or a number beyond all places. Before keys there are eight zeros, and behind its capacity room for",
		"eight more.")
	n := param("n")
	lowest := insertKeys(param("keys"), n, param("capacity"), param("bound"), param("slots"), param("distances"), param("count"),
		param("links"), param("linkBytes"))
	VZEROUPPER()
	Store(n, ReturnIndex(0))
	Store(lowest, ReturnIndex(1))
	RET()
}

// insertKeys changes n, and returns the lowest place at which a key went in. It overwrites bound, slots, distances and count.
// A key goes in from the end: eight keys at a time move up by one place until a block is not wholly beyond the new one, which
// costs one misprediction a key and no search.
func insertKeys(keys, n, capacity, bound, slots, distances, count, links, linkBytes GPVirtual) GPVirtual {
	lowest := GP64()
	MOVQ(I32(1<<31-1), lowest)

	Label("keys")
	TESTQ(count, count)
	JLE(LabelRef("done"))
	here, lanes := GP32(), GP32()
	MOVL(I32(16), here)
	CMPQ(count, Imm(16))
	CMOVLLT(count.As32(), here)
	MOVL(I32(-1), lanes)
	BZHIL(here, lanes, lanes)
	valid := K()
	KMOVW(lanes, valid)
	ds, most := ZMM(), ZMM()
	VMOVDQU32_Z(Mem{Base: distances}, valid, ds)
	high := GP64()
	MOVQ(bound, high)
	SHRQ(Imm(32), high)
	BTCL(Imm(31), high.As32())
	VPBROADCASTD(high.As32(), most)
	near := K()
	VPCMPD(Imm(2), most, ds, valid, near) // distance <= that of bound
	candidates := GP32()
	KMOVW(near, candidates)
	TESTL(candidates, candidates)
	JZ(LabelRef("next"))

	Label("candidate")
	lane := GP64()
	TZCNTL(candidates, lane.As32())
	key, slot := GP64(), GP64()
	MOVL(Mem{Base: distances, Index: lane, Scale: 4}, key.As32())
	MOVL(Mem{Base: slots, Index: lane, Scale: 4}, slot.As32())
	BTCL(Imm(31), key.As32())
	SHLQ(Imm(32), key)
	LEAQ(Mem{Base: key, Index: slot, Scale: 2}, key)
	CMPQ(key, bound)
	JAE(LabelRef("rejected"))
	IMULQ(linkBytes, slot)
	PREFETCHT0(Mem{Base: links, Index: slot, Scale: 1})
	PREFETCHT0(Mem{Base: links, Index: slot, Scale: 1, Disp: line})

	wide := ZMM()
	VPBROADCASTQ(key, wide)
	end := GP64()
	LEAQ(Mem{Base: keys, Index: n, Scale: 8}, end)
	Label("shift")
	moving, beyond := ZMM(), K()
	VMOVDQU64(Mem{Base: end, Disp: -64}, moving)
	VPCMPUQ(Imm(6), wide, moving, beyond) // keys > key
	VMOVDQU64(moving, beyond, Mem{Base: end, Disp: -56})
	mask := GP32()
	KMOVB(beyond, mask)
	CMPL(mask, Imm(0xff))
	JNE(LabelRef("place"))
	SUBQ(Imm(64), end)
	JMP(LabelRef("shift"))
	Label("place")
	POPCNTL(mask, mask)
	back := GP64()
	MOVL(mask, back.As32())
	NEGQ(back)
	LEAQ(Mem{Base: end, Index: back, Scale: 8}, end)
	MOVQ(key, Mem{Base: end})
	SUBQ(keys, end)
	SHRQ(Imm(3), end)
	CMPQ(end, lowest)
	CMOVQLT(end, lowest)

	CMPQ(n, capacity)
	JGE(LabelRef("full"))
	INCQ(n)
	CMPQ(n, capacity)
	JLT(LabelRef("rejected"))
	Label("full")
	last := GP64()
	MOVQ(Mem{Base: keys, Index: n, Scale: 8, Disp: -8}, last)
	CMPQ(last, bound)
	CMOVQCS(last, bound)
	Label("rejected")
	BLSRL(candidates, candidates)
	JNZ(LabelRef("candidate"))

	Label("next")
	ADDQ(Imm(line), distances)
	ADDQ(Imm(line), slots)
	SUBQ(Imm(16), count)
	JMP(LabelRef("keys"))
	Label("done")
	return lowest
}

// The fields of a hop, each of 8 bytes, in the order of the type in Go.
const (
	hopLinks = 8 * iota
	hopLinkBytes
	hopWidth
	hopWords
	hopLimit
	hopCodes
	hopRowSize
	hopLines
	hopQuery
	hopAdd
	hopKeys
	hopCapacity
	hopScores
	hopSlots
	hopSize
	hopBound
	hopNode
	hopNext
	hopCount
	hopLowest
)

// hop writes the kernel that does all of one turn of a walk.
func hop(d rows.Distance) {
	TEXT(d.Name+"HopAVX512", NOSPLIT, "func(h *byte)")
	Pragma("noescape")
	Doc(d.Name+"HopAVX512 visits the links of a node, prefetches the rows of those not visited and of the links of the next node,",
		"compares the former with the query by package quant's "+d.Name+", and inserts them into the keys.")
	field := func(offset int) GPVirtual {
		h := param("h")
		r := GP64()
		MOVQ(Mem{Base: h, Disp: offset}, r)
		return r
	}
	rowOf := func(node GPVirtual) GPVirtual {
		IMULQ(field(hopLinkBytes), node)
		ADDQ(field(hopLinks), node)
		return node
	}

	slots := field(hopSlots)
	n := visitLinks(rowOf(field(hopNode)), field(hopWidth), field(hopWords), field(hopLimit), slots)
	h := param("h")
	MOVQ(n, Mem{Base: h, Disp: hopCount})
	lowest := GP64()
	MOVQ(I32(1<<31-1), lowest)
	MOVQ(lowest, Mem{Base: h, Disp: hopLowest})
	TESTQ(n, n)
	JZ(LabelRef("none"))
	prefetchRows(slots, n, field(hopCodes), field(hopRowSize), field(hopLines))

	next := field(hopNext)
	CMPL(next.As32(), I32(-1))
	JEQ(LabelRef("fetched"))
	fetchLinks(rowOf(next), field(hopWidth), field(hopLimit), field(hopCodes), field(hopRowSize), field(hopLines))

	scoreSlots(d, field(hopCount), field(hopSlots), field(hopScores), field(hopCodes), field(hopRowSize), field(hopQuery), field(hopAdd))

	size := field(hopSize)
	low := insertKeys(field(hopKeys), size, field(hopCapacity), field(hopBound), field(hopSlots), field(hopScores), field(hopCount),
		field(hopLinks), field(hopLinkBytes))
	VZEROUPPER()
	h = param("h")
	MOVQ(size, Mem{Base: h, Disp: hopSize})
	MOVQ(low, Mem{Base: h, Disp: hopLowest})
	Label("none")
	RET()
}

// scoreSlots compares the rows of n slots, at least one, with the query, four at a time. The last slot is repeated to fill the
// last four: slots and scores have room for three more. It overwrites n, slots and scores.
func scoreSlots(d rows.Distance, n, slots, scores, codes, size, query, add GPVirtual) {
	last := GP64()
	MOVL(Mem{Base: slots, Index: n, Scale: 4, Disp: -4}, last.As32())
	for i := range 3 {
		MOVL(last.As32(), Mem{Base: slots, Index: n, Scale: 4, Disp: 4 * i})
	}
	adds := XMM()
	VMOVD(add.As32(), adds)
	VPBROADCASTD(adds, adds)
	Label("four")
	addresses := make([]Register, 4)
	for i := range addresses {
		row := GP64()
		MOVL(Mem{Base: slots, Disp: 4 * i}, row.As32())
		IMULQ(size, row)
		ADDQ(codes, row)
		addresses[i] = row
	}
	sums := rows.Compare(d, rows.NewAVX512(d), addresses, size, query, adds, "block")
	VMOVDQU(sums, Mem{Base: scores})
	ADDQ(Imm(16), slots)
	ADDQ(Imm(16), scores)
	SUBQ(Imm(4), n)
	JG(LabelRef("four"))
}
