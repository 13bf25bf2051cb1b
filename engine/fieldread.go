package engine

import (
	"context"
	"math"
	"slices"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// indexOn returns a payload index of one of the types on a path, nil if there is none.
func (c *collection) indexOn(key string, types ...vectord.FieldType) (*fieldDef, error) {
	at, err := parsePath(key)
	if err != nil {
		return nil, err
	}
	spelled := at.String()
	for _, d := range c.fields {
		if d.key == spelled && slices.Contains(types, d.Schema.Type) {
			return d, nil
		}
	}
	return nil, nil
}

// awaitIndex waits for a payload index to be built.
func (db *DB) awaitIndex(ctx context.Context, col *collection, d *fieldDef) error {
	pending, err := db.awaitField(ctx, col.id, d.Name, true)
	if err != nil || !pending {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return vectord.Errorf(vectord.KindClosed, "shutting down")
}

// settled calls fn with the slots that match, nil for all of them, while no writer of the shard is at work: matches, payload
// indexes, slots and storage are of one moment. What has expired by now does not match.
func (s *shard) settled(ctx context.Context, store *storage.Store, filter *matcher, now int64, fn func(found *matches) error) error {
	// Before, so that little is left to evaluate with writers kept out.
	if _, err := s.matches(ctx, store, filter, false); err != nil {
		return err
	}
	s.applying.RLock()
	defer s.applying.RUnlock()
	found, err := s.matches(ctx, store, filter, true)
	if err != nil {
		return err
	}
	if expired := s.expiry.expired(now, math.MaxInt); len(expired) > 0 {
		found = s.without(found, expired)
	}
	return fn(found)
}
