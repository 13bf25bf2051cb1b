package engine

import (
	"context"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// indexOn returns a payload index of one of the types on a path, when it is built. It returns nil if there is none.
func (db *DB) indexOn(ctx context.Context, col *collection, key string, types ...vectord.FieldType) (*fieldDef, error) {
	at, err := parsePath(key)
	if err != nil {
		return nil, err
	}
	spelled := at.String()
	for _, d := range col.fields {
		for _, t := range types {
			if d.key != spelled || d.Schema.Type != t {
				continue
			}
			pending, err := db.awaitField(ctx, col.id, d.Name, true)
			if err == nil && pending {
				err = ctx.Err()
			}
			if err == nil && pending {
				err = vectord.Errorf(vectord.KindClosed, "shutting down")
			}
			return d, err
		}
	}
	return nil, nil
}

// withIndex calls fn with a payload index of the shard and the slots that match, nil for all of them, while no writer of the
// shard is at work: index, matches, slots and storage are of one moment. It returns false if the index was dropped.
func (s *shard) withIndex(ctx context.Context, store *storage.Store, number uint16, filter *matcher, fn func(x *fieldIndex, found *matches) error) (bool, error) {
	// Before, so that little is left to evaluate with writers kept out.
	if _, err := s.matches(ctx, store, filter, false); err != nil {
		return false, err
	}
	s.applying.RLock()
	defer s.applying.RUnlock()
	found, err := s.matches(ctx, store, filter, true)
	if err != nil {
		return false, err
	}
	s.fields.mu.RLock()
	defer s.fields.mu.RUnlock()
	x := s.fields.byNumber(number)
	if x == nil || !x.ready {
		return false, nil
	}
	return true, fn(x, found)
}
