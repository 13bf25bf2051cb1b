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
		Vectors       vectord.VectorsParams           `json:"vectors"`
		SparseVectors map[string]vectord.SparseParams `json:"sparse_vectors,omitempty"`
		ShardNumber   int                             `json:"shard_number"`
		HNSW          vectord.HNSWConfig              `json:"hnsw_config"`
		Optimizers    optimizers                      `json:"optimizers_config"`
		Quantization  json.RawMessage                 `json:"quantization_config,omitempty"`
		Metadata      json.RawMessage                 `json:"metadata,omitempty"`
	}{
		config.Params.Vectors, config.Params.SparseVectors, config.Params.ShardNumber, config.HNSW,
		optimizers{config.Optimizer.IndexingThreshold}, config.Quantization, config.Metadata,
	})
	if err != nil {
		return err
	}
	return c.call(ctx, writeOnce(http.MethodPut, collectionPath(name, ""), body), nil)
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
		Recall         json.RawMessage          `json:"recall"`

		Fields map[string]vectord.FieldInfo `json:"payload_schema"`
	}
	err := c.call(ctx, request{method: http.MethodGet, path: collectionPath(name, "")}, &result)
	info := vectord.CollectionInfo{Status: result.Status, Points: result.Points, IndexedVectors: result.IndexedVectors, Config: result.Config,
		Fields: result.Fields}
	if err == nil && len(result.Recall) > 0 {
		info.Recall, err = parseRecall(result.Recall)
	}
	return info, err
}

// parseRecall reads the recall of the default vectors, or that of several by name.
func parseRecall(raw json.RawMessage) (map[string]vectord.RecallState, error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(raw, &keys); err != nil {
		return nil, err
	}
	if ef, bare := keys["ef"]; bare && len(ef) > 0 && ef[0] != '{' {
		var one vectord.RecallState
		err := json.Unmarshal(raw, &one)
		return map[string]vectord.RecallState{"": one}, err
	}
	var named map[string]vectord.RecallState
	err := json.Unmarshal(raw, &named)
	return named, err
}

// DeleteCollection deletes a collection and reports whether it was there.
func (c *Client) DeleteCollection(ctx context.Context, name string) (bool, error) {
	var deleted bool
	err := c.call(ctx, writeOnce(http.MethodDelete, collectionPath(name, ""), nil), &deleted)
	return deleted, err
}
