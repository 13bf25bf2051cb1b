package scheduler

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index"
)

// similarsKept is how many of the nearest agents are kept with a task, and candidatesMax of how many a decision tells.
const (
	similarsKept  = 64
	candidatesMax = 10
)

// similar is an agent and how near it is to a task, from 0 to 1.
type similar struct {
	agent      *agent
	similarity float64
}

// dotDistance is minus the scalar product, which of vectors of length 1 is their cosine.
var dotDistance = index.DistanceFunc(vectord.Dot)

// similarity returns (1 + cosine) / 2 of a task's vector and the nearest of an agent's; 0 if the agent has none of its size.
func similarity(vector []float32, vectors [][]float32) float64 {
	best := math.Inf(1)
	for _, v := range vectors {
		if len(v) == len(vector) {
			best = min(best, float64(dotDistance(vector, v)))
		}
	}
	if math.IsInf(best, 1) {
		return 0
	}
	return min(max((1-best)/2, 0), 1)
}

// nearest returns the agents of a queue that suit a task, the nearest first, at most similarsKept, and how near the nearest
// active one is.
func nearest(list []capability, vector []float32, tags []string, pin string, now int64) (similars []similar, best float64) {
	for _, c := range list {
		s := similar{c.agent, similarity(vector, c.vectors)}
		if len(similars) == similarsKept && s.similarity <= similars[similarsKept-1].similarity {
			continue
		}
		if reason := c.agent.unsuited(tags, pin, now); reason != "" && reason != string(vectord.AgentOffline) && reason != string(vectord.AgentDraining) {
			continue
		} else if reason == "" {
			best = max(best, s.similarity)
		}
		at, _ := slices.BinarySearchFunc(similars, s, func(a, b similar) int { return cmp.Compare(b.similarity, a.similarity) })
		if len(similars) == similarsKept {
			similars = similars[:similarsKept-1]
		}
		similars = slices.Insert(similars, at, s)
	}
	return similars, best
}

// route notes which agents are near to a task, and until when it waits for them.
func (t *task) route(similars []similar, best float64, now int64) {
	t.similars, t.best, t.routed = similars, best, true
	r := &t.queue.config.Routing
	wait := r.AffinityWaitMS
	for _, s := range similars {
		if s.similarity < best-r.SimilarityMargin {
			break
		}
		if s.agent.free() > 0 && s.agent.status(now) == vectord.AgentActive {
			wait = r.CollectMS
		}
	}
	t.widenAt = max(t.readyAt, now) + max(wait, 1)
	if t.steps > 0 {
		t.widenAt = now + max(r.AffinityWaitMS, 1)
	}
}

// threshold returns the similarity that an agent must have to be given the task by now. far says that no agent has what the
// queue asks for at least.
func (t *task) threshold() (similarity float64, far bool) {
	r := &t.queue.config.Routing
	if t.best < r.MinSimilarity {
		return r.MinSimilarity, true
	}
	switch r.Policy {
	case vectord.NearestThenLeastLoaded:
		return max(r.MinSimilarity, t.best-r.SimilarityMargin*float64(1+t.steps)), false
	case vectord.Nearest:
		return max(r.MinSimilarity, t.best-r.SimilarityMargin*float64(t.steps)), false
	}
	return r.MinSimilarity, false
}

// may reports whether an agent may have a queued task now, and how near it is.
func (s *Scheduler) may(t *task, a *agent, now int64) (near float64, ok bool) {
	serves := slices.Contains(a.config.Queues, t.queue.name)
	if !t.constrained() {
		return 1, serves
	}
	if a.unsuited(t.new.Tags, t.new.AgentID, now) != "" {
		return 0, false
	}
	if p := t.preferred; p != "" && p != a.id && now < t.readyAt+t.queue.config.Routing.AffinityWaitMS {
		if other := s.agents[p]; other != nil && other.status(now) == vectord.AgentActive {
			return 0, false
		}
	}
	if len(t.new.Vector) == 0 {
		return 1, serves
	}
	if t.new.AgentID != "" {
		return similarity(t.new.Vector, a.config.Vectors), serves // the pin has decided
	}
	if !t.routed {
		return 0, false
	}
	near = similarity(t.new.Vector, a.config.Vectors)
	threshold, far := t.threshold()
	if !far {
		return near, serves && near >= threshold
	}
	switch kind, name := t.queue.fallback(); kind {
	case "any":
		return near, serves
	case "queue":
		return near, slices.Contains(a.config.Queues, name)
	case "agent":
		return near, a.id == name
	}
	return near, false
}

// fallback returns what tasks fall back to that are far from all agents, of a queue or an agent with its name.
func (q *queue) fallback() (kind, name string) {
	kind, name, _ = strings.Cut(q.config.Routing.Fallback, ":")
	return kind, name
}

// nextLook returns when somebody else may have the task, who may not now, if nothing else happens; 0: never.
func (t *task) nextLook(now int64) (at int64) {
	if t.routed {
		at = t.widenAt
	}
	if t.preferred == "" || now >= t.readyAt+t.queue.config.Routing.AffinityWaitMS {
		return at
	}
	if soon := now + rethinkEvery.Milliseconds(); at == 0 || soon < at { // the preferred agent may go offline at any time
		return soon
	}
	return at
}

// better reports whether a task should rather go to a than to b, both of which may have it.
func (q *queue) better(a, b similar) bool {
	r := &q.config.Routing
	loadA, loadB := a.agent.load(q.reference()).Score, b.agent.load(q.reference()).Score
	idle := cmp.Or(cmp.Compare(a.agent.idleAt, b.agent.idleAt), cmp.Compare(a.agent.turn, b.agent.turn), cmp.Compare(a.agent.number, b.agent.number))
	var order int
	switch r.Policy {
	case vectord.RoundRobin:
		order = cmp.Compare(a.agent.turn, b.agent.turn)
	case vectord.Nearest:
		order = cmp.Or(cmp.Compare(b.similarity, a.similarity), cmp.Compare(loadA, loadB))
	case vectord.Weighted:
		score := func(s similar, load float64) float64 { return r.Weight*s.similarity + (1-r.Weight)*(1-load) }
		order = cmp.Compare(score(b, loadB), score(a, loadA))
	case vectord.LeastLoaded:
		order = cmp.Compare(loadA, loadB)
	default:
		order = cmp.Or(cmp.Compare(loadA, loadB), cmp.Compare(b.similarity, a.similarity))
	}
	return cmp.Or(order, idle) < 0
}

// explain says why a task goes to an agent, or, for nil, to none now. The scheduler's mu is held.
func (s *Scheduler) explain(t *task, chosen *agent, began time.Time, limit int) *vectord.Decision {
	now := s.now()
	q := t.queue
	d := &vectord.Decision{Policy: q.config.Routing.Policy, Attempt: t.attempt + 1}
	threshold, far := t.threshold()
	if len(t.new.Vector) > 0 {
		d.Threshold = threshold
	}
	if far && len(t.new.Vector) > 0 && t.new.AgentID == "" && (chosen == nil || q.config.Routing.Fallback != "wait") {
		d.Fallback = q.config.Routing.Fallback
	}
	considered := t.similars
	if len(t.new.Vector) == 0 {
		for _, c := range s.snapshot().byQueue[q.name] {
			if considered = append(considered, similar{c.agent, 1}); len(considered) == similarsKept {
				break
			}
		}
	}
	if chosen != nil {
		d.AgentID = chosen.id
		if !slices.ContainsFunc(considered, func(c similar) bool { return c.agent == chosen }) {
			considered = append(slices.Clip(considered), similar{chosen, similarity(t.new.Vector, chosen.config.Vectors)})
		}
	}
	reference := q.reference()
	d.Candidates = make([]vectord.Candidate, 0, min(len(considered), limit))
	for _, c := range considered {
		candidate := vectord.Candidate{AgentID: c.agent.id, Similarity: c.similarity, Load: c.agent.load(reference)}
		candidate.Reason = c.agent.unsuited(t.new.Tags, t.new.AgentID, now)
		if candidate.Reason == "" && len(t.new.Vector) > 0 && t.new.AgentID == "" && c.similarity < threshold && d.Fallback == "" {
			candidate.Reason = "similarity " + formatSimilarity(c.similarity) + " < " + formatSimilarity(threshold)
		}
		if candidate.Reason == "" && c.agent.free() <= 0 && c.agent != chosen {
			candidate.Reason = c.agent.busy()
		}
		candidate.Eligible = candidate.Reason == "" || c.agent == chosen
		if c.agent == chosen {
			candidate.Reason = ""
			d.Candidates = slices.Insert(d.Candidates, 0, candidate) // whatever the limit cuts off
			continue
		}
		d.Candidates = append(d.Candidates, candidate)
	}
	slices.SortStableFunc(d.Candidates, func(a, b vectord.Candidate) int {
		first := func(c vectord.Candidate) int {
			switch {
			case chosen != nil && c.AgentID == chosen.id:
				return 0
			case c.Eligible:
				return 1
			}
			return 2
		}
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(b.Similarity, a.Similarity), cmp.Compare(a.Load.Score, b.Load.Score))
	})
	d.Candidates = d.Candidates[:min(len(d.Candidates), limit)]
	d.TookUS = time.Since(began).Microseconds()
	return d
}

// normalize returns v with length 1, or false for one of length 0.
func normalize(v []float32) ([]float32, bool) {
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 || math.IsNaN(sum) || math.IsInf(sum, 0) {
		return nil, false
	}
	out := make([]float32, len(v))
	scale := 1 / math.Sqrt(sum)
	for i, x := range v {
		out[i] = float32(float64(x) * scale)
	}
	return out, true
}

func formatSimilarity(s float64) string { return strconv.FormatFloat(s, 'f', 2, 64) }
