package grpcserver

import (
	"fmt"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// selectionOf says what an answer carries; payload is what holds if the message does not say.
func selectionOf(payload *qdrant.WithPayloadSelector, vectors *qdrant.WithVectorsSelector, otherwise bool) (s vectord.Selection) {
	switch kind := payload.GetSelectorOptions().(type) {
	case nil:
		s.Payload = otherwise
	case *qdrant.WithPayloadSelector_Enable:
		s.Payload = kind.Enable
	case *qdrant.WithPayloadSelector_Include:
		s.Include = kind.Include.GetFields()
		s.Payload = len(s.Include) > 0
	case *qdrant.WithPayloadSelector_Exclude:
		s.Payload, s.Exclude = true, kind.Exclude.GetFields()
	}
	switch kind := vectors.GetSelectorOptions().(type) {
	case *qdrant.WithVectorsSelector_Enable:
		s.Vectors = kind.Enable
	case *qdrant.WithVectorsSelector_Include:
		s.VectorNames = kind.Include.GetNames()
		s.Vectors = len(s.VectorNames) > 0
	}
	return s
}

// pointsOf reads the points of an upsert.
func pointsOf(in []*qdrant.PointStruct) ([]vectord.Point, error) {
	out := make([]vectord.Point, len(in))
	for i, p := range in {
		field := fmt.Sprintf("points[%d]", i)
		var err error
		if out[i].ID, err = idOf(field+".id", p.GetId()); err != nil {
			return nil, err
		}
		if out[i].Vectors, err = vectorsOf(p.GetVectors()); err != nil {
			return nil, fmt.Errorf("%s: %w", field, err)
		}
		if out[i].Payload, err = payloadJSON(field+".payload", p.GetPayload()); err != nil {
			return nil, err
		}
	}
	return out, nil
}

var updateModes = map[qdrant.UpdateMode]vectord.UpdateMode{
	qdrant.UpdateMode_Upsert:     vectord.WriteAll,
	qdrant.UpdateMode_InsertOnly: vectord.WriteNew,
	qdrant.UpdateMode_UpdateOnly: vectord.WriteExists,
}

// upsertFields are those of an upsert, by itself or within a batch.
type upsertFields interface {
	shardKeyed
	GetPoints() []*qdrant.PointStruct
	GetUpdateFilter() *qdrant.Filter
	GetUpdateMode() qdrant.UpdateMode
}

func upsertOf(m upsertFields) (op vectord.Operation, err error) {
	op.Kind = vectord.OpUpsert
	var known bool
	if op.UpdateMode, known = updateModes[m.GetUpdateMode()]; !known {
		return op, vectord.Errorf(vectord.KindInvalid, "update_mode: unknown mode %d", m.GetUpdateMode())
	}
	if op.UpdateFilter, err = filterOf(m.GetUpdateFilter()); err != nil {
		return op, err
	}
	op.Points, err = pointsOf(m.GetPoints())
	return op, err
}

type updateVectorsFields interface {
	shardKeyed
	GetPoints() []*qdrant.PointVectors
	GetUpdateFilter() *qdrant.Filter
}

func updateVectorsOf(m updateVectorsFields) (op vectord.Operation, err error) {
	op.Kind = vectord.OpUpdateVectors
	if op.UpdateFilter, err = filterOf(m.GetUpdateFilter()); err != nil {
		return op, err
	}
	op.Points = make([]vectord.Point, len(m.GetPoints()))
	for i, p := range m.GetPoints() {
		field := fmt.Sprintf("points[%d]", i)
		if op.Points[i].ID, err = idOf(field+".id", p.GetId()); err != nil {
			return op, err
		}
		if op.Points[i].Vectors, err = vectorsOf(p.GetVectors()); err != nil {
			return op, fmt.Errorf("%s: %w", field, err)
		}
	}
	return op, nil
}

// selectedOf returns an operation on the points that are selected.
func selectedOf(kind vectord.OperationKind, selector *qdrant.PointsSelector) (op vectord.Operation, err error) {
	op.Kind = kind
	switch chosen := selector.GetPointsSelectorOneOf().(type) {
	case *qdrant.PointsSelector_Points:
		op.IDs, err = idsOf("points", chosen.Points.GetIds())
	case *qdrant.PointsSelector_Filter:
		var f vectord.Filter
		f, err = checkedFilter(chosen.Filter)
		op.Filter = &f // an empty one selects every point
	default:
		err = missing("points_selector")
	}
	return op, err
}

type payloadFields interface {
	shardKeyed
	GetPayload() map[string]*qdrant.Value
	GetPointsSelector() *qdrant.PointsSelector
	GetKey() string
}

// payloadOperationOf returns an operation that sets or overwrites payloads.
func payloadOperationOf(kind vectord.OperationKind, m payloadFields) (vectord.Operation, error) {
	op, err := selectedOf(kind, m.GetPointsSelector())
	if err != nil {
		return op, err
	}
	if op.Key = m.GetKey(); op.Key != "" && kind != vectord.OpSetPayload {
		return op, vectord.Errorf(vectord.KindUnsupported, "key: not offered where the payload is replaced")
	}
	if op.Payload, err = payloadJSON("payload", m.GetPayload()); op.Payload == nil {
		op.Payload = []byte("{}")
	}
	return op, err
}

type keysFields interface {
	shardKeyed
	GetKeys() []string
	GetPointsSelector() *qdrant.PointsSelector
}

func deletePayloadOf(m keysFields) (vectord.Operation, error) {
	op, err := selectedOf(vectord.OpDeletePayload, m.GetPointsSelector())
	op.Keys = m.GetKeys()
	return op, err
}

type namesFields interface {
	shardKeyed
	GetVectors() *qdrant.VectorsSelector
	GetPointsSelector() *qdrant.PointsSelector
}

func deleteVectorsOf(m namesFields) (vectord.Operation, error) {
	op, err := selectedOf(vectord.OpDeleteVectors, m.GetPointsSelector())
	op.Keys = m.GetVectors().GetNames()
	return op, err
}

// operationOf reads one step of a batch.
func operationOf(m *qdrant.PointsUpdateOperation) (op vectord.Operation, err error) {
	var keyed shardKeyed
	//nolint:staticcheck // the deprecated forms are those of older clients
	switch step := m.GetOperation().(type) {
	case *qdrant.PointsUpdateOperation_Upsert:
		keyed = step.Upsert
		op, err = upsertOf(step.Upsert)
	case *qdrant.PointsUpdateOperation_DeletePoints_:
		keyed = step.DeletePoints
		op, err = selectedOf(vectord.OpDelete, step.DeletePoints.GetPoints())
	case *qdrant.PointsUpdateOperation_DeleteDeprecated:
		return selectedOf(vectord.OpDelete, step.DeleteDeprecated)
	case *qdrant.PointsUpdateOperation_SetPayload_:
		keyed = step.SetPayload
		op, err = payloadOperationOf(vectord.OpSetPayload, step.SetPayload)
	case *qdrant.PointsUpdateOperation_OverwritePayload_:
		keyed = step.OverwritePayload
		op, err = payloadOperationOf(vectord.OpOverwritePayload, step.OverwritePayload)
	case *qdrant.PointsUpdateOperation_DeletePayload_:
		keyed = step.DeletePayload
		op, err = deletePayloadOf(step.DeletePayload)
	case *qdrant.PointsUpdateOperation_ClearPayload_:
		keyed = step.ClearPayload
		op, err = selectedOf(vectord.OpClearPayload, step.ClearPayload.GetPoints())
	case *qdrant.PointsUpdateOperation_ClearPayloadDeprecated:
		return selectedOf(vectord.OpClearPayload, step.ClearPayloadDeprecated)
	case *qdrant.PointsUpdateOperation_UpdateVectors_:
		keyed = step.UpdateVectors
		op, err = updateVectorsOf(step.UpdateVectors)
	case *qdrant.PointsUpdateOperation_DeleteVectors_:
		keyed = step.DeleteVectors
		op, err = deleteVectorsOf(step.DeleteVectors)
	default:
		return op, missing("operation")
	}
	if err == nil {
		err = noShardKey(keyed)
	}
	return op, err
}

func updateResult(u vectord.UpdateResult, waited bool) *qdrant.UpdateResult {
	status := qdrant.UpdateStatus_Acknowledged
	if waited && !u.Pending {
		status = qdrant.UpdateStatus_Completed
	}
	return &qdrant.UpdateResult{OperationId: &u.OperationID, Status: status}
}

func orderValue(v *vectord.OrderValue) *qdrant.OrderValue {
	switch {
	case v == nil:
		return nil
	case v.Kind == vectord.OrderFloat:
		return &qdrant.OrderValue{Variant: &qdrant.OrderValue_Float{Float: v.Float}}
	}
	return &qdrant.OrderValue{Variant: &qdrant.OrderValue_Int{Int: v.Int}}
}

// partsOf returns the payload and the vectors of a record, as far as they were asked for.
func partsOf(r *vectord.Record, s *vectord.Selection) (payload map[string]*qdrant.Value, vectors *qdrant.VectorsOutput, err error) {
	if s.Payload {
		if payload, err = payloadValues(r.Payload); err != nil {
			return nil, nil, fmt.Errorf("point %v: %w", r.ID, err)
		}
	}
	if s.Vectors {
		vectors = vectorsOutput(r.Vectors)
	}
	return payload, vectors, nil
}

func retrievedPoint(r *vectord.Record, s *vectord.Selection) (*qdrant.RetrievedPoint, error) {
	payload, vectors, err := partsOf(r, s)
	return &qdrant.RetrievedPoint{Id: pointID(r.ID), Payload: payload, Vectors: vectors, OrderValue: orderValue(r.Order)}, err
}

func retrievedPoints(records []vectord.Record, s *vectord.Selection) ([]*qdrant.RetrievedPoint, error) {
	out := make([]*qdrant.RetrievedPoint, len(records))
	for i := range records {
		var err error
		if out[i], err = retrievedPoint(&records[i], s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func scoredPoints(hits []vectord.Hit, s *vectord.Selection) ([]*qdrant.ScoredPoint, error) {
	out := make([]*qdrant.ScoredPoint, len(hits))
	for i := range hits {
		h := &hits[i]
		payload, vectors, err := partsOf(&h.Record, s)
		if err != nil {
			return nil, err
		}
		out[i] = &qdrant.ScoredPoint{Id: pointID(h.ID), Payload: payload, Score: h.Score, Version: h.Version,
			Vectors: vectors, OrderValue: orderValue(h.Order)}
	}
	return out, nil
}

func batchResults(answers [][]vectord.Hit, queries []vectord.Query) ([]*qdrant.BatchResult, error) {
	out := make([]*qdrant.BatchResult, len(answers))
	for i := range answers {
		points, err := scoredPoints(answers[i], &queries[i].Select)
		if err != nil {
			return nil, err
		}
		out[i] = &qdrant.BatchResult{Result: points}
	}
	return out, nil
}

func groupsResult(groups []vectord.Group, of *vectord.Groups) (*qdrant.GroupsResult, error) {
	out := make([]*qdrant.PointGroup, len(groups))
	for i := range groups {
		g := &groups[i]
		hits, err := scoredPoints(g.Hits, &of.Select)
		if err != nil {
			return nil, err
		}
		id := &qdrant.GroupId{Kind: &qdrant.GroupId_StringValue{StringValue: g.Value.String}}
		if g.Value.Kind == vectord.ScalarInt {
			id.Kind = &qdrant.GroupId_IntegerValue{IntegerValue: g.Value.Int}
		}
		out[i] = &qdrant.PointGroup{Id: id, Hits: hits}
		if g.Point != nil {
			if out[i].Lookup, err = retrievedPoint(g.Point, &of.WithPoint.Select); err != nil {
				return nil, err
			}
		}
	}
	return &qdrant.GroupsResult{Groups: out}, nil
}

func facetHits(hits []vectord.FacetHit) []*qdrant.FacetHit {
	out := make([]*qdrant.FacetHit, len(hits))
	for i, h := range hits {
		value := &qdrant.FacetValue{}
		switch h.Value.Kind {
		case vectord.ScalarInt:
			value.Variant = &qdrant.FacetValue_IntegerValue{IntegerValue: h.Value.Int}
		case vectord.ScalarBool:
			value.Variant = &qdrant.FacetValue_BoolValue{BoolValue: h.Value.Bool}
		default:
			value.Variant = &qdrant.FacetValue_StringValue{StringValue: h.Value.String}
		}
		out[i] = &qdrant.FacetHit{Value: value, Count: uint64(h.Count)}
	}
	return out
}
