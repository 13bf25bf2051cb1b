package engine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

const (
	// snapshotOperationsMax bounds snapshots being made, received and recovered at the same time.
	snapshotOperationsMax = 4
	snapshotRetryAfter    = 5 * time.Second
	// retiredFor is how long a collection that was replaced stays readable for requests that found it before: longer than a
	// request may last. After that its rows go.
	retiredFor = 45 * time.Second
)

// snapshots is the part of a DB that makes and recovers snapshots.
//
// A snapshot is made from a frozen state of storage, while writes go on. To recover one, its file is read whole and
// checked; its rows are added under the numbers of new shards, which no collection has and no search sees; they are checked
// again as rows, and loaded; and a command in the log gives the collection's name to the new shards. A crash before that
// command leaves the old collection and rows of shards that nobody has, which the next start removes. The shards that were
// replaced serve those who search them already, and are dropped some time later.
type snapshots struct {
	dir   snapshotDir
	fetch func(ctx context.Context, location, apiKey string) (io.ReadCloser, error)
	slots chan struct{} // one for each operation

	mu       sync.Mutex // guards what is below
	closed   bool
	running  sync.WaitGroup    // operations; none is added once closed is set
	imported map[uint32]*shard // loaded, and about to be given to a collection
	retired  []retiredCollection
}

type retiredCollection struct {
	*collection
	since time.Time
}

// begin admits an operation, and returns the context it runs under and what ends it.
func (db *DB) beginSnapshot(ctx context.Context) (context.Context, func(), error) {
	s := &db.snapshots
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, vectord.Errorf(vectord.KindClosed, "the server is shutting down")
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return nil, nil, &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: snapshotRetryAfter,
			Text: fmt.Sprintf("more than %d snapshots are being made or recovered", snapshotOperationsMax)}
	}
	s.running.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(db.stop, func() { cancel(vectord.Errorf(vectord.KindClosed, "the server is shutting down")) })
	return ctx, func() {
		stop()
		cancel(nil)
		<-s.slots
		s.running.Done()
	}, nil
}

// closeSnapshots ends the operations, whose contexts have ended, and frees what was retired.
func (db *DB) closeSnapshots() {
	s := &db.snapshots
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.running.Wait()
	for _, r := range s.retired {
		for _, shard := range r.shards {
			shard.close()
		}
	}
}

// snapshotOwner returns the collection whose snapshots are meant: that of an alias, else of the name, of which there need
// not be a collection any more; the empty name is the node.
func (db *DB) snapshotOwner(name string) string {
	if c, err := db.catalog.resolve(name); err == nil {
		return c.name
	}
	return name
}

// CreateSnapshot writes a collection, or all that the node has if name is empty, as it is at one moment, to a file in the
// directory of snapshots. Reads and writes go on meanwhile.
func (db *DB) CreateSnapshot(ctx context.Context, name string) (vectord.Snapshot, error) {
	ctx, end, err := db.beginSnapshot(ctx)
	if err != nil {
		return vectord.Snapshot{}, err
	}
	defer end()
	if name != "" {
		c, err := db.catalog.resolve(name)
		if err != nil {
			return vectord.Snapshot{}, err
		}
		name = c.name
	}
	begin := time.Now()
	s, err := db.snapshots.dir.create(name, begin, func(w io.Writer) error { return db.writeArchive(ctx, w, name) })
	if err != nil {
		return vectord.Snapshot{}, err
	}
	db.logger.Info("snapshot made", "snapshot", s.Name, "bytes", s.Size, "took", time.Since(begin).String())
	return s, nil
}

// writeArchive writes the collection of a name, or all of them and the aliases if it is empty, to w.
func (db *DB) writeArchive(ctx context.Context, w io.Writer, only string) (err error) {
	state := db.store.NewSnapshot()
	defer func() { err = errors.Join(err, state.Close()) }()
	// What is frozen may not be on the disk yet. It has to be: a snapshot must not know what a power cut takes back.
	if err := db.store.Sync(); err != nil {
		return err
	}
	last, err := state.LastApplied()
	if err != nil {
		return err
	}
	head := archiveHead{Node: only == "", Index: last.Index, Time: last.Time}
	var metas [][]byte
	err = state.ScanMeta(func(key string, value []byte) error {
		switch {
		case strings.HasPrefix(key, metaCollectionPrefix):
			var m struct {
				Name string `json:"name"`
			}
			if err := json.Unmarshal(value, &m); err != nil {
				return fmt.Errorf("catalog entry %q: %w", key, err)
			}
			if only == "" || m.Name == only {
				metas = append(metas, bytes.Clone(value))
			}
		case strings.HasPrefix(key, metaAliasPrefix) && only == "":
			var m aliasMeta
			if err := json.Unmarshal(value, &m); err != nil {
				return fmt.Errorf("catalog entry %q: %w", key, err)
			}
			head.Aliases = append(head.Aliases, vectord.Alias{Name: strings.TrimPrefix(key, metaAliasPrefix), Collection: m.Collection})
		}
		return nil
	})
	if err != nil {
		return err
	}
	if only != "" && len(metas) == 0 {
		return noCollection(only) // deleted a moment ago
	}
	head.Collections = len(metas)
	a, err := newArchiveWriter(w, head)
	if err != nil {
		return err
	}
	for _, meta := range metas {
		if err := writeCollection(ctx, a, state.Reader, meta); err != nil {
			return err
		}
	}
	return a.end()
}

func writeCollection(ctx context.Context, a *archiveWriter, state storage.Reader, meta []byte) error {
	var m collectionMeta
	if err := json.Unmarshal(meta, &m); err != nil {
		return fmt.Errorf("catalog entry of a collection: %w", err)
	}
	if err := a.collection(meta); err != nil {
		return err
	}
	for i, s := range m.Shards {
		err := state.ExportShard(ctx, s.ID, func(key, value []byte) error { return a.row(uint32(i), key, value) })
		if err != nil {
			return err
		}
	}
	return nil
}

// Snapshots returns the snapshots of a collection, or of the node if name is empty, by name.
func (db *DB) Snapshots(name string) ([]vectord.Snapshot, error) {
	if name != "" {
		if _, err := db.catalog.resolve(name); err != nil {
			return nil, err
		}
	}
	return db.snapshots.dir.list(db.snapshotOwner(name))
}

// OpenSnapshot opens a snapshot of a collection, or of the node if name is empty, and returns its size. The caller closes
// it. It stays readable when it is deleted meanwhile.
func (db *DB) OpenSnapshot(name, snapshot string) (io.ReadCloser, int64, error) {
	file, size, err := db.snapshots.dir.openSnapshot(db.snapshotOwner(name), snapshot)
	if err != nil {
		return nil, 0, err // and not a nil file in an interface that is not
	}
	return file, size, nil
}

// DeleteSnapshot removes a snapshot of a collection, or of the node if name is empty.
func (db *DB) DeleteSnapshot(name, snapshot string) error {
	return db.snapshots.dir.remove(db.snapshotOwner(name), snapshot)
}

// RecoverSnapshot puts a collection of a snapshot in the place of the one called name, which is created if it does not
// exist: the one collection that the snapshot holds, or of a node's snapshot the one of that name. Searches find the old
// points until all of the new ones are there. A snapshot that is damaged, or of another checksum, changes nothing.
func (db *DB) RecoverSnapshot(ctx context.Context, name string, source vectord.SnapshotSource) error {
	if err := errors.Join(vectord.CheckCollectionName(name), vectord.CheckSnapshotChecksum(source.Checksum)); err != nil {
		return err
	}
	location, err := url.Parse(source.Location)
	if err != nil {
		return vectord.Errorf(vectord.KindInvalid, "location: %.200q is not a URL", source.Location)
	}
	switch location.Scheme {
	case "file":
		ctx, end, err := db.beginSnapshot(ctx)
		if err != nil {
			return err
		}
		defer end()
		file, size, err := db.snapshots.dir.openLocation(location)
		if err != nil {
			return err
		}
		return errors.Join(db.recoverFile(ctx, name, file, size, source.Checksum), file.Close())
	case "http", "https":
		if db.snapshots.fetch == nil {
			return vectord.Errorf(vectord.KindUnsupported, "location: this server fetches no URLs unless its operator allows them")
		}
		body, err := db.snapshots.fetch(ctx, source.Location, source.APIKey)
		if err != nil {
			return err
		}
		recoverIt, err := db.ReceiveSnapshot(ctx, name, body, source.Checksum)
		closeErr := body.Close() // of what has been read to its end, or not to be used
		if err != nil {
			return errors.Join(err, closeErr)
		}
		return recoverIt(ctx)
	}
	return vectord.Errorf(vectord.KindInvalid, "location: %.200q has scheme %q, expected file, http or https", source.Location, location.Scheme)
}

// ReceiveSnapshot copies a snapshot from content to the directory of snapshots and returns what recovers it, as
// RecoverSnapshot does, and removes it again. That is called once.
func (db *DB) ReceiveSnapshot(ctx context.Context, name string, content io.Reader, checksum string) (recoverIt func(context.Context) error, err error) {
	if err := errors.Join(vectord.CheckCollectionName(name), vectord.CheckSnapshotChecksum(checksum)); err != nil {
		return nil, err
	}
	ctx, end, err := db.beginSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	r, err := db.snapshots.dir.receive(ctx, content)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (err error) {
		defer func() { err = errors.Join(err, r.remove()) }()
		ctx, end, err := db.beginSnapshot(ctx)
		if err != nil {
			return err
		}
		defer end()
		file, size, err := r.open()
		if err != nil {
			return err
		}
		return errors.Join(db.recoverFile(ctx, name, file, size, checksum), file.Close())
	}, nil
}

// RestoreNode brings all collections and aliases of a node's snapshot into a node that has none, all at once.
func (db *DB) RestoreNode(ctx context.Context, path string) (err error) {
	ctx, end, err := db.beginSnapshot(ctx)
	if err != nil {
		return err
	}
	defer end()
	if n := len(db.catalog.all()); n > 0 {
		return vectord.Errorf(vectord.KindExists, "the node has %d collections, a node's snapshot is restored into an empty one", n)
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("open snapshot: %w", err)
	}
	return db.recoverFile(ctx, "", file, info.Size(), "")
}

// recovery is one snapshot on its way into the node.
type recovery struct {
	db    *DB
	name  string // of the collection to replace; empty: all of a node's
	file  io.ReadSeeker
	head  archiveHead
	bytes uint64 // of the wanted rows

	wanted []collectionMeta
	shards []*shard // of the wanted collections, loaded
	first  uint32   // the number of the first new shard
	count  int      // of new shards

	versionMax uint64 // the index of the entry that reserved them
}

// recoverFile recovers an archive of size bytes.
func (db *DB) recoverFile(ctx context.Context, name string, file io.ReadSeeker, size int64, checksum string) (err error) {
	begin := time.Now()
	if c, err := db.catalog.resolve(name); err == nil {
		name = c.name
	}
	if db.replicated {
		return vectord.Errorf(vectord.KindUnsupported,
			"a snapshot is recovered by a server of its own, which grows into a cluster afterwards: docs/CLUSTER.md tells how")
	}
	if err := db.budget.admit(); err != nil {
		return err
	}
	r := &recovery{db: db, name: name, file: file}
	if err := r.check(ctx, checksum); err != nil {
		return err
	}
	if free, ok := db.store.DiskAvailable(); ok && free < r.bytes+diskReserve {
		return vectord.Errorf(vectord.KindNoSpace, "the snapshot takes up to %d bytes, and %d are left on the disk, of which %d are kept free",
			r.bytes, free, diskReserve)
	}
	if err := r.reserve(ctx); err != nil {
		return err
	}
	if err := r.add(ctx); err != nil {
		return errors.Join(noSpace(err), r.discard())
	}
	if err := r.load(ctx); err != nil {
		return errors.Join(err, r.discard())
	}
	if err := r.replace(); err != nil {
		return err
	}
	db.logger.Info("snapshot recovered", "collections", len(r.wanted), "bytes", size, "points", r.points(), "took", time.Since(begin).String())
	return nil
}

func (r *recovery) points() (n int64) {
	for _, s := range r.shards {
		n += s.points.Load()
	}
	return n
}

// read reads the archive from its beginning. row is called for the rows of wanted collections, with the place of their
// shard among all of theirs.
func (r *recovery) read(ctx context.Context, from io.Reader, collection func(collectionMeta) (wanted bool, err error),
	row func(shard int, key, value []byte) error) (archiveHead, error) {
	var wanted bool
	first, next := 0, 0
	head, _, err := readArchive(ctx, from, archiveVisitor{
		collection: func(m collectionMeta) (err error) {
			wanted, err = collection(m)
			if wanted {
				first, next = next, next+len(m.Shards)
			}
			return err
		},
		row: func(shard int, key, value []byte) error {
			if !wanted {
				return nil
			}
			return row(first+shard, key, value)
		},
	})
	return head, err
}

// wants reports whether a collection of the archive is to be recovered. In the archive of one collection it is that one,
// whatever its name is.
func (r *recovery) wants(m collectionMeta) bool {
	return r.name == "" || m.Name == r.name || !r.head.Node
}

// check reads the archive whole, compares its checksum, and notes what is wanted of it. Nothing has changed after it.
func (r *recovery) check(ctx context.Context, checksum string) error {
	sum := sha256.New()
	from := io.TeeReader(r.file, sum)
	var all []collectionMeta
	var sizes []uint64
	head, err := r.read(ctx, from, func(m collectionMeta) (bool, error) {
		all = append(all, m)
		sizes = append(sizes, 0)
		return true, checkRecovered(m)
	}, func(_ int, key, value []byte) error {
		sizes[len(sizes)-1] += uint64(len(key) + len(value))
		return nil
	})
	if checksum != "" {
		// What is left of a damaged file is read as well: that it is not the file that was meant says more.
		if _, err := io.Copy(io.Discard, &contextReader{ctx, from}); err != nil {
			return fmt.Errorf("read snapshot: %w", err)
		}
		if found := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(found, checksum) {
			return vectord.Errorf(vectord.KindInvalid, "the snapshot's checksum is %s, expected %s", found, strings.ToLower(checksum))
		}
	}
	if err != nil {
		return err
	}
	r.head = head
	if r.name == "" && !head.Node {
		return vectord.Errorf(vectord.KindInvalid, "the snapshot holds one collection, expected a node's")
	}
	for i, m := range all {
		if !r.wants(m) {
			continue
		}
		if r.name != "" {
			m.Name = r.name
		}
		r.wanted = append(r.wanted, m)
		r.bytes += sizes[i]
		r.count += len(m.Shards)
	}
	if r.name != "" && len(r.wanted) == 0 {
		return vectord.Errorf(vectord.KindNotFound, "the snapshot, of a node, has no collection `%s`", r.name)
	}
	return nil
}

// checkRecovered refuses a collection that could not have been created here.
func checkRecovered(m collectionMeta) error {
	if err := errors.Join(vectord.CheckCollectionName(m.Name), m.Config.Validate(), checkPayload("metadata", m.Config.Metadata)); err != nil {
		return damagedArchive("collection `%.300s`: %v", m.Name, err)
	}
	if len(m.Shards) != m.Config.Params.ShardNumber {
		return damagedArchive("collection `%s` has %d shards and is configured to have %d", m.Name, len(m.Shards), m.Config.Params.ShardNumber)
	}
	return nil
}

// reserve takes numbers for the new shards from the catalog, which gives each one once.
func (r *recovery) reserve(ctx context.Context) error {
	command, err := encodeCatalogCommand(commandReserveShards, reserveShards{Count: r.count})
	if err != nil {
		return err
	}
	result, err := r.db.log.Propose(ctx, metaGroup, command)
	if err != nil {
		return err
	}
	if result.Err != nil {
		return result.Err
	}
	first, ok := result.Value.(uint32)
	if !ok {
		return fmt.Errorf("reserve shards: the log answered with %v", result.Value)
	}
	r.first = first
	next := first
	for i := range r.wanted {
		m := &r.wanted[i]
		m.ID = 0
		for j := range m.Shards {
			m.Shards[j] = shardMeta{ID: next, Group: next}
			next++
		}
	}
	r.versionMax = result.Index
	return nil
}

// add adds the rows of the wanted collections under their new shards. Their versions are at most that of the entry that
// reserved the shards, so that every write to come has a greater one.
func (r *recovery) add(ctx context.Context) (err error) {
	if _, err := r.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	in := r.db.store.NewImport(r.versionMax)
	defer func() { err = errors.Join(err, in.Close()) }()
	_, err = r.read(ctx, r.file, func(m collectionMeta) (bool, error) { return r.wants(m), nil },
		func(shard int, key, value []byte) error {
			if shard >= r.count {
				return damagedArchive("it changed while it was read")
			}
			return in.Add(r.first+uint32(shard), key, value)
		})
	if err != nil {
		return err
	}
	return in.Commit()
}

// load checks the new shards' rows against one another and the configuration, and makes them ready to serve.
func (r *recovery) load(ctx context.Context) error {
	for i := range r.wanted {
		m := &r.wanted[i]
		c, err := r.db.newCollection(*m)
		if err != nil {
			return damagedArchive("collection `%s`: %v", m.Name, err)
		}
		r.shards = append(r.shards, c.shards...)
		for _, s := range c.shards {
			if err := r.db.checkShard(ctx, c, s); err != nil {
				return err
			}
			if err := r.db.loadShard(s, c, 0); err != nil {
				return fmt.Errorf("load recovered shard %d: %w", s.id, err)
			}
		}
	}
	return nil
}

// checkShard refuses rows that no sequence of writes could have made: the checksums of an archive say that it is what was
// written, and not who wrote it.
func (db *DB) checkShard(ctx context.Context, c *collection, s *shard) error {
	report, err := db.store.VerifyShard(ctx, s.id)
	if err != nil {
		return err
	}
	if report.ProblemCount > 0 {
		return damagedArchive("%d of its rows do not belong together: %s", report.ProblemCount, report.Problems[0])
	}
	var wrong error
	err = db.store.ScanPoints(s.id, nil, func(id vectord.PointID, row storage.PointRow) (bool, error) {
		if wrong = checkPayload("payload of point "+id.String(), row.Payload); wrong == nil && c.shardOf(id) != s {
			wrong = fmt.Errorf("point %s is in another shard than its own", id)
		}
		return wrong == nil, context.Cause(ctx)
	})
	for _, spec := range c.specs {
		if err == nil && wrong == nil {
			wrong, err = db.checkStored(ctx, s, spec)
		}
	}
	if wrong != nil {
		return damagedArchive("%v", wrong)
	}
	return err
}

// checkStored returns what is wrong with a stored vector, if anything is.
func (db *DB) checkStored(ctx context.Context, s *shard, spec *vectorSpec) (wrong, err error) {
	check := func(v vectord.Vector) error {
		if wrong = v.Check(spec.name, spec.kind, spec.dim); wrong != nil {
			return errEnough
		}
		return context.Cause(ctx)
	}
	set := storage.VectorSet{Shard: s.id, Number: spec.number}
	if spec.kind == vectord.SparseVector {
		err = db.store.ScanSparse(set, func(_ uint32, indices []uint32, values []float32) error {
			return check(vectord.Vector{Kind: spec.kind, Indices: indices, Values: values})
		})
	} else {
		err = db.store.ScanVectors(set, func(_ uint32, values []float32) error {
			v := vectord.Vector{Kind: spec.kind, Values: values}
			if spec.kind == vectord.MultiVector {
				v.Rows = len(values) / spec.dim
			}
			return check(v)
		})
	}
	if wrong != nil {
		err = nil
	}
	return wrong, err
}

// errEnough ends a scan that has found what it looked for.
var errEnough = errors.New("enough")

// replace proposes that the new shards take the place of the old ones. It waits for the outcome, however long: what was
// proposed cannot be taken back.
func (r *recovery) replace() error {
	r.db.snapshots.keep(r.shards)
	body := replaceCollections{Collections: r.wanted}
	if r.name == "" {
		body.Aliases = r.head.Aliases
	}
	command, err := encodeCatalogCommand(commandReplaceCollections, body)
	if err != nil {
		return errors.Join(err, r.discard())
	}
	result, err := r.db.log.Propose(context.Background(), metaGroup, command)
	switch kind := vectord.KindOf(err); {
	case err == nil && result.Err == nil:
		return nil
	case err == nil:
		return errors.Join(result.Err, r.discard())
	case kind == vectord.KindOverloaded, kind == vectord.KindTooLarge, kind == vectord.KindClosed:
		return errors.Join(err, r.discard())
	}
	return err // the log has failed, and the process ends; the next start finds out what became of it
}

// discard frees the new shards, which no collection has, and removes their rows.
func (r *recovery) discard() error {
	r.db.snapshots.forget(r.shards)
	for _, s := range r.shards {
		s.close()
	}
	return r.db.dropRows(r.first, r.count)
}

// dropRows removes what there is of shards that no collection has. Such rows are not part of the state that replicas
// share: each has removed them when it gets to it, at its next start at the latest.
func (db *DB) dropRows(first uint32, count int) error {
	b := db.store.NewBatch()
	for i := range count {
		b.DropShard(first + uint32(i))
	}
	return b.CommitUnsynced()
}

// keep holds loaded shards for Apply to give to their collection.
func (s *snapshots) keep(shards []*shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, shard := range shards {
		s.imported[shard.id] = shard
	}
}

func (s *snapshots) forget(shards []*shard) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, shard := range shards {
		delete(s.imported, shard.id)
	}
}

// take returns a kept shard and keeps it no longer.
func (s *snapshots) take(id uint32) *shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	shard := s.imported[id]
	delete(s.imported, id)
	return shard
}

// retire keeps a collection that was replaced for those who found it before.
func (db *DB) retire(c *collection) {
	for _, s := range c.shards {
		for _, x := range s.indexes() {
			x.end() // no more work for its graph; searches go on
		}
	}
	db.snapshots.mu.Lock()
	defer db.snapshots.mu.Unlock()
	db.snapshots.retired = append(db.snapshots.retired, retiredCollection{c, time.Now()})
}

// releaseRetired drops the collections that were retired long enough before now.
func (db *DB) releaseRetired(now time.Time) error {
	s := &db.snapshots
	s.mu.Lock()
	var due []*collection
	for len(s.retired) > 0 && now.Sub(s.retired[0].since) >= retiredFor {
		due = append(due, s.retired[0].collection)
		s.retired = s.retired[1:]
	}
	s.mu.Unlock()
	for _, c := range due {
		for _, shard := range c.shards {
			if err := db.dropRows(shard.id, 1); err != nil {
				return err
			}
		}
		db.release(c)
	}
	return nil
}

// eachRetired calls fn for the shards of retired collections.
func (db *DB) eachRetired(fn func(*shard)) {
	db.snapshots.mu.Lock()
	retired := slices.Clone(db.snapshots.retired)
	db.snapshots.mu.Unlock()
	for _, c := range retired {
		for _, s := range c.shards {
			fn(s)
		}
	}
}

// reserveShards answers with the first of Count numbers of shards, which nobody else is given.
func (a *applier) reserveShards(c reserveShards) (value any, refusal, err error) {
	cat := a.db.catalog
	if c.Count < 0 || uint64(cat.next.Shard)+uint64(c.Count) > math.MaxUint32 {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%d shards are more than there are numbers for", c.Count), nil
	}
	first := cat.next.Shard
	cat.next.Shard += uint32(c.Count)
	return first, nil, a.putMeta(metaCounters, cat.next)
}

// replaceCollections puts collections whose rows are there in the place of those of the same names, if there are such,
// and sets aliases. It does all of it or refuses.
func (a *applier) replaceCollections(c replaceCollections) (value any, refusal, err error) {
	cat := a.db.catalog
	if refusal := cat.checkReplacement(c); refusal != nil {
		return nil, refusal, nil
	}
	for _, m := range c.Collections {
		m.ID = cat.next.Collection
		cat.next.Collection++
		col, err := a.db.collectionOf(m)
		if err != nil {
			return nil, nil, err
		}
		for _, sm := range m.Shards {
			s := a.db.snapshots.take(sm.ID)
			if s == nil { // this replica was not the one to load it
				s = a.db.newShard(sm, col)
				if err := a.db.loadShard(s, col, 0); err != nil {
					return nil, nil, fmt.Errorf("load shard %d of collection %q: %w", s.id, m.Name, err)
				}
			}
			col.shards = append(col.shards, s)
		}
		if old := cat.collections[m.Name]; old != nil {
			a.batch.DeleteMeta(collectionKey(old.id))
			a.retired = append(a.retired, old)
		}
		if err := a.putMeta(collectionKey(m.ID), m); err != nil {
			return nil, nil, err
		}
		cat.replace(col)
		a.changed = append(a.changed, col)
	}
	if err := a.putMeta(metaCounters, cat.next); err != nil {
		return nil, nil, err
	}
	if len(c.Aliases) == 0 {
		return nil, nil, nil
	}
	var set updateAliases
	for _, alias := range c.Aliases {
		set.Actions = append(set.Actions, vectord.AliasAction{Create: &alias})
	}
	_, refusal, err = a.updateAliases(set)
	if refusal != nil {
		err = fmt.Errorf("aliases that were checked are refused: %w", refusal)
	}
	return nil, nil, err
}

// checkReplacement refuses names that collections cannot have, and aliases that lead nowhere.
func (c *catalog) checkReplacement(r replaceCollections) error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	names := map[string]bool{}
	for _, m := range r.Collections {
		if names[m.Name] {
			return vectord.Errorf(vectord.KindInvalid, "collection `%s` comes twice", m.Name)
		}
		names[m.Name] = true
		if _, ok := c.aliases[m.Name]; ok {
			return vectord.Errorf(vectord.KindInvalid, "Can't create collection with name %s. Alias with the same name already exists", m.Name)
		}
	}
	for _, a := range r.Aliases {
		if err := vectord.CheckCollectionName(a.Name); err != nil {
			return err
		}
		if _, ok := c.collections[a.Name]; ok || names[a.Name] {
			return vectord.Errorf(vectord.KindExists, "Collection `%s` already exists!", a.Name)
		}
		if _, ok := c.collections[a.Collection]; !ok && !names[a.Collection] {
			return noCollection(a.Collection)
		}
	}
	return nil
}

// replace takes in a collection in the place of one of the same name. Aliases go on to lead to it.
func (c *catalog) replace(col *collection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.collections[col.name]; old != nil {
		c.forget(old.id)
	}
	c.used[col.id] = col
	c.set(col)
}
