package tcpserver

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord/internal/wire"
)

// metrics are the server's. Counters of frame types are looked up once.
type metrics struct {
	connections prometheus.Gauge
	frames      [wire.FrameGoaway + 1]prometheus.Counter // by type; 0 is any other
	errors      *prometheus.CounterVec
	messages    prometheus.Counter
	duration    [wire.FrameGoaway + 1]prometheus.Observer
}

func newMetrics(r *prometheus.Registry) *metrics {
	m := &metrics{
		connections: prometheus.NewGauge(prometheus.GaugeOpts{Name: "vectord_tcp_connections", Help: "Connections of the TCP protocol."}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_tcp_errors_total",
			Help: "Frames of the TCP protocol that were answered by an error, by its code."}, []string{"code"}),
		messages: prometheus.NewCounter(prometheus.CounterOpts{Name: "vectord_tcp_messages_total",
			Help: "Tasks and calls that came in batches of the TCP protocol."}),
	}
	frames := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "vectord_tcp_frames_total",
		Help: "Frames that came over the TCP protocol, by type."}, []string{"type"})
	duration := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "vectord_tcp_frame_duration_seconds",
		Help: "From the arrival of a frame to its answer, by type.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}, []string{"type"})
	for t := range m.frames {
		m.frames[t] = frames.WithLabelValues(wire.FrameType(t).String())
		m.duration[t] = duration.WithLabelValues(wire.FrameType(t).String())
	}
	r.MustRegister(m.connections, frames, m.errors, m.messages, duration)
	return m
}

// known is the type of a frame as metrics know it.
func known(t wire.FrameType) wire.FrameType {
	if t > wire.FrameGoaway {
		return 0
	}
	return t
}

func (m *metrics) answered(f *frame) {
	m.duration[known(f.Type)].Observe(time.Since(f.arrived).Seconds())
}
