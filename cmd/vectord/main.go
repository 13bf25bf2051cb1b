// Command vectord is a vector database: it serves collections of points over HTTP, loads data into them and measures how
// fast and how truly they are searched. vectord --help says more.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/vectord/vectord"
)

// Exit codes. Usage errors have one of their own so that a script can tell them from a server that is away.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitInterrupted = 130 // as shells report a process that ended by SIGINT
)

const description = `A vector database in one binary: durable points, approximate search, an HTTP API that Qdrant's clients speak.

    vectord serve                        # start a server on 127.0.0.1:6333 with its data in ./data
    vectord demo                         # load 5,000 English words into it and find those nearest to "king"
    vectord import vectors.npy --collection mine --create

Every flag of serve can also be given as an environment variable (--data-dir is VECTORD_DATA_DIR) or as a line of the YAML
file named by --config (data-dir: ./data). A flag goes before a variable, a variable before the file; a name that is not
known is an error.`

// cli is the command line. Flags tagged setting may come from the environment and the configuration file as well.
type cli struct {
	Config string `help:"YAML file with settings; also $$VECTORD_CONFIG." placeholder:"FILE"`

	Serve   serveCmd   `cmd:"" help:"Start a server."`
	Import  importCmd  `cmd:"" help:"Load points from files into a collection."`
	Demo    demoCmd    `cmd:"" help:"Load a sample of word vectors and find nearest words."`
	Bench   benchCmd   `cmd:"" help:"Measure an index, a server's searches or its writes."`
	MCP     mcpCmd     `cmd:"" name:"mcp" help:"Speak the Model Context Protocol over stdin and stdout."`
	Token   tokenCmd   `cmd:"" help:"Make a token that opens less than the API key."`
	Cluster clusterCmd `cmd:"" help:"Look after the servers of a cluster."`
	Cert    certCmd    `cmd:"" help:"Make certificates for the servers of a cluster."`
	Backup  backupCmd  `cmd:"" help:"Write the whole state of a running server to a file or an S3 bucket."`
	Restore restoreCmd `cmd:"" help:"Bring a backup or a node's snapshot into an empty data directory."`
	Check   checkCmd   `cmd:"" help:"Verify a data directory that no server has open."`
	Version versionCmd `cmd:"" help:"Print the version."`

	environ []string
}

// session is what a command runs with: the context ends at the first SIGINT or SIGTERM.
type session struct {
	ctx            context.Context
	stdin          io.Reader
	stdout, stderr io.Writer
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that the second signal ends the process at once
	os.Exit(run(&session{ctx, os.Stdin, os.Stdout, os.Stderr}, os.Args[1:], os.Environ()))
}

// run executes one command line and returns the exit code.
func run(s *session, args, environ []string) int {
	c := &cli{environ: environ}
	exited := -1 // set when the parser has printed its help
	parser, err := kong.New(c, kong.Name("vectord"), kong.Description(description), kong.UsageOnError(),
		kong.Writers(s.stdout, s.stderr), kong.Exit(func(code int) { exited = code }), kong.Bind(s),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 120}))
	if err != nil {
		panic(fmt.Sprintf("the command line is declared wrongly: %v", err))
	}
	command, err := parser.Parse(args)
	if exited >= 0 {
		return exited
	}
	if err != nil {
		fmt.Fprintf(s.stderr, "vectord: %v\nRun \"vectord --help\" for usage.\n", err)
		return exitUsage
	}
	if err = command.Run(s); err == nil {
		return exitOK
	}
	fmt.Fprintf(s.stderr, "vectord: %v\n", err)
	if errors.Is(err, context.Canceled) && s.ctx.Err() != nil {
		return exitInterrupted
	}
	return exitError
}

type versionCmd struct{}

// Run prints the release, the commit and what it was built with.
func (versionCmd) Run(s *session) error {
	_, err := fmt.Fprintf(s.stdout, "vectord %s (commit %s, %s %s/%s)\n",
		vectord.Version, cmp.Or(commit(), "unknown"), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// commit returns the commit that the program was built from, or nothing if it was not built in a checkout.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				return setting.Value
			}
		}
	}
	return ""
}
