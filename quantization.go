package vectord

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// The codes by which a graph may compare vectors.
const (
	CodecInt8    = "int8"    // a byte for each component
	CodecFloat32 = "float32" // the vectors themselves
	CodecBinary  = "binary"  // a bit for each component
	CodecProduct = "product" // a byte for some components together
)

// Quantization says by which codes the graph of a collection compares vectors.
type Quantization struct {
	Codec    string
	Quantile float32 // of int8: the most of the components that the codes may cover, from 0.5 to 1

	Compression int // of product: how many times smaller than the vectors the codes are, one of Compressions; else 0
}

// Compressions returns how many times smaller than vectors product codes may be: from a byte for each component to one for
// sixteen.
func Compressions() []int { return []int{4, 8, 16, 32, 64} }

// QuantizationDisabled is the JSON form of no quantization, CodecFloat32.
const QuantizationDisabled = `"Disabled"`

// ParseQuantization reads the JSON form of a collection's quantization_config: absent or null for the default, which is
// int8; "Disabled" for float32; or one of
//
//	{"scalar": {"type": "int8", "quantile": 0.99, "always_ram": true}}
//	{"binary": {"encoding": "one_bit", "query_encoding": "scalar4bits", "always_ram": true}}
//	{"product": {"compression": "x16", "always_ram": true}}
//
// of which only type and compression must be there. Other kinds of Qdrant's API are refused by an error of KindUnsupported.
func ParseQuantization(raw json.RawMessage) (Quantization, error) {
	const field = "quantization_config"
	raw = bytes.TrimSpace(raw)
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return Quantization{Codec: CodecInt8, Quantile: 1}, nil
	case string(raw) == QuantizationDisabled:
		return Quantization{Codec: CodecFloat32, Quantile: 1}, nil
	}
	type options struct {
		Type          *string  `json:"type"`
		Quantile      *float64 `json:"quantile"`
		Encoding      *string  `json:"encoding"`
		QueryEncoding *string  `json:"query_encoding"`
		Compression   *string  `json:"compression"`
		AlwaysRAM     *bool    `json:"always_ram"`
	}
	var q struct {
		Scalar  *options `json:"scalar"`
		Binary  *options `json:"binary"`
		Product *options `json:"product"`
	}
	if err := json.Unmarshal(raw, &q); err != nil {
		return Quantization{}, Errorf(KindInvalid, "%s: %v, expected an object or %s", field, err, QuantizationDisabled)
	}
	oneOf := func(name string, value *string, offered ...string) error {
		if value == nil {
			return nil
		}
		for _, o := range offered {
			if *value == o {
				return nil
			}
		}
		return Errorf(KindUnsupported, "%s.%s: only %s is offered by this server, got %s", field, name, offered[0], excerptOf(*value))
	}
	var kinds []string
	for i, kind := range []*options{q.Scalar, q.Binary, q.Product} {
		if kind != nil {
			kinds = append(kinds, [...]string{"scalar", "binary", "product"}[i])
		}
	}
	switch {
	case len(kinds) > 1:
		return Quantization{}, Errorf(KindInvalid, "%s: %s are given, expected one", field, strings.Join(kinds, " and "))
	case q.Scalar != nil:
		if q.Scalar.Type == nil {
			return Quantization{}, Errorf(KindInvalid, "%s.scalar.type is missing, expected int8", field)
		}
		quantile := 1.0
		if q.Scalar.Quantile != nil {
			quantile = *q.Scalar.Quantile
		}
		if !(quantile >= quantileMin && quantile <= 1) {
			return Quantization{}, Errorf(KindUnprocessable, "%s.scalar.quantile: value %v invalid, must be from %v to 1", field, quantile, quantileMin)
		}
		return Quantization{Codec: CodecInt8, Quantile: float32(quantile)}, oneOf("scalar.type", q.Scalar.Type, CodecInt8)
	case q.Binary != nil:
		if err := oneOf("binary.encoding", q.Binary.Encoding, "one_bit"); err != nil {
			return Quantization{}, err
		}
		return Quantization{Codec: CodecBinary, Quantile: 1}, oneOf("binary.query_encoding", q.Binary.QueryEncoding, "scalar4bits", "default")
	case q.Product != nil:
		var names []string
		for _, c := range Compressions() {
			name := fmt.Sprintf("x%d", c)
			if q.Product.Compression != nil && *q.Product.Compression == name {
				return Quantization{Codec: CodecProduct, Quantile: 1, Compression: c}, nil
			}
			names = append(names, name)
		}
		got := "none"
		if q.Product.Compression != nil {
			got = excerptOf(*q.Product.Compression)
		}
		return Quantization{}, Errorf(KindInvalid, "%s.product.compression: expected one of %s, got %s", field, strings.Join(names, ", "), got)
	}
	return Quantization{}, Errorf(KindUnsupported, "%s: only scalar, binary and product are offered by this server, got %s", field, excerptOf(string(raw)))
}

// quantileMin is the least quantile that Qdrant's API knows.
const quantileMin = 0.5

// excerptOf quotes the beginning of a text that a client sent.
func excerptOf(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}

// fits returns an error unless vectors compared by d have such codes.
func (q Quantization) fits(d Distance) error {
	if q.Codec == CodecBinary && d == Manhattan {
		return Errorf(KindInvalid, "quantization_config: binary codes do not estimate the distance %s, use scalar or product", d)
	}
	return nil
}
