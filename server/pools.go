package server

import (
	"context"
	"strings"

	"github.com/vectord/vectord"
)

// Pools keeps pools of agents that are processes on the server's machine. Definitions and what it tells are JSON, which is
// passed on as it is.
type Pools interface {
	Pools() ([]byte, error) // an array, by name
	PutPool(name string, definition []byte) error
	ScalePool(name string, minSize, maxSize int) error
	RemovePool(ctx context.Context, name string) error
	WarmingPools() []string // names of those that were never fully ready yet
}

// pools returns what keeps pools.
func (s *Server) pools() (Pools, error) {
	if s.options.Pools == nil {
		return nil, vectord.Errorf(vectord.KindUnsupported, "pools are not offered by this server")
	}
	return s.options.Pools, nil
}

func (s *Server) listPools(r *request) error {
	p, err := s.pools()
	if err != nil {
		return err
	}
	list, err := p.Pools()
	r.out = append(append(append(r.out, `{"pools":`...), list...), '}')
	return err
}

func (s *Server) putPool(r *request) error {
	p, err := s.pools()
	if err != nil {
		return err
	}
	name, err := r.poolName()
	if err != nil {
		return err
	}
	body, err := r.body()
	if err != nil {
		return err
	}
	if err := p.PutPool(name, body); err != nil {
		return err
	}
	r.ok()
	return nil
}

func (s *Server) scalePool(r *request) error {
	p, err := s.pools()
	if err != nil {
		return err
	}
	name, err := r.poolName()
	if err != nil {
		return err
	}
	size, err := call(r, func(body []byte) (size struct {
		Min int `json:"min_size"`
		Max int `json:"max_size"`
	}, err error) {
		return size, decodeBody(body, &size)
	})
	if err != nil {
		return err
	}
	if err := p.ScalePool(name, size.Min, size.Max); err != nil {
		return err
	}
	r.ok()
	return nil
}

func (s *Server) removePool(r *request) error {
	p, err := s.pools()
	if err != nil {
		return err
	}
	name, err := r.poolName()
	if err != nil {
		return err
	}
	if err := p.RemovePool(r.ctx, name); err != nil {
		return err
	}
	r.ok()
	return nil
}

// warming tells a probe which pools are not ready yet; empty if all are.
func (s *Server) warming() string {
	if s.options.Pools == nil {
		return ""
	}
	if names := s.options.Pools.WarmingPools(); len(names) > 0 {
		return "; warming pools: " + strings.Join(names, ", ")
	}
	return ""
}

func (r *request) poolName() (string, error) { return r.named("pool", vectord.CheckName) }
