package node

import (
	"crypto/sha256"
	"fmt"
	"net"
	"runtime/metrics"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/replication/gossip"
)

const (
	// gossipGroup is the number under which streams of gossip come in among those of the groups.
	gossipGroup = 1<<32 - 1
	// publishInterval is how often a node tells the others how it is.
	publishInterval = 2 * time.Second
	// commandVersion is the version of the commands that this program proposes and applies.
	commandVersion = 1
)

// openGossip begins to tell the other nodes how this one is, and to hear of them. What is heard is advice: where nodes are, that
// one does not answer, how much they have to do. What all must agree on is in the log.
func (k *cluster) openGossip(registerer prometheus.Registerer) error {
	address, err := net.ResolveTCPAddr("tcp", k.transport.Addr().String())
	if err != nil {
		return fmt.Errorf("gossip: the address that other nodes dial: %w", err)
	}
	// What carries it asks for the cluster's secret or certificates; this key only keeps clusters apart.
	key := sha256.Sum256([]byte("vectord cluster " + k.c.Name))
	k.gossip, err = gossip.Open(gossip.Options{
		ID:          strconv.FormatUint(k.id, 10),
		Incarnation: uint64(time.Now().UnixMilli()),
		Cluster:     k.c.Name,
		Secret:      key[:],
		BindAddress: address.AddrPort().String(),
		Seeds:       k.c.Join,
		Logger:      k.logger,
		Registerer:  registerer,
		Transport:   k.carrier,
	})
	if err != nil {
		return err
	}
	k.joining.Go(k.publish)
	return nil
}

// publish tells the other nodes how this one is, until the node closes.
func (k *cluster) publish() {
	tick := time.NewTicker(publishInterval)
	defer tick.Stop()
	for {
		if err := k.gossip.Publish(k.record()); err != nil {
			k.logger.Warn("the other nodes are not told how this one is", "err", err)
		}
		select {
		case <-tick.C:
		case <-k.stop.Done():
			return
		}
	}
}

func (k *cluster) record() gossip.Record {
	s := k.group.Status()
	role := gossip.RoleFollower
	if s.Leading {
		role = gossip.RoleLeader
	}
	return gossip.Record{
		Addresses: gossip.Addresses{Raft: k.transport.Addr().String()},
		Build:     vectord.Version,
		Commands:  gossip.Range{Min: commandVersion, Max: commandVersion},
		Load:      gossip.Load{MemoryBytes: memoryBytes(), MemoryLimit: uint64(k.memoryLimit), Queue: uint32(s.Waiting)},
		Groups:    []gossip.Group{{ID: groupID, Role: role, Term: s.Term, Applied: s.Applied}},
	}
}

// memoryBytes returns what the Go runtime has of the system, but for what it gave back.
func memoryBytes() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

// heard adds to what is known of a node what gossip says.
func (k *cluster) heard(p *vectord.Peer) {
	m, ok := k.gossip.Member(strconv.FormatUint(p.ID, 10))
	if !ok {
		return
	}
	p.State, p.StateSince = m.State.String(), vectord.Timestamp(m.Since.UnixMilli())
	p.MemoryBytes = m.Load.MemoryBytes
	if p.Version == "" {
		p.Version = m.Build
	}
}
