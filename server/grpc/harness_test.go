package grpcserver_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/server"
	grpcserver "github.com/vectord/vectord/server/grpc"
)

func p[T any](v T) *T { return &v }

// quiet is a logger for what a test provokes.
var quiet = slog.New(slog.DiscardHandler)

// serve serves e on a loopback port until the test ends, and returns the port.
func serve(t testing.TB, e grpcserver.Engine, o grpcserver.Options) int {
	t.Helper()
	if o.Logger == nil {
		o.Logger = quiet
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpcserver.New(e, o)
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

// dial returns the official client of the server at a port.
func dial(t testing.TB, port int, key string, options ...grpc.DialOption) *qdrant.Client {
	t.Helper()
	c, err := qdrant.NewClient(&qdrant.Config{Host: "127.0.0.1", Port: port, APIKey: key, PoolSize: 1, SkipCompatibilityCheck: true,
		GrpcOptions: options})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// harness is a node with both doors.
type harness struct {
	*testing.T
	c   *qdrant.Client
	url string // of the HTTP door
}

func start(t *testing.T) *harness {
	t.Helper()
	n, err := node.Open(node.Config{DataDir: t.TempDir(), Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	overHTTP := server.New(n.Engine(), server.Options{Logger: quiet})
	served := make(chan error, 1)
	go func() { served <- overHTTP.Serve(ln) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := overHTTP.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		<-served
	})
	return &harness{t, dial(t, serve(t, n.Engine(), grpcserver.Options{}), ""), "http://" + ln.Addr().String()}
}

// rest asks the HTTP door and returns the result.
func (h *harness) rest(method, path, body string) string {
	h.Helper()
	req, err := http.NewRequestWithContext(h.Context(), method, h.url+path, strings.NewReader(body))
	if err != nil {
		h.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.Fatal(err)
	}
	var answer struct{ Result json.RawMessage }
	if err := json.Unmarshal(text, &answer); err != nil || resp.StatusCode != http.StatusOK {
		h.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, text, err)
	}
	return string(answer.Result)
}

// ok fails the test unless err is nil.
func (h *harness) ok(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// must returns v, or ends the test.
func must[T any](h *harness) func(v T, err error) T {
	return func(v T, err error) T {
		h.Helper()
		if err != nil {
			h.Fatal(err)
		}
		return v
	}
}

// same compares a message with the one expected, as text.
func (h *harness) same(what string, got, want proto.Message) {
	h.Helper()
	if !proto.Equal(got, want) {
		h.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}

// refused checks the code of a refusal, and that its text says something.
func (h *harness) refused(err error, want codes.Code, text string) {
	h.Helper()
	if got := status.Code(err); got != want || !strings.Contains(err.Error(), text) {
		h.Errorf("%v, want %v with %q", err, want, text)
	}
}

// ids are those of hits.
func ids(hits []*qdrant.ScoredPoint) (out []uint64) {
	for _, h := range hits {
		out = append(out, h.GetId().GetNum())
	}
	return out
}

func timeOf(year int, month time.Month, day int) time.Time {
	return time.Date(year, month, day, 0, 0, 0, 0, time.UTC)
}
