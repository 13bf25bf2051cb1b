package vectord

import (
	"math"
)

// Distance says how the nearness of two vectors is measured.
type Distance uint8

// The distances. The zero value is none of them, so a forgotten distance is an error.
const (
	Cosine    Distance = iota + 1 // dot product of the normalised vectors; larger is nearer
	Dot                           // dot product; larger is nearer
	Euclid                        // L2 distance; smaller is nearer
	Manhattan                     // L1 distance; smaller is nearer
)

var distanceNames = [...]string{Cosine: "Cosine", Dot: "Dot", Euclid: "Euclid", Manhattan: "Manhattan"}

// Valid reports whether d is one of the four distances.
func (d Distance) Valid() bool { return d >= Cosine && d <= Manhattan }

func (d Distance) String() string {
	if !d.Valid() {
		return "unknown distance"
	}
	return distanceNames[d]
}

// ParseDistance reads the name of a distance as String writes it.
func ParseDistance(s string) (Distance, error) {
	for d := Cosine; d <= Manhattan; d++ {
		if distanceNames[d] == s {
			return d, nil
		}
	}
	return 0, Errorf(KindInvalid, "unknown distance %q, expected one of Cosine, Euclid, Dot, Manhattan", s)
}

// MarshalText and UnmarshalText use the distance's name.
func (d Distance) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Distance) UnmarshalText(b []byte) (err error) {
	*d, err = ParseDistance(string(b))
	return err
}

// LargerIsNearer reports whether scores of this distance fall with growing distance.
func (d Distance) LargerIsNearer() bool { return d == Cosine || d == Dot }

// Nearer reports whether score a is nearer than score b.
func (d Distance) Nearer(a, b float32) bool {
	if d.LargerIsNearer() {
		return a > b
	}
	return a < b
}

// Normalize scales v to unit length in place, as points and queries of a Cosine collection are kept. A zero vector, and
// one whose length is already 1 to the last bits, stays as it is, so that normalising twice is normalising once.
func Normalize(v []float32) {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 || math.Abs(sum-1) < 1e-6 {
		return
	}
	scale := 1 / math.Sqrt(sum)
	for i, x := range v {
		v[i] = float32(float64(x) * scale)
	}
}
