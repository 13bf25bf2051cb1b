package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// doctorPause is the time between two looks at the nodes, and so how far a node may be behind the others.
	doctorPause = time.Second
	// doctorPatience bounds the time that one node is given to answer one question. It exceeds the second that a server gives
	// the other nodes when it is asked for them.
	doctorPatience = 5 * time.Second
	// doctorAnswerBytes bounds an answer.
	doctorAnswerBytes = 16 << 20

	// clockTolerance is how far clocks may differ. A header's date is of whole seconds, and servers renew it each second, so
	// what is measured is wrong by up to one second and a half.
	clockTolerance = 3 * time.Second

	// logBytesHigh is more log than a node has that takes snapshots: one is taken when 256 MiB have come since the last, and
	// 1,024 entries of up to 256 KiB stay behind it.
	logBytesHigh = 1 << 30
)

type clusterDoctorCmd struct {
	Nodes       []string `arg:"" optional:"" help:"Addresses of the nodes' HTTP APIs, as for --url, which is the only one unless they are given." placeholder:"URL"`
	serverFlags `embed:""`
}

// Help is shown by cluster doctor --help.
func (clusterDoctorCmd) Help() string {
	return `Example:

    vectord cluster doctor http://10.0.0.1:6333 http://10.0.0.2:6333 http://10.0.0.3:6333

It asks each node twice, a second apart, for what it knows of the others, whether it is ready, its metrics and its clock. The exit
code is 1 if anything is wrong.`
}

// Run looks at the nodes and prints what is wrong.
func (c *clusterDoctorCmd) Run(s *session) error {
	key, err := secret("api-key", c.APIKey, c.APIKeyFile)
	if err != nil {
		return err
	}
	urls := c.Nodes
	if len(urls) == 0 {
		urls = []string{c.URL}
	}
	d := doctor{http: &http.Client{Timeout: doctorPatience}, key: key}
	defer d.http.CloseIdleConnections()
	first := d.lookAtAll(s.ctx, urls)
	select {
	case <-s.ctx.Done():
		return s.ctx.Err()
	case <-time.After(doctorPause):
	}
	second := d.lookAtAll(s.ctx, urls)
	if err := s.ctx.Err(); err != nil {
		return err
	}
	found := diagnose(first, second)
	for i, f := range found {
		fmt.Fprintf(s.stdout, "%d. %s\n   %s\n", i+1, f.wrong, f.remedy)
	}
	unseen := notLookedAt(second)
	if unseen != "" {
		fmt.Fprintf(s.stdout, "%s\n", unseen)
	}
	switch {
	case len(found) == 1:
		return errors.New("one thing is wrong")
	case len(found) > 1:
		return fmt.Errorf("%d things are wrong", len(found))
	}
	m := view(second)
	all, _ := m.voters()
	_, err = fmt.Fprintf(s.stdout, "Nothing is wrong: %d voters, all there, node %d leads.\n", all, m.leader().ID)
	return err
}

// look is what one node told at one time.
type look struct {
	url     string
	err     error   // it did not tell, or not all
	ready   string  // why it is not ready; empty: it is
	alone   bool    // it is a server on its own
	self    uint64  // its number
	members members // as it knows them; empty: it has not been taken into a cluster
	metrics map[string]float64
	clock   time.Duration // how far its clock is before ours
}

// doctor asks nodes.
type doctor struct {
	http *http.Client
	key  string
}

func (d *doctor) lookAtAll(ctx context.Context, urls []string) []look {
	all := make([]look, len(urls))
	var asked sync.WaitGroup
	for i, url := range urls {
		asked.Go(func() { all[i] = d.lookAt(ctx, url) })
	}
	asked.Wait()
	return all
}

func (d *doctor) lookAt(ctx context.Context, url string) look {
	l := look{url: strings.TrimRight(url, "/")}
	sent := time.Now()
	status, body, header, err := d.get(ctx, l.url+"/readyz")
	if err != nil {
		l.err = err
		return l
	}
	if status != http.StatusOK {
		l.ready = strings.TrimPrefix(strings.TrimSpace(string(body)), "not ready: ")
	}
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		now := sent.Add(time.Since(sent) / 2) // when the node is likely to have answered
		l.clock = date.Add(time.Second / 2).Sub(now)
	}
	var answer struct {
		Status string `json:"status"`
		Peer   uint64 `json:"peer_id"`
	}
	if l.err = d.result(ctx, l.url+"/cluster", &answer); l.err != nil {
		return l
	}
	if l.alone, l.self = answer.Status != "enabled", answer.Peer; l.alone {
		return l
	}
	if l.err = d.result(ctx, l.url+"/cluster/peers", &l.members); l.err != nil {
		return l
	}
	status, body, _, err = d.get(ctx, l.url+"/metrics")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("GET /metrics: status %d", status)
	}
	l.err, l.metrics = err, parseMetrics(body)
	return l
}

// get asks for something and returns whatever answer there is.
func (d *doctor) get(ctx context.Context, url string) (status int, body []byte, header http.Header, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, nil, err
	}
	if d.key != "" {
		request.Header.Set("api-key", d.key)
	}
	response, err := d.http.Do(request)
	if err != nil {
		return 0, nil, nil, err
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(response.Body, doctorAnswerBytes)); err != nil {
		return 0, nil, nil, fmt.Errorf("GET %s: %w", url, err)
	}
	return response.StatusCode, body, response.Header, nil
}

// result asks for something and decodes the result of the answer into v.
func (d *doctor) result(ctx context.Context, url string, v any) error {
	status, body, _, err := d.get(ctx, url)
	if err != nil {
		return err
	}
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return fmt.Errorf("GET %s: the key is refused", url)
	}
	answer := struct {
		Result any `json:"result"`
	}{v}
	if status != http.StatusOK {
		return fmt.Errorf("GET %s: status %d", url, status)
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("GET %s: the answer is not one of vectord: %w", url, err)
	}
	return nil
}

// parseMetrics reads the metrics without labels from Prometheus' text format.
func parseMetrics(text []byte) map[string]float64 {
	found := map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if !ok || strings.ContainsAny(name, "#{") {
			continue
		}
		if f, err := strconv.ParseFloat(value, 64); err == nil {
			found[name] = f
		}
	}
	return found
}

// finding is something that is wrong, and what to do about it, both in sentences.
type finding struct{ wrong, remedy string }

// diagnose says what is wrong, the worst first. The looks are at the same nodes in the same order, one some time after the other;
// what counts is the later one, and the earlier says where the log was then.
func diagnose(first, second []look) []finding {
	var found []finding
	add := func(remedy, wrong string, args ...any) {
		found = append(found, finding{fmt.Sprintf(wrong, args...), remedy})
	}
	m := view(second)
	diagnoseMajority(m, add)
	for _, l := range second {
		switch {
		case l.err != nil:
			add("See whether it runs and what its log says, and whether address and key are right.", "%s does not tell how it is: %v.", l.url, l.err)
		case l.alone:
			add("Start it with --cluster-listen and, unless it shall begin a cluster, --cluster-join.", "The server at %s is on its own and not in a cluster.", l.url)
		case len(l.members) == 0:
			add("Its log says which servers it asks and what they answer. Name, secret or certificates of the cluster must be the same, and the ports for other nodes be open.",
				"Node %d at %s has not been taken into a cluster yet.", l.self, l.url)
		case m.find(l.self) == nil:
			add("Stop it. If its data are not needed, start it again with an empty data directory and --cluster-join.",
				"Node %d at %s is not a member of the cluster of the other nodes: it was removed from it, or has begun one of its own.", l.self, l.url)
		case l.ready != "":
			add("Wait if it has only just started; see its log otherwise.", "Node %d at %s is not ready: %s.", l.self, l.url, l.ready)
		}
	}
	diagnoseLeaders(second, m, add)
	diagnoseMembers(view(first), m, add)
	diagnoseVersions(m, add)
	diagnoseClocks(second, add)
	for _, l := range second {
		if bytes := l.metrics["vectord_raft_log_bytes"]; bytes > logBytesHigh {
			add("Its log says why no snapshot was taken; the disk may be full. Without one the log grows until it is.",
				"The replicated log of node %d takes %v, far more than is kept when snapshots are taken.", l.self, byteSize(bytes))
		}
	}
	return found
}

// view returns the nodes as the one knows them that knows best: the leader, or else the one that sees most of the others.
func view(looks []look) (best members) {
	most := -1
	for _, l := range looks {
		if len(l.members) == 0 {
			continue
		}
		_, sees := l.members.voters()
		if p := l.members.find(l.self); p != nil && p.Leader {
			sees += len(l.members) // whoever leads has heard from a majority
		}
		if sees > most {
			best, most = l.members, sees
		}
	}
	return best
}

func diagnoseMajority(m members, add func(remedy, wrong string, args ...any)) {
	all, alive := m.voters()
	switch {
	case len(m) == 0: // and so there is something wrong with each of the looks
		return
	case alive < majority(all):
		add("Start the nodes that are down. If they are lost for good, see docs/OPERATIONS.md, \"When the majority is lost\".",
			"There is no majority: %d of %d voters answer, and %d must. Nothing can be written.", alive, all, majority(all))
	case m.leader() == nil:
		add("An election takes up to three seconds: look again. If it stays so, the nodes do not reach each other at their ports for other nodes.",
			"There is no leader, though %d of %d voters answer. Nothing can be written.", alive, all)
	case all == 1:
		add("Start two more nodes with --cluster-join.", "There is one voter: when it fails, everything stands still, and what it has is nowhere else.")
	case alive == majority(all):
		remedy := "Start the nodes that are down, or remove those that are lost and let new ones join."
		if all == alive {
			remedy = "Start another node with --cluster-join."
		}
		add(remedy, "There is no margin: all of the %d voters that answer are needed for a majority of %d. When one more fails, nothing can be written.", alive, all)
	}
	if all%2 == 0 {
		add("Add a node, or remove one.", "The number of voters is even: %d bear the loss of %d, as %d would, and need one more for each write.", all, all-majority(all), all-1)
	}
}

// diagnoseLeaders compares whom the nodes take for the leader.
func diagnoseLeaders(looks []look, m members, add func(remedy, wrong string, args ...any)) {
	takes := map[uint64][]string{}
	for _, l := range looks {
		if p := l.members.leader(); p != nil && m.find(l.self) != nil {
			takes[p.ID] = append(takes[p.ID], strconv.FormatUint(l.self, 10))
		}
	}
	if len(takes) < 2 {
		return
	}
	var parts []string
	for _, id := range slices.Sorted(maps.Keys(takes)) {
		parts = append(parts, fmt.Sprintf("%d is the leader for %s", id, strings.Join(takes[id], ", ")))
	}
	add("During an election that is so for a moment: look again. If it stays so, some of the nodes do not reach each other.",
		"The nodes disagree about who leads: node %s.", strings.Join(parts, ", node "))
}

// diagnoseMembers says of each node what is wrong with it. before is what there was one pause ago.
func diagnoseMembers(before, m members, add func(remedy, wrong string, args ...any)) {
	for _, p := range m {
		switch {
		case !p.Alive:
			add("Start it. If it is lost, remove it (vectord cluster remove) and let a new node join.", "Node %d (%s) does not answer the others.", p.ID, p.Address)
			continue
		case !p.Voter:
			add("Wait until it has caught up. If it takes long, see its log.", "Node %d (%s) has no vote yet: it is catching up.", p.ID, p.Address)
		}
		if p.Applied < before.newest() {
			add("Wait if it was away or has just joined. If it stays so, its disk or its processor is slower than the others', or it has too little memory.",
				"Node %d (%s) is behind by %d entries of the log, and has not applied what was there %v ago.", p.ID, p.Address, m.newest()-p.Applied, doctorPause)
		}
	}
}

func diagnoseVersions(m members, add func(remedy, wrong string, args ...any)) {
	versions := map[string][]string{}
	for _, p := range m {
		if p.Alive {
			versions[p.Version] = append(versions[p.Version], strconv.FormatUint(p.ID, 10))
		}
	}
	if len(versions) < 2 {
		return
	}
	var parts []string
	for _, v := range slices.Sorted(maps.Keys(versions)) {
		parts = append(parts, fmt.Sprintf("%s on %s", v, strings.Join(versions[v], ", ")))
	}
	add("Bring the upgrade to its end, one node after the other.", "The nodes run different versions: %s.", strings.Join(parts, "; "))
}

func diagnoseClocks(looks []look, add func(remedy, wrong string, args ...any)) {
	var least, most *look
	for i := range looks {
		l := &looks[i]
		if l.err != nil || l.alone {
			continue
		}
		if least == nil || l.clock < least.clock {
			least = l
		}
		if most == nil || l.clock > most.clock {
			most = l
		}
	}
	if least == nil || most.clock-least.clock <= clockTolerance {
		return
	}
	add("Have all machines follow the same time servers, and start a node again whose clock was set: leases, expiry and tokens go by the clock.",
		"The clock of node %d is about %v before that of node %d.", most.self, (most.clock - least.clock).Round(time.Second), least.self)
}

// notLookedAt says which members' HTTP addresses were not given: what is known of these is what the others say.
func notLookedAt(looks []look) string {
	var unseen []string
	for _, p := range view(looks) {
		if !slices.ContainsFunc(looks, func(l look) bool { return l.self == p.ID && l.err == nil }) {
			unseen = append(unseen, fmt.Sprintf("%d (%s)", p.ID, p.Address))
		}
	}
	if len(unseen) == 0 {
		return ""
	}
	return "Not looked at itself, for the address of its HTTP API was not given or did not answer: node " + strings.Join(unseen, ", ") + "."
}
