package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/vectord/vectord"
)

// metaGroup is the replication group of the catalog. The group of a shard is told by the shard's metadata.
const metaGroup uint32 = 0

// collection is one collection as the catalog has it. It is immutable; an update makes a new one with the same shards.
type collection struct {
	id   uint32
	name string
	*shape
	nextNumber uint16 // of the next vector name
	shards     []*shard
	fields     []*fieldDef
	nextField  uint32 // of the next payload index
}

// shardOf returns the shard that keeps the point.
func (c *collection) shardOf(id vectord.PointID) *shard {
	if len(c.shards) == 1 {
		return c.shards[0]
	}
	return c.shards[id.Hash()%uint64(len(c.shards))]
}

// shape is what a collection was told of itself, which others that were told the same share. It is immutable.
type shape struct {
	config  vectord.CollectionConfig
	numbers map[string]uint16 // stand for vector names in storage
	specs   []*vectorSpec     // by ascending number
}

func newShape(config vectord.CollectionConfig, numbers map[string]uint16) (*shape, error) {
	s := &shape{config: config, numbers: numbers}
	var err error
	s.specs, err = specsOf(&s.config, numbers)
	return s, err
}

// shapesKept is how many shapes are remembered for collections to share.
const shapesKept = 256

// shapes finds equal ones, so that many collections of few shapes take little memory.
type shapes struct {
	mu     sync.Mutex // guards recent
	recent *simplelru.LRU[string, *shape]
}

func newShapes() *shapes {
	recent, err := simplelru.NewLRU[string, *shape](shapesKept, nil)
	if err != nil {
		panic(err) // the size is a positive constant, which is all that it checks
	}
	return &shapes{recent: recent}
}

// decode returns the shape whose configuration and numbers are JSON.
func (s *shapes) decode(config, numbers []byte) (*shape, error) {
	key := string(config) + string(numbers)
	s.mu.Lock()
	defer s.mu.Unlock()
	if found, ok := s.recent.Get(key); ok {
		return found, nil
	}
	var made shape
	if err := errors.Join(json.Unmarshal(config, &made.config), json.Unmarshal(numbers, &made.numbers)); err != nil {
		return nil, err
	}
	found, err := newShape(made.config, made.numbers)
	if err == nil {
		s.recent.Add(key, found)
	}
	return found, err
}

// of returns the shape of a configuration and numbers.
func (s *shapes) of(config vectord.CollectionConfig, numbers map[string]uint16) (*shape, error) {
	c, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	n, err := json.Marshal(numbers)
	if err != nil {
		return nil, err
	}
	return s.decode(c, n)
}

// catalog knows collections by name and aliases. Apply is its only writer.
type catalog struct {
	mu          sync.RWMutex // guards what is below
	collections map[string]*collection
	byID        map[uint32]*collection
	aliases     map[string]string // to collection names
	next        catalogCounters

	// used are the collections that have, or since the start had, points. Of the others, which may be many, there is nothing
	// to look after and nothing to count.
	used    map[uint32]*collection
	unready map[uint32]*collection // those with payload indexes that are being built
	sorted  []string               // the names of all collections; nil where that must be found out
}

// catalogCounters give out ids, each once: a dropped shard's keys never come back under a new one.
type catalogCounters struct {
	Collection uint32 `json:"collection"`
	Shard      uint32 `json:"shard"`
}

// Keys and values of the catalog in storage. Values are JSON.
const (
	metaCounters         = "counters"
	metaCollectionPrefix = "collection/" // + id in decimal
	metaAliasPrefix      = "alias/"      // + name
)

type collectionMeta struct {
	ID     uint32                   `json:"id"`
	Name   string                   `json:"name"`
	Config vectord.CollectionConfig `json:"config"`
	Shards []shardMeta              `json:"shards"`

	Numbers    map[string]uint16 `json:"vector_numbers"` // of vector names, in storage
	NextNumber uint16            `json:"next_vector_number"`

	Fields []fieldMeta `json:"fields,omitempty"`
	// NextField is the number of the next payload index.
	NextField uint32 `json:"next_field,omitempty"`
}

type shardMeta struct {
	ID    uint32 `json:"id"`
	Group uint32 `json:"group"`
}

type aliasMeta struct {
	Collection string `json:"collection"`
}

func collectionKey(id uint32) string { return fmt.Sprintf("%s%d", metaCollectionPrefix, id) }
func aliasKey(name string) string    { return metaAliasPrefix + name }

func newCatalog() *catalog {
	return &catalog{collections: map[string]*collection{}, byID: map[uint32]*collection{}, aliases: map[string]string{},
		used: map[uint32]*collection{}, unready: map[uint32]*collection{}, next: catalogCounters{Collection: 1, Shard: 1}}
}

func (c *collection) meta() collectionMeta {
	m := collectionMeta{ID: c.id, Name: c.name, Config: c.config, Numbers: c.numbers, NextNumber: c.nextNumber, NextField: c.nextField}
	for _, d := range c.fields {
		m.Fields = append(m.Fields, d.fieldMeta)
	}
	for _, s := range c.shards {
		m.Shards = append(m.Shards, shardMeta{ID: s.id, Group: s.group})
	}
	return m
}

// resolve returns the collection called name, by its own name or an alias.
func (c *catalog) resolve(name string) (*collection, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if found := c.lookup(name); found != nil {
		return found, nil
	}
	return nil, noCollection(name)
}

func (c *catalog) lookup(name string) *collection {
	if target, ok := c.aliases[name]; ok {
		name = target
	}
	return c.collections[name]
}

func (c *catalog) resolveAlias(name string) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if target, ok := c.aliases[name]; ok {
		return target
	}
	return name
}

func noCollection(name string) error {
	return vectord.Errorf(vectord.KindNotFound, "Collection `%s` doesn't exist!", name)
}

func (c *catalog) get(id uint32) *collection {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.byID[id]
}

// put takes in a collection that is new or has changed.
func (c *catalog) put(col *collection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(col)
}

func (c *catalog) set(col *collection) {
	if _, ok := c.collections[col.name]; !ok {
		c.sorted = nil
	}
	c.collections[col.name] = col
	c.byID[col.id] = col
	if c.used[col.id] != nil {
		c.used[col.id] = col
	}
	if slices.ContainsFunc(col.fields, func(d *fieldDef) bool { return !d.Ready }) {
		c.unready[col.id] = col
	} else {
		delete(c.unready, col.id)
	}
}

// use notes that a collection, if it is still there, has points.
func (c *catalog) use(id uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if col := c.byID[id]; col != nil {
		c.used[id] = col
	}
}

// forget takes out a collection by its id.
func (c *catalog) forget(id uint32) {
	delete(c.byID, id)
	delete(c.used, id)
	delete(c.unready, id)
}

// remove drops the collection and returns the aliases that pointed to it, which go with it.
func (c *catalog) remove(col *collection) (aliases []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.collections, col.name)
	c.sorted = nil
	c.forget(col.id)
	for alias, target := range c.aliases {
		if target == col.name {
			aliases = append(aliases, alias)
			delete(c.aliases, alias)
		}
	}
	slices.Sort(aliases)
	return aliases
}

// inUse returns the collections that may have points, in no order.
func (c *catalog) inUse() []*collection {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Collect(maps.Values(c.used))
}

// building returns the collections with payload indexes that are being built, in no order.
func (c *catalog) building() []*collection {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Collect(maps.Values(c.unready))
}

// names returns the names of all collections, ascending, which the caller must not change.
func (c *catalog) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sorted == nil {
		c.sorted = slices.Sorted(maps.Keys(c.collections))
	}
	return c.sorted
}

func (c *catalog) count() int {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.collections)
}

// all returns all collections by ascending name.
func (c *catalog) all() []*collection {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]*collection, 0, len(c.collections))
	for _, col := range c.collections {
		all = append(all, col)
	}
	slices.SortFunc(all, func(a, b *collection) int { return strings.Compare(a.name, b.name) })
	return all
}

func (c *catalog) allAliases() []vectord.Alias {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make([]vectord.Alias, 0, len(c.aliases))
	for name, target := range c.aliases {
		all = append(all, vectord.Alias{Name: name, Collection: target})
	}
	slices.SortFunc(all, func(a, b vectord.Alias) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// changeAliases applies the actions to a copy of the aliases and returns it, or the first refusal.
func (c *catalog) changeAliases(actions []vectord.AliasAction) (map[string]string, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	changed := make(map[string]string, len(c.aliases)+len(actions))
	for name, target := range c.aliases {
		changed[name] = target
	}
	create := func(name, target string) error {
		if _, ok := c.collections[name]; ok {
			return vectord.Errorf(vectord.KindExists, "Collection `%s` already exists!", name)
		}
		changed[name] = target
		return nil
	}
	for _, a := range actions {
		switch {
		case a.Create != nil:
			if _, ok := c.collections[a.Create.Collection]; !ok {
				return nil, noCollection(a.Create.Collection)
			}
			if err := create(a.Create.Name, a.Create.Collection); err != nil {
				return nil, err
			}
		case a.Rename != nil:
			target, ok := changed[a.Rename.Old]
			if !ok {
				return nil, vectord.Errorf(vectord.KindNotFound, "Alias %s does not exist!", a.Rename.Old)
			}
			delete(changed, a.Rename.Old)
			if err := create(a.Rename.New, target); err != nil {
				return nil, err
			}
		default:
			delete(changed, a.Delete)
		}
	}
	return changed, nil
}

func (c *catalog) setAliases(aliases map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aliases = aliases
}
