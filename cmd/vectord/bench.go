package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/dataset"
)

const (
	// benchBaseMax and benchQueriesMax bound what a measurement reads into memory.
	benchBaseMax    = 1 << 27
	benchQueriesMax = 1 << 20

	// benchAttempts is 1: a request that has to be sent again would hide what is measured.
	benchAttempts = 1
)

type benchCmd struct {
	ANN    benchANNCmd    `cmd:"" name:"ann" help:"Build an index in this process and measure recall and latency."`
	Filter benchFilterCmd `cmd:"" help:"Build an index in this process and measure searches under filters."`
	Serve  benchServeCmd  `cmd:"" help:"Measure the searches of a running server."`
	Ingest benchIngestCmd `cmd:"" help:"Measure the writes of a running server."`
}

type benchANNCmd struct {
	Base        string `help:"Vectors to index: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query       string `help:"Vectors to search for." required:"" placeholder:"FILE"`
	Truth       string `help:"True neighbors of the queries as rows of the base (.ivecs); found by comparing all unless given." placeholder:"FILE"`
	Metric      string `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	K           int    `help:"Neighbors to find." default:"10" name:"k"`
	M           int    `help:"Links of a node." default:"16" name:"m"`
	EfConstruct int    `help:"Candidates while building." default:"200" name:"ef-construction"`
	Ef          []int  `help:"Candidates while searching, one measurement each." default:"10,20,40,80,160,320"`
	Threads     int    `help:"Threads that build and search." default:"1"`
	JSON        bool   `help:"Print one line of JSON instead of a table." name:"json"`
	Plot        string `help:"Also draw recall against queries per second (.svg)." placeholder:"FILE"`
}

// Help is shown by bench ann --help.
func (benchANNCmd) Help() string {
	return `Example:

    vectord bench ann --base base.fvecs --query query.fvecs --metric cosine --k 10 --ef 20,40,80,160 --plot recall.svg

A search walks the graph on int8 codes and compares the best max(2k, 30) candidates again at full precision, as the server
does. Recall counts a point as right if it is no further than the k-th true neighbor.`
}

// Run measures.
func (c *benchANNCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	if err := checkPlot(c.Plot); err != nil {
		return err
	}
	a := bench.ANN{Metric: metric, K: c.K, M: c.M, EfConstruct: c.EfConstruct, Ef: c.Ef, Threads: c.Threads}
	if a.Base, err = dataset.LoadVectors(c.Base, benchBaseMax); err != nil {
		return err
	}
	if a.Queries, err = dataset.LoadVectors(c.Query, benchQueriesMax); err != nil {
		return err
	}
	if a.Truth, err = loadTruth(c.Truth); err != nil {
		return err
	}
	bar := newProgress(s.stderr)
	report, err := a.Run(s.ctx, bar.show)
	bar.clear()
	if err != nil {
		return err
	}
	if c.Plot != "" {
		title := fmt.Sprintf("%s: %d × %d %s, recall@%d", filepath.Base(c.Base), report.N, report.Dim, report.Metric, c.K)
		if err := writePlot(c.Plot, title, report.PlotPoints()); err != nil {
			return err
		}
	}
	return printReport(s.stdout, c.JSON, report, report.WriteTable)
}

type benchFilterCmd struct {
	Base         string    `help:"Vectors to index: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query        string    `help:"Vectors to search for." required:"" placeholder:"FILE"`
	Metric       string    `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	K            int       `help:"Neighbors to find." default:"10" name:"k"`
	M            int       `help:"Links of a node." default:"16" name:"m"`
	EfConstruct  int       `help:"Candidates while building." default:"200" name:"ef-construction"`
	Keep         []float64 `help:"Percent of the vectors that a filter keeps, two measurements each." default:"100,50,20,10,5,2,1,0.5,0.1"`
	Ef           int       `help:"Candidates while searching; 0 is the least that reaches the recall target without a filter." default:"0"`
	RecallTarget float64   `help:"Recall without a filter from which ef follows." default:"0.98"`
	Threads      int       `help:"Threads that build and search." default:"1"`
	JSON         bool      `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench filter --help.
func (benchFilterCmd) Help() string {
	return `Example:

    vectord bench filter --base base.fvecs --query query.fvecs --metric cosine --keep 50,10,1

For each share two kinds of filter are measured: random, which keeps vectors whatever the query is, and far, which keeps
those that are farthest from the center of the query's cluster. Recall counts what matches only. The first row has no
filter.`
}

// Run measures.
func (c *benchFilterCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	f := bench.Filtered{Keep: c.Keep, RecallTarget: c.RecallTarget,
		ANN: bench.ANN{Metric: metric, K: c.K, M: c.M, EfConstruct: c.EfConstruct, Threads: c.Threads}}
	if c.Ef != 0 {
		f.Ef = []int{c.Ef}
	}
	if f.Base, err = dataset.LoadVectors(c.Base, benchBaseMax); err != nil {
		return err
	}
	if f.Queries, err = dataset.LoadVectors(c.Query, benchQueriesMax); err != nil {
		return err
	}
	bar := newProgress(s.stderr)
	report, err := f.Run(s.ctx, bar.show)
	bar.clear()
	if err != nil {
		return err
	}
	return printReport(s.stdout, c.JSON, report, report.WriteTable)
}

type benchServeCmd struct {
	serverFlags `embed:""`
	Collection  string        `help:"Collection to search." required:""`
	Query       string        `help:"Vectors to search for: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Truth       string        `help:"Ids of the queries' true neighbors (.ivecs); without it the server is asked for some exact searches." placeholder:"FILE"`
	K           int           `help:"Neighbors to find." default:"10" name:"k"`
	Ef          int           `help:"Candidates while searching; 0 is the collection's own." default:"0"`
	Concurrency []int         `help:"Connections, one measurement each." default:"1,2,8,16"`
	Duration    time.Duration `help:"Length of each measurement." default:"10s"`
	Rate        float64       `help:"Start so many requests a second whatever the answers do; 0 sends when the last answer has come." default:"0"`
	JSON        bool          `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench serve --help.
func (benchServeCmd) Help() string {
	return `Examples:

    vectord bench serve --collection words --query query.fvecs --ef 120
    vectord bench serve --collection words --query query.fvecs --concurrency 16 --rate 2000 --duration 30s --json

With --rate latencies count from when a request should have been sent, so that a server that stalls is charged with the
requests that had to wait.`
}

// Run measures.
func (c *benchServeCmd) Run(s *session) error {
	key, err := secret("api-key", c.APIKey, c.APIKeyFile)
	if err != nil {
		return err
	}
	b := bench.Serve{URL: c.URL, APIKey: key, Collection: c.Collection, K: c.K, Ef: c.Ef, Concurrency: c.Concurrency, Duration: c.Duration, Rate: c.Rate}
	if b.Queries, err = dataset.LoadVectors(c.Query, benchQueriesMax); err != nil {
		return err
	}
	if b.Truth, err = loadTruth(c.Truth); err != nil {
		return err
	}
	bar := newProgress(s.stderr)
	report, err := b.Run(s.ctx, bar.show)
	bar.clear()
	if err != nil {
		return err
	}
	return printReport(s.stdout, c.JSON, report, report.WriteTable)
}

type benchIngestCmd struct {
	serverFlags `embed:""`
	Collection  string `help:"Collection to write to, created if missing; it stays." default:"bench"`
	Base        string `help:"Vectors to write: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Metric      string `help:"Of a new collection: cosine, euclid, dot or manhattan." default:"cosine"`
	Batch       int    `help:"Points in one request." default:"256"`
	Concurrency int    `help:"Requests on their way at a time." default:"4"`
	JSON        bool   `help:"Print one line of JSON instead of a table." name:"json"`
}

// Run measures.
func (c *benchIngestCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	server, err := c.client(benchAttempts)
	if err != nil {
		return err
	}
	base, err := dataset.Open(c.Base, dataset.Options{NumberRows: true})
	if err != nil {
		return err
	}
	defer base.Close()
	g := bench.Ingest{Client: server, URL: c.URL, Collection: c.Collection, Base: base, Metric: metric, Batch: c.Batch, Concurrency: c.Concurrency}
	report, err := g.Run(s.ctx)
	if err != nil {
		return err
	}
	return printReport(s.stdout, c.JSON, report, report.WriteTable)
}

// loadTruth reads an ivecs file; without a path there is no truth.
func loadTruth(path string) ([][]int32, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	truth, err := dataset.ReadIVecs(f, benchQueriesMax)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return truth, nil
}

func checkPlot(path string) error {
	if path != "" && !strings.EqualFold(filepath.Ext(path), ".svg") {
		return fmt.Errorf("--plot: %s does not end in .svg, the only format drawn", path)
	}
	return nil
}

func writePlot(path, title string, points []bench.Point) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(bench.WritePlot(f, title, points), f.Close())
}

// printReport writes a report as one line of JSON or as a table.
func printReport(w io.Writer, asJSON bool, report any, table func(io.Writer) error) error {
	if !asJSON {
		return table(w)
	}
	return json.NewEncoder(w).Encode(report)
}
