package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startLimit = 60 * time.Second // beyond this a start counts as hung
	stopLimit  = 10 * time.Second // what SIGTERM is promised to take at most
	outputKept = 64 << 10         // bytes of a process's output shown when a test fails
)

// buildDir holds the server under test for as long as the tests run.
var buildDir string

// buildServer builds the server from this tree, once, and returns the path of the binary.
var buildServer = sync.OnceValues(func() (string, error) {
	path := filepath.Join(buildDir, "vectord")
	build := exec.Command("go", "build", "-o", path, "github.com/vectord/vectord/cmd/vectord")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does it
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the server: %w\n%s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	if id := os.Getenv(agentVariable); id != "" {
		runAgent(id, os.Getenv(agentURLVariable), os.Getenv(agentLogVariable))
		return
	}
	var err error
	if buildDir, err = os.MkdirTemp("", "vectord-crash-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(buildDir)
	os.Exit(code)
}

// process is one running server.
type process struct {
	cmd     *exec.Cmd
	url     string
	started time.Time
	output  *tail
	exited  chan struct{} // closed when the process is gone
	waitErr error         // valid after exited
}

// start runs a server on dataDir and does not wait for it to be ready. The process is killed when the test ends.
func start(t *testing.T, dataDir string) *process {
	t.Helper()
	return startAt(t, dataDir, freeAddress(t))
}

// startAt is start for a server whose address is known before.
func startAt(t *testing.T, dataDir, address string) *process {
	t.Helper()
	return startProcess(t, io.Discard, nil, "serve", "--data-dir", dataDir, "--http", address)
}

// startProcess runs the server with arguments, --http among them, below a program that runs it if one is given. What the
// server says goes to log as well.
func startProcess(t *testing.T, log io.Writer, below []string, args ...string) *process {
	t.Helper()
	binary, err := buildServer()
	if err != nil {
		t.Fatal(err)
	}
	command := slices.Concat(below, []string{binary}, args, []string{"--grpc", "", "--log-format", "json"})
	if !slices.Contains(args, "--tcp") {
		command = append(command, "--tcp", "")
	}
	p := &process{
		cmd:     exec.Command(command[0], command[1:]...),
		url:     "http://" + args[slices.Index(args, "--http")+1],
		started: time.Now(),
		output:  new(tail),
		exited:  make(chan struct{}),
	}
	p.cmd.Env = serverEnv()
	p.cmd.Stdout = io.MultiWriter(p.output, log)
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start the server: %v", err)
	}
	go func() {
		p.waitErr = p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(p.kill)
	return p
}

// serverEnv is the environment without settings of the server that the developer may have exported.
func serverEnv() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "VECTORD_") })
}

// waitReady waits until /readyz says yes and returns the time since the process was started.
func (p *process) waitReady(t *testing.T) time.Duration {
	t.Helper()
	client := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for limit := time.Now().Add(startLimit); time.Now().Before(limit); {
		response, err := client.Get(p.url + "/readyz")
		if err == nil {
			response.Body.Close()
			if response.StatusCode == http.StatusOK {
				return time.Since(p.started)
			}
		}
		select {
		case <-p.exited:
			t.Fatalf("the server ended before it was ready: %v\n%s", p.waitErr, p.output)
		case <-time.After(5 * time.Millisecond):
		}
	}
	t.Fatalf("the server is not ready after %v\n%s", startLimit, p.output)
	return 0
}

// kill ends the process without a chance to finish anything, and waits until it is gone. It may be called again.
func (p *process) kill() {
	p.cmd.Process.Kill() // an error means that it is gone already
	<-p.exited
}

// terminate asks the process to stop, as a service manager would, and returns how long it took. Any exit but a clean one
// within the limit fails the test.
func (p *process) terminate(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatalf("send SIGTERM: %v\n%s", err, p.output)
	}
	select {
	case <-p.exited:
	case <-time.After(stopLimit):
		t.Fatalf("still running %v after SIGTERM\n%s", stopLimit, p.output)
	}
	if p.waitErr != nil {
		t.Fatalf("after SIGTERM: %v\n%s", p.waitErr, p.output)
	}
	return time.Since(began)
}

// exitCode waits for the process to end by itself and returns its exit code, -1 for a signal.
func (p *process) exitCode(ctx context.Context) (int, error) {
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode(), nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// freeAddress returns a loopback address that nobody listens on. The port is below the range from which the system takes
// the ports of outgoing connections: within it, a client that polls for the server could connect to itself.
func freeAddress(t *testing.T) string {
	t.Helper()
	var err error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(12_000))
		var listener net.Listener
		if listener, err = net.Listen("tcp", address); err == nil {
			listener.Close()
			return address
		}
	}
	t.Fatalf("no free port: %v", err)
	return ""
}

// tail keeps the last part of what is written to it. It is safe for concurrent use.
type tail struct {
	mu   sync.Mutex // guards kept
	kept []byte
}

func (w *tail) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p...)
	if over := len(w.kept) - outputKept; over > 0 {
		w.kept = bytes.Clone(w.kept[over:])
	}
	return len(p), nil
}

func (w *tail) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.kept)
}

// TestSecondProcess checks that a data directory belongs to one process: another is turned away with a message that says
// so, and the first does not notice.
func TestSecondProcess(t *testing.T) {
	dir := t.TempDir()
	first := start(t, dir)
	first.waitReady(t)

	second := start(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	code, err := second.exitCode(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("a second process runs on the same data directory\n%s", second.output)
	}
	if code <= 0 {
		t.Errorf("the second process ended with exit code %d, want a positive one\n%s", code, second.output)
	}
	for _, part := range []string{dir, "in use"} {
		if !strings.Contains(second.output.String(), part) {
			t.Errorf("the second process does not say %q:\n%s", part, second.output)
		}
	}
	first.waitReady(t)
	first.terminate(t)
}
