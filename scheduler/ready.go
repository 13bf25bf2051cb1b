package scheduler

import (
	"cmp"
	"container/heap"
	"iter"
	"math"
	"slices"

	"github.com/tidwall/btree"

	"github.com/vectord/vectord"
)

// ready are the queued tasks of a queue that nobody was given yet, in the order in which they should go.
//
// Priority decides first, raised by one for every aging interval that the oldest task of a level has waited, of those that are
// first in their lanes and were not passed over. Within a level the fairness keys share what is leased by their weights
// (start-time fair queueing: Goyal, Vin and Cheng, 1996): each key's lane has a pass that grows by 1/weight with each task, and the lane with the least goes next; a lane that was
// empty begins where the others are. Within a lane the tasks go in the order in which they were submitted.
//
// Whoever looks for tasks is not shown those that he could not have anyway, and they count for nothing in his order: an agent is
// shown the open rows and the shelves that are for it (shelf.go), the dispatcher what is fresh.
type ready struct {
	levels  [vectord.MaxPriority + 1]level
	count   int
	shelves shelves
	looks   *btree.BTreeG[*task] // that suit others by and by, the next one first
	held    map[*lane]struct{}   // whose tasks the limit of their key kept when somebody looked last
}

type level struct {
	lanes map[string]*lane // by fairness key
	pass  float64          // of the lane that was served last
	// Of the lanes with open tasks, but for those that a walk has opened, the one that goes first and the one whose first has waited longest.
	turns, ages laneHeap
}

// lane holds the tasks of one fairness key and priority.
type lane struct {
	key   string
	level *level
	pass  float64
	open  row   // the tasks that every agent of the queue may have
	front *task // the first of them, nil if there is none
	rest  row   // the others; they are on shelves, too

	at     [2]int // in the level's turns and ages; -1: it is in neither
	opened bool   // by the walk that is under way
	head   int    // where it is among the heads of its level, while these are being put together
}

// row holds tasks by their seq.
type row = btree.Map[uint64, *task]

// idleLanesMax is how many empty lanes a level remembers, so that a key does not get rid of its past by a pause.
const idleLanesMax = 1_024

func (r *ready) init() {
	r.shelves.init()
	r.held = map[*lane]struct{}{}
	for i := range r.levels {
		l := &r.levels[i]
		l.turns.before = func(a, b *lane) bool { return before(a, a.front, b, b.front) }
		l.ages.before = func(a, b *lane) bool { return a.front.readyAt < b.front.readyAt }
		l.ages.which = 1
	}
	r.looks = btree.NewBTreeGOptions(func(a, b *task) bool {
		return a.lookAt < b.lookAt || a.lookAt == b.lookAt && a.seq < b.seq
	}, btree.Options{NoLocks: true})
}

// push takes a task in. One that comes back has its old place.
func (r *ready) push(t *task, now int64) {
	l := &r.levels[t.priority()]
	ln := l.lanes[t.new.FairnessKey]
	if ln == nil {
		if l.lanes == nil {
			l.lanes = map[string]*lane{}
		}
		if len(l.lanes) >= idleLanesMax {
			l.forgetIdle()
		}
		ln = &lane{key: t.new.FairnessKey, level: l, at: [2]int{-1, -1}}
		l.lanes[t.new.FairnessKey] = ln
	}
	if ln.empty() {
		ln.pass = max(ln.pass, l.pass)
	}
	t.lane = ln
	r.count++
	ln.rowOf(t).Load(t.seq, t)
	if !t.constrained() && (ln.front == nil || t.seq < ln.front.seq) {
		ln.front = t
		ln.moved()
	}
	r.settle(t, now)
}

// moved is called when the first of a lane's open tasks is another one, or its pass has changed.
func (ln *lane) moved() {
	if !ln.opened {
		ln.level.turns.set(ln)
		ln.level.ages.set(ln)
	}
}

// rowOf returns the row of a task. It is the same as long as the task is ready.
func (ln *lane) rowOf(t *task) *row {
	if t.constrained() {
		return &ln.rest
	}
	return &ln.open
}

func (ln *lane) empty() bool { return ln.open.Len() == 0 && ln.rest.Len() == 0 }

// settle puts a task where those look who may have it by now, and notes when it is to be looked at again.
func (r *ready) settle(t *task, now int64) {
	if t.constrained() {
		r.shelves.place(t)
		r.lookAt(t, t.nextLook(now))
	}
}

// lookAt notes when a task is to be looked at again, 0 for never.
func (r *ready) lookAt(t *task, at int64) {
	if t.lookAt == at {
		return
	}
	if t.lookAt != 0 {
		r.looks.Delete(t)
	}
	if t.lookAt = at; at != 0 {
		r.looks.Set(t)
	}
}

// holds reports whether the limit of its key kept a task's lane back when somebody looked last.
func (r *ready) holds(t *task) bool {
	_, held := r.held[t.lane]
	return held
}

// forgetIdle drops the empty lanes whose past does not matter any more.
func (l *level) forgetIdle() {
	for key, ln := range l.lanes {
		if ln.empty() && ln.pass <= l.pass {
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
	r.shelves.takeOff(t)
	r.lookAt(t, 0)
	ln.rowOf(t).Delete(t.seq)
	t.lane = nil
	r.count--
	if ln.front == t {
		_, ln.front, _ = ln.open.Min()
		ln.moved()
	}
	if !ln.empty() {
		return
	}
	delete(r.held, ln)
	if len(ln.level.lanes) > idleLanesMax && ln.pass <= ln.level.pass {
		delete(ln.level.lanes, ln.key)
	}
}

// oldest returns the time since when the oldest of the tasks that are first in the level's lanes has waited.
func (l *level) oldest() (at int64, ok bool) {
	for _, ln := range l.lanes {
		first := ln.front
		if t := after(&ln.rest, 0); first == nil || t != nil && t.seq < first.seq {
			first = t
		}
		if first != nil && (!ok || first.readyAt < at) {
			at, ok = first.readyAt, true
		}
	}
	return at, ok
}

// after returns the first task of a row behind a seq, nil if there is none.
func after(r *row, seq uint64) (t *task) {
	if first, t, ok := r.Min(); !ok || first > seq {
		return t
	}
	r.Ascend(seq+1, func(_ uint64, next *task) bool {
		t = next
		return false
	})
	return t
}

// rows yields rows of tasks and their lanes: what a walk shows.
type rows = iter.Seq2[*lane, *row]

// all yields the rows of all tasks.
func (r *ready) all(yield func(*lane, *row) bool) {
	for i := range r.levels {
		for _, ln := range r.levels[i].lanes {
			if !yield(ln, &ln.open) || !yield(ln, &ln.rest) {
				return
			}
		}
	}
}

// suiting yields the rows of the tasks that an agent may have, besides the open ones: there are no others, though some of these it
// may not have, or not yet.
func (r *ready) suiting(a *agent, serves bool) rows {
	return func(yield func(*lane, *row) bool) {
		for sh := range r.shelves.suiting(a, serves) {
			for ln, tasks := range sh.rows {
				if !yield(ln, tasks) {
					return
				}
			}
		}
	}
}

// freshly yields the rows of fresh tasks, and those of lanes that were held.
func (r *ready) freshly(fresh []*task) rows {
	sh := shelf{rows: map[*lane]*row{}}
	for _, t := range fresh {
		if t.lane != nil {
			sh.put(t)
		}
	}
	return func(yield func(*lane, *row) bool) {
		for ln := range r.held {
			if !yield(ln, &ln.open) || !yield(ln, &ln.rest) {
				return
			}
		}
		for ln, tasks := range sh.rows {
			if !yield(ln, tasks) {
				return
			}
		}
	}
}

// verdict is what becomes of a task that walk shows.
type verdict uint8

const (
	skip  verdict = iota
	take          // it was taken out, by remove
	leave         // it is skipped, and so are all behind it in its lane
	stop
)

// walk shows the tasks of some rows, and all open ones if open, in the order in which they should go, each once and at most limit
// of them, until fn says stop. fn may take out and settle the task that it is shown, and no other.
//
// Of the lanes that have but open tasks it touches those only that it shows: there may be many.
func (r *ready) walk(now, agingMillis int64, limit int, open bool, of rows, fn func(*task) verdict) {
	var walks [vectord.MaxPriority + 1]levelWalk
	for i := range walks {
		walks[i] = levelWalk{level: &r.levels[i], priority: int64(i), open: open, oldest: math.MaxInt64}
	}
	for ln, tasks := range of {
		if first := after(tasks, 0); first != nil {
			walks[first.priority()].add(ln, part{tasks, first})
		}
	}
	var levels []*levelWalk
	for i := range walks {
		w := &walks[i]
		heap.Init(&w.heads)
		w.findOldest()
		if w.more() {
			levels = append(levels, w)
		}
	}
	effective := func(w *levelWalk) int64 {
		if agingMillis <= 0 {
			return w.priority
		}
		return w.priority + max(now-w.age(), 0)/agingMillis
	}
	for ; len(levels) > 0 && limit > 0; limit-- {
		best := slices.MinFunc(levels, func(a, b *levelWalk) int {
			return cmp.Or(cmp.Compare(effective(b), effective(a)), cmp.Compare(a.age(), b.age()))
		})
		if !best.show(fn) {
			break
		}
		if !best.more() {
			levels = slices.Delete(levels, slices.Index(levels, best), slices.Index(levels, best)+1)
		}
	}
	for i := range walks {
		for _, ln := range walks[i].opened {
			ln.opened = false
			ln.moved()
		}
	}
}

// cursor is how far a walk has come in a lane.
type cursor struct {
	lane *lane
	next *task // of all parts the first
	part       // of most lanes the only one
	more []part
}

// part is how far a walk has come in a row. A task may be in several of a lane.
type part struct {
	tasks *row
	first *task // that was not shown; nil: there is none
}

// advance goes on behind the task that was shown.
func (c *cursor) advance() {
	shown := c.next
	c.next = c.part.advance(shown, nil)
	for i := range c.more {
		c.next = c.more[i].advance(shown, c.next)
	}
}

// advance goes on behind the task that was shown, and returns the part's first or other, whichever comes before.
func (p *part) advance(shown, other *task) *task {
	if p.first == shown {
		p.first = after(p.tasks, shown.seq)
	}
	if p.first == nil || other != nil && other.seq < p.first.seq {
		return other
	}
	return p.first
}

type cursors []cursor

// Len implements heap.Interface, as do the methods below.
func (c cursors) Len() int { return len(c) }

// Less implements heap.Interface.
func (c cursors) Less(i, j int) bool { return before(c[i].lane, c[i].next, c[j].lane, c[j].next) }

// before reports whether a lane whose first task is first goes before another.
func before(a *lane, first *task, b *lane, second *task) bool {
	return a.pass < b.pass || a.pass == b.pass && first.seq < second.seq
}

// Swap implements heap.Interface.
func (c cursors) Swap(i, j int) { c[i], c[j] = c[j], c[i] }

// Push implements heap.Interface.
func (c *cursors) Push(x any) { *c = append(*c, x.(cursor)) }

// Pop implements heap.Interface.
func (c *cursors) Pop() any {
	*c = (*c)[:len(*c)-1]
	return nil // nobody wants it
}

// levelWalk is how far a walk has come in a level.
type levelWalk struct {
	level    *level
	priority int64
	open     bool
	opened   []*lane
	heads    cursors // in the opened lanes
	// oldest is the least readyAt of the heads: the age of what was shown and left raises nothing behind it.
	oldest int64
}

// add takes in a part of a lane.
func (w *levelWalk) add(ln *lane, p part) {
	if !ln.opened {
		w.openLane(ln)
		ln.head = len(w.heads)
		w.heads = append(w.heads, cursor{lane: ln, next: p.first, part: p})
		if w.open && ln.front != nil {
			w.add(ln, part{&ln.open, ln.front})
		}
		return
	}
	c := &w.heads[ln.head]
	c.more = append(c.more, p)
	if p.first.seq < c.next.seq {
		c.next = p.first
	}
}

// openLane has a lane go by its cursor instead of by what its level knows.
func (w *levelWalk) openLane(ln *lane) {
	ln.opened = true
	w.opened = append(w.opened, ln)
	w.level.turns.remove(ln)
	w.level.ages.remove(ln)
}

// more reports whether there is a task to be shown, which is the first head's then.
func (w *levelWalk) more() bool {
	for w.open && len(w.level.turns.lanes) > 0 {
		ln := w.level.turns.lanes[0]
		if len(w.heads) > 0 && before(w.heads[0].lane, w.heads[0].next, ln, ln.front) {
			break
		}
		w.openLane(ln)
		w.oldest = min(w.oldest, ln.front.readyAt)
		heap.Push(&w.heads, cursor{lane: ln, next: ln.front, part: part{&ln.open, ln.front}})
	}
	return len(w.heads) > 0
}

// age returns the time since when the oldest of the tasks has waited that are first in their lanes.
func (w *levelWalk) age() int64 {
	if w.open && len(w.level.ages.lanes) > 0 {
		return min(w.oldest, w.level.ages.lanes[0].front.readyAt)
	}
	return w.oldest
}

// show shows the next task of a level and reports whether the walk goes on.
func (w *levelWalk) show(fn func(*task) verdict) bool {
	l, head := w.level, &w.heads[0]
	t := head.next
	readyAt := t.readyAt
	ln, pass := head.lane, head.lane.pass
	done := false
	switch fn(t) {
	case take:
		weight := t.new.FairnessWeight
		if weight == 0 {
			weight = 1
		}
		ln.pass = pass + 1/weight
		l.pass = max(l.pass, pass)
	case leave:
		done = true
	case stop:
		return false
	}
	if !done {
		head.advance()
	}
	if done || head.next == nil {
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
	was := w.oldest
	w.oldest = math.MaxInt64
	for i := range w.heads {
		if w.oldest = min(w.oldest, w.heads[i].next.readyAt); w.oldest == was {
			return
		}
	}
}

// laneHeap is a heap of lanes that know where they are in it.
type laneHeap struct {
	lanes  []*lane
	which  int // of their places
	before func(a, b *lane) bool
}

// set takes in a lane that has open tasks, moves it, or takes it out if it has none.
func (h *laneHeap) set(ln *lane) {
	switch {
	case ln.front == nil:
		h.remove(ln)
	case ln.at[h.which] < 0:
		heap.Push(h, ln)
	default:
		heap.Fix(h, ln.at[h.which])
	}
}

func (h *laneHeap) remove(ln *lane) {
	if ln.at[h.which] >= 0 {
		heap.Remove(h, ln.at[h.which])
	}
}

// Len implements heap.Interface, as do the methods below.
func (h *laneHeap) Len() int { return len(h.lanes) }

// Less implements heap.Interface.
func (h *laneHeap) Less(i, j int) bool { return h.before(h.lanes[i], h.lanes[j]) }

// Swap implements heap.Interface.
func (h *laneHeap) Swap(i, j int) {
	h.lanes[i], h.lanes[j] = h.lanes[j], h.lanes[i]
	h.lanes[i].at[h.which], h.lanes[j].at[h.which] = i, j
}

// Push implements heap.Interface.
func (h *laneHeap) Push(x any) {
	ln := x.(*lane)
	ln.at[h.which] = len(h.lanes)
	h.lanes = append(h.lanes, ln)
}

// Pop implements heap.Interface.
func (h *laneHeap) Pop() any {
	last := len(h.lanes) - 1
	h.lanes[last].at[h.which] = -1
	h.lanes[last] = nil
	h.lanes = h.lanes[:last]
	return nil // nobody wants it
}
