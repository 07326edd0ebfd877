# Copyright (c) 2026 wcow.snapshotter maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may talk to a lab node: HTTP Basic, NTLM and Negotiate with NTLM, and message encryption.

With NTLM over plain HTTP each envelope is encrypted (MS-WSMV 2.2.9.1); over
TLS it is not, and Basic never encrypts. NTLM authenticates a connection,
Basic each request.
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
    """The request is not, or not yet, authenticated: 401 with these WWW-Authenticate values.

    ``failed`` tells wrong credentials from a step on the way.
    """

    def __init__(self, challenges: list[str], failed: bool) -> None:
        super().__init__("401")
        self.challenges = challenges
        self.failed = failed


class EncryptionError(Exception):
    """An envelope that is not encrypted as it must be, or that has been changed on its way."""


class Accepted(NamedTuple):
    """The user, and the WWW-Authenticate value (or "") that ends the exchange."""

    user: str
    challenge: str


class Credentials:
    """The one account of a lab and the schemes (of SCHEMES) that its nodes accept.

    pyspnego reads the accounts of an NTLM acceptor from the file that
    NTLM_USER_FILE names, each time. That file is kept in memory only, so the
    password is on no disk but in the inventory. Raises OSError where the
    platform has no memfd_create (Linux has).
    """

    def __init__(self, user: str, password: str, schemes: tuple[str, ...]) -> None:
        self.user = user
        self.schemes = schemes
        self._password = password
        if "ntlm" in schemes:
            if not hasattr(os, "memfd_create"):
                raise OSError("NTLM in a lab needs memfd_create, which Linux has; use --auth basic here")
            self._store = os.memfd_create("lab-ntlm")
            os.write(self._store, f":{user}:{password}\n".encode())
            os.environ["NTLM_USER_FILE"] = f"/proc/self/fd/{self._store}"

    def matches(self, user: str, password: str) -> bool:
        """Whether these are the user (in any case, as on Windows) and the password."""
        same_password = hmac.compare_digest(password.encode(), self._password.encode())
        return same_password and user.casefold() == self.user.casefold()


class Session:
    """The authentication of one connection."""

    def __init__(self, credentials: Credentials, encrypted_transport: bool) -> None:
        """``encrypted_transport``: the connection is TLS, so that messages need no encryption."""
        self._credentials = credentials
        self._encrypted_transport = encrypted_transport
        self._context: spnego.ContextProxy | None = None
        self._user = ""

    def authenticate(self, authorization: str) -> Accepted:
        """Judge a request by its Authorization header ("" for none). Raises Rejected."""
        scheme, _, token = authorization.partition(" ")
        scheme = scheme.lower()
        try:
            decoded = base64.b64decode(token.strip(), validate=True)
        except binascii.Error:
            raise self._rejection(failed=True) from None
        if scheme == "basic" and "basic" in self._credentials.schemes:
            user, _, password = decoded.decode("utf-8", "replace").partition(":")
            if not self._credentials.matches(user, password):
                raise self._rejection(failed=True)
            return Accepted(self._credentials.user, "")
        if scheme in ("negotiate", "ntlm") and "ntlm" in self._credentials.schemes:
            return self._step(scheme, decoded)
        if not authorization and self._user:
            return Accepted(self._user, "")
        raise self._rejection(failed=bool(authorization))

    def unwrap(self, content_type: str, body: bytes) -> tuple[bytes, bool]:
        """The envelope in a body, and whether it was encrypted. Raises EncryptionError."""
        if not _ENCRYPTED.match(content_type):
            if self._user and not self._encrypted_transport:
                raise EncryptionError(
                    "NTLM over HTTP without message encryption is refused, as by AllowUnencrypted=false"
                )
            return body, False
        if self._context is None or not self._context.complete:
            raise EncryptionError("an encrypted message on a connection that NTLM has not authenticated")
        parts = body.split(_BOUNDARY + b"\r\n")
        # An empty part, the headers, the octets with the end of the boundary.
        if len(parts) != 3 or not parts[2].startswith(_OCTETS):
            raise EncryptionError("a multipart/encrypted body without its two parts")
        data = parts[2].removeprefix(_OCTETS).removesuffix(_BOUNDARY + b"--\r\n")
        if len(data) < 4:
            raise EncryptionError("a multipart/encrypted body without a signature")
        (length,) = struct.unpack("<I", data[:4])
        try:
            return self._context.unwrap_winrm(data[4 : 4 + length], data[4 + length :]), True
        except spnego.exceptions.SpnegoError as error:
            raise EncryptionError(f"an encrypted message that does not verify: {error}") from error

    def wrap(self, envelope: bytes) -> tuple[str, bytes]:
        """The content type and the body that carry ``envelope`` encrypted."""
        if self._context is None:
            raise AssertionError("wrap follows unwrap")
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
        # pyspnego unpacks tokens of strangers without checking lengths first.
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
