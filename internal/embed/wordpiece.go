package embed

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// wordBytesMax bounds a word: a longer one, which no vocabulary holds, is unknown as a whole. BERT's own bound is 100
// characters.
const wordBytesMax = 400

const wordRunesMax = 100

// wordPiece splits texts as uncased BERT models do (Devlin et al., NAACL 2019; Wu et al., 2016): accents and case are
// taken away, punctuation and CJK ideographs stand alone, and each word is covered from the left by the longest pieces
// that the vocabulary has.
type wordPiece struct {
	first   map[string]uint32 // pieces that begin a word, and their rows
	next    map[string]uint32 // pieces that go on within one, written without "##"
	longest int               // bytes of the longest piece of both
}

// appendRows appends the rows of the tokens of text to dst. A word that the pieces cannot cover adds nothing and is
// counted in unknown.
func (w *wordPiece) appendRows(dst []uint32, text string) (rows []uint32, unknown int) {
	if !isASCII(text) {
		text = norm.NFD.String(text)
	}
	var buf [wordBytesMax]byte
	word, runes := buf[:0], 0
	end := func() {
		if len(word) == 0 {
			return
		}
		n := len(dst)
		if dst = w.cover(dst, word, runes); len(dst) == n {
			unknown++
		}
		word, runes = word[:0], 0
	}
	for i := 0; i < len(text); {
		r, size := rune(text[i]), 1
		if r >= utf8.RuneSelf {
			r, size = utf8.DecodeRuneInString(text[i:])
		}
		i += size
		switch kindOf(r) {
		case dropped:
		case space:
			end()
		case alone:
			end()
			word, runes = utf8.AppendRune(word, r), 1
			end()
		case letter:
			// A word beyond the bound is unknown whatever follows, so its end may be left out.
			if runes++; runes <= wordRunesMax {
				word = utf8.AppendRune(word, unicode.ToLower(r))
			}
		}
	}
	end()
	return dst, unknown
}

// cover appends the rows of the pieces of one word, or nothing if they do not cover it.
func (w *wordPiece) cover(dst []uint32, word []byte, runes int) []uint32 {
	if runes > wordRunesMax {
		return dst
	}
	n, pieces := len(dst), w.first
	for len(word) > 0 {
		size := min(len(word), w.longest)
		for ; size > 0; size-- {
			if row, ok := pieces[string(word[:size])]; ok {
				dst = append(dst, row)
				break
			}
		}
		if size == 0 {
			return dst[:n]
		}
		word, pieces = word[size:], w.next
	}
	return dst
}

// What becomes of a character.
const (
	letter  = iota
	space   // ends a word
	alone   // a word by itself
	dropped // as if it were not there: controls, accents
)

// asciiKinds has what kindOf says of the first 128 characters, which most texts have no others than.
var asciiKinds = func() (kinds [utf8.RuneSelf]uint8) {
	for r := range kinds {
		switch {
		case strings.ContainsRune(" \t\n\r", rune(r)):
			kinds[r] = space
		case r < ' ' || r == 0x7f:
			kinds[r] = dropped
		case !unicode.IsLetter(rune(r)) && !unicode.IsDigit(rune(r)):
			kinds[r] = alone // symbols as well: $ + < = > ^ ` | ~
		}
	}
	return kinds
}()

// kindOf expects characters in normal form D. What Unicode has not assigned counts as a letter.
func kindOf(r rune) uint8 {
	switch {
	case r < utf8.RuneSelf:
		return asciiKinds[r]
	case r == utf8.RuneError, unicode.Is(unicode.C, r), unicode.Is(unicode.Mn, r):
		return dropped
	case unicode.IsSpace(r):
		return space
	case unicode.IsPunct(r), isIdeograph(r):
		return alone
	}
	return letter
}

// isIdeograph names the blocks that BERT splits: ideographs of Chinese, not kana or hangul.
func isIdeograph(r rune) bool {
	return r >= 0x4E00 && r <= 0x9FFF || r >= 0x3400 && r <= 0x4DBF || r >= 0x20000 && r <= 0x2A6DF ||
		r >= 0x2A700 && r <= 0x2B73F || r >= 0x2B740 && r <= 0x2B81F || r >= 0x2B920 && r <= 0x2CEAF ||
		r >= 0xF900 && r <= 0xFAFF || r >= 0x2F800 && r <= 0x2FA1F
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
