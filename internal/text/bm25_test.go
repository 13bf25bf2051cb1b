package text

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord"
)

// TestBM25LikeFastembed compares vectors with those that fastembed 0.9.1 made with the model Qdrant/bm25.
func TestBM25LikeFastembed(t *testing.T) {
	file, err := os.ReadFile("testdata/fastembed.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Language, Text string
		Indices        []uint32
		Values         []float32
	}
	if err := json.Unmarshal(file, &cases); err != nil || len(cases) == 0 {
		t.Fatal(len(cases), err)
	}
	for _, c := range cases {
		p := DefaultBM25Params()
		p.Language = c.Language
		m, err := NewBM25(p)
		if err != nil {
			t.Fatal(err)
		}
		if indices, values := m.Document(c.Text); !slices.Equal(indices, c.Indices) || !slices.Equal(values, c.Values) {
			t.Errorf("%q: got %v %v, want %v %v", c.Text, indices, values, c.Indices, c.Values)
		}
		if indices, values := m.Query(c.Text); !slices.Equal(indices, c.Indices) || len(values) != len(indices) ||
			slices.ContainsFunc(values, func(v float32) bool { return v != 1 }) {
			t.Errorf("query %q: got %v %v, want %v and ones", c.Text, indices, values, c.Indices)
		}
	}
}

func TestBM25Formula(t *testing.T) {
	p := BM25Params{K: 1.2, B: 0.75, AvgLen: 5, Language: noLanguage}
	m, err := NewBM25(p)
	if err != nil {
		t.Fatal(err)
	}
	indices, values := m.Document("the cat sat on the")
	i, ok := slices.BinarySearch(indices, dimension("the"))
	if !ok || math.Abs(float64(values[i])-1.375) > 1e-6 { // 2·2.2 / (2 + 1.2·(0.25+0.75·5/5))
		t.Errorf("got %v %v", indices, values)
	}
}

// TestBM25Collisions checks tokens that share a dimension: their weights add in documents, and queries count them once.
func TestBM25Collisions(t *testing.T) {
	seen := map[uint32]string{}
	var a, b string
	for i := 0; a == ""; i++ {
		token := fmt.Sprintf("t%d", i)
		d := dimension(token)
		if other, ok := seen[d]; ok {
			a, b = other, token
		}
		seen[d] = token
	}
	m, err := NewBM25(BM25Params{K: 1, B: 0, AvgLen: 1, Language: noLanguage})
	if err != nil {
		t.Fatal(err)
	}
	if indices, values := m.Document(a + " " + b + " " + b); len(indices) != 1 || values[0] != 1+float32(4.0/3) {
		t.Errorf("%s and %s: got %v %v", a, b, indices, values)
	}
	if indices, values := m.Query(a + " " + b); len(indices) != 1 || values[0] != 1 {
		t.Errorf("%s and %s: got %v %v", a, b, indices, values)
	}
}

func TestBM25Params(t *testing.T) {
	f := func(params string, kind vectord.Kind, want string) {
		t.Helper()
		var p BM25Params
		err := json.Unmarshal([]byte(params), &p)
		if err == nil {
			_, err = NewBM25(p)
		}
		if want == "" {
			if err != nil {
				t.Errorf("%s: %v", params, err)
			}
			return
		}
		if err == nil || vectord.KindOf(err) != kind || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v of kind %v, want %q of kind %v", params, err, vectord.KindOf(err), want, kind)
		}
	}
	f(`{}`, 0, "")
	f(`{"k":0,"b":0,"avg_len":1000,"tokenizer":"multilingual","language":"swedish","lowercase":false}`, 0, "")
	f(`{"language":"none"}`, 0, "")
	f(`{"language":"hebrew"}`, 0, "")
	f(`{"language":"tamil"}`, 0, "")
	f(`{"language":"greek","stemmer":{"type":"none"}}`, 0, "")
	f(`{"language":"greek"}`, vectord.KindUnsupported, "no stemmer for greek")
	f(`{"language":"klingon"}`, vectord.KindInvalid, `language: unknown "klingon"`)
	f(`{"k":-1}`, vectord.KindUnprocessable, "k: value -1")
	f(`{"b":1.5}`, vectord.KindUnprocessable, "b: value 1.5")
	f(`{"avg_len":0}`, vectord.KindUnprocessable, "avg_len: value 0")
	f(`{"tokenizer":"x"}`, vectord.KindInvalid, "tokenizer")

	var p BM25Params
	if err := json.Unmarshal([]byte(`{"stopwords":{},"stemmer":{"type":"none"},"k":null}`), &p); err != nil {
		t.Fatal(err)
	}
	m, err := NewBM25(p)
	if err != nil {
		t.Fatal(err)
	}
	if indices, _ := m.Query("the the running"); !slices.Equal(indices, sorted(dimension("the"), dimension("running"))) {
		t.Errorf("explicit stop words and stemmer lost against those of the language: got %v", indices)
	}
}

func sorted(v ...uint32) []uint32 { slices.Sort(v); return v }

// TestMurmur3 checks published values of MurmurHash3_x86_32 with seed 0, with every length of the tail.
func TestMurmur3(t *testing.T) {
	f := func(s string, want uint32) {
		t.Helper()
		if got := murmur3(s); got != want {
			t.Errorf("%q: got %#x, want %#x", s, got, want)
		}
	}
	f("", 0)
	f("test", 0xba6bd213)
	f("Hello, world!", 0xc0363e43)
	f("The quick brown fox jumps over the lazy dog", 0x2e4ff723)
}

func ExampleBM25() {
	m, err := NewBM25(DefaultBM25Params())
	if err != nil {
		panic(err)
	}
	fmt.Println(m.Document("The agents remember, and remembering is learning."))
	fmt.Println(m.Query("What do agents remember?"))
	// Output:
	// [200385224 1194179514 1644170059] [1.901418 1.6741974 1.6741974]
	// [200385224 1194179514] [1 1]
}

func BenchmarkBM25Document(b *testing.B) {
	text := strings.Repeat("The agents remember what they have learned while running the queries of others. ", 20)
	m, err := NewBM25(DefaultBM25Params())
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		m.Document(text)
	}
}
