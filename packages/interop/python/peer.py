"""A py-spiffe peer for the interoperability run: it takes its identity from the Workload API and prints one JSON object a
line about what it sees."""

import argparse
import http.client
import http.server
import json
import os
import ssl
import tempfile
import time

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from spiffe import JwtSource, X509Source


def say(**fields):
    print(json.dumps(fields), flush=True)


def serial(svid):
    return format(svid.leaf.serial_number, "x")


def context_of(source, purpose, max_tls):
    """An SSL context from the newest SVID and bundle. Python's ssl reads them from files."""
    svid = source.svid
    bundle = source.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    context = ssl.SSLContext(purpose)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2 if max_tls == "1.2" else ssl.TLSVersion.TLSv1_3
    authorities = b"".join(authority.public_bytes(Encoding.PEM) for authority in bundle.x509_authorities)
    context.load_verify_locations(cadata=authorities.decode())
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "svid.pem")
        with open(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            for certificate in svid.cert_chain:
                file.write(certificate.public_bytes(Encoding.PEM))
            file.write(svid.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        context.load_cert_chain(path)
    return context


def id_of(connection):
    leaf = x509.load_der_x509_certificate(connection.getpeercert(binary_form=True))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return ",".join(names.get_values_for_type(x509.UniformResourceIdentifier))


def sources(arguments):
    with X509Source(socket_path=arguments.endpoint) as source, JwtSource(socket_path=arguments.endpoint) as jwt:
        svid = source.svid
        domain = svid.spiffe_id.trust_domain
        say(
            id=str(svid.spiffe_id),
            serial=serial(svid),
            authorities=len(source.get_bundle_for_trust_domain(domain).x509_authorities),
            jwtAuthorities=len(jwt.get_bundle_for_trust_domain(domain).jwt_authorities),
        )
        last = serial(svid)
        while True:
            time.sleep(0.02)
            now = serial(source.svid)
            if now != last:
                last = now
                say(id=str(source.svid.spiffe_id), serial=now)


def serve(arguments):
    with X509Source(socket_path=arguments.endpoint) as source:

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                peer = id_of(self.connection)
                body = peer.encode()
                self.send_response(200 if peer == arguments.peer else 403)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def get_request(self):
                socket, address = super().get_request()
                socket.settimeout(10)
                context = context_of(source, ssl.PROTOCOL_TLS_SERVER, arguments.max_tls)
                return context.wrap_socket(socket, server_side=True), address

            def handle_error(self, *_):
                pass

        server = Server(("127.0.0.1", 0), Handler)
        say(url=f"https://127.0.0.1:{server.server_address[1]}")
        server.serve_forever()


def get_once(source, arguments):
    host = arguments.url.removeprefix("https://").split("/")[0]
    context = context_of(source, ssl.PROTOCOL_TLS_CLIENT, arguments.max_tls)
    connection = http.client.HTTPSConnection(host, context=context, timeout=10)
    try:
        connection.connect()
        peer = id_of(connection.sock)
        if peer != arguments.peer:
            raise ssl.SSLError(f"unexpected ID {peer}")
        connection.request("GET", "/" + "/".join(arguments.url.removeprefix("https://").split("/")[1:]))
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def get(arguments):
    ok, problem, body = 0, "", ""
    with X509Source(socket_path=arguments.endpoint) as source:
        for _ in range(arguments.count):
            try:
                status, text = get_once(source, arguments)
                if status == 200:
                    ok, body = ok + 1, text
                else:
                    problem = problem or f"status {status}"
            except Exception as error:  # noqa: BLE001 - every failure is an outcome
                problem = problem or f"{type(error).__name__}: {error}"
            time.sleep(arguments.interval)
    say(ok=ok, of=arguments.count, body=body, problem=problem)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["sources", "serve", "get"])
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--peer", default="")
    parser.add_argument("--url", default="")
    parser.add_argument("--max-tls", default="1.3")
    parser.add_argument("--fresh", action="store_true", help="a new connection for each request: always so")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--interval", type=float, default=0)
    arguments = parser.parse_args()
    {"sources": sources, "serve": serve, "get": get}[arguments.verb](arguments)


if __name__ == "__main__":
    main()
