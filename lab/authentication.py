# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Authenticates clients: HTTP Basic, NTLM, Negotiate with NTLM, and message encryption.

NTLM over plain HTTP encrypts each envelope (MS-WSMV 2.2.9.1). NTLM over TLS
and Basic do not. NTLM authenticates a connection, Basic authenticates each
request.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
import struct
from typing import NamedTuple

import spnego
import spnego.exceptions

SCHEMES = ("basic", "ntlm")

_PROTOCOL = "application/HTTP-SPNEGO-session-encrypted"
_ENCRYPTED = re.compile(
    r'multipart/encrypted;\s*protocol="([^"]{1,80})";\s*boundary="Encrypted Boundary"', re.IGNORECASE
)
_BOUNDARY = b"--Encrypted Boundary"
_OCTETS = b"\tContent-Type: application/octet-stream\r\n"


class Rejected(Exception):
    """The request is not authenticated: the answer is 401 with these WWW-Authenticate values.

    ``failed`` is True for wrong credentials, and False for a step of an exchange.
    """

    def __init__(self, challenges: list[str], failed: bool) -> None:
        super().__init__("401")
        self.challenges = challenges
        self.failed = failed


class EncryptionError(Exception):
    """The envelope lacks the required encryption, or was changed in transit."""


class Accepted(NamedTuple):
    """The user, and the WWW-Authenticate value that ends the exchange ("" for none)."""

    user: str
    challenge: str


class Credentials:
    """The one account of a lab, and the schemes (of SCHEMES) that its nodes accept.

    pyspnego reads the accounts of an NTLM acceptor from the file that
    NTLM_USER_FILE names, on every exchange. This file exists only in memory,
    so that the inventory is the only file with the password. Raises OSError
    on a platform without memfd_create (Linux has it).
    """

    def __init__(self, user: str, password: str, schemes: tuple[str, ...]) -> None:
        self.user = user
        self.schemes = schemes
        self._password = password
        if "ntlm" in schemes:
            if not hasattr(os, "memfd_create"):
                raise OSError("NTLM in a lab needs memfd_create, which only Linux has; use --auth basic")
            self._store = os.memfd_create("lab-ntlm")
            os.write(self._store, f":{user}:{password}\n".encode())
            os.environ["NTLM_USER_FILE"] = f"/proc/self/fd/{self._store}"

    def matches(self, user: str, password: str) -> bool:
        """Return True for the right user and password. Windows ignores the case of a user name."""
        same_password = hmac.compare_digest(password.encode(), self._password.encode())
        return same_password and user.casefold() == self.user.casefold()


class Session:
    """The authentication of one connection."""

    def __init__(self, credentials: Credentials, encrypted_transport: bool) -> None:
        """``encrypted_transport`` is True for TLS, where messages need no encryption."""
        self._credentials = credentials
        self._encrypted_transport = encrypted_transport
        self._context: spnego.ContextProxy | None = None
        self._user = ""

    def authenticate(self, authorization: str) -> Accepted:
        """Check the Authorization header of a request ("" for none). Raises Rejected."""
        scheme, _space, token = authorization.partition(" ")
        scheme = scheme.lower()
        try:
            decoded = base64.b64decode(token.strip(), validate=True)
        except binascii.Error:
            raise self._rejection(failed=True) from None
        if scheme == "basic" and "basic" in self._credentials.schemes:
            user, _colon, password = decoded.decode("utf-8", "replace").partition(":")
            if not self._credentials.matches(user, password):
                raise self._rejection(failed=True)
            return Accepted(self._credentials.user, "")
        if scheme in ("negotiate", "ntlm") and "ntlm" in self._credentials.schemes:
            return self._step(scheme, decoded)
        if not authorization and self._user:
            return Accepted(self._user, "")
        raise self._rejection(failed=bool(authorization))

    def unwrap(self, content_type: str, body: bytes) -> tuple[bytes, bool]:
        """Return the envelope in a body, and whether it was encrypted. Raises EncryptionError."""
        if not _ENCRYPTED.match(content_type):
            if self._user and not self._encrypted_transport:
                raise EncryptionError(
                    "NTLM over HTTP needs message encryption, as on a host with AllowUnencrypted=false"
                )
            return body, False
        if self._context is None or not self._context.complete:
            raise EncryptionError("the message is encrypted, but NTLM has not authenticated the connection")
        parts = body.split(_BOUNDARY + b"\r\n")
        # The parts: an empty one, the headers, and the octets with the closing boundary.
        if len(parts) != 3 or not parts[2].startswith(_OCTETS):
            raise EncryptionError("the multipart/encrypted body does not have two parts")
        data = parts[2].removeprefix(_OCTETS).removesuffix(_BOUNDARY + b"--\r\n")
        if len(data) < 4:
            raise EncryptionError("the multipart/encrypted body has no signature")
        (length,) = struct.unpack("<I", data[:4])
        try:
            return self._context.unwrap_winrm(data[4 : 4 + length], data[4 + length :]), True
        except spnego.exceptions.SpnegoError as error:
            raise EncryptionError(f"the encrypted message does not verify: {error}") from error

    def wrap(self, envelope: bytes) -> tuple[str, bytes]:
        """Encrypt ``envelope``; return the content type and the body."""
        if self._context is None:
            raise AssertionError("call unwrap before wrap")
        wrapped = self._context.wrap_winrm(envelope)
        length = len(envelope) + wrapped.padding_length
        body = b"".join(
            [
                _BOUNDARY,
                f"\r\n\tContent-Type: {_PROTOCOL}\r\n".encode(),
                f"\tOriginalContent: type=application/soap+xml;charset=UTF-8;Length={length}\r\n".encode(),
                _BOUNDARY,
                b"\r\n",
                _OCTETS,
                struct.pack("<I", len(wrapped.header)),
                wrapped.header,
                wrapped.data,
                _BOUNDARY,
                b"--\r\n",
            ]
        )
        return f'multipart/encrypted;protocol="{_PROTOCOL}";boundary="Encrypted Boundary"', body

    def _step(self, scheme: str, token: bytes) -> Accepted:
        if self._context is None or self._context.complete:
            protocol = "ntlm" if token.startswith(b"NTLMSSP\0") else "negotiate"
            self._user = ""
            self._context = spnego.server(protocol=protocol)
        try:
            answer = self._context.step(token)
        # pyspnego does not check lengths before it unpacks a token.
        except (spnego.exceptions.SpnegoError, ValueError, IndexError, struct.error, KeyError):
            self._context = None
            raise self._rejection(failed=True) from None
        name = "NTLM" if scheme == "ntlm" else "Negotiate"
        challenge = f"{name} {base64.b64encode(answer).decode()}" if answer else ""
        if not self._context.complete:
            raise Rejected([challenge or name], failed=False)
        self._user = self._credentials.user
        return Accepted(self._user, challenge)

    def _rejection(self, failed: bool) -> Rejected:
        challenges = ["Negotiate"] if "ntlm" in self._credentials.schemes else []
        if "basic" in self._credentials.schemes:
            challenges.append('Basic realm="WSMAN"')
        return Rejected(challenges, failed)
