"""A TLS front with a certificate of its own authority, before a plain server; it also takes
CONNECT, so that it can play the proxy on the way to itself. Ends when standard input closes.

usage: tls_front.py UPSTREAM_PORT CA_FILE HOST    prints its port
"""

import datetime
import os
import socket
import ssl
import sys
import tempfile
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

upstream, ca_file, host = int(sys.argv[1]), sys.argv[2], sys.argv[3]


def certificate(subject, issuer, key, signer, ca):
    now = datetime.datetime.now(datetime.timezone.utc)
    name = lambda text: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
    builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name(issuer)).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=2))
    builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName(host)]), critical=False)
    return builder.sign(signer, hashes.SHA256())


pem = lambda thing: thing.public_bytes(serialization.Encoding.PEM)
authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
with open(ca_file, "wb") as file:
    file.write(pem(certificate("test authority", "test authority", authority, authority, True)))
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
with tempfile.NamedTemporaryFile() as file:
    file.write(pem(certificate(host, "test authority", key, authority, False)))
    file.write(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    file.flush()
    context.load_cert_chain(file.name)


def pump(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def serve(client):
    try:
        if client.recv(1, socket.MSG_PEEK) == b"C":
            request = b""
            while not request.endswith(b"\r\n\r\n"):
                request += client.recv(1)
            print("CONNECT", request.split()[1].decode(), file=sys.stderr, flush=True)
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        secure = context.wrap_socket(client, server_side=True)
    except OSError:
        client.close()
        return
    server = socket.create_connection(("127.0.0.1", upstream))
    threading.Thread(target=pump, args=(server, secure), daemon=True).start()
    pump(secure, server)


def accept():
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
threading.Thread(target=accept, daemon=True).start()
sys.stdin.read()
os._exit(0)
