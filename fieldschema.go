package vectord

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// FieldType is the kind of values that a payload index is of.
type FieldType string

// The types of payload indexes.
const (
	FieldKeyword  FieldType = "keyword"
	FieldInteger  FieldType = "integer"
	FieldFloat    FieldType = "float"
	FieldBool     FieldType = "bool"
	FieldDatetime FieldType = "datetime"
	FieldUUID     FieldType = "uuid"
	FieldGeo      FieldType = "geo"
	FieldText     FieldType = "text"
)

// fieldParams are the parameters that a type knows, besides its name. Only those of text change what filters find; the
// others are kept for clients to read back: every index is in memory, and does lookups, ranges and prefixes alike.
var fieldParams = map[FieldType][]string{
	FieldKeyword:  {"is_tenant", "prefix"},
	FieldInteger:  {"lookup", "range", "is_principal"},
	FieldFloat:    {"is_principal"},
	FieldBool:     nil,
	FieldDatetime: {"is_principal"},
	FieldUUID:     {"is_tenant"},
	FieldGeo:      nil,
	FieldText: {"tokenizer", "min_token_len", "max_token_len", "lowercase", "ascii_folding", "phrase_matching", "stopwords",
		"stemmer"},
}

// Valid reports whether there is such a type.
func (t FieldType) Valid() bool {
	_, ok := fieldParams[t]
	return ok
}

// FieldSchema says what a payload index is of. An index changes no answer, only the time that it takes, but for one of type
// text: then its tokens decide what text, text_any and phrase find, as soon as it is created.
type FieldSchema struct {
	Type FieldType `json:"data_type"`
	// Params is the object that the index was created with, its type included, with sorted keys and without nulls; nil if
	// only the type was given.
	Params json.RawMessage `json:"params,omitempty"`
}

// Limits of payload indexes.
const (
	MaxFieldIndexes     = 128  // of one collection
	MaxFieldNameBytes   = 1024 // of one field's path
	maxFieldParamsBytes = 1 << 20
)

// ParseFieldSchema reads the name of a type, or an object of a type and its parameters. It checks everything but the
// parameters of texts, which the analysis knows.
func ParseFieldSchema(b []byte) (FieldSchema, error) {
	var s FieldSchema
	b = bytes.TrimSpace(b)
	if len(b) > maxFieldParamsBytes {
		return s, Errorf(KindTooLarge, "field_schema: %d bytes, at most %d are accepted", len(b), maxFieldParamsBytes)
	}
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s.Type); err != nil {
			return s, Errorf(KindInvalid, "field_schema: %v", err)
		}
		return s, s.Type.check()
	}
	var params map[string]json.RawMessage
	if err := json.Unmarshal(b, &params); err != nil || params == nil {
		return s, Errorf(KindInvalid, "field_schema: expected the name of a type or an object with a type, got %s", shorten(b))
	}
	if err := json.Unmarshal(params["type"], &s.Type); err != nil {
		return s, Errorf(KindInvalid, "field_schema: type is missing or not a string in %s", shorten(b))
	}
	if err := s.Type.check(); err != nil {
		return s, err
	}
	for name, value := range params {
		if string(value) == "null" {
			delete(params, name)
			continue
		}
		if err := s.Type.checkParam(name, value); err != nil {
			return s, err
		}
	}
	if len(params) == 1 {
		return s, nil
	}
	var err error
	if s.Params, err = json.Marshal(params); err != nil {
		return s, Errorf(KindInvalid, "field_schema: %v", err)
	}
	return s, nil
}

func (t FieldType) check() error {
	if !t.Valid() {
		return Errorf(KindInvalid, "field_schema: unknown type %q, expected one of keyword, integer, float, bool, datetime, uuid, geo, text",
			shorten([]byte(t)))
	}
	return nil
}

func (t FieldType) checkParam(name string, value json.RawMessage) error {
	switch name {
	case "type":
		return nil
	case "memory":
		switch string(value) {
		case `"cold"`, `"cached"`, `"pinned"`:
			return nil
		}
		return Errorf(KindInvalid, "field_schema: memory is %s, expected one of cold, cached, pinned", shorten(value))
	case "on_disk", "enable_hnsw":
	default:
		if !slices.Contains(fieldParams[t], name) {
			known := append(slices.Clone(fieldParams[t]), "on_disk", "memory", "enable_hnsw")
			return Errorf(KindInvalid, "field_schema: an index of type %s has no parameter %q, only %s", t, shorten([]byte(name)), strings.Join(known, ", "))
		}
		if t == FieldText {
			return nil
		}
	}
	if s := string(value); s != "true" && s != "false" {
		return Errorf(KindInvalid, "field_schema: %s is %s, expected true or false", name, shorten(value))
	}
	return nil
}

// Equal reports whether two schemas are the same.
func (s FieldSchema) Equal(other FieldSchema) bool {
	return s.Type == other.Type && bytes.Equal(s.Params, other.Params)
}

// CheckFieldName returns an error unless name may be the path of a payload index, as far as its length goes.
func CheckFieldName(name string) error {
	switch {
	case name == "" || len(name) > MaxFieldNameBytes:
		return Errorf(KindUnprocessable, "field_name: %d bytes, must be from 1 to %d", len(name), MaxFieldNameBytes)
	case !utf8.ValidString(name):
		return Errorf(KindUnprocessable, "field_name: %q is not valid UTF-8", name)
	}
	return nil
}

// FieldInfo is a payload index as it stands.
type FieldInfo struct {
	FieldSchema
	Points int `json:"points"` // that have a value there, of those looked at while the index is built
}
