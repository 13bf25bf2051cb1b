package vectord

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseFieldSchema(t *testing.T) {
	f := func(text string, wantType FieldType, wantParams string) {
		t.Helper()
		s, err := ParseFieldSchema([]byte(text))
		if err != nil || s.Type != wantType || string(s.Params) != wantParams {
			t.Errorf("%s: %s %s %v, want %s %s", text, s.Type, s.Params, err, wantType, wantParams)
		}
		if s.Params == nil {
			return
		}
		if again, err := ParseFieldSchema(s.Params); err != nil || !again.Equal(s) {
			t.Errorf("%s became %s: %v", text, again.Params, err)
		}
	}
	for of := range fieldParams {
		f(`"`+string(of)+`"`, of, "")
		f(`{"type":"`+string(of)+`"}`, of, "")
		f(`{"on_disk":true,"type":"`+string(of)+`","memory":null}`, of, `{"on_disk":true,"type":"`+string(of)+`"}`)
	}
	f(`{"type": "keyword", "is_tenant": true, "prefix": false}`, FieldKeyword, `{"is_tenant":true,"prefix":false,"type":"keyword"}`)
	f(`{"type":"integer","range":true,"lookup":false,"is_principal":true,"enable_hnsw":false}`, FieldInteger,
		`{"enable_hnsw":false,"is_principal":true,"lookup":false,"range":true,"type":"integer"}`)
	f(`{"type":"text","tokenizer":"word","stopwords":{"languages":["english"]},"memory":"cold"}`, FieldText,
		`{"memory":"cold","stopwords":{"languages":["english"]},"tokenizer":"word","type":"text"}`)

	refuse := func(text, want string) {
		t.Helper()
		if _, err := ParseFieldSchema([]byte(text)); err == nil || KindOf(err) == KindInternal || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	refuse(`"color"`, `unknown type "color", expected one of keyword,`)
	refuse(`{"type":"color"}`, `unknown type "color"`)
	refuse(`{}`, "type is missing")
	refuse(`{"type":1}`, "type is missing or not a string")
	refuse(`7`, "expected the name of a type or an object with a type, got 7")
	refuse(`null`, "expected the name of a type")
	refuse(`{"type":"keyword","tokenizer":"word"}`, `an index of type keyword has no parameter "tokenizer", only is_tenant, prefix, on_disk, memory, enable_hnsw`)
	refuse(`{"type":"keyword","prefix":"yes"}`, `prefix is "yes", expected true or false`)
	refuse(`{"type":"bool","memory":"warm"}`, `memory is "warm", expected one of cold, cached, pinned`)
	refuse(`{"type":"text","stopwords":"`+strings.Repeat("x", maxFieldParamsBytes)+`"}`, "bytes, at most")
}

func FuzzParseFieldSchema(f *testing.F) {
	f.Add([]byte(`"keyword"`))
	f.Add([]byte(`{"type":"text","tokenizer":"word","lowercase":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseFieldSchema(b)
		if err != nil {
			return
		}
		text, err := json.Marshal(s)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		var again FieldSchema
		if err := json.Unmarshal(text, &again); err != nil || !again.Equal(s) {
			t.Errorf("%s became %s: %v", b, text, err)
		}
	})
}
