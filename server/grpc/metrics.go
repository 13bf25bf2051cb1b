package grpcserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

// durationBuckets are in seconds.
var durationBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}

// metrics counts what the server does. Labels take their values from the table of methods and from the codes of gRPC, never
// from a call, so their number is bounded.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	inFlight prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vectord_grpc_requests_total",
			Help: "Calls answered, by method and code.",
		}, []string{"method", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vectord_grpc_request_duration_seconds",
			Help:    "Time from a call's header to its encoded answer, by method.",
			Buckets: durationBuckets,
		}, []string{"method"}),
		inFlight: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vectord_grpc_requests_in_flight",
			Help: "Calls being served.",
		}),
	}
	r.MustRegister(m.requests, m.duration, m.inFlight)
	return m
}

// answered counts one call.
func (m *metrics) answered(method string, code codes.Code, took time.Duration) {
	m.requests.WithLabelValues(method, code.String()).Inc()
	m.duration.WithLabelValues(method).Observe(took.Seconds())
}
