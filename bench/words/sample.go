package words

import (
	"bytes"
	"compress/gzip"
	_ "embed"

	"github.com/vectord/vectord/bench/dataset"
)

// Dimension is the number of components of the sample's vectors.
const Dimension = 100

//go:embed sample.jsonl.gz
var sample []byte

// Sample returns a reader of the embedded sample: SampleWords points with the payload {"word": text, "letters": count}.
// Their nearness is vectord.Cosine.
func Sample() (dataset.Reader, error) {
	z, err := gzip.NewReader(bytes.NewReader(sample))
	if err != nil {
		return nil, err
	}
	return dataset.NewJSONLReader(z, dataset.Options{}), nil
}
