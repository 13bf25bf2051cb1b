package hnsw

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/index/quant"
)

// embeddings returns n vectors of length dim that vary in a few directions around a few centers, and a little in all.
func embeddings(seed uint64, n, dim int) [][]float32 {
	const directions = 12
	rng := rand.New(rand.NewPCG(seed, 4))
	gaussians := func(n int) [][]float32 {
		all := make([][]float32, n)
		for i := range all {
			all[i] = make([]float32, dim)
			for j := range all[i] {
				all[i][j] = float32(rng.NormFloat64())
			}
		}
		return all
	}
	centers, basis := gaussians(1+n/200), gaussians(directions)
	vectors := make([][]float32, n)
	for i := range vectors {
		v := slices.Clone(centers[rng.IntN(len(centers))])
		for _, b := range basis {
			w := float32(rng.NormFloat64()) / 2
			for j := range v {
				v[j] += w * b[j]
			}
		}
		for j := range v {
			v[j] += 0.2 * float32(rng.NormFloat64())
		}
		vectors[i] = v
	}
	return vectors
}

// TestCodecs builds graphs over each kind of codes and holds what they find, compared again at full precision, against the
// exact index. A graph that was saved and loaded finds the same.
func TestCodecs(t *testing.T) {
	oneGoroutine(t)
	const n, queries, dim = 2000, 100, 512
	for _, d := range []vectord.Distance{vectord.Cosine, vectord.Dot, vectord.Euclid} {
		vectors := embeddings(1, n+queries, dim)
		if d == vectord.Cosine {
			for _, v := range vectors {
				vectord.Normalize(v)
			}
		}
		flat := index.NewFlat(d, dim)
		for slot, v := range vectors[:n] {
			flat.Add(uint32(slot), v)
		}
		codecs := make([]quant.Codec, 3, 8)
		errs := make([]error, 3, 8)
		codecs[0], errs[0] = quant.Train(d, dim, vectors[:n])
		codecs[1], errs[1] = quant.NewFloat32(d, dim)
		codecs[2], errs[2] = quant.TrainBinary(d, dim, vectors[:n])
		for _, compression := range []int{4, 64} {
			codec, err := quant.TrainProduct(d, dim, vectors[:n], compression)
			codecs, errs = append(codecs, codec), append(errs, err)
		}
		distance := index.DistanceFunc(d)
		for i, codec := range codecs {
			if errs[i] != nil {
				t.Fatal(errs[i])
			}
			g, err := New(codec, Config{EfConstruction: 100})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(g.Close)
			g.costs.fixed = new(float64)
			for slot, v := range vectors[:n] {
				if err := g.Insert(uint32(slot), v); err != nil {
					t.Fatal(err)
				}
			}
			var b bytes.Buffer
			if err := g.Save(&b); err != nil {
				t.Fatal(err)
			}
			loaded, err := Load(&b, Limits{})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(loaded.Close)
			loaded.costs.fixed = new(float64)
			if got, want := loaded.Codec().Name(), codec.Name(); got != want {
				t.Fatalf("codes of %s were loaded as %s", want, got)
			}
			name := codec.Name()
			if p, ok := codec.(*quant.Product); ok {
				name = fmt.Sprintf("%s x%d", name, p.Compression())
			}
			found := 0
			for _, q := range vectors[n:] {
				candidates := g.Search(nil, q, Params{K: 10, Depth: 100, Ef: 100})
				if again := loaded.Search(nil, q, Params{K: 10, Depth: 100, Ef: 100}); !slices.Equal(candidates, again) {
					t.Fatalf("%s %s: found %v, and after loading %v", name, d, candidates, again)
				}
				for i := range candidates {
					candidates[i].Distance = distance(q, vectors[candidates[i].Slot])
				}
				slices.SortFunc(candidates, index.Compare)
				for _, want := range flat.Search(nil, q, 10, nil) {
					if slices.ContainsFunc(candidates[:10], func(c index.Neighbor) bool { return c.Slot == want.Slot }) {
						found++
					}
				}
			}
			recall := float64(found) / (10 * queries)
			t.Logf("%s %s: recall %.3f", name, d, recall)
			if recall < 0.97 {
				t.Errorf("%s %s: recall %.3f, want at least 0.97", name, d, recall)
			}
		}
	}
}

// TestCheckpointOfLargeCodec saves and loads a graph whose codec is larger than any frame of nodes may be.
func TestCheckpointOfLargeCodec(t *testing.T) {
	vectors := embeddings(2, 20, 3000)
	codec, err := quant.TrainProduct(vectord.Euclid, 3000, vectors, 64)
	if err != nil {
		t.Fatal(err)
	}
	g, err := New(codec, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for slot, v := range vectors {
		if err := g.Insert(uint32(slot), v); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	if err := g.Save(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() < frameBytesMax {
		t.Fatalf("the checkpoint has only %d bytes", b.Len())
	}
	loaded, err := Load(&b, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer loaded.Close()
	if found := loaded.Search(nil, vectors[7], Params{K: 1, Ef: 20}); len(found) != 1 || found[0].Slot != 7 {
		t.Errorf("the nearest to vector 7 is %v", found)
	}
}
