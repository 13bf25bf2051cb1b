package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

type backupCmd struct {
	serverFlags
	To      string       `arg:"" help:"File to write, or a folder, where the file is named after the time; s3://BUCKET/KEY is an object."`
	Storage storageFlags `embed:"" prefix:"s3-"`
}

// Help is shown by backup --help.
func (backupCmd) Help() string {
	return `Writes the whole state of a server, or of a cluster by any of its nodes, to a file: points, tasks, queues, agents and states, as of
one moment. Reads and writes go on meanwhile. vectord restore makes it the state of an empty data directory.

    vectord backup --url http://127.0.0.1:6333 /backups/
    vectord backup s3://backups/monday.vdsnap --s3-endpoint https://s3.example.com`
}

// backupSuffix is the ending of the names of backups.
const backupSuffix = ".vdsnap"

// Run makes the backup.
func (c *backupCmd) Run(s *session) error {
	cl, err := c.client(1)
	if err != nil {
		return err
	}
	if bucket, key, ok, err := parseS3(c.To); err != nil {
		return err
	} else if ok {
		if key == "" || strings.HasSuffix(key, "/") {
			key += backupName()
		}
		n, err := c.Storage.put(s.ctx, bucket, key, func(w io.Writer) error {
			_, err := cl.Backup(s.ctx, w)
			return err
		})
		if err != nil {
			return fmt.Errorf("back up to %s: %w", c.To, err)
		}
		_, err = fmt.Fprintf(s.stdout, "%d bytes are in s3://%s/%s\n", n, bucket, key)
		return err
	}
	path := c.To
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, backupName())
	}
	temp := path + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := cl.Backup(s.ctx, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return fmt.Errorf("back up to %s: %w", path, errors.Join(err, os.Remove(temp)))
	}
	_, err = fmt.Fprintf(s.stdout, "%d bytes are in %s\n", n, path)
	return err
}

func backupName() string {
	return "vectord-" + time.Now().UTC().Format("20060102-150405") + backupSuffix
}
