package mcpserver

import (
	"context"
	"encoding/json"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

func (s *Server) addMemoryTools() {
	addTool(s, toolSpec{name: "store_memory", needs: access.Write, scope: access.ScopeCollection, effect: changes, required: []string{"collection", "text"},
		description: "Keep a text that you or others shall know later. A memory that is much like one of the same scope is not kept twice."}, s.storeMemory)
	addTool(s, toolSpec{name: "search_memories", needs: access.Read, scope: access.ScopeCollection, effect: reads, required: []string{"collection"},
		description: "Find memories by what they are about and, with weights, by how recent and how important they are."}, s.searchMemories)
}

type storeMemoryIn struct {
	collectionArgument
	Text           string              `json:"text" jsonschema:"what shall be known"`
	Vector         []float32           `json:"vector,omitempty" jsonschema:"its vector; the server makes one of text unless given"`
	Using          string              `json:"using,omitempty" jsonschema:"name of the vector; the default one unless given"`
	Model          string              `json:"model,omitempty" jsonschema:"what makes a vector of text; the only one that fits the collection unless given"`
	Scope          vectord.MemoryScope `json:"scope,omitzero" jsonschema:"whose it is"`
	Kind           vectord.MemoryKind  `json:"kind,omitempty" jsonschema:"semantic (what is so; unless given), episodic (what happened) or procedural (how something is done)"`
	Importance     *float64            `json:"importance,omitempty" jsonschema:"0 to 1; 0.5 unless given"`
	TTLSeconds     int64               `json:"ttl_seconds,omitempty" jsonschema:"forget it after this time; never unless given"`
	ValidFrom      vectord.Datetime    `json:"valid_from,omitzero" jsonschema:"what the text says holds from then"`
	ValidTo        vectord.Datetime    `json:"valid_to,omitzero" jsonschema:"what the text says holds until just before then"`
	SourceTaskID   string              `json:"source_task_id,omitempty" jsonschema:"the task that it came from"`
	Pinned         bool                `json:"pinned,omitempty" jsonschema:"never forgotten with others"`
	Metadata       json.RawMessage     `json:"metadata,omitempty" jsonschema:"an object of any content"`
	Dedup          vectord.DedupAction `json:"dedup,omitempty" jsonschema:"when there is one much like it in its scope: skip this one (unless given), refresh the other, let this one supersede it, or keep both (off)"`
	DedupThreshold float64             `json:"dedup_threshold,omitempty" jsonschema:"similarity from which two are much alike; 0.95 unless given"`
	IdempotencyKey string              `json:"idempotency_key,omitempty" jsonschema:"makes repeating the call return the first answer"`
}

// keepBoth is the dedup of one who wants none.
const keepBoth = "off"

func (s *Server) storeMemory(ctx context.Context, in storeMemoryIn) (out vectord.MemoryResult, err error) {
	m := vectord.Memory{Model: in.Model, Using: in.Using, Text: in.Text, Scope: in.Scope, Kind: in.Kind, Importance: in.Importance, ValidFrom: in.ValidFrom,
		ValidTo: in.ValidTo, SourceTask: in.SourceTaskID, Pinned: in.Pinned, Metadata: in.Metadata}
	if in.Vector != nil {
		v := vectord.Dense(in.Vector)
		m.Vector = &v
	}
	if m.TTL, err = millis("ttl_seconds", in.TTLSeconds); err != nil {
		return out, err
	}
	dedup := &vectord.MemoryDedup{Threshold: in.DedupThreshold, Action: in.Dedup}
	if in.Dedup == keepBoth {
		dedup = nil
	}
	if len(in.IdempotencyKey) > vectord.MaxTaskKeyBytes {
		return out, vectord.Errorf(vectord.KindUnprocessable, "idempotency_key: %d bytes, at most %d are accepted", len(in.IdempotencyKey), vectord.MaxTaskKeyBytes)
	}
	results, err := s.engine.StoreMemories(ctx, in.Collection, []vectord.Memory{m}, dedup, vectord.WriteOptions{IdempotencyKey: in.IdempotencyKey})
	if err != nil {
		return out, err
	}
	return results[0], nil
}

// millis returns seconds, if they are given, in milliseconds.
func millis(name string, seconds int64) (int64, error) {
	if seconds < 0 || seconds > vectord.MaxMemoryMillis/1000 {
		return 0, vectord.Errorf(vectord.KindUnprocessable, "%s: value %d invalid, must be from 1 to %d", name, seconds, vectord.MaxMemoryMillis/1000)
	}
	return seconds * 1000, nil
}

type searchMemoriesIn struct {
	collectionArgument
	Text             string              `json:"text,omitempty" jsonschema:"what they should be about"`
	Vector           []float32           `json:"vector,omitempty" jsonschema:"instead of text: what to be near to"`
	Using            string              `json:"using,omitempty" jsonschema:"name of the vectors to compare with; the default one unless given"`
	Model            string              `json:"model,omitempty" jsonschema:"what makes a vector of text; the only one that fits the collection unless given"`
	Scope            vectord.MemoryScope `json:"scope,omitzero" jsonschema:"whose they are; parts that are not given are not looked at"`
	Kind             vectord.MemoryKind  `json:"kind,omitempty" jsonschema:"semantic, episodic or procedural; any unless given"`
	Filter           *vectord.Filter     `json:"filter,omitempty" jsonschema:"further conditions on the payload, in the form of Qdrant's filters"`
	AsOf             vectord.Datetime    `json:"as_of,omitzero" jsonschema:"only what held at this time"`
	RecencyWeight    float64             `json:"recency_weight,omitempty" jsonschema:"what recency counts beside similarity, which counts 1; 0 unless given"`
	ImportanceWeight float64             `json:"importance_weight,omitempty" jsonschema:"what importance counts beside similarity; 0 unless given"`
	HalfLifeSeconds  int64               `json:"half_life_seconds,omitempty" jsonschema:"after which recency has halved; a week unless given"`
	MinScore         *float64            `json:"min_score,omitempty" jsonschema:"only memories with this score or more"`
	Limit            int                 `json:"limit,omitempty" jsonschema:"how many, 1 to 1000; 10 unless given"`
	Touch            bool                `json:"touch,omitempty" jsonschema:"note that those found were used, which needs the permission to write"`
}

type searchMemoriesOut struct {
	Memories []memoryOut `json:"memories" jsonschema:"the one with the highest score first"`
}

type memoryOut struct {
	ID     vectord.PointID     `json:"id"`
	Score  float64             `json:"score"`
	Parts  vectord.MemoryParts `json:"parts" jsonschema:"of the score"`
	Memory json.RawMessage     `json:"memory" jsonschema:"its payload: text, scope, kind, importance, times"`
}

func (s *Server) searchMemories(ctx context.Context, in searchMemoriesIn) (out searchMemoriesOut, err error) {
	q := vectord.MemoryQuery{Text: in.Text, Model: in.Model, Using: in.Using, Scope: in.Scope, Kind: in.Kind, Filter: in.Filter, AsOf: in.AsOf,
		Weights: vectord.MemoryWeights{Similarity: 1, Recency: in.RecencyWeight, Importance: in.ImportanceWeight}, MinScore: in.MinScore, Touch: in.Touch,
		Select: vectord.Selection{Payload: true}}
	if in.Vector != nil {
		v := vectord.Dense(in.Vector)
		q.Vector = &v
	}
	if q.HalfLife, err = millis("half_life_seconds", in.HalfLifeSeconds); err != nil {
		return out, err
	}
	if q.Limit, err = numberWithin("limit", in.Limit, defaultHits, vectord.MaxMemories); err != nil {
		return out, err
	}
	if in.Touch { // which changes something
		if _, err := s.authorizeCollection(ctx, in.Collection, access.Write); err != nil {
			return out, err
		}
	}
	hits, err := s.engine.SearchMemories(ctx, in.Collection, q)
	if err != nil {
		return out, err
	}
	out.Memories = make([]memoryOut, len(hits))
	for i, h := range hits {
		out.Memories[i] = memoryOut{h.ID, h.Score, h.Parts, h.Payload}
	}
	return out, nil
}
