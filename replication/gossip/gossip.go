// Package gossip lets the nodes of a cluster find each other, notice who is gone, and know roughly how everyone is.
//
// HashiCorp's memberlist keeps the membership: who is there, and who does not answer. On top of it every node publishes a
// small record about itself, and counters that add up over the nodes. All of that is advice, for routing and for people: it
// is out of date when it is read, and two nodes may disagree about it. What nodes have to agree on, such as placement,
// leases, access and schemas, are commands in the log and never travel here. docs/decisions/gossip-memberlist.md says why
// things spread as they do.
//
// News spread in three ways, each of which mends what the one before it lost. A node that hears something new sends it at
// once to the next member by id and to a few random ones, logarithmically many. It is also sent along with memberlist's own gossip for a few rounds.
// And every ReconcileInterval each node compares what it knows with one random member, over a stream.
//
// Locks: memberlist calls this package while it holds its own locks, so nothing of memberlist is called with Gossip.mu held.
package gossip

import (
	"cmp"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/vectord/vectord"
	"golang.org/x/time/rate"
)

// SecretBytes is the length of a cluster's secret.
const SecretBytes = 32

const (
	incarnationMax    = versionMax / 2 // at the start
	clusterBytesMax   = 64
	seedsMax          = 64
	subscriptionsMax  = 64
	reconcileInterval = 10 * time.Second
	streamTimeout     = 3 * time.Second        // for a connection, and for reading and writing over it
	leaveTimeoutMax   = 2 * time.Second        // for memberlist's news that a node leaves
	joinDelayMin      = 100 * time.Millisecond // between attempts to reach a seed; doubled after each, up to
	joinDelayMax      = 10 * time.Second
	forgetAfter       = 24 * time.Hour   // how long nodes that are gone are listed
	strangerAfter     = 10 * time.Minute // how long something is kept of a node that never joined
	strangersMax      = 64               // such nodes
	raiseDelay        = time.Second      // between incarnations taken because of others: two nodes with one id would race
	reclaimAfter      = 10 * time.Second // when a dead node may come back under another address
	packetBytesMax    = 1400
	logLinesPerSecond = 1 // of trouble that memberlist reports; more are for debugging
	logLinesBurst     = 10
)

// Options configure a node's gossip.
type Options struct {
	// ID names the node, in the cluster and for good: 1 to IDBytesMax bytes. Two running nodes with one id disturb each
	// other.
	ID string

	// Incarnation must be higher at each start of the node, from 1 to 2^61. A node that finds that it was not takes a higher
	// one by itself: see Gossip.Incarnation.
	Incarnation uint64

	// Cluster keeps clusters apart that can reach each other: what has another name is not listened to. At most 64 bytes.
	Cluster string

	// Secret encrypts and authenticates all traffic: SecretBytes bytes that all nodes of the cluster share. It may be nil
	// only when BindAddress and AdvertiseAddress are loopback addresses.
	Secret []byte

	// BindAddress is the IP address and port to listen on, for UDP and TCP. Port 0 takes a free one.
	BindAddress string

	// AdvertiseAddress is the IP address and port that others reach this node by. Empty: BindAddress, or a private address
	// of the machine if that is unspecified.
	AdvertiseAddress string

	// Seeds are addresses to join: see Gossip.Join.
	Seeds []string

	// Logger gets changes of the membership, and trouble. Nil: nobody does.
	Logger *slog.Logger

	// Registerer gets the metrics, unless nil.
	Registerer prometheus.Registerer

	// Transport carries the traffic in place of sockets on BindAddress, unless nil. It is shut down by Close, or when Open fails.
	Transport memberlist.Transport
}

// Gossip is a node's part in the gossip of its cluster. Its methods may be called from any goroutine.
type Gossip struct {
	id         string
	logger     *slog.Logger
	metrics    metrics
	list       *memberlist.Memberlist
	repairs    repairs
	budget     *rate.Limiter // of the bytes that push sends
	payloadMax int           // of a message in one packet, in bytes
	fanout     func(nodes int) int
	observe    func(origin string, v Version, hops uint8) // tells tests of records that are news; called with mu held

	ctx      context.Context // ends with Close
	stop     context.CancelFunc
	loops    sync.WaitGroup
	wake     chan struct{}      // of size 1: there is something to push
	flush    chan chan struct{} // has everything pushed at once; the channel is closed when that is done
	streams  chan streamJob
	joinWake chan struct{} // of size 1: there are seeds to try

	mu            sync.Mutex // guards what follows
	closed        bool
	leaving       bool
	self          published
	version       Version              // of self
	raised        time.Time            // when a higher incarnation was taken because of others
	suspected     map[string]Version   // whose probes by this node failed, and the versions known then
	store         store                // of all nodes, this one included
	members       map[string]*member   // nodes that joined at some time
	strangers     map[string]time.Time // the other origins in the store, and since when
	accusers      map[string]struct{}  // nodes whose records have suspicions
	live          []*memberlist.Node   // the others that are alive or suspect, by id. The array is never written to.
	next          int                  // of live: the first whose id is greater than id, or 0
	pending       pending              // what is to be pushed
	seeds         []string             // as given to Join
	subscriptions map[*Subscription]struct{}
}

// Open starts gossiping. It fails with KindInvalid for options out of their range. The seeds are tried in the background.
func Open(o Options) (*Gossip, error) {
	g, err := open(o, nil)
	if err != nil && o.Transport != nil {
		_ = o.Transport.Shutdown() // what went wrong is err
	}
	return g, err
}

// open lets tests adjust a Gossip, and memberlist's configuration, before it starts.
func open(o Options, adjust func(*Gossip, *memberlist.Config)) (*Gossip, error) {
	config, err := o.config()
	if err != nil {
		return nil, err
	}
	g := &Gossip{
		id:            o.ID,
		logger:        o.Logger,
		budget:        rate.NewLimiter(budgetBytesPerSecond, budgetBytesBurst),
		fanout:        fanout,
		wake:          make(chan struct{}, 1),
		flush:         make(chan chan struct{}),
		streams:       make(chan streamJob, streamQueueMax),
		joinWake:      make(chan struct{}, 1),
		version:       Version{Incarnation: o.Incarnation},
		suspected:     map[string]Version{},
		store:         newStore(),
		members:       map[string]*member{},
		strangers:     map[string]time.Time{},
		accusers:      map[string]struct{}{},
		subscriptions: map[*Subscription]struct{}{},
	}
	if g.logger == nil {
		g.logger = slog.New(slog.DiscardHandler)
	}
	g.metrics = newMetrics(o.Registerer)
	g.repairs.mult = repairMult
	g.payloadMax = packetBytesMax - packetOverhead - len(o.Cluster)
	if adjust != nil {
		adjust(g, config)
	}
	if err := g.Join(o.Seeds); err != nil {
		return nil, err
	}
	g.publishLocked() // nobody else has g yet
	config.Delegate, config.Events = delegate{g}, delegate{g}
	config.Logger = log.New(newLogWriter(g.logger, g.suspect), "", 0)
	transport := o.Transport
	if transport == nil {
		if transport, err = listen(config.BindAddr, config.BindPort, config.Logger); err != nil {
			return nil, err
		}
	}
	g.ctx, g.stop = context.WithCancel(context.Background())
	config.Transport = boundedTransport{Transport: transport, ctx: g.ctx}
	if g.list, err = memberlist.Create(config); err != nil {
		g.stop()
		_ = transport.Shutdown() // what went wrong is err
		return nil, fmt.Errorf("gossip: %w", err)
	}
	g.mu.Lock()
	g.self.Addresses.Gossip = g.members[g.id].node.Address()
	g.publishLocked()
	g.mu.Unlock()
	for range streamWorkers {
		g.loops.Go(g.streamLoop)
	}
	g.loops.Go(g.pushLoop)
	g.loops.Go(g.joinLoop)
	g.loops.Go(g.reconcileLoop)
	return g, nil
}

// config checks o and returns memberlist's configuration.
func (o Options) config() (*memberlist.Config, error) {
	invalid := func(format string, args ...any) (*memberlist.Config, error) {
		return nil, vectord.Errorf(vectord.KindInvalid, "gossip: "+format, args...)
	}
	c := memberlist.DefaultLANConfig()
	if len(o.ID) == 0 || len(o.ID) > IDBytesMax {
		return invalid("the id %q has %d bytes, 1 to %d are allowed", o.ID, len(o.ID), IDBytesMax)
	}
	if o.Incarnation-1 >= incarnationMax {
		return invalid("incarnation %d, 1 to %d are allowed", o.Incarnation, uint64(incarnationMax))
	}
	if len(o.Cluster) > clusterBytesMax {
		return invalid("the cluster's name %q has %d bytes, at most %d are allowed", o.Cluster, len(o.Cluster), clusterBytesMax)
	}
	bind, err := parseAddress(o.BindAddress)
	if err != nil {
		return invalid("bind address: %v", err)
	}
	loopback := bind.Addr().IsLoopback()
	c.BindAddr, c.BindPort = bind.Addr().String(), int(bind.Port())
	c.AdvertisePort = c.BindPort
	if o.AdvertiseAddress != "" {
		advertise, err := parseAddress(o.AdvertiseAddress)
		if err != nil {
			return invalid("advertise address: %v", err)
		}
		if advertise.Port() == 0 || advertise.Addr().IsUnspecified() {
			return invalid("nobody can reach the advertise address %s", advertise)
		}
		loopback = loopback && advertise.Addr().IsLoopback()
		c.AdvertiseAddr, c.AdvertisePort = advertise.Addr().String(), int(advertise.Port())
	}
	switch {
	case len(o.Secret) == SecretBytes:
		// A key of its own, so that whatever else is derived from the secret has nothing to do with it.
		key, err := hkdf.Key(sha256.New, o.Secret, nil, "vectord gossip 1", SecretBytes)
		if err != nil {
			return nil, fmt.Errorf("gossip: key: %w", err)
		}
		if c.Keyring, err = memberlist.NewKeyring(nil, key); err != nil {
			return nil, fmt.Errorf("gossip: key: %w", err)
		}
	case len(o.Secret) != 0:
		return invalid("a secret of %d bytes, it must have %d", len(o.Secret), SecretBytes)
	case !loopback:
		return invalid("without a secret, only loopback addresses are allowed, not %s", cmp.Or(o.AdvertiseAddress, o.BindAddress))
	}
	c.Name, c.Label = o.ID, o.Cluster
	c.TCPTimeout = streamTimeout
	c.PushPullInterval = reconcileInterval
	c.DeadNodeReclaimTime = reclaimAfter
	c.UDPBufferSize = packetBytesMax - checksumBytes // of which memberlist does not think when it fills a packet
	c.EnableCompression = false                      // packets are small, and LZW is slow
	return c, nil
}

// parseAddress parses an IP address with a port. Zones are refused: memberlist would ignore the whole address.
func parseAddress(s string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(s)
	if err == nil && a.Addr().Zone() != "" {
		err = fmt.Errorf("%q has a zone", s)
	}
	return a, err
}

// Publish replaces the node's record and spreads it, unless it is what it was. It fails with KindInvalid when a part is too
// long, KindTooLarge when the whole is, and KindClosed.
//
// Publishing costs every node of the cluster a few packets: see budgetBytesPerSecond. Every few seconds is often enough for
// load, and what is published faster than it can be sent is sent as it is then.
func (g *Gossip) Publish(r Record) error {
	if err := r.check(); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	r = r.clone()
	r.Addresses.Gossip = g.self.Addresses.Gossip
	next := g.self
	next.Record = r
	if n := len(appendRecord(nil, published{Record: r, leaving: true})); n > RecordBytesMax {
		return vectord.Errorf(vectord.KindTooLarge, "gossip record of %d bytes, at most %d are allowed", n, RecordBytesMax)
	}
	if sameIdentity(next.Record, g.self.Record) && next.Load == g.self.Load && slices.Equal(next.Groups, g.self.Groups) {
		return nil
	}
	g.self = next
	g.publishLocked()
	return nil
}

// publishLocked spreads self under the next version.
func (g *Gossip) publishLocked() {
	p := g.self
	for _, id := range slices.Sorted(maps.Keys(g.suspected)) {
		if len(p.suspicions) < suspicionsMax {
			p.suspicions = append(p.suspicions, suspicion{id: id, version: g.suspected[id]})
		}
	}
	raw := appendRecord(nil, p)
	if len(raw) > RecordBytesMax { // the user's part goes first
		p.suspicions = nil
		raw = appendRecord(nil, p)
	}
	g.version.Sequence++
	g.makeRoom()
	var old published
	if o := g.store.origins[g.id]; o != nil {
		old = o.record
	}
	if g.store.mergeRecord(recordItem{origin: g.id, version: g.version, raw: raw, record: p}) != outcomeNews {
		panic(fmt.Sprintf("gossip: version %v of %q is not news to itself", g.version, g.id))
	}
	g.recordChanged(g.id, old)
	g.push(pendingKey{origin: g.id}, pendingItem{})
}

// Add adds delta to the node's share of a counter, which may be negative, and spreads it. The counters of a node begin
// again when it restarts. It fails with KindInvalid for a key that is not 1 to KeyBytesMax bytes long, KindTooLarge when the
// node's counters take more than CounterBytesMax, and KindClosed. Counters whose value is zero make room for others then.
func (g *Gossip) Add(key string, delta int64) error {
	if len(key) == 0 || len(key) > KeyBytesMax {
		return vectord.Errorf(vectord.KindInvalid, "gossip counter %q has %d bytes, 1 to %d are allowed", key, len(key), KeyBytesMax)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return errClosed
	}
	if delta == 0 {
		return nil
	}
	o := g.store.origins[g.id]
	slot, ok := o.slots[key]
	if !ok && o.slotBytes+len(key)+counterOverhead > CounterBytesMax {
		g.dropZeros(o)
		if o.slotBytes+len(key)+counterOverhead > CounterBytesMax {
			return vectord.Errorf(vectord.KindTooLarge, "gossip counter %q: counters of %d bytes, at most %d are allowed", key,
				o.slotBytes+len(key)+counterOverhead, CounterBytesMax)
		}
	}
	slot.Incarnation = o.incarnation
	if delta > 0 {
		slot.P += uint64(delta)
	} else {
		slot.N -= uint64(delta)
	}
	o.put(key, slot)
	g.push(pendingKey{origin: g.id, counter: key}, pendingItem{})
	return nil
}

// dropZeros forgets counters of this node that add nothing. A slot cannot be taken back from others, so that takes a new
// incarnation, under which the rest begins again.
func (g *Gossip) dropZeros(o *origin) {
	for _, s := range o.slots {
		if s.Value() == 0 {
			g.raiseIncarnation(g.version.Incarnation + 1)
			return
		}
	}
}

// raiseIncarnation publishes everything again under a higher incarnation, with the counters that add something.
func (g *Gossip) raiseIncarnation(incarnation uint64) {
	o := g.store.origins[g.id]
	kept := maps.Clone(o.slots)
	g.version = Version{Incarnation: incarnation}
	g.publishLocked()
	for key, s := range kept {
		if v := s.Value(); v > 0 {
			o.put(key, Slot{Incarnation: incarnation, P: uint64(v)})
		} else if v < 0 {
			o.put(key, Slot{Incarnation: incarnation, N: -uint64(v)})
		} else {
			continue
		}
		g.push(pendingKey{origin: g.id, counter: key}, pendingItem{})
	}
}

// Incarnation returns the node's incarnation, which is Options.Incarnation or higher. The node must not start again with it
// or a lower one; if it does, others may take old state for new until it has noticed.
func (g *Gossip) Incarnation() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.version.Incarnation
}

// Counter returns the sum of a counter over all members, those that are gone but not forgotten included.
func (g *Gossip) Counter(key string) int64 {
	var sum int64
	for _, s := range g.Slots(key) {
		sum += s.Value()
	}
	return sum
}

// Slots returns the members' shares of a counter by their ids.
func (g *Gossip) Slots(key string) map[string]Slot {
	g.mu.Lock()
	defer g.mu.Unlock()
	slots := map[string]Slot{}
	for id := range g.members {
		if o := g.store.origins[id]; o != nil {
			if s, ok := o.slots[key]; ok {
				slots[id] = s
			}
		}
	}
	return slots
}

// Leave tells the cluster that this node goes, so that others see it left and not dead, and returns when that was sent, at
// the latest 2 seconds after it was pushed, or when ctx ends. It fails with KindTimeout and KindClosed. Close is to be called
// afterwards; it waits for the rest of the 2 seconds if ctx ended before.
func (g *Gossip) Leave(ctx context.Context) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return errClosed
	}
	g.leaving, g.self.leaving = true, true
	g.publishLocked()
	done := make(chan error, 1)
	g.loops.Go(func() { done <- g.leave() })
	g.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return vectord.Errorf(vectord.KindTimeout, "gossip: leave: %v", context.Cause(ctx))
	}
}

func (g *Gossip) leave() error {
	flushed := make(chan struct{})
	select {
	case g.flush <- flushed:
	case <-g.ctx.Done():
		return errClosed
	}
	select {
	case <-flushed:
	case <-g.ctx.Done():
		return errClosed
	}
	if err := g.list.Leave(leaveTimeoutMax); err != nil {
		// memberlist may lose its own message, and then never reports it. Others have the record that says goodbye, and
		// will find that this node does not answer.
		g.logger.Debug("leave", "error", err)
	}
	return nil
}

// Close stops gossiping and returns when nothing is sent any more, which takes up to 3 seconds while a peer does not answer.
// Without Leave before it, others find this node dead.
func (g *Gossip) Close() error {
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	for s := range g.subscriptions {
		close(s.closed)
	}
	clear(g.subscriptions)
	g.mu.Unlock()
	if closed {
		return nil
	}
	g.stop()
	g.loops.Wait()
	if err := g.list.Shutdown(); err != nil {
		return fmt.Errorf("gossip: close: %w", err)
	}
	return nil
}

// errClosed is returned by whatever is called after Close.
var errClosed = vectord.Errorf(vectord.KindClosed, "gossip is closed")

// checkSeed refuses an address that could not be dialled.
func checkSeed(seed string) error {
	host, port, err := net.SplitHostPort(seed)
	if err == nil && host == "" {
		err = errors.New("no host")
	}
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil || len(seed) > AddressBytesMax {
		return vectord.Errorf(vectord.KindInvalid, "gossip: seed %q is not host:port: %v", seed, err)
	}
	return nil
}
