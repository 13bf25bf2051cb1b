// Package engine keeps points, their vectors' index and the caches of a node in step: it applies the log's commands and
// answers reads.
//
// Everything that changes state is a command in the log (Log), proposed by Write and the collection methods and applied
// by Apply, in one goroutine, each batch in one atomic commit. Points in storage are the truth; the slot tables, indexes,
// filter caches and the hot set are derived from them and may be dropped at any time.
//
// Lock order: shard.applying before fieldIndexes.mu before vectorIndex.mu, filterCache.mu and querySample.mu, which nobody
// holds together; catalog.mu and snapshots.mu are held alone. memoryLocks come before all of them.
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
	Embedders    []Embedder            // models that make dense vectors of texts
	Machine      Machine               // whose commands go through the same log; nil: there is none
	Logger       *slog.Logger          // nil: slog.Default()
	Metrics      prometheus.Registerer // nil: none
	// Replicated says that other nodes apply the same log, which keeps its entries on the disk: commits do not wait for that,
	// what the DB proposes by itself comes from the node that leads (see Lead), and nothing passes the log by.
	Replicated bool

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
	shapes  *shapes
	hot     *hotSet
	budget  *budget
	workers *workerTokens
	metrics *metrics
	machine Machine

	replicated bool
	leading    atomic.Bool

	embedders map[string]Embedder // by name in lower case
	now       func() int64        // milliseconds since the Unix epoch; tests have clocks of their own

	snapshots   snapshots
	limiters    limiters
	memoryLocks *memoryLocks

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
	db := &DB{store: store, logger: o.Logger, machine: o.Machine, replicated: o.Replicated, catalog: newCatalog(), shapes: newShapes(), embedders: map[string]Embedder{}, hot: newHotSet(0), applied: map[uint32]storage.Applied{},
		now:         func() int64 { return time.Now().UnixMilli() },
		memoryLocks: newMemoryLocks(),
		workers:     newWorkerTokens(o.IndexWorkers), fieldTick: make(chan struct{}),
		snapshots: snapshots{dir: snapshotDir{o.SnapshotDir}, fetch: o.FetchSnapshot, slots: make(chan struct{}, snapshotOperationsMax),
			imported: map[uint32]*shard{}}}
	for _, e := range o.Embedders {
		db.embedders[strings.ToLower(e.Name())] = e
	}
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
	stored, err := db.lookAround()
	if err != nil {
		return err
	}
	aliases := map[string]string{}
	err = db.store.ScanMeta(func(key string, value []byte) error {
		var err error
		switch {
		case key == metaCounters:
			err = json.Unmarshal(value, &db.catalog.next)
		case strings.HasPrefix(key, metaCollectionPrefix):
			err = db.loadCollection(value, stored)
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
	if err := db.removeOrphans(stored); err != nil {
		return err
	}
	return db.snapshots.dir.clean()
}

// stored is what there is on disk of shards. Most of very many collections are empty, and a look at each would make a long
// start of it.
type stored struct {
	files []string        // derived ones
	rows  map[uint32]bool // shards that have a row
	any   map[uint32]bool // shards that have a row or a file
}

func (db *DB) lookAround() (*stored, error) {
	s := &stored{rows: map[uint32]bool{}, any: map[uint32]bool{}}
	err := db.store.ScanApplied(func(group uint32, a storage.Applied) error {
		db.applied[group] = a
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = db.store.ShardsWithRows(func(shard uint32) error {
		s.rows[shard], s.any[shard] = true, true
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.files, err = db.store.ListFiles(); err != nil {
		return nil, err
	}
	for _, name := range s.files {
		if set, ok := derivedSet(name); ok {
			s.any[set.Shard] = true
		}
	}
	return s, nil
}

// loadCollection brings up a collection from its entry in the catalog.
func (db *DB) loadCollection(value []byte, stored *stored) error {
	var m struct {
		collectionMeta
		Config  json.RawMessage `json:"config"` // these two are most of the entry, and those of many collections are equal
		Numbers json.RawMessage `json:"vector_numbers"`
	}
	if err := json.Unmarshal(value, &m); err != nil {
		return err
	}
	shape, err := db.shapes.decode(m.Config, m.Numbers)
	if err != nil {
		return fmt.Errorf("collection %q: %w", m.Name, err)
	}
	c, err := m.collection(shape)
	if err != nil {
		return fmt.Errorf("collection %q: %w", m.Name, err)
	}
	db.addShards(c, m.Shards)
	db.catalog.put(c)
	for _, s := range c.shards {
		applied := db.applied[s.group].Index
		if !stored.any[s.id] {
			s.empty(applied)
			s.fields.follow(c.fields)
			s.fields.release()
			continue
		}
		if err := db.loadShard(s, c, applied); err != nil {
			return fmt.Errorf("load shard %d of collection %q: %w", s.id, c.name, err)
		}
		s.used = true
		db.catalog.use(c.id)
	}
	return nil
}

// collectionOf makes a collection without shards.
func (db *DB) collectionOf(m collectionMeta) (*collection, error) {
	shape, err := db.shapes.of(m.Config, m.Numbers)
	if err != nil {
		return nil, err
	}
	return m.collection(shape)
}

// collection makes a collection without shards.
func (m *collectionMeta) collection(shape *shape) (*collection, error) {
	c := &collection{id: m.ID, name: m.Name, shape: shape, nextNumber: m.NextNumber, nextField: m.NextField}
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
	c, err := db.collectionOf(m)
	if err != nil {
		return nil, err
	}
	db.addShards(c, m.Shards)
	return c, nil
}

func (db *DB) addShards(c *collection, shards []shardMeta) {
	c.shards = make([]*shard, len(shards))
	for i, sm := range shards {
		c.shards[i] = db.newShard(sm, c)
	}
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
	if err := db.loadSizes(s, live); err != nil {
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
	s := &shard{id: m.ID, group: m.Group}
	vectors := make([]*shardVectors, len(c.specs))
	for i, spec := range c.specs {
		vectors[i] = db.newShardVectors(s, spec)
	}
	s.vectors.Store(&vectors)
	return s
}

func (db *DB) newVectorIndex(s *shard, spec *vectorSpec) *vectorIndex {
	x := &vectorIndex{id: db.lastIndex.Add(1), set: storage.VectorSet{Shard: s.id, Number: spec.number}, vectors: db.store,
		files: storeFiles{db.store}, feed: &s.feed, through: &s.through, applying: &s.applying, budget: db.budget, workers: db.workers,
		log: db.logger, metrics: &db.metrics.indexMetrics, distance: spec.distance, dim: spec.dim, compare: spec.compare(),
		fresh: index.NewFlat(spec.distance, spec.dim), node: db.stop, stop: db.stop}
	x.follow(spec)
	x.savedAt.Store(time.Now().UnixMilli())
	return x
}

// removeOrphans removes derived files of shards that are no more, and rows of those that a recovery added, or replaced,
// when it was interrupted.
func (db *DB) removeOrphans(stored *stored) error {
	sets, shards := map[storage.VectorSet]bool{}, map[uint32]bool{}
	for _, c := range db.catalog.all() {
		for _, s := range c.shards {
			shards[s.id] = true
			for _, spec := range c.specs {
				sets[storage.VectorSet{Shard: s.id, Number: spec.number}] = true
			}
		}
	}
	for _, name := range stored.files {
		if set, ok := derivedSet(name); ok && !sets[set] {
			if err := db.store.RemoveFile(name); err != nil {
				return err
			}
		}
	}
	for shard := range stored.rows {
		if !shards[shard] {
			if err := db.dropRows(shard, 1); err != nil {
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

// Checkpoint writes the state as of the last Apply into the folder dir, which it creates on the file system of the data
// directory. It is called by the goroutine that calls Apply.
func (db *DB) Checkpoint(dir string) error { return db.store.Checkpoint(dir) }

// Lead says whether this node is the one that has expired points removed and payload indexes built. That of a DB which is not
// replicated always is.
func (db *DB) Lead(leading bool) {
	db.leading.Store(leading)
	db.fieldChanges.send()
}

// Start begins to serve with the log that applies its entries to this DB.
func (db *DB) Start(log Log) {
	db.log = log
	db.leading.Store(!db.replicated)
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

// eachShard calls fn for the shards of the collections in use; those of others hold nothing and have nothing to do.
func (db *DB) eachShard(fn func(*shard)) {
	for _, c := range db.catalog.inUse() {
		for _, s := range c.shards {
			fn(s)
		}
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
			if spec := c.specOf(x.set.Number); spec != nil { // else it was named later
				x.follow(spec)
				x.kick()
			}
		}
	}
}

// release frees what a dropped collection held in memory and in derived files. Its rows went with the commit.
func (db *DB) release(c *collection) {
	db.background.Add(1)
	go func() {
		defer db.background.Done()
		db.limiters.drop(c.id)
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
