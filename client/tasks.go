package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/vectord/vectord"
)

// This file has the calls about queues, tasks and agents.

func queuePath(name, rest string) string { return "/queues/" + url.PathEscape(name) + rest }

func taskPath(id vectord.TaskID, rest string) string { return "/tasks/" + id.String() + rest }

func agentPath(id, rest string) string { return "/agents/" + url.PathEscape(id) + rest }

// change sends v to a route that bears to be sent to twice, and decodes the result.
func (c *Client) change(ctx context.Context, method, path string, v, result any) error {
	return c.tell(ctx, request{method: method, path: path, changes: true}, v, result)
}

// changeOnce sends v to a route that does not bear that.
func (c *Client) changeOnce(ctx context.Context, method, path string, v, result any) error {
	return c.tell(ctx, request{method: method, path: path, changes: true, once: true}, v, result)
}

// ask sends v to a route that changes nothing.
func (c *Client) ask(ctx context.Context, path string, v, result any) error {
	return c.tell(ctx, request{method: http.MethodPost, path: path}, v, result)
}

func (c *Client) tell(ctx context.Context, r request, v, result any) (err error) {
	if v != nil {
		if r.body, err = json.Marshal(v); err != nil {
			return fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
	}
	return c.call(ctx, r, result)
}

func (c *Client) get(ctx context.Context, path string, result any) error {
	return c.call(ctx, request{method: http.MethodGet, path: path}, result)
}

// PutQueue creates a queue or replaces the configuration of one.
func (c *Client) PutQueue(ctx context.Context, name string, config vectord.QueueConfig) error {
	return c.change(ctx, http.MethodPut, queuePath(name, ""), config, nil)
}

type queueJSON struct {
	Name     string                     `json:"name"`
	Config   vectord.QueueConfig        `json:"config"`
	Counts   map[vectord.TaskStatus]int `json:"counts"`
	Agents   int                        `json:"agents"`
	OldestMS int64                      `json:"oldest_ms"`
}

// Queue returns a queue as it stands.
func (c *Client) Queue(ctx context.Context, name string) (vectord.QueueInfo, error) {
	var result queueJSON
	err := c.get(ctx, queuePath(name, ""), &result)
	return vectord.QueueInfo(result), err
}

// Queues returns all queues by name.
func (c *Client) Queues(ctx context.Context) (queues []vectord.QueueInfo, err error) {
	var result struct {
		Queues []queueJSON `json:"queues"`
	}
	err = c.get(ctx, "/queues", &result)
	for _, q := range result.Queues {
		queues = append(queues, vectord.QueueInfo(q))
	}
	return queues, err
}

// DeleteQueue deletes a queue, one with tasks that are not terminal only if force is set.
func (c *Client) DeleteQueue(ctx context.Context, name string, force bool) error {
	return c.changeOnce(ctx, http.MethodDelete, queuePath(name, "?force="+strconv.FormatBool(force)), nil, nil)
}

// newTaskJSON is a task that is submitted.
type newTaskJSON struct {
	vectord.NewTask
	OnDependencyFailure string `json:"on_dependency_failure,omitempty"`
}

// runOnDependencyFailure is the value of on_dependency_failure that is not the default.
const runOnDependencyFailure = "run"

func newTasksJSON(tasks []vectord.NewTask) []newTaskJSON {
	out := make([]newTaskJSON, len(tasks))
	for i, t := range tasks {
		out[i].NewTask = t
		if t.RunOnDependencyFailure {
			out[i].OnDependencyFailure = runOnDependencyFailure
		}
	}
	return out
}

// Submit submits tasks, up to vectord.MaxTaskBatch, and returns what became of each. The error is for what concerns them all, as
// that the queue had room for none of them.
//
// When a connection breaks nobody knows what was taken, and Submit sends the tasks again, under the same idempotency keys: those
// that have none get one.
func (c *Client) Submit(ctx context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
	sent := newTasksJSON(tasks)
	for i := range sent {
		if sent[i].IdempotencyKey == "" {
			sent[i].IdempotencyKey = newIdempotencyKey()
		}
	}
	body, err := json.Marshal(struct {
		Tasks []newTaskJSON `json:"tasks"`
	}{sent})
	if err != nil {
		return nil, fmt.Errorf("submit to queue %q: %w", queue, err)
	}
	var result struct {
		Tasks []struct {
			TaskID       vectord.TaskID     `json:"task_id"`
			Status       vectord.TaskStatus `json:"status"`
			Admission    string             `json:"admission"`
			Deduplicated bool               `json:"deduplicated"`
			Position     int                `json:"position"`
			Durable      bool               `json:"durable"`
			errorJSON
		} `json:"tasks"`
	}
	if err := c.call(ctx, request{method: http.MethodPost, path: queuePath(queue, "/tasks"), body: body, changes: true}, &result); err != nil {
		return nil, err
	}
	if len(result.Tasks) != len(tasks) {
		return nil, fmt.Errorf("%w: %d tasks have %d answers", errResponse, len(tasks), len(result.Tasks))
	}
	out := make([]vectord.Submitted, len(tasks))
	for i, t := range result.Tasks {
		if out[i].Err = t.err(); out[i].Err != nil {
			continue
		}
		out[i] = vectord.Submitted{TaskID: t.TaskID, Status: t.Status, Admission: vectord.AdmissionOK, RetryAfterMS: t.RetryAfterMS,
			Deduplicated: t.Deduplicated, Position: t.Position, Durable: t.Durable}
		if t.Admission == vectord.AdmissionBackpressure.String() {
			out[i].Admission = vectord.AdmissionBackpressure
		}
	}
	return out, nil
}

// taskJSON is a task in an answer.
type taskJSON struct {
	vectord.Task
	AgentID             string `json:"agent_id"`
	PinnedAgentID       string `json:"pinned_agent_id"`
	OnDependencyFailure string `json:"on_dependency_failure"`
}

func (t *taskJSON) task() vectord.Task {
	task := t.Task
	task.Agent, task.NewTask.AgentID = t.AgentID, t.PinnedAgentID
	task.RunOnDependencyFailure = t.OnDependencyFailure == runOnDependencyFailure
	return task
}

func tasksOf(list []taskJSON) []vectord.Task {
	tasks := make([]vectord.Task, len(list))
	for i := range list {
		tasks[i] = list[i].task()
	}
	return tasks
}

// Lease takes tasks, and waits for the first one as long as the request says. There may be none.
func (c *Client) Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error) {
	path := "/tasks/lease"
	if r.Queue != "" {
		path = queuePath(r.Queue, "/tasks/lease")
	}
	var result struct {
		Tasks []taskJSON `json:"tasks"`
	}
	err := c.change(ctx, http.MethodPost, path, struct {
		AgentID      string `json:"agent_id"`
		MaxTasks     int    `json:"max_tasks,omitempty"`
		WaitMS       int64  `json:"wait_ms,omitempty"`
		LeaseSeconds int    `json:"lease_seconds,omitempty"`
	}{r.AgentID, r.MaxTasks, r.WaitMS, r.LeaseSeconds}, &result)
	return tasksOf(result.Tasks), err
}

// callJSON is what the holder of a lease says, each kind of call having some of the fields.
type callJSON struct {
	TaskID       *vectord.TaskID            `json:"task_id,omitempty"`
	LeaseID      vectord.LeaseID            `json:"lease_id"`
	Result       json.RawMessage            `json:"result,omitempty"`
	Points       map[string]json.RawMessage `json:"points,omitempty"`
	Tasks        map[string][]newTaskJSON   `json:"tasks,omitempty"`
	Error        *vectord.TaskError         `json:"error,omitempty"`
	Retryable    *bool                      `json:"retryable,omitempty"`
	RetryAfterMS int64                      `json:"retry_after_ms,omitempty"`
	Extend       int                        `json:"extend_seconds,omitempty"`
	Progress     json.RawMessage            `json:"progress,omitempty"`
	Request      json.RawMessage            `json:"request,omitempty"`
}

func callOf(t *vectord.TaskCall) callJSON {
	c := callJSON{LeaseID: t.LeaseID, Result: t.Result, RetryAfterMS: t.RetryAfterMS, Extend: t.Extend, Progress: t.Progress, Request: t.Request}
	if t.Kind == vectord.CallFail {
		retryable := !t.Final
		c.Error, c.Retryable = &t.Error, &retryable
	}
	for collection, points := range t.Effects.Points {
		list := []byte{'['}
		for i, p := range points {
			if i > 0 {
				list = append(list, ',')
			}
			list = AppendPoint(list, p)
		}
		if c.Points == nil {
			c.Points = map[string]json.RawMessage{}
		}
		c.Points[collection] = append(list, ']')
	}
	for queue, tasks := range t.Effects.Tasks {
		if c.Tasks == nil {
			c.Tasks = map[string][]newTaskJSON{}
		}
		c.Tasks[queue] = newTasksJSON(tasks)
	}
	return c
}

// outcomeJSON is the answer to a call.
type outcomeJSON struct {
	Status          vectord.TaskStatus `json:"status"`
	LeaseExpiresAt  vectord.Timestamp  `json:"lease_expires_at"`
	CancelRequested bool               `json:"cancel_requested"`
	Tasks           []vectord.TaskID   `json:"tasks"`
	errorJSON
}

func (o *outcomeJSON) outcome() vectord.CallOutcome {
	return vectord.CallOutcome{Status: o.Status, LeaseExpiresAt: o.LeaseExpiresAt, CancelRequested: o.CancelRequested, Tasks: o.Tasks, Err: o.err()}
}

// callPaths end the paths of the kinds of calls.
var callPaths = map[vectord.TaskCallKind]string{vectord.CallComplete: "/complete", vectord.CallFail: "/fail", vectord.CallRelease: "/release",
	vectord.CallHeartbeat: "/heartbeat", vectord.CallRequestInput: "/input"}

// CallTask tells the server what the holder of a lease has to say of its task.
func (c *Client) CallTask(ctx context.Context, t vectord.TaskCall) (vectord.CallOutcome, error) {
	path, ok := callPaths[t.Kind]
	if !ok {
		return vectord.CallOutcome{}, fmt.Errorf("call of task %s: unknown kind %d", t.ID, t.Kind)
	}
	var result outcomeJSON
	err := c.change(ctx, http.MethodPost, taskPath(t.ID, path), callOf(&t), &result)
	return result.outcome(), err
}

// HeartbeatTasks extends the leases of many tasks, up to vectord.MaxTaskBatch, and returns the outcome of each call.
func (c *Client) HeartbeatTasks(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error) {
	body := struct {
		Tasks []callJSON `json:"tasks"`
	}{make([]callJSON, len(calls))}
	for i := range calls {
		body.Tasks[i] = callOf(&calls[i])
		body.Tasks[i].TaskID = &calls[i].ID
	}
	var result struct {
		Tasks []outcomeJSON `json:"tasks"`
	}
	if err := c.change(ctx, http.MethodPost, "/tasks/heartbeat", body, &result); err != nil {
		return nil, err
	}
	if len(result.Tasks) != len(calls) {
		return nil, fmt.Errorf("%w: %d calls have %d answers", errResponse, len(calls), len(result.Tasks))
	}
	outcomes := make([]vectord.CallOutcome, len(calls))
	for i := range result.Tasks {
		outcomes[i] = result.Tasks[i].outcome()
	}
	return outcomes, nil
}

// GiveInput answers what an agent asked, with any JSON.
func (c *Client) GiveInput(ctx context.Context, id vectord.TaskID, response json.RawMessage) (vectord.Task, error) {
	var result taskJSON
	err := c.changeOnce(ctx, http.MethodPost, taskPath(id, "/input"), map[string]json.RawMessage{"response": response}, &result)
	return result.task(), err
}

// CancelTask cancels a task that waits, and asks the agent of one that runs to stop.
func (c *Client) CancelTask(ctx context.Context, id vectord.TaskID) (vectord.Task, error) {
	var result taskJSON
	err := c.change(ctx, http.MethodPost, taskPath(id, "/cancel"), nil, &result)
	return result.task(), err
}

// Task returns a task as it stands, without its vector.
func (c *Client) Task(ctx context.Context, id vectord.TaskID) (vectord.Task, error) {
	var result taskJSON
	err := c.get(ctx, taskPath(id, ""), &result)
	return result.task(), err
}

// TaskResult waits until the task is terminal, up to vectord.MaxLeaseWaitMillis, and returns its id, status, attempt, progress,
// input request, result and error as they stand then.
func (c *Client) TaskResult(ctx context.Context, id vectord.TaskID, wait time.Duration) (vectord.Task, error) {
	var result taskJSON
	err := c.get(ctx, taskPath(id, "/result?wait_ms="+millis(wait)), &result)
	return result.task(), err
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }

// scrollJSON selects tasks.
type scrollJSON struct {
	Queue   string               `json:"queue,omitempty"`
	AgentID string               `json:"agent_id,omitempty"`
	Status  []vectord.TaskStatus `json:"status,omitempty"`
	Type    string               `json:"type,omitempty"`
	Tags    []string             `json:"tags,omitempty"`
	After   *vectord.TaskID      `json:"after,omitempty"`
	Limit   int                  `json:"limit,omitempty"`
}

func scrollOf(s vectord.TaskScroll) scrollJSON {
	out := scrollJSON{Queue: s.Queue, AgentID: s.Agent, Status: s.Status, Type: s.Type, Tags: s.Tags, Limit: s.Limit}
	if s.After != (vectord.TaskID{}) {
		out.After = &s.After
	}
	return out
}

// ScrollTasks returns a page of tasks without their vectors, and after which task the next page begins, if this one is full.
func (c *Client) ScrollTasks(ctx context.Context, s vectord.TaskScroll) (tasks []vectord.Task, next *vectord.TaskID, err error) {
	var result struct {
		Tasks []taskJSON      `json:"tasks"`
		Next  *vectord.TaskID `json:"next_after"`
	}
	err = c.ask(ctx, "/tasks/scroll", scrollOf(s), &result)
	return tasksOf(result.Tasks), result.Next, err
}

// CountTasks returns the number of tasks that s selects.
func (c *Client) CountTasks(ctx context.Context, s vectord.TaskScroll) (int, error) {
	var result struct {
		Count int `json:"count"`
	}
	err := c.ask(ctx, "/tasks/count", scrollOf(s), &result)
	return result.Count, err
}

// Redrive gives failed tasks of a queue their attempts anew, those with the ids or, with none, all, and returns how many.
func (c *Client) Redrive(ctx context.Context, queue string, ids []vectord.TaskID) (int, error) {
	var result struct {
		Redriven int `json:"redriven"`
	}
	err := c.changeOnce(ctx, http.MethodPost, queuePath(queue, "/dead_letters/redrive"), struct {
		TaskIDs []vectord.TaskID `json:"task_ids,omitempty"`
	}{ids}, &result)
	return result.Redriven, err
}

// Decisions returns which agents a task went to, and why, the first decision first.
func (c *Client) Decisions(ctx context.Context, id vectord.TaskID) ([]vectord.Decision, error) {
	var result struct {
		Decisions []vectord.Decision `json:"decisions"`
	}
	err := c.get(ctx, taskPath(id, "/route"), &result)
	return result.Decisions, err
}

// Route returns where a task would go.
func (c *Client) Route(ctx context.Context, r vectord.RouteRequest) (vectord.Decision, error) {
	var decision vectord.Decision
	err := c.ask(ctx, "/route", struct {
		Queue   string    `json:"queue"`
		Vector  []float32 `json:"vector,omitempty"`
		Text    string    `json:"text,omitempty"`
		Tags    []string  `json:"tags,omitempty"`
		AgentID string    `json:"agent_id,omitempty"`
		Limit   int       `json:"limit,omitempty"`
	}{r.Queue, r.Vector, r.Text, r.Tags, r.AgentID, r.Limit}, &decision)
	return decision, err
}

// RegisterAgent registers an agent, or changes what it says of itself.
func (c *Client) RegisterAgent(ctx context.Context, id string, config vectord.AgentConfig) error {
	if config.Transport == "" {
		config.Transport = "pull"
	}
	return c.change(ctx, http.MethodPut, agentPath(id, ""), config, nil)
}

// Agent returns an agent as it stands, without its vectors.
func (c *Client) Agent(ctx context.Context, id string) (agent vectord.Agent, err error) {
	err = c.get(ctx, agentPath(id, ""), &agent)
	return agent, err
}

// Agents returns all agents by id, without their vectors.
func (c *Client) Agents(ctx context.Context) ([]vectord.Agent, error) {
	var result struct {
		Agents []vectord.Agent `json:"agents"`
	}
	err := c.get(ctx, "/agents", &result)
	return result.Agents, err
}

// RemoveAgent removes an agent and ends its leases.
func (c *Client) RemoveAgent(ctx context.Context, id string) error {
	return c.changeOnce(ctx, http.MethodDelete, agentPath(id, ""), nil, nil)
}

// HeartbeatAgent gives a sign of life.
func (c *Client) HeartbeatAgent(ctx context.Context, id string, h vectord.AgentHeartbeat) (news vectord.AgentNews, err error) {
	err = c.change(ctx, http.MethodPost, agentPath(id, "/heartbeat"), map[string]float64{"latency_ms": h.LatencyMS}, &news)
	return news, err
}

// DrainAgent lets an agent get no new tasks, or, if not drain, get some again.
func (c *Client) DrainAgent(ctx context.Context, id string, drain bool) error {
	rest := "/resume"
	if drain {
		rest = "/drain"
	}
	return c.change(ctx, http.MethodPost, agentPath(id, rest), nil, nil)
}

func statePath(key, rest string) string { return "/states/" + url.PathEscape(key) + rest }

// stateJSON is a state in an answer, without its value.
type stateJSON struct {
	Key         string            `json:"key"`
	ContentType string            `json:"content_type"`
	Version     uint64            `json:"version"`
	UpdatedAt   vectord.Timestamp `json:"updated_at"`
	ExpiresAt   vectord.Timestamp `json:"expires_at"`
	Refs        int               `json:"refs"`
}

func (s *stateJSON) state() vectord.State {
	return vectord.State{Key: s.Key, ContentType: s.ContentType, Version: s.Version, UpdatedAt: s.UpdatedAt, ExpiresAt: s.ExpiresAt, Refs: s.Refs}
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

// PutState writes a state and returns it. A write that depends on a version is not sent again when the connection fails, for
// then it would contradict itself if it had been done: the error is ErrOutcomeUnknown.
func (c *Client) PutState(ctx context.Context, key string, value []byte, w vectord.StateWrite) (vectord.State, error) {
	r := request{method: http.MethodPut, path: statePath(key, "?ttl_seconds="+strconv.Itoa(w.TTLSeconds)), body: value, header: http.Header{}, changes: true,
		once: w.IfVersion != nil}
	if w.ContentType != "" {
		r.header.Set("Content-Type", w.ContentType)
	}
	switch {
	case w.IfVersion == nil:
	case *w.IfVersion == 0:
		r.header.Set("If-None-Match", "*")
	default:
		r.header.Set("If-Match", etag(*w.IfVersion))
	}
	var result stateJSON
	if err := c.call(ctx, r, &result); err != nil {
		return vectord.State{}, err
	}
	state := result.state()
	state.Value = value
	return state, nil
}

// State returns the value, content type, version and time of a state. With since it waits, up to vectord.MaxLeaseWaitMillis, for a
// version above that; changed is false if there is none.
func (c *Client) State(ctx context.Context, key string, since uint64, wait time.Duration) (state vectord.State, changed bool, err error) {
	path := statePath(key, "?since="+strconv.FormatUint(since, 10)+"&wait_ms="+millis(wait))
	value, header, err := c.exchange(ctx, request{method: http.MethodGet, path: path})
	if StatusOf(err) == http.StatusNotModified {
		return vectord.State{Key: key, Version: since}, false, nil
	}
	if err != nil {
		return state, false, err
	}
	state = vectord.State{Key: key, Value: value, ContentType: header.Get("Content-Type")}
	if state.Version, err = strconv.ParseUint(strings.Trim(header.Get("ETag"), `W/"`), 10, 64); err != nil {
		return state, false, fmt.Errorf("%w: ETag %q", errResponse, header.Get("ETag"))
	}
	if at, err := http.ParseTime(header.Get("Last-Modified")); err == nil {
		state.UpdatedAt = vectord.Timestamp(at.UnixMilli())
	}
	return state, true, nil
}

// DeleteState deletes a state if it has the version, any for nil, and reports whether it was there.
func (c *Client) DeleteState(ctx context.Context, key string, ifVersion *uint64) (existed bool, err error) {
	r := request{method: http.MethodDelete, path: statePath(key, ""), changes: true}
	if ifVersion != nil {
		r.header, r.once = http.Header{"If-Match": {etag(*ifVersion)}}, true
	}
	err = c.call(ctx, r, &existed)
	return existed, err
}

// States returns up to limit states by key, without their values: those that begin with prefix and come after a key.
func (c *Client) States(ctx context.Context, prefix, after string, limit int) (states []vectord.State, err error) {
	query := url.Values{"prefix": {prefix}, "after": {after}, "limit": {strconv.Itoa(limit)}}
	var result struct {
		States []stateJSON `json:"states"`
	}
	err = c.get(ctx, "/states?"+query.Encode(), &result)
	for i := range result.States {
		states = append(states, result.States[i].state())
	}
	return states, err
}
