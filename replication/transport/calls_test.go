package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

// TestCall calls with bodies of all sorts of lengths, around those where frames and connections change.
func TestCall(t *testing.T) {
	p := newPair(t, Options{})
	for _, n := range []int{0, 1, 200, chunkBytes - 1, chunkBytes, chunkBytes + 1, 3 * chunkBytes, growBytes + 1, 5<<20 + 17} {
		body := pattern(n)
		got, err := p.call(t.Context(), methodEcho, body)
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("echo of %d bytes: %d, %v", n, len(got), err)
		}
	}
}

// TestErrorsCross checks what becomes of a handler's errors.
func TestErrorsCross(t *testing.T) {
	security := files(t)
	var answer error
	server, caller := listen(t, Options{Security: security}), listen(t, Options{Security: security})
	server.Handle(1, func(_ context.Context, from string, _ []byte) ([]byte, error) {
		if from != caller.Addr().String() {
			return nil, fmt.Errorf("from %s", from)
		}
		return nil, answer
	})
	server.Start()
	long := strings.Repeat("ü", errorTextBytes)
	f := func(err error, want vectord.Error) {
		t.Helper()
		answer = err
		_, got := caller.Call(t.Context(), server.Addr().String(), 1, nil)
		var e *vectord.Error
		if !errors.As(got, &e) || *e != want || errors.Is(got, ErrUnreachable) || errors.Is(got, ErrUnknown) {
			t.Errorf("%v crossed as %#v, want %#v", err, got, want)
		}
	}
	f(&vectord.Error{Kind: vectord.KindOverloaded, Text: "später", RetryAfter: 1500 * time.Millisecond, Code: vectord.CodeQueueFull},
		vectord.Error{Kind: vectord.KindOverloaded, Text: "später", RetryAfter: 1500 * time.Millisecond, Code: vectord.CodeQueueFull})
	f(vectord.Errorf(vectord.KindNotFound, "collection %q", "x"), vectord.Error{Kind: vectord.KindNotFound, Text: `collection "x"`})
	f(fmt.Errorf("write: %w", vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "gone")),
		vectord.Error{Kind: vectord.KindConflict, Text: "write: gone", Code: vectord.CodeLeaseLost})
	f(errors.New("disk"), vectord.Error{Kind: vectord.KindInternal, Text: "disk"})
	f(context.DeadlineExceeded, vectord.Error{Kind: vectord.KindTimeout, Text: "context deadline exceeded"}) // its own, not the call's
	f(errors.New(long), vectord.Error{Kind: vectord.KindInternal, Text: long[:errorTextBytes]})
	f(errors.New("x"+long), vectord.Error{Kind: vectord.KindInternal, Text: "x" + long[:errorTextBytes-2]})
}

// TestKindsKeepTheirNumbers fails when kinds are reordered, which nodes of different versions would not survive.
func TestKindsKeepTheirNumbers(t *testing.T) {
	names := []string{"internal", "invalid", "unprocessable", "not found", "exists", "too large", "overloaded",
		"no memory", "timeout", "closed", "unsupported", "no space", "limited", "conflict"}
	for i, name := range names {
		if got := vectord.Kind(i).String(); got != name {
			t.Errorf("kind %d is %q, want %q", i, got, name)
		}
	}
}

// check checks the outcome and the kind of a call.
func check(t testing.TB, what string, err, outcome error, kind vectord.Kind) {
	t.Helper()
	var e *vectord.Error
	if !errors.Is(err, outcome) || !errors.As(err, &e) || vectord.KindOf(err) != kind {
		t.Errorf("%s: %v (%s), want %v (%s)", what, err, vectord.KindOf(err), outcome, kind)
	}
	if errors.Is(err, ErrUnreachable) && errors.Is(err, ErrUnknown) {
		t.Errorf("%s: %v is both", what, err)
	}
}

func TestRefusals(t *testing.T) {
	p := newPair(t, Options{BodyBytes: 1 << 20})
	_, err := p.call(t.Context(), 77, nil)
	check(t, "a method that is not there", err, ErrUnreachable, vectord.KindUnsupported)
	_, err = p.call(t.Context(), 77, pattern(5*chunkBytes))
	check(t, "a method that is not there, in chunks", err, ErrUnreachable, vectord.KindUnsupported)
	_, err = p.call(t.Context(), methodEcho, make([]byte, 1<<20+1))
	check(t, "a body that is too long here", err, ErrUnreachable, vectord.KindTooLarge)
	p.caller.o.BodyBytes = 2 << 20
	_, err = p.call(t.Context(), methodEcho, make([]byte, 1<<20+1))
	check(t, "a body that is too long there", err, ErrUnreachable, vectord.KindTooLarge)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = p.call(ended, methodEcho, nil)
	check(t, "a context that has ended", err, ErrUnreachable, vectord.KindTimeout)
	if got, err := p.call(t.Context(), methodEcho, pattern(1<<20)); err != nil || len(got) != 1<<20 {
		t.Errorf("after refusals: %d bytes, %v", len(got), err)
	}
}

// TestReplyTooLarge: the handler has run, so what it did is unknown.
func TestReplyTooLarge(t *testing.T) {
	security := files(t)
	server, caller := listen(t, Options{Security: security, BodyBytes: 1 << 20}), listen(t, Options{Security: security, BodyBytes: 1 << 19})
	server.Handle(1, func(_ context.Context, _ string, body []byte) ([]byte, error) {
		return make([]byte, binary.BigEndian.Uint32(body)), nil
	})
	server.Start()
	call := func(n uint32) ([]byte, error) {
		return caller.Call(t.Context(), server.Addr().String(), 1, binary.BigEndian.AppendUint32(nil, n))
	}
	_, err := call(1<<20 + 1)
	check(t, "a reply that is too long to be sent", err, ErrUnknown, vectord.KindTimeout)
	_, err = call(1<<19 + 1)
	check(t, "a reply that is too long to be received", err, ErrUnknown, vectord.KindTimeout)
	if got, err := call(1 << 19); err != nil || len(got) != 1<<19 {
		t.Errorf("after such replies: %d bytes, %v", len(got), err)
	}
}

// TestManyCalls checks that many calls at once get their own answers, over two connections.
func TestManyCalls(t *testing.T) {
	network := &faulty{}
	p := newPair(t, Options{Dial: network.dial, Handlers: 100})
	var calls sync.WaitGroup
	for i := range 1000 {
		calls.Go(func() {
			body := append(binary.BigEndian.AppendUint32(nil, uint32(i)), pattern(i*100)...)
			if got, err := p.call(t.Context(), methodEcho, body); err != nil || !bytes.Equal(got, body) {
				t.Errorf("call %d: %d bytes, %v", i, len(got), err)
			}
		})
	}
	calls.Wait()
	if n := network.count(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// TestHandlersAreBounded: calls beyond the bounds of their method are refused, those of others are not.
func TestHandlersAreBounded(t *testing.T) {
	p := newPair(t, Options{Handlers: 2, Queue: 3})
	var results []<-chan error
	for range 2 {
		results = append(results, p.start(t.Context(), methodBlock, nil))
		receive(t, "handler", p.entered)
	}
	for range 3 {
		results = append(results, p.start(t.Context(), methodBlock, nil))
	}
	block := p.server.methods[methodBlock]
	until(t, "all are there", func() bool { return block.admitted.Load() == 5 })
	_, err := p.call(t.Context(), methodBlock, nil)
	check(t, "one too many", err, ErrUnreachable, vectord.KindOverloaded)
	var e *vectord.Error
	if errors.As(err, &e); e.RetryAfter != overloadRetry {
		t.Errorf("retry after %s", e.RetryAfter)
	}
	if _, err := p.call(t.Context(), methodEcho, nil); err != nil {
		t.Errorf("another method: %v", err)
	}
	select {
	case <-p.entered:
		t.Error("a third handler runs")
	default:
	}
	close(p.release)
	for _, r := range results {
		if err := receive(t, "call", r); err != nil {
			t.Errorf("a call within the bounds: %v", err)
		}
	}
	waitZero(t, p.server)
}

// waitZero checks that the calls that have ended hold nothing. It is given back a moment after the answer.
func waitZero(t testing.TB, n *Transport) {
	t.Helper()
	held := func() (sum int64) {
		for _, m := range n.methods {
			if m != nil {
				sum += m.admitted.Load() + int64(len(m.slots))
			}
		}
		return sum + n.budgets[0].used.Load() + n.budgets[1].used.Load()
	}
	until(t, "calls that have ended hold nothing", func() bool { return held() == 0 })
}

// TestBudget: bodies beyond the budget are refused, and what is refused costs nothing.
func TestBudget(t *testing.T) {
	p := newPair(t, Options{})
	p.server.budgets[1].max = 1 << 20
	first := p.start(t.Context(), methodBlock, pattern(600<<10))
	ctx := receive(t, "handler", p.entered)
	_, err := p.call(t.Context(), methodBlock, pattern(600<<10))
	check(t, "a body beyond the budget", err, ErrUnreachable, vectord.KindOverloaded)
	if _, err := p.call(t.Context(), methodEcho, pattern(chunkBytes)); err != nil {
		t.Errorf("a small body meanwhile: %v", err)
	}
	close(p.release)
	if err := receive(t, "call", first); err != nil {
		t.Error(err)
	}
	waitZero(t, p.server)
	if ctx.Err() == nil {
		t.Error("the context of a handler that has returned goes on")
	}
	if _, err := p.call(t.Context(), methodBlock, pattern(600<<10)); err != nil {
		t.Errorf("with the budget free again: %v", err)
	}
}

// TestCancel: a caller that goes away ends the handler's context and does not know the outcome.
func TestCancel(t *testing.T) {
	p := newPair(t, Options{})
	for _, n := range []int{10, 3 * chunkBytes} {
		ctx, cancel := context.WithCancel(t.Context())
		result := p.start(ctx, methodBlock, pattern(n))
		receive(t, "handler", p.entered)
		cancel()
		check(t, "a cancelled call", receive(t, "call", result), ErrUnknown, vectord.KindTimeout)
		if err := receive(t, "end of the handler's context", p.ended); !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context: %v", err)
		}
	}
	waitZero(t, p.server)
	if _, err := p.call(t.Context(), methodEcho, pattern(10)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestDeadlineCrosses: the handler has what is left of the caller's time.
func TestDeadlineCrosses(t *testing.T) {
	p := newPair(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	p.start(ctx, methodBlock, nil)
	deadline, ok := receive(t, "handler", p.entered).Deadline()
	if left := time.Until(deadline); !ok || left > time.Hour || left < 50*time.Minute {
		t.Errorf("of an hour, %s are left (%t)", left, ok)
	}
	p.start(t.Context(), methodBlock, nil)
	if deadline, ok := receive(t, "handler", p.entered).Deadline(); ok {
		t.Errorf("of no deadline, %s has come", deadline)
	}
	short, cancelShort := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelShort()
	if _, err := p.call(short, methodBlock, nil); err == nil {
		t.Error("a call went on beyond its deadline")
	}
	if err := receive(t, "end of the handler's context", p.ended); err == nil {
		t.Error("the handler's context has not ended")
	}
	close(p.release)
}

// TestCancelledInQueue: a call whose turn has not come by its end is not run.
func TestCancelledInQueue(t *testing.T) {
	p := newPair(t, Options{Handlers: 1, Queue: 1})
	first := p.start(t.Context(), methodBlock, nil)
	receive(t, "handler", p.entered)
	ctx, cancel := context.WithCancel(t.Context())
	second := p.start(ctx, methodBlock, nil)
	block := p.server.methods[methodBlock]
	until(t, "it is there", func() bool { return block.admitted.Load() == 2 })
	cancel()
	check(t, "a call in the queue", receive(t, "call", second), ErrUnknown, vectord.KindTimeout)
	until(t, "it is gone", func() bool { return block.admitted.Load() == 1 })
	close(p.release)
	if err := receive(t, "call", first); err != nil {
		t.Error(err)
	}
	select {
	case <-p.entered:
		t.Error("the cancelled call ran")
	default:
	}
}

// TestCutMidCall: what was written has an unknown outcome, what was not has none, and the next call finds the node again.
func TestCutMidCall(t *testing.T) {
	network := &faulty{}
	p := newPair(t, Options{Dial: network.dial})
	running := p.start(t.Context(), methodBlock, nil)
	receive(t, "handler", p.entered)
	conn := network.last()
	unblock := conn.block()
	written := p.start(t.Context(), methodEcho, []byte("written in part"))
	receive(t, "write", conn.held)
	queued := p.start(t.Context(), methodEcho, []byte("not written"))
	ctx, cancel := context.WithCancel(t.Context())
	given := p.start(ctx, methodEcho, []byte("not written, and given up"))
	small := p.caller.peers[p.address()].small.conn
	until(t, "all are queued", func() bool {
		small.mu.Lock()
		defer small.mu.Unlock()
		return len(small.calls) == 4
	})
	cancel()
	check(t, "given up before it was written", receive(t, "call", given), ErrUnreachable, vectord.KindTimeout)
	network.cut()
	unblock()
	check(t, "written", receive(t, "call", written), ErrUnknown, vectord.KindTimeout)
	check(t, "running", receive(t, "call", running), ErrUnknown, vectord.KindTimeout)
	check(t, "queued", receive(t, "call", queued), ErrUnreachable, vectord.KindOverloaded)
	if err := receive(t, "end of the handler's context", p.ended); err == nil {
		t.Error("the handler goes on")
	}
	if _, err := p.call(t.Context(), methodEcho, nil); err != nil {
		t.Errorf("after the cut: %v", err)
	}
}

// TestPeerComesBack: a node that is not there is unreachable at once, and reached soon after it is back.
func TestPeerComesBack(t *testing.T) {
	security := files(t)
	caller := listen(t, Options{Security: security})
	first := listen(t, Options{Security: security})
	address := first.Addr().String()
	first.Start()
	_, err := caller.Call(t.Context(), address, methodEcho, nil)
	check(t, "a node without methods", err, ErrUnreachable, vectord.KindUnsupported)
	first.Close()
	for range 12 {
		start := time.Now()
		_, err := caller.Call(t.Context(), address, methodEcho, nil)
		check(t, "a node that is gone", err, ErrUnreachable, vectord.KindOverloaded)
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("that took %s", took)
		}
	}
	again, err := Listen(address, Options{Cluster: "test", Security: security, Logger: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	again.Handle(methodEcho, func(_ context.Context, _ string, body []byte) ([]byte, error) { return body, nil })
	again.Start()
	start := time.Now()
	if _, err := caller.Call(t.Context(), address, methodEcho, nil); err != nil {
		t.Errorf("a node that is back: %v", err)
	}
	took := time.Since(start)
	t.Logf("reached after %s", took)
	if took > redialMax+2*time.Second { // the machine may be busy
		t.Errorf("reached after %s", took)
	}
}

// TestPanic: a handler that panics has an unknown outcome, and nobody else notices.
func TestPanic(t *testing.T) {
	security := files(t)
	server, caller := listen(t, Options{Security: security, Handlers: 1}), listen(t, Options{Security: security})
	server.Handle(1, func(_ context.Context, _ string, body []byte) ([]byte, error) {
		if len(body) > 0 {
			panic("of a test")
		}
		return nil, nil
	})
	server.Start()
	for range 3 {
		_, err := caller.Call(t.Context(), server.Addr().String(), 1, []byte{1})
		check(t, "a panic", err, ErrUnknown, vectord.KindTimeout)
		if _, err := caller.Call(t.Context(), server.Addr().String(), 1, nil); err != nil {
			t.Errorf("after a panic: %v", err)
		}
	}
}

// TestClose: Close of the node that answers cancels handlers and sends their answers; Close of the one that calls fails calls at once.
func TestClose(t *testing.T) {
	p := newPair(t, Options{})
	result := p.start(t.Context(), methodBlock, nil)
	receive(t, "handler", p.entered)
	p.server.Close()
	if err := receive(t, "end of the handler's context", p.ended); err == nil {
		t.Error("the handler's context goes on")
	}
	check(t, "a call of a node that closes", receive(t, "call", result), ErrUnknown, vectord.KindTimeout)
	_, err := p.call(t.Context(), methodEcho, nil)
	check(t, "a call of a node that is closed", err, ErrUnreachable, vectord.KindOverloaded)

	p = newPair(t, Options{})
	result = p.start(t.Context(), methodBlock, nil)
	receive(t, "handler", p.entered)
	p.caller.Close()
	check(t, "a call from a node that closes", receive(t, "call", result), ErrUnknown, vectord.KindTimeout)
	_, err = p.call(t.Context(), methodEcho, nil)
	check(t, "a call from a node that is closed", err, ErrUnreachable, vectord.KindClosed)
	if _, err := p.caller.Group(1); vectord.KindOf(err) != vectord.KindClosed {
		t.Errorf("a group of a node that is closed: %v", err)
	}
	if err := p.caller.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// TestOutcomes makes calls of all sizes while connections are cut, callers give up and the node that answers restarts, and
// then holds what callers were told against what was run.
func TestOutcomes(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	security := files(t)
	network := &faulty{}
	caller := listen(t, Options{Security: security, Dial: network.dial})

	var ranMu sync.Mutex
	ran := map[uint64]int{}
	serve := func(address string) *Transport {
		n, err := Listen(address, Options{Cluster: "test", Security: security, Handlers: 8, Queue: 40, Logger: testLog(t)})
		if err != nil {
			t.Fatal(err)
		}
		n.Handle(1, func(_ context.Context, _ string, body []byte) ([]byte, error) {
			ranMu.Lock()
			defer ranMu.Unlock()
			ran[binary.BigEndian.Uint64(body)]++
			return body, nil
		})
		n.Start()
		return n
	}
	server := serve("127.0.0.1:0")
	address := server.Addr().String()

	const callers, each = 40, 60
	told := make([]error, callers*each)
	var next atomic.Uint64
	var calls sync.WaitGroup
	for range callers {
		own := rand.New(rand.NewPCG(rng.Uint64(), 1))
		calls.Go(func() {
			for range each {
				id := next.Add(1) - 1
				body := pattern(8 + own.IntN(chunkBytes<<own.IntN(3)))
				binary.BigEndian.PutUint64(body, id)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				if own.IntN(4) == 0 {
					ctx, cancel = context.WithTimeout(t.Context(), time.Duration(own.IntN(5_000))*time.Microsecond)
				}
				reply, err := caller.Call(ctx, address, 1, body)
				cancel()
				if err == nil && !bytes.Equal(reply, body) {
					t.Errorf("call %d: another reply than its own", id)
				}
				told[id] = err
			}
		})
	}
	done := make(chan struct{})
	go func() {
		calls.Wait()
		close(done)
	}()
	for faults := 0; ; faults++ {
		select {
		case <-done:
			server.Close()
			var ok, unreached, unclear int
			for id, err := range told {
				n := ran[uint64(id)]
				switch {
				case n > 1:
					t.Errorf("call %d ran %d times", id, n)
				case err == nil:
					ok++
					if n == 0 {
						t.Errorf("call %d did not run, and was answered", id)
					}
				case errors.Is(err, ErrUnreachable):
					unreached++
					if n != 0 {
						t.Errorf("call %d ran, and its caller was told that it was not delivered: %v", id, err)
					}
				case errors.Is(err, ErrUnknown):
					unclear++
				default:
					t.Errorf("call %d: %v", id, err)
				}
			}
			t.Logf("%d faults; %d answered, %d not delivered, %d unknown", faults, ok, unreached, unclear)
			if ok == 0 || faults < 3 {
				t.Error("that is not much of a test")
			}
			return
		case <-time.After(time.Duration(rng.IntN(40)) * time.Millisecond):
			if rng.IntN(6) == 0 {
				server.Close()
				server = serve(address)
			} else {
				network.cut()
			}
		}
	}
}

// TestLargeTakesTurns: small messages and other large ones wait for a chunk, not for a whole body.
func TestLargeTakesTurns(t *testing.T) {
	var s sender
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	s.init(here)
	s.push(&message{kind: frameReply, id: 1, body: pattern(10 * chunkBytes)})
	s.push(&message{kind: frameReply, id: 2, body: pattern(10 * chunkBytes)})
	var order []uint64
	take := func() {
		buf, _ := s.take(nil)
		frames := newFrames(bytes.NewReader(buf))
		for {
			f, err := frames.next()
			if err != nil {
				return
			}
			order = append(order, f.id)
		}
	}
	take()
	take()
	s.push(&message{kind: frameReply, id: 3, body: []byte("small")})
	take()
	take()
	if got := fmt.Sprint(order); got != "[1 2 3 1 2]" {
		t.Errorf("written in the order %s", got)
	}
}
