package server

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/vectord/vectord"
)

// alonePeerID is a node on its own where Qdrant's API numbers the nodes of a cluster.
const alonePeerID = 1

// getCluster tells of the cluster in the form of Qdrant's API.
func (s *Server) getCluster(r *request) error {
	c := s.options.Cluster
	if c == nil {
		r.out = append(r.out, `{"status":"disabled"}`...)
		return nil
	}
	peers, err := c.Peers(r.ctx)
	if err != nil {
		return err
	}
	type uri struct {
		URI string `json:"uri"`
	}
	type raftInfo struct {
		Term    uint64  `json:"term"`
		Commit  uint64  `json:"commit"`
		Pending int     `json:"pending_operations"`
		Leader  *uint64 `json:"leader"`
		Role    string  `json:"role"`
		Voter   bool    `json:"is_voter"`
	}
	answer := struct {
		Status string         `json:"status"`
		Self   uint64         `json:"peer_id"`
		Peers  map[string]uri `json:"peers"`
		Raft   raftInfo       `json:"raft_info"`
		Thread struct {
			Status     string `json:"consensus_thread_status"`
			LastUpdate string `json:"last_update"`
		} `json:"consensus_thread_status"`
		Failures map[string]any `json:"message_send_failures"`
	}{Status: "enabled", Self: c.Self(), Peers: map[string]uri{}, Failures: map[string]any{}, Raft: raftInfo{Role: "Follower"}}
	answer.Thread.Status, answer.Thread.LastUpdate = "working", time.Now().UTC().Format(time.RFC3339Nano)
	for _, p := range peers {
		answer.Peers[strconv.FormatUint(p.ID, 10)] = uri{"http://" + p.Address}
		if p.Leader {
			answer.Raft.Leader = &p.ID
		}
		if p.ID == answer.Self {
			answer.Raft.Term, answer.Raft.Commit, answer.Raft.Voter = p.Term, p.Applied, p.Voter
			if p.Leader {
				answer.Raft.Role = "Leader"
			}
		}
	}
	return r.appendJSON(answer)
}

func (r *request) appendJSON(v any) error {
	out, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	r.out = append(r.out, out...)
	return nil
}

// getCollectionCluster tells where the shards of a collection are: all of them on every node.
func (s *Server) getCollectionCluster(r *request) error {
	info, err := s.engine.CollectionInfo(r.collection)
	if err != nil {
		return err
	}
	type local struct {
		ID     int    `json:"shard_id"`
		Points int    `json:"points_count"`
		State  string `json:"state"`
	}
	type remote struct {
		ID    int    `json:"shard_id"`
		Peer  uint64 `json:"peer_id"`
		State string `json:"state"`
	}
	answer := struct {
		Peer      uint64   `json:"peer_id"`
		Shards    int      `json:"shard_count"`
		Local     []local  `json:"local_shards"`
		Remote    []remote `json:"remote_shards"`
		Transfers []any    `json:"shard_transfers"`
	}{alonePeerID, len(info.ShardPoints), []local{}, []remote{}, []any{}}
	for i, points := range info.ShardPoints {
		answer.Local = append(answer.Local, local{i, points, "Active"})
	}
	if c := s.options.Cluster; c != nil {
		answer.Peer = c.Self()
		peers, err := c.Peers(r.ctx)
		if err != nil {
			return err
		}
		for _, p := range peers {
			state := "Active"
			switch {
			case p.ID == answer.Peer:
				continue
			case !p.Alive:
				state = "Dead"
			case !p.Voter:
				state = "Recovery"
			}
			for i := range info.ShardPoints {
				answer.Remote = append(answer.Remote, remote{i, p.ID, state})
			}
		}
	}
	return r.appendJSON(answer)
}

// updateCollectionCluster refuses to move shards, whatever the body says.
func (s *Server) updateCollectionCluster(r *request) error {
	if _, err := s.engine.CollectionInfo(r.collection); err != nil {
		return err
	}
	if s.options.Cluster != nil {
		return vectord.Errorf(vectord.KindUnsupported, "every node of this cluster has every shard, there is nothing to move")
	}
	return vectord.Errorf(vectord.KindUnsupported, "this server runs in standalone mode, there is no other node to move shards to")
}

func errNoCluster() error {
	return vectord.Errorf(vectord.KindUnsupported, "this server runs in standalone mode, there is no cluster")
}

// listPeers tells what the nodes say of themselves.
func (s *Server) listPeers(r *request) error {
	if s.options.Cluster == nil {
		return errNoCluster()
	}
	peers, err := s.options.Cluster.Peers(r.ctx)
	if err != nil {
		return err
	}
	return r.appendJSON(peers)
}

func (s *Server) removePeer(r *request) error {
	if s.options.Cluster == nil {
		return errNoCluster()
	}
	text, err := r.segment("peer")
	if err != nil {
		return err
	}
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return vectord.Errorf(vectord.KindInvalid, "peer_id: expected a number, got %q", excerpt([]byte(text)))
	}
	if err := s.options.Cluster.RemovePeer(r.ctx, id); err != nil {
		return err
	}
	r.ok()
	return nil
}

// transferLeadership makes the node of the body, or with none any that can, the leader.
func (s *Server) transferLeadership(r *request) error {
	if s.options.Cluster == nil {
		return errNoCluster()
	}
	id, err := object(r, decodeTransfer)
	if err != nil {
		return err
	}
	if err := s.options.Cluster.TransferLeadership(r.ctx, id); err != nil {
		return err
	}
	r.ok()
	return nil
}

func decodeTransfer(body []byte) (uint64, error) {
	var b struct {
		Peer uint64 `json:"peer_id"`
	}
	if err := json.Unmarshal(body, &b); err != nil {
		return 0, vectord.Errorf(vectord.KindInvalid, "body: %v", err)
	}
	return b.Peer, nil
}

// listIssues answers with none: what an operator should know is in the log and the metrics.
func (s *Server) listIssues(r *request) error {
	r.out = append(r.out, `{"issues":[]}`...)
	return nil
}

func (s *Server) clearIssues(r *request) error {
	r.ok()
	return nil
}
