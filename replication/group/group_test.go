package group

import (
	"fmt"
	"testing"
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
