// Command weaviate measures the searches of a running Weaviate as `vectord bench serve` measures those of vectord, and
// prints the same line of JSON. See bench/peers/README.md.
//
//	go run ./bench/peers/weaviate --url http://127.0.0.1:8080 --class Words --base base.fvecs --query query.fvecs --ef 120
//
// The first run creates the class and imports the base vectors; later ones find it and only change its ef.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/dataset"
)

// baseMax and queriesMax bound what is read into memory.
const (
	baseMax    = 1 << 27
	queriesMax = 1 << 20
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "weaviate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	w := bench.Weaviate{APIKey: os.Getenv("WEAVIATE_API_KEY")}
	flags := flag.NewFlagSet("weaviate", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&w.URL, "url", "http://127.0.0.1:8080", "address of the server; its key is read from WEAVIATE_API_KEY")
	flags.StringVar(&w.Class, "class", "Bench", "class to search, created and filled if missing; it stays")
	base := flags.String("base", "", "`file` of the vectors to import: .fvecs, .npy or .jsonl")
	query := flags.String("query", "", "`file` of the vectors to search for")
	truth := flags.String("truth", "", "`file` of the true neighbors (.ivecs); found by comparing all unless given")
	metric := flags.String("metric", "cosine", "cosine, euclid, dot or manhattan")
	concurrency := flags.String("concurrency", "1,2,8,16", "connections, one measurement each")
	flags.IntVar(&w.K, "k", 10, "neighbors to find")
	flags.IntVar(&w.M, "m", 16, "links of a node (maxConnections)")
	flags.IntVar(&w.EfConstruct, "ef-construction", 200, "candidates while building")
	flags.IntVar(&w.Ef, "ef", 120, "candidates while searching")
	flags.DurationVar(&w.Duration, "duration", 10*time.Second, "length of each measurement")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	var err error
	if w.Metric, err = bench.ParseMetric(*metric); err != nil {
		return err
	}
	for _, text := range strings.Split(*concurrency, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("concurrency: %w", err)
		}
		w.Concurrency = append(w.Concurrency, n)
	}
	if w.Base, err = dataset.LoadVectors(*base, baseMax); err != nil {
		return err
	}
	if w.Queries, err = dataset.LoadVectors(*query, queriesMax); err != nil {
		return err
	}
	if *truth != "" {
		if w.Truth, err = dataset.LoadIVecs(*truth, queriesMax); err != nil {
			return err
		}
	}
	report, err := w.Run(ctx, func(step string) { fmt.Fprintln(stderr, step) })
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(report)
}
