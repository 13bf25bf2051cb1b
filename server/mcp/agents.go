package mcpserver

import (
	"context"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

func (s *Server) addAgentTools() {
	addTool(s, toolSpec{name: "register_agent", needs: access.Write, scope: access.ScopeServer, effect: changesOnce, required: []string{"agent_id", "queues"},
		description: "Register as an agent that leases tasks, or change what was said before. An agent that gives no sign of life for lease_ttl_seconds counts as offline.",
		arguments: map[string]string{
			"queues":            "names of the queues that the agent serves",
			"vectors":           "what the agent is capable of: tasks go to the agent with the nearest vector",
			"texts":             "the same in words, of which the server makes vectors",
			"capabilities":      "tags, of which tasks may ask for some",
			"capacity":          "tasks that the agent takes at a time; 1 unless given",
			"lease_ttl_seconds": "30 unless given",
			"transport":         "pull unless given: information for people",
			"labels":            "names and values for people",
		}}, s.registerAgent)
	addTool(s, toolSpec{name: "list_agents", needs: access.Read, scope: access.ScopeServer, effect: reads,
		description: "List the agents with their status and load, by id."}, s.listAgents)
}

type registerAgentIn struct {
	AgentID string `json:"agent_id" jsonschema:"a name of your own"`
	vectord.AgentConfig
}

type registerAgentOut struct {
	Agent vectord.Agent `json:"agent"`
}

func (s *Server) registerAgent(ctx context.Context, in registerAgentIn) (out registerAgentOut, err error) {
	if err := vectord.CheckName("agent_id", in.AgentID); err != nil {
		return out, err
	}
	if err := in.Check(); err != nil {
		return out, err
	}
	if err = s.tasks.RegisterAgent(ctx, in.AgentID, in.AgentConfig); err == nil {
		out.Agent, err = s.tasks.Agent(in.AgentID)
	}
	return out, err
}

type listAgentsIn struct {
	After string `json:"after,omitempty" jsonschema:"only agents whose id comes after this one, for the next page"`
	Limit int    `json:"limit,omitempty" jsonschema:"how many to list, 1 to 1000; 100 unless given"`
}

type listAgentsOut struct {
	Agents []vectord.Agent `json:"agents" jsonschema:"without their vectors"`
	More   bool            `json:"more" jsonschema:"there are further ones, to be listed with after"`
}

const (
	defaultAgents = 100
	maxAgents     = 1_000
)

func (s *Server) listAgents(_ context.Context, in listAgentsIn) (out listAgentsOut, err error) {
	limit, err := numberWithin("limit", in.Limit, defaultAgents, maxAgents)
	if err != nil {
		return out, err
	}
	out.Agents = []vectord.Agent{}
	for _, a := range s.tasks.Agents() {
		if a.ID <= in.After {
			continue
		}
		if len(out.Agents) == limit {
			out.More = true
			break
		}
		a.Vectors = nil
		out.Agents = append(out.Agents, a)
	}
	return out, nil
}
