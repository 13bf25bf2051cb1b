package main

import (
	"errors"
	"strings"

	"github.com/vectord/vectord/internal/node"
	"github.com/vectord/vectord/replication/logstore"
	"github.com/vectord/vectord/replication/transport"
)

// clusterFlags are the settings of a server that is one of several.
type clusterFlags struct {
	Listen     string `help:"Address to listen on for the other servers of a cluster; the server is on its own unless given." setting:"" placeholder:"ADDRESS"`
	Advertise  string `help:"Address at which the others reach that; the same unless given." setting:"" placeholder:"ADDRESS"`
	Join       string `help:"Such addresses of servers of the cluster, separated by commas; the server begins a cluster unless given." setting:"" placeholder:"ADDRESSES"`
	Name       string `help:"Name of the cluster; servers of others are refused." default:"vectord" setting:""`
	Secret     string `help:"What all servers of the cluster know, at least 16 characters; encrypts what they send each other." setting:"" placeholder:"SECRET"`
	SecretFile string `help:"File with that secret in its first line." setting:"" placeholder:"FILE"`
	CA         string `help:"PEM file with the cluster's authority, in place of a secret; see vectord cert." name:"ca" setting:"" placeholder:"FILE"`
	Cert       string `help:"PEM file with this server's certificate of that authority; read again when it changes." setting:"" placeholder:"FILE"`
	Key        string `help:"PEM file with the certificate's key." setting:"" placeholder:"FILE"`
	LogStore   string `help:"What keeps the replicated log: pebble or boltdb." enum:"pebble,boltdb" default:"pebble" setting:""`
	Insecure   bool   `help:"Neither encrypt nor ask who it is, on this machine only." setting:""`
}

// options returns the settings in the form in which the node wants them, nil for a server on its own.
func (f *clusterFlags) options() (*node.Cluster, error) {
	if f.Listen == "" {
		if f.Join != "" || f.Secret != "" || f.SecretFile != "" || f.CA != "" || f.Cert != "" || f.Key != "" || f.Advertise != "" || f.Insecure {
			return nil, errors.New("the other flags of --cluster- say nothing without --cluster-listen")
		}
		return nil, nil
	}
	given, err := secret("cluster-secret", f.Secret, f.SecretFile)
	if err != nil {
		return nil, err
	}
	c := &node.Cluster{Name: f.Name, Listen: f.Listen, Advertise: f.Advertise, LogStore: logstore.Kind(f.LogStore),
		Security: transport.Security{Secret: given, CA: f.CA, Certificate: f.Cert, Key: f.Key, Insecure: f.Insecure}}
	for address := range strings.SplitSeq(f.Join, ",") {
		if address = strings.TrimSpace(address); address != "" {
			c.Join = append(c.Join, address)
		}
	}
	return c, nil
}
