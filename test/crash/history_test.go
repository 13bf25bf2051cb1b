package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// The load of a cluster test: who writes, and how much.
const (
	setWriters       = 3
	setBatch         = 3 // points of one write
	registerClients  = 3
	registers        = 6
	taskSubmitters   = 2               // the second one has keys
	attemptLimit     = 3 * time.Second // of one request; what has no answer then may still take effect
	clientPause      = 4 * time.Millisecond
	refusedPause     = 20 * time.Millisecond
	countQueue       = "count"
	registerBase     = 1 << 40
	setBase          = 1 << 41
	linearizableRead = "?consistency=linearizable"
	checkLimit       = 2 * time.Minute
	verifyLimit      = 2 * time.Minute
	verifyChunk      = 200
	tasksKept        = 1_000_000
)

// clusterLoad writes to all nodes of a cluster until it is stopped, and knows what it was told:
//
//   - a set of points, each written by one request, which is sent until it is acknowledged, under an idempotency key, or once and
//     without. A point's version is the place in the log of the write that it came from, so it tells whether a write that was
//     sent once took effect twice;
//   - registers, each a point that all clients write, delete and read, for porcupine;
//   - tasks without an idempotency key, each sent once, and tasks with one, each sent until it is acknowledged.
type clusterLoad struct {
	c      *cluster
	start  time.Time
	cancel context.CancelFunc
	ended  sync.WaitGroup
	others atomic.Int64 // points that may be there besides those of the set

	mu        sync.Mutex          // guards what is below
	set       map[uint64]setWrite // by point
	ops       []porcupine.Operation
	tasks     map[string]int // by payload: 1 acknowledged, 0 unknown; those that were refused are not there
	values    int            // the last value given to a register
	refused   map[string]int // how many requests were, by status
	lastAck   time.Time
	longest   time.Duration // without an acknowledgement since mark
	acks      int
	unknownOp int
}

// setWrite is the write of a point of the set.
type setWrite struct {
	acknowledged bool
	operation    uint64 // that was acknowledged; 0 where it was not the first attempt, of which the answer says nothing
}

// load prepares a cluster and begins to write.
func (c *cluster) load() *clusterLoad {
	c.t.Helper()
	l := &clusterLoad{c: c, start: time.Now(), set: map[uint64]setWrite{}, tasks: map[string]int{}, refused: map[string]int{}}
	l.others.Store(registers)
	c.prepare()
	ctx, cancel := context.WithCancel(c.t.Context())
	l.cancel = cancel
	c.t.Cleanup(l.stop)
	l.lastAck = time.Now()
	for i := range setWriters {
		random := rand.New(rand.NewPCG(c.seed, uint64(i)))
		l.ended.Go(func() { l.writeSet(ctx, i, random) })
	}
	for i := range registerClients {
		random := rand.New(rand.NewPCG(c.seed, uint64(100+i)))
		l.ended.Go(func() { l.useRegisters(ctx, i, random) })
	}
	for i := range taskSubmitters {
		random := rand.New(rand.NewPCG(c.seed, uint64(200+i)))
		l.ended.Go(func() { l.submit(ctx, i, random) })
	}
	return l
}

// prepare makes what the load needs, on all nodes.
func (c *cluster) prepare() {
	c.t.Helper()
	m := c.leader(anyone)
	if err := m.api.createCollection(c.t.Context()); err != nil {
		c.fatal("create the collection: %v", err)
	}
	if err := m.api.call(c.t.Context(), http.MethodPut, "/queues/"+countQueue, object{"max_depth": tasksKept, "max_overflow": tasksKept}, nil); err != nil {
		c.fatal("create the queue: %v", err)
	}
	for _, m := range c.members {
		if err := m.api.call(c.t.Context(), http.MethodGet, "/collections/"+collection+linearizableRead, nil, nil); err != nil {
			c.fatal("node %d does not know the collection: %v", m.number, err)
		}
	}
}

// stop ends the load, once what is on its way has an answer.
func (l *clusterLoad) stop() {
	l.cancel()
	l.ended.Wait()
}

// pick chooses a node.
func (l *clusterLoad) pick(random *rand.Rand) *member {
	return l.c.members[random.IntN(len(l.c.members))]
}

// acknowledged notes that a write was.
func (l *clusterLoad) acknowledged() { // mu is held
	now := time.Now()
	l.longest = max(l.longest, now.Sub(l.lastAck))
	l.lastAck = now
	l.acks++
}

// mark returns how many writes were acknowledged since the last mark, and the longest time without one, and waits for one first.
func (l *clusterLoad) mark() (acks int, longest time.Duration) {
	l.c.t.Helper()
	begin := time.Now()
	for limit := begin.Add(gapLimit); ; time.Sleep(pollPause) {
		l.mu.Lock()
		if l.lastAck.After(begin) {
			acks, longest = l.acks, l.longest
			l.acks, l.longest = 0, 0
			l.mu.Unlock()
			return acks, longest
		}
		l.mu.Unlock()
		if time.Now().After(limit) {
			l.c.fatal("no write is acknowledged within %v", gapLimit)
		}
	}
}

// failed notes a request that was not carried out, or may not have been. What should never be said to it fails the test.
func (l *clusterLoad) failed(what string, m *member, err error) {
	key := "no answer"
	var r *refusal
	if errors.As(err, &r) {
		key = strconv.Itoa(r.status)
		switch r.status {
		case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusRequestTimeout:
		default:
			l.c.t.Errorf("%s at node %d: %v", what, m.number, err)
		}
	}
	l.mu.Lock()
	l.refused[key]++
	l.mu.Unlock()
}

// certain reports whether a request that failed has had no effect, and will have none.
func certain(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable && r.code == "not_leader"
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// attempt sends a request once.
func (l *clusterLoad) attempt(m *member, key, method, path string, body, result any) error {
	ctx, cancel := context.WithTimeout(context.Background(), attemptLimit)
	defer cancel()
	return m.api.callUnder(ctx, key, method, path, body, result)
}

func (l *clusterLoad) writeSet(ctx context.Context, writer int, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		var ids []uint64
		var points []object
		l.mu.Lock()
		for i := range 1 + random.IntN(setBatch) {
			id := uint64(setBase + writer<<32 + n*setBatch + i)
			ids = append(ids, id)
			points = append(points, point(id, 1, nobody, 0))
			l.set[id] = setWrite{}
		}
		l.mu.Unlock()
		key := ""
		if random.IntN(2) == 0 {
			key = fmt.Sprintf("set-%d-%d", writer, n)
		}
		for retried := false; ctx.Err() == nil && (key != "" || !retried); retried = true {
			m := l.pick(random)
			var result struct {
				Operation uint64 `json:"operation_id"`
			}
			err := l.attempt(m, key, http.MethodPut, "/collections/"+collection+"/points?wait=true", object{"points": points}, &result)
			if err == nil {
				if retried {
					result.Operation = 0
				}
				l.mu.Lock()
				for _, id := range ids {
					l.set[id] = setWrite{true, result.Operation}
				}
				l.acknowledged()
				l.mu.Unlock()
				break
			}
			l.failed("write", m, err)
			time.Sleep(refusedPause)
		}
		time.Sleep(clientPause)
	}
}

// registerInput is an operation on a register. Value 0 is that of a point that is not there.
type registerInput struct {
	key   int
	kind  string // put, delete or read
	value int
}

// registerModel is a point for each key.
var registerModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, op := range ops {
			key := op.Input.(registerInput).key
			byKey[key] = append(byKey[key], op)
		}
		return slices.Collect(maps.Values(byKey))
	},
	Init: func() any { return 0 },
	Step: func(state, input, output any) (bool, any) {
		in := input.(registerInput)
		if in.kind == "read" {
			return output.(int) == state.(int), state
		}
		return true, in.value // 0 where it deletes
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v %v", input, output) },
}

// readRegister returns the value of a register.
func (l *clusterLoad) readRegister(m *member, key int, parameters string) (int, error) {
	var result struct {
		Payload struct {
			Value int `json:"value"`
		} `json:"payload"`
	}
	err := l.attempt(m, "", http.MethodGet, fmt.Sprintf("/collections/%s/points/%d%s", collection, registerBase+key, parameters), nil, &result)
	if isRefusal(err, http.StatusNotFound) {
		return 0, nil
	}
	return result.Payload.Value, err
}

// writeRegister changes a register; 0 deletes it.
func (l *clusterLoad) writeRegister(m *member, key, value int) error {
	id := registerBase + key
	if value == 0 {
		return l.attempt(m, "", http.MethodPost, "/collections/"+collection+"/points/delete?wait=true", object{"points": []int{id}}, nil)
	}
	return l.attempt(m, "", http.MethodPut, "/collections/"+collection+"/points?wait=true", object{"points": []object{
		{"id": id, "vector": vectorOf(uint64(id), 1), "payload": object{"value": value}}}}, nil)
}

func (l *clusterLoad) useRegisters(ctx context.Context, client int, random *rand.Rand) {
	for ctx.Err() == nil {
		m, in := l.pick(random), registerInput{key: random.IntN(registers)}
		switch random.IntN(8) {
		case 0:
			in.kind = "delete"
		case 1, 2, 3:
			in.kind = "put"
			l.mu.Lock()
			l.values++
			in.value = l.values
			l.mu.Unlock()
		default:
			in.kind = "read"
		}
		l.operate(m, client, in)
		time.Sleep(clientPause)
	}
}

// operate carries out an operation on a register and notes it.
func (l *clusterLoad) operate(m *member, client int, in registerInput) {
	op := porcupine.Operation{ClientId: client, Input: in, Call: time.Since(l.start).Nanoseconds(), Output: 0}
	var err error
	if in.kind == "read" {
		op.Output, err = l.readRegister(m, in.key, linearizableRead)
	} else {
		err = l.writeRegister(m, in.key, in.value)
	}
	op.Return = time.Since(l.start).Nanoseconds()
	if err != nil {
		l.failed(in.kind, m, err)
		time.Sleep(refusedPause)
		if in.kind == "read" || certain(err) {
			return
		}
		op.Return = int64(1) << 62 // it may take effect at any time from now on
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.unknownOp++
	} else if in.kind != "read" {
		l.acknowledged()
	}
	l.ops = append(l.ops, op)
}

func (l *clusterLoad) submit(ctx context.Context, submitter int, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		payload, key := fmt.Sprintf("%d-%d", submitter, n), ""
		if submitter > 0 {
			key = "task-" + payload
		}
		l.mu.Lock()
		l.tasks[payload] = 0
		l.mu.Unlock()
		for again := true; again && ctx.Err() == nil; time.Sleep(clientPause) {
			m := l.pick(random)
			err := l.attempt(m, key, http.MethodPost, "/queues/"+countQueue+"/tasks", object{"payload": payload}, nil)
			again = err != nil && key != ""
			if err != nil {
				l.failed("submit", m, err)
				time.Sleep(refusedPause)
			}
			l.mu.Lock()
			if err == nil {
				l.tasks[payload] = 1
				l.acknowledged()
			} else if key == "" && certain(err) {
				delete(l.tasks, payload)
			}
			l.mu.Unlock()
		}
	}
}

// finish stops the load, and looks on every node for what was acknowledged.
func (l *clusterLoad) finish() {
	t := l.c.t
	t.Helper()
	l.stop()
	l.c.whole()
	for _, m := range l.c.members {
		for key := range registers {
			l.operate(m, registerClients, registerInput{key: key, kind: "read"})
		}
		l.verifySet(m)
	}
	l.verifyTasks(l.c.leader(anyone))
	result, info := porcupine.CheckOperationsVerbose(registerModel, l.ops, checkLimit)
	switch result {
	case porcupine.Illegal:
		path := filepath.Join(l.c.logs, "history.html")
		if err := porcupine.VisualizePath(registerModel, info, path); err != nil {
			t.Error(err)
		}
		t.Errorf("the history of %d operations on registers is not linearizable, see %s", len(l.ops), path)
	case porcupine.Unknown:
		t.Logf("whether the history of %d operations is linearizable was not found out within %v", len(l.ops), checkLimit)
	}
	acknowledged := 0
	for _, w := range l.set {
		if w.acknowledged {
			acknowledged++
		}
	}
	t.Logf("%d of %d points acknowledged and none lost or doubled, %d tasks, %d operations on registers, of %d the outcome is unknown; not answered as asked: %v",
		acknowledged, len(l.set), len(l.tasks), len(l.ops), l.unknownOp, l.refused)
	if t.Failed() {
		l.c.fatal("something is wrong, see above")
	}
}

// verifySet checks the points of the set on one node.
func (l *clusterLoad) verifySet(m *member) {
	t := l.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), verifyLimit)
	defer cancel()
	present := 0
	problems := 0
	complain := func(format string, args ...any) {
		if problems++; problems <= problemsShown {
			t.Errorf("node %d: %s", m.number, fmt.Sprintf(format, args...))
		}
	}
	for ids := range slices.Chunk(slices.Sorted(maps.Keys(l.set)), verifyChunk) {
		var result struct {
			Points []struct {
				record
				Version uint64 `json:"version"`
			} `json:"points"`
		}
		err := m.api.call(ctx, http.MethodPost, "/collections/"+collection+"/points/query"+linearizableRead, object{
			"query": vectorOf(1, 1), "limit": verifyChunk, "params": object{"exact": true}, "with_payload": true, "with_vector": true,
			"filter": object{"must": []object{{"has_id": ids}}}}, &result)
		if err != nil {
			l.c.fatal("node %d: read the set: %v", m.number, err)
		}
		found := map[uint64]bool{}
		for _, p := range result.Points {
			found[p.ID] = true
			if err := sound(p.record); err != nil {
				complain("%v", err)
			}
			if operation := l.set[p.ID].operation; operation != 0 && p.Version != operation {
				complain("point %d was acknowledged as of operation %d, and is of %d: it was written twice", p.ID, operation, p.Version)
			}
		}
		present += len(found)
		for _, id := range ids {
			if w := l.set[id]; w.acknowledged && !found[id] {
				complain("point %d is missing: acknowledged was operation %d", id, w.operation)
			}
		}
	}
	n, err := m.api.count(ctx)
	if err != nil {
		l.c.fatal("node %d: count: %v", m.number, err)
	}
	if others := int(l.others.Load()); n < present || n > present+others {
		complain("it has %d points, of which %d are of the set and at most %d others", n, present, others)
	}
}

// verifyTasks checks that each task that was acknowledged is there once, and that of the others none is there twice.
func (l *clusterLoad) verifyTasks(m *member) {
	t := l.c.t
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), verifyLimit)
	defer cancel()
	times := map[string]int{}
	body := object{"queue": countQueue, "limit": pageSize}
	for {
		var page struct {
			Tasks []struct {
				ID      string `json:"task_id"`
				Payload string `json:"payload"`
			} `json:"tasks"`
			Next *string `json:"next_after"`
		}
		if err := m.api.call(ctx, http.MethodPost, "/tasks/scroll", body, &page); err != nil {
			l.c.fatal("read the tasks: %v", err)
		}
		for _, task := range page.Tasks {
			times[task.Payload]++
		}
		if page.Next == nil {
			break
		}
		body["after"] = *page.Next
	}
	for payload, n := range times {
		if n > 1 {
			t.Errorf("task %s is there %d times", payload, n)
		}
		if _, ok := l.tasks[payload]; !ok {
			t.Errorf("task %s is there, and was refused", payload)
		}
	}
	for payload, acknowledged := range l.tasks {
		if acknowledged == 1 && times[payload] == 0 {
			t.Errorf("task %s was acknowledged and is missing", payload)
		}
	}
}

// TestRegisterModel checks that a stale read and a lost write are not taken for linearizable.
func TestRegisterModel(t *testing.T) {
	f := func(want bool, ops ...porcupine.Operation) {
		t.Helper()
		if got := porcupine.CheckOperations(registerModel, ops); got != want {
			t.Errorf("%+v: linearizable %t, want %t", ops, got, want)
		}
	}
	op := func(kind string, value int, call, ret int64) porcupine.Operation {
		if kind == "read" {
			return porcupine.Operation{Input: registerInput{kind: kind}, Output: value, Call: call, Return: ret}
		}
		return porcupine.Operation{Input: registerInput{kind: kind, value: value}, Output: 0, Call: call, Return: ret}
	}
	const never = int64(1) << 62
	f(true, op("put", 1, 1, 2), op("read", 1, 3, 4))
	f(false, op("put", 1, 1, 2), op("read", 0, 3, 4))                        // lost
	f(false, op("put", 1, 1, 2), op("put", 2, 3, 4), op("read", 1, 5, 6))    // stale
	f(true, op("put", 1, 1, 2), op("put", 2, 3, never), op("read", 1, 5, 6)) // not yet
	f(true, op("put", 1, 1, 2), op("put", 2, 3, never), op("read", 1, 5, 6), op("read", 2, 7, 8))
	f(false, op("put", 1, 1, 2), op("put", 2, 3, never), op("read", 2, 5, 6), op("read", 1, 7, 8)) // back
	f(false, op("put", 1, 1, 2), op("delete", 0, 3, 4), op("read", 1, 5, 6))                       // back from the dead
}
