package vectord

import (
	"fmt"
	"maps"
	"slices"
)

// AgentConfig is what an agent says of itself when it registers.
type AgentConfig struct {
	Queues          []string          `json:"queues"`
	Vectors         [][]float32       `json:"vectors,omitempty"` // what it is capable of; similarity is that of the nearest
	Texts           []string          `json:"texts,omitempty"`   // of which the server's model makes further vectors
	Capabilities    []string          `json:"capabilities,omitempty"`
	Capacity        int               `json:"capacity"`          // tasks at a time; 0: 1
	LeaseTTLSeconds int               `json:"lease_ttl_seconds"` // without a sign of life until it counts as offline; 0: 30
	Transport       string            `json:"transport"`         // pull (default), exec, mcp_stdio, mcp_http: information
	Labels          map[string]string `json:"labels,omitempty"`
}

// Check returns an error, which names the field and the value, unless an agent may register with this.
func (c *AgentConfig) Check() error {
	if len(c.Queues) < 1 || len(c.Queues) > MaxAgentQueues {
		return Errorf(KindUnprocessable, "queues: %d of them, must be from 1 to %d", len(c.Queues), MaxAgentQueues)
	}
	for i, name := range c.Queues {
		if err := CheckName(fmt.Sprintf("queues[%d]", i), name); err != nil {
			return err
		}
	}
	if err := c.checkVectors(); err != nil {
		return err
	}
	if err := checkLabels("capabilities", c.Capabilities, MaxAgentCapabilities); err != nil {
		return err
	}
	err := checkRanges("",
		rangeCheck{"capacity", c.Capacity, 0, MaxAgentCapacity},
		rangeCheck{"lease_ttl_seconds", c.LeaseTTLSeconds, 0, MaxLeaseSeconds},
		rangeCheck{"labels", len(c.Labels), 0, MaxAgentLabels})
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Labels)) {
		if err := checkLabel("labels", name); err != nil {
			return err
		}
		if err := checkText(fmt.Sprintf("labels.%.80s", name), c.Labels[name], MaxNameBytes); err != nil {
			return err
		}
	}
	return checkChoice("transport", c.Transport, "", "pull", "exec", "mcp_stdio", "mcp_http")
}

func (c *AgentConfig) checkVectors() error {
	if n := len(c.Vectors) + len(c.Texts); n > MaxAgentVectors {
		return Errorf(KindUnprocessable, "vectors: %d of them and of texts, at most %d are accepted", n, MaxAgentVectors)
	}
	for i, v := range c.Vectors {
		if err := checkRoutingVector(fmt.Sprintf("vectors[%d]", i), v); err != nil {
			return err
		}
		if len(v) != len(c.Vectors[0]) {
			return Errorf(KindUnprocessable, "vectors[%d]: %d components, the first has %d", i, len(v), len(c.Vectors[0]))
		}
	}
	for i, text := range c.Texts {
		if text == "" || len(text) > MaxTaskTextBytes {
			return Errorf(KindUnprocessable, "texts[%d]: %d bytes, must be from 1 to %d", i, len(text), MaxTaskTextBytes)
		}
	}
	return nil
}

// AgentStatus says whether an agent takes tasks.
type AgentStatus string

// The statuses of agents.
const (
	AgentActive   AgentStatus = "active"
	AgentDraining AgentStatus = "draining" // finishes what it has and gets nothing new
	AgentOffline  AgentStatus = "offline"  // has given no sign of life for its lease_ttl_seconds
)

// AgentLoad is how busy an agent is: Score = 0.7 × TaskRatio + 0.3 × LatencyRatio.
type AgentLoad struct {
	Score        float64 `json:"score"`
	TaskRatio    float64 `json:"task_ratio"`    // tasks it has by those it can have
	LatencyRatio float64 `json:"latency_ratio"` // run time by the reference, at most 1
	LatencyMS    float64 `json:"latency_ms"`    // mean of its run times, the later ones counting more
}

// Agent is an agent as it stands.
type Agent struct {
	ID string `json:"agent_id"`
	AgentConfig
	Status    AgentStatus `json:"status"`
	InFlight  int         `json:"in_flight"`
	Load      AgentLoad   `json:"load"`
	Completed uint64      `json:"completed"` // since the server started
	Failed    uint64      `json:"failed"`
	LastSeen  Timestamp   `json:"last_seen"`
}

// AgentHeartbeat is a sign of life.
type AgentHeartbeat struct {
	LatencyMS float64 // measured by the agent itself; 0: it says nothing
}

// AgentNews is the answer to an AgentHeartbeat.
type AgentNews struct {
	Status          AgentStatus `json:"status"`
	CancelRequested []TaskID    `json:"cancel_requested"` // of the tasks that it holds
}

// RouteRequest asks where a task would go.
type RouteRequest struct {
	Queue   string
	Vector  []float32
	Text    string
	Tags    []string
	AgentID string
	Limit   int // of candidates; 0: 10
}

// Check returns an error, which names the field and the value, unless the question may be asked.
func (r *RouteRequest) Check() error {
	if err := CheckName("queue", r.Queue); err != nil {
		return err
	}
	if err := checkRanges("", rangeCheck{"limit", r.Limit, 0, MaxCandidates}); err != nil {
		return err
	}
	return checkTarget(r.Vector, r.Text, r.Tags, r.AgentID)
}

// Decision says which agent a task went, or would go, to, and why.
type Decision struct {
	AgentID    string        `json:"agent_id,omitempty"` // empty: nobody
	Policy     RoutingPolicy `json:"policy"`
	TookUS     int64         `json:"took_us"`
	Fallback   string        `json:"fallback,omitempty"` // that was taken
	Threshold  float64       `json:"threshold"`          // similarity that was asked for
	Attempt    int           `json:"attempt,omitempty"`
	Candidates []Candidate   `json:"candidates"`
}

// Candidate is an agent that was considered.
type Candidate struct {
	AgentID    string    `json:"agent_id"`
	Similarity float64   `json:"similarity"`
	Load       AgentLoad `json:"load"`
	Eligible   bool      `json:"eligible"`
	Reason     string    `json:"reason,omitempty"` // why not
}
