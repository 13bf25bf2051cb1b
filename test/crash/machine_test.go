package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What of the machine these tests need: file systems and networks of their own. Where they may not have them they are skipped.

const (
	smallDisk     = 1024 // MiB: Pebble gives its logs room before they need it, about 300 MiB for a node
	fillChunk     = 1 << 20
	diskFullLimit = 90 * time.Second // from a full disk to the end of the node's process
	cutMin        = 2 * time.Second
	cutMax        = 6 * time.Second
)

// may runs a command and skips the test if it fails.
func may(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Skipf("%s: %v, %s: not permitted here, skipped", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
}

// must runs a command that is permitted.
func must(t *testing.T, command ...string) {
	t.Helper()
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Errorf("%s: %v, %s", strings.Join(command, " "), err, strings.TrimSpace(string(out)))
	}
}

// TestClusterDiskFull fills the disk of one node after the other, a follower's and the leader's: the node stops rather than go on
// with what it could not write, the others go on, and with room again it catches up.
func TestClusterDiskFull(t *testing.T) {
	c := emptyCluster(t)
	for range clusterNodes {
		dir := t.TempDir()
		may(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", smallDisk), "tmpfs", dir)
		t.Cleanup(func() { must(t, "umount", dir) })
		c.add(&member{http: freeAddress(t), listen: freeAddress(t), dir: filepath.Join(dir, "data")})
	}
	c.begin()
	l := c.load()
	var found gaps
	for round := range clusterRounds(t, 2) {
		c.rest()
		l.mark()
		full := c.leader(anyone)
		which := "the leader"
		if round%2 == 0 {
			full, which = c.members[(full.number+1)%clusterNodes], "a follower"
		}
		filler := filepath.Join(filepath.Dir(full.dir), "filler")
		began := time.Now()
		ended := fill(t, filler, full)
		select {
		case <-full.process.exited:
		case <-time.After(diskFullLimit):
			c.fatal("node %d runs still, %v after its disk was full", full.number, diskFullLimit)
		}
		close(ended)
		took := time.Since(began)
		if full.process.cmd.ProcessState.ExitCode() <= 0 {
			t.Errorf("node %d ended with %v", full.number, full.process.waitErr)
		}
		c.leader(func(m *member) bool { return m != full })
		_, gap := l.mark()
		found.add(c, gap)
		c.rest()
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
		full.start(true)
		t.Logf("the disk of %s was full: it ended after %v, saying %s, and had caught up %v after there was room", which,
			took.Round(time.Millisecond), lastLines(full.lastLife(), 1), c.whole().Round(time.Millisecond))
	}
	l.finish()
	t.Logf("without an acknowledged write around a full disk: %v", found)
}

// fill takes what is left of a disk, and what becomes free, until the channel that it returns is closed.
func fill(t *testing.T, path string, m *member) chan struct{} {
	t.Helper()
	ended := make(chan struct{})
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(m.log, "--- %s has its disk filled\n", time.Now().Format(time.RFC3339Nano))
	chunk := make([]byte, fillChunk)
	go func() {
		defer f.Close()
		for size := len(chunk); ; {
			select {
			case <-ended:
				return
			default:
			}
			if _, err := f.Write(chunk[:size]); err != nil {
				size = max(1, size/2)
				time.Sleep(time.Millisecond)
			}
		}
	}()
	return ended
}

// lab is a network of this test's own: each node has a namespace, and all are on one bridge.
type lab struct {
	t       *testing.T
	prefix  string // of the names of what it made
	subnet  string // the first three bytes of its addresses
	blocked map[[2]int]bool
}

func newLab(t *testing.T) *lab {
	t.Helper()
	n := &lab{t: t, prefix: fmt.Sprintf("vd%d", os.Getpid()), blocked: map[[2]int]bool{},
		subnet: fmt.Sprintf("10.%d.%d", 128+rand.IntN(100), rand.IntN(256))}
	bridge := n.prefix + "b"
	may(t, "ip", "link", "add", bridge, "type", "bridge")
	t.Cleanup(func() { must(t, "ip", "link", "del", bridge) })
	may(t, "ip", "addr", "add", n.subnet+".254/24", "dev", bridge)
	may(t, "ip", "link", "set", bridge, "up")
	for i := range clusterNodes {
		may(t, "ip", "netns", "add", n.space(i))
		t.Cleanup(func() { must(t, "ip", "netns", "del", n.space(i)) })
		outside := fmt.Sprintf("%s-%d", n.prefix, i)
		may(t, "ip", "link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", n.space(i))
		may(t, "ip", "link", "set", outside, "master", bridge, "up")
		may(t, "ip", "-n", n.space(i), "addr", "add", n.address(i)+"/24", "dev", "eth0")
		may(t, "ip", "-n", n.space(i), "link", "set", "eth0", "up")
		may(t, "ip", "-n", n.space(i), "link", "set", "lo", "up")
		may(t, "ip", "netns", "exec", n.space(i), "true")
	}
	return n
}

func (n *lab) space(i int) string { return fmt.Sprintf("%sn%d", n.prefix, i) }

func (n *lab) address(i int) string { return fmt.Sprintf("%s.%d", n.subnet, i+1) }

// cut loses what one node sends to another.
func (n *lab) cut(from, to int) {
	if !n.blocked[[2]int{from, to}] {
		n.blocked[[2]int{from, to}] = true
		must(n.t, "ip", "-n", n.space(from), "route", "add", "blackhole", n.address(to)+"/32")
	}
}

// heal ends all cuts.
func (n *lab) heal() {
	for link := range n.blocked {
		must(n.t, "ip", "-n", n.space(link[0]), "route", "del", "blackhole", n.address(link[1])+"/32")
	}
	clear(n.blocked)
}

// TestClusterLinksCut cuts links between nodes, all of the leader's or some, both ways or one, while clients reach all nodes.
func TestClusterLinksCut(t *testing.T) {
	c := emptyCluster(t)
	n := newLab(t)
	for i := range clusterNodes {
		c.add(&member{http: n.address(i) + ":6333", listen: n.address(i) + ":6343", flags: []string{"--insecure"},
			below: []string{"ip", "netns", "exec", n.space(i)}})
	}
	c.begin()
	l := c.load()
	p := newProbe(l)
	var found gaps
	for range clusterRounds(t, 2) {
		c.rest()
		l.mark()
		leader := c.leader(anyone)
		a, b := (leader.number+1)%clusterNodes, (leader.number+2)%clusterNodes
		var what string
		switch c.random.IntN(4) {
		case 0:
			what = "all links of the leader"
			n.cut(leader.number, a)
			n.cut(leader.number, b)
			n.cut(a, leader.number)
			n.cut(b, leader.number)
		case 1:
			what = "what the leader sends"
			n.cut(leader.number, a)
			n.cut(leader.number, b)
		case 2:
			what = "what is sent to the leader"
			n.cut(a, leader.number)
			n.cut(b, leader.number)
		default:
			what = "a link of the leader"
			n.cut(leader.number, a)
			n.cut(a, leader.number)
		}
		fmt.Fprintf(leader.log, "--- %s is cut: %s\n", time.Now().Format(time.RFC3339Nano), what)
		time.Sleep(cutMin + time.Duration(c.random.Int64N(int64(cutMax-cutMin))))
		_, during := l.mark()
		p.readAround(leader, n.heal)
		c.whole()
		_, after := l.mark()
		found.add(c, max(during, after))
		t.Logf("%s cut: %v without an acknowledged write, and %v around the end of that", what, during.Round(time.Millisecond), after.Round(time.Millisecond))
	}
	p.stop()
	l.finish()
	t.Logf("without an acknowledged write around a cut: %v; %d reads at a leader that was cut off, none stale", found, p.reads)
}
