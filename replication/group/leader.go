package group

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/vectord/vectord"
)

// leader is what this node does while it leads: it gathers operations and puts them into entries. While it does not lead,
// nothing is in it.
type leader struct {
	mu       sync.Mutex
	changed  sync.Cond // what take waits for
	term     uint64    // in which this node leads; 0: it does not
	queue    []operation
	bytes    int // of the queue
	inFlight int
	windows  map[uint64]*window // by origin: what other nodes have sent in this term
	stopped  bool
}

func (l *leader) init() { l.changed.L = &l.mu }

// accept takes an operation of this process.
func (l *leader) accept(op operation, term uint64, limit int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.push(op, term, limit)
}

func (l *leader) push(op operation, term uint64, limit int) error {
	size := len(op.command) + proposalBytes
	switch {
	case l.term == 0 || l.term != term:
		return errNotLeader()
	case l.bytes+size > limit:
		return &vectord.Error{
			Kind:       vectord.KindOverloaded,
			Text:       fmt.Sprintf("%d bytes of writes are waiting, at most %d may", l.bytes, limit),
			RetryAfter: retryAfter,
		}
	}
	l.queue = append(l.queue, op)
	l.bytes += size
	l.changed.Signal()
	return nil
}

// acceptFrom takes an operation of another process, once however often it comes.
func (l *leader) acceptFrom(op operation, term uint64, again bool, limit int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.term == 0 || l.term != term {
		return errNotLeader()
	}
	w := l.windows[op.origin]
	if w == nil {
		if len(l.windows) == originsMax {
			return &vectord.Error{Kind: vectord.KindOverloaded, Text: "too many processes have sent operations", RetryAfter: retryAfter}
		}
		w = &window{}
		l.windows[op.origin] = w
	}
	seen, known := w.has(op.number)
	switch {
	case known && seen:
		return nil
	case !known && again:
		return vectord.Errorf(vectord.KindTimeout, "the operation is too old to tell whether it came before")
	}
	if err := l.push(op, term, limit); err != nil {
		return err
	}
	w.add(op.number)
	return nil
}

// originsMax bounds the processes that a leader takes operations from in one term. Only restarts make new ones.
const originsMax = 1024

// window remembers which numbers came, of the last windowSize up to the highest.
type window struct {
	high uint64
	bits [windowSize / 64]uint64
}

const windowSize = 1 << 20

func (w *window) has(n uint64) (seen, known bool) {
	switch {
	case n > w.high:
		return false, true
	case n+windowSize <= w.high:
		return false, false
	}
	return w.bits[n%windowSize/64]&(1<<(n%64)) != 0, true
}

func (w *window) add(n uint64) {
	if n+windowSize <= w.high {
		return
	}
	if n > w.high {
		if n-w.high >= windowSize {
			w.bits = [windowSize / 64]uint64{}
		} else {
			for i := w.high + 1; i <= n; i++ {
				w.bits[i%windowSize/64] &^= 1 << (i % 64)
			}
		}
		w.high = n
	}
	w.bits[n%windowSize/64] |= 1 << (n % 64)
}

// start begins to take operations in a term.
func (l *leader) start(term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.term, l.windows = term, map[uint64]*window{}
}

// end drops what waits: those who sent it will see the term end. It reports whether this node was leading.
func (l *leader) end() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.term != 0
	l.term, l.queue, l.bytes, l.windows = 0, nil, 0, nil
	return was
}

// stop makes take return.
func (l *leader) stop() {
	l.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.changed.Signal()
}

// leading returns the term in which this node leads, 0 if it does not.
func (l *leader) leading() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.term
}

func (l *leader) waitingBytes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bytes
}

// take waits for operations and for a free place in flight, and returns an entry of as many operations as fit. An idle log
// keeps nobody waiting, and entries grow by themselves with the load and the slowness of the disks. It reports false after stop.
func (l *leader) take(o *Options) (data []byte, term uint64, count int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.queue) == 0 || l.inFlight == o.InFlight {
		if l.stopped {
			return nil, 0, 0, false
		}
		l.changed.Wait()
	}
	bytes, room := 0, 0
	for _, op := range l.queue[:min(len(l.queue), o.BatchOperations)] {
		if bytes += len(op.command); bytes > o.BatchBytes && count > 0 {
			break
		}
		room += len(op.command) + operationOverhead
		l.bytes -= len(op.command) + proposalBytes
		count++
	}
	data = beginEntry(make([]byte, 0, room+64), l.term, o.Now().UnixMilli(), count)
	for i := range count {
		data = appendOperation(data, &l.queue[i])
	}
	clear(l.queue[:count])
	if l.queue = l.queue[count:]; len(l.queue) == 0 {
		l.queue = nil
	}
	l.inFlight++
	return sealEntry(data), l.term, count, true
}

// landed frees a place in flight.
func (l *leader) landed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.changed.Signal()
}

// sendEntries is the goroutine that gives Raft its entries.
func (g *Group) sendEntries() {
	defer g.work.Done()
	for {
		data, term, count, ok := g.leader.take(&g.o)
		if !ok {
			return
		}
		taken := time.Now()
		future := g.raft.Apply(data, 0)
		g.work.Go(func() {
			defer g.leader.landed()
			if g.land(future, data, term) {
				g.metrics.batchOperations.Observe(float64(count))
				g.metrics.commitSeconds.Observe(time.Since(taken).Seconds())
			}
		})
	}
}

// land waits until an entry is applied here, and reports whether it is. While leadership is about to be handed over Raft takes
// no entries; that may fail, and the term go on, so the entry is offered again for as long as that lasts.
func (g *Group) land(future raft.ApplyFuture, data []byte, term uint64) bool {
	for {
		err := g.answer(future)
		if !errors.Is(err, raft.ErrLeadershipTransferInProgress) {
			return err == nil
		}
		select {
		case <-g.closing:
			return false
		case <-time.After(retryPause):
		}
		if g.leader.leading() != term {
			return false
		}
		future = g.raft.Apply(data, 0)
	}
}

// followLeadership is the goroutine that begins and ends to lead as Raft says.
func (g *Group) followLeadership() {
	defer g.work.Done()
	defer g.lead(false)
	for {
		select {
		case <-g.closing:
			return
		case won := <-g.notify:
			g.lead(won && g.begin())
		}
	}
}

// begin commits a first entry in the term that this node was elected in. Once that is applied, so is all that was ever
// acknowledged, and everybody who waits for an operation of an earlier term knows that it is lost.
func (g *Group) begin() bool {
	for {
		term := g.raft.CurrentTerm()
		data := sealEntry(beginEntry(nil, term, g.o.Now().UnixMilli(), 0))
		err := g.answer(g.raft.Apply(data, 0))
		switch {
		case err == nil && g.raft.CurrentTerm() == term:
			g.leader.start(term)
			return true
		case !errors.Is(err, raft.ErrLeadershipTransferInProgress):
			return false
		}
		select {
		case <-g.closing:
			return false
		case <-time.After(retryPause):
		}
	}
}

// lead tells that this node leads, or does not any more.
func (g *Group) lead(leading bool) {
	was := g.leads
	if !leading {
		g.leader.end()
	}
	g.leads = leading
	if leading {
		g.metrics.elections.Inc()
	}
	if was != leading && g.o.Lead != nil {
		g.o.Lead(leading)
	}
}
