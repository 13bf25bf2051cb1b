package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/glosses"
	"github.com/vectord/vectord/bench/words"
	"github.com/vectord/vectord/client"
)

const (
	// hybridK is how many hits are judged.
	hybridK = 10

	// hybridPlain is how many of the rows, the first, are searches that are not fused.
	hybridPlain = 3

	hybridBatch       = 256 // points in one request
	hybridConnections = 2   // requests of points on their way at a time

	// HybridQueriesMax bounds the queries of each kind.
	HybridQueriesMax = 1 << 16

	// The names of the vectors.
	hybridDense  = "dense"
	hybridSparse = "text"

	bm25Model = "Qdrant/bm25"
)

// hybridShares and hybridRanks are the weights of the dense list, of 2 for both, and the constants that reciprocal rank fusion
// is tuned over.
var (
	hybridShares = [...]float32{0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.6, 1.8}
	hybridRanks  = [...]int{2, 10, 60}
)

// Hybrid measures how well a running server finds texts by their meaning, by their words and by both. The texts are definitions
// of WordNet, each with a dense vector made of its words' vectors and with BM25 weights that the server makes. Judged are two
// kinds of queries: sentences, each the example of one definition, and words, all definitions of which are right.
//
// Half of the queries only choose the weights and the constant of a reciprocal rank fusion. All searches are measured with
// the other half.
type Hybrid struct {
	Client     *client.Client
	URL        string
	APIKey     string
	Collection string // must not exist; it stays
	Synsets    []glosses.Synset
	Words      *words.Embedding

	// Headwords has the texts begin with the words that they define, as entries of a dictionary do. Then only sentences are
	// judged: to find a word in front of its definitions says little.
	Headwords bool

	Queries     int     // of each kind, or as many as there are
	Prefetch    int     // hits of each list that is fused
	AvgLen      float64 // tokens of an average text, a parameter of BM25; 0: the server's default
	Concurrency int     // connections that search, each sending when its last answer has come
}

// HybridReport is what Hybrid found.
type HybridReport struct {
	URL        string         `json:"url"`
	Collection string         `json:"collection"`
	Texts      int            `json:"texts"`
	WithVector int            `json:"with_vector"` // texts that have a word with a vector
	Headwords  bool           `json:"headwords"`
	Prefetch   int            `json:"prefetch"`
	AvgLen     float64        `json:"avg_len"`
	Judged     []HybridJudged `json:"judged"`
}

// HybridJudged is the measurement with queries of one kind.
type HybridJudged struct {
	Kind     string      `json:"kind"`     // sentences or words
	Queries  int         `json:"queries"`  // that were measured
	Relevant float64     `json:"relevant"` // texts, mean of the queries
	Rows     []HybridRow `json:"rows"`
}

// HybridRow is the measurement of one search. NDCG and Recall are means of what judge returns.
type HybridRow struct {
	Search    string  `json:"search"`
	NDCG      float64 `json:"ndcg"`
	NDCGError float64 `json:"ndcg_error"` // standard error of the mean
	Recall    float64 `json:"recall"`

	// Gain is by how much NDCG differs from that of the best search that is not fused, of the same queries, so that its error is
	// not that of two samples.
	Gain      float64 `json:"gain"`
	GainError float64 `json:"gain_error"` // standard error of its mean
	Latency
}

func (h *Hybrid) validate() error {
	switch {
	case len(h.Synsets) == 0:
		return errors.New("there are no glosses")
	case h.Queries < 2 || h.Queries > HybridQueriesMax:
		return fmt.Errorf("queries: %d invalid, must be from 2 to %d", h.Queries, HybridQueriesMax)
	case h.Prefetch < hybridK || h.Prefetch > vectord.MaxLimit:
		return fmt.Errorf("prefetch: %d invalid, must be from %d to %d", h.Prefetch, hybridK, vectord.MaxLimit)
	case !(h.AvgLen >= 0) || math.IsInf(h.AvgLen, 0):
		return fmt.Errorf("average length: %v invalid, must be a finite number from 0", h.AvgLen)
	case h.Concurrency < 1 || h.Concurrency > ServeConcurrencyMax:
		return fmt.Errorf("concurrency: %d invalid, must be from 1 to %d", h.Concurrency, ServeConcurrencyMax)
	}
	return nil
}

// Run does the measurement. progress is told about each step. When ctx ends, Run returns its error.
func (h *Hybrid) Run(ctx context.Context, progress func(step string)) (HybridReport, error) {
	if err := h.validate(); err != nil {
		return HybridReport{}, err
	}
	progress("making vectors of the texts")
	c := newHybridCorpus(h)
	report := HybridReport{URL: h.URL, Collection: h.Collection, Texts: len(c.texts), Headwords: h.Headwords, Prefetch: h.Prefetch, AvgLen: h.AvgLen}
	for _, v := range c.vectors {
		if v != nil {
			report.WithVector++
		}
	}
	if err := c.load(ctx, progress); err != nil {
		return report, err
	}
	kinds := []string{"sentences", "words"}
	if h.Headwords {
		kinds = kinds[:1]
	}
	for _, kind := range kinds {
		judged, err := c.judge(ctx, progress, kind, c.choose(c.answers(kind)))
		if err != nil {
			return report, err
		}
		report.Judged = append(report.Judged, judged)
	}
	return report, nil
}

// hybridCorpus is the texts of a measurement. A text that several synsets share is there once, and its id is its place.
type hybridCorpus struct {
	*Hybrid
	sif     *sif
	texts   []string
	vectors [][]float32 // nil for a text without known words
	ids     []uint64    // the text of each synset
}

func newHybridCorpus(h *Hybrid) *hybridCorpus {
	c := &hybridCorpus{Hybrid: h}
	places := make(map[string]uint64)
	for _, s := range h.Synsets {
		text := s.Definition
		if h.Headwords {
			text = strings.Join(s.Words, ", ") + ": " + text
		}
		id, ok := places[text]
		if !ok {
			id = uint64(len(c.texts))
			places[text] = id
			c.texts = append(c.texts, text)
		}
		c.ids = append(c.ids, id)
	}
	c.sif = newSIF(h.Words, c.texts)
	for _, text := range c.texts {
		c.vectors = append(c.vectors, c.sif.embed(text))
	}
	return c
}

// load makes the collection, writes the texts and waits until they are indexed.
func (c *hybridCorpus) load(ctx context.Context, progress func(string)) error {
	config := vectord.DefaultCollectionConfig(c.Words.Vectors.Dim, vectord.Cosine)
	config.Params.Vectors = vectord.VectorsParams{hybridDense: {Size: c.Words.Vectors.Dim, Distance: vectord.Cosine}}
	config.Params.SparseVectors = map[string]vectord.SparseParams{hybridSparse: {Modifier: vectord.ModifierIDF}}
	if err := c.Client.CreateCollection(ctx, c.Collection, config); err != nil {
		return err
	}
	progress(fmt.Sprintf("writing %d texts", len(c.texts)))
	load := Load{Client: c.Client, Collection: c.Collection, Batch: hybridBatch, Concurrency: hybridConnections}
	if _, err := load.Run(ctx, &hybridPoints{hybridCorpus: c}); err != nil {
		return err
	}
	progress("waiting for the index")
	return settle(ctx, c.Client, c.Collection)
}

// document returns the text as the server is to make a sparse vector of it.
func (c *hybridCorpus) document(text string) vectord.Vector {
	d := &vectord.Document{Text: text, Model: bm25Model}
	if c.AvgLen > 0 {
		d.Options = fmt.Appendf(nil, `{"avg_len":%v}`, c.AvgLen)
	}
	return vectord.Vector{Kind: vectord.TextVector, Text: d}
}

// hybridPoints reads the texts as points.
type hybridPoints struct {
	*hybridCorpus
	next int
}

// Next implements dataset.Reader.
func (p *hybridPoints) Next() (vectord.Point, error) {
	if p.next == len(p.texts) {
		return vectord.Point{}, io.EOF
	}
	i := p.next
	p.next++
	payload, err := json.Marshal(map[string]string{"text": p.texts[i]})
	if err != nil {
		return vectord.Point{}, err
	}
	point := vectord.Point{ID: vectord.NumberID(uint64(i)), Payload: payload,
		Vectors: vectord.Vectors{{Name: hybridSparse, Vector: p.document(p.texts[i])}}}
	if v := p.vectors[i]; v != nil {
		point.Vectors = append(point.Vectors, vectord.NamedVector{Name: hybridDense, Vector: vectord.Dense(v)})
	}
	return point, nil
}

// answers returns the queries of a kind and the texts that answer each, ids ascending.
func (c *hybridCorpus) answers(kind string) map[string][]uint64 {
	found := make(map[string][]uint64)
	for i, s := range c.Synsets {
		queries := s.Examples
		if kind == "words" {
			queries = s.Words
		}
		for _, q := range queries {
			found[q] = append(found[q], c.ids[i])
		}
	}
	for q, ids := range found {
		slices.Sort(ids)
		found[q] = slices.Compact(ids)
	}
	return found
}

// hybridQuery is a query and its answers.
type hybridQuery struct {
	text     string
	vector   []float32
	relevant []uint64 // ids, ascending
}

// choose takes as many queries as are wanted, at random among those that have a word with a vector: the same each time, so that
// runs can be compared.
func (c *hybridCorpus) choose(answers map[string][]uint64) []hybridQuery {
	var queries []hybridQuery
	texts := make([]string, 0, len(answers))
	for text := range answers {
		texts = append(texts, text)
	}
	slices.Sort(texts)
	rng := rand.New(rand.NewPCG(4, 7))
	rng.Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
	for _, text := range texts {
		if v := c.sif.embed(text); v != nil && len(queries) < c.Queries {
			queries = append(queries, hybridQuery{text, v, answers[text]})
		}
	}
	return queries
}

// hybridSearch is a way to search.
type hybridSearch struct {
	name  string
	query func(q *hybridQuery) vectord.Query
}

func (c *hybridCorpus) dense(q *hybridQuery) vectord.Query {
	return vectord.Query{Nearest: vectord.Near(q.vector), Using: hybridDense, Limit: hybridK}
}

func (c *hybridCorpus) exact(q *hybridQuery) vectord.Query {
	query := c.dense(q)
	query.Params.Exact = true
	return query
}

func (c *hybridCorpus) sparse(q *hybridQuery) vectord.Query {
	return vectord.Query{Nearest: &vectord.Example{Vector: c.document(q.text)}, Using: hybridSparse, Limit: hybridK}
}

func (c *hybridCorpus) fused(name string, f vectord.Fusion) hybridSearch {
	return hybridSearch{name, func(q *hybridQuery) vectord.Query {
		query := vectord.Query{Fusion: &f, Prefetch: []vectord.Query{c.dense(q), c.sparse(q)}, Limit: hybridK}
		for i := range query.Prefetch {
			query.Prefetch[i].Limit = c.Prefetch
		}
		return query
	}}
}

// weighted returns reciprocal rank fusions, with weights of the dense and the sparse list.
func (c *hybridCorpus) weighted(k int, dense float32) hybridSearch {
	return c.fused(fmt.Sprintf("rrf, k %d, weights %.1f and %.1f", k, dense, 2-dense),
		vectord.Fusion{K: k, Weights: []float32{dense, 2 - dense}})
}

// judge tunes with every other query and measures with the rest.
func (c *hybridCorpus) judge(ctx context.Context, progress func(string), kind string, queries []hybridQuery) (HybridJudged, error) {
	if len(queries) < 2 {
		return HybridJudged{}, fmt.Errorf("%s: %d queries, at least 2 are needed", kind, len(queries))
	}
	var tuning, measured []hybridQuery
	report := HybridJudged{Kind: kind}
	for i, q := range queries {
		if i%2 == 0 {
			tuning = append(tuning, q)
			continue
		}
		measured = append(measured, q)
		report.Relevant += float64(len(q.relevant))
	}
	report.Queries = len(measured)
	report.Relevant /= float64(len(measured))

	var tuned hybridSearch
	most := -1.0
	for _, k := range hybridRanks {
		for _, share := range hybridShares {
			s := c.weighted(k, share)
			progress(fmt.Sprintf("%s: tuning: %s", kind, s.name))
			row, _, err := c.measure(ctx, s, tuning)
			if err != nil {
				return report, err
			}
			if row.NDCG > most {
				most, tuned = row.NDCG, s
			}
		}
	}
	var gains [][]float64 // of each query, by row
	for _, s := range []hybridSearch{
		{"dense, exact", c.exact},
		{"dense", c.dense},
		{"bm25", c.sparse},
		c.fused("rrf", vectord.Fusion{}),
		c.fused("rrf, k 60", vectord.Fusion{K: 60}),
		{"tuned: " + tuned.name, tuned.query},
		c.fused("dbsf", vectord.Fusion{Method: vectord.DistributionScore}),
	} {
		progress(fmt.Sprintf("%s: %s", kind, s.name))
		row, gain, err := c.measure(ctx, s, measured)
		if err != nil {
			return report, err
		}
		report.Rows, gains = append(report.Rows, row), append(gains, gain)
	}
	best := 0
	for i := range hybridPlain {
		if report.Rows[i].NDCG > report.Rows[best].NDCG {
			best = i
		}
	}
	base := slices.Clone(gains[best])
	for i := range report.Rows {
		for q := range base {
			gains[i][q] -= base[q]
		}
		report.Rows[i].Gain, report.Rows[i].GainError = meanOf(gains[i])
	}
	return report, nil
}

// meanOf returns the mean of values and its standard error.
func meanOf(values []float64) (mean, deviation float64) {
	n := float64(len(values))
	for _, x := range values {
		mean += x
	}
	mean /= n
	for _, x := range values {
		deviation += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(deviation) / n
}

// measure sends each query once. It also returns the nDCG of each.
func (c *hybridCorpus) measure(ctx context.Context, s hybridSearch, queries []hybridQuery) (HybridRow, []float64, error) {
	r := pointRequests(http.MethodPost, c.URL, c.Collection, "/query", c.APIKey)
	for i := range queries {
		body, err := client.AppendQuery(nil, s.query(&queries[i]))
		if err != nil {
			return HybridRow{}, nil, err
		}
		r.bodies = append(r.bodies, body)
	}
	ndcg, recall := make([]float64, len(queries)), make([]float64, len(queries))
	durations, err := r.once(ctx, c.Concurrency, func(i int, answer []byte) error {
		ids, err := answerIDs(answer)
		ndcg[i], recall[i] = judge(ids, queries[i].relevant)
		return err
	})
	if err != nil {
		return HybridRow{}, nil, fmt.Errorf("%s: %w", s.name, err)
	}
	row := HybridRow{Search: s.name, Latency: latencyOf(durations)}
	row.NDCG, row.NDCGError = meanOf(ndcg)
	row.Recall, _ = meanOf(recall)
	return row, ndcg, nil
}

// once sends every request once, over so many connections, and hands each answer on, from several goroutines. It returns how
// long the requests took, or the first error.
func (r *requests) once(ctx context.Context, connections int, take func(i int, answer []byte) error) ([]time.Duration, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	web := &http.Client{Transport: transport, Timeout: requestTimeout}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	durations := make([]time.Duration, len(r.bodies))
	var next atomic.Int64
	var callers sync.WaitGroup
	for range connections {
		callers.Go(func() {
			var answer bytes.Buffer
			for ctx.Err() == nil {
				i := int(next.Add(1) - 1)
				if i >= len(r.bodies) {
					return
				}
				begin := time.Now()
				err := r.send(ctx, web, r.bodies[i], &answer)
				durations[i] = time.Since(begin)
				if err == nil {
					err = take(i, answer.Bytes())
				}
				if err != nil {
					cancel(err)
				}
			}
		})
	}
	callers.Wait()
	return durations, context.Cause(ctx)
}

// answerIDs returns the ids of the hits in an answer, all of which must be numbers.
func answerIDs(answer []byte) ([]uint64, error) {
	var hits struct {
		Result struct {
			Points []struct {
				ID uint64 `json:"id"`
			} `json:"points"`
		} `json:"result"`
	}
	if err := json.Unmarshal(answer, &hits); err != nil {
		return nil, fmt.Errorf("answer %.80q: %w", answer, err)
	}
	ids := make([]uint64, len(hits.Result.Points))
	for i, p := range hits.Result.Points {
		ids[i] = p.ID
	}
	return ids, nil
}

// judge weighs the first hybridK hits, best first, against the relevant ids, which ascend. Recall is the share of the relevant
// that are among them. The normalised discounted cumulative gain (Järvelin, Kekäläinen: ACM TOIS 20, 2002) gives each relevant
// hit 1 / log2(1 + place), places from 1, and divides by the most that there could be.
func judge(hits, relevant []uint64) (ndcg, recall float64) {
	var gain, most float64
	found := 0
	for i := range min(hybridK, max(len(hits), len(relevant))) {
		worth := 1 / math.Log2(float64(i+2))
		if i < len(relevant) {
			most += worth
		}
		if i < len(hits) {
			if _, right := slices.BinarySearch(relevant, hits[i]); right {
				gain += worth
				found++
			}
		}
	}
	return gain / most, float64(found) / float64(len(relevant))
}

// WriteTable writes the report for people.
func (r *HybridReport) WriteTable(w io.Writer) error {
	of := "definitions"
	if r.Headwords {
		of = "definitions with their words"
	}
	avgLen := "default"
	if r.AvgLen > 0 {
		avgLen = fmt.Sprint(r.AvgLen)
	}
	fmt.Fprintf(w, "%s · collection %s · %d %s, %d with a dense vector · prefetch %d · avg_len %s\n",
		r.URL, r.Collection, r.Texts, of, r.WithVector, r.Prefetch, avgLen)
	for _, j := range r.Judged {
		fmt.Fprintf(w, "\n%s: %d queries, %.2f texts right in the mean\n\n", j.Kind, j.Queries, j.Relevant)
		rows := make([][]string, len(j.Rows))
		for i, row := range j.Rows {
			rows[i] = append([]string{row.Search, fmt.Sprintf("%.4f", row.NDCG), fmt.Sprintf("%.4f", row.NDCGError), fmt.Sprintf("%.4f", row.Recall),
				fmt.Sprintf("%+.4f", row.Gain), fmt.Sprintf("%.4f", row.GainError)}, row.cells()...)
		}
		header := []string{"search", fmt.Sprintf("nDCG@%d", hybridK), "±", fmt.Sprintf("recall@%d", hybridK), "gain", "±"}
		if err := table(w, append(header, latencyHeader...), rows); err != nil {
			return err
		}
	}
	return nil
}
