package storage

import (
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/vectord/vectord"
)

// BatchBytesMax bounds what one batch may hold.
const BatchBytesMax = 1 << 30

// Batch gathers changes that become visible and durable together or not at all. Its reads see its own writes. Setters
// copy what they are given and return nothing: the first thing to go wrong makes Commit fail, and nothing is changed.
// A batch belongs to one goroutine.
type Batch struct {
	Reader // the latest state with the batch's writes on top

	store *Store
	batch *pebble.Batch // nil once committed or closed
	err   error         // the first error of a setter
}

// NewBatch returns an empty batch. The caller commits or closes it.
func (s *Store) NewBatch() *Batch {
	batch := s.db.NewIndexedBatch()
	return &Batch{Reader: Reader{batch}, store: s, batch: batch}
}

// Close discards the batch unless it was committed; then it does nothing.
func (b *Batch) Close() error {
	if b.batch == nil {
		return nil
	}
	batch := b.batch
	b.batch = nil
	return batch.Close()
}

// Commit makes the batch visible to readers and returns a function that waits until it is durable. That function may be
// called from another goroutine, and more than once; an error of it is one that Options.Fatal was called with. The batch
// itself is spent, whether Commit succeeds or not.
func (b *Batch) Commit() (durable func() error, err error) {
	batch, err := b.take()
	if err != nil {
		return nil, err
	}
	if err := b.store.db.ApplyNoSyncWait(batch, pebble.Sync); err != nil {
		return nil, errors.Join(fmt.Errorf("commit: %w", err), batch.Close())
	}
	// Where Pebble could not write its log, it has called fail, and returned nil if that returned.
	if err := b.store.failure(); err != nil {
		return nil, err
	}
	return sync.OnceValue(func() error {
		if err := batch.SyncWait(); err != nil {
			b.store.fail(fmt.Errorf("write-ahead log: %w", err))
		}
		if err := b.store.failure(); err != nil {
			return err
		}
		return batch.Close()
	}), nil
}

// CommitUnsynced makes the batch visible without waiting for the disk: it becomes durable with the next batch that is,
// and may be lost by a power cut before. It is for housekeeping that is done again if lost, such as TrimChanges.
func (b *Batch) CommitUnsynced() error {
	batch, err := b.take()
	if err != nil {
		return err
	}
	err = b.store.db.Apply(batch, pebble.NoSync)
	if err == nil {
		err = b.store.failure()
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return batch.Close()
}

// take returns the Pebble batch to commit and leaves b spent.
func (b *Batch) take() (*pebble.Batch, error) {
	if b.batch == nil {
		return nil, errors.New("commit: the batch was committed or closed before")
	}
	err := b.err
	if err == nil {
		err = b.store.failure()
	}
	if err == nil && b.store.readOnly {
		err = fmt.Errorf("data directory %q is open for reading only", b.store.dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("commit: %w", err), b.Close())
	}
	batch := b.batch
	b.batch = nil
	return batch, nil
}

// PutPoint writes the row of a point.
func (b *Batch) PutPoint(shard uint32, id vectord.PointID, row PointRow) {
	b.set(pointKey(shard, id), encodePoint(row))
}

// DeletePoint removes the row of a point.
func (b *Batch) DeletePoint(shard uint32, id vectord.PointID) { b.delete(pointKey(shard, id)) }

// PutSlot writes the row of a slot.
func (b *Batch) PutSlot(shard, slot uint32, row SlotRow) {
	b.set(slotKey(shard, slot), encodeSlot(row))
}

// DeleteSlot frees a slot.
func (b *Batch) DeleteSlot(shard, slot uint32) { b.delete(slotKey(shard, slot)) }

// PutVector writes the components of a dense vector, or of the rows of a multivector, at a slot, bit for bit.
func (b *Batch) PutVector(set VectorSet, slot uint32, v []float32) {
	b.set(vectorKey(set, slot), encodeVector(v))
}

// PutSparse writes a sparse vector at a slot.
func (b *Batch) PutSparse(set VectorSet, slot uint32, indices []uint32, values []float32) {
	b.set(vectorKey(set, slot), encodeSparse(indices, values))
}

// DeleteVector removes the vector at a slot.
func (b *Batch) DeleteVector(set VectorSet, slot uint32) { b.delete(vectorKey(set, slot)) }

// DropVectors removes all vectors of a set. The rows of points and slots still name them.
func (b *Batch) DropVectors(set VectorSet) {
	prefix := set.prefix()
	b.deleteRange(prefix, prefixEnd(prefix))
}

// AppendChange notes in the shard's change feed that the entry at index changed these slots. A second note for the same
// index replaces the first.
func (b *Batch) AppendChange(shard uint32, index uint64, slots []uint32) {
	b.set(changeKey(shard, index), encodeChange(slots))
}

// TrimChanges removes the shard's change feed up to and including an index.
func (b *Batch) TrimChanges(shard uint32, upTo uint64) {
	first := shardPrefix(shard, subChange)
	end := prefixEnd(first)
	if upTo+1 != 0 {
		end = changeKey(shard, upTo+1)
	}
	b.deleteRange(first, end)
}

// PutPosting notes that the slot's payload has the term, of 1 to TermBytesMax bytes, at a field.
func (b *Batch) PutPosting(shard uint32, field uint16, term string, slot uint32) {
	if len(term) == 0 || len(term) > TermBytesMax {
		b.fail(fmt.Errorf("term of %d bytes: must be from 1 to %d", len(term), TermBytesMax))
		return
	}
	b.set(postingKey(shard, field, term, slot), encodePosting())
}

// DeletePosting removes what PutPosting noted.
func (b *Batch) DeletePosting(shard uint32, field uint16, term string, slot uint32) {
	b.delete(postingKey(shard, field, term, slot))
}

// DropPostings removes all postings of a field.
func (b *Batch) DropPostings(shard uint32, field uint16) {
	prefix := postingPrefix(shard, field)
	b.deleteRange(prefix, prefixEnd(prefix))
}

// DropShard removes all points, slots, vectors, postings and changes of a shard.
func (b *Batch) DropShard(shard uint32) {
	prefix := kindPrefix(kindShard, shard)
	b.deleteRange(prefix, prefixEnd(prefix))
}

// DropGroup forgets how far the log of a group has been applied, and its sessions.
func (b *Batch) DropGroup(group uint32) {
	b.delete(appliedKey(group))
	for _, kind := range []byte{kindSession, kindExpiry} {
		prefix := kindPrefix(kind, group)
		b.deleteRange(prefix, prefixEnd(prefix))
	}
}

// SetApplied says how far a group's log has been applied.
func (b *Batch) SetApplied(group uint32, a Applied) { b.set(appliedKey(group), encodeApplied(a)) }

// PutSession remembers the result of a write under its idempotency key, in place of what was there.
func (b *Batch) PutSession(group uint32, key [16]byte, session Session) {
	old, ok, err := b.Session(group, key)
	if err != nil {
		b.fail(err)
		return
	}
	if ok && old.Time != session.Time {
		b.delete(expiryKey(group, old.Time, key))
	}
	b.set(expiryKey(group, session.Time, key), encodeExpiry())
	b.set(sessionKey(group, key), encodeSession(session))
}

// ExpireSessions removes the sessions of a group whose time is less than before, the oldest first, at most limit of
// them, and returns how many it removed. It costs about as much as the sessions it removed last time, so a caller does
// better to expire some every second than one at every write.
func (b *Batch) ExpireSessions(group uint32, before int64, limit int) (n int, err error) {
	if limit <= 0 {
		return 0, nil
	}
	var expired []parsedKey
	err = b.scan(kindPrefix(kindExpiry, group), expiryPrefix(group, before), func(k parsedKey, value []byte) (bool, error) {
		if err := decodeExpiry(value); err != nil {
			return false, damaged(k, err)
		}
		expired = append(expired, k)
		return len(expired) < limit, nil
	})
	if err != nil {
		return 0, err
	}
	for _, k := range expired {
		b.delete(expiryKey(group, k.time, k.session))
		b.delete(sessionKey(group, k.session))
	}
	return len(expired), nil
}

// PutMeta writes a meta entry: a small blob with a name of 1 to 2,048 bytes.
func (b *Batch) PutMeta(key string, value []byte) {
	if len(key) == 0 || len(key) > metaKeyMax {
		b.fail(fmt.Errorf("meta key of %d bytes: must be from 1 to %d", len(key), metaKeyMax))
		return
	}
	b.set(metaKey(key), encodeMeta(value))
}

// DeleteMeta removes a meta entry.
func (b *Batch) DeleteMeta(key string) { b.delete(metaKey(key)) }

// PutRow writes a row of a table under a key of 1 to 1,024 bytes. What tables there are and what is in them is the caller's
// affair.
func (b *Batch) PutRow(table byte, key, value []byte) {
	if b.rowKey(key) {
		b.set(tableKey(table, key), encodeMeta(value))
	}
}

// DeleteRow removes a row of a table.
func (b *Batch) DeleteRow(table byte, key []byte) {
	if b.rowKey(key) {
		b.delete(tableKey(table, key))
	}
}

func (b *Batch) rowKey(key []byte) bool {
	if len(key) == 0 || len(key) > tableKeyMax {
		b.fail(fmt.Errorf("key of a row with %d bytes: must be from 1 to %d", len(key), tableKeyMax))
		return false
	}
	return true
}

func (b *Batch) set(key, value []byte) {
	if b.room(len(key) + len(value)) {
		b.fail(b.batch.Set(key, value, nil))
	}
}

func (b *Batch) delete(key []byte) {
	if b.room(len(key)) {
		b.fail(b.batch.Delete(key, nil))
	}
}

func (b *Batch) deleteRange(start, end []byte) {
	if b.room(len(start) + len(end)) {
		b.fail(b.batch.DeleteRange(start, end, nil))
	}
}

// room reports whether the batch can take this many bytes more.
func (b *Batch) room(bytes int) bool {
	switch {
	case b.err != nil:
		return false
	case b.batch == nil:
		b.fail(errors.New("the batch was committed or closed before"))
	case b.batch.Len()+bytes > BatchBytesMax:
		b.fail(fmt.Errorf("batch of more than %d bytes", BatchBytesMax))
	}
	return b.err == nil
}

// fail keeps the first error for Commit.
func (b *Batch) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}
