package engine

import (
	"cmp"
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/zeebo/xxh3"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// Memories are points (vectord.Memory), so reading, filters, expiry and snapshots are those of points. What is here decides what
// a write of memories does to those that are like them. It decides before the log is asked and under a lock, so that nobody
// decides by what somebody else is about to change; what reaches the log are operations on points, and Apply knows nothing of
// memories.

// memoryStripes is how many locks the scopes of all collections share.
const memoryStripes = 256

// memoryLocks serialize what is decided by the memories of a scope. A lock is held while a decision is on its way through the
// log. Who takes several takes them in ascending order.
type memoryLocks [memoryStripes]chan struct{}

func newMemoryLocks() *memoryLocks {
	var l memoryLocks
	for i := range l {
		l[i] = make(chan struct{}, 1)
	}
	return &l
}

// lock takes the locks of some scopes of a collection, and returns what gives them back; calling it again does nothing.
func (l *memoryLocks) lock(ctx context.Context, collection uint32, scopes []vectord.MemoryScope) (release func(), err error) {
	stripes := make([]int, len(scopes))
	for i, scope := range scopes {
		stripes[i] = stripeOf(collection, scope)
	}
	slices.Sort(stripes)
	stripes = slices.Compact(stripes)
	taken := 0
	release = sync.OnceFunc(func() {
		for _, i := range stripes[:taken] {
			<-l[i]
		}
	})
	for _, i := range stripes {
		select {
		case l[i] <- struct{}{}:
			taken++
		case <-ctx.Done():
			release()
			return nil, ctx.Err()
		}
	}
	return release, nil
}

func stripeOf(collection uint32, scope vectord.MemoryScope) int {
	b := binary.LittleEndian.AppendUint32(nil, collection)
	for _, key := range scope.Keys() {
		b = appendBytes(b, []byte(key.Value))
	}
	return int(xxh3.Hash(b) % memoryStripes)
}

// memoryCommitMax bounds how long a lock is held for a command whose proposer has gone.
const memoryCommitMax = time.Minute

// holding commits what was decided under locks, and gives them back when the outcome is known. If ctx ends before, the commands
// still take their course, and until then nobody may decide by what they change.
func holding(ctx context.Context, release func(), commit func(ctx context.Context) error) error {
	outcome := make(chan error, 1)
	go func() {
		defer release()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), memoryCommitMax)
		defer cancel()
		outcome <- commit(ctx)
	}()
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return vectord.Errorf(vectord.KindTimeout, "the outcome is unknown, the write may still take effect: %v", ctx.Err())
	}
}

// StoreMemories writes memories, each unless dedup says otherwise because there is one like it in its scope; nil writes all.
// The results are in the order of the memories.
//
// In a collection of one shard all of it is one command. Of several, each gets one command with what concerns it alone and, when
// these are durable, one that marks what was superseded by a memory of another shard: at no time is one marked whose successor
// is not there.
func (db *DB) StoreMemories(ctx context.Context, name string, memories []vectord.Memory, dedup *vectord.MemoryDedup, o vectord.WriteOptions) ([]vectord.MemoryResult, error) {
	w, err := db.newMemoryWrite(ctx, name, memories, dedup, o.IdempotencyKey)
	if err != nil {
		return nil, err
	}
	release, err := w.lock(ctx)
	if err != nil {
		return nil, err
	}
	p := proposal{db: db, collection: w.collection}
	var ops []vectord.Operation
	done, err := w.repeated(&p, o.IdempotencyKey)
	if err == nil && !done {
		ops, err = w.decide(ctx)
	}
	if err == nil && !done && o.IdempotencyKey != "" {
		p.answer, err = json.Marshal(w.results)
	}
	if err != nil || done {
		release()
		return w.results, err
	}
	if err := holding(ctx, release, func(ctx context.Context) error { return w.commit(ctx, &p, ops) }); err != nil {
		return nil, err
	}
	for i := range w.results {
		db.metrics.memories.WithLabelValues(string(w.results[i].Outcome)).Inc()
	}
	return w.results, nil
}

// repeated has the proposal note the idempotency key, if there is one, and reports whether that was done before: then the results
// are those of the first attempt.
func (w *memoryWrite) repeated(p *proposal, key string) (done bool, err error) {
	if key == "" {
		return false, nil
	}
	p.session, p.fingerprint = sessionKey(w.collection.id, key), w.fingerprint
	p.noting = w.collection.shards[:1] // a repetition does not know which others it went to
	if done, err = p.repeated(); err != nil || !done {
		return done, err
	}
	if err = json.Unmarshal(p.repeatedAnswer, &w.results); err != nil {
		err = vectord.Errorf(vectord.KindUnprocessable, "this idempotency key was used for another request before")
	}
	return true, err
}

// PrepareMemories does what StoreMemories does up to the log: it returns the operations that store the memories, for a caller
// that commits them together with something else, and the results to answer when it has. Until then the scopes of the memories
// are locked where there is a dedup; the caller calls release once the outcome of its commit is known, or it has given up.
//
// The operations are for a command, not for Write: their vectors are made, those that mark another memory carry ids and a
// filter, and none of them is refused by Apply unless the collection's vectors have changed. Those that mark another memory as
// superseded follow the one that writes its successor.
func (db *DB) PrepareMemories(ctx context.Context, name string, memories []vectord.Memory, dedup *vectord.MemoryDedup) (ops []vectord.Operation,
	results []vectord.MemoryResult, release func(), err error) {
	w, err := db.newMemoryWrite(ctx, name, memories, dedup, "")
	if err != nil {
		return nil, nil, nil, err
	}
	if release, err = w.lock(ctx); err != nil {
		return nil, nil, nil, err
	}
	if ops, err = w.decide(ctx); err != nil {
		release()
		return nil, nil, nil, err
	}
	return ops, w.results, release, nil
}

// memoryWrite is a write of memories under way.
type memoryWrite struct {
	db          *DB
	collection  *collection
	dedup       *vectord.MemoryDedup // with its defaults set
	fingerprint uint64               // of what was asked for

	// Of decide.
	now     int64
	items   []memoryItem
	stored  map[vectord.PointID]*storedMemory // those that are to be changed
	results []vectord.MemoryResult
}

// memoryItem is one memory of a write.
type memoryItem struct {
	memory vectord.Memory
	point  vectord.Point // without its payload; the vector as it is kept

	// Where there is a dedup:
	near       *search // compares with the vector
	duplicates []duplicate
	written    bool // it was decided that it is
	superseded bool // … and that a later one supersedes it
}

// duplicate is a stored memory that is like another.
type duplicate struct {
	id         vectord.PointID
	similarity float64
}

// compare orders duplicates, the most similar first.
func (d duplicate) compare(other duplicate) int {
	return cmp.Or(cmp.Compare(other.similarity, d.similarity), d.id.Compare(other.id))
}

// storedMemory is a memory that is there before a write and that the write changes.
type storedMemory struct {
	vectord.Memory
	expires, expired int64 // when it expires now, and did before
	successor        *vectord.PointID
	refreshed        bool
}

// newMemoryWrite checks memories and makes their vectors. Nothing has changed when it returns an error.
func (db *DB) newMemoryWrite(ctx context.Context, name string, memories []vectord.Memory, dedup *vectord.MemoryDedup, key string) (*memoryWrite, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return nil, err
	}
	if len(memories) == 0 || len(memories) > vectord.MaxMemories {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "memories: %d memories, expected from 1 to %d", len(memories), vectord.MaxMemories)
	}
	w := &memoryWrite{db: db, collection: col, items: make([]memoryItem, len(memories))}
	if err := w.setDedup(dedup); err != nil {
		return nil, err
	}
	upsert := vectord.Operation{Kind: vectord.OpUpsert, Points: make([]vectord.Point, len(memories))}
	for i := range memories {
		m := &w.items[i].memory
		*m = memories[i]
		if upsert.Points[i], err = db.pointOfMemory(col, m, i, key); err != nil {
			return nil, fmt.Errorf("%w (memories[%d])", err, i)
		}
	}
	if key != "" {
		if w.fingerprint, err = w.requested(upsert.Points); err != nil {
			return nil, err
		}
	}
	ops := []vectord.Operation{upsert}
	for _, step := range []func() error{
		func() error { return db.checkOperation(col, &ops[0]) },
		func() error { return db.checkStrictWrite(ctx, col, ops) },
		db.budget.admit,
		func() error { return db.waitForIndex(ctx, col) },
		func() error { return db.embedPoints(ctx, col, ops) },
		func() error { return db.indexScopes(ctx, col) },
	} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	col.prepare(ops)
	for i := range w.items {
		w.items[i].point = upsert.Points[i]
	}
	return w, nil
}

func (w *memoryWrite) setDedup(d *vectord.MemoryDedup) error {
	if d == nil {
		return nil
	}
	if err := d.Check(); err != nil {
		return err
	}
	w.dedup = &vectord.MemoryDedup{Threshold: cmp.Or(d.Threshold, vectord.DefaultDedupSimilar), Action: cmp.Or(d.Action, vectord.DedupSkip)}
	return nil
}

// pointOfMemory returns the point of a memory as it was asked for: without what depends on the time. In the place of a vector it
// may have the text to make it of.
func (db *DB) pointOfMemory(col *collection, m *vectord.Memory, i int, key string) (p vectord.Point, err error) {
	if err := m.Check(); err != nil {
		return p, err
	}
	spec, err := col.spec(m.Using)
	if err != nil {
		return p, err
	}
	v := m.Vector
	if v == nil {
		if v, err = db.textToCompare(spec, m.Text, m.Model); err != nil {
			return p, err
		}
	}
	m.Kind = cmp.Or(m.Kind, vectord.MemorySemantic)
	if m.Importance == nil {
		m.Importance = new(vectord.DefaultImportance)
	}
	if m.ID == nil {
		id := newMemoryID(db.now())
		if key != "" {
			id = repeatableMemoryID(col.id, key, i)
		}
		m.ID = &id
	}
	payload, err := json.Marshal(m)
	return vectord.Point{ID: *m.ID, Vectors: vectord.Vectors{{Name: m.Using, Vector: v.Clone()}}, Payload: payload, Expires: m.Expires}, err
}

// requested is the fingerprint of the request.
func (w *memoryWrite) requested(points []vectord.Point) (uint64, error) {
	b, err := appendOperations(nil, []vectord.Operation{{Kind: vectord.OpUpsert, Points: points}})
	if err != nil {
		return 0, err
	}
	for i := range w.items {
		b = binary.AppendUvarint(b, uint64(w.items[i].memory.TTL))
	}
	if w.dedup != nil {
		b = strconv.AppendFloat(append(b, w.dedup.Action...), w.dedup.Threshold, 'g', -1, 64)
	}
	return xxh3.Hash(b), nil
}

// textToCompare returns the text in the place of a vector, with the model that makes it if the request names none.
func (db *DB) textToCompare(spec *vectorSpec, text, model string) (*vectord.Vector, error) {
	if model == "" {
		var err error
		if model, err = db.onlyModel(spec); err != nil {
			return nil, err
		}
	}
	return &vectord.Vector{Kind: vectord.TextVector, Text: &vectord.Document{Text: text, Model: model}}, nil
}

// onlyModel returns the one model that makes vectors of a name.
func (db *DB) onlyModel(spec *vectorSpec) (string, error) {
	switch spec.kind {
	case vectord.SparseVector:
		return bm25Model, nil
	case vectord.MultiVector:
		return "", vectord.Errorf(vectord.KindUnsupported, "vector: missing, and no model makes a %s of a text", spec.kind)
	}
	var fitting []string
	for _, e := range db.embedders {
		if e.Dim() == spec.dim {
			fitting = append(fitting, e.Name())
		}
	}
	slices.Sort(fitting)
	if len(fitting) != 1 {
		return "", vectord.Errorf(vectord.KindInvalid, "model: missing, and %d models make vectors of %d components %q: name one, or give the vector",
			len(fitting), spec.dim, fitting)
	}
	return fitting[0], nil
}

// newMemoryID returns a UUID of version 7.
func newMemoryID(now int64) vectord.PointID {
	var b [16]byte
	crand.Read(b[6:]) // never fails
	b[0], b[1] = byte(now>>40), byte(now>>32)
	binary.BigEndian.PutUint32(b[2:], uint32(now))
	return uuidOfVersion(b, 7)
}

// repeatableMemoryID returns the id that a memory without one gets whenever the request is made under its key: when a first
// attempt was applied in part, the next one writes the same memories.
func repeatableMemoryID(collection uint32, key string, i int) vectord.PointID {
	h := xxh3.HashString128Seed(strconv.Itoa(i)+" "+key, uint64(collection))
	return uuidOfVersion(h.Bytes(), 8)
}

func uuidOfVersion(b [16]byte, version byte) vectord.PointID {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
	return vectord.UUIDID(b)
}

// indexScopes creates payload indexes on the parts of scopes with the first memory of a collection, unless that has one on any
// of them or limits of its own: without them each decision would read all points.
func (db *DB) indexScopes(ctx context.Context, col *collection) error {
	if col.strict() != nil {
		return nil
	}
	keys := vectord.MemoryScope{}.Keys()
	if len(col.fields)+len(keys) > vectord.MaxFieldIndexes {
		return nil
	}
	for _, key := range keys {
		if col.fieldByName(key.Path) != nil {
			return nil
		}
	}
	for _, key := range keys {
		if _, err := db.CreateFieldIndex(ctx, col.name, key.Path, vectord.FieldSchema{Type: vectord.FieldKeyword}, false); err != nil {
			return fmt.Errorf("payload index on %s: %w", key.Path, err)
		}
	}
	return nil
}

// lock takes the locks of the scopes that the write decides by: none, if it writes everything.
func (w *memoryWrite) lock(ctx context.Context) (release func(), err error) {
	if w.dedup == nil {
		return func() {}, nil
	}
	scopes := make([]vectord.MemoryScope, len(w.items))
	for i := range w.items {
		scopes[i] = w.items[i].memory.Scope
	}
	return w.db.memoryLocks.lock(ctx, w.collection.id, scopes)
}

// decide finds out what becomes of each memory, in order, and returns the operations that make it so.
func (w *memoryWrite) decide(ctx context.Context) ([]vectord.Operation, error) {
	w.now = w.db.now()
	w.stored = map[vectord.PointID]*storedMemory{}
	for i := range w.items {
		m := &w.items[i].memory
		m.Created = cmp.Or(m.Created, vectord.Datetime(w.now*1000))
		if m.TTL > 0 {
			m.Expires = w.now + m.TTL
		}
	}
	if w.dedup != nil {
		if err := w.compare(ctx); err != nil {
			return nil, err
		}
	}
	for i := range w.items {
		r, err := w.decideOne(i)
		if err != nil {
			return nil, err
		}
		w.results = append(w.results, r)
	}
	return w.operations()
}

// decideOne decides about one memory, those before it being decided.
func (w *memoryWrite) decideOne(i int) (vectord.MemoryResult, error) {
	item := &w.items[i]
	earlier, d, found, err := w.nearest(i)
	if err != nil {
		return vectord.MemoryResult{}, err
	}
	if !found {
		item.written = true
		return vectord.MemoryResult{ID: item.point.ID, Outcome: vectord.MemoryCreated}, nil
	}
	similarity := new(float32(d.similarity))
	r := vectord.MemoryResult{ID: d.id, Outcome: vectord.MemorySkipped, Similarity: similarity}
	switch w.dedup.Action {
	case vectord.DedupRefresh:
		r.Outcome = vectord.MemoryRefreshed
		if earlier != nil {
			earlier.memory.Expires = refresh(&earlier.memory, earlier.memory.Expires, &item.memory, w.now)
		} else {
			s := w.stored[d.id]
			s.expires, s.refreshed = refresh(&s.Memory, s.expires, &item.memory, w.now), true
		}
	case vectord.DedupSupersede:
		r = vectord.MemoryResult{ID: item.point.ID, Outcome: vectord.MemorySuperseded, Superseded: &d.id, Similarity: similarity}
		item.written = true
		item.memory.ValidFrom = cmp.Or(item.memory.ValidFrom, vectord.Datetime(w.now*1000))
		if earlier != nil {
			earlier.superseded = true
			w.stored[d.id] = &storedMemory{Memory: earlier.memory, successor: &item.point.ID}
		} else {
			w.stored[d.id].successor = &item.point.ID
		}
	}
	return r, nil
}

// refresh has a memory count as used, and makes it last as long and count as much as another like it. It returns when it
// expires then.
func refresh(m *vectord.Memory, expires int64, other *vectord.Memory, now int64) int64 {
	m.Uses++
	m.LastUsed = vectord.Datetime(now * 1000)
	if m.Importance == nil || *other.Importance > *m.Importance {
		m.Importance = other.Importance
	}
	m.Pinned = m.Pinned || other.Pinned
	if expires == 0 || other.Expires == 0 {
		return 0
	}
	return max(expires, other.Expires)
}

// similarGranted is what a similarity may be below the threshold, because floats are rounded: the cosine of a vector with itself
// need not be 1.
const similarGranted = 1e-6

// nearest returns the memory to which one is similar enough, and the most: an earlier one of this write, or one that is stored.
func (w *memoryWrite) nearest(i int) (earlier *memoryItem, d duplicate, found bool, err error) {
	item := &w.items[i]
	if w.dedup == nil {
		return nil, d, false, nil
	}
	for _, candidate := range item.duplicates { // the most similar first
		s, err := w.storedMemory(candidate.id)
		if err != nil {
			return nil, d, false, err
		}
		if s != nil && s.successor == nil {
			d, found = candidate, true
			break
		}
	}
	for j := range i {
		other := &w.items[j]
		m := &other.memory
		if !other.written || other.superseded || m.Scope != item.memory.Scope || m.Using != item.memory.Using || !m.Current(w.now) {
			continue
		}
		similarity, ok := item.near.similarityTo(&other.point.Vectors[0].Vector)
		candidate := duplicate{other.point.ID, similarity}
		if ok && similarity >= w.dedup.Threshold-similarGranted && (!found || candidate.compare(d) < 0) {
			earlier, d, found = other, candidate, true
		}
	}
	return earlier, d, found, nil
}

// storedMemory returns a memory that is stored, as the write has changed it so far; nil if it is no more.
func (w *memoryWrite) storedMemory(id vectord.PointID) (*storedMemory, error) {
	if s := w.stored[id]; s != nil {
		return s, nil
	}
	row, ok, err := w.db.store.Point(w.collection.shardOf(id).id, id)
	if err != nil || !ok || gone(row, w.now) {
		return nil, err
	}
	s := &storedMemory{expires: row.Expires, expired: row.Expires, Memory: memoryOf(row.Payload)}
	w.stored[id] = s
	return s, nil
}

// compare finds the stored memories to which those of the write are similar enough.
func (w *memoryWrite) compare(ctx context.Context) error {
	type group struct {
		scope vectord.MemoryScope
		using string
	}
	ours := map[vectord.PointID]bool{} // are replaced, if they are there
	groups := map[group][]*memoryItem{}
	for i := range w.items {
		item := &w.items[i]
		ours[item.point.ID] = true
		var err error
		if item.near, err = w.db.newSearch(ctx, w.collection, &vectord.Query{Nearest: &vectord.Example{Vector: item.point.Vectors[0].Vector},
			Using: item.memory.Using, Limit: 1}); err != nil {
			return err
		}
		g := group{item.memory.Scope, item.memory.Using}
		groups[g] = append(groups[g], item)
	}
	for g, items := range groups {
		filter, err := w.collection.compileFilter(currentMemories(g.scope, w.now))
		if err != nil {
			return err
		}
		err = items[0].near.eachVector(ctx, filter, func(id vectord.PointID, _ storage.PointRow, v *vectord.Vector) bool {
			if ours[id] {
				return true
			}
			for _, item := range items {
				if similarity, ok := item.near.similarityTo(v); ok && similarity >= w.dedup.Threshold-similarGranted {
					item.add(duplicate{id, similarity}, len(items))
				}
			}
			return true
		})
		if err != nil {
			return err
		}
		for _, item := range items {
			item.sortDuplicates()
		}
	}
	return nil
}

// add notes a duplicate. Each memory before this one supersedes one at most, so that the best few of all are enough: one more
// than there are such.
func (item *memoryItem) add(d duplicate, enough int) {
	item.duplicates = append(item.duplicates, d)
	if len(item.duplicates) >= 2*enough+16 {
		item.sortDuplicates()
		item.duplicates = item.duplicates[:enough]
	}
}

func (item *memoryItem) sortDuplicates() {
	slices.SortFunc(item.duplicates, duplicate.compare)
}

// operations returns the operations of what was decided.
func (w *memoryWrite) operations() ([]vectord.Operation, error) {
	upsert := vectord.Operation{Kind: vectord.OpUpsert}
	for i := range w.items {
		item := &w.items[i]
		if !item.written {
			continue
		}
		var err error
		if item.point.Payload, err = json.Marshal(&item.memory); err != nil {
			return nil, err
		}
		item.point.Expires = item.memory.Expires
		if err := checkPayload("payload of memory "+item.point.ID.String(), item.point.Payload); err != nil {
			return nil, err
		}
		upsert.Points = append(upsert.Points, item.point)
	}
	var ops []vectord.Operation
	if len(upsert.Points) > 0 {
		ops = append(ops, upsert)
	}
	ids := make([]vectord.PointID, 0, len(w.stored))
	for id, s := range w.stored {
		if s.refreshed || s.successor != nil {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, vectord.PointID.Compare)
	for _, id := range ids {
		marks, err := w.marks(id, w.stored[id])
		if err != nil {
			return nil, err
		}
		ops = append(ops, marks...)
	}
	return ops, nil
}

// marks returns the operations that change a stored memory.
func (w *memoryWrite) marks(id vectord.PointID, s *storedMemory) (ops []vectord.Operation, err error) {
	set := struct {
		*memoryUse
		Importance   *float64          `json:"importance,omitempty"`
		Pinned       bool              `json:"pinned,omitempty"`
		SupersededBy *vectord.PointID  `json:"superseded_by,omitempty"`
		ValidTo      *vectord.Datetime `json:"valid_to,omitempty"`
	}{SupersededBy: s.successor}
	if s.refreshed {
		set.memoryUse, set.Importance, set.Pinned = &memoryUse{s.Uses, s.LastUsed}, s.Importance, s.Pinned
	}
	if s.successor != nil {
		until := w.validFrom(*s.successor)
		if s.ValidTo != 0 {
			until = min(until, s.ValidTo)
		}
		set.ValidTo = &until
	}
	op := vectord.Operation{Kind: vectord.OpSetPayload, IDs: []vectord.PointID{id}, Filter: anyMemory()}
	if op.Payload, err = json.Marshal(set); err != nil {
		return nil, err
	}
	ops = append(ops, op)
	if s.expires != s.expired {
		ops = append(ops, vectord.Operation{Kind: vectord.OpSetExpiry, IDs: op.IDs, Filter: op.Filter, Expires: s.expires})
	}
	return ops, nil
}

func (w *memoryWrite) validFrom(id vectord.PointID) vectord.Datetime {
	for i := range w.items {
		if w.items[i].point.ID == id {
			return w.items[i].memory.ValidFrom
		}
	}
	panic(fmt.Sprintf("memory %s supersedes another and is none of the write", id))
}

// commit proposes the operations that decide returned.
func (w *memoryWrite) commit(ctx context.Context, p *proposal, ops []vectord.Operation) error {
	steps := [][]vectord.Operation{ops}
	if len(w.collection.shards) > 1 {
		// First what does not depend on another shard; and the key is noted when all else is durable.
		steps = [][]vectord.Operation{nil, nil, nil}
		for _, op := range ops {
			step := 0
			if op.Kind != vectord.OpUpsert && w.followsAnother(op.IDs[0]) {
				step = 1
			}
			steps[step] = append(steps[step], op)
		}
	}
	for i, step := range steps {
		last := i == len(steps)-1
		if len(step) == 0 && (!last || len(p.noting) == 0) {
			continue
		}
		if _, err := p.propose(ctx, step, last); err != nil {
			return err
		}
	}
	return nil
}

// followsAnother reports whether a stored memory is superseded by one of another shard.
func (w *memoryWrite) followsAnother(id vectord.PointID) bool {
	successor := w.stored[id].successor
	return successor != nil && w.collection.shardOf(*successor) != w.collection.shardOf(id)
}
