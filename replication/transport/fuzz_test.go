package transport

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
)

// FuzzHello: whatever is read as a hello is written as the same bytes.
func FuzzHello(f *testing.F) {
	f.Add(hello{version: version, kind: kindRaft, group: 7, cluster: "c", from: "10.0.0.1:7000"}.append(nil))
	f.Add(hello{version: 9, kind: kindRaft}.append(nil))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		h, err := readHello(r)
		if err != nil || h.version != version {
			return
		}
		if read := b[:len(b)-r.Len()]; !bytes.Equal(h.append(nil), read) {
			t.Errorf("%x was read as %+v", read, h)
		}
		if err := h.check("c"); err == nil && (h.cluster != "c" || h.from == "") {
			t.Errorf("%+v is accepted", h)
		}
	})
}

// FuzzAnswer reads answers to hello, and with them errors.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{helloAccepted})
	f.Add(appendRefusal(nil, vectord.Refuse(vectord.KindConflict, vectord.CodeLeaseLost, "text")))
	f.Add(appendRefusal(nil, errors.New(strings.Repeat("x", errorTextBytes+1))))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		err := readAnswer(r)
		var refusal *vectord.Error
		if !errors.As(err, &refusal) {
			return
		}
		read := b[:len(b)-r.Len()]
		if again := appendRefusal(nil, err); !bytes.Equal(again, read) && len(refusal.Text) < errorTextBytes {
			t.Errorf("%x was read as %#v", read, refusal)
		}
	})
}

// fakeConn gives what a fuzzer has, and takes whatever is written.
type fakeConn struct {
	net.Conn
	r io.Reader
	w bytes.Buffer
}

func (c *fakeConn) Read(p []byte) (int, error)       { return c.r.Read(p) }
func (c *fakeConn) Write(p []byte) (int, error)      { return c.w.Write(p) }
func (c *fakeConn) Close() error                     { return nil }
func (c *fakeConn) SetReadDeadline(time.Time) error  { return nil }
func (c *fakeConn) SetWriteDeadline(time.Time) error { return nil }

// requests returns requests as a caller writes them.
func requests(bodies ...[]byte) []byte {
	var s sender
	s.init(nil)
	for i, body := range bodies {
		s.push(&message{kind: frameRequest, id: uint64(i + 1), method: methodEcho, body: body, deadline: time.Now().Add(time.Hour)})
	}
	s.push(&message{kind: frameCancel, id: 1})
	s.push(&message{kind: framePing})
	var out []byte
	for {
		buf, _ := s.take(nil)
		if len(buf) == 0 {
			return out
		}
		out = append(out, buf...)
	}
}

// FuzzServer feeds the answering side of a connection. Each call that arrives whole is answered once, by what it must be,
// and nothing is held afterwards.
func FuzzServer(f *testing.F) {
	f.Add(requests(nil, []byte("x"), pattern(200)))
	f.Add(requests(pattern(chunkBytes+1), pattern(3*chunkBytes)))
	f.Add(append(requests([]byte("x")), 1, 2, 3))
	n, err := Listen("127.0.0.1:0", Options{Cluster: "c", Security: Security{Insecure: true}, BodyBytes: 1 << 20, Handlers: 2, Queue: 3})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { n.Close() })
	n.Handle(methodEcho, func(_ context.Context, _ string, body []byte) ([]byte, error) { return body, nil })
	f.Fuzz(func(t *testing.T, b []byte) {
		conn := &fakeConn{r: bytes.NewReader(b)}
		c := newServerConn(n, conn, hello{kind: kindSmall, from: "x:1"})
		c.serve()
		for kind, m := range n.methods {
			if m != nil && (m.admitted.Load() != 0 || len(m.slots) != 0) {
				t.Errorf("method %d holds %d calls, %d slots", kind, m.admitted.Load(), len(m.slots))
			}
		}
		if used := n.budgets[0].used.Load(); used != 0 {
			t.Errorf("%d bytes are held", used)
		}
		frames := newFrames(&conn.w) // what was written is sound
		for {
			if _, err := frames.next(); err == io.EOF {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzClient feeds the calling side of a connection with two calls. Both end, and a reply has the length that it says.
func FuzzClient(f *testing.F) {
	reply := func(kind byte, id uint64, body []byte) []byte {
		m := &message{kind: kind, id: id, body: body}
		var out []byte
		for last := false; !last; {
			out, last = m.appendFrame(out)
		}
		return out
	}
	f.Add(append(reply(frameReply, 2, []byte("two")), reply(frameReply, 1, pattern(chunkBytes+5))...))
	f.Add(append(reply(frameFailed, 1, appendError(nil, io.EOF)), reply(frameRefused, 2, appendError(nil, errClosed))...))
	f.Add(append(reply(frameLost, 1, appendError(nil, io.EOF)), reply(framePong, 0, nil)...))
	n, err := Listen("127.0.0.1:0", Options{Cluster: "c", Security: Security{Insecure: true}, BodyBytes: 1 << 20})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { n.Close() })
	f.Fuzz(func(t *testing.T, b []byte) {
		c := newClientConn(n, &fakeConn{r: bytes.NewReader(b)}, "x:1")
		var calls []*call
		for range 2 {
			w, err := c.start(methodEcho, time.Time{}, []byte("body"))
			if err != nil || w == nil {
				t.Fatal(err)
			}
			calls = append(calls, w)
		}
		c.serve()
		for _, w := range calls {
			r := <-w.result
			if (r.err == nil) != (r.body != nil) || len(r.body) > n.o.BodyBytes || r.err == nil && len(r.body) != w.length {
				t.Errorf("result: %d bytes of %d, %v", len(r.body), w.length, r.err)
			}
		}
	})
}
