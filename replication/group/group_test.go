package group

import (
	"context"
	"fmt"
	"testing"
	"time"
)

func TestCluster(t *testing.T) {
	c := newCluster(t, 3, Options{})
	for i, n := range c.nodes {
		n.must(kvCommand{Op: "put", Key: "k", New: fmt.Sprint(i)})
		if got := n.kv().get("k"); got != fmt.Sprint(i) {
			t.Errorf("%s reads %q after it wrote %d", n.id, got, i)
		}
		if err := n.get().Synced(t.Context()); err != nil {
			t.Error(err)
		}
	}
	c.same()
}

// TestFreshCostsARoundNowAndThen cuts a follower off: a read that is bounded goes on for its bound, and no longer.
func TestFreshCostsARoundNowAndThen(t *testing.T) {
	c := newCluster(t, 3, Options{})
	follower := c.followers()[0]
	g := follower.get()
	if err := g.Synced(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.net.isolate(follower.id, c.nodes)
	if err := g.Fresh(t.Context(), time.Hour); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := g.Fresh(ctx, time.Nanosecond); err == nil {
		t.Error("a read without the leader was as fresh as it gets")
	}
	c.net.heal()
}
