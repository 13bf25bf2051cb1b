package vectord

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of tasks, queues and agents.
const (
	MaxTaskBytes         = 1 << 20 // of a task's payload, and of its result
	MaxTaskBatch         = 1_000   // tasks or calls in one request
	MaxTaskDependencies  = 64
	MaxTaskTags          = 32
	MaxNameBytes         = 128 // of the name of a queue, agent, tag, type or fairness key
	MaxTaskKeyBytes      = 255 // of an idempotency key
	MaxMetadataBytes     = 16 << 10
	MaxErrorBytes        = 4 << 10 // of the message of a task's error
	MaxPriority          = 9
	MaxAgentVectors      = 16
	MaxAgentCapacity     = 10_000
	MaxAgents            = 100_000
	MaxQueues            = 10_000
	MaxLeaseWaitMillis   = 30_000
	MaxLeaseSeconds      = 24 * 60 * 60
	MaxAttempts          = 1_000
	MaxQueueTasks        = 10_000_000           // that wait in one queue, and leases of it at a time
	MaxKeepSeconds       = 365 * 24 * 60 * 60   // that a terminal task or an idempotency key is kept
	MaxPauseMillis       = 7 * 24 * 3600 * 1000 // before a further attempt, or of a wait for an agent
	MaxDelayMillis       = 10 * 365 * 24 * 3600 * 1000
	MaxRatePerSecond     = 1_000_000
	MaxTaskTextBytes     = 64 << 10 // of a text of which a vector is made
	MaxTraceParentBytes  = 512
	MaxAgentQueues       = 256
	MaxAgentCapabilities = 256
	MaxCandidates        = 1_000 // of a decision
	MaxAgentLabels       = 64
	MinFairnessWeight    = 0.001
	MaxFairnessWeight    = 1_000
)

// CheckName returns an error unless name may name a queue or an agent: 1 to MaxNameBytes bytes of UTF-8 without control
// characters and slashes. what is the field it is in.
func CheckName(what, name string) error {
	if strings.ContainsRune(name, '/') {
		return Errorf(KindUnprocessable, "%s: %.80q contains a slash", what, name)
	}
	return checkLabel(what, name)
}

// checkLabel is CheckName for what stands in no path: tags, types and keys.
func checkLabel(what, text string) error {
	if text == "" {
		return Errorf(KindUnprocessable, "%s: is empty", what)
	}
	return checkText(what, text, MaxNameBytes)
}

func checkText(what, text string, bytesMax int) error {
	switch {
	case len(text) > bytesMax:
		return Errorf(KindUnprocessable, "%s: %d bytes, at most %d are accepted", what, len(text), bytesMax)
	case !utf8.ValidString(text):
		return Errorf(KindUnprocessable, "%s: %.80q is not valid UTF-8", what, text)
	case strings.ContainsFunc(text, unicode.IsControl):
		return Errorf(KindUnprocessable, "%s: %.80q contains a control character", what, text)
	}
	return nil
}

func checkLabels(what string, texts []string, countMax int) error {
	if len(texts) > countMax {
		return Errorf(KindUnprocessable, "%s: %d of them, at most %d are accepted", what, len(texts), countMax)
	}
	for i, text := range texts {
		if err := checkLabel(fmt.Sprintf("%s[%d]", what, i), text); err != nil {
			return err
		}
	}
	return nil
}

// checkFloat refuses NaN too.
func checkFloat(field string, value, low, high float64) error {
	if value >= low && value <= high {
		return nil
	}
	return Errorf(KindUnprocessable, "%s: value %v invalid, must be from %v to %v", field, value, low, high)
}

// checkRoutingVector checks a vector that is compared by its direction.
func checkRoutingVector(field string, v []float32) error {
	if len(v) > MaxDimension {
		return Errorf(KindUnprocessable, "%s: %d components, at most %d are accepted", field, len(v), MaxDimension)
	}
	direction := false
	for i, x := range v {
		if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
			return Errorf(KindInvalid, "%s: component %d is %v, expected a finite number", field, i, x)
		}
		direction = direction || x != 0
	}
	if !direction {
		return Errorf(KindUnprocessable, "%s: no component differs from 0, so it has no direction", field)
	}
	return nil
}

// TaskID names a task: a UUID of version 7, made by the server. The zero value names none.
type TaskID [16]byte

// ParseTaskID reads the form that String writes.
func ParseTaskID(s string) (id TaskID, err error) {
	b := strings.ReplaceAll(s, "-", "")
	if len(s) == 36 && len(b) == 32 {
		if _, err := hex.Decode(id[:], []byte(b)); err == nil && id.String() == strings.ToLower(s) {
			return id, nil
		}
	}
	return TaskID{}, Errorf(KindInvalid, "%.80q is not the id of a task, which is a UUID", s)
}

func (id TaskID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

// MarshalText implements encoding.TextMarshaler.
func (id TaskID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *TaskID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseTaskID(string(text))
	return err
}

// LeaseID names a grant of a task to an agent. Later grants have greater ids, as numbers and as text, so that whoever is
// told of two can tell the later one (a fencing token). 0 names none.
type LeaseID uint64

func (id LeaseID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// MarshalText implements encoding.TextMarshaler.
func (id LeaseID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (id *LeaseID) UnmarshalText(text []byte) error {
	var b [8]byte
	if len(text) == 16 {
		if _, err := hex.Decode(b[:], text); err == nil {
			*id = 0
			for _, x := range b {
				*id = *id<<8 | LeaseID(x)
			}
			return nil
		}
	}
	return Errorf(KindInvalid, "%.80q is not the id of a lease, which is 16 hexadecimal digits", text)
}

// TaskStatus is where a task is in its life.
type TaskStatus uint8

// The statuses of tasks. Terminal ones are left only by a redrive.
const (
	TaskScheduled     TaskStatus = iota + 1 // waits for its time, or for the end of a pause before the next attempt
	TaskBlocked                             // waits for other tasks
	TaskQueued                              // waits for an agent
	TaskRunning                             // leased by an agent
	TaskInputRequired                       // waits for an answer to the agent's question
	TaskCompleted                           // terminal
	TaskFailed                              // terminal: among the dead letters
	TaskCancelled                           // terminal
)

var taskStatuses = [...]string{"", "scheduled", "blocked", "queued", "running", "input_required", "completed", "failed", "cancelled"}

func (s TaskStatus) String() string { return taskStatuses[s] }

// Terminal reports whether the task has come to its end.
func (s TaskStatus) Terminal() bool { return s >= TaskCompleted }

// MarshalText implements encoding.TextMarshaler.
func (s TaskStatus) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *TaskStatus) UnmarshalText(text []byte) error {
	for i, name := range taskStatuses {
		if i > 0 && name == string(text) {
			*s = TaskStatus(i)
			return nil
		}
	}
	return Errorf(KindInvalid, "%.80q is not a status, expected one of %s", text, strings.Join(taskStatuses[1:], ", "))
}

// NewTask is a task to be submitted. The zero value of each field stands for its default.
type NewTask struct {
	Payload     json.RawMessage `json:"payload,omitempty"` // opaque; none is null
	Type        string          `json:"type,omitempty"`
	Vector      []float32       `json:"vector,omitempty"` // that routes the task
	Text        string          `json:"text,omitempty"`   // instead of Vector: the server's model makes it
	Tags        []string        `json:"tags,omitempty"`   // all of which the agent must have
	AgentID     string          `json:"agent_id,omitempty"`
	Priority    *int            `json:"priority,omitempty"` // 0 to 9, 9 first; nil: 4
	FairnessKey string          `json:"fairness_key,omitempty"`
	// FairnessWeight is the share of this key among those of its queue and priority, from 0.001 to 1000; 0: 1.
	FairnessWeight float64   `json:"fairness_weight,omitempty"`
	RunAt          Timestamp `json:"run_at,omitempty"`          // not before; 0: at once
	DelayMS        int64     `json:"delay_ms,omitempty"`        // instead of RunAt
	Deadline       Timestamp `json:"deadline,omitempty"`        // fails when not completed by then
	TimeoutSeconds int       `json:"timeout_seconds,omitempty"` // of one attempt, however often its lease is extended
	MaxAttempts    int       `json:"max_attempts,omitempty"`    // 0: the queue's
	// IdempotencyKey makes repetitions of the submission return the first task.
	IdempotencyKey string   `json:"idempotency_key,omitempty"`
	DependsOn      []TaskID `json:"depends_on,omitempty"`
	// RunOnDependencyFailure lets the task run when one of DependsOn failed or was cancelled, instead of failing with it.
	RunOnDependencyFailure bool            `json:"-"`
	StateRefs              []string        `json:"state_refs,omitempty"` // keys of states, kept while the task lives
	Metadata               json.RawMessage `json:"metadata,omitempty"`   // an object, handed to the agent
	TraceParent            string          `json:"traceparent,omitempty"`
}

// Check returns an error, which names the field and the value, unless the task may be submitted to some queue.
func (t *NewTask) Check() error {
	if err := t.checkRouting(); err != nil {
		return err
	}
	if err := t.checkTimes(); err != nil {
		return err
	}
	switch {
	case t.Priority != nil && (*t.Priority < 0 || *t.Priority > MaxPriority):
		return Errorf(KindUnprocessable, "priority: value %d invalid, must be from 0 to %d", *t.Priority, MaxPriority)
	case t.MaxAttempts < 0 || t.MaxAttempts > MaxAttempts:
		return Errorf(KindUnprocessable, "max_attempts: value %d invalid, must be from 1 to %d", t.MaxAttempts, MaxAttempts)
	case len(t.Payload) > MaxTaskBytes:
		return Errorf(KindTooLarge, "payload: %d bytes, at most %d are accepted", len(t.Payload), MaxTaskBytes)
	case len(t.Metadata) > MaxMetadataBytes:
		return Errorf(KindUnprocessable, "metadata: %d bytes, at most %d are accepted", len(t.Metadata), MaxMetadataBytes)
	case len(t.DependsOn) > MaxTaskDependencies:
		return Errorf(KindUnprocessable, "depends_on: %d tasks, at most %d are accepted", len(t.DependsOn), MaxTaskDependencies)
	case len(t.StateRefs) > MaxTaskDependencies:
		return Errorf(KindUnprocessable, "state_refs: %d keys, at most %d are accepted", len(t.StateRefs), MaxTaskDependencies)
	}
	for i, id := range t.DependsOn {
		if id == (TaskID{}) || slices.Contains(t.DependsOn[:i], id) {
			return Errorf(KindUnprocessable, "depends_on[%d]: %s names no task, or one twice", i, id)
		}
	}
	for i, key := range t.StateRefs {
		if err := CheckStateKey(fmt.Sprintf("state_refs[%d]", i), key); err != nil {
			return err
		}
	}
	if err := checkText("idempotency_key", t.IdempotencyKey, MaxTaskKeyBytes); err != nil {
		return err
	}
	return checkText("traceparent", t.TraceParent, MaxTraceParentBytes)
}

// checkRouting checks what decides which agent gets the task, and when among its like.
func (t *NewTask) checkRouting() error {
	if t.Type != "" {
		if err := checkLabel("type", t.Type); err != nil {
			return err
		}
	}
	if t.FairnessKey != "" {
		if err := checkLabel("fairness_key", t.FairnessKey); err != nil {
			return err
		}
	}
	if t.FairnessWeight != 0 {
		if err := checkFloat("fairness_weight", t.FairnessWeight, MinFairnessWeight, MaxFairnessWeight); err != nil {
			return err
		}
	}
	return checkTarget(t.Vector, t.Text, t.Tags, t.AgentID)
}

// checkTarget checks what says which agents are wanted.
func checkTarget(vector []float32, text string, tags []string, agentID string) error {
	switch {
	case len(vector) > 0 && text != "":
		return Errorf(KindUnprocessable, "text: cannot be given together with vector")
	case len(text) > MaxTaskTextBytes:
		return Errorf(KindUnprocessable, "text: %d bytes, at most %d are accepted", len(text), MaxTaskTextBytes)
	}
	if vector != nil {
		if err := checkRoutingVector("vector", vector); err != nil {
			return err
		}
	}
	if agentID != "" {
		if err := CheckName("agent_id", agentID); err != nil {
			return err
		}
	}
	return checkLabels("tags", tags, MaxTaskTags)
}

func (t *NewTask) checkTimes() error {
	switch {
	case t.RunAt != 0 && t.DelayMS != 0:
		return Errorf(KindUnprocessable, "delay_ms: cannot be given together with run_at")
	case t.DelayMS < 0 || t.DelayMS > MaxDelayMillis:
		return Errorf(KindUnprocessable, "delay_ms: value %d invalid, must be from 0 to %d", t.DelayMS, int64(MaxDelayMillis))
	case t.RunAt < 0 || t.RunAt > timestampMax:
		return Errorf(KindUnprocessable, "run_at: value %d invalid, must be from 0 to %d milliseconds since 1970", t.RunAt, timestampMax)
	case t.Deadline < 0 || t.Deadline > timestampMax:
		return Errorf(KindUnprocessable, "deadline: value %d invalid, must be from 0 to %d milliseconds since 1970", t.Deadline, timestampMax)
	case t.Deadline != 0 && t.RunAt != 0 && t.Deadline <= t.RunAt:
		return Errorf(KindUnprocessable, "deadline: %s is not after run_at, %s", t.Deadline, t.RunAt)
	case t.TimeoutSeconds < 0 || t.TimeoutSeconds > MaxLeaseSeconds:
		return Errorf(KindUnprocessable, "timeout_seconds: value %d invalid, must be from 1 to %d", t.TimeoutSeconds, MaxLeaseSeconds)
	}
	return nil
}

// Admission says how a submitted task was taken.
type Admission uint8

// The admissions.
const (
	AdmissionOK           Admission = iota + 1
	AdmissionBackpressure           // accepted, but the queue is deeper than max_depth
)

func (a Admission) String() string { return [...]string{"", "ok", "backpressure"}[a] }

// MarshalText implements encoding.TextMarshaler.
func (a Admission) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// Submitted is the answer to one submitted task. Err says why it was not accepted; the other fields are zero then.
type Submitted struct {
	TaskID       TaskID
	Status       TaskStatus
	Admission    Admission
	RetryAfterMS int64 // with backpressure
	Deduplicated bool  // the task had been submitted before, under the same key
	Position     int   // tasks of the queue that wait, this one included; 0 if it doesn't wait
	Durable      bool
	Err          error
}

// TaskError says why an attempt or a task failed.
type TaskError struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
}

// The codes that the server itself gives to attempts and tasks that fail.
const (
	ErrorLeaseExpired     = "lease_expired"
	ErrorTimeout          = "attempt_timeout"
	ErrorDeadline         = "deadline_exceeded"
	ErrorAgentDied        = "agent_died"
	ErrorEvicted          = "evicted"
	ErrorDependencyFailed = "dependency_failed"
	ErrorQueueDeleted     = "queue_deleted"
)

// Task is a task as it stands.
type Task struct {
	ID     TaskID     `json:"task_id"`
	Queue  string     `json:"queue"`
	Status TaskStatus `json:"status"`
	NewTask
	CreatedAt       Timestamp       `json:"created_at"`
	UpdatedAt       Timestamp       `json:"updated_at"`
	Attempt         int             `json:"attempt"` // that is under way or was the last; 0: there was none
	Agent           string          `json:"-"`       // that holds the task, or held it last
	LeaseID         LeaseID         `json:"lease_id,omitempty"`
	LeaseExpiresAt  Timestamp       `json:"lease_expires_at,omitempty"`
	Progress        json.RawMessage `json:"progress,omitempty"`
	CancelRequested bool            `json:"cancel_requested,omitempty"`
	WaitingReason   string          `json:"waiting_reason,omitempty"`
	InputRequest    json.RawMessage `json:"input_request,omitempty"`
	InputResponse   json.RawMessage `json:"input_response,omitempty"`
	Result          json.RawMessage `json:"result,omitempty"`
	Error           *TaskError      `json:"error,omitempty"` // of the last attempt that failed
	Durable         bool            `json:"durable"`
}

// LeaseRequest asks for tasks.
type LeaseRequest struct {
	Queue        string // empty: all the queues that the agent serves
	AgentID      string
	MaxTasks     int   // 1 to MaxTaskBatch; 0: 1
	WaitMS       int64 // for the first task, up to MaxLeaseWaitMillis
	LeaseSeconds int   // 0: the queue's
}

// Check returns an error, which names the field and the value, unless an agent may ask so.
func (r *LeaseRequest) Check() error {
	if r.Queue != "" {
		if err := CheckName("queue", r.Queue); err != nil {
			return err
		}
	}
	if err := CheckName("agent_id", r.AgentID); err != nil {
		return err
	}
	if r.WaitMS < 0 || r.WaitMS > MaxLeaseWaitMillis {
		return Errorf(KindUnprocessable, "wait_ms: value %d invalid, must be from 0 to %d", r.WaitMS, MaxLeaseWaitMillis)
	}
	return checkRanges("",
		rangeCheck{"max_tasks", r.MaxTasks, 0, MaxTaskBatch},
		rangeCheck{"lease_seconds", r.LeaseSeconds, 0, MaxLeaseSeconds})
}

// TaskCall is what the holder of a lease says of its task: exactly one of the kinds below.
type TaskCall struct {
	Kind    TaskCallKind
	ID      TaskID
	LeaseID LeaseID

	Result       json.RawMessage // CallComplete
	Effects      Effects         // CallComplete
	Error        TaskError       // CallFail
	Final        bool            // CallFail: not to be tried again
	RetryAfterMS int64           // CallFail: instead of the queue's backoff; 0: that
	Extend       int             // CallHeartbeat: seconds from now on; 0: what the lease was granted for
	Progress     json.RawMessage // CallHeartbeat
	Request      json.RawMessage // CallRequestInput
}

// Check returns an error, which names the field and the value, unless the call can be one of its kind.
func (c *TaskCall) Check() error {
	switch {
	case c.ID == (TaskID{}):
		return Errorf(KindInvalid, "task_id: is missing")
	case c.LeaseID == 0:
		return Errorf(KindInvalid, "lease_id: is missing")
	}
	switch c.Kind {
	case CallComplete:
		if len(c.Result) > MaxTaskBytes {
			return Errorf(KindTooLarge, "result: %d bytes, at most %d are accepted", len(c.Result), MaxTaskBytes)
		}
		return c.Effects.Check()
	case CallFail:
		if err := checkLabel("error.code", c.Error.Code); err != nil {
			return err
		}
		switch {
		case len(c.Error.Message) > MaxErrorBytes:
			return Errorf(KindUnprocessable, "error.message: %d bytes, at most %d are accepted", len(c.Error.Message), MaxErrorBytes)
		case !utf8.ValidString(c.Error.Message):
			return Errorf(KindUnprocessable, "error.message: is not valid UTF-8")
		}
		return checkMillis("retry_after_ms", c.RetryAfterMS)
	case CallHeartbeat:
		if len(c.Progress) > MaxMetadataBytes {
			return Errorf(KindUnprocessable, "progress: %d bytes, at most %d are accepted", len(c.Progress), MaxMetadataBytes)
		}
		return checkRanges("", rangeCheck{"extend_seconds", c.Extend, 0, MaxLeaseSeconds})
	case CallRequestInput:
		if len(c.Request) > MaxMetadataBytes {
			return Errorf(KindUnprocessable, "request: %d bytes, at most %d are accepted", len(c.Request), MaxMetadataBytes)
		}
	}
	return nil
}

// Check returns an error, which names the field and the value, unless a completion may have these effects. Whether the points
// fit their collections is not looked at.
func (e *Effects) Check() error {
	points := 0
	for _, name := range slices.Sorted(maps.Keys(e.Points)) {
		if err := CheckCollectionName(name); err != nil {
			return Errorf(KindOf(err), "points: %v", err)
		}
		if points += len(e.Points[name]); points > MaxBatchPoints {
			return Errorf(KindUnprocessable, "points: more than %d of them", MaxBatchPoints)
		}
	}
	tasks := 0
	for _, queue := range slices.Sorted(maps.Keys(e.Tasks)) {
		if err := CheckName("tasks", queue); err != nil {
			return err
		}
		if tasks += len(e.Tasks[queue]); tasks > MaxTaskBatch {
			return Errorf(KindUnprocessable, "tasks: more than %d of them", MaxTaskBatch)
		}
		for i := range e.Tasks[queue] {
			if err := e.Tasks[queue][i].Check(); err != nil {
				return Errorf(KindOf(err), "tasks.%.80s[%d].%v", queue, i, err)
			}
		}
	}
	return nil
}

// TaskCallKind tells calls apart.
type TaskCallKind uint8

// The kinds of calls.
const (
	CallComplete TaskCallKind = iota + 1
	CallFail
	CallRelease
	CallHeartbeat
	CallRequestInput
)

// Effects are what a completion brings about together with the task's result: all of it or nothing.
type Effects struct {
	Points map[string][]Point   // to be upserted, by collection
	Tasks  map[string][]NewTask // by queue
}

// Empty reports whether there are none.
func (e *Effects) Empty() bool { return len(e.Points)+len(e.Tasks) == 0 }

// CallOutcome is the answer to one TaskCall.
type CallOutcome struct {
	Status          TaskStatus
	LeaseExpiresAt  Timestamp // CallHeartbeat
	CancelRequested bool      // CallHeartbeat
	Tasks           []TaskID  // that a completion submitted, by queue name and then in their order
	Err             error
}

// TaskScroll selects tasks.
type TaskScroll struct {
	Queue  string       // empty: of all queues
	Agent  string       // that holds or held the task; empty: any or none
	Status []TaskStatus // empty: any
	Type   string       // empty: any
	Tags   []string     // all of which the task has
	After  TaskID       // the tasks made after this one
	Limit  int          // 1 to MaxTaskBatch; 0: 100
}

// Check returns an error, which names the field and the value, unless tasks can be selected so.
func (s *TaskScroll) Check() error {
	for _, name := range []struct{ field, value string }{{"queue", s.Queue}, {"agent_id", s.Agent}} {
		if name.value != "" {
			if err := CheckName(name.field, name.value); err != nil {
				return err
			}
		}
	}
	if s.Type != "" {
		if err := checkLabel("type", s.Type); err != nil {
			return err
		}
	}
	if err := checkLabels("tags", s.Tags, MaxTaskTags); err != nil {
		return err
	}
	return checkRanges("",
		rangeCheck{"status", len(s.Status), 0, int(TaskCancelled)},
		rangeCheck{"limit", s.Limit, 0, MaxTaskBatch})
}

// TaskEvent is one change of a task.
type TaskEvent struct {
	ID       uint64          `json:"id"` // rising over all tasks
	Type     string          `json:"type"`
	Time     Timestamp       `json:"time"`
	TaskID   TaskID          `json:"task_id"`
	Queue    string          `json:"queue"`
	Status   TaskStatus      `json:"status"`
	Attempt  int             `json:"attempt"`
	AgentID  string          `json:"agent_id,omitempty"`
	Progress json.RawMessage `json:"progress,omitempty"`
	Error    *TaskError      `json:"error,omitempty"`
}
