package storage

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/vectord/vectord"
)

// Reader reads one state of the store: that of the Store, Snapshot or Batch it is embedded in. Where a method says that
// something is valid during a callback, the callback copies what it keeps. A callback's error ends the scan and comes
// back as it is. Callbacks may read, but not change a Batch that they scan.
type Reader struct {
	r pebble.Reader
}

// Point returns the row of a point, whose payload is the caller's own, and whether there is one.
func (r Reader) Point(shard uint32, id vectord.PointID) (row PointRow, ok bool, err error) {
	ok, err = r.get(pointKey(shard, id), func(value []byte) error {
		row, err = decodePoint(value)
		row.Payload = slices.Clone(row.Payload)
		return err
	})
	return row, ok, err
}

// Slot returns the row of a slot, and whether the slot is in use.
func (r Reader) Slot(shard, slot uint32) (row SlotRow, ok bool, err error) {
	ok, err = r.get(slotKey(shard, slot), func(value []byte) error {
		row, err = decodeSlot(value)
		return err
	})
	return row, ok, err
}

// Vector appends the components of the vector at a slot to dst[:0] and tells whether there is one.
func (r Reader) Vector(set VectorSet, slot uint32, dst []float32) (v []float32, ok bool, err error) {
	v = dst[:0]
	ok, err = r.get(vectorKey(set, slot), func(value []byte) error {
		v, err = decodeVector(v, value)
		return err
	})
	return v, ok, err
}

// Sparse returns the sparse vector at a slot and tells whether there is one.
func (r Reader) Sparse(set VectorSet, slot uint32) (indices []uint32, values []float32, ok bool, err error) {
	ok, err = r.get(vectorKey(set, slot), func(value []byte) error {
		indices, values, err = decodeSparse(nil, nil, value)
		return err
	})
	return indices, values, ok, err
}

// ScanSparse calls fn for every sparse vector of a set, by ascending slot. The vector is valid during fn.
func (r Reader) ScanSparse(set VectorSet, fn func(slot uint32, indices []uint32, values []float32) error) error {
	prefix := set.prefix()
	var indices []uint32
	var values []float32
	return r.scan(prefix, prefixEnd(prefix), func(k parsedKey, value []byte) (_ bool, err error) {
		if indices, values, err = decodeSparse(indices[:0], values[:0], value); err != nil {
			return false, damaged(k, err)
		}
		return true, fn(k.slot, indices, values)
	})
}

// Vectors calls fn for each of the slots that has a vector, in the order given; ascending slots are the fastest. v is
// valid during fn. One iterator serves all the slots, which is what rescoring needs.
func (r Reader) Vectors(set VectorSet, slots []uint32, fn func(slot uint32, v []float32) error) (err error) {
	if len(slots) == 0 {
		return nil
	}
	prefix := set.prefix()
	it, err := r.r.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)})
	if err != nil {
		return fmt.Errorf("read %s: %w", set, err)
	}
	defer func() { err = closeIter(it, err) }()
	var v []float32
	for _, slot := range slots {
		// The whole key is the prefix that the Bloom filters know.
		key := vectorKey(set, slot)
		if !it.SeekPrefixGE(key) {
			if it.Error() != nil {
				break
			}
			continue
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("read %s: %w", keyText(key), err)
		}
		if v, err = decodeVector(v[:0], value); err != nil {
			return fmt.Errorf("read %s: %w", keyText(key), err)
		}
		if err := fn(slot, v); err != nil {
			return err
		}
	}
	return nil
}

// ScanPoints calls fn for the points with ids from *from on (from the first, if from is nil), ascending, until fn
// returns false. row.Payload is valid during fn.
func (r Reader) ScanPoints(shard uint32, from *vectord.PointID,
	fn func(id vectord.PointID, row PointRow) (more bool, err error)) error {
	prefix := shardPrefix(shard, subPoint)
	start := prefix
	if from != nil {
		start = pointKey(shard, *from)
	}
	return r.scan(start, prefixEnd(prefix), func(k parsedKey, value []byte) (more bool, err error) {
		row, err := decodePoint(value)
		if err != nil {
			return false, damaged(k, err)
		}
		return fn(k.id, row)
	})
}

// ScanSlots calls fn for every slot in use, ascending.
func (r Reader) ScanSlots(shard uint32, fn func(slot uint32, row SlotRow) error) error {
	return r.ScanSlotsFrom(shard, 0, func(slot uint32, row SlotRow) (bool, error) { return true, fn(slot, row) })
}

// ScanSlotsFrom calls fn for the slots in use from a slot on, ascending, until fn returns false.
func (r Reader) ScanSlotsFrom(shard, from uint32, fn func(slot uint32, row SlotRow) (more bool, err error)) error {
	return r.scan(slotKey(shard, from), prefixEnd(shardPrefix(shard, subSlot)), func(k parsedKey, value []byte) (bool, error) {
		row, err := decodeSlot(value)
		if err != nil {
			return false, damaged(k, err)
		}
		return fn(k.slot, row)
	})
}

// ScanVectors calls fn for every dense or multivector of a set, by ascending slot. v is valid during fn.
func (r Reader) ScanVectors(set VectorSet, fn func(slot uint32, v []float32) error) error {
	prefix := set.prefix()
	var v []float32
	return r.scan(prefix, prefixEnd(prefix), func(k parsedKey, value []byte) (_ bool, err error) {
		if v, err = decodeVector(v[:0], value); err != nil {
			return false, damaged(k, err)
		}
		return true, fn(k.slot, v)
	})
}

// ScanPostings calls fn for every posting of a field, by ascending term and slot if no term is the beginning of another. term
// is valid during fn.
func (r Reader) ScanPostings(shard uint32, field uint16, fn func(term []byte, slot uint32) error) error {
	prefix := postingPrefix(shard, field)
	return r.scan(prefix, prefixEnd(prefix), func(k parsedKey, value []byte) (bool, error) {
		if err := decodePosting(value); err != nil {
			return false, damaged(k, err)
		}
		return true, fn(k.term, k.slot)
	})
}

// Changes calls fn for every entry of the shard's change feed with an index greater than after, ascending. slots is
// valid during fn.
func (r Reader) Changes(shard uint32, after uint64, fn func(index uint64, slots []uint32) error) error {
	if after == math.MaxUint64 {
		return nil
	}
	var slots []uint32
	end := prefixEnd(shardPrefix(shard, subChange))
	return r.scan(changeKey(shard, after+1), end, func(k parsedKey, value []byte) (_ bool, err error) {
		if slots, err = decodeChange(slots[:0], value); err != nil {
			return false, damaged(k, err)
		}
		return true, fn(k.index, slots)
	})
}

// Applied tells how far a group's log has been applied; it is the zero value before the first entry.
func (r Reader) Applied(group uint32) (a Applied, err error) {
	_, err = r.get(appliedKey(group), func(value []byte) error {
		a, err = decodeApplied(value)
		return err
	})
	return a, err
}

// LastApplied returns the greatest index and the greatest time of all groups: where a log shared by all of them goes on.
func (r Reader) LastApplied() (last Applied, err error) {
	err = r.ScanApplied(func(_ uint32, a Applied) error {
		last.Index = max(last.Index, a.Index)
		last.Time = max(last.Time, a.Time)
		return nil
	})
	return last, err
}

// ScanApplied calls fn for every group of which an entry was applied, ascending.
func (r Reader) ScanApplied(fn func(group uint32, a Applied) error) error {
	prefix := []byte{kindApplied}
	return r.scan(prefix, prefixEnd(prefix), func(k parsedKey, value []byte) (bool, error) {
		a, err := decodeApplied(value)
		if err != nil {
			return false, damaged(k, err)
		}
		return true, fn(k.group, a)
	})
}

// Session returns what is remembered under an idempotency key, and whether anything is. Its Result is the caller's own.
func (r Reader) Session(group uint32, key [16]byte) (session Session, ok bool, err error) {
	ok, err = r.get(sessionKey(group, key), func(value []byte) error {
		session, err = decodeSession(value)
		session.Result = slices.Clone(session.Result)
		return err
	})
	return session, ok, err
}

// PointBytes returns about how many bytes the rows of points of a shard take on disk: tables count, memtables do not.
func (s *Store) PointBytes(shard uint32) (int64, error) {
	return s.diskBytes(shardPrefix(shard, subPoint))
}

// VectorBytes returns about how many bytes the vectors of a set take on disk: tables count, memtables do not.
func (s *Store) VectorBytes(set VectorSet) (int64, error) { return s.diskBytes(set.prefix()) }

func (s *Store) diskBytes(prefix []byte) (int64, error) {
	bytes, err := s.db.EstimateDiskUsage(prefix, prefixEnd(prefix))
	if err != nil {
		return 0, fmt.Errorf("estimate the size on disk: %w", err)
	}
	return int64(bytes), nil
}

// ScanMeta calls fn for every meta entry, by ascending key. value is valid during fn.
func (r Reader) ScanMeta(fn func(key string, value []byte) error) error {
	prefix := []byte{kindMeta}
	return r.scan(prefix, prefixEnd(prefix), func(k parsedKey, value []byte) (bool, error) {
		body, err := unseal(value)
		if err != nil {
			return false, damaged(k, err)
		}
		return true, fn(k.name, body)
	})
}

// Row returns the row of a table under a key, which is the caller's own, and whether there is one.
func (r Reader) Row(table byte, key []byte) (row []byte, ok bool, err error) {
	ok, err = r.get(tableKey(table, key), func(value []byte) error {
		body, err := unseal(value)
		row = slices.Clone(body)
		return err
	})
	return row, ok, err
}

// ScanRows calls fn for the rows of a table from a key on, by ascending key, until fn returns false. What it is given is valid
// during fn.
func (r Reader) ScanRows(table byte, from []byte, fn func(key, row []byte) (more bool, err error)) error {
	return r.scan(tableKey(table, from), prefixEnd(tableKey(table, nil)), func(k parsedKey, value []byte) (bool, error) {
		row, err := unseal(value)
		if err != nil {
			return false, damaged(k, err)
		}
		return fn(k.tableKey, row)
	})
}

// get calls decode with the value of a key, and tells whether there is one. The value is valid during decode.
func (r Reader) get(key []byte, decode func(value []byte) error) (bool, error) {
	value, closer, err := r.r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err == nil {
		err = errors.Join(decode(value), closer.Close())
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", keyText(key), err)
	}
	return true, nil
}

// scan calls fn for the keys from start to before end, until fn returns false. The value is valid during fn.
func (r Reader) scan(start, end []byte, fn func(k parsedKey, value []byte) (more bool, err error)) (err error) {
	it, err := r.r.NewIter(&pebble.IterOptions{LowerBound: start, UpperBound: end})
	if err != nil {
		return fmt.Errorf("scan: %w", err)
	}
	defer func() { err = closeIter(it, err) }()
	for valid := it.First(); valid; valid = it.Next() {
		k, ok := parseKey(it.Key())
		if !ok {
			return fmt.Errorf("scan: %s: %w", keyText(it.Key()), ErrDamaged)
		}
		value, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("read %s: %w", k, err)
		}
		if more, err := fn(k, value); err != nil || !more {
			return err
		}
	}
	return nil
}

// closeIter closes it and returns the first error of err and the iterator's own.
func closeIter(it *pebble.Iterator, err error) error {
	if closeErr := it.Close(); err == nil && closeErr != nil {
		return fmt.Errorf("scan: %w", closeErr)
	}
	return err
}

func damaged(k parsedKey, err error) error { return fmt.Errorf("read %s: %w", k, err) }
