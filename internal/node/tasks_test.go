package node

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/storage/storagetest"
)

// taskAnswer is what a client was told of a task, in the order of the answers.
type taskAnswer struct {
	id        vectord.TaskID
	status    vectord.TaskStatus // queued: submitted; running: leased; completed
	lease     vectord.LeaseID
	followUps []vectord.TaskID
}

// TestTasksSurvivePowerCuts cuts the power after file operations of a history of tasks. Whatever was acknowledged by then must be there:
// submissions, leases, completions with their results and follow-up tasks. A lease that is granted afterwards is greater than all before.
func TestTasksSurvivePowerCuts(t *testing.T) {
	seed := seedOf(t)
	random := rand.New(rand.NewPCG(seed, 2))
	type taskCut struct {
		operation string
		percent   int
		acked     int
		disk      *storagetest.CrashFS
	}
	var mu sync.Mutex // guards what follows
	var answers []taskAnswer
	var cuts []taskCut
	var stopped atomic.Bool
	var disk *storagetest.CrashFS
	disk = storagetest.NewCrashFS(func(operation string) {
		if stopped.Load() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		percent := []int{0, 50, 100}[len(cuts)%3]
		acked := len(answers) // before the disk is copied
		cuts = append(cuts, taskCut{operation, percent, acked, disk.Crash(percent, seed+uint64(len(cuts)))})
	})
	n := open(t, disk)
	answered := func(a taskAnswer) {
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, a)
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(n.Tasks().RegisterAgent(background, "a", vectord.AgentConfig{Queues: []string{"q"}, Capacity: 100}))
	var held []vectord.Task
	for i := range 40 {
		s := n.Tasks()
		tasks := make([]vectord.NewTask, 1+random.IntN(4))
		for j := range tasks {
			tasks[j] = vectord.NewTask{Payload: fmt.Appendf(nil, "%d", i), IdempotencyKey: fmt.Sprint(i, " ", j)}
		}
		out, err := s.Submit(background, "q", tasks)
		must(err)
		for _, o := range out {
			must(o.Err)
			answered(taskAnswer{id: o.TaskID, status: vectord.TaskQueued})
		}
		leased, err := s.Lease(background, vectord.LeaseRequest{AgentID: "a", MaxTasks: 2})
		must(err)
		for _, task := range leased {
			answered(taskAnswer{id: task.ID, status: vectord.TaskRunning, lease: task.LeaseID})
		}
		held = append(held, leased...)
		for len(held) > 0 && random.IntN(3) > 0 {
			task := held[0]
			held = held[1:]
			done, err := s.Call(background, []vectord.TaskCall{{Kind: vectord.CallComplete, ID: task.ID, LeaseID: task.LeaseID, Result: json.RawMessage(`"` + task.LeaseID.String() + `"`),
				Effects: vectord.Effects{Tasks: map[string][]vectord.NewTask{"after": {{}, {}}}}}})
			must(err)
			must(done[0].Err)
			answered(taskAnswer{task.ID, vectord.TaskCompleted, task.LeaseID, done[0].Tasks})
		}
		if i%15 == 14 {
			must(n.Close())
			n = open(t, disk)
		}
	}
	stopped.Store(true)
	must(n.Close())
	t.Logf("%d power cuts, %d answers", len(cuts), len(answers))
	for _, c := range cuts {
		name := fmt.Sprintf("after %q with %d%% of unsynced data", c.operation, c.percent)
		n := open(t, c.disk)
		last := vectord.LeaseID(0)
		for _, a := range answers[:c.acked] {
			task, err := n.Tasks().Task(a.id)
			if err != nil || task.Status < a.status && task.Status != vectord.TaskRunning {
				t.Errorf("%s: task %s was acknowledged as %s: %+v, %v", name, a.id, a.status, task, err)
				continue
			}
			last = max(last, a.lease)
			if a.status == vectord.TaskCompleted && (task.Status != vectord.TaskCompleted || string(task.Result) != `"`+a.lease.String()+`"`) {
				t.Errorf("%s: task %s was completed under %s: %+v", name, a.id, a.lease, task)
			}
			if a.status == vectord.TaskRunning && task.Status == vectord.TaskRunning && task.LeaseID != a.lease {
				t.Errorf("%s: task %s is held under %s, was leased under %s", name, a.id, task.LeaseID, a.lease)
			}
			for _, id := range a.followUps {
				if _, err := n.Tasks().Task(id); err != nil {
					t.Errorf("%s: follow-up task %s of %s: %v", name, id, a.id, err)
				}
			}
		}
		// All or nothing: as many follow-up tasks as completions promise.
		completed, err := n.Tasks().CountTasks(vectord.TaskScroll{Status: []vectord.TaskStatus{vectord.TaskCompleted}})
		must(err)
		followUps := 0
		if slices.ContainsFunc(n.Tasks().Queues(), func(q vectord.QueueInfo) bool { return q.Name == "after" }) {
			followUps, err = n.Tasks().CountTasks(vectord.TaskScroll{Queue: "after"})
			must(err)
		}
		if followUps != 2*completed {
			t.Errorf("%s: %d completed tasks have %d follow-up tasks", name, completed, followUps)
		}
		if c.acked > 0 {
			more, err := n.Tasks().Submit(background, "q", []vectord.NewTask{{Priority: new(int)}})
			must(err)
			must(more[0].Err)
			leased, err := n.Tasks().Lease(background, vectord.LeaseRequest{AgentID: "a", MaxTasks: 1})
			must(err)
			if len(leased) != 1 || leased[0].LeaseID <= last {
				t.Errorf("%s: leased %+v, after %s", name, leased, last)
			}
		}
		must(n.Close())
		if t.Failed() {
			return
		}
	}
}

// TestTasksConcurrently has many producers and agents at once, durably and in memory: every task is completed once, each
// under one lease, and nothing is left counted.
func TestTasksConcurrently(t *testing.T) {
	for _, durability := range []vectord.Durability{vectord.Replicated, vectord.InMemory} {
		t.Run(string(durability), func(t *testing.T) {
			n := open(t, storagetest.NewCrashFS(nil))
			defer func() {
				if err := n.Close(); err != nil {
					t.Error(err)
				}
			}()
			s := n.Tasks()
			config := vectord.DefaultQueueConfig()
			config.Durability, config.Fairness.MaxInFlightPerKey = durability, 20
			if err := s.PutQueue(background, "q", config); err != nil {
				t.Fatal(err)
			}
			const workers, each, capacity = 8, 100, 5
			var completed atomic.Int64
			var mu sync.Mutex // guards what follows
			leases := map[vectord.LeaseID]vectord.TaskID{}
			ended := map[vectord.TaskID]bool{}
			var all sync.WaitGroup
			for w := range workers {
				all.Go(func() {
					for i := range each {
						task := vectord.NewTask{FairnessKey: fmt.Sprint(w), IdempotencyKey: fmt.Sprint(w, " ", i)}
						for range 2 { // the second time is a repetition
							out, err := s.Submit(background, "q", []vectord.NewTask{task})
							if err != nil || out[0].Err != nil {
								t.Errorf("submit: %+v, %v", out, err)
								return
							}
						}
						if i%25 == 0 { // while others read the configuration
							changed := config
							changed.MaxOverflow += i
							if err := s.PutQueue(background, "q", changed); err != nil {
								t.Error(err)
							}
						}
					}
				})
				all.Go(func() {
					id := fmt.Sprint("agent ", w)
					if err := s.RegisterAgent(background, id, vectord.AgentConfig{Queues: []string{"q"}, Capacity: capacity}); err != nil {
						t.Error(err)
						return
					}
					for round := 0; completed.Load() < workers*each && !t.Failed(); round++ {
						held, err := s.Lease(background, vectord.LeaseRequest{AgentID: id, MaxTasks: 1 + round%capacity, WaitMS: 20})
						if err != nil || len(held) > capacity {
							t.Errorf("leased %d: %v", len(held), err)
							return
						}
						for i, task := range held {
							mu.Lock()
							if other, ok := leases[task.LeaseID]; ok {
								t.Errorf("lease %s is of task %s and of %s", task.LeaseID, other, task.ID)
							}
							leases[task.LeaseID] = task.ID
							mu.Unlock()
							call := vectord.TaskCall{Kind: vectord.CallComplete, ID: task.ID, LeaseID: task.LeaseID}
							if (round+i)%5 == 0 {
								call.Kind = vectord.CallRelease
							}
							out, err := s.Call(background, []vectord.TaskCall{call})
							if err != nil || out[0].Err != nil {
								t.Errorf("call: %+v, %v", out, err)
								return
							}
							if call.Kind == vectord.CallComplete {
								completed.Add(1)
								mu.Lock()
								if ended[task.ID] {
									t.Errorf("task %s was completed twice", task.ID)
								}
								ended[task.ID] = true
								mu.Unlock()
							}
						}
					}
				})
			}
			all.Wait()
			info, err := s.Queue("q")
			if err != nil {
				t.Fatal(err)
			}
			for status, count := range info.Counts {
				if want := map[bool]int{true: workers * each}[status == vectord.TaskCompleted]; count != want {
					t.Errorf("%d tasks are %s, want %d", count, status, want)
				}
			}
			for _, a := range s.Agents() {
				if a.InFlight != 0 || a.Load.TaskRatio != 0 {
					t.Errorf("agent %s has %d leases and load %v", a.ID, a.InFlight, a.Load)
				}
			}
		})
	}
}
