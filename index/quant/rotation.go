package quant

import (
	"math"

	"github.com/vectord/vectord/index/simd"
)

// rotation turns vectors by one orthogonal matrix that looks random, so that no direction of the data is special to the
// bits of a Binary. A matrix drawn at random would take a product of size²; this one is made of rounds, each of which puts
// the components in a random order with random signs, and then mixes them by Walsh-Hadamard transforms, which take a power
// of two of components: first those from the beginning, then, again with random signs, those up to the end. Few rounds do:
// each component is then a sum of all, with random signs.
//
// The same size gives the same matrix and, as no product is ever added to, the same floats on every machine.
type rotation struct {
	size   int // a multiple of rotationAlign
	block  int // the largest power of two up to size, which a transform takes
	rounds []rotationRound
}

// rotationRound says where the components come from and what those of each transform are multiplied with before: a sign,
// and the scale that keeps lengths.
type rotationRound struct {
	from  []uint16
	first []float32 // of all components; 1 or -1 for those that the transform does not take
	last  []float32 // of the last block; nil where the first transform took all
}

const (
	rotationAlign      = 64
	rotationSeed       = 0x76656374 // part of the binary form of a Binary, which does not say it
	rotationRounds     = 3          // where one transform takes all components
	rotationRoundsPair = 2          // where it takes two
)

// newRotation returns the rotation of vectors of length dim, which are padded to its size.
func newRotation(dim int) rotation {
	r := rotation{size: (dim + rotationAlign - 1) / rotationAlign * rotationAlign, block: rotationAlign}
	for 2*r.block <= r.size {
		r.block *= 2
	}
	scale := float32(1 / math.Sqrt(float64(r.block)))
	rounds := rotationRounds
	if r.isPair() {
		rounds = rotationRoundsPair
	}
	state := uint64(rotationSeed)
	random := func() uint64 { // splitmix64 by Vigna
		state += 0x9e3779b97f4a7c15
		x := state
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		return x ^ x>>31
	}
	signed := func(x float32) float32 {
		if random()>>63 != 0 {
			return -x
		}
		return x
	}
	for range rounds {
		next := rotationRound{from: make([]uint16, r.size), first: make([]float32, r.size)}
		for i := range next.from {
			j := random() % uint64(i+1)
			next.from[i] = next.from[j]
			next.from[j] = uint16(i)
		}
		for i := range next.first {
			if i < r.block {
				next.first[i] = signed(scale)
			} else {
				next.first[i] = signed(1)
			}
		}
		if r.isPair() {
			next.last = make([]float32, r.block)
			for i := range next.last {
				next.last[i] = signed(scale)
			}
		}
		r.rounds = append(r.rounds, next)
	}
	return r
}

// isPair reports whether a round takes two transforms.
func (r *rotation) isPair() bool { return r.block != r.size }

// apply turns the vector in v. Both v and spare have the length size; it returns the one that holds the result, and then
// the other.
func (r *rotation) apply(v, spare []float32) (turned, other []float32) {
	for i := range r.rounds {
		round := &r.rounds[i]
		from, factor := round.from[:len(spare)], round.first[:len(spare)]
		for j := range spare {
			spare[j] = float32(v[from[j]] * factor[j])
		}
		v, spare = spare, v
		hadamard(v[:r.block])
		if !r.isPair() {
			continue
		}
		last := v[r.size-r.block:]
		factor = round.last[:len(last)]
		for j := range last {
			last[j] = float32(last[j] * factor[j])
		}
		hadamard(last)
	}
	return v, spare
}

// hadamard is the fast Walsh-Hadamard transform, without a scale, of a power of two of components, at least 8. All levels of
// instructions add the same pairs in the same order.
func hadamard(v []float32) { hadamardAt(simd.Chosen, v) }

func hadamardPortable(v []float32) {
	for b := v; len(b) >= 8; b = b[8:] {
		a0, a1, a2, a3 := b[0]+b[1], b[0]-b[1], b[2]+b[3], b[2]-b[3]
		a4, a5, a6, a7 := b[4]+b[5], b[4]-b[5], b[6]+b[7], b[6]-b[7]
		c0, c1, c2, c3 := a0+a2, a1+a3, a0-a2, a1-a3
		c4, c5, c6, c7 := a4+a6, a5+a7, a4-a6, a5-a7
		b[0], b[1], b[2], b[3] = c0+c4, c1+c5, c2+c6, c3+c7
		b[4], b[5], b[6], b[7] = c0-c4, c1-c5, c2-c6, c3-c7
	}
	half := 8
	for ; 4*half <= len(v); half *= 4 { // two steps in one pass
		for b := v; len(b) > 0; b = b[4*half:] {
			p, q, r, s := b[:half], b[half:2*half], b[2*half:3*half], b[3*half:4*half]
			q, r, s = q[:len(p)], r[:len(p)], s[:len(p)]
			for i := range p {
				a0, a1, a2, a3 := p[i]+q[i], p[i]-q[i], r[i]+s[i], r[i]-s[i]
				p[i], q[i], r[i], s[i] = a0+a2, a1+a3, a0-a2, a1-a3
			}
		}
	}
	if half < len(v) {
		a, b := v[:half], v[half:]
		b = b[:len(a)]
		for i := range a {
			a[i], b[i] = a[i]+b[i], a[i]-b[i]
		}
	}
}
