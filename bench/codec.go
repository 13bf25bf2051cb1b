package bench

import (
	"fmt"
	"slices"
	"strings"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/index/quant"
)

// Codecs are the names of the codes that a measurement may use. Those of product codes end with the compression.
var Codecs = func() []string {
	names := []string{vectord.CodecInt8, vectord.CodecBinary, vectord.CodecFloat32}
	for _, c := range vectord.Compressions() {
		names = append(names, productName(c))
	}
	return names
}()

func productName(compression int) string {
	return fmt.Sprintf("%s-x%d", vectord.CodecProduct, compression)
}

// codecName names a codec as Codecs does.
func codecName(c quant.Codec) string {
	if p, ok := c.(*quant.Product); ok {
		return productName(p.Compression())
	}
	return c.Name()
}

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
	for _, c := range vectord.Compressions() {
		if name == productName(c) {
			return quant.TrainProduct(d, dim, sample, c)
		}
	}
	return quant.Train(d, dim, sample)
}
