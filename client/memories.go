package client

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/vectord/vectord"
)

// memory is a memory as it is sent.
type memory struct {
	vectord.Memory
	ID      *vectord.PointID `json:"id,omitempty"`
	Vector  json.RawMessage  `json:"vector,omitempty"`
	Model   string           `json:"model,omitempty"`
	Using   string           `json:"using,omitempty"`
	Expires int64            `json:"expires_at,omitempty"`
	TTL     int64            `json:"ttl_seconds,omitempty"`
}

type dedup struct {
	Threshold float64             `json:"threshold,omitempty"`
	Action    vectord.DedupAction `json:"action,omitempty"`
}

// StoreMemories writes memories, at most vectord.MaxMemories, each unless dedup says otherwise because there is one like it; nil
// writes all. A TTL is rounded up to seconds.
func (c *Client) StoreMemories(ctx context.Context, collection string, memories []vectord.Memory, d *vectord.MemoryDedup, o vectord.WriteOptions) ([]vectord.MemoryResult, error) {
	body := struct {
		Memories []memory `json:"memories"`
		Dedup    *dedup   `json:"dedup,omitempty"`
	}{Memories: make([]memory, len(memories)), Dedup: (*dedup)(d)}
	for i := range memories {
		m := &memories[i]
		vector, err := optionalVector(m.Vector)
		if err != nil {
			return nil, fmt.Errorf("memory %d: %w", i, err)
		}
		body.Memories[i] = memory{Memory: *m, ID: m.ID, Vector: vector, Model: m.Model, Using: m.Using, Expires: m.Expires, TTL: seconds(m.TTL)}
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	var result struct {
		Memories []vectord.MemoryResult `json:"memories"`
	}
	err = c.call(ctx, write(http.MethodPut, collectionPath(collection, "/memories?wait=true"), encoded, o), &result)
	return result.Memories, err
}

func optionalVector(v *vectord.Vector) (json.RawMessage, error) {
	if v == nil {
		return nil, nil
	}
	if err := checkVector(v.Values); err != nil {
		return nil, err
	}
	return appendAnyVector(nil, v), nil
}

// seconds rounds milliseconds up.
func seconds(millis int64) int64 { return (millis + 999) / 1000 }

type recency struct {
	HalfLife int64             `json:"half_life_seconds,omitempty"`
	Of       vectord.RecencyOf `json:"of,omitempty"`
}

type weights struct {
	Similarity float64 `json:"similarity"`
	Recency    float64 `json:"recency"`
	Importance float64 `json:"importance"`
}

// SearchMemories returns the memories that q asks for, best first. A half-life is rounded up to seconds.
func (c *Client) SearchMemories(ctx context.Context, collection string, q vectord.MemoryQuery) ([]vectord.MemoryHit, error) {
	body := struct {
		Limit             int                 `json:"limit"`
		Text              string              `json:"text,omitempty"`
		Model             string              `json:"model,omitempty"`
		Vector            json.RawMessage     `json:"vector,omitempty"`
		Using             string              `json:"using,omitempty"`
		Scope             vectord.MemoryScope `json:"scope,omitzero"`
		Kind              vectord.MemoryKind  `json:"kind,omitempty"`
		AsOf              vectord.Datetime    `json:"as_of,omitzero"`
		Weights           *weights            `json:"weights,omitempty"`
		Recency           recency             `json:"recency,omitzero"`
		MinScore          *float64            `json:"min_score,omitempty"`
		Touch             bool                `json:"touch,omitempty"`
		IncludeSuperseded *bool               `json:"include_superseded,omitempty"`
	}{Limit: q.Limit, Text: q.Text, Model: q.Model, Using: q.Using, Scope: q.Scope, Kind: q.Kind, AsOf: q.AsOf, Recency: recency{seconds(q.HalfLife), q.Of},
		MinScore: q.MinScore, Touch: q.Touch, IncludeSuperseded: q.IncludeSuperseded}
	if q.Weights != (vectord.MemoryWeights{}) {
		body.Weights = (*weights)(&q.Weights)
	}
	var err error
	if body.Vector, err = optionalVector(q.Vector); err != nil {
		return nil, err
	}
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	if encoded, err = appendFilter(encoded[:len(encoded)-1], q.Filter); err != nil {
		return nil, err
	}
	if encoded, err = appendSelection(encoded, q.Select); err != nil {
		return nil, err
	}
	var result struct {
		Memories []struct {
			record
			Score float64             `json:"score"`
			Parts vectord.MemoryParts `json:"parts"`
		} `json:"memories"`
	}
	err = c.call(ctx, request{method: http.MethodPost, path: collectionPath(collection, "/memories/search"), body: append(encoded, '}')}, &result)
	if err != nil {
		return nil, err
	}
	hits := make([]vectord.MemoryHit, len(result.Memories))
	for i := range result.Memories {
		m := &result.Memories[i]
		hits[i] = vectord.MemoryHit{Record: m.record.record(), Score: m.Score, Parts: m.Parts}
	}
	return hits, nil
}

// TouchMemories counts a use of each of the memories that are there, and returns how many those are.
// The error is ErrOutcomeUnknown when an answer was lost: sent again, a use would count twice.
func (c *Client) TouchMemories(ctx context.Context, collection string, ids []vectord.PointID) (int, error) {
	var result struct {
		Touched int `json:"touched"`
	}
	body := append(appendIDs([]byte(`{"ids":`), ids), '}')
	err := c.call(ctx, writeOnce(http.MethodPost, collectionPath(collection, "/memories/touch?wait=true"), body), &result)
	return result.Touched, err
}

// ForgetMemories deletes the memories that are selected and returns how many there were. The error is ErrOutcomeUnknown when an
// answer was lost: sent again, it would delete what was stored meanwhile.
func (c *Client) ForgetMemories(ctx context.Context, collection string, s vectord.MemorySelector) (int, error) {
	if err := s.Check(); err != nil {
		return 0, err
	}
	body, err := json.Marshal(struct {
		IDs           []vectord.PointID   `json:"ids"` // null: any
		Scope         vectord.MemoryScope `json:"scope,omitzero"`
		Kind          vectord.MemoryKind  `json:"kind,omitempty"`
		Filter        *vectord.Filter     `json:"filter,omitempty"`
		IncludePinned bool                `json:"include_pinned,omitempty"`
	}{s.IDs, s.Scope, s.Kind, s.Filter, s.IncludePinned})
	if err != nil {
		return 0, err
	}
	var result struct {
		Deleted int `json:"deleted"`
	}
	err = c.call(ctx, writeOnce(http.MethodPost, collectionPath(collection, "/memories/delete?wait=true"), body), &result)
	return result.Deleted, err
}
