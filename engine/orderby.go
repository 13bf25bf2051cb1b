package engine

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/valyala/fastjson"

	"github.com/vectord/vectord"
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
	from       *vectord.Number // nil: from the end
	descending bool
}

// newOrdering returns the ordering by a payload path, whose index may still be being built.
func (c *collection) newOrdering(by *vectord.OrderBy) (*ordering, error) {
	def, err := c.indexOn(by.Key, vectord.FieldInteger, vectord.FieldFloat, vectord.FieldDatetime)
	if err != nil {
		return nil, err
	}
	if def == nil {
		return nil, vectord.Errorf(vectord.KindInvalid,
			"No range index for `order_by` key: `%s`. Create one of type integer, float or datetime on this field", by.Key)
	}
	o := &ordering{def: def, descending: by.Descending}
	if by.StartFrom == nil {
		return o, nil
	}
	times := def.Schema.Type == vectord.FieldDatetime
	if by.StartFrom.Kind == vectord.OrderTime && !times {
		return nil, vectord.Errorf(vectord.KindInvalid, "start_from: a time, but the index on `%s` is of numbers", by.Key)
	}
	from := numberOfValue(by.StartFrom)
	if times { // numbers say the microseconds, as the values in answers do
		from = wholeMicros(from, by.Descending)
	}
	o.from = &from
	return o, nil
}

// numberOfValue returns the number that a value is compared as.
func numberOfValue(v *vectord.OrderValue) vectord.Number {
	if v.Kind == vectord.OrderFloat {
		return vectord.FloatNumber(v.Float)
	}
	return vectord.IntNumber(v.Int)
}

// wholeMicros returns the first whole number from n on, in the direction of an order.
func wholeMicros(n vectord.Number, descending bool) vectord.Number {
	if _, ok := n.Int64(); ok {
		return n
	}
	x := math.Ceil(n.Float64())
	if descending {
		x = math.Floor(n.Float64())
	}
	// No time is beyond these.
	return vectord.FloatNumber(max(min(x, 1<<62), -1<<62))
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

// orderValue returns a value for the client.
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

// ordered returns the hits of a query that orders by a payload value, all that are wanted, with what it selects and score 0.
func (s *search) ordered(ctx context.Context) ([]vectord.Hit, error) {
	filter := s.filter
	if len(s.prefetch) > 0 {
		lists, err := s.prefetched(ctx)
		if err != nil {
			return nil, err
		}
		filter = s.filter.among(idsIn(lists))
	}
	records, err := s.db.ordered(ctx, s.collection, s.ordering, s.wanted, filter, s.selection)
	hits := make([]vectord.Hit, len(records))
	for i := range records {
		hits[i].Record = records[i]
	}
	return hits, err
}

// among returns the matcher of those of the points that pass.
func (m *matcher) among(ids []vectord.PointID) *matcher {
	if m == nil {
		return &matcher{ids: ids, root: func(pointView, *fastjson.Value) bool { return true }}
	}
	return &matcher{ids: ids, root: m.root, needsPayload: m.needsPayload}
}

// onceEach returns the hits without those of points that came before.
func onceEach(hits []vectord.Hit) []vectord.Hit {
	seen := make(map[vectord.PointID]struct{}, len(hits))
	return slices.DeleteFunc(hits, func(h vectord.Hit) bool {
		_, before := seen[h.ID]
		seen[h.ID] = struct{}{}
		return before
	})
}

// ordered returns up to limit matching points in the order of their values, a point with several values in several places,
// and those at equal values by ascending id.
func (db *DB) ordered(ctx context.Context, col *collection, o *ordering, limit int, filter *matcher, sel selection) ([]vectord.Record, error) {
	if err := db.awaitIndex(ctx, col, o.def); err != nil {
		return nil, err
	}
	var found []orderedPoint
	snapshots := make([]*storage.Snapshot, len(col.shards))
	defer func() {
		for _, snapshot := range snapshots {
			if snapshot != nil {
				snapshot.Close()
			}
		}
	}()
	for i, s := range col.shards {
		err := s.settled(ctx, db.store, filter, db.now(), func(m *matches) error {
			snapshots[i] = db.store.NewSnapshot()
			slots, err := s.inOrder(o.def, m, o.descending, o.from, limit)
			for _, slot := range slots {
				if p, ok := s.slots.get(slot.slot); ok {
					found = append(found, orderedPoint{slot.value, p.id, i})
				}
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(found, o.compare)
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
