package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
)

// This file has the handlers of queues, tasks and agents. Their bodies are read in decode_tasks.go.

const (
	defaultTaskLimit      = 100
	defaultCandidateLimit = 10

	// taskPageBytes is the size of payloads and results from which a page of tasks is full.
	taskPageBytes = 32 << 20
)

// scheduled returns the handler of a route that a server without a scheduler does not offer.
func scheduled(h handler) handler { return here(byLeader(h)) }

// here is scheduled for what any node of a cluster can answer.
func here(h handler) handler {
	return func(s *Server, r *request) error {
		if s.options.Scheduler == nil {
			return vectord.Errorf(vectord.KindUnsupported, "queues, tasks, agents and states are not offered by this server")
		}
		return h(s, r)
	}
}

// object reads a body that may be absent, which stands for an object without fields.
func object[T any](r *request, decode func([]byte) (T, error)) (decoded T, err error) {
	return call(r, func(body []byte) (T, error) {
		if len(body) == 0 {
			body = []byte("{}")
		}
		return decode(body)
	})
}

// json appends v to the answer.
func (r *request) json(v any) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // what clients stored reads back as it was written
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	r.out = append(r.out, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
	return nil
}

// named decodes a name of the path. Its characters may be percent-encoded.
func (r *request) named(parameter string, check func(what, name string) error) (string, error) {
	name, err := r.segment(parameter)
	if err == nil {
		err = check(parameter, name)
	}
	if err != nil {
		return "", &formError{inPath, err}
	}
	return name, nil
}

func (r *request) queueName() (string, error) { return r.named("queue", vectord.CheckName) }

func (r *request) agentID() (string, error) { return r.named("agent", vectord.CheckName) }

func (r *request) taskID() (vectord.TaskID, error) {
	text, err := r.segment("task")
	if err != nil {
		return vectord.TaskID{}, &formError{inPath, err}
	}
	id, err := vectord.ParseTaskID(text)
	if err != nil {
		return id, &formError{inPath, err}
	}
	return id, nil
}

// intParameter reads a query parameter from low to high, otherwise where it is absent.
func (r *request) intParameter(name string, low, high, otherwise int64) (int64, error) {
	v := r.http.QueryArgs().Peek(name)
	if v == nil {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(string(v), 10, 64)
	if err != nil {
		return 0, badParameter(name, v, "an integer")
	}
	if n < low || n > high {
		return 0, &formError{inQuery, outOfRange(name, n, fmt.Sprintf("from %d to %d", low, high))}
	}
	return n, nil
}

// boolParameter reads a query parameter that is false where it is absent.
func (r *request) boolParameter(name string) (bool, error) {
	switch v := r.http.QueryArgs().Peek(name); string(v) {
	case "true":
		return true, nil
	case "false", "":
		return false, nil
	default:
		return false, badParameter(name, v, "true or false")
	}
}

// queueJSON is a queue in an answer.
type queueJSON struct {
	Name     string                     `json:"name"`
	Config   vectord.QueueConfig        `json:"config"`
	Counts   map[vectord.TaskStatus]int `json:"counts"`
	Agents   int                        `json:"agents"`
	OldestMS int64                      `json:"oldest_ms"`
}

func queueAnswer(q vectord.QueueInfo) queueJSON {
	if q.Counts == nil {
		q.Counts = map[vectord.TaskStatus]int{}
	}
	return queueJSON{q.Name, q.Config, q.Counts, q.Agents, q.OldestMS}
}

func (s *Server) listQueues(r *request) error {
	queues := []queueJSON{}
	for _, q := range s.options.Scheduler.Queues() {
		queues = append(queues, queueAnswer(q))
	}
	return r.json(map[string]any{"queues": queues})
}

func (s *Server) getQueue(r *request) error {
	name, err := r.queueName()
	if err != nil {
		return err
	}
	info, err := s.options.Scheduler.Queue(name)
	if err != nil {
		return err
	}
	return r.json(queueAnswer(info))
}

// putQueue creates a queue, or configures one anew: what the body does not say is the default.
func (s *Server) putQueue(r *request) error {
	name, err := r.queueName()
	if err != nil {
		return err
	}
	return s.configureQueue(r, name, vectord.DefaultQueueConfig())
}

// patchQueue changes what the body says. Of two at the same time the later one may undo the other.
func (s *Server) patchQueue(r *request) error {
	name, err := r.queueName()
	if err != nil {
		return err
	}
	info, err := s.options.Scheduler.Queue(name)
	if err != nil {
		return err
	}
	return s.configureQueue(r, name, info.Config)
}

func (s *Server) configureQueue(r *request, name string, base vectord.QueueConfig) error {
	config, err := object(r, func(body []byte) (vectord.QueueConfig, error) { return decodeQueueConfig(base, body) })
	if err != nil {
		return err
	}
	if err := s.options.Scheduler.PutQueue(r.ctx, name, config); err != nil {
		return err
	}
	r.ok()
	return nil
}

func (s *Server) deleteQueue(r *request) error {
	name, err := r.queueName()
	if err != nil {
		return err
	}
	force, err := r.boolParameter("force")
	if err != nil {
		return err
	}
	if err := s.options.Scheduler.DeleteQueue(r.ctx, name, force); err != nil {
		return err
	}
	r.ok()
	return nil
}

// errorJSON is why one of several tasks or calls was refused.
type errorJSON struct {
	Error        string       `json:"error,omitempty"`
	Code         vectord.Code `json:"code,omitempty"`
	RetryAfterMS int64        `json:"retry_after_ms,omitempty"`
}

// errorAnswer is nil for nil. The text of an internal error stays in the log.
func (s *Server) errorAnswer(err error) *errorJSON {
	if err == nil {
		return nil
	}
	status, text := statusOf(err)
	if status == fasthttp.StatusInternalServerError {
		s.log.Error("part of a request failed", "error", err)
	}
	return &errorJSON{text, vectord.CodeOf(err), retryAfterMillis(err)}
}

// submittedJSON is the answer to one submitted task. The pointers are nil where it was refused.
type submittedJSON struct {
	TaskID       *vectord.TaskID    `json:"task_id,omitempty"`
	Status       vectord.TaskStatus `json:"status,omitempty"`
	Admission    vectord.Admission  `json:"admission,omitempty"`
	RetryAfterMS int64              `json:"retry_after_ms,omitempty"`
	Deduplicated *bool              `json:"deduplicated,omitempty"`
	Position     *int               `json:"position,omitempty"`
	Durable      *bool              `json:"durable,omitempty"`
	Error        string             `json:"error,omitempty"`
	Code         vectord.Code       `json:"code,omitempty"`
}

func (s *Server) submittedAnswer(t *vectord.Submitted) submittedJSON {
	if e := s.errorAnswer(t.Err); e != nil {
		return submittedJSON{Error: e.Error, Code: e.Code, RetryAfterMS: e.RetryAfterMS}
	}
	return submittedJSON{TaskID: &t.TaskID, Status: t.Status, Admission: t.Admission, RetryAfterMS: t.RetryAfterMS,
		Deduplicated: &t.Deduplicated, Position: &t.Position, Durable: &t.Durable}
}

// submit takes one task, whose refusal is that of the request, or many, each of which has its own answer. Of many that all
// found the queue full, none was taken, and the request says so as that of one does.
func (s *Server) submit(r *request) error {
	queue, err := r.queueName()
	if err != nil {
		return err
	}
	b, err := call(r, decodeSubmission)
	if err != nil {
		return err
	}
	header := vectord.NewTask{IdempotencyKey: r.idempotencyKey, TraceParent: string(r.http.Request.Header.Peek("Traceparent"))}
	if err := header.Check(); err != nil {
		return err
	}
	if !b.many {
		b.tasks[0].IdempotencyKey = cmp.Or(b.tasks[0].IdempotencyKey, header.IdempotencyKey)
	}
	for i := range b.tasks {
		b.tasks[i].TraceParent = cmp.Or(b.tasks[i].TraceParent, header.TraceParent)
	}
	answers, err := s.options.Scheduler.Submit(r.ctx, queue, b.tasks)
	if err != nil {
		return err
	}
	if len(answers) != len(b.tasks) {
		return fmt.Errorf("the scheduler answered %d tasks with %d answers", len(b.tasks), len(answers))
	}
	if !b.many {
		if err := answers[0].Err; err != nil {
			return err
		}
		return r.json(s.submittedAnswer(&answers[0]))
	}
	full := 0
	items := make([]submittedJSON, len(answers))
	for i := range answers {
		if vectord.CodeOf(answers[i].Err) == vectord.CodeQueueFull {
			full++
		}
		items[i] = s.submittedAnswer(&answers[i])
	}
	if full > 0 && full == len(answers) {
		return answers[0].Err
	}
	return r.json(map[string]any{"tasks": items})
}

// lease serves the routes of one queue and of all that the agent serves.
func (s *Server) lease(r *request) error {
	queue := ""
	if _, ok := r.http.UserValue("queue").(string); ok {
		var err error
		if queue, err = r.queueName(); err != nil {
			return err
		}
	}
	l, err := call(r, decodeLease)
	if err != nil {
		return err
	}
	if queue != "" {
		l.Queue = queue
	}
	withVector, err := r.boolParameter("with_vector")
	if err != nil {
		return err
	}
	ctx, done, err := r.waitFor(time.Duration(l.WaitMS)*time.Millisecond + s.options.RequestTimeout)
	if err != nil {
		return err
	}
	defer done()
	tasks, err := s.options.Scheduler.Lease(ctx, l)
	if err != nil {
		return err
	}
	return r.json(map[string]any{"tasks": tasksAnswer(tasks, withVector)})
}

// callJSON is the answer to one call. CancelRequested is there for heartbeats.
type callJSON struct {
	TaskID          vectord.TaskID         `json:"task_id"`
	Status          vectord.TaskStatus     `json:"status,omitempty"`
	LeaseExpiresAt  vectord.Timestamp      `json:"lease_expires_at,omitempty"`
	CancelRequested *bool                  `json:"cancel_requested,omitempty"`
	Tasks           []vectord.TaskID       `json:"tasks,omitempty"`
	Memories        []vectord.MemoryResult `json:"memories,omitempty"`
	*errorJSON
}

func (s *Server) callAnswer(c *vectord.TaskCall, o *vectord.CallOutcome) callJSON {
	if e := s.errorAnswer(o.Err); e != nil {
		return callJSON{TaskID: c.ID, errorJSON: e}
	}
	answer := callJSON{TaskID: c.ID, Status: o.Status, LeaseExpiresAt: o.LeaseExpiresAt, Tasks: o.Tasks}
	if len(o.Memories) > 0 {
		answer.Memories = o.Memories
	}
	if c.Kind == vectord.CallHeartbeat {
		answer.CancelRequested = &o.CancelRequested
	}
	return answer
}

// callScheduler returns one outcome for each call.
func (s *Server) callScheduler(r *request, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	outcomes, err := s.options.Scheduler.Call(r.ctx, calls)
	if err != nil {
		return nil, err
	}
	if len(outcomes) != len(calls) {
		return nil, fmt.Errorf("the scheduler answered %d calls with %d outcomes", len(calls), len(outcomes))
	}
	return outcomes, nil
}

// taskCall returns the handler of a route that is one call about the task of the path.
func taskCall(decode func(vectord.TaskID, []byte) (vectord.TaskCall, error)) handler {
	return func(s *Server, r *request) error {
		id, err := r.taskID()
		if err != nil {
			return err
		}
		c, err := call(r, func(body []byte) (vectord.TaskCall, error) { return decode(id, body) })
		if err != nil {
			return err
		}
		if err := r.authorizePoints(&c.Effects); err != nil {
			return err
		}
		return s.answerCall(r, c)
	}
}

// authorizePoints checks the caller's permission for the collections that a completion writes to.
func (r *request) authorizePoints(e *vectord.Effects) error {
	points := make(map[string][]vectord.Point, len(e.Points))
	for name, list := range e.Points {
		own, err := r.authorize(name, permissionWrite)
		if err != nil {
			return err
		}
		points[own] = append(points[own], list...)
	}
	if len(points) > 0 {
		e.Points = points
	}
	if e.Memories != nil {
		own, err := r.authorize(e.Memories.Collection, permissionWrite)
		if err != nil {
			return err
		}
		e.Memories.Collection = own
	}
	return nil
}

func (s *Server) answerCall(r *request, c vectord.TaskCall) error {
	outcomes, err := s.callScheduler(r, []vectord.TaskCall{c})
	if err != nil {
		return err
	}
	if err := outcomes[0].Err; err != nil {
		return err
	}
	return r.json(s.callAnswer(&c, &outcomes[0]))
}

func (s *Server) heartbeatTasks(r *request) error {
	calls, err := call(r, decodeHeartbeats)
	if err != nil {
		return err
	}
	outcomes, err := s.callScheduler(r, calls)
	if err != nil {
		return err
	}
	items := make([]callJSON, len(calls))
	for i := range calls {
		items[i] = s.callAnswer(&calls[i], &outcomes[i])
	}
	return r.json(map[string]any{"tasks": items})
}

// giveInput takes the question of the agent that holds the task, and the answer of whoever has it.
func (s *Server) giveInput(r *request) error {
	id, err := r.taskID()
	if err != nil {
		return err
	}
	in, err := call(r, func(body []byte) (input, error) { return decodeInput(id, body) })
	if err != nil {
		return err
	}
	if in.response == nil {
		return s.answerCall(r, in.call)
	}
	task, err := s.options.Scheduler.GiveInput(r.ctx, id, in.response)
	if err != nil {
		return err
	}
	return r.json(taskAnswer(&task, false))
}

func (s *Server) cancelTask(r *request) error {
	id, err := r.taskID()
	if err != nil {
		return err
	}
	task, err := s.options.Scheduler.Cancel(r.ctx, id)
	if err != nil {
		return err
	}
	return r.json(taskAnswer(&task, false))
}

// answeredTask is a task in an answer: its agent_id is who holds it, and pinned_agent_id whom it was submitted for.
type answeredTask struct {
	vectord.Task
	AgentID             string `json:"agent_id,omitempty"`
	PinnedAgentID       string `json:"pinned_agent_id,omitempty"`
	OnDependencyFailure string `json:"on_dependency_failure,omitempty"`
}

func taskAnswer(t *vectord.Task, withVector bool) answeredTask {
	answer := answeredTask{Task: *t, AgentID: t.Agent, PinnedAgentID: t.NewTask.AgentID}
	if len(t.DependsOn) > 0 {
		answer.OnDependencyFailure = failOnDependencyFailure
		if t.RunOnDependencyFailure {
			answer.OnDependencyFailure = runOnDependencyFailure
		}
	}
	if !withVector {
		answer.Vector = nil
	}
	return answer
}

func tasksAnswer(tasks []vectord.Task, withVector bool) []answeredTask {
	answers := make([]answeredTask, len(tasks))
	for i := range tasks {
		answers[i] = taskAnswer(&tasks[i], withVector)
	}
	return answers
}

func (s *Server) getTask(r *request) error {
	id, err := r.taskID()
	if err != nil {
		return err
	}
	withVector, err := r.boolParameter("with_vector")
	if err != nil {
		return err
	}
	task, err := s.options.Scheduler.Task(id)
	if err != nil {
		return err
	}
	return r.json(taskAnswer(&task, withVector))
}

// resultJSON is what a task has come to so far.
type resultJSON struct {
	TaskID       vectord.TaskID     `json:"task_id"`
	Status       vectord.TaskStatus `json:"status"`
	Attempt      int                `json:"attempt"`
	Progress     json.RawMessage    `json:"progress,omitempty"`
	InputRequest json.RawMessage    `json:"input_request,omitempty"`
	Result       json.RawMessage    `json:"result,omitempty"`
	Error        *vectord.TaskError `json:"error,omitempty"`
}

// waitMillis reads the query parameter wait_ms.
func (r *request) waitMillis() (time.Duration, error) {
	ms, err := r.intParameter("wait_ms", 0, vectord.MaxLeaseWaitMillis, 0)
	return time.Duration(ms) * time.Millisecond, err
}

func (s *Server) getTaskResult(r *request) error {
	id, err := r.taskID()
	if err != nil {
		return err
	}
	wait, err := r.waitMillis()
	if err != nil {
		return err
	}
	ctx, done, err := r.waitFor(wait)
	if err != nil {
		return err
	}
	defer done()
	task, err := s.options.Scheduler.TaskResult(ctx, id)
	if err != nil {
		return err
	}
	return r.json(resultJSON{task.ID, task.Status, task.Attempt, task.Progress, task.InputRequest, task.Result, task.Error})
}

func (s *Server) getDecisions(r *request) error {
	id, err := r.taskID()
	if err != nil {
		return err
	}
	decisions, err := s.options.Scheduler.Decisions(id)
	if err != nil {
		return err
	}
	answers := []vectord.Decision{}
	for _, d := range decisions {
		answers = append(answers, decisionAnswer(d))
	}
	return r.json(map[string]any{"decisions": answers})
}

func decisionAnswer(d vectord.Decision) vectord.Decision {
	if d.Candidates == nil {
		d.Candidates = []vectord.Candidate{}
	}
	return d
}

func (s *Server) scrollTasks(r *request) error {
	scroll, err := object(r, decodeTaskScroll)
	if err != nil {
		return err
	}
	return s.answerScroll(r, scroll)
}

// answerScroll answers with a page of tasks, and where the next one begins, if this one is full.
func (s *Server) answerScroll(r *request, scroll vectord.TaskScroll) error {
	withVector, err := r.boolParameter("with_vector")
	if err != nil {
		return err
	}
	tasks, err := s.options.Scheduler.ScrollTasks(scroll)
	if err != nil {
		return err
	}
	full := len(tasks) == scroll.Limit
	bytes := 0
	for i := range tasks {
		if bytes += len(tasks[i].Payload) + len(tasks[i].Result); bytes > taskPageBytes && i > 0 {
			tasks, full = tasks[:i], true
			break
		}
	}
	var next *vectord.TaskID
	if full && len(tasks) > 0 {
		next = &tasks[len(tasks)-1].ID
	}
	return r.json(map[string]any{"tasks": tasksAnswer(tasks, withVector), "next_after": next})
}

func (s *Server) countTasks(r *request) error {
	scroll, err := object(r, decodeTaskScroll)
	if err != nil {
		return err
	}
	n, err := s.options.Scheduler.CountTasks(scroll)
	if err != nil {
		return err
	}
	return r.json(map[string]int{"count": n})
}

// listDeadLetters lists the failed tasks of a queue.
func (s *Server) listDeadLetters(r *request) error {
	queue, err := r.queueName()
	if err != nil {
		return err
	}
	limit, err := r.intParameter("limit", 1, vectord.MaxTaskBatch, defaultTaskLimit)
	if err != nil {
		return err
	}
	scroll := vectord.TaskScroll{Queue: queue, Status: []vectord.TaskStatus{vectord.TaskFailed}, Limit: int(limit)}
	if after := r.http.QueryArgs().Peek("after"); after != nil {
		if scroll.After, err = vectord.ParseTaskID(string(after)); err != nil {
			return badParameter("after", after, "the id of a task")
		}
	}
	if _, err := s.options.Scheduler.Queue(queue); err != nil {
		return err
	}
	return s.answerScroll(r, scroll)
}

func (s *Server) redrive(r *request) error {
	queue, err := r.queueName()
	if err != nil {
		return err
	}
	ids, err := object(r, decodeRedrive)
	if err != nil {
		return err
	}
	n, err := s.options.Scheduler.Redrive(r.ctx, queue, ids)
	if err != nil {
		return err
	}
	return r.json(map[string]int{"redriven": n})
}

func (s *Server) putAgent(r *request) error {
	id, err := r.agentID()
	if err != nil {
		return err
	}
	config, err := call(r, decodeAgent)
	if err != nil {
		return err
	}
	if err := s.options.Scheduler.RegisterAgent(r.ctx, id, config); err != nil {
		return err
	}
	r.ok()
	return nil
}

// agentAnswer leaves out the vectors of an agent unless they are asked for.
func agentAnswer(a vectord.Agent, withVector bool) vectord.Agent {
	if !withVector {
		a.Vectors = nil
	}
	if a.Queues == nil {
		a.Queues = []string{}
	}
	return a
}

func (s *Server) getAgent(r *request) error {
	id, err := r.agentID()
	if err != nil {
		return err
	}
	withVector, err := r.boolParameter("with_vector")
	if err != nil {
		return err
	}
	agent, err := s.options.Scheduler.Agent(id)
	if err != nil {
		return err
	}
	return r.json(agentAnswer(agent, withVector))
}

func (s *Server) listAgents(r *request) error {
	withVector, err := r.boolParameter("with_vector")
	if err != nil {
		return err
	}
	agents := []vectord.Agent{}
	for _, a := range s.options.Scheduler.Agents() {
		agents = append(agents, agentAnswer(a, withVector))
	}
	return r.json(map[string]any{"agents": agents})
}

// onAgent returns the handler of a route that does something to the agent of the path, and has no more to say than that.
func onAgent(do func(t Scheduler, ctx context.Context, id string) error) handler {
	return func(s *Server, r *request) error {
		id, err := r.agentID()
		if err != nil {
			return err
		}
		if err := do(s.options.Scheduler, r.ctx, id); err != nil {
			return err
		}
		r.ok()
		return nil
	}
}

var (
	removeAgent = onAgent(Scheduler.RemoveAgent)
	drainAgent  = onAgent(func(t Scheduler, ctx context.Context, id string) error { return t.DrainAgent(ctx, id, true) })
	resumeAgent = onAgent(func(t Scheduler, ctx context.Context, id string) error { return t.DrainAgent(ctx, id, false) })
)

func (s *Server) heartbeatAgent(r *request) error {
	id, err := r.agentID()
	if err != nil {
		return err
	}
	h, err := object(r, decodeAgentHeartbeat)
	if err != nil {
		return err
	}
	news, err := s.options.Scheduler.HeartbeatAgent(id, h)
	if err != nil {
		return err
	}
	if news.CancelRequested == nil {
		news.CancelRequested = []vectord.TaskID{}
	}
	return r.json(news)
}

func (s *Server) routeTask(r *request) error {
	q, err := call(r, decodeRoute)
	if err != nil {
		return err
	}
	if q.Limit == 0 {
		q.Limit = defaultCandidateLimit
	}
	decision, err := s.options.Scheduler.Route(r.ctx, q)
	if err != nil {
		return err
	}
	return r.json(decisionAnswer(decision))
}

// retryAfterMillis returns when the error says that a retry may succeed, 0 if it doesn't.
func retryAfterMillis(err error) int64 {
	return int64(math.Ceil(float64(retryAfterOf(err)) / float64(time.Millisecond)))
}
