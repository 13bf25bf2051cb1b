package main

import (
	"fmt"
	"log/slog"

	"github.com/vectord/vectord/internal/node"
)

type checkCmd struct {
	DataDir string `help:"Directory to verify." default:"./data" setting:""`
}

// Help is shown by check --help.
func (checkCmd) Help() string {
	return `Reads every key and value and compares the checksums, without changing anything. A directory that a server has open is
refused. The exit code is 0 if all is well and 1 if something is damaged.`
}

// Run verifies the directory.
func (c *checkCmd) Run(s *session) error {
	bar := newProgress(s.stderr)
	logger := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	report, err := node.Check(s.ctx, c.DataDir, logger, func(keys uint64) { bar.show(fmt.Sprintf("%d keys read", keys)) })
	bar.clear()
	if err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "%d keys read: %d points, %d slots, %d vectors, %d changes, %d sessions, %d of metadata\n",
		report.Keys, report.Points, report.Slots, report.Vectors, report.Changes, report.Sessions, report.Meta+report.Rows)
	if report.ProblemCount == 0 {
		_, err = fmt.Fprintln(s.stdout, "no damage found")
		return err
	}
	for _, problem := range report.Problems {
		fmt.Fprintln(s.stdout, problem)
	}
	return fmt.Errorf("%s is damaged: %d problems, the first %d of them are listed", c.DataDir, report.ProblemCount, len(report.Problems))
}
