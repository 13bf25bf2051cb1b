package pool

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
)

// helper returns the definition of a pool of test helpers, one of them unless change says otherwise.
func helper(t testing.TB, mode string, change func(d *Definition)) Definition {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := Definition{Name: "p", Command: self, Env: map[string]string{helperVariable: mode, markerVariable: t.Name()}, Queues: []string{"q"},
		MinSize: 1, MaxSize: 1, WarmupIntervalMS: 1, StopGraceSeconds: 1, Restart: Restart{Backoff: vectord.Backoff{InitialMS: 1, Factor: 1, MaxMS: 1}}}
	if strings.HasPrefix(mode, "mcp") {
		d.Kind = MCP
	}
	if change != nil {
		change(&d)
	}
	return d
}

// open opens a Supervisor that is closed with the test.
func open(t testing.TB, m *memory, o Options, pools ...Definition) *Supervisor {
	t.Helper()
	o.Tasks, o.Pools = m, pools
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(s) })
	return s
}

func shut(s *Supervisor) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	s.Close(ctx)
}

// eventually polls until done; what it waits for is no event of the tasks'.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func readyCount(s *Supervisor) int { return s.Pools()[0].Ready }

func TestWorker(t *testing.T) {
	m := newMemory()
	open(t, m, Options{}, helper(t, "worker", nil))
	f := func(payload, wantResult, wantError string) {
		t.Helper()
		task := m.result(t, m.submit(payload))
		switch {
		case wantError == "" && (task.Status != vectord.TaskCompleted || string(task.Result) != wantResult):
			t.Errorf("%s: %s with %.100s, %v", payload, task.Status, task.Result, task.Error)
		case wantError != "" && (task.Status != vectord.TaskFailed || task.Attempt != 1 || !strings.Contains(fmt.Sprint(*task.Error), wantError)):
			t.Errorf("%s: %s after %d attempts, %v, want failure with %q", payload, task.Status, task.Attempt, task.Error, wantError)
		}
	}
	f(`{"a": [1, "two"]}`, `{"a":[1,"two"]}`, "")
	f(``, `null`, "")
	f(`{"text":"<&>\u2028 \"é"}`, `{"text":"<&>\u2028 \"é"}`, "")
	f(`{"do":"noise"}`, `"after noise"`, "")
	f(`{"do":"error","text":"bad luck"}`, "", "{no_luck bad luck}")
	f(`{"do":"large"}`, "", errorResult)
	f(`{"do":"crash_once"}`, `"second"`, "")
	if m.reasons[0] != "the process ended by exit" || len(m.reasons) != 1 {
		t.Errorf("leases ended because of %q", m.reasons)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := m.agents["p:1"]; c.Capacity != 1 || c.Transport != "exec" || !slices.Equal(c.Capabilities, []string{"help"}) || c.Labels["pool"] != "p" {
		t.Errorf("registered as %+v", c)
	}
}

// TestEnvironment checks that the server's own variables, which may be secrets, stay with the server.
func TestEnvironment(t *testing.T) {
	t.Setenv("VECTORD_API_KEY", "secret")
	m := newMemory()
	s := open(t, m, Options{}, helper(t, "worker", nil))
	var env []string
	json.Unmarshal(m.result(t, m.submit(`{"do":"env"}`)).Result, &env)
	if !slices.Contains(env, "VECTORD_AGENT=p:1") || !slices.Contains(env, "POOL_TEST="+t.Name()) || strings.Contains(strings.Join(env, " "), "secret") {
		t.Errorf("environment %q", env)
	}
	if shown := fmt.Sprint(s.Pools()[0].Definition.Env); strings.Contains(shown, t.Name()) {
		t.Errorf("the status shows %s", shown)
	}
}

// TestPoison checks that tasks that kill their process end among the dead letters, and the pool goes on.
func TestPoison(t *testing.T) {
	for _, do := range []string{"crash", "much_noise", "long_line"} {
		t.Run(do, func(t *testing.T) {
			m := newMemory()
			s := open(t, m, Options{}, helper(t, "worker", func(d *Definition) { d.Restart.Max = 1 }))
			task := m.result(t, m.submit(`{"do":"`+do+`"}`))
			if task.Status != vectord.TaskFailed || task.Attempt != 3 || task.Error.Code != vectord.ErrorAgentDied {
				t.Errorf("%s after %d attempts, %v", task.Status, task.Attempt, task.Error)
			}
			m.result(t, m.submit(`1`))
			if p := s.Pools()[0]; p.Failed != "" || p.Restarts != 3 {
				t.Errorf("the pool: %+v", p)
			}
		})
	}
}

func TestRestartBudget(t *testing.T) {
	f := func(mode, want string) {
		t.Helper()
		s := open(t, newMemory(), Options{}, helper(t, mode, func(d *Definition) { d.Restart.Max, d.StartTimeoutSeconds = 2, 1 }))
		eventually(t, "the pool to fail", func() bool { return s.Pools()[0].Failed != "" })
		p := s.Pools()[0]
		if p.Restarts != 3 || !strings.Contains(p.Failed, want) || p.Starting+p.Ready != 0 || len(s.Warming()) != 1 {
			t.Errorf("%s: %+v", mode, p)
		}
		if err := s.Put(p.Definition); vectord.KindOf(err) != vectord.KindUnsupported { // for its variables have no values
			t.Errorf("put: %v", err)
		}
	}
	f("crash_at_start", "exit")
	f("silent", "start_timeout")
}

// TestRetriesAfterWindow checks that a pool that failed starts anew.
func TestRetriesAfterWindow(t *testing.T) {
	s := open(t, newMemory(), Options{}, helper(t, "crash_at_start", func(d *Definition) { d.Restart.Max, d.Restart.WindowSeconds = 1, 1 }))
	eventually(t, "a failure", func() bool { return s.Pools()[0].Failed != "" })
	eventually(t, "a retry", func() bool { return s.Pools()[0].Restarts > 2 })
}

func TestSize(t *testing.T) {
	m := newMemory()
	s := open(t, m, Options{}, helper(t, "worker", func(d *Definition) { d.MinSize, d.MaxSize, d.IdleTimeoutSeconds = 2, 4, 1 }))
	eventually(t, "two processes", func() bool { return readyCount(s) == 2 })
	if w := s.Warming(); len(w) != 0 {
		t.Errorf("%q are warming", w)
	}
	ids := []vectord.TaskID{m.submit(`{"do":"wait"}`), m.submit(`{"do":"wait"}`)}
	eventually(t, "a spare", func() bool { p := s.Pools()[0]; return p.Busy == 2 && p.Ready == 1 })
	ids = append(ids, m.submit(`{"do":"wait"}`), m.submit(`{"do":"wait"}`), m.submit(`{"do":"wait"}`))
	eventually(t, "the most", func() bool { return s.Pools()[0].Busy == 4 })
	m.change(func() {
		for _, id := range ids {
			m.tasks[id].CancelRequested = true
		}
	})
	for _, id := range ids {
		m.result(t, id)
	}
	eventually(t, "the surplus to go", func() bool { p := s.Pools()[0]; return p.Ready == 2 && p.Stopping+p.Busy == 0 })
	if names := m.names(); !slices.Equal(names, []string{"p:1", "p:2"}) {
		t.Errorf("agents %q", names)
	}
	if err := s.Scale("p", 3, 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a third", func() bool { return readyCount(s) == 3 })
	if err := s.Scale("p", 1, 1); err != nil {
		t.Fatal(err)
	}
	eventually(t, "one", func() bool { p := s.Pools()[0]; return p.Ready == 1 && p.Stopping == 0 })
}

func TestRecycledAndReplaced(t *testing.T) {
	m := newMemory()
	d := helper(t, "worker", func(d *Definition) { d.MaxTasksPerProcess = 2 })
	s := open(t, m, Options{}, d)
	for range 5 {
		m.result(t, m.submit(`1`))
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(s.metrics)
	eventually(t, "two to be recycled", func() bool { return sample(t, registry, "vectord_pool_ends_total", "recycled") == 2 })

	id := m.submit(`{"do":"wait"}`)
	m.running(t, id)
	d.Capabilities = []string{"new"}
	if err := s.Put(d); err != nil {
		t.Fatal(err)
	}
	m.change(func() { m.tasks[id].CancelRequested = true })
	m.result(t, id)
	m.await(t, "the new definition", func() bool { return slices.Contains(m.agents["p:1"].Capabilities, "new") })
	if p := s.Pools()[0]; p.Restarts != 0 {
		t.Errorf("%d deaths", p.Restarts)
	}
}

// sample returns the value of a pool's metric with a label's value, or 0.
func sample(t testing.TB, registry prometheus.Gatherer, name, label string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
				}
			}
		}
	}
	return 0
}

func TestCancel(t *testing.T) {
	f := func(do, wantError string, wantDeaths uint64) {
		t.Helper()
		m := newMemory()
		s := open(t, m, Options{}, helper(t, "worker", nil))
		id := m.submit(`{"do":"` + do + `"}`)
		m.running(t, id)
		m.change(func() { m.tasks[id].CancelRequested = true })
		if task := m.result(t, id); task.Status != vectord.TaskCancelled || task.Error.Code != wantError {
			t.Errorf("%s: %s, %v", do, task.Status, task.Error)
		}
		m.result(t, m.submit(`1`))
		if p := s.Pools()[0]; p.Restarts != wantDeaths {
			t.Errorf("%s: %d deaths, want %d", do, p.Restarts, wantDeaths)
		}
	}
	f("wait", errorCancelled, 0)
	f("hang", errorCancelled, 1)
}

// TestNeighbours checks that a process that is killed for one task costs the others no attempt.
func TestNeighbours(t *testing.T) {
	m := newMemory()
	s := open(t, m, Options{}, helper(t, "worker", func(d *Definition) { d.CapacityPerProcess = 2 }))
	neighbour := m.submit(`{"do":"wait"}`)
	m.running(t, neighbour)
	hung := m.submit(`{"do":"hang"}`)
	m.running(t, hung)
	m.change(func() { m.tasks[hung].CancelRequested = true })
	m.result(t, hung)
	m.await(t, "the neighbour's second agent", func() bool {
		return m.tasks[neighbour].Status == vectord.TaskRunning && m.tasks[neighbour].LeaseID > m.tasks[hung].LeaseID+2
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tasks[neighbour].Attempt != 1 || s.Pools()[0].Restarts != 1 {
		t.Errorf("attempt %d, %d deaths", m.tasks[neighbour].Attempt, s.Pools()[0].Restarts)
	}
}

func TestLeaseLost(t *testing.T) {
	m := newMemory()
	m.leaseTime = time.Millisecond // extended every extendMin
	open(t, m, Options{}, helper(t, "worker", nil))
	id := m.submit(`{"do":"wait"}`)
	m.running(t, id)
	m.change(func() { m.tasks[id].LeaseID, m.tasks[id].Agent = 1000, "another" })
	m.result(t, m.submit(`1`)) // the process is free again
	m.mu.Lock()
	defer m.mu.Unlock()
	if task := m.tasks[id]; task.Status != vectord.TaskRunning || task.LeaseID != 1000 {
		t.Errorf("%s, lease %d", task.Status, task.LeaseID)
	}
}

func TestProgressAndLostAnswers(t *testing.T) {
	m := newMemory()
	open(t, m, Options{}, helper(t, "worker", nil))
	id := m.submit(`{"do":"progress"}`)
	m.await(t, "progress", func() bool { return string(m.tasks[id].Progress) == `{"done":0.5}` })
	m.change(func() { m.tasks[id].CancelRequested = true })
	m.result(t, id)
	m.change(func() { m.failCalls = 3 })
	m.result(t, m.submit(`1`))
}

// anAgent returns a ready one.
func anAgent(t *testing.T, s *Supervisor) (found *agent) {
	t.Helper()
	p := s.pools["p"]
	eventually(t, "an agent", func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, a := range p.agents {
			if a.phase == ready {
				found = a
			}
		}
		return found != nil
	})
	return found
}

// TestDeaf checks that a process that reads no more is found out by a ping, or by what it is told.
func TestDeaf(t *testing.T) {
	m, registry := newMemory(), prometheus.NewRegistry()
	s := open(t, m, Options{Metrics: registry}, helper(t, "deaf", func(d *Definition) { d.StartTimeoutSeconds, d.Restart.Max = 1, 1_000 }))
	first := anAgent(t, s)
	first.ping()
	<-first.conn.gone
	eventually(t, "the death", func() bool { return sample(t, registry, "vectord_pool_deaths_total", deathHung) == 1 })
	second := anAgent(t, s)
	second.conn.writing.Lock()
	second.conn.patience = time.Millisecond
	second.conn.writing.Unlock()
	id := m.submit(`"` + strings.Repeat("x", 1<<20) + `"`)
	eventually(t, "the second death", func() bool { return sample(t, registry, "vectord_pool_deaths_total", deathStuck) == 1 })
	m.await(t, "another agent", func() bool { return m.tasks[id].Status == vectord.TaskRunning && m.tasks[id].LeaseID == 2 })
	if m.tasks[id].Attempt != 1 { // the first one had not read all of it
		t.Errorf("attempt %d", m.tasks[id].Attempt)
	}
	anAgent(t, s).process.kill("") // which would be waited for
}

// TestForgotten checks that an agent whose registration was lost registers again.
func TestForgotten(t *testing.T) {
	m := newMemory()
	s := open(t, m, Options{}, helper(t, "worker", nil))
	eventually(t, "a process", func() bool { return readyCount(s) == 1 })
	m.change(func() { clear(m.agents) })
	m.result(t, m.submit(`1`))
	waits := m.submit(`{"do":"wait"}`) // while it has no poll, its signs of life tell
	m.running(t, waits)
	m.change(func() { clear(m.agents) })
	m.await(t, "the registration", func() bool { return len(m.agents) == 1 })
}

// TestRemove checks that what does not finish is released, by whatever it takes.
func TestRemove(t *testing.T) {
	for _, mode := range []string{"worker", "stubborn"} {
		m := newMemory()
		s := open(t, m, Options{}, helper(t, mode, nil))
		waits := m.submit(`{"do":"wait"}`)
		m.running(t, waits)
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		if err := s.Remove(ctx, "p"); err != nil {
			t.Fatal(err)
		}
		if task := m.tasks[waits]; task.Status != vectord.TaskQueued || task.Attempt != 0 {
			t.Errorf("%s: %s after %d attempts", mode, task.Status, task.Attempt)
		}
		if len(s.Pools())+len(m.names())+len(m.reasons) > 0 {
			t.Errorf("%s: left: %v, agents %q, ends of leases %q", mode, s.Pools(), m.names(), m.reasons)
		}
		if err := s.Remove(ctx, "p"); vectord.KindOf(err) != vectord.KindNotFound {
			t.Errorf("removing it again: %v", err)
		}
	}
}

// TestCloseInAHurry checks that the end of Close's context goes before the grace.
func TestCloseInAHurry(t *testing.T) {
	m := newMemory()
	s := open(t, m, Options{}, helper(t, "stubborn", func(d *Definition) { d.StopGraceSeconds = MaxSeconds }))
	id := m.submit(`{"do":"wait"}`)
	m.running(t, id)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Close(ctx)
	if task := m.tasks[id]; task.Status != vectord.TaskQueued || task.Attempt != 0 || len(m.names()) > 0 {
		t.Errorf("%s after %d attempts, agents %q", task.Status, task.Attempt, m.names())
	}
	if err := s.Put(helper(t, "stubborn", nil)); vectord.KindOf(err) != vectord.KindClosed {
		t.Errorf("put after close: %v", err)
	}
}

func TestMCP(t *testing.T) {
	for _, mode := range []string{"mcp_stateless", "mcp_sessions", "mcp_strict"} {
		t.Run(mode, func(t *testing.T) {
			m := newMemory()
			s := open(t, m, Options{ToolText: true}, helper(t, mode, func(d *Definition) { d.ToolMap = map[string]string{"loud": "shout", "luck": "fail", "x": "unknown"} }))
			f := func(kind, payload string, want vectord.TaskStatus, text string, attempts int) {
				t.Helper()
				task := m.result(t, m.submitTask(vectord.NewTask{Type: kind, Payload: json.RawMessage(payload)}))
				if said := fmt.Sprintf("%s %v", task.Result, task.Error); task.Status != want || task.Attempt != attempts || !strings.Contains(said, text) {
					t.Errorf("%s %s: %s after %d attempts, %s", kind, payload, task.Status, task.Attempt, said)
				}
			}
			f("loud", `{"text":"hello"}`, vectord.TaskCompleted, `{"content":[{"type":"text","text":"HELLO"}],"structuredContent":{"loud":"HELLO"}}`, 1)
			f("loud", ``, vectord.TaskCompleted, `"loud":""`, 1)
			f("loud", `null`, vectord.TaskCompleted, `"loud":""`, 1)
			f("luck", `{}`, vectord.TaskFailed, "tool_error out of luck", 3)
			f("x", `{}`, vectord.TaskFailed, "unknown tool", 1)
			f("quiet", `{}`, vectord.TaskFailed, `no tool is for tasks of type "quiet"`, 1)
			f("loud", `[1]`, vectord.TaskFailed, "an object", 1)
			m.mu.Lock()
			c := m.agents["p:1"]
			m.mu.Unlock()
			if p := s.Pools()[0]; p.Restarts != 0 || c.Transport != "mcp_stdio" || !slices.Equal(c.Texts, []string{"shout: Makes text loud.", "fail: Fails."}) {
				t.Errorf("%d deaths, registered as %+v", p.Restarts, c)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	m, registry := newMemory(), prometheus.NewRegistry()
	s := open(t, m, Options{Metrics: registry}, helper(t, "worker", nil))
	eventually(t, "a process", func() bool { return readyCount(s) == 1 })
	m.result(t, m.submit(`1`))
	m.result(t, m.submit(`{"do":"crash_once"}`))
	f := func(name, label string, want float64) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s %s to be %v", name, label, want), func() bool { return sample(t, registry, name, label) == want })
	}
	f("vectord_pool_processes", "ready", 1)
	f("vectord_pool_processes", "busy", 0)
	f("vectord_pool_starts_total", "p", 2)
	f("vectord_pool_deaths_total", "exit", 1)
	f("vectord_pool_assign_seconds", "p", 3)
	f("vectord_pool_tasks_total", "true", 2)
	f("vectord_pool_tasks_total", "false", 0)
	if err := s.Remove(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	f("vectord_pool_starts_total", "p", 0)
}

// lockedBuffer is written by loggers.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestStderrIsLogged(t *testing.T) {
	var log lockedBuffer
	open(t, newMemory(), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))}, helper(t, "worker", nil))
	eventually(t, "the line", func() bool { return strings.Contains(log.String(), `pool=p agent=p:1 stderr="worker p:1"`) })
}

func TestLogLines(t *testing.T) {
	var log bytes.Buffer
	text := strings.Repeat("x", 3*stderrBytesMax) + "\nshort\n" + strings.Repeat("many\n", 10*stderrLinesMax)
	logLines(strings.NewReader(text), slog.New(slog.NewTextHandler(&log, nil)))
	if n := strings.Count(log.String(), "\n"); n > 2*stderrLinesMax || log.Len() > 2*stderrBytesMax+100*n || !strings.Contains(log.String(), "stderr=short") {
		t.Errorf("%d lines, %d bytes", n, log.Len())
	}
}

func TestRefusals(t *testing.T) {
	m := newMemory()
	own := helper(t, "worker", nil)
	s := open(t, m, Options{AllowExec: []string{"/bin/sh"}, AllowEnv: []string{"LEVEL"}}, own)
	f := func(kind vectord.Kind, text string, change func(d *Definition)) {
		t.Helper()
		d := helper(t, "worker", change)
		before := fmt.Sprint(s.Pools())
		if err := s.Put(d); err == nil || vectord.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want %v with %q", err, kind, text)
		}
		if after := fmt.Sprint(s.Pools()); before != after && !strings.Contains(before, "true") { // warming
			t.Errorf("something has changed: %s, %s", before, after)
		}
	}
	eventually(t, "a process", func() bool { return readyCount(s) == 1 })
	invalid, unsupported := vectord.KindInvalid, vectord.KindUnsupported
	f(unsupported, "has not allowed it to start /bin/ls", func(d *Definition) { d.Command = "/bin/ls" })
	f(unsupported, "has not allowed", func(d *Definition) { d.Args = []string{"other"} })
	f(unsupported, "the variable LD_PRELOAD", func(d *Definition) {
		d.Command, d.Env = "/bin/sh", map[string]string{"LEVEL": "1", "LD_PRELOAD": "x"}
	})
	f(invalid, `"" is not the name of a pool`, func(d *Definition) { d.Name = "" })
	f(invalid, "is not the name of a pool", func(d *Definition) { d.Name = "a/b" })
	f(invalid, "kind", func(d *Definition) { d.Kind = "magic" })
	f(invalid, "absolute", func(d *Definition) { d.Command = "sh" })
	f(invalid, "absolute", func(d *Definition) { d.Command = "/bin/../bin/sh" })
	f(invalid, "no such file", func(d *Definition) { d.Command = "/no/program" })
	f(invalid, "not a program", func(d *Definition) { d.Command = "/etc/passwd" })
	f(invalid, "cwd", func(d *Definition) { d.Cwd = "here" })
	f(invalid, "variable", func(d *Definition) { d.Env = map[string]string{"A=B": ""} })
	f(invalid, "argument", func(d *Definition) { d.Args = []string{"a\x00"} })
	f(invalid, "min_size is -1", func(d *Definition) { d.MinSize = -1 })
	f(invalid, "max_size is 2, expected 3 to 1000", func(d *Definition) { d.MinSize, d.MaxSize = 3, 2 })
	f(invalid, "queues", func(d *Definition) { d.Queues = nil })
	f(invalid, "not a name", func(d *Definition) { d.Queues = []string{""} })
	f(invalid, "vectors[0]", func(d *Definition) { d.Vectors = [][]float32{{}} })
	f(invalid, "backoff", func(d *Definition) { d.Restart.Backoff.Factor = 0.5 })
	f(invalid, "tool_map", func(d *Definition) { d.ToolMap = map[string]string{"a": "b"} })
	if err := s.Scale("p", 5, 2); vectord.KindOf(err) != invalid {
		t.Errorf("scale: %v", err)
	}
	if err := s.Scale("no", 1, 2); vectord.KindOf(err) != vectord.KindNotFound {
		t.Errorf("scale: %v", err)
	}
	if _, err := New(Options{Tasks: m, Pools: []Definition{own, own}}); vectord.KindOf(err) != invalid {
		t.Errorf("two pools of a name: %v", err)
	}
	own.Queues = []string{"r"} // the operator's own program may be put again
	if err := s.Put(own); err != nil {
		t.Error(err)
	}
	allowed := Definition{Name: "sh", Command: "/bin/sh", Env: map[string]string{"LEVEL": "1"}, Queues: []string{"q"}, MaxSize: 1}
	if err := s.Put(allowed); err != nil {
		t.Error(err)
	}
}

func TestDefaults(t *testing.T) {
	d := Definition{}.withDefaults()
	if d.MinSize != 5 || d.MaxSize != 100 || d.WarmupIntervalMS != 1000 || d.IdleTimeoutSeconds != 30 || d.MaxTasksPerProcess != 0 || d.CapacityPerProcess != 1 ||
		d.StartTimeoutSeconds != 10 || d.StopGraceSeconds != 5 || d.Restart.Max != 5 || d.Restart.WindowSeconds != 60 || d.Kind != Worker {
		t.Errorf("%+v", d)
	}
	if d := (Definition{MaxSize: 2}).withDefaults(); d.MinSize != 2 {
		t.Errorf("min_size %d with max_size 2", d.MinSize)
	}
}

func TestReadFile(t *testing.T) {
	f := func(text, want string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "pools.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		pools, err := ReadFile(path)
		if got := fmt.Sprint(len(pools), err); !strings.Contains(got, want) {
			t.Errorf("%.80s: %s, want %q in it", text, got, want)
		}
	}
	f(`{"pools":[{"name":"a","command":"/bin/a","queues":["q"],"restart":{"max":3}},{"name":"b"}]}`, "2 <nil>")
	f(`{"pools":[{"titel":"a"}]}`, `unknown field "titel"`)
	f(`{"pools":[]} {}`, "something follows")
	f(`[]`, "cannot unmarshal")
	f(strings.Repeat(" ", definitionsBytes+1), "longer than")
	if _, err := ReadFile("/no/such/file"); err == nil {
		t.Error("an absent file")
	}
}

func FuzzDefinitions(f *testing.F) {
	f.Add([]byte(`{"pools":[{"name":"a","command":"/bin/sh","queues":["q"],"min_size":1,"vectors":[[1]]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		definitions, err := decodeDefinitions(text)
		if err != nil {
			return
		}
		for _, d := range definitions {
			d = d.withDefaults()
			if d.check() == nil && (d.MinSize < 1 || d.MaxSize < d.MinSize || d.Command == "") {
				t.Fatalf("accepted %+v", d)
			}
		}
	})
}
