package mcpserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/google/jsonschema-go/jsonschema"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// toolSpec is a tool as the table of tools declares it.
type toolSpec struct {
	name        string
	description string
	needs       access.Permission
	scope       access.Scope // with ScopeCollection the arguments must embed collectionArgument
	effect      effect
	required    []string          // arguments that must be given
	arguments   map[string]string // descriptions of arguments; those that are missing here are in the field's tag
}

// effect says what a call of a tool may do, for clients that ask before they call.
type effect uint8

const (
	reads       effect = iota + 1
	adds               // changes nothing that is there; again, it adds again
	addsOnce           // the same, but again it adds nothing
	changes            // may change or replace what is there
	changesOnce        // the same, but again it changes nothing more
)

func (e effect) annotations() *sdk.ToolAnnotations {
	destructive, open := e == changes || e == changesOnce, false
	return &sdk.ToolAnnotations{ReadOnlyHint: e == reads, DestructiveHint: &destructive, OpenWorldHint: &open,
		IdempotentHint: e == reads || e == addsOnce || e == changesOnce}
}

// collectionArgument is embedded in the arguments of tools for one collection.
type collectionArgument struct {
	Collection string `json:"collection" jsonschema:"name of the collection"`
}

func (c *collectionArgument) collection() *string { return &c.Collection }

// addTool offers a tool. run is called with arguments that fit the schema, by a caller who has the permission.
func addTool[In, Out any](s *Server, spec toolSpec, run func(ctx context.Context, in In) (Out, error)) {
	input := inputSchema[In](&spec)
	arguments, err := input.Resolve(nil)
	if err != nil {
		panic(fmt.Sprintf("the arguments of %s: %v", spec.name, err))
	}
	tool := &sdk.Tool{Name: spec.name, Description: spec.description, Annotations: spec.effect.annotations(),
		InputSchema: input, OutputSchema: outputSchema[Out](spec.name)}
	s.sdk.AddTool(tool, func(ctx context.Context, req *sdk.CallToolRequest) (*sdk.CallToolResult, error) {
		var in In
		err := decodeArguments(req.Params.Arguments, arguments, &in)
		if err == nil {
			err = s.authorize(ctx, &spec, &in)
		}
		var out Out
		if err == nil {
			out, err = run(ctx, in)
		}
		return s.toolResult(spec.name, out, err), nil
	})
}

// maxArgumentDepth leaves room for the deepest payload, in a point, in a list, in the points of a collection.
const maxArgumentDepth = vectord.MaxPayloadDepth + 8

// decodeArguments reads the arguments of a call, which must fit the schema.
func decodeArguments(text json.RawMessage, schema *jsonschema.Resolved, in any) error {
	if len(bytes.TrimSpace(text)) == 0 {
		text = json.RawMessage("{}")
	}
	if depth := vectord.JSONDepth(text); depth > maxArgumentDepth {
		return vectord.Errorf(vectord.KindUnprocessable, "arguments: nested %d deep, at most %d are accepted", depth, maxArgumentDepth)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return vectord.Errorf(vectord.KindInvalid, "arguments: %v", err)
	}
	if err := schema.Validate(value); err != nil {
		return vectord.Errorf(vectord.KindInvalid, "arguments: %v", err)
	}
	if err := json.Unmarshal(text, in); err != nil {
		if vectord.KindOf(err) == vectord.KindInternal {
			err = vectord.Errorf(vectord.KindInvalid, "arguments: %v", err)
		}
		return err
	}
	return nil
}

// authorize checks what the tool declares, and has the arguments name the collection to go on with.
func (s *Server) authorize(ctx context.Context, spec *toolSpec, in any) error {
	if spec.scope != access.ScopeCollection {
		_, err := s.authorizer.Authorize(&visitOf(ctx).caller, spec.needs, spec.scope, "")
		return err
	}
	name := in.(interface{ collection() *string }).collection()
	own, err := s.authorizeCollection(ctx, *name, spec.needs)
	*name = own
	return err
}

// authorizeCollection returns the name to go on with (see access.Authorizer.Authorize).
func (s *Server) authorizeCollection(ctx context.Context, name string, needs access.Permission) (string, error) {
	if err := vectord.CheckCollectionName(name); err != nil {
		return "", err
	}
	return s.authorizer.Authorize(&visitOf(ctx).caller, needs, access.ScopeCollection, name)
}

// toolResult is the answer to a call: out, or why there is none.
func (s *Server) toolResult(name string, out any, err error) *sdk.CallToolResult {
	if awaited, ok := out.(interface{ handle() *taskHandle }); ok && err == nil {
		if h := awaited.handle(); h != nil {
			return &sdk.CallToolResult{StructuredContent: h}
		}
	}
	res := &sdk.CallToolResult{IsError: err != nil}
	if err != nil {
		out = struct {
			Error failure `json:"error"`
		}{s.failureOf(name, err)}
	}
	text, err := json.Marshal(out)
	if err != nil {
		return s.toolResult(name, nil, fmt.Errorf("encode the answer: %w", err))
	}
	res.StructuredContent = json.RawMessage(text)
	res.Content = []sdk.Content{&sdk.TextContent{Text: string(text)}}
	return res
}

// failure is an error as clients get it.
type failure struct {
	Code         string `json:"code"`
	Message      string `json:"message"`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty"`
}

// failureOf says what went wrong. The text of an internal error stays in the log.
func (s *Server) failureOf(what string, err error) failure {
	f := failure{Code: codeOf(err), Message: strings.ToValidUTF8(err.Error(), "\uFFFD")}
	if f.Code == codeInternal {
		s.log.Error("request failed", "mcp", what, "error", err)
		f.Message = "the server's log has the details"
	}
	var own *vectord.Error
	if errors.As(err, &own) {
		f.RetryAfterMS = own.RetryAfter.Milliseconds()
	}
	return f
}

const codeInternal = "internal"

// codeOf names an error as the HTTP API does.
func codeOf(err error) string {
	var denied *access.Denial
	if errors.As(err, &denied) {
		if denied.Kind == access.Forbidden {
			return "forbidden"
		}
		return "unauthenticated"
	}
	if code := vectord.CodeOf(err); code != "" {
		return string(code)
	}
	switch vectord.KindOf(err) {
	case vectord.KindInvalid, vectord.KindUnprocessable, vectord.KindUnsupported, vectord.KindLimited:
		return "bad_request"
	case vectord.KindNotFound:
		return "collection_not_found"
	case vectord.KindExists:
		return "already_exists"
	case vectord.KindConflict:
		return "conflict"
	case vectord.KindTooLarge:
		return "payload_too_large"
	case vectord.KindOverloaded:
		return "overloaded"
	case vectord.KindNoMemory, vectord.KindNoSpace:
		return "insufficient_storage"
	case vectord.KindTimeout:
		return "timeout"
	case vectord.KindClosed:
		return "draining"
	}
	return codeInternal
}

// schemas are those of types that are written as other JSON than their Go form suggests.
func schemas() map[reflect.Type]*jsonschema.Schema {
	text := func(format string) *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Format: format} }
	return map[reflect.Type]*jsonschema.Schema{
		reflect.TypeFor[json.RawMessage]():    {},
		reflect.TypeFor[vectord.PointID]():    {Types: []string{"integer", "string"}},
		reflect.TypeFor[vectord.TaskID]():     text("uuid"),
		reflect.TypeFor[vectord.LeaseID]():    text(""),
		reflect.TypeFor[vectord.Timestamp]():  text("date-time"),
		reflect.TypeFor[vectord.Datetime]():   text(""),
		reflect.TypeFor[vectord.Admission]():  text(""),
		reflect.TypeFor[vectord.Distance]():   {Type: "string", Enum: []any{"Cosine", "Dot", "Euclid", "Manhattan"}},
		reflect.TypeFor[vectord.TaskStatus](): text(""),
		reflect.TypeFor[vectord.Filter]():     {Type: "object"},
	}
}

func schemaFor[T any](name string) *jsonschema.Schema {
	schema, err := jsonschema.For[T](&jsonschema.ForOptions{TypeSchemas: schemas()})
	if err != nil {
		panic(fmt.Sprintf("the schema of %s: %v", name, err))
	}
	return schema
}

// inputSchema describes the arguments of a tool.
func inputSchema[In any](spec *toolSpec) *jsonschema.Schema {
	schema := schemaFor[In](spec.name)
	schema.Required = spec.required
	for name, text := range spec.arguments {
		schema.Properties[name].Description = text // a name that is not there is a panic
	}
	for name, property := range schema.Properties {
		// nil is how Go says that something is missing; clients leave it out.
		property.Types = slices.DeleteFunc(property.Types, func(t string) bool { return t == "null" })
		if len(property.Types) == 1 {
			property.Type, property.Types = property.Types[0], nil
		}
		if property.Description == "" {
			panic(fmt.Sprintf("the argument %s of %s has no description", name, spec.name))
		}
	}
	return schema
}

// outputSchema describes the answer of a tool: what Out has, or an error in its place.
func outputSchema[Out any](name string) *jsonschema.Schema {
	schema := schemaFor[Out](name)
	schema.AnyOf = []*jsonschema.Schema{{Required: schema.Required}, {Required: []string{"error"}}}
	schema.Required = nil
	schema.Properties = maps.Clone(schema.Properties)
	schema.Properties["error"] = schemaFor[failure](name)
	schema.PropertyOrder = nil
	return schema
}
