package bench

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/quant"
)

// Codecs are the names of the codes that a measurement may use.
var Codecs = []string{vectord.CodecInt8, vectord.CodecBinary, vectord.CodecFloat32}

// checkCodec returns an error unless there is a codec called name.
func checkCodec(name string) error {
	if !slices.Contains(Codecs, name) {
		return fmt.Errorf("codec: %q invalid, must be one of %s", name, strings.Join(Codecs, ", "))
	}
	return nil
}

// trainCodec fits the codec called name to a sample of vectors.
func trainCodec(name string, d vectord.Distance, dim int, sample [][]float32) (quant.Codec, error) {
	switch name {
	case vectord.CodecBinary:
		return quant.TrainBinary(d, dim, sample)
	case vectord.CodecFloat32:
		return quant.NewFloat32(d, dim)
	}
	return quant.Train(d, dim, sample)
}
