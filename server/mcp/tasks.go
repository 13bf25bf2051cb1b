package mcpserver

import (
	"cmp"
	"context"
	"encoding/json"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// taskArguments describe the fields of vectord.NewTask.
var taskArguments = map[string]string{
	"payload":         "what is to be done: any JSON, handed to the agent as it is",
	"type":            "kind of the task, a name of your own",
	"vector":          "routes the task to the agents with the nearest vectors",
	"text":            "instead of vector: a text of which the server makes one",
	"tags":            "capabilities that the agent must have, all of them",
	"agent_id":        "the only agent that may have the task",
	"priority":        "0 to 9, 9 first; 4 unless given",
	"fairness_key":    "tasks of different keys get their share each, such as one for each customer",
	"fairness_weight": "the share of this key, from 0.001 to 1000; 1 unless given",
	"run_at":          "not before this time",
	"delay_ms":        "instead of run_at: not before so many milliseconds from now",
	"deadline":        "fails when it is not completed by then",
	"timeout_seconds": "how long one attempt may take",
	"max_attempts":    "attempts until it fails for good; the queue's unless given",
	"idempotency_key": "makes repeating the call return the first task instead of submitting another",
	"depends_on":      "ids of tasks that must end before",
	"state_refs":      "keys of shared states to be kept while the task lives",
	"metadata":        "an object that is handed to the agent",
	"traceparent":     "W3C trace context, handed to the agent",
}

func (s *Server) addTaskTools() {
	addTool(s, toolSpec{name: "submit_task", needs: access.Write, scope: access.ScopeServer, effect: adds, required: []string{"queue"}, arguments: taskArguments,
		description: "Put a task into a queue, to be done by one of the agents that lease from it. With wait, return when it has ended."}, s.submitTask)
	addTool(s, toolSpec{name: "lease_tasks", needs: access.Write, scope: access.ScopeServer, effect: changes, required: []string{"agent_id"},
		description: "As an agent, get tasks to work on. Each comes with a lease_id and must be completed or failed before lease_expires_at."}, s.leaseTasks)
	addTool(s, toolSpec{name: "complete_task", needs: access.Write, scope: access.ScopeServer, effect: changesOnce, required: []string{"task_id", "lease_id"},
		description: "As the agent that leased a task, give its result. Points and further tasks given with it are written together with the result, or not at all."}, s.completeTask)
	addTool(s, toolSpec{name: "fail_task", needs: access.Write, scope: access.ScopeServer, effect: changesOnce, required: []string{"task_id", "lease_id", "message"},
		description: "As the agent that leased a task, say that the attempt failed. The task is tried again unless retryable is false or its attempts are spent."}, s.failTask)
	addTool(s, toolSpec{name: "get_task", needs: access.Read, scope: access.ScopeServer, effect: reads, required: []string{"task_id"},
		description: "Get a task as it stands, with its result when it has ended. With wait_ms, wait for that."}, s.getTask)
	addTool(s, toolSpec{name: "cancel_task", needs: access.Write, scope: access.ScopeServer, effect: changesOnce, required: []string{"task_id"},
		description: "Cancel a task that waits, or ask the agent that has it to stop."}, s.cancelTask)
	addTool(s, toolSpec{name: "explain_route", needs: access.Read, scope: access.ScopeServer, effect: reads,
		arguments:   map[string]string{"vector": "of the task that would be routed", "text": "instead of vector", "tags": "capabilities that the agent must have"},
		description: "Why a task went to its agent: the decisions with all candidates and the reasons against them (task_id). Or where a task would go (queue, and vector or text)."},
		s.explainRoute)
}

// newTask is a task in arguments.
type newTask struct {
	vectord.NewTask
	OnDependencyFailure string `json:"on_dependency_failure,omitempty" jsonschema:"fail (default) or run, when a task it depends on failed or was cancelled"`
}

// task returns the task to be submitted.
func (t *newTask) task() (vectord.NewTask, error) {
	switch t.OnDependencyFailure {
	case "run":
		t.RunOnDependencyFailure = true
	case "", "fail":
	default:
		return t.NewTask, vectord.Errorf(vectord.KindInvalid, "on_dependency_failure: expected fail or run, got %.80q", t.OnDependencyFailure)
	}
	return t.NewTask, t.Check()
}

// taskOut is a task in answers, as the HTTP API has it.
type taskOut struct {
	vectord.Task
	AgentID       string `json:"agent_id,omitempty" jsonschema:"the agent that holds the task, or held it last"`
	PinnedAgentID string `json:"pinned_agent_id,omitempty" jsonschema:"the only agent that may have it"`
}

// outOf leaves out the vector, which says nothing to a client of this kind.
func outOf(t vectord.Task) *taskOut {
	t.Vector = nil
	return &taskOut{t, t.Agent, t.NewTask.AgentID}
}

type submitTaskIn struct {
	Queue string `json:"queue" jsonschema:"name of the queue, which is made if there is none"`
	newTask
	Wait   bool  `json:"wait,omitempty" jsonschema:"return when the task has ended, or when wait_ms is over"`
	WaitMS int64 `json:"wait_ms,omitempty" jsonschema:"how long to wait with wait, at most 30000; as long as possible unless given"`
}

type submitTaskOut struct {
	TaskID       vectord.TaskID     `json:"task_id"`
	Status       vectord.TaskStatus `json:"status"`
	Admission    vectord.Admission  `json:"admission,omitempty" jsonschema:"ok, or backpressure: accepted, but submit more slowly"`
	RetryAfterMS int64              `json:"retry_after_ms,omitempty"`
	Deduplicated bool               `json:"deduplicated,omitempty" jsonschema:"the task had been submitted before under this idempotency_key"`
	Position     int                `json:"position,omitempty" jsonschema:"in the queue, counted from 1"`
	Durable      bool               `json:"durable"`
	Task         *taskOut           `json:"task,omitempty" jsonschema:"with wait: the task as it stands"`

	awaited *taskHandle // what the client gets instead
}

func (o submitTaskOut) handle() *taskHandle { return o.awaited }

func (s *Server) submitTask(ctx context.Context, in submitTaskIn) (out submitTaskOut, err error) {
	task, err := in.task()
	if err != nil {
		return out, err
	}
	if err := checkWait(in.WaitMS); err != nil {
		return out, err
	}
	if err := vectord.CheckName("queue", in.Queue); err != nil {
		return out, err
	}
	answers, err := s.tasks.Submit(ctx, in.Queue, []vectord.NewTask{task})
	if err != nil {
		return out, err
	}
	a := answers[0]
	if a.Err != nil {
		return out, a.Err
	}
	out = submitTaskOut{TaskID: a.TaskID, Status: a.Status, Admission: a.Admission, RetryAfterMS: a.RetryAfterMS,
		Deduplicated: a.Deduplicated, Position: a.Position, Durable: a.Durable}
	if in.Wait {
		out.awaited = &taskHandle{a.TaskID, in.WaitMS}
	}
	return out, nil
}

// waitForTask returns a task when it has ended, or as it stands after some time; 0 is the longest that a call may wait.
func (s *Server) waitForTask(ctx context.Context, id vectord.TaskID, waitMillis int64) (vectord.Task, error) {
	if err := checkWait(waitMillis); err != nil {
		return vectord.Task{}, err
	}
	waitMillis = cmp.Or(waitMillis, vectord.MaxLeaseWaitMillis)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(waitMillis)*time.Millisecond)
	defer cancel()
	return s.tasks.TaskResult(ctx, id)
}

func checkWait(millis int64) error {
	if millis < 0 || millis > vectord.MaxLeaseWaitMillis {
		return vectord.Errorf(vectord.KindUnprocessable, "wait_ms: value %d invalid, must be from 0 to %d", millis, vectord.MaxLeaseWaitMillis)
	}
	return nil
}

type leaseTasksIn struct {
	AgentID      string `json:"agent_id" jsonschema:"id that the agent registered under"`
	Queue        string `json:"queue,omitempty" jsonschema:"queue to take from; all that the agent serves unless given"`
	MaxTasks     int    `json:"max_tasks,omitempty" jsonschema:"1 to 1000; 1 unless given"`
	WaitMS       int64  `json:"wait_ms,omitempty" jsonschema:"how long to wait for the first task, at most 30000"`
	LeaseSeconds int    `json:"lease_seconds,omitempty" jsonschema:"how long to hold the tasks; as the queue says unless given"`
}

type leaseTasksOut struct {
	Tasks []*taskOut `json:"tasks"`
}

func (s *Server) leaseTasks(ctx context.Context, in leaseTasksIn) (out leaseTasksOut, err error) {
	r := vectord.LeaseRequest{Queue: in.Queue, AgentID: in.AgentID, MaxTasks: in.MaxTasks, WaitMS: in.WaitMS, LeaseSeconds: in.LeaseSeconds}
	if err := r.Check(); err != nil {
		return out, err
	}
	leased, err := s.tasks.Lease(ctx, r)
	out.Tasks = make([]*taskOut, len(leased))
	for i, t := range leased {
		out.Tasks[i] = outOf(t)
	}
	return out, err
}

// leaseArguments name a task that an agent holds.
type leaseArguments struct {
	TaskID  vectord.TaskID  `json:"task_id" jsonschema:"id of the task"`
	LeaseID vectord.LeaseID `json:"lease_id" jsonschema:"the lease_id that came with it"`
}

type completeTaskIn struct {
	leaseArguments
	Result json.RawMessage      `json:"result,omitempty" jsonschema:"any JSON"`
	Points map[string][]pointIn `json:"points,omitempty" jsonschema:"points to be written with the result, by collection"`
	Model  string               `json:"model,omitempty" jsonschema:"what makes vectors of the texts of points, such as vectord/minilm-static-256"`
	Tasks  map[string][]newTask `json:"tasks,omitempty" jsonschema:"further tasks to be submitted with the result, by queue"`
}

type callOut struct {
	TaskID vectord.TaskID     `json:"task_id"`
	Status vectord.TaskStatus `json:"status"`
	Tasks  []vectord.TaskID   `json:"tasks,omitempty" jsonschema:"that were submitted with the result, by name of the queue and then in their order"`
}

func (s *Server) completeTask(ctx context.Context, in completeTaskIn) (callOut, error) {
	effects, err := s.effectsOf(ctx, &in)
	if err != nil {
		return callOut{}, err
	}
	return s.call(ctx, vectord.TaskCall{Kind: vectord.CallComplete, ID: in.TaskID, LeaseID: in.LeaseID, Result: in.Result, Effects: effects})
}

// effectsOf returns what a completion brings about, if the caller may do that.
func (s *Server) effectsOf(ctx context.Context, in *completeTaskIn) (e vectord.Effects, err error) {
	for collection, points := range in.Points {
		name, err := s.authorizeCollection(ctx, collection, access.Write)
		if err != nil {
			return e, err
		}
		if e.Points == nil {
			e.Points = map[string][]vectord.Point{}
		}
		for i := range points {
			p, err := points[i].point("", in.Model)
			if err != nil {
				return e, vectord.Errorf(vectord.KindOf(err), "points.%s[%d].%v", collection, i, err)
			}
			e.Points[name] = append(e.Points[name], p)
		}
	}
	for queue, tasks := range in.Tasks {
		if e.Tasks == nil {
			e.Tasks = map[string][]vectord.NewTask{}
		}
		for i := range tasks {
			t, err := tasks[i].task()
			if err != nil {
				return e, err
			}
			e.Tasks[queue] = append(e.Tasks[queue], t)
		}
	}
	return e, nil
}

func (s *Server) call(ctx context.Context, c vectord.TaskCall) (callOut, error) {
	if err := c.Check(); err != nil {
		return callOut{}, err
	}
	answers, err := s.tasks.Call(ctx, []vectord.TaskCall{c})
	if err != nil {
		return callOut{}, err
	}
	return callOut{TaskID: c.ID, Status: answers[0].Status, Tasks: answers[0].Tasks}, answers[0].Err
}

type failTaskIn struct {
	leaseArguments
	Code         string `json:"code,omitempty" jsonschema:"a name for the error that programs can tell; failed unless given"`
	Message      string `json:"message" jsonschema:"what went wrong, for people"`
	Retryable    *bool  `json:"retryable,omitempty" jsonschema:"false: the task is not tried again"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty" jsonschema:"pause before the next attempt; as the queue says unless given"`
}

func (s *Server) failTask(ctx context.Context, in failTaskIn) (callOut, error) {
	if in.Code == "" {
		in.Code = "failed"
	}
	return s.call(ctx, vectord.TaskCall{Kind: vectord.CallFail, ID: in.TaskID, LeaseID: in.LeaseID,
		Error: vectord.TaskError{Code: in.Code, Message: in.Message}, Final: in.Retryable != nil && !*in.Retryable, RetryAfterMS: in.RetryAfterMS})
}

type getTaskIn struct {
	TaskID vectord.TaskID `json:"task_id" jsonschema:"id of the task"`
	WaitMS int64          `json:"wait_ms,omitempty" jsonschema:"how long to wait for the task to end, at most 30000"`
}

type getTaskOut struct {
	Task *taskOut `json:"task"`
}

func (s *Server) getTask(ctx context.Context, in getTaskIn) (out getTaskOut, err error) {
	var t vectord.Task
	if in.WaitMS == 0 {
		t, err = s.tasks.Task(in.TaskID)
	} else {
		t, err = s.waitForTask(ctx, in.TaskID, in.WaitMS)
	}
	return getTaskOut{outOf(t)}, err
}

type cancelTaskIn struct {
	TaskID vectord.TaskID `json:"task_id" jsonschema:"id of the task"`
}

func (s *Server) cancelTask(ctx context.Context, in cancelTaskIn) (getTaskOut, error) {
	t, err := s.tasks.Cancel(ctx, in.TaskID)
	return getTaskOut{outOf(t)}, err
}

type explainRouteIn struct {
	TaskID  *vectord.TaskID `json:"task_id,omitempty" jsonschema:"a task whose decisions to return"`
	Queue   string          `json:"queue,omitempty" jsonschema:"instead of task_id: the queue that a task would be submitted to"`
	Vector  []float32       `json:"vector,omitempty"`
	Text    string          `json:"text,omitempty"`
	Tags    []string        `json:"tags,omitempty"`
	AgentID string          `json:"agent_id,omitempty" jsonschema:"the only agent that may have the task"`
	Limit   int             `json:"limit,omitempty" jsonschema:"how many candidates to return; 10 unless given"`
}

type explainRouteOut struct {
	Decisions []vectord.Decision `json:"decisions" jsonschema:"the first one first; one if task_id was not given"`
}

func (s *Server) explainRoute(ctx context.Context, in explainRouteIn) (out explainRouteOut, err error) {
	switch {
	case (in.TaskID == nil) == (in.Queue == ""):
		return out, vectord.Errorf(vectord.KindInvalid, "task_id: exactly one of task_id and queue must be given")
	case in.TaskID != nil:
		out.Decisions, err = s.tasks.Decisions(*in.TaskID)
	default:
		r := vectord.RouteRequest{Queue: in.Queue, Vector: in.Vector, Text: in.Text, Tags: in.Tags, AgentID: in.AgentID, Limit: in.Limit}
		if err := r.Check(); err != nil {
			return out, err
		}
		var d vectord.Decision
		d, err = s.tasks.Route(ctx, r)
		out.Decisions = []vectord.Decision{d}
	}
	return out, err
}
