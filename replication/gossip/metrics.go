package gossip

import "github.com/prometheus/client_golang/prometheus"

// The values of labels.
const (
	wayPush   = "push"
	wayRepair = "repair"
	wayDigest = "digest"
	wayAnswer = "answer"

	lostInvalid = "invalid"
	lostFull    = "full"
	lostQueue   = "queue"
	lostSend    = "send"
)

type metrics struct {
	members *prometheus.GaugeVec
	sent    *prometheus.CounterVec
	known   prometheus.Counter
	lost    *prometheus.CounterVec
}

// newMetrics registers the metrics of a node's gossip with r, unless r is nil.
func newMetrics(r prometheus.Registerer) metrics {
	m := metrics{
		members: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "vectord_gossip_members",
			Help: "Members of the cluster, as this node sees them.",
		}, []string{"state"}),
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vectord_gossip_sent_total",
			Help: "Items pushed and repaired, digests and answers sent.",
		}, []string{"way"}),
		known: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "vectord_gossip_known_total",
			Help: "Items received that were no news.",
		}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vectord_gossip_lost_total",
			Help: "Messages and items that were refused or could not be sent. Reconciliation makes up for them.",
		}, []string{"reason"}),
	}
	if r != nil {
		r.MustRegister(m.members, m.sent, m.known, m.lost)
	}
	return m
}
