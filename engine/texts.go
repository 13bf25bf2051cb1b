package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/text"
)

// Embedder makes dense vectors of texts. Any number of goroutines may call it; nobody changes the vectors that it returns.
type Embedder interface {
	Name() string // what requests call the model by
	Dim() int
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// bm25Model is the name of the model that makes sparse vectors of texts, in any case.
const bm25Model = "qdrant/bm25"

// modelsKept is how many models, which differ in their options, are kept ready.
const modelsKept = 64

var models = func() *lru.Cache[string, *text.BM25] {
	c, err := lru.New[string, *text.BM25](modelsKept)
	if err != nil {
		panic(err) // the size is a positive constant, which is all that it checks
	}
	return c
}()

// sparseOfText makes a sparse vector of a text: of a query or of a point.
func sparseOfText(d *vectord.Document, query bool) (vectord.Vector, error) {
	if !strings.EqualFold(d.Model, bm25Model) {
		return vectord.Vector{}, vectord.Errorf(vectord.KindUnsupported, "model %q makes no sparse vectors here, only Qdrant/bm25 does", d.Model)
	}
	if err := checkText(d); err != nil {
		return vectord.Vector{}, err
	}
	m, err := modelOf(d.Options)
	if err != nil {
		return vectord.Vector{}, err
	}
	vectorize := m.Document
	if query {
		vectorize = m.Query
	}
	indices, values := vectorize(d.Text)
	return vectord.Sparse(indices, values), nil
}

func checkText(d *vectord.Document) error {
	if len(d.Text) > vectord.MaxDocumentBytes {
		return vectord.Errorf(vectord.KindUnprocessable, "text: %d bytes, at most %d are accepted", len(d.Text), vectord.MaxDocumentBytes)
	}
	return nil
}

// embedderFor returns the model that a text for the dense vectors of a name asks for.
func (db *DB) embedderFor(d *vectord.Document, spec *vectorSpec) (Embedder, error) {
	e := db.embedders[strings.ToLower(d.Model)]
	switch {
	case e == nil:
		return nil, vectord.Errorf(vectord.KindUnsupported, "model %q makes no dense vectors here, expected one of %s", d.Model, strings.Join(db.embedderNames(), ", "))
	case e.Dim() != spec.dim:
		return nil, vectord.Errorf(vectord.KindInvalid, "Vector dimension error: expected dim: %d, got %d, which model %q makes", spec.dim, e.Dim(), e.Name())
	case len(d.Options) > 0:
		return nil, vectord.Errorf(vectord.KindUnsupported, "options: model %q has none", e.Name())
	}
	return e, checkText(d)
}

func (db *DB) embedderNames() []string {
	var names []string
	for _, e := range db.embedders {
		names = append(names, e.Name())
	}
	slices.Sort(names)
	return names
}

// textsToEmbed are texts on their way to their models, and where their vectors go.
type textsToEmbed struct {
	byModel map[string]*textBatch
	made    map[*vectord.Document][]float32 // of a query's texts
}

type textBatch struct {
	embedder Embedder
	texts    []string
	into     []func(vector []float32)
}

func (t *textsToEmbed) add(e Embedder, text string, into func(vector []float32)) {
	if t.byModel == nil {
		t.byModel = map[string]*textBatch{}
	}
	b := t.byModel[e.Name()]
	if b == nil {
		b = &textBatch{embedder: e}
		t.byModel[e.Name()] = b
	}
	b.texts, b.into = append(b.texts, text), append(b.into, into)
}

// embed asks each model once for each textsPerCall of its texts.
func (t *textsToEmbed) embed(ctx context.Context) error {
	for _, b := range t.byModel {
		for len(b.texts) > 0 {
			n := min(len(b.texts), textsPerCall)
			vectors, err := b.embedder.Embed(ctx, b.texts[:n])
			if err != nil {
				return fmt.Errorf("model %q: %w", b.embedder.Name(), err)
			}
			if len(vectors) != n {
				return fmt.Errorf("model %q made %d vectors of %d texts", b.embedder.Name(), len(vectors), n)
			}
			for i, v := range vectors {
				b.into[i](v)
			}
			b.texts, b.into = b.texts[n:], b.into[n:]
		}
	}
	return nil
}

// textsPerCall bounds the texts that a model is asked for at a time.
const textsPerCall = 1000

// embedPoints puts vectors in the places of the texts of operations that were checked.
func (db *DB) embedPoints(ctx context.Context, col *collection, ops []vectord.Operation) error {
	var texts textsToEmbed
	for _, op := range ops {
		for _, p := range op.Points {
			for i := range p.Vectors {
				v := &p.Vectors[i]
				if v.Kind != vectord.TextVector {
					continue
				}
				spec, err := col.spec(v.Name)
				if err != nil {
					return err
				}
				e, err := db.embedderFor(v.Text, spec)
				if err != nil {
					return err
				}
				// The vector is shared with whoever asks for the same text, and this one will be normalised.
				texts.add(e, v.Text.Text, func(made []float32) { v.Vector = vectord.Dense(slices.Clone(made)) })
			}
		}
	}
	return texts.embed(ctx)
}

// embedQuery returns the vectors of the texts that a query and its prefetches compare dense vectors with.
func (db *DB) embedQuery(ctx context.Context, col *collection, q *vectord.Query) (map[*vectord.Document][]float32, error) {
	texts := textsToEmbed{made: map[*vectord.Document][]float32{}}
	if err := db.queryTexts(col, q, &texts); err != nil || texts.byModel == nil {
		return nil, err
	}
	return texts.made, texts.embed(ctx)
}

func (db *DB) queryTexts(col *collection, q *vectord.Query, texts *textsToEmbed) (err error) {
	eachExample(q, func(x *vectord.Example) {
		if err != nil || x.ID != nil || x.Vector.Kind != vectord.TextVector {
			return
		}
		var spec *vectorSpec
		if spec, err = col.spec(q.Using); err != nil || spec.kind != vectord.DenseVector {
			return
		}
		var e Embedder
		if e, err = db.embedderFor(x.Vector.Text, spec); err == nil {
			texts.add(e, x.Vector.Text.Text, func(v []float32) { texts.made[x.Vector.Text] = v })
		}
	})
	for i := range q.Prefetch {
		if err == nil {
			err = db.queryTexts(col, &q.Prefetch[i], texts)
		}
	}
	return err
}

func modelOf(options json.RawMessage) (*text.BM25, error) {
	if m, ok := models.Get(string(options)); ok {
		return m, nil
	}
	params := text.DefaultBM25Params()
	if len(options) > 0 {
		if err := json.Unmarshal(options, &params); err != nil {
			return nil, vectord.Errorf(vectord.KindInvalid, "options: %v", err)
		}
	}
	m, err := text.NewBM25(params)
	if err != nil {
		return nil, err
	}
	models.Add(string(options), m)
	return m, nil
}
