package scheduler

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync/atomic"

	"github.com/vectord/vectord"
)

// agent is an agent. The scheduler's mu guards it but for the counters.
type agent struct {
	id       string
	number   uint64 // by which agents are in order
	config   vectord.AgentConfig
	draining bool
	held     map[vectord.TaskID]*task // that it has leases of
	// heldDurable is how many of them are durable: the same on every replica.
	heldDurable int

	// What follows is the dispatcher's.
	reserved int     // tasks chosen for it whose grants are on their way
	polls    []*poll // that wait, the longest first
	idleAt   int64   // when it was given a task last
	turn     uint64  // likewise, counted in grants
	// firstQueue is which of its queues was looked at first last. It does not follow turn: an agent that takes as many tasks at
	// a time as it has queues would begin with the same one each time.
	firstQueue int

	inFlight  atomic.Int64 // len(held)
	latency   atomic.Uint64
	lastSeen  atomic.Int64
	completed atomic.Uint64
	failed    atomic.Uint64
}

const (
	defaultLeaseTTL = 30 // seconds
	// latencyWeight is what the last run time counts in the mean.
	latencyWeight = 0.2
)

func (s *Scheduler) newAgent(id string) *agent {
	s.nextAgent++
	a := &agent{id: id, number: s.nextAgent, held: map[vectord.TaskID]*task{}}
	s.agents[id] = a
	return a
}

func (s *Scheduler) configure(a *agent, c vectord.AgentConfig) {
	a.config = c
	s.scattered++
	s.registry.Store(nil)
	if len(a.polls) > 0 {
		s.relatePolls()
		s.freed(a) // of queues that fall back to one of its own, too
	}
	for q := range s.queuesOf(a) {
		s.rethink(q)
	}
}

// rethink has all tasks of a queue matched anew, and those with vectors look for their nearest agents again.
func (s *Scheduler) rethink(q *queue) {
	now := s.now()
	for p := range q.queued {
		q.queued[p].Scan(func(_ uint64, t *task) bool {
			if !t.routed && t.preferred == "" {
				return true
			}
			t.routed = false // of those that are reserved, too: they may come back
			if t.lane != nil {
				q.ready.settle(t, now)
			}
			return true
		})
	}
	q.anew = true
	q.rethought++
	s.fresh[q] = struct{}{}
}

func (s *Scheduler) dropAgent(a *agent) {
	for _, q := range s.queues {
		delete(q.pollers, a)
	}
	for _, p := range a.polls {
		p.end()
	}
	a.polls = nil
	delete(s.agents, a.id)
	s.registry.Store(nil)
}

// queuesOf returns the queues that an agent serves, of those that there are.
func (s *Scheduler) queuesOf(a *agent) func(yield func(*queue) bool) {
	return func(yield func(*queue) bool) {
		for _, name := range a.config.Queues {
			if q := s.queues[name]; q != nil && !yield(q) {
				return
			}
		}
	}
}

func (a *agent) seen(now int64) { a.lastSeen.Store(now) }

func (a *agent) hold(t *task) {
	if a.held[t.id] == nil && t.queue.durable() {
		a.heldDurable++
	}
	a.held[t.id] = t
	a.inFlight.Store(int64(len(a.held)))
}

func (a *agent) letGo(t *task) {
	if a.held[t.id] != nil && t.queue.durable() {
		a.heldDurable--
	}
	delete(a.held, t.id)
	a.inFlight.Store(int64(len(a.held)))
}

// free returns how many more tasks the agent can have.
func (a *agent) free() int { return a.config.Capacity - len(a.held) - a.reserved }

// count counts the end of an attempt that took so long.
func (a *agent) count(status vectord.TaskStatus, millis int64) {
	switch status {
	case vectord.TaskCompleted:
		a.completed.Add(1)
	case vectord.TaskFailed:
		a.failed.Add(1)
		return // failures may be quick
	default:
		return
	}
	a.observe(float64(millis))
}

func (a *agent) observe(millis float64) {
	if mean := math.Float64frombits(a.latency.Load()); mean > 0 {
		millis = (1-latencyWeight)*mean + latencyWeight*millis
	}
	a.latency.Store(math.Float64bits(max(millis, 0.001))) // 0: nothing was observed
}

func (a *agent) status(now int64) vectord.AgentStatus {
	switch {
	case now-a.lastSeen.Load() > int64(a.config.LeaseTTLSeconds)*1000 && len(a.polls) == 0:
		return vectord.AgentOffline
	case a.draining:
		return vectord.AgentDraining
	}
	return vectord.AgentActive
}

// load returns how busy the agent is; reference is what counts as a long run time, in milliseconds.
func (a *agent) load(reference float64) vectord.AgentLoad {
	l := vectord.AgentLoad{LatencyMS: math.Float64frombits(a.latency.Load())}
	l.TaskRatio = float64(int(a.inFlight.Load())+a.reserved) / float64(a.config.Capacity)
	if reference > 0 {
		l.LatencyRatio = min(l.LatencyMS/reference, 1)
	}
	l.Score = 0.7*l.TaskRatio + 0.3*l.LatencyRatio
	return l
}

// unsuited says why the agent cannot have the task at all or just now, whatever its similarity; empty if it can.
func (a *agent) unsuited(tags []string, pin string, now int64) string {
	if pin != "" && pin != a.id {
		return "the task is for agent " + pin
	}
	if tag := a.missing(tags); tag != "" {
		return "missing tag " + tag
	}
	if status := a.status(now); status != vectord.AgentActive {
		return string(status)
	}
	return ""
}

// missing returns one of the tags that the agent has not, empty if it has all.
func (a *agent) missing(tags []string) string {
	for _, tag := range tags {
		if !slices.Contains(a.config.Capabilities, tag) {
			return tag
		}
	}
	return ""
}

func (a *agent) busy() string {
	return fmt.Sprintf("at capacity %d/%d", a.config.Capacity-a.free(), a.config.Capacity)
}

// registry is which agents serve which queues, and what they are capable of. It is immutable.
type registry struct {
	byQueue map[string][]capability
}

// capability is an agent and what it can do, as of when the registry was made.
type capability struct {
	agent   *agent
	vectors [][]float32 // of length 1
}

// snapshot returns the registry. It is made anew when it is first asked for after a change. The scheduler's mu is held.
func (s *Scheduler) snapshot() *registry {
	if r := s.registry.Load(); r != nil {
		return r
	}
	r := &registry{byQueue: map[string][]capability{}}
	agents := make([]*agent, 0, len(s.agents))
	for _, a := range s.agents {
		agents = append(agents, a)
	}
	slices.SortFunc(agents, func(a, b *agent) int { return cmp.Compare(a.number, b.number) })
	if s.scattered > len(agents)/scatteredPart {
		layOut(agents)
		s.scattered = 0
	}
	for _, a := range agents {
		for _, name := range a.config.Queues {
			r.byQueue[name] = append(r.byQueue[name], capability{a, a.config.Vectors})
		}
	}
	s.registry.Store(r)
	return r
}

// scatteredPart is which part of the agents, one in so many, may have come since their vectors were laid out. That takes longer
// than what else there is to a snapshot, and agents may come and tasks be compared in turns.
const scatteredPart = 8

// layOut moves the agents' vectors into one piece of memory, in the order in which tasks are compared with them: many are read
// several times as fast so. Whoever reads the old ones may go on.
func layOut(agents []*agent) {
	size := 0
	for _, a := range agents {
		for _, v := range a.config.Vectors {
			size += len(v)
		}
	}
	all := make([]float32, 0, size)
	for _, a := range agents {
		vectors := make([][]float32, len(a.config.Vectors))
		for i, v := range a.config.Vectors {
			begin := len(all)
			all = append(all, v...)
			vectors[i] = all[begin:len(all):len(all)]
		}
		a.config.Vectors = vectors
	}
}
