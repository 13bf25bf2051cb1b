package text

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/vectord/vectord"
)

// parse returns the analyzer of a JSON text.
func parse(t testing.TB, params string) *Analyzer {
	t.Helper()
	var p Params
	if err := json.Unmarshal([]byte(params), &p); err != nil {
		t.Fatalf("%s: %v", params, err)
	}
	a, err := New(p)
	if err != nil {
		t.Fatalf("%s: %v", params, err)
	}
	return a
}

func TestTokens(t *testing.T) {
	f := func(params, text, want string) {
		t.Helper()
		if got := strings.Join(parse(t, params).Tokens(nil, text), "|"); got != want {
			t.Errorf("%s of %q: got %s, want %s", params, text, got, want)
		}
	}
	f(`{}`, "Hello, World! it's 3.14 ½", "hello|world|it|s|3|14|½")
	f(`{}`, "", "")
	f(`{}`, " .,- ", "")
	f(`{"tokenizer":"word","lowercase":null,"stopwords":null,"stemmer":null,"ascii_folding":null,"max_token_len":null}`, "A b", "a|b")
	f(`{"lowercase":false}`, "Hello World", "Hello|World")
	f(`{}`, "ΌΣΟΣ İstanbul हिन्दी", "όσος|i̇stanbul|हिन|दी")
	f(`{}`, "a\u0378b \U0001c000", "a|b") // not assigned in the version of Unicode that tokens are of
	f(`{"ascii_folding":true}`, "Ação Ǿre Straße ﬁn Ⅻ Жуй ½ １２", "acao|ore|strasse|fin|xii|жуй|½|12")
	f(`{"ascii_folding":true,"lowercase":false}`, "Ærø Łódź ẞ Œuvre", "AEro|Lodz|SS|OEuvre")
	f(`{"tokenizer":"whitespace"}`, "Hello, World!\tit's\n3.14\u3000x", "hello,|world!|it's|3.14|x")
	f(`{"tokenizer":"whitespace","min_token_len":2,"max_token_len":3}`, "a bc def ghij öäü", "bc|def|öäü")
	f(`{"tokenizer":"whitespace"}`, "a\xffb", "a\uFFFDb")
	f(`{"tokenizer":"prefix"}`, "Robot go", "r|ro|rob|robo|robot|g|go")
	f(`{"tokenizer":"prefix","min_token_len":2,"max_token_len":4}`, "Überall go a", "üb|übe|über|go")
	f(`{"tokenizer":"multilingual"}`, "It’s Qdrant's 3.14, 東京タワー é", "it's|qdrant's|3.14|東|京|タワー|é")
	f(`{"tokenizer":"multilingual"}`, "ＡＢＣ ﬁ e\u0301 한국어 ?!", "abc|fi|é|한국어")
	f(`{"stopwords":"english"}`, "The cat and THE hat", "cat|hat")
	f(`{"stopwords":{"languages":["english","german"],"custom":["Cat"]}}`, "The cat und der Hut", "hut")
	f(`{"stopwords":{"custom":["The"]},"lowercase":false}`, "The the", "the")
	f(`{"stopwords":"french","ascii_folding":true}`, "été café", "cafe") // the list has été
	f(`{"stopwords":{}}`, "the", "the")
	f(`{"stopwords":"english","tokenizer":"multilingual"}`, "they don’t run", "run")
	f(`{"stemmer":{"type":"snowball","language":"english"}}`, "running Runs easily", "run|run|easili")
	f(`{"stemmer":{"type":"snowball","language":"german"},"ascii_folding":true}`, "Häuser", "haus")
	f(`{"stemmer":{"type":"none"}}`, "running", "running")
	f(`{"stemmer":{"type":"snowball","language":"english"},"stopwords":{"custom":["runs"]}}`, "runs running", "run")
	f(`{"stemmer":{"type":"snowball","language":"english"},"max_token_len":3}`, "running walking", "run")
}

func TestQueryTokens(t *testing.T) {
	f := func(params, text, want string) {
		t.Helper()
		if got := strings.Join(parse(t, params).QueryTokens(nil, text), "|"); got != want {
			t.Errorf("%s of %q: got %s, want %s", params, text, got, want)
		}
	}
	f(`{"stopwords":"english"}`, "The cats", "cats")
	f(`{"tokenizer":"prefix"}`, "Rob g", "rob|g")
	f(`{"tokenizer":"prefix","stopwords":"english"}`, "the", "the")
	f(`{"tokenizer":"prefix","min_token_len":2,"max_token_len":4}`, "überall x go", "über|go")
	f(`{"tokenizer":"prefix"}`, strings.Repeat("é", 70), strings.Repeat("é", prefixLenMax))
}

// TestPrefixesFindWords checks that the query side of every beginning of a word is among the tokens of the word.
func TestPrefixesFindWords(t *testing.T) {
	a := parse(t, `{"tokenizer":"prefix","ascii_folding":true}`)
	word := "Ǿ" + strings.Repeat("übergrößen", 12)
	tokens := a.Tokens(nil, word)
	if len(tokens) != prefixLenMax {
		t.Errorf("%d prefixes, want %d", len(tokens), prefixLenMax)
	}
	for i := range word {
		if i == 0 {
			continue
		}
		if q := a.QueryTokens(nil, word[:i]); len(q) != 1 || !slices.Contains(tokens, q[0]) {
			t.Fatalf("%q gives %q, which is not among the tokens", word[:i], q)
		}
	}
}

func TestValidate(t *testing.T) {
	f := func(params string, kind vectord.Kind, want string) {
		t.Helper()
		var p Params
		err := json.Unmarshal([]byte(params), &p)
		if err == nil {
			_, err = New(p)
		}
		if err == nil || vectord.KindOf(err) != kind || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v of kind %v, want %q of kind %v", params, err, vectord.KindOf(err), want, kind)
		}
	}
	f(`{"tokenizer":"letters"}`, vectord.KindInvalid, `tokenizer: unknown "letters"`)
	f(`{"min_token_len":-1}`, vectord.KindUnprocessable, "min_token_len: value -1")
	f(`{"max_token_len":65537}`, vectord.KindUnprocessable, "max_token_len: value 65537")
	f(`{"min_token_len":3,"max_token_len":2}`, vectord.KindUnprocessable, "min_token_len: value 3")
	f(`{"tokenizer":"prefix","min_token_len":65}`, vectord.KindUnprocessable, "min_token_len: value 65")
	f(`{"stopwords":"klingon"}`, vectord.KindInvalid, `stopwords: unknown "klingon"`)
	f(`{"stopwords":{"languages":["english","x"]}}`, vectord.KindInvalid, `unknown "x"`)
	f(`{"stopwords":7}`, vectord.KindInvalid, "expected a language")
	f(`{"stopwords":{"custom":["`+strings.Repeat("a", 257)+`"]}}`, vectord.KindUnprocessable, "257 bytes")
	f(`{"stopwords":{"custom":["a"`+strings.Repeat(`,"a"`, 10_000)+`]}}`, vectord.KindUnprocessable, "10001 words")
	f(`{"stemmer":{"type":"porter"}}`, vectord.KindInvalid, `stemmer.type: unknown "porter"`)
	f(`{"stemmer":{"type":"snowball"}}`, vectord.KindInvalid, `stemmer.language: unknown ""`)
	f(`{"stemmer":{"type":"snowball","language":"greek"}}`, vectord.KindUnsupported, "no stemmer for greek")
}

func TestParamsJSON(t *testing.T) {
	for _, s := range []string{
		`{}`,
		`{"tokenizer":"prefix","lowercase":false,"ascii_folding":true,"min_token_len":2,"max_token_len":9,"phrase_matching":true}`,
		`{"stopwords":"english","stemmer":{"type":"none"}}`,
		`{"stopwords":{},"stemmer":{"type":"snowball","language":"english"}}`,
		`{"stopwords":{"languages":["english","german"]}}`,
		`{"stopwords":{"languages":["english"],"custom":["a"]}}`,
	} {
		var p Params
		if err := json.Unmarshal([]byte(s), &p); err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(p); err != nil || string(got) != s {
			t.Errorf("got %s, %v, want %s", got, err, s)
		}
	}
}

// TestLanguages checks that each language has what it is listed for.
func TestLanguages(t *testing.T) {
	if !slices.IsSorted(languages) {
		t.Error("languages are not sorted")
	}
	for _, l := range languages {
		if len(stopwordList{language: l}.words()) < 40 {
			t.Errorf("%s has hardly any stop words", l)
		}
	}
	files, err := stopwordFiles.ReadDir("stopwords")
	if err != nil || len(files) != len(languages) {
		t.Errorf("%d files of stop words for %d languages, %v", len(files), len(languages), err)
	}
}

// The digests of what the analyzers make of every character, and of all stop words and their stems. Stored indexes and
// vectors hold these tokens. If a digest changes with a module, a toolchain or this package, texts that are stored are no
// longer found by all the queries that should: the change needs another way in, or indexes and vectors that are made again.
const (
	charactersDigest = "a3e4ac648481ab517cb2671f1228ea42b6b611b74d0dbc573364abc95b7ff721"
	stemsDigest      = "a2e3deb72eba728144c7c930028e58ad13d274ff7788aa6e4069a093f2d291e6"
)

func TestTokensStayTheSame(t *testing.T) {
	characters := sha256.New()
	for _, params := range []string{
		`{}`, `{"lowercase":false,"ascii_folding":true}`, `{"tokenizer":"whitespace"}`, `{"tokenizer":"multilingual"}`,
	} {
		a := parse(t, params)
		var tokens []string
		for r := rune(0); r <= unicode.MaxRune; r++ {
			if r >= 0x3400 && r < 0x4e00 || r >= 0x4e80 && r < 0x9f00 || r >= 0xac80 && r < 0xd700 || r >= 0x20000 && r != 0xe0100 {
				continue // more of the same, or not assigned
			}
			if unicode.Is(assigned, r) {
				tokens = a.Tokens(tokens[:0], "Ab"+string(r)+"Cd "+string(r))
				fmt.Fprintf(characters, "%d %q\n", r, tokens)
			}
		}
	}
	stems := sha256.New()
	for _, l := range languages {
		words, err := os.ReadFile("stopwords/" + l + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		stems.Write(words)
		if stemmers[l] != nil {
			a := parse(t, `{"stemmer":{"type":"snowball","language":"`+l+`"}}`)
			fmt.Fprintf(stems, "%q\n", a.Tokens(nil, string(words)))
		}
	}
	if got := hex.EncodeToString(characters.Sum(nil)); got != charactersDigest {
		t.Errorf("characters: digest %s, want %s", got, charactersDigest)
	}
	if got := hex.EncodeToString(stems.Sum(nil)); got != stemsDigest {
		t.Errorf("stems: digest %s, want %s", got, stemsDigest)
	}
}

func TestConcurrentUse(t *testing.T) {
	a := parse(t, `{"ascii_folding":true,"stopwords":"turkish","stemmer":{"type":"snowball","language":"turkish"}}`)
	const text = "İstanbul'da ÇOK güzel evler var, evlerimizde"
	want := a.Tokens(nil, text)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				if got := a.Tokens(nil, text); !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
					return
				}
			}
		})
	}
	wg.Wait()
}

// FuzzTokens checks what holds for every text: tokens are not empty, valid, within their lengths, and for tokenizers other
// than Prefix the same for queries.
func FuzzTokens(f *testing.F) {
	var analyzers []*Analyzer
	for _, tokenizer := range tokenizers {
		for _, rest := range append(stemmerLanguages(), "") {
			params := `{"tokenizer":"` + tokenizer + `","min_token_len":2,"max_token_len":20,"ascii_folding":true`
			if rest != "" {
				params = `{"tokenizer":"` + tokenizer + `","stemmer":{"type":"snowball","language":"` + rest + `"}`
			}
			analyzers = append(analyzers, parse(f, params+"}"))
		}
	}
	f.Add("Hello, World! ação \xff İ ﷺ 東京", uint8(3))
	f.Add(strings.Repeat("a\u0301", 300), uint8(70))
	f.Fuzz(func(t *testing.T, s string, which uint8) {
		a := analyzers[int(which)%len(analyzers)]
		tokens, query := a.Tokens(nil, s), a.QueryTokens(nil, s)
		if a.tokenizer != Prefix && !slices.Equal(tokens, query) {
			t.Errorf("tokens %q, those of the query %q", tokens, query)
		}
		for _, token := range append(tokens, query...) {
			n := utf8.RuneCountInString(token)
			if n == 0 || n < a.minLen || a.maxLen > 0 && n > a.maxLen || !utf8.ValidString(token) {
				t.Errorf("token %q", token)
			}
		}
		if a.tokenizer == Prefix && len(query) > 0 {
			for _, q := range query {
				if !slices.Contains(tokens, q) {
					t.Errorf("query %q is not among %q", q, tokens)
				}
			}
		}
	})
}

func BenchmarkTokens(b *testing.B) {
	text := strings.Repeat("The agents remember what they have learned while running the queries of others. ", 20)
	for _, params := range []string{
		`{}`,
		`{"stopwords":"english","stemmer":{"type":"snowball","language":"english"}}`,
		`{"tokenizer":"multilingual"}`,
		`{"tokenizer":"prefix"}`,
	} {
		b.Run(params, func(b *testing.B) {
			a := parse(b, params)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var tokens []string
			for b.Loop() {
				tokens = a.Tokens(tokens[:0], text)
			}
		})
	}
}
