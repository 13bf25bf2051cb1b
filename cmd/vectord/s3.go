package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// storageFlags say where the bucket of a URL s3://BUCKET/KEY is and who asks.
type storageFlags struct {
	Endpoint  string `help:"URL of the S3 service." default:"https://s3.amazonaws.com" setting:"" placeholder:"URL"`
	Region    string `help:"Its region, where it has some." setting:"" placeholder:"REGION"`
	AccessKey string `help:"Access key; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY unless given." name:"access-key" setting:"" placeholder:"KEY"`
	SecretKey string `help:"The access key's secret." name:"secret-key" setting:"" placeholder:"SECRET"`
	// SecretFile keeps the secret off the command line.
	SecretFile string `help:"File with that secret in its first line." name:"secret-key-file" setting:"" placeholder:"FILE"`
}

// partBytes is what is held in memory of a backup while it is sent: its size is not known beforehand by the service.
const partBytes = 16 << 20

// parseS3 takes a URL s3://BUCKET/KEY apart, and reports false for anything else.
func parseS3(text string) (bucket, key string, ok bool, err error) {
	rest, ok := strings.CutPrefix(text, "s3://")
	if !ok {
		return "", "", false, nil
	}
	bucket, key, _ = strings.Cut(rest, "/")
	if bucket == "" {
		return "", "", false, fmt.Errorf("%q: expected s3://BUCKET/KEY", text)
	}
	return bucket, key, true, nil
}

func (f *storageFlags) client() (*minio.Client, error) {
	u, err := url.Parse(f.Endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("--s3-endpoint: %q is not http://HOST or https://HOST", f.Endpoint)
	}
	given, err := secret("s3-secret-key", f.SecretKey, f.SecretFile)
	if err != nil {
		return nil, err
	}
	who := credentials.NewEnvAWS()
	if f.AccessKey != "" || given != "" {
		who = credentials.NewStaticV4(f.AccessKey, given, "")
	}
	return minio.New(u.Host, &minio.Options{Creds: who, Secure: u.Scheme == "https", Region: f.Region})
}

// put makes an object of what write writes. If that fails there is no object.
func (f *storageFlags) put(ctx context.Context, bucket, key string, write func(io.Writer) error) (int64, error) {
	cl, err := f.client()
	if err != nil {
		return 0, err
	}
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(write(w)) }() // never fails
	info, err := cl.PutObject(ctx, bucket, key, r, -1, minio.PutObjectOptions{ContentType: "application/octet-stream", PartSize: partBytes})
	return info.Size, errors.Join(err, r.CloseWithError(err)) // ends a write that goes on
}

// get returns the content of an object. The caller closes it.
func (f *storageFlags) get(ctx context.Context, bucket, key string) (io.ReadCloser, error) {
	cl, err := f.client()
	if err != nil {
		return nil, err
	}
	object, err := cl.GetObject(ctx, bucket, key, minio.GetObjectOptions{})
	if err != nil {
		return nil, err
	}
	if _, err := object.Stat(); err != nil {
		return nil, errors.Join(err, object.Close())
	}
	return object, nil
}
