package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/model"
)

// form returns a multipart body with parts of names and contents, and its type.
func form(t *testing.T, parts ...string) (body *bytes.Buffer, contentType string) {
	t.Helper()
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	for i := 0; i < len(parts); i += 2 {
		header := textproto.MIMEHeader{"Content-Disposition": {fmt.Sprintf(`form-data; name="%s"; filename="../../x"`, parts[i])}}
		p, err := w.CreatePart(header)
		if err == nil {
			_, err = io.WriteString(p, parts[i+1])
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return body, w.FormDataContentType()
}

type description struct {
	Name     string `json:"name"`
	Created  string `json:"creation_time"`
	Size     int64  `json:"size"`
	Checksum string `json:"checksum"`
}

func (h *harness) snapshot(method, path string) (d description) {
	h.t.Helper()
	status, answer, _ := h.send(method, path, nil)
	if status != 200 {
		h.t.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	if err := json.Unmarshal([]byte(result(h.t, answer)), &d); err != nil {
		h.t.Fatal(err)
	}
	return d
}

func TestSnapshotRoutes(t *testing.T) {
	h := withPoints(t, Options{})
	d := h.snapshot("POST", "/collections/c/snapshots")
	if d.Name == "" || d.Size == 0 || len(d.Checksum) != 64 {
		t.Errorf("%+v", d)
	}
	if _, err := time.Parse("2006-01-02T15:04:05", d.Created); err != nil {
		t.Error(err)
	}
	whole := h.snapshot("POST", "/snapshots?wait=true")
	one, err := json.Marshal([]description{d})
	if err != nil {
		t.Fatal(err)
	}
	h.ok("GET", "/collections/c/snapshots", "", string(one))
	all, err := json.Marshal([]description{whole})
	if err != nil {
		t.Fatal(err)
	}
	h.ok("GET", "/snapshots", "", string(all))

	status, content, header := h.send("GET", "/collections/c/snapshots/"+d.Name, nil, "Accept-Encoding", "gzip")
	if status != 200 || int64(len(content)) != d.Size || header.Get("Content-Type") != "application/octet-stream" ||
		header.Get("Content-Length") != fmt.Sprint(d.Size) || !strings.Contains(header.Get("Content-Disposition"), d.Name) ||
		header.Get("X-Content-Type-Options") != "nosniff" || header.Get("Content-Encoding") != "" {
		t.Errorf("download: %d %q %v", status, content, header)
	}
	if status, got, _ := h.send("GET", "/snapshots/"+whole.Name, nil); status != 200 || int64(len(got)) != whole.Size {
		t.Errorf("download: %d %q", status, got)
	}
	if n := h.srv.downloads.Load(); n != 0 {
		t.Errorf("%d downloads are left", n)
	}

	// Gone and back.
	h.ok("DELETE", "/collections/c", "", "true")
	h.ok("PUT", "/collections/c/snapshots/recover", `{"location":"file:///`+d.Name+`","priority":"snapshot","checksum":"`+d.Checksum+`","api_key":null}`, "true")
	h.ok("POST", countPath, "{}", `{"count":3}`)
	body, kind := form(t, "other", "ignored", "snapshot", content)
	status, answer, _ := h.send("POST", "/collections/new/snapshots/upload?priority=no_sync&checksum="+d.Checksum, body, "Content-Type", kind)
	if status != 200 || result(t, answer) != "true" {
		t.Errorf("upload: %d %s", status, answer)
	}
	h.ok("POST", "/collections/new/points/count", "{}", `{"count":3}`)

	h.ok("DELETE", "/collections/c/snapshots/"+d.Name, "", "true")
	h.ok("GET", "/collections/c/snapshots", "", "[]")
	h.ok("DELETE", "/snapshots/"+whole.Name, "", "true")
	missing := "Not found: Snapshot `" + d.Name + "` doesn't exist!"
	h.refused(404, "GET", "/collections/c/snapshots/"+d.Name, "", missing)
	h.refused(404, "DELETE", "/collections/c/snapshots/"+d.Name, "", missing)
}

func TestSnapshotRefusals(t *testing.T) {
	h := withPoints(t, Options{})
	h.refused(404, "POST", "/collections/x/snapshots", "", "Not found: Collection `x` doesn't exist!")
	h.refused(404, "POST", "/collections/x/snapshots?wait=false", "", "Not found: Collection `x` doesn't exist!")
	h.refused(404, "GET", "/collections/x/snapshots", "", "Not found: Collection `x` doesn't exist!")
	f := func(status int, method, path, body, want string) {
		t.Helper()
		got, answer, _ := h.send(method, path, strings.NewReader(body))
		if got != status || !strings.HasPrefix(result(t, answer), want) {
			t.Errorf("%s %s %s: %d %s", method, path, body, got, answer)
		}
	}
	for _, name := range []string{"%2e%2e", "..%2fc.snapshot", "a%00.snapshot", "a.snapshot%2f", "%7ea.snapshot", "a"} {
		f(422, "GET", "/collections/c/snapshots/"+name, "", "Validation error in path parameters: [snapshot_name: ")
		f(422, "DELETE", "/snapshots/"+name, "", "Validation error in path parameters: [snapshot_name: ")
	}
	const route = "/collections/c/snapshots/recover"
	f(400, "PUT", route, `{}`, "Format error in JSON body: missing field `location`")
	f(400, "PUT", route, `{"location":1}`, "Format error in JSON body: location: expected a string")
	f(400, "PUT", route, `{"location":"file:///x","priority":"all"}`, "Format error in JSON body: priority: expected no_sync, snapshot or replica")
	f(422, "PUT", route, `{"location":"file:///x","checksum":"abc"}`, `Validation error in JSON body: [checksum: "abc" invalid`)
	f(400, "PUT", route+"?wait=yes", `{}`, "Format error in query parameters: wait")

	upload := func(status int, query, contentType, body, want string, header ...string) {
		t.Helper()
		got, answer, _ := h.send("POST", "/collections/c/snapshots/upload"+query, strings.NewReader(body), append(header, "Content-Type", contentType)...)
		if got != status || !strings.HasPrefix(result(t, answer), want) {
			t.Errorf("upload %s %s %.80q: %d %s", query, contentType, body, got, answer)
		}
	}
	body, kind := form(t, "snapshot", "what is none")
	upload(400, "", kind, body.String(), "Wrong input: the snapshot is damaged")
	upload(400, "?checksum=1&priority=x", kind, body.String(), "Format error in query parameters: priority")
	upload(422, "?checksum=1", kind, body.String(), "Validation error in query parameters: [checksum")
	upload(400, "", "application/json", body.String(), "Wrong input: Content-Type application/json, expected multipart")
	upload(400, "", "multipart/form-data", body.String(), "Wrong input: Content-Type multipart/form-data, expected")
	upload(400, "", kind, body.String()[:body.Len()-30], "Wrong input: the body could not be read")
	upload(400, "", kind, "", "Wrong input: the body")
	upload(400, "", kind, body.String(), "Bad request: Content-Encoding gzip", "Content-Encoding", "gzip")
	wrong, kind := form(t, "file", "x")
	upload(400, "", kind, wrong.String(), "Wrong input: the form has no part `snapshot`")
	large, kind := form(t, "file", strings.Repeat("x", partBytesMax+1), "snapshot", "y")
	upload(400, "", kind, large.String(), "Wrong input: the form's part")
	parts := make([]string, 0, 2*maxUploadParts)
	for range maxUploadParts {
		parts = append(parts, "x", "y")
	}
	many, kind := form(t, append(parts, "snapshot", "z")...)
	upload(400, "", kind, many.String(), "Wrong input: the form has no part")
}

// TestUploadsAreNotBodies uploads more than a body in memory may have, and more than a snapshot may have.
func TestUploadsAreNotBodies(t *testing.T) {
	var got int64
	e := receiver{Model: model.New(), receive: func(content io.Reader) (err error) {
		got, err = io.Copy(io.Discard, content)
		return err
	}}
	h := start(t, e, Options{MaxBodyBytes: 1000, MaxSnapshotBytes: 1_000_000, APIKey: "secret", ReadOnlyAPIKey: "look"})
	f := func(size, want int, wrap func(io.Reader) io.Reader, path string, header ...string) {
		t.Helper()
		body, kind := form(t, "snapshot", strings.Repeat("x", size))
		got = 0
		status, answer, _ := h.send("POST", path, wrap(body), append(header, "Content-Type", kind)...)
		if status != want || want == 200 && got != int64(size) {
			t.Errorf("%d bytes: %d %s", size, status, answer)
		}
		if want != 200 && want != 413 && got != 0 {
			t.Errorf("%d bytes of a refused body were read", got)
		}
	}
	known := func(r io.Reader) io.Reader { return r }
	chunked := func(r io.Reader) io.Reader { return io.MultiReader(r) }
	for _, wrap := range []func(io.Reader) io.Reader{known, chunked} {
		f(900_000, 200, wrap, "/collections/c/snapshots/upload", "api-key", "secret")
		f(900_000, 200, wrap, "/collections/c/snapshots/upload/?wait=true", "api-key", "secret")
		f(1_000_000, 413, wrap, "/collections/c/snapshots/upload", "api-key", "secret")
		f(900_000, 401, wrap, "/collections/c/snapshots/upload")
		f(900_000, 403, wrap, "/collections/c/snapshots/upload", "api-key", "look")
	}
	f(900_000, 413, known, "/collections/c/points/search?x=/snapshots/upload", "api-key", "secret")
}

// receiver takes uploads in its own way.
type receiver struct {
	*model.Model
	receive   func(io.Reader) error
	recovered chan error
}

func (r receiver) ReceiveSnapshot(_ context.Context, _ string, content io.Reader, _ string) (func(context.Context) error, error) {
	if err := r.receive(content); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		if r.recovered != nil {
			r.recovered <- ctx.Err()
		}
		return nil
	}, nil
}

func (r receiver) RecoverSnapshot(ctx context.Context, _ string, _ vectord.SnapshotSource) error {
	r.recovered <- ctx.Err()
	return errors.New("nobody waits for this")
}

func (r receiver) CreateSnapshot(ctx context.Context, _ string) (vectord.Snapshot, error) {
	r.recovered <- ctx.Err()
	return vectord.Snapshot{}, nil
}

// TestSnapshotsWithoutWaiting asks for work whose end nobody waits for: the answer comes before it, and its context lives on.
func TestSnapshotsWithoutWaiting(t *testing.T) {
	e := receiver{Model: model.New(), recovered: make(chan error), receive: func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }}
	h := start(t, e, Options{})
	h.ok("PUT", "/collections/c", `{"vectors":{"size":2,"distance":"Dot"}}`, "true")
	f := func(method, path string, body io.Reader, header ...string) {
		t.Helper()
		status, answer, got := h.send(method, path+"?wait=false", body, header...)
		if status != 202 || answer != `{"status":"accepted","time":0.0}` || got.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s: %d %s", method, path, status, answer)
		}
		if err := <-e.recovered; err != nil {
			t.Error(err)
		}
	}
	f("POST", "/collections/c/snapshots", nil)
	f("POST", "/snapshots", nil)
	f("PUT", "/collections/c/snapshots/recover", strings.NewReader(`{"location":"file:///x"}`))
	body, kind := form(t, "snapshot", "x")
	f("POST", "/collections/c/snapshots/upload", body, "Content-Type", kind)
}

// TestDownloadsAreBounded keeps as many downloads open as may be.
func TestDownloadsAreBounded(t *testing.T) {
	h := withPoints(t, Options{})
	d := h.snapshot("POST", "/collections/c/snapshots")
	h.srv.downloads.Add(maxDownloads)
	h.refused(429, "GET", "/collections/c/snapshots/"+d.Name, "", "Too many requests: more than 32 snapshots are being sent")
	h.srv.downloads.Add(-maxDownloads)
	if status, _, _ := h.send(http.MethodGet, "/collections/c/snapshots/"+d.Name, nil); status != 200 {
		t.Errorf("status %d", status)
	}
}

func FuzzDecodeRecover(f *testing.F) {
	f.Add([]byte(`{"location":"file:///a","priority":"replica","checksum":"` + strings.Repeat("0f", 32) + `","api_key":"k"}`))
	f.Add([]byte(`{"location":null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if source, ok := checkDecoder(t, decodeRecover, body); ok && vectord.CheckSnapshotChecksum(source.Checksum) != nil {
			t.Errorf("checksum %q was accepted", source.Checksum)
		}
	})
}
