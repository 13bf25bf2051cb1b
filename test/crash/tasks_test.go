package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
)

// An agent is a process of this test's own binary with these variables set.
const (
	agentVariable    = "CRASH_AGENT"
	agentURLVariable = "CRASH_AGENT_URL" // of one server, or of those of a cluster, separated by commas
	agentLogVariable = "CRASH_AGENT_LOG"
)

const (
	workQueue   = "work"
	effectQueue = "effects" // of which each completion puts one task into
	agentSlots  = 4
	submitBatch = 20
	producers   = 4
	poisonEach  = 50 // of so many tasks one fails for good
	chaosPage   = 1_000
	// agentLives is how long an agent lives on average.
	agentLives = 1500 * time.Millisecond
	// killDelay is how long a server lives on at most once its share of the tasks is acknowledged.
	killDelay = 200 * time.Millisecond
	workDepth = 200 // tasks that wait: producers are kept back, so that all lives of the server have work
	workTime  = 10 * time.Millisecond
)

// runAgent leases tasks and completes them until it is killed or whoever started it is gone. What it was told goes to a log.
func runAgent(id, url, logPath string) {
	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	log, err := os.OpenFile(logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	note := func(what string, task *vectord.Task) { fmt.Fprintf(log, "%s %s %s\n", what, task.ID, task.LeaseID) }
	urls := strings.Split(url, ",")
	c, err := client.New(urls[0], client.Options{Attempts: 1, Servers: urls[1:]})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	ctx := context.Background()
	for registered := false; ; {
		if !registered {
			registered = c.RegisterAgent(ctx, id, vectord.AgentConfig{Queues: []string{workQueue}, Capacity: agentSlots}) == nil
		}
		tasks, err := c.Lease(ctx, vectord.LeaseRequest{AgentID: id, MaxTasks: agentSlots, WaitMS: 500})
		if err != nil {
			registered = false
			time.Sleep(20 * time.Millisecond) // the server is about to come back
			continue
		}
		for i := range tasks {
			task := &tasks[i]
			note("leased", task)
			time.Sleep(rand.N(workTime))
			call := vectord.TaskCall{ID: task.ID, LeaseID: task.LeaseID, Kind: vectord.CallComplete, Result: json.RawMessage(`"` + task.LeaseID.String() + `"`),
				Effects: vectord.Effects{Tasks: map[string][]vectord.NewTask{effectQueue: {{Payload: json.RawMessage(`"` + task.ID.String() + `"`)}}}}}
			switch n := 0; {
			case json.Unmarshal(task.Payload, &n) != nil:
				call = vectord.TaskCall{ID: task.ID, LeaseID: task.LeaseID, Kind: vectord.CallFail, Final: true, Error: vectord.TaskError{Code: "no_number"}}
			case n%poisonEach == 0:
				call = vectord.TaskCall{ID: task.ID, LeaseID: task.LeaseID, Kind: vectord.CallFail, Final: true, Error: vectord.TaskError{Code: "poison"}}
			case rand.IntN(20) == 0:
				call = vectord.TaskCall{ID: task.ID, LeaseID: task.LeaseID, Kind: vectord.CallFail, Error: vectord.TaskError{Code: "unlucky"}}
			}
			for try := 0; try < 10; try++ { // the same again is harmless
				if _, err = c.CallTask(ctx, call); err == nil || client.StatusOf(err) == 409 || client.StatusOf(err) == 404 {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			if err == nil && call.Kind == vectord.CallComplete {
				note("completed", task)
			}
		}
	}
}

// chaos is a server, or those of a cluster, and agents, all of which are killed now and then.
type chaos struct {
	t      *testing.T
	seed   uint64
	random *rand.Rand
	urls   func(i int) []string // of the servers, the first of which agent or producer i asks first
	logs   string
	client *client.Client
	kills  atomic.Int64 // of servers
	deaths atomic.Int64 // of agents
	mu     sync.Mutex   // guards acknowledged
	// acknowledged are the tasks that the server has said it has, by number.
	acknowledged map[int]vectord.TaskID
}

// live keeps one agent alive, and kills it, until ctx ends.
func (c *chaos) live(ctx context.Context, i int) {
	random := rand.New(rand.NewPCG(c.seed, uint64(i)))
	for life := 0; ctx.Err() == nil; life++ {
		agent := exec.Command(os.Args[0])
		agent.Env = append(serverEnv(), agentVariable+fmt.Sprintf("=agent-%d", i), agentURLVariable+"="+strings.Join(c.urls(i), ","),
			agentLogVariable+"="+filepath.Join(c.logs, fmt.Sprintf("%d-%d", i, life)))
		agent.Stderr = os.Stderr
		stdin, err := agent.StdinPipe()
		if err == nil {
			err = agent.Start()
		}
		if err != nil {
			c.t.Errorf("start an agent: %v", err)
			return
		}
		select {
		case <-time.After(time.Duration(random.ExpFloat64() * float64(agentLives))):
			c.deaths.Add(1)
		case <-ctx.Done():
		}
		agent.Process.Kill()
		agent.Wait()
		stdin.Close()
	}
}

// produce submits tasks until all of its share are acknowledged.
func (c *chaos) produce(ctx context.Context, first, end int) {
	for ; first < end; first += submitBatch {
		var tasks []vectord.NewTask
		for n := first; n < min(first+submitBatch, end); n++ {
			tasks = append(tasks, vectord.NewTask{Payload: json.RawMessage(fmt.Sprint(n)), IdempotencyKey: fmt.Sprint("task ", n)})
		}
		for ctx.Err() == nil {
			out, err := c.client.Submit(ctx, workQueue, tasks)
			if err != nil {
				time.Sleep(10 * time.Millisecond) // the server is about to come back, or has no room
				continue
			}
			refused := false
			c.mu.Lock()
			for i, o := range out {
				if o.Err != nil {
					refused = true
				} else if before, ok := c.acknowledged[first+i]; ok && before != o.TaskID {
					c.t.Errorf("task %d is %s, and was %s", first+i, o.TaskID, before)
				} else {
					c.acknowledged[first+i] = o.TaskID
				}
			}
			c.mu.Unlock()
			if !refused {
				break
			}
		}
	}
}

// taken returns how many tasks are acknowledged.
func (c *chaos) taken() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acknowledged)
}

// scroll calls fn for all tasks of a queue.
func (c *chaos) scroll(ctx context.Context, queue string, fn func(*vectord.Task)) {
	s := vectord.TaskScroll{Queue: queue, Limit: chaosPage}
	for {
		tasks, next, err := c.client.ScrollTasks(ctx, s)
		if err != nil {
			c.t.Fatalf("scroll queue %s: %v", queue, err)
		}
		for i := range tasks {
			fn(&tasks[i])
		}
		if next == nil || len(tasks) == 0 {
			return
		}
		s.After = tasks[len(tasks)-1].ID
	}
}

// newChaos returns one over servers that run.
func newChaos(t *testing.T, seed uint64, urls func(i int) []string) *chaos {
	t.Helper()
	c := &chaos{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), urls: urls, logs: t.TempDir(), acknowledged: map[int]vectord.TaskID{}}
	var err error
	if c.client, err = client.New(urls(0)[0], client.Options{Attempts: 1, Servers: urls(0)[1:]}); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestTasksSurviveChaos kills a server and its agents at random moments while tasks are submitted, leased and completed, and
// then counts from outside: every acknowledged task was completed, with its effect once and the result of the one lease
// whose holder was told so, or is in the dead letters with a reason. CHAOS_TASKS, CHAOS_AGENTS and CHAOS_KILLS make it longer.
func TestTasksSurviveChaos(t *testing.T) {
	seed := number(t, "CRASH_SEED", rand.Uint64())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with CRASH_SEED=%d, as far as chance allows", seed)
		}
	})
	address, dataDir := freeAddress(t), t.TempDir()
	server := startAt(t, dataDir, address)
	server.waitReady(t)
	c := newChaos(t, seed, func(int) []string { return []string{"http://" + address} })
	c.run(2_000, 10, 4, func() {
		server.kill()
		server = startAt(t, dataDir, address)
		server.waitReady(t)
	}, func() string { return server.output.String() })
	server.terminate(t)
}

// TestClusterTasks is the same at a cluster, of which it kills the leader: agents and producers know all nodes, and each begins
// with another one.
func TestClusterTasks(t *testing.T) {
	cluster := newCluster(t)
	c := newChaos(t, cluster.seed, cluster.urls)
	c.run(1_000, 8, 2, func() {
		leader := cluster.leader(anyone)
		leader.kill()
		cluster.leader(func(m *member) bool { return m != leader })
		time.Sleep(time.Duration(c.random.Int64N(int64(settleTime))))
		leader.start(true)
		cluster.whole()
	}, func() string { return "see the nodes' logs" })
}

// run has agents work on tasks, with as many kills in between, unless the environment says otherwise, and counts. said tells what the
// servers have said.
func (c *chaos) run(total, agents, kills int, kill func(), said func() string) {
	t := c.t
	t.Helper()
	total, agents, kills = int(number(t, "CHAOS_TASKS", uint64(total))), int(number(t, "CHAOS_AGENTS", uint64(agents))), int(number(t, "CHAOS_KILLS", uint64(kills)))
	limit := 2*time.Minute + time.Duration(total)*5*time.Millisecond + time.Duration(kills)*wholeLimit
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	config := vectord.DefaultQueueConfig()
	config.LeaseSeconds, config.MaxAttempts, config.MaxDepth = 2, 100, workDepth/2
	config.Backoff = vectord.Backoff{InitialMS: 20, Factor: 1, MaxMS: 20}
	for queue, overflow := range map[string]int{workQueue: workDepth / 2, effectQueue: total} {
		config.MaxOverflow = overflow
		if err := c.client.PutQueue(ctx, queue, config); err != nil {
			t.Fatal(err)
		}
	}

	began := time.Now()
	life, endOfLife := context.WithCancel(ctx)
	defer endOfLife()
	var agentsDone, producersDone sync.WaitGroup
	defer agentsDone.Wait()
	defer endOfLife()
	for i := range agents {
		agentsDone.Go(func() { c.live(life, i) })
	}
	share := (total + producers - 1) / producers
	for i := range producers {
		producersDone.Go(func() { c.produce(ctx, 1+i*share, min(1+(i+1)*share, total+1)) })
	}
	for i := range kills {
		for c.taken() < total*(i+1)/(kills+1) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(c.random.Int64N(int64(killDelay))))
		kill()
		c.kills.Add(1)
	}
	producersDone.Wait()
	for open := -1; open != 0; {
		info, err := c.client.Queue(ctx, workQueue)
		if ctx.Err() != nil {
			t.Fatalf("%d tasks are stuck: %v, %v\n%s", open, info.Counts, err, said())
		}
		if err != nil {
			continue
		}
		open = 0
		for status, n := range info.Counts {
			if !status.Terminal() {
				open += n
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	endOfLife()
	agentsDone.Wait()
	took := time.Since(began)

	// What the agents were told.
	completedBy, holders := map[string]string{}, map[string]string{} // task → lease, lease → log
	leases := 0
	logs, err := os.ReadDir(c.logs)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range logs {
		f, err := os.Open(filepath.Join(c.logs, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			if len(fields) != 3 {
				continue // its writer was killed
			}
			switch what, task, lease := fields[0], fields[1], fields[2]; what {
			case "leased":
				leases++
				if other, ok := holders[lease]; ok {
					t.Errorf("lease %s was given to %s and to %s", lease, other, entry.Name())
				}
				holders[lease] = entry.Name()
			case "completed":
				if other, ok := completedBy[task]; ok && other != lease {
					t.Errorf("task %s was completed under leases %s and %s", task, other, lease)
				}
				completedBy[task] = lease
			}
		}
		f.Close()
	}
	// What the server has.
	effects := map[string]int{}
	c.scroll(ctx, effectQueue, func(task *vectord.Task) {
		var of string
		if err := json.Unmarshal(task.Payload, &of); err != nil {
			t.Errorf("effect %s: %v", task.Payload, err)
		}
		effects[of]++
	})
	found := map[int]*vectord.Task{}
	statuses := map[vectord.TaskStatus]int{}
	c.scroll(ctx, workQueue, func(task *vectord.Task) {
		var number int
		if err := json.Unmarshal(task.Payload, &number); err != nil {
			t.Errorf("task %s has payload %s", task.ID, task.Payload)
			return
		}
		if other := found[number]; other != nil {
			t.Errorf("task %d is there twice: %s and %s", number, other.ID, task.ID)
		}
		found[number] = task
		statuses[task.Status]++
		effect := effects[task.ID.String()]
		delete(effects, task.ID.String())
		switch task.Status {
		case vectord.TaskCompleted:
			lease, told := completedBy[task.ID.String()]
			if effect != 1 || told && string(task.Result) != `"`+lease+`"` {
				t.Errorf("task %d is completed with result %s and %d effects; the holder of lease %q was told so", number, task.Result, effect, lease)
			}
		case vectord.TaskFailed:
			if effect != 0 || task.Error == nil || task.Error.Code == "" || completedBy[task.ID.String()] != "" {
				t.Errorf("task %d failed with error %+v and %d effects", number, task.Error, effect)
			}
			if number%poisonEach != 0 {
				t.Errorf("task %d, which nothing was wrong with, failed: %+v", number, task.Error)
			}
		default:
			t.Errorf("task %d is %s", number, task.Status)
		}
	})
	if len(effects) > 0 {
		t.Errorf("%d effects are of no task", len(effects))
	}
	for number, id := range c.acknowledged {
		if task := found[number]; task == nil || task.ID != id {
			t.Errorf("task %d was acknowledged as %s, and there is %v", number, id, task)
		}
	}
	if len(c.acknowledged) != total {
		t.Errorf("%d of %d tasks were acknowledged", len(c.acknowledged), total)
	}
	t.Logf("%d tasks in %v: %v; %d leases, %d kills of the server, %d of agents", total, took.Round(time.Millisecond), statuses, leases, c.kills.Load(), c.deaths.Load())
}
