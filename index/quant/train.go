package quant

import (
	"math"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// Bounds of a training.
const (
	trainRowsMax       = 10_000  // vectors looked at
	trainComponentsMax = 1 << 24 // components looked at, which leaves fewer vectors beyond 1,677 dimensions
	judgeRowsMin       = 1_000   // with fewer vectors nothing is cut off
	judgeRowsMax       = 2_048   // vectors that the candidates are judged by
	judgeQueries       = 100     // queries among them
	judgeNearest       = 10      // neighbors per query
)

// quantiles are the shares of the components that the range of the codes may cover instead of all. The outermost
// components of real vectors are few and far out. Cutting the last ones off gives all others finer steps; cutting off as
// much as a hundredth costs a tenth of the neighbors.
var quantiles = [...]float64{0.9999, 0.9995, 1 - CutMax}

// CutMax is the most that Train cuts off by itself, as a share of the components.
const CutMax = 0.001

// QuantileMin is the least share of the components that TrainWithin may be told to cover.
const QuantileMin = 0.5

func validQuantile(q float32) bool { return q >= QuantileMin && q <= 1 }

// Train returns a Scalar for vectors of length dim compared by d, fitted to a sample of at least one. Some ten thousand
// vectors are enough; of more, or of very long ones, Train looks at an even choice. The same sample gives the same Scalar.
// The vectors of Cosine must be normalised. It returns an error of kind KindInvalid if d, dim or the sample is not usable.
//
// The scale covers all components of the sample or one of their outer quantiles, namely that by which the codes' neighbors agree best
// with the exact ones. A small sample says nothing about tails and is covered whole. For Euclid and Manhattan the mean of
// the sample is subtracted first, which leaves all distances as they are and makes the range smaller.
func Train(d vectord.Distance, dim int, sample [][]float32) (*Scalar, error) {
	return TrainWithin(d, dim, sample, 1)
}

// TrainWithin is Train for a scale that covers at most the share quantile of the sample's components, from QuantileMin to 1.
func TrainWithin(d vectord.Distance, dim int, sample [][]float32, quantile float32) (*Scalar, error) {
	if err := checkShape(d, dim); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "quantizer: %v", err)
	}
	if !validQuantile(quantile) {
		return nil, vectord.Errorf(vectord.KindInvalid, "quantizer: quantile %v is not from %v to 1", quantile, QuantileMin)
	}
	sample, err := checkSample(dim, sample)
	if err != nil {
		return nil, err
	}
	var center []float32
	if centered(d) {
		center = mean(sample, dim)
	}
	sizes := measure(sample, center)
	if center != nil && sizes.peak == 0 {
		// Equal vectors, or one, do not say how far others will be from them. Their distance from the origin is a guess.
		center = make([]float32, dim)
		sizes = measure(sample, center)
	}
	if sizes.peak == 0 {
		sizes.peak = 1
	}
	peak := sizes.peak
	if quantile < 1 {
		peak = sizes.quantile(float64(quantile))
	}
	s := fit(d, dim, peak, center)
	if len(sample) >= judgeRowsMin {
		s = judge(d, dim, sample, sizes, s)
	}
	s.quantile = quantile
	return s, nil
}

// checkSample returns the vectors of the sample to look at, or an error if they are not usable.
func checkSample(dim int, sample [][]float32) ([][]float32, error) {
	if len(sample) == 0 {
		return nil, vectord.Errorf(vectord.KindInvalid, "quantizer: the sample is empty")
	}
	sample = thin(sample, min(trainRowsMax, trainComponentsMax/dim))
	for _, v := range sample {
		if len(v) != dim {
			return nil, vectord.Errorf(vectord.KindInvalid, "quantizer: the sample has a vector of length %d, not %d", len(v), dim)
		}
		for _, x := range v {
			if !finite(x) {
				return nil, vectord.Errorf(vectord.KindInvalid, "quantizer: the sample has a component %v", x)
			}
		}
	}
	return sample, nil
}

// fit returns the Scalar whose codes reach to peak.
func fit(d vectord.Distance, dim int, peak float32, center []float32) *Scalar {
	scale, _ := stepOf(peak, codeRange(d, dim))
	return newScalar(d, dim, scale, center)
}

// judge returns best or the Scalar of a quantile that covers less, the one with the most true neighbors, the largest of
// equals. Agreement rises while the steps get finer and falls once too much is cut off, so the first fall ends the search.
func judge(d vectord.Distance, dim int, sample [][]float32, sizes *magnitudes, best *Scalar) *Scalar {
	sample = thin(sample, judgeRowsMax)
	queries := thin(sample, judgeQueries)
	flat := index.NewFlat(d, dim)
	for i, v := range sample {
		flat.Add(uint32(i), v)
	}
	truth := make([][]index.Neighbor, len(queries))
	for i, q := range queries {
		truth[i] = flat.Search(nil, q, judgeNearest, nil)
	}

	bestFound := best.agreement(sample, queries, truth)
	for _, q := range quantiles {
		s := fit(d, dim, sizes.quantile(q), best.center)
		if s.scale >= best.scale {
			continue
		}
		found := s.agreement(sample, queries, truth)
		if found < bestFound {
			break
		}
		if found > bestFound {
			best, bestFound = s, found
		}
	}
	return best
}

// agreement counts the true neighbors of the queries that are also among the nearest by the codes.
func (s *Scalar) agreement(sample, queries [][]float32, truth [][]index.Neighbor) int {
	rows := make([]byte, len(sample)*s.rowSize)
	for i, v := range sample {
		s.EncodeRow(rows[i*s.rowSize:], v)
	}
	distances := make([]int32, len(sample))
	var q Query
	var top index.Top
	var nearest []index.Neighbor
	found := 0
	for i, v := range queries {
		s.EncodeQuery(&q, v)
		s.Scan(distances, &q, rows)
		top.Reset(judgeNearest)
		for slot, d := range distances {
			top.Offer(index.Neighbor{Slot: uint32(slot), Distance: float32(d)})
		}
		nearest = top.AppendSorted(nearest[:0])
		for _, n := range nearest {
			for _, t := range truth[i] {
				if n.Slot == t.Slot {
					found++
				}
			}
		}
	}
	return found
}

// thin returns n vectors spread evenly over the sample, or all if there are no more.
func thin(sample [][]float32, n int) [][]float32 {
	if len(sample) <= n {
		return sample
	}
	few := make([][]float32, n)
	for i := range few {
		few[i] = sample[i*len(sample)/n]
	}
	return few
}

func mean(sample [][]float32, dim int) []float32 {
	sum := make([]float64, dim)
	for _, v := range sample {
		for i, x := range v {
			sum[i] += float64(x)
		}
	}
	center := make([]float32, dim)
	for i, x := range sum {
		center[i] = float32(x / float64(len(sample)))
	}
	return center
}

// magnitudes is the distribution of the absolute values of components: their number by the upper half of their bits,
// that is within one part in 128 of each other, and the largest. It finds a quantile without sorting millions of numbers.
type magnitudes struct {
	count [1 << 15]int
	total int
	peak  float32
}

// measure looks at the components of the sample, less the center if there is one.
func measure(sample [][]float32, center []float32) *magnitudes {
	m := new(magnitudes)
	for _, v := range sample {
		for i, x := range v {
			if center != nil {
				x -= center[i]
			}
			x = min(max(x, -x), math.MaxFloat32)
			m.count[math.Float32bits(x)>>16]++
			m.peak = max(m.peak, x)
		}
		m.total += len(v)
	}
	return m
}

// quantile returns a size that the share q of the components do not exceed, too large by less than one part in 128.
func (m *magnitudes) quantile(q float64) float32 {
	beyond := int((1 - q) * float64(m.total))
	for i := len(m.count) - 1; i >= 0; i-- {
		if beyond -= m.count[i]; beyond < 0 {
			return min(math.Float32frombits(uint32(i)<<16|0xffff), m.peak)
		}
	}
	return m.peak
}

func finite(x float32) bool { return x-x == 0 }
