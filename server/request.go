package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
	"github.com/vectord/vectord/internal/wire"
)

// request is one request on its way through the server. It belongs to the goroutine that serves it.
type request struct {
	server *Server
	http   *fasthttp.RequestCtx
	ctx    context.Context // ends with the request's deadline

	caller         access.Caller // who asks; the zero value where the route is open
	collection     string        // {name} of the path, an alias at most if the caller may do the same with every collection
	wait           bool
	idempotencyKey string
	timeoutSeconds int // that the client asks for; 0: it does not say
	consistency    consistency
	maxLag         time.Duration // of a read that is bounded

	out  []byte // the answer; handlers append the value of "result"
	bare bool   // the answer is not in the envelope

	waiting  bool // the request counts among those that wait, and not among those being served
	streamed bool // the handler gave the answer to fasthttp itself

	bodyRead bool
	buffer   []byte // holds the body
	reserved int    // bytes of the server's budget for bodies
}

// serveRoute takes a request the whole way.
func (s *Server) serveRoute(rt *route, m *routeMetrics, ctx *fasthttp.RequestCtx) {
	start := time.Now()
	s.metrics.inFlight.Inc()
	defer s.metrics.inFlight.Dec()
	r := &request{server: s, http: ctx, out: ctx.Response.SwapBody(nil)[:0]}
	if err := s.admitAndRun(rt, r, start); err != nil {
		s.writeError(r, err, start)
	} else {
		s.writeAnswer(r, start)
	}
	r.release()
	status, took := ctx.Response.StatusCode(), time.Since(start)
	m.answered(status, took)
	if s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.Debug("request", "method", rt.method, "route", rt.path, "collection", r.collection, "status", status,
			"took", took, "credential", r.caller.Credential(), "subject", r.caller.Subject())
	}
}

// admitAndRun checks what is to be checked before the body is read, in its fixed order, and then calls the handler. A
// panic of the handler costs the client an answer of 500, not its connection, and the others nothing.
func (s *Server) admitAndRun(rt *route, r *request, start time.Time) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in a handler", "method", rt.method, "route", rt.path, "panic", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if rt.needs != permissionOpen { // the probes answer even when the server is full
		defer r.leave()
		if s.calls.Add(1) > int64(s.options.MaxConcurrentCalls) {
			return vectord.Errorf(vectord.KindOverloaded, "more than %d requests at the same time", s.options.MaxConcurrentCalls)
		}
	}
	if err := r.admit(rt); err != nil {
		return err
	}
	switch string(r.http.Request.Header.Peek(refusedHeader)) {
	case "":
	case refusedForCredential: // a token that has become valid since the header came in; the body is lost
		if rt.needs != permissionOpen {
			return vectord.Errorf(vectord.KindOverloaded, "the token has only just become valid, send the request again")
		}
	default:
		return bodyTooLarge(s.bodyLimit(&r.http.Request.Header))
	}
	timeout, err := r.parseQuery()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(context.Background(), start.Add(timeout))
	defer cancel()
	if r.timeoutSeconds > 0 {
		ctx = vectord.WithRequestedTimeout(ctx, r.timeoutSeconds)
	}
	r.ctx = ctx
	r.out = append(r.out, `{"result":`...)
	if c := s.options.Cluster; c != nil && rt.needs != permissionOpen {
		if !rt.answersBehind() && !c.CaughtUp() {
			return errNotCaughtUp()
		}
		if answered, err := r.keepUp(c, rt.needs == permissionRead); answered || err != nil {
			return err
		}
	}
	return rt.handle(s, r)
}

// parsePath decodes the collection's name. Its characters may be percent-encoded; a slash is refused by the name's rules.
func (r *request) parsePath() error {
	raw, ok := r.http.UserValue("name").(string)
	if !ok {
		return nil
	}
	name, err := url.PathUnescape(strings.Clone(raw))
	if err != nil {
		return &formError{inPath, vectord.Errorf(vectord.KindInvalid, "collection_name: %v", err)}
	}
	if err := vectord.CheckCollectionName(name); err != nil {
		return &formError{inPath, err}
	}
	r.collection = name
	return nil
}

// parseQuery checks the query parameters and the idempotency key, and returns the time that the request has: what it
// asks for, but never more than the server's own timeout.
func (r *request) parseQuery() (time.Duration, error) {
	timeout := r.server.options.RequestTimeout
	args := r.http.QueryArgs()
	if v := args.Peek("wait"); v != nil {
		switch string(v) {
		case "true":
			r.wait = true
		case "false":
		default:
			return 0, badParameter("wait", v, "true or false")
		}
	}
	if v := args.Peek("ordering"); v != nil {
		switch string(v) {
		case "weak", "medium", "strong": // all the same here: there is one order
		default:
			return 0, badParameter("ordering", v, "weak, medium or strong")
		}
	}
	if v := args.Peek("consistency"); v != nil {
		switch r.consistency = consistency(v); r.consistency {
		case "majority", "quorum", "all", readLinearizable, readBounded, readLeader, readSession:
		default:
			n, err := strconv.ParseUint(string(v), 10, 32)
			if err != nil {
				return 0, badParameter("consistency", v, "an integer, majority, quorum, all, linearizable, bounded, leader or session")
			}
			if n < 1 {
				return 0, &formError{inQuery, outOfRange("consistency", n, "1 or larger")}
			}
		}
	}
	r.maxLag = defaultMaxLag
	if v := args.Peek("max_lag_ms"); v != nil {
		n, err := strconv.ParseUint(string(v), 10, 31)
		if err != nil || n < 1 {
			return 0, badParameter("max_lag_ms", v, "a number of milliseconds from 1")
		}
		r.maxLag = time.Duration(n) * time.Millisecond
	}
	if v := args.Peek("timeout"); v != nil {
		n, err := strconv.ParseUint(string(v), 10, 32)
		if err != nil {
			return 0, badParameter("timeout", v, "a number of seconds")
		}
		if n < 1 {
			return 0, &formError{inQuery, outOfRange("timeout", n, "1 or larger")}
		}
		timeout = min(timeout, time.Duration(n)*time.Second)
		r.timeoutSeconds = int(n)
	}
	if key := r.http.Request.Header.Peek("Idempotency-Key"); len(key) > 0 {
		if len(key) > maxIdempotencyKeyBytes {
			return 0, vectord.Errorf(vectord.KindInvalid, "Idempotency-Key: %d bytes, at most %d are accepted", len(key), maxIdempotencyKeyBytes)
		}
		r.idempotencyKey = string(key)
	}
	return timeout, nil
}

func badParameter(name string, value []byte, expected string) error {
	return &formError{inQuery, vectord.Errorf(vectord.KindInvalid, "%s: expected %s, got %q", name, expected, excerpt(value))}
}

// segment decodes a parameter of the path.
func (r *request) segment(name string) (string, error) {
	raw, _ := r.http.UserValue(name).(string)
	text, err := url.PathUnescape(strings.Clone(raw))
	if err != nil {
		return "", vectord.Errorf(vectord.KindInvalid, "%s: %v", name, err)
	}
	return text, nil
}

// text makes the answer one of a content type, outside the envelope.
func (r *request) text(contentType string) {
	r.bare = true
	r.out = r.out[:0]
	r.http.Response.Header.SetContentType(contentType)
}

const (
	jsonContentType = "application/json"
	textContentType = "text/plain; charset=utf-8"
)

// compressFrom is the size in bytes from which an answer is compressed if the client accepts that.
const compressFrom = 1 << 10

// keptAnswerBytes is the size up to which an answer's buffer stays with its connection for the next one.
const keptAnswerBytes = 256 << 10

// writeAnswer closes the envelope and hands the answer to fasthttp.
func (s *Server) writeAnswer(r *request, start time.Time) {
	response := &r.http.Response
	if !r.bare && !r.streamed {
		response.Header.SetContentType(jsonContentType)
		r.out = append(r.out, `,"status":"ok","time":`...)
		r.out = append(strconv.AppendFloat(r.out, time.Since(start).Seconds(), 'f', 9, 64), '}')
		if r.wantsMsgpack() {
			r.out = s.msgpack(response, r.out)
		}
	}
	setSafeHeaders(response)
	if r.streamed {
		return
	}
	if c := s.options.Cluster; c != nil {
		response.Header.Set(sessionHeader, strconv.FormatUint(c.Index(), 10))
	}
	body := r.out
	if len(body) >= compressFrom {
		response.Header.Set(fasthttp.HeaderVary, fasthttp.HeaderAcceptEncoding)
		switch h := &r.http.Request.Header; {
		case h.HasAcceptEncoding("zstd"):
			body = fasthttp.AppendZstdBytesLevel(nil, body, fasthttp.CompressZstdBestSpeed)
			response.Header.SetContentEncoding("zstd")
		case h.HasAcceptEncoding("gzip"):
			body = fasthttp.AppendGzipBytesLevel(nil, body, fasthttp.CompressBestSpeed)
			response.Header.SetContentEncoding("gzip")
		}
	}
	if cap(body) > keptAnswerBytes {
		response.SetBodyRaw(body)
	} else {
		response.SwapBody(body)
	}
}

// setSafeHeaders keeps browsers and caches from making more of an answer than it is.
func setSafeHeaders(response *fasthttp.Response) {
	response.Header.Set("X-Content-Type-Options", "nosniff")
	response.Header.Set(fasthttp.HeaderCacheControl, "no-store")
}

// writeError answers with an error. If much of the body is still unread the connection is given up.
func (s *Server) writeError(r *request, err error, start time.Time) {
	response := &r.http.Response
	setSafeHeaders(response)
	if !r.bodyRead && bodyLeftUnread(r.http) {
		response.SetConnectionClose()
		lingerOnClose(r.http.Conn())
	}
	var refused *refusal
	if denied := (*access.Denial)(nil); errors.As(err, &denied) {
		refused = refusalOf(denied)
	}
	if refused != nil || errors.As(err, &refused) {
		if refused.reason != "" {
			s.metrics.rejected.WithLabelValues(refused.reason).Inc()
		}
		if refused.plain {
			response.Header.Del(fasthttp.HeaderAllow) // the router's; which routes there are is not for strangers
			response.SetStatusCode(refused.status)
			response.Header.SetContentType(textContentType)
			response.SetBodyString(refused.text)
			return
		}
		s.writeErrorText(r, refused.status, errorJSON{Error: refused.text}, start)
		return
	}
	status, text := statusOf(err)
	switch status {
	case fasthttp.StatusInternalServerError:
		s.log.Error("request failed", "method", string(r.http.Method()), "path", string(r.http.Path()), "error", err)
	case fasthttp.StatusTooManyRequests:
		s.metrics.rejected.WithLabelValues(reasonOverloaded).Inc()
		response.Header.Set(fasthttp.HeaderRetryAfter, retryAfter(err))
	case fasthttp.StatusServiceUnavailable:
		response.Header.Set(fasthttp.HeaderRetryAfter, retryAfter(err))
	case fasthttp.StatusRequestEntityTooLarge:
		s.metrics.rejected.WithLabelValues(reasonTooLarge).Inc()
	}
	s.writeErrorText(r, status, errorJSON{text, vectord.CodeOf(err), retryAfterMillis(err)}, start)
}

// writeErrorText writes an error's envelope in the form that the client wants.
func (s *Server) writeErrorText(r *request, status int, e errorJSON, start time.Time) {
	response := &r.http.Response
	writeErrorText(response, r.out, status, e, start)
	if r.wantsMsgpack() {
		response.SwapBody(s.msgpack(response, response.Body()))
	}
}

// wantsMsgpack reports whether the answer shall be MessagePack.
func (r *request) wantsMsgpack() bool {
	for _, accepted := range bytes.Split(r.http.Request.Header.Peek(fasthttp.HeaderAccept), []byte{','}) {
		if isMsgpack(accepted) {
			return true
		}
	}
	return false
}

// msgpack returns an answer, which is JSON, as MessagePack.
func (s *Server) msgpack(response *fasthttp.Response, answer []byte) []byte {
	out, err := wire.AppendMsgpack(nil, answer)
	if err != nil { // the answer is the server's own
		s.log.Error("an answer cannot be MessagePack", "error", err)
		return answer
	}
	response.Header.SetContentType("application/vnd.msgpack")
	return out
}

// writeErrorText writes an error's envelope, using buffer's memory.
func writeErrorText(response *fasthttp.Response, buffer []byte, status int, e errorJSON, start time.Time) {
	out := append(buffer[:0], `{"status":{"error":`...)
	out = appendString(out, e.Error)
	if e.Code != "" {
		out = append(out, `,"code":`...)
		out = appendString(out, string(e.Code))
	}
	if e.RetryAfterMS > 0 {
		out = append(out, `,"retry_after_ms":`...)
		out = strconv.AppendInt(out, e.RetryAfterMS, 10)
	}
	out = append(out, `},"time":`...)
	out = append(strconv.AppendFloat(out, time.Since(start).Seconds(), 'f', 9, 64), '}')
	response.SetStatusCode(status)
	response.Header.SetContentType(jsonContentType)
	response.SwapBody(out)
}

// handleMalformed answers what is not an HTTP request or did not arrive in time. fasthttp closes the connection then.
func (s *Server) handleMalformed(ctx *fasthttp.RequestCtx, err error) {
	status, text := fasthttp.StatusBadRequest, "Bad request: malformed HTTP"
	var small *fasthttp.ErrSmallBuffer
	var network net.Error
	switch {
	case errors.As(err, &small):
		status, text = fasthttp.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("Bad request: the header is larger than %d bytes", maxHeaderBytes)
	case errors.As(err, &network) && network.Timeout():
		status, text = fasthttp.StatusRequestTimeout, "Timeout: the request did not arrive in time"
	}
	s.metrics.rejected.WithLabelValues(reasonMalformed).Inc()
	lingerOnClose(ctx.Conn())
	setSafeHeaders(&ctx.Response)
	writeErrorText(&ctx.Response, nil, status, errorJSON{Error: text}, time.Now())
}
