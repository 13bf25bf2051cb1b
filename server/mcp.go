package server

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// MCPHandler answers requests to the endpoint of MCP's streamable HTTP as http.Handler does, but that it is told who asks. It
// answers as a whole: w takes no streams. The context has the deadline of the request.
type MCPHandler func(w http.ResponseWriter, r *http.Request, caller access.Caller)

// mcpPath is where it answers. What a caller may do there is decided by what is called; the route lets in whoever may do
// anything at all.
const mcpPath = "/mcp"

func (s *Server) serveMCP(r *request) error {
	if s.options.MCP == nil {
		return s.notFound(r)
	}
	body, err := r.body()
	if err != nil {
		return err
	}
	h := make(http.Header, r.http.Request.Header.Len())
	for name, value := range r.http.Request.Header.All() {
		h.Add(string(name), string(value))
	}
	h.Del(fasthttp.HeaderContentEncoding) // it was decoded
	in := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: mcpPath}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: h,
		Host: string(r.http.Host()), Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)), RemoteAddr: r.http.RemoteAddr().String()}
	w := &mcpAnswer{header: http.Header{}, body: r.out[:0]}
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	defer context.AfterFunc(s.serving, cancel)() // whoever waits is let go when the server stops
	s.options.MCP(w, in.WithContext(ctx), r.caller)
	if w.status == 0 {
		if s.serving.Err() != nil {
			return vectord.Errorf(vectord.KindClosed, "the server is shutting down")
		}
		return context.DeadlineExceeded
	}

	r.bare, r.out = true, w.body
	response := &r.http.Response
	response.SetStatusCode(w.status)
	for name, values := range w.header {
		if name != "Connection" { // that is fasthttp's
			response.Header.Set(name, values[0])
		}
	}
	return nil
}

// mcpAnswer is an http.ResponseWriter that keeps the answer.
type mcpAnswer struct {
	header http.Header
	status int // 0: there is no answer yet
	body   []byte
}

func (w *mcpAnswer) Header() http.Header { return w.header }

func (w *mcpAnswer) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *mcpAnswer) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, b...)
	return len(b), nil
}

// Flush implements http.Flusher: there is nobody yet to send anything to.
func (w *mcpAnswer) Flush() {}

// isOwnOrigin reports whether an origin is that of this very server on the user's own machine, as MCP has it. Any other name
// could have been pointed at this machine by somebody else.
func isOwnOrigin(origin, host string) bool {
	if origin != "http://"+host && origin != "https://"+host {
		return false
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	addr, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && addr.IsLoopback()
}
