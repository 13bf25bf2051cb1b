package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime/pprof"
	"time"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/bench"
	"github.com/vectord/vectord/client"
	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/server"
	tcpserver "github.com/vectord/vectord/server/tcp"
)

// throughFlags are what bench tasks and bench messages have in common.
type throughFlags struct {
	DataDir   string        `help:"Directory below which the node's data is made, and removed; the system's for such things unless given." placeholder:"DIR"`
	Batch     int           `help:"Tasks in one request." default:"100"`
	Producers int           `help:"Connections that submit." default:"4"`
	Agents    int           `help:"Agents, each with a connection of its own, that lease and complete." default:"4"`
	UnderWay  int           `help:"Tasks that are submitted and not completed, at most." default:"4000"`
	Payload   int           `help:"Bytes of a task's payload." default:"256"`
	Duration  time.Duration `help:"Length of each measurement." default:"5s"`
	Rounds    int           `help:"Times to measure, of which the medians count." default:"3"`
	Doors     []string      `help:"Of process, tcp and http." default:"process,tcp"`
	Profile   string        `help:"Also write a profile of where the processor's time goes, for go tool pprof." placeholder:"FILE"`
	JSON      bool          `help:"Print one line of JSON instead of a table." name:"json"`
}

func (f *throughFlags) run(s *session, durability vectord.Durability, half bool) error {
	return withBenchNode(s, f.DataDir, func(n *benchNode) error {
		b := bench.Tasks{Node: n.Tasks(), Durability: durability, Batch: f.Batch, Producers: f.Producers, Agents: f.Agents, UnderWay: f.UnderWay,
			Payload: f.Payload, Duration: f.Duration, Rounds: f.Rounds, Half: half}
		for _, name := range f.Doors {
			door, err := n.door(name)
			if err != nil {
				return err
			}
			b.Doors = append(b.Doors, door)
		}
		if f.Profile == "" {
			return printRun(s, f.JSON, b.Run)
		}
		file, err := os.Create(f.Profile)
		if err != nil {
			return err
		}
		if err := pprof.StartCPUProfile(file); err != nil {
			return errors.Join(err, file.Close())
		}
		err = printRun(s, f.JSON, b.Run)
		pprof.StopCPUProfile()
		return errors.Join(err, file.Close())
	})
}

type benchMessagesCmd struct {
	throughFlags `embed:""`
}

// Help is shown by bench messages --help.
func (benchMessagesCmd) Help() string {
	return `Example:

    vectord bench messages --doors process,tcp --under-way 4000

Tasks of a queue that is in memory only are submitted, leased and completed. A task is three messages. The node, its servers
and the clients are one process. With the peak measured, tasks are submitted at half of it by the clock, and latencies
count from when a task should have been submitted.`
}

// Run measures.
func (c *benchMessagesCmd) Run(s *session) error { return c.run(s, vectord.InMemory, true) }

type benchTasksCmd struct {
	throughFlags `embed:""`
}

// Help is shown by bench tasks --help.
func (benchTasksCmd) Help() string {
	return `Example:

    vectord bench tasks --doors process,tcp,http --under-way 16000

Tasks are submitted, leased and completed, each of the three durable, by a sync of the disk, before it is acknowledged. The node, its servers
and the clients are one process. With the peak measured, tasks are submitted at half of it by the clock, and latencies
count from when a task should have been submitted.

Good figures: at half of the peak, a task is acknowledged within 10 ms (p50), 30 ms (p95) and 50 ms (p99).`
}

// Run measures.
func (c *benchTasksCmd) Run(s *session) error { return c.run(s, vectord.Replicated, true) }

// benchNode is a node of this process with data of its own, and the servers before it that a measurement wants.
type benchNode struct {
	*node.Node
	logger  *slog.Logger
	closers []func() error
	doors   map[string]string // name → address
}

// withBenchNode has fn measure a node, whose data is removed then.
func withBenchNode(s *session, below string, fn func(*benchNode) error) (err error) {
	dir, err := os.MkdirTemp(below, "vectord-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	logger := slog.New(slog.NewTextHandler(s.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	opened, err := node.Open(node.Config{DataDir: dir, Logger: logger})
	if err != nil {
		return err
	}
	n := &benchNode{Node: opened, logger: logger, doors: map[string]string{}}
	defer func() {
		n.Tasks().Interrupt() // polls end
		for _, stop := range n.closers {
			err = errors.Join(err, stop())
		}
		err = errors.Join(err, opened.Close())
	}()
	return fn(n)
}

// door returns a door by its name.
func (n *benchNode) door(name string) (bench.NamedDoor, error) {
	door := bench.NamedDoor{Name: name}
	switch name {
	case "process":
		door.Dial = func(context.Context) (bench.TaskDoor, io.Closer, error) { return n.Tasks(), nil, nil }
		return door, nil
	case "tcp":
		address, err := n.serve(name, tcpserver.New(n.Tasks(), n.Engine(), tcpserver.Options{Logger: n.logger}))
		door.Dial = func(ctx context.Context) (bench.TaskDoor, io.Closer, error) {
			c, err := client.DialTCP(ctx, address, client.TCPOptions{Attempts: benchAttempts})
			if err != nil {
				return nil, nil, err
			}
			return bench.OverTCP(c), c, nil
		}
		return door, err
	case "http":
		address, err := n.serve(name, server.New(n.Engine(), server.Options{Scheduler: n.Tasks(), Logger: n.logger}))
		door.Dial = func(context.Context) (bench.TaskDoor, io.Closer, error) {
			c, err := client.New("http://"+address, client.Options{Attempts: benchAttempts})
			if err != nil {
				return nil, nil, err
			}
			return bench.OverHTTP(c), nil, nil
		}
		return door, err
	}
	return door, fmt.Errorf("--doors: %q is none, expected process, tcp or http", name)
}

// serve serves on a free port of the loopback and returns its address.
func (n *benchNode) serve(name string, service interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}) (string, error) {
	if address := n.doors[name]; address != "" {
		return address, nil
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	served := make(chan error, 1)
	go func() { served <- service.Serve(ln) }()
	n.closers = append(n.closers, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), drainWithin)
		defer cancel()
		return errors.Join(service.Shutdown(ctx), <-served)
	})
	n.doors[name] = ln.Addr().String()
	return n.doors[name], nil
}

type benchRouteCmd struct {
	DataDir  string        `help:"Directory below which the node's data is made, and removed; the system's for such things unless given." placeholder:"DIR"`
	Cases    []string      `help:"AGENTS:QUEUED of each measurement of assignments." default:"60:10000,10000:0"`
	Dim      int           `help:"Components of the vectors of agents and tasks." default:"256"`
	Samples  int           `help:"Tasks of each measurement." default:"2000"`
	Policies []string      `help:"Whose balance is measured." default:"nearest_then_least_loaded,round_robin"`
	Agents   int           `help:"Agents whose balance is measured." default:"60"`
	Load     float64       `help:"Part of what those agents can do that they are asked to." default:"0.7"`
	RunTime  time.Duration `help:"Mean run time of a task at speed 1." default:"100ms"`
	Duration time.Duration `help:"For which each balance is measured." default:"10s"`
	Seed     uint64        `help:"Of the agents and tasks." default:"1"`
	JSON     bool          `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench route --help.
func (benchRouteCmd) Help() string {
	return `Example:

    vectord bench route --cases 60:10000,10000:0

Assignments are those of a queue that is in memory only: "a task comes" is the time from before a task is submitted to when the agent that
waited has it; "an agent comes" that of an agent's call for one of the tasks that wait.

Balance is Jain's index of the agents' utilisations, busy slots by capacity averaged over the time, of tasks that any of the agents may have.

Good figures: a p99 of assignments below 1 ms with 60 agents and 2 ms with 10,000, and an index of 0.95 or more.`
}

// Run measures.
func (c *benchRouteCmd) Run(s *session) error {
	return withBenchNode(s, c.DataDir, func(n *benchNode) error {
		b := bench.Route{Node: n.Tasks(), Dim: c.Dim, Samples: c.Samples, Agents: c.Agents, Load: c.Load, RunTime: c.RunTime, Duration: c.Duration, Seed: c.Seed}
		for _, text := range c.Cases {
			var of bench.RouteCase
			if _, err := fmt.Sscanf(text, "%d:%d", &of.Agents, &of.Queued); err != nil {
				return fmt.Errorf("--cases: %q, expected agents and tasks that wait, such as 60:10000", text)
			}
			b.Cases = append(b.Cases, of)
		}
		for _, name := range c.Policies {
			b.Policies = append(b.Policies, vectord.RoutingPolicy(name))
		}
		return printRun(s, c.JSON, b.Run)
	})
}

type benchFootprintCmd struct {
	Server      string        `help:"Program whose server is started and measured; this one unless given." placeholder:"FILE"`
	DataDir     string        `help:"Directory below which the server's data is made, and removed; the system's for such things unless given." placeholder:"DIR"`
	URL         string        `help:"A running server without data, instead." name:"url" placeholder:"URL"`
	Process     int           `help:"Number of its process."`
	MemoryLimit byteSize      `help:"Of the server that is started." default:"384MiB"`
	Points      int           `help:"Generated vectors that are indexed." default:"100000"`
	Dim         int           `help:"Their components." default:"384"`
	Agents      int           `help:"Agents that wait for tasks." default:"60"`
	Queued      int           `help:"Tasks that wait in another queue." default:"11000"`
	Rate        float64       `help:"Tasks submitted in a second, which the agents complete." default:"500"`
	Searches    float64       `help:"Searches in a second." default:"100"`
	Duration    time.Duration `help:"Length of the load." default:"60s"`
	JSON        bool          `help:"Print one line of JSON instead of a table." name:"json"`
}

// Help is shown by bench footprint --help.
func (benchFootprintCmd) Help() string {
	return `Example:

    vectord bench footprint --duration 2m

A server of its own process is started with --memory-limit and filled: vectors, agents, tasks that wait. Then agents, tasks and searches load it
over HTTP, and its resident memory is looked at each second.

Good figures: below 512 MiB under the load, of which the index takes less than 100 MB.`
}

// Run measures.
func (c *benchFootprintCmd) Run(s *session) (err error) {
	b := bench.Footprint{URL: c.URL, Process: c.Process, Points: c.Points, Dim: c.Dim, Agents: c.Agents, Queued: c.Queued, Rate: c.Rate,
		Searches: c.Searches, Duration: c.Duration}
	if c.URL == "" {
		var stop func() error
		if b.URL, b.Process, stop, err = c.start(s); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, stop()) }()
	}
	if b.Client, err = client.New(b.URL, client.Options{Attempts: benchAttempts}); err != nil {
		return err
	}
	ready, cancel := context.WithTimeout(s.ctx, footprintStart)
	defer cancel()
	for b.Client.Ready(ready) != nil {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ready.Done():
			return fmt.Errorf("%s: no answer within %v", b.URL, footprintStart)
		}
	}
	return printRun(s, c.JSON, b.Run)
}

// footprintStart bounds the start of the server that is measured.
const footprintStart = 30 * time.Second

// start starts a server. stop ends it and removes its data.
func (c *benchFootprintCmd) start(s *session) (url string, process int, stop func() error, err error) {
	program := c.Server
	if program == "" {
		if program, err = os.Executable(); err != nil {
			return "", 0, nil, err
		}
	}
	dir, err := os.MkdirTemp(c.DataDir, "vectord-bench-")
	if err != nil {
		return "", 0, nil, err
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		return "", 0, nil, errors.Join(err, os.RemoveAll(dir))
	}
	address := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return "", 0, nil, errors.Join(err, os.RemoveAll(dir))
	}
	server := exec.Command(program, "serve", "--data-dir", dir, "--http", address, "--grpc=", "--log-level", "warn", "--memory-limit", c.MemoryLimit.String())
	server.Stderr = s.stderr
	if err := server.Start(); err != nil {
		return "", 0, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return "http://" + address, server.Process.Pid, func() error {
		return errors.Join(server.Process.Signal(os.Interrupt), server.Wait(), os.RemoveAll(dir))
	}, nil
}
