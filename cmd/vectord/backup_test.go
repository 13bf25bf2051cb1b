package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/server"
)

// fakeS3 has the part of an S3 service that backups use.
type fakeS3 struct {
	mu      sync.Mutex
	objects map[string][]byte
	parts   map[string][]byte
}

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, query := r.URL.Path, r.URL.Query()
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=key/") {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	switch {
	case query.Has("location"):
		fmt.Fprint(w, `<LocationConstraint></LocationConstraint>`)
	case r.Method == http.MethodPost && query.Has("uploads"):
		fmt.Fprint(w, `<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>`)
	case r.Method == http.MethodPut && query.Has("partNumber"):
		body, _ := io.ReadAll(r.Body)
		f.parts[path] = append(f.parts[path], unchunked(r, body)...)
		w.Header().Set("ETag", `"e"`)
	case r.Method == http.MethodPost && query.Has("uploadId"):
		f.objects[path] = f.parts[path]
		xml.NewEncoder(w).Encode(struct {
			XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
			Bucket  string
			ETag    string
		}{Bucket: "bucket", ETag: "e"})
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		content, ok := f.objects[path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("ETag", `"e"`)
		http.ServeContent(w, r, "", time.Unix(1, 0), bytes.NewReader(content))
	default:
		w.WriteHeader(http.StatusBadRequest)
	}
}

// unchunked takes the frames away in which clients sign what they stream.
func unchunked(r *http.Request, body []byte) (content []byte) {
	if !strings.HasPrefix(r.Header.Get("X-Amz-Content-Sha256"), "STREAMING-") {
		return body
	}
	for {
		head, rest, _ := bytes.Cut(body, []byte("\r\n"))
		var size int
		fmt.Sscanf(string(head), "%x;", &size)
		if size == 0 {
			return content
		}
		content = append(content, rest[:size]...)
		body = rest[size+2:]
	}
}

func TestBackupAndRestore(t *testing.T) {
	n, err := node.Open(node.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	if err := n.Engine().CreateCollection(t.Context(), "c", vectord.DefaultCollectionConfig(2, vectord.Dot)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Tasks().Submit(t.Context(), "q", []vectord.NewTask{{Payload: []byte(`1`)}}); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.New(n.Engine(), server.Options{Scheduler: n.Tasks(), Backup: n.Backup})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	defer func() {
		if err := srv.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	url := "http://" + ln.Addr().String()
	s3 := httptest.NewServer(&fakeS3{objects: map[string][]byte{}, parts: map[string][]byte{}})
	defer s3.Close()

	folder := t.TempDir()
	file := filepath.Join(folder, "b.vdsnap")
	remote := []string{"--s3-endpoint", s3.URL, "--s3-access-key", "key", "--s3-secret-key", "secret"}
	for _, target := range []string{file, "s3://bucket/deep/b.vdsnap"} {
		if code, _, stderr := invoke(t, nil, append([]string{"backup", "--url", url, target}, remote...)...); code != 0 {
			t.Fatalf("back up to %s: %s", target, stderr)
		}
		dir := filepath.Join(t.TempDir(), "data")
		if code, _, stderr := invoke(t, nil, append([]string{"restore", target, "--data-dir", dir}, remote...)...); code != 0 {
			t.Fatalf("restore %s: %s", target, stderr)
		}
		again, err := node.Open(node.Config{DataDir: dir})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := again.Engine().CollectionInfo("c"); err != nil {
			t.Error(err)
		}
		if q, err := again.Tasks().Queue("q"); err != nil || q.Counts[vectord.TaskQueued] != 1 {
			t.Errorf("queue after a restore: %+v: %v", q, err)
		}
		if err := again.Close(); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := invoke(t, nil, "restore", file, "--data-dir", dir); code == 0 || !strings.Contains(stderr, "has data") {
			t.Errorf("restore over data: %d %s", code, stderr)
		}
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func([]byte) []byte{
		func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { return append(b, 0) },
	} {
		if err := os.WriteFile(file, damage(bytes.Clone(content)), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "data")
		if code, _, _ := invoke(t, nil, "restore", file, "--data-dir", dir); code == 0 {
			t.Error("a damaged backup was restored")
		}
		if _, err := os.Stat(filepath.Join(dir, "FORMAT")); err == nil {
			t.Error("a damaged backup left data")
		}
	}
}
