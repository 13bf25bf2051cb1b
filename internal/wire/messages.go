// Package wire has the binary forms of what goes over the network: the frames of the TCP protocol, their MessagePack bodies,
// and MessagePack in place of JSON over HTTP.
//
// The fields of messages are named as in the JSON API. Decoding bounds every length before it takes memory for it, and is
// free of copies: Raw fields are slices of the frame, and are valid as long as that is.
package wire

//go:generate go tool -modfile=../../tools/go.mod msgp -file messages.go -o messages_gen.go -io=false -tests=false

//msgp:limit arrays:10000 maps:64
//msgp:ignore Raw Nested Floats Vectors TaskID LeaseID Time PointID

// Hello is what a client says first.
type Hello struct {
	APIKey string `msg:"api_key,omitempty"`
	Client string `msg:"client,omitempty"` // its name and version, for the log
}

// Welcome answers a Hello.
type Welcome struct {
	Server        string `msg:"server"`
	Credits       int    `msg:"credits"` // frames that may be on their way without an answer
	MaxFrameBytes int    `msg:"max_frame_bytes"`
	MaxBatch      int    `msg:"max_batch"` // tasks or calls in one frame
}

// Error says why a request, or one item of it, was refused. Status is the HTTP status that the same refusal has there.
type Error struct {
	Status       int    `msg:"status"`
	Code         string `msg:"code"`
	Text         string `msg:"error"`
	RetryAfterMS int64  `msg:"retry_after_ms,omitempty"`
}

// NewTask is a task to be submitted.
type NewTask struct {
	Payload             Raw      `msg:"payload,omitzero"`
	Type                string   `msg:"type,omitempty"`
	Vector              Floats   `msg:"vector,omitzero"`
	Text                string   `msg:"text,omitempty"`
	Tags                []string `msg:"tags,omitempty,limit=32"`
	AgentID             string   `msg:"agent_id,omitempty"`
	Priority            *int     `msg:"priority,omitempty"`
	FairnessKey         string   `msg:"fairness_key,omitempty"`
	FairnessWeight      float64  `msg:"fairness_weight,omitempty"`
	RunAt               Time     `msg:"run_at,omitzero"`
	DelayMS             int64    `msg:"delay_ms,omitempty"`
	Deadline            Time     `msg:"deadline,omitzero"`
	TimeoutSeconds      int      `msg:"timeout_seconds,omitempty"`
	MaxAttempts         int      `msg:"max_attempts,omitempty"`
	IdempotencyKey      string   `msg:"idempotency_key,omitempty"`
	DependsOn           []TaskID `msg:"depends_on,omitempty,limit=64"`
	OnDependencyFailure string   `msg:"on_dependency_failure,omitempty"`
	StateRefs           []string `msg:"state_refs,omitempty,limit=1000"`
	Metadata            Raw      `msg:"metadata,omitzero"`
	TraceParent         string   `msg:"traceparent,omitempty"`
}

// Submit is a batch of tasks for one queue.
type Submit struct {
	Queue string    `msg:"queue"`
	Tasks []NewTask `msg:"tasks,limit=1000"`
}

// Submitted is the answer to one task. Code is "ok", or else Error says more and HTTPStatus is that of the same refusal over HTTP.
type Submitted struct {
	Code         string `msg:"code"`
	TaskID       TaskID `msg:"task_id,omitzero"`
	Status       string `msg:"status,omitempty"`
	Admission    string `msg:"admission,omitempty"`
	RetryAfterMS int64  `msg:"retry_after_ms,omitempty"`
	Deduplicated bool   `msg:"deduplicated,omitempty"`
	Position     int    `msg:"position,omitempty"`
	Durable      bool   `msg:"durable,omitempty"`
	Error        string `msg:"error,omitempty"`
	HTTPStatus   int    `msg:"http_status,omitempty"`
}

// SubmittedBatch answers a Submit, task by task in order.
type SubmittedBatch struct {
	Results []Submitted `msg:"results,limit=1000"`
}

// Lease asks for tasks.
type Lease struct {
	Queue        string `msg:"queue,omitempty"`
	AgentID      string `msg:"agent_id"`
	MaxTasks     int    `msg:"max_tasks,omitempty"`
	WaitMS       int64  `msg:"wait_ms,omitempty"`
	LeaseSeconds int    `msg:"lease_seconds,omitempty"`
}

// TaskError says why an attempt failed.
type TaskError struct {
	Code    string `msg:"code,omitempty"`
	Message string `msg:"message,omitempty"`
}

// Leased is a task as its agent gets it.
type Leased struct {
	TaskID         TaskID     `msg:"task_id"`
	Queue          string     `msg:"queue"`
	LeaseID        LeaseID    `msg:"lease_id"`
	LeaseExpiresAt Time       `msg:"lease_expires_at,omitzero"`
	Attempt        int        `msg:"attempt"`
	Payload        Raw        `msg:"payload,omitzero"`
	Type           string     `msg:"type,omitempty"`
	Tags           []string   `msg:"tags,omitempty,limit=32"`
	Priority       *int       `msg:"priority,omitempty"`
	FairnessKey    string     `msg:"fairness_key,omitempty"`
	CreatedAt      Time       `msg:"created_at,omitzero"`
	Deadline       Time       `msg:"deadline,omitzero"`
	TimeoutSeconds int        `msg:"timeout_seconds,omitempty"`
	MaxAttempts    int        `msg:"max_attempts,omitempty"`
	StateRefs      []string   `msg:"state_refs,omitempty,limit=1000"`
	Metadata       Raw        `msg:"metadata,omitzero"`
	TraceParent    string     `msg:"traceparent,omitempty"`
	InputRequest   Raw        `msg:"input_request,omitzero"`
	InputResponse  Raw        `msg:"input_response,omitzero"`
	Error          *TaskError `msg:"error,omitempty"` // of the attempt before
}

// LeasedBatch answers a Lease.
type LeasedBatch struct {
	Tasks []Leased `msg:"tasks,limit=1000"`
}

// Call is what the holder of a lease says of its task. Call is one of complete, fail, release, heartbeat and request_input.
type Call struct {
	Call          string     `msg:"call"`
	TaskID        TaskID     `msg:"task_id"`
	LeaseID       LeaseID    `msg:"lease_id"`
	Result        Raw        `msg:"result,omitzero"`
	Points        Nested     `msg:"points,omitzero"` // see Effects
	Tasks         Nested     `msg:"tasks,omitzero"`
	Error         *TaskError `msg:"error,omitempty"`
	Retryable     *bool      `msg:"retryable,omitempty"` // nil: yes
	RetryAfterMS  int64      `msg:"retry_after_ms,omitempty"`
	ExtendSeconds int        `msg:"extend_seconds,omitempty"`
	Progress      Raw        `msg:"progress,omitzero"`
	Request       Raw        `msg:"request,omitzero"`
}

// CallBatch is a batch of calls.
type CallBatch struct {
	Calls []Call `msg:"calls,limit=1000"`
}

// Outcome is the answer to one Call. Code is "ok", or else Error says more and HTTPStatus is that of the same refusal over HTTP.
type Outcome struct {
	Code            string   `msg:"code"`
	Status          string   `msg:"status,omitempty"`
	LeaseExpiresAt  Time     `msg:"lease_expires_at,omitzero"`
	CancelRequested bool     `msg:"cancel_requested,omitempty"`
	Tasks           []TaskID `msg:"tasks,omitempty"`
	RetryAfterMS    int64    `msg:"retry_after_ms,omitempty"`
	Error           string   `msg:"error,omitempty"`
	HTTPStatus      int      `msg:"http_status,omitempty"`
}

// OutcomeBatch answers a CallBatch, call by call in order.
type OutcomeBatch struct {
	Results []Outcome `msg:"results,limit=1000"`
}

// Point is a point to be stored, or one that was found.
type Point struct {
	ID        PointID `msg:"id"`
	Vector    Vectors `msg:"vector,omitzero"`
	Payload   Raw     `msg:"payload,omitzero"`
	ExpiresAt Time    `msg:"expires_at,omitzero"`
}

// Upsert writes points.
type Upsert struct {
	Collection     string  `msg:"collection"`
	IdempotencyKey string  `msg:"idempotency_key,omitempty"`
	Points         []Point `msg:"points"`
}

// Upserted answers an Upsert.
type Upserted struct {
	OperationID uint64 `msg:"operation_id"`
}

// Search asks for the points nearest to a vector.
type Search struct {
	Collection     string   `msg:"collection"`
	Vector         Vectors  `msg:"vector"` // one
	Using          string   `msg:"using,omitempty"`
	Filter         Raw      `msg:"filter,omitzero"` // JSON
	Limit          int      `msg:"limit"`
	Offset         int      `msg:"offset,omitempty"`
	ScoreThreshold *float32 `msg:"score_threshold,omitempty"`
	HNSWEf         int      `msg:"hnsw_ef,omitempty"`
	Exact          bool     `msg:"exact,omitempty"`
	WithPayload    bool     `msg:"with_payload,omitempty"`
	WithVector     bool     `msg:"with_vector,omitempty"`
}

// Hit is a point that was found.
type Hit struct {
	ID        PointID `msg:"id"`
	Version   uint64  `msg:"version"`
	Score     float32 `msg:"score"`
	Vector    Vectors `msg:"vector,omitzero"`
	Payload   Raw     `msg:"payload,omitzero"`
	ExpiresAt Time    `msg:"expires_at,omitzero"`
}

// Hits answers a Search, the best first.
type Hits struct {
	Points []Hit `msg:"points"`
}
