// Package pool runs agents as local processes: it starts them, keeps some ready, puts tasks to them over stdin and stdout, and lets
// none outlive the server.
//
// A Supervisor has pools, a pool has agents, and an agent is one process for as long as it lives. An agent leases tasks like any other
// agent, by long polls through Tasks, and gives an account of each. Locks: a Supervisor's before a pool's before an agent's.
package pool

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
)

// Tasks is where agents get their tasks. Its methods may be called at the same time.
type Tasks interface {
	RegisterAgent(ctx context.Context, id string, config vectord.AgentConfig) error
	// RemoveAgent ends the agent's leases.
	RemoveAgent(ctx context.Context, id string) error
	HeartbeatAgent(id string, h vectord.AgentHeartbeat) (vectord.AgentNews, error)
	// Lease waits for the first task as long as the request says, or until ctx ends, which is no error: there are no tasks then.
	Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error)
	Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error)
	// EndLeases ends all leases of an agent at once. Their attempts have failed with vectord.ErrorAgentDied, and the reason.
	EndLeases(ctx context.Context, agentID, reason string) error
}

// Options say how a Supervisor works, and what it may start.
type Options struct {
	Tasks Tasks // must be set

	// AllowExec are the absolute paths of the programs that Put may start, with any arguments: whoever may call Put may do all that
	// these programs can be told to do. Empty: none.
	AllowExec []string
	// AllowEnv are the variables that Put may set for these programs. Empty: none, for a variable can change what a program is.
	AllowEnv []string
	// Pools are the operator's own. Put may start them again as they are, with other sizes, queues and limits.
	Pools []Definition

	Dir      string                // of records of processes, for the next start to kill those that a killed server left; empty: no records
	ToolText bool                  // tasks find MCP servers by the texts of their tools: there is a model that makes vectors of texts
	Logger   *slog.Logger          // nil: nothing is logged
	Metrics  prometheus.Registerer // nil: nothing is measured
}

// Supervisor runs pools. Its methods may be called at the same time.
type Supervisor struct {
	options Options
	metrics *metrics
	spawner *spawner
	ctx     context.Context // ends when there is no more time for being polite
	hurry   context.CancelFunc

	mu     sync.Mutex
	pools  map[string]*pool // guarded by mu
	closed bool             // guarded by mu
}

// New kills what an earlier server has left in o.Dir, and starts the operator's pools.
func New(o Options) (*Supervisor, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s := &Supervisor{options: o, pools: map[string]*pool{}}
	own := make([]Definition, len(o.Pools))
	for i, d := range o.Pools {
		own[i] = d.withDefaults()
		if err := own[i].check(); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(own[:i], func(other Definition) bool { return other.Name == d.Name }) {
			return nil, vectord.Errorf(vectord.KindInvalid, "there are two pools %q", d.Name)
		}
	}
	if len(own) > MaxPools {
		return nil, vectord.Errorf(vectord.KindInvalid, "there are %d pools, expected up to %d", len(own), MaxPools)
	}
	if o.Dir != "" {
		if err := killLeftovers(o.Dir, o.Logger); err != nil {
			return nil, err
		}
	}
	var err error
	if s.metrics, err = newMetrics(s, o.Metrics); err != nil {
		return nil, err
	}
	s.options.Pools = own
	s.spawner = newSpawner()
	s.ctx, s.hurry = context.WithCancel(context.Background())
	for _, d := range own {
		s.pools[d.Name] = startPool(s, d)
	}
	return s, nil
}

// Put creates a pool or changes one. Processes whose own definition changes finish their tasks and are replaced.
func (s *Supervisor) Put(d Definition) error {
	d = d.withDefaults()
	if err := d.check(); err != nil {
		return err
	}
	if err := s.permit(&d); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return vectord.Errorf(vectord.KindClosed, "the server is shutting down")
	}
	if p := s.pools[d.Name]; p != nil {
		return p.change(d)
	}
	if len(s.pools) >= MaxPools {
		return vectord.Errorf(vectord.KindLimited, "pool %q: there are %d pools, which is as many as there may be", d.Name, MaxPools)
	}
	s.pools[d.Name] = startPool(s, d)
	return nil
}

// permit refuses a definition that the operator has not allowed.
func (s *Supervisor) permit(d *Definition) error {
	if slices.ContainsFunc(s.options.Pools, func(own Definition) bool { return own.sameProgram(d) }) {
		return nil
	}
	if !slices.Contains(s.options.AllowExec, d.Command) {
		return vectord.Errorf(vectord.KindUnsupported, "pool %q: the operator of this server has not allowed it to start %s: see --allow-exec", d.Name, d.Command)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Env)) {
		if !slices.Contains(s.options.AllowEnv, name) {
			return vectord.Errorf(vectord.KindUnsupported, "pool %q: the operator of this server has not allowed the variable %s", d.Name, name)
		}
	}
	return nil
}

// Scale changes how many processes a pool has. 0 leaves a bound as it is.
func (s *Supervisor) Scale(name string, minSize, maxSize int) error {
	p, err := s.pool(name)
	if err != nil {
		return err
	}
	return p.scale(minSize, maxSize)
}

// Remove ends a pool: no more tasks are leased, what runs has the pool's grace to finish, and what does not is released. It returns
// when all the processes are gone; when ctx ends they are killed without delay.
func (s *Supervisor) Remove(ctx context.Context, name string) error {
	p, err := s.pool(name)
	if err != nil {
		return err
	}
	p.end(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pools[name] == p {
		delete(s.pools, name)
		s.metrics.forget(name)
	}
	return nil
}

// Close removes all the pools at the same time. Nothing else may be done with the Supervisor afterwards.
func (s *Supervisor) Close(ctx context.Context) {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	pools := slices.Collect(maps.Values(s.pools))
	s.mu.Unlock()
	if !first {
		return
	}
	defer context.AfterFunc(ctx, s.hurry)()
	var all sync.WaitGroup
	for _, p := range pools {
		all.Go(func() { p.end(ctx) })
	}
	all.Wait()
	s.hurry()
	s.spawner.close()
	s.metrics.unregister()
}

func (s *Supervisor) pool(name string) (*pool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pools[name]; p != nil {
		return p, nil
	}
	return nil, vectord.Errorf(vectord.KindNotFound, "there is no pool %.80q", name)
}

// Status is a pool as it stands.
type Status struct {
	Definition Definition // without the values of variables, which may be secrets
	Ready      int        // processes that have no task
	Busy       int        // processes that have some
	Starting   int
	Stopping   int    // also those that finish their tasks and take no more
	Restarts   uint64 // processes that ended on their own, since the pool was created
	Failed     string // why no more processes are started for now; empty: they are
	Warming    bool   // there were never MinSize processes ready
}

// Pools returns all pools, by name.
func (s *Supervisor) Pools() []Status {
	s.mu.Lock()
	pools := slices.Collect(maps.Values(s.pools))
	s.mu.Unlock()
	out := make([]Status, len(pools))
	for i, p := range pools {
		out[i] = p.status()
	}
	slices.SortFunc(out, func(a, b Status) int { return cmp.Compare(a.Definition.Name, b.Definition.Name) })
	return out
}

// Warming returns the names of the pools that have not had their MinSize processes ready yet, in order.
func (s *Supervisor) Warming() []string {
	var names []string
	for _, p := range s.Pools() {
		if p.Warming {
			names = append(names, p.Definition.Name)
		}
	}
	return names
}
