// Package model is a vector database in maps: it does what a vectord engine must do, exactly and slowly. It is the oracle
// of model tests and the double in the server's tests.
//
// It is written from the API's description and shares no code with the engine beyond the vocabulary and the analysis of
// texts, so that agreement of the two means something. Where a choice was open it takes the plain one.
package model

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/text"
)

// Model keeps collections in memory. Its methods may be called at the same time.
type Model struct {
	// Clock tells the time in milliseconds since the Unix epoch; nil: the computer's does. It is set before the first call.
	Clock func() int64

	mu          sync.Mutex // guards all below
	collections map[string]*collection
	aliases     map[string]string // alias → collection
	attempts    map[string]attempt
	stored      map[string]memoryAttempt
	operations  uint64 // the id of the last operation
	snapshots   []snapshot
	made        int // snapshots so far
}

type collection struct {
	config vectord.CollectionConfig
	points map[vectord.PointID]point
	fields map[string]vectord.FieldSchema // the payload indexes, which change no answer …
	texts  map[string]*text.Analyzer      // … but those of type text: their tokens decide
}

// point is never changed in place, so that copies of the map of points may share it.
type point struct {
	version uint64
	vectors map[string]vectord.Vector
	expires int64
	payload map[string]any // nil if there is none; numbers are json.Number
}

// attempt is a write that came with an idempotency key.
type attempt struct {
	collection string
	ops        []vectord.Operation
	results    []vectord.UpdateResult
}

// New returns an empty model.
func New() *Model {
	return &Model{collections: map[string]*collection{}, aliases: map[string]string{}, attempts: map[string]attempt{}, stored: map[string]memoryAttempt{}}
}

func noCollection(name string) error {
	return vectord.Errorf(vectord.KindNotFound, "Collection `%s` doesn't exist!", name)
}

func noPoint(id vectord.PointID) error {
	return vectord.Errorf(vectord.KindNotFound, "No point with id %s found", id)
}

func (m *Model) now() int64 {
	if m.Clock != nil {
		return m.Clock()
	}
	return time.Now().UnixMilli()
}

// expire removes the points that have expired.
func (c *collection) expire(now int64) {
	maps.DeleteFunc(c.points, func(_ vectord.PointID, p point) bool { return p.expires != 0 && p.expires <= now })
}

// find returns the collection of that name or alias, without points that have expired. m.mu is held.
func (m *Model) find(name string) (*collection, error) {
	if target, ok := m.aliases[name]; ok {
		name = target
	}
	c, ok := m.collections[name]
	if !ok {
		return nil, noCollection(name)
	}
	c.expire(m.now())
	return c, nil
}

// CreateCollection creates an empty collection.
func (m *Model) CreateCollection(_ context.Context, name string, config vectord.CollectionConfig) error {
	if err := vectord.CheckCollectionName(name); err != nil {
		return err
	}
	if err := config.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.collections[name]; ok {
		return vectord.Errorf(vectord.KindExists, "Collection `%s` already exists!", name)
	}
	if _, ok := m.aliases[name]; ok {
		return vectord.Errorf(vectord.KindInvalid, "Can't create collection with name %s. Alias with the same name already exists", name)
	}
	m.collections[name] = &collection{config: config, points: map[vectord.PointID]point{}, fields: map[string]vectord.FieldSchema{}, texts: map[string]*text.Analyzer{}}
	return nil
}

// UpdateCollection changes settings; the new ones must be valid together.
func (m *Model) UpdateCollection(_ context.Context, name string, u vectord.CollectionUpdate) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, ok := m.collections[name]
	if !ok {
		return noCollection(name)
	}
	config, err := c.config.Updated(u)
	if err != nil {
		return err
	}
	c.config = config
	return nil
}

// DeleteCollection removes a collection, its points and the aliases that point to it.
func (m *Model) DeleteCollection(_ context.Context, name string) (existed bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.collections[name]; !ok {
		return false, nil
	}
	delete(m.collections, name)
	maps.DeleteFunc(m.aliases, func(_, target string) bool { return target == name })
	return true, nil
}

// Collections returns the names of the collections, sorted.
func (m *Model) Collections() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.collections))
}

// CollectionInfo describes a collection. The model has no index that could lag, so all points count as indexed, and no
// shards, so the first has them all.
func (m *Model) CollectionInfo(name string) (vectord.CollectionInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return vectord.CollectionInfo{}, err
	}
	info := vectord.CollectionInfo{Status: vectord.StatusGreen, Points: len(c.points), IndexedVectors: len(c.points), Config: c.config,
		Fields: map[string]vectord.FieldInfo{}, ShardPoints: make([]int, c.config.Params.ShardNumber)}
	info.ShardPoints[0] = len(c.points)
	for name, schema := range c.fields {
		field := vectord.FieldInfo{FieldSchema: schema}
		for _, p := range c.points {
			if anyElement(lookUp(p.payload, name), func(v any) bool { return v != nil }) {
				field.Points++
			}
		}
		info.Fields[name] = field
	}
	return info, nil
}

// CreateFieldIndex notes a payload index.
func (m *Model) CreateFieldIndex(_ context.Context, collection, field string, schema vectord.FieldSchema, _ bool) (vectord.UpdateResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(collection)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	if err := vectord.CheckFieldName(field); err != nil {
		return vectord.UpdateResult{}, err
	}
	if !schema.Type.Valid() {
		return vectord.UpdateResult{}, vectord.Errorf(vectord.KindInvalid, "field_schema: unknown type %q", schema.Type)
	}
	if _, err := parsePath(field); err != nil {
		return vectord.UpdateResult{}, err
	}
	delete(c.texts, field)
	if schema.Type == vectord.FieldText {
		var params text.Params
		if len(schema.Params) > 0 {
			if err := json.Unmarshal(schema.Params, &params); err != nil {
				return vectord.UpdateResult{}, err
			}
		}
		if c.texts[field], err = text.New(params); err != nil {
			return vectord.UpdateResult{}, err
		}
	}
	c.fields[field] = schema
	m.operations++
	return vectord.UpdateResult{OperationID: m.operations}, nil
}

// DeleteFieldIndex forgets a payload index.
func (m *Model) DeleteFieldIndex(_ context.Context, collection, field string) (vectord.UpdateResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(collection)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	if err := vectord.CheckFieldName(field); err != nil {
		return vectord.UpdateResult{}, err
	}
	delete(c.fields, field)
	delete(c.texts, field)
	m.operations++
	return vectord.UpdateResult{OperationID: m.operations}, nil
}

// CreateVectorName adds vectors of a name; no point has one yet.
func (m *Model) CreateVectorName(_ context.Context, collection, name string, v vectord.NewVectors) (vectord.UpdateResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(collection)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	config, err := c.config.WithVectors(name, v)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	c.config = config
	m.operations++
	return vectord.UpdateResult{OperationID: m.operations}, nil
}

// DeleteVectorName drops a name and the vectors that points have of it.
func (m *Model) DeleteVectorName(_ context.Context, collection, name string) (vectord.UpdateResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(collection)
	if err != nil {
		return vectord.UpdateResult{}, err
	}
	_, dense := c.config.Params.Vectors[name]
	if _, sparse := c.config.Params.SparseVectors[name]; !dense && !sparse {
		return vectord.UpdateResult{}, vectord.NoVectorName(name)
	}
	c.config = c.config.WithoutVectors(name)
	for id, p := range c.points {
		p.vectors = maps.Clone(p.vectors)
		delete(p.vectors, name)
		c.points[id] = p
	}
	m.operations++
	return vectord.UpdateResult{OperationID: m.operations}, nil
}

// CollectionExists reports whether a collection or an alias has this name.
func (m *Model) CollectionExists(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.find(name)
	return err == nil
}

// UpdateAliases does all of the actions, in order, or none.
func (m *Model) UpdateAliases(_ context.Context, actions []vectord.AliasAction) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	aliases := maps.Clone(m.aliases)
	for _, a := range actions {
		if err := m.updateAlias(aliases, a); err != nil {
			return err
		}
	}
	m.aliases = aliases
	return nil
}

func (m *Model) updateAlias(aliases map[string]string, a vectord.AliasAction) error {
	free := func(name string) error {
		if err := vectord.CheckCollectionName(name); err != nil {
			return err
		}
		if _, ok := m.collections[name]; ok {
			return vectord.Errorf(vectord.KindExists, "Collection `%s` already exists!", name)
		}
		return nil
	}
	switch {
	case a.Create != nil:
		if _, ok := m.collections[a.Create.Collection]; !ok {
			return noCollection(a.Create.Collection)
		}
		if err := free(a.Create.Name); err != nil {
			return err
		}
		aliases[a.Create.Name] = a.Create.Collection
	case a.Rename != nil:
		target, ok := aliases[a.Rename.Old]
		if !ok {
			return vectord.Errorf(vectord.KindNotFound, "Alias %s does not exists!", a.Rename.Old)
		}
		if err := free(a.Rename.New); err != nil {
			return err
		}
		delete(aliases, a.Rename.Old)
		aliases[a.Rename.New] = target
	default:
		delete(aliases, a.Delete)
	}
	return nil
}

// Aliases returns all aliases, sorted by name.
func (m *Model) Aliases() []vectord.Alias {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]vectord.Alias, 0, len(m.aliases))
	for _, name := range slices.Sorted(maps.Keys(m.aliases)) {
		out = append(out, vectord.Alias{Name: name, Collection: m.aliases[name]})
	}
	return out
}

// ResolveAlias returns the collection that an alias stands for, and any other name as it is.
func (m *Model) ResolveAlias(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if target, ok := m.aliases[name]; ok {
		return target
	}
	return name
}

// Write checks all of the operations, then does them in order until one is refused: those before it stay.
func (m *Model) Write(_ context.Context, name string, ops []vectord.Operation, o vectord.WriteOptions) ([]vectord.UpdateResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if first, ok := m.attempts[o.IdempotencyKey]; ok && o.IdempotencyKey != "" {
		if first.collection != name || !reflect.DeepEqual(first.ops, ops) {
			return nil, vectord.Errorf(vectord.KindInvalid, "Idempotency-Key %q was used with another request", o.IdempotencyKey)
		}
		return first.results, nil
	}
	c, err := m.find(name)
	if err != nil {
		return nil, err
	}
	for i := range ops {
		if err := c.check(&ops[i]); err != nil {
			return nil, err
		}
	}
	results := make([]vectord.UpdateResult, 0, len(ops))
	for i := range ops {
		m.operations++
		points := maps.Clone(c.points)
		if err := c.apply(points, &ops[i], m.operations); err != nil {
			return nil, err
		}
		c.points = points
		c.expire(m.now())
		results = append(results, vectord.UpdateResult{OperationID: m.operations})
	}
	if o.IdempotencyKey != "" {
		m.attempts[o.IdempotencyKey] = attempt{name, ops, results}
	}
	return results, nil
}

// check refuses an operation that is wrong whatever points there are.
func (c *collection) check(op *vectord.Operation) error {
	if op.Filter != nil {
		if err := checkPaths(op.Filter); err != nil {
			return err
		}
	}
	seen := map[vectord.PointID]int{}
	for i, p := range op.Points {
		if first, twice := seen[p.ID]; twice {
			return vectord.Errorf(vectord.KindInvalid, "points: id %s is given twice, at positions %d and %d", p.ID, first, i)
		}
		seen[p.ID] = i
		if _, err := c.vectors(p.Vectors); err != nil {
			return err
		}
		if _, err := decodePayload(p.Payload); err != nil {
			return err
		}
	}
	if op.Kind == vectord.OpDeleteVectors {
		if len(op.Keys) == 0 {
			return vectord.Errorf(vectord.KindUnprocessable, "no vector names are given")
		}
		for _, name := range op.Keys {
			if _, err := c.kind(name); err != nil {
				return err
			}
		}
		return nil
	}
	if err := checkPaths(op.UpdateFilter); err != nil {
		return err
	}
	if op.Kind == vectord.OpUpsert || op.Kind == vectord.OpUpdateVectors || op.Kind == vectord.OpDelete {
		return nil
	}
	_, err := payloadChange(op)
	return err
}

// apply changes points as one operation says.
func (c *collection) apply(points map[vectord.PointID]point, op *vectord.Operation, id uint64) error {
	switch op.Kind {
	case vectord.OpUpsert, vectord.OpUpdateVectors:
		return c.put(points, op, id)
	case vectord.OpDelete:
		ids, err := c.selected(points, op, false)
		for _, id := range ids {
			delete(points, id)
		}
		return err
	}
	ids, err := c.selected(points, op, true)
	if err != nil {
		return err
	}
	if op.Kind == vectord.OpDeleteVectors {
		for _, pointID := range ids {
			p := points[pointID]
			kept := maps.Clone(p.vectors)
			maps.DeleteFunc(kept, func(name string, _ vectord.Vector) bool { return slices.Contains(op.Keys, name) })
			if len(kept) < len(p.vectors) {
				p.vectors, p.version = kept, id
				points[pointID] = p
			}
		}
		return nil
	}
	change, err := payloadChange(op)
	if err != nil {
		return err
	}
	for _, pointID := range ids {
		p := points[pointID]
		p.version, p.payload = id, change(p.payload)
		points[pointID] = p
	}
	return nil
}

func (c *collection) put(points map[vectord.PointID]point, op *vectord.Operation, id uint64) error {
	if op.Kind == vectord.OpUpdateVectors {
		for _, p := range op.Points {
			if _, ok := points[p.ID]; !ok {
				return noPoint(p.ID)
			}
		}
	}
	for _, p := range op.Points {
		vectors, err := c.vectors(p.Vectors)
		if err != nil {
			return err
		}
		old, exists := points[p.ID]
		switch {
		case exists && op.UpdateMode == vectord.WriteNew, !exists && op.UpdateMode == vectord.WriteExists,
			exists && op.UpdateFilter != nil && !matches(op.UpdateFilter, c.seen(p.ID, old)):
			continue
		}
		kept := point{version: id, vectors: vectors, expires: p.Expires}
		if op.Kind == vectord.OpUpdateVectors {
			kept = old
			kept.version, kept.vectors = id, maps.Clone(old.vectors)
			maps.Copy(kept.vectors, vectors)
		} else if kept.payload, err = decodePayload(p.Payload); err != nil {
			return err
		}
		points[p.ID] = kept
	}
	return nil
}

// kind returns what the vectors of a name are.
func (c *collection) kind(name string) (vectord.VectorKind, error) {
	if _, ok := c.config.Params.SparseVectors[name]; ok {
		return vectord.SparseVector, nil
	}
	v, ok := c.config.Params.Vectors[name]
	if !ok {
		return 0, vectord.NoVectorName(name)
	}
	if v.Multi != nil {
		return vectord.MultiVector, nil
	}
	return vectord.DenseVector, nil
}

// vectors checks the vectors of a point given by a client and returns them as the collection keeps them.
func (c *collection) vectors(given vectord.Vectors) (map[string]vectord.Vector, error) {
	out := map[string]vectord.Vector{}
	for _, v := range given {
		if _, twice := out[v.Name]; twice {
			return nil, vectord.Errorf(vectord.KindInvalid, "vector name %q is given twice", v.Name)
		}
		kept, err := c.vector(v.Name, v.Vector)
		if err != nil {
			return nil, err
		}
		out[v.Name] = kept
	}
	return out, nil
}

// vector checks a vector given by a client and returns it as the collection keeps it.
func (c *collection) vector(name string, v vectord.Vector) (vectord.Vector, error) {
	kind, err := c.kind(name)
	if err != nil {
		return v, err
	}
	v = v.Clone()
	size := c.config.Params.Vectors[name].Size
	if err := v.Check(name, kind, size); err != nil {
		return v, err
	}
	if kind != vectord.SparseVector && c.config.Params.Vectors[name].Distance == vectord.Cosine {
		for row := range slices.Chunk(v.Values, size) {
			vectord.Normalize(row)
		}
	}
	return v, nil
}

// selected returns the ids of the points that op is for. Ids that do not exist are an error if they must exist, and are
// left out otherwise.
func (c *collection) selected(points map[vectord.PointID]point, op *vectord.Operation, mustExist bool) ([]vectord.PointID, error) {
	var out []vectord.PointID
	if op.Filter != nil {
		if err := checkPaths(op.Filter); err != nil {
			return nil, err
		}
		for id, p := range points {
			if matches(op.Filter, c.seen(id, p)) {
				out = append(out, id)
			}
		}
		return out, nil
	}
	for _, id := range op.IDs {
		if _, ok := points[id]; ok {
			out = append(out, id)
		} else if mustExist {
			return nil, noPoint(id)
		}
	}
	return out, nil
}

// payloadChange returns what op does to a payload. The function leaves its argument as it is.
func payloadChange(op *vectord.Operation) (func(map[string]any) map[string]any, error) {
	given, err := decodePayload(op.Payload)
	if err != nil {
		return nil, err
	}
	switch op.Kind {
	case vectord.OpSetPayload:
		if op.Key == "" {
			return func(p map[string]any) map[string]any { return merge(p, given) }, nil
		}
		path, err := parsePath(op.Key)
		if err != nil {
			return nil, err
		}
		return func(p map[string]any) map[string]any { return setAt(p, path, given) }, nil
	case vectord.OpOverwritePayload:
		return func(map[string]any) map[string]any { return given }, nil
	case vectord.OpDeletePayload:
		paths, err := parsePaths(op.Keys)
		if err != nil {
			return nil, err
		}
		return func(p map[string]any) map[string]any { return removeAll(p, paths) }, nil
	case vectord.OpClearPayload:
		return func(map[string]any) map[string]any { return nil }, nil
	}
	return nil, vectord.Errorf(vectord.KindInvalid, "operation of unknown kind %d", op.Kind)
}

// Retrieve returns the points of ids that exist, in the order of ids.
func (m *Model) Retrieve(_ context.Context, name string, ids []vectord.PointID, s vectord.Selection) ([]vectord.Record, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return nil, err
	}
	pick, err := c.picker(s)
	if err != nil {
		return nil, err
	}
	var out []vectord.Record
	for _, id := range ids {
		if p, ok := c.points[id]; ok {
			out = append(out, pick(id, p))
		}
	}
	return out, nil
}

// seen returns what filters see of a point.
func (c *collection) seen(id vectord.PointID, p point) subject {
	return subject{id: id, vectors: slices.Collect(maps.Keys(p.vectors)), payload: p.payload, texts: c.texts}
}

// picker returns the function that makes a record with the selected parts of a point.
func (c *collection) picker(s vectord.Selection) (func(vectord.PointID, point) vectord.Record, error) {
	for _, name := range s.VectorNames {
		if _, err := c.kind(name); err != nil {
			return nil, err
		}
	}
	include, err := parsePaths(s.Include)
	if err != nil {
		return nil, err
	}
	exclude, err := parsePaths(s.Exclude)
	if err != nil {
		return nil, err
	}
	return func(id vectord.PointID, p point) vectord.Record {
		r := vectord.Record{ID: id, Version: p.version, Expires: p.expires}
		if s.Vectors {
			r.Vectors = vectord.Vectors{}
			for _, name := range slices.Sorted(maps.Keys(p.vectors)) {
				if len(s.VectorNames) == 0 || slices.Contains(s.VectorNames, name) {
					r.Vectors = append(r.Vectors, vectord.NamedVector{Name: name, Vector: p.vectors[name].Clone()})
				}
			}
		}
		if s.Payload && p.payload != nil {
			payload := p.payload
			if len(include) > 0 {
				payload = keepAll(payload, include)
			}
			r.Payload = encodePayload(removeAll(payload, exclude))
		}
		return r
	}, nil
}

// matching returns the ids of the points that match, ascending.
func (c *collection) matching(f *vectord.Filter) []vectord.PointID {
	var out []vectord.PointID
	for id, p := range c.points {
		if matches(f, c.seen(id, p)) {
			out = append(out, id)
		}
	}
	slices.SortFunc(out, vectord.PointID.Compare)
	return out
}

// Scroll returns a page of the matching points by ascending id, or in the order of a payload value.
func (m *Model) Scroll(_ context.Context, name string, r vectord.ScrollRequest) (vectord.ScrollPage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return vectord.ScrollPage{}, err
	}
	pick, err := c.picker(r.Select)
	if err != nil {
		return vectord.ScrollPage{}, err
	}
	if err := checkPaths(r.Filter); err != nil {
		return vectord.ScrollPage{}, err
	}
	var page vectord.ScrollPage
	if r.OrderBy != nil {
		if r.Offset != nil {
			return page, vectord.Errorf(vectord.KindInvalid, "offset with order_by")
		}
		found, err := c.inOrder(r.OrderBy, c.matching(r.Filter))
		for _, f := range cut(found, 0, r.Limit) {
			record := pick(f.id, c.points[f.id])
			record.Order = f.order
			page.Points = append(page.Points, record)
		}
		return page, err
	}
	for _, id := range c.matching(r.Filter) {
		if r.Offset != nil && id.Compare(*r.Offset) < 0 {
			continue
		}
		if len(page.Points) == r.Limit {
			page.Next = &id
			break
		}
		page.Points = append(page.Points, pick(id, c.points[id]))
	}
	return page, nil
}

// Count returns the number of matching points.
func (m *Model) Count(_ context.Context, name string, f *vectord.Filter) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	c, err := m.find(name)
	if err != nil {
		return 0, err
	}
	if err := checkPaths(f); err != nil {
		return 0, err
	}
	return len(c.matching(f)), nil
}

// SearchBatch searches for one query after the other.
func (m *Model) SearchBatch(ctx context.Context, name string, queries []vectord.Query) ([][]vectord.Hit, error) {
	answers := make([][]vectord.Hit, len(queries))
	for i, q := range queries {
		var err error
		if answers[i], err = m.Search(ctx, name, q); err != nil {
			return nil, fmt.Errorf("searches[%d]: %w", i, err)
		}
	}
	return answers, nil
}

// similarity compares a query's vector with a stored one: larger is nearer. Sparse vectors without a common component do not
// overlap.
func (c *collection) similarity(name string, query, stored *vectord.Vector) (value float64, overlap bool) {
	distance, size := c.distance(name), c.config.Params.Vectors[name].Size
	switch query.Kind {
	case vectord.SparseVector:
		return c.sparseScore(name, query, stored)
	case vectord.MultiVector:
		for row := range slices.Chunk(query.Values, size) {
			best := math.Inf(-1)
			for other := range slices.Chunk(stored.Values, size) {
				best = max(best, similarity(distance, row, other))
			}
			value += best
		}
		return value, true
	}
	return similarity(distance, query.Values, stored.Values), true
}

// shown returns the score that a client sees for a similarity.
func shown(d vectord.Distance, similarity float64) float64 {
	switch d {
	case vectord.Euclid:
		return math.Sqrt(-similarity)
	case vectord.Manhattan:
		return -similarity
	}
	return similarity
}

func (c *collection) sparseScore(name string, a, b *vectord.Vector) (sum float64, overlap bool) {
	idf := c.config.Params.SparseVectors[name].Modifier == vectord.ModifierIDF
	for i, index := range a.Indices {
		j := slices.Index(b.Indices, index)
		if j < 0 {
			continue
		}
		overlap = true
		weight := float64(a.Values[i])
		if idf {
			n, df := 0.0, 0.0
			for _, p := range c.points {
				if v, ok := p.vectors[name]; ok {
					n++
					if slices.Contains(v.Indices, index) {
						df++
					}
				}
			}
			weight *= math.Log((n-df+0.5)/(df+0.5) + 1)
		}
		sum += weight * float64(b.Values[j])
	}
	return sum, overlap
}

// similarity is the textbook formula of each distance, the Euclidean one squared, and negative where less is nearer.
func similarity(d vectord.Distance, a, b []float32) (sum float64) {
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		switch d {
		case vectord.Euclid:
			sum -= (x - y) * (x - y)
		case vectord.Manhattan:
			sum -= math.Abs(x - y)
		default:
			sum += x * y
		}
	}
	return sum
}

// Ready returns nil: a model is always ready.
func (m *Model) Ready() error { return nil }

// checkPaths returns an error if a payload path in f cannot be read.
func checkPaths(f *vectord.Filter) error {
	if f == nil {
		return nil
	}
	lists := [][]vectord.Condition{f.Must, f.Should, f.MustNot}
	if f.MinShould != nil {
		lists = append(lists, f.MinShould.Conditions)
	}
	for _, list := range lists {
		for _, c := range list {
			if err := checkPaths(c.Filter); err != nil {
				return err
			}
			path := c.IsEmpty + c.IsNull // at most one of them is set
			switch {
			case c.Field != nil:
				path = c.Field.Key
			case c.Nested != nil:
				path = c.Nested.Key
				if err := checkPaths(c.Nested.Filter); err != nil {
					return err
				}
			}
			if path == "" {
				continue
			}
			if _, err := parsePath(path); err != nil {
				return err
			}
		}
	}
	return nil
}
