package pool

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/vectord/vectord"
)

// TestExamples runs the workers that the documentation shows.
func TestExamples(t *testing.T) {
	f := func(file, interpreter string) {
		t.Run(file, func(t *testing.T) {
			if _, err := exec.LookPath(interpreter); err != nil {
				t.Skipf("%s is not installed", interpreter)
			}
			path, err := filepath.Abs(filepath.Join("../../examples/workers", file))
			if err != nil {
				t.Fatal(err)
			}
			m := newMemory()
			s := open(t, m, Options{}, Definition{Name: "words", Command: path, Queues: []string{"q"}, MinSize: 2, MaxSize: 2, WarmupIntervalMS: 1})
			var ids []vectord.TaskID
			for range 20 {
				ids = append(ids, m.submit(`{"text": "three  small <words>"}`))
			}
			for _, id := range ids {
				if task := m.result(t, id); string(task.Result) != `{"words": 3}` && string(task.Result) != `{"words":3}` {
					t.Fatalf("%s, %s, %v", task.Status, task.Result, task.Error)
				}
			}
			if p := s.Pools()[0]; p.Restarts != 0 {
				t.Errorf("%d deaths", p.Restarts)
			}
		})
	}
	f("worker.py", "python3")
	f("worker.mjs", "node")
	f("worker.sh", "bash")
}
