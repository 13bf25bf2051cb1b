package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/vectord/vectord/internal/node"
	mcpserver "github.com/vectord/vectord/server/mcp"
)

type mcpCmd struct {
	URL         string         `help:"Address of a running server to pass everything on to; unless given the data directory is opened." placeholder:"URL" name:"url" setting:""`
	APIKey      string         `help:"Key that the server asks for." placeholder:"KEY" name:"api-key" setting:""`
	APIKeyFile  string         `help:"File with the key in its first line." placeholder:"FILE" name:"api-key-file" setting:""`
	DataDir     string         `help:"Directory of the data, created if missing; no server may have it open." default:"./data" setting:""`
	MemoryLimit byteSize       `help:"Memory to use, such as 512MiB; no limit unless given." setting:"" placeholder:"SIZE"`
	Embedding   embeddingFlags `embed:""`
}

// Help is shown by mcp --help.
func (mcpCmd) Help() string {
	return `Speaks the Model Context Protocol over stdin and stdout, for clients that start their servers themselves. It ends when stdin does. Stdout has
nothing but the protocol, stderr the log. Examples:

    vectord mcp --url http://127.0.0.1:6333
    vectord mcp --data-dir /home/me/vectord

A running server answers the same at POST /mcp: clients that speak streamable HTTP need no command.`
}

// Run serves until stdin ends or a signal comes.
func (c *mcpCmd) Run(s *session) error {
	logger := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	err := c.serve(s, logger)
	if errors.Is(err, context.Canceled) && s.ctx.Err() != nil { // a signal is how clients end a server
		return nil
	}
	return err
}

func (c *mcpCmd) serve(s *session, logger *slog.Logger) (err error) {
	if c.URL != "" {
		key, err := secret("api-key", c.APIKey, c.APIKeyFile)
		if err != nil {
			return err
		}
		b := &mcpserver.Bridge{URL: c.URL, Key: key, Client: http.DefaultClient, Logger: logger}
		return b.Run(s.ctx, s.stdin, s.stdout)
	}
	embedding, err := c.Embedding.options(logger)
	if err != nil {
		return err
	}
	n, err := node.Open(node.Config{DataDir: c.DataDir, MemoryLimit: int64(c.MemoryLimit), Embedding: embedding, Logger: logger})
	if err != nil {
		return fmt.Errorf("%w (the address of a server that has it open can be given as --url)", err)
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	return newMCP(n, logger).RunStdio(s.ctx, s.stdin, s.stdout)
}

// newMCP returns what answers MCP's requests for a node.
func newMCP(n *node.Node, logger *slog.Logger) *mcpserver.Server {
	return mcpserver.New(n.Engine(), mcpserver.Options{Scheduler: n.Tasks(), Logger: logger})
}
