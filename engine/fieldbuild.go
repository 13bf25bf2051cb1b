package engine

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/field"
	"github.com/vectord/vectord/storage"
)

type createField struct {
	Collection string              `json:"collection"`
	Name       string              `json:"name"`
	Schema     vectord.FieldSchema `json:"schema"`
}

type deleteField struct {
	Collection string `json:"collection"`
	Name       string `json:"name"`
}

// fillField adds to an index the points in the slots from one on, as many as one command may.
type fillField struct {
	Collection uint32 `json:"collection"`
	Shard      uint32 `json:"shard"`
	Number     uint16 `json:"number"`
	From       uint32 `json:"from"`
}

// filled answers a fillField: the slot to go on from, if there are more.
type filled struct {
	next uint32
	more bool
}

// fieldReady says that all points are in the index.
type fieldReady struct {
	Collection uint32 `json:"collection"`
	Number     uint16 `json:"number"`
}

const (
	fillPointsMax = 2048    // points that one fillField adds
	fillBytesMax  = 8 << 20 // bytes of their payloads after which it ends early
)

// CreateFieldIndex creates a payload index, or replaces the one on the field if its schema is another. Writes maintain it
// from then on; the points that are older are added in the background. If wait is set it returns when that is done, or at
// the end of ctx with a result that is pending.
func (db *DB) CreateFieldIndex(ctx context.Context, name, fieldName string, schema vectord.FieldSchema, wait bool) (vectord.UpdateResult, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	if err := vectord.CheckFieldName(fieldName); err != nil {
		return vectord.UpdateResult{}, err
	}
	if !schema.Type.Valid() {
		return vectord.UpdateResult{}, vectord.Errorf(vectord.KindInvalid, "field_schema: unknown type %q", schema.Type)
	}
	if _, err := newFieldDef(fieldMeta{Name: fieldName, Schema: schema}); err != nil {
		return vectord.UpdateResult{}, err
	}
	if err := firstError(col.checkIndexCount(fieldName), db.budget.admit()); err != nil {
		return vectord.UpdateResult{}, err
	}
	result, err := db.proposeField(ctx, commandCreateField, createField{Collection: col.name, Name: fieldName, Schema: schema})
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	result.Pending, err = db.awaitField(ctx, col.id, fieldName, wait)
	return result, err
}

// DeleteFieldIndex removes the payload index on a field, if there is one.
func (db *DB) DeleteFieldIndex(ctx context.Context, name, fieldName string) (vectord.UpdateResult, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	if err := vectord.CheckFieldName(fieldName); err != nil {
		return vectord.UpdateResult{}, err
	}
	return db.proposeField(ctx, commandDeleteField, deleteField{Collection: col.name, Name: fieldName})
}

func (db *DB) proposeField(ctx context.Context, kind commandKind, body any) (vectord.UpdateResult, error) {
	command, err := encodeCatalogCommand(kind, body)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	r, err := db.log.Propose(ctx, metaGroup, command)
	if err == nil {
		err = r.Err
	}
	return vectord.UpdateResult{OperationID: r.Index}, err
}

// awaitField reports whether the index is still being built, if wait is set at the end of ctx at the earliest. An index that
// was dropped meanwhile is not.
func (db *DB) awaitField(ctx context.Context, collection uint32, name string, wait bool) (pending bool, err error) {
	for {
		changed := db.fieldChanges.next()
		col := db.catalog.get(collection)
		if col == nil {
			return false, nil
		}
		d := col.fieldByName(name)
		if d == nil || col.allReady(d.Number) {
			return false, nil
		}
		if !wait {
			return true, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return true, nil
		case <-db.stop.Done():
			return true, nil
		}
	}
}

func (c *collection) allReady(number uint16) bool {
	for _, s := range c.shards {
		if !s.fields.ready(number) {
			return false
		}
	}
	return true
}

// broadcast wakes all who wait for the next of a kind of event.
type broadcast struct {
	mu sync.Mutex // guards ch
	ch chan struct{}
}

// next returns a channel that is closed at the next event.
func (b *broadcast) next() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch == nil {
		b.ch = make(chan struct{})
	}
	return b.ch
}

func (b *broadcast) send() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ch != nil {
		close(b.ch)
		b.ch = nil
	}
}

// buildFields adds the points to indexes that are not ready, until the DB is closed. A command that the log does not take
// is tried again at the next tick of maintenance. Where the DB is replicated the leader has it done.
func (db *DB) buildFields() {
	defer db.background.Done()
	for {
		changed := db.fieldChanges.next()
		for _, col := range db.catalog.building() {
			for _, d := range col.fields {
				if d.Ready || !db.leading.Load() {
					continue
				}
				if err := db.buildField(col, d); err != nil && db.stop.Err() == nil {
					db.logger.Warn("building a payload index is tried again", "collection", col.name, "field", d.Name, "error", err)
				}
			}
		}
		select {
		case <-changed:
		case <-db.fieldTick:
		case <-db.stop.Done():
			return
		}
	}
}

func (db *DB) buildField(col *collection, d *fieldDef) error {
	for _, s := range col.shards {
		for from, more := uint32(0), true; more; {
			command, err := encodeCatalogCommand(commandFillField, fillField{Collection: col.id, Shard: s.id, Number: d.Number, From: from})
			if err != nil {
				return err
			}
			r, err := db.log.Propose(db.stop, s.group, command)
			if err == nil {
				err = r.Err
			}
			if err != nil {
				return err
			}
			done, _ := r.Value.(filled)
			from, more = done.next, done.more
		}
	}
	return db.proposeCatalog(db.stop, commandFieldReady, fieldReady{Collection: col.id, Number: d.Number})
}

// createField applies the command of that name.
func (a *applier) createField(c createField) (value any, refusal, err error) {
	col := a.db.catalog.collections[c.Collection]
	if col == nil {
		return nil, noCollection(c.Collection), nil
	}
	def, refusal := newFieldDef(fieldMeta{Name: c.Name, Schema: c.Schema})
	if refusal != nil {
		return nil, refusal, nil
	}
	changed := *col
	changed.fields = nil
	for _, d := range col.fields {
		switch {
		case d.Name == def.Name && d.Schema.Equal(def.Schema):
			return nil, nil, nil
		case d.Name == def.Name:
			a.dropPostings(col, d)
		case d.key == def.key:
			return nil, vectord.Errorf(vectord.KindInvalid, "field_name: %q is the path of the index on %q in another spelling", c.Name, d.Name), nil
		default:
			changed.fields = append(changed.fields, d)
		}
	}
	if len(changed.fields) >= vectord.MaxFieldIndexes {
		return nil, vectord.Errorf(vectord.KindInvalid, "the collection has %d payload indexes, which is the most", len(changed.fields)), nil
	}
	if changed.nextField >= fieldsMax {
		return nil, vectord.Errorf(vectord.KindInvalid, "the collection has had %d payload indexes, which is the most", fieldsMax), nil
	}
	def.Number = uint16(changed.nextField)
	changed.nextField++
	changed.fields = append(changed.fields, def)
	return nil, nil, a.putFields(&changed)
}

func (a *applier) dropPostings(col *collection, d *fieldDef) {
	for _, s := range col.shards {
		a.batch.DropPostings(s.id, d.Number)
	}
}

// putFields puts a collection whose indexes have changed into the catalog.
func (a *applier) putFields(changed *collection) error {
	if err := a.putMeta(collectionKey(changed.id), changed.meta()); err != nil {
		return err
	}
	a.db.catalog.put(changed)
	a.reindexed = append(a.reindexed, changed.id)
	return nil
}

func (a *applier) deleteField(c deleteField) (value any, refusal, err error) {
	col := a.db.catalog.collections[c.Collection]
	if col == nil {
		return nil, noCollection(c.Collection), nil
	}
	changed := *col
	changed.fields = nil
	for _, d := range col.fields {
		if d.Name == c.Name {
			a.dropPostings(col, d)
			continue
		}
		changed.fields = append(changed.fields, d)
	}
	if len(changed.fields) == len(col.fields) {
		return nil, nil, nil
	}
	return nil, nil, a.putFields(&changed)
}

// fillField adds points to an index as their rows are now. What an index or a shard that is no more lacks is nothing.
func (a *applier) fillField(e vectord.Entry, c fillField) (value any, err error) {
	col := a.db.catalog.get(c.Collection)
	if col == nil {
		return filled{}, nil
	}
	def, s := col.fieldByNumber(c.Number), col.shard(c.Shard)
	if def == nil || s == nil {
		return filled{}, nil
	}
	type slotID struct {
		slot uint32
		id   vectord.PointID
	}
	var slots []slotID
	err = a.batch.ScanSlotsFrom(s.id, c.From, func(slot uint32, row storage.SlotRow) (bool, error) {
		slots = append(slots, slotID{slot, row.ID})
		return len(slots) <= fillPointsMax, nil
	})
	if err != nil {
		return nil, err
	}
	w := a.writer(col, s, e)
	bytes := 0
	for i, at := range slots {
		if i == fillPointsMax || bytes >= fillBytesMax {
			return filled{next: at.slot, more: true}, nil
		}
		row, ok, err := a.batch.Point(s.id, at.id)
		if err != nil {
			return nil, err
		}
		if !ok || row.Slot != at.slot {
			continue // storage's own check names it
		}
		bytes += len(row.Payload)
		terms, err := termsOf([]*fieldDef{def}, &row)
		if err != nil {
			return nil, err
		}
		if len(terms[0]) > 0 {
			w.post(fieldStep{number: def.Number, slot: row.Slot, added: terms[0], present: hasValue(terms[0])})
		}
	}
	return filled{}, nil
}

// hasValue reports whether one of the terms is of a value that is not null.
func hasValue(terms []string) bool {
	for _, term := range terms {
		if field.IsValue(term) {
			return true
		}
	}
	return false
}

func (a *applier) fieldReady(c fieldReady) error {
	col := a.db.catalog.get(c.Collection)
	if col == nil {
		return nil
	}
	old := col.fieldByNumber(c.Number)
	if old == nil || old.Ready {
		return nil
	}
	changed := *col
	changed.fields = append([]*fieldDef(nil), col.fields...)
	for i, d := range changed.fields {
		if d == old {
			now := *d
			now.Ready = true
			changed.fields[i] = &now
		}
	}
	return a.putFields(&changed)
}

// followFields has the memory take over the indexes that the batch creates and drops, before the batch is visible.
func (a *applier) followFields() {
	for _, id := range a.reindexed {
		if col := a.db.catalog.get(id); col != nil {
			for _, s := range col.shards {
				s.fields.follow(col.fields)
			}
		}
	}
}

// releaseFields opens the indexes that are ready to filters, once the memory has followed the batch.
func (a *applier) releaseFields() {
	if len(a.reindexed) == 0 {
		return
	}
	for _, id := range a.reindexed {
		if col := a.db.catalog.get(id); col != nil {
			for _, s := range col.shards {
				s.fields.release()
			}
		}
	}
	a.db.fieldChanges.send()
}

// decodeInto reads the JSON body of a command.
func decodeInto[T any](body []byte) (c T, err error) {
	err = json.Unmarshal(body, &c)
	return c, err
}
