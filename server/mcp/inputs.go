package mcpserver

import (
	"context"
	"encoding/json"
	"maps"

	"github.com/vectord/vectord"
)

// An agent asks whoever submitted its task by any JSON; the extension of tasks has a map of MCP requests. An agent that knows
// MCP asks by such a map, or by one such request. Anything else becomes a question to a person.

// soleInput names the request of an agent that asked by one.
const soleInput = "input"

// States keep the answers to some of several requests until all are there. Its methods are those of server.Scheduler.
type States interface {
	PutState(ctx context.Context, key string, value []byte, w vectord.StateWrite) (vectord.State, error)
	State(ctx context.Context, key string, since uint64) (vectord.State, error)
	DeleteState(ctx context.Context, key string, ifVersion *uint64) (existed bool, err error)
}

// inputs are what an agent asks, and what was answered so far.
type inputs struct {
	requests map[string]json.RawMessage
	sole     bool // the agent asked by one request and gets one response
	answers  map[string]json.RawMessage
	version  uint64 // of the state that keeps the answers; 0: there is none
}

// open returns the requests that wait for an answer.
func (in *inputs) open() map[string]json.RawMessage {
	open := maps.Clone(in.requests)
	maps.DeleteFunc(open, func(name string, _ json.RawMessage) bool { return in.answers[name] != nil })
	return open
}

// inputsOf reads what an agent asked.
func inputsOf(request json.RawMessage) *inputs {
	var several map[string]json.RawMessage
	if json.Unmarshal(request, &several) == nil && len(several) > 0 {
		all := true
		for _, r := range several {
			all = all && isRequest(r)
		}
		if all {
			return &inputs{requests: several}
		}
	}
	if !isRequest(request) {
		request = question(request)
	}
	return &inputs{requests: map[string]json.RawMessage{soleInput: request}, sole: true}
}

// isRequest reports whether a text is a request of MCP.
func isRequest(text json.RawMessage) bool {
	var r struct {
		Method string `json:"method"`
	}
	return json.Unmarshal(text, &r) == nil && r.Method != ""
}

// question asks a person for a text.
func question(request json.RawMessage) json.RawMessage {
	message := string(request)
	var text string
	var object struct {
		Message string `json:"message"`
	}
	switch {
	case json.Unmarshal(request, &text) == nil:
		message = text
	case json.Unmarshal(request, &object) == nil && object.Message != "":
		message = object.Message
	}
	asked, err := json.Marshal(map[string]any{"method": "elicitation/create", "params": map[string]any{"mode": "form", "message": message,
		"requestedSchema": map[string]any{"type": "object", "required": []string{"response"},
			"properties": map[string]any{"response": map[string]any{"type": "string"}}}}})
	if err != nil {
		panic("a question without a JSON form: " + err.Error()) // it is made of strings
	}
	return asked
}

func inputsKey(id vectord.TaskID) string { return "mcp/inputs/" + id.String() }

// inputsOfTask returns what a task waits for.
func (s *Server) inputsOfTask(ctx context.Context, t vectord.Task) (*inputs, error) {
	in := inputsOf(t.InputRequest)
	if len(in.requests) == 1 {
		return in, nil
	}
	state, err := s.tasks.State(ctx, inputsKey(t.ID), 0)
	switch {
	case vectord.CodeOf(err) == vectord.CodeStateNotFound:
		return in, nil
	case err != nil:
		return nil, err
	}
	in.version = state.Version
	return in, json.Unmarshal(state.Value, &in.answers)
}

// inputsKeptSeconds bounds how long answers are kept while others are missing.
const inputsKeptSeconds = 7 * 24 * 3600

// giveInputs passes answers on to the agent once there is one to every request. Answers to what was not asked are dropped.
func (s *Server) giveInputs(ctx context.Context, t vectord.Task, answers map[string]json.RawMessage) error {
	in, err := s.inputsOfTask(ctx, t)
	if err != nil {
		return err
	}
	all := maps.Clone(in.answers)
	if all == nil {
		all = map[string]json.RawMessage{}
	}
	for name, answer := range answers {
		if _, asked := in.requests[name]; asked {
			all[name] = answer
		}
	}
	if len(all) == len(in.answers) {
		return nil
	}
	var response json.RawMessage
	if in.sole {
		response = all[soleInput]
	} else if response, err = json.Marshal(all); err != nil {
		return vectord.Errorf(vectord.KindInvalid, "inputResponses: %v", err)
	}
	if len(response) > vectord.MaxTaskBytes {
		return vectord.Errorf(vectord.KindTooLarge, "inputResponses: %d bytes, at most %d are accepted", len(response), vectord.MaxTaskBytes)
	}
	if len(all) < len(in.requests) {
		_, err := s.tasks.PutState(ctx, inputsKey(t.ID), response, vectord.StateWrite{ContentType: jsonType, TTLSeconds: inputsKeptSeconds, IfVersion: &in.version})
		return err
	}
	if _, err := s.tasks.GiveInput(ctx, t.ID, response); err != nil {
		return err
	}
	if in.version != 0 {
		_, err = s.tasks.DeleteState(ctx, inputsKey(t.ID), nil)
	}
	return err
}
