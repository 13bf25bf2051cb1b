package pool

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// helperVariable makes the test binary a process of a pool, or a server with one; its value says how it behaves.
const helperVariable = "POOL_TEST_HELPER"

// markerVariable is in the environment of the processes of one test, and of what they start.
const markerVariable = "POOL_TEST"

// forever is how long a helper hangs that is to be killed.
const forever = time.Hour

func TestMain(m *testing.M) {
	switch mode := os.Getenv(helperVariable); {
	case mode == "":
		os.Exit(m.Run())
	case mode == "server":
		helperServer()
	case strings.HasPrefix(mode, "mcp"):
		helperMCP(mode)
	default:
		helperWorker(mode)
	}
}

// helperServer runs a pool of three workers, whose mode and marker are its arguments, until it is killed.
func helperServer() {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	s, err := New(Options{Tasks: newMemory(), Dir: os.Args[3], Pools: []Definition{{Name: "p", Command: self, Queues: []string{"q"}, MinSize: 3, MaxSize: 3,
		WarmupIntervalMS: 1, Env: map[string]string{helperVariable: os.Args[1], markerVariable: os.Args[2]}}}})
	if err != nil {
		panic(err)
	}
	for s.Pools()[0].Ready < 3 {
		time.Sleep(time.Millisecond)
	}
	fmt.Println("ready")
	time.Sleep(forever)
}

// message is what helpers read.
type message struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		Task struct {
			ID      string          `json:"task_id"`
			Attempt int             `json:"attempt"`
			Payload json.RawMessage `json:"payload"`
		} `json:"task"`
		TaskID    string                     `json:"task_id"`
		Name      string                     `json:"name"`
		Arguments json.RawMessage            `json:"arguments"`
		Meta      map[string]json.RawMessage `json:"_meta"`
	} `json:"params"`
}

func answer(id json.RawMessage, result string) {
	fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":%s}`+"\n", id, result)
}

func refuse(id json.RawMessage, code int, text, data string) {
	fmt.Printf(`{"jsonrpc":"2.0","id":%s,"error":{"code":%d,"message":%q,"data":%s}}`+"\n", id, code, text, data)
}

// helperWorker is a worker that does what its tasks' payloads say.
func helperWorker(mode string) {
	switch mode {
	case "crash_at_start":
		os.Exit(3)
	case "silent":
		time.Sleep(forever)
	case "stubborn", "fork":
		signal.Ignore(syscall.SIGTERM)
	}
	if mode == "fork" { // two children that would outlive it
		for range 2 {
			child := exec.Command("sleep", "3600")
			child.Stdout, child.Stderr = os.Stdout, os.Stderr // and that hold the pipes
			child.Start()
		}
	}
	fmt.Fprintln(os.Stderr, "worker", os.Getenv(agentVariable))
	waiting := map[string]json.RawMessage{} // ids of requests by tasks
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			break
		}
		var m message
		if err := json.Unmarshal(line, &m); err != nil {
			panic(err)
		}
		switch m.Method {
		case "initialize":
			answer(m.ID, `{"name":"helper","capacity":4,"capabilities":["help"]}`)
			if mode == "deaf" {
				time.Sleep(forever)
			}
		case "ping":
			answer(m.ID, `{}`)
		case "task/cancel":
			if id := waiting[m.Params.TaskID]; id != nil {
				refuse(id, 1, "cancelled", "null")
			}
		case "task/run":
			work(m, waiting)
		}
	}
	if mode == "stubborn" {
		time.Sleep(forever)
	}
}

func work(m message, waiting map[string]json.RawMessage) {
	var payload struct {
		Do   string `json:"do"`
		Text string `json:"text"`
	}
	json.Unmarshal(m.Params.Task.Payload, &payload)
	switch payload.Do {
	case "crash":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "crash_once":
		if m.Params.Task.Attempt == 1 {
			os.Exit(1)
		}
		answer(m.ID, `"second"`)
	case "wait": // for a cancellation
		waiting[m.Params.Task.ID] = m.ID
	case "hang":
		time.Sleep(forever)
	case "noise":
		fmt.Println("Loading model...")
		answer(m.ID, `"after noise"`)
	case "much_noise":
		for range 10 * noiseLinesMax {
			fmt.Println("noise")
		}
		time.Sleep(forever)
	case "long_line":
		chunk := strings.Repeat("x", 1<<20)
		for range 5 {
			fmt.Print(chunk)
		}
		time.Sleep(forever)
	case "large":
		answer(m.ID, `"`+strings.Repeat("x", 2<<20)+`"`)
	case "error":
		refuse(m.ID, 7, payload.Text, `{"code":"no_luck","final":true}`)
	case "progress":
		fmt.Printf(`{"jsonrpc":"2.0","method":"task/progress","params":{"task_id":%q,"progress":{"done":0.5}}}`+"\n", m.Params.Task.ID)
		waiting[m.Params.Task.ID] = m.ID
	case "env":
		encoded, _ := json.Marshal(os.Environ())
		answer(m.ID, string(encoded))
	default:
		answer(m.ID, string(m.Params.Task.Payload))
	}
}

// helperMCP is an MCP server: of the later revision (mcp_stateless), of the earlier one (mcp_sessions), or an earlier one that ends
// when it is asked something else first (mcp_strict).
func helperMCP(mode string) {
	in := bufio.NewScanner(os.Stdin)
	initialized := false
	for in.Scan() {
		var m message
		if err := json.Unmarshal(in.Bytes(), &m); err != nil {
			panic(err)
		}
		stateless := mode == "mcp_stateless"
		var version string
		json.Unmarshal(m.Params.Meta[mcpMeta+"protocolVersion"], &version)
		switch {
		case mode == "mcp_strict" && !initialized && m.Method != "initialize":
			os.Exit(1)
		case m.ID == nil:
		case stateless && version != mcpStateless:
			refuse(m.ID, -32022, "the request does not name its revision", "null")
		case stateless && m.Method == "server/discover":
			answer(m.ID, `{"supportedVersions":["2026-07-28"],"capabilities":{"tools":{}},"resultType":"complete"}`)
		case !stateless && m.Method == "initialize":
			initialized = true
			answer(m.ID, `{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"serverInfo":{"name":"helper","version":"1"}}`)
		case m.Method == "tools/list":
			answer(m.ID, `{"tools":[{"name":"shout","description":"Makes text loud."},{"name":"fail","description":"Fails."}]}`)
		case m.Method == "tools/call" && m.Params.Name == "shout":
			fmt.Printf(`{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%s,"progress":1,"total":2}}`+"\n", m.Params.Meta["progressToken"])
			var arguments struct{ Text string }
			json.Unmarshal(m.Params.Arguments, &arguments)
			loud, _ := json.Marshal(strings.ToUpper(arguments.Text))
			answer(m.ID, fmt.Sprintf(`{"content":[{"type":"text","text":%s}],"structuredContent":{"loud":%s}}`, loud, loud))
		case m.Method == "tools/call" && m.Params.Name == "fail":
			answer(m.ID, `{"content":[{"type":"text","text":"out of luck"}],"isError":true}`)
		case m.Method == "tools/call":
			refuse(m.ID, rpcInvalidParams, "unknown tool "+m.Params.Name, "null")
		default:
			refuse(m.ID, rpcMethodNotFound, "unknown method", "null")
		}
	}
}
