package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"

	"github.com/vectord/vectord"
	"github.com/vectord/vectord/internal/embed"
	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/scheduler/pool"
)

const (
	// exitWithin bounds the time from a signal to the end of the process; drainWithin is the part of it in which requests
	// may end, so that closing the data directory has the rest.
	exitWithin  = 10 * time.Second
	drainWithin = 6 * time.Second

	// signingKeyBytesMin is the length of key that HS256 asks for (RFC 7518, section 3.2).
	signingKeyBytesMin = 32

	// memoryShare is the part of the machine's or container's memory that a server takes unless told otherwise.
	memoryShare = 0.75

	// memoryLimitMin is what a server needs to hold anything at all.
	memoryLimitMin = 32 << 20
)

type serveCmd struct {
	DataDir            string         `help:"Directory of the data, created if missing." default:"./data" setting:""`
	HTTP               string         `help:"Address to listen on." default:"127.0.0.1:6333" name:"http" setting:""`
	GRPC               string         `help:"Address to listen on for gRPC; empty for no gRPC." default:"127.0.0.1:6334" name:"grpc" setting:""`
	TCP                string         `help:"Address to listen on for vectord's own protocol; empty for none." default:"127.0.0.1:6335" name:"tcp" setting:""`
	APIKey             string         `help:"Key that every request must bring." name:"api-key" setting:"" placeholder:"KEY"`
	APIKeyFile         string         `help:"File with that key in its first line." name:"api-key-file" setting:"" placeholder:"FILE"`
	AltAPIKey          string         `help:"Second key that is as good, so that clients can change to a new one in turn." name:"alt-api-key" setting:"" placeholder:"KEY"`
	AltAPIKeyFile      string         `help:"File with that key in its first line." name:"alt-api-key-file" setting:"" placeholder:"FILE"`
	ReadOnlyAPIKey     string         `help:"Key that permits reading only." name:"read-only-api-key" setting:"" placeholder:"KEY"`
	ReadOnlyAPIKeyFile string         `help:"File with that key in its first line." name:"read-only-api-key-file" setting:"" placeholder:"FILE"`
	JWTRBAC            bool           `help:"Accept tokens that are signed with --api-key and open what they say; see vectord token." name:"jwt-rbac" setting:""`
	TLSCert            string         `help:"PEM file with the certificate; read again when it changes." name:"tls-cert" setting:"" placeholder:"FILE"`
	TLSKey             string         `help:"PEM file with the certificate's key." name:"tls-key" setting:"" placeholder:"FILE"`
	MemoryLimit        byteSize       `help:"Memory to use, such as 2GiB; three quarters of what there is unless given." setting:"" placeholder:"SIZE"`
	SnapshotDir        string         `help:"Directory of snapshots; the folder snapshots of the data directory unless given." setting:"" placeholder:"DIR"`
	SnapshotURLs       string         `help:"URLs, separated by commas, from or below which a request may have a snapshot fetched." name:"snapshot-urls" setting:"" placeholder:"URLS"`
	Embedding          embeddingFlags `embed:""`
	Cluster            clusterFlags   `embed:"" prefix:"cluster-"`
	Pools              string         `help:"JSON file with pools of agents that the server starts itself; see docs/POOLS.md." name:"pools" setting:"" placeholder:"FILE"`
	AllowExec          string         `help:"Absolute paths, separated by commas, of programs that requests may have started as pools." name:"allow-exec" setting:"" placeholder:"PATHS"`
	CORS               string         `help:"Origins, separated by commas, whose pages may send requests from a browser, such as https://app.example.com; * for every one." name:"cors" setting:"" placeholder:"ORIGINS"`
	LogFormat          string         `help:"text or json." enum:"text,json" default:"text" setting:""`
	LogLevel           string         `help:"debug, info, warn or error." enum:"debug,info,warn,error" default:"info" setting:""`
	Insecure           bool           `help:"Listen beyond this machine without a key." setting:""`
}

// Help is shown by serve --help.
func (serveCmd) Help() string {
	return `Examples:

    vectord serve
    vectord serve --http 0.0.0.0:6333 --grpc 0.0.0.0:6334 --api-key-file /run/secrets/key --tls-cert cert.pem --tls-key key.pem
    VECTORD_API_KEY=secret vectord serve --http :6333 --grpc= --memory-limit 4GiB --log-format json
    vectord serve --config vectord.yaml

SIGTERM or SIGINT ends the server: it answers what it has accepted and is gone within 10 seconds; a second signal ends it at
once. Nothing that was acknowledged is lost either way.`
}

// origins reads the list of --cors.
func origins(list string) (out []string, err error) {
	for text := range strings.SplitSeq(list, ",") {
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		u, err := url.Parse(text)
		if text != "*" && (err != nil || u.Scheme == "" || u.Host == "" || u.Scheme+"://"+u.Host != text || strings.ToLower(text) != text) {
			return nil, fmt.Errorf("--cors: %q is not an origin, expected * or a scheme, a host and a port where it is not the usual one, "+
				"in lower case, such as https://app.example.com", text)
		}
		out = append(out, text)
	}
	return out, nil
}

// service answers requests until it is shut down.
type service interface {
	Serve(net.Listener) error
	ServeTLS(net.Listener, *tls.Config) error
	Shutdown(context.Context) error
}

// Run serves until a signal comes.
func (c *serveCmd) Run(s *session) error {
	return c.run(s, openService, func(code int) { os.Exit(code) })
}

// opener opens the data directory and returns what answers requests, and closes it after that.
type opener func(o serviceOptions) (services, io.Closer, error)

// services are those over one data directory.
type services struct {
	http, grpc, tcp service
	reopen          <-chan struct{} // closed when all must be opened again, on what another node has sent; nil: never
}

// door is an address at which a service answers.
type door struct {
	flag, scheme, address string
	listener              net.Listener
	service               service
}

// serve answers requests until the service is shut down.
func (d *door) serve(secure *tls.Config) error {
	var err error
	if secure != nil {
		err = d.service.ServeTLS(d.listener, secure)
	} else {
		err = d.service.Serve(d.listener)
	}
	if err == nil {
		err = errors.New("the listener closed")
	}
	return fmt.Errorf("serve %s: %w", d.address, err)
}

// doors are the addresses that the flags ask for.
func (c *serveCmd) doors() []*door {
	doors := []*door{{flag: "--http", scheme: "http", address: c.HTTP}}
	if c.GRPC != "" {
		doors = append(doors, &door{flag: "--grpc", scheme: "grpc", address: c.GRPC})
	}
	if c.TCP != "" {
		doors = append(doors, &door{flag: "--tcp", scheme: "tcp", address: c.TCP})
	}
	return doors
}

// serviceOptions are the settings in the form in which the service wants them.
type serviceOptions struct {
	dataDir           string
	memoryLimit       int64
	apiKey, altAPIKey string
	readOnlyAPIKey    string
	jwtRBAC           bool
	snapshotDir       string
	snapshotURLs      []string
	corsOrigins       []string
	embedding         *embed.HTTPOptions
	pools             []pool.Definition
	allowExec         []string
	cluster           *node.Cluster // nil: the server is on its own
	logger            *slog.Logger
}

func (c *serveCmd) run(s *session, open opener, exit func(code int)) error {
	logger := c.logger(s.stderr)
	options := serviceOptions{dataDir: c.DataDir, jwtRBAC: c.JWTRBAC, snapshotDir: c.SnapshotDir, logger: logger}
	for text := range strings.SplitSeq(c.SnapshotURLs, ",") {
		if text = strings.TrimSpace(text); text != "" {
			options.snapshotURLs = append(options.snapshotURLs, text)
		}
	}
	var err error
	if options.corsOrigins, err = origins(c.CORS); err != nil {
		return err
	}
	if c.Pools != "" {
		if options.pools, err = pool.ReadFile(c.Pools); err != nil {
			return fmt.Errorf("--%w", err)
		}
	}
	for path := range strings.SplitSeq(c.AllowExec, ",") {
		if path = strings.TrimSpace(path); path != "" {
			if !filepath.IsAbs(path) {
				return fmt.Errorf("--allow-exec: %q is not an absolute path", path)
			}
			options.allowExec = append(options.allowExec, path)
		}
	}
	if options.embedding, err = c.Embedding.options(logger); err != nil {
		return err
	}
	if options.apiKey, err = secret("api-key", c.APIKey, c.APIKeyFile); err != nil {
		return err
	}
	if options.altAPIKey, err = secret("alt-api-key", c.AltAPIKey, c.AltAPIKeyFile); err != nil {
		return err
	}
	if options.readOnlyAPIKey, err = secret("read-only-api-key", c.ReadOnlyAPIKey, c.ReadOnlyAPIKeyFile); err != nil {
		return err
	}
	if err := c.checkExposure(options); err != nil {
		return err
	}
	if options.jwtRBAC && len(options.apiKey) < signingKeyBytesMin {
		logger.Warn("tokens are signed with a short --api-key: whoever has a token can guess at the key without the server",
			"bytes", len(options.apiKey), "recommended", signingKeyBytesMin)
	}
	if options.memoryLimit, err = c.memoryLimit(); err != nil {
		return err
	}
	secure, err := c.tls(logger)
	if err != nil {
		return err
	}
	if options.cluster, err = c.Cluster.options(); err != nil {
		return err
	}

	// A watchdog and not a context, for there is no telling where something that hangs would hang.
	finished := make(chan struct{})
	defer close(finished)
	context.AfterFunc(s.ctx, func() {
		select {
		case <-finished:
		case <-time.After(exitWithin):
			logger.Error("shutting down took too long, exiting", "after", exitWithin.String())
			exit(exitError)
		}
	})

	for again := true; again && err == nil; {
		again, err = c.serve(s, options, secure, open)
	}
	if err == nil {
		logger.Info("stopped")
	}
	return err
}

// serve serves until a signal comes, or until all must be opened again.
func (c *serveCmd) serve(s *session, options serviceOptions, secure *tls.Config, open opener) (again bool, err error) {
	logger := options.logger
	// The ports come first: that one is taken should be known before the data directory is opened and locked.
	doors := c.doors()
	for _, d := range doors {
		if d.listener, err = net.Listen("tcp", d.address); err != nil {
			return false, fmt.Errorf("%s: %w", d.flag, err)
		}
		defer d.listener.Close()
	}
	logger.Info("starting", "version", vectord.Version, "commit", cmp.Or(commit(), "unknown"), "data", c.DataDir, "memory", byteSize(options.memoryLimit).String())
	begin := time.Now()
	opened, closer, err := open(options)
	if err != nil {
		return false, err
	}
	served := make(chan error, len(doors))
	for _, d := range doors {
		switch d.scheme {
		case "http":
			d.service = opened.http
		case "grpc":
			d.service = opened.grpc
		case "tcp":
			d.service = opened.tcp
		}
		scheme := d.scheme
		if secure != nil {
			scheme += "s"
		}
		go func() { served <- d.serve(secure) }()
		logger.Info("listening", "url", fmt.Sprintf("%s://%s", scheme, d.listener.Addr()), "started_in", time.Since(begin).Round(time.Millisecond).String())
	}

	var broken error
	select {
	case broken = <-served: // without having been told to
	case <-s.ctx.Done():
		logger.Info("shutting down")
	case <-opened.reopen:
		logger.Info("opening again with the state that another node has sent")
		again = true
	}
	shutdown(context.WithoutCancel(s.ctx), doors, logger)
	return again, errors.Join(broken, closer.Close())
}

// shutdown lets all services finish at once, within drainWithin.
func shutdown(ctx context.Context, doors []*door, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, drainWithin)
	defer cancel()
	var all sync.WaitGroup
	for _, d := range doors {
		all.Go(func() {
			if err := d.service.Shutdown(ctx); err != nil {
				logger.Warn("some requests were cut off", "address", d.address, "error", err)
			}
		})
	}
	all.Wait()
}

func (c *serveCmd) logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		panic(fmt.Sprintf("--log-level lets %q pass: %v", c.LogLevel, err))
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// checkExposure refuses to open the data to the network by oversight.
func (c *serveCmd) checkExposure(o serviceOptions) error {
	switch {
	case o.apiKey != "":
	case o.readOnlyAPIKey != "":
		return errors.New("--read-only-api-key without --api-key would leave writing open to everybody")
	case o.altAPIKey != "":
		return errors.New("--alt-api-key without --api-key, which it is the alternative to")
	case o.jwtRBAC:
		return errors.New("--jwt-rbac without --api-key, which tokens are signed with")
	}
	if o.readOnlyAPIKey != "" && (o.readOnlyAPIKey == o.apiKey || o.readOnlyAPIKey == o.altAPIKey) {
		return errors.New("--read-only-api-key is the same as a key that permits everything")
	}
	if o.altAPIKey != "" && o.altAPIKey == o.apiKey {
		return errors.New("--api-key and --alt-api-key are the same")
	}
	if o.apiKey != "" || c.Insecure {
		return nil
	}
	for _, d := range c.doors() {
		addr, err := net.ResolveTCPAddr("tcp", d.address)
		if err != nil {
			return fmt.Errorf("%s: %w", d.flag, err)
		}
		if !addr.IP.IsLoopback() {
			return fmt.Errorf("%s %s can be reached from other machines, and there is no key: give --api-key, or --insecure to allow it", d.flag, d.address)
		}
	}
	return nil
}

// memoryLimit returns the limit given, or the share of what the container or the machine has.
func (c *serveCmd) memoryLimit() (int64, error) {
	limit := int64(c.MemoryLimit)
	if limit == 0 {
		system, err := memlimit.FromSystem()
		if err != nil {
			return 0, fmt.Errorf("--memory-limit: the machine's memory cannot be told, give a number: %w", err)
		}
		if group, err := memlimit.FromCgroup(); err == nil {
			system = min(system, group)
		}
		limit = int64(float64(system) * memoryShare)
	}
	if limit < memoryLimitMin {
		return 0, fmt.Errorf("--memory-limit: %v is too little, at least %v is needed", byteSize(limit), byteSize(memoryLimitMin))
	}
	return limit, nil
}

// tls returns the configuration of TLS, or nil for a server without.
func (c *serveCmd) tls(logger *slog.Logger) (*tls.Config, error) {
	if (c.TLSCert == "") != (c.TLSKey == "") {
		return nil, errors.New("--tls-cert and --tls-key belong together, only one is given")
	}
	if c.TLSCert == "" {
		return nil, nil
	}
	cert, err := loadCertificate(c.TLSCert, c.TLSKey, logger)
	if err != nil {
		return nil, err
	}
	return cert.config(), nil
}
