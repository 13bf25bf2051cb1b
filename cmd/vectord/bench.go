package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vectord/vectord"
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
	Memory benchMemoryCmd `cmd:"" help:"Measure the memory of an index in this process."`
	Truth  benchTruthCmd  `cmd:"" help:"Find the true neighbors of queries and write them to a file."`

	Compare     benchCompareCmd     `cmd:"" help:"Compare the reports of several engines."`
	Recall      benchRecallCmd      `cmd:"" help:"Watch a running server hold its recall while the data drifts."`
	Churn       benchChurnCmd       `cmd:"" help:"Build an index in this process and measure what deletes and inserts do to it."`
	Collections benchCollectionsCmd `cmd:"" help:"Measure in this process what many empty collections cost."`
	Mixed       benchMixedCmd       `cmd:"" help:"Measure searches of a running server during writes, and writes during searches."`
	Hybrid      benchHybridCmd      `cmd:"" help:"Measure how well a running server finds texts by meaning, by words and by both."`
	Tasks       benchTasksCmd       `cmd:"" help:"Measure in this process tasks that are durable, through each door."`
	Messages    benchMessagesCmd    `cmd:"" help:"Measure in this process tasks that are in memory only, through each door."`
	Route       benchRouteCmd       `cmd:"" help:"Measure in this process how fast and how evenly tasks find agents."`
	Footprint   benchFootprintCmd   `cmd:"" help:"Measure the memory of a server that has an index, agents and a full queue."`
}

type benchANNCmd struct {
	Base        string `help:"Vectors to index: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query       string `help:"Vectors to search for." required:"" placeholder:"FILE"`
	Truth       string `help:"True neighbors of the queries as rows of the base (.ivecs); found by comparing all unless given." placeholder:"FILE"`
	Metric      string `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	K           int    `help:"Neighbors to find." default:"10" name:"k"`
	M           int    `help:"Links of a node." default:"16" name:"m"`
	EfConstruct int    `help:"Candidates while building." default:"200" name:"ef-construction"`
	codecFlags  `embed:""`
	Ef          []int  `help:"Candidates while searching, one measurement each." default:"10,20,40,80,160,320"`
	Threads     int    `help:"Threads that build and search." default:"1"`
	Batch       int    `help:"Queries of one call, between which the search takes turns; 0 searches for one at a time." default:"0"`
	JSON        bool   `help:"Print one line of JSON instead of a table." name:"json"`
	Plot        string `help:"Also draw recall against queries per second (.svg or .png)." placeholder:"FILE"`
}

// codecFlags name the codes of a measurement.
type codecFlags struct {
	Codec       string `help:"What the graph compares by: ${enum}." default:"int8" enum:"int8,binary,float32,product"`
	Compression string `help:"Of product: how many times smaller than the vectors its codes are: ${enum}." default:"x16" enum:"x4,x8,x16,x32,x64"`
}

// name is one of bench.Codecs.
func (c *codecFlags) name() string {
	if c.Codec == vectord.CodecProduct {
		return c.Codec + "-" + c.Compression
	}
	return c.Codec
}

// Help is shown by bench ann --help.
func (benchANNCmd) Help() string {
	return `Example:

    vectord bench ann --base base.fvecs --query query.fvecs --metric cosine --k 10 --ef 20,40,80,160 --plot recall.svg

A search walks the graph on its codes and compares the best candidates again at full precision, as many as the server does:
max(2k, 30) with int8. Recall counts a point as right if it is no further than the k-th true neighbor.`
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
	a := bench.ANN{Metric: metric, K: c.K, M: c.M, EfConstruct: c.EfConstruct, Ef: c.Ef, Threads: c.Threads,
		Batch: c.Batch, Codec: c.name()}
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
		plot := bench.Plot{Series: []bench.Series{{Points: report.PlotPoints()}},
			Title: fmt.Sprintf("%s: %d × %d %s, recall@%d", filepath.Base(c.Base), report.N, report.Dim, report.Metric, c.K)}
		if err := writePlot(c.Plot, &plot); err != nil {
			return err
		}
	}
	return printReport(s.stdout, c.JSON, report, report.WriteTable)
}

type benchTruthCmd struct {
	Base   string `help:"Vectors to compare with: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query  string `help:"Vectors to find the neighbors of." required:"" placeholder:"FILE"`
	Metric string `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	K      int    `help:"Neighbors of each query." default:"100" name:"k"`
	Out    string `help:"File to write (.ivecs): a row for each query, rows of the base, nearest first." required:"" placeholder:"FILE"`
}

// Help is shown by bench truth --help.
func (benchTruthCmd) Help() string {
	return `Example:

    vectord bench truth --base base.fvecs --query query.fvecs --metric cosine --out truth.ivecs

The file is what --truth of the other measurements, and the drivers in bench/peers, take.`
}

// Run compares.
func (c *benchTruthCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	base, err := dataset.LoadVectors(c.Base, benchBaseMax)
	if err != nil {
		return err
	}
	queries, err := dataset.LoadVectors(c.Query, benchQueriesMax)
	if err != nil {
		return err
	}
	if most := min(base.Len(), vectord.MaxLimit); c.K < 1 || c.K > most {
		return fmt.Errorf("--k: %d invalid, must be from 1 to %d", c.K, most)
	}
	if metric == vectord.Cosine {
		base.Normalize()
		queries.Normalize()
	}
	truth, err := bench.Truth(s.ctx, metric, base, queries, c.K)
	if err != nil {
		return err
	}
	var rows []byte
	for _, row := range truth {
		rows = dataset.AppendIVec(rows, row)
	}
	return os.WriteFile(c.Out, rows, 0o644)
}

type benchCompareCmd struct {
	Results []string `arg:"" help:"Files of reports as JSON lines, one file for each data set." placeholder:"FILE"`
	Plot    string   `help:"Also draw the engines of each file in this folder, NAME.png for NAME.jsonl." placeholder:"FOLDER"`
}

// Help is shown by bench compare --help.
func (benchCompareCmd) Help() string {
	return `Example:

    vectord bench compare --plot pictures words.jsonl fashion-mnist.jsonl

A line is what bench ann --json or a driver in bench/peers prints; of several lines of an engine the medians count. The
speed at a recall is taken from the line between the two neighboring measurements.`
}

// Run compares.
func (c *benchCompareCmd) Run(s *session) error {
	for i, path := range c.Results {
		comparison, err := readComparison(path)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
		if i > 0 {
			fmt.Fprintln(s.stdout)
		}
		fmt.Fprintf(s.stdout, "%s: ", name)
		if err := comparison.WriteTable(s.stdout); err != nil {
			return err
		}
		if c.Plot != "" {
			report := comparison.Engines[0]
			title := fmt.Sprintf("%s: %d × %d %s", name, report.N, report.Dim, report.Metric)
			if err := writePlot(filepath.Join(c.Plot, name+".png"), comparison.Plot(title)); err != nil {
				return err
			}
		}
	}
	return nil
}

func readComparison(path string) (*bench.Comparison, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	comparison, err := bench.Compare(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return comparison, nil
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
	return printRun(s, c.JSON, b.Run)
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

type benchRecallCmd struct {
	serverFlags `embed:""`
	Collection  string        `help:"Collection to create; it stays." default:"recall"`
	Base        string        `help:"Vectors of its points: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query       string        `help:"Vectors to search for." required:"" placeholder:"FILE"`
	DriftBase   string        `help:"Vectors that the points become." placeholder:"FILE"`
	DriftQuery  string        `help:"Vectors to search for as they do." placeholder:"FILE"`
	Metric      string        `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	Steps       int           `help:"Steps in which the points are replaced." default:"4"`
	Stage       time.Duration `help:"Time before each step and after the last." default:"2m"`
	Every       time.Duration `help:"Time between looks at the recall." default:"15s"`
	Rate        float64       `help:"Searches a second that go on all the time." default:"100"`
	JSON        bool          `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench recall --help.
func (benchRecallCmd) Help() string {
	return `Example:

    vectord bench recall --base base.fvecs --query query.fvecs --metric euclid \
        --drift-base other.fvecs --drift-query other-query.fvecs --steps 4

No search says an ef: the server has to choose it for the collection's recall target. Half of the queries are sent all the
time; what is found of the other half is compared with the truth.`
}

// Run measures.
func (c *benchRecallCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	server, err := c.client(benchAttempts)
	if err != nil {
		return err
	}
	r := bench.Recall{Client: server, URL: c.URL, Collection: c.Collection, Metric: metric, Steps: c.Steps, Stage: c.Stage, Every: c.Every, Rate: c.Rate}
	for _, file := range []struct {
		path  string
		limit int
		into  **dataset.Vectors
	}{
		{c.Base, benchBaseMax, &r.Base}, {c.Query, benchQueriesMax, &r.Queries},
		{c.DriftBase, benchBaseMax, &r.DriftBase}, {c.DriftQuery, benchQueriesMax, &r.DriftQueries},
	} {
		if file.path == "" {
			continue
		}
		if *file.into, err = dataset.LoadVectors(file.path, file.limit); err != nil {
			return err
		}
	}
	return printRun(s, c.JSON, r.Run)
}

// loadTruth reads an ivecs file; without a path there is no truth.
func loadTruth(path string) ([][]int32, error) {
	if path == "" {
		return nil, nil
	}
	return dataset.LoadIVecs(path, benchQueriesMax)
}

// plotFormats are how a plot is written, by what the file's name ends in.
var plotFormats = map[string]func(*bench.Plot, io.Writer) error{
	".svg": (*bench.Plot).WriteSVG,
	".png": (*bench.Plot).WritePNG,
}

func checkPlot(path string) error {
	if path != "" && plotFormats[filepath.Ext(path)] == nil {
		return fmt.Errorf("--plot: %s ends in neither .svg nor .png", path)
	}
	return nil
}

// writePlot writes to a path that checkPlot has let pass.
func writePlot(path string, plot *bench.Plot) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(plotFormats[filepath.Ext(path)](plot, f), f.Close())
}

// printRun runs a benchmark, showing how far it is, and prints its report.
func printRun[R any, P interface {
	*R
	WriteTable(w io.Writer) error
}](s *session, asJSON bool,
	run func(ctx context.Context, progress func(string)) (R, error),
) error {
	bar := newProgress(s.stderr)
	report, err := run(s.ctx, bar.show)
	bar.clear()
	if err != nil {
		return err
	}
	return printReport(s.stdout, asJSON, report, P(&report).WriteTable)
}

// printReport writes a report as one line of JSON or as a table.
func printReport(w io.Writer, asJSON bool, report any, table func(io.Writer) error) error {
	if !asJSON {
		return table(w)
	}
	return json.NewEncoder(w).Encode(report)
}
