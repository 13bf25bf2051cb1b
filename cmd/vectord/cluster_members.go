package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
)

type clusterCmd struct {
	Status   clusterStatusCmd   `cmd:"" help:"List the nodes of a cluster."`
	Remove   clusterRemoveCmd   `cmd:"" help:"End a node's membership."`
	Transfer clusterTransferCmd `cmd:"" help:"Make another node the leader."`
	Recover  clusterRecoverCmd  `cmd:"" help:"Begin again with one node where the majority is lost for good."`
	Doctor   clusterDoctorCmd   `cmd:"" help:"Look at all nodes and say what is wrong, and what to do."`
}

// members are the nodes of a cluster as one of them knows them.
type members []vectord.Peer

// membersOf asks a server for the nodes of its cluster.
func membersOf(ctx context.Context, c *client.Client) (members, error) {
	var m members
	if err := c.Call(ctx, http.MethodGet, "/cluster/peers", nil, &m); err != nil {
		return nil, err
	}
	if len(m) == 0 {
		return nil, errors.New("this server has not been taken into a cluster yet: its log says which servers it has asked")
	}
	return m, nil
}

// leader returns the leader, nil if there is none.
func (m members) leader() *vectord.Peer {
	for i := range m {
		if m[i].Leader && m[i].Alive {
			return &m[i]
		}
	}
	return nil
}

// find returns a node, nil if there is none of that number.
func (m members) find(id uint64) *vectord.Peer {
	for i := range m {
		if m[i].ID == id {
			return &m[i]
		}
	}
	return nil
}

// voters returns how many there are and how many of them answer.
func (m members) voters() (all, alive int) {
	for _, p := range m {
		if p.Voter {
			all++
			if p.Alive {
				alive++
			}
		}
	}
	return all, alive
}

// majority returns how many of the voters must be there for anything to be decided.
func majority(voters int) int { return voters/2 + 1 }

// newest returns the position of the one that has applied most: the leader, as a rule.
func (m members) newest() (position uint64) {
	for _, p := range m {
		position = max(position, p.Applied)
	}
	return position
}

// err says why the cluster takes no writes, or nil.
func (m members) err() error {
	if all, alive := m.voters(); alive < majority(all) {
		return fmt.Errorf("%d of %d voters answer, which is no majority: nothing is written until %d do", alive, all, majority(all))
	}
	if m.leader() == nil {
		return errors.New("the cluster has no leader")
	}
	return nil
}

// print writes a table of the nodes.
func (m members) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tADDRESS\tLEADER\tVOTER\tALIVE\tAPPLIED\tBEHIND BY")
	for _, p := range m {
		applied, behind := "-", "-" // of a node that did not say
		if p.Alive {
			applied, behind = strconv.FormatUint(p.Applied, 10), strconv.FormatUint(m.newest()-p.Applied, 10)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", p.ID, p.Address, yesNo(p.Leader), yesNo(p.Voter), yesNo(p.Alive), applied, behind)
	}
	return t.Flush()
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

type clusterStatusCmd struct {
	serverFlags `embed:""`
}

// Help is shown by cluster status --help.
func (clusterStatusCmd) Help() string {
	return `APPLIED is the position in the log of what a node has applied, BEHIND BY how far that is from the node that has applied most.
The exit code is 1 if there is no leader or no majority of voters answers: then nothing can be written.`
}

// Run prints the table.
func (c *clusterStatusCmd) Run(s *session) error {
	server, err := c.client(1)
	if err != nil {
		return err
	}
	m, err := membersOf(s.ctx, server)
	if err != nil {
		return err
	}
	if err := m.print(s.stdout); err != nil {
		return err
	}
	return m.err()
}

type clusterRemoveCmd struct {
	ID          uint64 `arg:"" help:"Number of the node, as cluster status shows it."`
	serverFlags `embed:""`
}

// Help is shown by cluster remove --help.
func (clusterRemoveCmd) Help() string {
	return `Refused if the nodes that stay would have no majority that answers. The node itself is not stopped and goes on answering with what
it has, which gets old: stop it. Started again with --cluster-join it becomes a member again.`
}

// Run removes the node.
func (c *clusterRemoveCmd) Run(s *session) error {
	server, err := c.client(1)
	if err != nil {
		return err
	}
	if err := server.Call(s.ctx, http.MethodDelete, "/cluster/peer/"+strconv.FormatUint(c.ID, 10), nil, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.stdout, "node %d is no longer a member: stop it\n", c.ID)
	return err
}

const (
	// transferWait bounds how long a new leader is waited for, transferPause is the time between looks for it.
	transferWait  = 10 * time.Second
	transferPause = 100 * time.Millisecond
)

type clusterTransferCmd struct {
	ID          uint64 `arg:"" optional:"" help:"Number of the node that shall lead; any voter that has the whole log unless given."`
	serverFlags `embed:""`
}

// Run makes another node the leader, and waits until the server asked knows it as such.
func (c *clusterTransferCmd) Run(s *session) error {
	server, err := c.client(1)
	if err != nil {
		return err
	}
	m, err := membersOf(s.ctx, server)
	if err != nil {
		return err
	}
	before := m.leader()
	if before != nil && before.ID == c.ID {
		_, err = fmt.Fprintf(s.stdout, "node %d leads already\n", c.ID)
		return err
	}
	body, err := json.Marshal(struct {
		Peer uint64 `json:"peer_id"`
	}{c.ID})
	if err != nil {
		return err
	}
	if err := server.Call(s.ctx, http.MethodPost, "/cluster/leader", body, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, transferWait)
	defer cancel()
	for {
		m, err := membersOf(ctx, server)
		if err == nil {
			if now := m.leader(); now != nil && (before == nil || now.ID != before.ID) {
				_, err = fmt.Fprintf(s.stdout, "node %d leads\n", now.ID)
				return err
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the leader gave up its place, and no other was seen within %v: see vectord cluster status", transferWait)
		case <-time.After(transferPause):
		}
	}
}
