package server

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// A client that is still sending when its connection is closed loses the answer: the kernel replies to its bytes with a
// reset, which overtakes what was written. So a connection that is closed with a body unread is first closed for writing,
// and what arrives is thrown away for a while.
const (
	lingerTimeout = time.Second
	lingerBytes   = 64 << 20
)

// lingeringListener accepts lingeringConns.
type lingeringListener struct{ net.Listener }

func (l *lingeringListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &lingeringConn{Conn: c}, nil
}

type lingeringConn struct {
	net.Conn
	linger atomic.Bool // set just before a close that follows at once
}

// lingerOnClose makes the next Close of c wait for a client that is still sending. c is a lingeringConn or TLS over one.
func lingerOnClose(c net.Conn) {
	if tls, ok := c.(interface{ NetConn() net.Conn }); ok {
		c = tls.NetConn()
	}
	if l, ok := c.(*lingeringConn); ok {
		l.linger.Store(true)
	}
}

// Close implements net.Conn.
func (c *lingeringConn) Close() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && c.linger.CompareAndSwap(true, false) {
		if half.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(lingerTimeout)) == nil {
			_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes) // whatever ends this, the connection is closed
		}
	}
	return c.Conn.Close()
}
