package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
)

const (
	// hopPause bounds the pause before the next server is asked what another one has failed to answer.
	hopPause = 20 * time.Millisecond
	// hangsAfter is how long a request waits, where there are several servers, before its server is asked whether it lives, and
	// how long before it is asked again. A server that is stopped, or behind a cut link, leaves its connections open.
	hangsAfter = 2 * time.Second
	// lifeSignWithin is how long it has to answer that.
	lifeSignWithin = 2 * time.Second
)

// errHangs is the error of requests to a server that gave no sign of life.
var errHangs = fmt.Errorf("the server has given no sign of life for %v", hangsAfter+lifeSignWithin)

// servers are those of one cluster: any of them may be asked.
type servers struct {
	list    []*node
	current atomic.Uint32 // place in list of the one that is asked
}

func (s *servers) at() uint32 { return s.current.Load() }

// leave has another server be asked from now on than the one that has failed, once however many requests it has failed.
func (s *servers) leave(at uint32) { s.current.CompareAndSwap(at, (at+1)%uint32(len(s.list))) }

// retryable reports whether the same request may succeed later, or elsewhere. Of several servers, one that is cut off from the
// others answers that it took too long.
func (s *servers) retryable(err error) bool {
	return retryable(err) || len(s.list) > 1 && StatusOf(err) == http.StatusRequestTimeout
}

// next chooses who gets a request for which the given number of attempts has failed, the last one at a server, and
// returns how long to wait before. Once all servers have failed the pauses grow; that there is no leader yet is no reason to stay
// away for as long as a server asks that is about to stop.
func (s *servers) next(at uint32, attempt int, err error) time.Duration {
	n := len(s.list)
	if n == 1 || CodeOf(err) == vectord.CodeQueueFull { // the queue is the same at all servers
		return pause(attempt, err)
	}
	s.leave(at)
	switch {
	case attempt%n != 0:
		return rand.N(hopPause)
	case StatusOf(err) == http.StatusServiceUnavailable:
		return backoff(attempt / n)
	}
	return pause(attempt/n, err)
}

// withoutEffect reports whether a request that failed has certainly changed nothing, and will not.
func withoutEffect(err error) bool {
	switch status := StatusOf(err); status {
	case 0:
		var network *net.OpError
		return errors.As(err, &network) && network.Op == "dial"
	case http.StatusServiceUnavailable:
		return CodeOf(err) == vectord.CodeNotLeader
	case http.StatusInsufficientStorage:
		return true
	default:
		return status < 500 && status != http.StatusRequestTimeout
	}
}

// node is one of a cluster.
type node struct {
	base string // scheme, host and path prefix without a trailing slash

	mu    sync.Mutex // guards asked
	asked *lifeSign  // that has no answer yet, or nil
}

// lifeSign is the question whether a server lives.
type lifeSign struct {
	answered chan struct{}
	err      error // valid once answered is closed
}

// watch gives a request up when its server gives no sign of life. ctx is the request's, and ends with it. Whoever calls end
// does not want that any more.
func (c *Client) watch(ctx context.Context, s *node, giveUp context.CancelCauseFunc) (end func()) {
	t := time.AfterFunc(hangsAfter, func() {
		for ctx.Err() == nil {
			if c.lives(ctx, s) != nil {
				giveUp(errHangs)
				return
			}
			_ = wait(ctx, hangsAfter) // ctx is looked at above
		}
	})
	return func() { t.Stop() }
}

// lives returns nil if the server answers anything at all. However many requests want to know, it is asked once at a time.
func (c *Client) lives(ctx context.Context, s *node) error {
	s.mu.Lock()
	sign := s.asked
	if sign == nil {
		sign = &lifeSign{answered: make(chan struct{})}
		s.asked = sign
		go c.askLife(s, sign)
	}
	s.mu.Unlock()
	select {
	case <-sign.answered:
		return sign.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) askLife(s *node, sign *lifeSign) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeSignWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/livez", nil)
	if err == nil {
		var resp *http.Response
		if resp, err = c.asking.Do(req); err == nil {
			_ = resp.Body.Close() // that there is one is enough
		}
	}
	s.mu.Lock()
	s.asked = nil
	s.mu.Unlock()
	sign.err = err
	close(sign.answered)
}
