package client

import (
	"context"
	"fmt"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/wire"
)

// batcher gathers messages, M, into frames, and gives each its own answer, R. Its fields are guarded by the client's mu.
type batcher[M, R any] struct {
	client  *TCP
	waiting []item[M, R]
	bytes   int         // of waiting
	onWay   int         // batches without an answer
	timer   *time.Timer // runs while messages wait for others
	due     bool        // the first of waiting has waited long enough

	frame  func(key string, messages []M) (wire.FrameType, wire.Marshaler)
	decode func(body []byte, n int) (answers []R, refusals []*wire.Error, err error)
	size   func(*M) int
}

// item is a message on its way.
type item[M, R any] struct {
	message M
	key     string // messages of one batch have the same
	attempt int
	to      sink[R]
	index   int // which of the sink's messages it is
	bytes   int // size of the message, roughly
}

// sink takes answers, from any goroutine. It must not block.
type sink[R any] interface {
	deliver(index int, answer R, err error)
}

func newTaskBatcher(c *TCP) *batcher[wire.NewTask, vectord.Submitted] {
	return newBatcher(c, &batcher[wire.NewTask, vectord.Submitted]{
		frame: func(queue string, tasks []wire.NewTask) (wire.FrameType, wire.Marshaler) {
			return wire.FrameSubmitBatch, &wire.Submit{Queue: queue, Tasks: tasks}
		},
		decode: func(body []byte, n int) (answers []vectord.Submitted, refusals []*wire.Error, err error) {
			var b wire.SubmittedBatch
			if _, err = b.UnmarshalMsg(body); err != nil || len(b.Results) != n {
				return nil, nil, fmt.Errorf("%w: %d results for %d tasks: %w", errResponse, len(b.Results), n, err)
			}
			answers, refusals = make([]vectord.Submitted, n), make([]*wire.Error, n)
			for i := range b.Results {
				refusals[i] = b.Results[i].Refusal()
				if answers[i], err = b.Results[i].Submitted(); err != nil {
					return nil, nil, fmt.Errorf("%w: %w", errResponse, err)
				}
			}
			return answers, refusals, nil
		},
		size: (*wire.NewTask).Msgsize,
	})
}

func newCallBatcher(c *TCP) *batcher[wire.Call, vectord.CallOutcome] {
	return newBatcher(c, &batcher[wire.Call, vectord.CallOutcome]{
		frame: func(key string, calls []wire.Call) (wire.FrameType, wire.Marshaler) {
			if key == heartbeats {
				return wire.FrameHeartbeatBatch, &wire.CallBatch{Calls: calls}
			}
			return wire.FrameAckBatch, &wire.CallBatch{Calls: calls}
		},
		decode: func(body []byte, n int) (answers []vectord.CallOutcome, refusals []*wire.Error, err error) {
			var b wire.OutcomeBatch
			if _, err = b.UnmarshalMsg(body); err != nil || len(b.Results) != n {
				return nil, nil, fmt.Errorf("%w: %d results for %d calls: %w", errResponse, len(b.Results), n, err)
			}
			answers, refusals = make([]vectord.CallOutcome, n), make([]*wire.Error, n)
			for i := range b.Results {
				refusals[i] = b.Results[i].Refusal()
				if answers[i], err = b.Results[i].Outcome(); err != nil {
					return nil, nil, fmt.Errorf("%w: %w", errResponse, err)
				}
			}
			return answers, refusals, nil
		},
		size: (*wire.Call).Msgsize,
	})
}

// heartbeats is the key of heartbeats, which have frames of their own; other calls have the empty one.
const heartbeats = "heartbeat"

func newBatcher[M, R any](c *TCP, b *batcher[M, R]) *batcher[M, R] {
	b.client = c
	b.timer = time.AfterFunc(time.Hour, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		b.due = len(b.waiting) > 0
		b.flush()
	})
	b.timer.Stop()
	return b
}

// add takes a message, which has its place in the client's room.
func (b *batcher[M, R]) add(i item[M, R]) error {
	b.client.mu.Lock()
	defer b.client.mu.Unlock()
	if b.client.failed != nil {
		return b.client.failed
	}
	if len(b.waiting) == 0 {
		b.timer.Reset(b.client.options.BatchWait)
	}
	i.bytes = b.size(&i.message)
	b.bytes += i.bytes
	b.waiting = append(b.waiting, i)
	b.flush()
	return nil
}

// flush sends what is due: batches that are full, what has waited long enough, and anything when nothing is on its way. The
// client's mu is held.
func (b *batcher[M, R]) flush() {
	for len(b.waiting) >= b.client.options.BatchSize || b.bytes > tcpBatchBytesMax || len(b.waiting) > 0 && (b.due || b.onWay == 0) {
		select {
		case b.client.frames <- struct{}{}:
		default:
			return // the next answer flushes
		}
		items := b.take()
		messages := make([]M, len(items))
		for i := range items {
			messages[i] = items[i].message
		}
		t, m := b.frame(items[0].key, messages)
		b.onWay++
		b.client.sendLocked(t, m, true, func(body []byte, err error) { b.answered(items, body, err) })
	}
	if len(b.waiting) == 0 {
		b.due = false
		b.timer.Stop()
	}
}

// take takes the next batch from those that wait.
func (b *batcher[M, R]) take() []item[M, R] {
	n, bytes := 0, 0
	for n < min(len(b.waiting), b.client.options.BatchSize) && b.waiting[n].key == b.waiting[0].key {
		if n > 0 && bytes+b.waiting[n].bytes > tcpBatchBytesMax {
			break
		}
		bytes += b.waiting[n].bytes
		n++
	}
	items := make([]item[M, R], n)
	copy(items, b.waiting)
	left := copy(b.waiting, b.waiting[n:])
	clear(b.waiting[left:])
	b.waiting, b.bytes = b.waiting[:left], b.bytes-bytes
	if !b.due {
		b.timer.Reset(b.client.options.BatchWait)
	}
	return items
}

// answered gives the messages of a batch their answers. Those that were refused for the moment go again, to another server if this
// one does not lead.
func (b *batcher[M, R]) answered(items []item[M, R], body []byte, err error) {
	var answers []R
	var refusals []*wire.Error
	if err == nil {
		answers, refusals, err = b.decode(body, len(items))
	}
	b.client.mu.Lock()
	b.onWay--
	closed := b.client.failed != nil
	b.client.mu.Unlock()
	var again []item[M, R]
	var after time.Duration
	for i := range items {
		itemErr := err
		var answer R
		if err == nil {
			answer = answers[i]
			if refusals[i] != nil {
				itemErr = refusalOf(refusals[i])
				b.client.leave = b.client.leave || refusals[i].Code == string(vectord.CodeNotLeader) // this is read's goroutine
			}
		}
		if itemErr != nil && StatusOf(itemErr) != 0 && retryable(itemErr) && items[i].attempt+1 < b.client.options.Attempts && !closed {
			items[i].attempt++
			again = append(again, items[i])
			after = max(after, b.client.refused(items[i].attempt, itemErr))
			continue
		}
		b.deliver(&items[i], answer, itemErr)
	}
	if len(again) > 0 {
		time.AfterFunc(after, func() { b.sendAgain(again) })
	}
}

// sendAgain puts messages before all that wait.
func (b *batcher[M, R]) sendAgain(items []item[M, R]) {
	b.client.mu.Lock()
	err := b.client.failed
	if err == nil {
		for i := range items {
			b.bytes += items[i].bytes
		}
		b.waiting = append(items, b.waiting...)
		b.due = true
		b.flush()
	}
	b.client.mu.Unlock()
	if err != nil {
		for i := range items {
			var none R
			b.deliver(&items[i], none, err)
		}
	}
}

// takeAll takes everything that waits. The client's mu is held.
func (b *batcher[M, R]) takeAll() []item[M, R] {
	items := b.waiting
	b.waiting, b.bytes, b.due = nil, 0, false
	b.timer.Stop()
	return items
}

// deliver gives a message its answer, and its place to another. mu is not held.
func (b *batcher[M, R]) deliver(i *item[M, R], answer R, err error) {
	<-b.client.room
	i.to.deliver(i.index, answer, err)
}

// take waits for room for a message.
func (c *TCP) take(ctx context.Context) error {
	select {
	case c.room <- struct{}{}:
		return nil
	default:
	}
	select {
	case c.room <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-c.closed:
		return ErrClosed
	}
}

// SubmitFunc takes a task for a queue, for which it waits at most as long as there is no room, and has done called with the answer. done
// must not block, and the task's bytes must not change until then. A task without an idempotency key gets one.
func (c *TCP) SubmitFunc(ctx context.Context, queue string, task *vectord.NewTask, done func(vectord.Submitted, error)) error {
	return c.submit(ctx, queue, task, doneFunc[vectord.Submitted](done), 0)
}

func (c *TCP) submit(ctx context.Context, queue string, task *vectord.NewTask, to sink[vectord.Submitted], index int) error {
	if err := c.take(ctx); err != nil {
		return err
	}
	m := wire.NewTaskOf(task)
	if m.IdempotencyKey == "" {
		m.IdempotencyKey = c.newKey()
	}
	err := c.tasks.add(item[wire.NewTask, vectord.Submitted]{message: m, key: queue, to: to, index: index})
	if err != nil {
		<-c.room
	}
	return err
}

type doneFunc[R any] func(R, error)

func (f doneFunc[R]) deliver(_ int, answer R, err error) { f(answer, err) }

// Submit submits tasks to a queue and returns, in order, what became of each: Err of those that were not accepted is an *Error. The
// error is that of ctx or the connection, and leaves unknown what became of them.
func (c *TCP) Submit(ctx context.Context, queue string, tasks ...vectord.NewTask) ([]vectord.Submitted, error) {
	all := newGather[vectord.Submitted](len(tasks))
	for i := range tasks {
		if err := c.submit(ctx, queue, &tasks[i], all, i); err != nil {
			return nil, fmt.Errorf("submit to %q: %w", queue, err)
		}
	}
	answers, errs, err := all.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("submit to %q: %w", queue, err)
	}
	for i, err := range errs {
		answers[i].Err = err
	}
	return answers, nil
}

// Call says something of leased tasks and returns, in order, what became of each call: Err of those that were refused is an *Error.
// The error is that of ctx or the connection, and leaves unknown what became of them.
func (c *TCP) Call(ctx context.Context, calls ...vectord.TaskCall) ([]vectord.CallOutcome, error) {
	all := newGather[vectord.CallOutcome](len(calls))
	for i := range calls {
		m, err := wire.CallOf(&calls[i])
		if err == nil {
			err = c.take(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("call %d: %w", i, err)
		}
		key := ""
		if calls[i].Kind == vectord.CallHeartbeat {
			key = heartbeats
		}
		if err := c.calls.add(item[wire.Call, vectord.CallOutcome]{message: m, key: key, to: all, index: i}); err != nil {
			<-c.room
			return nil, fmt.Errorf("call %d: %w", i, err)
		}
	}
	answers, errs, err := all.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	for i, err := range errs {
		answers[i].Err = err
	}
	return answers, nil
}
