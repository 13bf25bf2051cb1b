package openapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
)

// capturedBytesMax is the size up to which bodies are kept to be checked. What is longer passes unchecked.
const capturedBytesMax = 8 << 20

// Proxy hands requests on to a server and checks what comes back. An answer that contradicts a description is replaced by one
// with status 500 that says why, and reported; report may be called from any goroutine.
func Proxy(target *url.URL, report func(error), descriptions ...*Description) http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
			p.Out.Header.Del("Accept-Encoding") // answers are checked as they are
			if p.Out.Body != nil {
				kept := &capture{ReadCloser: p.Out.Body}
				p.Out.Body = kept
				p.Out = p.Out.WithContext(context.WithValue(p.Out.Context(), captureKey{}, kept))
			}
		},
		ModifyResponse: func(answer *http.Response) error {
			body, err := io.ReadAll(io.LimitReader(answer.Body, capturedBytesMax))
			if err != nil {
				return err
			}
			answer.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(bytes.NewReader(body), answer.Body), answer.Body}
			request := answer.Request
			x := Exchange{Method: request.Method, Path: request.URL.EscapedPath(), Status: answer.StatusCode, AnswerType: answer.Header.Get("Content-Type")}
			if len(body) < capturedBytesMax {
				x.Answer = body
			}
			if kept, ok := request.Context().Value(captureKey{}).(*capture); ok && request.Header.Get("Content-Encoding") == "" {
				x.RequestType, x.Request = request.Header.Get("Content-Type"), kept.whole()
			}
			for _, d := range descriptions {
				if err := d.Check(x); err != nil {
					report(err)
					return err
				}
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if !errors.Is(err, http.ErrAbortHandler) {
				http.Error(w, fmt.Sprintf("the checking proxy: %v", err), http.StatusInternalServerError)
			}
		},
	}
}

// capture keeps what is read of a body. It is the value of a captureKey in the context of its request.
type capture struct {
	io.ReadCloser

	mu   sync.Mutex // guards what follows: the answer may come while the body is still on its way
	kept []byte
	long bool
}

type captureKey struct{}

// Read implements io.Reader.
func (c *capture) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.long = c.long || len(c.kept)+n > capturedBytesMax; !c.long {
		c.kept = append(c.kept, p[:n]...)
	}
	return n, err
}

// whole returns what was read, or nothing if that was too long to be kept.
func (c *capture) whole() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.long {
		return nil
	}
	return bytes.Clone(c.kept)
}
