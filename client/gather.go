package client

import (
	"context"
	"sync/atomic"
)

// gather collects the answers to several messages. Each is written by one goroutine, and read when all are there.
type gather[R any] struct {
	answers []R
	errs    []error
	left    atomic.Int64
	all     chan struct{} // closed when none is left
}

func newGather[R any](n int) *gather[R] {
	g := &gather[R]{answers: make([]R, n), errs: make([]error, n), all: make(chan struct{})}
	g.left.Store(int64(n))
	if n == 0 {
		close(g.all)
	}
	return g
}

func (g *gather[R]) deliver(index int, answer R, err error) {
	g.answers[index], g.errs[index] = answer, err
	if g.left.Add(-1) == 0 {
		close(g.all)
	}
}

// wait waits for all answers.
func (g *gather[R]) wait(ctx context.Context) (answers []R, errs []error, err error) {
	select {
	case <-g.all:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	for _, err := range g.errs {
		if err != nil && StatusOf(err) == 0 {
			return nil, nil, err
		}
	}
	return g.answers, g.errs, nil
}
