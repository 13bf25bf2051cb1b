package vectord

import (
	"cmp"
	"encoding/json"
	"math"
)

// Memory is a point whose payload has the keys below: what an agent, or the agents of a user, shall know later. Its JSON form
// is that payload. Times are absent where they are 0.
type Memory struct {
	ID     *PointID `json:"-"` // nil: one is made
	Vector *Vector  `json:"-"` // nil: it is made of Text
	Model  string   `json:"-"` // that makes a vector of Text; "": the only one that fits
	Using  string   `json:"-"` // the name of the vector; "" is the default one
	// Expires is as that of a Point; TTL, in milliseconds, sets it from the moment of writing on. Neither: never.
	Expires int64 `json:"-"`
	TTL     int64 `json:"-"`

	Text         string          `json:"text"`
	Scope        MemoryScope     `json:"scope"`
	Kind         MemoryKind      `json:"kind,omitempty"`       // "": MemorySemantic
	Importance   *float64        `json:"importance,omitempty"` // from 0 to 1; nil: DefaultImportance
	Created      Datetime        `json:"created_at,omitzero"`
	LastUsed     Datetime        `json:"last_used_at,omitzero"`
	Uses         uint64          `json:"uses"`
	SourceTask   string          `json:"source_task_id,omitempty"`
	ValidFrom    Datetime        `json:"valid_from,omitzero"` // what the text says holds from then …
	ValidTo      Datetime        `json:"valid_to,omitzero"`   // … until just before then
	SupersededBy *PointID        `json:"superseded_by,omitempty"`
	Pinned       bool            `json:"pinned,omitempty"` // it does not expire, and is not forgotten with others
	Metadata     json.RawMessage `json:"metadata,omitempty"`
}

// MemoryScope says whose a memory is; any of it may be empty.
type MemoryScope struct {
	UserID    string `json:"user_id,omitempty"`
	AgentID   string `json:"agent_id,omitempty"`
	SessionID string `json:"session_id,omitempty"`
	RunID     string `json:"run_id,omitempty"`
}

// MemoryScopeKey is a part of a scope: the payload path at which it is kept, and its value.
type MemoryScopeKey struct{ Path, Value string }

// Keys returns the parts of a scope, those that are empty too, in a fixed order.
func (s MemoryScope) Keys() [4]MemoryScopeKey {
	return [4]MemoryScopeKey{{"scope.user_id", s.UserID}, {"scope.agent_id", s.AgentID}, {"scope.session_id", s.SessionID}, {"scope.run_id", s.RunID}}
}

// MemoryKind says what a memory is about.
type MemoryKind string

// The kinds of memories. A point is a memory if its payload has one of them under "kind".
const (
	MemorySemantic   MemoryKind = "semantic"   // what is so
	MemoryEpisodic   MemoryKind = "episodic"   // what has happened
	MemoryProcedural MemoryKind = "procedural" // how something is done
)

// MemoryKinds are all of them.
func MemoryKinds() []MemoryKind {
	return []MemoryKind{MemorySemantic, MemoryEpisodic, MemoryProcedural}
}

// Limits and defaults of memories.
const (
	MaxMemories          = 1_000                        // of one write or one answer
	MaxMemoryCandidates  = 10_000                       // that a search scores, where age or importance count
	MaxMemoryScopeBytes  = 255                          // of each part of a scope, and of a source_task_id
	MaxMemoryMillis      = 200 * 365 * 24 * 3600 * 1000 // of a time to live, a half-life, and a time in milliseconds since 1970
	DefaultImportance    = 0.5
	DefaultDedupSimilar  = 0.95
	DefaultMemoryHalfAge = 7 * 24 * 3600 * 1000
)

// Check returns an error for a memory that no collection could keep. It begins with the name of the field in the HTTP API.
func (m *Memory) Check() error {
	switch {
	case m.Text == "":
		return Errorf(KindUnprocessable, "text: is empty")
	case len(m.Text) > MaxDocumentBytes:
		return Errorf(KindUnprocessable, "text: %d bytes, at most %d are accepted", len(m.Text), MaxDocumentBytes)
	case len(m.SourceTask) > MaxMemoryScopeBytes:
		return Errorf(KindUnprocessable, "source_task_id: %d bytes, at most %d are accepted", len(m.SourceTask), MaxMemoryScopeBytes)
	case m.Importance != nil && !(*m.Importance >= 0 && *m.Importance <= 1):
		return Errorf(KindUnprocessable, "importance: value %v invalid, must be from 0 to 1", *m.Importance)
	case m.ValidFrom != 0 && m.ValidTo != 0 && m.ValidFrom >= m.ValidTo:
		return Errorf(KindUnprocessable, "valid_to: %s is not after valid_from, %s", m.ValidTo, m.ValidFrom)
	case m.TTL < 0 || m.TTL > MaxMemoryMillis:
		return Errorf(KindUnprocessable, "ttl_seconds: value %d invalid, must be from 1 to %d", m.TTL/1000, MaxMemoryMillis/1000)
	case m.TTL != 0 && m.Expires != 0:
		return Errorf(KindUnprocessable, "ttl_seconds: cannot be given together with expires_at")
	case m.Pinned && (m.TTL != 0 || m.Expires != 0):
		return Errorf(KindUnprocessable, "pinned: a pinned memory does not expire, so ttl_seconds and expires_at cannot be given")
	case m.Vector != nil && m.Model != "":
		return Errorf(KindUnprocessable, "model: cannot be given together with vector")
	}
	if err := checkMemoryKind(m.Kind); err != nil {
		return err
	}
	if err := m.checkMetadata(); err != nil {
		return err
	}
	return m.Scope.Check()
}

// Current reports whether a memory has not expired at a time, in milliseconds since the Unix epoch, and holds still.
func (m *Memory) Current(now int64) bool {
	return (m.Expires == 0 || m.Expires > now) && (m.ValidTo == 0 || m.ValidTo > Datetime(now*1000))
}

func (m *Memory) checkMetadata() error {
	if len(m.Metadata) == 0 {
		return nil
	}
	if len(m.Metadata) > MaxPayloadBytes {
		return Errorf(KindTooLarge, "metadata: %d bytes, at most %d are accepted", len(m.Metadata), MaxPayloadBytes)
	}
	if depth := JSONDepth(m.Metadata); depth >= MaxPayloadDepth { // the payload around it is one more
		return Errorf(KindUnprocessable, "metadata: nested %d deep, at most %d are accepted", depth, MaxPayloadDepth-1)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(m.Metadata, &object); err != nil || object == nil {
		return Errorf(KindInvalid, "metadata: expected an object, got %s", shorten(m.Metadata))
	}
	return nil
}

func checkMemoryKind(k MemoryKind) error {
	switch k {
	case "", MemorySemantic, MemoryEpisodic, MemoryProcedural:
		return nil
	}
	return Errorf(KindUnprocessable, "kind: expected semantic, episodic or procedural, got %s", shorten([]byte(k)))
}

// Check returns an error for a scope of which a part is too long.
func (s MemoryScope) Check() error {
	for _, key := range s.Keys() {
		if len(key.Value) > MaxMemoryScopeBytes {
			return Errorf(KindUnprocessable, "%s: %d bytes, at most %d are accepted", key.Path, len(key.Value), MaxMemoryScopeBytes)
		}
	}
	return nil
}

// ParseMemory reads the payload of a memory.
func ParseMemory(payload []byte) (m Memory, err error) {
	if err = json.Unmarshal(payload, &m); err != nil {
		err = Errorf(KindInvalid, "the payload of a memory: %v", err)
	}
	return m, err
}

// MemoryDedup says what becomes of a memory that is to another of the same scope as similar as Threshold, or more.
type MemoryDedup struct {
	Threshold float64 // 0: DefaultDedupSimilar
	Action    DedupAction
}

// DedupAction is what happens to a memory when there is one like it.
type DedupAction string

// The actions. "" is DedupSkip.
const (
	DedupSkip      DedupAction = "skip"      // it is not written
	DedupRefresh   DedupAction = "refresh"   // it is not written; the other counts as used, lives as long as either and is as important as either
	DedupSupersede DedupAction = "supersede" // it is written; the other holds no longer, and says by what it was superseded
)

// Check returns an error for what is no dedup.
func (d *MemoryDedup) Check() error {
	if d == nil {
		return nil
	}
	if !(d.Threshold >= 0) || math.IsInf(d.Threshold, 0) {
		return Errorf(KindUnprocessable, "dedup.threshold: value %v invalid, must be larger than 0 and finite", d.Threshold)
	}
	switch d.Action {
	case "", DedupSkip, DedupRefresh, DedupSupersede:
		return nil
	}
	return Errorf(KindUnprocessable, "dedup.action: expected skip, refresh or supersede, got %s", shorten([]byte(d.Action)))
}

// MemoryResult answers one memory of a write. Its JSON form is kept with idempotency keys.
type MemoryResult struct {
	ID      PointID       `json:"id"` // of the memory that is there now: the one written, or that which it was like
	Outcome MemoryOutcome `json:"status"`
	// Superseded is the memory that the one written has superseded, Similarity that of the two; the latter also where the
	// memory was not written.
	Superseded *PointID `json:"superseded,omitempty"`
	Similarity *float32 `json:"similarity,omitempty"`
}

// MemoryOutcome is what became of a memory.
type MemoryOutcome string

// The outcomes.
const (
	MemoryCreated    MemoryOutcome = "created"
	MemorySkipped    MemoryOutcome = "skipped"
	MemoryRefreshed  MemoryOutcome = "refreshed"
	MemorySuperseded MemoryOutcome = "superseded" // the new one was written and has superseded another
)

// MemoryQuery asks for memories by the score
//
//	Weights.Similarity · similarity + Weights.Recency · 2^(-age / HalfLife) + Weights.Importance · importance
//
// The similarity is the score of the collection's distance for Cosine and Dot, and 1/(1+distance) for the others.
type MemoryQuery struct {
	Text   string  // what to be similar to …
	Model  string  // … made a vector by this; "": the only one that fits
	Vector *Vector // … or this
	Using  string

	Scope  MemoryScope // parts that are empty are not looked at
	Kind   MemoryKind  // "": any
	Filter *Filter     // further conditions
	AsOf   Datetime    // only what held then; 0: whenever it holds

	Weights  MemoryWeights // all zero: similarity alone
	HalfLife int64         // milliseconds; 0: DefaultMemoryHalfAge
	Of       RecencyOf
	MinScore *float64

	Limit             int   // from 1 to MaxMemories
	Touch             bool  // the hits count as used
	IncludeSuperseded *bool // nil: with AsOf, which tells by itself what held
	Select            Selection
}

// MemoryWeights are what the parts of a score count.
type MemoryWeights struct {
	Similarity, Recency, Importance float64
}

// RecencyOf says since when a memory ages. "" is RecencyOfCreated.
type RecencyOf string

// The moments since when. A memory that was never used ages since it was created.
const (
	RecencyOfCreated  RecencyOf = "created"
	RecencyOfLastUsed RecencyOf = "last_used"
)

// Check returns an error unless the query can be answered by some collection.
func (q *MemoryQuery) Check() error {
	switch {
	case q.Vector == nil && q.Text == "":
		return Errorf(KindUnprocessable, "text: either text or vector must be given")
	case q.Vector != nil && (q.Text != "" || q.Model != ""):
		return Errorf(KindUnprocessable, "vector: cannot be given together with text or model")
	case len(q.Text) > MaxDocumentBytes:
		return Errorf(KindUnprocessable, "text: %d bytes, at most %d are accepted", len(q.Text), MaxDocumentBytes)
	case q.Limit < 1 || q.Limit > MaxMemories:
		return Errorf(KindUnprocessable, "limit: value %d invalid, must be from 1 to %d", q.Limit, MaxMemories)
	case q.HalfLife < 0 || q.HalfLife > MaxMemoryMillis:
		return Errorf(KindUnprocessable, "recency.half_life_seconds: value %d invalid, must be from 1 to %d", q.HalfLife/1000, MaxMemoryMillis/1000)
	case q.Of != "" && q.Of != RecencyOfCreated && q.Of != RecencyOfLastUsed:
		return Errorf(KindUnprocessable, "recency.of: expected created or last_used, got %s", shorten([]byte(q.Of)))
	case q.MinScore != nil && !finite(*q.MinScore):
		return Errorf(KindUnprocessable, "min_score: value %v invalid, must be finite", *q.MinScore)
	}
	for _, w := range []struct {
		name  string
		value float64
	}{{"similarity", q.Weights.Similarity}, {"recency", q.Weights.Recency}, {"importance", q.Weights.Importance}} {
		if !(w.value >= 0) || !finite(w.value) {
			return Errorf(KindUnprocessable, "weights.%s: value %v invalid, must be 0 or larger and finite", w.name, w.value)
		}
	}
	if err := checkMemoryKind(q.Kind); err != nil {
		return err
	}
	return q.Scope.Check()
}

func finite(x float64) bool { return x-x == 0 }

// MemoryHit is a memory found by a query, with its score and what that is made of.
type MemoryHit struct {
	Record
	Score float64
	Parts MemoryParts
}

// MemoryParts are the parts of a score, before they are weighted.
type MemoryParts struct {
	Similarity float64 `json:"similarity"`
	Recency    float64 `json:"recency"`
	Importance float64 `json:"importance"`
}

// PartsOf returns the parts of the score of a memory at a time. One that does not say when it was created is not recent at all,
// one that does not say how important it is as important as DefaultImportance.
func (q *MemoryQuery) PartsOf(m Memory, similarity float64, now Datetime) MemoryParts {
	p := MemoryParts{Similarity: similarity, Importance: DefaultImportance}
	if m.Importance != nil {
		p.Importance = *m.Importance
	}
	since := m.Created
	if q.Of == RecencyOfLastUsed && m.LastUsed != 0 {
		since = m.LastUsed
	}
	if since != 0 {
		halfLife := cmp.Or(q.HalfLife, DefaultMemoryHalfAge)
		p.Recency = math.Exp2(-float64(max(now-since, 0)) / 1000 / float64(halfLife))
	}
	return p
}

// Score returns the weighted sum of the parts.
func (p MemoryParts) Score(w MemoryWeights) float64 {
	return w.Similarity*p.Similarity + w.Recency*p.Recency + w.Importance*p.Importance
}

// MemorySelector says which memories to forget: those to which all that is set applies.
type MemorySelector struct {
	IDs    []PointID // nil: any
	Scope  MemoryScope
	Kind   MemoryKind
	Filter *Filter
	// IncludePinned forgets pinned memories too. IDs name them, so with IDs they are forgotten either way.
	IncludePinned bool
}

// Check returns an error for a selector that would forget everything or that is wrong in itself.
func (s *MemorySelector) Check() error {
	if s.IDs == nil && s.Scope == (MemoryScope{}) && s.Kind == "" && s.Filter.Empty() {
		return Errorf(KindUnprocessable, "ids: at least one of ids, scope, kind and filter must be given")
	}
	if len(s.IDs) > MaxBatchPoints {
		return Errorf(KindUnprocessable, "ids: %d ids, at most %d are accepted", len(s.IDs), MaxBatchPoints)
	}
	if err := checkMemoryKind(s.Kind); err != nil {
		return err
	}
	return s.Scope.Check()
}
