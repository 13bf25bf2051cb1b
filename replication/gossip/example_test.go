package gossip_test

import (
	"context"
	"fmt"
	"time"

	"github.com/vectord/vectord/replication/gossip"
)

// Two nodes find each other, and one learns what the other publishes.
func Example() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, err := gossip.Open(gossip.Options{ID: "a", Incarnation: 1, BindAddress: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	self, _ := a.Member("a")
	b, err := gossip.Open(gossip.Options{ID: "b", Incarnation: 1, BindAddress: "127.0.0.1:0", Seeds: []string{self.Addresses.Gossip}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()

	changes, err := a.Subscribe()
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := b.Publish(gossip.Record{Build: "1.2.3", Addresses: gossip.Addresses{HTTP: "127.0.0.1:6333"}}); err != nil {
		fmt.Println(err)
		return
	}
	for {
		members, err := changes.Next(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, m := range members {
			if m.ID == "b" && m.Build != "" {
				fmt.Println(m.ID, "is", m.State, "with build", m.Build, "at", m.Addresses.HTTP)
				return
			}
		}
	}
	// Output: b is alive with build 1.2.3 at 127.0.0.1:6333
}

// Counters add up over the nodes. Each node writes its own share.
func ExampleGossip_Add() {
	a, err := gossip.Open(gossip.Options{ID: "a", Incarnation: 1, BindAddress: "127.0.0.1:0"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer a.Close()
	for _, delta := range []int64{3, 4, -2} {
		if err := a.Add("agent-7", delta); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(a.Counter("agent-7"), a.Slots("agent-7"))
	// Output: 5 map[a:{1 7 2}]
}
