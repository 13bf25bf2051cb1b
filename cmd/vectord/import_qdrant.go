package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/client"
)

const (
	// migrationPageBytes is the size of a page of points above which the next one has half as many. A page that is longer is
	// written in pieces of this size, for bodies of requests are bounded.
	migrationPageBytes = 16 << 20

	// migrationSample is how many points of a collection are compared at the end, and sampleRequest how many at a time.
	migrationSample = 100
	sampleRequest   = 20

	// vectorTolerance is by how much a component may differ, of components from -1 to 1 absolutely and of larger ones relatively:
	// a vector of a Cosine collection is normalized once more when it is written.
	vectorTolerance = 1e-5

	migrationStateVersion  = 1
	migrationStateBytesMax = 64 << 20
)

// migration copies collections from a server with Qdrant's REST API to a vectord. It is a series of steps, each of which may
// be repeated, so that one that was interrupted goes on anywhere.
type migration struct {
	source, target *client.Client
	page           int // points read at a time
	state          *migrationState
	stdout, stderr io.Writer
	bar            *progress
}

// migrate is Run with --from-qdrant.
func (c *importCmd) migrate(s *session) error {
	target, err := c.client(importAttempts)
	if err != nil {
		return err
	}
	key, err := secret("from-api-key", c.FromAPIKey, c.FromAPIKeyFile)
	if err != nil {
		return err
	}
	source, err := client.New(c.FromQdrant, client.Options{APIKey: key, Attempts: importAttempts})
	if err != nil {
		return fmt.Errorf("--from-qdrant: %w", err)
	}
	state, err := c.openMigration()
	if err != nil {
		return err
	}
	m := &migration{source: source, target: target, page: c.Batch, state: state, stdout: s.stdout, stderr: s.stderr, bar: newProgress(s.stderr)}
	if err := m.run(s.ctx, c.Collection); err != nil {
		m.bar.clear()
		if saveErr := state.save(); saveErr != nil {
			return fmt.Errorf("%w (the progress could not be kept: %w)", err, saveErr)
		}
		return fmt.Errorf("%w (the same command with --resume goes on; the progress is in %s)", err, state.path)
	}
	return state.remove()
}

// run copies the collection of a name, or all of them.
func (m *migration) run(ctx context.Context, only string) error {
	var list struct {
		Collections []struct {
			Name string `json:"name"`
		} `json:"collections"`
	}
	if err := m.source.Call(ctx, http.MethodGet, "/collections", nil, &list); err != nil {
		return fmt.Errorf("list the collections of the source: %w", err)
	}
	var names []string
	for _, c := range list.Collections {
		if only == "" || c.Name == only {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 && only != "" {
		return fmt.Errorf("the source has no collection %q", only)
	}
	for _, name := range names {
		if err := m.collection(ctx, name); err != nil {
			return fmt.Errorf("collection %q: %w", name, err)
		}
	}
	return m.aliases(ctx, names)
}

// migratedCollection is how far a collection is.
type migratedCollection struct {
	Begun  bool              `json:"begun"` // it is the target's because we made it
	Next   json.RawMessage   `json:"next"`  // id of the first point to read, null for the first of all
	Points uint64            `json:"points"`
	Copied bool              `json:"copied"` // all points
	Done   bool              `json:"done"`   // and compared
	Sample []json.RawMessage `json:"sample"` // ids to compare, each of the points so far being as likely among them as any other
}

func collectionPath(name, rest string) string { return "/collections/" + url.PathEscape(name) + rest }

// sourceCollection is what of the source's answer about a collection is taken over.
type sourceCollection struct {
	Config struct {
		Params       map[string]json.RawMessage `json:"params"`
		HNSW         map[string]json.RawMessage `json:"hnsw_config"`
		Optimizer    json.RawMessage            `json:"optimizer_config"`
		WAL          json.RawMessage            `json:"wal_config"`
		Quantization json.RawMessage            `json:"quantization_config"`
		StrictMode   json.RawMessage            `json:"strict_mode_config"`
		Metadata     json.RawMessage            `json:"metadata"`
	} `json:"config"`
	Fields map[string]struct {
		Type   json.RawMessage `json:"data_type"`
		Params json.RawMessage `json:"params"`
	} `json:"payload_schema"`
}

func (m *migration) collection(ctx context.Context, name string) error {
	progress := m.state.Collections[name]
	if progress == nil {
		progress = &migratedCollection{Next: json.RawMessage("null")}
		m.state.Collections[name] = progress
	}
	if progress.Done {
		fmt.Fprintf(m.stdout, "collection %q: %d points, done before\n", name, progress.Points)
		return nil
	}
	var source sourceCollection
	if err := m.source.Call(ctx, http.MethodGet, collectionPath(name, ""), nil, &source); err != nil {
		return err
	}
	if err := m.create(ctx, name, &source, progress); err != nil {
		return err
	}
	limit, err := m.pageOf(source.Config.StrictMode)
	if err != nil {
		return err
	}
	if !progress.Copied {
		if err := m.copy(ctx, name, limit, progress); err != nil {
			return err
		}
	}
	compared, err := m.compare(ctx, name, limit, progress)
	if err != nil {
		return err
	}
	if given(source.Config.StrictMode) { // last, for its limits may be too narrow for copying
		if err := m.send(ctx, http.MethodPatch, collectionPath(name, ""), map[string]any{"strict_mode_config": source.Config.StrictMode}, nil); err != nil {
			return fmt.Errorf("set the strict mode: %w", err)
		}
	}
	progress.Done = true
	if err := m.state.save(); err != nil {
		return err
	}
	m.bar.clear()
	fmt.Fprintf(m.stdout, "collection %q: %d points copied, counts agree, %d of them compared\n", name, progress.Points, compared)
	return nil
}

// pageOf returns how many points are read at a time from a collection of this strict mode.
func (m *migration) pageOf(strictMode json.RawMessage) (int, error) {
	var strict struct {
		Enabled       bool `json:"enabled"`
		MaxQueryLimit int  `json:"max_query_limit"`
	}
	if given(strictMode) {
		if err := json.Unmarshal(strictMode, &strict); err != nil {
			return 0, fmt.Errorf("strict_mode_config: %w", err)
		}
	}
	if strict.Enabled && strict.MaxQueryLimit > 0 {
		return min(m.page, strict.MaxQueryLimit), nil
	}
	return m.page, nil
}

// create makes the collection and its payload indexes. One that is there is used as it is if it is empty.
func (m *migration) create(ctx context.Context, name string, source *sourceCollection, progress *migratedCollection) error {
	if !progress.Begun {
		var answer struct {
			Exists bool `json:"exists"`
		}
		if err := m.target.Call(ctx, http.MethodGet, collectionPath(name, "/exists"), nil, &answer); err != nil {
			return err
		}
		if answer.Exists {
			n, err := m.target.Count(ctx, name, nil)
			if err != nil {
				return err
			}
			if n > 0 {
				return fmt.Errorf("the target has it already, with %d points: delete it there, or go on with --resume", n)
			}
		} else if err := m.send(ctx, http.MethodPut, collectionPath(name, ""), settingsOf(source), nil); err != nil {
			return fmt.Errorf("create it (or create it yourself, an empty one is used as it is): %w", err)
		}
		progress.Begun = true
		if err := m.state.save(); err != nil {
			return err
		}
	}
	if string(source.Config.Params["sharding_method"]) == `"custom"` {
		fmt.Fprintf(m.stderr, "collection %q: its points have shard keys, which are not taken over\n", name)
	}
	for _, field := range slices.Sorted(maps.Keys(source.Fields)) {
		schema := source.Fields[field].Type
		if given(source.Fields[field].Params) {
			schema = source.Fields[field].Params
		}
		body := map[string]any{"field_name": field, "field_schema": schema}
		if err := m.send(ctx, http.MethodPut, collectionPath(name, "/index?wait=true"), body, nil); err != nil {
			return fmt.Errorf("payload index on %q: %w", field, err)
		}
	}
	return nil
}

// settingsOf returns the body that creates a collection like the source's. What Qdrant has and vectord does not know is ignored
// by it, or refused if it would change what searches find.
func settingsOf(source *sourceCollection) map[string]any {
	c := &source.Config
	body := map[string]any{}
	set := func(name string, value json.RawMessage) {
		if given(value) {
			body[name] = value
		}
	}
	for _, name := range []string{"vectors", "sparse_vectors", "shard_number", "on_disk_payload"} {
		set(name, c.Params[name])
	}
	if len(c.HNSW) > 0 {
		body["hnsw_config"] = c.HNSW
	}
	set("optimizers_config", c.Optimizer)
	set("wal_config", c.WAL)
	set("quantization_config", c.Quantization)
	set("metadata", c.Metadata)
	if _, own := c.HNSW["recall_target"]; own && !given(c.Quantization) {
		body["quantization_config"] = json.RawMessage(vectord.QuantizationDisabled) // which a vectord shows as null
	}
	return body
}

func given(v json.RawMessage) bool { return len(v) > 0 && string(v) != "null" }

// send makes a request to the target.
func (m *migration) send(ctx context.Context, method, path string, body, result any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return m.target.Call(ctx, method, path, b, result)
}

// sourcePoint is a point as it is read, and written.
type sourcePoint struct {
	ID      json.RawMessage `json:"id"`
	Vector  json.RawMessage `json:"vector,omitempty"`
	Payload json.RawMessage `json:"payload,omitempty"`
	Expires json.RawMessage `json:"expires_at,omitempty"`
}

func (p *sourcePoint) size() int {
	return len(p.ID) + len(p.Vector) + len(p.Payload) + len(p.Expires) + len(`{"id":,"vector":,"payload":,"expires_at":},`)
}

type sourcePage struct {
	Points []sourcePoint   `json:"points"`
	Next   json.RawMessage `json:"next_page_offset"`
}

// copy copies the points from where the progress is. One page is read while the one before it is written, and these are all
// that is held in memory.
func (m *migration) copy(ctx context.Context, name string, limit int, progress *migratedCollection) error {
	total, err := m.source.Count(ctx, name, nil)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pages := make(chan sourcePage)
	failed := make(chan error, 1)
	go func() {
		defer close(pages)
		failed <- m.read(ctx, name, limit, progress.Next, pages)
	}()
	begin, before := time.Now(), progress.Points
	saved := begin
	for page := range pages {
		if err := m.write(ctx, name, page.Points); err != nil {
			return err
		}
		for i := range page.Points {
			progress.add(page.Points[i].ID)
		}
		progress.Next = page.Next
		if now := time.Now(); now.Sub(saved) >= importSaveEvery {
			saved = now
			if err := m.state.save(); err != nil {
				return err
			}
		}
		m.bar.show(fmt.Sprintf("%s %s: %d of %d points, %.0f/s", progressBar(float64(progress.Points)/float64(max(total, 1))), name, progress.Points, total,
			float64(progress.Points-before)/time.Since(begin).Seconds()))
	}
	if err := <-failed; err != nil {
		return err
	}
	progress.Copied = true
	return m.state.save()
}

// add counts a point and gives it its chance to be compared (Vitter, 1985: reservoir sampling).
func (p *migratedCollection) add(id json.RawMessage) {
	p.Points++
	if len(p.Sample) < migrationSample {
		p.Sample = append(p.Sample, bytes.Clone(id))
	} else if i := rand.Uint64N(p.Points); i < migrationSample {
		p.Sample[i] = bytes.Clone(id)
	}
}

// read hands over the pages, of at most limit points, from the id next on.
func (m *migration) read(ctx context.Context, name string, limit int, next json.RawMessage, pages chan<- sourcePage) error {
	for {
		body, err := json.Marshal(map[string]any{"limit": limit, "offset": next, "with_payload": true, "with_vector": true})
		if err != nil {
			return err
		}
		var page sourcePage
		if err := m.source.Call(ctx, http.MethodPost, collectionPath(name, "/points/scroll"), body, &page); err != nil {
			return fmt.Errorf("read from the source: %w", err)
		}
		size := 0
		for i := range page.Points {
			size += page.Points[i].size()
		}
		if size > migrationPageBytes {
			limit = max(limit/2, 1)
		}
		next = page.Next
		select {
		case pages <- page:
		case <-ctx.Done():
			return ctx.Err()
		}
		if !given(next) {
			return nil
		}
	}
}

// write writes points in pieces that fit into a request.
func (m *migration) write(ctx context.Context, name string, points []sourcePoint) error {
	for len(points) > 0 {
		n, size := 0, 0
		for n < len(points) && (n == 0 || size+points[n].size() <= migrationPageBytes) {
			if !given(points[n].Vector) {
				points[n].Vector = json.RawMessage("{}") // a point without any
			}
			size += points[n].size()
			n++
		}
		if err := m.send(ctx, http.MethodPut, collectionPath(name, "/points?wait=true"), map[string]any{"points": points[:n]}, nil); err != nil {
			return fmt.Errorf("write to the target: %w", err)
		}
		points = points[n:]
	}
	return nil
}

// aliases makes those of the copied collections.
func (m *migration) aliases(ctx context.Context, names []string) error {
	var list struct {
		Aliases []struct {
			Alias      string `json:"alias_name"`
			Collection string `json:"collection_name"`
		} `json:"aliases"`
	}
	if err := m.source.Call(ctx, http.MethodGet, "/aliases", nil, &list); err != nil {
		return fmt.Errorf("list the aliases of the source: %w", err)
	}
	actions := []any{}
	for _, a := range list.Aliases {
		if slices.Contains(names, a.Collection) {
			actions = append(actions, map[string]any{"create_alias": a})
		}
	}
	if len(actions) == 0 {
		return nil
	}
	if err := m.send(ctx, http.MethodPost, "/collections/aliases", map[string]any{"actions": actions}, nil); err != nil {
		return fmt.Errorf("create the aliases: %w", err)
	}
	fmt.Fprintf(m.stdout, "%d aliases\n", len(actions))
	return nil
}

// compare holds the target's collection against the source's: the number of points, and the points of the sample, at most limit
// at a time.
func (m *migration) compare(ctx context.Context, name string, limit int, progress *migratedCollection) (compared int, err error) {
	want, err := m.source.Count(ctx, name, nil)
	if err != nil {
		return 0, err
	}
	got, err := m.target.Count(ctx, name, nil)
	if err != nil {
		return 0, err
	}
	if got != want {
		return 0, fmt.Errorf("the target has %d points, the source %d: was it written to meanwhile?", got, want)
	}
	for ids := range slices.Chunk(progress.Sample, min(sampleRequest, limit)) {
		body, err := json.Marshal(map[string]any{"ids": ids, "with_payload": true, "with_vector": true})
		if err != nil {
			return 0, err
		}
		var sides [2]map[string]sourcePoint
		for i, server := range []*client.Client{m.source, m.target} {
			var points []sourcePoint
			if err := server.Call(ctx, http.MethodPost, collectionPath(name, "/points"), body, &points); err != nil {
				return 0, err
			}
			sides[i] = make(map[string]sourcePoint, len(points))
			for _, p := range points {
				sides[i][string(p.ID)] = p
			}
		}
		for id, want := range sides[0] {
			got, ok := sides[1][id]
			if !ok {
				return 0, fmt.Errorf("point %s is missing in the target", id)
			}
			if err := samePoint(&got, &want); err != nil {
				return 0, fmt.Errorf("point %s: %w", id, err)
			}
			compared++
		}
	}
	return compared, nil
}

// samePoint returns how two points differ, or nil.
func samePoint(got, want *sourcePoint) error {
	var values [4]any
	for i, raw := range []json.RawMessage{got.Payload, want.Payload, got.Vector, want.Vector} {
		if !given(raw) {
			raw = json.RawMessage("{}")
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&values[i]); err != nil {
			return err
		}
	}
	if !sameValue(values[0], values[1], sameNumber) {
		return fmt.Errorf("the payload is %.200s in the target and %.200s in the source", got.Payload, want.Payload)
	}
	if !sameValue(named(values[2]), named(values[3]), closeNumber) {
		return fmt.Errorf("the vector is %.200s in the target and %.200s in the source", got.Vector, want.Vector)
	}
	return nil
}

// named returns vectors by name, also those that are bare.
func named(vectors any) any {
	if _, ok := vectors.(map[string]any); ok {
		return vectors
	}
	return map[string]any{"": vectors}
}

// sameValue compares values of JSON, numbers by the function.
func sameValue(a, b any, same func(a, b json.Number) bool) bool {
	switch a := a.(type) {
	case json.Number:
		b, ok := b.(json.Number)
		return ok && same(a, b)
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, func(x, y any) bool { return sameValue(x, y, same) })
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, func(x, y any) bool { return sameValue(x, y, same) })
	}
	return a == b
}

// sameNumber reports whether two numbers are the same: integers digit by digit, others as float64.
func sameNumber(a, b json.Number) bool {
	if a == b {
		return true
	}
	if !strings.ContainsAny(string(a), ".eE") && !strings.ContainsAny(string(b), ".eE") {
		return false
	}
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && x == y
}

func closeNumber(a, b json.Number) bool {
	x, errX := a.Float64()
	y, errY := b.Float64()
	return errX == nil && errY == nil && math.Abs(x-y) <= vectorTolerance*max(1, math.Abs(x), math.Abs(y))
}

// migrationState is the progress of a migration, kept in a file in the current directory.
type migrationState struct {
	path string

	Version     int                            `json:"version"`
	From        string                         `json:"from"`
	URL         string                         `json:"url"`
	Only        string                         `json:"only"`
	Collections map[string]*migratedCollection `json:"collections"`
}

// openMigration returns the state of a migration that begins or, with --resume, goes on.
func (c *importCmd) openMigration() (*migrationState, error) {
	from, err := url.Parse(c.FromQdrant)
	if err != nil {
		return nil, fmt.Errorf("--from-qdrant: %w", err)
	}
	path := strings.NewReplacer(":", "_", "[", "", "]", "").Replace(from.Host) + importStateSuffix
	state := &migrationState{path: path, Version: migrationStateVersion, From: c.FromQdrant, URL: c.URL, Only: c.Collection,
		Collections: map[string]*migratedCollection{}}
	if !c.Resume {
		if _, err := os.Stat(path); err == nil {
			return nil, fmt.Errorf("%s is the progress of a migration that was interrupted: --resume goes on with it; remove it to start over", path)
		}
		return state, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("--resume: no migration from %s was interrupted in this directory (there is no %s)", c.FromQdrant, path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var kept migrationState
	if err := json.NewDecoder(io.LimitReader(f, migrationStateBytesMax)).Decode(&kept); err != nil {
		return nil, fmt.Errorf("--resume: %s is damaged, remove it and start over: %w", path, err)
	}
	begun := kept.Collections
	kept.path, kept.Collections = path, state.Collections
	if !reflect.DeepEqual(&kept, state) || begun == nil {
		return nil, fmt.Errorf("--resume: %s belongs to a migration of other collections or into another server, %s; repeat that one", path, kept.URL)
	}
	state.Collections = begun
	return state, nil
}

func (s *migrationState) save() error { return replaceFile(s.path, s) }

func (s *migrationState) remove() error { return removeFile(s.path) }
