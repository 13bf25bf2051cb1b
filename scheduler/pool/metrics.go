package pool

import (
	"github.com/prometheus/client_golang/prometheus"
)

// Why a process ended on its own, or was killed for what it did.
const (
	deathStart    = "start"         // it could not be started
	deathTimeout  = "start_timeout" // no handshake in time
	deathGreeting = "handshake"     // refused, or not understood
	deathRegister = "register"      // what it said of itself was refused
	deathExit     = "exit"
	deathSignal   = "signal"
	deathOutput   = "output" // a line too long, too many lines that are no messages, or the end of its output
	deathStuck    = "stuck"  // it did not read its stdin
	deathHung     = "hung"   // it did not answer a ping
	deathCancel   = "cancel" // it did not stop a task that was cancelled
)

// Why a process was asked to end.
const (
	endIdle     = "idle"
	endRecycled = "recycled"
	endReplaced = "replaced"
	endScaled   = "scaled"
	endRemoved  = "removed" // with its pool
)

// These are in seconds.
var (
	assignBuckets = []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .05, .25, 1, 10}
	startBuckets  = []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}
)

// metrics count what pools do. Their labels are names of pools, of which there are at most MaxPools, and constants.
type metrics struct {
	supervisor *Supervisor
	registry   prometheus.Registerer // nil: nobody asks
	processes  *prometheus.Desc
	starts     *prometheus.CounterVec
	deaths     *prometheus.CounterVec
	ends       *prometheus.CounterVec
	tasks      *prometheus.CounterVec
	assign     *prometheus.HistogramVec
	start      *prometheus.HistogramVec
}

func newMetrics(s *Supervisor, registry prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, append([]string{"pool"}, labels...))
	}
	m := &metrics{supervisor: s, registry: registry,
		processes: prometheus.NewDesc("vectord_pool_processes", "Processes, by pool and state.", []string{"pool", "state"}, nil),
		starts:    counter("vectord_pool_starts_total", "Processes that were started, by pool."),
		deaths:    counter("vectord_pool_deaths_total", "Processes that ended on their own or were killed for what they did, by pool and reason.", "reason"),
		ends:      counter("vectord_pool_ends_total", "Processes that were asked to end, by pool and reason.", "reason"),
		tasks: counter("vectord_pool_tasks_total", "Tasks that were put to processes for the first time, by pool and by whether a ready process "+
			"waited when the task came.", "warm"),
		assign: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "vectord_pool_assign_seconds",
			Help: "Time from the lease of a task to its being written to the process, by pool.", Buckets: assignBuckets}, []string{"pool"}),
		start: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "vectord_pool_start_seconds",
			Help: "Time from the start of a process to its being ready for tasks, by pool.", Buckets: startBuckets}, []string{"pool"})}
	if registry == nil {
		return m, nil
	}
	return m, registry.Register(m)
}

func (m *metrics) unregister() {
	if m.registry != nil {
		m.registry.Unregister(m)
	}
}

func (m *metrics) counters() []prometheus.Collector {
	return []prometheus.Collector{m.starts, m.deaths, m.ends, m.tasks, m.assign, m.start}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.processes
	for _, c := range m.counters() {
		c.Describe(out)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for _, s := range m.supervisor.Pools() {
		state := func(name string, n int) {
			out <- prometheus.MustNewConstMetric(m.processes, prometheus.GaugeValue, float64(n), s.Definition.Name, name)
		}
		state("ready", s.Ready)
		state("busy", s.Busy)
		state("starting", s.Starting)
		state("stopping", s.Stopping)
	}
	for _, c := range m.counters() {
		c.Collect(out)
	}
}

// prepare shows a pool's counters before there is something to count.
func (m *metrics) prepare(pool string) {
	m.starts.WithLabelValues(pool)
	m.tasks.WithLabelValues(pool, "true")
	m.tasks.WithLabelValues(pool, "false")
	m.assign.WithLabelValues(pool)
	m.start.WithLabelValues(pool)
}

func (m *metrics) forget(pool string) {
	labels := prometheus.Labels{"pool": pool}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.starts, m.deaths, m.ends, m.tasks, m.assign, m.start} {
		v.DeletePartialMatch(labels)
	}
}
