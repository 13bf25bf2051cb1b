package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

const (
	// ServeConcurrencyMax bounds the connections of a measurement.
	ServeConcurrencyMax = 4096

	// rateMax bounds the requests per second of an open loop: beyond, the load generator would measure itself.
	rateMax = 1_000_000

	// requestTimeout ends a request that gets no answer; it counts as an error.
	requestTimeout = 30 * time.Second

	answerBytesMax = 16 << 20

	// exactQueries bounds the queries that the recall is taken from where the server has to find the truth itself, for
	// which it compares each with every point.
	exactQueries = 100
)

// Serve measures the searches of a running server over HTTP.
type Serve struct {
	URL         string
	APIKey      string
	Collection  string
	Queries     *dataset.Vectors
	Truth       [][]int32 // ids nearest to each query, nearest first; nil: the server is asked for some exact searches
	K           int
	Ef          int   // 0: the collection's own
	Concurrency []int // connections, one measurement each
	Duration    time.Duration

	// Rate, if not 0, makes the loop an open one: so many requests are to start each second, whether or not earlier ones
	// have been answered, and a latency counts from when the request should have started. A server that stalls is charged
	// with the requests that wait meanwhile. With 0 each connection sends when its last answer has come.
	Rate float64
}

// ServeReport is what Serve found.
type ServeReport struct {
	URL        string     `json:"url"`
	Collection string     `json:"collection"`
	K          int        `json:"k"`
	Ef         int        `json:"ef"`
	Recall     float64    `json:"recall"`
	Rate       float64    `json:"rate"` // asked for; 0 is a closed loop
	Rows       []ServeRow `json:"rows"`
}

// ServeRow is the measurement at one number of connections. Latencies are seen from the client.
type ServeRow struct {
	Concurrency int     `json:"concurrency"`
	Requests    int64   `json:"requests"` // answered well
	Errors      int64   `json:"errors"`
	QPS         float64 `json:"qps"`
	Latency
	P999 float64 `json:"p999_us"`
	Max  float64 `json:"max_us"`
}

func (s *Serve) validate() error {
	switch {
	case s.K < 1 || s.K > vectord.MaxLimit:
		return fmt.Errorf("k: %d invalid, must be from 1 to %d", s.K, vectord.MaxLimit)
	case s.Ef < 0 || s.Ef > vectord.MaxLimit:
		return fmt.Errorf("ef: %d invalid, must be from 0 to %d", s.Ef, vectord.MaxLimit)
	case s.Duration <= 0:
		return fmt.Errorf("duration: %v invalid, must be positive", s.Duration)
	case !(s.Rate >= 0 && s.Rate <= rateMax):
		return fmt.Errorf("rate: %v invalid, must be from 0 to %d", s.Rate, rateMax)
	case len(s.Concurrency) == 0:
		return errors.New("concurrency: none given")
	}
	for _, n := range s.Concurrency {
		if n < 1 || n > ServeConcurrencyMax {
			return fmt.Errorf("concurrency: %d invalid, must be from 1 to %d", n, ServeConcurrencyMax)
		}
	}
	return nil
}

// Run does the measurement: each query once for the recall, or some hundred of them without a truth, then the load. progress
// is told about each step. When ctx ends, Run returns its error.
func (s *Serve) Run(ctx context.Context, progress func(step string)) (ServeReport, error) {
	if err := s.validate(); err != nil {
		return ServeReport{}, err
	}
	c, err := client.New(s.URL, client.Options{APIKey: s.APIKey})
	if err != nil {
		return ServeReport{}, err
	}
	report := ServeReport{URL: s.URL, Collection: s.Collection, K: s.K, Ef: s.Ef, Rate: s.Rate}
	progress("asking for the recall")
	if report.Recall, err = s.recall(ctx, c); err != nil {
		return report, err
	}
	requests, err := s.prepare()
	if err != nil {
		return report, err
	}
	for _, n := range s.Concurrency {
		progress(fmt.Sprintf("%d connections for %v", n, s.Duration))
		row, err := requests.measure(ctx, s.Duration, s.Rate, n)
		if err != nil {
			return report, err
		}
		report.Rows = append(report.Rows, row)
	}
	return report, nil
}

// recall asks queries once and compares the answer with the truth.
func (s *Serve) recall(ctx context.Context, c *client.Client) (float64, error) {
	info, err := c.Collection(ctx, s.Collection)
	if err != nil {
		return 0, err
	}
	if s.Truth != nil && len(s.Truth) < s.Queries.Len() {
		return 0, fmt.Errorf("the truth has %d rows for %d queries", len(s.Truth), s.Queries.Len())
	}
	distance := info.Config.Params.Vectors[""].Distance
	right, wanted := 0, 0
	stride := 1
	if s.Truth == nil { // an even choice, for the first queries of a file may be easier than the last
		stride = (s.Queries.Len() + exactQueries - 1) / exactQueries
	}
	for i := 0; i < s.Queries.Len(); i += stride {
		q := vectord.Query{Nearest: vectord.Near(s.Queries.At(i)), Limit: s.K, Params: vectord.SearchParams{HNSWEf: s.Ef}}
		hits, err := c.Query(ctx, s.Collection, q)
		if err != nil {
			return 0, err
		}
		if s.Truth != nil {
			if len(s.Truth[i]) < s.K {
				return 0, fmt.Errorf("the truth of query %d has %d neighbors, recall@%d needs %d", i, len(s.Truth[i]), s.K, s.K)
			}
			right += countIDs(hits, s.Truth[i][:s.K])
			wanted += s.K
			continue
		}
		q.Params = vectord.SearchParams{Exact: true}
		exact, err := c.Query(ctx, s.Collection, q)
		if err != nil {
			return 0, err
		}
		if len(exact) == 0 {
			return 0, fmt.Errorf("collection %q is empty", s.Collection)
		}
		last := exact[len(exact)-1].Score
		for _, h := range hits {
			if !distance.Nearer(last, h.Score) {
				right++
			}
		}
		wanted += len(exact)
	}
	return float64(right) / float64(wanted), nil
}

// countIDs returns how many of the hits have one of the ids.
func countIDs(hits []vectord.Hit, ids []int32) (n int) {
	set := make(map[vectord.PointID]bool, len(ids))
	for _, id := range ids {
		set[vectord.NumberID(uint64(id))] = true
	}
	for _, h := range hits {
		if set[h.ID] {
			n++
		}
	}
	return n
}

// requests are the queries ready to be sent, so that while the clock runs nothing is encoded.
type requests struct {
	method string
	url    string
	header http.Header // canonical names
	bodies [][]byte
	check  func(answer []byte) error // of an answer with status 200; nil: all are good
}

func (s *Serve) prepare() (*requests, error) {
	r := pointRequests(http.MethodPost, s.URL, s.Collection, "/query", s.APIKey)
	for i := range s.Queries.Len() {
		body, err := client.AppendQuery(nil, vectord.Query{Nearest: vectord.Near(s.Queries.At(i)), Limit: s.K, Params: vectord.SearchParams{HNSWEf: s.Ef}})
		if err != nil {
			return nil, err
		}
		r.bodies = append(r.bodies, body)
	}
	return r, nil
}

// pointRequests returns requests without bodies to a path below a collection's points.
func pointRequests(method, base, collection, path, apiKey string) *requests {
	r := &requests{method: method, header: http.Header{},
		url: strings.TrimRight(base, "/") + "/collections/" + url.PathEscape(collection) + "/points" + path}
	r.header.Set("Content-Type", "application/json")
	if apiKey != "" {
		r.header.Set("Api-Key", apiKey)
	}
	return r
}

// measure sends requests over the given number of connections for so long; a rate that is not 0 is Serve.Rate.
func (r *requests) measure(ctx context.Context, duration time.Duration, rate float64, connections int) (ServeRow, error) {
	got, err := loop{connections: connections, duration: duration, rate: rate}.run(ctx, r)
	if err == nil {
		err = got.usable()
	}
	if err != nil {
		return ServeRow{}, err
	}
	return got.row(connections), nil
}

// loop is a way to send requests: round and round, over so many connections, for so long, at a rate as in Serve.
type loop struct {
	connections int
	duration    time.Duration
	rate        float64
}

// outcome is what became of the requests of a loop.
type outcome struct {
	histogram *hdrhistogram.Histogram // of those answered well
	errors    int64
	first     error // nil if all went well
	seconds   float64
}

// run sends the requests. It returns an error when ctx ends, and none for requests that fail.
func (l loop) run(ctx context.Context, r *requests) (outcome, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: l.connections, MaxConnsPerHost: l.connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport, Timeout: requestTimeout}

	var next, failed atomic.Int64
	var firstError atomic.Pointer[error]
	histograms := make([]*hdrhistogram.Histogram, l.connections)
	var callers sync.WaitGroup
	begin := time.Now()
	end := begin.Add(l.duration)
	for i := range histograms {
		h := newHistogram()
		histograms[i] = h
		callers.Go(func() {
			var answer bytes.Buffer
			for ctx.Err() == nil {
				n := next.Add(1) - 1
				start := time.Now()
				if l.rate > 0 { // the n-th request has its time, and is late if that has passed
					start = begin.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
				}
				if !start.Before(end) {
					return
				}
				if !sleepUntil(ctx, start) {
					return
				}
				if err := r.send(ctx, web, r.bodies[n%int64(len(r.bodies))], &answer); err != nil {
					if ctx.Err() == nil {
						failed.Add(1)
						firstError.CompareAndSwap(nil, &err)
					}
					continue
				}
				record(h, time.Since(start))
			}
		})
	}
	callers.Wait()
	if ctx.Err() != nil {
		return outcome{}, ctx.Err()
	}
	all := outcome{histogram: newHistogram(), errors: failed.Load(), seconds: time.Since(begin).Seconds()}
	for _, h := range histograms {
		all.histogram.Merge(h)
	}
	if err := firstError.Load(); err != nil {
		all.first = *err
	}
	return all, nil
}

// add takes in the outcome of another run of the same requests.
func (o *outcome) add(other outcome) {
	if o.histogram == nil {
		o.histogram = newHistogram()
	}
	o.histogram.Merge(other.histogram)
	o.errors += other.errors
	o.seconds += other.seconds
	if o.first == nil {
		o.first = other.first
	}
}

// usable returns an error if every request has failed.
func (o *outcome) usable() error {
	if o.histogram.TotalCount() == 0 && o.first != nil {
		return fmt.Errorf("no request succeeded, the first failed with: %w", o.first)
	}
	return nil
}

func (o *outcome) row(connections int) ServeRow {
	n := o.histogram.TotalCount()
	return ServeRow{Concurrency: connections, Requests: n, Errors: o.errors, QPS: float64(n) / o.seconds,
		Latency: latencyOfHistogram(o.histogram), P999: float64(o.histogram.ValueAtPercentile(99.9)), Max: float64(o.histogram.Max())}
}

// sleepUntil returns at the given time, or at once if that has passed. It reports whether ctx still lasts.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// send sends one request and reads the answer whole, so that the connection can be used again.
func (r *requests) send(ctx context.Context, web *http.Client, body []byte, answer *bytes.Buffer) error {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	maps.Copy(req.Header, r.header)
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer.Reset()
	if _, err := io.Copy(answer, io.LimitReader(resp.Body, answerBytesMax)); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("server answered %d: %.200s", resp.StatusCode, answer.Bytes())
	}
	if r.check != nil {
		return r.check(answer.Bytes())
	}
	return nil
}

// WriteTable writes the report for people.
func (r *ServeReport) WriteTable(w io.Writer) error {
	loop := "closed loop"
	if r.Rate > 0 {
		loop = fmt.Sprintf("open loop at %g requests/s", r.Rate)
	}
	ef := "default"
	if r.Ef > 0 {
		ef = strconv.Itoa(r.Ef)
	}
	fmt.Fprintf(w, "%s · collection %s · k %d · ef %s · recall %.4f · %s\n\n", r.URL, r.Collection, r.K, ef, r.Recall, loop)
	rows := make([][]string, len(r.Rows))
	for i, row := range r.Rows {
		rows[i] = append([]string{strconv.Itoa(row.Concurrency)}, row.cells()...)
	}
	return table(w, append([]string{"connections", "queries/s"}, serveHeader...), rows)
}

// serveHeader names what cells returns after the first.
var serveHeader = append(slices.Clone(latencyHeader), "p99.9 µs", "max µs", "requests", "errors")

func (r *ServeRow) cells() []string {
	cells := append([]string{fmt.Sprintf("%.0f", r.QPS)}, r.Latency.cells()...)
	return append(cells, fmt.Sprintf("%.0f", r.P999), fmt.Sprintf("%.0f", r.Max), strconv.FormatInt(r.Requests, 10), strconv.FormatInt(r.Errors, 10))
}
