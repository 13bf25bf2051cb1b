package engine

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// cancelCheckRows is how many rows a scan reads between looks at its deadline.
const cancelCheckRows = 1024

// Retrieve returns the points with the given ids, in that order; ids without a point are left out.
func (db *DB) Retrieve(ctx context.Context, name string, ids []vectord.PointID, s vectord.Selection) ([]vectord.Record, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return nil, err
	}
	if len(ids) > vectord.MaxLimit {
		return nil, vectord.Errorf(vectord.KindInvalid, "ids: %d ids in one request, at most %d are accepted", len(ids), vectord.MaxLimit)
	}
	sel, err := col.compileSelection(s)
	if err != nil {
		return nil, err
	}
	snapshot := db.store.NewSnapshot()
	defer snapshot.Close()
	now := db.now()
	records := make([]vectord.Record, 0, len(ids))
	for i, id := range ids {
		if i%cancelCheckRows == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		shard := col.shardOf(id)
		row, ok, err := snapshot.Point(shard.id, id)
		if err != nil {
			return nil, err
		}
		if !ok || gone(row, now) {
			continue
		}
		r, err := col.record(snapshot.Reader, shard, id, row, &sel)
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// record reads what the selection asks for of one point. row.Payload may be reused by the caller.
func (c *collection) record(snapshot storage.Reader, s *shard, id vectord.PointID, row storage.PointRow, sel *selection) (vectord.Record, error) {
	r := vectord.Record{ID: id, Expires: row.Expires}
	if p, ok := s.slots.get(row.Slot); ok {
		r.Version = p.version
	}
	if sel.payload {
		payload, err := sel.project(row.Payload)
		if err != nil {
			return r, fmt.Errorf("payload of point %s: %w", id, err)
		}
		r.Payload = slices.Clone(payload)
	}
	if sel.vectors {
		var err error
		if r.Vectors, err = c.readVectors(snapshot, s, row, sel); err != nil {
			return r, fmt.Errorf("vectors of point %s: %w", id, err)
		}
	}
	return r, nil
}

// readVectors reads the selected vectors of a point, by ascending name. errChanged says that it moved away meanwhile.
func (c *collection) readVectors(r storage.Reader, s *shard, row storage.PointRow, sel *selection) (vectord.Vectors, error) {
	vectors := vectord.Vectors{}
	for _, number := range row.Vectors {
		spec := c.specOf(number)
		if spec == nil || !sel.wantsVector(spec.name) {
			continue
		}
		v, ok, err := spec.read(r, s.id, row.Slot)
		if err == nil && !ok {
			if s.vectorsOf(number) == nil {
				continue // the name was dropped a moment ago
			}
			err = errChanged
		}
		if err != nil {
			return nil, err
		}
		vectors = append(vectors, vectord.NamedVector{Name: spec.name, Vector: v})
	}
	slices.SortFunc(vectors, func(a, b vectord.NamedVector) int { return strings.Compare(a.Name, b.Name) })
	return vectors, nil
}

// Scroll returns a page of the points that match, by ascending id or in the order of a payload value.
func (db *DB) Scroll(ctx context.Context, name string, r vectord.ScrollRequest) (vectord.ScrollPage, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return vectord.ScrollPage{}, err
	}
	if r.Limit < 1 || r.Limit > vectord.MaxLimit {
		return vectord.ScrollPage{}, vectord.Errorf(vectord.KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", r.Limit, vectord.MaxLimit)
	}
	if err := firstError(col.checkLimit(r.Limit), col.checkReadFilter(r.Filter)); err != nil {
		return vectord.ScrollPage{}, err
	}
	filter, err := col.compileFilter(r.Filter)
	if err != nil {
		return vectord.ScrollPage{}, err
	}
	sel, err := col.compileSelection(r.Select)
	if err != nil {
		return vectord.ScrollPage{}, err
	}
	if r.OrderBy != nil {
		if r.Offset != nil {
			return vectord.ScrollPage{}, vectord.Errorf(vectord.KindInvalid, "offset cannot be given together with order_by, go on with start_from")
		}
		o, err := col.newOrdering(r.OrderBy)
		if err != nil {
			return vectord.ScrollPage{}, err
		}
		records, err := db.ordered(ctx, col, o, r.Limit, filter, sel)
		return vectord.ScrollPage{Points: records}, err
	}
	records, err := db.page(ctx, col, r.Offset, r.Limit+1, filter, sel)
	if err != nil {
		return vectord.ScrollPage{}, err
	}
	page := vectord.ScrollPage{Points: records}
	if len(records) > r.Limit {
		next := records[r.Limit].ID
		page.Points, page.Next = records[:r.Limit], &next
	}
	return page, nil
}

// page returns up to limit matching points by ascending id, from an id on.
func (db *DB) page(ctx context.Context, col *collection, from *vectord.PointID, limit int, filter *matcher, sel selection) ([]vectord.Record, error) {
	var records []vectord.Record
	for _, s := range col.shards {
		found := 0
		err := s.eachMatching(ctx, db.store, db.now(), from, limit, filter, func(snapshot *storage.Snapshot, id vectord.PointID, row storage.PointRow) (bool, error) {
			r, err := col.record(snapshot.Reader, s, id, row, &sel)
			if err != nil {
				return false, err
			}
			records = append(records, r)
			found++
			return found < limit, nil
		})
		if err != nil {
			return nil, err
		}
	}
	if len(col.shards) > 1 {
		slices.SortFunc(records, func(a, b vectord.Record) int { return a.ID.Compare(b.ID) })
	}
	return records[:min(len(records), limit)], nil
}

// eachMatching calls fn with the matching points of a shard by ascending id until it returns false, as of one moment, whose
// snapshot it hands to fn; those that have expired by now are left out. limit is how many points fn is going to want. Where payload indexes know few enough that can match
// only these are read, else all points are.
func (s *shard) eachMatching(ctx context.Context, store *storage.Store, now int64, from *vectord.PointID, limit int, filter *matcher,
	fn func(*storage.Snapshot, vectord.PointID, storage.PointRow) (bool, error)) error {
	ids, snapshot, ok := s.idsByIndex(store, from, limit, filter)
	defer snapshot.Close()
	if !ok {
		return scanMatching(ctx, snapshot.Reader, s, now, from, filter, func(id vectord.PointID, row storage.PointRow) (bool, error) {
			return fn(snapshot, id, row)
		})
	}
	for i, id := range ids {
		if i%cancelCheckRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		row, ok, err := snapshot.Point(s.id, id)
		if err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("point %s has a slot and no row", id)
		}
		if holds, err := filter.matches(viewOf(id, row)); err != nil {
			return err
		} else if !holds || gone(row, now) {
			continue
		}
		if more, err := fn(snapshot, id, row); err != nil || !more {
			return err
		}
	}
	return nil
}

// idsByIndex returns the ids of all points that may match, from an id on and ascending, and the snapshot as of which they are
// all; ok is false if payload indexes do not know them or a scan of all points will have found enough before.
func (s *shard) idsByIndex(store *storage.Store, from *vectord.PointID, limit int, filter *matcher) (ids []vectord.PointID, snapshot *storage.Snapshot, ok bool) {
	if filter == nil {
		return nil, store.NewSnapshot(), false
	}
	s.applying.RLock() // memory and storage are of one moment
	defer s.applying.RUnlock()
	snapshot = store.NewSnapshot()
	slots, live, ok := s.fields.candidates(filter)
	if !ok {
		return nil, snapshot, false
	}
	// In terms of rows that a scan reads: to take an id and sort it, and to read a row by itself.
	indexed := len(slots)/idsPerRow + readCost*min(len(slots), limit)
	scanned := live
	if len(slots) > limit {
		scanned = int(float64(live) * float64(limit) / float64(len(slots)))
	}
	if indexed > scanned {
		return nil, snapshot, false
	}
	ids = make([]vectord.PointID, 0, len(slots))
	for _, slot := range slots {
		if p, ok := s.slots.get(slot); ok && (from == nil || p.id.Compare(*from) >= 0) {
			ids = append(ids, p.id)
		}
	}
	slices.SortFunc(ids, vectord.PointID.Compare)
	return ids, snapshot, true
}

// idsPerRow is how many ids are taken from the slots and sorted in the time that a scan takes for a row.
const idsPerRow = 8

// scanMatching calls fn with the matching points of a shard that have not expired by now, by ascending id, until it returns
// false.
func scanMatching(ctx context.Context, r storage.Reader, s *shard, now int64, from *vectord.PointID, filter *matcher,
	fn func(vectord.PointID, storage.PointRow) (bool, error)) error {
	n := 0
	return r.ScanPoints(s.id, from, func(id vectord.PointID, row storage.PointRow) (bool, error) {
		n++
		if n%cancelCheckRows == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		if holds, err := filter.matches(viewOf(id, row)); err != nil || !holds || gone(row, now) {
			return true, err
		}
		return fn(id, row)
	})
}

// matchingIDs returns the ids of all points that match.
func (db *DB) matchingIDs(ctx context.Context, col *collection, filter *matcher) ([]vectord.PointID, error) {
	var ids []vectord.PointID
	for _, s := range col.shards {
		err := s.eachMatching(ctx, db.store, db.now(), nil, math.MaxInt, filter, func(_ *storage.Snapshot, id vectord.PointID, _ storage.PointRow) (bool, error) {
			ids = append(ids, id)
			return true, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// Count returns how many points match. It is exact.
func (db *DB) Count(ctx context.Context, name string, f *vectord.Filter) (int, error) {
	col, err := db.readable(ctx, name, 1)
	if err != nil {
		return 0, err
	}
	if err := col.checkReadFilter(f); err != nil {
		return 0, err
	}
	filter, err := col.compileFilter(f)
	if err != nil {
		return 0, err
	}
	count := 0
	for _, s := range col.shards {
		expired := s.expiry.expired(db.now(), math.MaxInt)
		if filter == nil {
			count += int(s.points.Load()) - len(expired)
			continue
		}
		found, err := s.matches(ctx, db.store, filter, false)
		if err != nil {
			return 0, err
		}
		if len(expired) > 0 {
			found = s.without(found, expired)
		}
		count += found.count
	}
	return count, nil
}
