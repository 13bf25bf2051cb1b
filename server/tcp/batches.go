package tcpserver

import (
	"context"
	"fmt"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/wire"
)

// batch is a frame of items, T, each of which has its own answer, R.
type batch[T, R any] struct {
	frame *frame
	queue string // of its tasks
	items []T    // those that can be handed on
	// answers has one for each item that the frame brought, in order; at says which those of items are.
	answers []R
	at      []int
}

// batches is a kind of frame that brings items.
type batches[T, R any] struct {
	read  func(f *frame) (*batch[T, R], error)
	hand  func(ctx context.Context, s *Server, queue string, items []T) ([]R, error)
	reply func(answers []R) wire.Marshaler
}

var submitting = &batches[vectord.NewTask, wire.Submitted]{
	read: readSubmit,
	hand: func(ctx context.Context, s *Server, queue string, tasks []vectord.NewTask) ([]wire.Submitted, error) {
		results, err := s.scheduler.Submit(ctx, queue, tasks)
		if err != nil {
			return nil, err
		}
		answers := make([]wire.Submitted, len(results))
		for i := range results {
			s.logInternal(wire.FrameSubmitBatch, results[i].Err)
			answers[i] = wire.SubmittedOf(&results[i])
		}
		return answers, nil
	},
	reply: func(answers []wire.Submitted) wire.Marshaler { return &wire.SubmittedBatch{Results: answers} },
}

var calling = &batches[vectord.TaskCall, wire.Outcome]{
	read: readCalls,
	hand: func(ctx context.Context, s *Server, _ string, calls []vectord.TaskCall) ([]wire.Outcome, error) {
		outcomes, err := s.scheduler.Call(ctx, calls)
		if err != nil {
			return nil, err
		}
		answers := make([]wire.Outcome, len(outcomes))
		for i := range outcomes {
			s.logInternal(wire.FrameAckBatch, outcomes[i].Err)
			answers[i] = wire.OutcomeOf(&outcomes[i])
		}
		return answers, nil
	},
	reply: func(answers []wire.Outcome) wire.Marshaler { return &wire.OutcomeBatch{Results: answers} },
}

func readSubmit(f *frame) (*batch[vectord.NewTask, wire.Submitted], error) {
	var m wire.Submit
	if _, err := m.UnmarshalMsg(f.body); err != nil {
		return nil, wire.Malformed(f.Type, err)
	}
	b := newBatch[vectord.NewTask, wire.Submitted](f, len(m.Tasks))
	b.queue = m.Queue
	for i := range m.Tasks {
		task, err := m.Tasks[i].NewTask()
		if err != nil {
			b.answers[i] = wire.SubmittedOf(&vectord.Submitted{Err: err})
			continue
		}
		b.add(i, task)
	}
	return b, nil
}

func readCalls(f *frame) (*batch[vectord.TaskCall, wire.Outcome], error) {
	var m wire.CallBatch
	if _, err := m.UnmarshalMsg(f.body); err != nil {
		return nil, wire.Malformed(f.Type, err)
	}
	b := newBatch[vectord.TaskCall, wire.Outcome](f, len(m.Calls))
	left := wire.FullBudget()
	for i := range m.Calls {
		call, err := m.Calls[i].TaskCall(&left)
		if err == nil && (call.Kind == vectord.CallHeartbeat) != (f.Type == wire.FrameHeartbeatBatch) {
			err = vectord.Errorf(vectord.KindInvalid, "call: %s has no place in %s", m.Calls[i].Call, f.Type)
		}
		if err != nil {
			b.answers[i] = wire.OutcomeOf(&vectord.CallOutcome{Err: err})
			continue
		}
		b.add(i, call)
	}
	return b, nil
}

func newBatch[T, R any](f *frame, n int) *batch[T, R] {
	return &batch[T, R]{frame: f, items: make([]T, 0, n), answers: make([]R, n), at: make([]int, 0, n)}
}

// add adds item i of the frame to those that are handed on.
func (b *batch[T, R]) add(i int, item T) {
	b.items, b.at = append(b.items, item), append(b.at, i)
}

// serveBatches serves the frames of a lane. Those that came while others were served, for one queue, are handed on together.
func serveBatches[T, R any](c *conn, l lane, kind *batches[T, R]) {
	var together []*batch[T, R]
	for f := range l {
		next := readBatch(c, f, kind)
		for next != nil {
			together = append(together[:0], next)
			next = nil
			for items := len(together[0].items); next == nil && items < vectord.MaxTaskBatch; {
				more, ok := takeBatch(c, l, kind)
				if !ok {
					break
				}
				if more == nil { // it was refused
					continue
				}
				if more.queue != together[0].queue || items+len(more.items) > vectord.MaxTaskBatch {
					next = more
					continue
				}
				items += len(more.items)
				together = append(together, more)
			}
			handTogether(c, together, kind)
		}
	}
}

// takeBatch reads the frame that waits in a lane, if there is one.
func takeBatch[T, R any](c *conn, l lane, kind *batches[T, R]) (b *batch[T, R], ok bool) {
	select {
	case f, ok := <-l:
		if !ok {
			return nil, false
		}
		return readBatch(c, f, kind), true
	default:
		return nil, false
	}
}

// readBatch reads a frame, or refuses it.
func readBatch[T, R any](c *conn, f *frame, kind *batches[T, R]) *batch[T, R] {
	if _, err := c.authorize(access.Write, access.ScopeServer, ""); err != nil {
		c.finish(f, nil, err)
		return nil
	}
	b, err := guarded(c, f, func(context.Context) (*batch[T, R], error) { return kind.read(f) })
	if err != nil {
		c.finish(f, nil, err)
		return nil
	}
	c.server.metrics.messages.Add(float64(len(b.answers)))
	return b
}

// handTogether hands the items of batches for one queue on, and answers each batch.
func handTogether[T, R any](c *conn, together []*batch[T, R], kind *batches[T, R]) {
	items := together[0].items
	if len(together) > 1 {
		items = make([]T, 0, vectord.MaxTaskBatch)
		for _, b := range together {
			items = append(items, b.items...)
		}
	}
	var answers []R
	var err error
	if len(items) > 0 {
		answers, err = guarded(c, together[0].frame, func(ctx context.Context) ([]R, error) {
			answers, err := kind.hand(ctx, c.server, together[0].queue, items)
			if err == nil && len(answers) != len(items) {
				panic(fmt.Sprintf("the scheduler gave %d answers to %d items", len(answers), len(items)))
			}
			return answers, err
		})
	}
	for _, b := range together {
		if err != nil {
			c.finish(b.frame, nil, err)
			continue
		}
		for i, at := range b.at {
			b.answers[at] = answers[i]
		}
		answers = answers[len(b.at):]
		c.finish(b.frame, kind.reply(b.answers), nil)
	}
}
