package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
)

const (
	notLeader = `{"status":{"error":"no","code":"not_leader"}}`
	noCode    = `{"status":{"error":"no"}}`
)

// errRefused is what a dial says where nobody listens.
var errRefused = &net.OpError{Op: "dial", Err: errors.New("connection refused")}

// newClusterClient returns a client of servers a, b and c, each of which answers as f says by its name.
func newClusterClient(t *testing.T, o Options, f func(server string, r *http.Request) (*http.Response, error)) *Client {
	t.Helper()
	o.Servers = []string{"http://b", "http://c"}
	o.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) { return f(r.URL.Host, r) })}
	c, err := New("http://a", o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestFailover checks which failures of a server have another one asked, and when, and what the error says if none is.
func TestFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		upsert := func(c *Client) error {
			_, err := c.Upsert(context.Background(), "c", []vectord.Point{{Vectors: vectord.Unnamed([]float32{1})}}, vectord.WriteOptions{})
			return err
		}
		count := func(c *Client) error { _, err := c.Count(context.Background(), "c", nil); return err }
		create := func(c *Client) error {
			return c.CreateCollection(context.Background(), "c", vectord.DefaultCollectionConfig(2, vectord.Cosine))
		}
		// complete is a change without a key that may be repeated.
		complete := func(c *Client) error {
			_, err := c.CallTask(context.Background(), vectord.TaskCall{Kind: vectord.CallComplete})
			return err
		}
		type reply = func() (*http.Response, error)
		says := func(status int, body string, header ...string) reply {
			return func() (*http.Response, error) { return answer(status, body, header...), nil }
		}
		fails := func(err error) reply { return func() (*http.Response, error) { return nil, err } }
		ok := says(200, `{"result":{"operation_id":7,"status":"completed","count":1}}`)
		cut := fails(io.ErrUnexpectedEOF)
		down := fails(errRefused)

		f := func(name string, call func(*Client) error, wantAsked string, most time.Duration, wantStatus int, wantUnknown bool, replies ...reply) {
			t.Helper()
			asked, keys := "", map[string]bool{}
			c := newClusterClient(t, Options{Attempts: 7}, func(server string, r *http.Request) (*http.Response, error) {
				asked += server
				keys[r.Header.Get("Idempotency-Key")] = true
				return replies[min(len(asked), len(replies))-1]()
			})
			begin := time.Now()
			err := call(c)
			if failed := wantStatus != 200; (err != nil) != failed || failed && StatusOf(err) != wantStatus {
				t.Errorf("%s: %v, want status %d", name, err, wantStatus)
			}
			if errors.Is(err, ErrOutcomeUnknown) != wantUnknown {
				t.Errorf("%s: %v, want the outcome unknown: %t", name, err, wantUnknown)
			}
			if asked != wantAsked || len(keys) != 1 {
				t.Errorf("%s: asked %s under %d keys, want %s under 1", name, asked, len(keys), wantAsked)
			}
			if took := time.Since(begin); took > most {
				t.Errorf("%s: took %v, at most %v is right", name, took, most)
			}
		}
		const hop = 2 * hopPause
		f("first", upsert, "a", 0, 200, false, ok)
		f("down", upsert, "ab", hop, 200, false, down, ok)
		f("down twice", upsert, "abc", hop, 200, false, down, down, ok)
		f("all down", upsert, "abcabca", time.Second, 0, false, down)
		f("cut", upsert, "ab", hop, 200, false, cut, ok)
		f("all cut", upsert, "abcabca", time.Second, 0, true, cut)
		f("cut, then refused", upsert, "ab", hop, 404, true, cut, says(404, noCode))
		f("all without a leader", upsert, "abcabca", time.Second, 503, false, says(503, notLeader, "Retry-After", "30"))
		f("a leader at last", upsert, "abca", time.Second, 200, false, says(503, notLeader, "Retry-After", "30"), says(503, notLeader), down, ok)
		f("shutting down", upsert, "ab", hop, 200, false, says(503, noCode, "Retry-After", "30"), ok)
		f("overloaded", upsert, "ab", hop, 200, false, says(429, noCode, "Retry-After", "30"), ok)
		f("all overloaded", upsert, "abca", 4*time.Second, 200, false, says(429, noCode), says(429, noCode), says(429, noCode, "Retry-After", "3"), ok)
		f("cut off from the others", upsert, "ab", hop, 200, false, says(408, noCode), ok)
		f("a full queue is full elsewhere", upsert, "aa", 3*time.Second, 200, false, says(429, `{"status":{"error":"full","code":"queue_full","retry_after_ms":3000}}`), ok)
		f("a bad request", upsert, "a", 0, 400, false, says(400, noCode))
		f("an internal error", upsert, "a", 0, 500, true, says(500, noCode))

		f("a read, cut", count, "ab", hop, 200, false, cut, ok)
		f("a read, all cut", count, "abcabca", time.Second, 0, false, cut)
		f("a read, slow", count, "ab", hop, 200, false, says(408, noCode), ok)

		f("once, down", create, "ab", hop, 200, false, down, ok)
		f("once, without a leader", create, "ab", hop, 200, false, says(503, notLeader), ok)
		f("once, overloaded", create, "ab", hop, 200, false, says(429, noCode), ok)
		f("once, cut", create, "a", 0, 0, true, cut)
		f("once, shutting down", create, "a", 0, 503, true, says(503, noCode))
		f("once, slow", create, "a", 0, 408, true, says(408, noCode))
		f("once, taken", create, "a", 0, 409, false, says(409, noCode))

		f("a call of a task, cut", complete, "ab", hop, 200, false, cut, ok)
		f("a call of a task, cut, and then its lease is lost", complete, "ab", hop, 409, true, cut, says(409, noCode))
	})
}

// TestFailoverLastsAsLongAsTheContext checks that several servers are asked until the context ends, in bounded pauses.
func TestFailoverLastsAsLongAsTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 10 * time.Minute
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		asked := 0
		c := newClusterClient(t, Options{}, func(string, *http.Request) (*http.Response, error) {
			asked++
			return nil, errRefused
		})
		begin := time.Now()
		_, err := c.Count(ctx, "c", nil)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, new(*net.OpError)) {
			t.Errorf("%v, want the deadline and the last failure", err)
		}
		if took := time.Since(begin); took != patience {
			t.Errorf("returned after %v", took)
		}
		if rounds := asked / 3; rounds < int(patience/(backoffMax+2*hopPause)) || rounds > int(patience/(backoffMax/2))+10 {
			t.Errorf("asked %d times in %v", asked, patience)
		}
	})
}

// TestStaysWithTheServerThatAnswers checks that a server that failed is not asked again, however many requests it failed at once.
func TestStaysWithTheServerThatAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		asked := map[string]int{}
		c := newClusterClient(t, Options{}, func(server string, _ *http.Request) (*http.Response, error) {
			mu.Lock()
			asked[server]++
			mu.Unlock()
			time.Sleep(time.Millisecond) // all requests are on their way before the first has failed
			if server == "a" {
				return nil, errRefused
			}
			return answer(200, `{"result":{"count":1}}`), nil
		})
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				for range 3 {
					if _, err := c.Count(context.Background(), "c", nil); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if asked["a"] != 50 || asked["b"] != 150 || asked["c"] != 0 {
			t.Errorf("asked %v times", asked)
		}
	})
}

// TestHangingServer checks that a server that gives no sign of life is left, and one that is only slow is not.
func TestHangingServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = time.Minute
		f := func(name string, alive bool, wantAsked string, wantTook time.Duration) {
			t.Helper()
			asked, lives := "", 0
			c := newClusterClient(t, Options{}, func(server string, r *http.Request) (*http.Response, error) {
				if r.URL.Path == "/livez" {
					if lives++; alive || lives == 1 {
						return answer(503, "full"), nil
					}
					<-r.Context().Done()
					return nil, r.Context().Err()
				}
				asked += server
				if server == "a" {
					select {
					case <-r.Context().Done():
						return nil, r.Context().Err()
					case <-time.After(slow):
					}
				}
				return answer(200, `{"result":{"count":1}}`), nil
			})
			begin := time.Now()
			if _, err := c.Count(context.Background(), "c", nil); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(begin); asked != wantAsked || took < wantTook || took > wantTook+hopPause {
				t.Errorf("%s: asked %s for %v, want %s for %v", name, asked, took, wantAsked, wantTook)
			}
		}
		f("slow", true, "a", slow)
		f("hangs after its first sign of life", false, "ab", 2*hangsAfter+lifeSignWithin)

		c := newClusterClient(t, Options{Attempts: 1}, func(server string, r *http.Request) (*http.Response, error) {
			if server != "a" {
				return answer(200, updated), nil
			}
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		_, err := c.Upsert(context.Background(), "c", nil, vectord.WriteOptions{})
		if !errors.Is(err, ErrOutcomeUnknown) || !errors.Is(err, errHangs) {
			t.Errorf("a write at a server that hangs: %v", err)
		}
		if _, err := c.Upsert(context.Background(), "c", nil, vectord.WriteOptions{}); err != nil {
			t.Errorf("the next write, which goes elsewhere: %v", err)
		}
	})
}

// TestSession checks that the highest number of any answer goes with every request, and that answers without one are no matter.
func TestSession(t *testing.T) {
	var sent []string
	replies := []string{"7", "5", "", "x", "9", "18446744073709551615"}
	c := newClusterClient(t, Options{}, func(_ string, r *http.Request) (*http.Response, error) {
		sent = append(sent, r.Header.Get(sessionHeader))
		status := 200
		if len(sent) == 5 {
			status = 404 // a refusal says it as well
		}
		return answer(status, `{"result":{"count":1}}`, sessionHeader, replies[len(sent)-1]), nil
	})
	for range replies {
		_, _ = c.Count(t.Context(), "c", nil)
	}
	if want := []string{"", "7", "7", "7", "7", "9"}; !slices.Equal(sent, want) {
		t.Errorf("sent %q, want %q", sent, want)
	}
	if got := c.session.Load(); got != 1<<64-1 {
		t.Errorf("at the end the session is %d", got)
	}
}

// register is a cluster as a test needs it: servers that fail in every way over one set of values and the keys of their
// writes.
type register struct {
	mu     sync.Mutex // guards what is below
	random *rand.Rand
	log    []string          // values in the order in which they took effect
	done   map[string]uint64 // by key: how long the log was then
	known  map[string]uint64 // by server: how much of the log it has
}

// serve answers a request to a server, and fails as often as not.
func (g *register) serve(server string, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	refuse := func(status int, text string) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
	switch g.random.IntN(12) {
	case 0:
		panic(http.ErrAbortHandler) // before it had an effect
	case 1:
		refuse(503, notLeader)
		return
	case 2:
		refuse(429, noCode)
		return
	case 3:
		refuse(408, noCode)
		return
	case 4:
		g.write(r, body)
		panic(http.ErrAbortHandler) // after it
	case 5:
		g.write(r, body)
		refuse(503, noCode)
		return
	}
	session, _ := strconv.ParseUint(r.Header.Get(sessionHeader), 10, 64)
	at := max(session, g.known[server]) // a server that is behind what the client knows catches up first
	if r.Method == http.MethodPut {
		at = max(at, g.write(r, body))
	}
	g.known[server] = at
	w.Header().Set(sessionHeader, strconv.FormatUint(at, 10))
	fmt.Fprintf(w, `{"result":{"operation_id":%d,"status":"completed","count":%d}}`, at, at)
}

// write carries a write out unless that was done under its key before.
func (g *register) write(r *http.Request, body []byte) uint64 {
	if r.Method != http.MethodPut {
		return 0
	}
	key := r.Header.Get("Idempotency-Key")
	if _, ok := g.done[key]; !ok {
		g.log = append(g.log, string(body))
		g.done[key] = uint64(len(g.log))
	}
	return g.done[key]
}

// TestClusterThatFails writes and reads through servers that fail in every way: each write takes effect once, and nobody reads
// less than was there before.
func TestClusterThatFails(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := &register{random: rand.New(rand.NewPCG(seed, 0)), done: map[string]uint64{}, known: map[string]uint64{}}
	var addresses []string
	for i := range 3 {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(strconv.Itoa(i), w, r) }))
		defer server.Close()
		addresses = append(addresses, server.URL)
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = nobody.Close() // an address at which nobody answers
	addresses = append(addresses, "http://"+nobody.Addr().String())

	const writers, writes = 4, 12
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			c, err := New(addresses[w%len(addresses)], Options{Servers: addresses})
			if err != nil {
				t.Error(err)
				return
			}
			read := 0
			for i := range writes {
				u, err := c.Upsert(t.Context(), "c", []vectord.Point{{ID: vectord.NumberID(uint64(w*writes + i)), Vectors: vectord.Unnamed([]float32{1})}}, vectord.WriteOptions{})
				if err != nil {
					t.Errorf("write: %v", err)
					return
				}
				n, err := c.Count(t.Context(), "c", nil)
				if err != nil {
					t.Errorf("read: %v", err)
				}
				if n < read || n < int(u.OperationID) {
					t.Errorf("read %d after %d was read and %d was written", n, read, u.OperationID)
				}
				read = n
			}
		})
	}
	all.Wait()
	times := map[uint64]int{}
	for _, entry := range g.log {
		var body struct {
			Points []struct {
				ID uint64 `json:"id"`
			} `json:"points"`
		}
		if err := json.Unmarshal([]byte(entry), &body); err != nil {
			t.Fatal(err)
		}
		times[body.Points[0].ID]++
	}
	if len(times) != writers*writes || len(g.log) != len(times) {
		t.Errorf("%d writes took effect %d times: %v", writers*writes, len(g.log), slices.Sorted(maps.Values(times)))
	}
}

func TestNewRefusesServers(t *testing.T) {
	if _, err := New("http://a", Options{Servers: []string{"http://b", "c:1"}}); err == nil {
		t.Error("a server's URL without a scheme was taken")
	}
	if _, err := New("http://a", Options{Attempts: -1}); err == nil {
		t.Error("a negative number of attempts was taken")
	}
}
