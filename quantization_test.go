package vectord

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestParseQuantization(t *testing.T) {
	f := func(raw string, want Quantization) {
		t.Helper()
		if got, err := ParseQuantization(json.RawMessage(raw)); err != nil || got != want {
			t.Errorf("%s is %+v, error %v; want %+v", raw, got, err, want)
		}
	}
	f(``, Quantization{CodecInt8, 1, 0})
	f(`null`, Quantization{CodecInt8, 1, 0})
	f(`"Disabled"`, Quantization{CodecFloat32, 1, 0})
	f(`{"scalar":{"type":"int8"}}`, Quantization{CodecInt8, 1, 0})
	f(` {"scalar": {"type": "int8", "quantile": 0.5, "always_ram": true, "new": 1}} `, Quantization{CodecInt8, 0.5, 0})
	f(`{"scalar":{"type":"int8","quantile":null}}`, Quantization{CodecInt8, 1, 0})
	f(`{"binary":{}}`, Quantization{CodecBinary, 1, 0})
	f(`{"product":{"compression":"x4"}}`, Quantization{CodecProduct, 1, 4})
	f(`{"product":{"compression":"x8","always_ram":true}}`, Quantization{CodecProduct, 1, 8})
	f(`{"product":{"compression":"x16"},"scalar":null}`, Quantization{CodecProduct, 1, 16})
	f(`{"product":{"compression":"x32"}}`, Quantization{CodecProduct, 1, 32})
	f(`{"product":{"compression":"x64"}}`, Quantization{CodecProduct, 1, 64})
	f(`{"binary":{"always_ram":false,"encoding":"one_bit","query_encoding":"default"}}`, Quantization{CodecBinary, 1, 0})
	f(`{"binary":{"query_encoding":"scalar4bits"},"scalar":null}`, Quantization{CodecBinary, 1, 0})

	refused := func(raw string, kind Kind, want string) {
		t.Helper()
		_, err := ParseQuantization(json.RawMessage(raw))
		var e *Error
		if !errors.As(err, &e) || e.Kind != kind || !strings.Contains(e.Text, want) {
			t.Errorf("%s: error %v, want one of kind %s with %s", raw, err, kind, want)
		}
	}
	refused(`"disabled"`, KindInvalid, "expected an object")
	refused(`7`, KindInvalid, "expected an object")
	refused(`{"scalar":7}`, KindInvalid, "scalar")
	refused(`{}`, KindUnsupported, "only scalar, binary and product")
	refused(`{"turbo":{}}`, KindUnsupported, "turbo")
	refused(`{"product":{}}`, KindInvalid, "product.compression: expected one of x4, x8, x16, x32, x64, got none")
	refused(`{"product":{"compression":"x128"}}`, KindInvalid, "x128")
	refused(`{"product":{"compression":16}}`, KindInvalid, "compression")
	refused(`{"product":{"compression":"x4"},"binary":{}}`, KindInvalid, "binary and product")
	refused(`{"scalar":{}}`, KindInvalid, "scalar.type is missing")
	refused(`{"scalar":{"type":"int4"}}`, KindUnsupported, "int4")
	refused(`{"scalar":{"type":"int8","quantile":0.49}}`, KindUnprocessable, "0.49")
	refused(`{"scalar":{"type":"int8","quantile":1.01}}`, KindUnprocessable, "1.01")
	refused(`{"scalar":{"type":"int8"},"binary":{}}`, KindInvalid, "scalar and binary")
	refused(`{"binary":{"encoding":"two_bits"}}`, KindUnsupported, "two_bits")
	refused(`{"binary":{"query_encoding":"scalar8bits"}}`, KindUnsupported, "scalar8bits")
}

func TestValidateQuantization(t *testing.T) {
	for d, ok := range map[Distance]bool{Cosine: true, Dot: true, Euclid: true, Manhattan: false} {
		c := DefaultCollectionConfig(4, d)
		c.Quantization = json.RawMessage(`{"binary":{}}`)
		err := c.Validate()
		var e *Error
		if ok && err != nil || !ok && (!errors.As(err, &e) || e.Kind != KindInvalid || !strings.Contains(e.Text, "Manhattan")) {
			t.Errorf("binary codes with %s: error %v", d, err)
		}
	}
}
