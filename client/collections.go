package client

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/vectord/vectord"
)

// CreateCollection creates a collection with the configuration's vectors, graph settings and metadata. The settings
// that vectord keeps only for other clients to read back are not sent.
func (c *Client) CreateCollection(ctx context.Context, name string, config vectord.CollectionConfig) error {
	if err := config.Validate(); err != nil {
		return err
	}
	body, err := json.Marshal(struct {
		Vectors      vectord.VectorParams `json:"vectors"`
		ShardNumber  int                  `json:"shard_number"`
		HNSW         vectord.HNSWConfig   `json:"hnsw_config"`
		Optimizers   optimizers           `json:"optimizers_config"`
		Quantization json.RawMessage      `json:"quantization_config,omitempty"`
		Metadata     json.RawMessage      `json:"metadata,omitempty"`
	}{
		config.Params.Vectors, config.Params.ShardNumber, config.HNSW,
		optimizers{config.Optimizer.IndexingThreshold}, config.Quantization, config.Metadata,
	})
	if err != nil {
		return err
	}
	return c.call(ctx, write(http.MethodPut, collectionPath(name, ""), body, vectord.WriteOptions{}), nil)
}

type optimizers struct {
	IndexingThreshold int `json:"indexing_threshold"`
}

// Collection returns the state and configuration of a collection or of the one that an alias stands for.
func (c *Client) Collection(ctx context.Context, name string) (vectord.CollectionInfo, error) {
	var result struct {
		Status         vectord.CollectionStatus `json:"status"`
		Points         int                      `json:"points_count"`
		IndexedVectors int                      `json:"indexed_vectors_count"`
		Config         vectord.CollectionConfig `json:"config"`
		Recall         vectord.RecallState      `json:"recall"`

		Fields map[string]vectord.FieldInfo `json:"payload_schema"`
	}
	err := c.call(ctx, request{method: http.MethodGet, path: collectionPath(name, "")}, &result)
	return vectord.CollectionInfo(result), err
}

// DeleteCollection deletes a collection and reports whether it was there.
func (c *Client) DeleteCollection(ctx context.Context, name string) (bool, error) {
	var deleted bool
	err := c.call(ctx, write(http.MethodDelete, collectionPath(name, ""), nil, vectord.WriteOptions{}), &deleted)
	return deleted, err
}
