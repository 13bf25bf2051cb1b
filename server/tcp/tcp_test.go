package tcpserver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/wire"
	tcpserver "github.com/vectord/vectord/server/tcp"
)

// TestOrder checks that tasks of one producer arrive in their order, and as batches.
func TestOrder(t *testing.T) {
	scheduler := newFake()
	address, _ := start(t, scheduler, tcpserver.Options{})
	c := dial(t, address, client.TCPOptions{})
	const n = 5_000
	var all sync.WaitGroup
	for i := range n {
		all.Add(1)
		err := c.SubmitFunc(t.Context(), "q", &vectord.NewTask{Payload: strconv.AppendInt(nil, int64(i), 10)}, func(s vectord.Submitted, err error) {
			if err != nil || s.Position != i+1 || s.Status != vectord.TaskQueued || !s.Durable {
				t.Errorf("task %d: %+v, %v", i, s, err)
			}
			all.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	if len(scheduler.batches) > n/20 {
		t.Errorf("%d tasks came in %d batches", n, len(scheduler.batches))
	}
	for i := 0; i < n; {
		tasks, err := c.Lease(t.Context(), vectord.LeaseRequest{AgentID: "a", MaxTasks: 700})
		if err != nil || len(tasks) == 0 {
			t.Fatalf("%d tasks, %v", len(tasks), err)
		}
		for _, task := range tasks {
			if string(task.Payload) != strconv.Itoa(i) || task.Queue != "q" || task.LeaseExpiresAt != 1_700_000_000_123 {
				t.Fatalf("task %d is %+v", i, task)
			}
			i++
		}
	}
}

// TestItemErrors checks that one bad task or call costs the others nothing.
func TestItemErrors(t *testing.T) {
	scheduler := newFake()
	address, _ := start(t, scheduler, tcpserver.Options{})
	c := dial(t, address, client.TCPOptions{})
	results, err := c.Submit(t.Context(), "q", vectord.NewTask{Payload: []byte("1")}, vectord.NewTask{Payload: []byte("{bad")}, vectord.NewTask{Payload: []byte("3")})
	if err != nil || len(results) != 3 || results[0].Err != nil || client.StatusOf(results[1].Err) != 400 || results[2].Err != nil {
		t.Fatalf("%+v, %v", results, err)
	}
	tasks, err := c.Lease(t.Context(), vectord.LeaseRequest{AgentID: "a", MaxTasks: 10})
	if err != nil || len(tasks) != 2 || string(tasks[1].Payload) != "3" {
		t.Fatalf("%+v, %v", tasks, err)
	}
	outcomes, err := c.Call(t.Context(),
		vectord.TaskCall{Kind: vectord.CallHeartbeat, ID: tasks[0].ID, LeaseID: tasks[0].LeaseID, Progress: []byte(`0.5`)},
		vectord.TaskCall{Kind: vectord.CallComplete, ID: tasks[0].ID, LeaseID: tasks[0].LeaseID, Result: []byte(`"done"`),
			Effects: vectord.Effects{Tasks: map[string][]vectord.NewTask{"next": {{}, {}}}}},
		vectord.TaskCall{Kind: vectord.CallComplete, ID: tasks[1].ID},
		vectord.TaskCall{Kind: vectord.CallFail, ID: tasks[1].ID, LeaseID: tasks[1].LeaseID, Error: vectord.TaskError{Code: "c", Message: "m"}, Final: true, RetryAfterMS: 7},
		vectord.TaskCall{Kind: vectord.CallRelease, ID: tasks[1].ID, LeaseID: tasks[1].LeaseID},
		vectord.TaskCall{Kind: vectord.CallRequestInput, ID: tasks[1].ID, LeaseID: tasks[1].LeaseID, Request: []byte(`"?"`)})
	if err != nil {
		t.Fatal(err)
	}
	var refused *client.Error
	if o := outcomes[0]; o.Err != nil || !o.CancelRequested || o.LeaseExpiresAt != 1_700_000_000_456 || o.Status != vectord.TaskRunning {
		t.Errorf("heartbeat: %+v", o)
	}
	if o := outcomes[1]; o.Err != nil || o.Status != vectord.TaskCompleted || len(o.Tasks) != 2 {
		t.Errorf("complete: %+v", o)
	}
	if !errors.As(outcomes[2].Err, &refused) || refused.Status != 409 || refused.Code != vectord.CodeLeaseLost {
		t.Errorf("without a lease: %+v", outcomes[2])
	}
	i := slices.IndexFunc(scheduler.calls, func(c vectord.TaskCall) bool { return c.Kind == vectord.CallFail })
	if c := scheduler.calls[i]; c.Error.Message != "m" || !c.Final || c.RetryAfterMS != 7 {
		t.Errorf("fail came as %+v", c)
	}
	_, err = c.Lease(t.Context(), vectord.LeaseRequest{AgentID: "unknown"})
	if !errors.As(err, &refused) || refused.Status != 404 || refused.Code != vectord.CodeAgentNotFound {
		t.Errorf("lease of an unknown agent: %v", err)
	}
}

// TestRefusedForTheMoment checks that tasks that are refused for the moment are sent again under their keys, and others are not.
func TestRefusedForTheMoment(t *testing.T) {
	scheduler := newFake()
	seen := map[string]int{} // guarded by the lane, which hands on one batch at a time
	scheduler.submit = func(_ string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
		out := make([]vectord.Submitted, len(tasks))
		for i, task := range tasks {
			seen[task.IdempotencyKey]++
			switch {
			case string(task.Payload) == "2":
				out[i].Err = vectord.Refuse(vectord.KindConflict, vectord.CodeKeyReused, "no")
			case seen[task.IdempotencyKey] < 3 && string(task.Payload) != "0":
				out[i].Err = &vectord.Error{Kind: vectord.KindOverloaded, Code: vectord.CodeQueueFull, RetryAfter: time.Millisecond}
			default:
				out[i] = vectord.Submitted{Status: vectord.TaskQueued, Admission: vectord.AdmissionBackpressure, RetryAfterMS: 5}
			}
		}
		return out, nil
	}
	address, _ := start(t, scheduler, tcpserver.Options{})
	c := dial(t, address, client.TCPOptions{})
	results, err := c.Submit(t.Context(), "q", vectord.NewTask{Payload: []byte("0")}, vectord.NewTask{Payload: []byte("1")}, vectord.NewTask{Payload: []byte("2")})
	if err != nil || results[0].Err != nil || results[1].Err != nil || results[1].Admission != vectord.AdmissionBackpressure || client.StatusOf(results[2].Err) != 409 {
		t.Fatalf("%+v, %v", results, err)
	}
	if got := slices.Sorted(func(yield func(int) bool) {
		for _, n := range seen {
			yield(n)
		}
	}); !slices.Equal(got, []int{1, 1, 3}) {
		t.Errorf("tasks came %v times", got)
	}
}

// TestClientReconnects checks that what had no answer when the connection broke is sent again, under the same keys and in order.
func TestClientReconnects(t *testing.T) {
	blocked, broken := newFake(), make(chan struct{})
	var once sync.Once
	var keys []string
	blocked.submit = func(_ string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
		for _, task := range tasks {
			keys = append(keys, task.IdempotencyKey)
		}
		once.Do(func() { close(broken) })
		<-t.Context().Done()
		return nil, t.Context().Err()
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	first := tcpserver.New(blocked, model.New(), tcpserver.Options{})
	go first.Serve(ln)
	c := dial(t, ln.Addr().String(), client.TCPOptions{BatchSize: 2})
	type answer struct {
		s   vectord.Submitted
		err error
	}
	answers := make(chan answer, 10)
	for i := range 10 {
		if err := c.SubmitFunc(t.Context(), "q", &vectord.NewTask{Payload: strconv.AppendInt(nil, int64(i), 10)}, func(s vectord.Submitted, err error) { answers <- answer{s, err} }); err != nil {
			t.Fatal(err)
		}
	}
	<-broken
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = first.Shutdown(now)
	again, err := net.Listen("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	second := newFake()
	startOn(t, again, second, tcpserver.Options{})
	for range 10 {
		if a := <-answers; a.err != nil || a.s.Status != vectord.TaskQueued {
			t.Errorf("%+v", a)
		}
	}
	for i, task := range second.tasks {
		if string(task.Payload) != strconv.Itoa(i) || i < len(keys) && task.IdempotencyKey != keys[i] {
			t.Errorf("task %d came again as %s, key %s, before %q", i, task.Payload, task.IdempotencyKey, keys)
		}
	}
	c.Close()
	if _, err := c.Submit(t.Context(), "q", vectord.NewTask{}); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// TestClientFailsOver checks that a client of several servers leaves one that is down, one that hangs and one that does not lead,
// and that what it was sending arrives once, in order, at the one that does.
func TestClientFailsOver(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	down := ln.Addr().String()
	_ = ln.Close() // nobody answers at its address

	var leads atomic.Bool // whether first does
	leads.Store(true)
	first, second := newFake(), newFake()
	notLeader := vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "no")
	followed := make(chan struct{}, 1_000)
	first.submit = func(_ string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
		out := make([]vectord.Submitted, len(tasks))
		for i := range out {
			out[i] = vectord.Submitted{Status: vectord.TaskQueued, Admission: vectord.AdmissionOK}
			if !leads.Load() {
				out[i] = vectord.Submitted{Err: notLeader}
				followed <- struct{}{}
			}
		}
		return out, nil
	}
	first.lease = func() ([]vectord.Task, error) { return nil, notLeader }
	a, _ := start(t, first, tcpserver.Options{})
	b, _ := start(t, second, tcpserver.Options{})

	c, err := client.DialTCP(t.Context(), down, client.TCPOptions{Servers: []string{a, hangingServer(t), b}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	submit := func(payload string) {
		t.Helper()
		out, err := c.Submit(t.Context(), "q", vectord.NewTask{Payload: []byte(payload)})
		if err != nil || out[0].Err != nil {
			t.Fatalf("%+v, %v", out, err)
		}
	}
	submit("0")
	if len(second.tasks) > 0 {
		t.Error("a server that was not the first to answer got a task")
	}
	leads.Store(false)
	submit("1") // refused by the first one, left without an answer by the one that hangs
	submit("2")
	if len(followed) == 0 {
		t.Error("the server that does not lead any more was not asked")
	}
	if len(second.tasks) != 2 || string(second.tasks[0].Payload) != "1" || string(second.tasks[1].Payload) != "2" {
		t.Errorf("the leader got %v", second.tasks)
	}

	// The refusal of a whole frame.
	c2, err := client.DialTCP(t.Context(), a, client.TCPOptions{Servers: []string{b}})
	if err != nil {
		t.Fatal(err)
	}
	defer c2.Close()
	if tasks, err := c2.Lease(t.Context(), vectord.LeaseRequest{AgentID: "agent", MaxTasks: 10}); err != nil || len(tasks) != 2 {
		t.Errorf("leased %v, %v", tasks, err)
	}

	if _, err := client.DialTCP(t.Context(), down, client.TCPOptions{Servers: []string{down}}); !errors.As(err, new(*net.OpError)) {
		t.Errorf("dialled where nobody answers: %v", err)
	}
}

// hangingServer returns the address of a server that welcomes its clients and then says nothing.
func hangingServer(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() }) // nobody waits for it
	go func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = nc.Close() }) // the client has
			welcome, err := wire.AppendFrame(nil, wire.FrameResult, wire.FlagLast, 0, &wire.Welcome{Credits: 4})
			if err == nil {
				_, err = nc.Write(welcome)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}()
	return ln.Addr().String()
}

func TestPoints(t *testing.T) {
	address, _ := start(t, newFake(), tcpserver.Options{Keys: access.Keys{APIKey: "secret", ReadOnlyAPIKey: "look"}})
	if _, err := client.DialTCP(t.Context(), address, client.TCPOptions{APIKey: "wrong"}); client.StatusOf(err) != 401 {
		t.Fatalf("a wrong key: %v", err)
	}
	c, reader := dial(t, address, client.TCPOptions{APIKey: "secret", Compress: true}), dial(t, address, client.TCPOptions{APIKey: "look"})
	points := []vectord.Point{{ID: vectord.NumberID(1), Vectors: vectord.Unnamed([]float32{1, 0}), Payload: []byte(`{"a":"` + strings.Repeat("x", 5000) + `"}`)},
		{ID: vectord.UUIDID([16]byte{7}), Vectors: vectord.Unnamed([]float32{0, 1})}}
	if _, err := c.Upsert(t.Context(), "c", points); client.StatusOf(err) != 404 {
		t.Fatalf("without the collection: %v", err)
	}
	if err := engineOf(t).CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Upsert(t.Context(), "c", points); err != nil {
		t.Fatal(err)
	}
	bad := []vectord.Point{{ID: vectord.NumberID(2), Vectors: vectord.Unnamed([]float32{1, 0}), Payload: []byte(`{`)}}
	if _, err := c.Upsert(t.Context(), "c", bad); client.StatusOf(err) != 400 {
		t.Errorf("a bad payload: %v", err)
	}
	q := vectord.Query{Nearest: vectord.Near([]float32{1, 0.5}), Limit: 5, Select: vectord.Selection{Payload: true, Vectors: true}}
	for _, c := range []*client.TCP{c, reader} {
		hits, err := c.Search(t.Context(), "c", q)
		if err != nil || len(hits) != 2 || hits[0].ID != points[0].ID || hits[1].Score != 0.5 || !reflect.DeepEqual(hits[1].Vectors, points[1].Vectors) || len(hits[0].Payload) < 5000 {
			t.Errorf("%+v, %v", hits, err)
		}
	}
	if _, err := reader.Upsert(t.Context(), "c", points); client.StatusOf(err) != 403 {
		t.Errorf("a key that only reads writes: %v", err)
	}
	if results, err := reader.Submit(t.Context(), "q", vectord.NewTask{}); err != nil || client.StatusOf(results[0].Err) != 403 {
		t.Errorf("a key that only reads submits: %+v, %v", results, err)
	}
	q.Filter, _ = vectord.ParseFilter([]byte(`{"must":[{"has_id":[1]}]}`))
	if hits, err := c.Search(t.Context(), "c", q); err != nil || len(hits) != 1 {
		t.Errorf("filtered: %+v, %v", hits, err)
	}
	q.Limit = 0
	if _, err := c.Search(t.Context(), "c", q); client.StatusOf(err) != 422 {
		t.Errorf("limit 0: %v", err)
	}
}

// raw is a client that sends what it wants.
type raw struct {
	t testing.TB
	net.Conn
}

func (r raw) send(kind wire.FrameType, flags uint8, id uint32, m wire.Marshaler) {
	r.t.Helper()
	b, err := wire.AppendFrame(nil, kind, flags, id, m)
	if err == nil {
		_, err = r.Write(b)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// next returns the next frame. ok is false at the end of the connection.
func (r raw) next() (h wire.Header, body []byte, ok bool) {
	r.t.Helper()
	var b [wire.HeaderBytes]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return h, nil, false
	}
	h, err := wire.ParseHeader(&b)
	if err != nil {
		r.t.Fatal(err)
	}
	body = make([]byte, h.BodyBytes)
	if _, err := io.ReadFull(r, body); err != nil {
		r.t.Fatal(err)
	}
	return h, body, true
}

// refusal returns the next frame, which must be an error.
func (r raw) refusal(id uint32, status int) {
	r.t.Helper()
	h, body, ok := r.next()
	var e wire.Error
	if ok {
		_, err := e.UnmarshalMsg(body)
		ok = err == nil
	}
	if !ok || h.Type != wire.FrameError || h.ID != id || e.Status != status {
		r.t.Errorf("got %+v %+v, want status %d for frame %d", h, e, status, id)
	}
}

func (r raw) shake(version uint16) {
	b := binary.BigEndian.AppendUint16([]byte(wire.Magic), version)
	if _, err := r.Write(append(b, 0, 0)); err != nil {
		r.t.Fatal(err)
	}
}

// pipes listens for connections within the process, which have the clock of synctest.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), done: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// connect returns a connection that has said hello.
func (p *pipes) connect(t testing.TB) raw {
	t.Helper()
	ours, theirs := net.Pipe()
	p.conns <- theirs
	r := raw{t, ours}
	r.shake(wire.Version)
	r.send(wire.FrameHello, 0, 1, &wire.Hello{})
	if h, _, ok := r.next(); !ok || h.Type != wire.FrameResult || h.ID != 1 {
		t.Fatalf("hello is answered by %+v", h)
	}
	return r
}

// within runs a test of a server that listens for pipes, with a clock of its own.
func within(t *testing.T, o tcpserver.Options, test func(t *testing.T, p *pipes, scheduler *fake, server *tcpserver.Server)) {
	synctest.Test(t, func(t *testing.T) {
		p, scheduler := newPipes(), newFake()
		server := tcpserver.New(scheduler, model.New(), o)
		served := make(chan error)
		go func() { served <- server.Serve(p) }()
		test(t, p, scheduler, server)
		if err := server.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// TestMalformed checks what of a malformed client costs it the connection and what does not.
func TestMalformed(t *testing.T) {
	within(t, tcpserver.Options{}, func(t *testing.T, p *pipes, _ *fake, _ *tcpserver.Server) {
		r := p.connect(t)
		r.send(99, 0, 2, nil)
		r.refusal(2, 400)
		r.send(wire.FrameHello, 0, 3, &wire.Hello{})
		r.refusal(3, 400)
		r.send(wire.FrameSubmitBatch, 0, 4, &wire.Lease{AgentID: "a"}) // fields that it doesn't know: no tasks
		if h, _, _ := r.next(); h.ID != 4 || h.Type != wire.FrameResult {
			t.Errorf("%+v", h)
		}
		r.send(wire.FrameSubmitBatch, 0, 5, wire.Raw("x"))
		r.refusal(5, 400)
		r.send(wire.FrameLease, 0, 6, &wire.Lease{})
		r.refusal(6, 422)
		r.send(wire.FrameLease, 0, 7, &wire.Lease{AgentID: "a", WaitMS: vectord.MaxLeaseWaitMillis + 1})
		r.refusal(7, 422)
		r.send(wire.FrameSearch, 0, 8, &wire.Search{Collection: "c", Vector: wire.Vectors{{Vector: vectord.Dense([]float32{1})}}, Limit: 1})
		r.refusal(8, 404)
		frame, _ := wire.AppendFrame(nil, wire.FrameSubmitBatch, 0, 9, wire.Raw("not S2"))
		frame[5] = wire.FlagS2
		r.Write(frame)
		r.refusal(9, 400)
		r.send(wire.FrameHeartbeatBatch, 0, 10, &wire.CallBatch{Calls: []wire.Call{{Call: "complete", LeaseID: 1}, {Call: "heartbeat", LeaseID: 1}}})
		h, body, _ := r.next()
		var outcomes wire.OutcomeBatch
		if _, err := outcomes.UnmarshalMsg(body); err != nil || h.ID != 10 || outcomes.Results[0].Refusal() == nil || outcomes.Results[1].Code != wire.CodeOK {
			t.Errorf("%+v, %v", outcomes, err)
		}
		r.send(wire.FramePing, 0, 11, nil)
		if h, _, ok := r.next(); !ok || h.ID != 11 || h.Type != wire.FrameResult {
			t.Errorf("the connection does not go on: %+v", h)
		}
		r.send(wire.FrameSubmitBatch, wire.FlagNoReply, 12, &wire.Submit{Queue: "q", Tasks: []wire.NewTask{{}}})
		r.send(wire.FrameSubmitBatch, 0, 13, &wire.Submit{Queue: "q", Tasks: []wire.NewTask{{}}})
		if h, _, ok := r.next(); !ok || h.ID != 13 {
			t.Errorf("no answer was wanted, but came: %+v", h)
		}
		r.Write([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 14})
		r.refusal(14, 413)
		if _, _, ok := r.next(); ok {
			t.Error("the connection goes on after a malformed length")
		}

		ours, theirs := net.Pipe()
		p.conns <- theirs
		r = raw{t, ours}
		r.shake(9)
		r.refusal(0, 400)
		ours, theirs = net.Pipe()
		p.conns <- theirs
		r = raw{t, ours}
		r.shake(wire.Version)
		r.send(wire.FramePing, 0, 1, nil)
		r.refusal(1, 400)
		ours, theirs = net.Pipe()
		p.conns <- theirs
		ours.Write([]byte("GET / HT"))
		if n, err := ours.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("HTTP is answered: %d, %v", n, err)
		}
	})
}

// TestCredits checks that a connection with too much unanswered is not read, and goes on when there are answers.
func TestCredits(t *testing.T) {
	within(t, tcpserver.Options{}, func(t *testing.T, p *pipes, scheduler *fake, _ *tcpserver.Server) {
		release := make(chan struct{})
		var sizes []int
		scheduler.submit = func(_ string, tasks []vectord.NewTask) ([]vectord.Submitted, error) {
			<-release
			sizes = append(sizes, len(tasks))
			out := make([]vectord.Submitted, len(tasks))
			for i := range out {
				out[i] = vectord.Submitted{Status: vectord.TaskQueued, Admission: vectord.AdmissionOK}
			}
			return out, nil
		}
		r := p.connect(t)
		for id := range uint32(64) {
			r.send(wire.FrameSubmitBatch, 0, id, &wire.Submit{Queue: "q", Tasks: []wire.NewTask{{}}})
		}
		r.send(wire.FramePing, 0, 99, nil) // is in the server's buffer, but is not looked at
		var ids []uint32
		go func() {
			for range 65 {
				h, _, _ := r.next()
				ids = append(ids, h.ID)
			}
		}()
		synctest.Wait()
		if len(ids) > 0 {
			t.Errorf("frames %d are answered", ids)
		}
		close(release)
		synctest.Wait()
		total := 0
		for _, n := range sizes {
			total += n
		}
		// What comes while the first call is under way goes into one.
		if len(ids) != 65 || !slices.Contains(ids, 99) || len(sizes) > 2 || total != 64 {
			t.Errorf("frames %d are answered, which were handed on as %d", ids, sizes)
		}
		r.Close()
	})
}

// TestAgentDies checks that the leases of an agent end a while after its last connection, and not if it comes back.
func TestAgentDies(t *testing.T) {
	within(t, tcpserver.Options{}, func(t *testing.T, p *pipes, scheduler *fake, _ *tcpserver.Server) {
		lease := func(r raw, agent string) {
			t.Helper()
			r.send(wire.FrameLease, 0, 5, &wire.Lease{AgentID: agent})
			if h, _, _ := r.next(); h.Type != wire.FrameLeased || h.ID != 5 {
				t.Fatalf("%+v", h)
			}
		}
		ended := func(want ...string) {
			t.Helper()
			synctest.Wait()
			scheduler.mu.Lock()
			defer scheduler.mu.Unlock()
			if !slices.Equal(scheduler.ended, want) {
				t.Errorf("ended are the leases of %q, want %q", scheduler.ended, want)
			}
		}
		one, two := p.connect(t), p.connect(t)
		lease(one, "a")
		lease(one, "b")
		lease(two, "b")
		one.Close()
		time.Sleep(tcpserver.DefaultReconnectGrace - 1)
		ended()
		time.Sleep(time.Nanosecond)
		ended("a agent_died") // b has another connection
		two.Close()
		time.Sleep(tcpserver.DefaultReconnectGrace - 1)
		two = p.connect(t)
		lease(two, "b")
		time.Sleep(time.Hour / 60)
		ended("a agent_died") // b came back
		two.Close()
		time.Sleep(tcpserver.DefaultReconnectGrace)
		ended("a agent_died", "b agent_died")
	})
}

// TestPollDies checks that tasks that are leased for a connection that is gone go back at once.
func TestPollDies(t *testing.T) {
	within(t, tcpserver.Options{}, func(t *testing.T, p *pipes, scheduler *fake, _ *tcpserver.Server) {
		r := p.connect(t)
		release := make(chan struct{})
		scheduler.lease = func() ([]vectord.Task, error) {
			<-release
			return []vectord.Task{{ID: vectord.TaskID{1}, LeaseID: 7}}, nil
		}
		r.send(wire.FrameLease, 0, 5, &wire.Lease{AgentID: "a", WaitMS: 30_000})
		synctest.Wait()
		r.Close()
		synctest.Wait()
		close(release)
		synctest.Wait()
		if len(scheduler.calls) != 1 || scheduler.calls[0].Kind != vectord.CallRelease || scheduler.calls[0].LeaseID != 7 {
			t.Errorf("calls: %+v", scheduler.calls)
		}
	})
}

// TestLargeLease checks that tasks that do not fit into one answer go back.
func TestLargeLease(t *testing.T) {
	scheduler := newFake()
	address, _ := start(t, scheduler, tcpserver.Options{})
	c := dial(t, address, client.TCPOptions{})
	large := vectord.NewTask{Payload: []byte(`"` + strings.Repeat("x", vectord.MaxTaskBytes-2) + `"`)}
	if results, err := c.Submit(t.Context(), "q", slices.Repeat([]vectord.NewTask{large}, 20)...); err != nil || results[19].Err != nil {
		t.Fatal(err, results[19].Err)
	}
	tasks, err := c.Lease(t.Context(), vectord.LeaseRequest{AgentID: "a", MaxTasks: 20})
	if err != nil || len(tasks) != 14 {
		t.Fatalf("%d tasks, %v", len(tasks), err)
	}
	if err := c.Ping(t.Context()); err != nil { // makes no difference to what is checked below but that it takes a round trip
		t.Fatal(err)
	}
	for released := 0; released != 6; {
		scheduler.mu.Lock()
		released = len(scheduler.calls)
		scheduler.mu.Unlock()
	}
}

// TestShutdown checks that what is being served is answered, that clients are told to go, and that leases stay.
func TestShutdown(t *testing.T) {
	within(t, tcpserver.Options{}, func(t *testing.T, p *pipes, scheduler *fake, server *tcpserver.Server) {
		release := make(chan struct{})
		scheduler.submit = func(string, []vectord.NewTask) ([]vectord.Submitted, error) {
			<-release
			return []vectord.Submitted{{Status: vectord.TaskQueued, Admission: vectord.AdmissionOK}}, nil
		}
		r := p.connect(t)
		r.send(wire.FrameLease, 0, 2, &wire.Lease{AgentID: "a", WaitMS: 30_000})
		r.send(wire.FrameSubmitBatch, 0, 3, &wire.Submit{Queue: "q", Tasks: []wire.NewTask{{}}})
		synctest.Wait()
		var got []string
		read := make(chan struct{})
		go func() {
			defer close(read)
			for {
				h, _, ok := r.next()
				if !ok {
					return
				}
				got = append(got, fmt.Sprintf("%s %d", h.Type, h.ID))
			}
		}()
		down := make(chan error)
		go func() { down <- server.Shutdown(t.Context()) }()
		synctest.Wait()
		close(release)
		if err := <-down; err != nil {
			t.Error(err)
		}
		<-read
		if want := []string{"goaway 0", "leased 2", "result 3"}; !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		time.Sleep(time.Minute)
		if len(scheduler.ended) > 0 {
			t.Errorf("the leases of %q ended with the server", scheduler.ended)
		}
	})
}

// TestIdle checks that a connection that says nothing is ended, unless it waits for something.
func TestIdle(t *testing.T) {
	within(t, tcpserver.Options{IdleTimeout: 10 * time.Second}, func(t *testing.T, p *pipes, _ *fake, _ *tcpserver.Server) {
		r := p.connect(t)
		begin := time.Now()
		r.send(wire.FrameLease, 0, 2, &wire.Lease{AgentID: "a", WaitMS: 25_000})
		if h, _, ok := r.next(); !ok || h.Type != wire.FrameLeased {
			t.Errorf("%+v", h)
		}
		if _, _, ok := r.next(); ok || time.Since(begin) != 30*time.Second {
			t.Errorf("ended after %v", time.Since(begin))
		}
	})
}

// TestFramesAreBounded checks that a frame for which there is no memory is refused, and the connection goes on.
func TestFramesAreBounded(t *testing.T) {
	within(t, tcpserver.Options{MaxFramesBytes: 10_000}, func(t *testing.T, p *pipes, _ *fake, _ *tcpserver.Server) {
		r := p.connect(t)
		large := &wire.Submit{Queue: "q", Tasks: []wire.NewTask{{Payload: wire.Raw(`"` + strings.Repeat("x", 20_000) + `"`)}}}
		go r.send(wire.FrameSubmitBatch, 0, 2, large)
		r.refusal(2, 429)
		r.send(wire.FrameSubmitBatch, wire.FlagS2, 3, large) // is small until it is decompressed
		r.refusal(3, 429)
		r.send(wire.FramePing, 0, 4, nil)
		if h, _, ok := r.next(); !ok || h.ID != 4 {
			t.Errorf("%+v", h)
		}
		r.Close()
	})
}

// FuzzConnection feeds a server with anything after hello.
func FuzzConnection(f *testing.F) {
	seed := func(flags uint8) (b []byte) {
		b, _ = wire.AppendFrame(b, wire.FrameSubmitBatch, flags, 1, &wire.Submit{Queue: "q", Tasks: []wire.NewTask{{Payload: wire.Raw(`"` + strings.Repeat("x", 2000) + `"`)}}})
		b, _ = wire.AppendFrame(b, wire.FrameLease, 0, 2, &wire.Lease{AgentID: "a", WaitMS: 1})
		b, _ = wire.AppendFrame(b, wire.FrameAckBatch, 0, 3, &wire.CallBatch{Calls: []wire.Call{{Call: "complete", LeaseID: 1, Tasks: wire.Nested{0x80}}}})
		b, _ = wire.AppendFrame(b, wire.FrameUpsert, 0, 4, &wire.Upsert{Collection: "c", Points: []wire.Point{{Vector: wire.Vectors{{Vector: vectord.Dense([]float32{1})}}}}})
		b, _ = wire.AppendFrame(b, wire.FrameSearch, 0, 5, &wire.Search{Collection: "c", Vector: wire.Vectors{{Vector: vectord.Dense([]float32{1})}}, Limit: 1})
		b, _ = wire.AppendFrame(b, wire.FramePing, 0, 6, nil)
		return b
	}
	f.Add(seed(0))
	f.Add(seed(wire.FlagS2))
	f.Add(seed(wire.FlagZstd))
	p := newPipes()
	server := tcpserver.New(newFake(), model.New(), tcpserver.Options{ReconnectGrace: time.Nanosecond})
	go server.Serve(p)
	f.Fuzz(func(t *testing.T, b []byte) {
		r := p.connect(t)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			io.Copy(io.Discard, r.Conn)
		}()
		r.Write(b) // fails where the server ends the connection
		r.Close()
		<-ended
	})
}
