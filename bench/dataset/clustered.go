package dataset

import (
	"io"
	"math/rand/v2"

	"github.com/vectord/vectord"
)

// clusterPoints is about how many vectors of a Clustered lie around one center.
const clusterPoints = 500

// Clustered generates vectors that lie around centers, as embeddings do: real ones of a given number and dimension are not
// always at hand. The same arguments give the same vectors.
type Clustered struct {
	rng     *rand.Rand
	centers [][]float32
	left    int
	row     uint64
	vector  []float32
}

// NewClustered returns a reader of n vectors of length dim.
func NewClustered(seed uint64, n, dim int) *Clustered {
	c := &Clustered{rng: rand.New(rand.NewPCG(seed, uint64(dim))), left: n, vector: make([]float32, dim)}
	c.centers = make([][]float32, 1+n/clusterPoints)
	for i := range c.centers {
		c.centers[i] = make([]float32, dim)
		for j := range c.centers[i] {
			c.centers[i][j] = float32(c.rng.NormFloat64())
		}
	}
	return c
}

// Next implements Reader.
func (c *Clustered) Next() (vectord.Point, error) {
	if c.left == 0 {
		return vectord.Point{}, io.EOF
	}
	c.left--
	center := c.centers[c.rng.IntN(len(c.centers))]
	for i := range c.vector {
		c.vector[i] = center[i] + float32(c.rng.NormFloat64())
	}
	c.row++
	return vectord.Point{ID: vectord.NumberID(c.row - 1), Vectors: vectord.Unnamed(c.vector)}, nil
}
