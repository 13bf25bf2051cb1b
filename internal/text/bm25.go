package text

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"math/bits"
	"slices"

	"github.com/vectord/vectord"
)

// BM25Params say how texts become sparse vectors. Their JSON form is Bm25Config of the API; what it leaves out has the
// value of DefaultBM25Params.
type BM25Params struct {
	K        float64 `json:"k"`       // how much further occurrences of a token count, from 0
	B        float64 `json:"b"`       // how much the length of a document counts, from 0 to 1
	AvgLen   float64 `json:"avg_len"` // tokens of a document of average length
	Language string  `json:"language,omitempty"`

	// Params are those of the analyzer. Stopwords and Stemmer that are nil become those of Language, if there are any.
	Params
}

// noLanguage is the language that has neither stop words nor a stemmer.
const noLanguage = "none"

// The ranges of what BM25Params hold: within them no weight is infinite or NaN.
const (
	bm25KMax      = 1e6
	bm25AvgLenMin = 1e-6
	bm25AvgLenMax = 1e12
)

// DefaultBM25Params returns the parameters of the API where a request says nothing: English, k 1.2, b 0.75, 256 tokens.
func DefaultBM25Params() BM25Params {
	return BM25Params{K: 1.2, B: 0.75, AvgLen: 256, Language: "english"}
}

// UnmarshalJSON reads parameters, those left out or null being the default.
func (p *BM25Params) UnmarshalJSON(b []byte) error {
	type plain BM25Params
	v := plain(DefaultBM25Params())
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*p = BM25Params(v)
	return nil
}

// BM25 turns texts into sparse vectors whose dot products, with the query's weights multiplied by inverse document
// frequencies, are the scores of Okapi BM25: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and
// Beyond" (2009), section 3.4. Tokens become dimensions and weights as in the model Qdrant/bm25 of other programs, so
// that vectors made there and here can be mixed. It is safe for concurrent use.
type BM25 struct {
	k, b, avgLen float64
	analyzer     *Analyzer
}

// NewBM25 returns the model that p describes, or an error that names the value that is wrong.
func NewBM25(p BM25Params) (*BM25, error) {
	for _, v := range []struct {
		name            string
		value, min, max float64
	}{{"k", p.K, 0, bm25KMax}, {"b", p.B, 0, 1}, {"avg_len", p.AvgLen, bm25AvgLenMin, bm25AvgLenMax}} {
		if !(v.value >= v.min && v.value <= v.max) {
			return nil, vectord.Errorf(vectord.KindUnprocessable, "%s: value %v invalid, must be from %v to %v", v.name, v.value, v.min, v.max)
		}
	}
	if p.Language != noLanguage {
		_, stems := stemmers[p.Language]
		stems = stems || slices.Contains(stemmersMissing, p.Language)
		stops := slices.Contains(languages, p.Language)
		if !stems && !stops {
			return nil, unknown("language", p.Language, languages)
		}
		if p.Stopwords == nil && stops {
			p.Stopwords = &Stopwords{Languages: []string{p.Language}}
		}
		if p.Stemmer == nil && stems {
			p.Stemmer = &Stemmer{Type: StemmerSnowball, Language: p.Language}
		}
	}
	a, err := New(p.Params)
	if err != nil {
		return nil, err
	}
	return &BM25{k: p.K, b: p.B, avgLen: p.AvgLen, analyzer: a}, nil
}

// Document returns the vector of a document: for each token a weight that grows with its occurrences and shrinks with the
// length of the document. Indices ascend and are unique; both slices are empty if no token is left of the text.
func (m *BM25) Document(text string) (indices []uint32, values []float32) {
	tokens := m.analyzer.Tokens(nil, text)
	counts := make(map[string]int, len(tokens))
	for _, t := range tokens {
		counts[t]++
	}
	// The conversions keep the compiler from fusing a product and a sum into one operation, which some processors have
	// and others do not: the weights are the same on all of them.
	norm := m.k * (1 - m.b + float64(m.b*float64(len(tokens))/m.avgLen))
	weights := make([]weight, 0, len(counts))
	for t, count := range counts {
		tf := float64(count)
		weights = append(weights, weight{dimension(t), float32(tf * (m.k + 1) / (tf + float64(norm)))})
	}
	return merge(weights, func(a, b float32) float32 { return a + b })
}

// Query returns the vector of a query: 1 for each token in it.
func (m *BM25) Query(text string) (indices []uint32, values []float32) {
	tokens := m.analyzer.QueryTokens(nil, text)
	weights := make([]weight, len(tokens))
	for i, t := range tokens {
		weights[i] = weight{dimension(t), 1}
	}
	return merge(weights, func(a, _ float32) float32 { return a })
}

type weight struct {
	index uint32
	value float32
}

// merge sorts weights and makes one of those with the same index. Those are taken in the order of their values, for a sum
// depends on the order.
func merge(weights []weight, join func(a, b float32) float32) (indices []uint32, values []float32) {
	slices.SortFunc(weights, func(a, b weight) int {
		return cmp.Or(cmp.Compare(a.index, b.index), cmp.Compare(a.value, b.value))
	})
	indices, values = make([]uint32, 0, len(weights)), make([]float32, 0, len(weights))
	for _, w := range weights {
		if n := len(indices); n > 0 && indices[n-1] == w.index {
			values[n-1] = join(values[n-1], w.value)
			continue
		}
		indices, values = append(indices, w.index), append(values, w.value)
	}
	return indices, values
}

// dimension returns the dimension of a token: the absolute value of its MurmurHash3 as a signed number.
func dimension(token string) uint32 {
	h := murmur3(token)
	if int32(h) < 0 {
		return -h
	}
	return h
}

// murmur3 returns the 32-bit MurmurHash3 (x86 variant) of s with seed 0.
func murmur3(s string) uint32 {
	const c1, c2 = 0xcc9e2d51, 0x1b873593
	mix := func(k uint32) uint32 { return bits.RotateLeft32(k*c1, 15) * c2 }
	h := uint32(0)
	b := []byte(s)
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h^mix(binary.LittleEndian.Uint32(b)), 13)*5 + 0xe6546b64
	}
	var tail [4]byte
	copy(tail[:], b)
	h ^= mix(binary.LittleEndian.Uint32(tail[:])) // of nothing it is 0
	h ^= uint32(len(s))
	h = (h ^ h>>16) * 0x85ebca6b
	h = (h ^ h>>13) * 0xc2b2ae35
	return h ^ h>>16
}
