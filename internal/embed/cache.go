package embed

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/vectord/vectord"
)

// CacheOptions bound a cache.
type CacheOptions struct {
	Entries int           // texts that are kept; 0: 10,000
	Bytes   int           // of texts and vectors and what it takes to keep them; 0: 64 MiB
	TTL     time.Duration // how long a vector is good for; 0: as long as it is kept
}

// cacheEntryBytes is what an entry takes beside its text and components: a map's and a list's element.
const cacheEntryBytes = 200

// Cache keeps the vectors of the texts that were asked for last, and has a text that several callers ask for at the same
// time embedded once. Its answers are those of the Embedder behind it.
type Cache struct {
	behind  Embedder
	options CacheOptions

	mu      sync.Mutex // guards what is below
	entries *simplelru.LRU[string, cacheEntry]
	flights map[string]*flight // texts that are being embedded
	stats   CacheStats
}

type cacheEntry struct {
	vector []float32
	until  time.Time // zero: for ever
}

// flight is a text on its way through the Embedder. The other fields are set before done is closed.
type flight struct {
	done   chan struct{}
	vector []float32
	err    error
}

// CacheStats count what a cache has done since it was made, in texts, and what it holds.
type CacheStats struct {
	Hits, Misses uint64
	Joined       uint64 // neither: the text was on its way for another caller, or twice in one call
	Evictions    uint64 // for the sake of Entries and Bytes
	Entries      int
	Bytes        int
}

// NewCache puts a cache before an Embedder.
func NewCache(behind Embedder, options CacheOptions) (*Cache, error) {
	options.Entries = orDefault(options.Entries, 10_000)
	options.Bytes = orDefault(options.Bytes, 64<<20)
	if options.Entries < 0 || options.Bytes < 0 || options.TTL < 0 {
		return nil, vectord.Errorf(vectord.KindInvalid, "embedding cache: %d entries, %d bytes and %v to live must not be negative",
			options.Entries, options.Bytes, options.TTL)
	}
	c := &Cache{behind: behind, options: options, flights: make(map[string]*flight)}
	var err error
	c.entries, err = simplelru.NewLRU(options.Entries, func(text string, e cacheEntry) { c.stats.Bytes -= entryBytes(text, e.vector) })
	return c, err
}

func entryBytes(text string, vector []float32) int {
	return len(text) + 4*len(vector) + cacheEntryBytes
}

// Name returns the name of the model behind the cache.
func (c *Cache) Name() string { return c.behind.Name() }

// Dim returns the number of components.
func (c *Cache) Dim() int { return c.behind.Dim() }

// Stats returns what the cache has done so far.
func (c *Cache) Stats() CacheStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	stats := c.stats
	stats.Entries = c.entries.Len()
	return stats
}

// Embed returns the vectors of texts, which are shared: nobody changes them. Texts that are neither kept nor on their way
// go to the Embedder in one call, each once. A call that failed for reasons of its own, be it another of its texts or
// the end of its context, does not fail those who waited for it.
func (c *Cache) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	vectors := make([][]float32, len(texts))
	for {
		own, err := c.round(ctx, texts, vectors)
		if err == nil {
			return vectors, nil
		}
		if own || ctx.Err() != nil || !ofThatCallOnly(err) {
			return nil, err
		}
	}
}

// ofThatCallOnly tells failures of one call from those of the model, which would be the next one's as well.
func ofThatCallOnly(err error) bool {
	switch vectord.KindOf(err) {
	case vectord.KindTimeout, vectord.KindUnprocessable, vectord.KindTooLarge:
		return true
	}
	return false
}

// round fills in the vectors that are missing. If it fails, own says whether by the call that it made itself. Each round of
// a call that fails otherwise has waited for a call that has ended, so there are no more rounds than such calls.
func (c *Cache) round(ctx context.Context, texts []string, vectors [][]float32) (own bool, err error) {
	var (
		mine    []string
		places  []int     // of mine among texts
		flown   []*flight // by mine
		waiting = make(map[int]*flight)
	)
	c.mu.Lock()
	now := time.Now()
	for i, text := range texts {
		if vectors[i] != nil {
			continue
		}
		if v := c.get(text, now); v != nil {
			vectors[i] = v
			c.stats.Hits++
			continue
		}
		f := c.flights[text]
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.flights[text] = f
			mine, places, flown = append(mine, text), append(places, i), append(flown, f)
			c.stats.Misses++
		} else {
			c.stats.Joined++
		}
		waiting[i] = f
	}
	c.mu.Unlock()
	if len(mine) > 0 {
		err := c.fly(ctx, mine, flown)
		var about *TextError
		if errors.As(err, &about) {
			err = &TextError{places[about.Place], about.Err}
		}
		if err != nil {
			return true, err
		}
	}
	for i, f := range waiting {
		select {
		case <-f.done:
		case <-ctx.Done():
			return false, ctx.Err()
		}
		if f.err != nil {
			return false, f.err
		}
		vectors[i] = f.vector
	}
	return false, nil
}

// get returns the vector of a text that is kept and still good, or nil. c.mu is held.
func (c *Cache) get(text string, now time.Time) []float32 {
	e, ok := c.entries.Get(text)
	if !ok {
		return nil
	}
	if !e.until.IsZero() && !now.Before(e.until) {
		c.entries.Remove(text)
		return nil
	}
	return e.vector
}

// fly has texts embedded and lets those know who wait for them, also if the Embedder panics.
func (c *Cache) fly(ctx context.Context, texts []string, flights []*flight) error {
	var vectors [][]float32
	err := vectord.Errorf(vectord.KindInternal, "model %q ended without an answer", c.behind.Name())
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for i, text := range texts {
			delete(c.flights, text)
			if err == nil {
				flights[i].vector = vectors[i]
				c.add(text, vectors[i])
			}
			flights[i].err = err
			close(flights[i].done)
		}
	}()
	vectors, err = c.behind.Embed(ctx, texts)
	if err == nil && len(vectors) != len(texts) {
		err = vectord.Errorf(vectord.KindInternal, "model %q made %d vectors of %d texts", c.behind.Name(), len(vectors), len(texts))
	}
	return err
}

// add keeps a vector and lets go of the oldest to make room. c.mu is held.
func (c *Cache) add(text string, vector []float32) {
	size := entryBytes(text, vector)
	if size > c.options.Bytes {
		return
	}
	e := cacheEntry{vector: vector}
	if c.options.TTL > 0 {
		e.until = time.Now().Add(c.options.TTL)
	}
	c.stats.Bytes += size
	if c.entries.Add(strings.Clone(text), e) { // the text may be a part of a request's body
		c.stats.Evictions++
	}
	for c.stats.Bytes > c.options.Bytes {
		c.entries.RemoveOldest()
		c.stats.Evictions++
	}
}
