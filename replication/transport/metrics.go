package transport

import (
	"errors"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcomes of calls, as metrics know them.
const (
	callReply = iota
	callError
	callUnreachable
	callUnknown
)

type metrics struct {
	connections prometheus.Gauge // for calls, of either direction
	streams     prometheus.Gauge
	refused     *prometheus.CounterVec
	callSeconds prometheus.Histogram
	calls       [callUnknown + 1]prometheus.Counter // by outcome
	running     prometheus.Gauge
	handled     [framePong + 1]prometheus.Counter // by the type of the answer
	sent        prometheus.Counter
	received    prometheus.Counter
}

// newMetrics registers the metrics of a transport with r, unless r is nil.
func newMetrics(r prometheus.Registerer) *metrics {
	open := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "vectord_transport_connections",
		Help: "Open connections with other nodes, by what they carry.",
	}, []string{"carries"})
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vectord_transport_bytes_total",
		Help: "Bytes exchanged with other nodes, encryption included.",
	}, []string{"direction"})
	handled := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vectord_transport_handled_total",
		Help: "Calls of other nodes, by how they were answered.",
	}, []string{"answer"})
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "vectord_transport_calls_total",
		Help: "Calls to other nodes, by what came of them.",
	}, []string{"outcome"})
	m := &metrics{
		connections: open.WithLabelValues("calls"),
		streams:     open.WithLabelValues("raft"),
		sent:        bytes.WithLabelValues("sent"),
		received:    bytes.WithLabelValues("received"),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vectord_transport_refused_connections_total",
			Help: "Connections that were refused, by what was wrong.",
		}, []string{"reason"}),
		callSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "vectord_transport_call_seconds",
			Help:    "Time that calls to other nodes took, whatever came of them.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 2, 18), // 0.1 ms to 13 s
		}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "vectord_transport_handlers",
			Help: "Calls of other nodes that are being handled.",
		}),
	}
	for kind, answer := range map[byte]string{frameReply: "reply", frameFailed: "error", frameRefused: "refused", frameLost: "lost"} {
		m.handled[kind] = handled.WithLabelValues(answer)
	}
	for i, outcome := range []string{"reply", "error", "unreachable", "unknown"} {
		m.calls[i] = calls.WithLabelValues(outcome)
	}
	if r != nil {
		r.MustRegister(open, bytes, handled, m.refused, m.callSeconds, calls, m.running)
	}
	return m
}

// called counts a call that has ended.
func (m *metrics) called(err error, d time.Duration) {
	outcome := callError
	switch {
	case err == nil:
		outcome = callReply
	case errors.Is(err, ErrUnreachable):
		outcome = callUnreachable
	case errors.Is(err, ErrUnknown):
		outcome = callUnknown
	}
	m.calls[outcome].Inc()
	m.callSeconds.Observe(d.Seconds())
}

// countingConn counts what goes over the network.
type countingConn struct {
	net.Conn
	m *metrics
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.m.received.Add(float64(n))
	return n, err
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.m.sent.Add(float64(n))
	return n, err
}

// CloseWrite is there for plaintext. TLS says that it has ended by itself.
func (c countingConn) CloseWrite() error { return closeWrite(c.Conn) }
