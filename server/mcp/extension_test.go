package mcpserver_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/server"
	"github.com/vectord/vectord/server/mcp/mcptest"
)

const tasksExtension = "io.modelcontextprotocol/tasks"

type taskParams struct {
	sdk.ParamsBase
	TaskID         string                     `json:"taskId"`
	InputResponses map[string]json.RawMessage `json:"inputResponses,omitempty"`
}

type taskState struct {
	sdk.ResultBase
	ResultType    string                     `json:"resultType"`
	TaskID        string                     `json:"taskId"`
	Status        string                     `json:"status"`
	TTLMs         *int64                     `json:"ttlMs"`
	InputRequests map[string]json.RawMessage `json:"inputRequests"`
	Result        *sdk.CallToolResult        `json:"result"`
	Error         *struct {
		Message string            `json:"message"`
		Data    vectord.TaskError `json:"data"`
	} `json:"error"`
}

// declaring are the options of a client that understands handles.
func declaring() *sdk.ClientOptions {
	c := &sdk.ClientCapabilities{}
	c.AddExtension(tasksExtension, nil)
	return &sdk.ClientOptions{Capabilities: c}
}

// handle submits a task and returns its id, which the scheduler gave it last.
func handle(t *testing.T, h *harness, queue string) string {
	t.Helper()
	res, err := h.session.CallTool(t.Context(), &sdk.CallToolParams{Name: "submit_task", Arguments: map[string]any{"queue": queue, "wait": true}})
	if err != nil {
		t.Fatal(err)
	}
	if res.StructuredContent != nil || res.IsError {
		t.Fatalf("an answer instead of a handle: %+v", res)
	}
	var leased struct{ Tasks []vectord.Task }
	h.ok("lease_tasks", `{"agent_id":"a","queue":"`+queue+`"}`, &leased)
	if len(leased.Tasks) != 1 {
		t.Fatalf("the task of the handle is not there: %+v", leased)
	}
	return leased.Tasks[0].ID.String()
}

// task sends a request of the extension.
func (h *harness) task(method string, p taskParams) *taskState {
	h.t.Helper()
	state, err := sdk.CallCustomMethod[*taskParams, *taskState](h.t.Context(), h.session, method, &p)
	if err != nil {
		h.t.Fatalf("%s: %v", method, err)
	}
	if state.ResultType != "complete" {
		h.t.Errorf("%s: resultType %q", method, state.ResultType)
	}
	return state
}

func TestExtension(t *testing.T) {
	s, m, tasks := newServer(t)
	url := serve(t, m, s, server.Options{})
	for i, h := range []*harness{local(t, s, sessionless, declaring()), remote(t, url, "", sessionless, declaring())} {
		if _, ok := h.session.InitializeResult().Capabilities.Extensions[tasksExtension]; !ok {
			t.Error("the server does not declare the extension")
		}
		queue := fmt.Sprintf("q%d", i)
		h.ok("register_agent", `{"agent_id":"a","queues":["`+queue+`"]}`, nil)
		call := func(id string, c vectord.TaskCall) {
			t.Helper()
			do(t, tasks, id, c)
		}
		get := func(id, status string) *taskState {
			t.Helper()
			state := h.task("tasks/get", taskParams{TaskID: id})
			if state.Status != status || state.TaskID != id {
				t.Errorf("task is %+v, want status %s", state, status)
			}
			return state
		}

		id := handle(t, h, queue)
		if state := get(id, "working"); state.TTLMs != nil {
			t.Errorf("a task that runs is kept for %d ms", *state.TTLMs)
		}
		call(id, vectord.TaskCall{Kind: vectord.CallComplete, Result: json.RawMessage(`{"sum":3}`)})
		state := get(id, "completed")
		var done struct {
			TaskID string `json:"task_id"`
			Task   struct{ Result json.RawMessage }
		}
		if h.check("submit_task", state.Result, &done); done.TaskID != id || string(done.Task.Result) != `{"sum":3}` {
			t.Errorf("result: %+v", done)
		}
		if state.TTLMs == nil || *state.TTLMs < 86_400_000 {
			t.Error("a task that has ended does not say how long it is kept")
		}
		h.task("tasks/cancel", taskParams{TaskID: id}) // of no effect
		get(id, "completed")

		id = handle(t, h, queue)
		call(id, vectord.TaskCall{Kind: vectord.CallFail, Final: true, Error: vectord.TaskError{Code: "broken", Message: "it fell"}})
		if state := get(id, "failed"); state.Error == nil || state.Error.Message != "it fell" || state.Error.Data.Code != "broken" || state.Result != nil {
			t.Errorf("failed: %+v with %+v", state, state.Error)
		}

		id = handle(t, h, queue)
		call(id, vectord.TaskCall{Kind: vectord.CallComplete, Result: json.RawMessage(`{"content":[{"type":"text","text":"hm"}],"isError":true}`)})
		if state := get(id, "completed"); !state.Result.IsError || state.Result.Content[0].(*sdk.TextContent).Text != "hm" {
			t.Errorf("the result of a tool: %+v", state.Result)
		}

		id = handle(t, h, queue)
		h.task("tasks/cancel", taskParams{TaskID: id})
		get(id, "cancelled")

		if _, err := sdk.CallCustomMethod[*taskParams, *taskState](t.Context(), h.session, "tasks/get", &taskParams{TaskID: "nobody"}); codeOf(err) != -32602 {
			t.Errorf("no such task: %v", err)
		}
	}
}

// do says something as the agent that holds a task.
func do(t *testing.T, s *mcptest.Scheduler, id string, c vectord.TaskCall) {
	t.Helper()
	parsed, err := vectord.ParseTaskID(id)
	if err != nil {
		t.Fatal(err)
	}
	task, err := s.Task(parsed)
	if err != nil {
		t.Fatal(err)
	}
	c.ID, c.LeaseID = parsed, task.LeaseID
	answers, err := s.Call(t.Context(), []vectord.TaskCall{c})
	if err != nil || answers[0].Err != nil {
		t.Fatal(err, answers)
	}
}

// TestInputs checks what clients are asked for what agents ask, and what agents get for what clients answer.
func TestInputs(t *testing.T) {
	s, _, tasks := newServer(t)
	h := local(t, s, sessionless, declaring())
	h.ok("register_agent", `{"agent_id":"a","queues":["q"]}`, nil)
	// f has an agent ask, and the client answer what is named, in turn.
	f := func(request, open string, responses []string, want string) {
		t.Helper()
		id := handle(t, h, "q")
		do(t, tasks, id, vectord.TaskCall{Kind: vectord.CallRequestInput, Request: json.RawMessage(request)})
		for i, response := range responses {
			state := h.task("tasks/get", taskParams{TaskID: id})
			if state.Status != "input_required" {
				t.Errorf("asked %s: %+v", request, state)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(state.InputRequests)), " "); i == 0 && got != open {
				t.Errorf("asked %s: requests %q, want %q", request, got, open)
			}
			var answers map[string]json.RawMessage
			if err := json.Unmarshal([]byte(response), &answers); err != nil {
				t.Fatal(err)
			}
			h.task("tasks/update", taskParams{TaskID: id, InputResponses: answers})
		}
		parsed, err := vectord.ParseTaskID(id)
		if err != nil {
			t.Fatal(err)
		}
		task, err := tasks.Task(parsed)
		if err != nil || string(task.InputResponse) != want {
			t.Errorf("asked %s: the agent gets %s, want %s (%v)", request, task.InputResponse, want, err)
		}
		if state := h.task("tasks/get", taskParams{TaskID: id}); (want == "") != (state.Status == "input_required") {
			t.Errorf("asked %s: %+v", request, state)
		}
		h.task("tasks/cancel", taskParams{TaskID: id})
	}
	const elicit = `{"method":"elicitation/create","params":{"message":"sure?"}}`
	f(`"who?"`, "input", []string{`{"input":{"action":"accept","content":{"response":"me"}}}`}, `{"action":"accept","content":{"response":"me"}}`)
	f(`{"message":"who?","why":1}`, "input", []string{`{"input":1}`}, `1`)
	f(elicit, "input", []string{`{"other":1}`, `{"input":{"action":"decline"}}`}, `{"action":"decline"}`)
	f(`{"a":`+elicit+`}`, "a", []string{`{"a":1}`}, `{"a":1}`)
	f(`{"a":`+elicit+`,"b":`+elicit+`}`, "a b", []string{`{"a":1,"b":2,"c":3}`}, `{"a":1,"b":2}`)
	f(`{"a":`+elicit+`,"b":`+elicit+`}`, "a b", []string{`{"b":2}`, `{"a":1}`}, `{"a":1,"b":2}`)
	f(`{"a":`+elicit+`,"b":`+elicit+`}`, "a b", []string{`{"b":2}`, `{"b":3}`}, ``)
}

// TestUndeclared checks that who does not declare the extension is served without handles.
func TestUndeclared(t *testing.T) {
	s, _, _ := newServer(t)
	h := local(t, s, sessionless, nil)
	var out struct{ Status string }
	if h.ok("submit_task", `{"queue":"q","wait":true,"wait_ms":1}`, &out); out.Status != "queued" {
		t.Errorf("submitted: %+v", out)
	}
	for _, method := range []string{"tasks/get", "tasks/update", "tasks/cancel"} {
		_, err := sdk.CallCustomMethod[*taskParams, *taskState](t.Context(), h.session, method, &taskParams{TaskID: "x"})
		if codeOf(err) != sdk.CodeMissingRequiredClientCapabilities {
			t.Errorf("%s: %v", method, err)
		}
	}
}
