package pool

import (
	"errors"
	"fmt"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes give a process a group of its own. There is no signal at the parent's death here: what a killed server leaves behind
// sees the end of its stdin, and is killed by the next start of the server if that is not enough.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// awaitEnd returns when the process has ended. Its number is not another's yet: numbers are handed out in order here.
func awaitEnd(cmd *exec.Cmd) {
	_ = cmd.Wait() // how it ended is in cmd.ProcessState
}

func limitMemory(int, uint64) error { return errors.ErrUnsupported }

// startTime returns a text that no other process of this number has.
func startTime(pid int) (string, error) {
	info, err := unix.SysctlKinfoProc("kern.proc.pid", pid)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d.%06d", info.Proc.P_starttime.Sec, info.Proc.P_starttime.Usec), nil
}

// killMembers kills nothing: whose a process is without its leader cannot be told here.
func killMembers(int, string) int { return 0 }
