package node

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord/engine"
	"github.com/vectord/vectord/internal/embed"
)

// staticModel is the model that is part of the program. It is loaded when a text comes for it: most servers get vectors.
type staticModel struct{}

// Name implements embed.Embedder.
func (staticModel) Name() string { return embed.StaticModel }

// Dim implements embed.Embedder.
func (staticModel) Dim() int { return embed.StaticDim }

// Embed implements embed.Embedder.
func (staticModel) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	return embed.MiniLM().Embed(ctx, texts)
}

// embedders returns the models of a node, each behind a cache: the program's own, and the endpoint's if one is configured.
func embedders(endpoint *embed.HTTPOptions, metrics prometheus.Registerer) ([]engine.Embedder, error) {
	behind := []embed.Embedder{staticModel{}}
	if endpoint != nil {
		e, err := embed.NewHTTP(*endpoint)
		if err != nil {
			return nil, err
		}
		behind = append(behind, e)
	}
	var caches []*embed.Cache
	var models []engine.Embedder
	for _, e := range behind {
		c, err := embed.NewCache(e, embed.CacheOptions{})
		if err != nil {
			return nil, err
		}
		caches, models = append(caches, c), append(models, c)
	}
	if metrics != nil {
		metrics.MustRegister(embeddingCollector(caches))
	}
	return models, nil
}

// embeddingCollector exports what the caches of models have done.
type embeddingCollector []*embed.Cache

var (
	embeddedTexts = prometheus.NewDesc("vectord_embedding_texts_total",
		"Texts that vectors were wanted of: hit ones were kept, joined ones on their way for others, miss ones went to the model.",
		[]string{"model", "found"}, nil)
	embeddingEvictions = prometheus.NewDesc("vectord_embedding_cache_evictions_total", "Vectors dropped to make room.", []string{"model"}, nil)
	embeddingEntries   = prometheus.NewDesc("vectord_embedding_cache_entries", "Vectors that are kept.", []string{"model"}, nil)
	embeddingBytes     = prometheus.NewDesc("vectord_embedding_cache_bytes", "Memory that they take.", []string{"model"}, nil)
)

// Describe implements prometheus.Collector.
func (embeddingCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{embeddedTexts, embeddingEvictions, embeddingEntries, embeddingBytes} {
		descs <- d
	}
}

// Collect implements prometheus.Collector.
func (c embeddingCollector) Collect(values chan<- prometheus.Metric) {
	for _, cache := range c {
		s := cache.Stats()
		send := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
			values <- prometheus.MustNewConstMetric(d, kind, value, append([]string{cache.Name()}, labels...)...)
		}
		send(embeddedTexts, prometheus.CounterValue, float64(s.Hits), "hit")
		send(embeddedTexts, prometheus.CounterValue, float64(s.Joined), "joined")
		send(embeddedTexts, prometheus.CounterValue, float64(s.Misses), "miss")
		send(embeddingEvictions, prometheus.CounterValue, float64(s.Evictions))
		send(embeddingEntries, prometheus.GaugeValue, float64(s.Entries))
		send(embeddingBytes, prometheus.GaugeValue, float64(s.Bytes))
	}
}
