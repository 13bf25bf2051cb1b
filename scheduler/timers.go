package scheduler

import "container/heap"

// timers are the tasks to which something happens by itself, the next one first; at the same time, in the order of the tasks.
type timers struct{ tasks []timed }

type timed struct {
	at   int64
	task *task
}

// set takes a task in, moves it, or takes it out, as its due says.
func (h *timers) set(t *task) {
	at := t.due()
	switch {
	case at == 0:
		h.remove(t)
	case t.timer < 0:
		heap.Push(h, timed{at, t})
	case h.tasks[t.timer].at != at:
		h.tasks[t.timer].at = at
		heap.Fix(h, t.timer)
	}
}

func (h *timers) remove(t *task) {
	if t.timer >= 0 {
		heap.Remove(h, t.timer)
	}
}

// next returns the first task and when it is due; nil if there is none.
func (h *timers) next() (*task, int64) {
	if len(h.tasks) == 0 {
		return nil, 0
	}
	return h.tasks[0].task, h.tasks[0].at
}

// Len implements heap.Interface, as do the methods below.
func (h *timers) Len() int { return len(h.tasks) }

// Less implements heap.Interface.
func (h *timers) Less(i, j int) bool {
	a, b := h.tasks[i], h.tasks[j]
	return a.at < b.at || a.at == b.at && a.task.seq < b.task.seq
}

// Swap implements heap.Interface.
func (h *timers) Swap(i, j int) {
	h.tasks[i], h.tasks[j] = h.tasks[j], h.tasks[i]
	h.tasks[i].task.timer, h.tasks[j].task.timer = i, j
}

// Push implements heap.Interface.
func (h *timers) Push(x any) {
	t := x.(timed)
	t.task.timer = len(h.tasks)
	h.tasks = append(h.tasks, t)
}

// Pop implements heap.Interface.
func (h *timers) Pop() any {
	last := h.tasks[len(h.tasks)-1]
	h.tasks[len(h.tasks)-1] = timed{}
	h.tasks = h.tasks[:len(h.tasks)-1]
	last.task.timer = -1
	return last
}
