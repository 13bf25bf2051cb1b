package replication_test

import (
	"context"
	"fmt"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/replication"
)

// counter is a state machine that counts the bytes it was given. It keeps them nowhere, so they are durable at once.
type counter int

func (c *counter) Apply(entries []vectord.Entry) ([]vectord.Result, func() error, error) {
	results := make([]vectord.Result, len(entries))
	for i, e := range entries {
		*c += counter(len(e.Command))
		results[i] = vectord.Result{Index: e.Index, Value: int(*c)}
	}
	return results, func() error { return nil }, nil
}

func Example() {
	log := replication.NewStandalone(new(counter), 0, 0, replication.StandaloneOptions{})
	defer log.Close()
	for _, command := range []string{"one", "three"} {
		result, err := log.Propose(context.Background(), 0, []byte(command))
		fmt.Println(result.Index, result.Value, err)
	}
	// Output:
	// 1 3 <nil>
	// 2 8 <nil>
}
