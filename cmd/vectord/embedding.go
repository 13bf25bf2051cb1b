package main

import (
	"errors"
	"log/slog"

	"github.com/vectord/vectord/internal/embed"
)

// embeddingFlags name an endpoint that makes vectors of texts, beside the model that is part of the program.
type embeddingFlags struct {
	URL     string `help:"Endpoint of OpenAI's embeddings API, such as http://127.0.0.1:11434/v1/embeddings, that makes vectors of texts." name:"embed-url" setting:"" placeholder:"URL"`
	Model   string `help:"What that endpoint and requests call the model." name:"embed-model" setting:"" placeholder:"NAME"`
	Dim     int    `help:"Components of its vectors." name:"embed-dim" setting:"" placeholder:"N"`
	Key     string `help:"Key that the endpoint asks for." name:"embed-key" setting:"" placeholder:"KEY"`
	KeyFile string `help:"File with that key in its first line." name:"embed-key-file" setting:"" placeholder:"FILE"`
}

// options returns the endpoint, nil for none.
func (f *embeddingFlags) options(logger *slog.Logger) (*embed.HTTPOptions, error) {
	key, err := secret("embed-key", f.Key, f.KeyFile)
	if err != nil {
		return nil, err
	}
	if f.URL == "" {
		if f.Model != "" || f.Dim != 0 || key != "" {
			return nil, errors.New("--embed-model, --embed-dim and --embed-key say nothing without --embed-url")
		}
		return nil, nil
	}
	if f.Model == "" || f.Dim == 0 {
		return nil, errors.New("--embed-url needs --embed-model and --embed-dim")
	}
	return &embed.HTTPOptions{URL: f.URL, Model: f.Model, Dim: f.Dim, Key: key, Logger: logger}, nil
}
