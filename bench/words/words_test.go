package words

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vectord/vectord/bench/dataset"
)

// small is an embedding of n words of two components in the package's form.
func small(n int) string {
	var b strings.Builder
	fmt.Fprint(&b, `{"precision":8,"dimensions":2,"words":["x",{"y":[1]}],"vectors":{`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `"w%c%c":[%d.12345,-1,3.25,%d]`, 'a'+i/26%26, 'a'+i%26, i, i)
	}
	return b.String() + `},"unkVector":[0,0,0,-1]}`
}

func TestSample(t *testing.T) {
	r, err := Sample()
	if err != nil {
		t.Fatal(err)
	}
	ids := map[uint64]string{}
	for {
		p, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		var payload struct {
			Word    string
			Letters int
		}
		if err := json.Unmarshal(p.Payload, &payload); err != nil || payload.Letters != len(payload.Word) || payload.Letters < 2 || len(p.Vectors.Unnamed()) != Dimension {
			t.Fatalf("point %v: %s, %d components, %v", p.ID, p.Payload, len(p.Vectors.Unnamed()), err)
		}
		ids[p.ID.Number()] = payload.Word
	}
	if len(ids) != SampleWords || ids[654] != "king" || ids[1948] != "queen" {
		t.Errorf("%d words, 654 is %q, 1948 is %q", len(ids), ids[654], ids[1948])
	}
}

func TestRead(t *testing.T) {
	e, err := Read(strings.NewReader(small(30)))
	if err != nil || len(e.Words) != 30 || e.Words[27] != "wbb" || !slices.Equal(e.Vectors.At(27), []float32{27.12345, -1}) {
		t.Fatalf("%+v, %v", e, err)
	}
	f := func(text, want string) {
		t.Helper()
		if _, err := Read(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: error %v, want %q in it", text, err, want)
		}
	}
	f(``, "EOF")
	f(`[]`, "expected {")
	f(`{}`, "vectors: missing")
	f(`{"vectors":{}}`, "dimensions: missing")
	f(`{"dimensions":0}`, "dimensions: 0 invalid")
	f(`{"dimensions":1000000}`, "dimensions: 1000000 invalid")
	f(`{"dimensions":"x"}`, "dimensions:")
	f(`{"dimensions":2,"vectors":[]}`, "vectors: expected {")
	f(`{"dimensions":2,"vectors":{"a":[1,2,3]}}`, "got 3 numbers")
	f(`{"dimensions":2,"vectors":{"a":[1,2,3,1]}}`, "the place 0")
	f(`{"dimensions":2,"vectors":{"a":[1,null,3,0]}}`, `vector of "a"`)
	f(`{"dimensions":2,"vectors":{"a\nb":[1,2,3,0]}}`, "several lines")
	f(`{"dimensions":2,"vectors":{"`+strings.Repeat("a", textMax+1)+`":[1,2,3,0]}}`, "longer than")
	f(small(3)[:len(small(3))-60], "vector")
}

func TestOpenAndSplit(t *testing.T) {
	const n, queries = 40, 7
	dir := t.TempDir()
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	files := tar.NewWriter(z)
	for _, file := range []struct{ name, text string }{{"package/package.json", "{}"}, {"package/words.json", small(n)}} {
		files.WriteHeader(&tar.Header{Name: file.name, Size: int64(len(file.text)), Mode: 0o600, Typeflag: tar.TypeReg})
		io.WriteString(files, file.text)
	}
	files.Close()
	z.Close()
	archive := filepath.Join(dir, "words.tgz")
	if err := os.WriteFile(archive, packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	e, err := Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	if err := e.Split(out, queries); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for name, want := range map[string]int{"base": n - queries, "query": queries} {
		v, err := dataset.LoadVectors(filepath.Join(out, name+".fvecs"), n)
		if err != nil || v.Len() != want {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := os.ReadFile(filepath.Join(out, name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		last := -1
		for i, word := range strings.Fields(string(text)) {
			place := slices.Index(e.Words, word)
			if seen[word] || place <= last || !slices.Equal(v.At(i), e.Vectors.At(place)) {
				t.Errorf("%s: word %d is %s with %v", name, i, word, v.At(i))
			}
			seen[word], last = true, place
		}
	}
	entries, err := os.ReadDir(out)
	if len(seen) != n || err != nil || len(entries) != 4 {
		t.Errorf("%d words of %d in %d files, %v", len(seen), n, len(entries), err)
	}
	for _, bad := range []int{0, n, -1} {
		if e.Split(out, bad) == nil {
			t.Errorf("%d words of %d were held out", bad, n)
		}
	}
	if _, err := Open(filepath.Join(dir, "absent.tgz")); err == nil {
		t.Error("an absent archive was opened")
	}
}

func TestWriteSample(t *testing.T) {
	e, err := Read(strings.NewReader(`{"dimensions":1,"vectors":{"the":[0.12345,1,0],"a":[1,1,1],"it's":[2,1,2],"cat":[-3,1,3],"dog":[4,1,4]}}`))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := e.WriteSample(&b, 2); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&b)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	want := `{"id":0,"vector":[0.123],"payload":{"word":"the","letters":3}}` + "\n" + `{"id":3,"vector":[-3],"payload":{"word":"cat","letters":3}}` + "\n"
	if err != nil || string(text) != want {
		t.Errorf("%s, %v, want\n%s", text, err, want)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(small(3))
	f.Add(`{"dimensions":2,"vectors":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		e, err := Read(strings.NewReader(text))
		if err == nil && len(e.Words)*e.Vectors.Dim != len(e.Vectors.Data) {
			t.Fatalf("%d words and %d components of dimension %d", len(e.Words), len(e.Vectors.Data), e.Vectors.Dim)
		}
	})
}
