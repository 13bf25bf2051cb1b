package server

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

// fakeCluster is a cluster of which the server under test is node 1.
type fakeCluster struct {
	peers   []vectord.Peer
	leads   bool
	index   uint64
	calls   []string // what was asked of it, in order
	refusal error    // of changes of the members
	behind  bool     // it has not caught up
}

func (c *fakeCluster) Self() uint64 { return 1 }

func (c *fakeCluster) Peers(context.Context) ([]vectord.Peer, error) { return c.peers, nil }

func (c *fakeCluster) RemovePeer(_ context.Context, id uint64) error {
	c.calls = append(c.calls, "remove "+strconv.FormatUint(id, 10))
	return c.refusal
}

func (c *fakeCluster) TransferLeadership(_ context.Context, id uint64) error {
	c.calls = append(c.calls, "lead "+strconv.FormatUint(id, 10))
	return c.refusal
}

func (c *fakeCluster) Leading() bool { return c.leads }

func (c *fakeCluster) CaughtUp() bool { return !c.behind }

// Forward answers in the place of a leader.
func (c *fakeCluster) Forward(_ context.Context, request []byte) ([]byte, error) {
	line, _, _ := strings.Cut(string(request), " HTTP/1.1\r\n")
	c.calls = append(c.calls, "forward "+line)
	const body = `{"result":{"exists":false},"status":"ok","time":0}`
	return []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + sessionHeader + ": 77\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body), nil
}

func (c *fakeCluster) Fresh(ctx context.Context, _ time.Duration) error { return c.Synced(ctx) }
func (c *fakeCluster) Synced(context.Context) error {
	c.calls = append(c.calls, "sync")
	return nil
}

func (c *fakeCluster) Applied(_ context.Context, index uint64) error {
	c.calls = append(c.calls, "applied "+strconv.FormatUint(index, 10))
	return nil
}

func (c *fakeCluster) Index() uint64 { return c.index }

func newFakeCluster() *fakeCluster {
	return &fakeCluster{index: 41, leads: true, peers: []vectord.Peer{
		{ID: 1, Address: "a:1", Version: "0.1.0", Voter: true, Leader: true, Alive: true, Applied: 40, Term: 3},
		{ID: 2, Address: "b:1", Version: "0.1.0", Voter: false, Alive: true, Applied: 38, Term: 3},
		{ID: 3, Address: "c:1", Voter: true},
	}}
}

// TestClusterOfSeveral checks what a server tells of its cluster, and how it changes it.
func TestClusterOfSeveral(t *testing.T) {
	c := newFakeCluster()
	h := start(t, model.New(), Options{Cluster: c})
	h.ok("PUT", "/collections/c", `{"vectors": {"size": 2, "distance": "Dot"}}`, `true`)
	h.ok("GET", "/cluster/peers", "", `[{"id":1,"address":"a:1","version":"0.1.0","voter":true,"leader":true,"alive":true,"applied":40,"term":3},`+
		`{"id":2,"address":"b:1","version":"0.1.0","voter":false,"leader":false,"alive":true,"applied":38,"term":3},`+
		`{"id":3,"address":"c:1","version":"","voter":true,"leader":false,"alive":false,"applied":0,"term":0}]`)
	_, answer, _ := h.send("GET", "/cluster", nil)
	for _, want := range []string{`"status":"enabled"`, `"peer_id":1`, `"2":{"uri":"http://b:1"}`, `"term":3,"commit":40`, `"leader":1,"role":"Leader"`} {
		if !strings.Contains(answer, want) {
			t.Errorf("GET /cluster lacks %s: %s", want, answer)
		}
	}
	_, answer, _ = h.send("GET", "/collections/c/cluster", nil)
	if want := `"remote_shards":[{"shard_id":0,"peer_id":2,"state":"Recovery"},{"shard_id":0,"peer_id":3,"state":"Dead"}]`; !strings.Contains(answer, want) {
		t.Errorf("GET /collections/c/cluster lacks %s: %s", want, answer)
	}
	h.refused(400, "POST", "/collections/c/cluster", `{"move_shard": {}}`, "Bad request: every node of this cluster has every shard, there is nothing to move")

	h.ok("DELETE", "/cluster/peer/3", "", `true`)
	h.ok("POST", "/cluster/leader", `{"peer_id": 2}`, `true`)
	h.ok("POST", "/cluster/leader", `{}`, `true`)
	h.refused(400, "DELETE", "/cluster/peer/x", "", `Wrong input: peer_id: expected a number, got "x"`)
	h.refused(400, "POST", "/cluster/leader", `{"peer_id": "x"}`, "Wrong input: body: json: cannot unmarshal string into Go struct field .peer_id of type uint64")
	c.refusal = vectord.Errorf(vectord.KindConflict, "1 of the 2 voters that would be left answer, which is no majority")
	h.refused(409, "DELETE", "/cluster/peer/2", "", "Wrong input: 1 of the 2 voters that would be left answer, which is no majority")
	if got, want := strings.Join(c.calls, ", "), "remove 3, lead 2, lead 0, remove 2"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
}

// TestWithoutCluster checks that a server on its own says so.
func TestWithoutCluster(t *testing.T) {
	h := start(t, model.New(), Options{})
	h.ok("GET", "/cluster", "", `{"status":"disabled"}`)
	const want = "Bad request: this server runs in standalone mode, there is no cluster"
	h.refused(400, "GET", "/cluster/peers", "", want)
	h.refused(400, "DELETE", "/cluster/peer/3", "", want)
	h.refused(400, "POST", "/cluster/leader", `{}`, want)
}

// TestConsistency checks what a node waits for before it reads, and when it has the leader read.
func TestConsistency(t *testing.T) {
	c := newFakeCluster()
	h := start(t, model.New(), Options{Cluster: c})
	f := func(leads bool, query, session, want string) {
		t.Helper()
		c.leads, c.calls = leads, nil
		var header []string
		if session != "" {
			header = []string{sessionHeader, session}
		}
		status, answer, got := h.send("GET", "/collections/c/exists"+query, nil, header...)
		if calls := strings.Join(c.calls, ", "); status != 200 || calls != want {
			t.Errorf("leading %t, %q, session %q: %d, asked %q, want %q: %s", leads, query, session, status, calls, want, answer)
		}
		applied := "41"
		if strings.HasPrefix(want, "forward") {
			applied = "77" // that of the leader
		}
		if got.Get(sessionHeader) != applied {
			t.Errorf("%q: the answer has session %q, want %s", query, got.Get(sessionHeader), applied)
		}
	}
	f(false, "", "", "")
	f(false, "?consistency=session", "", "")
	f(false, "?consistency=1", "", "")
	f(false, "", "40", "applied 40")
	f(false, "?consistency=linearizable", "", "sync")
	f(false, "?consistency=linearizable", "40", "applied 40, sync")
	f(false, "?consistency=majority", "", "sync")
	f(false, "?consistency=quorum", "", "sync")
	f(false, "?consistency=all", "", "sync")
	f(true, "?consistency=linearizable", "", "sync")
	f(true, "?consistency=leader", "", "")
	f(false, "?consistency=leader", "", "forward GET /collections/c/exists?consistency=leader")

	// Writes wait for the session too, for what they say may rest on what was read.
	c.leads, c.calls = false, nil
	if status, answer, _ := h.send("PUT", "/collections/c", strings.NewReader(`{"vectors": {"size": 2, "distance": "Dot"}}`), sessionHeader, "40"); status != 200 {
		t.Errorf("%d %s", status, answer)
	}
	if got := strings.Join(c.calls, ", "); got != "applied 40" {
		t.Errorf("a write asked %q", got)
	}
	if status, answer, _ := h.send("GET", "/collections/c/exists", nil, sessionHeader, "x"); status != 400 || !strings.Contains(answer, sessionHeader) {
		t.Errorf("%d %s", status, answer)
	}
	// What another node has sent on is not sent on again: that way lies a circle.
	if status, answer, _ := h.send("GET", "/collections/c/exists?consistency=leader", nil, forwardedHeader, "1"); status != 503 || !strings.Contains(answer, string(vectord.CodeNotLeader)) {
		t.Errorf("%d %s", status, answer)
	}
}

// TestNotCaughtUp checks that a node that has just joined says so, and nothing else but what it knows of itself.
func TestNotCaughtUp(t *testing.T) {
	c := newFakeCluster()
	c.behind = true
	h := start(t, model.New(), Options{Cluster: c})
	f := func(method, path, body string, want int) {
		t.Helper()
		status, answer, _ := h.send(method, path, strings.NewReader(body))
		if status != want || want == 503 && path != "/readyz" && !strings.Contains(answer, string(vectord.CodeNotLeader)) {
			t.Errorf("%s %s: %d, want %d: %s", method, path, status, want, answer)
		}
	}
	f("GET", "/collections", "", 503)
	f("GET", "/collections/c", "", 503)
	f("PUT", "/collections/c/points", `{"points": []}`, 503)
	f("GET", "/readyz", "", 503)
	f("GET", "/livez", "", 200)
	f("GET", "/cluster/peers", "", 200)
	f("GET", "/metrics", "", 200)
	c.behind = false
	f("GET", "/collections", "", 200)
	f("GET", "/readyz", "", 200)
}
