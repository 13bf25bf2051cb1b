// Package openapi checks requests and answers against an OpenAPI description. It is for tests.
//
// The schemas of OpenAPI 3.1 are JSON Schema; those of 3.0 differ in what null is, and are rewritten. What is checked is the
// form: the method and path, the status and content type of an answer, and its body and that of the request.
package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Description is a parsed description. It does not change, so any number of goroutines may use it.
type Description struct {
	name       string
	operations []*operation
}

// operation is one method of one path.
type operation struct {
	method   string
	path     string
	segments []string
	body     map[string]*jsonschema.Schema // by content type, a nil schema being any content; nil: no body is described
	answers  map[string]answer             // by status: "200", "4XX" or "default"
}

// answer has the schemas of an answer by content type. An answer without any may have any content.
type answer map[string]*jsonschema.Schema

// Options say how a description is read.
type Options struct {
	Name string // names the description in errors

	// Closed makes properties that an answer's schema does not name an error, except where the schema says that there are
	// more. The schemas of requests stay as they are.
	Closed bool
}

// The parts of a description that this package reads.
type document struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		RequestBody struct {
			Content map[string]any `json:"content"`
		} `json:"requestBody"`
		Responses map[string]struct {
			Content map[string]any `json:"content"`
		} `json:"responses"`
	} `json:"paths"`
}

// Where the documents of the two compilers lie. Nothing is loaded from there.
const (
	requestURL = "mem://request.json"
	answerURL  = "mem://answer.json"
)

// Parse reads a description in JSON, and compiles every schema that a request or answer uses.
func Parse(b []byte, o Options) (*Description, error) {
	var doc document
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	compile := func(url string, closed bool) (*jsonschema.Compiler, error) {
		tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		rewrite(tree, strings.HasPrefix(doc.OpenAPI, "3.0"), closed)
		c := jsonschema.NewCompiler()
		c.DefaultDraft(jsonschema.Draft2020)
		c.AssertFormat()
		return c, c.AddResource(url, tree)
	}
	requests, err := compile(requestURL, false)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	answers, err := compile(answerURL, o.Closed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Name, err)
	}
	d := &Description{name: o.Name}
	for path, methods := range doc.Paths {
		for method, described := range methods {
			op := &operation{method: strings.ToUpper(method), path: path, segments: strings.Split(path, "/"), answers: map[string]answer{}}
			where := "#/paths/" + escape(path) + "/" + method
			if described.RequestBody.Content != nil {
				if op.body, err = schemas(requests, requestURL+where+"/requestBody/content/", described.RequestBody.Content); err != nil {
					return nil, fmt.Errorf("%s: %w", o.Name, err)
				}
			}
			for status, described := range described.Responses {
				if op.answers[status], err = schemas(answers, answerURL+where+"/responses/"+status+"/content/", described.Content); err != nil {
					return nil, fmt.Errorf("%s: %w", o.Name, err)
				}
			}
			d.operations = append(d.operations, op)
		}
	}
	return d, nil
}

// schemas compiles the schemas of contents, which lie below where by content type.
func schemas(c *jsonschema.Compiler, where string, contents map[string]any) (map[string]*jsonschema.Schema, error) {
	out := map[string]*jsonschema.Schema{}
	for contentType, content := range contents {
		out[contentType] = nil
		if described, ok := content.(map[string]any); !ok || described["schema"] == nil {
			continue
		}
		var err error
		if out[contentType], err = c.Compile(where + escape(contentType) + "/schema"); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// escape makes a key a token of a JSON pointer in a URL's fragment.
func escape(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D").Replace(key)
}

// rewrite turns schemas of OpenAPI 3.0 into such of JSON Schema, and closes them.
func rewrite(node any, old, closed bool) {
	switch node := node.(type) {
	case []any:
		for _, child := range node {
			rewrite(child, old, closed)
		}
	case map[string]any:
		for _, child := range node {
			rewrite(child, old, closed)
		}
		if _, ok := node["properties"].(map[string]any); ok && closed && node["type"] == "object" && node["additionalProperties"] == nil {
			node["additionalProperties"] = false
		}
		if old && node["nullable"] == true {
			allowNull(node)
		}
	}
}

// allowNull makes null a value of a schema that is nullable. One that says nothing else is of null alone: it is how some
// generators write an optional value, as one of the alternatives.
func allowNull(schema map[string]any) {
	delete(schema, "nullable")
	null := map[string]any{"type": "null"}
	for _, alternatives := range []string{"anyOf", "oneOf"} {
		if of, ok := schema[alternatives].([]any); ok {
			schema[alternatives] = append(of, null)
			return
		}
	}
	if kind, ok := schema["type"].(string); ok {
		schema["type"] = []any{kind, "null"}
		if enum, ok := schema["enum"].([]any); ok {
			schema["enum"] = append(enum, nil)
		}
		return
	}
	schema["type"] = "null"
}

// find returns the operation of a request, the one with the fewest parameters in its path if several match, or nil.
func (d *Description) find(method, path string) *operation {
	segments := strings.Split(path, "/")
	var found *operation
	fewest := len(segments) + 1
	for _, op := range d.operations {
		if op.method != method || len(op.segments) != len(segments) {
			continue
		}
		parameters := 0
		for i, s := range op.segments {
			if strings.HasPrefix(s, "{") && segments[i] != "" {
				parameters++
			} else if s != segments[i] {
				parameters = len(segments) + 1
				break
			}
		}
		if parameters < fewest {
			found, fewest = op, parameters
		}
	}
	return found
}

// Exchange is a request and its answer.
type Exchange struct {
	Method      string
	Path        string // escaped, without the query
	RequestType string // content type
	Request     []byte // body, not looked at unless the answer is a success and the body JSON
	Status      int
	AnswerType  string // content type
	Answer      []byte // body, nil: not to be looked at
}

// Operation returns the method and path under which the description has the request, or nothing.
func (d *Description) Operation(method, path string) string {
	if op := d.find(method, trimSlashes(path)); op != nil {
		return op.method + " " + op.path
	}
	return ""
}

// Operations returns all methods and paths, sorted.
func (d *Description) Operations() []string {
	var out []string
	for _, op := range d.operations {
		out = append(out, op.method+" "+op.path)
	}
	slices.Sort(out)
	return out
}

// Check returns what about an exchange contradicts the description, or nil. Requests that the description does not have must be
// refused.
func (d *Description) Check(x Exchange) error {
	if err := d.check(&x); err != nil {
		return fmt.Errorf("%s: %s %s answered with %d: %w", d.name, x.Method, x.Path, x.Status, err)
	}
	return nil
}

func (d *Description) check(x *Exchange) error {
	op := d.find(x.Method, trimSlashes(x.Path))
	if op == nil {
		if x.Status < 400 {
			return errors.New("is not described")
		}
		return nil
	}
	if x.Status/100 == 2 && len(x.Request) > 0 && op.body != nil {
		kind := x.RequestType
		if _, form := op.body["multipart/form-data"]; !form {
			kind = "application/json" // what servers take every body for, for curl says that it sends a form
		}
		if err := checkContent(op.body, kind, x.Request); err != nil {
			return fmt.Errorf("the request %.500s: %w", x.Request, err)
		}
	}
	contents, ok := op.answers[strconv.Itoa(x.Status)]
	for _, class := range []string{fmt.Sprintf("%dXX", x.Status/100), "default"} {
		if !ok {
			contents, ok = op.answers[class]
		}
	}
	switch {
	case !ok:
		return errors.New("no such status is described")
	case len(contents) == 0 || x.Answer == nil:
		return nil
	}
	if err := checkContent(contents, x.AnswerType, x.Answer); err != nil {
		return fmt.Errorf("the answer %.500s: %w", x.Answer, err)
	}
	return nil
}

// checkContent checks a body.
func checkContent(contents map[string]*jsonschema.Schema, contentType string, body []byte) error {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("content type %q: %w", contentType, err)
	}
	schema, ok := contents[kind]
	if !ok {
		schema, ok = contents["*/*"]
		kind = "" // whose schema is not looked at
	}
	switch {
	case !ok:
		return fmt.Errorf("content type %q is not described", contentType)
	case schema == nil || kind != "application/json":
		return nil
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(value)
}

func trimSlashes(path string) string {
	if trimmed := strings.TrimRight(path, "/"); trimmed != "" {
		return trimmed
	}
	return "/"
}

// IsJSON reports whether a header says that a body is plain JSON.
func IsJSON(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && kind == "application/json" && h.Get("Content-Encoding") == ""
}
