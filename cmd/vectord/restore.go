package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/vectord/vectord/internal/node"
)

type restoreCmd struct {
	Snapshot string `arg:"" help:"File of a node's snapshot." type:"path"`
	DataDir  string `help:"Directory to restore it into, created if missing; it may hold no collections." default:"./data" setting:""`
}

// Help is shown by restore --help.
func (restoreCmd) Help() string {
	return `Brings all collections and aliases of a node's snapshot, as POST /snapshots makes them, into a data directory that no server has
open and that holds no collections. It happens all at once: a damaged snapshot changes nothing. A single collection is recovered
through a running server, PUT /collections/{name}/snapshots/recover, also from a node's snapshot.`
}

// Run restores the snapshot.
func (c *restoreCmd) Run(s *session) (err error) {
	logger := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	n, err := node.Open(node.Config{DataDir: c.DataDir, Logger: logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	if err := n.Engine().RestoreNode(s.ctx, c.Snapshot); err != nil {
		return fmt.Errorf("restore %s: %w", c.Snapshot, err)
	}
	_, err = fmt.Fprintf(s.stdout, "%d collections are restored in %s\n", len(n.Engine().Collections()), c.DataDir)
	return err
}
