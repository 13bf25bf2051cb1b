package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// The functions of this file read the bodies of requests about queues, tasks, agents and states. What they return has passed the
// Check of its type.

// rawJSON is any JSON, which the server keeps as it came and does not look into; nil for null. Its bytes are its own.
type rawJSON []byte

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (r *rawJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*r = nil
	raw, err := d.ReadValue()
	if err != nil || raw.Kind() == 'n' {
		return err
	}
	if depth := vectord.JSONDepth(raw); depth > vectord.MaxPayloadDepth {
		return vectord.Errorf(vectord.KindUnprocessable, "nested %d deep, at most %d are accepted", depth, vectord.MaxPayloadDepth)
	}
	*r = bytes.Clone(raw)
	return nil
}

// floatsJSON is an array of numbers; nil for null.
type floatsJSON []float32

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (f *floatsJSON) UnmarshalJSONFrom(d *jsontext.Decoder) (err error) {
	*f = nil
	raw, err := d.ReadValue()
	if err != nil || raw.Kind() == 'n' {
		return err
	}
	*f, err = parseFloats(raw)
	return err
}

// priorityJSON is a number or one of three words.
type priorityJSON int

var priorityWords = map[string]priorityJSON{"low": 2, "normal": 4, "high": 7}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *priorityJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	if raw.Kind() == '"' {
		var word string
		if err := decodeInner(raw, &word); err != nil {
			return err
		}
		if n, ok := priorityWords[word]; ok {
			*p = n
			return nil
		}
	} else if jsonv2.Unmarshal(raw, (*int)(p)) == nil {
		return nil
	}
	return vectord.Errorf(vectord.KindInvalid, "expected an integer from 0 to %d, low, normal or high, got %s", vectord.MaxPriority, excerpt(raw))
}

// taskJSON is a task that is submitted.
type taskJSON struct {
	Payload             rawJSON              `json:"payload"`
	Type                string               `json:"type"`
	Vector              floatsJSON           `json:"vector"`
	Text                string               `json:"text"`
	Tags                list[string]         `json:"tags"`
	AgentID             string               `json:"agent_id"`
	Priority            *priorityJSON        `json:"priority"`
	FairnessKey         string               `json:"fairness_key"`
	FairnessWeight      float64              `json:"fairness_weight"`
	RunAt               timeJSON             `json:"run_at"`
	DelayMS             int64                `json:"delay_ms"`
	Deadline            timeJSON             `json:"deadline"`
	TimeoutSeconds      int                  `json:"timeout_seconds"`
	MaxAttempts         int                  `json:"max_attempts"`
	IdempotencyKey      string               `json:"idempotency_key"`
	DependsOn           list[vectord.TaskID] `json:"depends_on"`
	OnDependencyFailure string               `json:"on_dependency_failure"`
	StateRefs           list[string]         `json:"state_refs"`
	Metadata            payloadJSON          `json:"metadata"`
	TraceParent         string               `json:"traceparent"`
}

// The values of on_dependency_failure.
const (
	failOnDependencyFailure = "fail"
	runOnDependencyFailure  = "run"
)

// task returns the task. field is what stands before the names of its fields in errors.
func (t *taskJSON) task(field string) (vectord.NewTask, error) {
	out := vectord.NewTask{Payload: json.RawMessage(t.Payload), Type: t.Type, Vector: t.Vector, Text: t.Text, Tags: t.Tags, AgentID: t.AgentID,
		Priority: (*int)(t.Priority), FairnessKey: t.FairnessKey, FairnessWeight: t.FairnessWeight, RunAt: vectord.Timestamp(t.RunAt),
		DelayMS: t.DelayMS, Deadline: vectord.Timestamp(t.Deadline), TimeoutSeconds: t.TimeoutSeconds, MaxAttempts: t.MaxAttempts,
		IdempotencyKey: t.IdempotencyKey, DependsOn: t.DependsOn, StateRefs: t.StateRefs, Metadata: json.RawMessage(t.Metadata),
		TraceParent: t.TraceParent}
	switch t.OnDependencyFailure {
	case "", failOnDependencyFailure:
	case runOnDependencyFailure:
		out.RunOnDependencyFailure = true
	default:
		return out, &formError{inBody, vectord.Errorf(vectord.KindInvalid, "%son_dependency_failure: expected fail or run, got %s", field,
			excerpt([]byte(t.OnDependencyFailure)))}
	}
	if err := out.Check(); err != nil {
		return out, vectord.Errorf(vectord.KindOf(err), "%s%v", field, err)
	}
	return out, nil
}

func tasksOf(tasks list[taskJSON], field string) ([]vectord.NewTask, error) {
	if len(tasks) > vectord.MaxTaskBatch {
		return nil, vectord.Errorf(vectord.KindUnprocessable, "%s: %d of them, at most %d are accepted", field, len(tasks), vectord.MaxTaskBatch)
	}
	out := make([]vectord.NewTask, len(tasks))
	for i := range tasks {
		var err error
		if out[i], err = tasks[i].task(fmt.Sprintf("%s[%d].", field, i)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// submission is the body of a submission: one task, or many, whose answers have another form.
type submission struct {
	tasks []vectord.NewTask
	many  bool
}

func decodeSubmission(body []byte) (s submission, err error) {
	var b struct {
		taskJSON
		Tasks *list[taskJSON] `json:"tasks"`
	}
	if err := decodeBody(body, &b); err != nil {
		return s, err
	}
	if b.Tasks == nil {
		one, err := b.task("")
		return submission{tasks: []vectord.NewTask{one}}, err
	}
	s.many = true
	s.tasks, err = tasksOf(*b.Tasks, "tasks")
	return s, err
}

func decodeLease(body []byte) (vectord.LeaseRequest, error) {
	var b struct {
		Queue        string `json:"queue"`
		AgentID      string `json:"agent_id"`
		MaxTasks     int    `json:"max_tasks"`
		WaitMS       int64  `json:"wait_ms"`
		LeaseSeconds int    `json:"lease_seconds"`
	}
	if err := decodeBody(body, &b); err != nil {
		return vectord.LeaseRequest{}, err
	}
	r := vectord.LeaseRequest{Queue: b.Queue, AgentID: b.AgentID, MaxTasks: b.MaxTasks, WaitMS: b.WaitMS, LeaseSeconds: b.LeaseSeconds}
	return r, r.Check()
}

// heartbeatJSON is the sign that a task is being worked on. TaskID is given where there are several.
type heartbeatJSON struct {
	TaskID   vectord.TaskID  `json:"task_id"`
	LeaseID  vectord.LeaseID `json:"lease_id"`
	Extend   int             `json:"extend_seconds"`
	Progress rawJSON         `json:"progress"`
}

func (h *heartbeatJSON) call() vectord.TaskCall {
	return vectord.TaskCall{Kind: vectord.CallHeartbeat, ID: h.TaskID, LeaseID: h.LeaseID, Extend: h.Extend, Progress: json.RawMessage(h.Progress)}
}

func decodeHeartbeats(body []byte) ([]vectord.TaskCall, error) {
	var b struct {
		Tasks *list[heartbeatJSON] `json:"tasks"`
	}
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	switch {
	case b.Tasks == nil:
		return nil, missing("tasks")
	case len(*b.Tasks) > vectord.MaxTaskBatch:
		return nil, vectord.Errorf(vectord.KindUnprocessable, "tasks: %d of them, at most %d are accepted", len(*b.Tasks), vectord.MaxTaskBatch)
	}
	calls := make([]vectord.TaskCall, len(*b.Tasks))
	for i := range *b.Tasks {
		calls[i] = (*b.Tasks)[i].call()
		if err := calls[i].Check(); err != nil {
			return nil, &formError{inBody, vectord.Errorf(vectord.KindOf(err), "tasks[%d].%v", i, err)}
		}
	}
	return calls, nil
}

// The decoders of calls about one task take its id from the path.

func decodeHeartbeat(id vectord.TaskID, body []byte) (vectord.TaskCall, error) {
	var b heartbeatJSON
	if err := decodeBody(body, &b); err != nil {
		return vectord.TaskCall{}, err
	}
	b.TaskID = id
	return checkedCall(b.call())
}

func decodeComplete(id vectord.TaskID, body []byte) (vectord.TaskCall, error) {
	var b struct {
		LeaseID  vectord.LeaseID            `json:"lease_id"`
		Result   rawJSON                    `json:"result"`
		Points   map[string]list[pointJSON] `json:"points"`
		Tasks    map[string]list[taskJSON]  `json:"tasks"`
		Memories notOffered                 `json:"memories"`
	}
	if err := decodeBody(body, &b); err != nil {
		return vectord.TaskCall{}, err
	}
	c := vectord.TaskCall{Kind: vectord.CallComplete, ID: id, LeaseID: b.LeaseID, Result: json.RawMessage(b.Result)}
	if len(b.Points) > 0 {
		c.Effects.Points = make(map[string][]vectord.Point, len(b.Points))
	}
	for _, name := range slices.Sorted(maps.Keys(b.Points)) {
		points, err := pointsOf(b.Points[name], "points."+excerpt([]byte(name)))
		if err != nil {
			return c, err
		}
		c.Effects.Points[name] = points
	}
	if len(b.Tasks) > 0 {
		c.Effects.Tasks = make(map[string][]vectord.NewTask, len(b.Tasks))
	}
	for _, queue := range slices.Sorted(maps.Keys(b.Tasks)) {
		tasks, err := tasksOf(b.Tasks[queue], "tasks."+excerpt([]byte(queue)))
		if err != nil {
			return c, err
		}
		c.Effects.Tasks[queue] = tasks
	}
	return checkedCall(c)
}

func decodeFail(id vectord.TaskID, body []byte) (vectord.TaskCall, error) {
	var b struct {
		LeaseID vectord.LeaseID `json:"lease_id"`
		Error   *struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
		Retryable    *bool `json:"retryable"`
		RetryAfterMS int64 `json:"retry_after_ms"`
	}
	if err := decodeBody(body, &b); err != nil {
		return vectord.TaskCall{}, err
	}
	if b.Error == nil {
		return vectord.TaskCall{}, missing("error")
	}
	return checkedCall(vectord.TaskCall{Kind: vectord.CallFail, ID: id, LeaseID: b.LeaseID,
		Error: vectord.TaskError{Code: b.Error.Code, Message: b.Error.Message},
		Final: b.Retryable != nil && !*b.Retryable, RetryAfterMS: b.RetryAfterMS})
}

func decodeRelease(id vectord.TaskID, body []byte) (vectord.TaskCall, error) {
	var b struct {
		LeaseID vectord.LeaseID `json:"lease_id"`
	}
	if err := decodeBody(body, &b); err != nil {
		return vectord.TaskCall{}, err
	}
	return checkedCall(vectord.TaskCall{Kind: vectord.CallRelease, ID: id, LeaseID: b.LeaseID})
}

// input is the question of an agent, or the answer to one.
type input struct {
	call     vectord.TaskCall // the question, if response is nil
	response json.RawMessage
}

func decodeInput(id vectord.TaskID, body []byte) (in input, err error) {
	var b struct {
		LeaseID  vectord.LeaseID `json:"lease_id"`
		Request  rawJSON         `json:"request"`
		Response rawJSON         `json:"response"`
	}
	if err := decodeBody(body, &b); err != nil {
		return in, err
	}
	if (b.Request == nil) == (b.Response == nil) {
		return in, &formError{inBody, vectord.Errorf(vectord.KindInvalid, "exactly one of request, with lease_id, and response must be given")}
	}
	if b.Response != nil {
		if len(b.Response) > vectord.MaxMetadataBytes {
			return in, vectord.Errorf(vectord.KindUnprocessable, "response: %d bytes, at most %d are accepted", len(b.Response), vectord.MaxMetadataBytes)
		}
		return input{response: json.RawMessage(b.Response)}, nil
	}
	in.call, err = checkedCall(vectord.TaskCall{Kind: vectord.CallRequestInput, ID: id, LeaseID: b.LeaseID, Request: json.RawMessage(b.Request)})
	return in, err
}

func checkedCall(c vectord.TaskCall) (vectord.TaskCall, error) {
	if c.LeaseID == 0 {
		return c, missing("lease_id")
	}
	return c, c.Check()
}

func decodeTaskScroll(body []byte) (vectord.TaskScroll, error) {
	var b struct {
		Queue   string         `json:"queue"`
		AgentID string         `json:"agent_id"`
		Status  statusesJSON   `json:"status"`
		Type    string         `json:"type"`
		Tags    list[string]   `json:"tags"`
		After   vectord.TaskID `json:"after"`
		Limit   *int           `json:"limit"`
	}
	if err := decodeBody(body, &b); err != nil {
		return vectord.TaskScroll{}, err
	}
	s := vectord.TaskScroll{Queue: b.Queue, Agent: b.AgentID, Status: b.Status, Type: b.Type, Tags: b.Tags, After: b.After, Limit: defaultTaskLimit}
	if b.Limit != nil {
		s.Limit = *b.Limit
		if s.Limit == 0 {
			return s, outOfRange("limit", 0, "1 or larger")
		}
	}
	return s, s.Check()
}

// statusesJSON is a status or an array of them.
type statusesJSON []vectord.TaskStatus

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (s *statusesJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*s = nil
	if d.PeekKind() == '"' {
		var one vectord.TaskStatus
		if err := jsonv2.UnmarshalDecode(d, &one); err != nil {
			return err
		}
		*s = statusesJSON{one}
		return nil
	}
	return (*list[vectord.TaskStatus])(s).UnmarshalJSONFrom(d)
}

func decodeRedrive(body []byte) ([]vectord.TaskID, error) {
	var b struct {
		TaskIDs *list[vectord.TaskID] `json:"task_ids"`
	}
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	switch {
	case b.TaskIDs == nil:
		return nil, nil
	case len(*b.TaskIDs) < 1 || len(*b.TaskIDs) > vectord.MaxTaskBatch:
		return nil, vectord.Errorf(vectord.KindUnprocessable, "task_ids: %d of them, must be from 1 to %d, or null for all", len(*b.TaskIDs), vectord.MaxTaskBatch)
	}
	return *b.TaskIDs, nil
}

// keepOnNull makes null the same as absent for a value that has one already.
var keepOnNull = jsonv2.WithUnmarshalers(jsonv2.UnmarshalFromFunc(func(d *jsontext.Decoder, _ any) error {
	if d.PeekKind() == 'n' {
		return d.SkipValue()
	}
	return errors.ErrUnsupported
}))

// decodeQueueConfig reads the fields that the body gives over those of a configuration.
func decodeQueueConfig(c vectord.QueueConfig, body []byte) (vectord.QueueConfig, error) {
	if err := jsonv2.Unmarshal(body, &c, keepOnNull); err != nil {
		return c, bodyError(err)
	}
	return c, c.Check()
}

func decodeAgent(body []byte) (vectord.AgentConfig, error) {
	var b struct {
		Queues          list[string]      `json:"queues"`
		Vectors         list[floatsJSON]  `json:"vectors"`
		Texts           list[string]      `json:"texts"`
		Capabilities    list[string]      `json:"capabilities"`
		Capacity        int               `json:"capacity"`
		LeaseTTLSeconds int               `json:"lease_ttl_seconds"`
		Transport       string            `json:"transport"`
		Labels          map[string]string `json:"labels"`
	}
	if err := decodeBody(body, &b); err != nil {
		return vectord.AgentConfig{}, err
	}
	c := vectord.AgentConfig{Queues: b.Queues, Texts: b.Texts, Capabilities: b.Capabilities, Capacity: b.Capacity,
		LeaseTTLSeconds: b.LeaseTTLSeconds, Transport: b.Transport, Labels: b.Labels}
	for _, v := range b.Vectors {
		c.Vectors = append(c.Vectors, v)
	}
	return c, c.Check()
}

// maxLatencyMillis is the longest run time that an agent reports: a day.
const maxLatencyMillis = 24 * 60 * 60 * 1000

func decodeAgentHeartbeat(body []byte) (h vectord.AgentHeartbeat, err error) {
	var b struct {
		LatencyMS float64 `json:"latency_ms"`
	}
	if err := decodeBody(body, &b); err != nil {
		return h, err
	}
	if b.LatencyMS < 0 || b.LatencyMS > maxLatencyMillis {
		return h, outOfRange("latency_ms", b.LatencyMS, fmt.Sprintf("from 0 to %d", maxLatencyMillis))
	}
	return vectord.AgentHeartbeat{LatencyMS: b.LatencyMS}, nil
}

func decodeRoute(body []byte) (vectord.RouteRequest, error) {
	var b struct {
		Queue   string       `json:"queue"`
		Vector  floatsJSON   `json:"vector"`
		Text    string       `json:"text"`
		Tags    list[string] `json:"tags"`
		AgentID string       `json:"agent_id"`
		Limit   int          `json:"limit"`
	}
	if err := decodeBody(body, &b); err != nil {
		return vectord.RouteRequest{}, err
	}
	r := vectord.RouteRequest{Queue: b.Queue, Vector: b.Vector, Text: b.Text, Tags: b.Tags, AgentID: b.AgentID, Limit: b.Limit}
	return r, r.Check()
}
