// Command asm writes the assembly kernels of package hnsw: those parts of a walk that are not distances. Run "go generate" in
// index/hnsw.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// line is the size of a cache line.
const line = 64

func main() {
	visit()
	visitVisible()
	fetch()
	admit()
	Generate()
}

// visit writes the kernel that looks at the links of one node. The one thing about a link that cannot be predicted, whether
// it was visited, decides nothing but an addition.
func visit() {
	TEXT("visitAMD64", NOSPLIT, "func(links *uint32, width int, words *uint64, limit uint32, met *uint32, rows *byte, rowSize int, lines int) int")
	Pragma("noescape")
	Doc("visitAMD64 writes to met those of the links below limit whose bits in words are not set, and sets them. It prefetches",
		"the first lines of their rows and returns their number. met must have room for width links.")
	links := Load(Param("links"), GP64())
	width := Load(Param("width"), GP64())
	words := Load(Param("words"), GP64())
	limit := Load(Param("limit"), GP32())
	met := Load(Param("met"), GP64())
	n := GP64()
	XORL(n.As32(), n.As32())

	Label("link")
	slot, word, bits := GP64(), GP64(), GP64()
	MOVL(Mem{Base: links}, slot.As32())
	ADDQ(Imm(4), links)
	CMPL(slot.As32(), limit)
	JAE(LabelRef("beyond"))
	MOVL(slot.As32(), word.As32())
	SHRL(Imm(6), word.As32())
	MOVQ(Mem{Base: words, Index: word, Scale: 8}, bits)
	MOVL(slot.As32(), Mem{Base: met, Index: n, Scale: 4})
	BTSQ(slot, bits)
	MOVQ(bits, Mem{Base: words, Index: word, Scale: 8})
	CMC()
	ADCQ(Imm(0), n)
	Label("next")
	DECQ(width)
	JNZ(LabelRef("link"))
	JMP(LabelRef("visited"))
	Label("beyond")
	CMPL(slot.As32(), I32(-1)) // ends a row
	JNE(LabelRef("next"))

	Label("visited")
	prefetchMet(met, n)
	Store(n, ReturnIndex(0))
	RET()
}

// prefetchMet asks for the rows of the first n slots of met.
func prefetchMet(met, n Register) {
	rows := Load(Param("rows"), GP64())
	size := Load(Param("rowSize"), GP64())
	lines := Load(Param("lines"), GP64())
	i := GP64()
	XORL(i.As32(), i.As32())
	JMP(LabelRef("more"))
	Label("prefetch")
	row := GP64()
	MOVL(Mem{Base: met, Index: i, Scale: 4}, row.As32())
	prefetchRow(row, rows, size, lines)
	INCQ(i)
	Label("more")
	CMPQ(i, n)
	JLT(LabelRef("prefetch"))
}

// visitVisible writes the kernel that looks at the links of a node for those that match a filter, and neither sees nor
// changes anything of the others.
func visitVisible() {
	TEXT("visitVisibleAMD64", NOSPLIT, "func(links *uint32, width int, words *uint64, allow *uint64, limit uint32, met *uint32, rows *byte, rowSize int, lines int) int")
	Pragma("noescape")
	Doc("visitVisibleAMD64 is visitAMD64 for those links whose bits in allow are set. Both words and allow have a bit for every slot",
		"below limit.")
	links := Load(Param("links"), GP64())
	width := Load(Param("width"), GP64())
	words := Load(Param("words"), GP64())
	allow := Load(Param("allow"), GP64())
	limit := Load(Param("limit"), GP32())
	met := Load(Param("met"), GP64())
	n := GP64()
	XORL(n.As32(), n.As32())

	Label("link")
	slot, word, bits, fresh := GP64(), GP64(), GP64(), GP64()
	MOVL(Mem{Base: links}, slot.As32())
	ADDQ(Imm(4), links)
	CMPL(slot.As32(), limit)
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
	Label("next")
	DECQ(width)
	JNZ(LabelRef("link"))
	JMP(LabelRef("visited"))
	Label("beyond")
	CMPL(slot.As32(), I32(-1)) // ends a row
	JNE(LabelRef("next"))

	Label("visited")
	prefetchMet(met, n)
	Store(n, ReturnIndex(0))
	RET()
}

// prefetchRow asks for the first lines of the row of a slot, which it overwrites.
func prefetchRow(slot GPVirtual, rows, size, lines Register) {
	IMULQ(size, slot)
	ADDQ(rows, slot)
	left := GP64()
	MOVQ(lines, left)
	Label("line")
	PREFETCHT0(Mem{Base: slot})
	ADDQ(Imm(line), slot)
	DECQ(left)
	JNZ(LabelRef("line"))
}

// fetch writes the kernel that prefetches what the next node will need.
func fetch() {
	TEXT("fetchAMD64", NOSPLIT, "func(links *uint32, width int, limit uint32, rows *byte, rowSize int, lines int)")
	Pragma("noescape")
	Doc("fetchAMD64 prefetches the first lines of the rows of the links below limit.")
	links := Load(Param("links"), GP64())
	width := Load(Param("width"), GP64())
	limit := Load(Param("limit"), GP32())
	rows := Load(Param("rows"), GP64())
	size := Load(Param("rowSize"), GP64())
	lines := Load(Param("lines"), GP64())
	Label("link")
	slot := GP64()
	MOVL(Mem{Base: links}, slot.As32())
	CMPL(slot.As32(), limit)
	JAE(LabelRef("beyond"))
	prefetchRow(slot, rows, size, lines)
	Label("next")
	ADDQ(Imm(4), links)
	DECQ(width)
	JNZ(LabelRef("link"))
	RET()
	Label("beyond")
	CMPL(slot.As32(), I32(-1))
	JNE(LabelRef("next"))
	RET()
}

// admit writes the kernel that keeps a pool. A key goes in from the end: eight keys at a time move up by one place until a
// block is not wholly beyond the new one, which costs one misprediction a key and no search.
func admit() {
	TEXT("admitAVX512", NOSPLIT, "func(keys *uint64, n int, capacity int, bound uint64, slots *uint32, distances *int32, count int, links *byte, linkBytes int) (size int, lowest int)")
	Pragma("noescape")
	Doc("admitAVX512 inserts those of the count slots that make a key below bound, and below the last one of a full pool, into",
		"the n sorted keys. It prefetches the row of links of each, and returns the new number of keys and the lowest place at",
		"which one went in, or a number beyond all places. Before keys there are eight zeros, and behind its capacity room for",
		"eight more.")
	keys := Load(Param("keys"), GP64())
	n := Load(Param("n"), GP64())
	capacity := Load(Param("capacity"), GP64())
	bound := Load(Param("bound"), GP64())
	slots := Load(Param("slots"), GP64())
	distances := Load(Param("distances"), GP64())
	count := GP64()
	Load(Param("count"), count)
	links := Load(Param("links"), GP64())
	linkBytes := Load(Param("linkBytes"), GP64())
	lowest := GP64()
	MOVQ(I32(1<<31-1), lowest)

	Label("block")
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
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	Store(n, ReturnIndex(0))
	Store(lowest, ReturnIndex(1))
	RET()
}
