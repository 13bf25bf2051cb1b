package engine

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"golang.org/x/time/rate"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// Strict mode are limits that a collection sets its clients. All are enforced where a request comes in, before anything
// reaches the log: what is in the log is applied whatever the limits are by then, on every replica alike.

// strict returns the limits in force, nil for none.
func (c *collection) strict() *vectord.StrictMode {
	if m := c.config.StrictMode; m != nil && m.Enabled != nil && *m.Enabled {
		return m
	}
	return nil
}

// exceeded returns an error if a value is above a limit, which is named as clients know it.
func exceeded[T int | int64 | float64](value T, limit *T, name, setting string) error {
	if limit == nil || value <= *limit {
		return nil
	}
	return vectord.Errorf(vectord.KindLimited, `Limit exceeded %v > %v for "%s": the collection's %s forbids it`, value, *limit, name, setting)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// limiters keep the rates of the collections that limit them.
type limiters struct {
	mu  sync.Mutex // guards all
	all map[limiterKey]*rate.Limiter
}

type limiterKey struct {
	collection uint32
	write      bool
}

// take admits a number of operations, or tells when to come back. A minute's worth may come at once.
func (l *limiters) take(key limiterKey, perMinute, operations int, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	limiter := l.all[key]
	if limiter == nil || limiter.Burst() != perMinute {
		limiter = rate.NewLimiter(rate.Limit(float64(perMinute)/time.Minute.Seconds()), perMinute)
		if l.all == nil {
			l.all = map[limiterKey]*rate.Limiter{}
		}
		l.all[key] = limiter
	}
	what := "read"
	if key.write {
		what = "write"
	}
	r := limiter.ReserveN(now, operations)
	if !r.OK() {
		return vectord.Errorf(vectord.KindLimited, "%d operations in one request, the collection's %s_rate_limit is %d a minute: split the request",
			operations, what, perMinute)
	}
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: wait,
			Text: fmt.Sprintf("Rate limiting exceeded: the collection's %s_rate_limit is %d operations a minute, retry later", what, perMinute)}
	}
	return nil
}

// drop forgets the rates of a collection that is no more.
func (l *limiters) drop(collection uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, limiterKey{collection, false})
	delete(l.all, limiterKey{collection, true})
}

// readable returns a collection for a request that reads it, which counts as so many operations.
func (db *DB) readable(ctx context.Context, name string, operations int) (*collection, error) {
	col, err := db.catalog.resolve(name)
	if err != nil {
		return nil, err
	}
	m := col.strict()
	if m == nil {
		return col, nil
	}
	if err := checkTimeout(ctx, m); err != nil {
		return nil, err
	}
	if m.ReadRateLimit != nil {
		err = db.limiters.take(limiterKey{col.id, false}, *m.ReadRateLimit, operations, time.Now())
	}
	return col, err
}

func checkTimeout(ctx context.Context, m *vectord.StrictMode) error {
	if seconds, ok := vectord.RequestedTimeout(ctx); ok {
		return exceeded(seconds, m.MaxTimeout, "timeout", "max_timeout")
	}
	return nil
}

// checkLimit checks a limit of hits or points.
func (c *collection) checkLimit(limit int) error {
	m := c.strict()
	if m == nil {
		return nil
	}
	return exceeded(limit, m.MaxQueryLimit, "limit", "max_query_limit")
}

// checkStrict checks a query and what it prefetches.
func (c *collection) checkStrict(q *vectord.Query) error {
	m := c.strict()
	if m == nil {
		return nil
	}
	p := &q.Params
	if p.Exact && m.SearchAllowExact != nil && !*m.SearchAllowExact {
		return vectord.Errorf(vectord.KindLimited, `"exact": true is forbidden by the collection's search_allow_exact, false`)
	}
	err := firstError(exceeded(q.Limit, m.MaxQueryLimit, "limit", "max_query_limit"),
		exceeded(p.HNSWEf, m.SearchMaxHNSWEf, "hnsw_ef", "search_max_hnsw_ef"),
		exceeded(p.Quantization.Oversampling, m.SearchMaxOversampling, "oversampling", "search_max_oversampling"),
		c.checkFilter(q.Filter, m.UnindexedFilteringRetrieve, "unindexed_filtering_retrieve"))
	for i := range q.Prefetch {
		err = firstError(err, c.checkStrict(&q.Prefetch[i]))
	}
	return err
}

// checkReadFilter checks the filter of a request that reads.
func (c *collection) checkReadFilter(f *vectord.Filter) error {
	m := c.strict()
	if m == nil {
		return nil
	}
	return c.checkFilter(f, m.UnindexedFilteringRetrieve, "unindexed_filtering_retrieve")
}

// checkFilter checks a filter. If unindexed, which has the name of setting, is false every path needs a payload index.
func (c *collection) checkFilter(f *vectord.Filter, unindexed *bool, setting string) error {
	if f.Empty() {
		return nil
	}
	m := c.strict()
	w := strictWalk{collection: c, limits: m}
	if unindexed != nil && !*unindexed {
		w.unindexed = setting
	}
	if err := w.filter(f, ""); err != nil {
		return err
	}
	return exceeded(w.conditions, m.FilterMaxConditions, "filter conditions", "filter_max_conditions")
}

// strictWalk goes through a filter.
type strictWalk struct {
	collection *collection
	limits     *vectord.StrictMode
	unindexed  string // the setting that asks for payload indexes; "" if none does
	conditions int    // so far
}

func (w *strictWalk) filter(f *vectord.Filter, scope string) error {
	lists := [][]vectord.Condition{f.Must, f.Should, f.MustNot}
	if f.MinShould != nil {
		lists = append(lists, f.MinShould.Conditions)
	}
	for _, list := range lists {
		for i := range list {
			if err := w.condition(&list[i], scope); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *strictWalk) condition(c *vectord.Condition, scope string) error {
	switch {
	case c.Filter != nil:
		return w.filter(c.Filter, scope)
	case c.Nested != nil:
		return w.filter(c.Nested.Filter, scope+nestedKey(c.Nested.Key)+"[].")
	}
	w.conditions++
	switch {
	case c.HasID != nil:
		return w.size(len(*c.HasID))
	case c.IsEmpty != "":
		return w.indexed(scope + c.IsEmpty)
	case c.IsNull != "":
		return w.indexed(scope + c.IsNull)
	case c.Field == nil:
		return nil
	}
	return firstError(w.size(sizeOf(c.Field)), w.indexed(scope+c.Field.Key, suitable(c.Field)...))
}

func nestedKey(key string) string {
	if len(key) > 2 && key[len(key)-2:] == "[]" {
		return key[:len(key)-2]
	}
	return key
}

func (w *strictWalk) size(n int) error {
	return exceeded(n, w.limits.ConditionMaxSize, "condition size", "condition_max_size")
}

// sizeOf returns how much there is in a condition to look at: values of a list, points of a polygon.
func sizeOf(f *vectord.FieldCondition) (n int) {
	if m := f.Match; m != nil {
		for _, list := range []*[]vectord.Scalar{m.Any, m.Except} {
			if list != nil {
				n += len(*list)
			}
		}
	}
	if p := f.GeoPolygon; p != nil {
		n += len(p.Exterior)
		for _, interior := range p.Interiors {
			n += len(interior)
		}
	}
	return n
}

// suitable returns the types of payload index that serve a condition; none for any.
func suitable(f *vectord.FieldCondition) []vectord.FieldType {
	switch {
	case f.Range != nil:
		return []vectord.FieldType{vectord.FieldInteger, vectord.FieldFloat}
	case f.Datetime != nil:
		return []vectord.FieldType{vectord.FieldDatetime}
	case f.GeoBox != nil, f.GeoRadius != nil, f.GeoPolygon != nil:
		return []vectord.FieldType{vectord.FieldGeo}
	case f.Match == nil:
		return nil
	}
	var one *vectord.Scalar
	switch m := f.Match; {
	case m.Text != nil, m.TextAny != nil, m.Phrase != nil:
		return []vectord.FieldType{vectord.FieldText}
	case m.Prefix != nil:
		return []vectord.FieldType{vectord.FieldKeyword}
	case m.Value != nil:
		one = m.Value
	case m.Any != nil && len(*m.Any) > 0:
		one = &(*m.Any)[0]
	case m.Except != nil && len(*m.Except) > 0:
		one = &(*m.Except)[0]
	default:
		return nil
	}
	switch one.Kind {
	case vectord.ScalarInt:
		return []vectord.FieldType{vectord.FieldInteger}
	case vectord.ScalarBool:
		return []vectord.FieldType{vectord.FieldBool}
	}
	return []vectord.FieldType{vectord.FieldKeyword, vectord.FieldUUID}
}

// indexed returns an error if the path needs a payload index, of one of the types if there are some, and has none.
func (w *strictWalk) indexed(name string, types ...vectord.FieldType) error {
	if w.unindexed == "" {
		return nil
	}
	p, err := parsePath(name)
	if err != nil {
		return err
	}
	key := p.String()
	for _, d := range w.collection.fields {
		if d.key != key {
			continue
		}
		if len(types) == 0 {
			return nil
		}
		for _, t := range types {
			if d.Schema.Type == t {
				return nil
			}
		}
	}
	of := ""
	if len(types) > 0 {
		of = fmt.Sprintf(" of one of the following types: %v", types)
	}
	return vectord.Errorf(vectord.KindLimited, "Index required but not found for %q%s: the collection's %s is false", name, of, w.unindexed)
}

// checkStrictWrite checks the operations of a write.
func (db *DB) checkStrictWrite(ctx context.Context, c *collection, ops []vectord.Operation) error {
	m := c.strict()
	if m == nil {
		return nil
	}
	if err := checkTimeout(ctx, m); err != nil {
		return err
	}
	grows := false
	for i := range ops {
		op := &ops[i]
		err := firstError(c.checkFilter(op.Filter, m.UnindexedFilteringUpdate, "unindexed_filtering_update"),
			c.checkFilter(op.UpdateFilter, m.UnindexedFilteringUpdate, "unindexed_filtering_update"),
			exceeded(len(op.Points), m.UpsertMaxBatchSize, "upsert limit", "upsert_max_batchsize"),
			checkStrictVectors(m, op.Points))
		if err == nil && op.Kind == vectord.OpUpsert && m.MaxPointsCount != nil {
			err = db.checkPointsCount(c, op.Points, *m.MaxPointsCount)
		}
		if err != nil {
			return err
		}
		switch op.Kind {
		case vectord.OpUpsert, vectord.OpUpdateVectors, vectord.OpSetPayload, vectord.OpOverwritePayload:
			grows = true
		}
	}
	if grows {
		if err := c.checkSizes(m); err != nil {
			return err
		}
	}
	if m.WriteRateLimit == nil {
		return nil
	}
	return db.limiters.take(limiterKey{c.id, true}, *m.WriteRateLimit, len(ops), time.Now())
}

func checkStrictVectors(m *vectord.StrictMode, points []vectord.Point) error {
	for i := range points {
		for j := range points[i].Vectors {
			v := &points[i].Vectors[j]
			var err error
			switch v.Kind {
			case vectord.MultiVector:
				err = exceeded(v.Rows, m.Multivector[v.Name].MaxVectors, "multivector", "multivector_config.max_vectors")
			case vectord.SparseVector:
				err = exceeded(len(v.Indices), m.Sparse[v.Name].MaxLength, "sparse vector", "sparse_config.max_length")
			}
			if err != nil {
				return fmt.Errorf("%w (points[%d], id %s)", err, i, points[i].ID)
			}
		}
	}
	return nil
}

// checkPointsCount counts the points that would be new only where all of them would be too many.
func (db *DB) checkPointsCount(c *collection, points []vectord.Point, limit int64) error {
	count := int64(0)
	for _, s := range c.shards {
		count += s.points.Load()
	}
	if count+int64(len(points)) <= limit {
		return nil
	}
	for i := range points {
		_, ok, err := db.store.Point(c.shardOf(points[i].ID).id, points[i].ID)
		if err != nil {
			return err
		}
		if !ok {
			count++
		}
	}
	return exceeded(count, &limit, "points", "max_points_count")
}

// checkSizes refuses writes that add to a collection which has reached its sizes.
func (c *collection) checkSizes(m *vectord.StrictMode) error {
	reached := func(size int64, limit *int64, what, setting string) error {
		if limit == nil || size < *limit {
			return nil
		}
		return vectord.Errorf(vectord.KindLimited, "Max %s storage size limit of %d bytes reached, there are %d: the collection's %s forbids more", what, *limit, size, setting)
	}
	vectors, payload := c.sizes()
	return firstError(reached(vectors, m.MaxVectorSizeBytes, "vector", "max_collection_vector_size_bytes"),
		reached(payload, m.MaxPayloadSizeBytes, "payload", "max_collection_payload_size_bytes"))
}

// sizes returns about how many bytes the vectors and the payloads of a collection are: as they were given, but for what a
// start found of payloads, multivectors and sparse vectors, which counts as it is on disk.
func (c *collection) sizes() (vectors, payload int64) {
	for _, s := range c.shards {
		payload += max(s.payload.Load(), 0)
		for _, v := range *s.vectors.Load() {
			if spec := c.specOf(v.number); spec != nil && spec.kind == vectord.DenseVector {
				vectors += int64(v.dense.waiting()+v.dense.indexed()) * int64(4*spec.dim)
			} else {
				vectors += v.size.bytes.Load()
			}
		}
	}
	return vectors, payload
}

// loadSizes takes what storage has of a shard on disk for what has been given it so far. live are the slots that have vectors,
// by number.
func (db *DB) loadSizes(s *shard, live map[uint16]*roaring.Bitmap) error {
	payload, err := db.store.PointBytes(s.id)
	if err != nil {
		return err
	}
	s.payload.Store(payload)
	for _, v := range *s.vectors.Load() {
		bytes, err := db.store.VectorBytes(storage.VectorSet{Shard: s.id, Number: v.number})
		if err != nil {
			return err
		}
		v.size.bytes.Store(bytes)
		v.size.count.Store(int64(live[v.number].GetCardinality()))
	}
	return nil
}

// vectorSize is about how many bytes vectors of unequal lengths are. What is removed counts as long as the others are.
type vectorSize struct{ bytes, count atomic.Int64 }

// add and remove are called by Apply alone.
func (s *vectorSize) add(v *vectord.Vector) {
	s.bytes.Add(int64(4 * (len(v.Values) + len(v.Indices))))
	s.count.Add(1)
}

func (s *vectorSize) remove() {
	if n := s.count.Load(); n > 0 {
		s.bytes.Add(-s.bytes.Load() / n)
		s.count.Add(-1)
	}
}

// checkIndexCount checks that one payload index more is allowed.
func (c *collection) checkIndexCount(name string) error {
	m := c.strict()
	if m == nil || c.fieldByName(name) != nil {
		return nil
	}
	return exceeded(len(c.fields)+1, m.MaxPayloadIndexCount, "payload indexes", "max_payload_index_count")
}
