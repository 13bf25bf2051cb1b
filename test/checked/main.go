// Command checked is a vectord whose every answer is checked against the OpenAPI descriptions, its own and, if the variable
// QDRANT_OPENAPI names the file, Qdrant's. It starts the vectord that CHECKED_VECTORD names, by the same command line, behind a proxy.
// An answer that contradicts a description reaches the client as a 500 that says so, and makes the exit code 1.
//
// Clients are tested against it as if it were vectord itself.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vectord/vectord/internal/openapi"
)

const (
	defaultAddress = "127.0.0.1:6333"
	readyWithin    = time.Minute
	readyEvery     = 20 * time.Millisecond
	// descriptionBytesMax bounds what is read as the server's description.
	descriptionBytesMax = 16 << 20
)

func main() {
	code, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "checked:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func run(args []string) (int, error) {
	program := os.Getenv("CHECKED_VECTORD")
	if program == "" {
		return 1, errors.New("CHECKED_VECTORD must name the vectord to run")
	}
	if len(args) == 0 || args[0] != "serve" {
		return runAlone(program, args)
	}
	address, args := takeAddress(args)
	behind, err := freeAddress()
	if err != nil {
		return 1, err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return 1, err
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	server := exec.Command(program, append(args, "--http", behind)...)
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		return 1, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Wait() }()
	go func() {
		for s := range signals {
			_ = server.Process.Signal(s) // one that has ended needs none
		}
	}()
	target := &url.URL{Scheme: "http", Host: behind}
	descriptions, err := describe(target, ended)
	if err != nil {
		_ = server.Process.Kill()
		return 1, err
	}
	var violations atomic.Int64
	report := func(err error) {
		violations.Add(1)
		fmt.Fprintln(os.Stderr, "checked:", err)
	}
	proxy := &http.Server{Handler: openapi.Proxy(target, report, descriptions...), ReadHeaderTimeout: readyWithin}
	go func() { _ = proxy.Serve(listener) }() // ends with Close
	err = <-ended
	_ = proxy.Close()
	if n := violations.Load(); n > 0 {
		return 1, fmt.Errorf("%d answers contradict a description", n)
	}
	return exitCode(err)
}

// runAlone runs a command that serves nothing.
func runAlone(program string, args []string) (int, error) {
	other := exec.Command(program, args...)
	other.Stdin, other.Stdout, other.Stderr = os.Stdin, os.Stdout, os.Stderr
	return exitCode(other.Run())
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// takeAddress takes the address to listen on out of a command line.
func takeAddress(args []string) (address string, rest []string) {
	address = defaultAddress
	for i := 0; i < len(args); i++ {
		if value, ok := strings.CutPrefix(args[i], "--http="); ok {
			address = value
		} else if args[i] == "--http" && i+1 < len(args) {
			i++
			address = args[i]
		} else {
			rest = append(rest, args[i])
		}
	}
	return address, rest
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// describe waits until the server answers, and returns its description and Qdrant's.
func describe(server *url.URL, ended <-chan error) ([]*openapi.Description, error) {
	ctx, cancel := context.WithTimeout(context.Background(), readyWithin)
	defer cancel()
	for {
		own, err := fetch(ctx, server.JoinPath("openapi.json").String())
		if err == nil {
			return parse(own)
		}
		select {
		case err := <-ended:
			return nil, fmt.Errorf("the server ended: %w", err)
		case <-ctx.Done():
			return nil, err
		case <-time.After(readyEvery):
		}
	}
}

func parse(own []byte) ([]*openapi.Description, error) {
	d, err := openapi.Parse(own, openapi.Options{Name: "vectord's description", Closed: true})
	if err != nil {
		return nil, err
	}
	qdrant, err := openapi.Qdrant()
	if err != nil || qdrant == nil {
		return []*openapi.Description{d}, err
	}
	return []*openapi.Description{d, qdrant}, nil
}

func fetch(ctx context.Context, target string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET %s: %s", target, answer.Status)
	}
	return io.ReadAll(io.LimitReader(answer.Body, descriptionBytesMax))
}
