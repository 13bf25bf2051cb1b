// Package engine keeps points, their vectors' index and the caches of a node in step: it applies the log's commands and
// answers reads.
//
// Everything that changes state is a command in the log (Log), proposed by Write and the collection methods and applied
// by Apply, in one goroutine, each batch in one atomic commit. Points in storage are the truth; the slot tables, indexes,
// filter caches and the hot set are derived from them and may be dropped at any time.
//
// Lock order: shard.applying before fieldIndexes.mu before vectorIndex.mu, filterCache.mu and querySample.mu, which nobody
// holds together; catalog.mu and snapshots.mu are held alone.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

	SnapshotDir string // where snapshots are kept, created with the first; empty: none are
	// FetchSnapshot reads a snapshot from a http: or https: URL that a request names; nil: that is refused.
	FetchSnapshot func(ctx context.Context, location, apiKey string) (io.ReadCloser, error)
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

	snapshots snapshots

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
		workers: newWorkerTokens(o.IndexWorkers), fieldTick: make(chan struct{}),
		snapshots: snapshots{dir: snapshotDir{o.SnapshotDir}, fetch: o.FetchSnapshot, slots: make(chan struct{}, snapshotOperationsMax),
			imported: map[uint32]*shard{}}}
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
	if err := db.removeOrphans(); err != nil {
		return err
	}
	return db.snapshots.dir.clean()
}

func (db *DB) loadCollection(m collectionMeta) error {
	c, err := db.newCollection(m)
	if err != nil {
		return fmt.Errorf("collection %q: %w", m.Name, err)
	}
	for _, s := range c.shards {
		applied, err := db.store.Applied(s.group)
		if err == nil {
			db.applied[s.group] = applied
			err = db.loadShard(s, c, applied.Index)
		}
		if err != nil {
			return fmt.Errorf("load shard %d of collection %q: %w", s.id, c.name, err)
		}
	}
	db.catalog.put(c)
	return nil
}

// collectionOf makes a collection without shards.
func collectionOf(m collectionMeta) (*collection, error) {
	c := &collection{id: m.ID, name: m.Name, config: m.Config, numbers: m.Numbers, nextNumber: m.NextNumber, nextField: m.NextField}
	var err error
	if c.specs, err = specsOf(&c.config, c.numbers); err != nil {
		return nil, err
	}
	for _, fm := range m.Fields {
		d, err := newFieldDef(fm)
		if err != nil {
			return nil, fmt.Errorf("payload index on %q: %w", fm.Name, err)
		}
		c.fields = append(c.fields, d)
	}
	return c, nil
}

// newCollection makes a collection whose shards are still to be loaded.
func (db *DB) newCollection(m collectionMeta) (*collection, error) {
	c, err := collectionOf(m)
	if err != nil {
		return nil, err
	}
	for _, sm := range m.Shards {
		c.shards = append(c.shards, db.newShard(sm, c))
	}
	return c, nil
}

// loadShard brings up a shard of which the log has been applied up to an index.
func (db *DB) loadShard(s *shard, c *collection, applied uint64) error {
	s.through.Store(applied)
	live := map[uint16]*roaring.Bitmap{} // by number of the vectors
	for _, spec := range c.specs {
		live[spec.number] = roaring.New()
	}
	err := db.store.ScanSlots(s.id, func(slot uint32, row storage.SlotRow) error {
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
	s.filters.from = applied
	if err := s.fields.load(db.store, s.id, c.fields); err != nil {
		return err
	}
	for _, v := range *s.vectors.Load() {
		if v.sparse != nil {
			err = v.sparse.load(db.store.Reader, storage.VectorSet{Shard: s.id, Number: v.number})
		} else {
			err = db.loadDense(v, live[v.number], applied)
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

// removeOrphans removes derived files of shards that are no more, and rows of those that a recovery added, or replaced,
// when it was interrupted.
func (db *DB) removeOrphans() error {
	names, err := db.store.ListFiles()
	if err != nil {
		return err
	}
	known := map[storage.VectorSet]bool{}
	db.eachIndex(func(x *vectorIndex) { known[x.set] = true })
	shards := map[uint32]bool{}
	db.eachShard(func(s *shard) { shards[s.id] = true })
	for _, name := range names {
		if set, ok := derivedSet(name); ok && !known[set] {
			if err := db.store.RemoveFile(name); err != nil {
				return err
			}
		}
	}
	var orphans []uint32
	err = db.store.ShardsWithRows(func(shard uint32) error {
		if !shards[shard] {
			orphans = append(orphans, shard)
		}
		return nil
	})
	for _, shard := range orphans {
		err = errors.Join(err, db.dropRows(shard, 1))
	}
	return err
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
	db.closeSnapshots()
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
			if err := db.releaseRetired(time.Now()); err != nil {
				db.logger.Error("drop what was replaced by a snapshot", "error", err)
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
	count := func(s *shard) {
		heap += s.slots.memoryBytes() + s.expiry.memoryBytes() + s.fields.memoryBytes()
		for _, v := range *s.vectors.Load() {
			if v.sparse != nil {
				heap += v.sparse.MemoryBytes()
				continue
			}
			heap += v.dense.fresh.MemoryBytes()
			outside += v.dense.graphBytes()
		}
	}
	db.eachShard(count)
	db.eachRetired(count)
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
