package group

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/vectord/vectord"
)

// A history is what clients saw: operations on keys, for porcupine, and the members of a set that were acknowledged.
type history struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
	added map[string]bool // acknowledged or not
}

type kvResult struct {
	value   string
	swapped bool
	unknown bool
}

// kvModel is a register for each key.
var kvModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range ops {
			key := op.Input.(kvCommand).Key
			byKey[key] = append(byKey[key], op)
		}
		return slices.Collect(maps.Values(byKey))
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		s, in, out := state.(string), input.(kvCommand), output.(kvResult)
		switch in.Op {
		case "put":
			return true, in.New
		case "delete":
			return true, ""
		case "cas":
			if out.unknown {
				if s == in.Old {
					return true, in.New
				}
				return true, s
			}
			if out.swapped {
				return s == in.Old, in.New
			}
			return s != in.Old, s
		}
		return out.unknown || s == out.value, s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v %+v", input, output) },
}

// keyLife is how long operations are done on the same keys. What became of some of them is unknown, and the time that it takes
// to check a key's history grows with their number by powers.
const keyLife = time.Second

// client does random operations at random nodes until ctx ends.
func (h *history) client(ctx context.Context, c *cluster, id int, rng *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		n := c.nodes[rng.IntN(len(c.nodes))]
		in := kvCommand{
			Op:  []string{"put", "put", "cas", "delete", "get", "read", "read", "add", "add"}[rng.IntN(9)],
			Key: fmt.Sprintf("k%d-%d", rng.IntN(5), time.Since(h.start)/keyLife),
			Old: fmt.Sprint(rng.IntN(4)),
			New: fmt.Sprint(rng.IntN(4)),
		}
		if in.Op == "add" {
			in.Key = fmt.Sprintf("%d-%d", id, i)
		}
		h.do(ctx, n, id, in, time.Duration(50+rng.IntN(3000))*time.Millisecond)
	}
}

func (h *history) do(ctx context.Context, n *testNode, client int, in kvCommand, patience time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	call := time.Since(h.start).Nanoseconds()
	var out kvResult
	var err error
	if in.Op == "read" {
		out.value, err = n.read(ctx, in.Key)
	} else {
		var r vectord.Result
		r, err = n.do(ctx, in)
		switch v := r.Value.(type) {
		case string:
			out.value = v
		case bool:
			out.swapped = v
		}
	}
	end := time.Since(h.start).Nanoseconds()
	if err != nil {
		time.Sleep(time.Millisecond) // a node that is down refuses at once, and a history should have more than that
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if in.Op == "add" {
		h.added[in.Key] = err == nil
		return
	}
	if err != nil {
		if in.Op == "read" || in.Op == "get" {
			return
		}
		// It may take effect at any time from now on, so it has not returned yet.
		out, end = kvResult{unknown: true}, int64(1)<<62
	}
	h.ops = append(h.ops, porcupine.Operation{ClientId: client, Input: in, Call: call, Output: out, Return: end})
}

// read is a linearizable read of this node's state.
func (n *testNode) read(ctx context.Context, key string) (string, error) {
	n.mu.Lock()
	g, s := n.group, n.state
	n.mu.Unlock()
	if g == nil {
		return "", vectord.Errorf(vectord.KindClosed, "%s is down", n.id)
	}
	if err := g.Synced(ctx); err != nil {
		return "", err
	}
	return s.get(key), nil
}

func (h *history) check(t *testing.T, final *kvImage) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	acknowledged := 0
	for id, ok := range h.added {
		if ok {
			acknowledged++
			if final.Added[id] == 0 {
				t.Errorf("lost: %s was acknowledged", id)
			}
		}
	}
	for id, times := range final.Added {
		if times != 1 {
			t.Errorf("%s was applied %d times", id, times)
		}
		if _, sent := h.added[id]; !sent {
			t.Errorf("%s was never sent", id)
		}
	}
	result, info := porcupine.CheckOperationsVerbose(kvModel, h.ops, time.Minute)
	switch result {
	case porcupine.Illegal:
		path := t.TempDir() + "/history.html"
		_ = porcupine.VisualizePath(kvModel, info, path)
		t.Errorf("the history of %d operations is not linearizable", len(h.ops))
	case porcupine.Unknown:
		t.Errorf("the history of %d operations took too long to check", len(h.ops))
	}
	t.Logf("%d operations on keys, %d of %d additions acknowledged", len(h.ops), acknowledged, len(h.added))
}

// chaos does a random fault, and says what it did.
func (c *cluster) chaos(rng *rand.Rand) string {
	n := c.nodes[rng.IntN(len(c.nodes))]
	up := 0
	for _, n := range c.nodes {
		up += btoi(n.get() != nil)
	}
	switch rng.IntN(22) {
	case 0:
		c.net.isolate(n.id, c.nodes)
		return "isolate " + n.id
	case 1:
		other := c.nodes[rng.IntN(len(c.nodes))]
		c.net.set(func(net *network) { net.cut[[2]string{n.id, other.id}] = true })
		return "cut " + n.id + " to " + other.id
	case 2, 3, 16, 17, 18:
		c.net.heal()
		return "heal"
	case 4:
		c.net.set(func(net *network) { net.drop = rng.Float64() * 0.2 })
		return "drop"
	case 5:
		c.net.set(func(net *network) { net.twice = rng.Float64() })
		return "duplicate"
	case 6:
		c.net.set(func(net *network) { net.delay = time.Duration(rng.IntN(40)) * time.Millisecond })
		return "delay"
	case 7:
		if g := n.get(); g != nil {
			go func() { _ = g.Transfer("") }()
		}
		return "transfer from " + n.id
	case 8:
		if g := n.get(); g != nil {
			go func() { _ = g.Snapshot() }()
		}
		return "snapshot " + n.id
	case 12:
		c.net.set(func(net *network) { net.late = rng.Float64() * 0.5 })
		return "late duplicates"
	case 13:
		// Shorter than diskPatience, after which the process would end.
		n.mu.Lock()
		end := n.logs.hang()
		n.mu.Unlock()
		d := time.Duration(rng.IntN(1000)) * time.Millisecond
		time.AfterFunc(d, end)
		return fmt.Sprint("stall ", n.id, " ", d)
	case 14:
		go c.member(n, false)
		return "remove " + n.id
	case 15:
		for _, n := range c.nodes {
			go c.member(n, true)
		}
		return "add all"
	case 9:
		if up > len(c.nodes)/2+1 {
			n.shut()
			return "stop " + n.id
		}
	case 10:
		if up > len(c.nodes)/2+1 || rng.IntN(4) == 0 {
			n.crash()
			return "crash " + n.id
		}
	case 11:
		for _, n := range c.nodes {
			n.crash()
		}
		return "crash all"
	}
	for _, n := range c.nodes {
		if n.get() == nil {
			n.start()
			return "start " + n.id
		}
	}
	return "nothing"
}

// member makes a node a member, or ends that, if there is a leader to do so.
func (c *cluster) member(n *testNode, add bool) (err error) {
	ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
	defer cancel()
	for _, leader := range c.nodes {
		if g := leader.get(); g == nil {
			continue
		} else if add {
			err = g.Add(n.id, n.id)
		} else {
			err = g.Remove(ctx, n.id)
		}
		if vectord.CodeOf(err) != vectord.CodeNotLeader {
			return err
		}
	}
	return err
}

// TestChaos is fault tests 11 to 28 at random: see docs/CLUSTER.md. CHAOS_FAULTS says how many faults there are.
func TestChaos(t *testing.T) {
	faults := 40
	if s := os.Getenv("CHAOS_FAULTS"); s != "" {
		var err error
		if faults, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	for _, nodes := range []int{3, 5} {
		t.Run(fmt.Sprint(nodes, " nodes"), func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, nodes, Options{SnapshotLogBytes: 20_000, TrailingLogs: 20})
			rng := c.random()
			h := &history{start: time.Now(), added: map[string]bool{}}
			ctx, stop := context.WithCancel(t.Context())
			var clients sync.WaitGroup
			for id := range 8 {
				rng := c.random()
				clients.Go(func() { h.client(ctx, c, id, rng) })
			}
			var did []string
			kinds := map[string]int{}
			for range faults {
				fault := c.chaos(rng)
				kind, _, _ := strings.Cut(fault, " ")
				did, kinds[kind] = append(did, fault), kinds[kind]+1
				time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
			}
			c.net.heal()
			for _, n := range c.nodes {
				if n.get() == nil {
					n.start()
				}
			}
			c.eventually("all are members", func() bool {
				members, err := c.leader().get().Members()
				for _, n := range c.nodes {
					_ = c.member(n, true)
				}
				return err == nil && len(members) == nodes
			})
			stop()
			clients.Wait()
			h.check(t, c.same())
			t.Log("faults: ", kinds)
			if t.Failed() {
				t.Log(did)
			}
		})
	}
}
