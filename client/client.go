// Package client speaks to a vectord server over its HTTP API.
//
// A Client may be used by any number of goroutines. Every call takes a context and returns when that ends. Refusals that
// pass by themselves (429, 503, a connection that broke) are retried with growing, jittered pauses; a write is retried
// under the same Idempotency-Key, so that it takes effect once however often it had to be sent.
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
	"time"

	"github.com/vectord/vectord"
)

const (
	// DefaultAttempts is how often a request is sent before its refusal is returned.
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
	APIKey     string       // sent with every request; empty sends none
	Attempts   int          // sends of one request, the first included; 0 means DefaultAttempts, 1 never retries
	HTTPClient *http.Client // nil means one that keeps a connection for each concurrent caller
}

// Client calls one server.
type Client struct {
	base     string // scheme, host and path prefix without a trailing slash
	apiKey   string
	attempts int
	http     *http.Client
}

// New returns a client of the server at baseURL, such as "http://127.0.0.1:6333". It does not connect yet.
func New(baseURL string, o Options) (*Client, error) {
	u, err := url.Parse(baseURL)
	switch {
	case err != nil:
		return nil, fmt.Errorf("server URL: %w", err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("server URL %q: expected http://host:port or https://host:port", baseURL)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("server URL %q: a query or fragment has no meaning here", baseURL)
	case o.Attempts < 0:
		return nil, fmt.Errorf("client attempts: %d invalid, must not be negative", o.Attempts)
	}
	c := &Client{base: strings.TrimRight(u.String(), "/"), apiKey: o.APIKey, attempts: o.Attempts, http: o.HTTPClient}
	if c.attempts == 0 {
		c.attempts = DefaultAttempts
	}
	if c.http == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.MaxIdleConns = 0 // bounded per host
		transport.MaxIdleConnsPerHost = connectionsPerHostMax
		transport.MaxConnsPerHost = connectionsPerHostMax
		transport.IdleConnTimeout = idleTimeout
		transport.DisableCompression = true // vectors hardly shrink, and the server is as a rule near
		c.http = &http.Client{Transport: transport}
	}
	return c, nil
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

// request is one call, which may be sent several times.
type request struct {
	method string
	path   string // with a leading slash, escaped
	body   []byte // nil: none
	key    string // Idempotency-Key of a write, empty for a read
	once   bool   // not to be sent again when the connection failed, for then it may have had its effect
	header http.Header
}

// write returns a request that changes something, under an idempotency key of its own unless the caller chose one.
func write(method, path string, body []byte, o vectord.WriteOptions) request {
	if o.IdempotencyKey == "" {
		var b [16]byte
		crand.Read(b[:]) // never fails
		o.IdempotencyKey = hex.EncodeToString(b[:])
	}
	return request{method: method, path: path, body: body, key: o.IdempotencyKey}
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
	for attempt := 1; ; attempt++ {
		body, header, err := c.send(ctx, r)
		if err == nil {
			return body, header, nil
		}
		if attempt == c.attempts || !retryable(err) || r.once && StatusOf(err) == 0 || ctx.Err() != nil {
			return nil, nil, fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
		if waitErr := wait(ctx, pause(attempt, err)); waitErr != nil {
			return nil, nil, fmt.Errorf("%s %s: %w (last answer: %w)", r.method, r.path, waitErr, err)
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

// retryable reports whether the same request may succeed later. Everything that is not an answer is a connection that
// failed, and a request with an idempotency key or without an effect may be sent again after that.
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

// send makes one attempt and returns a successful answer.
func (c *Client) send(ctx context.Context, r request) ([]byte, http.Header, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, body)
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
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
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

// Ready returns nil when the server can answer searches and writes.
func (c *Client) Ready(ctx context.Context) error {
	_, _, err := c.send(ctx, request{method: http.MethodGet, path: "/readyz"})
	return err
}

func collectionPath(name, rest string) string { return "/collections/" + url.PathEscape(name) + rest }
