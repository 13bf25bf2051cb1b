package vectord

import "strings"

// QueueConfig is how a queue is run. Every field is set; DefaultQueueConfig has the defaults.
type QueueConfig struct {
	MaxDepth                 int        `json:"max_depth"`    // tasks that wait before there is backpressure
	MaxOverflow              int        `json:"max_overflow"` // tasks beyond those before there is refusal
	DropPolicy               DropPolicy `json:"drop_policy"`
	LeaseSeconds             int        `json:"lease_seconds"`
	MaxAttempts              int        `json:"max_attempts"`
	Backoff                  Backoff    `json:"backoff"`
	ResultTTLSeconds         int        `json:"result_ttl_seconds"` // a terminal task is kept for so long
	IdempotencyWindowSeconds int        `json:"idempotency_window_seconds"`
	AgingSeconds             int        `json:"aging_seconds"` // of waiting that count as one step of priority; 0: none do
	CancelGraceSeconds       int        `json:"cancel_grace_seconds"`
	RateLimit                RateLimit  `json:"rate_limit"`    // of leases
	MaxInFlight              int        `json:"max_in_flight"` // leases at a time; 0: no limit
	Fairness                 Fairness   `json:"fairness"`
	Routing                  Routing    `json:"routing"`
	Durability               Durability `json:"durability"`
}

// DefaultQueueConfig returns the configuration of a queue of which nothing was said.
func DefaultQueueConfig() QueueConfig {
	return QueueConfig{MaxDepth: 1_000, MaxOverflow: 10_000, DropPolicy: RejectNew, LeaseSeconds: 60, MaxAttempts: 5,
		Backoff:          Backoff{InitialMS: 1_000, Factor: 2, MaxMS: 300_000, Jitter: 0.2},
		ResultTTLSeconds: 86_400, IdempotencyWindowSeconds: 86_400, AgingSeconds: 60, CancelGraceSeconds: 30,
		Routing: Routing{Policy: NearestThenLeastLoaded, MinSimilarity: 0.55, SimilarityMargin: 0.05, AffinityWaitMS: 500, CollectMS: 5_000,
			Weight: 0.5, Fallback: "wait"},
		Durability: Replicated}
}

// Check returns an error, which names the field and the value, unless a queue can be run so.
func (c *QueueConfig) Check() error {
	err := checkRanges("",
		rangeCheck{"max_depth", c.MaxDepth, 1, MaxQueueTasks},
		rangeCheck{"max_overflow", c.MaxOverflow, 0, MaxQueueTasks},
		rangeCheck{"lease_seconds", c.LeaseSeconds, 1, MaxLeaseSeconds},
		rangeCheck{"max_attempts", c.MaxAttempts, 1, MaxAttempts},
		rangeCheck{"result_ttl_seconds", c.ResultTTLSeconds, 1, MaxKeepSeconds},
		rangeCheck{"idempotency_window_seconds", c.IdempotencyWindowSeconds, 0, MaxKeepSeconds},
		rangeCheck{"aging_seconds", c.AgingSeconds, 0, MaxKeepSeconds},
		rangeCheck{"cancel_grace_seconds", c.CancelGraceSeconds, 0, MaxLeaseSeconds},
		rangeCheck{"max_in_flight", c.MaxInFlight, 0, MaxQueueTasks},
		rangeCheck{"fairness.max_in_flight_per_key", c.Fairness.MaxInFlightPerKey, 0, MaxQueueTasks},
		rangeCheck{"routing.vector_size", c.Routing.VectorSize, 0, MaxDimension},
	)
	if err != nil {
		return err
	}
	if err := c.Backoff.check(); err != nil {
		return err
	}
	if err := c.RateLimit.check("rate_limit"); err != nil {
		return err
	}
	if err := c.Fairness.RateLimitPerKey.check("fairness.rate_limit_per_key"); err != nil {
		return err
	}
	if err := c.Routing.check(); err != nil {
		return err
	}
	if err := checkChoice("drop_policy", c.DropPolicy, RejectNew, EvictLowest); err != nil {
		return err
	}
	return checkChoice("durability", c.Durability, Replicated, InMemory)
}

func (b *Backoff) check() error {
	if err := checkMillis("backoff.initial_ms", b.InitialMS); err != nil {
		return err
	}
	if b.MaxMS < b.InitialMS || b.MaxMS > MaxPauseMillis {
		return Errorf(KindUnprocessable, "backoff.max_ms: value %d invalid, must be from initial_ms (%d) to %d", b.MaxMS, b.InitialMS, MaxPauseMillis)
	}
	if err := checkFloat("backoff.factor", b.Factor, 1, 100); err != nil {
		return err
	}
	return checkFloat("backoff.jitter", b.Jitter, 0, 1)
}

func (l *RateLimit) check(field string) error {
	if err := checkFloat(field+".per_second", l.PerSecond, 0, MaxRatePerSecond); err != nil {
		return err
	}
	least := 0
	if l.PerSecond > 0 {
		least = 1 // with none nothing would ever go
	}
	return checkRanges(field+".", rangeCheck{"burst", l.Burst, least, MaxRatePerSecond})
}

func (r *Routing) check() error {
	for _, check := range []error{
		checkChoice("routing.policy", r.Policy, NearestThenLeastLoaded, Weighted, LeastLoaded, RoundRobin, Nearest),
		checkFloat("routing.min_similarity", r.MinSimilarity, 0, 1),
		checkFloat("routing.similarity_margin", r.SimilarityMargin, 0, 1),
		checkFloat("routing.weight", r.Weight, 0, 1),
		checkMillis("routing.affinity_wait_ms", r.AffinityWaitMS),
		checkMillis("routing.collect_ms", r.CollectMS),
		checkMillis("routing.latency_reference_ms", r.LatencyReferenceMS),
	} {
		if check != nil {
			return check
		}
	}
	for _, prefix := range []string{"queue:", "agent:"} {
		if name, ok := strings.CutPrefix(r.Fallback, prefix); ok {
			return CheckName("routing.fallback: "+strings.TrimSuffix(prefix, ":"), name)
		}
	}
	switch r.Fallback {
	case "wait", "any", "reject":
		return nil
	}
	return Errorf(KindUnprocessable, "routing.fallback: value %.80q invalid, must be wait, any, reject, queue:NAME or agent:ID", r.Fallback)
}

func checkMillis(field string, ms int64) error {
	if ms < 0 || ms > MaxPauseMillis {
		return Errorf(KindUnprocessable, "%s: value %d invalid, must be from 0 to %d", field, ms, MaxPauseMillis)
	}
	return nil
}

func checkChoice[T ~string](field string, value T, choices ...T) error {
	names := make([]string, len(choices))
	for i, choice := range choices {
		if value == choice {
			return nil
		}
		names[i] = string(choice)
	}
	return Errorf(KindUnprocessable, "%s: value %.80q invalid, must be one of %s", field, string(value), strings.Join(names, ", "))
}

// DropPolicy says who has to go when a queue is full.
type DropPolicy string

// The drop policies.
const (
	RejectNew   DropPolicy = "reject_new"   // the newcomer, with a refusal
	EvictLowest DropPolicy = "evict_lowest" // the youngest task of the lowest priority below the newcomer's, into the dead letters
)

// Durability says what an acknowledgement of a submission means.
type Durability string

// The durabilities.
const (
	Replicated Durability = "replicated" // the task survives a crash
	InMemory   Durability = "memory"     // the task is gone when the server stops, and every answer says so
)

// Backoff is the pause before a further attempt: InitialMS × Factor^(attempts so far − 1), at most MaxMS, changed at random
// by up to the share Jitter of it.
type Backoff struct {
	InitialMS int64   `json:"initial_ms"`
	Factor    float64 `json:"factor"`
	MaxMS     int64   `json:"max_ms"`
	Jitter    float64 `json:"jitter"`
}

// RateLimit lets Burst leases go at once and PerSecond in the long run. PerSecond 0 is no limit.
type RateLimit struct {
	PerSecond float64 `json:"per_second"`
	Burst     int     `json:"burst"`
}

// Fairness limits what the tasks of one fairness key take.
type Fairness struct {
	MaxInFlightPerKey int       `json:"max_in_flight_per_key"` // 0: no limit
	RateLimitPerKey   RateLimit `json:"rate_limit_per_key"`
}

// RoutingPolicy says which of the agents gets a task.
type RoutingPolicy string

// The routing policies.
const (
	NearestThenLeastLoaded RoutingPolicy = "nearest_then_least_loaded"
	Weighted               RoutingPolicy = "weighted"
	LeastLoaded            RoutingPolicy = "least_loaded"
	RoundRobin             RoutingPolicy = "round_robin"
	Nearest                RoutingPolicy = "nearest"
)

// Routing says how the tasks of a queue find their agents.
type Routing struct {
	VectorSize         int           `json:"vector_size"` // components of its tasks' vectors; 0: those of the first one
	Policy             RoutingPolicy `json:"policy"`
	MinSimilarity      float64       `json:"min_similarity"`       // (1 + cosine) / 2 of the task's vector and the nearest of the agent's
	SimilarityMargin   float64       `json:"similarity_margin"`    // agents within this of the best are as good
	AffinityWaitMS     int64         `json:"affinity_wait_ms"`     // for a near agent that is busy, before a farther one
	CollectMS          int64         `json:"collect_ms"`           // for a near agent that is free and does not ask
	Weight             float64       `json:"weight"`               // of the similarity with the policy weighted
	LatencyReferenceMS int64         `json:"latency_reference_ms"` // 0: the median of the queue's run times
	Fallback           string        `json:"fallback"`             // wait, any, reject, queue:NAME or agent:ID
}

// QueueInfo is a queue as it stands.
type QueueInfo struct {
	Name   string
	Config QueueConfig
	Counts map[TaskStatus]int // terminal ones since the server started
	Agents int                // that serve the queue and are active
	// OldestMS is how long the task at the head has waited.
	OldestMS int64
}
