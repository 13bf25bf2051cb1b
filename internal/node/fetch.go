package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/vectord/vectord"
)

const (
	fetchRedirectsMax  = 5
	fetchHeaderTimeout = 30 * time.Second
)

// fetcher reads snapshots from the URLs that the operator has allowed. What a request names beyond them is refused before
// anything is looked up, redirects included.
type fetcher struct {
	allowed []*url.URL
	client  *http.Client
}

// newFetcher returns a fetcher of URLs that begin with one of the allowed ones: the same scheme and host, and a path that
// is the allowed one or below it.
func newFetcher(allowed []string) (*fetcher, error) {
	f := &fetcher{}
	for _, text := range allowed {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" ||
			u.Fragment != "" || !plainPath(u.Path) {
			return nil, fmt.Errorf("snapshot URL %q: expected http:// or https://, a host and perhaps a path", text)
		}
		f.allowed = append(f.allowed, u)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = fetchHeaderTimeout
	transport.DisableCompression = true
	f.client = &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > fetchRedirectsMax {
			return errors.New("too many redirects")
		}
		if r.URL.Host != via[0].URL.Host {
			r.Header.Del("Api-Key") // it was meant for the first host
		}
		return f.check(r.URL)
	}}
	return f, nil
}

// plainPath reports whether no part of a path leads elsewhere than it says.
func plainPath(path string) bool {
	return !strings.ContainsAny(path, "\\%") && !slices.ContainsFunc(strings.Split(path, "/"), func(part string) bool {
		return part == "." || part == ".."
	})
}

func (f *fetcher) check(u *url.URL) error {
	for _, a := range f.allowed {
		below := strings.HasPrefix(u.Path, strings.TrimSuffix(a.Path, "/")+"/") || u.Path == a.Path
		if u.Scheme == a.Scheme && strings.EqualFold(u.Host, a.Host) && u.User == nil && below && plainPath(u.Path) {
			return nil
		}
	}
	return vectord.Errorf(vectord.KindUnsupported, "location: this server fetches no snapshot from %.200q: its operator has not allowed it", u.Redacted())
}

// fetch begins to read a snapshot. The caller closes it.
func (f *fetcher) fetch(ctx context.Context, location, apiKey string) (io.ReadCloser, error) {
	u, err := url.Parse(location)
	if err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "location: %.200q is not a URL", location)
	}
	if err := f.check(u); err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, vectord.Errorf(vectord.KindInvalid, "location: %v", err)
	}
	if apiKey != "" {
		request.Header.Set("Api-Key", apiKey)
	}
	response, err := f.client.Do(request)
	if err != nil {
		var own *vectord.Error
		if errors.As(err, &own) {
			return nil, own
		}
		return nil, vectord.Errorf(vectord.KindInvalid, "location: %v", err)
	}
	if response.StatusCode != http.StatusOK {
		err := vectord.Errorf(vectord.KindInvalid, "location: %s answered with %s", u.Redacted(), response.Status)
		return nil, errors.Join(err, response.Body.Close())
	}
	return response.Body, nil
}
