package engine

import (
	"cmp"
	"context"
	"slices"

	"github.com/vectord/vectord"
)

// Facet counts the matching points by value at a payload path: those with the most points first, and at equal counts by
// ascending value. Counts are exact. A point with several values counts for each of them.
func (db *DB) Facet(ctx context.Context, name string, f vectord.Facet) ([]vectord.FacetHit, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return nil, err
	}
	if f.Limit < 1 || f.Limit > vectord.MaxLimit {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", f.Limit, vectord.MaxLimit)
	}
	if err := firstError(col.checkLimit(f.Limit), col.checkReadFilter(f.Filter)); err != nil {
		return nil, err
	}
	filter, err := col.compileFilter(f.Filter)
	if err != nil {
		return nil, err
	}
	def, err := col.indexOn(f.Key, vectord.FieldKeyword, vectord.FieldUUID, vectord.FieldInteger, vectord.FieldBool)
	if err != nil {
		return nil, err
	}
	if def == nil {
		return nil, vectord.Errorf(vectord.KindInvalid,
			"No appropriate index for faceting: `%s`. Create one of type keyword, uuid, integer or bool on this field", f.Key)
	}
	if err := db.awaitIndex(ctx, col, def); err != nil {
		return nil, err
	}
	var counts []valueCount
	for _, s := range col.shards {
		err := s.settled(ctx, db.store, filter, db.now(), func(found *matches) error {
			some, err := s.valueCounts(db.store, def, found)
			counts = append(counts, some...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(col.shards) > 1 {
		counts = summed(counts)
	}
	slices.SortFunc(counts, func(a, b valueCount) int {
		return cmp.Or(cmp.Compare(b.count, a.count), compareScalars(a.value, b.value))
	})
	hits := make([]vectord.FacetHit, min(len(counts), f.Limit))
	for i := range hits {
		hits[i] = vectord.FacetHit{Value: counts[i].value, Count: counts[i].count}
	}
	return hits, nil
}

// summed adds up the counts of equal values.
func summed(counts []valueCount) []valueCount {
	slices.SortFunc(counts, func(a, b valueCount) int { return compareScalars(a.value, b.value) })
	kept := counts[:0]
	for _, c := range counts {
		if n := len(kept); n > 0 && kept[n-1].value == c.value {
			kept[n-1].count += c.count
		} else {
			kept = append(kept, c)
		}
	}
	return kept
}
