package scheduler

import "github.com/vectord/vectord"

// volatileDoneMax is how many terminal tasks that are in memory only are kept for whoever asks for their results.
const volatileDoneMax = 10_000

// volatileKeysMax bounds the idempotency keys of such tasks that are remembered.
const volatileKeysMax = 100_000

// volatileNumbers is where the numbers of leases begin that are in no log: above all that a log gives.
const volatileNumbers = 1 << 63

// volatile is what there is of tasks that are in memory only.
type volatile struct {
	timers    timers
	done      map[vectord.TaskID]*task // terminal ones
	order     []vectord.TaskID         // of done, a ring
	at        int
	decisions map[vectord.TaskID][][]byte
	keys      map[volatileKey]submittedEarlier
	last      uint64  // number given last
	time      int64   // of the last change
	ended     []*task // since they were announced
	driven    int64   // when the driver will look at the timers; 0: not soon
}

type volatileKey struct {
	queue *queue
	key   [16]byte
}

// init begins numbers that no earlier process has given.
func (v *volatile) init(now int64) {
	v.done, v.decisions, v.keys = map[vectord.TaskID]*task{}, map[vectord.TaskID][][]byte{}, map[volatileKey]submittedEarlier{}
	v.order = make([]vectord.TaskID, 0, 64)
	v.last = volatileNumbers | uint64(now)<<20
}

func (v *volatile) number() uint64 {
	v.last++
	return v.last
}

// keep takes a terminal task in and drops the oldest one if there are too many.
func (v *volatile) keep(s *Scheduler, t *task) {
	v.done[t.id] = t
	if len(v.order) < volatileDoneMax {
		v.order = append(v.order, t.id)
	} else {
		v.forget(v.order[v.at])
		v.order[v.at] = t.id
		v.at = (v.at + 1) % volatileDoneMax
	}
	if len(v.keys) > volatileKeysMax {
		for k, e := range v.keys {
			if s.tasks[e.id] == nil && v.done[e.id] == nil {
				delete(v.keys, k)
			}
		}
	}
}

func (v *volatile) forget(id vectord.TaskID) {
	delete(v.done, id)
	delete(v.decisions, id)
}

func (v *volatile) decide(t *task, decision []byte) {
	if len(decision) > 0 {
		v.decisions[t.id] = append(v.decisions[t.id], decision)
	}
}
