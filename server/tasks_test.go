package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

const (
	taskA = "01900000-0000-7000-8000-00000000000a"
	taskB = "01900000-0000-7000-8000-00000000000b"
)

func taskID(t testing.TB, text string) vectord.TaskID {
	t.Helper()
	id, err := vectord.ParseTaskID(text)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// refusedAs makes a request that must fail with this status and code, and returns the header.
func (h *harness) refusedAs(status int, code vectord.Code, method, path, body string, header ...string) http.Header {
	h.t.Helper()
	got, answer, gotHeader := h.send(method, path, strings.NewReader(body), header...)
	var e struct {
		Status struct {
			Error string
			Code  vectord.Code
		}
	}
	if err := json.Unmarshal([]byte(answer), &e); err != nil || got != status || e.Status.Code != code || e.Status.Error == "" {
		h.t.Errorf("%s %s %.200s: %d %s (%v), want %d and code %q", method, path, body, got, answer, err, status, code)
	}
	return gotHeader
}

func TestWithoutScheduler(t *testing.T) {
	h := start(t, model.New(), Options{})
	h.refused(400, "GET", "/queues", "", "Bad request: queues, tasks, agents and states are not offered by this server")
	h.refused(400, "PUT", "/states/a", "x", "Bad request: queues, tasks, agents and states are not offered by this server")
}

func TestRoutesOfQueues(t *testing.T) {
	h, f := startTasks(t, Options{})
	h.refusedAs(404, vectord.CodeQueueNotFound, "GET", "/queues/q", "")
	h.refusedAs(404, vectord.CodeQueueNotFound, "PATCH", "/queues/q", "{}")
	h.ok("PUT", "/queues/q", "", "true")
	if f.queues["q"] != vectord.DefaultQueueConfig() {
		t.Errorf("the defaults are %+v", f.queues["q"])
	}
	h.ok("PATCH", "/queues/q", `{"max_depth":7,"backoff":{"factor":3,"jitter":null},"routing":null,"unknown":1}`, "true")
	want := vectord.DefaultQueueConfig()
	want.MaxDepth, want.Backoff.Factor = 7, 3
	if f.queues["q"] != want {
		t.Errorf("after PATCH %+v", f.queues["q"])
	}
	h.ok("PUT", "/queues/q", `{"max_in_flight":1,"routing":{"policy":"weighted"}}`, "true")
	want = vectord.DefaultQueueConfig()
	want.MaxInFlight, want.Routing.Policy = 1, vectord.Weighted
	if f.queues["q"] != want {
		t.Errorf("after PUT %+v", f.queues["q"])
	}
	h.refused(422, "PUT", "/queues/q", `{"lease_seconds":0}`, "Validation error in JSON body: [lease_seconds: value 0 invalid, must be from 1 to 86400]")
	h.refused(400, "PATCH", "/queues/q", `{"max_depth":"7"}`, `Format error in JSON body: max_depth: expected an integer, got a string`)
	h.refused(422, "PUT", "/queues/a%2Fb", ``, `Validation error in path parameters: [queue: "a/b" contains a slash]`)
	config, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	h.ok("GET", "/queues/q", "", `{"name":"q","config":`+string(config)+`,"counts":{"queued":2},"agents":1,"oldest_ms":5}`)
	h.ok("GET", "/queues", "", `{"queues":[{"name":"q","config":`+string(config)+`,"counts":{},"agents":0,"oldest_ms":0}]}`)
	h.refusedAs(409, vectord.CodeQueueNotEmpty, "DELETE", "/queues/q", "")
	h.refused(400, "DELETE", "/queues/q?force=1", "", `Format error in query parameters: force: expected true or false, got "1"`)
	h.ok("DELETE", "/queues/q?force=true", "", "true")
	h.ok("GET", "/queues", "", `{"queues":[]}`)

	f.queues["q"] = want
	f.addTask(vectord.Task{ID: taskID(t, taskA), Queue: "q", Status: vectord.TaskFailed})
	f.addTask(vectord.Task{ID: taskID(t, taskB), Queue: "q", Status: vectord.TaskQueued})
	f.said = nil
	h.ok("GET", "/queues/q/dead_letters?limit=1", "", `{"next_after":"`+taskA+`","tasks":[{"task_id":"`+taskA+`","queue":"q","status":"failed",`+
		`"created_at":"1970-01-01T00:00:00.000Z","updated_at":"1970-01-01T00:00:00.000Z","attempt":0,"durable":false}]}`)
	h.ok("GET", "/queues/q/dead_letters?after="+taskA, "", `{"next_after":null,"tasks":[]}`)
	h.refusedAs(404, vectord.CodeQueueNotFound, "GET", "/queues/none/dead_letters", "")
	h.refused(422, "GET", "/queues/q/dead_letters?limit=0", "", "Validation error in query parameters: [limit: value 0 invalid, must be from 1 to 1000]")
	h.ok("POST", "/queues/q/dead_letters/redrive", "", `{"redriven":0}`)
	h.ok("POST", "/queues/q/dead_letters/redrive", `{"task_ids":["`+taskA+`"]}`, `{"redriven":1}`)
	if got := f.said[len(f.said)-2:]; !reflect.DeepEqual(got, []string{"redrive q []", "redrive q [" + taskA + "]"}) {
		t.Errorf("the scheduler was asked %v", got)
	}
}

func TestSubmit(t *testing.T) {
	h, f := startTasks(t, Options{})
	var got []vectord.NewTask
	var answers []vectord.Submitted
	f.submit = func(queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
		if queue != "q" {
			t.Errorf("submitted to %q", queue)
		}
		got = tasks
		return answers, nil
	}
	id := taskID(t, taskA)
	answers = []vectord.Submitted{{TaskID: id, Status: vectord.TaskQueued, Admission: vectord.AdmissionBackpressure, RetryAfterMS: 9, Position: 3, Durable: true}}
	full := `{"payload":{"a":[1,"<"]},"type":"t","vector":[1,0.5],"tags":["x"],"agent_id":"a","priority":"high","fairness_key":"k",` +
		`"fairness_weight":2,"run_at":"2026-01-31T12:00:00Z","deadline":1800000000000,"timeout_seconds":5,"max_attempts":2,"idempotency_key":"i",` +
		`"depends_on":["` + taskB + `"],"on_dependency_failure":"run","state_refs":["s/1"],"metadata":{"m":1},"traceparent":"00-1"}`
	status, answer, _ := h.send("POST", "/queues/q/tasks", strings.NewReader(full), "Idempotency-Key", "other", "traceparent", "00-2")
	wantAnswer := `{"task_id":"` + taskA + `","status":"queued","admission":"backpressure","retry_after_ms":9,"deduplicated":false,"position":3,"durable":true}`
	if status != 200 || result(t, answer) != wantAnswer {
		t.Errorf("%d %s", status, answer)
	}
	seven := 7
	want := vectord.NewTask{Payload: json.RawMessage(`{"a":[1,"<"]}`), Type: "t", Vector: []float32{1, 0.5}, Tags: []string{"x"}, AgentID: "a", Priority: &seven,
		FairnessKey: "k", FairnessWeight: 2, RunAt: vectord.Timestamp(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC).UnixMilli()), Deadline: 1800000000000,
		TimeoutSeconds: 5, MaxAttempts: 2, IdempotencyKey: "i", DependsOn: []vectord.TaskID{taskID(t, taskB)}, RunOnDependencyFailure: true,
		StateRefs: []string{"s/1"}, Metadata: json.RawMessage(`{"m":1}`), TraceParent: "00-1"}
	if len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("submitted %+v\nwant %+v", got, want)
	}
	h.send("POST", "/queues/q/tasks", strings.NewReader(`{"priority":3}`), "Idempotency-Key", "other", "traceparent", "00-2")
	if len(got) != 1 || got[0].IdempotencyKey != "other" || got[0].TraceParent != "00-2" || *got[0].Priority != 3 {
		t.Errorf("submitted %+v", got)
	}

	// Many: each has its own answer.
	fullQueue := &vectord.Error{Kind: vectord.KindOverloaded, Code: vectord.CodeQueueFull, Text: "the queue is full", RetryAfter: 1500 * time.Millisecond}
	answers = append(answers, vectord.Submitted{Err: fullQueue})
	two := `{"tasks":[{"payload":1},{"payload":2}]}`
	status, answer, _ = h.send("POST", "/queues/q/tasks", strings.NewReader(two), "Idempotency-Key", "other", "traceparent", "00-2")
	if status != 200 || result(t, answer) != `{"tasks":[`+wantAnswer+`,{"retry_after_ms":1500,"error":"Too many requests: the queue is full","code":"queue_full"}]}` {
		t.Errorf("%d %s", status, answer)
	}
	if len(got) != 2 || got[0].IdempotencyKey != "" || got[1].TraceParent != "00-2" {
		t.Errorf("submitted %+v", got)
	}
	answers = []vectord.Submitted{{Err: fullQueue}, {Err: fullQueue}}
	if header := h.refusedAs(429, vectord.CodeQueueFull, "POST", "/queues/q/tasks", two); header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", header.Get("Retry-After"))
	}
	answers = []vectord.Submitted{{Err: fullQueue}}
	h.refusedAs(429, vectord.CodeQueueFull, "POST", "/queues/q/tasks", `{}`)
	answers = []vectord.Submitted{{Err: vectord.Refuse(vectord.KindUnprocessable, vectord.CodeKeyReused, "another task has the key")}}
	h.refusedAs(422, vectord.CodeKeyReused, "POST", "/queues/q/tasks", `{}`)
	answers = []vectord.Submitted{}
	h.ok("POST", "/queues/q/tasks", `{"tasks":[]}`, `{"tasks":[]}`)
	h.refused(500, "POST", "/queues/q/tasks", `{}`, "Service internal error: the server's log has the details")

	// Nothing of what is refused here reaches the scheduler.
	got = nil
	r := func(status int, body, want string) {
		t.Helper()
		h.refused(status, "POST", "/queues/q/tasks", body, want)
	}
	r(400, ``, "Format error in JSON body: the body is empty")
	r(422, `{"priority":10}`, "Validation error in JSON body: [priority: value 10 invalid, must be from 0 to 9]")
	r(400, `{"priority":"urgent"}`, `Format error in JSON body: priority: expected an integer from 0 to 9, low, normal or high, got "urgent"`)
	r(422, `{"tasks":[{},{"delay_ms":-1}]}`, "Validation error in JSON body: [tasks[1].delay_ms: value -1 invalid, must be from 0 to 315360000000]")
	r(422, `{"tasks":[`+strings.Repeat("{},", 1000)+`{}]}`, "Validation error in JSON body: [tasks: 1001 of them, at most 1000 are accepted]")
	r(400, `{"depends_on":["x"]}`, `Format error in JSON body: depends_on[0]: "x" is not the id of a task, which is a UUID`)
	r(400, `{"depends_on":[7]}`, `Format error in JSON body: depends_on[0]: expected a string, got a number`)
	r(400, `{"tasks":[{"on_dependency_failure":"skip"}]}`, `Format error in JSON body: tasks[0].on_dependency_failure: expected fail or run, got skip`)
	r(400, `{"run_at":"soon"}`, `Format error in JSON body: run_at: expected milliseconds since 1970 or a time like 2026-01-31T12:00:00Z, got "soon"`)
	r(400, `{"metadata":[]}`, `Format error in JSON body: metadata: expected an object or null, got []`)
	r(413, `{"payload":"`+strings.Repeat("x", vectord.MaxTaskBytes)+`"}`, "Bad request: payload: 1048578 bytes, at most 1048576 are accepted")
	if got != nil {
		t.Errorf("submitted %+v", got)
	}
}

func TestCalls(t *testing.T) {
	h, f := startTasks(t, Options{})
	a, b := taskID(t, taskA), taskID(t, taskB)
	var got []vectord.TaskCall
	var outcomes []vectord.CallOutcome
	f.call = func(calls []vectord.TaskCall) []vectord.CallOutcome {
		got = calls
		return outcomes
	}
	c := func(path, body string, want vectord.TaskCall, outcome vectord.CallOutcome, answer string) {
		t.Helper()
		outcomes = []vectord.CallOutcome{outcome}
		want.ID, want.LeaseID = a, 0x1f
		h.ok("POST", "/tasks/"+taskA+path, body, answer)
		if !reflect.DeepEqual(got, []vectord.TaskCall{want}) {
			t.Errorf("%s: called %+v\nwant %+v", path, got, want)
		}
	}
	const l = `{"lease_id":"000000000000001f"`
	c("/heartbeat", l+`,"extend_seconds":9,"progress":{"done":0.5}}`, vectord.TaskCall{Kind: vectord.CallHeartbeat, Extend: 9, Progress: json.RawMessage(`{"done":0.5}`)},
		vectord.CallOutcome{Status: vectord.TaskRunning, LeaseExpiresAt: 1000},
		`{"task_id":"`+taskA+`","status":"running","lease_expires_at":"1970-01-01T00:00:01.000Z","cancel_requested":false}`)
	c("/complete", l+`,"result":[1],"points":{"c":[{"id":1,"vector":[1,0]}]},"tasks":{"q":[{"payload":1}]}}`,
		vectord.TaskCall{Kind: vectord.CallComplete, Result: json.RawMessage(`[1]`), Effects: vectord.Effects{
			Points: map[string][]vectord.Point{"c": {{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 0})}}},
			Tasks:  map[string][]vectord.NewTask{"q": {{Payload: json.RawMessage("1")}}}}},
		vectord.CallOutcome{Status: vectord.TaskCompleted, Tasks: []vectord.TaskID{b}}, `{"task_id":"`+taskA+`","status":"completed","tasks":["`+taskB+`"]}`)
	c("/fail", l+`,"error":{"code":"boom","message":"it broke"},"retryable":false,"retry_after_ms":5}`,
		vectord.TaskCall{Kind: vectord.CallFail, Error: vectord.TaskError{Code: "boom", Message: "it broke"}, Final: true, RetryAfterMS: 5},
		vectord.CallOutcome{Status: vectord.TaskFailed}, `{"task_id":"`+taskA+`","status":"failed"}`)
	c("/release", l+`}`, vectord.TaskCall{Kind: vectord.CallRelease}, vectord.CallOutcome{Status: vectord.TaskQueued}, `{"task_id":"`+taskA+`","status":"queued"}`)
	c("/input", l+`,"request":"which?"}`, vectord.TaskCall{Kind: vectord.CallRequestInput, Request: json.RawMessage(`"which?"`)},
		vectord.CallOutcome{Status: vectord.TaskInputRequired}, `{"task_id":"`+taskA+`","status":"input_required"}`)

	outcomes = []vectord.CallOutcome{{Err: vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "another has it")}}
	h.refusedAs(409, vectord.CodeLeaseLost, "POST", "/tasks/"+taskA+"/release", l+`}`)
	outcomes = append(outcomes, vectord.CallOutcome{Status: vectord.TaskRunning, CancelRequested: true, LeaseExpiresAt: 1})
	h.ok("POST", "/tasks/heartbeat", `{"tasks":[{"task_id":"`+taskA+`","lease_id":"0000000000000001"},{"task_id":"`+taskB+`","lease_id":"0000000000000002"}]}`,
		`{"tasks":[{"task_id":"`+taskA+`","error":"Wrong input: another has it","code":"lease_lost"},`+
			`{"task_id":"`+taskB+`","status":"running","lease_expires_at":"1970-01-01T00:00:00.001Z","cancel_requested":true}]}`)

	got = nil
	r := func(status int, path, body, want string) {
		t.Helper()
		h.refused(status, "POST", "/tasks/"+path, body, want)
	}
	r(400, "x/release", l+`}`, `Format error in path parameters: "x" is not the id of a task, which is a UUID`)
	r(400, taskA+"/release", `{}`, "Format error in JSON body: missing field `lease_id`")
	r(400, taskA+"/release", `{"lease_id":5}`, "Format error in JSON body: lease_id: expected a string, got a number")
	r(400, taskA+"/fail", l+`}`, "Format error in JSON body: missing field `error`")
	r(422, taskA+"/fail", l+`,"error":{}}`, "Validation error in JSON body: [error.code: is empty]")
	r(400, taskA+"/input", l+`}`, "Format error in JSON body: exactly one of request, with lease_id, and response must be given")
	r(400, taskA+"/complete", l+`,"memories":[{}]}`, "Format error in JSON body: expected an object, got an array")
	r(422, taskA+"/complete", l+`,"memories":{"memories":[{"text":"a"}]}}`, "Validation error in JSON body: [memories.collection: collection_name: length 0 invalid, must be from 1 to 255]")
	r(400, taskA+"/complete", l+`,"memories":{"collection":"c","memories":[{}]}}`, "Format error in JSON body: missing field `memories[0].text`")
	r(400, taskA+"/complete", l+`,"points":{"c":[{"id":1}]}}`, "Format error in JSON body: missing field `points.c[0].vector`")
	r(400, "heartbeat", `{"tasks":[{"task_id":"`+taskA+`"}]}`, "Format error in JSON body: tasks[0].lease_id: is missing")
	if got != nil {
		t.Errorf("called %+v", got)
	}
}

func TestRoutesOfTasks(t *testing.T) {
	h, f := startTasks(t, Options{})
	four := 4
	f.addTask(vectord.Task{ID: taskID(t, taskA), Queue: "q", Status: vectord.TaskRunning, Agent: "holder", LeaseID: 5, Attempt: 1, Durable: true,
		NewTask: vectord.NewTask{AgentID: "pinned", Vector: []float32{1, 0.1}, Priority: &four, Payload: json.RawMessage(`"<&>"`), DependsOn: []vectord.TaskID{{1}}}})
	const times = `"created_at":"1970-01-01T00:00:00.000Z","updated_at":"1970-01-01T00:00:00.000Z",`
	const depends = `"depends_on":["01000000-0000-0000-0000-000000000000"],`
	answer := func(vector, extra string) string {
		return `{"task_id":"` + taskA + `","queue":"q","status":"running","payload":"<&>",` + vector + `"priority":4,` + depends + times +
			`"attempt":1,"lease_id":"0000000000000005",` + extra + `"durable":true,"agent_id":"holder","pinned_agent_id":"pinned","on_dependency_failure":"fail"}`
	}
	h.ok("GET", "/tasks/"+taskA, "", answer("", ""))
	h.ok("GET", "/tasks/"+taskA+"?with_vector=true", "", answer(`"vector":[1,0.1],`, ""))
	h.ok("POST", "/tasks/"+taskA+"/cancel", "", answer("", `"cancel_requested":true,`))
	h.ok("POST", "/tasks/"+taskA+"/input", `{"response":{"yes":true}}`, answer("", `"input_response":{"yes":true},`))
	h.refusedAs(404, vectord.CodeTaskNotFound, "GET", "/tasks/"+taskB, "")
	h.ok("POST", "/tasks/count", `{"queue":"q"}`, `{"count":1}`)
	f.said = nil
	h.ok("POST", "/tasks/scroll", `{"queue":"q","agent_id":"a","status":["running","queued"],"type":"t","tags":["x"],"after":"`+taskB+`","limit":7}`, `{"next_after":null,"tasks":[]}`)
	h.ok("POST", "/tasks/scroll", `{"status":"running","limit":1}`, `{"next_after":"`+taskA+`","tasks":[`+answer("", "")+`]}`)
	h.ok("POST", "/tasks/scroll", ``, `{"next_after":null,"tasks":[`+answer("", "")+`]}`)
	if want := fmt.Sprintf("scroll %+v", vectord.TaskScroll{Queue: "q", Agent: "a", Status: []vectord.TaskStatus{vectord.TaskRunning, vectord.TaskQueued}, Type: "t",
		Tags: []string{"x"}, After: taskID(t, taskB), Limit: 7}); f.said[0] != want {
		t.Errorf("%s, want %s", f.said[0], want)
	}
	h.refused(400, "POST", "/tasks/scroll", `{"status":["waiting"]}`, `Format error in JSON body: status[0]: "waiting" is not a status, expected one of scheduled, blocked, queued, running, input_required, completed, failed, cancelled`)
	h.refused(422, "POST", "/tasks/scroll", `{"limit":0}`, "Validation error in JSON body: [limit: value 0 invalid, must be 1 or larger]")
	h.ok("GET", "/tasks/"+taskA+"/route", "", `{"decisions":[{"agent_id":"a","policy":"nearest","took_us":3,"threshold":0.5,"attempt":1,"candidates":[]}]}`)

	h.ok("GET", "/tasks/"+taskA+"/result", "", `{"task_id":"`+taskA+`","status":"running","attempt":1}`)
	h.refused(422, "GET", "/tasks/"+taskA+"/result?wait_ms=30001", "", "Validation error in query parameters: [wait_ms: value 30001 invalid, must be from 0 to 30000]")
	var wg sync.WaitGroup
	wg.Go(func() {
		h.ok("GET", "/tasks/"+taskA+"/result?wait_ms=30000", "", `{"task_id":"`+taskA+`","status":"completed","attempt":1,"result":{"n":1}}`)
	})
	f.addTask(vectord.Task{ID: taskID(t, taskA), Status: vectord.TaskCompleted, Attempt: 1, Result: json.RawMessage(`{"n":1}`)})
	wg.Wait()

	f.lease = func(_ context.Context, r vectord.LeaseRequest) ([]vectord.Task, error) {
		if r.AgentID == "b" {
			return nil, nil
		}
		return []vectord.Task{{ID: taskID(t, taskA), Queue: r.Queue, Status: vectord.TaskRunning, LeaseID: 1, LeaseExpiresAt: 1}}, nil
	}
	const leased = `","status":"running",` + times + `"attempt":0,"lease_id":"0000000000000001","lease_expires_at":"1970-01-01T00:00:00.001Z","durable":false}]}`
	h.ok("POST", "/queues/q/tasks/lease", `{"agent_id":"a","queue":"other"}`, `{"tasks":[{"task_id":"`+taskA+`","queue":"q`+leased)
	h.ok("POST", "/tasks/lease", `{"agent_id":"a"}`, `{"tasks":[{"task_id":"`+taskA+`","queue":"`+leased)
	h.ok("POST", "/tasks/lease", `{"agent_id":"b"}`, `{"tasks":[]}`)
	h.refused(422, "POST", "/queues/q/tasks/lease", `{}`, "Validation error in JSON body: [agent_id: is empty]")
	h.refused(422, "POST", "/queues/q/tasks/lease", `{"agent_id":"a","wait_ms":60000}`, "Validation error in JSON body: [wait_ms: value 60000 invalid, must be from 0 to 30000]")
}

func TestRoutesOfAgents(t *testing.T) {
	h, f := startTasks(t, Options{})
	h.ok("PUT", "/agents/a%201", `{"queues":["q"],"vectors":[[1,0]],"capabilities":["gpu"],"capacity":2,"labels":{"zone":"x"}}`, "true")
	const agent = `{"agent_id":"a 1","queues":["q"],%s"capabilities":["gpu"],"capacity":2,"lease_ttl_seconds":0,"transport":"","labels":{"zone":"x"},` +
		`"status":"active","in_flight":0,"load":{"score":0,"task_ratio":0,"latency_ratio":0,"latency_ms":0},"completed":0,"failed":0,"last_seen":"1970-01-01T00:00:00.000Z"}`
	// The fake keeps the zero values, for which the scheduler puts its defaults.
	status, answer, _ := h.send("GET", "/agents/a%201", nil)
	if want := fmt.Sprintf(agent, ""); status != 200 || result(t, answer) != want {
		t.Errorf("%d %s, want %s", status, answer, want)
	}
	h.ok("GET", "/agents?with_vector=true", "", `{"agents":[`+fmt.Sprintf(agent, `"vectors":[[1,0]],`)+`]}`)
	h.ok("POST", "/agents/a%201/heartbeat", `{"latency_ms":1.5}`, `{"status":"active","cancel_requested":[]}`)
	h.ok("POST", "/agents/a%201/drain", "", "true")
	h.ok("POST", "/agents/a%201/resume", "", "true")
	if want := []string{"heartbeat a 1 1.5", "drain a 1 true", "drain a 1 false"}; !reflect.DeepEqual(f.said, want) {
		t.Errorf("the scheduler was asked %v", f.said)
	}
	h.refusedAs(404, vectord.CodeAgentNotFound, "POST", "/agents/none/heartbeat", "")
	h.refused(422, "POST", "/agents/a/heartbeat", `{"latency_ms":-1}`, "Validation error in JSON body: [latency_ms: value -1 invalid, must be from 0 to 86400000]")
	h.refused(422, "PUT", "/agents/a", `{}`, "Validation error in JSON body: [queues: 0 of them, must be from 1 to 256]")
	h.refused(400, "PUT", "/agents/a", `{"queues":["q"],"vectors":[["x"]]}`, `Format error in JSON body: vectors[0]: expected a number at index 0, got "x"`)
	h.ok("DELETE", "/agents/a%201", "", "true")
	h.ok("GET", "/agents", "", `{"agents":[]}`)

	h.ok("POST", "/route", `{"queue":"q","vector":[1,0]}`, `{"agent_id":"a","policy":"nearest_then_least_loaded","took_us":0,"threshold":0,"candidates":[`+
		`{"agent_id":"a","similarity":1,"load":{"score":0,"task_ratio":0,"latency_ratio":0,"latency_ms":0},"eligible":true}]}`)
	h.refusedAs(422, vectord.CodeNoEligibleAgent, "POST", "/route", `{"queue":"strict"}`)
	h.refused(422, "POST", "/route", `{"queue":"q","vector":[0]}`, "Validation error in JSON body: [vector: no component differs from 0, so it has no direction]")
}

func TestStates(t *testing.T) {
	h, _ := startTasks(t, Options{MaxBodyBytes: 1 << 10})
	const s = "/states/a%2Fb"
	put := func(body string, wantStatus int, wantETag string, header ...string) {
		t.Helper()
		status, answer, got := h.send("PUT", s, strings.NewReader(body), header...)
		if status != wantStatus || got.Get("ETag") != wantETag {
			t.Errorf("PUT %v: %d, ETag %s, %s", header, status, got.Get("ETag"), answer)
		}
	}
	get := func(path string, wantStatus int, wantBody, wantType string, header ...string) {
		t.Helper()
		status, answer, got := h.send("GET", path, nil, header...)
		if status != wantStatus || answer != wantBody || wantType != "" && got.Get("Content-Type") != wantType {
			t.Errorf("GET %s %v: %d %.100s as %s", path, header, status, answer, got.Get("Content-Type"))
		}
	}
	h.refusedAs(404, vectord.CodeStateNotFound, "GET", s, "")
	put("one", 200, `"1"`, "Content-Type", "text/x-notes", "If-None-Match", "*")
	put("two", 409, "", "If-None-Match", "*")
	get(s, 200, "one", "text/x-notes")
	put("two", 200, `"2"`, "If-Match", `"1"`, "Content-Type", "")
	put("three", 409, "", "If-Match", `"1"`)
	put("three", 400, "", "If-Match", `*`)
	put("three", 400, "", "If-None-Match", `"1"`)
	put("three", 400, "", "If-None-Match", `*`, "If-Match", `"1"`)
	get(s, 200, "two", "application/octet-stream")
	get(s, 200, "two", "", "If-None-Match", `"1"`)
	get(s, 304, "", "", "If-None-Match", `"2"`)
	get(s, 304, "", "", "If-None-Match", `W/"2"`)
	get(s, 304, "", "", "If-None-Match", `"2"`, "Accept-Encoding", "gzip")
	get(s+"?since=1", 200, "two", "")
	get(s+"?since=2", 304, "", "")
	get(s+"?since=2&wait_ms=1", 304, "", "")
	h.refused(400, "GET", s+"?since=x", "", `Format error in query parameters: since: expected an integer, got "x"`)

	var wg sync.WaitGroup
	wg.Go(func() { get(s+"?since=2&wait_ms=30000", 200, "three", "") })
	put("three", 200, `"3"`, "Content-Type", "text/plain")
	wg.Wait()

	// A state may be larger than other bodies.
	large := strings.Repeat("x", 1<<20)
	put(large, 200, `"4"`)
	get(s, 200, large, "")
	h.refused(413, "PUT", "/queues/q", large, "Bad request: the body is larger than 1024 bytes")
	put("", 200, `"5"`)
	get(s, 200, "", "")

	status, answer, _ := h.send("PUT", "/states/c?ttl_seconds=60", strings.NewReader("{}"), "Content-Type", "application/json")
	if want := `{"key":"c","content_type":"application/json","version":6,"updated_at":"1970-01-01T00:00:01.000Z","expires_at":"1970-01-01T00:01:00.000Z","refs":0}`; status != 200 || result(t, answer) != want {
		t.Errorf("%d %s, want %s", status, answer, want)
	}
	h.refused(422, "PUT", "/states/c?ttl_seconds=-1", "", "Validation error in query parameters: [ttl_seconds: value -1 invalid, must be from 0 to 315360000]")
	h.refused(422, "PUT", "/states/"+strings.Repeat("x", 513), "", "Validation error in path parameters: [key: 513 bytes, at most 512 are accepted]")
	h.ok("GET", "/states?prefix=a%2F", "", `{"next_after":null,"states":[{"key":"a/b","version":5,"updated_at":"1970-01-01T00:00:01.000Z","refs":0}]}`)
	h.ok("GET", "/states?limit=1", "", `{"next_after":"a/b","states":[{"key":"a/b","version":5,"updated_at":"1970-01-01T00:00:01.000Z","refs":0}]}`)
	h.ok("GET", "/states?after=c", "", `{"next_after":null,"states":[]}`)
	h.refusedAs(409, vectord.CodeVersionConflict, "DELETE", s, "", "If-Match", `"4"`)
	h.ok("DELETE", s, "", "true")
	h.ok("DELETE", s, "", "false")
}

// TestWaitingTakesNoPlace checks that requests that wait leave room for others, however few there may be, and that they
// and streams end when the server shuts down.
func TestWaitingTakesNoPlace(t *testing.T) {
	h, f := startTasks(t, Options{MaxConcurrentCalls: 1})
	f.addTask(vectord.Task{ID: taskID(t, taskA), Status: vectord.TaskRunning})
	waiting := make(chan struct{})
	f.lease = func(ctx context.Context, _ vectord.LeaseRequest) ([]vectord.Task, error) {
		waiting <- struct{}{}
		<-ctx.Done()
		return nil, nil
	}
	f.events = func(ctx context.Context, _ string, _ vectord.TaskID, _ uint64, _ func(vectord.TaskEvent) error) error {
		waiting <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { h.ok("POST", "/tasks/lease", `{"agent_id":"a","wait_ms":30000}`, `{"tasks":[]}`) })
		<-waiting
	}
	wg.Go(func() {
		status, answer, _ := h.send("GET", "/tasks/"+taskA+"/events", nil)
		if status != 200 || answer != ": these are the events\n\n" {
			t.Errorf("%d %q", status, answer)
		}
	})
	<-waiting
	h.ok("GET", "/tasks/"+taskA+"/result", "", "")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if n, m, c := h.srv.waiting.Load(), h.srv.streams.Load(), h.srv.calls.Load(); n != 0 || m != 0 || c != 0 {
		t.Errorf("%d requests wait, %d streams are sent, %d are served", n, m, c)
	}
}

// TestPageBytes checks that a page of large tasks is cut short, and the next one goes on from there.
func TestPageBytes(t *testing.T) {
	h, f := startTasks(t, Options{})
	payload := json.RawMessage(`"` + strings.Repeat("x", vectord.MaxTaskBytes-2) + `"`)
	const fit = taskPageBytes / vectord.MaxTaskBytes
	for i := range fit + 2 {
		f.addTask(vectord.Task{ID: vectord.TaskID{15: byte(i + 1)}, Status: vectord.TaskQueued, NewTask: vectord.NewTask{Payload: payload}})
	}
	page := func(after string, want int) (next *string) {
		t.Helper()
		_, answer, _ := h.send("POST", "/tasks/scroll", strings.NewReader(`{"after":`+after+`}`))
		var got struct {
			Result struct {
				Tasks []json.RawMessage
				Next  *string `json:"next_after"`
			}
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil || len(got.Result.Tasks) != want {
			t.Fatalf("%d tasks, want %d (%v)", len(got.Result.Tasks), want, err)
		}
		return got.Result.Next
	}
	next := page("null", fit)
	if next == nil {
		t.Fatal("the page that was cut short is the last one")
	}
	if next = page(`"`+*next+`"`, 2); next != nil {
		t.Errorf("after the last page there is %s", *next)
	}
}

// TestKeepAlive checks that a stream without events shows that it lives, and that of a task ends when the task has.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeScheduler()
		f.events = func(ctx context.Context, _ string, _ vectord.TaskID, _ uint64, _ func(vectord.TaskEvent) error) error {
			<-ctx.Done()
			return ctx.Err()
		}
		s := New(model.New(), Options{Scheduler: f})
		id := vectord.TaskID{1}
		f.addTask(vectord.Task{ID: id, Status: vectord.TaskRunning})
		e := s.newEventStream(nil, "", id, 0)
		s.streams.Add(1)
		defer e.stop()
		begun := time.Now()
		for i := range 3 {
			if i == 2 {
				f.addTask(vectord.Task{ID: id, Status: vectord.TaskCompleted})
			}
			e.await()
			if took := time.Since(begun); took != time.Duration(i+1)*keepAlive || string(e.pending) != ": nothing new\n\n" || e.over != (i == 2) {
				t.Errorf("after %v: %q, over %v", took, e.pending, e.over)
			}
		}
	})
}

func TestWaitingIsBounded(t *testing.T) {
	h, f := startTasks(t, Options{})
	f.addTask(vectord.Task{ID: taskID(t, taskA), Status: vectord.TaskRunning})
	h.srv.waiting.Add(maxWaiting)
	h.refused(429, "POST", "/tasks/lease", `{"agent_id":"a","wait_ms":1}`, "Too many requests: more than 16384 requests wait")
	h.srv.waiting.Add(-maxWaiting)
	h.srv.streams.Add(maxEventStreams)
	h.refused(429, "GET", "/events", "", "Too many requests: more than 1024 streams of events are being sent")
	h.srv.streams.Add(-maxEventStreams)
	if n := h.srv.calls.Load(); n != 0 {
		t.Errorf("%d requests are served", n)
	}
}

func TestEvents(t *testing.T) {
	h, f := startTasks(t, Options{})
	id := taskID(t, taskA)
	f.addTask(vectord.Task{ID: id, Queue: "q", Status: vectord.TaskRunning})
	f.queues["q"] = vectord.DefaultQueueConfig()
	log := []vectord.TaskEvent{{ID: 5, Type: "started", TaskID: id, Queue: "q", Status: vectord.TaskRunning, Attempt: 1},
		{ID: 8, Type: "completed", TaskID: id, Queue: "q", Status: vectord.TaskCompleted, Attempt: 1}}
	cancelled := make(chan struct{}, 1)
	f.events = func(ctx context.Context, queue string, task vectord.TaskID, after uint64, fn func(vectord.TaskEvent) error) error {
		if after == 1 {
			return vectord.Refuse(vectord.KindNotFound, vectord.CodeEventsCompacted, "the events up to 4 are gone")
		}
		for _, event := range log {
			if event.ID > after && (queue == "" || queue == event.Queue) && (task == (vectord.TaskID{}) || task == event.TaskID) {
				if err := fn(event); err != nil {
					return err
				}
			}
		}
		if after == 3 {
			return errors.New("out of luck")
		}
		<-ctx.Done()
		cancelled <- struct{}{}
		return ctx.Err()
	}
	const begin = ": these are the events\n\n"
	const started = "id: 5\nevent: started\ndata: {\"id\":5,\"type\":\"started\",\"time\":\"1970-01-01T00:00:00.000Z\",\"task_id\":\"" + taskA +
		"\",\"queue\":\"q\",\"status\":\"running\",\"attempt\":1}\n\n"
	const completed = "id: 8\nevent: completed\ndata: {\"id\":8,\"type\":\"completed\",\"time\":\"1970-01-01T00:00:00.000Z\",\"task_id\":\"" + taskA +
		"\",\"queue\":\"q\",\"status\":\"completed\",\"attempt\":1}\n\n"
	whole := func(path, after, want string) {
		t.Helper()
		status, answer, header := h.send("GET", path, nil, "Last-Event-ID", after)
		if status != 200 || answer != want || header.Get("Content-Type") != "text/event-stream" || header.Get("Cache-Control") != "no-store" {
			t.Errorf("GET %s after %s: %d %q, want %q", path, after, status, answer, want)
		}
	}
	whole("/tasks/"+taskA+"/events", "4", begin+started+completed) // to the end of the task
	whole("/tasks/"+taskA+"/events", "5", begin+completed)         // resumed
	<-cancelled
	<-cancelled
	whole("/events?queue=q", "3", begin+started+completed+
		"event: error\ndata: {\"error\":\"Service internal error: the server's log has the details\"}\n\n")
	h.refusedAs(410, vectord.CodeEventsCompacted, "GET", "/tasks/"+taskA+"/events", "", "Last-Event-ID", "1")
	h.refusedAs(404, vectord.CodeTaskNotFound, "GET", "/tasks/"+taskB+"/events", "")
	h.refusedAs(404, vectord.CodeQueueNotFound, "GET", "/events?queue=none", "")
	h.refusedAs(400, "", "GET", "/events", "", "Last-Event-ID", "x")

	// A stream goes on until the client leaves, which the server finds out when it sends something.
	ctx, leave := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, "GET", "http://"+h.addr+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := h.http.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(resp.Body)
	for _, want := range strings.SplitAfter(begin+started+completed, "\n") {
		if got, err := io.ReadAll(io.LimitReader(lines, int64(len(want)))); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
	}
	leave()
	resp.Body.Close()

	// Of a task that has ended there is nothing to wait for.
	f.addTask(vectord.Task{ID: id, Status: vectord.TaskCompleted})
	log = nil
	whole("/tasks/"+taskA+"/events", "8", begin)
	<-cancelled
}
