package quant

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"

	"github.com/vectord/vectord"
)

//go:generate go run -C asm . -pkg quant -out ../kernel_amd64.s -stubs ../kernel_stubs_amd64.go

// kernelEnv is the environment variable that names the kernels to use instead of the best.
const kernelEnv = "VECTORD_KERNEL"

// A level is a set of instructions that kernels are written in. A machine that has one has those before it too.
type level int

const (
	levelGo level = iota
	levelAVX2
	levelAVX512VNNI
)

var levelNames = [...]string{levelGo: "go", levelAVX2: "avx2", levelAVX512VNNI: "avx512vnni"}

func (l level) String() string { return levelNames[l] }

// chosen is the level in use, chosenErr why it is not the one asked for. They never change.
var chosen, chosenErr = choose(os.Getenv(kernelEnv), bestLevel())

// choose returns the level called name, or the best if name is empty. It returns an error and the best if there is no such
// level or it is above the best.
func choose(name string, best level) (level, error) {
	if name == "" {
		return best, nil
	}
	for l, n := range levelNames {
		switch {
		case n != name:
		case level(l) > best:
			return best, fmt.Errorf("%s=%s: not available on this machine, using %s", kernelEnv, name, best)
		default:
			return level(l), nil
		}
	}
	return best, fmt.Errorf("%s=%q: unknown, expected one of %s; using %s", kernelEnv, name, strings.Join(levelNames[:], ", "), best)
}

// KernelName returns the name of the kernels in use: "avx512vnni", "avx2" or "go". They are the best that the machine has,
// or those that the environment variable VECTORD_KERNEL names. All give the same distances. In a
// build for the race detector they report what they read and write, so that it sees through assembly too.
func KernelName() string { return chosen.String() }

// KernelError returns an error if VECTORD_KERNEL names kernels that do not exist or that this machine does not have, so that
// the best are in use instead.
func KernelError() error { return chosenErr }

// compare runs the kernel of the Scalar's distance:
//
//	dot:       dst[i] = add - sum(u*c)
//	euclid:    dst[i] = add + norm - 2*sum(u*c), norm being the int32 in the last four bytes of the row
//	manhattan: dst[i] = sum(|u-c|)
//
// u are the bytes of row slots[i] and c those of the query. The sums run over the whole row, whose end is neutral: the
// query has 0 there, or for manhattan what the row has. All arithmetic is that of int32, which wraps, so the kernels of
// all levels give the same bits. dst and slots have the same length, at least 1.
func (s *Scalar) compare(dst []int32, q *Query, rows []byte, slots []uint32) {
	s.compareAt(chosen, dst, q, rows, slots)
}

// comparePortable is the kernels in Go, the reference for those in assembly.
func (s *Scalar) comparePortable(dst []int32, q *Query, rows []byte, slots []uint32) {
	for i, slot := range slots {
		row := rows[int(slot)*s.rowSize:][:s.rowSize]
		switch s.distance {
		case vectord.Euclid:
			norm := int32(binary.LittleEndian.Uint32(row[len(row)-normBytes:]))
			dst[i] = q.add + norm - 2*dotPortable(row, q.codes)
		case vectord.Manhattan:
			dst[i] = manhattanPortable(row, q.codes)
		default:
			dst[i] = q.add - dotPortable(row, q.codes)
		}
	}
}

// dotPortable returns the sum of the products of unsigned and signed bytes. The length of both is a multiple of four.
func dotPortable(row, query []byte) int32 {
	var even, odd int32 // two sums, of which neither waits for the other
	for len(row) >= 4 && len(query) >= 4 {
		even += int32(row[0])*int32(int8(query[0])) + int32(row[2])*int32(int8(query[2]))
		odd += int32(row[1])*int32(int8(query[1])) + int32(row[3])*int32(int8(query[3]))
		row, query = row[4:], query[4:]
	}
	return even + odd
}

// manhattanPortable returns the sum of the differences of unsigned bytes.
func manhattanPortable(row, query []byte) int32 {
	query = query[:len(row)]
	var sum int32
	for i, u := range row {
		d := int32(u) - int32(query[i])
		sign := d >> 31 // no branch, which random bytes would mispredict
		sum += (d ^ sign) - sign
	}
	return sum
}
