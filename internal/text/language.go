package text

import (
	"embed"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/blevesearch/snowballstem"
	"github.com/blevesearch/snowballstem/arabic"
	"github.com/blevesearch/snowballstem/danish"
	"github.com/blevesearch/snowballstem/dutch"
	"github.com/blevesearch/snowballstem/english"
	"github.com/blevesearch/snowballstem/finnish"
	"github.com/blevesearch/snowballstem/french"
	"github.com/blevesearch/snowballstem/german"
	"github.com/blevesearch/snowballstem/hungarian"
	"github.com/blevesearch/snowballstem/italian"
	"github.com/blevesearch/snowballstem/norwegian"
	"github.com/blevesearch/snowballstem/portuguese"
	"github.com/blevesearch/snowballstem/romanian"
	"github.com/blevesearch/snowballstem/russian"
	"github.com/blevesearch/snowballstem/spanish"
	"github.com/blevesearch/snowballstem/swedish"
	"github.com/blevesearch/snowballstem/tamil"
	"github.com/blevesearch/snowballstem/turkish"
)

// stemmers are the Snowball stemmers by language.
var stemmers = map[string]func(*snowballstem.Env) bool{
	"arabic": arabic.Stem, "danish": danish.Stem, "dutch": dutch.Stem, "english": english.Stem, "finnish": finnish.Stem,
	"french": french.Stem, "german": german.Stem, "hungarian": hungarian.Stem, "italian": italian.Stem,
	"norwegian": norwegian.Stem, "portuguese": portuguese.Stem, "romanian": romanian.Stem, "russian": russian.Stem,
	"spanish": spanish.Stem, "swedish": swedish.Stem, "tamil": tamil.Stem, "turkish": turkish.Stem,
}

// stemmersMissing are languages that the API has a stemmer for and the Snowball library has not.
var stemmersMissing = []string{"armenian", "greek"}

func stemmerLanguages() []string { return slices.Sorted(maps.Keys(stemmers)) }

// languages are those with a list of stop words, a file each, sorted.
var languages = []string{"arabic", "azerbaijani", "basque", "bengali", "catalan", "chinese", "danish", "dutch", "english",
	"finnish", "french", "german", "greek", "hebrew", "hinglish", "hungarian", "indonesian", "italian", "japanese", "kazakh",
	"nepali", "norwegian", "portuguese", "romanian", "russian", "slovene", "spanish", "swedish", "tajik", "turkish"}

//go:embed stopwords/*.txt
var stopwordFiles embed.FS

// stopwordList names a language's stop words in the form that tokens have.
type stopwordList struct {
	language        string
	lowercase, fold bool
}

// stopwordSets holds the lists that have been asked for: an analyzer is made for each text that a request brings, and
// the longest list takes longer than most texts. Invariant: a set in it is never changed.
var stopwordSets sync.Map // stopwordList → map[string]struct{}

// words returns the set of the list's words, which is shared.
func (l stopwordList) words() map[string]struct{} {
	if set, ok := stopwordSets.Load(l); ok {
		return set.(map[string]struct{})
	}
	file, err := stopwordFiles.ReadFile("stopwords/" + l.language + ".txt")
	if err != nil {
		panic(err) // languages has a name without a file
	}
	n := normalizer{lowercase: l.lowercase, fold: l.fold}
	set := map[string]struct{}{}
	for w := range strings.Lines(string(file)) {
		set[n.normalize(strings.TrimSuffix(w, "\n"))] = struct{}{}
	}
	got, _ := stopwordSets.LoadOrStore(l, set)
	return got.(map[string]struct{})
}
