package server

import (
	"encoding/json"
	"fmt"

	"github.com/vectord/vectord"
)

// peerID is this node where Qdrant's API numbers the nodes of a cluster: it is the only one.
const peerID = 1

func (s *Server) getCluster(r *request) error {
	r.out = append(r.out, `{"status":"disabled"}`...)
	return nil
}

// getCollectionCluster tells where the shards of a collection are: all of them here.
func (s *Server) getCollectionCluster(r *request) error {
	info, err := s.engine.CollectionInfo(r.collection)
	if err != nil {
		return err
	}
	type shard struct {
		ID     int    `json:"shard_id"`
		Points int    `json:"points_count"`
		State  string `json:"state"`
	}
	answer := struct {
		Peer      int     `json:"peer_id"`
		Shards    int     `json:"shard_count"`
		Local     []shard `json:"local_shards"`
		Remote    []any   `json:"remote_shards"`
		Transfers []any   `json:"shard_transfers"`
	}{peerID, len(info.ShardPoints), []shard{}, []any{}, []any{}}
	for i, points := range info.ShardPoints {
		answer.Local = append(answer.Local, shard{i, points, "Active"})
	}
	out, err := json.Marshal(answer)
	if err != nil {
		return fmt.Errorf("encode shards: %w", err)
	}
	r.out = append(r.out, out...)
	return nil
}

// updateCollectionCluster refuses to move shards, whatever the body says.
func (s *Server) updateCollectionCluster(r *request) error {
	if _, err := s.engine.CollectionInfo(r.collection); err != nil {
		return err
	}
	return vectord.Errorf(vectord.KindUnsupported, "this server runs in standalone mode, there is no other node to move shards to")
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
