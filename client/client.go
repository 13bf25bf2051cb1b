// Package client speaks to a vectord server, or to those of a cluster, over HTTP.
//
// A Client may be used by any number of goroutines. Every call takes a context and returns when that ends. Refusals that
// pass by themselves (429, 503, a connection that broke) are retried with growing, jittered pauses; a write is retried
// under the same Idempotency-Key, so that it takes effect once however often it had to be sent. What has no such key, and would
// do harm if it were done twice, is sent again only if it has certainly had no effect; else the error is ErrOutcomeUnknown.
//
// With several servers a Client asks one of them until that fails, and then the next. Each answer says how much of the cluster's
// log it knows of; the Client sends the highest such number with each request, so that whoever uses one Client reads what
// was written by it, and never something older than it has read, whichever server answers.
package client

import (
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
)

const (
	// DefaultAttempts is how often a request is sent to the one server that there is before its refusal is returned.
	DefaultAttempts = 6

	// ResponseBytesMax bounds the answer that is read into memory: 10,000 points of 4,096 components stay below it.
	ResponseBytesMax = 1 << 30

	connectionsPerHostMax = 256
	idleTimeout           = 20 * time.Second // below the 30 s after which servers may close
	backoffFirst          = 50 * time.Millisecond
	backoffMax            = 2 * time.Second
	retryAfterMax         = 30 * time.Second // a server that asks for more is taken by this much
	errorTextMax          = 1024             // bytes of an answer that is not understood, quoted in an error
)

// Options tune a Client. The zero value works.
type Options struct {
	APIKey string // sent with every request; empty sends none
	// Servers are the URLs of further servers of the same cluster, which are asked when another one fails.
	Servers []string
	// Attempts is how often one request is sent, the first time included; 1 never retries. 0 means DefaultAttempts for one
	// server, and for several as often as the context leaves time for.
	Attempts   int
	HTTPClient *http.Client // nil means one that keeps a connection for each concurrent caller
}

// Client calls one server, or those of one cluster.
type Client struct {
	servers  servers
	apiKey   string
	attempts int // 0: no bound but the context's
	http     *http.Client
	asking   *http.Client  // whether a server lives: over other connections, which are not all in use
	session  atomic.Uint64 // the highest number that an answer had in its sessionHeader
}

// sessionHeader carries how much of the log the server that answered knew, a number that never falls.
const sessionHeader = "Vectord-Session"

// New returns a client of the server at baseURL, such as "http://127.0.0.1:6333". It does not connect yet.
func New(baseURL string, o Options) (*Client, error) {
	if o.Attempts < 0 {
		return nil, fmt.Errorf("client attempts: %d invalid, must not be negative", o.Attempts)
	}
	c := &Client{apiKey: o.APIKey, attempts: o.Attempts, http: o.HTTPClient}
	for _, address := range append([]string{baseURL}, o.Servers...) {
		base, err := parseBase(address)
		if err != nil {
			return nil, err
		}
		c.servers.list = append(c.servers.list, &node{base: base})
	}
	if c.attempts == 0 && len(c.servers.list) == 1 {
		c.attempts = DefaultAttempts
	}
	c.asking = c.http
	if c.http == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		c.asking = &http.Client{Transport: transport.Clone()}
		transport.MaxIdleConns = 0 // bounded per host
		transport.MaxIdleConnsPerHost = connectionsPerHostMax
		transport.MaxConnsPerHost = connectionsPerHostMax
		transport.IdleConnTimeout = idleTimeout
		transport.DisableCompression = true // vectors hardly shrink, and the server is as a rule near
		c.http = &http.Client{Transport: transport}
	}
	return c, nil
}

// parseBase returns scheme, host and path prefix without a trailing slash.
func parseBase(address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return "", fmt.Errorf("server URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return "", fmt.Errorf("server URL %q: expected http://host:port or https://host:port", address)
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("server URL %q: a query or fragment has no meaning here", address)
	}
	return strings.TrimRight(u.String(), "/"), nil
}

// Error is a refusal by the server.
type Error struct {
	Status     int           // HTTP status code; 0 where it is one of several answers in one
	Text       string        // what the server says is wrong
	Code       vectord.Code  // says more to a program, where there is more to say
	RetryAfter time.Duration // with 429 and 503, if the server said when to come back
}

func (e *Error) Error() string {
	if e.Status == 0 {
		return "server refused: " + e.Text
	}
	return fmt.Sprintf("server answered %d: %s", e.Status, e.Text)
}

// CodeOf returns the code of the *Error in err, or nothing.
func CodeOf(err error) vectord.Code {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// StatusOf returns the HTTP status of the *Error in err, or 0 if there is none.
func StatusOf(err error) int {
	var e *Error
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// ErrOutcomeUnknown is in the errors of requests that may have had their effect, or may have it still.
var ErrOutcomeUnknown = errors.New("the outcome is unknown, the request may have had its effect")

// request is one call, which may be sent several times.
type request struct {
	method  string
	path    string // with a leading slash, escaped
	body    []byte // nil: none
	changes bool   // something, where it is carried out
	key     string // Idempotency-Key of a write, empty for a read
	once    bool   // not to be sent again when it may have had its effect
	header  http.Header
}

// write returns a request that changes something, under an idempotency key of its own unless the caller chose one.
func write(method, path string, body []byte, o vectord.WriteOptions) request {
	if o.IdempotencyKey == "" {
		o.IdempotencyKey = newIdempotencyKey()
	}
	return request{method: method, path: path, body: body, changes: true, key: o.IdempotencyKey}
}

func newIdempotencyKey() string {
	var b [16]byte
	crand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// writeOnce is write where the server does not look at the key, and a repetition would be another change.
func writeOnce(method, path string, body []byte) request {
	r := write(method, path, body, vectord.WriteOptions{})
	r.once = true
	return r
}

// call sends r until it is answered for good and decodes the answer's result into result, which may be nil.
func (c *Client) call(ctx context.Context, r request, result any) error {
	body, _, err := c.exchange(ctx, r)
	if err != nil {
		return err
	}
	return decodeResult(body, result)
}

// exchange sends r until it is answered for good and returns the answer.
func (c *Client) exchange(ctx context.Context, r request) ([]byte, http.Header, error) {
	perhaps := false // an attempt may have had its effect
	for attempt := 1; ; attempt++ {
		at := c.servers.at()
		body, header, err := c.send(ctx, c.servers.list[at], r)
		if err == nil {
			return body, header, nil
		}
		perhaps = perhaps || r.changes && !withoutEffect(err)
		failed := func(err error) ([]byte, http.Header, error) {
			if perhaps {
				err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
			}
			return nil, nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
		if !c.servers.retryable(err) || ctx.Err() != nil {
			return failed(err)
		}
		pause := c.servers.next(at, attempt, err) // also where it is another request that goes there
		if attempt == c.attempts || r.once && perhaps {
			return failed(err)
		}
		if waitErr := wait(ctx, pause); waitErr != nil {
			return failed(fmt.Errorf("%w (last answer: %w)", waitErr, err))
		}
	}
}

// Call makes any request of the API, for what the other methods do not cover: path begins with a slash and is escaped, body is
// JSON or nil, and the answer's result is decoded into result, which may be nil. PUT, PATCH and DELETE are sent under an
// idempotency key. POST is not, for most such requests read: what it changes must bear to be changed twice.
func (c *Client) Call(ctx context.Context, method, path string, body []byte, result any) error {
	r := request{method: method, path: path, body: body}
	if method != http.MethodGet && method != http.MethodPost {
		r = write(method, path, body, vectord.WriteOptions{})
	}
	return c.call(ctx, r, result)
}

// retryable reports whether the same request may succeed later at the same server. Everything that is not an answer is a
// connection that failed, and a request with an idempotency key or without an effect may be sent again after that.
func retryable(err error) bool {
	switch StatusOf(err) {
	case 0:
		return !errors.Is(err, errResponse)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return true
	}
	return false
}

// pause returns how long to wait after the given number of attempts: as long as the server asked for, else a random
// share of a limit that doubles each time, so that refused callers do not return together.
func pause(attempt int, err error) time.Duration {
	var e *Error
	if errors.As(err, &e) && e.RetryAfter > 0 {
		return min(e.RetryAfter, retryAfterMax)
	}
	return backoff(attempt)
}

func backoff(attempt int) time.Duration {
	limit := backoffMax
	if attempt < 6 { // beyond, the shift is above the maximum anyway
		limit = min(backoffFirst<<(attempt-1), backoffMax)
	}
	return limit/2 + rand.N(limit/2+1)
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// errResponse marks an answer that came but cannot be understood; sending the request again would not help.
var errResponse = errors.New("unexpected answer")

// send makes one attempt at one server and returns a successful answer.
func (c *Client) send(ctx context.Context, to *node, r request) ([]byte, http.Header, error) {
	if len(c.servers.list) == 1 {
		return c.sendTo(ctx, to, r)
	}
	watched, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	defer c.watch(watched, to, giveUp)()
	body, header, err := c.sendTo(watched, to, r)
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(watched), errHangs) {
		err = errHangs
	}
	return body, header, err
}

func (c *Client) sendTo(ctx context.Context, to *node, r request) ([]byte, http.Header, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, to.base+r.path, body)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errResponse, err)
	}
	if r.header != nil {
		req.Header = r.header.Clone()
	} else if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.apiKey != "" {
		req.Header.Set("api-key", c.apiKey)
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", r.key)
	}
	if known := c.session.Load(); known > 0 {
		req.Header.Set(sessionHeader, strconv.FormatUint(known, 10))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	c.learn(resp.Header)
	answer, err := io.ReadAll(io.LimitReader(resp.Body, ResponseBytesMax+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	case len(answer) > ResponseBytesMax:
		return nil, nil, fmt.Errorf("%w: longer than %d bytes", errResponse, ResponseBytesMax)
	case resp.StatusCode/100 != 2:
		return nil, nil, refusal(resp, answer)
	}
	return answer, resp.Header, nil
}

// learn keeps how much of the log an answer is from.
func (c *Client) learn(h http.Header) {
	index, err := strconv.ParseUint(h.Get(sessionHeader), 10, 64)
	if err != nil {
		return // a server on its own does not say
	}
	for known := c.session.Load(); index > known && !c.session.CompareAndSwap(known, index); known = c.session.Load() {
	}
}

// errorJSON is an error in an answer.
type errorJSON struct {
	Error        string       `json:"error"`
	Code         vectord.Code `json:"code"`
	RetryAfterMS int64        `json:"retry_after_ms"`
}

// err returns the error, or nil if there is none.
func (e *errorJSON) err() error {
	if e.Error == "" {
		return nil
	}
	return &Error{Text: e.Error, Code: e.Code, RetryAfter: time.Duration(e.RetryAfterMS) * time.Millisecond}
}

// refusal finds the error in the envelope {"status": {"error": text}}, or quotes the answer as it is.
func refusal(resp *http.Response, answer []byte) error {
	var envelope struct {
		Status errorJSON `json:"status"`
	}
	if json.Unmarshal(answer, &envelope) != nil || envelope.Status.Error == "" {
		envelope.Status = errorJSON{Error: quoted(answer)}
	}
	e := &Error{Status: resp.StatusCode, Text: envelope.Status.Error, Code: envelope.Status.Code, RetryAfter: retryAfter(resp.Header)}
	if ms := envelope.Status.RetryAfterMS; ms > 0 { // finer than the header
		e.RetryAfter = time.Duration(ms) * time.Millisecond
	}
	return e
}

func quoted(answer []byte) string {
	if len(answer) > errorTextMax {
		answer = append(answer[:errorTextMax:errorTextMax], "…"...)
	}
	return strings.ToValidUTF8(strings.TrimSpace(string(answer)), "�")
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

func decodeResult(answer []byte, result any) error {
	if result == nil {
		return nil
	}
	envelope := struct {
		Result any `json:"result"`
	}{result}
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return fmt.Errorf("%w: %w", errResponse, err)
	}
	return nil
}

// Ready returns nil when a server can answer searches and writes.
func (c *Client) Ready(ctx context.Context) (err error) {
	for range c.servers.list {
		at := c.servers.at()
		if _, _, err = c.send(ctx, c.servers.list[at], request{method: http.MethodGet, path: "/readyz"}); err == nil {
			return nil
		}
		c.servers.leave(at)
	}
	return err
}

func collectionPath(name, rest string) string { return "/collections/" + url.PathEscape(name) + rest }
