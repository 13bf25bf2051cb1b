package engine

import (
	"encoding/json"
	"strings"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/text"
)

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

// textVector makes a vector of a text: of a query or of a point.
func textVector(d *vectord.Document, query bool) (vectord.Vector, error) {
	if !strings.EqualFold(d.Model, bm25Model) {
		return vectord.Vector{}, vectord.Errorf(vectord.KindUnsupported, "model %q is not offered by this server, only Qdrant/bm25", d.Model)
	}
	if len(d.Text) > vectord.MaxDocumentBytes {
		return vectord.Vector{}, vectord.Errorf(vectord.KindUnprocessable, "text: %d bytes, at most %d are accepted", len(d.Text), vectord.MaxDocumentBytes)
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
