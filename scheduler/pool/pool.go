package pool

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/vectord/vectord"
)

// pool keeps as many agents as its definition asks for.
type pool struct {
	supervisor *Supervisor
	name       string
	ctx        context.Context // ends with the pool: its agents stop
	cancel     context.CancelFunc
	urgent     context.Context // ends when they are to be killed rather than asked
	hurry      context.CancelFunc
	wake       chan struct{} // holds at most one: something has changed
	done       chan struct{} // closed when the last agent is gone

	mu         sync.Mutex
	definition Definition     // guarded by mu
	generation *generation    // guarded by mu
	agents     map[int]*agent // guarded by mu, by number
	warmed     bool           // guarded by mu: the generation has had MinSize agents ready
	roomSince  time.Time      // guarded by mu: since then there was always a ready agent with room; 0: there is none
	lastStart  time.Time      // guarded by mu
	notBefore  time.Time      // guarded by mu: no start earlier
	deaths     []time.Time    // guarded by mu: that count, within the window
	restarts   uint64         // guarded by mu
	failed     string         // guarded by mu: why there are no starts before notBefore
}

// generation are the agents that were started by one definition.
type generation struct {
	definition Definition
	probe      sync.Once
	stateless  bool // set by probe
}

func startPool(s *Supervisor, d Definition) *pool {
	p := &pool{supervisor: s, name: d.Name, wake: make(chan struct{}, 1), done: make(chan struct{}),
		definition: d, generation: &generation{definition: d}, agents: map[int]*agent{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.urgent, p.hurry = context.WithCancel(s.ctx)
	s.metrics.prepare(d.Name)
	go p.supervise()
	return p
}

// change goes over to another definition.
func (p *pool) change(d Definition) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx.Err() != nil {
		return vectord.Errorf(vectord.KindConflict, "pool %q is being removed", p.name)
	}
	if !p.definition.sameProcesses(d) {
		p.generation = &generation{definition: d}
		p.warmed, p.lastStart = false, time.Time{}
	}
	p.definition, p.deaths, p.notBefore, p.failed = d, nil, time.Time{}, ""
	p.changed()
	return nil
}

func (p *pool) scale(minSize, maxSize int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.definition
	if minSize != 0 {
		d.MinSize = minSize
	}
	if maxSize != 0 {
		d.MaxSize = maxSize
	}
	if err := d.check(); err != nil {
		return err
	}
	p.definition = d
	p.changed()
	return nil
}

// end stops all agents and returns when they are gone.
func (p *pool) end(ctx context.Context) {
	p.cancel()
	defer context.AfterFunc(ctx, p.hurry)()
	<-p.done
	p.hurry()
}

// changed has supervise look again.
func (p *pool) changed() {
	select {
	case p.wake <- struct{}{}:
	default: // it will
	}
}

// supervise starts and retires agents until the pool ends.
func (p *pool) supervise() {
	var living sync.WaitGroup
	timer := time.NewTimer(0)
	defer timer.Stop()
	for p.ctx.Err() == nil {
		p.mu.Lock()
		steps := plan(p.view(time.Now()))
		for _, number := range steps.retire {
			p.agents[number].retireFor(steps.reasons[number])
		}
		for range steps.start {
			a := newAgent(p, p.freeNumber())
			p.agents[a.number], p.lastStart = a, time.Now()
			living.Go(a.live)
		}
		p.mu.Unlock()
		timer.Reset(steps.wake)
		select {
		case <-p.wake:
		case <-timer.C:
		case <-p.ctx.Done():
		}
	}
	living.Wait()
	close(p.done)
}

// freeNumber returns the least number that no agent has. The caller holds mu.
func (p *pool) freeNumber() int {
	for n := 1; ; n++ {
		if p.agents[n] == nil {
			return n
		}
	}
}

// phase is where an agent is in its life.
type phase uint8

const (
	starting phase = iota
	ready          // takes tasks
	stopping       // takes no more
)

// member is what plan looks at of an agent.
type member struct {
	number    int
	phase     phase
	old       bool // of an earlier generation
	inFlight  int
	full      bool // has no room for a task
	idleSince time.Time
}

// view is what plan looks at of a pool.
type view struct {
	now                  time.Time
	minSize, maxSize     int
	warmup, idleTimeout  time.Duration
	warmed               bool
	lastStart, notBefore time.Time
	cores                int
	members              []member // by number
}

// view copies what plan looks at, and notices that the pool is warm. The caller holds mu.
func (p *pool) view(now time.Time) view {
	d := &p.definition
	v := view{now: now, minSize: d.MinSize, maxSize: d.MaxSize, warmup: time.Duration(d.WarmupIntervalMS) * time.Millisecond,
		idleTimeout: time.Duration(d.IdleTimeoutSeconds) * time.Second, lastStart: p.lastStart, notBefore: p.notBefore, cores: runtime.NumCPU()}
	readyNow := 0
	for n, a := range p.agents {
		v.members = append(v.members, member{number: n, phase: a.phase, old: a.generation != p.generation, inFlight: a.inFlight,
			full: a.inFlight >= a.capacity, idleSince: a.idleSince})
		if a.phase == ready && a.generation == p.generation {
			readyNow++
		}
	}
	slices.SortFunc(v.members, func(a, b member) int { return a.number - b.number })
	if readyNow >= d.MinSize {
		p.warmed = true
	}
	if p.failed != "" && !now.Before(p.notBefore) {
		p.failed = ""
	}
	v.warmed = p.warmed
	return v
}

// steps are what is to be done now, and after how long to look again at the latest.
type steps struct {
	start   int
	retire  []int          // numbers of agents
	reasons map[int]string // by number
	wake    time.Duration
}

// lookAgain bounds how long plan lets nothing happen.
const lookAgain = time.Minute

// plan decides. Wanted are minSize agents, or one more than are full if that is more: a spare one, so that the next task meets a ready
// process. Whether tasks wait cannot be seen from here; when every ready agent is full they may, and starts are not spread out then.
func plan(v view) (s steps) {
	s.wake, s.reasons = lookAgain, map[int]string{}
	retire := func(m member, reason string) {
		s.retire = append(s.retire, m.number)
		s.reasons[m.number] = reason
	}
	at := func(t time.Time) { s.wake = min(s.wake, max(t.Sub(v.now), 0)) }

	var current []member // that are to stay
	full, readyNow, startingNow := 0, 0, 0
	for _, m := range v.members {
		switch {
		case m.phase == stopping:
		case m.old && m.phase == ready:
			retire(m, endReplaced)
		case m.old: // retired when it is ready
		default:
			current = append(current, m)
			switch {
			case m.phase == starting:
				startingNow++
			case m.full:
				full++
				readyNow++
			default:
				readyNow++
			}
		}
	}
	wanted := min(v.maxSize, max(v.minSize, full+1))

	// Too many: those without a task go after a while, the last ones first; beyond maxSize, all at once.
	slices.SortStableFunc(current, func(a, b member) int {
		return min(b.inFlight, 1) - min(a.inFlight, 1) // the idle ones last
	})
	for n := len(current); n > wanted; n-- {
		m := current[n-1]
		idleUntil := m.idleSince.Add(v.idleTimeout)
		switch {
		case m.phase == starting:
		case n > v.maxSize:
			retire(m, endScaled)
		case m.inFlight > 0:
		case !v.now.Before(idleUntil):
			retire(m, endIdle)
		default:
			at(idleUntil)
		}
	}

	missing := min(wanted-len(current), v.maxSize-len(v.members))
	if missing <= 0 {
		return s
	}
	if v.now.Before(v.notBefore) {
		at(v.notBefore)
		return s
	}
	pressed := readyNow > 0 && full == readyNow
	if v.warmed || pressed {
		s.start = max(0, min(missing, v.cores-startingNow))
		return s
	}
	if next := v.lastStart.Add(v.warmup); !v.lastStart.IsZero() && v.now.Before(next) {
		at(next)
		return s
	}
	s.start = 1
	if missing > 1 {
		at(v.now.Add(v.warmup))
	}
	return s
}

// died counts an end that was not asked for. Those that count use up the restart budget.
func (p *pool) died(a *agent, reason string, cause error, counts bool) {
	p.supervisor.metrics.deaths.WithLabelValues(p.name, reason).Inc()
	logger := p.supervisor.options.Logger.With("pool", p.name, "agent", a.id)
	logger.Warn("an agent's process ended", "reason", reason, "error", cause)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.restarts++
	if !counts || a.generation != p.generation {
		return
	}
	now, r := time.Now(), p.definition.Restart
	window := time.Duration(r.WindowSeconds) * time.Second
	p.deaths = append(slices.DeleteFunc(p.deaths, func(t time.Time) bool { return now.Sub(t) > window }), now)
	if len(p.deaths) <= r.Max {
		p.notBefore = now.Add(pause(r.Backoff, len(p.deaths)))
		return
	}
	p.failed = fmt.Sprintf("%d processes ended within %d seconds, the last one by %s", len(p.deaths), r.WindowSeconds, reason)
	if cause != nil {
		p.failed += ": " + cut(cause.Error(), vectord.MaxErrorBytes)
	}
	p.deaths, p.notBefore = nil, now.Add(window)
	logger.Error("the pool failed and pauses", "reason", p.failed, "retry_in", window.String())
}

// pause returns the pause before start number n after a death.
func pause(b vectord.Backoff, n int) time.Duration {
	ms := min(float64(b.InitialMS)*math.Pow(b.Factor, float64(n-1)), float64(b.MaxMS))
	ms *= 1 + b.Jitter*(2*rand.Float64()-1)
	return time.Duration(ms * float64(time.Millisecond))
}

// noteRoom sees whether there is a ready agent with room. The caller holds mu.
func (p *pool) noteRoom() {
	for _, a := range p.agents {
		if a.phase == ready && a.inFlight < a.capacity {
			if p.roomSince.IsZero() {
				p.roomSince = time.Now()
			}
			return
		}
	}
	p.roomSince = time.Time{}
}

// leave forgets an agent, whose number is free then.
func (p *pool) leave(a *agent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.agents, a.number)
	p.noteRoom()
	p.changed()
}

func (p *pool) status() Status {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Definition: p.definition.withDefaults(), Restarts: p.restarts, Failed: p.failed, Warming: !p.warmed}
	for name := range s.Definition.Env {
		s.Definition.Env[name] = ""
	}
	for _, a := range p.agents {
		switch {
		case a.phase == starting:
			s.Starting++
		case a.phase == stopping:
			s.Stopping++
		case a.inFlight > 0:
			s.Busy++
		default:
			s.Ready++
		}
	}
	return s
}
