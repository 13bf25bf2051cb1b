package main

import (
	"github.com/vectord/vectord/client"
)

// serverFlags say which server a command speaks to.
type serverFlags struct {
	URL        string `help:"Address of the server." default:"http://127.0.0.1:6333" name:"url" setting:""`
	APIKey     string `help:"Key that the server asks for." placeholder:"KEY" name:"api-key" setting:""`
	APIKeyFile string `help:"File with the key in its first line." placeholder:"FILE" name:"api-key-file" setting:""`
}

// client returns a client of the server; attempts is as in client.Options.
func (f *serverFlags) client(attempts int) (*client.Client, error) {
	key, err := secret("api-key", f.APIKey, f.APIKeyFile)
	if err != nil {
		return nil, err
	}
	return client.New(f.URL, client.Options{APIKey: key, Attempts: attempts})
}
