package grpcserver

import (
	"encoding/json"
	"fmt"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// Settings travel as JSON. The generated messages carry the names of Qdrant's JSON forms, in which vectord's own
// configurations are written too: encoding/json writes from a message those settings that it gives, and reads them into a
// configuration, and the other way about. Enums and choices, which JSON has by names, are put in by hand.

// values are the members of a JSON object.
type values map[string]any

// settings returns the settings that a message gives as a JSON object, nil for no message. The members of apart are those
// that encoding/json would write wrongly: each is replaced, or left out if it is nil.
func settings[M any](message *M, apart values) (json.RawMessage, error) {
	if message == nil {
		return nil, nil
	}
	raw, err := json.Marshal(message)
	if err != nil || len(apart) == 0 {
		return raw, err
	}
	return object(raw, apart)
}

// object returns a JSON object with the members of apart replaced, or left out where they are nil.
func object(raw json.RawMessage, apart values) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return nil, err
	}
	for key, value := range apart {
		if value == nil {
			delete(members, key)
			continue
		}
		var err error
		if members[key], err = json.Marshal(value); err != nil {
			return nil, err
		}
	}
	return json.Marshal(members)
}

// merge puts settings into the configuration that they are of.
func merge(field string, raw json.RawMessage, err error, into any) error {
	if err != nil || raw == nil {
		return err
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return vectord.Errorf(vectord.KindInvalid, "%s: %v", field, err)
	}
	return nil
}

// told returns a configuration as a message, but for the members of apart.
func told[M any](config any, apart values) (*M, error) {
	raw, err := json.Marshal(config)
	if err == nil && len(apart) > 0 {
		raw, err = object(raw, apart)
	}
	message := new(M)
	if err == nil {
		err = json.Unmarshal(raw, message)
	}
	if err != nil {
		return nil, fmt.Errorf("%T of %s: %w", message, raw, err)
	}
	return message, nil
}

// names are the values of an enum by the names that JSON has for them.
type names[E comparable] map[string]E

func (n names[E]) of(value E) (name string, ok bool) {
	for name, v := range n {
		if v == value {
			return name, true
		}
	}
	return "", false
}

// given returns the name of a value, nil for one that has none, which stands for what holds without it.
func (n names[E]) given(value E) any {
	if name, ok := n.of(value); ok {
		return name
	}
	return nil
}

var (
	distances = names[qdrant.Distance]{
		"Cosine":    qdrant.Distance_Cosine,
		"Euclid":    qdrant.Distance_Euclid,
		"Dot":       qdrant.Distance_Dot,
		"Manhattan": qdrant.Distance_Manhattan,
	}
	datatypes = names[qdrant.Datatype]{
		vectord.Float32: qdrant.Datatype_Float32,
		vectord.Float16: qdrant.Datatype_Float16,
		vectord.Uint8:   qdrant.Datatype_Uint8,
	}
	modifiers = names[qdrant.Modifier]{
		"none":              qdrant.Modifier_None,
		vectord.ModifierIDF: qdrant.Modifier_Idf,
	}
	compressions = names[qdrant.CompressionRatio]{
		"x4":  qdrant.CompressionRatio_x4,
		"x8":  qdrant.CompressionRatio_x8,
		"x16": qdrant.CompressionRatio_x16,
		"x32": qdrant.CompressionRatio_x32,
		"x64": qdrant.CompressionRatio_x64,
	}
	encodings = names[qdrant.BinaryQuantizationEncoding]{
		"one_bit":           qdrant.BinaryQuantizationEncoding_OneBit,
		"two_bits":          qdrant.BinaryQuantizationEncoding_TwoBits,
		"one_and_half_bits": qdrant.BinaryQuantizationEncoding_OneAndHalfBits,
	}
	queryEncodings = names[qdrant.BinaryQuantizationQueryEncoding_Setting]{
		"default":     qdrant.BinaryQuantizationQueryEncoding_Default,
		"binary":      qdrant.BinaryQuantizationQueryEncoding_Binary,
		"scalar4bits": qdrant.BinaryQuantizationQueryEncoding_Scalar4Bits,
		"scalar8bits": qdrant.BinaryQuantizationQueryEncoding_Scalar8Bits,
	}
	tokenizers = names[qdrant.TokenizerType]{
		"prefix":       qdrant.TokenizerType_Prefix,
		"whitespace":   qdrant.TokenizerType_Whitespace,
		"word":         qdrant.TokenizerType_Word,
		"multilingual": qdrant.TokenizerType_Multilingual,
	}
	fieldTypes = names[qdrant.FieldType]{
		string(vectord.FieldKeyword):  qdrant.FieldType_FieldTypeKeyword,
		string(vectord.FieldInteger):  qdrant.FieldType_FieldTypeInteger,
		string(vectord.FieldFloat):    qdrant.FieldType_FieldTypeFloat,
		string(vectord.FieldGeo):      qdrant.FieldType_FieldTypeGeo,
		string(vectord.FieldText):     qdrant.FieldType_FieldTypeText,
		string(vectord.FieldBool):     qdrant.FieldType_FieldTypeBool,
		string(vectord.FieldDatetime): qdrant.FieldType_FieldTypeDatetime,
		string(vectord.FieldUUID):     qdrant.FieldType_FieldTypeUuid,
	}
	schemaTypes = names[qdrant.PayloadSchemaType]{
		string(vectord.FieldKeyword):  qdrant.PayloadSchemaType_Keyword,
		string(vectord.FieldInteger):  qdrant.PayloadSchemaType_Integer,
		string(vectord.FieldFloat):    qdrant.PayloadSchemaType_Float,
		string(vectord.FieldGeo):      qdrant.PayloadSchemaType_Geo,
		string(vectord.FieldText):     qdrant.PayloadSchemaType_Text,
		string(vectord.FieldBool):     qdrant.PayloadSchemaType_Bool,
		string(vectord.FieldDatetime): qdrant.PayloadSchemaType_Datetime,
		string(vectord.FieldUUID):     qdrant.PayloadSchemaType_Uuid,
	}
)
