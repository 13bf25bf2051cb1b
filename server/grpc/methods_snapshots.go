package grpcserver

import (
	"context"

	"github.com/qdrant/go-client/qdrant"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/vectord/vectord"
)

// snapshots implements qdrant.SnapshotsServer. To the engine the snapshots of the whole node are those of no collection.
type snapshots struct {
	qdrant.UnimplementedSnapshotsServer
	s *Server
}

func snapshotDescription(s *vectord.Snapshot) *qdrant.SnapshotDescription {
	out := &qdrant.SnapshotDescription{Name: s.Name, CreationTime: timestamppb.New(s.Created), Size: s.Size}
	if s.Checksum != "" {
		out.Checksum = &s.Checksum
	}
	return out
}

func (n snapshots) create(ctx context.Context) (*qdrant.CreateSnapshotResponse, error) {
	made, err := n.s.engine.CreateSnapshot(ctx, callOf(ctx).collection)
	return &qdrant.CreateSnapshotResponse{SnapshotDescription: snapshotDescription(&made)}, err
}

func (n snapshots) list(ctx context.Context) (*qdrant.ListSnapshotsResponse, error) {
	found, err := n.s.engine.Snapshots(callOf(ctx).collection)
	out := &qdrant.ListSnapshotsResponse{}
	for i := range found {
		out.SnapshotDescriptions = append(out.SnapshotDescriptions, snapshotDescription(&found[i]))
	}
	return out, err
}

func (n snapshots) remove(ctx context.Context, name string) (*qdrant.DeleteSnapshotResponse, error) {
	if err := vectord.CheckSnapshotName(name); err != nil {
		return nil, err
	}
	return &qdrant.DeleteSnapshotResponse{}, n.s.engine.DeleteSnapshot(callOf(ctx).collection, name)
}

func (n snapshots) Create(ctx context.Context, _ *qdrant.CreateSnapshotRequest) (*qdrant.CreateSnapshotResponse, error) {
	return n.create(ctx)
}

func (n snapshots) List(ctx context.Context, _ *qdrant.ListSnapshotsRequest) (*qdrant.ListSnapshotsResponse, error) {
	return n.list(ctx)
}

func (n snapshots) Delete(ctx context.Context, m *qdrant.DeleteSnapshotRequest) (*qdrant.DeleteSnapshotResponse, error) {
	return n.remove(ctx, m.GetSnapshotName())
}

func (n snapshots) CreateFull(ctx context.Context, _ *qdrant.CreateFullSnapshotRequest) (*qdrant.CreateSnapshotResponse, error) {
	return n.create(ctx)
}

func (n snapshots) ListFull(ctx context.Context, _ *qdrant.ListFullSnapshotsRequest) (*qdrant.ListSnapshotsResponse, error) {
	return n.list(ctx)
}

func (n snapshots) DeleteFull(ctx context.Context, m *qdrant.DeleteFullSnapshotRequest) (*qdrant.DeleteSnapshotResponse, error) {
	return n.remove(ctx, m.GetSnapshotName())
}
