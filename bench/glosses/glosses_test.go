package glosses

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	f := func(line string, want Synset) {
		t.Helper()
		got, err := parse(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v, want %+v", line, got, err, want)
		}
	}
	f(`00000100 03 n 01 teapot 0 001 @ 00000200 n 0000 | a pot for tea  `,
		Synset{Kind: 'n', Words: []string{"teapot"}, Definition: "a pot for tea"})
	f(`00000100 29 v 02 pour_out 0 serve 3 000 01 + 08 00 | fill  a cup; give drinks; "he poured; we drank"; "serve the tea!"--Alice; "tea--"`,
		Synset{Kind: 'v', Words: []string{"pour out", "serve"}, Definition: "fill a cup; give drinks",
			Examples: []string{"he poured; we drank", "serve the tea!", "tea--"}})
	f(`00000100 00 s 03 hot(p) 0 scalding(a) 0 (x) 0 000 | very "warm"; " "; (of tea); "as "hot" as it gets"`,
		Synset{Kind: 's', Words: []string{"hot", "scalding", "(x)"}, Definition: `very "warm"; (of tea)`, Examples: []string{`as "hot" as it gets`}})
	f(`00000100 03 n 01 cup(p) 0 000 | ;a cup;"never closed; at all`, Synset{Kind: 'n', Words: []string{"cup(p)"}, Definition: "a cup"})
	f("00000100 03 n 0a"+strings.Repeat(" w 0", 10)+" 000 | d", Synset{Kind: 'n', Words: strings.Fields(strings.Repeat("w ", 10)), Definition: "d"})

	refused := func(line, want string) {
		t.Helper()
		if s, err := parse(line); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v, want an error with %q", line, s, err, want)
		}
	}
	refused("", "no gloss")
	refused("00000100 03 n 01 teapot 0 000", "no gloss")
	refused("00000100 03 n | d", "does not begin")
	refused("00000100 03 x 01 teapot 0 | d", "does not begin")
	refused("00000100 03 n 00 teapot 0 | d", `number of words: "00"`)
	refused("00000100 03 n 02 teapot 0 | d", `number of words: "02"`)
	refused("00000100 03 n zz teapot 0 | d", `number of words: "zz"`)
	refused(`00000100 03 n 01 teapot 0 000 | "only an example"`, "no definition")
}

func TestRead(t *testing.T) {
	synsets, err := Read(strings.NewReader("  1 a licence\n  2 that goes on\n1 03 n 01 a 0 000 | first\n2 03 n 01 b 0 000 | second\n"))
	if err != nil || len(synsets) != 2 || synsets[1].Definition != "second" {
		t.Errorf("%+v, %v", synsets, err)
	}
	if _, err := Read(strings.NewReader("  licence\n1 03 n 01 a 0 000 | first\nbroken\n")); err == nil || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("a broken line: %v", err)
	}
	if _, err := Read(strings.NewReader(strings.Repeat("x", lineMax+1))); err == nil {
		t.Error("a line without an end was read")
	}
}

func TestOpen(t *testing.T) {
	write := func(names ...string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		archive := tar.NewWriter(z)
		for _, name := range names {
			text := "1 03 " + name[len("data."):][:1] + " 01 word 0 000 | in " + name + "\n"
			if err := archive.WriteHeader(&tar.Header{Name: "package/dict/" + name, Size: int64(len(text)), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			archive.Write([]byte(text))
		}
		if err := archive.Close(); err != nil {
			t.Fatal(err)
		}
		z.Close()
		name := filepath.Join(t.TempDir(), "wordnet.tgz")
		if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	synsets, err := Open(write("data.adv", "data.rest", "data.adj", "data.verb", "data.noun"))
	var definitions []string
	for _, s := range synsets {
		definitions = append(definitions, s.Definition)
	}
	if got := strings.Join(definitions, ", "); err != nil || got != "in data.noun, in data.verb, in data.adj, in data.adv" {
		t.Errorf("definitions %s, %v", got, err)
	}
	if _, err := Open(write("data.adj", "data.verb", "data.noun")); err == nil || !strings.Contains(err.Error(), "data.adv") {
		t.Errorf("without adverbs: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`00000100 29 v 02 pour_out 0 serve 3 000 01 + 08 00 | fill a cup; give drinks; "he poured; we drank"; "serve the tea!"--Alice`)
	f.Add(`00000100 00 s 01 hot(p) 0 000 | very "warm`)
	f.Fuzz(func(t *testing.T, line string) {
		s, err := parse(line)
		if err != nil {
			return
		}
		if len(s.Words) == 0 || s.Definition == "" || strings.HasPrefix(s.Definition, ";") || strings.HasSuffix(s.Definition, ";") {
			t.Fatalf("%q became %+v", line, s)
		}
		for _, example := range s.Examples {
			if strings.TrimSpace(example) == "" || !strings.Contains(strings.Join(strings.Fields(line), " "), example) {
				t.Fatalf("%q has the example %q", line, example)
			}
		}
	})
}
