package text

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/language"
	"golang.org/x/text/unicode/norm"
	"golang.org/x/text/unicode/rangetable"
)

// unicodeVersion is the version of Unicode whose characters are known. Letters that came later separate words, whatever
// tables the program was built with, so that the tokens of a text stay what they were.
const unicodeVersion = "15.0.0"

var assigned = rangetable.Assigned(unicodeVersion)

// alphanumeric reports whether r is part of a word: it has the property Alphabetic or is a number of any kind.
func alphanumeric(r rune) bool {
	if r < utf8.RuneSelf {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9'
	}
	return (unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.Is(unicode.Other_Alphabetic, r)) && unicode.Is(assigned, r)
}

// normalizer brings tokens that differ in what does not matter to one form.
type normalizer struct {
	lowercase, fold bool
	lower           *cases.Caser // made at first use: it has state, and most texts do not need it
}

func (n *normalizer) normalize(s string) string {
	if n.fold {
		s = foldASCII(s)
	}
	if !n.lowercase {
		return s
	}
	if isASCII(s) {
		return strings.ToLower(s)
	}
	if n.lower == nil {
		// Not strings.ToLower, which knows neither the final sigma nor that İ becomes two characters.
		c := cases.Lower(language.Und)
		n.lower = &c
	}
	return n.lower.String(s)
}

func isASCII(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// foldASCII writes Latin letters and digits of all kinds in ASCII, and leaves every other character as it is.
func foldASCII(s string) string {
	if isASCII(s) {
		return s
	}
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r < utf8.RuneSelf {
			b = append(b, byte(r))
		} else {
			b = appendFolded(b, r)
		}
	}
	return string(b)
}

// appendFolded appends r in ASCII letters and digits: those of its compatibility decomposition, less the accents. If r has
// none it is appended itself.
func appendFolded(b []byte, r rune) []byte {
	var buf [utf8.UTFMax]byte
	decomposition := norm.NFKD.Properties(utf8.AppendRune(buf[:0], r)).Decomposition()
	if decomposition == nil {
		if ascii, ok := asciiLetters[r]; ok {
			return append(b, ascii...)
		}
		return utf8.AppendRune(b, r)
	}
	n := len(b)
	for len(decomposition) > 0 {
		d, size := utf8.DecodeRune(decomposition)
		decomposition = decomposition[size:]
		ascii, known := asciiLetters[d]
		switch {
		case d < utf8.RuneSelf && alphanumeric(d):
			b = append(b, byte(d))
		case known:
			b = append(b, ascii...)
		case !unicode.Is(unicode.Mn, d):
			return utf8.AppendRune(b[:n], r)
		}
	}
	if len(b) == n { // nothing but marks
		return utf8.AppendRune(b, r)
	}
	return b
}

// asciiLetters are the Latin letters of living orthographies that Unicode does not decompose.
var asciiLetters = map[rune]string{
	'Æ': "AE", 'æ': "ae", 'Ø': "O", 'ø': "o", 'Œ': "OE", 'œ': "oe", 'ß': "ss", 'ẞ': "SS", 'Ð': "D", 'ð': "d", 'Đ': "D", 'đ': "d",
	'Þ': "TH", 'þ': "th", 'Ł': "L", 'ł': "l", 'Ħ': "H", 'ħ': "h", 'ı': "i", 'ȷ': "j", 'ĸ': "q", 'Ŋ': "N", 'ŋ': "n", 'Ŧ': "T", 'ŧ': "t",
	'Ŀ': "L", 'ŀ': "l", 'ŉ': "n", 'ƀ': "b", 'Ƀ': "B", 'Ɓ': "B", 'ɓ': "b", 'Ƈ': "C", 'ƈ': "c", 'Ɖ': "D", 'ɖ': "d", 'Ɗ': "D", 'ɗ': "d",
	'Ǝ': "E", 'ǝ': "e", 'Ə': "A", 'ə': "a", 'Ɛ': "E", 'ɛ': "e", 'Ƒ': "F", 'ƒ': "f", 'Ɠ': "G", 'ɠ': "g", 'Ǥ': "G", 'ǥ': "g", 'Ɨ': "I",
	'ɨ': "i", 'Ɩ': "I", 'ɩ': "i", 'Ƙ': "K", 'ƙ': "k", 'ƚ': "l", 'Ƚ': "L", 'Ɲ': "N", 'ɲ': "n", 'Ɔ': "O", 'ɔ': "o", 'Ɵ': "O", 'ɵ': "o",
	'Ƥ': "P", 'ƥ': "p", 'Ɍ': "R", 'ɍ': "r", 'Ƭ': "T", 'ƭ': "t", 'Ʈ': "T", 'ʈ': "t", 'Ʉ': "U", 'ʉ': "u", 'Ʋ': "V", 'ʋ': "v", 'Ƴ': "Y",
	'ƴ': "y", 'Ɏ': "Y", 'ɏ': "y", 'Ƶ': "Z", 'ƶ': "z", 'Ȥ': "Z", 'ȥ': "z", 'Ɇ': "E", 'ɇ': "e", 'Ɋ': "Q", 'ɋ': "q", 'Ⱥ': "A", 'ⱥ': "a",
	'Ȼ': "C", 'ȼ': "c", 'Ⱦ': "T", 'ⱦ': "t", 'Ɽ': "R", 'ɽ': "r",
}
