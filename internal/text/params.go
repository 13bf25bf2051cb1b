package text

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/vectord/vectord"
)

// Tokenizer says how a text is cut into tokens.
type Tokenizer string

// The tokenizers. The empty one stands for Word.
const (
	Word         Tokenizer = "word"         // runs of letters and digits
	Whitespace   Tokenizer = "whitespace"   // runs of anything but white space
	Prefix       Tokenizer = "prefix"       // every prefix of the words
	Multilingual Tokenizer = "multilingual" // words of Unicode text segmentation, each ideograph one of its own
)

var tokenizers = []string{string(Word), string(Whitespace), string(Prefix), string(Multilingual)}

// Params say how texts become tokens. The zero value cuts words and lowercases them. Their JSON form is that part of
// TextIndexParams of the API which concerns the analysis.
type Params struct {
	Tokenizer      Tokenizer  `json:"tokenizer,omitempty"`
	Lowercase      *bool      `json:"lowercase,omitempty"`     // nil is true
	ASCIIFolding   bool       `json:"ascii_folding,omitempty"` // Latin letters lose their accents
	MinTokenLen    int        `json:"min_token_len,omitempty"` // in characters
	MaxTokenLen    int        `json:"max_token_len,omitempty"` // in characters; 0 is no limit
	Stopwords      *Stopwords `json:"stopwords,omitempty"`
	Stemmer        *Stemmer   `json:"stemmer,omitempty"`
	PhraseMatching bool       `json:"phrase_matching,omitempty"` // for the index; tokens are the same
}

// Stopwords are tokens to leave out. In JSON they are the name of a language or an object of languages and custom words.
type Stopwords struct {
	Languages []string
	Custom    []string
}

// Stemmer reduces tokens to their stems.
type Stemmer struct {
	Type     string `json:"type"`               // StemmerSnowball or StemmerNone
	Language string `json:"language,omitempty"` // of StemmerSnowball
}

// The types of stemmers.
const (
	StemmerSnowball = "snowball"
	StemmerNone     = "none"
)

// What Params may hold.
const (
	customStopwordsMax = 10_000
	stopwordBytesMax   = 256
	tokenLenMax        = 1 << 16 // of MinTokenLen and MaxTokenLen
)

// Validate returns an error that names the value if p says something impossible: of KindInvalid for unknown names, of
// KindUnprocessable for values beyond their range, of KindUnsupported for what the API knows and this package does not.
func (p *Params) Validate() error {
	if p.Tokenizer != "" && !slices.Contains(tokenizers, string(p.Tokenizer)) {
		return unknown("tokenizer", string(p.Tokenizer), tokenizers)
	}
	for _, l := range []struct {
		name  string
		value int
	}{{"min_token_len", p.MinTokenLen}, {"max_token_len", p.MaxTokenLen}} {
		if l.value < 0 || l.value > tokenLenMax {
			return vectord.Errorf(vectord.KindUnprocessable, "%s: value %d invalid, must be from 0 to %d", l.name, l.value, tokenLenMax)
		}
	}
	if p.MaxTokenLen > 0 && p.MinTokenLen > p.MaxTokenLen {
		return vectord.Errorf(vectord.KindUnprocessable, "min_token_len: value %d invalid, must not exceed max_token_len, which is %d",
			p.MinTokenLen, p.MaxTokenLen)
	}
	if p.Tokenizer == Prefix && p.MinTokenLen > prefixLenMax {
		return vectord.Errorf(vectord.KindUnprocessable, "min_token_len: value %d invalid, must be at most %d with the tokenizer prefix",
			p.MinTokenLen, prefixLenMax)
	}
	if err := p.Stopwords.validate(); err != nil {
		return err
	}
	return p.Stemmer.validate()
}

func (s *Stopwords) validate() error {
	if s == nil {
		return nil
	}
	for _, l := range s.Languages {
		if !slices.Contains(languages, l) {
			return unknown("stopwords", l, languages)
		}
	}
	if len(s.Custom) > customStopwordsMax {
		return vectord.Errorf(vectord.KindUnprocessable, "stopwords.custom: %d words, must be at most %d", len(s.Custom), customStopwordsMax)
	}
	for _, w := range s.Custom {
		if len(w) > stopwordBytesMax {
			return vectord.Errorf(vectord.KindUnprocessable, "stopwords.custom: %s has %d bytes, must have at most %d",
				excerpt(w), len(w), stopwordBytesMax)
		}
	}
	return nil
}

func (s *Stemmer) validate() error {
	if s == nil || s.Type == StemmerNone {
		return nil
	}
	if s.Type != StemmerSnowball {
		return unknown("stemmer.type", s.Type, []string{StemmerSnowball, StemmerNone})
	}
	if _, ok := stemmers[s.Language]; ok {
		return nil
	}
	if slices.Contains(stemmersMissing, s.Language) {
		return vectord.Errorf(vectord.KindUnsupported, "stemmer.language: this server has no stemmer for %s", s.Language)
	}
	return unknown("stemmer.language", s.Language, stemmerLanguages())
}

// UnmarshalJSON reads a language's name or an object.
func (s *Stopwords) UnmarshalJSON(b []byte) error {
	*s = Stopwords{}
	switch b = bytes.TrimSpace(b); {
	case string(b) == "null":
		return nil
	case len(b) > 0 && b[0] == '"':
		s.Languages = make([]string, 1)
		return json.Unmarshal(b, &s.Languages[0])
	}
	var set struct {
		Languages []string `json:"languages"`
		Custom    []string `json:"custom"`
	}
	if err := json.Unmarshal(b, &set); err != nil {
		return vectord.Errorf(vectord.KindInvalid, "stopwords: %v, expected a language or an object of languages and custom", err)
	}
	s.Languages, s.Custom = set.Languages, set.Custom
	return nil
}

// MarshalJSON writes a language alone as its name and everything else as an object.
func (s Stopwords) MarshalJSON() ([]byte, error) {
	if len(s.Languages) == 1 && len(s.Custom) == 0 {
		return json.Marshal(s.Languages[0])
	}
	return json.Marshal(struct {
		Languages []string `json:"languages,omitempty"`
		Custom    []string `json:"custom,omitempty"`
	}{s.Languages, s.Custom})
}

func unknown(field, value string, known []string) error {
	return vectord.Errorf(vectord.KindInvalid, "%s: unknown %s, must be one of %s", field, excerpt(value), strings.Join(known, ", "))
}

// excerpt quotes the beginning of a text that a client sent.
func excerpt(s string) string {
	const most = 64
	if len(s) > most {
		return fmt.Sprintf("%q…", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
