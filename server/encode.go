package server

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// The functions of this file append JSON to an answer. Floats are float32s in their shortest form, so that what a client
// stored reads back as it was written.

func appendFloat(dst []byte, x float32) []byte {
	return jsontext.AppendFloat(dst, float64(x), 32)
}

func appendVector(dst []byte, v []float32) []byte {
	dst = append(dst, '[')
	for i, x := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFloat(dst, x)
	}
	return append(dst, ']')
}

func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, strings.ToValidUTF8(s, "\uFFFD")) // fails on invalid UTF-8 only
	return dst
}

// appendParts appends the payload and the vector of a point, as far as they were asked for, and closes its object.
func appendParts(dst []byte, r *vectord.Record, s *selection) []byte {
	if s.payload {
		dst = append(dst, `,"payload":`...)
		if len(r.Payload) > 0 {
			dst = append(dst, r.Payload...)
		} else {
			dst = append(dst, "{}"...)
		}
	}
	if s.Vector {
		dst = append(dst, `,"vector":`...)
		dst = appendVector(dst, r.Vector)
	}
	return append(dst, '}')
}

func appendRecord(dst []byte, r *vectord.Record, s *selection) []byte {
	dst = append(dst, `{"id":`...)
	dst = r.ID.AppendJSON(dst)
	return appendParts(dst, r, s)
}

func appendRecords(dst []byte, records []vectord.Record, s *selection) []byte {
	dst = append(dst, '[')
	for i := range records {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendRecord(dst, &records[i], s)
	}
	return append(dst, ']')
}

func appendHits(dst []byte, hits []vectord.Hit, s *selection) []byte {
	dst = append(dst, '[')
	for i := range hits {
		h := &hits[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"id":`...)
		dst = h.ID.AppendJSON(dst)
		dst = append(dst, `,"version":`...)
		dst = appendUint(dst, h.Version)
		dst = append(dst, `,"score":`...)
		dst = appendFloat(dst, h.Score)
		dst = appendParts(dst, &h.Record, s)
	}
	return append(dst, ']')
}

func appendUpdateResult(dst []byte, u vectord.UpdateResult, waited bool) []byte {
	dst = append(dst, `{"operation_id":`...)
	dst = appendUint(dst, u.OperationID)
	if waited && !u.Pending {
		return append(dst, `,"status":"completed"}`...)
	}
	return append(dst, `,"status":"acknowledged"}`...)
}

func appendAliases(dst []byte, aliases []vectord.Alias) []byte {
	dst = append(dst, `{"aliases":[`...)
	for i, a := range aliases {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"alias_name":`...)
		dst = appendString(dst, a.Name)
		dst = append(dst, `,"collection_name":`...)
		dst = appendString(dst, a.Collection)
		dst = append(dst, '}')
	}
	return append(dst, "]}"...)
}

// quantizationInEffect returns a quantization_config in terms of Qdrant's API, to which vectord's default is a choice, and
// none is null.
func quantizationInEffect(config json.RawMessage) json.RawMessage {
	switch {
	case len(config) == 0 || string(config) == "null":
		return json.RawMessage(`{"scalar":{"type":"int8"}}`)
	case string(config) == vectord.QuantizationDisabled:
		return nil
	}
	return config
}

func appendCollectionInfo(dst []byte, info *vectord.CollectionInfo) ([]byte, error) {
	config := info.Config
	config.Quantization = quantizationInEffect(config.Quantization)
	if info.Fields == nil {
		info.Fields = map[string]vectord.FieldInfo{}
	}
	out, err := json.Marshal(struct {
		Status          vectord.CollectionStatus `json:"status"`
		OptimizerStatus string                   `json:"optimizer_status"`
		Points          int                      `json:"points_count"`
		Indexed         int                      `json:"indexed_vectors_count"`
		Segments        int                      `json:"segments_count"` // vectord has shards, each of which is one piece
		Config          vectord.CollectionConfig `json:"config"`

		PayloadSchema map[string]vectord.FieldInfo `json:"payload_schema"`
		Recall        vectord.RecallState          `json:"recall"` // vectord's own
	}{info.Status, "ok", info.Points, info.IndexedVectors, info.Config.Params.ShardNumber, config, info.Fields, info.Recall})
	if err != nil {
		return dst, fmt.Errorf("encode collection info: %w", err)
	}
	return append(dst, out...), nil
}
