// Package rows writes the part of a kernel that compares rows of codes with a query.
package rows

import (
	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Block is the number of bytes of a row that one step compares. The size of a row is a multiple of it.
const Block = 64

// normOffset is where a row of Euclid has the squared length of its codes, counted from the row's end.
const normOffset = -4

// A Distance is what a kernel measures.
type Distance struct {
	Name string
	Doc  string
}

// The distances of package quant.
var (
	Dot       = Distance{"dot", "dst[i] = add - sum(u*c)"}
	Euclid    = Distance{"euclid", "dst[i] = add + norm - 2*sum(u*c)"}
	Manhattan = Distance{"manhattan", "dst[i] = sum(|u-c|)"}
)

// A Level computes the sums of rows with one set of instructions.
type Level interface {
	// Name ends the names of its functions.
	Name() string
	// clear zeroes the accumulators of n rows.
	clear(n int)
	// step adds to the accumulators what the blocks at rows and at query contribute.
	step(rows []Mem, query Mem)
	// reduce returns a register with the sums of n rows as int32, in its n lowest lanes.
	reduce(n int) VecVirtual
}

// Compare writes the comparison of the rows at some addresses, 1 or 4, with a query, and returns a register with the distances
// in its lowest lanes. add is what the query adds to each, in all lanes; Manhattan has none. The label, which begins the
// loop, must be unique in the function.
func Compare(d Distance, l Level, addresses []Register, size, query Register, add VecVirtual, label string) VecVirtual {
	offset := GP64()
	blocks := make([]Mem, len(addresses))
	for i, row := range addresses {
		blocks[i] = Mem{Base: row, Index: offset, Scale: 1}
	}
	n := len(addresses)
	l.clear(n)
	XORL(offset.As32(), offset.As32())
	Label(label)
	l.step(blocks, Mem{Base: query, Index: offset, Scale: 1})
	ADDQ(Imm(Block), offset)
	CMPQ(offset, size)
	JL(LabelRef(label))
	sums := l.reduce(n)

	switch d {
	case Dot:
		VPSUBD(sums, add, sums)
	case Euclid:
		// offset is the size of a row now, so the norms lie before the blocks.
		norms := XMM()
		for i, b := range blocks {
			if i == 0 {
				VMOVD(b.Offset(normOffset), norms)
			} else {
				VPINSRD(Imm(uint64(i)), b.Offset(normOffset), norms, norms)
			}
		}
		VPADDD(norms, add, norms)
		VPADDD(sums, sums, sums)
		VPSUBD(sums, norms, sums)
	}
	return sums
}

// avx512 is AVX-512 F, BW, VL and VNNI.
type avx512 struct {
	distance Distance
	acc      [4]VecVirtual
	query    VecVirtual
}

// NewAVX512 returns the level of AVX-512 F, BW, VL and VNNI.
func NewAVX512(d Distance) Level { return &avx512{distance: d} }

func (*avx512) Name() string { return "AVX512" }

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
		if l.distance == Manhattan {
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
	distance Distance
	acc      [4]VecVirtual
}

// NewAVX2 returns the level of AVX2.
func NewAVX2(d Distance) Level { return &avx2{distance: d} }

func (*avx2) Name() string { return "AVX2" }

func (l *avx2) clear(n int) {
	for i := range n {
		l.acc[i] = YMM()
		VPXOR(l.acc[i], l.acc[i], l.acc[i])
	}
}

func (l *avx2) step(rows []Mem, query Mem) {
	if l.distance == Manhattan {
		for at := 0; at < Block; at += 32 {
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
	for at := 0; at < Block; at += 16 {
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
