// Package engine keeps points, their vectors' index and the caches of a node in step: it applies the log's commands and
// answers reads.
//
// Everything that changes state is a command in the log (Log), proposed by Write and the collection methods and applied
// by Apply, in one goroutine, each batch in one atomic commit. Points in storage are the truth; the slot tables, indexes,
// filter caches and the hot set are derived from them and may be dropped at any time.
//
// Lock order: shard.applying before fieldIndexes.mu before vectorIndex.mu, filterCache.mu and querySample.mu, which nobody
// holds together; catalog.mu is held alone.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
	"github.com/vectord/vectord/storage"
)

// Log puts commands in one order and has every replica apply them. Propose returns once the command is applied and
// durable; with an error the outcome is unknown unless the error's kind says that the command was not taken.
type Log interface {
	Propose(ctx context.Context, group uint32, command []byte) (vectord.Result, error)
}

// Options configure Open.
type Options struct {
	MemoryLimit  int64                 // bytes for everything; 0: none
	SetHeapLimit func(bytes int64)     // told what of MemoryLimit is the Go heap's, as it changes; nil: nobody is
	IndexWorkers int                   // goroutines that build graphs; 0: one a core
	Logger       *slog.Logger          // nil: slog.Default()
	Metrics      prometheus.Registerer // nil: none
}

// maintenanceInterval is how often memory is measured and idle shards are looked after.
const maintenanceInterval = time.Second

// DB is the engine of one node. Its methods may be called from any goroutine, Apply from the log's alone.
type DB struct {
	store   *storage.Store
	log     Log // set by Start
	logger  *slog.Logger
	catalog *catalog
	hot     *hotSet
	budget  *budget
	workers *workerTokens
	metrics *metrics

	now func() int64 // milliseconds since the Unix epoch; tests have clocks of their own

	applied map[uint32]storage.Applied // by group; Apply's own

	lastIndex atomic.Uint32 // id of the vectorIndex made last
	searching atomic.Int64  // searches running
	sampled   atomic.Int64  // bytes of queries kept to measure recall with
	pass      *recallPass   // the measurement under way, nil for none; holdRecall's own

	fieldChanges broadcast     // payload indexes were created, dropped or made ready
	fieldTick    chan struct{} // maintenance lets builds of payload indexes be tried again

	started    atomic.Bool
	stop       context.Context // ends background work
	cancel     context.CancelFunc
	background sync.WaitGroup
}

// Open loads what storage has. The caller closes the store after the DB.
func Open(store *storage.Store, o Options) (*DB, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.IndexWorkers <= 0 {
		o.IndexWorkers = runtime.GOMAXPROCS(0)
	}
	db := &DB{store: store, logger: o.Logger, catalog: newCatalog(), hot: newHotSet(0), applied: map[uint32]storage.Applied{},
		now:     func() int64 { return time.Now().UnixMilli() },
		workers: newWorkerTokens(o.IndexWorkers), fieldTick: make(chan struct{})}
	db.stop, db.cancel = context.WithCancel(context.Background())
	db.budget = newBudget(o.MemoryLimit, db.hot, db.memoryBytes, o.SetHeapLimit)
	db.metrics = newMetrics(db, o.Metrics)
	if err := db.load(); err != nil {
		db.cancel()
		db.background.Wait()
		return nil, err
	}
	db.budget.refresh()
	return db, nil
}

// load reads the catalog and brings up every shard.
func (db *DB) load() error {
	aliases := map[string]string{}
	err := db.store.ScanMeta(func(key string, value []byte) error {
		var err error
		switch {
		case key == metaCounters:
			err = json.Unmarshal(value, &db.catalog.next)
		case strings.HasPrefix(key, metaCollectionPrefix):
			var m collectionMeta
			if err = json.Unmarshal(value, &m); err == nil {
				err = db.loadCollection(m)
			}
		case strings.HasPrefix(key, metaAliasPrefix):
			var m aliasMeta
			err = json.Unmarshal(value, &m)
			aliases[strings.TrimPrefix(key, metaAliasPrefix)] = m.Collection
		default:
			err = errors.New("unknown key: a newer vectord wrote it")
		}
		if err != nil {
			return fmt.Errorf("catalog entry %q: %w", key, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	db.catalog.setAliases(aliases)
	if db.applied[metaGroup], err = db.store.Applied(metaGroup); err != nil {
		return err
	}
	return db.removeOrphans()
}

func (db *DB) loadCollection(m collectionMeta) error {
	c := &collection{id: m.ID, name: m.Name, config: m.Config, numbers: m.Numbers, nextNumber: m.NextNumber, nextField: m.NextField}
	var err error
	if c.specs, err = specsOf(&c.config, c.numbers); err != nil {
		return fmt.Errorf("collection %q: %w", m.Name, err)
	}
	for _, fm := range m.Fields {
		d, err := newFieldDef(fm)
		if err != nil {
			return fmt.Errorf("payload index on %q of collection %q: %w", fm.Name, m.Name, err)
		}
		c.fields = append(c.fields, d)
	}
	for _, sm := range m.Shards {
		s := db.newShard(sm, c)
		if err := db.loadShard(s, c); err != nil {
			return fmt.Errorf("load shard %d of collection %q: %w", s.id, c.name, err)
		}
		c.shards = append(c.shards, s)
	}
	db.catalog.put(c)
	return nil
}

func (db *DB) loadShard(s *shard, c *collection) error {
	applied, err := db.store.Applied(s.group)
	if err != nil {
		return err
	}
	db.applied[s.group] = applied
	s.through.Store(applied.Index)
	live := map[uint16]*roaring.Bitmap{} // by number of the vectors
	for _, spec := range c.specs {
		live[spec.number] = roaring.New()
	}
	err = db.store.ScanSlots(s.id, func(slot uint32, row storage.SlotRow) error {
		s.slots.set(slot, slotPoint{row.ID, row.Version})
		s.allocator.load(slot)
		s.points.Add(1)
		if row.Expires != 0 {
			s.expiry.set(slot, row.Expires)
		}
		s.fields.live.Add(slot)
		for _, number := range row.Vectors {
			if slots := live[number]; slots != nil {
				slots.Add(slot)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.filters.from = applied.Index
	if err := s.fields.load(db.store, s.id, c.fields); err != nil {
		return err
	}
	for _, v := range *s.vectors.Load() {
		if v.sparse != nil {
			err = v.sparse.load(db.store.Reader, storage.VectorSet{Shard: s.id, Number: v.number})
		} else {
			err = db.loadDense(v, live[v.number], applied.Index)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (db *DB) loadDense(v *shardVectors, live *roaring.Bitmap, applied uint64) error {
	ef, err := loadEf(v.dense.files, v.dense.set)
	if err != nil {
		db.logger.Warn("the number of candidates chosen for a shard cannot be read and is measured again", "of", v.dense.set, "error", err)
	}
	v.recall.ef.Store(int32(ef))
	return v.dense.load(live, applied)
}

// newShard makes a shard without points.
func (db *DB) newShard(m shardMeta, c *collection) *shard {
	s := &shard{id: m.ID, group: m.Group, allocator: newAllocator(), expiry: newExpiry(), fields: newFieldIndexes()}
	vectors := make([]*shardVectors, len(c.specs))
	for i, spec := range c.specs {
		vectors[i] = db.newShardVectors(s, spec)
	}
	s.vectors.Store(&vectors)
	return s
}

func (db *DB) newVectorIndex(s *shard, spec *vectorSpec) *vectorIndex {
	x := &vectorIndex{id: db.lastIndex.Add(1), set: storage.VectorSet{Shard: s.id, Number: spec.number}, vectors: db.store,
		files: storeFiles{db.store}, feed: &s.feed, through: &s.through, budget: db.budget, workers: db.workers,
		log: db.logger, metrics: &db.metrics.indexMetrics, distance: spec.distance, dim: spec.dim, compare: spec.compare(),
		fresh: index.NewFlat(spec.distance, spec.dim), cold: roaring.New(), moving: map[uint32]bool{}}
	x.stop, x.cancel = context.WithCancel(db.stop)
	x.follow(spec)
	x.savedAt.Store(time.Now().UnixMilli())
	return x
}

// removeOrphans removes derived files of shards that are no more.
func (db *DB) removeOrphans() error {
	names, err := db.store.ListFiles()
	if err != nil {
		return err
	}
	known := map[storage.VectorSet]bool{}
	db.eachIndex(func(x *vectorIndex) { known[x.set] = true })
	for _, name := range names {
		if set, ok := derivedSet(name); ok && !known[set] {
			if err := db.store.RemoveFile(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// storeFiles adds to the store what a checkpoint needs of the log of commits.
type storeFiles struct{ *storage.Store }

func (f storeFiles) SyncAndTrim(shard uint32, upTo uint64) error {
	b := f.NewBatch()
	b.TrimChanges(shard, upTo)
	durable, err := b.Commit()
	if err != nil {
		return err
	}
	return durable()
}

// LastApplied returns the index and the time of the last entry that was applied, for the log to go on from.
func (db *DB) LastApplied() (index uint64, timeMillis int64, err error) {
	last, err := db.store.LastApplied()
	return last.Index, last.Time, err
}

// Start begins to serve with the log that applies its entries to this DB.
func (db *DB) Start(log Log) {
	db.log = log
	db.started.Store(true)
	db.background.Add(4)
	go db.maintain()
	go db.sweep()
	go db.buildFields()
	go db.holdRecall()
	db.eachIndex((*vectorIndex).kick)
}

// Ready returns nil when requests can be served.
func (db *DB) Ready() error {
	if !db.started.Load() || db.stop.Err() != nil {
		return vectord.Errorf(vectord.KindClosed, "the server is starting or stopping")
	}
	return nil
}

// Close ends background work and writes the checkpoints that are due at a stop. The log must be closed before, the store
// after.
func (db *DB) Close() error {
	db.cancel()
	db.background.Wait()
	var errs []error
	db.eachIndex(func(x *vectorIndex) {
		x.halt()
		if x.unsaved.Load() > 0 {
			if err := x.checkpoint(); err != nil {
				errs = append(errs, err)
			}
		}
		x.close()
	})
	return errors.Join(errs...)
}

// maintain looks after what no request looks after.
func (db *DB) maintain() {
	defer db.background.Done()
	tick := time.NewTicker(maintenanceInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			db.budget.refresh()
			db.eachIndex((*vectorIndex).kick)
			select {
			case db.fieldTick <- struct{}{}:
			default: // it is building
			}
		case <-db.stop.Done():
			return
		}
	}
}

func (db *DB) eachShard(fn func(*shard)) {
	for _, s := range db.catalog.allShards() {
		fn(s)
	}
}

func (db *DB) eachVectors(fn func(*shardVectors)) {
	db.eachShard(func(s *shard) {
		for _, v := range *s.vectors.Load() {
			fn(v)
		}
	})
}

func (db *DB) eachIndex(fn func(*vectorIndex)) {
	db.eachVectors(func(v *shardVectors) {
		if v.dense != nil {
			fn(v.dense)
		}
	})
}

// memoryBytes returns what the shards hold on the Go heap and outside of it.
func (db *DB) memoryBytes() (heap, outside int64) {
	db.eachShard(func(s *shard) { heap += s.slots.memoryBytes() + s.expiry.memoryBytes() + s.fields.memoryBytes() })
	db.eachVectors(func(v *shardVectors) {
		if v.sparse != nil {
			heap += v.sparse.memoryBytes()
			return
		}
		heap += v.dense.fresh.MemoryBytes()
		outside += v.dense.graphBytes()
	})
	return heap + db.sampled.Load(), outside
}

// followConfig hands a changed configuration to the indexes.
func (db *DB) followConfig(c *collection) {
	for _, s := range c.shards {
		for _, x := range s.indexes() {
			x.follow(c.specOf(x.set.Number))
			x.kick()
		}
	}
}

// release frees what a dropped collection held in memory and in derived files. Its rows went with the commit.
func (db *DB) release(c *collection) {
	db.background.Add(1)
	go func() {
		defer db.background.Done()
		for _, s := range c.shards {
			for _, v := range *s.vectors.Load() {
				db.releaseVectors(v)
			}
		}
	}()
}

func (db *DB) releaseVectors(v *shardVectors) {
	if v.dense == nil {
		return
	}
	v.dense.close()
	v.recall.queries.close(&db.sampled)
	for _, name := range []string{checkpointName(v.dense.set), recallName(v.dense.set)} {
		if err := db.store.RemoveFile(name); err != nil {
			db.logger.Error("remove a file of dropped vectors", "name", name, "error", err)
		}
	}
}
