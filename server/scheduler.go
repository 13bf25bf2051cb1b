package server

import (
	"context"

	"github.com/vectord/vectord"
)

// Scheduler keeps queues, agents and states. Its methods may be called at the same time. Errors carry a vectord.Kind, and a
// vectord.Code where there is one. A change has been applied, durably, when the method returns; where a method takes several
// tasks or calls, each has its own outcome and the error is for what concerns them all.
type Scheduler interface {
	// PutQueue creates a queue or replaces the configuration of one.
	PutQueue(ctx context.Context, name string, config vectord.QueueConfig) error
	Queue(name string) (vectord.QueueInfo, error)
	Queues() []vectord.QueueInfo // by name
	// DeleteQueue refuses a queue that has tasks which are not terminal, unless force has them fail.
	DeleteQueue(ctx context.Context, name string, force bool) error

	// Submit creates the queue if there is none. Texts are made vectors.
	Submit(ctx context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error)
	// Lease waits for the first task as long as the request says, or until ctx ends, which is no error: there are no tasks then.
	Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error)
	Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error)
	// Cancel cancels a task that waits, and asks the agent of one that runs to stop.
	Cancel(ctx context.Context, id vectord.TaskID) (vectord.Task, error)
	// GiveInput answers what CallRequestInput asked.
	GiveInput(ctx context.Context, id vectord.TaskID, response []byte) (vectord.Task, error)

	Task(id vectord.TaskID) (vectord.Task, error)
	// TaskResult waits until the task is terminal, or ctx ends, and returns it as it stands then.
	TaskResult(ctx context.Context, id vectord.TaskID) (vectord.Task, error)
	ScrollTasks(s vectord.TaskScroll) ([]vectord.Task, error)
	CountTasks(s vectord.TaskScroll) (int, error)
	// Decisions are those that were made about a task, the first one first.
	Decisions(id vectord.TaskID) ([]vectord.Decision, error)
	// Redrive gives failed tasks of a queue, all of them or some, their attempts anew, and returns how many.
	Redrive(ctx context.Context, queue string, ids []vectord.TaskID) (int, error)
	// Events calls fn for the events of a queue, or of one task, or of all, with ids above after, until ctx ends or fn
	// returns an error; after 0 begins now. It is refused with CodeEventsCompacted when some of them are not kept any more.
	Events(ctx context.Context, queue string, task vectord.TaskID, after uint64, fn func(vectord.TaskEvent) error) error

	RegisterAgent(ctx context.Context, id string, config vectord.AgentConfig) error
	Agent(id string) (vectord.Agent, error)
	Agents() []vectord.Agent // by id
	// RemoveAgent ends the agent's leases.
	RemoveAgent(ctx context.Context, id string) error
	HeartbeatAgent(id string, h vectord.AgentHeartbeat) (vectord.AgentNews, error)
	// DrainAgent lets the agent get no new tasks, or, if not drain, get some again.
	DrainAgent(ctx context.Context, id string, drain bool) error
	// Route decides where a task would go, and changes nothing.
	Route(ctx context.Context, r vectord.RouteRequest) (vectord.Decision, error)

	PutState(ctx context.Context, key string, value []byte, w vectord.StateWrite) (vectord.State, error)
	// State returns the state once its version is above since, or the state as it stands when ctx ends.
	State(ctx context.Context, key string, since uint64) (vectord.State, error)
	// DeleteState deletes the state if it has the version, any for nil.
	DeleteState(ctx context.Context, key string, ifVersion *uint64) (existed bool, err error)
	States(prefix, after string, limit int) ([]vectord.State, error) // by key, without their values
}
