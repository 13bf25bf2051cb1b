package server

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

// stub is a model with one method of its own.
type stub struct {
	*model.Model
	count func(context.Context) (int, error)
	ready error
}

func (s stub) Count(ctx context.Context, _ string, _ *vectord.Filter) (int, error) {
	return s.count(ctx)
}
func (s stub) Ready() error { return s.ready }

const countPath = "/collections/c/points/count"

func TestStatusOfEveryKind(t *testing.T) {
	var err error
	var logged bytes.Buffer
	var mu sync.Mutex
	h := start(t, stub{Model: model.New(), count: func(context.Context) (int, error) { return 0, err }},
		Options{Logger: slog.New(slog.NewTextHandler(&lockedWriter{w: &logged, mu: &mu}, nil))})
	f := func(e error, status int, want string) {
		t.Helper()
		err = e
		h.refused(status, "POST", countPath, "{}", want)
	}
	f(vectord.Errorf(vectord.KindInvalid, "a %d", 1), 400, "Wrong input: a 1")
	f(fmt.Errorf("wrapped: %w", vectord.Errorf(vectord.KindInvalid, "a")), 400, "Wrong input: wrapped: a")
	f(vectord.Errorf(vectord.KindUnprocessable, "limit: 0"), 422, "Validation error in JSON body: [limit: 0]")
	f(vectord.Errorf(vectord.KindUnsupported, "a"), 400, "Bad request: a")
	f(vectord.Errorf(vectord.KindLimited, "a"), 400, "Bad request: a")
	f(vectord.Errorf(vectord.KindNotFound, "a"), 404, "Not found: a")
	f(vectord.Errorf(vectord.KindExists, "a"), 409, "Wrong input: a")
	f(vectord.Errorf(vectord.KindTooLarge, "a"), 413, "Bad request: a")
	f(vectord.Errorf(vectord.KindOverloaded, "a"), 429, "Too many requests: a")
	f(vectord.Errorf(vectord.KindNoMemory, "a"), 507, "Insufficient memory: a")
	f(vectord.Errorf(vectord.KindNoSpace, "a"), 507, "Insufficient storage: a")
	f(vectord.Errorf(vectord.KindTimeout, "a"), 408, "Timeout: a")
	f(context.DeadlineExceeded, 408, "Timeout: context deadline exceeded")
	f(vectord.Errorf(vectord.KindClosed, "a"), 503, "Service unavailable: a")
	f(vectord.Errorf(vectord.KindInvalid, "\xff"), 400, "Wrong input: \uFFFD")
	f(errors.New("disk on fire"), 500, "Service internal error: the server's log has the details")
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(logged.String(), "disk on fire") {
		t.Error("the internal error is not in the log")
	}
}

type lockedWriter struct {
	mu *sync.Mutex // guards w
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func TestRetryAfter(t *testing.T) {
	h := start(t, stub{Model: model.New(), count: func(context.Context) (int, error) {
		return 0, &vectord.Error{Kind: vectord.KindOverloaded, RetryAfter: 2100 * time.Millisecond}
	}}, Options{})
	if status, _, header := h.send("POST", countPath, strings.NewReader("{}")); status != 429 || header.Get("Retry-After") != "3" {
		t.Errorf("status %d, Retry-After %q", status, header.Get("Retry-After"))
	}
}

func TestPanicCostsOneAnswer(t *testing.T) {
	var logged bytes.Buffer
	var mu sync.Mutex
	h := start(t, stub{Model: model.New(), count: func(context.Context) (int, error) { panic("out of luck") }},
		Options{Logger: slog.New(slog.NewTextHandler(&lockedWriter{w: &logged, mu: &mu}, nil))})
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	for i := range 3 { // on one connection
		if _, err := io.WriteString(c, "POST "+countPath+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		if got := readAll(t, resp.Body); resp.StatusCode != 500 || strings.Contains(got, "luck") {
			t.Errorf("request %d: %d %s", i, resp.StatusCode, got)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if !strings.Contains(logged.String(), "out of luck") || !strings.Contains(logged.String(), "http_test.go") {
		t.Errorf("the log has no panic with its stack: %s", logged.String())
	}
}

func TestConcurrencyIsBounded(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	h := start(t, stub{Model: model.New(), count: func(context.Context) (int, error) {
		entered <- struct{}{}
		<-leave
		return 0, nil
	}}, Options{MaxConcurrentCalls: 2})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if status, answer, _ := h.send("POST", countPath, strings.NewReader("{}")); status != 200 {
				t.Errorf("an admitted request: %d %s", status, answer)
			}
		})
		<-entered
	}
	status, answer, header := h.send("POST", countPath, strings.NewReader("{}"))
	if status != 429 || header.Get("Retry-After") != "1" || result(t, answer) != "Too many requests: more than 2 requests at the same time" {
		t.Errorf("one too many: %d %s", status, answer)
	}
	if status, _, _ := h.send("GET", "/healthz", nil); status != 200 {
		t.Errorf("/healthz of a full server: %d", status)
	}
	close(leave)
	wg.Wait()
	h.ok("GET", "/collections", "", `{"collections":[]}`)
}

func TestTimeoutBoundsTheContext(t *testing.T) {
	var left time.Duration
	h := start(t, stub{Model: model.New(), count: func(ctx context.Context) (int, error) {
		deadline, ok := ctx.Deadline()
		if !ok {
			t.Error("the context has no deadline")
		}
		left = time.Until(deadline)
		return 0, nil
	}}, Options{RequestTimeout: 20 * time.Second})
	f := func(query string, low, high time.Duration) {
		t.Helper()
		h.ok("POST", countPath+query, "{}", `{"count":0}`)
		if left <= low || left > high {
			t.Errorf("%q leaves %v, want %v to %v", query, left, low, high)
		}
	}
	f("", 15*time.Second, 20*time.Second)
	f("?timeout=10", 5*time.Second, 10*time.Second)
	f("?timeout=3600", 15*time.Second, 20*time.Second)
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// compressed returns b in an encoding of HTTP.
func compressed(t *testing.T, encoding string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var z io.WriteCloser
	var err error
	switch encoding {
	case "gzip":
		return gzipped(t, b)
	case "deflate":
		z = zlib.NewWriter(&out)
	case "zstd":
		z, err = zstd.NewWriter(&out, zstd.WithZeroFrames(true))
	}
	if err == nil {
		_, err = z.Write(b)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBodies(t *testing.T) {
	h := withPoints(t, Options{MaxBodyBytes: 100_000})
	f := func(body io.Reader, encoding string, wantStatus int, want string) {
		t.Helper()
		status, answer, _ := h.send("POST", countPath, body, "Content-Encoding", encoding)
		if status != wantStatus || !strings.Contains(result(t, answer), want) {
			t.Errorf("%d %s, want %d %s", status, answer, wantStatus, want)
		}
	}
	padded := func(n int) []byte { return append([]byte("{}"), bytes.Repeat([]byte(" "), n-2)...) }
	chunked := func(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) } // hides the length from the client
	for _, n := range []int{2, 3, 8 << 10, 16<<10 - 1, 16 << 10, 16<<10 + 1, 99_999, 100_000} {
		f(bytes.NewReader(padded(n)), "identity", 200, `{"count":3}`)
		f(chunked(padded(n)), "", 200, `{"count":3}`)
		for _, encoding := range []string{"gzip", "deflate", "zstd"} {
			f(bytes.NewReader(compressed(t, encoding, padded(n))), encoding, 200, `{"count":3}`)
			f(chunked(compressed(t, encoding, padded(n))), encoding, 200, `{"count":3}`)
		}
	}
	f(bytes.NewReader(padded(100_001)), "", 413, "the body is larger than 100000 bytes")
	f(chunked(padded(100_001)), "", 413, "the body is larger than 100000 bytes")
	f(chunked(padded(2_000_000)), "", 413, "the body is larger than 100000 bytes")
	for _, encoding := range []string{"gzip", "deflate", "zstd"} {
		f(bytes.NewReader(compressed(t, encoding, padded(100_001))), encoding, 413, "the body is larger than 100000 bytes")
		f(bytes.NewReader(compressed(t, encoding, padded(5_000_000))), encoding, 413, "the body is larger than 100000 bytes") // a bomb
		f(strings.NewReader("{}"), encoding, 400, "the body ")
		f(bytes.NewReader(compressed(t, encoding, padded(9_000))[:12]), encoding, 400, "the body could not be read")
		f(bytes.NewReader(compressed(t, encoding, padded(100))), encoding, 200, `{"count":3}`) // after the bad ones
	}
	f(chunked(bytes.Repeat(gzipped(t, nil), 10_000)), "gzip", 400, "the body could not be read: unexpected EOF")
	f(chunked(bytes.Repeat(compressed(t, "zstd", nil), 20_000)), "zstd", 400, "the body could not be read: unexpected EOF")
	f(strings.NewReader("{}{}{}{}{}{}"), "zstd", 400, "the body is not valid zstd")
	f(strings.NewReader("{}{}{}{}{}{}"), "deflate", 400, "the body is not valid deflate")
	f(strings.NewReader("{}{}{}{}{}{}"), "gzip", 400, "the body is not valid gzip")
	f(strings.NewReader("{}"), "br", 400, "Bad request: Content-Encoding br is not offered by this server, only gzip, zstd and deflate")
	if n := h.srv.bodies.Load(); n != 0 {
		t.Errorf("%d bytes stay reserved", n)
	}
	h.ok("POST", countPath, "{}", `{"count":3}`)
}

func TestBodiesInMemoryAreBounded(t *testing.T) {
	h := withPoints(t, Options{MaxBodiesBytes: 100_000})
	body := append([]byte("{}"), bytes.Repeat([]byte(" "), 99_000)...)
	h.ok("POST", countPath, string(body), `{"count":3}`)
	h.srv.bodies.Add(50_000) // another request's
	h.refused(429, "POST", countPath, string(body), "Too many requests: the request bodies in memory exceed 100000 bytes")
	h.srv.bodies.Add(-50_000)
	h.ok("POST", countPath, string(body), `{"count":3}`)
}

func TestSlowBodyIsCut(t *testing.T) {
	h := start(t, model.New(), Options{RequestTimeout: 200 * time.Millisecond})
	for _, partial := range []string{"Content-Length: 20000\r\n\r\n" + strings.Repeat(" ", 10_000), // beyond the read-ahead
		"Content-Length: 10\r\n\r\n{", "Transfer-Encoding: chunked\r\n\r\n5\r\n{"} {
		resp := h.rawRequest("POST " + countPath + " HTTP/1.1\r\nHost: x\r\n" + partial)
		if answer := readAll(t, resp.Body); resp.StatusCode != 408 {
			t.Errorf("%.40q: %d %s, want 408", partial, resp.StatusCode, answer)
		}
	}
}

func TestMalformedHTTP(t *testing.T) {
	h := start(t, model.New(), Options{})
	f := func(text string, status int, want string) {
		t.Helper()
		resp := h.rawRequest(text)
		if got := result(t, readAll(t, resp.Body)); resp.StatusCode != status || got != want {
			t.Errorf("%.40q: %d %s, want %d %s", text, resp.StatusCode, got, status, want)
		}
	}
	f("GARBAGE\r\n\r\n", 400, "Bad request: malformed HTTP")
	f("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "Bad request: malformed HTTP")
	f("GET / HTTP/1.1\r\nHost: x\r\nLong: "+strings.Repeat("x", 20_000)+"\r\n\r\n", 431, "Bad request: the header is larger than 16384 bytes")
	f("GET /collections/%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, `Format error in path parameters: collection_name: invalid URL escape "%zz"`)
	f("GET /collections/c HTTP/1.1\r\nHost: somewhere.else:99\r\n\r\n", 404, "Not found: Collection `c` doesn't exist!")
	f("BREW /collections HTTP/1.1\r\nHost: x\r\n\r\n", 405, "Bad request: method BREW is not allowed here")
}

func TestAnswersAreCompressed(t *testing.T) {
	h := withPoints(t, Options{})
	var points strings.Builder
	for i := range 200 {
		fmt.Fprintf(&points, `,{"id":%d,"vector":[1,2]}`, i+100)
	}
	h.ok("PUT", "/collections/c/points", `{"points":[`+points.String()[1:]+`]}`, "")
	f := func(accept, want string, body string) {
		t.Helper()
		_, answer, header := h.send("POST", "/collections/c/points/scroll", strings.NewReader(body), "Accept-Encoding", accept)
		if got := header.Get("Content-Encoding"); got != want {
			t.Errorf("Accept-Encoding %q: encoding %q, want %q", accept, got, want)
		}
		switch want {
		case "gzip":
			z, err := gzip.NewReader(strings.NewReader(answer))
			if err != nil {
				t.Fatal(err)
			}
			answer = readAll(t, z)
		case "zstd":
			z, err := zstd.NewReader(strings.NewReader(answer))
			if err != nil {
				t.Fatal(err)
			}
			defer z.Close()
			answer = readAll(t, z)
		}
		if !strings.HasPrefix(result(t, answer), `{"points":[{"id":`) {
			t.Errorf("Accept-Encoding %q: answer %.60q", accept, answer)
		}
	}
	f("gzip", "gzip", `{"limit":200}`)
	f("gzip, deflate, br, zstd", "zstd", `{"limit":200}`)
	f("gzip;q=0.5, zstd;q=0", "gzip", `{"limit":200}`)
	f("gzip;q=0", "", `{"limit":200}`)
	f("", "", `{"limit":200}`)
	f("gzip", "", `{"limit":2}`)
}

func TestLargeAnswersOnOneConnection(t *testing.T) {
	h := start(t, model.New(), Options{})
	h.ok("PUT", "/collections/c", `{"vectors":{"size":1,"distance":"Dot"}}`, "true")
	payload := strings.Repeat("x", 300_000)
	h.ok("PUT", "/collections/c/points", `{"points":[{"id":1,"vector":[1],"payload":{"a":"`+payload+`"}},{"id":2,"vector":[1]}]}`, "")
	for range 3 {
		h.ok("GET", "/collections/c/points/1", "", `{"id":1,"payload":{"a":"`+payload+`"},"vector":[1]}`)
		h.ok("GET", "/collections/c/points/2", "", `{"id":2,"payload":{},"vector":[1]}`)
		h.refused(404, "GET", "/collections/c/points/3", "", "Not found: No point with id 3 found")
	}
}

func TestReady(t *testing.T) {
	h := start(t, stub{Model: model.New(), ready: errors.New("replaying the log: 12 %")}, Options{})
	status, answer, _ := h.send("GET", "/readyz", nil)
	if status != 503 || answer != "not ready: replaying the log: 12 %" {
		t.Errorf("%d %s", status, answer)
	}
}

func TestShutdownDrains(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(stub{Model: model.New(), count: func(context.Context) (int, error) {
		close(entered)
		<-leave
		return 7, nil
	}}, Options{Logger: slog.New(slog.DiscardHandler)})
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	h := &harness{t: t, addr: ln.Addr().String(), srv: s, http: &http.Client{}}
	answered := make(chan string, 1)
	go func() {
		_, answer, _ := h.send("POST", countPath, strings.NewReader("{}"))
		answered <- answer
	}()
	<-entered
	shut := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go func() { shut <- s.Shutdown(ctx) }()
	if err := <-served; err != nil { // the listener is closed, the request is still being served
		t.Error(err)
	}
	select {
	case err := <-shut:
		t.Fatalf("Shutdown returned %v with a request in flight", err)
	default:
	}
	if c, err := net.Dial("tcp", h.addr); err == nil {
		c.Close()
		t.Error("a new connection was accepted")
	}
	close(leave)
	if answer := <-answered; result(t, answer) != `{"count":7}` {
		t.Errorf("the last answer is %s", answer)
	}
	if err := <-shut; err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(model.New(), Options{APIKey: "secret", Logger: slog.New(slog.DiscardHandler)})
	if err := s.ServeTLS(ln, &tls.Config{}); err == nil {
		t.Fatal("a configuration without a certificate was accepted")
	}
	served := make(chan error, 1)
	go func() {
		served <- s.ServeTLS(ln, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	}()
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	for _, body := range []int{2, 20 << 20} {
		req, err := http.NewRequest("PUT", "https://"+ln.Addr().String()+"/collections/c", bytes.NewReader(make([]byte, body)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 401 {
			t.Errorf("a body of %d bytes: %d", body, resp.StatusCode)
		}
	}
	client.CloseIdleConnections()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := start(t, model.New(), Options{Metrics: registry, APIKey: "secret", ReadOnlyAPIKey: "look", MaxBodyBytes: 1000})
	h.send("GET", "/collections/some%20name", nil, "api-key", "look")
	h.send("GET", "/collections/other", nil, "api-key", "look")
	h.send("GET", "/collections", nil, "api-key", "wrong")
	h.send("PUT", "/collections/x", nil, "api-key", "look")
	h.send("PUT", "/collections/x", bytes.NewReader(make([]byte, 1001)), "api-key", "secret")
	h.send("BREW", "/pot", nil, "api-key", "look")
	status, text, header := h.send("GET", "/metrics", nil, "api-key", "look")
	if status != 200 || !strings.HasPrefix(header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%d %s", status, header)
	}
	for _, want := range []string{
		`vectord_http_requests_total{code="404",method="GET",route="/collections/{name}"} 2`,
		`vectord_http_requests_total{code="401",method="GET",route="/collections"} 1`,
		`vectord_http_requests_total{code="403",method="PUT",route="/collections/{name}"} 1`,
		`vectord_http_requests_total{code="413",method="PUT",route="/collections/{name}"} 1`,
		`vectord_http_requests_total{code="404",method="other",route="other"} 1`,
		`vectord_http_rejected_total{reason="unauthenticated"} 1`,
		`vectord_http_rejected_total{reason="forbidden"} 1`,
		`vectord_http_rejected_total{reason="too_large"} 1`,
		`vectord_http_rejected_total{reason="overloaded"} 0`,
		`vectord_http_request_duration_seconds_count{method="GET",route="/collections/{name}"} 2`,
		`vectord_http_requests_in_flight 1`,
		`vectord_build_info{commit="",go_version="go`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestEveryRouteIsCounted checks that each line of the route table is reached by its own path and method.
func TestEveryRouteIsCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := start(t, model.New(), Options{Metrics: registry})
	for _, rt := range routes {
		h.send(rt.method, strings.NewReplacer("{name}", "c", "{id}", "1", "{snapshot}", "x").Replace(rt.path), strings.NewReader("{}"))
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "vectord_http_request_duration_seconds" && len(f.GetMetric()) != len(routes) {
			t.Errorf("%d routes were counted, want %d", len(f.GetMetric()), len(routes))
		}
	}
}

// found answers every search with the same hits.
type found struct {
	*model.Model
	hits []vectord.Hit
}

func (f found) Search(context.Context, string, vectord.Query) ([]vectord.Hit, error) {
	return f.hits, nil
}

// BenchmarkQueryOverLoopback is what a query of 384 components costs beside the search itself, the client included.
func BenchmarkQueryOverLoopback(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := New(found{model.New(), make([]vectord.Hit, 10)}, Options{APIKey: "secret", Logger: slog.New(slog.DiscardHandler)})
	go func() { _ = s.Serve(ln) }()
	defer s.Shutdown(context.Background())
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	body := append(append([]byte(`{"limit":10,"query":`), floatsAsJSON(384)...), '}')
	request := fmt.Appendf(nil, "POST /collections/c/points/query HTTP/1.1\r\nHost: x\r\nApi-Key: secret\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	r := bufio.NewReader(c)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 200 {
			b.Fatal(resp.StatusCode, err)
		}
	}
}
