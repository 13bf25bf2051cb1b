package main

import (
	"fmt"

	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/dataset"
)

type benchFilterCmd struct {
	Base         string `help:"Vectors to index: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query        string `help:"Vectors to search for." required:"" placeholder:"FILE"`
	Metric       string `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	K            int    `help:"Neighbors to find." default:"10" name:"k"`
	M            int    `help:"Links of a node." default:"16" name:"m"`
	EfConstruct  int    `help:"Candidates while building." default:"200" name:"ef-construction"`
	codecFlags   `embed:""`
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
		ANN: bench.ANN{Metric: metric, K: c.K, M: c.M, EfConstruct: c.EfConstruct, Codec: c.name(), Threads: c.Threads}}
	if c.Ef != 0 {
		f.Ef = []int{c.Ef}
	}
	if f.Base, err = dataset.LoadVectors(c.Base, benchBaseMax); err != nil {
		return err
	}
	if f.Queries, err = dataset.LoadVectors(c.Query, benchQueriesMax); err != nil {
		return err
	}
	return printRun(s, c.JSON, f.Run)
}
