package embed

import (
	"context"
	_ "embed" // for the table
	"encoding/binary"
	"hash/crc32"
	"math"
	"strings"
	"sync"

	"github.com/vectord/vectord"
)

// StaticModel is the name of the model that is part of the program.
const StaticModel = "vectord/minilm-static-256"

// Static embeds by a table with a vector for each token: a text is the mean of its tokens' vectors, normalised. Order and
// grammar are lost, and so is what a word means beside another. A text costs microseconds.
//
// It is a model of the kind of model2vec (Tulkens and van Dongen, 2024): tools/distil says how the table was made. Rows lie
// in the program's own read-only pages and are used there, so what is loaded is the vocabulary: about 2 MiB of heap.
type Static struct {
	name    string
	dim     int
	tokens  wordPiece
	unknown uint32    // the row for texts that have no token at all
	scales  []float32 // by row: what 1 of its components means
	rows    string    // dim signed bytes each
}

//go:embed minilm/minilm-static-256.bin
var minilm string

// MiniLM returns the model that is part of the program. The first call loads it.
var MiniLM = sync.OnceValue(func() *Static {
	s, err := openStatic(StaticModel, minilm)
	if err != nil {
		panic(err) // the program itself is damaged, and so could be the rest of it
	}
	return s
})

// The file of a table, version 1. Numbers are little-endian.
//
//	magic      8 bytes
//	checksum   uint32, CRC-32C of all that follows
//	dim        uint32
//	tokens     uint32
//	unknown    uint32, a row
//	vocabulary uint32, its bytes
//	vocabulary for each token in the order of its bytes: how many of the bytes of the one before it begins with
//	           (uint8), how many follow (uint8), those. What goes on within a word begins with "##".
//	scales     float32 for each token
//	rows       dim signed bytes for each token
const (
	staticMagic      = "vdEmbed\x01"
	staticHeader     = 8 + 5*4
	staticDimMax     = 4096
	staticTokensMax  = 1 << 18
	staticPieceBytes = 255
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openStatic checks a file and returns its model, which goes on using the file's rows. A file that is damaged or was made
// otherwise is an error.
func openStatic(name, file string) (*Static, error) {
	bad := func(format string, args ...any) (*Static, error) {
		return nil, vectord.Errorf(vectord.KindInternal, "model "+name+": "+format, args...)
	}
	if len(file) < staticHeader || file[:8] != staticMagic {
		return bad("not a table of version 1")
	}
	header := []byte(file[8:staticHeader])
	field := func(i int) int { return int(binary.LittleEndian.Uint32(header[4*i:])) }
	sum := crc32.New(castagnoli)
	part := make([]byte, 64<<10) // a hash wants bytes, and to copy the whole file would be to load it
	for rest := file[12:]; len(rest) > 0; {
		n := copy(part, rest)
		sum.Write(part[:n])
		rest = rest[n:]
	}
	if int(sum.Sum32()) != field(0) {
		return bad("the checksum is %08x, not %08x", sum.Sum32(), field(0))
	}
	dim, count, unknown, vocabulary := field(1), field(2), field(3), field(4)
	switch {
	case dim < 1 || dim > staticDimMax:
		return bad("%d components, at most %d are accepted", dim, staticDimMax)
	case count < 1 || count > staticTokensMax:
		return bad("%d tokens, at most %d are accepted", count, staticTokensMax)
	case unknown >= count:
		return bad("row %d of %d for unknown words", unknown, count)
	case len(file) != staticHeader+vocabulary+count*(4+dim):
		return bad("%d bytes, not %d", len(file), staticHeader+vocabulary+count*(4+dim))
	}
	s := &Static{name: name, dim: dim, unknown: uint32(unknown), scales: make([]float32, count)}
	if !s.tokens.load(file[staticHeader:staticHeader+vocabulary], count) {
		return bad("the vocabulary is not one of %d tokens in order", count)
	}
	scales := file[staticHeader+vocabulary:]
	for i := range s.scales {
		s.scales[i] = math.Float32frombits(binary.LittleEndian.Uint32([]byte(scales[4*i : 4*i+4])))
		if x := s.scales[i]; !(x >= 0 && x <= 1) {
			return bad("the scale of row %d is %g", i, x)
		}
	}
	s.rows = scales[4*count:]
	return s, nil
}

// load reads a vocabulary of count tokens and reports whether it is one.
func (w *wordPiece) load(vocabulary string, count int) bool {
	w.first, w.next = make(map[string]uint32, count), make(map[string]uint32)
	last := ""
	for row := range count {
		if len(vocabulary) < 2 {
			return false
		}
		shared, rest := int(vocabulary[0]), int(vocabulary[1])
		if shared > len(last) || len(vocabulary) < 2+rest || shared+rest > staticPieceBytes {
			return false
		}
		token := last[:shared] + vocabulary[2:2+rest]
		vocabulary = vocabulary[2+rest:]
		if token <= last {
			return false // no order, or twice, or empty
		}
		last = token
		piece, within := strings.CutPrefix(token, "##")
		if within && piece != "" {
			w.next[piece] = uint32(row)
		} else {
			piece = token
			w.first[piece] = uint32(row)
		}
		w.longest = max(w.longest, len(piece))
	}
	return vocabulary == ""
}

// Name returns the model's name.
func (s *Static) Name() string { return s.name }

// Dim returns the number of components.
func (s *Static) Dim() int { return s.dim }

// Embed returns the vectors of texts, each of length 1. They are the same on every platform. A text without a single
// character that counts is refused; words that the vocabulary cannot spell are left out, unless there are no others.
func (s *Static) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	if err := checkTexts(texts); err != nil {
		return nil, err
	}
	vectors := make([][]float32, len(texts))
	var space [256]uint32
	rows := space[:0]
	for i, text := range texts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var unknown int
		if rows, unknown = s.tokens.appendRows(rows[:0], text); len(rows) == 0 {
			if unknown == 0 {
				return nil, nothingToEmbed(i)
			}
			rows = append(rows, s.unknown)
		}
		vectors[i] = make([]float32, s.dim)
		s.mean(vectors[i], rows)
	}
	return vectors, nil
}

// mean sets v, which is zero, to the normalised sum of rows. Should they cancel each other out, it is the first unit
// vector: there is no direction to give, and searches by cosine need one.
func (s *Static) mean(v []float32, rows []uint32) {
	for _, row := range rows {
		scale, components := s.scales[row], s.rows[int(row)*s.dim:][:len(v)]
		for i := range v {
			// The conversion keeps compilers from fusing the product into the sum, which platforms do differently.
			v[i] += float32(scale * float32(int8(components[i])))
		}
	}
	var squares float64
	for _, x := range v {
		squares += float64(float64(x) * float64(x))
	}
	if squares == 0 {
		v[0] = 1
		return
	}
	length := math.Sqrt(squares)
	for i, x := range v {
		v[i] = float32(float64(x) / length)
	}
}
