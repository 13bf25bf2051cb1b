package transport_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/vectord/vectord/replication/transport"
)

// Two nodes with one secret. What a failed call means for its caller is told by its error.
func Example() {
	o := transport.Options{
		Cluster:  "production",
		Security: transport.Security{Secret: "31c37a41f7a1bc5ce0f7a34b21a0b4a5"},
		Logger:   slog.New(slog.DiscardHandler),
	}
	const greet = 1
	server, err := transport.Listen("127.0.0.1:0", o)
	if err != nil {
		fmt.Println(err)
		return
	}
	server.Handle(greet, func(_ context.Context, _ string, body []byte) ([]byte, error) {
		return append([]byte("hello, "), body...), nil
	})
	server.Start()

	caller, err := transport.Listen("127.0.0.1:0", o)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer caller.Close()
	reply, err := caller.Call(context.Background(), server.Addr().String(), greet, []byte("node"))
	fmt.Println(string(reply), err)

	server.Close()
	_, err = caller.Call(context.Background(), server.Addr().String(), greet, nil)
	fmt.Println("had no effect:", errors.Is(err, transport.ErrUnreachable))
	// Output:
	// hello, node <nil>
	// had no effect: true
}
