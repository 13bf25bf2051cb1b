package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

// stubNode answers what the commands ask of a node.
type stubNode struct {
	mu      sync.Mutex
	self    uint64 // 0: a server on its own
	members members
	ready   string // why it is not; empty: it is
	logs    float64
	ahead   time.Duration // of its clock
	key     string
	asked   []string
	refuse  string // the answer to changes, unless empty
}

func (n *stubNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w.Header().Set("Date", time.Now().Add(n.ahead).UTC().Format(http.TimeFormat))
	answer := func(v any) {
		b, _ := json.Marshal(v)
		fmt.Fprintf(w, `{"result":%s,"status":"ok","time":0}`, b)
	}
	refuse := func(status int, text string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":{"error":%q},"time":0}`, text)
	}
	if r.URL.Path != "/readyz" && r.Header.Get("api-key") != n.key {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /readyz":
		if n.ready != "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintf(w, "not ready: %s", n.ready)
		}
		return
	case "GET /metrics":
		fmt.Fprintf(w, "# HELP vectord_raft_log_bytes Bytes.\nvectord_raft_log_bytes %g\nother{a=\"b c\"} 7\n", n.logs)
		return
	case "GET /cluster":
		if n.self == 0 {
			answer(map[string]string{"status": "disabled"})
		} else {
			answer(map[string]any{"status": "enabled", "peer_id": n.self})
		}
		return
	case "GET /cluster/peers":
		if n.self == 0 {
			refuse(http.StatusBadRequest, "Bad request: this server runs in standalone mode, there is no cluster")
			return
		}
		answer(n.members)
		return
	}
	body, _ := io.ReadAll(r.Body)
	n.asked = append(n.asked, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
	if n.refuse != "" {
		refuse(http.StatusConflict, n.refuse)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/cluster/leader") {
		for i := range n.members {
			n.members[i].Leader = n.members[i].ID == 2
		}
	}
	answer(true)
}

// threeMembers are those of a cluster that is well: 1 leads.
func threeMembers() members {
	var m members
	for id := range uint64(3) {
		m = append(m, vectord.Peer{ID: id + 1, Address: fmt.Sprintf("10.0.0.%d:6336", id+1), Version: "1.0.0", Voter: true, Leader: id == 0, Alive: true, Applied: 100, Term: 2})
	}
	return m
}

func TestClusterStatus(t *testing.T) {
	n := &stubNode{self: 1, key: "k"}
	server := httptest.NewServer(n)
	defer server.Close()
	f := func(change func(m members), wantCode int, want ...string) {
		t.Helper()
		n.members = threeMembers()
		change(n.members)
		code, stdout, stderr := invoke(t, nil, "cluster", "status", "--url", server.URL, "--api-key", "k")
		if code != wantCode {
			t.Errorf("exit code %d, want %d: %s%s", code, wantCode, stdout, stderr)
		}
		for _, w := range want {
			if !strings.Contains(strings.Join(strings.Fields(stdout+stderr), " "), w) {
				t.Errorf("lacks %q:\n%s%s", w, stdout, stderr)
			}
		}
	}
	f(func(members) {}, exitOK, "ID ADDRESS LEADER VOTER ALIVE APPLIED BEHIND BY 1 10.0.0.1:6336 yes yes yes 100 0 2 10.0.0.2:6336 no yes yes 100 0")
	f(func(m members) { m[1].Applied, m[1].Voter = 93, false }, exitOK, "2 10.0.0.2:6336 no no yes 93 7")
	f(func(m members) { m[2].Alive, m[2].Applied = false, 0 }, exitOK, "3 10.0.0.3:6336 no yes no - -")
	f(func(m members) { m[0].Leader = false }, exitError, "1 10.0.0.1:6336 no yes yes 100 0", "the cluster has no leader")
	f(func(m members) { m[1].Alive, m[2].Alive = false, false }, exitError, "1 of 3 voters answer, which is no majority: nothing is written until 2 do")
	f(func(m members) { m[0].Alive = false }, exitError, "the cluster has no leader") // who led is gone
	// Of those that have no vote none counts.
	f(func(m members) { m[0].Voter, m[1].Voter, m[2].Alive = false, false, false }, exitError, "0 of 1 voters answer")

	n.members = nil
	if code, _, stderr := invoke(t, nil, "cluster", "status", "--url", server.URL, "--api-key", "k"); code != exitError || !strings.Contains(stderr, "has not been taken into a cluster yet") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	if code, _, stderr := invoke(t, nil, "cluster", "status", "--url", server.URL); code != exitError || !strings.Contains(stderr, "401") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	n.self = 0
	if code, _, stderr := invoke(t, nil, "cluster", "status", "--url", server.URL, "--api-key", "k"); code != exitError || !strings.Contains(stderr, "standalone mode") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestClusterChanges(t *testing.T) {
	n := &stubNode{self: 1, members: threeMembers()}
	server := httptest.NewServer(n)
	defer server.Close()
	f := func(wantCode int, wantAsked, want string, args ...string) {
		t.Helper()
		n.asked = nil
		code, stdout, stderr := invoke(t, nil, append(append([]string{"cluster"}, args...), "--url", server.URL)...)
		if asked := strings.Join(n.asked, ", "); code != wantCode || asked != wantAsked || !strings.Contains(stdout+stderr, want) {
			t.Errorf("%q: exit code %d, want %d; asked %q, want %q; want %q in\n%s%s", args, code, wantCode, asked, wantAsked, want, stdout, stderr)
		}
	}
	f(exitOK, "DELETE /cluster/peer/3", "node 3 is no longer a member", "remove", "3")
	f(exitUsage, "", "<id>", "remove")
	f(exitUsage, "", "three", "remove", "three")
	f(exitOK, "", "node 1 leads already", "transfer", "1")
	f(exitOK, `POST /cluster/leader {"peer_id":2}`, "node 2 leads", "transfer", "2")
	n.members = threeMembers()
	f(exitOK, `POST /cluster/leader {"peer_id":0}`, "node 2 leads", "transfer")
	n.refuse = "Wrong input: 1 of the 2 voters that would be left answer, which is no majority"
	f(exitError, "DELETE /cluster/peer/2", n.refuse, "remove", "2")
	f(exitError, `POST /cluster/leader {"peer_id":3}`, n.refuse, "transfer", "3")
}

// TestDiagnose checks that each thing that may be wrong is found, alone, and that nothing is found where nothing is wrong.
func TestDiagnose(t *testing.T) {
	type looks = []look
	well := func() looks {
		var all looks
		for id := range uint64(3) {
			all = append(all, look{url: fmt.Sprintf("http://n%d", id+1), self: id + 1, members: threeMembers(), metrics: map[string]float64{"vectord_raft_log_bytes": 3e8}})
		}
		return all
	}
	f := func(change func(first, second looks), want ...string) {
		t.Helper()
		first, second := well(), well()
		change(first, second)
		found := diagnose(first, second)
		for i, w := range want {
			if i < len(found) && !strings.Contains(found[i].wrong, w) {
				t.Errorf("finding %d: %q lacks %q", i, found[i].wrong, w)
			}
		}
		if len(found) != len(want) {
			t.Errorf("%d findings, want %d: %q", len(found), len(want), found)
		}
		for _, x := range found {
			if !strings.HasSuffix(x.wrong, ".") || !strings.HasSuffix(x.remedy, ".") {
				t.Errorf("no sentences: %q", x)
			}
		}
	}
	each := func(all looks, change func(m members)) {
		for i := range all {
			change(all[i].members)
		}
	}
	f(func(_, _ looks) {})
	f(func(first, _ looks) { each(first, func(m members) { m[0].Leader = false }) }) // an election that has ended
	f(func(_, second looks) { each(second, func(m members) { m[0].Leader = false }) }, "There is no leader, though 3 of 3 voters answer")
	f(func(_, second looks) {
		each(second, func(m members) { m[1].Alive, m[2].Alive, m[0].Leader = false, false, false })
	},
		"There is no majority: 1 of 3 voters answer, and 2 must", "Node 2 (10.0.0.2:6336) does not answer", "Node 3 (10.0.0.3:6336) does not answer")
	f(func(_, second looks) { each(second, func(m members) { m[2].Alive = false }) },
		"There is no margin: all of the 2 voters that answer are needed for a majority of 3", "Node 3 (10.0.0.3:6336) does not answer")
	f(func(_, second looks) {
		for i := range second {
			second[i].members = second[i].members[:2]
		}
		second[2] = second[1]
	}, "There is no margin: all of the 2 voters that answer", "The number of voters is even: 2 bear the loss of 0, as 1 would")
	f(func(_, second looks) { each(second, func(m members) { m[1].Voter, m[2].Voter = false, false }) },
		"There is one voter", "Node 2 (10.0.0.2:6336) has no vote yet", "Node 3 (10.0.0.3:6336) has no vote yet")
	f(func(first, second looks) {
		for _, all := range []looks{first, second} {
			for i := range all {
				all[i].members = append(all[i].members, vectord.Peer{ID: 4, Address: "10.0.0.4:6336", Version: "1.0.0", Voter: true, Alive: true, Applied: 100})
			}
		}
	}, "The number of voters is even: 4 bear the loss of 1, as 3 would")

	// A node may be behind by what came since the first look, and not by more.
	f(func(_, second looks) { each(second, func(m members) { m[0].Applied, m[1].Applied = 5000, 100 }) })
	f(func(_, second looks) {
		each(second, func(m members) { m[0].Applied, m[1].Applied, m[2].Applied = 5000, 99, 4999 })
	},
		"Node 2 (10.0.0.2:6336) is behind by 4901 entries of the log, and has not applied what was there 1s ago")

	f(func(_, second looks) { each(second, func(m members) { m[1].Version = "1.1.0" }) }, "The nodes run different versions: 1.0.0 on 1, 3; 1.1.0 on 2")
	f(func(_, second looks) { each(second, func(m members) { m[1].Version, m[1].Alive = "", false }) },
		"There is no margin", "Node 2 (10.0.0.2:6336) does not answer")
	f(func(_, second looks) { second[0].clock, second[1].clock = time.Second, -time.Second })
	f(func(_, second looks) { second[0].clock, second[1].clock = 9*time.Second, -time.Second }, "The clock of node 1 is about 10s before that of node 2")
	f(func(_, second looks) { second[1].metrics["vectord_raft_log_bytes"] = 1.5 * (1 << 30) }, "The replicated log of node 2 takes 1.50 GiB")
	f(func(_, second looks) { second[2].ready = "the disk is full" }, "Node 3 at http://n3 is not ready: the disk is full")
	f(func(_, second looks) { second[1] = look{url: "http://n2", err: io.ErrUnexpectedEOF} }, "http://n2 does not tell how it is: unexpected EOF")
	f(func(_, second looks) { second[1] = look{url: "http://n2", alone: true} }, "The server at http://n2 is on its own")
	f(func(_, second looks) { second[1] = look{url: "http://n2", self: 9} }, "Node 9 at http://n2 has not been taken into a cluster yet")
	f(func(_, second looks) {
		second[1].self, second[1].members = 9, members{{ID: 9, Voter: true, Leader: true, Alive: true, Version: "1.0.0"}}
	}, "Node 9 at http://n2 is not a member of the cluster of the other nodes")
	f(func(_, second looks) { second[1].members[0].Leader, second[1].members[2].Leader = false, true },
		"The nodes disagree about who leads: node 1 is the leader for 1, 3, node 3 is the leader for 2")
	f(func(_, second looks) {
		for i := range second {
			second[i] = look{url: second[i].url, err: io.EOF}
		}
	}, "http://n1", "http://n2", "http://n3")

	// The leader's view counts, and without one that of the node that sees most.
	f(func(_, second looks) { second[2].members[1].Alive = false })
	f(func(_, second looks) { second[0].members[2].Alive = false }, "There is no margin", "Node 3 (10.0.0.3:6336) does not answer")
	f(func(_, second looks) {
		each(second, func(m members) { m[0].Leader = false })
		second[0].members[1].Alive, second[0].members[2].Alive = false, false
	}, "There is no leader, though 3 of 3 voters answer")
}

// TestDoctor asks nodes over HTTP.
func TestDoctor(t *testing.T) {
	var nodes []*stubNode
	var urls []string
	for id := range uint64(3) {
		n := &stubNode{self: id + 1, members: threeMembers(), key: "k"}
		server := httptest.NewServer(n)
		defer server.Close()
		nodes, urls = append(nodes, n), append(urls, server.URL)
	}
	f := func(wantCode int, urls []string, want ...string) {
		t.Helper()
		code, stdout, stderr := invoke(t, nil, append([]string{"cluster", "doctor", "--api-key", "k"}, urls...)...)
		if code != wantCode {
			t.Errorf("exit code %d, want %d", code, wantCode)
		}
		for _, w := range want {
			if !strings.Contains(stdout+stderr, w) {
				t.Errorf("lacks %q:\n%s%s", w, stdout, stderr)
			}
		}
	}
	f(exitOK, urls, "Nothing is wrong: 3 voters, all there, node 1 leads.")
	f(exitOK, []string{"--url", urls[0]}, "did not answer: node 2 (10.0.0.2:6336), 3 (10.0.0.3:6336).", "Nothing is wrong")
	nodes[1].logs, nodes[1].ahead, nodes[2].ready = 3<<30, time.Minute, "building"
	f(exitError, urls, "1. Node 3 at "+urls[2]+" is not ready: building.", "2. The clock of node 2 is about 1m0s before that of node",
		"3. The replicated log of node 2 takes 3.00 GiB", "3 things are wrong")
	nodes[1].logs, nodes[1].ahead, nodes[2].ready, nodes[2].key = 0, 0, "", "another"
	f(exitError, urls, "1. "+urls[2]+" does not tell how it is: GET "+urls[2]+"/cluster: the key is refused.", "one thing is wrong", "did not answer: node 3 (")
	f(exitError, []string{"http://127.0.0.1:1"}, "1. http://127.0.0.1:1 does not tell how it is: ")
}

// lastURL is where a server answers that may have opened again on another port.
func lastURL(p *process) string {
	if all := listening.FindAllStringSubmatch(p.output(), -1); len(all) > 0 {
		return all[len(all)-1][1]
	}
	return ""
}

// TestClusterCommands drives three real servers with certificates made for them.
func TestClusterCommands(t *testing.T) {
	dir := t.TempDir()
	ok := func(want string, args ...string) string {
		t.Helper()
		code, stdout, stderr := invoke(t, nil, args...)
		if code != exitOK || !strings.Contains(stdout, want) {
			t.Fatalf("%q: exit code %d: %s%s", args, code, stdout, stderr)
		}
		return stdout
	}
	ca, caKey := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca-key.pem")
	ok("is the cluster's authority", "cert", "ca", "--cert", ca, "--key", caKey)
	if code, _, stderr := invoke(t, nil, "cert", "ca", "--cert", ca, "--key", caKey); code != exitError || !strings.Contains(stderr, "is there already") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	serve := func(name, join string) *process {
		cert, key := filepath.Join(dir, name+".pem"), filepath.Join(dir, name+"-key.pem")
		ok("are for node "+name, "cert", "node", name, "--ca", ca, "--ca-key", caKey, "--cert", cert, "--key", key)
		return start(t, "serve", "--data-dir", filepath.Join(dir, name), "--http", "127.0.0.1:0", "--grpc", "", "--tcp", "", "--memory-limit", "256MiB",
			"--cluster-listen", "127.0.0.1:0", "--cluster-join", join, "--cluster-ca", ca, "--cluster-cert", cert, "--cluster-key", key)
	}
	first := serve("n1", "")
	url := first.url()
	status := func() (rows [][]string, code int) {
		code, stdout, _ := invoke(t, nil, "cluster", "status", "--url", url)
		for line := range strings.Lines(stdout) {
			if f := strings.Fields(line); f[0] != "ID" {
				rows = append(rows, f)
			}
		}
		return rows, code
	}
	const patience = time.Minute
	until := func(what string, holds func() bool) {
		t.Helper()
		for deadline := time.Now().Add(patience); !holds(); time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not within %v: %s\n%s", patience, what, first.output())
			}
		}
	}
	until("a leader", func() bool { _, code := status(); return code == exitOK })
	rows, _ := status()
	address := rows[0][1]
	others := []*process{serve("n2", address), serve("n3", address)}
	until("three voters", func() bool {
		rows, code := status()
		voters := 0
		for _, r := range rows {
			if r[3] == "yes" && r[4] == "yes" {
				voters++
			}
		}
		return code == exitOK && voters == 3
	})
	until("nothing is wrong", func() bool {
		code, stdout, _ := invoke(t, nil, "cluster", "doctor", url, lastURL(others[0]), lastURL(others[1]))
		return code == exitOK && strings.Contains(stdout, "Nothing is wrong: 3 voters") && !strings.Contains(stdout, "Not looked at")
	})
	rows, _ = status()
	follower := rows[1][0]
	if rows[1][2] == "yes" {
		follower = rows[2][0]
	}
	ok("node "+follower+" leads", "cluster", "transfer", follower, "--url", url)
	var leaving string
	rows, _ = status()
	for _, r := range rows[1:] {
		if r[0] != follower {
			leaving = r[0]
		}
	}
	ok("node "+leaving+" is no longer a member", "cluster", "remove", leaving, "--url", url)
	if code, _, stderr := invoke(t, nil, "cluster", "remove", leaving, "--url", url); code != exitError || !strings.Contains(stderr, "no member") {
		t.Errorf("removed twice: exit code %d: %s", code, stderr)
	}
	code, stdout, _ := invoke(t, nil, "cluster", "doctor", "--url", url)
	for _, want := range []string{"There is no margin", "The number of voters is even"} {
		if code != exitError || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d, lacks %q: %s", code, want, stdout)
		}
	}
}
