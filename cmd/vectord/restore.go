package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/vectord/vectord/internal/node"
)

type restoreCmd struct {
	Snapshot string       `arg:"" help:"File of a backup or of a node's snapshot; s3://BUCKET/KEY is a backup in an S3 bucket."`
	DataDir  string       `help:"Directory to restore it into, created if missing; it may hold no collections." default:"./data" setting:""`
	Storage  storageFlags `embed:"" prefix:"s3-"`
}

// Help is shown by restore --help.
func (restoreCmd) Help() string {
	return `Makes a backup, as vectord backup writes it, the state of a data directory that no server has open and that has no data: points,
tasks, queues, agents and states. All of it is checked before anything is changed. A cluster is restored by its first server.

Or brings all collections and aliases of a node's snapshot, as POST /snapshots makes them, into a data directory that no server has
open and that holds no collections. It happens all at once: a damaged snapshot changes nothing. A single collection is recovered
through a running server, PUT /collections/{name}/snapshots/recover, also from a node's snapshot.`
}

// Run restores the snapshot.
func (c *restoreCmd) Run(s *session) (err error) {
	if bucket, key, ok, err := parseS3(c.Snapshot); err != nil {
		return err
	} else if ok {
		backup, err := c.Storage.get(s.ctx, bucket, key)
		if err != nil {
			return fmt.Errorf("restore %s: %w", c.Snapshot, err)
		}
		defer backup.Close()
		return c.restore(s, backup)
	}
	if is, err := node.IsBackup(c.Snapshot); err != nil {
		return err
	} else if is {
		backup, err := os.Open(c.Snapshot)
		if err != nil {
			return err
		}
		defer backup.Close()
		return c.restore(s, backup)
	}
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

// restore restores a backup.
func (c *restoreCmd) restore(s *session, backup io.Reader) error {
	if err := node.Restore(c.DataDir, backup); err != nil {
		return err
	}
	_, err := fmt.Fprintf(s.stdout, "%s is restored in %s\n", c.Snapshot, c.DataDir)
	return err
}
