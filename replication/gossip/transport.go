package gossip

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/hashicorp/memberlist"
)

const bindAttempts = 10 // at a free port, which has to be free for UDP and TCP

// listen returns memberlist's transport on sockets.
func listen(bindIP string, port int, logger *log.Logger) (memberlist.Transport, error) {
	attempts := 1
	if port == 0 {
		attempts = bindAttempts
	}
	var err error
	for range attempts {
		var t *memberlist.NetTransport
		t, err = memberlist.NewNetTransport(&memberlist.NetTransportConfig{BindAddrs: []string{bindIP}, BindPort: port, Logger: logger})
		if err == nil {
			return t, nil
		}
	}
	return nil, fmt.Errorf("gossip: listen: %w", err)
}

// boundedTransport gives every stream that is dialled a deadline, and an end when ctx ends. memberlist sets deadlines for
// some, but not for SendReliable, which would wait for good on a peer that is stopped and reads nothing.
type boundedTransport struct {
	memberlist.Transport
	ctx context.Context
}

// DialTimeout dials unless ctx has ended.
func (t boundedTransport) DialTimeout(address string, timeout time.Duration) (net.Conn, error) {
	if t.ctx.Err() != nil {
		return nil, net.ErrClosed
	}
	conn, err := t.Transport.DialTimeout(address, timeout)
	if err != nil {
		return nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return boundedConn{Conn: conn, release: context.AfterFunc(t.ctx, func() { _ = conn.Close() })}, nil
}

type boundedConn struct {
	net.Conn
	release func() bool
}

func (c boundedConn) Close() error {
	c.release()
	return c.Conn.Close()
}
