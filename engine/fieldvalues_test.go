package engine

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// TestValuesOfFields compares the values that indexes list, and the order that they give, with those of the payloads.
func TestValuesOfFields(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 1))
	b := newFieldBench(t, 1)
	defer b.stop()
	type point struct {
		words  []string
		number float64
		when   vectord.Datetime
	}
	long := strings.Repeat("long ", 60)
	words := []string{"a", "b", "", "c\x00", long + "1", long + "2", "00000000-0000-0000-0000-000000000001"}
	points := map[vectord.PointID]point{}
	op := vectord.Operation{Kind: vectord.OpUpsert}
	for i := range uint64(300) {
		p := point{number: float64(rng.IntN(40)-20) / 2, when: vectord.Datetime(rng.IntN(1000)) * 1_000_000}
		for _, w := range rng.Perm(len(words))[:rng.IntN(3)] {
			p.words = append(p.words, words[w])
		}
		points[vectord.NumberID(i)] = p
		var texts []string
		for _, w := range p.words {
			texts = append(texts, `"`+strings.ReplaceAll(w, "\x00", `\u0000`)+`"`)
		}
		op.Points = append(op.Points, vectord.Point{ID: vectord.NumberID(i), Vectors: vectord.Unnamed([]float32{1, 2}),
			Payload: fmt.Appendf(nil, `{"w":[%s],"n":%v,"d":"%s","f":%v}`, strings.Join(texts, ","), p.number, p.when, i%2 == 0)})
	}
	b.write(op)
	for name, of := range map[string]vectord.FieldType{"w": vectord.FieldUUID, "n": vectord.FieldFloat, "d": vectord.FieldDatetime, "f": vectord.FieldBool} {
		b.index(name, vectord.FieldSchema{Type: of}, true)
	}
	c := b.collection()
	s := c.shards[0]
	ctx := context.Background()
	for _, text := range []string{"{}", `{"must":{"key":"n","range":{"gt":0}}}`} {
		filter, err := vectord.ParseFilter([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		m, err := c.compileFilter(filter)
		if err != nil {
			t.Fatal(err)
		}
		found, err := s.matches(ctx, b.store, m, false)
		if err != nil {
			t.Fatal(err)
		}
		inFilter := func(p point) bool { return filter == nil || p.number > 0 }

		want := map[string]int{}
		for _, p := range points {
			for _, w := range p.words {
				if inFilter(p) {
					want[w]++
				}
			}
		}
		counts, err := s.valueCounts(b.store, c.fieldByName("w"), found)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.IsSortedFunc(counts, func(a, b valueCount) int { return cmp.Compare(a.value.String, b.value.String) }) || len(counts) != len(want) {
			t.Errorf("seed %d, %s: values %v, want %v in order", seed, text, counts, want)
		}
		for _, v := range counts {
			if want[v.value.String] != v.count {
				t.Errorf("seed %d, %s: %q is had by %d points, want %d", seed, text, v.value.String, v.count, want[v.value.String])
			}
		}
		if bools, err := s.valueCounts(b.store, c.fieldByName("f"), found); err != nil || len(bools) != 2 || bools[0].value.Bool || !bools[1].value.Bool {
			t.Errorf("bools %v %v", bools, err)
		}

		for _, descending := range []bool{false, true} {
			for _, from := range []*vectord.Number{nil, new(vectord.FloatNumber(2.5)), new(vectord.IntNumber(-3)), new(vectord.IntNumber(500_000_000))} {
				for name, value := range map[string]func(p point) vectord.Number{
					"n": func(p point) vectord.Number { return vectord.FloatNumber(p.number) },
					"d": func(p point) vectord.Number { return vectord.IntNumber(int64(p.when)) },
				} {
					var want []orderedSlot
					for id, p := range points {
						row, _, err := b.store.Point(s.id, id)
						if err != nil {
							t.Fatal(err)
						}
						v := value(p)
						if inFilter(p) && (from == nil || v == *from || (v.Compare(*from) > 0) == !descending) {
							want = append(want, orderedSlot{row.Slot, v})
						}
					}
					order := func(a, b orderedSlot) int {
						c := a.value.Compare(b.value)
						if descending {
							c = -c
						}
						return c
					}
					slices.SortFunc(want, order)
					got, err := s.inOrder(c.fieldByName(name), found, descending, from, 20)
					if err != nil {
						t.Fatal(err)
					}
					if len(got) < min(20, len(want)) || !slices.IsSortedFunc(got, order) {
						t.Fatalf("seed %d: %s from %v, descending %v: %v, want %v", seed, name, from, descending, got, want)
					}
					bySlot := func(a, b orderedSlot) int { return cmp.Compare(a.slot, b.slot) }
					want = want[:len(got)] // the last value is there whole
					slices.SortFunc(got, bySlot)
					slices.SortFunc(want, bySlot)
					if !slices.Equal(got, want) {
						t.Fatalf("seed %d: %s from %v, descending %v: %v, want %v", seed, name, from, descending, got, want)
					}
				}
			}
		}
	}
	if _, err := s.inOrder(c.fieldByName("w"), nil, false, nil, 10); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("order by words: %v", err)
	}
}
