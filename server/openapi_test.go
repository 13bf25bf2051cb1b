package server

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vectord/vectord/internal/model"
	"github.com/vectord/vectord/internal/openapi"
)

// descriptions returns the server's own description and, if it is at hand, Qdrant's.
var descriptions = sync.OnceValues(func() ([]*openapi.Description, error) {
	own, err := openapi.Parse(describeAPI(), openapi.Options{Name: "vectord's description", Closed: true})
	if err != nil {
		return nil, err
	}
	qdrant, err := openapi.Qdrant()
	if err != nil || qdrant == nil {
		return []*openapi.Description{own}, err
	}
	return []*openapi.Description{own, qdrant}, nil
})

// ownRoutes are the beginnings of those that Qdrant does not have, or describes otherwise on purpose.
var ownRoutes = regexp.MustCompile(`^/(openapi\.json|cluster/peers|cluster/leader|queues|tasks|events|agents|route|states)\b|/memories\b`)

// checkExchange holds a request and its answer against the descriptions.
func checkExchange(t *testing.T, x openapi.Exchange) {
	t.Helper()
	if x.Method == "OPTIONS" { // the question of a browser, not a route
		return
	}
	all, err := descriptions()
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range all {
		if i > 0 && ownRoutes.MatchString(x.Path) {
			continue
		}
		if err := d.Check(x); err != nil {
			t.Error(err)
		}
	}
}

// TestDescription checks that the description is of the routes and of nothing else, and that it refers to what it has.
func TestDescription(t *testing.T) {
	var described, served []string
	for name := range operations {
		described = append(described, name)
	}
	for _, rt := range routes {
		served = append(served, rt.method+" "+rt.path)
	}
	for _, name := range served {
		if !slices.Contains(described, name) {
			t.Errorf("%s is served and not described: add it to operations", name)
		}
	}
	for _, name := range described {
		if !slices.Contains(served, name) {
			t.Errorf("%s is described and not served", name)
		}
	}

	var doc struct {
		Components map[string]map[string]json.RawMessage
		Paths      map[string]map[string]struct {
			OperationID string
			Tags        []string
			Summary     string
		}
	}
	if err := json.Unmarshal(describeAPI(), &doc); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, match := range regexp.MustCompile(`"\$ref":"#/components/([^"]*)"`).FindAllSubmatch(describeAPI(), -1) {
		used[string(match[1])] = true
	}
	had := map[string]bool{}
	for _, kind := range []string{"schemas", "parameters"} {
		for name := range doc.Components[kind] {
			had[kind+"/"+name] = true
		}
	}
	if !maps.Equal(used, had) {
		for _, name := range slices.Sorted(maps.Keys(had)) {
			if !used[name] {
				t.Errorf("%s is never referred to", name)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(used)) {
			if !had[name] {
				t.Errorf("%s is referred to and not there", name)
			}
		}
	}
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, o := range methods {
			if o.OperationID == "" || ids[o.OperationID] || len(o.Tags) != 1 || o.Summary == "" {
				t.Errorf("%s %s: %+v", method, path, o)
			}
			ids[o.OperationID] = true
		}
	}
	h := start(t, model.New(), Options{APIKey: "secret"})
	if status, answer, got := h.send("GET", "/openapi.json", nil); status != 200 || answer != string(describeAPI()) || got.Get("Content-Type") != "application/json" {
		t.Errorf("GET /openapi.json: %d, %d bytes as %s", status, len(answer), got.Get("Content-Type"))
	}
}

// bodyOf returns what body will give, without taking it, if it is something that a test wrote down.
func bodyOf(body any) []byte {
	switch b := body.(type) {
	case *strings.Reader:
		rest := make([]byte, b.Len())
		_, _ = b.ReadAt(rest, b.Size()-int64(b.Len()))
		return rest
	case *bytes.Buffer:
		return bytes.Clone(b.Bytes())
	}
	return nil
}
