package mcpserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord/server"
	mcpserver "github.com/vectord/vectord/server/mcp"
)

// bridge passes lines on to a server and returns the answers by their ids.
func bridge(t *testing.T, url, key string, lines ...string) map[string]string {
	t.Helper()
	var out bytes.Buffer
	b := &mcpserver.Bridge{URL: url, Key: key, Client: http.DefaultClient, Logger: slog.New(slog.DiscardHandler)}
	if err := b.Run(t.Context(), strings.NewReader(strings.Join(lines, "\n")), &out); err != nil {
		t.Fatal(err)
	}
	answers := map[string]string{}
	for line := range strings.Lines(out.String()) {
		var m struct {
			ID json.RawMessage `json:"id"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("%q is no message: %v", line, err)
		}
		answers[string(m.ID)] = line
	}
	return answers
}

// TestBridge checks that everything said before the end of stdin is answered, one line each, and what is wrong too.
func TestBridge(t *testing.T) {
	s, m, _ := newServer(t)
	url := strings.TrimSuffix(serve(t, m, s, server.Options{APIKey: "secret"}), "/mcp")
	f := func(answers map[string]string, want map[string]string) {
		t.Helper()
		if len(answers) != len(want) {
			t.Errorf("%d answers, want %d: %v", len(answers), len(want), answers)
		}
		for id, part := range want {
			if !strings.Contains(answers[id], part) {
				t.Errorf("answer %s is %q, want %q in it", id, answers[id], part)
			}
		}
	}
	const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`
	const list = `{"jsonrpc":"2.0","id":"two","method":"tools/call","params":{"name":"list_collections"}}`
	f(bridge(t, url, "secret", initialize, `{"jsonrpc":"2.0","method":"notifications/initialized"}`, "", list, `{"jsonrpc":"2.0","id":3,"method":"no/such"}`, "nonsense"),
		map[string]string{"1": `"2025-06-18"`, `"two"`: `"collections":[]`, "3": `"error"`, "null": `not a message`})
	f(bridge(t, url+"/", "wrong", initialize, list), map[string]string{"1": "401", `"two"`: "401"})
	f(bridge(t, "http://127.0.0.1:1", "", list), map[string]string{`"two"`: "refused"})
	f(bridge(t, url, "secret", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_collections","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",`+
		`"io.modelcontextprotocol/clientCapabilities":{}}}}`), map[string]string{"1": `"resultType":"complete"`})
}

// TestBridgeCancels checks that a request ends when the client says that it does not wait any more.
func TestBridgeCancels(t *testing.T) {
	s, m, _ := newServer(t)
	url := serve(t, m, s, server.Options{})
	h := remote(t, url, "", sessionless, nil)
	h.ok("register_agent", `{"agent_id":"a","queues":["q"]}`, nil)
	ourIn, theirOut := io.Pipe()
	theirIn, ourOut := io.Pipe()
	b := &mcpserver.Bridge{URL: strings.TrimSuffix(url, "/mcp"), Client: http.DefaultClient, Logger: slog.New(slog.DiscardHandler)}
	ended := make(chan error, 1)
	go func() { ended <- b.Run(t.Context(), ourIn, ourOut) }()
	go io.Copy(io.Discard, theirIn)
	for _, line := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"lease_tasks","arguments":{"agent_id":"a","wait_ms":30000}}}`,
		`{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}`,
	} {
		if _, err := io.WriteString(theirOut, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	theirOut.Close()
	if err := <-ended; err != nil { // and not after 30 s, which is more than the test has
		t.Error(err)
	}
}

// TestCancelled checks that a tool of a server in this process stops waiting when it is cancelled.
func TestCancelled(t *testing.T) {
	s, _, _ := newServer(t)
	h := local(t, s, sessions, nil)
	h.ok("register_agent", `{"agent_id":"a","queues":["q"]}`, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.session.CallTool(ctx, &sdk.CallToolParams{Name: "lease_tasks", Arguments: map[string]any{"agent_id": "a", "wait_ms": 30000}}); err == nil {
		t.Error("a call that was cancelled has an answer")
	}
}
