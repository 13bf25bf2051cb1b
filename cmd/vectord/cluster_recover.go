package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/vectord/vectord/internal/node"
)

type clusterRecoverCmd struct {
	DataDir string       `help:"Directory of the node's data." default:"./data" setting:""`
	Cluster clusterFlags `embed:"" prefix:"cluster-"`
	Yes     bool         `help:"The other nodes are lost for good, and their data will not be started again."`
}

// Help is shown by cluster recover --help.
func (clusterRecoverCmd) Help() string {
	return `For a cluster that has lost the majority of its nodes for good: makes the node of a data directory, which must not run, the only
member, with all that it has. Take the node that has applied most. What only the lost nodes had is lost. Start the node afterwards as
before, and let new nodes with empty data directories join it; the lost nodes' data must never be started again.

    vectord cluster recover --data-dir ./data --cluster-listen 10.0.0.1:7000 --cluster-secret-file secret --yes`
}

// Run makes the node the only member.
func (c *clusterRecoverCmd) Run(s *session) error {
	if !c.Yes {
		return errors.New("--yes is missing: with it you say that the other nodes are lost for good and will not be started again")
	}
	cluster, err := c.Cluster.options()
	if err != nil {
		return err
	}
	if cluster == nil {
		return errors.New("--cluster-listen: give the address that the node will listen on for the others")
	}
	logger := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if err := node.Recover(node.Config{DataDir: c.DataDir, Cluster: cluster, Logger: logger}); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.stdout, "the node is the only member of its cluster: start it, and let new nodes join")
	return err
}
