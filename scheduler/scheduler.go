// Package scheduler keeps queues of tasks and gives the tasks to agents.
//
// It is a state machine and a dispatcher. The machine (apply.go) is a function of the log's commands: what tasks, queues,
// agents and states there are, who holds which lease and until when. It reads no clock and chooses nothing, so every
// replica that applies the same log holds the same rows. The dispatcher (dispatch.go, route.go) chooses, on the node that
// proposes: it keeps the queued tasks in the order in which they should go, finds the agent for each, and proposes the
// grant. What the dispatcher knows is derived and is lost with the process: the queued tasks are in the rows.
//
// Tasks of a queue whose durability is "memory" take the same way without the log and without rows.
//
// Scheduler.mu guards all of it. It is held while commands are applied and while tasks are matched with agents, never
// while waiting for the log, for a sync of the disk or for a model.
package scheduler

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/btree"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage"
)

// Log puts commands in one order and has every replica apply them. Propose returns once the command is applied and durable.
type Log interface {
	Propose(ctx context.Context, command []byte) (vectord.Result, error)
}

// Points makes commands of changes of points that come with the completion of a task.
type Points interface {
	// PrepareWrites checks the points and the memories of a completion and returns the form in which they are applied, and what
	// becomes of the memories. release, if not nil, is to be called once the outcome is known: until then nobody else stores
	// memories of the same scopes.
	PrepareWrites(ctx context.Context, e *vectord.Effects) (writes []byte, memories []vectord.MemoryResult, release func(), err error)
}

// WritePoints applies what PrepareWrites returned, all or nothing, in the commit of the command that carries it. refusal is
// the client's error.
type WritePoints = func(writes []byte) (refusal, err error)

// Options configure Open.
type Options struct {
	// Embed makes vectors of texts; nil: there is no model.
	Embed  func(ctx context.Context, texts []string) ([][]float32, error)
	Points Points       // nil: completions carry no points
	Now    func() int64 // milliseconds of the log's clock, which never goes back or jumps; nil: from time.Now, once
	Logger *slog.Logger // nil: slog.Default()
	// Replicated says that other nodes apply the same log: this one has no say over tasks until Lead gives it to it.
	Replicated bool
	Metrics    prometheus.Registerer // nil: none
}

// Scheduler implements the server's interface of the same name, and applies the commands of its log. Its methods may be
// called from any goroutine, Apply and Committed from the log's alone.
type Scheduler struct {
	store   *storage.Store
	log     Log // set by Start
	o       Options
	metrics *metrics
	now     func() int64

	states states

	mu         sync.Mutex // guards what follows
	queues     map[string]*queue
	queueByID  map[uint32]*queue
	nextQueue  uint32
	tasks      map[vectord.TaskID]*task   // that are not terminal
	dependents map[vectord.TaskID][]*task // tasks that wait for one, in their order
	agents     map[string]*agent
	nextAgent  uint64
	timers     timers // of tasks that are durable
	volatile   volatile
	events     events
	waiters    map[vectord.TaskID][]chan struct{} // for the end of a task
	ended      []*task                            // since the last Committed
	ending     map[vectord.TaskID]*task           // terminal tasks whose rows may not say so yet
	fresh      map[*queue]struct{}                // that have tasks to be dispatched
	lastTime   int64                              // of the log
	driven     int64                              // when the driver will look at the timers; 0: not soon

	// What follows is the dispatcher's.
	freedAgents map[*agent]struct{} // that wait and can have more since the last dispatch
	fallbacks   map[string][]*queue // queues by what they fall back to
	turns       uint64              // tasks chosen so far
	scattered   int                 // registrations since the agents' vectors were laid out

	leads        atomic.Pointer[leadership] // nil: another node has the say
	registry     atomic.Pointer[registry]   // nil: agents or queues have changed
	wake         chan struct{}              // the driver shall look at the timers again
	dispatchWake chan struct{}              // the dispatcher shall look at what is fresh
	stop         context.Context
	cancel       context.CancelFunc
	calls        sync.WaitGroup // whose outcome somebody must see
}

// queue is a queue. The scheduler's mu guards it.
type queue struct {
	id     uint32
	name   string
	config vectord.QueueConfig
	size   int // components of its tasks' vectors, 0 before the first

	waiting int                                               // tasks that are neither running nor terminal
	counts  [vectord.TaskCancelled + 1]int                    // tasks by status; of terminal ones, those since the start
	queued  [vectord.MaxPriority + 1]btree.Map[uint64, *task] // the queued tasks by priority and in their order

	// What follows is the dispatcher's.
	ready     ready
	pollers   map[*agent]struct{} // that wait for tasks of this queue
	fresh     []*task             // that pollers may have who did not get them yet, unless anew; some are not ready any more
	anew      bool                // pollers may have any of the tasks
	rethought uint64              // times that tasks were to be compared anew
	limiter   limiter
	keys      map[string]*keyLimit // by fairness key, of those that have leases
	runTimes  runTimes
	reserved  int // tasks that are chosen for polls
}

func (q *queue) durable() bool { return q.config.Durability != vectord.InMemory }

// The tables of the rows.
const (
	tableBody     = 'b' // task → what it was submitted with
	tableHeader   = 'h' // task → what changes of it
	tableKey      = 'k' // queue, hash of an idempotency key → the task that was submitted under it
	tableQueue    = 'q' // number → queue
	tableAgent    = 'a' // id → agent
	tableDecision = 'd' // task, attempt → why it went where it did
	tableState    = 's' // key → state without its value
	tableValue    = 'v' // key, number → a piece of a state's value
	tableCounter  = 'n' // what is counted → the last number given
)

// Open loads what storage has.
func Open(store *storage.Store, o Options) (*Scheduler, error) {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		start := time.Now()
		o.Now = func() int64 { return start.Add(time.Since(start)).UnixMilli() }
	}
	s := &Scheduler{store: store, o: o, now: o.Now, queues: map[string]*queue{}, queueByID: map[uint32]*queue{}, nextQueue: 1,
		tasks: map[vectord.TaskID]*task{}, dependents: map[vectord.TaskID][]*task{}, agents: map[string]*agent{},
		waiters: map[vectord.TaskID][]chan struct{}{}, ending: map[vectord.TaskID]*task{}, fresh: map[*queue]struct{}{}, wake: make(chan struct{}, 1),
		freedAgents: map[*agent]struct{}{}, dispatchWake: make(chan struct{}, 1)}
	s.stop, s.cancel = context.WithCancel(context.Background())
	s.volatile.init(s.now())
	s.states.init()
	s.metrics = newMetrics(s, o.Metrics)
	if err := s.load(); err != nil {
		s.cancel()
		return nil, fmt.Errorf("load tasks: %w", err)
	}
	return s, nil
}

// Start begins to serve with the log that applies its entries to this Scheduler.
func (s *Scheduler) Start(log Log) {
	s.log = log
	s.Lead(!s.o.Replicated)
}

// Close ends waiting calls and background work. The log is closed before, the store after.
func (s *Scheduler) Close() error {
	s.cancel()
	s.Lead(false)
	s.calls.Wait()
	return nil
}

// Interrupt ends waiting calls, so that a server can shut down.
func (s *Scheduler) Interrupt() { s.cancel() }

// load reads all rows of what is not terminal.
func (s *Scheduler) load() error {
	err := s.store.ScanRows(tableQueue, nil, func(key, row []byte) (bool, error) {
		var q queueRow
		if err := json.Unmarshal(row, &q); err != nil {
			return false, fmt.Errorf("queue %x: %w", key, err)
		}
		s.addQueue(&queue{id: q.ID, name: q.Name, config: q.Config, size: q.Size})
		return true, nil
	})
	if err == nil {
		err = s.store.ScanRows(tableAgent, nil, s.loadAgent)
	}
	if err == nil {
		err = s.store.ScanRows(tableCounter, nil, s.loadCounter)
	}
	if err == nil {
		err = s.loadTasks()
	}
	if err == nil {
		err = s.states.load(s.store)
	}
	return err
}

// The counters have rows, so that the number of what was deleted is not given again after a restart.
const (
	counterQueues = "queues"
	counterAgents = "agents"
)

func (x *tx) saveCounter(name string, last uint64) {
	x.batch.PutRow(tableCounter, []byte(name), binary.AppendUvarint(nil, last))
}

func (s *Scheduler) loadCounter(key, row []byte) (bool, error) {
	r := reader{b: row}
	switch last := r.uint(); string(key) {
	case counterQueues:
		s.nextQueue = max(s.nextQueue, uint32(last)+1)
	case counterAgents:
		s.nextAgent = max(s.nextAgent, last)
	}
	return true, r.end()
}

type queueRow struct {
	ID     uint32              `json:"id"`
	Name   string              `json:"name"`
	Size   int                 `json:"vector_size"`
	Config vectord.QueueConfig `json:"config"`
}

func (s *Scheduler) addQueue(q *queue) {
	q.pollers, q.keys = map[*agent]struct{}{}, map[string]*keyLimit{}
	q.ready.init()
	q.follow()
	s.queues[q.name], s.queueByID[q.id] = q, q
	s.nextQueue = max(s.nextQueue, q.id+1)
	s.registry.Store(nil)
	s.relateFallbacks()
}

// loadTasks brings up the tasks: every header that is not terminal, with its body, in the order of submission.
func (s *Scheduler) loadTasks() error {
	var tasks []*task
	err := s.store.ScanRows(tableHeader, nil, func(key, row []byte) (bool, error) {
		id, err := taskKey(key)
		if err != nil {
			return false, err
		}
		if len(row) > 1 && vectord.TaskStatus(row[1]).Terminal() {
			return true, nil
		}
		number, seq, h, err := decodeHeader(append([]byte(nil), row...))
		if err != nil {
			return false, fmt.Errorf("task %s: %w", id, err)
		}
		q := s.queueByID[number]
		if q == nil {
			return false, fmt.Errorf("task %s: queue %d is not there", id, number)
		}
		body, ok, err := s.store.Row(tableBody, id[:])
		if err != nil || !ok {
			return false, fmt.Errorf("task %s: body (found: %t): %w", id, ok, err)
		}
		t := &task{id: id, queue: q, seq: seq, header: h, size: len(body), timer: -1}
		if t.new, err = decodeBody(body); err != nil {
			return false, fmt.Errorf("task %s: %w", id, err)
		}
		tasks = append(tasks, t)
		return true, nil
	})
	if err != nil {
		return err
	}
	sortTasks(tasks)
	for _, t := range tasks {
		s.tasks[t.id] = t
	}
	for _, t := range tasks {
		s.adopt(t)
	}
	return nil
}

// adopt puts a task that was loaded where it belongs by its status.
func (s *Scheduler) adopt(t *task) {
	q := t.queue
	q.counts[t.status]++
	s.states.refer(t.new.StateRefs)
	if t.status != vectord.TaskRunning {
		q.waiting++
		s.spill(t)
	}
	switch t.status {
	case vectord.TaskQueued:
		q.queued[t.priority()].Set(t.seq, t)
		s.enqueue(t, t.updated)
	case vectord.TaskBlocked:
		for _, parent := range t.new.DependsOn {
			if s.tasks[parent] != nil {
				t.openDependencies++
				s.dependents[parent] = append(s.dependents[parent], t)
			}
		}
	case vectord.TaskRunning:
		if a := s.agents[t.agent]; a != nil {
			a.hold(t)
		}
		q.hold(t)
	}
	s.timers.set(t)
}
