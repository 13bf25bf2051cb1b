package bench

import (
	"math"
	"strings"
	"unicode"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench/words"
)

const (
	// sifWeight is the a of the weight a / (a + p) of a word of frequency p.
	sifWeight = 1e-4

	// sifRounds is how often the power iteration multiplies: the first component of texts is far ahead of the second.
	sifRounds = 50

	// sifRest is the share of its squared length that a text must have beside the common component: less is rounding.
	sifRest = 1e-12
)

// sif makes vectors of texts: the mean of their words' vectors, all of length 1, in which frequent words count less, without the
// component that texts have in common. Arora, Liang, Ma: "A Simple but Tough-to-Beat Baseline for Sentence Embeddings" (ICLR 2017).
type sif struct {
	embedding *words.Embedding
	places    map[string]int     // of words in the embedding
	inverse   []float64          // of the lengths of their vectors, 0 for those of length 0
	weights   map[string]float64 // of words in the texts; those of others are 1
	common    []float64          // of length 1, or 0 before it is known
}

// newSIF takes the frequencies of words and the common component from texts.
func newSIF(e *words.Embedding, texts []string) *sif {
	s := &sif{embedding: e, places: make(map[string]int, len(e.Words)), inverse: make([]float64, len(e.Words)),
		weights: make(map[string]float64), common: make([]float64, e.Vectors.Dim)}
	for i, word := range e.Words {
		s.places[word] = i
		squares := 0.0
		for _, x := range e.Vectors.At(i) {
			squares += float64(x) * float64(x)
		}
		if squares > 0 {
			s.inverse[i] = 1 / math.Sqrt(squares)
		}
	}
	total := 0.0
	for _, text := range texts {
		for _, word := range textWords(text) {
			s.weights[word]++
			total++
		}
	}
	for word, count := range s.weights {
		s.weights[word] = sifWeight / (sifWeight + count/total)
	}
	s.common = s.firstComponent(texts)
	return s
}

// textWords returns the words of a text in lower case: runs of letters and digits.
func textWords(text string) []string {
	return strings.FieldsFunc(strings.ToLower(text), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// embed returns the vector of a text, normalised, or nil if none of its words has one, or none that differs from the common
// component.
func (s *sif) embed(text string) []float32 {
	sum := make([]float64, s.embedding.Vectors.Dim)
	s.add(sum, text)
	share, before := 0.0, 0.0
	for i, x := range sum {
		share += x * s.common[i]
		before += x * x
	}
	v := make([]float32, len(sum))
	after := 0.0
	for i, x := range sum {
		x -= share * s.common[i]
		v[i] = float32(x)
		after += x * x
	}
	if after <= sifRest*before {
		return nil
	}
	vectord.Normalize(v)
	return v
}

// add adds the weighted mean of the vectors of a text's words to sum.
func (s *sif) add(sum []float64, text string) {
	parts := textWords(text)
	for _, word := range parts {
		place, ok := s.places[word]
		if !ok {
			continue
		}
		weight, ok := s.weights[word]
		if !ok {
			weight = 1
		}
		for i, x := range s.embedding.Vectors.At(place) {
			sum[i] += weight * s.inverse[place] * float64(x) / float64(len(parts))
		}
	}
}

// firstComponent returns the first right singular vector of the texts' means, by power iteration.
func (s *sif) firstComponent(texts []string) []float64 {
	dim := s.embedding.Vectors.Dim
	products := make([]float64, dim*dim) // sums of x y of all pairs of components
	mean := make([]float64, dim)
	for _, text := range texts {
		clear(mean)
		s.add(mean, text)
		for i, x := range mean {
			row := products[i*dim : (i+1)*dim]
			for j, y := range mean {
				row[j] += x * y
			}
		}
	}
	component, next := make([]float64, dim), make([]float64, dim)
	for i := range component {
		component[i] = 1
	}
	for range sifRounds {
		length := 0.0
		for i := range next {
			next[i] = 0
			for j, x := range component {
				next[i] += products[i*dim+j] * x
			}
			length += next[i] * next[i]
		}
		if length == 0 {
			return make([]float64, dim)
		}
		for i, x := range next {
			component[i] = x / math.Sqrt(length)
		}
	}
	return component
}
