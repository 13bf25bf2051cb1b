package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

// Backup writes a backup of the whole state of a server to w and returns its size in bytes. It is one attempt, as w cannot
// forget what it got; after an error what w has is of no use.
func (c *Client) Backup(ctx context.Context, w io.Writer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.servers.list[c.servers.at()].base+"/backup", nil)
	if err != nil {
		return 0, err
	}
	if c.apiKey != "" {
		req.Header.Set("api-key", c.apiKey)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, errorTextMax))
		if err != nil {
			return 0, fmt.Errorf("read the answer: %w", err)
		}
		return 0, refusal(resp, answer)
	}
	n, err := io.Copy(w, resp.Body)
	switch {
	case err != nil:
		return n, fmt.Errorf("receive the backup: %w", err)
	case n != resp.ContentLength:
		return n, fmt.Errorf("the backup ended after %d of %d bytes", n, resp.ContentLength)
	}
	return n, nil
}
