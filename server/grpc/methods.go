package grpcserver

import (
	"time"

	"github.com/vectord/vectord/internal/access"
)

// rule says what a method asks of its caller, and for what. With ScopeCollection that is the collection that the message
// names; a method whose message names further collections asks call.authorize for each of them.
type rule struct {
	needs access.Permission
	scope access.Scope
	long  bool // may take longTimeout
}

// longTimeout bounds what may take longer than a call does otherwise.
const longTimeout = 6 * time.Hour

// rules have a line for every method of the four services. A method without one is refused to everyone.
var rules = map[string]rule{
	"qdrant.Qdrant/HealthCheck": {needs: access.Open, scope: access.ScopeServer},

	"qdrant.Collections/List":                         {needs: access.Read, scope: access.ScopeListed},
	"qdrant.Collections/Get":                          {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Collections/CollectionExists":             {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Collections/Create":                       {needs: access.Manage, scope: access.ScopeCollection},
	"qdrant.Collections/Update":                       {needs: access.Manage, scope: access.ScopeCollection},
	"qdrant.Collections/Delete":                       {needs: access.Manage, scope: access.ScopeCollection},
	"qdrant.Collections/ListAliases":                  {needs: access.Read, scope: access.ScopeListed},
	"qdrant.Collections/ListCollectionAliases":        {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Collections/UpdateAliases":                {needs: access.Manage, scope: access.ScopeServer},
	"qdrant.Collections/CollectionClusterInfo":        {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Collections/UpdateCollectionClusterSetup": {needs: access.Manage, scope: access.ScopeCollection},
	"qdrant.Collections/CreateShardKey":               {needs: access.Manage, scope: access.ScopeCollection},
	"qdrant.Collections/DeleteShardKey":               {needs: access.Manage, scope: access.ScopeCollection},
	"qdrant.Collections/ListShardKeys":                {needs: access.Read, scope: access.ScopeCollection},

	"qdrant.Points/Upsert":              {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/Delete":              {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/UpdateVectors":       {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/DeleteVectors":       {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/SetPayload":          {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/OverwritePayload":    {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/DeletePayload":       {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/ClearPayload":        {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/UpdateBatch":         {needs: access.Write, scope: access.ScopeCollection},
	"qdrant.Points/CreateFieldIndex":    {needs: access.Maintain, scope: access.ScopeCollection},
	"qdrant.Points/DeleteFieldIndex":    {needs: access.Maintain, scope: access.ScopeCollection},
	"qdrant.Points/Get":                 {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/Scroll":              {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/Count":               {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/Query":               {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/QueryBatch":          {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/QueryGroups":         {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/Search":              {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/SearchBatch":         {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/SearchGroups":        {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/Recommend":           {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/RecommendBatch":      {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/RecommendGroups":     {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/Discover":            {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/DiscoverBatch":       {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/Facet":               {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/SearchMatrixPairs":   {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Points/SearchMatrixOffsets": {needs: access.Read, scope: access.ScopeCollection},

	"qdrant.Snapshots/List":       {needs: access.Read, scope: access.ScopeCollection},
	"qdrant.Snapshots/Create":     {needs: access.Maintain, scope: access.ScopeCollection, long: true},
	"qdrant.Snapshots/Delete":     {needs: access.Maintain, scope: access.ScopeCollection},
	"qdrant.Snapshots/ListFull":   {needs: access.Manage, scope: access.ScopeServer},
	"qdrant.Snapshots/CreateFull": {needs: access.Manage, scope: access.ScopeServer, long: true},
	"qdrant.Snapshots/DeleteFull": {needs: access.Manage, scope: access.ScopeServer},
}

// noSuchMethod is the rule of calls of anything else. It asks for the permission to read something, so that a stranger
// learns nothing, not even what is missing.
var noSuchMethod = rule{needs: access.Read, scope: access.ScopeListed}
