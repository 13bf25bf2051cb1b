package quant

import (
	"math"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/vectord/vectord"
)

const (
	// productRounds bounds the rounds of k-means. Most of what they gain they gain in the first few.
	productRounds = 12

	// productStarts is from how many of the points the first centroids are chosen.
	productStarts = 10 * productCentroids
)

// TrainProduct returns a Product for vectors of length dim compared by d, fitted to a sample of at least one. Some ten
// thousand vectors are enough; of more, or of very long ones, it looks at an even choice. compression is one of
// vectord.Compressions: how many times smaller than float32 the codes are. The same sample gives the same Product. The vectors
// of Cosine must be normalised. It returns an error of kind KindInvalid if d, dim, compression or the sample is not usable.
//
// The centroids of a piece are those of k-means by Euclid's distance, whatever d is, from a start by k-means++ (Arthur and
// Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007). It uses all processors.
func TrainProduct(d vectord.Distance, dim int, sample [][]float32, compression int) (*Product, error) {
	if err := checkProduct(d, dim, compression); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "product quantizer: %v", err)
	}
	sample, err := checkSample(dim, sample)
	if err != nil {
		return nil, err
	}
	p := newProduct(d, dim, compression)
	for i := range dim {
		p.low[i], p.high[i] = math.MaxFloat32, -math.MaxFloat32
	}
	for _, v := range sample {
		for i, x := range v {
			p.low[i], p.high[i] = min(p.low[i], x), max(p.high[i], x)
		}
	}
	var next atomic.Int64
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), p.pieces()) {
		workers.Go(func() {
			k := newKMeans(len(sample), p.width)
			for {
				piece := int(next.Add(1) - 1)
				if piece >= p.pieces() {
					return
				}
				for i, v := range sample {
					point := k.points[i*p.width:][:p.width]
					clear(point)
					for j, x := range v[p.starts[piece]:p.starts[piece+1]] {
						point[j] = clamp(x, productMax)
					}
				}
				p.setCentroids(piece, k.run(uint64(piece)))
			}
		})
	}
	workers.Wait()
	return p, nil
}

// kMeans finds centroids of points. It is used again for one piece after the other.
type kMeans struct {
	width   int
	points  []float32 // width components each
	codes   []byte    // of the nearest centroid
	squares []float32 // of the distance to it, or to the nearest of those chosen
	sums    []float64 // of the points of each centroid
	counts  []int     // of these points

	centroids, columns []float32 // see Product
}

func newKMeans(points, width int) *kMeans {
	return &kMeans{width, make([]float32, points*width), make([]byte, points), make([]float32, points),
		make([]float64, productCentroids*width), make([]int, productCentroids),
		make([]float32, productCentroids*width), make([]float32, productCentroids*width)}
}

// point returns a point.
func (k *kMeans) point(i int) []float32 { return k.points[i*k.width:][:k.width] }

// run returns centroids, which are valid until the next run.
func (k *kMeans) run(seed uint64) []float32 {
	k.start(k.centroids, rand.New(rand.NewPCG(seed, productCentroids)))
	clear(k.codes)
	for range productRounds {
		transpose(k.columns, k.centroids, k.width)
		if !k.assign() {
			break
		}
		k.move(k.centroids)
	}
	return k.centroids
}

// start chooses points as the first centroids, each further one by a chance in proportion to the square of its distance from
// those before. Where there are no more different points, those left are as the first.
func (k *kMeans) start(centroids []float32, random *rand.Rand) {
	step := max(len(k.squares)/productStarts, 1)
	for i := range k.squares {
		k.squares[i] = math.MaxFloat32
	}
	chosen := random.IntN(len(k.squares))
	for c := range productCentroids {
		centroid := centroids[c*k.width:][:k.width]
		copy(centroid, k.point(chosen))
		total := 0.0
		for i := 0; i < len(k.squares); i += step {
			square := float32(0)
			for j, x := range k.point(i) {
				d := x - centroid[j]
				square += float32(d * d)
			}
			k.squares[i] = min(k.squares[i], square)
			total += float64(k.squares[i])
		}
		if total == 0 {
			for c++; c < productCentroids; c++ {
				copy(centroids[c*k.width:], centroids[:k.width])
			}
			return
		}
		left := random.Float64() * total
		for i := 0; i < len(k.squares) && left >= 0; i += step {
			if k.squares[i] > 0 {
				chosen = i // the last one that can be if rounding leaves something of left
				left -= float64(k.squares[i])
			}
		}
	}
}

// assign sets codes and reports whether one changed. At first all are 0, and if they stay, all points are equal.
func (k *kMeans) assign() (changed bool) {
	for i, old := range k.codes {
		k.codes[i], k.squares[i] = nearest(k.point(i), k.columns)
		changed = changed || k.codes[i] != old
	}
	return changed
}

// move sets each centroid to the mean of its points. One that has none stays.
func (k *kMeans) move(centroids []float32) {
	clear(k.sums)
	clear(k.counts)
	for i, code := range k.codes {
		k.counts[code]++
		sum := k.sums[int(code)*k.width:][:k.width]
		for j, x := range k.point(i) {
			sum[j] += float64(x)
		}
	}
	for c, count := range k.counts {
		for j := range k.width {
			if count > 0 {
				centroids[c*k.width+j] = float32(k.sums[c*k.width+j] / float64(count))
			}
		}
	}
}
