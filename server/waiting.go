package server

import (
	"context"
	"time"

	"github.com/vectord/vectord"
)

const (
	// maxWaiting bounds the requests that wait for something to happen. They do not count among those being served, of which
	// they would leave no room for the others, but each takes one of the connections.
	maxWaiting = 16_384

	// maxEventStreams bounds the streams of events being sent.
	maxEventStreams = 1_024
)

// waitFor makes the request one that waits, if d is not 0: its place among those being served is free for another. The context
// ends after d, and when the server shuts down.
func (r *request) waitFor(d time.Duration) (ctx context.Context, done context.CancelFunc, err error) {
	if d > 0 && !r.waiting {
		if r.server.waiting.Add(1) > maxWaiting {
			r.server.waiting.Add(-1)
			return nil, nil, vectord.Errorf(vectord.KindOverloaded, "more than %d requests wait", maxWaiting)
		}
		r.waiting = true
		r.server.calls.Add(-1)
	}
	ctx, done = context.WithTimeout(r.server.serving, d)
	return ctx, done, nil
}

// leave gives back the place that the request has among those being served or those that wait.
func (r *request) leave() {
	if r.waiting {
		r.server.waiting.Add(-1)
	} else {
		r.server.calls.Add(-1)
	}
}
