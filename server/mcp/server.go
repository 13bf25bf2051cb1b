// Package mcpserver lets agents use vectord by the Model Context Protocol: it offers collections, tasks and agents as tools and
// resources, over HTTP as a handler for package server, or over stdin and stdout, by way of the same handler.
//
// Both eras of the protocol are spoken, that of sessions and that without (2026-07-28). Nothing is kept between requests but
// what the engine and the scheduler keep, so any request may go to any node. A client that declares the extension
// io.modelcontextprotocol/tasks gets a handle of a task that it would have to wait for; the handle is the task's own id.
//
// Every tool declares in its toolSpec which permission it needs and for what, as routes do. Who calls is part of the context
// (see visit); a call without is refused.
package mcpserver

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// Engine keeps the points. Its methods are those of server.Engine.
type Engine interface {
	CreateCollection(ctx context.Context, name string, config vectord.CollectionConfig) error
	Collections() []string // sorted, no aliases
	CollectionInfo(name string) (vectord.CollectionInfo, error)
	ResolveAlias(name string) string
	Count(ctx context.Context, collection string, f *vectord.Filter) (int, error)
	Write(ctx context.Context, collection string, ops []vectord.Operation, o vectord.WriteOptions) ([]vectord.UpdateResult, error)
	Search(ctx context.Context, collection string, q vectord.Query) ([]vectord.Hit, error)
	StoreMemories(ctx context.Context, collection string, memories []vectord.Memory, dedup *vectord.MemoryDedup, o vectord.WriteOptions) ([]vectord.MemoryResult, error)
	SearchMemories(ctx context.Context, collection string, q vectord.MemoryQuery) ([]vectord.MemoryHit, error)
}

// Scheduler keeps tasks and agents. Its methods are those of server.Scheduler.
type Scheduler interface {
	Queue(name string) (vectord.QueueInfo, error)
	Submit(ctx context.Context, queue string, tasks []vectord.NewTask) ([]vectord.Submitted, error)
	Lease(ctx context.Context, r vectord.LeaseRequest) ([]vectord.Task, error)
	Call(ctx context.Context, calls []vectord.TaskCall) ([]vectord.CallOutcome, error)
	Cancel(ctx context.Context, id vectord.TaskID) (vectord.Task, error)
	GiveInput(ctx context.Context, id vectord.TaskID, response []byte) (vectord.Task, error)
	Task(id vectord.TaskID) (vectord.Task, error)
	TaskResult(ctx context.Context, id vectord.TaskID) (vectord.Task, error)
	Decisions(id vectord.TaskID) ([]vectord.Decision, error)
	RegisterAgent(ctx context.Context, id string, config vectord.AgentConfig) error
	Agent(id string) (vectord.Agent, error)
	Agents() []vectord.Agent // by id
	Route(ctx context.Context, r vectord.RouteRequest) (vectord.Decision, error)
	States
}

// Options say what a Server offers besides its engine.
type Options struct {
	Scheduler Scheduler         // nil: no tasks and agents
	Tools     func(*sdk.Server) // adds further tools; nil: none
	Version   string            // of this build; empty means vectord.Version
	Logger    *slog.Logger      // nil means slog.Default()
}

// Server answers MCP requests. Its methods may be called at the same time.
type Server struct {
	engine     Engine
	tasks      Scheduler
	authorizer *access.Authorizer // for the rights of callers, not for their keys
	sdk        *sdk.Server
	http       *sdk.StreamableHTTPHandler
	log        *slog.Logger
}

const instructions = `vectord keeps vectors with payloads, memories of agents, and a queue of tasks that are routed to the agents most capable of them.
A caller submits tasks with submit_task. An agent calls register_agent once, lease_tasks in a loop, and complete_task or fail_task with the lease_id it was given.`

// New returns a server of e.
func New(e Engine, o Options) *Server {
	s := &Server{engine: e, tasks: o.Scheduler, authorizer: access.New(access.Keys{}, e), log: o.Logger}
	if s.log == nil {
		s.log = slog.Default()
	}
	if o.Version == "" {
		o.Version = vectord.Version
	}
	// What is offered does not change while the server runs, so there is no listChanged.
	capabilities := &sdk.ServerCapabilities{Tools: &sdk.ToolCapabilities{}, Resources: &sdk.ResourceCapabilities{}}
	if s.tasks != nil {
		capabilities.Extensions = map[string]any{tasksExtension: struct{}{}}
	}
	s.sdk = sdk.NewServer(&sdk.Implementation{Name: "vectord", Title: "vectord", Version: o.Version},
		&sdk.ServerOptions{Instructions: instructions, Capabilities: capabilities, SetCacheable: setCacheable})
	s.sdk.AddReceivingMiddleware(s.receive)
	s.addCollectionTools()
	s.addMemoryTools()
	s.addResources()
	if s.tasks != nil {
		s.addTaskTools()
		s.addAgentTools()
		s.addTasksExtension()
	}
	if o.Tools != nil {
		o.Tools(s.sdk)
	}
	// Package server has looked at the header Origin, which every browser sends with a POST. The SDK's own check, of Host, would
	// refuse requests that come through a proxy on this machine.
	s.http = sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s.sdk }, &sdk.StreamableHTTPOptions{
		Stateless: true, JSONResponse: true, DisableLocalhostProtection: true, MaxRequestBodyBytes: -1})
	return s
}

// HandleHTTP answers a request to the endpoint of streamable HTTP. The body is bounded by whoever calls.
func (s *Server) HandleHTTP(w http.ResponseWriter, r *http.Request, caller access.Caller) {
	v := &visit{caller: caller, request: r.Context()}
	s.http.ServeHTTP(w, r.WithContext(v.in(r.Context())))
}

// visit is who calls, and what the call may take.
type visit struct {
	caller        access.Caller
	request       context.Context // ends when nobody waits for the answer any more
	declaresTasks bool            // the client understands the extension of tasks
}

type visitKey struct{}

func (v *visit) in(ctx context.Context) context.Context { return context.WithValue(ctx, visitKey{}, v) }

// visitOf returns the visit that ctx belongs to; that of a caller who may do nothing if there is none.
func visitOf(ctx context.Context) *visit {
	if v, ok := ctx.Value(visitKey{}).(*visit); ok {
		return v
	}
	return &visit{request: ctx}
}

// answerWithin is what is left of a request's time for its answer when a tool stops waiting.
const answerWithin = 500 * time.Millisecond

// notOffered are the methods of what the server does not declare.
var notOffered = map[string]bool{"prompts/list": true, "prompts/get": true, "completion/complete": true, "logging/setLevel": true,
	"resources/subscribe": true, "resources/unsubscribe": true}

// receive is the way that all requests take. The SDK keeps the values of a request's context but not its end.
func (s *Server) receive(next sdk.MethodHandler) sdk.MethodHandler {
	return func(ctx context.Context, method string, req sdk.Request) (res sdk.Result, err error) {
		defer func() { // the SDK calls from goroutines of its own, where a panic ends the process
			if p := recover(); p != nil {
				s.log.Error("panic in a handler", "mcp", method, "panic", p, "stack", string(debug.Stack()))
				res, err = nil, s.protocolError(method, fmt.Errorf("panic: %v", p))
			}
		}()
		v := *visitOf(ctx)
		v.declaresTasks = declaresTasks(req.GetParams())
		ctx, cancel := context.WithCancel(v.in(ctx))
		defer cancel()
		defer context.AfterFunc(v.request, cancel)()
		if deadline, ok := v.request.Deadline(); ok {
			ctx, cancel = context.WithDeadline(ctx, deadline.Add(-answerWithin))
			defer cancel()
		}
		if method == "subscriptions/listen" {
			// Nothing that is offered changes, so there is nothing to be told: the subscription ends once it is acknowledged.
			cancel()
		}
		if notOffered[method] { // the SDK has an empty answer for these
			return nil, &jsonrpc.Error{Code: jsonrpc.CodeMethodNotFound, Message: method + " is not offered"}
		}
		if err := s.checkTaskRequest(ctx, method, req); err != nil {
			return nil, err
		}
		res, err = next(ctx, method, req)
		if err != nil {
			return nil, err
		}
		return s.resolveHandle(ctx, res)
	}
}

// setCacheable says that nobody but the caller may keep what was read, which depends on the caller's rights and changes at any
// time. What is offered is the same for all and as long as the server runs.
func setCacheable(_ context.Context, req sdk.Request, c *sdk.Cacheable) {
	const listsForMillis = 60_000
	if _, read := req.(*sdk.ReadResourceRequest); read {
		c.TTLMs, c.CacheScope = 0, "private"
		return
	}
	c.TTLMs, c.CacheScope = listsForMillis, "public"
}
