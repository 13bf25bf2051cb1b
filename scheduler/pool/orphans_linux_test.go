package pool

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vectord/vectord"
)

// chaosKills is how many processes TestChaos kills.
const chaosKills = 200

// processes returns what all processes are called, by number, and the numbers of those that a marker tells to belong to a test. A
// zombie has no environment: it is found by its parent.
func processes(t *testing.T, marker string) (marked, zombies []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		fields, err := stat(pid)
		if err != nil {
			continue
		}
		if fields[0] == "Z" && fields[1] == strconv.Itoa(os.Getpid()) {
			zombies = append(zombies, pid)
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(env, []byte(markerVariable+"="+marker+"\x00")) {
			marked = append(marked, pid)
		}
	}
	return marked, zombies
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// pids are those of a pool's ready processes.
func pids(s *Supervisor) (out []int) {
	s.mu.Lock()
	p := s.pools["p"]
	s.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.agents {
		if a.phase == ready {
			out = append(out, a.process.cmd.Process.Pid)
		}
	}
	return out
}

// TestChaos kills processes, each of which has children that would outlive it, while tasks run.
func TestChaos(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	m := newMemory()
	before := 0
	d := helper(t, "fork", func(d *Definition) { d.MinSize, d.MaxSize, d.Restart.Max = 4, 4, 10*chaosKills })
	dir := t.TempDir()
	s := open(t, m, Options{Dir: dir}, d)
	eventually(t, "all processes", func() bool { return readyCount(s) == 4 })
	before = descriptors(t)

	var ids []vectord.TaskID
	killed := map[int]bool{}
	for len(killed) < chaosKills {
		for range 3 {
			ids = append(ids, m.submitTask(vectord.NewTask{Payload: []byte(`1`), MaxAttempts: vectord.MaxAttempts}))
		}
		victim := 0
		eventually(t, "a process to kill", func() bool {
			all := slices.DeleteFunc(pids(s), func(pid int) bool { return killed[pid] })
			if len(all) > 0 {
				victim = all[random.IntN(len(all))]
			}
			return victim != 0
		})
		killed[victim] = true
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if task := m.result(t, id); task.Status != vectord.TaskCompleted {
			t.Fatalf("task %s: %s, %v", id, task.Status, task.Error)
		}
	}
	eventually(t, "all processes again", func() bool { return readyCount(s) == 4 })
	eventually(t, "descriptors to be as before", func() bool { return descriptors(t) == before })
	// Each has two children of its own.
	eventually(t, "four processes and their children", func() bool { marked, _ := processes(t, t.Name()); return len(marked) == 3*4 })
	if records, _ := filepath.Glob(dir + "/*"); len(records) != 4 {
		t.Errorf("records %q of four processes", records)
	}
	if p := s.Pools()[0]; p.Restarts != chaosKills || p.Failed != "" {
		t.Errorf("the pool: %+v", p)
	}
	shut(s)
	eventually(t, "no process to be left", func() bool {
		marked, zombies := processes(t, t.Name())
		return len(marked)+len(zombies) == 0
	})
	if records, _ := filepath.Glob(dir + "/*"); len(records) != 0 {
		t.Errorf("records %q of no process", records)
	}
}

// killedServer starts a server with three workers, kills it, and returns its directory of records.
func killedServer(t *testing.T, mode string) (dir string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	cmd := exec.Command(self, mode, t.Name(), dir)
	cmd.Env = append(os.Environ(), helperVariable+"=server")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("the server said %q, %v", line, err)
	}
	if marked, _ := processes(t, t.Name()); len(marked) < 3 {
		t.Fatalf("%d workers", len(marked))
	}
	cmd.Process.Kill()
	cmd.Wait()
	return dir
}

// TestServerKilled checks that a server that is killed takes its workers along, though they ignore what can be ignored.
func TestServerKilled(t *testing.T) {
	killedServer(t, "stubborn")
	eventually(t, "no worker to be left", func() bool { marked, _ := processes(t, t.Name()); return len(marked) == 0 })
}

// TestLeftovers checks that the next start kills what the workers of a killed server had started.
func TestLeftovers(t *testing.T) {
	dir := killedServer(t, "fork")
	eventually(t, "the children to be left alone", func() bool { marked, _ := processes(t, t.Name()); return len(marked) == 6 })

	// A record of a process that is not the one that was recorded: this test's own number.
	other := filepath.Join(dir, strconv.Itoa(os.Getpid()))
	if err := os.WriteFile(other, []byte("another/1\np:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, newMemory(), Options{Dir: dir})
	eventually(t, "no child to be left", func() bool { marked, _ := processes(t, t.Name()); return len(marked) == 0 })
	if records, _ := filepath.Glob(dir + "/*"); len(records) != 0 {
		t.Errorf("records %q are left", records)
	}
}

// TestLeftoverItself checks that a process that outlived its server is killed.
func TestLeftoverItself(t *testing.T) {
	cmd := exec.Command("sleep", "3600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	start, err := startTime(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, strconv.Itoa(cmd.Process.Pid)), []byte(start+"\np:1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, newMemory(), Options{Dir: dir})
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended by %v", err)
	}
}

// TestMemoryLimit asks a shell for its limit, which is that of the processes it starts as well.
func TestMemoryLimit(t *testing.T) {
	const script = `while read -r line; do
		id=${line#*\"id\":}
		echo "{\"jsonrpc\":\"2.0\",\"id\":${id%%,*},\"result\":{\"capacity\":$(ulimit -v)}}"
	done`
	m := newMemory()
	open(t, m, Options{}, helper(t, "", func(d *Definition) { d.Command, d.Args, d.MemoryLimitMB = "/bin/sh", []string{"-c", script}, 512 }))
	if task := m.result(t, m.submit(`1`)); string(task.Result) != fmt.Sprintf(`{"capacity":%d}`, 512<<10) { // KiB
		t.Errorf("%s, %v", task.Result, task.Error)
	}
}
