package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord/internal/openapi"
	"github.com/vectord/vectord/server"
	mcpserver "github.com/vectord/vectord/server/mcp"
)

// apiPage is the page whose examples are run, and documentedDataDir the data directory that they speak of.
const (
	apiPage           = "../../docs/API.md"
	documentedDataDir = "/var/lib/vectord"
)

// ellipsis stands for any value in a documented answer, as a key for further ones, and in a text for anything.
const ellipsis = "…"

// volatileNumbers are the members of answers whose numbers are not compared: how long it took, how large a file is, the number
// of an entry in the log, and what depends on how long ago something was.
var volatileNumbers = map[string]bool{"time": true, "took_us": true, "size": true, "operation_id": true, "version": true, "recency": true}

// volatileStrings, names of snapshots, checksums, and ids of tasks and leases, are whatever the server gives, but the same wherever the page has the
// same: what an answer names, later requests can use. volatileTimes are any.
var (
	volatileStrings = regexp.MustCompile(`^([^/]*\.snapshot|[0-9a-f]{64}|[0-9a-f]{16}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)
	volatileTimes   = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{3}Z)?$`)
)

// oldestEvent finds in the text of an error the id that the server gives the event before the oldest one.
var oldestEvent = regexp.MustCompile(`the oldest that is comes after (\d+)$`)

// pageExample is a request of the page and the answer that it shows.
type pageExample struct {
	line         int
	method, path string
	header       http.Header
	body         string
	status       int
	kind         string // "json" or "text"
	answer       string
}

// readExamples returns the examples of the page: each a block of http and, right behind it, one of its answer.
func readExamples(t *testing.T, page string) (out []pageExample) {
	t.Helper()
	lines := strings.Split(page, "\n")
	block := func(i int) (content []string, next int) {
		for next = i + 1; next < len(lines) && lines[next] != "```"; next++ {
			content = append(content, lines[next])
		}
		return content, next + 1
	}
	for i := 0; i < len(lines); i++ {
		if lines[i] != "```http" {
			continue
		}
		e := pageExample{line: i + 1, header: http.Header{}, status: 200}
		request, next := block(i)
		info, _ := strings.CutPrefix(lines[next], "```")
		kind, status, _ := strings.Cut(info, " ")
		answer, next := block(next)
		i = next - 1
		e.kind, e.answer = kind, strings.Join(answer, "\n")
		if status != "" {
			var err error
			if e.status, err = strconv.Atoi(status); err != nil {
				t.Fatalf("line %d: %v", e.line, err)
			}
		}
		var ok bool
		if e.method, e.path, ok = strings.Cut(request[0], " "); !ok || kind != "json" && kind != "text" {
			t.Fatalf("line %d: %q with an answer in %q", e.line, request[0], info)
		}
		rest := request[1:]
		for len(rest) > 0 && regexp.MustCompile(`^[A-Z][A-Za-z-]*: `).MatchString(rest[0]) {
			name, value, _ := strings.Cut(rest[0], ": ")
			e.header.Set(name, value)
			rest = rest[1:]
		}
		e.body = strings.Join(rest, "\n")
		out = append(out, e)
	}
	return out
}

// TestAPIPage runs the examples of docs/API.md in their order on one node and compares the answers. There must be one for
// every operation.
func TestAPIPage(t *testing.T) {
	page, err := os.ReadFile(apiPage)
	if err != nil {
		t.Fatal(err)
	}
	dataDir := t.TempDir()
	n, err := Open(Config{DataDir: dataDir, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.New(n.Engine(), server.Options{Logger: slog.New(slog.DiscardHandler), Scheduler: n.Tasks(), Pools: n, Backup: n.Backup,
		MCP: mcpserver.New(n.Engine(), mcpserver.Options{Scheduler: n.Tasks()}).HandleHTTP})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	r := &exampleRunner{t: t, url: "http://" + listener.Addr().String(), actual: map[string]string{documentedDataDir: dataDir}}
	status, described, _ := r.send(&pageExample{method: "GET", path: "/openapi.json"})
	if status != 200 {
		t.Fatalf("GET /openapi.json: %d", status)
	}
	description, err := openapi.Parse(described, openapi.Options{Name: "vectord's description", Closed: true})
	if err != nil {
		t.Fatal(err)
	}
	http.DefaultClient.CloseIdleConnections()

	shown := map[string]bool{}
	for _, e := range readExamples(t, string(page)) {
		r.run(&e, description)
		path, _, _ := strings.Cut(e.path, "?")
		shown[description.Operation(e.method, path)] = true
		if t.Failed() {
			t.FailNow() // what follows builds on it
		}
	}
	for _, operation := range description.Operations() {
		if !shown[operation] {
			t.Errorf("%s has no example in %s", operation, apiPage)
		}
	}
}

type exampleRunner struct {
	t      *testing.T
	url    string
	actual map[string]string // what stands on the page, and what the server gave instead
	file   []byte            // the last one that was fetched
}

// real puts what the server gave into a part of an example.
func (r *exampleRunner) real(text string) string {
	for documented, actual := range r.actual {
		text = strings.ReplaceAll(text, documented, actual)
	}
	return text
}

func (r *exampleRunner) send(e *pageExample) (status int, answer []byte, contentType string) {
	r.t.Helper()
	var body io.Reader = strings.NewReader(r.real(e.body))
	header := e.header.Clone()
	if e.header.Get("Content-Type") == "multipart/form-data" {
		form := &bytes.Buffer{}
		w := multipart.NewWriter(form)
		name, _, _ := strings.Cut(e.body, "=@")
		part, err := w.CreateFormFile(name, "file")
		if err == nil {
			_, err = part.Write(r.file)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			r.t.Fatal(err)
		}
		body = form
		header.Set("Content-Type", w.FormDataContentType())
	}
	request, err := http.NewRequest(e.method, r.url+r.real(e.path), body)
	if err != nil {
		r.t.Fatalf("line %d: %v", e.line, err)
	}
	for name, values := range header {
		for i := range values {
			values[i] = r.real(values[i])
		}
		request.Header[name] = values
	}
	resp, err := http.DefaultClient.Do(request)
	if err != nil {
		r.t.Fatalf("line %d: %v", e.line, err)
	}
	defer resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		answer, err = firstEvent(resp.Body)
	} else {
		answer, err = io.ReadAll(resp.Body)
	}
	if err != nil {
		r.t.Fatalf("line %d: %v", e.line, err)
	}
	return resp.StatusCode, answer, resp.Header.Get("Content-Type")
}

// firstEvent reads a stream of events to the end of the first one.
func firstEvent(stream io.Reader) (read []byte, err error) {
	lines := bufio.NewReader(stream)
	for !bytes.HasPrefix(read[bytes.LastIndexByte(bytes.TrimSuffix(read, []byte("\n")), '\n')+1:], []byte("data: ")) {
		line, err := lines.ReadBytes('\n')
		read = append(read, line...)
		if err != nil {
			return read, err
		}
	}
	return bytes.TrimSuffix(read, []byte("\n")), nil
}

func (r *exampleRunner) run(e *pageExample, d *openapi.Description) {
	r.t.Helper()
	status, answer, contentType := r.send(e)
	if strings.HasPrefix(contentType, "application/octet-stream") {
		r.file = answer
	}
	fail := func(err error) {
		r.t.Errorf("line %d: %s %s: %v\nanswered with %d %.4000s", e.line, e.method, e.path, err, status, answer)
	}
	if status != e.status || strings.HasPrefix(contentType, "application/json") != (e.kind == "json") {
		fail(fmt.Errorf("status %d and content type %s, want %d", status, contentType, e.status))
		return
	}
	path, _, _ := strings.Cut(r.real(e.path), "?")
	x := openapi.Exchange{Method: e.method, Path: path, Request: []byte(r.real(e.body)), RequestType: e.header.Get("Content-Type"), Status: status,
		Answer: answer, AnswerType: contentType}
	if err := d.Check(x); err != nil {
		fail(err)
	}
	if e.kind == "text" {
		if !matchesText(string(answer), r.real(e.answer)) {
			fail(fmt.Errorf("want %s", e.answer))
		}
		return
	}
	var got, want any
	for text, into := range map[string]*any{string(answer): &got, e.answer: &want} {
		decoder := json.NewDecoder(strings.NewReader(text))
		decoder.UseNumber()
		if err := decoder.Decode(into); err != nil {
			fail(fmt.Errorf("%w in %s", err, text))
			return
		}
	}
	if err := r.compare(got, want, ""); err != nil {
		fail(err)
	}
}

// matchesText reports whether the documented text is that of the answer but for what the ellipses stand for.
func matchesText(got, want string) bool {
	pieces := strings.Split(want, ellipsis)
	for i, piece := range pieces {
		at := strings.Index(got, piece)
		if at < 0 || i == 0 && at > 0 {
			return false
		}
		got = got[at+len(piece):]
	}
	return got == "" || pieces[len(pieces)-1] == ""
}

// compare returns where the answer is not what the page shows.
func (r *exampleRunner) compare(got, want any, where string) error {
	different := fmt.Errorf("at %s: got %v, the page has %v", where, got, want)
	switch want := want.(type) {
	case string:
		s, ok := got.(string)
		switch {
		case want == ellipsis, ok && volatileTimes.MatchString(want) && volatileTimes.MatchString(s):
			return nil
		case ok && oldestEvent.MatchString(want) && oldestEvent.MatchString(s):
			r.actual[oldestEvent.FindStringSubmatch(want)[1]] = oldestEvent.FindStringSubmatch(s)[1]
			return nil
		case ok && volatileStrings.MatchString(want) && volatileStrings.MatchString(s):
			if _, known := r.actual[want]; !known {
				r.actual[want] = s
			}
			if s == r.actual[want] {
				return nil
			}
		}
	case json.Number:
		if _, ok := got.(json.Number); ok && volatileNumbers[where[strings.LastIndexByte(where, '.')+1:]] {
			return nil
		}
	case []any:
		list, ok := got.([]any)
		if !ok || len(list) != len(want) {
			return different
		}
		for i := range want {
			if err := r.compare(list[i], want[i], fmt.Sprintf("%s[%d]", where, i)); err != nil {
				return err
			}
		}
		return nil
	case map[string]any:
		object, ok := got.(map[string]any)
		_, open := want[ellipsis]
		if !ok || !open && len(object) != len(want) {
			return different
		}
		for key := range want {
			value, ok := object[key]
			if key != ellipsis && !ok {
				return fmt.Errorf("at %s: %q is missing", where, key)
			}
			if key == ellipsis {
				continue
			}
			if err := r.compare(value, want[key], where+"."+key); err != nil {
				return err
			}
		}
		return nil
	}
	if got != want {
		return different
	}
	return nil
}
