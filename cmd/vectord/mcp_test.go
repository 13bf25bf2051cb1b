package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vectord/vectord/internal/node"
)

// TestMCP checks that stdout has the protocol's answers and nothing else, and that a directory in use is refused with advice.
func TestMCP(t *testing.T) {
	dir := t.TempDir()
	speak := func() (code int, stdout, stderr string) {
		var out, errs bytes.Buffer
		in := strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}
{"jsonrpc":"2.0","method":"notifications/initialized"}
{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"submit_task","arguments":{"queue":"q"}}}
`)
		code = run(&session{t.Context(), in, &out, &errs}, []string{"mcp", "--data-dir", dir}, nil)
		return code, out.String(), errs.String()
	}
	code, stdout, stderr := speak()
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != exitOK || stderr != "" || len(lines) != 2 || !strings.Contains(lines[0], `"protocolVersion":"2025-11-25"`) || !strings.Contains(lines[1], `"status":"queued"`) {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}

	n, err := node.Open(node.Config{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if code, stdout, stderr := speak(); code != exitError || stdout != "" || !strings.Contains(stderr, "--url") {
		t.Errorf("in use: exit code %d\n%s%s", code, stdout, stderr)
	}
}
