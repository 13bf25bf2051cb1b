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

// ofPool serves a route of one pool with what fn does to it.
func ofPool(fn func(p Pools, r *request, name string) error) handler {
	return func(s *Server, r *request) error {
		p, err := s.pools()
		if err != nil {
			return err
		}
		name, err := r.named("pool", vectord.CheckName)
		if err != nil {
			return err
		}
		if err := fn(p, r, name); err != nil {
			return err
		}
		r.ok()
		return nil
	}
}

func putPool(p Pools, r *request, name string) error {
	body, err := r.body()
	if err != nil {
		return err
	}
	return p.PutPool(name, body)
}

func scalePool(p Pools, r *request, name string) error {
	size, err := call(r, func(body []byte) (size struct {
		Min int `json:"min_size"`
		Max int `json:"max_size"`
	}, err error) {
		return size, decodeBody(body, &size)
	})
	if err != nil {
		return err
	}
	return p.ScalePool(name, size.Min, size.Max)
}

func removePool(p Pools, r *request, name string) error { return p.RemovePool(r.ctx, name) }

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
