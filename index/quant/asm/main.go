// Command asm writes the assembly kernels of package quant, one function for every distance and level of instructions.
// Run "go generate" in index/quant.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// block is the number of bytes of a row that one step compares. The size of a row is a multiple of it.
const block = 64

// normOffset is where a row of Euclid has the squared length of its codes, counted from the row's end.
const normOffset = -4

// A distance is what a kernel measures.
type distance struct {
	name string
	doc  string
}

var (
	dot       = distance{"dot", "dst[i] = add - sum(u*c)"}
	euclid    = distance{"euclid", "dst[i] = add + norm - 2*sum(u*c)"}
	manhattan = distance{"manhattan", "dst[i] = sum(|u-c|)"}
)

func main() {
	for _, d := range []distance{dot, euclid, manhattan} {
		kernel(d, newAVX512(d))
		kernel(d, newAVX2(d))
	}
	Generate()
}

// A level computes the sums of rows with one set of instructions.
type level interface {
	name() string
	// clear zeroes the accumulators of n rows.
	clear(n int)
	// step adds to the accumulators what the blocks at rows and at query contribute.
	step(rows []Mem, query Mem)
	// reduce returns a register with the sums of n rows as int32, in its n lowest lanes.
	reduce(n int) VecVirtual
}

// kernel writes the function of one distance at one level: a loop over four rows at a time, which share the loads of the
// query and keep four chains of additions in flight, and a loop over those left.
func kernel(d distance, l level) {
	signature := "func(dst *int32, n int, query *byte, rows *byte, rowSize int, slots *uint32, add int32)"
	if d == manhattan {
		signature = "func(dst *int32, n int, query *byte, rows *byte, rowSize int, slots *uint32)"
	}
	TEXT(d.name+l.name(), NOSPLIT, signature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s%s sets %s for the n rows at slots.", d.name, l.name(), d.doc))
	f := frame{
		dst:   Load(Param("dst"), GP64()),
		n:     Load(Param("n"), GP64()),
		query: Load(Param("query"), GP64()),
		rows:  Load(Param("rows"), GP64()),
		size:  Load(Param("rowSize"), GP64()),
		slots: Load(Param("slots"), GP64()),
	}
	if d != manhattan {
		f.add = XMM()
		VMOVD(Load(Param("add"), GP32()), f.add)
		VPBROADCASTD(f.add, f.add)
	}

	CMPQ(f.n, Imm(4))
	JL(LabelRef("rest"))
	Label("four")
	f.compare(d, l, 4)
	SUBQ(Imm(4), f.n)
	CMPQ(f.n, Imm(4))
	JGE(LabelRef("four"))

	Label("rest")
	TESTQ(f.n, f.n)
	JZ(LabelRef("done"))
	Label("one")
	f.compare(d, l, 1)
	DECQ(f.n)
	JNZ(LabelRef("one"))
	Label("done")
	VZEROUPPER()
	RET()
}

// frame is the registers that live through a kernel. dst and slots move on with the rows done, n counts those left. Kernels
// of manhattan have no add.
type frame struct {
	dst, n, query, rows, size, slots Register
	add                              VecVirtual
}

// compare computes the distances of the next n rows, 1 or 4.
func (f *frame) compare(d distance, l level, n int) {
	rows := make([]Register, n)
	blocks := make([]Mem, n)
	offset := GP64()
	for i := range rows {
		row := GP64()
		MOVL(Mem{Base: f.slots, Disp: 4 * i}, row.As32())
		IMULQ(f.size, row)
		ADDQ(f.rows, row)
		rows[i] = row
		blocks[i] = Mem{Base: row, Index: offset, Scale: 1}
	}
	if n == 4 {
		f.prefetch()
	}
	l.clear(n)
	XORL(offset.As32(), offset.As32())
	loop := fmt.Sprintf("block%d", n)
	Label(loop)
	l.step(blocks, Mem{Base: f.query, Index: offset, Scale: 1})
	ADDQ(Imm(block), offset)
	CMPQ(offset, f.size)
	JL(LabelRef(loop))
	sums := l.reduce(n)

	switch d {
	case dot:
		VPSUBD(sums, f.add, sums)
	case euclid:
		// offset is the size of a row now, so the norms lie before the blocks.
		norms := XMM()
		for i, b := range blocks {
			if i == 0 {
				VMOVD(b.Offset(normOffset), norms)
			} else {
				VPINSRD(Imm(uint64(i)), b.Offset(normOffset), norms, norms)
			}
		}
		VPADDD(norms, f.add, norms)
		VPADDD(sums, sums, sums)
		VPSUBD(sums, norms, sums)
	}
	if n == 1 {
		VMOVD(sums, Mem{Base: f.dst})
	} else {
		VMOVDQU(sums, Mem{Base: f.dst})
	}
	ADDQ(Imm(uint64(4*n)), f.dst)
	ADDQ(Imm(uint64(4*n)), f.slots)
}

// prefetchLines is how many blocks of a row are prefetched. The processor follows from there by itself; to name them all
// takes more time than it saves.
const prefetchLines = 2

// prefetch asks for the next four rows, if there are that many. It may point past the end of the last one, which is
// harmless: a prefetch never faults.
func (f *frame) prefetch() {
	CMPQ(f.n, Imm(8))
	JL(LabelRef("prefetched"))
	for i := range 4 {
		row := GP64()
		MOVL(Mem{Base: f.slots, Disp: 4 * (4 + i)}, row.As32())
		IMULQ(f.size, row)
		for line := range prefetchLines {
			PREFETCHT0(Mem{Base: f.rows, Index: row, Scale: 1, Disp: block * line})
		}
	}
	Label("prefetched")
}

// avx512 is AVX-512 F, BW, VL and VNNI.
type avx512 struct {
	distance distance
	acc      [4]VecVirtual
	query    VecVirtual
}

func newAVX512(d distance) *avx512 { return &avx512{distance: d} }

func (*avx512) name() string { return "AVX512" }

func (l *avx512) clear(n int) {
	for i := range n {
		l.acc[i] = ZMM()
		VPXORD(l.acc[i], l.acc[i], l.acc[i])
	}
	l.query = ZMM()
}

func (l *avx512) step(rows []Mem, query Mem) {
	VMOVDQU8(query, l.query)
	for i, row := range rows {
		if l.distance == manhattan {
			sad := ZMM()
			VPSADBW(row, l.query, sad)
			VPADDD(sad, l.acc[i], l.acc[i]) // a sum of eight differences needs 11 of the 64 bits
			continue
		}
		u := ZMM()
		VMOVDQU8(row, u)
		vpdpbusd(l.query, u, l.acc[i])
	}
}

func (l *avx512) reduce(n int) VecVirtual {
	half := make([]VecVirtual, n)
	for i := range n {
		half[i] = YMM()
		VEXTRACTI64X4(Imm(1), l.acc[i], half[i])
		VPADDD(l.acc[i].AsY(), half[i], half[i])
	}
	return reduceYMM(half)
}

// vpdpbusd adds to every int32 of acc the products of four signed bytes and four unsigned ones. It does not saturate, as
// VPDPBUSDS does. The instructions that avo has a function for do not include it.
func vpdpbusd(signed, unsigned, acc VecVirtual) {
	Instruction(&ir.Instruction{
		Opcode:   "VPDPBUSD",
		Operands: []Op{signed, unsigned, acc},
		Inputs:   []Op{signed, unsigned, acc},
		Outputs:  []Op{acc},
		ISA:      []string{"AVX512_VNNI"},
	})
}

// avx2 is AVX2. It widens bytes to words before it multiplies them: VPMADDUBSW, which would not need that, saturates.
type avx2 struct {
	distance distance
	acc      [4]VecVirtual
}

func newAVX2(d distance) *avx2 { return &avx2{distance: d} }

func (*avx2) name() string { return "AVX2" }

func (l *avx2) clear(n int) {
	for i := range n {
		l.acc[i] = YMM()
		VPXOR(l.acc[i], l.acc[i], l.acc[i])
	}
}

func (l *avx2) step(rows []Mem, query Mem) {
	if l.distance == manhattan {
		for at := 0; at < block; at += 32 {
			c := YMM()
			VMOVDQU(query.Offset(at), c)
			for i, row := range rows {
				sad := YMM()
				VPSADBW(row.Offset(at), c, sad)
				VPADDD(sad, l.acc[i], l.acc[i])
			}
		}
		return
	}
	for at := 0; at < block; at += 16 {
		c := YMM()
		VPMOVSXBW(query.Offset(at), c)
		for i, row := range rows {
			u := YMM()
			VPMOVZXBW(row.Offset(at), u)
			VPMADDWD(c, u, u)
			VPADDD(u, l.acc[i], l.acc[i])
		}
	}
}

func (l *avx2) reduce(n int) VecVirtual { return reduceYMM(l.acc[:n]) }

// reduceYMM adds up the eight lanes of each of the registers, 1 or 4, which it overwrites.
func reduceYMM(acc []VecVirtual) VecVirtual {
	if len(acc) == 4 {
		VPHADDD(acc[1], acc[0], acc[0])
		VPHADDD(acc[3], acc[2], acc[2])
		VPHADDD(acc[2], acc[0], acc[0])
	} else {
		VPHADDD(acc[0], acc[0], acc[0])
		VPHADDD(acc[0], acc[0], acc[0])
	}
	high := XMM()
	VEXTRACTI128(Imm(1), acc[0], high)
	VPADDD(acc[0].AsX(), high, high)
	return high
}
