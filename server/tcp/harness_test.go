package tcpserver_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
	"github.com/vectord/vectord/internal/model"
	tcpserver "github.com/vectord/vectord/server/tcp"
)

// fake is a scheduler that keeps tasks in the order in which they came and remembers what it was told.
type fake struct {
	submit func(queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) // nil: all are taken
	lease  func() ([]vectord.Task, error)                                           // nil: those that wait
	counts bool                                                                     // only count, keep nothing

	submitted atomic.Int64
	last      atomic.Uint64

	mu      sync.Mutex
	tasks   []vectord.Task // that wait
	batches []int          // sizes of what Submit got
	calls   []vectord.TaskCall
	ended   []string // agents whose leases ended
	more    chan struct{}
}

func newFake() *fake { return &fake{more: make(chan struct{}, 1)} }

func (f *fake) Submit(_ context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
	if f.submit != nil {
		return f.submit(queue, tasks)
	}
	out := make([]vectord.Submitted, len(tasks))
	if f.counts {
		f.submitted.Add(int64(len(tasks)))
		for i := range out {
			out[i] = vectord.Submitted{TaskID: f.newID(), Status: vectord.TaskQueued, Admission: vectord.AdmissionOK}
		}
		return out, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.batches = append(f.batches, len(tasks))
	for i := range tasks {
		t := vectord.Task{ID: f.newID(), Queue: queue, Status: vectord.TaskQueued, NewTask: tasks[i]}
		f.tasks = append(f.tasks, t)
		out[i] = vectord.Submitted{TaskID: t.ID, Status: vectord.TaskQueued, Admission: vectord.AdmissionOK, Position: len(f.tasks), Durable: true}
	}
	select {
	case f.more <- struct{}{}:
	default:
	}
	return out, nil
}

func (f *fake) newID() (id vectord.TaskID) {
	n := f.last.Add(1)
	for i := range 8 {
		id[15-i] = byte(n >> (8 * i))
	}
	return id
}

func (f *fake) Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error) {
	if r.AgentID == "unknown" {
		return nil, vectord.Refuse(vectord.KindNotFound, vectord.CodeAgentNotFound, "agent %q does not exist", r.AgentID)
	}
	if f.lease != nil {
		return f.lease()
	}
	over := time.After(time.Duration(r.WaitMS) * time.Millisecond)
	for {
		f.mu.Lock()
		n := min(len(f.tasks), max(1, r.MaxTasks))
		tasks := append([]vectord.Task(nil), f.tasks[:n]...)
		f.tasks = f.tasks[n:]
		f.mu.Unlock()
		for i := range tasks {
			tasks[i].Status, tasks[i].Attempt, tasks[i].LeaseID, tasks[i].LeaseExpiresAt = vectord.TaskRunning, 1, vectord.LeaseID(f.last.Add(1)), 1_700_000_000_123
		}
		if n > 0 {
			return tasks, nil
		}
		select {
		case <-f.more:
		case <-over:
			return nil, nil
		case <-ctx.Done():
			return nil, nil
		}
	}
}

func (f *fake) Call(_ context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]vectord.CallOutcome, len(calls))
	for i, c := range calls {
		f.calls = append(f.calls, c)
		switch c.Kind {
		case vectord.CallHeartbeat:
			out[i] = vectord.CallOutcome{Status: vectord.TaskRunning, LeaseExpiresAt: 1_700_000_000_456, CancelRequested: true}
		case vectord.CallComplete:
			out[i] = vectord.CallOutcome{Status: vectord.TaskCompleted}
			for _, tasks := range c.Effects.Tasks {
				for range tasks {
					out[i].Tasks = append(out[i].Tasks, f.newID())
				}
			}
		default:
			out[i] = vectord.CallOutcome{Status: vectord.TaskQueued}
		}
		if c.LeaseID == 0 {
			out[i] = vectord.CallOutcome{Err: vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "call %d holds no lease", i)}
		}
	}
	return out, nil
}

func (f *fake) EndLeases(_ context.Context, agentID, reason string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, agentID+" "+reason)
	return nil
}

// start returns the address of a server of s, which ends with the test.
func start(t testing.TB, s tcpserver.Scheduler, o tcpserver.Options) (string, *tcpserver.Server) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, ln, s, o)
}

func startOn(t testing.TB, ln net.Listener, s tcpserver.Scheduler, o tcpserver.Options) (string, *tcpserver.Server) {
	t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(testWriter{t}, nil))
	server := tcpserver.New(s, engineOf(t), o)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String(), server
}

// engineOf returns the engine of all servers of a test.
func engineOf(t testing.TB) *model.Model {
	engines.Lock()
	defer engines.Unlock()
	if engines.of == nil {
		engines.of = map[string]*model.Model{}
	}
	m := engines.of[t.Name()]
	if m == nil {
		m = model.New()
		engines.of[t.Name()] = m
	}
	return m
}

var engines struct {
	sync.Mutex
	of map[string]*model.Model
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func dial(t testing.TB, address string, o client.TCPOptions) *client.TCP {
	t.Helper()
	c, err := client.DialTCP(t.Context(), address, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
