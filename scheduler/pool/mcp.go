package pool

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/vectord/vectord"
)

// The revisions of MCP that are spoken. The later one has no handshake: every request says what it speaks.
const (
	mcpStateless = "2026-07-28"
	mcpSessions  = "2025-11-25"
)

const (
	mcpMeta           = "io.modelcontextprotocol/"
	mcpToolPages      = 16 // of the list of tools
	mcpTextsMax       = vectord.MaxAgentVectors
	mcpTextBytesMax   = 4 << 10
	mcpDiscover       = "server/discover"
	mcpProgressMethod = "notifications/progress"
)

// mcpProtocol makes tasks calls of tools.
type mcpProtocol struct {
	stateless bool
	tools     map[string]string // by task type, see Definition.ToolMap
	texts     bool              // describe the agent by its tools
}

// speaksStateless asks a process that serves for nothing else whether it speaks the later revision: some servers end when the first
// request is one that they don't know.
func speaksStateless(ctx context.Context, c *conn) bool {
	var discovered struct {
		Versions []string `json:"supportedVersions"`
	}
	err := c.call(ctx, mcpDiscover, withMeta(map[string]any{}, map[string]any{}), &discovered)
	return err == nil && slices.Contains(discovered.Versions, mcpStateless)
}

// withMeta adds what each request of the later revision says.
func withMeta(params, meta map[string]any) map[string]any {
	meta[mcpMeta+"protocolVersion"] = mcpStateless
	meta[mcpMeta+"clientInfo"] = map[string]any{"name": "vectord", "version": vectord.Version}
	meta[mcpMeta+"clientCapabilities"] = map[string]any{}
	params["_meta"] = meta
	return params
}

func (m mcpProtocol) greet(ctx context.Context, c *conn, _ string) (g greeting, err error) {
	if m.stateless {
		err = c.call(ctx, mcpDiscover, withMeta(map[string]any{}, map[string]any{}), &struct{}{})
	} else {
		var hello struct {
			Version string `json:"protocolVersion"`
		}
		if err = c.call(ctx, "initialize", map[string]any{"protocolVersion": mcpSessions, "capabilities": map[string]any{},
			"clientInfo": map[string]any{"name": "vectord", "version": vectord.Version}}, &hello); err == nil {
			// A server that answers with an earlier version is taken at its word: tools/call has been the same in all of them.
			err = c.tell("notifications/initialized", map[string]any{})
		}
	}
	if err != nil {
		return g, err
	}
	if m.texts {
		g.texts, err = m.describe(ctx, c)
	}
	return g, err
}

// describe returns the descriptions of the server's tools, as many as an agent may have.
func (m mcpProtocol) describe(ctx context.Context, c *conn) (texts []string, err error) {
	for cursor, pages := "", 0; pages < mcpToolPages; pages++ {
		params := map[string]any{}
		if cursor != "" {
			params["cursor"] = cursor
		}
		if m.stateless {
			withMeta(params, map[string]any{})
		}
		var list struct {
			Tools []struct {
				Name, Description string
			} `json:"tools"`
			NextCursor string `json:"nextCursor"`
		}
		if err := c.call(ctx, "tools/list", params, &list); err != nil {
			return nil, err
		}
		for _, tool := range list.Tools {
			if len(texts) < mcpTextsMax && m.reaches(tool.Name) {
				texts = append(texts, cut(strings.TrimSpace(tool.Name+": "+tool.Description), mcpTextBytesMax))
			}
		}
		if cursor = list.NextCursor; cursor == "" {
			break
		}
	}
	return texts, nil
}

// reaches reports whether some task may call the tool.
func (m mcpProtocol) reaches(tool string) bool {
	for _, t := range m.tools {
		if t == tool {
			return true
		}
	}
	return len(m.tools) == 0
}

func (m mcpProtocol) request(t *vectord.Task) (string, any, error) {
	tool := m.tools[t.Type]
	if tool == "" {
		tool = m.tools["*"]
	}
	if len(m.tools) == 0 {
		tool = t.Type
	}
	if tool == "" {
		return "", nil, vectord.Errorf(vectord.KindInvalid, "no tool is for tasks of type %q", t.Type)
	}
	arguments := map[string]json.RawMessage{}
	if len(t.Payload) > 0 {
		if err := json.Unmarshal(t.Payload, &arguments); err != nil {
			return "", nil, vectord.Errorf(vectord.KindInvalid, "the arguments of tool %q have to be an object: %v", tool, err)
		}
	}
	params := map[string]any{"name": tool, "arguments": arguments}
	if arguments == nil { // the payload is null
		params["arguments"] = struct{}{}
	}
	meta := map[string]any{"progressToken": t.ID.String()}
	if t.TraceParent != "" {
		meta["traceparent"] = t.TraceParent
	}
	if m.stateless {
		return "tools/call", withMeta(params, meta), nil
	}
	params["_meta"] = meta
	return "tools/call", params, nil
}

func (mcpProtocol) verdict(r reply) vectord.TaskCall {
	var rpc *rpcError
	switch {
	case errors.As(r.err, &rpc):
		return failure(errorTool, rpc.Message, rpc.Code == rpcInvalidParams || rpc.Code == rpcMethodNotFound)
	case r.err != nil:
		return failure(errorTool, r.err.Error(), false)
	}
	var result struct {
		Type       string            `json:"resultType"`
		Content    []json.RawMessage `json:"content"`
		Structured json.RawMessage   `json:"structuredContent,omitempty"`
		IsError    bool              `json:"isError"`
	}
	if err := json.Unmarshal(r.result, &result); err != nil {
		return failure(errorAnswer, "the answer is not the result of a tool: "+err.Error(), false)
	}
	switch {
	case result.IsError:
		return failure(errorTool, textOf(result.Content), false)
	case result.Type != "" && result.Type != "complete":
		return failure(errorAnswer, "the tool wants something that tasks do not have: its result is of the type "+result.Type, true)
	}
	out := map[string]any{"content": result.Content}
	if result.Content == nil {
		out["content"] = []json.RawMessage{}
	}
	if len(result.Structured) > 0 && string(result.Structured) != "null" {
		out["structuredContent"] = result.Structured
	}
	encoded, err := encode(out)
	if err != nil {
		return failure(errorAnswer, err.Error(), false)
	}
	return vectord.TaskCall{Kind: vectord.CallComplete, Result: bytes.TrimSpace(encoded)}
}

// textOf returns the texts among the parts of a result.
func textOf(content []json.RawMessage) string {
	var texts []string
	for _, part := range content {
		var p struct {
			Text string `json:"text"`
		}
		if json.Unmarshal(part, &p) == nil && p.Text != "" {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, "\n")
}

func (mcpProtocol) cancellation(_ vectord.TaskID, id int64) (string, any) {
	return "notifications/cancelled", map[string]any{"requestId": id, "reason": "the task was cancelled"}
}

func (mcpProtocol) progress(method string, params json.RawMessage) (vectord.TaskID, json.RawMessage, bool) {
	var p struct {
		Token   vectord.TaskID `json:"progressToken"`
		Now     float64        `json:"progress"`
		Total   float64        `json:"total,omitempty"`
		Message string         `json:"message,omitempty"`
	}
	if method != mcpProgressMethod || json.Unmarshal(params, &p) != nil {
		return vectord.TaskID{}, nil, false
	}
	said := map[string]any{"progress": p.Now}
	if p.Total != 0 {
		said["total"] = p.Total
	}
	if p.Message != "" {
		said["message"] = p.Message
	}
	encoded, err := json.Marshal(said)
	return p.Token, encoded, err == nil
}
