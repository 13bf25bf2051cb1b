// Package text turns texts into tokens, for text indexes, and into sparse vectors after BM25.
//
// A token is cut out by the tokenizer, folded to ASCII, lowercased, dropped if it is a stop word, stemmed, and dropped if
// it is then too short or too long, as far as Params say so. Tokens and vectors are kept in storage, and what a later
// version makes of a query must find them: for the same Params the tokens of a text are the same at every version. The
// tests hold a digest of what every character becomes and of all stop words and stems.
package text

import (
	"strings"
	"unicode/utf8"

	"github.com/blevesearch/snowballstem"
	"github.com/clipperhouse/uax29/v2/words"
	"golang.org/x/text/unicode/norm"
)

const (
	// prefixLenMax is the length in characters up to which words have prefixes of their own: longer words that begin alike
	// are alike to Prefix. It bounds what a word of length n costs, which would be n prefixes of n bytes.
	prefixLenMax = 64

	// stemBytesMax is the length of the longest token that is stemmed. Some stemmers take the square of the length.
	stemBytesMax = 256
)

// Analyzer turns texts into tokens. It is safe for concurrent use.
type Analyzer struct {
	tokenizer       Tokenizer
	lowercase, fold bool
	minLen, maxLen  int                          // in characters; maxLen 0 is no limit
	stopwords       []map[string]struct{}        // shared with other analyzers
	stem            func(*snowballstem.Env) bool // nil is none
}

// New returns the analyzer that p describes, or the error of p.Validate.
func New(p Params) (*Analyzer, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	a := &Analyzer{
		tokenizer: p.Tokenizer,
		lowercase: p.Lowercase == nil || *p.Lowercase,
		fold:      p.ASCIIFolding,
		minLen:    p.MinTokenLen,
		maxLen:    p.MaxTokenLen,
	}
	if s := p.Stopwords; s != nil {
		for _, l := range s.Languages {
			a.stopwords = append(a.stopwords, stopwordList{l, a.lowercase, a.fold}.words())
		}
		if len(s.Custom) > 0 {
			n := normalizer{lowercase: a.lowercase, fold: a.fold}
			custom := make(map[string]struct{}, len(s.Custom))
			for _, w := range s.Custom {
				custom[n.normalize(w)] = struct{}{}
			}
			a.stopwords = append(a.stopwords, custom)
		}
	}
	if p.Stemmer != nil && p.Stemmer.Type == StemmerSnowball {
		a.stem = stemmers[p.Stemmer.Language]
	}
	return a, nil
}

// Tokens appends the tokens by which a document with text s is found to dst, in the order of the text and as often as they
// occur. They may share memory with s.
func (a *Analyzer) Tokens(dst []string, s string) []string {
	n := a.normalizer()
	for word := range a.words(s) {
		token := n.token(word)
		if a.tokenizer == Prefix {
			dst = a.appendPrefixes(dst, token)
		} else if a.fits(token) {
			dst = append(dst, token)
		}
	}
	return dst
}

// QueryTokens appends the tokens to look for to find documents with the words of s. They are those of Tokens, except that
// Prefix takes the words whole, and stop words with them, since those may be how other words begin.
func (a *Analyzer) QueryTokens(dst []string, s string) []string {
	if a.tokenizer != Prefix {
		return a.Tokens(dst, s)
	}
	n := a.normalizer()
	for word := range a.words(s) {
		token := n.stemmed(n.normalize(word))
		if i, long := a.prefixes(token); long {
			token = token[:i]
		} else if token == "" || utf8.RuneCountInString(token) < a.minLen {
			continue
		}
		dst = append(dst, token)
	}
	return dst
}

// words yields the pieces that the tokenizer cuts s into.
func (a *Analyzer) words(s string) func(yield func(string) bool) {
	s = strings.ToValidUTF8(s, "\uFFFD")
	switch a.tokenizer {
	case Whitespace:
		return strings.FieldsSeq(s)
	case Multilingual:
		return multilingualWords(s)
	}
	return strings.FieldsFuncSeq(s, func(r rune) bool { return !alphanumeric(r) })
}

// multilingualWords yields the words of s after Unicode Standard Annex #29, "Unicode Text Segmentation", in normal form KC.
// An apostrophe within a word is part of it, and is always the one of ASCII, which stop words and stemmers know.
func multilingualWords(s string) func(yield func(string) bool) {
	s = strings.ReplaceAll(norm.NFKC.String(s), "’", "'")
	return func(yield func(string) bool) {
		for i := words.FromString(s); i.Next(); {
			if word := i.Value(); strings.ContainsFunc(word, alphanumeric) && !yield(word) {
				return
			}
		}
	}
}

// fits reports whether a token is neither empty nor too short or too long.
func (a *Analyzer) fits(token string) bool {
	if token == "" || a.minLen <= 1 && a.maxLen == 0 {
		return token != ""
	}
	n := utf8.RuneCountInString(token)
	return n >= a.minLen && (a.maxLen == 0 || n <= a.maxLen)
}

// prefixes returns the length in bytes of the longest prefix of token, and whether token is longer than that.
func (a *Analyzer) prefixes(token string) (longest int, long bool) {
	most := prefixLenMax
	if a.maxLen > 0 {
		most = min(most, a.maxLen)
	}
	for i := range token {
		if most == 0 {
			return i, true
		}
		most--
	}
	return len(token), false
}

// appendPrefixes appends the prefixes of a word from the shortest allowed to the longest.
func (a *Analyzer) appendPrefixes(dst []string, token string) []string {
	longest, _ := a.prefixes(token)
	n := 0
	for i := range token[:longest] {
		if n > 0 && n >= a.minLen {
			dst = append(dst, token[:i])
		}
		n++
	}
	if n > 0 && n >= a.minLen {
		dst = append(dst, token[:longest])
	}
	return dst
}

// tokenNormalizer is what one call makes tokens with.
type tokenNormalizer struct {
	*Analyzer
	normalizer
	env snowballstem.Env
}

func (a *Analyzer) normalizer() *tokenNormalizer {
	return &tokenNormalizer{Analyzer: a, normalizer: normalizer{lowercase: a.lowercase, fold: a.fold}}
}

// token returns the token that a piece of text becomes, or "" if it is a stop word.
func (n *tokenNormalizer) token(word string) string {
	word = n.normalize(word)
	for _, set := range n.stopwords {
		if _, ok := set[word]; ok {
			return ""
		}
	}
	return n.stemmed(word)
}

func (n *tokenNormalizer) stemmed(word string) string {
	if n.stem == nil || len(word) > stemBytesMax {
		return word
	}
	n.env.SetCurrent(word)
	n.stem(&n.env)
	return n.env.Current()
}
