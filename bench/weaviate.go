package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/index"
)

const (
	// weaviateBatch is the number of objects in a request of the import, weaviateImporters how many are on their way at a
	// time; both as bench ingest has them by default.
	weaviateBatch     = 256
	weaviateImporters = 4

	// weaviateTimeout ends a request of the import that gets no answer.
	weaviateTimeout = 5 * time.Minute
)

// weaviateClass is what Weaviate takes for the name of a class.
var weaviateClass = regexp.MustCompile(`^[A-Z][_0-9A-Za-z]*$`)

// weaviateDistances are Weaviate's names of distances.
var weaviateDistances = map[vectord.Distance]string{
	vectord.Cosine:    "cosine",
	vectord.Euclid:    "l2-squared",
	vectord.Dot:       "dot",
	vectord.Manhattan: "manhattan",
}

// Weaviate measures the searches of a running Weaviate over HTTP, to have vectord's beside them: it sends what Serve sends,
// in Weaviate's own language, and counts alike.
type Weaviate struct {
	URL    string
	APIKey string

	// Class is what holds the vectors. It is created and filled from Base unless it is there, in which case it must have as
	// many objects and the same parameters, and is given the Ef.
	Class string

	Base, Queries *dataset.Vectors // those of Cosine are normalised in place
	Truth         [][]int32        // rows of Base nearest to each query, nearest first; nil: found by comparing all
	Metric        vectord.Distance
	K             int
	M             int // maxConnections: links of a node above the lowest layer, twice as many there
	EfConstruct   int
	Ef            int
	Concurrency   []int // connections, one measurement each
	Duration      time.Duration
}

func (w *Weaviate) validate() error {
	serve := Serve{K: w.K, Ef: w.Ef, Concurrency: w.Concurrency, Duration: w.Duration}
	if err := serve.validate(); err != nil {
		return err
	}
	switch {
	case !weaviateClass.MatchString(w.Class):
		return fmt.Errorf("class: %q invalid, must be letters, digits and underscores, a capital first", w.Class)
	case !w.Metric.Valid():
		return errors.New("metric: not given")
	case w.Base.Dim != w.Queries.Dim:
		return fmt.Errorf("the queries have %d components, the base vectors %d", w.Queries.Dim, w.Base.Dim)
	case w.Ef < w.K:
		return fmt.Errorf("ef: %d invalid, must be at least k = %d", w.Ef, w.K)
	case w.K > w.Base.Len():
		return fmt.Errorf("k: %d invalid, there are %d base vectors", w.K, w.Base.Len())
	case w.M < 1 || w.EfConstruct < 1:
		return fmt.Errorf("m and ef-construction: %d and %d invalid, must be positive", w.M, w.EfConstruct)
	}
	return nil
}

// Run does the measurement: the import where the class is not there, each query once for the recall, then the load. A found
// point is right if it is no further than the k-th true neighbor. progress is told about each step. When ctx ends, Run
// returns its error.
func (w *Weaviate) Run(ctx context.Context, progress func(step string)) (ServeReport, error) {
	if err := w.validate(); err != nil {
		return ServeReport{}, err
	}
	if w.Metric == vectord.Cosine {
		w.Base.Normalize()
		w.Queries.Normalize()
	}
	truth := w.Truth
	if truth == nil {
		progress(fmt.Sprintf("comparing %d queries with %d vectors for the truth", w.Queries.Len(), w.Base.Len()))
		var err error
		if truth, err = Truth(ctx, w.Metric, w.Base, w.Queries, w.K); err != nil {
			return ServeReport{}, err
		}
	}
	if err := checkTruth(truth, w.Queries.Len(), w.K, w.Base.Len()); err != nil {
		return ServeReport{}, err
	}
	if err := w.ready(ctx, progress); err != nil {
		return ServeReport{}, err
	}

	report := ServeReport{URL: w.URL, Collection: w.Class, K: w.K, Ef: w.Ef}
	requests := w.prepare()
	progress("asking for the recall")
	var err error
	if report.Recall, err = w.recall(ctx, requests, truth); err != nil {
		return report, err
	}
	for _, n := range w.Concurrency {
		progress(fmt.Sprintf("%d connections for %v", n, w.Duration))
		row, err := requests.measure(ctx, w.Duration, 0, n)
		if err != nil {
			return report, err
		}
		report.Rows = append(report.Rows, row)
	}
	return report, nil
}

// ready sees to it that the class is there with all vectors and the parameters.
func (w *Weaviate) ready(ctx context.Context, progress func(step string)) error {
	path := "/v1/schema/" + w.Class
	found, status, err := w.ask(ctx, http.MethodGet, path, nil)
	switch {
	case status == http.StatusNotFound:
		create := fmt.Sprintf(`{"class":%q,"vectorizer":"none","vectorIndexType":"hnsw",`+
			`"vectorIndexConfig":{"distance":%q,"maxConnections":%d,"efConstruction":%d,"ef":%d}}`,
			w.Class, weaviateDistances[w.Metric], w.M, w.EfConstruct, w.Ef)
		if _, _, err := w.ask(ctx, http.MethodPost, "/v1/schema", []byte(create)); err != nil {
			return err
		}
		return w.fill(ctx, progress)
	case err != nil:
		return err
	}
	if err := w.checkParameters(found); err != nil {
		return err
	}
	if err := w.checkCount(ctx); err != nil {
		return err
	}
	changed, err := withEf(found, w.Ef)
	if err != nil {
		return err
	}
	_, _, err = w.ask(ctx, http.MethodPut, path, changed)
	return err
}

// checkParameters returns an error unless the class that was found is the one that ready would have created.
func (w *Weaviate) checkParameters(class []byte) error {
	var found struct {
		VectorIndexType   string
		VectorIndexConfig struct {
			Distance                       string
			MaxConnections, EfConstruction int
		}
	}
	if err := json.Unmarshal(class, &found); err != nil {
		return fmt.Errorf("class %s: %w", w.Class, err)
	}
	c := found.VectorIndexConfig
	if found.VectorIndexType != "hnsw" || c.Distance != weaviateDistances[w.Metric] || c.MaxConnections != w.M || c.EfConstruction != w.EfConstruct {
		return fmt.Errorf("class %s is there with other parameters: %s, %s, maxConnections %d, efConstruction %d",
			w.Class, found.VectorIndexType, c.Distance, c.MaxConnections, c.EfConstruction)
	}
	return nil
}

// checkCount returns an error unless the class has as many objects as there are vectors.
func (w *Weaviate) checkCount(ctx context.Context) error {
	body, err := json.Marshal(map[string]string{"query": "{Aggregate{" + w.Class + "{meta{count}}}}"})
	if err != nil {
		return err
	}
	answer, _, err := w.ask(ctx, http.MethodPost, "/v1/graphql", body)
	if err != nil {
		return err
	}
	var counts struct {
		Data struct {
			Aggregate map[string][]struct{ Meta struct{ Count int } }
		}
	}
	if err := unmarshalGraphQL(answer, &counts); err != nil {
		return err
	}
	groups := counts.Data.Aggregate[w.Class]
	if len(groups) != 1 || groups[0].Meta.Count != w.Base.Len() {
		return fmt.Errorf("class %s is there with other objects than the %d base vectors: %.200s", w.Class, w.Base.Len(), answer)
	}
	return nil
}

// withEf returns the class with another ef; Weaviate takes a change of a class as the whole of it.
func withEf(class []byte, ef int) ([]byte, error) {
	var fields, config map[string]json.RawMessage
	if err := json.Unmarshal(class, &fields); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(fields["vectorIndexConfig"], &config); err != nil {
		return nil, err
	}
	config["ef"] = strconv.AppendInt(nil, int64(ef), 10)
	var err error
	if fields["vectorIndexConfig"], err = json.Marshal(config); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// fill writes the base vectors into the class, several batches at a time.
func (w *Weaviate) fill(ctx context.Context, progress func(step string)) error {
	n := w.Base.Len()
	progress(fmt.Sprintf("importing %d vectors", n))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	begin := time.Now()
	var next atomic.Int64
	var importers sync.WaitGroup
	for range weaviateImporters {
		importers.Go(func() {
			var body []byte
			for ctx.Err() == nil {
				first := int(next.Add(weaviateBatch)) - weaviateBatch
				if first >= n {
					return
				}
				body = w.appendBatch(body[:0], first, min(first+weaviateBatch, n))
				if err := w.sendBatch(ctx, body); err != nil {
					cancel(fmt.Errorf("the batch from row %d: %w", first, err))
				}
			}
		})
	}
	importers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	seconds := time.Since(begin).Seconds()
	progress(fmt.Sprintf("imported %d vectors in %.1f s, %.0f a second", n, seconds, float64(n)/seconds))
	return nil
}

func (w *Weaviate) appendBatch(dst []byte, first, last int) []byte {
	dst = append(dst, `{"objects":[`...)
	for row := first; row < last; row++ {
		if row > first {
			dst = append(dst, ',')
		}
		dst = fmt.Appendf(dst, `{"class":%q,"id":"%s%012x","vector":`, w.Class, weaviateIDPrefix, row)
		dst = append(appendNumbers(dst, w.Base.At(row)), '}')
	}
	return append(dst, "]}"...)
}

// sendBatch sends a batch, of which each object may be refused by itself.
func (w *Weaviate) sendBatch(ctx context.Context, body []byte) error {
	answer, _, err := w.ask(ctx, http.MethodPost, "/v1/batch/objects", body)
	if err != nil {
		return err
	}
	var objects []struct {
		ID     string
		Result struct{ Errors json.RawMessage }
	}
	if err := json.Unmarshal(answer, &objects); err != nil {
		return err
	}
	for _, o := range objects {
		if e := o.Result.Errors; len(e) > 0 && string(e) != "null" {
			return fmt.Errorf("object %s: %.200s", o.ID, e)
		}
	}
	return nil
}

// weaviateIDPrefix begins the UUID of a row, which ends in the row's number.
const weaviateIDPrefix = "00000000-0000-4000-8000-"

// weaviateRow returns the row that an id stands for.
func weaviateRow(id string) (int, error) {
	hex, ok := strings.CutPrefix(id, weaviateIDPrefix)
	row, err := strconv.ParseUint(hex, 16, 31)
	if !ok || err != nil {
		return 0, fmt.Errorf("the id %.50q is not of this import", id)
	}
	return int(row), nil
}

func appendNumbers(dst []byte, v []float32) []byte {
	dst = append(dst, '[')
	for i, x := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendFloat(dst, float64(x), 'g', -1, 32)
	}
	return append(dst, ']')
}

func (w *Weaviate) header() http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	if w.APIKey != "" {
		h.Set("Authorization", "Bearer "+w.APIKey)
	}
	return h
}

func (w *Weaviate) prepare() *requests {
	r := &requests{method: http.MethodPost, url: w.endpoint("/v1/graphql"), header: w.header(), check: checkGraphQL}
	for i := range w.Queries.Len() {
		body := fmt.Appendf(nil, `{"query":"{Get{%s(limit:%d,nearVector:{vector:`, w.Class, w.K)
		body = appendNumbers(body, w.Queries.At(i))
		r.bodies = append(r.bodies, append(body, `}){_additional{id}}}}"}`...))
	}
	return r
}

// checkGraphQL returns an error if the answer tells of one, which GraphQL does with status 200.
func checkGraphQL(answer []byte) error {
	if bytes.Contains(answer, []byte(`"errors":`)) {
		return fmt.Errorf("server answered %.200s", answer)
	}
	return nil
}

func unmarshalGraphQL(answer []byte, into any) error {
	if err := checkGraphQL(answer); err != nil {
		return err
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%w in %.200s", err, answer)
	}
	return nil
}

// recall asks every query once.
func (w *Weaviate) recall(ctx context.Context, r *requests, truth [][]int32) (float64, error) {
	distance := index.DistanceFunc(w.Metric)
	right := 0
	var answer bytes.Buffer
	for i := range w.Queries.Len() {
		if err := r.send(ctx, http.DefaultClient, r.bodies[i], &answer); err != nil {
			return 0, err
		}
		var found struct {
			Data struct {
				Get map[string][]struct {
					Additional struct{ ID string } `json:"_additional"`
				}
			}
		}
		if err := unmarshalGraphQL(answer.Bytes(), &found); err != nil {
			return 0, err
		}
		query := w.Queries.At(i)
		bound := distance(query, w.Base.At(int(truth[i][w.K-1])))
		for _, hit := range found.Data.Get[w.Class] {
			row, err := weaviateRow(hit.Additional.ID)
			if err != nil {
				return 0, err
			}
			if row >= w.Base.Len() {
				return 0, fmt.Errorf("row %d was found among %d", row, w.Base.Len())
			}
			if distance(query, w.Base.At(row)) <= bound {
				right++
			}
		}
	}
	return float64(right) / float64(w.K*w.Queries.Len()), nil
}

func (w *Weaviate) endpoint(path string) string { return strings.TrimRight(w.URL, "/") + path }

// ask sends one request. The status is 0 where there was no answer; any other than 200 is an error.
func (w *Weaviate) ask(ctx context.Context, method, path string, body []byte) (answer []byte, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, weaviateTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, w.endpoint(path), bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header = w.header()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	if answer, err = io.ReadAll(io.LimitReader(resp.Body, weaviateAnswerMax)); err != nil {
		return nil, 0, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, resp.StatusCode, fmt.Errorf("%s %s: server answered %d: %.200s", method, path, resp.StatusCode, answer)
	}
	return answer, resp.StatusCode, nil
}

// weaviateAnswerMax bounds an answer; that to a batch repeats its vectors, of up to vectord.MaxDimension components.
const weaviateAnswerMax = weaviateBatch * vectord.MaxDimension * 24
