// Package simd says which instructions the distance kernels use: the best that the machine has, or those that an
// environment variable names.
package simd

import (
	"fmt"
	"os"
	"strings"
)

// Env is the environment variable that names the level to use instead of the best.
const Env = "VECTORD_KERNEL"

// A Level is a set of instructions that kernels are written in.
type Level int

// The levels. A machine has Go and, by its architecture, either some of AVX2 and AVX512 (F, BW, DQ, VL and VNNI; one that
// has it has AVX2 too) or NEON (with the dot product instructions).
const (
	Go Level = iota
	AVX2
	AVX512
	NEON
)

var names = [...]string{Go: "go", AVX2: "avx2", AVX512: "avx512vnni", NEON: "neon"}

func (l Level) String() string { return names[l] }

// Chosen is the level in use. All levels give the same integers; floating point sums may differ in their last bits.
var Chosen, chosenErr = choose(os.Getenv(Env), Available())

// Err returns an error if VECTORD_KERNEL names a level that does not exist or that this machine does not have, so that the
// best is in use instead.
func Err() error { return chosenErr }

// Available returns the levels of this machine and build, from Go to the best.
func Available() []Level { return append([]Level{Go}, available()...) }

// All returns every level that there is.
func All() []Level { return []Level{Go, AVX2, AVX512, NEON} }

// choose returns the level called name, or the last of those available, which is the best, if name is empty. It returns an
// error and the best if there is no such level or it is not available.
func choose(name string, available []Level) (Level, error) {
	best := available[len(available)-1]
	if name == "" {
		return best, nil
	}
	for _, l := range available {
		if l.String() == name {
			return l, nil
		}
	}
	for _, l := range All() {
		if l.String() == name {
			return best, fmt.Errorf("%s=%s: not available on this machine, using %s", Env, name, best)
		}
	}
	return best, fmt.Errorf("%s=%q: unknown, expected one of %s; using %s", Env, name, strings.Join(names[:], ", "), best)
}
