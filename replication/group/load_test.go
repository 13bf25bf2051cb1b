package group

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

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

// TestFault46ForgottenMemberHasNoVote has a member lose its data and come back at its address as somebody else.
func TestFault46ForgottenMemberHasNoVote(t *testing.T) {
	c := newCluster(t, 3, Options{})
	leader := c.leader()
	n, other := c.followers()[0], c.followers()[1]
	n.crash()
	n.tail.Wait()
	n.mu.Lock()
	n.fs, n.logs = vfs.NewCrashableMem(), newMemLogs()
	n.state = newKVState(n.fs, c.random(), nil)
	n.o.ID, n.o.FS = "somebody else", n.fs
	n.mu.Unlock()
	n.start()
	last := leader.must(kvCommand{Op: "put", Key: "k", New: "v"})
	c.eventually("what was lost is there again", func() bool {
		g := n.get()
		return g != nil && g.Index() >= last.Index
	})
	grants := func(to *testNode, term uint64) bool {
		var r raft.RequestVoteResponse
		err := answer(leader.wire, raft.ServerAddress(to.id), &raft.RequestVoteRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(leader.id), Addr: []byte(leader.id)},
			Term:      term, LastLogIndex: 1 << 40, LastLogTerm: term, LeadershipTransfer: true,
		}, nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		return r.Granted
	}
	if grants(n, 1000) {
		t.Error("a node that has forgotten what it acknowledged has a vote")
	}
	if !grants(other, 2000) {
		t.Error("a member has no vote")
	}
}
