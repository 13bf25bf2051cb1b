package scheduler

import (
	"cmp"
	"container/heap"
	"math"
	"slices"

	"github.com/vectord/vectord"
)

// ready are the queued tasks of a queue that nobody was given yet, in the order in which they should go.
//
// Priority decides first, raised by one for every aging interval that the oldest task of a level has waited, of those that are
// first in their lanes and were not passed over. Within a level the fairness keys share what is leased by their weights
// (start-time fair queueing: Goyal, Vin and Cheng, 1996): each key's lane has a pass that grows by 1/weight with each task, and the lane with the least goes next; a lane that was
// empty begins where the others are. Within a lane the tasks go in the order in which they were submitted.
type ready struct {
	levels [vectord.MaxPriority + 1]level
	count  int
}

type level struct {
	lanes map[string]*lane // by fairness key
	pass  float64          // of the lane that was served last
}

// lane holds the tasks of one fairness key and priority.
type lane struct {
	key         string
	level       *level
	pass        float64
	first, last *task
}

// idleLanesMax is how many empty lanes a level remembers, so that a key does not get rid of its past by a pause.
const idleLanesMax = 1_024

func (r *ready) push(t *task) {
	l := &r.levels[t.priority()]
	ln := l.lanes[t.new.FairnessKey]
	if ln == nil {
		if l.lanes == nil {
			l.lanes = map[string]*lane{}
		}
		if len(l.lanes) >= idleLanesMax {
			l.forgetIdle()
		}
		ln = &lane{key: t.new.FairnessKey, level: l}
		l.lanes[t.new.FairnessKey] = ln
	}
	if ln.first == nil {
		ln.pass = max(ln.pass, l.pass)
	}
	t.lane = ln
	r.count++
	// Nearly always the last one; a task that comes back has its old place.
	after := ln.last
	for after != nil && after.seq > t.seq {
		after = after.prev
	}
	t.prev = after
	if after == nil {
		t.next, ln.first = ln.first, t
	} else {
		t.next, after.next = after.next, t
	}
	if t.next == nil {
		ln.last = t
	} else {
		t.next.prev = t
	}
}

// forgetIdle drops the empty lanes whose past does not matter any more.
func (l *level) forgetIdle() {
	for key, ln := range l.lanes {
		if ln.first == nil && ln.pass <= l.pass {
			delete(l.lanes, key)
		}
	}
}

// remove takes a task out, if it is in.
func (r *ready) remove(t *task) {
	ln := t.lane
	if ln == nil {
		return
	}
	if t.prev == nil {
		ln.first = t.next
	} else {
		t.prev.next = t.next
	}
	if t.next == nil {
		ln.last = t.prev
	} else {
		t.next.prev = t.prev
	}
	t.lane, t.prev, t.next = nil, nil, nil
	r.count--
	if ln.first == nil && len(ln.level.lanes) > idleLanesMax && ln.pass <= ln.level.pass {
		delete(ln.level.lanes, ln.key)
	}
}

// oldest returns the time since when the level's oldest task has waited.
func (l *level) oldest() (at int64, ok bool) {
	for _, ln := range l.lanes {
		if ln.first != nil && (!ok || ln.first.readyAt < at) {
			at, ok = ln.first.readyAt, true
		}
	}
	return at, ok
}

// verdict is what becomes of a task that walk shows.
type verdict uint8

const (
	skip verdict = iota
	take         // it was taken out, by remove
	stop
)

// walk shows tasks in the order in which they should go, at most limit of them, until fn says stop.
func (r *ready) walk(now, agingMillis int64, limit int, fn func(*task) verdict) {
	if r.count == 0 {
		return
	}
	var levels []*levelWalk
	for i := range r.levels {
		if w := r.levels[i].begin(int64(i)); len(w.heads) > 0 {
			levels = append(levels, w)
		}
	}
	effective := func(w *levelWalk) int64 {
		if agingMillis <= 0 {
			return w.priority
		}
		return w.priority + max(now-w.oldest, 0)/agingMillis
	}
	for ; len(levels) > 0 && limit > 0; limit-- {
		best := slices.MinFunc(levels, func(a, b *levelWalk) int {
			return cmp.Or(cmp.Compare(effective(b), effective(a)), cmp.Compare(a.oldest, b.oldest))
		})
		if !best.show(fn) {
			return
		}
		if len(best.heads) == 0 {
			levels = slices.Delete(levels, slices.Index(levels, best), slices.Index(levels, best)+1)
		}
	}
}

// cursor is how far a walk has come in a lane.
type cursor struct {
	lane *lane
	next *task
}

type cursors []cursor

// Len implements heap.Interface, as do the methods below.
func (c cursors) Len() int { return len(c) }

// Less implements heap.Interface.
func (c cursors) Less(i, j int) bool {
	a, b := c[i], c[j]
	return a.lane.pass < b.lane.pass || a.lane.pass == b.lane.pass && a.next.seq < b.next.seq
}

// Swap implements heap.Interface.
func (c cursors) Swap(i, j int) { c[i], c[j] = c[j], c[i] }

// Push implements heap.Interface.
func (c *cursors) Push(x any) { *c = append(*c, x.(cursor)) }

// Pop implements heap.Interface.
func (c *cursors) Pop() any {
	last := (*c)[len(*c)-1]
	*c = (*c)[:len(*c)-1]
	return last
}

// levelWalk is how far a walk has come in a level.
type levelWalk struct {
	level    *level
	priority int64
	heads    cursors
	// oldest is the least readyAt of the heads: the age of what was shown and left raises nothing behind it.
	oldest int64
}

func (l *level) begin(priority int64) *levelWalk {
	w := &levelWalk{level: l, priority: priority, oldest: math.MaxInt64}
	for _, ln := range l.lanes {
		if ln.first != nil {
			w.heads = append(w.heads, cursor{ln, ln.first})
			w.oldest = min(w.oldest, ln.first.readyAt)
		}
	}
	heap.Init(&w.heads)
	return w
}

// show shows the next task of a level and reports whether the walk goes on.
func (w *levelWalk) show(fn func(*task) verdict) bool {
	l, head := w.level, &w.heads[0]
	t := head.next
	readyAt := t.readyAt
	head.next = t.next // t may be taken out
	ln, pass := head.lane, head.lane.pass
	switch fn(t) {
	case take:
		weight := t.new.FairnessWeight
		if weight == 0 {
			weight = 1
		}
		ln.pass = pass + 1/weight
		l.pass = max(l.pass, pass)
	case stop:
		return false
	}
	if head.next == nil {
		heap.Pop(&w.heads)
	} else {
		w.oldest = min(w.oldest, head.next.readyAt)
		heap.Fix(&w.heads, 0)
	}
	if readyAt == w.oldest {
		w.findOldest()
	}
	return true
}

// findOldest finds the oldest head, which is not older than it was before.
func (w *levelWalk) findOldest() {
	before := w.oldest
	w.oldest = math.MaxInt64
	for i := range w.heads {
		if w.oldest = min(w.oldest, w.heads[i].next.readyAt); w.oldest == before {
			return
		}
	}
}
