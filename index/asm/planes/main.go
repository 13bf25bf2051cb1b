// Command planes writes the assembly kernels of package quant that compare bits with planes of bits, one function for every
// level of instructions, and the transform that vectors go through before they become bits. Run "go generate" in index/quant.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// block is the number of bytes of a row that one step compares with as many of each plane. The size of a row is a multiple
// of it.
const block = 64

// planes is the number of planes, of which the last counts negative.
const planes = 4

func main() {
	kernel(new(avx512))
	kernel(new(avx2))
	hadamard()
	Generate()
}

// lanes is the number of float32 in a register.
const lanes = 8

// hadamard writes the fast Walsh-Hadamard transform: the first three steps within registers, by adding to a register, half
// of it negated, itself with the halves exchanged; then the others between registers.
func hadamard() {
	TEXT("hadamardAVX2", NOSPLIT, "func(v *float32, n int)")
	Pragma("noescape")
	Doc("hadamardAVX2 transforms n components in place, a power of two and at least 8.")
	v, bytes := Load(Param("v"), GP64()), Load(Param("n"), GP64())
	SHLQ(Imm(2), bytes)
	end := GP64()
	LEAQ(Mem{Base: v, Index: bytes, Scale: 1}, end)

	var signs [3]VecVirtual
	for step := range signs {
		mask := GLOBL(fmt.Sprintf("hadamardSigns%d", step), RODATA|NOPTR)
		for i := range lanes {
			DATA(4*i, U32(i>>step&1<<31))
		}
		signs[step] = YMM()
		VMOVUPS(mask, signs[step])
	}
	at := GP64()
	MOVQ(v, at)
	Label("within")
	x, swapped := YMM(), YMM()
	VMOVUPS(Mem{Base: at}, x)
	for step, sign := range signs {
		switch step {
		case 0:
			VPERMILPS(Imm(0b10_11_00_01), x, swapped)
		case 1:
			VPERMILPS(Imm(0b01_00_11_10), x, swapped)
		default:
			VPERM2F128(Imm(1), x, x, swapped)
		}
		VXORPS(sign, x, x)
		VADDPS(swapped, x, x)
	}
	VMOVUPS(x, Mem{Base: at})
	ADDQ(Imm(4*lanes), at)
	CMPQ(at, end)
	JL(LabelRef("within"))

	half := GP64()
	MOVQ(U32(4*lanes), half)
	Label("step")
	CMPQ(half, bytes)
	JGE(LabelRef("done"))
	MOVQ(v, at)
	Label("pair")
	middle := GP64()
	LEAQ(Mem{Base: at, Index: half, Scale: 1}, middle)
	Label("between")
	a, b, difference := YMM(), YMM(), YMM()
	VMOVUPS(Mem{Base: at}, a)
	VMOVUPS(Mem{Base: at, Index: half, Scale: 1}, b)
	VSUBPS(b, a, difference)
	VADDPS(b, a, a)
	VMOVUPS(a, Mem{Base: at})
	VMOVUPS(difference, Mem{Base: at, Index: half, Scale: 1})
	ADDQ(Imm(4*lanes), at)
	CMPQ(at, middle)
	JL(LabelRef("between"))
	ADDQ(half, at)
	CMPQ(at, end)
	JL(LabelRef("pair"))
	SHLQ(Imm(1), half)
	JMP(LabelRef("step"))
	Label("done")
	VZEROUPPER()
	RET()
}

// A level computes the sums of rows with one set of instructions.
type level interface {
	name() string
	// begin loads what all rows need.
	begin()
	// clear zeroes the accumulators of n rows.
	clear(n int)
	// step adds to the accumulators what the blocks at rows contribute, compared with the planes at query.
	step(rows []Mem, query Mem)
	// reduce returns a register with the sums of n rows as int32, in its n lowest lanes, for rows of a size.
	reduce(n int, size Register) VecVirtual
}

// kernel writes a function: a loop over four rows at a time, which keep four chains of additions in flight, and a loop over
// those left.
func kernel(l level) {
	TEXT("planes"+l.name(), NOSPLIT, "func(dst *int32, n int, query *byte, rows *byte, rowSize int, slots *uint32)")
	Pragma("noescape")
	Doc(fmt.Sprintf("planes%s sets dst[i] to the sum of the query's components whose bits are set in the n rows at slots.", l.name()))
	f := frame{
		dst:   Load(Param("dst"), GP64()),
		n:     Load(Param("n"), GP64()),
		query: Load(Param("query"), GP64()),
		rows:  Load(Param("rows"), GP64()),
		size:  Load(Param("rowSize"), GP64()),
		slots: Load(Param("slots"), GP64()),
	}
	l.begin()

	CMPQ(f.n, Imm(4))
	JL(LabelRef("rest"))
	Label("four")
	f.compare(l, 4)
	SUBQ(Imm(4), f.n)
	CMPQ(f.n, Imm(4))
	JGE(LabelRef("four"))

	Label("rest")
	TESTQ(f.n, f.n)
	JZ(LabelRef("done"))
	Label("one")
	f.compare(l, 1)
	DECQ(f.n)
	JNZ(LabelRef("one"))
	Label("done")
	VZEROUPPER()
	RET()
}

// frame is the registers that live through a kernel. dst and slots move on with the rows done, n counts those left.
type frame struct {
	dst, n, query, rows, size, slots Register
}

// compare computes the sums of the next n rows, 1 or 4.
func (f *frame) compare(l level, n int) {
	blocks := make([]Mem, n)
	offset := GP64()
	for i := range blocks {
		row := GP64()
		MOVL(Mem{Base: f.slots, Disp: 4 * i}, row.As32())
		IMULQ(f.size, row)
		ADDQ(f.rows, row)
		blocks[i] = Mem{Base: row, Index: offset, Scale: 1}
	}
	if n == 4 {
		f.prefetch()
	}
	l.clear(n)
	XORL(offset.As32(), offset.As32())
	query := GP64()
	MOVQ(f.query, query)
	loop := fmt.Sprintf("block%d", n)
	Label(loop)
	l.step(blocks, Mem{Base: query})
	ADDQ(Imm(block), offset)
	ADDQ(U32(planes*block), query)
	CMPQ(offset, f.size)
	JL(LabelRef(loop))
	sums := l.reduce(n, f.size)
	if n == 1 {
		VMOVD(sums, Mem{Base: f.dst})
	} else {
		VMOVDQU(sums, Mem{Base: f.dst})
	}
	ADDQ(Imm(uint64(4*n)), f.dst)
	ADDQ(Imm(uint64(4*n)), f.slots)
}

// prefetchLines is how many blocks of a row are prefetched.
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

// avx512 is AVX-512 F and VPOPCNTDQ.
type avx512 struct {
	acc [4]VecVirtual
}

func (*avx512) name() string { return "AVX512" }

func (*avx512) begin() {}

func (l *avx512) clear(n int) {
	for i := range n {
		l.acc[i] = ZMM()
		VPXORD(l.acc[i], l.acc[i], l.acc[i])
	}
}

// step computes n₀ + 2 (n₁ + 2 (n₂ - 2 n₃)) in each of the eight lanes.
func (l *avx512) step(rows []Mem, query Mem) {
	for i, row := range rows {
		u, sum := ZMM(), ZMM()
		VMOVDQU64(row, u)
		for k := planes - 1; k >= 0; k-- {
			count := ZMM()
			VPANDQ(query.Offset(block*k), u, count)
			vpopcntq(count, count)
			switch k {
			case planes - 1:
				VPADDQ(count, count, sum)
			case planes - 2:
				VPSUBQ(sum, count, sum)
				VPADDQ(sum, sum, sum)
			case 0:
				VPADDQ(count, l.acc[i], l.acc[i])
				VPADDQ(sum, l.acc[i], l.acc[i])
			default:
				VPADDQ(count, sum, sum)
				VPADDQ(sum, sum, sum)
			}
		}
	}
}

func (l *avx512) reduce(n int, _ Register) VecVirtual {
	half := make([]VecVirtual, n)
	for i := range n {
		half[i] = YMM()
		VPMOVQD(l.acc[i], half[i])
	}
	return reduceYMM(half)
}

// vpopcntq counts the bits of each of the eight lanes. The instructions that avo has a function for do not include it.
func vpopcntq(src, dst VecVirtual) {
	Instruction(&ir.Instruction{
		Opcode:   "VPOPCNTQ",
		Operands: []Op{src, dst},
		Inputs:   []Op{src},
		Outputs:  []Op{dst},
		ISA:      []string{"AVX512_VPOPCNTDQ"},
	})
}

// avx2 is AVX2. It looks up the bits of half bytes, by the weight of the plane. Those of the last plane, which counts
// negative, are counted from the other end, so that all sums of bytes are of 0 to 120; what that adds, 64 for each byte, is
// subtracted in the end.
type avx2 struct {
	acc    [4]VecVirtual
	tables [planes]VecVirtual
	mask   VecVirtual
}

func (*avx2) name() string { return "AVX2" }

func (l *avx2) begin() {
	for k := range planes {
		table := GLOBL(fmt.Sprintf("planeTable%d", k), RODATA|NOPTR)
		for i := range 32 {
			count := 0
			for bit := range 4 {
				count += i % 16 >> bit & 1
			}
			weighted := count << k
			if k == planes-1 {
				weighted = (4 - count) << k
			}
			DATA(i, U8(weighted))
		}
		l.tables[k] = YMM()
		VMOVDQU(table, l.tables[k])
	}
	mask := GLOBL("planeMask", RODATA|NOPTR)
	for i := range 32 {
		DATA(i, U8(0x0f))
	}
	l.mask = YMM()
	VMOVDQU(mask, l.mask)
}

func (l *avx2) clear(n int) {
	for i := range n {
		l.acc[i] = YMM()
		VPXOR(l.acc[i], l.acc[i], l.acc[i])
	}
}

func (l *avx2) step(rows []Mem, query Mem) {
	for i, row := range rows {
		for at := 0; at < block; at += 32 {
			u, sum := YMM(), YMM()
			VMOVDQU(row.Offset(at), u)
			VPXOR(sum, sum, sum)
			for k := range planes {
				low, high := YMM(), YMM()
				VPAND(query.Offset(block*k+at), u, low)
				VPSRLW(Imm(4), low, high)
				VPAND(l.mask, low, low)
				VPAND(l.mask, high, high)
				VPSHUFB(low, l.tables[k], low)
				VPSHUFB(high, l.tables[k], high)
				VPADDB(low, sum, sum)
				VPADDB(high, sum, sum)
			}
			zero := YMM()
			VPXOR(zero, zero, zero)
			VPSADBW(zero, sum, sum)
			VPADDD(sum, l.acc[i], l.acc[i])
		}
	}
}

func (l *avx2) reduce(n int, size Register) VecVirtual {
	sums := reduceYMM(l.acc[:n])
	bias := GP64()
	MOVQ(size, bias)
	SHLQ(Imm(6), bias)
	wide := XMM()
	VMOVD(bias.(GPVirtual).As32(), wide)
	VPBROADCASTD(wide, wide)
	VPSUBD(wide, sums, sums)
	return sums
}

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
