// A go-spiffe peer for the interoperability run: it takes its identity from the Workload API and prints one JSON
// object a line about what it sees.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

func say(fields map[string]any) {
	line, _ := json.Marshal(fields)
	fmt.Println(string(line))
}

func check(err error) {
	if err != nil {
		say(map[string]any{"error": err.Error()})
		os.Exit(1)
	}
}

type options struct {
	endpoint, peer, url, maxTLS string
	fresh                       bool
	count                       int
	interval                    time.Duration
}

func newSource(ctx context.Context, o options) *workloadapi.X509Source {
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr(o.endpoint)))
	check(err)
	return source
}

func limit(config *tls.Config, maxTLS string) *tls.Config {
	if maxTLS == "1.2" {
		config.MaxVersion = tls.VersionTLS12
	}
	return config
}

// sources starts every kind of source, then reports each X.509 rotation until it is killed.
func sources(ctx context.Context, o options) {
	source := newSource(ctx, o)
	client := workloadapi.WithClientOptions(workloadapi.WithAddr(o.endpoint))
	jwt, err := workloadapi.NewJWTSource(ctx, client)
	check(err)
	bundles, err := workloadapi.NewBundleSource(ctx, client)
	check(err)
	svid, err := source.GetX509SVID()
	check(err)
	x509Bundle, err := bundles.GetX509BundleForTrustDomain(svid.ID.TrustDomain())
	check(err)
	jwtBundle, err := jwt.GetJWTBundleForTrustDomain(svid.ID.TrustDomain())
	check(err)
	say(map[string]any{
		"id":             svid.ID.String(),
		"serial":         svid.Certificates[0].SerialNumber.Text(16),
		"authorities":    len(x509Bundle.X509Authorities()),
		"jwtAuthorities": len(jwtBundle.JWTAuthorities()),
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-source.Updated():
			svid, err := source.GetX509SVID()
			check(err)
			say(map[string]any{"id": svid.ID.String(), "serial": svid.Certificates[0].SerialNumber.Text(16)})
		}
	}
}

// serve answers every request of the peer it is to authorize with that peer's ID.
func serve(ctx context.Context, o options) {
	source := newSource(ctx, o)
	authorize := tlsconfig.AuthorizeID(spiffeid.RequireFromString(o.peer))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	say(map[string]any{"url": "https://" + listener.Addr().String()})
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.TLS.PeerCertificates[0].URIs[0].String())
		}),
		TLSConfig: limit(tlsconfig.MTLSServerConfig(source, source, authorize), o.maxTLS),
		ErrorLog:  log.New(io.Discard, "", 0),
	}
	check(server.ServeTLS(listener, "", ""))
}

// get sends requests one after another and reports how many had the right answer, and the first error.
func get(ctx context.Context, o options) {
	source := newSource(ctx, o)
	authorize := tlsconfig.AuthorizeID(spiffeid.RequireFromString(o.peer))
	client := &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   limit(tlsconfig.MTLSClientConfig(source, source, authorize), o.maxTLS),
			DisableKeepAlives: o.fresh,
		},
		Timeout:   10 * time.Second,
	}
	ok, problem, body := 0, "", ""
	for i := 0; i < o.count; i++ {
		response, err := client.Get(o.url)
		if err != nil {
			if problem == "" {
				problem = err.Error()
			}
		} else {
			bytes, err := io.ReadAll(response.Body)
			response.Body.Close()
			if err == nil && response.StatusCode == 200 {
				ok++
				body = string(bytes)
			} else if problem == "" {
				problem = fmt.Sprintf("status %d, %v", response.StatusCode, err)
			}
		}
		time.Sleep(o.interval)
	}
	say(map[string]any{"ok": ok, "of": o.count, "body": body, "problem": problem})
}

// verifyCase is a peer's chain and what is trusted, DER in base64.
type verifyCase struct {
	Name    string              `json:"name"`
	Chain   [][]byte            `json:"chain"`
	Bundles map[string][][]byte `json:"bundles"`
}

// verify judges the chains on standard input, one JSON object a line, and prints a line for each.
func verify() {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var given verifyCase
		check(json.Unmarshal(lines.Bytes(), &given))
		say(map[string]any{"id": given.Name, "problem": verdict(given)})
	}
	check(lines.Err())
}

func verdict(given verifyCase) string {
	bundles := x509bundle.NewSet()
	for name, authorities := range given.Bundles {
		domain := spiffeid.RequireTrustDomainFromString(name)
		bundle := x509bundle.New(domain)
		for _, der := range authorities {
			authority, err := x509.ParseCertificate(der)
			if err != nil {
				return err.Error()
			}
			bundle.AddX509Authority(authority)
		}
		bundles.Add(bundle)
	}
	if _, _, err := x509svid.ParseAndVerify(given.Chain, bundles); err != nil {
		return err.Error()
	}
	return ""
}

func main() {
	var o options
	flag.StringVar(&o.endpoint, "endpoint", "", "the Workload API")
	flag.StringVar(&o.peer, "peer", "", "the SPIFFE ID that is expected, or served")
	flag.StringVar(&o.url, "url", "", "what to get")
	flag.StringVar(&o.maxTLS, "max-tls", "1.3", "1.2 or 1.3")
	flag.BoolVar(&o.fresh, "fresh", false, "a new connection for each request")
	flag.IntVar(&o.count, "count", 1, "requests")
	flag.DurationVar(&o.interval, "interval", 0, "between requests")
	flag.Parse()
	ctx := context.Background()
	switch flag.Arg(0) {
	case "sources":
		sources(ctx, o)
	case "serve":
		serve(ctx, o)
	case "get":
		get(ctx, o)
	case "verify":
		verify()
	default:
		check(fmt.Errorf("expected sources, serve, get or verify, got %q", flag.Arg(0)))
	}
}
