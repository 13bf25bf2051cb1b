package transport

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
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

// inChunks returns a request or a reply in chunks of n bytes, which are shorter than those of a sender: a fuzzer learns more from
// short input.
func inChunks(kind byte, id uint64, body []byte, n int) []byte {
	var begin []byte
	if kind == frameRequest {
		begin = append(begin, methodEcho)
		begin = binary.BigEndian.AppendUint64(begin, 1e9)
	}
	begin = binary.BigEndian.AppendUint32(begin, uint32(len(body)))
	var out []byte
	for {
		part := body[:min(n, len(body))]
		body = body[len(part):]
		flags := byte(0)
		if len(body) > 0 {
			flags = flagMore
		}
		out = appendHead(out, len(begin)+len(part), kind, flags, id)
		out = append(append(out, begin...), part...)
		if len(body) == 0 {
			return out
		}
		kind, begin = frameChunk, nil
	}
}

// FuzzServer feeds the answering side of a connection. Each call that arrives whole is answered once, by what it must be,
// and nothing is held afterwards.
func FuzzServer(f *testing.F) {
	one, two := inChunks(frameRequest, 1, []byte("x"), 9), inChunks(frameRequest, 2, pattern(20), 9)
	f.Add(slices.Concat(one, two, appendHead(nil, 0, frameCancel, 0, 1), appendHead(nil, 0, framePing, 0, 0)))
	f.Add(slices.Concat(two[:45], one, two[45:]))
	f.Add(slices.Concat(two[:45], appendHead(nil, 0, frameCancel, 0, 2), two[45:]))
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
	failure := func(kind byte, id uint64) []byte {
		m := message{kind: kind, id: id, body: appendError(nil, errClosed)}
		b, _ := m.appendFrame(nil)
		return b
	}
	f.Add(slices.Concat(inChunks(frameReply, 2, []byte("two"), 9), inChunks(frameReply, 1, pattern(20), 9)))
	f.Add(slices.Concat(failure(frameFailed, 1), failure(frameRefused, 2)))
	f.Add(slices.Concat(failure(frameLost, 1), appendHead(nil, 0, framePong, 0, 0)))
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
