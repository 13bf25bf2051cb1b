package server

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/vectord/vectord"
)

func (s *Server) storeMemories(r *request) error {
	w, err := call(r, decodeMemories)
	if err != nil {
		return err
	}
	results, err := s.engine.StoreMemories(r.ctx, r.collection, w.memories, w.dedup, vectord.WriteOptions{IdempotencyKey: r.idempotencyKey})
	if err != nil {
		return err
	}
	if len(results) != len(w.memories) {
		return fmt.Errorf("the engine answered %d memories with %d results", len(w.memories), len(results))
	}
	encoded, err := json.Marshal(results)
	r.out = append(append(append(r.out, `{"memories":`...), encoded...), '}')
	return err
}

func (s *Server) searchMemories(r *request) error {
	q, err := call(r, decodeSearchMemories)
	if err != nil {
		return err
	}
	if q.Touch { // which changes something
		if _, err := r.authorize(r.collection, permissionWrite); err != nil {
			return err
		}
	}
	hits, err := s.engine.SearchMemories(r.ctx, r.collection, q.MemoryQuery)
	if err != nil {
		return err
	}
	r.out = append(r.out, `{"memories":[`...)
	for i := range hits {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = appendMemoryHit(r.out, &hits[i], &q.answer)
	}
	r.out = append(r.out, "]}"...)
	return nil
}

func appendMemoryHit(dst []byte, h *vectord.MemoryHit, s *selection) []byte {
	dst = h.ID.AppendJSON(append(dst, `{"id":`...))
	dst = appendUint(append(dst, `,"version":`...), h.Version)
	dst = appendFloat(append(dst, `,"score":`...), float32(h.Score))
	dst = appendFloat(append(dst, `,"parts":{"similarity":`...), float32(h.Parts.Similarity))
	dst = appendFloat(append(dst, `,"recency":`...), float32(h.Parts.Recency))
	dst = appendFloat(append(dst, `,"importance":`...), float32(h.Parts.Importance))
	return appendParts(append(dst, '}'), &h.Record, s)
}

func (s *Server) touchMemories(r *request) error {
	ids, err := call(r, decodeTouchMemories)
	if err != nil {
		return err
	}
	touched, err := s.engine.TouchMemories(r.ctx, r.collection, ids)
	r.out = append(strconv.AppendInt(append(r.out, `{"touched":`...), int64(touched), 10), '}')
	return err
}

// forgetMemories deletes memories and leaves a line in the log: who had what forgotten. It does so too where not all was deleted.
func (s *Server) forgetMemories(r *request) error {
	selector, err := call(r, decodeForgetMemories)
	if err != nil {
		return err
	}
	deleted, err := s.engine.ForgetMemories(r.ctx, r.collection, selector)
	if err == nil || deleted > 0 {
		s.log.Info("memories forgotten", "collection", r.collection, "credential", r.caller.Credential(), "subject", r.caller.Subject(),
			"user", selector.Scope.UserID, "agent", selector.Scope.AgentID, "session", selector.Scope.SessionID, "run", selector.Scope.RunID,
			"kind", selector.Kind, "ids", len(selector.IDs), "filtered", selector.Filter != nil, "pinned_too", selector.IncludePinned, "deleted", deleted, "error", err)
	}
	r.out = append(strconv.AppendInt(append(r.out, `{"deleted":`...), int64(deleted), 10), '}')
	return err
}
