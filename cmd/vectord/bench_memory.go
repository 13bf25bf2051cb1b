package main

import (
	"fmt"

	"github.com/vectord/vectord/bench"
)

type benchMemoryCmd struct {
	Points      int    `help:"Vectors to generate." default:"100000"`
	Dim         int    `help:"Their dimension." default:"384"`
	Metric      string `help:"cosine, euclid, dot or manhattan." default:"cosine"`
	M           int    `help:"Links of a node." default:"16" name:"m"`
	EfConstruct int    `help:"Candidates while building." default:"200" name:"ef-construction"`
	codecFlags  `embed:""`
	Threads     int    `help:"Threads that build." default:"2"`
	Dir         string `help:"Folder for the checkpoint, which is removed again; the system's for such files unless given." placeholder:"DIR"`
	JSON        bool   `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench memory --help.
func (benchMemoryCmd) Help() string {
	return `Example:

    vectord bench memory --points 1000000 --dim 512

The vectors are generated one by one, around centers, and nobody keeps them: what the process grows by is the index. The
checkpoint is read back from the page cache, as after the kill of a server.`
}

// Run measures.
func (c *benchMemoryCmd) Run(s *session) error {
	metric, err := bench.ParseMetric(c.Metric)
	if err != nil {
		return fmt.Errorf("--metric: %w", err)
	}
	m := bench.Memory{Points: c.Points, Dim: c.Dim, Metric: metric, M: c.M, EfConstruct: c.EfConstruct, Codec: c.name(), Threads: c.Threads, Dir: c.Dir}
	return printRun(s, c.JSON, m.Run)
}
