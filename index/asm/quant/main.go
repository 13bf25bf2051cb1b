// Command quant writes the assembly kernels of package quant, one function for every distance and level of instructions.
// Run "go generate" in index/quant.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"

	"github.com/vectord/vectord/index/asm/rows"
)

func main() {
	for _, d := range []rows.Distance{rows.Dot, rows.Euclid, rows.Manhattan} {
		kernel(d, rows.NewAVX512(d))
		kernel(d, rows.NewAVX2(d))
	}
	Generate()
}

// kernel writes the function of one distance at one level: a loop over four rows at a time, which share the loads of the
// query and keep four chains of additions in flight, and a loop over those left.
func kernel(d rows.Distance, l rows.Level) {
	signature := "func(dst *int32, n int, query *byte, rows *byte, rowSize int, slots *uint32, add int32)"
	if d == rows.Manhattan {
		signature = "func(dst *int32, n int, query *byte, rows *byte, rowSize int, slots *uint32)"
	}
	TEXT(d.Name+l.Name(), NOSPLIT, signature)
	Pragma("noescape")
	Doc(fmt.Sprintf("%s%s sets %s for the n rows at slots.", d.Name, l.Name(), d.Doc))
	f := frame{
		dst:   Load(Param("dst"), GP64()),
		n:     Load(Param("n"), GP64()),
		query: Load(Param("query"), GP64()),
		rows:  Load(Param("rows"), GP64()),
		size:  Load(Param("rowSize"), GP64()),
		slots: Load(Param("slots"), GP64()),
	}
	if d != rows.Manhattan {
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
func (f *frame) compare(d rows.Distance, l rows.Level, n int) {
	addresses := make([]Register, n)
	for i := range addresses {
		row := GP64()
		MOVL(Mem{Base: f.slots, Disp: 4 * i}, row.As32())
		IMULQ(f.size, row)
		ADDQ(f.rows, row)
		addresses[i] = row
	}
	if n == 4 {
		f.prefetch()
	}
	sums := rows.Compare(d, l, addresses, f.size, f.query, f.add, fmt.Sprintf("block%d", n))
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
			PREFETCHT0(Mem{Base: f.rows, Index: row, Scale: 1, Disp: rows.Block * line})
		}
	}
	Label("prefetched")
}
