// Command float32 writes the assembly kernels of package index. Run "go generate" in index.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// lanes is the number of float32 in a register.
const lanes = 16

// chains is the number of registers in which the terms of a row are summed side by side: component i goes to lane i%lanes
// of chain i/lanes%chains. Every kernel keeps to that and then to the order of sum, so that all give a row the same bits.
// One row alone needs four chains to have enough additions in flight.
const chains = 4

// step is the number of components that one turn of the loop compares.
const step = lanes * chains

// A distance is what a kernel measures.
type distance struct {
	name string
	doc  string
}

var (
	dot       = distance{"dot", "-sum(a*b)"}
	euclid    = distance{"euclid", "sum((a-b)^2)"}
	manhattan = distance{"manhattan", "sum(|a-b|)"}
)

func main() {
	for _, d := range []distance{dot, euclid, manhattan} {
		pair(d)
		list(d)
	}
	prefetch()
	Generate()
}

// size is that of a component in bytes.
const size = 4

// pair writes the function that compares two vectors.
func pair(d distance) {
	name := d.name + "AVX512"
	TEXT(name, NOSPLIT, "func(a, b *float32, dim int) float32")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s returns %s over dim components.", name, d.doc))
	k := kernel{distance: d, query: Load(Param("a"), GP64())}
	b := Load(Param("b"), GP64())
	k.prepare(Load(Param("dim"), GP64()))
	sum := k.compare([]Register{b})
	result, err := ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	VMOVSS(sum, result.Addr)
	VZEROUPPER()
	RET()
}

// list writes the function that compares a query with the rows at slots: a loop over four rows at a time, which share the
// loads of the query, and a loop over those left.
func list(d distance) {
	name := d.name + "ListAVX512"
	TEXT(name, NOSPLIT, "func(dst *float32, n int, query *float32, rows *float32, dim int, slots *uint32)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s sets dst[i] = %s over dim components of query and row slots[i], for n slots.", name, d.doc))
	l := lister{
		dst:   Load(Param("dst"), GP64()),
		n:     Load(Param("n"), GP64()),
		rows:  Load(Param("rows"), GP64()),
		slots: Load(Param("slots"), GP64()),
	}
	k := kernel{distance: d, query: Load(Param("query"), GP64())}
	dim := Load(Param("dim"), GP64())
	l.size = GP64()
	IMUL3Q(Imm(size), dim, l.size)
	k.prepare(dim)

	CMPQ(l.n, Imm(4))
	JL(LabelRef("rest"))
	Label("four")
	rows := l.take(4)
	l.prefetch()
	VMOVUPS(k.compare(rows), Mem{Base: l.dst})
	l.advance(4)
	CMPQ(l.n, Imm(4))
	JGE(LabelRef("four"))

	Label("rest")
	TESTQ(l.n, l.n)
	JZ(LabelRef("done"))
	Label("one")
	VMOVSS(k.compare(l.take(1)), Mem{Base: l.dst})
	l.advance(1)
	JNZ(LabelRef("one"))
	Label("done")
	VZEROUPPER()
	RET()
}

// lister is the registers that walk a list. dst and slots move on with the rows done, n counts those left, size is that of
// a row in bytes.
type lister struct {
	dst, n, rows, size, slots Register
}

// row returns a register with the address of the row that is i further on in the list.
func (l *lister) row(i int) Register {
	row := GP64()
	MOVL(Mem{Base: l.slots, Disp: 4 * i}, row.As32())
	IMULQ(l.size, row)
	ADDQ(l.rows, row)
	return row
}

func (l *lister) take(n int) []Register {
	rows := make([]Register, n)
	for i := range rows {
		rows[i] = l.row(i)
	}
	return rows
}

// advance moves n rows on. The flags are those of the number of rows left.
func (l *lister) advance(n int) {
	ADDQ(Imm(uint64(4*n)), l.dst)
	ADDQ(Imm(uint64(4*n)), l.slots)
	SUBQ(Imm(uint64(n)), l.n)
}

// prefetchLines is how many lines of a row are prefetched. The processor follows from there by itself.
const prefetchLines = 8

func prefetchRow(row Register) {
	for line := range prefetchLines {
		PREFETCHT0(Mem{Base: row, Disp: 64 * line})
	}
}

// prefetch writes the function that prefetches rows for those who compare them one by one.
func prefetch() {
	TEXT("prefetch", NOSPLIT, "func(n int, rows *float32, dim int, slots *uint32)")
	Pragma("noescape")
	Doc("prefetch asks for the beginnings of the rows of dim components at n slots.")
	l := lister{
		n:     Load(Param("n"), GP64()),
		rows:  Load(Param("rows"), GP64()),
		size:  Load(Param("dim"), GP64()),
		slots: Load(Param("slots"), GP64()),
	}
	SHLQ(Imm(2), l.size)
	Label("row")
	prefetchRow(l.row(0))
	ADDQ(Imm(4), l.slots)
	DECQ(l.n)
	JNZ(LabelRef("row"))
	RET()
}

// prefetch asks for as many as there are of the four rows after the next four. It may point past the end of the last one,
// which is harmless: a prefetch never faults.
func (l *lister) prefetch() {
	for i := range 4 {
		CMPQ(l.n, Imm(uint64(5+i)))
		JL(LabelRef("prefetched"))
		prefetchRow(l.row(4 + i))
	}
	Label("prefetched")
}

// kernel compares rows with a query by AVX-512 F, DQ and VL.
type kernel struct {
	distance distance
	query    Register
	steps    Register         // components in whole steps
	rest     Register         // components after those, fewer than step
	masks    [chains]Register // which lanes of each block of the rest there are
	abs      VecVirtual       // all bits but that of the sign; for manhattan
}

// prepare computes what all comparisons of vectors of dim components have in common. It overwrites dim.
func (k *kernel) prepare(dim Register) {
	k.steps, k.rest = GP64(), GP64()
	MOVQ(dim, k.steps)
	ANDQ(I32(-step), k.steps)
	MOVQ(dim, k.rest)
	ANDQ(Imm(step-1), k.rest)
	MOVQ(k.rest, RCX)
	bits := GP64()
	MOVQ(I32(-1), bits)
	SHLQ(CL, bits)
	NOTQ(bits)
	for i := range k.masks {
		if i > 0 {
			SHRQ(Imm(lanes), bits)
		}
		k.masks[i] = K()
		KMOVW(bits.As32(), k.masks[i])
	}
	if k.distance == manhattan {
		mask := GP32()
		MOVL(U32(0x7fffffff), mask)
		k.abs = ZMM()
		VPBROADCASTD(mask, k.abs)
	}
}

// compare returns a register with the distances from the query to the rows, 1 or 4, in its lowest lanes.
func (k *kernel) compare(rows []Register) VecVirtual {
	acc := make([][chains]VecVirtual, len(rows))
	for i := range acc {
		for chain := range acc[i] {
			acc[i][chain] = ZMM()
			VPXORD(acc[i][chain], acc[i][chain], acc[i][chain])
		}
	}
	label := func(name string) string { return fmt.Sprintf("%s%d", name, len(rows)) }
	at := GP64() // the next component
	XORL(at.As32(), at.As32())
	block := func(base Register, size, chain int) Mem {
		return Mem{Base: base, Index: at, Scale: uint8(size), Disp: size * lanes * chain}
	}

	TESTQ(k.steps, k.steps)
	JZ(LabelRef(label("tail")))
	Label(label("step"))
	for chain := range chains {
		q := ZMM()
		VMOVUPS(block(k.query, 4, chain), q)
		for i, row := range rows {
			k.add(acc[i][chain], q, block(row, size, chain))
		}
	}
	ADDQ(Imm(step), at)
	CMPQ(at, k.steps)
	JL(LabelRef(label("step")))

	Label(label("tail"))
	for chain := range chains {
		if chain == 0 {
			TESTQ(k.rest, k.rest)
		} else {
			CMPQ(k.rest, Imm(uint64(lanes*chain)))
		}
		JLE(LabelRef(label("sum")))
		q := ZMM()
		VMOVUPS_Z(block(k.query, 4, chain), k.masks[chain], q)
		for i, row := range rows {
			k.addMasked(acc[i][chain], q, block(row, size, chain), k.masks[chain])
		}
	}
	Label(label("sum"))
	return sum(acc)
}

// add adds to acc the terms of a block of the query and one of a row.
func (k *kernel) add(acc, query VecVirtual, row Mem) {
	if k.distance == dot {
		VFNMADD231PS(row, query, acc)
		return
	}
	difference := ZMM()
	VSUBPS(row, query, difference)
	k.addDifference(acc, difference)
}

// addMasked is add for the lanes in mask. The others are not read, and add nothing.
func (k *kernel) addMasked(acc, query VecVirtual, row Mem, mask Register) {
	if k.distance == dot {
		VFNMADD231PS(row, query, mask, acc)
		return
	}
	difference := ZMM()
	VSUBPS_Z(row, query, mask, difference)
	k.addDifference(acc, difference)
}

func (k *kernel) addDifference(acc, difference VecVirtual) {
	if k.distance == euclid {
		VFMADD231PS(difference, difference, acc)
		return
	}
	VANDPS(k.abs, difference, difference)
	VADDPS(difference, acc, acc)
}

// sum returns a register with the sums over the chains and lanes of each row, 1 or 4. Both cases add the same numbers in
// the same order: the chains; in each quarter of the register the halves, then the lanes left; the quarters. With four
// rows each of these additions serves several: the rows move together as their sums become fewer.
func sum(acc [][chains]VecVirtual) VecVirtual {
	for _, a := range acc {
		VADDPS(a[1], a[0], a[0])
		VADDPS(a[3], a[2], a[2])
		VADDPS(a[2], a[0], a[0])
	}
	quarters := ZMM()
	if len(acc) == 4 {
		x, y := ZMM(), ZMM()
		VUNPCKLPS(acc[1][0], acc[0][0], x)
		VUNPCKHPS(acc[1][0], acc[0][0], y)
		VADDPS(x, y, x) // of each quarter: rows 0, 1, 0, 1
		z := ZMM()
		VUNPCKLPS(acc[3][0], acc[2][0], z)
		VUNPCKHPS(acc[3][0], acc[2][0], y)
		VADDPS(z, y, z) // rows 2, 3, 2, 3
		VUNPCKLPD(z, x, y)
		VUNPCKHPD(z, x, quarters)
		VADDPS(y, quarters, quarters) // rows 0, 1, 2, 3
	} else {
		x := ZMM()
		VPERMILPD(Imm(0b01010101), acc[0][0], x)
		VADDPS(acc[0][0], x, x)
		VMOVSHDUP(x, quarters)
		VADDPS(x, quarters, quarters)
	}
	halves, all := YMM(), XMM()
	VEXTRACTF64X4(Imm(1), quarters, halves)
	VADDPS(quarters.AsY(), halves, halves)
	VEXTRACTF32X4(Imm(1), halves, all)
	VADDPS(halves.AsX(), all, all)
	return all
}
