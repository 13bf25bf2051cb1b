package main

import (
	"errors"
	"io"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/internal/node"
)

type benchCollectionsCmd struct {
	DataDir     string        `help:"Directory of the data; collections that it lacks are created and stay." required:"" placeholder:"DIR"`
	Count       int           `help:"Empty collections." default:"100000"`
	Dim         int           `help:"Dimension of their vectors." default:"384"`
	Cycles      int           `help:"Collections to create, write to and drop one after the other." default:"1000"`
	Concurrency int           `help:"Creations on their way at a time." default:"64"`
	Idle        time.Duration `help:"How long to watch the node with nothing to do." default:"5s"`
	MemoryLimit byteSize      `help:"Memory of the node." default:"512MiB"`
	JSON        bool          `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench collections --help.
func (benchCollectionsCmd) Help() string {
	return `Example:

    vectord bench collections --data-dir /tmp/many --count 100000
    vectord bench collections --data-dir /tmp/many --count 100000

The second run finds the collections that the first has created, so that its peak of memory is that of the start.`
}

// Run measures.
func (c *benchCollectionsCmd) Run(s *session) error {
	if c.MemoryLimit < memoryLimitMin {
		return errors.New("--memory-limit: at least " + byteSize(memoryLimitMin).String() + " are needed")
	}
	config := node.Config{DataDir: c.DataDir, MemoryLimit: int64(c.MemoryLimit), Logger: slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		SetHeapLimit: func(bytes int64) { debug.SetMemoryLimit(bytes) }}
	b := bench.Collections{Count: c.Count, Dim: c.Dim, Cycles: c.Cycles, Clients: c.Concurrency, Idle: c.Idle, Open: func() (bench.CollectionsEngine, io.Closer, error) {
		n, err := node.Open(config)
		if err != nil {
			return nil, nil, err
		}
		return n.Engine(), n, nil
	}}
	return printRun(s, c.JSON, b.Run)
}
