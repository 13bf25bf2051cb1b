package vectord

import (
	"math"
	"strings"
	"testing"
)

// refused checks that err is of a kind and begins with the field that is wrong.
func refused(t *testing.T, err error, kind Kind, field string) {
	t.Helper()
	if err == nil || KindOf(err) != kind || !strings.HasPrefix(err.Error(), field) {
		t.Errorf("got %v (%v), want one of kind %v that begins with %q", err, KindOf(err), kind, field)
	}
}

func TestNewTaskCheck(t *testing.T) {
	priority := func(p int) *int { return &p }
	good := NewTask{Vector: []float32{1, 0}, Tags: []string{"gpu"}, Priority: priority(9), FairnessKey: "a/b", FairnessWeight: 0.001,
		DelayMS: MaxDelayMillis, Deadline: 1, DependsOn: []TaskID{{1}, {2}}, StateRefs: []string{"a/b"}}
	for _, ok := range []NewTask{{}, good} {
		if err := ok.Check(); err != nil {
			t.Errorf("%+v: %v", ok, err)
		}
	}
	f := func(task NewTask, kind Kind, field string) {
		t.Helper()
		refused(t, task.Check(), kind, field)
	}
	long := strings.Repeat("x", MaxTaskBytes+1)
	f(NewTask{Payload: []byte(long)}, KindTooLarge, "payload: 1048577 bytes")
	f(NewTask{Type: "a\nb"}, KindUnprocessable, "type: ")
	f(NewTask{Vector: []float32{0, 0}}, KindUnprocessable, "vector: ")
	f(NewTask{Vector: []float32{}}, KindUnprocessable, "vector: ")
	f(NewTask{Vector: []float32{float32(math.NaN())}}, KindInvalid, "vector: component 0")
	f(NewTask{Vector: make([]float32, MaxDimension+1)}, KindUnprocessable, "vector: 65537 components")
	f(NewTask{Vector: []float32{1}, Text: "a"}, KindUnprocessable, "text: ")
	f(NewTask{Text: long}, KindUnprocessable, "text: ")
	f(NewTask{Tags: make([]string, MaxTaskTags+1)}, KindUnprocessable, "tags: 33")
	f(NewTask{Tags: []string{"a", ""}}, KindUnprocessable, "tags[1]: ")
	f(NewTask{AgentID: "a/b"}, KindUnprocessable, "agent_id: ")
	f(NewTask{AgentID: "\xff"}, KindUnprocessable, "agent_id: ")
	f(NewTask{Priority: priority(10)}, KindUnprocessable, "priority: value 10")
	f(NewTask{Priority: priority(-1)}, KindUnprocessable, "priority: value -1")
	f(NewTask{FairnessKey: long}, KindUnprocessable, "fairness_key: ")
	f(NewTask{FairnessWeight: 1001}, KindUnprocessable, "fairness_weight: value 1001")
	f(NewTask{FairnessWeight: math.NaN()}, KindUnprocessable, "fairness_weight: value NaN")
	f(NewTask{RunAt: 1, DelayMS: 1}, KindUnprocessable, "delay_ms: ")
	f(NewTask{DelayMS: -1}, KindUnprocessable, "delay_ms: value -1")
	f(NewTask{RunAt: 2, Deadline: 2}, KindUnprocessable, "deadline: ")
	f(NewTask{RunAt: timestampMax + 1}, KindUnprocessable, "run_at: ")
	f(NewTask{TimeoutSeconds: MaxLeaseSeconds + 1}, KindUnprocessable, "timeout_seconds: value 86401")
	f(NewTask{MaxAttempts: MaxAttempts + 1}, KindUnprocessable, "max_attempts: value 1001")
	f(NewTask{IdempotencyKey: long}, KindUnprocessable, "idempotency_key: ")
	f(NewTask{DependsOn: []TaskID{{1}, {1}}}, KindUnprocessable, "depends_on[1]: ")
	f(NewTask{DependsOn: make([]TaskID, MaxTaskDependencies+1)}, KindUnprocessable, "depends_on: 65")
	f(NewTask{StateRefs: []string{""}}, KindUnprocessable, "state_refs[0]: ")
	f(NewTask{Metadata: []byte(long)}, KindUnprocessable, "metadata: ")
	f(NewTask{TraceParent: long}, KindUnprocessable, "traceparent: ")
}

func TestQueueConfigCheck(t *testing.T) {
	good := DefaultQueueConfig()
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	f := func(change func(*QueueConfig), field string) {
		t.Helper()
		c := DefaultQueueConfig()
		change(&c)
		refused(t, c.Check(), KindUnprocessable, field)
	}
	f(func(c *QueueConfig) { c.MaxDepth = 0 }, "max_depth: value 0")
	f(func(c *QueueConfig) { c.MaxOverflow = -1 }, "max_overflow: value -1")
	f(func(c *QueueConfig) { c.LeaseSeconds = MaxLeaseSeconds + 1 }, "lease_seconds: value 86401")
	f(func(c *QueueConfig) { c.DropPolicy = "oldest" }, `drop_policy: value "oldest"`)
	f(func(c *QueueConfig) { c.Durability = "" }, `durability: value ""`)
	f(func(c *QueueConfig) { c.Backoff.InitialMS = -1 }, "backoff.initial_ms: value -1")
	f(func(c *QueueConfig) { c.Backoff.MaxMS = 1 }, "backoff.max_ms: value 1")
	f(func(c *QueueConfig) { c.Backoff.Factor = 0.5 }, "backoff.factor: value 0.5")
	f(func(c *QueueConfig) { c.Backoff.Jitter = math.NaN() }, "backoff.jitter: value NaN")
	f(func(c *QueueConfig) { c.RateLimit = RateLimit{PerSecond: 1} }, "rate_limit.burst: value 0")
	f(func(c *QueueConfig) { c.Fairness.RateLimitPerKey.PerSecond = -1 }, "fairness.rate_limit_per_key.per_second: value -1")
	f(func(c *QueueConfig) { c.Routing.MinSimilarity = 1.5 }, "routing.min_similarity: value 1.5")
	f(func(c *QueueConfig) { c.Routing.Policy = "best" }, `routing.policy: value "best"`)
	f(func(c *QueueConfig) { c.Routing.Fallback = "queue:" }, "routing.fallback: queue: is empty")
	f(func(c *QueueConfig) { c.Routing.Fallback = "drop" }, `routing.fallback: value "drop"`)
}

func TestAgentConfigCheck(t *testing.T) {
	good := AgentConfig{Queues: []string{"q"}, Vectors: [][]float32{{1, 2}}, Labels: map[string]string{"zone": ""}, Transport: "pull"}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	f := func(change func(*AgentConfig), field string) {
		t.Helper()
		c := good
		change(&c)
		refused(t, c.Check(), KindUnprocessable, field)
	}
	f(func(c *AgentConfig) { c.Queues = nil }, "queues: 0 of them")
	f(func(c *AgentConfig) { c.Queues = []string{"a/b"} }, "queues[0]: ")
	f(func(c *AgentConfig) { c.Vectors = make([][]float32, MaxAgentVectors+1) }, "vectors: 17 of them")
	f(func(c *AgentConfig) { c.Vectors = [][]float32{{1}, {1, 2}} }, "vectors[1]: 2 components")
	f(func(c *AgentConfig) { c.Texts = []string{""} }, "texts[0]: 0 bytes")
	f(func(c *AgentConfig) { c.Capabilities = []string{""} }, "capabilities[0]: ")
	f(func(c *AgentConfig) { c.Capacity = MaxAgentCapacity + 1 }, "capacity: value 10001")
	f(func(c *AgentConfig) { c.LeaseTTLSeconds = -1 }, "lease_ttl_seconds: value -1")
	f(func(c *AgentConfig) { c.Transport = "pigeon" }, `transport: value "pigeon"`)
	f(func(c *AgentConfig) { c.Labels = map[string]string{"": "x"} }, "labels: is empty")
}

func TestTaskCallCheck(t *testing.T) {
	f := func(c TaskCall, kind Kind, field string) {
		t.Helper()
		c.ID, c.LeaseID = TaskID{1}, 1
		refused(t, c.Check(), kind, field)
	}
	refused(t, (&TaskCall{}).Check(), KindInvalid, "task_id: ")
	refused(t, (&TaskCall{ID: TaskID{1}}).Check(), KindInvalid, "lease_id: ")
	f(TaskCall{Kind: CallComplete, Result: make([]byte, MaxTaskBytes+1)}, KindTooLarge, "result: ")
	f(TaskCall{Kind: CallComplete, Effects: Effects{Tasks: map[string][]NewTask{"q": {{}, {AgentID: "/"}}}}}, KindUnprocessable, "tasks.q[1].agent_id: ")
	f(TaskCall{Kind: CallComplete, Effects: Effects{Tasks: map[string][]NewTask{"q": make([]NewTask, MaxTaskBatch+1)}}}, KindUnprocessable, "tasks: more than 1000")
	f(TaskCall{Kind: CallComplete, Effects: Effects{Points: map[string][]Point{"/": nil}}}, KindUnprocessable, "points: collection_name: ")
	f(TaskCall{Kind: CallFail}, KindUnprocessable, "error.code: is empty")
	f(TaskCall{Kind: CallFail, Error: TaskError{"x", strings.Repeat("x", MaxErrorBytes+1)}}, KindUnprocessable, "error.message: 4097 bytes")
	f(TaskCall{Kind: CallFail, Error: TaskError{"x", ""}, RetryAfterMS: -1}, KindUnprocessable, "retry_after_ms: value -1")
	f(TaskCall{Kind: CallHeartbeat, Extend: -1}, KindUnprocessable, "extend_seconds: value -1")
	f(TaskCall{Kind: CallHeartbeat, Progress: make([]byte, MaxMetadataBytes+1)}, KindUnprocessable, "progress: ")
	f(TaskCall{Kind: CallRequestInput, Request: make([]byte, MaxMetadataBytes+1)}, KindUnprocessable, "request: ")
}

func TestOtherChecks(t *testing.T) {
	refused(t, (&LeaseRequest{}).Check(), KindUnprocessable, "agent_id: is empty")
	refused(t, (&LeaseRequest{AgentID: "a", WaitMS: 30_001}).Check(), KindUnprocessable, "wait_ms: value 30001")
	refused(t, (&LeaseRequest{AgentID: "a", MaxTasks: 1_001}).Check(), KindUnprocessable, "max_tasks: value 1001")
	refused(t, (&TaskScroll{Limit: 1_001}).Check(), KindUnprocessable, "limit: value 1001")
	refused(t, (&TaskScroll{Agent: "/"}).Check(), KindUnprocessable, "agent_id: ")
	refused(t, (&RouteRequest{}).Check(), KindUnprocessable, "queue: is empty")
	refused(t, (&RouteRequest{Queue: "q", Limit: -1}).Check(), KindUnprocessable, "limit: value -1")
	refused(t, (&StateWrite{TTLSeconds: -1}).Check(), KindUnprocessable, "ttl_seconds: value -1")
	refused(t, CheckStateKey("key", strings.Repeat("x", MaxStateKeyBytes+1)), KindUnprocessable, "key: 513 bytes")
}
