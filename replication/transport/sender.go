package transport

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"time"
)

const (
	// batchBytes is how much of small messages goes into one write. A chunk of a large one may follow in the same write.
	batchBytes = 128 << 10
	// unsentBytesMax is what replies on one connection may have waiting before handlers wait with further ones. Those that
	// wait hold their place among the method's calls, and so bound what comes in.
	unsentBytesMax = 16 << 20
	// unsentMessagesMax bounds what is queued without waiting: requests, and answers such as refusals, for want of which
	// whoever sends so much and reads nothing is cut off.
	unsentMessagesMax = 16 << 10
	// stallTimeout is how long a write of at most batchBytes and a chunk may take, and silence last, before a connection
	// counts as broken.
	stallTimeout = 15 * time.Second
	// pingPeriod is how often the caller's side says something, so that both hear each other within stallTimeout.
	pingPeriod = 5 * time.Second
)

// errPeerDoesNotRead is why a connection is cut off whose other side asks without reading answers.
var errPeerDoesNotRead = errors.New("the other side does not read")

// message is something to be written: a frame or, if its body is longer than a chunk, several.
type message struct {
	kind     byte
	id       uint64
	method   byte      // of a request
	deadline time.Time // of a request; zero: none
	body     []byte    // of a request or reply, or an encoded error

	// Guarded by the sender's mu:
	sent    int  // of body
	started bool // it is, or may be, on its way
	dropped bool // no more of it is to be written
}

func (m *message) large() bool { return len(m.body) > chunkBytes }

// appendFrame appends the next frame of the message and reports whether it was the last.
func (m *message) appendFrame(dst []byte) ([]byte, bool) {
	n := min(len(m.body)-m.sent, chunkBytes)
	last := m.sent+n == len(m.body)
	flags := byte(flagMore)
	if last {
		flags = 0
	}
	switch {
	case m.started:
		dst = appendHead(dst, n, frameChunk, flags, m.id)
	case m.kind == frameRequest:
		dst = appendHead(dst, requestHeadBytes+n, m.kind, flags, m.id)
		dst = append(dst, m.method)
		var micros int64
		if !m.deadline.IsZero() {
			micros = max(time.Until(m.deadline).Microseconds(), 1) // 0 is none
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(micros))
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.body)))
	case m.kind == frameReply:
		dst = appendHead(dst, replyHeadBytes+n, m.kind, flags, m.id)
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(m.body)))
	default:
		dst = appendHead(dst, n, m.kind, flags, m.id)
	}
	m.started = true
	dst = append(dst, m.body[m.sent:m.sent+n]...)
	m.sent += n
	return dst, last
}

// sender writes messages to a connection. One goroutine, in run, takes what is queued and writes it together.
type sender struct {
	conn   net.Conn
	wake   chan struct{} // has room for one: something is queued, or finishing is set
	broken chan struct{} // closed when the connection is of no use any more

	mu        sync.Mutex // guards what follows
	room      sync.Cond  // of mu; the queue has become shorter, or the connection broken
	small     []*message // first come, first written
	large     []*message // those that have more than a chunk, which take turns
	bytes     int        // of queued bodies
	finishing bool       // the connection ends after what is queued
	err       error      // why the connection is broken; nil: it is not
}

func (s *sender) init(conn net.Conn) {
	s.conn = conn
	s.wake = make(chan struct{}, 1)
	s.broken = make(chan struct{})
	s.room.L = &s.mu
}

// queued returns how many messages wait. The caller holds mu.
func (s *sender) queued() int { return len(s.small) + len(s.large) }

// push queues a message. The caller holds mu.
func (s *sender) push(m *message) {
	if m.large() {
		s.large = append(s.large, m)
	} else {
		s.small = append(s.small, m)
	}
	s.bytes += len(m.body)
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// drop sees to it that no more of a message is written, and reports whether some may have been. The caller holds mu.
// Afterwards nobody reads the message's body.
func (s *sender) drop(m *message) (started bool) {
	if !m.dropped {
		m.dropped = true
		s.bytes -= len(m.body) - m.sent
		m.body = nil
	}
	return m.started
}

// post queues a message that does not wait for room. It returns an error if there are too many.
func (s *sender) post(m *message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.queued() >= unsentMessagesMax {
		return errPeerDoesNotRead
	}
	s.push(m)
	return nil
}

// postWhenRoom queues a message once there is room, or not at all if the connection breaks before.
func (s *sender) postWhenRoom(m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.bytes > unsentBytesMax && s.err == nil {
		s.room.Wait()
	}
	if s.err == nil {
		s.push(m)
	}
}

// take moves what is to be written next to buf, and reports whether the connection is to end after it.
func (s *sender) take(buf []byte) (next []byte, finished bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.bytes
	for len(buf) < batchBytes && len(s.small) > 0 {
		m := s.small[0]
		s.small[0] = nil
		s.small = s.small[1:]
		if !m.dropped {
			s.bytes -= len(m.body)
			buf, _ = m.appendFrame(buf)
		}
	}
	for len(s.large) > 0 {
		m := s.large[0]
		s.large[0] = nil
		s.large = s.large[1:]
		if m.dropped {
			continue
		}
		sent := m.sent
		var last bool
		buf, last = m.appendFrame(buf)
		s.bytes -= m.sent - sent
		if !last {
			s.large = append(s.large, m)
		}
		break
	}
	if s.bytes < before {
		s.room.Broadcast()
	}
	return buf, s.finishing && len(buf) == 0
}

// run writes what is queued until the connection breaks, or finish has been called and everything is written. It calls onTick at
// every tick.
func (s *sender) run(tick <-chan time.Time, onTick func()) error {
	var buf []byte
	for {
		var finished bool
		buf, finished = s.take(buf[:0])
		switch {
		case len(buf) > 0:
			if err := s.conn.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
				return err
			}
			if _, err := s.conn.Write(buf); err != nil {
				return err
			}
			select {
			case <-tick: // also of a connection that is never idle
				onTick()
			default:
			}
		case finished:
			return closeWrite(s.conn)
		default:
			select {
			case <-s.wake:
			case <-tick:
				onTick()
			case <-s.broken:
				return nil
			}
		}
	}
}

// finish has the connection end after what is queued.
func (s *sender) finish() {
	s.mu.Lock()
	s.finishing = true
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fail marks the connection as broken and closes it. Only the first call has an effect, which it reports. The caller does not
// hold mu.
func (s *sender) fail(err error) bool {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return false
	}
	s.err = err
	s.room.Broadcast()
	s.mu.Unlock()
	close(s.broken)
	_ = s.conn.Close() // nothing more is expected of it
	return true
}

// closeWrite tells the other side that nothing more comes, of a connection that can.
func closeWrite(c net.Conn) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// patientReader reads from a connection that is broken when nothing comes for stallTimeout.
type patientReader struct{ conn net.Conn }

func (r patientReader) Read(p []byte) (int, error) {
	if err := r.conn.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return r.conn.Read(p)
}
