package gossip

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

// network connects endpoints in memory, loses and delays packets, and can be cut. Its random choices come from a seed;
// which of them a packet gets depends on the order in which goroutines run. Streams lose nothing.
type network struct {
	t  testing.TB
	mu sync.Mutex // guards what follows

	random    *rand.Rand
	endpoints map[string]*endpoint
	loss      float64        // probability, of packets
	delay     time.Duration  // one way
	side      map[string]int // endpoints of different sides do not hear each other; 0 unless given
	packets   int            // sent
	bytes     int            // of packets sent
}

func newNetwork(t testing.TB, seed uint64) *network {
	return &network{t: t, random: rand.New(rand.NewPCG(seed, seed)), endpoints: map[string]*endpoint{}, side: map[string]int{}}
}

// set changes how the network behaves.
func (n *network) set(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// endpoint is a place in the network, with memberlist's Transport.
type endpoint struct {
	n       *network
	address netip.AddrPort
	packets chan *memberlist.Packet
	streams chan net.Conn
	conns   map[net.Conn]struct{} // guarded by n.mu
	down    bool                  // guarded by n.mu
}

func (n *network) endpoint(address string) *endpoint {
	e := &endpoint{n: n, address: netip.MustParseAddrPort(address), packets: make(chan *memberlist.Packet, 1024),
		streams: make(chan net.Conn, 256), conns: map[net.Conn]struct{}{}}
	n.set(func() { n.endpoints[address] = e })
	return e
}

func (e *endpoint) FinalAdvertiseAddr(string, int) (net.IP, int, error) {
	return e.address.Addr().AsSlice(), int(e.address.Port()), nil
}

func (e *endpoint) PacketCh() <-chan *memberlist.Packet { return e.packets }
func (e *endpoint) StreamCh() <-chan net.Conn           { return e.streams }

func (e *endpoint) WriteTo(b []byte, address string) (time.Time, error) {
	if len(b) > packetBytesMax {
		e.n.t.Errorf("packet of %d bytes", len(b))
	}
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	e.n.packets++
	e.n.bytes += len(b)
	to := e.n.endpoints[address]
	if to == nil || e.down || e.n.side[address] != e.n.side[e.address.String()] || e.n.random.Float64() < e.n.loss {
		return time.Now(), nil
	}
	packet := &memberlist.Packet{Buf: append([]byte(nil), b...), From: net.UDPAddrFromAddrPort(e.address)}
	deliver := func() {
		packet.Timestamp = time.Now()
		select {
		case to.packets <- packet:
		default: // as a socket does whose buffer is full
		}
	}
	if e.n.delay == 0 {
		deliver()
	} else {
		time.AfterFunc(e.n.delay, deliver)
	}
	return time.Now(), nil
}

func (e *endpoint) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	e.n.mu.Lock()
	to, cut, delay := e.n.endpoints[address], e.n.side[address] != e.n.side[e.address.String()], e.n.delay
	e.n.mu.Unlock()
	if cut {
		time.Sleep(timeout)
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("timeout")}
	}
	time.Sleep(2 * delay)
	mine, theirs := net.Pipe()
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	if to == nil || to.down || e.down {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("refused")}
	}
	e.conns[mine], to.conns[theirs] = struct{}{}, struct{}{}
	to.streams <- tracked{theirs, to}
	return tracked{mine, e}, nil
}

// Shutdown breaks what is open, as the end of a process does.
func (e *endpoint) Shutdown() error {
	e.n.mu.Lock()
	defer e.n.mu.Unlock()
	e.down = true
	if e.n.endpoints[e.address.String()] == e {
		delete(e.n.endpoints, e.address.String())
	}
	for c := range e.conns {
		c.Close()
	}
	return nil
}

// tracked is one end of a stream.
type tracked struct {
	net.Conn
	e *endpoint
}

func (c tracked) Close() error {
	c.e.n.set(func() { delete(c.e.conns, c.Conn) })
	return c.Conn.Close()
}

// address returns the address of the i-th node.
func address(i int) string { return fmt.Sprintf("10.0.%d.%d:7946", i/200, i%200+1) }
