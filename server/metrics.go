package server

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/valyala/fasthttp"
)

// The reasons with which requests are turned away, as the metric rejected_total counts them.
const (
	reasonUnauthenticated = "unauthenticated"
	reasonForbidden       = "forbidden"
	reasonTooLarge        = "too_large"
	reasonOverloaded      = "overloaded"
	reasonMalformed       = "malformed"
)

// durationBuckets are in seconds.
var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// metrics counts what the server does. Labels take their values from the route table and from constants, never from a
// request, so their number is bounded.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	rejected *prometheus.CounterVec
	inFlight prometheus.Gauge
}

func newMetrics(o *Options) *metrics {
	m := &metrics{
		registry: o.Metrics,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vectord_http_requests_total",
			Help: "Requests answered, by route, method and status code.",
		}, []string{"route", "method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vectord_http_request_duration_seconds",
			Help:    "Time from a request's header to its encoded answer, by route and method.",
			Buckets: durationBuckets,
		}, []string{"route", "method"}),
		rejected: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vectord_http_rejected_total",
			Help: "Requests turned away before the engine was asked, by reason.",
		}, []string{"reason"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vectord_http_requests_in_flight",
			Help: "Requests being served.",
		}),
	}
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name:        "vectord_build_info",
		Help:        "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": o.Version, "commit": o.Commit, "go_version": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(m.requests, m.duration, m.rejected, m.inFlight, info)
	for _, reason := range []string{reasonUnauthenticated, reasonForbidden, reasonTooLarge, reasonOverloaded, reasonMalformed} {
		m.rejected.WithLabelValues(reason)
	}
	return m
}

// routeMetrics are the metrics of one route, found by their labels once. They appear when the route is first used.
type routeMetrics struct {
	all      *metrics
	route    *route
	succeeds atomic.Pointer[prometheus.Counter] // of answers with 200
	duration atomic.Pointer[prometheus.Observer]
	answers  sync.Map // of *answers by status code
}

// answers counts the answers of a route with one status code.
type answers struct {
	count  atomic.Uint64
	micros atomic.Uint64 // that they took together
	last   atomic.Int64  // when the last one was given, in milliseconds since the Unix epoch
}

// answered counts one request.
func (m *routeMetrics) answered(status int, took time.Duration) {
	counted, ok := m.answers.Load(status)
	if !ok {
		counted, _ = m.answers.LoadOrStore(status, new(answers))
	}
	a := counted.(*answers)
	a.count.Add(1)
	a.micros.Add(uint64(took.Microseconds()))
	a.last.Store(time.Now().UnixMilli())
	if status != fasthttp.StatusOK {
		m.all.requests.WithLabelValues(m.route.path, m.route.method, strconv.Itoa(status)).Inc()
	} else {
		(*load(&m.succeeds, func() prometheus.Counter {
			return m.all.requests.WithLabelValues(m.route.path, m.route.method, strconv.Itoa(status))
		})).Inc()
	}
	(*load(&m.duration, func() prometheus.Observer {
		return m.all.duration.WithLabelValues(m.route.path, m.route.method)
	})).Observe(took.Seconds())
}

// load returns what p points to, found by find if it is nil. find must give the same each time.
func load[T any](p *atomic.Pointer[T], find func() T) *T {
	if v := p.Load(); v != nil {
		return v
	}
	v := find()
	p.Store(&v)
	return &v
}

// appendText appends all metrics in the Prometheus text format.
func (m *metrics) appendText(dst []byte) ([]byte, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return dst, fmt.Errorf("gather metrics: %w", err)
	}
	out := bytes.NewBuffer(dst)
	encoder := expfmt.NewEncoder(out, metricsFormat)
	for _, family := range families {
		if err := encoder.Encode(family); err != nil {
			return dst, fmt.Errorf("encode metrics: %w", err)
		}
	}
	return out.Bytes(), nil
}

var metricsFormat = expfmt.NewFormat(expfmt.TypeTextPlain)
