package main

import (
	"fmt"

	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/dataset"
)

type benchChurnCmd struct {
	Base        string `help:"Vectors to index: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query       string `help:"Vectors to search for." required:"" placeholder:"FILE"`
	Metric      string `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	K           int    `help:"Neighbors to find." default:"10" name:"k"`
	M           int    `help:"Links of a node." default:"16" name:"m"`
	EfConstruct int    `help:"Candidates while building." default:"200" name:"ef-construction"`
	codecFlags  `embed:""`
	Ef          int     `help:"Candidates while searching." default:"100"`
	Threads     int     `help:"Threads that build, insert and search." default:"1"`
	Rounds      int     `help:"Times that a share is deleted and inserted." default:"10"`
	Share       float64 `help:"Part of the vectors that a round deletes." default:"0.05"`
	Replace     bool    `help:"Begin with half of the vectors and insert those of the other half for them."`
	Cycles      int     `help:"Single deletes and inserts after the rounds." default:"0"`
	JSON        bool    `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench churn --help.
func (benchChurnCmd) Help() string {
	return `Examples:

    vectord bench churn --base base.fvecs --query query.fvecs --metric cosine --rounds 10 --share 0.05
    vectord bench churn --base base.fvecs --query query.fvecs --replace --rounds 10 --share 0.1
    vectord bench churn --base base.fvecs --query query.fvecs --rounds 0 --cycles 1000000

The graph is built and changed in this process. Freed slots are given again and deleted nodes taken out as in the server, and
µs/delete has its share of the passes that do the latter. Recall should stay within 0.01 of what it was, memory within 1.1
times, and over many cycles resident memory, slots and goroutines should not grow.

With --replace recall is counted against what the graph holds after each round, which is other data than at the beginning:
the last row, a graph built anew of the same vectors, is what to compare with.`
}

// Run measures.
func (c *benchChurnCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	b := bench.Churn{Metric: metric, K: c.K, M: c.M, EfConstruct: c.EfConstruct, Codec: c.name(), Ef: c.Ef, Threads: c.Threads, Rounds: c.Rounds,
		Share: c.Share, Replace: c.Replace, Cycles: c.Cycles}
	if b.Base, err = dataset.LoadVectors(c.Base, benchBaseMax); err != nil {
		return err
	}
	if b.Queries, err = dataset.LoadVectors(c.Query, benchQueriesMax); err != nil {
		return err
	}
	return printRun(s, c.JSON, b.Run)
}
