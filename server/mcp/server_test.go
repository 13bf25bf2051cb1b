package mcpserver_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/token"
	"github.com/vectord/vectord/server"
	mcpserver "github.com/vectord/vectord/server/mcp"
	"github.com/vectord/vectord/server/mcp/mcptest"
)

var _ mcpserver.Scheduler = (*mcptest.Scheduler)(nil)

const (
	sessions    = "2025-11-25" // the last revision with sessions
	sessionless = "2026-07-28"
)

// harness is a client connected to a server.
type harness struct {
	t       *testing.T
	session *sdk.ClientSession
	tools   map[string]*sdk.Tool
}

func newServer(t *testing.T) (*mcpserver.Server, *model.Model, *mcptest.Scheduler) {
	t.Helper()
	m, s := model.New(), mcptest.New()
	return mcpserver.New(m, mcpserver.Options{Scheduler: s, Logger: slog.New(slog.DiscardHandler)}), m, s
}

func connect(t *testing.T, transport sdk.Transport, revision string, o *sdk.ClientOptions) *harness {
	t.Helper()
	client := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, o)
	for _, err := range []error{
		sdk.AddSendingCustomMethod[*taskParams, *taskState](client, "tasks/get"),
		sdk.AddSendingCustomMethod[*taskParams, *taskState](client, "tasks/update"),
		sdk.AddSendingCustomMethod[*taskParams, *taskState](client, "tasks/cancel"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	session, err := client.Connect(t.Context(), transport, &sdk.ClientSessionOptions{ProtocolVersion: revision})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { session.Close() })
	h := &harness{t: t, session: session, tools: map[string]*sdk.Tool{}}
	for tool, err := range session.Tools(t.Context(), nil) {
		if err != nil {
			t.Fatal(err)
		}
		h.tools[tool.Name] = tool
	}
	return h
}

// local connects by stdin and stdout, or what stands for them.
func local(t *testing.T, s *mcpserver.Server, revision string, o *sdk.ClientOptions) *harness {
	t.Helper()
	theirIn, ourOut := io.Pipe()
	ourIn, theirOut := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.RunStdio(context.WithoutCancel(t.Context()), ourIn, ourOut) }()
	t.Cleanup(func() { // after the client has closed its side
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return connect(t, &sdk.IOTransport{Reader: theirIn, Writer: theirOut}, revision, o)
}

// serve serves HTTP and returns the URL.
func serve(t *testing.T, m *model.Model, s *mcpserver.Server, o server.Options) string {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	o.MCP = s.HandleHTTP
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.New(m, o)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-served
	})
	return "http://" + ln.Addr().String() + "/mcp"
}

type withKey struct{ key string }

func (k withKey) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("api-key", k.key)
	return http.DefaultTransport.RoundTrip(r)
}

func remote(t *testing.T, url, key, revision string, o *sdk.ClientOptions) *harness {
	t.Helper()
	return connect(t, &sdk.StreamableClientTransport{Endpoint: url, HTTPClient: &http.Client{Transport: withKey{key}}}, revision, o)
}

// call calls a tool, holds the answer against the tool's schema and reads it into out. It returns the error's code.
func (h *harness) call(name, arguments string, out any) (code string) {
	h.t.Helper()
	res, err := h.session.CallTool(h.t.Context(), &sdk.CallToolParams{Name: name, Arguments: json.RawMessage(arguments)})
	if err != nil {
		h.t.Fatalf("%s(%s): %v", name, arguments, err)
	}
	return h.check(name, res, out)
}

func (h *harness) check(name string, res *sdk.CallToolResult, out any) (code string) {
	h.t.Helper()
	if res.StructuredContent == nil {
		h.t.Fatalf("%s answers without structured content", name)
	}
	text := []byte(res.Content[0].(*sdk.TextContent).Text) // the same, and the client has not made floats of its numbers
	var schema jsonschema.Schema
	declared, _ := json.Marshal(h.tools[name].OutputSchema)
	if err := json.Unmarshal(declared, &schema); err != nil {
		h.t.Fatalf("schema of %s: %v", name, err)
	}
	resolved, err := schema.Resolve(nil)
	if err != nil {
		h.t.Fatalf("schema of %s: %v", name, err)
	}
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		h.t.Fatal(err)
	}
	if err := resolved.Validate(value); err != nil {
		h.t.Errorf("%s answers %s, which its schema does not allow: %v", name, text, err)
	}
	var failed struct {
		Error struct{ Code, Message string }
	}
	if res.IsError {
		if err := json.Unmarshal(text, &failed); err != nil || failed.Error.Code == "" || failed.Error.Message == "" {
			h.t.Errorf("%s: error %s: %v", name, text, err)
		}
		return failed.Error.Code
	}
	if out != nil {
		if err := json.Unmarshal(text, out); err != nil {
			h.t.Fatalf("%s: %s: %v", name, text, err)
		}
	}
	return ""
}

func (h *harness) ok(name, arguments string, out any) {
	h.t.Helper()
	if code := h.call(name, arguments, out); code != "" {
		h.t.Errorf("%s(%s): %s", name, arguments, code)
	}
}

func TestTools(t *testing.T) {
	s, _, _ := newServer(t)
	h := local(t, s, sessionless, nil)
	want := strings.Fields("cancel_task complete_task create_collection explain_route fail_task get_task lease_tasks list_agents " +
		"list_collections register_agent search_memories search_points store_memory submit_task upsert_points")
	var got []string
	for name, tool := range h.tools {
		got = append(got, name)
		if tool.Annotations == nil || tool.Annotations.DestructiveHint == nil || tool.Description == "" || tool.OutputSchema == nil {
			t.Errorf("%s lacks annotations, a description or an output schema", name)
		}
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("tools %v, want %v", got, want)
	}
}

// TestEveryWay calls tools by both revisions of the protocol, within the process and over HTTP.
func TestEveryWay(t *testing.T) {
	for _, revision := range []string{sessions, sessionless} {
		s, m, _ := newServer(t)
		url := serve(t, m, s, server.Options{})
		for i, h := range []*harness{local(t, s, revision, nil), remote(t, url, "", revision, nil)} {
			collection := fmt.Sprintf("c%d", i)
			h.ok("create_collection", `{"collection":"`+collection+`","size":2,"distance":"Dot"}`, nil)
			if got := h.session.InitializeResult().ProtocolVersion; got != revision {
				t.Errorf("the client speaks %s, want %s", got, revision)
			}
			var written struct{ IDs []vectord.PointID }
			h.ok("upsert_points", `{"collection":"`+collection+`","points":[{"id":1,"vector":[1,0],"payload":{"n":9007199254740993}},{"vector":[0,1]}]}`, &written)
			if len(written.IDs) != 2 || written.IDs[0] != vectord.NumberID(1) || !written.IDs[1].IsUUID() {
				t.Errorf("ids %v", written.IDs)
			}
			var found struct {
				Points []struct {
					ID      vectord.PointID
					Score   float64
					Payload json.RawMessage
					Vector  []float32
				}
			}
			h.ok("search_points", `{"collection":"`+collection+`","vector":[2,1],"limit":1,"with_vectors":true}`, &found)
			if len(found.Points) != 1 || found.Points[0].ID != vectord.NumberID(1) || found.Points[0].Score != 2 || len(found.Points[0].Vector) != 2 {
				t.Errorf("found %+v", found)
			}
			h.ok("search_points", `{"collection":"`+collection+`","vector":[0,1],"filter":{"must":[{"key":"n","range":{"gt":1}}]}}`, &found)
			if len(found.Points) != 1 || found.Points[0].ID != vectord.NumberID(1) {
				t.Errorf("found with a filter: %+v", found)
			}
			var list struct{ Collections []struct{ Name string } }
			h.ok("list_collections", `{"limit":1,"after":"c"}`, &list)
			if len(list.Collections) != 1 || list.Collections[0].Name != "c0" {
				t.Errorf("collections %+v", list)
			}
			read, err := h.session.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: "vectord://collections/" + collection})
			if err != nil || !strings.Contains(read.Contents[0].Text, `"points":2`) {
				t.Errorf("resource: %+v, %v", read, err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	s, _, _ := newServer(t)
	h := local(t, s, sessionless, nil)
	h.ok("create_collection", `{"collection":"c","size":2}`, nil)
	f := func(tool, arguments, want string) {
		t.Helper()
		if code := h.call(tool, arguments, nil); code != want {
			t.Errorf("%s(%s): code %q, want %q", tool, arguments, code, want)
		}
	}
	const nobody = `"00000000-0000-7000-8000-000000000099"`
	f("create_collection", `{"collection":"c","size":2}`, "already_exists")
	f("create_collection", `{"collection":"d"}`, "bad_request")
	f("create_collection", `{"collection":"d","size":2,"distance":"Taxi"}`, "bad_request")
	f("create_collection", `{"collection":"a/b","size":2}`, "bad_request")
	f("search_points", `{"collection":"no","vector":[1,2]}`, "collection_not_found")
	f("search_points", `{"collection":"c","vector":[1,2],"text":"x"}`, "bad_request")
	f("search_points", `{"collection":"c","vector":[1,2,3]}`, "bad_request")
	f("search_points", `{"collection":"c","vector":[1,2],"limit":100000}`, "bad_request")
	f("search_points", `{"collection":"c","vector":[1,2],"sort":"up"}`, "bad_request")
	f("upsert_points", `{"collection":"c","points":[{"vector":[1,2],"payload":[1]}]}`, "bad_request")
	f("upsert_points", `{"collection":"c","points":[{"vector":[1,2],"payload":`+strings.Repeat(`{"a":`, 200)+"1"+strings.Repeat("}", 200)+`}]}`, "bad_request")
	f("get_task", `{"task_id":"7"}`, "bad_request")
	f("get_task", `{"task_id":`+nobody+`}`, "task_not_found")
	f("get_task", `{"task_id":`+nobody+`,"wait_ms":60000}`, "bad_request")
	f("lease_tasks", `{"agent_id":"nobody"}`, "agent_not_found")
	f("complete_task", `{"task_id":`+nobody+`,"lease_id":"7"}`, "bad_request")
	f("submit_task", `{"queue":"q","on_dependency_failure":"cry"}`, "bad_request")
	f("explain_route", `{}`, "bad_request")
	for _, uri := range []string{"vectord://collections/no", "vectord://tasks/7", "vectord://tasks/" + strings.Trim(nobody, `"`)} {
		if _, err := h.session.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: uri}); codeOf(err) != jsonrpc.CodeInvalidParams {
			t.Errorf("%s: %v", uri, err)
		}
	}
}

func codeOf(err error) int64 {
	var e *jsonrpc.Error
	if errors.As(err, &e) {
		return e.Code
	}
	return 0
}

// TestRights checks that each tool is open to whom its permission is given, and no other.
func TestRights(t *testing.T) {
	s, m, _ := newServer(t)
	const key = "0123456789abcdef0123456789abcdef"
	url := serve(t, m, s, server.Options{APIKey: key, ReadOnlyAPIKey: "look", JWTRBAC: true})
	for _, name := range []string{"mine", "theirs"} {
		if err := m.CreateCollection(t.Context(), name, vectord.DefaultCollectionConfig(1, vectord.Dot)); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.UpdateAliases(t.Context(), []vectord.AliasAction{{Create: &vectord.Alias{Name: "alias", Collection: "theirs"}}}); err != nil {
		t.Fatal(err)
	}
	own, err := token.Sign(key, &token.Claims{Collections: []token.Collection{{Name: "mine", Access: token.WritePoints}}})
	if err != nil {
		t.Fatal(err)
	}
	all, look, mine := remote(t, url, key, sessionless, nil), remote(t, url, "look", sessions, nil), remote(t, url, own, sessionless, nil)
	f := func(tool, arguments string, mayAll, mayLook, mayMine bool) {
		t.Helper()
		for _, c := range []struct {
			h   *harness
			may bool
		}{{all, mayAll}, {look, mayLook}, {mine, mayMine}} {
			if code := c.h.call(tool, arguments, nil); (code == "") != c.may || code != "" && code != "forbidden" {
				t.Errorf("%s(%s): %q, permitted: %v", tool, arguments, code, c.may)
			}
		}
	}
	const point = `"points":[{"id":1,"vector":[1]}]}`
	f("list_collections", `{}`, true, true, true)
	f("store_memory", `{"collection":"mine","text":"x","vector":[1]}`, true, false, true)
	f("store_memory", `{"collection":"theirs","text":"x","vector":[1]}`, true, false, false)
	f("search_memories", `{"collection":"mine","vector":[1]}`, true, true, true)
	f("search_memories", `{"collection":"mine","vector":[1],"touch":true}`, true, false, true)
	f("search_memories", `{"collection":"theirs","vector":[1]}`, true, true, false)
	f("search_points", `{"collection":"mine","vector":[1]}`, true, true, true)
	f("search_points", `{"collection":"theirs","vector":[1]}`, true, true, false)
	f("search_points", `{"collection":"alias","vector":[1]}`, true, true, false)
	f("upsert_points", `{"collection":"mine",`+point, true, false, true)
	f("upsert_points", `{"collection":"theirs",`+point, true, false, false)
	f("create_collection", `{"collection":"new","size":1}`, true, false, false)
	f("register_agent", `{"agent_id":"a","queues":["q"]}`, true, false, false)
	f("list_agents", `{}`, true, true, false)
	f("submit_task", `{"queue":"q"}`, true, false, false)
	f("lease_tasks", `{"agent_id":"a"}`, true, false, false)
	f("explain_route", `{"queue":"q"}`, true, true, false)

	var list struct{ Collections []struct{ Name string } }
	mine.ok("list_collections", `{}`, &list)
	if len(list.Collections) != 1 || list.Collections[0].Name != "mine" {
		t.Errorf("the token shows %+v", list)
	}
	if _, err := mine.session.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: "vectord://agents"}); err == nil || !strings.Contains(err.Error(), "permit") {
		t.Errorf("agents by the token: %v", err)
	}
	client := sdk.NewClient(&sdk.Implementation{Name: "stranger", Version: "1"}, nil)
	if _, err := client.Connect(t.Context(), &sdk.StreamableClientTransport{Endpoint: url}, nil); err == nil {
		t.Error("a stranger was let in")
	}
}

// TestLife takes a task through its life by tools alone.
func TestLife(t *testing.T) {
	s, _, _ := newServer(t)
	for _, revision := range []string{sessions, sessionless} {
		h := local(t, s, revision, nil)
		queue := `"q` + revision + `"`
		h.ok("register_agent", `{"agent_id":"a","queues":[`+queue+`],"vectors":[[1,0]],"capabilities":["go"]}`, nil)
		var submitted struct {
			TaskID   string `json:"task_id"`
			Status   string
			Position int
			Durable  bool
		}
		h.ok("submit_task", `{"queue":`+queue+`,"type":"add","payload":{"n":9007199254740993},"idempotency_key":"k"}`, &submitted)
		if submitted.Status != "queued" || submitted.Position != 1 || !submitted.Durable {
			t.Errorf("submitted: %+v", submitted)
		}
		var again struct {
			TaskID       string `json:"task_id"`
			Deduplicated bool
		}
		if h.ok("submit_task", `{"queue":`+queue+`,"type":"add","idempotency_key":"k"}`, &again); again.TaskID != submitted.TaskID || !again.Deduplicated {
			t.Errorf("submitted again: %+v", again)
		}
		var leased struct {
			Tasks []struct {
				TaskID  string `json:"task_id"`
				LeaseID string `json:"lease_id"`
				Payload json.RawMessage
				AgentID string `json:"agent_id"`
			}
		}
		lease := func() string {
			t.Helper()
			h.ok("lease_tasks", `{"agent_id":"a","queue":`+queue+`}`, &leased)
			if len(leased.Tasks) != 1 || leased.Tasks[0].AgentID != "a" {
				t.Fatalf("leased: %+v", leased)
			}
			return `"task_id":"` + leased.Tasks[0].TaskID + `","lease_id":"` + leased.Tasks[0].LeaseID + `"`
		}
		first := lease()
		if string(leased.Tasks[0].Payload) != `{"n":9007199254740993}` {
			t.Errorf("payload %s", leased.Tasks[0].Payload)
		}
		h.ok("fail_task", `{`+first+`,"message":"not today"}`, nil)
		if code := h.call("complete_task", `{`+first+`}`, nil); code != "lease_lost" {
			t.Errorf("completed by a lease that is over: %q", code)
		}
		var done struct {
			Status string
			Tasks  []string
		}
		h.ok("complete_task", `{`+lease()+`,"result":{"sum":3},"tasks":{`+queue+`:[{"type":"next"}]}}`, &done)
		if done.Status != "completed" || len(done.Tasks) != 1 {
			t.Errorf("completed: %+v", done)
		}
		var got struct {
			Task struct {
				Status string
				Result json.RawMessage
			}
		}
		h.ok("get_task", `{"task_id":"`+submitted.TaskID+`","wait_ms":30000}`, &got)
		if got.Task.Status != "completed" || string(got.Task.Result) != `{"sum":3}` {
			t.Errorf("task: %+v", got)
		}
		if code := h.call("cancel_task", `{"task_id":"`+submitted.TaskID+`"}`, nil); code != "task_terminal" {
			t.Errorf("cancelled after its end: %q", code)
		}
		h.ok("cancel_task", `{"task_id":"`+done.Tasks[0]+`"}`, nil)
		var why struct {
			Decisions []struct {
				AgentID string `json:"agent_id"`
			}
		}
		for _, arguments := range []string{`{"task_id":"` + submitted.TaskID + `"}`, `{"queue":` + queue + `,"vector":[1,0]}`} {
			if h.ok("explain_route", arguments, &why); len(why.Decisions) != 1 || why.Decisions[0].AgentID != "a" {
				t.Errorf("explain_route(%s): %+v", arguments, why)
			}
		}
		read, err := h.session.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: "vectord://tasks/" + submitted.TaskID})
		if err != nil || !strings.Contains(read.Contents[0].Text, `"completed"`) {
			t.Errorf("resource of a task: %+v, %v", read, err)
		}
		var agents struct{ Agents []vectord.Agent }
		if h.ok("list_agents", `{}`, &agents); len(agents.Agents) != 1 || agents.Agents[0].ID != "a" {
			t.Errorf("agents: %+v", agents)
		}
	}
}

// TestWait has submit_task wait for a task that another client does meanwhile.
func TestWait(t *testing.T) {
	s, m, _ := newServer(t)
	url := serve(t, m, s, server.Options{})
	caller, agent := remote(t, url, "", sessions, nil), remote(t, url, "", sessionless, nil)
	agent.ok("register_agent", `{"agent_id":"a","queues":["q"]}`, nil)
	worked := make(chan struct{})
	go func() {
		defer close(worked)
		var leased struct{ Tasks []vectord.Task }
		agent.ok("lease_tasks", `{"agent_id":"a","wait_ms":30000}`, &leased)
		if len(leased.Tasks) == 1 {
			agent.ok("complete_task", fmt.Sprintf(`{"task_id":%q,"lease_id":%q,"result":7}`, leased.Tasks[0].ID, leased.Tasks[0].LeaseID), nil)
		}
	}()
	var done struct {
		Status string
		Task   struct{ Result int }
	}
	caller.ok("submit_task", `{"queue":"q","wait":true}`, &done)
	if done.Status != "completed" || done.Task.Result != 7 {
		t.Errorf("waited for: %+v", done)
	}
	<-worked
	if caller.ok("submit_task", `{"queue":"q","wait":true,"wait_ms":1}`, &done); done.Status != "queued" {
		t.Errorf("not waited long enough: %+v", done)
	}
}

// TestWaitEndsWithRequest checks that what waits answers within the time of its request.
func TestWaitEndsWithRequest(t *testing.T) {
	s, m, _ := newServer(t)
	h := remote(t, serve(t, m, s, server.Options{RequestTimeout: time.Second}), "", sessionless, nil)
	h.ok("register_agent", `{"agent_id":"a","queues":["q"]}`, nil)
	var leased struct{ Tasks []vectord.Task }
	if h.ok("lease_tasks", `{"agent_id":"a","wait_ms":30000}`, &leased); len(leased.Tasks) != 0 {
		t.Errorf("leased: %+v", leased)
	}
}

// TestNoParams sends every method without params, some of which need none, and checks that the server lives.
func TestNoParams(t *testing.T) {
	s, m, _ := newServer(t)
	url := serve(t, m, s, server.Options{})
	for _, revision := range []string{sessions, sessionless} {
		for _, method := range strings.Fields("initialize ping server/discover tools/list tools/call resources/list resources/read resources/templates/list " +
			"prompts/list prompts/get completion/complete logging/setLevel subscriptions/listen tasks/get tasks/update tasks/cancel notifications/initialized notifications/cancelled") {
			for _, params := range []string{``, `,"params":null`, `,"params":{}`, `,"params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"` + revision +
				`","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}}`} {
				id := `,"id":1`
				if strings.HasPrefix(method, "notifications/") {
					id = ""
				}
				req, err := http.NewRequest("POST", url, strings.NewReader(`{"jsonrpc":"2.0"`+id+`,"method":"`+method+`"`+params+`}`))
				if err != nil {
					t.Fatal(err)
				}
				for name, value := range map[string]string{"Content-Type": "application/json", "Accept": "application/json, text/event-stream",
					"MCP-Protocol-Version": revision, "Mcp-Method": method} {
					req.Header.Set(name, value)
				}
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode >= 500 || strings.Contains(string(body), "the server's log") {
					t.Errorf("%s%s in %s: %d %s, %v", method, params, revision, resp.StatusCode, body, err)
				}
			}
		}
	}
}

func TestMemories(t *testing.T) {
	s, _, _ := newServer(t)
	h := local(t, s, sessionless, nil)
	h.ok("create_collection", `{"collection":"m","size":2}`, nil)
	store := func(arguments, want string) (id vectord.PointID) {
		t.Helper()
		var out vectord.MemoryResult
		if h.ok("store_memory", `{"collection":"m",`+arguments+`}`, &out); string(out.Outcome) != want {
			t.Errorf("store_memory(%s): %+v, want %s", arguments, out, want)
		}
		return out.ID
	}
	const alice, bob = `"scope":{"user_id":"alice"}`, `"scope":{"user_id":"bob"}`
	tea := store(`"text":"likes tea","vector":[1,0],"importance":0.1,`+alice, "created")
	if again := store(`"text":"likes tea!","vector":[1,0.01],`+alice, "skipped"); again != tea {
		t.Errorf("%v was skipped for %v", again, tea)
	}
	store(`"text":"likes tea","vector":[1,0],`+bob, "created")
	store(`"text":"likes tea!","vector":[1,0.01],"dedup":"off",`+bob, "created")
	rain := store(`"text":"it rains","vector":[0.9,0.5],"importance":1,"valid_from":"2026-01-01","valid_to":"2026-02-01",`+alice, "created")
	store(`"text":"no tea any more","vector":[1,0],"dedup":"supersede",`+bob, "superseded")
	f := func(arguments string, want ...vectord.PointID) {
		t.Helper()
		var out struct {
			Memories []struct {
				ID     vectord.PointID
				Memory vectord.Memory
			}
		}
		h.ok("search_memories", `{"collection":"m",`+alice+`,`+arguments+`}`, &out)
		var got []vectord.PointID
		for _, m := range out.Memories {
			if got = append(got, m.ID); m.Memory.Scope.UserID != "alice" || m.Memory.Text == "" {
				t.Errorf("search_memories(%s): %+v", arguments, m)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("search_memories(%s): %v, want %v", arguments, got, want)
		}
	}
	f(`"vector":[1,0]`, tea, rain)
	f(`"vector":[1,0],"limit":1`, tea)
	f(`"vector":[1,0],"importance_weight":2`, rain, tea)
	f(`"vector":[1,0],"as_of":"2026-03-01"`, tea)
	f(`"vector":[1,0],"kind":"episodic"`)
	for _, arguments := range []string{`"text":""`, `"text":"x","vector":[1,0],"kind":"odd"`, `"text":"x","vector":[1,0],"ttl_seconds":-1`, `"text":"x","vector":[1,0],"dedup":"maybe"`} {
		if code := h.call("store_memory", `{"collection":"m",`+arguments+`}`, nil); code != "bad_request" {
			t.Errorf("store_memory(%s): %q", arguments, code)
		}
	}
}
