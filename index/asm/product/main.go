// Command product writes the assembly kernels of package quant that compare a vector with rows of product codes by the
// centroids that the codes choose, one function for every distance and width of a piece. Run "go generate" in index/quant.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const (
	// lanes is the number of float32 in a register. Component i of a padded vector is added up in lane i modulo lanes.
	lanes = 8

	// centroids is the number of centroids of a piece, floatBytes the size of a component.
	centroids  = 256
	floatBytes = 4
)

func main() {
	signs := GLOBL("productSizes", RODATA|NOPTR)
	for i := range lanes {
		DATA(floatBytes*i, U32(1<<31-1))
	}
	places := GLOBL("productPlaces", RODATA|NOPTR)
	for i := range lanes {
		DATA(floatBytes*i, U32(centroids*i))
	}
	for _, distance := range []string{"Squares", "Differences", "Products"} {
		for width := 1; width <= 16; width *= 2 {
			k := kernel{distance: distance, width: width, signs: signs, places: places}
			k.write()
		}
	}
	for _, distance := range []string{"Squares", "Differences", "Products"} {
		table(distance, signs)
	}
	least()
	Generate()
}

// kernel is one function.
type kernel struct {
	distance      string
	width         int
	signs, places Mem

	mask, offsets, sum VecVirtual
	row, vector, at    GPVirtual // of the codes, the components and the centroids that come next
}

func (k *kernel) write() {
	name := fmt.Sprintf("sum%s%dAVX2", k.distance, k.width)
	TEXT(name, NOSPLIT, "func(dst *float32, n int, vector *float32, steps int, centroids *float32, rows *byte, rowSize int, slots *uint32)")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s sets dst[i] to the distance from the vector to row slots[i], one of n, whose codes choose centroids of width %d.",
		name, k.width))
	dst, n, vector := Load(Param("dst"), GP64()), Load(Param("n"), GP64()), Load(Param("vector"), GP64())
	steps, first := Load(Param("steps"), GP64()), Load(Param("centroids"), GP64())
	rows, size, slots := Load(Param("rows"), GP64()), Load(Param("rowSize"), GP64()), Load(Param("slots"), GP64())
	if k.distance == "Differences" {
		k.mask = YMM()
		VMOVUPS(k.signs, k.mask)
	}
	if k.width == 1 {
		k.offsets = YMM()
		VMOVDQU(k.places, k.offsets)
	}
	k.row, k.vector, k.at, k.sum = GP64(), GP64(), GP64(), YMM()

	Label("next")
	MOVL(Mem{Base: slots}, k.row.As32())
	IMULQ(size, k.row)
	ADDQ(rows, k.row)
	k.prefetch(n, rows, size, slots)
	MOVQ(vector, k.vector)
	MOVQ(first, k.at)
	VXORPS(k.sum, k.sum, k.sum)
	left := GP64()
	MOVQ(steps, left)
	Label("step")
	codes := max(lanes/k.width, 1)
	for half := range max(k.width/lanes, 1) {
		k.add(k.load(half), half)
	}
	ADDQ(Imm(uint64(codes)), k.row)
	ADDQ(U32(codes*k.width*floatBytes), k.vector)
	ADDQ(U32(codes*k.width*floatBytes*centroids), k.at)
	DECQ(left)
	JNZ(LabelRef("step"))

	low, high := k.sum.AsX(), XMM()
	VEXTRACTF128(Imm(1), k.sum, high)
	VADDPS(high, low, low)
	VMOVHLPS(low, low, high)
	VADDPS(high, low, low)
	VMOVSHDUP(low, high)
	VADDSS(high, low, low)
	VMOVSS(low, Mem{Base: dst})
	ADDQ(Imm(floatBytes), dst)
	ADDQ(Imm(4), slots)
	DECQ(n)
	JNZ(LabelRef("next"))
	VZEROUPPER()
	RET()
}

// ahead is how many rows ahead rows are prefetched, lines of 64 bytes of each.
const (
	ahead = 4
	lines = 2
)

// prefetch asks for a row to come, if there is one. It may point past the end of it, which is harmless: a prefetch never
// faults.
func (k *kernel) prefetch(n, rows, size, slots Register) {
	CMPQ(n, Imm(ahead))
	JLE(LabelRef("prefetched"))
	row := GP64()
	MOVL(Mem{Base: slots, Disp: 4 * ahead}, row.As32())
	IMULQ(size, row)
	for line := range lines {
		PREFETCHT0(Mem{Base: rows, Index: row, Scale: 1, Disp: 64 * line})
	}
	Label("prefetched")
}

// load returns the next eight components, those of one or several centroids, or a half of one.
func (k *kernel) load(half int) VecVirtual {
	y := YMM()
	if k.width == 1 {
		index, all := YMM(), YMM()
		VPMOVZXBD(Mem{Base: k.row}, index)
		VPADDD(k.offsets, index, index)
		VPCMPEQD(all, all, all)
		VGATHERDPS(all, Mem{Base: k.at, Index: index, Scale: floatBytes}, y)
		return y
	}
	centroid := func(i int) Mem {
		code := GP64()
		MOVBLZX(Mem{Base: k.row, Disp: i}, code.As32())
		shift := 0
		for 1<<shift < k.width*floatBytes {
			shift++
		}
		SHLL(Imm(uint64(shift)), code.As32())
		return Mem{Base: k.at, Index: code, Scale: 1, Disp: i * k.width * floatBytes * centroids}
	}
	switch k.width {
	case 2:
		high := XMM()
		VMOVSD(centroid(0), y.AsX())
		VMOVHPS(centroid(1), y.AsX(), y.AsX())
		VMOVSD(centroid(2), high)
		VMOVHPS(centroid(3), high, high)
		VINSERTF128(Imm(1), high, y, y)
	case 4:
		VMOVUPS(centroid(0), y.AsX())
		VINSERTF128(Imm(1), centroid(1), y, y)
	default:
		VMOVUPS(centroid(0).Offset(half*lanes*floatBytes), y)
	}
	return y
}

// add adds to the sums what eight components contribute.
func (k *kernel) add(y VecVirtual, half int) {
	contribute(k.distance, Mem{Base: k.vector, Disp: half * lanes * floatBytes}, y, k.sum, k.mask)
}

// contribute adds to sum what the components y contribute, compared with x. y is lost.
func contribute(distance string, x Op, y, sum, mask VecVirtual) {
	switch distance {
	case "Squares":
		VSUBPS(x, y, y)
		VMULPS(y, y, y)
		VADDPS(y, sum, sum)
	case "Differences":
		VSUBPS(x, y, y)
		VANDPS(mask, y, y)
		VADDPS(y, sum, sum)
	default:
		VMULPS(x, y, y)
		VSUBPS(y, sum, sum)
	}
}

// table writes the function that compares a piece with all centroids, of which eight registers are done at a time.
func table(distance string, signs Mem) {
	const registers = 8
	name := fmt.Sprintf("table%sAVX2", distance)
	TEXT(name, NOSPLIT, "func(table *float32, piece *float32, width int, columns *float32)")
	Pragma("noescape")
	Doc(name + " sets table[i] to the distance from a piece to centroid i, whose components are in place i of the columns.")
	dst, piece, width := Load(Param("table"), GP64()), Load(Param("piece"), GP64()), Load(Param("width"), GP64())
	columns := Load(Param("columns"), GP64())
	var mask VecVirtual
	if distance == "Differences" {
		mask = YMM()
		VMOVUPS(signs, mask)
	}
	blocks := GP64()
	MOVQ(U32(centroids/(registers*lanes)), blocks)
	Label("block")
	var sums [registers]VecVirtual
	for i := range sums {
		sums[i] = YMM()
		VXORPS(sums[i], sums[i], sums[i])
	}
	j, at := GP64(), GP64()
	XORL(j.As32(), j.As32())
	MOVQ(columns, at)
	Label("component")
	x := YMM()
	VBROADCASTSS(Mem{Base: piece, Index: j, Scale: floatBytes}, x)
	for i := range sums {
		y := YMM()
		VMOVUPS(Mem{Base: at, Disp: i * lanes * floatBytes}, y)
		contribute(distance, x, y, sums[i], mask)
	}
	ADDQ(U32(centroids*floatBytes), at)
	INCQ(j)
	CMPQ(j, width)
	JL(LabelRef("component"))
	for i := range sums {
		VMOVUPS(sums[i], Mem{Base: dst, Disp: i * lanes * floatBytes})
	}
	ADDQ(U32(registers*lanes*floatBytes), dst)
	ADDQ(U32(registers*lanes*floatBytes), columns)
	DECQ(blocks)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

// least writes the function that finds the least entry of a table: the least of each lane, of all lanes, and then the first
// register that has it.
func least() {
	TEXT("leastAVX2", NOSPLIT, "func(table *float32) int")
	Pragma("noescape")
	Doc("leastAVX2 returns the place of the first of the least entries of a table.")
	table := Load(Param("table"), GP64())
	const chains = 4
	var mins [chains]VecVirtual
	for i := range centroids / lanes {
		entries := Mem{Base: table, Disp: i * lanes * floatBytes}
		if i < chains {
			mins[i] = YMM()
			VMOVUPS(entries, mins[i])
		} else {
			VMINPS(entries, mins[i%chains], mins[i%chains])
		}
	}
	VMINPS(mins[1], mins[0], mins[0])
	VMINPS(mins[3], mins[2], mins[2])
	VMINPS(mins[2], mins[0], mins[0])
	all, other := mins[0], YMM()
	VPERM2F128(Imm(1), all, all, other)
	VMINPS(other, all, all)
	VPERMILPS(Imm(0b01_00_11_10), all, other)
	VMINPS(other, all, all)
	VPERMILPS(Imm(0b10_11_00_01), all, other)
	VMINPS(other, all, all)
	place, equal := GP64(), GP64()
	XORL(place.As32(), place.As32())
	Label("search")
	found := YMM()
	VCMPPS(Imm(0), Mem{Base: table, Index: place, Scale: floatBytes}, all, found)
	ADDQ(Imm(lanes), place)
	VMOVMSKPS(found, equal.As32())
	TESTL(equal.As32(), equal.As32())
	JZ(LabelRef("search"))
	BSFL(equal.As32(), equal.As32())
	LEAQ(Mem{Base: place, Index: equal, Scale: 1, Disp: -lanes}, place)
	Store(place, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
