package mcpserver

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// The extension of tasks, in its revision of 2026-07-28, which the SDK leaves to servers: a call of submit_task with wait that
// would have to wait returns a handle, and the client polls.
const (
	tasksExtension = "io.modelcontextprotocol/tasks"
	firstWithTasks = "2026-07-28" // revision of the protocol
	pollMillis     = 1_000        // how often a client should ask
)

// declaresTasks reports whether the client says, with this very request, that it understands handles.
func declaresTasks(p sdk.Params) bool {
	var meta map[string]any
	switch p := p.(type) { // params that a request may do without are a nil that has a type
	case *sdk.CallToolParamsRaw:
		if p != nil {
			meta = p.Meta
		}
	case *taskParams:
		if p != nil {
			meta = p.Meta
		}
	}
	if version, _ := meta[sdk.MetaKeyProtocolVersion].(string); version < firstWithTasks {
		return false
	}
	capabilities, _ := meta[sdk.MetaKeyClientCapabilities].(map[string]any)
	extensions, _ := capabilities["extensions"].(map[string]any)
	_, ok := extensions[tasksExtension]
	return ok
}

// taskHandle stands in a tool's answer for that of a task.
type taskHandle struct {
	id         vectord.TaskID
	waitMillis int64 // of a client that does not understand handles; 0: as long as possible
}

// WaitFor returns the answer of a tool that is that of a task: the client gets a handle of the task if it understands handles,
// and else the task's end, or how it stands when the request has to end.
func WaitFor(id vectord.TaskID) *sdk.CallToolResult {
	return &sdk.CallToolResult{StructuredContent: &taskHandle{id: id}}
}

// resolveHandle returns a result, or what a handle in it stands for.
func (s *Server) resolveHandle(ctx context.Context, res sdk.Result) (sdk.Result, error) {
	call, ok := res.(*sdk.CallToolResult)
	if !ok {
		return res, nil
	}
	h, ok := call.StructuredContent.(*taskHandle)
	if !ok {
		return res, nil
	}
	if !visitOf(ctx).declaresTasks {
		end := s.endOf(ctx, h)
		call.Content, call.StructuredContent, call.IsError = end.Content, end.StructuredContent, end.IsError // the SDK has set the rest
		return call, nil
	}
	t, err := s.tasks.Task(h.id)
	if err != nil {
		return nil, s.protocolError("tools/call", err)
	}
	state := s.stateOf(t)
	state.ResultType, state.Result, state.Error = "task", nil, nil // what became of it is for tasks/get
	return state, nil
}

// endOf is the answer to who waits for a task.
func (s *Server) endOf(ctx context.Context, h *taskHandle) *sdk.CallToolResult {
	t, err := s.waitForTask(ctx, h.id, h.waitMillis)
	if err != nil {
		return s.toolResult("submit_task", nil, err)
	}
	return s.resultOf(t)
}

// taskState is a task in the terms of the extension.
type taskState struct {
	sdk.ResultBase
	ResultType     string                     `json:"resultType"`
	TaskID         vectord.TaskID             `json:"taskId"`
	Status         string                     `json:"status"`
	StatusMessage  string                     `json:"statusMessage,omitempty"`
	CreatedAt      vectord.Timestamp          `json:"createdAt"`
	LastUpdatedAt  vectord.Timestamp          `json:"lastUpdatedAt"`
	TTLMs          *int64                     `json:"ttlMs"` // from creation; nil: unlimited, as long as the task has not ended
	PollIntervalMs int64                      `json:"pollIntervalMs"`
	InputRequests  map[string]json.RawMessage `json:"inputRequests,omitempty"`
	Result         *sdk.CallToolResult        `json:"result,omitempty"`
	Error          *jsonrpc.Error             `json:"error,omitempty"`
}

// acknowledgement answers tasks/update and tasks/cancel.
type acknowledgement struct {
	sdk.ResultBase
	ResultType string `json:"resultType"`
}

// acknowledge makes one for each answer: the SDK writes its own name into it.
func acknowledge() *acknowledgement { return &acknowledgement{ResultType: "complete"} }

// taskParams are those of all methods of the extension.
type taskParams struct {
	sdk.ParamsBase
	TaskID         string                     `json:"taskId"`
	InputResponses map[string]json.RawMessage `json:"inputResponses"` // of tasks/update
}

func (s *Server) addTasksExtension() {
	add := func(err error) {
		if err != nil {
			panic(err) // a name that the SDK has by now
		}
	}
	add(sdk.AddReceivingCustomMethod(s.sdk, "tasks/get", s.tasksGet))
	add(sdk.AddReceivingCustomMethod(s.sdk, "tasks/update", s.tasksUpdate))
	add(sdk.AddReceivingCustomMethod(s.sdk, "tasks/cancel", s.tasksCancel))
}

// taskPermissions say what the methods of the extension need.
var taskPermissions = map[string]access.Permission{"tasks/get": access.Read, "tasks/update": access.Write, "tasks/cancel": access.Write}

// checkTaskRequest refuses a request of the extension by a client that did not declare it, that names another task in its
// header than in its body, or that may not.
func (s *Server) checkTaskRequest(ctx context.Context, method string, req sdk.Request) error {
	needs, ok := taskPermissions[method]
	if !ok {
		return nil
	}
	v := visitOf(ctx)
	if !v.declaresTasks {
		data := fmt.Sprintf(`{"requiredCapabilities":{"extensions":{%q:{}}}}`, tasksExtension)
		return &jsonrpc.Error{Code: sdk.CodeMissingRequiredClientCapabilities, Message: "the client must declare " + tasksExtension, Data: json.RawMessage(data)}
	}
	named := req.GetParams().(*taskParams).TaskID
	if extra := req.GetExtra(); extra != nil {
		if header := extra.Header.Get("Mcp-Name"); header != "" && header != named {
			return &jsonrpc.Error{Code: sdk.CodeHeaderMismatch, Message: "the header Mcp-Name is not the taskId of the body"}
		}
	}
	if err := s.authorizeServer(ctx, needs); err != nil {
		return s.protocolError(method, err)
	}
	return nil
}

// task returns the task that a request of the extension names.
func (s *Server) task(method, id string) (vectord.Task, error) {
	var t vectord.Task
	parsed, err := vectord.ParseTaskID(id)
	if err == nil {
		t, err = s.tasks.Task(parsed)
	}
	if err != nil {
		return t, s.protocolError(method, err)
	}
	return t, nil
}

func (s *Server) tasksGet(ctx context.Context, _ *sdk.ServerSession, p *taskParams) (*taskState, error) {
	t, err := s.task("tasks/get", p.TaskID)
	if err != nil {
		return nil, err
	}
	state := s.stateOf(t)
	if t.Status == vectord.TaskInputRequired {
		pending, err := s.inputsOfTask(ctx, t)
		if err != nil {
			return nil, s.protocolError("tasks/get", err)
		}
		state.InputRequests = pending.open()
	}
	return state, nil
}

func (s *Server) tasksCancel(ctx context.Context, _ *sdk.ServerSession, p *taskParams) (*acknowledgement, error) {
	t, err := s.task("tasks/cancel", p.TaskID)
	if err != nil {
		return nil, err
	}
	if _, err := s.tasks.Cancel(ctx, t.ID); err != nil && vectord.CodeOf(err) != vectord.CodeTaskTerminal {
		return nil, s.protocolError("tasks/cancel", err)
	}
	return acknowledge(), nil
}

func (s *Server) tasksUpdate(ctx context.Context, _ *sdk.ServerSession, p *taskParams) (*acknowledgement, error) {
	t, err := s.task("tasks/update", p.TaskID)
	if err != nil {
		return nil, err
	}
	if t.Status != vectord.TaskInputRequired { // nothing was asked, or it was answered meanwhile: the answers are of no use
		return acknowledge(), nil
	}
	if err := s.giveInputs(ctx, t, p.InputResponses); err != nil {
		return nil, s.protocolError("tasks/update", err)
	}
	return acknowledge(), nil
}

// stateOf describes a task. A task that failed is one in the extension's terms as well, with the error of its last attempt.
func (s *Server) stateOf(t vectord.Task) *taskState {
	state := &taskState{ResultType: "complete", TaskID: t.ID, Status: statusOf(t.Status), CreatedAt: t.CreatedAt, LastUpdatedAt: t.UpdatedAt, PollIntervalMs: pollMillis}
	switch t.Status {
	case vectord.TaskCompleted:
		state.Result = s.resultOf(t)
	case vectord.TaskFailed:
		e := t.Error
		if e == nil {
			e = &vectord.TaskError{Code: "failed"}
		}
		data, err := json.Marshal(e)
		if err != nil {
			panic(fmt.Sprintf("an error without a JSON form: %v", err)) // two strings
		}
		state.Error = &jsonrpc.Error{Code: codeServerError, Message: cmp.Or(e.Message, e.Code), Data: data}
	default:
		state.StatusMessage = t.WaitingReason
	}
	if t.Status.Terminal() {
		if q, err := s.tasks.Queue(t.Queue); err == nil {
			ttl := int64(t.UpdatedAt-t.CreatedAt) + int64(q.Config.ResultTTLSeconds)*1000
			state.TTLMs = &ttl
		}
	}
	return state
}

func statusOf(s vectord.TaskStatus) string {
	switch s {
	case vectord.TaskInputRequired, vectord.TaskCompleted, vectord.TaskFailed, vectord.TaskCancelled:
		return s.String()
	default:
		return "working"
	}
}

// resultOf is the answer to a call of submit_task with wait. Where the task's own result is that of a tool of MCP, as
// agents give it that are MCP servers themselves, its content goes to the client as it is.
func (s *Server) resultOf(t vectord.Task) *sdk.CallToolResult {
	res := s.toolResult("submit_task", submitTaskOut{TaskID: t.ID, Status: t.Status, Durable: t.Durable, Task: outOf(t)}, nil)
	var own struct {
		Content json.RawMessage `json:"content"`
		IsError bool            `json:"isError"`
	}
	if json.Unmarshal(t.Result, &own) == nil && len(own.Content) > 0 {
		var of sdk.CallToolResult
		if text, err := json.Marshal(own); err == nil && json.Unmarshal(text, &of) == nil && len(of.Content) > 0 {
			res.Content, res.IsError = of.Content, own.IsError
		}
	}
	return res
}
