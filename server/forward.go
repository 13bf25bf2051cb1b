package server

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
)

// Cluster is what a server asks where it is one of several over the same data. Its methods may be called at the same time.
type Cluster interface {
	// Self returns this node's number.
	Self() uint64
	// Peers returns all nodes, with what those that answer within a second say of themselves.
	Peers(ctx context.Context) ([]vectord.Peer, error)
	// RemovePeer ends a node's membership. It refuses to leave less than a majority that answers.
	RemovePeer(ctx context.Context, id uint64) error
	// TransferLeadership makes a node the leader, with 0 any that can.
	TransferLeadership(ctx context.Context, id uint64) error
	// Leading says whether this node decides who gets which task.
	Leading() bool
	// CaughtUp says whether this node has ever had what the others have: what a new one has is not worth an answer.
	CaughtUp() bool
	// Forward has the leader answer a request, both as in HTTP/1.1. It returns nil if this node has become the leader.
	Forward(ctx context.Context, request []byte) ([]byte, error)
	// Synced returns when this node has everything that anybody was told before the call.
	Synced(ctx context.Context) error
	// Fresh returns when this node has everything that anybody was told up to a time ago.
	Fresh(ctx context.Context, within time.Duration) error
	// Applied returns when this node has what has an index.
	Applied(ctx context.Context, index uint64) error
	// Index returns the index of what this node applied last.
	Index() uint64
}

// forwardedHeader marks a request that another node sent on. It is not sent on again.
const forwardedHeader = "Vectord-Forwarded"

// sessionHeader carries how far the log was applied by the node that answered. A client that sends the highest one that it got
// with its next request reads what it wrote and never something older than it has read, whatever node it asks.
const sessionHeader = "Vectord-Session"

// consistency is how new what a request reads has to be. Qdrant's words mean that all nodes, or most of them, are asked; a read
// that is linearizable is at least as new.
type consistency string

const (
	readSession      consistency = "session"      // as new as the session, which is what a request without the parameter gets
	readBounded      consistency = "bounded"      // at most max_lag_ms old
	readLeader       consistency = "leader"       // read by the node that leads
	readLinearizable consistency = "linearizable" // has all that anybody was told before
)

// defaultMaxLag is the age of a bounded read that does not say another.
const defaultMaxLag = time.Second

// errNotCaughtUp is what a node answers that has joined and does not have yet what the others have.
func errNotCaughtUp() error {
	return vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "this node has not caught up with the cluster yet")
}

// answersBehind says whether a route is one that a node answers which has not caught up: what it says of itself.
func (rt *route) answersBehind() bool {
	return rt.needs == permissionOpen || rt.path == "/metrics" || rt.path == "/telemetry" || strings.HasPrefix(rt.path, "/cluster")
}

// keepUp waits until this node has applied what the request may not read without.
func (r *request) keepUp(c Cluster, reads bool) (answered bool, err error) {
	if v := r.http.Request.Header.Peek(sessionHeader); len(v) > 0 {
		index, err := strconv.ParseUint(string(v), 10, 64)
		if err != nil {
			return false, badHeader(sessionHeader, v, "what an answer had as this header, a number")
		}
		if err := c.Applied(r.ctx, index); err != nil {
			return false, err
		}
	}
	if !reads {
		return false, nil
	}
	switch r.consistency {
	case readLinearizable, "majority", "quorum", "all":
		return false, c.Synced(r.ctx)
	case readBounded:
		return false, c.Fresh(r.ctx, r.maxLag)
	case readLeader:
		if !c.Leading() {
			return r.server.forward(r, c)
		}
	}
	return false, nil
}

// byLeader has a request answered by the node that leads: what it asks for is decided there, by what only that node knows.
func byLeader(h handler) handler {
	return func(s *Server, r *request) error {
		if c := s.options.Cluster; c != nil && !c.Leading() {
			if answered, err := s.forward(r, c); answered || err != nil {
				return err
			}
		}
		return h(s, r)
	}
}

// forward sends a request on. It reports false if there is no need any more.
func (s *Server) forward(r *request, c Cluster) (answered bool, err error) {
	if len(r.http.Request.Header.Peek(forwardedHeader)) > 0 {
		return false, vectord.Refuse(vectord.KindClosed, vectord.CodeNotLeader, "this node does not lead any more, send the request again")
	}
	body, err := r.bodyUpTo(int(s.bodyLimit(&r.http.Request.Header)))
	if err != nil {
		return false, err
	}
	sent := fasthttp.AcquireRequest()
	defer fasthttp.ReleaseRequest(sent)
	r.http.Request.Header.CopyTo(&sent.Header)
	sent.Header.Del(fasthttp.HeaderContentEncoding) // bodyUpTo has decompressed it
	sent.Header.Del(fasthttp.HeaderTransferEncoding)
	sent.Header.Del(fasthttp.HeaderExpect)
	sent.Header.Set(forwardedHeader, "1")
	sent.SetBodyRaw(body)
	var b bytes.Buffer
	if _, err := sent.WriteTo(&b); err != nil {
		return false, fmt.Errorf("write request for the leader: %w", err)
	}
	ctx, done, err := r.waitFor(s.options.RequestTimeout)
	if err != nil {
		return false, err
	}
	defer done()
	raw, err := c.Forward(ctx, b.Bytes())
	if err != nil || raw == nil {
		return false, err
	}
	var answer fasthttp.Response
	if err := answer.Read(bufio.NewReader(bytes.NewReader(raw))); err != nil {
		return false, fmt.Errorf("read answer of the leader: %w", err)
	}
	answer.Header.Del(fasthttp.HeaderConnection) // says something of no connection
	answer.CopyTo(&r.http.Response)
	r.streamed = true
	return true, nil
}

// ServeForwarded answers a request that another node's server sent on, both as in HTTP/1.1. The request brings the client's
// credential, which is checked here again.
func (s *Server) ServeForwarded(request []byte) ([]byte, error) {
	var ctx fasthttp.RequestCtx
	ctx.Init(&fasthttp.Request{}, &net.TCPAddr{}, slogPrinter{s.log})
	received := &ctx.Request
	if err := received.Read(bufio.NewReader(bytes.NewReader(request))); err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "malformed request of another node: %v", err)
	}
	body := bytes.Clone(received.Body()) // handlers read a stream
	received.SetBodyStream(bytes.NewReader(body), len(body))
	s.handle(&ctx)
	var b bytes.Buffer
	if _, err := ctx.Response.WriteTo(&b); err != nil {
		return nil, fmt.Errorf("write answer for another node: %w", err)
	}
	return b.Bytes(), nil
}
