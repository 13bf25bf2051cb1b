package engine

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/vectord/vectord"
)

// groupedPoint is a point as the tests of groups know it.
type groupedPoint struct {
	id     vectord.PointID
	x      float32
	values []string // JSON
}

// newGroupsBench returns an engine with points on a line: very many of one group near 0 and more without any group, then a few
// of each of the others, half of which the large group shares.
func newGroupsBench(t testing.TB, rng *rand.Rand, large, others int) (*fieldBench, []groupedPoint) {
	b := newFieldBench(t, 3)
	var points []groupedPoint
	add := func(x float32, values ...string) {
		points = append(points, groupedPoint{vectord.NumberID(uint64(len(points))), x, values})
	}
	for range large {
		add(rng.Float32(), `"large"`)
		add(rng.Float32(), `2.5`, `true`)
	}
	for i := range others {
		for range 4 {
			values := []string{fmt.Sprint(i)}
			if i%2 == 0 {
				values = append(values, `"large"`, fmt.Sprintf(`"%d"`, i))
			}
			add(2+rng.Float32(), values...)
		}
	}
	for some := range slices.Chunk(points, 5000) {
		op := vectord.Operation{Kind: vectord.OpUpsert}
		for _, p := range some {
			payload := "{\"g\":["
			for i, v := range p.values {
				if i > 0 {
					payload += ","
				}
				payload += v
			}
			op.Points = append(op.Points, vectord.Point{ID: p.id, Vectors: vectord.Unnamed([]float32{p.x, 0}), Payload: []byte(payload + "]}")})
		}
		b.write(op)
	}
	return b, points
}

// TestGroupsAreFull asks for groups behind more points than one search may find.
func TestGroupsAreFull(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	const others = 15
	b, points := newGroupsBench(t, rng, vectord.MaxLimit+500, others)
	defer b.stop()
	slices.SortFunc(points, func(a, b groupedPoint) int { return cmp.Or(cmp.Compare(a.x, b.x), a.id.Compare(b.id)) })
	for _, indexed := range []bool{false, true} {
		if indexed {
			b.index("g", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
		}
		for _, size := range []int{1, 3, 5} {
			for _, limit := range []int{1, 2, 10, 1 + others + (others+1)/2, 40} {
				var want []string
				sizes := map[string]int{}
				for _, p := range points {
					for _, v := range p.values {
						if v == "2.5" || v == "true" {
							continue
						}
						if _, ok := sizes[v]; !ok {
							want = append(want, v)
						}
						sizes[v] = min(sizes[v]+1, size)
					}
				}
				want = want[:min(limit, len(want))]
				groups, err := b.db.SearchGroups(context.Background(), "c", vectord.Groups{By: "g", Size: size,
					Query: vectord.Query{Nearest: vectord.Near([]float32{0, 0}), Limit: limit, Params: vectord.SearchParams{Exact: true}}})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, g := range groups {
					name := fmt.Sprint(g.Value.Int)
					if g.Value.Kind == vectord.ScalarString {
						name = fmt.Sprintf("%q", g.Value.String)
					}
					got = append(got, name)
					if len(g.Hits) != sizes[name] {
						t.Errorf("seed %d, indexed %v, %d groups of %d: %d hits of %s, want %d", seed, indexed, limit, size, len(g.Hits), name, sizes[name])
					}
					i := 0
					for _, p := range points {
						if i < len(g.Hits) && slices.Contains(p.values, name) {
							if g.Hits[i].ID != p.id {
								t.Fatalf("seed %d, indexed %v, %d groups of %d: hit %d of %s is %s, want %s", seed, indexed, limit, size, i, name, g.Hits[i].ID, p.id)
							}
							i++
						}
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("seed %d, indexed %v, %d groups of %d: %v, want %v", seed, indexed, limit, size, got, want)
				}
			}
		}
	}
}

// TestFacetsUnderWrites counts points while they move from slot to slot: each is there once, always.
func TestFacetsUnderWrites(t *testing.T) {
	b := newFieldBench(t, 2)
	defer b.stop()
	const points = 300
	op := vectord.Operation{Kind: vectord.OpUpsert}
	for i := range uint64(points) {
		op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(i), Vectors: vectord.Unnamed([]float32{float32(i), 1}),
			Payload: fmt.Appendf(nil, `{"k":"red","n":%d}`, i%7)})
	}
	b.write(op)
	b.index("k", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	b.index("n", vectord.FieldSchema{Type: vectord.FieldInteger}, true)
	ctx, stop := context.WithCancel(context.Background())
	written := make(chan struct{})
	go func() {
		defer close(written)
		for i := 0; ctx.Err() == nil; i++ {
			some := op
			some.Points = op.Points[i%points : min(i%points+20, points)]
			b.write(some)
		}
	}()
	for i := range 200 {
		filter, err := vectord.ParseFilter([]byte([]string{`{}`, `{"must":{"key":"n","range":{"gte":0}}}`, `{"must":{"key":"n","values_count":{"gte":1}}}`}[i%3]))
		if err != nil {
			t.Fatal(err)
		}
		hits, err := b.db.Facet(ctx, "c", vectord.Facet{Key: "k", Limit: 3, Filter: filter})
		if err != nil || len(hits) != 1 || hits[0].Count != points {
			t.Errorf("facet %d: %v, %v, want %d points", i, hits, err, points)
			break
		}
		page, err := b.db.Scroll(ctx, "c", vectord.ScrollRequest{Limit: vectord.MaxLimit, OrderBy: &vectord.OrderBy{Key: "n"}, Filter: filter})
		if err != nil || len(page.Points) != points {
			t.Errorf("scroll %d: %d points, %v, want %d", i, len(page.Points), err, points)
			break
		}
	}
	stop()
	<-written
}

func BenchmarkSearchGroups(b *testing.B) {
	bench, _ := newGroupsBench(b, rand.New(rand.NewPCG(1, 1)), 5000, 1000)
	defer bench.stop()
	bench.index("g", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	for b.Loop() {
		if _, err := bench.db.SearchGroups(context.Background(), "c", vectord.Groups{By: "g", Size: 3,
			Query: vectord.Query{Nearest: vectord.Near([]float32{2, 0}), Limit: 10}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkFacet(b *testing.B) {
	bench, _ := newGroupsBench(b, rand.New(rand.NewPCG(1, 1)), 5000, 1000)
	defer bench.stop()
	bench.index("g", vectord.FieldSchema{Type: vectord.FieldKeyword}, true)
	for b.Loop() {
		if _, err := bench.db.Facet(context.Background(), "c", vectord.Facet{Key: "g", Limit: 10}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatrix(b *testing.B) {
	bench, _ := newGroupsBench(b, rand.New(rand.NewPCG(1, 1)), 5000, 1000)
	defer bench.stop()
	for b.Loop() {
		if _, err := bench.db.Matrix(context.Background(), "c", vectord.Matrix{Sample: 100, Limit: 10}); err != nil {
			b.Fatal(err)
		}
	}
}
