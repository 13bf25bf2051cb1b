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
	walks   uint64               // so far
}

type level struct {
	lanes map[string]*lane // by fairness key
	pass  float64          // of the lane that was served last
}

// lane holds the tasks of one fairness key and priority.
type lane struct {
	key   string
	level *level
	pass  float64
	open  row // the tasks that every agent of the queue may have
	rest  row // the others; they are on shelves, too

	walk uint64 // that has come by last, counted by ready.walks
	head int    // which of its level's heads it is in that walk, while these are being put together
}

// row holds tasks by their seq.
type row = btree.Map[uint64, *task]

// idleLanesMax is how many empty lanes a level remembers, so that a key does not get rid of its past by a pause.
const idleLanesMax = 1_024

func (r *ready) init() {
	r.shelves.init()
	r.held = map[*lane]struct{}{}
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
		ln = &lane{key: t.new.FairnessKey, level: l}
		l.lanes[t.new.FairnessKey] = ln
	}
	if ln.empty() {
		ln.pass = max(ln.pass, l.pass)
	}
	t.lane = ln
	r.count++
	ln.rowOf(t).Load(t.seq, t)
	r.settle(t, now)
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
		first := after(&ln.open, 0)
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

// suiting yields the rows of the tasks that an agent may have: there are no others, though some of these it may not have, or not yet.
func (r *ready) suiting(a *agent, serves bool) rows {
	return func(yield func(*lane, *row) bool) {
		if serves {
			for i := range r.levels {
				for _, ln := range r.levels[i].lanes {
					if !yield(ln, &ln.open) {
						return
					}
				}
			}
		}
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

// walk shows the tasks of some rows in the order in which they should go, each once and at most limit of them, until fn says
// stop. fn may take out and settle the task that it is shown, and no other.
func (r *ready) walk(now, agingMillis int64, limit int, of rows, fn func(*task) verdict) {
	r.walks++
	var begun [vectord.MaxPriority + 1]levelWalk
	for ln, tasks := range of {
		if first := after(tasks, 0); first != nil {
			begun[first.priority()].add(r.walks, ln, part{tasks, first})
		}
	}
	var levels []*levelWalk
	for i := range begun {
		if w := &begun[i]; len(w.heads) > 0 {
			w.begin(&r.levels[i], int64(i))
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
func (c cursors) Less(i, j int) bool {
	a, b := &c[i], &c[j]
	return a.lane.pass < b.lane.pass || a.lane.pass == b.lane.pass && a.next.seq < b.next.seq
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
	heads    cursors
	// oldest is the least readyAt of the heads: the age of what was shown and left raises nothing behind it.
	oldest int64
}

// add takes in a part of a lane.
func (w *levelWalk) add(walk uint64, ln *lane, p part) {
	if ln.walk != walk {
		ln.walk, ln.head = walk, len(w.heads)
		w.heads = append(w.heads, cursor{lane: ln, next: p.first, part: p})
		return
	}
	c := &w.heads[ln.head]
	c.more = append(c.more, p)
	if p.first.seq < c.next.seq {
		c.next = p.first
	}
}

// begin is called when all parts were taken in.
func (w *levelWalk) begin(l *level, priority int64) {
	w.level, w.priority, w.oldest = l, priority, math.MaxInt64
	for i := range w.heads {
		w.oldest = min(w.oldest, w.heads[i].next.readyAt)
	}
	heap.Init(&w.heads)
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
	before := w.oldest
	w.oldest = math.MaxInt64
	for i := range w.heads {
		if w.oldest = min(w.oldest, w.heads[i].next.readyAt); w.oldest == before {
			return
		}
	}
}
