package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/bench/dataset"
	"github.com/vectord/vectord/client"
)

type importCmd struct {
	Files          []string `arg:"" optional:"" help:"Data sets: .fvecs, .npy, .jsonl or .ndjson, each also with .gz." placeholder:"FILE"`
	FromQdrant     string   `help:"Instead of files: server with Qdrant's REST API, whose collections are copied." placeholder:"URL" name:"from-qdrant"`
	FromAPIKey     string   `help:"Key that this server asks for." placeholder:"KEY" name:"from-api-key" setting:""`
	FromAPIKeyFile string   `help:"File with that key in its first line." placeholder:"FILE" name:"from-api-key-file" setting:""`
	serverFlags    `embed:""`
	Collection     string `help:"Collection to load into; of a server, the one to copy, all of them without."`
	Create         bool   `help:"Create the collection if it does not exist."`
	Distance       string `help:"With --create: cosine (the default), euclid, dot or manhattan." placeholder:"NAME"`
	Batch          int    `help:"Points in one request." default:"256"`
	Concurrency    int    `help:"Requests on their way at a time, of files." default:"4"`
	IDField        string `help:"Field of a JSON line that holds the id." default:"id" name:"id-field"`
	NumberRows     bool   `help:"Number JSON lines instead of reading their ids."`
	FirstID        uint64 `help:"Id of the first point where rows are numbered." default:"0" name:"first-id"`
	Lines          string `help:"Text file whose line n goes into the payload of point n." placeholder:"FILE"`
	LinesField     string `help:"With --lines: payload key of the text." default:"text"`
	Resume         bool   `help:"Go on where an interrupted import of the same files or server stopped."`
}

// Help is shown by import --help.
func (importCmd) Help() string {
	return `Examples:

    vectord import embeddings.npy --collection papers --create --distance cosine
    vectord import points.jsonl.gz --collection shop --batch 512 --concurrency 8
    vectord import base.fvecs --lines base.txt --lines-field word --collection words --create
    vectord import --from-qdrant http://qdrant:6333 --from-api-key-file key

A JSON line is {"id": 7, "vector": [0.1, 0.2], "payload": {"city": "Oslo"}} with a number or a UUID as id. The other formats
have no ids: their rows are numbered from --first-id on, through all files.

Progress is kept beside the first file, in FILE.vectord-import, until the import is complete. After an interruption the same
command with --resume goes on behind the last batch that the server acknowledged. Starting over is harmless too: points are
written under the same ids again.

With --from-qdrant collections are copied with their settings, payload indexes, points and aliases, and compared at the end:
the numbers of points, and a sample of the points themselves. The source should not be written to meanwhile. Progress is kept
in the current directory, in HOST_PORT.vectord-import. --url and --api-key are those of the vectord to copy to.`
}

// Validate refuses flags that do not go together. kong calls it.
func (c *importCmd) Validate() error {
	fromFiles := len(c.Files) > 0 || c.Create || c.Distance != "" || c.Lines != "" || c.NumberRows
	switch {
	case c.FromQdrant != "" && fromFiles:
		return errors.New("--from-qdrant and files, with the flags for them, cannot be given together")
	case c.FromQdrant != "":
		return nil
	case len(c.Files) == 0:
		return errors.New(`expected "<files> ..." or --from-qdrant`)
	case c.Collection == "":
		return errors.New("missing flags: --collection=STRING")
	}
	return nil
}

// Run loads the files, or copies from a server.
func (c *importCmd) Run(s *session) error {
	if c.FromQdrant != "" {
		return c.migrate(s)
	}
	distance := vectord.Cosine
	if c.Distance != "" {
		var err error
		if distance, err = bench.ParseMetric(c.Distance); err != nil {
			return fmt.Errorf("--distance: %w", err)
		}
	}
	if err := vectord.CheckCollectionName(c.Collection); err != nil {
		return err
	}
	server, err := c.client(importAttempts)
	if err != nil {
		return err
	}
	state, err := c.openState()
	if err != nil {
		return err
	}
	points, err := c.open()
	if err != nil {
		return err
	}
	defer points.Close()
	first, err := points.peek()
	if err != nil {
		return err
	}
	if err := c.prepare(s.ctx, server, len(first.Vectors.Unnamed()), distance); err != nil {
		return err
	}

	if state.Points > 0 {
		fmt.Fprintf(s.stderr, "going on behind %d points\n", state.Points)
	}
	skipped := state.Points
	begin := time.Now()
	bar := newProgress(s.stderr)
	saved := begin
	var saveErr error // the first one; an import that cannot keep its progress is still worth finishing
	load := bench.Load{Client: server, Collection: c.Collection, Dim: len(first.Vectors.Unnamed()), Batch: c.Batch, Concurrency: c.Concurrency, Skip: skipped,
		Acknowledged: func(n uint64) {
			state.Points = n
			if now := time.Now(); now.Sub(saved) >= importSaveEvery && saveErr == nil {
				saved, saveErr = now, state.save()
			}
			bar.show(fmt.Sprintf("%s %d points, %.0f/s", progressBar(points.share()), n, float64(n-skipped)/time.Since(begin).Seconds()))
		}}
	report, err := load.Run(s.ctx, points)
	bar.clear()
	if err != nil {
		if saveErr = state.save(); saveErr != nil {
			return fmt.Errorf("%w (after %d points; the progress could not be kept: %w)", err, state.Points, saveErr)
		}
		return fmt.Errorf("%w (after %d points; the same command with --resume goes on from there)", err, state.Points)
	}
	if err := state.remove(); err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "%d points in collection %q, %d of them written in %.1f s (%.0f/s)\n", report.Points, c.Collection,
		report.Points-skipped, report.Seconds, float64(report.Points-skipped)/report.Seconds)
	return nil
}

// prepare makes sure that the collection exists and fits the vectors.
func (c *importCmd) prepare(ctx context.Context, server *client.Client, dim int, distance vectord.Distance) error {
	info, err := server.Collection(ctx, c.Collection)
	switch {
	case err == nil:
		v, ok := info.Config.Params.Vectors[""]
		if !ok {
			return fmt.Errorf("collection %q has no default vector", c.Collection)
		}
		if v.Size != dim {
			return fmt.Errorf("the vectors have %d components, those of collection %q have %d", dim, c.Collection, v.Size)
		}
		if c.Distance != "" && v.Distance != distance {
			return fmt.Errorf("--distance is %v, collection %q has %v", distance, c.Collection, v.Distance)
		}
		return nil
	case client.StatusOf(err) != http.StatusNotFound:
		return err
	case !c.Create:
		return fmt.Errorf("%w; --create creates it", err)
	}
	return server.CreateCollection(ctx, c.Collection, vectord.DefaultCollectionConfig(dim, distance))
}

const (
	// importSaveEvery is how often the progress of an import is kept, so that a killed one repeats no more than this.
	importSaveEvery = time.Second

	// importAttempts lets an import sit out a restart of the server: the pauses between so many add up to ten seconds.
	importAttempts = 12
)

// importState is the progress of an import, kept in a file beside its first data set.
type importState struct {
	path string

	Version    int          `json:"version"`
	URL        string       `json:"url"`
	Collection string       `json:"collection"`
	Files      []importFile `json:"files"`
	IDs        string       `json:"ids"`    // how the points get their ids
	Lines      string       `json:"lines"`  // where they get their payloads
	Points     uint64       `json:"points"` // acknowledged, from the beginning without a gap
}

type importFile struct {
	Path     string `json:"path"`
	Size     int64  `json:"size"`
	Modified int64  `json:"modified"` // nanoseconds since the Unix epoch
}

const (
	importStateVersion  = 1
	importStateSuffix   = ".vectord-import"
	importStateBytesMax = 1 << 20
)

// openState returns the state of an import that begins or, with --resume, goes on.
func (c *importCmd) openState() (*importState, error) {
	state := &importState{path: c.Files[0] + importStateSuffix, Version: importStateVersion, URL: c.URL, Collection: c.Collection,
		IDs: fmt.Sprintf("%s %t %d", c.IDField, c.NumberRows, c.FirstID), Lines: c.Lines + " " + c.LinesField}
	for _, path := range c.Files {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		if path, err = filepath.Abs(path); err != nil {
			return nil, err
		}
		state.Files = append(state.Files, importFile{path, info.Size(), info.ModTime().UnixNano()})
	}
	if !c.Resume {
		return state, nil
	}
	f, err := os.Open(state.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("--resume: no import of %s was interrupted (there is no %s)", c.Files[0], state.path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var kept importState
	if err := json.NewDecoder(io.LimitReader(f, importStateBytesMax)).Decode(&kept); err != nil {
		return nil, fmt.Errorf("--resume: %s is damaged, remove it and start over: %w", state.path, err)
	}
	state.Points, kept.path = kept.Points, state.path
	if !reflect.DeepEqual(&kept, state) {
		return nil, fmt.Errorf("--resume: %s belongs to an import of other files, with other flags, or into collection %q of %s; "+
			"repeat that one, or start over without --resume", state.path, kept.Collection, kept.URL)
	}
	return state, nil
}

func (s *importState) save() error { return replaceFile(s.path, s) }

func (s *importState) remove() error { return removeFile(s.path) }

// replaceFile writes v as JSON at once, so that the file is whole whenever it is read.
func replaceFile(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	next := path + ".next"
	if err := os.WriteFile(next, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func removeFile(path string) error {
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// importReader reads the files of an import one after another. share may be called from any goroutine as long as
// importReader is open.
type importReader struct {
	files  []*dataset.File
	file   int            // that is being read
	first  *vectord.Point // looked at, and to be returned again
	number uint64         // id of the next numbered point

	lines      *bufio.Scanner // nil without --lines
	linesFile  *os.File
	linesField string
}

func (c *importCmd) open() (_ *importReader, err error) {
	r := &importReader{number: c.FirstID}
	defer func() {
		if err != nil {
			r.Close()
		}
	}()
	for _, path := range c.Files {
		f, err := dataset.Open(path, dataset.Options{IDField: c.IDField, NumberRows: c.NumberRows})
		if err != nil {
			return nil, err
		}
		r.files = append(r.files, f)
	}
	if c.Lines == "" {
		return r, nil
	}
	if r.linesFile, err = os.Open(c.Lines); err != nil {
		return nil, err
	}
	r.lines, r.linesField = bufio.NewScanner(r.linesFile), c.LinesField
	r.lines.Buffer(nil, vectord.MaxPayloadBytes/8) // JSON may take six bytes for one
	return r, nil
}

// Close closes all files.
func (r *importReader) Close() {
	for _, f := range r.files {
		f.Close()
	}
	if r.linesFile != nil {
		r.linesFile.Close()
	}
}

// share returns how much of the files' bytes has been read, from 0 to 1.
func (r *importReader) share() float64 {
	var read, size int64
	for _, f := range r.files {
		fileRead, fileSize := f.Position()
		read, size = read+fileRead, size+fileSize
	}
	return float64(read) / float64(max(size, 1))
}

// peek returns the first point, which Next will return again.
func (r *importReader) peek() (vectord.Point, error) {
	p, err := r.Next()
	if errors.Is(err, io.EOF) {
		return p, errors.New("the data set is empty")
	}
	r.first = &p
	return p, err
}

// Next implements dataset.Reader.
func (r *importReader) Next() (vectord.Point, error) {
	if p := r.first; p != nil {
		r.first = nil
		return *p, nil
	}
	for ; r.file < len(r.files); r.file++ {
		f := r.files[r.file]
		p, err := f.Next()
		if errors.Is(err, io.EOF) {
			continue
		}
		if err != nil {
			return vectord.Point{}, fmt.Errorf("%s: %w", f.Name(), err)
		}
		if f.Numbered() {
			p.ID = vectord.NumberID(r.number)
			r.number++
		}
		return r.addLine(p)
	}
	if r.lines != nil && r.lines.Scan() {
		return vectord.Point{}, fmt.Errorf("%s: has more lines than there are points", r.linesFile.Name())
	}
	return vectord.Point{}, io.EOF
}

// addLine puts the next line of --lines into the payload of p.
func (r *importReader) addLine(p vectord.Point) (vectord.Point, error) {
	if r.lines == nil {
		return p, nil
	}
	if p.Payload != nil {
		return vectord.Point{}, fmt.Errorf("point %s has a payload of its own, so --lines cannot give it one", p.ID)
	}
	if !r.lines.Scan() {
		if err := r.lines.Err(); err != nil {
			return vectord.Point{}, fmt.Errorf("%s: %w", r.linesFile.Name(), err)
		}
		return vectord.Point{}, fmt.Errorf("%s: has no line for point %s", r.linesFile.Name(), p.ID)
	}
	var err error
	p.Payload, err = json.Marshal(map[string]string{r.linesField: r.lines.Text()})
	return p, err
}
