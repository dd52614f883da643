"""Key pairs for the signature scenarios, made once per run by openssl."""

import os
import subprocess

ALGORITHMS = {
    "rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:3072"],
    "ed25519": ["-algorithm", "ED25519"],
    "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    "p521": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
}


def pair(directory, kind, name):
    """Paths of the private (PKCS#8 PEM) and public (SPKI PEM) key of `name`."""
    private = os.path.join(directory, f"{kind}-{name}.key.pem")
    public = os.path.join(directory, f"{kind}-{name}.pub.pem")
    if not os.path.exists(public):
        subprocess.run(
            ["openssl", "genpkey", *ALGORITHMS[kind], "-out", private],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.chmod(private, 0o600)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public
