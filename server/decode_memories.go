package server

import (
	"encoding/json"
	"fmt"
	"strconv"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// momentJSON is a time, also one before 1970: a string that vectord.ParseDatetime reads, or milliseconds since then; null is none.
type momentJSON vectord.Datetime

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (m *momentJSON) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	raw, err := d.ReadValue()
	if err != nil {
		return err
	}
	*m = 0
	switch raw.Kind() {
	case 'n':
		return nil
	case '0':
		if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil && n >= 0 && n <= vectord.MaxMemoryMillis {
			*m = momentJSON(n * 1000)
			return nil
		}
	case '"':
		var s string
		if err := jsonv2.Unmarshal(raw, &s); err != nil {
			return err
		}
		if parsed, ok := vectord.ParseDatetime(s); ok {
			*m = momentJSON(parsed)
			return nil
		}
	}
	return vectord.Errorf(vectord.KindInvalid, "expected milliseconds since 1970 or a time like 2026-01-31T12:00:00Z, got %s", excerpt(raw))
}

// memoryJSON is a memory as it is written.
type memoryJSON struct {
	ID           *vectord.PointID   `json:"id"`
	Text         *string            `json:"text"`
	Vector       vectorJSON         `json:"vector"`
	Model        string             `json:"model"`
	Using        string             `json:"using"`
	Scope        scopeJSON          `json:"scope"`
	Kind         vectord.MemoryKind `json:"kind"`
	Importance   *float64           `json:"importance"`
	CreatedAt    momentJSON         `json:"created_at"`
	Expires      timeJSON           `json:"expires_at"`
	TTL          *uint64            `json:"ttl_seconds"`
	LastUsedAt   momentJSON         `json:"last_used_at"`
	Uses         uint64             `json:"uses"`
	SourceTask   string             `json:"source_task_id"`
	ValidFrom    momentJSON         `json:"valid_from"`
	ValidTo      momentJSON         `json:"valid_to"`
	SupersededBy *vectord.PointID   `json:"superseded_by"`
	Pinned       bool               `json:"pinned"`
	Metadata     payloadJSON        `json:"metadata"`
}

type scopeJSON struct {
	UserID    string `json:"user_id"`
	AgentID   string `json:"agent_id"`
	SessionID string `json:"session_id"`
	RunID     string `json:"run_id"`
}

func (m *memoryJSON) memory(field string) (vectord.Memory, error) {
	out := vectord.Memory{ID: m.ID, Model: m.Model, Using: m.Using, Expires: int64(m.Expires), Scope: vectord.MemoryScope(m.Scope), Kind: m.Kind,
		Importance: m.Importance, Created: vectord.Datetime(m.CreatedAt), LastUsed: vectord.Datetime(m.LastUsedAt), Uses: m.Uses, SourceTask: m.SourceTask,
		ValidFrom: vectord.Datetime(m.ValidFrom), ValidTo: vectord.Datetime(m.ValidTo), SupersededBy: m.SupersededBy, Pinned: m.Pinned,
		Metadata: json.RawMessage(m.Metadata)}
	if m.Text == nil {
		return out, missing(field + "text")
	}
	out.Text = *m.Text
	if m.Vector.given {
		out.Vector = &m.Vector.Vector
	}
	var err error
	out.TTL, err = millis(m.TTL, field+"ttl_seconds")
	return out, err
}

// millis returns a number of seconds, if it is given, in milliseconds.
func millis(seconds *uint64, field string) (int64, error) {
	if seconds == nil {
		return 0, nil
	}
	if *seconds < 1 || *seconds > vectord.MaxMemoryMillis/1000 {
		return 0, outOfRange(field, *seconds, fmt.Sprintf("from 1 to %d", vectord.MaxMemoryMillis/1000))
	}
	return int64(*seconds) * 1000, nil
}

type dedupJSON struct {
	Threshold *float64            `json:"threshold"`
	Action    vectord.DedupAction `json:"action"`
}

// memoryWrite is a decoded write of memories.
type memoryWrite struct {
	memories []vectord.Memory
	dedup    *vectord.MemoryDedup
}

// decodeMemories reads the body of PUT memories: a memory, or a list of them.
func decodeMemories(body []byte) (out memoryWrite, err error) {
	var b struct {
		memoryJSON
		Memories *list[memoryJSON] `json:"memories"`
		Dedup    *dedupJSON        `json:"dedup"`
	}
	if err := decodeBody(body, &b); err != nil {
		return out, err
	}
	if d := b.Dedup; d != nil {
		out.dedup = &vectord.MemoryDedup{Action: d.Action}
		if d.Threshold != nil {
			if !(*d.Threshold > 0) {
				return out, outOfRange("dedup.threshold", *d.Threshold, "larger than 0")
			}
			out.dedup.Threshold = *d.Threshold
		}
	}
	switch {
	case b.Memories != nil && b.Text != nil:
		return out, vectord.Errorf(vectord.KindUnprocessable, "text: cannot be given together with memories")
	case b.Memories != nil:
		for i := range *b.Memories {
			m, err := (*b.Memories)[i].memory(fmt.Sprintf("memories[%d].", i))
			if err != nil {
				return out, err
			}
			out.memories = append(out.memories, m)
		}
		return out, nil
	}
	m, err := b.memory("")
	out.memories = []vectord.Memory{m}
	return out, err
}

// memoryQuery is a decoded query of memories with what its answer carries.
type memoryQuery struct {
	vectord.MemoryQuery
	answer selection
}

// decodeSearchMemories reads the body of POST memories/search.
func decodeSearchMemories(body []byte) (out memoryQuery, err error) {
	var b struct {
		selectJSON
		Text    string             `json:"text"`
		Vector  vectorJSON         `json:"vector"`
		Model   string             `json:"model"`
		Using   string             `json:"using"`
		Scope   scopeJSON          `json:"scope"`
		Kind    vectord.MemoryKind `json:"kind"`
		Filter  *filterJSON        `json:"filter"`
		Limit   *uint64            `json:"limit"`
		Weights *struct {
			Similarity *float64 `json:"similarity"`
			Recency    float64  `json:"recency"`
			Importance float64  `json:"importance"`
		} `json:"weights"`
		Recency struct {
			HalfLife *uint64           `json:"half_life_seconds"`
			Of       vectord.RecencyOf `json:"of"`
		} `json:"recency"`
		AsOf              momentJSON `json:"as_of"`
		MinScore          *float64   `json:"min_score"`
		Touch             bool       `json:"touch"`
		IncludeSuperseded *bool      `json:"include_superseded"`
	}
	if err := decodeBody(body, &b); err != nil {
		return out, err
	}
	out.MemoryQuery = vectord.MemoryQuery{Text: b.Text, Model: b.Model, Using: b.Using, Scope: vectord.MemoryScope(b.Scope), Kind: b.Kind, Filter: b.Filter.filter(),
		AsOf: vectord.Datetime(b.AsOf), Weights: vectord.MemoryWeights{Similarity: 1}, Of: b.Recency.Of, MinScore: b.MinScore,
		Limit: defaultQueryLimit, Touch: b.Touch, IncludeSuperseded: b.IncludeSuperseded}
	if b.Vector.given {
		out.Vector = &b.Vector.Vector
	}
	if w := b.Weights; w != nil {
		out.Weights.Recency, out.Weights.Importance = w.Recency, w.Importance
		if w.Similarity != nil {
			out.Weights.Similarity = *w.Similarity
		}
		if out.Weights == (vectord.MemoryWeights{}) {
			return out, vectord.Errorf(vectord.KindUnprocessable, "weights: one of them must be larger than 0")
		}
	}
	if out.HalfLife, err = millis(b.Recency.HalfLife, "recency.half_life_seconds"); err != nil {
		return out, err
	}
	if b.Limit != nil {
		if *b.Limit < 1 || *b.Limit > vectord.MaxMemories {
			return out, outOfRange("limit", *b.Limit, fmt.Sprintf("from 1 to %d", vectord.MaxMemories))
		}
		out.Limit = int(*b.Limit)
	}
	out.answer, err = b.selection(true)
	out.Select = out.answer.Selection
	return out, err
}

// decodeTouchMemories reads the body of POST memories/touch.
func decodeTouchMemories(body []byte) ([]vectord.PointID, error) {
	var b struct {
		IDs *list[vectord.PointID] `json:"ids"`
	}
	if err := decodeBody(body, &b); err != nil {
		return nil, err
	}
	if b.IDs == nil {
		return nil, missing("ids")
	}
	return *b.IDs, nil
}

// decodeForgetMemories reads the body of POST memories/delete.
func decodeForgetMemories(body []byte) (out vectord.MemorySelector, err error) {
	var b struct {
		IDs           *list[vectord.PointID] `json:"ids"`
		Scope         scopeJSON              `json:"scope"`
		Kind          vectord.MemoryKind     `json:"kind"`
		Filter        *filterJSON            `json:"filter"`
		IncludePinned bool                   `json:"include_pinned"`
	}
	if err := decodeBody(body, &b); err != nil {
		return out, err
	}
	out = vectord.MemorySelector{Scope: vectord.MemoryScope(b.Scope), Kind: b.Kind, Filter: b.Filter.filter(), IncludePinned: b.IncludePinned}
	if b.IDs != nil {
		out.IDs = *b.IDs
	}
	return out, nil
}
