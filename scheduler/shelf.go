package scheduler

import (
	"iter"
	"slices"
)

// addressedMax is how many agents a task is put on the shelves of; if it may go to more it is on the shelf of its tags.
const addressedMax = 8

// shelves are the tasks of a queue that not every one of its agents may have, by who may.
//
// Invariant: a task that an agent may have, by Scheduler.may, is on a shelf that suiting yields for it. A task may be on several,
// and on one of an agent that may not have it, or not yet; a task that is far from all and for nobody is on none. What
// may says changes with the task's route, for which ready.settle is called; with the configuration of the queue or of an
// agent, for which Scheduler.rethink is; and with the agents' status, which takes no shelf to be asked.
type shelves [uncompared + 1]map[string]*shelf

// audience is who may have the tasks of a shelf.
type audience uint8

const (
	byTags     audience = iota // agents of the queue that have the tags
	byAgent                    // one agent
	byQueue                    // agents of another queue, to which this one falls back
	uncompared                 // whoever asks and has the tags: he is to compare the task with the agents
)

// shelfKey is an audience by the name of its agent or queue, or by what tagsKey makes of its tags.
type shelfKey struct {
	audience
	name string
}

type shelf struct {
	tags []string // byTags, uncompared: that an agent must have
	rows map[*lane]*row
}

func (x *shelves) init() {
	for i := range x {
		x[i] = map[string]*shelf{}
	}
}

func (sh *shelf) put(t *task) {
	tasks := sh.rows[t.lane]
	if tasks == nil {
		tasks = &row{}
		sh.rows[t.lane] = tasks
	}
	tasks.Load(t.seq, t)
}

// place puts a task that is ready on the shelves of those who may have it by now.
func (x *shelves) place(t *task) {
	var room [addressedMax]shelfKey
	keys := t.audiences(room[:0])
	if slices.Equal(keys, t.shelves) {
		return
	}
	x.takeOff(t)
	t.shelves = slices.Clone(keys)
	for _, k := range keys {
		sh := x[k.audience][k.name]
		if sh == nil {
			sh = &shelf{tags: t.new.Tags, rows: map[*lane]*row{}}
			x[k.audience][k.name] = sh
		}
		sh.put(t)
	}
}

// takeOff takes a task that is ready off its shelves.
func (x *shelves) takeOff(t *task) {
	for _, k := range t.shelves {
		sh := x[k.audience][k.name]
		tasks := sh.rows[t.lane]
		if tasks.Delete(t.seq); tasks.Len() > 0 {
			continue
		}
		if delete(sh.rows, t.lane); len(sh.rows) == 0 {
			delete(x[k.audience], k.name)
		}
	}
	t.shelves = nil
}

// suiting yields the shelves of the tasks that an agent may have. serves says whether it serves the queue.
func (x *shelves) suiting(a *agent, serves bool) iter.Seq[*shelf] {
	return func(yield func(*shelf) bool) {
		if sh := x[byAgent][a.id]; sh != nil && !yield(sh) {
			return
		}
		for _, name := range a.config.Queues {
			if sh := x[byQueue][name]; sh != nil && !yield(sh) {
				return
			}
		}
		for _, sh := range x[uncompared] {
			if a.missing(sh.tags) == "" && !yield(sh) {
				return
			}
		}
		if !serves {
			return
		}
		for _, sh := range x[byTags] {
			if a.missing(sh.tags) == "" && !yield(sh) {
				return
			}
		}
	}
}

// audiences appends who may have a constrained task now.
func (t *task) audiences(dst []shelfKey) []shelfKey {
	if pin := t.new.AgentID; pin != "" {
		return append(dst, shelfKey{byAgent, pin})
	}
	if len(t.new.Vector) > 0 && !t.routed {
		return append(dst, shelfKey{uncompared, tagsKey(t.new.Tags)})
	}
	if len(t.new.Vector) > 0 {
		if candidates, all := t.candidates(); all && len(candidates) <= addressedMax {
			for _, c := range candidates {
				dst = append(dst, shelfKey{byAgent, c.agent.id})
			}
			return dst
		}
		if _, far := t.threshold(); far {
			switch kind, name := t.queue.fallback(); kind {
			case "any": // by its tags
			case "queue":
				return append(dst, shelfKey{byQueue, name})
			case "agent":
				return append(dst, shelfKey{byAgent, name})
			default:
				return dst
			}
		}
	}
	return append(dst, shelfKey{byTags, tagsKey(t.new.Tags)})
}

// tagsKey returns the same for the same tags in any order.
func tagsKey(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	return string(appendStrings(nil, slices.Sorted(slices.Values(tags))))
}
