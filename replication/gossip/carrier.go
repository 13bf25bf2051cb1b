package gossip

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/raft"

	"github.com/vectord/vectord/replication/transport"
)

const (
	// carrierPackets bounds packets that wait to be read; more are lost, as packets may be.
	carrierPackets = 1024
	// carrierSends bounds packets being sent; more are lost.
	carrierSends = 128
	// packetPatience is how long a packet may be on its way.
	packetPatience = time.Second
)

// Carrier carries gossip over the port for other nodes, so that there is one port to open, and what is said on it comes from nodes
// of the cluster.
type Carrier struct {
	t       *transport.Transport
	method  byte // of calls that are packets
	streams raft.StreamLayer
	packets chan *memberlist.Packet
	conns   chan net.Conn
	sending chan struct{}
	stop    context.Context
	cancel  context.CancelFunc
	work    sync.WaitGroup
}

var _ memberlist.Transport = (*Carrier)(nil)

// nodeAddress is that of a node as it says itself.
type nodeAddress string

// Network implements net.Addr.
func (nodeAddress) Network() string { return "vectord" }

func (a nodeAddress) String() string { return string(a) }

// NewCarrier returns what carries gossip by calls of a method and streams of a group of t, for Options.Transport. It must be made
// before t is started.
func NewCarrier(t *transport.Transport, group uint32, method byte) (*Carrier, error) {
	streams, err := t.Group(group)
	if err != nil {
		return nil, err
	}
	c := &Carrier{t: t, method: method, streams: streams, packets: make(chan *memberlist.Packet, carrierPackets), conns: make(chan net.Conn),
		sending: make(chan struct{}, carrierSends)}
	c.stop, c.cancel = context.WithCancel(context.Background())
	t.Handle(method, c.receive)
	c.work.Go(c.accept)
	return c, nil
}

// receive takes a packet.
func (c *Carrier) receive(_ context.Context, from string, body []byte) ([]byte, error) {
	select {
	case c.packets <- &memberlist.Packet{Buf: body, From: nodeAddress(from), Timestamp: time.Now()}:
	default:
	}
	return nil, nil
}

func (c *Carrier) accept() {
	for {
		conn, err := c.streams.Accept()
		if err != nil {
			return
		}
		select {
		case c.conns <- conn:
		case <-c.stop.Done():
			_ = conn.Close() // nobody reads it
			return
		}
	}
}

// FinalAdvertiseAddr implements memberlist.Transport.
func (c *Carrier) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	a, err := net.ResolveTCPAddr("tcp", c.t.Addr().String())
	if err != nil {
		return nil, 0, err
	}
	return a.IP, a.Port, nil
}

// WriteTo implements memberlist.Transport: a packet gets there or does not.
func (c *Carrier) WriteTo(b []byte, address string) (time.Time, error) {
	now := time.Now()
	select {
	case c.sending <- struct{}{}:
	default:
		return now, nil // lost
	}
	if c.stop.Err() != nil {
		<-c.sending
		return now, c.stop.Err()
	}
	body := append([]byte(nil), b...)
	c.work.Go(func() {
		defer func() { <-c.sending }()
		ctx, cancel := context.WithTimeout(c.stop, packetPatience)
		defer cancel()
		_, _ = c.t.Call(ctx, address, c.method, body) // whether it got there the answer of the other side tells
	})
	return now, nil
}

// PacketCh implements memberlist.Transport.
func (c *Carrier) PacketCh() <-chan *memberlist.Packet { return c.packets }

// DialTimeout implements memberlist.Transport.
func (c *Carrier) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	return c.streams.Dial(raft.ServerAddress(address), timeout)
}

// StreamCh implements memberlist.Transport.
func (c *Carrier) StreamCh() <-chan net.Conn { return c.conns }

// Shutdown implements memberlist.Transport.
func (c *Carrier) Shutdown() error {
	c.cancel()
	err := c.streams.Close()
	c.work.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
