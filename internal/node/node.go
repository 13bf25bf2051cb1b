// Package node assembles a vectord node: storage, the engine on top of it, and the log that orders what the engine is
// asked to change. Commands, benchmarks and tests all build their nodes here.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/index/simd"
	"github.com/vectord/vectord/internal/embed"
	"github.com/vectord/vectord/replication"
	"github.com/vectord/vectord/replication/group"
	"github.com/vectord/vectord/scheduler"
	"github.com/vectord/vectord/scheduler/pool"
	"github.com/vectord/vectord/storage"
)

// Config says where a node keeps its data and what it may use. Only DataDir is required.
type Config struct {
	DataDir     string
	FS          storage.FS // nil: the operating system's
	MemoryLimit int64      // bytes; 0: none
	// SetHeapLimit is told how much of MemoryLimit is the Go heap's, as it changes: a program that is nothing but a node
	// passes debug.SetMemoryLimit. nil: nobody is told.
	SetHeapLimit func(bytes int64)
	Logger       *slog.Logger         // nil: slog.Default()
	Metrics      *prometheus.Registry // nil: none
	// SnapshotDir is where snapshots are kept; empty means the folder snapshots of DataDir, or with FS no place at all: they
	// are files of the operating system.
	SnapshotDir string
	// SnapshotURLs are the URLs from which, or from below which, a request may have a snapshot fetched.
	SnapshotURLs []string
	// Embedding is an endpoint that makes vectors of texts; nil: none beside the model that is part of the program.
	Embedding *embed.HTTPOptions
	// Pools are of agents that the node starts itself; AllowExec are the absolute paths of further programs that a request may
	// have started. Without either none can be.
	Pools     []pool.Definition
	AllowExec []string
	// Cluster makes the node one of several that keep the same data; nil: it is on its own. It needs the operating system's
	// files.
	Cluster *Cluster
	// Fatal is called with the first error after which nothing can be promised; nil logs it and exits with status 1.
	Fatal func(error)
}

// Node is a running node.
type Node struct {
	dir   string // of the data; empty: it is not in files of the operating system
	store *storage.Store
	db    *engine.DB
	tasks *scheduler.Scheduler
	pools *pool.Supervisor // nil: programs may not be started
	log   replication.Log
	// started is closed when log is set everywhere.
	started chan struct{}
	// cluster is what a node has more as one of several; nil: it is on its own.
	cluster *cluster
}

// Open loads the data directory, creating it if need be, and returns when the node can serve.
func Open(c Config) (*Node, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if err := simd.Err(); err != nil {
		c.Logger.Warn("the distance kernel asked for is not to be had", "error", err, "kernel", simd.Chosen)
	}
	if c.SnapshotDir == "" && c.FS == nil {
		c.SnapshotDir = filepath.Join(c.DataDir, "snapshots")
	}
	options := engine.Options{MemoryLimit: c.MemoryLimit, SetHeapLimit: c.SetHeapLimit, Logger: c.Logger, SnapshotDir: c.SnapshotDir}
	if len(c.SnapshotURLs) > 0 {
		f, err := newFetcher(c.SnapshotURLs)
		if err != nil {
			return nil, err
		}
		options.FetchSnapshot = f.fetch
	}
	n := &Node{started: make(chan struct{})}
	if err := n.open(&c, options); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// open opens the parts one after the other. If it fails, Close closes those that are open.
func (n *Node) open(c *Config, options engine.Options) (err error) {
	if n.cluster, err = openCluster(c); err != nil {
		return err
	}
	if n.store, err = openStore(c, n.cluster); err != nil {
		return err
	}
	store := n.store
	if c.FS == nil {
		n.dir = c.DataDir
		// What a backup that was interrupted left.
		if err := os.RemoveAll(filepath.Join(c.DataDir, backupDir)); err != nil {
			return fmt.Errorf("open data directory %q: %w", c.DataDir, err)
		}
	}
	var registerer prometheus.Registerer // stays a nil interface without a registry
	if c.Metrics != nil {
		registerer = c.Metrics
		c.Metrics.MustRegister(storageCollector{store})
	}
	options.Metrics = registerer
	if options.Embedders, err = embedders(c.Embedding, registerer); err != nil {
		return err
	}
	last, err := store.LastApplied()
	if err != nil {
		return err
	}
	clock := replication.Clock(last.Time)
	n.tasks, err = scheduler.Open(store, scheduler.Options{Embed: taskEmbedder(options.Embedders), Points: n, Replicated: n.cluster != nil,
		Now: func() int64 { return clock().UnixMilli() }, Logger: c.Logger, Metrics: registerer})
	if err != nil {
		return fmt.Errorf("open data directory %q: %w", c.DataDir, err)
	}
	options.Machine, options.Replicated = n.tasks, n.cluster != nil
	if n.db, err = engine.Open(store, options); err != nil {
		return fmt.Errorf("open data directory %q: %w", c.DataDir, err)
	}
	if n.cluster == nil {
		n.log = replication.NewStandalone(n.db, last.Index, last.Time,
			replication.StandaloneOptions{QueueBytes: logQueueBytes, Now: clock, Fatal: c.Fatal, Registerer: registerer})
	} else {
		o := n.cluster.options(c)
		o.Now, o.Lead = clock, n.lead
		if err := n.cluster.open(c, n.db, o); err != nil {
			return err
		}
		n.log = n.cluster.group
	}
	n.db.Start(n.log)
	n.tasks.Start(taskLog{n.log})
	close(n.started)
	return n.startPools(c, registerer)
}

// lead gives this node the say over what one node decides for all, or takes it.
func (n *Node) lead(leading bool) {
	<-n.started // the log leads before open has it
	n.db.Lead(leading)
	n.tasks.Lead(leading)
}

// openStore opens the data directory, after it got the state that a snapshot from another node brought, if that is ahead.
func openStore(c *Config, k *cluster) (*storage.Store, error) {
	cache, table := engine.Shares(c.MemoryLimit)
	o := storage.Options{Dir: c.DataDir, FS: c.FS, CacheBytes: cache, MemTableBytes: table, Logger: c.Logger, Fatal: c.Fatal}
	store, err := storage.Open(o)
	if err != nil || k == nil {
		return store, err
	}
	last, err := store.LastApplied()
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	checkpoint, ahead, err := group.Pending(k.options(c), last.Index)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	if !ahead {
		return store, nil
	}
	if err := store.Close(); err != nil {
		return nil, err
	}
	if err := storage.Replace(c.FS, c.DataDir, checkpoint); err != nil {
		return nil, err
	}
	return storage.Open(o)
}

// logQueueBytes bounds the writes that wait for the log. Three of the largest states fit.
const logQueueBytes = 3 * (vectord.MaxStateBytes + 1<<20)

// PrepareWrites implements scheduler.Points.
func (n *Node) PrepareWrites(ctx context.Context, e *vectord.Effects) ([]byte, []vectord.MemoryResult, func(), error) {
	return n.db.PrepareWrites(ctx, e)
}

// taskLog is the log of the scheduler's commands, which share it with the engine's.
type taskLog struct{ log replication.Log }

// Propose implements scheduler.Log.
func (l taskLog) Propose(ctx context.Context, command []byte) (vectord.Result, error) {
	return l.log.Propose(ctx, engine.MachineGroup, engine.MachineCommand(command))
}

// taskEmbedder returns the model that makes vectors of the texts of tasks and agents: the operator's if there is one.
func taskEmbedder(models []engine.Embedder) func(ctx context.Context, texts []string) ([][]float32, error) {
	return models[len(models)-1].Embed
}

// Engine returns what answers requests.
func (n *Node) Engine() *engine.DB { return n.db }

// Tasks returns what keeps tasks, queues, agents and states.
func (n *Node) Tasks() *scheduler.Scheduler { return n.tasks }

// Close finishes accepted writes, saves what makes the next start fast, and releases the data directory. Requests must
// have ended before.
func (n *Node) Close() error {
	n.stopPools()
	var errs []error
	if n.tasks != nil {
		n.tasks.Interrupt()
	}
	switch {
	case n.cluster != nil:
		errs = append(errs, n.cluster.close())
	case n.log != nil:
		errs = append(errs, n.log.Close())
	}
	if n.tasks != nil {
		errs = append(errs, n.tasks.Close())
	}
	if n.db != nil {
		errs = append(errs, n.db.Close())
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
}

// Reopen is closed when another node's snapshot has overtaken this node's state: Close it and Open it again. It is nil for a
// node on its own.
func (n *Node) Reopen() <-chan struct{} {
	if n.cluster == nil {
		return nil
	}
	return n.cluster.reopen
}

// Report is what Check found.
type Report = storage.Report

// Check reads everything in a data directory that no node has open, without changing it, and reports what is damaged.
// progress, if not nil, is called now and then with the number of keys read.
func Check(ctx context.Context, dir string, logger *slog.Logger, progress func(keys uint64)) (report Report, err error) {
	store, err := storage.Open(storage.Options{Dir: dir, ReadOnly: true, Logger: logger})
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return store.Verify(ctx, progress)
}
