package mcpserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"strings"
	"sync"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord/internal/access"
)

// MaxMessageBytes bounds a message over stdin.
const MaxMessageBytes = 32 << 20

// RunStdio answers the requests that come over in, one a line, as those of one who may do everything, until in or ctx ends.
func (s *Server) RunStdio(ctx context.Context, in io.Reader, out io.Writer) error {
	caller, err := s.authorizer.Authenticate("") // there are no keys, so everybody is let in
	if err != nil {
		return err
	}
	b := &Bridge{URL: "http://localhost", Client: &http.Client{Transport: within{s, caller}}, Logger: s.log}
	return b.Run(ctx, in, out)
}

// within is an http.RoundTripper that asks a server of this process.
type within struct {
	server *Server
	caller access.Caller
}

// RoundTrip implements http.RoundTripper.
func (w within) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := &answer{header: http.Header{}, status: http.StatusOK}
	w.server.HandleHTTP(answer, r, w.caller)
	return &http.Response{StatusCode: answer.status, Status: http.StatusText(answer.status), Header: answer.header, Body: io.NopCloser(&answer.body), Request: r}, nil
}

// answer is an http.ResponseWriter that keeps the answer.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.header }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }
func (a *answer) Flush()                      {}

// Bridge passes on what a client says over stdin to the endpoint of a running server, and the answers back. It keeps nothing but
// the revision of the protocol that a client with sessions has agreed on.
type Bridge struct {
	URL    string // of the server
	Key    string // that it asks for; empty: none
	Client *http.Client
	Logger *slog.Logger
}

// maxInFlight bounds the requests that a Bridge has under way.
const maxInFlight = 64

// Run passes on the lines of in until in or ctx ends, and returns when all of them are answered.
func (b *Bridge) Run(ctx context.Context, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &bridging{Bridge: b, out: out, under: map[string]context.CancelFunc{}, slots: make(chan struct{}, maxInFlight)}
	lines, failed := make(chan []byte), make(chan error, 1)
	go func() { // it may outlive Run: there is no interrupting a read of stdin
		defer close(lines)
		scanner := bufio.NewScanner(in)
		scanner.Buffer(nil, MaxMessageBytes)
		for scanner.Scan() {
			select {
			case lines <- bytes.Clone(scanner.Bytes()):
			case <-ctx.Done():
				return
			}
		}
		failed <- scanner.Err()
	}()
	defer r.running.Wait()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			r.take(ctx, line)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// bridging is a Bridge at work.
type bridging struct {
	*Bridge
	running sync.WaitGroup
	slots   chan struct{}

	mu       sync.Mutex // guards the rest
	out      io.Writer
	revision string                        // that was agreed on; empty for clients without sessions
	under    map[string]context.CancelFunc // requests under way, by id
}

// message is what a Bridge reads of a message of JSON-RPC.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Name      string                     `json:"name"`
		URI       string                     `json:"uri"`
		TaskID    string                     `json:"taskId"`
		RequestID json.RawMessage            `json:"requestId"`
		Meta      map[string]json.RawMessage `json:"_meta"`
	} `json:"params"`
}

// name is the value of the header Mcp-Name.
func (m *message) name() string {
	switch m.Method {
	case "tools/call", "prompts/get":
		return m.Params.Name
	case "resources/read":
		return m.Params.URI
	case "tasks/get", "tasks/update", "tasks/cancel":
		return m.Params.TaskID
	}
	return ""
}

// take passes on one line. Only the first request of a session is waited for, as those that follow depend on its answer.
func (r *bridging) take(ctx context.Context, line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		r.fail(&message{ID: json.RawMessage("null")}, fmt.Errorf("the line is not a message: %w", err))
		return
	}
	if m.Method == "notifications/cancelled" {
		r.mu.Lock()
		if cancel := r.under[string(m.Params.RequestID)]; cancel != nil {
			cancel()
		}
		r.mu.Unlock()
		return
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	if m.ID != nil {
		r.mu.Lock()
		r.under[string(m.ID)] = cancel
		r.mu.Unlock()
	}
	pass := func() {
		if err := r.pass(ctx, &m, line); err != nil && ctx.Err() == nil {
			r.fail(&m, err)
		}
		cancel()
		r.mu.Lock()
		delete(r.under, string(m.ID))
		r.mu.Unlock()
		<-r.slots
	}
	if m.Method == "initialize" {
		pass()
		return
	}
	r.running.Go(pass)
}

// pass sends a message and writes the answer.
func (r *bridging) pass(ctx context.Context, m *message, line []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimRight(r.URL, "/")+"/mcp", bytes.NewReader(line))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	if r.Key != "" {
		req.Header.Set("Api-Key", r.Key)
	}
	r.mu.Lock()
	revision := r.revision
	r.mu.Unlock()
	if own, ok := m.Params.Meta[sdk.MetaKeyProtocolVersion]; ok && json.Unmarshal(own, &revision) != nil {
		return errors.New("the revision of the protocol is not a string")
	}
	if revision != "" {
		req.Header.Set("MCP-Protocol-Version", revision)
	}
	if m.Method != "" {
		req.Header.Set("Mcp-Method", m.Method)
	}
	if name := m.name(); name != "" {
		req.Header.Set("Mcp-Name", name)
	}
	resp, err := r.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/event-stream" {
		return r.passEvents(resp.Body)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var answer struct {
		JSONRPC string `json:"jsonrpc"`
		Result  struct {
			ProtocolVersion string `json:"protocolVersion"`
		} `json:"result"`
	}
	isAnswer := json.Unmarshal(body, &answer) == nil && answer.JSONRPC != "" || bytes.HasPrefix(body, []byte("["))
	switch {
	case isAnswer:
		if m.Method == "initialize" {
			r.mu.Lock()
			r.revision = answer.Result.ProtocolVersion
			r.mu.Unlock()
		}
		return r.write(body)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("the server answers %s: %s", resp.Status, bytes.TrimSpace(body))
	case len(bytes.TrimSpace(body)) > 0:
		return fmt.Errorf("the server's answer is not a message: %.200s", body)
	}
	return nil
}

// passEvents writes the messages of a stream of events.
func (r *bridging) passEvents(body io.Reader) error {
	scanner := bufio.NewScanner(body)
	scanner.Buffer(nil, MaxMessageBytes)
	for scanner.Scan() {
		if data, ok := bytes.CutPrefix(scanner.Bytes(), []byte("data:")); ok {
			if err := r.write(data); err != nil {
				return err
			}
		}
	}
	return scanner.Err()
}

// write writes a message as one line.
func (r *bridging) write(text []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return fmt.Errorf("the server's answer is not a message: %w", err)
	}
	line.WriteByte('\n')
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.out.Write(line.Bytes())
	return err
}

// fail answers a request with an error, and has the log tell of one about a notification.
func (r *bridging) fail(m *message, err error) {
	if m.ID == nil {
		r.Logger.Warn("a notification was not passed on", "method", m.Method, "error", err)
		return
	}
	type rpcError struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	text, failed := json.Marshal(struct {
		JSONRPC string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Error   rpcError        `json:"error"`
	}{"2.0", m.ID, rpcError{codeServerError, err.Error()}})
	if failed == nil {
		failed = r.write(text)
	}
	if failed != nil {
		r.Logger.Error("an answer was not written", "error", failed)
	}
}
