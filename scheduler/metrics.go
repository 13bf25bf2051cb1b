package scheduler

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
)

type metrics struct {
	submitted  prometheus.Counter
	terminal   *prometheus.CounterVec
	assignment prometheus.Histogram
}

var (
	queueTasks = prometheus.NewDesc("vectord_queue_tasks", "Tasks that are not terminal.", []string{"queue", "status"}, nil)
	agentCount = prometheus.NewDesc("vectord_agents", "Registered agents.", []string{"status"}, nil)
	stateCount = prometheus.NewDesc("vectord_states", "Shared states.", nil, nil)
	stateBytes = prometheus.NewDesc("vectord_states_memory_bytes", "Values of shared states that are in memory.", nil, nil)
	overbooked = prometheus.NewDesc("vectord_agents_overbooked", "Agents with more tasks than their capacity, which is a fault of the server's.", nil, nil)
)

// queuesExported bounds the queues whose tasks are exported one by one.
const queuesExported = 1_000

func newMetrics(s *Scheduler, r prometheus.Registerer) *metrics {
	m := &metrics{
		submitted: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_tasks_submitted_total", Help: "Tasks that were accepted."}),
		terminal: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_tasks_ended_total", Help: "Tasks that came to their end, by how and why."},
			[]string{"status", "reason"}),
		assignment: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "vectord_task_assignment_seconds",
			Help: "Time from when a task was queued until it was chosen for an agent.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10)}),
	}
	if r != nil {
		r.MustRegister(m.submitted, m.terminal, m.assignment, collector{s})
	}
	return m
}

// reasons are the codes of errors that are the server's own; those of agents could be any number.
var reasons = map[string]bool{vectord.ErrorLeaseExpired: true, vectord.ErrorTimeout: true, vectord.ErrorDeadline: true, vectord.ErrorAgentDied: true,
	vectord.ErrorEvicted: true, vectord.ErrorDependencyFailed: true, vectord.ErrorQueueDeleted: true}

func (m *metrics) ended(t *task) {
	reason := ""
	if t.status == vectord.TaskFailed && t.failure != nil {
		if reason = t.failure.Code; !reasons[reason] {
			reason = "agent"
		}
	}
	m.terminal.WithLabelValues(t.status.String(), reason).Inc()
}

func (m *metrics) assigned(millis int64) { m.assignment.Observe(float64(millis) / 1000) }

// collector exports what there is at the moment.
type collector struct{ s *Scheduler }

// Describe implements prometheus.Collector.
func (collector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{queueTasks, agentCount, stateCount, stateBytes, overbooked} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(values chan<- prometheus.Metric) {
	s := c.s
	var out []prometheus.Metric
	gauge := func(d *prometheus.Desc, value int, labels ...string) {
		out = append(out, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(value), labels...))
	}
	s.mu.Lock()
	exported := 0
	for _, q := range s.queues {
		if exported++; exported > queuesExported {
			break
		}
		for status := vectord.TaskScheduled; !status.Terminal(); status++ {
			gauge(queueTasks, q.counts[status], q.name, status.String())
		}
	}
	now := s.now()
	statuses := map[vectord.AgentStatus]int{vectord.AgentActive: 0, vectord.AgentDraining: 0, vectord.AgentOffline: 0}
	over := 0
	for _, a := range s.agents {
		statuses[a.status(now)]++
		if len(a.held) > a.config.Capacity {
			over++
		}
	}
	for status, n := range statuses {
		gauge(agentCount, n, string(status))
	}
	gauge(overbooked, over)
	gauge(stateCount, s.states.byKey.Len())
	gauge(stateBytes, s.states.cached)
	s.mu.Unlock()
	for _, m := range out {
		values <- m
	}
}
