package openapi

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// template is a description of the version and the schemas that are put into it.
const template = `{"openapi": %q, "paths": {
	"/things": {"get": {"responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Things"}}}},
		"4XX": {"content": {"application/json": {"schema": {"type": "object", "required": ["error"]}}}}}}},
	"/things/{id}": {"put": {"requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}}},
		"responses": {"200": {"content": {"text/plain": {"schema": {"type": "string"}}}}, "default": {}}}},
	"/things/last": {"put": {"responses": {"204": {}}}}},
	"components": {"schemas": {"Things": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}, "Thing": %s}}}`

func parsed(t *testing.T, version, thing string, closed bool) *Description {
	t.Helper()
	d, err := Parse(fmt.Appendf(nil, template, version, thing), Options{Name: "test", Closed: closed})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func check(t *testing.T, d *Description, x Exchange, want string) {
	t.Helper()
	err := d.Check(x)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("%s %s, %d %s: %v, want %q", x.Method, x.Path, x.Status, x.Answer, err, want)
	}
}

func TestCheck(t *testing.T) {
	d := parsed(t, "3.1.0", `{"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}, "at": {"type": "string", "format": "date-time"}}}`, true)
	get := func(status int, kind, answer, want string) {
		t.Helper()
		check(t, d, Exchange{Method: "GET", Path: "/things", Status: status, AnswerType: kind, Answer: []byte(answer)}, want)
	}
	const plain = "application/json"
	get(200, plain, `[]`, "")
	get(200, "application/json; charset=utf-8", `[{"id": 18446744073709551615}]`, "")
	get(200, plain, `[{"id": 1.5}]`, "want integer")
	get(200, plain, `[{}]`, "missing property 'id'")
	get(200, plain, `[{"id": 1, "more": 2}]`, "additional properties 'more' not allowed")
	get(200, plain, `[{"id": 1, "at": "2026-08-04"}]`, "is not valid date-time")
	get(200, plain, `[`, "unexpected EOF")
	get(200, "text/plain", `[]`, `content type "text/plain" is not described`)
	get(404, plain, `{"error": 1}`, "")
	get(404, plain, `{}`, "missing property 'error'")
	get(201, plain, `[]`, "no such status")
	check(t, d, Exchange{Method: "GET", Path: "/things/", Status: 200, AnswerType: plain, Answer: []byte("1")}, "want array")
	check(t, d, Exchange{Method: "GET", Path: "/things", Status: 200}, "")

	put := func(path, body string, status int, want string) {
		t.Helper()
		check(t, d, Exchange{Method: "PUT", Path: path, Request: []byte(body), Status: status, AnswerType: "text/plain", Answer: []byte("ok")}, want)
	}
	put("/things/7", `{"id": 7, "more": 1}`, 200, "") // requests are not closed
	put("/things/7", `{"id": "7"}`, 200, "want integer")
	put("/things/7", `{"id": "7"}`, 400, "") // it was refused
	check(t, d, Exchange{Method: "PUT", Path: "/things/7", Request: []byte(`{}`), RequestType: "application/x-www-form-urlencoded", Status: 200,
		AnswerType: "text/plain"}, "missing property 'id'") // as curl sends it
	put("/things/last", `{}`, 204, "")
	put("/things/last", `{}`, 200, "no such status")
	put("/things", `{}`, 405, "")
	put("/things", `{}`, 200, "is not described")
	put("/things//", ``, 404, "")

	if got := d.Operation("PUT", "/things/x/"); got != "PUT /things/{id}" {
		t.Errorf("operation %q", got)
	}
	if got, want := d.Operations(), []string{"GET /things", "PUT /things/last", "PUT /things/{id}"}; !slices.Equal(got, want) {
		t.Errorf("operations %q, want %q", got, want)
	}
}

// TestNull checks how null is written in schemas of OpenAPI 3.0.
func TestNull(t *testing.T) {
	f := func(schema, value, want string) {
		t.Helper()
		d := parsed(t, "3.0.1", schema, false)
		check(t, d, Exchange{Method: "GET", Path: "/things", Status: 200, AnswerType: "application/json", Answer: []byte("[" + value + "]")}, want)
	}
	f(`{"type": "integer"}`, `null`, "want integer")
	f(`{"type": "integer", "nullable": true}`, `null`, "")
	f(`{"type": "integer", "nullable": true}`, `"a"`, "want null or integer")
	f(`{"type": "string", "enum": ["a"], "nullable": true}`, `null`, "")
	f(`{"anyOf": [{"type": "integer"}, {"nullable": true}]}`, `null`, "")
	f(`{"anyOf": [{"type": "integer"}, {"nullable": true}]}`, `"a"`, "anyOf")
	f(`{"oneOf": [{"type": "integer"}], "nullable": true}`, `null`, "")
	f(`{"type": "object", "properties": {"a": {"nullable": true, "type": "boolean"}}}`, `{"a": null, "b": 1}`, "")
}

func TestParseRefuses(t *testing.T) {
	f := func(doc, want string) {
		t.Helper()
		if _, err := Parse([]byte(doc), Options{Name: "test"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, want %q", doc, err, want)
		}
	}
	f(`{`, "unexpected end")
	f(fmt.Sprintf(template, "3.1.0", `{"$ref": "#/components/schemas/Absent"}`), "Absent")
	f(fmt.Sprintf(template, "3.1.0", `{"type": "numeric"}`), "not valid against metaschema")
}

func TestProxy(t *testing.T) {
	answer := `[{"id": 1}]`
	behind := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "text/plain")
			w.Write(body)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, answer)
	}))
	t.Cleanup(behind.Close)
	target, err := url.Parse(behind.URL)
	if err != nil {
		t.Fatal(err)
	}
	var reported []error
	proxy := httptest.NewServer(Proxy(target, func(err error) { reported = append(reported, err) }, parsed(t, "3.1.0", `{"type": "object", "required": ["id"]}`, false)))
	t.Cleanup(proxy.Close)
	f := func(method, path, body string, wantStatus int, want string, wantReports int) {
		t.Helper()
		r, err := http.NewRequest(method, proxy.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != wantStatus || !strings.Contains(string(got), want) || len(reported) != wantReports {
			t.Errorf("%s %s: %d %s (%v), %d reports", method, path, resp.StatusCode, got, err, len(reported))
		}
	}
	f("GET", "/things", "", 200, answer, 0)
	f("PUT", "/things/1", `{"id": 1}`, 200, `{"id": 1}`, 0)
	f("PUT", "/things/1", `{}`, 500, "missing property 'id'", 1)
	answer = `[{}]`
	f("GET", "/things", "", 500, "missing property 'id'", 2)
}

// TestQdrant checks what is added to Qdrant's description, on a small stand-in for it.
func TestQdrant(t *testing.T) {
	t.Setenv(qdrantVariable, "")
	if d, err := Qdrant(); d != nil || err != nil {
		t.Errorf("without the variable: %v, %v", d, err)
	}
	path := filepath.Join(t.TempDir(), "openapi.json")
	if err := os.WriteFile(path, []byte(`{"openapi": "3.0.1", "paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": {"type": "integer"}}}},
		"responses": {"200": {}, "4XX": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}}}}}}},
		"components": {"schemas": {"ErrorResponse": {"type": "object"}, "GroupsResult": {"type": "object", "required": ["groups"]},
			"ScoredPoint": {"type": "object", "required": ["id"]}}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(qdrantVariable, path)
	d, err := Qdrant()
	if err != nil {
		t.Fatal(err)
	}
	f := func(path string, status int, kind, answer, want string) {
		t.Helper()
		check(t, d, Exchange{Method: "POST", Path: path, Request: []byte(`"x"`), Status: status, AnswerType: kind, Answer: []byte(answer)}, want)
	}
	const plain, points = "application/json", "/collections/c/points/"
	f("/a", 200, plain, "1", "")
	f("/a", 401, "text/plain", "no", "")
	f("/a", 404, "text/plain", "no", "is not described")
	f("/a", 403, plain, "1", "want object")
	f(points+"search", 200, plain, `{"result": [{"id": 1}], "status": "ok", "time": 0}`, "")
	f(points+"search", 200, plain, `{"result": [{}], "status": "ok", "time": 0}`, "missing property 'id'")
	f(points+"recommend/batch", 200, plain, `{"result": [[{"id": 1}]], "status": "ok", "time": 0}`, "")
	f(points+"recommend/groups", 200, plain, `{"result": {}, "status": "ok", "time": 0}`, "missing property 'groups'")
}
