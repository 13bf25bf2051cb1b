package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"
	"github.com/vectord/vectord"
)

const (
	verifyProblemsMax = 100     // problems described; the rest are counted
	verifyStep        = 1 << 12 // keys between two looks at the context and two calls of progress
)

// Report is what Verify found.
type Report struct {
	Keys     uint64 // read
	Points   uint64
	Slots    uint64
	Vectors  uint64
	Postings uint64
	Changes  uint64
	Sessions uint64
	Meta     uint64
	Rows     uint64 // of the scheduler's tables

	ProblemCount uint64
	Problems     []string // the first 100
}

// Verify reads every key of the store as it is now, checks every checksum, and checks that points, slots and vectors
// belong together, as do sessions and their expiry. It looks at all of it whatever it finds; only the end of ctx is an
// error. progress, if not nil, is called now and then with the number of keys read.
//
// Derived files have checksums of their own, which their owner checks. The layers below are read as a matter of course:
// each block of each table has Pebble's checksum.
func (s *Store) Verify(ctx context.Context, progress func(keys uint64)) (Report, error) {
	snapshot := s.NewSnapshot()
	v := verifier{r: snapshot.Reader}
	err := v.run(ctx, &pebble.IterOptions{}, progress)
	return v.report, errors.Join(err, snapshot.Close())
}

// VerifyShard is Verify of the rows of one shard.
func (s *Store) VerifyShard(ctx context.Context, shard uint32) (Report, error) {
	prefix := kindPrefix(kindShard, shard)
	v := verifier{r: s.Reader}
	err := v.run(ctx, &pebble.IterOptions{LowerBound: prefix, UpperBound: prefixEnd(prefix)}, nil)
	return v.report, err
}

type verifier struct {
	r      Reader
	report Report
}

func (v *verifier) run(ctx context.Context, rows *pebble.IterOptions, progress func(keys uint64)) error {
	it, err := v.r.r.NewIter(rows)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	for valid := it.First(); valid; valid = it.Next() {
		if v.report.Keys%verifyStep == 0 {
			if ctx.Err() != nil {
				return errors.Join(fmt.Errorf("verify: %w", context.Cause(ctx)), it.Close())
			}
			if progress != nil {
				progress(v.report.Keys)
			}
		}
		v.report.Keys++
		v.check(it)
	}
	// A block that cannot be read ends the iteration: what follows it was not looked at, and the report says so.
	if err := it.Close(); err != nil {
		v.problem("reading stopped after %d keys: %v", v.report.Keys, err)
	}
	return nil
}

// check checks the entry that it stands on.
func (v *verifier) check(it *pebble.Iterator) {
	k, ok := parseKey(it.Key())
	if !ok {
		v.problem("%s", keyText(it.Key()))
		return
	}
	value, err := it.ValueAndErr()
	if err == nil {
		err = v.checkEntry(k, value)
	}
	if err != nil {
		v.problem("%s: %v", k, err)
	}
}

// checkEntry counts one entry and checks it and its references.
func (v *verifier) checkEntry(k parsedKey, value []byte) error {
	switch k.kind {
	case kindApplied:
		_, err := decodeApplied(value)
		return err
	case kindMeta:
		v.report.Meta++
		_, err := unseal(value)
		return err
	case kindTable:
		v.report.Rows++
		_, err := unseal(value)
		return err
	case kindExpiry:
		if err := decodeExpiry(value); err != nil {
			return err
		}
		return v.expectSession(k)
	case kindSession:
		v.report.Sessions++
		session, err := decodeSession(value)
		if err != nil {
			return err
		}
		return v.expectKey(expiryKey(k.group, session.Time, k.session))
	}
	switch k.sub {
	case subPoint:
		v.report.Points++
		row, err := decodePoint(value)
		if err != nil {
			return err
		}
		return v.expectSlot(k.shard, row.Slot, k.id)
	case subSlot:
		v.report.Slots++
		row, err := decodeSlot(value)
		if err != nil {
			return err
		}
		errs := []error{v.expectPoint(k.shard, row.ID, k.slot)}
		for _, number := range row.Vectors {
			errs = append(errs, v.expectVector(VectorSet{k.shard, number}, k.slot))
		}
		return errors.Join(errs...)
	case subVector:
		v.report.Vectors++
		if _, err := decodeVector(nil, value); err != nil {
			return err
		}
		return v.expectHolder(k)
	case subPosting:
		v.report.Postings++
		if err := decodePosting(value); err != nil {
			return err
		}
		return v.expectInUse(k.shard, k.slot)
	default:
		v.report.Changes++
		_, err := decodeChange(nil, value)
		return err
	}
}

// expectSlot returns an error unless the slot belongs to the point.
func (v *verifier) expectSlot(shard, slot uint32, id vectord.PointID) error {
	owner, ok, err := v.r.Slot(shard, slot)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("slot %d is free", slot)
	case owner.ID != id:
		return fmt.Errorf("slot %d belongs to point %s", slot, owner.ID)
	}
	return nil
}

func (v *verifier) expectInUse(shard, slot uint32) error {
	_, ok, err := v.r.Slot(shard, slot)
	if err == nil && !ok {
		err = fmt.Errorf("slot %d is free", slot)
	}
	return err
}

// expectVector returns an error unless there is a vector at the slot, or none in the whole set: its name was dropped then,
// and rows go on naming it.
func (v *verifier) expectVector(set VectorSet, slot uint32) error {
	err := v.expectKey(vectorKey(set, slot))
	if err == nil {
		return nil
	}
	dropped := true
	prefix := set.prefix()
	scanErr := v.r.scan(prefix, prefixEnd(prefix), func(parsedKey, []byte) (bool, error) {
		dropped = false
		return false, nil
	})
	if dropped && scanErr == nil {
		return nil
	}
	return errors.Join(err, scanErr)
}

// expectHolder returns an error unless the slot of a vector is in use and names it.
func (v *verifier) expectHolder(k parsedKey) error {
	row, ok, err := v.r.Slot(k.shard, k.slot)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("slot %d is free", k.slot)
	case !slices.Contains(row.Vectors, k.number):
		return fmt.Errorf("slot %d has the vectors %v", k.slot, row.Vectors)
	}
	return nil
}

func (v *verifier) expectPoint(shard uint32, id vectord.PointID, slot uint32) error {
	row, ok, err := v.r.Point(shard, id)
	switch {
	case err != nil:
		return err
	case !ok:
		return fmt.Errorf("point %s does not exist", id)
	case row.Slot != slot:
		return fmt.Errorf("point %s is at slot %d", id, row.Slot)
	}
	return nil
}

func (v *verifier) expectSession(expiry parsedKey) error {
	session, ok, err := v.r.Session(expiry.group, expiry.session)
	switch {
	case err != nil:
		return err
	case !ok:
		return errors.New("the session does not exist")
	case session.Time != expiry.time:
		return fmt.Errorf("the session is of time %d", session.Time)
	}
	return nil
}

// expectKey returns an error unless there is such a key; its own value is checked when the iteration comes to it.
func (v *verifier) expectKey(key []byte) error {
	ok, err := v.r.get(key, func([]byte) error { return nil })
	if err == nil && !ok {
		err = fmt.Errorf("%s is missing", keyText(key))
	}
	return err
}

func (v *verifier) problem(format string, args ...any) {
	v.report.ProblemCount++
	if len(v.report.Problems) < verifyProblemsMax {
		v.report.Problems = append(v.report.Problems, fmt.Sprintf(format, args...))
	}
}
