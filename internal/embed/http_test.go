package embed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
)

// standIn is an endpoint for one test. It gives the text "n" the vector (n, its place in the request), last one first.
func standIn(t *testing.T, seen func(r *http.Request, texts []string)) *httptest.Server {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var request struct {
			Model  string
			Input  []string
			Format string `json:"encoding_format"`
		}
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || request.Model != "m" || request.Format != "float" {
			t.Errorf("request %+v, %v", request, err)
		}
		if seen != nil {
			seen(r, request.Input)
		}
		var data []string
		for i, text := range request.Input {
			data = append(data, fmt.Sprintf(`{"object":"embedding","index":%d,"embedding":[%s,%d]}`, i, text, i))
		}
		slices.Reverse(data)
		fmt.Fprintf(w, `{"object":"list","model":"m","usage":{"total_tokens":1},"data":[%s]}`, strings.Join(data, ","))
	}))
	t.Cleanup(server.Close)
	return server
}

func open(t *testing.T, options HTTPOptions) *HTTP {
	t.Helper()
	options.Logger = slog.New(slog.DiscardHandler)
	options.Model, options.Dim = orDefault(options.Model, "m"), orDefault(options.Dim, 2)
	h, err := NewHTTP(options)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestHTTPEmbedsInBatches(t *testing.T) {
	var sizes []int
	server := standIn(t, func(r *http.Request, texts []string) {
		sizes = append(sizes, len(texts))
		if got := r.Header.Get("Authorization"); got != "Bearer secret" {
			t.Errorf("Authorization: %q", got)
		}
	})
	h := open(t, HTTPOptions{URL: server.URL + "/v1/embeddings", Name: "named", Key: "secret", Texts: 3})
	got, err := h.Embed(context.Background(), []string{"5", "6", "7", "8"})
	want := [][]float32{{5, 0}, {6, 1}, {7, 2}, {8, 0}}
	if err != nil || !slices.EqualFunc(got, want, slices.Equal[[]float32]) || !slices.Equal(sizes, []int{3, 1}) {
		t.Errorf("%v in batches of %v, %v", got, sizes, err)
	}
	if h.Name() != "named" || h.Dim() != 2 {
		t.Errorf("%s, %d", h.Name(), h.Dim())
	}
	if got, err := h.Embed(context.Background(), nil); err != nil || len(got) != 0 {
		t.Errorf("no texts: %v, %v", got, err)
	}
	var about *TextError
	if _, err := h.Embed(context.Background(), []string{"5", ""}); !errors.As(err, &about) || about.Place != 1 {
		t.Errorf("an empty text: %v", err)
	}
	if len(sizes) != 2 {
		t.Errorf("%d requests", len(sizes))
	}
}

func TestHTTPAsksForDimensions(t *testing.T) {
	f := func(options HTTPOptions, want string) {
		t.Helper()
		h := open(t, options)
		h.client.Transport = answers(func(r *http.Request) (*http.Response, error) {
			body, _ := io.ReadAll(r.Body)
			if string(body) != want {
				t.Errorf("%s, want %s", body, want)
			}
			return answer(200, `{"data":[{"index":0,"embedding":[1,0]}]}`), nil
		})
		if _, err := h.Embed(context.Background(), []string{"a"}); err != nil {
			t.Error(err)
		}
	}
	f(HTTPOptions{URL: "http://x/"}, `{"model":"m","input":["a"],"encoding_format":"float"}`)
	f(HTTPOptions{URL: "http://x/", SendDim: true}, `{"model":"m","input":["a"],"encoding_format":"float","dimensions":2}`)
}

type answers func(r *http.Request) (*http.Response, error)

func (f answers) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Status: fmt.Sprint(status, " ", http.StatusText(status)), Header: http.Header{},
		Body: io.NopCloser(strings.NewReader(body))}
}

const fine = `{"data":[{"index":0,"embedding":[1,0]}]}`

const ok = vectord.Kind(255) // no error, for KindInternal is 0

// TestHTTPRetries plays answers of an endpoint in a time of their own, and checks when it is asked.
func TestHTTPRetries(t *testing.T) {
	status := func(status int, header string) func() (*http.Response, error) {
		return func() (*http.Response, error) {
			r := answer(status, fine)
			if header != "" {
				r.Header.Set("Retry-After", header)
			}
			return r, nil
		}
	}
	lost := func() (*http.Response, error) { return nil, errors.New("connection refused") }
	f := func(name string, script []func() (*http.Response, error), kind vectord.Kind, least, most time.Duration) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, start, calls := open(t, HTTPOptions{URL: "http://x/"}), time.Now(), 0
				h.client.Transport = answers(func(*http.Request) (*http.Response, error) {
					calls++
					return script[calls-1]()
				})
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				got, err := h.Embed(ctx, []string{"a"})
				if calls != len(script) || (err == nil) != (got != nil) ||
					(err == nil) != (kind == ok) || err != nil && vectord.KindOf(err) != kind {
					t.Errorf("%d calls, %v, %v", calls, got, err)
				}
				if took := time.Since(start); took < least || took > most {
					t.Errorf("%v, want %v to %v", took, least, most)
				}
				var e *vectord.Error
				if errors.As(err, &e) && e.Kind == vectord.KindOverloaded && e.RetryAfter <= 0 {
					t.Errorf("%v says not when to come back", err)
				}
			})
		})
	}
	type script = []func() (*http.Response, error)
	ms := time.Millisecond
	f("at once", script{status(200, "")}, ok, 0, 0)
	f("doubling", script{lost, status(503, ""), status(429, ""), status(200, "")}, ok, 875*ms, 1750*ms)
	f("gives up", script{lost, lost, lost, lost}, vectord.KindOverloaded, 875*ms, 1750*ms)
	f("retry after", script{status(429, "7"), status(200, "")}, ok, 7*time.Second, 7*time.Second)
	// A bubble's time begins at this date.
	f("retry after a date", script{status(503, "Sat, 01 Jan 2000 00:00:09 GMT"), status(200, "")}, ok, 9*time.Second, 9*time.Second)
	f("retry after a date that has passed", script{status(503, "Sat, 01 Jan 1999 00:00:09 GMT"), status(200, "")}, ok, 125*ms, 250*ms)
	f("retry after nonsense", script{status(503, "soon"), status(200, "")}, ok, 125*ms, 250*ms)
	f("retry much later", script{status(429, "31")}, vectord.KindOverloaded, 0, 0)
	f("beyond the deadline", script{status(429, "25"), status(429, "25"), status(429, "25")}, vectord.KindOverloaded,
		50*time.Second, 50*time.Second)
	f("key", script{status(401, "")}, vectord.KindInternal, 0, 0)
	f("text", script{status(400, "")}, vectord.KindUnprocessable, 0, 0)
	f("not found", script{status(404, "")}, vectord.KindInternal, 0, 0)
}

func TestHTTPEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := open(t, HTTPOptions{URL: "http://x/"})
		ctx, cancel := context.WithCancel(context.Background())
		h.client.Transport = answers(func(r *http.Request) (*http.Response, error) {
			cancel()
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		if _, err := h.Embed(ctx, []string{"a"}); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestHTTPTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, start := open(t, HTTPOptions{URL: "http://x/", Timeout: 2 * time.Second, Attempts: 1}), time.Now()
		h.client.Transport = answers(func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		_, err := h.Embed(context.Background(), []string{"a"})
		if vectord.KindOf(err) != vectord.KindOverloaded || time.Since(start) != 2*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestHTTPRefusesAnswers(t *testing.T) {
	f := func(want, body string) {
		t.Helper()
		h := open(t, HTTPOptions{URL: "http://x/", Attempts: 1})
		h.client.Transport = answers(func(*http.Request) (*http.Response, error) { return answer(200, body), nil })
		_, err := h.Embed(context.Background(), []string{"a", "b"})
		if vectord.KindOf(err) != vectord.KindInternal || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: %v, want %q in it", body, err, want)
		}
	}
	f("1 vectors for 2 texts", fine)
	f("two vectors for index 0", `{"data":[{"index":0,"embedding":[1,0]},{"index":0,"embedding":[1,0]}]}`)
	f("index 2 among 2", `{"data":[{"index":0,"embedding":[1,0]},{"index":2,"embedding":[1,0]}]}`)
	f("index -1 among 2", `{"data":[{"index":0,"embedding":[1,0]},{"index":-1,"embedding":[1,0]}]}`)
	f("3 components, not 2", `{"data":[{"index":0,"embedding":[1,0,0]},{"index":1,"embedding":[1,0]}]}`)
	f("answer", `{"data":[{"index":0,"embedding":[1e39,0]},{"index":1,"embedding":[1,0]}]}`)
	f("answer", `{"data":[{"index":0,"embedding":["1",0]},{"index":1,"embedding":[1,0]}]}`)
	f("answer", `{"data":`)
	f("longer than", `{"data":[`+strings.Repeat(" ", httpAnswerBytes+2*2*httpComponentBytes))
}

// TestHTTPBoundsAnswers counts what is read of an answer that does not end by itself.
func TestHTTPBoundsAnswers(t *testing.T) {
	h, body := open(t, HTTPOptions{URL: "http://x/"}), &spaces{left: 64 << 20}
	h.client.Transport = answers(func(*http.Request) (*http.Response, error) {
		r := answer(200, "")
		r.Body = io.NopCloser(body)
		return r, nil
	})
	_, err := h.Embed(context.Background(), []string{"a"})
	if read := 64<<20 - body.left; vectord.KindOf(err) != vectord.KindInternal || read > httpAnswerBytes+2*httpComponentBytes+1 {
		t.Errorf("%d bytes were read, %v", read, err)
	}
}

type spaces struct{ left int }

func (s *spaces) Read(p []byte) (int, error) {
	n := min(len(p), s.left)
	s.left -= n
	if n == 0 {
		return 0, io.EOF
	}
	copy(p, bytes.Repeat([]byte(" "), n))
	return n, nil
}

// TestHTTPShowsLittle checks that clients are told what concerns their text, and nothing of keys and hosts.
func TestHTTPShowsLittle(t *testing.T) {
	f := func(status int, want string) {
		t.Helper()
		h := open(t, HTTPOptions{URL: "http://inner.example/", Attempts: 1})
		h.client.Transport = answers(func(*http.Request) (*http.Response, error) {
			if status == 0 {
				return nil, errors.New("dial tcp 10.0.0.1:80: refused")
			}
			return answer(status, `{"error":{"message":"key sk-1: `+strings.Repeat("x", 500)+`"}}`), nil
		})
		if _, err := h.Embed(context.Background(), []string{"a"}); fmt.Sprint(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	f(401, `model "m": the embedding endpoint answers 401 Unauthorized`)
	f(500, `model "m": the embedding endpoint answers 500 Internal Server Error, after attempt 1`)
	f(400, `model "m": the embedding endpoint answers 400 Bad Request: key sk-1: `+strings.Repeat("x", 190)+"…")
	f(0, `model "m": the embedding endpoint cannot be reached, after attempt 1`)
}

func TestHTTPRedirects(t *testing.T) {
	var asked atomic.Int32
	server := standIn(t, func(*http.Request, []string) { asked.Add(1) })
	redirect := func(to func(r *http.Request) string, status int) *HTTP {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/there" {
				io.Copy(io.Discard, r.Body)
				io.WriteString(w, fine)
				return
			}
			http.Redirect(w, r, to(r), status)
		}))
		t.Cleanup(other.Close)
		return open(t, HTTPOptions{URL: other.URL + "/v1/embeddings"})
	}
	f := func(want string, to func(r *http.Request) string, status int) {
		t.Helper()
		_, err := redirect(to, status).Embed(context.Background(), []string{"1"})
		refused := vectord.KindOf(err) == vectord.KindInternal && strings.Contains(fmt.Sprint(err), want)
		if want == "" && err != nil || want != "" && !refused {
			t.Errorf("%v, want %q", err, want)
		}
	}
	f("", func(*http.Request) string { return "/there" }, http.StatusTemporaryRedirect)
	f("to another host", func(*http.Request) string { return server.URL }, http.StatusTemporaryRedirect)
	f("to another host", func(r *http.Request) string { return "https://" + r.Host + "/there" }, http.StatusTemporaryRedirect)
	f("turns POST into GET", func(*http.Request) string { return "/there" }, http.StatusFound)
	f("more than 3 in a row", func(r *http.Request) string { return r.URL.Path + "x" }, http.StatusPermanentRedirect)
	if asked.Load() != 0 {
		t.Error("another host was asked")
	}
}

func TestNewHTTPRefuses(t *testing.T) {
	f := func(want string, change func(o *HTTPOptions)) {
		t.Helper()
		o := HTTPOptions{URL: "https://user.example/v1/embeddings", Model: "m", Dim: 2}
		change(&o)
		if _, err := NewHTTP(o); vectord.KindOf(err) != vectord.KindInvalid || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%+v: %v, want %q in it", o, err, want)
		}
	}
	f("no http or https URL", func(o *HTTPOptions) { o.URL = "" })
	f("no http or https URL", func(o *HTTPOptions) { o.URL = "file:///etc/passwd" })
	f("own setting", func(o *HTTPOptions) { o.URL = "https://me:secret@x/" })
	f("no model", func(o *HTTPOptions) { o.Model = "" })
	f("0 components", func(o *HTTPOptions) { o.Dim = 0 })
	f("texts a request", func(o *HTTPOptions) { o.Texts = httpTextsMax + 1 })
	f("timeout", func(o *HTTPOptions) { o.Timeout = -1 })
	f("attempts", func(o *HTTPOptions) { o.Attempts = httpAttemptsMax + 1 })
	if _, err := NewHTTP(HTTPOptions{URL: "https://me:secret@x/", Model: "m", Dim: 2}); strings.Contains(fmt.Sprint(err), "secret") {
		t.Errorf("%v shows the key", err)
	}
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add([]byte(fine), uint8(1), uint8(2))
	f.Add([]byte(`{"data":[{"index":1,"embedding":[1]},{"index":0,"embedding":[-1e-9]}]}`), uint8(2), uint8(1))
	f.Fuzz(func(t *testing.T, answer []byte, texts, dim uint8) {
		vectors, err := decodeAnswer(bytes.Clone(answer), int(texts), int(dim))
		if err != nil {
			return
		}
		if len(vectors) != int(texts) || slices.ContainsFunc(vectors, func(v []float32) bool { return len(v) != int(dim) }) {
			t.Errorf("%v for %d texts of %d components", vectors, texts, dim)
		}
	})
}
