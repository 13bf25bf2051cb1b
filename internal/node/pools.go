package node

import (
	"bytes"
	"context"
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/scheduler/pool"
)

// poolsStopWithin bounds how long the processes of pools have to finish when the node closes.
const poolsStopWithin = 3 * time.Second

func (n *Node) startPools(c *Config, metrics prometheus.Registerer) (err error) {
	if len(c.Pools) == 0 && len(c.AllowExec) == 0 {
		return nil
	}
	n.pools, err = pool.New(pool.Options{Tasks: n.tasks, AllowExec: c.AllowExec, Pools: c.Pools, Dir: filepath.Join(c.DataDir, "pools"), ToolText: true,
		Logger: c.Logger, Metrics: metrics})
	return err
}

func (n *Node) stopPools() {
	if n.pools == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), poolsStopWithin)
	defer cancel()
	n.pools.Close(ctx)
}

// errNoPools is what there is to say of pools where none may be.
func errNoPools() error {
	return vectord.Errorf(vectord.KindUnsupported, "the operator of this server has not allowed it to start programs: see --pools and --allow-exec")
}

// PutPool creates or changes a pool of local agents by its definition in JSON.
func (n *Node) PutPool(name string, definition []byte) error {
	if n.pools == nil {
		return errNoPools()
	}
	var d pool.Definition
	decoder := json.NewDecoder(bytes.NewReader(definition))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&d); err != nil {
		return vectord.Errorf(vectord.KindInvalid, "definition of pool %q: %v", name, err)
	}
	d.Name = name
	return n.pools.Put(d)
}

// ScalePool changes how many processes a pool has.
func (n *Node) ScalePool(name string, minSize, maxSize int) error {
	if n.pools == nil {
		return errNoPools()
	}
	return n.pools.Scale(name, minSize, maxSize)
}

// RemovePool ends a pool and its processes.
func (n *Node) RemovePool(ctx context.Context, name string) error {
	if n.pools == nil {
		return errNoPools()
	}
	return n.pools.Remove(ctx, name)
}

// poolStatus is a pool as it stands, for JSON.
type poolStatus struct {
	pool.Definition
	Ready    int    `json:"ready"`
	Busy     int    `json:"busy"`
	Starting int    `json:"starting"`
	Stopping int    `json:"stopping"`
	Restarts uint64 `json:"restarts"`
	Failed   string `json:"failed,omitempty"`
	Warming  bool   `json:"warming"`
}

// Pools returns the pools of local agents by name, as a JSON array.
func (n *Node) Pools() ([]byte, error) {
	list := []poolStatus{}
	if n.pools != nil {
		for _, p := range n.pools.Pools() {
			list = append(list, poolStatus{p.Definition, p.Ready, p.Busy, p.Starting, p.Stopping, p.Restarts, p.Failed, p.Warming})
		}
	}
	return json.Marshal(list)
}

// WarmingPools returns the names of pools that were never fully ready yet.
func (n *Node) WarmingPools() []string {
	if n.pools == nil {
		return nil
	}
	return n.pools.Warming()
}
