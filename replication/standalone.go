package replication

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/vectord/vectord"
)

// Defaults of StandaloneOptions.
const (
	DefaultBatchBytes   = 256 << 10
	DefaultBatchEntries = 4096
	DefaultQueueBytes   = 64 << 20
	DefaultInFlight     = 2
)

const (
	// proposalBytes is what a proposal counts for besides its command, so that the queue's bound holds for empty ones.
	proposalBytes = 128
	// retryAfter is what a refused client is told to wait. A full queue is worth some seconds of work, and HTTP tells
	// the time in whole ones.
	retryAfter = time.Second
)

// StandaloneOptions configure a Standalone. The zero value works.
type StandaloneOptions struct {
	BatchBytes   int                   // of commands applied together; a larger one goes alone; 0: DefaultBatchBytes
	BatchEntries int                   // applied together; 0: DefaultBatchEntries
	QueueBytes   int                   // of commands waiting, and of the largest one; 0: DefaultQueueBytes
	InFlight     int                   // batches being applied or waiting for the disk; 0: DefaultInFlight
	Now          func() time.Time      // nil: a Clock that goes on after the last entry
	Registerer   prometheus.Registerer // of the metrics; nil: none
	// Fatal is called once, with the first error of the Applier, and should not return: nil logs the error and exits
	// with status 1. If it does return, every waiter gets an error, and so does whoever proposes later.
	Fatal func(error)
}

func (o StandaloneOptions) withDefaults() StandaloneOptions {
	defaults := []struct {
		field *int
		value int
	}{
		{&o.BatchBytes, DefaultBatchBytes},
		{&o.BatchEntries, DefaultBatchEntries},
		{&o.QueueBytes, DefaultQueueBytes},
		{&o.InFlight, DefaultInFlight},
	}
	for _, d := range defaults {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if o.Fatal == nil {
		o.Fatal = func(err error) {
			slog.Error("stopping: a log entry could not be applied", "err", err)
			os.Exit(1)
		}
	}
	return o
}

// Clock returns a clock for the log's times that goes on after a time (milliseconds since the Unix epoch), or now if that is
// later. It neither goes back nor jumps, whatever happens to the machine's own: what is measured in the log's time, such as
// leases, does not end because somebody has set that.
func Clock(last int64) func() time.Time {
	start := time.Now()
	base := start.Round(0)
	if after := time.UnixMilli(last); after.After(base) {
		base = after
	}
	return func() time.Time { return base.Add(time.Since(start)) }
}

// Standalone is the Log of a node on its own. It keeps no log file: the Applier's atomic, durable commit is the log, and
// all groups share it.
//
// Two goroutines do the work. One takes what waits, up to the bounds of a batch, and applies it; the other waits, batch
// by batch, until the disk has it, and answers. While one batch is being synced the next is being applied, and meanwhile
// further proposals gather: batches grow with the load and with the slowness of the disk by themselves, and a proposal to
// an idle log waits for nobody.
type Standalone struct {
	applier Applier
	o       StandaloneOptions
	metrics metrics
	pending chan batch    // applied and not yet durable, in order; never full
	done    chan struct{} // closed when both goroutines have ended

	mu         sync.Mutex // guards what follows
	work       sync.Cond  // signalled to the applying goroutine when queue, inFlight or closed change
	queue      queue
	inFlight   int // Invariant: 0 <= inFlight <= o.InFlight
	closed     bool
	failed     error // once set, nothing is acknowledged any more
	lastIndex  uint64
	lastMillis int64
}

var _ Log = (*Standalone)(nil)

// proposal is a command, or a barrier, that waits for its outcome.
type proposal struct {
	group   uint32
	command []byte
	barrier bool
	index   uint64       // of the last entry before a barrier, set when it is taken
	outcome chan outcome // has room for the one outcome, so that answering never waits
	next    *proposal
}

type outcome struct {
	result vectord.Result
	err    error
}

func (p *proposal) size() int { return len(p.command) + proposalBytes }

// queue is a list of proposals in order.
type queue struct {
	first, last *proposal
	bytes       int // the sum of their sizes
}

func (q *queue) push(p *proposal) {
	if q.first == nil {
		q.first = p
	} else {
		q.last.next = p
	}
	q.last = p
	q.bytes += p.size()
}

func (q *queue) pop() *proposal {
	p := q.first
	q.first, p.next = p.next, nil
	q.bytes -= p.size()
	return p
}

// batch is a group of proposals on its way: applied together, then durable together.
type batch struct {
	proposals []*proposal
	entries   []vectord.Entry // of the proposals that are not barriers
	results   []vectord.Result
	durable   func() error // nil if there are no entries
	taken     time.Time    // when it left the queue
}

// NewStandalone returns a log that goes on after the entry at lastIndex with time lastTime (milliseconds since the Unix
// epoch), which is what the Applier applied last. The caller closes it.
func NewStandalone(a Applier, lastIndex uint64, lastTime int64, o StandaloneOptions) *Standalone {
	o = o.withDefaults()
	if o.Now == nil {
		o.Now = Clock(lastTime)
	}
	l := &Standalone{
		applier:    a,
		o:          o,
		pending:    make(chan batch, o.InFlight),
		done:       make(chan struct{}),
		lastIndex:  lastIndex,
		lastMillis: lastTime,
	}
	l.work.L = &l.mu
	l.metrics = newMetrics(o.Registerer, l.queueBytes)
	go l.applyBatches()
	go l.answerBatches()
	return l
}

// Propose implements Log.
func (l *Standalone) Propose(ctx context.Context, group uint32, command []byte) (vectord.Result, error) {
	return l.wait(ctx, &proposal{group: group, command: command})
}

// Barrier implements Log.
func (l *Standalone) Barrier(ctx context.Context) (uint64, error) {
	result, err := l.wait(ctx, &proposal{barrier: true})
	return result.Index, err
}

// Close implements Log.
func (l *Standalone) Close() error {
	l.mu.Lock()
	l.closed = true
	l.work.Signal()
	l.mu.Unlock()
	<-l.done
	return nil
}

// wait puts p in the queue and returns its outcome.
func (l *Standalone) wait(ctx context.Context, p *proposal) (vectord.Result, error) {
	if err := ctx.Err(); err != nil {
		return vectord.Result{}, vectord.Errorf(vectord.KindTimeout, "not accepted, and without effect: %v", err)
	}
	p.outcome = make(chan outcome, 1)
	if err := l.accept(p); err != nil {
		return vectord.Result{}, err
	}
	select {
	case o := <-p.outcome:
		return o.result, o.err
	case <-ctx.Done():
		// The entry may be in the Applier's hands, so it takes its course.
		return vectord.Result{}, vectord.Errorf(vectord.KindTimeout,
			"the outcome is unknown, the write may still take effect: %v", ctx.Err())
	}
}

// accept puts p in the queue, or says why not.
func (l *Standalone) accept(p *proposal) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.failed != nil:
		return l.failed
	case l.closed:
		return vectord.Errorf(vectord.KindClosed, "the server is shutting down")
	case p.size() > l.o.QueueBytes:
		return vectord.Errorf(vectord.KindTooLarge, "command of %d bytes, at most %d are accepted",
			len(p.command), l.o.QueueBytes-proposalBytes)
	case l.queue.bytes+p.size() > l.o.QueueBytes:
		l.metrics.refused.Inc()
		return &vectord.Error{
			Kind:       vectord.KindOverloaded,
			Text:       fmt.Sprintf("%d bytes of writes are waiting, at most %d may", l.queue.bytes, l.o.QueueBytes),
			RetryAfter: retryAfter,
		}
	}
	l.queue.push(p)
	l.work.Signal()
	return nil
}

// applyBatches is the goroutine that applies.
func (l *Standalone) applyBatches() {
	defer close(l.pending)
	for {
		b, ok := l.take()
		if !ok {
			return
		}
		if err := l.apply(&b); err != nil {
			l.fail(err)
		}
		l.pending <- b
	}
}

// answerBatches is the goroutine that waits for the disk.
func (l *Standalone) answerBatches() {
	defer close(l.done)
	for b := range l.pending {
		if b.durable != nil && l.failure() == nil {
			if err := b.durable(); err != nil {
				l.fail(fmt.Errorf("make entries %d to %d durable: %w", b.entries[0].Index,
					b.entries[len(b.entries)-1].Index, err))
			}
		}
		l.answer(b)
	}
}

// take waits for work and for a free place in flight, and takes from the queue as much as fits a batch. It reports false
// when the log is closed and all is taken.
func (l *Standalone) take() (batch, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.queue.first == nil || l.inFlight == l.o.InFlight {
		if l.closed && l.queue.first == nil {
			return batch{}, false
		}
		l.work.Wait()
	}
	l.inFlight++
	l.lastMillis = max(l.lastMillis, l.o.Now().UnixMilli())
	b := batch{taken: time.Now()}
	bytes := 0
	for l.queue.first != nil && len(b.proposals) < l.o.BatchEntries {
		bytes += len(l.queue.first.command)
		if bytes > l.o.BatchBytes && len(b.proposals) > 0 {
			break
		}
		p := l.queue.pop()
		b.proposals = append(b.proposals, p)
		if p.barrier {
			p.index = l.lastIndex
			continue
		}
		l.lastIndex++
		b.entries = append(b.entries, vectord.Entry{
			Group: p.group, Index: l.lastIndex, Time: l.lastMillis, Command: p.command,
		})
	}
	return b, true
}

// apply has the entries of b applied. A batch of barriers has none.
func (l *Standalone) apply(b *batch) error {
	if len(b.entries) == 0 || l.failure() != nil {
		return nil
	}
	results, durable, err := l.applier.Apply(b.entries)
	first, last := b.entries[0].Index, b.entries[len(b.entries)-1].Index
	switch {
	case err != nil:
		return fmt.Errorf("apply entries %d to %d: %w", first, last, err)
	case len(results) != len(b.entries):
		return fmt.Errorf("apply entries %d to %d: got %d results", first, last, len(results))
	}
	b.results, b.durable = results, durable
	return nil
}

// answer gives the proposals of a durable batch their outcomes and frees its place in flight. It answers under the lock,
// so that nothing is acknowledged after fail has run.
func (l *Standalone) answer(b batch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.work.Signal()
	if l.failed != nil {
		for _, p := range b.proposals {
			p.outcome <- outcome{err: l.failed}
		}
		return
	}
	results := b.results
	for _, p := range b.proposals {
		if p.barrier {
			p.outcome <- outcome{result: vectord.Result{Index: p.index}}
			continue
		}
		p.outcome <- outcome{result: results[0]}
		results = results[1:]
	}
	if len(b.entries) > 0 {
		l.metrics.batchEntries.Observe(float64(len(b.entries)))
		l.metrics.commitSeconds.Observe(time.Since(b.taken).Seconds())
	}
}

// fail ends the log's work: whoever waits in the queue gets the error, and whoever is in flight gets it from answer.
func (l *Standalone) fail(err error) {
	l.mu.Lock()
	if l.failed != nil {
		l.mu.Unlock()
		return
	}
	l.failed = fmt.Errorf("the log has failed: %w", err)
	l.mu.Unlock()

	l.o.Fatal(err)

	l.mu.Lock()
	defer l.mu.Unlock()
	for l.queue.first != nil {
		l.queue.pop().outcome <- outcome{err: l.failed}
	}
}

func (l *Standalone) failure() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

func (l *Standalone) queueBytes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.queue.bytes
}
