// Command mnist converts images in the form of the MNIST files, such as those of Debian's package dataset-fashion-mnist, to
// the files that vectord's measurements read.
//
//	go run ./bench/cmd/mnist /usr/share/datasets/fashion-mnist .cache/fashion-mnist
//
// writes .cache/fashion-mnist/base.fvecs, the training images, and query.fvecs, the first thousand of the test images.
package main

import (
	"bufio"
	"compress/gzip"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/vectord/vectord/bench/dataset"
)

// queries is the number of test images that serve as queries.
const queries = 1000

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: mnist FROM-DIRECTORY TO-DIRECTORY")
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "mnist:", err)
		os.Exit(1)
	}
}

func run(from, to string, out io.Writer) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, part := range []struct {
		from, to string
		limit    int
	}{
		{"train-images-idx3-ubyte.gz", "base.fvecs", math.MaxInt},
		{"t10k-images-idx3-ubyte.gz", "query.fvecs", queries},
	} {
		path := filepath.Join(to, part.to)
		n, err := convert(filepath.Join(from, part.from), path, part.limit)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%d images in %s\n", n, path)
	}
	return nil
}

// convert writes up to limit images of the gzipped IDX file to an fvecs file, which appears under its name when it is
// whole, and returns how many there were.
func convert(from, to string, limit int) (n int, err error) {
	in, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), ".mnist-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(out.Name()) // fails once the file has its name
	defer out.Close()
	if n, err = copyImages(out, in, limit); err != nil {
		return n, fmt.Errorf("%s: %w", from, err)
	}
	if err := errors.Join(out.Chmod(0o644), out.Close()); err != nil {
		return n, err
	}
	return n, os.Rename(out.Name(), to)
}

func copyImages(out io.Writer, in io.Reader, limit int) (n int, err error) {
	z, err := gzip.NewReader(in)
	if err != nil {
		return 0, err
	}
	images, err := newIDXReader(z)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriterSize(out, 1<<20)
	var row []byte
	for ; n < limit; n++ {
		v, err := images.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return n, err
		}
		row = dataset.AppendFVec(row[:0], v)
		w.Write(row) // Flush returns the first error
	}
	if n == 0 {
		return 0, errors.New("there are no images")
	}
	return n, w.Flush()
}
