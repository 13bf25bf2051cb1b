package pool

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/vectord/vectord"
)

// The codes of errors of attempts that this package gives.
const (
	errorTask      = "task_failed" // unless the worker names a code
	errorTool      = "tool_error"
	errorNoTool    = "no_tool"
	errorCancelled = "cancelled"
	errorResult    = "result_too_large"
	errorAnswer    = "bad_answer"
)

// A protocol is how tasks are put to a process.
type protocol interface {
	// greet makes sure that the process is ready, and returns what it says of itself.
	greet(ctx context.Context, c *conn, agent string) (greeting, error)
	// request returns the request that puts a task, or says why there is none.
	request(t *vectord.Task) (method string, params any, err error)
	// verdict makes the answer to that request the last call about the task.
	verdict(r reply) vectord.TaskCall
	// cancellation returns the notification that a task, whose request had the id, is not wanted any more.
	cancellation(t vectord.TaskID, id int64) (method string, params any)
	// progress reads a notification. ok is false for those that are not of a task's progress.
	progress(method string, params json.RawMessage) (id vectord.TaskID, progress json.RawMessage, ok bool)
}

// greeting is what a process says of itself.
type greeting struct {
	Name         string      `json:"name"`
	Capacity     int         `json:"capacity"`
	Capabilities []string    `json:"capabilities"`
	Vectors      [][]float32 `json:"vectors"`
	texts        []string
}

// config is what an agent registers with: the operator's word, and within it the process's.
func (g *greeting) config(d *Definition) vectord.AgentConfig {
	c := vectord.AgentConfig{Queues: d.Queues, Vectors: d.Vectors, Texts: d.Texts, Capacity: d.CapacityPerProcess, Transport: "exec",
		Labels: map[string]string{"pool": d.Name}}
	if d.Kind == MCP {
		c.Transport = "mcp_stdio"
	}
	if g.Capacity > 0 {
		c.Capacity = min(c.Capacity, g.Capacity)
	}
	if len(c.Vectors)+len(c.Texts) == 0 {
		c.Vectors, c.Texts = g.Vectors, g.texts
	}
	c.Capabilities = slices.Concat(d.Capabilities, g.Capabilities)
	slices.Sort(c.Capabilities)
	c.Capabilities = slices.Compact(c.Capabilities)
	return c
}

// workerProtocol is vectord's own.
type workerProtocol struct{ pool string }

func (w workerProtocol) greet(ctx context.Context, c *conn, agent string) (g greeting, err error) {
	err = c.call(ctx, "initialize", map[string]any{"protocol_version": 1, "pool": w.pool, "agent_id": agent, "server_version": vectord.Version}, &g)
	return g, err
}

// workerTask is what a worker is told of its task.
type workerTask struct {
	ID             vectord.TaskID    `json:"task_id"`
	Queue          string            `json:"queue"`
	Type           string            `json:"type,omitempty"`
	Attempt        int               `json:"attempt"`
	Tags           []string          `json:"tags,omitempty"`
	Deadline       vectord.Timestamp `json:"deadline,omitempty"`
	TimeoutSeconds int               `json:"timeout_seconds,omitempty"`
	StateRefs      []string          `json:"state_refs,omitempty"`
	TraceParent    string            `json:"traceparent,omitempty"`
	Metadata       json.RawMessage   `json:"metadata,omitempty"`
	Payload        json.RawMessage   `json:"payload"`
}

func (workerProtocol) request(t *vectord.Task) (string, any, error) {
	payload := t.Payload
	if len(payload) == 0 {
		payload = json.RawMessage("null")
	}
	return "task/run", map[string]workerTask{"task": {ID: t.ID, Queue: t.Queue, Type: t.Type, Attempt: t.Attempt, Tags: t.Tags, Deadline: t.Deadline,
		TimeoutSeconds: t.TimeoutSeconds, StateRefs: t.StateRefs, TraceParent: t.TraceParent, Metadata: t.Metadata, Payload: payload}}, nil
}

func (workerProtocol) verdict(r reply) vectord.TaskCall {
	if r.err == nil {
		return vectord.TaskCall{Kind: vectord.CallComplete, Result: r.result}
	}
	call := failure(errorTask, r.err.Error(), false)
	var rpc *rpcError
	if errors.As(r.err, &rpc) {
		var data struct {
			Code         string `json:"code"`
			Final        bool   `json:"final"`
			RetryAfterMS int64  `json:"retry_after_ms"`
		}
		_ = json.Unmarshal(rpc.Data, &data) // what is not said in this form is not said
		call.Error.Message = cut(rpc.Message, vectord.MaxErrorBytes)
		if data.Code != "" {
			call.Error.Code = cut(data.Code, vectord.MaxNameBytes)
		}
		call.Final, call.RetryAfterMS = data.Final, max(data.RetryAfterMS, 0)
	}
	return call
}

func (workerProtocol) cancellation(t vectord.TaskID, _ int64) (string, any) {
	return "task/cancel", map[string]any{"task_id": t}
}

func (workerProtocol) progress(method string, params json.RawMessage) (vectord.TaskID, json.RawMessage, bool) {
	var p struct {
		TaskID   vectord.TaskID  `json:"task_id"`
		Progress json.RawMessage `json:"progress"`
	}
	if method != "task/progress" || json.Unmarshal(params, &p) != nil {
		return vectord.TaskID{}, nil, false
	}
	return p.TaskID, p.Progress, len(p.Progress) > 0
}

// failure returns the call that an attempt failed.
func failure(code, message string, final bool) vectord.TaskCall {
	return vectord.TaskCall{Kind: vectord.CallFail, Error: vectord.TaskError{Code: code, Message: cut(message, vectord.MaxErrorBytes)}, Final: final}
}

// cut returns the beginning of s, whole characters of it.
func cut(s string, bytes int) string {
	return strings.ToValidUTF8(s[:min(len(s), bytes)], "")
}
