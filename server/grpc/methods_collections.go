package grpcserver

import (
	"context"
	"slices"

	"github.com/qdrant/go-client/qdrant"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/access"
)

// apiLevel is the version of Qdrant whose interface this server follows. Clients compare it with their own and warn if it is
// more than one off: this is one above that of the messages, which are those of 1.17, and one below the newest clients.
const apiLevel = "1.18.0"

// health implements qdrant.QdrantServer.
type health struct {
	qdrant.UnimplementedQdrantServer
	s *Server
}

func (h health) HealthCheck(context.Context, *qdrant.HealthCheckRequest) (*qdrant.HealthCheckReply, error) {
	reply := &qdrant.HealthCheckReply{Title: "vectord", Version: apiLevel}
	if commit := h.s.options.Commit; commit != "" {
		reply.Commit = &commit
	}
	return reply, nil
}

// collections implements qdrant.CollectionsServer, but for what is about several nodes and shard keys.
type collections struct {
	qdrant.UnimplementedCollectionsServer
	s *Server
}

func done(ok bool, err error) (*qdrant.CollectionOperationResponse, error) {
	return &qdrant.CollectionOperationResponse{Result: ok}, err
}

func (c collections) List(ctx context.Context, _ *qdrant.ListCollectionsRequest) (*qdrant.ListCollectionsResponse, error) {
	caller := &callOf(ctx).caller
	out := &qdrant.ListCollectionsResponse{}
	for _, name := range c.s.engine.Collections() {
		if caller.May(access.Read, name) {
			out.Collections = append(out.Collections, &qdrant.CollectionDescription{Name: name})
		}
	}
	return out, nil
}

func (c collections) Get(ctx context.Context, _ *qdrant.GetCollectionInfoRequest) (*qdrant.GetCollectionInfoResponse, error) {
	info, err := c.s.engine.CollectionInfo(callOf(ctx).collection)
	if err != nil {
		return nil, err
	}
	result, err := collectionInfo(&info)
	return &qdrant.GetCollectionInfoResponse{Result: result}, err
}

func (c collections) CollectionExists(ctx context.Context, _ *qdrant.CollectionExistsRequest) (*qdrant.CollectionExistsResponse, error) {
	exists := c.s.engine.CollectionExists(callOf(ctx).collection)
	return &qdrant.CollectionExistsResponse{Result: &qdrant.CollectionExists{Exists: exists}}, nil
}

func (c collections) Create(ctx context.Context, m *qdrant.CreateCollection) (*qdrant.CollectionOperationResponse, error) {
	config, err := configOf(m)
	if err != nil {
		return nil, err
	}
	return done(true, c.s.engine.CreateCollection(ctx, callOf(ctx).collection, config))
}

func (c collections) Update(ctx context.Context, m *qdrant.UpdateCollection) (*qdrant.CollectionOperationResponse, error) {
	update, err := updateOf(m)
	if err != nil {
		return nil, err
	}
	return done(true, c.s.engine.UpdateCollection(ctx, callOf(ctx).collection, update))
}

func (c collections) Delete(ctx context.Context, _ *qdrant.DeleteCollection) (*qdrant.CollectionOperationResponse, error) {
	return done(c.s.engine.DeleteCollection(ctx, callOf(ctx).collection))
}

func (c collections) UpdateAliases(ctx context.Context, m *qdrant.ChangeAliases) (*qdrant.CollectionOperationResponse, error) {
	actions, err := aliasActionsOf(m.GetActions())
	if err != nil {
		return nil, err
	}
	return done(true, c.s.engine.UpdateAliases(ctx, actions))
}

func (c collections) ListAliases(ctx context.Context, _ *qdrant.ListAliasesRequest) (*qdrant.ListAliasesResponse, error) {
	caller := &callOf(ctx).caller
	readable := slices.DeleteFunc(c.s.engine.Aliases(), func(a vectord.Alias) bool { return !caller.May(access.Read, a.Collection) })
	return &qdrant.ListAliasesResponse{Aliases: aliasDescriptions(readable)}, nil
}

func (c collections) ListCollectionAliases(ctx context.Context, _ *qdrant.ListCollectionAliasesRequest) (*qdrant.ListAliasesResponse, error) {
	name := callOf(ctx).collection
	if _, err := c.s.engine.CollectionInfo(name); err != nil {
		return nil, err
	}
	own := slices.DeleteFunc(c.s.engine.Aliases(), func(a vectord.Alias) bool { return a.Collection != name })
	return &qdrant.ListAliasesResponse{Aliases: aliasDescriptions(own)}, nil
}
