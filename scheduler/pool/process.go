package pool

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Bounds of what a process writes.
const (
	lineBytesMax       = 4 << 20         // of a message: a result of 1 MiB, with room for how JSON writes it
	stderrBytesMax     = 4 << 10         // of a line on stderr; the rest of it is dropped
	stderrLinesMax     = 50              // a second; more are counted and dropped
	drainWithin        = time.Second     // from the end of a process to that of reading what it wrote
	silentWithin       = 5 * time.Second // from the end of its output or input to that of the process
	processFileMode    = 0o600
	processFolderMode  = 0o700
	bytesPerMegabyte   = 1 << 20
	agentVariable      = "VECTORD_AGENT" // in the environment of each process, with the agent's name
	poolVariable       = "VECTORD_POOL"
	leftoverRecordsMax = MaxPools * MaxProcesses
)

// inherited are the variables that a process gets from the server. Others may hold the server's secrets.
var inherited = []string{"PATH", "HOME", "LANG", "TZ", "TMPDIR"}

// spawner starts processes on one thread of the system. On Linux a process started here dies with the thread that started it, so that
// none outlives the server even if it is killed; the thread must live as long as any of them.
type spawner struct {
	calls chan func()
}

func newSpawner() *spawner {
	s := &spawner{calls: make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread() // the thread goes on to live; by now no process does
		for call := range s.calls {
			call()
		}
	}()
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	result := make(chan error)
	s.calls <- func() { result <- cmd.Start() }
	return <-result
}

func (s *spawner) close() { close(s.calls) }

// process is a program that runs, with its group: what it starts itself belongs to it, and ends with it.
type process struct {
	cmd    *exec.Cmd
	stdin  *os.File
	stdout *os.File
	record string // path of the file that says that the process exists; empty: there is none

	closeStdin sync.Once
	ended      chan struct{} // closed when the process is gone and reaped, and its group killed

	mu      sync.Mutex
	verdict string // guarded by mu: why the server killed it, the first reason counts; empty: it did not
	reaped  bool   // guarded by mu: the number may be another's
}

// startProcess starts the definition's program under the name of an agent.
func (s *Supervisor) startProcess(d *Definition, agent string) (*process, error) {
	cmd := exec.Command(d.Command, d.Args...)
	cmd.Dir, cmd.SysProcAttr = d.Cwd, attributes()
	cmd.Env = []string{poolVariable + "=" + d.Name, agentVariable + "=" + agent}
	for _, name := range inherited {
		if value, ok := os.LookupEnv(name); ok && d.Env[name] == "" {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	for name, value := range d.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}

	var ends []*os.File // of the three pipes, two each: the process's first
	closeAll := func() {
		for _, f := range ends {
			f.Close()
		}
	}
	for range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll()
			return nil, err
		}
		ends = append(ends, r, w)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = ends[0], ends[3], ends[5]
	if err := s.spawner.start(cmd); err != nil {
		closeAll()
		return nil, err
	}
	ends[0].Close()
	ends[3].Close()
	ends[5].Close()
	p := &process{cmd: cmd, stdin: ends[1], stdout: ends[2], ended: make(chan struct{})}
	stderr := ends[4]

	var troubles []error
	if d.MemoryLimitMB > 0 {
		if err := limitMemory(cmd.Process.Pid, uint64(d.MemoryLimitMB)*bytesPerMegabyte); err != nil && !errors.Is(err, syscall.ESRCH) {
			troubles = append(troubles, fmt.Errorf("limit the memory: %w", err))
		}
	}
	if s.options.Dir != "" {
		p.record = filepath.Join(s.options.Dir, strconv.Itoa(cmd.Process.Pid))
		start, err := startTime(cmd.Process.Pid)
		if err == nil {
			err = os.WriteFile(p.record, []byte(start+"\n"+agent+"\n"), processFileMode)
		}
		if err != nil {
			troubles = append(troubles, fmt.Errorf("record the process: %w", err))
		}
	}
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		logLines(stderr, s.options.Logger.With("pool", d.Name, "agent", agent))
	}()
	go func() {
		awaitEnd(cmd)
		p.reap()
		p.hangUp()
		// Whoever left the group may hold the pipes open, and is not waited for.
		deadline := time.Now().Add(drainWithin)
		_ = p.stdout.SetReadDeadline(deadline)
		_ = stderr.SetReadDeadline(deadline)
		<-logged
		stderr.Close()
		close(p.ended)
	}()
	if err := errors.Join(troubles...); err != nil {
		p.kill("start")
		<-p.ended
		p.stdout.Close()
		return nil, err
	}
	return p, nil
}

// hangUp closes stdin: the process is asked to end.
func (p *process) hangUp() {
	p.closeStdin.Do(func() { p.stdin.Close() })
}

// stop asks the process to end, ever less politely, and returns when it has. Once urgent is closed it is killed without delay.
func (p *process) stop(grace time.Duration, urgent <-chan struct{}) {
	p.hangUp()
	if p.endsWithin(grace, urgent) {
		return
	}
	p.signal(syscall.SIGTERM)
	if p.endsWithin(grace, urgent) {
		return
	}
	p.kill("")
	<-p.ended
}

func (p *process) endsWithin(grace time.Duration, urgent <-chan struct{}) bool {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
	case <-urgent:
	}
	return false
}

// kill ends the process and its group. The verdict says why; empty: it was to end anyway.
func (p *process) kill(verdict string) {
	p.mu.Lock()
	if p.verdict == "" {
		p.verdict = verdict
	}
	p.mu.Unlock()
	p.signal(syscall.SIGKILL)
}

// signal reaches the process and its group.
func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		signalGroup(p.cmd.Process.Pid, s)
	}
}

// reap kills what the process, which has ended, leaves of its group, and gives up its number and the record under that.
func (p *process) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	signalGroup(p.cmd.Process.Pid, syscall.SIGKILL)
	if p.record != "" {
		os.Remove(p.record)
	}
	_ = p.cmd.Wait() // how it ended is in cmd.ProcessState
	p.reaped = true
}

// signalGroup has no use for an error: the group may be gone.
func signalGroup(group int, s syscall.Signal) {
	_ = syscall.Kill(-group, s)
}

// fate says how the process, which has ended, came to its end.
func (p *process) fate() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.verdict != "" {
		return p.verdict
	}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return deathSignal
	}
	return deathExit
}

// logLines logs what comes from r, line by line and not too much of it, until r ends.
func logLines(r io.Reader, logger *slog.Logger) {
	in := bufio.NewReaderSize(r, stderrBytesMax)
	var second time.Time
	lines, dropped := 0, 0
	for {
		line, more, err := in.ReadLine() // what a longer line has beyond the buffer comes as further pieces
		if err != nil {
			return
		}
		text := strings.ToValidUTF8(string(line), "�")
		for more && err == nil {
			_, more, err = in.ReadLine()
		}
		if now := time.Now(); now.Sub(second) >= time.Second {
			if dropped > 0 {
				logger.Warn("the agent wrote too much on stderr", "lines_dropped", dropped)
			}
			second, lines, dropped = now, 0, 0
		}
		if lines++; lines > stderrLinesMax {
			dropped++
			continue
		}
		logger.Info("agent", "stderr", text)
	}
}

// killLeftovers kills what an earlier server, which was killed, has left running: the processes that dir has records of, if they are
// the ones that were started then, and what these have started.
func killLeftovers(dir string, logger *slog.Logger) error {
	if err := os.MkdirAll(dir, processFolderMode); err != nil {
		return fmt.Errorf("pools: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("pools: %w", err)
	}
	for i, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid <= 1 || i >= leftoverRecordsMax {
			continue
		}
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("pools: %w", err)
		}
		start, agent, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		if now, err := startTime(pid); err == nil && now == start {
			signalGroup(pid, syscall.SIGKILL)
			logger.Warn("killed a process that an earlier server left running", "agent", agent, "pid", pid)
		} else if n := killMembers(pid, agent); n > 0 {
			logger.Warn("killed processes that an agent of an earlier server left running", "agent", agent, "processes", n)
		}
		os.Remove(path)
	}
	return nil
}
