package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/vectord/vectord"
)

// The functions of this file append JSON to an answer. Floats are float32s in their shortest form, so that what a client
// stored reads back as it was written.

func appendFloat(dst []byte, x float32) []byte {
	return jsontext.AppendFloat(dst, float64(x), 32)
}

func appendFloats(dst []byte, v []float32) []byte {
	dst = append(dst, '[')
	for i, x := range v {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendFloat(dst, x)
	}
	return append(dst, ']')
}

func appendVector(dst []byte, v *vectord.Vector) []byte {
	switch v.Kind {
	case vectord.SparseVector:
		dst = append(dst, `{"indices":[`...)
		for i, index := range v.Indices {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendUint(dst, uint64(index))
		}
		dst = appendFloats(append(dst, `],"values":`...), v.Values)
		return append(dst, '}')
	case vectord.MultiVector:
		dst = append(dst, '[')
		size := len(v.Values) / max(v.Rows, 1)
		for row := range v.Rows {
			if row > 0 {
				dst = append(dst, ',')
			}
			dst = appendFloats(dst, v.Values[row*size:(row+1)*size])
		}
		return append(dst, ']')
	}
	return appendFloats(dst, v.Values)
}

// appendVectors appends the vectors of a point: bare, if there is none but the default one, else by name.
func appendVectors(dst []byte, vectors vectord.Vectors) []byte {
	if len(vectors) == 1 && vectors[0].Name == "" {
		return appendVector(dst, &vectors[0].Vector)
	}
	dst = append(dst, '{')
	for i := range vectors {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, vectors[i].Name), ':')
		dst = appendVector(dst, &vectors[i].Vector)
	}
	return append(dst, '}')
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
	if s.Vectors {
		dst = append(dst, `,"vector":`...)
		dst = appendVectors(dst, r.Vectors)
	}
	if r.Expires != 0 {
		dst = append(dst, `,"expires_at":"`...)
		dst = time.UnixMilli(r.Expires).UTC().AppendFormat(dst, time.RFC3339Nano)
		dst = append(dst, '"')
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

// appendAnswer appends the answer to a query in the form of the query API, with its explanation if there is one.
func appendAnswer(dst []byte, hits []vectord.Hit, q *query) []byte {
	dst = appendHits(append(dst, `{"points":`...), hits, &q.answer)
	if x := q.Explain; x != nil {
		dst = append(dst, `,"explain":{"plans":[`...)
		for i, plan := range x.Plans {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendString(dst, plan)
		}
		dst = fmt.Appendf(dst, `],"matching":%d,"candidates":%d,"visited":%d,"exact":%v}`, x.Matching, x.Candidates, x.Visited, x.Exact)
	}
	return append(dst, '}')
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
		Recall        any                          `json:"recall,omitempty"` // vectord's own
	}{info.Status, "ok", info.Points, info.IndexedVectors, info.Config.Params.ShardNumber, config, info.Fields, recallJSON(info.Recall)})
	if err != nil {
		return dst, fmt.Errorf("encode collection info: %w", err)
	}
	return append(dst, out...), nil
}

// recallJSON is bare where the default vectors are the only ones, as vectors are, else by name.
func recallJSON(recall map[string]vectord.RecallState) any {
	if unnamed, ok := recall[""]; ok && len(recall) == 1 {
		return unnamed
	}
	if len(recall) == 0 {
		return nil
	}
	return recall
}
