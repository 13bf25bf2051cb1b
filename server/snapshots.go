package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/vectord/vectord"
)

const (
	// snapshotTimeout bounds making and recovering a snapshot, which may take longer than a request does otherwise.
	snapshotTimeout = 6 * time.Hour
	// maxDownloads bounds snapshots being sent, each of which keeps a file open.
	maxDownloads = 32
	// maxUploadParts bounds the parts of a form before the one with the snapshot, and partBytesMax each of them.
	maxUploadParts = 16
	partBytesMax   = 64 << 10
	// uploadPath ends the path of the route whose body is a file instead of a document in memory.
	uploadPath = "/snapshots/upload"

	snapshotTimeFormat = "2006-01-02T15:04:05"
)

// isUpload reports whether a request is for the route that takes a snapshot in its body.
func isUpload(h *fasthttp.RequestHeader) bool {
	path, _, _ := bytes.Cut(h.RequestURI(), []byte("?"))
	return h.IsPost() && bytes.HasPrefix(path, []byte("/collections/")) && bytes.HasSuffix(bytes.TrimRight(path, "/"), []byte(uploadPath))
}

// bodyLimit returns how large the body of a request may be.
func (s *Server) bodyLimit(h *fasthttp.RequestHeader) int64 {
	if isUpload(h) {
		return s.options.MaxSnapshotBytes
	}
	if isStateWrite(h) {
		return vectord.MaxStateBytes
	}
	return int64(s.options.MaxBodyBytes)
}

// long runs what takes its time, and which a client can wait for, as it does unless wait is false: then the answer is that
// the work was accepted, and how it ends is in the log.
func (r *request) long(what string, work func(ctx context.Context) error) (done bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTimeout)
	if string(r.http.QueryArgs().Peek("wait")) != "false" {
		defer cancel()
		return true, work(ctx)
	}
	log := r.server.log.With("collection", r.collection)
	go func() {
		defer cancel()
		if err := work(ctx); err != nil {
			log.Error("could not "+what, "error", err)
		}
	}()
	r.text(jsonContentType)
	r.http.SetStatusCode(fasthttp.StatusAccepted)
	r.out = append(r.out, `{"status":"accepted","time":0.0}`...)
	return false, nil
}

// snapshotName decodes {snapshot} of the path.
func (r *request) snapshotName() (string, error) {
	raw, _ := r.http.UserValue("snapshot").(string)
	name, err := url.PathUnescape(strings.Clone(raw))
	if err != nil {
		return "", &formError{inPath, vectord.Errorf(vectord.KindInvalid, "snapshot_name: %v", err)}
	}
	if err := vectord.CheckSnapshotName(name); err != nil {
		return "", &formError{inPath, err}
	}
	return name, nil
}

func appendSnapshot(dst []byte, s *vectord.Snapshot) []byte {
	dst = append(dst, `{"name":`...)
	dst = appendString(dst, s.Name)
	dst = append(dst, `,"creation_time":"`...)
	dst = s.Created.UTC().AppendFormat(dst, snapshotTimeFormat)
	dst = append(dst, `","size":`...)
	dst = appendUint(dst, uint64(s.Size))
	dst = append(dst, `,"checksum":`...)
	if s.Checksum == "" {
		dst = append(dst, "null"...)
	} else {
		dst = appendString(dst, s.Checksum)
	}
	return append(dst, '}')
}

func (s *Server) createSnapshot(r *request) error {
	collection := r.collection
	if collection != "" { // said also where nobody waits for the answer
		if _, err := s.engine.CollectionInfo(collection); err != nil {
			return err
		}
	}
	var made vectord.Snapshot
	done, err := r.long("make a snapshot", func(ctx context.Context) (err error) {
		snapshot, err := s.engine.CreateSnapshot(ctx, collection)
		made = snapshot
		return err
	})
	if done && err == nil {
		r.out = appendSnapshot(r.out, &made)
	}
	return err
}

func (s *Server) listSnapshots(r *request) error {
	list, err := s.engine.Snapshots(r.collection)
	if err != nil {
		return err
	}
	r.out = append(r.out, '[')
	for i := range list {
		if i > 0 {
			r.out = append(r.out, ',')
		}
		r.out = appendSnapshot(r.out, &list[i])
	}
	r.out = append(r.out, ']')
	return nil
}

func (s *Server) deleteSnapshot(r *request) error {
	name, err := r.snapshotName()
	if err != nil {
		return err
	}
	collection := r.collection
	done, err := r.long("delete a snapshot", func(context.Context) error { return s.engine.DeleteSnapshot(collection, name) })
	if done && err == nil {
		r.ok()
	}
	return err
}

// getSnapshot sends a snapshot as it is read.
func (s *Server) getSnapshot(r *request) error {
	name, err := r.snapshotName()
	if err != nil {
		return err
	}
	if s.downloads.Add(1) > maxDownloads {
		s.downloads.Add(-1)
		return vectord.Errorf(vectord.KindOverloaded, "more than %d snapshots are being sent", maxDownloads)
	}
	file, size, err := s.engine.OpenSnapshot(r.collection, name)
	if err != nil {
		s.downloads.Add(-1)
		return err
	}
	r.streamed = true
	response := &r.http.Response
	response.Header.SetContentType("application/octet-stream")
	response.Header.Set(fasthttp.HeaderContentDisposition, `attachment; filename="`+name+`"`)
	response.SetBodyStream(&download{ReadCloser: file, http: r.http, timeout: s.options.RequestTimeout, open: &s.downloads}, int(size))
	return nil
}

// getBackup answers with the whole state, tasks and all.
func (s *Server) getBackup(r *request) error {
	if s.options.Backup == nil {
		return vectord.Errorf(vectord.KindUnsupported, "backups are not offered by this server")
	}
	if s.downloads.Add(1) > maxDownloads {
		s.downloads.Add(-1)
		return vectord.Errorf(vectord.KindOverloaded, "more than %d snapshots are being sent", maxDownloads)
	}
	stream, size, err := s.options.Backup()
	if err != nil {
		s.downloads.Add(-1)
		return err
	}
	r.streamed = true
	response := &r.http.Response
	response.Header.SetContentType("application/octet-stream")
	response.SetBodyStream(&download{ReadCloser: stream, http: r.http, timeout: s.options.RequestTimeout, open: &s.downloads}, int(size))
	return nil
}

// download is a snapshot on its way to a client, which has the time of a request for each piece of it. fasthttp closes it.
type download struct {
	io.ReadCloser
	http    *fasthttp.RequestCtx
	timeout time.Duration
	open    *atomic.Int64
}

// Read implements io.Reader.
func (d *download) Read(p []byte) (int, error) {
	if err := d.http.SetWriteDeadline(time.Now().Add(d.timeout)); err != nil {
		return 0, err
	}
	return d.ReadCloser.Read(p)
}

// Close implements io.Closer.
func (d *download) Close() error {
	d.open.Add(-1)
	return d.ReadCloser.Close()
}

// recoverJSON is the body of a recovery.
type recoverJSON struct {
	Location *string `json:"location"`
	Priority *string `json:"priority"`
	Checksum *string `json:"checksum"`
	APIKey   *string `json:"api_key"`
}

func decodeRecover(body []byte) (source vectord.SnapshotSource, err error) {
	var b recoverJSON
	if err := decodeBody(body, &b); err != nil {
		return source, err
	}
	if b.Location == nil {
		return source, missing("location")
	}
	set := func(dst, src *string) {
		if src != nil {
			*dst = *src
		}
	}
	var priority string
	set(&source.Location, b.Location)
	set(&source.Checksum, b.Checksum)
	set(&source.APIKey, b.APIKey)
	set(&priority, b.Priority)
	if err := checkPriority(priority); err != nil {
		return source, &formError{inBody, err}
	}
	if err := vectord.CheckSnapshotChecksum(source.Checksum); err != nil {
		return source, &formError{inBody, err}
	}
	return source, nil
}

// checkPriority refuses what is no priority. On a node of its own there is nothing to prefer.
func checkPriority(priority string) error {
	switch priority {
	case "", "no_sync", "snapshot", "replica":
		return nil
	}
	return vectord.Errorf(vectord.KindInvalid, "priority: expected no_sync, snapshot or replica, got %q", excerpt([]byte(priority)))
}

func (s *Server) recoverSnapshot(r *request) error {
	source, err := call(r, decodeRecover)
	if err != nil {
		return err
	}
	collection := r.collection
	done, err := r.long("recover a snapshot", func(ctx context.Context) error {
		return s.engine.RecoverSnapshot(ctx, collection, source)
	})
	if done && err == nil {
		r.ok()
	}
	return err
}

// uploadSnapshot recovers the snapshot that the body holds, a form whose part of the name snapshot is the file.
func (s *Server) uploadSnapshot(r *request) error {
	args := r.http.QueryArgs()
	checksum := string(args.Peek("checksum"))
	if err := errors.Join(checkPriority(string(args.Peek("priority"))), vectord.CheckSnapshotChecksum(checksum)); err != nil {
		return &formError{inQuery, err}
	}
	part, rest, err := r.snapshotPart()
	if err != nil {
		return err
	}
	collection := r.collection
	ctx, cancel := context.WithTimeout(context.Background(), snapshotTimeout)
	defer cancel()
	recoverIt, err := s.engine.ReceiveSnapshot(ctx, collection, part, checksum)
	if err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, rest, partBytesMax); errors.Is(err, io.EOF) {
		r.bodyRead = true
	}
	done, err := r.long("recover an uploaded snapshot", recoverIt)
	if done && err == nil {
		r.ok()
	}
	return err
}

// snapshotPart returns the file of a form in the request's body, to be read as it arrives, and the whole body.
func (r *request) snapshotPart() (part, body io.Reader, err error) {
	h := &r.http.Request.Header
	if encoding := h.ContentEncoding(); len(encoding) > 0 && string(encoding) != "identity" {
		return nil, nil, vectord.Errorf(vectord.KindUnsupported, "Content-Encoding %s is not offered for snapshots", excerpt(encoding))
	}
	kind, parameters, err := mime.ParseMediaType(string(h.ContentType()))
	if err != nil || kind != "multipart/form-data" || parameters["boundary"] == "" {
		return nil, nil, vectord.Errorf(vectord.KindInvalid, "Content-Type %s, expected multipart/form-data with a boundary", excerpt(h.ContentType()))
	}
	stream := r.http.RequestBodyStream()
	if stream == nil {
		return nil, nil, vectord.Errorf(vectord.KindInvalid, "the body is empty")
	}
	body = &upload{r: stream, http: r.http, timeout: r.server.options.RequestTimeout, left: r.server.options.MaxSnapshotBytes}
	form := multipart.NewReader(body, parameters["boundary"])
	for range maxUploadParts {
		p, err := form.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, readError(err, r.server.options.RequestTimeout.String())
		}
		if p.FormName() == "snapshot" {
			return &formPart{p, r.server.options.RequestTimeout}, body, nil
		}
		if n, err := io.Copy(io.Discard, io.LimitReader(p, partBytesMax+1)); err != nil || n > partBytesMax {
			return nil, nil, vectord.Errorf(vectord.KindInvalid, "the form's part %q before the snapshot is larger than %d bytes or broken",
				excerpt([]byte(p.FormName())), partBytesMax)
		}
	}
	return nil, nil, vectord.Errorf(vectord.KindInvalid, "the form has no part `snapshot`, or more than %d before it", maxUploadParts)
}

// formPart is a part of a form, whose errors are such as a client can be told.
type formPart struct {
	r       io.Reader
	timeout time.Duration
}

// Read implements io.Reader.
func (p *formPart) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = readError(err, p.timeout.String())
	}
	return n, err
}

// upload is a body that is read as it arrives. The client has the time of a request for each piece of it.
type upload struct {
	r       io.Reader
	http    *fasthttp.RequestCtx
	timeout time.Duration
	left    int64
}

// Read implements io.Reader.
func (u *upload) Read(p []byte) (int, error) {
	if err := u.http.SetReadDeadline(time.Now().Add(u.timeout)); err != nil {
		return 0, fmt.Errorf("body: %w", err)
	}
	n, err := u.r.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return 0, vectord.Errorf(vectord.KindTooLarge, "the body is larger than the server takes")
	}
	return n, err
}
