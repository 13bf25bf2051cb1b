// Package embed turns texts into vectors: by a table of token vectors that is part of the program, or by an endpoint
// that the operator names, and remembers what it was asked last.
package embed

import (
	"context"
	"fmt"

	"github.com/vectord/vectord"
)

// Embedder makes vectors of texts. Any number of goroutines may call it.
type Embedder interface {
	// Name is what requests call the model by.
	Name() string

	// Dim is the number of components of every vector that it makes.
	Dim() int

	// Embed returns one vector of Dim components for each text, in their order. The vectors share no memory with each
	// other, but they may be shared with later callers: nobody changes them. A text that cannot be embedded fails the
	// whole call with a *TextError that says which, or with a *vectord.Error where nothing says which.
	Embed(ctx context.Context, texts []string) ([][]float32, error)
}

// TextsMax is the most texts of one call. One text has at most vectord.MaxDocumentBytes.
const TextsMax = vectord.MaxBatchPoints

// TextError is what is wrong with one of the texts of a call.
type TextError struct {
	Place int // in the call's texts, from 0
	Err   error
}

func (e *TextError) Error() string { return fmt.Sprintf("text %d %v", e.Place, e.Err) }

// Unwrap returns the error without the place, a *vectord.Error.
func (e *TextError) Unwrap() error { return e.Err }

func nothingToEmbed(place int) error {
	return &TextError{place, vectord.Errorf(vectord.KindUnprocessable, "has nothing to embed")}
}

func checkTexts(texts []string) error {
	if len(texts) > TextsMax {
		return vectord.Errorf(vectord.KindTooLarge, "%d texts to embed, at most %d are accepted at once", len(texts), TextsMax)
	}
	for i, text := range texts {
		if len(text) > vectord.MaxDocumentBytes {
			return &TextError{i, vectord.Errorf(vectord.KindUnprocessable, "has %d bytes, at most %d are accepted",
				len(text), vectord.MaxDocumentBytes)}
		}
	}
	return nil
}
