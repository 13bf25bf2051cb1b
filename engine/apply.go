package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

const (
	sessionLifetime = 24 * time.Hour
	// Expired sessions of a group are swept once a second of the log's time, at most so many.
	sessionSweepMillis = 1000
	sessionsPerSweep   = 10_000
)

// applier turns the entries of one Apply into one batch.
type applier struct {
	db      *DB
	batch   *storage.Batch
	changes []*shardChanges
	byShard map[uint32]*shardChanges
	dropped []*collection
	retired []*collection
	changed []*collection
	// nameless are the vectors of names that were dropped.
	nameless []droppedVectors
	used     []uint32 // ids of collections that have points for the first time
	// reindexed are the ids of collections whose payload indexes were created, dropped or made ready.
	reindexed []uint32
}

// Apply applies entries in order, in one atomic commit, and returns a result for each. Effects are visible on return;
// durable waits until they survive a power cut. An error means that nothing can be promised any more.
//
// Only the log calls Apply, from one goroutine. It is a function of the entries and of what was applied before: it reads
// no clock, no randomness and no configuration, so every replica that applies the same log holds the same bytes.
func (db *DB) Apply(entries []vectord.Entry) (results []vectord.Result, durable func() error, err error) {
	a := &applier{db: db, batch: db.store.NewBatch(), byShard: map[uint32]*shardChanges{}}
	results = make([]vectord.Result, len(entries))
	for i, e := range entries {
		results[i].Index = e.Index
		if e.Index <= db.applied[e.Group].Index {
			continue // applied before a restart: the log offers it again
		}
		value, refusal, err := a.apply(e)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("apply entry %d of group %d: %w", e.Index, e.Group, err), a.batch.Close())
		}
		results[i].Value, results[i].Err = value, refusal
		if refusal == nil {
			db.metrics.applied.WithLabelValues("ok").Inc()
		} else {
			db.metrics.applied.WithLabelValues("refused").Inc()
		}
		if e.Time/sessionSweepMillis != db.applied[e.Group].Time/sessionSweepMillis {
			if _, err := a.batch.ExpireSessions(e.Group, e.Time-sessionLifetime.Milliseconds(), sessionsPerSweep); err != nil {
				return nil, nil, errors.Join(err, a.batch.Close())
			}
		}
		at := storage.Applied{Index: e.Index, Time: e.Time}
		db.applied[e.Group] = at
		a.batch.SetApplied(e.Group, at)
	}
	a.followFields()
	for _, c := range a.changes {
		c.begin()
	}
	if db.replicated {
		durable, err = func() error { return nil }, a.batch.CommitUnsynced()
	} else {
		durable, err = a.batch.Commit()
	}
	for _, c := range a.changes {
		c.finish()
	}
	for _, id := range a.used {
		db.catalog.use(id)
	}
	if err != nil {
		return nil, nil, err
	}
	a.releaseFields()
	for _, c := range a.changed {
		db.followConfig(c)
	}
	for _, c := range a.dropped {
		db.release(c)
	}
	db.releaseDropped(a.nameless)
	for _, c := range a.retired {
		db.retire(c)
	}
	if db.machine != nil {
		durable = announced(durable, db.machine.Committed())
	}
	return results, durable, nil
}

// apply applies one entry to the batch. refusal is the client's error; err is ours, and ends everything.
func (a *applier) apply(e vectord.Entry) (value any, refusal, err error) {
	kind, body, err := splitCommand(e.Command)
	if err != nil {
		return nil, nil, err
	}
	switch kind {
	case commandMachine:
		return a.machine(e, body)
	case commandWrite:
		w, err := decodeWrite(body)
		if err != nil {
			return nil, nil, err
		}
		return a.write(e, w)
	case commandAnsweredWrite:
		w, err := decodeAnsweredWrite(body)
		if err != nil {
			return nil, nil, err
		}
		return a.write(e, w)
	case commandExpire:
		x, err := decodeExpire(body)
		if err != nil {
			return nil, nil, err
		}
		refusal, err = a.expirePoints(e, x)
		return nil, refusal, err
	case commandCreateCollection:
		var c createCollection
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, nil, err
		}
		return a.createCollection(e, c)
	case commandUpdateCollection:
		var c updateCollection
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, nil, err
		}
		return a.updateCollection(c)
	case commandDeleteCollection:
		var c deleteCollection
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, nil, err
		}
		return a.deleteCollection(c), nil, nil
	case commandUpdateAliases:
		var c updateAliases
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, nil, err
		}
		return a.updateAliases(c)
	case commandCreateField:
		c, err := decodeInto[createField](body)
		if err != nil {
			return nil, nil, err
		}
		return a.createField(c)
	case commandDeleteField:
		c, err := decodeInto[deleteField](body)
		if err != nil {
			return nil, nil, err
		}
		return a.deleteField(c)
	case commandFillField:
		c, err := decodeInto[fillField](body)
		if err != nil {
			return nil, nil, err
		}
		value, err = a.fillField(e, c)
		return value, nil, err
	case commandFieldReady:
		c, err := decodeInto[fieldReady](body)
		if err != nil {
			return nil, nil, err
		}
		return nil, nil, a.fieldReady(c)
	case commandReserveShards:
		var c reserveShards
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, nil, err
		}
		return a.reserveShards(c)
	case commandCreateVectorName:
		c, err := decodeInto[createVectorName](body)
		if err != nil {
			return nil, nil, err
		}
		return a.createVectorName(e, c)
	case commandDeleteVectorName:
		c, err := decodeInto[deleteVectorName](body)
		if err != nil {
			return nil, nil, err
		}
		return a.deleteVectorName(c)
	case commandReplaceCollections:
		var c replaceCollections
		if err := json.Unmarshal(body, &c); err != nil {
			return nil, nil, err
		}
		return a.replaceCollections(c)
	}
	return nil, nil, fmt.Errorf("command of unknown kind %d: a newer vectord wrote it", kind)
}

func (a *applier) putMeta(key string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", key, err)
	}
	a.batch.PutMeta(key, b)
	return nil
}

func (a *applier) createCollection(e vectord.Entry, c createCollection) (value any, refusal, err error) {
	cat := a.db.catalog
	if _, ok := cat.collections[c.Name]; ok {
		return nil, vectord.Errorf(vectord.KindExists, "Collection `%s` already exists!", c.Name), nil
	}
	if _, ok := cat.aliases[c.Name]; ok {
		return nil, vectord.Errorf(vectord.KindInvalid, "Can't create collection with name %s. Alias with the same name already exists", c.Name), nil
	}
	col := &collection{id: cat.next.Collection, name: c.Name}
	if col.shape, err = a.db.shapes.of(c.Config, numberNames(&c.Config)); err != nil {
		return nil, nil, err
	}
	col.nextNumber = uint16(len(col.numbers))
	cat.next.Collection++
	for range c.Config.Params.ShardNumber {
		id := cat.next.Shard
		cat.next.Shard++
		s := a.db.newShard(shardMeta{ID: id, Group: id}, col)
		s.empty(e.Index)
		col.shards = append(col.shards, s)
	}
	if err := errors.Join(a.putMeta(collectionKey(col.id), col.meta()), a.putMeta(metaCounters, cat.next)); err != nil {
		return nil, nil, err
	}
	cat.put(col)
	return nil, nil, nil
}

func (a *applier) updateCollection(c updateCollection) (value any, refusal, err error) {
	col := a.db.catalog.collections[c.Name]
	if col == nil {
		return nil, noCollection(c.Name), nil
	}
	config, refusal := col.config.Updated(c.Update)
	if refusal != nil {
		return nil, refusal, nil
	}
	changed := *col
	if err := a.reshape(&changed, config, col.numbers); err != nil {
		return nil, nil, err
	}
	a.db.catalog.put(&changed)
	a.changed = append(a.changed, &changed)
	return nil, nil, nil
}

// deleteCollection reports whether there was one.
func (a *applier) deleteCollection(c deleteCollection) (existed bool) {
	cat := a.db.catalog
	col := cat.collections[c.Name]
	if col == nil {
		return false
	}
	for _, alias := range cat.remove(col) {
		a.batch.DeleteMeta(aliasKey(alias))
	}
	a.batch.DeleteMeta(collectionKey(col.id))
	for _, s := range col.shards {
		a.batch.DropShard(s.id)
		a.batch.DropGroup(s.group)
		delete(a.db.applied, s.group)
	}
	a.dropped = append(a.dropped, col)
	return true
}

func (a *applier) updateAliases(c updateAliases) (value any, refusal, err error) {
	cat := a.db.catalog
	aliases, refusal := cat.changeAliases(c.Actions)
	if refusal != nil {
		return nil, refusal, nil
	}
	for name := range cat.aliases {
		if _, ok := aliases[name]; !ok {
			a.batch.DeleteMeta(aliasKey(name))
		}
	}
	for name, target := range aliases {
		if cat.aliases[name] != target {
			if err := a.putMeta(aliasKey(name), aliasMeta{Collection: target}); err != nil {
				return nil, nil, err
			}
		}
	}
	cat.setAliases(aliases)
	return nil, nil, nil
}

// write applies the operations of one write in order. An operation is refused as a whole; those before it stay, those
// after it are not tried. The value is how many points it has deleted.
func (a *applier) write(e vectord.Entry, w *write) (value any, refusal, err error) {
	col := a.db.catalog.get(w.Collection)
	if col == nil {
		return nil, vectord.Errorf(vectord.KindNotFound, "the collection was deleted or replaced while the write waited"), nil
	}
	s := col.shard(w.Shard)
	if s == nil || s.group != e.Group {
		return nil, nil, fmt.Errorf("shard %d is not one of collection %q in group %d", w.Shard, col.name, e.Group)
	}
	if w.Session != ([16]byte{}) {
		refusal, seen, err := a.repeated(e, w)
		if err != nil || seen {
			return nil, refusal, err
		}
	}
	pw := a.writer(col, s, e)
	for i := range w.Operations {
		if refusal, err = pw.operation(&w.Operations[i]); refusal != nil || err != nil {
			break
		}
	}
	if err == nil {
		err = pw.finish()
	}
	if err != nil {
		return nil, nil, err
	}
	if w.Session != ([16]byte{}) {
		a.batch.PutSession(e.Group, w.Session, storage.Session{Time: e.Time, Fingerprint: w.Fingerprint, Result: encodeOutcome(refusal, w.Answer)})
	}
	return pw.deleted, refusal, nil
}

// writer returns what changes points of a shard for an entry.
func (a *applier) writer(col *collection, s *shard, e vectord.Entry) *pointWriter {
	if !s.used {
		s.used = true
		a.used = append(a.used, col.id)
	}
	w := &pointWriter{collection: col, batch: a.batch, changes: a.changesOf(s), index: e.Index, time: e.Time}
	if w.changes.through != e.Index { // an entry of the Machine's may come here more than once
		w.changes.through, w.changes.before = e.Index, len(w.changes.touched)
	}
	w.before = w.changes.before
	return w
}

// repeated reports whether the write's idempotency key was used before, and how that ended.
func (a *applier) repeated(e vectord.Entry, w *write) (refusal error, seen bool, err error) {
	session, ok, err := a.batch.Session(e.Group, w.Session)
	if err != nil || !ok || session.Time < e.Time-sessionLifetime.Milliseconds() {
		return nil, false, err
	}
	a.db.metrics.applied.WithLabelValues("repeated").Inc()
	_, refusal = sessionOutcome(session, w.Fingerprint)
	return refusal, true, nil
}

// sessionOutcome returns what the first attempt under an idempotency key answered, or a refusal if it asked for something
// else.
func sessionOutcome(session storage.Session, fingerprint uint64) (answer []byte, refusal error) {
	if session.Fingerprint != fingerprint {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "this idempotency key was used for another request before")
	}
	return decodeOutcome(session.Result)
}

// answered stands, in the outcome of a write, where a refusal has its kind.
const answered = 0xff

// encodeOutcome keeps the outcome for whoever repeats the write: a refusal's kind and text, or the answer if there is one.
func encodeOutcome(refusal error, answer []byte) []byte {
	switch {
	case refusal != nil:
		return append([]byte{byte(vectord.KindOf(refusal))}, refusal.Error()...)
	case len(answer) > 0:
		return append([]byte{answered}, answer...)
	}
	return nil
}

func decodeOutcome(b []byte) (answer []byte, refusal error) {
	switch {
	case len(b) == 0:
		return nil, nil
	case b[0] == answered:
		return b[1:], nil
	}
	return nil, &vectord.Error{Kind: vectord.Kind(b[0]), Text: string(b[1:])}
}

func (a *applier) changesOf(s *shard) *shardChanges {
	c := a.byShard[s.id]
	if c == nil {
		c = &shardChanges{shard: s}
		a.byShard[s.id] = c
		a.changes = append(a.changes, c)
	}
	return c
}

func (c *collection) shard(id uint32) *shard {
	for _, s := range c.shards {
		if s.id == id {
			return s
		}
	}
	return nil
}

// operation applies one operation, or refuses it before it has changed anything.
func (w *pointWriter) operation(op *vectord.Operation) (refusal, err error) {
	if op.Kind == vectord.OpUpsert || op.Kind == vectord.OpUpdateVectors {
		return w.points(op)
	}
	selected, refusal, err := w.selected(op)
	if refusal != nil || err != nil {
		return refusal, err
	}
	var at path
	var paths []path
	var numbers []uint16
	switch op.Kind {
	case vectord.OpSetPayload:
		if op.Key != "" {
			at, refusal = parsePath(op.Key)
		}
	case vectord.OpDeletePayload:
		paths, refusal = parsePaths(op.Keys)
	case vectord.OpDeleteVectors:
		numbers, refusal = w.collection.numbersOf(op.Keys)
	}
	if refusal != nil {
		return refusal, nil
	}
	for _, p := range selected {
		payload := p.row.Payload
		switch op.Kind {
		case vectord.OpDelete:
			w.delete(p.id, p.row)
			continue
		case vectord.OpSetExpiry:
			w.setExpiry(p.id, p.row, op.Expires)
			continue
		case vectord.OpDeleteVectors:
			if err := w.deleteVectors(p.id, p.row, numbers); err != nil {
				return nil, err
			}
			continue
		case vectord.OpSetPayload:
			payload, err = setPayload(payload, op.Payload, at)
		case vectord.OpOverwritePayload:
			payload = op.Payload
		case vectord.OpDeletePayload:
			payload, err = deletePayload(payload, paths)
		case vectord.OpClearPayload:
			payload = nil
		}
		if err != nil {
			return nil, err
		}
		w.setPayload(p.id, p.row, payload)
	}
	return nil, nil
}

// points applies an operation that carries points.
func (w *pointWriter) points(op *vectord.Operation) (refusal, err error) {
	condition, refusal := w.collection.compileFilter(op.UpdateFilter)
	if refusal != nil {
		return refusal, nil
	}
	for i := range op.Points {
		if refusal := w.collection.checkVectors(op.Points[i].Vectors); refusal != nil {
			return refusal, nil
		}
	}
	if op.Kind == vectord.OpUpdateVectors {
		for i := range op.Points {
			if _, ok, _, err := w.point(op.Points[i].ID); err != nil {
				return nil, err
			} else if !ok {
				return noPoint(op.Points[i].ID), nil
			}
		}
	}
	for i := range op.Points {
		p := &op.Points[i]
		row, ok, exists, err := w.point(p.ID)
		if err != nil {
			return nil, err
		}
		stays := ok && op.UpdateMode == vectord.WriteNew || !ok && op.UpdateMode == vectord.WriteExists
		if ok && !stays {
			holds, err := condition.matches(viewOf(p.ID, row))
			if err != nil {
				return nil, err
			}
			stays = !holds
		}
		switch {
		case stays:
		case op.Kind == vectord.OpUpsert:
			err = w.upsert(p, row, exists)
		default:
			err = w.setVectors(p.ID, row, p.Vectors)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// checkVectors returns an error unless the collection can keep the vectors.
func (c *collection) checkVectors(vectors vectord.Vectors) error {
	for i := range vectors {
		v := &vectors[i]
		spec, err := c.spec(v.Name)
		if err != nil {
			return err
		}
		if v.Kind == vectord.TextVector && spec.kind == vectord.DenseVector {
			continue // takes its place when nothing else is in the way
		}
		if err := v.Check(v.Name, spec.kind, spec.dim); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) numbersOf(names []string) ([]uint16, error) {
	numbers := make([]uint16, len(names))
	for i, name := range names {
		spec, err := c.spec(name)
		if err != nil {
			return nil, err
		}
		numbers[i] = spec.number
	}
	return numbers, nil
}

type selectedPoint struct {
	id  vectord.PointID
	row storage.PointRow
}

// selected returns the points that an operation is for: those of its ids that exist and, where it has a filter, still
// match it. An id without a point is refused where the client named it, unless the point shall be deleted anyway.
func (w *pointWriter) selected(op *vectord.Operation) (points []selectedPoint, refusal, err error) {
	m, refusal := w.collection.compileFilter(op.Filter)
	if refusal != nil {
		return nil, refusal, nil
	}
	seen := make(map[vectord.PointID]struct{}, len(op.IDs))
	for _, id := range op.IDs {
		if _, twice := seen[id]; twice {
			continue
		}
		seen[id] = struct{}{}
		row, ok, _, err := w.point(id)
		if err != nil {
			return nil, nil, err
		}
		if !ok {
			if op.Kind == vectord.OpDelete || op.Filter != nil {
				continue
			}
			return nil, noPoint(id), nil
		}
		matches, err := m.matches(viewOf(id, row))
		if err != nil {
			return nil, nil, err
		}
		if matches {
			points = append(points, selectedPoint{id, row})
		}
	}
	return points, nil, nil
}

func noPoint(id vectord.PointID) error {
	return vectord.Errorf(vectord.KindNotFound, "No point with id %s found", id)
}
