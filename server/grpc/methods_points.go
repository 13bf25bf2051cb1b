package grpcserver

import (
	"context"
	"fmt"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
)

// points implements qdrant.PointsServer.
type points struct {
	qdrant.UnimplementedPointsServer
	s *Server
}

// write is one operation, which err says could not be read.
func (p points) write(ctx context.Context, wait bool, op vectord.Operation, err error) (*qdrant.PointsOperationResponse, error) {
	if err != nil {
		return nil, err
	}
	results, err := p.writeAll(ctx, []vectord.Operation{op})
	if err != nil {
		return nil, err
	}
	return &qdrant.PointsOperationResponse{Result: updateResult(results[0], wait)}, nil
}

// writeAll returns one result for each operation.
func (p points) writeAll(ctx context.Context, ops []vectord.Operation) ([]vectord.UpdateResult, error) {
	c := callOf(ctx)
	results, err := p.s.engine.Write(ctx, c.collection, ops, vectord.WriteOptions{IdempotencyKey: c.idempotencyKey})
	if err == nil && len(results) != len(ops) {
		return nil, fmt.Errorf("the engine answered %d operations with %d results", len(ops), len(results))
	}
	return results, err
}

func (p points) Upsert(ctx context.Context, m *qdrant.UpsertPoints) (*qdrant.PointsOperationResponse, error) {
	op, err := upsertOf(m)
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) Delete(ctx context.Context, m *qdrant.DeletePoints) (*qdrant.PointsOperationResponse, error) {
	op, err := selectedOf(vectord.OpDelete, m.GetPoints())
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) UpdateVectors(ctx context.Context, m *qdrant.UpdatePointVectors) (*qdrant.PointsOperationResponse, error) {
	op, err := updateVectorsOf(m)
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) DeleteVectors(ctx context.Context, m *qdrant.DeletePointVectors) (*qdrant.PointsOperationResponse, error) {
	op, err := deleteVectorsOf(m)
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) SetPayload(ctx context.Context, m *qdrant.SetPayloadPoints) (*qdrant.PointsOperationResponse, error) {
	op, err := payloadOperationOf(vectord.OpSetPayload, m)
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) OverwritePayload(ctx context.Context, m *qdrant.SetPayloadPoints) (*qdrant.PointsOperationResponse, error) {
	op, err := payloadOperationOf(vectord.OpOverwritePayload, m)
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) DeletePayload(ctx context.Context, m *qdrant.DeletePayloadPoints) (*qdrant.PointsOperationResponse, error) {
	op, err := deletePayloadOf(m)
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) ClearPayload(ctx context.Context, m *qdrant.ClearPayloadPoints) (*qdrant.PointsOperationResponse, error) {
	op, err := selectedOf(vectord.OpClearPayload, m.GetPoints())
	return p.write(ctx, m.GetWait(), op, err)
}

func (p points) UpdateBatch(ctx context.Context, m *qdrant.UpdateBatchPoints) (*qdrant.UpdateBatchResponse, error) {
	steps := m.GetOperations()
	if len(steps) > vectord.MaxBatchPoints {
		return nil, outOfRange("operations", len(steps), fmt.Sprintf("%d elements or fewer", vectord.MaxBatchPoints))
	}
	ops := make([]vectord.Operation, len(steps))
	for i := range steps {
		var err error
		if ops[i], err = operationOf(steps[i]); err != nil {
			return nil, fmt.Errorf("operations[%d]: %w", i, err)
		}
	}
	results, err := p.writeAll(ctx, ops)
	if err != nil {
		return nil, err
	}
	out := &qdrant.UpdateBatchResponse{}
	for _, u := range results {
		out.Result = append(out.Result, updateResult(u, m.GetWait()))
	}
	return out, nil
}

func (p points) CreateFieldIndex(ctx context.Context, m *qdrant.CreateFieldIndexCollection) (*qdrant.PointsOperationResponse, error) {
	if err := vectord.CheckFieldName(m.GetFieldName()); err != nil {
		return nil, err
	}
	schema, err := schemaOf(m)
	if err != nil {
		return nil, err
	}
	result, err := p.s.engine.CreateFieldIndex(ctx, callOf(ctx).collection, m.GetFieldName(), schema, m.GetWait())
	return &qdrant.PointsOperationResponse{Result: updateResult(result, m.GetWait())}, err
}

func (p points) DeleteFieldIndex(ctx context.Context, m *qdrant.DeleteFieldIndexCollection) (*qdrant.PointsOperationResponse, error) {
	if err := vectord.CheckFieldName(m.GetFieldName()); err != nil {
		return nil, err
	}
	result, err := p.s.engine.DeleteFieldIndex(ctx, callOf(ctx).collection, m.GetFieldName())
	return &qdrant.PointsOperationResponse{Result: updateResult(result, m.GetWait())}, err
}

func (p points) Get(ctx context.Context, m *qdrant.GetPoints) (*qdrant.GetResponse, error) {
	ids, err := idsOf("ids", m.GetIds())
	if err != nil {
		return nil, err
	}
	selection := selectionOf(m.GetWithPayload(), m.GetWithVectors(), true)
	records, err := p.s.engine.Retrieve(ctx, callOf(ctx).collection, ids, selection)
	if err != nil {
		return nil, err
	}
	found, err := retrievedPoints(records, &selection)
	return &qdrant.GetResponse{Result: found}, err
}

func (p points) Scroll(ctx context.Context, m *qdrant.ScrollPoints) (*qdrant.ScrollResponse, error) {
	request := vectord.ScrollRequest{Limit: defaultLimit, Select: selectionOf(m.GetWithPayload(), m.GetWithVectors(), true)}
	if m.Limit != nil {
		request.Limit = number(uint64(m.GetLimit()))
	}
	var err error
	if request.Filter, err = filterOf(m.GetFilter()); err != nil {
		return nil, err
	}
	if request.OrderBy, err = orderByOf(m.GetOrderBy()); err != nil {
		return nil, err
	}
	if m.GetOffset() != nil {
		offset, err := idOf("offset", m.GetOffset())
		if err != nil {
			return nil, err
		}
		request.Offset = &offset
	}
	page, err := p.s.engine.Scroll(ctx, callOf(ctx).collection, request)
	if err != nil {
		return nil, err
	}
	out := &qdrant.ScrollResponse{}
	if page.Next != nil {
		out.NextPageOffset = pointID(*page.Next)
	}
	out.Result, err = retrievedPoints(page.Points, &request.Select)
	return out, err
}

// Count is exact whatever the message says.
func (p points) Count(ctx context.Context, m *qdrant.CountPoints) (*qdrant.CountResponse, error) {
	filter, err := filterOf(m.GetFilter())
	if err != nil {
		return nil, err
	}
	n, err := p.s.engine.Count(ctx, callOf(ctx).collection, filter)
	return &qdrant.CountResponse{Result: &qdrant.CountResult{Count: uint64(n)}}, err
}
