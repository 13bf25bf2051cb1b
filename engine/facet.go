package engine

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/field"
	"github.com/vectord/vectord/storage"
)

// facetTerms are the terms of the values that a facet counts, by the type of the payload index.
var facetTerms = map[vectord.FieldType][]field.Range{
	vectord.FieldKeyword: {field.Strings},
	vectord.FieldUUID:    {field.Strings, field.UUIDs},
	vectord.FieldInteger: {field.Numbers},
	vectord.FieldBool:    {field.Bools},
}

// Facet counts the matching points by value at a payload path: those with the most points first, and at equal counts by
// ascending value. Counts are exact. A point with several values counts for each of them.
func (db *DB) Facet(ctx context.Context, name string, f vectord.Facet) ([]vectord.FacetHit, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return nil, err
	}
	if f.Limit < 1 || f.Limit > vectord.MaxLimit {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", f.Limit, vectord.MaxLimit)
	}
	filter, err := col.compileFilter(f.Filter)
	if err != nil {
		return nil, err
	}
	def, err := db.indexOn(ctx, col, f.Key, vectord.FieldKeyword, vectord.FieldUUID, vectord.FieldInteger, vectord.FieldBool)
	if err != nil {
		return nil, err
	}
	if def == nil {
		return nil, noFacetIndex(f.Key)
	}
	var counts []vectord.FacetHit
	for _, s := range col.shards {
		ok, err := s.withIndex(ctx, db.store, def.Number, filter, func(x *fieldIndex, found *matches) (err error) {
			counts, err = s.facet(ctx, db.store, counts, x, found)
			return err
		})
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, noFacetIndex(f.Key)
		}
	}
	if len(col.shards) > 1 {
		counts = summed(counts)
	}
	slices.SortFunc(counts, func(a, b vectord.FacetHit) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), compareScalars(a.Value, b.Value))
	})
	return counts[:min(len(counts), f.Limit)], nil
}

func noFacetIndex(key string) error {
	return vectord.Errorf(vectord.KindInvalid, "No appropriate index for faceting: `%s`. Create one of type keyword, uuid, integer or bool on this field", key)
}

// summed adds up the counts of equal values.
func summed(counts []vectord.FacetHit) []vectord.FacetHit {
	slices.SortFunc(counts, func(a, b vectord.FacetHit) int { return compareScalars(a.Value, b.Value) })
	kept := counts[:0]
	for _, c := range counts {
		if n := len(kept); n > 0 && kept[n-1].Value == c.Value {
			kept[n-1].Count += c.Count
		} else {
			kept = append(kept, c)
		}
	}
	return kept
}

// compareScalars orders values of one kind; false is below true.
func compareScalars(a, b vectord.Scalar) int {
	order := cmp.Or(cmp.Compare(a.Kind, b.Kind), strings.Compare(a.String, b.String), cmp.Compare(a.Int, b.Int))
	if order == 0 && a.Bool != b.Bool {
		if b.Bool {
			return -1
		}
		return 1
	}
	return order
}

// facet appends how many of the slots found have each value.
func (s *shard) facet(ctx context.Context, store *storage.Store, dst []vectord.FacetHit, x *fieldIndex, found *matches) ([]vectord.FacetHit, error) {
	count := field.Slots.Count
	if found != nil {
		among := roaring.FromDense(found.slots.bits, false)
		count = func(slots field.Slots) int { return slots.CountIn(among) }
	}
	var err error
	terms := 0
	for _, r := range facetTerms[x.def.Schema.Type] {
		x.postings.Ascend(r.From, r.To, func(term string, slots field.Slots) bool {
			if terms++; terms%cancelCheckRows == 0 {
				if err = ctx.Err(); err != nil {
					return false
				}
			}
			n := count(slots)
			if n == 0 {
				return true
			}
			value, whole, ok := scalarOf(term)
			switch {
			case whole:
				dst = append(dst, vectord.FacetHit{Value: value, Count: n})
			case ok:
				dst, err = s.facetLong(ctx, store, dst, x, term, slots, found)
			}
			return err == nil
		})
		if err != nil {
			return nil, err
		}
	}
	return dst, nil
}

// scalarOf returns the value of a term; ok is false if it is the term of none that match can ask for. whole is false for a
// string of which the term does not have all.
func scalarOf(term string) (value vectord.Scalar, whole, ok bool) {
	switch {
	case term == field.Bool(false), term == field.Bool(true):
		return vectord.Scalar{Kind: vectord.ScalarBool, Bool: term == field.Bool(true)}, true, true
	case strings.HasPrefix(term, field.Numbers.From):
		n, integer, _ := field.NumberOf(term)
		i, fits := n.Int64()
		return vectord.Scalar{Kind: vectord.ScalarInt, Int: i}, integer && fits, integer && fits
	}
	text, whole := field.Text(term)
	return vectord.Scalar{Kind: vectord.ScalarString, String: text}, whole, true
}

// facetLong appends the counts of the strings of one term, which the payloads of its slots tell.
func (s *shard) facetLong(ctx context.Context, store *storage.Store, dst []vectord.FacetHit, x *fieldIndex, term string, slots field.Slots, found *matches) ([]vectord.FacetHit, error) {
	counts := map[string]int{}
	for i, slot := range slots.AppendTo(nil) {
		if i%cancelCheckRows == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		p, ok := s.slots.get(slot)
		if !ok || found != nil && !found.slots.bits.Contains(slot) {
			continue
		}
		row, ok, err := store.Point(s.id, p.id)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		texts, err := x.def.stringsOf(term, row.Payload)
		if err != nil {
			return nil, err
		}
		for text := range texts {
			counts[text]++
		}
	}
	for text, n := range counts {
		dst = append(dst, vectord.FacetHit{Value: vectord.Scalar{Kind: vectord.ScalarString, String: text}, Count: n})
	}
	return dst, nil
}

// stringsOf returns the strings of a payload that have a term in the index.
func (d *fieldDef) stringsOf(term string, payload []byte) (map[string]struct{}, error) {
	p := parsers.Get().(*payloadParser)
	defer parsers.Put(p)
	v, err := p.parse(payload)
	if err != nil {
		return nil, err
	}
	texts := map[string]struct{}{}
	anyElement(d.path, v, func(e *fastjson.Value) bool {
		if text := string(e.GetStringBytes()); e.Type() == fastjson.TypeString && field.String(text) == term {
			texts[text] = struct{}{}
		}
		return false
	})
	return texts, nil
}
