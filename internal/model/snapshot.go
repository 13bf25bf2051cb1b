package model

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/vectord/vectord"
)

// snapshot is a collection, or all of them, as it was. What a client is given of it is a text that names it.
type snapshot struct {
	vectord.Snapshot
	owner       string
	content     string
	collections map[string]*collection
}

func (m *Model) noSnapshot(name string) error {
	return vectord.Errorf(vectord.KindNotFound, "Snapshot `%s` doesn't exist!", name)
}

// owner returns the name of the collection that is meant; m.mu is held.
func (m *Model) owner(name string) string {
	if target, ok := m.aliases[name]; ok {
		return target
	}
	return name
}

// CreateSnapshot keeps a collection, or all of them, as it is.
func (m *Model) CreateSnapshot(_ context.Context, name string) (vectord.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := snapshot{owner: m.owner(name), collections: map[string]*collection{}}
	if name != "" {
		if _, err := m.find(name); err != nil {
			return vectord.Snapshot{}, err
		}
	}
	for n, c := range m.collections {
		if name == "" || n == s.owner {
			s.collections[n] = &collection{config: c.config, points: maps.Clone(c.points)}
		}
	}
	m.made++
	s.content = fmt.Sprintf("snapshot %d", m.made)
	sum := sha256.Sum256([]byte(s.content))
	s.Created = time.Unix(int64(m.made), 0)
	s.Name = vectord.SnapshotName(s.owner, s.Created, fmt.Sprint(m.made))
	s.Size, s.Checksum = int64(len(s.content)), hex.EncodeToString(sum[:])
	m.snapshots = append(m.snapshots, s)
	return s.Snapshot, nil
}

// Snapshots returns the snapshots of a collection, or of the node.
func (m *Model) Snapshots(name string) ([]vectord.Snapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if name != "" {
		if _, err := m.find(name); err != nil {
			return nil, err
		}
	}
	var list []vectord.Snapshot
	for _, s := range m.snapshots {
		if s.owner == m.owner(name) {
			list = append(list, s.Snapshot)
		}
	}
	slices.SortFunc(list, func(a, b vectord.Snapshot) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

func (m *Model) snapshotAt(owner, name string) int {
	return slices.IndexFunc(m.snapshots, func(s snapshot) bool { return s.owner == m.owner(owner) && s.Name == name })
}

// OpenSnapshot returns what a snapshot is to a client.
func (m *Model) OpenSnapshot(owner, name string) (io.ReadCloser, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.snapshotAt(owner, name)
	if i < 0 {
		return nil, 0, m.noSnapshot(name)
	}
	return io.NopCloser(strings.NewReader(m.snapshots[i].content)), m.snapshots[i].Size, nil
}

// DeleteSnapshot forgets a snapshot.
func (m *Model) DeleteSnapshot(owner, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.snapshotAt(owner, name)
	if i < 0 {
		return m.noSnapshot(name)
	}
	m.snapshots = slices.Delete(m.snapshots, i, i+1)
	return nil
}

// RecoverSnapshot puts what the snapshot at file:///NAME holds in the place of a collection.
func (m *Model) RecoverSnapshot(_ context.Context, name string, source vectord.SnapshotSource) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.snapshots, func(s snapshot) bool { return "file:///"+s.Name == source.Location })
	if i < 0 {
		return m.noSnapshot(source.Location)
	}
	return m.recover(name, m.snapshots[i], source.Checksum)
}

// ReceiveSnapshot reads what OpenSnapshot gave out.
func (m *Model) ReceiveSnapshot(_ context.Context, name string, content io.Reader, checksum string) (func(context.Context) error, error) {
	b, err := io.ReadAll(content)
	if err != nil {
		return nil, err
	}
	return func(context.Context) error {
		m.mu.Lock()
		defer m.mu.Unlock()
		i := slices.IndexFunc(m.snapshots, func(s snapshot) bool { return bytes.Equal(b, []byte(s.content)) })
		if i < 0 {
			return vectord.Errorf(vectord.KindInvalid, "the snapshot is damaged or is none")
		}
		return m.recover(name, m.snapshots[i], checksum)
	}, nil
}

func (m *Model) recover(name string, s snapshot, checksum string) error {
	if checksum != "" && !strings.EqualFold(checksum, s.Checksum) {
		return vectord.Errorf(vectord.KindInvalid, "the snapshot's checksum is %s, expected %s", s.Checksum, checksum)
	}
	name = m.owner(name)
	from := name
	if s.owner != "" {
		from = s.owner
	}
	c, ok := s.collections[from]
	if !ok {
		return vectord.Errorf(vectord.KindNotFound, "the snapshot, of a node, has no collection `%s`", name)
	}
	m.collections[name] = &collection{config: c.config, points: maps.Clone(c.points)}
	return nil
}
