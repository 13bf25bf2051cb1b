package embed

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/vectord/vectord"
)

// tableOf writes the file of a table with the given tokens, which are in order, and rows. Unknown words have row 0.
func tableOf(tokens []string, scales []float32, rows [][]int8) string {
	var body []byte
	var vocabulary []byte
	last := ""
	for _, t := range tokens {
		shared := 0
		for shared < len(last) && shared < len(t) && last[shared] == t[shared] {
			shared++
		}
		vocabulary = append(vocabulary, byte(shared), byte(len(t)-shared))
		vocabulary = append(vocabulary, t[shared:]...)
		last = t
	}
	for _, n := range []int{len(rows[0]), len(tokens), 0, len(vocabulary)} {
		body = binary.LittleEndian.AppendUint32(body, uint32(n))
	}
	body = append(body, vocabulary...)
	for _, s := range scales {
		body = binary.LittleEndian.AppendUint32(body, math.Float32bits(s))
	}
	for _, row := range rows {
		for _, x := range row {
			body = append(body, byte(x))
		}
	}
	return sealed(body)
}

func sealed(body []byte) string {
	return staticMagic + string(binary.LittleEndian.AppendUint32(nil, crc32.Checksum(body, castagnoli))) + string(body)
}

// small has two components, and room for a word of two pieces.
var small = tableOf([]string{"##sea", "[UNK]", "a", "b", "sea"}, []float32{0.5, 0.1, 1, 1, 0.25},
	[][]int8{{0, 2}, {1, 1}, {3, 4}, {-3, -4}, {8, 0}})

func openSmall(t testing.TB) *Static {
	t.Helper()
	s, err := openStatic("small", small)
	if err != nil {
		t.Fatal(err)
	}
	s.unknown = 1
	return s
}

func TestStaticIsTheMeanOfTokens(t *testing.T) {
	s := openSmall(t)
	f := func(text string, x, y float32) {
		t.Helper()
		v, err := s.Embed(context.Background(), []string{text})
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if !slices.Equal(v[0], []float32{x, y}) {
			t.Errorf("%q: %v, want %v, %v", text, v[0], x, y)
		}
	}
	f("a", 0.6, 0.8)
	f("A", 0.6, 0.8)
	f("a a\ta", 0.6, 0.8)
	f("sea", 1, 0)
	f("a\u0301", 0.6, 0.8)            // an accent is taken off
	f("asea", 3/5.830952, 5/5.830952) // a + ##sea: 3, 4 + 0, 1
	f("a b", 1, 0)                    // nothing is left, and cosine needs a direction
	f("a zebra", 0.6, 0.8)            // an unknown word is left out
	f("zebra", math.Sqrt2/2, math.Sqrt2/2)
	f("az", math.Sqrt2/2, math.Sqrt2/2) // covered in part is not covered
	f(strings.Repeat("a", 101), math.Sqrt2/2, math.Sqrt2/2)
}

func TestStaticRefuses(t *testing.T) {
	s := openSmall(t)
	f := func(kind vectord.Kind, place int, texts ...string) {
		t.Helper()
		_, err := s.Embed(context.Background(), texts)
		var about *TextError
		if vectord.KindOf(err) != kind || place >= 0 && (!errors.As(err, &about) || about.Place != place) {
			t.Errorf("%.20q: %v, want %v of text %d", texts, err, kind, place)
		}
	}
	f(vectord.KindUnprocessable, 0, "")
	f(vectord.KindUnprocessable, 1, "a", " \n\u0301\x00")
	f(vectord.KindUnprocessable, 2, "a", "b", strings.Repeat("a ", vectord.MaxDocumentBytes/2)+"a")
	f(vectord.KindTooLarge, -1, make([]string, TextsMax+1)...)
	ended, end := context.WithCancel(context.Background())
	end()
	if _, err := s.Embed(ended, []string{"a"}); vectord.KindOf(err) != vectord.KindTimeout {
		t.Errorf("an ended context: %v", err)
	}
}

func TestOpenStaticRefuses(t *testing.T) {
	f := func(want, file string) {
		t.Helper()
		if _, err := openStatic("m", file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q, want %q in it", err, want)
		}
	}
	with := func(change func(body []byte) []byte) string { return sealed(change([]byte(small[12:]))) }
	number := func(at int, n uint32) string {
		return with(func(b []byte) []byte { binary.LittleEndian.PutUint32(b[at:], n); return b })
	}
	f("not a table", "")
	f("not a table", strings.Replace(small, "\x01", "\x02", 1))
	for i := 8; i < len(small); i++ { // whichever byte is damaged
		f("checksum", small[:i]+string(small[i]^1)+small[i+1:])
	}
	f("0 components", number(0, 0))
	f("4097 components", number(0, 4097))
	f("0 tokens", number(4, 0))
	f("row 5 of 5", number(8, 5))
	f("bytes, not", number(12, 1<<31))
	f("bytes, not", with(func(b []byte) []byte { return b[:len(b)-1] }))
	f("vocabulary", with(func(b []byte) []byte { b[16] = 1; return b }))   // shares with nothing
	f("vocabulary", with(func(b []byte) []byte { b[17] = 200; return b })) // goes beyond
	f("vocabulary", with(func(b []byte) []byte { b[18] = 'z'; return b })) // out of order
	f("scale of row 0 is NaN", with(func(b []byte) []byte {
		binary.LittleEndian.PutUint32(b[len(b)-10-20:], math.Float32bits(float32(math.NaN())))
		return b
	}))
}

// TestMiniLM compares with what the tokenizer of the model itself says, and with the vectors that the table has by NumPy
// (testdata/minilm.json, written by tools/distil).
func TestMiniLM(t *testing.T) {
	file, err := os.ReadFile("testdata/minilm.json")
	if err != nil {
		t.Fatal(err)
	}
	var golden []struct {
		Text   string
		Tokens []string
		Vector []float32 // the first components
	}
	if err := json.Unmarshal(file, &golden); err != nil {
		t.Fatal(err)
	}
	s := MiniLM()
	names := make([]string, len(s.scales))
	for piece, row := range s.tokens.first {
		names[row] = piece
	}
	for piece, row := range s.tokens.next {
		names[row] = "##" + piece
	}
	digest := crc32.New(castagnoli)
	for _, g := range golden {
		rows, unknown := s.tokens.appendRows(nil, g.Text)
		var tokens []string
		for _, row := range rows {
			tokens = append(tokens, names[row])
		}
		known := slices.DeleteFunc(slices.Clone(g.Tokens), func(t string) bool { return t == "[UNK]" })
		if !slices.Equal(tokens, known) || unknown != len(g.Tokens)-len(known) {
			t.Errorf("%q: %q and %d unknown, want %q", g.Text, tokens, unknown, g.Tokens)
			continue
		}
		vectors, err := s.Embed(context.Background(), []string{g.Text})
		if err != nil {
			t.Errorf("%q: %v", g.Text, err)
			continue
		}
		for i, x := range g.Vector {
			if math.Abs(float64(x-vectors[0][i])) > 1e-5 {
				t.Errorf("%q: component %d is %v, want %v", g.Text, i, vectors[0][i], x)
			}
		}
		for _, x := range vectors[0] {
			binary.Write(digest, binary.LittleEndian, x)
		}
	}
	// On every platform. A change of the table, or of how it is summed up, is another model and wants another name.
	if want := uint32(0xf577c1ba); digest.Sum32() != want {
		t.Errorf("the vectors have the digest %#x, want %#x", digest.Sum32(), want)
	}
}

// ExampleMiniLM finds, of three memories, the one that answers.
func ExampleMiniLM() {
	model := MiniLM()
	memories := []string{"The user is allergic to peanuts.", "Deployments are frozen on Fridays.", "The cat is called Tom."}
	vectors, err := model.Embed(context.Background(), append(memories, "when may I release the new version?"))
	if err != nil {
		panic(err)
	}
	best, most := 0, float32(-1)
	for i := range memories {
		if d := dot(vectors[i], vectors[len(memories)]); d > most {
			best, most = i, d
		}
	}
	fmt.Println(memories[best])
	// Output: Deployments are frozen on Fridays.
}

func dot(a, b []float32) (sum float32) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

func FuzzOpenStatic(f *testing.F) {
	f.Add([]byte(small[12:]), "a sea")
	f.Fuzz(func(t *testing.T, body []byte, text string) {
		s, err := openStatic("fuzz", sealed(body))
		if err != nil {
			return
		}
		vectors, err := s.Embed(context.Background(), []string{text})
		if err == nil && len(vectors[0]) != s.Dim() {
			t.Errorf("%d components, not %d", len(vectors[0]), s.Dim())
		}
	})
}

func FuzzWordPiece(f *testing.F) {
	for _, text := range []string{"a sea", "Ünïcödé 東京", "İ\u0307\xff", strings.Repeat("asea", 99)} {
		f.Add(text)
	}
	s := MiniLM()
	f.Fuzz(func(t *testing.T, text string) {
		rows, unknown := s.tokens.appendRows(nil, text)
		for _, row := range rows {
			if int(row) >= len(s.scales) {
				t.Fatalf("row %d of %d", row, len(s.scales))
			}
		}
		// NFD makes at most 4 of one character, and each of these at most one piece.
		if most := 4 * utf8.RuneCountInString(text); len(rows)+unknown > most {
			t.Errorf("%d pieces and %d unknown words of %d characters", len(rows), unknown, most)
		}
		vectors, err := s.Embed(context.Background(), []string{text})
		if err != nil {
			return
		}
		if squares := dot(vectors[0], vectors[0]); math.Abs(float64(squares)-1) > 1e-4 {
			t.Errorf("%q has a vector of length² %g", text, squares)
		}
	})
}

const passage = "The agent remembers what it was told: on Tuesday the customer asked for a refund of 129.99 euros, because the " +
	"headphones that were delivered to Łódź had been damaged, and a replacement is unavailable until mid-December."

func BenchmarkStaticEmbed(b *testing.B) {
	s := MiniLM()
	run := func(name, text string) {
		rows, _ := s.tokens.appendRows(nil, text)
		b.Run(name, func(b *testing.B) {
			texts := []string{text}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Embed(context.Background(), texts); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(rows))*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
	run("query", "when may I release the new version?")
	run("passage", passage)
	run("document", strings.Repeat(passage+"\n", 100))
	run("worst", strings.Repeat(strings.Repeat("q", 100)+" ", 100)) // a hundred pieces a word, each found last
}

func BenchmarkOpenStatic(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := openStatic(StaticModel, minilm); err != nil {
			b.Fatal(err)
		}
	}
}
