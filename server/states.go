package server

import (
	"bytes"
	"math"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
)

// This file has the handlers of states. A state's value is the body of a request, whatever it is, and its version the ETag.

const (
	statePathPrefix         = "/states/"
	defaultStateLimit       = 100
	defaultStateContentType = "application/octet-stream"
	stateContentDisposition = "attachment" // a browser that is led to a state saves it, and runs nothing of it
	maxStateVersion         = math.MaxInt64
)

// isStateWrite reports whether a request is for the route that takes a state in its body.
func isStateWrite(h *fasthttp.RequestHeader) bool {
	return h.IsPut() && bytes.HasPrefix(h.RequestURI(), []byte(statePathPrefix))
}

func (r *request) stateKey() (string, error) { return r.named("key", vectord.CheckStateKey) }

// parseETag reads an entity tag of a state, which is its version in quotation marks.
func parseETag(text string) (version uint64, ok bool) {
	text = strings.TrimPrefix(text, "W/") // compression on the way makes it weak
	if len(text) < 3 || text[0] != '"' || text[len(text)-1] != '"' {
		return 0, false
	}
	version, err := strconv.ParseUint(text[1:len(text)-1], 10, 64)
	return version, err == nil && version > 0
}

func badHeader(name string, value []byte, expected string) error {
	return vectord.Errorf(vectord.KindInvalid, "%s: expected %s, got %q", name, expected, excerpt(value))
}

// ifMatch returns the version that the header If-Match asks for, nil where it is absent.
func (r *request) ifMatch() (*uint64, error) {
	v := r.http.Request.Header.Peek(fasthttp.HeaderIfMatch)
	if len(v) == 0 {
		return nil, nil
	}
	version, ok := parseETag(string(v))
	if !ok {
		return nil, badHeader(fasthttp.HeaderIfMatch, v, "one ETag, a version in quotation marks")
	}
	return &version, nil
}

func (s *Server) putState(r *request) error {
	key, err := r.stateKey()
	if err != nil {
		return err
	}
	w := vectord.StateWrite{ContentType: string(r.http.Request.Header.ContentType())}
	ttl, err := r.intParameter("ttl_seconds", 0, vectord.MaxStateTTL, 0)
	if err != nil {
		return err
	}
	w.TTLSeconds = int(ttl)
	if w.IfVersion, err = r.ifMatch(); err != nil {
		return err
	}
	if v := r.http.Request.Header.Peek(fasthttp.HeaderIfNoneMatch); len(v) > 0 {
		switch {
		case string(v) != "*":
			return badHeader(fasthttp.HeaderIfNoneMatch, v, "* to write only where there is no state")
		case w.IfVersion != nil:
			return vectord.Errorf(vectord.KindInvalid, "%s: cannot be given together with %s", fasthttp.HeaderIfNoneMatch, fasthttp.HeaderIfMatch)
		}
		w.IfVersion = new(uint64)
	}
	if err := w.Check(); err != nil {
		return err
	}
	body, err := r.bodyUpTo(vectord.MaxStateBytes)
	if err != nil {
		return err
	}
	state, err := s.options.Scheduler.PutState(r.ctx, key, bytes.Clone(body), w)
	if err != nil {
		return err
	}
	r.setETag(state.Version)
	return r.json(stateAnswer(&state))
}

func (r *request) setETag(version uint64) {
	r.http.Response.Header.Set(fasthttp.HeaderETag, `"`+strconv.FormatUint(version, 10)+`"`)
}

// getState sends the value. With since it waits, as long as wait_ms says, for a version above that. The client gets none that it
// says it has.
func (s *Server) getState(r *request) error {
	key, err := r.stateKey()
	if err != nil {
		return err
	}
	wait, err := r.waitMillis()
	if err != nil {
		return err
	}
	since, err := r.intParameter("since", 0, maxStateVersion, 0)
	if err != nil {
		return err
	}
	var has uint64
	if v := r.http.Request.Header.Peek(fasthttp.HeaderIfNoneMatch); len(v) > 0 {
		var ok bool
		if has, ok = parseETag(string(v)); !ok {
			return badHeader(fasthttp.HeaderIfNoneMatch, v, "one ETag, a version in quotation marks")
		}
	}
	ctx, done, err := r.waitFor(wait)
	if err != nil {
		return err
	}
	defer done()
	state, err := s.options.Scheduler.State(ctx, key, uint64(since))
	if err != nil {
		return err
	}
	contentType := state.ContentType
	if contentType == "" {
		contentType = defaultStateContentType
	}
	r.text(contentType)
	r.setETag(state.Version)
	header := &r.http.Response.Header
	header.Set(fasthttp.HeaderLastModified, string(fasthttp.AppendHTTPDate(nil, state.UpdatedAt.Time())))
	header.Set(fasthttp.HeaderContentDisposition, stateContentDisposition)
	if state.Version == has || state.Version <= uint64(since) {
		r.http.SetStatusCode(fasthttp.StatusNotModified)
		return nil
	}
	r.out = append(r.out, state.Value...)
	return nil
}

func (s *Server) deleteState(r *request) error {
	key, err := r.stateKey()
	if err != nil {
		return err
	}
	version, err := r.ifMatch()
	if err != nil {
		return err
	}
	existed, err := s.options.Scheduler.DeleteState(r.ctx, key, version)
	if err != nil {
		return err
	}
	r.out = strconv.AppendBool(r.out, existed)
	return nil
}

// stateJSON is a state in an answer, without its value.
type stateJSON struct {
	Key         string            `json:"key"`
	ContentType string            `json:"content_type,omitempty"`
	Version     uint64            `json:"version"`
	UpdatedAt   vectord.Timestamp `json:"updated_at"`
	ExpiresAt   vectord.Timestamp `json:"expires_at,omitempty"`
	Refs        int               `json:"refs"`
}

func stateAnswer(s *vectord.State) stateJSON {
	return stateJSON{s.Key, s.ContentType, s.Version, s.UpdatedAt, s.ExpiresAt, s.Refs}
}

func (s *Server) listStates(r *request) error {
	args := r.http.QueryArgs()
	limit, err := r.intParameter("limit", 1, vectord.MaxLimit, defaultStateLimit)
	if err != nil {
		return err
	}
	prefix, after := string(args.Peek("prefix")), string(args.Peek("after"))
	for name, value := range map[string]string{"prefix": prefix, "after": after} {
		if value == "" {
			continue
		}
		if err := vectord.CheckStateKey(name, value); err != nil {
			return &formError{inQuery, err}
		}
	}
	states, err := s.options.Scheduler.States(prefix, after, int(limit))
	if err != nil {
		return err
	}
	items := make([]stateJSON, len(states))
	for i := range states {
		items[i] = stateAnswer(&states[i])
	}
	var next *string
	if len(states) > 0 && len(states) == int(limit) {
		next = &states[len(states)-1].Key
	}
	return r.json(map[string]any{"states": items, "next_after": next})
}
