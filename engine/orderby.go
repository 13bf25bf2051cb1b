package engine

import (
	"context"
	"fmt"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/field"
	"github.com/vectord/vectord/storage"
)

// orderedPoint is a point in the place of one of its values.
type orderedPoint struct {
	value vectord.Number // of a time its microseconds
	id    vectord.PointID
	shard int
}

// ordering is a vectord.OrderBy made ready.
type ordering struct {
	def        *fieldDef
	terms      field.Range
	descending bool
}

func noRangeIndex(key string) error {
	return vectord.Errorf(vectord.KindInvalid, "No range index for `order_by` key: `%s`. Create one of type integer, float or datetime on this field", key)
}

// newOrdering returns the ordering by a payload path. It waits for the index to be built.
func (db *DB) newOrdering(ctx context.Context, col *collection, by *vectord.OrderBy) (*ordering, error) {
	def, err := db.indexOn(ctx, col, by.Key, vectord.FieldInteger, vectord.FieldFloat, vectord.FieldDatetime)
	if err != nil {
		return nil, err
	}
	if def == nil {
		return nil, noRangeIndex(by.Key)
	}
	o := &ordering{def: def, descending: by.Descending}
	if def.Schema.Type == vectord.FieldDatetime {
		o.terms, err = timesFrom(by)
	} else {
		o.terms, err = numbersFrom(by)
	}
	return o, err
}

// timesFrom returns the terms of times to go through. A number says the microseconds, as the values in answers do.
func timesFrom(by *vectord.OrderBy) (field.Range, error) {
	if by.StartFrom == nil {
		return field.Times, nil
	}
	at := vectord.Datetime(by.StartFrom.Int)
	if by.StartFrom.Kind == vectord.OrderFloat {
		var ok bool
		if at, ok = wholeMicros(by.StartFrom.Float, by.Descending); !ok {
			return field.Range{}, vectord.Errorf(vectord.KindInvalid, "start_from: %v microseconds are no time", by.StartFrom.Float)
		}
	}
	if by.Descending {
		return field.TimesIn(&vectord.DatetimeRange{LTE: &at}), nil
	}
	return field.TimesIn(&vectord.DatetimeRange{GTE: &at}), nil
}

// wholeMicros returns the first whole number from x on, in the direction of the order.
func wholeMicros(x float64, descending bool) (vectord.Datetime, bool) {
	if !(x >= -1<<62 && x <= 1<<62) {
		return 0, false
	}
	at := vectord.Datetime(x) // towards 0
	if !descending && float64(at) < x {
		at++
	}
	if descending && float64(at) > x {
		at--
	}
	return at, true
}

func numbersFrom(by *vectord.OrderBy) (field.Range, error) {
	if by.StartFrom == nil {
		return field.Numbers, nil
	}
	var at vectord.Number
	switch by.StartFrom.Kind {
	case vectord.OrderInt:
		at = vectord.IntNumber(by.StartFrom.Int)
	case vectord.OrderFloat:
		at = vectord.FloatNumber(by.StartFrom.Float)
	case vectord.OrderTime:
		return field.Range{}, vectord.Errorf(vectord.KindInvalid, "start_from: a time, but the index on `%s` is of numbers", by.Key)
	}
	if by.Descending {
		return field.NumbersIn(&vectord.Range{LTE: &at}), nil
	}
	return field.NumbersIn(&vectord.Range{GTE: &at}), nil
}

func (o *ordering) compare(a, b orderedPoint) int {
	order := a.value.Compare(b.value)
	if o.descending {
		order = -order
	}
	if order == 0 {
		order = a.id.Compare(b.id)
	}
	return order
}

// orderValue returns the value for the client.
func (o *ordering) orderValue(n vectord.Number) *vectord.OrderValue {
	i, ok := n.Int64()
	switch {
	case o.def.Schema.Type == vectord.FieldDatetime:
		return &vectord.OrderValue{Kind: vectord.OrderTime, Int: i}
	case ok:
		return &vectord.OrderValue{Kind: vectord.OrderInt, Int: i}
	}
	return &vectord.OrderValue{Kind: vectord.OrderFloat, Float: n.Float64()}
}

// ordered returns up to limit matching points in the order of their values, a point with several values in several places,
// and those at equal values by ascending id.
func (db *DB) ordered(ctx context.Context, col *collection, by *vectord.OrderBy, limit int, filter *matcher, sel selection) ([]vectord.Record, error) {
	o, err := db.newOrdering(ctx, col, by)
	if err != nil {
		return nil, err
	}
	var found []orderedPoint
	snapshots := make([]*storage.Snapshot, len(col.shards))
	for i, s := range col.shards {
		ok, err := s.withIndex(ctx, db.store, o.def.Number, filter, func(x *fieldIndex, m *matches) error {
			snapshots[i] = db.store.NewSnapshot()
			points, err := o.first(ctx, s, x, m, limit)
			for j := range points {
				points[j].shard = i
			}
			found = append(found, points...)
			return err
		})
		if snapshots[i] != nil {
			defer snapshots[i].Close()
		}
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, noRangeIndex(by.Key)
		}
	}
	if len(col.shards) > 1 {
		slices.SortFunc(found, o.compare)
	}
	found = found[:min(len(found), limit)]
	records := make([]vectord.Record, len(found))
	for i, p := range found {
		if i%cancelCheckRows == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		snapshot, s := snapshots[p.shard], col.shards[p.shard]
		row, ok, err := snapshot.Point(s.id, p.id)
		if err == nil && !ok {
			err = fmt.Errorf("point %s has a slot and no row", p.id)
		}
		if err != nil {
			return nil, err
		}
		if records[i], err = col.record(snapshot.Reader, s, p.id, row, &sel); err != nil {
			return nil, err
		}
		records[i].Order = o.orderValue(p.value)
	}
	return records, nil
}

// first returns the first matching points of a shard, in order.
func (o *ordering) first(ctx context.Context, s *shard, x *fieldIndex, m *matches, limit int) (points []orderedPoint, err error) {
	// The points of one value, which may be that of two terms, as 1 and 1.0 are.
	var ids []vectord.PointID
	var value vectord.Number
	cut := func() {
		slices.SortFunc(ids, vectord.PointID.Compare)
		ids = slices.Compact(ids)
		ids = ids[:min(len(ids), limit-len(points))]
	}
	flush := func() {
		cut()
		for _, id := range ids {
			points = append(points, orderedPoint{value: value, id: id})
		}
		ids = ids[:0]
	}
	var slots []uint32
	terms := 0
	each := func(term string, postings field.Slots) bool {
		if terms++; terms%cancelCheckRows == 0 {
			if err = ctx.Err(); err != nil {
				return false
			}
		}
		v := numberOfTerm(term)
		if v != value {
			flush()
		}
		if len(points) == limit {
			return false
		}
		value = v
		slots = postings.AppendTo(slots[:0])
		for _, slot := range slots {
			if m != nil && !m.slots.bits.Contains(slot) {
				continue
			}
			if p, ok := s.slots.get(slot); ok {
				ids = append(ids, p.id)
			}
		}
		if len(ids) > 2*limit+idsKept {
			cut()
		}
		return true
	}
	if o.descending {
		x.postings.Descend(o.terms.From, o.terms.To, each)
	} else {
		x.postings.Ascend(o.terms.From, o.terms.To, each)
	}
	if err != nil {
		return nil, err
	}
	flush()
	return points, nil
}

// idsKept is how many ids of one value are gathered, beyond twice the limit, before they are cut to it.
const idsKept = 1024

// numberOfTerm returns the number of a term, or the microseconds of its time.
func numberOfTerm(term string) vectord.Number {
	if at, ok := field.TimeOf(term); ok {
		return vectord.IntNumber(int64(at))
	}
	n, _, _ := field.NumberOf(term)
	return n
}
