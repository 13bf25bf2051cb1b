package group

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

// load is clients that add to the set of a cluster until they are stopped.
type load struct {
	t      *testing.T
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu     sync.Mutex
	sent   map[string]error // what came of each; nil: acknowledged
	errors []error          // but for those of stop
}

// load starts clients that each add one thing after another through these nodes in turn.
func (c *cluster) load(clients int, nodes ...*testNode) *load {
	ctx, cancel := context.WithCancel(c.t.Context())
	l := &load{t: c.t, cancel: cancel, sent: map[string]error{}}
	for id := range clients {
		l.work.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.add(ctx, nodes[(id+i)%len(nodes)], fmt.Sprint(id, "-", i))
			}
		})
	}
	return l
}

func (l *load) add(ctx context.Context, n *testNode, key string) {
	_, err := n.do(ctx, kvCommand{Op: "add", Key: key})
	l.mu.Lock()
	l.sent[key] = err
	if err != nil && ctx.Err() == nil {
		l.errors = append(l.errors, err)
	}
	l.mu.Unlock()
	if err != nil {
		rest(ctx)
	}
}

// rest keeps a client from asking one who refuses at once all the time.
func rest(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(5 * time.Millisecond):
	}
}

// acknowledged returns how many additions were.
func (l *load) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, err := range l.sent {
		n += btoi(err == nil)
	}
	return n
}

// goesOn waits until there are more acknowledgements.
func (l *load) goesOn(c *cluster) {
	c.t.Helper()
	before := l.acknowledged()
	c.eventually("writes are acknowledged again", func() bool { return l.acknowledged() >= before+20 })
}

// stop ends the clients, and returns the errors that they saw before.
func (l *load) stop() []error {
	l.cancel()
	l.work.Wait()
	return l.errors
}

// unaware stops the clients, who must not have seen any error.
func (l *load) unaware() {
	l.t.Helper()
	for i, err := range l.stop() {
		if i < 3 {
			l.t.Errorf("a client saw: %v", err)
		}
	}
}

// check compares what clients were told with the state: what was acknowledged is there, once, what was refused is not, and
// nothing is there twice.
func (l *load) check(final *kvImage) {
	l.t.Helper()
	acknowledged, refused, unknown := 0, 0, 0
	for key, err := range l.sent {
		times := final.Added[key]
		switch {
		case err == nil:
			acknowledged++
			if times != 1 {
				l.t.Errorf("%s was acknowledged and applied %d times", key, times)
			}
		case open(err):
			unknown++
			if times > 1 {
				l.t.Errorf("%s, of unknown outcome, was applied %d times", key, times)
			}
		default:
			refused++
			if times != 0 {
				l.t.Errorf("%s was refused (%v) and applied %d times", key, err, times)
			}
		}
	}
	if len(final.Added) > len(l.sent) {
		l.t.Errorf("%d were applied, %d sent", len(final.Added), len(l.sent))
	}
	l.t.Logf("%d acknowledged, %d refused, %d unknown", acknowledged, refused, unknown)
}

// open says whether an operation that failed may have had an effect, or still have one.
func open(err error) bool {
	return strings.Contains(err.Error(), "unknown") || vectord.KindOf(err) == vectord.KindInternal
}
