package hnsw

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/quant"
)

// reach is how far a walk on layer 0 goes.
//
// HNSW expands nodes until the nearest that is left is further than the ef-th best. That spends as much on a query with ten
// neighbors that are far nearer than everything else as on one in the midst of a crowd. Here the walk ends at a distance
// instead, some factor beyond that of the k-th best, which makes it short where that is safe and long where it is not: at
// equal recall of real vectors it compares a third less (Al-Jazzazi et al., "Distance Adaptive Beam Search for Provably
// Accurate Graph-Based Nearest Neighbor Search", 2025, have the rule and why it works).
//
// The factor follows from ef and from how fast distances grow with rank among these vectors, which the graph learns from its
// inserts (see growth): it is by how much the ef-th nearest node of a point is further than the k-th, typically. So ef is
// still about the number of nodes expanded, as a mean.
type reach struct {
	goal     goal
	capacity int     // keys that the pool may hold
	limit    uint64  // keys beyond it are not expanded
	factor   float64 // by which lengths beyond the k-th best are multiplied; infinite where lengths are not known
	codec    quant.Codec
	query    *quant.Query
}

// reachMax bounds the nodes that a walk may keep, and so those that it expands, in units of ef.
const reachMax = 4

// aim sets the reach of a walk to a goal.
func (r *reach) aim(g *Graph, q *quant.Query, to goal) {
	*r = reach{goal: to, capacity: max(to.ef, to.depth), limit: math.MaxUint64, factor: math.Inf(1), codec: g.codec, query: q}
	if exponent, ok := g.growth.exponent(); ok {
		r.capacity = max(reachMax*to.ef, to.depth)
		r.factor = math.Pow(float64(to.ef)/float64(to.k), exponent)
	}
}

// follow draws the limit closer after keys went into the pool, the first of them at place lowest, and drops those that are
// neither within it nor among the nodes to return.
func (r *reach) follow(p *pool, lowest int) {
	n := len(p.keys)
	if math.IsInf(r.factor, 1) || n < r.goal.k {
		return
	}
	if lowest < r.goal.k {
		d := r.codec.Float(r.query, keyDistance(p.keys[r.goal.k-1]))
		origin := lengthOrigin(r.codec.Distance())
		far := float32((float64(d)-origin)*r.factor + origin)
		r.limit = key(r.codec.Quantum(r.query, far), keySlots-1) | expandedBit
	}
	if n < r.goal.depth {
		return
	}
	bound := max(r.limit, p.keys[r.goal.depth-1])
	for n > r.goal.depth && p.keys[n-1] > bound {
		n--
	}
	p.cut(n)
	p.bound = min(p.bound, bound)
}

// lengthOrigin returns the distance of index.DistanceFunc that a vector has from itself. What a distance exceeds it by is a
// length, or the square of one. The distances by Dot have no such point.
func lengthOrigin(d vectord.Distance) float64 {
	if d == vectord.Cosine {
		return -1
	}
	return 0
}

// growth learns how distances grow with rank: the mean exponent of rank by which the lengths from nodes to their neighbors
// grow. It is the inverse of the vectors' intrinsic dimension, or twice that where the lengths are squares.
type growth struct {
	bits  atomic.Uint64 // of the exponent
	count atomic.Int64  // nodes that have told about it
}

const (
	// growthFirst is the rank from which on distances are looked at: of those before chance has too large a part.
	growthFirst = 10

	// growthRatioMin is the least ratio of the last rank looked at to the first.
	growthRatioMin = 4

	// growthMax bounds what one node says: lengths that grow in proportion to the rank's fourth power.
	growthMax = 4

	// growthNodesMin is the number of nodes before which nothing is known, growthNodesMax that beyond which older ones are
	// forgotten.
	growthNodesMin = 1000
	growthNodesMax = 10_000
)

// exponent returns the exponent, or false if it is not known.
func (g *growth) exponent() (float64, bool) {
	return math.Float64frombits(g.bits.Load()), g.count.Load() >= growthNodesMin
}

// restore takes over what another growth has learnt. It returns an error if that cannot be.
func (g *growth) restore(exponent float64, count uint64) error {
	if !(exponent >= 0 && exponent <= growthMax) || count > math.MaxInt64 {
		return fmt.Errorf("growth with exponent %v of %d nodes", exponent, count)
	}
	g.bits.Store(math.Float64bits(exponent))
	g.count.Store(int64(count))
	return nil
}

// learn takes in the lengths from one node to its nearest in order.
func (g *growth) learn(codec quant.Codec, q *quant.Query, keys []uint64) {
	if codec.Distance() == vectord.Dot || len(keys) < growthRatioMin*growthFirst {
		return
	}
	length := func(rank int) float64 {
		return float64(codec.Float(q, keyDistance(keys[rank-1]))) - lengthOrigin(codec.Distance())
	}
	near, far := length(growthFirst), length(len(keys))
	if near <= 0 || far < near {
		return // copies of the node
	}
	sample := min(math.Log(far/near)/math.Log(float64(len(keys))/growthFirst), growthMax)
	weight := 1 / float64(min(g.count.Add(1), growthNodesMax))
	for {
		old := g.bits.Load()
		mean := math.Float64frombits(old)
		if g.bits.CompareAndSwap(old, math.Float64bits(mean+weight*(sample-mean))) {
			return
		}
	}
}
