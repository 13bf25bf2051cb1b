package group

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// watchInterval is the time between two looks of watch.
	watchInterval = 500 * time.Millisecond
	// diskPatience is how long a leader may wait for its disk. A leader whose disk hangs still sends heartbeats, so nobody
	// would ever take over (hashicorp/raft issue 503). It hands leadership over as soon as the disk answers again. If that
	// takes as long again the process ends.
	diskPatience = 5 * time.Second
)

// watch is the goroutine that looks after the disk, the size of the log and members without a vote.
func (g *Group) watch() {
	defer g.work.Done()
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	keptUp := map[raft.ServerID]bool{}
	var busy atomic.Bool    // with a snapshot
	var handing atomic.Bool // leadership over
	var after uint64        // bytes of log that the last snapshot left
	for {
		select {
		case <-g.closing:
			return
		case <-tick.C:
		}
		g.checkDisk(&handing)
		g.promote(keptUp)
		bytes := g.o.Logs.Bytes()
		after = min(after, bytes)
		if bytes-after > g.o.SnapshotLogBytes && busy.CompareAndSwap(false, true) {
			after = bytes
			g.work.Go(func() {
				defer busy.Store(false)
				if err := g.Snapshot(); err != nil {
					g.o.Logger.Warn("no snapshot was taken", "err", err)
				}
			})
		}
	}
}

func (g *Group) checkDisk(handing *atomic.Bool) {
	g.logs.look()
	waited := g.logs.waited()
	switch {
	case waited > 2*diskPatience:
		g.fail(fmt.Errorf("the disk has not taken a write of the log for %v", waited))
	case waited > diskPatience && g.raft.State() == raft.Leader && handing.CompareAndSwap(false, true):
		g.o.Logger.Error("the disk hangs, leadership is handed over when it answers", "waited", waited)
		g.work.Go(func() { // Raft does nothing else while it writes to its log, so this waits for the disk
			defer handing.Store(false)
			g.handOver()
		})
	}
}

// watchedLogs knows for how long the disk has been busy with a write, and ends everything if one fails: what is on the disk is
// unknown from then on, and to write again might seem to help (fsync reports an error once).
type watchedLogs struct {
	LogStore
	since     atomic.Int64 // when the write began, in nanoseconds since the Unix epoch; 0: there is none
	seen      int64        // since, as of watch's last look
	busy      atomic.Int64 // how long looks have seen this write, in nanoseconds
	failed    func(error)
	snapshots *snapshotStore
}

// GetLog implements raft.LogStore. For the last entry of the newest snapshot, which the log need not have any more, it gives
// one without content. hashicorp/raft asks for no more than its term: whether the entries after it go on from what a leader
// has. Were there none, a follower whose log begins with the next entry would refuse all that its leader sends, who would send
// a snapshot instead, for ever. To send an entry Raft needs the one before, so this one never is; see Bootstrap for the first.
func (w *watchedLogs) GetLog(index uint64, l *raft.Log) error {
	err := w.LogStore.GetLog(index, l)
	if !errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	newest, ok, snapshotErr := w.snapshots.newest()
	switch {
	case snapshotErr != nil:
		return snapshotErr
	case !ok || newest.Index != index:
		return err
	}
	*l = raft.Log{Index: newest.Index, Term: newest.Term, Type: raft.LogNoop}
	return nil
}

// StoreLog implements raft.LogStore.
func (w *watchedLogs) StoreLog(l *raft.Log) error { return w.StoreLogs([]*raft.Log{l}) }

// StoreLogs implements raft.LogStore.
func (w *watchedLogs) StoreLogs(logs []*raft.Log) error {
	w.since.Store(time.Now().UnixNano())
	defer w.since.Store(0)
	err := w.LogStore.StoreLogs(logs)
	if err != nil {
		w.failed(fmt.Errorf("write to it: %w", err))
	}
	return err
}

// look sees whether the disk is still busy with the write of the last look. It belongs to watch, in whose looks the time counts:
// by the clock, a machine that was stopped in the middle of a write would have a disk that hangs.
func (w *watchedLogs) look() {
	since := w.since.Load()
	if since == 0 || since != w.seen {
		w.seen = since
		w.busy.Store(0)
		return
	}
	w.busy.Add(int64(watchInterval))
}

// waited returns for how long the disk has been busy with one write, as of the last look.
func (w *watchedLogs) waited() time.Duration { return time.Duration(w.busy.Load()) }

// RaftLogger brings what hashicorp/raft logs to a slog.Logger. Its information is for debugging.
func RaftLogger(to *slog.Logger) hclog.Logger { return logAdapter{hclog.NewNullLogger(), to} }

type logAdapter struct {
	hclog.Logger // has the methods that raft does not call
	to           *slog.Logger
}

func (a logAdapter) Trace(string, ...any) {}

// Debug implements hclog.Logger.
func (a logAdapter) Debug(string, ...any) {}

// Info implements hclog.Logger.
func (a logAdapter) Info(text string, args ...any) { a.log(slog.LevelDebug, text, args) }

// Warn implements hclog.Logger.
func (a logAdapter) Warn(text string, args ...any) { a.log(slog.LevelDebug, text, args) }

// Error implements hclog.Logger. Raft has one for every attempt to reach a node that is gone.
func (a logAdapter) Error(text string, args ...any) { a.log(slog.LevelInfo, text, args) }

func (a logAdapter) log(level slog.Level, text string, args []any) {
	a.to.Log(context.Background(), level, "raft: "+text, args...)
}
