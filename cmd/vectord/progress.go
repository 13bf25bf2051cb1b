package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	progressEvery = 200 * time.Millisecond
	progressCells = 30
)

// progress shows how far a task is in one line that it writes over again and again, if the output is a terminal, and
// nothing if it is not. It is safe for concurrent use.
type progress struct {
	out  io.Writer // nil: not a terminal
	mu   sync.Mutex
	last time.Time // of the line shown last
}

func newProgress(out io.Writer) *progress {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			return &progress{out: out}
		}
	}
	return &progress{}
}

// show displays text, unless it displayed another a moment ago.
func (p *progress) show(text string) {
	if p.out == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.last) < progressEvery {
		return
	}
	p.last = time.Now()
	fmt.Fprintf(p.out, "\r%s\x1b[K", text)
}

// clear removes the line.
func (p *progress) clear() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}

// progressBar draws that share (0 to 1) is done.
func progressBar(share float64) string {
	share = min(max(share, 0), 1)
	full := int(share * progressCells)
	return fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("=", full), strings.Repeat(" ", progressCells-full), 100*share)
}
