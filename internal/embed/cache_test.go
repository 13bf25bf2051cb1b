package embed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vectord/vectord"
)

// counter gives each text its length as vector, and notes the calls.
type counter struct {
	mu    sync.Mutex
	calls [][]string
	hold  chan struct{} // calls wait for it to be closed
	fail  func(texts []string) error
}

func (c *counter) Name() string { return "counter" }
func (c *counter) Dim() int     { return 1 }

func (c *counter) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	c.mu.Lock()
	c.calls = append(c.calls, slices.Clone(texts))
	hold, fail := c.hold, c.fail
	c.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if fail != nil {
		if err := fail(texts); err != nil {
			return nil, err
		}
	}
	vectors := make([][]float32, len(texts))
	for i, text := range texts {
		vectors[i] = []float32{float32(len(text))}
	}
	return vectors, nil
}

func newCache(t testing.TB, behind Embedder, options CacheOptions) *Cache {
	t.Helper()
	c, err := NewCache(behind, options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCache(t *testing.T) {
	behind := &counter{}
	c := newCache(t, behind, CacheOptions{Entries: 2})
	f := func(asked []string, stats CacheStats, texts ...string) {
		t.Helper()
		calls := len(behind.calls)
		got, err := c.Embed(context.Background(), texts)
		if err != nil {
			t.Fatal(err)
		}
		for i, text := range texts {
			if !slices.Equal(got[i], []float32{float32(len(text))}) {
				t.Errorf("%q: %v", text, got[i])
			}
		}
		if got := slices.Concat(behind.calls[calls:]...); !slices.Equal(got, asked) {
			t.Errorf("asked for %q, want %q", got, asked)
		}
		if c.Stats() != stats {
			t.Errorf("%+v, want %+v", c.Stats(), stats)
		}
	}
	size := func(texts ...string) (n int) {
		for _, text := range texts {
			n += len(text) + 4 + cacheEntryBytes
		}
		return n
	}
	f([]string{"a", "bb"}, CacheStats{Misses: 2, Joined: 1, Entries: 2, Bytes: size("a", "bb")}, "a", "bb", "a")
	f(nil, CacheStats{Hits: 1, Misses: 2, Joined: 1, Entries: 2, Bytes: size("a", "bb")}, "a")
	f([]string{"ccc"}, CacheStats{Hits: 1, Misses: 3, Joined: 1, Evictions: 1, Entries: 2, Bytes: size("a", "ccc")}, "ccc")
	f([]string{"bb"}, CacheStats{Hits: 2, Misses: 4, Joined: 1, Evictions: 2, Entries: 2, Bytes: size("a", "bb")}, "a", "bb")
	f(nil, c.Stats())
	if c.Name() != "counter" || c.Dim() != 1 {
		t.Errorf("%s, %d", c.Name(), c.Dim())
	}
}

func TestCacheBoundsBytes(t *testing.T) {
	c := newCache(t, &counter{}, CacheOptions{Bytes: 1000})
	for i := range 100 {
		if _, err := c.Embed(context.Background(), []string{strings.Repeat("x", i)}); err != nil {
			t.Fatal(err)
		}
		if s := c.Stats(); s.Bytes > 1000 || s.Bytes == 0 {
			t.Fatalf("after %d texts: %+v", i, s)
		}
	}
	before := c.Stats()
	_, err := c.Embed(context.Background(), []string{strings.Repeat("x", 1000)})
	if err != nil || c.Stats().Entries != before.Entries {
		t.Errorf("a text beyond the bound: %+v, %v", c.Stats(), err)
	}
	if _, err := NewCache(&counter{}, CacheOptions{Bytes: -1}); vectord.KindOf(err) != vectord.KindInvalid {
		t.Errorf("-1 bytes: %v", err)
	}
}

func TestCacheForgetsAfterTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		behind := &counter{}
		c := newCache(t, behind, CacheOptions{TTL: 5 * time.Second})
		f := func(after time.Duration, calls int) {
			t.Helper()
			time.Sleep(after) // a bubble's own time
			if _, err := c.Embed(t.Context(), []string{"a"}); err != nil || len(behind.calls) != calls {
				t.Errorf("%d calls, want %d, %v", len(behind.calls), calls, err)
			}
		}
		f(0, 1)
		f(5*time.Second-1, 1)
		f(1, 2)
		f(4*time.Second, 2)
		f(time.Second, 3)
		if s := c.Stats(); s.Entries != 1 || s.Bytes != entryBytes("a", []float32{1}) {
			t.Errorf("%+v", s)
		}
	})
}

// embedding starts a call and returns what waits for its end.
func embedding(ctx context.Context, c *Cache, texts ...string) (wait func() ([][]float32, error)) {
	type result struct {
		vectors [][]float32
		err     error
	}
	done := make(chan result, 1)
	go func() {
		vectors, err := c.Embed(ctx, texts)
		done <- result{vectors, err}
	}()
	return func() ([][]float32, error) {
		r := <-done
		return r.vectors, r.err
	}
}

func TestCacheEmbedsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		behind := &counter{hold: make(chan struct{})}
		c := newCache(t, behind, CacheOptions{})
		var waits []func() ([][]float32, error)
		for _, texts := range [][]string{{"a", "bb"}, {"bb", "ccc"}, {"ccc", "a"}} {
			waits = append(waits, embedding(t.Context(), c, texts...))
			synctest.Wait()
		}
		close(behind.hold)
		for i, wait := range waits {
			if got, err := wait(); err != nil || len(got) != 2 || got[0] == nil || got[1] == nil {
				t.Errorf("call %d: %v, %v", i, got, err)
			}
		}
		if got := slices.Concat(behind.calls...); !slices.Equal(got, []string{"a", "bb", "ccc"}) {
			t.Errorf("asked for %q", got)
		}
		if s := c.Stats(); s.Misses != 3 || s.Joined != 3 || s.Hits != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestCacheFailuresOfOthers has a second call wait for one that fails, and checks when it tries for itself.
func TestCacheFailuresOfOthers(t *testing.T) {
	bad := &TextError{0, vectord.Errorf(vectord.KindUnprocessable, "is bad")}
	f := func(name string, fail error, again bool) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				behind := &counter{hold: make(chan struct{})}
				behind.fail = func(texts []string) error {
					if slices.Contains(texts, "bad") {
						return fail
					}
					return nil
				}
				c := newCache(t, behind, CacheOptions{})
				ctx, end := context.WithCancel(t.Context())
				defer end()
				first := embedding(ctx, c, "a", "bad")
				synctest.Wait()
				second := embedding(t.Context(), c, "a")
				synctest.Wait()
				behind.mu.Lock()
				hold := behind.hold
				behind.hold = nil
				behind.mu.Unlock()
				if fail == nil {
					end() // the first call's context
				} else {
					close(hold)
				}
				if _, err := first(); err == nil {
					t.Error("the first call succeeds")
				}
				got, err := second()
				if again != (err == nil) || again && !slices.Equal(got[0], []float32{1}) {
					t.Errorf("the second call: %v, %v", got, err)
				}
				if len(c.flights) != 0 {
					t.Errorf("%d texts are still on their way", len(c.flights))
				}
			})
		})
	}
	f("bad text", bad, true)
	f("cancelled", nil, true)
	f("overloaded", vectord.Errorf(vectord.KindOverloaded, "come back"), false)
	f("internal", errors.New("broken"), false)
}

func TestCachePlacesTextErrors(t *testing.T) {
	behind := &counter{}
	c := newCache(t, behind, CacheOptions{})
	if _, err := c.Embed(context.Background(), []string{"a", "bb"}); err != nil {
		t.Fatal(err)
	}
	behind.fail = func([]string) error { return &TextError{1, vectord.Errorf(vectord.KindUnprocessable, "is bad")} }
	_, err := c.Embed(context.Background(), []string{"a", "ccc", "bb", "bad"})
	var about *TextError
	if !errors.As(err, &about) || about.Place != 3 || vectord.KindOf(err) != vectord.KindUnprocessable {
		t.Errorf("%v, want text 3", err)
	}
}

func TestCacheOutlivesPanics(t *testing.T) {
	behind := &counter{fail: func([]string) error { panic("broken") }}
	c := newCache(t, behind, CacheOptions{})
	func() {
		defer func() { _ = recover() }()
		_, _ = c.Embed(context.Background(), []string{"a"})
		t.Error("no panic")
	}()
	behind.fail = nil
	if _, err := c.Embed(context.Background(), []string{"a"}); err != nil {
		t.Error(err)
	}
}

// TestCacheUnderConcurrency has many goroutines ask for few texts with little room, and checks every answer.
func TestCacheUnderConcurrency(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newCache(t, &counter{}, CacheOptions{Entries: 16})
	var group sync.WaitGroup
	for g := range 8 {
		group.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(g)))
			for range 500 {
				texts := make([]string, 1+random.IntN(4))
				for i := range texts {
					texts[i] = strings.Repeat("x", 1+random.IntN(40))
				}
				got, err := c.Embed(context.Background(), texts)
				if err != nil {
					t.Error(err)
					return
				}
				for i, text := range texts {
					if int(got[i][0]) != len(text) {
						t.Errorf("%d for %d", int(got[i][0]), len(text))
					}
				}
			}
		})
	}
	group.Wait()
	if s := c.Stats(); s.Entries > 16 || len(c.flights) != 0 {
		t.Errorf("%+v, %d on their way", s, len(c.flights))
	}
}

// zipf draws texts by Zipf's law with exponent 1, which rand.Zipf does not offer.
type zipf struct {
	random *rand.Rand
	sums   []float64
}

func newZipf(texts int, seed uint64) *zipf {
	z := &zipf{rand.New(rand.NewPCG(seed, 0)), make([]float64, texts)}
	sum := 0.0
	for i := range z.sums {
		sum += 1 / float64(i+1)
		z.sums[i] = sum
	}
	return z
}

func (z *zipf) next() int {
	x := z.random.Float64() * z.sums[len(z.sums)-1]
	return min(sort.SearchFloat64s(z.sums, x), len(z.sums)-1)
}

// TestCacheUnderZipf checks the hit rates that docs/decisions/embedding-static.md states.
func TestCacheUnderZipf(t *testing.T) {
	f := func(texts int, want float64) {
		t.Helper()
		c, z := newCache(t, &counter{}, CacheOptions{}), newZipf(texts, 1)
		names := make([]string, texts)
		for i := range names {
			names[i] = fmt.Sprint(i)
		}
		var before CacheStats
		const draws = 200_000
		for i := range 2 * draws {
			if i == draws {
				before = c.Stats() // warm
			}
			if _, err := c.Embed(context.Background(), names[z.next():][:1]); err != nil {
				t.Fatal(err)
			}
		}
		if got := float64(c.Stats().Hits-before.Hits) / draws; math.Abs(got-want) > 0.01 {
			t.Errorf("%d texts: %.3f hits, want %.3f", texts, got, want)
		}
	}
	f(20_000, 0.904)
	f(100_000, 0.735)
}

func BenchmarkCache(b *testing.B) {
	c := newCache(b, MiniLM(), CacheOptions{})
	b.Run("hit", func(b *testing.B) {
		texts := []string{passage}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Embed(context.Background(), texts); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("miss", func(b *testing.B) {
		i := 0
		b.ReportAllocs()
		for b.Loop() {
			i++
			if _, err := c.Embed(context.Background(), []string{fmt.Sprint(passage, i)}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
