package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
)

// This file sends the events of tasks as they come, in the form of server-sent events.

const (
	eventContentType = "text/event-stream"

	// keepAlive is after how long without an event a comment is sent, so that everyone on the way knows that the stream lives,
	// and the server finds out when nobody listens any more.
	keepAlive = 15 * time.Second

	// eventsAhead bounds the events of a stream that are not sent yet. Beyond it the scheduler waits.
	eventsAhead = 64

	// refusalWithin is how long the answer waits for the scheduler to refuse a stream. A refusal that comes later ends the
	// stream with an event of the type error.
	refusalWithin = 250 * time.Millisecond
)

func (s *Server) taskEvents(r *request) error {
	id, err := r.taskID()
	if err != nil {
		return err
	}
	if _, err := s.options.Scheduler.Task(id); err != nil {
		return err
	}
	return s.streamEvents(r, "", id)
}

func (s *Server) events(r *request) error {
	queue := string(r.http.QueryArgs().Peek("queue"))
	if queue != "" {
		if err := vectord.CheckName("queue", queue); err != nil {
			return &formError{inQuery, err}
		}
		if _, err := s.options.Scheduler.Queue(queue); err != nil {
			return err
		}
	}
	return s.streamEvents(r, queue, vectord.TaskID{})
}

// streamEvents answers with the events of a queue, of a task, or all of them, after the one that the client had last.
func (s *Server) streamEvents(r *request, queue string, task vectord.TaskID) error {
	var after uint64
	if v := r.http.Request.Header.Peek("Last-Event-ID"); len(v) > 0 {
		var err error
		if after, err = strconv.ParseUint(string(v), 10, 64); err != nil {
			return badHeader("Last-Event-ID", v, "the id of an event, a number")
		}
	}
	wait, done, err := r.waitFor(refusalWithin)
	if err != nil {
		return err
	}
	defer done()
	if s.streams.Add(1) > maxEventStreams {
		s.streams.Add(-1)
		return vectord.Errorf(vectord.KindOverloaded, "more than %d streams of events are being sent", maxEventStreams)
	}
	stream := s.newEventStream(r.http, queue, task, after)
	if err := stream.refused(wait); err != nil {
		stream.stop()
		return err
	}
	r.streamed = true
	r.http.Response.Header.SetContentType(eventContentType)
	r.http.Response.SetBodyStream(stream, -1)
	return nil
}

// eventStream is the events on their way to a client, which has the time of a request for each piece of them. fasthttp reads
// it and closes it.
type eventStream struct {
	server *Server
	http   *fasthttp.RequestCtx
	task   vectord.TaskID // whose end is that of the stream; the zero value where there is none

	ctx     context.Context
	cancel  context.CancelFunc
	stopped sync.Once
	events  chan vectord.TaskEvent
	ended   chan error // gets what ended the events, once

	pending []byte // what is to be read next
	over    bool   // nothing comes after pending
	timer   *time.Timer
}

func (s *Server) newEventStream(http *fasthttp.RequestCtx, queue string, task vectord.TaskID, after uint64) *eventStream {
	e := &eventStream{server: s, http: http, task: task, events: make(chan vectord.TaskEvent, eventsAhead), ended: make(chan error, 1),
		timer: time.NewTimer(keepAlive)}
	e.ctx, e.cancel = context.WithCancel(s.serving)
	go func() {
		e.ended <- s.options.Scheduler.Events(e.ctx, queue, task, after, func(event vectord.TaskEvent) error {
			select {
			case e.events <- event:
				return nil
			case <-e.ctx.Done():
				return e.ctx.Err()
			}
		})
	}()
	e.pending = append(e.pending, ": these are the events\n\n"...) // sends the header off
	return e
}

// refused returns the error with which the scheduler refuses the stream, if it does so before the first event and before wait
// ends.
func (e *eventStream) refused(wait context.Context) error {
	select {
	case event := <-e.events:
		e.append(event)
	case err := <-e.ended:
		if len(e.events) == 0 {
			e.end(err)
			return err
		}
		e.ended <- err // to be told behind the events
	case <-wait.Done():
		e.over = e.hasEnded()
	}
	return nil
}

// Read implements io.Reader.
func (e *eventStream) Read(p []byte) (int, error) {
	for len(e.pending) == 0 {
		if e.over {
			return 0, io.EOF
		}
		e.await()
	}
	if err := e.http.SetWriteDeadline(time.Now().Add(e.server.options.RequestTimeout)); err != nil {
		return 0, err
	}
	n := copy(p, e.pending)
	e.pending = e.pending[n:]
	return n, nil
}

// await waits for the next event, the end, or the time of a sign of life.
func (e *eventStream) await() {
	e.pending = e.pending[:0]
	e.timer.Reset(keepAlive)
	select {
	case event := <-e.events:
		e.append(event)
	case err := <-e.ended:
		if len(e.events) > 0 { // the end comes behind them
			e.append(<-e.events)
			e.ended <- err
			return
		}
		e.end(err)
	case <-e.ctx.Done():
		e.over = true
	case <-e.timer.C:
		e.pending = append(e.pending, ": nothing new\n\n"...)
		e.over = e.hasEnded()
	}
}

// hasEnded reports whether the stream is of a task that is terminal, whose last event the client may have had before.
func (e *eventStream) hasEnded() bool {
	if e.task == (vectord.TaskID{}) {
		return false
	}
	t, err := e.server.options.Scheduler.Task(e.task)
	return err != nil || t.Status.Terminal()
}

func (e *eventStream) append(event vectord.TaskEvent) {
	data, err := json.Marshal(event)
	if err != nil {
		e.end(fmt.Errorf("encode event %d: %w", event.ID, err))
		return
	}
	e.pending = fmt.Appendf(e.pending, "id: %d\nevent: %s\ndata: %s\n\n", event.ID, event.Type, data)
	if e.task != (vectord.TaskID{}) && event.Status.Terminal() {
		e.over = true
	}
}

// end ends the stream behind what is pending. An error other than that of the stream's own end is told.
func (e *eventStream) end(err error) {
	e.over = true
	if err == nil || e.ctx.Err() != nil || errors.Is(err, context.Canceled) {
		return
	}
	data, err := json.Marshal(e.server.errorAnswer(err))
	if err == nil {
		e.pending = fmt.Appendf(e.pending, "event: error\ndata: %s\n\n", data)
	}
}

func (e *eventStream) stop() {
	e.stopped.Do(func() {
		e.cancel()
		e.timer.Stop()
		e.server.streams.Add(-1)
	})
}

// Close implements io.Closer.
func (e *eventStream) Close() error {
	e.stop()
	return nil
}
