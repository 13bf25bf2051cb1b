package mcpserver

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

const (
	collectionURI = "vectord://collections/"
	taskURI       = "vectord://tasks/"
	agentsURI     = "vectord://agents"
	jsonType      = "application/json"
)

func (s *Server) addResources() {
	s.sdk.AddResourceTemplate(&sdk.ResourceTemplate{Name: "collection", URITemplate: collectionURI + "{name}", MIMEType: jsonType,
		Description: "A collection: its points, vectors and status"}, s.resource(func(ctx context.Context, name string) (any, error) {
		name, err := s.authorizeCollection(ctx, name, access.Read)
		if err != nil {
			return nil, err
		}
		return s.describeCollection(name)
	}))
	if s.tasks == nil {
		return
	}
	s.sdk.AddResourceTemplate(&sdk.ResourceTemplate{Name: "task", URITemplate: taskURI + "{id}", MIMEType: jsonType,
		Description: "A task as it stands"}, s.resource(func(ctx context.Context, text string) (any, error) {
		if err := s.authorizeServer(ctx, access.Read); err != nil {
			return nil, err
		}
		id, err := vectord.ParseTaskID(text)
		if err != nil {
			return nil, vectord.Refuse(vectord.KindNotFound, vectord.CodeTaskNotFound, "%v", err)
		}
		t, err := s.tasks.Task(id)
		return outOf(t), err
	}))
	s.sdk.AddResource(&sdk.Resource{Name: "agents", URI: agentsURI, MIMEType: jsonType, Description: "The agents with their status and load, the first 100 by id"},
		s.resource(func(ctx context.Context, _ string) (any, error) {
			if err := s.authorizeServer(ctx, access.Read); err != nil {
				return nil, err
			}
			return s.listAgents(ctx, listAgentsIn{})
		}))
}

// authorizeServer checks a permission for all that the server has.
func (s *Server) authorizeServer(ctx context.Context, needs access.Permission) error {
	_, err := s.authorizer.Authorize(&visitOf(ctx).caller, needs, access.ScopeServer, "")
	return err
}

// resource returns what reads a resource; read gets the last part of its URI.
func (s *Server) resource(read func(ctx context.Context, name string) (any, error)) sdk.ResourceHandler {
	return func(ctx context.Context, req *sdk.ReadResourceRequest) (*sdk.ReadResourceResult, error) {
		uri := req.Params.URI
		name, err := url.PathUnescape(uri[strings.LastIndexByte(uri, '/')+1:])
		if err != nil {
			return nil, sdk.ResourceNotFoundError(uri)
		}
		value, err := read(ctx, name)
		if err != nil {
			if vectord.KindOf(err) == vectord.KindNotFound {
				return nil, sdk.ResourceNotFoundError(uri)
			}
			return nil, s.protocolError(uri, err)
		}
		text, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		return &sdk.ReadResourceResult{Contents: []*sdk.ResourceContents{{URI: uri, MIMEType: jsonType, Text: string(text)}}}, nil
	}
}

// codeServerError is the first of the codes that JSON-RPC leaves to servers.
const codeServerError = -32000

// protocolError is an error where there is no tool result to carry it.
func (s *Server) protocolError(what string, err error) error {
	f := s.failureOf(what, err)
	data, err := json.Marshal(f)
	if err != nil {
		return err
	}
	code := int64(codeServerError)
	switch f.Code {
	case codeInternal:
		code = jsonrpc.CodeInternalError
	case "bad_request", string(vectord.CodeTaskNotFound):
		code = jsonrpc.CodeInvalidParams
	}
	return &jsonrpc.Error{Code: code, Message: f.Message, Data: data}
}
