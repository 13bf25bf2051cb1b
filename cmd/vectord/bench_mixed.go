package main

import (
	"fmt"
	"time"

	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/dataset"
)

type benchMixedCmd struct {
	serverFlags `embed:""`
	Collection  string        `help:"Collection of this measurement, created if missing; it stays." default:"bench-mixed"`
	Base        string        `help:"Vectors to hold and to write: .fvecs, .npy or .jsonl." required:"" placeholder:"FILE"`
	Query       string        `help:"Vectors to search for." required:"" placeholder:"FILE"`
	Metric      string        `help:"Of a new collection: cosine, euclid, dot or manhattan." default:"cosine"`
	K           int           `help:"Neighbors to find." default:"10" name:"k"`
	Ef          int           `help:"Candidates while searching; 0 is the collection's own." default:"0"`
	Concurrency int           `help:"Connections that search, each sending when its last answer has come." default:"8"`
	Writers     int           `help:"Connections that write." default:"16"`
	WriteRate   float64       `help:"Points to write each second, whatever the answers do." default:"500"`
	WriteBatch  int           `help:"Points in one request." default:"5"`
	Duration    time.Duration `help:"Length of each half of a round." default:"5s"`
	Rounds      int           `help:"Times to search alone and then beside writes." default:"3"`
	Replace     bool          `help:"Write points that the collection holds instead of new ones."`
	JSON        bool          `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench mixed --help.
func (benchMixedCmd) Help() string {
	return `Examples:

    vectord bench mixed --base base.fvecs --query query.fvecs --metric cosine --ef 200
    vectord bench mixed --base base.fvecs --query query.fvecs --write-rate 2000 --write-batch 20 --replace

Each round searches alone and then beside a writer, so that other work on the machine falls on both alike. A write is durable
and findable when it is answered. Its latency counts from when it should have been sent: a server that stalls is charged with
the writes that had to wait.

The collection gets all vectors but the last tenth, which is what is written and, after each round, deleted. With --replace
points are written that it holds already, so that each write takes a vector out of the index and puts one in.

Good figures: a p99 of writes below 50 ms, and a p99 of searches during writes of no more than twice that of searches alone.`
}

// Run measures.
func (c *benchMixedCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	key, err := secret("api-key", c.APIKey, c.APIKeyFile)
	if err != nil {
		return err
	}
	b := bench.Mixed{URL: c.URL, APIKey: key, Collection: c.Collection, Metric: metric, K: c.K, Ef: c.Ef, Searchers: c.Concurrency,
		Writers: c.Writers, WriteRate: c.WriteRate, WriteBatch: c.WriteBatch, Duration: c.Duration, Rounds: c.Rounds, Replace: c.Replace}
	if b.Client, err = c.client(benchAttempts); err != nil {
		return err
	}
	if b.Base, err = dataset.LoadVectors(c.Base, benchBaseMax); err != nil {
		return err
	}
	if b.Queries, err = dataset.LoadVectors(c.Query, benchQueriesMax); err != nil {
		return err
	}
	return printRun(s, c.JSON, b.Run)
}
